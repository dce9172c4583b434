"""Running a notebook, its page, the index and the run card, on small notebooks in a temporary project."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from prorl_study import reporting
from prorl_study.errors import StudyError
from prorl_study.paths import Workspace
from prorl_study.provenance import claims_hash, run_card
from prorl_study.stages import STAGES

ROOT = Path(__file__).parents[1]

PARAMETERS = 'workspace: str = "."  # folder\nnumber: int = 2  # a number'
FIGURE = """import sys
import matplotlib.pyplot as plt
from IPython.display import display
figure, axes = plt.subplots()
axes.plot([0, number])
print("about to draw", file=sys.stderr)
display(figure, metadata={"image/png": {"alt": "a line from 0 to the number"}})
plt.close(figure)"""
FINDING = "from prorl_study.reporting import finding\nfinding(f'The number is {number} & no more.')"


def write_notebook(path: Path, *cells: str) -> Path:
    """A notebook of a heading, the parameters and code cells; each writing gives it other cell ids."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    text = "# A small page\n\nIts formula is $a_1^2$, its price $5 and $6, its code `$x$`."
    notebook.cells = [nbformat.v4.new_markdown_cell(text)]
    notebook.cells.append(nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}))
    notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(project: Path, notebook: Path, parameters: dict[str, object], page: str = "page") -> str:
    target = project / "reports" / f"{page}.html"
    reporting.run_notebook(notebook, parameters, target, project / ".runs", "A small page", "Made by a test.")
    return target.read_text()


@pytest.fixture
def page(project: Path) -> str:
    return run(project, write_notebook(project / "notebooks" / "small.ipynb", FIGURE, FINDING), {"number": 7})


def test_pages_of_two_runs_are_byte_identical(project: Path, page: str) -> None:
    again = write_notebook(project / "notebooks" / "again.ipynb", FIGURE, FINDING)
    assert run(project, again, {"number": 7}, "again") == page


def test_page_shows_values_alt_text_formulas_and_origin(page: str) -> None:
    assert "The number is 7 &amp; no more." in page
    assert 'alt="a line from 0 to the number"' in page
    assert "<math" in page and "price $5 and $6" in page and "<code>$x$</code>" in page
    assert 'href="index.html"' in page and "Made by a test." in page


def test_page_loads_nothing_and_shows_no_log(page: str) -> None:
    assert "<script" not in page and "import(" not in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?:https?:)?//[^"']*""", page)
    assert "about to draw" not in re.sub(r"<details.*?</details>", "", page, flags=re.DOTALL)


def test_unknown_parameter_is_refused_before_anything_runs(project: Path) -> None:
    notebook = write_notebook(project / "notebooks" / "small.ipynb", FINDING)
    with pytest.raises(StudyError, match="no such parameter: numbr; known: workspace, number"):
        run(project, notebook, {"numbr": 7})
    assert not (project / ".runs").exists()


def test_failing_cell_is_told_in_one_sentence_and_what_came_before_is_kept(project: Path) -> None:
    notebook = write_notebook(project / "notebooks" / "bad.ipynb", "print('before')", "1 / 0", FINDING)
    with pytest.raises(StudyError) as raised:
        run(project, notebook, {})
    message = str(raised.value)
    assert message.startswith("notebooks/bad.ipynb stopped: ZeroDivisionError: division by zero")
    assert "\n" not in message and ".runs/page.ipynb" in message
    kept = nbformat.read(project / ".runs" / "page.ipynb", as_version=4)
    outputs = [output for cell in kept.cells for output in cell.get("outputs", [])]
    assert any("before" in output.get("text", "") for output in outputs)
    assert not (project / "reports" / "page.html").exists()


def test_study_error_in_a_cell_is_shown_as_its_own_sentence(project: Path) -> None:
    cell = "from prorl_study.errors import StudyError\nraise StudyError('samples=0 must be above 0.')"
    with pytest.raises(StudyError, match=r"stopped: samples=0 must be above 0 \(all up to"):
        run(project, write_notebook(project / "notebooks" / "bad.ipynb", cell), {})


