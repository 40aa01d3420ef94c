"""Stage `sft`: supervised fine-tuning on prompt-completion rows with TRL's SFTTrainer; the prompt is never trained on.

Departure from TRL: rows come to the trainer as tokens and labels, rendered as in `think/render.py`, so that no chat
template changes what is trained on; rows over `max_length` are refused or dropped, where TRL cuts them.
"""

from __future__ import annotations

from reasoning_ext.data.row_options import row_options
from reasoning_ext.data.tokens import LossOptions
from reasoning_ext.models.source import model_source
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.trl_fields import SFT_CONFIG
from reasoning_ext.runs.folder import RunDir
from reasoning_ext.tools.spec import template_kwargs
from reasoning_ext.train.common import build_config, load_to_train, train, trainer_arguments
from reasoning_ext.train.held_out import held_out_problems
from reasoning_ext.train.loss import weigh
from reasoning_ext.train.refusals import refusals
from reasoning_ext.train.token_rows import TokenOptions, TokenRows


def run_sft(recipe: Recipe, run: RunDir) -> int:
    """Train on `prompt` -> `completion` and save the model into the run's folder.

    Returns 0, or the exit code for the signal that stopped it, 130 for Ctrl-C; raises UserError where the rows, the
    model, its tokenizer or template, or a combination of values for TRL are not what they must be.
    """
    from trl import SFTConfig, SFTTrainer

    config = build_config(SFTConfig, SFT_CONFIG, recipe)
    config.chat_template_path = None  # it is set where the tokenizer is loaded
    loss = LossOptions(recipe.get("train_on"), recipe.get("thought_weight"), recipe.get("answer_weight"))
    source = model_source(recipe.values, recipe.local, trainable=True, template_kwargs=template_kwargs(recipe))
    how = TokenOptions("sft", loss, config.max_length, recipe.get("overlong_rows"))
    rows = TokenRows(row_options(recipe), how, source, held_out=config.do_eval)
    source = rows.source  # with tool turns, where rows have some
    problems = held_out_problems(recipe, rows.sets[0].rows)
    loaded = load_to_train(source)
    rows.keep(run.path, loaded)
    weighted = weigh(loaded.model, loaded.tokenizer, config) if loss.weighted else {}
    with refusals(recipe.values, "SFTTrainer"):
        trainer = SFTTrainer(**trainer_arguments(config, loaded, rows.train, rows.held_out), **weighted)
    return train(trainer, run, recipe, problems, loaded.contract)
