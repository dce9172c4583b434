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
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from prorl_study.domains.problem import Problem
from prorl_study.errors import StudyError
from prorl_study.files import VERDICT_CODE, code_digests, digests, read_log, write_json
from prorl_study.launcher import die_with_parent
from prorl_study.params import EngineParams, SegmentParams, TrainParams, build

STATE_FILE = "study_state.json"
"""Written last into a checkpoint: its existence means that the checkpoint is complete."""

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
    "curriculum.py",
    "dynamic_sampling.py",
    "recipe.py",
    "rewards.py",
    "rollout.py",
    "sampling.py",
    "segments.py",
    "stagnation.py",
    "streams.py",
    "trainer.py",
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
    eval_temperature: float
    top_p: float
    batch_tokens: int
    isolation: str
    workers: int
    """Pairs of processes that judge answers, in each of the trainer's processes."""
    engine: EngineParams = field(default_factory=EngineParams)

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


def identity(
    train: TrainParams,
    segment: SegmentParams,
    seed: int,
    problems: Path,
    previous: Path,
    engine: EngineParams,
) -> dict[str, Any]:
    """Everything that determines the run except its budget, JSON-plain. Of the engine, what changes chances:
    a run may go on with another number of processes or a smaller micro-batch."""
    return {
        "train": asdict(train),
        "segment": {k: v for k, v in asdict(segment).items() if k != "tokens"},
        "seed": seed,
        "problems": digests(problems, ["*.parquet"]),
        "previous": digests(previous),
        "code": code_digests(*VERDICT_CODE, *DETERMINING),
        "engine": [engine.rollout_engine, engine.importance_sampling],
    }


def fingerprint(
    train: TrainParams,
    segment: SegmentParams,
    seed: int,
    problems: Path,
    previous: Path,
    engine: EngineParams,
) -> str:
    """Sixteen hex digits that change with everything that determines the run except its budget."""
    content = identity(train, segment, seed, problems, previous, engine)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def difference(one: Any, two: Any, name: str = "") -> str:
    """Where two nested dictionaries first differ, as `name: one, not two`; empty where they do not."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        for key in sorted({*one, *two}):
            found = difference(one.get(key), two.get(key), f"{name}.{key}" if name else str(key))
            if found:
                return found
        return ""
    return "" if one == two else f"{name}: {one!r}, not {two!r}"


# ---- checkpoints ------------------------------------------------------------------------------------


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in `folder` that were written to their end, the newest first."""
    complete = [c for c in folder.glob("checkpoint-*") if (c / STATE_FILE).is_file()]
    return sorted(complete, key=lambda c: int(c.name.rpartition("-")[2]), reverse=True)


def read_state(folder: Path) -> dict[str, Any]:
    """The study's state in a checkpoint or a model; empty in a model that no segment made."""
    path = folder / STATE_FILE
    return json.loads(path.read_text()) if path.is_file() else {}


