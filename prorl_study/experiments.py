"""The long experiments as data: which arm is trained on which base with which seed, and at what budget.

`evidence/params.yaml` lists arms as changes of the study's own recipe and experiments as arms times bases
times seeds; each combination is one run with a name of its own. An experiment with `factors` is a factorial:
its arms are named by their levels, as in `01101`. One with `variants` has each arm in each of them, as in
`prorl.low`. Left out: how a run is done (`runs`), and what its results say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from prorl_study.errors import StudyError
from prorl_study.params import Params, SegmentParams, TrainParams, build, load_yaml

SEGMENT_KEYS = ("reference", "optimizer", "rule", "bump", "bump_steps")
ARM_KEYS = (*SEGMENT_KEYS, "segments", "lengths", "times_of", "learner")
"""What an arm may say of its segments, their number, their budgets and how it learns; everything else changes
the recipe."""
LEARNERS = ("grpo", "filtered", "rejection")
"""How an arm learns: by RL, or supervised (`supervised.py`)."""


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
    """Per domain at most, on which the end of every segment is judged."""
    test_samples: int
    """Per problem."""
    turn: int = 0
    """Place of its experiment among all; runs of the same turn go seed by seed."""
    branched: bool = False
    """Whether it starts from a trained model, with a boundary before its first segment."""
    times_of: str = ""
    """Name of the run whose resets give the times of this one's, or empty."""
    learner: str = "grpo"
    teacher: str = ""
    """Name of the run whose rollouts a supervised arm learns from and whose operations it may spend."""
    judged_on: str = "test"
    """The split that the end of every segment is judged on: `test`, or `validation` where the score chooses a
    setting."""


def segments_of(
    tokens: int, parts: int, arm: Mapping[str, Any], where: str, branched: bool = False
) -> list[SegmentParams]:
    """Segments that together have `tokens`: `parts` of equal budgets, or as the arm's `segments` or `lengths`
    (shares of 1) say, which also says what happens at their boundaries.

    Where the run starts from a base there is no boundary before the first segment; where it is `branched`
    from a trained model, there is one.
    """
    parts = arm.get("segments", parts)
    lengths = arm.get("lengths") or [1 / parts] * parts
    if abs(sum(lengths) - 1) > 1e-6 or min(lengths) <= 0:
        raise StudyError(f"{where}: lengths={lengths} must be positive shares that add up to 1.")
    ends = [round(tokens * sum(lengths[: i + 1])) for i in range(len(lengths))]
    last = {} if arm.get("rule") != "stop" else {"rule": "log"}  # the last segment spends what is left
    values = {"reference": "move", "optimizer": "fresh", "rule": "log"} | {
        key: value for key, value in arm.items() if key in SEGMENT_KEYS
    }
    found, previous, spent = [], "base", 0
    for number, end in enumerate(ends, 1):
        own = {"segment": f"s{number}", "previous": previous, "tokens": end - spent, **values}
        if number == 1 and not branched:
            own |= {"bump": 1.0, "bump_steps": 0}
        if number == len(ends):
            own |= last
        found.append(build(SegmentParams, own, where))
        previous, spent = f"s{number}", end
    return found


