"""The curriculum: what holds at a number of sampled tokens, and which entries are refused."""

from dataclasses import replace

import pytest
import tiny

from prorl_study.curriculum import phase_at, phases
from prorl_study.domains import DOMAINS
from prorl_study.errors import StudyError

FOUR = ["math", "code", "stem", "logic"]
ENTRIES = [
    {"tokens": 0, "domains": FOUR},
    {"tokens": 100, "domains": list(DOMAINS)},
    {"tokens": 200, "truncation_factor": 0.0},
    {"tokens": 300, "rollouts_per_prompt": 16, "max_completion_tokens": 12},
]


def plan(entries=ENTRIES, **changes):
    return phases(replace(tiny.TRAIN, curriculum=entries, **changes), list(DOMAINS))


def test_each_entry_holds_from_its_tokens_on_and_leaves_the_rest_as_it_was():
    found = plan()
    assert phase_at(found, 0).domains == tuple(FOUR) and phase_at(found, 99).domains == tuple(FOUR)
    assert phase_at(found, 100).domains == tuple(DOMAINS) and phase_at(found, 100).truncation_factor == 1.0
    assert phase_at(found, 250).truncation_factor == 0.0 and phase_at(found, 250).rollouts_per_prompt == 8
    last = phase_at(found, 10**9)
    assert (last.rollouts_per_prompt, last.max_completion_tokens, last.truncation_factor) == (16, 12, 0.0)


def test_without_entries_the_arms_own_values_hold_throughout():
    (only,) = plan([])
    assert only[0] == 0 and only[1].rollouts_per_prompt == tiny.TRAIN.rollouts_per_prompt


def test_a_specialist_keeps_to_its_domains_whatever_the_curriculum_adds():
    assert all(phase.domains == ("math",) for _, phase in plan(domains=["math"]))


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([{"tokens": 5, "domain": FOUR}], "entry 1: no such key: domain"),
        ([{"domains": FOUR}], "tokens=None must be a whole number"),
        ([{"tokens": 9}, {"tokens": 3}], "entry 2: tokens=3 must be a whole number, at least 9"),
        ([{"tokens": 0, "domains": ["maths"]}], "no such domain: maths; known: math"),
        ([{"tokens": 0, "rollouts_per_prompt": 1}], "rollouts_per_prompt=1 must be 2 or more"),
        ([{"tokens": 0, "truncation_factor": 2}], "truncation_factor=2 must lie in"),
        ([{"tokens": 0, "max_completion_tokens": 0}], "max_completion_tokens=0 must be 1 or more"),
        ([{"tokens": 0, "domains": []}], "no domain is left"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_entry(entries, sentence):
    with pytest.raises(StudyError, match=sentence):
        plan(entries)
