"""Do a folder's weights fit the model that its config describes? Told without reading them, in a moment and without memory.

Departure from transformers: tensors without a place and places without a tensor are an error here, not a table of warnings over
random weights. What counts is what `from_pretrained` itself reports, with its renamings, conversions and tied weights, on the
meta device, for which it looks at names and sizes alone. Hub names and models with code of their own are judged by the same
report when they are loaded.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from reasoning_ext.errors import KeyProblem
from reasoning_ext.models.adapter import ADAPTER, adapter_base, is_adapter
from reasoning_ext.runs.folder import damage
from reasoning_ext.runs.process import hushed

CONFIGS = ("config.json", ADAPTER)  # a folder with a model holds one of them
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# arguments of `from_pretrained` that name other files or other names in them
ELSEWHERE = {"subfolder", "variant", "gguf_file", "key_mapping", "state_dict", "use_safetensors"}
# what transformers, PEFT and tokenizers read, a JSON object each
OBJECTS = (
    *CONFIGS, "generation_config.json", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
WRAPPERS = {
    "base_model.model.": "PEFT",
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FSDP",
    "_checkpoint_wrapped_module.": "activation checkpointing",
    "module.": "DistributedDataParallel or DeepSpeed",
}


def check_weights(
    name: str, trust_remote_code: bool = False, init_kwargs: dict[str, Any] | None = None, from_scratch: bool = False
) -> None:
    """Check the files of a model in a folder, and of the model below an adapter, without loading them.

    Args:
        name: a folder; nothing is known of a hub name.
        trust_remote_code: the model may be code of its own, which is not run for this.
        init_kwargs: the recipe's arguments of `from_pretrained`.
        from_scratch: the folder's config alone is of use.

    Raises:
        KeyProblem: a file is missing or damaged, or the weights do not fit the config.
    """
    folder = Path(name)
    if not folder.is_dir():
        return
    problem = damage(folder, name) or json_problem(folder, name)
    if problem := problem or _problem(folder, trust_remote_code, init_kwargs or {}, from_scratch):
        raise KeyProblem("model_name_or_path", problem)


def json_problem(folder: Path, name: str) -> str:
    """Say which of a model's JSON files is none, or nothing."""
    for file in OBJECTS:
        try:
            if (folder / file).exists() and not isinstance(json.loads((folder / file).read_text("utf-8")), dict):
                return f"found {name}, whose {file} is damaged: it holds no object"
        except (OSError, ValueError, RecursionError) as error:
            return f"found {name}, whose {file} is damaged: {error}"
    return ""


def _problem(folder: Path, trust_remote_code: bool, init_kwargs: dict[str, Any], from_scratch: bool) -> str:
    from transformers import AutoConfig, GenerationConfig
    from transformers.integrations import is_deepspeed_zero3_enabled

    try:
        if is_adapter(str(folder)):
            if not any((folder / file).is_file() for file in (ADAPTER_WEIGHTS, "adapter_model.bin")):
                raise FileNotFoundError(f"{ADAPTER_WEIGHTS} is not there")
            if torn := _torn(folder):
                raise ValueError(torn)
            check_weights(adapter_base(str(folder)), trust_remote_code, init_kwargs)
            return ""
        if trust_remote_code or ELSEWHERE & init_kwargs.keys():
            return ""
        config = AutoConfig.from_pretrained(folder, return_unused_kwargs=True, **init_kwargs)[0]
        written = (folder / "generation_config.json").is_file()
        problem = generation_problem(str(folder), GenerationConfig.from_pretrained(folder)) if written else ""
        if problem or from_scratch or is_deepspeed_zero3_enabled():  # which takes no device map
            return problem
        return _judge(folder, config, init_kwargs)
    except KeyProblem:
        raise
    except Exception as error:  # whatever transformers and PEFT make of a damaged file
        return f"cannot load {folder}: {_torn(folder) or _reason(error)}"


