"""docs/extend.md keeps its word: one short file makes a sixth domain, in the data and in all that follows.

The example is put into a copy of the package, and processes of their own use that copy (`six_domains`).
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prorl_study import ablations, claims, evidence, figures
from prorl_study.domains import DOMAINS, PAPER_DOMAINS

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "sixth_domain.py"
GOOD = EXAMPLE.read_text()
NEW_CLAIMS = ["gain-letters", "gain-not-format-letters", "boundary-letters"]


def copied(folder: Path, **modules: str) -> Path:
    """`folder` with a copy of the package, and in its `domains` further modules, by name with their text."""
    shutil.copytree(
        ROOT / "prorl_study", folder / "prorl_study", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name, text in modules.items():
        (folder / "prorl_study" / "domains" / f"{name}.py").write_text(text)
    return folder


def run(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with the copy's package and the tests' modules."""
    path = os.pathsep.join([str(copy), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def scenario(copy: Path, name: str) -> Any:
    """What `six_domains.NAME` returns in a process of its own."""
    done = run(copy, "-m", "six_domains", name)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package in which the example is a domain."""
    return copied(tmp_path_factory.mktemp("extended"), letters=GOOD)


@pytest.fixture(scope="module")
def report(copy: Path) -> dict[str, Any]:
    return scenario(copy, "report")


def test_the_example_is_under_a_hundred_lines():
    assert len(GOOD.splitlines()) < 100


def test_without_a_sixth_there_are_the_papers_five_in_its_order():
    assert tuple(DOMAINS) == PAPER_DOMAINS == ("math", "code", "stem", "logic", "instruction")


def test_a_sixth_domain_is_in_the_data_with_its_share_of_the_mix_and_its_golds_checked(copy):
    summary = scenario(copy, "data")
    counts = summary["counts"]
    assert counts["letters"] == {"train": 5, "validation": 1, "test": 2, "hard": 1}  # 5 of 73 as 10 of 146
    assert sum(splits["train"] for splits in counts.values()) == 73
    assert summary["golds_checked"] == sum(sum(splits.values()) for splits in counts.values())
    assert len(summary["stored"]) == 5 and summary["template_overlap"]["letters"] == 0
    floor = summary["floors"]["sort_letters"]
    assert floor["domain"] == "letters" and floor["garbage"] == {"score": 0.0, "solved": 0.0}


def test_a_sixth_domain_is_trained_on_with_its_share(copy, report):
    assert report["trained_on"] == report["order"]
    logs = scenario(copy, "training")
    kept = {name: sum(log[f"kept/{name}"] for log in logs) for name in (*PAPER_DOMAINS, "letters")}
    assert sum(kept.values()) == 3 * 16 and abs(kept["letters"] - 48 * 10 / 146) < 2
    assert any(log["sampled/letters"] and 0 < log["reward/letters"] < 1 for log in logs)


def test_a_sixth_domain_is_judged_by_workers_and_counted(copy):
    found = scenario(copy, "evaluation")
    assert found["statuses"] == ["correct", "wrong", "unparseable"] * 3 and found["answers"] == 6
    assert found["rates"]["strict"] == pytest.approx(1 / 3, abs=1e-6)
    assert found["rates"]["lenient_strict"] == pytest.approx(2 / 3, abs=1e-6)


def test_a_sixth_domain_is_in_every_plot_and_takes_no_colour_from_the_others(report):
    assert report["order"] == [*PAPER_DOMAINS, "letters"]
    for drawn in ("forest", "panels", "lines"):
        assert report[drawn] == report["order"], drawn
    assert {name: report["colours"][name] for name in DOMAINS} == figures.DOMAIN_COLOURS
    assert len(set(report["colours"].values())) == 6
    assert report["partial"] == ["code", "logic", "instruction"]
    assert report["graded"] == ["logic", "instruction"]


def test_any_number_of_domains_has_colours_that_differ():
    assert all(len(set(figures.colours(count))) == count for count in range(25))


def test_a_sixth_domain_has_the_claims_of_the_others_and_no_number_of_the_paper(report):
    rows = {row["id"]: row for row in report["claims"]}
    assert set(rows) - {claim.id for claim in claims.CLAIMS} == set(NEW_CLAIMS)
    for name in NEW_CLAIMS:
        row, like = rows[name], rows[name.replace("letters", "math")]
        assert all(row[key] == like[key] for key in ("measure", "test", "margin", "unit", "level", "primary"))
        assert row["paper_value"] is None and "letters" in row["statement"]
    assert report["own_margin"] == 7.0  # an entry of its own in params.yaml comes before that
    assert rows["gain-letters"]["verdict"] == "seen here"
    assert "gain-letters: seen here" in report["claim_labels"]
    assert {"gain-letters", "boundary-letters"} <= set(report["sized"])
    (line,) = [line for line in report["markdown"].splitlines() if line.startswith("| letters")]
    assert line.endswith("| – |")


def test_a_sixth_domain_changes_nothing_that_the_committed_results_say(copy):
    rows = {row["id"]: row for row in scenario(copy, "committed")}
    assert [rows.pop(name)["verdict"] for name in NEW_CLAIMS] == ["not run"] * 3
    before = json.loads((ROOT / "results" / "claims.json").read_text())
    assert rows == {row["id"]: row for row in before}


def test_an_arm_that_was_added_as_data_is_compared_beside_the_others():
    rows = evidence.load_rows(ROOT / "results")
    mine = [row | {"arm": "mine"} for row in rows if row["arm"] == "no_kl"]
    named = [[line.name for line in panel.lines] for panel in ablations.parts(rows + mine)]
    before = [[line.name for line in panel.lines] for panel in ablations.parts(rows)]
    assert named == [[*names, "minus mine"] for names in before]
    laptop = ablations.load_laptop(ROOT / "results")
    (panel,) = ablations.laptop([*laptop, laptop[0] | {"arm": "mine"}], seed=1, resamples=20)
    assert [line.name for line in panel.lines] == [f"minus {arm}" for arm in (*ablations.LAPTOP, "mine")]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("letters", "1 +", r"letters\.py cannot be imported \(SyntaxError: .*\); mend it"),
        ("letters", "import no_such", r"letters\.py cannot be imported \(ModuleNotFoundError: .*'no_such'\)"),
        ("letters", "DOMAIN = 'letters'", r"letters\.py: DOMAIN is a str, must be a Domain; correct it"),
        ("alphabet", GOOD, r"alphabet\.py: name='letters' must be 'alphabet', as its file"),
        ("overall", GOOD.replace("letters", "overall"), r"'overall' stands for all domains together"),
        ("letters", GOOD.replace("(NAME, 10", "(NAME, 0"), r"letters\.py: .* weight=0 a whole number of 1"),
    ],
)
def test_a_file_that_is_no_domain_is_named_in_one_sentence(tmp_path, name, text, sentence):
    done = run(copied(tmp_path, **{name: text}), "-c", "import prorl_study.domains")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("prorl_study.errors.StudyError: ") and re.search(sentence, last), last


def test_a_helper_module_is_no_domain(tmp_path):
    code = "from prorl_study.domains import DOMAINS; print(*DOMAINS)"
    done = run(copied(tmp_path, words="WORDS = ('a', 'b')\n"), "-c", code)
    assert done.stdout.split() == list(PAPER_DOMAINS)
