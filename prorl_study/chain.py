"""The chain of segments that leads to one, from the tables that each has left in `results/training`.

Every segment's page shows the whole way so far. Left out: training (`segments`) and drawing (`figures`).
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from prorl_study.errors import StudyError


def segments_before(folder: Path, previous: str) -> list[str]:
    """Names of the segments that lead to the model `previous`, in order; none where it is `base`.

    Raises StudyError where one of them has left no results in `folder`.
    """
    names: list[str] = []
    while previous != "base":
        path = folder / f"{previous}.json"
        if not path.is_file():
            raise StudyError(f"{path} is missing; make it with `dvc repro train@{previous}`.")
        names.insert(0, previous)
        previous = json.loads(path.read_text())["previous"]
    return names


def with_those_before(
    folder: Path, previous: str, log: pd.DataFrame, checks: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`log` (a row per rollout step) and `checks` (a row per validation) of a segment, after those of the
    segments that lead to it."""
    names = segments_before(folder, previous)
    logs = [pd.read_csv(folder / f"{name}.csv") for name in names]
    earlier = [pd.read_csv(folder / f"{name}_checks.csv") for name in names]
    return pd.concat([*logs, log], ignore_index=True), pd.concat([*earlier, checks], ignore_index=True)


def boundaries(log: pd.DataFrame) -> list[int]:
    """Sampled tokens at which a segment ended and the next began."""
    ends = log.groupby("segment", sort=False).tokens_sampled.last()
    return [int(tokens) for tokens in ends.iloc[:-1]]
