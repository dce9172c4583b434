"""Estimators against exact enumeration, intervals against simulation."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from prorl_study.statistics import (
    Interval,
    bootstrap_mean,
    expanded_level,
    factorial_effects,
    holm,
    iqm,
    iqm_interval,
    named_rng,
    non_inferiority,
    non_inferiority_p,
    paired_bootstrap,
    pass_at_k,
    permutation_test,
    rule_of_three,
    superiority_p,
    t_interval,
    wilson,
    wording,
)

SAMPLES = 16
RATES = {"base": (0.8, 3.7), "middle": (2.0, 2.0), "trained": (0.3, 0.2)}
"""Beta distributions of a problem's success rate: few solved, half solved, and all or nothing, as problems of
the embedded base and of its trained model fall."""
STUDIES = 2000
"""Simulated per case: a share of 5 % is known to about half a point."""
BEYOND_CHANCE = 1e-3
"""An error rate is called too high where a true 5 % would give as many errors more rarely than this."""


def solved_shares(rates, rng):
    return rng.binomial(SAMPLES, rates) / SAMPLES


def too_many(errors, trials, allowed=0.05):
    return scipy.stats.binomtest(errors, trials, allowed, alternative="greater").pvalue < BEYOND_CHANCE


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


@pytest.mark.parametrize("problems", [60, 200])
@pytest.mark.parametrize("kind", RATES)
def test_problem_level_intervals_cover_between_93_and_97_percent(problems, kind):
    rng = named_rng(5, "coverage", problems, kind)
    alpha, beta = RATES[kind]
    truth = alpha / (alpha + beta)
    draws = solved_shares(rng.beta(alpha, beta, (STUDIES, problems)), rng)
    found = [bootstrap_mean(values, rng, resamples=500) for values in draws]
    assert 0.93 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.97


@pytest.mark.parametrize("problems", [60, 200])
def test_intervals_of_paired_gains_cover_between_93_and_97_percent(problems):
    # half of the problems that training can reach become solved almost always, the others stay as they were
    rng = named_rng(5, "gain", problems)
    before = rng.beta(*RATES["base"], (STUDIES, problems))
    learned = rng.random((STUDIES, problems)) < 0.5
    after = np.where(learned, 0.95, before)
    truth = 0.5 * (0.95 - RATES["base"][0] / sum(RATES["base"]))
    pairs = zip(solved_shares(before, rng), solved_shares(after, rng), strict=True)
    found = [paired_bootstrap(a, b, rng, resamples=500) for a, b in pairs]
    assert 0.93 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.97


@pytest.mark.parametrize("seeds", [5, 8])
def test_seed_level_t_intervals_cover_between_93_and_97_percent(seeds):
    # a score is a mean over problems, and it moves with the training seed, here by two points
    rng = named_rng(6, "seeds", seeds)
    rates = rng.uniform(0.2, 0.8, 100)
    luck = rng.normal(0, 0.02, (STUDIES, seeds, 1))
    scores = solved_shares(rates + luck, rng).mean(axis=2)
    found = [t_interval(values) for values in scores]
    assert 0.93 <= np.mean([one.low <= rates.mean() <= one.high for one in found]) <= 0.97


@pytest.mark.parametrize("problems", [60, 200])
@pytest.mark.parametrize("same_rates", [True, False], ids=["same_model", "other_model_equally_good"])
def test_wording_finds_an_effect_on_problem_level_nulls_in_at_most_5_percent(problems, same_rates):
    rng = named_rng(7, "null", problems, same_rates)
    before = rng.beta(2.0, 2.0, (STUDIES, problems))
    after = before if same_rates else rng.beta(2.0, 2.0, (STUDIES, problems))
    pairs = zip(solved_shares(before, rng), solved_shares(after, rng), strict=True)
    words = [wording(paired_bootstrap(a, b, rng, resamples=1000), 0.02, "points") for a, b in pairs]
    false = words.count("seen here") + words.count("opposite here")
    assert 0 < false and not too_many(false, STUDIES)


@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_wording_finds_an_effect_on_seed_level_nulls_in_at_most_5_percent(seeds):
    rng = named_rng(8, "null", seeds)
    words = [wording(t_interval(values), 2.0, "points") for values in rng.normal(0, 3, (2 * STUDIES, seeds))]
    false = words.count("seen here") + words.count("opposite here")
    assert 0 < false and not too_many(false, 2 * STUDIES)


def test_the_check_for_too_many_errors_would_notice_an_interval_that_is_a_sixth_too_narrow():
    # else the two tests above could not fail: z instead of t at five seeds errs in 12 %
    rng = np.random.default_rng(9)
    values = rng.normal(0, 3, (STUDIES, 5))
    narrow = 1.96 * scipy.stats.sem(values, axis=1)
    assert too_many(int((abs(values.mean(axis=1)) > narrow).sum()), STUDIES)


@pytest.mark.parametrize(
    "interval, expected",
    [
        ((5, 1, 9), "seen here"),
        ((-5, -9, -1), "opposite here"),
        ((0, -1.5, 1.9), "no effect larger than 2 points"),
        ((0, 0, 0), "no effect larger than 2 points"),
        ((1.9, 1.8, 2), "seen here"),
        ((0.5, -1, 3), "undecided (could have seen 2.0 points)"),
        ((5, 0, 9), "undecided (could have seen 4.5 points)"),
    ],
)
def test_wording_follows_from_the_interval(interval, expected):
    assert wording(Interval(*interval), 2.0, "points") == expected


def test_wording_never_says_that_nothing_at_all_could_have_been_seen():
    assert wording(Interval(0.0, -0.03, 0.04), 0.02, "nats") == "undecided (could have seen 0.04 nats)"


@pytest.mark.parametrize("n", [20, 60, 200])
def test_expanded_percentiles_are_as_wide_as_students_interval_on_symmetric_data(n):
    values = scipy.stats.norm.ppf((np.arange(n) + 0.5) / n)
    found, student = bootstrap_mean(values, named_rng(10, n), resamples=100_000), t_interval(values)
    assert found.high - found.low == pytest.approx(student.high - student.low, rel=0.03)
    assert expanded_level(0.95, 10**6) == pytest.approx(0.95, abs=1e-5)


def test_bca_shifts_with_the_skew_and_keeps_the_estimate():
    values = np.random.default_rng(10).exponential(1.0, 60)
    plain = bootstrap_mean(values, np.random.default_rng(0))
    bca = bootstrap_mean(values, np.random.default_rng(0), method="bca")
    assert bca.value == plain.value
    assert bca.low > plain.low and bca.high > plain.high


@pytest.mark.parametrize(
    "values",
    [[0.25] * 9, [1e-200, 2e-200, 3e-200, 5e-200]],
    ids=["constant", "acceleration_is_nan"],
)
def test_bca_falls_back_to_percentiles_where_it_degenerates(values, recwarn):
    plain = bootstrap_mean(values, np.random.default_rng(0))
    assert bootstrap_mean(values, np.random.default_rng(0), method="bca") == plain
    assert paired_bootstrap(np.zeros(len(values)), values, np.random.default_rng(0), method="bca") == plain
    assert not recwarn.list


def test_unknown_bootstrap_method_is_refused():
    with pytest.raises(ValueError, match="normal.*percentile, bca"):
        bootstrap_mean([0.1, 0.2], np.random.default_rng(0), method="normal")


def test_t_interval_matches_a_hand_calculation_and_needs_two_seeds():
    # mean 3, standard deviation sqrt(2.5), t(4) at 97.5 % 2.776
    assert t_interval([1, 2, 3, 4, 5]) == pytest.approx((3, 3 - 1.9633, 3 + 1.9633), abs=1e-3)
    assert t_interval([2.0, 2.0]) == (2.0, 2.0, 2.0)
    for values in ([], [1.0], [1.0, float("nan")]):
        with pytest.raises(ValueError):
            t_interval(values)


def test_permutation_p_of_few_pairs_is_the_exact_share_of_sign_flips():
    rng = np.random.default_rng(11)
    for n in (3, 7, 10):
        d = rng.normal(0.5, 1, n).round(1)
        means = np.array([np.mean(d * signs) for signs in product((-1, 1), repeat=n)])
        extreme = np.mean(abs(means) >= abs(d.mean()) - 1e-12)
        assert permutation_test(np.zeros(n), d, rng, resamples=50) == pytest.approx(extreme)


def test_permutation_p_is_never_zero_and_one_for_identical_arrays():
    rng = np.random.default_rng(12)
    values = rng.random(100)
    assert permutation_test(values, values, rng) == 1.0
    assert permutation_test(values, values + 1, rng, resamples=999) == pytest.approx(2 / 1000)
    with pytest.raises(ValueError):
        permutation_test([0.1], [0.1, 0.2], rng)


def test_permutation_p_does_not_depend_on_which_array_comes_first():
    rng = np.random.default_rng(13)
    a, b = rng.random(9), rng.random(9)
    assert permutation_test(a, b, rng) == pytest.approx(permutation_test(b, a, rng))


def test_permutation_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(14)
    p = [permutation_test(*rng.normal(0, 1, (2, 40)), rng, resamples=499) for _ in range(STUDIES)]
    assert scipy.stats.kstest(p, "uniform").pvalue > BEYOND_CHANCE
    assert not too_many(sum(value <= 0.05 for value in p), STUDIES)


def test_superiority_p_and_the_t_interval_never_disagree():
    rng = np.random.default_rng(15)
    for values in rng.normal(1, 1.5, (300, 5)):
        assert (superiority_p(values) < 0.05) == (t_interval(values).low > 0)
        assert (non_inferiority_p(values, 0.5) < 0.05) == non_inferiority(t_interval(values), 0.5)
    assert superiority_p([1.0, 1.0]) == 0.0 and superiority_p([0.0, 0.0]) == 1.0


def test_non_inferiority_needs_the_whole_interval_above_a_stated_loss():
    assert non_inferiority(Interval(-0.5, -1.9, 1.0), 2.0)
    assert not non_inferiority(Interval(0.5, -2.0, 3.0), 2.0)
    for margin in (0.0, -1.0):
        with pytest.raises(ValueError):
            non_inferiority(Interval(0, -1, 1), margin)
        with pytest.raises(ValueError):
            non_inferiority_p([0.0, 1.0], margin)


def test_a_loss_of_just_the_margin_is_called_non_inferior_in_at_most_2_and_a_half_percent():
    rng = np.random.default_rng(16)
    found = sum(non_inferiority(t_interval(v), 2.0) for v in rng.normal(-2, 1.5, (2 * STUDIES, 5)))
    assert 0 < found and not too_many(found, 2 * STUDIES, 0.025)


def test_holm_matches_a_hand_calculation_in_any_order():
    # sorted .01 .02 .03 .04: times 4, 3, 2, 1 gives .04 .06 .06 .04, and none may fall below the one before
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.5]) == pytest.approx([1.0, 1.0])
    for p_values in ([], [0.1, 1.2], [-0.1], [float("nan")]):
        with pytest.raises(ValueError):
            holm(p_values)


def test_holm_finds_anything_among_five_claims_only_where_the_smallest_p_is_under_1_percent():
    # which is why the chance of any false finding among them stays at 5 %
    rng = np.random.default_rng(17)
    for p in rng.beta(1, 20, (12, 5)):
        assert (holm(p) < 0.05).any() == (p.min() < 0.01)


def test_rule_of_three_bounds_the_exact_limit_closely():
    for n in (1, 2, 3, 10, 100, 1024):
        exact = 1 - 0.05 ** (1 / n)
        assert exact <= rule_of_three(n) <= 1
    assert rule_of_three(1024) == pytest.approx(1 - 0.05 ** (1 / 1024), rel=0.005)
    with pytest.raises(ValueError):
        rule_of_three(0)


def test_interquartile_mean_ignores_the_outer_quarters_alone():
    assert iqm([0, 1, 2, 3, 4, 5, 6, 100]) == iqm([-50, 1, 2, 3, 4, 5, 6, 7]) == 3.5
    assert iqm([1, 2, 6]) == 3.0  # of three nothing is cut off
    with pytest.raises(ValueError):
        iqm([])


def test_interquartile_interval_covers_the_tasks_it_has_and_not_the_choice_of_tasks():
    rng = np.random.default_rng(18)
    rates = np.linspace(0.1, 0.9, 8)
    covered = 0
    for _ in range(400):
        found = iqm_interval(solved_shares(np.repeat(rates[:, None], 40, axis=1), rng), rng, resamples=300)
        covered += found.low <= iqm(rates) <= found.high
    assert 0.90 <= covered / 400 <= 0.985
    steady = iqm_interval([[rate, rate] for rate in rates], rng)  # tasks differ, problems within one do not
    assert steady == pytest.approx((iqm(rates),) * 3)
    for tasks in ([], [[0.1, 0.2], [0.3]]):
        with pytest.raises(ValueError):
            iqm_interval(tasks, rng)


def half_fraction(factors="abcde"):
    """16 runs of a 2^(5-1) design, e = abcd: every main effect and two-factor interaction is estimable."""
    base = pd.DataFrame(product((-1, 1), repeat=len(factors) - 1), columns=list(factors[:-1]))
    return base.assign(**{factors[-1]: base.prod(axis=1)})


def planted(design, effects):
    return sum(
        (value / 2 * design[list(name.split(":"))].prod(axis=1) for name, value in effects.items()), 10.0
    ).to_numpy()


def test_factorial_effects_are_differences_of_eight_runs_against_eight():
    design = half_fraction()
    y = np.random.default_rng(19).normal(size=16)
    found = {effect.name: effect for effect in factorial_effects(design, y)}
    assert len(found) == 15
    for name in design:
        high = design[name] == 1
        assert found[name].value == pytest.approx(y[high].mean() - y[~high].mean())
        assert (found[name].n_high, found[name].n_low) == (8, 8)


def test_factorial_recovers_planted_effects_without_noise():
    effects = {"a": 3.0, "d": -1.5, "a:c": 2.0}
    found = factorial_effects(half_fraction(), planted(half_fraction(), effects))
    assert {e.name: e.value for e in found} == pytest.approx(
        {e.name: effects.get(e.name, 0.0) for e in found}, abs=1e-12
    )


def test_saturated_design_without_replicates_has_no_standard_error_and_says_so(recwarn):
    for effect in factorial_effects(half_fraction(), np.arange(16.0)):
        assert effect.se is effect.low is effect.high is effect.p is None
        assert effect.se_from == "not available"
    assert not recwarn.list


def test_standard_errors_come_from_replicates_or_from_the_effects_left_out():
    design = half_fraction()
    y = np.random.default_rng(20).normal(size=16)
    assert {e.se_from for e in factorial_effects(design, y, interactions=False)} == {"residual"}
    twice = pd.concat([design, design], ignore_index=True)
    found = factorial_effects(twice, np.concatenate([y, y + 1]))
    # each pair of replicates has variance 1/2, so an effect over 32 runs has 2 sqrt(1/2 / 32)
    assert {e.se_from for e in found} == {"replicates"}
    assert [e.se for e in found] == pytest.approx([2 * np.sqrt(0.5 / 32)] * 15)


def test_planted_effects_lie_in_their_intervals_95_percent_of_the_time():
    rng = np.random.default_rng(21)
    design = pd.concat([half_fraction()] * 2, ignore_index=True)
    effects = {"a": 3.0, "b": 0.0, "a:c": 2.0}
    truth = planted(design, effects)
    inside, errors = 0, []
    for _ in range(300):
        found = {e.name: e for e in factorial_effects(design, truth + rng.normal(0, 2, 32))}
        inside += sum(found[name].low <= value <= found[name].high for name, value in effects.items())
        errors.append(found["a"].se)
    assert not too_many(900 - inside, 900) and inside < 900
    # an effect over 32 runs with noise of 2 has the standard error 2 * 2 / sqrt(32)
    assert np.mean(np.square(errors)) == pytest.approx(0.5, rel=0.1)


def test_aliased_interactions_are_left_out_and_aliased_main_effects_refused():
    quarter = half_fraction("abcde").assign(f=lambda d: d.a * d.b)  # f = ab: b:f is a, a:f is b, a:b is f
    names = [e.name for e in factorial_effects(quarter, np.arange(16.0))]
    assert names[:6] == list("abcdef")
    assert not {"a:b", "a:f", "b:f"} & set(names) and "c:d" not in names  # c:d is e:f
    assert "a:c" in names
    with pytest.raises(ValueError, match="aliased"):
        factorial_effects(half_fraction().assign(f=lambda d: d.a), np.arange(16.0))


@pytest.mark.parametrize("change", ["codes", "length", "nan"])
def test_factorial_refuses_other_codes_lengths_and_nan(change):
    design, y = half_fraction(), np.arange(16.0)
    if change == "codes":
        design = design.replace(-1, 0)
    y = {"length": y[:15], "nan": np.where(y == 3, np.nan, y)}.get(change, y)
    with pytest.raises(ValueError):
        factorial_effects(design, y)
