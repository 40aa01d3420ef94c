"""`reasoning-ext report`: run folders -> one HTML file that opens offline, and asks for nothing.

What models and data sets wrote is hostile until escaped: the template escapes everything but our own pictures, keeps
names that are read from the right to themselves, and shows characters that would turn the words beside them about by
their numbers. The one script is ours, named by its hash, and reads samples as data. A run that was cut off, or whose
files are damaged, is reported as far as it can be read and marked `not finished`.
"""

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from reasoning_ext.errors import UserError
from reasoning_ext.runs import browser, figures, read, traces, tradeoff
from reasoning_ext.runs.arms import arms
from reasoning_ext.runs.causes import causes_of
from reasoning_ext.runs.drawing import Line, draw, number
from reasoning_ext.runs.examples import compared_problems
from reasoning_ext.runs.explanations import OVER_STEPS, explanations_of
from reasoning_ext.runs.files import write_whole
from reasoning_ext.runs.folder import METRICS, damage, seed_runs
from reasoning_ext.runs.guards import forgotten
from reasoning_ext.runs.next_steps import health_of, healths_by_recipe, next_steps
from reasoning_ext.runs.outcomes import PLAIN, best_checkpoints, outcomes
from reasoning_ext.runs.paired import p_text
from reasoning_ext.runs.panels import Panel, stage_of
from reasoning_ext.runs.published import published
from reasoning_ext.runs.shares import distributions
from reasoning_ext.runs.texts import split_text, text
from reasoning_ext.runs.values import is_interval
from reasoning_ext.runs.verdicts import learnt, verdicts
from reasoning_ext.shown import visible

PAGE = "report.html"
TEMPLATES = Path(__file__).parent / "templates"


def write_report(
    runs: list[Path],
    output: Path | None,
    thoughts: Callable[[Path], dict[str, Any]] = lambda run: {},
    labels: browser.Label = browser.no_labels,
    refresh: float | None = None,
) -> str:
    """Write the report of run folders, or folders of these, and return a line that names the file.

    Args:
        runs: the folders; one without a run is a `UserError`.
        output: the HTML file; None is `report.html` in the given folder.
        thoughts: says of a run's folder what the thoughts in its training were like, `{steps: figures}`.
        labels: tells of completions what is true of each, as `browser.data` has it.
        refresh: seconds after which an open page loads itself again; None for never.
    """
    found = [read.read_run(path) for path in read.find_runs(runs)]
    counts = Counter(run.name for run in found)
    for run in found:
        run.called = "/".join(run.path.resolve().parts[-2:]) if counts[run.path.resolve().name] > 1 else ""
        run.thoughts = thoughts(run.path)
    common = runs[0] if len(runs) == 1 else Path(os.path.commonpath([path.resolve() for path in runs]))
    target = output or common / PAGE
    target = target / PAGE if target.is_dir() else target
    write_whole(target, render(found, labels, refresh))
    return f"report  {target}  ({len(found)} run{'s' * (len(found) != 1)})"


def save_curves(run: Path, output: Path) -> None:
    """Write one PNG for a README: of a GRPO run its curves, of an evaluation accuracy against tokens."""
    if seed_runs(run):
        raise UserError(f"save_curves: {damage(run, str(run))}")
    found = read.read_run(run)
    if found.stage == "eval":
        if not tradeoff.save_tradeoff_png(found.results, output):
            what = f"found neither strategies nor thinking_curve in {run / read.RESULT_FILES['eval']}"
            raise UserError(f"save_curves: {what}, allowed: the folder of an evaluation with one of them")
    elif not figures.save_grpo_png(found.metrics, output):
        raise UserError(f"save_curves: found no reward in {run / METRICS}, allowed: the folder of a GRPO run")


def render(runs: list[read.Run], labels: browser.Label = browser.no_labels, refresh: float | None = None) -> str:
    """Make the page of some runs that have been read."""
    return page(
        PAGE,
        ("report.css", "browser.css"),
        ("browser.js",),
        runs=runs,
        refresh=refresh,
        browser=browser.data(runs, labels),
        guards=[(run, found) for run in runs if (found := forgotten(run.path))],
        general=[(run, found) for run in runs if (found := read.group(run.results, "general"))],
        seconds=sum(run.seconds or 0 for run in runs),
        **_verdict(runs),
        **_evaluations(runs),
        **_samples(runs),
    )


