"""`reasoning-ext errors`: every wrong answer of an evaluation or a sampling run gets one cause, found by drawing again.

    errors.jsonl    what was drawn, as `answers.jsonl` has it; a search that was stopped goes on from there
    errors.json     of each model: how many answers have which cause, with an example, and the cause of each answer

Looked at is each problem's greedy answer in an evaluation, and its first sample in a sampling run. The causes are those
of `causes.CAUSES`, in that order: the first that holds is the answer's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from reasoning_ext import think
from reasoning_ext.engines.base import SamplingSettings
from reasoning_ext.engines.opening import open_engine, sampling_settings
from reasoning_ext.errors import UserError
from reasoning_ext.evaluate.answers import Answers, Line, Messages, Request
from reasoning_ext.evaluate.causes import CAUSES, KNOWLEDGE, MISREAD, NEVER, REACHABLE, SLIP, WRONG_STEP, cause_at_sight
from reasoning_ext.evaluate.error_inputs import Wrong, read_wrong
from reasoning_ext.evaluate.interventions import read_thought
from reasoning_ext.evaluate.rewording import ask_otherwise
from reasoning_ext.evaluate.step_search import CUTS, Search, find_steps
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.causes import ERRORS
from reasoning_ext.runs.files import read_object, write_whole
from reasoning_ext.runs.stored import evenly
from reasoning_ext.runs.values import cell
from reasoning_ext.scoring.call import build_rewards
from reasoning_ext.scoring.metrics import interval, majority_right
from reasoning_ext.shown import print, print_rows

DRAWN = "errors.jsonl"


@dataclass(frozen=True)
class Options:
    """What is looked for.

    Attributes:
        model: the label of an evaluation's model; None for its last one.
        k: completions of a problem from the start, at the recipe's temperature.
        budget: tokens that may be drawn at the most; None for as many as it takes.
        facts: a column of the data set, or a JSONL file with `question` and `facts`, of what may be missing.
        reworded: the same of other wordings of the questions; `llm_judge` has that reward's model write them.
        steps: look for the first wrong step.
    """

    model: str | None = None
    k: int = 8
    budget: int | None = None
    facts: str | None = None
    reworded: str | None = None
    steps: bool = True


@dataclass
class Case:
    """A wrong answer, and what was found out about it.

    Attributes:
        line: of the run.
        cause: one of `CAUSES`, "" as long as it is not known.
        drawn: completions from the start.
        search: for the first wrong step; None where the thought was not cut.
        better: a right completion that was drawn.
        uncut: it has no closed thought of one turn, whose steps could be tried.
    """

    line: Line
    cause: str = ""
    drawn: list[Line] = field(default_factory=list)
    search: Search | None = None
    better: str = ""
    uncut: bool = False

    @property
    def problem(self) -> int:
        """The problem's number."""
        return self.line["prompt_index"]


def errors_and_print(path: Path, options: Options) -> None:
    """Find the causes of a run's wrong answers, write `errors.json` and print how many there are of each.

    Raises:
        UserError: the run is none, unfinished, of another stage or without golds, or an option does not fit it.
        ModelError, EngineError: the model cannot be had, or does not answer, or does not go on from a beginning.
    """
    wrong = read_wrong(path, options.model)
    if not wrong.lines:
        print(f"errors  none of the {wrong.of} answers of {wrong.label} is wrong")
        return
    cases = [Case(line, cause_at_sight(line, wrong.decides)) for line in wrong.lines]
    cases = _affordable(cases, wrong, options)
    open_ones = [case for case in cases if not case.cause]
    rewards = build_rewards([replace(wrong.reward, gate=None)], tolerated=0)
    opens = partial(open_engine, wrong.recipe, wrong.model, wrong.table, **wrong.overrides)
    answers = Answers(path / DRAWN, wrong.label, wrong.table, rewards, opens, "errors")
    answers.know(wrong.samples)
    settings = _settings(wrong.recipe)
    if open_ones:
        given = {"facts": options.facts, "reworded": options.reworded}
        asks = {what: ask_otherwise(wrong, what, one, path / DRAWN) for what, one in given.items() if one is not None}
        with closing(answers):
            _look(open_ones, answers, settings, wrong, options, asks)
    found = summary(cases, wrong)
    write_whole(path / ERRORS, json.dumps(read_object(path / ERRORS) | {wrong.label: found}, indent=1))
    print_causes(wrong.label, found)
    print(f"errors  {path / ERRORS}; it is in the next report")


