"""Claims about judging Reasoning Gym's own entries: nothing executes, and only right answers solve."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import reasoning_gym as library
from reasoning_gym.composite import DatasetSpec
from reasoning_gym.factory import DATASETS
from samples import needs_samples, rows

import prorl_study.judges.reasoning_gym as judge
from prorl_study.domains import Problem, Verdict, logic
from prorl_study.errors import StudyError
from prorl_study.judges import fresh

ALL_TASKS = sorted(DATASETS)
TASKS = [task for task in ALL_TASKS if not judge.refusal(task)]
EXCLUDED = [task for task in ALL_TASKS if judge.refusal(task)]
EXECUTING = (
    *("countdown", "puzzle24", "simple_integration", "intermediate_integration", "polynomial_multiplication"),
    *("string_insertion", "spiral_matrix", "binary_matrix", "n_queens"),
)
SEVERAL_RIGHT = (
    *("countdown", "cryptarithm", "jugs", "kakurasu", "knight_swap", "n_queens", "palindrome_generation"),
    *("puzzle24", "quantum_lock", "shortest_path", "sokoban", "tower_of_hanoi", "word_ladder"),
    *("simple_integration", "intermediate_integration"),
)
"""Tasks where another answer than the oracle can be right."""

Entry = dict[str, Any]


@pytest.fixture(autouse=True)
def in_a_throwaway_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh, "_throwaway", True)


@cache
def dataset(task: str, size: int = 400) -> Any:
    return library.create_dataset(task, size=size, seed=11)


@cache
def entries(task: str, count: int) -> list[Entry]:
    return [dataset(task)[index] for index in range(count)]


@cache
def problems(task: str, count: int) -> list[Problem]:
    """The first `count` entries that can be judged, after a trip through JSON and through a row."""
    found = []
    for index in range(count + 20):
        try:
            entry = json.loads(json.dumps(judge.plain(dataset(task)[index])))
            found.append(Problem.from_row(judge.from_entry(entry).row()))
        except StudyError:
            continue
        if len(found) == count:
            break
    return found


def judged(problem: Problem, answer: str) -> Verdict:
    return logic.verify(problem, f"<think>so</think><answer>{answer}</answer>")


def raw(task: str, answer: str, entry: Entry) -> float:
    return float(library.get_score_answer_fn(task)(answer, entry))


def in_a_child(work: Callable[[], Any], cpu_seconds: int) -> Any:
    """What `work` returned, as JSON keeps it; None where it died or ran out of CPU time."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
            resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
            os.write(writer, json.dumps(work()).encode()[:60000])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        reply = stream.read()
    os.waitpid(child, 0)
    return json.loads(reply) if reply else None


# -- oracles ----------------------------------------------------------------------------------------------


def test_every_task_with_an_oracle_is_judged() -> None:
    assert len(ALL_TASKS) == 106 and len(TASKS) == 100
    without = {task for task in ALL_TASKS if task != "composite" and entries(task, 1)[0]["answer"] is None}
    assert {*without, "composite"} == set(EXCLUDED)


@pytest.mark.parametrize("task", TASKS)
def test_oracles_score_one_after_a_trip_through_json(task: str) -> None:
    found = problems(task, 3)
    assert len(found) == 3
    for problem in found:
        assert json.loads(json.dumps(problem.checks)) == problem.checks
        verdict = judged(problem, problem.answer)
        assert (verdict.score, verdict.solved, verdict.answer) == (1.0, True, problem.answer)
        # the rule that the oracle's own text is right must not be what makes it so
        value = judge.SCORERS.get(task) or judge._library(task)
        if task not in ("binary_matrix", "spiral_matrix", "string_insertion"):  # exact text is all there is
            assert value(problem.answer, problem.answer, problem.checks["metadata"]) == 1.0


@pytest.mark.parametrize("task", EXCLUDED)
def test_tasks_without_an_oracle_are_refused(task: str) -> None:
    with pytest.raises(StudyError, match=task):
        judge.from_entry({"question": "?", "answer": "1", "metadata": {"source_dataset": task}})
    problem = Problem(domain="logic", task=task, answer="1", checks={"task": task, "metadata": {}})
    verdict = judged(problem, "1")
    assert verdict.status == "refused" and task in verdict.reason and not verdict.solved


