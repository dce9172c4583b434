"""How many problems and training seeds a difference needs: formulas over standard deviations and counts.

A test's power is that of Student's t with as many degrees of freedom as its variance estimate has. Left out:
where the standard deviations come from, and which claim needs which size (`power`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import asin, isfinite, pi, sin, sqrt
from typing import Any

import numpy as np
import scipy.optimize
import scipy.stats
from numpy.typing import ArrayLike

from prorl_study.errors import StudyError

# statsmodels is imported where it is used: it takes longer to load than most commands of the study take.

ERROR_RATE = 0.05
"""Two-sided, of a test that stands alone."""
POWER = 0.8
"""How often a study of the named size finds what is there."""
MOST_SEEDS, MOST_PROBLEMS = 1000, 10_000_000
"""Where the search for a size gives up."""


def standard_error(sd_problems: float, n_problems: int, sd_seeds: float, n_seeds: int) -> tuple[float, float]:
    """Standard error of a mean over problems and seeds, and its degrees of freedom (Satterthwaite 1946).

    sqrt(sd_problems^2 / n_problems + sd_seeds^2 / n_seeds). A part whose SD is 0 has no say: 0 for seeds
    speaks of the models at hand, 0 for problems of the problems at hand. Raises StudyError for negative or
    missing SDs, for two zeros, and for fewer than two of what varies.
    """
    for name, sd, n in (("problems", sd_problems, n_problems), ("seeds", sd_seeds, n_seeds)):
        if not (isfinite(sd) and sd >= 0):
            raise StudyError(f"sd_{name}={sd} must be a number of at least 0; correct it.")
        if sd > 0 and n < 2:
            raise StudyError(f"n_{name}={n} cannot show how much {name} differ; take at least 2.")
    if sd_problems == sd_seeds == 0:
        raise StudyError("sd_problems=0 and sd_seeds=0 leave nothing that varies; give one of them.")
    parts = [(sd**2 / n, n - 1) for sd, n in ((sd_problems, n_problems), (sd_seeds, n_seeds)) if sd > 0]
    variance, df = _satterthwaite(parts)
    return sqrt(variance), df


def _satterthwaite(parts: Sequence[tuple[Any, int]]) -> tuple[Any, Any]:
    """Sum of the parts' variances (numbers, or arrays of one shape) and its degrees of freedom."""
    variance = sum(part for part, _ in parts)
    return variance, variance**2 / sum(part**2 / df for part, df in parts)


def detectable(
    sd_problems: float,
    n_problems: int,
    sd_seeds: float,
    n_seeds: int,
    alpha: float = ERROR_RATE,
    power: float = POWER,
) -> float:
    """True difference that a two-sided t test at `alpha` finds with probability `power`, in the SDs' unit.

    Found means rejected with the right sign. The test's statistic is noncentral t with noncentrality
    difference / standard error (Cohen 1988, 2.4), as `statsmodels.stats.power.ttest_power` has it. Where
    problems and seeds both vary, the result is no less than for either alone: Satterthwaite's degrees of
    freedom may exceed those of the seeds, but a statement about more cannot need less. It also takes off
    nothing for what several seeds average out of one problem's difference; both err upwards. Raises
    StudyError as `standard_error` does, and unless 0 < alpha < power < 1.
    """
    if not 0 < alpha < power < 1:
        raise StudyError(f"alpha={alpha} and power={power} must satisfy 0 < alpha < power < 1; correct them.")
    sizes = [(sd_problems, n_problems, sd_seeds, n_seeds)]
    if sd_problems > 0 and sd_seeds > 0:
        sizes += [(sd_problems, n_problems, 0.0, n_seeds), (0.0, n_problems, sd_seeds, n_seeds)]
    found = [standard_error(*size) for size in sizes]
    return max(se * _noncentrality(df, alpha, power) for se, df in found)


@cache
def _noncentrality(df: float, alpha: float, power: float) -> float:
    """Difference over standard error at which the test has its power."""
    from statsmodels.stats.power import ttest_power

    def surplus(ratio: float) -> float:
        # The other tail would count a rejection with the wrong sign, and is NaN where it is tiny.
        return float(ttest_power(ratio, nobs=1, alpha=alpha / 2, df=df, alternative="larger")) - power

    top = float(scipy.stats.t.isf(alpha / 2, df)) + 1
    while surplus(top) < 0:
        top *= 2
    return float(scipy.optimize.brentq(surplus, 0, top))


