"""Stage `grpo`: group relative policy optimisation with verifiable rewards, with TRL's GRPOTrainer.

Departure from TRL's defaults: every completion is kept in `completions/` (`log_completions: true`, nothing printed).
"""

from __future__ import annotations

from contextlib import closing, nullcontext
from typing import Any

from reasoning_ext.data.columns import DataError, check_columns, columns_of, too_few
from reasoning_ext.data.held_out import write_problems
from reasoning_ext.data.row_options import TEST, row_options
from reasoning_ext.data.rows import prepare
from reasoning_ext.data.token_sets import prompt_rows
from reasoning_ext.engines.opening import toolbox
from reasoning_ext.models.source import model_source
from reasoning_ext.models.watching import watched
from reasoning_ext.recipe.keys import Answered
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.trl_fields import GRPO_CONFIG
from reasoning_ext.runs.folder import RunDir, say
from reasoning_ext.scoring.call import build_rewards, decode_with
from reasoning_ext.scoring.spec import RewardSpec, needed_columns, parse_audits
from reasoning_ext.think.render import render_prompt
from reasoning_ext.think.template import Contract, decoder
from reasoning_ext.tools.spec import has_tools, template_kwargs
from reasoning_ext.train.audit import Audit
from reasoning_ext.train.callbacks import WeightSchedule
from reasoning_ext.train.common import build_config, load_to_train, train, trainer_arguments
from reasoning_ext.train.held_out import held_out_problems
from reasoning_ext.train.parity import compare_first
from reasoning_ext.train.reference import check_reference, load_reference_as
from reasoning_ext.train.refill import draw_with
from reasoning_ext.train.refusals import refusals
from reasoning_ext.train.tools import grpo_trainer


def run_grpo(recipe: Recipe, run: RunDir, specs: list[RewardSpec]) -> int:
    """Train on `prompt` with the recipe's rewards and save the model into the run's folder.

    Returns 0, or the exit code for the signal that stopped it, 130 for Ctrl-C; raises UserError where the rows, the
    model, its tokenizer or template, a combination of values for TRL, or the reference are not what they must be.
    """
    from trl import GRPOConfig

    own = {"log_completions": True, "num_completions_to_print": 0, "reward_weights": [s.weight_at(0) for s in specs]}
    own |= {"max_tool_calling_iterations": Answered.max_tool_calling_iterations} if has_tools(recipe) else {}
    config = build_config(GRPOConfig, GRPO_CONFIG, recipe, **own)
    template = template_kwargs(recipe)
    source, options = model_source(recipe.values, recipe.local, True, None, template), row_options(recipe)
    tokenizer, contract = source.load_tokenizer()
    audits = parse_audits(recipe.get("audit"), recipe.folder)
    columns, rows = {"prompt": "stage grpo"} | needed_columns([*specs, *audits]), []
    sets = [prepare(options, specs=specs), *([prepare(options, TEST, specs=specs)] if config.do_eval else [])]
    for prepared in sets:
        check_columns(columns_of(prepared.rows), columns)
        limits = recipe.get("max_prompt_length"), template
        rows.append(written(prompt_rows(prepared, tokenizer, contract, *limits), contract))
    for line in sets[0].lines():
        say(f"data  {line}")
    prompts = config.generation_batch_size // config.num_generations
    if text := too_few(getattr(rows[0], "num_rows", None), prompts, "generation"):  # which TRL drops
        raise DataError("dataset_name", text, code="too_few_rows")
    rewards = build_rewards(specs)
    sets[0].write(run.path)
    write_problems(run.path, sets[0].rows)
    problems = held_out_problems(recipe, sets[0].rows, specs)
    if not run.checkpoint:
        compare_first(recipe, rows[0], run.path)
    loaded = load_to_train(source)
    end_at_turns(loaded.tokenizer, loaded.contract)
    box, decodes = toolbox(recipe), decoder(loaded.tokenizer, loaded.contract)
    decode_with(rewards, decodes, looped=box is not None)
    if config.beta and not recipe.get("use_peft"):
        load_reference_as(loaded, source, config)
    with refusals(recipe.values, "GRPOTrainer"):
        arguments = trainer_arguments(config, loaded, *[*rows, None][:2])
        trainer = grpo_trainer(box, template, decodes, reward_funcs=rewards, **arguments)
    if config.beta:
        check_reference(trainer, source, "beta", "write 0, or merge_adapter: true")
    rates = draw_with(trainer, run, specs, recipe.get("skip_known"), recipe.get("refill"))
    trainer.add_callback(WeightSchedule(trainer, specs))
    trainer.add_callback(Audit(trainer, audits, decodes))
    with watched(trainer.model, config.max_completion_length), closing(box) if box else nullcontext():
        if not (code := train(trainer, run, recipe, problems, loaded.contract)):
            rates.write_prompts()
    return code


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


def written(rows: Any, contract: Contract) -> Any:
    """Return rows whose prompts are written as the template wants them, since TRL renders them.

    That happens when a row is read: in a column of Arrow every message would get the fields of all others, as nulls.
    """

    def write(batch: dict[str, list]) -> dict[str, list]:
        return {**batch, "prompt": [contract.messages(prompt) for prompt in batch["prompt"]]}

    return rows.with_transform(write) if hasattr(rows, "num_rows") else rows.map(write, batched=True)
