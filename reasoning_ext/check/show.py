"""`reasoning-ext check`: what `check` finds, as one screen a recipe or as one JSON document.

`--json` prints one document, also where there are errors:

    {"ok": whether there is no error,
     "errors": [what could not be read as a recipe, a line each],
     "recipes": [{"recipe": path, "stage": stage, "ok": ..., "unread": why no row was read, or "",
                  "findings": [{"code": see docs/problems.md, "level": "error" | "warning" | "note",
                                "key": the recipe's key or "", "line": number or null,
                                "text": what was found and what to change}],
                  "facts": {"columns", "rows", "steps", "duplicates", "mean_length", "trained_share", "fitting_share",
                            "context", "lengths", "think_contract", "in_training_data": each where it is known,
                            "batch": see `cost.batch_facts`, "golds": text, "rewards": {completion: {reward: value}},
                            "code": {what: file or model} of the Python that it names,
                            "memory": see `memory.check.MemoryReport.as_dict`, sizes in bytes}}]}
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from typing import TYPE_CHECKING, Any

from reasoning_ext.check import beside, check, trial
from reasoning_ext.check.cost import batch_line
from reasoning_ext.check.keys import Checked
from reasoning_ext.check.memory.check import MemoryOptions
from reasoning_ext.check.named_inputs import code_line, shown_path
from reasoning_ext.check.rows import Inspection
from reasoning_ext.errors import Problem, UserError, print_error
from reasoning_ext.recipe.keys import FROM_DATA
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.scoring.spec import reward_weights
from reasoning_ext.shown import print, visible

if TYPE_CHECKING:
    from reasoning_ext.think.template import Contract

LEVELS = ("error", "warning", "note")
BARS = "▁▂▃▄▅▆▇█"
ROW_LIMIT = 400  # characters of each part of a row, where rows are not asked for with --show


def check_and_print(
    recipes: list[Recipe], wrong: list[Problem], offline: bool, show: int, as_json: bool,
    options: MemoryOptions | None = None,
) -> int:  # fmt: skip
    """Check recipes one after another and print what each will do.

    Args:
        recipes: the recipes; those beside them in their folder count as run before, if their number is lower.
        wrong: what was wrong with them when they were read.
        offline: the hub is not asked.
        show: print so many rows as they come out.
        as_json: print one JSON document and nothing else.
        options: how the memory is planned; None: against the card that is found.

    Returns:
        2 where an error was found, else 0.
    """
    if not as_json and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no such letters gets question marks
    found, announced = list[Checked](), set[int]()

    def announce(checked: Checked) -> None:
        announced.add(id(checked))
        _print_head(checked)

    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        tell = None if as_json else announce
        for checked in check(recipes, False, offline, beside, tell, options, wrong):
            found.append(checked)
            if not as_json:
                print_checked(checked, show, headed=id(checked) in announced)
    lost = [problem for problem in wrong if problem.file not in {str(recipe.path) for recipe in recipes}]
    ok = not lost and not any(checked.errors for checked in found)
    if as_json:
        whole = {"ok": ok, "errors": [str(problem) for problem in lost], "recipes": [*map(document, found)]}
        print(json.dumps(_plain(whole), indent=1, default=str))
    for problem in () if as_json else lost:
        print_error(problem)
    return 0 if ok else 2


def document(checked: Checked) -> dict[str, Any]:
    """Return what was found of a recipe for `check --json`; the module's text says what there is."""
    found, recipe = checked.inspection, checked.recipe
    facts = {"batch": {}, "golds": "", "rewards": {}, **checked.facts, "code": checked.code}
    if found and found.lengths:
        facts["lengths"] = length_facts(found.lengths)
    if found and found.contract:
        facts["think_contract"] = vars(found.contract)
    if checked.memory:
        facts["memory"] = checked.memory.as_dict()
    return {
        "recipe": str(recipe.path),
        "stage": recipe.stage,
        "ok": not checked.errors,
        "unread": checked.unread,
        "findings": [problem.as_dict() for problem in _ordered(checked)],
        "facts": facts,
    }


