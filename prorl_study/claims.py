"""The paper's claims as data, each with a measure and a test that were fixed before the runs.

A verdict is generated from an interval, never typed. At the embedded scale it is one of: `seen here`,
`opposite here`, `no effect larger than X`, `undecided`, `not run`. Nothing here says that a result of the
paper was reproduced or contradicted: that takes its model.

Left out: corrections for many claims (each interval stands alone at 95 %) and noise over training seeds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from prorl_study.benchmarks import values_of
from prorl_study.errors import StudyError
from prorl_study.evaluation import read_counts
from prorl_study.paper import load_paper
from prorl_study.statistics import Interval, bootstrap_mean, named_rng, paired_bootstrap, pass_at_k

NAMES = {
    "math": "math",
    "code": "code",
    "stem": "STEM",
    "logic": "logic puzzles",
    "instruction": "instruction following",
}
HARD_K = 16
"""k of the boundary claims; smaller where fewer than 2k samples were drawn."""
FROM_UNDER = 10.0
"""Percent: a domain that starts below this on `hard` counts as hardly solvable by the base."""


@dataclass(frozen=True)
class Results:
    """What the tests of the claims may look at."""

    counts: pd.DataFrame
    gains: Sequence[Mapping[str, Any]]
    train: pd.DataFrame | None
    """Training log of the main arm, in order of time, with a column `entropy`; None where there is none."""

    @classmethod
    def load(cls, results_dir: Path) -> Results:
        """Read `counts/`, `gains.json` and `train/*.csv`; the last may be missing.

        Raises StudyError where one of the first two is.
        """
        gains = Path(results_dir) / "gains.json"
        if not gains.is_file():
            raise StudyError(f"{gains} is missing; make it with `dvc repro benchmarks`.")
        paths = sorted((Path(results_dir) / "train").glob("*.csv"), key=lambda p: (len(p.name), p.name))
        logs = [log for log in map(pd.read_csv, paths) if "entropy" in log]
        train = pd.concat(logs, ignore_index=True) if logs else None
        return cls(read_counts(results_dir), json.loads(gains.read_text()), train)

    def rng(self, *names: object):
        return named_rng(self.gains[0]["seed"], "claims", *names)

    @property
    def resamples(self) -> int:
        return self.gains[0]["resamples"]

    @property
    def models(self) -> tuple[str, str]:
        """The base and the trained model that the gains compare."""
        return self.gains[0]["base_model"], self.gains[0]["trained_model"]


@dataclass(frozen=True)
class Outcome:
    """Estimate with a 95 % interval; above zero means as the claim says. No interval means no estimate."""

    interval: Interval | None
    detail: str = ""
    ran: bool = True


@dataclass(frozen=True)
class Claim:
    """One statement of the paper and how this study looks at it."""

    id: str
    statement: str
    source: str
    paper: str | None
    """The paper's number with its unit, None where it gives none."""
    measure: str
    margin: float
    """In `unit`: an interval inside plus or minus this is called no effect."""
    unit: str
    test: Callable[[Results], Outcome]


def verdict(outcome: Outcome, margin: float, unit: str) -> str:
    """The wording that an interval earns; a side of zero goes before smallness."""
    if not outcome.ran:
        return "not run"
    if outcome.interval is None:
        return "undecided"
    _, low, high = outcome.interval
    if low > 0:
        return "seen here"
    if high < 0:
        return "opposite here"
    if max(abs(low), abs(high)) <= margin:
        return f"no effect larger than {margin:g} {unit}"
    return "undecided"


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


def gain(results: Results, domain: str) -> Outcome:
    """Strict gain over the best training-free base on `test`, as `gains.json` has it."""
    row = _row(results, domain)
    if row is None:
        return Outcome(None, f"no {domain} problems in test", ran=False)
    interval = Interval(row["gain_over_training_free"], row["ci_low"], row["ci_high"])
    detail = f"best training-free base: {row['best_training_free_method']}"
    return Outcome(_honest_zero(interval, row["n_problems"]), detail)


