"""The card of an export: that of its run, what was exported, and how it was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext.runs.card import write_model_card
from reasoning_ext.runs.read import Run, columns, in_training, key_of, read_run

if TYPE_CHECKING:
    from reasoning_ext.export.merge import Source


def write_export_card(folder: Path, source: Source, to: str, comparison: str | None, date: str) -> None:
    """Write the `README.md` of an export; `comparison`: its figures in one line, None where nothing was compared."""
    run = read_run(source.path)
    export = {"base": source.base, "named": source.named, "date": date, "comparison": comparison}
    write_model_card(folder, run, to == "adapter", export | {"evaluations": _evaluations(run)})


def _evaluations(run: Run) -> list[tuple[Any, ...]]:
    """Return the `eval` runs beside a run that name it, their labels for it, their figures, what was trained on."""
    own, found = key_of(run.recipe.get("output_dir", "./")), []
    for folder in sorted(run.path.resolve().parent.iterdir()):
        evaluation = read_run(folder) if (folder / "eval.json").is_file() else Run(folder)
        names = {label: name for label, name in evaluation.models.items() if label in evaluation.results}
        same = [
            label
            for label, name in names.items()
            if Path(name).resolve() == run.path.resolve() or own == key_of(name) != ""
        ]
        if same:
            found.append((evaluation, same, columns(evaluation.results), in_training(evaluation.results)))
    return found
