"""A public set of problems: its pin and licence, its rows, and how they become problems.

Rows come through `datasets` from files of one commit, streamed; scripts of a repository are never run. With
PRORL_HUB_MIRROR a folder takes the hub's place: `<mirror>/<owner>/<name>/<file>`, the same files, for
machines without a network. Each way in which a set cannot be had ends as one sentence. Left out: what the
rows mean, which each domain's module says.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prorl_study.domains import Problem
from prorl_study.errors import StudyError
from prorl_study.files import digest
from prorl_study.model_source import COMMIT, first_line
from prorl_study.problems import prompt_text

MIRROR = "PRORL_HUB_MIRROR"
Row = Mapping[str, Any]


class Drop(Exception):
    """A row that becomes no problem; its text is the reason, short enough to be counted by."""


@dataclass(frozen=True)
class Item:
    """A problem and, where its set has them, completions that must earn full credit (see `gold`)."""

    problem: Problem
    gold: str = ""
    others: tuple[str, ...] = ()
    """Solutions by others, which must agree with the gold."""


@dataclass(frozen=True)
class Source:
    """One set, as data. `name` is what users call it and what stands in `Problem.source`."""

    name: str
    domain: str
    licence: str
    map: Callable[[Row], Item]
    """A row's problem. Raises Drop with a reason where there is none."""
    repo: str = ""
    """Dataset repository on the hub; empty where problems are made by a package."""
    revision: str = ""
    """Its commit, 40 hex digits."""
    files: tuple[str, ...] = ()
    """Files of the repository that are read, in order; patterns where their numbering may change."""
    columns: tuple[str, ...] = ()
    """Columns that every row has; a set without them has changed."""
    rows: Callable[[], Iterator[Row]] | None = None
    """Where the rows come from, if not from files."""
    expected: int = 0
    """Problems that the paper takes, or that the benchmark has."""
    gated: bool = False
    note: str = ""
    """What a reader of the data card should know."""

    @property
    def page(self) -> str:
        return f"https://huggingface.co/datasets/{self.repo}" if self.repo else ""


@dataclass
class Read:
    """What came of a source."""

    source: Source
    items: list[Item] = field(default_factory=list)
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def problems(self) -> list[Problem]:
        return [item.problem for item in self.items]


def read(source: Source, limit: int | None = None) -> Read:
    """The problems of `source`, at most `limit` of them, with the rows that were dropped counted by reason.

    Problems get the source's name, ids `<name>-<row>` and are kept once per prompt. Raises StudyError where
    the set is offline, gated, gone, or has another schema than the loader knows.
    """
    found = Read(source)
    seen: set[str] = set()
    for number, row in enumerate(rows_of(source)):
        if limit is not None and len(found.items) >= limit:
            break
        if not number:
            _check_columns(source, row)
        found.rows += 1
        try:
            item = source.map(row)
            text = prompt_text(item.problem)
            if text in seen:
                raise Drop("same prompt as an earlier row")
        except Drop as reason:
            found.dropped[str(reason)] += 1
            continue
        seen.add(text)
        problem = replace(item.problem, id=f"{source.name}-{number}", source=source.name)
        found.items.append(replace(item, problem=problem))
    if found.rows and not found.items:
        reasons = ", ".join(f"{count} {reason}" for reason, count in found.dropped.most_common(3))
        raise StudyError(f"{source.name}: none of {found.rows} rows can be used ({reasons}).")
    return found


def _check_columns(source: Source, row: Row) -> None:
    missing = [name for name in source.columns if name not in row]
    if missing:
        raise StudyError(
            f"{source.name}: {source.repo}@{source.revision[:8]} has no column {', '.join(missing)} (only "
            f"{', '.join(sorted(row))}); its schema has changed, so mend prorl_study/hub/{source.domain}.py."
        )


