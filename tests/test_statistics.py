"""Estimators against exact enumeration, intervals against simulation."""

from itertools import combinations

import numpy as np
import pytest

from prorl_study.statistics import bootstrap_mean, named_rng, paired_bootstrap, pass_at_k, wilson


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_pass_at_k_equals_exact_enumeration(n):
    for c in range(n + 1):
        outcomes = [True] * c + [False] * (n - c)
        for k in range(1, n + 1):
            draws = [any(draw) for draw in combinations(outcomes, k)]
            assert pass_at_k(n, c, k) == pytest.approx(np.mean(draws), abs=1e-12)


def test_pass_at_k_is_vectorised_rises_with_k_and_starts_at_the_mean():
    n, c = np.array([16, 16, 32, 256]), np.array([0, 3, 32, 2])
    curve = np.stack([pass_at_k(n, c, k) for k in (1, 2, 4, 8, 16)])
    assert curve.shape == (5, 4)
    assert (np.diff(curve, axis=0) >= 0).all()
    np.testing.assert_allclose(curve[0], c / n)


@pytest.mark.parametrize("n, c, k", [(4, 2, 5), (4, 5, 2), (4, -1, 2), (4, 2, 0)])
def test_pass_at_k_refuses_impossible_counts(n, c, k):
    with pytest.raises(ValueError):
        pass_at_k(n, c, k)


def test_bootstrap_interval_covers_the_true_mean_about_95_percent_of_the_time():
    rng = np.random.default_rng(1)
    trials, covered = 300, 0
    for _ in range(trials):
        interval = bootstrap_mean(rng.binomial(16, 0.3, size=80) / 16, rng, resamples=400)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.90 <= covered / trials <= 0.985


def test_interval_covers_sampling_noise_as_well_as_the_choice_of_problems():
    # each problem has its own difficulty; few samples per problem must widen the interval
    rng = np.random.default_rng(2)
    difficulty = rng.beta(2, 2, size=200)
    few = bootstrap_mean(rng.binomial(1, difficulty) / 1, rng)
    many = bootstrap_mean(rng.binomial(64, difficulty) / 64, rng)
    assert few.high - few.low > 1.3 * (many.high - many.low)


def test_constant_values_have_the_degenerate_interval():
    for values in ([0.1] * 7, [0.0], [1.0, 1.0]):
        assert bootstrap_mean(values, np.random.default_rng(0)) == (values[0],) * 3


def test_empty_and_nan_data_are_refused():
    for values in ([], [0.1, float("nan")]):
        with pytest.raises(ValueError):
            bootstrap_mean(values, np.random.default_rng(0))


def test_paired_interval_of_identical_arrays_is_exactly_zero():
    values = np.random.default_rng(3).random(50)
    assert paired_bootstrap(values, values, np.random.default_rng(0)) == (0.0, 0.0, 0.0)


def test_pairing_narrows_the_interval_when_problems_differ_much():
    rng = np.random.default_rng(4)
    a = rng.random(100)
    b = a + 0.1 + rng.normal(0, 0.01, 100)
    paired = paired_bootstrap(a, b, rng)
    assert paired.value == pytest.approx(0.1, abs=0.01)
    assert paired.high - paired.low < 0.01
    assert bootstrap_mean(b, rng).high - bootstrap_mean(b, rng).low > 0.05


def test_paired_bootstrap_refuses_unequal_lengths():
    with pytest.raises(ValueError):
        paired_bootstrap([0.1], [0.1, 0.2], np.random.default_rng(0))


def test_wilson_interval_matches_the_textbook_case_and_stays_inside_zero_and_one():
    rate, low, high = wilson(9, 30)
    assert (rate, low, high) == pytest.approx((0.3, 0.167, 0.479), abs=1e-3)
    assert wilson(0, 20).low == 0.0 and 0.1 < wilson(0, 20).high < 0.2


def test_named_generators_repeat_and_differ_by_name():
    first = named_rng(1, "math", "strict").random(4)
    np.testing.assert_array_equal(first, named_rng(1, "math", "strict").random(4))
    assert not np.array_equal(first, named_rng(1, "code", "strict").random(4))
    assert not np.array_equal(first, named_rng(2, "math", "strict").random(4))
