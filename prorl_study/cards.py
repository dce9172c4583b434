"""What a model weighs, what a card holds and does a second: the sizes and rates that `planning` reckons with.

The rates are assumed, none was measured on a card by this study unless `make gpu-check` has left one; each
says where it is from. Left out: what a run samples and trains on (`planning`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prorl_study.curriculum import phases
from prorl_study.domains import DOMAINS
from prorl_study.errors import StudyError
from prorl_study.gpu_check import ARCHITECTURE
from prorl_study.params import Params

ANSWER_RATE = 10_000.0
"""Answer tokens a second that vLLM draws on one card of 80 GB with 1.5 billion weights, assumed. A published
number is lower: 36.5 answers a second on 64 cards under a cap of 16k (2510.01180) are some 3,000 tokens a
second and card where an answer has 5,000, the wait for each batch's longest answer included."""
SMALL_CARD_RATE = 5_000.0
"""The same on a card of 24 GB with half a billion, assumed: a third of the bandwidth, of the weights too."""
LOOP_SHARE = 0.2
"""Of that rate, for generation without vLLM, assumed."""
TRAINING_SHARE = 0.2
"""Of the data sheet's dense bf16 rate that the model's own operations reach in training, assumed; those of
attention and of what checkpointing computes again are not counted."""
PROMPT_TOKENS = 200
"""Tokens of a prompt, assumed."""


# ---- models ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """The sizes of a decoder with grouped queries and a gated feed-forward layer."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    """Whether the output layer is the table of embeddings."""
    bias: bool = False
    """Whether queries, keys and values have one, as in Qwen2."""

    @property
    def weights(self) -> int:
        queries, keys = self.heads * self.head_size, self.key_heads * self.head_size
        layer = 2 * self.hidden * (queries + keys) + 3 * self.hidden * self.intermediate + 2 * self.hidden
        layer += (queries + 2 * keys) * self.bias
        tables = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return tables + self.layers * layer + self.hidden

    @property
    def passed(self) -> int:
        """Weights that every token passes, as `compute.weights` counts them."""
        return self.weights - (0 if self.tied else self.vocabulary * self.hidden)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Model:
        """From a Hugging Face configuration of Qwen's or Llama's kind. Raises KeyError for another."""
        heads = config["num_attention_heads"]
        return cls(
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            key_heads=config.get("num_key_value_heads", heads),
            head_size=config.get("head_dim") or config["hidden_size"] // heads,
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
            bias=config.get("model_type", "qwen2") == "qwen2",
        )


MODELS = {
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": Model.of(ARCHITECTURE),
    "Qwen/Qwen2.5-0.5B-Instruct": Model(896, 4864, 24, 14, 2, 64, 151936, tied=True, bias=True),
}
"""From their config.json."""


