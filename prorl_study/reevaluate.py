"""`prorl-study reevaluate`: the published checkpoints on the paper's benchmarks, beside the paper's tables.

Base, v1, v2 and BroRL, pinned by commit, are sampled and judged by `any_model`, one benchmark after the
other: strict, graded and lenient, with intervals over problems. No training. A benchmark that cannot be had
(gated, say) is named and left out, the others go on; after a kill the same command goes on. Left out: pass@k
at 256 samples, which `prorl-study evaluate --samples 256` gives, and checkpoints that were never published.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from prorl_study import any_model, hub
from prorl_study.cards import ANSWER_RATE
from prorl_study.domains import Problem
from prorl_study.errors import StudyError
from prorl_study.files import write_json
from prorl_study.paper import load_paper
from prorl_study.problem_source import refused
from prorl_study.problems import Judge

PAPER_NAMES = {
    "aime24": "aime_2024",
    "aime25": "aime_2025",
    "amc": "amc",
    "math500": "math",
    "minerva": "minerva",
    "olympiad": "olympiad_bench",
    "apps": "apps",
    "codecontests": "codecontests",
    "codeforces": "codeforces",
    "taco": "taco",
    "humanevalplus": "humanevalplus",
    "livecodebench": "livecodebench",
    "gpqa_diamond": "gpqa_diamond",
    "reasoning_gym": "reasoning_gym",
    "ifeval": "ifeval",
    **{task: task for task in hub.logic.HELD_OUT},
}
"""What stands in the paper's tables, by the tables' names: the hub's benchmarks, and the tasks of `OOD`."""
OOD = "reasoning_gym_ood"
"""The hub's benchmark whose tasks the paper shows one by one."""
ASKED = (*(name for name in PAPER_NAMES if name in hub.BENCHMARKS), OOD)
"""Benchmarks that are evaluated where none is named: all of the paper's."""
TABLES = {
    "base": ("math", "code", "stem_instruction_logic"),
    "trained": ("math", "code", "stem_instruction_logic"),
    "v2": ("model_card_math", "model_card_code", "model_card_stem_instruction_logic"),
    "brorl": ("brorl_math", "brorl_code"),
}
"""Where a checkpoint's published numbers are, by its name in `paper.yaml`."""
ROWS = {"brorl": "brorl_191"}
"""Its row there, if not its own name: BroRL published its last checkpoint."""
GRADED = ("reasoning_gym", "ifeval", *hub.logic.HELD_OUT)
"""Benchmarks whose published number is a mean graded score; the others are strict."""
METRICS = {"strict": "strict", "graded": "graded", "lenient": "lenient_strict"}
RESULTS = "reevaluate.json"


@dataclass(frozen=True)
class Checkpoint:
    """A published model. `revision` is None for a local folder."""

    name: str
    model: str
    revision: str | None


def checkpoints() -> dict[str, Checkpoint]:
    """The published checkpoints by their name in `paper.yaml`, pinned by commit."""
    found = load_paper()["checkpoints"]
    return {name: Checkpoint(name, found[name]["repository"], found[name]["commit"]) for name in TABLES}


def published(checkpoint: str, benchmark: str) -> float | None:
    """The published percentage, or None where there is none."""
    tables, row = load_paper()["tables"], ROWS.get(checkpoint, checkpoint)
    for table in TABLES.get(checkpoint, ()):
        value = tables[table]["rows"].get(row, {}).get(PAPER_NAMES.get(benchmark, ""))
        if value is not None:
            return float(value)
    return None


# ---- what it costs ---------------------------------------------------------------------------------------


