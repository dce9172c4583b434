"""Power first: the smallest difference that so many problems and training seeds can show.

How much paired differences spread between problems comes from the committed counts of the pilot, the main
run. How much training seeds differ no single run can tell: it is an argument, in points, and every table
shows several values side by side until a measured one replaces them. For each claim the difference is given
twice: as the claim's own test sees it (over problems, of this one model; or over seeds, on these problems),
and for a statement about other problems *and* other seeds.

Left out: the formulas (`sample_size`), and claims that no committed pilot can size; their rows say why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from prorl_study.benchmarks import training_free, values_of
from prorl_study.domain_claims import for_all_domains
from prorl_study.domains import DOMAINS
from prorl_study.errors import StudyError
from prorl_study.evaluation import read_counts
from prorl_study.params import ClaimParams
from prorl_study.sample_size import (
    ERROR_RATE,
    POWER,
    clustering,
    detectable,
    detectable_rate,
    needed_problems,
    needed_seeds,
)
from prorl_study.statistics import pass_at_k

PASS_K = 16
"""k of the claims about the boundary on `hard`."""


@dataclass(frozen=True)
class Pilot:
    """What a claim compares the last segment with, in the committed counts; a stand-in for runs to come."""

    before: str = "free"
    """`free`: the best training-free base; `sampled`: the base at the same sampler; `trained`: the first
    segment, also the stand-in for another arm; the base where only one segment was trained."""
    domains: tuple[str, ...] = ()
    """Those whose mean is taken; empty: all."""
    smallest: bool = False
    """The claim takes the smallest of the domains, so the worst known of them counts."""
    measure: str = "strict"
    """`strict` success on test, `pass` at k on hard, or `lenient` minus half of the strict difference."""
    over: str = "problems"
    """What the claim's test resamples or averages: `problems` (of one trained model) or `seeds`."""
    arms: float = 1.0
    """Variance between seeds of what is measured, in variances of one arm's score: 2 for arm minus arm."""


_ARMS = Pilot("trained", over="seeds", arms=2.0)
_CONTROL = Pilot("sampled", over="seeds")
PILOTS: dict[str, Pilot | str] = {
    "gain-overall": Pilot(),
    "full-recipe": _ARMS,
    "resets": _ARMS,
    "decoupled-clip": "entropy of several seeds; its condition on the reward is sized like resets",
    # g - b - 0.8 (s - b): the base has no training seed
    "generalist": Pilot("trained", ("math", "code"), smallest=True, over="seeds", arms=1 + 0.8**2),
    **{f"gain-{domain}": Pilot(domains=(domain,)) for domain in DOMAINS},
    **{f"gain-not-format-{domain}": Pilot("sampled", (domain,), measure="lenient") for domain in DOMAINS},
    "logic-largest": "a difference of two domains' gains: 1.4 times what gain-logic can see",
    "no-domain-sacrificed": Pilot("sampled", smallest=True),
    "gains-continue": Pilot("trained", arms=2.0),
    **{f"boundary-{domain}": Pilot("sampled", (domain,), measure="pass") for domain in DOMAINS},
    "boundary-two-domains": "decided by the second best of boundary-*",
    "boundary-deep": "many more samples of each problem than the pilot has",
    "weakest-base": "many more samples of each problem than the pilot has",
    "entropy": "one run's log, whose steps depend on each other",
    "dynamic-sampling": _ARMS,
    "temperature": _ARMS,
    "kl-with-resets": _ARMS,
    "rl-over-supervised": _ARMS,
    "random-reward": _CONTROL,
    "format-reward": _CONTROL,
}
"""Per claim where its variance is taken from, or what it would take to size it."""


class Spread(NamedTuple):
    """Standard deviation of paired differences between problems, in points."""

    sd: float
    n_problems: int


