"""Segments in two processes, as `accelerate launch` starts them: the same training as in one, kills included.

Plain copies of the weights (DDP) go through a reset and a kill, sharded ones (FSDP2) through a boundary that
keeps everything as well. Slow tests all; in every run `test_processes` compares two processes with one.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd
import psutil
import pytest
import tiny
import torch
from safetensors.torch import load_file

from prorl_study import launcher, segments
from prorl_study.domains import DOMAINS
from prorl_study.errors import StudyError
from prorl_study.files import read_log, write_json
from prorl_study.params import SegmentParams

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
LAUNCH = f"accelerate launch --config_file {ROOT}/conf/accelerate"
COMMANDS = {
    "one": launcher.starting(""),
    "ddp": launcher.starting(f"{LAUNCH}/ddp_cpu.yaml"),
    # a script of its own in place of the module, so without the -m at the end
    "fsdp2": launcher.starting(f"{LAUNCH}/fsdp2_cpu.yaml")[:-1],
}
MODULE = {"fsdp2": str(Path(__file__).parent / "sharded_on_cpu.py")}
SECONDS = 60
"""Within which a job ends that has lost a process."""
RECIPE = replace(
    tiny.TRAIN,
    prompts_per_step=8,
    rollouts_per_prompt=4,
    # one update: with several, which completions share a mini-batch differs with the number of processes
    updates_per_rollout=1,
    max_completion_tokens=40,
    checkpoint_every=1,
    reward="random",  # an untrained model earns nothing, and then no gradient is there to be compared
    kl_beta=0.01,
)
CHAIN = {
    "s1": ("base", "move", "fresh"),
    "s2": ("s1", "move", "fresh"),
    "s3": ("s2", "keep", "keep"),
}


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("ranks")
    tiny.save_model(root / "base", 0)
    (root / "problems").mkdir()
    for split, count in (("train", 8), ("validation", 2)):
        rows = [domain.generate(1, split, i).row() for domain in DOMAINS.values() for i in range(count)]
        pd.DataFrame(rows).to_parquet(root / "problems" / f"{split}.parquet", index=False)
    write_json({}, root / "problems" / "floors.json")
    return root


def config(root: Path, how: str, name: str) -> Path:
    previous, reference, optimizer = CHAIN[name]
    start = root / "base" if previous == "base" else root / f"{how}-{previous}" / "model"
    folder = root / f"{how}-{name}"
    segments.SegmentConfig(
        train=RECIPE,
        segment=SegmentParams(name, previous, 4000, reference, optimizer, "log"),
        seed=5,
        problems=str(root / "problems"),
        previous=str(start),
        out=str(folder / "model"),
        work=str(folder / "work"),
        eval_temperature=0.6,
        top_p=0.95,
        batch_tokens=4000,
        isolation="walls",
        workers=1,
    ).write(folder / "config.json")
    return folder / "config.json"


def rank_of(process: psutil.Process, path: Path) -> str | None:
    """Which of the job's processes this is; None where it is none of them, or is gone."""
    try:
        return process.environ().get("RANK") if str(path) in process.cmdline() else None
    except psutil.Error:
        return None


def train(root: Path, how: str, name: str, kill_one: bool = False) -> Path:
    """Train a segment; with `kill_one` a process of it gets SIGKILL once a checkpoint is there."""
    path = config(root, how, name)
    os.environ["OMP_NUM_THREADS"] = "1"
    module = MODULE.get(how, "prorl_study.segments")
    ticks = []

    def tick() -> None:
        if kill_one and not ticks and any((path.parent / "work").glob("checkpoints/*/study_state.json")):
            for process in psutil.Process().children(recursive=True):
                if rank_of(process, path) == "1" and not ticks:
                    process.send_signal(signal.SIGKILL)
                    ticks.append(time.monotonic())

    try:
        launcher.run_module(module, [str(path)], path.parent / "train.log", tick, COMMANDS[how])
    finally:
        if ticks:
            assert time.monotonic() - ticks[0] < SECONDS
    return path.parent


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def one(start: Path) -> Callable[[str], Path]:
    """Folder of a segment that was trained in one process, with those before it."""

    @cache
    def trained(name: str) -> Path:
        previous = CHAIN[name][0]
        if previous != "base":
            trained(previous)
        return train(start, "one", name)

    return trained


