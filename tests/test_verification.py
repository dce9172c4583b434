"""Claims about the isolated judging of model output, each on real worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from prorl_study.domains import DOMAINS, Problem
from prorl_study.errors import StudyError
from prorl_study.verification import Limits, VerificationPool, handle
from prorl_study.verification.channel import Frames, pack

SHORT = Limits(cpu_seconds=1.0, wall_seconds=8.0, memory_mb=256, answer_chars=4000)


@pytest.fixture(scope="module")
def pool():
    with VerificationPool(workers=2, limits=SHORT) as opened:
        yield opened


@pytest.fixture(scope="module")
def without_walls():
    """For programs that leave a note outside, where the test can read it."""
    with pytest.warns(UserWarning, match="your rights"):
        opened = VerificationPool(workers=1, limits=SHORT, isolation="process")
    with opened:
        yield opened


def examples(domain: str, count: int) -> list[Problem]:
    return [DOMAINS[domain].generate(3, "validation", index) for index in range(count)]


CODE = examples("code", 1)[0]
RIGHT = DOMAINS["code"].solve(CODE)


def program(*lines: str) -> str:
    """A completion whose function runs `lines`."""
    body = "\n".join(f"    {line}" for line in lines)
    return f"<think>x</think>```python\nimport os, sys, time\ndef f(x):\n{body}\n```"


def daemon(note: Path, *then: str) -> str:
    """A completion that leaves a process in another session, which writes its id to `note`."""
    return program(
        "if os.fork() == 0:",
        "    os.setsid()",
        "    if os.fork() == 0:",
        f"        open({str(note)!r}, 'a').write(str(os.getpid()) + chr(10))",
        "        time.sleep(600)",
        "    os._exit(0)",
        "os.wait()",
        f"while not os.path.exists({str(note)!r}): time.sleep(0.01)",
        *then,
    )


def mixed_batch(count: int) -> list[tuple[Problem, str]]:
    batch = [(p, domain.solve(p)) for domain in DOMAINS.values() for p in examples(domain.name, count)]
    Random(0).shuffle(batch)
    return batch


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def vanish(pids: list[int], seconds: float = 10.0) -> bool:
    """Whether all of `pids` are gone within `seconds`."""
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


def marked_processes() -> list[int]:
    """Every process on this machine that some pool's worker started."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if f"{handle.MARK}=".encode() in (process / "environ").read_bytes():
                    found.append(int(process.name))
            except OSError:
                continue
    return found


def worker_pids(pool: VerificationPool) -> list[int]:
    """Of the judging processes and of the runners."""
    return [p.pid for worker in pool._workers for p in (worker.process, *worker.runners)]


def test_gold_answers_of_all_domains_score_one_and_wrong_ones_stay_in_their_places(pool):
    batch = mixed_batch(8)
    texts = [text for _, text in batch]
    for index in range(0, len(batch), 3):
        problem = batch[index][0]
        texts[index] = DOMAINS[problem.domain].garbage(problem, Random(index))
    verdicts = pool.verify([(problem, text) for (problem, _), text in zip(batch, texts, strict=True)])
    for index, found in enumerate(verdicts):
        assert found.solved == (index % 3 != 0), (batch[index][0].id, texts[index], found)
        assert (found.score == 1.0) == found.solved


def test_pools_of_different_size_give_equal_verdicts(pool):
    batch = mixed_batch(6)
    batch += [(p, DOMAINS[p.domain].habit(p, Random(i))) for i, (p, _) in enumerate(batch)]
    with VerificationPool(workers=1, limits=SHORT) as alone:
        assert alone.verify(batch) == pool.verify(batch)


def test_without_answers_nothing_else_of_a_verdict_changes(pool):
    batch = mixed_batch(4)
    with_answers, without = pool.verify(batch), pool.verify(batch, answers=False)
    assert {v.answer for v in without} == {None} and None not in {v.answer for v in with_answers}
    assert without == [replace(v, answer=None) for v in with_answers]


def test_programs_that_depend_on_hash_order_or_chance_get_the_same_verdict_every_time():
    # The verdict names the class of what is raised at import, so order and chance choose the class.
    text = "\n".join(
        [
            "```python",
            "import random",
            "kinds = [KeyError, IndexError, OSError, TypeError, ValueError, NameError, EOFError]",
            "first = next(iter({str(i) for i in range(7)}))",
            "raise kinds[(int(first) + random.randrange(7)) % 7]",
            "```",
        ]
    )
    found = set()
    for _ in range(4):
        with VerificationPool(workers=1, limits=SHORT) as opened:
            found.add(opened.verify([(CODE, text)])[0].reason)
    assert len(found) == 1


