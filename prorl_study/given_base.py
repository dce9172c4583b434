"""A base model from elsewhere: any causal language model, taken as it is and saved as the stages want it.

Weights are saved as fp32, whatever they came in: RL's steps of 2e-6 round away in bf16. The tokenizer gets
the token that ends an answer and, where it has no chat template, one that puts a question as it stands.
Left out: training it (`base_model` does that for the embedded one).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from prorl_study import model_source
from prorl_study.errors import StudyError


@dataclass(frozen=True)
class Taken:
    """What was taken."""

    base: str
    revision: str
    """The hub's commit; of a local folder the start of the hash of its files."""
    parameters: int
    vocabulary: int
    """Rows of the embedding."""
    own_template: bool
    """Whether it came with a chat template."""
    end: str
    """The token that ends an answer."""
    context: int | None
    """Tokens of prompt and answer together that it was built for."""


def take(base: str, revision: str, longest: int, out: Path) -> Taken:
    """Save the model `base`, a local folder or a hub id, and its tokenizer in `out`, complete or not at all.

    `longest` is the number of tokens of an answer at most. Raises StudyError where there is no such model, it
    cannot be used, or it is built for fewer tokens.
    """
    source = model_source.find(base, revision or None)
    limit = model_source.context_limit(source)
    if limit and limit <= longest:
        raise StudyError(
            f"{base} takes {limit} tokens of prompt and answer together, and answers may have {longest}; "
            "lower max_completion_tokens and max_tokens in params.yaml."
        )
    tokenizer = model_source.load_tokenizer(source, plain=True)
    own = tokenizer.chat_template != model_source.PLAIN_TEMPLATE
    model = model_source.load_model(source, "float32")
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    # What sampled the model elsewhere (a top-k, a temperature, a list of end tokens) is not the study's.
    model.generation_config = type(model.generation_config)(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return Taken(
        base=base,
        revision=source.revision,
        parameters=model.num_parameters(),
        vocabulary=model.get_input_embeddings().weight.shape[0],
        own_template=own,
        end=tokenizer.eos_token,
        context=limit,
    )
