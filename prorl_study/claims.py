"""The claims as data: what is said, by whom, and how this study looks at it.

`params.yaml` fixes each claim's measure, test, margin and family before the runs; here stand the statements
with their sources, and what becomes of a measure's interval. A verdict is generated from that interval, never
typed: `seen here`, `opposite here`, `no effect larger than X`, `undecided (could have seen X)`, `not run`.
Nothing here says that a result of the paper was reproduced or contradicted: that takes its model.

Five primary claims are corrected together: their intervals are simultaneous (Bonferroni), their p-values
Holm's. All others are estimates, each with its own 95 % interval. Left out: how each measure is computed
(`measures`), and noise over training seeds, where a study has one; `n_seeds` says so in each row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from prorl_study import arm_measures, measures
from prorl_study.domain_claims import for_all_domains
from prorl_study.domains import DOMAINS
from prorl_study.errors import StudyError
from prorl_study.evidence import FOR_CLAIMS
from prorl_study.measures import Aim, Outcome, Results
from prorl_study.paper import load_paper
from prorl_study.params import ClaimParams
from prorl_study.statistics import Interval, holm, wording

NAMES = {name: name.replace("_", " ") for name in DOMAINS} | {
    "stem": "STEM",
    "logic": "logic puzzles",
    "instruction": "instruction following",
}
"""How a statement calls each domain."""
ERROR_RATE = 0.05
"""Of all primary claims together, and of each estimate by itself."""


@dataclass(frozen=True)
class Claim:
    """One statement of the paper, or one that its readers make, and what computes this study's measure of it.

    `compute` takes the results and what its interval is held to.
    """

    id: str
    statement: str
    source: str
    paper_value: str | None
    """The paper's number with its unit, None where it gives none."""
    compute: Callable[[Results, Aim], Outcome]
    data: tuple[str, ...] = ("counts/*.csv",)
    """Committed files under `results/` that the number is computed from, as patterns."""


def verdict(outcome: Outcome, margin: float, unit: str) -> str:
    """The wording that an outcome earns; see `statistics.wording`."""
    if not outcome.ran:
        return "not run"
    if outcome.interval is None:
        return "undecided"
    word = wording(outcome.interval, margin, unit)
    if word == "opposite here" and outcome.same_sampler is not None and outcome.same_sampler.high >= 0:
        return wording(Interval(0.0, outcome.interval.low, outcome.same_sampler.high), margin, unit)
    return word


def sentence(row: Mapping[str, Any]) -> str:
    """One sentence for a row of `judge_claims`, its numbers from the row alone."""
    if row["value"] is None:
        return f"{row['verdict'].capitalize()}: {row['detail']}."
    digits = 1 if row["unit"] == "points" else 3
    numbers = ", ".join(f"{row[end]:+.{digits}f}" for end in ("ci_low", "ci_high"))
    scope = f"{row['n_problems']} problems, " if row["n_problems"] else ""
    seeds = f"{row['n_seeds']} training seed{'s' if row['n_seeds'] != 1 else ''}"
    level = f"{100 * row['level']:g} %"
    return (
        f"{row['verdict'].capitalize()}: {row['value']:+.{digits}f} {row['unit']}, {level} interval over "
        f"{row['over']} [{numbers}], {scope}{seeds}."
    )


def _over(outcome: Outcome) -> str:
    """What an outcome's interval is over."""
    if outcome.n_seeds > 1:
        return "training seeds"
    return "problems" if outcome.n_problems else "steps"


RUNS = tuple(f"evidence/runs/{experiment}-*.json" for experiment in FOR_CLAIMS)


