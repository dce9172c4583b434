"""The embedded base model: a tokenizer, a small Qwen3, and the teacher with bad habits that it imitates.

The teacher's wrong strategies are systematic: most demonstrations follow one wrong way per domain, the
right way is the minority, compositions are short and some answers miss their format. So decoding tricks
cannot find what sampling sometimes does, and RL has something to amplify. Run as a module it trains the
model in its own process: `python -m prorl_study.base_model CONFIG.json`.

Left out: whether the base may be used (`gate`).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from prorl_study.domains import DOMAINS
from prorl_study.errors import StudyError
from prorl_study.files import code_digests
from prorl_study.params import BaseModelParams, build

END, USER, ASSISTANT, PAD = "<|end|>", "<|user|>", "<|assistant|>", "<|pad|>"
MARKS = ("<think>", "</think>", "<answer>", "</answer>")
"""Plain (not special) tokens, so that decoding keeps them."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}<|assistant|>{{ message.content }}<|end|>"
    "{% else %}<|user|>{{ message.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

TOKENIZER_ROWS = 10_000
"""Demonstrations whose text the tokenizer is built from."""

CONTEXT_TOKENS = 512
"""Positions of the embedded model; prompts and responses stay far below."""


def fingerprint(params: BaseModelParams, seed: int) -> str:
    """Sixteen hex digits that change with everything that determines the base model."""
    parts = {
        "params": asdict(params),
        "seed": seed,
        "code": code_digests("domains/*.py", "base_model.py", "optimizers.py"),
    }
    return "base-" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def teacher_examples(seed: int, index: int = 1) -> list[dict[str, str]]:
    """One problem per domain with the right completion and the habit: `{domain, prompt, right, habit}`."""
    examples = []
    for domain in DOMAINS.values():
        problem = domain.generate(seed, "demonstrations", index)
        examples.append(
            {
                "domain": domain.name,
                "prompt": problem.prompt[-1]["content"],
                "right": domain.solve(problem),
                "habit": domain.habit(problem, random.Random(seed)),
            }
        )
    return examples


TURNS = (*DOMAINS, "logic")
"""The order in which domains are shown; logic holds as many tasks as all others, so it comes twice."""


def demonstration(index: int, seed: int, params: BaseModelParams) -> dict[str, Any]:
    """Demonstration `index`: a chat prompt and the teacher's completion, a function of its arguments.

    Domains take turns. Returns `{"prompt": messages, "completion": messages}`.
    """
    domain = DOMAINS[TURNS[index % len(TURNS)]]
    problem = domain.generate(seed, "demonstrations", index)
    rng = random.Random(f"{seed}/teacher/{index}")
    follows_habit = rng.random() < params.habit_rate
    text = domain.habit(problem, rng) if follows_habit else domain.solve(problem)
    slip_rate = params.logic_slip_rate if domain.name == "logic" else params.slip_rate
    if rng.random() < slip_rate:
        text = domain.slip(text, rng)
    return {"prompt": problem.prompt, "completion": [{"role": "assistant", "content": text}]}


def demonstrations(count: int, seed: int, params: BaseModelParams, workers: int = 2) -> list[dict[str, Any]]:
    """The first `count` demonstrations, made in `workers` processes."""
    make = partial(demonstration, seed=seed, params=params)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(make, range(count), chunksize=500))


