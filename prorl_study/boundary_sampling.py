"""From models to the boundary's counts: base, middle and final model, a thousand samples for each problem.

Every model gets the same open-ended problems, at the study's temperature and at the one that suits it best on
validation. Work is done in pieces that outlast a kill. Left out: how a thousand samples are drawn
(`deep_sampling`), what follows from the counts (`boundary`), and tasks with a finite choice of answers, which
a guesser solves in enough tries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from prorl_study.domains import DOMAINS, Problem
from prorl_study.errors import StudyError
from prorl_study.evaluation import read_counts
from prorl_study.files import VERDICT_CODE, code_digests, digests
from prorl_study.params import EvaluationParams
from prorl_study.paths import Workspace
from prorl_study.pieces import Pieces, fingerprint
from prorl_study.problems import load_problems
from prorl_study.statistics import named_rng

SPLITS = ("test", "hard")
SHARED, BEST = "shared", "best"
"""Settings: every model at `eval_temperature`, as in the paper, and each at its own best temperature."""
PIECE = 16
"""Problems per piece: what a kill can cost at most."""


def boundary_models(segments: Sequence[str]) -> list[str]:
    """Base, the segment in the middle (the earlier one of two) and the last one."""
    return list(dict.fromkeys(["base", segments[(len(segments) - 1) // 2], segments[-1]]))


def choose_problems(
    problems_by_split: Mapping[str, Sequence[Problem]], per_split: int, seed: int
) -> list[Problem]:
    """Open-ended problems of `SPLITS`, `per_split` from each split and domain or all where there are fewer.

    Every model gets the same ones. Raises StudyError where there is none at all.
    """
    chosen = []
    for domain in DOMAINS:
        for split in SPLITS:
            fair = [p for p in problems_by_split[split] if p.domain == domain and p.open_ended]
            rng = named_rng(seed, "boundary", domain, split)
            places = rng.choice(len(fair), min(per_split, len(fair)), replace=False) if fair else []
            chosen += [fair[place] for place in sorted(places)]
    if not chosen:
        raise StudyError(
            f"no open-ended problem in {' and '.join(SPLITS)}; raise their sizes under `data` in params.yaml."
        )
    return chosen


def sample_counts(
    name: str,
    model_path: Path,
    problems: Sequence[Problem],
    temperature: float,
    n: int,
    settings: EvaluationParams,
    seed: int,
    pool: Any,
    finished: Pieces,
    engine: str,
) -> pd.DataFrame:
    """One row per problem (see `deep_sampling.tally`) of `n` samples of one model at one temperature.

    Works in pieces of `PIECE` problems, kept in `finished` under a hash of model, problems, sampler, seed and
    judging code: after a kill the next call goes on behind the last finished piece.
    """
    from prorl_study import deep_sampling, samplers  # here, so that recomputing results needs no torch
    from prorl_study.sampling import Sampler

    sampler = Sampler(temperature, settings.top_p, settings.max_tokens, settings.batch_tokens)
    code = code_digests(*VERDICT_CODE, "deep_sampling.py", *samplers.CODE[engine])
    identity = [digests(Path(model_path)), code, sampler, n, seed]

    def draw(loaded: Any, piece: Sequence[Problem]) -> pd.DataFrame:
        rng = named_rng(seed, "boundary", name, f"{temperature:g}", *(p.id for p in piece))
        if engine == "transformers":
            draws = deep_sampling.sample_distinct(loaded.model, loaded.tokenizer, piece, n, sampler, rng)
        else:  # which shares the prompt's work among its samples by itself
            own_seed = int(rng.integers(2**31))
            draws = deep_sampling.in_order(samplers.sample(loaded, piece, n, sampler, own_seed))
        table = pd.DataFrame(deep_sampling.tally(piece, draws, pool))
        table.insert(0, "model", name)
        table.insert(1, "temperature", temperature)
        return table

    tables = []
    pieces = [problems[start : start + PIECE] for start in range(0, len(problems), PIECE)]
    for piece in tqdm(pieces, desc=f"{name} T={temperature:g}, {n} samples", unit="piece"):
        key = fingerprint(identity, [p.row() for p in piece])
        tables.append(finished.get(key, draw, piece))
    return pd.concat(tables, ignore_index=True)


def temperature_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Counts of validation problems summed up: a row per model, temperature and domain."""
    groups = table.groupby(["model", "temperature", "domain"])
    return groups.agg(n_problems=("problem", "size"), n=("n", "sum"), solved=("solved", "sum")).reset_index()


