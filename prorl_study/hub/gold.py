"""Whether a set's own answers earn full credit, and whether others' solutions agree with them.

A problem whose gold fails under its verifier would punish right answers, so it is dropped, and the share that
passes is reported per source. Works in pieces that outlast a kill, through the verification pool alone: what
stands in a public set is hostile input as much as what a model writes. Left out: mending the golds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from prorl_study.domains import Problem
from prorl_study.files import VERDICT_CODE, code_digests
from prorl_study.hub.sources import Item, Read
from prorl_study.pieces import Pieces, fingerprint
from prorl_study.problems import Judge

PIECE = 500
"""Problems whose verdicts are kept together."""
GOLD_FAILS, OTHERS_DISAGREE = "its own answer does not earn full credit", "another solution disagrees"


@dataclass(frozen=True)
class Checked:
    """What is left of a source."""

    problems: list[Problem]
    golds: int
    """Problems that came with a gold completion."""
    passed: int
    """Those of them whose gold earns full credit."""
    failing: list[str]
    """Ids of the others."""
    disagreeing: list[str]
    """Ids of problems whose gold passes and with which another solution does not agree."""

    @property
    def share(self) -> float:
        """Share of golds that pass; NaN where the set has none."""
        return self.passed / self.golds if self.golds else float("nan")


def check(read: Read, open_pool: Callable[[], Judge], folder: Path) -> Checked:
    """Judge every gold and every other solution of `read`; finished pieces lie in `folder`.

    `open_pool` is called for the first piece that is not there yet. Problems without a gold are kept. Raises
    what the pool raises.
    """
    pieces = Pieces(folder / read.source.name, open_pool)
    code = code_digests(*VERDICT_CODE)
    found = pd.concat(
        [
            pieces.get(fingerprint([_plain(item) for item in part], code), _judged, part)
            for part in _parts(read.items)
        ],
        ignore_index=True,
    )
    pieces.remove_stale()
    by_id = {item.problem.id: item.problem for item in read.items}
    golds = found[found.kind == "gold"]
    failing = golds[~golds.solved].problem.tolist()
    others = found[(found.kind == "other") & ~found.solved & ~found.problem.isin(failing)]
    disagreeing = sorted(set(others.problem), key=list(by_id).index)
    left_out = {*failing, *disagreeing}
    return Checked(
        problems=[problem for name, problem in by_id.items() if name not in left_out],
        golds=len(golds),
        passed=int(golds.solved.sum()),
        failing=failing,
        disagreeing=disagreeing,
    )


def _parts(items: list[Item]) -> list[list[Item]]:
    return [items[start : start + PIECE] for start in range(0, len(items), PIECE)]


def _plain(item: Item) -> list[object]:
    return [item.problem.row(), item.gold, item.others]


def _judged(pool: Judge, items: list[Item]) -> pd.DataFrame:
    asked = [(item.problem, "gold", item.gold) for item in items if item.gold]
    asked += [(item.problem, "other", text) for item in items for text in item.others]
    verdicts = pool.verify([(problem, text) for problem, _, text in asked])
    return pd.DataFrame(
        {
            "problem": [problem.id for problem, _, _ in asked],
            "kind": [kind for _, kind, _ in asked],
            "solved": [bool(verdict.solved) for verdict in verdicts],
            "status": [verdict.status for verdict in verdicts],
        }
    ).astype({"solved": bool})
