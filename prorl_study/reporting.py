"""Runs a notebook with its parameters and writes its page; collects all pages in an index.

A thin layer over papermill and nbconvert. It adds what they lack: unknown parameters are refused, a
failing cell is told in one sentence, a stopped run leaves no process behind, and a page is offline (no
script, no link to another host) and byte-identical whenever its content is. What differs from run to
run is in `provenance.py`.
"""

from __future__ import annotations

import html
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import psutil
from IPython.display import HTML, display
from ruamel.yaml import YAML

from prorl_study import params
from prorl_study.errors import StudyError
from prorl_study.files import digest
from prorl_study.paths import Workspace, project_root
from prorl_study.provenance import library_versions
from prorl_study.stages import STAGES

TEMPLATES = Path(__file__).parent / "templates"
GRACE_SECONDS = 30
"""How long what a kernel started may take to end after the kernel."""


def finding(text: str) -> None:
    """Show a page's finding, one sentence made from data; the index shows it on the page's card."""
    display(HTML(f'<p class="finding">{html.escape(text)}</p>'))


def ensure_upstream(ws: Workspace, stage: str) -> None:
    """Make sure that what `stage` needs of the stages before it is there.

    A scratch workspace gets it by running their notebooks with their own defaults. In the project DVC runs
    the stages, in the order of what they depend on, which need not be that of the notebooks' numbers; raises
    StudyError there for a product that `dvc.yaml` lists among the stage's dependencies and that is missing.
    """
    study = params.load(project_root() / "params.yaml")
    body = params.load_yaml(project_root() / "dvc.yaml")["stages"][stage]
    needed = body.get("do", body)["deps"]
    for name in list(STAGES)[: list(STAGES).index(stage)]:
        for segment in study.segments if name == "train" else (None,):
            product = STAGES[name].product.format(segment=segment)
            target = f"{name}@{segment}" if segment else name
            if (ws.root / product).exists():
                continue
            if ws.is_scratch:
                _run_upstream(ws, target)
            elif product in needed:
                raise StudyError(f"{product} is missing; make it with `dvc repro {target}`.")