def best_temperature(rows: pd.DataFrame, model: str, shared: float) -> float:
    """The temperature with the model's best strict average on validation, domains weighing alike.

    `rows` as of `temperature_rows`. Ties go to `shared`, then to the lower temperature. Raises StudyError
    where the model has no rows.
    """
    own = rows[rows.model == model]
    if own.empty:
        raise StudyError(f"no validation counts of model {model}; make them with `dvc repro boundary`.")
    average = (own.solved / own.n).groupby(own.temperature).mean()
    return float(min(average.index, key=lambda t: (-round(average[t], 12), t != shared, t)))


def measure(
    ws: Workspace,
    segments: Sequence[str],
    settings: EvaluationParams,
    samples: int,
    per_split: int,
    seed: int,
    pool: Any,
    engine: str = "transformers",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sample and judge all models; returns counts per problem and the rows that chose the temperatures.

    Counts have a row per (model, setting, problem); a model whose best temperature is the shared one has the
    same samples in both settings. Validation counts come from `results/counts` where the benchmarks have
    them and are sampled here (`settings.samples` each) where not. `engine` is what samples. Raises
    StudyError where a model, a split or those counts are missing.
    """
    from prorl_study import samplers  # here, so that recomputing results needs no torch

    if samples < 4:
        raise StudyError(f"boundary_samples={samples} must be at least 4; change it in params.yaml.")
    names = [
        name for name in boundary_models(segments) if not (ws.is_scratch and not ws.model(name).exists())
    ]
    chosen = choose_problems({split: load_problems(ws.problems, split) for split in SPLITS}, per_split, seed)
    validation = load_problems(ws.problems, "validation")
    known = read_counts(ws.results)
    known = known[(known.split == "validation") & (known.setting != "greedy") & known.model.isin(names)]
    temperatures = [temperature_rows(known)]
    candidates = sorted({*settings.tuned_temperatures, settings.eval_temperature})
    counts = []
    for name in names:
        path = ws.require(ws.model(name), "base_model" if name == "base" else "train")
        finished = Pieces(ws.work / "boundary" / name, samplers.load, engine, path)
        for t in candidates:
            if t not in set(known[known.model == name].temperature):
                table = sample_counts(
                    name, path, validation, t, settings.samples, settings, seed, pool, finished, engine
                )
                temperatures.append(temperature_rows(table))
        best = best_temperature(pd.concat(temperatures), name, settings.eval_temperature)
        for setting, t in ((SHARED, settings.eval_temperature), (BEST, best)):
            table = sample_counts(name, path, chosen, t, samples, settings, seed, pool, finished, engine)
            table.insert(1, "setting", setting)
            counts.append(table)
        finished.remove_stale()
        finished.free(samplers.close)
    rows = pd.concat(temperatures).sort_values(["model", "temperature", "domain"], ignore_index=True)
    return pd.concat(counts, ignore_index=True), rows


def write_counts(counts: pd.DataFrame, temperatures: pd.DataFrame, results_dir: Path) -> None:
    """`results/boundary/<model>.csv`, one file per model, and `temperatures.csv`."""
    folder = Path(results_dir) / "boundary"
    folder.mkdir(parents=True, exist_ok=True)
    for model, part in counts.groupby("model"):
        part.to_csv(folder / f"{model}.csv", index=False, lineterminator="\n")
    temperatures.to_csv(folder / "temperatures.csv", index=False, lineterminator="\n")


def read_boundary(results_dir: Path, models: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What `write_counts` wrote. Raises StudyError where a file is missing."""
    folder = Path(results_dir) / "boundary"
    paths = [folder / f"{name}.csv" for name in (*models, "temperatures")]
    for path in paths:
        if not path.is_file():
            raise StudyError(f"{path} is missing; make it with `dvc repro boundary`.")
    *tables, temperatures = [pd.read_csv(path) for path in paths]
    return pd.concat(tables, ignore_index=True), temperatures
