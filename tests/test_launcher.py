"""The launcher: a child's failure is told, and a child never outlives what started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from prorl_study import launcher
from prorl_study.errors import StudyError


def write_module(folder: Path, code: str) -> dict[str, str]:
    (folder / "child_module.py").write_text(code)
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}


def wait_gone(pid: int, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_a_failing_child_is_told_by_its_last_words(tmp_path, monkeypatch):
    for name, value in write_module(tmp_path, "import sys; sys.exit('the disk is full')").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StudyError, match="child_module ended with code 1: the disk is full"):
        launcher.run_module("child_module", [], tmp_path / "train.log")


def test_output_goes_to_the_log_and_ticks_come(tmp_path, monkeypatch):
    code = "import sys, time; print('hello', sys.argv[1], flush=True); time.sleep(1.2)"
    for name, value in write_module(tmp_path, code).items():
        monkeypatch.setenv(name, value)
    ticks = []
    launcher.run_module("child_module", ["you"], tmp_path / "train.log", lambda: ticks.append(1))
    assert (tmp_path / "train.log").read_text() == "hello you\n"
    assert len(ticks) >= 2


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_child_ends_with_its_parent(tmp_path, how):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    environment = write_module(tmp_path, code)
    log = tmp_path / "train.log"
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from pathlib import Path; from prorl_study import launcher; "
            f"launcher.run_module('child_module', [], Path({str(log)!r}))",
        ],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 20
    while not (log.exists() and log.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(log.read_text())
    parent.send_signal(how)
    parent.wait(timeout=40)
    assert wait_gone(child)


def test_children_run_beside_each_other_in_turn_and_one_that_fails_stops_the_rest(tmp_path, monkeypatch):
    code = (
        "import sys, time\n"
        "number = int(sys.argv[2])\n"
        "if number == 2: sys.exit('no room')\n"
        "time.sleep(600 if number else 0)\n"
    )
    for name, value in write_module(tmp_path, code).items():
        monkeypatch.setenv(name, value)
    mark = str(tmp_path)
    jobs = [([mark, str(number)], tmp_path / f"{number}.log") for number in range(4)]
    with pytest.raises(StudyError, match="no room"):
        launcher.run_modules("child_module", jobs, at_once=2)
    assert (tmp_path / "1.log").exists() and not (tmp_path / "3.log").exists(), "two at a time, in order"
    assert not [p for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or [])]
