"""Answers to read: base and trained model side by side, and what the audit drew, as HTML with filters.

Which answers are shown is decided by rules and a seed, never by eye. Model output is hostile: it is escaped,
characters that cannot be seen are spelled out, long texts are folded and cut where it says so. Filters are
radio buttons and style sheets, without a script; where styles are missing, all is shown.

Left out: judging answers again (`evaluation` has done it), what makes a full score suspicious (`audit`), and
search in the texts, which needs a script.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

import pandas as pd
from IPython.display import HTML

from prorl_study.audit import ANY, RULES, SIDES, UNIFORM
from prorl_study.domains import DOMAINS, STATUSES, Problem
from prorl_study.errors import StudyError
from prorl_study.problems import prompt_text
from prorl_study.statistics import named_rng

CHANGES = ("newly solved", "lost", "solved by both", "solved by neither")
"""What training changed on a problem. A model solves it when more than half of its answers do, strictly."""
LEVEL = 0.05
"""Of the audit's tests in the finding, after their correction."""
TEXT_BYTES = 3000
"""Bytes of HTML that a prompt or an answer may take on a page; gold answers and checks may take half of it,
names and reasons an eighth."""
FOLD = 700
"""Characters beyond which a text is folded."""


# -- the answers of both models ---------------------------------------------------------------------------


def comparable(base: pd.DataFrame, trained: pd.DataFrame, problems: Sequence[Problem]) -> pd.DataFrame:
    """The sampled answers of both models to `problems`, in their order, equally many for each.

    `base` and `trained` are tables of `evaluation.evaluate_model`; the column `side` is added. Raises
    StudyError where a model has no answer to a problem, or a row names an unknown domain or status.
    """
    place = {problem.id: i for i, problem in enumerate(problems)}
    parts = []
    for side, frame in zip(SIDES, (base, trained), strict=True):
        part = frame[(frame.setting == "sampled") & frame.problem.isin(place)].assign(side=side)
        missing = set(place) - set(part.problem)
        if missing:
            raise StudyError(
                f"{side} model: no sampled answer to {len(missing)} of {len(place)} problems, such as "
                f"{min(missing)}; evaluate both models again with `dvc repro --force benchmarks`."
            )
        parts.append(part)
    both = pd.concat(parts, ignore_index=True)
    for column, known in (("domain", tuple(DOMAINS)), ("status", STATUSES)):
        unknown = sorted(set(both[column]) - set(known))
        if unknown:
            raise StudyError(
                f"samples have the {column} {unknown[0]!r}, which is none of {', '.join(known)}; make them "
                "again with `dvc repro --force benchmarks`."
            )
    n = both.groupby(["side", "problem"]).size().min()
    both = both[both["sample"] < n].assign(place=both.problem.map(place), n=n)
    return both.sort_values(["side", "place", "sample"]).drop(columns="place").reset_index(drop=True)


def changes(samples: pd.DataFrame) -> pd.DataFrame:
    """Per problem: `domain`, answers `n` of each model, how many `base` and `trained` solve, `change`."""
    solved = samples.pivot_table(index="problem", columns="side", values="solved", aggfunc="sum", sort=False)
    table = samples.drop_duplicates("problem").set_index("problem")[["domain", "n"]].join(solved)
    before, after = (2 * table[side] > table.n for side in SIDES)
    table["change"] = "solved by neither"
    table.loc[before & after, "change"] = "solved by both"
    table.loc[before & ~after, "change"] = "lost"
    table.loc[after & ~before, "change"] = "newly solved"
    return table


# -- pairs ------------------------------------------------------------------------------------------------


def quotas(available: Mapping[str, int], wanted: int) -> dict[str, int]:
    """`wanted` draws spread evenly over the strata; what one lacks goes to the others, the first before."""
    counts = dict.fromkeys(available, 0)
    while sum(counts.values()) < min(wanted, sum(available.values())):
        open_to = [name for name in available if counts[name] < available[name]]
        counts[min(open_to, key=lambda name: counts[name])] += 1
    return counts


def pairs(samples: pd.DataFrame, per_domain: int, seed: int) -> pd.DataFrame:
    """Problems drawn per domain, evenly over `CHANGES`, each with one answer of each model.

    The answer shown is the model's first one with its usual outcome (solved or not), so that the pair looks
    as its stratum says. Columns: those of `changes`, and the samples' own as `base_text`, `trained_text` ...
    """
    table = changes(samples)
    drawn = []
    for domain in DOMAINS:
        strata = {name: table[(table.domain == domain) & (table.change == name)] for name in CHANGES}
        counts = quotas({name: len(part) for name, part in strata.items()}, per_domain)
        for name, part in strata.items():
            order = named_rng(seed, "pairs", domain, name).permutation(len(part))[: counts[name]]
            drawn.append(part.iloc[sorted(order)])
    drawn = pd.concat(drawn)
    for side in SIDES:
        usual = 2 * table[side] > table.n
        own = samples[(samples.side == side) & (samples.solved == samples.problem.map(usual).astype(int))]
        first = own.drop_duplicates("problem").set_index("problem").drop(columns=["domain", "n", "side"])
        drawn = drawn.join(first.add_prefix(f"{side}_"))
    return drawn.rename_axis("problem").reset_index()


