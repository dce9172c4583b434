"""What samples in evaluation, chosen by name: `transformers`, as on a CPU, or `vllm`, for big models.

Both take the same problems and sampler and give the same samples but for rounding and chance. Left out: how
either samples (`sampling`, `sampling_vllm`), and sampling in training, which the trainer does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prorl_study.domains.problem import Problem
from prorl_study.errors import StudyError
from prorl_study.sampling import Sample, Sampler

CODE = {"transformers": ("sampling.py", "rollout.py"), "vllm": ("sampling_vllm.py", "model_source.py")}
"""Modules that samples depend on, by engine."""


class Loaded(NamedTuple):
    """A model that answers."""

    engine: str
    model: Any
    """A transformers model, or vLLM."""
    tokenizer: Any


def load(engine: str, path: Path) -> Loaded:
    """The model in the folder `path`. Raises StudyError for an unknown engine, and as the engine does."""
    from prorl_study import sampling

    if engine not in CODE:
        raise StudyError(
            f"evaluation_engine={engine!r} must be one of {', '.join(CODE)}; change it in params.yaml."
        )
    if engine == "transformers":
        return Loaded(engine, *sampling.load(path))
    from transformers import AutoTokenizer

    from prorl_study import model_source, sampling_vllm

    if not (path / "config.json").is_file():
        raise StudyError(f"{path} holds no model (config.json is missing); make it with `dvc repro`.")
    source = model_source.Source(str(path), path, "", {})
    model = sampling_vllm.load(path, model_source.default_dtype(), model_source.context_limit(source))
    return Loaded(engine, model, AutoTokenizer.from_pretrained(path))


def sample(
    loaded: Loaded, problems: Sequence[Problem], n: int, sampler: Sampler, seed: int, progress: str = ""
) -> list[list[Sample]]:
    """`n` completions for each problem, as `[problem][sample]`, by the engine that `loaded` is of."""
    from prorl_study import sampling, sampling_vllm

    module = sampling if loaded.engine == "transformers" else sampling_vllm
    return module.sample(loaded.model, loaded.tokenizer, problems, n, sampler, seed, progress=progress)


def close(loaded: Loaded) -> None:
    """Free what vLLM holds of the card, so that the next model fits."""
    if loaded.engine == "vllm":
        from prorl_study import sampling_vllm

        sampling_vllm.close(loaded.model)
