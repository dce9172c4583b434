"""When a segment has nothing more to gain: the rule behind a reset, as pure arithmetic on validation checks.

The papers reset "when validation metrics significantly degrade or when improvements plateau" (2505.24864,
section 2.3.1), by hand and without a threshold. Here a check is compared, problem by problem, with the last
one that rose: it rises by at least `min_delta` and two standard errors, or it does not. `patience` checks in
a row without a rise are a plateau. How often such a rule fires on policies that stand still, and on policies
that improve, is simulated in `firing_rates`. Left out: models and sampling; the caller brings the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

STANDARD_ERRORS = 2.0
"""A rise smaller than this many standard errors of the paired difference is not counted as one."""


@dataclass(frozen=True)
class Rule:
    """Scores are shares of 1, KL in nats per token."""

    min_delta: float
    patience: int
    """Checks in a row without a rise."""
    max_drop: float
    """Fall of the score below the last one that rose."""
    max_kl: float


@dataclass(frozen=True)
class Firing:
    """Why and on what evidence a segment ends."""

    rule: str
    """`stalled`, `dropped` or `kl`."""
    step: int
    tokens: int
    score: float
    anchor_step: int
    anchor_score: float
    """The last check that rose, or the segment's first."""
    difference: float
    standard_error: float
    """Of the difference, paired by problem."""
    checks_without_rise: int
    kl: float

    def row(self) -> dict[str, Any]:
        return asdict(self)


def paired(now: ArrayLike, before: ArrayLike) -> tuple[float, float]:
    """Mean difference of two arrays of scores, (problems,), and its standard error."""
    difference = np.asarray(now, float) - np.asarray(before, float)
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))


class Stagnation:
    """Follows one segment's checks. Its state is plain, so a checkpoint can hold it."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.anchor: dict[str, Any] | None = None
        """Step and scores of the last check that rose."""
        self.without_rise = 0

    def look(self, step: int, tokens: int, scores: Sequence[float], kl: float) -> Firing | None:
        """Take in one check: scores in [0, 1] of the same problems, in the same order, each time.

        After a firing the check that fired is what later ones are compared with.
        """
        if self.anchor is None:
            self.anchor = {"step": step, "scores": list(scores)}
            return None
        difference, error = paired(scores, self.anchor["scores"])
        if difference >= max(self.rule.min_delta, STANDARD_ERRORS * error):
            rose, self.without_rise = True, 0
        else:
            rose, self.without_rise = False, self.without_rise + 1
        if kl > self.rule.max_kl:
            cause = "kl"
        elif -difference >= max(self.rule.max_drop, STANDARD_ERRORS * error):
            cause = "dropped"
        elif self.without_rise >= self.rule.patience:
            cause = "stalled"
        else:
            cause = ""
        firing = None
        if cause:
            firing = Firing(
                cause,
                step,
                tokens,
                float(np.mean(scores)),
                self.anchor["step"],
                float(np.mean(self.anchor["scores"])),
                difference,
                error,
                self.without_rise,
                kl,
            )
        if rose or firing:
            self.anchor, self.without_rise = {"step": step, "scores": list(scores)}, 0
        return firing

    def compares(self, problems: int) -> bool:
        """Whether the check that the next one is compared with is there and is one of as many problems: a run
        that goes on from one with another `validation_prompts` has taken over a check of others."""
        return self.anchor is not None and len(self.anchor["scores"]) == problems

    def forget(self) -> None:
        """Have the next check be the first."""
        self.anchor, self.without_rise = None, 0

    def state_dict(self) -> dict[str, Any]:
        return {"anchor": self.anchor, "without_rise": self.without_rise}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.anchor, self.without_rise = state["anchor"], state["without_rise"]


def firing_rates(
    rule: Rule,
    chances: NDArray[np.float64],
    rise: float,
    checks: int,
    runs: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Share of simulated runs in which the rule has fired by each cause within `checks` checks, and the mean
    number of checks until it does (of those in which it does).

    Each problem is solved with its own chance, `chances` (problems,), which moves by `rise` (share of 1 per
    check, cut at 1): with 0 the policy never changes, so every rise or fall that is seen is noise.
    """
    fired: dict[str, int] = {"stalled": 0, "dropped": 0}
    when: list[int] = []
    for _ in range(runs):
        stagnation = Stagnation(rule)
        for check in range(checks + 1):
            now = np.clip(chances + rise * check, 0, 1)
            firing = stagnation.look(check, 0, (rng.random(len(now)) < now).astype(float).tolist(), kl=0.0)
            if firing:
                fired[firing.rule] += 1
                when.append(check)
                break
    return {cause: count / runs for cause, count in fired.items()} | {
        "checks": float(np.mean(when)) if when else float("nan")
    }
