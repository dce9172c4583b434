"""The page on ablations: what its comparisons, tables and sentences say of rows whose answers are known."""

import json
import re
from pathlib import Path
from zlib import crc32

import matplotlib.pyplot as plt
import numpy as np
import pytest

from prorl_study import (
    ablation_figures,
    ablations,
    comparisons,
    designs,
    evidence,
    experiments,
    figures,
    params,
)
from prorl_study.comparisons import Line, Panel

ROOT = Path(__file__).parents[1]
DOMAINS = ("math", "code", "stem", "logic", "instruction")
PER_DOMAIN, SAMPLES, SEGMENTS = 8, 8, 4
MARGINS = {"points": 2.0, "nats": 0.05, "doublings": 0.5}


def judged(percent: float, domains: dict[str, float] | None = None) -> dict:
    """An end where `percent` of each domain's samples is solved, the first problems of a domain first."""
    solved, strict = [], {}
    for domain in DOMAINS:
        right = round((domains or {}).get(domain, percent) / 100 * PER_DOMAIN * SAMPLES)
        strict[domain] = right / (PER_DOMAIN * SAMPLES)
        solved += [max(0, min(SAMPLES, right - SAMPLES * i)) for i in range(PER_DOMAIN)]
    return {"strict": strict, "graded": strict, "lenient": strict, "solved": solved}


def run(
    experiment: str, arm: str, percents: list[float], seed: int = 1, base: str = "main", **others
) -> dict:
    """A row whose segments end at `percents`; tokens come equally from the domains."""
    ends, flops = [], others.pop("flops", 1e12)
    domains = others.pop("domains", None)
    for i, percent in enumerate(percents, 1):
        place = {"segment": f"s{i}", "tokens": 60_000 * i, "flops": flops * i}
        place |= {"tokens_of": dict.fromkeys(DOMAINS, 12_000 * i), "samples": SAMPLES}
        place["problems_sha256"] = "these"
        ends.append(place | judged(percent, domains))
    row = {
        "name": f"{experiment}-{arm}-{base}-{seed}",
        "experiment": experiment,
        "arm": arm,
        "base": base,
        "seed": seed,
        "factors": {},
        "branched": False,
        "budget": 60_000 * len(percents),
        "tokens_sampled": ends[-1]["tokens"],
        "flops": ends[-1]["flops"],
        "start": judged(12.5),
        "ends": ends,
        "last": {"entropy": 0.1, "reward": 0.5},
        "curve": {"tokens": [0], "validation": [0.1]},
        "entropy_curve": {"tokens": [9_000, 18_000], "entropy": [0.2, 0.1]},
        "boundaries": [],
        "firings": [],
    }
    return row | others


@pytest.fixture(scope="module")
def planned():
    study = params.load(ROOT / "params.yaml")
    plan, bases = experiments.load_plan(ROOT / "evidence" / "params.yaml", study)
    return plan, list(bases)


def row_of(plan: experiments.RunPlan) -> dict:
    """A row for any planned run, different from arm to arm and from seed to seed."""
    wobble = crc32(plan.name.encode()) % 7
    level = 40 + 2 * (crc32(plan.arm.encode()) % 12) + wobble
    tokens = np.linspace(5_000, 235_000, 12)
    rise = level - (level - 12) * np.exp(-2e-5 * tokens)
    figures_at = {"kl": 0.01, "entropy": 0.2, "step_size": 0.3, "kl_share": 0.001}
    boundary = {"rule": "budget", "tokens": 0, "reference": "move", "optimizer": "fresh", "segment": "s1"}
    boundary |= {"before": figures_at, "after": figures_at | {"step_size": 0.6}}
    made = run(plan.experiment, plan.arm, [level / 2, level - 6, level - 2, level], plan.seed, plan.base)
    return made | {
        "factors": plan.factors,
        "branched": plan.branched,
        "curve": {"tokens": tokens.tolist(), "validation": (rise / 100).tolist()},
        "last": {"entropy": 0.1 + wobble / 100, "reward": 0.5, "kl_share": 0.002},
        "boundaries": [boundary] if plan.branched else [],
    }


