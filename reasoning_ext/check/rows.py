"""What a recipe's rows and tokenizer tell before any weights are loaded: the think contract, lengths, duplicates.

`check` prints it, and `run` does the same before its first stage starts. Of a large data set a sample is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from reasoning_ext.check.measuring import measure
from reasoning_ext.check.named_inputs import model_chain
from reasoning_ext.data.columns import SIDES, check_columns, columns_of
from reasoning_ext.data.prepared import Prepared
from reasoning_ext.data.row_options import TEST, TRAIN, RowOptions, is_hub_name, row_options
from reasoning_ext.data.rows import prepare, read_rows, stage_columns
from reasoning_ext.data.sources import local_source
from reasoning_ext.errors import KeyProblem, Problem, UserError
from reasoning_ext.models.adapter import is_adapter
from reasoning_ext.models.weights import CONFIGS, check_weights, vocabulary_problem
from reasoning_ext.recipe.entries import asks_server, eval_models
from reasoning_ext.recipe.keys import FROM_DATA, TRAINED
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.user_code import no_code
from reasoning_ext.scoring.spec import RewardSpec

CHECKED_ROWS = 8  # of those that are held out
SAMPLE = 2000  # rows that are rendered and tokenized
LONGEST = 16  # rows with the most letters, which are looked at beside the sample
STREAMED = 200
COMPARED = 50_000  # rows among which duplicates are counted


@dataclass
class Inspection:
    """What was found out about one recipe.

    Attributes:
        rows: the rows after preparation, a list of about `SAMPLE` at the most.
        numbers: each one's number among the prepared rows.
        prepared: counts of every step.
        contract, tokenizer: what the chat template does with thoughts, and the tokenizer; None where it could not be had.
        lengths: tokens of each row of `rows`: the whole row in SFT, with the longer side in DPO, the prompt elsewhere.
        findings, errors: errors, warnings and notes; and what kept rows or tokenizer from being used.
        facts: everything else, for `check --json`.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    prepared: Prepared = field(default_factory=Prepared)
    contract: Any = None
    tokenizer: Any = None
    lengths: list[int] = field(default_factory=list)
    findings: list[Problem] = field(default_factory=list)
    errors: list[Problem] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, level: Any, key: str, text: str, code: str = "rows") -> None:
        """Add a finding."""
        self.findings.append(Problem(code=code, level=level, key=key, found=text))


def inspect(
    recipe: Recipe, specs: list[RewardSpec], model: str | None, hub: bool, whole: bool = True, rows: bool = True
) -> Inspection:
    """Read a recipe's rows and its tokenizer and look at them.

    Args:
        recipe: whose keys have no error.
        specs: its rewards.
        model: where the tokenizer is to be had, see `tokenizer_source`; None: nowhere yet.
        hub: whether the hub may be asked.
        whole: read all rows and do everything to them that the recipe asks for; else look at the first `SAMPLE`.
        rows: the data set is at hand; else the tokenizer alone is looked at.

    Returns:
        what was found; what cannot be used is in its `errors`, and the rest is looked at nevertheless.
    """
    found = Inspection()
    looks: list[Callable] = [partial(_read_weights, recipe), partial(_read_tokenizer, recipe, found, model, hub)]
    reads: list[Callable] = [partial(_read_rows, recipe, specs, found, hub, whole), partial(_read_held_out, recipe)]
    measures: list[Callable] = [partial(measure, recipe, found, model)]
    reads, measures = (reads, measures) if rows else ([], [])
    for step in [*looks, *reads, *measures] if whole else [*reads, *looks, *measures]:
        try:
            step()
        except UserError as error:
            found.errors.append(_placed(recipe, error))
        if found.errors and not whole:  # before anything heavy is imported
            break
    return found


def tokenizer_source(recipe: Recipe, earlier: dict[str, Recipe]) -> str | None:
    """Return where a recipe's tokenizer is: its model, or the model that the recipe which makes it starts from.

    Args:
        recipe: the recipe.
        earlier: `{resolved output_dir: recipe}` of the recipes that come before it.
    """
    name = next(iter(eval_models(recipe).values()), None) or recipe.values.get("model_name_or_path")
    if not name or asks_server(recipe):
        return None
    for place, maker in model_chain(recipe, earlier, name):
        own = any((Path(place) / file).is_file() for file in ("tokenizer_config.json", "config.json"))
        if maker is None and (own or not is_adapter(place)):
            return place
    return None


