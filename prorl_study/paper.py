"""The papers' numbers, from `paper.yaml`, each with its source and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from prorl_study.params import load_yaml


@cache
def load_paper() -> Mapping[str, Any]:
    """The reference numbers of `paper.yaml`."""
    return load_yaml(Path(__file__).with_name("paper.yaml"))