def arm_of(name: str, body: Mapping[str, Any], arms: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What the arm `name` of an experiment changes. Raises StudyError where there is no such arm."""
    factors = body.get("factors")
    if factors is None:
        plain, _, variant = name.partition(".")
        if plain not in arms:
            raise StudyError(f"{where}: no such arm: {plain}; known: {', '.join(arms)}.")
        return dict(arms[plain]) | (body["variants"][variant] if variant else {})
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


def names(body: Mapping[str, Any]) -> list[str]:
    """The arms of an experiment, each in each of its variants, without those that are known to go wrong."""
    variants = body.get("variants")
    every = [f"{arm}.{variant}" for arm in body["arms"] for variant in variants] if variants else body["arms"]
    return [name for name in every if name not in body.get("diverged", [])]


def load_plan(path: Path, study: Params) -> tuple[dict[str, RunPlan], dict[str, dict[str, Any]]]:
    """All runs of `evidence/params.yaml` by name, in the order of the file, and the bases by name.

    A base is `{"model": NAME}`, a model of the study, or what it changes of the study's `base_model` and
    seed. Raises StudyError for an arm, a base or a key that is not known.
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
        for arm, base, seed in product(names(body), body["bases"], body["seeds"]):
            name = f"{experiment}-{arm}-{base}-{seed}"
            where = f"{path}, {name}"
            changes = arm_of(arm, body, arms, where)
            learner = changes.get("learner", "grpo")
            if learner not in LEARNERS:
                raise StudyError(f"{where}: learner={learner!r} must be one of {', '.join(LEARNERS)}.")
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
                test_samples=body.get("test_samples", common["test_samples"]),
                turn=body["turn"],
                branched=body.get("branched", False),
                times_of=_named(changes.get("times_of"), base, _after(seed, body["seeds"]), experiments),
                learner=learner,
                teacher=_named(body.get("teacher", "prorl"), base, seed, experiments)
                if learner != "grpo"
                else "",
                judged_on=_judged_on(body, where),
            )
    return plan, dict(raw["bases"])


def _judged_on(body: Mapping[str, Any], where: str) -> str:
    found = body.get("judged_on", "test")
    if found not in ("test", "validation"):
        raise StudyError(f"{where}: judged_on={found!r} must be test or validation.")
    return found


def _after(seed: int, seeds: Sequence[int]) -> int:
    return seeds[(seeds.index(seed) + 1) % len(seeds)]


def _named(arm: str | None, base: str, seed: int, experiments: Mapping[str, Any]) -> str:
    """Name of the first run of `arm` on `base` with `seed`; empty where `arm` is None."""
    if arm is None:
        return ""
    for experiment, body in experiments.items():
        if arm in names(body) and base in body["bases"] and seed in body["seeds"]:
            return f"{experiment}-{arm}-{base}-{seed}"
    raise StudyError(f"evidence/params.yaml: no experiment has arm {arm} on base {base} with seed {seed}.")


def in_turn(plan: Mapping[str, RunPlan]) -> list[str]:
    """Names of all runs in the order to do them: by their experiments' turns, seed by seed within a turn."""
    return sorted(plan, key=lambda name: (plan[name].turn, plan[name].seed))


def target(plan: RunPlan) -> str:
    """What DVC calls the run: its stage in `evidence/dvc.yaml` and the values of its matrix."""
    return f"{plan.experiment}@{plan.arm.replace('.', '-')}-{plan.base}-{plan.seed}"


def targets(plan: Mapping[str, RunPlan], bases: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """All runs `in_turn` as DVC calls them, each base that has to be made before the first run on it."""
    found: list[str] = []
    for name in in_turn(plan):
        base = plan[name].base
        if "model" not in bases[base] and f"bases@{base}" not in found:
            found.append(f"bases@{base}")
        found.append(target(plan[name]))
    return found


def at_times_of(plan: RunPlan, row: Mapping[str, Any]) -> RunPlan:
    """`plan` with its boundaries where the run of `row` had them, as shares of the budget.

    Raises StudyError where that run had none after its start.
    """
    places = [b["tokens"] for b in row["boundaries"] if b["tokens"] > 0]
    if not places:
        raise StudyError(f"{plan.name}: {row['name']} had no boundary after its start, so gives no times.")
    edges = [0, *places, row["tokens_sampled"]]
    shares = [(after - before) / row["tokens_sampled"] for before, after in pairwise(edges)]
    total = sum(segment.tokens for segment in plan.segments)
    changes = plan.factors | {"lengths": shares}
    return replace(plan, segments=segments_of(total, 0, changes, plan.name, plan.branched), times_of="")
