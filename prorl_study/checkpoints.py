"""Checkpoints that a killed run goes on from: which are complete, which are whole, whose they are.

Beside what the trainer writes, a checkpoint holds the study's own state, written last and with a digest of
every file, so that a half-written or damaged one is told from a good one. Who trains, and what the state
says, is no matter of this module.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prorl_study.errors import StudyError
from prorl_study.files import digests, write_json

STATE_FILE = "study_state.json"
"""Written last into a checkpoint: its existence means that the checkpoint is complete."""


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in `folder` that were written to their end, the newest first."""
    complete = [c for c in folder.glob("checkpoint-*") if (c / STATE_FILE).is_file()]
    return sorted(complete, key=lambda c: int(c.name.rpartition("-")[2]), reverse=True)


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Complete the checkpoint in `folder`: its state, with the digests of all other files and its own."""
    state = dict(state) | {"files": digests(folder)}
    write_json(state | {"own": _own_digest(state)}, folder / STATE_FILE)


def read_state(folder: Path) -> dict[str, Any]:
    """The study's state in a checkpoint or a model; empty in a model that no segment made."""
    path = folder / STATE_FILE
    return json.loads(path.read_text()) if path.is_file() else {}


def passed_on(folder: Path) -> dict[str, Any]:
    """The state in a checkpoint without what is true of its files and its run alone."""
    return {k: v for k, v in read_state(folder).items() if k not in ("identity", "files", "own")}


def _own_digest(state: Mapping[str, Any]) -> str:
    """Digest of the state itself, which cannot stand among those of the other files."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def damage(checkpoint: Path) -> str:
    """Name of a file that is not what was written, or empty."""
    try:
        state = read_state(checkpoint)
        written, own = state["files"], state.pop("own")
    except (ValueError, KeyError):
        return STATE_FILE
    if own != _own_digest(state):
        return STATE_FILE
    present = digests(checkpoint)
    return next((name for name, value in written.items() if present.get(name) != value), "")


def difference(one: Any, two: Any, name: str = "") -> str:
    """Where two nested dictionaries first differ, as `name: one, not two`; empty where they do not."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        for key in sorted({*one, *two}):
            found = difference(one.get(key), two.get(key), f"{name}.{key}" if name else str(key))
            if found:
                return found
        return ""
    return "" if one == two else f"{name}: {one!r}, not {two!r}"


def usable_checkpoint(folder: Path, wanted: Mapping[str, Any], budget: int) -> Path | None:
    """The newest checkpoint in `folder` to go on from, or None.

    A damaged one is named on stderr and deleted, and the one before it is taken; one that went beyond
    `budget` sampled tokens is passed over. Raises StudyError, naming the difference, where a checkpoint was
    made by another run than `wanted`, an `identity`.
    """
    for checkpoint in complete_checkpoints(folder):
        if bad := damage(checkpoint):
            print(f"{checkpoint}: {bad} is damaged; going on from the checkpoint before.", file=sys.stderr)
            shutil.rmtree(checkpoint)
            continue
        state = read_state(checkpoint)
        if apart := difference(json.loads(json.dumps(wanted)), state["identity"]):
            raise StudyError(
                f"{checkpoint} was made by another run ({apart}); delete {folder} or restore what was "
                "changed."
            )
        beyond = state["trainer"]["tokens"]["sampled"] >= budget
        if beyond and (not state["ended"] or state["budget"] > budget):
            continue
        return checkpoint
    return None


def spent(model: Path) -> int:
    """Tokens that were sampled on the way to `model`."""
    state = read_state(model)
    return state["trainer"]["tokens"]["sampled"] if state else 0