def test_unknown_tasks_and_entries_without_a_judgeable_answer_are_refused() -> None:
    with pytest.raises(StudyError, match="no task 'no_such'"):
        judge.from_entry({"answer": "1", "metadata": {}}, "no_such")
    with pytest.raises(StudyError, match="no answer text"):
        judge.from_entry({"answer": "", "metadata": {}}, "polynomial_equations")
    with pytest.raises(StudyError, match="codeio"):
        judge.from_entry({"answer": "{}", "metadata": {}}, "codeio")
    undone = {"answer": "Integral(x**3*cos(x), x) + C", "metadata": {"variable": "x", "integrand": "x"}}
    with pytest.raises(StudyError, match="no closed form"):
        judge.from_entry(undone, "intermediate_integration")


def test_entries_of_a_composite_are_judged_under_their_own_task() -> None:
    specs = [DatasetSpec("countdown", 1, {}), DatasetSpec("arc_agi", 1, {})]
    mixture = library.create_dataset("composite", size=6, seed=1, datasets=specs)
    found = [judge.from_entry(mixture[index]) for index in range(6)]
    assert {problem.task for problem in found} == {"countdown", "arc_agi"}
    assert all(judged(problem, problem.answer).solved for problem in found)


@needs_samples
def test_real_rows_are_solved_by_their_golds_and_not_by_each_others() -> None:
    found = list(map(judge.from_entry, rows("nemo_gym_reasoning_gym")))
    assert len(found) == 5
    assert [[judged(p, q.answer).solved for q in found] for p in found] == [
        [p is q for q in found] for p in found
    ]


# -- attacks ----------------------------------------------------------------------------------------------


