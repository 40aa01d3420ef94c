"""Is it healthy, and what to do next: the rules that hold of a training, and what its files ask to be mended."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.runs import health, read
from reasoning_ext.runs.paired import ALPHA
from reasoning_ext.runs.values import is_interval, is_number
from reasoning_ext.runs.verdicts import Learnt

APART = 0.02  # the difference whose price in problems is told


class Health(NamedTuple):
    """What the rules say of a training: those that hold, in the order of their steps; all with their thresholds."""

    run: read.Run
    alarms: list[health.Alarm]
    rules: dict[health.Rule, float]


class Said(NamedTuple):
    """What is said of a recipe's health at once: each rule that holds, with the alarm of each run where it does."""

    name: str
    runs: int
    rules: int
    alarms: dict[health.Rule, dict[str, health.Alarm]]


class Advice(NamedTuple):
    """What to do about some runs: `do` the thing, because of `why`."""

    runs: str
    why: str
    do: str


def health_of(run: read.Run) -> Health | None:
    """Say which rules hold of a training; None of what is no training, or has logged nothing."""
    if run.stage not in TRAINED or not run.metrics:
        return None
    rows = [{key: value for key, value in row.items() if _plain(value)} for row in run.metrics]
    recipe = _recipe_of(run)
    return Health(run, health.alarms(rows, recipe), health.thresholds(recipe))


def healths_by_recipe(
    groups: Iterable[tuple[str, Sequence[read.Run]]], healths: Mapping[read.Run, Health]
) -> list[Said]:
    """Say a rule that holds of several runs of a recipe once; `groups` are labels and runs of recipes."""
    found = dict[read.Run, Said]()
    for label, group in groups:
        names = [run.path.resolve().name for run in group]
        names = names if len({*names}) == len(names) else [run.name for run in group]
        alarms: dict[health.Rule, dict[str, health.Alarm]] = {}
        known = [(name, healths[run]) for name, run in zip(names, group, strict=True) if run in healths]
        for name, one in known:
            for alarm in one.alarms:
                alarms.setdefault(alarm.rule, {})[name] = alarm
        if known:
            found[known[0][1].run] = Said(label, len(known), len(known[0][1].rules), alarms)
    return [found[run] for run in healths if run in found]


def _recipe_of(run: read.Run) -> dict[str, Any]:
    """Return a run's recipe with a `health` that can be read."""
    given = run.recipe.get("health")
    known = given.items() if isinstance(given, dict) else ()
    return run.recipe | {"health": {str(n): v for n, v in known if isinstance(v, int | float) or v == "off"}}


def _plain(value: Any) -> bool:
    """Tell whether a rule may read a value: a number, also one that is none."""
    return isinstance(value, float) or is_number(value)


def next_steps(
    runs: Sequence[read.Run],
    healths: Iterable[Health],
    verdicts: Sequence[dict[str, Any]],
    measured: Sequence[Learnt],
) -> list[Advice]:
    """List what to do, what hinders most first: cut-off runs, alarms, falls, errors, then what is not known yet.

    What is said of several runs is said once.
    """
    found = list(_unfinished(runs))
    found += [Advice(one.run.name, alarm.rule.name, alarm.rule.edit) for one in healths for alarm in one.alarms]
    found += [
        Advice(
            one.name,
            f"fell from {100 * fell.before:.1f} % at step {fell.earlier:g} to {100 * fell.after:.1f} %",
            f"take checkpoint-{fell.earlier:g}, or train again with keep: best",
        )
        for one in measured
        if (fell := one.fell) and not one.keeps
    ]
    found += [advice for run in runs for advice in (*_errors(run), *_evaluated(run))]
    found += _unknown(runs, verdicts, measured)
    same: dict[tuple[str, str], list[str]] = {}
    for name, why, do in found:
        same.setdefault((why, do), []).append(name)
    return [Advice(", ".join(dict.fromkeys(names)), why, do) for (why, do), names in same.items()]


def _unfinished(runs: Iterable[read.Run]) -> Iterator[Advice]:
    for run in runs:
        if run.problems:
            again = "wait for it, or, where it was cut off, run its recipe again: it goes on from what is whole"
            yield Advice(run.name, "; ".join(run.problems), again if run.seconds is None else "put back what is lost")


def _errors(run: read.Run) -> Iterator[Advice]:
    """Yield the rewards that failed on completions, and the tools that were not in time."""
    counts: dict[str, float] = {}
    for row in run.metrics:
        for key, value in row.items():
            wrong = "/timeouts" if key.startswith("tools/") else "/errors"
            if key.endswith(wrong) and is_number(value) and value > 0:
                counts[key] = counts.get(key, 0) + 1
    for key, steps in counts.items():
        name, often = key.rpartition("/")[0], f"in {steps:g} of {len(run.metrics)} logged steps"
        why, what = f"{name} could not judge completions {often}", "read its errors in the output of the run"
        if key.startswith("tools/"):
            why, what = f"calls of {name[6:]} were killed at its deadline {often}", "raise its seconds, or mend it"
        yield Advice(run.name, why, what)


def _evaluated(run: read.Run) -> Iterator[Advice]:
    for label, row in run.results.items():
        cut = row.get("truncated")
        if is_number(share := cut[0] if is_interval(cut) else cut) and share > 0.05:
            yield Advice(
                run.name, f"{100 * share:.0f} % of the answers of {label} are cut off", "raise max_completion_length"
            )
    if said := read.in_training(run.results):
        yield Advice(run.name, said, "evaluate on rows that were held out")


def _unknown(
    runs: Sequence[read.Run], verdicts: Sequence[dict[str, Any]], measured: Sequence[Learnt]
) -> Iterator[Advice]:
    """Yield what would tell whether it learnt, where that is not known."""
    trained = [run for run in runs if run.stage in TRAINED]
    if trained and not verdicts and not measured:
        do = "run a recipe with stage: eval, or set eval_problems in the next training"
        yield Advice(trained[-1].name, "how good the model is on held-out problems is not known", do)
    for row in verdicts:
        for figure in row["figures"]:
            if figure.test and figure.p >= ALPHA and abs(figure.test.difference) < APART and figure.name == "greedy":
                needed = figure.test.problems_for(APART)
                why = f"greedy of {row['label']} and {row['before']} is not told apart"
                yield Advice(row["label"], why, f"a difference of 2 points takes about {needed:,} problems")
