"""Dynamic sampling by itself: what is kept, refilled, carried and given up, without any model."""

from __future__ import annotations

import random
from itertools import count

import pytest
import tiny

from prorl_study.domains.problem import Verdict
from prorl_study.dynamic_sampling import SATURATED_AFTER, DynamicSampling, Group
from prorl_study.streams import PromptStream

WEIGHTS = {"math": 40.0, "code": 24.0, "stem": 25.0, "logic": 37.0, "instruction": 10.0}
SIZE = 24


def verdict(score: float) -> Verdict:
    return Verdict(score, score == 1, "correct" if score == 1 else "partial" if score else "wrong")


class World:
    """Groups that inform with a fixed chance per domain."""

    def __init__(self, rates: dict[str, float], seed: int = 0) -> None:
        self.rates, self.rng = dict(rates), random.Random(seed)
        self.rounds: list[int] = []

    def sample(self, problems):
        self.rounds.append(len(problems))
        return [self.group(problem) for problem in problems]

    def group(self, problem) -> Group:
        if self.rng.random() < self.rates[problem.domain]:
            scores = (0.0, 1.0, 0.0, 1.0)
        else:
            scores = (1.0,) * 4 if self.rng.random() < 0.5 else (0.0,) * 4
        return Group(problem, [], list(map(verdict, scores)))


def sampler(rounds: int = 2, floors=None, refill: bool = True) -> DynamicSampling:
    problems = [p for domain in WEIGHTS for p in tiny.problems(50, domain)]
    return DynamicSampling(PromptStream(problems, 7), WEIGHTS, floors or {}, rounds, refill)


def shares(kept: dict[str, int]) -> dict[str, float]:
    return {domain: number / sum(kept.values()) for domain, number in kept.items()}


@pytest.mark.parametrize("seed", range(3))
def test_the_kept_mixture_stays_within_a_point_over_200_steps_although_keep_rates_differ(seed):
    world = World({"math": 0.9, "code": 0.35, "stem": 0.6, "logic": 0.45, "instruction": 0.8}, seed)
    chosen, kept = sampler(), dict.fromkeys(WEIGHTS, 0)
    for _ in range(200):
        batch, _, counts = chosen.collect(SIZE, world.sample)
        assert len(batch) == SIZE
        for domain in WEIGHTS:
            kept[domain] += counts.kept[domain]
    for domain, share in shares(kept).items():
        assert abs(share - WEIGHTS[domain] / 136) < 0.01, (domain, share)


def test_naive_refilling_would_have_bent_the_mixture():
    # the test above can fail: whatever informs first, whichever domain it comes from
    world = World({"math": 0.9, "code": 0.35, "stem": 0.6, "logic": 0.45, "instruction": 0.8})
    expected = {d: WEIGHTS[d] * world.rates[d] for d in WEIGHTS}
    total = sum(expected.values())
    assert max(abs(expected[d] / total - WEIGHTS[d] / 136) for d in WEIGHTS) > 0.05


def test_a_shortfall_is_filled_counted_and_made_up_for_later():
    world, chosen = World(dict.fromkeys(WEIGHTS, 1.0)), sampler()
    world.rates["logic"] = 0.0
    for _ in range(3):
        batch, _, counts = chosen.collect(SIZE, world.sample)
        assert len(batch) == SIZE and counts.filled == counts.quota["logic"] > 0
        assert sum(chosen.informs(group) for group in batch) == SIZE - counts.filled
    world.rates["logic"] = 1.0
    behind = chosen.quotas.carried["logic"]
    _, _, counts = chosen.collect(SIZE, world.sample)
    assert behind > 2 and counts.kept["logic"] > SIZE * WEIGHTS["logic"] / 136 + 2


def test_a_step_samples_in_a_bounded_number_of_rounds_and_groups_whatever_the_world_is_like():
    world = World(dict.fromkeys(WEIGHTS, 0.0))
    chosen = sampler(rounds=3)
    for _ in range(20):
        world.rounds.clear()
        batch, everything, counts = chosen.collect(SIZE, world.sample)
        assert len(batch) == SIZE == counts.filled
        assert len(world.rounds) <= 3 and len(everything) == sum(world.rounds) <= 3 * 3 * SIZE


