"""Real rows of public sets, which the tests read where PRORL_SAMPLES names the folder that holds them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

SAMPLES = os.environ.get("PRORL_SAMPLES", "")
needs_samples = pytest.mark.skipif(
    not SAMPLES, reason="PRORL_SAMPLES names no folder with rows of public sets"
)


def rows(name: str) -> list[dict[str, Any]]:
    """All rows of `<name>.jsonl`."""
    with open(Path(SAMPLES) / f"{name}.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
