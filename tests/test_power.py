"""A difference called detectable is found as often as promised; sizes come from the committed counts."""

from math import isnan, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from synthetic import random_counts

from prorl_study import evaluation, measures, power
from prorl_study.domains import DOMAINS
from prorl_study.errors import StudyError
from prorl_study.params import load
from prorl_study.sample_size import (
    clustering,
    detectable,
    detectable_rate,
    needed_problems,
    needed_seeds,
    simulated_power,
)
from prorl_study.statistics import bootstrap_mean, named_rng, t_interval

ROOT = Path(__file__).parents[1]
CLAIMS = load(ROOT / "params.yaml").claims
MODELS = ("base", "s1", "s2")
STUDIES = 2000
BEYOND_CHANCE = 1e-3
"""A share of studies is called different from the promised one where chance does that more rarely."""


def is_share(found, promised, studies=STUDIES):
    return scipy.stats.binomtest(found, studies, promised).pvalue > BEYOND_CHANCE


@pytest.fixture(scope="module")
def counts():
    return random_counts({"base": 0.2, "s1": 0.4, "s2": 0.5})


@pytest.fixture(scope="module")
def pilot():
    """Paired differences of the committed pilot, over all domains."""
    table = evaluation.read_counts(ROOT / "results")
    models = ["base", *sorted(set(table.model) - {"base"}, key=lambda name: (len(name), name))]
    values = [power.differences(table, power.Pilot(), models, domain) for domain in DOMAINS]
    return np.concatenate([one - one.mean() for one in values])


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_t_intervals_over_seeds_find_the_detectable_difference_as_often_as_promised(seeds, alpha):
    rng = named_rng(1, "seeds", seeds, alpha)
    difference = detectable(0, 1, 2.0, seeds, alpha)
    draws = rng.normal(difference, 2.0, (STUDIES, seeds))
    assert is_share(sum(t_interval(values, 1 - alpha).low > 0 for values in draws), 0.8)


def test_bootstrap_over_problems_finds_the_detectable_difference_as_often_as_promised(pilot):
    # differences of the real pilot, which are far from normal
    rng = named_rng(2, "problems")
    n = 200
    difference = detectable(float(pilot.std()), n, 0, 1)
    draws = difference + pilot[rng.integers(pilot.size, size=(STUDIES, n))]
    found = sum(bootstrap_mean(values, rng, resamples=500).low > 0 for values in draws)
    assert abs(found / STUDIES - 0.8) < 0.04


@pytest.mark.parametrize("seeds, sd_seeds", [(1, 0.0), (3, 1.0), (5, 2.0), (8, 4.0)])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_over_problems_and_seeds_the_promise_is_kept_and_nothing_is_found_where_nothing_is(
    pilot, seeds, sd_seeds, alpha
):
    rng = named_rng(3, "both", seeds, alpha)
    design = (200, sd_seeds, seeds)
    difference = detectable(float(pilot.std()), *design, alpha)
    found = simulated_power(pilot, difference, *design, rng, alpha, STUDIES)
    false = simulated_power(pilot, 0.0, *design, rng, alpha, STUDIES)
    assert found > 0.76
    # degrees of freedom from an estimated variance are too many where seeds are few and weigh little
    assert false < 2 * alpha


def test_detectable_matches_a_hand_calculation_for_many_problems():
    # (1.960 + 0.842) * 40 / sqrt(10,000)
    assert detectable(40, 10_000, 0, 1) == pytest.approx(2.8016 * 0.4, rel=1e-3)
    assert detectable(40, 10_000, 0, 1, alpha=0.01) == pytest.approx((2.5758 + 0.8416) * 0.4, rel=1e-3)


def test_detectable_scales_with_the_unit_and_grows_with_power_and_strictness():
    size = (40.0, 200, 2.0, 5)
    assert detectable(0.4, 200, 0.02, 5) == pytest.approx(detectable(*size) / 100)
    assert detectable(*size, power=0.9) > detectable(*size) > detectable(*size, power=0.5)
    assert detectable(*size, alpha=0.01) > detectable(*size)


