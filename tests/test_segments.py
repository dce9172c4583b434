"""One segment of prolonged training in its own process: resume, boundaries, alarms."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import tiny
from safetensors.torch import load_file

from prorl_study import segments
from prorl_study.domains import DOMAINS
from prorl_study.errors import StudyError
from prorl_study.files import read_log, write_json
from prorl_study.params import SegmentParams

RECIPE = replace(
    tiny.TRAIN,
    prompts_per_step=10,
    rollouts_per_prompt=4,
    max_completion_tokens=40,  # long enough for an untrained model to end some of its answers by chance
    checkpoint_every=1,
    validate_every=2,
)


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """A folder with an untrained base and a few problems of every domain."""
    root = tmp_path_factory.mktemp("segment")
    tiny.save_model(root / "base", 0)
    problems = root / "problems"
    problems.mkdir()
    for split, count in (("train", 8), ("validation", 2)):
        rows = [domain.generate(1, split, i).row() for domain in DOMAINS.values() for i in range(count)]
        pd.DataFrame(rows).to_parquet(problems / f"{split}.parquet", index=False)
    write_json({}, problems / "floors.json")
    return root


def config(root: Path, name: str, steps: int = 3, previous: str = "base", **boundary) -> Path:
    segment = SegmentParams(
        segment=name, previous=previous, steps=steps, **{"reference": "move", "optimizer": "fresh"} | boundary
    )
    path = root / name / "config.json"
    segments.SegmentConfig(
        train=RECIPE,
        segment=segment,
        seed=5,
        problems=str(root / "problems"),
        previous=str(root / previous),
        out=str(root / name / "model"),
        work=str(root / name / "work"),
        eval_temperature=0.6,
        top_p=0.95,
        batch_tokens=4000,
        isolation="walls",
        workers=1,
    ).write(path)
    return path


def run(path: Path) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "prorl_study.segments", str(path)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(path: Path) -> None:
    process = run(path)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-2000:]


@pytest.fixture(scope="module")
def straight(start: Path) -> Path:
    """The segment `one`, never stopped."""
    finish(config(start, "one"))
    return start / "one"


def weights(folder: Path) -> dict:
    return load_file(folder / "model.safetensors")


def equal(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all((one[k] == two[k]).all() for k in one)


def test_a_killed_segment_goes_on_from_its_checkpoint_and_ends_as_if_never_stopped(start, straight):
    path = config(start, "killed")
    log = start / "killed" / "work" / "log.jsonl"
    process = run(path)
    deadline = time.monotonic() + 200
    checkpoints = start / "killed" / "work" / "checkpoints"
    while segments.last_checkpoint(checkpoints) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert segments.last_checkpoint(checkpoints) is not None and not (start / "killed" / "model").exists()
    finish(path)
    assert equal(weights(start / "killed" / "model"), weights(straight / "model"))
    strip = [{k: v for k, v in r.items() if k != "segment"} for r in read_log(log)]
    assert strip == [
        {k: v for k, v in r.items() if k != "segment"} for r in read_log(straight / "work" / "log.jsonl")
    ]


def test_a_finished_segment_is_exported_again_without_training(start, straight):
    before = weights(straight / "model")
    shutil.rmtree(straight / "model")
    log = (straight / "work" / "log.jsonl").read_bytes()
    finish(straight / "config.json")
    assert equal(weights(straight / "model"), before)
    assert (straight / "work" / "log.jsonl").read_bytes() == log


def test_every_step_logs_reward_kl_entropy_and_counts_per_domain(straight):
    records = read_log(straight / "work" / "log.jsonl")
    assert [r["step"] for r in records] == [1, 2, 3]
    for record in records:
        assert {"reward", "kl", "entropy", "kept_fraction"} <= set(record)
        assert sum(record[f"kept/{d}"] for d in DOMAINS) + record["filled_groups"] == 10
        assert all(record[f"sampled/{d}"] >= record[f"informative/{d}"] for d in DOMAINS)
    assert "validation" in records[1] and "validation" in records[2] and "validation" not in records[0]


def test_a_reset_measures_kl_against_the_policy_that_the_segment_starts_from(start, straight):
    shutil.copytree(straight / "model", start / "s1", dirs_exist_ok=True)
    finish(config(start, "moved", steps=1, previous="s1"))
    finish(config(start, "kept", steps=1, previous="s1", reference="keep", optimizer="keep"))
    reference = {name: weights(start / name / "model" / "reference") for name in ("moved", "kept")}
    assert equal(reference["moved"], weights(start / "s1"))
    assert equal(reference["kept"], weights(start / "base"))
    first = {name: read_log(start / name / "work" / "log.jsonl")[0] for name in ("moved", "kept")}
    assert first["kept"]["kl"] > first["moved"]["kl"]


def test_the_fingerprint_covers_the_recipe_but_not_the_length(start):
    base = SegmentParams(segment="s", previous="base", steps=3, reference="move", optimizer="fresh")

    def of(train=RECIPE, segment=base):
        return segments.fingerprint(train, segment, 1, start / "problems", start / "base")

    assert of() == of(segment=replace(base, steps=9))
    assert of() != of(train=replace(RECIPE, learning_rate=1e-9))
    assert of() != of(segment=replace(base, optimizer="keep"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"loss": float("nan")}, "not a number"),
        ({"kl": 9.0}, "KL to the reference is 9.00"),
        ({"entropy": 0.001}, "entropy is 0.0010"),
        ({"truncated": 1.0}, "every rollout was cut"),
    ],
)
def test_the_alarm_stops_training_with_one_sentence(change, sentence):
    recipe = replace(tiny.TRAIN, alarm_kl=5.0, alarm_entropy=0.01)
    healthy = {"step": 7, "segment": "s2", "loss": 0.1, "kl": 0.1, "entropy": 0.5, "truncated": 0.0}
    segments.alarm(healthy, recipe)
    with pytest.raises(StudyError, match=f"s2 stopped at step 7: .*{sentence}"):
        segments.alarm(healthy | change, recipe)
