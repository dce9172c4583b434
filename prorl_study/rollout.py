"""The sampling loop that training and evaluation share: one prefill per prompt, finished rows leave.

`generate` of transformers prefills each copy of a prompt and carries finished rows to the end of the
longest; on a CPU with short completions that doubles the cost. This loop uses the library's model, cache
and logits warpers and only schedules them. Left out: beam search, penalties, and anything on several
devices; big models sample through vLLM.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import (
    DynamicCache,
    LogitsProcessorList,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

COMPACT_BELOW = 0.85
"""Finished rows are taken out of the cache when fewer than this share of its rows still run: taking them
out copies the cache, so doing it at every step would cost more than it saves."""


@dataclass(frozen=True)
class Decoding:
    """How the next token is drawn. Temperature 0 is greedy decoding."""

    temperature: float
    top_p: float = 1.0

    def warpers(self) -> LogitsProcessorList:
        warpers = LogitsProcessorList()
        if self.temperature not in (0.0, 1.0):
            warpers.append(TemperatureLogitsWarper(self.temperature))
        if self.top_p < 1.0 and self.temperature > 0:
            warpers.append(TopPLogitsWarper(self.top_p))
        return warpers


def _left_pad(
    prompts: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both (rows, longest prompt)."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return ids, mask


def inverse_cdf(probabilities: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Token ids (rows,) where the cumulated `probabilities`, (rows, vocabulary), pass `uniforms`, (rows,)."""
    cumulated = probabilities.double().cumsum(-1)  # in fp32 the sum may stop short of 1 by a rare token
    return torch.searchsorted(cumulated, uniforms.double()[:, None] * cumulated[:, -1:], right=True).squeeze(
        1
    )


def seeded_uniforms(keys: Sequence[object], width: int) -> torch.Tensor:
    """A row of `width` numbers in [0, 1) for each key, which depends on that key alone. (keys, width)."""
    rows = np.empty((len(keys), width))
    for row, key in zip(rows, keys, strict=True):
        digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
        np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "big"))).random(out=row)
    return torch.from_numpy(rows)


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    copies: Sequence[int],
    decoding: Decoding,
    max_tokens: int,
    eos: int,
    pad: int,
    uniforms: torch.Tensor | None = None,
) -> list[list[list[int]]]:
    """`copies[i]` completions of `prompts[i]` as token ids, the end token included where one was drawn.

    With `uniforms`, (all completions, max_tokens) in [0, 1), each token is where its own number falls in the
    cumulated distribution: then a completion does not depend on what else is in the batch. Else torch's
    global generator is drawn from. Completions hold at least one and at most `max_tokens` tokens.
    """
    device = model.device
    warpers = decoding.warpers()
    ids, mask = _left_pad(prompts, pad, device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=DynamicCache(config=model.config),
        use_cache=True,
        logits_to_keep=1,
    )
    cache = output.past_key_values
    repeat = torch.tensor(list(copies), device=device)
    rows = torch.arange(len(prompts), device=device).repeat_interleave(repeat)
    cache.batch_select_indices(rows)
    logits, mask = output.logits[rows, -1], mask[rows]
    position = mask.sum(1)
    total = len(rows)
    tokens = torch.full((total, max_tokens), pad, device=device)
    running = torch.arange(total, device=device)  # which completion each row of the cache belongs to
    alive = torch.ones(total, dtype=torch.bool, device=device)  # of the rows in the cache
    for step in range(max_tokens):
        scores = warpers(ids, logits) if len(warpers) else logits
        if decoding.temperature > 0:
            probabilities = scores.float().softmax(-1)
            if uniforms is None:
                drawn = torch.multinomial(probabilities, 1).squeeze(1)
            else:
                drawn = inverse_cdf(probabilities, uniforms[running, step].to(device))
        else:
            drawn = scores.argmax(-1)
        tokens[running[alive], step] = drawn[alive]
        alive = alive & drawn.ne(eos)
        left = int(alive.sum())
        if left == 0 or step == max_tokens - 1:
            break
        if left < COMPACT_BELOW * len(alive):
            keep = alive.nonzero().squeeze(1)
            cache.batch_select_indices(keep)
            mask, position, drawn, running = mask[keep], position[keep], drawn[keep], running[keep]
            alive = torch.ones(left, dtype=torch.bool, device=device)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        output = model(
            input_ids=drawn.unsqueeze(1),
            attention_mask=mask,
            position_ids=position.unsqueeze(1),
            past_key_values=cache,
            use_cache=True,
        )
        logits, position = output.logits[:, -1], position + 1
    completions: list[list[list[int]]] = []
    for row in tokens.tolist():
        end = row.index(eos) + 1 if eos in row else len(row)
        completions.append(row[:end])
    grouped, start = [], 0
    for count in copies:
        grouped.append(completions[start : start + count])
        start += count
    return grouped
