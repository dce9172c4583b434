"""The papers' numbers, from `paper.yaml`, each with its source and how sure it is; and what they derive.

`derived` computes every average, gain and repeated number again from other numbers of the same sources.
Left out: any judgement on who is right where two numbers differ, and all numbers of this study.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import scipy.stats

from prorl_study.errors import StudyError
from prorl_study.params import load_yaml

CONFIDENCES = ("read", "derived", "secondary")
SETTINGS = ("data_mix", "data", "hyperparameters", "training", "evaluation", "ablations", "pass_at_k")
"""Sections whose nulls are settings that a reproduction needs and that nobody states."""
KINDS = {
    "average": "averages",
    "gain": "gains",
    "copy": "copied numbers",
    "count": "totals, rates and shares",
    "repeated": "scores reported twice",
}
"""The first part of a row's id, and what such rows are called. An average is compared with the mean of the
columns beside it, a gain with the difference of two scores, a bar or cell with the table that it repeats, a
total, rate or share with what it follows from, and one model on one benchmark with itself elsewhere."""


@cache
def load_paper() -> Mapping[str, Any]:
    """The reference numbers of `paper.yaml`. Raises StudyError for a number without source or confidence."""
    paper = load_yaml(Path(__file__).with_name("paper.yaml"))
    validate(paper)
    return paper


def numbers(paper: Mapping[str, Any]) -> Iterator[tuple[str, float, Any, Any]]:
    """All numbers: key (`a.b.0`), value, source and confidence, the last two None where no key gives them.

    The nearest `source` and `confidence` above a number hold. Either may be a mapping of column to text.
    """
    yield from _numbers("", paper, None, None)


def _numbers(key: str, node: Any, source: Any, confidence: Any) -> Iterator[tuple[str, float, Any, Any]]:
    if isinstance(node, Mapping):
        source, confidence = node.get("source", source), node.get("confidence", confidence)
        children = [(name, child) for name, child in node.items() if name not in ("source", "confidence")]
    elif isinstance(node, list):
        children = list(enumerate(node))
    else:
        if isinstance(node, int | float) and not isinstance(node, bool):
            yield key, node, source, confidence
        return
    for name, child in children:
        of_child = (fact.get(name) if isinstance(fact, Mapping) else fact for fact in (source, confidence))
        yield from _numbers(f"{key}.{name}".lstrip("."), child, *of_child)


def validate(paper: Mapping[str, Any]) -> None:
    """Raises StudyError for a number without a known source or confidence, and names its key."""
    for key, value, source, confidence in numbers(paper):
        if not isinstance(source, str) or not source.startswith(tuple(paper["sources"])):
            raise StudyError(
                f"paper.yaml, {key}: {value} has the source {source!r}; give one on its path that begins "
                "with a name of `sources`."
            )
        if confidence not in CONFIDENCES:
            raise StudyError(
                f"paper.yaml, {key}: {value} has the confidence {confidence!r}; give one of "
                f"{', '.join(CONFIDENCES)} on its path."
            )


# ---- recomputing


def derived(paper: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every derived or repeated number beside its recomputation.

    Rows `{id, kind, what, source, unit, stated, recomputed, difference, tolerance, matches, note}`;
    `difference` is stated minus recomputed, `note` the reason recorded under `mismatches`. The tolerance is
    half of the last digit that the source prints, plus what the same rounding of the inputs allows; for
    `repeated` rows also what sampling allows (`sampling_tolerance`). Raises KeyError where a table is gone.
    """
    notes = {name: group["why"] for group in paper["mismatches"].values() for name in group["rows"]}
    makers = (_averages, _gains, _copies, _counts, _repeated)
    return [{**row, "note": notes.get(row["id"], "")} for make in makers for row in make(paper)]


def half_digit(digits: int) -> float:
    """The most by which rounding to `digits` decimals moves a number."""
    return 0.5 * 10.0**-digits


def sampling_tolerance(problems: int, first: int, second: int) -> float:
    """Percent by which two evaluations of one model may differ: two standard errors, in the worst case.

    A score in [0, 1] has a variance of at most 1/4 per answer; `first` and `second` are answers per problem.
    """
    return 100 * 2 * math.sqrt(0.25 / problems * (1 / first + 1 / second))


