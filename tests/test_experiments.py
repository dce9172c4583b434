"""The long experiments as data: every run is one arm, base and seed, and arms differ by what they say."""

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from prorl_study import designs, evidence, experiments, params
from prorl_study.errors import StudyError

ROOT = Path(__file__).parents[1]
FILE = ROOT / "evidence" / "params.yaml"


@pytest.fixture(scope="module")
def study() -> params.Params:
    return params.load(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def plans(study) -> dict[str, experiments.RunPlan]:
    return experiments.load_plan(FILE, study)[0]


def changed(path: Path, change) -> Path:
    yaml = YAML()
    content = yaml.load(FILE)
    change(content)
    yaml.dump(content, path)
    return path


def test_every_run_has_a_target_of_its_own(plans):
    stages = YAML(typ="safe").load(ROOT / "evidence" / "dvc.yaml")["stages"]
    raw = YAML(typ="safe").load(FILE)
    assert set(stages) == {"bases", *raw["experiments"]}
    sizes = [
        len(body["arms"]) * len(body.get("variants", [1])) * len(body["bases"]) * len(body["seeds"])
        for body in raw["experiments"].values()
    ]
    gone = sum(len(body.get("diverged", [])) * len(body["seeds"]) for body in raw["experiments"].values())
    assert len(plans) == sum(sizes) - gone
    for name, body in raw["experiments"].items():
        arm = "${item.arm}.${item.variant}" if "variants" in body else "${item.arm}"
        assert stages[name]["matrix"].get("variant", []) == list(body.get("variants", []))
        place = name + f"-{arm}-" + "${item.base}-${item.seed}"
        assert stages[name]["cmd"] == f"prorl-study evidence {place}"
        assert list(stages[name]["outs"][0]) == [f"results/evidence/runs/{place}.json"]
    assert raw["made"] == [name for name, body in raw["bases"].items() if "model" not in body]


def test_dvc_knows_every_target_by_the_name_that_is_asked_for(plans):
    raw = YAML(typ="safe").load(FILE)
    listing = subprocess.run(
        ["dvc", "stage", "list", "--name-only", "evidence/dvc.yaml"],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    known = {line.rpartition(":")[2] for line in listing.stdout.split()}
    gone = {f"tuning@low_temperature-high-main-{seed}" for seed in raw["experiments"]["tuning"]["seeds"]}
    assert known == set(experiments.targets(plans, raw["bases"])) | gone


def test_the_runs_of_a_turn_go_seed_by_seed_and_a_base_is_made_before_it_is_used(plans):
    names = experiments.in_turn(plans)
    places = [(plans[name].turn, plans[name].seed) for name in names]
    assert sorted(names) == sorted(plans) and places == sorted(places)
    targets = experiments.targets(plans, YAML(typ="safe").load(FILE)["bases"])
    assert targets.index("bases@second") < targets.index("second_base@prorl-second-1")
    for plan in plans.values():
        if plan.times_of:
            assert names.index(plan.times_of) < names.index(plan.name), "it needs that run's times"
        if plan.teacher:
            assert names.index(plan.teacher) < names.index(plan.name), "it learns from what that run solved"


def test_an_arm_differs_from_the_full_recipe_by_what_it_says_and_by_nothing_else(plans, study):
    common = YAML(typ="safe").load(FILE)["common"]
    full = experiments.recipe(study.train, common["train"], "test")
    for plan in plans.values():
        said = {k: v for k, v in plan.factors.items() if k not in experiments.ARM_KEYS}
        assert asdict(plan.train) == asdict(full) | said
        if not plan.experiment.startswith("tuning"):
            assert sum(s.tokens for s in plan.segments) == common["tokens"]
        for segment in plan.segments:
            assert segment.reference == plan.factors.get("reference", "move")
            assert segment.optimizer == plan.factors.get("optimizer", "fresh")
            if plan.arm != "by_rule":
                assert segment.rule == "log", "at fixed times, so that arms reset alike"
        assert plan.segments[-1].rule == "log", "the last segment spends what is left"


def test_settings_are_tuned_on_seeds_that_no_result_is_reported_from(plans):
    tuned = {p.seed for p in plans.values() if p.experiment in designs.TUNINGS}
    assert tuned and not tuned & {p.seed for p in plans.values() if p.experiment not in designs.TUNINGS}


def test_every_arm_that_a_claim_is_judged_by_has_three_learning_rates_tried(plans):
    rates: dict[str, set[float]] = {}
    for plan in plans.values():
        if plan.experiment in designs.TUNINGS:
            rates.setdefault(plan.arm.partition(".")[0], set()).add(plan.train.learning_rate)
    judged = {p.arm for p in plans.values() if p.experiment in evidence.FOR_CLAIMS}
    # What has been tuned, at the recipe's rate once more.
    again = {"none"} | {arm for arm in judged if arm.endswith("_3e-4")}
    assert judged == set(rates) | again
    assert {p.train.learning_rate for p in plans.values() if p.arm in again} == {3e-4}
    counts = {arm: len(tried) for arm, tried in rates.items()}
    assert counts.pop("low_temperature") == 2, "the third diverged"
    assert all(count >= 3 for count in counts.values())


def test_what_chooses_a_rate_is_no_test_problem(plans):
    at_the_end = {name for name, (by, _) in designs.TUNINGS.items() if by == "end"}
    for plan in plans.values():
        assert (plan.judged_on == "validation") == (plan.experiment in at_the_end)
    supervised = {p.teacher for p in plans.values() if p.experiment in at_the_end and p.teacher}
    assert supervised == {f"tuning-prorl.middle-main-{seed}" for seed in (101, 102)}


def test_resets_at_another_seeds_times_are_where_that_seed_had_them(plans):
    plan = plans["reset_times-other_times-plateau-5"]
    assert plan.times_of == "reset-by_rule-plateau-1", "the seed after the last is the first"
    row = {"name": "x", "tokens_sampled": 200_000}
    row["boundaries"] = [{"tokens": 0}, {"tokens": 50_000}, {"tokens": 150_000}]
    there = experiments.at_times_of(plan, row)
    total = sum(s.tokens for s in plan.segments)
    assert [s.tokens for s in there.segments] == [total // 4, total // 2, total // 4]
    assert {(s.reference, s.optimizer) for s in there.segments} == {("move", "fresh")}
    with pytest.raises(StudyError, match="x had no boundary after its start"):
        experiments.at_times_of(plan, row | {"boundaries": [{"tokens": 0}]})


def test_arms_of_the_default_study_are_those_of_the_long_experiments_at_the_recipes_rate(study):
    arms = YAML(typ="safe").load(FILE)["arms"]
    for name, changes in study.arms.arms.items():
        assert changes == {key: value for key, value in arms[name].items() if key != "learning_rate"}


def test_seeds_that_are_reported_are_none_that_the_default_study_used(plans, study):
    assert study.seed not in {plan.seed for plan in plans.values()}


def test_a_budget_is_split_without_a_token_lost():
    parts = experiments.segments_of(1001, 3, {"bump": 3.0, "bump_steps": 2}, "test")
    assert sum(s.tokens for s in parts) == 1001 and {s.tokens for s in parts} <= {333, 334}
    assert [s.previous for s in parts] == ["base", "s1", "s2"]
    assert [s.bump for s in parts] == [1.0, 3.0, 3.0], "no boundary comes before the first segment"
    branched = experiments.segments_of(1001, 3, {"bump": 3.0, "bump_steps": 2}, "test", branched=True)
    assert [s.bump for s in branched] == [3.0, 3.0, 3.0]
    uneven = experiments.segments_of(1000, 3, {"lengths": [0.1, 0.9]}, "test")
    assert [s.tokens for s in uneven] == [100, 900]


def test_the_screening_is_a_half_fraction_of_resolution_five(plans):
    levels = np.array([[int(x) for x in p.arm] for p in plans.values() if p.experiment == "screening"])
    signs = 2 * levels - 1
    assert len({tuple(row) for row in levels.tolist()}) == 16
    effects = [signs[:, i] for i in range(5)] + [
        signs[:, i] * signs[:, j] for i in range(5) for j in range(i)
    ]
    gram = np.array(effects) @ np.array(effects).T
    assert (gram == 16 * np.eye(15)).all(), "each effect is estimated from 8 against 8, apart from all others"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c["experiments"]["recipe"]["arms"].append("porl"), "no such arm: porl; known: prorl"),
        (lambda c: c["experiments"]["recipe"]["bases"].append("big"), "no such base: big; known: main"),
        (lambda c: c["experiments"]["screening"]["arms"].append("01"), "must have a 0 or a 1 for each of"),
        (lambda c: c["arms"].update(prorl={"lengths": [0.5]}), "lengths=.0.5. must be positive shares"),
        (
            lambda c: c["experiments"]["tuning_rest"].update(judged_on="train"),
            "judged_on='train' must be test or validation",
        ),
        (
            lambda c: c["experiments"]["tuning_rest"].update(teacher="prorl.best"),
            "no experiment has arm prorl.best on base main with seed 101",
        ),
        (lambda c: c["arms"].update(prorl={"clip": 1.0}), "no such parameter: clip"),
        (lambda c: c["arms"].update(prorl={"reference": "moved"}), "reference='moved' must be one of"),
    ],
)
def test_a_mistake_in_the_plan_is_one_sentence(tmp_path, study, change, sentence):
    with pytest.raises(StudyError, match=sentence):
        experiments.load_plan(changed(tmp_path / "params.yaml", change), study)
