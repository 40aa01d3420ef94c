"""What `sft` and `dpo` share: a recipe's rows as tokens, with everything wrong about them found before the model is loaded."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from reasoning_ext.contract import Contract, find_contract
from reasoning_ext.data import ROW_COLUMNS, DataError, check_columns, columns_of
from reasoning_ext.held_out import write_problems
from reasoning_ext.loaded import Loaded
from reasoning_ext.preparation import Prepared, prepare
from reasoning_ext.recipe import Recipe
from reasoning_ext.run_dir import RunDir, say
from reasoning_ext.tokenized import MOST_INEXACT, count_tokens
from reasoning_ext.training import recipe_model, recipe_tokenizer, template_options

if TYPE_CHECKING:
    from datasets import Dataset

# of rows, the tokenizer, its contract and the recipe's chat_template_kwargs, rows in tokens with `exact` and `spelled`
Tokenize = Callable[[Any, Any, Contract, dict[str, Any]], Any]


def rows_and_model(recipe: Recipe, run: RunDir, config: Any, tokenize: Tokenize) -> tuple[Loaded, list[Any]]:
    """Read and tokenize the rows, say and keep what became of the others, and load the model.

    Args:
        recipe: of stage sft or dpo.
        run: the opened run folder.
        config: TRL's, built from the recipe.
        tokenize: makes tokens of rows.

    Returns:
        `(the model, the rows to train on and, with do_eval, the rows held out)`.

    Raises:
        DataError: the rows cannot be read, lack a column, are too long, or do not survive the tokenizer.
        ModelError, TokenizerError, ContractError: the model, its tokenizer or its chat template cannot be used.
    """
    tokenizer = recipe_tokenizer(recipe)
    splits = ["dataset_train_split", *(["dataset_test_split"] if config.do_eval else [])]
    sets = [_read(recipe, tokenizer, split) for split in splits]
    before = [len(one.steps) for one in sets]
    tokens = [_tokens(recipe, tokenizer, config.max_length, one, tokenize) for one in sets]
    for prepared, mark in zip(sets, ("", "held out: "), strict=False):
        for line in prepared.lines():
            say(f"data  {mark}{line}")
    loaded = recipe_model(recipe, trainable=True)
    if len(loaded.tokenizer) != len(tokenizer):  # another model's template brought its tokens along
        for one, count in zip(sets, before, strict=True):
            del one.steps[count:]
        tokens = [_tokens(recipe, loaded.tokenizer, config.max_length, one, tokenize) for one in sets]
    sets[0].write(run.path)
    write_problems(run.path, sets[0].rows)
    return loaded, tokens


def _read(recipe: Recipe, tokenizer: Any, split_key: str) -> Prepared:
    prepared = prepare(recipe, split_key, functools.partial(count_tokens, tokenizer))
    check_columns(columns_of(prepared.rows), ROW_COLUMNS[recipe.stage])
    return prepared


def _tokens(recipe: Recipe, tokenizer: Any, limit: int | None, prepared: Prepared, tokenize: Tokenize) -> Any:
    """Render and tokenize rows, and refuse or drop the ones that are too long."""
    options = template_options(recipe)
    kwargs: dict[str, Any] = options["chat_template_kwargs"]
    contract = find_contract(tokenizer, kwargs, options["think_tags"])
    names = columns_of(prepared.rows)
    used = [name for name in (*ROW_COLUMNS[recipe.stage], "chat_template_kwargs") if name in names]
    rows = tokenize(prepared.rows.select_columns(used), tokenizer, contract, kwargs)
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


def drop_overlong(rows: Dataset, max_length: int | None, choice: str) -> tuple[Dataset, int]:
    """Drop the rows that are longer than `max_length`, or refuse them; never cut one.

    Args:
        rows: with `input_ids`, or pairs with `prompt_ids`, `chosen_ids` and `rejected_ids`, whose longer side counts.
        max_length: in tokens; None is no limit.
        choice: "error" or "drop".

    Returns:
        `(the rows that fit, how many were dropped)`.

    Raises:
        DataError: there are such rows and the choice is "error", or none is left.
    """
    if max_length is None:
        return rows, 0
    if not hasattr(rows, "num_rows"):
        return rows.filter(functools.partial(_fits, max_length=max_length, choice=choice), with_indices=True), 0
    lengths = [_length(row) for row in rows]
    kept = [i for i, length in enumerate(lengths) if length <= max_length]
    dropped = len(lengths) - len(kept)
    if dropped and (choice == "error" or not kept):
        problem = (
            f"{dropped} of {len(lengths)} rows are longer than max_length {max_length} (row {lengths.index(max(lengths))} has "
            f"{max(lengths)} tokens); raise max_length, or write overlong_rows: drop"
        )
        raise DataError("max_length", problem if kept else problem.rpartition(",")[0] + "; no row is left")
    return (rows.select(kept) if dropped else rows), dropped


def _length(row: dict[str, Any]) -> int:
    if "input_ids" in row:
        return len(row["input_ids"])
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def _fits(row: dict[str, Any], index: int, max_length: int, choice: str) -> bool:
    """Tell whether a streamed row fits; the first that does not ends the run, unless it may be dropped."""
    length = _length(row)
    if length > max_length and choice == "error":
        problem = f"row {index} has {length} tokens, more than max_length {max_length}"
        raise DataError("max_length", f"{problem}; raise max_length, or write overlong_rows: drop")
    return length <= max_length
