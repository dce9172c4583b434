"""The arms that the default study trains beside its own chain, at the chain's budget, as runs with rows.

`train` is arm `prorl`: its models are judged, not trained again. An arm that differs at boundaries alone goes
on from the chain's first segment. Left out: how a run is done (`runs`), and what the rows say (`ablations`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from prorl_study.errors import StudyError
from prorl_study.experiments import ARM_KEYS, SEGMENT_KEYS, RunPlan, recipe
from prorl_study.params import PLAIN_ENGINE, ArmsParams, EngineParams, SegmentParams, TrainParams, build
from prorl_study.paths import Workspace

if TYPE_CHECKING:
    from prorl_study.sampling import Sampler

EXPERIMENT = "laptop"
"""What the rows say that they belong to."""
AT_ONCE = 2
"""Runs of one thread beside each other: more is done so than by one run of two threads. Where the engine is
not the plain one, a card's say, one at a time."""


def plans(train: TrainParams, chain: Sequence[SegmentParams], arms: ArmsParams, seed: int) -> list[RunPlan]:
    """`prorl` and the arms that change it, each with the chain's budgets.

    What an arm says of boundaries holds at every boundary. Raises StudyError for a name or a value that is
    none.
    """
    found = []
    for arm, changes in {"prorl": {}, **arms.arms}.items():
        where = f"params.yaml, arms.{arm}"
        if strange := sorted(set(ARM_KEYS) & set(changes) - set(SEGMENT_KEYS)):
            raise StudyError(f"{where}: {', '.join(strange)} cannot be changed; segments are the chain's.")
        own = {key: value for key, value in changes.items() if key in SEGMENT_KEYS}
        found.append(
            RunPlan(
                name=arm,
                experiment=EXPERIMENT,
                arm=arm,
                base="main",
                seed=seed,
                factors=dict(changes),
                train=recipe(train, changes, where),
                segments=[build(SegmentParams, asdict(segment) | own, where) for segment in chain],
                test_problems=arms.arm_problems,
                test_samples=arms.arm_samples,
            )
        )
    return found


def shared(plan: RunPlan, train: TrainParams, chain: Sequence[SegmentParams]) -> int:
    """How many segments of `plan` the chain of the stages trains too: all, or the first ones where the plan
    differs at boundaries alone."""
    if plan.train != train:
        return 0
    number = 0
    for own, segment in zip(plan.segments, chain, strict=True):
        if number and own != segment:
            break
        number += 1
    return number


def trained(
    plan: RunPlan, train: TrainParams, chain: Sequence[SegmentParams], ws: Workspace
) -> dict[str, list[str]]:
    """Segments of `plan` that the chain holds already, as `RunConfig.trained` wants them."""
    found, tables = {}, ws.results / "training"
    for segment in chain[: shared(plan, train, chain)]:
        name = segment.segment
        found[name] = [str(ws.model(name)), str(tables / f"{name}.csv"), str(tables / f"{name}_checks.csv")]
    return found


def run_all(
    train: TrainParams,
    chain: Sequence[SegmentParams],
    arms: ArmsParams,
    sampler: Sampler,
    isolation: str,
    seed: int,
    ws: Workspace,
    engine: EngineParams = PLAIN_ENGINE,
) -> list[dict[str, Any]]:
    """Train and judge every arm, `AT_ONCE` beside each other, in processes of their own; returns the rows.

    Rows lie in `results/arms/`. Raises StudyError where a model of the chain is missing or a run fails.
    """
    import json

    from prorl_study import launcher, progress, runs

    base, configs = ws.require(ws.model("base"), "base_model"), []
    for plan in plans(train, chain, arms, seed):
        out, done = ws.results / "arms" / f"{plan.name}.json", trained(plan, train, chain, ws)
        for name, (model, *_) in done.items():
            ws.require(Path(model), f"train@{name}")
        others = {"trained": done, "engine": engine}
        configs.append(runs.prepare(plan, base, out, ws, sampler, isolation, **others))
    configs.sort(key=lambda config: len(config.trained))  # the longest first
    logs = [[log for log in c.logs() if log.parent.name not in c.trained] for c in configs]
    left = sum(s.tokens for c in configs for s in c.plan.segments if s.segment not in c.trained)
    bar = progress.ChainsProgress(logs, left, "arms")
    jobs = [([config.file()], Path(config.work) / "run.log") for config in configs]
    at_once = AT_ONCE if engine == PLAIN_ENGINE else 1
    launcher.run_modules("prorl_study.runs", jobs, at_once, bar)
    bar.close()
    return [json.loads(Path(config.out).read_text()) for config in configs]


def table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line per arm: what it spent, and its test scores (percent, mean of the domains) at its segments'
    ends."""
    from prorl_study.evidence import score

    return [
        {
            "arm": row["arm"],
            "tokens": row["tokens_sampled"],
            "flops": row["flops"],
            "steps": row["steps"],
            **{end["segment"]: score(end) for end in row["ends"]},
            "entropy": row["last"]["entropy"],
        }
        for row in rows
    ]


def curves(rows: Sequence[Mapping[str, Any]], kind: str, figure: str) -> pd.DataFrame:
    """Curve `kind` of every row as one table: `arm`, thousands of sampled `tokens`, `figure`."""
    return pd.concat(
        pd.DataFrame(
            {"arm": row["arm"], "tokens": np.divide(row[kind]["tokens"], 1000), figure: row[kind][figure]}
        )
        for row in rows
    )
