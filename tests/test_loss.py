"""The loss, the advantages and the batches of the trainer against a few lines of arithmetic of its own.

The references here are written from the formulas (GRPO, DAPO, k3), not from TRL: a changed default, sign,
mask or normaliser of a later TRL shows here.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from test_trainer import make_trainer
from transformers import AutoTokenizer, set_seed
from trl import GRPOTrainer

from prorl_study.domains.problem import Verdict
from prorl_study.recipe import grpo_config
from prorl_study.streams import PromptStream

RATIOS = (0.5, 0.79, 0.81, 1.0, 1.39, 1.41, 3.0)
"""Around both ends of the clip range 0.8 to 1.4."""
PROMPT, WIDTH = 5, 7
PLAIN = replace(tiny.TRAIN, dynamic_sampling=False, kl_beta=0.0, clip_high=0.2)


@pytest.fixture
def trainer(tmp_path):
    made = make_trainer(tmp_path, params=replace(tiny.TRAIN, kl_beta=0.04, temperature=1.2))
    made.current_gradient_accumulation_steps = 1
    made.model.train()
    return made


def token_logps(trainer, inputs) -> torch.Tensor:
    """Log-probability of each completion token at the rollout temperature, (rows, WIDTH)."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    logits = trainer.model(input_ids=ids, attention_mask=mask).logits[:, PROMPT - 1 : -1] / 1.2
    return logits.log_softmax(-1).gather(2, inputs["completion_ids"].unsqueeze(2)).squeeze(2)


@pytest.fixture
def inputs(trainer) -> dict[str, torch.Tensor]:
    """Every ratio of `RATIOS` under an advantage of either sign, unequal lengths, another reference."""
    rng = torch.Generator().manual_seed(3)
    vocabulary, rows = trainer.model.config.vocab_size, 4
    given = {
        "prompt_ids": torch.randint(5, vocabulary, (rows, PROMPT), generator=rng),
        "prompt_mask": torch.ones(rows, PROMPT, dtype=torch.long),
        "completion_ids": torch.randint(5, vocabulary, (rows, WIDTH), generator=rng),
        "completion_mask": torch.ones(rows, WIDTH, dtype=torch.long),
        "advantages": torch.tensor([1.5, -1.5, 0.5, -0.5]),
        "num_items_in_batch": torch.tensor(41.0),  # tokens of the rollout batch, of which this is a part
    }
    given["completion_mask"][2, 3:] = 0
    given["completion_mask"][3, 5:] = 0
    with torch.no_grad():
        logps = token_logps(trainer, given)
    given["old_per_token_logps"] = logps - torch.tensor(RATIOS).log()
    given["ref_per_token_logps"] = logps + 0.3 * torch.randn(rows, WIDTH, generator=rng)
    return given


def dapo(logps, given, low: float, high: float, beta: float, tokens: float) -> np.ndarray:
    """Sum over tokens of clipped surrogate and k3 penalty, over the tokens of one update (a scalar)."""
    mask, advantage = given["completion_mask"], given["advantages"][:, None]
    ratio = np.exp(logps - given["old_per_token_logps"])
    surrogate = np.minimum(ratio * advantage, np.clip(ratio, 1 - low, 1 + high) * advantage)
    gap = given["ref_per_token_logps"] - logps
    return ((beta * (np.exp(gap) - gap - 1) - surrogate) * mask).sum() / tokens


def as_numpy(given) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in given.items()}


def test_the_loss_is_the_clipped_surrogate_plus_k3_over_the_tokens_of_one_update(trainer, inputs):
    logps = token_logps(trainer, inputs).detach().double().numpy()
    tokens = 41 / trainer.args.steps_per_generation
    expected = dapo(logps, as_numpy(inputs), 0.2, 0.4, 0.04, tokens)
    assert trainer._compute_loss(trainer.model, inputs).item() == pytest.approx(expected, rel=1e-4)
    # and it would differ by much more under any of these
    for wrong in (
        dapo(logps, as_numpy(inputs), 0.2, 0.2, 0.04, tokens),
        dapo(logps, as_numpy(inputs), 0.4, 0.4, 0.04, tokens),
        dapo(logps, as_numpy(inputs), 0.2, 0.4, 0.0, tokens),
        dapo(logps, as_numpy(inputs), 0.2, 0.4, 0.04, 41),
    ):
        assert abs(wrong - expected) > 1e-2 * abs(expected)


def test_clipping_stops_the_gradient_above_for_good_answers_and_below_for_bad_ones_only(trainer, inputs):
    trainer.beta = 0.0
    leaf = token_logps(trainer, inputs).detach().requires_grad_()
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (leaf, torch.zeros_like(leaf), None)
    trainer._compute_loss(trainer.model, inputs).backward()
    moved = (leaf.grad != 0).numpy() & inputs["completion_mask"].bool().numpy()
    assert not (leaf.grad[inputs["completion_mask"] == 0] != 0).any()
    ratio = np.array(RATIOS)
    for row, good in enumerate((True, False, True, False)):
        stopped = ratio > 1.4 if good else ratio < 0.8
        real = inputs["completion_mask"][row].bool().numpy()
        np.testing.assert_array_equal(moved[row], real & ~stopped)
        # where it moves: -ratio * advantage / tokens, the policy gradient's own size
        size = -ratio * inputs["advantages"][row].item() / (41 / trainer.args.steps_per_generation)
        np.testing.assert_allclose(leaf.grad[row].numpy()[moved[row]], size[moved[row]], rtol=1e-4)


