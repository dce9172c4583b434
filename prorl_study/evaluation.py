"""From models to per-problem counts: sample, judge, vote, count.

Strict success, graded score and a lenient re-extraction of the answer stand side by side throughout, so
that reasoning, partial credit and format are told apart. The counts are small enough for git; all that
follows from them is in `benchmarks`.

Left out: how completions are drawn (`sampling`) and what is right (`domains`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from prorl_study.domains.problem import Problem
from prorl_study.errors import StudyError
from prorl_study.files import VERDICT_CODE, code_digests, digests
from prorl_study.params import EvaluationParams
from prorl_study.paths import Workspace
from prorl_study.pieces import Pieces, fingerprint, write_parquet
from prorl_study.problems import load_problems

TUNED = "tuned_"
"""Prefix of the settings that sample the base at another temperature, as in `tuned_0.3`."""
_PROBLEM = ("domain", "task", "difficulty", "open_ended")
SPLITS = ("train", "validation", "test", "hard", "ood")
TRAIN_PROBLEMS = 20
"""Per domain, of the training split: enough to see memorisation, without sampling all of it."""
_KEYS = ["model", "split", "setting", "problem"]


def judge(problems: Sequence[Problem], samples: Sequence[Sequence[Any]], pool: Any) -> pd.DataFrame:
    """One row per sample, judged strictly and leniently. `samples` is `[problem][sample]`.

    `answer` is the text that votes in a majority vote, None where there is none. Raises what the pool raises
    when it cannot judge at all.
    """
    work = [(p, one.text) for p, drawn in zip(problems, samples, strict=True) for one in drawn]
    strict, lenient = iter(pool.verify(work, lenient=False)), iter(pool.verify(work, lenient=True))
    rows = []
    for problem, drawn in zip(problems, samples, strict=True):
        for number, one in enumerate(drawn):
            verdict, second = next(strict), next(lenient)
            rows.append(
                {
                    "problem": problem.id,
                    "domain": problem.domain,
                    "task": problem.task,
                    "split": problem.split,
                    "difficulty": problem.difficulty,
                    "open_ended": int(problem.open_ended),
                    "sample": number,
                    "text": one.text,
                    "tokens": one.tokens,
                    "truncated": int(one.truncated),
                    "score": verdict.score,
                    "solved": int(verdict.solved),
                    "status": verdict.status,
                    "reason": verdict.reason,
                    "lenient_score": second.score,
                    "lenient_solved": int(second.solved),
                    "answer": verdict.answer,
                    "lenient_answer": second.answer,
                }
            )
    return pd.DataFrame(rows)


def evaluate_model(
    name: str,
    model_path: Path,
    problems_by_split: Mapping[str, Sequence[Problem]],
    settings: EvaluationParams,
    seed: int,
    pool: Any,
    samples_dir: Path,
    is_base: bool,
    work_dir: Path,
    engine: str = "transformers",
) -> pd.DataFrame:
    """Sample and judge one model on all splits; writes and returns `samples_dir/<name>.parquet`.

    Every split is sampled at `eval_temperature` (`samples` times, `samples_more` times for the base and on
    `hard`) and decoded greedily. The base is also sampled at the other `tuned_temperatures` on validation;
    each domain's test problems are then sampled at the temperature that won there. Finished pieces (one per
    split and setting) lie in `work_dir`, under a hash of model, problems, sampler, seed and judging code:
    after a kill the next call goes on behind the last finished one. `engine` is what samples, a name in
    `samplers.CODE`; splits without problems are left out.
    """
    from prorl_study import samplers  # here, so that recomputing results needs no torch
    from prorl_study.sampling import Sampler

    identity = [digests(Path(model_path)), code_digests(*VERDICT_CODE, *samplers.CODE[engine])]
    finished = Pieces(Path(work_dir) / name, samplers.load, engine, Path(model_path))
    problems_by_split = {split: problems for split, problems in problems_by_split.items() if problems}

    def piece(split: str, setting: str, problems: Sequence[Problem], temperature: float, n: int):
        sampler = Sampler(temperature, settings.top_p, settings.max_tokens, settings.batch_tokens)
        rows = [problem.row() for problem in problems]
        key = fingerprint(identity, split, setting, rows, sampler, n, seed)
        return finished.get(key, draw, split, setting, problems, sampler, n)

    def draw(loaded: Any, split: str, setting: str, problems: Sequence[Problem], sampler: Any, n: int):
        own_seed = int(fingerprint(seed, name, split, setting), 16) % 2**31
        label = f"{name} {split} {setting}"
        samples = samplers.sample(loaded, problems, n, sampler, own_seed, progress=label)
        return judge(problems, samples, pool).assign(
            model=name,
            split=split,
            setting=setting,
            temperature=sampler.temperature,
            top_p=sampler.top_p,
            max_tokens=sampler.max_tokens,
            seed=seed,
        )

    frames = []
    for split, problems in problems_by_split.items():
        n = settings.samples_more if is_base or split == "hard" else settings.samples
        frames.append(piece(split, "sampled", problems, settings.eval_temperature, n))
        frames.append(piece(split, "greedy", problems, 0.0, 1))
    if is_base and {"validation", "test"} <= set(problems_by_split):
        for t in sorted(set(settings.tuned_temperatures) - {settings.eval_temperature}):
            frames.append(
                piece("validation", f"{TUNED}{t:g}", problems_by_split["validation"], t, settings.samples)
            )
        best = tuned_settings(counts(pd.concat(frames), settings.samples), name)
        for setting in sorted(set(best.values()) - {"sampled"}):
            problems = [p for p in problems_by_split["test"] if best[p.domain] == setting]
            temperature = float(setting.removeprefix(TUNED))
            if problems:
                frames.append(piece("test", setting, problems, temperature, settings.samples))
    samples = pd.concat(frames, ignore_index=True)
    write_parquet(samples, Path(samples_dir) / f"{name}.parquet")
    finished.remove_stale()
    finished.free(samplers.close)
    return samples


def evaluate_models(
    ws: Workspace,
    segments: Sequence[str],
    settings: EvaluationParams,
    seed: int,
    pool: Any,
    engine: str = "transformers",
) -> pd.DataFrame:
    """Evaluate the base and the end of every segment on `SPLITS`; returns their counts, models in order.

    A scratch workspace may lack later segments, which are then left out. Raises StudyError where a model
    or a split of the project is missing.
    """
    problems = {split: load_problems(ws.problems, split) for split in SPLITS}
    seen: Counter[str] = Counter()
    first = []
    for problem in problems["train"]:
        seen[problem.domain] += 1
        if seen[problem.domain] <= TRAIN_PROBLEMS:
            first.append(problem)
    problems["train"] = first
    tables = []
    for name in ("base", *segments):
        if ws.is_scratch and name != "base" and not ws.model(name).exists():
            continue
        model = ws.require(ws.model(name), "base_model" if name == "base" else "train")
        samples = evaluate_model(
            name,
            model,
            problems,
            settings,
            seed,
            pool,
            ws.samples,
            name == "base",
            ws.work / "samples",
            engine,
        )
        table = counts(samples, settings.samples)
        tables.append(table.merge(_entropies(model, samples, problems["test"], settings), how="left"))
    return pd.concat(tables, ignore_index=True)


def _entropies(
    model_path: Path, samples: pd.DataFrame, problems: Sequence[Problem], settings: EvaluationParams
) -> pd.DataFrame:
    """Mean token entropy (nats) of each test problem's first sample, in the columns of `_KEYS`."""
    from prorl_study import sampling
    from prorl_study.token_entropy import token_entropy

    first = (samples.split == "test") & (samples.setting == "sampled") & (samples["sample"] == 0)
    part = samples[first]
    known = {problem.id: problem for problem in problems}
    values = token_entropy(
        *sampling.load(model_path),
        [known[name] for name in part.problem],
        part.text.tolist(),
        settings.batch_tokens,
    )
    return part[_KEYS].assign(token_entropy=[round(value, 4) for value in values])


