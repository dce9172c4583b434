"""Throughput of the verification pool: `python benchmarks/bench_verification.py [ITEMS] [WORKERS]`.

Prints per domain the seconds to the first verdict (processes started, scorers imported) and then the
items per second for right and habitual answers. Left out: limits that fire; those cost their limit.
"""

from __future__ import annotations

import sys
import time
from random import Random

from prorl_study.domains import DOMAINS
from prorl_study.verification import VerificationPool


def main(items: int = 512, workers: int = 1) -> None:
    print(f"{items} items per domain, {workers} worker(s)")
    print(f"{'domain':<12} {'first verdict, s':>17} {'right, items/s':>15} {'habit, items/s':>15}")
    with VerificationPool(workers=workers, remembered=0) as pool:
        for name, domain in DOMAINS.items():
            problems = [domain.generate(0, "train", index) for index in range(items)]
            started = time.perf_counter()
            pool.verify([(problem, domain.solve(problem)) for problem in problems[:workers]])
            first, rates = time.perf_counter() - started, []
            for answer in (domain.solve, lambda problem, habit=domain.habit: habit(problem, Random(0))):
                batch = [(problem, answer(problem)) for problem in problems]
                started = time.perf_counter()
                pool.verify(batch)
                rates.append(items / (time.perf_counter() - started))
            print(f"{name:<12} {first:>17.2f} {rates[0]:>15.0f} {rates[1]:>15.0f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
