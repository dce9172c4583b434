"""The sample browser: what is drawn, that hostile text stays text, and that the filters filter."""

from __future__ import annotations

import json
import re
import unicodedata
from html import unescape
from random import Random

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from synthetic import completion, problems

from prorl_study import audit, browser, evaluation, sampling
from prorl_study.domains import DOMAINS, STATUSES, Problem
from prorl_study.errors import StudyError
from prorl_study.verification.pool import VerificationPool

PER_DOMAIN = 8
TESTED = problems("test", PER_DOMAIN)
ALLOWED = {
    "section",
    "style",
    "div",
    "fieldset",
    "legend",
    "label",
    "input",
    "article",
    "h3",
    "h4",
    "p",
    "pre",
}
ALLOWED |= {"details", "summary", "mark", "strong"}
ATTRIBUTES = {"class", "id", "type", "name", "checked", "autocomplete"}
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "closing": "</pre></article></section></style><script src=//x.example/a.js></script>",
    "attribute": '" onmouseover="alert(1)" x=\'',
    "style": "</style><style>* { display: none }</style>",
    "entity": "&lt;script&gt; &amp; &#0; &nbsp",
    "comment": "<!-- <![CDATA[ ]]> -->",
    "image": '<img src="https://x.example/p.png" onerror=alert(1)>',
    "null": "a\x00b\x07\x1b[31mc\r\nd",
    "bidi": "access \u202e\u2066// admin\u2069\u202c",
    "unseen": "a\u200bb\ufeffc\u00add\u2028e\u00a0f",
    "surrogate": "half \ud800 a pair",
    "markdown": "$x$ {{ 7 * 7 }} {% raw %}",
    "first line": "\n\n  indented\ttext\n",
    "nothing": "",
    "own mark": "<mark>[U+202E]</mark> [… 12 more characters are not shown]",
}


def sampled(
    texts: list[list[str]], pool: VerificationPool, model: str, tested: list[Problem]
) -> pd.DataFrame:
    """Texts per problem as `evaluation.evaluate_model` leaves them, with greedy rows beside."""
    drawn = [[sampling.Sample(text, len(text.split()), False) for text in mine] for mine in texts]
    frame = evaluation.judge(tested, drawn, pool).assign(model=model, setting="sampled", temperature=0.6)
    return pd.concat([frame, frame[frame["sample"] == 0].assign(setting="greedy")], ignore_index=True)


def answers(problem: Problem, right: int, count: int) -> list[str]:
    """The first `right` of every four are right; the others differ in how they are wrong."""
    garbage = DOMAINS[problem.domain].garbage(problem, Random(problem.id))
    wrong = [completion(problem, False), completion(problem, True, slipped=True), garbage]
    return [completion(problem, True) if i % 4 < right else wrong[i % 3] for i in range(count)]


@pytest.fixture(scope="module")
def models() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Base with eight samples, trained model with four; two bits of a problem's number set the change."""
    with VerificationPool(workers=2) as pool:
        number = {p.id: i % PER_DOMAIN for i, p in enumerate(TESTED)}
        base = [answers(p, 3 if number[p.id] & 1 else 1, 8) for p in TESTED]
        trained = [answers(p, 4 if number[p.id] & 2 else 2, 4) for p in TESTED]
        return sampled(base, pool, "base", TESTED), sampled(trained, pool, "s3", TESTED)


@pytest.fixture(scope="module")
def samples(models: tuple[pd.DataFrame, pd.DataFrame]) -> pd.DataFrame:
    return browser.comparable(*models, TESTED)


def soup(html: object) -> BeautifulSoup:
    return BeautifulSoup(html.data, "html.parser")


# ---- what is compared


def test_both_models_are_compared_at_the_same_number_of_sampled_answers(samples: pd.DataFrame) -> None:
    assert samples.groupby(["side", "problem"])["sample"].apply(list).map(lambda x: x == [0, 1, 2, 3]).all()
    assert (samples.n == 4).all() and (samples.setting == "sampled").all()
    assert samples[samples.side == "base"].problem.drop_duplicates().tolist() == [p.id for p in TESTED]


def test_changes_follow_the_majority_of_answers(samples: pd.DataFrame) -> None:
    table = browser.changes(samples)
    for i, problem in enumerate(TESTED):
        before, after = bool(i % PER_DOMAIN & 1), bool(i % PER_DOMAIN & 2)
        names = {
            (0, 1): "newly solved",
            (1, 0): "lost",
            (1, 1): "solved by both",
            (0, 0): "solved by neither",
        }
        row = table.loc[problem.id]
        assert (row.base, row.trained) == (3 if before else 1, 4 if after else 2), problem.id
        assert row.change == names[before, after]  # two of four are no majority


