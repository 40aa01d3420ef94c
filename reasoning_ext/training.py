"""What the stages that train share: the loaded model, and a training that can be cut off and go on."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Any

from reasoning_ext.chat_tokenizer import load_tokenizer
from reasoning_ext.checkpoints import step_of
from reasoning_ext.contract import Contract, find_contract
from reasoning_ext.data import DataError, columns_of
from reasoning_ext.devices import Choice, choose, found_device
from reasoning_ext.engines.source import model_source, template_options
from reasoning_ext.files import check_space, read_object
from reasoning_ext.loaded import Loaded, base_revision
from reasoning_ext.prepared import Prepared
from reasoning_ext.recipe import Recipe
from reasoning_ext.refusals import refusals
from reasoning_ext.run_dir import RunDir, is_main, say
from reasoning_ext.token_sets import drop_long_prompts
from reasoning_ext.unsloth_backend import keep_trl_values, refuse_changes, trl_defaults


def recipe_model(recipe: Recipe, trainable: bool, name: str | None = None, **overrides: Any) -> Loaded:
    """Load the model that a recipe names, or another one in the same way; what it leaves out is chosen by device.

    Raises:
        ModelError: it cannot be had.
    """
    source = model_source(recipe, trainable, name, **overrides)
    if trainable:
        say(f"model  {_chosen(recipe, source.choice())}")
    return source.load()


def _chosen(recipe: Recipe, choice: Choice) -> str:
    """Say in a line what the model is loaded with."""
    bits = next((f"{n}-bit weights, " for n in (4, 8) if recipe.get(f"load_in_{n}bit")), "")
    checkpointing = "gradient checkpointing" if choice.gradient_checkpointing else "no gradient checkpointing"
    attention = choice.attn_implementation or "the model's own"
    device = found_device(recipe.get("use_cpu")).kind
    return f"{recipe.get('backend')} on {device}: {bits}{choice.dtype}, attention {attention}, {checkpointing}"


def recipe_tokenizer(recipe: Recipe, name: str | None = None) -> Any:
    """Load the tokenizer of a recipe's model, without the model.

    Args:
        recipe: the recipe.
        name: where to load it from, if not from the recipe's model.

    Raises:
        TokenizerError: it cannot be loaded.
    """
    name = recipe.local(name or recipe.get("model_name_or_path"))
    path = template_options(recipe)["chat_template_path"]
    revision = base_revision(name, recipe.get("model_revision"))
    return load_tokenizer(name, revision, recipe.get("trust_remote_code"), path)


def recipe_prompts(recipe: Recipe, prepared: Prepared) -> tuple[Any, Contract]:
    """Return rows to generate for, without completions and without prompts over `max_prompt_length`, which are counted.

    Raises:
        DataError: the template refuses a prompt, or none is left.
    """
    rows = prepared.rows
    names = columns_of(rows)
    rows = rows.remove_columns("completion") if "completion" in names else rows
    limit, kwargs = recipe.get("max_prompt_length"), recipe.get("chat_template_kwargs")
    tokenizer = recipe_tokenizer(recipe)
    contract = find_contract(tokenizer, kwargs, recipe.get("think_tags"))
    fits = drop_long_prompts(rows, tokenizer, contract, limit, kwargs)
    if limit is not None and hasattr(rows, "num_rows"):
        prepared.note(f"prompts up to {limit} tokens", fits, rows.num_rows - fits.num_rows)
    return fits, contract


def build_config(cls: type, classes: tuple, recipe: Recipe, **defaults: Any) -> Any:
    """Build TRL's config from a recipe.

    Where the recipe is silent, progress bars are shown on a terminal alone, gradients are checkpointed off the CPU alone, and
    bf16, which TRL sets, is left off on a machine without an accelerator, where it is slow and refused, and is fp16 on a card
    that has no bfloat16. Everything else that it leaves out is TRL's default, though Unsloth has put its own in their place.

    Args:
        cls: SFTConfig or GRPOConfig.
        classes: where its keys were read from.
        recipe: the recipe.
        **defaults: further values for keys that the recipe leaves out.

    Raises:
        KeyProblem: TRL refuses a combination of values.
        UserError: Unsloth changes one.
    """
    device = found_device(recipe.get("use_cpu"))
    frozen = bool(recipe.get("use_peft"))
    defaults["disable_tqdm"] = not sys.stdout.isatty()
    defaults["gradient_checkpointing"] = choose(device, recipe.values, frozen).gradient_checkpointing
    if device.kind == "cpu" or (device.kind == "cuda" and not device.bf16):
        defaults["bf16"] = False
        defaults["fp16"] = device.kind == "cuda" and not recipe.values.get("bf16")
    extra = recipe.get("unsloth_config") or {}
    known = {field.name for field in fields(cls)}
    for name in extra:
        if name not in known:
            own = [field for field in known if field.startswith("unsloth")]
            problem = f"found {name}, which {cls.__name__} has not here, allowed: {', '.join(sorted(own)) or 'nothing'}"
            raise recipe.error(("unsloth_config", name), f"{problem} (Unsloth adds its fields on a GPU alone)")
    with refusals(recipe, cls.__name__):
        config = cls(**(trl_defaults(cls) | defaults | recipe.config_values(classes) | extra))
    keep_trl_values(recipe, config)
    refuse_changes(recipe, config)
    return config


def checkpoint_bytes(model: Any) -> int:
    """Return what a checkpoint takes on the disk: what is trained, with AdamW's two moments."""
    return sum(3 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def train(trainer: Any, run: RunDir, stage: str) -> int:
    """Train from the start or from the run's last complete checkpoint, and save the model.

    Args:
        trainer: TRL's trainer, built.
        run: the opened run folder.
        stage: named in what is printed.

    Returns:
        0, or the exit code for the signal that stopped it, 130 for Ctrl-C; a checkpoint has been saved then.

    Raises:
        DiskError: the disk has no room for two checkpoints.
        DataError: there were too few rows for a single step.
    """
    from transformers import PrinterCallback

    from reasoning_ext.callbacks import COUNT, TOKENS, AlreadyTrained, RunRecorder
    from reasoning_ext.interrupt import Interrupt
    from reasoning_ext.model_card import write_run_card

    step = step_of(run.checkpoint) if run.checkpoint else 0
    if run.checkpoint and hasattr(trainer, COUNT):
        setattr(trainer, COUNT, read_object(run.checkpoint / TOKENS).get("num_tokens", 0))
    check_space(run.path, 2 * checkpoint_bytes(trainer.model))
    limit = trainer.args.save_total_limit
    trainer.args.save_total_limit = None  # TRL would remove before the new one is whole
    trainer.create_model_card = lambda *args, **kwargs: None  # TRL's says nothing of this run
    with Interrupt() as interrupt:
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(RunRecorder(run.path, stage, step, interrupt, limit, trainer))
        try:
            trainer.train(resume_from_checkpoint=str(run.checkpoint) if run.checkpoint else None)
        except AlreadyTrained:
            if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint:
                trainer._load_best_model()
        if trainer.state.global_step == 0:
            raise DataError(
                "dataset_name", "nothing was trained: the rows do not fill one step; use more rows or smaller batches"
            )
        if interrupt.requested and trainer.state.global_step < trainer.state.max_steps:
            return interrupt.code
    trainer.save_model()
    if is_main():
        write_run_card(run.path)
    return 0