def sections(rows, plan, bases):
    """Every section of the page as the notebook calls it: panels by name, and the other tables."""
    body = params.load_yaml(ROOT / "evidence" / "params.yaml")["experiments"]["screening"]
    cells = designs.kl_map(rows, 1, 20)
    fits = ablations.fits(rows)
    panels = {
        "recipe": ablations.recipe(rows),
        "fitted": ablations.fitted(fits),
        "tuned": ablations.tuned(rows),
        "parts": ablations.parts(rows),
        "screening": designs.screening(rows, body),
        "resets": ablations.resets(rows),
        "map": designs.map_panels(cells),
        "controls": ablations.controls(rows),
        "specialists": ablations.specialists(rows),
        "ladder": ablations.ladder(rows, bases, 1, 20),
    }
    tables = {"fits": fits, "map": cells, "boundaries": ablations.boundaries(rows)}
    return panels, tables | {"tuning": designs.tuning(rows, plan)}


# ---- intervals and words -------------------------------------------------------------------------------


def test_one_seed_has_no_interval_and_the_words_say_so():
    (line,) = comparisons.over_seeds("a", [3.0])
    assert (line.low, line.high) == (None, None)
    text = comparisons.said([Panel("x", "points", comparisons.SEEDS, [line])], MARGINS)
    assert "a +3.0, one seed, which does not tell how much seeds differ" in text and "n = 1):" in text


def test_a_loss_and_no_effect_are_worded_like_a_gain_and_in_the_panels_own_order():
    lines = [
        line
        for name, values in (("gain", [5, 5.2]), ("loss", [-5, -5.2]), ("nothing", [0.05, -0.05]))
        for line in comparisons.over_seeds(name, values)
    ]
    text = comparisons.said([Panel("x", "points", comparisons.SEEDS, lines)], MARGINS)
    assert re.findall(r"(gain|loss|nothing) [^;]*, (seen|opposite|no effect)", text) == [
        ("gain", "seen"),
        ("loss", "opposite"),
        ("nothing", "no effect"),
    ]


def test_an_interval_over_problems_holds_the_difference_of_scores_and_says_what_it_leaves_out():
    one, two = (run("laptop", arm, [percent]) for arm, percent in (("a", 62.5), ("b", 50.0)))
    (line,) = comparisons.over_problems("a", [(one["ends"][-1], two["ends"][-1])], 1, 200)
    assert line.value == pytest.approx(evidence.final_score(one) - evidence.final_score(two)) == 12.5
    assert line.low < line.value < line.high
    text = comparisons.said([Panel("x", "points", comparisons.PROBLEMS, [line])], MARGINS)
    assert "these trained models alone, not of other seeds" in text


def test_the_mean_of_several_pairs_is_taken_problem_by_problem():
    ends = [run("x", "a", [percent])["ends"][-1] for percent in (62.5, 50.0, 25.0)]
    (line,) = comparisons.over_problems("a", [(ends[0], ends[2]), (ends[1], ends[2])], 1, 50)
    assert line.value == pytest.approx(np.mean(line.values)) and line.values == [37.5, 25.0]


def test_models_judged_on_different_problems_are_not_compared():
    one, two = (run("x", "a", [50.0])["ends"][-1] for _ in range(2))
    two["problems_sha256"] = "others"
    with pytest.raises(ValueError, match="different problems"):
        comparisons.over_problems("a", [(one, two)], 1, 20)


def test_lenths_margins_are_those_of_the_worked_numbers():
    # median 1.5, so 1.5 * 1.5 * 2.5 = 5.6 cuts off the 20; the rest has median 1 and error 1.5
    own, largest = comparisons.lenth_margins([1, -1, 2, -20, 1, 2], level=0.95)
    assert own == pytest.approx(1.5 * 4.3027, rel=1e-4), "Student's t with 6 / 3 degrees of freedom"
    assert largest > own
    assert comparisons.lenth_margins([0.0, 0.0, 0.0]) == (0.0, 0.0)


# ---- sections ------------------------------------------------------------------------------------------


