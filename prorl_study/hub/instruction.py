"""Instruction following from the hub: Llama-Nemotron's RL rows for training; IFEval and IFBench.

Prompts are taken as they are. Rows with an instruction that cannot be judged are dropped, under its name.
Left out: golden answers, which none of the sets has.
"""

from __future__ import annotations

from prorl_study.domains.instruction import from_ifeval_row, unjudgeable
from prorl_study.hub.sources import Drop, Item, Row, Source


def instructions(row: Row) -> Item:
    try:
        problem = from_ifeval_row(row)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Drop("no prompt, or instructions that do not fit their arguments") from None
    if reason := unjudgeable(problem):
        raise Drop(f"cannot be judged: {reason}")
    return Item(problem)


TRAINING = (
    Source(
        name="nemotron_if",
        domain="instruction",
        licence="CC BY 4.0",
        repo="nvidia/Llama-Nemotron-Post-Training-Dataset",
        revision="ab2a40d258a6a4d9d4c277d702aeea445081766c",
        files=("RL/instruction_following/instruction_following.jsonl",),
        columns=("input", "args"),
        map=instructions,
        expected=10_000,
    ),
)

BENCHMARKS = (
    Source(
        name="ifeval",
        domain="instruction",
        licence="Apache-2.0",
        repo="google/IFEval",
        revision="966cd89545d6b6acfd7638bc708b98261ca58e84",
        files=("ifeval_input_data.jsonl",),
        columns=("prompt", "instruction_id_list", "kwargs"),
        map=instructions,
        expected=541,
    ),
    Source(
        name="ifbench",
        domain="instruction",
        licence="ODC-BY 1.0",
        repo="allenai/IFBench_test",
        revision="2e8a48de45ff3bf41242f927254ca81b59ca3ae2",
        files=("data/train-*.parquet",),
        columns=("prompt", "instruction_id_list", "kwargs"),
        map=instructions,
        expected=300,
    ),
)
