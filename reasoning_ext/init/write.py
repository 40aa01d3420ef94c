"""Stages -> recipes as text, made of the packaged ones: chosen lines in their places, all others as they stand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from reasoning_ext.check.memory.check import Card, MemoryReport, report_memory
from reasoning_ext.check.memory.plan import GIB
from reasoning_ext.init.choose import Stage, written
from reasoning_ext.recipe.load import load_recipes
from reasoning_ext.recipe.packaged import packaged

KEY = re.compile(r"([a-z]\w*):")


def blocks(text: str) -> dict[str, str]:
    """Return the lines of each key of a recipe, comments included, without its header."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if match := KEY.match(line):
            found[key := match[1]] = line
        elif found:
            found[key] += f"\n{line}"
    return found


def text_of(stage: Stage, command: str, planned: str) -> str:
    """Write a recipe."""
    source = blocks(packaged(f"recipes/{stage.source}").read_text(encoding="utf-8"))
    added = {key: line for key, line in stage.lines.items() if key not in source}
    lines = (
        {key: text for key, text in source.items() if key != "output_dir"} | added | {"output_dir": ""} | stage.lines
    )
    head = [*stage.why, f"Command:  {command}", *([f"Planned:  {planned}"] if planned else [])]
    if "unsloth" in source["backend"]:
        head.append("Needs:    pip install 'reasoning-ext[unsloth]', or backend: trl, which is slower.")
    made = f"recipes/{stage.source}, by reasoning-ext init; see reasoning-ext list keys for what a key does."
    head.append(f"Made of:  {made}")
    return "".join(f"# {line}\n" for line in head) + "".join(f"{text}\n" for text in lines.values() if text)


def write(stages: list[Stage], folder: Path, command: str, card: Card | None, prompt: int) -> list[MemoryReport]:
    """Write the recipes into a folder, edited until the plan of their memory fits the card; return the plans.

    Args:
        command: what runs them, for their headers.
        card: None for a CPU, for which nothing is planned.
        prompt: tokens of the longest prompt.
    """
    _put(stages, folder, command, [""] * len(stages))
    if card is None:
        return []
    recipes = load_recipes([folder])
    reports = [report_memory(recipe, recipes[:i], card, True, prompt) for i, recipe in enumerate(recipes)]
    fitting = [_fitting(stage, report) for stage, report in zip(stages, reports, strict=True)]
    _put(fitting, folder, command, [_shown(report, card) for report in reports])
    return reports


def _put(stages: list[Stage], folder: Path, command: str, planned: list[str]) -> None:
    for stage, plan in zip(stages, planned, strict=True):
        (folder / f"{stage.name}.yaml").write_text(text_of(stage, command, plan), encoding="utf-8")


def _fitting(stage: Stage, report: MemoryReport) -> Stage:
    """Enter the edits that make a stage fit the card."""
    values: dict[str, Any] = {key: value for edit in report.edits for key, value in edit.values.items()}
    why = "  # so that it fits the card"
    return replace(stage, lines=stage.lines | {key: f"{key}: {written(value)}{why}" for key, value in values.items()})


def _shown(report: MemoryReport, card: Card) -> str:
    if report.plan is None:
        return f"not planned: {report.why}"
    plan = report.edits[-1].plan if report.edits else report.plan
    verdict = "" if plan.fits(card.memory) else "; that is more than it has: take a smaller model"
    return f"{plan.needed / GIB:.1f} GiB with what CUDA keeps for itself, of {card.name}{verdict}."