def _own_digest(state: Mapping[str, Any]) -> str:
    """Digest of the state itself, which cannot stand among those of the other files."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def damage(checkpoint: Path) -> str:
    """Name of a file that is not what was written, or empty."""
    try:
        state = read_state(checkpoint)
        written, own = state["files"], state.pop("own")
    except (ValueError, KeyError):
        return STATE_FILE
    if own != _own_digest(state):
        return STATE_FILE
    present = digests(checkpoint)
    return next((name for name, value in written.items() if present.get(name) != value), "")


def usable_checkpoint(folder: Path, wanted: Mapping[str, Any], budget: int) -> Path | None:
    """The newest checkpoint in `folder` to go on from, or None.

    A damaged one is named on stderr and deleted, and the one before it is taken; one that went beyond
    `budget` sampled tokens is passed over. Raises StudyError, naming the difference, where a checkpoint was
    made by another run than `wanted`, an `identity`.
    """
    for checkpoint in complete_checkpoints(folder):
        if bad := damage(checkpoint):
            print(f"{checkpoint}: {bad} is damaged; going on from the checkpoint before.", file=sys.stderr)
            shutil.rmtree(checkpoint)
            continue
        state = read_state(checkpoint)
        if apart := difference(json.loads(json.dumps(wanted)), state["identity"]):
            raise StudyError(
                f"{checkpoint} was made by another run ({apart}); delete {folder} or restore what was "
                "changed."
            )
        if not state["ended"] and state["trainer"]["tokens"]["sampled"] >= budget:
            continue
        if state["ended"] and state["ended"]["rule"] == "budget" and state["budget"] > budget:
            continue
        return checkpoint
    return None


def spent(model: Path) -> int:
    """Tokens that were sampled on the way to `model`."""
    state = read_state(model)
    return state["trainer"]["tokens"]["sampled"] if state else 0


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
    from prorl_study.verification.pool import VerificationPool

    train, segment, engine, work = config.train, config.segment, config.engine, Path(config.work)
    checkpoints, previous, problems = work / "checkpoints", Path(config.previous), Path(config.problems)
    wanted = identity(train, segment, config.seed, problems, previous, engine)
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
        trainer.course = course = Course(config, limit, before, resumed=state)
        reference = previous / "reference"
        if segment.reference == "keep" and reference.is_dir() and trainer.ref_model is not None:
            trainer.load_reference(reference)
        if before:
            trainer.load_study_state(before["trainer"])
            trainer.probed_from = trainer.rollout_steps
        if not _finished(state, limit):
            validation = [p for p in load_problems(problems, "validation") if p.domain in active]
            check = Validation(config, _first_per_domain(validation, train.validation_prompts), pool)
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


class Course:
    """Where a segment stands between its beginning and its end, and what has happened at its boundaries."""

    def __init__(
        self, config: SegmentConfig, budget: int, before: Mapping[str, Any], resumed: Mapping[str, Any]
    ) -> None:
        """`before` is the state that the previous segment left, `resumed` that of the checkpoint to go on
        from; both may be empty. `budget` counts sampled tokens from the start of the chain."""
        from prorl_study.stagnation import Rule, Stagnation

        train, segment = config.train, config.segment
        self.budget, self.may_stop = budget, segment.rule == "stop"
        self.stagnation = Stagnation(Rule(train.min_delta, train.patience, train.max_drop, train.max_kl))
        self.ended: dict[str, Any] | None = None
        self.firings: list[dict[str, Any]] = []
        self.last: dict[str, float] = {}
        """Latest value of what a boundary is described by."""
        self.boundaries: list[dict[str, Any]] = list(before.get("boundaries", []))
        self.goes_on = bool(before) and segment.reference == segment.optimizer == "keep"
        """Nothing changes at the boundary, so nothing is looked at anew either."""
        if resumed:
            self.stagnation.load_state_dict(resumed["stagnation"])
            self.firings, self.last = list(resumed["firings"]), dict(resumed["last"])
            self.boundaries = list(resumed["boundaries"])
        elif before:
            if self.goes_on:
                self.stagnation.load_state_dict(before["stagnation"])
            self.last = dict(before["last"])
            self.boundaries.append(
                {
                    "segment": segment.segment,
                    "reference": segment.reference,
                    "optimizer": segment.optimizer,
                    "step": before["trainer"]["rollout_steps"],
                    "tokens": before["trainer"]["tokens"]["sampled"],
                    "rule": before["ended"]["rule"],
                    "evidence": before["ended"],
                    "before": dict(before["last"]),
                    "after": {},
                }
            )

    def note(self, record: Mapping[str, Any]) -> None:
        """Take in a step's record; the first after a boundary shows what the boundary has done."""
        values = {name: record[name] for name in BOUNDARY_FIGURES if name in record}
        self.last |= values
        if self.boundaries and not self.boundaries[-1]["after"]:
            self.boundaries[-1]["after"] = values

    def look(self, step: int, tokens: int, scores: Sequence[float], kl: float) -> dict[str, Any]:
        """Take in a validation check; returns what the log says of it. The rule ends the segment if it
        may."""
        anchor = self.stagnation.anchor
        firing = self.stagnation.look(step, tokens, scores, kl)
        if firing:
            self.firings.append(firing.row())
            if self.may_stop and not self.ended:
                self.ended = firing.row()
        rose = anchor is not None and firing is None and self.stagnation.anchor is not anchor
        return {"rose": rose, "fired": firing.rule if firing else ""}

    def spend(self, tokens: int) -> None:
        if tokens >= self.budget and not self.ended:
            self.ended = {"rule": "budget"}

    def state(self) -> dict[str, Any]:
        return {
            "budget": self.budget,
            "ended": self.ended,
            "stagnation": self.stagnation.state_dict(),
            "firings": self.firings,
            "last": self.last,
            "boundaries": self.boundaries,
        }


BOUNDARY_FIGURES = ("kl", "entropy", "kl_share", "step_size", "grad_norm")
"""What is shown before and after a boundary."""


