"""`reasoning-ext report`: run folders -> one HTML file that opens offline, without scripts.

What models and data sets wrote is hostile until escaped: the template escapes everything but our own pictures, keeps names that
are read from the right to themselves, and shows characters that would turn the words beside them about by their numbers. A run
that was cut off, or whose files are damaged, is reported as far as it can be read and marked `not finished`.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from reasoning_ext import think
from reasoning_ext.errors import UserError
from reasoning_ext.runs import figures, read, tradeoff
from reasoning_ext.runs.files import write_whole
from reasoning_ext.runs.folder import METRICS
from reasoning_ext.runs.outcomes import PLAIN, Outcomes, best_checkpoints, is_plain, is_right, outcomes, stacked
from reasoning_ext.runs.paired import Paired, holm, p_text, paired, verdict
from reasoning_ext.shown import visible

PAGE = "report.html"
LONGEST = 4000  # characters shown of one text
EXTREMES = 3  # samples of the highest and of the lowest reward
GROUPS = 4  # of compared problems


def write_report(
    runs: list[Path], output: Path | None, thoughts: Callable[[Path], dict[str, Any]] = lambda run: {}
) -> str:
    """Write the report of run folders, or folders of these, and return a line that names the file.

    Args:
        runs: the folders; one without a run is a `UserError`.
        output: the HTML file; None is `report.html` in the given folder.
        thoughts: says of a run's folder what the thoughts in its training were like, `{steps: figures}`.
    """
    found = [read.read_run(path) for path in read.find_runs(runs)]
    for run in found:
        run.thoughts = thoughts(run.path)
    common = runs[0] if len(runs) == 1 else Path(os.path.commonpath([path.resolve() for path in runs]))
    target = output or common / PAGE
    target = target / PAGE if target.is_dir() else target
    write_whole(target, render(found))
    return f"report  {target}  ({len(found)} run{'s' * (len(found) != 1)})"


def save_curves(run: Path, output: Path) -> None:
    """Write one PNG for a README: of a GRPO run its curves, of an evaluation accuracy against tokens."""
    found = read.read_run(run)
    if found.stage == "eval":
        if not tradeoff.save_tradeoff_png(found.results, output):
            what = f"found neither strategies nor thinking_curve in {run / read.RESULT_FILES['eval']}"
            raise UserError(f"save_curves: {what}, allowed: the folder of an evaluation with one of them")
    elif not figures.save_grpo_png(found.metrics, output):
        raise UserError(f"save_curves: found no reward in {run / METRICS}, allowed: the folder of a GRPO run")


def render(runs: list[read.Run]) -> str:
    """Make the page of some runs that have been read."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    reads = (read.problems_of, read.columns, read.key_of, read.group, read.strategy_rows, tradeoff.curve_rows)
    for shows in (number, split_text, text, p_text, *reads):
        environment.filters[shows.__name__] = shows
    environment.filters["best"] = _best
    environment.filters["duration"] = lambda seconds: timedelta(seconds=round(seconds))
    environment.tests["interval"] = read.is_interval
    ways = [(run, read.key_of(run.recipe.get("output_dir", "./"))) for run in runs]
    made = {key: run for run, own in ways for key in (own, str(run.path.resolve())) if key}
    samples = [(run, extremes(run.samples, read.weights_of(run.recipe))) for run in runs]
    page = environment.get_template(PAGE).render(
        runs=runs,
        made=made,
        seconds=sum(run.seconds or 0 for run in runs),
        verdicts=[verdict for run in runs for verdict in verdicts(run, made)],
        trained=[(run, curves) for run in runs if (curves := figures.curves(run.stage, run.metrics))],
        evals=[
            (run, read.in_training(run.results), figures.checkpoint_curves(run.results), pictures(run.results))
            for run in runs
            if run.results
        ],
        problems=read.problems_of(
            {f"{i} {label}": row for i, run in enumerate(runs) for label, row in run.results.items()}
        ),
        compared=[(run, found) for run in runs if (found := compared_problems(run.answers))],
        samples=[(run, found) for run, found in samples if found],
    )
    return visible(page)


def pictures(results: tradeoff.Results) -> list[tuple[str, dict[str, Any], dict[str, str]]]:
    """Return the drawings of accuracy against tokens of an evaluation, each with its title and the shapes in it."""
    models = tradeoff.tradeoffs(results)
    curves = {label: tradeoff.Drawn(drawn.curve, []) for label, drawn in models.items() if drawn.curve}
    ways = {label: tradeoff.Drawn([], drawn.ways) for label, drawn in models.items() if drawn.ways}
    titled = {"Accuracy where the thought is cut short": curves, "Accuracy of ways to answer": ways}
    return [(title, tradeoff.draw(shown), tradeoff.shapes_of(shown)) for title, shown in titled.items() if shown]


class Figure(NamedTuple):
    """A figure of a model beside that of the model before it, `[value, low, high]` each.

    `test` compares the two on the same problems, and `p` is its p after Holm; None where there are no answers for it.
    """

    name: str
    before: list[float] | None
    after: list[float]
    test: Paired | None = None
    p: float = 1.0

    @property
    def word(self) -> str:
        """`better`, `worse`, or "" where neither is told; without a test, by intervals that do not overlap."""
        if self.test is not None:
            return verdict(self.test, self.p)
        low, high = (self.before[1], self.before[2]) if self.before else (0.0, 1.0)
        return "better" if self.after[1] > high else "worse" if self.after[2] < low else ""


