"""Claims about judging code by its behaviour, whatever the kind of its tests."""

from __future__ import annotations

import pytest

from prorl_study.domains import Problem
from prorl_study.judges.code import same_as_json, same_output
from prorl_study.verification import Limits, VerificationPool

LIMITS = Limits(cpu_seconds=1.0, wall_seconds=5.0, output_bytes=50_000)


@pytest.fixture(scope="module")
def verify():
    with VerificationPool(workers=1, limits=LIMITS) as pool:

        def judge(checks: dict, *lines: str):
            text = "</think>```python\n" + "\n".join(lines) + "\n```"
            return pool.verify([(Problem(domain="code", checks=checks), text)])[0]

        yield judge


def calls(*tests: list) -> dict:
    return {"entry_point": "f", "tests": list(tests)}


PLAIN = (None, True, 0, -(2**70), 1.5, "é\ud800", [1, [2]], (1, (2,)), {1, 2}, frozenset({3}),
         {1: {"a": (2,)}}, b"\xff", 1j, range(3))  # fmt: skip


def test_every_plain_value_comes_back_as_it_is(verify):
    for value in PLAIN:
        checks = {"asserts": [f"assert f() == {value!r}", f"assert type(f()) is type({value!r})"]}
        assert verify(checks, f"def f(): return {value!r}").solved, value
    assert verify({"asserts": ["assert list(f()) == [0, 1]"]}, "def f(): return (i for i in range(2))").solved
    assert verify({"asserts": ["assert f() == {'a': 2}"]}, "import collections",
                  "def f(): return collections.Counter('aa')").solved  # fmt: skip


def test_arguments_arrive_as_they_are_and_changing_them_changes_no_test(verify):
    for value in PLAIN:
        found = verify({"asserts": [f"assert f({value!r}) == {value!r}"]}, "def f(x): return x")
        assert found.solved, (value, found)
    checks = {"asserts": ["x = [1]\nassert f(x) == [1, 0] and x == [1]"]}
    assert verify(checks, "def f(x):", "    x.append(0)", "    return x").solved


@pytest.mark.parametrize("kind", ["1", "[1]", "'a'", "1.5"])
def test_an_object_of_a_class_of_its_own_is_no_plain_value_whatever_it_says(verify, kind):
    lines = ("class A:", "    def __eq__(self, o): return True", "    __ne__ = __lt__ = __eq__",
             "    def __hash__(self): return 1", "    __class__ = int", "def f(): return A()")  # fmt: skip
    assert verify({"asserts": [f"assert f() == {kind}", "assert f() < 2"]}, *lines).score == 0.0
    found = verify(calls([[], eval(kind)]), *lines)
    assert (found.score, found.status) == (0.0, "wrong")


def test_objects_can_be_passed_back_to_the_program_that_made_them(verify):
    lines = ("class Pair:", "    def __init__(self, a): self.a = a", "def total(pairs):",
             "    return sum(p.a for p in pairs)")  # fmt: skip
    assert verify({"asserts": ["assert total([Pair(1), Pair(2)]) == 3"]}, *lines).solved


def test_each_assertion_counts_and_an_error_of_the_program_is_one_failure(verify):
    checks = {"asserts": ["assert f(1) == 1", "assert f(2) == 2", "assert f(0) == 0"]}
    found = verify(checks, "def f(x): return x if x < 2 else 9")
    assert (found.status, round(found.score, 3)) == ("partial", 0.667)
    found = verify(checks, "def f(x): return x // x and 3 // (2 - x) and x")
    assert (found.status, round(found.score, 3)) == ("partial", 0.333) and "ZeroDivisionError" in found.reason


def test_a_test_may_expect_an_error(verify):
    test = "def check(candidate):\n    try:\n        candidate(-1)\n        assert candidate is None\n"
    test += "    except ValueError as e:\n        assert 'negative' in str(e)\n    assert candidate(1) == 1\n"
    checks = {"test": test, "entry_point": "f"}
    lines = ("def f(x):", "    if x < 0: raise ValueError('negative')", "    return x")
    assert verify(checks, *lines).score == pytest.approx(2 / 3)  # the assertion that was not reached counts
    assert not verify(checks, "def f(x): return x").solved


def test_helpers_run_on_the_judges_side_and_cannot_be_replaced(verify):
    checks = {"entry_point": "f", "helpers": "def double(x):\n    return 2 * x",
              "test": "def check(candidate):\n    assert candidate(double(2)) == double(4)"}  # fmt: skip
    assert verify(checks, "def f(x): return 2 * x").solved
    assert not verify(checks, "def double(x): return 0", "def f(x): return 0").solved


def test_a_prelude_gives_imports_and_does_not_hide_the_programs_own_functions(verify):
    checks = calls([[4], 2.0]) | {"prelude": "import math\ndef f(x): pass"}
    assert verify(checks, "def f(x): return math.sqrt(x)").solved
    assert not verify(checks, "x = 1").solved


def test_constant_assertions_earn_nothing(verify):
    test = "def check(candidate):\n    assert True, 'good'\n    assert candidate(1) == 1\n"
    assert verify({"test": test, "entry_point": "f"}, "def f(x): return 2").score == 0.0
    found = verify(
        {"test": "def check(candidate):\n    assert True", "entry_point": "f"}, "def f(x): return 2"
    )
    assert found.status == "refused" and "no assertion" in found.reason


PAIRS = {"inputs": ["2 3\n", "10 -4\n"], "outputs": ["5\n", "6\n"]}