def test_a_model_compared_with_itself_changes_nothing(models: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    table = browser.changes(browser.comparable(models[0], models[0], TESTED))
    assert set(table.change) == {"solved by both", "solved by neither"}


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            lambda f: f[f.problem != TESTED[3].id],
            f"no sampled answer to 1 of 40 problems, such as {TESTED[3].id}",
        ),
        (lambda f: f[f.setting == "greedy"], "trained model: no sampled answer to 40 of 40"),
        (lambda f: f.assign(domain="<b>"), "the domain '<b>', which is none of math, code"),
        (lambda f: f.assign(status='"x'), "the status '\"x', which is none of correct, partial"),
    ],
)
def test_samples_that_do_not_fit_are_refused(models, spoil, message: str) -> None:
    with pytest.raises(StudyError, match=re.escape(message)):
        browser.comparable(models[0], spoil(models[1]), TESTED)


# ---- what is drawn


@pytest.mark.parametrize(
    "available, wanted, expected",
    [
        ((9, 9, 9, 9), 8, (2, 2, 2, 2)),
        ((9, 9, 9, 9), 6, (2, 2, 1, 1)),
        ((0, 1, 9, 2), 8, (0, 1, 5, 2)),
        ((1, 0, 1, 0), 8, (1, 0, 1, 0)),
        ((0, 0, 0, 0), 8, (0, 0, 0, 0)),
        ((5, 5, 5, 5), 0, (0, 0, 0, 0)),
    ],
)
def test_draws_are_spread_evenly_and_go_to_others_where_a_stratum_is_short(
    available, wanted, expected
) -> None:
    counts = browser.quotas(dict(zip(browser.CHANGES, available, strict=True)), wanted)
    assert tuple(counts.values()) == expected


def test_pairs_are_evenly_drawn_and_look_as_their_stratum_says(samples: pd.DataFrame) -> None:
    drawn = browser.pairs(samples, per_domain=6, seed=1)
    assert drawn.problem.is_unique and len(drawn) == 6 * len(DOMAINS)
    counts = pd.crosstab(drawn.domain, drawn.change)[list(browser.CHANGES)]
    assert (counts.to_numpy() == [2, 2, 1, 1]).all()
    solves = {"newly solved": (0, 1), "lost": (1, 0), "solved by both": (1, 1), "solved by neither": (0, 0)}
    for row in drawn.itertuples():
        assert (row.base_solved, row.trained_solved) == solves[row.change]


def test_both_answers_of_a_pair_belong_to_its_problem(samples: pd.DataFrame) -> None:
    drawn = browser.pairs(samples, per_domain=8, seed=1)
    known = samples.set_index(["side", "problem", "sample"])
    for row in drawn.to_dict("records"):
        for side in audit.SIDES:
            own = known.loc[(side, row["problem"], row[f"{side}_sample"])]
            for name in ("text", "status", "reason", "score", "tokens", "domain", "model"):
                assert own[name] == row.get(f"{side}_{name}", row.get(name))


def test_the_shown_answer_is_the_first_with_the_usual_outcome(samples: pd.DataFrame) -> None:
    drawn = browser.pairs(samples, per_domain=8, seed=1)
    base = {True: 0, False: 1}  # answers of the base are right up to the first or the third of four
    assert all(row.base_sample == base[row.base > 2] for row in drawn.itertuples())
    assert all(row.trained_sample == (0 if row.trained == 4 else 2) for row in drawn.itertuples())


