"""vLLM beside transformers on one model: the same prompts, the same greedy answers, the same rates.

Needs vLLM, in an environment of its own: `make vllm-test`. The model is trained here, in about two minutes,
since an untrained one would solve nothing and agree with everything.
"""

from pathlib import Path

import numpy as np
import pytest

from prorl_study import any_model, base_model, gpu_check_vllm, model_source, sampling, sampling_vllm
from prorl_study.domains import DOMAINS
from prorl_study.evaluation import judge
from prorl_study.params import BaseModelParams
from prorl_study.statistics import named_rng, paired_bootstrap
from prorl_study.verification.pool import VerificationPool

pytestmark = pytest.mark.vllm

PER_DOMAIN = 60
MAX_TOKENS = 72
SAMPLES = 16
SEED = 20250530
GREEDY_AGREEMENT = 0.99
"""Both compute in fp32, with other kernels, so logits differ by some 1e-5 and a greedy answer changes only
where its two best tokens lie that close together: at well under one token in ten thousand, some 50 to an
answer, in fewer than one answer of a hundred."""
TRAINING = BaseModelParams(
    vocabulary=512,
    hidden_size=128,
    layers=2,
    heads=4,  # of 32: the smallest that vLLM's attention on a CPU takes
    intermediate_size=256,
    demonstrations=8000,
    sft_steps=600,
    sft_batch=32,
    sft_learning_rate=3e-2,
    habit_rate=0.3,
    slip_rate=0.1,
    logic_slip_rate=0.1,
    gate_margin=0.0,
    gate_problems=1,
)
PROBLEMS = [d.generate(SEED, "train", i) for d in DOMAINS.values() for i in range(PER_DOMAIN)]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> model_source.Source:
    folder = tmp_path_factory.mktemp("vllm")
    base_model.train(folder / "work", folder / "small", TRAINING, SEED)
    return model_source.find(str(folder / "small"))


@pytest.fixture(scope="module")
def tokenizer(source):
    return model_source.load_tokenizer(source)


@pytest.fixture(scope="module")
def backends(source, tokenizer):
    """Per backend `(temperature, seed) -> samples` of all problems."""
    context = max(len(model_source.chat_ids(tokenizer, p.prompt)) for p in PROBLEMS) + MAX_TOKENS
    model = model_source.load_model(source, "float32")
    engine = sampling_vllm.load(source.path, "float32", context)

    def transformers(temperature: float, n: int, seed: int = SEED, chosen=PROBLEMS, top_p=0.95):
        sampler = sampling.Sampler(temperature, top_p, MAX_TOKENS, 40_000)
        return sampling.sample(model, tokenizer, chosen, n, sampler, seed)

    def vllm(temperature: float, n: int, seed: int = SEED, chosen=PROBLEMS, top_p=0.95):
        sampler = sampling.Sampler(temperature, top_p, MAX_TOKENS, 40_000)
        return sampling_vllm.sample(engine, tokenizer, chosen, n, sampler, seed)

    return {"transformers": transformers, "vllm": vllm, "engine": engine}


@pytest.fixture(scope="module")
def pool():
    with VerificationPool(workers=2) as pool:
        yield pool


def share_equal(one, other) -> float:
    pairs = [(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)]
    return float(np.mean([a == b for a, b in pairs]))


def strict_rates(samples, pool) -> np.ndarray:
    """Share of strict successes per problem."""
    frame = judge(PROBLEMS, samples, pool)
    return frame.groupby("problem", sort=False).solved.mean().to_numpy()


def test_both_backends_are_given_the_same_prompt_ids(backends, tokenizer, monkeypatch):
    ours, theirs = [], []

    def generate(model, prompts, copies, *rest, eos, pad):
        ours.extend(prompts)
        return [[[eos]] * count for count in copies]

    real = backends["engine"].generate

    def spy(prompts, *rest, **options):
        outputs = real(prompts, *rest, **options)
        theirs.extend(list(output.prompt_token_ids) for output in outputs)
        return outputs

    monkeypatch.setattr(sampling, "generate", generate)
    monkeypatch.setattr(backends["engine"], "generate", spy)
    backends["transformers"](0.0, 1)
    backends["vllm"](0.0, 1)
    assert sorted(ours) == sorted(theirs) and len(theirs) == len(PROBLEMS)


