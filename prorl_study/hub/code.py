"""Code from the hub: Eurus-2-RL for training and, by its validation rows, APPS, CodeContests, Codeforces and
TACO; HumanEval+, LiveCodeBench.

A problem is a program's tests; how they are judged says `judges.code`. LiveCodeBench packs its private tests
as a pickle: it is read by an unpickler that knows no class and no function, so that nothing can run. Left
out: problems without tests, and those that need a checker of their own. `apps` and `codecontests` read those
sets as they were published, for a file of one's own; the benchmarks go by Eurus-2's rows, as the paper's do.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from prorl_study.domains import Problem
from prorl_study.hub.sources import Drop, Item, Row, Source, json_of, text_of, user, user_messages

SUFFIX = "\nPut the final program in one block that begins with ```python and ends with ```."
STANDARD = "\nThe program reads standard input and writes standard output."
WINDOW = ("2024-08-01", "2025-02-01")
"""First and last day of LiveCodeBench's contests that are asked: release v5 of the paper, 279 problems."""
LARGEST_TESTS = 4_000_000
"""Characters of all tests together; a few rows hold more, and each rollout would have to be sent them."""
LARGEST_UNPACKED = 200_000_000
"""Bytes of a LiveCodeBench row's private tests; what says it holds more is a bomb."""


def item(prompt: list[dict[str, str]], checks: Mapping[str, Any], gold: str = "") -> Item:
    """A problem of `inputs` and `outputs`. Raises Drop where they are none."""
    inputs, outputs = checks.get("inputs"), checks.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or not inputs:
        raise Drop("no tests")
    if len(inputs) != len(outputs):
        raise Drop("inputs and outputs differ in number")
    kept = {"inputs": inputs, "outputs": outputs}
    if name := checks.get("fn_name"):
        kept["fn_name"] = name
    if len(json.dumps(kept)) > LARGEST_TESTS:
        raise Drop(f"tests of more than {LARGEST_TESTS:,} characters")
    task = "calls" if name else "programs"
    return Item(Problem(domain="code", task=task, prompt=prompt, checks=kept), gold)


def fenced(program: str) -> str:
    return f"</think>```python\n{program}\n```"


def eurus(*data_sources: str) -> Callable[[Row], Item]:
    """A mapper for Eurus-2-RL's rows of code; with `data_sources`, of these alone."""

    def map_row(row: Row) -> Item:
        if row.get("ability") != "code":
            raise Drop("not code")
        if data_sources and row.get("data_source") not in data_sources:
            raise Drop("of another data source")
        tests = json_of(row.get("reward_model") or {}, "ground_truth")
        if not isinstance(tests, dict):
            raise Drop("ground_truth is no object")
        return item(user_messages(row.get("prompt")), tests)

    return map_row


def apps(row: Row) -> Item:
    """A row of APPS or TACO as they were published."""
    tests = json_of(row, "input_output")
    if not isinstance(tests, dict):
        raise Drop("input_output is no object")
    starter = str(row.get("starter_code") or "").strip()
    text = text_of(row, "question") + (
        f"\nBegin with this:\n```python\n{starter}\n```" if starter else STANDARD
    )
    try:
        solutions = json_of(row, "solutions")
    except Drop:
        solutions = []
    gold = fenced(solutions[0]) if solutions and isinstance(solutions[0], str) else ""
    return item(user(text + SUFFIX), tests, gold)


def codecontests(row: Row) -> Item:
    """A row of rLLM's copy (`problem`, `tests`), or of DeepMind's (`description`, three kinds of tests)."""
    if "tests" in row:
        return item(user(text_of(row, "problem") + STANDARD + SUFFIX), json_of(row, "tests"))
    tests: dict[str, list[str]] = {"inputs": [], "outputs": []}
    for kind in ("public_tests", "private_tests", "generated_tests"):
        part = row.get(kind) or {}
        tests["inputs"] += part.get("input") or []
        tests["outputs"] += part.get("output") or []
    return item(user(text_of(row, "description") + STANDARD + SUFFIX), tests)


