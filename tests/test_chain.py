"""The way of a chain of segments, put together from the tables that each left."""

import json
from pathlib import Path

import pandas as pd
import pytest

from prorl_study import chain
from prorl_study.errors import StudyError


def leave(folder: Path, name: str, previous: str, tokens: list[int]) -> pd.DataFrame:
    log = pd.DataFrame({"segment": name, "tokens_sampled": tokens, "reward": 0.5})
    log.to_csv(folder / f"{name}.csv", index=False)
    log.rename(columns={"tokens_sampled": "tokens"}).to_csv(folder / f"{name}_checks.csv", index=False)
    (folder / f"{name}.json").write_text(json.dumps({"segment": name, "previous": previous}))
    return log


def test_a_chain_is_laid_end_to_end_with_its_boundaries_at_the_tokens_spent(tmp_path):
    leave(tmp_path, "first", "base", [10, 20])
    leave(tmp_path, "other", "base", [7])
    leave(tmp_path, "second", "first", [30])
    own = pd.DataFrame({"segment": "third", "tokens_sampled": [40, 50], "reward": 0.5})
    log, checks = chain.with_those_before(tmp_path, "second", own, pd.DataFrame({"tokens": [45]}))
    assert log.tokens_sampled.tolist() == [10, 20, 30, 40, 50]
    assert checks.tokens.tolist() == [10, 20, 30, 45]
    assert chain.boundaries(log) == [20, 30]


def test_a_first_segment_has_none_before_it(tmp_path):
    assert chain.segments_before(tmp_path, "base") == []
    own = pd.DataFrame({"segment": ["s1"], "tokens_sampled": [4]})
    log, _ = chain.with_those_before(tmp_path, "base", own, own)
    assert chain.boundaries(log) == [] and len(log) == 1


def test_a_missing_segment_is_named_with_the_command_that_makes_it(tmp_path):
    leave(tmp_path, "s2", "s1", [5])
    with pytest.raises(StudyError, match="s1.json is missing; make it with `dvc repro train@s1`"):
        chain.segments_before(tmp_path, "s2")
