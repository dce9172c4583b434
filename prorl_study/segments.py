"""Prolonged training, one segment at a time: resets at the boundaries, state that a killed run goes on from.

A segment starts from saved fp32 state. Moving the reference and starting the optimizer fresh, the paper's
reset, is then simply a new trainer on the previous policy's path; keeping both goes on as if there were no
boundary. A segment ends when its budget of sampled tokens is spent, or earlier where the stagnation rule may
stop it; what is left over passes to the next. Budgets and steps count from the start of the chain.

State lives in `.work/<fingerprint>/`; the fingerprint covers all that determines the run except its budget,
so changed parameters never resume an old model and a raised budget extends the run. Run as a module it
trains one segment: `python -m prorl_study.segments CONFIG.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorl_study.checkpoints import (
    STATE_FILE,
    complete_checkpoints,
    passed_on,
    read_state,
    usable_checkpoint,
    write_state,
)
from prorl_study.course import Course
from prorl_study.errors import StudyError
from prorl_study.files import VERDICT_CODE, code_digests, digests, read_log, write_json
from prorl_study.launcher import die_with_parent
from prorl_study.params import EngineParams, SegmentParams, TrainParams, build
from prorl_study.training_log import alarm, tidy

if TYPE_CHECKING:
    from prorl_study.validation import Validation

ROLLOUTS = "rollouts.jsonl"
"""In the work folder: what was sampled and solved, a line per rollout step, for supervised training."""

EXPORTED = (
    "config.json",
    "generation_config.json",
    "model*.safetensors*",  # in several files where it is large
    "optimizer.*",
    "rng_state*.pth",
)
"""Files of the last checkpoint that a finished segment passes on, besides its state."""

NO_LIMIT = 1_000_000
"""Rollout steps, more than any budget of tokens pays for; the budget ends a segment."""

DETERMINING = (
    "checkpoints.py",
    "course.py",
    "curriculum.py",
    "dynamic_sampling.py",
    "gradient_probe.py",
    "recipe.py",
    "rewards.py",
    "rollout.py",
    "sampling.py",
    "segments.py",
    "stagnation.py",
    "streams.py",
    "trainer.py",
    "training_log.py",
    "validation.py",
)
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
    """Folder for checkpoints and logs."""
    eval_temperature: float
    top_p: float
    batch_tokens: int
    isolation: str
    workers: int
    """Pairs of processes that judge answers, in each of the trainer's processes."""
    engine: EngineParams = field(default_factory=EngineParams)

    def placed(self, root: Path) -> SegmentConfig:
        """The same run with a work folder in `root` that no other run shares."""
        return replace(self, work=str(root / fingerprint(identity(self))))

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> SegmentConfig:
        raw = json.loads(path.read_text())
        train = build(TrainParams, raw.pop("train"), str(path))
        segment = build(SegmentParams, raw.pop("segment"), str(path))
        engine = build(EngineParams, raw.pop("engine", {}), str(path))
        return cls(train=train, segment=segment, engine=engine, **raw)


def identity(config: SegmentConfig) -> dict[str, Any]:
    """Everything that determines the run except its budget, JSON-plain. Of the engine, what changes chances:
    a run may go on with another number of processes or a smaller micro-batch."""
    engine = config.engine
    return {
        "train": asdict(config.train),
        "segment": {k: v for k, v in asdict(config.segment).items() if k != "tokens"},
        "seed": config.seed,
        "validation": [config.eval_temperature, config.top_p, config.batch_tokens],
        "problems": digests(Path(config.problems), ["*.parquet"]),
        "previous": digests(Path(config.previous)),
        "code": code_digests(*VERDICT_CODE, *DETERMINING),
        "engine": [engine.rollout_engine, engine.importance_sampling],
    }


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Sixteen hex digits of a run's `identity`, the name of its work folder."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def budget(previous: Path, segment: SegmentParams) -> int:
    """Sampled tokens, from the start of the chain, at which a segment that starts from `previous` ends."""
    return read_state(previous).get("budget", 0) + segment.tokens


