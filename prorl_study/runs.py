"""One run of the long experiments, from its base to a row of results: train, judge each segment's end, write.

A run trains its segments one after the other with `segments.train_segment` and samples the first test
problems of each domain with the model at every segment's end, so that arms can be compared at equal tokens
and at equal operations. All of it goes on after a kill; what differs from run to run (time, host) is kept
apart. Run as a module: `python -m prorl_study.runs CONFIG.json`. Left out: which runs there are
(`experiments`), and what their rows say together.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from prorl_study.errors import StudyError
from prorl_study.experiments import RunPlan
from prorl_study.files import VERDICT_CODE, code_digests, digests, read_log, write_json
from prorl_study.params import SegmentParams, TrainParams, build
from prorl_study.segments import DETERMINING, SegmentConfig, read_state, train_segment

CODE = (*VERDICT_CODE, *DETERMINING, "compute.py", "runs.py")
"""Code that a run's row depends on."""


@dataclass(frozen=True)
class RunConfig:
    """All that a run's subprocess needs, as plain paths and values."""

    plan: RunPlan
    problems: str
    """Folder with the problem parquet files."""
    start: str
    """Folder of the base."""
    out: str
    """The row of results, a JSON file."""
    work: str
    eval_temperature: float
    top_p: float
    max_tokens: int
    batch_tokens: int
    isolation: str
    workers: int
    threads: int
    """Of the training process: two runs of one thread beside each other do more than one of two."""
    claims_sha256: str
    """What was fixed before the run; it goes into the row."""

    def write(self, path: Path) -> None:
        write_json(asdict(self), path)

    @classmethod
    def read(cls, path: Path) -> RunConfig:
        raw = json.loads(path.read_text())
        plan = raw.pop("plan")
        plan["train"] = build(TrainParams, plan["train"], str(path))
        plan["segments"] = [build(SegmentParams, segment, str(path)) for segment in plan["segments"]]
        return cls(plan=RunPlan(**plan), **raw)