def test_more_problems_and_more_seeds_never_hurt():
    for sd_problems, sd_seeds in ((40, 0), (0, 2), (40, 1), (40, 4), (5, 4)):
        grid = np.array(
            [
                [detectable(sd_problems, n, sd_seeds, s) for s in range(2, 30)]
                for n in (20, 60, 200, 1000, 9000)
            ]
        )
        assert (np.diff(grid, axis=0) <= 1e-9).all() and (np.diff(grid, axis=1) <= 1e-9).all()
        assert grid[-1, -1] < grid[0, 0]


def test_what_holds_for_problems_and_seeds_never_needs_less_than_either_alone():
    for n, seeds, sd_seeds in ((60, 2, 1), (1000, 5, 2), (200, 30, 0.1)):
        both = detectable(40, n, sd_seeds, seeds)
        assert both >= max(detectable(40, n, 0, seeds), detectable(0, n, sd_seeds, seeds))


def test_detectable_is_a_number_from_two_seeds_to_a_million_problems():
    for seeds in (2, 3, 4, 7, 31, 124, 1000):
        for alpha in (0.05, 0.01, 0.001):
            for promised in (0.5, 0.8, 0.99):
                found = detectable(40, 10**6, 3, seeds, alpha, promised)
                assert np.isfinite(found) and found > 0


def test_needed_sizes_are_the_smallest_that_reach_the_difference():
    seeds = needed_seeds(2.0, 0, 1, 2.0)
    assert detectable(0, 1, 2.0, seeds) <= 2.0 < detectable(0, 1, 2.0, seeds - 1)
    problems = needed_problems(2.0, 40, 0, 1)
    assert detectable(40, problems, 0, 1) <= 2.0 < detectable(40, problems - 1, 0, 1)
    assert needed_seeds(1000.0, 0, 1, 2.0) == 2


def test_no_number_of_seeds_helps_where_the_problems_hide_the_difference():
    assert detectable(40, 200, 0, 1) > 2
    assert needed_seeds(2.0, 40, 200, 1.0) is None
    assert needed_problems(2.0, 40, 4.0, 5) is None


@pytest.mark.parametrize(
    "arguments, named",
    [
        ((-1, 200, 1, 5), "sd_problems=-1"),
        ((float("nan"), 200, 1, 5), "sd_problems=nan"),
        ((40, 1, 1, 5), "n_problems=1"),
        ((40, 200, 1, 1), "n_seeds=1"),
        ((0, 200, 0, 5), "sd_problems=0 and sd_seeds=0"),
        ((40, 200, 1, 5, 0.0), "alpha=0.0"),
        ((40, 200, 1, 5, 0.05, 1.0), "power=1.0"),
        ((40, 200, 1, 5, 0.05, 0.04), "power=0.04"),
    ],
)
def test_senseless_sizes_are_refused_by_name(arguments, named):
    with pytest.raises(StudyError, match=named):
        detectable(*arguments)


def test_senseless_differences_and_rates_are_refused():
    for difference in (0, -2.0):
        with pytest.raises(StudyError, match="difference="):
            needed_seeds(difference, 40, 200, 1.0)
        with pytest.raises(StudyError, match="difference="):
            needed_problems(difference, 40, 0, 1)
    for arguments in (
        (1.2, 200, 16, 0.5),
        (0.5, 0, 16, 0.5),
        (0.5, 200, 0, 0.5),
        (0.5, 200, 16, float("nan")),
    ):
        with pytest.raises(StudyError, match="n_problems="):
            detectable_rate(*arguments)


