"""Files that runs leave behind: JSON written whole or not at all, logs that a kill cannot spoil, hashes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_json(value: Any, path: Path) -> None:
    """Indented JSON, atomically; the same value gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    os.replace(partial, path)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex; read in blocks, so that a large model does not fill the memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(folder: Path, patterns: Sequence[str] = ("**/*",)) -> dict[str, str]:
    """`digest` of every file in `folder` that matches a pattern, by its path in the folder, sorted."""
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {path.relative_to(folder).as_posix(): digest(path) for path in sorted(found)}


VERDICT_CODE = (
    "domains/*.py",
    "judges/code.py",
    "judges/instructions.py",
    "judges/latex.py",
    "judges/reasoning_gym*",
    "verification/candidate.py",
    "verification/limits.py",
    "verification/plain.py",
)
"""Code that decides what a verdict says. How it is brought about, behind which walls and by which messages,
is left out: it may change without anything that rests on verdicts being made anew."""


def code_digests(*patterns: str) -> dict[str, str]:
    """`digests` of this package's own files: what was made by other code must not be continued."""
    return digests(Path(__file__).parent, patterns)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a `log.jsonl`, none where there is no file; a last line that a kill cut is dropped."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