def verdicts(evaluation: read.Run, made: dict[str, read.Run]) -> list[dict[str, Any]]:
    """Say what training did: each evaluated model beside the evaluated one that it was trained from, if there is one.

    Returns:
        a dictionary a model: `label`, `before` (a label or None), `word`, what `compare` says, and `figures`, each a
        `Figure`; comparisons come first, and a model that one of them begins with has no entry of its own.
    """
    models, results = evaluation.models, evaluation.results
    evaluated = {read.key_of(name): label for label, name in models.items() if label in results and read.key_of(name)}
    rows: list[dict[str, Any]] = []
    for label in results:
        name, before = read.key_of(models.get(label, "./")), None
        for _ in made:  # a chain of models is no longer than the runs, and a recipe may name itself
            name = (
                name if name in made or not re.fullmatch(r"checkpoint-\d+", Path(name).name) else os.path.dirname(name)
            )
            name = read.key_of(made[name].recipe.get("model_name_or_path", "./")) if name in made else ""
            before = before or (evaluated.get(name) if evaluated.get(name) != label else None)
        pairs = [(figure, results.get(before or "", {}).get(figure), results[label].get(figure)) for figure in PLAIN]
        shares = [
            Figure(f, old if read.is_interval(old) else None, new) for f, old, new in pairs if read.is_interval(new)
        ]
        rows.append({"label": label, "before": before, "figures": shares})
    for name in PLAIN:
        _test(rows, name, outcomes(name, evaluation.answers))
    begun = {row["before"] for row in rows}
    rows = [row | {"word": compare(row["figures"])} for row in rows if row["before"] or row["label"] not in begun]
    return sorted(rows, key=lambda row: row["before"] is None)


def _best(answers: list[dict[str, Any]]) -> list[str]:
    return best_checkpoints({model: [of] for model, of in outcomes(PLAIN[0], answers).items()}, PLAIN[0])


def _test(rows: list[dict[str, Any]], name: str, solved: Outcomes) -> None:
    """Put the paired test of one figure into the rows of `verdicts`, where both models have answers."""
    found: list[tuple[dict[str, Any], int, Paired]] = []
    for row in rows:
        for i, figure in enumerate(row["figures"]):
            if figure.name == name and figure.before and {row["before"], row["label"]} <= {*solved}:
                first, second = stacked([[solved[row["before"]]], [solved[row["label"]]]])
                found += [(row, i, paired(first, second))] if first.size else []
    for (row, i, test), p in zip(found, holm([test.p for *_, test in found]), strict=True):
        row["figures"][i] = row["figures"][i]._replace(test=test, p=p)


def compare(figures: list[Figure]) -> str:
    """Say in words how figures differ from those before: `better than`, `worse (greedy) than`, `not told apart from`.

    >>> low, high = [0.1, 0.0, 0.2], [0.9, 0.8, 1.0]
    >>> compare([Figure("greedy", low, high), Figure("pass@1", low, low)])
    'better (greedy) than'
    """
    compared, words = [figure for figure in figures if figure.before], []
    for word in ("better", "worse"):
        if which := [figure.name for figure in compared if figure.word == word]:
            words.append(word if len(which) == len(figures) else f"{word} ({', '.join(which)})")
    return " and ".join(words) + " than" if words else "not told apart from"


def compared_problems(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Group problems by which models' greedy answers are right, where they differ; the first stands for its group.

    Returns:
        a dictionary a group, the largest first: `count` and `of` problems, and `rows`, `[(model, row, right)]`.
    """
    problems: dict[int, dict[str, dict]] = defaultdict(dict)
    for row in answers:
        if row.get("sample_index") == read.GREEDY and is_plain(row):
            problems[row.get("prompt_index", 0)][str(row.get("model"))] = row
    models = list(dict.fromkeys(model for rows in problems.values() for model in rows))
    groups: dict[tuple, list[dict[str, dict]]] = defaultdict(list)
    for _, rows in sorted(problems.items()):
        if len(rows) == len(models):
            groups[tuple(is_right(rows[model]) for model in models)].append(rows)
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
        given, ahead = sample.get("rewards"), sample.get("advantage")
        named = given.items() if isinstance(given, dict) else ()
        sample["rewards"] = {name: float(value) if read.is_number(value) else None for name, value in named}
        sample["total"] = sum(weights.get(n, 1.0) * v for n, v in sample["rewards"].items() if v is not None)
        sample["ahead"] = ahead if read.is_number(ahead) else 0
    ranked = sorted(unique.values(), key=lambda s: (-s["total"], -s["ahead"]))
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
    return think.Parts(*(None if part is None else shortened(part) for part in (thought, parts.answer)))


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


def shortened(long: str, most: int = LONGEST) -> str:
    """Leave the middle of a long text out, and say so."""
    half = most // 2
    return (
        long if len(long) <= most else f"{long[:half]}\n[… {len(long) - most:,} characters left out …]\n{long[-half:]}"
    )
