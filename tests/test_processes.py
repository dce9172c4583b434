"""Training in two processes (gloo, on the CPU) is training in one, shared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent / "one_or_two_processes.py"
LAUNCH = {
    1: [sys.executable],
    2: [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[int, list[dict]]:
    """What each process of a run wrote, by the run's number of processes; `weights` are its last ones."""
    results = {}
    for processes, command in LAUNCH.items():
        folder = tmp_path_factory.mktemp(str(processes))
        ended = subprocess.run(
            [*command, str(SCRIPT), str(folder)],
            env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ended.returncode == 0, ended.stderr[-3000:]
        results[processes] = [
            json.loads((folder / f"found{rank}.json").read_text())
            | {"weights": torch.load(folder / f"weights{rank}.pt", weights_only=True)}
            for rank in range(processes)
        ]
    assert [each["processes"] for each in results[2]] == [2, 2]
    return results


def test_two_processes_keep_the_same_groups_with_the_same_tokens_and_scores_as_one(found):
    (one,), two = found[1], found[2]
    assert len(one["kept"]) == 3
    for other in two:
        assert other["kept"] == one["kept"] and other["state"] == one["state"]


def test_two_processes_reach_the_loss_and_the_weights_of_one(found):
    (one,), two = found[1], found[2]
    assert two[0]["loss"] == pytest.approx(one["loss"], abs=1e-6)
    assert two[0]["kl"] == pytest.approx(one["kl"], rel=1e-4) and one["kl"][-1] > 0
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two[0]["weights"][name], weight, rtol=0, atol=1e-5)
        assert torch.equal(two[0]["weights"][name], two[1]["weights"][name])


def test_nothing_is_judged_twice(found):
    (one,), two = found[1], found[2]
    judged = [list(map(tuple, each["judged"])) for each in two]
    assert len(judged[0]) == len(judged[1]) == len(one["judged"]) / 2
    assert sorted(judged[0] + judged[1]) == sorted(map(tuple, one["judged"]))
