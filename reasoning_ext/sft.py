"""Stage `sft`: supervised fine-tuning on prompt-completion rows with TRL's SFTTrainer; the prompt is never trained on."""

from __future__ import annotations

from reasoning_ext.data import SFT_COLUMNS, check_columns
from reasoning_ext.fields import SFT_CONFIG
from reasoning_ext.recipe import Recipe
from reasoning_ext.run_dir import RunDir
from reasoning_ext.training import build_config, recipe_model, recipe_rows, train


def run_sft(recipe: Recipe, run: RunDir) -> int:
    """Train on `prompt` -> `completion` and save the model into the run's folder.

    Returns:
        0, or 130 when the user stopped it.

    Raises:
        DataError: the rows cannot be read or have no `completion`.
        ModelError: the model cannot be loaded.
    """
    from trl import SFTConfig, SFTTrainer

    rows = recipe_rows(recipe)
    check_columns(list(rows.column_names or next(iter(rows))), SFT_COLUMNS)
    config = build_config(SFTConfig, SFT_CONFIG, recipe)
    held_out = recipe_rows(recipe, "dataset_test_split").select_columns(list(SFT_COLUMNS)) if config.do_eval else None
    loaded = recipe_model(recipe, trainable=True)
    trainer = SFTTrainer(
        model=loaded.model,
        args=config,
        train_dataset=rows.select_columns(list(SFT_COLUMNS)),
        eval_dataset=held_out,
        processing_class=loaded.tokenizer,
        peft_config=loaded.peft_config,
    )
    return train(trainer, run, "sft")
