"""Finished pieces of long sampling work, kept so that a kill costs one piece and not all.

A piece is a parquet file under a name that is a hash of all that it depends on, so a piece of another model,
setting or code is never taken for it. Left out: what a piece depends on and how it is made, which only those
know who sample (`evaluation`, `boundary_sampling`, `any_model`), and training, which has checkpoints.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd


def fingerprint(*parts: Any) -> str:
    """Hash of all that a piece of samples depends on, so that no stale piece is ever reused."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    frame.to_parquet(partial, index=False)
    os.replace(partial, path)  # a file under its final name is complete


class Pieces:
    """The pieces of one model in `folder`, each in `<key>.parquet`.

    The model is what `load(*arguments)` returns; it is loaded once, for the first piece that is missing.
    """

    def __init__(self, folder: Path, load: Callable[..., Any], *arguments: Any) -> None:
        self.folder = Path(folder)
        self._load, self._arguments = load, arguments
        self._model: Any = None
        self._used: set[Path] = set()

    def get(self, key: str, make: Callable[..., pd.DataFrame], *arguments: Any) -> pd.DataFrame:
        """The piece whose `fingerprint` is `key`, made by `make(model, *arguments)` where it is missing.

        Raises what `load` and `make` raise; the pieces finished before then stay.
        """
        path = self.folder / f"{key}.parquet"
        self._used.add(path)
        if not path.is_file():
            if self._model is None:
                self._model = self._load(*self._arguments)
            write_parquet(make(self._model, *arguments), path)
        return pd.read_parquet(path)  # also when just made, so that a resumed call returns the very same

    def free(self, close: Callable[[Any], None]) -> None:
        """Have `close` take back what was loaded, if anything was; the next `make` loads anew."""
        if self._model is not None:
            close(self._model)
            self._model = None

    def remove_stale(self) -> None:
        """Remove what `get` was not asked for: pieces of an earlier model or setting."""
        for path in set(self.folder.glob("*.parquet")) - self._used:
            path.unlink()
