"""Intervals, tests and estimators as pure functions over arrays; the random generator is an argument.

Three levels of noise matter here: which problems were drawn, what was sampled, and the training seed. The
bootstrap resamples problems, each carrying its own samples, so it covers the first two; `t_interval` is for
values of several training seeds. No interval here covers all three: a caller says which it took, and a study
with one seed says so in its captions. Which comparisons belong to one family is left to the caller (`holm`),
and how large a study must be to `power`.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import ArrayLike

# statsmodels is imported where it is used: it takes longer to load than most commands of the study take.

METHODS = ("percentile", "bca")
"""Bootstrap intervals: expanded quantiles of resampled means, or bias-corrected, accelerated (Efron 1987)."""
EXACT_UP_TO = 14
"""Pairs whose 2^n sign flips `permutation_test` enumerates, however few resamples were asked for."""


class Interval(NamedTuple):
    """An estimate with its interval, in the unit of the values that it came from."""

    value: float
    low: float
    high: float


def named_rng(seed: int, *names: object) -> np.random.Generator:
    """Generator that depends on `seed` and `names` alone: no row depends on its neighbours."""
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def pass_at_k(n: ArrayLike, c: ArrayLike, k: int) -> np.ndarray:
    """Unbiased estimate per problem that at least one of k answers is right (Chen et al. 2021).

    `n`, `c`: samples and solved samples per problem, broadcast against each other. The formula is
    1 - C(n-c, k) / C(n, k), here as a product, which stays exact to about 1e-15 where the binomials
    would overflow. Raises ValueError unless 1 <= k <= n and 0 <= c <= n.
    """
    n, c = np.broadcast_arrays(np.asarray(n, dtype=float), np.asarray(c, dtype=float))
    if k < 1 or (n < k).any():
        raise ValueError(f"k={k} must lie between 1 and the number of samples, {n.min()}")
    if (c < 0).any() or (c > n).any():
        raise ValueError("solved samples must lie between 0 and the number of samples")
    none_solved = np.ones(n.shape)
    for drawn in range(k):
        none_solved *= np.clip(n - c - drawn, 0, None) / (n - drawn)
    return 1.0 - none_solved


def _vector(values: ArrayLike, least: int = 1) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or values.size < least or np.isnan(values).any():
        wanted = "a non-empty vector" if least == 1 else f"a vector of at least {least} values"
        raise ValueError(f"need {wanted} without NaN, got shape {values.shape}")
    return values


def expanded_level(level: float, n: int) -> float:
    """Share of the resampled means of `n` values between whose quantiles an interval of `level` lies.

    Plain percentiles are too narrow for few values, by sqrt((n - 1) / n) and by the normal distribution's
    tails in place of Student's: of 95 % intervals 5.9 % miss at 60 problems. Expanded percentiles (Hesterberg
    2015, section 5.3) make up for both. Raises ValueError under two values.
    """
    if n < 2:
        raise ValueError(f"an interval needs at least 2 values, got {n}")
    half = np.sqrt(n / (n - 1)) * scipy.stats.t.ppf((1 + level) / 2, n - 1)
    return float(1 - 2 * scipy.stats.norm.sf(half))


def bootstrap_mean(
    values: ArrayLike,
    rng: np.random.Generator,
    resamples: int = 2000,
    level: float = 0.95,
    method: str = "percentile",
) -> Interval:
    """Mean over problems with its bootstrap interval; `method` is one of `METHODS`.

    `values`: one number per problem. Percentiles are those of `expanded_level`. Constant data (and a single
    problem) has the degenerate interval [value, value], where scipy would warn or return NaN. Where BCa has
    no acceleration or bias (NaN), the percentiles of the same resamples stand instead. Raises ValueError for
    empty or NaN data and for an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r} must be one of {', '.join(METHODS)}")
    values = _vector(values)
    if (values == values[0]).all():
        return Interval(float(values[0]), float(values[0]), float(values[0]))
    result = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        confidence_level=expanded_level(level, values.size),
        method="percentile",
        batch=max(1, 2_000_000 // values.size),  # bounds the index matrix to about 16 MB
        rng=rng,
    )
    low, high = result.confidence_interval
    if method == "bca":
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
            bca = scipy.stats.bootstrap(
                (values,),
                np.mean,
                n_resamples=0,
                confidence_level=level,
                method="BCa",
                bootstrap_result=result,
            ).confidence_interval
        if np.isfinite(bca).all():
            low, high = bca
    return Interval(float(values.mean()), float(low), float(high))


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    rng: np.random.Generator,
    resamples: int = 2000,
    level: float = 0.95,
    method: str = "percentile",
) -> Interval:
    """Mean of `b - a` over the same problems, in the same order, with its interval.

    Raises ValueError where the lengths differ, and as `bootstrap_mean` does.
    """
    return bootstrap_mean(_differences(a, b), rng, resamples, level, method)


def _differences(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"paired values need one shape, got {a.shape} and {b.shape}")
    return b - a


