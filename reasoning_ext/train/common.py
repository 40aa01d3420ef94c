"""What the stages that train share: the loaded model, TRL's config, and a training that can be cut off and go on."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Any

from reasoning_ext.data.columns import DataError, too_few
from reasoning_ext.errors import KeyProblem
from reasoning_ext.models.devices import choose, found_device
from reasoning_ext.models.loaded import Loaded
from reasoning_ext.models.source import ModelSource
from reasoning_ext.models.unsloth import refuse_changes, trl_config
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.card import write_run_card
from reasoning_ext.runs.files import check_space
from reasoning_ext.runs.folder import RunDir, is_main, say
from reasoning_ext.train.refusals import refusals


def load_to_train(source: ModelSource) -> Loaded:
    """Load a model, and say in a line what it is loaded with; ModelError where it cannot be had."""
    choice = source.choice()
    bits = next((f"{n}-bit weights, " for n in (4, 8) if source.values.get(f"load_in_{n}bit")), "")
    checkpointing = f"{'' if choice.gradient_checkpointing else 'no '}gradient checkpointing"
    attention = choice.attn_implementation or "the model's own"
    where = f"{source.options.backend} on {found_device(source.use_cpu).kind}"
    say(f"model  {where}: {bits}{choice.dtype}, attention {attention}, {checkpointing}")
    return source.load()


def build_config(cls: type, classes: tuple, recipe: Recipe, **defaults: Any) -> Any:
    """Build TRL's config `cls`, whose keys were read from `classes`, from a recipe.

    Where the recipe is silent, progress bars are shown on a terminal alone, checkpointing, bf16 and fp16 are what
    `models.devices` chooses, and the rest is `defaults`, or TRL's, though Unsloth has put its own in their place.
    Raises KeyProblem where TRL refuses a combination of values, or Unsloth changes one.
    """
    choice = choose(found_device(recipe.get("use_cpu")), recipe.values, False)
    defaults["disable_tqdm"] = not sys.stdout.isatty()
    defaults["gradient_checkpointing"] = choice.gradient_checkpointing
    if choice.autocast != "bfloat16":
        defaults["bf16"], defaults["fp16"] = False, choice.autocast == "float16"
    extra, known = recipe.get("unsloth_config") or {}, {field.name for field in fields(cls)}
    if unknown := extra.keys() - known:
        own = ", ".join(sorted(name for name in known if name.startswith("unsloth"))) or "nothing"
        found = f"found {min(unknown)}, which {cls.__name__} has not here (Unsloth adds its fields on a GPU alone)"
        raise KeyProblem(("unsloth_config", min(unknown)), found, own)
    with refusals(recipe.values, cls.__name__):
        config = trl_config(cls, defaults | recipe.config_values(classes) | extra)
    refuse_changes(config, recipe.values)
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


def train(trainer: Any, run: RunDir, recipe: Recipe, problems: Any = None, contract: Any = None) -> int:
    """Train from the start or from the run's last complete checkpoint, and save the model.

    `problems` are answered as it trains, see `held_out.Problems`, by the `contract` of the model's template.

    Returns 0, or the exit code for the signal that stopped it, 130 for Ctrl-C; a checkpoint has been saved then. Raises
    DiskError where there is no room for two checkpoints, DataError where the rows did not fill a single step.
    """
    from transformers import PrinterCallback

    from reasoning_ext.runs.interrupt import Interrupt
    from reasoning_ext.train.callbacks import AlreadyTrained, RunRecorder
    from reasoning_ext.train.health import HealthWatch
    from reasoning_ext.train.held_out import HeldOut
    from reasoning_ext.train.tracked import tracked_training

    # a checkpoint holds what is trained, with AdamW's two moments
    trained = sum(p.numel() * p.element_size() for p in trainer.model.parameters() if p.requires_grad)
    check_space(run.path, 2 * 3 * trained)
    batch = trainer.args.train_batch_size * trainer.args.world_size if trainer.args.dataloader_drop_last else 0
    if text := too_few(getattr(trainer.train_dataset, "num_rows", None), batch, "batch"):
        raise DataError("dataloader_drop_last", text, code="too_few_rows")
    trainer.create_model_card = lambda *args, **kwargs: None  # TRL's says nothing of this run
    watch = HealthWatch(trainer, run, recipe.values)
    with Interrupt() as interrupt, tracked_training(trainer, run, watch):
        trainer.remove_callback(PrinterCallback)
        held_out = [HeldOut(problems, trainer, contract, run, interrupt, watch)] if problems else []
        # what is broken is not measured, and what is saved at a step is measured before
        for callback in (watch, *held_out, RunRecorder(run, recipe.stage, trainer, interrupt, watch)):
            trainer.add_callback(callback)
        try:
            trainer.train(resume_from_checkpoint=str(run.checkpoint) if run.checkpoint else None)
        except AlreadyTrained:
            if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint:
                trainer._load_best_model()
        if trainer.state.global_step == 0:
            raise DataError("dataset_name", "the rows do not fill one step; use more rows or smaller batches")
        left = trainer.state.global_step < trainer.state.max_steps or any(one.cut_off for one in held_out)
        if interrupt.requested and left:  # the last measurement may be left alone
            return interrupt.code
    for measured in held_out:
        measured.settle()
    trainer.save_model()
    if is_main():
        write_run_card(run.path)
    return 0
