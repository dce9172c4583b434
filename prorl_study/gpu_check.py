"""What a card makes of this study: `make gpu-check`, with torch and the training libraries alone.

Runs the real trainer on a model of random weights in the architecture of DeepSeek-R1-Distill-Qwen-1.5B, so
nothing is downloaded. Measures the training step at two lengths, with completions given instead of sampled;
a reset and a resume through the study's own segments, on fewer layers of the same width; how far bf16 moves
log-probabilities; what a step of 2e-6 leaves of itself in bf16 weights; and, where vLLM is installed, its
rollouts in training and its sampling in evaluation (`gpu_check_vllm`). Left out: anything on several cards.
Random weights say nothing about learning.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorl_study.domains.problem import Problem, Verdict
from prorl_study.errors import StudyError
from prorl_study.files import digests, read_log, write_json
from prorl_study.launcher import run_module
from prorl_study.model_source import first_line
from prorl_study.params import SegmentParams, TrainParams, load
from prorl_study.paths import project_root

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from prorl_study.trainer import ProRLTrainer

ARCHITECTURE = {
    "vocab_size": 151936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
"""Of DeepSeek-R1-Distill-Qwen-1.5B, from its config.json."""

MODULE = "prorl_study.gpu_check"
VLLM_MODULE = "prorl_study.gpu_check_vllm"
OUT = "results/gpu_check.json"
SEED = 1
MATMUL_TRIES = 10
STEPS = 4
"""Rollout steps at each length; the first warms up and is not counted."""
SMALL_STEP = 2e-6
"""The paper's learning rate, which is also the size of AdamW's first step."""
STARTING_SECONDS = 300


@dataclass(frozen=True)
class Sizes:
    """How much is run: the defaults are for a card of 80 GB."""

    architecture: Mapping[str, Any] = field(default_factory=lambda: ARCHITECTURE)
    lengths: tuple[tuple[int, int], ...] = ((2048, 8), (8192, 2))
    """Pairs of completion tokens and rollouts in a step; a step makes two updates."""
    matmul: int = 8192
    segment_layers: int = 4
    segment_tokens: int = 40_000
    drift_rows: int = 4
    drift_tokens: int = 1024


def main(arguments: list[str]) -> None:
    """Run everything and write `results/gpu_check.json`. With the path of a segment's configuration: train
    that segment, with deterministic algorithms, as `resume` wants it."""
    if arguments:
        _train_deterministically(Path(arguments[0]))
        return
    import torch

    if not torch.cuda.is_available():
        raise StudyError(
            "no CUDA card is to be seen by torch; run this on a machine with one, with a CUDA build of torch."
        )
    out = project_root() / OUT
    with tempfile.TemporaryDirectory() as folder:
        report = check(Path(folder), Sizes(), out)
    failed = [name for name, part in report.items() if "failed" in part]
    if failed:
        raise StudyError(f"{out}: {', '.join(failed)} failed; the file says how.")
    print(f"{out} is written.")


def check(folder: Path, sizes: Sizes, out: Path) -> dict[str, Any]:
    """All checks, with models in `folder`; what is known so far is in `out` after each of them. One that
    fails says so in its place and does not keep the others from running."""
    parts = {"machine": lambda: machine(sizes.matmul)}
    for length, rollouts in sizes.lengths:
        parts[f"training_step_{length}"] = partial(training_step, folder / "model", length, rollouts)
    parts |= {
        "small_step": small_step,
        "drift": lambda: drift(folder / "model", sizes.drift_rows, sizes.drift_tokens),
        "segments": lambda: segments(folder / "segments", sizes),
        "vllm_rollouts": lambda: with_vllm("rollouts", folder),
        "vllm_evaluation": lambda: with_vllm("evaluation", folder),
    }
    save_model(folder / "model", sizes.architecture)
    report: dict[str, Any] = {}
    for name, part in parts.items():
        began = time.monotonic()
        try:
            report[name] = part()
        except (StudyError, RuntimeError) as error:  # a length that does not fit the card, say
            report[name] = {"failed": first_line(error)}
        if "model_tflops" in report[name]:
            share = report[name]["model_tflops"] / report["machine"]["matmul_tflops"]
            report[name]["share_of_matmul_rate"] = round(share, 4)
        print(f"{name} ({time.monotonic() - began:.0f} s): {json.dumps(report[name])}", flush=True)
        write_json(report, out)
    return report


def device() -> str:
    """`cuda` where there is a card; the tests of this module run on `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def wait() -> None:
    """Until the card has done what it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def free_memory() -> int:
    """Bytes of the card that nothing holds, once what is no longer used is given back; 0 without a card."""
    import torch

    if not torch.cuda.is_available():
        return 0
    gc.collect()  # models under autocast refer to themselves
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def peak_memory_gb() -> float:
    """Most memory that tensors have held since `torch.cuda.reset_peak_memory_stats`; 0 without a card."""
    import torch

    return round(torch.cuda.max_memory_allocated() / 1e9, 2) if torch.cuda.is_available() else 0.0


def machine(size: int) -> dict[str, Any]:
    """The card, the versions, and the rate of a bf16 product of two matrices of `size` by `size`, random."""
    from importlib.metadata import version

    import torch

    a, b = (torch.randn(size, size, device=device(), dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    wait()
    began = time.perf_counter()
    for _ in range(MATMUL_TRIES):
        a @ b
    wait()
    seconds = (time.perf_counter() - began) / MATMUL_TRIES
    cuda = torch.cuda.is_available()
    return {
        "card": torch.cuda.get_device_name() if cuda else "none",
        "memory_gb": round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1) if cuda else 0.0,
        "cuda": torch.version.cuda or "none",
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "accelerate")},
        "date": time.strftime("%Y-%m-%d"),
        "matmul_tflops": round(2 * size**3 / seconds / 1e12, 6),
    }


# ---- models and problems ------------------------------------------------------------------------------


def save_model(folder: Path, architecture: Mapping[str, Any]) -> Path:
    """A model of random weights, fp32, with the study's own kind of tokenizer, whose ids it has all."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from prorl_study.base_model import build_tokenizer

    tokenizer = build_tokenizer(["0123456789 abcdefghijklmnopqrstuvwxyz +-*/=()" * 3], 300)
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(SEED)
    with torch.device(device()):  # on a CPU, random numbers for 1.8 billion weights take half a minute
        model = Qwen2ForCausalLM(Qwen2Config(**architecture, bos_token_id=None, **special))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_problems(folder: Path) -> Path:
    """A few of the study's own math problems, as `problems.load_problems` reads them."""
    import pandas as pd

    from prorl_study.problems import generate_domain

    folder.mkdir(parents=True)
    for split, problems in generate_domain(SEED, "math", {"train": 200, "validation": 8}).items():
        pd.DataFrame([p.row() for p in problems]).to_parquet(folder / f"{split}.parquet", index=False)
    (folder / "floors.json").write_text("{}")
    return folder


def recipe(**changes: Any) -> TrainParams:
    """The study's recipe at the paper's learning rate, on math alone, with a reward drawn by lot."""
    train = load(project_root() / "params.yaml").train
    fixed = {"domains": ["math"], "curriculum": [], "reward": "random", "learning_rate": SMALL_STEP}
    return replace(train, **fixed | changes)


class Unasked:
    """In place of the pool that judges, for rewards that are drawn by lot."""

    def verify(self, items: list[tuple[Problem, str]], *, answers: bool) -> list[Verdict]:
        return [Verdict(0.0, False, "wrong")] * len(items)


def math_problems(split: str, count: int) -> list[Problem]:
    from prorl_study.problems import generate_domain

    return generate_domain(SEED, "math", {split: count})[split]


def trainer_on(
    kind: type[ProRLTrainer],
    model: Path,
    train: TrainParams,
    steps: int,
    watch: TrainerCallback,
    **others: Any,
) -> ProRLTrainer:
    """A trainer on math under rewards by lot, of `steps` rollout steps, that writes no checkpoint; `others`
    are of `grpo_config`. Its folder is a temporary one, which nothing is written to."""
    from transformers import AutoTokenizer, PrinterCallback

    from prorl_study.recipe import grpo_config

    with tempfile.TemporaryDirectory() as out:
        config = grpo_config(train, steps, Path(out), SEED, on_gpu=device() == "cuda", **others)
    config.save_strategy = "no"
    trainer = kind(
        model=str(model),
        config=config,
        problems=math_problems("train", 8 * steps * train.prompts_per_step),
        weights={"math": 1.0},
        floors={},
        judge=Unasked(),
        tokenizer=AutoTokenizer.from_pretrained(model),
        dynamic_sampling=train.dynamic_sampling,
        reward="random",
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


# ---- the training step --------------------------------------------------------------------------------


def training_step(model: Path, length: int, rollouts: int) -> dict[str, Any]:
    """Speed and memory of the trainer's steps on completions of `length` random tokens.

    A rollout step passes one group of `rollouts` completions through the policy and the reference for their
    log-probabilities, then makes two updates, each on half of them. Operations are the model's own (2 per
    weight and token forward, 4 backward), without attention and without what checkpointing computes again.
    """
    import torch
    from transformers import TrainerCallback

    from prorl_study import compute
    from prorl_study.trainer import ProRLTrainer

    class Given(ProRLTrainer):
        """Completions are given, not sampled."""

        def _generate_single_turn(self, prompt_ids, *args, **kwargs):
            rng = torch.Generator().manual_seed(SEED + self.rollout_steps)
            most = self._tokenizer.vocab_size - 1
            return [torch.randint(most, (length,), generator=rng).tolist() for _ in prompt_ids], None

    class Clock(TrainerCallback):
        marks: list[float] = []

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step % updates == 0:
                wait()
                self.marks.append(time.perf_counter())

    updates, clock = 2, Clock()
    train = recipe(
        prompts_per_step=1,
        rollouts_per_prompt=rollouts,
        updates_per_rollout=updates,
        max_completion_tokens=length,
        dynamic_sampling=False,
        kl_beta=1e-3,
    )
    trainer = trainer_on(Given, model, train, STEPS, clock)
    if device() == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    taken = [after - before for before, after in zip(clock.marks, clock.marks[1:], strict=False)]
    seconds = sum(taken) / len(taken)
    tokens = trainer.tokens["trained"] / STEPS
    size = compute.weights(model)
    flops = compute.training_flops({"sampled": 0, "prompt": 0, "trained": tokens}, size, with_reference=True)
    report = {
        "completion_tokens": length,
        "rollouts": rollouts,
        "weights": sum(p.numel() for p in trainer.model.parameters()),
        "weights_dtype": str(next(trainer.model.parameters()).dtype).removeprefix("torch."),
        "autocast": "bfloat16" if trainer.args.bf16 else "none",
        "seconds_per_rollout_step": round(seconds, 4),
        "slowest_over_fastest": round(max(taken) / min(taken), 3),
        "tokens_per_second": round(tokens / seconds, 1),
        "model_tflops": round(flops / seconds / 1e12, 3),
        "peak_memory_gb": peak_memory_gb(),
    }
    del trainer
    free_memory()
    return report


# ---- numbers in bf16 ----------------------------------------------------------------------------------


def small_step() -> dict[str, Any]:
    """Share of weights that a first AdamW step of 2e-6 moves at all, by what the weights are stored in."""
    import torch

    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(SEED)
        weight = torch.nn.Parameter((0.02 * torch.randn(1024, 1024, device=device())).to(dtype))
        before = weight.detach().clone()
        weight.grad = torch.randn_like(weight)
        torch.optim.AdamW([weight], lr=SMALL_STEP, weight_decay=0.0).step()
        moved[str(dtype).removeprefix("torch.")] = round(float((weight != before).double().mean()), 5)
    return {"step": SMALL_STEP, "moved_share": moved}


def drift(model: Path, rows: int, tokens: int) -> dict[str, Any]:
    """How far log-probabilities of given tokens in bf16 lie from those in fp32, in nats: with fp32 weights
    under autocast, as training computes them, and with bf16 weights, as engines that sample do."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(SEED)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(device()).eval()
    ids = torch.randint(network.config.vocab_size, (rows, tokens), device=device())

    @torch.no_grad()
    def logps() -> torch.Tensor:
        logits = torch.cat([network(input_ids=row[None]).logits[:, :-1].float() for row in ids])
        return logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).double()

    exact = logps()
    with torch.autocast(device(), torch.bfloat16):
        under_autocast = logps()
    network.to(torch.bfloat16)
    in_bf16 = logps()
    report: dict[str, Any] = {"tokens": exact.numel(), "model": "random weights"}
    for name, other in (("bf16_autocast", under_autocast), ("bf16_weights", in_bf16)):
        apart = (other - exact).abs().flatten()
        report[name] = {
            "mean": round(float(apart.mean()), 6),
            "p99": round(float(apart.quantile(0.99)), 6),
            "most": round(float(apart.max()), 6),
        }
    return report


# ---- the reset and the resume ---------------------------------------------------------------------------


def segments(folder: Path, sizes: Sizes) -> dict[str, Any]:
    """Two segments with a reset between them; the second also killed after a checkpoint and gone on with.

    Raises StudyError where a segment fails, or was over before it could be killed.
    """
    layers = {**sizes.architecture, "num_hidden_layers": sizes.segment_layers, "vocab_size": 320}
    base, problems = save_model(folder / "base", layers), save_problems(folder / "problems")
    train = recipe(
        prompts_per_step=8,
        rollouts_per_prompt=8,
        updates_per_rollout=2,
        max_completion_tokens=64,
        validate_every=1000,
        validation_prompts=4,
        probe_every=1000,
        checkpoint_every=2,
        alarm_kl=1e9,
        alarm_entropy=0.0,
    )

    def configuration(name: str, previous: Path, out: str, reference: str) -> Path:
        optimizer = "fresh" if reference == "move" else "keep"
        segment = SegmentParams(name, previous.name, sizes.segment_tokens, reference, optimizer, "log")
        path = folder / f"{out}.json"
        value = {
            "train": asdict(train),
            "segment": asdict(segment),
            "seed": SEED,
            "problems": str(problems),
            "previous": str(previous),
            "out": str(folder / out),
            "work": str(folder / f"{out}-work"),
            "eval_temperature": 0.6,
            "top_p": 1.0,
            "batch_tokens": 100_000,
            "isolation": "process",  # the answers are those of random weights, and to arithmetic alone
            "workers": 1,
        }
        write_json(value, path)
        return path

    _run(configuration("s1", base, "s1", "move"))
    straight = configuration("s2", folder / "s1", "straight", "move")
    _run(straight)
    killed = configuration("s2", folder / "s1", "killed", "move")
    _kill_after_checkpoint(killed, folder / "killed-work" / "checkpoints")
    _run(killed)
    _run(configuration("s2", folder / "s1", "kept", "keep"))
    logs = [read_log(folder / f"{name}-work" / "log.jsonl") for name in ("straight", "killed", "kept")]
    weights = {name: _weights(folder / name) for name in ("s1", "straight", "killed")}
    return {
        "layers": sizes.segment_layers,
        "hidden_size": layers["hidden_size"],
        "steps": len(logs[0]),
        "reset": {
            "reference_is_previous_policy": weights["s1"] == _weights(folder / "straight" / "reference"),
            "kept_reference_is_base": _weights(base) == _weights(folder / "kept" / "reference"),
            "kl_of_first_step": {"reset": logs[0][0]["kl"], "kept": logs[2][0]["kl"]},
        },
        "resume": {
            "weights_identical": weights["killed"] == weights["straight"],
            "log_identical": logs[0] == logs[1],
            "steps_before_the_kill_and_after": _steps_apart(folder / "killed-work" / "times.jsonl"),
        },
    }


def _run(configuration: Path) -> None:
    run_module(MODULE, [str(configuration)], configuration.with_suffix(".log"))


def _kill_after_checkpoint(configuration: Path, checkpoints: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", MODULE, str(configuration)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + STARTING_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        if any(checkpoints.glob("*/study_state.json")):
            child.send_signal(signal.SIGKILL)
            child.wait()
            return
        time.sleep(0.01)
    child.kill()
    raise StudyError(f"training {configuration.stem} was not to be killed: it ended, or left no checkpoint.")


def _steps_apart(times: Path) -> list[int]:
    """Steps that were made before the kill and after it, those that were made twice in both."""
    seconds = [record["seconds"] for record in read_log(times)]
    cut = next(i for i in range(1, len(seconds)) if seconds[i] < seconds[i - 1])
    return [cut, len(seconds) - cut]


def _weights(folder: Path) -> dict[str, str]:
    return digests(folder, ["*.safetensors"])


def _train_deterministically(configuration: Path) -> None:
    import torch

    from prorl_study.segments import SegmentConfig, train_segment

    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it cuBLAS does not repeat its sums to the bit
    torch.use_deterministic_algorithms(True, warn_only=True)
    train_segment(SegmentConfig.read(configuration))


# ---- vLLM -----------------------------------------------------------------------------------------------


def with_vllm(part: str, folder: Path) -> dict[str, Any]:
    """A part of `gpu_check_vllm` in a process of its own, on the model that all parts share; where there is
    no vLLM, or no card for it, only that it was left out."""
    if device() != "cuda" or not find_spec("vllm"):
        return {"left_out": "no vLLM here, or no card"}
    out = folder / f"vllm-{part}.json"
    run_module(VLLM_MODULE, [part, str(folder / "model"), str(out)], out.with_suffix(".log"))
    return json.loads(out.read_text())


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except StudyError as error:
        sys.exit(str(error))
