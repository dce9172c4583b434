"""Every path of the study, from one root.

The pipeline's root is the project folder. A notebook that somebody opens by hand gets a scratch
folder instead, so that exploring never touches the study's own results. Nothing here reads a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prorl_study.errors import StudyError


def project_root() -> Path:
    """The folder with `params.yaml` and `dvc.yaml`, looked for upwards from the working folder.

    Raises StudyError where there is none, since everything that the study reads lies under it.
    """
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
            return folder
    raise StudyError(f"no params.yaml and dvc.yaml in {here} or above; run from inside the project's folder.")


@dataclass(frozen=True)
class Workspace:
    """Where one run of the stages reads and writes. `root` is the project, or a scratch folder."""

    root: Path

    @classmethod
    def open(cls, name: str = ".") -> Workspace:
        """`name` is relative to the project's root; `"."` is the project itself."""
        return cls((project_root() / name).resolve())

    @property
    def is_scratch(self) -> bool:
        return self.root != project_root()

    @property
    def snapshot(self) -> Path:
        """The raw problems that `data.dvc` tracks: one for all workspaces, since nothing writes there."""
        return project_root() / "data"

    @property
    def problems(self) -> Path:
        return self.root / "artifacts" / "problems"

    @property
    def samples(self) -> Path:
        return self.root / "artifacts" / "samples"

    def model(self, name: str) -> Path:
        return self.root / "models" / name

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def work(self) -> Path:
        """State that a killed stage resumes from; ignored by git and DVC."""
        return self.root / ".work"

    @property
    def runs(self) -> Path:
        """Executed notebooks; ignored by git and DVC."""
        return self.root / ".runs"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    def require(self, path: Path, stage: str) -> Path:
        """`path` if it exists; else StudyError naming the file and the stage that makes it."""
        if not path.exists():
            where = path.relative_to(self.root) if path.is_relative_to(self.root) else path
            raise StudyError(f"{where} is missing; make it with `dvc repro {stage}`.")
        return path
