"""Speed of training: `python benchmarks/training_step.py`, on an idle machine, after `dvc repro base_model`.

Prints, from one run, seconds per rollout step and per informative rollout for the study's trainer and for
stock `GRPOTrainer`, on the default study's base model, prompts and recipe. Everything off: no dynamic
sampling, no KL, symmetric clip, so both do the same work. Half without signal: every second prompt pays all
its rollouts alike, and the study's trainer refills; what it could not refill does not count as informative.
Rewards are drawn by lot, so judging costs nothing in either. Left out: judging (`verification.py`).
"""

from __future__ import annotations

import logging
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import transformers
from datasets import Dataset
from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
from trl import GRPOTrainer

from prorl_study import params
from prorl_study.domains import DOMAINS
from prorl_study.domains.problem import Problem, Verdict
from prorl_study.paths import Workspace, project_root
from prorl_study.problems import load_problems
from prorl_study.recipe import grpo_config
from prorl_study.trainer import ProRLTrainer

ROUNDS = 4
"""Turns that each trainer takes; the best step of all turns counts, since others only ever slow it down."""
STEPS = 4
"""Rollout steps in a turn; the first warms up and is not counted."""


class Lottery:
    """Pays half of the rollouts of a prompt by lot, or none of a prompt in `barren`."""

    def __init__(self, barren: set[str]) -> None:
        self.rng, self.barren = random.Random(0), barren

    def score(self, prompt: str) -> float:
        return 0.0 if prompt in self.barren else float(self.rng.random() < 0.5)

    def verify(self, items: Sequence[tuple[Problem, str]], *, answers: bool) -> list[Verdict]:
        return [
            Verdict(s := self.score(p.prompt[-1]["content"]), s == 1, "correct" if s else "wrong")
            for p, _ in items
        ]


class Clock(TrainerCallback):
    def __init__(self, updates: int) -> None:
        self.updates, self.marks = updates, []

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.updates == 0:
            self.marks.append(time.perf_counter())

    def best(self) -> float:
        return min(after - before for before, after in zip(self.marks, self.marks[1:], strict=False))


def turn(
    kind: str, recipe: params.TrainParams, problems: list[Problem], barren: set[str], model: Path
) -> tuple[float, float]:
    """Seconds of the fastest rollout step of one short training, and the share of its groups with signal."""
    clock, judge = Clock(recipe.updates_per_rollout), Lottery(barren)
    tokenizer = AutoTokenizer.from_pretrained(model)
    with tempfile.TemporaryDirectory() as out:
        config = replace(
            grpo_config(recipe, STEPS, Path(out), 1, on_gpu=False),
            generation_batch_size=None,
            save_strategy="no",
        )
        if kind == "stock":
            rows = [{"prompt": p.prompt} for p in problems[: STEPS * recipe.prompts_per_step]]
            trainer = GRPOTrainer(
                model=str(model),
                reward_funcs=lambda prompts, **_: [judge.score(p[-1]["content"]) for p in prompts],
                args=config,
                train_dataset=Dataset.from_list(rows),
                processing_class=tokenizer,
                callbacks=[clock],
            )
        else:
            trainer = ProRLTrainer(
                model=str(model),
                config=config,
                problems=problems,
                weights={name: float(domain.weight) for name, domain in DOMAINS.items()},
                floors={},
                judge=judge,
                tokenizer=tokenizer,
                dynamic_sampling=recipe.dynamic_sampling,
                max_sampling_rounds=recipe.max_sampling_rounds,
                callbacks=[clock],
            )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    filled = [log["filled_groups"] for log in trainer.state.log_history if "filled_groups" in log]
    wasted = (
        sum(filled) / len(filled) / recipe.prompts_per_step if filled and recipe.dynamic_sampling else 0.0
    )
    return clock.best(), 1 - wasted


def main() -> None:
    """Print both comparisons."""
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    ws, study = Workspace(project_root()), params.load(project_root() / "params.yaml")
    model = ws.require(ws.model("base"), "base_model")
    problems = load_problems(ws.problems, "train")
    random.Random(1).shuffle(problems)
    barren = {p.prompt[-1]["content"] for p in problems[::2]}
    off = replace(study.train, dynamic_sampling=False, kl_beta=0.0, clip_high=study.train.clip_low)
    refilled = replace(off, dynamic_sampling=True, max_sampling_rounds=study.train.max_sampling_rounds)
    rollouts = off.prompts_per_step * off.rollouts_per_prompt
    cases = {
        "stock, everything off": ("stock", off, set()),
        "study, everything off": ("study", off, set()),
        "stock, half without signal": ("stock", off, barren),
        "study, half without signal, refilled": ("study", refilled, barren),
    }
    seconds, informative = dict.fromkeys(cases, float("inf")), dict.fromkeys(cases, float(rollouts))
    for _ in range(ROUNDS):
        for name, (kind, recipe, without) in cases.items():
            taken, share = turn(kind, recipe, problems, without, model)
            seconds[name] = min(seconds[name], taken)
            informative[name] = min(informative[name], rollouts * share)
    informative["stock, half without signal"] = rollouts / 2
    for name, value in seconds.items():
        each = 1000 * value / informative[name]
        print(f"{name:40} {value:6.2f} s a step  {each:6.2f} ms an informative rollout")
    names = list(cases)
    print(f"everything off: {seconds[names[1]] / seconds[names[0]]:.2f} times stock's step (at most 1.05)")
    gain = seconds[names[2]] / informative[names[2]] / (seconds[names[3]] / informative[names[3]])
    print(f"half without signal: {gain:.2f} times as many informative rollouts a second (at least 1.5)")


if __name__ == "__main__":
    main()
