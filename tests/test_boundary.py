"""The reasoning boundary: drawing many samples, counting, resuming, and what is said of the counts."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import tiny
import torch
from synthetic import random_counts

from prorl_study import boundary, boundary_sampling, deep_sampling, evaluation, files, sampling
from prorl_study.boundary import DIMINISH, PLATEAU, SUSTAINED, UNCLEAR, Interval
from prorl_study.boundary_sampling import BEST, SHARED
from prorl_study.domains import DOMAINS
from prorl_study.errors import StudyError
from prorl_study.params import EvaluationParams
from prorl_study.paths import Workspace
from prorl_study.statistics import pass_at_k

MODELS = ["base", "s1", "s2"]
SAMPLER = sampling.Sampler(temperature=0.12, top_p=0.95, max_tokens=4, batch_tokens=4000)
"""So cold that the untrained tiny model repeats itself like a trained one."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return sampling.load(tiny.save_model(tmp_path_factory.mktemp("model"), seed=2))


def planted(rates, n=256, domain="math", setting=SHARED, split="test", seed=0):
    """Counts of models whose success rate on every problem is known: `rates[model][problem]`."""
    rng = np.random.default_rng(seed)
    rows = []
    for name, own in rates.items():
        for number, rate in enumerate(own):
            first, second = rng.binomial(n // 2, rate, 2)
            rows.append(
                {
                    "model": name,
                    "setting": setting,
                    "temperature": 0.6,
                    "problem": f"{domain}-{split}-{number:03d}",
                    "split": split,
                    "domain": domain,
                    "task": "t",
                    "difficulty": 1,
                    "n": n,
                    "solved": int(first + second),
                    "above_zero": min(n, int(first + second) + 2),
                    "score_sum": float(first + second),
                    "distinct_answers": 3,
                    "distinct_texts": 4,
                    "first_n": n // 2,
                    "first_solved": int(first),
                }
            )
    return pd.DataFrame(rows)


def all_domains(rates, **options):
    """`planted` in every domain, split and setting."""
    return pd.concat(
        [
            planted(rates, domain=domain, setting=setting, split=split, seed=place, **options)
            for setting in (SHARED, BEST)
            for place, domain in enumerate(DOMAINS)
            for split in boundary_sampling.SPLITS
        ],
        ignore_index=True,
    )


# ---- many samples of one problem


def frequencies(draws):
    """How often each text was drawn, over all draws."""
    return pd.Series([drawn.distinct[i].text for drawn in draws for i in drawn.order]).value_counts()


def assert_same_distribution(one, other):
    """Two samples of texts, rare ones together, by a chi-square test."""
    table = pd.concat([one, other], axis=1).fillna(0)
    common = table[table.sum(axis=1) >= 20]
    table = pd.concat([common, (table.sum() - common.sum()).to_frame().T])
    table = table[table.sum(axis=1) > 0]
    assert len(table) > 5
    assert scipy.stats.chi2_contingency(table.to_numpy()).pvalue > 0.001


def test_shared_beginnings_draw_from_the_distribution_of_plain_sampling(model):
    problems = tiny.problems(2)
    deep = deep_sampling.sample_distinct(*model, problems, 1500, SAMPLER, np.random.default_rng(1))
    plain = sampling.sample(*model, problems, 1500, SAMPLER, seed=1)
    for drawn, samples in zip(deep, plain, strict=True):
        assert_same_distribution(frequencies([drawn]), pd.Series([s.text for s in samples]).value_counts())
        lengths = np.mean([drawn.distinct[i].tokens for i in drawn.order])
        assert lengths == pytest.approx(np.mean([s.tokens for s in samples]), abs=0.1)


def test_first_token_comes_as_often_as_the_model_says(model):
    network, tokenizer = model
    (problem,) = tiny.problems(1)
    one = replace(SAMPLER, max_tokens=1, top_p=1.0)
    (drawn,) = deep_sampling.sample_distinct(*model, [problem], 20_000, one, np.random.default_rng(0))
    prompt = tokenizer.apply_chat_template(
        problem.prompt, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    with torch.no_grad():
        logits = network(torch.tensor([prompt])).logits[0, -1]
    chances = pd.Series((logits.double() / one.temperature).softmax(-1).numpy())
    texts = [tokenizer.decode([token], skip_special_tokens=True) for token in chances.index]
    expected = 20_000 * chances.groupby(texts).sum()
    seen = frequencies([drawn]).reindex(expected.index).fillna(0)
    often = expected >= 10
    counted = [*seen[often], seen[~often].sum()]
    assert len(counted) > 10
    assert scipy.stats.chisquare(counted, [*expected[often], expected[~often].sum()]).pvalue > 0.001


def test_a_small_batch_costs_time_and_changes_nothing_else(model):
    problems = tiny.problems(3)
    tight = replace(SAMPLER, batch_tokens=1)  # one row at a time: nearly every beginning has to wait
    one = deep_sampling.sample_distinct(*model, problems, 300, SAMPLER, np.random.default_rng(1))
    other = deep_sampling.sample_distinct(*model, problems, 300, tight, np.random.default_rng(2))
    assert_same_distribution(frequencies(one), frequencies(other))


def test_every_sample_is_there_once_and_within_the_limits(model):
    problems = tiny.problems(3)
    state = torch.random.get_rng_state()
    draws = deep_sampling.sample_distinct(*model, problems, 100, SAMPLER, np.random.default_rng(5))
    again = deep_sampling.sample_distinct(*model, problems, 100, SAMPLER, np.random.default_rng(5))
    assert torch.equal(state, torch.random.get_rng_state())
    for drawn, copy in zip(draws, again, strict=True):
        assert len(drawn.order) == 100 and set(drawn.order) == set(range(len(drawn.distinct)))
        assert len(drawn.distinct) < 100, "nothing was shared"
        assert all(1 <= one.tokens <= SAMPLER.max_tokens for one in drawn.distinct)
        assert all(one.truncated <= (one.tokens == SAMPLER.max_tokens) for one in drawn.distinct)
        assert drawn.distinct == copy.distinct and (drawn.order == copy.order).all()


def test_greedy_decoding_is_refused(model):
    with pytest.raises(ValueError, match="temperature"):
        deep_sampling.sample_distinct(
            *model, tiny.problems(1), 4, replace(SAMPLER, temperature=0.0), np.random.default_rng(0)
        )


def test_tally_equals_judging_every_sample_by_itself(model):
    problems = tiny.problems(4)
    draws = deep_sampling.sample_distinct(*model, problems, 60, SAMPLER, np.random.default_rng(2))
    for problem, drawn, row in zip(
        problems, draws, deep_sampling.tally(problems, draws, tiny.LetterJudge()), strict=True
    ):
        texts = [drawn.distinct[i].text for i in drawn.order]
        verdicts = tiny.LetterJudge().verify([(problem, text) for text in texts])
        assert row["n"] == 60 and row["first_n"] == 30
        assert row["solved"] == sum(v.solved for v in verdicts)
        assert row["first_solved"] == sum(v.solved for v in verdicts[:30])
        assert row["above_zero"] == sum(v.score > 0 for v in verdicts) >= row["solved"]
        assert row["score_sum"] == pytest.approx(sum(v.score for v in verdicts), abs=1e-6)
        assert row["distinct_texts"] == len(set(texts))


# ---- the stage: which problems, which temperatures, resuming


def test_problems_are_open_ended_and_drawn_by_domain_and_split():
    pools = {
        split: [
            replace(p, id=f"{p.id}-{split}", split=split, open_ended=i % 2 == 0)
            for domain in ("math", "stem")
            for i, p in enumerate(tiny.problems(20, domain))
        ]
        for split in boundary_sampling.SPLITS
    }
    chosen = boundary_sampling.choose_problems(pools, 6, seed=1)
    assert all(p.open_ended for p in chosen) and len({p.id for p in chosen}) == len(chosen)
    assert pd.Series([(p.domain, p.split) for p in chosen]).value_counts().to_dict() == {
        (domain, split): 6 for domain in ("math", "stem") for split in boundary_sampling.SPLITS
    }
    assert chosen == boundary_sampling.choose_problems(pools, 6, seed=1)
    assert chosen != boundary_sampling.choose_problems(pools, 6, seed=2)
    assert len(boundary_sampling.choose_problems(pools, 100, seed=1)) == 40
    shut = {split: [replace(p, open_ended=False) for p in own] for split, own in pools.items()}
    with pytest.raises(StudyError, match="open-ended"):
        boundary_sampling.choose_problems(shut, 6, seed=1)


@pytest.mark.parametrize(
    "segments, expected",
    [(["s1"], ["base", "s1"]), (["s1", "s2"], ["base", "s1", "s2"]), (["a", "b", "c"], ["base", "b", "c"])],
)
def test_base_middle_and_last_model_are_compared(segments, expected):
    assert boundary_sampling.boundary_models(segments) == expected


def test_best_temperature_weighs_domains_alike_and_breaks_ties_towards_the_shared_one():
    rows = pd.DataFrame(
        [
            ("m", 0.3, "math", 100, 50),
            ("m", 0.3, "code", 10, 1),
            ("m", 0.6, "math", 100, 30),
            ("m", 0.6, "code", 10, 3),
            ("m", 1.0, "math", 100, 10),
            ("m", 1.0, "code", 10, 6),
            ("tie", 0.3, "math", 10, 5),
            ("tie", 0.6, "math", 20, 10),
        ],
        columns=["model", "temperature", "domain", "n", "solved"],
    )
    assert boundary_sampling.best_temperature(rows, "m", 0.6) == 1.0
    assert boundary_sampling.best_temperature(rows, "tie", 0.6) == 0.6
    with pytest.raises(StudyError, match="s9"):
        boundary_sampling.best_temperature(rows, "s9", 0.6)


SETTINGS = EvaluationParams(
    eval_temperature=0.12,
    top_p=0.95,
    samples=4,
    samples_more=6,
    max_tokens=3,
    tuned_temperatures=[0.08, 0.12],
    batch_tokens=4000,
    bootstrap_resamples=50,
)


@pytest.fixture
def study(tmp_path):
    """A workspace with three tiny models, problems and the counts that the benchmarks leave."""
    ws = Workspace(tmp_path)
    ws.problems.mkdir(parents=True)
    for split in ("test", "hard", "validation"):
        own = [
            replace(p, id=f"{domain}-{split}-{i:03d}", split=split)
            for domain in ("math", "logic")
            for i, p in enumerate(tiny.problems(6, domain))
        ]
        pd.DataFrame([p.row() for p in own]).to_parquet(ws.problems / f"{split}.parquet", index=False)
    for seed, name in enumerate(MODELS, start=2):
        tiny.save_model(ws.model(name), seed)
    known = random_counts(dict.fromkeys(MODELS, 0.3), per_domain=6, domains=("math", "logic"))
    known["temperature"] = np.where(known.setting == "tuned_0.3", 0.08, 0.12)
    evaluation.write_counts(known, ws.results)
    return ws


class Counting:
    """`deep_sampling.sample_distinct`, counting its calls; killed before call `die_at`."""

    def __init__(self, die_at=None):
        self.calls, self.drawn, self.die_at = [], [], die_at
        self.real = deep_sampling.sample_distinct

    def __call__(self, model, tokenizer, problems, n, sampler, rng):
        if len(self.calls) == self.die_at:
            raise KeyboardInterrupt
        self.calls.append((sampler.temperature, n, tuple(p.id for p in problems)))
        self.drawn.append((problems, self.real(model, tokenizer, problems, n, sampler, rng)))
        return self.drawn[-1][1]


def run(ws, monkeypatch, sampler, seed=1):
    with monkeypatch.context() as patched:
        patched.setattr(deep_sampling, "sample_distinct", sampler)
        patched.setattr(boundary_sampling, "PIECE", 5)
        return boundary_sampling.measure(ws, ["s1", "s2"], SETTINGS, 32, 4, seed, tiny.LetterJudge())


def test_a_killed_call_goes_on_behind_its_last_piece_and_ends_the_same(study, monkeypatch):
    killed = Counting(die_at=7)
    with pytest.raises(KeyboardInterrupt):
        run(study, monkeypatch, killed)
    resumed = Counting()
    tables = run(study, monkeypatch, resumed)
    again = Counting()
    assert [t.to_csv() for t in run(study, monkeypatch, again)] == [t.to_csv() for t in tables]
    assert again.calls == []
    for path in (study.work / "boundary").rglob("*.parquet"):
        path.unlink()
    whole = Counting()
    assert [t.to_csv() for t in run(study, monkeypatch, whole)] == [t.to_csv() for t in tables]
    assert killed.calls + resumed.calls == whole.calls


def test_counts_have_a_row_per_model_setting_and_problem_and_equal_a_direct_computation(study, monkeypatch):
    sampler = Counting()
    counts, temperatures = run(study, monkeypatch, sampler)
    assert not counts.duplicated(["model", "setting", "problem"]).any()
    assert len(counts) == 3 * 2 * 16 and (counts.n == 32).all()
    cells = counts.groupby(["model", "setting"]).problem.agg(tuple)
    assert cells.nunique() == 1, "models must get the same problems"
    # The base's counts at both candidates come from the benchmarks, the trained models' at one of them.
    assert [call for call in sampler.calls if call[1] == SETTINGS.samples] == [
        call for call in sampler.calls if call[0] == 0.08 and call[1] == 4
    ]
    assert temperatures.groupby("model").temperature.nunique().to_dict() == dict.fromkeys(MODELS, 2)
    for name in MODELS:
        assert set(counts[(counts.model == name) & (counts.setting == BEST)].temperature) == {
            boundary_sampling.best_temperature(temperatures, name, 0.12)
        }
    direct = sorted(
        (
            t,
            problem.id,
            sum(
                tiny.LetterJudge().verify([(problem, drawn.distinct[i].text)])[0].solved for i in drawn.order
            ),
        )
        for (t, n, _), (problems, samples) in zip(sampler.calls, sampler.drawn, strict=True)
        for problem, drawn in zip(problems, samples, strict=True)
        if n == 32
    )
    assert counts.groupby("model").solved.sum().min() > 0 and (counts.solved < counts.above_zero).any()
    unique = counts.drop_duplicates(["model", "temperature", "problem"])
    assert sorted(zip(unique.temperature, unique.problem, unique.solved, strict=True)) == direct


def test_another_seed_samples_anew_and_nothing_stale_stays(study, monkeypatch):
    run(study, monkeypatch, Counting())
    first = {path.name for path in (study.work / "boundary").rglob("*.parquet")}
    other = Counting()
    run(study, monkeypatch, other, seed=2)
    assert other.calls
    assert not first & {path.name for path in (study.work / "boundary").rglob("*.parquet")}


def test_the_page_can_be_recomputed_from_the_committed_counts(study, monkeypatch):
    counts, temperatures = run(study, monkeypatch, Counting())
    summary = boundary.analyse(counts, temperatures, MODELS, seed=1, resamples=30)
    boundary_sampling.write_counts(counts, temperatures, study.results)
    files.write_json(summary, study.results / "boundary.json")
    assert boundary.recompute(study.results) == json.loads((study.results / "boundary.json").read_text())
    (study.results / "boundary" / "s1.csv").unlink()
    with pytest.raises(StudyError, match="s1.csv"):
        boundary.recompute(study.results)


def test_too_few_samples_are_refused(study):
    with pytest.raises(StudyError, match="boundary_samples=2"):
        boundary_sampling.measure(study, ["s1"], SETTINGS, 2, 4, 1, tiny.LetterJudge())


# ---- pass@k


def test_pass_at_1_is_the_mean_rate_and_curves_rise_up_to_half_of_the_samples():
    rng = np.random.default_rng(0)
    counts = planted({"base": rng.random(30) ** 3, "s2": rng.random(30)}, n=64)
    rows = pd.DataFrame(boundary.curves(counts, seed=1, resamples=100))
    for name, curve in rows.groupby("model"):
        own = counts[counts.model == name]
        assert list(curve.k) == [1, 2, 4, 8, 16, 32]
        assert curve.value.iloc[0] == pytest.approx((own.solved / own.n).mean(), abs=1e-6)
        assert (
            curve.value.is_monotonic_increasing and (curve.value.between(curve.ci_low, curve.ci_high)).all()
        )
        assert curve.value.iloc[-1] == pytest.approx(pass_at_k(own.n, own.solved, 32).mean(), abs=1e-6)


def test_two_readable_wrong_answers_in_256_draw_the_curve_of_the_papers_group_anagrams():
    """Figure 17 of 2505.24864: both trained curves, although no problem need be solved at all."""
    counts = planted({"base": np.zeros(20)}, n=256, domain="logic")
    assert (counts.above_zero == 2).all() and (counts.solved == 0).all()
    rows = pd.DataFrame(boundary.artifact(counts, seed=1, resamples=20)).set_index(["success", "k"]).value
    assert (rows["strict"] == 0).all()
    papers = [0.008, 0.016, 0.031, 0.062, 0.121, 0.235, 0.438, 0.751]
    assert rows["score above zero"].to_numpy() == pytest.approx(papers, abs=5e-4)


# ---- problems gained and lost


def table(solved, n=1000):
    return pd.DataFrame({"n": n, "solved": solved})


def test_crossings_by_hand():
    row = boundary.crossing(table([0, 0, 0, 5, 5, 0]), table([0, 1, 400, 0, 7, 0]))
    assert (row["gained"], row["lost"], row["both"], row["neither"]) == (2, 1, 1, 2)
    # One success in 1,000 may also be a rate of 0.3 % that the base missed; 400 may not.
    assert (row["gained_clear"], row["lost_clear"], row["bound"]) == (1, 0, 0.003)
    assert row["gained_share"] == pytest.approx(2 / 6, abs=1e-6)
    assert row["gained_low"] < 2 / 6 < row["gained_high"]


def test_crossings_part_the_problems_and_swap_with_the_models():
    rng = np.random.default_rng(3)
    rates = {name: rng.choice([0, 0.002, 0.3], 40) for name in MODELS}
    counts = all_domains(rates)
    rows = boundary.crossings(counts, MODELS)
    assert len(rows) == 2 * 5 * 2 * 3
    back = boundary.crossings(counts, MODELS[::-1])
    for row in rows:
        assert row["gained"] + row["lost"] + row["both"] + row["neither"] == row["n_problems"] == 40
        assert row["gained_clear"] <= row["gained"] and row["lost_clear"] <= row["lost"]
        if row["after"] == "s2":
            (twin,) = [
                r
                for r in back
                if r["after"] == "base" and all(r[k] == row[k] for k in ("setting", "domain", "split"))
            ]
            assert (twin["gained"], twin["lost_clear"]) == (row["lost"], row["gained_clear"])


def test_three_over_n_bounds_a_rate_that_never_showed():
    """The rule of three: a rate at the bound stays unseen in n tries with at most 5 % probability."""
    row = boundary.crossing(table([0], n=1024), table([0], n=1024))
    assert row["bound"] == pytest.approx(3 / 1024, abs=1e-6)
    assert 0.045 < (1 - row["bound"]) ** 1024 <= 0.05


def test_a_clear_crossing_is_rare_where_nothing_was_trained():
    rng = np.random.default_rng(0)
    rates = 10 ** rng.uniform(-4.5, -1.5, 4000)
    before, after = (table(rng.binomial(1024, rates), n=1024) for _ in range(2))
    row = boundary.crossing(before, after)
    assert row["gained"] > 200, "plain crossings happen by chance"
    assert row["gained_clear"] + row["lost_clear"] < 0.01 * row["n_problems"]


# ---- regimes

UP, DOWN, NONE = Interval(0.2, 0.1, 0.3), Interval(-0.2, -0.3, -0.1), Interval(0.0, -0.02, 0.02)
WIDE = Interval(0.02, -0.1, 0.14)


@pytest.mark.parametrize(
    "first, large, later, expected",
    [
        (UP, DOWN, NONE, DIMINISH),
        (UP, NONE, UP, DIMINISH),  # it stayed where it was
        (UP, Interval(1e-6, 1e-7, 2e-6), UP, DIMINISH),  # above 0, but by nothing that matters
        (UP, UP, NONE, PLATEAU),
        (UP, UP, DOWN, PLATEAU),
        (UP, UP, UP, SUSTAINED),
        (UP, UP, WIDE, UNCLEAR),
        (UP, WIDE, UP, UNCLEAR),
        (UP, UP, None, UNCLEAR),
        (UP, DOWN, None, DIMINISH),
        (NONE, UP, UP, UNCLEAR),  # no gain at k = 1: the paper has no name for it
        (DOWN, DOWN, DOWN, UNCLEAR),
    ],
)
def test_regime_rule(first, large, later, expected):
    assert boundary.regime(first, large, later) == expected


def mixed(*parts):
    """Rates of problems from (number, rate) pairs."""
    return np.concatenate([np.full(number, rate) for number, rate in parts])


@pytest.mark.parametrize(
    "rates, expected",
    [
        # the base finds all in many tries; training makes most easy and loses the rest
        ((mixed((100, 0.05)), mixed((80, 0.8), (20, 0)), mixed((80, 0.9), (20, 0))), DIMINISH),
        # only sharpened
        ((mixed((100, 0.1)), mixed((100, 0.5)), mixed((100, 0.6))), DIMINISH),
        # half of the problems were out of reach, and no longer are since the middle
        ((mixed((50, 0.1), (50, 0)), mixed((100, 0.4)), mixed((100, 0.5))), PLATEAU),
        # more problems with every segment
        (
            (mixed((20, 0.1), (80, 0)), mixed((60, 0.3), (40, 0)), mixed((95, 0.4), (5, 0))),
            SUSTAINED,
        ),
        # nothing happened
        ((mixed((50, 0.1), (50, 0)),) * 3, UNCLEAR),
    ],
)
def test_planted_curves_get_their_regime(rates, expected):
    counts = planted(dict(zip(MODELS, rates, strict=True)))
    (row,) = boundary.regimes(counts, MODELS, seed=1, resamples=500)
    assert row["regime"] == expected and row["k"] == 128 and row["n_problems"] == 100


def test_the_boundary_of_a_model_against_itself_has_not_moved():
    counts = planted({"base": np.random.default_rng(0).random(40) ** 4})
    counts = pd.concat([counts.assign(model=name) for name in MODELS])
    (row,) = boundary.regimes(counts, MODELS, seed=1, resamples=200)
    assert row["first"] == row["boundary"] == row["later"] == 0 and row["regime"] == UNCLEAR
    assert not any(r["gained"] or r["lost"] for r in boundary.crossings(counts, MODELS) if r["after"] == "s2")


def test_few_problems_without_any_difference_do_not_prove_that_there_is_none():
    """All are solved by both: of 20 problems that says little, of 100 that fewer than 3 % differ."""
    for number, expected in ((20, UNCLEAR), (100, DIMINISH)):
        rates = {"base": np.full(number, 0.3), "s1": np.full(number, 0.8), "s2": np.full(number, 0.9)}
        (row,) = boundary.regimes(planted(rates), MODELS, seed=1, resamples=200)
        assert row["boundary"] == 0 and row["boundary_high"] == pytest.approx(3 / number)
        assert row["regime"] == expected


def test_swapping_base_and_trained_flips_every_difference():
    rng = np.random.default_rng(1)
    counts = planted({"base": rng.random(30) ** 2, "s2": rng.random(30)})
    swapped = counts.assign(model=counts.model.map({"base": "s2", "s2": "base"}))
    swapped = pd.concat([swapped[swapped.model == name] for name in ("base", "s2")])
    (row,) = boundary.regimes(counts, ["base", "s2"], seed=1, resamples=300)
    (twin,) = boundary.regimes(swapped, ["base", "s2"], seed=1, resamples=300)
    for kind in ("first", "boundary"):
        assert row[kind] == pytest.approx(-twin[kind], abs=2e-6)
        assert row[f"{kind}_low"] == pytest.approx(-twin[f"{kind}_high"], abs=0.02)


def test_models_with_other_problems_are_refused():
    counts = planted({"base": np.full(5, 0.3), "s2": np.full(4, 0.3)})
    for analyse in (boundary.regimes, boundary.slopes):
        with pytest.raises(StudyError, match="base and s2 differ"):
            analyse(counts, ["base", "s2"], seed=1, resamples=10)
    with pytest.raises(StudyError, match="base and s2 differ"):
        boundary.crossings(counts, ["base", "s2"])


# ---- gain against base


def test_split_samples_take_the_artifact_out_of_the_slope():
    """The true gain has nothing to do with the base's true rate: the true slope is 0."""
    rng = np.random.default_rng(7)
    found = {"one_sample": [], "split": []}
    covered = 0
    for _ in range(200):
        rate = rng.uniform(0.3, 0.5, 60)
        gain = rng.uniform(0.0, 0.4, 60)
        counts = planted({"base": rate, "s2": rate + gain}, n=256, seed=rng.integers(2**32))
        pair = [boundary.cell(counts, name, SHARED, "math") for name in ("base", "s2")]
        result = boundary.gain_against_base(*pair, samples=16, rng=rng, resamples=200)
        covered += result["split"].low <= 0 <= result["split"].high
        for way, values in found.items():
            values.append(result[way].value)
    error = np.std(found["split"]) / np.sqrt(200)
    assert abs(np.mean(found["split"])) < 3 * error
    assert np.mean(found["one_sample"]) < -0.5
    assert covered >= 0.9 * 200


def test_more_samples_shrink_the_artifact():
    rng = np.random.default_rng(3)
    rate = rng.uniform(0, 0.5, 300)
    counts = planted({"base": rate, "s2": rate + rng.uniform(0, 0.4, 300)}, n=4096)
    rows = pd.DataFrame(boundary.slopes(counts, ["base", "s2"], seed=1, resamples=50))
    slope = rows[rows.domain == "math"].set_index(["samples", "way"]).slope
    few, many = (slope[n, "one_sample"] - slope[n, "split"] for n in (16, 2048))
    assert few < -0.1 < 10 * many <= 0.2


def test_a_real_relation_is_found_and_a_base_without_spread_has_no_slope():
    rate = np.linspace(0, 0.9, 80)
    counts = planted({"base": rate, "s2": np.full(80, 0.9)}, n=512)
    rows = boundary.slopes(counts, ["base", "s2"], seed=1, resamples=200)
    (full,) = [r for r in rows if r["domain"] == "math" and r["samples"] == 256 and r["way"] == "split"]
    assert full["ci_low"] < -1 < full["ci_high"] and full["ci_high"] < -0.9
    flat = planted({"base": np.zeros(10), "s2": np.full(10, 0.5)})
    assert all(r["slope"] is None for r in boundary.slopes(flat, ["base", "s2"], seed=1, resamples=20))


# ---- the sentence


def test_finding_counts_what_the_rows_say():
    rng = np.random.default_rng(0)
    rates = {"base": rng.random(30) * 0.2, "s1": rng.random(30) * 0.5, "s2": rng.random(30)}
    rates["base"][:10] = rates["s2"][5:8] = 0
    temperatures = pd.DataFrame(
        {"model": MODELS, "temperature": 0.6, "domain": "math", "n_problems": 1, "n": 4, "solved": 1}
    )
    summary = boundary.analyse(all_domains(rates, n=64), temperatures, MODELS, seed=1, resamples=100)
    sentence = boundary.finding(summary)
    rows = [row for row in summary["regimes"] if row["setting"] == SHARED]
    assert f"in {sum(r['boundary_low'] > 0 for r in rows)} of 5 domains" in sentence
    crossed = boundary.totals(summary, SHARED, "s2")
    assert crossed["n_problems"] == 300
    assert f"of 300 problems {crossed['gained']} became solvable and {crossed['lost']} were lost" in sentence
    assert sentence.count(".") > 1 and sentence.endswith(".") and "\n" not in sentence


RESULTS = Path(__file__).parents[1] / "results"


@pytest.mark.skipif(not (RESULTS / "boundary.json").is_file(), reason="the default study has no results yet")
def test_committed_boundary_follows_from_the_committed_counts():
    assert boundary.recompute(RESULTS) == json.loads((RESULTS / "boundary.json").read_text())