class Validation:
    """Checks of the policy on problems of its own split, each drawn by a generator seeded with the step."""

    def __init__(self, config: SegmentConfig, problems: Sequence[Problem], pool) -> None:
        from prorl_study.sampling import Sampler

        self.problems, self.pool, self.seed = list(problems), pool, config.seed
        self.sampler = Sampler(
            config.eval_temperature, config.top_p, config.train.max_completion_tokens, config.batch_tokens
        )

    def __call__(self, trainer, step: int) -> tuple[list[float], dict[str, int]]:
        """Score of each problem and the number of tokens that this took per domain.

        Several processes share the answers and their verdicts.
        """
        processes, mine = trainer.accelerator.num_processes, trainer.accelerator.process_index
        if processes == 1 and not trainer.use_vllm:
            answers = self._sampled_in_turn(trainer, step)
        else:
            answers = self._sampled_by_all(trainer, step)
        places = range(mine, len(answers), processes)
        verdicts = self.pool.verify([(self.problems[i], answers[i][0]) for i in places], answers=False)
        scores = [(i, verdict.score) for i, verdict in zip(places, verdicts, strict=True)]
        if processes > 1:
            from accelerate.utils import gather_object

            scores = sorted(gather_object(scores))
        tokens: dict[str, int] = {}
        for problem, (_, count) in zip(self.problems, answers, strict=True):
            tokens[problem.domain] = tokens.get(problem.domain, 0) + count
        return [score for _, score in scores], tokens

    def _sampled_in_turn(self, trainer, step: int) -> list[tuple[str, int]]:
        """Text and tokens of an answer to each problem, drawn batch by batch from one generator."""
        from prorl_study.sampling import sample

        model = trainer.model
        model.eval()
        tokenizer = trainer.processing_class
        samples = sample(model, tokenizer, self.problems, 1, self.sampler, self.seed + step)
        model.train()
        return [(drawn[0].text, drawn[0].tokens) for drawn in samples]

    def _sampled_by_all(self, trainer, step: int) -> list[tuple[str, int]]:
        """The same in all processes: each answer is drawn from numbers of its own."""
        from prorl_study.rollout import Decoding

        decoding = Decoding(self.sampler.temperature, self.sampler.top_p)
        rows = max(1, self.sampler.batch_tokens // (2 * trainer.max_completion_length))
        found = trainer.answer([p.prompt for p in self.problems], decoding, (self.seed, "check", step), rows)
        texts = trainer.processing_class.batch_decode(found, skip_special_tokens=True)
        return [(text, len(ids)) for text, ids in zip(texts, found, strict=True)]

    def prompt_tokens(self, tokenizer) -> int:
        return sum(
            len(
                tokenizer.apply_chat_template(
                    problem.prompt, add_generation_prompt=True, tokenize=True, return_dict=False
                )
            )
            for problem in self.problems
        )

    def means(self, scores: Sequence[float]) -> dict[str, float]:
        """Mean score per domain, and the mean of these."""
        by_domain: dict[str, list[float]] = {}
        for problem, score in zip(self.problems, scores, strict=True):
            by_domain.setdefault(problem.domain, []).append(score)
        means = {domain: sum(values) / len(values) for domain, values in by_domain.items()}
        return {"validation": sum(means.values()) / len(means)} | {
            f"validation/{domain}": mean for domain, mean in means.items()
        }


def _first_per_domain(problems: Sequence[Problem], count: int) -> list[Problem]:
    taken: dict[str, list[Problem]] = {}
    for problem in problems:
        taken.setdefault(problem.domain, []).append(problem)
    return [problem for part in taken.values() for problem in part[:count]]


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
            state = {
                "trainer": self.study_state(),
                **self.course.state(),
                "identity": self.identity,
                "files": digests(folder),
            }
            write_json(state | {"own": _own_digest(state)}, folder / STATE_FILE)

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
    first = trainer.rollout_steps  # where the segment begins; a resumed trainer has not read its state yet

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
            bumped = trainer.rollout_steps - first < segment.bump_steps
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


RENAMED = {
    "reward": "reward_kept",
    "completions/mean_length": "completion_tokens",
    "completions/clipped_ratio": "truncated",
    "clip_ratio/low_mean": "clipped_low",
    "clip_ratio/high_mean": "clipped_high",
    # where vLLM samples: the trainer's probability of a token over vLLM's
    "sampling/importance_sampling_ratio/mean": "importance_ratio",
    "sampling/importance_sampling_ratio/min": "importance_ratio_min",
    "sampling/importance_sampling_ratio/max": "importance_ratio_max",
    "sampling/sampling_logp_difference/mean": "logp_difference",
}
"""TRL's names for what the study logs under clearer ones: its reward describes the kept groups only."""

KEPT_NAMES = (
    "loss",
    "kl",
    "kl_share",
    "entropy",
    "kept_fraction",
    "filled_groups",
    "grad_norm",
    "step_size",
)
PER_DOMAIN = (
    "reward",
    "solved",
    "sampled",
    "informative",
    "kept",
    "saturated",
    "solve_all",
    "solve_none",
    "partial",
)


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
    summary: dict[str, float] = {"steps": len(log)}
    for name in ("reward", "entropy", "kl", "kl_share", "kept_fraction", "truncated", "completion_tokens"):
        if name in log and log[name].notna().any():
            start, end = _ends(log.dropna(subset=name), name)
            summary |= {f"{name}_start": round(start, 6), f"{name}_end": round(end, 6)}
    return summary


def boundary_table(boundaries: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per boundary of the chain, with `BOUNDARY_FIGURES` before and after it."""
    rows = []
    for item in boundaries:
        row = {name: item[name] for name in ("segment", "step", "tokens", "reference", "optimizer", "rule")}
        for name in BOUNDARY_FIGURES:
            row |= {f"{name} {when}": item[when].get(name, float("nan")) for when in ("before", "after")}
        rows.append(row)
    return pd.DataFrame(rows)


RISES = (0.0, 0.01, 0.02, 0.04)
"""Rises of a policy from check to check, shares of 1, on which the stagnation rule is simulated."""
SIMULATED_RUNS = 1000


def simulated_firings(train: TrainParams, checks: pd.DataFrame, seed: int) -> pd.DataFrame:
    """How often the stagnation rule fires on policies that stand still, and on policies that rise.

    Each problem of a check is solved with the rate that its domain had at the first of `checks`.
    """
    import numpy as np

    from prorl_study.stagnation import Rule, firing_rates
    from prorl_study.statistics import named_rng

    rule = Rule(train.min_delta, train.patience, train.max_drop, train.max_kl)
    start = checks.filter(like="validation/").iloc[0].to_numpy()
    chances = np.repeat(start, train.validation_prompts)
    rows = []
    for rise in RISES:
        rng = named_rng(seed, f"stagnation {rise}")
        rates = firing_rates(rule, chances, rise, train.patience, SIMULATED_RUNS, rng)
        rows.append({"rise": 100 * rise, "stalled": rates["stalled"], "dropped": rates["dropped"]})
    return pd.DataFrame(rows)


def course(state: Mapping[str, Any]) -> dict[str, Any]:
    """What the results keep of a finished segment's state: tokens, how it ended, firings, its boundary."""
    return {
        "tokens": state["trainer"]["tokens"],
        "budget": state["budget"],
        "ended": state["ended"],
        "firings": state["firings"],
        "boundary": state["boundaries"][-1] if state["boundaries"] else None,
    }


def sentence(summary: Mapping[str, Any], state: Mapping[str, Any], previous: str) -> str:
    """The finding of a segment's page."""
    ended, firings = state["ended"], state["firings"]
    why = {
        "budget": "ended with its budget",
        "stalled": "ended by the rule: validation had stopped rising",
        "dropped": "ended by the rule: validation had fallen",
        "kl": "ended by the rule: KL had passed its limit",
    }[ended["rule"]]
    logged = f" The rule fired {len(firings)} times." if firings and ended["rule"] == "budget" else ""
    return (
        f"{summary['steps']} steps from {previous}, {why} at {state['trainer']['tokens']['sampled']:,} "
        f"sampled tokens: reward {summary['reward_start']:.2f} to {summary['reward_end']:.2f}, entropy "
        f"{summary['entropy_start']:.2f} to {summary['entropy_end']:.2f} nats.{logged}"
    )


def per_domain(log: pd.DataFrame, domains: Sequence[str]) -> pd.DataFrame:
    """Per domain: reward and strict success at the start and the end, kinds of groups, share of the kept."""
    domains = [name for name in domains if f"kept/{name}" in log or not log.filter(like="kept/").size]
    kept = {name: log[f"kept/{name}"].sum() for name in domains if f"kept/{name}" in log}
    rows = []
    for name in domains:
        row: dict[str, Any] = {"domain": name}
        for figure in ("reward", "solved"):
            if f"{figure}/{name}" not in log:
                break
            row[f"{figure} start"], row[f"{figure} end"] = _ends(
                log.dropna(subset=f"{figure}/{name}"), f"{figure}/{name}"
            )
        else:
            row |= {kind: log[f"{kind}/{name}"].mean() for kind in ("solve_none", "partial", "solve_all")}
        if kept:
            row["informative"] = log[f"informative/{name}"].sum() / max(1, log[f"sampled/{name}"].sum())
            row["share of kept"] = kept[name] / max(1, sum(kept.values()))
        rows.append(row)
    return pd.DataFrame(rows)


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
        state = {k: v for k, v in read_state(checkpoint).items() if k not in ("identity", "files", "own")}
        write_json(state, partial / STATE_FILE)
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
