"""`params.yaml`: typed, strict, and the same after any tour through the profiles."""

import re
import shutil
from pathlib import Path

import pytest

from prorl_study import params
from prorl_study.cli import switch_profile
from prorl_study.errors import StudyError

ROOT = Path(__file__).parents[1]
PROFILES = sorted(path.stem for path in (ROOT / "conf" / "profiles").glob("*.yaml"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the committed parameters and profiles."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    switch_profile("laptop", tmp_path)
    return tmp_path


def replace(project: Path, old: str, new: str) -> Path:
    path = project / "params.yaml"
    text, found = re.subn(rf"(?m)^(\s*){old}", rf"\g<1>{new}", path.read_text())
    assert found == 1
    path.write_text(text)
    return path


def leaves(tree: dict, where: str = "") -> set[str]:
    found = set()
    for key, value in tree.items():
        found |= leaves(value, f"{where}{key}.") if isinstance(value, dict) else {where + key}
    return found


def test_committed_parameters_are_valid_and_are_profile_laptop(project: Path) -> None:
    assert params.load(ROOT / "params.yaml") == params.load(project / "params.yaml")
    assert params.load(ROOT / "params.yaml").profile == "laptop"


@pytest.mark.parametrize("name", PROFILES)
def test_profile_is_valid_and_named_like_its_file(project: Path, name: str) -> None:
    switch_profile(name, project)
    assert params.load(project / "params.yaml").profile == name


@pytest.mark.parametrize("name", PROFILES)
def test_going_back_to_laptop_restores_every_parameter_and_comment(project: Path, name: str) -> None:
    before = (project / "params.yaml").read_text()
    switch_profile(name, project)
    switch_profile("laptop", project)
    after = (project / "params.yaml").read_text()
    assert params.load_yaml(project / "params.yaml") == params.load_yaml(ROOT / "params.yaml")
    # blanks before a comment may differ, nothing else
    assert [line.split() for line in after.splitlines()] == [line.split() for line in before.splitlines()]


@pytest.mark.parametrize("name", PROFILES)
def test_laptop_holds_every_key_that_a_profile_changes(name: str) -> None:
    profile = leaves(params.load_yaml(ROOT / "conf" / "profiles" / f"{name}.yaml"))
    assert profile <= leaves(params.load_yaml(ROOT / "conf" / "profiles" / "laptop.yaml"))


def test_number_as_dvc_writes_it_is_a_float(project: Path) -> None:
    # PyYAML reads this as text
    path = replace(project, r"learning_rate: \S+", "learning_rate: 3e-06")
    assert params.load(path).train.learning_rate == 3e-6


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("test_problems:", "tset_problems:", "data: no such parameter: tset_problems"),
        (r"top_p: \S+", "top_p: high", "evaluation: top_p='high' is str, must be float"),
        (r"dynamic_sampling: \S+", "dynamic_sampling: 1", "train: dynamic_sampling=1 is int, must be bool"),
        (r"habit_rate: \S+", "habit_rate: 78.0", r"habit_rate=78.0 must lie in \[0, 1\]"),
        ("s2: {previous: s1,", "s2: {previous: s3,", "segments.s2: previous='s3' must be one of base, s1"),
        ("seed: ", "sead: ", "no such section: sead"),
    ],
)
def test_wrong_parameter_is_named_with_its_place(project: Path, old: str, new: str, sentence: str) -> None:
    with pytest.raises(StudyError, match=sentence):
        params.load(replace(project, old, new))
