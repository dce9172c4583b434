"""Any causal language model, from a local folder or the hub: found, checked and loaded.

Whoever names a model need not trust it: only safetensors are read (a pickle can run code on loading) and no
code of its repository is ever run. Every way in which a model can be unusable ends as one sentence. Left out:
adapters, quantised weights that need more libraries, and models on several devices.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorl_study.errors import StudyError
from prorl_study.files import digests

if TYPE_CHECKING:  # torch and transformers take seconds to import, and `--help` needs neither
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "vocab*",
    "merges.txt",
    "*.model",
)
"""What is read of a model, and all that is fetched from the hub."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
COMMIT = re.compile(r"[0-9a-f]{40}")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Source:
    """A model that was found and whose files are complete as far as their names tell."""

    asked: str
    """As the user named it; errors speak of it."""
    path: Path
    """The folder that holds its files."""
    revision: str
    """The hub's commit; of a local folder `files:` and the start of the hash of its files."""
    files: dict[str, str]
    """SHA-256 by file name: what samples of this model depend on."""


def short_name(model: str) -> str:
    """The last part of a folder or hub id, for rows and folders."""
    return Path(model).expanduser().resolve().name


def first_line(error: BaseException) -> str:
    """The error in one line, for a sentence of ours."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip().rstrip('.')}" if lines else type(error).__name__


def find(model: str, revision: str | None = None) -> Source:
    """Look for `model` among local folders, then in the hub's cache and on the hub at `revision`.

    Warns of a revision that is no commit, since it can move. Raises StudyError where there is no such model,
    it may not be fetched, or its folder lacks what is needed.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise StudyError(f"revision {revision} was given for the local folder {model}; leave it out.")
        path = folder.resolve()
    elif folder.exists() or folder.is_absolute() or model.startswith((".", "~")):
        raise StudyError(f"{model} is no folder; give a folder with config.json, or a hub id like org/name.")
    else:
        path = _fetch(model, revision)
    _check_files(model, path)
    files = digests(path, FILES)
    content = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return Source(model, path, f"files:{content[:16]}" if folder.is_dir() else path.name, files)


def _fetch(model: str, revision: str | None) -> Path:
    """The folder of the hub's `model` in the local cache, named by its commit; fetched where needed."""
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f" at revision {revision}" if revision else ""
    try:
        # "*/*": some repositories hold the same weights a second time, in a folder
        path = Path(snapshot_download(model, revision=revision, allow_patterns=FILES, ignore_patterns="*/*"))
    except HFValidationError:
        raise StudyError(
            f"{model} is neither a local folder nor a hub id like org/name; correct it."
        ) from None
    except GatedRepoError:
        raise StudyError(
            f"{model} is gated: accept its terms at https://huggingface.co/{model} and run `hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        raise StudyError(
            f"{model} is neither a local folder nor a model of the hub that you may see; correct the name, "
            "or run `hf auth login` where it is private."
        ) from None
    except RevisionNotFoundError:
        raise StudyError(
            f"{model} has no revision {revision}; choose one of https://huggingface.co/{model}/commits/main."
        ) from None
    except (OSError, httpx.HTTPError) as error:
        raise StudyError(
            f"{model} is no local folder, and{at} it can neither be found in the local cache nor be fetched "
            f"from the hub ({first_line(error)}); go online, unset HF_HUB_OFFLINE, or give a copy's folder."
        ) from None
    if not COMMIT.fullmatch(revision or ""):
        warnings.warn(
            f"{model}: revision {revision or 'main'} can move; pin it with --revision {path.name}.",
            stacklevel=3,
        )
    return path


def _check_files(model: str, path: Path) -> None:
    """Raises StudyError where the folder holds no model that may be loaded."""
    if not (path / "config.json").is_file():
        raise StudyError(
            f"{model} is an adapter only; merge it into its model (`merge_and_unload`) and give that folder."
            if (path / "adapter_config.json").is_file()
            else f"{model} holds no model (config.json is missing); give what `save_pretrained` wrote."
        )
    config = read_config(model, path)
    if "auto_map" in config and not _is_known(config.get("model_type")):
        raise StudyError(
            f"{model} needs code of its own repository (auto_map in config.json), which is never run; give a "
            "model that transformers knows."
        )
    if not any(path.glob("*.safetensors")):
        pickles = sorted(file.name for pattern in PICKLES for file in path.glob(pattern))
        raise StudyError(
            f"{model} holds no *.safetensors{f', only {pickles[0]}' if pickles else ''}, and pickled weights "
            "are never loaded, since that can run code; convert them with `save_pretrained`."
        )


