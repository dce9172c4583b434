"""The study's splits from public sets: what is trained on, what decides, what is judged by.

`test`, `hard` and `ood` are benchmarks, `validation` is held out from the training sets, `train` is the rest
in the paper's mixture. A problem's task is its set where the set has no tasks of its own, so that the pages
show each benchmark by itself. Left out: fetching and cleaning the sets, which `prepare` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd

from prorl_study.domains import DOMAINS, Problem
from prorl_study.errors import StudyError
from prorl_study.hub import BENCHMARKS, TRAINING
from prorl_study.hub.prepare import prepare
from prorl_study.params import DataParams, OriginParams
from prorl_study.problems import (
    Judge,
    check_held_out,
    first_of_each,
    floors_by_task,
    load_problems,
    mixture,
    write_problems,
)

OOD = "reasoning_gym_ood"
"""The benchmark that is the split `ood`."""
NO_TASK = "hub"
"""Task of problems whose set has none."""
ANY_ANSWER = "</think>The answer is {0}. \\boxed{{{0}}} <answer>{0}</answer>\n```python\n{0}\n```"
"""A completion in the format of every domain."""


def build(
    origin: OriginParams, sizes: DataParams, seed: int, out: Path, work: Path, pool: Judge
) -> dict[str, Any]:
    """Fetch and clean the sets of `origin`, write `<split>.parquet` and `floors.json` into `out`.

    `sizes` bounds the training problems in all, the validation and hard problems of a domain and the test
    problems of a benchmark. Returns `{"card": ..., "counts": ..., "floors": ...}`, the card being that of
    `prepare`. Raises StudyError for an unknown set, one that cannot be had, and a domain without training
    problems.
    """
    asked = [*origin.benchmark_sets, *origin.hard_sets]
    _check_names(origin)
    limit = origin.hub_limit or None
    card = prepare([*asked, *origin.training_sets], None, limit, work, lambda: pool)
    sets = {name: _of_set(work, name) for name in [*asked, *origin.training_sets]}
    test = [name for name in origin.benchmark_sets if name != OOD]
    splits = {
        "test": [p for name in test for p in _drawn(sets[name], sizes.test_problems, seed, name)],
        "hard": _per_domain([p for name in origin.hard_sets for p in sets[name]], sizes.hard_problems, seed),
        "ood": first_of_each(sets.get(OOD, []), sizes.ood_problems, "task"),
    }
    training = [p for name in origin.training_sets for p in sets[name]]
    splits["validation"] = _per_domain(training, sizes.validation_problems, seed, most=0.5)
    held = {problem.id for problem in splits["validation"]}
    splits["train"] = _mixed([p for p in training if p.id not in held], sizes.train_problems, seed)
    splits = {split: [replace(p, split=split) for p in found] for split, found in splits.items()}
    _check_domains(splits)
    check_held_out(splits)
    everything = [p for found in splits.values() for p in found]
    floors = measure_floors(everything, sizes.floor_samples, seed, pool)
    write_problems(splits, floors, out)
    counts = {
        name: {split: sum(p.domain == name for p in found) for split, found in splits.items()}
        for name in DOMAINS
    }
    return {"card": card, "counts": counts, "floors": floors}


def _check_names(origin: OriginParams) -> None:
    for names, known, kind in (
        (origin.training_sets, TRAINING, "training set"),
        ([*origin.benchmark_sets, *origin.hard_sets], BENCHMARKS, "benchmark"),
    ):
        if strange := [name for name in names if name not in known]:
            raise StudyError(
                f"origin: no such {kind}: {', '.join(strange)}; known: {', '.join(known)}. Change it in "
                "params.yaml."
            )


def _check_domains(splits: Mapping[str, Sequence[Problem]]) -> None:
    trained = {p.domain for p in splits["train"]}
    if missing := sorted({p.domain for p in splits["test"]} - trained):
        raise StudyError(
            f"origin: nothing to train on for {', '.join(missing)}, which the benchmarks ask; add a training "
            "set or take these benchmarks out of params.yaml."
        )


def _of_set(folder: Path, name: str) -> list[Problem]:
    """The problems of a set that `prepare` has written; those without a task get the set's name as theirs."""
    return [replace(p, task=name) if p.task == NO_TASK else p for p in load_problems(folder, name)]


def _shuffled(problems: Sequence[Problem], seed: int, name: str) -> list[Problem]:
    order = list(problems)
    Random(f"{seed}/splits/{name}").shuffle(order)
    return order


def _drawn(problems: Sequence[Problem], count: int, seed: int, name: str) -> list[Problem]:
    """`count` of the problems by lot, in their own order; all where there are no more."""
    chosen = {p.id for p in _shuffled(problems, seed, name)[:count]}
    return [p for p in problems if p.id in chosen]


