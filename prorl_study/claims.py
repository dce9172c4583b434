"""The claims as data: what is said, by whom, and how this study looks at it.

`params.yaml` fixes each claim's measure, test, margin and family before the runs; here stand the statements
with their sources, and the functions that compute the measures from committed counts. A verdict is generated
from an interval, never typed: `seen here`, `opposite here`, `no effect larger than X`, `undecided (could have
seen X)`, `not run`. Nothing here says that a result of the paper was reproduced or contradicted: that takes
its model.

Five primary claims are corrected together: their intervals are simultaneous (Bonferroni), their p-values
Holm's. All others are estimates, each with its own 95 % interval. Left out: noise over training seeds, where
a study has one; `n_seeds` says so in each row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prorl_study.benchmarks import recompute, training_free, values_of
from prorl_study.boundary import doubling, gain_against_base
from prorl_study.boundary_sampling import SHARED, read_boundary
from prorl_study.errors import StudyError
from prorl_study.evaluation import read_counts
from prorl_study.paper import load_paper
from prorl_study.params import ClaimParams
from prorl_study.statistics import (
    Interval,
    bootstrap_mean,
    holm,
    named_rng,
    paired_bootstrap,
    pass_at_k,
    permutation_test,
    wording,
)

NAMES = {
    "math": "math",
    "code": "code",
    "stem": "STEM",
    "logic": "logic puzzles",
    "instruction": "instruction following",
}
HARD_K = 16
"""k of the boundary claims on `hard`; smaller where fewer than 2k samples were drawn."""
FROM_UNDER = 10.0
"""Percent: a domain that starts below this on `hard` counts as hardly solvable by the base."""
ERROR_RATE = 0.05
"""Of all primary claims together, and of each estimate by itself."""


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

    @classmethod
    def load(cls, results_dir: Path) -> Results:
        """Read `counts/`, `gains.json` (for its settings), `train/*.csv` and what the boundary stage wrote;
        the last two may be missing.

        Raises StudyError where one of the first two is.
        """
        results_dir = Path(results_dir)
        gains = recompute(results_dir, load_paper())
        paths = sorted((results_dir / "train").glob("*.csv"), key=lambda p: (len(p.name), p.name))
        logs = [log for log in map(pd.read_csv, paths) if "entropy" in log]
        deep = results_dir / "boundary.json"
        models = json.loads(deep.read_text())["models"] if deep.is_file() else []
        return cls(
            read_counts(results_dir),
            gains,
            pd.concat(logs, ignore_index=True) if logs else None,
            read_boundary(results_dir, models)[0] if models else None,
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


@dataclass(frozen=True)
class Claim:
    """One statement of the paper, or one that its readers make, and what computes this study's measure of it.

    `compute` takes the results and the level of its interval.
    """

    id: str
    statement: str
    source: str
    paper_value: str | None
    """The paper's number with its unit, None where it gives none."""
    compute: Callable[[Results, float], Outcome]
    data: str = "counts/*.csv"
    """Committed files under `results/` that the number is computed from."""


def verdict(outcome: Outcome, margin: float, unit: str) -> str:
    """The wording that an outcome earns; see `statistics.wording`."""
    if not outcome.ran:
        return "not run"
    if outcome.interval is None:
        return "undecided"
    word = wording(outcome.interval, margin, unit)
    if word == "opposite here" and outcome.same_sampler is not None and outcome.same_sampler.high >= 0:
        return wording(Interval(0.0, outcome.interval.low, outcome.same_sampler.high), margin, unit)
    return word


def sentence(row: Mapping[str, Any]) -> str:
    """One sentence for a row of `judge_claims`, its numbers from the row alone."""
    if row["value"] is None:
        return f"{row['verdict'].capitalize()}: {row['detail']}."
    digits = 1 if row["unit"] == "points" else 3
    numbers = ", ".join(f"{row[end]:+.{digits}f}" for end in ("ci_low", "ci_high"))
    scope = f"{row['n_problems']} problems, " if row["n_problems"] else ""
    seeds = f"{row['n_seeds']} training seed{'s' if row['n_seeds'] != 1 else ''}"
    level = f"{100 * row['level']:g} %"
    return (
        f"{row['verdict'].capitalize()}: {row['value']:+.{digits}f} {row['unit']}, {level} interval "
        f"[{numbers}], {scope}{seeds}."
    )


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
    cell = values_of(results.counts, model, "test", "sampled", domain)
    return cell.solved / cell.n


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


