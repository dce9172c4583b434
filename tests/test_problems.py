"""Claims about the data stage: the snapshot is reproducible, clean and solvable, and follows the mixture."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from prorl_study import problems
from prorl_study.domains import DOMAINS, Problem, Verdict
from prorl_study.domains.templates import HELD_OUT_SPLITS
from prorl_study.errors import StudyError
from prorl_study.params import DataParams
from prorl_study.verification.pool import VerificationPool

COMMITTED = Path(__file__).parents[1] / "data"
SIZES = {"train": 136, "validation": 6, "test": 8, "hard": 4, "ood": 4}
PARAMS = DataParams(
    train_problems=136,
    validation_problems=6,
    test_problems=8,
    hard_problems=4,
    ood_problems=4,
    floor_samples=3,
)
SEED = 5


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    problems.write_snapshot(folder, SEED, problems.split_counts(**SIZES))
    return folder


@pytest.fixture(scope="module")
def pool() -> Iterator[VerificationPool]:
    with VerificationPool(workers=2) as workers:
        yield workers


@pytest.fixture(scope="module")
def built(
    snapshot: Path, pool: VerificationPool, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("artifacts") / "problems"
    return out, problems.build_problems(snapshot, out, PARAMS, SEED, pool)


def files(folder: Path) -> Iterator[tuple[str, str]]:
    for key in problems.read_manifest(folder)["sha256"]:
        domain, _, split = key.partition("/")
        yield domain, split


def rewrite(folder: Path, domain: str, split: str, changed: Sequence[Problem]) -> None:
    """Put other problems into a snapshot, and their hash into its manifest."""
    content = "".join(json.dumps(asdict(p), sort_keys=True) + "\n" for p in changed).encode()
    problems.snapshot_file(folder, domain, split).write_bytes(gzip.compress(content))
    manifest = problems.read_manifest(folder)
    manifest["sha256"][f"{domain}/{split}"] = hashlib.sha256(content).hexdigest()
    (folder / problems.MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture
def copy(snapshot: Path, tmp_path: Path) -> Path:
    for path in snapshot.rglob("*.*"):
        target = tmp_path / "data" / path.relative_to(snapshot)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return tmp_path / "data"


def test_generating_twice_gives_the_same_bytes_whatever_the_number_of_processes(
    snapshot: Path, tmp_path: Path
) -> None:
    problems.write_snapshot(tmp_path, SEED, problems.split_counts(**SIZES), processes=1)
    written = sorted(path.relative_to(snapshot) for path in snapshot.rglob("*.*"))
    assert written == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert all((snapshot / path).read_bytes() == (tmp_path / path).read_bytes() for path in written)


def test_another_seed_gives_other_problems(snapshot: Path, tmp_path: Path) -> None:
    problems.write_snapshot(tmp_path, SEED + 1, {"math": {"train": 5}}, processes=1)
    other = {problems.prompt_text(p) for p in problems.read_snapshot(tmp_path, "math", "train")}
    assert not other & {problems.prompt_text(p) for p in problems.read_snapshot(snapshot, "math", "train")}


def test_committed_snapshot_is_what_its_manifest_says() -> None:
    manifest = problems.read_manifest(COMMITTED)
    assert manifest["counts"] == problems.snapshot_counts()
    assert set(files(COMMITTED)) == {(d, s) for d, splits in manifest["counts"].items() for s in splits}
    for domain, split in files(COMMITTED):
        content = problems.snapshot_content(COMMITTED, domain, split)
        assert hashlib.sha256(content).hexdigest() == manifest["sha256"][f"{domain}/{split}"]
        assert len(content.splitlines()) == manifest["counts"][domain][split]


def test_committed_snapshot_equals_regeneration_on_a_sample_of_every_file() -> None:
    seed = problems.read_manifest(COMMITTED)["seed"]
    for domain, split in files(COMMITTED):
        stored = problems.read_snapshot(COMMITTED, domain, split)
        for problem in Random(f"{domain}/{split}").sample(stored, 40):
            index = int(problem.id.rpartition("-")[2])
            assert DOMAINS[domain].generate(seed, split, index) == problem


def test_no_prompt_of_the_committed_snapshot_occurs_twice() -> None:
    for name in DOMAINS:
        own = [p for d, s in files(COMMITTED) if d == name for p in problems.read_snapshot(COMMITTED, d, s)]
        assert len({problems.prompt_text(p) for p in own}) == len(own)
        assert len({p.id for p in own}) == len(own)


def test_templates_of_held_out_splits_occur_in_no_other_split() -> None:
    for name in DOMAINS:
        found: dict[bool, set[str]] = {True: set(), False: set()}
        for domain, split in files(COMMITTED):
            if domain == name:
                templates = {p.template for p in problems.read_snapshot(COMMITTED, domain, split)}
                found[split in HELD_OUT_SPLITS] |= templates
        assert found[True] and found[False] and not found[True] & found[False]


@pytest.mark.parametrize("total", [0, 1, 7, 136, 1000, 13_600, 99_999])
def test_mixture_is_the_papers_to_within_one_problem(total: int) -> None:
    paper = {"math": 40, "code": 24, "stem": 25, "logic": 37, "instruction": 10}
    mix = problems.mixture(total)
    assert sum(mix.values()) == total and set(mix) == set(paper)
    assert all(abs(mix[name] - total * paper[name] / 136) < 1 for name in paper)


def test_what_is_loaded_is_what_the_snapshot_holds(
    snapshot: Path, built: tuple[Path, dict[str, Any]]
) -> None:
    out, summary = built
    for split in problems.STUDY_SPLITS:
        names = [name for name in DOMAINS if problems.snapshot_file(snapshot, name, split).exists()]
        stored = [p for name in names for p in problems.read_snapshot(snapshot, name, split)]
        assert problems.load_problems(out, split) == stored
    assert sum(sum(splits.values()) for splits in summary["counts"].values()) == summary["golds_checked"]
    assert set(summary["template_overlap"].values()) == {0}


def test_every_task_has_floors_and_garbage_is_never_right(built: tuple[Path, dict[str, Any]]) -> None:
    out, _ = built
    floors = problems.load_floors(out)
    tasks = {p.task for split in problems.STUDY_SPLITS for p in problems.load_problems(out, split)}
    assert set(floors) == tasks
    assert all(floor["garbage"]["solved"] == 0 for floor in floors.values())
    assert all(0 <= floor[kind]["score"] <= 1 for floor in floors.values() for kind in ("garbage", "guess"))


@pytest.mark.parametrize("domain", ["logic", "math"])
def test_a_wrong_gold_stops_the_build_and_is_named(copy: Path, tmp_path: Path, domain: str) -> None:
    stored = problems.read_snapshot(copy, domain, "test")
    at = next(i for i, p in enumerate(stored) if p.task in ("chain_sum", "chain"))
    stored[at] = replace(stored[at], answer=str(int(stored[at].answer) + 1))
    rewrite(copy, domain, "test", stored)
    # A pool of its own: pools remember verdicts by id and completion, and only the gold differs here.
    with VerificationPool(workers=1) as pool, pytest.raises(StudyError, match=rf"{stored[at].id} .*{domain}"):
        problems.build_problems(copy, tmp_path / "out", PARAMS, SEED, pool)
    assert not (tmp_path / "out").exists()


class Unused:
    """A judge for builds that must stop before anything is judged."""

    def verify(self, items: Sequence[tuple[Problem, str]], lenient: bool = False) -> list[Verdict]:
        raise AssertionError("judged before it was checked")


def test_a_test_prompt_in_train_stops_the_build(copy: Path, tmp_path: Path) -> None:
    leaked = problems.read_snapshot(copy, "stem", "test")[3]
    train = problems.read_snapshot(copy, "stem", "train")
    rewrite(copy, "stem", "train", [*train[:-1], replace(train[-1], prompt=leaked.prompt)])
    with pytest.raises(StudyError, match=f"{leaked.id} has the prompt of {train[-1].id}"):
        problems.build_problems(copy, tmp_path / "out", PARAMS, SEED, Unused())


def test_a_changed_file_a_missing_one_and_a_small_one_are_named(copy: Path, tmp_path: Path) -> None:
    too_many = replace(PARAMS, test_problems=9)
    with pytest.raises(StudyError, match=r"test\.jsonl\.gz holds 8 problems, params\.yaml asks for 9"):
        problems.build_problems(copy, tmp_path / "out", too_many, SEED, Unused())
    path = problems.snapshot_file(copy, "code", "hard")
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))
    with pytest.raises(StudyError, match=r"hard\.jsonl\.gz differs from MANIFEST\.json"):
        problems.build_problems(copy, tmp_path / "out", PARAMS, SEED, Unused())
    path.unlink()
    with pytest.raises(StudyError, match=r"hard\.jsonl\.gz is missing"):
        problems.build_problems(copy, tmp_path / "out", PARAMS, SEED, Unused())
    with pytest.raises(StudyError, match="dvc repro data"):
        problems.load_problems(tmp_path, "train")
