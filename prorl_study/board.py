"""The verdict board: one row a claim, which opens to its figure, its data and the command that makes it.

Worded so that it can be read without colour and without opening anything. Left out: what a verdict rests on
(`claims`) and how an interval is drawn (`figures`).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from IPython.display import HTML

from prorl_study.claims import CLAIMS
from prorl_study.figures import claim_strip, png
from prorl_study.files import digest

STYLE = """
.board details { border: 1px solid #bbb; border-radius: 4px; margin: .4em 0; padding: .4em .8em; }
.board summary { cursor: pointer; }
.board .verdict { display: inline-block; min-width: 11em; font-weight: 600; }
.board dl { display: grid; grid-template-columns: 9em 1fr; gap: .2em 1em; }
.board dt { font-weight: 600; }
.board dd { margin: 0; overflow-wrap: anywhere; }
.board img { max-width: 100%; }
"""


def _figure(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return ""
    figure = claim_strip(row)
    data = base64.b64encode(png(figure)).decode()
    plt.close(figure)
    return f'<img alt="{escape(row["sentence"])}" src="data:image/png;base64,{data}">'


def _files(results: Path, patterns: Sequence[str]) -> str:
    paths = sorted(path for pattern in patterns for path in results.glob(pattern))
    return "<br>".join(f"results/{p.relative_to(results).as_posix()}, SHA-256 {digest(p)}" for p in paths)


def _entry(row: Mapping[str, Any], results: Path, patterns: Sequence[str]) -> str:
    ran = row["verdict"] != "not run"
    facts = {
        "Our measure": row["measure"],
        "Test": row["test"],
        "Margin": f"{row['margin']:g} {row['unit']}, fixed beforehand",
        "Adjusted p": None
        if row["p_adjusted"] is None
        else f"{row['p_adjusted']:.3g} (Holm, primary claims)",
        "Detail": row["detail"],
        "The paper": row["paper_value"] or "gives no number",
        "Source": row["source"],
    }
    items = "".join(f"<dt>{name}</dt><dd>{escape(str(fact))}</dd>" for name, fact in facts.items() if fact)
    if ran:
        items += f"<dt>Data</dt><dd>{_files(results, patterns)}</dd>"
        items += "<dt>Command</dt><dd><code>dvc repro claims</code></dd>"
    word = escape(row["verdict"].capitalize())
    return (
        f'<details id="{row["id"]}"><summary><span class="verdict">{word}</span> '
        f"{escape(row['statement'])} <small>{escape(row['sentence'])}</small></summary>"
        f"{_figure(row)}<dl>{items}</dl></details>"
    )


def board(rows: Sequence[Mapping[str, Any]], results: Path) -> HTML:
    """The rows of `claims.judge_claims`, primary claims first; `results` is the folder of their data."""
    patterns = {claim.id: claim.data for claim in CLAIMS}
    parts = [f'<style>{STYLE}</style><div class="board">']
    for primary, heading in ((True, "Primary claims, corrected together"), (False, "Estimates")):
        parts.append(f"<h3>{heading}</h3>")
        parts += [
            _entry(row, Path(results), patterns[row["id"]]) for row in rows if row["primary"] is primary
        ]
    return HTML("".join([*parts, "</div>"]))
