"""Claims about the paper's sets: what their rows become, what is dropped and why, what failure says."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import hub_mirror
import pytest
from samples import needs_samples, rows

from prorl_study import cli, hub, problem_source
from prorl_study.domains import DOMAINS, Problem
from prorl_study.errors import StudyError
from prorl_study.files import digest
from prorl_study.hub import code, gold, logic, math, overlap, prepare, sources, splits, stem
from prorl_study.hub.sources import Drop, Item, Read
from prorl_study.verification.pool import VerificationPool

ALL = hub.TRAINING | hub.BENCHMARKS
FROM_FILES = {name: source for name, source in ALL.items() if source.files}
RAN = Path("/tmp/prorl-study-pickle-ran")


@pytest.fixture(scope="module")
def pool():
    with VerificationPool(workers=2) as opened:
        yield opened


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(sources.MIRROR, str(tmp_path / "mirror"))
    return hub_mirror.write(tmp_path / "mirror")


def test_all_of_the_papers_sets_are_known_with_licence_and_pin():
    expected = {
        "deepscaler",
        "eurus_code",
        "scp116k",
        "reasoning_gym_train",
        "nemotron_if",
        "aime24",
        "aime25",
        "amc",
        "math500",
        "minerva",
        "olympiad",
        "apps",
        "codecontests",
        "codeforces",
        "taco",
        "humanevalplus",
        "livecodebench",
        "gpqa_diamond",
        "ifeval",
        "ifbench",
        "reasoning_gym",
        "reasoning_gym_ood",
    }
    assert set(ALL) == expected
    assert {source.domain for source in hub.TRAINING.values()} == set(DOMAINS)
    for source in ALL.values():
        assert source.licence
        assert not source.revision or re.fullmatch("[0-9a-f]{40}", source.revision)
        assert bool(source.repo) != bool(source.rows)


@pytest.mark.parametrize("name", FROM_FILES)
def test_look_alike_rows_become_problems_and_the_unsound_ones_are_counted(name, mirror):
    found = hub.read(FROM_FILES[name])
    assert len(found.problems) == hub_mirror.COUNTS[name], found.dropped
    assert found.rows == len(found.problems) + sum(found.dropped.values())
    for problem in found.problems:
        assert problem.domain == found.source.domain
        assert problem.source == name
        assert problem.id.startswith(f"{name}-")
        assert {message["role"] for message in problem.prompt} == {"user"}
        assert Problem.from_row(problem.row()) == problem
    assert len({problem.id for problem in found.problems}) == len(found.problems)


def test_a_limit_ends_the_reading_early(mirror):
    found = hub.read(hub.TRAINING["deepscaler"], limit=2)
    assert len(found.items) == 2
    assert found.rows == 2


def test_every_gold_of_the_look_alikes_earns_full_credit(mirror, pool, tmp_path):
    golds = 0
    for source in FROM_FILES.values():
        checked = gold.check(hub.read(source), lambda: pool, tmp_path)
        assert not checked.failing, (source.name, checked.failing)
        golds += checked.golds
    assert golds >= 15


def test_a_gold_that_fails_and_a_solution_that_disagrees_are_taken_out(pool, tmp_path):
    source = hub.TRAINING["scp116k"]

    def item(number: int, answer: str, *others: str) -> Item:
        made = stem.scp({"problem": f"How many, {number}?", "solution": f"\\boxed{{{answer}}}"})
        boxes = tuple(sources.boxed(other) for other in others)
        return replace(made, problem=replace(made.problem, id=f"scp116k-{number}"), others=boxes)

    right, disagreed = item(0, "3 kg", "3.0 kg"), item(1, "3 kg", "4 kg")
    wrong = replace(item(2, "5 kg"), gold=sources.boxed("6 kg"))
    opened = []

    def open_pool():
        opened.append(1)
        return pool

    read = Read(source, [right, disagreed, wrong], 3)
    checked = gold.check(read, open_pool, tmp_path)
    assert [problem.id for problem in checked.problems] == ["scp116k-0"]
    assert (checked.failing, checked.disagreeing) == (["scp116k-2"], ["scp116k-1"])
    assert (checked.golds, checked.passed) == (3, 2)
    assert gold.check(read, open_pool, tmp_path) == checked
    assert len(opened) == 1, "what was judged is judged again"


def test_a_pickle_that_would_run_something_is_dropped(mirror):
    RAN.unlink(missing_ok=True)
    found = hub.read(hub.BENCHMARKS["livecodebench"])
    assert found.dropped["private tests cannot be unpacked"] == 1
    assert not RAN.exists()


def test_private_tests_that_unpack_to_too_much_are_dropped(monkeypatch):
    packed = hub_mirror.lcb("x", "2024-09-01", [("1" * 5000, "2")], "zip")["private_test_cases"]
    assert len(code.private_tests(packed)) == 1
    monkeypatch.setattr(code, "LARGEST_UNPACKED", 1000)
    with pytest.raises(Drop, match="too large"):
        code.private_tests(packed)


def test_gpqas_options_are_shuffled_alike_everywhere_and_the_gold_is_the_right_one():
    row = hub_mirror.gpqa("Which?", "right", ["wrong 1", "wrong 2", "wrong 3"])
    problem = stem.gpqa(row).problem
    assert problem.checks["options"][problem.answer] == "right"
    assert stem.gpqa(dict(reversed(row.items()))).problem == problem
    letters = {stem.gpqa(row | {"Question": f"Which {i}?"}).problem.answer for i in range(40)}
    assert letters == set("ABCD")


# ---- what failure says ------------------------------------------------------------------------------------


def test_without_a_network_the_sentence_says_so(monkeypatch):
    monkeypatch.delenv(sources.MIRROR, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StudyError, match=r"^aime25: .* could not be read .*go online") as caught:
        hub.read(hub.BENCHMARKS["aime25"])
    assert "\n" not in str(caught.value)


def test_a_changed_schema_names_the_missing_column(mirror):
    file = mirror / "math-ai" / "aime25" / "test.jsonl"
    file.write_text('{"Problem": "Find n.", "Answer": 3}\n')
    with pytest.raises(StudyError, match=r"no column problem, answer \(only Answer, Problem\)"):
        hub.read(hub.BENCHMARKS["aime25"])


def test_a_set_of_which_no_row_can_be_used_is_an_error(mirror):
    file = mirror / "math-ai" / "aime25" / "test.jsonl"
    file.write_text('{"problem": null, "answer": 3}\n{"problem": "", "answer": 4}\n')
    with pytest.raises(StudyError, match=r"none of 2 rows can be used \(2 no problem\)"):
        hub.read(hub.BENCHMARKS["aime25"])


def test_a_damaged_file_and_a_missing_one_are_named(mirror):
    file = mirror / "math-ai" / "aime25" / "test.jsonl"
    file.write_text("{damaged\n")
    with pytest.raises(StudyError, match=r"test\.jsonl holds a line that is no JSON"):
        hub.read(hub.BENCHMARKS["aime25"])
    file.unlink()
    with pytest.raises(StudyError, match=r"test\.jsonl does not exist; copy it there"):
        hub.read(hub.BENCHMARKS["aime25"])


def test_a_set_without_a_known_commit_is_not_fetched(monkeypatch):
    monkeypatch.delenv(sources.MIRROR, raising=False)
    with pytest.raises(StudyError, match="no commit of .* is known"):
        hub.read(replace(hub.BENCHMARKS["aime25"], revision="main"))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("GatedRepoError", "is gated; accept its terms"),
        ("RepositoryNotFoundError", "there is no dataset"),
        ("RevisionNotFoundError", "no longer has commit"),
        ("RemoteEntryNotFoundError", "does not exist; see which files"),
    ],
)
def test_what_the_hub_answers_becomes_one_sentence(error, sentence, monkeypatch):
    import datasets
    import httpx
    import huggingface_hub.errors

    def refuse(*args, **kwargs):
        response = httpx.Response(404, request=httpx.Request("GET", "https://example.org"))
        raise getattr(huggingface_hub.errors, error)("no", response=response)

    monkeypatch.delenv(sources.MIRROR, raising=False)
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(StudyError, match=sentence) as caught:
        hub.read(hub.BENCHMARKS["gpqa_diamond"])
    assert "\n" not in str(caught.value)


# ---- overlap -----------------------------------------------------------------------------------------


def problem(name: str, text: str) -> Problem:
    return Problem(id=name, domain="math", prompt=[{"role": "user", "content": text}], answer="1")


SENTENCE = "a train leaves the old station at noon and meets another one two hours later near the bridge"


def test_a_training_problem_with_thirteen_words_of_a_benchmark_is_taken_out():
    benchmarks = {"b": [problem("b-0", f"Say when: {SENTENCE}.")]}
    copied = problem("t-0", f"{SENTENCE.upper()}! How fast are they?")
    rewritten = problem("t-1", " ".join(reversed(SENTENCE.split())))
    kept, matches = overlap.decontaminate([copied, rewritten], benchmarks)
    assert kept == [rewritten]
    assert [(m.problem, m.benchmark, m.benchmark_problem) for m in matches] == [("t-0", "b", "b-0")]
    assert len(matches[0].text.split()) == overlap.WORDS


def test_twelve_words_are_not_enough_and_a_short_problem_counts_whole():
    twelve = " ".join(SENTENCE.split()[:12])
    benchmarks = {
        "b": [problem("b-0", f"{twelve} something else entirely"), problem("b-1", "What is 2 + 3?")]
    }
    kept, matches = overlap.decontaminate(
        [
            problem("t-0", f"{twelve} but not so"),
            problem("t-1", "what is 2+3"),
            problem("t-2", "What is 2 + 4?"),
        ],
        benchmarks,
    )
    assert [p.id for p in kept] == ["t-0", "t-2"]
    assert [m.problem for m in matches] == ["t-1"]


def test_a_short_training_text_that_stands_in_a_longer_benchmark_problem_is_taken_out():
    longer = problem("b-0", f"{SENTENCE} Find the sum of all prime factors of 2024, and say why.")
    short = [
        problem("t-0", "Find the sum of all prime factors of 2024"),
        problem("t-1", "Find the sum of 2024"),
    ]
    kept, matches = overlap.decontaminate(short, {"b": [longer]})
    assert [p.id for p in kept] == ["t-1"] and [m.benchmark_problem for m in matches] == ["b-0"]


def test_what_many_problems_of_a_benchmark_share_proves_nothing():
    shared = [problem(f"b-{i}", f"{SENTENCE} and the answer to number {i} is wanted") for i in range(6)]
    kept, matches = overlap.decontaminate([problem("t-0", SENTENCE)], {"b": shared})
    assert [p.id for p in kept] == ["t-0"]
    assert not matches


def test_prepared_sets_are_written_with_a_card_that_accounts_for_every_row(mirror, pool, tmp_path):
    file = mirror / "agentica-org" / "DeepScaleR-Preview-Dataset" / "deepscaler.json"
    leaked = {"problem": "Find the sum of all bases.", "answer": "70", "solution": None, "x": 1}
    file.write_text(json.dumps([*json.loads(file.read_text()), leaked]))
    out = tmp_path / "hub"
    card = prepare.prepare(["deepscaler", "math500"], ["aime25"], None, out, lambda: pool)
    assert json.loads((out / "card.json").read_text()) == card
    assert list(card) == ["deepscaler", "math500"]
    mine = card["deepscaler"]
    assert [match["benchmark"] for match in mine["overlapping"]] == ["aime25"]
    accounted = sum(mine["dropped"].values()) + len(mine["golds_failing"]) + len(mine["overlapping"])
    assert mine["rows"] == mine["problems"] + accounted
    problems = problem_source.read_problems(out / "deepscaler.parquet")
    assert len(problems) == mine["problems"] == hub_mirror.COUNTS["deepscaler"]
    assert prepare.prepare(["amc"], [], None, out, lambda: pool).keys() == {"deepscaler", "math500", "amc"}


def test_without_a_choice_training_is_compared_with_all_texts_and_the_card_says_with_which_not(
    mirror, pool, tmp_path
):
    (mirror / "math-ai" / "aime25" / "test.jsonl").unlink()
    told: list[str] = []
    card = prepare.prepare(["deepscaler"], None, None, tmp_path, lambda: pool, told.append)["deepscaler"]
    texts = {name for name, source in hub.BENCHMARKS.items() if not source.rows}
    assert set(card["compared_with"]) == texts - {"aime25"} and list(card["not_compared_with"]) == ["aime25"]
    assert told[0].startswith("nothing is compared with aime25: ")
    said = splits.compared_said({"deepscaler": card}, ["deepscaler"])
    assert said == f"{len(texts) - 1} benchmarks (not to be had: aime25)"
    (file,) = (mirror / "agentica-org" / "DeepScaleR-Preview-Dataset").iterdir()
    assert card["mirror"] == {file.name: digest(file)}, "a copy is not the commit that the source names"
    shown = splits.sources_table({"deepscaler": card}, ["deepscaler"])["from"].item()
    assert shown == "a copy of agentica-org/DeepScaleR-Preview-Dataset"


def test_no_text_of_a_gated_set_is_put_into_a_card(mirror, pool, tmp_path):
    gated = hub.read(hub.BENCHMARKS["gpqa_diamond"])
    asked = gated.problems[0].prompt[-1]["content"].split("\n")[0]
    file = mirror / "agentica-org" / "DeepScaleR-Preview-Dataset" / "deepscaler.json"
    leaked = {"problem": asked, "answer": "70", "solution": None}
    file.write_text(json.dumps([*json.loads(file.read_text()), leaked]))
    card = prepare.prepare(["gpqa_diamond", "deepscaler"], [], None, tmp_path, lambda: pool)
    assert card["gpqa_diamond"]["samples"] == [] and card["deepscaler"]["samples"]
    assert [match["benchmark"] for match in card["deepscaler"]["overlapping"]] == ["gpqa_diamond"]
    text = json.dumps(card)
    assert not any(p.prompt[-1]["content"].split("\n")[0] in text for p in gated.problems)


def test_an_unknown_source_is_refused_with_the_names_of_the_known(tmp_path):
    with pytest.raises(StudyError, match="no such source: gsm9k; give some of deepscaler, "):
        prepare.prepare(["gsm9k"], [], None, tmp_path, lambda: None)


def test_the_command_line_lists_all_sources_and_evaluates_on_them(mirror, capsys):
    assert cli.main(["sources"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ALL)
    assert len(problem_source.load_benchmarks(["math500"], limit=1)["math500"]) == 1


# ---- puzzles and real rows -------------------------------------------------------------------------------


def test_held_out_puzzles_are_never_trained_on():
    assert not set(logic.HELD_OUT) & set(logic.trainable())
    assert len(logic.trainable()) > 90


def test_puzzles_are_spread_evenly_and_their_golds_earn_full_credit(pool, tmp_path):
    names = ["chain_sum", "word_sorting", "knights_knaves"]
    source = replace(hub.TRAINING["reasoning_gym_train"], rows=lambda: logic.entries(names, 1, 10))
    found = hub.read(source)
    assert [sum(p.task == name for p in found.problems) for name in names] == [4, 3, 3]
    checked = gold.check(found, lambda: pool, tmp_path)
    assert (checked.golds, checked.share) == (10, 1.0)


def test_a_task_that_is_not_judged_is_dropped_with_its_reason():
    rows_ = list(logic.entries(["boxnet"], 1, 3))
    found = hub.read(replace(hub.BENCHMARKS["reasoning_gym_ood"], rows=lambda: iter([*rows_, chain_sum()])))
    assert len(found.problems) == 1
    assert [reason for reason in found.dropped if "boxnet: no oracle" in reason]


def chain_sum() -> dict:
    return next(iter(logic.entries(["chain_sum"], 1, 1)))


def gym_program(row) -> Item:
    prompt = row["responses_create_params"]["input"]
    return code.item(prompt, row["verifier_metadata"]["unit_tests"])


@needs_samples
@pytest.mark.parametrize(
    ("name", "mapper", "count"),
    [
        ("deepscaler", math.plain("prompt", "answer"), 300),
        ("math_train", math.plain("problem", "answer"), 300),
        ("apps_train", code.apps, 5),
        ("codecontests_test", code.codecontests, 133),
        ("humaneval", code.humaneval, 164),
        ("ifeval", hub.instruction.instructions, 300),
        ("nemo_gym_code_gen", gym_program, 5),
    ],
)
def test_real_rows_are_mapped_and_their_golds_earn_full_credit(name, mapper, count, pool, tmp_path):
    source = replace(
        next(iter(hub.TRAINING.values())), name=name, map=mapper, rows=lambda: iter(rows(name)), columns=()
    )
    found = hub.read(source)
    assert found.rows == count
    assert sum(found.dropped.values()) <= 0.02 * count, found.dropped
    checked = gold.check(found, lambda: pool, tmp_path)
    assert not checked.failing


@needs_samples
def test_instructions_that_no_checker_knows_are_dropped_by_name():
    source = replace(hub.TRAINING["nemotron_if"], rows=lambda: iter(rows("nemotron_rl_if")), columns=())
    with pytest.raises(StudyError, match="no checker for last_word:last_word_answer"):
        hub.read(source)
