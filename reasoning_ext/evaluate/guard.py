"""The key `guard`: what a training forgot, by 200 small tasks of our own that programs judge, before it and after.

    guard.jsonl     every answer; `model` is `before` or `after`, in stage eval the model's label, and `way` tells them
                    from answers to other tasks, or by other settings
    guard.json      the figures, and the comparison of the pairs: McNemar's exact test on the same tasks

A task is asked as plain user text, without the recipe's system prompt and tools, and answered greedily.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy

from reasoning_ext.data.sources import read_jsonl
from reasoning_ext.engines.base import Engine, SamplingSettings
from reasoning_ext.engines.opening import open_local
from reasoning_ext.engines.tools import ToolEngine
from reasoning_ext.evaluate.answers import Answers, Line, Request
from reasoning_ext.evaluate.general import passes, tasks
from reasoning_ext.models.source import model_source
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.trl_fields import MODEL_CONFIG, class_keys
from reasoning_ext.runs.card import write_run_card
from reasoning_ext.runs.files import append_lines, write_whole
from reasoning_ext.runs.folder import DONE, RunDir, is_main, world_size
from reasoning_ext.runs.guards import AFTER, BEFORE, GUARD, GUARD_ANSWERS, forgotten
from reasoning_ext.runs.paired import ALPHA, holm, p_text, paired
from reasoning_ext.runs.process import free_memory
from reasoning_ext.runs.read import GREEDY
from reasoning_ext.runs.values import cell
from reasoning_ext.scoring.metrics import interval
from reasoning_ext.shown import print, print_rows

GENERAL = "general"
Rights = dict[str, list[float]]  # by ability, `all` first, and task of the harness
LENGTH = 256  # tokens of an answer in stages that have no max_completion_length
TO_DO = "mix general data in, lower learning_rate, take fewer steps, use_peft: true, or raise beta in grpo and dpo"


def guarded(recipe: Recipe, run: RunDir, stage: Callable[[], int]) -> int:
    """Run a training stage between two rounds of the guard's tasks; a stage that is cut off has no second one.

    Weights are saved when the first answer after the training is there: a stage that was killed behind it does not
    train again. Under `accelerate launch` the main process answers and the others wait.

    Raises:
        UserError: what the stage raises; a model cannot be opened or does not answer.
    """
    if not recipe.get("from_scratch"):
        _alone(lambda: _before(recipe, run.path))
    if code := 0 if any(_stored(run.path, AFTER, recipe, name) for name in named(recipe)) else stage():
        return code
    free_memory()
    _alone(lambda: _after(recipe, run.path))
    return 0


def _alone(does: Callable[[], None]) -> None:
    """Let the main process do something, while the others wait."""
    if is_main():
        does()
    if world_size() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def named(recipe: Recipe) -> list[str]:
    """Return the sets of tasks that a recipe's `guard` names."""
    given = recipe.get("guard")
    return given if isinstance(given, list) else [given]


def _stored(folder: Path, label: str, recipe: Recipe, name: str = GENERAL) -> list[Line]:
    """Return the answers of a model to the same tasks, asked in the same way, that a folder holds, in their order."""
    path, way = folder / GUARD_ANSWERS, asked(recipe, name)
    lines = [line for line in (read_jsonl(path) if path.is_file() else []) if line["model"] == label]
    return sorted((line for line in lines if line.get("way") == way), key=lambda line: line["prompt_index"])


def _before(recipe: Recipe, folder: Path) -> None:
    """Answer with the model that the training starts from, or take the answers that its own run has."""
    name = recipe.local(recipe.values["model_name_or_path"])
    model = Path(name)
    for tasks_of in named(recipe):
        made = _stored(model, AFTER, recipe, tasks_of) if (model / DONE).is_file() else []
        whole = len(made) == len(tasks()) if tasks_of == GENERAL else made
        if whole and not _stored(folder, BEFORE, recipe, tasks_of):
            append_lines(folder / GUARD_ANSWERS, [line | {"model": BEFORE} for line in made])
            print(f"guard  the answers before to {tasks_of} are those after {model}", flush=True)
    _draw(recipe, folder, BEFORE, name)


def asked(recipe: Recipe, name: str = GENERAL) -> str:
    """Return a digest of what decides an answer beside the weights: tasks, settings, and how they are loaded."""
    names = {*class_keys(*MODEL_CONFIG), "backend", "think_tags", "chat_template_path", "use_cpu", "max_seq_length"}
    names -= {"model_name_or_path", "model_revision", "use_peft"} | {n for n in names if n.startswith("lora_")}
    how = {name: recipe.get(name) for name in sorted(names & recipe.keys.keys())}
    text = json.dumps([[vars(task) for task in tasks()], how, vars(settings(recipe))], default=str, sort_keys=True)
    return f"{name} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def settings(recipe: Recipe) -> SamplingSettings:
    """Return how the tasks are answered."""
    length = recipe.get("max_completion_length") if "max_completion_length" in recipe.keys else LENGTH
    kwargs = recipe.get("chat_template_kwargs") or {}
    return SamplingSettings(max_completion_length=length or LENGTH, temperature=0.0, chat_template_kwargs=kwargs)


def _draw(recipe: Recipe, folder: Path, label: str, name: str) -> list[Line]:
    """Return a model's answers, opened as the recipe opens its own, after drawing those that are missing."""
    kwargs = recipe.get("chat_template_kwargs") or {}
    changed: dict[str, Any] = {"from_scratch": False, "chat_template_kwargs": kwargs}
    source = model_source(recipe.values, lambda path: path, False, name, **changed)
    lines = list[Line]()
    for tasks_of in named(recipe):
        try:
            if tasks_of == GENERAL:
                lines = draw(folder, label, recipe, lambda: open_local("transformers", source, None))
            elif not _stored(folder, label, recipe, tasks_of):
                from reasoning_ext.evaluate.guard_lm_eval import solved

                found, way = solved(recipe, source, tasks_of), asked(recipe, tasks_of)
                append_lines(folder / GUARD_ANSWERS, [{"model": label, "way": way} | line for line in found])
        finally:
            free_memory()
    return lines


