"""Public sets and a base from elsewhere, through the stages: splits, data card, training, pages.

A mirror stands for the hub; its rows follow the recorded schemas. Reasoning Gym is the package's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import tiny
from ruamel.yaml import YAML

from prorl_study import params, problems
from prorl_study.errors import StudyError
from prorl_study.hub import splits
from prorl_study.params import DataParams, OriginParams
from prorl_study.verification import VerificationPool

ROOT = Path(__file__).parents[1]
ORIGIN = OriginParams(
    training_sets=["deepscaler", "reasoning_gym_train"],
    benchmark_sets=["math500", "reasoning_gym", "reasoning_gym_ood"],
    hard_sets=["aime24"],
    hub_limit=120,
)
SIZES = DataParams(
    train_problems=60,
    validation_problems=6,
    test_problems=20,
    hard_problems=4,
    ood_problems=3,
    floor_samples=2,
)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("mirror")
    deepscaler = root / "agentica-org/DeepScaleR-Preview-Dataset/deepscaler.json"
    math500 = root / "HuggingFaceH4/MATH-500/test.jsonl"
    aime = root / "HuggingFaceH4/aime_2024/data/train-00000-of-00001.parquet"
    for path in (deepscaler, math500, aime):
        path.parent.mkdir(parents=True)
    rows = [
        {"problem": f"What is {a} plus {b}, all told?", "answer": str(a + b), "solution": None}
        for a in range(8)
        for b in range(10)
    ]
    copied = "A train leaves the town at noon and another one leaves it an hour later, so when do they meet?"
    rows.append({"problem": f"Listen. {copied}", "answer": "3", "solution": None})
    deepscaler.write_text(json.dumps(rows))
    asked = [
        {"problem": f"Find {a} times {b}.", "answer": str(a * b)} for a in range(11, 14) for b in range(10)
    ]
    asked.append({"problem": copied, "answer": "3"})
    math500.write_text("".join(json.dumps(row) + "\n" for row in asked))
    pd.DataFrame([{"problem": f"Hard, {i}?", "answer": str(i)} for i in range(6)]).to_parquet(aime)
    return root


@pytest.fixture(scope="module")
def built(mirror: Path, tmp_path_factory) -> tuple[Path, dict]:
    root = tmp_path_factory.mktemp("built")
    os.environ["PRORL_HUB_MIRROR"] = str(mirror)
    try:
        with VerificationPool(workers=2) as pool:
            return root / "problems", splits.build(ORIGIN, SIZES, 1, root / "problems", root / "work", pool)
    finally:
        del os.environ["PRORL_HUB_MIRROR"]


def split_of(folder: Path, name: str) -> list[problems.Problem]:
    return problems.load_problems(folder, name)


def test_splits_have_the_asked_sizes_and_the_papers_mixture_of_the_domains_that_are_there(built):
    folder, summary = built
    assert summary["counts"]["math"] == {"test": 20, "hard": 4, "ood": 0, "validation": 6, "train": 31}
    assert summary["counts"]["logic"] == {"test": 20, "hard": 0, "ood": 6, "validation": 6, "train": 29}
    assert not any(summary["counts"]["code"].values())
    for name in problems.STUDY_SPLITS:
        assert all(p.split == name for p in split_of(folder, name))


def test_nothing_held_out_is_trained_on(built):
    folder, summary = built
    held = {
        problems.prompt_text(p)
        for name in ("validation", "test", "hard", "ood")
        for p in split_of(folder, name)
    }
    assert not held & {problems.prompt_text(p) for p in split_of(folder, "train")}
    (match,) = summary["card"]["deepscaler"]["overlapping"]
    assert match["benchmark"] == "math500" and match["text"].startswith("a train leaves the town at noon")


def test_a_generators_own_wording_takes_no_puzzle_out(built):
    _, summary = built
    card = summary["card"]["reasoning_gym_train"]
    assert card["problems"] > 0.8 * card["golds_passed"]


def test_each_benchmark_is_a_task_of_its_own_and_puzzles_keep_theirs(built):
    folder, summary = built
    tasks = {p.task for p in split_of(folder, "test")}
    assert "math500" in tasks and len(tasks) > 10
    assert summary["floors"]["math500"]["garbage"]["solved"] < 1
    assert {p.task for p in split_of(folder, "hard")} == {"aime24"}


@pytest.mark.parametrize(
    ("origin", "sentence"),
    [
        (replace(ORIGIN, training_sets=["deepscalr"]), "no such training set: deepscalr"),
        (replace(ORIGIN, benchmark_sets=["math501"]), "no such benchmark: math501"),
        (replace(ORIGIN, training_sets=["deepscaler"]), "nothing to train on for logic"),
    ],
)
def test_a_mistake_in_the_origin_is_one_sentence(origin, sentence, mirror, tmp_path, monkeypatch):
    monkeypatch.setenv("PRORL_HUB_MIRROR", str(mirror))
    with VerificationPool(workers=1) as pool, pytest.raises(StudyError, match=sentence):
        splits.build(origin, SIZES, 1, tmp_path / "problems", tmp_path / "work", pool)


def test_training_sets_without_benchmarks_are_refused():
    with pytest.raises(StudyError, match="must both be given or both be empty"):
        OriginParams(training_sets=["deepscaler"])


# ---- the stages themselves ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(mirror: Path, tmp_path_factory) -> Path:
    """A clone on profile smoke whose problems and base come from elsewhere, after all stages."""
    target = tmp_path_factory.mktemp("clone")
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file() and (not name.startswith("results/") or "evidence/" in name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    (target / "dvc.lock").unlink(missing_ok=True)
    tiny.save_model(target / "start", 0)
    environment = os.environ | {"PYTHONPATH": str(target), "PRORL_HUB_MIRROR": str(mirror)}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def call(*command: str) -> None:
        done = subprocess.run(
            command, cwd=target, env=environment, capture_output=True, text=True, timeout=1800
        )
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"

    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit"]):
        call("git", *command, *(["-qm", "copy"] if "commit" in command else []))
    call("dvc", "pull", "data.dvc")
    call("prorl-study", "profile", "smoke")
    yaml = YAML()
    raw = yaml.load(target / "params.yaml")
    raw["origin"] |= {
        "base": "start",
        "training_sets": ORIGIN.training_sets,
        "benchmark_sets": ORIGIN.benchmark_sets,
        "hub_limit": 60,
    }
    raw["train"] |= {
        "domains": ["math", "logic"],
        "max_completion_tokens": 64,
    }  # long enough to end by chance
    yaml.dump(raw, target / "params.yaml")
    call("dvc", "repro")
    return target


@pytest.mark.slow
def test_all_stages_run_on_public_sets_and_a_base_from_elsewhere(study: Path):
    origin = params.load(study / "params.yaml").origin
    assert origin.training_sets == ORIGIN.training_sets
    card = (study / "reports" / "10_data.html").read_text()
    assert "The data card" in card and "deepscaler" in card and "MIT" in card
    assert "own chat template" in (study / "reports" / "20_base_model.html").read_text()
    gains = json.loads((study / "results" / "gains.json").read_text())
    assert {g["domain"] for g in gains} == {"math", "logic"}
    assert (study / "reports" / "index.html").is_file()


@pytest.mark.slow
def test_claims_about_domains_that_are_not_there_have_not_run(study: Path):
    verdicts = {c["id"]: c["verdict"] for c in json.loads((study / "results" / "claims.json").read_text())}
    assert verdicts["gain-code"] == "not run" and verdicts["gain-math"] != "not run"
