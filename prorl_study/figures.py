"""Seaborn figures with one look for the whole study: a colour per domain, intervals drawn, alt text.

Every function takes data and returns a matplotlib figure; `show` displays it with its alternative text.
The same data gives the same bytes. Left out: computing anything but positions on the page.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, Image, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prorl_study.domains import DOMAINS

DOMAIN_ORDER = tuple(DOMAINS)


def colours(count: int) -> list[str]:
    """`count` colours in hex that differ: ten for the colour-blind, and others where those do not suffice."""
    further = sns.color_palette("husl", max(0, count - 10)).as_hex()
    return [*sns.color_palette("colorblind", 10).as_hex(), *further][:count]


DOMAIN_COLOURS = dict(zip(DOMAIN_ORDER, colours(len(DOMAIN_ORDER)), strict=True))
"""Fixed, so that a domain has one colour on every page."""
MARKERS = "osD^vPX"
DPI = 110


def use_style() -> None:
    """Set the look for all figures that follow."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
    matplotlib.rcParams.update(
        {"figure.dpi": DPI, "savefig.dpi": DPI, "font.family": "DejaVu Sans", "axes.titlesize": "medium"}
    )


def png(fig: Figure) -> bytes:
    """The figure as PNG bytes without the library's version, which would differ between machines."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def show(fig: Figure, alt: str, caption: str = "") -> None:
    """Display `fig` with `alt` as its alternative text and `caption` under it, and close it.

    Raises ValueError for an empty `alt`.
    """
    if not alt.strip():
        raise ValueError("a figure needs an alternative text")
    data = png(fig)
    plt.close(fig)
    display(Image(data=data, format="png", alt=alt))
    if caption:
        display(HTML(f'<p class="caption">{escape(caption)}</p>'))


def _colour(name: str, position: int) -> Any:
    return DOMAIN_COLOURS.get(name, sns.color_palette("colorblind")[position % 10])


def _panels(
    count: int, width: float = 3.1, height: float = 3.0, per_row: int = 3
) -> tuple[Figure, list[Axes]]:
    columns = min(count, per_row)
    rows = -(-count // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return fig, list(axes.flat[:count])


def _ordered(names: Sequence[str]) -> list[str]:
    known = [name for name in DOMAIN_ORDER if name in names]
    return known + sorted(set(names) - set(known))


def gains_figure(gains: Sequence[Mapping[str, Any]], measure: str = "strict") -> Figure:
    """Forest plot: gain over the best training-free base with its interval, and the paper's gain."""
    rows = {row["domain"]: row for row in gains if row["measure"] == measure}
    names = _ordered(list(rows))
    fig, axis = plt.subplots(figsize=(7.5, 0.6 * len(names) + 1.4))
    for place, name in enumerate(names):
        row = rows[name]
        axis.plot([row["ci_low"], row["ci_high"]], [place, place], color=_colour(name, place), lw=3)
        axis.plot(row["gain_over_training_free"], place, "o", color=_colour(name, place), ms=9)
        if row["paper_gain"] is not None:
            axis.plot(row["paper_gain"], place, "D", mfc="none", mec="0.3", ms=8)
    axis.plot([], [], "o-", color="0.3", label="this study, 95 % interval")
    axis.plot([], [], "D", mfc="none", mec="0.3", label="paper, over its sampled base (section 3)", ls="none")
    axis.axvline(0, color="0.2", lw=1)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel(f"gain over the best training-free base, {measure} (percentage points)")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False)
    return fig


