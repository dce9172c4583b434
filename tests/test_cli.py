"""The command line: what each sub-command prints, changes and refuses."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prorl_study import cli, params, preflight
from prorl_study.errors import StudyError
from prorl_study.stages import STAGES, choose_parameters, stage_values

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    cli.switch_profile("laptop", tmp_path)
    return tmp_path


def rows(path: Path, *pairs: tuple[dict, str]) -> Path:
    path.write_text("".join(json.dumps({"problem": p, "completion": c}) + "\n" for p, c in pairs))
    return path


def test_verify_prints_a_table_of_statuses_and_writes_a_verdict_a_row(tmp_path, capsys):
    code = {"domain": "code", "checks": {"entry_point": "f", "tests": [[[1], 1], [[2], 2]]}}
    file = rows(
        tmp_path / "answers.jsonl",
        ({"domain": "math", "answer": r"\frac{1}{2}"}, r"</think>\boxed{0.5}"),
        ({"domain": "math", "answer": "2"}, "I do not know"),
        (code, "```python\ndef f(x): return 1\n```"),
    )
    assert cli.main(["verify", str(file), "--workers", "1", "--out", str(tmp_path / "out.jsonl")]) == 0
    table = capsys.readouterr().out
    assert [line.split() for line in table.splitlines() if line.startswith(("code", "math", "all"))] == [
        ["code", "0", "1", "0", "1", "0.5"],
        ["math", "1", "0", "1", "2", "0.5"],
        ["all", "1", "1", "1", "3", "0.5"],
    ]
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(v["status"], v["score"]) for v in found] == [
        ("correct", 1),
        ("unparseable", 0),
        ("partial", 0.5),
    ]


def test_verify_names_the_file_or_the_line_that_cannot_be_used(tmp_path, capsys):
    assert "missing.jsonl does not exist" in refused(capsys, "verify", "missing.jsonl")
    good = ({"domain": "math", "answer": "2"}, "2")
    for bad in ({"answer": "2"}, {"domain": "math", "anwser": "2"}):
        file = rows(tmp_path / "bad.jsonl", good, (bad, "2"))
        assert "bad.jsonl, line 2" in refused(capsys, "verify", str(file))
    file.write_text("no json\n")
    assert "line 1" in refused(capsys, "verify", str(file))
    file = rows(tmp_path / "domain.jsonl", ({"domain": "poetry"}, "2"))
    assert "'poetry' is unknown" in refused(capsys, "verify", str(file))


def test_verify_judges_rows_whose_bytes_are_no_utf_8(tmp_path, capsys):
    file = rows(tmp_path / "bytes.jsonl", ({"domain": "math", "answer": "2"}, "XX"))
    file.write_bytes(file.read_bytes().replace(b"XX", b"\xff\xfe"))
    assert cli.main(["verify", str(file), "--workers", "1"]) == 0
    assert "unparseable" in capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence on stderr with which the command line ends with code 1."""
    assert cli.main(list(arguments)) == 1
    sentence = capsys.readouterr().err
    assert sentence.startswith("prorl-study: ") and sentence.count("\n") == 1
    return sentence


