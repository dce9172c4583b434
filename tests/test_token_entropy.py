"""Entropy along an answer is the model's own, whatever stands beside it in a batch."""

import math

import pytest
import torch
from tiny import BASE, problems

from prorl_study import base_model
from prorl_study.token_entropy import token_entropy


@pytest.fixture(scope="module")
def model_and_tokenizer():
    tokenizer = base_model.build_tokenizer(["say 1", "the answer is 12"], BASE.vocabulary)
    return base_model.build_model(BASE, tokenizer, seed=3).eval(), tokenizer


def alone(model, tokenizer, problem, text):
    """The same by hand, one token at a time."""
    prompt = tokenizer.apply_chat_template(
        problem.prompt, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    answer = tokenizer(text, add_special_tokens=False)["input_ids"]
    entropies = []
    for seen in range(len(answer) + 1):
        ids = torch.tensor([[*prompt, *answer[:seen]]])
        with torch.inference_mode():
            log_p = torch.log_softmax(model(input_ids=ids).logits[0, -1].double(), dim=-1)
        entropies.append(float(-(log_p.exp() * log_p).sum()))
    return sum(entropies) / len(entropies)


def test_batches_of_any_size_give_what_one_token_at_a_time_gives(model_and_tokenizer):
    chosen, texts = problems(4), ["1", "the answer is 12", "", "say the answer"]
    wanted = [alone(*model_and_tokenizer, p, text) for p, text in zip(chosen, texts, strict=True)]
    for batch_tokens in (1, 40, 10_000):
        found = token_entropy(*model_and_tokenizer, chosen, texts, batch_tokens)
        assert found == pytest.approx(wanted, abs=1e-4)


def test_entropy_lies_between_zero_and_that_of_the_vocabulary(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    (value,) = token_entropy(model, tokenizer, problems(1), ["12"], 1000)
    assert 0 < value <= math.log(model.config.vocab_size) + 1e-6
