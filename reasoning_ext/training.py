"""What `sft` and `grpo` share: the rows, the loaded model, and a training that can be cut off and go on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from reasoning_ext.data import SUFFIXES, DataError, find_format, format_rows, is_generator, load_rows, local_source
from reasoning_ext.fields import MODEL_CONFIG
from reasoning_ext.model import DEFAULT_MAX_SEQ_LENGTH, Loaded, LoadOptions, load_model
from reasoning_ext.recipe import Recipe, RecipeError
from reasoning_ext.run_dir import RunDir, check_space

if TYPE_CHECKING:
    from datasets import Dataset

INTERRUPTED = 130


def recipe_rows(recipe: Recipe, split_key: str = "dataset_train_split", max_samples: int | None = None) -> Dataset:
    """Read and format the rows that a recipe names.

    Args:
        recipe: the recipe.
        split_key: `dataset_train_split` or `dataset_test_split`.
        max_samples: read so many rows at the most, fewer if the recipe says so.
    """
    _check_held_out(recipe, split_key)
    limits = [n for n in (max_samples, recipe.get("max_samples")) if n is not None]
    name = recipe.get("dataset_name")
    rows = load_rows(
        name if is_generator(name) else recipe.local(name),
        recipe.folder,
        split=recipe.get(split_key),
        config=recipe.get("dataset_config"),
        gen_kwargs={"seed": recipe.get("seed")} | (recipe.get("gen_kwargs") or {}),
        max_samples=min(limits) if limits else None,
        streaming=recipe.get("dataset_streaming"),
    )
    plugin = find_format(recipe.get("dataset_format"), recipe.folder)
    return format_rows(rows, plugin, recipe.get("system_prompt"), recipe.get("rename_columns"))


def _check_held_out(recipe: Recipe, split_key: str) -> None:
    """Refuse to call the training rows held out: a local file has one split, whatever the recipe calls it."""
    if recipe.stage not in ("sft", "grpo") or split_key != "dataset_test_split":
        return
    source = local_source(recipe.local(recipe.get("dataset_name")))
    train, test = recipe.get("dataset_train_split"), recipe.get("dataset_test_split")
    if source is not None and source.suffix in SUFFIXES and "[" not in train + test:
        problem = f"found {test}, but {source.name} has one split; write train[:90%] and train[90%:] for the two keys"
        raise DataError("dataset_test_split", problem)


def recipe_model(recipe: Recipe, trainable: bool, name: str | None = None, **overrides: Any) -> Loaded:
    """Load the model that a recipe names, or another one in the same way."""
    from trl import ModelConfig

    values = recipe.config_values(MODEL_CONFIG)
    options = LoadOptions(
        backend=recipe.get("backend"),
        from_scratch=overrides.get("from_scratch", recipe.get("from_scratch")),
        trainable=trainable,
        seed=recipe.get("seed"),
        trust_remote_code=recipe.get("trust_remote_code"),
        max_seq_length=recipe.get("max_seq_length") or DEFAULT_MAX_SEQ_LENGTH,
        use_vllm=bool(recipe.values.get("use_vllm")),
        init_kwargs=recipe.get("model_init_kwargs") or {},
    )
    return load_model(recipe.local(name or values["model_name_or_path"]), ModelConfig(**values), options)


def build_config(cls: type, classes: tuple, recipe: Recipe, **defaults: Any) -> Any:
    """Build TRL's config from a recipe.

    Where the recipe is silent, progress bars are shown on a terminal alone, and bf16, which TRL sets, is left off on a
    machine without an accelerator, where it is slow and refused.

    Args:
        cls: SFTConfig or GRPOConfig.
        classes: where its keys were read from.
        recipe: the recipe.
        **defaults: further values for keys that the recipe leaves out.

    Raises:
        RecipeError: TRL refuses a combination of values.
    """
    from accelerate.utils import is_cuda_available, is_mps_available, is_xpu_available

    defaults["disable_tqdm"] = not sys.stdout.isatty()
    if recipe.get("use_cpu") or not (is_cuda_available() or is_xpu_available() or is_mps_available()):
        defaults["bf16"] = False
    try:
        return cls(**(defaults | recipe.config_values(classes)))
    except (ValueError, TypeError, ImportError) as error:
        raise RecipeError(
            f"{recipe.path}: {cls.__name__} refuses these values: {' '.join(str(error).split())}"
        ) from error


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
        0, or 130 when the user stopped it; a checkpoint has been saved then.

    Raises:
        RunDirError: the disk has no room for two checkpoints.
        DataError: there were too few rows for a single step.
    """
    from transformers import PrinterCallback

    from reasoning_ext.callbacks import Interrupt, RunRecorder

    step = int(run.checkpoint.name[11:]) if run.checkpoint else 0
    check_space(run.path, 2 * checkpoint_bytes(trainer.model))
    with Interrupt() as interrupt:
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(RunRecorder(run.path, stage, step, interrupt))
        trainer.train(resume_from_checkpoint=str(run.checkpoint) if run.checkpoint else None)
        if trainer.state.global_step == 0:
            raise DataError(
                "dataset_name", "nothing was trained: the rows do not fill one step; use more rows or smaller batches"
            )
        if interrupt.requested and trainer.state.global_step < trainer.state.max_steps:
            return INTERRUPTED
    trainer.save_model()
    return 0
