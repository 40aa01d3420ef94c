"""Read run folders back: what the report is made of.

A run that was cut off, or whose files are damaged, is read as far as possible and says what is wrong with it.
"""

import json
import os
import re
import sys
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from reasoning_ext.errors import UserError
from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.recipe.known_keys import stage_keys
from reasoning_ext.runs.folder import DONE, LINEAGE, METRICS, RECIPE, VERSIONS, damage
from reasoning_ext.shown import without_secrets
from reasoning_ext.think import WHOLE

IN_TRAINING = "in training data"  # the figure of eval.json: problems that the model was trained on
GREEDY = -1  # sample index of the greedy completion in answers.jsonl
MOST_SAMPLES = 20_000  # that a report reads of a sampling run, which may have millions
RESULT_FILES = dict.fromkeys(TRAINED, METRICS) | {"sample": "summary.json", "eval": "eval.json"}
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
    answers: Rows = field(default_factory=list)
    samples: Rows = field(default_factory=list)
    thoughts: dict[str, Any] = field(default_factory=dict)  # what they were like in a training, `{steps: figures}`
    parents: dict[str, "Run"] = field(
        default_factory=dict
    )  # the runs that its models and data are, by its recipe's names

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

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
    """List the run folders among the given folders and directly in them, each once, in the order of their numbers."""
    found: dict[Path, Path] = {}
    for path in paths:
        folders = [path, *sorted(path.iterdir(), key=_number)] if path.is_dir() else []
        inside = [p for p in folders if (p / RECIPE).is_file() or (p / LINEAGE).is_file()]
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
    except yaml.YAMLError:
        recipe = None
    if isinstance(recipe, dict):
        run.recipe, run.recipe_text = recipe, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    else:
        run.recipe_text = without_secrets(text)
        run.problems.append(f"{RECIPE} cannot be read")
    run.versions, run.lineage = _read_object(run, VERSIONS), _read_object(run, LINEAGE)
    data = _read_json(path / "data.json")
    run.data = data if isinstance(data, list) else []
    run.metrics = _read_rows(run, METRICS)
    run.answers = plain_answers(_read_rows(run, "answers.jsonl"), run.recipe)
    run.samples = _read_rows(run, "samples.jsonl", MOST_SAMPLES) or _read_completions(run)
    run.summary = _read_object(run, "summary.json")
    run.results = {label: row for label, row in _read_object(run, "eval.json").items() if isinstance(row, dict)}
    if (result := RESULT_FILES.get(run.stage)) and not (path / result).is_file():
        run.problems.append(f"no {result}")
    return run


def plain_answers(rows: Rows, recipe: dict[str, Any]) -> Rows:
    """Return the answers that the plain figures are of: none that only a strategy had drawn, also of the same way."""
    most = recipe.get("num_generations", stage_keys("eval")["num_generations"].default)
    return [row for row in rows if not row.get("way") and row.get("sample_index", GREEDY) < most]


def key_of(name: Any) -> str:
    """Bring a model's or data set's name into a form that can be compared; `./` paths belong to a recipe's folder."""
    return "" if str(name).startswith(("./", "../")) else os.path.normpath(str(name))


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None


def _read_object(run: Run, name: str) -> dict[str, Any]:
    value = _read_json(run.path / name)
    if not isinstance(value, dict) and (run.path / name).is_file():
        run.problems.append(f"{name} cannot be read")
    return value if isinstance(value, dict) else {}


def _read_rows(run: Run, name: str, most: int | None = None) -> Rows:
    """Read the lines that can be read, the first so many of a long file; a crash leaves a torn last one."""
    rows: Rows = []
    if not (run.path / name).is_file():
        return rows
    damaged = 0
    with (run.path / name).open("rb") as file:
        for line in islice(file, most):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            rows += [row] if isinstance(row, dict) else []
            damaged += not isinstance(row, dict)
    if damaged:
        run.problems.append(f"{name} has {damaged} damaged line{'s' * (damaged > 1)}")
    return rows


def _read_completions(run: Run) -> Rows:
    """Read the last table that TRL wrote into `completions/`, in the form that `samples.jsonl` has."""
    tables = sorted((run.path / "completions").glob("*.parquet"))
    if not tables:
        return []
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(tables[-1]).to_pylist()
    except (OSError, pyarrow.ArrowException):
        run.problems.append(f"completions/{tables[-1].name} cannot be read")
        return []
    logged = {key.split("/")[-2] for row in run.metrics for key in row if re.fullmatch("rewards/.+/mean", key)}
    rewards = [name for name in (rows[0] if rows else {}) if name in logged or name in weights_of(run.recipe)]
    kept = ("step", "prompt", "completion", "answer", "advantage")
    return [
        {key: row[key] for key in kept if key in row}
        | ({"completion": row[WHOLE]} if row.get(WHOLE) else {})
        | {"rewards": {name: row[name] for name in rewards}}
        for row in rows
    ]


def weights_of(recipe: dict[str, Any]) -> dict[str, float]:
    """Read the weights off a recipe's `reward_funcs`, under the names that metrics have."""
    entries = recipe.get("reward_funcs") or []
    weights = {}
    for entry in entries if isinstance(entries, list) else [entries]:
        spelling, options = next(iter(entry.items())) if isinstance(entry, dict) and entry else (entry, None)
        last = str(spelling).rsplit(":", 1)[-1]
        name = Path(last).stem if last.endswith(".py") else last.rsplit(".", 1)[-1]
        options = options if isinstance(options, dict) else {}
        points = next(iter((options.get("schedule") or {"": {}}).values()))
        weights[name] = float(points[max(points)] if points else options.get("weight", 1.0))
    return weights


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


def is_number(value: Any) -> TypeGuard[float]:
    """Tell whether a value is a number that can be drawn, which an integer of 400 digits is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_interval(value: Any) -> TypeGuard[list[float]]:
    """Tell whether a figure of `eval.json` is a value with its interval, `[value, low, high]`."""
    return isinstance(value, list) and len(value) == 3 and all(map(is_number, value))


def cell(value: Any) -> str:
    """Write a figure of `eval.json` for a table: a share in per cent with its interval, a number, nothing for None."""
    if is_interval(value):
        return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * share for share in value))
    return "" if value is None else f"{value:g}" if is_number(value) else str(value)


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
