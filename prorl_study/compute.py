"""What a run costs in floating-point operations, so that arms can be compared at equal compute.

A forward pass costs 2 operations per weight and token, a backward pass twice that (2001.08361, section 2.1);
attention over the context is left out, as there. Left out too: time, which depends on the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

FORWARD = 2
"""Operations per weight and token of a forward pass."""
BACKWARD = 4


def weights(model: Path) -> int:
    """Weights of the model in a folder that every token passes: all but the table of token embeddings,
    unless that is the output layer as well."""
    import json

    from safetensors import safe_open

    config = json.loads((model / "config.json").read_text())
    total = 0
    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                size = 1
                for length in tensors.get_slice(name).get_shape():
                    size *= length
                if "embed_tokens" not in name or config.get("tie_word_embeddings"):
                    total += size
    return total


def training_flops(tokens: Mapping[str, int], size: int, with_reference: bool) -> float:
    """Operations of a run of GRPO with a model of `size` weights.

    `tokens` as the trainer counts them: `sampled` and `prompt` pass the model once; `trained` pass it forward
    for the sampling policy's log-probabilities, forward and backward for the loss, and forward through the
    reference where there is a KL term.
    """
    sampling = FORWARD * (tokens["sampled"] + tokens["prompt"])
    passes = FORWARD + (FORWARD + BACKWARD) + (FORWARD if with_reference else 0)
    return float(size) * (sampling + passes * tokens["trained"])


def supervised_flops(tokens: Mapping[str, int], size: int) -> float:
    """Operations of a supervised run with a model of `size` weights: `sampled` and `prompt` tokens pass it
    forward once, `trained` ones forward and backward."""
    sampling = FORWARD * (tokens["sampled"] + tokens["prompt"])
    return float(size) * (sampling + (FORWARD + BACKWARD) * tokens["trained"])
