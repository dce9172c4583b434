"""A base from elsewhere goes through the stages: any architecture, vocabulary and tokenizer, as fp32."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from prorl_study import base_model, given_base, samplers, segments
from prorl_study.domains import DOMAINS
from prorl_study.errors import StudyError
from prorl_study.files import read_log, write_json
from prorl_study.params import SegmentParams
from prorl_study.sampling import Sampler
from prorl_study.token_entropy import token_entropy

VOCABULARY = 152_000
"""As large as Qwen's."""


def save_stranger(folder: Path, template: bool = False, context: int = 512) -> Path:
    """A Llama of random bf16 weights with a large vocabulary, which is no chat model without `template`."""
    texts = ["say 0123456789 abcdefghijklmnopqrstuvwxyz" * 3]
    tokenizer = base_model.build_tokenizer(texts, 300)
    if not template:
        tokenizer.chat_template = None
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=context,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    ).to(torch.bfloat16)
    model.generation_config.temperature = 0.1
    model.generation_config.do_sample = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def taken(tmp_path_factory) -> tuple[Path, given_base.Taken]:
    root = tmp_path_factory.mktemp("given")
    found = given_base.take(str(save_stranger(root / "stranger")), "", 64, root / "base")
    return root, found


def test_weights_are_saved_as_fp32_with_the_values_they_came_with(taken):
    root, found = taken
    ours = AutoModelForCausalLM.from_pretrained(root / "base")
    theirs = AutoModelForCausalLM.from_pretrained(root / "stranger")
    assert ours.dtype == torch.float32 and theirs.dtype == torch.bfloat16
    assert all(torch.equal(p, q.float()) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert found.vocabulary == VOCABULARY and found.parameters == ours.num_parameters()


def test_a_model_without_a_chat_template_is_asked_as_the_question_stands_and_how_it_samples_is_not_kept(
    taken,
):
    root, found = taken
    tokenizer = AutoTokenizer.from_pretrained(root / "base")
    question = [{"role": "user", "content": "say 7"}]
    assert not found.own_template and found.end == tokenizer.eos_token
    asked = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    assert asked == "say 7\n"
    settings = json.loads((root / "base" / "generation_config.json").read_text())
    assert "temperature" not in settings and settings["eos_token_id"] == tokenizer.eos_token_id


def test_a_chat_model_keeps_its_template(tmp_path):
    found = given_base.take(str(save_stranger(tmp_path / "chat", template=True)), "", 64, tmp_path / "base")
    assert found.own_template
    assert AutoTokenizer.from_pretrained(tmp_path / "base").chat_template == base_model.CHAT_TEMPLATE


def test_a_model_that_is_built_for_less_is_refused_in_one_sentence(tmp_path):
    stranger = save_stranger(tmp_path / "short", context=64)
    with pytest.raises(StudyError, match=r"takes 64 tokens .* may have 72; lower max_completion_tokens"):
        given_base.take(str(stranger), "", 72, tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_entropy_over_a_large_vocabulary_is_the_same_in_stretches(taken, monkeypatch):
    root, _ = taken
    loaded = samplers.load("transformers", root / "base")
    problems, texts = tiny.problems(3), ["abc", "a long one 12345", "7"]
    whole = token_entropy(loaded.model, loaded.tokenizer, problems, texts, 10_000)
    monkeypatch.setattr("prorl_study.token_entropy.LOGITS", 2 * 3 * VOCABULARY)
    assert token_entropy(loaded.model, loaded.tokenizer, problems, texts, 10_000) == pytest.approx(whole)


@pytest.mark.slow
def test_it_is_trained_a_segment_with_a_reset_reference_and_bounded_passes(taken, tmp_path):
    root, _ = taken
    (tmp_path / "problems").mkdir()
    for split, count in (("train", 8), ("validation", 2)):
        rows = [domain.generate(1, split, i).row() for domain in DOMAINS.values() for i in range(count)]
        pd.DataFrame(rows).to_parquet(tmp_path / "problems" / f"{split}.parquet", index=False)
    write_json({}, tmp_path / "problems" / "floors.json")
    config = segments.SegmentConfig(
        train=replace(
            tiny.TRAIN, max_completion_tokens=24, reward="random", kl_beta=0.01, alarm_kl=1e9, probe_every=1
        ),
        segment=SegmentParams("s1", "base", 1500, "move", "fresh", "log"),
        seed=5,
        problems=str(tmp_path / "problems"),
        previous=str(root / "base"),
        out=str(tmp_path / "model"),
        work=str(tmp_path / "work"),
        eval_temperature=0.6,
        top_p=0.95,
        batch_tokens=4000,
        isolation="walls",
        workers=1,
        engine=replace(segments.EngineParams(), micro_batch=8, pass_tokens=512),
    )
    config.write(tmp_path / "config.json")
    # Random weights hardly ever end an answer by chance with so many tokens: an alarm that is switched off.
    script = (
        "from prorl_study import segments; segments.alarm = lambda *_: None; "
        f"segments.main([{str(tmp_path / 'config.json')!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    log = read_log(tmp_path / "work" / "log.jsonl")
    assert log[0]["step_size"] > 0 and log[0]["kl_share"] >= 0
    samples = samplers.sample(
        samplers.load("transformers", tmp_path / "model"),
        tiny.problems(2),
        2,
        Sampler(0.6, 0.95, 8, 1000),
        seed=1,
    )
    assert [len(drawn) for drawn in samples] == [2, 2]
