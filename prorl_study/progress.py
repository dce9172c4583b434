"""A progress bar over a training log: the notebook's side of a run that happens in another process.

It is drawn on stderr, which the runner shows in the terminal and keeps out of the page: a page must not
change with the time that a run took.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from prorl_study.files import read_log


class LogProgress:
    """Draws `log.jsonl` as a bar with a few of its figures; call it as a launcher's `tick`."""

    def __init__(self, log: Path, total: int, label: str, figures: Mapping[str, str]) -> None:
        """`figures` maps names in the log to the short names that the bar shows."""
        self.log, self.figures = log, dict(figures)
        self._bar = tqdm(total=total, desc=label, unit="step", mininterval=1.0)

    def __call__(self) -> None:
        records = read_log(self.log)
        if not records or records[-1]["step"] <= self._bar.n:
            return
        last = records[-1]
        shown = {
            short: f"{last[name]:.3g}" for name, short in self.figures.items() if last.get(name) is not None
        }
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(last["step"] - self._bar.n)

    def close(self) -> None:
        self()
        self._bar.close()
