"""What computes: micro-batches, bounded passes, trackers, and vLLM through TRL's own options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from stand_in_vllm import StandIn
from transformers import AutoTokenizer, set_seed
from trl import GRPOTrainer

from prorl_study.errors import StudyError
from prorl_study.params import EngineParams, build
from prorl_study.recipe import grpo_config
from prorl_study.rollout import Decoding
from prorl_study.trainer import ProRLTrainer
from prorl_study.training_log import tidy

ONE_UPDATE = replace(tiny.TRAIN, updates_per_rollout=1, kl_beta=0.01)


def trainer_with(folder: Path, engine: EngineParams, steps: int = 3, train=ONE_UPDATE) -> ProRLTrainer:
    model = tiny.save_model(folder / "model", 0)
    return ProRLTrainer(
        model=str(model),
        config=grpo_config(train, steps, folder / "out", 0, on_gpu=False, engine=engine),
        problems=tiny.problems(40),
        weights={"math": 1.0},
        floors={},
        judge=tiny.LetterJudge(),
        tokenizer=AutoTokenizer.from_pretrained(model),
        max_sampling_rounds=2,
        probe_every=1,
        pass_tokens=engine.pass_tokens,
    )


def trained(folder: Path, engine: EngineParams) -> ProRLTrainer:
    trainer = trainer_with(folder, engine)
    set_seed(0)
    trainer.train()
    return trainer


def logs(trainer: ProRLTrainer) -> list[dict]:
    return [log for log in trainer.state.log_history if "loss" in log]


@pytest.mark.parametrize(("micro_batch", "pass_tokens"), [(8, 0), (16, 40)])
def test_micro_batches_and_bounded_passes_train_as_one_whole_batch_does(tmp_path, micro_batch, pass_tokens):
    engine = EngineParams(micro_batch=micro_batch, pass_tokens=pass_tokens)
    whole, parts = trained(tmp_path / "whole", EngineParams()), trained(tmp_path / "parts", engine)
    assert parts.args.gradient_accumulation_steps == 64 // engine.micro_batch
    assert [log["kept/math"] for log in logs(parts)] == [log["kept/math"] for log in logs(whole)]
    for name in ("loss", "kl", "entropy"):
        ours, theirs = ([log[name] for log in logs(t)] for t in (parts, whole))
        assert ours == pytest.approx(theirs, abs=2e-5), name
    for ours, theirs in zip(parts.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


def test_no_more_tokens_pass_the_model_at_once_than_allowed(tmp_path, monkeypatch):
    passed = []
    trainer = trainer_with(tmp_path, EngineParams(micro_batch=16, pass_tokens=40), steps=1)
    one_pass = GRPOTrainer._get_per_token_logps_and_entropies

    def watched(self, model, input_ids, *arguments, **others):
        passed.append(input_ids.numel())
        return one_pass(self, model, input_ids, *arguments, **others)

    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", watched)
    trainer.train()
    assert passed and max(passed) <= 40


def test_the_kl_gradients_share_is_measured_on_a_micro_batch_too(tmp_path):
    shares = [log["kl_share"] for log in logs(trained(tmp_path, EngineParams(micro_batch=8)))]
    assert len(shares) == 3 and shares[0] < 1e-4 < shares[-1]


def test_a_micro_batch_that_does_not_divide_an_update_is_refused():
    with pytest.raises(StudyError, match=r"engine.micro_batch=7 must divide the 64 completions"):
        grpo_config(ONE_UPDATE, 1, Path("out"), 0, on_gpu=False, engine=EngineParams(micro_batch=7))


def test_trackers_are_passed_through_and_an_unknown_one_is_refused(monkeypatch):
    monkeypatch.setattr("transformers.integrations.get_available_reporting_integrations", lambda: ["wandb"])
    engine = EngineParams(report_to=["wandb"])
    assert grpo_config(ONE_UPDATE, 1, Path("out"), 0, False, engine=engine).report_to == ["wandb"]
    with pytest.raises(StudyError, match="engine.report_to: mlflow is not installed here or unknown"):
        grpo_config(ONE_UPDATE, 1, Path("out"), 0, False, engine=EngineParams(report_to=["mlflow"]))


def test_weights_stay_fp32_and_a_card_computes_under_bf16_autocast(tmp_path, monkeypatch):
    assert grpo_config(ONE_UPDATE, 1, tmp_path, 0, on_gpu=False).bf16 is False
    asked: dict = {}
    with monkeypatch.context() as patch:  # TRL itself refuses bf16 where there is no card
        patch.setattr("prorl_study.recipe.GRPOConfig", lambda **given: asked.update(given))
        grpo_config(ONE_UPDATE, 1, tmp_path, 0, on_gpu=True)
    assert asked["bf16"] and asked["gradient_checkpointing"] and not asked["use_cpu"]
    trainer = trainer_with(tmp_path / "t", EngineParams())
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    # what a bf16 weight of usual size makes of a step of 2e-6: nothing
    weight = torch.full((1000,), 0.02)
    assert (weight - 2e-6 != weight).all()
    assert ((weight.bfloat16() - torch.tensor(2e-6).bfloat16()) == weight.bfloat16()).all()


# ---- vLLM through TRL's options --------------------------------------------------------------------------


def test_vllm_is_configured_through_trls_own_options(monkeypatch):
    monkeypatch.setenv("SERVER", "http://node7:8000")
    engine = EngineParams(rollout_engine="vllm_server", vllm_server="$SERVER")
    config = grpo_config(ONE_UPDATE, 1, Path("out"), 0, False, engine=engine)
    assert config.use_vllm and config.vllm_mode == "server"
    assert config.vllm_server_base_url == "http://node7:8000"
    assert config.vllm_importance_sampling_correction
    assert config.vllm_importance_sampling_mode == "token_truncate"
    colocated = EngineParams(rollout_engine="vllm_colocate", vllm_memory=0.4)
    config = grpo_config(ONE_UPDATE, 1, Path("out"), 0, False, engine=colocated)
    assert config.vllm_mode == "colocate" and config.vllm_gpu_memory_utilization == 0.4


def test_a_server_that_no_variable_names_is_refused(monkeypatch):
    monkeypatch.delenv("SERVER", raising=False)
    engine = EngineParams(rollout_engine="vllm_server", vllm_server="$SERVER")
    with pytest.raises(StudyError, match="the environment has no such variable"):
        grpo_config(ONE_UPDATE, 1, Path("out"), 0, False, engine=engine)
    with pytest.raises(StudyError, match="the URL belongs to vllm_server alone"):
        build(EngineParams, {"vllm_server": "http://node7:8000"}, "params.yaml")


def test_rollouts_by_vllm_go_through_dynamic_sampling_and_log_the_importance_ratio(tmp_path, monkeypatch):
    monkeypatch.setattr("trl.trainer.grpo_trainer.VLLMGeneration", StandIn)
    trainer = trainer_with(tmp_path, EngineParams(rollout_engine="vllm_colocate"), steps=2)
    trainer.train()
    records = [tidy(log, number, "s1") for number, log in enumerate(logs(trainer), 1)]
    ratio = float(torch.tensor(StandIn.OFF).exp())
    for record in records:
        assert record["importance_ratio"] == pytest.approx(ratio, rel=1e-3)
        assert record["logp_difference"] == pytest.approx(StandIn.OFF, rel=1e-2)
        assert record["kept/math"] > 0 and record["step_size"] > 0
    engine = trainer.vllm_generation
    assert engine.synced == 2, "once a rollout step, however many rounds it samples in"
    found = trainer.answer([p.prompt for p in tiny.problems(3)], Decoding(0.6, 0.95), "check", 2)
    assert len(found) == 3 and engine.asked[-1] == (0.6, 3)
    assert engine.temperature == ONE_UPDATE.temperature, "validation's settings are put back"
