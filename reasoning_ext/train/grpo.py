"""Stage `grpo`: group relative policy optimisation with verifiable rewards, with TRL's GRPOTrainer.

Departure from TRL's defaults: every completion is kept in `completions/` (`log_completions: true`, nothing printed).
"""

from __future__ import annotations

import functools
from typing import Any

from reasoning_ext.data.columns import DataError, check_columns, columns_of
from reasoning_ext.data.held_out import write_problems
from reasoning_ext.data.row_options import TEST, row_options
from reasoning_ext.data.rows import prepare
from reasoning_ext.data.token_sets import prompt_rows
from reasoning_ext.models.source import model_source
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.trl_fields import GRPO_CONFIG
from reasoning_ext.runs.folder import RunDir, say
from reasoning_ext.scoring.call import build_rewards, decode_with
from reasoning_ext.scoring.spec import RewardSpec, needed_columns
from reasoning_ext.think.render import render_prompt
from reasoning_ext.think.template import Contract, decoder
from reasoning_ext.train.callbacks import FlatGroups, WeightSchedule
from reasoning_ext.train.common import build_config, load_to_train, train, trainer_arguments
from reasoning_ext.train.reference import check_reference, load_reference_as
from reasoning_ext.train.refusals import refusals


def run_grpo(recipe: Recipe, run: RunDir, specs: list[RewardSpec]) -> int:
    """Train on `prompt` with the recipe's rewards and save the model into the run's folder.

    Args:
        recipe: of stage grpo.
        run: the opened run folder.
        specs: the recipe's rewards.

    Returns:
        0, or the exit code for the signal that stopped it, 130 for Ctrl-C.

    Raises:
        DataError: the rows cannot be read or lack a column that a reward needs.
        ModelError: the model cannot be loaded, or TRL would take another one for the KL term's reference.
    """
    from trl import GRPOConfig, GRPOTrainer

    options = row_options(recipe)
    prepared = prepare(options, specs=specs)
    columns = {"prompt": "stage grpo"} | needed_columns(specs)
    check_columns(columns_of(prepared.rows), columns)
    own = {"log_completions": True, "num_completions_to_print": 0, "reward_weights": [s.weight_at(0) for s in specs]}
    config = build_config(GRPOConfig, GRPO_CONFIG, recipe, **own)
    source = model_source(recipe, trainable=True)
    how = (*source.load_tokenizer(), recipe.get("max_prompt_length"), source.options.chat_template_kwargs)
    held_out = written(prompt_rows(prepare(options, TEST, specs=specs), *how), how[1]) if config.do_eval else None
    if held_out is not None:
        check_columns(columns_of(held_out), columns)
    rows = written(prompt_rows(prepared, *how), how[1])
    for line in prepared.lines():
        say(f"data  {line}")
    _check_enough(rows, config.generation_batch_size // config.num_generations)
    rewards = build_rewards(specs)
    prepared.write(run.path)
    write_problems(run.path, prepared.rows)
    loaded = load_to_train(source)
    end_at_turns(loaded.tokenizer, loaded.contract)
    decode_with(rewards, decoder(loaded.tokenizer, loaded.contract))
    if config.beta and not recipe.get("use_peft"):
        load_reference_as(loaded, source, config)
    with refusals(recipe.values, "GRPOTrainer"):
        trainer = GRPOTrainer(reward_funcs=rewards, **trainer_arguments(config, loaded, rows, held_out))
    if config.beta:
        check_reference(trainer, source, "beta", "0, or ")
    trainer.add_callback(WeightSchedule(trainer, specs))
    trainer.add_callback(FlatGroups())
    return train(trainer, run, "grpo")


def end_at_turns(tokenizer: Any, contract: Contract) -> None:
    """Make the end of a turn the tokenizer's end: TRL 1.14 ends completions at that alone, and they would never end.

    A tokenizer whose template would then write other prompts is left as it is.
    """
    end, before = tokenizer.convert_ids_to_tokens(contract.end_id), tokenizer.eos_token
    if end in (None, before, tokenizer.pad_token):
        return
    turns = [{"role": role, "content": role} for role in ("user", "assistant", "user")]
    rendered = render_prompt(tokenizer, contract, turns, {})
    tokenizer.eos_token = end
    if render_prompt(tokenizer, contract, turns, {}) != rendered:
        tokenizer.eos_token = before


def _check_enough(rows: Any, prompts: int) -> None:
    """Refuse fewer prompts than one generation takes: TRL drops what does not fill it, and would train on nothing."""
    if hasattr(rows, "num_rows") and rows.num_rows < prompts:
        problem = (
            f"found {rows.num_rows} rows, but one generation takes {prompts} prompts; use more rows or smaller batches"
        )
        raise DataError("dataset_name", problem)


def written(rows: Any, contract: Contract) -> Any:
    """Return rows whose prompts are written as the template wants them, since TRL renders them.

    That happens when a row is read: in a column of Arrow every message would get the fields of all others, as nulls.
    """
    write = functools.partial(_in_form, contract)
    return rows.with_transform(write) if hasattr(rows, "num_rows") else rows.map(write, batched=True)


def _in_form(contract: Contract, rows: dict[str, list]) -> dict[str, list]:
    return {**rows, "prompt": [contract.messages(prompt) for prompt in rows["prompt"]]}