def _vote(answers: list, solved: list, scores: list) -> tuple[int, float, int]:
    """Majority vote: (solved, score, distinct answers). Ties go to the answer that came first.

    The vote's verdict is that of the first sample with the winning answer; without any answer it is wrong.
    """
    tally = Counter(answer for answer in answers if isinstance(answer, str))  # a missing answer reads as NaN
    if not tally:
        return 0, 0.0, 0
    first = answers.index(tally.most_common(1)[0][0])  # most_common keeps the order of first occurrence
    return int(solved[first]), round(float(scores[first]), 6), len(tally)


def counts(samples: pd.DataFrame, votes: int) -> pd.DataFrame:
    """One row per (model, split, setting, problem): what is needed to recompute every metric.

    Majority votes and distinct answers look at the first `votes` samples, so that models with more samples
    are compared at the same number; `votes` in the result says how many there were.
    """
    ordered = samples.sort_values([*_KEYS, "sample"], kind="stable")
    ordered = ordered.assign(unparseable=(ordered["status"] == "unparseable").astype(int))
    groups = ordered.groupby(_KEYS, sort=True)
    table = groups.agg(
        **{name: (name, "first") for name in (*_PROBLEM, "temperature")},
        n=("sample", "size"),
        solved=("solved", "sum"),
        score_sum=("score", "sum"),
        lenient_solved=("lenient_solved", "sum"),
        lenient_score_sum=("lenient_score", "sum"),
        truncated=("truncated", "sum"),
        unparseable=("unparseable", "sum"),
    )
    table = table.round({"score_sum": 6, "lenient_score_sum": 6}).reset_index()
    stops = table["n"].cumsum().tolist()
    for kind, prefix in (("", "cons"), ("lenient_", "cons_lenient")):
        columns = [ordered[f"{kind}{name}"].tolist() for name in ("answer", "solved", "score")]
        outcomes = []
        for stop, n in zip(stops, table["n"], strict=True):
            voters = slice(stop - n, stop - n + min(n, votes))
            outcomes.append(_vote(*(column[voters] for column in columns)))
        solved, scores, distinct = zip(*outcomes, strict=True)
        table[f"{prefix}_solved"], table[f"{prefix}_score"] = solved, scores
        if not kind:
            table["distinct_answers"] = distinct
    table["votes"] = table["n"].clip(upper=votes)
    return table


