"""`reasoning-ext report`: the page of some runs with what their thoughts are like, once or as they go on."""

from functools import cache
from pathlib import Path
from typing import Any

from reasoning_ext.evaluate.over_steps import PERIODS, over_steps
from reasoning_ext.evaluate.thoughts import labels
from reasoning_ext.runs.browser import no_labels
from reasoning_ext.runs.report import save_curves, write_report
from reasoning_ext.runs.watch import watch_runs
from reasoning_ext.shown import print


def report_and_print(runs: list[Path], output: Path | None, curves: Path | None, every: int | None) -> None:
    """Write the report of runs and say where, or the curves of the first as a PNG file.

    Args:
        runs: run folders, or folders of them; one without a run is a `UserError`.
        output: the HTML file; None is `report.html` there.
        curves: a PNG file to write in its place.
        every: seconds between two looks at runs that go on; None writes the page once.
    """

    def write(refresh: float | None) -> None:
        if refresh is None:
            print(write_report(runs, output, over_steps, labels))
        else:  # labels take seconds for thousands of completions, and so do the thoughts of all steps
            print(write_report(runs, output, seen, no_labels, refresh))

    def seen(run: Path) -> dict[str, Any]:
        return grown(run, len([*run.glob("completions/*.parquet")]) // PERIODS)

    @cache
    def grown(run: Path, tables: int) -> dict[str, Any]:
        return over_steps(run)

    if curves is not None:
        save_curves(runs[0], curves)
    elif every is not None:
        watch_runs(runs, every, write)
    else:
        write(None)
