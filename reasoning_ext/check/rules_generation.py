"""What can be wrong with how a recipe's stage generates and selects, found before anything heavy is imported.

Every rule is a generator, named after what it forbids, as in `rules`; it asks for the recipe's rewards too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from reasoning_ext.check.rules import Problems, unknown_name, wrong_option
from reasoning_ext.errors import KeyProblem
from reasoning_ext.evaluate.strategies import parse_strategies
from reasoning_ext.recipe.engine_options import MOST, OPTIONS, ServerOptions, crossed_bounds, server_problems
from reasoning_ext.recipe.entries import asks_server
from reasoning_ext.recipe.keys import PAIR_KINDS, STEP_CHECK
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.records import ThinkingCurve
from reasoning_ext.recipe.trl_fields import dataclass_keys
from reasoning_ext.scoring.spec import RewardSpec

OUT = "leave it out"
# generation_kwargs that would undo what every engine decides by itself, and what to do instead
DECIDED = {
    **dict.fromkeys("num_beams eos_token_id pad_token_id use_cache max_time stop_strings".split(), OUT),
    **dict.fromkeys("return_dict_in_generate custom_generate logits_processor".split(), OUT),
    **dict.fromkeys("n num_return_sequences".split(), "write num_generations"),
    **dict.fromkeys("max_new_tokens max_length max_tokens".split(), "write max_completion_length"),
    "seed": "write the recipe's seed",
    "do_sample": "write temperature, where 0 takes the likeliest tokens",
}
SENT = ("model", "messages", "stream")  # and in a server's requests


def wrong_engine_option(recipe: Recipe, specs: list[RewardSpec]) -> Problems:
    """An option that the engine does not have, or a value that it cannot have."""
    if "engine" not in recipe.keys:
        return
    engine, given = recipe.get("engine"), recipe.get("engine_kwargs") or {}
    wrong = list(_option_problems(recipe, engine, given, ("engine_kwargs",)))
    yield from wrong
    if engine == "ray" and isinstance(inner := given.get("engine_kwargs") or {}, dict):
        yield from _option_problems(recipe, given.get("engine", "vllm"), inner, ("engine_kwargs", "engine_kwargs"))
    if engine == "server" and not wrong:
        for name, found, allowed in server_problems(ServerOptions(**given)):
            yield recipe.problem(("engine_kwargs", name), found, allowed)


def _option_problems(recipe: Recipe, engine: Any, given: dict[Any, Any], place: tuple) -> Problems:
    """Yield what is wrong with an engine's options: unknown names, values of the wrong type, numbers below 1."""
    known = dataclass_keys(OPTIONS[engine]) if isinstance(engine, str) and engine in OPTIONS else {}
    for name, value in given.items() if engine in [*OPTIONS] else ():
        path = (*place, name)
        if name not in known:
            yield unknown_name(recipe, path, f"option of engine {engine}", value, known)
        elif misfit := known[name].misfit(value):
            yield recipe.problem(path, misfit[0], f"{misfit[1]} (engine {engine})")
        elif engine != "server" and known[name].annotation in ("int", "float"):
            zero = name in ("num_gpus", "num_cpus")
            if not (math.isfinite(value) and (value >= 0 if zero else value > 0)):
                yield recipe.problem(path, f"found {value}", "0 or more" if zero else "above 0")


def unfit_for_engine(recipe: Recipe, specs: list[RewardSpec]) -> Problems:
    """A key that the engine cannot serve, or decides by itself."""
    if "engine" not in recipe.keys:
        return
    engine = recipe.get("engine")
    inner = (recipe.get("engine_kwargs") or {}).get("engine", "vllm") if engine == "ray" else engine
    if recipe.get("backend") == "unsloth" and engine != "transformers":
        yield recipe.problem("backend", f"found unsloth with engine: {engine}", "trl", "the engine loads the model")
    if inner in ("vllm", "server") and recipe.get("from_scratch"):
        yield recipe.problem("from_scratch", f"found true with engine: {engine}", "with transformers")
    arguments = recipe.get("generation_kwargs")
    decided = DECIDED | (dict.fromkeys(SENT, OUT) if engine == "server" else {})
    for name, value in arguments.items() if isinstance(arguments, dict) else ():
        taken_out = engine == "server" and value is None and name not in ("n", *SENT)  # a field that it does not know
        if name in decided and not taken_out:
            found = f"found {value!r}, which the engine decides"
            yield recipe.problem(("generation_kwargs", name), found, hint=decided[name])


def needs_tokenizer(recipe: Recipe, specs: list[RewardSpec]) -> Problems:
    """A reward that needs the ids of the tokens, which a server keeps to itself."""
    for i, spec in enumerate(specs if asks_server(recipe) else ()):
        if "completion_ids" in spec.plugin.required and not spec.plugin.is_factory:
            found = f"{spec.name} needs the ids of the tokens, which a server does not tell"
            yield recipe.problem(("reward_funcs", i), found, hint="write engine: vllm or transformers, or leave it out")


def missing_engine(recipe: Recipe) -> Problems:
    """The engine's package is not installed; asked before a run, since a recipe may be for elsewhere."""
    engine = recipe.get("engine") if "engine" in recipe.keys else None
    inner = (recipe.get("engine_kwargs") or {}).get("engine", "vllm") if engine == "ray" else engine
    for package in ("vllm", "ray"):
        if package in (engine, inner) and find_spec(package) is None:
            hint = f"pip install 'reasoning-ext[{package}]', or write transformers"
            yield recipe.problem("engine", f"found {engine}, but {package} is not installed", hint=hint)