def test_the_rate_with_the_highest_late_validation_is_chosen_and_a_high_peak_before_does_not_count(planned):
    def tried(variant, rate, checks):
        return run("tuning", f"prorl.{variant}", [50], 101) | {
            "factors": {"learning_rate": rate},
            "curve": {"tokens": list(range(len(checks))), "validation": checks},
        }

    rows = [
        tried("low", 1e-4, [0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.40, 0.42]),
        tried("middle", 3e-4, [0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.50, 0.52]),
        tried("high", 9e-4, [0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.30, 0.32]),
    ]
    assert designs.tuned_rates(rows) == {"prorl": "middle"}
    second = [tried("middle", 3e-4, [0.1, 0.11]), tried("high", 9e-4, [0.1, 0.7])]
    assert designs.tuned_rates([*rows, *second]) == {"prorl": "high"}, "by the mean over seeds"
    (line,) = designs.tuning(rows, planned[0])
    assert line["tried"] == pytest.approx({1e-4: 41, 3e-4: 51, 9e-4: 31}) and line["best"] == 3e-4
    table = designs.tuning_table([line])
    assert table.iloc[0].tolist()[1:5] == ["checks", "41.0", "51.0 (best)", "31.0"]
    assert "may lie: no arm" in designs.tuning_said([line])
    assert "may lie: prorl" in designs.tuning_said(designs.tuning(rows[:2], planned[0])), "at the edge"


def test_an_arm_without_checks_is_tuned_by_what_it_solves_of_its_own_domains_at_its_end(planned):
    def tried(arm, variant, rate, scores, **factors):
        row = run("tuning_rest", f"{arm}.{variant}", [10, 50], 101)
        row["ends"][-1]["strict"] = dict(zip(DOMAINS, scores, strict=True))
        return row | {"factors": {"learning_rate": rate} | factors, "curve": {"tokens": [], "validation": []}}

    rows = [
        tried("filtered_sft", "low", 1e-4, [0.1, 0.1, 0.1, 0.1, 0.6]),
        tried("filtered_sft", "high", 9e-4, [0.4, 0.1, 0.1, 0.1, 0.1]),
        tried("math_only", "low", 1e-4, [0.1, 0.1, 0.1, 0.1, 0.6], domains=["math"]),
        tried("math_only", "high", 9e-4, [0.4, 0.1, 0.1, 0.1, 0.1], domains=["math"]),
    ]
    assert designs.tuned_rates(rows) == {"filtered_sft": "low", "math_only": "high"}
    supervised, math = designs.tuning(rows, planned[0])
    assert supervised["tried"] == pytest.approx({1e-4: 20, 9e-4: 16}) and math["tried"][9e-4] == 40


def test_an_arm_at_its_tuned_rate_is_set_against_itself_at_the_recipes():
    def tried(experiment, arm, percent, **factors):
        return [run(experiment, arm, [percent], seed, factors=factors, last={}) for seed in (1, 2)]

    rows = tried("parts", "none", 62.5, optimizer="keep")
    rows += tried("parts", "no_reset", 50.0, optimizer="keep", learning_rate=9e-4)
    rows += tried("controls", "filtered_sft", 62.5, learner="filtered", learning_rate=9e-4)
    rows += tried("controls", "filtered_sft_3e-4", 50.0, learner="filtered")
    rows += tried("ladder_rate", "prorl.low", 60.0, learning_rate=9e-4)
    (panel,) = ablations.tuned(rows)
    assert [(line.name, pytest.approx(line.value)) for line in panel.lines] == [
        ("filtered_sft", 12.5),
        ("no_reset", -12.5),
    ]
    assert ablations.tuned(rows[:2]) == [], "no arm has a rate of its own"