def test_a_seed_gives_one_draw_whatever_the_order_of_rows(models: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    shuffled = [frame.sample(frac=1, random_state=3) for frame in models]
    pages = [
        browser.pairs_html(browser.pairs(browser.comparable(*two, TESTED), 4, seed), TESTED).data
        for two, seed in ((models, 1), (shuffled, 1), (models, 2))
    ]
    assert pages[0] == pages[1] != pages[2]


def test_a_larger_draw_holds_the_smaller_one(samples: pd.DataFrame) -> None:
    small, large = (set(browser.pairs(samples, n, seed=1).problem) for n in (4, 7))
    assert small < large


# ---- hostile text


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_shown_and_does_nothing(text: str) -> None:
    html = browser.visible(text, 10_000)
    html.encode()
    page = BeautifulSoup(f"<pre>{html}</pre>", "html.parser")
    assert {tag.name for tag in page.find_all()} <= {"pre", "mark"} and not page.find_all(attrs=True)
    assert not [c for c in page.text if c not in "\n\t " and unicodedata.category(c)[0] in "CZ"]
    parts = re.split(r"<mark>\[U\+([0-9A-F]+)\]</mark>", html)  # every second one is a character's number
    back = [chr(int(part, 16)) if i % 2 else unescape(part) for i, part in enumerate(parts)]
    assert "".join(back) == (text or "<mark>[nothing]</mark>")


def test_long_text_is_cut_visibly_and_counted() -> None:
    for text in ("a" * 10**6, "<" * 10**6, "a\u202e" * 500_000, "語" * 10**6, "<<<<<b" * 200_000):
        html = browser.visible(text, 1003)
        assert len(html.encode()) < 1100
        shown, rest = re.fullmatch(
            r"(.*)<mark>\[… ([\d,]+) more characters are not shown\]</mark>", html
        ).groups()
        start = unescape(shown.replace("<mark>[U+202E]</mark>", "\u202e"))
        assert text.startswith(start) and len(start) + int(rest.replace(",", "")) == len(text)
        assert len(start) > 40
    assert "not shown" not in browser.visible("a" * 1000, 1000)
    assert browser.visible("\x00" * 10**6, 1000) == "<mark>[U+0000 ×1000000]</mark>"


def hostile_pages(samples: pd.DataFrame, text: str) -> tuple[object, object]:
    """Both pages with `text` wherever a model or a data set can write."""
    tested = [
        Problem(
            **{
                **vars(p),
                "task": text,
                "answer": text,
                "checks": {"tests": text},
                "prompt": [{"role": "user", "content": text}],
            }
        )
        for p in TESTED
    ]
    spoilt = samples.assign(
        text=text, reason=text, answer=text, lenient_answer="other", task=text, model=text
    )
    full = audit.full_scores(spoilt.assign(score=1.0), tested)
    drawn = audit.draw(full, per_domain=3, per_rule=1, seed=1)
    return browser.pairs_html(browser.pairs(spoilt, 8, 1), tested), browser.audit_html(drawn, tested)


@pytest.mark.parametrize("name", sorted(set(HOSTILE) - {"surrogate"}))  # no table can hold that one
def test_pages_of_hostile_answers_have_only_their_own_markup(samples: pd.DataFrame, name: str) -> None:
    for page in hostile_pages(samples, HOSTILE[name]):
        found = soup(page)
        assert {tag.name for tag in found.find_all()} <= ALLOWED
        names = {name for tag in found.find_all() for name in tag.attrs}
        assert all(name in ATTRIBUTES or name.startswith("data-") for name in names)
        assert len(found.find_all("section")) == 1 and len(found.find_all("style")) == 2
        assert "<script" not in page.data and not re.search(r"(?:src|href)\s*=\s*[\"']", page.data)
        page.data.encode()


def test_pages_stay_small_whatever_was_written(samples: pd.DataFrame) -> None:
    for text in ("<" * 5_000, "a\u202e" * 2_500):
        pair_page, audit_page = hostile_pages(samples, text)
        cards = [len(soup(page).find_all("article")) for page in (pair_page, audit_page)]
        assert len(pair_page.data.encode()) < cards[0] * 5 * browser.TEXT_BYTES + 20_000
        assert len(audit_page.data.encode()) < cards[1] * 4 * browser.TEXT_BYTES + 20_000
        assert "more characters are not shown" in pair_page.data


# ---- the page


@pytest.fixture(scope="module")
def pages(samples: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, object]]:
    pairs = browser.pairs(samples, 8, 1)
    drawn = audit.draw(audit.full_scores(samples, TESTED), 4, 2, 1)
    return {
        "pairs": (pairs, browser.pairs_html(pairs, TESTED)),
        "audit": (drawn, browser.audit_html(drawn, TESTED)),
    }


