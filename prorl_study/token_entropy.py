"""How sure a model is of each token that it wrote: entropy of its next token along its own answers.

Stands beside the number of distinct answers: training can sharpen one without the other. The distribution is
the model's own, at temperature 1 and without nucleus, whatever sampler drew the answer. Answers are read back
as tokens, which may split a word differently than when it was sampled. Left out: entropy during training,
which the trainer logs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prorl_study.domains.problem import Problem

LOGITS = 2**26
"""Logits that are held at once at most: a vocabulary of 152,000 times 40,000 tokens would be 24 GB."""


@torch.inference_mode()
def token_entropy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    texts: Sequence[str],
    batch_tokens: int,
) -> list[float]:
    """Mean entropy in nats per token of each text, given its problem's prompt; the end token is included.

    `batch_tokens`: tokens of prompt and text, padding included, that one forward pass may hold.
    """
    rows = []
    for problem, text in zip(problems, texts, strict=True):
        prompt = tokenizer.apply_chat_template(
            problem.prompt, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        answer = tokenizer(text, add_special_tokens=False)["input_ids"]
        rows.append((len(prompt), [*prompt, *answer]))
    order = sorted(range(len(rows)), key=lambda index: len(rows[index][1]))
    means = [0.0] * len(rows)
    while order:
        longest, batch = 0, []
        while order and max(longest, len(rows[order[0]][1])) * (len(batch) + 1) <= batch_tokens:
            longest = max(longest, len(rows[order[0]][1]))
            batch.append(order.pop(0))
        if not batch:  # one that is longer than a whole batch goes alone
            longest, batch = len(rows[order[0]][1]), [order.pop(0)]
        ids = torch.full((len(batch), longest), tokenizer.pad_token_id, device=model.device)
        mask = torch.zeros_like(ids)
        for place, index in enumerate(batch):
            tokens = torch.tensor(rows[index][1], device=model.device)
            ids[place, : len(tokens)], mask[place, : len(tokens)] = tokens, 1
        entropy = _entropies(model, ids, mask)
        for place, index in enumerate(batch):
            start, tokens = rows[index]
            means[index] = float(entropy[place, start - 1 : len(tokens)].mean())
    return means


def _entropies(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Entropy of the next token at each position, (rows, positions), a stretch of positions at a time."""
    positions = max(1, LOGITS // (len(ids) * model.config.vocab_size))
    if positions >= ids.shape[1]:
        logits = model(input_ids=ids, attention_mask=mask).logits.float()
        return torch.distributions.Categorical(logits=logits).entropy()
    hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
    head = model.get_output_embeddings()
    parts = hidden.split(positions, dim=1)
    return torch.cat(
        [torch.distributions.Categorical(logits=head(part).float()).entropy() for part in parts], dim=1
    )
