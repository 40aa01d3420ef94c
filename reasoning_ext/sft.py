"""Stage `sft`: supervised fine-tuning on prompt-completion rows with TRL's SFTTrainer; the prompt is never trained on.

Departure from TRL: rows come to the trainer as tokens and labels, rendered as in `contract.py`, so that no chat template changes
what is trained on; rows over `max_length` are refused or dropped, where TRL cuts them.
"""

from __future__ import annotations

from typing import Any

from reasoning_ext.fields import SFT_CONFIG
from reasoning_ext.recipe import Recipe
from reasoning_ext.refusals import refusals
from reasoning_ext.run_dir import RunDir
from reasoning_ext.token_rows import rows_and_model
from reasoning_ext.tokenized import LossOptions
from reasoning_ext.training import build_config, train


def run_sft(recipe: Recipe, run: RunDir) -> int:
    """Train on `prompt` -> `completion` and save the model into the run's folder.

    Returns:
        0, or the exit code for the signal that stopped it, 130 for Ctrl-C.

    Raises:
        DataError: the rows cannot be read, have no `completion`, are too long, or do not survive the tokenizer.
        ModelError, TokenizerError, ContractError: the model, its tokenizer or its chat template cannot be used.
    """
    from trl import SFTConfig, SFTTrainer

    config = build_config(SFTConfig, SFT_CONFIG, recipe)
    config.chat_template_path = None  # it is set where the tokenizer is loaded
    loss = LossOptions(recipe.get("train_on"), recipe.get("thought_weight"), recipe.get("answer_weight"))
    loaded, tokens = rows_and_model(recipe, run, config, loss)
    arguments: dict[str, Any] = {}
    if loss.weighted:
        from reasoning_ext.weighted_loss import weigh

        arguments = weigh(loaded.model, loaded.tokenizer, config)
    with refusals(recipe, "SFTTrainer"):
        trainer = SFTTrainer(
            model=loaded.model,
            args=config,
            train_dataset=tokens[0],
            eval_dataset=tokens[1] if config.do_eval else None,
            processing_class=loaded.tokenizer,
            peft_config=loaded.peft_config,
            **arguments,
        )
    return train(trainer, run, "sft")
