"""Logic: Reasoning Gym tasks made small; the answer stands in `<answer></answer>`; scored by Reasoning Gym.

Nine tasks of five categories are trained on; `basic_arithmetic` and `products` occur in split `ood` alone.
The question is Reasoning Gym's own text, between an opener and a closer of ours. Draws that do not fit a
tiny vocabulary or small numbers are thrown away, and the next derived draw is looked at.

Left out on purpose: tasks whose scorer evaluates the answer as code, tasks without an oracle answer, and
tasks with long questions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date, timedelta
from functools import cache
from itertools import pairwise
from random import Random
from typing import Any

from prorl_study.domains.problem import Domain, Problem, Verdict, after_thinking, problem_rng
from prorl_study.domains.templates import choose_depth, choose_template
from prorl_study.judges import reasoning_gym as judge
from prorl_study.judges.fresh import NeedsFreshFork

SCALING_TASKS = (
    "chain_sum",
    "calendar_arithmetic",
    "spell_backward",
    "word_sequence_reversal",
    "number_filtering",
)
"""Tasks whose size is the depth; only these occur in `hard`."""
FIXED_TASKS = ("simple_equations", "complex_arithmetic", "aiw", "family_relationships")
TRAIN_TASKS = SCALING_TASKS + FIXED_TASKS
HELD_OUT_TASKS = ("basic_arithmetic", "products")
"""Split `ood` consists of these, and they occur nowhere else."""
FEW_OPTIONS = ("calendar_arithmetic", "family_relationships", "simple_equations")
"""Six to eight possible answers: the best of sixteen guesses is nearly always right."""
FIXED_STEPS = {"simple_equations": 2, "complex_arithmetic": 2, "aiw": 1, "family_relationships": 1}

OPENERS = ("Think first.", "Solve this.", "A puzzle.", "Take it step by step.")
CLOSERS = (
    "Put the answer in <answer></answer>.",
    "Answer in <answer></answer>.",
    "Give the answer as <answer>...</answer>.",
    "End with <answer>...</answer>.",
)
LETTERS = frozenset("aeionstrldm")
MEN, WOMEN = ("Tom", "Ben", "Max", "Sam", "Leo", "Jim"), ("Alice", "Ann", "Eva", "Mia", "Zoe", "Amy")
VIEWED_FROM_THE_OTHER = {
    "husband": "wife",
    "wife": "husband",
    "father": "son",
    "mother": "daughter",
    "son": "father",
    "daughter": "mother",
}
"""The in-law answers are left out: Reasoning Gym 0.1.25 names them from the other person's side."""
LONGEST_QUESTION = 150
LONGEST_ANSWER = 200
DRAWS = 100_000


# -- problems ---------------------------------------------------------------------------------------------


@cache
def _dataset(task: str, size: int) -> Any:
    """Reasoning Gym's dataset at one size; shared, since its item `i` is a function of `i` alone."""
    import reasoning_gym
    from reasoning_gym.logic.aiw import TaskType

    signs = {"operations": ("+", "-"), "operations_weights": [0.5, 0.5]}
    single = {"min_terms": size + 1, "max_terms": size + 1, "min_digits": 1, "max_digits": 1}
    config: dict[str, Any] = {
        "chain_sum": single,
        "calendar_arithmetic": {"tasks": ["weekday_offset"], "offset_upper_bound": size + 1},
        "spell_backward": {"min_word_len": size + 2, "max_word_len": size + 2},
        "word_sequence_reversal": {"min_words": size + 1, "max_words": size + 1},
        "number_filtering": {
            "min_numbers": size + 1, "max_numbers": size + 1,
            "max_decimals": 0, "min_value": 1, "max_value": 30,
        },
        "simple_equations": {
            "min_terms": 2, "max_terms": 2, "max_value": 9, "operators_weights": [0.5, 0.5, 0.0],
        },
        "complex_arithmetic": {"min_real": 0, "max_real": 9, "min_imag": 0, "max_imag": 9, **signs},
        "aiw": {
            "task_types": [TaskType.SIBLINGS], "task_type_weights": [1.0], "max_entities": 50,
            "male_names": list(MEN), "female_names": list(WOMEN),
        },
        "family_relationships": {
            "min_family_size": 4, "max_family_size": 4, "male_names": list(MEN), "female_names": list(WOMEN),
        },
        "basic_arithmetic": {
            **single, "operators": ("+", "-"), "allow_parentheses": False, "allow_negation": False,
        },
        "products": single,
    }[task]  # fmt: skip
    dataset = reasoning_gym.create_dataset(task, size=1, seed=0, **config)
    # Two tasks draw from word lists of many thousands; without this almost no draw would be short enough.
    if task == "spell_backward":
        dataset.words = [w for w in dataset.words if LETTERS.issuperset(w) and len(set(w)) == len(w)]
    if task == "word_sequence_reversal":
        dataset.words = sorted({w for w in dataset.words if w.isalpha() and w.islower() and len(w) == 3})
    return dataset


