"""One run of the long experiments, from its base to a row of results: train, judge each segment's end, write.

A run trains its segments one after the other with `segments.train_segment` and samples the first problems of
each domain, of the split that its plan names, with the model at every segment's end, so that arms can be
compared at equal tokens and at equal operations. All of it goes on after a kill; what differs from run to run
(time, host) is kept apart. Run as a module: `python -m prorl_study.runs CONFIG.json`. Left out: which runs
there are (`experiments`), how one is started by its name (`run_targets`), and what their rows say together.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from prorl_study import launcher
from prorl_study.checkpoints import read_state
from prorl_study.errors import StudyError
from prorl_study.experiments import RunPlan
from prorl_study.files import VERDICT_CODE, code_digests, digest, digests, read_log, write_json
from prorl_study.params import PLAIN_ENGINE, EngineParams, SegmentParams, TrainParams, build
from prorl_study.paths import Workspace, project_root
from prorl_study.segments import DETERMINING, SegmentConfig, train_segment

if TYPE_CHECKING:
    from prorl_study.sampling import Sampler

CODE = (*VERDICT_CODE, *DETERMINING)
"""Code that a run's models and verdicts depend on."""


@dataclass(frozen=True)
class RunConfig:
    """All that a run's subprocess needs, as plain paths and values."""

    plan: RunPlan
    problems: str
    """Folder with the problem parquet files."""
    start: str
    """Folder of the model that it starts from."""
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
    trained: dict[str, list[str]] = field(default_factory=dict)
    """Segments that are trained already: the folder of the model, the tables of its log and its checks."""
    teacher: str = ""
    """Row of the run that a supervised arm learns from, and may spend as much as; a JSON file."""
    rollouts: list[str] = field(default_factory=list)
    """What that run had solved, a file per segment."""
    engine: EngineParams = field(default_factory=EngineParams)

    def write(self, path: Path) -> None:
        write_json(asdict(self), path)

    def file(self) -> str:
        """Where `prepare` writes it: the argument of the run's process."""
        return str(Path(self.work) / "config.json")

    def logs(self) -> list[Path]:
        return [Path(self.work) / segment.segment / "log.jsonl" for segment in self.plan.segments]

    def budget(self) -> int:
        return sum(segment.tokens for segment in self.plan.segments)

    @classmethod
    def read(cls, path: Path) -> RunConfig:
        raw = json.loads(path.read_text())
        plan = raw.pop("plan")
        plan["train"] = build(TrainParams, plan["train"], str(path))
        plan["segments"] = [build(SegmentParams, segment, str(path)) for segment in plan["segments"]]
        engine = build(EngineParams, raw.pop("engine", {}), str(path))
        return cls(plan=RunPlan(**plan), engine=engine, **raw)


NAMES = ("name", "experiment", "arm", "factors", "base")
"""What a plan calls things, which changes no result."""