def test_a_program_reads_and_prints(verify):
    assert verify(PAIRS, "print(sum(map(int, input().split())))").solved
    for lines in (
        ("import sys", "print(sum(map(int, sys.stdin.read().split())))"),
        ("import sys", "a = sys.stdin.buffer.readline().split()", "sys.stdout.write(str(sum(map(int, a))))"),
        ("import os", "os.write(1, str(sum(map(int, os.read(0, 100).split()))).encode())"),
        ("def main():", "    print(sum(map(int, open(0).read().split())))",
         "if __name__ == '__main__': main()"),
        ("import threading", "def main(): print(sum(map(int, input().split())))",
         "threading.Thread(target=main).start()"),
        ("import sys", "print(sum(map(int, input().split())))", "sys.exit()"),
        ("print(sum(map(int, input().split())))", "exit()"),
        ("import numpy", "print(numpy.array(input().split(), dtype=int).sum())"),
        ("print(eval(input().strip().replace(' ', '+')))",),
    ):  # fmt: skip
        assert verify(PAIRS, *lines).solved, lines


def test_runs_of_a_program_do_not_see_each_other(verify):
    lines = ("import os, random", "assert not os.path.exists('left')", "open('left', 'w')")
    found = verify(PAIRS, "import math", "math.pi = math.pi + 1", "assert math.pi < 5",
                   "print(sum(map(int, input().split())))")  # fmt: skip
    assert found.solved
    found = verify(PAIRS, *lines, "print(sum(map(int, input().split())))")
    assert found.score == 0.5  # files are the item's, and go with it
    assert verify(PAIRS, *lines, "print(5)").score == 0.5


def test_a_wrong_exit_or_an_error_is_a_failed_run_and_does_not_end_the_others(verify):
    found = verify(PAIRS, "a = sum(map(int, input().split()))", "print(a)", "if a == 5: raise KeyError('x')")
    assert (found.score, found.status) == (0.5, "partial") and "KeyError" in found.reason
    assert (
        verify(PAIRS, "import os", "print(sum(map(int, input().split())), flush=True)", "os._exit(3)").score
        == 0
    )
    found = verify(PAIRS, "a = sum(map(int, input().split()))", "if a == 5: import os; os.abort()",
                   "print(a)")  # fmt: skip
    assert (found.score, found.status) == (0.5, "partial")


def test_tests_passed_before_the_limit_count_and_the_status_says_timeout(verify):
    found = verify(PAIRS, "a = sum(map(int, input().split()))", "while a == 6: pass", "print(a)")
    assert (found.score, found.status, found.solved) == (0.5, "timeout", False)
    assert 1.0 < found.cpu_seconds < 3.0
    found = verify(calls([[1], 1], [[2], 2]), "def f(x):", "    while x == 2: pass", "    return x")
    assert (found.score, found.status) == (0.5, "timeout")


def test_a_sleeper_is_judged_again_alone_and_then_is_a_timeout_by_the_wall_clock():
    limits = Limits(cpu_seconds=1.0, wall_seconds=1.0)
    with VerificationPool(workers=1, limits=limits) as pool:
        text = "```python\nimport time\ndef f(x): time.sleep(50)\n```"
        good = "```python\ndef f(x): return 1\n```"
        problem = Problem(domain="code", checks=calls([[1], 1]))
        found = pool.verify([(problem, text), (problem, good)])
        assert [v.status for v in found] == ["timeout", "correct"]
        assert found[0].backstop and not found[1].backstop and pool.stats.alone == 1


def test_output_over_the_limit_is_not_right(verify):
    assert not verify(PAIRS, "print(' ' * 60_000, sum(map(int, input().split())))").solved
    found = verify(calls([[], "x" * 60_000]), "def f(): return 'x' * 60_000")
    assert not found.solved and "50000 bytes" in found.reason


def test_functions_of_public_sets_compare_as_json(verify):
    checks = {"fn_name": "f", "inputs": [[[1, 2], 3], "[1]\n2"], "outputs": [[[1, 2, 3]], [1, 2]]}
    assert verify(checks, "def f(a, b): return tuple(a) + (b,)").solved
    lines = ("class Solution:", "    def f(self, a, b):", "        return a + [b]")
    assert verify(checks, *lines).solved
    assert not verify(checks, "def f(a, b): return [b] + a").solved


@pytest.mark.parametrize(
    ("expected", "got", "equal"),
    [
        ("1 2\n3\n", "1 2  \n3", True),
        ("1 2\n", "1\n2\n", True),
        ("0.333333333", "0.33333333", True),
        ("0.3333", "0.34", False),
        ("1000000.5", "1000000.6", True),
        ("2", "2.0", False),
        ("2.0", "2", True),
        ("YES", "yes", False),
        ("nan", "nan", True),
        ("1.5", "nan", False),
        ("1.5", "1_5e-1", False),
        ("", "", True),
        ("", "0", False),
        ("1 2", "1 2 3", False),
    ],
)
def test_output_is_compared_as_contest_judges_do(expected, got, equal):
    assert same_output(expected, got) is equal


def test_json_comparison_keeps_order_length_and_types_of_text():
    assert (
        same_as_json([1, 2.0], (1.0, 2))
        and same_as_json([[5]], [5])
        and same_as_json({"a": [1]}, {"a": (1,)})
    )
    assert not same_as_json([1, 2], [2, 1]) and not same_as_json("1", 1) and not same_as_json([1], [1, 1])


@pytest.mark.parametrize(
    "checks",
    [{}, {"entry_point": "f", "tests": []}, {"inputs": ["1"], "outputs": []}, {"asserts": ["assert ("]},
     {"entry_point": "f", "tests": [[1, 2, 3]]}, {"fn_name": "f", "inputs": ["nope"], "outputs": [1]}],
)  # fmt: skip
def test_malformed_tests_are_refused_with_the_reason_and_nothing_is_scored(verify, checks):
    found = verify(checks, "def f(x): return x")
    assert (found.status, found.score) == ("refused", 0.0) and "tests of the problem" in found.reason
