"""Benchmark text in training problems: n-grams of words that both have.

A training problem that shares thirteen words in a row with a benchmark problem is taken out, and so is one
whose whole text, if shorter, stands in it. Words in a row that many problems of a benchmark share are its
boilerplate (a request for a format, a puzzle's rules) and prove nothing. Where both are made by the same
generator, runs of words agree by chance, and the same prompt alone counts. Left out: paraphrases and
translations, which no n-gram finds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prorl_study.domains import Problem
from prorl_study.hub import code, math, stem
from prorl_study.judges import reasoning_gym
from prorl_study.problems import prompt_text

WORDS = 13
"""Length of an n-gram (GPT-3, 2005.14165, App. C, and many since)."""
BOILERPLATE = 5
"""An n-gram of more problems than this of one benchmark is boilerplate."""
OURS = (math.SUFFIX, stem.LETTER_SUFFIX, code.STANDARD, code.SUFFIX, reasoning_gym.INSTRUCTION)
"""What the study itself adds to prompts, which they all share."""
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Match:
    """A training problem that was taken out, and what it has in common with which benchmark problem."""

    problem: str
    benchmark: str
    benchmark_problem: str
    text: str


def words(problem: Problem) -> tuple[str, ...]:
    """The words and numbers of a prompt, lower case, without signs and without what is `OURS`."""
    text = prompt_text(problem)
    for part in OURS:
        text = text.replace(part, "\n")
    return tuple(match.group().lower() for match in _WORD.finditer(text))


def ngrams(text: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Runs of `WORDS` words; a shorter text is one run."""
    for start in range(max(1, len(text) - WORDS + 1)):
        yield tuple(text[start : start + WORDS])


def index(benchmarks: Mapping[str, Sequence[Problem]]) -> dict[tuple[str, ...], tuple[str, str]]:
    """The n-grams of all benchmarks but their boilerplate, each with the first problem that has it."""
    found: dict[tuple[str, ...], tuple[str, str]] = {}
    for name, problems in benchmarks.items():
        of_problem = [(problem.id, set(ngrams(words(problem)))) for problem in problems]
        counts = Counter(gram for _, grams in of_problem for gram in grams)
        for problem, grams in of_problem:
            for gram in grams:
                if counts[gram] <= BOILERPLATE:
                    found.setdefault(gram, (name, problem))
    return found


def decontaminate(
    training: Sequence[Problem],
    benchmarks: Mapping[str, Sequence[Problem]],
    twins: Mapping[str, Sequence[Problem]] | None = None,
) -> tuple[list[Problem], list[Match]]:
    """The training problems that share no n-gram with one of `benchmarks` and no whole prompt with one of
    `twins`, made by the same generator, and what was found in the others."""
    known = index(benchmarks)
    prompts = {prompt_text(p): (name, p.id) for name, found in (twins or {}).items() for p in found}
    kept, matches = [], []
    for problem in training:
        gram = next((gram for gram in ngrams(words(problem)) if gram in known), None)
        if gram is not None:
            matches.append(Match(problem.id, *known[gram], " ".join(gram)))
        elif twin := prompts.get(prompt_text(problem)):
            matches.append(Match(problem.id, *twin, "the whole prompt"))
        else:
            kept.append(problem)
    return kept, matches
