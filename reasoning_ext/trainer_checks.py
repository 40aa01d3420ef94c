"""What a trainer would refuse when it is built, found without weights.

Built as `run` will build them: TRL's config, the trackers, the optimizer with its schedule, and the adapter on the meta device.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import re
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from reasoning_ext.errors import KeyProblem, UserError
from reasoning_ext.fields import DPO_CONFIG, GRPO_CONFIG, MODEL_CONFIG, SFT_CONFIG
from reasoning_ext.findings import Finding
from reasoning_ext.hand_over import is_adapter
from reasoning_ext.own_keys import TRAINED
from reasoning_ext.recipe import Recipe

CONFIGS = {"sft": ("SFTConfig", SFT_CONFIG), "grpo": ("GRPOConfig", GRPO_CONFIG), "dpo": ("DPOConfig", DPO_CONFIG)}
NOT_NEGATIVE = ("learning_rate", "weight_decay", "max_grad_norm", "warmup_steps", "lora_dropout")
ANYWHERE = {"use_cpu": True, "bf16": False, "fp16": False, "tf32": None}  # a check may run where the card is not


def trainer_findings(recipe: Recipe) -> list[Finding]:
    """Build what a trainer is built from, and return an error for the first thing that is refused.

    Args:
        recipe: a recipe without errors of its own; where its stage trains nothing there is nothing to build.
    """
    if recipe.stage not in TRAINED:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `run` gives them
            _refuse_negative(recipe)
            _trackers(recipe)
            config = _config(recipe)
            _optimizer(recipe, config)
            _adapter(recipe)
    except KeyProblem as problem:
        return [Finding("error", problem.key, str(problem))]
    return []


@contextlib.contextmanager
def refusals(recipe: Recipe, what: str, key: str = "stage") -> Iterator[None]:
    """Turn what a library's constructor refuses into one line.

    Args:
        recipe: the recipe.
        what: what is built.
        key: to blame where the message names no key that the recipe sets.

    Raises:
        KeyProblem: it was refused.
    """
    try:
        yield
    except UserError:
        raise
    except (ValueError, TypeError, ImportError, NotImplementedError, KeyError, AttributeError) as error:
        text = " ".join(str(error).split())
        named = [
            word for word in re.findall(r"\w+", text) if word in recipe.values and word not in ("stage", "backend")
        ]
        raise KeyProblem(named[0] if named else key, f"{what} refuses these values: {text[:600]}") from error


def _refuse_negative(recipe: Recipe) -> None:
    for key in NOT_NEGATIVE:
        value = recipe.values.get(key)
        if isinstance(value, int | float) and not (math.isfinite(value) and value >= 0):
            raise KeyProblem(key, f"found {value}, allowed: 0 or more")
    if recipe.get("use_peft") and recipe.get("lora_r") < 1:
        raise KeyProblem("lora_r", f"found {recipe.get('lora_r')}, allowed: 1 or more")


def _trackers(recipe: Recipe) -> None:
    """Refuse trackers that do not exist or are not installed."""
    from transformers.integrations import integration_utils

    named = recipe.get("report_to")
    known, here = integration_utils.INTEGRATION_TO_CALLBACK, None
    for name in named if isinstance(named, list) else [named]:
        if name in (None, "none", "all"):
            continue
        if name not in known:
            raise KeyProblem("report_to", f"found {name}, allowed: none, all, {', '.join(known)}")
        here = here or integration_utils.get_available_reporting_integrations()
        if name not in here:
            problem = f"found {name}, which is not installed here"
            raise KeyProblem("report_to", f"{problem}; pip install {name.replace('_', '-')}, or write none")


def _config(recipe: Recipe) -> Any:
    """Build TRL's config, without what depends on the card."""
    name, classes = CONFIGS[recipe.stage]
    cls = getattr(import_module("trl"), name)
    values = recipe.config_values(classes) | ANYWHERE
    values.pop("reward_weights", None)
    if recipe.get("push_to_hub"):
        from huggingface_hub import constants, get_token

        if constants.is_offline_mode() or get_token() is None:
            why = "the hub is not asked offline" if constants.is_offline_mode() else "there is no token; set HF_TOKEN"
            raise KeyProblem("push_to_hub", f"found true, but {why}; or leave it out, and use reasoning-ext export")
    with refusals(recipe, name):
        return cls(**{key: value for key, value in values.items() if key in inspect.signature(cls).parameters})


def _optimizer(recipe: Recipe, config: Any) -> None:
    """Build the optimizer for a single weight, and its schedule."""
    import torch
    from transformers import Trainer, get_scheduler

    weight = torch.nn.Parameter(torch.zeros(1))
    with refusals(recipe, "the optimizer", "optim"):
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
    with refusals(recipe, "the schedule", "lr_scheduler_type"):
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
    from trl import ModelConfig, get_peft_config

    try:
        shape = AutoConfig.from_pretrained(name)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(shape)
    except Exception:  # whoever loads the model says what is wrong with it
        return
    with refusals(recipe, "PEFT", "lora_target_modules" if "lora_target_modules" in recipe.values else "use_peft"):
        values = recipe.config_values(MODEL_CONFIG) | {"load_in_4bit": False, "load_in_8bit": False}
        with torch.device("meta"):
            get_peft_model(model, get_peft_config(ModelConfig(**values)))
