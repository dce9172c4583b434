"""The stages of the study as data: each one's notebook, its parameters and what it makes.

A stage's notebook declares the parameters that it wants; the stage lists the sections of `params.yaml`
that may provide them. `dvc.yaml` holds the same stages with their files. Nothing here runs anything.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from prorl_study.errors import StudyError
from prorl_study.params import OriginParams, Params


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline."""

    notebook: str
    """File name in `notebooks/`."""
    sections: tuple[str, ...]
    """Sections of params.yaml that provide its notebook's parameters."""
    product: str
    """A path in the workspace that exists once the stage has run; `{segment}` is the segment's name."""
    elsewhere: str = ""
    """The notebook that runs instead where what the stage makes comes from elsewhere."""
    when: str = ""
    """Key of section `origin` that says so by not being empty."""

    def notebook_for(self, origin: OriginParams) -> str:
        """File name in `notebooks/` of what runs."""
        return self.elsewhere if self.when and getattr(origin, self.when) else self.notebook

    def page(self, segment: str | None = None) -> str:
        """File name in `reports/`, without ending."""
        return self.notebook.removesuffix(".ipynb") + (f"_{segment}" if segment else "")


STAGES: dict[str, Stage] = {
    "paper": Stage("05_paper.ipynb", (), "results/paper.json"),
    "data": Stage(
        "10_data.ipynb",
        ("data", "origin", "evaluation", "verification"),
        "artifacts/problems",
        elsewhere="11_data_card.ipynb",
        when="training_sets",
    ),
    "base_model": Stage(
        "20_base_model.ipynb",
        ("base_model", "origin", "engine", "evaluation", "verification"),
        "models/base",
        elsewhere="21_given_base.ipynb",
        when="base",
    ),
    "train": Stage(
        "30_prolonged_training.ipynb",
        ("train", "segment", "engine", "evaluation", "verification"),
        "models/{segment}",
    ),
    "arms": Stage(
        "35_arms.ipynb",
        ("train", "chain", "arms", "engine", "evaluation", "verification"),
        "results/arms",
    ),
    "ablations": Stage("40_ablations.ipynb", ("evaluation",), "results/ablations.json"),
    "benchmarks": Stage(
        "50_benchmarks.ipynb", ("evaluation", "engine", "segments", "verification"), "results/benchmarks.json"
    ),
    "boundary": Stage(
        "52_boundary.ipynb",
        ("evaluation", "boundary", "engine", "segments", "verification"),
        "results/boundary.json",
    ),
    "power": Stage("55_power.ipynb", ("power", "segments", "claims"), "results/power.json"),
    "claims": Stage("60_claims.ipynb", ("segments", "claims"), "results/claims.json"),
    "samples": Stage("70_samples.ipynb", ("audit", "evaluation", "segments"), "results/audit.json"),
}
"""In the order in which they run. `train` runs once per segment; `segment` is that one's parameters."""


def find_stage(name: str) -> Stage:
    """The stage of that name. Raises StudyError with the known names."""
    if name not in STAGES:
        raise StudyError(f"no such stage: {name}; known: {', '.join(STAGES)}.")
    return STAGES[name]


def stage_values(stage: str, params: Params, segment: str | None) -> dict[str, Any]:
    """All values that `params.yaml` offers to a stage's notebook, by their flat names.

    Raises StudyError where the stage needs a segment and gets none or an unknown one, or gets one
    without having segments.
    """
    found = find_stage(stage)
    if ("segment" in found.sections) != (segment is not None):
        need = "needs --segment with one of" if segment is None else "has no segments; these belong to train:"
        raise StudyError(f"stage {stage} {need} {', '.join(params.segments)}.")
    if segment is not None and segment not in params.segments:
        raise StudyError(f"no such segment: {segment}; params.yaml lists {', '.join(params.segments)}.")
    values: dict[str, Any] = {"seed": params.seed}
    for section in found.sections:
        if section == "segment":
            values |= asdict(params.segments[str(segment)])
        elif section == "segments":
            values["segments"] = list(params.segments)
        elif section == "chain":
            values["chain"] = [asdict(segment) for segment in params.segments.values()]
        elif section == "claims":
            values["claim_tests"] = {
                name: {key: value for key, value in asdict(claim).items() if key != "claim"}
                for name, claim in params.claims.items()
            }
        else:
            values |= asdict(getattr(params, section))
    return values


def choose_parameters(notebook: str, declared: Collection[str], offered: dict[str, Any]) -> dict[str, Any]:
    """The offered values that the notebook declares.

    Raises StudyError for a declared parameter that nothing offers.
    """
    orphans = sorted(set(declared) - set(offered))
    if orphans:
        raise StudyError(
            f"{notebook} declares {', '.join(orphans)}, which no section of its stage in params.yaml "
            "provides; add it there, or take it out of the parameters cell."
        )
    return {name: offered[name] for name in declared}
