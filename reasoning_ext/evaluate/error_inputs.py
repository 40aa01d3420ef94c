"""What `errors` looks at: the wrong answers of a finished evaluation or sampling run, as its files have them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasoning_ext.data.lineage import run_recipe
from reasoning_ext.data.sources import SAMPLES, read_jsonl
from reasoning_ext.errors import UserError
from reasoning_ext.evaluate.answers import Line
from reasoning_ext.models.adapter import is_adapter
from reasoning_ext.recipe.benchmarks import lm_eval_task, reward_entries
from reasoning_ext.recipe.entries import eval_models
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.files import read_object
from reasoning_ext.runs.folder import ANSWERS, DONE, damage, is_run, seed_runs, unfinished
from reasoning_ext.runs.outcomes import is_plain, is_right
from reasoning_ext.runs.read import GREEDY
from reasoning_ext.runs.traces import with_turns
from reasoning_ext.scoring.spec import RewardSpec, deciding, needed_columns, parse_rewards


@dataclass(frozen=True)
class Wrong:
    """The wrong answers of one model, and what it takes to draw others.

    Attributes:
        recipe: of the run.
        label, model: what the run calls the model, and where it is; None for the recipe's own.
        overrides: of `open_engine`.
        reward: what says what is right.
        lines: of wrong answers, one a problem.
        of: problems that were answered.
        samples: the lines of the problems' other completions, by the recipe's own prompts and settings.
        first: the lowest sample index of these.
        table: of each problem what its prompt and the reward need.
        pace: tokens a second of the run, as far as that is known.
    """

    recipe: Recipe
    label: str
    model: str | None
    overrides: dict[str, Any]
    reward: RewardSpec
    lines: list[Line]
    of: int
    samples: list[Line]
    first: int
    table: dict[int, dict[str, Any]]
    pace: float

    @property
    def decides(self) -> str:
        """The name of the reward that says what is right."""
        return self.reward.name

    def is_right(self, line: Line) -> bool | None:
        """Tell whether a completion is right; None where nobody can tell."""
        return is_right(line, self.decides)


def read_wrong(path: Path, label: str | None) -> Wrong:
    """Read the wrong answers of a run; raises a UserError where it has none that could be looked at."""
    recipe = _recipe(path)
    evaluates = recipe.stage == "eval"
    models: dict[str, str | None] = {**eval_models(recipe)} if evaluates else {path.resolve().name: None}
    every = [with_turns(line) for line in read_jsonl(path / (ANSWERS if evaluates else SAMPLES))]
    plain = [line for line in every if is_plain(line) and (not evaluates or line["model"] in models)]
    if evaluates:
        label = _label(plain, label)
        plain = [line for line in plain if line["model"] == label]
    elif label is not None:
        raise UserError(f"--model: found {label}, allowed: nothing for a run of stage sample, which has one model")
    label = label or next(iter(models))
    chosen = GREEDY if evaluates else 0
    answers = sorted((one for one in plain if one["sample_index"] == chosen), key=lambda one: one["prompt_index"])
    specs = parse_rewards(reward_entries(recipe), recipe.folder)
    reward = specs[0 if evaluates else deciding(specs)]
    _refuse_unjudged(answers, reward, path)
    name = models.get(label)
    scratch = recipe.get("from_scratch") and not is_adapter(recipe.local(name)) if name else None
    table = {line["prompt_index"]: _row(line) for line in answers}
    seconds, tokens = read_object(path / DONE).get("seconds"), sum(line.get("tokens") or 0 for line in every)
    wrong = [line for line in answers if is_right(line, reward.name) is not True]
    others = [line for line in plain if line["sample_index"] > chosen]
    overrides = {} if scratch is None else {"from_scratch": scratch}
    pace = max(1.0, tokens / seconds) if seconds else 1.0
    return Wrong(recipe, label, name, overrides, reward, wrong, len(answers), others, chosen + 1, table, pace)


def _recipe(path: Path) -> Recipe:
    """Return the recipe of a finished run of completions."""
    if seed_runs(path):
        raise UserError(f"errors: {damage(path, str(path))}")
    if not is_run(path):
        raise UserError(f"errors: found no run in {path}, allowed: the folder of a run of stage eval or sample")
    recipe = run_recipe(path)
    if recipe.stage not in ("eval", "sample"):
        found = f"errors: found {path}, a run of stage {recipe.stage}, whose answers are not kept"
        raise UserError(f"{found}, allowed: a run of stage eval or sample; write one with stage: eval for this model")
    if recipe.stage == "eval" and lm_eval_task(recipe):
        raise UserError(f"errors: found {path}, which lm_eval judged, allowed: an evaluation with reward_funcs")
    if problem := unfinished(path, str(path)):
        raise UserError(f"errors: {problem}")
    return recipe


def _label(plain: list[Line], label: str | None) -> str:
    """Return the label of the model to look at, the last one of the recipe where none is asked for."""
    there = [*dict.fromkeys(line["model"] for line in plain)]
    if not there or (label or there[-1]) not in there:
        found = f"found {label}" if there else "found no answer of any model of the recipe"
        raise UserError(f"--model: {found}, allowed: {', '.join(there) or 'a run whose models are still there'}")
    return label or there[-1]


def _row(line: Line) -> dict[str, Any]:
    """Return a row of the data set as far as a line has it."""
    drawn = {"model", "completion", "tokens", "finished", "rewards", "logprob", "forced", "turns", "tool_tokens"}
    return {
        name: value for name, value in line.items() if name not in drawn | {"prompt_index", "sample_index", "error"}
    }


def _refuse_unjudged(answers: list[Line], reward: RewardSpec, path: Path) -> None:
    """Refuse answers of which nobody can tell whether they are wrong."""
    if not answers:
        raise UserError(f"errors: found no answer in {path}, allowed: a run with greedy answers, or samples")
    if all(is_right(line, reward.name) is None for line in answers):
        found = f"errors: found no answer in {path} that {reward.name} could judge"
        raise UserError(f"{found}, allowed: a run over problems with golds")
    if "environments" in reward.plugin.required:
        raise UserError(
            f"errors: found the reward {reward.name}, which judges environments, allowed: one that judges texts"
        )
    if lacking := [column for column in needed_columns([reward]) if column not in answers[0]]:
        found = f"errors: the reward {reward.name} needs the column {lacking[0]}, which {path} does not keep"
        raise UserError(f"{found}; write {reward.name} first in reward_funcs")
