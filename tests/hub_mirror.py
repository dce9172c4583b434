"""Look-alikes of the public sets, written by their recorded schemas: a folder that stands for the hub.

Nothing here uses the loaders. Every set has rows as they should be, rows with nulls, and columns that nobody
asked for. `COUNTS` says how many rows of each are sound.
"""

from __future__ import annotations

import base64
import csv
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

COUNTS = {
    "deepscaler": 3,
    "eurus_code": 2,
    "scp116k": 2,
    "nemotron_if": 2,
    "aime24": 2,
    "aime25": 2,
    "amc": 2,
    "math500": 2,
    "minerva": 2,
    "olympiad": 2,
    "apps": 1,
    "codecontests": 1,
    "codeforces": 1,
    "taco": 1,
    "humanevalplus": 2,
    "livecodebench": 3,
    "gpqa_diamond": 2,
    "ifeval": 2,
    "ifbench": 2,
}
"""Rows of each set that become problems; the others are there to be dropped."""


def write(folder: Path) -> Path:
    """All sets under `folder/<owner>/<name>/`."""
    for path, rows in files().items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), target)
        elif target.suffix == ".csv":
            with target.open("w", newline="") as file:
                table = csv.DictWriter(file, list(rows[0]))
                table.writeheader()
                table.writerows(rows)
        elif target.suffix == ".json":
            target.write_text(json.dumps(rows))
        else:
            target.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def files() -> dict[str, list[dict[str, Any]]]:
    return {
        "agentica-org/DeepScaleR-Preview-Dataset/deepscaler.json": [
            {"problem": "What is 2 + 3?", "answer": "5", "solution": "2 + 3 = 5"},
            {"problem": "Simplify $\\frac{4}{8}$.", "answer": "\\frac{1}{2}", "solution": None},
            {
                "problem": "Give the set of roots of $x^2=1$.",
                "answer": "\\boxed{\\{-1, 1\\}}",
                "solution": "",
            },
            {"problem": "What is 2 + 3?", "answer": "5", "solution": "again"},
            {"problem": "No answer here.", "answer": None, "solution": "none"},
            {"problem": "A long one.", "answer": "x" * 500, "solution": "long"},
        ],
        "PRIME-RL/Eurus-2-RL-Data/train.parquet": [
            eurus("code", "taco", "Add two numbers.", {"inputs": ["1 2\n"], "outputs": ["3\n"]}),
            eurus("code", "apps", "Double it.", {"fn_name": "f", "inputs": [[2]], "outputs": [4]}),
            eurus("math", "numina_amc", "What is 1 + 1?", "2"),
            eurus("code", "taco", "No tests.", {"inputs": [], "outputs": []}),
            eurus("code", "taco", "Uneven.", {"inputs": ["1", "2"], "outputs": ["1"]}),
            eurus("code", "taco", "Damaged.", "{not json"),
        ],
        "PRIME-RL/Eurus-2-RL-Data/validation.parquet": [
            eurus("code", name, f"Echo, {name}.", {"inputs": ["a\n"], "outputs": ["a\n"]})
            for name in ("apps", "codecontests", "codeforces", "taco")
        ]
        + [eurus("math", "numina_aops_forum", "What is 3 + 4?", "7")],
        "EricLu/SCP-116K/data/train-00000-of-00001.parquet": [
            scp(
                "A mass of 2 kg falls 3 s. Speed?", "v = gt, so the answer is 29.4 m/s.", "\\boxed{29.4 m/s}"
            ),
            scp("Charge of 2 mol of electrons?", "Thus \\boxed{193000 C}", None),
            scp("Explain why the sky is blue.", "Because of Rayleigh scattering.", "\\boxed{scattering}"),
            scp("Weight of 1 kg?\n(a) on Earth\n(b) on the Moon", "\\boxed{9.8 N}", None),
            scp("Flagged as different.", "\\boxed{4 m}", None, same=False),
            scp("No solution.", None, None),
        ],
        "nvidia/Llama-Nemotron-Post-Training-Dataset/RL/instruction_following/instruction_following.jsonl": [
            nemotron("Write about tea without commas.", ["punctuation:no_comma"], [None]),
            nemotron(
                "Say it in at least 5 words.",
                ["length_constraints:number_words"],
                [{"num_words": 5, "relation": "at least", "keyword": None}],
            ),
            nemotron("Nothing asked.", [], []),
            nemotron("An unknown demand.", ["nobody:knows_it"], [{}]),
            nemotron("Too few arguments.", ["punctuation:no_comma", "punctuation:no_comma"], [{}]),
        ],
        "HuggingFaceH4/aime_2024/data/train-00000-of-00001.parquet": [
            {
                "id": 60,
                "problem": "Find n.",
                "solution": "It is 33.",
                "answer": "33",
                "url": None,
                "year": "2024",
            },
            {
                "id": 61,
                "problem": "Find m.",
                "solution": "It is 23.",
                "answer": "023",
                "url": None,
                "year": "2024",
            },
            {"id": 62, "problem": None, "solution": None, "answer": None, "url": None, "year": None},
        ],
        "math-ai/aime25/test.jsonl": [
            {"problem": "Find the sum of all bases.", "answer": "70", "id": "0"},
            {"problem": "Find the area.", "answer": 588, "id": "1"},
        ],
        "AI-MO/aimo-validation-amc/data/train-00000-of-00001.parquet": [
            {"id": 0, "problem": "How many?", "answer": 142.0, "url": "https://example.org/a"},
            {"id": 1, "problem": "What ratio?", "answer": 0.5, "url": None},
            {"id": 2, "problem": "Unanswered?", "answer": None, "url": None},
        ],
        "HuggingFaceH4/MATH-500/test.jsonl": [
            math500("Convert $(0,3)$ to polar.", "\\left( 3, \\frac{\\pi}{2} \\right)"),
            math500("Evaluate.", "\\sqrt{51}"),
            math500("Blank answer.", "   "),
        ],
        "math-ai/minervamath/test.jsonl": [
            {"question": "Magnitude of the star, to 3 digits?", "answer": "1.39e9", "note": None},
            {
                "problem": "Period of the pendulum?",
                "solution": "So $T = \\boxed{2 \\pi}$ s.",
                "type": "physics",
            },
            {"problem": "Unboxed?", "solution": "It is long.", "type": "physics"},
        ],
        "Hothan/OlympiadBench/OlympiadBench/OE_TO_maths_en_COMP/OE_TO_maths_en_COMP.parquet": [
            olympiad("Find all $x$.", ["$2$", "$-2$"], several=True),
            olympiad("Find $T$.", ["$\\frac{1}{3}$"], context="Let $T$ be a number."),
            olympiad("Estimate.", ["3.1"], error="0.1"),
            olympiad("Prove it.", None),
        ],
        "evalplus/humanevalplus/data/test-00000-of-00001-5973903632b82d40.parquet": [
            humaneval(
                "add",
                'def add(a, b):\n    """Sum."""\n',
                "    return a + b\n",
                "[[1, 2], [0.1, 0.2]]",
                "[3, 0.3]",
            ),
            humaneval(
                "neg",
                'def neg(a):\n    """Minus."""\n',
                "    return -a\n",
                "[[4], [0], [-1.5]]",
                "[-4, 0, 1.5]",
            ),
            humaneval("none", "def none(a):\n", "    return a\n", "[[4]]", "[4]") | {"test": None},
        ],
        "livecodebench/code_generation_lite/test4.jsonl": [
            lcb("Read a number, print its double.", "2024-08-03T00:00:00", [("2\n", "4\n")], "zip"),
            lcb("Too old.", "2024-01-01T00:00:00", [("2\n", "4\n")], "json"),
        ],
        "livecodebench/code_generation_lite/test5.jsonl": [
            lcb("Double a number.", "2024-10-05T00:00:00", [("2", "4")], "json", functional="double"),
            lcb("No private tests.", "2025-01-05T00:00:00", [("1\n", "1\n")], ""),
            lcb("A pickle that would run.", "2024-12-05T00:00:00", [("1\n", "1\n")], "bomb"),
        ],
        "Idavidrein/gpqa/gpqa_diamond.csv": [
            gpqa("Which is heaviest?", "gold", ["water", "air", "wood"]),
            gpqa("Which is fastest?", "light", ["sound", "a car", "a snail"]),
            gpqa("Incomplete?", "yes", ["no", "", "maybe"]),
        ],
        "google/IFEval/ifeval_input_data.jsonl": [
            {
                "key": 1000,
                "prompt": "Write two lines, no commas.",
                "instruction_id_list": ["punctuation:no_comma"],
                "kwargs": [{"num_words": None, "relation": None}],
            },
            {
                "key": 1001,
                "prompt": "All in lower case please.",
                "instruction_id_list": ["change_case:english_lowercase"],
                "kwargs": [{}],
            },
        ],
        "allenai/IFBench_test/data/train-00000-of-00001.parquet": [
            {
                "key": "1",
                "prompt": f"Answer in odd ways, {number}.",
                "instruction_id_list": ["count:word_count_range"],
                "kwargs": [{"min_words": 2, "max_words": 9, "keyword": None}],
            }
            for number in (1, 2)
        ],
    }