def differences(counts: pd.DataFrame, pilot: Pilot, models: Sequence[str], domain: str) -> np.ndarray:
    """Per problem of `domain`: the last of `models` minus what `pilot` compares it with, in points.

    `models`: the base, then the trained ones in order. Raises StudyError where one has no counts, or two saw
    different problems.
    """
    if len(models) < 2:
        raise StudyError(f"models {', '.join(models)} are too few to compare; name the base and a segment.")
    missing = sorted(set(models) - set(counts.model))
    if missing:
        raise StudyError(f"no counts of model {', '.join(missing)}; make them with `dvc repro benchmarks`.")
    split = "hard" if pilot.measure == "pass" else "test"
    names = (models[1] if pilot.before == "trained" and len(models) > 2 else models[0], models[-1])
    before, after = (values_of(counts, name, split, "sampled", domain) for name in names)
    if pilot.measure == "pass":
        before, after = before[before.open_ended == 1], after[after.open_ended == 1]
    if list(before.index) != list(after.index):
        raise StudyError(
            f"{names[0]} and {names[1]} differ in their {domain} problems of {split}; evaluate both again."
        )
    if pilot.measure == "pass":
        k = min(PASS_K, max(1, int(min(before.n.min(), after.n.min())) // 2))
        gain = pass_at_k(after.n, after.solved, k) - pass_at_k(before.n, before.solved, k)
        return 100 * gain
    start = before.solved / before.n
    if pilot.before == "free":
        methods = training_free(counts, domain, "strict", models[0])
        start = methods[max(methods, key=lambda name: methods[name].mean())]
    gain = (after.solved / after.n - start).to_numpy()
    if pilot.measure == "lenient":
        lenient = after.lenient_solved / after.n - before.lenient_solved / before.n
        gain = lenient.to_numpy() - gain / 2
    return 100 * gain


def pilot_sd(counts: pd.DataFrame, pilot: Pilot, models: Sequence[str]) -> dict[str, Spread]:
    """Per domain of `pilot` how much its differences spread between problems, sampling noise included.

    Domains with fewer than two problems are left out. Raises StudyError as `differences`.
    """
    split = "hard" if pilot.measure == "pass" else "test"
    present = set(counts[counts.split == split].domain)
    found = {}
    for domain in [name for name in pilot.domains or DOMAINS if name in present]:
        values = differences(counts, pilot, models, domain)
        if len(values) > 1:
            found[domain] = Spread(float(values.std(ddof=1)), len(values))
    return found


def pool(spreads: Mapping[str, Spread], smallest: bool = False) -> Spread:
    """One spread for the mean of the domains, each weighing the same; or that of the least known domain.

    The mean's standard error is `sd / sqrt(n_problems)`, as for a single domain.
    """
    if smallest:
        return max(spreads.values(), key=lambda one: one.sd / sqrt(one.n_problems))
    total = sum(one.n_problems for one in spreads.values())
    variance = sum(one.sd**2 / one.n_problems for one in spreads.values()) / len(spreads) ** 2
    return Spread(sqrt(variance * total), total)


def level_of(claims: Mapping[str, ClaimParams], claim: str) -> float:
    """The two-sided error rate that the claim's test must keep: Holm's strictest step for a primary one."""
    primary = sum(one.family == "primary" for one in claims.values())
    return ERROR_RATE / primary if claims[claim].family == "primary" else ERROR_RATE


def table(
    counts: pd.DataFrame,
    claims: Mapping[str, ClaimParams],
    models: Sequence[str],
    seed_sd: Sequence[float],
    n_seeds: int,
    power: float = POWER,
) -> list[dict[str, Any]]:
    """One JSON-plain row per claim and value of `seed_sd` (SD between seeds of one arm's score, in points).

    `claims`: section `claims` of params.yaml, by id; family, margin and unit are read. In that unit:
    `detectable` by the claim's own test, with the pilot's `n_problems` or with `n_seeds`; `enough`, whether
    that is no more than the margin; `generalises`, what is detectable over other problems and other seeds.
    `needed` says how many of what the test runs `over` would reach the margin, None where too many. A row
    that no pilot can size has a `reason` instead.
    Raises StudyError for a claim without an entry in `PILOTS`.
    """
    claims = for_all_domains(claims)
    unknown = sorted(set(claims) - set(PILOTS))
    if unknown:
        raise StudyError(f"claim {', '.join(unknown)} has no entry in prorl_study/power.py, PILOTS; add it.")
    if not seed_sd or min(seed_sd) <= 0:
        raise StudyError(f"seed_sd={list(seed_sd)} must list numbers above 0; change it in params.yaml.")
    rows = []
    for name, claim in claims.items():
        pilot, alpha = PILOTS[name], level_of(claims, name)
        spreads = {} if isinstance(pilot, str) else pilot_sd(counts, pilot, models)
        problems = pool(spreads, pilot.smallest) if spreads else Spread(0.0, 0)
        reason = "" if problems.sd else "the pilot has no two problems that differ"
        reason = pilot if isinstance(pilot, str) else reason
        for sd in seed_sd:
            row = {"claim": name, "family": claim.family, "unit": claim.unit, "margin": claim.margin}
            row |= {"alpha": alpha, "seed_sd": sd, **dict.fromkeys(_SIZES), "reason": reason}
            if not reason:
                row |= _sizes(pilot, problems, sqrt(pilot.arms) * sd, n_seeds, claim.margin, alpha, power)
            rows.append(row)
    return rows


_SIZES = (
    *("over", "n_problems", "n_seeds", "sd_problems", "sd_seeds"),
    *("detectable", "enough", "needed", "generalises"),
)


def _sizes(
    pilot: Pilot, problems: Spread, sd_seeds: float, n_seeds: int, margin: float, alpha: float, power: float
) -> dict[str, Any]:
    sd, n = problems
    if pilot.over == "seeds":
        seen = detectable(0, n, sd_seeds, n_seeds, alpha, power)
        needed = needed_seeds(margin, 0, n, sd_seeds, alpha, power)
    else:
        seen = detectable(sd, n, 0, 1, alpha, power)
        needed = needed_problems(margin, sd, 0, 1, alpha, power)
    beyond = detectable(sd, n, sd_seeds, n_seeds, alpha, power)
    values = (pilot.over, n, n_seeds, round(sd, 4), round(sd_seeds, 4))
    return dict(zip(_SIZES, (*values, round(seen, 4), seen <= margin, needed, round(beyond, 4)), strict=True))


def _several(values: pd.Series, pattern: str) -> str:
    """`2.3 / 4.6 / 9.2`, over the values of `seed_sd`; one number where they agree."""
    shown = ["more" if pd.isna(value) else pattern.format(value) for value in values]
    return shown[0] if len(set(shown)) == 1 else " / ".join(shown)


def wide(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The sized rows of `table` for reading, one per claim; what depends on `seed_sd` has several numbers."""
    frame, shown = pd.DataFrame([row for row in rows if not row["reason"]]), []
    for _, part in frame.groupby("claim", sort=False) if len(frame) else ():
        first = part.iloc[0]
        row = dict(first[["claim", "family", "margin", "unit"]])
        reached = [f"{one.seed_sd:g}" for one in part.itertuples() if one.enough]
        some = f"at seed SD {', '.join(reached)}" if reached else "no"
        row |= {"over": first.over, "n_problems": int(first.n_problems), "sd_problems": first.sd_problems}
        row |= {name: _several(part[name], "{:.1f}") for name in ("detectable", "generalises")}
        row |= {"needed": _several(part.needed, "{:,.0f}")}
        shown.append({**row, "enough": "yes" if len(reached) == len(part) else some})
    columns = ["claim", "family", "over", "n_problems", "sd_problems", "margin", "unit"]
    return pd.DataFrame(shown, columns=[*columns, "detectable", "generalises", "needed", "enough"])


def finding(rows: Sequence[Mapping[str, Any]]) -> str:
    """The page in one sentence, from the rows of `table`."""
    sized = pd.DataFrame([row for row in rows if not row["reason"]])
    if sized.empty:
        return "No claim can be sized from these counts."
    always = sized.groupby("claim").enough.all()
    spread = " / ".join(f"{sd:g}" for sd in sized.seed_sd.unique())
    primary = [
        f"{name} {_several(part.detectable, '{:.1f}')}"
        for name, part in sized[sized.family == "primary"].groupby("claim", sort=False)
    ]
    return (
        f"At {sized.n_seeds.iloc[0]} seeds an arm and the pilot's problems, {always.sum()} of {len(always)} "
        f"sized claims detect a difference of their margin with {100 * POWER:.0f} % power, whether an arm's "
        f"seeds differ by {spread} points; what the primary claims detect, in points: "
        f"{', '.join(primary) or 'none sized'}."
    )


def consequences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What follows for the sizes of the next experiments: sentences from the rows of `table`."""
    frame = pd.DataFrame(rows)
    sized, said = frame[frame.reason == ""], []
    spread = " / ".join(f"{sd:g}" for sd in frame.seed_sd.unique())
    seeds = sized[sized.over == "seeds"] if len(sized) else sized
    groups: dict[tuple, list[str]] = {}
    for name, part in seeds.groupby("claim", sort=False) if len(seeds) else ():
        facts = (part.margin.iloc[0], _several(part.detectable, "{:.1f}"), _several(part.needed, "{:,.0f}"))
        groups.setdefault(facts, []).append(str(name))
    for (margin, seen, needed), names in groups.items():
        said.append(
            f"{', '.join(names)}: {int(seeds.n_seeds.iloc[0])} seeds an arm detect {seen} points if an arm's "
            f"seeds differ by {spread}; the margin of {margin:g} takes {needed} seeds."
        )
    problems = sized[sized.over == "problems"] if len(sized) else sized
    if len(problems):
        first = problems.drop_duplicates("claim")
        factor = first.needed.astype(float) / first.n_problems
        worst = first.loc[first.detectable.idxmax()]
        said.append(
            f"Claims over problems detect between {first.detectable.min():.1f} and {worst.detectable:.1f} "
            f"points ({worst.claim}); their margins take {factor.min():.1f} to {factor.max():.1f} times the "
            "problems that the pilot has."
        )
    reasons = frame[frame.reason != ""].drop_duplicates("claim")
    if len(reasons):
        named = "; ".join(f"{one.claim} ({one.reason})" for one in reasons.itertuples())
        said.append(f"Not sized from this pilot: {named}.")
    return said


def curves(
    counts: pd.DataFrame,
    claims: Mapping[str, ClaimParams],
    claim: str,
    models: Sequence[str],
    seed_sd: Sequence[float],
    seeds: Sequence[int],
    times: Sequence[int],
) -> pd.DataFrame:
    """What `claim` could detect over other problems and seeds, at its own level.

    A row per multiple of the pilot's problems (`times`) and number of `seeds`; columns `problems`, `seeds`
    and, per value of `seed_sd`, `seed SD x`. Raises StudyError as `table`, and for a claim without a pilot.
    """
    pilot, claims = PILOTS.get(claim, "no entry in PILOTS"), for_all_domains(claims)
    if isinstance(pilot, str):
        raise StudyError(f"claim {claim} cannot be sized from the pilot ({pilot}); choose another one.")
    sd, n = pool(pilot_sd(counts, pilot, models), pilot.smallest)
    alpha, factor = level_of(claims, claim), sqrt(pilot.arms)
    rows = []
    for size in [n * step for step in times]:
        for count in seeds:
            seen = {f"seed SD {x:g}": detectable(sd, size, factor * x, count, alpha) for x in seed_sd}
            rows.append({"problems": f"{size:6,d} problems", "seeds": count, **seen})
    return pd.DataFrame(rows)


def rates(counts: pd.DataFrame, models: Sequence[str]) -> list[dict[str, Any]]:
    """Per domain what a strict rate on `test` can show at 5 %: the last model's rate and four differences.

    In points: if each answer were a problem of its own (`independent`), for answers that go together by
    problem (`clustered`), paired with another trained model on the same problems (`paired`), and with the
    base (`paired_base`). None where nothing varies.
    """
    rows = []
    for domain in [name for name in DOMAINS if name in set(counts[counts.split == "test"].domain)]:
        part = values_of(counts, models[-1], "test", "sampled", domain)
        rate, together = float((part.solved / part.n).mean()), clustering(part.n, part.solved)
        size = (len(part), int(part.n.min()))
        seen = {"independent": 0.0, "clustered": None if isnan(together) else together}
        paired = {}
        for name, before in (("paired", "trained"), ("paired_base", "sampled")):
            sd, n = pilot_sd(counts, Pilot(before, (domain,)), models).get(domain, (0.0, 0))
            paired[name] = round(detectable(sd, n, 0, 1), 4) if sd else None
        rows.append(
            {
                "domain": domain,
                "rate": round(100 * rate, 4),
                "n_problems": size[0],
                "n_samples": size[1],
                "clustering": None if isnan(together) else round(together, 4),
                **{
                    name: None if share is None else round(100 * detectable_rate(rate, *size, share), 4)
                    for name, share in seen.items()
                },
                **paired,
            }
        )
    return rows


def report(
    results_dir: Path,
    claims: Mapping[str, ClaimParams],
    models: Sequence[str],
    seed_sd: Sequence[float],
    n_seeds: int,
) -> str:
    """What `prorl-study power` prints, from the counts of `results_dir`; other arguments as for `table`."""
    counts = read_counts(results_dir)
    rows = table(counts, claims, models, seed_sd, n_seeds)
    parts = [
        f"Detectable with {100 * POWER:.0f} % power at {n_seeds} seeds an arm. Where a column has several "
        f"numbers, an arm's seeds differ by {' / '.join(f'{sd:g}' for sd in seed_sd)} points (SD; assumed).",
        wide(rows).round(1).to_string(index=False),
        "What a strict rate can show, in points at 5 %:",
        pd.DataFrame(rates(counts, models)).round(2).to_string(index=False),
        "\n".join([finding(rows), *consequences(rows)]),
    ]
    return "\n\n".join(parts)
