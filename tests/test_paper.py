"""The reference numbers: each with its source, each derived one recomputed, nulls left null."""

import copy
import re

import numpy as np
import pytest

from prorl_study import paper, statistics
from prorl_study.domains import DOMAINS
from prorl_study.errors import StudyError

FACTS = paper.load_paper()


def changed(key, value):
    """A copy of the facts with one number (or `None`) put at `key`; numbers in a key are list places."""
    facts = copy.deepcopy(dict(FACTS))
    *path, last = key.split("/")
    node = facts
    for name in path:
        node = node[int(name)] if isinstance(node, list) else node[name]
    assert last in node
    node[last] = value
    return facts


def not_matching(facts):
    return {row["id"] for row in paper.derived(facts) if not row["matches"]}


def recorded(facts):
    return [name for group in facts["mismatches"].values() for name in group["rows"]]


# ---- sources


def test_every_number_has_a_known_source_and_a_confidence():
    found = list(paper.numbers(FACTS))
    assert len({key for key, *_ in found}) == len(found) > 500
    for key, _, source, confidence in found:
        assert any(source.startswith(name) for name in FACTS["sources"]), key
        assert confidence in paper.CONFIDENCES, key


@pytest.mark.parametrize("missing", ["source", "confidence"])
def test_a_number_that_loses_its_source_or_confidence_is_named(missing):
    bearers = {name for name, section in FACTS.items() if isinstance(section, dict) and missing in section}
    assert {"results", "data_mix", "figure_1", "brorl", "pass_at_k", "evaluation"} <= bearers
    for name in bearers - {"checkpoints"}:  # where every number brings its own
        facts = copy.deepcopy(dict(FACTS))
        del facts[name][missing]
        with pytest.raises(StudyError, match=rf"paper\.yaml, {name}\..* has the {missing} None"):
            paper.validate(facts)


def test_unknown_sources_and_confidences_are_refused_by_key():
    facts = copy.deepcopy(dict(FACTS))
    facts["tables"]["math"]["source"] = "hearsay"
    with pytest.raises(StudyError, match=r"tables\.math\.digits: 2 has the source 'hearsay'"):
        paper.validate(facts)
    facts = copy.deepcopy(dict(FACTS))
    facts["gains"]["math"]["confidence"] = {"abstract": "read", "section3": "sure", "tables": "derived"}
    with pytest.raises(StudyError, match=r"gains\.math\.section3: 15\.7 .*'sure'"):
        paper.validate(facts)


# ---- recomputing


def test_what_does_not_match_is_exactly_what_is_recorded():
    assert sorted(recorded(FACTS)) == sorted(not_matching(FACTS))


def test_every_mismatch_says_in_one_sentence_why_it_matters():
    for group in FACTS["mismatches"].values():
        assert re.fullmatch(r"[A-Z][^.]+\.", group["why"]), group["why"]
    for row in paper.derived(FACTS):
        assert bool(row["note"]) != row["matches"], row["id"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tables/math/rows/base/minerva", 27.38),  # a column of an average that matched
        ("tables/brorl_code/rows/brorl_191/average", 54.3),
        ("results/domains/stem/trained", 42.78),  # what a gain and a bar are taken from
        ("gains/math/abstract", 15.7),  # a gain that did not match comes right
        ("gains_over_others/math/stated", 5.6),
        ("tables/reasoning_gym/rows/base/average", 3.74),
        ("tables/stem_instruction_logic/rows/trained/boxnet", 17.91),
        ("tables/model_card_stem_instruction_logic/rows/v2/reasoning_gym", 61.29),
        ("figure_1/rows/trained/ood", 39.8),
        ("data_mix/total_thousands", 137),
        ("brorl/t_test/p", 6.2e-7),
        ("brorl/runs/prorl_225/samples_k", 4490),
        ("pass_at_k/tasks/aime_2024/highest", 0.833),
    ],
)
def test_a_changed_number_shows_in_either_direction(key, value):
    facts = changed(key, value)
    paper.validate(facts)
    assert set(recorded(facts)) != not_matching(facts)


