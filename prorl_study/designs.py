"""Experiments that vary settings at one seed: learning rates, a screening of factors, a map of the KL term.

Left out: arms that are compared over seeds, and the page on which all of it is shown (`ablations`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from prorl_study.ablations import MEASURED, last_ends
from prorl_study.comparisons import (
    NOISE,
    PROBLEMS,
    SEEDS,
    Line,
    Panel,
    lenth_margins,
    number,
    over_problems,
    present,
)
from prorl_study.evidence import Row, final_score, score
from prorl_study.experiments import RunPlan
from prorl_study.statistics import factorial_effects

RESETS = ("never", "once", "thrice")
"""Variants of the map."""


def _late_checks(row: Row) -> float:
    checks = row["curve"]["validation"]
    return 100 * float(np.mean(checks[-max(1, len(checks) // 4) :]))


def _at_the_end(row: Row) -> float:
    return score(row["ends"][-1], domains=row["factors"].get("domains"))


TUNINGS = {
    "tuning": ("checks", _late_checks),
    "tuning_rest": ("end", _at_the_end),
    "tuning_edge": ("end", _at_the_end),
}
"""What chooses among learning rates, its name and its value (percent): the mean of a run's last quarter of
checks; where some arms make none, the validation problems solved at a run's end, of its own domains."""


def _tried(rows: Sequence[Row]) -> dict[str, dict[str, tuple[float, float]]]:
    """Per arm and variant: learning rate, and what chooses it (percent), the mean of the variant's seeds."""
    scores: dict[str, dict[str, list[float]]] = {}
    rates: dict[str, float] = {}
    for row in rows:
        if row["experiment"] not in TUNINGS:
            continue
        arm, _, variant = row["arm"].partition(".")
        scores.setdefault(arm, {}).setdefault(variant, []).append(TUNINGS[row["experiment"]][1](row))
        rates[variant] = row["factors"]["learning_rate"]
    return {
        arm: {variant: (rates[variant], float(np.mean(late))) for variant, late in tried.items()}
        for arm, tried in scores.items()
    }


def tuned_rates(rows: Sequence[Row]) -> dict[str, str]:
    """Arm to its best variant, like `low`: the one with the highest score by the rule of `TUNINGS`, of those
    that have run; of equal ones the lowest rate."""
    ranked = {
        arm: sorted(tried, key=lambda v: (-tried[v][1], tried[v][0])) for arm, tried in _tried(rows).items()
    }
    return {arm: variants[0] for arm, variants in ranked.items()}


def tuning(rows: Sequence[Row], plan: Mapping[str, RunPlan]) -> list[dict[str, Any]]:
    """Per arm: `by`, the name of what chooses (see `TUNINGS`); `tried`, its value at each learning rate; the
    `best` rate; and the `used` one, of the arm's first run in another experiment of `plan`.
    """
    by = {
        row["arm"].partition(".")[0]: TUNINGS[row["experiment"]][0]
        for row in rows
        if row["experiment"] in TUNINGS
    }
    used: dict[str, float] = {}
    for run in plan.values():
        used.setdefault(run.arm, run.train.learning_rate)
    best = tuned_rates(rows)
    return [
        {
            "arm": arm,
            "by": by[arm],
            "tried": dict(sorted(tried.values())),
            "best": tried[best[arm]][0],
            "used": used.get(arm),
        }
        for arm, tried in _tried(rows).items()
    ]