def write_counts(table: pd.DataFrame, results_dir: Path) -> None:
    """`results/counts/<model>.csv`, one file per model."""
    folder = Path(results_dir) / "counts"
    folder.mkdir(parents=True, exist_ok=True)
    for model, part in table.groupby("model"):
        part.to_csv(folder / f"{model}.csv", index=False, lineterminator="\n")


def read_counts(results_dir: Path) -> pd.DataFrame:
    """All counts of `results/counts`. Raises StudyError where there are none."""
    paths = sorted((Path(results_dir) / "counts").glob("*.csv"))
    if not paths:
        raise StudyError(f"no counts in {results_dir}/counts; make them with `dvc repro benchmarks`.")
    return pd.concat([pd.read_csv(path) for path in paths], ignore_index=True)


def tuned_settings(table: pd.DataFrame, base: str = "base") -> dict[str, str]:
    """Per domain the setting with the best strict average on validation; ties keep `sampled`."""
    part = table[(table.model == base) & (table.split == "validation") & (table.setting != "greedy")]
    rate = (part.solved / part.n).groupby([part.domain, part.setting]).mean()
    best: dict[str, str] = {}
    for domain in sorted(part.domain.unique()):
        order = sorted(rate[domain].items(), key=lambda item: (-item[1], item[0] != "sampled", item[0]))
        best[domain] = order[0][0]
    return best
