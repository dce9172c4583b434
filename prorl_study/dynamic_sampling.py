"""Which rollouts a step trains on: informative groups in the mixture's shares, refilled and counted.

DAPO's dynamic sampling (2503.14476, section 3.2) for several domains and graded rewards. A group informs
where its scores, floored at the task's floor, differ; quotas per domain hold the mixture of what is kept, and
what a domain falls short is carried to its later quotas. A step's batch has a fixed size: what rounds cannot
find is filled with uninformative groups of the same domain, and counted.

A domain without any informative group among its last `SATURATED_AFTER` is saturated. Its share goes to the
others by their weights, and one group a step is drawn from it until one informs again. Where all domains are
saturated, none is treated so. Left out: models, rewards and texts; the caller samples and judges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prorl_study.domains.problem import Problem, Verdict
from prorl_study.streams import PromptStream, Quotas

INFORMATIVE_SPREAD = 1e-3
"""A group informs where its scores, floored at the task's floor, differ by more than this."""
MAX_OVERSAMPLING = 3
"""How many groups a round may sample for each group that is wanted, at most."""
SATURATED_AFTER = 200
"""Groups of a domain in a row without signal: where 2 % of them inform, one such run in fifty is chance."""
KEEP_RATE_MEMORY = 0.9
"""Share of the old value in the running keep rate of a domain, which sizes a step's first round."""


@dataclass
class Group:
    """One prompt's rollouts, with the scores that they earned."""

    problem: Problem
    rollout: list[list[Any] | None]
    """The group's slice of each field that the trainer's sampling returned; None for an absent field."""
    verdicts: list[Verdict]
    rewards: list[float] = field(default_factory=list)
    """What each rollout is paid; its score where nothing else is said."""

    def __post_init__(self) -> None:
        self.rewards = self.rewards or self.scores

    @property
    def scores(self) -> list[float]:
        return [verdict.score for verdict in self.verdicts]

    def spread(self, floor: float) -> float:
        """Largest minus smallest reward, both at least the task's floor: crumbs for format do not count."""
        rewards = [max(reward, floor) for reward in self.rewards]
        return max(rewards) - min(rewards)

    def kind(self) -> str:
        """solve_all, solve_none or partial, by strict success."""
        solved = sum(verdict.solved for verdict in self.verdicts)
        return "solve_all" if solved == len(self.verdicts) else "partial" if solved else "solve_none"


@dataclass
class Counts:
    """What one step sampled and kept, in groups per domain."""

    quota: dict[str, int]
    sampled: dict[str, int]
    informative: dict[str, int]
    kept: dict[str, int]
    """Informative groups that are trained on; the quota's rest is filled with others."""
    saturated: list[str] = field(default_factory=list)

    @property
    def filled(self) -> int:
        """Groups of the batch that carry no signal."""
        return sum(self.quota.values()) - sum(self.kept.values())


class DynamicSampling:
    """Draws prompts until each domain's quota of informative groups is full, for at most `max_rounds`."""

    def __init__(
        self,
        stream: PromptStream,
        weights: Mapping[str, float],
        floors: Mapping[str, float],
        max_rounds: int,
        refill: bool = True,
    ) -> None:
        """`weights` are shares per domain, `floors` scores in [0, 1] per task (0 where a task has none).
        Without `refill` all that is sampled is trained on, as in plain GRPO, and is only counted."""
        self.stream, self.floors, self.max_rounds, self.refill = stream, dict(floors), max_rounds, refill
        self.quotas = Quotas(weights)
        self.active = list(weights)
        """Domains that prompts are drawn from now; the caller may change it between steps."""
        self.keep_rate = dict.fromkeys(weights, 1.0)
        self.barren = dict.fromkeys(weights, 0)
        """Groups without signal since the last one with it."""
        self.drawn = 0
        """Prompts drawn before the round that is being sampled."""

    def saturated(self) -> list[str]:
        found = [domain for domain in self.active if self.barren[domain] >= SATURATED_AFTER]
        return [] if len(found) == len(self.active) else found

    def informs(self, group: Group) -> bool:
        return group.spread(self.floors.get(group.problem.task, 0.0)) > INFORMATIVE_SPREAD

    def _draws(self, domain: str, need: int) -> int:
        """Groups to sample where `need` informative ones are wanted."""
        return min(MAX_OVERSAMPLING * need, math.ceil(need / max(self.keep_rate[domain], 0.01)))

    def collect(
        self, count: int, sample: Callable[[Sequence[Problem]], list[Group]]
    ) -> tuple[list[Group], list[Group], Counts]:
        """`count` groups to train on, all that were sampled, and the counts.

        `sample` returns one judged group per problem, in order. Surplus informative groups are dropped: kept
        for the next step they would be off-policy.
        """
        idle = self.saturated() if self.refill else []
        without = [domain for domain in self.barren if domain in idle or domain not in self.active]
        quota = self.quotas.next(count, without)
        kept: dict[str, list[Group]] = {domain: [] for domain in quota}
        spare: dict[str, list[Group]] = {domain: [] for domain in quota}
        everything: list[Group] = []
        counts = Counts(quota, *({d: 0 for d in quota} for _ in range(3)), saturated=idle)
        for turn in range(self.max_rounds if self.refill else 1):
            needs = {d: need for d in quota if (need := quota[d] - len(kept[d])) > 0}
            draws = {d: self._draws(d, need) for d, need in needs.items()} if self.refill else needs
            draws |= dict.fromkeys(idle, 1) if turn == 0 else {}
            if not draws:
                break
            problems = [self.stream.next(d) for d, number in draws.items() for _ in range(number)]
            groups = sample(problems)
            self.drawn += len(problems)
            for group in groups:
                domain = group.problem.domain
                counts.sampled[domain] += 1
                everything.append(group)
                if self.informs(group):
                    self.barren[domain] = 0
                    counts.informative[domain] += 1
                    kept[domain].append(group)
                else:
                    self.barren[domain] += 1
                    spare[domain].append(group)
        batch = [] if self.refill else everything
        for domain, wanted in quota.items():
            if counts.sampled[domain]:
                rate = counts.informative[domain] / counts.sampled[domain]
                self.keep_rate[domain] += (1 - KEEP_RATE_MEMORY) * (rate - self.keep_rate[domain])
            counts.kept[domain] = min(wanted, len(kept[domain]))
            if self.refill:
                batch += (kept[domain] + spare[domain])[:wanted]
        self.quotas.settle(counts.kept if self.refill else quota, without)
        return batch, everything, counts

    def state_dict(self) -> dict[str, Any]:
        """Prompt positions, carried quotas, keep rates and counts, JSON-plain."""
        return {
            "stream": self.stream.state_dict(),
            "quotas": self.quotas.state_dict(),
            "keep_rate": dict(self.keep_rate),
            "barren": dict(self.barren),
            "drawn": self.drawn,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`. A domain that the state does not know begins as at the start."""
        self.stream.load_state_dict(state["stream"])
        self.quotas.load_state_dict(state["quotas"])
        self.keep_rate |= {d: r for d, r in state["keep_rate"].items() if d in self.keep_rate}
        self.barren |= {d: n for d, n in state["barren"].items() if d in self.barren}
        self.drawn = state["drawn"]
