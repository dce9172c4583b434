"""Control rewards: what they pay, and that chance depends on the rollout's key alone."""

import numpy as np
import pytest

from prorl_study.domains.problem import Verdict
from prorl_study.rewards import NOISE_RATE, RANDOM_RATE, rewarded

RIGHT, WRONG = Verdict(1.0, True, "correct"), Verdict(0.0, False, "wrong")
HALF, GARBLED = Verdict(0.5, False, "partial"), Verdict(0.0, False, "unparseable")


def paid(kind, verdict, key=0, truncated=False, factor=1.0):
    return rewarded(kind, key, verdict, truncated, factor)


def test_a_verified_reward_is_the_score():
    assert [paid("verified", v) for v in (RIGHT, HALF, WRONG, GARBLED)] == [1.0, 0.5, 0.0, 0.0]


def test_a_format_reward_pays_every_answer_that_could_be_read():
    assert [paid("format", v) for v in (RIGHT, HALF, WRONG, GARBLED)] == [1.0, 1.0, 1.0, 0.0]


def test_a_random_reward_pays_its_share_whatever_the_verdict():
    for verdict in (RIGHT, WRONG):
        mean = np.mean([paid("random", verdict, key=(5, i, 0)) for i in range(4000)])
        assert mean == pytest.approx(RANDOM_RATE, abs=0.03)
    assert all(paid("random", RIGHT, (5, i, 0)) == paid("random", WRONG, (5, i, 0)) for i in range(50))


def test_a_noisy_verifier_turns_its_share_of_verdicts_over():
    scores = [paid("noisy", RIGHT, key=(5, i, 0)) for i in range(4000)]
    assert 1 - np.mean(scores) == pytest.approx(NOISE_RATE, abs=0.02)
    assert {paid("noisy", HALF, key=i) for i in range(50)} == {0.5}


def test_a_truncated_answer_is_paid_its_factor():
    assert paid("verified", HALF, truncated=True, factor=0.5) == 0.25
    assert paid("verified", HALF, truncated=False, factor=0.0) == 0.5
    assert paid("verified", RIGHT, truncated=True, factor=0.0) == 0.0
