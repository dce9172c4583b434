"""What the page on ablations shows, from the rows of runs: comparisons, tables and the sentences for them.

A section's function returns panels of differences (`comparisons`), or rows of a table; none where the runs
that it needs are still to come. Left out: drawing (`ablation_figures`), verdicts on the paper's claims
(`claims`), and how runs are paired and read off (`evidence`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prorl_study.arm_measures import SPECIALISTS, own_rates
from prorl_study.comparisons import (
    COVERED,
    PROBLEMS,
    SEEDS,
    Judged,
    Line,
    Panel,
    number,
    over_problems,
    over_seeds,
    present,
    verdict,
)
from prorl_study.evidence import (
    Row,
    differences,
    differences_at_equal_cost,
    final_score,
    fit_curve,
    for_claims,
    gains_at_equal_domain_tokens,
    pairs,
    score,
)
from prorl_study.experiments import RunPlan, target
from prorl_study.params import ClaimParams

LAPTOP = ("no_reset", "symmetric_clip", "plain_grpo")
PARTS = ("no_reset", "none", "symmetric_clip", "no_dynamic_sampling", "no_kl", "low_temperature")
RESET_PARTS = ("prorl", "reference_only", "optimizer_only", "bump", "by_rule", "other_times")
SUPERVISED = ("filtered_sft", "rejection_sft")
CONTROLS = ("random_reward", "format_reward", "noisy_reward", "floor_left_in", *SUPERVISED)
RECIPE = ("recipe", "second_base")
SAME_TIMES = 0.5
"""Of a segment: resets that lie closer are about as far apart as a few checks."""
SAME_RATE = 0.5
"""Doublings: of two curves whose rates differ by less than a factor of 1.4, neither counts as faster."""


def load_laptop(results_dir: Path) -> list[dict[str, Any]]:
    """Rows of the default study's own arms, `arms/*.json`, by name; none where they have not run."""
    return [json.loads(path.read_text()) for path in sorted((Path(results_dir) / "arms").glob("*.json"))]


def margins(claims: Mapping[str, ClaimParams]) -> dict[str, float]:
    """Per unit the size below which a difference counts as none, as fixed for claims on the same measure."""
    return {
        "points": claims["full-recipe"].margin,
        "nats": claims["decoupled-clip"].margin,
        "doublings": SAME_RATE,
    }