def _row(
    row_id: str,
    what: str,
    section: Mapping[str, Any],
    stated: float,
    recomputed: float,
    tolerance: float,
    unit: str = "%",
) -> dict[str, Any]:
    difference = stated - recomputed
    return {
        "id": row_id,
        "kind": row_id.partition(".")[0],
        "what": what,
        "source": section["source"],
        "unit": unit,
        "stated": float(f"{stated:.8g}"),
        "recomputed": float(f"{recomputed:.8g}"),
        "difference": float(f"{difference:.4g}"),
        "tolerance": float(f"{tolerance:.4g}"),
        # a float's own error must not decide a tie
        "matches": bool(abs(difference) <= tolerance * (1 + 1e-6) + 1e-12),
    }


def _mean(row: Mapping[str, float | None]) -> float:
    """Mean of a table's row without its own average."""
    values = [value for name, value in row.items() if name != "average" and value is not None]
    return sum(values) / len(values)


def _averages(paper: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    tables = paper["tables"]
    for name, table in tables.items():
        tolerance = 2 * half_digit(table["digits"])  # the average's own, and that of the columns
        for model, row in table["rows"].items():
            if "average" in row:
                what = f"average of table {name}, {paper['models'][model]}"
                yield _row(f"average.{name}.{model}", what, table, row["average"], _mean(row), tolerance)
    card, brorl = tables["model_card_stem_instruction_logic"], tables["brorl_reasoning_gym"]
    what = "Reasoning Gym of v2 on the card, as the mean of BroRL's categories"
    stated, tolerance = card["rows"]["v2"]["reasoning_gym"], 2 * half_digit(card["digits"])
    yield _row("average.card.reasoning_gym", what, card, stated, _mean(brorl["rows"]["v2"]), tolerance)


def _gains(paper: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    results, over = paper["results"], paper["gains_over_others"]
    tolerance = half_digit(1) + 2 * half_digit(results["digits"])
    for domain, gain in paper["gains"].items():
        change = results["domains"][domain]["trained"] - results["domains"][domain]["base"]
        for place, words in (("abstract", "the abstract"), ("section3", "section 3")):
            what = f"gain in {domain}, {words}"
            yield _row(f"gain.{place}.{domain}", what, gain, gain[place], change, tolerance, "points")
    for table in ("math", "code"):
        other, rows = over[table]["model"], paper["tables"][table]["rows"]
        change = rows["trained"]["average"] - rows[other]["average"]
        what = f"gain over {paper['models'][other]} in {table}"
        yield _row(f"gain.over.{other}", what, over, over[table]["stated"], change, tolerance, "points")


def _copies(paper: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    figure, results, costs = paper["figure_1"], paper["results"], paper["brorl"]
    tolerance = half_digit(figure["digits"]) + half_digit(results["digits"])
    for model, bars in figure["rows"].items():
        scores = {domain: row[model] for domain, row in results["domains"].items()}
        scores["ood"] = _mean({task: row[model] for task, row in results["ood"].items()})
        for domain, bar in bars.items():
            what = f"bar of {domain}, {paper['models'][model]}"
            yield _row(f"copy.figure_1.{domain}.{model}", what, figure, bar, scores[domain], tolerance)
    for run, row in costs["runs"].items():
        for domain in ("math", "code", "reasoning_gym"):
            what = f"{domain} beside its cost, {paper['models'][run]}"
            score = paper["tables"][f"brorl_{domain}"]["rows"][run]["average"]
            yield _row(f"copy.brorl.{domain}.{run}", what, costs, row[domain], score, 0)


def _counts(paper: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    mix, logic, brorl, curves = paper["data_mix"], paper["data"]["logic"], paper["brorl"], paper["pass_at_k"]
    total, parts = mix["total_thousands"], sum(mix["thousands"].values())
    yield _row("count.mixture", "training problems", mix, total, parts, half_digit(0), "thousands")
    total, parts = logic["validation_problems"], logic["tasks"] * logic["validation_per_task"]
    yield _row("count.logic_validation", "validation puzzles", paper["data"], total, parts, 0, "problems")
    hours, other = paper["hyperparameters"]["gpu_hours"], paper["training"]["hardware_elsewhere"]
    what, product = "GPU hours, as GPUs times days of another note", 24 * other["gpus"] * other["days"]
    yield _row("count.gpu_hours", what, hours, hours["value"], product, half_digit(-3), "hours")

    for run, row in brorl["runs"].items():
        if row["samples_k"] is not None:
            kept = 100 * row["n"] * row["prompts"] * row["steps"] / (1000 * row["samples_k"])
            what = f"share of answers that dynamic sampling keeps, {paper['models'][run]}"
            yield _row(
                f"count.pass_rate.{run}", what, brorl, brorl["pass_rate"][row["n"]], kept, half_digit(0)
            )
    test, rounding = brorl["t_test"], half_digit(2)
    tails = [scipy.stats.t.sf(test["t"] + shift, test["instances"]) for shift in (-rounding, 0, rounding)]
    tolerance = (tails[0] - tails[2]) / 2 + half_digit(8)  # p is printed to 1e-8
    yield _row("count.t_test", "p of BroRL's paired test", brorl, test["p"], tails[1], tolerance, "")

    # Each answer counts as right or wrong, so a score is a share of whole answers: of problems times samples,
    # or of problems where a curve ends at as many samples as k.
    problems, samples = paper["evaluation"]["problems"], paper["evaluation"]["samples"]
    for name in ("math", "model_card_math", "brorl_math"):
        table = paper["tables"][name]
        for model, row in table["rows"].items():
            for task in ("aime_2024", "aime_2025"):
                answers = problems[task] * samples
                share = 100 * round(row[task] / 100 * answers) / answers
                what = f"{task} as a share of answers, {paper['models'][model]}"
                row_id, tolerance = f"count.answers.{name}.{model}.{task}", half_digit(table["digits"])
                yield _row(row_id, what, table, row[task], share, tolerance)
    for task, row in curves["tasks"].items():
        if "highest" in row:
            share = round(row["highest"] * problems[task]) / problems[task]
            what, tolerance = f"highest label of {task} as a share of problems", half_digit(curves["digits"])
            yield _row(f"count.highest_label.{task}", what, curves, row["highest"], share, tolerance, "")


def _repeated(paper: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    tables, curves, settings = paper["tables"], paper["pass_at_k"], paper["evaluation"]
    sizes = {name: size for name, size in settings["problems"].items() if isinstance(size, int)}

    def allowed(benchmark: str, samples: int, rounding: float) -> float:
        # a size that nobody states counts as the smallest that somebody does, which allows the most
        problems = sizes.get(benchmark, min(sizes.values()))
        return sampling_tolerance(problems, settings["samples"], samples) + rounding

    for name in ("math", "code", "stem_instruction_logic"):
        table = tables[name]
        rounding = 100 * half_digit(curves["digits"]) + half_digit(table["digits"])
        for task in [task for task in table["rows"]["base"] if task in curves["tasks"]]:
            tolerance = allowed(task, settings["samples_pass_at_k"], rounding)
            for model in ("base", "trained"):
                label, score = 100 * curves["tasks"][task][model][0], table["rows"][model][task]
                what = f"pass@1 of {task} in the curves and in the table, {paper['models'][model]}"
                yield _row(f"repeated.figure.{task}.{model}", what, curves, label, score, tolerance)

    twice = [
        (card, task, brorl["rows"]["v2"][task])
        for card, brorl in (
            (tables[f"model_card_{name}"], tables[f"brorl_{name}"]) for name in ("math", "code")
        )
        for task in brorl["rows"]["v2"]
        if task != "average"
    ]
    logic = tables["brorl_reasoning_gym"]["rows"]["v2"]["average"]
    twice.append((tables["model_card_stem_instruction_logic"], "reasoning_gym", logic))
    for card, task, elsewhere in twice:
        tolerance = allowed(task, settings["samples"], 2 * half_digit(card["digits"]))
        what, stated = f"{task} of v2 on the card and as BroRL's baseline", card["rows"]["v2"][task]
        yield _row(f"repeated.card_brorl.{task}", what, card, stated, elsewhere, tolerance)


def finding(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `derived` in one sentence."""
    wrong = sum(not row["matches"] for row in rows)
    parts = []
    for kind, name in KINDS.items():
        matches = [row["matches"] for row in rows if row["kind"] == kind]
        parts.append(f"{matches.count(False)} of {len(matches)} {name}")
    return (
        f"{len(rows)} numbers that the papers and their follow-ups derive or repeat were computed again from "
        f"their other numbers, and {wrong} do not match: {', '.join(parts)}."
    )


# ---- how its scores are made


def partial_credit(paper: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Labels of two pass@k curves beside what a fixed number of answers per problem would give, in fractions.

    Rows `{task, model, k, stated, low, high, within}`: `low` and `high` are pass@k where exactly the least
    or the most of `successes` among `samples` answers of *every* problem count as solved, which is
    1 - C(n - c, k) / C(n, k). Real success differs from problem to problem and rises more slowly.
    """
    section, rows = paper["partial_credit"], []
    n, rounding = section["samples"], half_digit(section["digits"])
    for task, curve in section["tasks"].items():
        for k, stated in zip(section["k"], curve["labels"], strict=True):
            low, high = (1 - float(scipy.stats.hypergeom.pmf(0, n, c, k)) for c in curve["successes"])
            within = low - rounding <= stated <= high + rounding
            row = {"task": task, "model": curve["model"], "k": k, "stated": stated}
            rows.append({**row, "low": round(low, 6), "high": round(high, 6), "within": within})
    return rows


def reasoning_gym_gain(paper: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Reasoning Gym of v1 and v2 and the gain between them by three measures, in percent and points.

    Rows `{measure, v1, v2, gain}`: as the card has it, and like for like in each of the two averages.
    """
    tables = paper["tables"]
    v1, v2 = tables["reasoning_gym"]["rows"]["trained"], tables["brorl_reasoning_gym"]["rows"]["v2"]
    card = {
        model: row["reasoning_gym"]
        for model, row in tables["model_card_stem_instruction_logic"]["rows"].items()
    }
    pairs = {
        "as the card has it": (card["trained"], card["v2"]),
        "the sources' own averages": (v1["average"], v2["average"]),
        "means over categories": (_mean(v1), _mean(v2)),
    }
    return [
        {"measure": name, "v1": round(first, 4), "v2": round(second, 4), "gain": round(second - first, 4)}
        for name, (first, second) in pairs.items()
    ]


def monitoring(paper: Mapping[str, Any]) -> list[dict[str, str]]:
    """What resets were decided on: rows `{part, benchmark, reported}`, the last the table that reports it."""
    return [
        {
            "part": part,
            "benchmark": benchmark,
            "reported": "; ".join(
                t["source"] for t in paper["tables"].values() if benchmark in t["rows"].get("base", {})
            ),
        }
        for part, benchmark in paper["training"]["monitoring"].items()
    ]


# ---- what is not stated, and what others say


def undisclosed(paper: Mapping[str, Any]) -> list[dict[str, str]]:
    """Settings that no source states: rows `{section, setting, nearest}`.

    `nearest` is what public relatives of the recipe use, where they have a setting of that name.
    """
    rows = []
    for section in SETTINGS:
        for path in _nulls(paper[section]):
            words = {"section": section, "setting": ": ".join(path)}
            row = {name: text.replace("_", " ") for name, text in words.items()}
            recipes = [r for r in paper["sibling_recipes"].values() if path[-1] in r]
            rows.append({**row, "nearest": "; ".join(f"{r['name']}: {r[path[-1]]}" for r in recipes)})
    return rows


def _nulls(node: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, child in node.items():
        # these two words say nothing of what is missing
        here = path if name in ("value", "undisclosed") else (*path, name)
        if child is None:
            yield here
        elif isinstance(child, Mapping):
            yield from _nulls(child, here)


def later_work(paper: Mapping[str, Any]) -> list[dict[str, str]]:
    """What others say of the papers: rows `{by, says, source, confidence}`, sentences filled with numbers."""
    return [
        {
            "by": paper["sources"][entry["source"]]["name"],
            "says": entry["says"].format(**entry),
            "source": entry["source"],
            "confidence": entry["confidence"],
        }
        for entry in paper["later_work"].values()
    ]
