"""The long experiments by name, as `prorl-study evidence NAME` does them: a run, or a base to start from.

Left out: what a run does (`runs`), which there are (`experiments`), and in which order, which
`evidence/dvc.yaml` and `make evidence` know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prorl_study import base_model, experiments, launcher, params, progress
from prorl_study.errors import StudyError
from prorl_study.files import digests, write_json
from prorl_study.paths import Workspace
from prorl_study.provenance import run_card
from prorl_study.runs import fingerprint, plan_digest, prepare
from prorl_study.sampling import Sampler
from prorl_study.segments import ROLLOUTS


def start(name: str, root: Path) -> Path:
    """Do the run `name` of `evidence/params.yaml` in a process of its own; returns the path of its row.

    Leaves a run card beside the rows. A row that is there already, of the same plan, is left as it is. Raises
    StudyError for an unknown run, a missing base, or a run that another one has to come before.
    """
    ws, study = Workspace(root), params.load(root / "params.yaml")
    plans, bases = experiments.load_plan(root / "evidence" / "params.yaml", study)
    if name not in plans:
        raise StudyError(
            f"no such run: {name}; evidence/params.yaml lists {len(plans)}, like {next(iter(plans))}."
        )
    plan, results = plans[name], ws.results / "evidence"
    if plan.times_of:
        plan = experiments.at_times_of(plan, _row(results, plan.times_of))
    base, out = base_folder(ws, plan.base, bases), results / "runs" / f"{name}.json"
    if out.is_file() and _row(results, name)["plan_sha256"] == plan_digest(plan, ws.problems, base):
        return out
    how = study.evaluation
    sampler = Sampler(how.eval_temperature, how.top_p, how.max_tokens, how.batch_tokens)
    learned_from = {}
    if plan.teacher:
        _row(results, plan.teacher)
        teacher = plans[plan.teacher]
        folder = ws.work / "evidence" / fingerprint(teacher, ws.problems, base, sampler, study.engine)
        learned_from = {
            "teacher": str(results / "runs" / f"{plan.teacher}.json"),
            "rollouts": [str(folder / segment.segment / ROLLOUTS) for segment in teacher.segments],
        }
    others = {**learned_from, "engine": study.engine}
    config = prepare(plan, base, out, ws, sampler, study.verification.isolation, **others)
    shown = {"reward": "reward", "kl": "KL", "entropy": "entropy"}
    with run_card(name, results, root / "params.yaml"):
        bar = progress.ChainProgress(config.logs(), config.budget(), name, shown)
        launcher.run_module("prorl_study.runs", [config.file()], Path(config.work) / "run.log", bar)
        bar.close()
    list_rows(results)
    return out


def list_rows(results: Path) -> None:
    """Write `rows.json` beside the rows: the digest of each. The study's stages depend on this file, since
    depending on the rows would make DVC do all the runs that are still to come."""
    write_json(digests(results / "runs", ["*.json"]), results / "rows.json")


def make_base(name: str, root: Path) -> Path:
    """Make the base `name` of `evidence/params.yaml`; returns the model's folder. Goes on after a kill.

    Raises StudyError for a base that is not made here, or for a change of `base_model` that is none.
    """
    ws, study = Workspace(root), params.load(root / "params.yaml")
    _, bases = experiments.load_plan(root / "evidence" / "params.yaml", study)
    changes = dict(bases.get(name, {"model": ""}))
    if "model" in changes:
        made = ", ".join(base for base, body in bases.items() if "model" not in body)
        raise StudyError(f"{name} is no base that is made here; evidence/params.yaml makes {made}.")
    seed, where = changes.pop("seed", study.seed), f"evidence/params.yaml, bases.{name}"
    wanted = params.build(params.BaseModelParams, asdict(study.base_model) | changes, where)
    out, work = ws.model(f"evidence/{name}"), ws.work / base_model.fingerprint(wanted, seed)
    base_model.write_config(work / "config.json", work, out, wanted, seed)
    bar = progress.LogProgress(work / "log.jsonl", wanted.sft_steps, name, {"loss": "loss"})
    launcher.run_module("prorl_study.base_model", [str(work / "config.json")], work / "train.log", bar)
    bar.close()
    return out


def base_folder(ws: Workspace, name: str, bases: Mapping[str, Mapping[str, Any]]) -> Path:
    """Where the model of the base `name` lies. Raises StudyError, with the command that makes it, where it is
    missing."""
    if model := bases[name].get("model"):
        return ws.require(ws.model(model), "base_model" if model == "base" else f"train@{model}")
    return ws.require(ws.model(f"evidence/{name}"), f"evidence/dvc.yaml:bases@{name}")


def _row(results: Path, name: str) -> dict[str, Any]:
    path = results / "runs" / f"{name}.json"
    if not path.is_file():
        raise StudyError(f"{path} is missing; do that run first: `prorl-study evidence {name}`.")
    return json.loads(path.read_text())
