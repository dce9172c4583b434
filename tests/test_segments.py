"""One segment of prolonged training in its own process: resume, boundaries, alarms."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import tiny
from safetensors.torch import load_file

from prorl_study import checkpoints, segments, training_log
from prorl_study.course import BOUNDARY_FIGURES
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
    reward="random",  # an untrained model earns nothing, and then no gradient is there to be compared
    # A step samples between 1,600 and 4,800 tokens, a check up to 400.
    curriculum=[
        {"tokens": 0, "domains": ["math", "code", "stem", "logic"]},
        {"tokens": 3000, "domains": list(DOMAINS), "truncation_factor": 0.5},
        {"tokens": 6000, "rollouts_per_prompt": 6, "max_completion_tokens": 44},
    ],
)
TOKENS = 9000
FILE_LIMIT = 50_000
"""Bytes that a file may have on the full disk: less than the optimizer's state, more than a log."""
FULL_DISK = """
import resource, transformers
from prorl_study import segments

save = transformers.Trainer._save_optimizer_and_scheduler
def full(self, folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
    save(self, folder)
transformers.Trainer._save_optimizer_and_scheduler = full
segments.main([{path!r}])
"""
"""The limit comes with the first checkpoint: the walls of verification need larger files before."""


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


def config(
    root: Path, name: str, tokens: int = TOKENS, previous: str = "base", train=RECIPE, **boundary
) -> Path:
    segment = SegmentParams(
        segment=name,
        previous=previous,
        tokens=tokens,
        **{"reference": "move", "optimizer": "fresh", "rule": "log"} | boundary,
    )
    path = root / name / "config.json"
    segments.SegmentConfig(
        train=train,
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


def logs(folder: Path, *names: str) -> list[dict]:
    """Records of the segment's logs, without the name of the segment, which tests choose as they like."""
    return [
        {k: v for k, v in record.items() if k != "segment"}
        for name in names or ("log", "checks")
        for record in read_log(folder / "work" / f"{name}.jsonl")
    ]


def kill_after(path: Path, wanted: int) -> list[Path]:
    """Start a segment and kill it once it has left so many complete checkpoints; returns them, the newest
    first."""
    process, folder = run(path), path.parent / "work" / "checkpoints"
    deadline = time.monotonic() + 200
    while len(checkpoints.complete_checkpoints(folder)) < wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (path.parent / "model").exists()
    found = checkpoints.complete_checkpoints(folder)
    assert len(found) >= wanted
    return found


def test_a_killed_segment_goes_on_from_its_checkpoint_and_ends_as_if_never_stopped(start, straight):
    path = config(start, "killed")
    kill_after(path, 1)
    finish(path)
    assert equal(weights(start / "killed" / "model"), weights(straight / "model"))
    assert logs(start / "killed") == logs(straight)


def test_of_a_finished_segment_the_newest_checkpoint_alone_stays(straight):
    (checkpoint,) = (straight / "work" / "checkpoints").glob("checkpoint-*")
    assert equal(weights(checkpoint), weights(straight / "model"))


def test_a_finished_segment_is_exported_again_without_training(start, straight):
    before = weights(straight / "model")
    shutil.rmtree(straight / "model")
    log = (straight / "work" / "log.jsonl").read_bytes()
    finish(straight / "config.json")
    assert equal(weights(straight / "model"), before)
    assert (straight / "work" / "log.jsonl").read_bytes() == log


def test_every_step_logs_reward_kl_entropy_tokens_and_counts_per_domain(straight):
    records = read_log(straight / "work" / "log.jsonl")
    assert [r["step"] for r in records] == list(range(1, len(records) + 1))
    for record in records:
        assert {"reward", "kl", "entropy", "kept_fraction", "kl_share", "step_size"} <= set(record)
        assert sum(record[f"kept/{d}"] for d in DOMAINS) + record["filled_groups"] == 10
        assert all(record[f"sampled/{d}"] >= record[f"informative/{d}"] for d in DOMAINS)
    spent = [r["tokens_sampled"] for r in records]
    assert spent == sorted(spent) and spent[-2] < TOKENS <= spent[-1]
    assert [c["step"] for c in read_log(straight / "work" / "checks.jsonl")] == list(
        range(0, len(records) + 1, 2)
    )


def test_the_curriculum_adds_a_domain_and_grows_the_group_by_sampled_tokens(straight):
    records = read_log(straight / "work" / "log.jsonl")
    before = [0, *(r["tokens_sampled"] for r in records[:-1])]
    # a check may come between: then the tokens at a step's start are a little more than those logged before
    assert not sum(r["sampled/instruction"] for t, r in zip(before, records, strict=True) if t < 2500)
    assert sum(r["sampled/instruction"] for t, r in zip(before, records, strict=True) if t >= 3000) > 0
    assert before[-1] >= 6000 and records[-1]["completion_tokens"] <= 44
    prompts = sum(records[-1][f"sampled/{d}"] for d in DOMAINS)
    assert records[-1]["tokens_sampled"] - before[-1] > 4 * prompts


def test_a_reset_measures_kl_against_the_policy_that_the_segment_starts_from(start, straight):
    shutil.copytree(straight / "model", start / "s1", dirs_exist_ok=True)
    finish(config(start, "moved", tokens=1, previous="s1"))
    finish(config(start, "kept", tokens=1, previous="s1", reference="keep", optimizer="fresh"))
    reference = {name: weights(start / name / "model" / "reference") for name in ("moved", "kept")}
    assert equal(reference["moved"], weights(start / "s1"))
    assert equal(reference["kept"], weights(start / "base"))
    first = {name: read_log(start / name / "work" / "log.jsonl")[0] for name in ("moved", "kept")}
    assert first["kept"]["kl"] > first["moved"]["kl"]
    # On the first batch the policy is the moved reference: nothing of its gradient is the KL's.
    assert first["moved"]["kl_share"] < 1e-4 < first["kept"]["kl_share"]


def test_each_boundary_is_written_down_with_its_rule_and_what_it_changed(start, straight):
    shutil.copytree(straight / "model", start / "s1", dirs_exist_ok=True)
    finish(config(start, "written", tokens=1, previous="s1"))
    (boundary,) = checkpoints.read_state(start / "written" / "model")["boundaries"]
    last, first = logs(straight, "log")[-1], logs(start / "written", "log")[0]
    assert boundary["rule"] == "budget" and boundary["step"] == last["step"]
    assert boundary["tokens"] == last["tokens_sampled"]
    assert boundary["before"] == {name: last[name] for name in BOUNDARY_FIGURES}
    assert boundary["after"] == {name: first[name] for name in BOUNDARY_FIGURES}


def test_a_boundary_that_keeps_reference_and_optimizer_changes_nothing(start, straight):
    finish(config(start, "first", tokens=4000))
    shutil.copytree(start / "first" / "model", start / "half")
    finish(config(start, "second", tokens=TOKENS - 4000, previous="half", reference="keep", optimizer="keep"))
    assert equal(weights(start / "second" / "model"), weights(straight / "model"))
    for name in ("log", "checks"):
        assert logs(start / "first", name) + logs(start / "second", name) == logs(straight, name)


def test_a_boundary_that_keeps_all_checks_anew_where_its_validation_is_another(start, straight):
    shutil.copytree(straight / "model", start / "s1", dirs_exist_ok=True)
    fewer = replace(RECIPE, validation_prompts=1)
    finish(config(start, "fewer", 4000, "s1", train=fewer, reference="keep", optimizer="keep"))
    begun, *later = logs(start / "fewer", "checks")
    assert begun["step"] == logs(straight, "log")[-1]["step"] and later


@pytest.mark.slow
def test_a_stalled_segment_ends_early_and_what_it_leaves_passes_to_the_next(start):
    still = replace(RECIPE, learning_rate=1e-12, validate_every=1, patience=2, min_delta=0.9, curriculum=[])
    finish(config(start, "stalled", train=still, rule="stop"))
    state = checkpoints.read_state(start / "stalled" / "model")
    assert state["ended"]["rule"] == "stalled" and state["ended"]["checks_without_rise"] == 2
    assert len(logs(start / "stalled", "log")) == 2
    shutil.copytree(start / "stalled" / "model", start / "s0")
    finish(config(start, "rest", train=still, previous="s0"))
    spent = [state["trainer"]["tokens"]["sampled"]] + [
        r["tokens_sampled"] for r in logs(start / "rest", "log")
    ]
    assert spent[-2] < 2 * TOKENS <= spent[-1]
    rest = checkpoints.read_state(start / "rest" / "model")
    assert rest["ended"]["rule"] == "budget" and rest["firings"], "a firing beyond the plan is only logged"
    assert rest["boundaries"][0]["evidence"] == state["ended"]


@pytest.mark.slow
def test_a_raised_budget_extends_a_run_and_a_lowered_one_does_not_use_what_went_beyond(start, straight):
    path = config(start, "grown", tokens=4000)
    finish(path)
    short = weights(start / "grown" / "model")
    finish(config(start, "grown"))
    assert equal(weights(start / "grown" / "model"), weights(straight / "model"))
    finish(config(start, "grown", tokens=4000))
    assert equal(weights(start / "grown" / "model"), short)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(start, straight):
    path = config(start, "damaged")
    newest, *_ = kill_after(path, 2)
    optimizer = newest / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-100])
    process = run(path)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-2000:]
    assert f"{newest.name}: optimizer.pt is damaged" in errors
    assert equal(weights(start / "damaged" / "model"), weights(straight / "model"))
    assert logs(start / "damaged") == logs(straight)