def tuning_table(found: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """`tuning` with a column per learning rate, the best of an arm marked; text throughout."""
    rates = sorted({rate for line in found for rate in line["tried"]})
    lines = []
    for line in found:
        scores = {
            f"at {rate:g}": f"{line['tried'][rate]:.1f}" + " (best)" * (rate == line["best"])
            if rate in line["tried"]
            else "-"
            for rate in rates
        }
        planned = "-" if line["used"] is None else f"{line['used']:g}"
        lines.append({"arm": line["arm"], "chosen by": line["by"], **scores, "planned": planned})
    return pd.DataFrame(lines)


def tuning_said(found: Sequence[Mapping[str, Any]]) -> str:
    """Whether arms run at their best rate, whether that is at the edge, and how far it is ahead."""
    other = [line["arm"] for line in found if line["used"] != line["best"]]
    edge = [line["arm"] for line in found if line["best"] in (min(line["tried"]), max(line["tried"]))]
    ranked = [sorted(line["tried"].values())[-2:] for line in found if len(line["tried"]) > 1]
    leads = [best - second for second, best in ranked]
    ahead = f"the best rate is {min(leads):.1f} to {max(leads):.1f} points ahead of the next" if leads else ""
    return (
        f"Planned at another rate than the best so far: {', '.join(other) or 'no arm'}; best at the lowest "
        f"or highest of its rates, beyond which a better may lie: {', '.join(edge) or 'no arm'}; "
        f"{ahead or 'no arm has run at two rates'}, with few runs each, so chance is hardly told from merit."
    )


def levels(body: Mapping[str, Any]) -> list[dict[str, str]]:
    """What each factor of `body`, an experiment of evidence/params.yaml, is at its levels 0 and 1."""
    return [
        {"factor": name}
        | {
            str(i): ", ".join(f"{key} {value}" for key, value in level.items())
            for i, level in enumerate(both)
        }
        for name, both in body["factors"].items()
    ]


def screening(rows: Sequence[Row], body: Mapping[str, Any]) -> list[Panel]:
    """Effects of the factors, and of pairs of them, of `body`, the experiment in evidence/params.yaml: upper
    minus lower level. None until each of its arms has run: with fewer, effects mix with each other."""
    runs, panels = [row for row in rows if row["experiment"] == "screening"], []
    if set(body["arms"]) - {row["arm"] for row in runs}:
        return []
    coded = [[2 * int(level) - 1 for level in row["arm"]] for row in runs]
    design = pd.DataFrame(coded, columns=list(body["factors"]))
    for what, unit, value in MEASURED:
        found = factorial_effects(design, [value(row) for row in runs])
        own, largest = lenth_margins([effect.value for effect in found])
        if found[0].se_from == "replicates":  # runs of equal settings tell the noise themselves
            lines = [Line(e.name, e.value, e.low, e.high, []) for e in found]
            panels.append(Panel(f"Effect on {what.lower()}", unit, SEEDS, lines))
        else:
            lines = [Line(e.name, e.value, e.value - own, e.value + own, []) for e in found]
            panels.append(Panel(f"Effect on {what.lower()}", unit, NOISE, lines, largest))
    return panels


def screening_said(panels: Sequence[Panel]) -> str:
    """A sentence per measure: which effects leave the noise, on their own and among all of them."""
    sentences = []
    for panel in panels:
        own = [line for line in panel.lines if line.low > 0 or line.high < 0]
        named = "; ".join(f"{line.name.replace(':', ' x ')} {number(line, panel.unit)}" for line in own)
        text = f"Of {len(panel.lines)} effects on {panel.title.removeprefix('Effect on ')} ({panel.unit}), "
        verb = "leaves" if len(own) == 1 else "leave"
        text += f"{len(own)} {verb} the noise of a single effect" + (f" ({named})" if named else "")
        if panel.beyond is not None:
            far = sum(abs(line.value) > panel.beyond for line in panel.lines)
            text += f" and {far} that of the largest of so many ({panel.beyond:.2g})"
        sentences.append(text + "; what stays inside is not shown to be absent.")
    return " ".join(sentences)


def kl_map(rows: Sequence[Row], seed: int, resamples: int) -> list[dict[str, Any]]:
    """Cells of KL strength times number of resets: `score` (percent), its `line` against the same strength
    without resets (None where there is nothing to compare), and `kl_share` of the last tenth of steps.
    """
    cells: dict[tuple[float, str], list[Row]] = {}
    for row in rows:
        if row["experiment"] == "map":
            place = float(row["factors"]["kl_beta"]), row["arm"].partition(".")[2]
            cells.setdefault(place, []).append(row)
    found = []
    for (kl, times), runs in sorted(cells.items(), key=lambda item: (item[0][0], RESETS.index(item[0][1]))):
        without = {row["seed"]: row for row in cells.get((kl, "never"), []) if times != "never"}
        both = last_ends([(row, without[row["seed"]]) for row in runs if row["seed"] in without])
        lines = over_problems(f"KL {kl:g}, {times}", both, seed, resamples)
        shares = [row["last"]["kl_share"] for row in runs if "kl_share" in row["last"]]
        cell = {"kl": kl, "resets": times, "score": float(np.mean([final_score(row) for row in runs]))}
        share = float(np.median(shares)) if shares else None
        found.append(cell | {"line": lines[0] if lines else None, "kl_share": share})
    return found


def map_panels(cells: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """The differences of `kl_map`, for `signs`."""
    lines = [cell["line"] for cell in cells if cell["line"]]
    return present(
        [Panel("Strict score with resets minus without, at the same KL weight", "points", PROBLEMS, lines)]
    )