def lenient_share(results: Results, domain: str) -> Outcome:
    """Lenient gain minus half of the strict gain, same sampler, paired over problems."""
    row = _row(results, domain)
    if row is None:
        return Outcome(None, f"no {domain} problems in test", ran=False)
    if row["gain_ci_low"] <= 0:
        return Outcome(None, "there is no clear strict gain to explain")
    base = values_of(results.counts, row["base_model"], "test", "sampled", domain)
    after = values_of(results.counts, row["trained_model"], "test", "sampled", domain)
    strict = after.solved / after.n - base.solved / base.n
    lenient = after.lenient_solved / after.n - base.lenient_solved / base.n
    interval = paired_bootstrap(strict / 2, lenient, results.rng("lenient", domain), results.resamples)
    share = lenient.mean() / strict.mean()
    return Outcome(_points(interval), f"{share:.0%} of the strict gain remains after lenient re-extraction")


def _hard(results: Results, domain: str) -> tuple[Interval, float, int] | None:
    """Rise of pass@k on `hard` in points, the base's pass@k in percent, and k; None without problems."""
    cells = [values_of(results.counts, model, "hard", "sampled", domain) for model in results.models]
    base, after = (cell[cell.open_ended == 1] for cell in cells)
    if base.empty or list(base.index) != list(after.index):
        return None
    most = int(min(base.n.min(), after.n.min())) // 2
    k = min(HARD_K, max(1, most))
    before, then = pass_at_k(base.n, base.solved, k), pass_at_k(after.n, after.solved, k)
    rise = paired_bootstrap(before, then, results.rng("hard", domain), results.resamples)
    return _honest_zero(_points(rise), len(base)), 100 * float(before.mean()), k


def hard_boundary(results: Results, domain: str) -> Outcome:
    """Rise of strict pass@16 on `hard`, paired over problems."""
    found = _hard(results, domain)
    if found is None:
        return Outcome(None, f"no open-ended {domain} problems in hard", ran=False)
    interval, before, k = found
    return Outcome(interval, f"pass@{k} of the base: {before:.1f} %")


def hard_two_domains(results: Results) -> Outcome:
    """The second largest rise among domains that start under 10 %: above zero if at least two rise."""
    found = {domain: _hard(results, domain) for domain in NAMES}
    low_start = {d: f[0] for d, f in found.items() if f is not None and f[1] < FROM_UNDER}
    if not any(found.values()):
        return Outcome(None, "no open-ended problems in hard", ran=False)
    named = ", ".join(low_start) or "none"
    if len(low_start) < 2:
        return Outcome(None, f"domains that start under {FROM_UNDER:g} %: {named}; two are needed")
    second = Interval(*(sorted(bounds)[-2] for bounds in zip(*low_start.values(), strict=True)))
    return Outcome(second, f"domains that start under {FROM_UNDER:g} %: {named}")


