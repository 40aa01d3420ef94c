"""`reasoning-ext report`: run folders -> one HTML file that opens offline, without scripts.

What models and data sets wrote is hostile until escaped: the template escapes everything but our own pictures, keeps names that
are read from the right to themselves, and shows characters that would turn the words beside them about by their numbers. A run
that was cut off, or whose files are damaged, is reported as far as it can be read and marked `not finished`.
"""

import os
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeGuard

import jinja2

from reasoning_ext import think
from reasoning_ext.errors import UserError
from reasoning_ext.runs import figures, read
from reasoning_ext.runs.files import write_whole
from reasoning_ext.runs.folder import METRICS
from reasoning_ext.shown import visible

PAGE = "report.html"
COMPARED = ("greedy", "pass@1")
LONGEST = 4000  # characters shown of one text
EXTREMES = 3  # samples of the highest and of the lowest reward
GROUPS = 4  # of compared problems


def write_report(runs: list[Path], output: Path | None) -> str:
    """Write the report of run folders, or folders of these, and return a line that names the file.

    Args:
        runs: the folders; one without a run is a `UserError`.
        output: the HTML file; None is `report.html` in the given folder.
    """
    found = [read.read_run(path) for path in read.find_runs(runs)]
    common = runs[0] if len(runs) == 1 else Path(os.path.commonpath([path.resolve() for path in runs]))
    target = output or common / PAGE
    target = target / PAGE if target.is_dir() else target
    write_whole(target, render(found))
    return f"report  {target}  ({len(found)} run{'s' * (len(found) != 1)})"


def save_curves(run: Path, output: Path) -> None:
    """Write a GRPO run's reward, accuracy, share of thoughts and mean length as one PNG, for a README."""
    if not figures.save_grpo_png(read.read_run(run).metrics, output):
        raise UserError(f"save_curves: found no reward in {run / METRICS}, allowed: the folder of a GRPO run")


def render(runs: list[read.Run]) -> str:
    """Make the page of some runs that have been read."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    for shows in (number, split_text, text, read.problems_of, read.columns, read.key_of):
        environment.filters[shows.__name__] = shows
    environment.filters["duration"] = lambda seconds: timedelta(seconds=round(seconds))
    environment.tests["interval"] = is_interval
    ways = [(run, read.key_of(run.recipe.get("output_dir", "./"))) for run in runs]
    made = {key: run for run, own in ways for key in (own, str(run.path.resolve())) if key}
    samples = [(run, extremes(run.samples, read.weights_of(run.recipe))) for run in runs]
    page = environment.get_template(PAGE).render(
        runs=runs,
        made=made,
        seconds=sum(run.seconds or 0 for run in runs),
        verdicts=[verdict for run in runs for verdict in verdicts(run, made)],
        trained=[(run, curves) for run in runs if (curves := figures.curves(run.stage, run.metrics))],
        evals=[(run, read.in_training(run.results)) for run in runs if run.results],
        problems=read.problems_of(
            {f"{i} {label}": row for i, run in enumerate(runs) for label, row in run.results.items()}
        ),
        compared=[(run, found) for run in runs if (found := compared_problems(run.answers))],
        samples=[(run, found) for run, found in samples if found],
    )
    return visible(page)


def verdicts(evaluation: read.Run, made: dict[str, read.Run]) -> list[dict[str, Any]]:
    """Say what training did: each evaluated model beside the evaluated one that it was trained from, if there is one.

    Returns:
        a dictionary a model: `label`, `before` (a label or None), `word`, what `compare` says, and `figures`, a
        list of `(name, interval before or None, interval after)`; comparisons come first, and a model that one of them
        begins with has no entry of its own.
    """
    models, results = evaluation.models, evaluation.results
    evaluated = {read.key_of(name): label for label, name in models.items() if label in results and read.key_of(name)}
    rows = []
    for label in results:
        name, before = read.key_of(models.get(label, "./")), None
        for _ in made:  # a chain of models is no longer than the runs, and a recipe may name itself
            name = read.key_of(made[name].recipe.get("model_name_or_path", "./")) if name in made else ""
            before = before or (evaluated.get(name) if evaluated.get(name) != label else None)
        pairs = [(figure, results.get(before or "", {}).get(figure), results[label].get(figure)) for figure in COMPARED]
        pairs = [(f, old if is_interval(old) else None, new) for f, old, new in pairs if is_interval(new)]
        rows.append({"label": label, "before": before, "word": compare(pairs), "figures": pairs})
    begun = {row["before"] for row in rows}
    rows = [row for row in rows if row["before"] is not None or row["label"] not in begun]
    return sorted(rows, key=lambda row: row["before"] is None)


def compare(pairs: list[tuple[str, Any, Any]]) -> str:
    """Say in words how figures differ: `better than`, `worse (greedy) than`; apart only where the intervals are apart.

    >>> compare([("greedy", [0.1, 0.0, 0.2], [0.9, 0.8, 1.0]), ("pass@1", [0.5, 0.4, 0.6], [0.6, 0.5, 0.7])])
    'better (greedy) than'
    """
    up = [figure for figure, old, new in pairs if old and new[1] > old[2]]
    down = [figure for figure, old, new in pairs if old and new[2] < old[1]]
    words = []
    for word, which in (("better", up), ("worse", down)):
        if which:
            words.append(word if len(which) == len(pairs) else f"{word} ({', '.join(which)})")
    return " and ".join(words) + " than" if words else "not clearly different from"


def compared_problems(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Group problems by which models' greedy answers are right, where they differ; the first stands for its group.

    Returns:
        a dictionary a group, the largest first: `count` and `of` problems, and `rows`, `[(model, row, right)]`.
    """
    problems: dict[int, dict[str, dict]] = defaultdict(dict)
    for row in answers:
        if row.get("sample_index") == read.GREEDY and "completion" in row:
            problems[row.get("prompt_index", 0)][str(row.get("model"))] = row
    models = list(dict.fromkeys(model for rows in problems.values() for model in rows))
    groups: dict[tuple, list[dict[str, dict]]] = defaultdict(list)
    for _, rows in sorted(problems.items()):
        if len(rows) == len(models):
            groups[tuple(_is_right(rows[model]) for model in models)].append(rows)
    of = sum(map(len, groups.values()))
    return [
        {"count": len(group), "of": of, "rows": [(m, group[0][m], r) for m, r in zip(models, rights, strict=True)]}
        for rights, group in sorted(groups.items(), key=lambda item: -len(item[1]))
        if len(set(rights)) > 1
    ][:GROUPS]


