"""What travels through the study: a problem, the verdict on an answer, and what a domain must offer.

Plain data only. Nothing here judges an answer, reads a file or draws a random number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

STATUSES = ("correct", "partial", "wrong", "unparseable", "timeout", "crashed", "refused")
SPLITS = ("demonstrations", "train", "validation", "test", "hard", "ood")


@dataclass(frozen=True, kw_only=True)
class Problem:
    r"""One problem of one domain, in the schema that embedded and hub data share.

    By hand, only what the verifier reads is needed; a right completion is in the comment:

        Problem(domain="math", answer=r"\frac{1}{2}")                      # </think>\boxed{0.5}
        Problem(domain="math", answer="2,3", checks={"ordered": True})     # </think>\boxed{2, 3}
        Problem(domain="code", checks={"entry_point": "add", "tests": [[[1, 2], 3], [[0, 0], 0]]})
                                        # ```python\ndef add(a, b): return a + b\n```
        Problem(domain="code", checks={"asserts": ["assert add(1, 2) == 3"]})
        Problem(domain="code", checks={"inputs": ["1 2\n"], "outputs": ["3\n"]})
                                        # ```python\nprint(sum(map(int, input().split())))\n```
        Problem(domain="stem", answer="B", checks={"options": {"A": "12 N", "B": "24 N"}})
                                        # The answer is B.   or   \boxed{24 N}
        Problem(domain="stem", answer="9.81 m/s^2", checks={"tolerance": 0.01})
                                        # \boxed{9.8 m/s^2}
        Problem(domain="logic", task="chain_sum", answer="7",
                checks={"task": "chain_sum", "metadata": {...}})           # <answer>7</answer>
        Problem(domain="instruction",
                checks={"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]})

    A Reasoning Gym entry becomes a problem by `prorl_study.judges.reasoning_gym.from_entry`, a row of IFEval
    by `prorl_study.domains.instruction.from_ifeval_row`; the keys of `checks` are described in
    `prorl_study.judges.code` and in each domain's module.
    """

    id: str = ""
    """Unique in the study: `<domain>-<split>-<index>`. Verdicts do not depend on it."""
    domain: str
    task: str = ""
    """Kind of problem inside the domain; floors are measured per task."""
    template: str = ""
    """Which wording was used; test wordings do not occur in train."""
    prompt: list[dict[str, str]] = field(default_factory=list)
    """Chat messages, `[{"role": "user", "content": ...}]`."""
    answer: str = ""
    """Gold answer in the form that the verifier compares with."""
    checks: dict[str, Any] = field(default_factory=dict)
    """What the verifier and the teacher need besides: tests, constraints, task metadata. JSON-plain."""
    difficulty: int = 0
    """Number of steps that a right solution takes (or the task's own size measure)."""
    split: str = "test"
    source: str = "by hand"
    open_ended: bool = True
    """False where a guesser has a fair chance; such tasks are left out of pass@k."""

    def row(self) -> dict[str, Any]:
        """Flat row for parquet: nested fields as JSON text, so that one schema fits all domains."""
        row = asdict(self)
        row["prompt"] = json.dumps(self.prompt, ensure_ascii=False)
        row["checks"] = json.dumps(self.checks, ensure_ascii=False, sort_keys=True)
        return row

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Problem:
        """Inverse of `row`."""
        return cls(**{**row, "prompt": json.loads(row["prompt"]), "checks": json.loads(row["checks"])})


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of one answer. It is never an exception and never a bare number."""

    score: float
    """Training reward in [0, 1]; graded where the domain is graded."""
    solved: bool
    """Strict success: full credit."""
    status: str
    """One of `STATUSES`."""
    reason: str = ""
    answer: str | None = None
    """The answer that was found in the completion, one spelling for equal answers, so that it can vote;
    None where there is none, or where the caller did not ask for it."""
    cpu_seconds: float = field(default=0.0, compare=False)
    """CPU seconds of the judged program, or of judging where nothing is run."""
    backstop: bool = field(default=False, compare=False)
    """True where the wall clock ended it and not the limit on CPU time, also when judged alone."""

    def __post_init__(self) -> None:
        assert 0.0 <= self.score <= 1.0 and self.status in STATUSES, self


@dataclass(frozen=True)
class Domain:
    """The five blocks that each domain's module fills in, under the same names in each module."""

    name: str
    weight: int
    """Share in the training mix, thousands of problems in the paper's Table 4 (2505.24864)."""
    graded: bool
    """True where the paper reports the mean graded score (logic, instruction following)."""
    generate: Callable[[int, str, int], Problem]
    """`(seed, split, index) -> Problem`; depends on nothing else."""
    solve: Callable[[Problem], str]
    """The right completion, as the teacher would write it: scores 1.0 under `verify`."""
    habit: Callable[[Problem, Random], str]
    """A fluent, well-formed completion that follows the domain's systematic wrong strategy."""
    slip: Callable[[str, Random], str]
    """The same completion with its format missed, so that strict extraction fails and lenient works."""
    guess: Callable[[Problem, Random], str]
    """A well-formed completion by somebody who knows the task but has not read this problem."""
    garbage: Callable[[Problem, Random], str]
    """A well-formed completion that is certainly wrong."""
    verify: Callable[[Problem, str, bool], Verdict]
    """`(problem, completion, lenient) -> Verdict`. Runs in a verification worker only."""
    extract: Callable[[str, bool], str | None]
    """`(completion, lenient) -> answer text`, or None where there is none; becomes `Verdict.answer`."""
    steps: Callable[[Problem, str, bool], Generator[Any, None, Verdict]] | None = None
    """Only where model-written code is run: `verify` as a generator that yields what it waits for, so that
    other judgements can go on meanwhile (`prorl_study.judges.code.Steps`). Its verdict leaves out `answer`,
    which the worker adds from `extract` where the caller wants it."""

    @property
    def runs_code(self) -> bool:
        """True where `verify` has a runner execute model-written code."""
        return self.steps is not None


def problem_rng(seed: int, domain: str, split: str, index: int) -> Random:
    """Generator for item `index`: a pure function of its arguments on every platform."""
    return Random(f"{seed}/{domain}/{split}/{index}")


def after_thinking(text: str) -> str:
    """The part of a completion that counts: what follows the last `</think>`, or all of it."""
    return text.rpartition("</think>")[2]
