"""A thousand samples per problem at the price of a few: a beginning that many share is computed once.

Samples of one problem agree for long: of 1,024 completions of a small, sharp model only some dozens differ.
Here a row of the batch is a distinct beginning with the number of samples that share it, and how these go on
is one multinomial draw. The samples have exactly the distribution that `sampling.sample` draws from (model,
prompts, warpers and limits are the same); only the work is shared. `tally` makes per-problem counts of them.

Left out: greedy decoding, which has one sample anyway, and keeping texts: a thousand for each problem are
counted and forgotten.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from prorl_study.domains.problem import Problem
from prorl_study.rollout import Decoding
from prorl_study.sampling import Sample, Sampler

ROOM_TO_GROW = 16
"""A batch starts with its capacity over this many beginnings. Those that outgrow it wait for another batch,
where their prompts are read again: slower, never wrong."""


@dataclass(frozen=True)
class Draws:
    """All samples of one problem: the distinct ones, and which of them came when."""

    distinct: list[Sample]
    order: np.ndarray
    """Index into `distinct` of every sample, in the order in which they count as drawn."""


@dataclass
class _Beginning:
    """`copies` samples of problem `index` that start with the same `tokens`."""

    index: int
    tokens: list[int]
    copies: int


def sample_distinct(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    n: int,
    sampler: Sampler,
    rng: np.random.Generator,
) -> list[Draws]:
    """`n` samples of each problem; a pure function of its arguments.

    At no time does a batch hold more than `sampler.batch_tokens` prompt and response tokens (or one row).
    Raises ValueError for temperature 0, where nothing is drawn.
    """
    if sampler.temperature <= 0:
        raise ValueError(f"temperature {sampler.temperature} draws nothing; use `sampling.sample`")
    prompts = [
        tokenizer.apply_chat_template(p.prompt, add_generation_prompt=True, tokenize=True, return_dict=False)
        for p in problems
    ]
    finished: list[list[tuple[list[int], int]]] = [[] for _ in problems]
    by_length = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    waiting = deque(_Beginning(index, [], n) for index in by_length)
    while waiting:
        width = len(prompts[waiting[0].index]) + sampler.max_tokens
        batch = [
            waiting.popleft()
            for _ in range(min(len(waiting), max(1, sampler.batch_tokens // width // ROOM_TO_GROW)))
        ]
        _run(model, tokenizer, prompts, batch, sampler, rng, finished, waiting)
    return [_draws(tokenizer, found, sampler.max_tokens, rng) for found in finished]


@torch.no_grad()
def _run(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    batch: list[_Beginning],
    sampler: Sampler,
    rng: np.random.Generator,
    finished: list[list[tuple[list[int], int]]],
    waiting: deque[_Beginning],
) -> None:
    """Continue `batch` to the end; completed samples go to `finished`, what finds no room to `waiting`."""
    warpers = Decoding(sampler.temperature, sampler.top_p).warpers()
    texts = [prompts[row.index] + row.tokens for row in batch]
    width = max(map(len, texts))
    capacity = max(1, sampler.batch_tokens // (width + sampler.max_tokens))
    padding, pad = [width - len(text) for text in texts], tokenizer.pad_token_id
    ids = torch.tensor([[pad] * k + t for k, t in zip(padding, texts, strict=True)], device=model.device)
    mask = torch.tensor([[0] * k + [1] * (width - k) for k in padding], device=model.device)
    cache = DynamicCache(config=model.config)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    while True:
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        logits = warpers(ids, logits) if len(warpers) else logits
        chances = logits.double().softmax(-1).cpu().numpy()
        copies = rng.multinomial([row.copies for row in batch], chances)
        parents, tokens = copies.nonzero()
        kept, children = [], []
        for parent, token in zip(parents.tolist(), tokens.tolist(), strict=True):
            row = batch[parent]
            child = _Beginning(row.index, [*row.tokens, token], int(copies[parent, token]))
            if token == tokenizer.eos_token_id or len(child.tokens) == sampler.max_tokens:
                finished[child.index].append((child.tokens, child.copies))
            elif len(children) < capacity:
                kept.append(parent)
                children.append(child)
            else:
                waiting.append(child)
        if not children:
            return
        if kept != list(range(len(batch))):
            rows = torch.tensor(kept, device=model.device)
            cache.batch_select_indices(rows)
            mask, positions = mask[rows], positions[rows]
        batch = children
        ids = torch.tensor([[row.tokens[-1]] for row in batch], device=model.device)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = positions[:, -1:] + 1


def _draws(
    tokenizer: PreTrainedTokenizerBase,
    found: list[tuple[list[int], int]],
    max_tokens: int,
    rng: np.random.Generator,
) -> Draws:
    """Samples are exchangeable, so any order will do that does not look at them: a random one."""
    found = sorted(found)
    texts = tokenizer.batch_decode([tokens for tokens, _ in found], skip_special_tokens=True)
    distinct = [
        Sample(text=text, tokens=len(tokens), truncated=tokens[-1] != tokenizer.eos_token_id)
        for text, (tokens, _) in zip(texts, found, strict=True)
    ]
    return Draws(distinct, rng.permutation(np.repeat(np.arange(len(found)), [copies for _, copies in found])))


def in_order(samples: Sequence[Sequence[Sample]]) -> list[Draws]:
    """Samples that were drawn one by one, `[problem][sample]`, as draws."""
    found = []
    for drawn in samples:
        places = {one: place for place, one in enumerate(dict.fromkeys(drawn))}
        found.append(Draws(list(places), np.array([places[one] for one in drawn])))
    return found


def tally(problems: Sequence[Problem], draws: Sequence[Draws], pool: Any) -> list[dict[str, Any]]:
    """One row per problem: how many of its samples are strictly right, and what else the boundary needs.

    `solved`: strict successes among `n`; `above_zero`: samples whose graded score is above 0; `first_n` and
    `first_solved`: the same of the first half, so that one half can be set against the other. Raises what
    the pool raises when it cannot judge at all.
    """
    work = [(p, one.text) for p, drawn in zip(problems, draws, strict=True) for one in drawn.distinct]
    verdicts = iter(pool.verify(work, lenient=False))
    rows = []
    for problem, drawn in zip(problems, draws, strict=True):
        own = [next(verdicts) for _ in drawn.distinct]
        solved = np.array([verdict.solved for verdict in own])[drawn.order]
        scores = np.array([verdict.score for verdict in own])[drawn.order]
        half = len(drawn.order) // 2
        rows.append(
            {
                "problem": problem.id,
                "split": problem.split,
                "domain": problem.domain,
                "task": problem.task,
                "difficulty": problem.difficulty,
                "n": len(drawn.order),
                "solved": int(solved.sum()),
                "above_zero": int((scores > 0).sum()),
                "score_sum": round(float(scores.sum()), 6),
                "distinct_answers": len({v.answer for v in own if v.answer is not None}),
                "distinct_texts": len({one.text for one in drawn.distinct}),
                "first_n": half,
                "first_solved": int(solved[:half].sum()),
            }
        )
    return rows
