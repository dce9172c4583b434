"""The reasoning boundary: what a model can solve at all, in a thousand tries, before and after training.

All is said from counts per problem (`boundary_sampling`), so `recompute` needs no model. Success is strict
throughout; `artifact` alone also counts any graded score above zero, which is how the paper's 0 to 100 % on
some tasks came about. The paper's regimes (2505.24864, section 4.2 and figure 4) are assigned by `regime`,
whose thresholds were fixed before any model was sampled.

Left out: noise over training seeds, of which the default study has one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from prorl_study.boundary_sampling import BEST, SHARED, SPLITS, read_boundary
from prorl_study.domains import DOMAINS
from prorl_study.errors import StudyError
from prorl_study.statistics import (
    Interval,
    bootstrap_mean,
    expanded_level,
    named_rng,
    paired_bootstrap,
    pass_at_k,
    rule_of_three,
    wilson,
)

PARTIAL_DOMAINS = tuple(name for name, domain in DOMAINS.items() if domain.graded or domain.runs_code)
"""Where a sample can score above zero without being right: by a graded score, or with a part of the tests."""
MARGIN = 0.05
"""Differences of pass@k below this (5 points) count as none; part of the rule of `regime`."""
FEW = 16
"""Samples per problem in the paper's evaluation, at which the slope's artifact is shown."""
DIMINISH, PLATEAU, SUSTAINED, UNCLEAR = "diminish", "plateau", "sustained", "unclear"


def cell(counts: pd.DataFrame, model: str, setting: str, domain: str) -> pd.DataFrame:
    """One model's counts of a domain, indexed and sorted by problem, so that two models pair up."""
    mask = (counts.model == model) & (counts.setting == setting) & (counts.domain == domain)
    return counts[mask].set_index("problem").sort_index()