def permutation_test(a: ArrayLike, b: ArrayLike, rng: np.random.Generator, resamples: int = 9999) -> float:
    """Two-sided p-value that the paired differences `b - a` are symmetric around zero, by sign flips.

    Exact (all 2^n flips) up to `EXACT_UP_TO` pairs and wherever `resamples` reach that many. Otherwise the
    observed flip counts as one of the random ones (Phipson and Smyth 2010), so that p is never 0. Raises
    ValueError where the lengths differ and for empty or NaN data.
    """
    differences = _vector(_differences(a, b))
    if not differences.any():
        return 1.0
    n = differences.size
    result = scipy.stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",  # of one sample: its signs
        vectorized=True,
        n_resamples=max(resamples, 2**n) if n <= EXACT_UP_TO else resamples,
        batch=max(1, 1_000_000 // n),
        rng=rng,
    )
    return float(result.pvalue)


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean over training seeds with Student's interval; `values` has one number per seed.

    It takes seeds as drawn from a normal distribution, which few seeds cannot show. Raises ValueError under
    two values, where nothing tells how much seeds differ, and for NaN.
    """
    values = _vector(values, least=2)
    half = scipy.stats.t.ppf((1 + level) / 2, values.size - 1) * scipy.stats.sem(values)
    return Interval(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


def superiority_p(values: ArrayLike, over: float = 0.0) -> float:
    """Student's p-value that the mean of `values` (one per seed, or per problem) exceeds `over`.

    Twice the one-sided p-value, at most 1: it falls below 1 - level exactly where `t_interval` at that level
    lies above `over`, so that a p-value and its interval never disagree. Raises ValueError as `t_interval`.
    """
    values = _vector(values, least=2)
    if (values == values[0]).all():  # no spread: the interval is a point
        return 0.0 if values[0] > over else 1.0
    one_sided = scipy.stats.ttest_1samp(values, over, alternative="greater").pvalue
    return float(min(1.0, 2 * one_sided))


def non_inferiority(interval: Interval, margin: float) -> bool:
    """Whether `interval` excludes a loss of `margin` or more; `margin` is positive, in the interval's unit.

    At a level of 95 % this is the usual one-sided test at 2.5 %. Raises ValueError for another margin.
    """
    return interval.low > -_positive(margin)


def non_inferiority_p(values: ArrayLike, margin: float) -> float:
    """`superiority_p` over -`margin`: small where a loss of `margin` or more is excluded."""
    return superiority_p(values, -_positive(margin))


def _positive(margin: float) -> float:
    if not margin > 0:
        raise ValueError(f"margin={margin} must be above 0")
    return margin


def holm(p_values: ArrayLike) -> np.ndarray:
    """p-values adjusted for their number by Holm's step-down method (1979), in the given order.

    Raises ValueError for an empty list and for values outside [0, 1].
    """
    from statsmodels.stats.multitest import multipletests

    p = _vector(p_values)
    if (p < 0).any() or (p > 1).any():
        raise ValueError(f"p-values must lie in [0, 1], got {p.tolist()}")
    return multipletests(p, method="holm")[1]


def wording(interval: Interval, margin: float, unit: str) -> str:
    """What an interval earns to be said; a side of zero goes before smallness.

    `seen here` above zero, `opposite here` below it, `no effect larger than ...` where both ends lie within
    `margin`, else `undecided` with half the interval's width: a larger estimate would have been seen. (To see
    an effect four times out of five it must be larger still; see `power`.)
    """
    _, low, high = interval
    if low > 0:
        return "seen here"
    if high < 0:
        return "opposite here"
    if max(abs(low), abs(high)) <= margin:
        return f"no effect larger than {margin:g} {unit}"
    half_width = (high - low) / 2
    shown = f"{half_width:.1f}" if half_width >= 0.1 else f"{half_width:.1g}"  # never "0.0 nats"
    return f"undecided (could have seen {shown} {unit})"


def wilson(successes: int, trials: int, level: float = 0.95) -> Interval:
    """A single rate with Wilson's interval, which is right at 0 and 1 and for few trials."""
    test = scipy.stats.binomtest(successes, trials)
    interval = test.proportion_ci(level, method="wilson")
    return Interval(successes / trials, float(interval.low), float(interval.high))


def rule_of_three(n: int) -> float:
    """Upper end, at 95 %, of the rate of an event that was seen in none of `n` trials: 3 / n, at most 1.

    It rounds ln(20) up, so it is never below the exact bound 1 - 0.05^(1/n) (Hanley and Lippman-Hand 1983).
    Raises ValueError without a trial.
    """
    if n < 1:
        raise ValueError(f"n={n} must be at least 1")
    return min(1.0, 3 / n)


def iqm(values: ArrayLike) -> float:
    """Interquartile mean: the mean of the middle half (Agarwal et al. 2021), one value per task.

    A quarter of the values, rounded down, is cut off at each end: under four nothing is. Raises ValueError
    for empty or NaN data.
    """
    return float(scipy.stats.trim_mean(_vector(values), 0.25))


