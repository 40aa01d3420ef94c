"""Do a folder's weights fit the model that its config describes? Told in a moment, without reading them.

Departure from transformers: tensors without a place and places without a tensor are an error here, not a table of
warnings over random weights. What counts is what `from_pretrained` itself reports, with its renamings, conversions
and tied weights, on the meta device, for which it looks at names and sizes alone. Hub names and models with code of
their own are judged by the same report when they are loaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reasoning_ext.errors import KeyProblem, one_line
from reasoning_ext.models.adapter import ADAPTER, adapter_base, is_adapter
from reasoning_ext.runs.folder import damage
from reasoning_ext.runs.process import hushed

CONFIGS = ("config.json", ADAPTER)  # a folder with a model holds one of them
OBJECTS = (
    *CONFIGS, "generation_config.json", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip


def check_weights(
    name: str, trust_remote_code: bool = False, init_kwargs: dict[str, Any] | None = None, from_scratch: bool = False
) -> None:
    """Raise KeyProblem where a file in a model's folder is missing or damaged, or its weights do not fit its config.

    So are those of the model below an adapter. Of hub names nothing is known; weights are not looked at where code of
    the model's own, or other files (`init_kwargs`), may count, nor where the config alone is of use (`from_scratch`).
    """
    folder = Path(name)
    if not folder.is_dir():
        return
    problem = damage(folder, name) or json_problem(folder, name)
    try:
        if not problem and is_adapter(name):
            if not any(folder.glob("adapter_model.*")):
                raise FileNotFoundError("adapter_model.safetensors is not there")
            _open(folder)
            check_weights(adapter_base(name), trust_remote_code, init_kwargs)
        elif not problem and not trust_remote_code and not init_kwargs:
            problem = _problem(folder, from_scratch)
    except KeyProblem:
        raise
    except Exception as error:  # whatever transformers, PEFT and safetensors make of a damaged file
        problem = f"cannot load {folder}: {one_line(error)}"
    if problem:
        raise KeyProblem("model_name_or_path", problem)


def json_problem(folder: Path, name: str) -> str:
    """Say which JSON file of a model or its tokenizer holds no object, or nothing."""
    for file in [folder / each for each in OBJECTS if (folder / each).is_file()]:
        try:
            if not isinstance(json.loads(file.read_text("utf-8")), dict):
                return f"found {name}, whose {file.name} is damaged: it holds no object"
        except (OSError, ValueError, RecursionError) as error:
            return f"found {name}, whose {file.name} is damaged: {error}"
    return ""


def _open(folder: Path) -> None:
    """Open every file of weights; transformers' own errors do not name the one that is damaged."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except Exception as error:  # safetensors has one of its own
            raise ValueError(f"{file.name}, {file.stat().st_size} bytes: {error}") from error


def _problem(folder: Path, from_scratch: bool) -> str:
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
    from transformers.integrations import is_deepspeed_zero3_enabled

    quantized = getattr(AutoConfig.from_pretrained(folder), "quantization_config", None)
    written = (folder / "generation_config.json").is_file()
    problem = generation_problem(str(folder), GenerationConfig.from_pretrained(folder)) if written else ""
    if problem or from_scratch:
        return problem
    _open(folder)
    if quantized or is_deepspeed_zero3_enabled():  # tensors for a quantiser; no device map
        return ""
    arguments = {"device_map": {"": "meta"}, "output_loading_info": True, "ignore_mismatched_sizes": True}
    with hushed():
        model, report = AutoModelForCausalLM.from_pretrained(folder, **arguments)
    return misfit(str(folder), model, report, {})


def misfit(name: str, model: Any, report: dict[str, Any], init_kwargs: dict[str, Any]) -> str:
    """Say how a model's weights do not fit it, or nothing, by what `from_pretrained` reported of its loading.

    With `init_kwargs` of the recipe's another model may be built on purpose: what is missing counts nevertheless.
    """
    missing = sorted(report["missing_keys"])
    unknown = [] if init_kwargs else sorted(report.get("unexpected_keys", ()))
    sizes = [] if init_kwargs.get("ignore_mismatched_sizes") else sorted(report.get("mismatched_keys", ()))
    found = [f"{len(missing)} of {len(model.state_dict())} tensors are missing ({missing[0]})"] if missing else []
    found += [f"{len(unknown)} have no place in it ({unknown[0]})"] if unknown else []
    if sizes:
        where, there, wanted = sizes[0]
        found.append(f"{len(sizes)} have other sizes ({where} is {list(there)}, by the config {list(wanted)})")
    fit = f"found {name}, whose weights do not fit a {type(model).__name__}: {', '.join(found)}"
    return f"{fit}; save the model itself, without what wraps it, and the config that it has" if found else ""


def vocabulary_problem(name: str, tokenizer: Any, config: Any) -> str:
    """Say that a tokenizer makes tokens which the model has no embedding for, or nothing.

    A token that only was added, and that no template and no end of a text uses, is no harm: Gemma has one.
    """
    rows = getattr(config.get_text_config(), "vocab_size", None)
    outside = {t for t, number in tokenizer.get_vocab().items() if number >= rows} if isinstance(rows, int) else set()
    used = {tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token}
    template, added = str(tokenizer.chat_template), tokenizer.added_tokens_encoder
    harm = sorted(token for token in outside if token not in added or token in used or token in template)
    if not harm:
        return ""
    problem = f"found {name}, whose tokenizer makes {len(outside)} tokens ({harm[0]}) beyond the model's {rows}"
    return f"{problem}; it is another model's, or the embeddings were not resized for it"


def generation_problem(name: str, config: Any, saved: bool = False) -> str:
    """Say what of a GenerationConfig, if any, cannot be generated with, or `saved`, for which there are more rules."""
    try:
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(config, key, None)
            if not all(isinstance(each, int) for each in (value if isinstance(value, list) else [value or 0])):
                raise ValueError(f"{key} is {value!r}, allowed: numbers")
        if config is not None:
            config.validate(strict=saved)
    except Exception as error:
        return f"found {name}, whose generation_config.json cannot be used: {one_line(error)}"
    return ""
