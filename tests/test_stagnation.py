"""The rule that ends a segment: what it counts as a rise, and how often it fires where nothing changes."""

import json

import numpy as np
import pytest

from prorl_study.stagnation import Rule, Stagnation, firing_rates, paired

RULE = Rule(min_delta=0.02, patience=3, max_drop=0.1, max_kl=0.5)


def scores(mean: float, problems: int = 200) -> list[float]:
    return [1.0] * round(mean * problems) + [0.0] * (problems - round(mean * problems))


def feed(rule: Rule, means, kl=0.0):
    stagnation = Stagnation(rule)
    return [stagnation.look(i, 10 * i, scores(mean), kl) for i, mean in enumerate(means)]


def test_patience_checks_without_a_rise_are_a_plateau_and_the_next_plateau_needs_as_many():
    firings = feed(RULE, [0.5] * 7)
    assert [f.rule if f else None for f in firings] == [None, None, None, "stalled", None, None, "stalled"]
    assert firings[3].checks_without_rise == 3 and firings[3].tokens == 30 and firings[3].anchor_step == 0
    assert firings[6].anchor_step == 3


def test_a_rise_starts_the_count_anew_and_is_measured_from_the_last_rise():
    # +1 point each is below min_delta, but the third check is 3 points above the anchor
    assert feed(RULE, [0.5, 0.51, 0.52, 0.55, 0.55, 0.55]) == [None] * 6
    assert feed(RULE, [0.5, 0.51, 0.51, 0.51])[-1].rule == "stalled"


def test_a_rise_within_two_standard_errors_is_none():
    few = Stagnation(RULE)
    few.look(0, 0, [0.0] * 5 + [1.0] * 5, 0.0)
    for step in (1, 2, 3):  # one problem of ten more: 10 points with a standard error of 10
        firing = few.look(step, 0, [0.0] * 4 + [1.0] * 6, 0.0)
    assert firing is not None and firing.rule == "stalled"
    assert firing.difference == pytest.approx(0.1) and firing.standard_error == pytest.approx(0.1)


def test_a_fall_and_a_large_kl_fire_at_once():
    assert feed(RULE, [0.5, 0.39])[-1].rule == "dropped"
    assert feed(RULE, [0.5, 0.41])[-1] is None
    assert feed(RULE, [0.5, 0.6], kl=0.6)[-1].rule == "kl"


def test_the_state_survives_json_and_goes_on_alike():
    checks = [0.5, 0.5, 0.53, 0.5, 0.5, 0.5]
    straight = feed(RULE, checks)
    stagnation, found = Stagnation(RULE), []
    for i, mean in enumerate(checks):
        state = json.loads(json.dumps(stagnation.state_dict()))
        stagnation = Stagnation(RULE)
        stagnation.load_state_dict(state)
        found.append(stagnation.look(i, 10 * i, scores(mean), 0.0))
    assert found == straight


def test_the_standard_error_of_a_paired_difference_is_that_of_the_differences():
    rng = np.random.default_rng(1)
    a, b = rng.random(50), rng.random(50)
    assert paired(a, b)[1] == pytest.approx((a - b).std(ddof=1) / 50**0.5)


def test_policies_that_stand_still_stall_at_once_and_those_that_improve_seldom_do():
    chances = np.random.default_rng(0).random(300)
    rates = {
        rise: firing_rates(RULE, chances, rise, checks=3, runs=400, rng=np.random.default_rng(2))
        for rise in (0.0, 0.04)
    }
    assert rates[0.0]["stalled"] > 0.85 and rates[0.0]["dropped"] < 0.02
    assert rates[0.04]["stalled"] < 0.15