@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_two_models_that_differ_by_the_detectable_rate_are_told_apart_as_often_as_promised(rho):
    rng = named_rng(4, "rates", rho)
    n, m, rate = 200, 16, 0.3
    other = rate + detectable_rate(rate, n, m, rho)

    def study_means(p):
        if not rho:
            return rng.binomial(m, p, (STUDIES, n)).mean(axis=1) / m
        total = 1 / rho - 1  # of a beta distribution, whose draws then share this much
        return rng.binomial(m, rng.beta(p * total, (1 - p) * total, (STUDIES, n))).mean(axis=1) / m

    error = sqrt((rate * (1 - rate) + other * (1 - other)) / n * (1 + (m - 1) * rho) / m)
    found = (study_means(other) - study_means(rate)) / error > scipy.stats.norm.isf(0.025)
    assert abs(found.mean() - 0.8) < 0.03


def test_clustering_is_recovered_and_lies_between_none_and_all():
    rng = np.random.default_rng(5)
    for rho in (0.1, 0.5):
        total = 1 / rho - 1
        solved = rng.binomial(16, rng.beta(0.4 * total, 0.6 * total, 4000))
        assert clustering(np.full(4000, 16), solved) == pytest.approx(rho, abs=0.03)
    assert clustering([4] * 6, [0, 4] * 3) == 1.0
    assert clustering([4] * 6, [2] * 6) == 0.0  # less spread than chance has
    for n, solved in (([4] * 6, [0] * 6), ([1, 1, 1], [0, 1, 1]), ([4], [2])):
        assert isnan(clustering(n, solved))


def test_spread_is_that_of_the_gains_and_pools_to_the_error_of_the_mean(counts):
    spreads = power.pilot_sd(counts, power.Pilot("sampled"), MODELS)
    assert list(spreads) == list(DOMAINS)
    cell = counts[(counts.split == "test") & (counts.setting == "sampled")]
    rate = (cell.solved / cell.n).groupby([cell.domain, cell.problem, cell.model]).first().unstack()
    gain = 100 * (rate.s2 - rate.base)
    assert {d: one.sd for d, one in spreads.items()} == pytest.approx(gain.groupby("domain").std().to_dict())
    pooled = power.pool(spreads)
    error = sqrt(sum(one.sd**2 / one.n_problems for one in spreads.values())) / len(DOMAINS)
    assert pooled.sd / sqrt(pooled.n_problems) == pytest.approx(error)
    assert power.pool(spreads, smallest=True).sd == max(one.sd for one in spreads.values())


def test_every_claim_of_params_has_a_pilot_or_a_reason_and_the_test_that_params_names():
    assert set(power.PILOTS) == set(CLAIMS)
    for name, claim in CLAIMS.items():
        if isinstance(power.PILOTS[name], power.Pilot):
            assert (power.PILOTS[name].over == "seeds") == ("seeds" in claim.test), name
            assert claim.unit == "points"
            assert power.PILOTS[name].measure != "pass" or f"pass@{power.PASS_K}" in claim.measure
    assert power.PASS_K == measures.HARD_K


def test_table_sizes_each_claim_at_its_level_and_admits_what_it_cannot(counts):
    rows = power.table(counts, CLAIMS, MODELS, [1.0, 4.0], 5)
    assert len(rows) == 2 * len(CLAIMS)
    primary = [name for name, claim in CLAIMS.items() if claim.family == "primary"]
    for row in rows:
        assert row["alpha"] == pytest.approx(0.05 / len(primary) if row["claim"] in primary else 0.05)
        if row["reason"]:
            assert row["detectable"] is row["enough"] is row["needed"] is None
            continue
        assert row["enough"] == (row["detectable"] <= row["margin"])
        assert row["generalises"] >= row["detectable"] - 1e-3
        reached = {"seeds": row["n_seeds"], "problems": row["n_problems"]}[row["over"]]
        assert row["needed"] is None or (row["needed"] <= reached) == row["enough"]


def test_a_larger_seed_sd_changes_what_tests_over_seeds_see_and_not_those_over_problems(counts):
    table = pd.DataFrame(power.table(counts, CLAIMS, MODELS, [1.0, 2.0], 5)).dropna(subset="detectable")
    for (_, over), part in table.groupby(["claim", "over"]):
        small, large = part.detectable
        assert large == pytest.approx(2 * small, abs=1e-3) if over == "seeds" else large == small
        assert part.generalises.iloc[1] > part.generalises.iloc[0]


