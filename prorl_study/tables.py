"""DataFrames as HTML tables that open offline: a caption, header cells with a scope, no script.

Left out: sorting and search, which need a script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd
from IPython.display import HTML, display

from prorl_study.domains import DOMAINS

LONGEST_ON_ONE_LINE = 20
"""Characters of a cell; longer text is broken into lines, so that a table of claims fits its page."""


def number(value: object, digits: int = 1) -> str:
    """`12.3`; a dash where there is no number; text and whole numbers as they are."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def interval(value: float | None, low: float | None, high: float | None, digits: int = 1) -> str:
    """`12.3 [10.1, 14.5]`; the value alone where there is no interval."""
    text = number(value, digits)
    if pd.isna(value) or pd.isna(low) or pd.isna(high):
        return text
    return f"{text} [{number(low, digits)}, {number(high, digits)}]"


def with_interval(
    frame: pd.DataFrame, value: str, low: str, high: str, *, scale: float = 1.0, digits: int = 1
) -> pd.Series:
    """The three columns as one column of text, in units of 1 / `scale` (100 turns fractions into percent)."""
    columns = (pd.to_numeric(frame[name]) * scale for name in (value, low, high))
    texts = [interval(*row, digits) for row in zip(*columns, strict=True)]
    return pd.Series(texts, index=frame.index, dtype=object)


def wide(
    rows: Sequence[Mapping[str, Any]],
    split: str,
    metrics: Sequence[str],
    models: Sequence[str],
    scale: float = 100,
) -> pd.DataFrame:
    """Benchmark rows as one row per domain and model, one column of `value [low, high]` per metric.

    `scale` 100 gives percent. Metrics that no row has are left out; a cell without a row holds a dash.
    """
    cells = {
        (row["domain"], row["model"], row["metric"]): interval(
            *(scale * row[name] for name in ("value", "ci_low", "ci_high"))
        )
        for row in rows
        if row["split"] == split
    }
    domains = [name for name in DOMAINS if any(key[0] == name for key in cells)]
    present = [metric for metric in metrics if any(key[2] == metric for key in cells)]
    return pd.DataFrame(
        [
            {"domain": d, "model": m, **{metric: cells.get((d, m, metric), "–") for metric in present}}
            for d in domains
            for m in models
        ]
    )


def sliced(
    frame: pd.DataFrame, by: str, heading: str, caption: str, models: Sequence[str], with_domain: bool = True
) -> HTML:
    """A table of `benchmarks.slices`: strict success in percent with its interval, a column per model."""
    frame = frame[frame.model.isin(models)].copy()
    frame["solved"] = with_interval(frame, "strict", "ci_low", "ci_high", scale=100)
    keys = [*(["domain"] if with_domain else []), by, "n_problems"]
    wide_frame = frame.set_index([*keys, "model"]).solved.unstack(sort=False).reset_index()
    headings = {"domain": "domain", by: heading, "n_problems": "problems", **{name: name for name in models}}
    return table(wide_frame, caption, {key: headings[key] for key in headings if key in wide_frame})


def table(
    frame: pd.DataFrame,
    caption: str,
    columns: Mapping[str, str] | Sequence[str] | None = None,
    digits: int = 1,
) -> HTML:
    """`frame` as an HTML table. The first column heads its row.

    `columns` chooses the columns, in order; as a mapping it also gives their headings. Floats are rounded
    to `digits` and set right; everything is escaped.
    """
    headings = (
        dict(columns)
        if isinstance(columns, Mapping)
        else {c: str(c).replace("_", " ") for c in columns or frame.columns}
    )
    numeric = {c for c in headings if pd.api.types.is_numeric_dtype(frame[c])}
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in headings.values())
    body = []
    for _, row in frame.iterrows():
        cells = []
        for place, column in enumerate(headings):
            text = escape(number(row[column], digits))
            style = ' style="text-align:right"' if column in numeric and place else ""
            if len(text) > LONGEST_ON_ONE_LINE:
                style = ' class="prose"'
            cells.append(f'<th scope="row"{style}>{text}</th>' if place == 0 else f"<td{style}>{text}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    return HTML(
        '<table class="study-table">'
        f"<caption>{escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    )


def show(
    frame: pd.DataFrame,
    caption: str,
    columns: Mapping[str, str] | Sequence[str] | None = None,
    digits: int = 1,
) -> None:
    """Display `table(...)`."""
    display(table(frame, caption, columns, digits))
