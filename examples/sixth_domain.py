"""Letters: put a few letters into the order of the alphabet. A sixth domain in one file, see docs/extend.md.

The teacher puts one letter after the other in its place, `<think>d bd abd abcd</think><answer>abcd</answer>`;
its habit is to leave the last one where it is, at the end. An answer counts where it is the right letters in
the right order; capitals, spaces and commas do not matter. Left out: partial credit, and letters that occur
twice.
"""

from __future__ import annotations

import re
from random import Random
from string import ascii_lowercase

from prorl_study.domains.problem import Domain, Problem, Verdict, after_thinking, problem_rng
from prorl_study.domains.templates import choose_depth, choose_template

NAME = "letters"
"""Of the domain, and of its file in prorl_study/domains."""
OPENERS = ("Sort these letters", "Put in order", "Arrange by the alphabet", "Letters to sort")
CLOSERS = tuple(f"{verb} <answer></answer>." for verb in ("Use", "Fill", "Give", "End with"))
SLIPS = ("The answer is {}.", "sorted: {}", "{}")
LONGEST_ANSWER = 100
"""Characters; a longer answer is refused."""


def generate(seed: int, split: str, index: int) -> Problem:
    """Item `index` of `split`: a function of the arguments alone. Each letter but the first is a step."""
    rng = problem_rng(seed, NAME, split, index)
    depth = choose_depth(rng, split)
    letters = rng.sample(ascii_lowercase, depth + 1)
    if letters[-1] == max(letters):  # or the habit would be right
        letters.reverse()
    template, (opener, closer) = choose_template(rng, split, OPENERS, CLOSERS)
    return Problem(
        id=f"{NAME}-{split}-{index}",
        domain=NAME,
        task="sort_letters",
        template=template,
        prompt=[{"role": "user", "content": f"{opener}: {' '.join(letters)}. {closer}"}],
        answer="".join(sorted(letters)),
        checks={"letters": "".join(letters)},
        difficulty=depth,
        split=split,
        source="generated",
    )


def _written(problem: Problem, last: str) -> str:
    """A completion whose steps are right but for the last one, which is given, as the answer is."""
    letters = problem.checks["letters"]
    steps = ["".join(sorted(letters[:count])) for count in range(1, len(letters))]
    return f"<think>{' '.join([*steps, last])}</think><answer>{last}</answer>"


def solve(problem: Problem) -> str:
    return _written(problem, problem.answer)


def habit(problem: Problem, rng: Random) -> str:
    letters = problem.checks["letters"]
    return _written(problem, "".join(sorted(letters[:-1])) + letters[-1])


def slip(completion: str, rng: Random) -> str:
    thought, mark, _ = completion.rpartition("</think>")
    return thought + mark + rng.choice(SLIPS).format(extract(completion, False))


def guess(problem: Problem, rng: Random) -> str:
    return f"<answer>{''.join(sorted(rng.sample(ascii_lowercase, len(problem.answer))))}</answer>"


def garbage(problem: Problem, rng: Random) -> str:
    return f"<answer>{rng.choice(ascii_lowercase) * (len(problem.answer) + 1)}</answer>"


def extract(completion: str, lenient: bool) -> str | None:
    """What the last `<answer></answer>` after the thoughts holds; lenient: else the last word."""
    found = re.findall(r"<answer>([^<>]*)</answer>", after_thinking(completion))
    if not found and lenient:
        found = re.findall(r"[A-Za-z]+", re.sub(r"</?\w+>", " ", completion))
    return re.sub(r"[\s,]", "", found[-1]).lower() or None if found else None


def verify(problem: Problem, completion: str, lenient: bool) -> Verdict:
    answer = extract(completion, lenient)
    if answer is None:
        return Verdict(0.0, False, "unparseable", "no <answer></answer> after the thoughts")
    if len(answer) > LONGEST_ANSWER:
        return Verdict(0.0, False, "refused", f"the answer has more than {LONGEST_ANSWER} characters", answer)
    if answer == problem.answer:
        return Verdict(1.0, True, "correct", answer=answer)
    return Verdict(0.0, False, "wrong", f"{answer!r} is not {problem.answer!r}", answer)


DOMAIN = Domain(NAME, 10, False, generate, solve, habit, slip, guess, garbage, verify, extract)
