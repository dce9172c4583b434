"""Checks of a policy in training on problems of a split of its own, which the stagnation rule judges.

What the study reports is measured elsewhere (`evaluation`), on other problems: these checks only decide when
a segment ends, and draw the curve beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from prorl_study.domains.problem import Problem
from prorl_study.problems import first_of_each
from prorl_study.rollout import Decoding
from prorl_study.sampling import Sampler, sample
from prorl_study.verification.pool import VerificationPool


class Validation:
    """Checks of the policy on problems of its own split, each drawn by a generator seeded with the step."""

    def __init__(
        self,
        problems: Sequence[Problem],
        per_domain: int,
        pool: VerificationPool,
        sampler: Sampler,
        seed: int,
    ) -> None:
        """The first `per_domain` of each domain's `problems`, as many as there are."""
        self.problems = first_of_each(problems, per_domain)
        self.pool, self.sampler, self.seed = pool, sampler, seed

    def __call__(self, trainer, step: int) -> tuple[list[float], dict[str, int]]:
        """Score of each problem and the number of tokens that this took per domain.

        Several processes share the answers and their verdicts.
        """
        processes, mine = trainer.accelerator.num_processes, trainer.accelerator.process_index
        if processes == 1 and not trainer.use_vllm:
            answers = self._sampled_in_turn(trainer, step)
        else:
            answers = self._sampled_by_all(trainer, step)
        places = range(mine, len(answers), processes)
        verdicts = self.pool.verify([(self.problems[i], answers[i][0]) for i in places], answers=False)
        scores = [(i, verdict.score) for i, verdict in zip(places, verdicts, strict=True)]
        if processes > 1:
            from accelerate.utils import gather_object

            scores = sorted(gather_object(scores))
        tokens: dict[str, int] = {}
        for problem, (_, count) in zip(self.problems, answers, strict=True):
            tokens[problem.domain] = tokens.get(problem.domain, 0) + count
        return [score for _, score in scores], tokens

    def _sampled_in_turn(self, trainer, step: int) -> list[tuple[str, int]]:
        """Text and tokens of an answer to each problem, drawn batch by batch from one generator."""
        model = trainer.model
        model.eval()
        tokenizer = trainer.processing_class
        samples = sample(model, tokenizer, self.problems, 1, self.sampler, self.seed + step)
        model.train()
        return [(drawn[0].text, drawn[0].tokens) for drawn in samples]

    def _sampled_by_all(self, trainer, step: int) -> list[tuple[str, int]]:
        """The same in all processes: each answer is drawn from numbers of its own."""
        decoding = Decoding(self.sampler.temperature, self.sampler.top_p)
        rows = max(1, self.sampler.batch_tokens // (2 * trainer.max_completion_length))
        found = trainer.answer([p.prompt for p in self.problems], decoding, (self.seed, "check", step), rows)
        texts = trainer.processing_class.batch_decode(found, skip_special_tokens=True)
        return [(text, len(ids)) for text, ids in zip(texts, found, strict=True)]

    def prompt_tokens(self, tokenizer) -> int:
        return sum(
            len(
                tokenizer.apply_chat_template(
                    problem.prompt, add_generation_prompt=True, tokenize=True, return_dict=False
                )
            )
            for problem in self.problems
        )

    def means(self, scores: Sequence[float]) -> dict[str, float]:
        """Mean score per domain, and the mean of these."""
        by_domain: dict[str, list[float]] = {}
        for problem, score in zip(self.problems, scores, strict=True):
            by_domain.setdefault(problem.domain, []).append(score)
        means = {domain: sum(values) / len(values) for domain, values in by_domain.items()}
        return {"validation": sum(means.values()) / len(means)} | {
            f"validation/{domain}": mean for domain, mean in means.items()
        }