def gain_overall(results: Results, level: float) -> Outcome:
    """Mean of the domains' strict gains over the best training-free base on `test`."""
    if not results.domains:
        return not_run("no problems in test")
    values = _mean_of_domains([_over_training_free(results, domain) for domain in results.domains])
    interval = bootstrap_mean(values, results.rng("overall"), results.resamples, level)
    p = permutation_test(np.zeros_like(values), values, results.rng("overall", "p"))
    methods = ", ".join(f"{d} {_row(results, d)['best_training_free_method']}" for d in results.domains)
    base, trained = results.models
    plain = _mean_of_domains(
        [(_rates(results, trained, d) - _rates(results, base, d)).to_numpy() for d in results.domains]
    )
    same = bootstrap_mean(plain, results.rng("overall", "same sampler"), results.resamples, level)
    return Outcome(
        _honest_zero(_points(interval), len(values)),
        f"best training-free base: {methods}",
        len(values),
        p=p,
        same_sampler=_points(same),
    )


def gain(results: Results, level: float, domain: str) -> Outcome:
    """Strict gain over the best training-free base on `test`."""
    row = _row(results, domain)
    if row is None:
        return not_run(f"no {domain} problems in test")
    interval = Interval(row["gain_over_training_free"], row["ci_low"], row["ci_high"])
    detail = f"best training-free base: {row['best_training_free_method']}"
    same = Interval(row["gain"], row["gain_ci_low"], row["gain_ci_high"])
    interval = _honest_zero(interval, row["n_problems"])
    return Outcome(interval, detail, row["n_problems"], same_sampler=same)


def lenient_share(results: Results, level: float, domain: str) -> Outcome:
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
    interval = paired_bootstrap(strict / 2, lenient, rng, results.resamples, level)
    share = lenient.mean() / strict.mean()
    detail = f"{share:.0%} of the strict gain remains after lenient re-extraction"
    return Outcome(_points(interval), detail, len(base))


def logic_largest(results: Results, level: float) -> Outcome:
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
    low, high = np.quantile(drawn["logic"] - largest, [(1 - level) / 2, (1 + level) / 2])
    best = max(others, key=lambda domain: means[domain])
    interval = _points(Interval(means["logic"] - means[best], float(low), float(high)))
    problems = sum(_row(results, domain)["n_problems"] for domain in results.domains)
    return Outcome(interval, f"largest other gain: {best}", problems)


def no_domain_sacrificed(results: Results, level: float, margin: float = 2.0) -> Outcome:
    """Smallest of the strict gains over the sampled base, plus the margin of non-inferiority."""
    rows = [_row(results, domain) for domain in results.domains]
    if not rows:
        return not_run("no problems in test")
    ends = [min(row[key] for row in rows) for key in ("gain", "gain_ci_low", "gain_ci_high")]
    least = min(rows, key=lambda row: row["gain"])
    detail = (
        f"smallest gain: {least['domain']} {least['gain']:+.1f} points; the margin of {margin:g} is added"
    )
    interval = Interval(*(round(end + margin, 4) for end in ends))
    return Outcome(interval, detail, sum(row["n_problems"] for row in rows))


def gains_continue(results: Results, level: float) -> Outcome:
    """Last segment minus the first that ends at or after a quarter of all steps, mean of the domains."""
    if results.train is None or "segment" not in results.train:
        return not_run("no training log under results/train")
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
    interval = bootstrap_mean(values, results.rng("continue"), results.resamples, level)
    detail = f"{last} against {early}, which ends at {steps[early] / steps.iloc[-1]:.0%} of the steps"
    return Outcome(_honest_zero(_points(interval), len(values)), detail, len(values))