def _torn(folder: Path) -> str:
    """Say which of a folder's files of weights cannot be opened, or nothing; transformers' own errors do not."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except Exception as error:  # safetensors has one of its own
            return f"{file.name}, {file.stat().st_size} bytes: {_reason(error)}"
    return ""


def _judge(folder: Path, config: Any, init_kwargs: dict[str, Any]) -> str:
    from transformers import AutoModelForCausalLM

    quantized = getattr(config, "quantization_config", None) is not None
    if quantized:  # its tensors are those of a quantiser, which reads them
        del config.quantization_config
    arguments = {
        "config": config,
        "device_map": {"": "meta"},
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
    }
    with hushed():
        model, report = AutoModelForCausalLM.from_pretrained(folder, **arguments)
    if quantized:  # what a quantiser writes beside or in the place of a module's weight is its own
        unknown = report["unexpected_keys"]
        own = {key.rpartition(".")[0] for key in unknown} | {key.rpartition("_")[0] for key in unknown}
        missing = {key for key in report["missing_keys"] if not {key, key.rpartition(".")[0]} & own}
        report |= {"missing_keys": missing, "unexpected_keys": unknown if missing else (), "mismatched_keys": ()}
    return misfit(str(folder), model, report, init_kwargs)


def misfit(name: str, model: Any, report: dict[str, Any], init_kwargs: dict[str, Any]) -> str:
    """Say how a model's weights do not fit it, or nothing.

    Args:
        name: the model's.
        model: as it was built.
        report: what `from_pretrained` returned of its loading.
        init_kwargs: arguments of the recipe's, which may build another model on purpose: what is missing counts nevertheless.
    """
    missing = sorted(report["missing_keys"])
    unknown = [] if init_kwargs else sorted(report.get("unexpected_keys", ()))
    sizes = [] if init_kwargs.get("ignore_mismatched_sizes") else sorted(report.get("mismatched_keys", ()))
    found = [f"{len(missing)} of {len(model.state_dict())} tensors are missing ({missing[0]})"] if missing else []
    found += [f"{len(unknown)} have no place in it ({unknown[0]})"] if unknown else []
    if sizes:
        where, there, wanted = sizes[0]
        found.append(f"{len(sizes)} have other sizes ({where} is {list(there)}, by the config {list(wanted)})")
    if not found:
        return ""
    return f"found {name}, whose weights do not fit the model: {', '.join(found)}; {_cause(missing, unknown, model)}"


def _cause(missing: list[str], unknown: list[str], model: Any) -> str:
    for mark, maker in WRAPPERS.items():
        if any(re.search(rf"(?:^|\.){re.escape(mark)}", each) for each in unknown):
            return f"the names have {mark} of {maker} in them: save the model that is wrapped"
    if any(".lora_" in each or ".base_layer." in each for each in unknown):
        return "an adapter was put on it and saved with it: merge it, or save the adapter alone"
    if missing and unknown and (prefix := unknown[0].removesuffix(missing[0])) != unknown[0]:
        return f"the names begin with {prefix}"
    saved = (getattr(model.config, "architectures", None) or [""])[0]
    if saved and saved != type(model).__name__:
        return f"it was saved as {saved}, and a {type(model).__name__} is needed"
    return "config.json and the weights are of two models, or a part of the weights is lost"


def vocabulary_problem(name: str, tokenizer: Any, config: Any) -> str:
    """Say that a tokenizer makes tokens which the model has no embedding for, or nothing.

    A token that only was added, and that no template and no end of a text uses, is no harm: Gemma has one.
    """
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if not isinstance(rows, int):
        return ""
    outside = {token for token, number in tokenizer.get_vocab().items() if number >= rows}
    used = {tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token}
    template = str(tokenizer.chat_template)
    harm = sorted(
        token for token in outside if token not in tokenizer.added_tokens_encoder or token in used or token in template
    )
    if not harm:
        return ""
    problem = f"found {name}, whose tokenizer makes {len(outside)} tokens ({harm[0]}) beyond the model's {rows}"
    return f"{problem}; it is another model's, or the embeddings were not resized for it"


def generation_problem(name: str, config: Any, saved: bool = False) -> str:
    """Say what of a model's generation config it cannot generate with, or nothing; None is none.

    Args:
        name: the model's.
        config: transformers' GenerationConfig.
        saved: the model is to be saved with it, for which transformers wants more.
    """
    if config is None:
        return ""
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(config, key, None)
        if any(
            not isinstance(each, int) for each in (value if isinstance(value, list) else [value]) if each is not None
        ):
            return f"found {name}, whose generation_config.json has {key} {value!r}, allowed: numbers"
    try:
        config.validate(strict=saved)
    except Exception as error:
        return f"found {name}, whose generation_config.json cannot be used: {_reason(error)}"
    return ""


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