def _settings(recipe: Recipe) -> SamplingSettings:
    """Return how completions are drawn: as the recipe samples, and at temperature 1 where it is greedy."""
    settings = sampling_settings(recipe)
    return replace(settings, temperature=settings.temperature or 1.0)


def _affordable(cases: list[Case], wrong: Wrong, options: Options) -> list[Case]:
    """Say what is drawn at the most, and return the cases that the budget is enough for, evenly chosen."""
    open_ones = [case for case in cases if not case.cause]
    if not open_ones:
        return cases
    tokens = max(1.0, fmean(case.line.get("tokens") or 1 for case in open_ones))
    ways = 1 + (options.facts is not None) + (options.reworded is not None)
    each = options.k * (ways + CUTS * options.steps)  # two rounds of half thoughts
    whole = each * tokens * len(open_ones)
    if options.budget is not None and options.budget < whole:
        kept = int(len(cases) * options.budget / whole)
        if not kept:
            least = round(whole / len(cases)) + 1
            raise UserError(
                f"--budget: found {options.budget} tokens, allowed: {least} or more, which one answer takes"
            )
        cases = evenly(cases, kept)
        whole = each * tokens * sum(not case.cause for case in cases)
    time = f", {whole / wrong.pace / 60:.0f} minutes at the run's pace" if whole > 60 * wrong.pace else ""
    looked = f"{len(cases)} of " * (len(cases) < len(wrong.lines)) + f"{len(wrong.lines)} wrong answers"
    cost = f"draws about {whole:,.0f} tokens{time}"
    print(f"errors  {wrong.label}: {looked} of {wrong.of}; {cost}; Ctrl-C keeps what is drawn")
    return cases


def _look(
    cases: Sequence[Case],
    answers: Answers,
    settings: SamplingSettings,
    wrong: Wrong,
    options: Options,
    asks: dict[str, Callable[[Sequence[int]], dict[int, Messages]]],
) -> None:
    """Find the causes that something has to be drawn for; `asks` makes prompts with facts, and in other words."""
    for case, lines in zip(cases, _drawn(answers, cases, settings, wrong, options.k), strict=True):
        case.drawn = lines
        rights = [right for line in lines if (right := wrong.is_right(line)) is not None]
        if any(rights):
            voted = majority_right([line | {"right": wrong.is_right(line) is True} for line in lines]) > 0.5
            case.cause = SLIP if voted else REACHABLE
            case.better = next(line["completion"] for line in lines if wrong.is_right(line))
    if options.steps:
        _cut(cases, answers, settings, wrong)
    for what, asked in asks.items():
        left = [case for case in cases if not case.cause]
        prompts = asked([case.problem for case in left])
        left = [case for case in left if case.problem in prompts]
        for case, lines in zip(left, _drawn(answers, left, settings, wrong, options.k, what, prompts), strict=True):
            better = [line["completion"] for line in lines if wrong.is_right(line)]
            if 2 * len(better) >= len(lines):
                case.cause, case.better = KNOWLEDGE if what == "facts" else MISREAD, better[0]
    for case in cases:
        case.cause = case.cause or NEVER


def _drawn(
    answers: Answers,
    cases: Sequence[Case],
    settings: SamplingSettings,
    wrong: Wrong,
    k: int,
    way: str = "",
    prompts: dict[int, Messages] | None = None,
) -> list[list[Line]]:
    """Return k completions of each case, from the start."""
    keys = [(case.problem, g) for case in cases for g in range(wrong.first, wrong.first + k)]
    asked = {case.problem: prompts[case.problem] for case in cases} if prompts else {}
    lines = answers.draw(Request(keys, settings, way, prompts=asked))[0] if keys else []
    return [lines[i : i + k] for i in range(0, len(lines), k)]


