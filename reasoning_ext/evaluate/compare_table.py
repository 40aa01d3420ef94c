"""What `reasoning-ext compare` prints: a row a comparison, how it was tested, what would tell, and flips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reasoning_ext.evaluate import compare
from reasoning_ext.evaluate.compare import Comparison, Evaluation, Model
from reasoning_ext.runs.folder import seed_runs
from reasoning_ext.runs.outcomes import PLAIN, best_checkpoints, is_plain, is_right
from reasoning_ext.runs.paired import DRAWS, p_text, verdict
from reasoning_ext.runs.read import GREEDY
from reasoning_ext.runs.texts import shortened, text
from reasoning_ext.runs.traces import as_text
from reasoning_ext.shown import print, print_rows

TOLD_APART = 0.02  # the difference whose price is printed
LONGEST = 1_200  # characters of a text that flipped


def compare_and_print(paths: list[Path], names: tuple[str, str] | None, figure: str, flips: int) -> None:
    """Compare models of finished evaluations and print what was found.

    Args:
        paths: run folders, or folders of `--seeds`; those of one recipe with different seeds are pooled.
        names: two models; None is as in `compare.choose`.
        figure: one of `runs.outcomes.figures`.
        flips: print so many problems of each comparison whose outcomes differ, with both texts.

    Raises:
        UserError: a run is unfinished or none, runs are not of the same problems, or a model or figure is not there.
    """
    found = [run for path in paths for run in seed_runs(path).values() or [path]]
    runs = [compare.read_evaluation(path) for path in {path.resolve(): path for path in found}.values()]
    compare.refuse_other_problems(runs)
    models = compare.pool(runs)
    pairs = compare.choose(models, names)
    chosen = [model for model in models if any(model in pair for pair in pairs)]
    compared = compare.compare_models(pairs, figure)
    print_comparisons(compared, figure)
    print_places(chosen)
    for line in best_checkpoints({model.name: compare.solved(model, figure) for model in chosen}, figure):
        print(f"compare  {line}")
    for comparison in compared if flips else ():
        print_flips(comparison, figure, flips)


def print_comparisons(compared: list[Comparison], figure: str) -> None:
    """Print the table, how it was tested, and how many problems would tell a small difference apart."""
    seeds, problems = max(one.found.seeds for one in compared), min(one.found.problems for one in compared)
    title = f"{figure} on the same {problems} problems" + f", {seeds} seeds" * (seeds > 1)
    binary = all(one.found.binary for one in compared)
    rows = [_row(one, figure, binary) for one in compared]
    print_rows(title, [*rows[0]], [[*row.values()] for row in rows], left=("verdict",))
    for line in _how(compared):
        print(line)


def _row(one: Comparison, figure: str, binary: bool) -> dict[str, str]:
    found, (low, high) = one.found, one.found.interval
    said = verdict(found, one.p)
    first, second = found.only_first, found.only_second
    counts = {"both right": found.both, "only first": first, "only second": second, "none": found.none}
    if not binary:
        equal = found.seeds * found.problems - first - second
        counts = {"first higher": first, "second higher": second, "equal": equal}
    return {
        "models": _arrow(one),
        figure: f"{100 * found.first:.1f} → {100 * found.second:.1f}",
        **{name: str(count) for name, count in counts.items()},
        "difference": f"{100 * found.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]",
        "p": p_text(found.p).removeprefix("p ").removeprefix("= "),
        "Holm": p_text(one.p).removeprefix("p ").removeprefix("= "),
        "verdict": f"{one.second.name} is {said}" if said else "not told apart",
    }


def _how(compared: list[Comparison]) -> Iterator[str]:
    """Yield what the table's numbers mean, one line each."""
    seeds = max(one.found.seeds for one in compared)
    test = (
        "McNemar's exact test"
        if all(one.found.exact for one in compared)
        else f"signs of the problems' differences flipped {DRAWS:,} times"
    )
    held = f"; verdicts by Holm over {len(compared)} comparisons" if len(compared) > 1 else ""
    yield f"compare  p: {test}{held}; intervals: 95 %, problems drawn with replacement"
    if seeds > 1:
        names = ", ".join(run.seed for run in max((one.second.runs for one in compared), key=len))
        spread = f"a problem counts once, by its mean, and the spread of seeds is added (Student's t, {seeds - 1} d.f.)"
        yield f"compare  seeds {names} are pooled: {spread}"
        for one in compared:
            by_seed = [100 * sum(b[p] - a[p] for p in a.keys() & b) / len(a.keys() & b) for a, b in one.solved]
            each = ", ".join(f"{difference:+.1f}" for difference in by_seed)
            yield f"compare  {_arrow(one)} by seed: {each}"
    needed = [f"{_rounded(one.found.problems_for(TOLD_APART)):,} ({_arrow(one)})" for one in compared]
    points, here = round(100 * TOLD_APART), min(one.found.problems for one in compared)
    said = f"you need about {', '.join(needed)} problems; here are {here:,}"
    yield f"compare  to tell a difference of {points} points apart {said}"


def _arrow(one: Comparison) -> str:
    return f"{one.first.name} → {one.second.name}"


def _rounded(count: int) -> int:
    """Round to two digits that count."""
    return int(float(f"{count:.1e}"))


def print_places(models: list[Model]) -> None:
    """Print which runs the numbers before models' names stand for, where there are any."""
    numbered = {m.name.removesuffix(f":{m.label}"): m.runs for m in models if m.name != m.label}
    for number, runs in numbered.items():
        print(f"compare  {number} is {', '.join(str(run.path) for run in runs)}")


def print_flips(one: Comparison, figure: str, most: int) -> None:
    """Print the problems that the two differ on most, each with an answer of both; of a strategy the shares alone."""
    apart = [(-abs(b[p] - a[p]), p, i) for i, (a, b) in enumerate(one.solved) for p in a.keys() & b if a[p] != b[p]]
    print(f"\n{_arrow(one)}: {len(apart)} flips{f', here {most}' * (len(apart) > most)}")
    for _, problem, i in sorted(apart)[:most]:
        shares = [share[problem] for share in one.solved[i]]
        sides = [(model, model.runs[i % len(model.runs)]) for model in (one.first, one.second)]
        row = next(row for row in sides[0][1].answers if is_plain(row) and row["prompt_index"] == problem)
        seed = f", seed {sides[1][1].seed}" * (len(one.solved) > 1)
        print(f"\nproblem {problem}{seed}, gold {row.get('answer')}\n{shortened(text(row.get('prompt')), LONGEST)}")
        for (model, run), share in zip(sides, shares, strict=True):
            mark = "right" if share == 1 else "wrong" if share == 0 else f"right {100 * share:.0f} %"
            print(f"--- {model.name}: {mark}")
            if answer := _answer(run, model.label, problem, figure, share == max(shares)):
                print(shortened(as_text(answer).strip(), LONGEST))


def _answer(run: Evaluation, label: str, problem: int, figure: str, right: bool) -> dict[str, Any] | None:
    """Return an answer of a model to a problem, right or wrong as wished if there is one; None of a strategy."""
    mine = [row for row in run.answers if row["prompt_index"] == problem and str(row.get("model")) == label]
    plain = [row for row in mine if is_plain(row) and figure in PLAIN]
    rows = [row for row in plain if (row.get("sample_index") == GREEDY) == (figure == "greedy")]
    return next((row for row in rows if is_right(row) is right), rows[0] if rows else None)
