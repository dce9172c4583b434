"""Supervised controls on untrained models: what is learned, what is spent, what a kill changes (nothing)."""

import json
import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import tiny
import torch
from test_segments import equal, start, weights  # noqa: F401 - start is a fixture
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer

from prorl_study import checkpoints, compute, supervised
from prorl_study.domains import DOMAINS
from prorl_study.domains.problem import Verdict
from prorl_study.errors import StudyError
from prorl_study.files import read_log
from prorl_study.problems import load_problems
from prorl_study.recipe import grpo_config

RECIPE = replace(
    tiny.TRAIN,
    prompts_per_step=5,
    rollouts_per_prompt=4,
    max_completion_tokens=20,
    dynamic_sampling=False,
    checkpoint_every=1,
)
BATCH = 10
SEED = 3
COUNTS = {"tokens": {"sampled": 0, "prompt": 0, "trained": 0}, "tokens_of": {}}


class Parity:
    """An untrained model solves nothing; this judge finds every second answer right, by its text alone."""

    def verify(self, items, answers=True) -> list[Verdict]:
        right = [sum(map(ord, text)) % 2 == 0 for _, text in items]
        return [Verdict(float(r), r, "correct" if r else "wrong") for r in right]


class Harsh:
    def verify(self, items, answers=True) -> list[Verdict]:
        return [Verdict(0.0, False, "wrong") for _ in items]


def rows(count: int) -> list[tuple[list[int], list[int]]]:
    rng = random.Random(count)
    return [
        tuple([rng.randrange(4, 290) for _ in range(rng.randint(3, longest))] for longest in (12, 8))
        for _ in range(count)
    ]


def train(root: Path, name: str, budget: int, some=None, seed: int = SEED, **more) -> int:
    folder = root / name
    folder.mkdir(exist_ok=True)
    some = some or rows(34)
    return supervised.train_stretch(
        root / "base", some, budget, RECIPE, seed, folder, folder / "model", COUNTS, **more
    )


def control(root: Path, name: str, learner: str, parts: int = 2, **teacher) -> supervised.Control:
    tokens = {"sampled": 900, "prompt": 5_000, "trained": 20_000} | teacher
    base, rollouts = root / "base", root / "rollouts.jsonl"
    solved = [{"domain": "math", "prompt": p, "completion": c} for p, c in rows(34)]
    lines = [{"step": n, "solved": solved[n::2]} for n in range(2)]
    rollouts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return supervised.Control(
        learner=learner,
        train=RECIPE,
        seed=SEED,
        problems=root / "problems",
        start=base,
        work=root / name,
        parts=parts,
        teacher={
            "flops": compute.training_flops(tokens, compute.weights(base), with_reference=True),
            "tokens_sampled": tokens["sampled"],
            "tokens_prompt": tokens["prompt"],
            "ends": [{"tokens_of": {"math": tokens["sampled"]}}],
        },
        rollouts=[rollouts],
    )


def whole(one: supervised.Control, judge=None) -> list[dict]:
    """The state at the end of every part."""
    return [supervised.train_part(one, n, judge or Parity())["trainer"] for n in range(1, one.parts + 1)]


def kill_at(monkeypatch, update: int) -> list[int]:
    """Let the machine die at an update; returns a list that gets an item per update that was begun."""
    begun, step = [], Trainer.training_step

    def dying(self, *args, **kwargs):
        begun.append(self.state.global_step)
        if len(begun) == update:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", dying)
    return begun


# ---- budgets ----------------------------------------------------------------------------------------


def test_all_that_is_spent_adds_up_to_what_the_rl_run_spent():
    tokens = {"sampled": 1000, "prompt": 500, "trained": 3000}
    for with_reference, passes in ((True, 10), (False, 8)):
        flops = compute.training_flops(tokens, 70, with_reference)
        trained = supervised.trainable(flops, tokens, 70)
        assert trained == passes * 3000 // 6
        assert compute.supervised_flops(tokens | {"trained": trained}, 70) == flops