def test_pages_hold_every_drawn_text_as_it_was_written(pages) -> None:
    pairs, page = pages["pairs"]
    for row, card in zip(pairs.itertuples(), soup(page).find_all("article"), strict=True):
        problem = next(p for p in TESTED if p.id == row.problem)
        shown = [pre.text.removeprefix("\n") for pre in card.find_all("pre")]
        assert shown[0] == problem.prompt[0]["content"]
        assert shown[1] == problem.answer
        assert json.loads(shown[2]) == json.loads(json.dumps(problem.checks))
        assert shown[3:] == [row.base_text, row.trained_text]
        assert row.change in card.text and row.base_status in card.text and row.trained_status in card.text
    drawn, page = pages["audit"]
    for row, card in zip(drawn.itertuples(), soup(page).find_all("article"), strict=True):
        assert card.find_all("pre")[-1].text.removeprefix("\n") == row.text
        assert f"Drawn by: {', '.join(row.drawn)}" in card.text


def test_pages_have_no_script_and_no_address(pages) -> None:
    for _, page in pages.values():
        assert "<script" not in page.data and "http" not in page.data and "url(" not in page.data


def test_filters_exist_for_what_occurs_and_for_nothing_else(pages) -> None:
    pairs, page = pages["pairs"]
    legends = [f.legend.text for f in soup(page).find_all("fieldset")]
    assert legends == ["domain", "change", "base answer", "trained answer"]
    for legend, column, known in zip(
        legends,
        ("domain", "change", "base_status", "trained_status"),
        (DOMAINS, browser.CHANGES, STATUSES, STATUSES),
        strict=True,
    ):
        field = soup(page).find("legend", string=legend).parent
        counts = pairs[column].value_counts()
        options = [f"{name} ({counts[name]})" for name in known if name in counts]
        assert [label.text.strip() for label in field.find_all("label")] == ["all", *options]
    assert {"wrong", "correct", "unparseable"} <= set(pairs.base_status) | set(pairs.trained_status)


def kept(page: BeautifulSoup, *chosen: str) -> list[dict[str, str]]:
    """What the page's own styles leave of its cards when the buttons with these ids are chosen."""
    for name in chosen:
        for button in page.find_all("input", attrs={"name": page.find(id=name)["name"]}):
            button.attrs.pop("checked", None)
        page.find(id=name)["checked"] = ""
    sheet = " ".join(style.text for style in page.find_all("style"))
    rules = re.findall(r"(#\S+:has\(#\S+:checked\) article:not\(\[[^\]]+\]\)) { display: none; }", sheet)
    assert len(rules) == len(page.find_all("input", id=True))
    hidden = {id(card) for rule in rules for card in page.select(rule)}
    return [card.attrs for card in page.find_all("article") if id(card) not in hidden]


def test_every_filter_hides_all_but_its_value(pages) -> None:
    for prefix, (_, page) in pages.items():
        cards = kept(soup(page))
        assert len(cards) == len(soup(page).find_all("article"))
        for button in soup(page).find_all("input", id=True):
            group = button["name"].removeprefix(f"{prefix}-")
            value = button["id"].removeprefix(f"{button['name']}-")
            left = kept(soup(page), button["id"])
            assert left == [card for card in cards if value in card[f"data-{group}"].split()]
            assert f"({len(left)})" in button.parent.text and left


def test_filters_combine(pages) -> None:
    pairs, page = pages["pairs"]
    left = kept(soup(page), "pairs-domain-code", "pairs-change-lost")
    assert len(left) == ((pairs.domain == "code") & (pairs.change == "lost")).sum() == 2
    nothing = ("pairs-change-lost", "pairs-trained-answer-correct")
    assert kept(soup(page), *nothing) == []


def test_filters_can_be_worked_with_a_keyboard_and_a_screen_reader(pages) -> None:
    for _, page in pages.values():
        found = soup(page)
        buttons = found.find_all("input")
        assert all(button["type"] == "radio" and button.parent.name == "label" for button in buttons)
        assert all(button.find_parent("fieldset").legend for button in buttons)
        names = {button["name"] for button in buttons}
        assert all(len(found.find_all("input", attrs={"name": name, "checked": True})) == 1 for name in names)
        ids = [tag["id"] for tag in found.find_all(id=True)]
        assert len(set(ids)) == len(ids)


def test_nothing_drawn_gives_an_empty_page(samples: pd.DataFrame) -> None:
    empty = browser.pairs_html(browser.pairs(samples, 0, 1), TESTED)
    assert not soup(empty).find_all(["article", "fieldset"])
    none = audit.full_scores(samples[samples.score < 0], TESTED)
    assert not soup(browser.audit_html(audit.draw(none, 3, 2, 1), TESTED)).find_all(["article", "fieldset"])
