"""The measures of the claims: each an estimate with its interval, computed from committed counts.

Every measure takes the results and its aim (`Aim`), and a domain where its claim is about one. Points are
percentage points. Left out: what the claims say, what verdict an interval earns and how primary claims are
corrected together (`claims`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from prorl_study import boundary
from prorl_study.benchmarks import recompute, training_free, values_of
from prorl_study.boundary_sampling import SHARED, read_boundary
from prorl_study.domains import DOMAINS
from prorl_study.evaluation import read_counts
from prorl_study.evidence import for_claims, load_rows
from prorl_study.paper import load_paper
from prorl_study.statistics import (
    Interval,
    bootstrap_mean,
    expanded_level,
    named_rng,
    paired_bootstrap,
    pass_at_k,
    permutation_test,
)

HARD_K = 16
"""k of the boundary claims on `hard`; smaller where fewer than 2k samples were drawn."""
FROM_UNDER = 10.0
"""Percent: a domain that starts below this on `hard` counts as hardly solvable by the base."""


class Aim(NamedTuple):
    """What a measure is held to."""

    level: float
    """Of its interval, as a fraction."""
    margin: float
    """Of its claim in params.yaml, in the claim's unit."""


@dataclass(frozen=True)
class Results:
    """What the tests of the claims may look at."""

    counts: pd.DataFrame
    gains: Sequence[Mapping[str, Any]]
    """Rows as `benchmarks.gains` makes them, from these very counts."""
    train: pd.DataFrame | None
    """Training log of the main arm, in order of time; None where there is none."""
    boundary: pd.DataFrame | None = None
    """Per-problem counts of the boundary stage; None where it has not run."""
    runs: Sequence[Mapping[str, Any]] = ()
    """Rows of the long experiments, as `evidence.load_rows` reads them."""

    @classmethod
    def load(cls, results_dir: Path) -> Results:
        """Read `counts/`, `gains.json` (for its settings), `training/*.csv`, what the boundary stage wrote
        and `evidence/runs`; the last three may be missing.

        Raises StudyError where one of the first two is.
        """
        results_dir = Path(results_dir)
        gains = recompute(results_dir, load_paper())
        paths = sorted((results_dir / "training").glob("*.csv"), key=lambda p: (len(p.name), p.name))
        logs = [log for log in map(pd.read_csv, paths) if "entropy" in log]
        deep = results_dir / "boundary.json"
        models = json.loads(deep.read_text())["models"] if deep.is_file() else []
        return cls(
            read_counts(results_dir),
            gains,
            pd.concat(logs, ignore_index=True) if logs else None,
            read_boundary(results_dir, models)[0] if models else None,
            for_claims(load_rows(results_dir)),
        )

    def rng(self, *names: object) -> np.random.Generator:
        return named_rng(self.gains[0]["seed"], "claims", *names)

    @property
    def resamples(self) -> int:
        return self.gains[0]["resamples"]

    @property
    def models(self) -> tuple[str, str]:
        """The base and the trained model that the gains compare."""
        return self.gains[0]["base_model"], self.gains[0]["trained_model"]

    @property
    def domains(self) -> list[str]:
        """Those that have test problems."""
        return [row["domain"] for row in self.gains if row["measure"] == "strict"]


@dataclass(frozen=True)
class Outcome:
    """Estimate with its interval; above zero means as the claim says. No interval means no estimate."""

    interval: Interval | None
    detail: str = ""
    n_problems: int = 0
    n_seeds: int = 1
    p: float | None = None
    """Of a primary claim, before correction."""
    same_sampler: Interval | None = None
    """Of a gain over the best training-free base, which may choose after the fact: the gain at the same
    sampler. Training hurt only where that lies below zero as well; a model against itself has no effect."""
    ran: bool = True


def not_run(reason: str) -> Outcome:
    return Outcome(None, reason, n_seeds=0, ran=False)


def _points(interval: Interval) -> Interval:
    return Interval(*(round(100 * value, 4) for value in interval))