def test_the_recipe_is_compared_at_equal_tokens_and_at_equal_operations():
    rows = []
    for seed, gain in ((1, 12.5), (2, 25.0)):
        rows.append(run("recipe", "prorl", [25.0, 37.5 + gain], seed, flops=1e12))
        rows.append(run("recipe", "plain_grpo", [25.0, 50.0], seed, flops=1.5e12))
    tokens, operations = ablations.recipe(rows)
    assert [line.single for line in tokens.lines] == [True, True, False]
    assert tokens.lines[-1].values == [0.0, 12.5]
    # where prorl has spent 2e12, plain_grpo is a third of the way from 25 to 50 percent
    assert operations.lines[-1].values == pytest.approx([50 - 25 - 25 / 3, 62.5 - 25 - 25 / 3])
    both = ablations.recipe([*rows, *(row | {"base": "second", "experiment": "second_base"} for row in rows)])
    assert [line.name for line in both[0].lines if not line.single] == [
        "mean on main",
        "mean on second",
        "mean of all pairs",
    ]


def test_validation_checks_are_put_where_their_operations_were_spent():
    row = run("recipe", "prorl", [25.0, 50.0], flops=4e12)
    row["curve"] = {"tokens": [0, 30_000, 120_000], "validation": [0.1, 0.2, 0.3]}
    assert ablations.validation_curve(row)["flops"] == pytest.approx([0, 2e12, 8e12])


def test_asymptotes_and_rates_of_known_curves_are_found_and_paired():
    tokens = np.linspace(0, 240_000, 12)
    rows = []
    for arm, asymptote, rate in (("prorl", 0.6, 4e-5), ("plain_grpo", 0.5, 2e-5)):
        for seed in (1, 2):
            row = run("recipe", arm, [20, 30, 40, 50], seed)
            scores = asymptote - (asymptote - 0.1) * np.exp(-rate * tokens)
            row["curve"] = {"tokens": tokens.tolist(), "validation": scores.tolist()}
            rows.append(row)
    fits = ablations.fits(rows)
    assert len(fits) == 8
    first = next(fit for fit in fits if fit["arm"] == "prorl" and fit["x"] == "tokens")
    assert first["half"] == pytest.approx(np.log(2) / 4e-5, rel=1e-3)
    assert first["covered"] == pytest.approx(100 * (1 - np.exp(-4e-5 * 240_000)), rel=1e-3)
    asymptotes, rates = ablations.fitted(fits)
    assert [line.value for line in asymptotes.lines] == pytest.approx([10, 10], abs=0.05)
    assert [line.value for line in rates.lines] == pytest.approx([1, 1], abs=0.01), "one doubling"
    assert ablations.fitted([fit for fit in fits if fit["arm"] == "prorl"]) == []


def test_parts_are_compared_from_the_base_and_resets_from_the_plateau():
    rows = [run("recipe", "prorl", [62.5], seed) for seed in (1, 2)]
    rows += [run("parts", "no_reset", [50.0], seed) for seed in (1, 2)]
    plateau = {"base": "plateau", "branched": True}
    rows += [run("reset", "prorl", [25.0], seed) | plateau for seed in (1, 2)]
    rows += [run("reset", "none", [50.0], seed) | plateau for seed in (1, 2)]
    strict, entropy = ablations.parts(rows)
    assert [(line.name, line.value) for line in strict.lines] == [("minus no_reset", 12.5)]
    assert ablations.rates_said(rows, "parts") == ""
    rows[2] |= {"factors": {"learning_rate": 9e-4}}
    assert ablations.rates_said(rows, "parts").endswith("be that of the rates: no_reset (0.0009).")
    assert entropy.unit == "nats" and entropy.lines[0].value == 0
    assert [(line.name, line.value) for line in ablations.resets(rows)[0].lines] == [("prorl", -25.0)]


def test_boundaries_are_summed_up_by_what_changed_at_them_and_gaps_stay_gaps():
    def boundary(before, after, rule="budget", tokens=0):
        return {"rule": rule, "tokens": tokens, "before": before, "after": after}

    seen = [
        boundary({"step_size": 0.3, "entropy": 0.2}, {"step_size": 0.6, "entropy": 0.3, "kl": 0.01}),
        boundary({"step_size": 0.2, "entropy": 0.2}, {"step_size": 0.8, "entropy": 0.5}, "stalled", 390),
        boundary({"entropy": 0.2}, {}, "stalled", 810),  # the rule fired in the step that spent the budget
    ]
    rows = [run("reset", "by_rule", [50], base="plateau", branched=True, boundaries=seen, budget=1200)]
    (line,) = ablations.boundaries(rows)
    assert line["boundaries"] == 3 and line["by_rule"] == 1
    assert line["step_ratio"] == pytest.approx(3) and line["kl_after"] == pytest.approx(0.01)
    assert line["entropy_after"] == pytest.approx(0.4)
    rows[0]["boundaries"] = [boundary({}, {})]
    (line,) = ablations.boundaries(rows)
    assert line["kl_after"] is None and line["step_ratio"] is None