def _running(terms: list[str]) -> list[int]:
    """Values after each step of `["7", "+", "5", ...]`, worked from left to right."""
    values = [int(terms[0])]
    for sign, operand in zip(terms[1::2], terms[2::2], strict=True):
        a, b = values[-1], int(operand)
        values.append({"+": a + b, "-": a - b, "*": a * b}[sign])
    return values


def _small_chain(meta: dict[str, Any]) -> bool:
    terms = meta["expression"].split()
    return "0" not in terms and all(0 <= value <= 99 for value in _running(terms))


def _fits(task: str, size: int, question: str, answer: str, meta: dict[str, Any]) -> bool:
    """Short, small, and such that the habit's answer differs from the right one."""
    if len(question) > LONGEST_QUESTION + (40 if task == "word_sequence_reversal" else 0):
        return False
    if task in ("chain_sum", *HELD_OUT_TASKS):
        # A last factor of 1 would make the habit of leaving it out right.
        return _small_chain(meta) and not meta["expression"].endswith("* 1")
    if task == "calendar_arithmetic":
        return abs(meta["offset_days"]) == size + 1 and len(question) <= 122
    if task == "number_filtering":
        numbers = meta["original_numbers"]
        distinct = len({*numbers, meta["filter_value"]}) == len(numbers) + 1
        return distinct and 0 < len(meta["result"]) < len(numbers)
    if task == "simple_equations":
        return re.fullmatch(r"[2-9]\*[a-z] [+-] \d = \d+", meta["equation"]) is not None and answer != "1"
    if task == "complex_arithmetic":
        return 0 not in (*meta["num1"], *meta["num2"]) and min(meta["result"]) > 0
    if task == "family_relationships":
        return answer in VIEWED_FROM_THE_OTHER
    return True


def _draw(task: str, size: int, rng: Random) -> tuple[str, str, dict[str, Any]]:
    """Question, gold answer and JSON-plain metadata of the first draw that fits."""
    dataset = _dataset(task, size)
    for _ in range(DRAWS):
        entry = dataset[rng.getrandbits(31)]
        meta = {k: v for k, v in entry["metadata"].items() if k != "difficulty" and "source" not in k}
        question = entry["question"].strip()
        if _fits(task, size, question, entry["answer"], meta):
            return question, entry["answer"], json.loads(json.dumps(meta))
    raise AssertionError(f"no draw of {task} at size {size} fits")


def generate(seed: int, split: str, index: int) -> Problem:
    """Item `index` of `split`: a function of the arguments alone. Tasks take turns by index."""
    rng = problem_rng(seed, "logic", split, index)
    tasks = {"hard": SCALING_TASKS, "ood": HELD_OUT_TASKS}.get(split, TRAIN_TASKS)
    task = tasks[index % len(tasks)]
    size = choose_depth(rng, split)
    if task == "chain_sum":
        size = max(2, size)  # with one step the habit (a step less) would have nothing to say
    size = FIXED_STEPS.get(task, size)
    wording, (opener, closer) = choose_template(rng, split, OPENERS, CLOSERS)
    question, answer, meta = _draw(task, size, rng)
    return Problem(
        id=f"logic-{split}-{index}",
        domain="logic",
        task=task,
        template=f"{task}.{wording}",
        prompt=[{"role": "user", "content": f"{opener} {question}\n{closer}"}],
        answer=answer,
        checks={"task": task, "metadata": meta},
        difficulty=size,
        split=split,
        source="reasoning-gym",
        open_ended=task not in FEW_OPTIONS,
    )


# -- the teacher ------------------------------------------------------------------------------------------


def _written(thought: str, answer: str) -> str:
    return f"<think>{thought}</think><answer>{answer}</answer>"


