"""Rollouts for evaluation by vLLM: the same prompts, limits and end rule as `sampling`, for big models.

The tokenizer makes the prompts and reads the answers here too, and vLLM sees token ids alone, so that the two
backends differ in arithmetic and random numbers only. Each completion has a generator of its own, seeded by
(seed, problem, sample): what is drawn does not depend on which other problems are sampled, but for rounding,
which batching may change. Nothing is downloaded and no usage is reported. Left out: several devices.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from prorl_study.domains.problem import Problem
from prorl_study.errors import StudyError
from prorl_study.model_source import chat_ids, first_line
from prorl_study.sampling import Sample, Sampler

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm import LLM

CPU_CACHE_BYTES = 4 * 2**30
"""For keys and values on a CPU, where vLLM would take most of the machine's memory by itself."""
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    # In this process: nothing outlives it, however it ends.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
"""Read by vLLM when it is imported; what the user has set wins."""


def load(path: Path, dtype: str, context: int | None) -> LLM:
    """vLLM on the model of a local folder, for prompts and answers of `context` tokens together (None: as
    many as the model was built for).

    `dtype` is `float32` or `bfloat16`. Raises StudyError where vLLM is not installed or cannot load
    the model.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
        from vllm.platforms import current_platform
    except ImportError as error:
        raise StudyError(
            f"the backend vllm cannot be imported ({first_line(error)}); install it with "
            "`pip install 'prorl_study[vllm]'`, or with `make vllm-test` where there is no GPU."
        ) from None
    on_cpu = current_platform.is_cpu()
    options: dict[str, Any] = {}
    if on_cpu:
        options["kv_cache_memory_bytes"] = CPU_CACHE_BYTES
        # Behind a part of a prompt vLLM draws a token, drops it and sets the completion's generator back,
        # which a CPU's generators refuse with an error: so prompts are read whole.
        options["enable_chunked_prefill"] = False
    try:
        return vllm.LLM(
            model=str(path),
            dtype=dtype,
            max_model_len=context,
            load_format="safetensors",
            trust_remote_code=False,
            generation_config="vllm",  # not the model's own: it would bring a top-k or a penalty along
            enforce_eager=on_cpu,  # compiling takes longer than it saves on models that fit a CPU
            seed=0,  # of nothing that counts: every completion has its own
            **options,
        )
    except Exception as error:  # vLLM's engine raises anything
        raise StudyError(
            f"vLLM cannot load {path} ({first_line(error)}); try --backend transformers."
        ) from error


def close(engine: LLM) -> None:
    """Give back what the engine holds of the card; it is of no use afterwards."""
    from vllm.distributed import cleanup_dist_env_and_memory

    engine.llm_engine.engine_core.shutdown()
    cleanup_dist_env_and_memory()


def request_seed(seed: int, problem: str, number: int) -> int:
    """Seed of completion `number` of the problem with this id, in 0..2**31-1."""
    return int(hashlib.sha256(f"{seed}/{problem}/{number}".encode()).hexdigest(), 16) % 2**31


def sample(
    engine: LLM,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    n: int,
    sampler: Sampler,
    seed: int,
    progress: str = "",
) -> list[list[Sample]]:
    """`n` completions for each problem, as `[problem][sample]`; arguments as those of `sampling.sample`.

    Temperature 0 is greedy decoding. `sampler.batch_tokens` is left to vLLM, which batches by itself.
    """
    from vllm import SamplingParams

    end = tokenizer.eos_token_id
    prompts, settings = [], []
    for problem in problems:
        ids = chat_ids(tokenizer, problem.prompt)
        for number in range(n):
            prompts.append({"prompt_token_ids": ids})
            settings.append(
                SamplingParams(
                    temperature=sampler.temperature,
                    top_p=sampler.top_p if sampler.temperature > 0 else 1.0,
                    max_tokens=sampler.max_tokens,
                    seed=request_seed(seed, problem.id, number),
                    # exactly one token ends an answer, as in `rollout.generate`
                    ignore_eos=True,
                    stop_token_ids=[end],
                    detokenize=False,
                )
            )
    bar = partial(tqdm, desc=progress) if progress else False
    outputs = engine.generate(prompts, settings, use_tqdm=bar)
    completions = [list(output.outputs[0].token_ids) for output in outputs]
    texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
    samples = [
        Sample(text=text, tokens=len(ids), truncated=ids[-1] != end)
        for text, ids in zip(texts, completions, strict=True)
    ]
    return [samples[start : start + n] for start in range(0, len(samples), n)]