def page(template: str, styles: tuple[str, ...], scripts: tuple[str, ...] = (), **values: Any) -> str:
    """Return a page of our templates, under a policy that lets nothing run or load but our own styles and scripts.

    A template has `style`, `script` and `policy` beside the values, and everything in it is escaped.
    """
    style, script = _own(styles), _own(scripts)
    allowed = f"default-src 'none'; style-src {_hashed(style)}; script-src {_hashed(script)}"
    own = {"style": Markup(style), "script": Markup(script), "policy": allowed}
    return visible(_environment().get_template(template).render(**values, **own))


def _own(names: tuple[str, ...]) -> str:
    """Return the text of our own files, as it stands in the page."""
    return visible("\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names))


def _hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    reads = (read.problems_of, read.columns, read.key_of, read.group, read.strategy_rows, tradeoff.curve_rows)
    for shows in (number, split_text, text, p_text, *reads):
        environment.filters[shows.__name__] = shows
    environment.filters |= {"best": _best, "as_json": browser.as_json}
    environment.filters["pieces"] = lambda row: traces.parts(traces.turns_of(row))
    environment.filters["duration"] = lambda seconds: timedelta(seconds=round(seconds))
    environment.tests["interval"] = is_interval
    return environment


def _verdict(runs: list[read.Run]) -> dict[str, Any]:
    """Return what the top of the page says, and the trainings that it says it of."""
    ways = [(run, read.key_of(run.recipe.get("output_dir", "./"))) for run in runs]
    made = {key: run for run, own in ways for key in (own, str(run.path.resolve())) if key}
    recipes = arms(runs, made)
    told = [row | {"name": arm.label} for arm in recipes.pop("eval", []) for row in verdicts(arm.runs, made)]
    measured = [found for group in recipes.values() for arm in group if (found := learnt(arm.label, arm.runs))]
    alone = [found for run in runs if (found := learnt(run.name, [run]))]
    healths = {run: health for run in runs if (health := health_of(run))}
    stages = [stage_of(name, group, healths) for name, group in recipes.items()]
    return {
        "made": made,
        "verdicts": told,
        "measured": measured,
        "healths": healths_by_recipe([arm for group in recipes.values() for arm in group], healths),
        "next_steps": next_steps(runs, healths.values(), told, alone),
        "stages": stages,
    }


def _evaluations(runs: list[read.Run]) -> dict[str, Any]:
    figures_of = {f"{i} {label}": row for i, run in enumerate(runs) for label, row in run.results.items()}
    evals = [
        (
            run,
            read.in_training(run.results),
            _checkpoints(f"checkpoints-{i}", run.results),
            pictures(run.results),
            published(run.recipe),
        )
        for i, run in enumerate(runs, 1)
        if run.results
    ]
    return {"evals": evals, "problems": read.problems_of(figures_of)}


def _samples(runs: list[read.Run]) -> dict[str, Any]:
    return {
        "explained": [
            (run, told, _checkpoints(f"explained-{i}", told, OVER_STEPS))
            for i, run in enumerate(runs, 1)
            if (told := explanations_of(run.path))
        ],
        "errors": [(run, causes) for run in runs if (causes := causes_of(run.path))],
        "compared": [(run, found) for run in runs if (found := compared_problems(run.answers))],
        "distributions": [(run, drawn) for run in runs if (drawn := distributions(run))],
    }


def _checkpoints(
    name: str, results: dict[str, dict[str, Any]], names: tuple[str, ...] = figures.OVER_CHECKPOINTS
) -> list[Panel]:
    """Draw the figures of checkpoints over their steps, in panels of that name."""
    curves = figures.checkpoint_curves(results, names)
    return [
        Panel(f"{name}-{i}", curve.key, curve.title, draw([Line(curve.title, 0, [curve])]))
        for i, curve in enumerate(curves, 1)
    ]


def pictures(results: tradeoff.Results) -> list[tuple[str, dict[str, Any], dict[str, str]]]:
    """Return the drawings of accuracy against tokens of an evaluation, each with its title and the signs in it."""
    models = tradeoff.tradeoffs(results)
    curves = {label: tradeoff.Drawn(drawn.curve, []) for label, drawn in models.items() if drawn.curve}
    ways = {label: tradeoff.Drawn([], drawn.ways) for label, drawn in models.items() if drawn.ways}
    titled = {"Accuracy where the thought is cut short": curves, "Accuracy of ways to answer": ways}
    return [(title, tradeoff.draw(shown), tradeoff.signs_of(shown)) for title, shown in titled.items() if shown]


def _best(answers: list[dict[str, Any]]) -> list[str]:
    return best_checkpoints({model: [of] for model, of in outcomes(PLAIN[0], answers).items()}, PLAIN[0])
