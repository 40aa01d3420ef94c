"""Backend `unsloth`: a recipe's keys, which are TRL's, as the arguments of Unsloth's FastLanguageModel.

The tables are the whole translation: a key which Unsloth cannot take is refused by name before anything is loaded,
and never dropped. Nothing that Unsloth puts in the place of what a recipe says, or of TRL's defaults, stays unsaid.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Mapping
from dataclasses import MISSING, fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from reasoning_ext.errors import KeyProblem
from reasoning_ext.models import adapter as adapters
from reasoning_ext.models.loaded import Loaded, LoadOptions, ModelError, base_revision, random_model
from reasoning_ext.think.tokenizer import read_tokenizer

if TYPE_CHECKING:
    from trl import ModelConfig

# the keys of TRL's ModelConfig that Unsloth has arguments for; any other is refused
TAKEN = {
    "model_name_or_path", "model_revision", "trust_remote_code", "dtype", "load_in_4bit", "load_in_8bit", "use_peft",
    "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_parameters", "lora_modules_to_save",
    "use_rslora",
}  # fmt: skip
IN_MODEL_VLLM = ("vllm_max_model_length", "vllm_tensor_parallel_size", "vllm_model_impl")
# what Unsloth does by itself, for keys that none of its arguments takes
BY_ITSELF = {
    "bnb_4bit_quant_type": "nf4",
    "use_bnb_nested_quant": True,
    "lora_task_type": "CAUSAL_LM",
    "use_dora": False,
    "vllm_tensor_parallel_size": 1,
    "vllm_model_impl": "vllm",
}
REWRITTEN = ("epsilon_high", "scale_rewards")  # by the `__init__` of Unsloth's GRPOConfig, for some loss types
NOT_CHANGED = ("optim", "packing", "eval_packing", "padding_free", "loss_type", "bf16", "fp16")


def trl_config(cls: type, values: dict[str, Any]) -> Any:
    """Build a config of TRL's with TRL's own defaults, though Unsloth has put others in their place or rewrites some.

    What is None in TRL (bf16, router_aux_loss_coef, ...) is settled later, by the weights or the model, and stays
    Unsloth's.
    """
    patched = inspect.signature(cls).parameters
    own = {field.name: field.default for field in fields(cls) if field.default is not MISSING}
    changed = {name for name, default in own.items() if name in patched and patched[name].default != default}
    config = cls(**{name: own[name] for name in changed if own[name] is not None} | values)
    for key in REWRITTEN:
        if key in own:
            value = values.get(key, own[key])
            setattr(config, key, {True: "group", False: "none"}[value] if isinstance(value, bool) else value)
    return config


def refuse_changes(config: Any, values: Mapping[str, Any]) -> None:
    """Raise KeyProblem where Unsloth has changed one of the recipe's values; its CPU backend does so in a line."""
    for key in NOT_CHANGED if values.get("backend") == "unsloth" else ():
        wanted, has = values.get(key), getattr(config, key, None)
        has = getattr(has, "value", has)
        fused = key == "optim" and wanted in ("adamw_torch", "adamw_torch_fused") and str(has).startswith("adamw_torch")
        if wanted and wanted != has and not fused:
            found = f"found {wanted!r}, which unsloth {version('unsloth')} changes to {has!r} here"
            raise KeyProblem(key, found, hint="leave it out, or write backend: trl")


def starts_vllm(values: Mapping[str, Any]) -> bool:
    """Tell whether Unsloth is to start vLLM inside the model."""
    return bool(values.get("use_vllm")) and values.get("vllm_mode", "colocate") == "colocate"


def wants_standby(values: Mapping[str, Any]) -> bool:
    """Tell whether vLLM should give its memory back in training; Unsloth must know before it is imported."""
    return starts_vllm(values) and bool(values.get("vllm_enable_sleep_mode"))


