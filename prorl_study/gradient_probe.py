"""How much of a trainer's gradient is the KL's, and how far a step moves the weights.

Both are measured on the first batch of a rollout step, which is on-policy: of several micro-batches it is the
first, over all processes. Left out: when they are measured, which the trainer says, and the KL's share where
weights are sharded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.tensor import DTensor

if TYPE_CHECKING:
    from trl import GRPOTrainer

Gradients = list[torch.Tensor | None]


class GradientProbe:
    """Measures on `trainer`, whose gradients, metrics and generators it leaves as they were."""

    def __init__(self, trainer: GRPOTrainer) -> None:
        self.trainer = trainer
        self._before: list[torch.Tensor] | None = None

    def begin(self) -> None:
        """Note the weights that the next step starts from."""
        self._before = [p.detach().to("cpu", copy=True) for p in self._parameters()]

    def step_size(self) -> float | None:
        """Norm of what the weights have moved by since `begin`, which ends with this; None without one."""
        if self._before is None:
            return None
        moved = (p.detach().cpu() - old for p, old in zip(self._parameters(), self._before, strict=True))
        size = float(self._norm(moved))
        self._before = None
        return size

    def kl_share(self, batch: Mapping[str, Any]) -> float | None:
        """Norm of the KL term's gradient over that of the policy gradient, on `batch`, which has just been
        passed: ||beta grad KL|| / ||grad PG||. None where the rewards leave no policy gradient, beta is 0 or
        the weights are sharded."""
        trainer = self.trainer
        if not trainer.beta or self._sharded():
            return None
        # The probe takes as much memory as the gradients do, so these make room for it on a card.
        parameters = self._parameters()
        own = _on_cpu([p.grad for p in parameters])
        for p in parameters:
            p.grad = None
        share = self._share(batch, own)
        for p, grad in zip(parameters, own, strict=True):
            p.grad = None if grad is None else grad.to(p.device)
        return share

    def _share(self, batch: Mapping[str, Any], own: Gradients) -> float | None:
        trainer = self.trainer
        signal = batch["advantages"].any()[None]
        if not bool(trainer.accelerator.gather(signal).any()):
            return None
        beta = trainer.beta
        alone = trainer.accelerator.num_processes == trainer.args.gradient_accumulation_steps == 1
        metrics = {name: list(values) for name, values in trainer._metrics["train"].items()}
        try:
            # Where gradients are summed over processes or micro-batches, what is at hand is not one batch's.
            total = own if alone else _on_cpu(self._gradients(batch))
            trainer.beta = 0.0
            policy = _on_cpu(self._gradients(batch))
        finally:
            trainer.beta = beta
            trainer._metrics["train"].clear()
            trainer._metrics["train"].update(metrics)
        pairs = [(t, g) for t, g in zip(total, policy, strict=True) if g is not None]
        return float(self._norm(t - g for t, g in pairs) / self._norm(g for _, g in pairs))

    def _gradients(self, batch: Mapping[str, Any]) -> Gradients:
        """Gradient of the loss of `batch`, summed over the processes' batches."""
        trainer, accelerator = self.trainer, self.trainer.accelerator
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(accelerator.unwrap_model(trainer.model), batch)
        found = torch.autograd.grad(loss, self._parameters(), allow_unused=True)
        if accelerator.num_processes == 1:
            return list(found)
        return [g if g is None else accelerator.reduce(g, "sum") for g in found]

    def _parameters(self) -> list[torch.Tensor]:
        return [p for p in self.trainer.model.parameters() if p.requires_grad]

    def _sharded(self) -> bool:
        """Whether a process holds a part of the weights only."""
        return self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled

    def _norm(self, parts: Iterable[torch.Tensor]) -> torch.Tensor:
        """Norm over all of `parts`, taken one by one; of sharded ones, over the shards of all processes."""
        local = (part.to_local() if isinstance(part, DTensor) else part for part in parts)
        total = torch.stack([part.square().sum() for part in local]).sum()
        if self._sharded():
            accelerator = self.trainer.accelerator
            total = accelerator.reduce(total.to(accelerator.device), "sum").cpu()
        return total.sqrt()


def _on_cpu(parts: Sequence[torch.Tensor | None]) -> Gradients:
    return [None if part is None else part.to("cpu") for part in parts]
