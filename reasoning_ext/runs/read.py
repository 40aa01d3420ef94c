"""Read run folders back: what the report is made of.

A run that was cut off, or whose files are damaged, is read as far as possible and says what is wrong with it.
"""

import json
import os
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from reasoning_ext.errors import UserError
from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.recipe.known_keys import stage_keys
from reasoning_ext.runs.folder import (
    ANSWERS,
    DONE,
    HELD_OUT,
    LINEAGE,
    METRICS,
    RECIPE,
    RESULTS,
    VERSIONS,
    damage,
    seed_of,
    seed_runs,
)
from reasoning_ext.runs.stored import MOST_LINES, read_lines, read_tables, readable
from reasoning_ext.runs.traces import TURNS, with_turns
from reasoning_ext.runs.values import cell, is_number
from reasoning_ext.runs.weights import weights_of
from reasoning_ext.shown import without_secrets
from reasoning_ext.think import WHOLE

IN_TRAINING = "in training data"  # the figure of eval.json: problems that the model was trained on
GREEDY = -1  # sample index of the greedy completion in answers.jsonl
MOST_SAMPLES = 20_000  # that a report reads of a run, which may have millions
# of a training's table of completions, beside rewards
KEPT = ("step", "prompt", "completion", "answer", "advantage", "tokens", TURNS)
RESULT_FILES = dict.fromkeys(TRAINED, METRICS) | {"sample": "summary.json", "eval": RESULTS}
Rows = list[dict[str, Any]]


@dataclass(eq=False)
class Run:
    """What could be read of a run's folder."""

    path: Path
    problems: list[str] = field(default_factory=list)  # why it counts as not finished, in words
    recipe: dict[str, Any] = field(default_factory=dict)
    recipe_text: str = ""
    versions: dict[str, Any] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)
    data: Rows = field(default_factory=list)  # what was done to its rows, step by step
    seconds: float | None = None  # how long it took; None where it has not finished
    summary: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    metrics: Rows = field(default_factory=list)
    held_out: Rows = field(default_factory=list)  # what was measured on held-out problems while it trained
    part: list[str] = field(default_factory=list)  # what was read in part, in words
    called: str = ""  # in the place of the folder's name, where others have that too
    answers: Rows = field(default_factory=list)
    samples: Rows = field(default_factory=list)  # evenly chosen among those that are stored
    stored: int = 0  # samples, reckoned where they were not counted
    counted: bool = True
    thoughts: dict[str, Any] = field(default_factory=dict)  # what they were like in a training, `{steps: figures}`
    parents: dict[str, "Run"] = field(
        default_factory=dict
    )  # the runs that its models and data are, by its recipe's names

    @property
    def name(self) -> str:
        """The folder's name; of a seed's with that of its recipe's output_dir, `2_grpo/seed_0`."""
        path = self.path.resolve()
        return self.called or (path.name if seed_of(path) is None else f"{path.parent.name}/{path.name}")

    @property
    def stage(self) -> str:
        """The recipe's stage."""
        return str(self.recipe.get("stage", "unknown"))

    @property
    def models(self) -> dict[str, str]:
        """The models it starts from, `{label: name}`; one without a label for every stage but eval.

        A pattern of checkpoints stands for those that its figures are of, whether they are still there or not.
        """
        models = self.recipe.get("models") or self.recipe.get("model_name_or_path")
        if isinstance(models, dict):
            named = [(str(label), str(name)) for label, name in models.items()]
        else:
            listed = models if isinstance(models, list) else [models]
            named = [(Path(str(name)).name if self.stage == "eval" else "", str(name)) for name in listed if name]
        found: dict[str, str] = {}
        for label, name in named:
            folder, _, last = name.rpartition("/")
            begin = f"{label} " * isinstance(models, dict)
            ends = [one[len(begin) :] for one in self.results if "*" in last and one.startswith(begin)]
            inside = {f"{begin}{end}": f"{folder}/{end}" for end in ends if fnmatchcase(end, last)}
            found |= inside or {label: name}
        return found


