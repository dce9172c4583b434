"""The pipeline as a whole: `dvc.yaml` names what its notebooks use, and a small study runs end to end."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from ruamel.yaml import YAML

from prorl_study import params
from prorl_study.stages import STAGES

ROOT = Path(__file__).parents[1]
PACKAGE = "prorl_study"
FOLDERS = ("domains", "hub", "judges", "verification")
"""Sub-packages that dvc.yaml lists as one folder."""
READ_BY = {
    "reporting.py": "templates",
    "paper.py": "paper.yaml",
}
"""Files that a module reads beside its code."""
WITHOUT_EFFECT = {
    "workspace",
    "isolation",
    "workers",
    "launcher",
    "micro_batch",
    "pass_tokens",
    "vllm_server",
    "vllm_memory",
    "report_to",
    "deterministic",
}
"""Parameters that no result is meant to depend on, so that changing one must not run a stage again."""
MINUTES = 10
"""How long the small study may take."""


def pipeline() -> dict[str, dict]:
    return YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


def stage_body(name: str) -> dict:
    stage = pipeline()[name]
    return stage.get("do", stage)


def notebooks_of(name: str) -> list[str]:
    stage = STAGES[name]
    return [file for file in (stage.notebook, stage.elsewhere) if file]


def notebook_code(name: str) -> str:
    """The code of all notebooks that the stage may run."""
    notebooks = [nbformat.read(ROOT / "notebooks" / file, as_version=4) for file in notebooks_of(name)]
    return "\n".join(c.source for notebook in notebooks for c in notebook.cells if c.cell_type == "code")


def named_modules(code: str) -> set[str]:
    """Modules of the package that the code imports, or names in a string to run as a program."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and re.fullmatch(rf"{PACKAGE}(\.\w+)+", str(node.value)):
            found.add(node.value)
    return {name for name in found if name.split(".")[0] == PACKAGE}


def module_file(name: str) -> Path | None:
    path = ROOT / Path(*name.split("."))
    if path.with_suffix(".py").is_file():
        return path.with_suffix(".py")
    return path / "__init__.py" if (path / "__init__.py").is_file() else None


def used_files(code: str) -> set[Path]:
    """Files of the package that the code reaches by imports, however many steps away."""
    reached: set[Path] = set()
    ahead = [code]
    while ahead:
        files = {module_file(name) for name in named_modules(ahead.pop())} - {None} - reached
        reached |= files
        ahead += [file.read_text() for file in files]
    return reached


def expected_code(name: str) -> set[str]:
    """The part of a stage's deps that is code, as dvc.yaml should list it."""
    if name == "index":
        files = used_files("from prorl_study.reporting import write_index")
    else:
        files = used_files(notebook_code(name))
    deps: set[str] = set() if name == "index" else {f"notebooks/{file}" for file in notebooks_of(name)}
    for file in files - {ROOT / PACKAGE / "__init__.py"}:
        part = file.relative_to(ROOT / PACKAGE)
        deps.add(f"{PACKAGE}/{part.parts[0] if part.parts[0] in FOLDERS else part}")
        if str(part) in READ_BY:
            deps.add(f"{PACKAGE}/{READ_BY[str(part)]}")
    return deps


@pytest.mark.parametrize("name", [*STAGES, "index"])
def test_stage_depends_on_exactly_the_code_that_it_uses(name: str) -> None:
    listed = {dep for dep in stage_body(name)["deps"] if dep.startswith((f"{PACKAGE}/", "notebooks/"))}
    expected = expected_code(name)
    assert sorted(listed) == sorted(expected), f"missing {expected - listed}, needless {listed - expected}"


@pytest.mark.parametrize("name", STAGES)
def test_stage_watches_every_parameter_that_its_notebook_takes(name: str) -> None:
    study = params.load(ROOT / "params.yaml")
    wanted = {
        target.id
        for node in ast.parse(notebook_code(name)).body
        if isinstance(node, ast.AnnAssign) and isinstance(target := node.target, ast.Name)
    } - WITHOUT_EFFECT
    watched: set[str] = set()
    for key in stage_body(name).get("params", []):
        section, _, rest = key.replace("segments.${key}", "segment").partition(".")
        if section in STAGES[name].sections and not rest:
            watched |= set(stage_section(section, study))
        watched.add(rest or section)
        if key == "segments":
            watched.add("chain")
    assert wanted <= watched, f"dvc.yaml, {name}: params lacks {sorted(wanted - watched)}"


