"""What vLLM makes of a card in this study: `prorl_study.gpu_check` runs this where vLLM is installed.

Measures training whose rollouts vLLM samples beside the trainer (`engine.rollout_engine: vllm_colocate`), and
evaluation by vLLM beside evaluation by transformers, on one model of random weights. Left out: TRL's server
mode, whose weights go by NCCL from one card to another.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prorl_study.files import write_json
from prorl_study.gpu_check import SEED, free_memory, math_problems, peak_memory_gb, recipe, trainer_on, wait
from prorl_study.params import EngineParams

LEARNING_RATE = 1e-4
"""Fifty times the paper's: an engine that was not given the new weights would be far off after one step."""


@dataclass(frozen=True)
class Work:
    """How much is sampled: the defaults take a card of 80 GB some minutes."""

    prompts: int = 8
    rollouts: int = 8
    tokens: int = 512
    micro_batch: int = 8
    steps: int = 4
    """Rollout steps, of one update each; the first warms up and is not counted in the speed."""


def main(part: str, model: str, out: str) -> None:
    """Run one part, `rollouts` or `evaluation`, on the model in the folder `model`, and write what it gave to
    `out` as JSON. Each has a process of its own: how much vLLM gives back is a question."""
    write_json({"vllm": version("vllm"), **PARTS[part](Path(model), Work())}, Path(out))


def rollouts(model: Path, work: Work) -> dict[str, Any]:
    """Training with vLLM's rollouts: seconds and sampled tokens per second, and by step the importance ratio
    (the trainer's probability of a sampled token over vLLM's) beside the KL to the base, which shows how far
    the weights have moved meanwhile."""
    from transformers import TrainerCallback

    from prorl_study.trainer import ProRLTrainer
    from prorl_study.training_log import tidy

    class Log(TrainerCallback):
        records: list[dict[str, Any]] = []

        def on_log(self, args, state, control, logs, **kwargs):
            if "loss" in logs:
                wait()
                self.records.append(tidy(logs, len(self.records) + 1, "check") | {"at": time.perf_counter()})

    engine = EngineParams(rollout_engine="vllm_colocate", micro_batch=work.micro_batch)
    log = Log()
    train = recipe(
        prompts_per_step=work.prompts,
        rollouts_per_prompt=work.rollouts,
        updates_per_rollout=1,
        max_completion_tokens=work.tokens,
        kl_beta=1e-3,
        learning_rate=LEARNING_RATE,
    )
    trainer = trainer_on(ProRLTrainer, model, train, work.steps, log, engine=engine)
    trainer.train()
    taken = [b["at"] - a["at"] for a, b in zip(log.records, log.records[1:], strict=False)]
    shown = ("importance_ratio", "importance_ratio_min", "importance_ratio_max", "logp_difference", "kl")
    per_step = trainer.tokens["sampled"] / work.steps
    return {
        "mode": "colocate",
        "importance_sampling": engine.importance_sampling,
        "rollouts": work.prompts * work.rollouts,
        "completion_tokens": work.tokens,
        "learning_rate": LEARNING_RATE,
        "seconds_per_rollout_step": round(sum(taken) / len(taken), 4),
        "sampled_tokens_per_second_of_the_whole_step": round(per_step / (sum(taken) / len(taken)), 1),
        "peak_memory_gb": peak_memory_gb(),
        "by_step": [{name: record.get(name) for name in shown} for record in log.records],
    }


def evaluation(model: Path, work: Work) -> dict[str, Any]:
    """Sampled tokens per second of both evaluation engines on the same problems; whether vLLM repeats itself
    in a second engine after the first was closed; and what closing it gave back."""
    from prorl_study import samplers
    from prorl_study.sampling import Sampler

    problems = math_problems("test", work.prompts)
    sampler = Sampler(1.0, 0.95, work.tokens, 200_000)
    report: dict[str, Any] = {"problems": work.prompts, "samples": work.rollouts, "most_tokens": work.tokens}
    texts = []
    for name, engine in (("transformers", "transformers"), ("vllm", "vllm"), ("vllm_again", "vllm")):
        free = free_memory()
        began = time.perf_counter()
        loaded = samplers.load(engine, model)
        loading = time.perf_counter() - began
        samplers.sample(loaded, problems[:1], 1, sampler, SEED)  # warms up
        began = time.perf_counter()
        found = samplers.sample(loaded, problems, work.rollouts, sampler, SEED)
        seconds = time.perf_counter() - began
        tokens = sum(sample.tokens for row in found for sample in row)
        held = free - free_memory()
        samplers.close(loaded)
        del loaded
        report[name] = {
            "seconds_to_load": round(loading, 2),
            "tokens_per_second": round(tokens / seconds, 1),
            "memory_held_gb": round(held / 1e9, 2),
            "still_held_after_close_gb": round((free - free_memory()) / 1e9, 2),
        }
        texts.append([sample.text for row in found for sample in row])
    same = [a == b for a, b in zip(texts[1], texts[2], strict=True)]
    report["vllm_repeats_itself"] = round(sum(same) / len(same), 4)
    return report


PARTS = {"rollouts": rollouts, "evaluation": evaluation}

if __name__ == "__main__":
    main(*sys.argv[1:])