def find_runs(paths: list[Path]) -> list[Path]:
    """List the run folders among the given folders and directly in them, each seed too, in their numbers' order."""
    found: dict[Path, Path] = {}
    for path in paths:
        folders = [path, *sorted(path.iterdir(), key=_number)] if path.is_dir() else []
        seeded = [run for folder in folders for run in seed_runs(folder).values() or [folder]]
        inside = [p for p in seeded if (p / RECIPE).is_file() or (p / LINEAGE).is_file()]
        if not inside:
            raise UserError(f"report: found no run in {path}, allowed: run folders, or a folder of run folders")
        found |= {run.resolve(): run for run in (inside[:1] if inside[0] == path else inside)}
    return list(found.values())


def _number(path: Path) -> tuple[int, str]:
    leading = re.match(r"\d+", path.name)
    return (int(leading.group()) if leading else 10**9, path.name)


def read_run(path: Path) -> Run:
    """Read whatever a run's folder holds; what is missing or damaged goes to the run's `problems`."""
    run = Run(path)
    if (path / DONE).is_file():
        done = _read_object(run, DONE)
        run.seconds = seconds if isinstance(seconds := done.get("seconds"), int | float) else None
        run.problems += [problem] if done and (problem := damage(path, path.name)) else []
    else:
        run.problems.append(f"no {DONE}")
    text = (path / RECIPE).read_text(encoding="utf-8", errors="replace") if (path / RECIPE).is_file() else ""
    try:
        recipe = without_secrets(yaml.safe_load(text))
    except (yaml.YAMLError, ValueError, RecursionError):  # also of a date that is none, and of what holds itself
        recipe = None
    if isinstance(recipe, dict):
        run.recipe = {str(key): value for key, value in recipe.items()}
        run.recipe_text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    else:
        run.recipe_text = without_secrets(text)
        run.problems.append(f"{RECIPE} cannot be read")
    run.versions, run.lineage = _read_object(run, VERSIONS), _read_object(run, LINEAGE)
    data = _read_json(path / "data.json")
    run.data = data if isinstance(data, list) else []
    run.metrics = [row for row in _read_rows(run, METRICS) if is_number(row.get("step"))]
    run.held_out = readable(_read_rows(run, HELD_OUT))
    run.answers = [with_turns(row) for row in plain_answers(_read_rows(run, ANSWERS), run.recipe)]
    run.summary = _read_object(run, "summary.json")
    _read_samples(run)
    run.results = {label: row for label, row in _read_object(run, RESULTS).items() if isinstance(row, dict)}
    if (result := RESULT_FILES.get(run.stage)) and not (path / result).is_file():
        run.problems.append(f"no {result}")
    return run


def plain_answers(rows: Rows, recipe: dict[str, Any]) -> Rows:
    """Return the answers that the plain figures are of: none that only a strategy had drawn, also of the same way."""
    most = recipe.get("num_generations", stage_keys("eval")["num_generations"].default)
    most = most if is_number(most) else 0
    indices = ((row, row.get("sample_index", GREEDY)) for row in rows if not row.get("way"))
    return [row for row, index in indices if is_number(index) and index < most]


def key_of(name: Any) -> str:
    """Bring a model's or data set's name into a form that can be compared; `./` paths belong to a recipe's folder."""
    return "" if str(name).startswith(("./", "../")) else os.path.normpath(str(name))


def made_by(made: dict[str, Run], name: Any) -> tuple[Run, str] | None:
    """Return the run that a name in a recipe stands for, and what of it: a checkpoint, or "" for its end.

    `made` has the runs by the names that recipes have for them.
    """
    whole = key_of(name)
    folder, last = os.path.split(whole)
    if whole in made:
        return made[whole], ""
    return (made[folder], last) if folder in made else None


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _read_object(run: Run, name: str) -> dict[str, Any]:
    value = _read_json(run.path / name)
    if not isinstance(value, dict) and (run.path / name).is_file():
        run.problems.append(f"{name} cannot be read")
    return value if isinstance(value, dict) else {}