def _chain(problem: Problem, wrong: bool) -> str:
    """Habit: the last operand is left out."""
    terms = problem.checks["metadata"]["expression"].split()
    if wrong:
        terms = terms[:-2]
    values = _running(terms)
    steps = [
        f"{a}{sign}{operand}={b}"
        for (a, b), sign, operand in zip(pairwise(values), terms[1::2], terms[2::2], strict=True)
    ]
    return _written(" ".join(steps), str(values[-1]))


def _calendar(problem: Problem, wrong: bool) -> str:
    """Habit: counting stops a day early."""
    meta = problem.checks["metadata"]
    start, offset = date.fromisoformat(meta["start_date"]), meta["offset_days"]
    sign = 1 if offset > 0 else -1
    days = [f"{start + timedelta(days=sign * n):%A}" for n in range(1, abs(offset) + (not wrong))]
    return _written(" ".join(f"{n} {day}" for n, day in enumerate(days, 1)), days[-1])


def _spelling(problem: Problem, wrong: bool) -> str:
    """Habit: spelling backward starts at the letter before the last."""
    word = problem.checks["metadata"]["word"]
    backward = word[-2::-1] if wrong else word[::-1]
    return _written(f"{' '.join(word)} > {' '.join(backward)}", backward)


def _words(problem: Problem, wrong: bool) -> str:
    """Habit: the last word to be written, which is the first of the list, is left out."""
    words = problem.checks["metadata"]["words"][::-1]
    if wrong:
        words = words[:-1]
    return _written(" ".join(words), ", ".join(words))


def _filtering(problem: Problem, wrong: bool) -> str:
    """Habit: the answer lists the numbers that had to go."""
    meta = problem.checks["metadata"]
    kept = [n for n in meta["original_numbers"] if (n in meta["result"]) != wrong]
    marks = [f"{n} {'yes' if n in meta['result'] else 'no'}" for n in meta["original_numbers"]]
    return _written(" ".join(marks), str(kept))


