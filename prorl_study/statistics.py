"""Intervals and estimators as pure functions over arrays; the random generator is an argument.

Two levels of noise matter here: which problems were drawn, and what was sampled. All intervals resample
problems, each carrying its own samples, so they cover both. What they leave out is the third level, the
training seed: a study with one seed says so in its captions. Corrections for many comparisons are left
to the caller.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike


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


def bootstrap_mean(
    values: ArrayLike, rng: np.random.Generator, resamples: int = 2000, level: float = 0.95
) -> Interval:
    """Mean over problems with its percentile bootstrap interval.

    `values`: one number per problem. Constant data (and a single problem) has the degenerate interval
    [value, value], where scipy would warn or return NaN. Raises ValueError for empty or NaN data.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or values.size == 0 or np.isnan(values).any():
        raise ValueError(f"need a non-empty vector without NaN, got shape {values.shape}")
    if (values == values[0]).all():
        return Interval(float(values[0]), float(values[0]), float(values[0]))
    result = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        batch=max(1, 2_000_000 // values.size),  # bounds the index matrix to about 16 MB
        rng=rng,
    )
    low, high = result.confidence_interval
    return Interval(float(values.mean()), float(low), float(high))


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, rng: np.random.Generator, resamples: int = 2000, level: float = 0.95
) -> Interval:
    """Mean of `b - a` over the same problems, in the same order, with its interval.

    Raises ValueError where the lengths differ.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"paired values need one shape, got {a.shape} and {b.shape}")
    return bootstrap_mean(b - a, rng, resamples, level)


def wilson(successes: int, trials: int, level: float = 0.95) -> Interval:
    """A single rate with Wilson's interval, which is right at 0 and 1 and for few trials."""
    test = scipy.stats.binomtest(successes, trials)
    interval = test.proportion_ci(level, method="wilson")
    return Interval(successes / trials, float(interval.low), float(interval.high))
