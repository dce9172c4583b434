"""What a run costs: the arithmetic by hand, its properties, and the pages that quote it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from prorl_study import cards, cli, params, planning
from prorl_study.errors import StudyError

ROOT = Path(__file__).parents[1]
NOWHERE = Path("no gpu_check.json")
DEEPSEEK = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"


@pytest.fixture(scope="module")
def day():
    return cli.of_profile("gpu_day", ROOT)


def of_stage(costs, name: str) -> planning.Cost:
    return next(cost for cost in costs if cost.stage == name)


def total(costs, name: str = "hours") -> float:
    return sum(getattr(cost, name) for cost in costs)


# ---- by hand -----------------------------------------------------------------------------------------------


def test_models_have_the_weights_that_their_makers_count():
    assert cards.MODELS[DEEPSEEK].weights == 1_777_088_000
    assert cards.MODELS[DEEPSEEK].passed == 1_777_088_000 - 151_936 * 1_536
    assert cards.MODELS["Qwen/Qwen2.5-0.5B-Instruct"].weights == 494_032_768
    embedded = cards.model_of(cli.of_profile("laptop", ROOT)).weights
    counted = json.loads((ROOT / "results" / "base_model.json").read_text())["parameters"]
    assert embedded == pytest.approx(counted, rel=1e-3)


def test_a_segment_costs_what_a_sum_by_hand_says(day):
    train = replace(
        day.train,
        domains=["math"],
        curriculum=[],
        prompts_per_step=10,
        rollouts_per_prompt=4,
        max_completion_tokens=100,
        validation_prompts=20,
        validate_every=5,
    )
    segments = {"s1": replace(day.segments["s1"], tokens=204_000, rule="log")}
    machine = cards.Machine("one", 80.0, 1000.0, rate=1000.0, tflops=2.0)
    guess = planning.Guess(answer=0.5, informative=0.4)
    costs = planning.estimate(replace(day, train=train, segments=segments), machine, guess)
    found, size = of_stage(costs, "train_s1"), cards.MODELS[DEEPSEEK].passed
    # 40 answers of 50 tokens are trained on, 100 are drawn, and 4 validate: 104 answers of 50 tokens a step
    steps = 204_000 / (104 * 50)
    trained = steps * 40 * (50 + 200)
    prompts = steps * (100 / 4 + 4) * 200
    sampling, training = 2 * size * (204_000 + prompts), 10 * size * trained  # 2 old, 2 reference, 6 loss
    seconds = 204_000 / 1000 + training / 2e12 + steps * planning.STEP_SECONDS
    assert found.steps == pytest.approx(steps) and found.trained == pytest.approx(trained)
    assert found.flops == pytest.approx(sampling + training)
    assert found.hours == found.card_hours == pytest.approx(seconds / 3600)


def test_memory_is_twenty_bytes_a_weight_and_what_moves_through_it(day):
    found, size = cards.memory(day, cards.H100), 1.777088
    assert found["weights"] == found["gradients"] == found["reference"] == pytest.approx(4 * size)
    assert found["AdamW"] == pytest.approx(8 * size) and found["bf16 copy"] == pytest.approx(2 * size)
    assert found["vLLM"] == pytest.approx(0.3 * 80)
    rows = 8 * (2048 + 200)
    assert found["micro-batch"] == pytest.approx(rows * (28 * 1536 * 4 + 2 * (8 * 8960 + 40 * 1536)) / 1e9)
    plain = replace(day, train=replace(day.train, kl_beta=0.0))
    assert cards.memory(plain, cards.H100)["reference"] == 0


def test_answers_are_those_that_the_stages_draw(day):
    # MATH-500 and Reasoning Gym 300 each, OlympiadBench 60 as hard, 150 held out, 100 and 20 a domain
    every = 2 * 300 + 60 + 150 + 200 + 40
    base = every * 17 + 1 * 200 * 8 + 600 * 8
    assert planning.benchmark_answers(day) == base + 3 * (every * 9 + 60 * 8)
    assert planning.gate_answers(day) == 2 * 50 * 17
    deep = 3 * 2 * (32 * 2 + 32) * 64  # three models, two temperatures, two domains of test and one of hard
    assert planning.boundary_answers(day) == deep + 2 * 1 * 200 * 8
    assert planning.arm_answers(day) == 2 * 100 * 4


def test_answers_of_the_embedded_study_are_those_that_were_drawn():
    import pandas as pd

    study = cli.of_profile("laptop", ROOT)
    tables = [pd.read_csv(path) for path in (ROOT / "results" / "counts").glob("*.csv")]
    drawn = sum(int(table.n.sum()) for table in tables)
    wrong = drawn / planning.benchmark_answers(study)
    assert 0.9 < wrong <= 1.0, "the plan takes the base's best temperature to be another one in every domain"


# ---- properties --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpu_day", "gpu_small", "gpu", "cluster"])
def test_more_tokens_cost_more_and_a_faster_machine_less(name):
    study = cli.of_profile(name, ROOT)
    machine = cards.machine_of(study, NOWHERE)
    costs = planning.estimate(study, machine)
    longer = {key: replace(one, tokens=one.tokens * 2) for key, one in study.segments.items()}
    for field in ("hours", "flops", "steps", "trained", "sampled"):
        more = planning.estimate(replace(study, segments=longer), machine)
        assert total(more, field) > total(costs, field)
    assert total(planning.estimate(study, replace(machine, rate=2 * machine.rate))) < total(costs)
    assert total(planning.estimate(study, replace(machine, sheet_tflops=2e4))) < total(costs)
    one_more = replace(study.arms, arms={**study.arms.arms, "low": {"temperature": 0.6}})
    assert total(planning.estimate(replace(study, arms=one_more), machine)) > total(costs)


def test_an_arm_that_differs_at_boundaries_alone_goes_on_from_the_first_segment(day):
    machine = cards.H100
    with_arm = {
        name: planning.estimate(replace(day, arms=replace(day.arms, arms={name: body})), machine)
        for name, body in {
            "no_reset": {"reference": "keep", "optimizer": "keep"},
            "same_recipe": {"temperature": 1.1},
        }.items()
    }
    apart = total(with_arm["same_recipe"]) - total(with_arm["no_reset"])
    assert apart == pytest.approx(of_stage(with_arm["no_reset"], "train_s1").hours)


def test_shards_make_a_card_hold_less_and_a_server_takes_its_cache_away():
    study = cli.of_profile("cluster", ROOT)
    machine = cards.machine_of(study, NOWHERE)
    whole = replace(study, engine=replace(study.engine, launcher=""))
    sharded, alone = cards.memory(study, machine), cards.memory(whole, machine)
    assert sharded["AdamW"] == alone["AdamW"] / 8 and sharded["vLLM"] == 0
    assert sum(sharded.values()) < sum(alone.values())


def test_what_a_day_promises_holds_in_the_worst_case_too():
    for name, most in (("gpu_day", 24), ("gpu_small", 24)):
        study = cli.of_profile(name, ROOT)
        machine = cards.machine_of(study, NOWHERE)
        each = zip(*(planning.estimate(study, machine, guess) for guess in planning.WORST), strict=True)
        assert sum(max(cost.hours for cost in same) for same in each) < most
        assert sum(cards.memory(study, machine).values()) < 0.95 * machine.memory_gb
        assert list(study.arms.arms) == ["plain_grpo"]


def test_cluster_has_the_papers_numbers():
    study = cli.of_profile("cluster", ROOT)
    paper = params.load_yaml(ROOT / "prorl_study" / "paper.yaml")["hyperparameters"]
    train = study.train
    found = {phase.get("rollouts_per_prompt") for phase in train.curriculum} - {None}
    assert (train.prompts_per_step, train.rollouts_per_prompt, found) == (256, 16, {32, 16})
    assert (train.updates_per_rollout, train.learning_rate) == (4, 2e-6)
    assert (train.max_completion_tokens, train.curriculum[-1]["max_completion_tokens"]) == (8192, 16384)
    assert (train.clip_low, train.clip_high, train.temperature) == (0.2, 0.4, 1.2)
    costs = planning.estimate(study, cards.machine_of(study, NOWHERE))
    assert paper["steps"]["value"] == "more than 2000" and 2000 < total(costs, "steps") < 2450
    last = sum(s.tokens for s in study.segments.values()) - train.curriculum[-1]["tokens"]
    drawn = 256 * 16 * 0.61 * 16384 / planning.LIKELY.informative
    assert last / drawn == pytest.approx(200, rel=0.15), "run 8 has some 200 steps"


# ---- where numbers are from --------------------------------------------------------------------------------


def test_a_measured_rate_takes_the_place_of_the_assumed_one(day, tmp_path):
    path = tmp_path / "gpu_check.json"
    checked = {
        "machine": {"card": "a card", "memory_gb": 79.2, "matmul_tflops": 600.0},
        "training_step_2048": {"completion_tokens": 2048, "model_tflops": 111.0},
        "training_step_8192": {"completion_tokens": 8192, "model_tflops": 99.0},
    }
    path.write_text(json.dumps(checked))
    machine = cards.machine_of(day, path, rate=4321.0)
    assert (machine.training_tflops, machine.rate, machine.card) == (111.0, 4321.0, "a card")
    said = planning.report(day, path, rate=4321.0)
    assert "training at 111 TFLOPS a card (measured by make gpu-check)" in said
    assert "4,321 answer tokens a second and card by vLLM (yours)" in said
    path.write_text(json.dumps(checked | {"machine": {"card": "none"}}))
    assert cards.machine_of(day, path) == cards.H100, "a check on a CPU says nothing about cards"
    path.write_text(json.dumps(checked | {"training_step_2048": {"failed": "out of memory"}}))
    assert cards.machine_of(day, path).training_tflops == 99.0


def test_a_local_base_is_planned_by_its_configuration_and_an_unknown_one_is_refused(day, tmp_path):
    from prorl_study.gpu_check import ARCHITECTURE

    (tmp_path / "config.json").write_text(json.dumps({**ARCHITECTURE, "model_type": "qwen2"}))
    local = replace(day, origin=replace(day.origin, base=str(tmp_path), revision=""))
    assert cards.model_of(local) == cards.MODELS[DEEPSEEK]
    unknown = replace(day, origin=replace(day.origin, base="no/such-model"))
    with pytest.raises(StudyError, match="the sizes of no/such-model are not known"):
        planning.report(unknown, NOWHERE)
    strange = replace(day, origin=replace(day.origin, benchmark_sets=["math501"]))
    with pytest.raises(StudyError, match="no such benchmark: math501"):
        planning.report(strange, NOWHERE)


def test_planning_needs_no_torch():
    code = "import sys; from prorl_study import planning; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# ---- the command and the pages -----------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the committed parameters and profiles, and without results."""
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_profile_is_planned_without_switching_to_it(project, capsys):
    before = (project / "params.yaml").read_bytes()
    assert cli.main(["plan", "--profile", "gpu_day"]) == 0
    there = capsys.readouterr().out
    assert (project / "params.yaml").read_bytes() == before
    cli.switch_profile("gpu_day", project)
    assert cli.main(["plan"]) == 0
    assert capsys.readouterr().out.endswith(there), "the run cards, and below them the same"
    assert cli.main(["plan", "--profile", "gpu_dya"]) == 1
    assert "no such profile: gpu_dya" in capsys.readouterr().err


def test_the_embedded_study_is_reckoned_as_long_as_it_has_not_run(project, capsys):
    assert cli.main(["plan"]) == 0
    printed = capsys.readouterr().out
    assert "not yet" in printed and "sampled M" in printed and "GPU-hours" not in printed


@pytest.mark.parametrize("name", ["gpu_day", "gpu_small", "gpu", "cluster"])
def test_a_page_quotes_the_plan_of_its_profile(name, project):
    (quoted,) = [
        found
        for page in ROOT.glob("docs/*.md")
        for found in re.findall(rf"<!-- plan {name} -->\n```\n(.*?)\n```", page.read_text(), re.DOTALL)
    ]
    assert quoted == cli.plan(project, name)


def test_the_page_of_cluster_quotes_what_a_lower_rate_makes_of_it(project):
    said = planning.report(cli.of_profile("cluster", project), NOWHERE, rate=3000.0)
    (hours,) = re.findall(r"training and sampling: ([\d,]+),", said)
    assert f"{hours} GPU-hours" in (ROOT / "docs" / "cluster.md").read_text().replace("\n", " ")
