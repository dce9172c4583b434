"""TRL's GRPOTrainer with dynamic sampling, quotas per domain and metrics per domain.

TRL has no dynamic sampling. `_generate_and_score_completions` is wrapped, never copied: groups are sampled
and judged until each domain's quota of informative ones is full, then the parent runs once on the kept
groups while `_generate` and `_calculate_rewards` answer from what was sampled. Two more methods are wrapped
for speed alone: rollouts go through the study's own loop, log-probabilities through buckets of similar
length. A contract test pins all five. Left out: several processes (the groups would have to be exchanged).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from prorl_study.domains.problem import Problem, Verdict
from prorl_study.errors import StudyError
from prorl_study.rollout import Decoding, generate
from prorl_study.streams import PromptStream, Quotas

INFORMATIVE_SPREAD = 1e-3
"""A group is kept when its scores, floored at the task's floor, differ by more than this."""

LENGTH_BUCKET = 16
"""Rows of similar length that pass the model together."""

MAX_OVERSAMPLING = 3
"""How many groups a round may sample for each group that is wanted, at most."""

GENERATE_FIELDS = 8
"""Arity of what TRL 1.16's `_generate` returns; one value per sample in each list field."""


class Judge(Protocol):
    """What the trainer asks of verification: verdicts in the order of the items, without answers to vote."""

    def verify(self, items: Sequence[tuple[Problem, str]], *, answers: bool) -> list[Verdict]: ...


@dataclass
class Group:
    """One prompt's rollouts, with the scores that they earned."""

    problem: Problem
    rollout: list[list[Any] | None]
    """The group's slice of each field that `_generate` returned; None for an absent field."""
    verdicts: list[Verdict]

    def spread(self, floor: float) -> float:
        """Largest minus smallest score, both at least the task's floor: crumbs for format do not count."""
        scores = [max(verdict.score, floor) for verdict in self.verdicts]
        return max(scores) - min(scores)

    def kind(self) -> str:
        """solve_all, solve_none or partial, by strict success."""
        solved = sum(verdict.solved for verdict in self.verdicts)
        return "solve_all" if solved == len(self.verdicts) else "partial" if solved else "solve_none"


