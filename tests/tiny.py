"""A model of a few thousand parameters and an easy task, for tests that go through the real trainer."""

from __future__ import annotations

import random
from pathlib import Path

from prorl_study import base_model
from prorl_study.domains.problem import Problem, Verdict
from prorl_study.params import BaseModelParams, TrainParams

BASE = BaseModelParams(
    vocabulary=300,
    hidden_size=32,
    layers=1,
    heads=2,
    intermediate_size=64,
    demonstrations=10,
    sft_steps=1,
    sft_batch=4,
    sft_learning_rate=1e-3,
    habit_rate=0.5,
    slip_rate=0.0,
    logic_slip_rate=0.0,
    gate_margin=-1.0,
    gate_problems=2,
)

TRAIN = TrainParams(
    learning_rate=3e-3,
    domains=["math", "code", "stem", "logic", "instruction"],
    prompts_per_step=8,
    rollouts_per_prompt=8,
    updates_per_rollout=2,
    temperature=1.0,
    max_completion_tokens=6,
    curriculum=[],
    reward="verified",
    clip_low=0.2,
    clip_high=0.4,
    kl_beta=1e-3,
    dynamic_sampling=True,
    max_sampling_rounds=2,
    spread_above_floor=True,
    loss_type="dapo",
    scale_rewards="group",
    max_grad_norm=1.0,
    checkpoint_every=1000,
    validate_every=1000,
    validation_prompts=2,
    probe_every=1,
    min_delta=0.02,
    patience=3,
    max_drop=0.5,
    max_kl=1e9,
    alarm_kl=1e9,
    alarm_entropy=-1.0,
)


def problems(count: int, domain: str = "math") -> list[Problem]:
    """Prompts that ask for nothing in particular; `LetterJudge` decides what is good."""
    return [
        Problem(
            id=f"{domain}-{i}",
            domain=domain,
            task="letters",
            template="0",
            prompt=[{"role": "user", "content": f"say {i}"}],
            answer="",
            checks={},
            difficulty=1,
            split="train",
            source="test",
        )
        for i in range(count)
    ]


class LetterJudge:
    """Scores the share of characters that are letters; `permuted` hands the scores to other rollouts."""

    def __init__(self, permuted: bool = False, seed: int = 0) -> None:
        self.rng = random.Random(seed) if permuted else None

    def verify(self, items, lenient: bool = False, answers: bool = True) -> list[Verdict]:
        scores = [sum(c.isascii() and c.isalpha() for c in text) / max(1, len(text)) for _, text in items]
        if self.rng:
            self.rng.shuffle(scores)
        return [Verdict(s, s == 1.0, "correct" if s == 1.0 else "partial" if s else "wrong") for s in scores]


def save_model(folder: Path, seed: int) -> Path:
    """An untrained model with its tokenizer in `folder`."""
    texts = ["say 0123456789 abcdefghijklmnopqrstuvwxyz" * 3]
    tokenizer = base_model.build_tokenizer(texts, BASE.vocabulary)
    base_model.build_model(BASE, tokenizer, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
