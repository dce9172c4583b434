"""A step's record in the log of a training run, made from what TRL logs, and the alarm that it may raise.

What pages say of a whole log stands in `segment_report`.
"""

from __future__ import annotations

from typing import Any

from prorl_study.errors import StudyError
from prorl_study.params import TrainParams

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