class ProRLTrainer(GRPOTrainer):
    """GRPO over several domains with verifiable rewards and dynamic sampling."""

    def __init__(
        self,
        model: str,
        config: GRPOConfig,
        problems: Sequence[Problem],
        weights: Mapping[str, float],
        floors: Mapping[str, float],
        judge: Judge,
        tokenizer,
        dynamic_sampling: bool = True,
        max_sampling_rounds: int = 3,
        own_loops: bool = True,
        callbacks: Sequence[Any] = (),
        optimizers: tuple[Any, Any] = (None, None),
    ) -> None:
        """`model` is a path: TRL then builds the reference from the same weights.

        `weights` are shares per domain, `floors` scores in [0, 1] per task. Without `own_loops` rollouts and
        log-probabilities come from TRL's own code, slower and to the last bit the same as there. Raises
        StudyError when more than one process runs, or when a domain with a share has no problems.
        """
        self.stream = PromptStream(problems, config.seed)
        missing = sorted(set(weights) - set(self.stream.by_domain))
        if missing:
            raise StudyError(f"no training problems for {', '.join(missing)}; raise data.train_problems.")
        self.quotas = Quotas(weights)
        self.floors = dict(floors)
        self.judge = judge
        self.dynamic_sampling = dynamic_sampling
        self.max_sampling_rounds = max_sampling_rounds
        self.own_loops = own_loops
        # Share of a domain's groups that were informative lately: sizes the first round.
        self.keep_rate = dict.fromkeys(weights, 1.0)
        self._stash: tuple[list[Any], torch.Tensor] | None = None
        self._problem_of = {problem.id: problem for problem in problems}
        groups = config.generation_batch_size // config.num_generations
        super().__init__(
            model=model,
            reward_funcs=[self._verified_reward],
            args=config,
            # Rows are only counted when dynamic sampling draws from the stream itself; without it they are
            # the stream, in its order.
            train_dataset=self._rows(groups, config.max_steps // config.steps_per_generation),
            processing_class=tokenizer,
            callbacks=list(callbacks),
            optimizers=optimizers,
        )
        if self.accelerator.num_processes > 1:
            raise StudyError("training in several processes is not supported; start it with plain python.")

    def _rows(self, groups: int, steps: int) -> Dataset:
        stream, quotas = (
            PromptStream(list(self._problem_of.values()), self.stream.seed),
            Quotas(self.quotas.shares),
        )
        problems = [
            stream.next(domain)
            for _ in range(1 if self.dynamic_sampling else steps)
            for domain, count in quotas.next(groups).items()
            for _ in range(count)
        ]
        return Dataset.from_list([{"prompt": p.prompt, "problem_id": p.id} for p in problems])

    def _verified_reward(self, prompts, completions, problem_id, **kwargs) -> list[float]:
        texts = [completion[-1]["content"] for completion in completions]
        problems = [self._problem_of[i] for i in problem_id]
        verdicts = self.judge.verify(list(zip(problems, texts, strict=True)), answers=False)
        if self.model.training:
            for i in range(0, len(problems), self.num_generations):
                self._count(Group(problems[i], [], verdicts[i : i + self.num_generations]))
        return [verdict.score for verdict in verdicts]

    _verified_reward.__name__ = "verified"

    # ---- wrapped for speed ----------------------------------------------------------------------

    def _generate_single_turn(
        self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False
    ):
        # One prefill per prompt instead of one per copy, and no row carried past its end: most of a rollout's
        # time on a CPU. Engines that TRL drives itself stay in charge where they are switched on.
        if not self.own_loops or self.use_vllm or images is not None or not self.model.training:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
        prompts = prompt_ids[::num_generations]
        completions = generate(
            self.accelerator.unwrap_model(self.model),
            prompts,
            [num_generations] * len(prompts),
            Decoding(self.args.temperature, self.args.top_p),
            self.args.max_completion_length,
            eos=self._tokenizer.eos_token_id,
            pad=self._tokenizer.pad_token_id,
        )
        return [ids for group in completions for ids in group], None

    def _get_per_token_logps_and_entropies(
        self,
        model,
        input_ids,
        attention_mask,
        logits_to_keep,
        batch_size=None,
        compute_entropy=False,
        **kwargs,
    ):
        # A batch is padded to its longest prompt and its longest completion, which with five domains is more
        # padding than text, and each row passes the model three times. Rows of similar length go together
        # here, without the columns that are padding in all of them; what the mask hides comes back as zero.
        if not self.own_loops or kwargs.get("pixel_values") is not None or kwargs.get("compute_aux_loss"):
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **kwargs
            )
        width = input_ids.shape[1]
        buckets = _length_buckets(attention_mask, width - logits_to_keep)
        logps, entropies = [], []
        for rows in buckets:
            columns = attention_mask[rows].any(0).nonzero()
            first, last = int(columns[0]), int(columns[-1]) + 1
            first, last = min(first, width - logits_to_keep - 1), max(last, width - logits_to_keep + 1)
            padding = (0, width - last)
            logp, entropy, _ = super()._get_per_token_logps_and_entropies(
                model,
                input_ids[rows, first:last],
                attention_mask[rows, first:last],
                logits_to_keep - (width - last),
                compute_entropy=compute_entropy,
                **kwargs,
            )
            logps.append(torch.nn.functional.pad(logp, padding))
            entropies.append(torch.nn.functional.pad(entropy, padding) if compute_entropy else None)
        order = torch.cat(buckets)
        back = order.argsort()
        return torch.cat(logps)[back], torch.cat(entropies)[back] if compute_entropy else None, None

    # ---- wrapped for dynamic sampling ----------------------------------------------------------------

    def _generate(self, prompts):
        return self._stash[0] if self._stash else super()._generate(prompts)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        if self._stash:
            return self._stash[1]
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

    def _generate_and_score_completions(self, inputs):
        if not (self.dynamic_sampling and self.model.training):
            return super()._generate_and_score_completions(inputs)
        groups = self._collect_groups(len(inputs) // self.num_generations)
        rows = [
            {"prompt": group.problem.prompt, "problem_id": group.problem.id}
            for group in groups
            for _ in range(self.num_generations)
        ]
        scores = torch.tensor(
            [[verdict.score] for group in groups for verdict in group.verdicts],
            device=self.accelerator.device,
        )
        self._stash = (_join([group.rollout for group in groups]), scores)
        try:
            return super()._generate_and_score_completions(rows)
        finally:
            self._stash = None

    # ---- dynamic sampling --------------------------------------------------------------------------

    def _collect_groups(self, count: int) -> list[Group]:
        """`count` groups in the mixture's shares: informative ones as far as the rounds reach.

        A shortfall is filled with uninformative groups of the same domain, and counted, so that the batch
        has a fixed size and the mixture stays. Surplus informative groups are dropped: kept for the next
        step they would be off-policy.
        """
        quota = self.quotas.next(count)
        kept: dict[str, list[Group]] = {domain: [] for domain in quota}
        spare: dict[str, list[Group]] = {domain: [] for domain in quota}
        sampled = dict.fromkeys(quota, 0)
        informative = dict.fromkeys(quota, 0)
        for _ in range(self.max_sampling_rounds):
            wanted = {d: quota[d] - len(kept[d]) for d in quota if len(kept[d]) < quota[d]}
            if not wanted:
                break
            draws = {
                d: min(MAX_OVERSAMPLING * need, math.ceil(need / max(self.keep_rate[d], 0.01)))
                for d, need in wanted.items()
            }
            problems = [self.stream.next(d) for d, need in draws.items() for _ in range(need)]
            for group in self._sample_groups(problems):
                domain = group.problem.domain
                sampled[domain] += 1
                self._count(group)
                if group.spread(self.floors.get(group.problem.task, 0.0)) > INFORMATIVE_SPREAD:
                    informative[domain] += 1
                    kept[domain].append(group)
                else:
                    spare[domain].append(group)
        metrics = self._metrics["train"]
        filled = 0
        for domain in quota:
            if sampled[domain]:
                rate = informative[domain] / sampled[domain]
                self.keep_rate[domain] += 0.1 * (rate - self.keep_rate[domain])
            shortfall = quota[domain] - len(kept[domain])
            filled += max(0, shortfall)
            metrics[f"sampled/{domain}"].append(sampled[domain])
            metrics[f"informative/{domain}"].append(informative[domain])
            metrics[f"kept/{domain}"].append(quota[domain] - max(0, shortfall))
            kept[domain] = (kept[domain] + spare[domain])[: quota[domain]]
        metrics["kept_fraction"].append((count - filled) / max(1, sum(sampled.values())))
        metrics["filled_groups"].append(filled)
        return [group for domain in quota for group in kept[domain]]

    def _sample_groups(self, problems: Sequence[Problem]) -> list[Group]:
        """Sample and judge one group per problem under the current policy."""
        size = self.num_generations
        rows = [problem for problem in problems for _ in range(size)]
        output = super()._generate([problem.prompt for problem in rows])
        assert len(output) == GENERATE_FIELDS, f"TRL's _generate returned {len(output)} fields"
        texts = [completion[-1]["content"] for completion in output[3]]
        verdicts = self.judge.verify(list(zip(rows, texts, strict=True)), answers=False)
        return [
            Group(
                problem=problem,
                rollout=[
                    field[i * size : (i + 1) * size] if isinstance(field, list) and field else field
                    for field in output
                ],
                verdicts=verdicts[i * size : (i + 1) * size],
            )
            for i, problem in enumerate(problems)
        ]

    def _count(self, group: Group) -> None:
        """Metrics on everything that was sampled: unlike those on kept groups, they measure the policy."""
        metrics, domain = self._metrics["train"], group.problem.domain
        scores = [verdict.score for verdict in group.verdicts]
        metrics[f"reward/{domain}"].append(sum(scores) / len(scores))
        metrics[f"solved/{domain}"].append(sum(v.solved for v in group.verdicts) / len(scores))
        for kind in ("solve_all", "solve_none", "partial"):
            metrics[f"{kind}/{domain}"].append(float(group.kind() == kind))

    # ---- what a checkpoint holds beside TRL's own state -----------------------------------------------

    def study_state(self) -> dict[str, Any]:
        """Prompt positions, carried quotas and keep rates, JSON-plain."""
        return {
            "stream": self.stream.state_dict(),
            "quotas": self.quotas.state_dict(),
            "keep_rate": dict(self.keep_rate),
        }

    def load_study_state(self, state: Mapping[str, Any]) -> None:
        """Inverse of `study_state`."""
        self.stream.load_state_dict(state["stream"])
        self.quotas.load_state_dict(state["quotas"])
        self.keep_rate = dict(state["keep_rate"])


def _length_buckets(attention_mask: torch.Tensor, prompt_width: int) -> list[torch.Tensor]:
    """Row indices in buckets of similar prompt and similar completion length: a bucket is as wide as its
    longest prompt and its longest completion together, so sorting by the sum alone would not do.
    """
    prompts, completions = attention_mask[:, :prompt_width].sum(1), attention_mask[:, prompt_width:].sum(1)
    bands = max(1, round((len(prompts) / LENGTH_BUCKET) ** 0.5))
    by_prompt = prompts.argsort(stable=True).chunk(bands)
    return [
        part
        for band in by_prompt
        for part in band[completions[band].argsort(stable=True)].split(LENGTH_BUCKET)
    ]


def _join(rollouts: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
    """Concatenate the groups' slices field by field; fields that are None or empty stay so."""
    return tuple(
        [item for part in parts for item in part] if isinstance(parts[0], list) and parts[0] else parts[0]
        for parts in zip(*rollouts, strict=True)
    )
