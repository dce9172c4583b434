"""The base: its tokenizer, its teacher, the order of its batches, its gate."""

import copy
import random

import pandas as pd
import pytest
import tiny
import torch

from prorl_study import base_model, gate
from prorl_study.domains import DOMAINS
from prorl_study.errors import StudyError
from prorl_study.optimizers import MuonAdamW


@pytest.fixture(scope="module")
def demonstrations():
    return [base_model.demonstration(i, 3, tiny.BASE) for i in range(400)]


@pytest.fixture(scope="module")
def tokenizer(demonstrations):
    texts = (m["content"] for row in demonstrations for m in row["prompt"] + row["completion"])
    return base_model.build_tokenizer(texts, 900)


def test_every_digit_is_a_token_of_its_own(tokenizer):
    ids = tokenizer("x = 1234, 56")["input_ids"]
    digits = [tokenizer.decode([i]).strip() for i in ids if any(c.isdigit() for c in tokenizer.decode([i]))]
    assert digits == list("123456")


def test_any_text_survives_a_round_trip_with_its_marks(tokenizer):
    text = "<think>7+5=12 °C\n\tßü</think>\\boxed{12}<answer>ok</answer>"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    for mark in base_model.MARKS:
        assert len(tokenizer(mark)["input_ids"]) == 1


def test_only_the_completion_is_learned_and_it_ends_with_the_end_token(demonstrations, tokenizer):
    row = base_model.tokenize(demonstrations[0], tokenizer)
    learned = [label for label in row["labels"] if label != -100]
    assert learned[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(learned[:-1]) == demonstrations[0]["completion"][0]["content"]
    assert row["input_ids"][-len(learned) :] == learned


def test_a_demonstration_is_a_function_of_seed_and_index(demonstrations):
    assert [base_model.demonstration(i, 3, tiny.BASE) for i in (0, 7, 399)] == [
        demonstrations[i] for i in (0, 7, 399)
    ]
    assert base_model.demonstration(7, 4, tiny.BASE) != demonstrations[7]


def test_the_teacher_errs_at_the_stated_rate_and_never_shows_what_is_longer_than_three_steps(demonstrations):
    right = 0
    for i, row in enumerate(demonstrations):
        domain = DOMAINS[base_model.TURNS[i % len(base_model.TURNS)]]
        problem = domain.generate(3, "demonstrations", i)
        assert problem.difficulty <= 3
        right += row["completion"][0]["content"] == domain.solve(problem)
    assert abs(right / len(demonstrations) - (1 - tiny.BASE.habit_rate)) < 0.08


def test_batches_hold_similar_lengths_and_come_in_random_order():
    rng = random.Random(0)
    lengths = [rng.randint(10, 100) for _ in range(3200)]
    order = base_model.batch_order(lengths, batch=32, steps=150, seed=1)
    assert len(order) == 150 * 32
    batches = [[lengths[i] for i in order[s : s + 32]] for s in range(0, len(order), 32)]
    assert max(max(b) - min(b) for b in batches) < 15
    means = pd.Series([sum(b) / 32 for b in batches])
    assert abs(means.autocorr()) < 0.3
    assert set(order[:3200]) == set(range(3200))


def test_the_joint_optimizer_goes_on_from_its_saved_state():
    def train(model, optimizer, steps):
        for step in range(steps):
            torch.manual_seed(step)
            model(torch.randn(4, 8)).pow(2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    def make():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
        return model, MuonAdamW(model, 0.02, 0.01)

    model, optimizer = make()
    train(model, optimizer, 3)
    other, resumed = make()
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # as if read back from disk
    for group in resumed.param_groups:
        group["lr"] *= 1.0
    train(model, optimizer, 2)
    train(other, resumed, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    optimizer.param_groups[0]["lr"] = 0.5
    assert optimizer.parts[0].param_groups[0]["lr"] == 0.5


def test_the_gate_names_the_domain_in_which_sampling_finds_no_more_than_decoding():
    table = pd.DataFrame(
        {"domain": ["math", "code"], "greedy": [0.1, 0.5], "cons": [0.0, 0.6], "pass": [0.7, 0.65]}
    )
    assert gate.failing(table, 0.1) == ["code"]
    with pytest.raises(StudyError, match="code: pass 0.65, greedy 0.50, vote 0.60"):
        gate.check(table, 0.1)
    gate.check(table, 0.05)
    gate.check(table, -1.0)
