"""What a rollout is paid for its verdict: as it stands, or spoiled on purpose, as a control.

A control shows what a recipe gains without the signal that it is said to learn from: a reward drawn by lot
(as in "Spurious Rewards", 2506.10947), one for format alone, or a verifier that errs. Chance comes from the
rollout's own key, never from a generator with a state, so that a run that was killed goes on alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from prorl_study.domains.problem import Verdict

RANDOM_RATE = 0.5
"""Share of rollouts that a random reward pays."""
NOISE_RATE = 0.2
"""Share of verdicts that a noisy verifier turns over."""


def chance(key: object) -> float:
    """A number in [0, 1) that depends on `key` alone."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") / 2**64


def _verified(key: object, verdict: Verdict) -> float:
    return verdict.score


def _random(key: object, verdict: Verdict) -> float:
    return float(chance(("random", key)) < RANDOM_RATE)


def _format(key: object, verdict: Verdict) -> float:
    return float(verdict.status not in ("unparseable", "refused"))


def _noisy(key: object, verdict: Verdict) -> float:
    return 1.0 - verdict.score if chance(("noisy", key)) < NOISE_RATE else verdict.score


REWARDS: dict[str, Callable[[object, Verdict], float]] = {
    "verified": _verified,
    "random": _random,
    "format": _format,
    "noisy": _noisy,
}
"""Reward in [0, 1] of a rollout, from its key (what it was drawn from) and its verdict."""


def rewarded(kind: str, key: object, verdict: Verdict, truncated: bool, truncation_factor: float) -> float:
    """Reward of kind `kind`; that of a truncated answer times the factor."""
    return REWARDS[kind](key, verdict) * (truncation_factor if truncated else 1.0)
