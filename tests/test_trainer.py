"""The trainer: what it relies on in TRL, what dynamic sampling keeps, and that it learns."""

import inspect
import os
from dataclasses import replace

import pytest
import tiny
import torch
from transformers import AutoTokenizer
from trl import GRPOTrainer

from prorl_study.curriculum import phases
from prorl_study.domains.problem import Verdict
from prorl_study.errors import StudyError
from prorl_study.params import PLAIN_ENGINE
from prorl_study.recipe import grpo_config
from prorl_study.trainer import Group, ProRLTrainer


def make_trainer(
    folder,
    steps=2,
    seed=0,
    judge=None,
    params=tiny.TRAIN,
    weights=None,
    problems=None,
    own_loops=True,
    overrides=None,
    engine=PLAIN_ENGINE,
    curriculum=(),
):
    """`overrides` are fields of TRL's configuration that the recipe sets otherwise."""
    model = tiny.save_model(folder / "model", seed)
    processes = int(os.environ.get("WORLD_SIZE", 1))
    config = grpo_config(params, steps, folder / "out", seed, False, processes, engine)
    return ProRLTrainer(
        model=str(model),
        config=replace(config, generation_batch_size=None, **overrides) if overrides else config,
        problems=problems or tiny.problems(40),
        weights=weights or {"math": 1.0},
        floors={},
        judge=judge or tiny.LetterJudge(),
        tokenizer=AutoTokenizer.from_pretrained(model),
        dynamic_sampling=params.dynamic_sampling,
        max_sampling_rounds=params.max_sampling_rounds,
        own_loops=own_loops,
        curriculum=curriculum,
    )


def rewards(trainer):
    return [log["reward/math"] for log in trainer.state.log_history if "reward/math" in log]


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("_generate_and_score_completions", ["self", "inputs"]),
        ("_generate", ["self", "prompts"]),
        ("_calculate_rewards", ["self", "inputs", "prompts", "completions", "completion_ids_list"]),
        (
            "_generate_single_turn",
            ["self", "prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images"],
        ),
        (
            "_get_per_token_logps_and_entropies",
            [
                "self",
                "model",
                "input_ids",
                "attention_mask",
                "logits_to_keep",
                "batch_size",
                "compute_entropy",
            ],
        ),
        ("training_step", ["self", "model", "inputs", "num_items_in_batch"]),
        ("log", ["self", "logs", "start_time"]),
        ("create_accelerator_and_postprocess", ["self"]),
    ],
)
def test_the_wrapped_methods_of_trl_have_the_signatures_that_the_trainer_relies_on(method, parameters):
    found = list(inspect.signature(getattr(GRPOTrainer, method)).parameters)
    if method == "_get_per_token_logps_and_entropies":
        found = found[: len(parameters)]  # the rest belongs to images and mixtures of experts
    assert found == parameters


