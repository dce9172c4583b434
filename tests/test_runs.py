"""One run of the long experiments on an untrained model: killed and gone on with, and what its row holds."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from test_segments import RECIPE, start  # noqa: F401 - a fixture

from prorl_study import experiments, run_targets, runs
from prorl_study.domains import DOMAINS
from prorl_study.files import digest, read_log
from prorl_study.params import PLAIN_ENGINE
from prorl_study.problems import first_of_each, load_problems
from prorl_study.sampling import Sampler


def config(root: Path, name: str, learner: str = "grpo", **others) -> Path:
    train = replace(RECIPE, curriculum=[], checkpoint_every=1)
    plan = experiments.RunPlan(
        name="test-arm-base-1",
        experiment="test",
        arm="arm",
        base="base",
        seed=1,
        factors={},
        train=train,
        segments=experiments.segments_of(8000, 2, {}, "test"),
        test_problems=2,
        test_samples=2,
        learner=learner,
    )
    path = root / name / "config.json"
    runs.RunConfig(
        plan=plan,
        problems=str(root / "problems"),
        start=str(root / "base"),
        out=str(root / name / "row.json"),
        work=str(root / name / "work"),
        eval_temperature=0.6,
        top_p=0.95,
        max_tokens=40,
        batch_tokens=4000,
        isolation="walls",
        workers=1,
        threads=1,
        claims_sha256="0" * 64,
        **others,
    ).write(path)
    return path


def begin(path: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "prorl_study.runs", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(path: Path) -> dict:
    process = begin(path)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-2000:]
    return json.loads((path.parent / "row.json").read_text())


@pytest.fixture(scope="module")
def row(start) -> dict:  # noqa: F811
    (start / "problems" / "test.parquet").write_bytes(
        (start / "problems" / "validation.parquet").read_bytes()
    )
    return finish(config(start, "straight"))


def test_a_row_holds_what_its_segments_ended_with(row):
    assert [end["segment"] for end in row["ends"]] == ["s1", "s2"]
    assert row["tokens_sampled"] == row["ends"][-1]["tokens"] >= 8000 > row["ends"][0]["tokens"] >= 4000
    assert row["ends"][0]["flops"] < row["ends"][1]["flops"] == row["flops"]
    for end in row["ends"]:
        assert set(end["strict"]) == set(DOMAINS) and len(end["solved"]) == 2 * len(DOMAINS)
        assert all(0 <= solved <= end["samples"] for solved in end["solved"])
    assert [b["segment"] for b in row["boundaries"]] == ["s2"]
    assert row["curve"]["tokens"] == sorted(row["curve"]["tokens"])


@pytest.mark.slow
def test_a_run_that_was_killed_twice_ends_with_the_same_row(start, row):  # noqa: F811
    path = config(start, "twice")
    for segment in ("s1", "s2"):
        process = begin(path)
        log, deadline = start / "twice" / "work" / segment / "log.jsonl", time.monotonic() + 200
        while not read_log(log) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert read_log(log) and not (start / "twice" / "row.json").exists()
    assert finish(path) == row
    assert not list((start / "twice" / "work").rglob("checkpoint-*")), "a finished run leaves no weights"


def test_the_fingerprint_covers_the_seed_but_not_the_name(start):  # noqa: F811
    plan, plain = runs.RunConfig.read(config(start, "named")).plan, Sampler(0.6, 0.95, 40, 4000)

    def of(one, sampler=plain, engine=PLAIN_ENGINE):
        return runs.fingerprint(one, start / "problems", start / "base", sampler, engine)

    assert of(plan) == of(replace(plan, name="other"))
    assert of(plan) != of(replace(plan, seed=2))
    assert of(plan) != of(replace(plan, judged_on="validation"))
    assert of(plan) != of(replace(plan, train=replace(tiny.TRAIN, learning_rate=0.1)))
    assert of(plan) != of(plan, sampler=replace(plain, temperature=1.0))
    assert of(plan) != of(plan, engine=replace(PLAIN_ENGINE, evaluation_engine="vllm"))


def test_a_run_that_chooses_a_setting_is_judged_on_validation_problems_and_others_on_test_problems(
    start,  # noqa: F811
    tmp_path,
):
    for split, source in (("test", "train"), ("validation", "validation")):
        shutil.copy(start / "problems" / f"{source}.parquet", tmp_path / f"{split}.parquet")
    plain = replace(runs.RunConfig.read(config(start, "judged")), problems=str(tmp_path))
    for split in ("test", "validation"):
        ids = [p.id for p in first_of_each(load_problems(tmp_path, split), plain.plan.test_problems)]
        own = replace(plain, plan=replace(plain.plan, judged_on=split))
        judged = runs.judge_model(own, start / "base")
        assert judged["problems_sha256"] == hashlib.sha256(json.dumps(ids).encode()).hexdigest()


@pytest.mark.slow
def test_a_supervised_arm_has_a_row_like_any_other_and_spends_no_more_than_its_teacher(start, row):  # noqa: F811
    solved = [{"domain": "math", "prompt": [5, 6, 7], "completion": [8, 9, n]} for n in range(40)]
    (start / "rollouts.jsonl").write_text(json.dumps({"step": 1, "solved": solved}) + "\n")
    learned = finish(
        config(
            start,
            "supervised",
            learner="filtered",
            teacher=str(start / "straight" / "row.json"),
            rollouts=[str(start / "rollouts.jsonl")],
        )
    )
    assert set(learned) == set(row)
    assert learned["ends"][0]["flops"] < learned["flops"] <= row["flops"]
    assert learned["flops"] > 0.98 * row["flops"]
    assert learned["start"] == row["start"] and learned["curve"]["validation"] == []


def test_a_run_that_only_goes_by_another_name_is_not_done_again(start, row):  # noqa: F811
    path = config(start, "straight")
    written = json.loads(path.read_text())
    written["plan"]["arm"], written["out"] = "other", str(start / "other.json")
    path.write_text(json.dumps(written))
    log = start / "straight" / "work" / "s1" / "log.jsonl"
    before = log.stat().st_mtime_ns
    runs.main([str(path)])
    assert json.loads((start / "other.json").read_text()) == row | {"arm": "other"}
    assert log.stat().st_mtime_ns == before


def test_the_list_of_rows_names_each_with_its_digest(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a.json").write_text("{}")
    run_targets.list_rows(tmp_path)
    assert json.loads((tmp_path / "rows.json").read_text()) == {
        "a.json": digest(tmp_path / "runs" / "a.json")
    }
