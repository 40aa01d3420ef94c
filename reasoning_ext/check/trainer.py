"""What a trainer would refuse when it is built, found without weights.

Built as `run` will: TRL's config, the trackers, the optimizer with its schedule, the adapter on the meta device.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import os
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from reasoning_ext.errors import KeyProblem, Problem
from reasoning_ext.models.adapter import is_adapter
from reasoning_ext.recipe.keys import TRACKERS, TRAINED
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.trl_fields import DPO_CONFIG, GRPO_CONFIG, SFT_CONFIG
from reasoning_ext.runs.folder import world_size
from reasoning_ext.runs.process import hushed
from reasoning_ext.train.refusals import refusals

CONFIGS = {"sft": ("SFTConfig", SFT_CONFIG), "grpo": ("GRPOConfig", GRPO_CONFIG), "dpo": ("DPOConfig", DPO_CONFIG)}
DRAWN = {
    "temperature": "TemperatureLogitsWarper", "top_p": "TopPLogitsWarper", "top_k": "TopKLogitsWarper",
    "min_p": "MinPLogitsWarper", "repetition_penalty": "RepetitionPenaltyLogitsProcessor",
}  # fmt: skip
ANYWHERE = {"use_cpu": True, "bf16": False, "fp16": False, "tf32": None}  # a check may run where the card is not
PACKAGES = {"use_liger_kernel": "liger_kernel", "deepspeed": "deepspeed"}


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
        if fsdp and (run or recipe.get("use_cpu")):
            raise KeyProblem("fsdp", alone)
        with hushed():  # `run` gives warnings
            _names(recipe)
            _hub(recipe, run)
            if world_size() == 1:  # building a config joins the other processes, for good and as a CPU's
                with _left_as_found():
                    _config(recipe)
            _adapter(recipe)
    except KeyProblem as error:
        return [recipe.placed(error)]
    return [recipe.problem("fsdp", alone, code="fsdp_alone", level="warning")] if fsdp else []


def _sampling(recipe: Recipe) -> None:
    """Build what transformers draws tokens with, as far as the recipe sets it; what is 0 or null is left out there."""
    key, here = ("use_vllm", False) if recipe.stage == "grpo" else ("engine", "transformers")
    if "temperature" not in recipe.keys or recipe.get(key) != here:
        return
    if recipe.stage == "grpo" and recipe.get("temperature") == 0:
        raise KeyProblem("temperature", "found 0, allowed: above 0, because GRPO compares completions that differ")
    for key, kind in DRAWN.items():
        if (value := recipe.values.get(key)) or (value == 0 and key == "repetition_penalty"):
            with refusals(recipe.values, kind, key):
                getattr(import_module("transformers"), kind)(value if key == "top_k" else float(value))


def _names(recipe: Recipe) -> None:
    """Refuse names of packages, attention, compilers and arguments that are looked up only when a training begins."""
    for key, package in PACKAGES.items():
        if recipe.get(key) and find_spec(package) is None:
            raise KeyProblem(key, f"found {recipe.get(key)}, but {package} is not installed here")
    attention = recipe.get("attn_implementation")
    if attention and recipe.get("backend") == "trl" and not {*"/|"} & {*attention}:  # a kernel of the hub has a slash
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        _one_of("attn_implementation", attention, ["eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()])
    if (mode := recipe.get("torch_compile_mode")) is not None:
        import torch._inductor

        _one_of("torch_compile_mode", mode, ["default", *torch._inductor.list_mode_options()])
    for key in ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"):
        for name in given if isinstance(given := recipe.values.get(key), dict) else ():
            from torch.utils.checkpoint import checkpoint

            _one_of(key, name, [*[*inspect.signature(checkpoint).parameters][2:-1], "preserve_rng_state"])


def _one_of(key: str, found: str, known: list[str]) -> None:
    if found not in known:
        near = difflib.get_close_matches(str(found), known, 1, cutoff=0.0)[0]
        allowed = ", ".join(name for name in dict.fromkeys(known) if "paged" not in name)
        raise KeyProblem(key, f"found {found}, allowed: {allowed}; the nearest is {near}")


def _hub(recipe: Recipe, run: bool) -> None:
    """Refuse to push where the hub will not let."""
    if recipe.get("push_to_hub"):
        from huggingface_hub import constants, get_token

        why = "the hub is not asked offline" if run and constants.is_offline_mode() else ""
        if why := "there is no token; set HF_TOKEN" if get_token() is None else why:
            raise KeyProblem("push_to_hub", f"found true, but {why}; or leave it out, and use reasoning-ext export")


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


def _config(recipe: Recipe) -> None:
    """Build TRL's config but for the card, and from it the trackers, an optimizer and its schedule."""
    import torch
    from transformers import Trainer, get_scheduler
    from transformers.integrations import integration_utils as trackers

    name, classes = CONFIGS[recipe.stage]
    cls = getattr(import_module("trl"), name)
    values = recipe.config_values(classes) | ANYWHERE
    values.pop("reward_weights", None)
    with refusals(recipe.values, name):
        config = cls(**{key: value for key, value in values.items() if key in inspect.signature(cls).parameters})
        config.get_process_log_level()
    with refusals(recipe.values, "the trainer", "report_to"):
        trackers.get_reporting_integration_callbacks(config.report_to)
        if absent := {*config.report_to} - {*trackers.get_available_reporting_integrations(), *TRACKERS}:
            raise ImportError(f"{absent.pop()} is not installed here; install it, or write none")
    with refusals(recipe.values, "the optimizer", "optim"):
        try:
            made, arguments = Trainer.get_optimizer_cls_and_kwargs(config)
        except ValueError as error:
            if "model" not in str(error):
                raise
            made, arguments = torch.optim.AdamW, {}  # it wants the model itself, and its package is there
        if {"params", "optimizer_dict", "model"} & {*arguments} or "bitsandbytes" in made.__module__:
            made, arguments = torch.optim.AdamW, {"lr": config.learning_rate}
        optimizer = made([torch.nn.Parameter(torch.zeros(1))], **arguments)
    with refusals(recipe.values, "the schedule", "lr_scheduler_type"):
        steps = max(config.max_steps, 10)
        warmup = config.get_warmup_steps(steps)
        get_scheduler(config.lr_scheduler_type, optimizer, warmup, steps, config.lr_scheduler_kwargs)