def progress(plan: Mapping[str, RunPlan], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Per experiment: runs that are planned, and how many of them are done."""
    done, found = {row["name"] for row in rows}, {}
    for name, run in plan.items():
        line = found.setdefault(run.experiment, {"experiment": run.experiment, "planned": 0, "done": 0})
        line["planned"] += 1
        line["done"] += name in done
    return list(found.values())


def missing(plan: Mapping[str, RunPlan], rows: Sequence[Row], *names: str) -> str:
    """Which command does the first run that experiments `names` still lack, as Markdown."""
    done = {row["name"] for row in rows}
    left = [target(run) for name, run in plan.items() if run.experiment in names and name not in done]
    if not left:
        return f"Nothing to show: evidence/params.yaml plans no such run in {' or '.join(names)}."
    return (
        f"Not enough of this has run yet: {len(left)} runs of {' and '.join(names)} are still to come. "
        f"`dvc repro evidence/dvc.yaml:{left[0]}` does the first of them, `make evidence` does all."
    )


def _of(rows: Sequence[Row], *names: str) -> list[Row]:
    return [row for row in rows if row["experiment"] in names]


def _and_added(known: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """The `known` arms, then by name those of `rows` beside them and prorl: arms that were added as data."""
    return [*known, *sorted({row["arm"] for row in rows} - {"prorl", *known})]


def from_main(rows: Sequence[Row]) -> list[Row]:
    """Runs on the main base that do not start from a trained model."""
    return [row for row in rows if row["base"] == "main" and not row["branched"]]


def last_ends(found: Sequence[tuple[Row, Row]]) -> list[tuple[Judged, Judged]]:
    """What was judged at the ends of pairs of runs."""
    return [(one["ends"][-1], two["ends"][-1]) for one, two in found]


def _entropy(row: Row) -> float:
    return row["last"]["entropy"]


def _gain(row: Row, kind: str = "strict", domains: Sequence[str] | None = None) -> float:
    return score(row["ends"][-1], kind, domains) - score(row["start"], kind, domains)


def laptop(rows: Sequence[Row], seed: int, resamples: int) -> list[Panel]:
    """prorl minus each other arm of the default study; one seed, so intervals over problems."""
    compared = [(f"minus {arm}", last_ends(pairs(rows, "prorl", arm))) for arm in _and_added(LAPTOP, rows)]
    lines = [line for name, ends in compared for line in over_problems(name, ends, seed, resamples)]
    return present([Panel("Strict score, prorl minus another arm", "points", PROBLEMS, lines)])


def recipe(rows: Sequence[Row]) -> list[Panel]:
    """prorl minus plain_grpo: each pair, the mean of each base, and last the mean of all pairs."""
    runs, panels, arms = _of(rows, *RECIPE), [], ("prorl", "plain_grpo")
    names = [f"{one['base']}, seed {one['seed']}" for one, _ in pairs(runs, *arms)]
    bases = [name.partition(",")[0] for name in names]
    for title, measure in (("sampled tokens", differences), ("operations", differences_at_equal_cost)):
        values, lines = measure(runs, *arms), []
        for base in dict.fromkeys(bases):
            own = [(n, v) for n, b, v in zip(names, bases, values, strict=True) if b == base]
            lines += [line._replace(single=True) for n, v in own for line in over_seeds(n, [v])]
            if len(set(bases)) > 1:
                lines += over_seeds(f"mean on {base}", [v for _, v in own])
        lines += over_seeds("mean of all pairs", values)
        panels.append(Panel(f"Strict score at equal {title}, prorl minus plain_grpo", "points", SEEDS, lines))
    return present(panels)


def validation_curve(row: Row) -> dict[str, np.ndarray]:
    """Validation checks of a run, (checks,) each: `tokens`, `flops` on the lines between its segments' ends,
    and `validation` in [0, 1]."""
    tokens = np.asarray(row["curve"]["tokens"], float)
    ends = [(0.0, 0.0), *((end["tokens"], end["flops"]) for end in row["ends"])]
    flops = np.interp(tokens, *np.transpose(ends))
    return {"tokens": tokens, "flops": flops, "validation": np.asarray(row["curve"]["validation"], float)}


def fits(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The curve fitted to each run of the recipe over each `x` (tokens, flops), where one fits.

    `start` and `asymptote` in percent, `rate` per unit of x counted from `first`, `half`: x that half of the
    way takes, `covered`: percent of the way at the last check, `residual` in points.
    """
    found = []
    for row in _of(rows, *RECIPE):
        checks = validation_curve(row)
        for x in ("tokens", "flops"):
            if curve := fit_curve(checks[x], checks["validation"]):
                first, last = checks[x][[0, -1]].tolist()
                percent = {k: 100 * v for k, v in curve._asdict().items() if k != "rate"}
                covered = 100 * (1 - float(np.exp(-curve.rate * (last - first))))
                rest = {"half": float(np.log(2)) / curve.rate, "covered": covered, "first": first}
                run = {name: row[name] for name in ("base", "arm", "seed")}
                found.append(run | {"x": x, **percent, "rate": curve.rate, **rest})
    return found


def fitted(found: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """From `fits`, paired by base and seed: prorl minus plain_grpo in the asymptote (points) and in the log2
    of the rate (doublings)."""
    asymptotes: list[Line] = []
    rates: list[Line] = []
    for x, name in (("tokens", "over sampled tokens"), ("flops", "over operations")):
        arms = [
            {(fit["base"], fit["seed"]): fit for fit in found if (fit["arm"], fit["x"]) == (arm, x)}
            for arm in ("prorl", "plain_grpo")
        ]
        both = [(arms[0][key], arms[1][key]) for key in arms[0] if key in arms[1]]
        asymptotes += over_seeds(name, [one["asymptote"] - two["asymptote"] for one, two in both])
        rates += over_seeds(name, [np.log2(one["rate"] / two["rate"]) for one, two in both])
    return present(
        [
            Panel("Fitted asymptote, prorl minus plain_grpo", "points", SEEDS, asymptotes),
            Panel("Log2 of the fitted rate, prorl minus plain_grpo", "doublings", SEEDS, rates),
        ]
    )


def fits_said(found: Sequence[Mapping[str, Any]]) -> str:
    """How far the fitted curves are extrapolated; empty without any."""
    if not found:
        return ""
    covered, residuals = ([fit[name] for fit in found] for name in ("covered", "residual"))
    return (
        f"At a run's last check {min(covered):.0f} to {max(covered):.0f} % of the way to its asymptote is "
        f"covered, and its checks lie {min(residuals):.1f} to {max(residuals):.1f} points off the curve. "
    )


MEASURED = (("Strict score", "points", final_score), ("Entropy of the last steps", "nats", _entropy))


def _against(rows: Sequence[Row], compared: Sequence[tuple[str, str, str]], title: str) -> list[Panel]:
    """Panels of `MEASURED` with the differences (name, arm, other) over seeds."""
    panels = []
    for what, unit, value in MEASURED:
        values = [(name, differences(rows, arm, other, value)) for name, arm, other in compared]
        lines = [line for name, found in values for line in over_seeds(name, found)]
        panels.append(Panel(f"{what}, {title}", unit, SEEDS, lines))
    return present(panels)


def parts(rows: Sequence[Row]) -> list[Panel]:
    """prorl minus the arm that lacks one part of it."""
    runs = from_main(rows)
    return _against(
        runs,
        [(f"minus {arm}", "prorl", arm) for arm in _and_added(PARTS, _of(runs, "parts"))],
        "prorl minus an arm that lacks one part",
    )


def rates_said(rows: Sequence[Row], *experiments: str) -> str:
    """Which arms of `experiments` differ from prorl in their learning rate as well; empty without any."""
    own = own_rates(_of(from_main(rows), *experiments))
    named = ", ".join(f"{arm} ({rate:g})" for arm, rate in sorted(own.items()))
    said = f" Not at prorl's learning rate, so that their difference may be that of the rates: {named}."
    return said if own else ""


def tuned(rows: Sequence[Row]) -> list[Panel]:
    """Arms at a learning rate of their own minus the arm that is the same but for the rate, at the recipe's:
    whether a rate that was tuned on half the budget holds on all of it."""
    runs = from_main(for_claims(rows))
    changes = {row["arm"]: row["factors"] for row in runs}
    rate_apart = {
        arm: {key: value for key, value in changes[arm].items() if key != "learning_rate"}
        for arm in sorted(own_rates(runs))
    }
    values = [
        (arm, differences(runs, arm, other))
        for arm, rest in rate_apart.items()
        for other in changes
        if changes[other] == rest
    ]
    lines = [line for name, found in values for line in over_seeds(name, found)]
    title = "Strict score at the tuned learning rate minus at the recipe's"
    return present([Panel(title, "points", SEEDS, lines)])


def resets(rows: Sequence[Row]) -> list[Panel]:
    """Each way to reset, and what stands in for one, minus none of it, from the shared plateau."""
    runs = [row for row in rows if row["branched"]]
    return _against(runs, [(arm, arm, "none") for arm in RESET_PARTS], "an arm minus none")


def boundaries(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Per arm from the plateau what its boundaries did, as medians over all of them: size of the first step
    after over the last before, KL after (nats per token), entropy (nats); None where it was not logged.
    `by_rule`: boundaries where the rule ended a segment before its budget was spent."""
    table = []
    for arm in ("none", *RESET_PARTS):
        runs = [row for row in rows if row["branched"] and row["arm"] == arm]
        seen = [b for row in runs for b in row["boundaries"]]
        if not seen:
            continue
        columns = ["step_size_before", "step_size_after", "kl_after", "entropy_before", "entropy_after"]
        logged = [
            {f"{k}_{when}": v for when in ("before", "after") for k, v in b[when].items()} for b in seen
        ]
        figures = pd.DataFrame(logged, dtype=float).reindex(columns=columns)
        figures["step_ratio"] = figures.step_size_after / figures.step_size_before
        medians = figures.median()[["step_ratio", *columns[2:]]]
        early = sum(
            b["rule"] != "budget" and b["tokens"] < number * _between_resets(row)
            for row in runs
            for number, b in enumerate(row["boundaries"])
        )
        table.append(
            {"arm": arm, "boundaries": len(seen), "by_rule": early}
            | {name: None if pd.isna(value) else float(value) for name, value in medians.items()}
        )
    return table


def _between_resets(row: Row) -> float:
    """Sampled tokens from one boundary to the next, as a branched run plans them: the first is its start."""
    return row["budget"] / len(row["boundaries"])


def times_said(rows: Sequence[Row]) -> str:
    """How far the times of resets differ between the arms that are to show whether the time matters."""
    runs = {(row["arm"], row["seed"]): row for row in rows if row["branched"]}
    found = []
    for arm, other in (("by_rule", "prorl"), ("other_times", "by_rule")):
        shared = [(runs[arm, s], runs[other, s]) for a, s in runs if a == arm and (other, s) in runs]
        apart = [
            abs(mine["tokens"] - its["tokens"]) / _between_resets(other_run)
            for run, other_run in shared
            for mine, its in zip(run["boundaries"], other_run["boundaries"], strict=True)
        ]
        if not apart:
            return ""
        found.append(max(apart))
    said = (
        f"Resets by the rule lie at most {found[0]:.0%} of a segment from those that the budget makes, those "
        f"at another seed's times at most {found[1]:.0%} from the run's own by the rule."
    )
    if max(found) < SAME_TIMES:
        said += (
            " The times hardly differ: after a plateau the rule fires about as soon as it can. So these two "
            "arms cannot show whether the time of a reset matters; the map below varies how many there are."
        )
    return said


def controls(rows: Sequence[Row]) -> list[Panel]:
    """What each control, and prorl beside them, gains over its own start, strict and after lenient
    re-extraction; none until a control has run."""
    runs, panels = from_main(rows), []
    arms = _and_added(CONTROLS, _of(runs, "controls"))
    if not any(row["arm"] in arms for row in runs):
        return []
    for kind in ("strict", "lenient"):
        gains = [(arm, [_gain(row, kind) for row in runs if row["arm"] == arm]) for arm in ("prorl", *arms)]
        lines = [line for arm, found in gains for line in over_seeds(arm, found)]
        panels.append(Panel(f"Gain over the start, {kind}", "points", SEEDS, lines))
    return panels


def specialists(rows: Sequence[Row]) -> list[Panel]:
    """prorl's gain in a specialist's domain minus the specialist's: where both have spent all their sampled
    tokens, and where they have spent equally many on the domain."""
    total: list[Line] = []
    equal: list[Line] = []
    for domain, arm in SPECIALISTS.items():
        both, name = pairs(from_main(rows), "prorl", arm), f"{domain}, minus {arm}"
        total += over_seeds(name, [_gain(a, domains=[domain]) - _gain(b, domains=[domain]) for a, b in both])
        gains = [gains_at_equal_domain_tokens(*pair, domain) for pair in both]
        equal += over_seeds(name, [one - two for one, two in gains])
    return present(
        [
            Panel(
                "Gain in the domain at equal sampled tokens, prorl minus a specialist", "points", SEEDS, total
            ),
            Panel(
                "Gain in the domain at equal tokens of it, prorl minus a specialist", "points", SEEDS, equal
            ),
        ]
    )


def ladder(rows: Sequence[Row], bases: Iterable[str], seed: int, resamples: int) -> list[Panel]:
    """Per base prorl's gain over its start and prorl minus plain_grpo, means of the base's pairs with
    intervals over problems; after it the same at a learning rate of its own, where that has run. None until
    a run of the ladder is there."""
    named: dict[str, list[Row]] = {}
    for base in bases if _of(rows, "ladder") else ():
        for row in [*_of(rows, "ladder", *RECIPE), *_of(rows, "ladder_rate")]:
            if row["base"] == base:
                arm, _, variant = row["arm"].partition(".")
                name = f"{base} at {row['factors']['learning_rate']:g}" if variant else base
                named.setdefault(name, []).append(row | {"arm": arm})
    gains: list[Line] = []
    over_plain: list[Line] = []
    for name, here in named.items():
        # A start was judged on the same problems, with as many samples, as the ends.
        own = [(r["ends"][-1], r["ends"][-1] | r["start"]) for r in here if r["arm"] == "prorl"]
        gains += over_problems(name, own, seed, resamples)
        over_plain += over_problems(name, last_ends(pairs(here, "prorl", "plain_grpo")), seed, resamples)
    return present(
        [
            Panel("Gain of prorl over its start", "points", PROBLEMS, gains),
            Panel("Strict score, prorl minus plain_grpo", "points", PROBLEMS, over_plain),
        ]
    )


def finding(
    plan: Mapping[str, RunPlan], rows: Sequence[Row], panels: Sequence[Panel], sizes: Mapping[str, float]
) -> str:
    """The page's finding: how much has run, and what the last line of each of `panels` says."""
    done = sum(line["done"] for line in progress(plan, rows))
    said = [f"{done} of {len(plan)} long runs are done"]
    for panel in panels:
        line, title = panel.lines[-1], panel.title[0].lower() + panel.title[1:]
        result = f"{number(line, panel.unit)} {panel.unit}, {verdict(line, sizes[panel.unit], panel.unit)}"
        said.append(f"{title}, {line.name}: {result}")
    count = len(panels[0].lines[-1].values) if panels else 0
    covered = f" ({COVERED[panels[0].over]}, not corrected; n = {count})" if panels else ""
    return "; ".join(said if panels else [*said, "no two arms can be compared yet"]) + f"{covered}."