def test_greedy_answers_agree_but_for_near_ties(backends):
    one, other = backends["transformers"](0.0, 1), backends["vllm"](0.0, 1)
    share = share_equal(one, other)
    assert share >= GREEDY_AGREEMENT, share
    assert len({sample.text for (sample,) in one}) > len(PROBLEMS) / 4  # and they are answers to the problems


def test_sampled_strict_rates_agree_within_the_interval_of_their_difference(backends, pool):
    """The seed was fixed beforehand; at another one in twenty would fail by chance."""
    one = strict_rates(backends["transformers"](0.6, SAMPLES), pool)
    other = strict_rates(backends["vllm"](0.6, SAMPLES), pool)
    difference = paired_bootstrap(one, other, named_rng(SEED, "backends"))
    assert 0.05 < one.mean() < 0.95  # else they would agree whatever they drew
    assert difference.low <= 0 <= difference.high, difference
    assert difference.high - difference.low < 0.05, difference  # and 5 points would have been seen
    # the same comparison tells another temperature apart
    hot = strict_rates(backends["vllm"](1.5, SAMPLES, top_p=1.0), pool)
    assert paired_bootstrap(one, hot, named_rng(SEED, "hot")).high < 0


def test_answers_are_equally_long_and_equally_often_cut_off(backends):
    def per_problem(samples, field: str) -> np.ndarray:
        return np.array([[getattr(one, field) for one in own] for own in samples], float).mean(axis=1)

    one, other = (backends[name](1.0, 2 * SAMPLES, top_p=1.0) for name in ("transformers", "vllm"))
    for field in ("tokens", "truncated"):
        before, after = per_problem(one, field), per_problem(other, field)
        difference = paired_bootstrap(before, after, named_rng(SEED, field), level=0.99)
        assert difference.low <= 0 <= difference.high, (field, difference)
    assert all(
        one.tokens <= MAX_TOKENS and one.truncated <= (one.tokens == MAX_TOKENS)
        for own in other
        for one in own
    )


def test_a_completion_depends_on_its_seed_problem_and_number_alone(backends):
    whole = backends["vllm"](1.0, 4)
    assert share_equal(whole, backends["vllm"](1.0, 4)) >= 0.99
    part = backends["vllm"](1.0, 2, chosen=PROBLEMS[::3][::-1])
    assert share_equal([own[:2] for own in whole[::3][::-1]], part) >= 0.99
    assert share_equal(whole, backends["vllm"](1.0, 4, seed=1)) < 0.9
    assert np.mean([len({one.text for one in own}) for own in whole]) > 1.5


def test_a_model_gets_the_same_kind_of_rows_from_both_backends(source, pool, tmp_path):
    chosen, rows = {"own": PROBLEMS[:: PER_DOMAIN // 4]}, {}
    for backend in any_model.BACKENDS:
        rows[backend] = any_model.evaluate(
            str(source.path),
            chosen,
            pool,
            Path(tmp_path) / backend,
            seed=SEED,
            samples=4,
            max_tokens=MAX_TOKENS,
            resamples=200,
            backend=backend,
        )
    keys = [
        [(row["domain"], row["metric"], row["n_problems"]) for row in rows[b]] for b in any_model.BACKENDS
    ]
    assert keys[0] == keys[1]
    greedy = [[row["value"] for row in rows[b] if row["metric"] == "greedy"] for b in any_model.BACKENDS]
    assert greedy[0] == pytest.approx(greedy[1], abs=0.3)


def test_a_closed_engine_makes_room_for_one_that_answers_the_same(source, capfd):
    """Last here: closing takes down what engines of one process share, the engine above with it."""
    found = gpu_check_vllm.evaluation(source.path, gpu_check_vllm.Work(40, 8, MAX_TOKENS))
    assert found["vllm_repeats_itself"] >= 0.99
    rates = {name: found[name]["tokens_per_second"] for name in ("transformers", "vllm", "vllm_again")}
    assert min(rates.values()) > 0
    with capfd.disabled():
        print("\ntokens per second:", ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items()))