def entropy_held(results: Results) -> Outcome:
    """Mean entropy of the last tenth of steps minus half of that of the first tenth.

    The interval is the wide one: the ends of the two windows' own bootstrap intervals.
    """
    if results.train is None:
        return Outcome(None, "no training log under results/train", ran=False)
    entropy = results.train["entropy"].dropna().to_numpy()
    window = max(2, len(entropy) // 10)
    if len(entropy) < 2 * window:
        return Outcome(None, f"only {len(entropy)} logged steps")
    start = bootstrap_mean(entropy[:window], results.rng("entropy", "start"), results.resamples)
    end = bootstrap_mean(entropy[-window:], results.rng("entropy", "end"), results.resamples)
    kept = Interval(end.value - start.value / 2, end.low - start.high / 2, end.high - start.low / 2)
    return Outcome(kept, f"{start.value:.3f} nats in the first tenth of steps, {end.value:.3f} in the last")


def _not_run(results: Results, reason: str) -> Outcome:
    return Outcome(None, reason, ran=False)


def _claims() -> list[Claim]:
    paper = load_paper()["gains"]
    arms = partial(_not_run, reason="needs the ablation arms, several seeds each")
    claims = [
        Claim(
            f"gain-{domain}",
            f"Prolonged RL improves {name}.",
            "2505.24864, section 3",
            f"+{paper[domain]['section3']} points ({paper[domain]['measure']})",
            "test: strict avg@n of the last segment minus the best training-free base",
            2.0,
            "points",
            partial(gain, domain=domain),
        )
        for domain, name in NAMES.items()
    ]
    claims += [
        Claim(
            f"gain-not-format-{domain}",
            f"Most of the gain in {name} is not format.",
            "2505.24864, App. F.1 (the base fails logic by format); 2507.12507 silent",
            None,
            "test: gain after lenient re-extraction minus half of the strict gain, same sampler",
            2.0,
            "points",
            partial(lenient_share, domain=domain),
        )
        for domain, name in NAMES.items()
    ]
    claims += [
        Claim(
            f"boundary-{domain}",
            f"Prolonged RL solves {name} problems that the base does not solve in many tries.",
            "2505.24864, section 4",
            None,
            "hard: strict pass@16 of the last segment minus the base, open-ended problems",
            2.0,
            "points",
            partial(hard_boundary, domain=domain),
        )
        for domain, name in NAMES.items()
    ]
    claims += [
        Claim(
            "boundary-two-domains",
            "The reasoning boundary expands where the base hardly solves anything.",
            "2505.24864, section 4",
            "boxnet: 0 to 100 % at k = 256, counting partial credit",
            "hard: second largest rise of strict pass@16 among domains that start under 10 %",
            2.0,
            "points",
            hard_two_domains,
        ),
        Claim(
            "entropy",
            "Entropy does not collapse in prolonged training.",
            "2505.24864, section 2.2",
            None,
            "mean entropy of the last tenth of rollout steps minus half of the first tenth's",
            0.05,
            "nats",
            entropy_held,
        ),
        Claim(
            "resets",
            "Resetting reference and optimizer restores progress.",
            "2505.24864, section 2.3.1; 2507.12507",
            None,
            "validation score of arm prorl minus arm no_reset at equal steps",
            2.0,
            "points",
            arms,
        ),
        Claim(
            "dynamic-sampling",
            "Dynamic sampling makes training more sample-efficient.",
            "2505.24864, section 2.3; 2507.12507",
            None,
            "validation score of arm prorl minus arm no_dynamic_sampling at equal rollouts",
            2.0,
            "points",
            arms,
        ),
        Claim(
            "decoupled-clip",
            "A higher upper clip bound keeps entropy and helps the score.",
            "2505.24864, section 2.3; 2507.12507",
            None,
            "validation score of arm prorl minus arm symmetric_clip at equal steps",
            2.0,
            "points",
            arms,
        ),
        Claim(
            "generalist",
            "One model trained on all domains matches specialists in theirs.",
            "2505.24864, section 3",
            "+4.6 over DeepScaleR, +6.5 over DeepCoder",
            "test: strict avg@n of arm prorl minus arms math_only and code_only",
            2.0,
            "points",
            arms,
        ),
    ]
    return claims


CLAIMS: list[Claim] = _claims()


def judge_claims(results: Results, claims: Sequence[Claim] = CLAIMS) -> list[dict[str, Any]]:
    """One JSON-plain row per claim with its verdict; numbers in the claim's unit, or None."""
    rows = []
    for claim in claims:
        outcome = claim.test(results)
        value, low, high = outcome.interval or (None, None, None)
        rows.append(
            {
                "id": claim.id,
                "statement": claim.statement,
                "source": claim.source,
                "paper": claim.paper,
                "measure": claim.measure,
                "unit": claim.unit,
                "margin": claim.margin,
                "value": value,
                "ci_low": low,
                "ci_high": high,
                "detail": outcome.detail,
                "verdict": verdict(outcome, claim.margin, claim.unit),
            }
        )
    return rows


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """One sentence with the number of claims per verdict; those that were not seen are named."""
    named: dict[str, list[str]] = {}
    for row in rows:
        named.setdefault(re.sub("than .*", "than its margin", row["verdict"]), []).append(row["id"])
    parts = [
        f"{len(ids)} {verdict}" + ("" if verdict == "seen here" else f" ({', '.join(ids)})")
        for verdict, ids in sorted(named.items(), key=lambda item: -len(item[1]))
    ]
    return f"Of {len(rows)} claims: {'; '.join(parts)}."
