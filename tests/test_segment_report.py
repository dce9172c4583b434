"""What pages say of a finished segment."""

import numpy as np
import pandas as pd
import pytest

from prorl_study import segment_report


def log(reward, entropy):
    return pd.DataFrame({"reward": reward, "entropy": entropy})


def test_a_change_within_a_segment_is_named_by_its_interval():
    noise = np.random.default_rng(1).normal(0, 0.01, 30)
    said = segment_report.curves_said(log(np.linspace(0.2, 0.6, 30) + noise, 0.5 + noise))
    assert "reward rises (+0.2" in said and "entropy is not seen to change" in said
    assert "reward falls (-0.2" in segment_report.curves_said(log(np.linspace(0.6, 0.2, 30) + noise, noise))
    assert segment_report.curves_said(log([0.1] * 5, [0.1] * 5)).startswith("Too few steps")


def test_validation_is_said_to_move_only_where_chance_in_its_problems_is_smaller():
    def checks(before, after):
        return pd.DataFrame(
            {"validation/math": [before, 0.5, after], "validation/code": [before, 0.5, after]}
        )

    # half a width of 1.96 sqrt((p q + p' q') / n / 2 domains)
    half = 196 * np.sqrt((0.4 * 0.6 + 0.5 * 0.5) / 20 / 2)
    said = segment_report.validation_said(checks(0.4, 0.5), 20)
    assert "is not seen to change: +10.0 points" in said and f"[{10 - half:+.1f}, {10 + half:+.1f}]" in said
    assert "rises: +10.0" in segment_report.validation_said(checks(0.4, 0.5), 2000)
    assert "falls: -60.0" in segment_report.validation_said(checks(0.8, 0.2), 20)
    assert segment_report.validation_said(checks(0.4, 0.5).iloc[:1], 20).startswith("One check only")


def test_a_segment_is_summed_up_by_the_first_and_the_last_tenth_of_its_steps():
    steps = pd.DataFrame({"reward": np.arange(20.0), "entropy": 1.0, "kl": [np.nan] * 19 + [3.0]})
    found = segment_report.summarise(steps)
    assert found["steps"] == 20 and (found["reward_start"], found["reward_end"]) == (0.5, 18.5)
    assert found["kl_start"] == found["kl_end"] == 3.0 and "kl_share_start" not in found


def test_domains_share_what_was_kept_and_one_that_was_never_there_has_no_row():
    steps = pd.DataFrame(
        {"kept/math": [3, 3], "kept/code": [1, 1], "sampled/math": [4, 4], "sampled/code": [4, 4]}
    )
    steps["informative/math"], steps["informative/code"] = [3, 4], [1, 1]
    table = segment_report.per_domain(steps, ["math", "code", "stem"]).set_index("domain")
    assert list(table.index) == ["math", "code"]
    assert table["share of kept"].tolist() == pytest.approx([0.75, 0.25])
    assert table.informative.tolist() == pytest.approx([7 / 8, 2 / 8])
