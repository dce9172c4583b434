"""Experiments that vary settings together at one seed: the screening of factors and the map of the KL term.

Left out: arms that are compared over seeds, and the page on which all of it is shown (`ablations`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from prorl_study.ablations import MEASURED, from_main, last_ends
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
from prorl_study.evidence import Row, final_score
from prorl_study.statistics import factorial_effects

RESETS = ("never", "once", "thrice")
"""Variants of the map."""


def screening(rows: Sequence[Row], body: Mapping[str, Any]) -> list[Panel]:
    """Effects of the factors and pairs of factors of `body`, the experiment in evidence/params.yaml: upper minus
    lower level. None until each of its arms has run: with fewer, effects are mixed with each other."""
    runs, panels = [row for row in rows if row["experiment"] == "screening"], []
    if set(body["arms"]) - {row["arm"] for row in runs}:
        return []
    levels = [[2 * int(level) - 1 for level in row["arm"]] for row in runs]
    design = pd.DataFrame(levels, columns=list(body["factors"]))
    for what, unit, value in MEASURED:
        found = factorial_effects(design, [value(row) for row in runs])
        own, largest = lenth_margins([effect.value for effect in found])
        if found[0].se_from == "replicates":  # runs of equal settings tell the noise themselves
            lines = [Line(e.name, e.value, e.low, e.high, []) for e in found]
            panels.append(Panel(f"effect on {what}", unit, SEEDS, lines))
        else:
            lines = [Line(e.name, e.value, e.value - own, e.value + own, []) for e in found]
            panels.append(Panel(f"effect on {what}", unit, NOISE, lines, largest))
    return panels


def screening_said(panels: Sequence[Panel]) -> str:
    """A sentence per measure: which effects leave the noise, on their own and among all of them."""
    sentences = []
    for panel in panels:
        own = [line for line in panel.lines if line.low > 0 or line.high < 0]
        named = "; ".join(f"{line.name.replace(':', ' x ')} {number(line, panel.unit)}" for line in own)
        text = f"Of {len(panel.lines)} effects on {panel.title.removeprefix('effect on ')} ({panel.unit}), "
        text += f"{len(own)} leave the noise of a single effect" + (f" ({named})" if named else "")
        if panel.beyond is not None:
            far = sum(abs(line.value) > panel.beyond for line in panel.lines)
            text += f" and {far} that of the largest of so many ({panel.beyond:.2g})"
        sentences.append(text + "; what stays inside is not shown to be absent.")
    return " ".join(sentences)


def kl_map(rows: Sequence[Row], recipe_kl: float, seed: int, resamples: int) -> list[dict[str, Any]]:
    """Cells of KL strength times number of resets: `score` (percent), its `line` against the same strength
    without resets (None where there is nothing to compare), and `kl_share` of the last tenth of steps.

    prorl and no_reset, at the map's seeds, are the cells of the recipe's strength `recipe_kl`. No cells
    without a run of the map.
    """
    cells: dict[tuple[float, str], list[Row]] = {}
    own = {"prorl": (recipe_kl, "thrice"), "no_reset": (recipe_kl, "never")}
    numbers = {row["seed"] for row in rows if row["experiment"] == "map"}
    for row in from_main(rows):
        if row["experiment"] == "map":
            own[row["arm"]] = (float(row["factors"]["kl_beta"]), row["arm"].partition(".")[2])
        if row["arm"] in own and row["seed"] in numbers:
            cells.setdefault(own[row["arm"]], []).append(row)
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
    return present([Panel("resets minus none at the same KL strength", "points", PROBLEMS, lines)])
