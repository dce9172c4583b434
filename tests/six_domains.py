"""What the tests of docs/extend.md run in a copy of the package that has a sixth domain, `letters`.

    PYTHONPATH=COPY:tests python -m six_domains data

prints as JSON what the function of that name returns. Files go into the current folder.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from prorl_study import params, problems
from prorl_study.domains import DOMAINS
from prorl_study.verification import VerificationPool

ROOT = Path(__file__).parents[1]
SEED = 5


def data() -> dict[str, Any]:
    """The data stage on a snapshot of 100 problems: its summary, and the new domain's training problems."""
    sizes = {"train": 73, "validation": 1, "test": 2, "hard": 1, "ood": 1}
    problems.write_snapshot(Path("data"), SEED, problems.split_counts(**sizes), processes=1)
    settings = params.DataParams(**{f"{name}_problems": n for name, n in sizes.items()}, floor_samples=1)
    with VerificationPool(workers=1) as pool:
        summary = problems.build_problems(Path("data"), Path("out"), settings, SEED, pool)
    stored = problems.load_problems(Path("out"), "train")
    return summary | {"stored": [p.id for p in stored if p.domain == "letters"]}


def training() -> list[dict[str, float]]:
    """The log of three rollout steps of an untrained model, on all domains by their weights."""
    import tiny
    from transformers import AutoTokenizer

    from prorl_study.recipe import grpo_config
    from prorl_study.trainer import ProRLTrainer

    recipe = replace(tiny.TRAIN, prompts_per_step=16, rollouts_per_prompt=2)
    model = str(tiny.save_model(Path("model"), 0))
    trainer = ProRLTrainer(
        model=model,
        config=grpo_config(recipe, 3, Path("trained"), SEED, on_gpu=False),
        problems=[p for name in DOMAINS for p in problems.generate_domain(SEED, name, {"train": 8})["train"]],
        weights={name: float(domain.weight) for name, domain in DOMAINS.items()},
        floors={},
        judge=tiny.LetterJudge(),
        tokenizer=AutoTokenizer.from_pretrained(model),
    )
    trainer.train()
    return [log for log in trainer.state.log_history if "reward" in log]


def evaluation() -> dict[str, Any]:
    """Three answers to each of three problems of the new domain, right, by habit and slipped: what becomes of
    them."""
    from synthetic import completion

    from prorl_study import benchmarks, evaluation, sampling

    chosen = [DOMAINS["letters"].generate(SEED, "test", i) for i in range(3)]
    texts = [[completion(p, True), completion(p, False), completion(p, True, slipped=True)] for p in chosen]
    drawn = [[sampling.Sample(text=text, tokens=9, truncated=False) for text in three] for three in texts]
    with VerificationPool(workers=1) as pool:
        frame = evaluation.judge(chosen, drawn, pool)
    counts = evaluation.counts(frame.assign(model="base", setting="sampled", temperature=0.6), votes=3)
    rows = benchmarks.benchmark_rows(counts, SEED, resamples=20)
    return {
        "statuses": frame.status.tolist(),
        "answers": frame.answer.dropna().nunique(),
        "rates": {row["metric"]: row["value"] for row in rows if row["domain"] == "letters"},
    }


def report() -> dict[str, Any]:
    """What the pages draw and say of made-up counts of all domains."""
    import pandas as pd
    from synthetic import random_counts

    from prorl_study import benchmarks, boundary, claims, domain_claims, figures, measures, power
    from prorl_study.paper import load_paper

    fixed = params.load(ROOT / "params.yaml").claims
    counts = random_counts({"base": 0.2, "s1": 0.4, "s3": 0.8}, per_domain=20)
    gains = benchmarks.gains(counts, load_paper(), "s3", SEED, resamples=50)
    rows = benchmarks.benchmark_rows(counts, SEED, resamples=20)
    judged = claims.judge_claims(measures.Results(counts, gains, None), fixed)
    own = fixed | {"gain-letters": replace(fixed["gain-math"], margin=7.0)}
    sized = power.table(counts, fixed, ["base", "s1", "s3"], [1.0], 5)
    log = {f"{kind}/{name}": [1, 2] for kind in ("reward", "sampled", "informative") for name in DOMAINS}
    curves = figures.training_curves(pd.DataFrame({"tokens_sampled": [1000, 2000], "reward": [0, 1]} | log))
    panels = figures.pass_at_k_figure(rows, "hard").axes
    return {
        "order": list(DOMAINS),
        "trained_on": params.load(ROOT / "params.yaml").train.domains,
        "colours": figures.DOMAIN_COLOURS,
        "forest": [text.get_text() for text in figures.gains_figure(gains).axes[0].get_yticklabels()],
        "panels": [axis.get_title() for axis in panels if axis.get_visible()],
        "lines": [text.get_text() for text in curves.axes[-1].get_legend().get_texts()],
        "partial": boundary.PARTIAL_DOMAINS,
        "graded": benchmarks.GRADED_DOMAINS,
        "claims": judged,
        "claim_labels": [text.get_text() for text in figures.claims_figure(judged).axes[0].get_yticklabels()],
        "sized": [row["claim"] for row in sized if not row["reason"]],
        "own_margin": domain_claims.for_all_domains(own)["gain-letters"].margin,
        "markdown": benchmarks.markdown(gains),
    }


def committed() -> list[dict[str, Any]]:
    """The claims' rows of the committed results, which know nothing of a sixth domain."""
    from prorl_study import claims, measures

    results = measures.Results.load(ROOT / "results")
    return claims.judge_claims(results, params.load(ROOT / "params.yaml").claims)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()))
