"""A model's figures where users see them: a table on the terminal, and trackers."""

from collections.abc import Iterable
from typing import Any

from reasoning_ext.runs.read import columns, in_training, problems_of
from reasoning_ext.runs.tracking import Tracking, numbers
from reasoning_ext.runs.values import cell
from reasoning_ext.shown import print_rows


def print_table(results: dict[str, dict[str, Any]]) -> None:
    """Print the models as rows and the figures as columns; shares in per cent with their 95 % interval."""
    names, said = columns(results), in_training(results)
    title = f"{problems_of(results)}, 95 % intervals" + (f"; {said}" if said else "")
    rows = [(label, *[cell(figures.get(name)) for name in names]) for label, figures in results.items()]
    print_rows(title, ["model", *names], rows)


def log_model(tracking: Tracking, label: str, figures: dict[str, Any], lines: Iterable[dict[str, Any]] = ()) -> None:
    """Log a model's figures and some of its completions; those of a checkpoint as a curve over its run's steps."""
    name, _, last = f" {label}".rpartition(" checkpoint-")
    name, step = (name.strip() or "checkpoints", int(last)) if last.isdecimal() else (label, 0)
    tracking.log(numbers(name, figures), step)
    tracking.table(f"completions/{name}", (line for line in lines if line["model"] == label), step)
