"""Made-up samples and counts for tests of what comes after sampling: no model is needed."""

from __future__ import annotations

from random import Random

import numpy as np
import pandas as pd

from prorl_study.domains import DOMAINS, Problem

PAPER_GAINS = {name: {"abstract": 1.0, "section3": 2.0, "measure": "strict"} for name in DOMAINS}
PAPER = {"gains": PAPER_GAINS}


def problems(split: str, per_domain: int = 2, seed: int = 7) -> list[Problem]:
    """Real problems of each domain."""
    return [domain.generate(seed, split, i) for domain in DOMAINS.values() for i in range(per_domain)]


def completion(problem: Problem, right: bool, slipped: bool = False, seed: int = 0) -> str:
    """What the teacher would write: right or by habit, with or without its format."""
    domain, rng = DOMAINS[problem.domain], Random(f"{problem.id}/{seed}")
    text = domain.solve(problem) if right else domain.habit(problem, rng)
    return domain.slip(text, rng) if slipped else text


def random_counts(
    rates: dict[str, float], seed: int = 0, per_domain: int = 40, n: int = 16, domains: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Counts as `evaluation.counts` makes them: per model its mean success rate, problems in common.

    Splits validation, test and hard; the base also has greedy and `tuned_0.3` rows.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for split in ("validation", "test", "hard"):
        for domain in domains or tuple(DOMAINS):
            ease = rng.normal(0, 0.1, per_domain)
            for model, rate in rates.items():
                settings = {"sampled": (n, rate), "greedy": (1, rate)}
                if model == "base" and split != "hard":
                    settings["tuned_0.3"] = (n, rate + 0.05)
                for setting, (draws, p) in settings.items():
                    for i in range(per_domain):
                        solved = int(rng.binomial(draws, min(1, max(0, p + ease[i]))))
                        lenient = min(draws, solved + int(rng.integers(0, 2)))
                        rows.append(
                            {
                                "model": model,
                                "split": split,
                                "setting": setting,
                                "problem": f"{domain}-{split}-{i:03d}",
                                "domain": domain,
                                "task": "t",
                                "difficulty": 1 + i % 3,
                                "open_ended": int(i % 10 > 0),
                                "temperature": 0.6,
                                "n": draws,
                                "solved": solved,
                                "score_sum": round(solved + 0.1 * (draws - solved), 6),
                                "lenient_solved": lenient,
                                "lenient_score_sum": round(lenient + 0.1 * (draws - lenient), 6),
                                "truncated": int(rng.integers(0, 2)),
                                "unparseable": 0,
                                "cons_solved": int(solved > draws / 2),
                                "cons_score": float(solved > draws / 2),
                                "cons_lenient_solved": int(lenient > draws / 2),
                                "cons_lenient_score": float(lenient > draws / 2),
                                "distinct_answers": int(rng.integers(1, draws + 1)),
                                "votes": min(draws, 16),
                            }
                        )
    return pd.DataFrame(rows)