def eurus(ability: str, data_source: str, text: str, truth: Any) -> dict[str, Any]:
    return {
        "data_source": data_source,
        "prompt": [
            {"role": "system", "content": "When tackling complex reasoning tasks, [ASSESS] ..."},
            {"role": "user", "content": f"{text}\n\nWrite Python code to solve the problem."},
        ],
        "ability": ability,
        "reward_model": {
            "style": "rule",
            "ground_truth": truth if isinstance(truth, str) else json.dumps(truth),
        },
        "extra_info": {"split": "dummy", "index": 0},
    }


def scp(problem: str, solution: str | None, other: str | None, same: bool | None = True) -> dict[str, Any]:
    return {
        "domain": "Physics",
        "problem": problem,
        "matched_solution": solution,
        "o1_solution": other,
        "is_o1_solution_same_with_matched_solution": same,
        "qwq_solution": None,
        "is_qwq_solution_same_with_matched_solution": None,
    }


def nemotron(text: str, ids: list[str], kwargs: list[Any]) -> dict[str, Any]:
    return {
        "input": [{"role": "user", "content": text}],
        "args": {"instruction_id_list": ids, "instruction_kwargs": kwargs, "task": "ifeval"},
        "category": "instruction following",
        "license": "odc-by",
        "reasoning": "off",
        "used_in_training": ["nobody"],
        "version": "v1",
        "system_prompt": "",
    }


