r"""Math from the hub: DeepScaleR for training; AIME, AMC, MATH-500, Minerva, OlympiadBench.

The prompt is the paper's (2505.24864, App. D.1). Answers are judged by `domains.math`. Left out: proofs,
problems with figures, and answers longer than its judge takes.
"""

from __future__ import annotations

from prorl_study.domains import Problem
from prorl_study.domains.math import MAX_ANSWER_CHARS, last_boxed
from prorl_study.hub.sources import Drop, Item, Row, Source, boxed, text_of, user

SUFFIX = "\nLet's think step by step and output the final answer within \\boxed{}."


def item(question: str, answer: str) -> Item:
    """A math problem; its gold completion is its own answer in a box. Raises Drop."""
    if len(answer) > MAX_ANSWER_CHARS:
        raise Drop("answer too long to compare")
    problem = Problem(domain="math", task="hub", prompt=user(question + SUFFIX), answer=answer)
    return Item(problem, boxed(answer))


def _unboxed(answer: str) -> str:
    return (last_boxed(answer) or answer) if "\\boxed" in answer else answer


def plain(question: str, answer: str):
    """A mapper for rows of a question and an answer under these names."""

    def map_row(row: Row) -> Item:
        return item(text_of(row, question), _unboxed(text_of(row, answer)))

    return map_row


def minerva(row: Row) -> Item:
    """Minerva's answer stands in its solution's box where the row has no `answer`."""
    if row.get("answer") is not None:
        return item(text_of(row, "question"), _unboxed(text_of(row, "answer")))
    found = last_boxed(text_of(row, "solution"))
    if not found:
        raise Drop("no boxed answer in the solution")
    return item(text_of(row, "problem"), found)


def olympiad(row: Row) -> Item:
    """Open-ended, text only, English. `final_answer` is a list; several answers are one unordered answer."""
    answers = row.get("final_answer") or []
    if not answers or not all(isinstance(a, str) and a.strip() for a in answers):
        raise Drop("no final_answer")
    if row.get("error"):
        # a tolerance for an approximate answer, which the judge of exact answers has not
        raise Drop("approximate answer with a tolerance")
    parts = [answer.strip().strip("$") for answer in answers]
    context = str(row.get("context") or "").strip()
    return item("\n".join(filter(None, (context, text_of(row, "question")))), ", ".join(parts))


TRAINING = (
    Source(
        name="deepscaler",
        domain="math",
        licence="MIT",
        repo="agentica-org/DeepScaleR-Preview-Dataset",
        revision="b6ae8c60f5c1f2b594e2140b91c49c9ad0949e29",
        files=("deepscaler.json",),
        columns=("problem", "answer"),
        map=plain("problem", "answer"),
        expected=40_000,
    ),
)

BENCHMARKS = (
    Source(
        name="aime24",
        domain="math",
        licence="problems: Mathematical Association of America",
        repo="HuggingFaceH4/aime_2024",
        revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
        files=("data/train-*.parquet",),
        columns=("problem", "answer"),
        map=plain("problem", "answer"),
        expected=30,
    ),
    Source(
        name="aime25",
        domain="math",
        licence="problems: Mathematical Association of America",
        repo="math-ai/aime25",
        revision="563bb8404243c5f09de6ec262f2db674fe5bce9b",
        files=("test.jsonl",),
        columns=("problem", "answer"),
        map=plain("problem", "answer"),
        expected=30,
    ),
    Source(
        name="amc",
        domain="math",
        licence="Apache-2.0; problems: Mathematical Association of America",
        repo="AI-MO/aimo-validation-amc",
        revision="69d78a4a2c840e82d69af6bc742bda09005f6316",
        files=("data/train-*.parquet",),
        columns=("problem", "answer"),
        map=plain("problem", "answer"),
        expected=83,
    ),
    Source(
        name="math500",
        domain="math",
        licence="MIT",
        repo="HuggingFaceH4/MATH-500",
        revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        files=("test.jsonl",),
        columns=("problem", "answer"),
        map=plain("problem", "answer"),
        expected=500,
    ),
    Source(
        name="minerva",
        domain="math",
        licence="CC BY-NC-SA 4.0 (MIT OpenCourseWare)",
        repo="math-ai/minervamath",
        revision="ee46ddc498933b1977577953250ca5c66be64f96",
        files=("test.jsonl",),
        map=minerva,
        expected=272,
    ),
    Source(
        name="olympiad",
        domain="math",
        licence="Apache-2.0",
        repo="Hothan/OlympiadBench",
        revision="91184b52131e7fc9455fef848035173aea8cc01a",
        files=("**/OE_TO_maths_en_COMP.parquet",),
        columns=("question", "final_answer"),
        map=olympiad,
        expected=674,
    ),
)
