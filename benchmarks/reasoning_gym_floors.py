"""What Reasoning Gym's tasks pay without solving: `python benchmarks/reasoning_gym_floors.py`.

Writes `prorl_study/judges/reasoning_gym_tasks.json`, which `judges.reasoning_gym.floors` reads. Per task, of
items of default difficulty: the mean score and the share solved of another item's oracle (`guess`) and of
random characters in the oracle's pattern (`garbage`). About a minute on one core. Left out: tasks that are
not judged, and items that `from_entry` refuses.
"""

from __future__ import annotations

import contextlib
import io
import json
import string
import time
from pathlib import Path
from random import Random

import reasoning_gym as library
from reasoning_gym.factory import DATASETS

import prorl_study.judges.reasoning_gym as judge
from prorl_study.domains import Problem, logic
from prorl_study.errors import StudyError
from prorl_study.judges.fresh import enter_throwaway_fork

TABLE = Path(judge.__file__).with_name("reasoning_gym_tasks.json")
SEED = 2025
ITEMS = 50
FEWER_ITEMS = {"futoshiki": 12, "knight_swap": 12, "zebra_puzzles": 20}
"""Tasks whose items take 0.1 to 0.25 seconds each to generate."""


def problems(task: str, items: int) -> list[Problem]:
    """The first `items` of the task's default configuration that can be judged."""
    found = []
    with contextlib.redirect_stdout(io.StringIO()):  # codeio prints the errors of its programs
        dataset = library.create_dataset(task, size=items, seed=SEED)
        for index in range(items):
            with contextlib.suppress(StudyError):
                found.append(judge.from_entry(dataset[index], task))
    return found


def garbage(oracle: str, rng: Random) -> str:
    """Random characters of the same classes at the same places; blanks and punctuation stay."""
    symbols = sorted({c for c in oracle if not c.isascii()})
    kinds = (string.digits, string.ascii_lowercase, string.ascii_uppercase, symbols)
    return "".join(next((rng.choice(kind) for kind in kinds if c in kind), c) for c in oracle)


def measure(task: str, items: int) -> dict[str, float]:
    """Floors of one task; a function of its arguments, for those tasks that the library seeds."""
    found, rng = problems(task, items), Random(f"floors/{task}")
    guesses = [found[index - 1].answer for index in range(len(found))]
    row = {"items": len(found)}
    for name, answers in (("guess", guesses), ("garbage", [garbage(p.answer, rng) for p in found])):
        verdicts = [
            logic.verify(problem, f"<answer>{answer}</answer>")
            for problem, answer in zip(found, answers, strict=True)
        ]
        row[f"{name}_score"] = round(sum(v.score for v in verdicts) / len(found), 3)
        row[f"{name}_solved"] = round(sum(v.solved for v in verdicts) / len(found), 3)
    return row


def main() -> None:
    started = time.perf_counter()
    enter_throwaway_fork()  # the answers are ours
    tasks = [task for task in sorted(DATASETS) if not judge.refusal(task)]
    rows = [f'"{task}": {json.dumps(measure(task, FEWER_ITEMS.get(task, ITEMS)))}' for task in tasks]
    TABLE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
    print(f"{len(tasks)} tasks in {time.perf_counter() - started:.0f} s: {TABLE}")


if __name__ == "__main__":
    main()