def test_dead_kernel_is_told_in_one_sentence(project: Path) -> None:
    notebook = write_notebook(project / "notebooks" / "dies.ipynb", "import os\nos._exit(9)")
    with pytest.raises(StudyError, match="its kernel died"):
        run(project, notebook, {})


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_stopped_run_leaves_no_process(project: Path, stop: signal.Signals) -> None:
    cell = (
        "import os, pathlib, subprocess, time\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "pathlib.Path('pids.tmp').write_text(f'{os.getpid()} {child.pid}')\n"
        "os.rename('pids.tmp', 'pids')\n"
        "time.sleep(600)"
    )
    write_notebook(project / "notebooks" / STAGES["data"].notebook, cell)
    command = [sys.executable, "-m", "prorl_study.cli", "run", "data", "--defaults"]
    stage = subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (project / "pids").exists() and stage.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    pids = [int(pid) for pid in (project / "pids").read_text().split()]
    stage.send_signal(stop)
    _, stderr = stage.communicate(timeout=60)
    assert stage.returncode == 128 + stop
    assert "Traceback" not in stderr
    gone = time.monotonic() + 5
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < gone:
        time.sleep(0.1)
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def write_pages(ws: Workspace, segments: list[str]) -> None:
    ws.reports.mkdir()
    for stage in STAGES.values():
        for segment in segments if "segment" in stage.sections else [None]:
            text = f'<title>Page {stage.page(segment)}</title><p class="finding">A finding &amp; more.</p>'
            (ws.reports / f"{stage.page(segment)}.html").write_text(text)


def test_index_links_every_page_with_its_finding(project: Path) -> None:
    ws = Workspace.open()
    write_pages(ws, ["s1", "s2", "s3"])
    index = reporting.write_index(ws).read_text()
    links = re.findall(r'href="([^"]+)"', index)
    assert {f"{stem}.html" for stem in ("10_data", "30_prolonged_training_s2", "60_claims")} <= set(links)
    assert all((ws.reports / link).is_file() for link in links if link.endswith(".html"))
    assert index.count("A finding &amp; more.") == len(STAGES) + 2
    assert "<script" not in index and not re.search(r"@[a-z]+@|https?://", index)


def test_index_names_the_missing_page_and_the_page_without_a_finding(project: Path) -> None:
    ws = Workspace.open()
    write_pages(ws, ["s1", "s2", "s3"])
    (ws.reports / "60_claims.html").write_text("<title>Claims</title>")
    with pytest.raises(StudyError, match="60_claims.html states no finding"):
        reporting.write_index(ws)
    (ws.reports / "30_prolonged_training_s2.html").unlink()
    with pytest.raises(StudyError, match="make it with `dvc repro train@s2`"):
        reporting.write_index(ws)


def test_upstream_is_run_in_a_scratch_folder_and_only_named_in_the_project(project: Path) -> None:
    for stage in ("paper", "data"):
        cell = f"from pathlib import Path\nPath(workspace, '{STAGES[stage].product}').mkdir(parents=True)"
        write_notebook(project / "notebooks" / STAGES[stage].notebook, cell)
    with pytest.raises(StudyError, match="artifacts/problems is missing; make it with `dvc repro data`"):
        reporting.ensure_upstream(Workspace.open("."), "base_model")
    reporting.ensure_upstream(Workspace.open(".scratch"), "base_model")
    assert (project / ".scratch" / "artifacts" / "problems").is_dir()
    assert not (project / "artifacts").exists()


def test_run_card_counts_the_memory_of_child_processes(project: Path) -> None:
    megabytes = 200
    hog = f"import time; held = bytearray(b'x' * ({megabytes} << 20)); time.sleep(3)"
    with run_card("base_model", project / "results", project / "params.yaml"):
        subprocess.run([sys.executable, "-c", hog], check=True)
    card = json.loads((project / "results" / "run_cards" / "base_model.json").read_text())
    assert card["peak_memory_mb"] > megabytes
    assert 3 <= card["seconds"] < 60
    assert card["claims_sha256"] == claims_hash(project / "params.yaml")
    assert card["host"]["cores"] == len(os.sched_getaffinity(0)) and card["versions"]["torch"]


def test_failed_run_keeps_the_card_of_the_last_success(project: Path) -> None:
    card = project / "results" / "run_cards" / "data.json"
    with run_card("data", project / "results", project / "params.yaml"):
        pass
    before = card.read_bytes()
    with pytest.raises(StudyError), run_card("data", project / "results", project / "params.yaml"):
        raise StudyError("stopped.")
    assert card.read_bytes() == before


def test_hash_of_the_claims_follows_their_values_and_neither_comments_nor_order(project: Path) -> None:
    file = project / "params.yaml"
    before, text = claims_hash(file), file.read_text()
    file.write_text(text + "# a comment\n")
    assert claims_hash(file) == before
    file.write_text(text.replace("    margin: 2.0\n", "    margin: 3.0\n", 1))
    assert claims_hash(file) != before
