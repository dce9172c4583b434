"""Prompt streams and quotas: order is a function of the position, shares are held."""

import pytest
import tiny

from prorl_study.streams import PromptStream, Quotas


def draw(stream, count):
    return [stream.next("math").id for _ in range(count)]


def test_a_stream_shows_every_problem_once_per_epoch_in_a_new_order():
    stream = PromptStream(tiny.problems(7), seed=3)
    first, second = draw(stream, 7), draw(stream, 7)
    assert sorted(first) == sorted(second) == sorted(p.id for p in tiny.problems(7))
    assert first != second


def test_a_stream_goes_on_from_its_saved_position():
    stream = PromptStream(tiny.problems(5), seed=3)
    draw(stream, 8)
    other = PromptStream(tiny.problems(5), seed=3)
    other.load_state_dict(stream.state_dict())
    assert draw(stream, 9) == draw(other, 9)


@pytest.mark.parametrize("groups", [1, 7, 32])
def test_quotas_fill_each_step_and_hold_the_mixture_to_within_a_group(groups):
    weights = {"math": 40, "code": 24, "stem": 25, "logic": 37, "instruction": 10}
    quotas, totals = Quotas(weights), dict.fromkeys(weights, 0)
    for step in range(1, 201):
        quota = quotas.next(groups)
        quotas.settle(quota)
        assert sum(quota.values()) == groups
        for domain, count in quota.items():
            assert count >= 0
            totals[domain] += count
            assert abs(totals[domain] - step * groups * weights[domain] / 136) <= len(weights) - 1


def test_quotas_go_on_from_their_saved_remainders():
    one, two = Quotas({"a": 1, "b": 2}), Quotas({"a": 1, "b": 2})
    one.settle(one.next(4))
    two.load_state_dict(one.state_dict())
    for _ in range(5):
        quota = one.next(4)
        assert quota == two.next(4)
        for quotas in (one, two):
            quotas.settle(quota)
