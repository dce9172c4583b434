"""A progress bar over a training log: the notebook's side of a run that happens in another process.

It is drawn on stderr, which the runner shows in the terminal and keeps out of the page: a page must not
change with the time that a run took.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from prorl_study.files import read_log


class LogProgress:
    """Draws `log.jsonl` as a bar with a few of its figures; call it as a launcher's `tick`."""

    def __init__(
        self,
        log: Path,
        total: int,
        label: str,
        figures: Mapping[str, str],
        counts: str = "step",
        start: int = 0,
    ) -> None:
        """`total` units of the log's figure `counts` are to come after `start`; `figures` maps names in the
        log to the short names that the bar shows."""
        self.log, self.figures, self.counts, self.start = log, dict(figures), counts, start
        self._bar = tqdm(total=total, desc=label, unit=" " + counts, unit_scale=total > 10_000, mininterval=1)

    def __call__(self) -> None:
        records = read_log(self.log)
        done = records[-1][self.counts] - self.start if records else 0
        if done <= self._bar.n:
            return
        last = records[-1]
        shown = {
            short: f"{last[name]:.3g}" for name, short in self.figures.items() if last.get(name) is not None
        }
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self()
        self._bar.close()


class ChainProgress(LogProgress):
    """One bar over the logs of segments that follow each other; tokens count from the start of the chain."""

    def __init__(self, logs: Sequence[Path], total: int, label: str, figures: Mapping[str, str]) -> None:
        super().__init__(logs[0], total, label, figures, "tokens_sampled")
        self.logs = list(logs)

    def __call__(self) -> None:
        self.log = next((log for log in reversed(self.logs) if log.is_file()), self.logs[0])
        super().__call__()


class ChainsProgress:
    """One bar over several chains that run beside each other; it shows how many tokens all have sampled."""

    def __init__(self, chains: Sequence[Sequence[Path]], total: int, label: str) -> None:
        """`chains` holds the logs of each chain's segments, `total` the tokens of all chains."""
        self.chains = [list(logs) for logs in chains]
        self._bar = tqdm(total=total, desc=label, unit=" tokens_sampled", unit_scale=True, mininterval=1)

    def __call__(self) -> None:
        done = sum(_sampled(read_log(log)) for logs in self.chains for log in logs)
        self._bar.update(max(0, done - self._bar.n))

    def close(self) -> None:
        self()
        self._bar.close()


def _sampled(records: Sequence[Mapping[str, float]]) -> int:
    """Tokens from the first record to the last: they count from the start of the chain."""
    return int(records[-1]["tokens_sampled"] - records[0]["tokens_sampled"]) if records else 0