def test_a_checkpoint_of_another_run_is_refused_with_the_difference(start, straight):
    folder = straight / "work" / "checkpoints"
    wanted = checkpoints.read_state(checkpoints.complete_checkpoints(folder)[0])["identity"]
    assert checkpoints.usable_checkpoint(folder, wanted, TOKENS) is not None
    other = wanted | {"train": wanted["train"] | {"learning_rate": 0.5}}
    with pytest.raises(StudyError, match=r"made by another run \(train.learning_rate: 0.5, not 0.003\)"):
        checkpoints.usable_checkpoint(folder, other, TOKENS)


@pytest.mark.slow
def test_a_full_disk_ends_with_a_sentence_and_leaves_the_checkpoint_before(start, straight):
    path = config(start, "full")
    code = FULL_DISK.format(limit=FILE_LIMIT, path=str(path))
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode != 0
    assert "checkpoint-2 could not be written" in process.stderr and "make room" in process.stderr
    assert not checkpoints.complete_checkpoints(start / "full" / "work" / "checkpoints")
    finish(path)
    assert equal(weights(start / "full" / "model"), weights(straight / "model"))


def test_the_work_folder_goes_by_all_that_a_run_depends_on_but_its_budget(start):
    mine = segments.SegmentConfig.read(config(start, "mine"))

    def of(**changes):
        return replace(mine, **changes).placed(start).work

    assert of() == of(segment=replace(mine.segment, tokens=9)) == of(work="elsewhere", out="elsewhere")
    assert of() != of(train=replace(RECIPE, learning_rate=1e-9))
    assert of() != of(segment=replace(mine.segment, optimizer="keep"))
    assert of() != of(eval_temperature=1.0) and of() != of(batch_tokens=100), "validation decides the end"