def test_every_score_that_enters_a_matching_average_counts():
    for name, table in FACTS["tables"].items():
        for model, row in table["rows"].items():
            row_id = f"average.{name}.{model}"
            if "average" in row and row_id not in recorded(FACTS):
                for column in row:
                    facts = changed(f"tables/{name}/rows/{model}/{column}", row[column] + 1)
                    (found,) = [r for r in paper._averages(facts) if r["id"] == row_id]
                    assert not found["matches"], (row_id, column)


def test_ids_are_unique_and_every_kind_has_rows():
    rows = paper.derived(FACTS)
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["kind"] for row in rows} == set(paper.KINDS)


def test_rounding_alone_never_makes_a_mismatch():
    rng = np.random.default_rng(1)
    exact = rng.uniform(0, 100, (4000, 6))
    worst = max(
        abs(row.mean().round(2) - paper._mean({str(i): float(v) for i, v in enumerate(row.round(2))}))
        for row in exact
    )
    tolerance = 2 * paper.half_digit(2)
    assert tolerance / 2 < worst <= tolerance + 1e-9
    # a gain to one decimal from exact scores, against the difference of scores printed to two
    gain, printed = (exact[:, 0] - exact[:, 1]).round(1), exact[:, :2].round(2)
    worst = np.abs(gain - (printed[:, 0] - printed[:, 1])).max()
    tolerance = paper.half_digit(1) + 2 * paper.half_digit(2)
    assert paper.half_digit(1) < worst <= tolerance + 1e-9


def test_two_evaluations_of_one_model_differ_by_more_than_the_tolerance_one_time_in_twenty_at_most():
    rng = np.random.default_rng(2)
    first = rng.binomial(30 * 16, 0.5, 20_000) / (30 * 16)
    second = rng.binomial(30 * 256, 0.5, 20_000) / (30 * 256)
    beyond = np.mean(100 * np.abs(first - second) > paper.sampling_tolerance(30, 16, 256))
    assert 0.03 < beyond < 0.055


def test_finding_counts_every_row_once():
    rows = paper.derived(FACTS)
    total, wrong, *parts = map(int, re.findall(r"\d+", paper.finding(rows)))
    assert (total, wrong) == (len(rows), len(not_matching(FACTS)))
    assert (sum(parts[0::2]), sum(parts[1::2])) == (wrong, total)


# ---- how the papers' scores are made


def test_curves_of_two_puzzles_are_those_of_a_fixed_number_of_answers_per_problem():
    rows = paper.partial_credit(FACTS)
    samples = FACTS["partial_credit"]["samples"]
    for row in rows:
        least, most = FACTS["partial_credit"]["tasks"][row["task"]]["successes"]
        assert row["low"] == pytest.approx(statistics.pass_at_k(samples, least, row["k"]), abs=1e-6)
        assert row["high"] == pytest.approx(statistics.pass_at_k(samples, most, row["k"]), abs=1e-6)
        assert row["within"], row


@pytest.mark.parametrize(("task", "successes"), [("group_anagrams", [3, 3]), ("boxnet", [12, 13])])
def test_another_number_of_answers_gives_another_curve(task, successes):
    facts = changed(f"partial_credit/tasks/{task}/successes", successes)
    assert not all(row["within"] for row in paper.partial_credit(facts) if row["task"] == task)


def test_counted_answers_lie_between_what_the_verifiers_floors_would_count():
    section = FACTS["partial_credit"]
    for curve in section["tasks"].values():
        least, most = (int(floor * section["samples"]) for floor in curve["floors"])
        assert least <= curve["successes"][0] <= curve["successes"][1] <= most


def test_no_benchmark_curve_looks_like_a_fixed_number_of_answers_per_problem():
    """Where problems differ in difficulty, pass@k stays far below that; the puzzles' curves do not."""
    curves = FACTS["pass_at_k"]
    for task in ("aime_2025", "minerva", "amc", "olympiad_bench", "codecontests", "codeforces", "taco"):
        first, deep, _ = curves["tasks"][task]["base"]
        alike = statistics.pass_at_k(256, np.floor(256 * first), curves["k"][1])
        assert deep < alike - 0.02, task


def test_gain_of_v2_in_logic_is_a_different_one_in_each_average():
    card, own, categories = paper.reasoning_gym_gain(FACTS)
    assert card["v1"] == own["v1"] and card["v2"] == pytest.approx(categories["v2"], abs=0.01)
    assert card["v1"] != categories["v1"] and card["v2"] != own["v2"]
    for row in (card, own, categories):
        assert row["gain"] == pytest.approx(row["v2"] - row["v1"])


