"""Supervised controls that spend what an RL run spent: training on answers that the verifier found right.

`filtered` trains the run's base on all rollouts that an RL run of the same seed had solved. `rejection` goes
in rounds (RAFT, 2304.06767; ReST-EM, 2312.06585): the current model samples the recipe's prompts, and is
trained on what the verifier found right for the rest of the round's share of operations. Sampling counts in
both, so neither spends more than the RL run did. Optimizer, learning rate, clipping and rows per update are
the recipe's. Left out: judging the models at the parts' ends (`runs`), and validation on the way.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from prorl_study.checkpoints import STATE_FILE, complete_checkpoints, read_state
from prorl_study.compute import BACKWARD, FORWARD, weights
from prorl_study.curriculum import phase_at, phases
from prorl_study.domains import DOMAINS
from prorl_study.dynamic_sampling import DynamicSampling, Group
from prorl_study.errors import StudyError
from prorl_study.files import digests, read_log, write_json
from prorl_study.params import TrainParams
from prorl_study.problems import load_problems
from prorl_study.rollout import Decoding, generate, seeded_uniforms
from prorl_study.sampling import load
from prorl_study.streams import PromptStream

if TYPE_CHECKING:
    from prorl_study.trainer import Judge

Row = tuple[list[int], list[int]]
"""Token ids of a prompt and of its completion."""

NOT_EXPORTED = ("optimizer.pt", "scheduler.pt", "rng_state*.pth", "trainer_state.json", "training_args.bin")


@dataclass(frozen=True)
class Control:
    """One supervised run. It starts from a base, and its tokens count from there."""

    learner: str
    """`filtered` or `rejection`."""
    train: TrainParams
    seed: int
    problems: Path
    """Folder with the problem parquet files."""
    start: Path
    """Folder of the base, the one that the RL run started from."""
    work: Path
    parts: int
    """Models that come of it, at equal shares of the operations: as many as the RL run has segments."""
    teacher: Mapping[str, Any]
    """The RL run's row of results."""
    rollouts: Sequence[Path] = ()
    """`segments.ROLLOUTS` of each of the RL run's segments, in order; only `filtered` reads them."""


# ---- what may be spent ------------------------------------------------------------------------------------


