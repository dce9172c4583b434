"""From per-problem counts to benchmark rows and gains, with intervals over problems.

All functions are pure in the counts, so every number of the benchmarks page can be recomputed in a fresh
clone from `results/counts/*.csv`, without a model (`recompute`).

Left out: noise over training seeds, of which the default study has one, and what the numbers mean for the
paper's claims (`claims`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prorl_study.domains import DOMAINS
from prorl_study.errors import StudyError
from prorl_study.evaluation import TUNED, read_counts, tuned_settings
from prorl_study.statistics import (
    Interval,
    bootstrap_mean,
    iqm_interval,
    named_rng,
    paired_bootstrap,
    pass_at_k,
)

GIVEN_PARSE = "strict_given_parse"
GRADED_DOMAINS = tuple(name for name, domain in DOMAINS.items() if domain.graded)
"""Where the paper reports the mean graded score (2505.24864, section 3.4), and where a domain asks for it."""
NO_PAPER = {"section3": None, "abstract": None, "measure": None}
"""What the paper says of a domain that it does not have."""


def _metrics(part: pd.DataFrame, setting: str) -> dict[str, np.ndarray]:
    """Per-problem values of each metric for one (model, split, setting, domain)."""
    n = part.n.to_numpy(dtype=float)
    rate = {
        name: part[name].to_numpy() / n for name in ("solved", "lenient_solved", "truncated", "unparseable")
    }
    graded, lenient_graded = part.score_sum.to_numpy() / n, part.lenient_score_sum.to_numpy() / n
    if setting == "greedy":
        return {"greedy": rate["solved"], "greedy_graded": graded, "greedy_lenient": rate["lenient_solved"]}
    if setting.startswith(TUNED):
        return {
            f"strict@T={setting[len(TUNED) :]}": rate["solved"],
            f"graded@T={setting[len(TUNED) :]}": graded,
        }
    votes = int(part.votes.max())
    values = {
        "strict": rate["solved"],
        "graded": graded,
        "lenient_strict": rate["lenient_solved"],
        "lenient_graded": lenient_graded,
        f"cons@{votes}": part.cons_solved.to_numpy(),
        f"cons_lenient@{votes}": part.cons_lenient_solved.to_numpy(),
        "truncated": rate["truncated"],
        "unparseable": rate["unparseable"],
        "distinct_answers": part.distinct_answers.to_numpy(),
    }
    if "token_entropy" in part and part.token_entropy.notna().all():
        values["token_entropy"] = part.token_entropy.to_numpy()
    fair = part[part.open_ended == 1]
    k = 1
    while len(fair) and k <= max(1, int(fair.n.min()) // 2):
        values[f"pass@{k}"] = pass_at_k(fair.n, fair.solved, k)
        k *= 2
    return values


def benchmark_rows(table: pd.DataFrame, seed: int, resamples: int) -> list[dict[str, Any]]:
    """All metrics as rows; values are fractions (distinct answers: a mean count), intervals 95 %.

    pass@k counts strict successes on open-ended problems only, for k up to half of the samples. What has no
    value (accuracy given parse where nothing could be parsed) has no row.
    """
    rows = []
    for (model, split, setting, domain), part in table.groupby(["model", "split", "setting", "domain"]):
        part = part.sort_values("problem")
        found = {}
        for metric, values in _metrics(part, setting).items():
            rng = named_rng(seed, model, split, domain, metric)
            found[metric] = bootstrap_mean(values, rng, resamples), len(values)
        if setting == "sampled" and (part.n > part.unparseable).any():
            rng = named_rng(seed, model, split, domain, GIVEN_PARSE)
            found[GIVEN_PARSE] = accuracy_given_parse(part, rng, resamples), len(part)
        for metric, (interval, problems) in found.items():
            rows.append(
                {
                    "model": model,
                    "domain": domain,
                    "split": split,
                    "metric": metric,
                    "value": round(interval.value, 6),
                    "ci_low": round(interval.low, 6),
                    "ci_high": round(interval.high, 6),
                    "n_problems": problems,
                    "n_samples": int(part.n.max()),
                    "seed": seed,
                }
            )
    return rows


def accuracy_given_parse(part: pd.DataFrame, rng: np.random.Generator, resamples: int) -> Interval:
    """Strict successes per answer that could be parsed, a ratio of sums over the problems of one cell, with
    its 95 % interval over problems. Raises ValueError where nothing could be parsed."""
    solved, parsed = part.solved.to_numpy(float), (part.n - part.unparseable).to_numpy(float)
    if parsed.sum() == 0:
        raise ValueError("no answer that could be parsed")
    picks = rng.integers(len(part), size=(resamples, len(part)))
    tops, bottoms = solved[picks].sum(axis=1), parsed[picks].sum(axis=1)
    low, high = np.quantile(tops[bottoms > 0] / bottoms[bottoms > 0], [0.025, 0.975])
    return Interval(float(solved.sum() / parsed.sum()), float(low), float(high))


def slices(table: pd.DataFrame, by: str, split: str, seed: int, resamples: int) -> pd.DataFrame:
    """Strict success (fractions, 95 % interval) per model, domain and `by` (`difficulty` or `task`)."""
    rows = []
    part = table[(table.split == split) & (table.setting == "sampled")]
    for (domain, value, model), cell in part.groupby(["domain", by, "model"]):
        rng = named_rng(seed, "slice", model, split, domain, by, value)
        rate, low, high = bootstrap_mean(cell.solved / cell.n, rng, resamples)
        rows.append((model, domain, value, rate, low, high, len(cell)))
    rows.sort(key=lambda row: list(DOMAINS).index(row[1]))  # stable: within a domain as grouped
    return pd.DataFrame(rows, columns=["model", "domain", by, "strict", "ci_low", "ci_high", "n_problems"])


def across_tasks(table: pd.DataFrame, models: Sequence[str], seed: int, resamples: int) -> pd.DataFrame:
    """Per model the interquartile mean over tasks of `test` of the strict rate (fractions, 95 % interval): no
    task counts for more because it has more problems, and neither the easiest nor the hardest decide."""
    part = table[(table.split == "test") & (table.setting == "sampled")]
    rows = []
    for model in models:
        cells = part[part.model == model].groupby("task")
        tasks = [(cell.solved / cell.n).to_numpy() for _, cell in cells if len(cell) > 1]
        found = iqm_interval(tasks, named_rng(seed, "tasks", model), resamples)
        rows.append((model, *found, len(tasks)))
    return pd.DataFrame(rows, columns=["model", "strict", "ci_low", "ci_high", "tasks"])


def above_floors(
    table: pd.DataFrame, floors: Mapping[str, Mapping[str, Any]], base: str, trained: str
) -> pd.DataFrame:
    """Per task of `test`, in percent: what a well-formed wrong answer and a guesser earn, and by how much
    base and trained model lie above the better of the two, strictly and graded.

    `floors` as `problems.load_floors` gives them. A floor cancels in a gain; what it shows is how much of
    either model's level is there to be had for nothing.
    """
    part = table[(table.split == "test") & (table.setting == "sampled")]
    rows = []
    for (domain, task), cell in part.groupby(["domain", "task"]):
        if task not in floors:
            continue
        row = {"domain": domain, "task": task}
        for measure, total, key in (("strict", "solved", "solved"), ("graded", "score_sum", "score")):
            earned = {kind: 100 * floors[task][kind][key] for kind in ("garbage", "guess")}
            row |= {f"{kind}_{measure}": value for kind, value in earned.items()}
            for name in (base, trained):
                own = cell[cell.model == name]
                level = 100 * float((own[total] / own.n).mean())
                row[f"{name}_{measure}"] = level - max(earned.values())
        rows.append(row)
    rows.sort(key=lambda row: list(DOMAINS).index(row["domain"]))
    return pd.DataFrame(rows)


def values_of(table: pd.DataFrame, model: str, split: str, setting: str, domain: str) -> pd.DataFrame:
    """The counts of one cell, indexed and sorted by problem, so that two cells pair up row by row."""
    mask = (table.model == model) & (table.split == split) & (table.setting == setting)
    return table[mask & (table.domain == domain)].set_index("problem").sort_index()


def training_free(table: pd.DataFrame, domain: str, measure: str, base: str = "base") -> dict[str, pd.Series]:
    """What the base reaches on `test` without training, per method: its values over problems, in 0..1.

    Methods: `sampled` (the shared sampler), `greedy`, `cons@n` (majority vote; for the graded measure the
    score of the voted answer) and `T=t`, the temperature that won on validation, where it is another one.
    """
    total, vote = ("solved", "cons_solved") if measure == "strict" else ("score_sum", "cons_score")
    sampled = values_of(table, base, "test", "sampled", domain)
    greedy = values_of(table, base, "test", "greedy", domain)
    methods = {
        "sampled": sampled[total] / sampled.n,
        "greedy": greedy[total] / greedy.n,
        f"cons@{int(sampled.votes.max())}": sampled[vote].astype(float),
    }
    setting = tuned_settings(table, base).get(domain, "sampled")
    if setting != "sampled":
        tuned = values_of(table, base, "test", setting, domain)
        methods[f"T={setting.removeprefix(TUNED)}"] = tuned[total] / tuned.n
    return methods


def _gain(
    table: pd.DataFrame, domain: str, measure: str, base: str, trained: str, seed: int, resamples: int
) -> dict[str, Any]:
    """One row of `gains` without the paper's numbers."""

    def compare(name: str, before: pd.Series, after: pd.Series) -> list[float]:
        rng = named_rng(seed, "gain", name, domain, measure)
        return [round(100 * value, 4) for value in paired_bootstrap(before, after, rng, resamples)]

    total = "solved" if measure == "strict" else "score_sum"
    sampled = values_of(table, base, "test", "sampled", domain)
    after = values_of(table, trained, "test", "sampled", domain)
    if list(sampled.index) != list(after.index):
        raise StudyError(f"{base} and {trained} differ in their {domain} test problems; evaluate both again.")
    reached = after[total] / after.n
    methods = training_free(table, domain, measure, base)
    best = max(methods, key=lambda name: methods[name].mean())
    gain = compare("sampled", methods["sampled"], reached)
    over = compare("training_free", methods[best], reached)
    lenient = compare("lenient", sampled[f"lenient_{total}"] / sampled.n, after[f"lenient_{total}"] / after.n)
    return {
        "domain": domain,
        "measure": measure,
        "base": round(100 * float(methods["sampled"].mean()), 4),
        "base_best_training_free": round(100 * float(methods[best].mean()), 4),
        "best_training_free_method": best,
        "trained": round(100 * float(reached.mean()), 4),
        **dict(zip(("gain", "gain_ci_low", "gain_ci_high"), gain, strict=True)),
        **dict(zip(("gain_over_training_free", "ci_low", "ci_high"), over, strict=True)),
        **dict(zip(("lenient_gain", "lenient_ci_low", "lenient_ci_high"), lenient, strict=True)),
        "base_model": base,
        "trained_model": trained,
        "n_problems": len(after),
        "n_samples": int(after.n.max()),
        "n_samples_base": int(sampled.n.max()),
        "seed": seed,
        "resamples": resamples,
    }


