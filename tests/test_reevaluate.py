"""Claims about re-evaluating published checkpoints: which numbers are compared, and what is left out."""

from __future__ import annotations

import json
from dataclasses import replace

import hub_mirror
import pytest
import tiny

from prorl_study import cli, hub, problem_source, reevaluate
from prorl_study.errors import StudyError
from prorl_study.hub import sources
from prorl_study.paper import load_paper
from prorl_study.verification.pool import VerificationPool


@pytest.fixture(scope="module")
def pool():
    with VerificationPool(workers=2) as opened:
        yield opened


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    monkeypatch.setenv(sources.MIRROR, str(tmp_path / "mirror"))
    return hub_mirror.write(tmp_path / "mirror")


def test_checkpoints_are_pinned_by_commit():
    found = reevaluate.checkpoints()
    assert list(found) == ["base", "trained", "v2", "brorl"]
    assert all(len(checkpoint.revision) == 40 for checkpoint in found.values())
    assert len({checkpoint.revision for checkpoint in found.values()}) == 4


def test_every_benchmark_of_the_papers_first_three_tables_has_its_published_number():
    assert set(reevaluate.ASKED) <= set(hub.BENCHMARKS)
    in_tables = {"math", "code", "stem_instruction_logic"}
    asked = {reevaluate.PAPER_NAMES[name] for name in reevaluate.PAPER_NAMES}
    tables = load_paper()["tables"]
    assert {cell for name in in_tables for cell in tables[name]["rows"]["base"]} - {"average"} == asked
    for name in reevaluate.PAPER_NAMES:
        for checkpoint in ("base", "trained") if name in hub.logic.HELD_OUT else ("base", "trained", "v2"):
            assert reevaluate.published(checkpoint, name) is not None, (checkpoint, name)
    assert reevaluate.published("base", "aime24") == 28.54
    assert reevaluate.published("trained", "gpqa_diamond") == 41.78
    assert reevaluate.published("v2", "ifeval") == 70.85
    assert reevaluate.published("brorl", "math500") == 92.14
    assert reevaluate.published("brorl", "gpqa_diamond") is None


@pytest.mark.parametrize(
    ("benchmark", "metric", "interval", "agrees"),
    [
        ("aime24", "strict", (0.25, 0.20, 0.32), True),
        ("aime24", "strict", (0.35, 0.30, 0.40), False),
        ("ifeval", "graded", (0.44, 0.43, 0.45), True),
        ("ifbench", "strict", (0.44, 0.43, 0.45), None),
    ],
)
def test_the_published_number_is_compared_with_the_measure_that_was_published(
    benchmark, metric, interval, agrees
):
    values = dict(zip(("value", "ci_low", "ci_high"), interval, strict=True))
    far = {"value": 0.99, "ci_low": 0.98, "ci_high": 1.0}
    other = "graded" if metric == "strict" else "strict"
    rows = [{"metric": metric, "n_problems": 30} | values, {"metric": other, "n_problems": 30} | far]
    assert reevaluate.compare("base", benchmark, rows)["agrees"] is agrees


def test_checkpoints_are_evaluated_and_what_cannot_be_had_is_named(mirror, pool, tmp_path):
    model = tiny.save_model(tmp_path / "tiny", seed=0)
    chosen = {"base": reevaluate.Checkpoint("base", str(model), None)}
    (mirror / "Idavidrein" / "gpqa" / "gpqa_diamond.csv").unlink()
    told: list[str] = []
    wanted = ["math500", "gpqa_diamond", "ifeval"]
    settings = {"seed": 0, "samples": 2, "max_tokens": 8, "backend": "transformers", "resamples": 50}
    rows = reevaluate.run(chosen, wanted, pool, tmp_path / "out", 2, told.append, **settings)
    assert [row["benchmark"] for row in rows] == ["math500", "ifeval"]
    assert told[0].startswith("left out: gpqa_diamond: ")
    assert json.loads((tmp_path / "out" / "reevaluate.json").read_text()) == rows
    assert rows[0]["published"] == 82.90
    assert set(rows[0]) >= {"strict", "graded", "lenient"}
    printed = reevaluate.table(rows)
    assert "82.90 (strict)" in printed
    assert "44.05 (graded)" in printed


def test_held_out_puzzles_are_shown_task_by_task_and_rows_that_no_judge_can_use_are_left_out(
    mirror, pool, tmp_path
):
    told: list[str] = []
    parts = dict(reevaluate._readable([reevaluate.OOD], 6, pool, told.append))
    assert set(parts) == {"acre", "game_of_life_halting"}
    assert any(line.startswith("left out of reasoning_gym_ood: ") and "boxnet" in line for line in told)
    path = mirror / "HuggingFaceH4" / "MATH-500" / "test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    ((name, sound),) = reevaluate._readable(["math500"], None, pool, told.append)
    assert name == "math500" and len(sound) == hub_mirror.COUNTS["math500"] < len(rows)
    changed = [replace(sound[0], domain="code", checks={}), *sound[1:]]
    assert [problem for problem, _ in problem_source.refused(changed, pool)] == changed[:1]


def test_nothing_that_can_be_had_is_an_error(mirror, pool, tmp_path):
    (mirror / "Idavidrein" / "gpqa" / "gpqa_diamond.csv").unlink()
    with pytest.raises(StudyError, match="none of gpqa_diamond can be had"):
        reevaluate.run({}, ["gpqa_diamond"], pool, tmp_path, tell=lambda text: None)
    with pytest.raises(StudyError, match="no such benchmark: aime99"):
        reevaluate.run({}, ["aime99"], pool, tmp_path)


def test_the_cost_is_told_before_anything_is_fetched(capsys):
    assert cli.main(["reevaluate", "--plan", "--benchmarks", "aime24", "--checkpoints", "base", "v2"]) == 0
    printed = capsys.readouterr().out
    table = reevaluate.cost(["base", "v2"], ["aime24"], 16, 32768, 10_000, 8000)
    assert table.answers.tolist() == [30 * 17, 30 * 17, 2 * 30 * 17]
    assert table.to_string(index=False) in printed
    assert "Assumed, not measured" in printed
    assert cli.main(["reevaluate", "--checkpoints", "v9"]) == 1
    assert "no such checkpoint: v9" in capsys.readouterr().err