def load_unsloth(name: str, config: ModelConfig, options: LoadOptions) -> Loaded:
    """Load a model through Unsloth, with its own tokenizer and not the one Unsloth has mended.

    Raises ModelError where what the recipe says cannot be kept: bits that this machine does not have, a base's
    revision.
    """
    from unsloth import FastLanguageModel

    with tempfile.TemporaryDirectory() as folder:
        if options.from_scratch:  # Unsloth loads weights and nothing else
            for part in random_model(name, config, options):
                part.save_pretrained(folder)
            name = folder
        adapter = adapters.is_adapter(name)
        revision = base_revision(adapters.adapter_base(name), config.model_revision) if adapter else None
        if revision not in (None, "main"):  # it would reach the adapter's folder and not the base on the hub
            problem = f"found {revision}, which Unsloth does not pass on to the base of {name}"
            raise ModelError("model_revision", f"{problem}; leave it out, or write backend: trl")
        model, _ = FastLanguageModel.from_pretrained(**(_load_arguments(name, config, options) | options.init_kwargs))
        tokenizer = read_tokenizer(name, base_revision(name, config.model_revision), options.trust_remote_code)
    layers = {type(module).__name__ for module in model.modules()}
    for bits, layer in (
        (4, "Linear4bit"),
        (8, "Linear8bitLt"),
    ):  # bitsandbytes'; Unsloth says in a line that it has others
        if getattr(config, f"load_in_{bits}bit") and layer not in layers:
            found = (
                f"found true, but unsloth {version('unsloth')} has no {bits}-bit weights for this model on this machine"
            )
            raise ModelError(f"load_in_{bits}bit", f"{found}; leave it out, or write backend: trl")
    if adapter and not options.use_vllm:
        adapters.compare_adapter(model, name)
    if adapter and (not options.trainable or config.load_in_4bit or config.load_in_8bit):
        adapters.compute_as_saved(model, name)
    if not options.trainable:
        FastLanguageModel.for_inference(model)
    elif config.use_peft and not adapter:
        model = FastLanguageModel.get_peft_model(model, **_adapter_arguments(model, config, options))
    return Loaded(model, tokenizer)


def _load_arguments(name: str, config: ModelConfig, options: LoadOptions) -> dict[str, Any]:
    """Return the arguments of `from_pretrained`."""
    import torch

    quantized = config.load_in_4bit or config.load_in_8bit
    full = options.trainable and not config.use_peft
    values = {
        "model_name": name,
        "max_seq_length": options.max_seq_length,
        "dtype": None if config.dtype in (None, "auto") else getattr(torch, config.dtype),
        "load_in_4bit": config.load_in_4bit,
        "load_in_8bit": config.load_in_8bit,
        "load_in_16bit": not quantized and not full and config.dtype in ("bfloat16", "float16"),
        "full_finetuning": full,
        "trust_remote_code": options.trust_remote_code,
        "use_gradient_checkpointing": "unsloth" if options.gradient_checkpointing else False,
        "revision": base_revision(name, config.model_revision),
        "use_exact_model_name": True,  # else hub names, and the bases of adapters, become Unsloth's copies
        "fast_inference": options.use_vllm,
        "random_state": options.seed,
    }
    if options.use_vllm:
        values["gpu_memory_utilization"] = options.gpu_memory_utilization
        values["max_lora_rank"] = adapters.adapter_rank(name) if adapters.is_adapter(name) else config.lora_r
    return values


def _adapter_arguments(model: Any, config: ModelConfig, options: LoadOptions) -> dict[str, Any]:
    """Return the arguments of `get_peft_model`; the modules are PEFT's own where the recipe names none."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as OF_MODEL

    targets = config.lora_target_modules or OF_MODEL.get(model.config.model_type)
    if targets is None:
        problem = f"the key is missing, and PEFT has no modules for {model.config.model_type}; write [all-linear]"
        raise ModelError("lora_target_modules", problem)
    values = {own: getattr(config, key) for key, own in adapters.LORA_KEYS.items() if key in TAKEN} | {
        "target_modules": targets
    }
    values["use_gradient_checkpointing"] = "unsloth" if options.gradient_checkpointing else False
    values["random_state"] = options.seed
    return {key: value for key, value in values.items() if value is not None}
