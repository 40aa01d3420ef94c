"""Rows in tokens, with everything wrong about them found before a model is loaded: how `sft` and `dpo` begin."""

from __future__ import annotations

import functools
from typing import Any

from reasoning_ext.contract import find_contract
from reasoning_ext.data import ROW_COLUMNS, DataError, check_columns, columns_of
from reasoning_ext.held_out import write_problems
from reasoning_ext.loaded import Loaded
from reasoning_ext.prepared import Prepared
from reasoning_ext.recipe import Recipe
from reasoning_ext.row_options import TEST, TRAIN, row_options
from reasoning_ext.rows import prepare
from reasoning_ext.run_dir import RunDir, say
from reasoning_ext.token_sets import MOST_INEXACT, drop_overlong, tokenize_rows
from reasoning_ext.tokenized import LossOptions, count_tokens
from reasoning_ext.training import recipe_model, recipe_tokenizer, template_options


def rows_and_model(
    recipe: Recipe, run: RunDir, config: Any, loss: LossOptions | None = None
) -> tuple[Loaded, list[Any]]:
    """Read and tokenize the rows, say and keep what became of the others, and load the model.

    Args:
        recipe: of stage sft or dpo.
        run: the opened run folder.
        config: TRL's, built from the recipe.
        loss: what is trained on; None for pairs.

    Returns:
        `(the model, the rows to train on and, with do_eval, the rows held out)`.

    Raises:
        DataError: the rows cannot be read, lack a column, are too long, or do not survive the tokenizer.
        ModelError, TokenizerError, ContractError: the model, its tokenizer or its chat template cannot be used.
    """
    tokenizer = recipe_tokenizer(recipe)
    splits = [TRAIN, *([TEST] if config.do_eval else [])]
    options, count = row_options(recipe), functools.partial(count_tokens, tokenizer)
    sets = [prepare(options, split, count) for split in splits]
    before = [len(one.steps) for one in sets]
    tokens = [tokens_of(recipe, tokenizer, config.max_length, one, loss) for one in sets]
    for prepared, mark in zip(sets, ("", "held out: "), strict=False):
        for line in prepared.lines():
            say(f"data  {mark}{line}")
    loaded = recipe_model(recipe, trainable=True)
    if len(loaded.tokenizer) != len(tokenizer):  # another model's template brought its tokens along
        for one, steps in zip(sets, before, strict=True):
            del one.steps[steps:]
        tokens = [tokens_of(recipe, loaded.tokenizer, config.max_length, one, loss) for one in sets]
    sets[0].write(run.path)
    write_problems(run.path, sets[0].rows)
    return loaded, tokens


def tokens_of(recipe: Recipe, tokenizer: Any, limit: int | None, prepared: Prepared, loss: LossOptions | None) -> Any:
    """Render and tokenize rows, and refuse or drop the ones that are too long, which is noted.

    Raises:
        DataError: they lack a column, are too long, or do not survive the tokenizer.
    """
    check_columns(columns_of(prepared.rows), ROW_COLUMNS[recipe.stage])
    options = template_options(recipe)
    kwargs: dict[str, Any] = options["chat_template_kwargs"]
    contract = find_contract(tokenizer, kwargs, options["think_tags"])
    names = columns_of(prepared.rows)
    used = [name for name in (*ROW_COLUMNS[recipe.stage], "chat_template_kwargs") if name in names]
    rows = tokenize_rows(prepared.rows.select_columns(used), tokenizer, contract, loss, kwargs)
    if hasattr(rows, "num_rows"):
        inexact = rows.num_rows - sum(rows["exact"])
        if inexact > MOST_INEXACT * rows.num_rows:
            problem = f"{inexact} of {rows.num_rows} completions do not come back from the tokenizer as they went in"
            raise DataError("model_name_or_path", f"{problem}; use a tokenizer that keeps them")
        if inexact:
            prepared.note("changed by the tokenizer", rows, 0, changed=inexact)
        if spelled := sum(rows["spelled"]):
            prepared.note(f"with {contract.end} or the like in the text, trained on as letters", rows, 0, found=spelled)
    # with packing too, which would cut
    rows, dropped = drop_overlong(rows.remove_columns(["exact", "spelled"]), limit, recipe.get("overlong_rows"))
    if dropped:
        prepared.note(f"up to max_length {limit}", rows, dropped)
    return rows