def _honest_zero(interval: Interval, problems: int) -> Interval:
    """An interval in points; where no problem differs at all, the rule of three instead of no width.

    A bootstrap of zeros is [0, 0] however few there are, but up to 3 / n of all problems may differ.
    """
    if interval.low == interval.high == 0:
        return Interval(0.0, round(-300 / problems, 4), round(300 / problems, 4))
    return interval


def _row(results: Results, domain: str) -> Mapping[str, Any] | None:
    rows = [row for row in results.gains if (row["domain"], row["measure"]) == (domain, "strict")]
    return rows[0] if rows else None


def _rates(results: Results, model: str, domain: str) -> pd.Series:
    """Strict rate per test problem under the shared sampler."""
    counts = values_of(results.counts, model, "test", "sampled", domain)
    return counts.solved / counts.n


def _over_training_free(results: Results, domain: str) -> np.ndarray:
    """Per test problem: the trained model's strict rate minus that of the best training-free base."""
    row = _row(results, domain)
    before = training_free(results.counts, domain, "strict", row["base_model"])[
        row["best_training_free_method"]
    ]
    return (_rates(results, row["trained_model"], domain) - before).to_numpy()


def _mean_of_domains(differences: Sequence[np.ndarray]) -> np.ndarray:
    """All problems' differences, weighted so that their mean is the mean of the domains' means."""
    total = sum(map(len, differences))
    return np.concatenate([part * total / (len(differences) * len(part)) for part in differences])


def gain_overall(results: Results, aim: Aim) -> Outcome:
    """Mean of the domains' strict gains over the best training-free base on `test`."""
    if not results.domains:
        return not_run("no problems in test")
    values = _mean_of_domains([_over_training_free(results, domain) for domain in results.domains])
    interval = bootstrap_mean(values, results.rng("overall"), results.resamples, aim.level)
    p = permutation_test(np.zeros_like(values), values, results.rng("overall", "p"))
    methods = ", ".join(f"{d} {_row(results, d)['best_training_free_method']}" for d in results.domains)
    base, trained = results.models
    plain = _mean_of_domains(
        [(_rates(results, trained, d) - _rates(results, base, d)).to_numpy() for d in results.domains]
    )
    same = bootstrap_mean(plain, results.rng("overall", "same sampler"), results.resamples, aim.level)
    return Outcome(
        _honest_zero(_points(interval), len(values)),
        f"best training-free base: {methods}",
        len(values),
        p=p,
        same_sampler=_points(same),
    )


def gain(results: Results, aim: Aim, domain: str) -> Outcome:
    """Strict gain over the best training-free base on `test`."""
    row = _row(results, domain)
    if row is None:
        return not_run(f"no {domain} problems in test")
    interval = Interval(row["gain_over_training_free"], row["ci_low"], row["ci_high"])
    detail = f"best training-free base: {row['best_training_free_method']}"
    same = Interval(row["gain"], row["gain_ci_low"], row["gain_ci_high"])
    interval = _honest_zero(interval, row["n_problems"])
    return Outcome(interval, detail, row["n_problems"], same_sampler=same)


def lenient_share(results: Results, aim: Aim, domain: str) -> Outcome:
    """Lenient gain minus half of the strict gain, same sampler, paired over problems."""
    row = _row(results, domain)
    if row is None:
        return not_run(f"no {domain} problems in test")
    if row["gain_ci_low"] <= 0:
        return Outcome(None, "there is no clear strict gain to explain", row["n_problems"])
    base = values_of(results.counts, row["base_model"], "test", "sampled", domain)
    after = values_of(results.counts, row["trained_model"], "test", "sampled", domain)
    strict = after.solved / after.n - base.solved / base.n
    lenient = after.lenient_solved / after.n - base.lenient_solved / base.n
    rng = results.rng("lenient", domain)
    interval = paired_bootstrap(strict / 2, lenient, rng, results.resamples, aim.level)
    share = lenient.mean() / strict.mean()
    detail = f"{share:.0%} of the strict gain remains after lenient re-extraction"
    return Outcome(_points(interval), detail, len(base))


