"""Figures of the page on ablations: differences as forests, effects, the map of the KL term, fitted curves.

Every function takes what `ablations` and `designs` return and gives a matplotlib figure, in the look of
`figures`, which shows it. Left out: computing anything but positions on the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prorl_study.comparisons import Line, Panel, number
from prorl_study.figures import TOKENS_LABEL, VERDICT_COLOURS

_PALETTE = sns.color_palette("colorblind").as_hex()
ARM_COLOURS = {"prorl": _PALETTE[2], "plain_grpo": _PALETTE[1]}
"""As `figures.line_figure` colours them beside the other arms of the default study, in alphabetical order."""
ARM_DASHES = {"prorl": "-", "plain_grpo": "--"}


def _colour(line: Line) -> str:
    if line.low is None or line.high is None:
        return "0.45"
    verdict = "seen here" if line.low > 0 else "opposite here" if line.high < 0 else ""
    return VERDICT_COLOURS.get(verdict, "0.45")


def _side_by_side(panels: Sequence[Panel], names: Sequence[str], row: float) -> tuple[Figure, list[Axes]]:
    """An axis per panel with a place for each of `names`, the first on top."""
    size = (1.6 + 4.6 * len(panels), row * len(names) + 1.5)
    fig, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        axis.axvline(0, color="0.2", lw=1, zorder=3)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.set_xlabel(panel.unit)
        axis.set_title(panel.title.replace(", ", ",\n", 1), fontsize="small")
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].set_ylim(len(names) - 0.5, -0.5)
    return fig, list(axes[0])


def _names(panels: Sequence[Panel]) -> list[str]:
    """Names of all lines, each once, in the order of the panel that has most of them."""
    longest = max(panels, key=lambda panel: len(panel.lines))
    return list(dict.fromkeys(line.name for panel in (longest, *panels) for line in panel.lines))


def forest(panels: Sequence[Panel], margins: Mapping[str, float]) -> Figure:
    """Estimates with their intervals, blue above zero and orange below it; small circles are single pairs of
    runs. The band is the margin of the panel's unit. Raises ValueError without a panel."""
    if not panels:
        raise ValueError("a forest plot needs a panel")
    names = _names(panels)
    fig, axes = _side_by_side(panels, names, 0.42)
    for axis, panel in zip(axes, panels, strict=True):
        margin = margins[panel.unit]
        axis.axvspan(-margin, margin, color="0.92", zorder=0)
        for line in panel.lines:
            place, colour = names.index(line.name), _colour(line)
            if line.single:
                axis.plot(line.value, place, "o", mfc="white", mec="0.45", ms=5)
                continue
            if len(line.values) > 1 and not any(other.single for other in panel.lines):
                axis.plot(line.values, [place + 0.22] * len(line.values), "o", mfc="none", mec="0.6", ms=3.5)
            if line.low is not None:
                axis.plot([line.low, line.high], [place, place], color=colour, lw=2.5)
            filled = colour if line.low is not None else "white"
            axis.plot(line.value, place, "o", mfc=filled, mec=colour, ms=7)
    fig.tight_layout()
    return fig


def effects(panels: Sequence[Panel]) -> Figure:
    """Effects of a factorial as bars, by size in the first panel. The band is what noise does to one effect,
    a dotted line what it does to the largest of all. Raises ValueError without a panel."""
    if not panels:
        raise ValueError("a plot of effects needs a panel")
    first = sorted(panels[0].lines, key=lambda line: -abs(line.value))
    names = [line.name for line in first]
    fig, axes = _side_by_side(panels, [name.replace(":", " x ") for name in names], 0.32)
    for axis, panel in zip(axes, panels, strict=True):
        for line in panel.lines:
            axis.barh(names.index(line.name), line.value, 0.62, color=_colour(line), zorder=2)
        margin = max(line.high - line.value for line in panel.lines)
        axis.axvspan(-margin, margin, color="0.88", zorder=0)
        for side in (-1, 1) if panel.beyond is not None else ():
            axis.axvline(side * panel.beyond, color="0.4", lw=1, ls=":")
        axis.set_axisbelow(True)
        axis.grid(axis="y", visible=False)
    fig.tight_layout()
    return fig