def _smallest(reaches: Callable[[int], bool], least: int, most: int) -> int | None:
    """The smallest number from `least` to `most` for which `reaches`, which stays true once it is."""
    if not reaches(most):
        return None
    low, high = least - 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def needed_seeds(
    difference: float,
    sd_problems: float,
    n_problems: int,
    sd_seeds: float,
    alpha: float = ERROR_RATE,
    power: float = POWER,
) -> int | None:
    """The fewest seeds (at least 2) with which `difference` is detectable.

    None where up to `MOST_SEEDS` do not suffice, as the problems alone may hide it. Raises StudyError as
    `detectable`, and for a difference that is not above 0.
    """
    _above_zero(difference)
    return _smallest(
        lambda n: detectable(sd_problems, n_problems, sd_seeds, n, alpha, power) <= difference, 2, MOST_SEEDS
    )


def needed_problems(
    difference: float,
    sd_problems: float,
    sd_seeds: float,
    n_seeds: int,
    alpha: float = ERROR_RATE,
    power: float = POWER,
) -> int | None:
    """The fewest problems with which `difference` is detectable; otherwise as `needed_seeds`."""
    _above_zero(difference)
    return _smallest(
        lambda n: detectable(sd_problems, n, sd_seeds, n_seeds, alpha, power) <= difference, 2, MOST_PROBLEMS
    )


def _above_zero(difference: float) -> None:
    if not difference > 0:
        raise StudyError(f"difference={difference} must be above 0; name what the study is to see.")


def simulated_power(
    pilot: np.ndarray,
    difference: float,
    n_problems: int,
    sd_seeds: float,
    n_seeds: int,
    rng: np.random.Generator,
    alpha: float = ERROR_RATE,
    studies: int = 2000,
) -> float:
    """Share of simulated studies whose test finds a true `difference`: a check of `detectable` on real skew.

    Problems are drawn from the pilot's own differences, moved to mean zero; seeds from a normal distribution.
    Each study estimates both variances from its own data, as a real one must.
    """
    centred = np.asarray(pilot, dtype=float) - np.mean(pilot)
    problems = centred[rng.integers(centred.size, size=(studies, n_problems))]
    parts = [(problems.var(axis=1, ddof=1) / n_problems, n_problems - 1)]
    estimate = difference + problems.mean(axis=1)
    if sd_seeds > 0:
        seeds = rng.normal(0, sd_seeds, (studies, n_seeds))
        parts.append((seeds.var(axis=1, ddof=1) / n_seeds, n_seeds - 1))
        estimate = estimate + seeds.mean(axis=1)
    variance, df = _satterthwaite(parts)
    return float(np.mean(np.abs(estimate) > scipy.stats.t.isf(alpha / 2, df) * np.sqrt(variance)))


def detectable_rate(
    rate: float,
    n_problems: int,
    n_samples: int,
    clustering: float,
    alpha: float = ERROR_RATE,
    power: float = POWER,
) -> float:
    """The difference from `rate` (0..1), towards one half, that two models on different problems must show.

    Cohen's h for two proportions, each from n_problems * n_samples answers divided by the design effect
    1 + (n_samples - 1) * clustering (Kish 1965): at clustering 1 the samples of a problem tell one thing, at
    0 each is a problem of its own. Raises StudyError for values outside [0, 1] and empty sizes.
    """
    from statsmodels.stats.power import NormalIndPower

    if not (0 <= rate <= 1 and 0 <= clustering <= 1 and n_problems >= 1 and n_samples >= 1):
        raise StudyError(
            f"rate={rate} and clustering={clustering} must lie in [0, 1], n_problems={n_problems} and "
            f"n_samples={n_samples} be at least 1; correct them."
        )
    answers = n_problems * n_samples / (1 + (n_samples - 1) * clustering)
    h = NormalIndPower().solve_power(nobs1=answers, alpha=alpha, power=power)
    angle = 2 * asin(sqrt(rate))
    moved = min(pi, angle + h) if rate <= 0.5 else max(0.0, angle - h)
    return abs(sin(moved / 2) ** 2 - rate)


def clustering(n: ArrayLike, solved: ArrayLike) -> float:
    """Intraclass correlation of the samples of a problem, by one-way analysis of variance, within [0, 1].

    `n`, `solved`: samples and solved samples per problem, the same `n` for all. NaN where nothing varies, and
    under two problems or samples.
    """
    rates, samples = np.asarray(solved) / np.asarray(n), int(np.min(n))
    if rates.size < 2 or samples < 2:
        return float("nan")
    between = samples * rates.var(ddof=1)
    within = samples * float(np.mean(rates * (1 - rates))) / (samples - 1)
    total = between + (samples - 1) * within
    return float(np.clip((between - within) / total, 0, 1)) if total else float("nan")