def test_more_rollouts_per_prompt_make_micro_batches_larger_not_more(tmp_path):
    number = tiny.TRAIN.rollouts_per_prompt
    entries = [{"tokens": 0}, {"tokens": 1, "rollouts_per_prompt": 2 * number}]
    train = replace(tiny.TRAIN, curriculum=entries, domains=["math"])
    engine = replace(PLAIN_ENGINE, micro_batch=number // 2)
    trainer = make_trainer(tmp_path, 2, params=train, engine=engine, curriculum=phases(train, ["math"]))
    passed, original = [], trainer.compute_loss

    def compute_loss(model, inputs, *args, **kwargs):
        passed.append(len(inputs["completion_ids"]))
        return original(model, inputs, *args, **kwargs)

    trainer.compute_loss = compute_loss
    trainer.train()
    half = len(passed) // 2
    assert passed == [number // 2] * half + [number] * half, "cards.memory counts on this"


def test_the_parent_scores_once_per_rollout_step_and_only_groups_of_the_batch_size(tmp_path, monkeypatch):
    sizes = []
    original = GRPOTrainer._generate_and_score_completions

    def counted(self, inputs):
        sizes.append(len(inputs))
        return original(self, inputs)

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", counted)
    make_trainer(tmp_path, steps=3).train()
    assert sizes == [64, 64, 64]


def test_kept_groups_all_have_signal_when_there_is_enough_of_it(tmp_path):
    trainer = make_trainer(tmp_path, steps=3)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "frac_reward_zero_std" in log]
    assert len(logs) == 3
    assert all(log["frac_reward_zero_std"] == 0 and log["filled_groups"] == 0 for log in logs)


def test_a_batch_without_any_signal_is_filled_counted_and_ends(tmp_path):
    class Deaf:
        def verify(self, items, answers):
            return [Verdict(0.0, False, "wrong") for _ in items]

    trainer = make_trainer(tmp_path, steps=2, judge=Deaf())
    trainer.train()
    logs = [log for log in trainer.state.log_history if "filled_groups" in log]
    assert [log["filled_groups"] for log in logs] == [8, 8]
    assert all(log["kept_fraction"] == 0 for log in logs)


def test_the_kept_mixture_follows_the_weights_although_one_domain_gives_little_signal(tmp_path):
    class HalfDeaf(tiny.LetterJudge):
        def verify(self, items, answers):
            verdicts = super().verify(items)
            # Every other code prompt never shows a difference.
            return [
                Verdict(0.0, False, "wrong") if p.domain == "code" and int(p.id.split("-")[1]) % 2 else v
                for (p, _), v in zip(items, verdicts, strict=True)
            ]

    trainer = make_trainer(
        tmp_path,
        steps=6,
        judge=HalfDeaf(),
        weights={"math": 3.0, "code": 1.0},
        problems=tiny.problems(40) + tiny.problems(40, "code"),
        params=replace(tiny.TRAIN, max_sampling_rounds=5),
    )
    trainer.train()
    logs = [log for log in trainer.state.log_history if "kept/math" in log]
    kept = {d: sum(log[f"kept/{d}"] for log in logs) for d in ("math", "code")}
    assert kept == {"math": 36, "code": 12}
    assert sum(log["sampled/code"] for log in logs) > 12


def test_spread_ignores_what_lies_below_the_floor():
    def group(*scores):
        return Group(tiny.problems(1)[0], [], [Verdict(s, s == 1, "wrong") for s in scores])

    assert group(0.0, 0.01).spread(floor=0.05) == 0
    assert group(0.0, 0.5).spread(floor=0.05) == pytest.approx(0.45)


def test_missing_training_problems_of_a_domain_are_named(tmp_path):
    with pytest.raises(StudyError, match="logic"):
        make_trainer(tmp_path, weights={"math": 1.0, "logic": 1.0})


def test_log_probabilities_in_length_buckets_equal_those_of_the_padded_batch(tmp_path):
    trainer = make_trainer(tmp_path)
    generator = torch.Generator().manual_seed(0)
    rows, prompt, completion = 37, 11, 7
    ids = torch.randint(5, 250, (rows, prompt + completion), generator=generator)
    before = torch.randint(1, prompt + 1, (rows, 1), generator=generator)
    after = torch.randint(1, completion + 1, (rows, 1), generator=generator)
    place = torch.arange(prompt + completion)
    mask = ((place >= prompt - before) & (place < prompt + after)).long()
    arguments = (trainer.model, ids, mask, completion)
    ours = trainer._get_per_token_logps_and_entropies(*arguments, compute_entropy=True)
    theirs = GRPOTrainer._get_per_token_logps_and_entropies(trainer, *arguments, compute_entropy=True)
    real = mask[:, prompt:].bool()
    for one, other in zip(ours[:2], theirs[:2], strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one[real], other[real], atol=1e-5)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_forty_steps_on_an_easy_task_raise_the_reward_and_permuted_rewards_do_not(tmp_path, seed):
    gained = {}
    for permuted in (False, True):
        trainer = make_trainer(tmp_path / str(permuted), 40, seed, tiny.LetterJudge(permuted, seed))
        trainer.train()
        reward = rewards(trainer)
        assert len(reward) == 40
        gained[permuted] = sum(reward[-5:]) / 5 - sum(reward[:5]) / 5
    assert gained[False] > 0.3
    assert gained[True] < 0.1


def test_the_shared_sampling_loop_agrees_with_transformers_greedy_decoding(tmp_path):
    from transformers import AutoModelForCausalLM

    from prorl_study.rollout import Decoding, generate

    path = tiny.save_model(tmp_path, 0)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)
    prompts = [tokenizer(text)["input_ids"] for text in ("say 1", "say 12 and more", "a")]
    ours = generate(
        model, prompts, [1, 2, 1], Decoding(0.0), 12, tokenizer.eos_token_id, tokenizer.pad_token_id
    )
    for ids, completions in zip(prompts, ours, strict=True):
        theirs = model.generate(
            torch.tensor([ids]), max_new_tokens=12, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )[0, len(ids) :].tolist()
        assert all(completion == theirs for completion in completions)


def shares(folder, beta: float) -> list[float]:
    """The KL gradient's share in the steps of a training that changes nothing, beside a moved reference."""
    params = replace(tiny.TRAIN, learning_rate=1e-30, kl_beta=beta)
    trainer = make_trainer(folder, steps=2, params=params)
    trainer.probe_every = 1
    with torch.no_grad():
        for weight in trainer.ref_model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    trainer.train()
    return [log["kl_share"] for log in trainer.state.log_history if "kl_share" in log]


def test_the_share_of_the_kl_gradient_is_proportional_to_its_weight(tmp_path):
    one, ten = shares(tmp_path / "one", 0.01), shares(tmp_path / "ten", 0.1)
    assert len(one) == 2 and min(one) > 1e-4
    assert ten == pytest.approx([10 * share for share in one], rel=1e-3)


def test_measuring_the_share_changes_nothing_of_the_training(tmp_path):
    found = []
    for every in (0, 1):
        trainer = make_trainer(tmp_path / str(every), steps=3)
        trainer.probe_every = every
        trainer.train()
        logs = [log for log in trainer.state.log_history if "loss" in log]
        found.append(
            (
                [(log["loss"], log["kl"], log["entropy"], log["grad_norm"]) for log in logs],
                trainer.model.state_dict(),
            )
        )
    (plain, weights), (probed, same) = found
    assert plain == probed
    assert all(torch.equal(weights[name], same[name]) for name in weights)
