"""Prolonged training, one segment at a time: resets at the boundaries, state that a killed run goes on from.

A segment starts from saved fp32 state. Moving the reference and starting the optimizer fresh, the paper's
reset, is then simply a new trainer on the previous policy's path. State lives in `.work/<fingerprint>/`;
the fingerprint covers all that determines the run except its length, so changed parameters never resume
an old model and a raised step count extends the run. Run as a module it trains one segment:
`python -m prorl_study.segments CONFIG.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from prorl_study.domains.problem import Problem
from prorl_study.errors import StudyError
from prorl_study.files import VERDICT_CODE, code_digests, digests, read_log
from prorl_study.params import SegmentParams, TrainParams, build

STATE_FILE = "study_state.json"
"""Written last into a checkpoint: its existence means that the checkpoint is complete."""

DETERMINING = ("recipe.py", "rollout.py", "sampling.py", "segments.py", "streams.py", "trainer.py")
"""Code that a run depends on besides that of verdicts."""


@dataclass(frozen=True)
class SegmentConfig:
    """All that the training subprocess needs, as plain paths and values."""

    train: TrainParams
    segment: SegmentParams
    seed: int
    problems: str
    """Folder with the problem parquet files."""
    previous: str
    """Folder of the model that the segment starts from."""
    out: str
    work: str
    eval_temperature: float
    top_p: float
    batch_tokens: int
    isolation: str
    workers: int

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> SegmentConfig:
        raw = json.loads(path.read_text())
        train = build(TrainParams, raw.pop("train"), str(path))
        segment = build(SegmentParams, raw.pop("segment"), str(path))
        return cls(train=train, segment=segment, **raw)


def fingerprint(train: TrainParams, segment: SegmentParams, seed: int, problems: Path, previous: Path) -> str:
    """Sixteen hex digits that change with everything that determines the run except its length."""
    content = {
        "train": asdict(train),
        "segment": {k: v for k, v in asdict(segment).items() if k != "steps"},
        "seed": seed,
        "problems": digests(problems, ["*.parquet"]),
        "previous": digests(previous),
        "code": code_digests(*VERDICT_CODE, *DETERMINING),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in `folder`, or None."""
    complete = [c for c in folder.glob("checkpoint-*") if (c / STATE_FILE).is_file()]
    return max(complete, key=lambda c: int(c.name.rpartition("-")[2]), default=None)


def train_segment(config: SegmentConfig) -> None:
    """Train one segment to its end and export it to `config.out`; go on from the last checkpoint if any.

    The exported folder holds the policy in Hugging Face format with its tokenizer, `reference/` (the
    weights that the KL was measured against) and `optimizer.pt`, so that a later segment may keep either.
    """
    import torch
    from transformers import AutoTokenizer

    from prorl_study.domains import DOMAINS
    from prorl_study.problems import load_floors, load_problems
    from prorl_study.recipe import grpo_config
    from prorl_study.sampling import Sampler
    from prorl_study.verification.pool import VerificationPool

    train, segment, work = config.train, config.segment, Path(config.work)
    checkpoints, previous, problems = work / "checkpoints", Path(config.previous), Path(config.problems)
    steps = segment.steps
    tokenizer = AutoTokenizer.from_pretrained(previous)
    weights = {name: float(domain.weight) for name, domain in DOMAINS.items()}
    floors = {task: floor["garbage"]["score"] for task, floor in load_floors(problems).items()}
    resume = last_checkpoint(checkpoints)
    done = json.loads((resume / STATE_FILE).read_text())["step"] if resume else 0
    _cut_back(work / "log.jsonl", done)
    with VerificationPool(workers=config.workers, isolation=config.isolation) as pool:
        validation = _first_per_domain(load_problems(problems, "validation"), train.validation_prompts)
        sampler = Sampler(
            config.eval_temperature, config.top_p, train.max_completion_tokens, config.batch_tokens
        )
        trainer_class = _segment_trainer()
        trainer = trainer_class(
            model=str(previous),
            config=grpo_config(train, steps, checkpoints, config.seed, torch.cuda.is_available()),
            problems=load_problems(problems, "train"),
            weights=weights,
            floors=floors,
            judge=pool,
            tokenizer=tokenizer,
            dynamic_sampling=train.dynamic_sampling,
            max_sampling_rounds=train.max_sampling_rounds,
        )
        reference = previous / "reference"
        if segment.reference == "keep" and reference.is_dir() and trainer.ref_model is not None:
            from transformers import AutoModelForCausalLM

            kept = AutoModelForCausalLM.from_pretrained(reference, dtype=torch.float32)
            trainer.ref_model.load_state_dict(kept.state_dict())
        if segment.optimizer == "keep" and (previous / "optimizer.pt").is_file():
            trainer.kept_optimizer = previous / "optimizer.pt"
        _continue_stream(trainer, previous)
        trainer.add_callback(_watch(trainer, config, validation, sampler, pool, work))
        if done < steps:
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
            if last_checkpoint(checkpoints) is None or trainer.state.global_step % trainer.args.save_steps:
                trainer._save_checkpoint(trainer.model, trial=None)
            resume = last_checkpoint(checkpoints)
        _export(resume, trainer, Path(config.out), segment)


