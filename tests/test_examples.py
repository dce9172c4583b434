"""The example is as short as it says, and it trains."""

import subprocess
import sys
from pathlib import Path

import tiny

from prorl_study.files import digests

SCRIPT = Path(__file__).parents[1] / "examples" / "own_script.py"


def test_the_example_is_under_forty_lines():
    assert len(SCRIPT.read_text().splitlines()) < 40


def test_the_example_trains_a_local_model(tmp_path):
    model, out = tiny.save_model(tmp_path / "tiny", seed=0), tmp_path / "out"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(model), str(out)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "reward/math" in done.stdout
    assert digests(out, ["*.safetensors"]).keys() == digests(model, ["*.safetensors"]).keys()
