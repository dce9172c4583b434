"""Run cards: what a stage's run cost, where and from which code it ran.

Everything that differs from run to run (time, host, commit) lives here, in `results/run_cards/`, and
never in a page or a result, so that those are equal whenever the study is. No stage reads a card.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from prorl_study.files import digest
from prorl_study.params import load_yaml

LIBRARIES = ("torch", "transformers", "trl", "datasets", "math-verify", "reasoning-gym", "if-verifiable")
"""What decides the numbers, beside the study's own code."""
SAMPLE_SECONDS = 1.0
"""Time between two looks at the process tree's memory."""


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that decide the study's numbers, without build tags."""
    return {name: version(name).split("+")[0] for name in LIBRARIES}


def claims_hash(params_file: Path) -> str:
    """SHA-256 of the section `claims`, comments and order apart: what was fixed before a run."""
    section = load_yaml(params_file).get("claims", {})
    return hashlib.sha256(json.dumps(section, sort_keys=True).encode()).hexdigest()


def git_commit(root: Path) -> str:
    """The commit that `root` stands on, with `-dirty` when tracked files differ; `none` outside git."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "none"
    return answer.stdout.strip() or "none"


def host() -> dict[str, Any]:
    """The machine's kind: processor, usable cores, memory in GB. Not its name."""
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
    }


class _MemoryWatch(threading.Thread):
    """Peak memory of this process and all below it, in bytes.

    Sums proportional set sizes: resident sizes would count the pages that forked workers share once
    per worker.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._stop_asked = threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while True:
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue  # it ended between the listing and the look
            self.peak = max(self.peak, total)
            if self._stop_asked.wait(SAMPLE_SECONDS):
                return

    def stop(self) -> int:
        self._stop_asked.set()
        self.join()
        return self.peak


@contextmanager
def run_card(stage: str, results: Path, params_file: Path) -> Iterator[None]:
    """Measure the block and write `results/run_cards/<stage>.json` once it has succeeded.

    The card of an earlier success stays when the block fails. Times are of this run alone: a stage that
    resumed shows what was left to do.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    watch = _MemoryWatch()
    watch.start()
    try:
        yield
    finally:
        peak = watch.stop()
    card = {
        "stage": stage,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - clock, 1),
        "peak_memory_mb": round(peak / 2**20),
        "host": host(),
        "python": platform.python_version(),
        "versions": library_versions(),
        "commit": git_commit(params_file.parent),
        "params_sha256": digest(params_file),
        "claims_sha256": claims_hash(params_file),
    }
    path = results / "run_cards" / f"{stage}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(card, indent=2) + "\n")


def read_cards(results: Path) -> list[dict[str, Any]]:
    """All run cards, the earliest start first."""
    cards = [json.loads(path.read_text()) for path in (results / "run_cards").glob("*.json")]
    return sorted(cards, key=lambda card: card["started"])