def _judged(recipe: Recipe, folder: Path, label: str) -> Rights:
    """Return whether each answer of a model is right, by ability and task."""
    general = _stored(folder, label, recipe) if GENERAL in named(recipe) else []
    found = rights(general) if general else {}
    for name in named(recipe):
        if name != GENERAL and (lines := _stored(folder, label, recipe, name)):
            found[name] = [line["right"] for line in lines]
    return found


def draw(folder: Path, label: str, recipe: Recipe, opens: Callable[[], Engine], closes: bool = True) -> list[Line]:
    """Return the answers of one model in the order of the tasks, after drawing those that are missing."""
    table = [{"prompt": [{"role": "user", "content": task.prompt}]} for task in tasks()]
    answers = Answers(folder / GUARD_ANSWERS, label, table, [], opens, "guard")
    keys = [(i, GREEDY) for i in range(len(table))]
    request = Request(keys, settings(recipe), asked(recipe), judged=False)
    if not closes:
        return answers.draw(request)[0]
    with closing(answers):
        return answers.draw(request)[0]


def _after(recipe: Recipe, folder: Path) -> None:
    """Answer with what was saved, write the figures, and say what fell."""
    after = _draw(recipe, folder, AFTER, str(folder))
    before = _stored(folder, BEFORE, recipe)
    first, second = _judged(recipe, folder, BEFORE), _judged(recipe, folder, AFTER)
    rows = compared(first, second) if first else {name: {AFTER: interval(values)} for name, values in second.items()}
    write_whole(folder / GUARD, json.dumps({"general": rows}, indent=1))
    write_run_card(folder)  # which says what it forgot
    shown = forgotten(folder)
    table = [(n, *(cell(r.get(k)) for k in (BEFORE, AFTER, "difference")), _p(r)) for n, r in shown.items()]
    print_rows("general tasks, 95 % intervals", ["ability", BEFORE, AFTER, "difference", "p"], table)
    for label, of in ((BEFORE, before), (AFTER, after)):
        if line := says_nothing(of):
            print(f"guard  warning: {label}: {line}", flush=True)
    fell = [name for name, row in shown.items() if "p" in row and row["p"] < ALPHA and row["difference"][0] < 0]
    if fell:
        print(f"guard  warning: worse for certain than before: {', '.join(fell)}; {TO_DO}", flush=True)


def _p(row: dict[str, Any]) -> str:
    return p_text(row["p"]) if "p" in row else ""


def rights(lines: Sequence[Line]) -> Rights:
    """Return whether each answer is right, by ability, `all` first; the lines are those of all tasks in order."""
    found: dict[str, list[float]] = {"all": []}
    for task, line in zip(tasks(), lines, strict=True):
        value = float(passes(task, line["completion"]))
        found["all"].append(value)
        found.setdefault(task.ability, []).append(value)
    return found


def figures(lines: Sequence[Line]) -> dict[str, list[float]]:
    """Return a model's shares of right answers with intervals, by ability, `all` first."""
    return {name: interval(values) for name, values in rights(lines).items()}


def compared(first: Rights, second: Rights) -> dict[str, dict[str, Any]]:
    """Compare two models' answers in pairs, by ability and task, as `runs.guards.forgotten` has it.

    p is McNemar's exact one, after Holm's correction over all but `all`.
    """
    names = [name for name in first if len(first[name]) == len(second.get(name, ()))]
    pairs = {name: paired(numpy.array([first[name]]), numpy.array([second[name]])) for name in names}
    corrected = iter(holm([pair.p for name, pair in pairs.items() if name != "all"]))
    return {
        name: {
            BEFORE: interval(first[name]),
            AFTER: interval(second[name]),
            "difference": [round(value, 4) for value in (pair.difference, *pair.interval)],
            "p": pair.p if name == "all" else next(corrected),
        }
        for name, pair in pairs.items()
    }


def says_nothing(lines: Sequence[Line]) -> str:
    """Say why a model's answers tell nothing of what it knows, else ""."""
    empty = sum(not line["completion"].strip() for line in lines)
    cut_off = sum(not line["finished"] and not line.get("error") for line in lines)
    for count, what in ((empty, "are empty"), (cut_off, "were cut off")):
        if lines and count >= 0.95 * len(lines):
            return f"{count} of {len(lines)} answers {what}, so that the figures say nothing of what the model knows"
    return ""


def general(folder: Path, recipe: Recipe, answers: Answers, first: list[Line]) -> dict[str, list[float]]:
    """Return the figures of an evaluation's model, beside those of the first one, whose lines `first` keeps."""

    def opens() -> Engine:
        return answers.engine.inner if isinstance(answers.engine, ToolEngine) else answers.engine

    lines = draw(folder, answers.label, recipe, opens, closes=False)
    found = figures(lines)
    print_rows(f"{answers.label}, general tasks, 95 % intervals", [*found], [[cell(value) for value in found.values()]])
    if line := says_nothing(lines):
        print(f"guard  warning: {answers.label}: {line}", flush=True)
    if first:
        pair = compared(rights(first), rights(lines))["all"]
        said = f"{cell(pair['difference'])} against {first[0]['model']}, {p_text(pair['p'])}"
        print(f"guard  {answers.label}: {said}", flush=True)
    first += [] if first else lines
    return found