def _placed(recipe: Recipe, error: UserError) -> Problem:
    """Say where a recipe is wrong: at the template or the models where these are what it names, or at its data set."""
    from reasoning_ext.think.template import ContractError

    problem, columns, path = error.problem, "", error.path
    key, name = problem.key, recipe.values.get("dataset_name")
    if problem.file:
        return problem
    if isinstance(error, ContractError) and key == "model_name_or_path" and recipe.get("chat_template_path"):
        key = "chat_template_path"
    elif key == "model_name_or_path" and key not in recipe.values and recipe.values.get("models"):
        key = "models"
    elif key == "dataset_name" and recipe.values.get("datasets"):
        key = "datasets"
    if problem.code == "missing_column" and name and Path(name).suffix == ".csv":
        columns = "the first line of a CSV file names its columns"
    if key == "dataset_format" and key not in recipe.values:
        key = "dataset_name"
        hint = "say how its rows are read with dataset_format or rename_columns"
        columns = "; ".join(filter(None, (columns, hint if problem.code == "missing_column" else "")))
    hint = "; ".join(filter(None, (problem.hint, columns)))
    path = path if key == problem.key else (key,)
    return recipe.problem(path, problem.found, problem.allowed, hint, problem.code) if key else problem


def _read_tokenizer(recipe: Recipe, found: Inspection, model: str | None, hub: bool) -> None:
    key = "models" if recipe.values.get("models") else "model_name_or_path"
    template = recipe.get("chat_template_path")
    if no_code() and recipe.get("trust_remote_code"):
        found.add("note", "trust_remote_code", "the model's code is not run, so that nothing was rendered or measured")
        return
    for name, blamed in ((model, key), (recipe.local(template) if template else "", "chat_template_path")):
        if name is None or (name and not hub and local_source(name) is None and not _cached(name)):
            absent = "the server has the tokenizer" if asks_server(recipe) else "the tokenizer is not there yet"
            where = f"{name} is no folder here, and the hub is not asked" if name else absent
            found.add("note", blamed, f"{where}, so that nothing was rendered or measured")
            return
    from reasoning_ext.models.source import model_source
    from reasoning_ext.think.template import find_contract

    source = model_source(recipe.values, recipe.local, False, model)
    tokenizer, options = source.tokenizer(), source.options
    for key in ("pad_token", "eos_token"):
        if (token := recipe.values.get(key)) is not None and token not in tokenizer.get_vocab():
            raise KeyProblem(key, f"found {token}, which is no token of {model}; leave it out, or name one that it has")
    if not found.errors and (Path(model or "") / "config.json").is_file():
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(model, trust_remote_code=recipe.get("trust_remote_code"))
        if problem := vocabulary_problem(str(model), tokenizer, config):
            raise KeyProblem("model_name_or_path", problem)
    found.contract = find_contract(tokenizer, options.chat_template_kwargs, options.think_tags)
    found.tokenizer = tokenizer
    _judge_contract(found)


def _read_weights(recipe: Recipe) -> None:
    """Hold the weights that lie in folders against their configs; those that an earlier recipe has yet to make are not there."""
    if asks_server(recipe):
        return
    arguments = recipe.get("trust_remote_code"), recipe.get("model_init_kwargs"), recipe.get("from_scratch")
    for name in [*eval_models(recipe).values()] or [recipe.get("model_name_or_path")]:
        if any((Path(recipe.local(name)) / file).is_file() for file in CONFIGS):
            check_weights(recipe.local(name), *arguments)


def _cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "tokenizer_config.json"), str)
    except HFValidationError:
        return True  # no name for the hub, which reading it will say


def _judge_contract(found: Inspection) -> None:
    from reasoning_ext.think.tokenizer import DEFAULT_TEMPLATE

    contract, tokenizer = found.contract, found.tokenizer
    if tokenizer.chat_template == DEFAULT_TEMPLATE:
        text = "left out, and the tokenizer has no chat template: turns are written as User: and Assistant:, and that is saved"
        found.add(
            "note",
            "chat_template_path",
            f"{text} with the model; for another one name a .jinja file or a model that has one",
        )
    if contract.closed:
        key, mend = "chat_template_path", "name another chat_template_path"
        if "enable_thinking" in str(tokenizer.chat_template):
            key, mend = "chat_template_kwargs", "write chat_template_kwargs: {enable_thinking: true}"
        text = "the generation prompt closes an empty thought, so that the model answers without thinking"
        found.add("warning", key, f"{text}; {mend}")
    if contract.special:
        found.add("note", "think_tags", "decoding drops the think tags; completions are read from their token ids")
    if tokenizer.pad_token == tokenizer.eos_token:
        found.add("note", "pad_token", f"no spare token to pad with; the end {tokenizer.eos_token} is used")