def test_a_budget_is_filled_with_whole_batches_in_seeded_epochs_and_a_larger_one_only_adds_some():
    lengths = [random.Random(i).randint(5, 50) for i in range(34)]
    order, passed = supervised.batches(lengths, 10, 3000, seed=1)
    longer, more = supervised.batches(lengths, 10, 5000, seed=1)
    assert passed[-1] <= 3000 < more[len(passed)]
    assert longer[: len(order)] == order and more[: len(passed)] == passed
    assert passed == [sum(lengths[i] for i in order[: 10 * n]) for n in range(1, len(passed) + 1)]
    assert Counter(order[:68]) == Counter(2 * list(range(34))) and order[:34] != order[34:68]
    assert supervised.batches(lengths, 10, 3000, seed=2)[0] != order


def test_a_run_that_cannot_be_had_is_refused_in_a_sentence(start):  # noqa: F811
    with pytest.raises(StudyError, match="sampling 900 tokens has used up the .* operations"):
        whole(control(start, "spent", "filtered", trained=0))
    with pytest.raises(StudyError, match="no rollout was solved, so there is nothing to learn from"):
        whole(control(start, "harsh", "rejection"), Harsh())
    with pytest.raises(StudyError, match="rollouts are missing .*nowhere.jsonl"):
        whole(replace(control(start, "absent", "filtered"), rollouts=[start / "nowhere.jsonl"]))
    with pytest.raises(StudyError, match="20 tokens do not pay for one batch of 10 rows"):
        train(start, "poor", 20)


