"""Benchmark text in training problems: n-grams of words that both have.

A training problem that shares thirteen words in a row with a benchmark problem is taken out, and so is one
whose whole text, if shorter, stands in it. A benchmark problem that is shorter is found only where the
training problem has no other words. Words in a row that many problems of a benchmark share are its
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


def ngrams(text: Sequence[str], size: int = WORDS) -> Iterator[tuple[str, ...]]:
    """Runs of `size` words; a shorter text is one run."""
    for start in range(max(1, len(text) - size + 1)):
        yield tuple(text[start : start + size])


def index(
    benchmarks: Mapping[str, Sequence[Problem]], sizes: Sequence[int] = (WORDS,)
) -> dict[tuple[str, ...], tuple[str, str]]:
    """The n-grams of all benchmarks but their boilerplate, of `sizes`, by the first problem."""
    found: dict[tuple[str, ...], tuple[str, str]] = {}
    for name, problems in benchmarks.items():
        texts = [(problem.id, words(problem)) for problem in problems]
        of_problem = [(number, {g for size in sizes for g in ngrams(text, size)}) for number, text in texts]
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
    texts = [words(problem) for problem in training]
    known = index(benchmarks, sorted({WORDS, *(len(text) for text in texts if 0 < len(text) < WORDS)}))
    prompts = {prompt_text(p): (name, p.id) for name, found in (twins or {}).items() for p in found}
    kept, matches = [], []
    for problem, text in zip(training, texts, strict=True):
        gram = next((gram for gram in ngrams(text) if gram in known), None)
        if gram is not None:
            matches.append(Match(problem.id, *known[gram], " ".join(gram)))
        elif twin := prompts.get(prompt_text(problem)):
            matches.append(Match(problem.id, *twin, "the whole prompt"))
        else:
            kept.append(problem)
    return kept, matches
