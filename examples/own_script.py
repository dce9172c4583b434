"""ProRL's recipe in a script of your own, without DVC: `python own_script.py MODEL OUT [PARAMS.yaml]`."""

import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from transformers import AutoTokenizer

from prorl_study import params
from prorl_study.domains import Problem
from prorl_study.recipe import grpo_config
from prorl_study.trainer import ProRLTrainer
from prorl_study.verification import VerificationPool

model, out = sys.argv[1:3]
study = params.load(Path(sys.argv[3] if len(sys.argv) > 3 else "params.yaml"))  # the recipe, as data
recipe = replace(study.train, domains=["math"], prompts_per_step=4, max_completion_tokens=24)


def addition(a: int, b: int) -> Problem:
    prompt = [{"role": "user", "content": f"Compute {a} + {b}. Answer in \\boxed{{}}."}]
    return Problem(domain="math", task="addition", prompt=prompt, answer=str(a + b))


with VerificationPool(workers=1) as pool:
    trainer = ProRLTrainer(
        model=model,
        config=grpo_config(recipe, steps=2, out=Path(out), seed=1, on_gpu=torch.cuda.is_available()),
        problems=[addition(a, b) for a, b in product(range(10), repeat=2)],
        weights={"math": 1.0},
        floors={},  # per task, the score that well-formed garbage earns
        judge=pool,
        tokenizer=AutoTokenizer.from_pretrained(model),
    )
    trainer.train()
trainer.save_model(out)