def gains(
    table: pd.DataFrame, paper: Mapping[str, Any], trained: str, seed: int, resamples: int, base: str = "base"
) -> list[dict[str, Any]]:
    """Gain of `trained` over the base on `test`, in percentage points, paired over problems.

    `trained` is fixed beforehand (the last segment). The best training-free base is the best *on the test
    set* of the methods of `training_free`: it may choose after the fact where the trained model may not,
    which is conservative against training. `ci_low` and `ci_high` belong to `gain_over_training_free`.
    `lenient_gain` compares both models after lenient re-extraction at the same sampler. The paper's gain
    stands in both measures' rows; `paper_measure` says which of them the paper reports. All of that is None
    for a domain that the paper does not have.
    Raises StudyError where a model is missing or the two saw different problems.
    """
    missing = {base, trained} - set(table.model)
    if missing:
        raise StudyError(
            f"no counts of model {', '.join(sorted(missing))}; make them with `dvc repro benchmarks`."
        )
    tested = set(table[table.split == "test"].domain)
    rows = []
    for domain in [name for name in DOMAINS if name in tested]:
        for measure in ("strict", "graded") if domain in GRADED_DOMAINS else ("strict",):
            facts = paper["gains"].get(domain, NO_PAPER)
            rows.append(
                {
                    **_gain(table, domain, measure, base, trained, seed, resamples),
                    "paper_gain": facts["section3"],
                    "paper_gain_abstract": facts["abstract"],
                    "paper_measure": facts["measure"],
                }
            )
    return rows