def finding(samples: pd.DataFrame, rows: Sequence[Mapping[str, Any]]) -> str:
    """The page in one sentence, from `comparable` and `audit.rates`."""
    name = samples.loc[samples.side == "trained", "model"].iloc[0]
    table = changes(samples)
    count = table.change.value_counts()
    overall = {row["rule"]: row for row in rows if row["domain"] == "all"}
    clear = [row for row in overall.values() if row["rule"] != ANY and row["p_adjusted"] < LEVEL]
    more = [row["rule"] for row in clear if row["problems_more"] > row["problems_fewer"]]
    fewer = [row["rule"] for row in clear if row["problems_more"] < row["problems_fewer"]]
    shares = [overall[ANY][f"{side}_percent"] for side in SIDES]
    before, after = ("none" if share is None else f"{share:.1f} %" for share in shares)
    return (
        f"Of {len(table)} problems {name} newly solves {count.get('newly solved', 0)} and loses "
        f"{count.get('lost', 0)}, by majority of its answers. At least one of {len(RULES)} audit rules fires "
        f"on {after} of its full-score answers (base: {before}). Where both models have full scores, on "
        f"{overall[ANY]['problems']} problems, rules that fire more often on its answers: {_named(more)}; "
        f"less often: {_named(fewer)} (sign tests over problems, corrected for {len(RULES)} rules)."
    )


def _named(rules: Sequence[str]) -> str:
    return ", ".join(rules) or "none"


# -- HTML -------------------------------------------------------------------------------------------------

HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Zs")
"""Unicode categories that show nothing, or change how others are shown: controls, bidi and other format
characters, lone surrogates, private use, separators."""


