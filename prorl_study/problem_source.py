"""Which problems a model is asked: the study's splits and the hub's benchmarks by name, or files of problems.

Every problem that is not the study's own is checked where it enters, so that nothing is sampled in vain.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from prorl_study import hub, params
from prorl_study.domains import DOMAINS, Problem
from prorl_study.errors import StudyError
from prorl_study.model_source import first_line
from prorl_study.paths import Workspace, project_root
from prorl_study.problems import Judge, generate_domain, load_problems, select, snapshot_counts, split_counts

Benchmarks = Mapping[str, Sequence[Problem]]
"""Problems by the name of their benchmark, which stands in the rows as `split`."""
PROBE = "</think>The answer is A. \\boxed{0} <answer>0</answer>\n```python\npass\n```"
"""An answer in every domain's format: what is refused with it is the problem."""


def study_split(split: str, ws: Workspace) -> list[Problem]:
    """A split of the study: as the data stage wrote it, else from the snapshot, else generated anew.

    All three give the same problems, the sizes are those of the project's `params.yaml`.
    """
    if (ws.problems / f"{split}.parquet").is_file():
        return load_problems(ws.problems, split)
    study = params.load(project_root() / "params.yaml")
    if ws.snapshot.is_dir():
        return select(ws.snapshot, study.data)[split]
    own = study.data
    wanted = split_counts(0, own.validation_problems, own.test_problems, own.hard_problems, own.ood_problems)
    problems: list[Problem] = []
    for name, sizes in snapshot_counts().items():
        # as many as the snapshot holds, since a split passes over the prompts of those before it
        made = generate_domain(study.seed, name, {**sizes, "train": 0}).get(split, [])
        problems += made[: wanted[name].get(split, 0)]
    return problems


def hub_benchmark(name: str, ws: Workspace) -> list[Problem]:
    """A benchmark of the hub. Raises StudyError where it cannot be had."""
    return hub.read(hub.BENCHMARKS[name]).problems


BENCHMARKS: dict[str, Callable[[Workspace], list[Problem]]] = {
    name: partial(study_split, name) for name in ("test", "hard", "ood", "validation")
} | {name: partial(hub_benchmark, name) for name in hub.BENCHMARKS}
"""Benchmarks by name, each a function of the workspace."""


def load_benchmarks(wanted: Sequence[str], workspace: str = ".", limit: int | None = None) -> Benchmarks:
    """Problems by benchmark: names of `BENCHMARKS`, and JSONL or parquet files, which go by their stem.

    With `limit` only the first so many of each domain. Raises StudyError for an unknown name, a file that
    cannot be used, and two benchmarks of one name.
    """
    benchmarks: dict[str, list[Problem]] = {}
    for one in wanted:
        path = Path(one)
        if path.suffix in (".jsonl", ".parquet"):
            name, problems = path.stem, read_problems(path)
        elif one in BENCHMARKS:
            name, problems = one, BENCHMARKS[one](Workspace.open(workspace))
        else:
            raise StudyError(
                f"no such benchmark: {one}; give one of {', '.join(BENCHMARKS)}, or the path of a .jsonl or "
                ".parquet file of problems."
            )
        if name in benchmarks:
            raise StudyError(f"two benchmarks are called {name}; leave one out, or rename its file.")
        benchmarks[name] = problems if limit is None else first_of_each_domain(problems, limit)
    return benchmarks


def first_of_each_domain(problems: Sequence[Problem], limit: int) -> list[Problem]:
    """The first `limit` problems of each domain, in their order."""
    seen: Counter[str] = Counter()
    chosen = []
    for problem in problems:
        seen[problem.domain] += 1
        if seen[problem.domain] <= limit:
            chosen.append(problem)
    return chosen


def read_problems(path: Path) -> list[Problem]:
    """Problems of a file, one a row: the fields of `Problem`, nested ones plain or as in `Problem.row`.

    A problem without an id gets `<stem>-<row>`. Raises StudyError that names the row which cannot be used.
    """
    if not path.is_file():
        raise StudyError(f"{path} does not exist; give a .jsonl or .parquet file of problems.")
    problems: dict[str, Problem] = {}
    for number, row in _rows(path):
        try:
            problem = _problem(row, f"{path.stem}-{number}")
            if problem.id in problems:
                raise ValueError(f"id {problem.id} is there twice")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StudyError(
                f'{path}, row {number}: {error}; a row is {{"domain": ..., "prompt": [{{"role": "user", '
                f'"content": ...}}], "answer": ..., "checks": {{...}}}} with the fields of '
                "prorl_study.domains.Problem."
            ) from error
        problems[problem.id] = problem
    if not problems:
        raise StudyError(f"{path} holds no problem; write one a row.")
    return list(problems.values())


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows with their numbers from 1 on; of JSONL the line's number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        try:
            yield from enumerate(pq.read_table(path).to_pylist(), 1)
        except pa.ArrowException as error:
            raise StudyError(f"{path} is no parquet file ({first_line(error)}); write it anew.") from None
        return
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise StudyError(
                    f"{path}, row {number}: no JSON ({error}); write one object a line."
                ) from None


def _problem(row: Mapping[str, Any], default_id: str) -> Problem:
    """One problem from its fields. Raises ValueError or TypeError where that is not possible."""
    values = {name: value for name, value in row.items() if value is not None}
    unknown = sorted(set(values) - {field.name for field in fields(Problem)})
    if unknown:
        raise ValueError(f"unknown field {', '.join(unknown)}")
    for name in ("prompt", "checks"):
        if isinstance(values.get(name), str):
            values[name] = json.loads(values[name])
    if values.get("domain") not in DOMAINS:
        raise ValueError(f"domain {values.get('domain')!r} is none of {', '.join(DOMAINS)}")
    messages = values.get("prompt")
    if not messages or not all(
        isinstance(m["role"], str) and isinstance(m["content"], str) for m in messages
    ):
        raise ValueError("no prompt of chat messages")
    if not isinstance(values.get("answer", ""), str) or not isinstance(values.get("checks", {}), dict):
        raise ValueError("answer must be text, checks an object")
    return Problem(**{**values, "id": values.get("id") or default_id})


def refused(problems: Sequence[Problem], judge: Judge) -> list[tuple[Problem, str]]:
    """The problems that the judge cannot use, each with the reason."""
    verdicts = judge.verify([(problem, PROBE) for problem in problems])
    pairs = zip(problems, verdicts, strict=True)
    return [(problem, verdict.reason) for problem, verdict in pairs if verdict.status == "refused"]


def check_problems(benchmarks: Benchmarks, judge: Judge) -> None:
    """Raises StudyError that names the first problem which its judge cannot use; to be called first."""
    for name, problems in benchmarks.items():
        for problem, reason in refused(problems, judge):
            raise StudyError(
                f"{name}: problem {problem.id} ({problem.domain}) cannot be judged ({reason}); correct its "
                "checks."
            )
