"""Not a test: trains a few steps in however many processes it is started in, and writes what came of it.

`python one_or_two_processes.py FOLDER`, or the same under `torchrun --nproc_per_node 2`.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import tiny
import torch
from test_trainer import make_trainer

WEIGHTS = {"math": 3.0, "code": 1.0}


class Recorder(tiny.LetterJudge):
    """Remembers what this process judged."""

    seen: list[tuple[str, str]] = []

    def verify(self, items, answers):
        self.seen.extend((problem.id, text) for problem, text in items)
        return super().verify(items)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    judge = Recorder()
    rank = int(os.environ.get("RANK", 0))
    trainer = make_trainer(
        folder / str(rank),
        steps=3,
        judge=judge,
        params=replace(tiny.TRAIN, updates_per_rollout=1, kl_beta=0.01),
        weights=WEIGHTS,
        problems=tiny.problems(40) + tiny.problems(40, "code"),
    )
    kept = []
    inner = trainer.sampling.collect

    def collect(*arguments):
        batch, everything, counts = inner(*arguments)
        kept.append([(group.problem.id, group.scores, group.rollout[1]) for group in batch])
        return batch, everything, counts

    trainer.sampling.collect = collect
    trainer.train()
    torch.save(trainer.accelerator.unwrap_model(trainer.model).state_dict(), folder / f"weights{rank}.pt")
    logs = [log for log in trainer.state.log_history if "loss" in log]
    (folder / f"found{rank}.json").write_text(
        json.dumps(
            {
                "processes": trainer.accelerator.num_processes,
                "kept": kept,
                "loss": [log["loss"] for log in logs],
                "kl": [log["kl"] for log in logs],
                "judged": judge.seen,
                "state": trainer.study_state(),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
