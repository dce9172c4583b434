"""The data stage: the raw snapshot of generated problems, and what the other stages read of it.

`write_snapshot` makes `data/` from a seed alone: per domain and split one gzipped JSONL file whose content
is the same on every machine. `build_problems` takes the first problems of each split, proves that every
gold answer passes its own verifier and that no held-out prompt is in the training data, measures the floors
and writes parquet. Left out: demonstrations, which the base model's stage generates by index, and hub data.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields
from importlib.metadata import version
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, Protocol

import pandas as pd
import pyarrow.parquet as pq

from prorl_study.domains import DOMAINS, Problem, Verdict
from prorl_study.domains.logic import HELD_OUT_TASKS
from prorl_study.domains.templates import HELD_OUT_SPLITS
from prorl_study.errors import StudyError
from prorl_study.params import DataParams

STUDY_SPLITS = ("train", "validation", "test", "hard", "ood")
WRITING_ORDER = ("test", "hard", "ood", "validation", "train")
"""Held-out splits come first, so that training gives way where two splits draw the same prompt."""
ATTEMPTS_PER_PROBLEM = 20
MANIFEST = "MANIFEST.json"


class Judge(Protocol):
    """What `build_problems` needs of a verification pool."""

    def verify(self, items: Sequence[tuple[Problem, str]], lenient: bool = False) -> list[Verdict]: ...


# -- snapshot ---------------------------------------------------------------------------------------------


def mixture(total: int, among: Collection[str] = tuple(DOMAINS)) -> dict[str, int]:
    """`total` problems split over the domains `among` by their weights (40:24:25:37:10), by largest
    remainder."""
    weights = {name: domain.weight for name, domain in DOMAINS.items() if name in among}
    exact = {name: total * weight / sum(weights.values()) for name, weight in weights.items()}
    counts = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def split_counts(train: int, validation: int, test: int, hard: int, ood: int) -> dict[str, dict[str, int]]:
    """Problems per domain and split: `train` in all, `ood` per held-out task, the others per domain."""
    mix = mixture(train)
    counts = {
        name: {"train": mix[name], "validation": validation, "test": test, "hard": hard} for name in DOMAINS
    }
    counts["logic"]["ood"] = ood * len(HELD_OUT_TASKS)
    return counts


def snapshot_counts() -> dict[str, dict[str, int]]:
    """Sizes of the committed snapshot: a tenth of the paper's training problems (2505.24864, Table 4)."""
    return split_counts(train=13_600, validation=200, test=300, hard=150, ood=100)


def snapshot_file(folder: Path, domain: str, split: str) -> Path:
    return folder / domain / f"{split}.jsonl.gz"


def prompt_text(problem: Problem) -> str:
    return "\n".join(message["content"] for message in problem.prompt)


def generate_domain(seed: int, name: str, counts: Mapping[str, int]) -> dict[str, list[Problem]]:
    """The splits of one domain; an index whose prompt was used before is skipped.

    Raises StudyError where the domain runs out of distinct prompts.
    """
    splits: dict[str, list[Problem]] = {}
    used: set[str] = set()
    for split in (s for s in WRITING_ORDER if counts.get(s)):
        problems: list[Problem] = []
        for index in count():
            if len(problems) == counts[split]:
                break
            if index >= ATTEMPTS_PER_PROBLEM * counts[split]:
                raise StudyError(
                    f"{name}, {split}: only {len(problems)} distinct prompts in {index} items, "
                    f"{counts[split]} wanted; ask for fewer or widen prorl_study/domains/{name}.py."
                )
            problem = DOMAINS[name].generate(seed, split, index)
            text = prompt_text(problem)
            if text not in used:
                used.add(text)
                problems.append(problem)
        splits[split] = problems
    return splits