def cost(
    chosen: Sequence[str], benchmarks: Sequence[str], samples: int, max_tokens: int, rate: float, mean: float
) -> pd.DataFrame:
    """Answers, tokens and hours per checkpoint and in all, before anything is fetched.

    `rate` is answer tokens a second on the machine, `mean` the length of an answer that is assumed; `at most`
    is what comes if every answer is as long as `max_tokens`. Problems are counted as sources expect them.
    """
    known = hub.BENCHMARKS
    problems = sum(known[name].expected or 256 for name in benchmarks)  # Eurus-2's 1,024 over four sets
    answers = problems * (samples + 1)  # and one greedily
    rows = []
    for name, times in [*((one, 1) for one in chosen), ("all", len(chosen))]:
        tokens = times * answers * min(mean, max_tokens)
        most = times * answers * max_tokens
        rows.append(
            {
                "checkpoint": name,
                "answers": times * answers,
                "million tokens": round(tokens / 1e6, 1),
                "hours": round(tokens / rate / 3600, 1),
                "hours at most": round(most / rate / 3600, 1),
            }
        )
    return pd.DataFrame(rows)


# ---- the work --------------------------------------------------------------------------------------------


def run(
    chosen: Mapping[str, Checkpoint],
    benchmarks: Sequence[str],
    pool: Judge,
    out: Path,
    limit: int | None = None,
    tell: Callable[[str], None] = print,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Evaluate every checkpoint on every benchmark; rows of `compare`, also in `out/reevaluate.json`.

    `settings` are those of `any_model.evaluate`. Raises StudyError for an unknown benchmark, where a
    checkpoint cannot be had, and where no benchmark can.
    """
    unknown = [name for name in benchmarks if name not in hub.BENCHMARKS]
    if unknown:
        raise StudyError(f"no such benchmark: {', '.join(unknown)}; give some of {', '.join(ASKED)}.")
    problems = dict(_readable(benchmarks, limit, pool, tell))
    if not problems:
        raise StudyError(f"none of {', '.join(benchmarks)} can be had; the lines above say why.")
    found: list[dict[str, Any]] = []
    for checkpoint in chosen.values():
        for name, part in problems.items():
            rows = any_model.evaluate(
                checkpoint.model,
                {name: part},
                pool,
                out / checkpoint.name / name,
                revision=checkpoint.revision,
                name=checkpoint.name,
                **settings,
            )
            found.append(compare(checkpoint.name, name, rows))
            write_json(found, out / RESULTS)
            tell(f"{checkpoint.name} on {name}: {_shown(found[-1])}")
    return found


def _readable(
    benchmarks: Sequence[str], limit: int | None, pool: Judge, tell: Callable[[str], None]
) -> Iterator[tuple[str, list[Problem]]]:
    """The benchmarks that can be had, of problems that can be judged; the others are told of."""
    for name in benchmarks:
        try:
            found = hub.read(hub.BENCHMARKS[name], limit)
        except StudyError as error:
            tell(f"left out: {error}")
            continue
        bad = {problem.id: reason for problem, reason in refused(found.problems, pool)}
        for reason, count in (found.dropped + Counter(bad.values())).most_common():
            tell(f"left out of {name}: {count} rows ({reason})")
        parts: dict[str, list[Problem]] = {}
        for problem in found.problems:
            if problem.id not in bad:
                parts.setdefault(problem.task if name == OOD else name, []).append(problem)
        yield from parts.items()


def compare(checkpoint: str, benchmark: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row for this checkpoint and benchmark: percent with intervals, the published number, and whether it
    lies in the interval of the measure that was published (`agrees`; None where none was)."""
    of_metric = {row["metric"]: row for row in rows}
    figure = {
        name: [100 * of_metric[metric][key] for key in ("value", "ci_low", "ci_high")]
        for name, metric in METRICS.items()
        if metric in of_metric
    }
    measure = "graded" if benchmark in GRADED else "strict"
    known = published(checkpoint, benchmark)
    mine = figure.get(measure)
    agrees = None if known is None or mine is None else bool(mine[1] <= known <= mine[2])
    problems = next(iter(of_metric.values()))["n_problems"]
    return {
        "checkpoint": checkpoint,
        "benchmark": benchmark,
        "problems": problems,
        **figure,
        "published": known,
        "published_measure": measure,
        "agrees": agrees,
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The comparison for people to read."""
    lines = []
    for row in rows:
        line = {"checkpoint": row["checkpoint"], "benchmark": row["benchmark"], "n": row["problems"]}
        line |= {name: _interval(row.get(name)) for name in METRICS}
        known = row["published"]
        line["published"] = "-" if known is None else f"{known:.2f} ({row['published_measure']})"
        line["in our interval"] = {None: "-", True: "yes", False: "no"}[row["agrees"]]
        lines.append(line)
    return pd.DataFrame(lines).to_string(index=False)


def _interval(figure: Sequence[float] | None) -> str:
    if figure is None or any(math.isnan(value) for value in figure):
        return "-"
    return f"{figure[0]:.1f} [{figure[1]:.1f}, {figure[2]:.1f}]"


def _shown(row: Mapping[str, Any]) -> str:
    known = "nothing published" if row["published"] is None else f"published {row['published']:.2f}"
    return f"{row['published_measure']} {_interval(row.get(row['published_measure']))}, {known}"


# ---- command line ----------------------------------------------------------------------------------------

MEAN_TOKENS, RATE = 8000.0, ANSWER_RATE
"""Assumed for `cost`, not measured here: tokens of an answer, answer tokens a second on one large card."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `prorl-study reevaluate`; sampler and cap default to the paper's."""
    add = parser.add_argument
    add(
        "--checkpoints", nargs="+", default=list(TABLES), metavar="NAME", help=f"of {', '.join(TABLES)} (all)"
    )
    add("--benchmarks", nargs="+", default=list(ASKED), metavar="NAME", help="of the paper's (all)")
    add("--plan", action="store_true", help="print what it costs and stop")
    add("--samples", type=int, default=16, help="answers per problem (16)")
    add("--max-tokens", type=int, default=32768, help="response cap (32768)")
    add("--temperature", type=float, default=0.6, help="(0.6)")
    add("--top-p", type=float, default=0.95, help="(0.95)")
    add("--backend", default="vllm", help="vllm (the default) or transformers")
    add("--limit", type=int, help="only the first so many problems of each benchmark")
    add(
        "--rate", type=float, default=RATE, help=f"answer tokens a second, for the cost ({RATE:.0f}, assumed)"
    )
    add("--mean-tokens", type=float, default=MEAN_TOKENS, help=f"of an answer ({MEAN_TOKENS:.0f}, assumed)")
    add("--workers", type=int, default=2, help="pairs of processes that judge (2)")
    add("--out", type=Path, default=Path("evaluations/reevaluate"), help="(evaluations/reevaluate)")


def command(arguments: argparse.Namespace) -> str:
    """What `prorl-study reevaluate` prints at its end; the cost comes first."""
    from prorl_study.verification import VerificationPool

    known = checkpoints()
    unknown = [name for name in arguments.checkpoints if name not in known]
    if unknown:
        raise StudyError(f"no such checkpoint: {', '.join(unknown)}; give some of {', '.join(known)}.")
    planned = cost(
        arguments.checkpoints,
        [name for name in arguments.benchmarks if name in hub.BENCHMARKS],
        arguments.samples,
        arguments.max_tokens,
        arguments.rate,
        arguments.mean_tokens,
    )
    said = (
        f"{planned.to_string(index=False)}\nAssumed, not measured here: {arguments.rate:,.0f} answer tokens "
        f"a second and {arguments.mean_tokens:,.0f} tokens an answer (--rate, --mean-tokens)."
    )
    if arguments.plan:
        return said
    print(said, flush=True)
    with VerificationPool(workers=arguments.workers) as pool:
        rows = run(
            {name: known[name] for name in arguments.checkpoints},
            arguments.benchmarks,
            pool,
            arguments.out,
            arguments.limit,
            seed=0,
            samples=arguments.samples,
            max_tokens=arguments.max_tokens,
            temperature=arguments.temperature,
            top_p=arguments.top_p,
            backend=arguments.backend,
        )
    return f"{table(rows)}\nPercent, 95 % intervals over problems; all rows in {arguments.out}/{RESULTS}."