def _first_per_domain(problems: Sequence[Problem], count: int) -> list[Problem]:
    taken: dict[str, list[Problem]] = {}
    for problem in problems:
        taken.setdefault(problem.domain, []).append(problem)
    return [problem for part in taken.values() for problem in part[:count]]


def _continue_stream(trainer, previous: Path) -> None:
    """Go on in the prompt streams where the previous segment stopped, so that no prompt is favoured."""
    if (previous / STATE_FILE).is_file():
        trainer.load_study_state(json.loads((previous / STATE_FILE).read_text())["trainer"])


def _cut_back(log: Path, step: int) -> None:
    """Drop the log's records after rollout step `step`: the run goes on from there."""
    records = [record for record in read_log(log) if record["step"] <= step]
    if log.is_file():
        partial = log.with_suffix(".partial")
        partial.write_text("".join(json.dumps(record) + "\n" for record in records))
        os.replace(partial, log)


def _segment_trainer():
    import torch

    from prorl_study.trainer import ProRLTrainer

    class SegmentTrainer(ProRLTrainer):
        """Adds the study's own state to TRL's checkpoints, and carries an optimizer over a boundary."""

        kept_optimizer: Path | None = None

        def _save_checkpoint(self, model, trial):
            super()._save_checkpoint(model, trial)
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            state = {
                "step": self.state.global_step // self.args.steps_per_generation,
                "trainer": self.study_state(),
            }
            partial = folder / (STATE_FILE + ".partial")
            partial.write_text(json.dumps(state))
            os.replace(partial, folder / STATE_FILE)

        def _load_optimizer_and_scheduler(self, checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)
            if checkpoint is None:
                if self.kept_optimizer is not None:
                    self.optimizer.load_state_dict(torch.load(self.kept_optimizer, weights_only=True))
            else:
                state = json.loads((Path(checkpoint) / STATE_FILE).read_text())
                self.load_study_state(state["trainer"])

    return SegmentTrainer