def _finished(state: Mapping[str, Any], budget: int) -> bool:
    """Whether the segment that left `state` has nothing more to do, now that its budget is `budget`."""
    ended = state.get("ended")
    return bool(ended) and (ended["rule"] != "budget" or state["trainer"]["tokens"]["sampled"] >= budget)


# ---- one segment --------------------------------------------------------------------------------------


def train_segment(config: SegmentConfig) -> None:
    """Train one segment to its end and export it to `config.out`; go on from the last checkpoint if any.

    The exported folder holds the policy in Hugging Face format with its tokenizer, `reference/` (the
    weights that the KL was measured against), the optimizer's and the generators' state and the study's own,
    so that a later segment may keep any of them. Raises StudyError where training has gone wrong, or a
    checkpoint cannot be written or used.
    """
    import torch
    from transformers import AutoTokenizer

    from prorl_study.curriculum import phases
    from prorl_study.domains import DOMAINS
    from prorl_study.problems import load_floors, load_problems
    from prorl_study.recipe import grpo_config
    from prorl_study.sampling import Sampler
    from prorl_study.validation import Validation
    from prorl_study.verification.pool import VerificationPool

    train, segment, engine, work = config.train, config.segment, config.engine, Path(config.work)
    checkpoints, previous, problems = work / "checkpoints", Path(config.previous), Path(config.problems)
    wanted = identity(config)
    before = read_state(previous)
    limit = budget(previous, segment)
    if engine.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it cuBLAS does not repeat its sums
        torch.use_deterministic_algorithms(True, warn_only=True)
    with _main_process_first():
        resume = _clear_up(work, wanted, limit, _steps(before))
    state = read_state(resume) if resume else {}

    plan = phases(train, list(DOMAINS))
    active = [d for d in DOMAINS if any(d in phase.domains for _, phase in plan)]
    floors = {task: floor["garbage"]["score"] for task, floor in load_floors(problems).items()}
    on_gpu, seed = torch.cuda.is_available(), config.seed
    with VerificationPool(workers=config.workers, isolation=config.isolation) as pool:
        trainer = _segment_trainer()(
            model=str(previous),
            config=grpo_config(train, NO_LIMIT, checkpoints, seed, on_gpu, _processes(), engine),
            problems=load_problems(problems, "train"),
            weights={name: float(DOMAINS[name].weight) for name in active},
            floors=floors if train.spread_above_floor and train.reward == "verified" else {},
            judge=pool,
            tokenizer=AutoTokenizer.from_pretrained(previous),
            dynamic_sampling=train.dynamic_sampling,
            max_sampling_rounds=train.max_sampling_rounds,
            curriculum=plan,
            reward=train.reward,
            probe_every=train.probe_every,
            pass_tokens=engine.pass_tokens,
        )
        trainer.identity = wanted
        trainer.course = course = Course(train, segment, limit, before, resumed=state)
        reference = previous / "reference"
        if segment.reference == "keep" and reference.is_dir() and trainer.ref_model is not None:
            trainer.load_reference(reference)
        if before:
            trainer.load_study_state(before["trainer"])
            trainer.probed_from = trainer.rollout_steps
        if not _finished(state, limit):
            validation = [p for p in load_problems(problems, "validation") if p.domain in active]
            sampler = Sampler(
                config.eval_temperature, config.top_p, train.max_completion_tokens, config.batch_tokens
            )
            check = Validation(validation, train.validation_prompts, pool, sampler, config.seed)
            trainer.add_callback(_watch(trainer, config, course, check, previous if before else None))
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
            resume = complete_checkpoints(checkpoints)[0]
        _export(resume, trainer, Path(config.out))
        if _is_main():  # the newest stays: a stage that is run again has nothing to train then
            for older in complete_checkpoints(checkpoints)[1:]:
                shutil.rmtree(older)


