"""Verdicts come from intervals, keep to five wordings and stay honest when there is nothing to see."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import random_counts

from prorl_study import benchmarks, claims, evaluation, files, measures, params, provenance
from prorl_study.domains import DOMAINS
from prorl_study.errors import StudyError
from prorl_study.paper import load_paper
from prorl_study.statistics import Interval, bootstrap_mean

ROOT = Path(__file__).parents[1]
FIXED = params.load(ROOT / "params.yaml").claims
UNIT = r"[\d.e+-]+ [a-z ]+"
WORDINGS = re.compile(
    rf"seen here|opposite here|no effect larger than {UNIT}|undecided( \(could have seen {UNIT}\))?|not run"
)


def results(base=0.3, trained=0.7, entropy=None, **options):
    return from_counts(random_counts({"base": base, "s3": trained}, **options), entropy)


def from_counts(table, entropy=None):
    gains = benchmarks.gains(table, load_paper(), "s3", seed=3, resamples=200)
    train = None if entropy is None else pd.DataFrame({"entropy": entropy})
    return measures.Results(table, gains, train)


def verdicts(found):
    return {row["id"]: row["verdict"] for row in claims.judge_claims(found, FIXED)}


@pytest.mark.parametrize(
    "interval, expected",
    [
        ((5, 1, 9), "seen here"),
        ((1, 0.5, 1.5), "seen here"),
        ((-5, -9, -1), "opposite here"),
        ((0, -1.5, 1.9), "no effect larger than 2 points"),
        ((0, 0, 0), "no effect larger than 2 points"),
        ((0.5, -1, 3), "undecided (could have seen 2.0 points)"),
        ((5, 0, 9), "undecided (could have seen 4.5 points)"),
    ],
)
def test_verdict_follows_from_the_interval(interval, expected):
    assert claims.verdict(measures.Outcome(Interval(*interval)), 2.0, "points") == expected


def test_no_estimate_is_undecided_and_no_run_is_not_run():
    assert claims.verdict(measures.Outcome(None), 2.0, "points") == "undecided"
    assert claims.verdict(measures.Outcome(None, ran=False), 2.0, "points") == "not run"


def test_under_a_true_null_a_claim_is_seen_in_about_2_and_a_half_percent():
    rng = np.random.default_rng(0)
    words = []
    for _ in range(400):
        interval = bootstrap_mean(rng.normal(0, 10, 60), rng, resamples=300)
        words.append(claims.verdict(measures.Outcome(interval), 2.0, "points"))
    assert words.count("seen here") / 400 < 0.06 and words.count("opposite here") / 400 < 0.06
    assert 0 < words.count("seen here") + words.count("opposite here")


def test_claim_ids_are_unique_and_every_verdict_keeps_to_the_wordings():
    rows = claims.judge_claims(results(entropy=[0.5] * 40), FIXED)
    assert len({row["id"] for row in rows}) == len(rows) == len(claims.CLAIMS)
    assert all(WORDINGS.fullmatch(row["verdict"]) for row in rows)
    assert all(row["statement"] and row["source"] and row["measure"] for row in rows)


def test_gains_are_seen_where_training_helped_and_opposite_where_it_hurt():
    up, down = verdicts(results(0.2, 0.8)), verdicts(results(0.7, 0.2))
    for domain in DOMAINS:
        assert up[f"gain-{domain}"] == "seen here"
        assert down[f"gain-{domain}"] == "opposite here"
        assert up[f"gain-not-format-{domain}"] == "seen here"
        assert down[f"gain-not-format-{domain}"] == "undecided"  # no gain to explain


def test_a_gain_of_format_alone_is_not_called_reasoning():
    found = results(0.2, 0.8)
    base = found.counts.model == "base"
    table = found.counts.copy()
    # after lenient extraction the base is as good as the trained model: its gain was format
    after = table[~base & (table.split == "test") & (table.setting == "sampled")].set_index("problem")
    rows = base & (table.split == "test") & (table.setting == "sampled")
    table.loc[rows, "lenient_solved"] = table.loc[rows, "problem"].map(after.lenient_solved).to_numpy()
    gains = benchmarks.gains(table, load_paper(), "s3", seed=3, resamples=200)
    assert verdicts(replace(found, counts=table, gains=gains))["gain-not-format-math"] == "opposite here"


def test_boundary_needs_two_domains_that_start_low():
    low = verdicts(results(-0.4, 0.4, n=32))
    assert low["boundary-two-domains"] == "seen here"
    high = verdicts(results(0.5, 0.9, n=32))
    assert high["boundary-two-domains"] == "undecided"


def test_one_rising_domain_is_not_two():
    table = random_counts({"base": -1.0, "s3": -1.0}, n=32, per_domain=200)
    rising = (table.model == "s3") & (table.domain == "math")
    table.loc[rising, "solved"] = table.loc[rising, "n"]
    gains = benchmarks.gains(table, load_paper(), "s3", seed=3, resamples=100)
    found = verdicts(measures.Results(table, gains, None))
    assert found["boundary-math"] == "seen here"
    assert found["boundary-two-domains"] == "no effect larger than 2 points"


def test_few_problems_without_any_success_show_nothing():
    found = verdicts(results(-1.0, -1.0, per_domain=20))
    assert found["gain-math"] == "undecided (could have seen 15.0 points)"  # 3 of 20
    assert found["boundary-math"].startswith("undecided")
    assert verdicts(results(-1.0, -1.0, per_domain=200))["gain-math"] == "no effect larger than 2 points"


@pytest.mark.parametrize(
    "end, expected", [(0.45, "seen here"), (0.05, "opposite here"), (0.25, "no effect larger than 0.05 nats")]
)
def test_entropy_verdict(end, expected):
    rng = np.random.default_rng(1)
    entropy = np.linspace(0.5, end, 200) + rng.normal(0, 0.002, 200)
    entropy[-20:] = end + rng.normal(0, 0.002, 20)
    entropy[:20] = 0.5 + rng.normal(0, 0.002, 20)
    assert verdicts(results(entropy=entropy))["entropy"] == expected


def test_what_did_not_run_says_so():
    found = verdicts(results())
    for name in ("resets", "dynamic-sampling", "decoupled-clip", "generalist", "entropy"):
        assert found[name] == "not run"


def test_results_are_read_from_files_in_order_of_segments(tmp_path):
    found = results()
    evaluation.write_counts(found.counts, tmp_path)
    files.write_json(found.gains, tmp_path / "gains.json")
    (tmp_path / "training").mkdir()
    for number in (1, 2, 10):
        pd.DataFrame({"step": [1, 2], "entropy": [number, number]}).to_csv(
            tmp_path / f"training/s{number}.csv"
        )
    pd.DataFrame({"step": [1], "score": [0.5]}).to_csv(tmp_path / "training/s1_checks.csv")
    read = measures.Results.load(tmp_path)
    assert read.train.entropy.tolist() == [1, 1, 2, 2, 10, 10]
    table = replace(found, train=read.train)
    assert claims.judge_claims(read, FIXED) == claims.judge_claims(table, FIXED)


def test_missing_gains_are_named_with_their_stage(tmp_path):
    with pytest.raises(StudyError, match="gains.json.*dvc repro benchmarks"):
        measures.Results.load(tmp_path)


def test_paper_gains_of_section_3_match_the_tables_and_know_their_source():
    paper = load_paper()
    for domain in DOMAINS:
        gain, result = paper["gains"][domain], paper["results"]["domains"][domain]
        assert gain["tables"] == pytest.approx(result["trained"] - result["base"], abs=0.005)
        assert gain["section3"] == pytest.approx(gain["tables"], abs=0.05)
        assert gain["measure"] == result["measure"]
    assert {d: domain.weight for d, domain in DOMAINS.items()} == paper["data_mix"]["thousands"]
    for name, fact in paper["hyperparameters"].items():
        assert fact["value"] is None or (fact["source"] and fact["confidence"]), name


def test_summary_counts_every_claim_once_and_names_those_that_were_not_seen():
    rows = claims.judge_claims(results(), FIXED)
    text = claims.summary(rows)
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    assert numbers[0] == sum(numbers[1:]) == len(rows)
    named = re.findall(r"[a-z][a-z-]+", " ".join(re.findall(r"\((.*?)\)", text)))
    assert sorted(named) == sorted(row["id"] for row in rows if row["verdict"] != "seen here")


def test_each_value_on_the_claims_page_is_the_one_that_the_committed_counts_give():
    committed = json.loads((ROOT / "results" / "claims.json").read_text())
    again = claims.judge_claims(measures.Results.load(ROOT / "results"), FIXED)
    assert [row["id"] for row in committed] == [row["id"] for row in again]
    assert json.loads(json.dumps(again)) == committed


def test_committed_evidence_was_made_after_its_claims_were_fixed():
    wanted = provenance.claims_hash(ROOT / "params.yaml")
    results = ROOT / "results"
    made = [results / "run_cards" / f"{stage}.json" for stage in ("benchmarks", "boundary", "claims")]
    made += [*results.glob("arms/*.json"), *results.glob("evidence/run*/*.json")]
    assert len(made) > 300
    for path in made:
        assert json.loads(path.read_text())["claims_sha256"] == wanted, f"{path} was made under other claims"


def test_exchanging_base_and_trained_flips_the_sign_of_every_gain():
    table = random_counts({"base": 0.2, "s3": 0.6})
    table = table[table.setting.isin(["sampled", "greedy"])]
    exchanged = table.assign(model=table.model.map({"base": "s3", "s3": "base"}))
    gains = [
        benchmarks.gains(frame, load_paper(), "s3", seed=3, resamples=200) for frame in (table, exchanged)
    ]
    for before, after in zip(*gains, strict=True):
        assert before["gain"] == -after["gain"] != 0
        assert before["gain_ci_low"] == pytest.approx(-after["gain_ci_high"], abs=1e-3)
        assert before["gain_over_training_free"] * after["gain_over_training_free"] < 0


def test_a_model_against_itself_gives_no_finding():
    rng = np.random.default_rng(5)
    for seed in range(8):  # once with the same samples, then with others of the same model
        table = random_counts({"base": 0.4}, seed=seed, n=32)
        twin = table.assign(model="s3")
        if seed:
            rate = (table.solved + 1) / (table.n + 2)
            table = table.assign(solved=rng.binomial(table.n, rate))
            twin = twin.assign(solved=rng.binomial(twin.n, rate))
            table["lenient_solved"], twin["lenient_solved"] = table.solved, twin.solved
        found = verdicts(from_counts(pd.concat([table, twin], ignore_index=True)))
        assert found["gain-overall"] not in ("seen here", "opposite here")
        if seed == 0:
            assert not {"seen here", "opposite here"} & {
                word for name, word in found.items() if name != "no-domain-sacrificed"
            }


def test_primary_claims_are_corrected_together_and_count_what_has_not_run():
    rows = {row["id"]: row for row in claims.judge_claims(results(0.3, 0.5), FIXED)}
    primary = [row for row in rows.values() if row["primary"]]
    assert len(primary) == 5 and list(rows)[:5] == [row["id"] for row in primary]
    alone = measures.gain_overall(results(0.3, 0.5), measures.Aim(level=0.95, margin=2.0))
    assert rows["gain-overall"]["p_adjusted"] == pytest.approx(min(1.0, 5 * alone.p), abs=1e-6)
    wide = rows["gain-overall"]["ci_high"] - rows["gain-overall"]["ci_low"]
    assert wide > alone.interval.high - alone.interval.low
    assert [row["verdict"] for row in primary if row["id"] != "gain-overall"] == ["not run"] * 4


def test_an_estimate_that_has_a_p_value_is_judged_by_its_interval_alone():
    tested = measures.Outcome(Interval(5.0, 3.0, 7.0), n_problems=100, n_seeds=5, p=0.01)
    judged = [
        replace(claim, compute=lambda results, aim: tested) if claim.id == "dynamic-sampling" else claim
        for claim in claims.CLAIMS
    ]
    rows = {row["id"]: row for row in claims.judge_claims(results(), FIXED, judged)}
    assert rows["dynamic-sampling"]["p_adjusted"] is None
    assert rows["dynamic-sampling"]["verdict"] == "seen here"


def test_a_claim_without_its_entry_in_params_is_named():
    with pytest.raises(StudyError, match="params.yaml, claims: entropy"):
        claims.judge_claims(results(), {name: test for name, test in FIXED.items() if name != "entropy"})


def test_logic_is_called_the_largest_gain_only_where_it_is():
    table = random_counts({"base": 0.1, "s3": 0.5}, per_domain=100)
    after = (table.model == "s3") & (table.split == "test") & (table.setting == "sampled")
    for domain, word in (("logic", "seen here"), ("math", "opposite here")):
        chosen = table.copy()
        rows = after & (chosen.domain == domain)
        chosen.loc[rows, ["solved", "lenient_solved"]] = chosen.loc[rows, ["n", "n"]].to_numpy()
        assert verdicts(from_counts(chosen))["logic-largest"] == word


def test_one_domain_that_falls_is_a_sacrifice():
    assert verdicts(results(0.3, 0.6))["no-domain-sacrificed"] == "seen here"
    table = random_counts({"base": 0.4, "s3": 0.6}, per_domain=100)
    rows = (table.model == "s3") & (table.domain == "stem")
    table.loc[rows, "solved"] = 0
    assert verdicts(from_counts(table))["no-domain-sacrificed"] == "opposite here"


def test_the_margin_of_params_is_the_one_that_is_added_to_the_smallest_gain():
    found = results(0.3, 0.4)
    own = FIXED["no-domain-sacrificed"]
    wider = FIXED | {"no-domain-sacrificed": replace(own, margin=own.margin + 3.5)}
    before, after = (
        {row["id"]: row for row in claims.judge_claims(found, tests)} for tests in (FIXED, wider)
    )
    one, other = (rows.pop("no-domain-sacrificed") for rows in (before, after))
    for end in ("value", "ci_low", "ci_high"):
        assert other[end] - one[end] == pytest.approx(3.5, abs=1e-9), end
    assert f"the margin of {own.margin + 3.5:g} is added" in other["detail"]
    assert before == after


def test_sentences_hold_the_numbers_of_their_row_and_no_other():
    for row in claims.judge_claims(results(entropy=[0.5] * 40), FIXED):
        assert row["sentence"].startswith(row["verdict"].capitalize())
        if row["value"] is not None:
            digits = 1 if row["unit"] == "points" else 3
            assert f"{row['value']:+.{digits}f} {row['unit']}" in row["sentence"]
