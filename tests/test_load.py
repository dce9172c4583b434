"""A long mixed load on one pool; its own suite, `make load-test`, since it takes minutes."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from random import Random

import psutil
import pytest

from prorl_study.domains import DOMAINS, Problem
from prorl_study.verification import Limits, VerificationPool

ITEMS, BATCHES, HOSTILE = 20_000, 20, 0.05
LIMITS = Limits(cpu_seconds=0.5, wall_seconds=2.5, memory_mb=256)


def program(body: str) -> str:
    return (
        "```python\nimport os, sys, time\ndef f(x):\n"
        + "".join(f"    {line}\n" for line in body.split("\n"))
        + "```"
    )


HOSTILE_PROGRAMS = {
    "loop": (program("while True: pass"), {"timeout"}),
    "exit": (program("os._exit(0)"), {"crashed"}),
    "kill": (program("os.kill(os.getpid(), 9)"), {"crashed"}),
    "memory": (program("y = bytearray(3 << 30)"), {"wrong"}),
    "fork bomb": (program("while True: os.fork()"), {"crashed", "timeout"}),
    "flood": (program("while True: print('x' * 10000)"), {"timeout"}),
    "daemon": (
        program("if os.fork() == 0:\n    os.setsid()\n    time.sleep(100)\nreturn None"),
        {"wrong", "crashed"},
    ),
    "recursion": (program("return f(x)"), {"wrong"}),
    "import": ("```python\nimport no_such_module\n```", {"crashed"}),
    "kills its runner": (program("os.kill(os.getppid(), 9)"), {"wrong"}),
}
"""What a hostile program may be judged as."""


def resident_mb() -> float:
    """Of this process and all that it started."""
    me = psutil.Process()
    return sum(p.memory_info().rss for p in [me, *me.children(recursive=True)]) / 2**20


@pytest.mark.load
def test_twenty_thousand_verifications_lose_nothing_swap_nothing_and_leave_nothing():
    rng = Random(0)
    expected: list[set[str]] = []
    items: list[tuple[Problem, str]] = []
    for index in range(ITEMS):
        if rng.random() < HOSTILE:
            text, statuses = rng.choice(list(HOSTILE_PROGRAMS.values()))
            items.append((DOMAINS["code"].generate(5, "train", index), text))
            expected.append(statuses)
            continue
        domain = rng.choice(list(DOMAINS.values()))
        problem = domain.generate(5, "train", index)
        right = rng.random() < 0.5
        items.append((problem, domain.solve(problem) if right else domain.garbage(problem, rng)))
        expected.append({"correct"} if right else {"wrong", "partial", "unparseable"})
    size, memory, statuses = ITEMS // BATCHES, [], Counter()
    started = time.monotonic()
    with VerificationPool(workers=2, limits=LIMITS, remembered=0) as pool:
        for at in range(0, ITEMS, size):
            found = pool.verify(items[at : at + size])
            assert len(found) == size
            for (problem, text), verdict, allowed in zip(items[at:], found, expected[at:], strict=False):
                assert verdict.status in allowed, (problem.id, text, verdict)
                statuses[verdict.status] += 1
            memory.append(resident_mb())
        workers = [worker.process.pid for worker in pool._workers]
        stats = pool.stats
    seconds = time.monotonic() - started
    print(f"\n{ITEMS} verifications in {seconds:.0f} s; {dict(statuses)}; {stats}")
    print(f"resident MB by batch: {[round(m) for m in memory]}")
    assert sum(statuses.values()) == ITEMS
    # Scorers cache; after a quarter of the load nothing may grow any more.
    assert max(memory[BATCHES // 4 :]) < 1.25 * max(memory[: BATCHES // 4])
    assert not psutil.Process().children(recursive=True)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # no zombie


@pytest.mark.load
def test_ten_hanging_programs_in_a_thousand_cost_no_more_than_their_share_of_each_worker():
    """Ten limits of one second, shared by two workers, are five; piled up on one they would be ten."""
    limits = Limits(cpu_seconds=1.0, wall_seconds=20.0)
    problems = [DOMAINS["code"].generate(5, "train", index) for index in range(1000)]
    hanging = HOSTILE_PROGRAMS["loop"][0]
    with VerificationPool(workers=2, limits=limits, remembered=0) as pool:
        right = [(problem, DOMAINS["code"].solve(problem)) for problem in problems]
        pool.verify(right[:10])
        started = time.monotonic()
        pool.verify(right)
        without = time.monotonic() - started
        for places in (range(500, 510), range(0, 1000, 100), range(990, 1000)):
            batch = [(problem, hanging) if n in places else right[n] for n, problem in enumerate(problems)]
            started = time.monotonic()
            found = pool.verify(batch)
            extra = time.monotonic() - started - without
            assert [v.status == "timeout" for v in found] == [n in places for n in range(1000)]
            print(f"\nten hanging at {places}: {extra:.1f} s more than the {without:.1f} s without")
            assert extra < 8.0