def test_times_of_resets_that_hardly_differ_are_said_to_show_nothing():
    def of(arm, *tokens):
        seen = [{"rule": "budget", "tokens": t, "before": {}, "after": {}} for t in tokens]
        return run("reset", arm, [50], base="plateau", branched=True, boundaries=seen, budget=300)

    near = [of("prorl", 0, 100, 200), of("by_rule", 0, 90, 200), of("other_times", 0, 90, 170)]
    said = ablations.times_said(near)
    assert "at most 10% of a segment" in said and "at most 30% from" in said and "cannot show" in said
    assert "cannot show" not in ablations.times_said([*near[:2], of("other_times", 0, 90, 270)])
    assert ablations.times_said(near[:2]) == ""


def test_screening_finds_the_effects_that_were_put_in_and_needs_every_run():
    factors = ["clip", "dynamic_sampling", "kl", "reset", "temperature"]
    body = params.load_yaml(ROOT / "evidence" / "params.yaml")["experiments"]["screening"]
    assert list(body["factors"]) == factors

    def score(arm):
        signs = {name: 2 * int(level) - 1 for name, level in zip(factors, arm, strict=True)}
        return 50 + 6.25 * signs["kl"] - 12.5 * signs["clip"] * signs["reset"]

    rows = [run("screening", arm, [score(arm)]) for arm in body["arms"]]
    strict, entropy = designs.screening(rows, body)
    found = {line.name: line.value for line in strict.lines}
    assert len(found) == 15
    assert found.pop("kl") == pytest.approx(12.5) and found.pop("clip:reset") == pytest.approx(-25)
    assert list(found.values()) == pytest.approx([0] * 13, abs=1e-9)
    text = designs.screening_said([strict, entropy])
    assert text.startswith("Of 15 effects on strict score (points), 2 leave the noise")
    assert "(kl +12.5 [+12.5, +12.5]; clip x reset -25.0 [-25.0, -25.0])" in text
    assert designs.screening(rows[:-1], body) == []
    assert designs.levels(body)[0] == {"factor": "clip", "0": "clip_high 0.2", "1": "clip_high 0.4"}


def test_the_map_compares_each_cell_with_the_same_strength_without_resets():
    def cell(arm, variant, percent, kl):
        return run("map", f"{arm}.{variant}", [percent]) | {"factors": {"kl_beta": kl}}

    rows = [
        cell("kl_1e-2", "never", 50.0, 1e-2),
        cell("kl_1e-2", "thrice", 37.5, 1e-2) | {"last": {"entropy": 0.1, "kl_share": 0.02}},
        cell("kl_1", "once", 25.0, 1.0),
        cell("kl_1e-3", "never", 50.0, 1e-3),
        cell("kl_1e-3", "thrice", 62.5, 1e-3),
        run("recipe", "prorl", [100.0]),
    ]
    cells = {(cell["kl"], cell["resets"]): cell for cell in designs.kl_map(rows, 1, 50)}
    assert list(cells) == [
        (1e-3, "never"),
        (1e-3, "thrice"),
        (1e-2, "never"),
        (1e-2, "thrice"),
        (1.0, "once"),
    ]
    assert cells[1e-3, "thrice"]["line"].value == 12.5
    assert cells[1e-2, "thrice"]["line"].value == -12.5 and cells[1e-2, "thrice"]["kl_share"] == 0.02
    assert cells[1.0, "once"]["line"] is None and cells[1.0, "once"]["score"] == 25.0
    text = comparisons.signs(designs.map_panels(list(cells.values())))
    assert "above zero in 1 of 2 cases" in text
    assert "above zero in 1 (KL 0.001, thrice +12.5 [" in text
    assert "below it in 1 (KL 0.01, thrice -12.5 [" in text
    assert designs.kl_map(rows[5:], 1, 50) == []


