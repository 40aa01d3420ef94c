"""The card of an export: that of its run, what was exported, and how it was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reasoning_ext.runs import markdown
from reasoning_ext.runs.card import sources_of, write_card
from reasoning_ext.runs.markdown import plain
from reasoning_ext.runs.read import Run, cell, columns, in_training, key_of, read_run

if TYPE_CHECKING:
    from reasoning_ext.export.merge import Source


def write_export_card(folder: Path, source: Source, to: str, comparison: str | None, date: str) -> None:
    """Write the `README.md` of an export in a folder; `comparison`: its figures in one line, None where nothing was compared."""
    run = read_run(source.path)
    kind = "A LoRA adapter for" if to == "adapter" else "Weights in 16 bits, trained from"
    of = plain(source.base) if source.base else "random weights"
    made = f"{kind} {of}: stage {plain(run.stage)} of reasoning-ext, exported {date}."
    if source.named:
        made += f" That base was given by hand; the run was trained on {plain(source.named)}."
    compared = f"Compared with the trained model before it was done: {plain(comparison)}."
    compared = compared if comparison else "The adapter's files as they were trained."
    write_card(folder, run, to, source.base, [made, f"## Evaluation\n\n{_evaluation(run)}", f"## Export\n\n{compared}"])


def _evaluation(run: Run) -> str:
    """Return the tables of the `eval` runs beside this one that name it."""
    tables = []
    for folder in sorted(run.path.resolve().parent.iterdir()):
        if (folder / "eval.json").is_file():
            found = read_run(folder)
            named = [label for label, name in found.models.items() if _is_run(name, run) and label in found.results]
            tables += [_table(found, named)] if named else []
    return "\n\n".join(tables) or "Not evaluated: no finished `eval` run beside this one names it."


def _is_run(name: str, run: Run) -> bool:
    own = key_of(run.recipe.get("output_dir", "./"))
    return Path(name).resolve() == run.path.resolve() or (own != "" and key_of(name) == own)


def _table(run: Run, named: list[str]) -> str:
    """Write a table of models by figures; shares in per cent with their 95 % interval."""
    data, said = ", ".join(map(plain, sources_of(run.recipe)[-1:])), in_training(run.results)
    title = f"{plain(run.name)}, on {data}; shares in per cent with 95 % intervals; this model in bold"
    rows = [["model", *map(plain, columns(run.results))]]
    for label, figures in run.results.items():
        shown = f"**{plain(label)}**" if label in named else plain(label)
        rows.append([shown, *(plain(cell(figures.get(name))) for name in columns(run.results))])
    return f"{title}{f'; {plain(said)}' if said else ''}:\n\n{markdown.table(rows)}"
