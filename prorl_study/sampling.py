"""Rollouts for evaluation: one sampler for all models, seeded apart from everything else.

Problems are batched by prompt length, because padding and attention over it are most of the cost of a
small model. Nothing here judges what it samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from prorl_study.domains.problem import Problem
from prorl_study.errors import StudyError
from prorl_study.rollout import Decoding, generate


@dataclass(frozen=True)
class Sample:
    """One completion of one problem."""

    text: str
    tokens: int
    """Completion length in tokens, the end token included."""
    truncated: bool
    """True where the response cap was reached before the model stopped."""


@dataclass(frozen=True)
class Sampler:
    """How completions are drawn. Temperature 0 is greedy decoding."""

    temperature: float
    top_p: float
    max_tokens: int
    batch_tokens: int
    """Prompt and response tokens that one batch may hold."""


def load(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model (fp32, evaluation mode, on the GPU where there is one) and tokenizer from a local folder.

    Raises StudyError where the folder holds no model.
    """
    if not (path / "config.json").is_file():
        raise StudyError(f"{path} holds no model (config.json is missing); make it with `dvc repro`.")
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer


def _batches(lengths: Sequence[int], n: int, sampler: Sampler) -> Iterator[list[tuple[int, int]]]:
    """Yield batches of (problem index, copies), shortest prompts first, each under `batch_tokens`."""
    batch: list[tuple[int, int]] = []
    rows = 0
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        capacity = max(1, sampler.batch_tokens // (lengths[index] + sampler.max_tokens))
        left = n
        while left:
            if rows >= capacity:
                yield batch
                batch, rows = [], 0
            copies = min(left, capacity - rows)
            batch.append((index, copies))
            rows, left = rows + copies, left - copies
    if batch:
        yield batch


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    n: int,
    sampler: Sampler,
    seed: int,
    progress: str = "",
) -> list[list[Sample]]:
    """`n` completions for each problem, as `[problem][sample]`; a pure function of its arguments.

    The global random state is left as it was found. `progress` labels a progress bar; empty means none.
    """
    prompts = [
        tokenizer.apply_chat_template(p.prompt, add_generation_prompt=True, tokenize=True, return_dict=False)
        for p in problems
    ]
    samples: list[list[Sample]] = [[] for _ in problems]
    devices = [model.device] if model.device.type == "cuda" else []
    bar = tqdm(total=len(problems) * n, desc=progress, unit="sample", disable=not progress)
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for batch in _batches([len(p) for p in prompts], n, sampler):
            rows = generate(
                model,
                [prompts[index] for index, _ in batch],
                [copies for _, copies in batch],
                Decoding(sampler.temperature, sampler.top_p),
                sampler.max_tokens,
                eos=tokenizer.eos_token_id,
                pad=tokenizer.pad_token_id,
            )
            for (index, copies), completions in zip(batch, rows, strict=True):
                texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
                samples[index] += [
                    Sample(text=text, tokens=len(ids), truncated=ids[-1] != tokenizer.eos_token_id)
                    for text, ids in zip(texts, completions, strict=True)
                ]
                bar.update(copies)
    bar.close()
    return samples