def _ordered(checked: Checked) -> list[Problem]:
    """Return the problems, errors first; beside errors no notes, which would hide them."""
    kept = [problem for problem in checked.problems if problem.level != "note" or not checked.errors]
    return sorted(kept, key=lambda problem: LEVELS.index(problem.level))


def _print_head(checked: Checked) -> None:
    print(f"{checked.recipe.path}: stage {checked.recipe.stage}, backend {checked.recipe.get('backend')}")
    if checked.code and not checked.errors:
        print(f"  {code_line(checked.code)}", flush=True)


def print_checked(checked: Checked, show: int, headed: bool) -> None:
    """Print a check on one screen; errors go to standard error, a line each.

    Args:
        checked: the check.
        show: print so many rows whole; 0: one row, shortened.
        headed: its first line stands there already.
    """
    told = [problem for problem in _ordered(checked) if problem.level != "error"]
    if not headed and (checked.inspection is not None or told):
        _print_head(checked)
    if checked.inspection is not None:
        _print_body(checked, checked.inspection, show)
    for problem in told:
        print(f"  {problem.level}: {problem.key + ': ' if problem.key else ''}{problem.text}")
    if not checked.errors:
        print("  ok")
    sys.stdout.flush()
    for problem in checked.errors:
        print_error(problem if problem.file else f"{checked.recipe.path}: {problem}")


def _print_body(checked: Checked, found: Inspection, show: int) -> None:
    """Print what a recipe will do, on one screen."""
    recipe, facts = checked.recipe, checked.facts
    if checked.specs:
        weights = reward_weights(recipe.values.get("reward_weights"), checked.specs)
        shown = [f"{s.name} x {w:g} ({_place(s.plugin)})" for s, w in zip(checked.specs, weights, strict=True)]
        print("  rewards: " + ", ".join(shown))
    if checked.unread:
        print(f"  data: {checked.unread}")
    for line in found.prepared.lines():
        print(f"  data: {line}")
    if facts.get("columns"):
        print(f"  columns: {', '.join(facts['columns'])}")
    if found.contract is not None:
        print(f"  thoughts: {describe(found.contract, recipe.stage)}")
    if found.lengths:
        print(f"  {length_line(recipe, found)}")
    print_rows(recipe, found, max(1, show), full=show > 0)
    if facts.get("golds"):
        print(f"  golds: {facts['golds']}")
    if facts.get("rewards"):
        print("  rewards tried with made-up completions, means over the rows:")
        trial.print_table(facts["rewards"])
    if line := batch_line(facts.get("batch", {})):
        print(f"  batch: {line}")
    if checked.cost:
        print(f"  {checked.cost}")
    for line in checked.memory.lines() if checked.memory else ():
        print(f"  {line}")


def _place(plugin: Any) -> str:
    """Return where a reward comes from, as short as it can be."""
    return plugin.module or shown_path(plugin.file)


def describe(contract: Contract, stage: str) -> str:
    """Say in one line what a chat template does with thoughts and what ends a turn."""
    opened = contract.open.strip()
    begin = (
        f"the prompt opens {opened}" if contract.prefix
        else "the prompt closes an empty thought" if contract.closed
        else f"the model opens {opened} itself"
    )  # fmt: skip
    fate = {"refused": "the template refuses thoughts of earlier turns"}
    parts = [
        begin, f"{contract.end!r} ends a turn", fate.get(contract.history, f"thoughts of earlier turns are {contract.history}"),
    ]  # fmt: skip
    if stage in FROM_DATA and (contract.target != "kept" or contract.adds_empty):
        does = "add an empty thought" if contract.target == "kept" else "lose the thought"
        parts.append(f"the template would {does} in what is trained on, so only prompts are rendered by it")
    return "; ".join(parts)


