"""What every notebook in `notebooks/` keeps to; none of them is run here."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from prorl_study import params
from prorl_study.stages import STAGES, stage_values

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONGEST_CELL = 24
"""Lines of a code cell, without its imports."""


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def parameters_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]


def test_every_stage_has_its_notebook_and_every_notebook_its_stage() -> None:
    files = [file for stage in STAGES.values() for file in (stage.notebook, stage.elsewhere) if file]
    assert [path.name for path in NOTEBOOKS] == sorted(files)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_is_valid_and_runs_on_the_environments_kernel(self, path: Path) -> None:
        notebook = read(path)
        nbformat.validate(notebook)
        assert notebook.metadata.kernelspec.name == "python3"
        # papermill by hand needs the language
        assert notebook.metadata.kernelspec.language == "python"

    def test_is_committed_without_outputs(self, path: Path) -> None:
        assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(path))

    def test_has_unique_ids_that_no_editor_made_up(self, path: Path) -> None:
        ids = [cell.id for cell in read(path).cells]
        assert len(set(ids)) == len(ids)
        assert not [name for name in ids if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", name)]

    def test_starts_with_a_heading_and_states_a_finding(self, path: Path) -> None:
        assert read(path).cells[0].source.startswith("# ")
        assert any(re.search(r"\bfinding\(", cell.source) for cell in code_cells(path))

    def test_has_one_parameters_cell_of_typed_and_explained_literals(self, path: Path) -> None:
        (cell,) = parameters_cells(path)
        for line, node in zip(cell.source.splitlines(), ast.parse(cell.source).body, strict=True):
            assert isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name), line
            assert node.value is not None
            ast.literal_eval(node.value)
            assert re.search(r"  # \S.+", line), f"{line}: say what it is after two blanks and a #"

    def test_takes_only_parameters_that_its_stage_provides(self, path: Path) -> None:
        (name,) = [n for n, stage in STAGES.items() if path.name in (stage.notebook, stage.elsewhere)]
        segment = "s1" if "segment" in STAGES[name].sections else None
        offered = stage_values(name, params.load(ROOT / "params.yaml"), segment)
        (cell,) = parameters_cells(path)
        declared = {node.target.id for node in ast.parse(cell.source).body}
        assert declared - {"workspace"} <= set(offered)

    def test_writes_to_a_scratch_folder_unless_told_otherwise(self, path: Path) -> None:
        (cell,) = parameters_cells(path)
        values = {node.target.id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}
        assert values["workspace"] == ".scratch"
        assert "/.scratch/" in (ROOT / ".gitignore").read_text().splitlines()

    def test_leaves_the_work_to_the_package(self, path: Path) -> None:
        for cell in code_cells(path):
            tree = ast.parse(cell.source)  # also refuses magics and shell lines
            defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.While)
            assert not [node for node in ast.walk(tree) if isinstance(node, defined)], cell.id
            imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
            lines = len(cell.source.splitlines()) - sum(n.end_lineno - n.lineno + 1 for n in imports)
            assert cell in parameters_cells(path) or lines <= LONGEST_CELL, f"cell {cell.id}: {lines} lines"