def test_a_control_is_measured_from_its_own_start_in_both_readings():
    rows = [run("controls", "format_reward", [25.0], seed) for seed in (1, 2)]
    for row in rows:
        row["ends"][-1]["lenient"] = row["start"]["lenient"]
    strict, lenient = ablations.controls([*rows, run("recipe", "prorl", [50.0])])
    assert [(line.name, line.value) for line in strict.lines] == [("prorl", 37.5), ("format_reward", 12.5)]
    assert [(line.name, line.value) for line in lenient.lines] == [("prorl", 37.5), ("format_reward", 0.0)]
    assert ablations.controls([run("recipe", "prorl", [50.0])]) == []


def test_a_specialist_is_read_off_at_the_generalists_tokens_of_its_domain():
    generalist = run("recipe", "prorl", [25.0, 50.0])  # 24,000 tokens of math at its end
    specialist = run("specialists", "math_only", [50.0, 75.0])
    for i, end in enumerate(specialist["ends"], 1):
        end["tokens_of"] = {"math": 60_000 * i}
    total, equal = ablations.specialists([generalist, specialist])
    assert [line.value for line in total.lines] == [37.5 - 62.5]
    # 24,000 of 60,000 tokens: two fifths of the way from 12.5 to 50 percent
    assert [line.value for line in equal.lines] == pytest.approx([37.5 - 15.0])
    specialist["ends"][-1]["tokens_of"] = specialist["ends"][0]["tokens_of"] = {"math": 20_000}
    with pytest.raises(ValueError, match="has sampled 20000 tokens of math"):
        ablations.specialists([generalist, specialist])


def test_the_ladder_counts_the_bases_on_which_the_sign_holds():
    rows = [
        run("ladder", arm, [percent], base=base)
        for base, arm, percent in (
            ("tiny", "prorl", 50.0),
            ("tiny", "plain_grpo", 25.0),
            ("large", "prorl", 25.0),
            ("large", "plain_grpo", 50.0),
        )
    ]
    gains, over_plain = ablations.ladder(rows, ["main", "large", "tiny"], 1, 50)
    assert [(line.name, line.value) for line in gains.lines] == [("large", 12.5), ("tiny", 37.5)]
    assert [(line.name, line.value) for line in over_plain.lines] == [("large", -25.0), ("tiny", 25.0)]
    assert "above zero in 1 of 2 cases" in comparisons.signs([over_plain])
    slower = {"base": "large", "factors": {"learning_rate": 1e-4}}
    rows += [
        run("ladder_rate", f"{arm}.low", [p]) | slower for arm, p in (("prorl", 75.0), ("plain_grpo", 50.0))
    ]
    over_plain = ablations.ladder(rows, ["main", "large", "tiny"], 1, 50)[1]
    assert [(line.name, line.value) for line in over_plain.lines] == [
        ("large", -25.0),
        ("large at 0.0001", 25.0),
        ("tiny", 25.0),
    ]


def test_the_default_studys_arms_are_read_from_their_folder(tmp_path):
    assert ablations.load_laptop(tmp_path) == []
    (tmp_path / "arms").mkdir()
    for arm, percent in (("prorl", 50.0), ("plain_grpo", 62.5)):
        (tmp_path / "arms" / f"{arm}.json").write_text(json.dumps(run("laptop", arm, [percent])))
    (panel,) = ablations.laptop(ablations.load_laptop(tmp_path), 1, 50)
    assert [(line.name, line.value) for line in panel.lines] == [("minus plain_grpo", -12.5)]


# ---- the page as a whole -------------------------------------------------------------------------------