def _curves(frame: pd.DataFrame, x: str, value: str, xlabel: str, ylabel: str, doubling: bool) -> Figure:
    """A panel per domain, a curve with its band per model; values are fractions, drawn in percent."""
    names, models = _ordered(frame.domain.unique().tolist()), sorted(frame.model.unique())
    shades = ["0.45", *sns.color_palette("viridis_r", len(models) + 1)[1:]]
    fig, axes = _panels(len(names))
    for axis, name in zip(axes, names, strict=True):
        for place, model in enumerate(models):
            curve = frame[(frame.domain == name) & (frame.model == model)].sort_values(x)
            marker, colour = MARKERS[place % len(MARKERS)], shades[place]
            axis.plot(curve[x], 100 * curve[value], marker=marker, ms=5, color=colour, label=model)
            band = (100 * curve.ci_low, 100 * curve.ci_high)
            axis.fill_between(curve[x], *band, color=colour, alpha=0.18, lw=0)
        ticks = sorted(frame[frame.domain == name][x].unique())
        if doubling:
            axis.set_xscale("log", base=2)
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.set(title=name, xlabel=xlabel, ylim=(-3, 103))
        if axis.get_subplotspec().is_first_col():
            axis.set_ylabel(ylabel)
    fig.tight_layout()
    legend = {"handles": axes[0].get_legend_handles_labels()[0], "frameon": False}
    if len(axes) % 3:  # the last row has room
        fig.legend(loc="center", bbox_to_anchor=(0.86, 0.5 / -(-len(axes) // 3)), **legend)
    else:
        fig.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(models), **legend)
    return fig


def pass_at_k_figure(rows: Sequence[Mapping[str, Any]], split: str) -> Figure:
    """pass@k over k with 95 % bands, a panel per domain and a curve per model, from benchmark rows.

    Raises ValueError where `split` has no pass@k.
    """
    frame = pd.DataFrame([r for r in rows if r["split"] == split and r["metric"].startswith("pass@")])
    if frame.empty:
        raise ValueError(f"no pass@k rows for split {split!r}")
    frame["k"] = frame.metric.str.removeprefix("pass@").astype(int)
    return _curves(frame, "k", "value", "k (samples)", f"pass@k on {split}, strict (%)", doubling=True)


def slices_figure(frame: pd.DataFrame, by: str, xlabel: str) -> Figure:
    """Strict success over `by` (whole numbers) with 95 % bands, from `benchmarks.slices`."""
    return _curves(frame, by, "strict", xlabel, "solved, strict (%)", doubling=False)


VERDICT_COLOURS = {"seen here": "#0173b2", "opposite here": "#d55e00"}


def claims_figure(rows: Sequence[Mapping[str, Any]], unit: str = "points") -> Figure:
    """Forest plot of the claims that have an interval in `unit`; the colour follows the verdict."""
    rows = [row for row in rows if row["unit"] == unit and row["value"] is not None]
    fig, axis = plt.subplots(figsize=(8, 0.42 * len(rows) + 1.4))
    for place, row in enumerate(rows):
        colour = VERDICT_COLOURS.get(row["verdict"], "0.45")
        axis.plot([row["ci_low"], row["ci_high"]], [place, place], color=colour, lw=2.5)
        axis.plot(row["value"], place, "o", color=colour, ms=7)
    axis.axvline(0, color="0.2", lw=1)
    axis.set_yticks(range(len(rows)), [f"{row['id']}: {row['verdict']}" for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel(f"as the claim says, above zero ({unit}, 95 % interval)")
    return fig


def claim_strip(row: Mapping[str, Any]) -> Figure:
    """One claim's interval beside zero and the band of its margin."""
    fig, axis = plt.subplots(figsize=(7, 1.1))
    axis.axvspan(-row["margin"], row["margin"], color="0.9", label="margin")
    axis.axvline(0, color="0.2", lw=1)
    axis.plot([row["ci_low"], row["ci_high"]], [0, 0], color="0.25", lw=3)
    axis.plot(row["value"], 0, "o", color="0.25", ms=8)
    axis.set_yticks([])
    axis.set_xlabel(f"as the claim says, right of zero ({row['unit']}, {100 * row['level']:g} % interval)")
    return fig


def line_figure(
    frame: pd.DataFrame,
    x: str,
    ys: Sequence[str],
    title: str = "",
    hue: str | None = None,
    xlabel: str | None = None,
    ylabels: Mapping[str, str] | None = None,
    smooth: int = 1,
    marks: Sequence[float] = (),
) -> Figure:
    """One panel per column of `ys` over `x`, a line per value of `hue`; `smooth` steps of running mean.

    Dashed lines stand at the places `marks` on the x axis. Columns that `frame` lacks are left out. Raises
    ValueError where none is left.
    """
    present = [y for y in ys if y in frame and frame[y].notna().any()]
    if not present:
        raise ValueError(f"none of {', '.join(ys)} is in the data")
    fig, axes = _panels(len(present), width=4.2, height=3.1, per_row=3)
    for axis, y in zip(axes, present, strict=True):
        for place, (name, part) in enumerate(frame.groupby(hue, sort=True) if hue else [("", frame)]):
            part = part.sort_values(x)
            values = part[y].rolling(smooth, min_periods=1, center=True).mean()
            colour = _colour(str(name).rpartition("/")[2], place)
            axis.plot(part[x], values, color=colour, lw=1.8, label=str(name))
        axis.set(xlabel=xlabel or x, ylabel=(ylabels or {}).get(y, y))
        _mark([axis], marks)
    if hue:
        axes[0].legend(frameon=False, fontsize="small")
    if title:
        fig.suptitle(title)
    fig.tight_layout()
    return fig


TRAINING_LABELS = {
    "reward": "mean reward of rollouts (0 to 1)",
    "entropy": "token entropy (nats)",
    "kl": "KL to the reference (nats per token)",
    "kl_share": "KL gradient over policy gradient",
    "kept_fraction": "share of groups with signal",
}


TOKENS_LABEL = "sampled tokens (thousands)"


def training_curves(log: pd.DataFrame, marks: Sequence[float] = (), smooth: int = 9) -> Figure:
    """Reward, entropy, KL, its gradient's share and kept share over sampled tokens, and reward and share of
    groups with signal per domain.

    `log`: columns `tokens_sampled`, those of `TRAINING_LABELS`, `reward/<domain>`, `sampled/<domain>` and
    `informative/<domain>` as far as they were logged. Dashed lines stand at `marks`, sampled tokens.
    """
    log = log.reset_index(drop=True)
    time = log.tokens_sampled / 1000
    columns = [name for name in TRAINING_LABELS if name in log]
    domains = [name for name in DOMAIN_ORDER if f"reward/{name}" in log]
    fig, axes = _panels(len(columns) + 2 * bool(domains), width=4.2, height=3.1, per_row=3)
    for axis, column in zip(axes, columns, strict=False):
        seen = log[column].notna()  # some are measured every few steps only
        axis.plot(time[seen], log[column][seen], color="0.8", lw=0.8)
        axis.plot(time, log[column].rolling(smooth, min_periods=1, center=True).mean(), color="0.2", lw=1.8)
        axis.set(xlabel=TOKENS_LABEL, ylabel=TRAINING_LABELS[column])
        if column == "kl":
            axis.set_yscale("log", nonpositive="mask")  # a single step can be a hundred times the others
    for place, name in enumerate(domains):
        informative = log[f"informative/{name}"] / log[f"sampled/{name}"].where(log[f"sampled/{name}"] > 0)
        for axis, values in zip(axes[-2:], (log[f"reward/{name}"], informative), strict=True):
            line = values.rolling(smooth, min_periods=1, center=True).mean()
            axis.plot(time, line, color=_colour(name, place), lw=1.8, label=name)
    if domains:
        axes[-2].set(xlabel=TOKENS_LABEL, ylabel="mean reward per domain (0 to 1)")
        axes[-1].set(xlabel=TOKENS_LABEL, ylabel="groups with signal per domain")
        axes[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.02, 0.5))
    _mark(axes, [mark / 1000 for mark in marks])
    fig.tight_layout()
    return fig


def _mark(axes: Sequence[Axes], places: Sequence[float]) -> None:
    for axis in axes:
        for place in places:
            axis.axvline(place, color="0.5", lw=1, ls="--")


def domain_bars(
    frame: pd.DataFrame, value: str, hue: str, ylabel: str, low: str | None = None, high: str | None = None
) -> Figure:
    """Grouped bars per domain, in percent: `frame` has columns `domain`, `hue` and `value` (fractions).

    `low` and `high` name the columns of the interval, where there is one.
    """
    names, kinds = _ordered(frame.domain.unique().tolist()), list(dict.fromkeys(frame[hue]))
    width = 0.8 / len(kinds)
    palette = sns.color_palette("colorblind", len(kinds))
    fig, axis = plt.subplots(figsize=(1.9 * len(names) + 2, 3.8))
    for place, kind in enumerate(kinds):
        cells = frame[frame[hue] == kind].set_index("domain").reindex(names)
        centres = np.arange(len(names)) + (place - (len(kinds) - 1) / 2) * width
        axis.bar(centres, 100 * cells[value], width, color=palette[place], label=str(kind), edgecolor="white")
        if low and high:
            axis.vlines(centres, 100 * cells[low], 100 * cells[high], color="0.2", lw=1.5)
    axis.set_xticks(range(len(names)), names)
    axis.set(ylabel=ylabel, ylim=(0, 100))
    axis.grid(axis="x", visible=False)
    axis.legend(frameon=False, ncols=len(kinds), loc="upper center", bbox_to_anchor=(0.5, -0.1))
    return fig
