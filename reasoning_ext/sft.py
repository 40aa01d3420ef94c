"""Stage `sft`: supervised fine-tuning on prompt-completion rows with TRL's SFTTrainer; the prompt is never trained on."""

from __future__ import annotations

from itertools import islice
from typing import Any

from reasoning_ext import think
from reasoning_ext.data import SFT_COLUMNS, DataError, check_columns
from reasoning_ext.fields import SFT_CONFIG
from reasoning_ext.recipe import Recipe
from reasoning_ext.run_dir import RunDir
from reasoning_ext.training import build_config, recipe_model, recipe_rows, train


def run_sft(recipe: Recipe, run: RunDir) -> int:
    """Train on `prompt` -> `completion` and save the model into the run's folder.

    Returns:
        0, or 130 when the user stopped it.

    Raises:
        DataError: the rows cannot be read or have no `completion`, or the chat template drops their thoughts.
        ModelError: the model cannot be loaded.
    """
    from trl import SFTConfig, SFTTrainer

    rows = recipe_rows(recipe)
    check_columns(list(rows.column_names or next(iter(rows))), SFT_COLUMNS)
    config = build_config(SFTConfig, SFT_CONFIG, recipe)
    held_out = recipe_rows(recipe, "dataset_test_split").select_columns(list(SFT_COLUMNS)) if config.do_eval else None
    loaded = recipe_model(recipe, trainable=True)
    _check_thoughts(loaded.tokenizer, rows)
    trainer = SFTTrainer(
        model=loaded.model,
        args=config,
        train_dataset=rows.select_columns(list(SFT_COLUMNS)),
        eval_dataset=held_out,
        processing_class=loaded.tokenizer,
        peft_config=loaded.peft_config,
    )
    return train(trainer, run, "sft")


def _check_thoughts(tokenizer: Any, rows: Any) -> None:
    """Refuse a chat template that drops the thought from what is trained on (ms-swift#4939, TRL#6363)."""
    for row in islice(rows, 1000):
        thought = (think.split(think.content(row["completion"])).thought or "").strip()
        if thought:
            if thought not in tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False):
                problem = (
                    f"the chat template drops the thought {thought[:60]!r}; set chat_template_path to one that keeps it"
                )
                raise DataError("dataset_name", problem)
            return