def attacks(problem: Problem, others: list[str], marker: Path) -> Iterator[str]:
    gold, room = problem.answer, logic.longest_answer(problem)
    yield f"__import__('os').system('touch {marker}')"
    yield f"[].append(open('{marker}', 'w'))"
    yield f"1 if open('{marker}', 'w') else 2"
    yield "[x for x in ().__class__.__base__.__subclasses__()]"
    yield from ("9**9**9", "9**9**9*0 + 1", "(9**99)**99", "exp(exp(exp(exp(99))))", "1e999", "1e99999999")
    yield from (
        "nan",
        "inf",
        "-inf",
        "nan + nani",
        "None",
        "[]",
        "{}",
        '""',
        "[null]",
        "true",
        "x",
        "garbage",
    )
    yield from ("0", "1", "-1", "True", "False", "Yes", "No", "٣٣٣", "\0", "1/0", "0/0", "-", "=", ",", "\\")
    yield from ("[" * room, "[" * 150 + "]" * 150, '{"a":' * (room // 5), "-" * (room - 1) + "1", "7" * room)
    yield "(" * (room // 2 - 1) + "1" + ")" * (room // 2 - 1)
    yield from ("7" * 5000, problem.prompt[0]["content"], problem.prompt[0]["content"][: room - 1])
    yield from (f"{gold} and junk", f"{gold}, junk", f"{gold}\njunk", f"not {gold}", f"{gold} {gold}")
    yield from others
    yield from (", ".join([gold, *others]), ", ".join([*others, gold]), "\n".join([*others, gold]))


@pytest.mark.parametrize("task", TASKS)
def test_no_attack_executes_hangs_raises_or_solves(task: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    def work() -> list[str]:
        found, faults = problems(task, 3), []
        for problem in found[:2]:
            others = [p.answer for p in found if p.answer != problem.answer]
            for answer in attacks(problem, others, marker):
                try:
                    solved = judged(problem, answer).solved
                except BaseException as error:
                    faults.append(f"{type(error).__name__}: {answer[:80]}")
                    continue
                lucky = meaning(task, answer.strip()) == meaning(task, problem.answer)
                if task in SEVERAL_RIGHT:
                    lucky = lucky or answer in others
                if task == "sokoban":  # the boxes stay where they are, or are put there once more
                    lucky = lucky or answer == f"{problem.answer} {problem.answer}"
                if solved and not lucky:
                    faults.append(f"solved: {answer[:80]!r} for {problem.answer[:80]!r}")
        return faults

    assert in_a_child(work, cpu_seconds=20) == []
    assert not marker.exists()


@pytest.mark.parametrize("task", EXECUTING)
def test_the_librarys_scorer_executes_the_answer_and_ours_does_not(task: str, tmp_path: Path) -> None:
    entry, problem = entries(task, 1)[0], problems(task, 1)[0]
    marker = tmp_path / "marker"
    answer = f"__import__('os').system('touch {marker}')"
    assert not judged(problem, answer).solved and not marker.exists()
    in_a_child(lambda: raw(task, answer, entry), cpu_seconds=10)
    assert marker.exists()


def test_metadata_is_not_executed_either(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = f"__import__('os').system('touch {marker}')"
    entry = {"answer": "0x0", "metadata": {"problem": code}}
    assert judge.score("bitwise_arithmetic", "0", "0x0", entry["metadata"]) == 1.0
    assert judge.score("simple_integration", "x", "2*x", {"variable": "x", "integrand": code}) == 0.0
    assert not marker.exists()
    in_a_child(lambda: raw("bitwise_arithmetic", "0", entry), cpu_seconds=10)
    assert marker.exists()


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        ("countdown", "9**9**9"),
        ("polynomial_multiplication", "9**9**9"),
        ("coin_flip", "1e99999999"),
        ("rush_hour", "A+9999999999"),
    ],
)
def test_the_librarys_scorer_hangs_and_ours_does_not(task: str, answer: str) -> None:
    entry = entries(task, 1)[0]
    raw(task, "1", entry)  # imports and data are not part of the second
    assert in_a_child(lambda: raw(task, answer, entry), cpu_seconds=1) is None
    if task in TASKS:
        assert in_a_child(lambda: judged(problems(task, 1)[0], answer).score < 0.5, cpu_seconds=1)


def test_guarded_tasks_and_no_others_ask_for_a_fork_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh, "_throwaway", False)
    asking = set()
    for task in TASKS:
        try:
            judged(problems(task, 1)[0], "1")
        except fresh.NeedsFreshFork:
            asking.add(task)
    assert asking == {task for task, note in judge.NOTES.items() if note.action == "guarded"}


# -- one piece of evidence for each row of the table ---------------------------------------------------------


FULL_MARKS: dict[str, Callable[[Entry], str]] = {
    "advanced_geometry": lambda e: f"{e['answer']}, junk",
    "calendar_arithmetic": lambda e: "17",
    "codeio": lambda e: '{"x": 5}',
    "coin_flip": lambda e: "0",
    "complex_arithmetic": lambda e: "nan",
    "cryptarithm": lambda e: f"{e['answer'][0]}=0,{e['answer'][0]}=1,{e['answer']}",
    "decimal_arithmetic": lambda e: str(float(e["answer"]) + 0.0005),
    "figlet_font": lambda e: f"{e['answer'][:10]}{'Y' if e['answer'][10] == 'X' else 'X'}",
    "fraction_simplification": lambda e: f"{e['answer']} or 1/2",
    "game_of_life": lambda e: json.dumps([*json.loads(e["answer"]), [1, 1, 1]]),
    "game_of_life_halting": lambda e: "garbage",
    "gsm_symbolic": lambda e: f"-{e['answer']}",
    "intermediate_integration": lambda e: f"Integral({e['metadata']['integrand']}, x)",
    "kakurasu": lambda e: f"not {e['answer']}",
    "knights_knaves": lambda e: f"it is false that {e['answer']}",
    "letter_jumble": lambda e: f"{e['answer']} more",
    "number_sorting": lambda e: str([str(float(n) + 0.9) for n in json.loads(e["answer"].replace("'", '"'))]),
    "polynomial_equations": lambda e: f"{e['answer']}, junk",
    "polynomial_multiplication": lambda e: f"expand({e['metadata']['polynomial_expr']})",
    "pool_matrix": lambda e: (
        "\n".join(
            " ".join(f"{1.007 * float(n):.4f}" for n in row.split()) for row in e["answer"].splitlines()
        )
        + " # junk"
    ),
    "puzzle24": lambda e: "7*7/2*1",
    "quantum_lock": lambda e: f"not {e['answer']}",
    "simple_integration": lambda e: "Integral({integrand}, {variable})".format(**e["metadata"]),
    "sokoban": lambda e: f"not {e['answer']}",
    "survo": lambda e: f"not {e['answer']}",
    "time_intervals": lambda e: f"{e['answer']} or 4 days",
    "tower_of_hanoi": lambda e: f"-{e['answer']}",
    "word_sorting": lambda e: f"{e['answer']}, more",
}
"""Wrong or padded answers that the library's scorer gives full marks for some item."""
BY_HAND = {
    "calendar_arithmetic": {"answer": "-1", "metadata": {"task": "recurring_event_day"}},
    "codeio": {"answer": '{"x": "5"}', "metadata": {}},
    "figlet_font": {"answer": "ABCDEFGHIJKL", "metadata": {}},
}
OTHERWISE = {
    "arc_agi": "test_boards_match_after_json",
    "rearc": "test_boards_match_after_json",
    "spell_backward": "test_letters_after_a_word_of_six_or_nine_are_docked_as_after_five",
    "bitwise_arithmetic": "test_metadata_is_not_executed_either",
    "prime_factorization": "test_generous_part_marks_stay_part_marks",
    "rectangle_count": "test_generous_part_marks_stay_part_marks",
    "syllogism": "test_generous_part_marks_stay_part_marks",
    "composite": "test_entries_of_a_composite_are_judged_under_their_own_task",
}
NO_ORACLE = ("boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour")


def test_every_row_of_the_table_has_its_test() -> None:
    covered = {*FULL_MARKS, *OTHERWISE, *EXECUTING, *NO_ORACLE}
    assert covered == set(judge.NOTES)
    assert all(name in globals() for name in OTHERWISE.values())
    assert {note.action for note in judge.NOTES.values()} == {"excluded", "corrected", "guarded", "kept"}
    assert {task for task, note in judge.NOTES.items() if note.action == "corrected"} == {
        *judge.SCORERS,
        *judge.CONDITIONS,
    } - {"simple_integration", "intermediate_integration"}


@pytest.mark.parametrize("task", FULL_MARKS)
def test_what_the_library_pays_in_full_is_not_solved_here(task: str) -> None:
    def earned() -> list[float | bool]:
        for index in range(400):
            entry = BY_HAND.get(task) or dataset(task)[index]
            answer = FULL_MARKS[task](entry)
            if raw(task, answer, entry) >= 1.0:
                verdict = judged(judge.from_entry(entry, task), answer)
                return [verdict.score, verdict.solved]
        return []

    assert (found := in_a_child(earned, cpu_seconds=20)), "the library's scorer has changed"
    score, solved = found
    assert not solved and score < 1.0


def test_boards_match_after_json() -> None:
    for task in ("arc_agi", "rearc"):
        entry = json.loads(json.dumps(entries(task, 1)[0]))
        assert raw(task, entry["answer"], entry) == 0.05
        spaced = entry["answer"].replace(" ", "  ")
        assert judged(judge.from_entry(entry), spaced).solved == (spaced != entry["answer"])


def test_letters_after_a_word_of_six_or_nine_are_docked_as_after_five() -> None:
    for length, low, high in ((5, 0.8, 0.8), (6, 0.999, 1.0), (9, 1.0, 1.001)):
        entry = next(e for e in entries("spell_backward", 60) if len(e["answer"]) == length)
        assert low <= raw("spell_backward", f"{entry['answer']}x", entry) <= high
        assert judged(judge.from_entry(entry), f"{entry['answer']}x").score == pytest.approx(0.8)


def test_generous_part_marks_stay_part_marks() -> None:
    for task, answer, paid in (
        ("prime_factorization", lambda e: re.search(r"\d+", e["question"])[0], 0.5),
        ("rectangle_count", lambda e: str(int(e["answer"]) + 1), 0.64),
        ("syllogism", lambda e: "None" if e["answer"] == "No" else "", 0.5),
    ):
        entry = next(e for e in entries(task, 40) if answer(e) not in ("", e["answer"]))
        assert raw(task, answer(entry), entry) == pytest.approx(paid, abs=0.01)
        verdict = judged(judge.from_entry(entry), answer(entry))
        assert verdict.score == pytest.approx(paid, abs=0.01) and verdict.status == "partial"


def test_what_is_seen_in_the_scorers_without_an_oracle() -> None:
    with pytest.raises(AttributeError):
        raw("boxnet", "[1]", entries("boxnet", 1)[0])
    for task, answer in (("graph_color", "{}"), ("rubiks_cube", "garbage"), ("rush_hour", "garbage")):
        assert raw(task, answer, entries(task, 1)[0]) == 0.01
    compound = [
        (entry, premise)
        for entry in entries("propositional_logic", 6)
        for premise in entry["metadata"]["premises"]
        if len(premise) > 1
    ]
    assert any(raw("propositional_logic", premise, entry) == 1.0 for entry, premise in compound)


# -- what the replaced scorers still accept ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "oracle", "meta", "answer", "score"),
    [
        ("countdown", "2*3 - 1", {"numbers": [1, 2, 3], "target": 5}, "(3 * 2)-1", 1.0),
        ("countdown", "2*3 - 1", {"numbers": [1, 2, 3], "target": 5}, "2 + 3", 0.05),
        ("countdown", "2*3 - 1", {"numbers": [1, 2, 3], "target": 5}, "3!-1", 0.01),
        ("puzzle24", "8/(3 - 8/3)", {"numbers": [8, 3, 8, 3]}, "8 / (3 - (8 / 3))", 1.0),
        ("puzzle24", "4*6*1*1", {"numbers": [4, 6, 1, 1]}, "24", 0.01),
        ("polynomial_multiplication", "x**2 - 1", {}, "-1 + x*x", 1.0),
        ("polynomial_multiplication", "x**2 - 1", {}, "(x - 1)*(x + 1)", 0.0),
        ("polynomial_multiplication", "3*x + 3", {}, "3*(x + 1)", 0.0),
        ("polynomial_multiplication", "2*x", {}, "x + x", 0.0),
        ("simple_integration", "x**3/3 + C", {"variable": "x", "integrand": "x**2"}, "x**3/3", 1.0),
        ("simple_integration", "x**3/3 + C", {"variable": "x", "integrand": "x**2"}, "x**3/3 + x", 0.0),
        ("simple_integration", "x**3/3", {"variable": "x", "integrand": "x**2"}, "Integral(x**2, x)", 0.0),
        ("intermediate_integration", "log(x)", {"variable": "x", "integrand": "1/x"}, "ln(5*x) + c", 1.0),
        ("intermediate_integration", "exp(x)", {"variable": "x", "integrand": "exp(x)"}, "E**x", 1.0),
        ("coin_flip", "0.109375", {}, "7/64", 1.0),
        ("coin_flip", "3.051757812e-05", {}, "1/32768", 1.0),
        ("coin_flip", "3.051757812e-05", {}, "0.00005", 0.0),
        ("number_sorting", "['1', '2.50']", {}, '["1.0", 2.5]', 1.0),
        ("pool_matrix", "4.67 3.0", {}, "4.6667 3", 1.0),
        ("pool_matrix", "4.67 3.0", {}, "4.66 3", 0.1),
        ("decimal_arithmetic", "6.32098837209", {}, "6.320988372093", 1.0),
        ("calendar_arithmetic", "-1", {"task": "recurring_event_day"}, "-1.", 0.0),
        ("binary_matrix", "0 1\n1 2", {}, "[[0, 1], [1, 2]]", 0.1),
        ("spiral_matrix", "0 1 2", {}, "[0, 1, 2]", 0.1),
        ("string_insertion", "ABC", {}, "['A', 'B', 'C']", 0.1),
        ("n_queens", "Q _\n_ Q", {"valid_answers": ["Q _\n_ Q"]}, "[['Q', '_'], ['_', 'Q']]", 0.5),
        ("bitwise_arithmetic", "0x10", {}, "16", 1.0),
        ("game_of_life_halting", "True", {}, "true", 1.0),
        ("gsm_symbolic", "279", {}, "$279.", 1.0),
        ("time_intervals", "00:34:28", {"task_type": "time_seconds"}, "0:34:28", 1.0),
    ],
)
def test_scores_of_other_spellings(task: str, oracle: str, meta: Entry, answer: str, score: float) -> None:
    problem = Problem(domain="logic", task=task, answer=oracle, checks={"task": task, "metadata": meta})
    verdict = judged(problem, answer)
    assert verdict.score == pytest.approx(score, abs=0.06 if task == "coin_flip" and score == 0 else 1e-9)
    assert verdict.solved == (score == 1.0) and verdict.answer == answer


def test_graded_scores_are_the_librarys() -> None:
    rng, compared = Random(5), 0
    for task in TASKS:
        if task in judge.NOTES:
            continue
        for entry in entries(task, 2):
            gold = entry["answer"]
            for answer in (gold[: len(gold) // 2], f"{gold} so", gold[::-1], str(rng.randint(0, 99))):
                if not answer.strip() or answer != answer.strip():
                    continue
                try:
                    expected = raw(task, answer, entry)
                except Exception:
                    expected = 0.0
                assert judged(judge.from_entry(entry), answer).score == pytest.approx(expected), (
                    task,
                    answer,
                )
                compared += 1
    assert compared > 300


def test_an_answer_may_be_four_times_as_long_as_its_oracle() -> None:
    problem = next(p for p in problems("tower_of_hanoi", 9) if len(p.answer) > 100)
    assert judged(problem, "x" * (4 * len(problem.answer))).status == "wrong"
    assert judged(problem, "x" * (4 * len(problem.answer) + 1)).status == "refused"


def test_the_metadata_of_a_problem_is_not_written_to() -> None:
    for task in TASKS:
        problem = problems(task, 1)[0]
        before = json.dumps(problem.checks)
        judged(problem, problem.answer)
        assert json.dumps(problem.checks) == before, task


def test_plain_keeps_what_json_would_lose() -> None:
    import datetime
    import enum

    import numpy as np

    colour = enum.Enum("Colour", {"RED": "red"})
    value = {1: (2, {3}), "a": np.float64(1.5), "b": np.array([[1]]), "c": colour.RED, "d": None}
    value["e"] = datetime.date(2024, 2, 29)
    expected = {"1": [2, [3]], "a": 1.5, "b": [[1]], "c": "red", "d": None, "e": "2024-02-29"}
    assert json.loads(json.dumps(judge.plain(value))) == expected


def test_the_library_is_imported_only_when_an_answer_is_judged() -> None:
    code = (
        "import sys, prorl_study.judges.reasoning_gym as j; j.floors(); print('reasoning_gym' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# -- mutated golds -----------------------------------------------------------------------------------------


def meaning(task: str, text: str) -> list[Any]:
    """What a text says, whatever its blanks and spelling of numbers: an independent, generous equality."""
    tokens: list[Any] = []
    for token in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?|[a-z]+|[^\s\w]", text.lower()):
        tokens.append(float(token) if token[0].isdecimal() and token[0].isascii() else token)
    if task == "knights_knaves":
        tokens = [token for token in tokens if token not in ("is", "a", "an", "and", ",", ".")]
    if task in ("polynomial_equations", "group_anagrams", "palindrome_partitioning", "prime_factorization"):
        return sorted(map(str, tokens))  # the order does not matter
    return [token for token in tokens if token not in ("$", "°")]


def mutants(gold: str, rng: Random) -> Iterator[str]:
    """A digit or letter changed, two neighbours swapped, one element dropped."""
    digits = [match.start() for match in re.finditer(r"\d", gold)]
    letters = [match.start() for match in re.finditer(r"[A-Za-z]", gold)]
    if digits:
        at = rng.choice(digits)
        yield f"{gold[:at]}{(int(gold[at]) + rng.randint(1, 9)) % 10}{gold[at + 1 :]}"
    elif letters:
        at = rng.choice(letters)
        other = chr((ord(gold[at].lower()) - 97 + rng.randint(1, 25)) % 26 + 97)
        yield f"{gold[:at]}{other}{gold[at + 1 :]}"
    parts = re.split(r"(\s*[,\s]\s*)", gold)
    if len(parts) > 1:
        at = rng.randrange(0, len(parts) - 2, 2)
        swapped = [*parts]
        swapped[at], swapped[at + 2] = swapped[at + 2], swapped[at]
        yield "".join(swapped)
        at = rng.randrange(1, len(parts), 2)
        yield "".join(parts[:at] + parts[at + 2 :])


TOLERATED = {
    "coin_flip": "0.01% off is right",
    "decimal_arithmetic": "one unit of the twelfth digit is right",
    "number_format": "0.01 off is right",
    "power_function": "three significant figures are asked for",
    "time_intervals": "the word days may be left out",
}


def test_mutated_golds_are_caught_but_for_named_tolerances() -> None:
    tried, escaped = 0, dict[str, int]()
    for task in TASKS:
        if task in SEVERAL_RIGHT:
            continue
        for number, problem in enumerate(problems(task, 3 if task in ("futoshiki", "zebra_puzzles") else 6)):
            rng = Random(f"{task}/{number}")
            for mutant in (m for _ in range(2) for m in mutants(problem.answer, rng)):
                if not mutant.strip() or meaning(task, mutant) == meaning(task, problem.answer):
                    continue
                tried += 1
                escaped[task] = escaped.get(task, 0) + judged(problem, mutant).solved
    names = {task for task, count in escaped.items() if count}
    print(f"{tried} mutants, {sum(escaped.values())} solved: {names}")
    assert tried > 1500 and sum(escaped.values()) < 0.03 * tried
    assert names <= set(TOLERATED)


def reaches_the_goal(meta: Entry, answer: str) -> bool:
    cells = {(r, c): cell for r, row in enumerate(meta["matrix"]) for c, cell in enumerate(row)}
    at = next(place for place, cell in cells.items() if cell == "*")
    for step in answer.split():
        down, right = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}[step]
        at = (at[0] + down, at[1] + right)
        if cells.get(at, "X") == "X":
            return False
    return cells[at] == "#"


def queens_are_safe(meta: Entry, answer: str) -> bool:
    board = [row.split() for row in answer.splitlines()]
    queens = [(r, c) for r, row in enumerate(board) for c, cell in enumerate(row) if cell == "Q"]
    given = [(r, c) for r, row in enumerate(meta["puzzle"]) for c, cell in enumerate(row) if cell == "Q"]
    lines = [
        {r for r, _ in queens},
        {c for _, c in queens},
        {r + c for r, c in queens},
        {r - c for r, c in queens},
    ]
    size = len(meta["puzzle"])
    square = [len(row) for row in board] == [size] * size
    return square and all(len(line) == len(queens) == size for line in lines) and set(given) <= set(queens)


def adds_up(meta: Entry, answer: str) -> bool:
    pairs = [pair.split("=") for pair in answer.split(",")]
    digits = {letter.strip(): digit.strip() for letter, digit in pairs}
    needed = set("".join([*meta["words_letters"], meta["result_letters"]]))
    if digits.keys() != needed or len(set(digits.values())) < len(digits):
        return False
    *words, result = (
        "".join(digits[letter] for letter in word)
        for word in [*meta["words_letters"], meta["result_letters"]]
    )
    no_zero = all(word[0] != "0" for word in [*words, result])
    return no_zero and sum(map(int, words)) == int(result)


def computes(meta: Entry, answer: str) -> bool:
    assert re.fullmatch(r"[\d+\-*/() ]+", answer)
    try:
        value = eval(re.sub(r"(\d+)", r"Fraction(\1)", answer), {"Fraction": Fraction})
    except (SyntaxError, TypeError, ZeroDivisionError):
        return False
    used = sorted(map(int, re.findall(r"\d+", answer)))
    return used == sorted(meta["numbers"]) and value == meta.get("target", 24)


@pytest.mark.parametrize(
    ("task", "right"),
    [
        ("countdown", computes),
        ("puzzle24", computes),
        ("cryptarithm", adds_up),
        ("n_queens", queens_are_safe),
        ("shortest_path", reaches_the_goal),
    ],
)
def test_where_several_answers_are_right_ours_agrees_with_a_reference(
    task: str, right: Callable[[Entry, str], bool]
) -> None:
    wrong = 0
    for number, problem in enumerate(problems(task, 12)):
        meta = problem.checks["metadata"]
        if problem.answer == "infeasible":
            continue
        assert right(meta, problem.answer)
        rng = Random(f"{task}/{number}")
        for mutant in (m.strip() for _ in range(4) for m in mutants(problem.answer, rng)):
            if task == "shortest_path" and not set(mutant.split()) <= {"up", "down", "left", "right"}:
                continue
            wrong += not (expected := right(meta, mutant))
            assert judged(problem, mutant).solved == expected, (mutant, problem.answer)
    assert wrong > 15


# -- floors ------------------------------------------------------------------------------------------------


def test_the_table_of_floors_is_what_is_measured_today() -> None:
    path = Path(__file__).parents[1] / "benchmarks" / "reasoning_gym_floors.py"
    spec = importlib.util.spec_from_file_location("reasoning_gym_floors", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    assert set(judge.floors()) == set(TASKS)
    for task in (
        "syllogism",
        "game_of_life",
        "countdown",
        "time_intervals",
        "shortest_path",
        "rectangle_count",
    ):
        assert benchmark.measure(task, benchmark.ITEMS) == judge.floors()[task]


def test_tasks_with_few_options_are_not_open_ended() -> None:
    assert not problems("syllogism", 1)[0].open_ended
    assert problems("countdown", 1)[0].open_ended
    closed = {task for task in TASKS if not problems(task, 1)[0].open_ended}
    assert closed == {task for task, row in judge.floors().items() if row["guess_solved"] >= 0.1}
