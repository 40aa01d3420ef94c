"""What a trainer would refuse when it is built, found without weights.

Built as `run` will build them: TRL's config, the trackers, the optimizer with its schedule, and the adapter on the meta device.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import math
import os
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from reasoning_ext.errors import KeyProblem, Problem
from reasoning_ext.models.adapter import is_adapter
from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.trl_fields import DPO_CONFIG, GRPO_CONFIG, SFT_CONFIG
from reasoning_ext.runs.folder import world_size
from reasoning_ext.runs.process import hushed
from reasoning_ext.train.refusals import refusals

CONFIGS = {"sft": ("SFTConfig", SFT_CONFIG), "grpo": ("GRPOConfig", GRPO_CONFIG), "dpo": ("DPOConfig", DPO_CONFIG)}
NOT_NEGATIVE = (
    "learning_rate", "weight_decay", "max_grad_norm", "warmup_steps", "lora_dropout", "dataloader_num_workers",
    "neftune_noise_alpha",
)  # fmt: skip
DRAWN = {
    "temperature": "TemperatureLogitsWarper", "top_p": "TopPLogitsWarper", "top_k": "TopKLogitsWarper",
    "min_p": "MinPLogitsWarper", "repetition_penalty": "RepetitionPenaltyLogitsProcessor",
}  # fmt: skip
SEEDS = 2**32  # numpy takes none from there on
ANYWHERE = {"use_cpu": True, "bf16": False, "fp16": False, "tf32": None}  # a check may run where the card is not


def trainer_findings(recipe: Recipe, run: bool = False) -> list[Problem]:
    """Build what a trainer is built from, and return an error for the first thing that is refused.

    Args:
        recipe: a recipe without errors of its own; where its stage trains nothing, the sampling alone is built.
        run: it is about to run here; a check may be made elsewhere, where there is one process and no network.
    """
    alone = f"found {recipe.values.get('fsdp')} in one process, allowed: several, under accelerate launch"
    fsdp = recipe.values.get("fsdp") and world_size() == 1
    try:
        _sampling(recipe)
        if recipe.stage not in TRAINED:
            return []
        with hushed():  # `run` gives warnings
            _refuse_numbers(recipe)
            _trackers(recipe)
            _packages(recipe)
            if fsdp and (run or recipe.get("use_cpu")):
                raise KeyProblem("fsdp", alone)
            _hub(recipe, run)
            if world_size() == 1:  # building a config joins the other processes, for good and as a CPU's
                with _left_as_found():
                    _optimizer(recipe, _config(recipe))
            _adapter(recipe)
    except KeyProblem as error:
        return [recipe.placed(error)]
    return [recipe.problem("fsdp", alone, code="fsdp_alone", level="warning")] if fsdp else []


def _sampling(recipe: Recipe) -> None:
    """Build what transformers draws tokens with, as far as the recipe sets it; what is 0 or null is left out there."""
    if "temperature" not in recipe.keys or (
        recipe.get("use_vllm") if recipe.stage == "grpo" else recipe.get("engine") != "transformers"
    ):
        return
    if recipe.stage == "grpo" and recipe.get("temperature") == 0:
        raise KeyProblem("temperature", "found 0, allowed: above 0, because GRPO compares completions that differ")
    made = {key: (kind, value) for key, kind in DRAWN.items() if (value := recipe.values.get(key)) is not None}
    made = {key: (kind, value) for key, (kind, value) in made.items() if value != 0 or key == "repetition_penalty"}
    for key, (kind, value) in made.items():
        with refusals(recipe.values, kind, key):
            getattr(import_module("transformers"), kind)(value if key == "top_k" else float(value))


@contextlib.contextmanager
def _left_as_found() -> Iterator[None]:
    """Undo what building a config leaves behind in the process: variables of the environment, the device."""
    before = dict(os.environ)
    try:
        yield
    finally:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
        os.environ.clear()
        os.environ.update(before)


def _refuse_numbers(recipe: Recipe) -> None:
    for key in NOT_NEGATIVE:
        value = recipe.values.get(key)
        if isinstance(value, int | float) and not (math.isfinite(value) and value >= 0):
            raise KeyProblem(key, f"found {value}, allowed: 0 or more")
    for key in ("seed", "data_seed"):
        if (seed := recipe.values.get(key)) is not None and not 0 <= seed < SEEDS:
            raise KeyProblem(key, f"found {seed}, allowed: 0 to {SEEDS - 1}")
    if recipe.get("max_steps") == 0:
        raise KeyProblem("max_steps", "found 0, allowed: 1 or more, or -1 for what num_train_epochs says")
    if recipe.get("max_steps") < 0 and not recipe.get("num_train_epochs") > 0:
        raise KeyProblem("num_train_epochs", f"found {recipe.get('num_train_epochs')}, allowed: above 0")
    if recipe.get("use_peft") and recipe.get("lora_r") < 1:
        raise KeyProblem("lora_r", f"found {recipe.get('lora_r')}, allowed: 1 or more")


def _trackers(recipe: Recipe) -> None:
    """Refuse trackers that do not exist or are not installed."""
    from transformers.integrations import integration_utils

    named = recipe.get("report_to")
    known, here = integration_utils.INTEGRATION_TO_CALLBACK, None
    for name in named if isinstance(named, list) else [named]:
        if name in (None, "none", "all") and named in (name, [name]):
            continue
        if name not in known:
            raise KeyProblem("report_to", f"found {name}, allowed: none, all, {', '.join(known)}")
        here = here or integration_utils.get_available_reporting_integrations()
        if name not in here:
            problem = f"found {name}, which is not installed here"
            raise KeyProblem("report_to", f"{problem}; pip install {name.replace('_', '-')}, or write none")


def _packages(recipe: Recipe) -> None:
    """Refuse names of attention and compilers that there are not, Liger's kernels and DeepSpeed where they are not installed."""
    from transformers.utils import is_liger_kernel_available
    from transformers.utils.logging import get_log_levels_dict

    if recipe.get("use_liger_kernel") and not is_liger_kernel_available():
        raise KeyProblem("use_liger_kernel", "found true, but it is not installed here; pip install liger-kernel")
    if recipe.get("deepspeed") and find_spec("deepspeed") is None:
        raise KeyProblem(
            "deepspeed", f"found {recipe.get('deepspeed')}, but it is not installed here; pip install deepspeed"
        )
    levels = [*get_log_levels_dict(), "passive"]
    for key in ("log_level", "log_level_replica"):
        if (level := recipe.get(key)) not in levels:
            raise KeyProblem(key, f"found {level!r}, allowed: {', '.join(levels)}")
    attention = recipe.get("attn_implementation")
    if (
        attention and recipe.get("backend") == "trl" and not set("/|") & set(attention)
    ):  # a kernel of the hub has a slash
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        known = ["eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()]
        if attention not in known:
            near = difflib.get_close_matches(attention, known, 1, cutoff=0.0)[0]
            allowed = ", ".join(name for name in known if "paged" not in name)
            raise KeyProblem("attn_implementation", f"found {attention}, allowed: {allowed}; the nearest is {near}")
    if (mode := recipe.get("torch_compile_mode")) is not None:
        import torch._inductor

        if mode not in (known := [*torch._inductor.list_mode_options(), "default"]):
            raise KeyProblem("torch_compile_mode", f"found {mode}, allowed: {', '.join(dict.fromkeys(known))}")
    for key in ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"):
        if not isinstance(given := recipe.values.get(key), dict) or not given:
            continue
        from torch.utils.checkpoint import checkpoint

        known = [*[*inspect.signature(checkpoint).parameters][2:-1], "preserve_rng_state"]  # behind function, *args
        for name in given:
            if name not in known:
                raise KeyProblem(key, f"found {name}, allowed: {', '.join(known)}")


def _hub(recipe: Recipe, run: bool) -> None:
    """Refuse to push where the hub will not let."""
    if recipe.get("push_to_hub"):
        from huggingface_hub import constants, get_token

        why = "the hub is not asked offline" if run and constants.is_offline_mode() else ""
        if why := "there is no token; set HF_TOKEN" if get_token() is None else why:
            raise KeyProblem("push_to_hub", f"found true, but {why}; or leave it out, and use reasoning-ext export")


def _config(recipe: Recipe) -> Any:
    """Build TRL's config, without what depends on the card."""
    name, classes = CONFIGS[recipe.stage]
    cls = getattr(import_module("trl"), name)
    values = recipe.config_values(classes) | ANYWHERE
    values.pop("reward_weights", None)
    with refusals(recipe.values, name):
        return cls(**{key: value for key, value in values.items() if key in inspect.signature(cls).parameters})


def _optimizer(recipe: Recipe, config: Any) -> None:
    """Build the optimizer for a single weight, and its schedule."""
    import torch
    from transformers import Trainer, get_scheduler

    weight = torch.nn.Parameter(torch.zeros(1))
    with refusals(recipe.values, "the optimizer", "optim"):
        try:
            made, arguments = Trainer.get_optimizer_cls_and_kwargs(config)
        except ValueError as error:
            if "model" not in str(error):
                raise
            made, arguments = torch.optim.AdamW, {}  # it wants the model itself, and its package is there
        if (
            any(name in arguments for name in ("params", "optimizer_dict", "model"))
            or "bitsandbytes" in made.__module__
        ):
            made, arguments = torch.optim.AdamW, {"lr": config.learning_rate}
        optimizer = made([weight], **arguments)
    with refusals(recipe.values, "the schedule", "lr_scheduler_type"):
        steps = max(config.max_steps, 10)
        get_scheduler(
            config.lr_scheduler_type, optimizer, config.get_warmup_steps(steps), steps, config.lr_scheduler_kwargs
        )


def _adapter(recipe: Recipe) -> None:
    """Put the recipe's adapter on its model's shape, where the model's config lies here."""
    written = recipe.get("model_name_or_path")
    if not recipe.get("use_peft") or not isinstance(written, str) or is_adapter(name := recipe.local(written)):
        return
    if not (Path(name) / "config.json").is_file():
        return
    import torch
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl import get_peft_config

    from reasoning_ext.models.source import model_source

    try:
        shape = AutoConfig.from_pretrained(name, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(shape)
    except Exception:  # whoever loads the model says what is wrong with it
        return
    with refusals(
        recipe.values, "PEFT", "lora_target_modules" if "lora_target_modules" in recipe.values else "use_peft"
    ):
        config = model_source(recipe.values, recipe.local, trainable=True).config()
        modules = [part for part, _ in model.named_modules()]
        parameters = [part for part, _ in model.named_parameters()]
        with torch.device("meta"):
            adapted = get_peft_model(model, get_peft_config(config))
    for key, parts, before in (
        ("lora_target_modules", modules, "."),
        ("lora_modules_to_save", modules, ""),
        ("lora_target_parameters", parameters, "."),
    ):
        wanted = getattr(config, key) or []
        for one in [] if isinstance(wanted, str) else wanted:  # PEFT leaves out without a word what it does not find
            if not any(part == one or part.endswith(f"{before}{one}") for part in parts):
                known = sorted(
                    {".".join(part.split(".")[-2 if parts is parameters else -1 :]) for part in parts} - {""}
                )
                raise KeyProblem(key, f"found {one}, which the model has not, allowed: {', '.join(known)[:400]}")
    tuned = getattr(import_module(f"trl.trainer.{recipe.stage}_trainer"), "BaseTunerLayer", ())
    if recipe.get("backend") == "trl" and isinstance(adapted.get_output_embeddings(), tuned):
        problem = "found the output layer, whose adapter TRL would not train, allowed: in lora_modules_to_save"
        raise KeyProblem("lora_target_modules", problem)