def _watch(trainer, config: SegmentConfig, validation, sampler, pool, work: Path):
    """Callback: one line per rollout step in `log.jsonl`, validation, and the alarm."""
    from transformers import TrainerCallback

    from prorl_study.sampling import sample

    train, segment, updates = config.train, config.segment, config.train.updates_per_rollout
    started = time.monotonic()

    def validate(step: int) -> dict[str, float]:
        model = trainer.model
        model.eval()
        samples = sample(model, trainer.processing_class, validation, 1, sampler, config.seed + step)
        model.train()
        answered = [(p, s[0].text) for p, s in zip(validation, samples, strict=True)]
        verdicts = pool.verify(answered, answers=False)
        scores: dict[str, list[float]] = {}
        for problem, verdict in zip(validation, verdicts, strict=True):
            scores.setdefault(problem.domain, []).append(verdict.score)
        means = {domain: sum(values) / len(values) for domain, values in scores.items()}
        return {"validation": sum(means.values()) / len(means)} | {
            f"validation/{domain}": mean for domain, mean in means.items()
        }

    class Watch(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if not logs or "loss" not in logs:
                return
            record = tidy(logs, state.global_step // updates, segment.segment)
            alarm(record, train)
            if record["step"] % train.validate_every == 0 or record["step"] == segment.steps:
                record |= validate(record["step"])
            with (work / "log.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
            # Times differ from run to run, so they are kept apart from what must be equal.
            with (work / "times.jsonl").open("a") as file:
                file.write(json.dumps({"step": record["step"], "seconds": time.monotonic() - started}) + "\n")

    return Watch()


RENAMED = {
    "reward": "reward_kept",
    "completions/mean_length": "completion_tokens",
    "completions/clipped_ratio": "truncated",
    "clip_ratio/low_mean": "clipped_low",
    "clip_ratio/high_mean": "clipped_high",
}
"""TRL's names for what the study logs under clearer ones: its reward describes the kept groups only."""

KEPT_NAMES = ("loss", "kl", "entropy", "kept_fraction", "filled_groups", "grad_norm", "num_tokens")
PER_DOMAIN = ("reward", "solved", "sampled", "informative", "kept", "solve_all", "solve_none", "partial")


def tidy(logs: dict[str, Any], step: int, segment: str) -> dict[str, Any]:
    """One log record from TRL's: the study's names, no times, and `reward` as the mean over domains of
    what was sampled (not of what was kept, which dynamic sampling pulls towards one half)."""
    record: dict[str, Any] = {"step": step, "segment": segment}
    for name, value in logs.items():
        if name in RENAMED:
            record[RENAMED[name]] = value
        elif name in KEPT_NAMES or name.split("/")[0] in PER_DOMAIN and "/" in name:
            record[name] = value
    rewards = [value for name, value in record.items() if name.startswith("reward/")]
    record["reward"] = sum(rewards) / len(rewards) if rewards else record["reward_kept"]
    return record


def alarm(record: dict[str, Any], train: TrainParams) -> None:
    """Raise StudyError in one sentence when training has gone wrong beyond use."""
    step, segment = record["step"], record["segment"]
    if any(isinstance(v, float) and v != v for v in (record["loss"], record.get("grad_norm", 0.0))):
        problem = "the loss is not a number"
    elif record.get("kl", 0.0) > train.alarm_kl:
        problem = f"KL to the reference is {record['kl']:.2f}, above alarm_kl={train.alarm_kl}"
    elif record["entropy"] < train.alarm_entropy:
        problem = f"entropy is {record['entropy']:.4f}, below alarm_entropy={train.alarm_entropy}"
    elif record["truncated"] >= 1.0:
        problem = "every rollout was cut at max_completion_tokens"
    else:
        return
    raise StudyError(
        f"segment {segment} stopped at step {step}: {problem}; lower learning_rate or change the recipe "
        "in params.yaml (the log up to here is kept)."
    )


def _ends(log: pd.DataFrame, column: str) -> tuple[float, float]:
    """Mean of `column` over the first and the last tenth of the steps (at least one step each)."""
    part = max(1, len(log) // 10)
    return float(log[column].iloc[:part].mean()), float(log[column].iloc[-part:].mean())


def summarise(log: pd.DataFrame) -> dict[str, float]:
    """Steps, and start and end values (mean of the first and last tenth) of a segment's main figures."""
    summary: dict[str, float] = {"steps": int(log.step.iloc[-1])}
    for name in ("reward", "entropy", "kl", "kept_fraction", "truncated", "completion_tokens", "validation"):
        if name in log and log[name].notna().any():
            start, end = _ends(log.dropna(subset=name), name)
            summary |= {f"{name}_start": round(start, 6), f"{name}_end": round(end, 6)}
    return summary


def per_domain(log: pd.DataFrame, domains: Sequence[str]) -> pd.DataFrame:
    """Per domain: reward and strict success at the start and the end, kinds of groups, share of the kept."""
    kept = {name: log[f"kept/{name}"].sum() for name in domains if f"kept/{name}" in log}
    rows = []
    for name in domains:
        row: dict[str, Any] = {"domain": name}
        for figure in ("reward", "solved"):
            row[f"{figure} start"], row[f"{figure} end"] = _ends(log, f"{figure}/{name}")
        row |= {kind: log[f"{kind}/{name}"].mean() for kind in ("solve_none", "partial", "solve_all")}
        if kept:
            row["informative"] = log[f"informative/{name}"].sum() / log[f"sampled/{name}"].sum()
            row["share of kept"] = kept[name] / sum(kept.values())
        rows.append(row)
    return pd.DataFrame(rows)


def _export(checkpoint: Path, trainer, out: Path, segment: SegmentParams) -> None:
    """Copy the finished policy, its reference and its optimizer to `out`, complete or not at all."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in ("config.json", "generation_config.json", "model.safetensors", STATE_FILE, "optimizer.pt"):
        shutil.copy(checkpoint / name, partial / name)
    trainer.processing_class.save_pretrained(partial)
    reference = trainer.accelerator.unwrap_model(trainer.ref_model) if trainer.ref_model is not None else None
    if reference is not None:
        reference.save_pretrained(partial / "reference")
    shutil.rmtree(out, ignore_errors=True)
    os.replace(partial, out)


def main(arguments: Sequence[str]) -> None:
    """Entry point of the training subprocess; its one argument is the path of a config file."""
    train_segment(SegmentConfig.read(Path(arguments[0])))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except StudyError as error:
        sys.exit(str(error))