def fingerprint(plan: RunPlan, problems: Path, start: Path) -> str:
    """Sixteen hex digits that change with everything that a run's row depends on, its name apart."""
    content = {k: v for k, v in asdict(plan).items() if k not in ("name", "experiment", "arm", "factors")}
    content |= {
        "problems": digests(problems, ["*.parquet"]),
        "start": digests(start),
        "code": code_digests(*CODE),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def run(config: RunConfig) -> dict[str, Any]:
    """Do the run and write its row; returns the row. Raises what `train_segment` raises.

    The models of finished segments stay in the work folder until the row is written.
    """
    import torch

    torch.set_num_threads(config.threads)
    plan, work = config.plan, Path(config.work)
    previous, ends, log, checks = Path(config.start), [], [], []
    for segment in plan.segments:
        folder, model = work / segment.segment, work / "models" / segment.segment
        if not read_state(model):
            train_segment(
                SegmentConfig(
                    train=plan.train,
                    segment=segment,
                    seed=plan.seed,
                    problems=config.problems,
                    previous=str(previous),
                    out=str(model),
                    work=str(folder),
                    eval_temperature=config.eval_temperature,
                    top_p=config.top_p,
                    batch_tokens=config.batch_tokens,
                    isolation=config.isolation,
                    workers=config.workers,
                )
            )
        log += read_log(folder / "log.jsonl")
        checks += read_log(folder / "checks.jsonl")
        ends.append(_end(config, segment.segment, model, work))
        previous = model
    row = summarise(
        config, _before_training(config), ends, pd.DataFrame(log), pd.DataFrame(checks), read_state(previous)
    )
    write_json(row, Path(config.out))
    shutil.rmtree(work / "models")
    for segment in plan.segments:
        shutil.rmtree(work / segment.segment / "checkpoints", ignore_errors=True)
    return row


def _before_training(config: RunConfig) -> dict[str, Any]:
    """What the model solves that the run starts from; runs of the same seed on the same base share it."""
    key = hashlib.sha256(
        json.dumps(
            [
                digests(Path(config.start)),
                digests(Path(config.problems), ["test.parquet"]),
                code_digests(*VERDICT_CODE, "sampling.py", "rollout.py"),
                [config.eval_temperature, config.top_p, config.max_tokens, config.batch_tokens],
                [config.plan.seed, config.plan.test_problems, config.plan.test_samples],
            ]
        ).encode()
    ).hexdigest()[:16]
    path = Path(config.work).parent / f"start-{key}.json"
    if not path.is_file():
        write_json(judge_model(config, Path(config.start)), path)
    return json.loads(path.read_text())


def _end(config: RunConfig, segment: str, model: Path, work: Path) -> dict[str, Any]:
    """What the model at a segment's end solves, kept in the work folder once it is known."""
    from prorl_study.compute import training_flops, weights

    path = work / segment / "end.json"
    if not path.is_file():
        tokens = read_state(model)["trainer"]["tokens"]
        flops = training_flops(tokens, weights(model), config.plan.train.kl_beta > 0)
        place = {"segment": segment, "tokens": tokens["sampled"], "flops": flops}
        write_json(place | judge_model(config, model), path)
    return json.loads(path.read_text())


def judge_model(config: RunConfig, model: Path) -> dict[str, Any]:
    """Counts per test problem, and the means over domains of the share solved (strict, graded, lenient)."""
    from prorl_study import sampling
    from prorl_study.evaluation import judge
    from prorl_study.problems import load_problems
    from prorl_study.verification.pool import VerificationPool

    taken: dict[str, list[Any]] = {}
    for problem in load_problems(Path(config.problems), "test"):
        taken.setdefault(problem.domain, []).append(problem)
    problems = [p for part in taken.values() for p in part[: config.plan.test_problems]]
    sampler = sampling.Sampler(config.eval_temperature, config.top_p, config.max_tokens, config.batch_tokens)
    samples = sampling.sample(
        *sampling.load(model), problems, config.plan.test_samples, sampler, config.plan.seed
    )
    with VerificationPool(workers=config.workers, isolation=config.isolation) as pool:
        rows = judge(problems, samples, pool)
    by_problem = rows.groupby("problem", sort=False)[["solved", "lenient_solved"]].sum()
    by_domain = rows.groupby("domain")[["solved", "score", "lenient_solved", "truncated"]].mean()
    return {
        "strict": by_domain.solved.round(6).to_dict(),
        "graded": by_domain.score.round(6).to_dict(),
        "lenient": by_domain.lenient_solved.round(6).to_dict(),
        "truncated": by_domain.truncated.round(6).to_dict(),
        "samples": config.plan.test_samples,
        "problems": [p.id for p in problems],
        "solved": by_problem.solved.tolist(),
        "lenient_solved": by_problem.lenient_solved.tolist(),
    }


TENTH = 10
"""The end of a run is its last tenth of steps."""


def summarise(
    config: RunConfig,
    start: dict[str, Any],
    ends: Sequence[dict[str, Any]],
    log: pd.DataFrame,
    checks: pd.DataFrame,
    state: dict[str, Any],
) -> dict[str, Any]:
    """The row of results, JSON-plain. `log` has one record per rollout step, `checks` one per validation."""
    plan, last = config.plan, log.iloc[-max(1, len(log) // TENTH) :]
    figures = ("reward", "entropy", "kl", "kl_share", "kept_fraction", "step_size", "truncated")
    return {
        "name": plan.name,
        "experiment": plan.experiment,
        "arm": plan.arm,
        "base": plan.base,
        "seed": plan.seed,
        "factors": plan.factors,
        "budget": sum(segment.tokens for segment in plan.segments),
        "steps": len(log),
        "tokens_sampled": ends[-1]["tokens"],
        "tokens_prompt": int(log.tokens_prompt.iloc[-1]),
        "tokens_trained": int(log.tokens_trained.iloc[-1]),
        "flops": ends[-1]["flops"],
        "start": {name: start[name] for name in ("strict", "graded", "lenient", "solved")},
        "ends": list(ends),
        "last": {
            name: round(float(last[name].mean()), 6)
            for name in figures
            if name in last and last[name].notna().any()
        },
        "curve": {
            "tokens": checks.tokens.tolist(),
            "validation": checks.validation.round(6).tolist(),
        },
        "entropy_curve": {
            "tokens": log.tokens_sampled.tolist(),
            "entropy": log.entropy.round(5).tolist(),
        },
        "boundaries": state["boundaries"],
        "firings": state["firings"],
        "claims_sha256": config.claims_sha256,
        "code_sha256": hashlib.sha256(json.dumps(code_digests(*CODE)).encode()).hexdigest(),
    }


def start(name: str, root: Path) -> Path:
    """Do the run `name` of `evidence/params.yaml` in a process of its own; returns the path of its row.

    Leaves a run card beside the rows. Raises StudyError for an unknown run or a missing base.
    """
    from prorl_study import experiments, launcher, params, progress
    from prorl_study.paths import Workspace
    from prorl_study.provenance import claims_hash, run_card

    ws, study = Workspace(root), params.load(root / "params.yaml")
    plans, bases = experiments.load_plan(root / "evidence" / "params.yaml", study)
    if name not in plans:
        raise StudyError(
            f"no such run: {name}; evidence/params.yaml lists {len(plans)}, like {next(iter(plans))}."
        )
    plan, results = plans[name], ws.results / "evidence"
    base = ws.require(root / bases[plan.base], "base_model")
    work = ws.work / "evidence" / fingerprint(plan, ws.problems, base)
    config = RunConfig(
        plan=plan,
        problems=str(ws.problems),
        start=str(base),
        out=str(results / "runs" / f"{name}.json"),
        work=str(work),
        eval_temperature=study.evaluation.eval_temperature,
        top_p=study.evaluation.top_p,
        max_tokens=study.evaluation.max_tokens,
        batch_tokens=study.evaluation.batch_tokens,
        isolation=study.verification.isolation,
        workers=1,
        threads=1,
        claims_sha256=claims_hash(root / "params.yaml"),
    )
    config.write(work / "config.json")
    shown = {"reward": "reward", "kl": "KL", "entropy": "entropy"}
    with run_card(name, results, root / "params.yaml"):
        bar = progress.ChainProgress(
            [work / segment.segment / "log.jsonl" for segment in plan.segments],
            sum(segment.tokens for segment in plan.segments),
            name,
            shown,
        )
        launcher.run_module("prorl_study.runs", [str(work / "config.json")], work / "run.log", bar)
        bar.close()
    return Path(config.out)


def main(arguments: Sequence[str]) -> None:
    """Entry point of the run's subprocess; its one argument is the path of a config file."""
    run(RunConfig.read(Path(arguments[0])))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except StudyError as error:
        sys.exit(str(error))
