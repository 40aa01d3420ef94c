"""The card of a sampling run's data sets, `README.md` as the hub reads it: what they are, of whom, and what was left out.

A licence is never guessed: it is what the recipe says, and beside it stands what the cards of the teacher and of the data say,
if they are on this machine.
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

from reasoning_ext.data.sources import KEPT_ROWS
from reasoning_ext.runs import markdown, traces
from reasoning_ext.runs.markdown import license_of, plain
from reasoning_ext.sample.outputs import Summary

STOPPED = (
    "\n\nPrompts were left alone once enough was accepted, so that the rates of those with few completions (`pass_rate_samples`) "
    "are too high; `min_generations` draws more of every prompt."
)
LOOKED_AT, LONGEST = 1_000, 600  # kept completions for an example, characters of a piece of it
WIDTH = 40  # characters of the histogram's longest bar


def write_dataset_card(folder: Path, recipe: dict[str, Any], found: Summary, steps: list[dict], adaptive: bool) -> None:
    """Write the card into a run's folder; `steps` say what became of the data set's rows, as `prepared.Prepared.steps`."""
    from huggingface_hub import DatasetCardData

    kept = [stage for stage in ("sft", "dpo", "grpo") if (folder / KEPT_ROWS[stage]).stat().st_size]
    header = DatasetCardData(
        license=recipe.get("license") or "unknown",
        task_categories=["text-generation"],
        tags=["reasoning-ext", "rejection-sampling", "synthetic"],
        configs=[{"config_name": stage, "data_files": KEPT_ROWS[stage]} for stage in kept],
    )
    pairs = ", ".join(f"{count} {kind}" for kind, count in found.pairs.items()) or "none"
    parts = [
        f"# {plain(folder.resolve().name)}",
        f"Completions of {plain(recipe.get('model_name_or_path'))}, sampled, verified and selected by reasoning-ext.",
        "## Counts\n\n" + _counts(found, steps),
        "## Pass rates\n\n" + _histogram(found.pass_rates) + STOPPED * adaptive,
        f"## Files\n\n- `{KEPT_ROWS['sft']}`: {found.kept} kept completions, thoughts in `<think>` tags, for supervised "
        "training\n"
        f"- `{KEPT_ROWS['dpo']}`: preference pairs ({pairs}), for DPO\n"
        f"- `{KEPT_ROWS['grpo']}`: {found.prompts} prompts with their pass rates, for GRPO on the right difficulty",
        *_example(folder),
        "## Licences\n\n" + _licences(recipe),
        "## Recipe\n\n" + markdown.recipe_block(recipe),
    ]
    markdown.write_card(folder, header, parts)


def _counts(found: Summary, steps: list[dict]) -> str:
    """Write what every filter left out, from the data set's rows to the kept completions."""
    lines = [["filter", "left", "dropped"]]
    lines += [[plain(step["step"]), f"{step['rows']} prompts", str(step.get("dropped") or 0)] for step in steps]
    left, dropped = found.sampled, [("sampled", 0)]
    dropped += [(name, getattr(found, name)) for name in ("failed", "cut_off", "other_ends", "unjudged", "forced")]
    dropped = [dropped[0], *((name, count) for name, count in dropped if count)]
    judged = found.sampled - sum(count for _, count in dropped)
    dropped += [("not accepted", judged - found.accepted), ("not selected", found.accepted - found.kept)]
    for name, count in dropped:
        left -= count
        lines.append([name.replace("_", " "), f"{left} completions", str(count)])
    without = f"{found.prompts_without_one} of {found.prompts} prompts have no accepted completion"
    bands = ", ".join(f"{count} {name}" for name, count in found.difficulty.items())
    tokens = ", ".join(f"{name} {count}" for name, count in found.tokens_of_the_kept.items())
    if found.agreement:
        without += "; where there is no gold, accepted and right is what agrees with most completions of the prompt"
    return f"{markdown.table(lines)}\n\n{without}; by difficulty: {bands}.\n\nTokens of the kept completions: {tokens or 'none'}."


def _example(folder: Path) -> list[str]:
    """Return the first kept completion that called a tool, as a section; nothing where there is none among the first ones."""
    with (folder / KEPT_ROWS["sft"]).open(encoding="utf-8") as file:
        kept = (json.loads(line)["completion"] for line in islice(file, LOOKED_AT))
        found = next((turns for turns in kept if len(turns) > 1), None)
    if found is None:
        return []
    told = "Some completions called tools: they are whole conversations, in which tools answered what stands behind ←."
    return [f"## An example with tools\n\n{told}\n\n" + markdown.code_block(traces.lines(found, LONGEST))]


def _histogram(counts: list[int]) -> str:
    bars = []
    for i, count in enumerate(counts):
        edge = f"{100 * i // len(counts):3d} to {100 * (i + 1) // len(counts):3d} %"
        bars.append(f"{edge}  {'#' * round(WIDTH * count / (max(counts) or 1)):<{WIDTH}}  {count}")
    return "Prompts by the share of their completions that are right:\n\n```\n" + "\n".join(bars) + "\n```"


def _licences(recipe: dict[str, Any]) -> str:
    """Say what is known: of this data set by the recipe, of teacher and data by their own cards."""
    teacher = str(recipe.get("model_name_or_path"))
    entries = [entry for entry in recipe.get("datasets") or [] if isinstance(entry, dict)]
    names = [recipe.get("dataset_name"), *(entry.get("dataset_name") for entry in entries)]
    lines = [
        f"- these files: {plain(recipe.get('license') or 'unknown; set license in the recipe')}",
        f"- the teacher {plain(teacher)}: {plain(license_of(teacher))}; see whether it lets others be trained on its outputs",
        *(f"- the data {plain(name)}: {plain(license_of(str(name), 'dataset'))}" for name in names if name),
    ]
    return "\n".join(lines)