def _read_rows(recipe: Recipe, specs: list[RewardSpec], found: Inspection, hub: bool, whole: bool) -> None:
    from reasoning_ext.data.contamination import evaluation_questions
    from reasoning_ext.think.render import count_tokens

    options, split = row_options(recipe), TEST if recipe.stage == "eval" else TRAIN
    count = partial(count_tokens, found.tokenizer) if found.tokenizer is not None else None
    options = options if hub else _without_hub(options, found)
    found.prepared = prepare(options, split, count, specs, None if whole else SAMPLE)
    if not whole and hub and recipe.stage != "eval":
        evaluation_questions(options)
    rows, names = found.prepared.rows, columns_of(found.prepared.rows)
    check_columns(names, stage_columns(options, specs))
    found.facts |= {"columns": names, "rows": getattr(rows, "num_rows", None), "steps": found.prepared.steps}
    found.numbers, found.rows = _sample(rows)
    _judge_golds(found)
    if whole and hasattr(rows, "num_rows") and recipe.stage != "eval" and recipe.get("deduplicate") == "none":
        _count_duplicates(recipe, found)


def _judge_golds(found: Inspection) -> None:
    """Say where `trace_filters: {correct: true}` had nothing to compare with, so that it kept what it could not judge."""
    for step in found.prepared.steps:
        if step["step"] == "trace_filters.correct" and step.get("no_gold"):
            seen = step["rows"] + step["dropped"]
            text = f"correct: {step['no_gold']} of {seen} rows have no gold to compare with, and were kept unchecked"
            found.add("warning", "trace_filters", text)


def _read_held_out(recipe: Recipe) -> None:
    """Read the first held-out rows of a training that is evaluated as it goes."""
    if recipe.stage in TRAINED and recipe.get("eval_strategy") not in (None, "no"):
        read_rows(row_options(recipe), TEST, CHECKED_ROWS)


def _without_hub(options: RowOptions, found: Inspection) -> RowOptions:
    """Leave out the evaluation sets that only the hub has."""
    named = [e.get("dataset_name") if isinstance(e, dict) else e for e in options.decontaminate]
    left_out = [name for name in named if isinstance(name, str) and is_hub_name(options.local(name))]
    if left_out:
        found.add("note", "decontaminate", f"{', '.join(left_out)} on the hub, not compared with offline")
    kept = [e for e, name in zip(options.decontaminate, named, strict=True) if name not in left_out]
    return replace(options, decontaminate=kept)


def _sample(rows: Any) -> tuple[list[int], list[dict[str, Any]]]:
    """Take rows evenly from the whole data set, and those with the most letters; of a stream the first ones."""
    if not hasattr(rows, "num_rows"):
        taken = list(rows.take(STREAMED))
        return list(range(len(taken))), taken
    step = max(1, -(-rows.num_rows // SAMPLE))
    chosen = set(range(0, rows.num_rows, step))
    if step > 1:
        chosen |= set(sorted(range(rows.num_rows), key=_letters(rows).__getitem__)[-LONGEST:])
    numbers = sorted(chosen)
    return numbers, list(rows.select(numbers))


def _letters(rows: Any) -> list[int]:
    """Count the letters of each row's messages."""
    import pyarrow.compute as pc
    from datasets import Value

    counts: list[int] = []
    answers = SIDES if {*SIDES} <= {*rows.column_names} else ("completion",)
    names = [name for name in ("prompt", *answers) if not isinstance(rows.features.get(name), Value | None)]
    for table in rows.select_columns(names).with_format("arrow").iter(1000):
        total = [0] * table.num_rows
        for name in names:
            column = table[name].combine_chunks()
            of = pc.list_parent_indices(column).to_pylist()
            lengths = pc.utf8_length(pc.struct_field(pc.list_flatten(column), "content")).to_pylist()
            for i, length in zip(of, lengths, strict=True):
                total[i] += length or 0
        counts += total
    return counts


def _count_duplicates(recipe: Recipe, found: Inspection) -> None:
    """Note how many rows repeat an earlier one, where the recipe does not ask for them to be dropped."""
    from reasoning_ext.data.duplicates import deduplicate

    rows, by = found.prepared.rows, "row" if recipe.stage in FROM_DATA else "prompt"
    rows = rows.select(range(min(COMPARED, rows.num_rows)))
    repeated = len(deduplicate(rows, "exact", by=by)[1])
    found.facts["duplicates"] = repeated
    if repeated:
        of = f"{repeated} of {'the first ' if rows.num_rows == COMPARED else ''}{rows.num_rows} rows"
        found.add("note", "deduplicate", f"left out: {of} repeat an earlier {by}; write exact to drop them")