@pytest.fixture(scope="module", params=["ddp", "fsdp2"])
def two(request, start: Path) -> dict[str, Path]:
    """The chain in two processes; in the second segment, behind a reset, one of them is killed, and the same
    command goes on."""
    how = request.param
    found = {"s1": train(start, how, "s1")}
    with pytest.raises(StudyError, match=r"process 1 was ended by signal 9, and the others with it") as error:
        train(start, how, "s2", kill_one=True)
    assert "\n" not in str(error.value)
    left = [p for p in psutil.process_iter(["cmdline"]) if str(start / f"{how}-s2") in str(p.info["cmdline"])]
    assert not left, "processes of the killed job go on"
    found["s2"] = train(start, how, "s2")
    return found if how == "ddp" else found | {"s3": train(start, how, "s3")}


def test_two_processes_train_as_one_does_through_a_reset_a_kill_and_a_kept_optimizer(one, two):
    for name in two:
        alone, shared = (read_log(folder / "work" / "log.jsonl") for folder in (one(name), two[name]))
        assert [r["step"] for r in shared] == [r["step"] for r in alone]
        for ours, theirs in zip(shared, alone, strict=True):
            for count in ("kept_fraction", "filled_groups", *(f"kept/{d}" for d in DOMAINS)):
                assert ours[count] == theirs[count], count
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
            assert ours["kl"] == pytest.approx(theirs["kl"], rel=1e-3, abs=1e-7)
            assert ours["step_size"] == pytest.approx(theirs["step_size"], rel=1e-3)
        apart = [(weights(two[name])[k] - w).abs().max() for k, w in weights(one(name)).items()]
        assert max(apart) < 1e-4, name


def test_the_run_goes_on_from_its_checkpoint_and_not_from_its_start(two):
    steps = [record["step"] for record in read_log(two["s2"] / "work" / "times.jsonl")]
    assert len(steps) <= len(set(steps)) + 1, f"steps were made again: {steps}"


def test_a_reset_takes_the_policy_as_reference_and_a_boundary_that_keeps_it_passes_it_on(two):
    for last in set(two) - {"s1"}:  # s2 takes it from s1, s3 keeps it
        reference = load_file(two[last] / "model" / "reference" / "model.safetensors")
        assert all(torch.equal(reference[name], weight) for name, weight in weights(two["s1"]).items()), last


def test_the_kl_gradients_share_of_two_processes_is_that_of_one(one, two):
    alone, shared = (read_log(folder / "work" / "log.jsonl") for folder in (one("s2"), two["s2"]))
    if "kl_share" not in shared[-1]:
        pytest.skip("not measured where weights are sharded")
    for ours, theirs in zip(shared, alone, strict=True):
        assert ours["kl_share"] == pytest.approx(theirs["kl_share"], rel=1e-2, abs=1e-6)


def test_a_refusal_in_one_of_several_processes_is_one_sentence(start: Path):
    path = config(start, "ddp", "s1")
    text = path.read_text().replace('"prompts_per_step": 8', '"prompts_per_step": 9')
    path = path.with_name("odd.json")
    path.write_text(text.replace("ddp-s1/work", "ddp-odd/work"))
    with pytest.raises(StudyError, match=r"process \d: prompts_per_step=9 .* by 2 processes"):
        launcher.run_module(
            "prorl_study.segments", [str(path)], path.with_name("odd.log"), launcher=COMMANDS["ddp"]
        )


def test_a_killed_launcher_leaves_no_process_behind(start: Path):
    path = config(start, "ddp", "s1").with_name("orphans.json")
    path.write_text((start / "ddp-s1" / "config.json").read_text().replace("ddp-s1/", "ddp-orphans/"))
    child = subprocess.Popen(
        [*COMMANDS["ddp"], "prorl_study.segments", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )

    def ranks() -> list[psutil.Process]:
        return [
            p
            for p in psutil.process_iter(["cmdline"])
            if str(path) in (p.info["cmdline"] or []) and sys.executable in p.info["cmdline"][0]
        ]

    deadline = time.monotonic() + SECONDS
    while not any((start / "ddp-orphans").rglob("*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(ranks()) >= 2
    child.kill()
    child.wait()
    while ranks() and time.monotonic() < deadline + SECONDS:
        time.sleep(0.2)
    assert not ranks()