def _is_known(model_type: str | None) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return model_type in CONFIG_MAPPING_NAMES


def read_config(model: str, path: Path) -> dict[str, Any]:
    """The model's `config.json`. Raises StudyError where that is no JSON object."""
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise StudyError(f"{model}: config.json is damaged ({first_line(error)}); get it anew.") from None
    if not isinstance(config, dict):
        raise StudyError(f"{model}: config.json holds no object; get it anew.")
    return config


def context_limit(source: Source) -> int | None:
    """Tokens of prompt and answer together that the model was built for; None where it does not say."""
    config = read_config(source.asked, source.path)
    return config.get("max_position_embeddings") or config.get("text_config", {}).get(
        "max_position_embeddings"
    )


PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message.content }}\n{% endfor %}"
    "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"
)
"""How a question is put to a model that is no chat model: as it stands, a line each."""


def load_tokenizer(source: Source, plain: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer, with chat template, end token (see `end_token`) and padding token.

    With `plain` one without a chat template gets `PLAIN_TEMPLATE`. Raises StudyError where it cannot be read
    or has no end token or, without `plain`, no chat template.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.path, trust_remote_code=False)
    except Exception as error:  # tokenizers raise anything on damaged files, bare Exception included
        raise StudyError(
            f"{source.asked}: its tokenizer cannot be loaded ({first_line(error)}); mend its tokenizer files."
        ) from error
    if not tokenizer.chat_template and plain:
        tokenizer.chat_template = PLAIN_TEMPLATE
    if not tokenizer.chat_template:
        raise StudyError(
            f"{source.asked} has no chat template, so it is unknown how a question is put to it; give a chat "
            "model, or a copy of the folder with a chat_template.jinja."
        )
    if tokenizer.eos_token_id is None:
        raise StudyError(
            f"{source.asked}: its tokenizer names no eos_token; add it to tokenizer_config.json."
        )
    end = end_token(source, tokenizer)
    if end != tokenizer.eos_token:
        tokenizer.eos_token = end
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def end_token(source: Source, tokenizer: PreTrainedTokenizerBase) -> str:
    """The token that ends an answer: of those that the model may end with, the one in its chat template.

    Some chat models end a turn with a token that is not their tokenizer's `eos_token`, and only
    `generation_config.json` lists it (Gemma, Phi-3); sampled on to the other token, every answer would be cut
    off at the cap. Where the template does not tell, `eos_token` it is.
    """
    file = source.path / "generation_config.json"
    listed = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None
    candidates = {tokenizer.eos_token_id, *([listed] if isinstance(listed, int) else listed or [])}
    if len(candidates) == 1:
        return tokenizer.eos_token
    question = [{"role": "user", "content": "a"}]
    opened = chat_ids(tokenizer, question)
    turn = tokenizer.apply_chat_template(
        [*question, {"role": "assistant", "content": "b"}], tokenize=True, return_dict=False
    )
    ends = [token for token in turn[len(opened) :] if token in candidates]
    if turn[: len(opened)] != opened or not ends:
        return tokenizer.eos_token
    return tokenizer.convert_ids_to_tokens(ends[0])


def chat_ids(tokenizer: PreTrainedTokenizerBase, prompt: list[dict[str, str]]) -> list[int]:
    """Token ids of a chat prompt up to where the answer begins, as `sampling.sample` gives them to the model.

    Raises StudyError where the chat template refuses the messages.
    """
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, tokenize=True, return_dict=False
        )
    except TemplateError as error:
        raise StudyError(
            f"the model's chat template refuses a prompt with roles "
            f"{', '.join(message['role'] for message in prompt)} ({first_line(error)}); change the prompt."
        ) from None


def default_dtype() -> str:
    """fp32 on a CPU, where bf16 is slow and rounding is not worth it; bf16 on a GPU."""
    import torch

    return "bfloat16" if torch.cuda.is_available() else "float32"


def load_model(source: Source, dtype: str) -> PreTrainedModel:
    """The model in evaluation mode, on the GPU where there is one.

    Raises StudyError where it cannot be loaded or its files lack weights, which would be random numbers.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            source.path,
            dtype=getattr(torch, dtype),
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # damaged or unknown files end in errors of many libraries
        raise StudyError(
            f"{source.asked} cannot be loaded ({first_line(error)}); see that its files are whole and that "
            "they fit this machine's memory."
        ) from error
    missing = sorted(loading["missing_keys"])
    if missing:
        raise StudyError(
            f"{source.asked} lacks {len(missing)} of its weights, {missing[0]} first; get its files anew."
        )
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
