"""Rows of the benchmarks page: accuracy given parse, floors, and the papers' tables in their own layout."""

import numpy as np
import pytest
from synthetic import random_counts

from prorl_study import benchmarks
from prorl_study.domains import DOMAINS
from prorl_study.paper import load_paper


def test_accuracy_given_parse_is_a_ratio_of_sums_and_holds_it_in_its_interval():
    table = random_counts({"base": 0.4}, domains=("math",))
    part = table[(table.split == "test") & (table.setting == "sampled")].copy()
    rng = np.random.default_rng(0)
    part["unparseable"] = rng.integers(0, part.n - part.solved + 1)
    found = benchmarks.accuracy_given_parse(part, np.random.default_rng(1), 500)
    assert found.value == pytest.approx(part.solved.sum() / (part.n - part.unparseable).sum())
    assert found.low < found.value < found.high <= 1
    with pytest.raises(ValueError, match="no answer"):
        benchmarks.accuracy_given_parse(part.assign(unparseable=part.n), np.random.default_rng(1), 10)


def test_what_could_not_be_parsed_lowers_success_and_not_accuracy_given_parse():
    table = random_counts({"base": 0.4}, domains=("math",))
    rows = {r["metric"]: r["value"] for r in benchmarks.benchmark_rows(table, 3, 50) if r["split"] == "test"}
    assert rows[benchmarks.GIVEN_PARSE] == pytest.approx(rows["strict"], abs=1e-6)
    half = table.assign(unparseable=(table.n - table.solved) // 2)
    again = {r["metric"]: r["value"] for r in benchmarks.benchmark_rows(half, 3, 50) if r["split"] == "test"}
    assert again["strict"] == rows["strict"] and again[benchmarks.GIVEN_PARSE] > rows["strict"]
    none = table.assign(unparseable=table.n)
    assert benchmarks.GIVEN_PARSE not in {r["metric"] for r in benchmarks.benchmark_rows(none, 3, 50)}


def test_token_entropy_has_a_row_only_where_it_was_measured():
    table = random_counts({"base": 0.4}, domains=("math",))
    measured = (table.split == "test") & (table.setting == "sampled")
    table["token_entropy"] = np.where(measured, 0.25, np.nan)
    rows = [r for r in benchmarks.benchmark_rows(table, 3, 50) if r["metric"] == "token_entropy"]
    assert [(r["split"], r["value"]) for r in rows] == [("test", 0.25)]


def test_levels_stand_above_the_better_of_both_floors():
    table = random_counts({"base": 0.3, "s3": 0.6})
    zero = {"score": 0.0, "solved": 0.0}
    floors = {"t": {"garbage": {"score": 0.2, "solved": 0.0}, "guess": {"score": 0.1, "solved": 0.25}}}
    free = {"t": {"garbage": zero, "guess": zero}}
    with_floor = benchmarks.above_floors(table, floors, "base", "s3")
    without = benchmarks.above_floors(table, free, "base", "s3")
    assert list(with_floor.domain) == list(DOMAINS)
    for name in ("base", "s3"):
        assert np.allclose(without[f"{name}_strict"] - with_floor[f"{name}_strict"], 25)
        assert np.allclose(without[f"{name}_graded"] - with_floor[f"{name}_graded"], 20)


def test_the_papers_tables_keep_their_layout_and_ours_claim_none_of_their_benchmarks():
    theirs = load_paper()["tables"]["math"]["rows"]
    rows = benchmarks.benchmark_rows(random_counts({"base": 0.3, "s3": 0.6}), 3, 50)
    table = benchmarks.beside_paper(theirs, rows, "math", "strict").set_index("model")
    columns = list(next(iter(theirs.values())))
    assert list(table.columns) == [*columns, benchmarks.OWN_COLUMN]
    for model, row in theirs.items():
        assert [table.loc[model, name] for name in columns] == list(row.values())
        assert np.isnan(table.loc[model, benchmarks.OWN_COLUMN])
    ours = table[table.index.str.startswith("ours: ")]
    assert len(ours) == 2 and (ours[columns] == benchmarks.NOT_EVALUATED).all(axis=None)
    strict = {
        r["model"]: r["value"]
        for r in rows
        if (r["domain"], r["split"], r["metric"]) == ("math", "test", "strict")
    }
    assert ours[benchmarks.OWN_COLUMN].tolist() == [round(100 * strict[m], 2) for m in ("base", "s3")]


def test_across_tasks_the_middle_half_decides():
    table = random_counts({"base": 0.5}, per_domain=8)
    part = (table.split == "test") & (table.setting == "sampled")
    tasks = np.arange(part.sum()) % 8
    table.loc[part, "task"] = [f"t{task}" for task in tasks]
    table.loc[part, "solved"] = (
        table.loc[part, "n"] * np.where(tasks < 2, 0, np.where(tasks > 5, 1, 0.5))
    ).astype(int)
    found = benchmarks.across_tasks(table, ["base"], 3, 100).iloc[0]
    assert (found.strict, found.ci_low, found.ci_high, found.tasks) == (0.5, 0.5, 0.5, 8)