def extremes(samples: list[dict[str, Any]], weights: dict[str, float]) -> dict[str, Any]:
    """Choose the samples of the highest and the lowest total reward, `best` and `worst`, none in both; figures of all."""
    unique = {(str(s.get("prompt")), str(s["completion"])): s for s in samples if s.get("completion")}
    for sample in unique.values():
        sample["rewards"] = {
            name: float(value) if figures.is_number(value) else None
            for name, value in (sample.get("rewards") or {}).items()
        }
        sample["total"] = sum(weights.get(n, 1.0) * v for n, v in sample["rewards"].items() if v is not None)
    ranked = sorted(unique.values(), key=lambda s: (-s["total"], -(s.get("advantage") or 0)))
    if not ranked:
        return {}
    worst = ranked[max(EXTREMES, len(ranked) - EXTREMES) :][::-1]
    ends = {"low": ranked[-1]["total"], "high": ranked[0]["total"]}
    return {"count": len(samples), **ends, "best": ranked[:EXTREMES], "worst": worst}


def split_text(completion: Any) -> think.Parts:
    """Take a completion apart for showing; a thought that was never closed is shown as one, without an answer."""
    whole = text(completion)
    parts = think.split(whole)
    thought = whole.partition(think.OPEN)[2] if parts.answer is None else parts.thought
    return think.Parts(_shortened(thought), _shortened(parts.answer))


def text(prompt: Any) -> str:
    """Return a prompt's or a completion's text: the string itself, or its messages, with roles if there are several."""
    if not isinstance(prompt, list):
        return str(prompt)
    messages = [m if isinstance(m, dict) else {"content": m} for m in prompt]
    contents = [str(m.get("content") or "") for m in messages]
    if len(messages) == 1:
        return contents[0]
    return "\n".join(f"{m.get('role', '')}: {content}" for m, content in zip(messages, contents, strict=True))


def number(value: Any) -> str:
    """Write a number with four digits that count, counts by name as `name 3, other 4`, and anything else as it is."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {number(count)}" for name, count in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _shortened(long: str | None) -> str | None:
    if long is None or len(long) <= LONGEST:
        return long
    half = LONGEST // 2
    return f"{long[:half]}\n[… {len(long) - LONGEST:,} characters left out …]\n{long[-half:]}"


def _is_right(row: dict[str, Any]) -> bool | None:
    """Tell whether the first reward, which decides in `stage: eval`, says right; None where it does not judge."""
    value = next(iter((row.get("rewards") or {}).values()), None)
    return None if value is None else value > 0.5


def is_interval(value: Any) -> TypeGuard[list[float]]:
    """Tell whether a figure of `eval.json` is a value with its interval, `[value, low, high]`."""
    return isinstance(value, list) and len(value) == 3 and all(map(figures.is_number, value))
