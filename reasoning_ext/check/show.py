"""`reasoning-ext check`: what `check` finds, as one screen a recipe or as one JSON document.

`--json` prints {"ok": ..., "errors": [what could not be read as a recipe, a line each], "recipes": [see `document`]}, also
where there are errors. Facts are "columns", "rows", "steps", "duplicates", "mean_length", "trained_share", "fitting_share",
"context", "lengths", "think_contract" and "in_training_data" where they are known; "batch" of `cost.batch_facts`, "golds" as a
text, "rewards" as {completion: {reward: value}}, "code" as {what: file or model}, "memory" in bytes, and "parity",
the figures of `train.parity`.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from itertools import groupby
from typing import TYPE_CHECKING, Any

from reasoning_ext.check import beside, check
from reasoning_ext.check.cost import batch_line
from reasoning_ext.check.keys import Checked
from reasoning_ext.check.memory.check import MemoryOptions
from reasoning_ext.check.named_inputs import code_line, shown_path
from reasoning_ext.check.parity import check_parity
from reasoning_ext.check.rows import Inspection
from reasoning_ext.errors import Problem, print_error
from reasoning_ext.recipe.keys import FROM_DATA
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.scoring.spec import reward_weights
from reasoning_ext.shown import print, visible
from reasoning_ext.tools.spec import template_kwargs

if TYPE_CHECKING:
    from reasoning_ext.think.template import Contract

LEVELS = ("error", "warning", "note")
ROW_LIMIT = 400  # characters of each part of a row, where rows are not asked for with --show


def check_and_print(
    recipes: list[Recipe],
    wrong: list[Problem],
    offline: bool,
    show: int,
    as_json: bool,
    options: MemoryOptions | None = None,
    parity: bool = False,
) -> int:
    """Check recipes one after another, print what each will do, and return 2 where an error was found, else 0.

    Args:
        recipes: the recipes; those beside them in their folder count as run before, if their number is lower.
        wrong: what was wrong with them when they were read.
        offline: the hub is not asked.
        show: print so many rows as they come out.
        as_json: print one JSON document and nothing else.
        options: how the memory is planned; None: against the card that is found.
        parity: load each recipe's model, and hold its engine against transformers.
    """
    if not as_json and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no such letters gets question marks
    found, headed = list[Checked](), set[int]()
    lost = [problem for problem in wrong if problem.file not in {str(recipe.path) for recipe in recipes}]

    def head(checked: Checked) -> None:
        headed.add(id(checked))
        print(f"{checked.recipe.path}: stage {checked.recipe.stage}, backend {checked.recipe.get('backend')}")
        if checked.code and not checked.errors:
            print(f"  {code_line(checked.code)}", flush=True)

    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        for checked in check(recipes, False, offline, beside, None if as_json else head, options, wrong):
            if parity:
                check_parity(checked, [*(one.recipe for one in found), *beside(checked.recipe)])
            found.append(checked)
            if as_json:
                continue
            if id(checked) not in headed and (checked.inspection or any(p.level != "error" for p in _ordered(checked))):
                head(checked)
            _print_checked(checked, show, all(problem.file for problem in lost))
    ok = not lost and not any(checked.errors for checked in found)
    if as_json:
        whole = {"ok": ok, "errors": [str(problem) for problem in lost], "recipes": [*map(document, found)]}
        print(json.dumps(_plain(whole), indent=1, default=str))
    for problem in () if as_json else lost:
        print_error(problem)
    return 0 if ok else 2


def document(checked: Checked) -> dict[str, Any]:
    """Return what was found of a recipe for `check --json`."""
    found, facts = checked.inspection, {"batch": {}, "golds": "", "rewards": {}, **checked.facts, "code": checked.code}
    if found and found.lengths:
        facts["lengths"] = length_facts(found.lengths)
    if found and found.contract:
        facts["think_contract"] = vars(found.contract)
    if checked.memory:
        facts["memory"] = checked.memory.as_dict()
    return {
        "recipe": str(checked.recipe.path),
        "stage": checked.recipe.stage,
        "ok": not checked.errors,
        "unread": checked.unread,
        "findings": [problem.as_dict() for problem in _ordered(checked)],
        "facts": facts,
    }


def _ordered(checked: Checked) -> list[Problem]:
    """Return the problems, errors first; beside errors no notes, which would hide them."""
    kept = [problem for problem in checked.problems if problem.level != "note" or not checked.errors]
    return sorted(kept, key=lambda problem: LEVELS.index(problem.level))


def _print_checked(checked: Checked, show: int, well: bool) -> None:
    """Print a check on one screen; errors go to standard error, a line each."""
    if checked.inspection is not None:
        _print_body(checked, checked.inspection, show)
    for problem in _ordered(checked):
        if problem.level != "error":
            print(f"  {problem.level}: {problem.key + ': ' if problem.key else ''}{problem.text}")
    if well and not checked.errors:
        print("  ok")
    sys.stdout.flush()
    for problem in checked.errors:
        print_error(problem if problem.file else f"{checked.recipe.path}: {problem}")


def _print_body(checked: Checked, found: Inspection, show: int) -> None:
    recipe, facts = checked.recipe, checked.facts
    weights = reward_weights(recipe.values.get("reward_weights"), checked.specs) if checked.specs else []
    places = [spec.plugin.module or shown_path(spec.plugin.file) for spec in checked.specs]
    shown = [f"{s.name} x {w:g} ({at})" for s, w, at in zip(checked.specs, weights, places, strict=True)]
    lines = {"rewards": ", ".join(shown), "data": checked.unread}
    for what, line in [*lines.items(), *(("data", line) for line in found.prepared.lines())]:
        if line:
            print(f"  {what}: {line}")
    if facts.get("columns"):
        print(f"  columns: {', '.join(facts['columns'])}")
    if found.contract is not None:
        print(f"  thoughts: {_describe(found.contract)}")
    if facts.get("tools"):
        from reasoning_ext.check.tools import tools_line

        print(f"  tools: {tools_line(recipe, facts)}")
    if found.lengths:
        print(f"  {_length_line(checked, found)}")
    _print_rows(recipe, found, show)
    if facts.get("golds"):
        print(f"  golds: {facts['golds']}")
    if facts.get("rewards"):
        print("  rewards tried with made-up completions, means over the rows:")
    for what, paid in facts.get("rewards", {}).items():
        said = (f"{name} {'-' if value is None else format(value, '.2g')}" for name, value in paid.items())
        print(f"    {what:30s} {'  '.join(said)}")
    batch = batch_line(facts.get("batch", {}))
    memory = checked.memory.lines() if checked.memory else []
    for line in filter(
        None,
        (f"batch: {batch}" if batch else "", checked.cost, *memory, checked.parity and f"parity: {checked.parity}"),
    ):
        print(f"  {line}")


def _describe(contract: Contract) -> str:
    """Say in one line what a chat template does with thoughts and what ends a turn."""
    opened = contract.open.strip()
    begin = f"the prompt opens {opened}" if contract.prefix else f"the model opens {opened} itself"
    begin = "the prompt closes an empty thought" if contract.closed else begin
    return f"{begin}; {contract.end!r} ends a turn; thoughts of earlier turns are {contract.history}"


def length_facts(lengths: list[int]) -> dict[str, int]:
    """Return the shortest, the median, the 95th percentile and the longest."""
    ordered = sorted(lengths)
    at = [0, len(ordered) // 2, min(len(ordered) - 1, len(ordered) * 95 // 100), len(ordered) - 1]
    return dict(zip(("shortest", "median", "percentile_95", "longest"), (ordered[i] for i in at), strict=True))


def _length_line(checked: Checked, found: Inspection) -> str:
    recipe = checked.recipe
    named = {"sft": ("rows", "max_length"), "dpo": ("pairs, of each the longer side", "max_length")}
    what, key = named.get(recipe.stage, ("prompts", "max_prompt_length"))
    facts = ", ".join(f"{name.replace('percentile_95', '95 %')} {n}" for name, n in length_facts(found.lengths).items())
    limit = recipe.get(key) if key in recipe.keys else None
    rows, measured = checked.facts.get("rows") or 0, len(found.lengths)
    of = f"{measured} of {rows}" if rows > measured else str(measured)
    return f"tokens of {of} {what}: {facts}" + (f", {key} {limit}" if limit else "")


def _print_rows(recipe: Recipe, found: Inspection, count: int) -> None:
    """Print so many rows whole as the model will see them, or one shortened; what is trained on is in colour."""
    from rich.console import Console
    from rich.text import Text

    console, limit = Console(highlight=False, soft_wrap=True), 10**6 if count else ROW_LIMIT
    for number, row in list(zip(found.numbers, found.rows, strict=True))[: max(1, count)]:
        console.print(f"  row {number}:", markup=False)
        parts = []
        if recipe.stage in FROM_DATA and found.contract is not None:
            with contextlib.suppress(ValueError):  # an error says that it cannot be rendered
                parts = _parts(recipe, found, row)
        for name, said, text, style in parts:
            console.print(Text(f"    {name} ({said}): ").append(_short(repr(text)[1:-1], limit), style=style))
        for name, value in row.items() if not parts else ():
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            console.print(visible(f"    {name}: {_short(shown, limit)}"), markup=False)


def _parts(recipe: Recipe, found: Inspection, row: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return `(part, what is done with it, its text, its style)` of a row, or of a pair as its tokens are decoded."""
    from reasoning_ext.data.tokens import render_conversation, tokenize_pair
    from reasoning_ext.think.template import decode

    kwargs, idle = template_kwargs(recipe), ("not trained on", "dim")
    if recipe.stage == "dpo":
        pair = tokenize_pair(found.tokenizer, found.contract, row, 0, kwargs)
        parts = [("prompt", idle[0], decode(found.tokenizer, pair.prompt_ids), idle[1])]
        for name, *how in (("chosen", "made more likely", "bold green"), ("rejected", "made less likely", "red")):
            ids = zip(getattr(pair, f"{name}_mask"), getattr(pair, f"{name}_ids"), strict=True)
            for counts, of in groupby(ids, lambda one: one[0]):
                what, (said, style) = (name, how) if counts else ("result", idle)
                parts.append((what, said, decode(found.tokenizer, [token for _, token in of]), style))
        return parts
    segments, given, _ = render_conversation(found.tokenizer, found.contract, row, kwargs)
    thought = 0 if recipe.get("train_on") == "answer" else recipe.get("thought_weight")
    weights, parts, turn = {"thought": thought, "answer": recipe.get("answer_weight")}, [], -1
    for name, text in [(part.kind, part.text) for part in segments if part.text]:
        turn += name not in weights  # which what is given begins
        weight = weights.get(name, 0) if turn >= given else 0
        said = f"trained on{f', weight {weight:g}' if weight != 1 else ''}"
        said, style = (said, "green" if name == "thought" else "bold green") if weight else idle
        parts.append((name, said, text, style))
    return parts


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} ... ({len(text)} characters)"


def _plain(value: Any) -> Any:
    """Return a value without what JSON does not have: numbers that are none become null."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
