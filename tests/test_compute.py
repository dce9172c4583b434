"""What a run costs in operations: weights counted from the file, passes counted as the trainer makes them."""

import pytest
import tiny
from transformers import AutoModelForCausalLM

from prorl_study.compute import training_flops, weights


def test_weights_are_those_that_every_token_passes(tmp_path):
    folder = tiny.save_model(tmp_path / "model", 0)
    model = AutoModelForCausalLM.from_pretrained(folder)
    table = model.get_input_embeddings().weight
    tied = model.get_output_embeddings().weight is table
    every = sum(p.numel() for p in model.parameters())
    assert weights(folder) == (every if tied else every - table.numel())


def test_each_kind_of_token_costs_its_passes():
    none = {"sampled": 0, "prompt": 0, "trained": 0}
    assert training_flops(none | {"sampled": 10}, 7, True) == 2 * 7 * 10
    assert training_flops(none | {"prompt": 10}, 7, True) == 2 * 7 * 10
    # forward for the old log-probabilities, forward and backward for the loss, forward of the reference
    assert training_flops(none | {"trained": 10}, 7, True) == (2 + 6 + 2) * 7 * 10
    assert training_flops(none | {"trained": 10}, 7, False) == (2 + 6) * 7 * 10


def test_costs_add_up_over_stretches_of_a_run():
    one, two = ({"sampled": 5, "prompt": 3, "trained": 9}, {"sampled": 1, "prompt": 2, "trained": 4})
    both = {name: one[name] + two[name] for name in one}
    assert training_flops(both, 11, True) == pytest.approx(
        training_flops(one, 11, True) + training_flops(two, 11, True)
    )