def _per_domain(problems: Sequence[Problem], count: int, seed: int, most: float = 1.0) -> list[Problem]:
    """`count` problems of each domain by lot, and at most the share `most` of those that are there."""
    found = []
    for name in DOMAINS:
        own = [p for p in problems if p.domain == name]
        found += _drawn(own, min(count, int(most * len(own))), seed, f"per domain/{name}")
    return found


def _mixed(problems: Sequence[Problem], total: int, seed: int) -> list[Problem]:
    """At most `total` problems, in the paper's mixture of the domains that are there; a domain that has fewer
    than its share gives all of them."""
    present = {p.domain for p in problems}
    shares = mixture(total, [name for name in DOMAINS if name in present])
    return [
        p
        for name, count in shares.items()
        for p in _drawn([p for p in problems if p.domain == name], count, seed, f"train/{name}")
    ]


def measure_floors(
    problems: Sequence[Problem], samples: int, seed: int, judge: Judge
) -> dict[str, dict[str, Any]]:
    """Per task, what somebody earns who has not read the problem: mean score and solved share.

    `garbage` is one fixed answer in every domain's format, `guess` the answer of another problem of the task
    (the fixed one where answers are programs or texts). Same keys as `problems.measure_floors`.
    """

    def write(kind: str, problem: Problem, members: Sequence[Problem]) -> str:
        other = Random(f"{seed}/guess/{problem.id}").choice(members)
        return ANY_ANSWER.format((other.answer if kind == "guess" else "") or "0")

    return floors_by_task(problems, samples, judge, write)


# ---- tables of the data card --------------------------------------------------------------------------


def sources_table(card: Mapping[str, Any], names: Sequence[str]) -> pd.DataFrame:
    """One row per set: where from, licence, rows, dropped, golds that pass (percent), overlapping, kept."""
    rows = []
    for name in names:
        one = card[name]
        share = 100 * one["golds_passed"] / one["golds"] if one["golds"] else float("nan")
        rows.append(
            {
                "set": name,
                "domain": one["domain"],
                "from": _origin(one),
                "licence": one["licence"],
                "rows": one["rows"],
                "dropped": sum(one["dropped"].values()),
                "golds_pass": share,
                "overlapping": len(one["overlapping"]),
                "problems": one["problems"],
                "expected": one["expected"] or None,
            }
        )
    return pd.DataFrame(rows)


def _origin(one: Mapping[str, Any]) -> str:
    """Where a set's rows came from; those of a mirror are of no commit that anybody has checked."""
    if not one["repo"]:
        return "reasoning-gym"
    return f"a copy of {one['repo']}" if one["mirror"] else f"{one['repo']}@{one['revision'][:8]}"


def drops_table(card: Mapping[str, Any], names: Sequence[str]) -> pd.DataFrame:
    """One row per set and reason for which rows became no problem, repeated prompts among them."""
    rows = [
        {"set": name, "reason": reason, "rows": count}
        for name in names
        for reason, count in card[name]["dropped"].items()
    ]
    return pd.DataFrame(rows, columns=["set", "reason", "rows"])


def overlap_table(card: Mapping[str, Any], names: Sequence[str], most: int = 20) -> pd.DataFrame:
    """The first `most` training problems that were taken out, with the benchmark problem that each shares
    words with."""
    rows = [{"set": name, **match} for name in names for match in card[name]["overlapping"]]
    return pd.DataFrame(rows[:most])


def compared_said(card: Mapping[str, Any], training_sets: Sequence[str]) -> str:
    """With how many benchmarks the training sets were compared, and with which they could not be."""
    one = card[training_sets[0]]
    absent = ", ".join(one["not_compared_with"])
    return f"{len(one['compared_with'])} benchmarks" + (f" (not to be had: {absent})" if absent else "")


def lengths_table(card: Mapping[str, Any], names: Sequence[str]) -> pd.DataFrame:
    """Prompt lengths of each set in characters, at the 5th, 50th and 95th percentile."""
    return pd.DataFrame([{"set": name, **card[name]["prompt_characters"]} for name in names])


def samples_table(card: Mapping[str, Any], names: Sequence[str]) -> pd.DataFrame:
    """The first problem of each set: prompt and answer."""
    firsts = {name: Problem.from_row(card[name]["samples"][0]) for name in names if card[name]["samples"]}
    return pd.DataFrame(
        {"set": name, "prompt": problem.prompt[-1]["content"], "answer": problem.answer}
        for name, problem in firsts.items()
    )
