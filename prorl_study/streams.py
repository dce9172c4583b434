"""Which prompts come next: an endless stream per domain, and quotas that hold the mixture.

The stream of a domain is a pure function of (seed, domain, epoch); its only state is a position, so a
checkpoint can hold it. Quotas carry their remainders over steps: whatever dynamic sampling throws away is
drawn again from the same domain, so refilling cannot bend the mixture. No model and no score in here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from prorl_study.domains.problem import Problem


class PromptStream:
    """Endless, seeded, resumable stream of training problems per domain."""

    def __init__(self, problems: Sequence[Problem], seed: int) -> None:
        self.seed = seed
        self.by_domain: dict[str, list[Problem]] = {}
        for problem in problems:
            self.by_domain.setdefault(problem.domain, []).append(problem)
        self.position = dict.fromkeys(self.by_domain, 0)
        self._orders: dict[str, tuple[int, list[int]]] = {}

    def next(self, domain: str) -> Problem:
        """The next problem of `domain`: a new seeded permutation each time all have been drawn."""
        pool = self.by_domain[domain]
        epoch, offset = divmod(self.position[domain], len(pool))
        self.position[domain] += 1
        cached = self._orders.get(domain)
        if cached is None or cached[0] != epoch:
            order = list(range(len(pool)))
            Random(f"{self.seed}/{domain}/{epoch}").shuffle(order)
            cached = self._orders[domain] = (epoch, order)
        return pool[cached[1][offset]]

    def state_dict(self) -> dict[str, Any]:
        return {"position": dict(self.position)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.position = dict(state["position"])


class Quotas:
    """How many groups each domain gets in a step; remainders are carried to the next step."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        total = sum(weights.values())
        self.shares = {domain: weight / total for domain, weight in weights.items()}
        self.carried = dict.fromkeys(weights, 0.0)

    def next(self, groups: int) -> dict[str, int]:
        """Split `groups` over the domains. Over many steps each gets its share to within one group."""
        for domain, share in self.shares.items():
            self.carried[domain] += groups * share
        quota = {domain: max(0, int(carried)) for domain, carried in self.carried.items()}
        by_remainder = sorted(quota, key=lambda d: (quota[d] - self.carried[d], d))
        # Rounding down leaves a few groups over; the largest remainders get them. An earlier overdraft
        # can make the sum too large instead, and then the smallest remainders give.
        for domain in by_remainder[: max(0, groups - sum(quota.values()))]:
            quota[domain] += 1
        for domain in reversed(by_remainder):
            surplus = sum(quota.values()) - groups
            if surplus <= 0:
                break
            quota[domain] -= min(surplus, quota[domain])
        for domain, count in quota.items():
            self.carried[domain] -= count
        return quota

    def state_dict(self) -> dict[str, Any]:
        return {"carried": dict(self.carried)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.carried = dict(state["carried"])