def logic_largest(results: Results, aim: Aim) -> Outcome:
    """Strict gain in logic minus the largest gain of another domain."""
    others = [domain for domain in results.domains if domain != "logic"]
    if "logic" not in results.domains or not others:
        return not_run("no logic problems, or no others, in test")
    rng = results.rng("logic-largest")
    drawn, means = {}, {}
    for domain in results.domains:
        values = _over_training_free(results, domain)
        picks = rng.integers(len(values), size=(results.resamples, len(values)))
        drawn[domain], means[domain] = values[picks].mean(axis=1), values.mean()
    largest = np.max([drawn[domain] for domain in others], axis=0)
    fewest = min(_row(results, domain)["n_problems"] for domain in results.domains)
    level = expanded_level(aim.level, fewest)
    low, high = np.quantile(drawn["logic"] - largest, [(1 - level) / 2, (1 + level) / 2])
    best = max(others, key=lambda domain: means[domain])
    interval = _points(Interval(means["logic"] - means[best], float(low), float(high)))
    problems = sum(_row(results, domain)["n_problems"] for domain in results.domains)
    return Outcome(interval, f"largest other gain: {best}", problems)


def no_domain_sacrificed(results: Results, aim: Aim) -> Outcome:
    """Smallest of the strict gains over the sampled base, plus the margin of non-inferiority."""
    rows = [_row(results, domain) for domain in results.domains]
    if not rows:
        return not_run("no problems in test")
    ends = [min(row[key] for row in rows) for key in ("gain", "gain_ci_low", "gain_ci_high")]
    least = min(rows, key=lambda row: row["gain"])
    detail = (
        f"smallest gain: {least['domain']} {least['gain']:+.1f} points; the margin of {aim.margin:g} is added"
    )
    interval = Interval(*(round(end + aim.margin, 4) for end in ends))
    return Outcome(interval, detail, sum(row["n_problems"] for row in rows))


def gains_continue(results: Results, aim: Aim) -> Outcome:
    """Last segment minus the first that ends at or after a quarter of all steps, mean of the domains."""
    if results.train is None or "segment" not in results.train:
        return not_run("no training log under results/training")
    steps = results.train.groupby("segment", sort=False).size().cumsum()
    known = [name for name in steps.index if name in set(results.counts.model)]
    early = next((name for name in known if steps[name] >= steps.iloc[-1] / 4), None)
    last = results.models[1]
    if early is None or early == last:
        return not_run("needs the models of at least two segments")
    differences = [
        (_rates(results, last, domain) - _rates(results, early, domain)).to_numpy()
        for domain in results.domains
    ]
    values = _mean_of_domains(differences)
    interval = bootstrap_mean(values, results.rng("continue"), results.resamples, aim.level)
    detail = f"{last} against {early}, which ends at {steps[early] / steps.iloc[-1]:.0%} of the steps"
    return Outcome(_honest_zero(_points(interval), len(values)), detail, len(values))


def _hard(results: Results, aim: Aim, domain: str) -> tuple[Interval, float, int, int] | None:
    """Rise of pass@k on `hard` in points, the base's pass@k in percent, k, problems; None without any."""
    cells = [values_of(results.counts, model, "hard", "sampled", domain) for model in results.models]
    base, after = (cell[cell.open_ended == 1] for cell in cells)
    if base.empty or list(base.index) != list(after.index):
        return None
    most = int(min(base.n.min(), after.n.min())) // 2
    k = min(HARD_K, max(1, most))
    before, then = pass_at_k(base.n, base.solved, k), pass_at_k(after.n, after.solved, k)
    rise = paired_bootstrap(before, then, results.rng("hard", domain), results.resamples, aim.level)
    return _honest_zero(_points(rise), len(base)), 100 * float(before.mean()), k, len(base)