def _run_upstream(ws: Workspace, target: str) -> None:
    name, _, segment = target.partition("@")
    arguments = ["run", name, "--defaults", "--workspace", str(ws.root)]
    arguments += ["--segment", segment] if segment else []
    command = [str(Path(sys.executable).with_name("prorl-study")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise StudyError(f"stage {target} must run first and failed: {last.removeprefix('prorl-study: ')}")


def study_environment(online: bool = False) -> dict[str, str]:
    """What kernels and stages run with, on top of the caller's environment; `online` where they may fetch
    from the hub."""
    return ({} if online else {"HF_HUB_OFFLINE": "1"}) | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # The kernel is this environment's own, whatever the user has installed elsewhere.
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_PATH": "",
    }


def declared_parameters(notebook: Path) -> dict[str, Any]:
    """The notebook's parameters: name to what papermill knows of it.

    Raises StudyError for a missing file and for one that names no language.
    """
    import papermill  # slow to import; notebooks import this module too and need none of it

    if not notebook.is_file():
        name = _short(notebook)
        raise StudyError(f"{name} is missing; restore it with `git checkout {name}`.")
    try:
        return papermill.inspect_notebook(str(notebook))
    except ValueError as error:
        raise StudyError(f"{_short(notebook)}: {error} Save it with the Python 3 kernel.") from error


def run_notebook(
    notebook: Path,
    parameters: Mapping[str, Any],
    page: Path,
    runs: Path,
    title: str,
    origin: str,
    online: bool = False,
) -> None:
    """Execute `notebook` in a kernel of this environment and write its page.

    The executed notebook goes to `runs`, named like the page; `origin` stands in the page's footer. Nothing
    is fetched from the hub but where it is `online`.
    Raises StudyError for an unknown parameter, a failing cell (with its exception and the place of the
    partial notebook) and a kernel that dies. What was computed until then is kept.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    known = declared_parameters(notebook)
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        names = f"{', '.join(unknown)}; known: {', '.join(known)}."
        raise StudyError(f"{_short(notebook)}: no such parameter: {names}")
    executed = runs / f"{page.stem}.ipynb"
    for folder in (page.parent, runs):
        folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(study_environment(online), IPYTHONDIR=str(runs / "ipython"))
    os.environ.pop("MPLBACKEND", None)  # the kernel's own choice is inline
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        notebook_run = papermill.execute_notebook(
            str(notebook),
            str(executed),
            parameters=dict(parameters),
            kernel_name="python3",
            cwd=str(project_root()),
            progress_bar=sys.stderr.isatty(),
            # What cells write to stderr, progress bars above all, is for the person who waits.
            stderr_file=sys.stderr,
            # Files instead of TCP ports: nobody else on the machine can reach the kernel.
            config=Config({"KernelManager": {"transport": "ipc"}}),
            extra_arguments=["--log-level=50"],  # a kernel that is stopped complains in tracebacks
        )
    except papermill.PapermillExecutionError as error:
        message = " ".join(str(error.evalue).split())
        cause = message if error.ename == "StudyError" else f"{error.ename}: {message}"
        raise StudyError(
            f"{_short(notebook)} stopped: {cause[:600].rstrip('.')} "
            f"(all up to the failing cell: {_short(executed)})."
        ) from error
    except DeadKernelError as error:
        raise StudyError(
            f"{_short(notebook)} stopped: its kernel died, perhaps for lack of memory (all up to there: "
            f"{_short(executed)})."
        ) from error
    finally:
        _end_descendants()
    write_page(notebook_run, page, title, origin)


def _short(path: Path) -> Path:
    root = project_root()
    return path.relative_to(root) if path.is_relative_to(root) else path


def _end_descendants() -> None:
    """End what a stopped kernel left behind: SIGTERM and a grace time, since a trainer saves its state."""
    left = psutil.Process().children(recursive=True)
    for process in left:
        process.terminate()
    for process in psutil.wait_procs(left, timeout=GRACE_SECONDS)[1]:
        process.kill()


def write_page(notebook: nbformat.NotebookNode, page: Path, title: str, origin: str) -> None:
    """Write an executed notebook as offline HTML. Equal content gives equal bytes."""
    from nbconvert.exporters import HTMLExporter

    exporter = HTMLExporter(
        template_name="study",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        embed_images=True,
    )
    body, _ = exporter.from_notebook_node(normalise(notebook, title, origin))
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(body)


def normalise(notebook: nbformat.NotebookNode, title: str, origin: str) -> nbformat.NotebookNode:
    """A copy without all that differs from run to run: ids, times, counts, logs and live widgets."""
    copy = nbformat.from_dict(
        {"nbformat": 4, "nbformat_minor": 5, "metadata": {"title": title, "origin": origin}, "cells": []}
    )
    for index, cell in enumerate(notebook.cells):
        kept: dict[str, Any] = {
            "id": f"cell-{index:03d}",
            "cell_type": cell.cell_type,
            "source": mathml(cell.source) if cell.cell_type == "markdown" else cell.source,
            "metadata": {"tags": list(cell.metadata.get("tags", []))},
        }
        if cell.cell_type == "code":
            outputs = [_plain(output) for output in cell.outputs if _is_content(output)]
            kept |= {"execution_count": None, "outputs": outputs}
        copy.cells.append(nbformat.from_dict(kept))
    return copy


def _is_content(output: nbformat.NotebookNode) -> bool:
    if output.output_type == "stream":
        return output.name == "stdout"
    return "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


def _plain(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    plain = nbformat.from_dict(dict(output))
    if "execution_count" in plain:
        plain["execution_count"] = None
    return plain


_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
_DISPLAYED = r"(?<![\\$])\$\$(.+?)\$\$"
_INLINE = r"(?<![\\$])\$(?![\s$])([^$\n]+?)(?<![\s\\])\$(?!\d)"  # "$5 and $6" is money, not a formula
_FORMULA = re.compile(f"{_DISPLAYED}|{_INLINE}", re.DOTALL)


def mathml(markdown: str) -> str:
    """`$...$` and `$$...$$` outside code as MathML, which browsers show without a script."""
    from latex2mathml.converter import convert

    def replace(match: re.Match[str]) -> str:
        if match[1]:
            return convert(match[1].strip(), display="block")
        return convert(match[2])

    parts = _CODE.split(markdown)
    return "".join(part if _CODE.fullmatch(part) else _FORMULA.sub(replace, part) for part in parts)


def write_index(ws: Workspace) -> Path:
    """Write `reports/index.html`: a card per page with its finding, and how to run it all again.

    Raises StudyError for a page that is missing or states no finding.
    """
    study = params.load(project_root() / "params.yaml")
    cards = []
    for name, stage in STAGES.items():
        for segment in study.segments if "segment" in stage.sections else (None,):
            target = f"{name}@{segment}" if segment else name
            page = ws.require(ws.reports / f"{stage.page(segment)}.html", target)
            cards.append(_card(page, stage.notebook, target))
    versions = ", ".join(f"{name} {number}" for name, number in library_versions().items())
    facts = {
        "cards": "\n".join(cards),
        "profile": html.escape(study.profile),
        "seed": str(study.seed),
        "params": digest(project_root() / "params.yaml")[:12],
        "versions": html.escape(versions),
        "where": _where(ws.results / "gpu_check.json"),
    }
    text = (TEMPLATES / "study" / "index_page.html").read_text()
    for key, value in facts.items():
        text = text.replace(f"@{key}@", value)
    index = ws.reports / "index.html"
    index.write_text(text)
    return index


def _where(gpu_check: Path) -> str:
    """Rows of the table that says what has been run where."""
    found = json.loads(gpu_check.read_text()).get("machine", {}) if gpu_check.is_file() else {}
    card = found.get("card", "none")
    on_card = "nowhere yet: a tiny model on a CPU, in tests" if card == "none" else card
    rows = YAML(typ="safe").load((TEMPLATES / "study" / "run_where.yaml").read_text())
    return "\n".join(
        f"<tr><td>{html.escape(row['what'])}</td><td>{html.escape(row['where'].format(card=on_card))}</td>"
        f"<td><code>{html.escape(row['how'])}</code></td></tr>"
        for row in rows
    )


def _card(page: Path, notebook: str, target: str) -> str:
    text = page.read_text()
    found = re.findall(r'<p class="finding">(.*?)</p>', text, re.DOTALL)
    title = re.search(r"<title>(.*?)</title>", text, re.DOTALL)
    if not found or title is None:
        raise StudyError(
            f"{page.name} states no finding; call `finding` in notebooks/{notebook} and run "
            f"`dvc repro {target}`."
        )
    sentences = "".join(f"<p>{sentence}</p>" for sentence in found)
    return (
        f'<article><h2><a href="{page.name}">{title[1].strip()}</a></h2>{sentences}'
        f'<p class="origin">notebooks/{notebook} · <code>dvc repro {target}</code></p></article>'
    )