def plan_digest(plan: RunPlan, problems: Path, start: Path) -> str:
    """Sixteen hex digits that change with the plan, its names apart, the problems and the start. The code and
    how answers are drawn are not in it: a row that is there is not made anew for a moved comment, but says
    which code made it."""
    content = {k: v for k, v in asdict(plan).items() if k not in (*NAMES, "turn", "times_of")}
    if plan.judged_on == "test":
        del content["judged_on"]  # as before there was a choice, so that no run of then is done again
    content |= {"problems": digests(problems, ["*.parquet"]), "start": digests(start)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def fingerprint(
    plan: RunPlan,
    problems: Path,
    start: Path,
    sampler: Sampler,
    engine: EngineParams,
    learned_from: Sequence[Path] = (),
) -> str:
    """Sixteen hex digits that change with everything that a run's row depends on, the code included, how its
    models are checked and judged, and what a supervised arm learns from."""
    code = CODE if plan.learner == "grpo" else (*CODE, "compute.py", "supervised.py")
    content = [plan_digest(plan, problems, start), code_digests(*code), asdict(sampler)]
    content += [engine.rollout_engine, engine.importance_sampling, engine.evaluation_engine]
    content += [digest(path) for path in learned_from if path.is_file()]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def run(config: RunConfig) -> dict[str, Any]:
    """Do the run and write its row; returns the row. Raises what `train_segment` raises.

    The models of finished segments stay in the work folder until the row is written; the row stays there, so
    that a run that only goes by another name is not done again.
    """
    import torch

    torch.set_num_threads(config.threads)
    plan, work = config.plan, Path(config.work)
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (work / "row.json").is_file():
            write_json(_train_and_judge(config), work / "row.json")
            shutil.rmtree(work / "models", ignore_errors=True)
            for segment in plan.segments:
                shutil.rmtree(work / segment.segment / "checkpoints", ignore_errors=True)
        row = json.loads((work / "row.json").read_text()) | {name: getattr(plan, name) for name in NAMES}
    write_json(row, Path(config.out))
    return row


def _train_and_judge(config: RunConfig) -> dict[str, Any]:
    """All segments one after the other, and the row."""
    plan, work, previous = config.plan, Path(config.work), Path(config.start)
    ends, log, checks, firings = [], [], [], []
    for segment in plan.segments:
        folder, model = work / segment.segment, work / "models" / segment.segment
        if segment.segment in config.trained:
            model, *tables = map(Path, config.trained[segment.segment])
            log, checks = (
                records + pd.read_csv(table).to_dict("records")
                for records, table in zip((log, checks), tables, strict=True)
            )
        else:
            if not read_state(model) and plan.learner == "grpo":
                _train(_segment_config(config, segment, previous, model, folder))
            elif not read_state(model):
                _train_supervised(config, len(ends) + 1)
            log += read_log(folder / "log.jsonl")
            checks += read_log(folder / "checks.jsonl")
        ends.append(_end(config, segment.segment, model, work))
        firings += read_state(model)["firings"]
        previous = model
    state = {"boundaries": read_state(previous)["boundaries"], "firings": firings}
    return summarise(config, _before_training(config), ends, pd.DataFrame(log), pd.DataFrame(checks), state)


def _train(config: SegmentConfig) -> None:
    """Train a segment here, or where the engine has launchers or cards to fill in processes of its own, which
    give back all memory before the model is judged."""
    if config.engine == PLAIN_ENGINE:
        train_segment(config)
        return
    path = Path(config.work) / "config.json"
    config.write(path)
    start = launcher.starting(config.engine.launcher)
    launcher.run_module("prorl_study.segments", [str(path)], path.with_name("train.log"), launcher=start)


def _train_supervised(config: RunConfig, number: int) -> None:
    """Train part `number`, from 1, of a supervised arm: a model at the end of each part, as of a segment."""
    from prorl_study.supervised import Control, train_part
    from prorl_study.verification.pool import VerificationPool

    plan = config.plan
    control = Control(
        learner=plan.learner,
        train=plan.train,
        seed=plan.seed,
        problems=Path(config.problems),
        start=Path(config.start),
        work=Path(config.work),
        parts=len(plan.segments),
        teacher=json.loads(Path(config.teacher).read_text()),
        rollouts=[Path(path) for path in config.rollouts],
    )
    with VerificationPool(workers=config.workers, isolation=config.isolation) as pool:
        train_part(control, number, pool)


def _segment_config(
    config: RunConfig, segment: SegmentParams, previous: Path, model: Path, folder: Path
) -> SegmentConfig:
    return SegmentConfig(
        train=config.plan.train,
        segment=segment,
        seed=config.plan.seed,
        problems=config.problems,
        previous=str(previous),
        out=str(model),
        work=str(folder),
        eval_temperature=config.eval_temperature,
        top_p=config.top_p,
        batch_tokens=config.batch_tokens,
        isolation=config.isolation,
        workers=config.workers,
        engine=config.engine,
    )


def _before_training(config: RunConfig) -> dict[str, Any]:
    """What the model solves that the run starts from; runs of the same seed on the same base share it."""
    from prorl_study import samplers

    key = hashlib.sha256(
        json.dumps(
            [
                digests(Path(config.start)),
                digests(Path(config.problems), [f"{config.plan.judged_on}.parquet"]),
                code_digests(*VERDICT_CODE, *samplers.CODE[config.engine.evaluation_engine]),
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
    from prorl_study.compute import supervised_flops, training_flops, weights

    path = work / segment / "end.json"
    if not path.is_file():
        tokens, before = _tokens(model), _tokens(Path(config.start))
        own = {name: count - before["tokens"].get(name, 0) for name, count in tokens["tokens"].items()}
        flops = (
            training_flops(own, weights(model), config.plan.train.kl_beta > 0)
            if config.plan.learner == "grpo"
            else supervised_flops(own, weights(model))
        )
        by_domain = {d: n - before["tokens_of"].get(d, 0) for d, n in tokens["tokens_of"].items()}
        place = {"segment": segment, "tokens": own["sampled"], "flops": flops, "tokens_of": by_domain}
        write_json(place | judge_model(config, model), path)
    return json.loads(path.read_text())


def _tokens(model: Path) -> dict[str, dict[str, int]]:
    """What was spent on the way to `model`: `tokens` by kind and `tokens_of` by domain, empty for a base."""
    state = read_state(model)
    return state["trainer"] if state else {"tokens": {}, "tokens_of": {}}


def judge_model(config: RunConfig, model: Path) -> dict[str, Any]:
    """Counts per problem of the plan's split, and shares solved by domain (strict, graded, lenient)."""
    from prorl_study import samplers
    from prorl_study.evaluation import judge
    from prorl_study.problems import first_of_each, load_problems
    from prorl_study.sampling import Sampler
    from prorl_study.verification.pool import VerificationPool

    plan = config.plan
    problems = first_of_each(load_problems(Path(config.problems), plan.judged_on), plan.test_problems)
    sampler = Sampler(config.eval_temperature, config.top_p, config.max_tokens, config.batch_tokens)
    loaded = samplers.load(config.engine.evaluation_engine, model)
    samples = samplers.sample(loaded, problems, plan.test_samples, sampler, plan.seed)
    samplers.close(loaded)
    with VerificationPool(workers=config.workers, isolation=config.isolation) as pool:
        rows = judge(problems, samples, pool)
    by_problem = rows.groupby("problem", sort=False)[["solved", "lenient_solved"]].sum()
    by_domain = rows.groupby("domain")[["solved", "score", "lenient_solved", "truncated"]].mean()
    return {
        "strict": by_domain.solved.round(6).to_dict(),
        "graded": by_domain.score.round(6).to_dict(),
        "lenient": by_domain.lenient_solved.round(6).to_dict(),
        "truncated": by_domain.truncated.round(6).to_dict(),
        "samples": plan.test_samples,
        "problems_sha256": hashlib.sha256(json.dumps([p.id for p in problems]).encode()).hexdigest(),
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
    """The row of results, JSON-plain. `log` has one record per rollout step, `checks` one per validation;
    tokens in the row count from the run's own start."""
    plan, last = config.plan, log.iloc[-max(1, len(log) // TENTH) :]
    begun = _tokens(Path(config.start))["tokens"]
    since = {name: begun.get(name, 0) for name in ("sampled", "prompt", "trained")}
    figures = ("reward", "entropy", "kl", "kl_share", "kept_fraction", "step_size", "truncated")
    return {
        "name": plan.name,
        "experiment": plan.experiment,
        "arm": plan.arm,
        "base": plan.base,
        "seed": plan.seed,
        "factors": plan.factors,
        "branched": plan.branched,
        "budget": sum(segment.tokens for segment in plan.segments),
        "steps": len(log),
        "tokens_sampled": ends[-1]["tokens"],
        "tokens_prompt": int(log.tokens_prompt.iloc[-1]) - since["prompt"],
        "tokens_trained": int(log.tokens_trained.iloc[-1]) - since["trained"],
        "flops": ends[-1]["flops"],
        "start": {name: start[name] for name in ("strict", "graded", "lenient", "solved")},
        "ends": list(ends),
        "last": {
            name: round(float(last[name].mean()), 6)
            for name in figures
            if name in last and last[name].notna().any()
        },
        "curve": _curve(checks, "tokens", "validation", since["sampled"]),
        "entropy_curve": _curve(log, "tokens_sampled", "entropy", since["sampled"]),
        "boundaries": [
            boundary | {"tokens": boundary["tokens"] - since["sampled"]}
            for boundary in state["boundaries"]
            if boundary["tokens"] >= since["sampled"]
        ],
        "firings": [firing | {"tokens": firing["tokens"] - since["sampled"]} for firing in state["firings"]],
        "claims_sha256": config.claims_sha256,
        "plan_sha256": plan_digest(plan, Path(config.problems), Path(config.start)),
        "code_sha256": hashlib.sha256(json.dumps(code_digests(*CODE)).encode()).hexdigest(),
    }


def _curve(table: pd.DataFrame, tokens: str, figure: str, since: int) -> dict[str, list[float]]:
    """`figure` over sampled tokens; empty where it was not measured, as in supervised training."""
    if figure not in table:
        return {"tokens": [], figure: []}
    return {"tokens": (table[tokens] - since).tolist(), figure: table[figure].round(6).tolist()}


def prepare(
    plan: RunPlan,
    base: Path,
    out: Path,
    ws: Workspace,
    sampler: Sampler,
    isolation: str,
    engine: EngineParams = PLAIN_ENGINE,
    **others: Any,
) -> RunConfig:
    """The config of a run from the model in `base` to the row `out`, written to its work folder; `others` are
    the fields of `RunConfig` that most runs lack."""
    from prorl_study.provenance import claims_hash

    learned_from = [Path(path) for path in (others.get("teacher", ""), *others.get("rollouts", ())) if path]
    config = RunConfig(
        plan=plan,
        problems=str(ws.problems),
        start=str(base),
        out=str(out),
        work=str(ws.work / "evidence" / fingerprint(plan, ws.problems, base, sampler, engine, learned_from)),
        eval_temperature=sampler.temperature,
        top_p=sampler.top_p,
        max_tokens=sampler.max_tokens,
        batch_tokens=sampler.batch_tokens,
        isolation=isolation,
        workers=1,
        threads=1,
        claims_sha256=claims_hash(project_root() / "params.yaml"),
        engine=engine,
        **others,
    )
    config.write(Path(config.file()))
    return config


def main(arguments: Sequence[str]) -> None:
    """Entry point of the run's subprocess; its one argument is the path of a config file."""
    run(RunConfig.read(Path(arguments[0])))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except StudyError as error:
        sys.exit(str(error))