def hard_boundary(results: Results, aim: Aim, domain: str) -> Outcome:
    """Rise of strict pass@16 on `hard`, paired over problems."""
    found = _hard(results, aim, domain)
    if found is None:
        return not_run(f"no open-ended {domain} problems in hard")
    interval, before, k, problems = found
    return Outcome(interval, f"pass@{k} of the base: {before:.1f} %", problems)


def hard_two_domains(results: Results, aim: Aim) -> Outcome:
    """The second largest rise among domains that start under 10 %: above zero if at least two rise."""
    found = {domain: _hard(results, aim, domain) for domain in DOMAINS}
    low_start = {d: f[0] for d, f in found.items() if f is not None and f[1] < FROM_UNDER}
    if not any(found.values()):
        return not_run("no open-ended problems in hard")
    named = ", ".join(low_start) or "none"
    detail = f"domains that start under {FROM_UNDER:g} %: {named}"
    problems = sum(f[3] for f in found.values() if f is not None)
    if len(low_start) < 2:
        return Outcome(None, f"{detail}; two are needed", problems)
    second = Interval(*(sorted(bounds)[-2] for bounds in zip(*low_start.values(), strict=True)))
    return Outcome(second, detail, problems)


def _deep(results: Results) -> dict[str, tuple[pd.DataFrame, ...]]:
    """Counts of base and trained model per domain in the boundary stage, at the shared temperature."""
    present = set(results.boundary[results.boundary.setting == SHARED].domain)
    return {
        domain: tuple(boundary.cell(results.boundary, model, SHARED, domain) for model in results.models)
        for domain in DOMAINS
        if domain in present
    }


def boundary_deep(results: Results, aim: Aim) -> Outcome:
    """Rise of strict pass@k at the largest k of the boundary stage, mean of the domains."""
    if results.boundary is None:
        return not_run("needs the stage boundary")
    cells = _deep(results)
    k = boundary.doubling(int(min(cell.n.min() for pair in cells.values() for cell in pair)))[-1]
    values = _mean_of_domains(
        [
            pass_at_k(after.n, after.solved, k) - pass_at_k(before.n, before.solved, k)
            for before, after in cells.values()
        ]
    )
    interval = bootstrap_mean(values, results.rng("boundary-deep"), results.resamples, aim.level)
    return Outcome(_honest_zero(_points(interval), len(values)), f"k = {k}", len(values))


def weakest_base(results: Results, aim: Aim) -> Outcome:
    """How much the gain falls per point of base score, over problems; score and gain from different halves of
    the base's samples. A fall of 1 says no more than that the trained score does not depend on the base's."""
    if results.boundary is None:
        return not_run("needs the stage boundary")
    before, after = (pd.concat(list(side)) for side in zip(*_deep(results).values(), strict=True))
    half = int(min(before.first_n.min(), (before.n - before.first_n).min()))
    rng = results.rng("weakest-base")
    slope = boundary.gain_against_base(before, after, half, rng, results.resamples)["split"]
    if slope is None:
        return Outcome(None, "the base scores the same on all problems", len(before))
    fall = Interval(*(round(-end, 4) for end in (slope.value, slope.high, slope.low)))
    return Outcome(fall, f"base score and gain from {half} samples each", len(before))


def entropy_held(results: Results, aim: Aim) -> Outcome:
    """Mean entropy of the last tenth of steps minus half of that of the first tenth.

    The interval is the wide one: the ends of the two windows' own bootstrap intervals.
    """
    if results.train is None:
        return not_run("no training log under results/training")
    entropy = results.train["entropy"].dropna().to_numpy()
    window = max(2, len(entropy) // 10)
    if len(entropy) < 2 * window:
        return Outcome(None, f"only {len(entropy)} logged steps")
    start = bootstrap_mean(entropy[:window], results.rng("entropy", "start"), results.resamples, aim.level)
    end = bootstrap_mean(entropy[-window:], results.rng("entropy", "end"), results.resamples, aim.level)
    kept = Interval(end.value - start.value / 2, end.low - start.high / 2, end.high - start.low / 2)
    return Outcome(kept, f"{start.value:.3f} nats in the first tenth of steps, {end.value:.3f} in the last")
