"""What the stages that train share: the loaded model, and a training that can be cut off and go on."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Any

from reasoning_ext.data.columns import DataError
from reasoning_ext.models.devices import choose, found_device
from reasoning_ext.models.loaded import Loaded
from reasoning_ext.models.source import ModelSource
from reasoning_ext.models.unsloth import keep_trl_values, refuse_changes, trl_defaults
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.card import write_run_card
from reasoning_ext.runs.checkpoints import step_of
from reasoning_ext.runs.files import check_space, read_object
from reasoning_ext.runs.folder import RunDir, is_main, say
from reasoning_ext.train.refusals import refusals


def load_to_train(source: ModelSource) -> Loaded:
    """Load a model, and say in a line what it is loaded with.

    Raises:
        ModelError: it cannot be had.
    """
    choice, options = source.choice(), source.options
    bits = next((f"{n}-bit weights, " for n in (4, 8) if source.values.get(f"load_in_{n}bit")), "")
    checkpointing = "gradient checkpointing" if choice.gradient_checkpointing else "no gradient checkpointing"
    attention = choice.attn_implementation or "the model's own"
    where = f"{options.backend} on {found_device(source.use_cpu).kind}"
    say(f"model  {where}: {bits}{choice.dtype}, attention {attention}, {checkpointing}")
    return source.load()


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
    with refusals(recipe.values, cls.__name__):
        config = cls(**(trl_defaults(cls) | defaults | recipe.config_values(classes) | extra))
    keep_trl_values(recipe, config)
    refuse_changes(recipe, config)
    return config


def trainer_arguments(config: Any, loaded: Loaded, rows: Any, held_out: Any) -> dict[str, Any]:
    """Return what each of TRL's trainers takes."""
    return {
        "args": config,
        "model": loaded.model,
        "processing_class": loaded.tokenizer,
        "peft_config": loaded.peft_config,
        "train_dataset": rows,
        "eval_dataset": held_out,
    }


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

    from reasoning_ext.runs.interrupt import Interrupt
    from reasoning_ext.train.callbacks import COUNT, TOKENS, AlreadyTrained, RunRecorder

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
