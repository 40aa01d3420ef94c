"""What a recipe's rows and tokenizer tell before any weights are loaded: the think contract, lengths, duplicates.

`check` prints it, and `run` does the same before its first stage starts. Of a large data set a sample is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext.check.measuring import measure
from reasoning_ext.check.named_inputs import model_chain
from reasoning_ext.data.calls import need_tool_turns
from reasoning_ext.data.columns import SIDES, check_columns, columns_of
from reasoning_ext.data.prepared import Prepared
from reasoning_ext.data.row_options import TEST, TRAIN, RowOptions, is_hub_name, row_options
from reasoning_ext.data.rows import prepare, read_rows, stage_columns
from reasoning_ext.data.sources import local_source
from reasoning_ext.errors import KeyProblem, Problem, UserError
from reasoning_ext.models.adapter import is_adapter
from reasoning_ext.models.weights import CONFIGS, check_weights, vocabulary_problem
from reasoning_ext.recipe.entries import asks_server, eval_models
from reasoning_ext.recipe.held_out import eval_problems, evaluates
from reasoning_ext.recipe.keys import FROM_DATA
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.user_code import no_code
from reasoning_ext.scoring.spec import judge, needed_columns, parse_audits
from reasoning_ext.tools.spec import template_kwargs

if TYPE_CHECKING:
    from reasoning_ext.check.keys import Checked

CHECKED_ROWS = 8  # of those that are held out
SAMPLE = 2000  # rows that are rendered and tokenized
LONGEST = 16  # rows with the most letters, which are looked at beside the sample
STREAMED = 200
COMPARED = 50_000  # rows among which duplicates are counted


@dataclass
class Inspection:
    """The rows and the tokenizer of a recipe, as far as they could be had.

    Attributes:
        rows: the rows after preparation, a list of about `SAMPLE` at the most.
        numbers: each one's number among the prepared rows.
        prepared: counts of every step.
        contract, tokenizer: what the chat template does with thoughts, and the tokenizer; None where it could not be had.
        lengths: tokens of each row of `rows`: the whole row in SFT, with the longer side in DPO, the prompt elsewhere.
        tool_turns: rows that are trained on have calls of tools, so that the template needs turns for them.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    prepared: Prepared = field(default_factory=Prepared)
    contract: Any = None
    tokenizer: Any = None
    lengths: list[int] = field(default_factory=list)
    tool_turns: bool = False


def inspect(checked: Checked, model: str | None, hub: bool, whole: bool = True, rows: bool = True) -> Inspection:
    """Read a recipe's rows and its tokenizer and look at them.

    Args:
        checked: the recipe, whose keys have no error, with its rewards; gets problems and facts. Where something cannot be used,
            the rest is looked at nevertheless.
        model: where the tokenizer is to be had, see `tokenizer_source`; None: nowhere yet.
        hub: whether the hub may be asked.
        whole: read all rows and do everything to them that the recipe asks for; else look at the first `SAMPLE`.
        rows: the data set is at hand; else the tokenizer alone is looked at.
    """
    checked.inspection = found = Inspection()
    recipe, looks, reads = checked.recipe, list[Callable](), list[Callable]()
    looks += [partial(_read_weights, recipe), partial(_read_tokenizer, checked, found, model, hub)]
    reads += [partial(_read_rows, checked, found, hub, whole), partial(_read_held_out, checked, whole)] if rows else []
    measures: list[Callable] = [partial(measure, checked, found, model)] if rows else []
    again = [lambda: _read_tokenizer(checked, found, model, hub) if _lacks_turns(found) else None]
    for step in [*looks, *reads, *again, *measures] if whole else [*reads, *looks, *measures]:
        try:
            step()
        except UserError as error:
            checked.add([_placed(recipe, error)])
        if checked.errors and not whole:  # before anything heavy is imported
            break
    return found