def _read_rows(run: Run, name: str) -> Rows:
    """Read the lines that can be read, of a very long file some, evenly chosen; a crash leaves a torn last one."""
    found = read_lines(run.path / name, MOST_LINES)
    run.problems += found.problems
    of = f"{'' if found.counted else 'about '}{found.of:,}"
    run.part += [f"{name}: {len(found.rows):,} lines of {of}"] if len(found.rows) < found.of else []
    return found.rows


def _read_samples(run: Run) -> None:
    """Read the samples of a run, or the tables that TRL wrote into `completions/`, in the form that `samples.jsonl` has."""
    found = read_lines(run.path / "samples.jsonl", MOST_SAMPLES)
    if not found.of:
        logged = {key.split("/")[-2] for row in run.metrics for key in row if re.fullmatch("rewards/.+/mean", key)}
        rewards = logged | weights_of(run.recipe).keys()
        found = read_tables(run.path / "completions", MOST_SAMPLES, [*KEPT, WHOLE, *rewards])
        rows = [
            {key: row[key] for key in KEPT if key in row}
            | ({"completion": row[WHOLE]} if row.get(WHOLE) else {})
            | {"rewards": {name: row[name] for name in row if name in rewards}}
            for row in found.rows
        ]
        found = found._replace(rows=rows)
    drawn = run.summary.get("sampled")
    run.samples, run.stored, run.counted = [with_turns(row) for row in found.rows], found.of, found.counted
    if not found.counted and isinstance(drawn, int):
        run.stored, run.counted = drawn, True
    run.problems += found.problems


def in_training(results: dict[str, dict[str, Any]]) -> str:
    """Say how many problems stand in the training data of which models, by the figures of `eval.json`; "" for none.

    >>> in_training({name: {"problems": 30, IN_TRAINING: count} for name, count in (("base", 0), ("sft", 30), ("grpo", 30))})
    '30 of 30 problems are in the training data of sft, grpo'
    """
    labels: dict[str, list[str]] = {}
    for label, figures in results.items():
        if count := figures.get(IN_TRAINING):
            labels.setdefault(f"{count} of {figures.get('problems', 0)} problems", []).append(label)
    return "; ".join(f"{problems} are in the training data of {', '.join(who)}" for problems, who in labels.items())


def problems_of(results: dict[str, dict[str, Any]]) -> str:
    """Return what problems are called: held out where the lineage of every model is known and none was trained on."""
    counts = [figures.get(IN_TRAINING) for figures in results.values()]
    if any(counts):
        whole = all(figures.get(IN_TRAINING) in (0, figures.get("problems")) for figures in results.values())
        return "problems that were trained on" if whole else "problems, some of which were trained on"
    return "held-out problems" if counts and None not in counts else "problems"


def columns(results: dict[str, dict[str, Any]]) -> list[str]:
    """Return the names of all figures of `eval.json`, in their order; groups of figures are no figures."""
    every = (figure for figures in results.values() for figure in figures.items())
    return list(dict.fromkeys(name for name, value in every if not isinstance(value, dict)))


def group(results: dict[str, dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    """Return a group of figures of `eval.json`, such as `thoughts`, of each model that has one."""
    return {label: row[name] for label, row in results.items() if isinstance(row.get(name), dict) and row[name]}


def strategy_rows(strategies: dict[str, dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Return the rows of a table of strategies: name, accuracy and tokens; of a refinement after each round too."""
    rows = []
    for name, one in strategies.items():
        one = one if isinstance(one, dict) else {}
        rows.append((name, cell(one.get("accuracy")), cell(one.get("tokens"))))
        rounds = one.get("rounds")
        rows += [
            (f"    after round {i}", cell(s), "") for i, s in enumerate(rounds if isinstance(rounds, list) else [])
        ]
    return rows
