"""Where a segment stands between its beginning and its end: budget, stagnation rule, boundaries.

It decides when a segment ends and keeps what a reset is described by; it trains and samples nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prorl_study.params import SegmentParams, TrainParams
from prorl_study.stagnation import Rule, Stagnation

BOUNDARY_FIGURES = ("kl", "entropy", "kl_share", "step_size", "grad_norm")
"""What is shown before and after a boundary."""


class Course:
    """Where a segment stands between its beginning and its end, and what has happened at its boundaries."""

    def __init__(
        self,
        train: TrainParams,
        segment: SegmentParams,
        budget: int,
        before: Mapping[str, Any],
        resumed: Mapping[str, Any],
    ) -> None:
        """`before` is the state that the previous segment left, `resumed` that of the checkpoint to go on
        from; both may be empty. `budget` counts sampled tokens from the start of the chain."""
        self.budget, self.may_stop = budget, segment.rule == "stop"
        self.stagnation = Stagnation(Rule(train.min_delta, train.patience, train.max_drop, train.max_kl))
        self.ended: dict[str, Any] | None = None
        self.firings: list[dict[str, Any]] = []
        self.last: dict[str, float] = {}
        """Latest value of what a boundary is described by."""
        self.boundaries: list[dict[str, Any]] = list(before.get("boundaries", []))
        self.goes_on = bool(before) and segment.reference == segment.optimizer == "keep"
        """Nothing changes at the boundary, so nothing is looked at anew either."""
        if resumed:
            self.stagnation.load_state_dict(resumed["stagnation"])
            self.firings, self.last = list(resumed["firings"]), dict(resumed["last"])
            self.boundaries = list(resumed["boundaries"])
        elif before:
            if self.goes_on:
                self.stagnation.load_state_dict(before["stagnation"])
            self.last = dict(before["last"])
            self.boundaries.append(
                {
                    "segment": segment.segment,
                    "reference": segment.reference,
                    "optimizer": segment.optimizer,
                    "step": before["trainer"]["rollout_steps"],
                    "tokens": before["trainer"]["tokens"]["sampled"],
                    "rule": before["ended"]["rule"],
                    "evidence": before["ended"],
                    "before": dict(before["last"]),
                    "after": {},
                }
            )

    def note(self, record: Mapping[str, Any]) -> None:
        """Take in a step's record; the first after a boundary shows what the boundary has done."""
        values = {name: record[name] for name in BOUNDARY_FIGURES if name in record}
        self.last |= values
        if self.boundaries and not self.boundaries[-1]["after"]:
            self.boundaries[-1]["after"] = values

    def look(self, step: int, tokens: int, scores: Sequence[float], kl: float) -> dict[str, Any]:
        """Take in a validation check; returns what the log says of it. The rule ends the segment if it
        may."""
        anchor = self.stagnation.anchor
        firing = self.stagnation.look(step, tokens, scores, kl)
        if firing:
            self.firings.append(firing.row())
            if self.may_stop and not self.ended:
                self.ended = firing.row()
        rose = anchor is not None and firing is None and self.stagnation.anchor is not anchor
        return {"rose": rose, "fired": firing.rule if firing else ""}

    def spend(self, tokens: int) -> None:
        if tokens >= self.budget and not self.ended:
            self.ended = {"rule": "budget"}

    def state(self) -> dict[str, Any]:
        return {
            "budget": self.budget,
            "ended": self.ended,
            "stagnation": self.stagnation.state_dict(),
            "firings": self.firings,
            "last": self.last,
            "boundaries": self.boundaries,
        }