def math500(problem: str, answer: str) -> dict[str, Any]:
    return {
        "problem": problem,
        "solution": "...",
        "answer": answer,
        "subject": "Algebra",
        "level": 2,
        "unique_id": "test/algebra/1.json",
    }


def olympiad(
    question: str,
    answer: list[str] | None,
    context: str | None = None,
    error: str | None = None,
    several=False,
) -> dict[str, Any]:
    return {
        "id": 1606,
        "question": question,
        "solution": ["..."],
        "final_answer": answer,
        "context": context,
        "image_1": None,
        "modality": "Text-only",
        "is_multiple_answer": several,
        "unit": None,
        "answer_type": "Numerical",
        "error": error,
        "question_type": "Open-ended",
    }


def humaneval(name: str, prompt: str, solution: str, inputs: str, results: str) -> dict[str, Any]:
    return {
        "task_id": f"HumanEval/{name}",
        "prompt": prompt,
        "canonical_solution": solution,
        "entry_point": name,
        "test": f"""import numpy as np

def is_floats(x) -> bool:
    if isinstance(x, (list, tuple)) and len(x) > 0:
        return all(isinstance(i, float) for i in x)
    return isinstance(x, float) or isinstance(x, np.ndarray)


def assertion(out, exp, atol):
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if out != exp and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert out == exp, f"out: {{out}}, exp: {{exp}}"


def check(candidate):
    inputs = {inputs}
    results = {results}
    for i, (inp, exp) in enumerate(zip(inputs, results)):
        assertion(candidate(*inp), exp, 0)
""",
    }


class Bomb:
    """Unpickled by an ordinary unpickler, it would make a file."""

    def __reduce__(self):
        return (open, ("/tmp/prorl-study-pickle-ran", "w"))


def lcb(
    text: str, day: str, tests: list[tuple[str, str]], packing: str, functional: str = ""
) -> dict[str, Any]:
    kind = "functional" if functional else "stdin"
    rows = [{"input": given, "output": wanted, "testtype": kind} for given, wanted in tests]
    packed = {
        "": lambda: "",
        "json": lambda: json.dumps(rows),
        "zip": lambda: base64.b64encode(zlib.compress(pickle.dumps(json.dumps(rows)))).decode(),
        "bomb": lambda: base64.b64encode(zlib.compress(pickle.dumps(Bomb()))).decode(),
    }[packing]()
    return {
        "question_title": "A title",
        "question_content": text,
        "platform": "leetcode" if functional else "atcoder",
        "question_id": "abc",
        "contest_id": "abc300",
        "contest_date": day,
        "starter_code": f"class Solution:\n    def {functional}(self, n):\n" if functional else "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(rows),
        "private_test_cases": packed,
        "metadata": json.dumps({"func_name": functional} if functional else {}),
    }


def gpqa(question: str, right: str, wrong: list[str]) -> dict[str, Any]:
    return {
        "Question": question,
        "Correct Answer": right,
        "Incorrect Answer 1": wrong[0],
        "Incorrect Answer 2": wrong[1],
        "Incorrect Answer 3": wrong[2],
        "Explanation": "",
        "Subdomain": "Physics (general)",
        "High-level domain": "Physics",
        "Record ID": "rec0",
        "Canary String": "",
    }