def visible(text: str, limit: int = TEXT_BYTES) -> str:
    """`text` as HTML that shows every character and runs nothing, in about `limit` bytes.

    Invisible characters but line break, tab and blank become `[U+202E]`; what is cut is counted.
    """
    pieces, size, taken = [], 0, 0
    for char, run in groupby(text):
        length = fits = sum(1 for _ in run)
        if char not in "\n\t " and unicodedata.category(char) in HIDDEN:
            piece = f"<mark>[U+{ord(char):04X}{f' ×{length}' if length > 1 else ''}]</mark>"
        else:
            one = escape(char)
            fits = min(length, (limit - size) // len(one.encode()))
            piece = one * fits
        size += len(piece.encode())
        if size > limit:
            break
        pieces.append(piece)
        taken += fits
        if fits < length:
            break
    if taken < len(text):
        pieces.append(f"<mark>[… {len(text) - taken:,} more characters are not shown]</mark>")
    return "".join(pieces) or "<mark>[nothing]</mark>"


def _block(text: str, limit: int, summary: str = "") -> str:
    """A text as it was written; folded under `summary`, or where it is long."""
    block = f"<pre>\n{visible(text, limit)}</pre>"  # HTML drops the first line break of a pre
    if not summary and len(text) > FOLD:
        summary = f"{len(text):,} characters"
    return f"<details><summary>{summary}</summary>{block}</details>" if summary else block


def _token(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def _filters(prefix: str, found: Sequence[Mapping[str, Sequence[str]]], order: Sequence[str]) -> str:
    """Radio buttons for the values that occur, and the styles that hide the cards without the chosen one.

    `found` maps, for each card, a legend to the card's values; `order` sorts the values.
    """
    fields, styles = [], []
    for legend in found[0] if found else ():
        group = f"{prefix}-{_token(legend)}"
        options = [f'<label><input type="radio" name="{group}" autocomplete="off" checked> all</label>']
        for value in order:
            count = sum(value in card[legend] for card in found)
            if not count:
                continue
            name = f"{group}-{_token(value)}"
            options.append(
                f'<label><input type="radio" name="{group}" id="{name}" autocomplete="off"> '
                f"{escape(value)} ({count})</label>"
            )
            styles.append(
                f"#{prefix}:has(#{name}:checked) article"
                f':not([data-{_token(legend)}~="{_token(value)}"]) {{ display: none; }}'
            )
        fields.append(f"<fieldset><legend>{escape(legend)}</legend>{' '.join(options)}</fieldset>")
    return f'<style>{" ".join(styles)}</style><div class="filters">{"".join(fields)}</div>'


STYLE = """
.samples { display: grid; grid-template-columns: minmax(0, 1fr); gap: 0.75rem; counter-reset: shown; }
.samples .filters { order: 1; }
.samples .shown { order: 2; margin: 0; font-weight: 600; }
.samples .shown::after { content: counter(shown) " of " attr(data-all) " shown"; }
.samples article { order: 3; counter-increment: shown; border: 1px solid #aab4be; border-radius: 4px;
  padding: 0.6rem 0.9rem; }
.samples fieldset { border: 1px solid #aab4be; border-radius: 4px; margin: 0 0 0.4rem;
  padding: 0.2rem 0.7rem 0.3rem; }
.samples legend { font-weight: 600; padding: 0 0.3rem; }
.samples label { display: inline-block; margin-right: 0.9rem; }
.samples h3 { font-size: 1.05rem; font-weight: 600; margin: 0; }
.samples h4 { font-size: 0.95rem; margin: 0.4rem 0 0.1rem; }
.samples p { margin: 0.15rem 0; }
.samples pre { white-space: pre-wrap; word-break: normal; overflow-wrap: anywhere; overflow: auto;
  background: #f4f6f8; font-family: ui-monospace, monospace; font-size: 0.85rem; margin: 0.2rem 0;
  padding: 0.4rem 0.6rem; border-left: 3px solid #aab4be; }
.samples mark { background: #fff3c4; border: 1px solid #8a6d00; color: #1c1c1c; }
.samples .sides { display: grid; gap: 0 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); }
.samples .sides > div { min-width: 0; }
.samples summary { cursor: pointer; }
@supports not selector(:has(a)) { .samples .filters { display: none; } }
"""


def _page(prefix: str, cards: Sequence[str], filters: str) -> HTML:
    return HTML(
        f'<section class="samples" id="{prefix}"><style>{STYLE}</style>{filters}{"".join(cards)}'
        f'<p class="shown" data-all="{len(cards)}"></p></section>'
    )


def _head(problem: Problem, limit: int) -> str:
    """What every card starts with: the problem, its prompt, gold answer and checks."""
    title = f"{problem.domain} · {problem.task} · {problem.difficulty} steps · {problem.id}"
    checks = json.dumps(problem.checks, ensure_ascii=False, sort_keys=True)
    return (
        f'<h3>{visible(title, limit // 8)}</h3><div class="sides">'
        f"<div><h4>prompt</h4>{_block(prompt_text(problem), limit)}</div>"
        f"<div><h4>gold answer</h4>{_block(problem.answer, limit // 2)}</div></div>"
        + _block(checks, limit // 2, "what an answer is checked against")
    )


def _answer(row: Mapping[str, Any], heading: str, limit: int) -> str:
    """One model's answer with its verdict, under `heading`; `row` is one of the samples."""
    reason = f": {visible(row['reason'], limit // 8)}" if row["reason"] else ""
    cut = ", cut off at the cap" if row["truncated"] else ""
    return (
        f"<h4>{heading} model, {visible(row['model'], limit // 8)}</h4>"
        f"<p><strong>{escape(row['status'])}</strong>{reason}; score {row['score']:.2f}, "
        f"{row['tokens']} tokens{cut}, answer {row['sample'] + 1} of {row['n']}</p>"
        + _block(row["text"], limit)
    )


def _article(values: Mapping[str, Sequence[str]], body: str) -> str:
    """A card; `values` maps the filters' legends to what the card is found under."""
    data = (f'data-{_token(legend)}="{" ".join(map(_token, names))}"' for legend, names in values.items())
    return f"<article {' '.join(data)}>{body}</article>"


def pairs_html(drawn: pd.DataFrame, problems: Sequence[Problem], limit: int = TEXT_BYTES) -> HTML:
    """The rows of `pairs` as cards, the two answers side by side, with filters above.

    A card takes at most about 5 `limit` bytes, whatever the models wrote.
    """
    by_id = {problem.id: problem for problem in problems}
    cards, found = [], []
    for row in drawn.to_dict("records"):
        answers = {
            side: {key.removeprefix(f"{side}_"): row[key] for key in row if key.startswith(f"{side}_")}
            for side in SIDES
        }
        sides = (f"<div>{_answer({**answers[side], 'n': row['n']}, side, limit)}</div>" for side in SIDES)
        change = f"{row['change']}: base right in {row['base']} of {row['n']}, trained in {row['trained']}"
        found.append(
            {
                "domain": [row["domain"]],
                "change": [row["change"]],
                "base answer": [row["base_status"]],
                "trained answer": [row["trained_status"]],
            }
        )
        head = f"{_head(by_id[row['problem']], limit)}<p>{escape(change)}</p>"
        cards.append(_article(found[-1], f'{head}<div class="sides">{"".join(sides)}</div>'))
    return _page("pairs", cards, _filters("pairs", found, (*DOMAINS, *CHANGES, *STATUSES)))


def audit_html(drawn: pd.DataFrame, problems: Sequence[Problem], limit: int = TEXT_BYTES) -> HTML:
    """The rows of `audit.draw` as cards, with filters above. A card takes at most about 4 `limit` bytes."""
    by_id = {problem.id: problem for problem in problems}
    cards, found = [], []
    for row in drawn.to_dict("records"):
        fired = ", ".join(name for name in RULES if row[name]) or "none"
        found.append({"domain": [row["domain"]], "status": [row["status"]], "drawn by": row["drawn"]})
        body = (
            f"{_head(by_id[row['problem']], limit)}<p>Drawn by: <strong>{escape(', '.join(row['drawn']))}"
            f"</strong>. Rules that fire: {escape(fired)}.</p>{_answer(row, 'trained', limit)}"
        )
        cards.append(_article(found[-1], body))
    return _page("audit", cards, _filters("audit", found, (*DOMAINS, *STATUSES, UNIFORM, *RULES)))
