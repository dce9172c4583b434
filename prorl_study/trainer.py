"""TRL's GRPOTrainer with dynamic sampling, quotas per domain and metrics per domain.

TRL has no dynamic sampling. `_generate_and_score_completions` is wrapped, never copied: groups are sampled
and judged as `dynamic_sampling` asks for, then the parent runs once on the kept groups while `_generate` and
`_calculate_rewards` answer from what was sampled. Two more methods are wrapped for speed alone: rollouts go
through the study's own loop, log-probabilities through buckets of similar length. `training_step` and `log`
are wrapped for what `gradient_probe` measures, the making of the accelerator for FSDP2's precision. A
contract test pins all eight.

Several processes share each round's prompts, judge what they sampled and exchange the groups, so that all
make the same choice. Each completion is drawn from numbers of its own, seeded by (seed, draw, sample),
so the choice does not depend on how many processes there are. Sharded weights are whole during a rollout.
Where vLLM samples, TRL drives it, and it draws from numbers of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import torch
from accelerate.utils import FullyShardedDataParallelPlugin, gather_object
from datasets import Dataset
from torch.distributed.fsdp import FSDPModule
from trl import GRPOConfig, GRPOTrainer
from trl.models import unwrap_model_for_generation

from prorl_study.curriculum import Phase, phase_at
from prorl_study.domains.problem import Problem, Verdict
from prorl_study.dynamic_sampling import Counts, DynamicSampling, Group
from prorl_study.errors import StudyError
from prorl_study.gradient_probe import GradientProbe
from prorl_study.rewards import rewarded
from prorl_study.rollout import Decoding, generate, seeded_uniforms
from prorl_study.streams import PromptStream

LENGTH_BUCKET = 16
"""Rows of similar length that pass the model together."""

MOST_STEPS_A_PASS = 1000
"""Rollout steps for which the data set that TRL counts has rows."""

GENERATE_FIELDS = 8
"""Arity of what TRL 1.16's `_generate` returns; one value per sample in each list field."""


class Judge(Protocol):
    """What the trainer asks of verification: verdicts in the order of the items, without answers to vote."""

    def verify(self, items: Sequence[tuple[Problem, str]], *, answers: bool) -> list[Verdict]: ...