def model_of(study: Params) -> Model:
    """The model that the study trains. Raises StudyError where its sizes are not known."""
    base = study.origin.base
    if not base:
        own = study.base_model
        sizes = (own.hidden_size, own.intermediate_size, own.layers, own.heads, own.heads)
        return Model(*sizes, own.hidden_size // own.heads, own.vocabulary, tied=True)
    if base in MODELS:
        return MODELS[base]
    try:
        return Model.of(json.loads((Path(base) / "config.json").read_text()))
    except (OSError, ValueError, KeyError):
        raise StudyError(
            f"the sizes of {base} are not known here, so it cannot be planned; give a local folder with its "
            f"config.json, or one of {', '.join(MODELS)}."
        ) from None


# ---- machines ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """The cards that a profile is meant for, and what each of them does a second."""

    card: str
    memory_gb: float
    """Of 10^9 bytes."""
    sheet_tflops: float
    """Dense bf16 operations with fp32 sums, from the data sheet, in 10^12 a second."""
    rate: float
    """Answer tokens a second and card, by vLLM."""
    training: int = 1
    """Cards that train; where vLLM is colocated they sample too."""
    serving: int = 0
    """Cards that sample behind a server."""
    held: int = 1
    """Cards that a training stage is charged for, idle ones included."""
    tflops: float = 0.0
    """Measured rate of training; 0: not measured."""

    @property
    def training_tflops(self) -> float:
        return self.tflops or TRAINING_SHARE * self.sheet_tflops


H100 = Machine("H100 80 GB", 80.0, 989.0, ANSWER_RATE)
RTX4090 = Machine("RTX 4090 24 GB", 24.0, 165.0, SMALL_CARD_RATE)
MACHINES = {
    "gpu_small": RTX4090,
    # Two nodes of eight. TRL takes one server and no data parallelism in it, and twelve heads go evenly on
    # four cards at most, so that four of the server's eight stay idle.
    "cluster": replace(H100, training=8, serving=4, held=16),
}
"""By profile; others are planned on one card of 80 GB."""


def machine_of(study: Params, measured: Path, rate: float | None = None) -> Machine:
    """The profile's cards, with the training rate of `measured`, a file of `make gpu-check` that may not be
    there, and with `rate` where it is given."""
    machine = MACHINES.get(study.profile, H100)
    checked = json.loads(measured.read_text()) if measured.is_file() else {}
    steps = {
        part["completion_tokens"]: part["model_tflops"]
        for part in checked.values()
        if part.get("model_tflops") and checked.get("machine", {}).get("card", "none") != "none"
    }
    if steps:
        nearest = min(steps, key=lambda length: abs(length - study.train.max_completion_tokens))
        card = checked["machine"]
        machine = replace(machine, card=card["card"], memory_gb=card["memory_gb"], tflops=steps[nearest])
    return replace(machine, rate=rate) if rate else machine


# ---- memory and disk ---------------------------------------------------------------------------------------

TILE_TOKENS = 4096
"""Tokens whose logits TRL's output layer holds at once at most."""
CUDA_GB = 1.5
"""Context, libraries and what the allocator cannot use."""


def memory(study: Params, machine: Machine) -> dict[str, float]:
    """What a training card holds at its fullest, in GB of 10^9 bytes, by name.

    Weights, gradients and both of AdamW's moments are fp32; under autocast there is a copy in bf16 besides.
    Of a micro-batch, each layer's input is kept (fp32) and one layer is computed again at a time, which takes
    some 8 bytes per feed-forward unit and 40 per hidden one, twice. Sharded by FSDP or ZeRO-3, a card has its
    part of the state, and one layer's weights whole, which the copy covers.
    """
    model, train, engine = model_of(study), study.train, study.engine
    shards = machine.training if any(name in engine.launcher for name in ("fsdp", "zero3")) else 1
    plan = [phase for _, phase in phases(train, list(DOMAINS))]
    updates, tokens = train.updates_per_rollout * machine.training, 0
    for phase in plan:
        rows = own = train.prompts_per_step * phase.rollouts_per_prompt // updates
        if engine.micro_batch:  # of the first phase: TRL splits a larger batch into as many parts
            rows = min(own, engine.micro_batch * phase.rollouts_per_prompt // train.rollouts_per_prompt)
        tokens = max(tokens, rows * (phase.max_completion_tokens + PROMPT_TOKENS))
    kept = model.layers * model.hidden * 4 + 2 * (8 * model.intermediate + 40 * model.hidden)
    found = {
        "weights": 4 * model.weights / shards,
        "gradients": 4 * model.weights / shards,
        "AdamW": 8 * model.weights / shards,
        "reference": 4 * model.weights / shards * (train.kl_beta > 0),
        "bf16 copy": 2 * model.weights,
        "micro-batch": tokens * kept,
        "logits": 2 * min(tokens, TILE_TOKENS) * model.vocabulary,
        "vLLM": 1e9 * engine.vllm_memory * machine.memory_gb * (engine.rollout_engine == "vllm_colocate"),
        "CUDA": 1e9 * CUDA_GB,
    }
    return {name: size / 1e9 for name, size in found.items()}


def disk(study: Params) -> float:
    """GB of models and checkpoints: of each segment a checkpoint (weights, AdamW; two more while it trains),
    and the model with its reference and AdamW, for the main run once more in DVC's cache."""
    weights = model_of(study).weights
    checkpoint, exported = 12 * weights, 16 * weights
    one = checkpoint + exported
    total = len(study.segments) * (one + exported + len(study.arms.arms) * one) + 2 * checkpoint
    return total / 1e9
