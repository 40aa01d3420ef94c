"""The entries of `strategies`, checked and made into records; `scaling` says what each does.

    strategies:
      - greedy
      - greedy: {min_thinking: 64}                       # every entry may draw otherwise than the recipe
      - cot: {prompt: "Let's think step by step."}       # zero-shot
      - cot: {examples: word_problems}                   # few-shot; or a FILE of solved questions, and shots: 4 of them
      - self_consistency: 8
      - weighted_vote: {n: 8, by: mean_logprob}
      - best_of: {n: 8, by: step_check}
      - beam: {width: 4, keep: 2, by: step_check, step: "\n"}
      - refine: {rounds: 2, accept: better}

Nothing heavy is imported: `check` reads them too.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from reasoning_ext import think
from reasoning_ext.data.sources import read_jsonl
from reasoning_ext.errors import KeyProblem, one_line
from reasoning_ext.evaluate.scorers import ALLOWED, MEAN_LOGPROB, find_scorer
from reasoning_ext.evaluate.strategy_options import KINDS, Beam, Cot, Strategy, label_of
from reasoning_ext.recipe.engine_options import MOST, crossed_bounds
from reasoning_ext.recipe.entries import asks_server
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.packaged import packaged
from reasoning_ext.recipe.trl_fields import dataclass_keys
from reasoning_ext.scoring.spec import RewardSpec

LEAST = {"n": 2, "width": 2} | dict.fromkeys(
    ("keep", "rounds", "shots", "max_completion_length", "min_thinking", "thinking_budget"), 1
)
OURS = ("word_problems", "competition")  # examples that come with the package
PAIRS = (("prompt", "completion"), ("question", "answer"), ("problem", "solution"))  # of a file of examples


def parse_strategies(recipe: Recipe, specs: list[RewardSpec], wrong: list[KeyProblem] | None = None) -> list[Strategy]:
    """Return a recipe's strategies.

    Args:
        recipe: of stage eval.
        specs: its rewards, which a scorer may be.
        wrong: gets a `KeyProblem` for each wrong entry, in the place of the first being raised.
    """
    found: dict[str, Strategy] = {}
    for i, entry in enumerate(recipe.get("strategies") or []):
        try:
            one = _parse(entry, ("strategies", i), recipe, specs)
            if one.label in found:
                raise KeyProblem(one.place, f"found {one.label} twice", "once")
            found[one.label] = one
        except KeyProblem as error:
            if wrong is None:
                raise
            wrong.append(error)
    return [*found.values()]


def _parse(entry: Any, place: tuple, recipe: Recipe, specs: list[RewardSpec]) -> Strategy:
    """Check one entry; raises a KeyProblem."""
    [(kind, given)] = entry.items() if isinstance(entry, dict) and len(entry) == 1 else [(entry, None)]
    place = (*place, kind) if isinstance(entry, dict) and len(entry) == 1 else place
    if not isinstance(kind, str):
        raise KeyProblem(place, f"found {entry!r}", "a name, or one name with its options, `self_consistency: {n: 8}`")
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, 1, cutoff=0.0)[0]
        raise KeyProblem(place, f"unknown strategy (found {kind})", ", ".join(KINDS), f"the nearest is {near}")
    if kind == "self_consistency" and not isinstance(given, dict | None):
        given = {"n": given}
    if not isinstance(given := {} if given is None else given, dict):
        raise KeyProblem(place, f"found {given!r}", "options, or nothing")
    known = dataclass_keys(KINDS[kind])
    for name, value in given.items():
        if name not in known:
            near = get_close_matches(str(name), known, 1, cutoff=0.0)[0]
            problem = f"unknown option of {kind} (found {name}: {value!r})"
            raise KeyProblem((*place, name), problem, hint=f"the nearest is {near}")
        if misfit := known[name].misfit(value):
            raise KeyProblem((*place, name), *misfit)
    options = KINDS[kind](**given)
    _refuse(options, place, recipe)
    scorer = None
    if "by" in known:
        scorer = find_scorer(options.by, (*place, "by"), recipe, specs)  # type: ignore[attr-defined]
    found = Strategy(kind, options, place, label_of(kind, options, scorer), scorer)
    if not isinstance(options, Cot) or not options.examples:
        return found
    name, file = options.examples, recipe.local(options.examples)
    file = str(packaged(f"examples/few_shot/{name}.jsonl")) if name in OURS else file
    return replace(found, examples=file, turns=_turns(file, options.shots, (*place, "examples")))


def _refuse(options: Any, place: tuple, recipe: Recipe) -> None:
    """Raise a KeyProblem for a value that cannot work, alone or with another one."""
    values = asdict(options)
    for name in [name for name in LEAST if name in values and (values[name] is not None or name == "n")]:
        if (value := values[name]) is None or value < LEAST[name]:
            problem = "the option is missing" if value is None else f"found {value}"
            raise KeyProblem((*place, name), problem, f"{LEAST[name]} or more")
    _refuse_bounds(options.changed(), place, recipe)
    temperature = options.temperature if options.temperature is not None else recipe.get("temperature")
    if not 0 <= (options.temperature or 0) < math.inf:
        raise KeyProblem((*place, "temperature"), f"found {temperature}", "0 or more")
    if temperature == 0 and ("n" in values or "width" in values):
        problem = "found temperature 0, with which all of a problem's completions are the same"
        raise KeyProblem(place, problem, "above 0")
    if "by" in values and not values["by"]:
        raise KeyProblem((*place, "by"), "the option is missing", ALLOWED)
    if isinstance(options, Cot) and not (options.prompt or options.examples):
        raise KeyProblem(place, "found neither prompt nor examples", "one of them, or both")
    if isinstance(options, Cot) and options.shots and not options.examples:
        raise KeyProblem((*place, "shots"), f"found {options.shots} without examples", hint="name their file beside it")
    if isinstance(options, Beam):
        _refuse_beam(options, place, recipe)


def _refuse_bounds(given: dict[str, Any], place: tuple, recipe: Recipe) -> None:
    """Raise a KeyProblem where what an entry sets does not go with its other bounds, or with the recipe's."""
    bounds = {name: given.get(name) or recipe.values.get(name) or None for name in ("min_thinking", "thinking_budget")}
    bounds[MOST] = given.get(MOST) or recipe.get(MOST)
    for low, high in crossed_bounds(bounds):
        less, more = bounds[low], bounds[high]
        if low in given:
            most = f"fewer than {high} {more}" if high == MOST else f"{high} {more} or fewer"
            raise KeyProblem((*place, low), f"found {less}", most)
        if high in given:
            raise KeyProblem((*place, high), f"found {more}, and {low} {less}", f"more than {less}")