def test_pilot_in_which_nothing_differs_gives_reasons_and_no_sizes(counts):
    same = counts.assign(solved=counts.n, lenient_solved=counts.n, cons_solved=1)
    rows = power.table(same, CLAIMS, MODELS, [1.0], 5)
    assert all(row["reason"] and row["detectable"] is None for row in rows)
    assert power.finding(rows) == "No claim can be sized from these counts."
    assert power.wide(rows).empty and len(power.consequences(rows)) == 1
    assert all(row["clustered"] is None and row["paired"] is None for row in power.rates(same, MODELS))


def test_domain_with_a_single_problem_is_left_out(counts):
    kept = (
        (counts.domain != "stem") | (counts.problem == "stem-test-001") | (counts.problem == "stem-hard-001")
    )
    rows = power.table(counts[kept], CLAIMS, MODELS, [1.0], 5)
    sized = {row["claim"]: row for row in rows if not row["reason"]}
    assert not {"gain-stem", "boundary-stem"} & set(sized)
    assert sized["gain-overall"]["n_problems"] == 4 * 40
    assert len(power.rates(counts[kept], MODELS)) == 5


def test_one_trained_segment_is_compared_with_the_base(counts):
    rows = power.table(counts, CLAIMS, MODELS[:2], [1.0], 5)
    assert {row["claim"] for row in rows if row["detectable"]} >= {"gain-overall", "full-recipe"}


def test_page_wording_carries_the_numbers_of_the_table(counts):
    rows = power.table(counts, CLAIMS, MODELS, [1.0, 2.0], 5)
    overall = next(row for row in rows if row["claim"] == "gain-overall")
    assert f"gain-overall {overall['detectable']:.1f}" in power.finding(rows)
    said = " ".join(power.consequences(rows))
    assert all(name in said for name in ("full-recipe", "weakest-base", "seeds an arm"))
    resets = [row for row in rows if row["claim"] == "resets"]
    assert " / ".join(f"{row['needed']:,}" for row in resets) in said


def test_report_is_made_from_committed_counts_alone():
    table = evaluation.read_counts(ROOT / "results")
    models = ["base", *sorted(set(table.model) - {"base"}, key=lambda name: (len(name), name))]
    text = power.report(ROOT / "results", CLAIMS, models, [1, 2, 4], 5)
    assert all(name in text for name in ("gain-overall", "full-recipe", *DOMAINS))
    assert "nan" not in text.lower().split()


def test_curves_fall_with_seeds_and_start_lower_with_more_problems(counts):
    frame = power.curves(counts, CLAIMS, "full-recipe", MODELS, [1.0, 2.0], [3, 5, 9], [1, 4])
    assert list(frame.columns) == ["problems", "seeds", "seed SD 1", "seed SD 2"]
    for _, part in frame.groupby("problems"):
        assert (np.diff(part["seed SD 1"]) < 0).all()
    assert frame.problems.is_monotonic_increasing  # so that legends list sizes in order
    with pytest.raises(StudyError, match="entropy"):
        power.curves(counts, CLAIMS, "entropy", MODELS, [1.0], [3], [1])


@pytest.mark.parametrize(
    "change, named",
    [
        ({"models": ["base"]}, "too few"),
        ({"models": ["base", "s9"]}, "s9"),
        ({"seed_sd": []}, "seed_sd="),
        ({"seed_sd": [0.0, 1.0]}, "seed_sd="),
        ({"n_seeds": 1}, "n_seeds=1"),
        ({"claims": {**CLAIMS, "new": CLAIMS["resets"]}}, "claim new"),
    ],
)
def test_table_refuses_what_it_cannot_use(counts, change, named):
    arguments = {"claims": CLAIMS, "models": MODELS, "seed_sd": [1.0], "n_seeds": 5} | change
    with pytest.raises(StudyError, match=named):
        power.table(counts, **arguments)