def _claims() -> list[Claim]:
    paper = load_paper()["gains"]

    def each(prefix: str, statement: str, source: str, compute: Any) -> list[Claim]:
        return [
            Claim(
                f"{prefix}-{domain}",
                statement.format(name=name),
                source,
                f"+{paper[domain]['section3']} points ({paper[domain]['measure']})"
                if prefix == "gain" and domain in paper
                else None,
                partial(compute, domain=domain),
            )
            for domain, name in NAMES.items()
        ]

    recipe = "2505.24864, section 2.3; 2507.12507"
    return [
        Claim(
            "gain-overall",
            "Prolonged RL on several domains gains over the best that decoding gets out of the base.",
            "2505.24864, section 3",
            ", ".join(f"{domain} +{paper[domain]['section3']}" for domain in paper)
            + " points over the sampled base",
            measures.gain_overall,
        ),
        Claim(
            "full-recipe",
            "The full recipe beats plain GRPO.",
            recipe,
            None,
            arm_measures.full_recipe,
            RUNS,
        ),
        Claim(
            "resets",
            "Resetting reference and optimizer restores progress.",
            "2505.24864, section 2.3.1; 2507.12507",
            None,
            partial(arm_measures.arm_difference, arm="prorl", other="no_reset"),
            RUNS,
        ),
        Claim(
            "decoupled-clip",
            "A higher upper clip bound keeps entropy up at equal reward.",
            recipe,
            None,
            arm_measures.decoupled_clip,
            RUNS,
        ),
        Claim(
            "generalist",
            "One model trained on all domains keeps at least 80 % of each specialist's gain.",
            "2505.24864, section 3",
            "+4.6 over DeepScaleR, +6.5 over DeepCoder",
            arm_measures.generalist,
            RUNS,
        ),
        *each("gain", "Prolonged RL improves {name}.", "2505.24864, section 3", measures.gain),
        *each(
            "gain-not-format",
            "Most of the gain in {name} is not format.",
            "2505.24864, App. F.1 (the base fails logic by format); 2507.12507 silent",
            measures.lenient_share,
        ),
        Claim(
            "logic-largest",
            "Logic puzzles gain most.",
            "2505.24864, section 3",
            f"logic +{paper['logic']['section3']} points (graded), the largest of five",
            measures.logic_largest,
        ),
        Claim(
            "no-domain-sacrificed",
            "No domain is sacrificed for the others.",
            "2505.24864, section 3",
            None,
            measures.no_domain_sacrificed,
        ),
        Claim(
            "gains-continue",
            "Gains continue after a quarter of the training.",
            "2505.24864, sections 3 and 4",
            None,
            measures.gains_continue,
        ),
        *each(
            "boundary",
            "Prolonged RL solves problems in {name} that the base does not solve in many tries.",
            "2505.24864, section 4",
            measures.hard_boundary,
        ),
        Claim(
            "boundary-two-domains",
            "The reasoning boundary expands where the base hardly solves anything.",
            "2505.24864, section 4",
            "boxnet: 0 to 100 % at k = 256, counting partial credit",
            measures.hard_two_domains,
        ),
        Claim(
            "boundary-deep",
            "The reasoning boundary grows: the gain holds at the largest k.",
            "2505.24864, section 4",
            None,
            measures.boundary_deep,
            ("boundary/*.csv",),
        ),
        Claim(
            "weakest-base",
            "The gain is largest where the base is weakest.",
            "2505.24864, section 4",
            None,
            measures.weakest_base,
            ("boundary/*.csv",),
        ),
        Claim(
            "entropy",
            "Entropy does not collapse in prolonged training.",
            "2505.24864, section 2.2",
            None,
            measures.entropy_held,
            ("training/*.csv",),
        ),
        Claim(
            "dynamic-sampling",
            "Dynamic sampling makes training more sample-efficient.",
            recipe,
            None,
            partial(arm_measures.arm_difference, arm="prorl", other="no_dynamic_sampling"),
            RUNS,
        ),
        Claim(
            "temperature",
            "Training at temperature 1.2 is better than at 0.6.",
            "2505.24864, section 2.2",
            None,
            partial(arm_measures.arm_difference, arm="prorl", other="low_temperature"),
            RUNS,
        ),
        Claim(
            "kl-with-resets",
            "A KL penalty with resets is better than without resets and than no penalty.",
            "2505.24864, section 2.3.1",
            None,
            arm_measures.kl_with_resets,
            RUNS,
        ),
        Claim(
            "rl-over-supervised",
            "RL gains more than supervised training on its verified rollouts.",
            "a control of this study",
            None,
            arm_measures.over_supervised,
            RUNS,
        ),
        Claim(
            "random-reward",
            "A random reward gains nothing.",
            "a control of this study",
            None,
            partial(arm_measures.control, arm="random_reward", kind="strict"),
            RUNS,
        ),
        Claim(
            "format-reward",
            "A reward for format alone gains nothing but format.",
            "a control of this study",
            None,
            partial(arm_measures.control, arm="format_reward", kind="lenient"),
            RUNS,
        ),
    ]


