"""Figures repeat bit for bit, carry alternative text and one colour per domain; tables are accessible."""

from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from synthetic import PAPER, random_counts

from prorl_study import benchmarks, figures, tables

CLAIM_ROWS = [
    {"id": "a", "unit": "points", "value": 3.0, "ci_low": 1.0, "ci_high": 5.0, "verdict": "seen here"},
    {"id": "b", "unit": "points", "value": -1.0, "ci_low": -3.0, "ci_high": 2.0, "verdict": "undecided"},
    {"id": "c", "unit": "nats", "value": 0.1, "ci_low": 0.0, "ci_high": 0.2, "verdict": "undecided"},
    {"id": "d", "unit": "points", "value": None, "ci_low": None, "ci_high": None, "verdict": "not run"},
]


@pytest.fixture(scope="module")
def results():
    table = random_counts({"base": 0.2, "s1": 0.4, "s2": 0.6}, per_domain=20)
    rows = benchmarks.benchmark_rows(table, seed=1, resamples=50)
    return rows, benchmarks.gains(table, PAPER, "s2", seed=1, resamples=50)


@pytest.fixture(autouse=True)
def close_figures():
    figures.use_style()
    yield
    plt.close("all")


def training_log():
    rng = np.random.default_rng(0)
    steps = 30
    log = {"step": range(1, steps + 1), "tokens_sampled": range(1000, 1000 * (steps + 1), 1000)}
    for name in ("reward", "entropy", "kl", "kept_fraction", "reward/math", "reward/logic"):
        log[name] = rng.random(steps)
    for domain in ("math", "logic"):
        log[f"sampled/{domain}"] = [0, *rng.integers(1, 9, steps - 1)]
        log[f"informative/{domain}"] = 0
    return pd.DataFrame(log)


def makers(results):
    rows, gains = results
    slices = benchmarks.slices(random_counts({"base": 0.2, "s1": 0.4}), "difficulty", "test", 1, 50)
    frame = pd.DataFrame([r for r in rows if r["split"] == "test" and r["metric"] in ("strict", "greedy")])
    base = frame[frame.model == "base"]
    return {
        "gains": lambda: figures.gains_figure(gains),
        "pass_at_k": lambda: figures.pass_at_k_figure(rows, "hard"),
        "slices": lambda: figures.slices_figure(slices, "difficulty", "steps"),
        "claims": lambda: figures.claims_figure(CLAIM_ROWS),
        "line": lambda: figures.line_figure(training_log().iloc[:15], "step", ["reward", "kl"], smooth=3),
        "training": lambda: figures.training_curves(training_log(), marks=[15_000]),
        "bars": lambda: figures.domain_bars(base, "value", "metric", "solved (%)", "ci_low", "ci_high"),
    }


@pytest.mark.parametrize("name", ["gains", "pass_at_k", "slices", "claims", "line", "training", "bars"])
def test_figures_repeat_byte_for_byte_and_label_their_axes(results, name):
    make = makers(results)[name]
    fig = make()
    visible = [axis for axis in fig.axes if axis.get_visible()]
    assert all(axis.get_xlabel() or len(axis.get_xticklabels()) for axis in visible)
    assert any(axis.get_ylabel() or axis.get_xlabel() for axis in visible)
    assert figures.png(fig) == figures.png(make())


def test_shown_figure_carries_its_alternative_text_and_is_closed(results, monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", shown.append)
    fig = makers(results)["gains"]()
    figures.show(fig, "five gains above zero", caption="n = 20 & one seed")
    data, metadata = shown[0]._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == "five gains above zero"
    assert "n = 20 &amp; one seed" in shown[1].data
    assert "image/png" in data and not plt.fignum_exists(fig.number)


def test_a_figure_without_alternative_text_is_refused():
    with pytest.raises(ValueError):
        figures.show(plt.figure(), " ")


def test_gains_figure_draws_every_domain_at_its_value_in_its_colour(results):
    _, gains = results
    axis = figures.gains_figure(gains).axes[0]
    labels = [text.get_text() for text in axis.get_yticklabels()]
    assert labels == list(figures.DOMAIN_ORDER)
    drawn = {(round(float(x), 6), to_hex(line.get_color())) for line in axis.lines for x in line.get_xdata()}
    for row in gains:
        if row["measure"] == "strict":
            assert (round(row["gain_over_training_free"], 6), figures.DOMAIN_COLOURS[row["domain"]]) in drawn


def test_pass_at_k_has_a_panel_per_domain_and_a_curve_per_model(results):
    rows, _ = results
    axes = [axis for axis in figures.pass_at_k_figure(rows, "hard").axes if axis.get_visible()]
    assert [axis.get_title().partition(",")[0] for axis in axes] == list(figures.DOMAIN_ORDER)
    assert all(len(axis.lines) == 3 for axis in axes)
    with pytest.raises(ValueError, match="nowhere"):
        figures.pass_at_k_figure(rows, "nowhere")


def test_domain_colours_differ():
    assert len(set(figures.DOMAIN_COLOURS.values())) == len(figures.DOMAIN_ORDER)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def test_tables_have_a_caption_scoped_headers_and_no_script_and_escape_their_content():
    frame = pd.DataFrame({"domain": ["<script>x</script>"], "value": [12.345], "n": [7]})
    parser = Tags()
    parser.feed(tables.table(frame, "Gains & more", {"domain": "Domain", "value": "Gain", "n": "n"}).data)
    tags = [tag for tag, _ in parser.seen]
    scopes = [attrs["scope"] for tag, attrs in parser.seen if tag == "th"]
    assert tags.count("caption") == 1 and "script" not in tags
    assert scopes == ["col", "col", "col", "row"]
    assert {"12.3", "7", "<script>x</script>", "Gains & more"} <= set(parser.text)


def test_intervals_are_written_with_their_value():
    frame = pd.DataFrame({"v": [0.123, None], "l": [0.101, None], "h": [0.145, None]})
    assert tables.with_interval(frame, "v", "l", "h", scale=100).tolist() == ["12.3 [10.1, 14.5]", "–"]
    assert tables.interval(1.0, float("nan"), 2.0) == "1.0"


def test_wide_table_has_a_row_per_domain_and_model_with_intervals_in_percent(results):
    rows, _ = results
    wide = tables.wide(rows, "test", ["strict", "greedy"], models=["base", "s2"])
    assert list(wide) == ["domain", "model", "strict", "greedy"] and len(wide) == 10
    cell = next(
        r
        for r in rows
        if (r["model"], r["domain"], r["split"], r["metric"]) == ("s2", "code", "test", "strict")
    )
    text = wide[(wide.domain == "code") & (wide.model == "s2")].strict.item()
    assert text == tables.interval(*(100 * cell[name] for name in ("value", "ci_low", "ci_high")))