def heat_map(cells: Sequence[Mapping[str, Any]]) -> Figure:
    """Cells of `designs.kl_map`: weight of the KL term down, resets across, each with its difference (its
    score where nothing is compared) and the KL gradient's share. Raises ValueError without cells."""
    if not cells:
        raise ValueError("a map needs cells")
    frame = pd.DataFrame(
        {
            "kl": cell["kl"],
            "resets": cell["resets"],
            "value": cell["line"].value if cell["line"] else np.nan,
            "text": _cell_text(cell),
        }
        for cell in cells
    )
    columns = list(dict.fromkeys(sorted(frame.resets, key=["never", "once", "thrice"].index)))
    values, texts = (frame.pivot(index="kl", columns="resets", values=v)[columns] for v in ("value", "text"))
    limit = float(np.nanmax([1.0, *np.abs(frame.value)]))
    fig, axis = plt.subplots(figsize=(2.5 * len(columns) + 2.4, 0.85 * len(values) + 1.3))
    mesh = axis.pcolormesh(values.to_numpy(), cmap="RdBu", vmin=-limit, vmax=limit, edgecolor="white")
    axis.set_facecolor("0.93")
    for (i, j), text in np.ndenumerate(texts.to_numpy()):
        shown = "not run" if pd.isna(text) else text
        dark = abs(values.iloc[i, j]) > 0.6 * limit
        colour = "white" if dark else "0.15"
        axis.text(j + 0.5, i + 0.5, shown, ha="center", va="center", fontsize=9, color=colour)
    axis.set_xticks(np.arange(len(columns)) + 0.5, columns)
    axis.set_yticks(np.arange(len(values)) + 0.5, [f"{kl:g}" for kl in values.index])
    axis.set(xlabel="resets", ylabel="weight of the KL term", ylim=(len(values), 0))
    axis.grid(visible=False)
    fig.colorbar(mesh, label="difference to no resets (points)")
    fig.tight_layout()
    return fig


def _cell_text(cell: Mapping[str, Any]) -> str:
    share = "no KL gradient" if cell["kl_share"] is None else f"KL share {_percent(cell['kl_share'])}"
    what = number(cell["line"], "points") if cell["line"] else f"score {cell['score']:.1f}"
    return f"{what}\n{share}"


def _percent(share: float) -> str:
    """Two digits that count, without a power of ten."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def learning_curves(curves: Sequence[Mapping[str, Any]], fits: Sequence[Mapping[str, Any]]) -> Figure:
    """Validation over sampled tokens and over operations, a row of panels per base: checks as points, each
    run's fitted curve, and at the right edge its asymptote.

    `curves`: per run `base`, `arm`, `seed`, and arrays `tokens`, `flops` and `validation`; `fits` as
    `ablations.fits`. Raises ValueError without curves.
    """
    if not curves:
        raise ValueError("learning curves need a run")
    bases = list(dict.fromkeys(curve["base"] for curve in curves))
    fig, axes = plt.subplots(len(bases), 2, figsize=(9.6, 3.5 * len(bases)), sharey="row", squeeze=False)
    for base, row in zip(bases, axes, strict=True):
        own = [curve for curve in curves if curve["base"] == base]
        for axis, (x, label, unit) in zip(
            row, (("tokens", TOKENS_LABEL, 1e3), ("flops", "operations ($10^{12}$)", 1e12)), strict=True
        ):
            end = max(curve[x][-1] for curve in own)
            for curve in own:
                colour = ARM_COLOURS[curve["arm"]]
                axis.plot(curve[x] / unit, 100 * curve["validation"], ".", color=colour, ms=4, alpha=0.6)
            for fit in fits:
                if (fit["base"], fit["x"]) == (base, x):
                    style = {"color": ARM_COLOURS[fit["arm"]], "ls": ARM_DASHES[fit["arm"]]}
                    at = np.linspace(fit["first"], end, 100)
                    fall = (fit["asymptote"] - fit["start"]) * np.exp(-fit["rate"] * (at - fit["first"]))
                    axis.plot(at / unit, fit["asymptote"] - fall, lw=1.3, **style)
                    axis.plot([end * 1.03 / unit, end * 1.08 / unit], [fit["asymptote"]] * 2, lw=2, **style)
            axis.set(xlabel=label, title=f"base {base}")
        row[0].set_ylabel("validation score (%)")
    for arm in dict.fromkeys(curve["arm"] for curve in curves):
        axes[0][0].plot([], [], color=ARM_COLOURS[arm], ls=ARM_DASHES[arm], marker=".", label=arm)
    axes[0][0].legend(frameon=False, loc="lower right")
    fig.tight_layout()
    return fig