def test_a_saturated_domain_gives_its_share_to_the_others_by_weight_and_comes_back_when_it_informs():
    world, chosen = World(dict.fromkeys(WEIGHTS, 1.0)), sampler()
    world.rates["math"] = 0.0
    kept, idle = dict.fromkeys(WEIGHTS, 0), 0
    for _ in range(200):
        _, _, counts = chosen.collect(SIZE, world.sample)
        if counts.saturated:
            assert counts.saturated == ["math"]
            assert (
                counts.quota["math"] == 0 and counts.sampled["math"] == 1
            )  # one group to see if it has changed
            idle += 1
            for domain in WEIGHTS:
                kept[domain] += counts.kept[domain]
    assert idle > 150
    for domain in set(WEIGHTS) - {"math"}:
        assert abs(shares(kept)[domain] - WEIGHTS[domain] / 96) < 0.01
    world.rates["math"] = 1.0
    chosen.collect(SIZE, world.sample)
    _, _, counts = chosen.collect(SIZE, world.sample)
    assert counts.saturated == [] and counts.kept["math"] > 0


def test_no_domain_counts_as_saturated_where_all_are():
    world, chosen = World(dict.fromkeys(WEIGHTS, 0.0)), sampler()
    for _ in range(2 * SATURATED_AFTER):
        batch, _, counts = chosen.collect(SIZE, world.sample)
    assert len(batch) == SIZE and counts.saturated == [] and counts.filled == SIZE


@pytest.mark.parametrize(
    ("scores", "floor", "informs"),
    [
        ((0.0, 0.1, 0.05), 0.1, False),  # crumbs for format
        ((0.0, 0.1, 0.3), 0.1, True),
        ((0.5, 0.5, 0.5), 0.0, False),  # a mean of one half is no signal
        ((0.0, 1.0, 1.0), 0.0, True),
        ((0.9, 0.9005), 0.0, False),
    ],
)
def test_graded_scores_inform_by_their_spread_above_the_floor(scores, floor, informs):
    (problem,) = tiny.problems(1)
    group = Group(problem, [], list(map(verdict, scores)))
    assert sampler(floors={problem.task: floor}).informs(group) == informs


def test_without_refilling_all_that_is_sampled_is_trained_on_and_counted():
    world, chosen = World(dict.fromkeys(WEIGHTS, 0.5)), sampler(refill=False)
    kept = dict.fromkeys(WEIGHTS, 0)
    for _ in range(100):
        batch, everything, counts = chosen.collect(SIZE, world.sample)
        assert batch == everything and len(batch) == SIZE
        assert sum(map(chosen.informs, batch)) == SIZE - counts.filled
        for domain in WEIGHTS:
            kept[domain] += counts.sampled[domain]
    for domain, share in shares(kept).items():
        assert abs(share - WEIGHTS[domain] / 136) < 0.005


def test_sampling_goes_on_from_its_saved_state():
    one, two = sampler(), sampler()
    rates = {"math": 0.9, "code": 0.2, "stem": 0.6, "logic": 0.1, "instruction": 0.8}
    for _ in range(30):
        one.collect(SIZE, World(rates, seed=1).sample)
    two.load_state_dict(one.state_dict())
    for seed in range(5):
        found = [
            [(g.problem.id, g.scores) for g in each.collect(SIZE, World(rates, seed).sample)[0]]
            for each in (one, two)
        ]
        assert found[0] == found[1]
    assert one.state_dict() == two.state_dict()


def test_draws_are_numbered_through_over_rounds_and_steps():
    chosen, seen, numbers = sampler(), [], count()

    def sample(problems):
        seen.extend(range(chosen.drawn, chosen.drawn + len(problems)))
        return World(dict.fromkeys(WEIGHTS, 0.4), next(numbers)).sample(problems)

    for _ in range(5):
        chosen.collect(SIZE, sample)
    assert seen == list(range(len(seen)))
