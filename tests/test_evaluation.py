"""From samples to gains: judging, voting, counting, resuming, recomputing."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import PAPER, completion, problems, random_counts

from prorl_study import benchmarks, evaluation, files, sampling
from prorl_study.domains import DOMAINS
from prorl_study.errors import StudyError
from prorl_study.paper import load_paper
from prorl_study.params import EvaluationParams
from prorl_study.verification.pool import VerificationPool

SETTINGS = EvaluationParams(
    eval_temperature=0.6,
    top_p=0.95,
    samples=4,
    samples_more=6,
    max_tokens=64,
    tuned_temperatures=[0.3, 0.6, 1.0],
    batch_tokens=1000,
    bootstrap_resamples=200,
)


@pytest.fixture(scope="module")
def pool():
    with VerificationPool(workers=2) as pool:
        yield pool


def as_samples(texts):
    return [sampling.Sample(text=text, tokens=len(text), truncated=False) for text in texts]


def votes_frame(rows):
    """Samples of one problem from (answer, solved) pairs."""
    return pd.DataFrame(
        [
            {
                "model": "m",
                "split": "test",
                "setting": "sampled",
                "problem": "p",
                "domain": "math",
                "task": "t",
                "difficulty": 1,
                "open_ended": 1,
                "temperature": 0.6,
                "sample": i,
                "score": float(solved),
                "solved": solved,
                "lenient_score": float(solved),
                "lenient_solved": solved,
                "truncated": 0,
                "status": "correct" if solved else "wrong",
                "answer": answer,
                "lenient_answer": answer,
            }
            for i, (answer, solved) in enumerate(rows)
        ]
    )


# ---- judging


def test_right_habit_and_slipped_answers_are_told_apart_in_every_domain(pool):
    chosen = problems("test", per_domain=1)
    texts = [[completion(p, True), completion(p, False), completion(p, True, slipped=True)] for p in chosen]
    frame = evaluation.judge(chosen, [as_samples(t) for t in texts], pool)
    assert len(frame) == 3 * len(DOMAINS)
    for domain, part in frame.groupby("domain"):
        right, habit, slipped = part.sort_values("sample").itertuples()
        assert right.solved and right.score == 1.0 and isinstance(right.answer, str), domain
        assert not habit.solved and habit.score < 1.0, domain
        assert slipped.lenient_solved and not slipped.solved, domain


def test_equal_answers_vote_together_although_their_texts_differ(pool):
    problem = DOMAINS["math"].generate(7, "test", 0)
    answer = DOMAINS["math"].extract(completion(problem, True), False)
    texts = ["<think>x</think>\\boxed{" + answer + "}", "<think>y</think>\\boxed{" + answer + "}"]
    frame = evaluation.judge([problem], [as_samples(texts)], pool)
    assert frame.answer.nunique() == 1


# ---- counting and voting


@pytest.mark.parametrize(
    "rows, solved, distinct",
    [
        ([("7", 0), ("5", 1), ("5", 1)], 1, 2),  # the majority is right
        ([("7", 0), ("7", 0), ("5", 1)], 0, 2),  # the majority is wrong
        ([("5", 1), ("7", 0), ("7", 0), ("5", 1)], 1, 2),  # a tie: the first wins
        ([("7", 0), ("5", 1), ("5", 1), ("7", 0)], 0, 2),
        ([(None, 0), (None, 0), (None, 0), ("5", 1)], 1, 1),  # no answer, no vote
        ([(None, 0), (None, 0)], 0, 0),
    ],
)
def test_majority_vote(rows, solved, distinct):
    row = evaluation.counts(votes_frame(rows), votes=16).iloc[0]
    assert (row.cons_solved, row.distinct_answers, row.votes) == (solved, distinct, len(rows))


def test_vote_does_not_depend_on_the_order_of_rows_and_looks_at_the_first_samples_only():
    frame = votes_frame([("7", 0), ("7", 0), ("5", 1), ("5", 1), ("5", 1)])
    three = evaluation.counts(frame, votes=3).iloc[0]
    assert (three.cons_solved, three.votes, three.n, three.solved) == (0, 3, 5, 3)
    shuffled = frame.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(evaluation.counts(shuffled, 3), evaluation.counts(frame, 3))


def test_counts_sum_up_the_samples():
    one = votes_frame([("7", 0), ("5", 1), ("5", 1)])
    other = votes_frame([("1", 1), ("2", 0)]).assign(problem="q")
    table = evaluation.counts(pd.concat([other, one]), votes=16).set_index("problem")
    assert table.n.to_dict() == {"p": 3, "q": 2} and table.solved.to_dict() == {"p": 2, "q": 1}
    assert table.cons_solved.to_dict() == {"p": 1, "q": 1}


def test_counts_survive_csv_unchanged(tmp_path):
    table = random_counts({"base": 0.2, "s1": 0.5}, per_domain=5)
    evaluation.write_counts(table, tmp_path)
    again = evaluation.read_counts(tmp_path)
    order = ["model", "split", "setting", "problem"]
    pd.testing.assert_frame_equal(
        again.sort_values(order, ignore_index=True),
        table.sort_values(order, ignore_index=True),
        check_dtype=False,
    )


def test_missing_counts_are_named_with_the_stage_that_makes_them(tmp_path):
    with pytest.raises(StudyError, match="dvc repro benchmarks"):
        evaluation.read_counts(tmp_path)


# ---- sampling a model piece by piece


class TeacherSampler:
    """Stands in for a model: right with a probability that depends on temperature; can be killed."""

    def __init__(self, die_after=None):
        self.calls, self.die_after = [], die_after

    def load(self, path):
        return "model", "tokenizer"

    def sample(self, model, tokenizer, chosen, n, sampler, seed, progress=""):
        if self.die_after is not None and len(self.calls) == self.die_after:
            raise KeyboardInterrupt
        self.calls.append(progress)
        rng = np.random.default_rng(seed)
        rate = {0.0: 0.0, 0.3: 0.9, 0.6: 0.3, 1.0: 0.1}[sampler.temperature]
        return [as_samples([completion(p, rng.random() < rate) for _ in range(n)]) for p in chosen]


@pytest.fixture
def evaluate(tmp_path, monkeypatch, pool):
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("1")
    splits = {split: problems(split) for split in ("validation", "test", "hard")}

    def run(sampler, work="work", seed=1, is_base=True):
        monkeypatch.setattr(sampling, "load", sampler.load)
        monkeypatch.setattr(sampling, "sample", sampler.sample)
        return evaluation.evaluate_model(
            "base",
            model,
            splits,
            SETTINGS,
            seed,
            pool,
            tmp_path / "samples",
            is_base,
            tmp_path / work,
        )

    return run


def test_a_killed_evaluation_goes_on_without_sampling_twice(evaluate, tmp_path):
    whole = TeacherSampler()
    expected = evaluate(whole)
    assert len(whole.calls) == len(set(whole.calls)) == 9  # 3 splits x 2, two temperatures, one on test
    written = (tmp_path / "samples" / "base.parquet").read_bytes()
    killed = TeacherSampler(die_after=4)
    with pytest.raises(KeyboardInterrupt):
        evaluate(killed, work="other")
    resumed = TeacherSampler()
    pd.testing.assert_frame_equal(evaluate(resumed, work="other"), expected)
    assert killed.calls + resumed.calls == whole.calls
    assert (tmp_path / "samples" / "base.parquet").read_bytes() == written


def test_another_seed_or_model_samples_anew_and_nothing_stale_stays(evaluate, tmp_path):
    evaluate(TeacherSampler())
    first = {p.name for p in (tmp_path / "work" / "base").iterdir()}
    again = TeacherSampler()
    evaluate(again, seed=2)
    assert len(again.calls) == 9
    assert not first & {p.name for p in (tmp_path / "work" / "base").iterdir()}
    (tmp_path / "model" / "weights").write_text("2")
    changed = TeacherSampler()
    evaluate(changed, seed=2)
    assert len(changed.calls) == 9


def test_sample_numbers_and_settings_follow_the_parameters(evaluate):
    table = evaluation.counts(evaluate(TeacherSampler()), SETTINGS.samples)
    drawn = table.groupby(["split", "setting"]).n.agg(["min", "max"])
    assert (drawn["min"] == drawn["max"]).all()
    assert drawn["max"].to_dict() == {
        ("validation", "sampled"): 6,
        ("validation", "greedy"): 1,
        ("validation", "tuned_0.3"): 4,
        ("validation", "tuned_1"): 4,
        ("test", "sampled"): 6,
        ("test", "greedy"): 1,
        ("test", "tuned_0.3"): 4,
        ("hard", "sampled"): 6,
        ("hard", "greedy"): 1,
    }
    assert set(evaluation.tuned_settings(table).values()) == {"tuned_0.3"}
    trained = evaluate(TeacherSampler(), work="trained", is_base=False)
    assert set(trained.setting) == {"sampled", "greedy"}
    assert trained[trained.split == "test"]["sample"].max() == 3


# ---- benchmark rows and gains


def test_benchmark_rows_have_the_agreed_columns_and_sound_intervals():
    rows = benchmarks.benchmark_rows(random_counts({"base": 0.2, "s1": 0.5}), seed=1, resamples=200)
    frame = pd.DataFrame(rows)
    columns = "model domain split metric value ci_low ci_high n_problems n_samples seed"
    assert list(frame) == columns.split()
    assert (frame.ci_low <= frame.value).all() and (frame.value <= frame.ci_high).all()
    fractions = frame[frame.metric != "distinct_answers"]
    assert fractions[["ci_low", "ci_high"]].stack().between(0, 1).all()
    assert not frame.duplicated(["model", "domain", "split", "metric"]).any()
    metrics = set(frame[(frame.model == "base") & (frame.split == "test")].metric)
    assert {"strict", "graded", "lenient_strict", "lenient_graded", "cons@16", "greedy"} <= metrics
    assert {m for m in metrics if m.startswith("pass@")} == {"pass@1", "pass@2", "pass@4", "pass@8"}


def test_pass_at_1_is_the_strict_rate_of_open_ended_problems():
    table = random_counts({"base": 0.2})
    rows = benchmarks.benchmark_rows(table, seed=1, resamples=50)
    for row in rows:
        if row["metric"] == "pass@1":
            cell = benchmarks.values_of(table, "base", row["split"], "sampled", row["domain"])
            fair = cell[cell.open_ended == 1]
            assert row["n_problems"] == len(fair) < len(cell)
            assert row["value"] == pytest.approx((fair.solved / fair.n).mean(), abs=1e-6)


def test_a_row_does_not_depend_on_which_other_rows_exist():
    table = random_counts({"base": 0.2, "s1": 0.5})
    alone = benchmarks.benchmark_rows(table[table.model == "s1"], seed=1, resamples=100)
    together = benchmarks.benchmark_rows(table, seed=1, resamples=100)
    assert alone == [row for row in together if row["model"] == "s1"]


def test_gains_recomputed_from_committed_counts_equal_gains_json(tmp_path):
    table = random_counts({"base": 0.2, "s1": 0.3, "s2": 0.6})
    rows = benchmarks.gains(table, PAPER, "s2", seed=5, resamples=300)
    evaluation.write_counts(table, tmp_path)
    files.write_json(rows, tmp_path / "gains.json")
    assert benchmarks.recompute(tmp_path, PAPER) == json.loads((tmp_path / "gains.json").read_text())


def test_gain_is_measured_against_the_best_training_free_base():
    table = random_counts({"base": 0.3, "s1": 0.7})
    rows = benchmarks.gains(table, PAPER, "s1", seed=5, resamples=300)
    assert [(r["domain"], r["measure"]) for r in rows] == [
        ("math", "strict"),
        ("code", "strict"),
        ("stem", "strict"),
        ("logic", "strict"),
        ("logic", "graded"),
        ("instruction", "strict"),
        ("instruction", "graded"),
    ]
    for row in rows:
        methods = benchmarks.training_free(table, row["domain"], row["measure"])
        assert set(methods) == {"sampled", "greedy", "cons@16", "T=0.3"}
        assert row["base_best_training_free"] == pytest.approx(
            100 * max(m.mean() for m in methods.values()), abs=1e-3
        )
        over = row["trained"] - row["base_best_training_free"]
        assert row["gain_over_training_free"] == pytest.approx(over, abs=1e-3) and over <= row["gain"] + 1e-3
        assert row["ci_low"] < row["gain_over_training_free"] < row["ci_high"]


def test_a_model_that_equals_the_base_has_gained_exactly_nothing():
    table = random_counts({"base": 0.3})
    copy = table[table.setting.isin(["sampled", "greedy"])].assign(model="s1")
    for row in benchmarks.gains(pd.concat([table, copy]), PAPER, "s1", seed=5, resamples=100):
        assert (row["gain"], row["gain_ci_low"], row["gain_ci_high"]) == (0, 0, 0)
        assert (row["lenient_gain"], row["lenient_ci_low"], row["lenient_ci_high"]) == (0, 0, 0)
        assert row["gain_over_training_free"] <= 0


def test_an_unknown_model_and_unequal_problems_are_refused():
    table = random_counts({"base": 0.3, "s1": 0.4}, per_domain=6)
    with pytest.raises(StudyError, match="s9"):
        benchmarks.gains(table, PAPER, "s9", seed=1, resamples=10)
    short = table[~((table.model == "s1") & (table.problem == "math-test-000"))]
    with pytest.raises(StudyError, match="math"):
        benchmarks.gains(short, PAPER, "s1", seed=1, resamples=10)


def test_slices_weigh_up_to_the_whole():
    table = random_counts({"base": 0.3})
    by_depth = benchmarks.slices(table, "difficulty", "test", seed=1, resamples=50)
    for domain, part in by_depth.groupby("domain"):
        cell = benchmarks.values_of(table, "base", "test", "sampled", domain)
        assert np.average(part.strict, weights=part.n_problems) == pytest.approx(
            (cell.solved / cell.n).mean()
        )


RESULTS = Path(__file__).parents[1] / "results"


@pytest.mark.skipif(not (RESULTS / "gains.json").is_file(), reason="the default study has no results yet")
def test_committed_gains_follow_from_the_committed_counts_and_stand_in_the_readme():
    rows = json.loads((RESULTS / "gains.json").read_text())
    assert benchmarks.recompute(RESULTS, load_paper()) == rows
    assert benchmarks.markdown(rows) in (RESULTS.parent / "README.md").read_text()