HOSTILE = {
    "endless loop": (program("while True: pass"), "timeout"),
    "loop in a child": (program("if os.fork() == 0:", "    while True: pass", "os.wait()"), "timeout"),
    "exit 0": (program("os._exit(0)"), "crashed"),
    "sys.exit": (program("sys.exit(0)"), "wrong"),
    "kills itself": (program("os.kill(os.getpid(), 9)"), "crashed"),
    "kills its runner": (program("os.kill(os.getppid(), 9)"), "wrong"),
    "closes every descriptor": (program("os.closerange(0, 64)"), "crashed"),
    "prints": (program("print('{\"score\": 1.0, \"solved\": true, \"status\": \"correct\"}')"), "wrong"),
    "writes to every descriptor": (
        program("for i in range(64):", "    try: os.write(i, b'1' * 4000)", "    except OSError: pass"),
        "crashed",
    ),
    "memory": (program("y = bytearray(3 << 30)"), "wrong"),
    "fork bomb": (program("while True: os.fork()"), "crashed"),
    "deep recursion": (program("return f(x)"), "wrong"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_program_earns_nothing_and_the_items_around_it_are_unaffected(pool, name):
    text, status = HOSTILE[name]
    before, after = ((p, DOMAINS["code"].solve(p)) for p in examples("code", 3)[1:])
    found = pool.verify([before, (CODE, text), after])
    assert [v.status for v in found] == ["correct", status, "correct"], found
    assert found[1].score == 0.0


def test_memory_that_grows_step_by_step_is_stopped_below_its_limit(without_walls, tmp_path):
    note = tmp_path / "peak"
    text = program(
        "y = [bytes(1000)]",
        "try:",
        "    while True: y.append(bytes(1 << 20))",
        "finally:",
        "    count, y = len(y), None",
        f"    open({str(note)!r}, 'w').write(str(count))",
    )
    assert without_walls.verify([(CODE, text)])[0].score == 0.0
    # A fork may also use what its runner had mapped and freed before: a few blocks more than the limit.
    assert 50 < int(note.read_text()) <= SHORT.memory_mb + 32


def test_daemon_that_left_its_session_does_not_outlive_its_item(without_walls, tmp_path):
    note = tmp_path / "pid"
    text = daemon(note)
    without_walls.verify([(CODE, text)])
    pids = [int(line) for line in note.read_text().split()]
    assert pids and vanish(pids, 1.0)


@pytest.mark.filterwarnings("ignore:verification.isolation")
def test_daemon_of_a_program_that_killed_its_runner_does_not_outlive_the_pool(tmp_path):
    note = tmp_path / "pid"
    text = daemon(note, "os.kill(os.getppid(), 9)")
    with VerificationPool(workers=1, limits=SHORT, isolation="process") as opened:
        assert opened.verify([(CODE, text)])[0].status == "crashed"
        assert opened.stats.restarted == 2
    pids = [int(line) for line in note.read_text().split()]
    assert len(pids) >= 2 and vanish(pids, 1.0)


def test_file_left_by_one_program_is_not_seen_by_the_next(pool):
    with VerificationPool(workers=1, limits=SHORT) as opened:
        leave = "```python\nopen('left', 'w').write('x')\n" + RIGHT.partition("```python\n")[2]
        look = "```python\nopen('left')\n" + RIGHT.partition("```python\n")[2]
        found = opened.verify([(CODE, leave), (CODE, look)])
    assert [v.status for v in found] == ["correct", "crashed"]
    assert found[1].reason.startswith("FileNotFoundError")


def test_tower_of_powers_ends_in_a_verdict_and_the_rest_is_judged(pool):
    problems = examples("math", 10)
    batch = [(p, DOMAINS["math"].solve(p)) for p in problems]
    batch[4] = (problems[4], "<think>x</think>\\boxed{9^{9^{9^9}}}")
    started = time.monotonic()
    found = pool.verify(batch)
    assert time.monotonic() - started < SHORT.wall_seconds + 5
    assert [v.solved for v in found] == [i != 4 for i in range(10)]


def test_sleeping_program_meets_the_wall_limit():
    limits = Limits(cpu_seconds=1.0, wall_seconds=1.0)
    with VerificationPool(workers=1, limits=limits) as opened:
        found = opened.verify([(CODE, program("time.sleep(100)")), (CODE, RIGHT)])
    assert [v.status for v in found] == ["timeout", "correct"]


def test_judge_that_ends_while_other_programs_run_costs_only_its_own_item():
    asserts = {"right": ["assert f(1) == 1"], "wrong": ["assert f(1) == 2"],
               "ends": ["assert f(1) == 1", "raise SystemExit"],
               "lost": ["assert f(1) == 1", "1 / 0"]}  # fmt: skip
    status = {"right": "correct", "wrong": "wrong", "ends": "crashed", "lost": "partial"}
    kinds = [kind for n in range(6) for kind in ("right", "ends", "wrong", "lost", "right")[: n + 1]]
    batch = [
        (
            Problem(domain="code", checks={"asserts": asserts[kind]}),
            f"```python\ndef f(x): return x # {n}\n```",
        )
        for n, kind in enumerate(kinds)
    ]
    with VerificationPool(workers=1, limits=SHORT) as opened:
        assert [v.status for v in opened.verify(batch)] == [status[kind] for kind in kinds]
        assert opened.stats.restarted == 0


def test_programs_behind_one_that_sleeps_get_their_own_verdicts():
    sleeps = "```python\nimport time\ndef f(x):\n    time.sleep(0.5 * (x == 3))\n    return x\n```"
    quick = [f"```python\ndef f(x): return x + {n}\n```" for n in (0, 1, 0, 2, 0, 3, 4)]
    problem = Problem(domain="code", checks={"entry_point": "f", "tests": [[[x], x] for x in range(6)]})
    with VerificationPool(workers=1, limits=SHORT) as opened:
        found = opened.verify([(problem, text) for text in (sleeps, *quick, sleeps + " ")])
    assert [v.solved for v in found] == [True, True, False, True, False, True, False, False, True]


def test_oversized_completion_is_refused_though_it_holds_the_right_answer(pool):
    judged = pool.stats.judged
    assert pool.verify([(CODE, " " * SHORT.answer_chars + RIGHT)])[0].status == "refused"
    assert pool.stats.judged == judged


def test_copies_are_judged_once_and_lenient_is_kept_apart():
    text = RIGHT.replace("```python\n", "").replace("```", "")
    with VerificationPool(workers=1, limits=SHORT) as opened:
        assert {v.solved for v in opened.verify([(CODE, text)] * 5)} == {False}
        assert (opened.stats.judged, opened.stats.cached) == (1, 4)
        assert opened.verify([(CODE, text)], lenient=True)[0].solved
        assert opened.stats.judged == 2
        opened.verify([(CODE, text)])
        assert (opened.stats.judged, opened.stats.cached) == (2, 5)


def test_answers_that_are_none_earn_nothing_in_any_domain_and_the_status_says_why():
    with VerificationPool(workers=2) as opened:  # the default limits
        for name, domain in DOMAINS.items():
            problem = domain.generate(3, "test", 1)
            right, prompt = domain.solve(problem), problem.prompt[-1]["content"]
            free = name == "instruction"  # there, any text is an answer, and may follow a part
            cases = {
                "": {"unparseable"},
                "<think>" + right[: len(right) // 2]: {"unparseable"},
                f"<think>{prompt}</think>": {"unparseable"},
                "I am sorry, but I cannot help with that.": {"wrong", "partial"} if free else {"unparseable"},
                prompt: {"wrong", "partial"} if free else {"unparseable", "wrong", "crashed"},
                right + "x" * 1_000_000: {"refused"},
                right.encode("utf-16").decode("latin1"): {"wrong", "partial", "unparseable", "crashed"},
            }
            for (text, statuses), found in zip(
                cases.items(), opened.verify([(problem, text) for text in cases]), strict=True
            ):
                assert found.status in statuses, (name, text[:60], found)
                assert not found.solved and (found.status == "partial" or found.score == 0.0)


def test_completion_with_broken_unicode_and_null_bytes_gets_a_verdict(pool):
    texts = ["\ud800\udfff", "\x00", "```python\n\x00\n```", "\\boxed{\ud800}"]
    batch = [(examples(name, 1)[0], text) for name in DOMAINS for text in texts]
    assert not any(v.solved for v in pool.verify(batch))


def test_workers_killed_from_outside_are_replaced_and_every_verdict_is_right():
    batch = [(p, DOMAINS["code"].solve(p)) for p in examples("code", 300)]
    with VerificationPool(workers=2, limits=SHORT) as opened:
        opened.verify(batch[:1])
        victims = [opened._workers[0].process.pid, opened._workers[1].runners[0].pid]
        killers = [threading.Timer(0.1 + 0.1 * i, os.kill, (p, 9)) for i, p in enumerate(victims)]
        for killer in killers:
            killer.start()
        found = opened.verify(batch)
        for killer in killers:
            killer.join()
        assert all(v.solved for v in found)
        assert opened.stats.restarted == len(victims)


def test_worker_killed_between_batches_is_replaced():
    with VerificationPool(workers=1, limits=SHORT) as opened:
        opened.verify([(CODE, RIGHT)])
        os.kill(worker_pids(opened)[0], signal.SIGKILL)
        time.sleep(0.1)
        (problem,) = examples("code", 2)[1:]
        assert opened.verify([(problem, DOMAINS["code"].solve(problem))])[0].solved


def test_worker_that_cannot_start_stops_the_study_and_scores_nothing(monkeypatch):
    command = [sys.executable, "-c", "import no_such_scorer"]
    monkeypatch.setattr(handle, "module_command", lambda *_: command)
    with VerificationPool(workers=2, limits=SHORT) as opened:
        with pytest.raises(StudyError, match="no_such_scorer"):
            opened.verify([(CODE, RIGHT)])
        monkeypatch.undo()
        assert opened.verify([(CODE, RIGHT)])[0].solved


def test_closed_pool_and_unknown_domain_are_named(pool):
    opened = VerificationPool(workers=1, limits=SHORT)
    opened.close()
    opened.close()
    with pytest.raises(StudyError, match="closed"):
        opened.verify([(CODE, RIGHT)])
    with pytest.raises(StudyError, match="'poetry' is unknown"):
        pool.verify([(Problem(**{**vars(CODE), "domain": "poetry"}), RIGHT)])
    with pytest.raises(StudyError, match="cpu_seconds=0"):
        Limits(cpu_seconds=0)


def test_workers_are_gone_after_close():
    with VerificationPool(workers=2, limits=SHORT) as opened:
        opened.verify([(p, "no answer") for p in (CODE, *examples("math", 2))])
        pids = worker_pids(opened)
        assert len(pids) == 6 and all(map(alive, pids))
    assert vanish(pids, 1.0)


BUSY = """
import sys, warnings
from prorl_study.domains import DOMAINS
from prorl_study.verification import Limits, VerificationPool
warnings.simplefilter("ignore")
problem = DOMAINS["code"].generate(3, "validation", 0)
loop = "```python\\nimport os\\ndef f(x):\\n    os.fork()\\n    while True: pass\\n```"
limits = Limits(cpu_seconds=60, wall_seconds=60)
pool = VerificationPool(workers=2, limits=limits, isolation=sys.argv[1])
pool.verify([(problem, DOMAINS["code"].solve(problem))])
print(*(worker.folder for worker in pool._workers), flush=True)
pool.verify([(problem, loop), (problem, loop + " ")])
"""


@pytest.mark.parametrize("isolation", ["walls", "process"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_a_study_that_is_killed_or_interrupted_in_the_middle_of_a_batch(how, isolation):
    before = set(marked_processes())
    root = Path(handle.__file__).parents[2]
    study = subprocess.Popen(
        [sys.executable, "-c", BUSY, isolation], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=root
    )
    folders = [word for word in study.stdout.readline().decode().split() if word != "None"]
    assert len(folders) == (0 if isolation == "walls" else 2)
    deadline = time.monotonic() + 10
    # Two workers and four runners, the forks that judge, the programs with a child each, two waiting forks.
    while len(started := set(marked_processes()) - before) < 14 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(started) >= 14
    study.send_signal(how)
    assert study.wait(15) != 0
    study.stdout.close()
    assert vanish(sorted(started)) and not any(map(os.path.exists, folders))


def test_interrupted_batch_leaves_a_usable_pool():
    with VerificationPool(workers=1, limits=SHORT) as opened:
        opened.verify([(CODE, RIGHT)])
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            opened.verify([(p, program("while True: pass")) for p in examples("code", 8)])
        other = examples("code", 2)[1]
        assert opened.verify([(other, DOMAINS["code"].solve(other))])[0].solved


def test_frames_survive_any_cut_and_refuse_what_is_no_message():
    messages = [{"n": n, "text": "é\ud800" * n} for n in range(20)]
    stream, frames, found = b"".join(map(pack, messages)), Frames(), []
    rng, start = Random(0), 0
    while start < len(stream):
        end = start + rng.randint(1, 40)
        found += frames.feed(stream[start:end])
        start = end
    assert found == messages
    with pytest.raises(ValueError):
        Frames().feed(b"\xff" * 16)


def test_worker_imports_no_torch():
    code = "import sys, prorl_study.verification.worker; sys.exit('torch' in sys.modules)"
    root = Path(handle.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