CLAIMS: list[Claim] = _claims()


def judge_claims(
    results: Results, tests: Mapping[str, ClaimParams], claims: Sequence[Claim] = CLAIMS
) -> list[dict[str, Any]]:
    """One JSON-plain row per claim with its verdict, primary claims first; numbers in the claim's unit.

    `tests` is the section `claims` of params.yaml; what it need not name, `domain_claims` says. Raises
    StudyError where it lacks a claim or has another.
    """
    tests = for_all_domains(tests)
    unknown = sorted(set(tests) ^ {claim.id for claim in claims})
    if unknown:
        raise StudyError(
            f"params.yaml, claims: {', '.join(unknown)}: each claim of prorl_study/claims.py needs its "
            "entry, and no other; add or remove it."
        )
    primary = [claim.id for claim in claims if tests[claim.id].family == "primary"]
    aims = {
        name: Aim(1 - ERROR_RATE / (len(primary) if name in primary else 1), test.margin)
        for name, test in tests.items()
    }
    outcomes = {claim.id: claim.compute(results, aims[claim.id]) for claim in claims}
    # What has not run counts as p = 1: a family does not shrink because a part of it is missing.
    p_values = [1.0 if outcomes[name].p is None else outcomes[name].p for name in primary]
    adjusted = dict(zip(primary, holm(p_values), strict=True)) if primary else {}
    rows = []
    for claim in sorted(claims, key=lambda claim: claim.id not in primary):
        outcome, test = outcomes[claim.id], tests[claim.id]
        value, low, high = outcome.interval or (None, None, None)
        row = {
            "id": claim.id,
            "statement": claim.statement,
            "source": claim.source,
            "paper_value": claim.paper_value,
            "measure": test.measure,
            "test": test.test,
            "primary": claim.id in primary,
            "level": aims[claim.id].level,
            "unit": test.unit,
            "margin": test.margin,
            "value": value,
            "ci_low": low,
            "ci_high": high,
            "over": _over(outcome),
            "p_adjusted": None
            if outcome.p is None or claim.id not in adjusted  # an estimate has its interval alone
            else round(float(adjusted[claim.id]), 6),
            "n_problems": outcome.n_problems,
            "n_seeds": outcome.n_seeds,
            "detail": outcome.detail,
            "verdict": verdict(outcome, test.margin, test.unit),
        }
        rows.append({**row, "sentence": sentence(row)})
    return rows


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """One sentence with the number of claims per verdict; those that were not seen are named."""
    named: dict[str, list[str]] = {}
    for row in rows:
        kind = re.sub("than .*", "than its margin", row["verdict"]).partition(" (")[0]
        named.setdefault(kind, []).append(row["id"])
    parts = [
        f"{len(ids)} {verdict}" + ("" if verdict == "seen here" else f" ({', '.join(ids)})")
        for verdict, ids in sorted(named.items(), key=lambda item: -len(item[1]))
    ]
    return f"Of {len(rows)} claims: {'; '.join(parts)}."
