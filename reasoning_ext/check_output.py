"""A check as one screen of text: what the recipe will do, one row as it is trained on, then what was found."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from reasoning_ext import dry_run
from reasoning_ext.batches import batch_line
from reasoning_ext.inspection import Inspection
from reasoning_ext.named_inputs import shown_path
from reasoning_ext.own_keys import FROM_DATA
from reasoning_ext.preflight import reward_weights
from reasoning_ext.recipe import Recipe
from reasoning_ext.shown import print, visible

if TYPE_CHECKING:
    from reasoning_ext.check import Result
    from reasoning_ext.contract import Contract

BARS = "▁▂▃▄▅▆▇█"
ROW_LIMIT = 400  # characters of each part of a row, where rows are not asked for with --show


def print_body(result: Result, show: int) -> None:
    """Print what a recipe will do, on one screen.

    Args:
        result: a check.
        show: print so many rows whole; 0: one row, shortened.
    """
    recipe, found = result.recipe, result.inspection
    if result.specs:
        weights = reward_weights(recipe, result.specs)
        shown = [f"{s.name} x {w:g} ({_place(s.plugin)})" for s, w in zip(result.specs, weights, strict=True)]
        print("  rewards: " + ", ".join(shown))
    if result.unread:
        print(f"  data: {result.unread}")
    if found is not None:
        for line in found.prepared.lines():
            print(f"  data: {line}")
        if found.facts.get("columns"):
            print(f"  columns: {', '.join(found.facts['columns'])}")
        if found.contract is not None:
            print(f"  thoughts: {describe(found.contract, recipe.stage)}")
        if found.lengths:
            print(f"  {length_line(recipe, found)}")
        print_rows(recipe, found, max(1, show), full=show > 0)
    if result.golds:
        print(f"  golds: {result.golds}")
    if result.table:
        print("  rewards tried with made-up completions, means over the rows:")
        dry_run.print_table(result.table)
    if line := batch_line(result.batch):
        print(f"  batch: {line}")
    if result.cost:
        print(f"  {result.cost}")
    for line in result.memory.lines() if result.memory else ():
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
    from reasoning_ext.rendering import render_row

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
    from reasoning_ext.contract import decode
    from reasoning_ext.errors import KeyProblem
    from reasoning_ext.tokenized import tokenize_pair

    try:
        pair = tokenize_pair(found.tokenizer, found.contract, row, 0, recipe.get("chat_template_kwargs"))
    except KeyProblem:
        return []  # an error says so
    parts = (
        ("prompt", "not trained on", pair.prompt_ids, "dim"),
        ("chosen", "made more likely", pair.chosen_ids, "bold green"),
        ("rejected", "made less likely", pair.rejected_ids, "red"),
    )
    return [(name, said, decode(found.tokenizer, ids), style) for name, said, ids, style in parts]


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} ... ({len(text)} characters)"