def _write_domain(folder: Path, seed: int, name: str, counts: Mapping[str, int]) -> dict[str, str]:
    """Write one domain's files; returns the SHA-256 of each file's uncompressed content."""
    hashes = {}
    for split, problems in generate_domain(seed, name, counts).items():
        lines = (json.dumps(asdict(problem), ensure_ascii=False, sort_keys=True) for problem in problems)
        content = "".join(f"{line}\n" for line in lines).encode()
        path = snapshot_file(folder, name, split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content, mtime=0))
        hashes[f"{name}/{split}"] = hashlib.sha256(content).hexdigest()
    return hashes


def write_snapshot(
    folder: Path, seed: int, counts: Mapping[str, Mapping[str, int]], processes: int = 2
) -> None:
    """Write `<folder>/<domain>/<split>.jsonl.gz` and `MANIFEST.json`.

    The content depends on `seed` and `counts` alone; the manifest hashes it uncompressed, since zlib's
    output may differ between machines.
    """
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as executor:
        jobs = [executor.submit(_write_domain, folder, seed, name, counts[name]) for name in counts]
        hashes = {key: digest for job in jobs for key, digest in job.result().items()}
    manifest = {
        "seed": seed,
        "counts": {name: dict(splits) for name, splits in counts.items()},
        "sha256": hashes,
        "versions": {"reasoning-gym": version("reasoning-gym")},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The snapshot's manifest. Raises StudyError where it is missing."""
    path = folder / MANIFEST
    if not path.is_file():
        raise StudyError(f"{path} is missing; restore the snapshot with `dvc checkout data.dvc`.")
    return json.loads(path.read_text())


def snapshot_content(folder: Path, domain: str, split: str) -> bytes:
    """Uncompressed bytes of one file. Raises StudyError where it is missing or no gzip."""
    path = snapshot_file(folder, domain, split)
    try:
        return gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise StudyError(
            f"{path} is missing; restore it with `dvc checkout data.dvc`, or, for a domain that was added, "
            "write it with `prorl-study snapshot`."
        ) from None
    except (OSError, EOFError) as error:
        raise StudyError(
            f"{path} is damaged ({error}); restore it with `dvc checkout -f data.dvc`."
        ) from None


def read_snapshot(folder: Path, domain: str, split: str) -> list[Problem]:
    """The problems of one file, in order. Raises StudyError where it is missing or damaged."""
    return [Problem(**json.loads(line)) for line in snapshot_content(folder, domain, split).splitlines()]


# -- data stage -------------------------------------------------------------------------------------------


def select(snapshot: Path, params: DataParams) -> dict[str, list[Problem]]:
    """The first problems of each split, domain after domain.

    Raises StudyError where the snapshot differs from its manifest or holds too few problems.
    """
    manifest = read_manifest(snapshot)
    wanted = split_counts(
        train=params.train_problems,
        validation=params.validation_problems,
        test=params.test_problems,
        hard=params.hard_problems,
        ood=params.ood_problems,
    )
    chosen: dict[str, list[Problem]] = {split: [] for split in STUDY_SPLITS}
    for name, splits in wanted.items():
        for split, number in splits.items():
            path = snapshot_file(snapshot, name, split)
            content = snapshot_content(snapshot, name, split)
            if hashlib.sha256(content).hexdigest() != manifest["sha256"].get(f"{name}/{split}"):
                raise StudyError(
                    f"{path} differs from {MANIFEST}; restore it with `dvc checkout -f data.dvc`."
                )
            problems = read_snapshot(snapshot, name, split)
            if len(problems) < number:
                raise StudyError(
                    f"{path} holds {len(problems)} problems, params.yaml asks for {number}; lower the size "
                    "under `data` in params.yaml or write a larger snapshot."
                )
            chosen[split] += problems[:number]
    return chosen


def first_of_each(problems: Sequence[Problem], count: int, kind: str = "domain") -> list[Problem]:
    """The first `count` problems of each domain, or of each task, as `kind` says; kind by kind."""
    taken: dict[str, list[Problem]] = {}
    for problem in problems:
        taken.setdefault(getattr(problem, kind), []).append(problem)
    return [problem for part in taken.values() for problem in part[:count]]


def check_held_out(splits: Mapping[str, Sequence[Problem]]) -> None:
    """Raises StudyError where a prompt of a held-out split is in train or validation too."""
    seen = {prompt_text(p): p for split in ("train", "validation") for p in splits[split]}
    for problem in (p for split in HELD_OUT_SPLITS for p in splits[split]):
        twin = seen.get(prompt_text(problem))
        if twin is not None:
            raise StudyError(f"{problem.id} has the prompt of {twin.id}; write the snapshot again.")


def check_golds(problems: Sequence[Problem], judge: Judge) -> int:
    """Judge the right solution of every problem; returns how many there were.

    Raises StudyError that names the first that does not earn 1.0.
    """
    solutions = [(problem, DOMAINS[problem.domain].solve(problem)) for problem in problems]
    verdicts = judge.verify(solutions)
    for (problem, text), verdict in zip(solutions, verdicts, strict=True):
        if verdict.score != 1.0 or not verdict.solved:
            raise StudyError(
                f"gold of {problem.id} ({problem.domain}, {problem.task}) scores {verdict.score} "
                f"({verdict.status} {verdict.reason}) with {text!r}; "
                f"mend prorl_study/domains/{problem.domain}.py."
            )
    return len(verdicts)


def measure_floors(
    problems: Sequence[Problem], samples: int, seed: int, judge: Judge
) -> dict[str, dict[str, Any]]:
    """Per task, what `garbage` and `guess` earn on its first `samples` problems: mean score, solved share."""

    def write(kind: str, problem: Problem, members: Sequence[Problem]) -> str:
        domain = DOMAINS[problem.domain]
        written = domain.garbage if kind == "garbage" else domain.guess
        return written(problem, Random(f"{seed}/{kind}/{problem.id}"))

    return floors_by_task(problems, samples, judge, write)


def floors_by_task(
    problems: Sequence[Problem],
    samples: int,
    judge: Judge,
    write: Callable[[str, Problem, Sequence[Problem]], str],
) -> dict[str, dict[str, Any]]:
    """`measure_floors` for any writer: `write(kind, problem, problems of its task)` is the answer that
    counts as `garbage` or `guess`."""
    by_task: dict[str, list[Problem]] = {}
    for problem in problems:
        by_task.setdefault(problem.task, []).append(problem)
    floors: dict[str, dict[str, Any]] = {}
    for task, members in by_task.items():
        chosen = members[:samples]
        domain = chosen[0].domain
        assert all(p.domain == domain for p in members), f"task {task} is in two domains"
        floors[task] = {"domain": domain, "open_ended": chosen[0].open_ended, "problems": len(chosen)}
        for kind in ("garbage", "guess"):
            verdicts = judge.verify([(p, write(kind, p, members)) for p in chosen])
            floors[task][kind] = {
                "score": sum(v.score for v in verdicts) / len(verdicts),
                "solved": sum(v.solved for v in verdicts) / len(verdicts),
            }
    return floors


def summarise(splits: Mapping[str, Sequence[Problem]]) -> dict[str, Any]:
    """Counts, distinct templates and steps by domain and split; templates shared across the border."""
    table: dict[str, Any] = {"counts": {}, "templates": {}, "difficulty": {}, "template_overlap": {}}
    for name in DOMAINS:
        own = {s: [p for p in problems if p.domain == name] for s, problems in splits.items()}
        own = {s: problems for s, problems in own.items() if problems}
        templates = {s: {p.template for p in problems} for s, problems in own.items()}
        held_out = set().union(*(found for s, found in templates.items() if s in HELD_OUT_SPLITS))
        known = set().union(*(found for s, found in templates.items() if s not in HELD_OUT_SPLITS))
        table["counts"][name] = {s: len(problems) for s, problems in own.items()}
        table["templates"][name] = {s: len(found) for s, found in templates.items()}
        table["template_overlap"][name] = len(held_out & known)
        table["difficulty"][name] = {
            s: {str(d): n for d, n in sorted(Counter(p.difficulty for p in problems).items())}
            for s, problems in own.items()
        }
    return table


def by_domain(part: Mapping[str, Mapping[str, int]]) -> pd.DataFrame:
    """`summary["counts"]` or `summary["templates"]` as a table: domains down, splits across."""
    frame = pd.DataFrame(part).T.reindex(columns=list(STUDY_SPLITS)).fillna(0).astype(int)
    return frame.rename_axis("domain").reset_index()


def by_steps(difficulty: Mapping[str, Mapping[str, Mapping[str, int]]]) -> pd.DataFrame:
    """`summary["difficulty"]` in long form: domain, split, steps, problems, and percent of the split."""
    rows = [
        {"domain": name, "split": split, "steps": int(steps), "problems": n}
        for name, splits in difficulty.items()
        for split, depths in splits.items()
        for steps, n in depths.items()
    ]
    frame = pd.DataFrame(rows)
    frame["percent"] = 100 * frame.problems / frame.groupby(["domain", "split"]).problems.transform("sum")
    return frame


def by_task(floors: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The floors as a table, in percent: one row per task, domain after domain."""
    rows = [
        {
            "task": task,
            "domain": floor["domain"],
            "open_ended": "yes" if floor["open_ended"] else "no",
            "problems": floor["problems"],
            "garbage": 100 * floor["garbage"]["score"],
            "guess": 100 * floor["guess"]["score"],
            "guess_solved": 100 * floor["guess"]["solved"],
        }
        for task, floor in sorted(floors.items(), key=lambda item: list(DOMAINS).index(item[1]["domain"]))
    ]
    return pd.DataFrame(rows)


def build_problems(snapshot: Path, out: Path, params: DataParams, seed: int, pool: Judge) -> dict[str, Any]:
    """Check the snapshot and write `<split>.parquet` and `floors.json` into `out`; returns a summary.

    Raises StudyError where a file is missing or too small, a held-out prompt is in the training data, or a
    gold answer does not earn 1.0 under its own verifier.
    """
    splits = select(snapshot, params)
    check_held_out(splits)
    everything = [p for split in ("validation", "test", "hard", "ood", "train") for p in splits[split]]
    golds = check_golds(everything, pool)
    floors = measure_floors(everything, params.floor_samples, seed, pool)
    write_problems(splits, floors, out)
    return {**summarise(splits), "golds_checked": golds, "gold_pass_share": 1.0, "floors": floors}


def write_problems(
    splits: Mapping[str, Sequence[Problem]], floors: Mapping[str, Mapping[str, Any]], out: Path
) -> None:
    """Write `<split>.parquet` and `floors.json` into `out`, which appears complete or not at all: later
    stages take the folder's existence for a finished stage."""
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for split, problems in splits.items():
        rows = pd.DataFrame([p.row() for p in problems], columns=[f.name for f in fields(Problem)])
        rows.to_parquet(partial / f"{split}.parquet", index=False)
    (partial / "floors.json").write_text(json.dumps(floors, indent=2, sort_keys=True) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def load_problems(folder: Path, split: str) -> list[Problem]:
    """The problems of one split, as `build_problems` wrote them. Raises StudyError where it is missing."""
    path = folder / f"{split}.parquet"
    if not path.is_file():
        raise StudyError(f"{path} is missing; make it with `dvc repro data`.")
    return [Problem.from_row(row) for row in pq.read_table(path).to_pylist()]


def load_floors(folder: Path) -> dict[str, dict[str, Any]]:
    """Per task `{domain, open_ended, problems, garbage: {score, solved}, guess: {score, solved}}`.

    Raises StudyError where the file is missing.
    """
    path = folder / "floors.json"
    if not path.is_file():
        raise StudyError(f"{path} is missing; make it with `dvc repro data`.")
    return json.loads(path.read_text())