def state_of(sampled: int, budget: int, ended: str = "") -> dict:
    rule = {"rule": ended} if ended else None
    return {"trainer": {"tokens": {"sampled": sampled}}, "budget": budget, "ended": rule, "identity": {}}


@pytest.mark.parametrize(
    ("state", "budget", "usable"),
    [
        (state_of(500, 900), 700, True),
        (state_of(500, 900), 400, False),
        (state_of(910, 900, "budget"), 900, True),
        (state_of(910, 900, "budget"), 1200, True),  # goes on from there
        (state_of(910, 900, "budget"), 800, False),
        (state_of(500, 900, "stalled"), 700, True),  # it would have ended there with this budget too
        (state_of(500, 900, "stalled"), 400, False),
    ],
)
def test_a_checkpoint_beyond_a_lowered_budget_is_passed_over(tmp_path, state, budget, usable):
    checkpoint = tmp_path / "checkpoint-7"
    checkpoint.mkdir()
    checkpoints.write_state(checkpoint, state)
    assert (checkpoints.usable_checkpoint(tmp_path, {}, budget) == checkpoint) is usable


def test_a_bump_lasts_as_many_rollout_steps_as_it_says(start):
    train = replace(RECIPE, updates_per_rollout=4)
    path = config(start, "bumped", train=train, bump=2.0, bump_steps=2)
    group = {"lr": 0.0}
    trainer = SimpleNamespace(
        processing_class=None, rollout_steps=70, optimizer=SimpleNamespace(param_groups=[group])
    )
    validation = SimpleNamespace(prompt_tokens=lambda tokenizer: 0)
    course = SimpleNamespace(goes_on=False)
    watch = segments._watch(trainer, segments.SegmentConfig.read(path), course, validation, None)
    rates = []
    for update in range(12):
        watch.on_step_begin(None, SimpleNamespace(global_step=update), None)
        trainer.rollout_steps += update % 4 == 0  # rises within the first update of a rollout step
        rates.append(group["lr"] / train.learning_rate)
    assert rates == [2.0] * 8 + [1.0] * 4


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
    training_log.alarm(healthy, recipe)
    with pytest.raises(StudyError, match=f"s2 stopped at step 7: .*{sentence}"):
        training_log.alarm(healthy | change, recipe)
