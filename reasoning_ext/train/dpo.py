"""Stage `dpo`: direct preference optimisation (arXiv:2305.18290) on pairs of answers with TRL's DPOTrainer.

Departures from TRL: pairs come to the trainer as tokens, rendered as in `data/tokens.py`, so that no chat template
changes what is trained on; pairs with a side over `max_length` are refused or dropped, where TRL cuts them. The first
step's loss is ln 2 with the sigmoid loss, since the reference is the model itself then; `reference.py` sees to that.
"""

from __future__ import annotations

from typing import Any

from reasoning_ext.data.row_options import row_options
from reasoning_ext.models.source import model_source
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.trl_fields import DPO_CONFIG
from reasoning_ext.runs.folder import RunDir
from reasoning_ext.tools.spec import template_kwargs
from reasoning_ext.train.common import build_config, load_to_train, train, trainer_arguments
from reasoning_ext.train.held_out import held_out_problems
from reasoning_ext.train.loss import mask_results
from reasoning_ext.train.reference import check_reference, load_reference_as
from reasoning_ext.train.refusals import refusals
from reasoning_ext.train.token_rows import TokenOptions, TokenRows


def run_dpo(recipe: Recipe, run: RunDir) -> int:
    """Train on `prompt` -> `chosen` rather than `rejected` and save the model into the run's folder.

    Returns 0, or the exit code for the signal that stopped it, 130 for Ctrl-C; raises UserError where the rows, the
    model, its tokenizer or template, a combination of values for TRL, or the reference are not what they must be.
    """
    from trl import DPOConfig, DPOTrainer

    class TokenizedDPOTrainer(DPOTrainer):
        """TRL's DPOTrainer on rows in tokens, for which it has no switch."""

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    config = build_config(DPOConfig, DPO_CONFIG, recipe)
    source = model_source(recipe.values, recipe.local, trainable=True, template_kwargs=template_kwargs(recipe))
    how = TokenOptions("dpo", None, config.max_length, recipe.get("overlong_rows"))
    rows = TokenRows(row_options(recipe), how, source, held_out=config.do_eval)
    source = rows.source  # with tool turns, where rows have some
    problems = held_out_problems(recipe, rows.sets[0].rows)
    loaded = load_to_train(source)
    rows.keep(run.path, loaded)
    if not recipe.get("use_peft") and not config.precompute_ref_log_probs:
        load_reference_as(loaded, source, config)
    masked = mask_results(loaded.tokenizer, config) if loaded.contract.calls else {}
    with refusals(recipe.values, "DPOTrainer"):
        trainer = TokenizedDPOTrainer(**trainer_arguments(config, loaded, rows.train, rows.held_out), **masked)
    check_reference(trainer, source, "model_name_or_path", "write merge_adapter: true")
    return train(trainer, run, recipe, problems, loaded.contract)
