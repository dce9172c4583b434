"""The measures of the claims that compare arms: differences over training seeds, from the long experiments.

Every measure takes the results and its aim, like those of `measures`, and is "not run" until at least two
pairs of runs are there, since one pair does not tell how much seeds differ. Left out: how arms are paired
(`evidence`), and how they were trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prorl_study.evidence import (
    Row,
    differences,
    differences_at_equal_cost,
    gains_at_equal_domain_tokens,
    pairs,
    score,
)
from prorl_study.measures import Aim, Outcome, Results, not_run
from prorl_study.statistics import Interval, non_inferiority, superiority_p, t_interval

LEAST_PAIRS = 2


def _missing(arms: str, pairs: int) -> Outcome:
    return not_run(f"needs {arms} with {LEAST_PAIRS} training seeds at least; {pairs} have run")


def _outcome(values: np.ndarray, aim: Aim, detail: str, problems: int) -> Outcome:
    interval = Interval(*(round(value, 4) for value in t_interval(values, aim.level)))
    return Outcome(interval, detail, problems, len(values), superiority_p(values))


def _problems(results: Results) -> int:
    """Test problems that each run was judged on."""
    return len(results.runs[0]["ends"][-1]["solved"])


def arm_difference(results: Results, aim: Aim, arm: str, other: str) -> Outcome:
    """`arm` minus `other`, percent solved where both have spent their sampled tokens."""
    found = differences(results.runs, arm, other)
    if len(found) < LEAST_PAIRS:
        return _missing(f"arms {arm} and {other}", len(found))
    detail = f"{arm} against {other} at equal sampled tokens{_rates(results, arm, other)}"
    return _outcome(found, aim, detail, _problems(results))


def own_rates(rows: Sequence[Row]) -> dict[str, float]:
    """Learning rates of those arms that do not have the recipe's: such an arm differs in that as well as in
    what it is called after."""
    return {row["arm"]: row["factors"]["learning_rate"] for row in rows if "learning_rate" in row["factors"]}


def _rates(results: Results, *arms: str) -> str:
    own = own_rates([row for row in results.runs if row["arm"] in arms])
    return "".join(f", {arm} at its tuned learning rate of {rate:g}" for arm, rate in own.items())


def full_recipe(results: Results, aim: Aim) -> Outcome:
    """prorl minus plain_grpo, at equal sampled tokens or at equal operations: the smaller."""
    found = {
        "equal sampled tokens": differences(results.runs, "prorl", "plain_grpo"),
        "equal operations": differences_at_equal_cost(results.runs, "prorl", "plain_grpo"),
    }
    if len(found["equal operations"]) < LEAST_PAIRS:
        return _missing("arms prorl and plain_grpo", len(found["equal operations"]))
    where = min(found, key=lambda name: found[name].mean())
    means = ", ".join(f"{values.mean():+.1f} at {name}" for name, values in found.items())
    return _outcome(found[where], aim, f"prorl against plain_grpo: {means}", _problems(results))


def decoupled_clip(results: Results, aim: Aim) -> Outcome:
    """Entropy (nats) of the last tenth of steps, prorl minus symmetric_clip.

    Where the reward is not shown to be at most 2 points lower, the claim's condition is open, and the
    interval is stretched to zero so that it decides nothing in the claim's favour.
    """
    entropy = differences(results.runs, "prorl", "symmetric_clip", lambda row: row["last"]["entropy"])
    if len(entropy) < LEAST_PAIRS:
        return _missing("arms prorl and symmetric_clip", len(entropy))
    reward = t_interval(
        differences(results.runs, "prorl", "symmetric_clip", lambda row: 100 * row["last"]["reward"]),
        aim.level,
    )
    detail = f"reward {reward.value:+.1f} points [{reward.low:+.1f}, {reward.high:+.1f}]"
    outcome = _outcome(entropy, aim, f"prorl against symmetric_clip, {detail}", _problems(results))
    if non_inferiority(reward, EQUAL_REWARD):
        return outcome
    value, low, high = outcome.interval
    stretched = Interval(value, min(low, 0.0), max(high, 0.0))
    return Outcome(stretched, outcome.detail, outcome.n_problems, outcome.n_seeds, 1.0)


EQUAL_REWARD = 2.0
"""Points that the reward may be lower and still be called equal, as the claim says."""


def kl_with_resets(results: Results, aim: Aim) -> Outcome:
    """prorl minus the better of no_reset (KL without resets) and no_kl (no penalty), percent solved."""
    found = {name: differences(results.runs, "prorl", name) for name in ("no_reset", "no_kl")}
    if min(map(len, found.values())) < LEAST_PAIRS:
        return _missing("arms prorl, no_reset and no_kl", min(map(len, found.values())))
    better = min(found, key=lambda name: found[name].mean())
    detail = f"the better of the two is {better}{_rates(results, better)}"
    return _outcome(found[better], aim, detail, _problems(results))


def over_supervised(results: Results, aim: Aim) -> Outcome:
    """prorl minus filtered_sft, percent solved where the cheaper of the two has spent its operations."""
    found = differences_at_equal_cost(results.runs, "prorl", "filtered_sft")
    if len(found) < LEAST_PAIRS:
        return _missing("arms prorl and filtered_sft", len(found))
    detail = f"prorl against filtered_sft at equal operations{_rates(results, 'prorl', 'filtered_sft')}"
    return _outcome(found, aim, detail, _problems(results))


SPECIALISTS = {"math": "math_only", "code": "code_only"}
KEPT = 0.8
"""Share of a specialist's gain that a generalist must keep, as the claim says."""


def generalist(results: Results, aim: Aim) -> Outcome:
    """prorl's gain in a specialist's domain minus `KEPT` of the specialist's, points, at equal tokens of that
    domain: the specialist for which this is smallest."""
    found = {
        domain: np.array(
            [
                gain - KEPT * other
                for gain, other in (
                    gains_at_equal_domain_tokens(one, two, domain)
                    for one, two in pairs(results.runs, "prorl", arm)
                )
            ]
        )
        for domain, arm in SPECIALISTS.items()
    }
    fewest = min(map(len, found.values()))
    if fewest < LEAST_PAIRS:
        return _missing(f"arms prorl, {' and '.join(SPECIALISTS.values())}", fewest)
    where = min(found, key=lambda domain: found[domain].mean())
    detail = f"the smallest is {where}{_rates(results, SPECIALISTS[where])}"
    return _outcome(found[where], aim, detail, _problems(results))


def control(results: Results, aim: Aim, arm: str, kind: str) -> Outcome:
    """The margin minus what a control gains over its own base, percent solved (`kind`: strict or lenient).

    Above zero the gain is smaller than the margin.
    """
    gains = np.array(
        [
            score(row["ends"][-1], kind) - score(row["start"], kind)
            for row in results.runs
            if row["arm"] == arm
        ]
    )
    if len(gains) < LEAST_PAIRS:
        return _missing(f"the control {arm}", len(gains))
    detail = f"gain {gains.mean():+.1f} points{_rates(results, arm)}"
    return _outcome(aim.margin - gains, aim, detail, _problems(results))
