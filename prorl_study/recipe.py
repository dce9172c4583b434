"""What one arm of the study is, as data: the recipe's parameters turned into TRL's configuration.

Each setting is written out, with its source in the paper or "paper silent", so that no library default
decides anything. Arms differ by parameters alone; there is no code path per arm.
"""

from __future__ import annotations

from pathlib import Path

from trl import GRPOConfig

from prorl_study.errors import StudyError
from prorl_study.params import TrainParams


def grpo_config(
    params: TrainParams, steps: int, out: Path, seed: int, on_gpu: bool, processes: int = 1
) -> GRPOConfig:
    """TRL configuration for `steps` rollout steps of the arm that `params` describes.

    One rollout step samples `prompts_per_step` groups and makes `updates_per_rollout` optimizer steps,
    each on its own share of them (paper: batch 256, mini-batch 64), spread over `processes`. Raises
    StudyError where they cannot share it evenly.
    """
    updates = params.updates_per_rollout
    completions = params.prompts_per_step * params.rollouts_per_prompt
    if params.prompts_per_step % processes or completions % (updates * processes):
        raise StudyError(
            f"prompts_per_step={params.prompts_per_step} of {params.rollouts_per_prompt} rollouts each, in "
            f"{updates} updates, cannot be shared by {processes} processes; change one of them."
        )
    return GRPOConfig(
        output_dir=str(out),
        max_steps=steps * updates,
        # 2505.24864 §3.2: AdamW, constant learning rate; the paper is silent on all other optimizer settings.
        learning_rate=params.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=params.max_grad_norm,
        # Four updates per rollout: each optimizer step sees one part of the generation batch, once.
        per_device_train_batch_size=completions // updates // processes,
        gradient_accumulation_steps=1,
        steps_per_generation=updates,
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
        logging_steps=updates,
        save_strategy="steps",
        save_steps=params.checkpoint_every * updates,
        save_total_limit=3,  # the newest may be unfinished and the one before it damaged
        report_to="none",
        disable_tqdm=True,
        seed=seed,
    )
