"""Claims that compare arms, on rows of runs whose differences are known."""

import numpy as np
import pandas as pd
import pytest
from test_evidence import row

from prorl_study import arm_measures, claims, evidence, measures
from prorl_study.measures import Aim, Results

AIM = Aim(0.95, 2.0)


def results(*rows) -> Results:
    return Results(pd.DataFrame(), [], None, None, list(rows))


def run(arm, seed, percent, entropy=0.1, reward=0.5, flops=10.0, start=0.1):
    made = row(arm, seed, [(flops / 2, percent / 200), (flops, percent / 100)])
    for end in made["ends"]:
        end |= {"solved": [1] * 50, "lenient": {k: v + 0.05 for k, v in end["strict"].items()}}
    begun = {"strict": {"a": start, "b": start}, "lenient": {"a": start + 0.05, "b": start + 0.05}}
    return made | {"last": {"entropy": entropy, "reward": reward}, "start": begun, "factors": {}}


def verdict(outcome: measures.Outcome) -> str:
    return claims.verdict(outcome, 2.0, "points")


def test_one_pair_of_seeds_is_not_run():
    outcome = arm_measures.arm_difference(
        results(run("prorl", 1, 50), run("no_reset", 1, 40)), AIM, "prorl", "no_reset"
    )
    assert not outcome.ran and "1 have run" in outcome.detail


def test_a_difference_that_holds_over_seeds_is_seen_with_its_sign():
    rows = [run("prorl", s, 50 + s) for s in range(4)] + [run("no_reset", s, 40 + s % 2) for s in range(4)]
    outcome = arm_measures.arm_difference(results(*rows), AIM, "prorl", "no_reset")
    assert verdict(outcome) == "seen here" and outcome.n_seeds == 4 and outcome.n_problems == 50
    assert outcome.interval.value == pytest.approx(np.mean([10, 10, 12, 12]))
    assert outcome.p < 0.01
    back = arm_measures.arm_difference(results(*rows), AIM, "no_reset", "prorl")
    assert verdict(back) == "opposite here"


def test_an_arm_with_a_learning_rate_of_its_own_is_named_with_it():
    rows = [run("prorl", s, 50 + s) for s in range(3)]
    tuned = [run("no_reset", s, 40 + s) | {"factors": {"learning_rate": 9e-4}} for s in range(3)]
    outcome = arm_measures.arm_difference(results(*rows, *tuned), AIM, "prorl", "no_reset")
    assert outcome.detail.endswith("tokens, no_reset at its tuned learning rate of 0.0009")


def test_the_full_recipe_is_judged_where_it_gains_less():
    rows = [run("prorl", s, 50, flops=10.0) for s in range(3)]
    # the dearer arm is level at equal tokens, and far behind where prorl has spent its operations
    rows += [run("plain_grpo", s, 50 + 0.1 * s, flops=16.0) for s in range(3)]
    outcome = arm_measures.full_recipe(results(*rows), AIM)
    assert outcome.interval.value == pytest.approx(-0.1, abs=1e-3)
    assert "at equal sampled tokens" in outcome.detail and "at equal operations" in outcome.detail


def test_entropy_counts_for_the_clip_only_at_equal_reward():
    def pair(reward):
        return [run("prorl", s, 50, entropy=0.3 + 0.001 * s, reward=reward + 0.001 * s) for s in range(4)] + [
            run("symmetric_clip", s, 50, entropy=0.1, reward=0.5) for s in range(4)
        ]

    level = arm_measures.decoupled_clip(results(*pair(0.5)), AIM)
    assert claims.verdict(level, 0.05, "nats") == "seen here"
    lower = arm_measures.decoupled_clip(results(*pair(0.4)), AIM)
    assert lower.interval.low == 0.0 and lower.p == 1.0
    assert claims.verdict(lower, 0.05, "nats").startswith("undecided")


def test_kl_with_resets_must_beat_the_better_of_its_two_rivals():
    rows = [run("prorl", s, 50) for s in range(3)]
    rows += [run("no_reset", s, 40 + s) for s in range(3)] + [run("no_kl", s, 55 + s) for s in range(3)]
    outcome = arm_measures.kl_with_resets(results(*rows), AIM)
    assert outcome.interval.value == pytest.approx(-6) and "no_kl" in outcome.detail


def test_a_control_is_above_zero_where_it_gains_less_than_the_margin():
    nothing = [run("random_reward", s, 10 + 0.1 * s) for s in range(4)]
    outcome = arm_measures.control(results(*nothing), AIM, "random_reward", "strict")
    assert outcome.interval.value == pytest.approx(2 - 0.15) and verdict(outcome) == "seen here"
    much = [run("random_reward", s, 30 + s) for s in range(4)]
    assert verdict(arm_measures.control(results(*much), AIM, "random_reward", "strict")) == "opposite here"


def specialist(arm, seed, start, points):
    """Rows of one domain: `points` are pairs of its sampled tokens and percent solved."""
    made = run(arm, seed, 50, start=start / 100)
    made["start"]["strict"] = {"math": start / 100, "code": start / 100}
    made["ends"] = [
        {
            "tokens_of": {"math": n, "code": n},
            "strict": {"math": p / 100, "code": p / 100},
            "solved": [1] * 50,
        }
        for n, p in points
    ]
    return made


def test_a_generalist_is_held_to_its_specialist_at_equal_tokens_of_the_domain():
    rows = []
    for seed in range(3):
        rows.append(specialist("prorl", seed, 10, [(25, 20), (50, 40 + seed)]))
        rows += [specialist(arm, seed, 10, [(100, 50), (200, 90)]) for arm in ("math_only", "code_only")]
    outcome = arm_measures.generalist(results(*rows), AIM)
    # after 50 tokens the specialist is half of the way from 10 to 50 percent
    assert outcome.interval.value == pytest.approx(31 - 0.8 * 20) and outcome.n_seeds == 3
    late = specialist("prorl", 0, 10, [(300, 40)])
    with pytest.raises(ValueError, match="has sampled 200 tokens of math, not 300"):
        evidence.gains_at_equal_domain_tokens(late, rows[1], "math")


def test_supervised_training_is_compared_where_the_cheaper_one_ends():
    rows = [run("prorl", s, 50, flops=10.0) for s in range(3)]
    rows += [run("filtered_sft", s, 40 + 0.1 * s, flops=9.0) for s in range(3)]
    outcome = arm_measures.over_supervised(results(*rows), AIM)
    # prorl is on its way from 25 to 50 percent between 5 and 10 operations
    assert outcome.interval.value == pytest.approx(45 - 40.1)


def test_claims_look_at_no_run_that_varies_what_they_hold_fixed():
    rows = [{"experiment": name} for name in ("recipe", "tuning", "reset", "ladder", "parts", "map")]
    assert [row["experiment"] for row in evidence.for_claims(rows)] == ["recipe", "parts"]