def test_progress_counts_planned_runs_and_what_is_missing_is_named_with_its_command(planned):
    plan, _ = planned
    rows = [row_of(run) for run in plan.values() if run.experiment == "recipe"]
    lines = {line["experiment"]: line for line in ablations.progress(plan, rows)}
    assert lines["recipe"]["done"] == lines["recipe"]["planned"] == len(rows) > 0
    assert sum(line["planned"] for line in lines.values()) == len(plan) and lines["parts"]["done"] == 0
    text = ablations.missing(plan, rows, "recipe", "parts")
    assert "`dvc repro evidence/dvc.yaml:parts@no_reset-main-1`" in text and "`make evidence`" in text


@pytest.mark.parametrize("left_out", ["", "recipe", "parts", "controls", "reset", "map", "second_base"])
@pytest.mark.parametrize("seeds", [[1], [1, 2, 101]])
def test_any_subset_of_experiments_and_seeds_gives_a_page_that_can_be_written(planned, left_out, seeds):
    plan, bases = planned
    rows = [row_of(run) for run in plan.values() if run.experiment != left_out and run.seed in seeds]
    panels, tables = sections(rows, plan, bases)
    worded = {name: comparisons.said(found, MARGINS) for name, found in panels.items() if name != "screening"}
    assert "nan" not in " ".join([*worded.values(), ablations.finding(plan, rows, panels["recipe"], MARGINS)])
    json.dumps(comparisons.plain([panels, tables]), allow_nan=False)


def test_every_experiment_has_a_section_and_none_has_one_without_runs(planned):
    plan, bases = planned
    panels, tables = sections([row_of(run) for run in plan.values()], plan, bases)
    assert all(panels.values()) and all(tables.values())
    panels, tables = sections([], plan, bases)
    assert not any(panels.values()) and not any(tables.values())
    assert ablations.finding(plan, [], [], MARGINS).startswith(f"0 of {len(plan)} long runs are done; no")


def test_the_finding_is_the_mean_of_all_pairs_and_not_of_one():
    rows = [
        run("recipe", arm, [p + seed], seed)
        for arm, p in (("prorl", 50), ("plain_grpo", 50))
        for seed in (1, 2)
    ]
    text = ablations.finding({}, rows, ablations.recipe(rows), MARGINS)
    assert text.count("mean of all pairs") == 2 and "seed 1" not in text


# ---- figures -------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(planned):
    figures.use_style()
    plan, bases = planned
    rows = [row_of(run) for run in plan.values()]
    panels, tables = sections(rows, plan, bases)
    curves = [row | ablations.validation_curve(row) for row in rows if row["experiment"] in ablations.RECIPE]
    yield {
        "forest": lambda: ablation_figures.forest(panels["parts"], MARGINS),
        "effects": lambda: ablation_figures.effects(panels["screening"]),
        "heat_map": lambda: ablation_figures.heat_map(tables["map"]),
        "learning_curves": lambda: ablation_figures.learning_curves(curves, tables["fits"]),
    }
    plt.close("all")


@pytest.mark.parametrize("name", ["forest", "effects", "heat_map", "learning_curves"])
def test_figures_repeat_byte_for_byte_and_label_their_axes(drawn, name):
    fig = drawn[name]()
    assert all(axis.get_xlabel() or axis.get_ylabel() for axis in fig.axes)
    assert figures.png(fig) == figures.png(drawn[name]())


def test_a_forest_draws_each_interval_at_its_place_in_the_colour_of_its_side():
    lines = [
        Line("up", 3.0, 1.0, 5.0, [3.0]),
        Line("down", -3.0, -5.0, -1.0, [-3.0]),
        Line("one", 2.0, None, None, [2]),
    ]
    fig = ablation_figures.forest([Panel("x", "points", comparisons.SEEDS, lines)], MARGINS)
    drawn = {tuple(np.ravel(line.get_xdata())): line.get_color() for line in fig.axes[0].lines}
    assert drawn[1.0, 5.0] == figures.VERDICT_COLOURS["seen here"]
    assert drawn[-5.0, -1.0] == figures.VERDICT_COLOURS["opposite here"]
    assert [text.get_text() for text in fig.axes[0].get_yticklabels()] == ["up", "down", "one"]
    plt.close(fig)
