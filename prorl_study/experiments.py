"""The long experiments as data: which arm is trained on which base with which seed, and at what budget.

`evidence/params.yaml` lists arms as changes of the study's own recipe and experiments as arms times bases
times seeds; each combination is one run with a name of its own. An experiment with `factors` is a factorial:
its arms are named by their levels, as in `01101`. Left out: how a run is done (`runs`), and what its results
say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from prorl_study.errors import StudyError
from prorl_study.params import Params, SegmentParams, TrainParams, build, load_yaml

SEGMENT_KEYS = ("reference", "optimizer", "rule", "bump", "bump_steps")
ARM_KEYS = (*SEGMENT_KEYS, "segments", "lengths")
"""What an arm may say of its segments, their number and their budgets; everything else changes the recipe."""


@dataclass(frozen=True)
class RunPlan:
    """One run: an arm on a base with a seed."""

    name: str
    experiment: str
    arm: str
    base: str
    seed: int
    factors: dict[str, Any]
    """What the arm changes, by name."""
    train: TrainParams
    segments: list[SegmentParams]
    test_problems: int
    """Per domain, on which the end of every segment is judged."""
    test_samples: int
    """Per problem."""


def segments_of(
    tokens: int, parts: int, arm: Mapping[str, Any], where: str, branched: bool = False
) -> list[SegmentParams]:
    """Segments that together have `tokens`: `parts` of equal budgets, or as the arm's `segments` or `lengths`
    (shares of 1) say, which also says what happens at their boundaries.

    Where the run starts from a base there is no boundary before the first segment; where it is `branched`
    from a trained model, there is one.
    """
    parts = arm.get("segments", parts)
    lengths = arm.get("lengths", [1 / parts] * parts)
    if abs(sum(lengths) - 1) > 1e-6 or min(lengths) <= 0:
        raise StudyError(f"{where}: lengths={lengths} must be positive shares that add up to 1.")
    ends = [round(tokens * sum(lengths[: i + 1])) for i in range(len(lengths))]
    values = {"reference": "move", "optimizer": "fresh", "rule": "log"} | {
        key: value for key, value in arm.items() if key in SEGMENT_KEYS
    }
    found, previous, spent = [], "base", 0
    for number, end in enumerate(ends, 1):
        own = {"segment": f"s{number}", "previous": previous, "tokens": end - spent, **values}
        if number == 1 and not branched:
            own |= {"bump": 1.0, "bump_steps": 0}
        found.append(build(SegmentParams, own, where))
        previous, spent = f"s{number}", end
    return found


def arm_of(name: str, body: Mapping[str, Any], arms: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What the arm `name` of an experiment changes. Raises StudyError where there is no such arm."""
    factors = body.get("factors")
    if factors is None:
        if name not in arms:
            raise StudyError(f"{where}: no such arm: {name}; known: {', '.join(arms)}.")
        return dict(arms[name])
    if len(name) != len(factors) or set(name) - {"0", "1"}:
        raise StudyError(f"{where}: arm {name} must have a 0 or a 1 for each of {', '.join(factors)}.")
    changes: dict[str, Any] = {}
    for level, levels in zip(name, factors.values(), strict=True):
        changes |= levels[int(level)]
    return changes


def recipe(train: TrainParams, changes: Mapping[str, Any], where: str) -> TrainParams:
    """`train` with `changes`. Raises StudyError for an unknown name or a value of the wrong type."""
    values = {f.name: getattr(train, f.name) for f in fields(train)} | {
        key: value for key, value in changes.items() if key not in ARM_KEYS
    }
    return build(TrainParams, values, where)


def load_plan(path: Path, study: Params) -> tuple[dict[str, RunPlan], dict[str, str]]:
    """All runs of `evidence/params.yaml` by name, in the order of the file, and the bases' folders by name.

    Raises StudyError for an arm, a base or a key that is not known.
    """
    raw = load_yaml(path)
    common, arms, experiments = raw["common"], raw["arms"], raw["experiments"]
    train = recipe(study.train, common.get("train", {}), f"{path}, common.train")
    plan: dict[str, RunPlan] = {}
    for experiment, body in experiments.items():
        strange = [base for base in body["bases"] if base not in raw["bases"]]
        if strange:
            raise StudyError(
                f"{path}, {experiment}: no such base: {', '.join(strange)}; known: {', '.join(raw['bases'])}."
            )
        for arm, base, seed in product(body["arms"], body["bases"], body["seeds"]):
            name = f"{experiment}-{arm}-{base}-{seed}"
            where = f"{path}, {name}"
            changes = arm_of(arm, body, arms, where)
            plan[name] = RunPlan(
                name=name,
                experiment=experiment,
                arm=arm,
                base=base,
                seed=seed,
                factors=changes,
                train=recipe(train, changes, where),
                segments=segments_of(
                    body.get("tokens", common["tokens"]),
                    body.get("segments", common["segments"]),
                    changes,
                    where,
                    body.get("branched", False),
                ),
                test_problems=common["test_problems"],
                test_samples=common["test_samples"],
            )
    return plan, dict(raw["bases"])
