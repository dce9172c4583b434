"""The long experiments as data: every run is one arm, base and seed, and arms differ by what they say."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from prorl_study import experiments, params
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
    raw = YAML(typ="safe").load(FILE)["experiments"]
    assert set(stages) == set(raw)
    assert len(plans) == sum(len(x["arms"]) * len(x["bases"]) * len(x["seeds"]) for x in raw.values())
    for name, stage in stages.items():
        place = name + "-${item.arm}-${item.base}-${item.seed}"
        assert stage["cmd"] == f"prorl-study evidence {place}"
        assert list(stage["outs"][0]) == [f"results/evidence/runs/{place}.json"]


def test_an_arm_differs_from_the_full_recipe_by_what_it_says_and_by_nothing_else(plans):
    full = {p.base: p for p in plans.values() if p.arm == "prorl" and p.seed == 1}
    for plan in plans.values():
        prorl, changes = full[plan.base], plan.factors
        said = {k: v for k, v in changes.items() if k not in experiments.ARM_KEYS}
        assert asdict(plan.train) == asdict(prorl.train) | said
        assert sum(s.tokens for s in plan.segments) == sum(s.tokens for s in prorl.segments)
        for segment in plan.segments:
            assert segment.reference == changes.get("reference", "move")
            assert segment.optimizer == changes.get("optimizer", "fresh")
            assert segment.rule == "log", "at fixed times, so that arms reset alike"


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
        (lambda c: c["arms"].update(prorl={"clip": 1.0}), "no such parameter: clip"),
        (lambda c: c["arms"].update(prorl={"reference": "moved"}), "reference='moved' must be one of"),
    ],
)
def test_a_mistake_in_the_plan_is_one_sentence(tmp_path, study, change, sentence):
    with pytest.raises(StudyError, match=sentence):
        experiments.load_plan(changed(tmp_path / "params.yaml", change), study)