def _refuse_beam(options: Beam, place: tuple, recipe: Recipe) -> None:
    if not options.step:
        raise KeyProblem((*place, "step"), "found nothing", r'the text that ends a step, "\n" for example')
    if options.width % options.keep:
        raise KeyProblem((*place, "keep"), f"found {options.keep}", f"what divides the width {options.width}")
    for name in ("thinking_budget", "min_thinking"):
        own = getattr(options, name) is not None
        if own or recipe.values.get(name) is not None:
            hint = "leave it out: the steps of a beam are drawn one by one"
            raise KeyProblem((*place, name) if own else place, f"found with {name}", hint=hint)
    if asks_server(recipe):
        hint = "write engine: transformers, vllm or ray"
        raise KeyProblem(place, "found with engine: server, which cannot be made to stop after a step", hint=hint)


def _turns(file: str, shots: int | None, place: tuple) -> tuple[dict[str, str], ...]:
    """Read solved questions, the first so many or all, as turns of a conversation; raises a KeyProblem."""
    turns = list[dict[str, str]]()
    try:
        for number, row in enumerate(read_jsonl(Path(file))[:shots], 1):
            names = next((names for names in PAIRS if all(row.get(name) for name in names)), None)
            if names is None:
                raise KeyProblem(
                    place, f"found {file}, row {number}", "or ".join(f"{a} and {b}, " for a, b in PAIRS)[:-2]
                )
            said = zip(("user", "assistant"), (think.content(row[name]) for name in names), strict=True)
            turns += [{"role": role, "content": text} for role, text in said]
    except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
        if isinstance(error, KeyProblem):
            raise
        allowed = f"a file of JSON lines, {' or '.join(OURS)}"
        raise KeyProblem(place, f"found {file}, which cannot be read ({one_line(error)})", allowed) from error
    if len(turns) < 2 * (shots or 1):
        raise KeyProblem(place, f"found {file}, which holds {len(turns) // 2} examples", f"{shots or 1} or more")
    return tuple(turns)


def scorers_of(entries: Any) -> list[str]:
    """Return the spellings that stand as `by` in the entries of a recipe, right or wrong."""
    given = [one for entry in entries or [] if isinstance(entry, dict) for one in entry.values()]
    named = [one.get("by") for one in given if isinstance(one, dict)]
    return [str(next(iter(by), "") if isinstance(by, dict) else by) for by in named if by]


def need_logprobs(strategies: list[Strategy]) -> bool:
    """Tell whether a strategy scores by the log-probabilities of what is drawn."""
    scored = [one for one in strategies if getattr(one.options, "accept", "better") == "better"]
    return any(one.scorer is not None and one.scorer.name == MEAN_LOGPROB for one in scored)