def _hard(results: Results, level: float, domain: str) -> tuple[Interval, float, int, int] | None:
    """Rise of pass@k on `hard` in points, the base's pass@k in percent, k, problems; None without any."""
    cells = [values_of(results.counts, model, "hard", "sampled", domain) for model in results.models]
    base, after = (cell[cell.open_ended == 1] for cell in cells)
    if base.empty or list(base.index) != list(after.index):
        return None
    most = int(min(base.n.min(), after.n.min())) // 2
    k = min(HARD_K, max(1, most))
    before, then = pass_at_k(base.n, base.solved, k), pass_at_k(after.n, after.solved, k)
    rise = paired_bootstrap(before, then, results.rng("hard", domain), results.resamples, level)
    return _honest_zero(_points(rise), len(base)), 100 * float(before.mean()), k, len(base)


def hard_boundary(results: Results, level: float, domain: str) -> Outcome:
    """Rise of strict pass@16 on `hard`, paired over problems."""
    found = _hard(results, level, domain)
    if found is None:
        return not_run(f"no open-ended {domain} problems in hard")
    interval, before, k, problems = found
    return Outcome(interval, f"pass@{k} of the base: {before:.1f} %", problems)


def hard_two_domains(results: Results, level: float) -> Outcome:
    """The second largest rise among domains that start under 10 %: above zero if at least two rise."""
    found = {domain: _hard(results, level, domain) for domain in NAMES}
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


