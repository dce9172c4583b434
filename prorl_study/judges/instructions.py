"""The checkers of IFEval's 25 and IFBench's 58 instruction types, made fit for a warm worker.

They come from the library `if-verifiable` and are used as they are, their leniencies included. This module
loads them without the network and without HF `datasets`, gives them sentences and words without NLTK's
downloads, keeps their random draws away, and says which instructions cannot be judged.

Left out: a score over several instructions (the domain's verifier has that), and the types that need data
which no package ships (`UNJUDGEABLE`). No checker runs an answer as code or as a pattern, so all of them may
run in a process that judges other answers too.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

LIBRARY = "if_verifiable"
UNJUDGEABLE = {
    "ratio:stop_words": "needs NLTK's list of stop words",
    "words:start_verb": "needs NLTK's part-of-speech tagger",
}
"""Refused even where NLTK's data is installed, so that a verdict does not depend on the machine."""
PATTERN_ARGUMENTS = {
    "keywords:existence": "keywords",
    "keywords:frequency": "keyword",
    "keywords:forbidden_words": "forbidden_words",
    "detectable_content:postscript": "postscript_marker",
    "detectable_format:multiple_sections": "section_spliter",
}
"""What IFEval's checkers use as a regular expression, unescaped."""


class CannotJudge(Exception):
    """The instruction itself has no checker or no sure meaning. Its text says why; no answer is at fault."""


@dataclass(frozen=True)
class Library:
    """What is used of `if-verifiable`."""

    checkers: Mapping[str, type]
    """Instruction type to checker class, IFEval's and IFBench's together; no name is in both."""
    loose_variants: Callable[[str], list[str]]
    """IFEval's eight readings of a response: without first line, last line or both, and without asterisks."""


@contextmanager
def _private_import() -> Iterator[None]:
    """Import `if_verifiable`'s submodules as a copy of our own, and leave no trace.

    The package's `__init__` imports HF `datasets`, a second or more of each worker's start for a function
    that no checker uses; so the parent package stands there unrun. The copy is private because it is
    patched. IFBench's import downloads NLTK data; here it gets a `download` that does nothing.
    """
    import nltk

    def ours() -> dict[str, Any]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == LIBRARY}

    spec = importlib.util.find_spec(LIBRARY)
    before, download = ours(), nltk.download
    assert spec is not None
    sys.modules[LIBRARY] = importlib.util.module_from_spec(spec)
    nltk.download = lambda *_args, **_kwargs: False
    try:
        yield
    finally:
        nltk.download = download
        ours()
        sys.modules.update(before)


def _sentence_tokenizer() -> Any:
    """NLTK's Punkt tokenizer for English with its tables from the package `punkt`, not from a download.

    That package's own tokenizer is not used: it differs where NLTK has a quirk (`???` is three sentences
    there), and IFEval's published numbers have NLTK's.
    """
    import punkt
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    tables, parameters = punkt.load_model("english"), PunktParameters()
    parameters.abbrev_types = set(tables.abbrev_types)
    parameters.collocations = set(tables.collocations)
    parameters.sent_starters = set(tables.sent_starters)
    parameters.ortho_context = Counter(tables.ortho_context)  # NLTK's own dict grows with each unknown word
    return PunktSentenceTokenizer(parameters)


@cache
def library() -> Library:
    """Load the checkers, once per process. Takes about a second, most of it for NLTK."""
    import langdetect
    import nltk

    def part(name: str) -> Any:
        return importlib.import_module(f"{LIBRARY}.{name}")

    with _private_import():
        checkers = part("ifeval").INSTRUCTION_DICT | part("ifbench").INSTRUCTION_DICT
        ifeval, ifeval_util = part("ifeval.instructions"), part("ifeval.instructions_util")
        ifbench, ifbench_util = part("ifbench.instructions"), part("ifbench.instructions_util")
        loose_variants = part("common").get_loose_transformations

    sentences, words = _sentence_tokenizer(), nltk.NLTKWordTokenizer()

    def word_tokenize(text: str) -> list[str]:
        return [word for sentence in sentences.tokenize(text) for word in words.tokenize(sentence)]

    offline_nltk = SimpleNamespace(word_tokenize=word_tokenize, tokenize=nltk.tokenize, ngrams=nltk.ngrams)
    for module in (ifeval_util, ifbench, ifbench_util):
        module.nltk = offline_nltk
    ifeval_util._get_sentence_tokenizer = lambda: sentences
    # The checkers log the whole answer through the root logger, which also sets up the process's logging.
    quiet = logging.getLogger(f"{__name__}.{LIBRARY}")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    ifeval.logging = quiet
    # Else the language of a short text changes from call to call.
    langdetect.DetectorFactory.seed = 0
    return Library(checkers, loose_variants)


def plain_kwargs(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments as the checkers want them, from a row that may name all keys and hold null or 3.0 for 3."""
    return {
        key: int(value) if isinstance(value, float) and value.is_integer() else value
        for key, value in (values or {}).items()
        if value is not None
    }


def build(name: str, values: Mapping[str, Any] | None) -> Any:
    """The checker of one instruction.

    Raises CannotJudge where there is none, where it needs data that is not here, where it does not take
    these arguments, where it would fill a missing one with a random draw (IFEval has rows that ask for the
    letter `!`; the checker then takes any letter), or where a keyword such as `:(` is no valid pattern, so
    that no text could follow it.
    """
    checker_class = library().checkers.get(name)
    if checker_class is None:
        raise CannotJudge(f"no checker for {name}")
    if name in UNJUDGEABLE:
        raise CannotJudge(f"{name} {UNJUDGEABLE[name]}")
    checker = checker_class(name)
    arguments = plain_kwargs(values)
    patterns = arguments.get(PATTERN_ARGUMENTS.get(name, ""), [])
    before = random.getstate()
    try:
        checker.build_description(**arguments)
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            re.compile(pattern)
    except Exception as error:
        raise CannotJudge(f"{name} does not take its arguments ({type(error).__name__})") from error
    if random.getstate() != before:
        random.setstate(before)
        raise CannotJudge(f"{name} lacks an argument and would draw it at random")
    return checker


def follows(checker: Any, answer: str, loose: bool) -> tuple[bool, str]:
    """Whether the answer follows, and the name of the error that its checker ran into, or "".

    Loose: whether any of IFEval's eight readings of the answer follows. A checker that raises (some index
    into what the text may lack) has not seen the instruction followed.
    """
    failure = ""
    # Without repetitions: several readings of a one-line answer are the same text.
    for variant in dict.fromkeys(library().loose_variants(answer)) if loose else [answer]:
        try:
            if variant.strip() and checker.check_following(variant):
                return True, ""
        except Exception as error:
            failure = type(error).__name__
    return False, failure