def test_profile_prints_each_change_and_keeps_comments(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comments = (project / "params.yaml").read_text().count("#")
    tokens = params.load(project / "params.yaml").segments["s1"].tokens
    assert cli.main(["profile", "smoke"]) == 0
    printed = capsys.readouterr().out
    assert "profile: laptop -> smoke\n" in printed and f"segments.s1.tokens: {tokens} -> 1500\n" in printed
    assert (project / "params.yaml").read_text().count("#") == comments
    assert params.load(project / "params.yaml").segments["s1"].tokens == 1500
    assert cli.main(["profile", "smoke"]) == 0
    assert capsys.readouterr().out == "params.yaml holds profile smoke already.\n"


def test_unknown_profile_is_refused_with_the_known_ones(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = refused(capsys, "profile", "somke")
    assert "no such profile: somke; conf/profiles has cluster, gpu, gpu_day" in sentence


def test_profile_that_makes_invalid_parameters_changes_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (project / "params.yaml").read_bytes()
    (project / "conf" / "profiles" / "bad.yaml").write_text("train: {temprature: 1.0}\n")
    assert "no such parameter: temprature" in refused(capsys, "profile", "bad")
    assert (project / "params.yaml").read_bytes() == before
    assert not (project / "params.yaml.new").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "trian"], "no such stage: trian; known: paper, data, base_model, train"),
        (["run", "data", "--segment", "s1"], "stage data has no segments"),
        (["run", "train"], "stage train needs --segment with one of s1, s2, s3"),
        (["run", "train", "--segment", "s9"], "no such segment: s9"),
        (["run", "data", "--set", "seed"], "--set seed: must be NAME=VALUE"),
        (["run", "data"], "notebooks/10_data.ipynb is missing"),
        (["index"], "reports/05_paper.html is missing; make it with `dvc repro paper`"),
    ],
)
def test_wrong_use_is_one_sentence(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    for stage in STAGES.values():
        if stage.notebook != "10_data.ipynb":
            (project / "notebooks").mkdir(exist_ok=True)
            shutil.copy(ROOT / "notebooks" / stage.notebook, project / "notebooks")
    assert sentence in refused(capsys, *arguments)


def test_outside_the_project_one_sentence_says_where_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "run from inside the project's folder" in refused(capsys, "plan")


def test_set_values_are_read_as_yaml() -> None:
    assert cli._parse_override("rate=1e-6") == ("rate", 1e-6)
    assert cli._parse_override("names=[a, b]") == ("names", ["a", "b"])
    with pytest.raises(StudyError, match="must be NAME=VALUE"):
        cli._parse_override("names=[a")


def test_plan_shows_last_measured_costs(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cards = project / "results" / "run_cards"
    cards.mkdir(parents=True)
    card = {"stage": "train_s2", "seconds": 612.5, "peak_memory_mb": 1830, "started": "2025-06-01T10:00:00Z"}
    (cards / "train_s2.json").write_text(json.dumps(card))
    assert cli.main(["plan"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        "paper", "data", "base_model", "train_s1", "train_s2", "train_s3", "arms", "ablations", "benchmarks",
        "boundary", "power", "claims", "samples"
    ]  # fmt: skip
    assert lines[5].split() == ["train_s2", "612.5", "1830", "2025-06-01T10:00:00Z"]
    assert lines[1].endswith("not yet")


def test_stage_gives_a_notebook_what_it_declares_and_refuses_orphans(project: Path) -> None:
    study = params.load(project / "params.yaml")
    offered = stage_values("train", study, "s2")
    assert offered["previous"] == "s1" and offered["learning_rate"] == study.train.learning_rate
    assert stage_values("claims", study, None)["segments"] == ["s1", "s2", "s3"]
    wanted = {"tokens": study.segments["s2"].tokens, "seed": study.seed}
    assert choose_parameters("x.ipynb", ["tokens", "seed"], offered) == wanted
    with pytest.raises(StudyError, match="x.ipynb declares stpes, which no section of its stage"):
        choose_parameters("x.ipynb", ["stpes"], offered)


def test_preflight_passes_here_and_names_what_is_missing(tmp_path: Path) -> None:
    here = [sys.executable, str(ROOT / "prorl_study" / "preflight.py"), str(tmp_path)]
    assert subprocess.run(here, check=False).returncode == 0
    assert preflight.missing(tmp_path, platform="darwin")[0].startswith("This study needs Linux")
    (old,) = preflight.missing(tmp_path, version=(3, 10))
    assert old.startswith("Python 3.10 is outside >=3.11,<3.15")
    bare = preflight.missing(tmp_path, find=lambda name: None)
    assert len(bare) == 2 and "python3." in bare[0] and "ensurepip is missing" in bare[1]


def test_power_prints_what_the_planned_sizes_detect_and_names_missing_counts(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no counts" in refused(capsys, "power")
    shutil.copytree(ROOT / "results" / "counts", project / "results" / "counts")
    assert cli.main(["power"]) == 0
    printed = capsys.readouterr().out
    study = params.load(project / "params.yaml")
    assert f"{study.power.n_seeds} seeds" in printed
    assert all(name in printed for name in ("gain-overall", "full-recipe", "gain-math"))


def test_evaluate_says_in_one_sentence_which_model_it_cannot_find(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = refused(capsys, "evaluate", "no/such/model", "--benchmarks", "test")
    assert "no/such/model" in sentence and sentence.count("\n") <= 1