def _clear_up(work: Path, wanted: Mapping[str, Any], limit: int, steps_before: int) -> Path | None:
    """The checkpoint to go on from; in the main process, what lies behind it is deleted and the logs are cut
    back to it."""
    checkpoints = work / "checkpoints"
    resume = usable_checkpoint(checkpoints, wanted, limit)
    if not _is_main():
        return resume
    for newer in checkpoints.glob("checkpoint-*"):
        if resume is None or int(newer.name.rpartition("-")[2]) > int(resume.name.rpartition("-")[2]):
            shutil.rmtree(newer)  # unfinished, or beyond the budget
    done = read_state(resume)["trainer"]["rollout_steps"] if resume else steps_before
    _cut_back(work / "log.jsonl", done)
    _cut_back(work / ROLLOUTS, done)
    _cut_back(work / "checks.jsonl", done if resume else done - 1)
    return resume


# ---- several processes, as `accelerate launch` starts them ------------------------------------------------


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _main_process_first() -> Iterator[None]:
    """The main process goes through before the others do."""
    if _processes() == 1:
        yield
        return
    import torch
    from accelerate import PartialState

    with PartialState(cpu=not torch.cuda.is_available()).main_process_first():
        yield


def _steps(state: Mapping[str, Any]) -> int:
    return state["trainer"]["rollout_steps"] if state else 0


def _cut_back(log: Path, step: int) -> None:
    """Drop the log's records after rollout step `step`: the run goes on from there."""
    records = [record for record in read_log(log) if record["step"] <= step]
    if log.is_file():
        partial = log.with_suffix(".partial")
        partial.write_text("".join(json.dumps(record) + "\n" for record in records))
        os.replace(partial, log)


@cache
def _restore_to_cpus() -> None:
    """Where several processes train on CPUs, transformers restores to `cpu:0`, which torch knows not."""
    import torch

    torch.serialization.register_package(
        30, lambda storage: None, lambda storage, place: storage if place.startswith("cpu:") else None
    )


def _segment_trainer():
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    from prorl_study.trainer import ProRLTrainer

    _restore_to_cpus()

    class SegmentTrainer(ProRLTrainer):
        """Adds the study's own state to TRL's checkpoints."""

        identity: dict[str, Any]
        course: Course

        def load_reference(self, folder: Path) -> None:
            """Measure the KL against the model in `folder` from now on."""
            kept = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            if self.is_fsdp_enabled:
                from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

                options = StateDictOptions(full_state_dict=True)
                set_model_state_dict(self.ref_model, kept.state_dict(), options=options)
            else:
                self.accelerator.unwrap_model(self.ref_model).load_state_dict(kept.state_dict())

        def _save_checkpoint(self, model, trial):
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            try:
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                if _is_main():
                    self._complete(folder)
                self.accelerator.wait_for_everyone()
            except (OSError, RuntimeError, SafetensorError) as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise StudyError(
                    f"the checkpoint {folder} could not be written ({error}); make room there and start "
                    "again, and the run goes on from the checkpoint before."
                ) from error

        def _complete(self, folder: Path) -> None:
            """Write the study's own state into a checkpoint of which everything else is written."""
            state = {"trainer": self.study_state(), **self.course.state(), "identity": self.identity}
            write_state(folder, state)

        def _load_optimizer_and_scheduler(self, checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)
            self.load_study_state(read_state(Path(checkpoint))["trainer"])

        def keep_optimizer(self, folder: Path) -> None:
            """Take over the optimizer's state that a segment left in `folder`."""
            if self.is_fsdp_enabled:
                from accelerate.utils import load_fsdp_optimizer

                plugin = self.accelerator.state.fsdp_plugin
                load_fsdp_optimizer(plugin, self.accelerator, self.optimizer, self.model, str(folder))
            else:
                kept = torch.load(folder / "optimizer.pt", weights_only=True)
                self.optimizer.load_state_dict(kept)

    return SegmentTrainer