OWN_COLUMN = "this study's problems"
NOT_EVALUATED = "not evaluated"


def beside_paper(
    theirs: Mapping[str, Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], domain: str, metric: str
) -> pd.DataFrame:
    """One of the papers' tables in its own layout, percent, with this study's models below theirs.

    `theirs`: model to benchmark to number (`tables.*.rows` of paper.yaml); `rows`: benchmark rows, of which
    `metric` on `test` fills the column `OWN_COLUMN`. None of the paper's benchmarks is among this study's
    generated problems, so its models have no number under them, and the papers' models none under ours.
    """
    columns = list(dict.fromkeys(name for row in theirs.values() for name in row))
    table = [{"model": model, **row, OWN_COLUMN: None} for model, row in theirs.items()]
    for row in rows:
        if (row["domain"], row["split"], row["metric"]) == (domain, "test", metric):
            own = {"model": f"ours: {row['model']}", **dict.fromkeys(columns, NOT_EVALUATED)}
            table.append(own | {OWN_COLUMN: round(100 * row["value"], 2)})
    return pd.DataFrame(table, columns=["model", *columns, OWN_COLUMN])


def finding(rows: Sequence[Mapping[str, Any]]) -> str:
    """The benchmarks page in one sentence, from the strict rows of `gains`."""
    strict = [row for row in rows if row["measure"] == "strict"]
    above = sum(row["ci_low"] > 0 for row in strict)
    parts = ", ".join(
        f"{row['domain']} {row['gain_over_training_free']:+.1f} [{row['ci_low']:+.1f}, {row['ci_high']:+.1f}]"
        for row in strict
    )
    return (
        f"In {above} of {len(strict)} domains the gain of {strict[0]['trained_model']} over the best "
        f"training-free base lies above zero with its 95 % interval; in points: {parts}."
    )


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """`gains` as a Markdown table, for a README; a test compares the two."""
    lines = [
        "| domain | measure | base | best training-free | trained | gain over it (95 %) | paper's gain |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        over = f"**{row['gain_over_training_free']:+.1f}** [{row['ci_low']:+.1f}, {row['ci_high']:+.1f}]"
        free = f"{row['base_best_training_free']:.1f} ({row['best_training_free_method']})"
        paper = f"{row['paper_gain']:+.1f}" if row["measure"] == row["paper_measure"] else "–"
        lines.append(
            f"| {row['domain']} | {row['measure']} | {row['base']:.1f} | {free} | {row['trained']:.1f} "
            f"| {over} | {paper} |"
        )
    return "\n".join(lines)


def recompute(results_dir: Path, paper: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of `gains.json` again, from the committed counts alone."""
    path = Path(results_dir) / "gains.json"
    if not path.is_file():
        raise StudyError(f"{path} is missing; make it with `dvc repro benchmarks`.")
    first = json.loads(path.read_text())[0]
    return gains(
        read_counts(results_dir),
        paper,
        first["trained_model"],
        first["seed"],
        first["resamples"],
        first["base_model"],
    )
