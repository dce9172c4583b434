"""Which prompts come next: an endless stream per domain, and quotas that hold the mixture.

The stream of a domain is a pure function of (seed, domain, epoch); its only state is a position, so a
checkpoint can hold it. Quotas carry their remainders over steps: whatever dynamic sampling throws away is
drawn again from the same domain, so refilling cannot bend the mixture. No model and no score in here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
        self.position |= {d: place for d, place in state["position"].items() if d in self.position}


class Quotas:
    """How many groups each domain gets in a step. What one has had too few or too many of is carried, so that
    the mixture of what was kept follows the shares, whatever was thrown away."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """`weights` are positive shares per domain, in any unit."""
        total = sum(weights.values())
        self.shares = {domain: weight / total for domain, weight in weights.items()}
        self.carried = dict.fromkeys(weights, 0.0)
        """Groups that a domain is behind the mixture, or ahead of it where negative; together they are 0."""

    def _shares(self, without: Collection[str]) -> dict[str, float]:
        left = {domain: share for domain, share in self.shares.items() if domain not in without}
        return {domain: share / sum(left.values()) for domain, share in left.items()}

    def next(self, groups: int, without: Collection[str] = ()) -> dict[str, int]:
        """Split `groups` over the domains; those in `without` get none, and the others share alike in it. At
        least one domain must be left."""
        wanted = {d: groups * share + self.carried[d] for d, share in self._shares(without).items()}
        quota = dict.fromkeys(self.shares, 0) | {d: max(0, int(number)) for d, number in wanted.items()}
        by_remainder = sorted(wanted, key=lambda d: (quota[d] - wanted[d], d))
        # Rounding down leaves a few groups over; the largest remainders get them. A domain that is far ahead
        # can make the sum too large instead, and then the smallest remainders give.
        for domain in by_remainder[: max(0, groups - sum(quota.values()))]:
            quota[domain] += 1
        for domain in reversed(by_remainder):
            surplus = sum(quota.values()) - groups
            if surplus <= 0:
                break
            quota[domain] -= min(surplus, quota[domain])
        return quota

    def settle(self, kept: Mapping[str, int], without: Collection[str] = ()) -> None:
        """Note what a step kept of each domain; domains in `without` are left out of the reckoning.

        No domain is carried further than its share of what was kept (but two groups at least), so that one
        that can hardly be filled gets up to twice its share and does not starve the others.
        """
        shares = self._shares(without)
        total = sum(kept[domain] for domain in shares)
        for domain, share in shares.items():
            behind, most = self.carried[domain] + total * share - kept[domain], max(2.0, total * share)
            self.carried[domain] = max(-most, min(most, behind))
        excess = sum(self.carried[domain] for domain in shares)
        for domain in self.carried:
            self.carried[domain] -= excess * shares[domain] if domain in shares else self.carried[domain]

    def state_dict(self) -> dict[str, Any]:
        return {"carried": dict(self.carried)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`. A domain that the state does not know begins with nothing carried."""
        self.carried |= {d: carried for d, carried in state["carried"].items() if d in self.carried}