def iqm_interval(
    tasks: Sequence[ArrayLike], rng: np.random.Generator, resamples: int = 2000, level: float = 0.95
) -> Interval:
    """`iqm` over the tasks' means with its stratified percentile bootstrap interval.

    `tasks`: per task its values over problems or seeds, which are resampled within the task; the tasks
    themselves are the study's and are not drawn. Raises ValueError without tasks and for a task with fewer
    than two values, whose noise nothing shows.
    """
    strata = [_vector(values, least=2) for values in tasks]
    means = np.stack(
        [values[rng.integers(values.size, size=(resamples, values.size))].mean(axis=1) for values in strata]
    )
    low, high = np.quantile(scipy.stats.trim_mean(means, 0.25, axis=0), [(1 - level) / 2, (1 + level) / 2])
    return Interval(iqm([values.mean() for values in strata]), float(low), float(high))


class Effect(NamedTuple):
    """One effect of a two-level factorial: the mean at +1 minus the mean at -1, in the responses' unit."""

    name: str
    """A factor, or `a:b` for the interaction of two."""
    value: float
    n_high: int
    """Runs at +1, which stand against ..."""
    n_low: int
    """... these at -1."""
    se: float | None
    """Standard error; None where nothing is left to estimate it from."""
    low: float | None
    high: float | None
    p: float | None
    se_from: str
    """`replicates`, `residual` (takes the effects that were left out as zero) or `not available`."""


def factorial_effects(
    design: pd.DataFrame, responses: ArrayLike, interactions: bool = True, level: float = 0.95
) -> list[Effect]:
    """Main effects of a two-level, perhaps fractional, factorial, then its estimable two-factor interactions.

    `design`: a row per run and a column per factor, coded -1 and +1; a replicate is one more row with the
    same settings. `responses`: a number per run. Fitted by least squares: in a balanced design of 16 runs
    each main effect is 8 runs against 8. An interaction that is aliased with a main effect or another
    interaction is left out, since no data could tell them apart. Standard errors come from the spread within
    equal settings; without replicates from the residual, if the fit leaves any degrees of freedom; else there
    are none. Raises ValueError for other codes, other lengths, NaN, and main effects that are aliased.
    """
    import statsmodels.api as sm

    levels = design.to_numpy(dtype=float)
    y = _vector(responses)
    if levels.shape[0] != y.size or not np.isin(levels, (-1.0, 1.0)).all():
        raise ValueError(f"need -1 and +1 in {y.size} rows, one per response; got {levels.shape[0]} rows")
    columns = {str(name): levels[:, i] for i, name in enumerate(design.columns)}
    matrix = _with_intercept(list(columns.values()))
    if np.linalg.matrix_rank(matrix) < matrix.shape[1]:
        raise ValueError(
            "the main effects are aliased with each other or the mean; add runs or drop a factor"
        )
    if interactions:
        pairs = {f"{a}:{b}": columns[a] * columns[b] for a, b in combinations(columns, 2)}
        columns |= {name: pairs[name] for name in _estimable(columns, pairs)}
    fit = sm.OLS(y, _with_intercept(list(columns.values()))).fit()
    df, source = int(fit.df_resid), "residual"
    variance = fit.ssr / df if df else None
    groups = pd.Series(y).groupby([levels[:, i] for i in range(levels.shape[1])])
    within = y.size - groups.ngroups
    if within:
        spread = (y - groups.transform("mean").to_numpy()) @ (y - groups.transform("mean").to_numpy())
        variance, df, source = spread / within, within, "replicates"
    effects = []
    for place, (name, column) in enumerate(columns.items(), start=1):
        value, high = 2 * float(fit.params[place]), int((column > 0).sum())
        if variance is None:
            effects.append(Effect(name, value, high, y.size - high, None, None, None, None, "not available"))
            continue
        se = 2 * float(np.sqrt(variance * fit.normalized_cov_params[place, place]))
        half = float(scipy.stats.t.ppf((1 + level) / 2, df)) * se
        p = 2 * float(scipy.stats.t.sf(abs(value) / se, df)) if se else float(value == 0)
        effects.append(Effect(name, value, high, y.size - high, se, value - half, value + half, p, source))
    return effects


def _with_intercept(columns: Sequence[np.ndarray]) -> np.ndarray:
    return np.column_stack([np.ones(len(columns[0])), *columns])


def _estimable(mains: dict[str, np.ndarray], pairs: dict[str, np.ndarray]) -> list[str]:
    """The interactions whose column no combination of the others makes."""
    everything = [*mains.values(), *pairs.values()]
    rank = np.linalg.matrix_rank(_with_intercept(everything))
    return [
        name
        for place, name in enumerate(pairs, start=len(mains))
        if np.linalg.matrix_rank(_with_intercept(everything[:place] + everything[place + 1 :])) < rank
    ]
