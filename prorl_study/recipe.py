"""What one arm of the study is, as data: the recipe's parameters turned into TRL's configuration.

Each setting is written out, with its source in the paper or "paper silent", so that no library default
decides anything. Arms differ by parameters alone; there is no code path per arm.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl import GRPOConfig

from prorl_study.errors import StudyError
from prorl_study.params import PLAIN_ENGINE, EngineParams, TrainParams


def grpo_config(
    params: TrainParams,
    steps: int,
    out: Path,
    seed: int,
    on_gpu: bool,
    processes: int = 1,
    engine: EngineParams = PLAIN_ENGINE,
) -> GRPOConfig:
    """TRL configuration for `steps` rollout steps of the arm that `params` describes.

    One rollout step samples `prompts_per_step` groups and makes `updates_per_rollout` optimizer steps,
    each on its own share of them (paper: batch 256, mini-batch 64), spread over `processes` and passed
    backward in micro-batches where the engine says so. Raises StudyError where a batch cannot be shared
    evenly, or a tracker is not installed.
    """
    updates = params.updates_per_rollout
    completions = params.prompts_per_step * params.rollouts_per_prompt
    if params.prompts_per_step % processes or completions % (updates * processes):
        raise StudyError(
            f"prompts_per_step={params.prompts_per_step} of {params.rollouts_per_prompt} rollouts each, in "
            f"{updates} updates, cannot be shared by {processes} processes; change one of them."
        )
    own = completions // updates // processes
    micro = engine.micro_batch or own
    if own % micro:
        raise StudyError(
            f"engine.micro_batch={micro} must divide the {own} completions that a process has of an update; "
            "change it in params.yaml."
        )
    _check_trackers(engine.report_to)
    return GRPOConfig(
        output_dir=str(out),
        max_steps=steps * updates,
        # 2505.24864 §3.2: AdamW, constant learning rate; the paper is silent on all other optimizer settings.
        learning_rate=params.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=params.max_grad_norm,
        # Four updates per rollout: each optimizer step sees one part of the generation batch, once.
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=own // micro,
        steps_per_generation=updates * (own // micro),
        num_iterations=1,
        num_generations=params.rollouts_per_prompt,
        # §3.2: rollout temperature 1.2; the paper is silent on top-p, so sampling is not truncated.
        temperature=params.temperature,
        top_p=1.0,
        top_k=0,
        max_completion_length=params.max_completion_tokens,
        # §3.2: decoupled clipping 0.2 / 0.4 (DAPO).
        epsilon=params.clip_low,
        epsilon_high=params.clip_high,
        # Eq. 4: KL to the reference in the loss, k3 estimator. TRL's default multiplies k3 by the
        # importance ratio, which changes its gradient even on-policy; the paper's loss does not.
        beta=params.kl_beta,
        use_bias_correction_kl=False,
        # Paper silent on aggregation; Eq. 2 for the advantage.
        loss_type=params.loss_type,
        scale_rewards=params.scale_rewards,
        mask_truncated_completions=False,
        # The prompt stream fixes the order; the trainer must not shuffle it again.
        shuffle_dataset=False,
        dataloader_num_workers=0,
        remove_unused_columns=False,
        # Weights train as fp32; on a GPU under bf16 autocast (a 2e-6 step rounds away in bf16 weights).
        use_cpu=not on_gpu,
        bf16=on_gpu,
        gradient_checkpointing=on_gpu,
        ddp_find_unused_parameters=False,  # a causal model uses all of them
        logging_steps=updates,
        save_strategy="steps",
        save_steps=params.checkpoint_every * updates,
        save_total_limit=3,  # the newest may be unfinished and the one before it damaged
        report_to=engine.report_to or "none",
        disable_tqdm=True,
        seed=seed,
        **_vllm(engine),
    )


def _vllm(engine: EngineParams) -> dict[str, Any]:
    """TRL's own options for vLLM, in the trainer's processes or behind a server."""
    if engine.rollout_engine == "loop":
        return {"use_vllm": False}
    return {
        "use_vllm": True,
        "vllm_mode": engine.rollout_engine.removeprefix("vllm_"),
        "vllm_server_base_url": _server(engine.vllm_server),
        "vllm_gpu_memory_utilization": engine.vllm_memory,
        # vLLM's log-probabilities differ from the trainer's by rounding, which over a long answer adds up.
        "vllm_importance_sampling_correction": True,
        "vllm_importance_sampling_mode": engine.importance_sampling,
    }


def _server(url: str) -> str | None:
    """The server's URL, variables of the environment filled in: a scheduler says late where it runs."""
    found = os.path.expandvars(url)
    if "$" in found:
        raise StudyError(
            f"engine.vllm_server={url!r}: the environment has no such variable; set it, or give the URL in "
            "params.yaml."
        )
    return found or None


def _check_trackers(names: Sequence[str]) -> None:
    from transformers.integrations import get_available_reporting_integrations

    for name in names:
        if name not in (known := get_available_reporting_integrations()):
            raise StudyError(
                f"engine.report_to: {name} is not installed here or unknown; installed: "
                f"{', '.join(known) or 'none'}. Install it with pip, or change it in params.yaml."
            )