def humaneval(row: Row) -> Item:
    """A row of HumanEval or HumanEval+: a signature to complete, and `check(candidate)`."""
    prompt, entry_point = text_of(row, "prompt"), text_of(row, "entry_point")
    checks = {"test": text_of(row, "test"), "entry_point": entry_point, "helpers": row["prompt"]}
    asked = f"Write the whole function that this begins:\n```python\n{prompt}\n```{SUFFIX}"
    solution = row.get("canonical_solution")
    gold = fenced(row["prompt"] + solution) if isinstance(solution, str) else ""
    return Item(Problem(domain="code", task="functions", prompt=user(asked), checks=checks), gold)


def livecodebench(row: Row) -> Item:
    """A row of LiveCodeBench inside `WINDOW`."""
    day = text_of(row, "contest_date")[:10]
    if not WINDOW[0] <= day <= WINDOW[1]:
        raise Drop(f"outside {WINDOW[0]} to {WINDOW[1]}")
    tests = json_of(row, "public_test_cases") + private_tests(row.get("private_test_cases"))
    if not all(isinstance(test, dict) and {"input", "output"} <= set(test) for test in tests):
        raise Drop("a test without input or output")
    checks: dict[str, Any] = {"inputs": [t["input"] for t in tests], "outputs": [t["output"] for t in tests]}
    starter = str(row.get("starter_code") or "").strip()
    if any(test.get("testtype") == "functional" for test in tests):
        name = (json_of(row, "metadata") or {}).get("func_name")
        if not name:
            raise Drop("no func_name")
        checks["fn_name"] = name
        try:
            checks["outputs"] = [json.loads(output) for output in checks["outputs"]]
        except ValueError:
            raise Drop("an output that is no JSON") from None
    text = text_of(row, "question_content") + (
        f"\nBegin with this:\n```python\n{starter}\n```" if starter else STANDARD
    )
    return item(user(text + SUFFIX), checks)


class _NothingCallable(pickle.Unpickler):
    """Unpickles plain values; whatever would import something is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")


def private_tests(packed: Any) -> list[dict[str, Any]]:
    """LiveCodeBench's private tests: JSON, or that pickled, compressed and in base 64. Raises Drop."""
    if not packed:
        return []
    try:
        found = json.loads(packed)
    except ValueError:
        try:
            unpacker = zlib.decompressobj()
            content = unpacker.decompress(base64.b64decode(packed, validate=True), LARGEST_UNPACKED)
            if unpacker.unconsumed_tail:
                raise Drop("private tests too large") from None
            found = json.loads(_NothingCallable(io.BytesIO(content)).load())
        except (
            ValueError,
            TypeError,
            EOFError,
            IndexError,
            KeyError,
            AttributeError,
            binascii.Error,
            zlib.error,
            pickle.UnpicklingError,
        ):
            raise Drop("private tests cannot be unpacked") from None
    if not isinstance(found, list):
        raise Drop("private tests are no list")
    return found


_EURUS = {
    "domain": "code",
    "licence": "MIT",
    "repo": "PRIME-RL/Eurus-2-RL-Data",
    "revision": "9776b13264b5aaa0b16495fcf086a0a8d86fd655",
    "columns": ("data_source", "prompt", "ability", "reward_model"),
}
_VALIDATION = "rows of Eurus-2-RL's validation split, as the paper evaluates them"

TRAINING = (Source(name="eurus_code", files=("train.parquet",), map=eurus(), expected=24_000, **_EURUS),)

BENCHMARKS = (
    *(
        Source(
            name=name,
            files=("validation.parquet",),
            map=eurus(name),
            note=_VALIDATION,
            **_EURUS,
        )
        for name in ("apps", "codecontests", "codeforces", "taco")
    ),
    Source(
        name="humanevalplus",
        domain="code",
        licence="Apache-2.0",
        repo="evalplus/humanevalplus",
        revision="aa0d916268b1c17e84e881e9bd460508dd2fd308",
        files=("data/test-*.parquet",),
        columns=("prompt", "entry_point", "test"),
        map=humaneval,
        expected=164,
    ),
    Source(
        name="livecodebench",
        domain="code",
        licence="CC (variant not named); terms of the contests' sites",
        repo="livecodebench/code_generation_lite",
        revision="0fe84c3912ea0c4d4a78037083943e8f0c4dd505",
        files=("test4.jsonl", "test5.jsonl"),
        columns=("question_content", "contest_date", "public_test_cases", "private_test_cases"),
        map=livecodebench,
        expected=279,
        note=f"contests from {WINDOW[0]} to {WINDOW[1]}",
    ),
)