def sum_in_full_precision(plugin: FullyShardedDataParallelPlugin) -> None:
    """Have FSDP2 reduce gradients as fp32 and hand on outputs as they are.

    Under `mixed_precision: bf16` accelerate casts both to bf16, log-probabilities among them: one of -1.5
    then comes in steps of 0.008 nats, which is more than an update moves it.
    """
    if policy := plugin.mixed_precision_policy:
        plugin.mixed_precision_policy = replace(policy, reduce_dtype=torch.float32, output_dtype=None)


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
        curriculum: Sequence[tuple[int, Phase]] = (),
        reward: str = "verified",
        probe_every: int = 0,
        pass_tokens: int = 0,
        callbacks: Sequence[Any] = (),
        optimizers: tuple[Any, Any] = (None, None),
    ) -> None:
        """`model` is a path: TRL then builds the reference from the same weights.

        `weights` are shares per domain, `floors` scores in [0, 1] per task. Without `own_loops` rollouts and
        log-probabilities come from TRL's own code, slower and to the last bit the same as there. `curriculum`
        holds pairs of a number of sampled tokens and the phase from there on, `reward` is a name in
        `rewards.REWARDS`, and every `probe_every` rollout steps (0: never) the KL gradient's share and the
        size of the step are measured. `pass_tokens` bounds the tokens, padding included, that pass the model
        together for log-probabilities (0: LENGTH_BUCKET rows). Raises StudyError when a domain with a share
        has no problems.
        """
        stream = PromptStream(problems, config.seed)
        missing = sorted(set(weights) - set(stream.by_domain))
        if missing:
            raise StudyError(f"no training problems for {', '.join(missing)}; raise data.train_problems.")
        self.sampling = DynamicSampling(stream, weights, floors, max_sampling_rounds, refill=dynamic_sampling)
        self.judge = judge
        self.own_loops = own_loops
        self.curriculum, self.reward, self.probe_every = list(curriculum), reward, probe_every
        self.truncation_factor, self.pass_tokens = 1.0, pass_tokens
        self.tokens = dict.fromkeys(("sampled", "prompt", "trained"), 0)
        """So far: completion tokens of all rollouts, dropped ones and validation included; prompt tokens that
        they were drawn from, once a group; prompt and completion tokens that training passed over."""
        self.tokens_of = dict.fromkeys(weights, 0)
        """`tokens["sampled"]` by domain."""
        self.solved: list[dict[str, Any]] = []
        """What the last rollout step sampled and solved, as token ids: what supervised training could use."""
        self.rollout_steps = 0
        self.probed_from = 0
        """Rollout step that the probes count from: the segment's first."""
        self._keys: list[tuple[Any, ...]] = []
        self._stash: tuple[list[Any], torch.Tensor] | None = None
        self.probe = GradientProbe(self)
        # TRL counts rows and repeats each for its group; which problems they stand for, the stream says.
        # Each pass over them draws from torch's generator, so a run of moderate length takes one pass.
        self.groups = config.generation_batch_size // config.num_generations
        updates = config.steps_per_generation // config.gradient_accumulation_steps
        steps = min(MOST_STEPS_A_PASS, config.max_steps // updates)
        rows = Dataset.from_list([{"prompt": problems[0].prompt}] * self.groups * max(1, steps))
        super().__init__(
            model=model,
            reward_funcs=[_sampled_before],
            args=config,
            train_dataset=rows,
            processing_class=tokenizer,
            callbacks=list(callbacks),
            optimizers=optimizers,
        )

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.accelerator.is_fsdp2:
            sum_in_full_precision(self.accelerator.state.fsdp_plugin)

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
        decoding = Decoding(self.args.temperature, self.args.top_p)
        return self._drawn(prompts, num_generations, decoding, self._keys), None

    def _drawn(
        self, prompts: Sequence[list[int]], copies: int, decoding: Decoding, keys: Sequence[Any]
    ) -> list[list[int]]:
        """`copies` completions of each prompt by the study's own loop, each from the numbers of its key."""
        with self._whole_model() as model:
            completions = generate(
                model,
                prompts,
                [copies] * len(prompts),
                decoding,
                self.max_completion_length,
                eos=self._tokenizer.eos_token_id,
                pad=self._tokenizer.pad_token_id,
                uniforms=seeded_uniforms(keys, self.max_completion_length),
            )
        return [ids for group in completions for ids in group]

    @contextmanager
    def _whole_model(self) -> Iterator[Any]:
        """The policy with all its weights in this process: where they are sharded, a forward pass would wait
        for the other processes, which sample other numbers of tokens."""
        model = self.accelerator.unwrap_model(self.model)
        parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
        if self.is_deepspeed_enabled:
            with unwrap_model_for_generation(self.model_wrapped, self.accelerator) as whole:
                yield whole
            return
        for part in parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        try:
            yield model
        finally:
            for part in parts:
                part.reshard()
                part.set_reshard_after_forward(True, recurse=False)

    def answer(
        self, prompts: Sequence[Sequence[Mapping[str, str]]], decoding: Decoding, key: Any, rows: int
    ) -> list[list[int]]:
        """One completion of each chat prompt by the policy as it is, as token ids, in all processes alike.

        Each process samples its share, at most `rows` at once where its own loop samples, and completion
        number i is drawn from numbers of its own, seeded by `(key, i)`; vLLM draws from numbers of its own.
        """
        processes, mine = self.accelerator.num_processes, self.accelerator.process_index
        places = list(range(mine, len(prompts), processes))
        # Behind a server all processes ask for equally many.
        padded = places + [0] * (-(-len(prompts) // processes) - len(places))
        ids, _, _ = self._tokenize_prompts([list(prompts[place]) for place in padded])
        training = self.model.training
        self.model.eval()
        if self.use_vllm:
            found = self._drawn_by_vllm(ids, decoding)
        else:
            found = []
            for start in range(0, len(places), rows):
                part = slice(start, min(start + rows, len(places)))
                keys = [(key, place) for place in places[part]]
                found += self._drawn(ids[part], 1, decoding, keys)
        self.model.train(training)
        pairs = list(zip(places, found, strict=False))  # without the padding
        if processes > 1:
            pairs = sorted(gather_object(pairs))
        return [completion for _, completion in pairs]

    def _drawn_by_vllm(self, ids: list[list[int]], decoding: Decoding) -> list[list[int]]:
        engine = self.vllm_generation
        if self.state.global_step != self._last_loaded_step:
            engine.sync_weights()
            self._last_loaded_step = self.state.global_step
        kept = engine.temperature, engine.top_p
        engine.temperature, engine.top_p = decoding.temperature, decoding.top_p
        try:
            return engine.generate(prompts=ids, images=None, num_generations=1)[1]
        finally:
            engine.temperature, engine.top_p = kept

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
        buckets = _length_buckets(attention_mask, width - logits_to_keep, self._rows_at_once(attention_mask))
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

    def _rows_at_once(self, attention_mask: torch.Tensor) -> int:
        """Rows that pass the model together, the same in all processes: sharded weights are gathered pass by
        pass, by all of them."""
        if not self.pass_tokens:
            return LENGTH_BUCKET
        longest = attention_mask.sum(1).max()
        longest = int(self.accelerator.gather(longest).max())
        return max(1, min(LENGTH_BUCKET, self.pass_tokens // longest))

    # ---- wrapped for dynamic sampling ----------------------------------------------------------------

    def _generate(self, prompts):
        return self._stash[0] if self._stash else super()._generate(prompts)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        if self._stash:
            return self._stash[1]
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

    def _generate_and_score_completions(self, inputs):
        if not self.model.training:
            return super()._generate_and_score_completions(inputs)
        self._enter_phase()
        self.rollout_steps += 1
        processes = self.accelerator.num_processes
        own = self.groups // processes
        batch, everything, counts = self.sampling.collect(own * processes, self._sample_groups)
        self._log_groups(everything, counts)
        self.solved = [
            {"domain": group.problem.domain, "prompt": list(prompt), "completion": list(completion)}
            for group in everything
            for prompt, completion, verdict in zip(*group.rollout[:2], group.verdicts, strict=True)
            if verdict.solved
        ]
        groups = batch[self.accelerator.process_index * own :][:own]
        rows = [{"prompt": group.problem.prompt} for group in groups for _ in range(self.num_generations)]
        scores = torch.tensor(  # of all processes, as TRL's own method returns them
            [[reward] for group in batch for reward in group.rewards], device=self.accelerator.device
        )
        self.tokens["trained"] += sum(
            len(ids) for group in batch for side in group.rollout[:2] for ids in side
        )
        self._stash = (_join([group.rollout for group in groups]), scores)
        try:
            return super()._generate_and_score_completions(rows)
        finally:
            self._stash = None

    # ---- sampling ----------------------------------------------------------------------------------

    def _enter_phase(self) -> None:
        """Take on what the curriculum says for the tokens sampled so far. Groups stay as many as they are."""
        if not self.curriculum:
            return
        phase = phase_at(self.curriculum, self.tokens["sampled"])
        self.sampling.active = list(phase.domains)
        self.truncation_factor = phase.truncation_factor
        self.num_generations = phase.rollouts_per_prompt
        # TRL copies the cap into the engine that samples; its loss and its metrics read its own.
        self.max_completion_length = phase.max_completion_tokens
        if self.use_vllm:
            self.vllm_generation.max_completion_length = phase.max_completion_tokens
        else:
            self.generation_config.max_new_tokens = phase.max_completion_tokens

    def _sample_groups(self, problems: Sequence[Problem]) -> list[Group]:
        """Sample and judge one group per problem under the current policy, each in one of the processes."""
        processes, mine = self.accelerator.num_processes, self.accelerator.process_index
        own = [(place, problem) for place, problem in enumerate(problems) if place % processes == mine]
        # TRL exchanges lengths while it samples, so all processes sample equally many; the rest is dropped.
        padded = own + [(-1, problems[0])] * (-(-len(problems) // processes) - len(own))
        size = self.num_generations
        rows = [problem for _, problem in padded for _ in range(size)]
        self._keys = [
            (self.args.seed, self.sampling.drawn + place, number)
            for place, problem in padded
            for number in range(size)
        ]
        output = super()._generate([problem.prompt for problem in rows])
        assert len(output) == GENERATE_FIELDS, f"TRL's _generate returned {len(output)} fields"
        texts = [completion[-1]["content"] for completion in output[3]][: len(own) * size]
        verdicts = self.judge.verify(list(zip(rows[: len(own) * size], texts, strict=True)), answers=False)
        rewards = [
            rewarded(self.reward, key, verdict, self._truncated(ids), self.truncation_factor)
            for key, verdict, ids in zip(self._keys, verdicts, output[1], strict=False)  # keys: padding too
        ]
        groups = [
            (
                place,
                Group(
                    problem=problem,
                    rollout=[
                        field[i * size : (i + 1) * size] if isinstance(field, list) and field else field
                        for field in output
                    ],
                    verdicts=verdicts[i * size : (i + 1) * size],
                    rewards=rewards[i * size : (i + 1) * size],
                ),
            )
            for i, (place, problem) in enumerate(own)
        ]
        if processes > 1:
            groups = sorted(gather_object(groups), key=lambda pair: pair[0])
        found = [group for _, group in groups]
        for group in found:
            number = sum(len(ids) for ids in group.rollout[1])
            self.tokens["sampled"] += number
            self.tokens_of[group.problem.domain] += number
        self.tokens["prompt"] += sum(len(group.rollout[0][0]) for group in found)
        return found

    def _truncated(self, ids: Sequence[int]) -> bool:
        return len(ids) >= self.max_completion_length and ids[-1] != self._tokenizer.eos_token_id

    def _log_groups(self, everything: Sequence[Group], counts: Counts) -> None:
        """Metrics on all that was sampled: unlike those on kept groups, they measure the policy."""
        metrics = self._metrics["train"]
        for group in everything:
            domain = group.problem.domain
            metrics[f"reward/{domain}"].append(sum(group.scores) / len(group.scores))
            metrics[f"solved/{domain}"].append(sum(v.solved for v in group.verdicts) / len(group.verdicts))
            for kind in ("solve_all", "solve_none", "partial"):
                metrics[f"{kind}/{domain}"].append(float(group.kind() == kind))
        for domain in counts.quota:
            metrics[f"sampled/{domain}"].append(counts.sampled[domain])
            metrics[f"informative/{domain}"].append(counts.informative[domain])
            metrics[f"kept/{domain}"].append(counts.kept[domain])
            metrics[f"saturated/{domain}"].append(float(domain in counts.saturated))
        metrics["kept_fraction"].append(sum(counts.kept.values()) / len(everything))
        metrics["filled_groups"].append(counts.filled)

    # ---- what the KL does ------------------------------------------------------------------------------

    def training_step(self, model, inputs, num_items_in_batch):
        first = self._step % self.args.steps_per_generation == 0
        probed = first and self.probe_every and not (self.rollout_steps - self.probed_from) % self.probe_every
        if probed:
            self.probe.begin()
        loss = super().training_step(model, inputs, num_items_in_batch)
        if probed:
            batch = self._buffered_inputs[(self._step - 1) % self.args.steps_per_generation]
            share = self.probe.kl_share(batch)
            if share is not None:
                self._metrics["train"]["kl_share"].append(share)
        return loss

    def log(self, logs, *args, **kwargs):
        if "loss" in logs and (size := self.probe.step_size()) is not None:
            logs["step_size"] = size
        return super().log(logs, *args, **kwargs)

    # ---- what a checkpoint holds beside TRL's own state -----------------------------------------------

    def study_state(self) -> dict[str, Any]:
        """Where prompts, quotas and the counts of tokens and steps stand, JSON-plain."""
        return {
            "sampling": self.sampling.state_dict(),
            "tokens": dict(self.tokens),
            "tokens_of": dict(self.tokens_of),
            "rollout_steps": self.rollout_steps,
            "probed_from": self.probed_from,
        }

    def load_study_state(self, state: Mapping[str, Any]) -> None:
        """Inverse of `study_state`."""
        self.sampling.load_state_dict(state["sampling"])
        self.tokens = dict(state["tokens"])
        self.tokens_of |= {d: n for d, n in state["tokens_of"].items() if d in self.tokens_of}
        self.rollout_steps, self.probed_from = state["rollout_steps"], state["probed_from"]


def _sampled_before(prompts, completions, **_: Any) -> list[float]:
    """Stands where TRL wants a reward function; scores come with the sampled groups."""
    raise NotImplementedError("ProRLTrainer scores while it samples; evaluate with prorl_study.evaluation")


_sampled_before.__name__ = "verified"


def _length_buckets(attention_mask: torch.Tensor, prompt_width: int, size: int) -> list[torch.Tensor]:
    """Row indices in buckets of `size` with similar prompt and similar completion length: a bucket is as wide
    as its longest prompt and its longest completion together, so sorting by the sum alone would not do.
    """
    prompts, completions = attention_mask[:, :prompt_width].sum(1), attention_mask[:, prompt_width:].sum(1)
    bands = max(1, round((len(prompts) / size) ** 0.5))
    by_prompt = prompts.argsort(stable=True).chunk(bands)
    return [part for band in by_prompt for part in band[completions[band].argsort(stable=True)].split(size)]


def _join(rollouts: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
    """Concatenate the groups' slices field by field; fields that are None or empty stay so."""
    return tuple(
        [item for part in parts for item in part] if isinstance(parts[0], list) and parts[0] else parts[0]
        for parts in zip(*rollouts, strict=True)
    )