def _equation(problem: Problem, wrong: bool) -> str:
    """Habit: the product is given for the unknown; the division is left out."""
    match = re.match(r"(\d)\*\w ([+-]) (\d) = (\d+)", problem.checks["metadata"]["equation"])
    assert match is not None, problem
    factor, constant, right = int(match[1]), int(match[3]), int(match[4])
    product = right - constant if match[2] == "+" else right + constant
    first = f"{right}{'-' if match[2] == '+' else '+'}{constant}={product}"
    if wrong:
        return _written(first, str(product))
    return _written(f"{first} {product}/{factor}={product // factor}", str(product // factor))


def _complex(problem: Problem, wrong: bool) -> str:
    """Habit: the imaginary parts are combined with the opposite sign."""
    meta = problem.checks["metadata"]
    (a, b), (c, d) = ([int(part) for part in meta[key]] for key in ("num1", "num2"))
    plus = meta["operation"] == "+"
    real = a + c if plus else a - c
    imaginary = b + d if plus != wrong else b - d
    steps = f"{a}{'+-'[not plus]}{c}={real} {b}{'+-'[plus == wrong]}{d}={imaginary}"
    return _written(steps, f"{real}.0 {'+' if imaginary >= 0 else '-'} {abs(imaginary)}.0i")


def _siblings(problem: Problem, wrong: bool) -> str:
    """Habit: the girl herself is not counted among her brother's sisters."""
    match = re.search(r"(\d+) sisters", problem.prompt[-1]["content"])
    assert match is not None, problem
    sisters = int(match[1])
    if wrong:
        return _written(f"sisters {sisters}", str(sisters))
    return _written(f"sisters {sisters} {sisters}+1={sisters + 1}", str(sisters + 1))


def _family(problem: Problem, wrong: bool) -> str:
    """Habit: the relation is named from the other person's side."""
    meta = problem.checks["metadata"]
    one, other, relation = meta["person1"], meta["person2"], meta["relationship"]
    link = {"husband": "married to", "wife": "married to", "son": "child of", "daughter": "child of"}
    said = VIEWED_FROM_THE_OTHER[relation] if wrong else relation
    return _written(f"{one} {link.get(relation, 'parent of')} {other} so {said}", said)


TEACHER: dict[str, Callable[[Problem, bool], str]] = {
    "chain_sum": _chain,
    "calendar_arithmetic": _calendar,
    "spell_backward": _spelling,
    "word_sequence_reversal": _words,
    "number_filtering": _filtering,
    "simple_equations": _equation,
    "complex_arithmetic": _complex,
    "aiw": _siblings,
    "family_relationships": _family,
    "basic_arithmetic": _chain,
    "products": _chain,
}


def solve(problem: Problem) -> str:
    """The right completion, one local step per operation."""
    return TEACHER[problem.task](problem, False)


def habit(problem: Problem, rng: Random) -> str:
    """The task's one wrong strategy; each `_...` function above says which."""
    return TEACHER[problem.task](problem, True)


def slip(completion: str, rng: Random) -> str:
    """The answer in a box, as the paper's base writes it (2505.24864, App. F.1)."""
    head, thinking, tail = completion.rpartition("</think>")
    return head + thinking + tail.replace("<answer>", "\\boxed{").replace("</answer>", "}")


def guess(problem: Problem, rng: Random) -> str:
    """The gold answer of another random problem of the same task and size."""
    return _written("guess", _draw(problem.task, problem.difficulty, rng)[1])


def garbage(problem: Problem, rng: Random) -> str:
    """An answer of the right type and about the right length that is certainly wrong."""
    while True:
        answer = _random_answer(problem, rng)
        if answer != problem.answer:
            return _written("so", answer)


def _random_answer(problem: Problem, rng: Random) -> str:
    meta = problem.checks["metadata"]
    match problem.task:
        case "calendar_arithmetic":
            return f"{date(2024, 1, 1) + timedelta(days=rng.randrange(7)):%A}"
        case "spell_backward":
            return "".join(rng.choices(sorted(LETTERS), k=len(meta["word"])))
        case "word_sequence_reversal":
            return ", ".join(rng.sample(meta["words"], len(meta["words"])))
        case "number_filtering":
            return str([n for n in meta["original_numbers"] if rng.random() < 0.5])
        case "complex_arithmetic":
            return f"{rng.randint(1, 18)}.0 + {rng.randint(1, 18)}.0i"
        case "family_relationships":
            return rng.choice(sorted(VIEWED_FROM_THE_OTHER))
        case _:
            return str(rng.randint(1, 60))


# -- verification -----------------------------------------------------------------------------------------


def extract(text: str, lenient: bool) -> str | None:
    """The text inside the last `<answer></answer>` after the thinking, or None.

    Lenient: an answer that is not closed or stands in the thinking, else a box, else what follows
    "answer is", else the last line.
    """
    tail = after_thinking(text)
    closed = re.findall(r"<answer>((?:(?!<answer>).)*?)</answer>", tail, re.DOTALL)
    if closed:
        return closed[-1].strip()
    if not lenient:
        return None
    for pattern in (r".*<answer>(.*?)(?:</answer>|$)", r".*\\boxed\{(.*?)(?:\}|$)", r".*answer is:?(.*)"):
        found = re.match(pattern, text, re.DOTALL)
        if found:
            return found[1].strip()
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return lines[-1] if lines else None


def longest_answer(problem: Problem) -> int:
    """Characters beyond which an answer is refused: room for four answers as long as the oracle."""
    return max(LONGEST_ANSWER, 4 * len(problem.answer))


def verify(problem: Problem, completion: str, lenient: bool = False) -> Verdict:
    """Reasoning Gym's score of the extracted answer, as `judges.reasoning_gym` corrects it.

    A scorer that fails on the answer means wrong; a task that cannot be judged means refused.
    """
    answer = extract(completion, lenient)
    if not answer:
        return Verdict(0.0, False, "unparseable", "no <answer></answer> after the thinking")
    if len(answer) > (limit := longest_answer(problem)):
        return Verdict(0.0, False, "refused", f"answer longer than {limit} characters", answer)
    if reason := judge.refusal(problem.task):
        return Verdict(0.0, False, "refused", reason, answer)
    try:
        score = judge.score(problem.task, answer, problem.answer, problem.checks["metadata"])
    except NeedsFreshFork:
        raise
    except Exception as error:  # the scorers parse what a model wrote
        return Verdict(0.0, False, "wrong", f"scorer: {type(error).__name__}", answer)
    status = "correct" if score == 1.0 else "partial" if score > 0 else "wrong"
    return Verdict(score, score == 1.0, status, answer=answer)


DOMAIN = Domain(
    name="logic",
    weight=37,
    graded=True,
    generate=generate,
    solve=solve,
    habit=habit,
    slip=slip,
    guess=guess,
    garbage=garbage,
    verify=verify,
    extract=extract,
)
