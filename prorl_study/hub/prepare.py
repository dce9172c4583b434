"""From public sets to problems to train on or be judged by: read, golds judged, overlap taken out, written.

Each source ends as `<out>/<name>.parquet`, which `prorl-study evaluate` takes, and as an entry of
`card.json`: what was read, dropped and kept, why, and under which licence. What is judged is kept in pieces,
so a kill costs little. Left out: mixing sources into one training set, which the data stage does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from prorl_study.domains import Problem
from prorl_study.errors import StudyError
from prorl_study.files import write_json
from prorl_study.hub import BENCHMARKS, TRAINING
from prorl_study.hub import gold as golds
from prorl_study.hub.overlap import Match, decontaminate
from prorl_study.hub.sources import Read, mirrored, read
from prorl_study.pieces import write_parquet
from prorl_study.problems import Judge

CARD = "card.json"
SAMPLES = 3
"""Problems of each source that its card shows."""


def listing() -> pd.DataFrame:
    """All sources: role, domain, where from, how many, licence."""
    rows = []
    for role, table in (("training", TRAINING), ("benchmark", BENCHMARKS)):
        for source in table.values():
            pin = source.revision[:8] or "no pin known"
            rows.append(
                {
                    "name": source.name,
                    "role": role,
                    "domain": source.domain,
                    "from": f"{source.repo}@{pin}" if source.repo else "reasoning-gym",
                    "problems": source.expected or "-",
                    "licence": f"{source.licence}; gated" if source.gated else source.licence,
                }
            )
    return pd.DataFrame(rows)


def prepare(
    names: Sequence[str],
    against: Sequence[str] | None,
    limit: int | None,
    out: Path,
    open_pool: Callable[[], Judge],
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Write the problems of the sources `names`, and the card of all that lie in `out`; returns the card.

    Training problems that share text with the benchmarks `against`, or with a benchmark among `names`, are
    left out; None stands for all benchmarks that can be had, and the card names those that cannot. Raises
    StudyError for an unknown name and where a set that was named cannot be had.
    """
    known = TRAINING | BENCHMARKS
    unknown = [name for name in (*names, *(against or ())) if name not in known]
    if unknown:
        raise StudyError(f"no such source: {', '.join(unknown)}; give some of {', '.join(known)}.")
    wanted = dict.fromkeys([*(against or ()), *names])
    benchmarks = {name: read(BENCHMARKS[name], limit) for name in wanted if name in BENCHMARKS}
    absent: dict[str, str] = {}
    for name in _others(names, benchmarks) if against is None else ():
        try:
            benchmarks[name] = read(BENCHMARKS[name], limit)
        except StudyError as error:
            absent[name] = str(error)
            tell(f"nothing is compared with {error}")
    texts = {name: found.problems for name, found in benchmarks.items()}
    path = out / CARD
    card = json.loads(path.read_text()) if path.is_file() else {}
    for name in names:
        found = benchmarks.get(name) or read(known[name], limit)
        checked = golds.check(found, open_pool, out / ".golds")
        kept, matches = checked.problems, []
        if name in TRAINING:
            alike = {b: found for b, found in texts.items() if known[name].rows and known[b].rows}
            others = {b: found for b, found in texts.items() if b not in alike}
            kept, matches = decontaminate(checked.problems, others, alike)
        write_parquet(pd.DataFrame([problem.row() for problem in kept]), out / f"{name}.parquet")
        compared = {"compared_with": list(texts), "not_compared_with": absent} if name in TRAINING else {}
        card[name] = entry(found, checked, kept, matches) | compared
        write_json(card, path)
        tell(f"{name}: {len(kept)} problems of {found.rows} rows ({out / name}.parquet)")
    return card


def _others(names: Sequence[str], benchmarks: Container[str]) -> list[str]:
    """The benchmarks that training sets among `names` are compared with besides `benchmarks`. Those that a
    package makes are among them only where it makes a training set too: texts of people hold none of them."""
    made = any(TRAINING[name].rows for name in names if name in TRAINING)
    if not any(name in TRAINING for name in names):
        return []
    return [name for name in BENCHMARKS if name not in benchmarks and (made or not BENCHMARKS[name].rows)]


def entry(
    found: Read, checked: golds.Checked, kept: Sequence[Problem], matches: Sequence[Match]
) -> dict[str, Any]:
    """What the data card says of one source, JSON-plain. Lengths are characters of the prompt. Of a gated set
    it shows no text: who gave its access asks that its problems be put nowhere in plain text."""
    source = found.source
    lengths = pd.Series([len(p.prompt[-1]["content"]) for p in kept], dtype=float)
    return {
        "domain": source.domain,
        "repo": source.repo,
        "revision": source.revision,
        "mirror": mirrored(source),
        "licence": source.licence,
        "note": source.note,
        "expected": source.expected,
        "rows": found.rows,
        "dropped": dict(found.dropped.most_common()),
        "golds": checked.golds,
        "golds_passed": checked.passed,
        "golds_failing": checked.failing,
        "others_disagree": checked.disagreeing,
        "overlapping": [_shown(match) for match in matches],
        "problems": len(kept),
        "prompt_characters": {
            name: float(lengths.quantile(q)) for name, q in (("p5", 0.05), ("median", 0.5), ("p95", 0.95))
        }
        if len(kept)
        else {},
        "tasks": pd.Series([p.task for p in kept], dtype=str).value_counts().to_dict(),
        "samples": [] if source.gated else [p.row() for p in kept[:SAMPLES]],
    }


def _shown(match: Match) -> dict[str, str]:
    gated = BENCHMARKS[match.benchmark].gated
    return asdict(match) | ({"text": "(of a gated set)"} if gated else {})
