"""What the machine must offer, looked at before anything is installed.

Runs with any Python 3, from the standard library alone, as `python3 prorl_study/preflight.py FOLDER`.
One sentence per missing thing, exit code 1. What can be installed by pip is not its business.
"""

import importlib.util
import os
import shutil
import sys

LOWEST, BELOW = (3, 11), (3, 15)
DISK_GB = 10
"""Room for the environment: PyTorch's default wheel brings the CUDA libraries along."""
MEMORY_GB = 4


def missing(folder, platform=sys.platform, version=sys.version_info[:2], find=importlib.util.find_spec):
    """Sentences on what this machine lacks for an installation in `folder`; empty when all is there."""
    if not platform.startswith("linux"):
        return [f"This study needs Linux, this is {platform}: run it in a Linux machine or container."]
    problems = []
    python = ".".join(str(part) for part in version)
    if not LOWEST <= tuple(version) < BELOW:
        problems.append(
            f"Python {python} is outside >=3.11,<3.15: install a fitting one and name it, for example "
            "`make study PYTHON=python3.12`."
        )
    for module in ("venv", "ensurepip"):
        if find(module) is None:
            problems.append(
                f"Python's module {module} is missing: on Debian and Ubuntu, install python{python}-venv."
            )
    if shutil.which("git") is None:
        problems.append("git is missing, and DVC needs it: install the package git.")
    free = shutil.disk_usage(folder).free / 2**30
    if free < DISK_GB:
        problems.append(f"{folder} has {free:.1f} GB of free disk, {DISK_GB} GB are needed: make room.")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if memory < MEMORY_GB - 0.5:  # a machine sold with 4 GB reports less
        problems.append(f"The machine has {memory:.1f} GB of memory, {MEMORY_GB} GB are needed.")
    return problems


if __name__ == "__main__":
    found = missing(sys.argv[1] if len(sys.argv) > 1 else ".")
    for sentence in found:
        print(sentence, file=sys.stderr)
    sys.exit(1 if found else 0)