def test_every_part_of_the_monitoring_mix_is_a_benchmark_that_the_paper_reports():
    rows = paper.monitoring(FACTS)
    assert len(rows) == len(FACTS["training"]["monitoring"])
    assert all(row["reported"].startswith(FACTS["papers"]["prorl"]["arxiv"]) for row in rows)


# ---- nulls


def test_settings_that_nobody_states_are_null():
    silent = (
        "rollout_top_p loss_aggregation weight_decay adam_betas warmup grad_clip entropy_bonus precision "
        "termination_penalty max_prompt_tokens dynamic_sampling_of_graded_rewards"
    )
    for name in silent.split():
        assert FACTS["hyperparameters"][name] == {"value": None}
    assert FACTS["data_mix"]["sampling_weights"] is None
    assert FACTS["data"]["stem"]["verifier_during_training"] is None
    assert FACTS["data"]["logic"]["version"] is None
    assert FACTS["evaluation"]["livecodebench_window"] is None
    assert FACTS["ablations"]["clipping"]["other_values_tried"] is None


def test_undisclosed_lists_a_setting_until_somebody_states_it():
    rows = paper.undisclosed(FACTS)
    assert len({(row["section"], row["setting"]) for row in rows}) == len(rows)
    facts = changed("hyperparameters/weight_decay/value", 0.01)
    gone = [row for row in rows if row not in paper.undisclosed(facts)]
    assert gone == [{"section": "hyperparameters", "setting": "weight decay", "nearest": "DLER: 0.01"}]
    facts = changed("hyperparameters/clip_high/value", None)
    (new,) = [row for row in paper.undisclosed(facts) if row not in rows]
    assert new["setting"] == "clip high" and "NeMo-RL: 0.27" in new["nearest"]


# ---- later work, and the shapes that other code uses


def test_sentences_on_later_work_use_every_number_that_is_given_for_them():
    rows = paper.later_work(FACTS)
    for row, (name, entry) in zip(rows, FACTS["later_work"].items(), strict=True):
        given = {key for key in entry if key not in ("source", "confidence", "says")}
        assert set(re.findall(r"{(\w+)", entry["says"])) == given, name
        assert "{" not in row["says"] and row["by"]


def test_headline_scores_are_those_of_the_tables():
    tables, results = FACTS["tables"], FACTS["results"]
    cells = {
        "math": ("math", "average"),
        "code": ("code", "average"),
        "stem": ("stem_instruction_logic", "gpqa_diamond"),
        "logic": ("stem_instruction_logic", "reasoning_gym"),
        "instruction": ("stem_instruction_logic", "ifeval"),
    }
    assert set(cells) == set(results["domains"]) == set(FACTS["gains"]) == set(DOMAINS)
    for model in ("base", "trained"):
        for domain, (table, column) in cells.items():
            assert results["domains"][domain][model] == tables[table]["rows"][model][column]
        for task, row in results["ood"].items():
            assert row[model] == tables["stem_instruction_logic"]["rows"][model][task]
        logic = tables["reasoning_gym"]["rows"][model]["average"]
        assert logic == tables["stem_instruction_logic"]["rows"][model]["reasoning_gym"]


def test_rows_of_a_table_have_the_same_columns_and_known_models():
    for name, table in FACTS["tables"].items():
        columns = [set(row) for row in table["rows"].values()]
        assert all(column <= max(columns, key=len) for column in columns), name
        assert set(table["rows"]) <= set(FACTS["models"]), name


def test_eight_runs_use_the_rollouts_that_the_recipe_lists():
    schedule, recipe = FACTS["training"]["schedule"], FACTS["hyperparameters"]
    assert [run["run"] for run in schedule] == list(range(1, recipe["runs"]["value"] + 1))
    rollouts = [run["rollouts"] for run in schedule]
    steps = [n for place, n in enumerate(rollouts) if place == 0 or n != rollouts[place - 1]]
    assert steps == recipe["rollouts_per_prompt"]["value"]
    assert recipe["batch"]["value"] / recipe["mini_batch"]["value"] == recipe["updates_per_rollout"]["value"]