def trainable(flops: float, tokens: Mapping[str, int], size: int) -> int:
    """Tokens that training may pass over in all, so that with the `sampled` and `prompt` ones of `tokens` no
    more than `flops` operations are spent. Raises StudyError where these alone have used them up.
    """
    left = flops / size - FORWARD * (tokens["sampled"] + tokens["prompt"])
    if left < FORWARD + BACKWARD:
        raise StudyError(
            f"sampling {tokens['sampled']:,} tokens has used up the {flops:.3g} operations that there are, "
            "with none left for training; compare with a run that trains on more of what it samples."
        )
    return int(left // (FORWARD + BACKWARD))


def batch_rows(train: TrainParams) -> int:
    """Rows that an update passes over, as many as one of the RL recipe's."""
    return train.prompts_per_step * train.rollouts_per_prompt // train.updates_per_rollout


def batches(lengths: Sequence[int], batch: int, budget: int, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the rows of all whole batches of `batch` that `budget` tokens pay for, one batch after the
    other, and the tokens passed after each batch.

    Every epoch is a seeded shuffle of all rows, and a batch may span two: a larger budget only adds batches.
    Raises StudyError where there are no rows, or the budget is below one batch.
    """
    if not lengths:
        raise StudyError("no rollout was solved, so there is nothing to learn from; use a better base.")
    rng, order, passed, waiting = random.Random(seed), [], [0], []
    while True:
        while len(waiting) < batch:
            epoch = list(range(len(lengths)))
            rng.shuffle(epoch)
            waiting += epoch
        taken, waiting = waiting[:batch], waiting[batch:]
        after = passed[-1] + sum(lengths[i] for i in taken)
        if after > budget:
            break
        order += taken
        passed.append(after)
    if not order:
        raise StudyError(f"{budget:,} tokens do not pay for one batch of {batch} rows; raise the budget.")
    return order, passed[1:]


# ---- one stretch of training ------------------------------------------------------------------------------


def train_stretch(
    start: Path,
    rows: Sequence[Row],
    budget: int,
    recipe: TrainParams,
    seed: int,
    work: Path,
    out: Path,
    counts: Mapping[str, Any],
    goes_on: Path | None = None,
) -> int:
    """Train the model in `start` on the completions of `rows`, and return how many tokens were passed: all
    whole batches that `budget` tokens pay for, prompts included and padding not.

    Goes on from the last complete checkpoint in `work`, else from the end of the stretch that had `goes_on`
    as its work folder, the same rows and a smaller budget, as if both were one. Writes `work/log.jsonl`, a
    line per update. `out` gets the model, its tokenizer and the study's state, which is `counts` with the
    tokens passed added to `trained`; it appears complete or not at all. Raises what `batches` raises, and
    StudyError where the loss is not a number.
    """
    batch = batch_rows(recipe)
    order, passed = batches([len(p) + len(c) for p, c in rows], batch, budget, seed)
    wanted = hashlib.sha256(json.dumps([rows, asdict(recipe), seed, digests(start)]).encode()).hexdigest()
    checkpoints = work / "checkpoints"
    before = _last(goes_on / "checkpoints", wanted, len(passed)) if goes_on else None
    last = _last(checkpoints, wanted, len(passed))
    for other in checkpoints.glob("checkpoint-*"):
        if other != last:
            shutil.rmtree(other)  # unfinished, older, or of another run
    last, tokens = last or before, counts["tokens"]
    if last is None or _step(last) < len(passed):
        tokenizer, gpu = AutoTokenizer.from_pretrained(start), torch.cuda.is_available()
        trainer = Trainer(
            model=AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32),
            args=TrainingArguments(
                output_dir=str(checkpoints),
                max_steps=len(passed),
                per_device_train_batch_size=batch,
                learning_rate=recipe.learning_rate,
                lr_scheduler_type="constant",
                weight_decay=0.0,
                max_grad_norm=recipe.max_grad_norm,
                use_cpu=not gpu,
                bf16=gpu,
                train_sampling_strategy="sequential",  # the order is `batches`'
                logging_steps=1,
                logging_nan_inf_filter=False,
                save_steps=recipe.checkpoint_every * recipe.updates_per_rollout,
                save_total_limit=2,  # the newest may be unfinished
                report_to="none",
                disable_tqdm=True,
                seed=seed,
                data_seed=seed,
            ),
            train_dataset=[_learned(rows[i]) for i in order],
            data_collator=DataCollatorForSeq2Seq(tokenizer, padding="longest"),
            processing_class=tokenizer,
            callbacks=[_Watch(work / "log.jsonl", wanted, passed, tokens, _step(before) if before else 0)],
        )
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        last = _last(checkpoints, wanted, len(passed))
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(last, partial, ignore=shutil.ignore_patterns(*NOT_EXPORTED))
    ended = {**counts, "tokens": {**tokens, "trained": tokens["trained"] + passed[-1]}}
    write_json({"trainer": ended, "boundaries": [], "firings": []}, partial / STATE_FILE)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(partial, out)
    return passed[-1]


def _learned(row: Row) -> dict[str, list[int]]:
    """Token ids and labels: only the completion is learned."""
    prompt, completion = row
    return {"input_ids": [*prompt, *completion], "labels": [-100] * len(prompt) + list(completion)}


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _last(checkpoints: Path, wanted: str, steps: int) -> Path | None:
    """The newest complete checkpoint that this training made, `steps` updates long at most."""
    own = (c for c in complete_checkpoints(checkpoints) if read_state(c)["identity"] == wanted)
    return next((c for c in own if _step(c) <= steps), None)


class _Watch(TrainerCallback):
    """Writes the log, and marks a checkpoint as complete once all else of it is written."""

    def __init__(
        self, log: Path, wanted: str, passed: Sequence[int], tokens: Mapping[str, int], first: int
    ) -> None:
        self.path, self.wanted, self.passed, self.tokens, self.first = log, wanted, passed, tokens, first

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            raise StudyError(f"the loss is not a number at update {state.global_step}; lower learning_rate.")
        # Transformers keeps its records in its checkpoints, so none is left of what a kill undid.
        lines = [
            {
                "step": record["step"],
                "segment": self.path.parent.name,
                "loss": record["loss"],
                "tokens_sampled": self.tokens["sampled"],
                "tokens_prompt": self.tokens["prompt"],
                "tokens_trained": self.tokens["trained"] + self.passed[record["step"] - 1],
            }
            for record in state.log_history
            if "loss" in record and record["step"] > self.first
        ]
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(line) + "\n" for line in lines))
        os.replace(partial, self.path)

    def on_save(self, args, state, control, **kwargs):
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        write_json({"identity": self.wanted}, folder / STATE_FILE)


# ---- the two controls -------------------------------------------------------------------------------------


def train_part(control: Control, number: int, judge: Judge) -> dict[str, Any]:
    """Train part `number` (from 1) of a supervised run, after the parts before it; goes on after a kill.

    Writes `work/models/sNUMBER`, a model in Hugging Face format with its tokenizer and the study's state, and
    `work/sNUMBER/log.jsonl`. Returns the state; its `trainer` holds `tokens` (`sampled`, `prompt`, `trained`)
    and `tokens_of` (`sampled` by domain), all from the run's start. What `filtered` learns from counts as
    sampled before its first part. Raises StudyError where sampling has used up the operations, nothing was
    solved, or rollouts are missing.
    """
    teacher, size = control.teacher, weights(control.start)
    work, models = control.work / f"s{number}", control.work / "models"
    work.mkdir(parents=True, exist_ok=True)
    if control.learner == "filtered":
        start, before = control.start, control.work / f"s{number - 1}"
        tokens = {"sampled": teacher["tokens_sampled"], "prompt": teacher["tokens_prompt"], "trained": 0}
        counts = {"tokens": tokens, "tokens_of": teacher["ends"][-1]["tokens_of"]}
        rows = solved_rows(control.rollouts)
        budget = trainable(teacher["flops"], tokens, size) * number // control.parts
    else:
        start, before = models / f"s{number - 1}" if number > 1 else control.start, None
        kept = work / "sampled.json"
        if not kept.is_file():
            write_json(sample_round(control, number, start, judge), kept)
        found = json.loads(kept.read_text())
        counts, rows = found["trainer"], [(row["prompt"], row["completion"]) for row in found["solved"]]
        spendable = trainable(teacher["flops"] * number / control.parts, counts["tokens"], size)
        budget = spendable - counts["tokens"]["trained"]
    out = models / f"s{number}"
    train_stretch(start, rows, budget, control.train, control.seed, work, out, counts, before)
    return read_state(out)


def solved_rows(rollouts: Sequence[Path]) -> list[Row]:
    """All solved rollouts in the files, in the order in which they were sampled, repeated ones included."""
    missing = [str(path) for path in rollouts if not path.is_file()]
    if missing or not rollouts:
        raise StudyError(
            f"the RL run's rollouts are missing ({', '.join(missing)}); delete its row and do it again."
        )
    steps = [step for path in rollouts for step in read_log(path)]
    return [(row["prompt"], row["completion"]) for step in steps for row in step["solved"]]


def sample_round(control: Control, number: int, model: Path, judge: Judge) -> dict[str, Any]:
    """Sample with `model` until part `number`'s share of the RL run's sampled tokens is reached, in whole
    steps of the recipe, and judge; a function of its arguments.

    Prompts, quotas, group size, temperature and cap are those of the recipe without dynamic sampling; the
    prompts go on where the part before had stopped. Returns the counts from the run's start under `trainer`,
    and what was solved in this round, as in `segments.ROLLOUTS`.
    """
    recipe, (policy, tokenizer) = control.train, load(model)
    plan = phases(recipe, list(DOMAINS))
    active = [d for d in DOMAINS if any(d in phase.domains for _, phase in plan)]
    stream = PromptStream(load_problems(control.problems, "train"), control.seed)
    shares = {domain: float(DOMAINS[domain].weight) for domain in active}
    sampling = DynamicSampling(stream, shares, {}, max_rounds=1, refill=False)
    tokens, tokens_of = dict.fromkeys(("sampled", "prompt", "trained"), 0), dict.fromkeys(active, 0)
    if number > 1:
        before = read_state(model)["trainer"]
        tokens, tokens_of = before["tokens"], before["tokens_of"]
        sampling.load_state_dict(before["sampling"])

    def sample(problems) -> list[Group]:
        prompts = [
            tokenizer.apply_chat_template(
                problem.prompt, add_generation_prompt=True, tokenize=True, return_dict=False
            )
            for problem in problems
        ]
        size, cap = phase.rollouts_per_prompt, phase.max_completion_tokens
        places = [sampling.drawn + place for place in range(len(problems))]
        keys = [(control.seed, place, copy) for place in places for copy in range(size)]
        completions = generate(
            policy,
            prompts,
            [size] * len(prompts),
            Decoding(recipe.temperature),
            cap,
            eos=tokenizer.eos_token_id,
            pad=tokenizer.pad_token_id,
            uniforms=seeded_uniforms(keys, cap),
        )
        texts = [tokenizer.batch_decode(group, skip_special_tokens=True) for group in completions]
        items = [(p, text) for p, group in zip(problems, texts, strict=True) for text in group]
        verdicts = judge.verify(items, answers=False)
        return [
            Group(problem, [[prompt] * size, group], verdicts[i * size : (i + 1) * size])
            for i, (problem, prompt, group) in enumerate(zip(problems, prompts, completions, strict=True))
        ]

    solved, share = [], control.teacher["tokens_sampled"] * number / control.parts
    while tokens["sampled"] < share:
        phase = phase_at(plan, tokens["sampled"])
        sampling.active = list(phase.domains)
        for group in sampling.collect(recipe.prompts_per_step, sample)[1]:
            domain, drawn = group.problem.domain, sum(map(len, group.rollout[1]))
            tokens["sampled"] += drawn
            tokens_of[domain] += drawn
            tokens["prompt"] += len(group.rollout[0][0])
            solved += [
                {"domain": domain, "prompt": prompt, "completion": completion}
                for prompt, completion, verdict in zip(*group.rollout, group.verdicts, strict=True)
                if verdict.solved
            ]
    counts = {"tokens": tokens, "tokens_of": tokens_of, "sampling": sampling.state_dict()}
    return {"trainer": counts, "solved": solved}