def length_facts(lengths: list[int]) -> dict[str, int]:
    """Return the shortest, the median, the 95th percentile and the longest."""
    ordered = sorted(lengths)
    at = [0, len(ordered) // 2, min(len(ordered) - 1, len(ordered) * 95 // 100), len(ordered) - 1]
    return dict(zip(("shortest", "median", "percentile_95", "longest"), (ordered[i] for i in at), strict=True))


def length_line(recipe: Recipe, found: Inspection) -> str:
    """Write lengths, and the limit that they are held against, as one line with a histogram."""
    named = {"sft": ("rows", "max_length"), "dpo": ("pairs, of each the longer side", "max_length")}
    what, key = named.get(recipe.stage, ("prompts", "max_prompt_length"))
    shown = {name.replace("percentile_95", "95 %"): n for name, n in length_facts(found.lengths).items()}
    facts = ", ".join(f"{name} {value}" for name, value in shown.items())
    limit = recipe.get(key) if key in recipe.keys else None
    rows, measured = found.facts.get("rows"), len(found.lengths)
    of = f"{measured} of {rows}" if rows and rows > measured else str(measured)
    held = f", {key} {limit}" if limit else ""
    return f"tokens of {of} {what}: {facts}{held}  |{histogram(found.lengths)}|"


def histogram(lengths: list[int], bins: int = 24) -> str:
    """Draw lengths as one line of bars, from the shortest to the longest."""
    low, high = min(lengths), max(lengths)
    counts = [0] * bins
    for length in lengths:
        counts[min(bins - 1, (length - low) * bins // max(1, high - low))] += 1
    top = max(counts)
    return "".join(BARS[max(0, -(-count * (len(BARS) - 1) // top))] if count else " " for count in counts)


def print_rows(recipe: Recipe, found: Inspection, count: int, full: bool) -> None:
    """Print rows as the model will see them: the prompt, then what is trained on in colour, or the columns."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    limit = 10**6 if full else ROW_LIMIT
    for number, row in list(zip(found.numbers, found.rows, strict=True))[:count]:
        console.print(f"  row {number}:", markup=False)
        parts = _trained_parts(recipe, found, row) if recipe.stage in FROM_DATA and found.contract is not None else []
        for name, said, text, style in parts:
            console.print(Text(f"    {name} ({said}): ").append(_short(repr(text)[1:-1], limit), style=style))
        for name, value in row.items() if not parts else ():
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            console.print(visible(f"    {name}: {_short(shown, limit)}"), markup=False)


def _trained_parts(recipe: Recipe, found: Inspection, row: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return `(part, whether it is trained on, its text, its style)` of a row; none where it cannot be rendered."""
    from reasoning_ext.think.render import render_row

    if recipe.stage == "dpo":
        return _pair_parts(recipe, found, row)
    try:
        text = render_row(found.tokenizer, found.contract, row, recipe.get("chat_template_kwargs"))
    except ValueError:
        return []  # an error says so
    weights = {"prompt": 0, "thought": recipe.get("thought_weight"), "answer": recipe.get("answer_weight")}
    if recipe.get("train_on") == "answer":
        weights["thought"] = 0
    colours = {"thought": "green", "answer": "bold green"}
    parts = []
    for name, part in (("prompt", text.prompt), ("thought", text.thought), ("answer", text.answer)):
        weight = weights[name]
        said = "not trained on" if not weight else "trained on" + (f", weight {weight:g}" if weight != 1 else "")
        if part:
            parts.append((name, said, part, colours[name] if weight else "dim"))
    return parts


def _pair_parts(recipe: Recipe, found: Inspection, row: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the parts of a pair as it is trained on, decoded from its tokens."""
    from reasoning_ext.data.tokens import tokenize_pair
    from reasoning_ext.think.template import decode

    try:
        pair = tokenize_pair(found.tokenizer, found.contract, row, 0, recipe.get("chat_template_kwargs"))
    except UserError:
        return []  # an error says so
    parts = (
        ("prompt", "not trained on", pair.prompt_ids, "dim"),
        ("chosen", "made more likely", pair.chosen_ids, "bold green"),
        ("rejected", "made less likely", pair.rejected_ids, "red"),
    )
    return [(name, said, decode(found.tokenizer, ids), style) for name, said, ids, style in parts]


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} ... ({len(text)} characters)"


def _plain(value: Any) -> Any:
    """Return a value without what JSON does not have: numbers that are none become null."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
