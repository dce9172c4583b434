"""What changes while a run goes on, by the number of tokens that it has sampled: the paper's staged recipe.

The paper adds a domain, penalises answers that do not end, doubles the group and lengthens the answers in
the course of its eight runs (2505.24864, App. E). Here each such change stands at a number of sampled tokens,
so it comes at the same cost in every arm, wherever that arm's segments end. Left out: resets, which are
segments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from prorl_study.errors import StudyError
from prorl_study.params import TrainParams


@dataclass(frozen=True)
class Phase:
    """What holds between two points of the curriculum."""

    domains: tuple[str, ...]
    """Domains that prompts are drawn from."""
    rollouts_per_prompt: int
    """Group size n."""
    max_completion_tokens: int
    """Response cap."""
    truncation_factor: float
    """What the reward of an answer is multiplied with that reached the cap: 1 leaves it, 0 takes all."""


def phases(train: TrainParams, known: Sequence[str]) -> list[tuple[int, Phase]]:
    """(first token, phase) in order, the first at 0. `known` are the names of all domains.

    Each entry of `train.curriculum` changes what it names from its `tokens` on; before the first, the
    arm's own values hold. Domains that the arm does not train on (`train.domains`) stay out. Raises
    StudyError for an unknown name, an order that is none, or a batch that cannot be split.
    """
    values: dict[str, Any] = {
        "domains": train.domains,
        "rollouts_per_prompt": train.rollouts_per_prompt,
        "max_completion_tokens": train.max_completion_tokens,
        "truncation_factor": 1.0,
    }
    _check(values, train, known, "train.domains")
    found = [(0, _phase(values, train))]
    for number, entry in enumerate(train.curriculum, 1):
        where = f"train.curriculum, entry {number}"
        changes = {name: value for name, value in entry.items() if name != "tokens"}
        unknown = sorted(set(changes) - {f.name for f in fields(Phase)})
        if unknown:
            raise StudyError(f"{where}: no such key: {', '.join(unknown)}; see prorl_study/curriculum.py.")
        start = entry.get("tokens")
        if type(start) is not int or start < found[-1][0]:
            raise StudyError(
                f"{where}: tokens={start!r} must be a whole number, at least {found[-1][0]} as in the entry "
                "before."
            )
        values |= changes
        _check(values, train, known, where)
        phase = _phase(values, train)
        if not phase.domains:
            raise StudyError(f"{where}: no domain is left that train.domains={train.domains} contains.")
        found = [pair for pair in found if pair[0] < start] + [(start, phase)]
    return found


def phase_at(plan: Sequence[tuple[int, Phase]], tokens: int) -> Phase:
    """The phase that holds once `tokens` have been sampled."""
    return next(phase for start, phase in reversed(plan) if start <= tokens)


def _phase(values: Mapping[str, Any], train: TrainParams) -> Phase:
    domains = tuple(d for d in values["domains"] if d in train.domains)
    return Phase(**{**values, "domains": domains, "truncation_factor": float(values["truncation_factor"])})


def _check(values: Mapping[str, Any], train: TrainParams, known: Sequence[str], where: str) -> None:
    strange = [d for d in values["domains"] if d not in known]
    if strange:
        raise StudyError(f"{where}: no such domain: {', '.join(strange)}; known: {', '.join(known)}.")
    group, updates = values["rollouts_per_prompt"], train.updates_per_rollout
    if type(group) is not int or group < 2 or train.prompts_per_step * group % updates:
        raise StudyError(
            f"{where}: rollouts_per_prompt={group!r} must be 2 or more, and {train.prompts_per_step} prompts "
            f"of so many rollouts a multiple of updates_per_rollout={updates}."
        )
    if type(values["max_completion_tokens"]) is not int or values["max_completion_tokens"] < 1:
        raise StudyError(
            f"{where}: max_completion_tokens={values['max_completion_tokens']!r} must be 1 or more."
        )
    if not 0 <= values["truncation_factor"] <= 1:
        raise StudyError(f"{where}: truncation_factor={values['truncation_factor']!r} must lie in [0, 1].")
