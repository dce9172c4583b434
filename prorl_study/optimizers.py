"""Muon for the weight matrices, AdamW for all else, as one optimizer that Trainer can drive and resume.

Used for the embedded base model only: on small transformers Muon reaches the same supervised loss in about
half the steps. RL uses AdamW, as the paper does. Both are torch's own.
"""

from __future__ import annotations

from typing import Any

import torch


class MuonAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` and `torch.optim.AdamW` side by side; their parameter groups are this one's."""

    def __init__(self, model: torch.nn.Module, muon_learning_rate: float, adamw_learning_rate: float) -> None:
        """Matrices inside the blocks go to Muon; embeddings (tied to the output layer) and norms to AdamW."""
        matrices, rest = [], []
        for name, weight in model.named_parameters():
            inside = weight.ndim == 2 and "embed" not in name and "lm_head" not in name
            (matrices if inside else rest).append(weight)
        super().__init__([{"params": matrices}, {"params": rest}], {})
        self.parts = [
            torch.optim.Muon(matrices, lr=muon_learning_rate, weight_decay=0.01),
            torch.optim.AdamW(rest, lr=adamw_learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self._share_groups()

    def _share_groups(self) -> None:
        # A scheduler writes learning rates into these dicts; the parts must see them.
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Any = None) -> None:
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()