def _cut(cases: Sequence[Case], answers: Answers, settings: SamplingSettings, wrong: Wrong) -> None:
    """Look for the first wrong step of each thought; where tools were called, nothing is cut."""
    for case in cases:
        thought = None if case.line.get("turns") else read_thought(case.line["completion"])
        case.uncut = thought is None
        if thought:
            start = fmean(wrong.is_right(line) is True for line in case.drawn)
            case.search = Search(case.problem, thought, start, len(case.drawn))
    find_steps(answers, [case.search for case in cases if case.search], settings, wrong.decides)
    for case in cases:
        if not case.cause and case.search and case.search.step is not None:
            case.cause = WRONG_STEP
            case.better = _behind(answers, case.search, wrong)


def _behind(answers: Answers, search: Search, wrong: Wrong) -> str:
    """Return a right completion from the steps before the first wrong one."""
    keys = [(f"behind {search.low} steps", (search.problem, g)) for g in range(search.tries)]
    return next((answers.lines[key]["completion"] for key in keys if wrong.is_right(answers.lines[key])), "")


def summary(cases: Sequence[Case], wrong: Wrong) -> dict[str, Any]:
    """Return what `errors.json` has of a model.

    Returns:
        `of` answers, `wrong` of them, `looked_at` of these; `causes`, those that are there: `count`, `share` of the
        wrong answers as `[value, low, high]`, `gives_back`, the share of all answers that are right without it,
        `meaning`, `edit` and an `example`; `answers`, of each its `problem`, `cause`, `right` of `k` completions, and
        the first wrong `step` of `steps`.
    """
    share_wrong, causes = len(wrong.lines) / wrong.of, {}
    for name, cause in CAUSES.items():
        if of := [case for case in cases if case.cause == name]:
            share = interval([float(case.cause == name) for case in cases])
            causes[name] = {
                "count": len(of),
                "share": share,
                "gives_back": [round(share_wrong * value, 4) for value in share],
                "meaning": cause.meaning,
                "edit": cause.edit,
                "example": _example(min(of, key=lambda case: len(case.line["completion"])), wrong),
            }
    counts = {"of": wrong.of, "wrong": len(wrong.lines), "looked_at": len(cases)}
    return counts | {"causes": causes, "answers": [_record(case, wrong) for case in cases]}


def _record(case: Case, wrong: Wrong) -> dict[str, Any]:
    found: dict[str, Any] = {"problem": case.problem, "cause": case.cause}
    if case.drawn:
        found |= {"right": sum(wrong.is_right(line) is True for line in case.drawn), "k": len(case.drawn)}
    found |= {"uncut": True} if case.uncut else {}
    if case.search and case.search.step is not None:
        found |= {"step": case.search.step, "steps": len(case.search.thought.steps)}
    return found


def _example(case: Case, wrong: Wrong) -> dict[str, Any]:
    """Return one answer: the question, the gold, the completion, its first wrong step, and a right completion."""
    found = {"question": think.content(case.line["prompt"]), "answer": case.line.get("answer")}
    found |= _record(case, wrong) | {"completion": case.line["completion"], "better": case.better}
    if case.search and case.search.step is not None:
        steps = [*case.search.thought.steps, case.search.thought.answer]
        found["text"] = steps[case.search.step - 1].strip()
    return found


def print_causes(label: str, found: dict[str, Any]) -> None:
    """Print a row a cause, and what to do about each."""
    title = f"{label}: {found['wrong']} of {found['of']} answers are wrong"
    title += f", {found['looked_at']} of which were looked at" * (found["looked_at"] < found["wrong"])
    rows = [
        (name, one["count"], cell(one["share"]), cell(one["gives_back"]), one["meaning"])
        for name, one in found["causes"].items()
    ]
    print_rows(title, ("cause", "answers", "% of the wrong", "gives back, points", ""), rows, left=("",))
    for line in (*_steps(found["answers"]), *(f"{name}: {one['edit']}" for name, one in found["causes"].items())):
        print(f"errors  {line}")


def _steps(records: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Say where the first wrong steps are."""
    if uncut := sum("uncut" in one for one in records):
        yield f"of {uncut} answers no thought can be cut: none is closed, or tools were called"
    known = [one for one in records if "step" in one]
    if known:
        last = sum(one["step"] > one["steps"] for one in known)
        place = fmean(min(1.0, one["step"] / one["steps"]) for one in known)
        said = f"the first wrong step of {len(known)} answers is known, on average {100 * place:.0f} % into the thought"
        yield said + (f"; in {last} the thought is right and the answer is not its" if last else "")