def contradictory_selection(recipe: Recipe, specs: list[RewardSpec]) -> Problems:
    """Stage `sample` is told to keep, or to draw, what the other numbers do not leave."""
    if recipe.stage != "sample" or (each := recipe.get("num_generations") or 0) < 1:
        return
    for key, least in (("max_generations", each), ("num_generations", 3 if recipe.get("min_agreement") else 1)):
        if isinstance(value := recipe.get(key), int) and value < least:
            yield recipe.problem(key, f"found {value}", f"{least} or more, for what else is asked of a prompt")
    for key in ("min_generations", "diverse" if recipe.get("diverse") else "keep"):
        if isinstance(value := recipe.get(key), int) and value > each:
            yield recipe.problem(key, f"found {value}", f"num_generations {each} or fewer")
    if recipe.get("diverse") is not None and "keep" in recipe.values:
        yield recipe.problem("diverse", f"found {recipe.get('diverse')} beside keep", "one of the two")
    if recipe.get("temperature") == 0 and each > 1:
        found = f"found 0 with num_generations {each}, which would all be the same"
        yield recipe.problem("temperature", found, hint="write 1.0, or 1 generation")


def wrong_pairs(recipe: Recipe, specs: list[RewardSpec]) -> Problems:
    """pairs has an unknown kind, no number of pairs, or pairs by steps without the reward that judges steps."""
    for kind, count in (recipe.values.get("pairs") or {}).items():
        place = ("pairs", kind)
        if kind not in PAIR_KINDS:
            yield unknown_name(recipe, place, "kind", count, PAIR_KINDS)
        elif isinstance(count, bool) or not isinstance(count, int) or count < 0:
            yield recipe.problem(place, f"found {count!r}", "pairs a prompt, 0 or more")
        elif kind == "steps" and count and STEP_CHECK not in [spec.name for spec in specs]:
            found = f"found {count} without the reward {STEP_CHECK}, which says whose steps hold"
            yield recipe.problem(place, found, hint="add it to reward_funcs, with weight: 0.0 to measure alone")


def wrong_strategy(recipe: Recipe, specs: list[RewardSpec]) -> Problems:
    """strategies has an unknown one, a wrong option, or a scorer that reads the gold."""
    wrong = list[KeyProblem]()
    if "strategies" in recipe.keys:
        parse_strategies(recipe, specs, wrong)
    yield from map(recipe.placed, wrong)


def wrong_difficulty(recipe: Recipe, specs: list[RewardSpec]) -> Problems:
    """difficulty is not two pass rates, the lower one first."""
    bounds = recipe.values.get("difficulty")
    if bounds is None:
        return
    numbers = [b for b in bounds if isinstance(b, int | float) and not isinstance(b, bool) and 0 <= b <= 1]
    if len(bounds) != 2 or len(numbers) != 2 or bounds[0] > bounds[1]:
        yield recipe.problem("difficulty", f"found {bounds}", "the least and the highest pass rate, [0.1, 0.9]")


def wrong_thinking(recipe: Recipe, specs: list[RewardSpec]) -> Problems:
    """A thinking budget leaves no room for an answer, is below the least thought, or keep_forced has no effect."""
    budget, least = recipe.values.get("thinking_budget"), recipe.values.get("min_thinking")
    bounds = {"thinking_budget": budget, "min_thinking": least}
    bounds |= {MOST: recipe.get(MOST)} if bounds.keys() & recipe.keys.keys() else {}
    for low, high in crossed_bounds(bounds):
        fewer = f"fewer tokens than {high} {bounds[high]}, which hold the answer"
        allowed = fewer if high == MOST else f"{high} {bounds[high]} or fewer"
        yield recipe.problem(low, f"found {bounds[low]}", allowed)
    kwargs = recipe.values.get("generation_kwargs") or {}
    if (budget or least) and (limit := kwargs.get("max_completion_tokens")) is not None:
        found = f"found {limit} beside a thinking budget, whose rounds have limits of their own"
        yield recipe.problem(("generation_kwargs", "max_completion_tokens"), found, hint=OUT)
    if recipe.values.get("keep_forced") and budget is least is None:
        found = "found true without thinking_budget or min_thinking, which alone force tokens"
        yield recipe.problem("keep_forced", found, hint=OUT)


def wrong_thinking_curve(recipe: Recipe, specs: list[RewardSpec]) -> Problems:
    """thinking_curve has an unknown name, shares that cut nothing or all, or budgets that no thought can have."""
    given, known = recipe.values.get("thinking_curve"), dataclass_keys(ThinkingCurve)
    for name, value in given.items() if isinstance(given, dict) else ():
        place = ("thinking_curve", name)
        if wrong := wrong_option(recipe, place, name, value, known):
            yield wrong
        elif name == "shares" and not all(0 < share < 1 for share in value):
            yield recipe.problem(place, f"found {value}", "shares above 0 and below 1")
        elif name == "budgets" and value is not None:
            most = recipe.get("max_completion_length") or math.inf
            if not all(1 <= budget <= most for budget in value):
                yield recipe.problem(place, f"found {value}", f"tokens from 1 to max_completion_length: {most}")


RULES: tuple[Callable[[Recipe, list[RewardSpec]], Problems], ...] = (
    wrong_engine_option, unfit_for_engine, needs_tokenizer, contradictory_selection, wrong_pairs, wrong_difficulty,
    wrong_strategy, wrong_thinking, wrong_thinking_curve,
)  # fmt: skip
