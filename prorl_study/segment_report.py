"""What the pages and the results say of a finished segment: from its log, its checks and its state.

Nothing here has a part in training, so a change here trains nothing anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import ttest_ind

from prorl_study.course import BOUNDARY_FIGURES
from prorl_study.params import TrainParams
from prorl_study.stagnation import Rule, firing_rates
from prorl_study.statistics import named_rng

RISES = (0.0, 0.01, 0.02, 0.04)
"""Rises of a policy from check to check, shares of 1, on which the stagnation rule is simulated."""
SIMULATED_RUNS = 1000


def summarise(log: pd.DataFrame) -> dict[str, float]:
    """Steps, and start and end values (mean of the first and last tenth) of a segment's main figures."""
    summary: dict[str, float] = {"steps": len(log)}
    for name in ("reward", "entropy", "kl", "kl_share", "kept_fraction", "truncated", "completion_tokens"):
        if name in log and log[name].notna().any():
            start, end = _ends(log.dropna(subset=name), name)
            summary |= {f"{name}_start": round(start, 6), f"{name}_end": round(end, 6)}
    return summary


def _ends(log: pd.DataFrame, column: str) -> tuple[float, float]:
    """Mean of `column` over the first and the last tenth of the steps (at least one step each)."""
    part = max(1, len(log) // 10)
    return float(log[column].iloc[:part].mean()), float(log[column].iloc[-part:].mean())


def boundary_table(boundaries: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per boundary of the chain, with `BOUNDARY_FIGURES` before and after it."""
    rows = []
    for item in boundaries:
        row = {name: item[name] for name in ("segment", "step", "tokens", "reference", "optimizer", "rule")}
        for name in BOUNDARY_FIGURES:
            row |= {f"{name} {when}": item[when].get(name, float("nan")) for when in ("before", "after")}
        rows.append(row)
    return pd.DataFrame(rows)


def simulated_firings(train: TrainParams, checks: pd.DataFrame, seed: int) -> pd.DataFrame:
    """How often the stagnation rule fires on policies that stand still, and on policies that rise.

    Each problem of a check is solved with the rate that its domain had at the first of `checks`.
    """
    rule = Rule(train.min_delta, train.patience, train.max_drop, train.max_kl)
    start = checks.filter(like="validation/").iloc[0].to_numpy()
    chances = np.repeat(start, train.validation_prompts)
    rows = []
    for rise in RISES:
        rng = named_rng(seed, f"stagnation {rise}")
        rates = firing_rates(rule, chances, rise, train.patience, SIMULATED_RUNS, rng)
        rows.append({"rise": 100 * rise, "stalled": rates["stalled"], "dropped": rates["dropped"]})
    return pd.DataFrame(rows)


def curves_said(log: pd.DataFrame) -> str:
    """What a segment's steps say of reward and entropy: the last third minus the first, with intervals over
    steps (Welch's, as if steps were independent given the trend)."""
    third = len(log) // 3
    if third < 2:
        return "Too few steps to tell the segment's end from its beginning."
    parts = []
    for name, unit in (("reward", ""), ("entropy", " nats")):
        first, last = log[name].iloc[:third], log[name].iloc[-third:]
        change, test = last.mean() - first.mean(), ttest_ind(last, first, equal_var=False)
        low, high = test.confidence_interval(0.95)
        parts.append(f"{name} {_moves(low, high)} ({change:+.3f}{unit} [{low:+.3f}, {high:+.3f}])")
    return f"From the first third of the segment's steps to the last, {' and '.join(parts)}."


def validation_said(checks: pd.DataFrame, problems: int) -> str:
    """What a segment's first and last check say of it, with an interval for chance in `problems` per domain.

    Scores lie between 0 and 1, so their variance is at most p (1 - p); with that, and as if the two checks
    had nothing in common, the interval is rather too wide.
    """
    if len(checks) < 2:
        return "One check only, so nothing is said of validation in this segment."
    ends = checks.filter(like="validation/").iloc[[0, -1]].to_numpy()
    points = 100 * float(ends[1].mean() - ends[0].mean())
    half = 196 * float((ends * (1 - ends) / problems).sum() ** 0.5) / ends.shape[1]
    low, high = points - half, points + half
    return (
        f"From the segment's first check to its last, mean validation {_moves(low, high)}: {points:+.1f} "
        f"points [{low:+.1f}, {high:+.1f}], {problems} problems per domain."
    )


def _moves(low: float, high: float) -> str:
    """What an interval of a change says of it."""
    return "rises" if low > 0 else "falls" if high < 0 else "is not seen to change"


def outcome(state: Mapping[str, Any]) -> dict[str, Any]:
    """What the results keep of a finished segment's state: tokens, how it ended, firings, its boundary."""
    return {
        "tokens": state["trainer"]["tokens"],
        "budget": state["budget"],
        "ended": state["ended"],
        "firings": state["firings"],
        "boundary": state["boundaries"][-1] if state["boundaries"] else None,
    }


def sentence(summary: Mapping[str, Any], state: Mapping[str, Any], previous: str) -> str:
    """The finding of a segment's page."""
    ended, firings = state["ended"], state["firings"]
    why = {
        "budget": "ended with its budget",
        "stalled": "ended by the rule: validation had stopped rising",
        "dropped": "ended by the rule: validation had fallen",
        "kl": "ended by the rule: KL had passed its limit",
    }[ended["rule"]]
    often = "once" if len(firings) == 1 else f"{len(firings)} times"
    logged = f" The rule fired {often}." if firings and ended["rule"] == "budget" else ""
    return (
        f"{summary['steps']} steps from {previous}, {why} at {state['trainer']['tokens']['sampled']:,} "
        f"sampled tokens: reward {summary['reward_start']:.2f} to {summary['reward_end']:.2f}, entropy "
        f"{summary['entropy_start']:.2f} to {summary['entropy_end']:.2f} nats.{logged}"
    )


def per_domain(log: pd.DataFrame, domains: Sequence[str]) -> pd.DataFrame:
    """Per domain: reward and strict success at the start and the end, kinds of groups, share of the kept."""
    domains = [name for name in domains if f"kept/{name}" in log or not log.filter(like="kept/").size]
    kept = {name: log[f"kept/{name}"].sum() for name in domains if f"kept/{name}" in log}
    rows = []
    for name in domains:
        row: dict[str, Any] = {"domain": name}
        for figure in ("reward", "solved"):
            if f"{figure}/{name}" not in log:
                break
            row[f"{figure} start"], row[f"{figure} end"] = _ends(
                log.dropna(subset=f"{figure}/{name}"), f"{figure}/{name}"
            )
        else:
            row |= {kind: log[f"{kind}/{name}"].mean() for kind in ("solve_none", "partial", "solve_all")}
        if kept:
            row["informative"] = log[f"informative/{name}"].sum() / max(1, log[f"sampled/{name}"].sum())
            row["share of kept"] = kept[name] / max(1, sum(kept.values()))
        rows.append(row)
    return pd.DataFrame(rows)