def tokenizer_source(recipe: Recipe, earlier: dict[str, Recipe]) -> str | None:
    """Return where a recipe's tokenizer is: its model, or the model that the recipe which makes it starts from.

    `earlier` are the recipes that come before it, by resolved output_dir.
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

    problem, key, hint = error.problem, error.problem.key, error.problem.hint
    if problem.file or not key:
        return problem
    mend = ""
    if key == "model_name_or_path":
        others = (*["chat_template_path"] * isinstance(error, ContractError), "models")
        key = next((other for other in others if recipe.values.get(other)), key)
    elif key == "dataset_format" and key not in recipe.values:
        key, mend = "dataset_name", "say how its rows are read with dataset_format or rename_columns"
    elif key == "dataset_name" and recipe.values.get("datasets"):
        key = "datasets"
    if problem.code == "missing_column":
        csv = Path(str(recipe.values.get("dataset_name"))).suffix == ".csv"
        hint = "; ".join(filter(None, (hint, mend, "the first line of a CSV file names its columns" if csv else "")))
    path = error.path if key == problem.key else (key,)
    return recipe.problem(path, problem.found, problem.allowed, hint, problem.code)


def _read_weights(recipe: Recipe) -> None:
    """Hold the weights that lie in folders against their configs; others are yet to be made."""
    if asks_server(recipe):
        return
    arguments = recipe.get("trust_remote_code"), recipe.get("model_init_kwargs"), recipe.get("from_scratch")
    for name in [*eval_models(recipe).values()] or [recipe.get("model_name_or_path")]:
        if any((Path(recipe.local(name)) / file).is_file() for file in CONFIGS):
            check_weights(recipe.local(name), *arguments)


def _read_tokenizer(checked: Checked, found: Inspection, model: str | None, hub: bool) -> None:
    recipe, template = checked.recipe, checked.recipe.get("chat_template_path")
    named = {"models" if recipe.values.get("models") else "model_name_or_path": model}
    named |= {"chat_template_path": recipe.local(template)} if template else {}
    for key, name in named.items():
        why = "the server has the tokenizer" if asks_server(recipe) else "the tokenizer is not there yet"
        if name is not None and (hub or local_source(name) or _cached(name)):
            key = "trust_remote_code" if no_code() and recipe.get("trust_remote_code") else key
            why = "the model's code is not run" if key == "trust_remote_code" else ""
        elif name is not None:
            why = f"{name} is no folder here, and the hub is not asked"
        if why:
            checked.note(key, f"{why}, so that nothing was rendered or measured", code="not_rendered")
            return
    from transformers import AutoConfig

    from reasoning_ext.models.source import model_source
    from reasoning_ext.think.template import find_contract

    source = model_source(recipe.values, recipe.local, False, model, template_kwargs(recipe))
    if found.tool_turns:
        source = source.with_tool_turns()
    tokenizer, options = source.tokenizer(), source.options
    for key in ("pad_token", "eos_token"):
        if (token := recipe.values.get(key)) is not None and token not in tokenizer.get_vocab():
            raise KeyProblem(key, f"found {token}, which is no token of {model}; leave it out, or name one that it has")
    if not checked.errors and (Path(model or "") / "config.json").is_file():
        config = AutoConfig.from_pretrained(model, trust_remote_code=recipe.get("trust_remote_code"))
        if problem := vocabulary_problem(str(model), tokenizer, config):
            raise KeyProblem("model_name_or_path", problem)
    found.contract = find_contract(tokenizer, options.chat_template_kwargs, options.think_tags)
    found.tokenizer = tokenizer
    _judge_template(checked, found)


def _lacks_turns(found: Inspection) -> bool:
    """Tell whether a tokenizer was read before it was known that rows have calls."""
    return found.tool_turns and found.contract is not None and found.contract.calls is None


def _cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "tokenizer_config.json"), str)
    except HFValidationError:
        return True  # no name for the hub, which reading it will say


def _judge_template(checked: Checked, found: Inspection) -> None:
    from reasoning_ext.think.tokenizer import DEFAULT_TEMPLATE

    template = str(found.tokenizer.chat_template)
    if template == DEFAULT_TEMPLATE:
        text = "left out, and the tokenizer has no chat template: turns are written, and saved, as User: and Assistant:"
        checked.note("chat_template_path", text, code="no_template")
    if found.contract.closed:
        switch = "enable_thinking" in template
        key, mend = "chat_template_path", "name another template"
        key, mend = ("chat_template_kwargs", "write {enable_thinking: true}") if switch else (key, mend)
        text = f"the generation prompt closes an empty thought, so that the model answers without thinking; {mend}"
        checked.note(key, text, level="warning", code="closed_thought")


def _read_rows(checked: Checked, found: Inspection, hub: bool, whole: bool) -> None:
    from reasoning_ext.data.contamination import evaluation_questions
    from reasoning_ext.think.render import count_tokens

    recipe, evaluated = checked.recipe, checked.recipe.stage == "eval"
    count = partial(count_tokens, found.tokenizer) if found.tokenizer is not None else None
    options = row_options(recipe) if hub else _without_hub(row_options(recipe), checked)
    found.prepared = prepare(options, TEST if evaluated else TRAIN, count, checked.specs, None if whole else SAMPLE)
    if not whole and hub and not evaluated:
        evaluation_questions(options)
    rows, names = found.prepared.rows, columns_of(found.prepared.rows)
    audits = parse_audits(checked.recipe.values.get("audit"), checked.recipe.folder, [])
    check_columns(names, stage_columns(options, checked.specs) | needed_columns(audits))
    checked.facts |= {"columns": names, "rows": getattr(rows, "num_rows", None), "steps": found.prepared.steps}
    for step in found.prepared.steps:
        if step["step"] == "trace_filters.correct" and step.get("no_gold"):
            text = f"correct: {step['no_gold']} of {step['rows'] + step['dropped']} rows have no gold, and were kept unchecked"
            checked.note("trace_filters", text, level="warning", code="no_gold")
    found.numbers, found.rows = _sample(rows)
    found.tool_turns = recipe.stage in FROM_DATA and need_tool_turns(rows)
    if whole and hasattr(rows, "num_rows") and recipe.get("deduplicate") == "none":
        _count_duplicates(checked, rows)


def _read_held_out(checked: Checked, whole: bool) -> None:
    """Read the first held-out rows of a training that is evaluated as it goes, and see that they can be judged."""
    recipe = checked.recipe
    if not evaluates(recipe):
        return
    asked = eval_problems(recipe)
    held = read_rows(row_options(recipe), TEST, asked.n if asked and whole else CHECKED_ROWS)
    if asked and whole and hasattr(held, "num_rows") and held.num_rows < asked.n:
        text = f"found {asked.n}, but {held.num_rows} rows are held out"
        checked.note("eval_problems", text, level="warning", code="few_held_out")
    if asked:
        check_columns(columns_of(held), {"prompt": "eval_problems"} | needed_columns([judge(recipe, checked.specs)]))


def _without_hub(options: RowOptions, checked: Checked) -> RowOptions:
    """Leave out the evaluation sets that only the hub has."""
    named = [(e.get("dataset_name") if isinstance(e, dict) else e, e) for e in options.decontaminate]
    left_out = [name for name, _ in named if isinstance(name, str) and is_hub_name(options.local(name))]
    if left_out:
        checked.note("decontaminate", f"{', '.join(left_out)} on the hub, not compared with offline", code="hub")
    return replace(options, decontaminate=[entry for name, entry in named if name not in left_out])


def _sample(rows: Any) -> tuple[list[int], list[dict[str, Any]]]:
    """Take rows evenly from the whole data set, and those with the most letters; of a stream the first ones."""
    if not hasattr(rows, "num_rows"):
        taken = list(rows.take(STREAMED))
        return list(range(len(taken))), taken
    step = max(1, -(-rows.num_rows // SAMPLE))
    chosen = set(range(0, rows.num_rows, step))
    if step > 1:
        names = [name for name in ("prompt", "completion", *SIDES) if name in rows.column_names]
        tables = rows.select_columns(names).with_format("arrow").iter(1000)
        letters = [table.slice(i, 1).nbytes for table in tables for i in range(table.num_rows)]
        chosen |= {*sorted(range(rows.num_rows), key=letters.__getitem__)[-LONGEST:]}
    return sorted(chosen), list(rows.select(sorted(chosen)))


def _count_duplicates(checked: Checked, rows: Any) -> None:
    """Note how many rows repeat an earlier one, where the recipe does not ask for them to be dropped."""
    from reasoning_ext.data.duplicates import deduplicate

    by = "row" if checked.recipe.stage in FROM_DATA else "prompt"
    rows = rows.select(range(min(COMPARED, rows.num_rows)))
    checked.facts["duplicates"] = repeated = len(deduplicate(rows, "exact", by=by)[1])
    if repeated:
        text = f"left out: {repeated} of {rows.num_rows} rows repeat an earlier {by}; write exact to drop them"
        evaluated = checked.recipe.stage == "eval"  # whose intervals are those of problems that differ
        checked.note("deduplicate", text, level="warning" if evaluated else "note", code="repeated_rows")
