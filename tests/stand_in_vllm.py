"""What stands in for vLLM inside TRL where there is no card."""

from __future__ import annotations

import torch

from prorl_study.rollout import Decoding, generate


class StandIn:
    """In place of TRL's vLLM: samples by the study's loop and gives log-probabilities that are a little off,
    as an engine's are that rounds otherwise."""

    OFF = 0.01

    def __init__(self, model, temperature, top_p, max_completion_length, processing_class, **options):
        self.model, self.temperature, self.top_p = model, temperature, top_p
        self.max_completion_length, self.tokenizer = max_completion_length, processing_class
        self.synced, self.asked = 0, []

    def sync_weights(self):
        self.synced += 1

    def generate(self, prompts, images, num_generations, profiler=None):
        self.asked.append((self.temperature, len(prompts)))
        unique = prompts[::num_generations]
        groups = generate(
            self.model,
            unique,
            [num_generations] * len(unique),
            Decoding(self.temperature, self.top_p),
            self.max_completion_length,
            eos=self.tokenizer.eos_token_id,
            pad=self.tokenizer.pad_token_id,
        )
        completions = [ids for group in groups for ids in group]
        logps = [self._logps(p, c) for p, c in zip(prompts, completions, strict=True)]
        return prompts, completions, logps, None

    @torch.no_grad()
    def _logps(self, prompt, completion):
        logits = self.model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
        found = (logits / self.temperature).log_softmax(-1)[range(len(completion)), completion]
        return [[float(one) - self.OFF] for one in found]
