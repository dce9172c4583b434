"""Training through DVC and the real stage, stopped at twenty seeded moments: it ends as if never stopped.

Slow, so it runs by itself: `make kill-test` (about ten minutes).
"""

import itertools
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from test_pipeline import call, clone  # noqa: F401 - a fixture

from prorl_study import params
from prorl_study.files import digests

pytestmark = pytest.mark.kills

KILLS = 20
SEED = 5
STAGE = "train@s1"
TOKENS = 300_000
"""Over a hundred rollout steps: more than twenty stretches between a start and a signal."""
STARTING = 14.0
"""Seconds from the command to the first step, about; every fourth signal comes within them."""
TRAINING = 3.0
"""Seconds from the first step to the other signals, at most."""
PATIENCE = 60.0
"""Seconds to wait for what a signal is meant for."""
GRACE = 45
"""Seconds after which nothing of a stopped run may be left; the launcher gives a trainer thirty."""
WHOLE = 2400
"""Seconds that a run from end to end may take: two minutes on idle cores, many times that on busy ones."""
WAYS = ("kill", "terminate", "interrupt", "kill the trainer", "in a checkpoint")


@pytest.fixture(scope="module")
def ready(clone: Path) -> Path:  # noqa: F811
    """The clone with its base made and a longer first segment, whose every step leaves a checkpoint."""
    for command in (["dvc", "pull", "data.dvc"], ["prorl-study", "profile", "smoke"]):
        assert call(clone, *command).returncode == 0
    file = clone / "params.yaml"
    tokens = params.load(file).segments["s1"].tokens
    was = f"s1: {{previous: base, tokens: {tokens}, reference: move, optimizer: fresh, rule: stop}}"
    longer = was.replace(str(tokens), str(TOKENS)).replace("stop", "log")  # or the rule would soon end it
    file.write_text(file.read_text().replace(was, longer))
    segment = params.load(file).segments["s1"]
    assert (segment.tokens, segment.rule) == (TOKENS, "log")
    done = call(clone, "dvc", "repro", "base_model")
    assert done.returncode == 0, done.stderr[-3000:]
    return clone


def repro(folder: Path) -> subprocess.Popen:
    path = os.pathsep.join([str(Path(shutil.which("dvc") or "").parent), os.environ.get("PATH", "")])
    return subprocess.Popen(
        ["dvc", "repro", "--single-item", STAGE],
        cwd=folder,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def processes(folder: Path) -> list[psutil.Process]:
    """All that works in `folder` or was told of it."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join(process.cmdline()) or process.cwd() == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def trainer(folder: Path) -> psutil.Process | None:
    return next((p for p in processes(folder) if "prorl_study.segments" in p.cmdline()), None)


def wait_until(run: subprocess.Popen, condition, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and run.poll() is None and not condition():
        time.sleep(0.002)


def unfinished_checkpoint(folder: Path) -> bool:
    checkpoints = folder.glob(".work/*/checkpoints/checkpoint-*")
    own = [c for c in checkpoints if not c.parts[-3].startswith("base-")]  # the base's hold no such file
    return any(not (c / "study_state.json").exists() for c in own)


def stop(run: subprocess.Popen, folder: Path, way: str, starting: bool, wait: float) -> bool:
    """Send a signal in `way`, after the share `wait` of the time that a start or a few steps take; returns
    whether it left a checkpoint that had not been written to its end."""
    if not starting:
        began = time.time()
        times = ".work/*/times.jsonl"  # only ever appended to, one line a step
        wait_until(run, lambda: any(p.stat().st_mtime > began for p in folder.glob(times)))
    wait_until(run, lambda: False, wait * (STARTING if starting else TRAINING))
    if run.poll() is not None:
        return False  # the training was over first
    if way == "interrupt":
        os.killpg(run.pid, signal.SIGINT)
    elif way == "terminate":
        run.terminate()
    elif way == "kill":
        run.kill()
    else:
        if way == "in a checkpoint":
            wait_until(run, lambda: unfinished_checkpoint(folder), TRAINING)
        else:
            wait_until(run, lambda: trainer(folder) is not None)
        if found := trainer(folder):
            found.kill()
    run.wait(timeout=GRACE)
    return unfinished_checkpoint(folder)


def outcome(folder: Path) -> dict[str, object]:
    """Weights, state and metrics of the segment: everything but times."""
    (work,) = [path for path in folder.glob(".work/*") if (path / "checks.jsonl").is_file()]
    logs = {name: (work / name).read_text() for name in ("log.jsonl", "checks.jsonl")}
    return {"model": digests(folder / "models" / "s1")} | logs | digests(folder / "results" / "training")


def test_training_that_is_stopped_twenty_times_ends_as_if_it_had_not_been(ready: Path, tmp_path: Path):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    for folder in (straight, stopped):
        shutil.copytree(ready, folder, symlinks=True)
    assert repro(straight).wait(timeout=WHOLE) == 0
    rng = random.Random(SEED)
    landed = halves = 0
    for number, way in zip(range(KILLS), itertools.cycle(WAYS)):  # noqa: B905 - the second has no end
        run = repro(stopped)
        halves += stop(run, stopped, way, starting=number % 4 == 0, wait=rng.random())
        deadline = time.monotonic() + GRACE
        while processes(stopped) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not processes(stopped), f"kill {number} ({way}) left {processes(stopped)}"
        landed += not (stopped / "models" / "s1").exists()
    print(f"{landed} of {KILLS} signals before the training's end, {halves} left half a checkpoint")
    assert landed == KILLS and halves > 0
    assert repro(stopped).wait(timeout=WHOLE) == 0
    assert outcome(stopped) == outcome(straight)