def _adapter(recipe: Recipe) -> None:
    """Put the recipe's adapter on its model's shape, where the model's config lies here."""
    written = recipe.get("model_name_or_path")
    if not recipe.get("use_peft") or is_adapter(name := recipe.local(written)):
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
    targets = "lora_target_modules"
    with refusals(recipe.values, "PEFT", targets if targets in recipe.values else "use_peft"), torch.device("meta"):
        config = model_source(recipe.values, recipe.local, trainable=True).config()
        modules, weights = ([name for name, _ in found()] for found in (model.named_modules, model.named_parameters))
        adapted = get_peft_model(model, get_peft_config(config))
    for key, parts in ((targets, modules), ("lora_modules_to_save", modules), ("lora_target_parameters", weights)):
        wanted = getattr(config, key) or []
        for one in [] if isinstance(wanted, str) else wanted:  # PEFT leaves out without a word what it does not find
            end = one if key == "lora_modules_to_save" else f".{one}"
            if not any(part == one or part.endswith(end) for part in parts):
                known = {".".join(part.split(".")[-2 if parts is weights else -1 :]) for part in parts} - {""}
                raise KeyProblem(key, f"found {one}, which the model has not", ", ".join(sorted(known))[:400])
    tuned = getattr(import_module(f"trl.trainer.{recipe.stage}_trainer"), "BaseTunerLayer", ())
    if recipe.get("backend") == "trl" and isinstance(adapted.get_output_embeddings(), tuned):
        problem = "found the output layer, whose adapter TRL would not train, allowed: in lora_modules_to_save"
        raise KeyProblem(targets, problem)