def rows_of(source: Source) -> Iterator[Row]:
    """The rows of `source` as they are. Raises StudyError where they cannot be had."""
    if source.rows is not None:
        yield from source.rows()
        return
    mirror = os.environ.get(MIRROR, "")
    if not mirror and not COMMIT.fullmatch(source.revision):
        raise StudyError(
            f"{source.name}: no commit of {source.repo} is known to hold what the loader reads; download it "
            f"from {source.page} and set {MIRROR}."
        )
    for pattern in source.files:
        if mirror:
            paths = [str(path) for path in _in_mirror(source, pattern)]
            if not paths:
                wanted = Path(mirror) / source.repo / pattern
                raise StudyError(f"{source.name}: {wanted} does not exist; copy it there.")
        else:
            paths = [f"hf://datasets/{source.repo}@{source.revision}/{pattern}"]
        for path in paths:
            yield from _file_rows(source, path)


def _in_mirror(source: Source, pattern: str) -> list[Path]:
    return sorted((Path(os.environ[MIRROR]) / source.repo).glob(pattern))


def mirrored(source: Source) -> dict[str, str]:
    """Digests of the mirror's files that rows of `source` come from; empty where its commit is read."""
    if not os.environ.get(MIRROR, "") or source.rows is not None:
        return {}
    return {path.name: digest(path) for pattern in source.files for path in _in_mirror(source, pattern)}


def _file_rows(source: Source, path: str) -> Iterator[Row]:
    """Rows of one file. JSON lines are read as text: their columns need not have one type in all rows."""
    from datasets import load_dataset

    kind = {".parquet": "parquet", ".json": "json", ".jsonl": "text", ".csv": "csv"}[Path(path).suffix]
    try:
        table = load_dataset(kind, data_files=path, split="train", streaming=True)
        for row in table:
            if kind != "text":
                yield row
            elif row["text"].strip():
                yield json.loads(row["text"])
    except json.JSONDecodeError as error:
        raise StudyError(
            f"{source.name}: {path} holds a line that is no JSON ({error}); get it anew."
        ) from None
    except Exception as error:  # of datasets, fsspec, httpx, pyarrow and the hub, as it may be
        raise StudyError(_why_not(source, path, error)) from error


def _why_not(source: Source, path: str, error: BaseException) -> str:
    """The sentence for a file that could not be read, by what went wrong first."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    if any(isinstance(one, GatedRepoError) for one in chain) or "gated" in str(error):
        return (
            f"{source.name}: {source.repo} is gated; accept its terms at {source.page} and run "
            "`hf auth login`."
        )
    if any(isinstance(one, RevisionNotFoundError) for one in chain):
        return f"{source.name}: {source.repo} no longer has commit {source.revision}; see {source.page}."
    if any(isinstance(one, RepositoryNotFoundError) for one in chain):
        return (
            f"{source.name}: there is no dataset {source.repo} that you may see; it may have been renamed or "
            f"be gated: see {source.page} and run `hf auth login`."
        )
    if any(isinstance(one, EntryNotFoundError | FileNotFoundError) for one in chain):
        return f"{source.name}: {path} does not exist; see which files {source.page} has."
    return (
        f"{source.name}: {path} could not be read ({first_line(error)}); go online, unset HF_HUB_OFFLINE, or "
        f"set {MIRROR} to a folder with {source.repo}/{Path(path).name}."
    )


# ---- what mappers share -------------------------------------------------------------------------------


def text_of(row: Row, column: str, reason: str = "") -> str:
    """The stripped text or number in `column`. Raises Drop where it is null or empty."""
    value = row.get(column)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Drop(reason or f"no {column}")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not (text := str(value).strip()):
        raise Drop(reason or f"no {column}")
    return text


def json_of(row: Row, column: str) -> Any:
    """What the JSON text in `column` says; a value that is no text is taken as it is. Raises Drop."""
    value = row.get(column)
    if value is None or value == "":
        raise Drop(f"no {column}")
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise Drop(f"{column} is no JSON") from None


def boxed(answer: str) -> str:
    """A completion that ends in this answer."""
    return f"</think>\\boxed{{{answer}}}"


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def user_messages(messages: Sequence[Mapping[str, str]] | None) -> list[dict[str, str]]:
    """The user's turns alone: system prompts of a data set are not the study's. Raises Drop."""
    turns = [
        {"role": "user", "content": str(m["content"])} for m in messages or () if m.get("role") == "user"
    ]
    if not turns or not turns[0]["content"].strip():
        raise Drop("no prompt")
    return turns
