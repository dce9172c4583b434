"""Logic puzzles: Reasoning Gym's tasks at their default difficulty, generated from a seed.

The paper holds three tasks out. Tasks whose scorer cannot be trusted are left out by `judges.reasoning_gym`,
which names the evidence; entries without an answer are dropped and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import zip_longest

from prorl_study.errors import StudyError
from prorl_study.hub.sources import Drop, Item, Row, Source
from prorl_study.judges import reasoning_gym as judge

HELD_OUT = ("acre", "boxnet", "game_of_life_halting")
"""Never trained on (2505.24864, Table 3)."""
TRAINING_PUZZLES = 37_000
PER_TASK = 100
"""Evaluation puzzles of each task (2505.24864, App. D.4)."""
TRAINING_SEED, EVALUATION_SEED = 20250530, 20250717


def tasks() -> list[str]:
    """All tasks of the package that are judged, the held-out ones too, sorted."""
    from reasoning_gym.factory import DATASETS

    judge.refusal("")  # registers the tasks
    return sorted(name for name in DATASETS if not judge.refusal(name))


def trainable() -> list[str]:
    return [name for name in tasks() if name not in HELD_OUT]


def entries(names: Sequence[str], seed: int, total: int) -> Iterator[Row]:
    """`total` entries, spread over the tasks as evenly as can be, the tasks in turn: the first few hundred
    are of all of them."""
    rounds = zip_longest(
        *(
            _of_task(name, seed, total // len(names) + (number < total % len(names)))
            for number, name in enumerate(names)
        )
    )
    yield from (entry for turn in rounds for entry in turn if entry is not None)


def _of_task(name: str, seed: int, size: int) -> Iterator[Row]:
    import reasoning_gym

    if reason := judge.refusal(name):
        yield from ({"task": name, "refused": reason} for _ in range(size))
    elif size:
        made = reasoning_gym.create_dataset(name, seed=seed, size=size)
        yield from ({"task": name, **entry} for entry in made)


def puzzle(row: Row) -> Item:
    if row.get("refused"):
        raise Drop(f"task not judged ({row['refused']})")
    try:
        problem = judge.from_entry(row, row["task"])
    except StudyError as error:
        raise Drop(str(error).split(".")[0]) from None
    return Item(problem, f"</think><answer>{problem.answer}</answer>")


_PACKAGE = {"domain": "logic", "licence": "Apache-2.0 (reasoning-gym)", "map": puzzle}

TRAINING = (
    Source(
        name="reasoning_gym_train",
        rows=lambda: entries(trainable(), TRAINING_SEED, TRAINING_PUZZLES),
        expected=TRAINING_PUZZLES,
        note=f"held out: {', '.join(HELD_OUT)}",
        **_PACKAGE,
    ),
)

BENCHMARKS = (
    Source(
        name="reasoning_gym",
        rows=lambda: entries(trainable(), EVALUATION_SEED, PER_TASK * len(trainable())),
        note=f"{PER_TASK} a task; the paper has 96 tasks",
        expected=9_600,
        **_PACKAGE,
    ),
    Source(
        name="reasoning_gym_ood",
        rows=partial(entries, HELD_OUT, EVALUATION_SEED, PER_TASK * len(HELD_OUT)),
        note="boxnet is not judged: its entries have no oracle",
        expected=PER_TASK * len(HELD_OUT),
        **_PACKAGE,
    ),
)
