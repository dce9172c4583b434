"""The checks for a card, on a CPU and a tiny model: all of them run, and what must be equal is."""

import json
import math

import pytest
from stand_in_vllm import StandIn

from prorl_study import gpu_check, gpu_check_vllm
from prorl_study.errors import StudyError

TINY = gpu_check.Sizes(
    architecture=gpu_check.ARCHITECTURE
    | {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    },
    lengths=((24, 8), (48, 2)),
    matmul=64,
    segment_layers=1,
    segment_tokens=18_000,
    drift_rows=2,
    drift_tokens=32,
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """All checks but the segments, which take a minute; their place says that they failed."""
    folder = tmp_path_factory.mktemp("gpu-check")

    def fail(*_):
        raise StudyError("no room")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_check, "segments", fail)
        found = gpu_check.check(folder, TINY, folder / "gpu_check.json")
    assert json.loads((folder / "gpu_check.json").read_text()) == found
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return gpu_check.segments(tmp_path_factory.mktemp("segments"), TINY)


def test_a_check_that_fails_says_so_and_the_others_go_on(report):
    assert report["segments"] == {"failed": "StudyError: no room"}
    assert not any("failed" in part for name, part in report.items() if name != "segments")


def test_a_step_is_measured_at_each_length_with_fp32_weights(report):
    for length, rollouts in TINY.lengths:
        step = report[f"training_step_{length}"]
        assert (step["completion_tokens"], step["rollouts"]) == (length, rollouts)
        assert step["weights_dtype"] == "float32"
        assert step["tokens_per_second"] > 0
        assert step["share_of_matmul_rate"] > 0


@pytest.mark.slow
def test_a_reset_moves_the_reference_and_keeping_does_not(trained):
    reset = trained["reset"]
    assert reset["reference_is_previous_policy"]
    assert reset["kept_reference_is_base"]
    assert reset["kl_of_first_step"]["reset"] < reset["kl_of_first_step"]["kept"]


@pytest.mark.slow
def test_a_killed_segment_ends_as_if_it_had_not_been(trained):
    resume = trained["resume"]
    assert resume["weights_identical"]
    assert resume["log_identical"]
    before, after = resume["steps_before_the_kill_and_after"]
    assert before >= 2
    assert after >= 1
    assert before + after >= trained["steps"]


def test_a_step_of_the_papers_size_is_lost_in_bf16_weights(report):
    moved = report["small_step"]["moved_share"]
    assert moved["float32"] > 0.999
    assert moved["bfloat16"] < 0.1


def test_autocast_moves_log_probabilities_more_than_nothing(report):
    assert 0 < report["drift"]["bf16_autocast"]["mean"] < 0.1
    assert 0 < report["drift"]["bf16_weights"]["mean"] < 0.1


def test_without_a_card_or_vllm_its_parts_say_that_they_were_left_out(report):
    for name in ("vllm_rollouts", "vllm_evaluation"):
        assert report[name] == {"left_out": "no vLLM here, or no card"}


def test_vllms_rollouts_are_measured_with_their_importance_ratio_by_step(tmp_path, monkeypatch):
    monkeypatch.setattr("trl.trainer.grpo_trainer.VLLMGeneration", StandIn)
    gpu_check.save_model(tmp_path / "model", TINY.architecture)
    found = gpu_check_vllm.rollouts(tmp_path / "model", gpu_check_vllm.Work(2, 4, 16, micro_batch=4, steps=3))
    assert found["seconds_per_rollout_step"] > 0
    ratios, kls = ([step[name] for step in found["by_step"]] for name in ("importance_ratio", "kl"))
    assert ratios == pytest.approx([math.exp(StandIn.OFF)] * 3, rel=1e-3)
    assert kls[0] == 0 < kls[1] < kls[2]  # the weights have moved, and the ratio has stayed


def test_without_a_card_the_check_says_so():
    with pytest.raises(StudyError, match="no CUDA card"):
        gpu_check.main([])
