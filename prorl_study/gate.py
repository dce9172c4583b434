"""May this base be used? What decoding alone finds in it, against what its samples hold.

The base is judged by itself, before any RL setting is looked at, and never by the gain that RL makes of it.
The answer must be latent: on open-ended problems some sample is right (pass@16) far more often than greedy
decoding and the majority vote are. Otherwise RL would only undo decoding noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from prorl_study.benchmarks import benchmark_rows
from prorl_study.domains.problem import Problem
from prorl_study.errors import StudyError
from prorl_study.evaluation import counts, judge
from prorl_study.problems import first_of_each
from prorl_study.samplers import Loaded, sample
from prorl_study.sampling import Sampler

PASS_K, VOTES = 16, 16


def open_ended(problems: Sequence[Problem], per_domain: int) -> list[Problem]:
    """The first `per_domain` open-ended problems of each domain; guessable tasks tell nothing here."""
    return first_of_each([problem for problem in problems if problem.open_ended], per_domain)


def measure(
    loaded: Loaded,
    problems: Sequence[Problem],
    samples: int,
    sampler: Sampler,
    seed: int,
    pool,
    resamples: int,
) -> list[dict]:
    """Benchmark rows of the base on `problems`: sampled `samples` times with `sampler`, and greedy."""
    frames = []
    greedy = Sampler(0.0, 1.0, sampler.max_tokens, sampler.batch_tokens)
    for setting, how, n in (("sampled", sampler, samples), ("greedy", greedy, 1)):
        drawn = sample(loaded, problems, n, how, seed, progress=f"base {setting}")
        frame = judge(problems, drawn, pool)
        frames.append(frame.assign(model="base", setting=setting, temperature=how.temperature))
    return benchmark_rows(counts(pd.concat(frames, ignore_index=True), VOTES), seed, resamples)


def rates(rows: Sequence[Mapping]) -> pd.DataFrame:
    """One row per domain, fractions: greedy, avg, cons@16 and pass@k, strict; graded beside them."""
    frame = pd.DataFrame(rows)
    wide = frame.pivot(index="domain", columns="metric", values="value")
    largest = max((m for m in wide if m.startswith("pass@")), key=lambda m: int(m[5:]))
    vote = next(m for m in wide if m.startswith("cons@"))
    columns = {
        "greedy": "greedy",
        "strict": "avg",
        vote: "cons",
        largest: "pass",
        "graded": "avg graded",
        "greedy_graded": "greedy graded",
        "lenient_strict": "avg lenient",
        "truncated": "truncated",
        "unparseable": "unparseable",
    }
    return wide[list(columns)].rename(columns=columns).reset_index()


def failing(table: pd.DataFrame, margin: float) -> list[str]:
    """Domains in which the right answer is not latent enough; empty when the base may be used."""
    bar = table[["greedy", "cons"]].max(axis=1) + margin
    return table.domain[table["pass"] < bar].tolist()


def check(table: pd.DataFrame, margin: float) -> None:
    """Raise StudyError naming the failing domains with their figures; a negative margin only reports."""
    failed = failing(table, margin) if margin >= 0 else []
    if failed:
        figures = "; ".join(
            f"{row.domain}: pass {row['pass']:.2f}, greedy {row.greedy:.2f}, vote {row.cons:.2f}"
            for _, row in table[table.domain.isin(failed)].iterrows()
        )
        raise StudyError(
            f"the base model leaves RL nothing to find ({figures}): on open-ended problems pass@16 must "
            f"exceed the better of greedy and vote by gate_margin={margin}; change base_model in params.yaml."
        )