def build_tokenizer(texts: Iterable[str], vocabulary: int):
    """Byte-level BPE with single-digit tokens, think and answer marks, and a chat template.

    Returns a `PreTrainedTokenizerFast` that transformers, TRL and vLLM load unchanged.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d| ?[A-Za-z]+|\s+|[^\sA-Za-z\d]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary - len(MARKS),
            special_tokens=[PAD, END, USER, ASSISTANT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in MARKS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(params: BaseModelParams, tokenizer, seed: int):
    """A randomly initialised Qwen3 of the size that `params` gives, in fp32.

    Qwen3 for its normalised queries and keys, with which so small a model learns to copy in fewer steps.
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=-(-len(tokenizer) // 64) * 64,  # a multiple of 64 keeps the output layer's matmul fast
            hidden_size=params.hidden_size,
            intermediate_size=params.intermediate_size,
            num_hidden_layers=params.layers,
            num_attention_heads=params.heads,
            num_key_value_heads=params.heads,
            head_dim=params.hidden_size // params.heads,
            rope_parameters={"rope_type": "default", "rope_theta": 500.0},  # for texts of some hundred tokens
            max_position_embeddings=CONTEXT_TOKENS,
            tie_word_embeddings=True,
            initializer_range=0.05,  # the usual 0.02 is made for wide models
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def tokenize(row: Mapping[str, Any], tokenizer) -> dict[str, list[int]]:
    """Token ids and labels of one demonstration; only the completion is learned, prompts get -100."""
    prompt, whole = (
        tokenizer.apply_chat_template(messages, add_generation_prompt=opens, tokenize=True, return_dict=False)
        for messages, opens in ((row["prompt"], True), (row["prompt"] + row["completion"], False))
    )
    return {"input_ids": whole, "labels": [-100] * len(prompt) + whole[len(prompt) :]}


def batch_order(lengths: Sequence[int], batch: int, steps: int, seed: int) -> list[int]:
    """Indices of `steps` batches, one after the other: rows of similar length share a batch, batches come in
    random order. Transformers' own grouping keeps batches of one length, and so of one domain, together in
    time, and a small model forgets in between.
    """
    rng, order = random.Random(seed), []
    while len(order) < steps * batch:
        epoch = list(range(len(lengths)))
        rng.shuffle(epoch)
        for start in range(0, len(epoch), batch * 50):
            chunk = sorted(epoch[start : start + batch * 50], key=lambda i: lengths[i])
            batches = [chunk[i : i + batch] for i in range(0, len(chunk) - batch + 1, batch)]
            rng.shuffle(batches)
            order += [i for part in batches for i in part]
        if not order:
            raise StudyError(f"demonstrations={len(lengths)} must be at least sft_batch={batch}; raise it.")
    return order[: steps * batch]


def train(work: Path, out: Path, params: BaseModelParams, seed: int) -> None:
    """Imitate the teacher with transformers' Trainer; go on from the last checkpoint in `work` if any.

    Writes `work/log.jsonl` with one line per logged step. `out` appears complete or not at all.
    """
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments
    from transformers.trainer_utils import get_last_checkpoint

    from prorl_study.optimizers import MuonAdamW

    rows = demonstrations(params.demonstrations, seed, params)
    tokenizer = build_tokenizer(
        (
            message["content"]
            for row in rows[:TOKENIZER_ROWS]
            for message in row["prompt"] + row["completion"]
        ),
        params.vocabulary,
    )
    config = TrainingArguments(
        output_dir=str(work / "checkpoints"),
        max_steps=params.sft_steps,
        per_device_train_batch_size=params.sft_batch,
        learning_rate=params.sft_learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1},
        warmup_steps=max(1, params.sft_steps // 20),
        max_grad_norm=1.0,
        use_cpu=True,
        train_sampling_strategy="sequential",  # the order is `batch_order`'s
        logging_steps=10,
        save_steps=400,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        seed=seed,
        data_seed=seed,
    )
    tokenized = [tokenize(row, tokenizer) for row in rows]
    lengths = [len(row["input_ids"]) for row in tokenized]
    order = batch_order(lengths, params.sft_batch, params.sft_steps, seed)
    model = build_model(params, tokenizer, seed)
    trainer = Trainer(
        model=model,
        args=config,
        train_dataset=[tokenized[i] for i in order],
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding="longest"),
        processing_class=tokenizer,
        callbacks=[_log_callback(work / "log.jsonl")],
        optimizers=(MuonAdamW(model, params.sft_learning_rate, params.sft_learning_rate / 6), None),
    )
    checkpoints = work / "checkpoints"
    trainer.train(resume_from_checkpoint=get_last_checkpoint(checkpoints) if checkpoints.is_dir() else None)
    partial_out = out.with_name(out.name + ".partial")
    shutil.rmtree(partial_out, ignore_errors=True)
    trainer.save_model(str(partial_out))
    (partial_out / "training_args.bin").unlink(missing_ok=True)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(partial_out, out)


def _log_callback(path: Path):
    from transformers import TrainerCallback

    class Log(TrainerCallback):
        """Appends the supervised loss to `log.jsonl`."""

        def on_log(self, args, state, control, logs=None, **kwargs):
            if logs and "loss" in logs:
                with path.open("a") as file:
                    file.write(json.dumps({"step": state.global_step, "loss": logs["loss"]}) + "\n")

    return Log()


def main(arguments: Sequence[str]) -> None:
    """Entry point of the training subprocess; its one argument is the path of a JSON config."""
    config = json.loads(Path(arguments[0]).read_text())
    params = build(BaseModelParams, config["params"], "base_model's config")
    train(Path(config["work"]), Path(config["out"]), params, config["seed"])


def write_config(path: Path, work: Path, out: Path, params: BaseModelParams, seed: int) -> None:
    """Write what `main` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"work": str(work), "out": str(out), "params": asdict(params), "seed": seed}))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except StudyError as error:
        sys.exit(str(error))