def test_the_gradient_of_the_penalty_is_that_of_k3_in_every_weight(trainer, inputs):
    inputs["advantages"] = torch.zeros(4)  # leaves the penalty alone
    trainer._compute_loss(trainer.model, inputs).backward()
    found = {name: p.grad.clone() for name, p in trainer.model.named_parameters()}
    trainer.model.zero_grad()
    gap = inputs["ref_per_token_logps"] - token_logps(trainer, inputs)
    k3 = ((gap.exp() - gap - 1) * inputs["completion_mask"]).sum()
    (0.04 * k3 / (41 / trainer.args.steps_per_generation)).backward()
    for name, weight in trainer.model.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, rtol=1e-3, atol=1e-6)
    assert max(grad.abs().max() for grad in found.values()) > 1e-4


def test_padding_changes_neither_loss_nor_gradient(trainer, inputs):
    def loss_and_gradient():
        trainer.model.zero_grad()
        loss = trainer._compute_loss(trainer.model, inputs)
        loss.backward()
        return loss.detach(), {name: p.grad.clone() for name, p in trainer.model.named_parameters()}

    inputs["completion_mask"][:, 4:] = 0
    loss, gradient = loss_and_gradient()
    inputs["completion_ids"][:, 4:] = 7
    inputs["old_per_token_logps"][:, 4:] = 50.0
    inputs["ref_per_token_logps"][:, 4:] = -9.0
    assert torch.isfinite(loss) and max(g.abs().max() for g in gradient.values()) > 1e-4
    torch.testing.assert_close(loss_and_gradient(), (loss, gradient))


class Scores:
    """Hands out given scores, whatever was answered."""

    def __init__(self, scores):
        self.scores = list(scores)

    def verify(self, items, answers):
        found, self.scores = self.scores[: len(items)], self.scores[len(items) :]
        return [Verdict(s, s == 1, "correct" if s == 1 else "partial" if s else "wrong") for s in found]


def test_advantages_are_scores_centred_and_scaled_within_their_own_group(tmp_path):
    scores = np.random.default_rng(4).choice([0, 0.25, 1.0], size=(8, 8))
    scores[5] = 0.25  # a group without signal
    trainer = make_trainer(tmp_path, judge=Scores(scores.ravel()), params=PLAIN)
    trainer.model.train()
    found = trainer._generate_and_score_completions([{}] * 64)["advantages"].reshape(8, 8).numpy()
    expected = (scores - scores.mean(1, keepdims=True)) / (scores.std(1, ddof=1, keepdims=True) + 1e-4)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert not found[5].any()


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in trainer.model.state_dict().items()}


def losses(trainer) -> list[tuple]:
    logs = [log for log in trainer.state.log_history if "loss" in log]
    return [(log["loss"], log["grad_norm"], log["entropy"]) for log in logs]


def test_with_everything_off_the_first_steps_are_those_of_stock_grpo_to_the_last_bit(tmp_path):
    ours = make_trainer(tmp_path / "ours", steps=3, params=PLAIN, own_loops=False)
    judge = tiny.LetterJudge()

    def reward(prompts, completions, **_):
        return [v.score for v in judge.verify([(None, c[-1]["content"]) for c in completions])]

    stream = PromptStream(tiny.problems(40), 0)
    rows = [{"prompt": stream.next("math").prompt} for _ in range(3 * PLAIN.prompts_per_step)]
    model = tiny.save_model(tmp_path / "stock" / "model", 0)
    stock = GRPOTrainer(
        model=str(model),
        reward_funcs=reward,
        args=grpo_config(PLAIN, 3, tmp_path / "stock" / "out", 0, on_gpu=False),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    start = weights(stock)
    for trainer in (ours, stock):
        set_seed(0)
        trainer.train()
    assert losses(ours) == losses(stock) and len(losses(ours)) == 3
    for name, weight in weights(ours).items():
        assert torch.equal(weight, weights(stock)[name]), name
    assert any(not torch.equal(weight, start[name]) for name, weight in weights(ours).items())


def test_one_batch_of_eight_equals_eight_batches_of_one_accumulated(tmp_path):
    found = []
    for parts in (1, 8):
        params = replace(tiny.TRAIN, prompts_per_step=1, updates_per_rollout=1, learning_rate=1e-3)
        config = {"per_device_train_batch_size": 8 // parts, "gradient_accumulation_steps": parts}
        config["steps_per_generation"] = parts
        trainer = make_trainer(tmp_path / str(parts), steps=4, params=params, overrides=config)
        trainer.train()
        found.append((losses(trainer), weights(trainer)))
    (one, whole), (other, summed) = found
    np.testing.assert_allclose(np.array(one)[:, 1:], np.array(other)[:, 1:], rtol=1e-3, atol=1e-5)
    for name, weight in whole.items():
        torch.testing.assert_close(weight, summed[name], rtol=1e-3, atol=2e-5)
