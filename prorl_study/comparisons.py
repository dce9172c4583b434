"""A comparison of runs as data: its estimate, its interval, the values behind it, and the words it earns.

A `Line` is one estimate; lines in one unit make a `Panel`, which a forest plot draws and `said` words. An
interval over seeds says what other seeds would give on these problems; one over problems says what these
trained models would do on other problems, and nothing of other seeds. Left out: which runs are compared
(`ablations`) and drawing (`ablation_figures`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from prorl_study.arm_measures import LEAST_PAIRS
from prorl_study.statistics import Interval, named_rng, paired_bootstrap, t_interval, wording

DIGITS = {"points": 1, "nats": 3, "doublings": 2}
"""Units, with the digits after the point that are shown."""
SEEDS, PROBLEMS, NOISE = "seeds", "problems", "noise"
"""What an interval covers; `NOISE` is Lenth's, made from the spread of many effects."""
COVERED = {
    SEEDS: "95 % intervals over seeds",
    PROBLEMS: "95 % intervals over problems, which speak of these trained models alone, not of other seeds",
    NOISE: "95 % intervals from the spread of all effects (Lenth)",
}
ALONE = "one seed, which does not tell how much seeds differ"

Judged = Mapping[str, Any]
"""An entry of a row's `ends`: samples `solved` per problem, of `samples` each."""


class Line(NamedTuple):
    """An estimate, drawn and worded on one line."""

    name: str
    value: float
    low: float | None
    high: float | None
    """None, like `low`, where one seed alone cannot tell how much seeds differ."""
    values: list[float]
    """One per run or pair of runs, whose mean is `value`; empty for a fitted effect."""
    single: bool = False
    """Drawn, but not worded: one of the pairs whose mean has a line of its own."""


class Panel(NamedTuple):
    """Lines in one unit, beside each other."""

    title: str
    unit: str
    """A key of `DIGITS`."""
    over: str
    """A key of `COVERED`."""
    lines: list[Line]
    beyond: float | None = None
    """Size that an effect must exceed to stand out among all lines together."""


def over_seeds(name: str, values: ArrayLike) -> list[Line]:
    """The mean of one value per run or pair of runs, with Student's interval from `LEAST_PAIRS` on; no line
    without a value."""
    found = [float(value) for value in np.asarray(values, float)]
    if not found:
        return []
    low, high = t_interval(found)[1:] if len(found) >= LEAST_PAIRS else (None, None)
    return [Line(name, float(np.mean(found)), low, high, found)]


def over_problems(
    name: str, judged: Sequence[tuple[Judged, Judged]], seed: int, resamples: int
) -> list[Line]:
    """Points by which the first of two judged models is above the second, bootstrapped over problems.

    Several pairs are averaged problem by problem. The mean over problems is that of the domains, which have
    equally many. No line without a pair; raises ValueError where the problems differ.
    """
    if not judged:
        return []
    if any(end["problems_sha256"] != judged[0][0]["problems_sha256"] for pair in judged for end in pair):
        raise ValueError(f"{name}: the runs were judged on different problems")
    one, two = (
        [100 * np.asarray(pair[place]["solved"]) / pair[place]["samples"] for pair in judged]
        for place in (0, 1)
    )
    rng = named_rng(seed, "comparison", name)
    interval = paired_bootstrap(np.mean(two, axis=0), np.mean(one, axis=0), rng, resamples)
    return [Line(name, *interval, [float(np.mean(a - b)) for a, b in zip(one, two, strict=True)])]


def lenth_margins(effects: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Sizes that effects of an unreplicated factorial must exceed not to be taken for noise: one on its own,
    and the largest of all (Lenth 1989). Takes most effects as zero and their spread as noise."""
    sizes = np.abs(np.asarray(effects, float))
    small = sizes[sizes < 2.5 * 1.5 * np.median(sizes)]
    error = 1.5 * float(np.median(small)) if small.size else 0.0
    t = scipy.stats.t(sizes.size / 3)
    own, largest = t.ppf((1 + level) / 2), t.ppf((1 + level ** (1 / sizes.size)) / 2)
    return float(error * own), float(error * largest)


def present(panels: Iterable[Panel]) -> list[Panel]:
    """The panels that have a line."""
    return [panel for panel in panels if panel.lines]


def verdict(line: Line, margin: float, unit: str) -> str:
    """`statistics.wording` of the line's interval; without one, why there is none."""
    if line.low is None or line.high is None:
        return ALONE
    return wording(Interval(line.value, line.low, line.high), margin, unit)


def number(line: Line, unit: str) -> str:
    """`+1.2 [-0.4, +2.8]`, or the value alone."""
    digits = DIGITS[unit]
    known = [round(part, digits) for part in (line.value, line.low, line.high) if part is not None]
    value, *ends = (f"{part + 0.0:+.{digits}f}" for part in known)  # adding 0.0 makes -0.0 plain
    return f"{value} [{', '.join(ends)}]" if ends else value


def said(panels: Sequence[Panel], margins: Mapping[str, float]) -> str:
    """A sentence per panel: every worded line with its number and what its interval earns, in the panel's
    order. `margins`: per unit the size below which a difference counts as none."""
    sentences = []
    for panel in panels:
        worded = [line for line in panel.lines if not line.single]
        sizes = sorted({len(line.values) for line in worded})
        n = f"{sizes[0]} to {sizes[-1]}" if sizes[1:] else f"{sizes[0]}"
        parts = "; ".join(
            f"{line.name} {number(line, panel.unit)}, {verdict(line, margins[panel.unit], panel.unit)}"
            for line in worded
        )
        sentences.append(f"{panel.title} ({panel.unit}; {COVERED[panel.over]}; n = {n}): {parts}.")
    return " ".join(sentences)


def signs(panels: Sequence[Panel]) -> str:
    """A sentence per panel of lines with intervals over problems: how many are above zero, and which
    intervals leave it on each side."""

    def listed(lines: Sequence[Line], unit: str) -> str:
        named = "; ".join(f"{line.name} {number(line, unit)}" for line in lines)
        return f"{len(lines)} ({named})" if lines else "none"

    sentences = []
    for panel in panels:
        plus = sum(line.value > 0 for line in panel.lines)
        above = listed([line for line in panel.lines if line.low > 0], panel.unit)
        below = listed([line for line in panel.lines if line.high < 0], panel.unit)
        sentences.append(
            f"{panel.title} ({panel.unit}): above zero in {plus} of {len(panel.lines)} cases; the interval "
            f"over problems lies above zero in {above} and below it in {below}."
        )
    return " ".join(sentences)


def plain(value: Any) -> Any:
    """`value` for a JSON file: lines and panels as dictionaries, numbers with six digits that count."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
