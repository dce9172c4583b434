"""Small files that runs leave behind: JSON written whole or not at all, and logs that survive a kill."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_json(value: Any, path: Path) -> None:
    """Indented JSON, atomically; the same value gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    os.replace(partial, path)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a `log.jsonl`, none where there is no file; a last line that a kill cut is dropped."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