def _deep(results: Results) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Counts of base and trained model per domain in the boundary stage, at the shared temperature."""
    table = results.boundary[results.boundary.setting == SHARED]
    found = {}
    for domain in [name for name in NAMES if name in set(table.domain)]:
        part = table[table.domain == domain].set_index("problem").sort_index()
        found[domain] = tuple(part[part.model == model] for model in results.models)
    return found


def boundary_deep(results: Results, level: float) -> Outcome:
    """Rise of strict pass@k at the largest k of the boundary stage, mean of the domains."""
    if results.boundary is None:
        return not_run("needs the stage boundary")
    cells = _deep(results)
    k = doubling(int(min(cell.n.min() for pair in cells.values() for cell in pair)))[-1]
    values = _mean_of_domains(
        [
            pass_at_k(after.n, after.solved, k) - pass_at_k(before.n, before.solved, k)
            for before, after in cells.values()
        ]
    )
    interval = bootstrap_mean(values, results.rng("boundary-deep"), results.resamples, level)
    return Outcome(_honest_zero(_points(interval), len(values)), f"k = {k}", len(values))


def weakest_base(results: Results, level: float) -> Outcome:
    """How much the gain falls per point of base score, over problems; score and gain from different halves of
    the base's samples. A fall of 1 says no more than that the trained score does not depend on the base's."""
    if results.boundary is None:
        return not_run("needs the stage boundary")
    before, after = (pd.concat(list(side)) for side in zip(*_deep(results).values(), strict=True))
    half = int(min(before.first_n.min(), (before.n - before.first_n).min()))
    rng = results.rng("weakest-base")
    slope = gain_against_base(before, after, half, rng, results.resamples)["split"]
    if slope is None:
        return Outcome(None, "the base scores the same on all problems", len(before))
    fall = Interval(*(round(-end, 4) for end in (slope.value, slope.high, slope.low)))
    return Outcome(fall, f"base score and gain from {half} samples each", len(before))


def entropy_held(results: Results, level: float) -> Outcome:
    """Mean entropy of the last tenth of steps minus half of that of the first tenth.

    The interval is the wide one: the ends of the two windows' own bootstrap intervals.
    """
    if results.train is None:
        return not_run("no training log under results/train")
    entropy = results.train["entropy"].dropna().to_numpy()
    window = max(2, len(entropy) // 10)
    if len(entropy) < 2 * window:
        return Outcome(None, f"only {len(entropy)} logged steps")
    start = bootstrap_mean(entropy[:window], results.rng("entropy", "start"), results.resamples, level)
    end = bootstrap_mean(entropy[-window:], results.rng("entropy", "end"), results.resamples, level)
    kept = Interval(end.value - start.value / 2, end.low - start.high / 2, end.high - start.low / 2)
    return Outcome(kept, f"{start.value:.3f} nats in the first tenth of steps, {end.value:.3f} in the last")


def _claims() -> list[Claim]:
    paper = load_paper()["gains"]

    def waits(for_what: str) -> Callable[[Results, float], Outcome]:
        return lambda results, level: not_run(f"needs {for_what}")

    def each(prefix: str, statement: str, source: str, compute: Any) -> list[Claim]:
        return [
            Claim(
                f"{prefix}-{domain}",
                statement.format(name=name),
                source,
                f"+{paper[domain]['section3']} points ({paper[domain]['measure']})"
                if prefix == "gain"
                else None,
                partial(compute, domain=domain),
            )
            for domain, name in NAMES.items()
        ]

    recipe = "2505.24864, section 2.3; 2507.12507"
    return [
        Claim(
            "gain-overall",
            "Prolonged RL on several domains gains over the best that decoding gets out of the base.",
            "2505.24864, section 3",
            ", ".join(f"{domain} +{paper[domain]['section3']}" for domain in NAMES)
            + " points over the sampled base",
            gain_overall,
        ),
        Claim(
            "full-recipe",
            "The full recipe beats plain GRPO.",
            recipe,
            None,
            waits("arms prorl and plain_grpo, several seeds each"),
        ),
        Claim(
            "resets",
            "Resetting reference and optimizer restores progress.",
            "2505.24864, section 2.3.1; 2507.12507",
            None,
            waits("arms prorl and no_reset, several seeds each"),
        ),
        Claim(
            "decoupled-clip",
            "A higher upper clip bound keeps entropy up at equal reward.",
            recipe,
            None,
            waits("arms prorl and symmetric_clip, several seeds each"),
        ),
        Claim(
            "generalist",
            "One model trained on all domains keeps at least 80 % of each specialist's gain.",
            "2505.24864, section 3",
            "+4.6 over DeepScaleR, +6.5 over DeepCoder",
            waits("arms math_only and code_only, several seeds each"),
        ),
        *each("gain", "Prolonged RL improves {name}.", "2505.24864, section 3", gain),
        *each(
            "gain-not-format",
            "Most of the gain in {name} is not format.",
            "2505.24864, App. F.1 (the base fails logic by format); 2507.12507 silent",
            lenient_share,
        ),
        Claim(
            "logic-largest",
            "Logic puzzles gain most.",
            "2505.24864, section 3",
            f"logic +{paper['logic']['section3']} points (graded), the largest of five",
            logic_largest,
        ),
        Claim(
            "no-domain-sacrificed",
            "No domain is sacrificed for the others.",
            "2505.24864, section 3",
            None,
            no_domain_sacrificed,
        ),
        Claim(
            "gains-continue",
            "Gains continue after a quarter of the training.",
            "2505.24864, sections 3 and 4",
            None,
            gains_continue,
        ),
        *each(
            "boundary",
            "Prolonged RL solves {name} problems that the base does not solve in many tries.",
            "2505.24864, section 4",
            hard_boundary,
        ),
        Claim(
            "boundary-two-domains",
            "The reasoning boundary expands where the base hardly solves anything.",
            "2505.24864, section 4",
            "boxnet: 0 to 100 % at k = 256, counting partial credit",
            hard_two_domains,
        ),
        Claim(
            "boundary-deep",
            "The reasoning boundary grows: the gain holds at the largest k.",
            "2505.24864, section 4",
            None,
            boundary_deep,
            "boundary/*.csv",
        ),
        Claim(
            "weakest-base",
            "The gain is largest where the base is weakest.",
            "2505.24864, section 4",
            None,
            weakest_base,
            "boundary/*.csv",
        ),
        Claim(
            "entropy",
            "Entropy does not collapse in prolonged training.",
            "2505.24864, section 2.2",
            None,
            entropy_held,
            "train/*.csv",
        ),
        Claim(
            "dynamic-sampling",
            "Dynamic sampling makes training more sample-efficient.",
            recipe,
            None,
            waits("arms prorl and no_dynamic_sampling, several seeds each"),
        ),
        Claim(
            "temperature",
            "Training at temperature 1.2 is better than at 0.6.",
            "2505.24864, section 2.2",
            None,
            waits("training at T 0.6, several seeds"),
        ),
        Claim(
            "kl-with-resets",
            "A KL penalty with resets is better than without resets and than no penalty.",
            "2505.24864, section 2.3.1",
            None,
            waits("arms without KL and without resets, several seeds each"),
        ),
        Claim(
            "rl-over-supervised",
            "RL gains more than supervised training on its verified rollouts.",
            "a control of this study",
            None,
            waits("the supervised control"),
        ),
        Claim(
            "random-reward",
            "A random reward gains nothing.",
            "a control of this study",
            None,
            waits("the control with a random reward"),
        ),
        Claim(
            "format-reward",
            "A reward for format alone gains nothing but format.",
            "a control of this study",
            None,
            waits("the control with a reward for format"),
        ),
    ]


CLAIMS: list[Claim] = _claims()


def judge_claims(
    results: Results, tests: Mapping[str, ClaimParams], claims: Sequence[Claim] = CLAIMS
) -> list[dict[str, Any]]:
    """One JSON-plain row per claim with its verdict, primary claims first; numbers in the claim's unit.

    `tests` is the section `claims` of params.yaml. Raises StudyError where it lacks a claim or has another.
    """
    unknown = sorted(set(tests) ^ {claim.id for claim in claims})
    if unknown:
        raise StudyError(
            f"params.yaml, claims: {', '.join(unknown)}: each claim of prorl_study/claims.py needs its "
            "entry, and no other; add or remove it."
        )
    primary = [claim.id for claim in claims if tests[claim.id].family == "primary"]
    outcomes = {
        claim.id: claim.compute(results, 1 - ERROR_RATE / (len(primary) if claim.id in primary else 1))
        for claim in claims
    }
    # What has not run counts as p = 1: a family does not shrink because a part of it is missing.
    p_values = [1.0 if outcomes[name].p is None else outcomes[name].p for name in primary]
    adjusted = dict(zip(primary, holm(p_values), strict=True)) if primary else {}
    rows = []
    for claim in sorted(claims, key=lambda claim: claim.id not in primary):
        outcome, test = outcomes[claim.id], tests[claim.id]
        value, low, high = outcome.interval or (None, None, None)
        row = {
            "id": claim.id,
            "statement": claim.statement,
            "source": claim.source,
            "paper_value": claim.paper_value,
            "measure": test.measure,
            "test": test.test,
            "primary": claim.id in primary,
            "level": 1 - ERROR_RATE / (len(primary) if claim.id in primary else 1),
            "unit": test.unit,
            "margin": test.margin,
            "value": value,
            "ci_low": low,
            "ci_high": high,
            "p_adjusted": None if outcome.p is None else round(float(adjusted[claim.id]), 6),
            "n_problems": outcome.n_problems,
            "n_seeds": outcome.n_seeds,
            "detail": outcome.detail,
            "verdict": verdict(outcome, test.margin, test.unit),
        }
        rows.append({**row, "sentence": sentence(row)})
    return rows


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """One sentence with the number of claims per verdict; those that were not seen are named."""
    named: dict[str, list[str]] = {}
    for row in rows:
        kind = re.sub("than .*", "than its margin", row["verdict"]).partition(" (")[0]
        named.setdefault(kind, []).append(row["id"])
    parts = [
        f"{len(ids)} {verdict}" + ("" if verdict == "seen here" else f" ({', '.join(ids)})")
        for verdict, ids in sorted(named.items(), key=lambda item: -len(item[1]))
    ]
    return f"Of {len(rows)} claims: {'; '.join(parts)}."