def _cells(counts: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """All (setting, domain) of the counts, domains in the study's order."""
    for setting in dict.fromkeys(counts.setting):
        present = set(counts[counts.setting == setting].domain)
        yield from ((setting, domain) for domain in DOMAINS if domain in present)


def doubling(n: int) -> list[int]:
    """1, 2, 4 ... up to n / 2, where the estimate of pass@k still averages over many draws."""
    return [2**power for power in range((n // 2).bit_length())]


def curves(counts: pd.DataFrame, seed: int, resamples: int, column: str = "solved") -> list[dict[str, Any]]:
    """pass@k rows: unbiased, averaged over problems, with 95 % bands over problems; values are fractions.

    `column` counts the successes: `solved` is strict, `above_zero` the paper's way on some tasks. The same
    resamples of problems serve all k of a curve, so that its band is smooth.
    """
    rows = []
    for setting, domain in _cells(counts):
        for model in dict.fromkeys(counts.model):
            table = cell(counts, model, setting, domain)
            for k in doubling(int(table.n.min())):
                rng = named_rng(seed, "boundary", "curve", setting, domain)
                band = bootstrap_mean(pass_at_k(table.n, table[column], k), rng, resamples)
                rows.append(
                    {
                        "model": model,
                        "setting": setting,
                        "temperature": float(table.temperature.iloc[0]),
                        "domain": domain,
                        "k": k,
                        "value": round(band.value, 6),
                        "ci_low": round(band.low, 6),
                        "ci_high": round(band.high, 6),
                        "n_problems": len(table),
                        "n_samples": int(table.n.min()),
                    }
                )
    return rows


def artifact(counts: pd.DataFrame, seed: int, resamples: int) -> list[dict[str, Any]]:
    """`curves` of `PARTIAL_DOMAINS` under two meanings of success: `strict` and `score above zero`."""
    part = counts[counts.domain.isin(PARTIAL_DOMAINS)]
    return [
        {**row, "success": meaning}
        for meaning, column in (("strict", "solved"), ("score above zero", "above_zero"))
        for row in curves(part, seed, resamples, column)
    ]


def crossing(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, Any]:
    """Problems that training made solvable, and those that it lost, out of the same problems.

    `before` and `after` have columns `n` and `solved`, in the same order of problems. Never solved in n tries
    bounds the rate by 3 / n with 95 % confidence (`bound`, the rule of three), so `gained_clear` counts those
    gained problems alone whose new rate lies above that bound with its own 95 % interval; `lost_clear`
    likewise. `gained_share` is a fraction of the problems, with its Wilson interval.
    """
    n_before, n_after = before.n.to_numpy(), after.n.to_numpy()
    solved_before, solved_after = before.solved.to_numpy(), after.solved.to_numpy()
    gained, lost = (solved_before == 0) & (solved_after > 0), (solved_before > 0) & (solved_after == 0)
    bound_before, bound_after = ([rule_of_three(int(i)) for i in n] for n in (n_before, n_after))
    row: dict[str, Any] = {"n_problems": len(before)}
    for kind, which, solved, n, bound in (
        ("gained", gained, solved_after, n_after, bound_before),
        ("lost", lost, solved_before, n_before, bound_after),
    ):
        share = wilson(int(which.sum()), len(which))
        names = (f"{kind}_share", f"{kind}_low", f"{kind}_high")
        row[kind] = int(which.sum())
        row[f"{kind}_clear"] = sum(
            wilson(int(solved[i]), int(n[i])).low > bound[i] for i in which.nonzero()[0]
        )
        row |= {name: round(value, 6) for name, value in zip(names, share, strict=True)}
    row["both"] = int(((solved_before > 0) & (solved_after > 0)).sum())
    row["neither"] = int(((solved_before == 0) & (solved_after == 0)).sum())
    row["bound"] = round(max(bound_before + bound_after), 6)
    return row


def crossings(counts: pd.DataFrame, models: Sequence[str]) -> list[dict[str, Any]]:
    """`crossing` from the base to each later model, per setting, domain and split.

    Rows whose `after` is `base again` set the second half of the base's samples against the first half:
    crossings that sampling alone brings about, although nothing was trained.
    """
    base, *later = models
    rows = []
    for setting, domain in _cells(counts):
        for split in SPLITS:
            part = counts[counts.split == split]
            before = cell(part, base, setting, domain)
            if before.empty:
                continue
            where = {"setting": setting, "domain": domain, "split": split, "before": base}
            for name in later:
                after = _paired(before, cell(part, name, setting, domain), base, name)
                rows.append({**where, "after": name, **crossing(before, after)})
            first = pd.DataFrame({"n": before.first_n, "solved": before.first_solved})
            second = pd.DataFrame({"n": before.n, "solved": before.solved}) - first
            rows.append({**where, "after": f"{base} again", **crossing(first, second)})
    return rows


def _paired(before: pd.DataFrame, after: pd.DataFrame, base: str, trained: str) -> pd.DataFrame:
    """`after`. Raises StudyError unless both have the same problems."""
    if list(before.index) != list(after.index):
        raise StudyError(f"{base} and {trained} differ in their problems; run `dvc repro -f boundary`.")
    return after


def regime(first: Interval, boundary: Interval, later: Interval | None) -> str:
    """The paper's regime of one domain, from three paired differences with their 95 % intervals.

    `first`: final - base of pass@1. `boundary`: the same at the largest k. `later`: final - middle at the
    largest k, None without a middle model. In words (2505.24864, figure 4): all need a gain at k = 1. Then

    - `diminish`: the boundary fell or stayed: its difference lies below `MARGIN`.
    - `plateau`: the boundary grew, but not in the later half of training: that added less than `MARGIN`.
    - `sustained`: the boundary grew, and the later half still added to it.
    - `unclear`: the intervals allow more than one of these, or there is no gain at k = 1.
    """
    if first.low <= 0:
        return UNCLEAR
    if boundary.high < MARGIN:
        return DIMINISH
    if boundary.low <= 0 or later is None:
        return UNCLEAR
    if later.high < MARGIN:
        return PLATEAU
    return SUSTAINED if later.low > 0 else UNCLEAR


def _difference(before: np.ndarray, after: np.ndarray, rng: np.random.Generator, resamples: int) -> Interval:
    """Paired difference of pass@k at a large k, at least 3 / problems wide to either side.

    There most problems are near 0 or 1 in both models and a bootstrap may see no spread at all, though up to
    3 / problems of all problems can still differ, by 1 at most: the rule of three again.
    """
    found, reach = paired_bootstrap(before, after, rng, resamples), rule_of_three(len(before))
    low, high = min(found.low, found.value - reach), max(found.high, found.value + reach)
    return Interval(found.value, max(-1.0, low), min(1.0, high))


def regimes(counts: pd.DataFrame, models: Sequence[str], seed: int, resamples: int) -> list[dict[str, Any]]:
    """The regime of every setting and domain with the differences that it rests on, as fractions.

    `models` are base, middle and final, or base and final.
    """
    base, final = models[0], models[-1]
    rows = []
    for setting, domain in _cells(counts):
        before = cell(counts, base, setting, domain)
        cells = {n: _paired(before, cell(counts, n, setting, domain), base, n) for n in models}
        largest = doubling(int(min(table.n.min() for table in cells.values())))[-1]
        pairs = {"first": (1, base), "boundary": (largest, base)}
        if len(models) > 2:
            pairs["later"] = (largest, models[1])
        found: dict[str, Interval] = {}
        for kind, (k, name) in pairs.items():
            values = [pass_at_k(cells[m].n, cells[m].solved, k) for m in (name, final)]
            compare = paired_bootstrap if kind == "first" else _difference
            found[kind] = compare(*values, named_rng(seed, "boundary", kind, setting, domain), resamples)
        row = {"setting": setting, "domain": domain}
        row["regime"] = regime(found["first"], found["boundary"], found.get("later"))
        for kind, interval in found.items():
            names = (kind, f"{kind}_low", f"{kind}_high")
            row |= {key: round(value, 6) for key, value in zip(names, interval, strict=True)}
        rows.append({**row, "k": largest, "n_problems": len(before), "final": final})
    return rows


def slope(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, resamples: int) -> Interval | None:
    """Least-squares slope of `y` on `x` over problems, with a 95 % bootstrap interval (expanded percentiles).

    A resample in which all `x` are equal counts as slope 0; None where that holds for the data themselves.
    """
    if len(x) < 3 or np.ptp(x) == 0:
        return None

    def fit(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        centred = x - x.mean(axis=axis, keepdims=True)
        spread = (centred**2).sum(axis=axis)
        together = (centred * y).sum(axis=axis)
        return np.divide(together, spread, out=np.zeros_like(together), where=spread > 0)

    result = scipy.stats.bootstrap(
        (x, y),
        fit,
        paired=True,
        n_resamples=resamples,
        confidence_level=expanded_level(0.95, len(x)),
        method="percentile",
        batch=max(1, 2_000_000 // len(x)),
        rng=rng,
    )
    low, high = result.confidence_interval
    return Interval(float(fit(x, y)), float(low), float(high))


def gain_against_base(
    base: pd.DataFrame, trained: pd.DataFrame, samples: int, rng: np.random.Generator, resamples: int
) -> dict[str, Interval | None]:
    """Slope of the gain on the base's strict score over problems, in two ways.

    Both frames have columns `n`, `solved`, `first_n` and `first_solved`, in the same order of problems. The
    base's score comes from `samples` of its first half. `one_sample` subtracts that same score from the
    trained model's, so its noise enters both axes with opposite signs and bends the slope downwards; `split`
    subtracts the score of as many samples of the other half. Raises ValueError where a half is too small.

    Fewer samples than were drawn are taken without replacement, which is one hypergeometric draw. A slope of
    -1 says no more than that the trained score does not depend on the base's.
    """
    second_n, second_solved = base.n - base.first_n, base.solved - base.first_solved
    if samples > min(base.first_n.min(), second_n.min()):
        raise ValueError(f"{samples} samples are more than half of {base.n.min()}")
    halves = ((base.first_n, base.first_solved), (second_n, second_solved))
    one, other = (rng.hypergeometric(solved, n - solved, samples) / samples for n, solved in halves)
    reached = (trained.solved / trained.n).to_numpy()
    return {
        "one_sample": slope(one, reached - one, rng, resamples),
        "split": slope(one, reached - other, rng, resamples),
    }


def slopes(counts: pd.DataFrame, models: Sequence[str], seed: int, resamples: int) -> list[dict[str, Any]]:
    """`gain_against_base` of the final model: per setting, for each domain and all together.

    With `FEW` samples, where the artifact shows, and with half of all; domains without any spread in the
    base's score have no slope.
    """
    base, final = models[0], models[-1]
    rows = []
    for setting in dict.fromkeys(counts.setting):
        own = [domain for found, domain in _cells(counts) if found == setting]
        pairs = {d: (cell(counts, base, setting, d), cell(counts, final, setting, d)) for d in own}
        together = tuple(pd.concat(list(side)) for side in zip(*pairs.values(), strict=True))
        for domain, (before, after) in {**pairs, "all": together}.items():
            after = _paired(before, after, base, final)
            half = int(before.first_n.min())
            for samples in sorted({min(FEW, half), half}):
                rng = named_rng(seed, "boundary", "slope", setting, domain, samples)
                for way, found in gain_against_base(before, after, samples, rng, resamples).items():
                    values = [None] * 3 if found is None else [round(value, 6) for value in found]
                    where = {"setting": setting, "domain": domain, "samples": samples, "way": way}
                    numbers = dict(zip(("slope", "ci_low", "ci_high"), values, strict=True))
                    rows.append({**where, **numbers, "n_problems": len(before)})
    return rows


def analyse(
    counts: pd.DataFrame, temperatures: pd.DataFrame, models: Sequence[str], seed: int, resamples: int
) -> dict[str, Any]:
    """All that `results/boundary.json` says, from the counts alone; the same input gives the same values."""
    best = counts[counts.setting == BEST].groupby("model").temperature.first()
    return {
        "models": list(models),
        "seed": seed,
        "resamples": resamples,
        "margin": MARGIN,
        "shared_temperature": float(counts[counts.setting == SHARED].temperature.iloc[0]),
        "best_temperatures": {model: float(best[model]) for model in models},
        "temperatures": [
            {"model": str(model), "temperature": float(t), "strict": round(float(value), 6)}
            for (model, t), value in (temperatures.solved / temperatures.n)
            .groupby([temperatures.model, temperatures.temperature])
            .mean()
            .items()
        ],
        "curves": curves(counts, seed, resamples),
        "artifact": artifact(counts, seed, resamples),
        "crossings": crossings(counts, models),
        "regimes": regimes(counts, models, seed, resamples),
        "slopes": slopes(counts, models, seed, resamples),
    }


def recompute(results_dir: Path) -> dict[str, Any]:
    """`boundary.json` again, from the committed counts. Raises StudyError where a file is missing."""
    path = Path(results_dir) / "boundary.json"
    if not path.is_file():
        raise StudyError(f"{path} is missing; make it with `dvc repro boundary`.")
    found = json.loads(path.read_text())
    tables = read_boundary(results_dir, found["models"])
    return analyse(*tables, found["models"], found["seed"], found["resamples"])


def totals(summary: Mapping[str, Any], setting: str, after: str) -> dict[str, int]:
    """Crossings from the base to `after`, summed over domains and splits."""
    rows = [row for row in summary["crossings"] if row["setting"] == setting and row["after"] == after]
    kinds = ("n_problems", "gained", "gained_clear", "lost", "lost_clear", "both", "neither")
    return {kind: sum(row[kind] for row in rows) for kind in kinds}


def finding(summary: Mapping[str, Any]) -> str:
    """The boundary page in one sentence, from intervals and counts at the shared temperature."""
    rows = [row for row in summary["regimes"] if row["setting"] == SHARED]
    above = sum(row["boundary_low"] > 0 for row in rows)
    below = sum(row["boundary_high"] < 0 for row in rows)
    named = ", ".join(
        f"{row['domain']} {100 * row['boundary']:+.1f} [{100 * row['boundary_low']:+.1f}, "
        f"{100 * row['boundary_high']:+.1f}] {row['regime']}"
        for row in rows
    )
    base, final = summary["models"][0], summary["models"][-1]
    crossed = totals(summary, SHARED, final)
    chance = totals(summary, SHARED, f"{base} again")
    return (
        f"At T {summary['shared_temperature']:g}, pass@{rows[0]['k']} of {final} is above the base's in "
        f"{above} of {len(rows)} domains and below it in {below} with its 95 % interval (points, regime: "
        f"{named}); "
        f"of {crossed['n_problems']} problems {crossed['gained']} became solvable and {crossed['lost']} were "
        f"lost, where two halves of the base's own samples differ by {chance['gained']} and {chance['lost']}."
    )