# ---- one stretch ------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_completion_tokens_alone(start):  # noqa: F811
    some = rows(BATCH)
    one_batch = sum(len(p) + len(c) for p, c in some)
    assert train(start, "once", one_batch, some) == one_batch
    model = AutoModelForCausalLM.from_pretrained(start / "base", dtype=torch.float32)
    losses = []
    for prompt, completion in some:
        logits = model(torch.tensor([prompt + completion])).logits[0].detach().double()
        chances = torch.exp(logits) / torch.exp(logits).sum(-1, keepdim=True)
        places = range(len(prompt), len(prompt) + len(completion))
        losses += [-float(chances[i - 1, (prompt + completion)[i]].log()) for i in places]
    (record,) = read_log(start / "once" / "log.jsonl")
    assert record["loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-4)
    assert record["tokens_trained"] == one_batch


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(start):  # noqa: F811
    passed = train(start, "a", 900)
    assert train(start, "b", 900) == passed <= 900
    train(start, "c", 900, seed=4)
    model = {name: weights(start / name / "model") for name in "abc"}
    assert equal(model["a"], model["b"]) and not equal(model["a"], model["c"])
    AutoTokenizer.from_pretrained(start / "a" / "model")
    assert checkpoints.read_state(start / "a" / "model")["trainer"]["tokens"]["trained"] == passed


def test_a_killed_stretch_goes_on_from_its_checkpoint_and_ends_as_if_never_stopped(start, monkeypatch):  # noqa: F811
    passed = train(start, "straight", 1200)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at(patch, 6)
        train(start, "killed", 1200)
    folder = start / "killed" / "checkpoints"
    assert [c.name for c in checkpoints.complete_checkpoints(folder)] == ["checkpoint-4", "checkpoint-2"]
    assert not (start / "killed" / "model").exists()
    (folder / "checkpoint-5").mkdir()  # as if a second kill had come while it was written
    begun = kill_at(monkeypatch, 0)
    assert train(start, "killed", 1200) == passed
    assert begun[0] == 4
    assert equal(weights(start / "killed" / "model"), weights(start / "straight" / "model"))
    assert read_log(start / "killed" / "log.jsonl") == [
        record | {"segment": "killed"} for record in read_log(start / "straight" / "log.jsonl")
    ]
    assert begun[-1] + 1 == len(read_log(start / "killed" / "log.jsonl"))
    number = len(begun)
    assert train(start, "killed", 1200) == passed and len(begun) == number, (
        "what is finished is only exported"
    )


def test_a_checkpoint_of_other_rows_is_not_gone_on_from(start, monkeypatch):  # noqa: F811
    train(start, "other", 900)
    begun = kill_at(monkeypatch, 0)
    train(start, "other", 900, rows(33))
    assert begun[0] == 0


# ---- the two controls -------------------------------------------------------------------------------


@pytest.mark.slow
def test_parts_of_filtered_training_are_one_run_that_spends_what_the_rl_run_did(start):  # noqa: F811
    parts, straight = control(start, "three", "filtered", 3), control(start, "one", "filtered", 1)
    ends, (end,) = whole(parts), whole(straight)
    assert equal(weights(start / "three" / "models" / "s3"), weights(start / "one" / "models" / "s1"))
    assert ends[-1] == end and end["tokens_of"] == {"math": 900}
    size, flops = compute.weights(start / "base"), parts.teacher["flops"]
    assert 0.99 * flops < compute.supervised_flops(end["tokens"], size) <= flops
    total = supervised.trainable(flops, end["tokens"], size)
    batch = BATCH * max(len(p) + len(c) for p, c in rows(34))
    for number, part in enumerate(ends, 1):
        assert total * number / 3 - batch < part["tokens"]["trained"] <= total * number / 3
    logs = [read_log(start / "three" / f"s{n}" / "log.jsonl") for n in (1, 2, 3)]
    strip = [{k: v for k, v in record.items() if k != "segment"} for log in logs for record in log]
    assert strip == [
        {k: v for k, v in record.items() if k != "segment"}
        for record in read_log(start / "one" / "s1" / "log.jsonl")
    ]


@pytest.fixture(scope="module")
def rounds(start) -> tuple[supervised.Control, list[dict]]:  # noqa: F811
    one = control(start, "rounds", "rejection", sampled=2000, trained=60_000)
    return one, whole(one)


def test_every_round_samples_and_spends_its_share(rounds):
    one, ends = rounds
    size, flops = compute.weights(one.start), one.teacher["flops"]
    step = RECIPE.prompts_per_step * RECIPE.rollouts_per_prompt * RECIPE.max_completion_tokens
    for number, end in enumerate(ends, 1):
        sampled = json.loads((one.work / f"s{number}" / "sampled.json").read_text())
        batch = BATCH * max(len(row["prompt"]) + len(row["completion"]) for row in sampled["solved"])
        spent, share = compute.supervised_flops(end["tokens"], size), flops * number / 2
        assert share - 6 * size * batch < spent <= share
        assert 1000 * number <= end["tokens"]["sampled"] < 1000 * number + step
        assert sum(end["tokens_of"].values()) == end["tokens"]["sampled"]
        assert sampled["solved"], "what this judge finds right"
    drawn = [end["sampling"]["stream"]["position"] for end in ends]
    assert all(drawn[0][d] < drawn[1][d] for d in DOMAINS), "the second round goes on with the prompts"
    for before, after in pairwise(["base", "rounds/models/s1", "rounds/models/s2"]):
        assert not equal(weights(one.start.parent / before), weights(one.start.parent / after))


def test_a_killed_round_ends_as_if_never_stopped(start, rounds, monkeypatch):  # noqa: F811
    one = replace(rounds[0], work=start / "again")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at(patch, 4)
        whole(one)
    assert whole(one) == rounds[1]
    for name in ("s1", "s2"):
        models = [weights(start / run / "models" / name) for run in ("again", "rounds")]
        assert equal(*models)


def test_the_first_round_draws_what_an_rl_run_of_the_same_seed_draws(start, tmp_path):  # noqa: F811
    from prorl_study.trainer import ProRLTrainer

    trainer = ProRLTrainer(
        model=str(start / "base"),
        config=grpo_config(RECIPE, 1, tmp_path, SEED, on_gpu=False),
        problems=load_problems(start / "problems", "train"),
        weights={name: float(domain.weight) for name, domain in DOMAINS.items()},
        floors={},
        judge=Parity(),
        tokenizer=AutoTokenizer.from_pretrained(start / "base"),
        dynamic_sampling=False,
    )
    trainer.train()
    one = control(start, "first", "rejection", parts=1, sampled=1)
    found = supervised.sample_round(one, 1, start / "base", Parity())
    assert found["solved"] == trainer.solved and trainer.solved
    assert {k: found["trainer"]["tokens"][k] for k in ("sampled", "prompt")} == {
        k: trainer.tokens[k] for k in ("sampled", "prompt")
    }