def stage_section(section: str, study: params.Params) -> list[str]:
    if section == "segment":
        return list(vars(study.segments["s1"]))
    if section in ("segments", "claims"):
        return [] if section == "segments" else ["claim_tests"]
    return list(vars(getattr(study, section)))


def test_a_stage_that_reads_one_segment_reads_every_segment() -> None:
    segments = list(params.load(ROOT / "params.yaml").segments)
    kinds = (
        "models/{}",
        "results/training/{}.csv",
        "results/training/{}_checks.csv",
        "reports/30_prolonged_training_{}.html",
    )
    readers = {kind: [] for kind in kinds}
    for name in {*STAGES, "index"} - {"train"}:
        deps = stage_body(name)["deps"]
        for kind in kinds:
            found = [segment for segment in segments if kind.format(segment) in deps]
            assert found in ([], segments), f"{name} depends on {kind} of {found} alone"
            readers[kind] += [name] if found else []
    assert {"benchmarks", "boundary", "arms"} <= set(readers["models/{}"])
    assert "claims" in readers["results/training/{}.csv"]


def test_every_study_stage_is_in_the_pipeline_and_no_other() -> None:
    assert list(pipeline()) == [*STAGES, "index"]


def test_commands_carry_no_values() -> None:
    for name in pipeline():
        command = stage_body(name)["cmd"]
        assert re.fullmatch(r"prorl-study (run \w+( --segment \$\{key\})?|index)", command), command


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh repository with this working tree's files, on profile smoke."""
    target = tmp_path_factory.mktemp("clone")
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        kept = not name.startswith("results/") or name.startswith("results/evidence/")  # no stage makes those
        if (ROOT / name).is_file() and kept:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    (target / "dvc.lock").unlink(missing_ok=True)
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "copy"]):
        subprocess.run(["git", *command], cwd=target, check=True)
    return target


def call(clone: Path, *command: str, timeout: float = 60 * MINUTES) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    # The clone's code, not the one that this environment has installed.
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(clone)}
    return subprocess.run(
        command, cwd=clone, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.fixture(scope="module")
def study(clone: Path) -> Path:
    """The clone after `dvc repro` on profile smoke."""
    for command in (["dvc", "pull", "data.dvc"], ["prorl-study", "profile", "smoke"]):
        done = call(clone, *command)
        assert done.returncode == 0, done.stderr
    started = time.monotonic()
    done = call(clone, "dvc", "repro")
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert time.monotonic() - started < 60 * MINUTES
    return clone


def test_small_study_ends_with_all_pages_and_results(study: Path) -> None:
    assert (study / "reports" / "index.html").is_file()
    pages = {page.stem for page in (study / "reports").glob("*.html")}
    assert {stage.page(None) for stage in STAGES.values() if "segment" not in stage.sections} <= pages
    for name in ("benchmarks", "gains", "claims"):
        assert json.loads((study / "results" / f"{name}.json").read_text())
    assert len(list((study / "results" / "run_cards").glob("*.json"))) == len(STAGES) + 2


def test_pages_open_offline(study: Path) -> None:
    for page in (study / "reports").glob("*.html"):
        text = page.read_text()
        assert "<script" not in text, page.name
        assert not re.findall(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//[^"'>\s]+""", text), page.name
        assert not re.findall(r"<img[^>]*alt=(?:\"\"|''|\"No description)", text), page.name


def test_second_run_does_nothing_and_is_quick(study: Path) -> None:
    started = time.monotonic()
    done = call(study, "dvc", "repro")
    seconds = time.monotonic() - started
    assert done.returncode == 0 and "Running stage" not in done.stdout
    # 5 s on a free machine; the bound leaves room for a busy one.
    assert seconds < 15


def test_wrong_parameter_is_one_sentence_and_keeps_what_was_computed(study: Path) -> None:
    before = (study / "results" / "data.json").read_bytes()
    text = (study / "params.yaml").read_text()
    (study / "params.yaml").write_text(text.replace("test_problems:", "tset_problems:"))
    try:
        done = call(study, "prorl-study", "run", "data")
    finally:
        (study / "params.yaml").write_text(text)
    assert done.returncode == 1
    sentence = r"prorl-study: [^\n]*no such parameter: tset_problems[^\n]*\n"
    assert re.fullmatch(sentence, done.stderr), done.stderr
    assert (study / "results" / "data.json").read_bytes() == before