def _watch(trainer, config: SegmentConfig, course: Course, validation: Validation, previous: Path | None):
    """Callback: a line per step in `log.jsonl` and per check in `checks.jsonl`, the alarm, the end."""
    from transformers import TrainerCallback

    train, segment, work = config.train, config.segment, Path(config.work)
    started = time.monotonic()
    prompts = validation.prompt_tokens(trainer.processing_class)

    def append(name: str, record: Mapping[str, Any]) -> None:
        if not _is_main():
            return
        with (work / name).open("a") as file:
            file.write(json.dumps(record) + "\n")

    def check(kl: float) -> None:
        step = trainer.rollout_steps
        scores, tokens = validation(trainer, step)
        for domain, number in tokens.items():
            trainer.tokens["sampled"] += number
            trainer.tokens_of[domain] += number
        trainer.tokens["prompt"] += prompts
        seen = course.look(step, trainer.tokens["sampled"], scores, kl)
        place = {"step": step, "segment": segment.segment, "tokens": trainer.tokens["sampled"]}
        append("checks.jsonl", place | validation.means(scores) | seen)

    class Watch(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            if state.global_step:
                return  # resumed
            if previous and segment.optimizer == "keep":
                trainer.keep_optimizer(previous)
            if not course.stagnation.compares(len(validation.problems)):
                course.stagnation.forget()
                check(kl=0.0)

        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 0 and course.goes_on:
                trainer._load_rng_state(str(previous))  # here, since starting the data loader draws from it
            bumped = state.global_step < segment.bump_steps * train.updates_per_rollout
            for group in trainer.optimizer.param_groups:
                group["lr"] = train.learning_rate * (segment.bump if bumped else 1.0)

        def on_log(self, args, state, control, logs=None, **kwargs):
            if not logs or "loss" not in logs:
                return
            record = tidy(logs, trainer.rollout_steps, segment.segment)
            alarm(record, train)
            course.note(record)
            if trainer.rollout_steps % train.validate_every == 0:
                check(record.get("kl", 0.0))
            record |= {f"tokens_{name}": count for name, count in trainer.tokens.items()}
            record |= {f"tokens/{domain}": count for domain, count in trainer.tokens_of.items()}
            append("log.jsonl", record)
            append(ROLLOUTS, {"step": record["step"], "solved": trainer.solved})
            # Times differ from run to run, so they are kept apart from what must be equal.
            append("times.jsonl", {"step": record["step"], "seconds": time.monotonic() - started})
            course.spend(trainer.tokens["sampled"])
            if course.ended:
                control.should_training_stop = control.should_save = True

    return Watch()


def _export(checkpoint: Path, trainer, out: Path) -> None:
    """Copy the finished policy, its reference and its state to `out`, complete or not at all."""
    gathered = None
    if trainer.ref_model is not None and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        gathered = trainer.accelerator.get_state_dict(trainer.ref_model)  # by all processes together
    if _is_main():
        partial = out.with_name(out.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for path in (path for pattern in EXPORTED for path in checkpoint.glob(pattern)):
            shutil.copy(path, partial / path.name)
        write_json(passed_on(checkpoint) | {"budget": trainer.course.budget}, partial / STATE_FILE)
        trainer.processing_class.save_pretrained(partial)
        if trainer.ref_model is not None:
            reference = trainer.accelerator.unwrap_model(trainer.ref_model)
            reference.save_pretrained(partial / "reference", state_dict=gathered)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(partial, out)
    trainer.accelerator.wait_for_everyone()


def main(arguments: Sequence[str]) -> None:
    """Entry point of the training subprocess; its one argument is the path of a config file."""
    if _processes() > 1:
        die_with_parent()  # the launcher stops its processes where it is asked to end, not where it is killed
    train_segment(SegmentConfig.read(Path(arguments[0])))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except StudyError as error:
        several = f"process {os.environ['RANK']}: " if _processes() > 1 else ""
        sys.exit(several + str(error))
