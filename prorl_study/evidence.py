"""What the rows of the long experiments say together: differences paired by seed, effects, fitted curves.

Arms are compared on the same base with the same seed, at equal sampled tokens (where every run ends) and
at equal operations (where the cheaper of the two ends, the other read off between its segments' ends). Scores
are strict success on the test problems, percent, as the mean of the domains. Left out: how a run is done
(`runs`) and what a claim makes of a difference (`arm_measures`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

Row = Mapping[str, Any]

FOR_CLAIMS = ("recipe", "second_base", "parts", "controls", "specialists")
"""Experiments that claims are judged by: arms over seeds that start from a base. The others vary what a claim
holds fixed (settings, the starting model, one seed's map), and are shown for themselves."""


def load_rows(results_dir: Path) -> list[dict[str, Any]]:
    """All rows of `evidence/runs`, by name; none where no run has ended."""
    folder = Path(results_dir) / "evidence" / "runs"
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def for_claims(rows: Sequence[Row]) -> list[Row]:
    """The rows of `FOR_CLAIMS`."""
    return [row for row in rows if row["experiment"] in FOR_CLAIMS]


def score(end: Mapping[str, Any], kind: str = "strict", domains: Sequence[str] | None = None) -> float:
    """Percent solved at a segment's end: mean of its domains, or of some of them."""
    values = end[kind]
    return 100 * float(np.mean([values[name] for name in domains or values]))


def final_score(row: Row) -> float:
    """Percent solved at a run's end, where its sampled tokens are spent."""
    return score(row["ends"][-1])


def score_at(row: Row, flops: float) -> float:
    """Percent solved after `flops` operations, on the line between the ends of two segments.

    Raises ValueError before the first end and after the last one, where nothing was measured.
    """
    costs = [end["flops"] for end in row["ends"]]
    if not costs[0] <= flops <= costs[-1]:
        raise ValueError(
            f"{flops:.3g} operations lie outside of {row['name']}'s {costs[0]:.3g} to {costs[-1]:.3g}"
        )
    return float(np.interp(flops, costs, [score(end) for end in row["ends"]]))


def pairs(rows: Sequence[Row], arm: str, other: str) -> list[tuple[Row, Row]]:
    """Runs of two arms on the same base with the same seed and budget, in order of base and seed.

    A run of an arm may stand in another experiment than its partner; where an arm has a pair twice, the first
    counts.
    """
    found: dict[str, dict[tuple[Any, ...], Row]] = {arm: {}, other: {}}
    for row in rows:
        if row["arm"] in found:
            key = (row["base"], row["seed"], row["budget"])
            found[row["arm"]].setdefault(key, row)
    keys = sorted(set(found[arm]) & set(found[other]))
    return [(found[arm][key], found[other][key]) for key in keys]


def differences(
    rows: Sequence[Row], arm: str, other: str, value: Callable[[Row], float] = final_score
) -> np.ndarray:
    """`value` of `arm` minus that of `other`, one per pair."""
    return np.array([value(one) - value(two) for one, two in pairs(rows, arm, other)])


def differences_at_equal_cost(rows: Sequence[Row], arm: str, other: str) -> np.ndarray:
    """Percent solved by `arm` minus `other` where the cheaper run of each pair has spent its operations."""
    found = []
    for one, two in pairs(rows, arm, other):
        limit = min(one["flops"], two["flops"])
        found.append(score_at(one, limit) - score_at(two, limit))
    return np.array(found)


def gains_at_equal_domain_tokens(generalist: Row, specialist: Row, domain: str) -> tuple[float, float]:
    """Points that a generalist and the specialist of `domain` gain in it, after as many sampled tokens of it
    as the generalist has spent on it.

    The specialist is read off on the line between its start, at no tokens, and its segments' ends. Raises
    ValueError where the specialist has spent fewer.
    """
    spent = generalist["ends"][-1]["tokens_of"][domain]
    tokens = [0, *(end["tokens_of"][domain] for end in specialist["ends"])]
    if spent > tokens[-1]:
        raise ValueError(f"{specialist['name']} has sampled {tokens[-1]} tokens of {domain}, not {spent}")
    scores = [score(at, domains=[domain]) for at in (specialist["start"], *specialist["ends"])]
    gain = score(generalist["ends"][-1], domains=[domain]) - score(generalist["start"], domains=[domain])
    return gain, float(np.interp(spent, tokens, scores)) - scores[0]


class Curve(NamedTuple):
    """A learning curve that rises from `start` to `asymptote` by the share 1 - exp(-rate * x)."""

    start: float
    asymptote: float
    rate: float
    """Per unit of x; ln 2 over it is what half of the way takes."""
    residual: float
    """Root of the mean squared distance of the points from the curve."""


def fit_curve(x: ArrayLike, y: ArrayLike) -> Curve | None:
    """Least-squares fit to points of (n,) each; None where there are fewer than five, or where no curve
    within the bounds (scores from 0 to 1, rates up to one over the first step) fits."""
    from scipy.optimize import curve_fit

    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < 5:
        return None
    span = x.max() - x.min()

    def rise(at: np.ndarray, start: float, asymptote: float, rate: float) -> np.ndarray:
        return asymptote - (asymptote - start) * np.exp(-rate * (at - x.min()) / span)

    guess = (float(np.clip(y[0], 0.01, 0.99)), float(np.clip(y.max(), 0.01, 0.99)), 3.0)
    try:
        (start, asymptote, rate), _ = curve_fit(rise, x, y, guess, bounds=([0, 0, 0.05], [1, 1, 100]))
    except RuntimeError:
        return None
    residual = float(np.sqrt(np.mean((rise(x, start, asymptote, rate) - y) ** 2)))
    return Curve(float(start), float(asymptote), float(rate / span), residual)
