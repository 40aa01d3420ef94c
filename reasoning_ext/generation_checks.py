"""What can be wrong with how a recipe's stage generates and selects, found before anything heavy is imported.

Every check is a generator that yields the errors it finds, as in `combinations`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from reasoning_ext.engines.options import OPTIONS, ServerOptions, server_problems
from reasoning_ext.fields import dataclass_keys
from reasoning_ext.recipe import Recipe, RecipeError
from reasoning_ext.reward_loading import RewardSpec
from reasoning_ext.sampling.outputs import KINDS, STEPS

Errors = Iterator[RecipeError]
NEEDS_IDS = "completion_ids"
# generation_kwargs that would undo what every engine decides by itself, and what to do instead
DECIDED = {
    "seed": "write the recipe's seed",
    "n": "write num_generations",
    "num_return_sequences": "write num_generations",
    "max_new_tokens": "write max_completion_length",
    "max_length": "write max_completion_length",
    "max_tokens": "write max_completion_length",
    "do_sample": "write temperature, where 0 takes the likeliest tokens",
    "num_beams": "leave it out, each completion is drawn by itself",
    "eos_token_id": "leave it out, a completion ends where the model's turn does",
    "pad_token_id": "leave it out, the tokenizer's is taken",
    "use_cache": "leave it out, the engine keeps the cache",
    "max_time": "leave it out, a completion that is cut off by the clock is another one each time",
    "stop_strings": "leave it out, or write stop with engine: server",
    "return_dict_in_generate": "leave it out",
    "custom_generate": "leave it out",
    "logits_processor": "leave it out",
}
SENT = dict.fromkeys(("model", "messages", "stream"), "leave it out")  # and in a server's requests
OUT = "leave it out"
VLLM_KEYS = dict.fromkeys(
    ("vllm_gpu_memory_utilization", "vllm_max_model_length", "vllm_tensor_parallel_size", "vllm_model_impl"), OUT
)
WEIGHTS = dict.fromkeys(
    ("attn_implementation", "max_seq_length", "bnb_4bit_quant_type", "bnb_4bit_quant_storage", "use_bnb_nested_quant"),
    OUT,
)
SERVERS_OWN = ("load_in_4bit", "load_in_8bit", "model_revision", "model_init_kwargs", "dtype", "trust_remote_code")
# keys of the stages that an engine never looks at, so that who writes one would be mistaken about what it does; what to do
UNREAD: dict[str, dict[str, str]] = {
    "transformers": VLLM_KEYS,
    "vllm": WEIGHTS
    | {
        "load_in_8bit": "write load_in_4bit, or name weights that are stored so",
        "model_init_kwargs": "write engine_kwargs: {engine_args: ...}",
    },
    "server": WEIGHTS | VLLM_KEYS | dict.fromkeys(SERVERS_OWN, OUT),
}


def asks_server(recipe: Recipe) -> bool:
    """Tell whether a server answers the recipe's prompts, so that neither model nor tokenizer is here."""
    return "engine" in recipe.keys and recipe.get("engine") == "server"


def engine_errors(recipe: Recipe, specs: list[RewardSpec]) -> Errors:
    """Yield what is wrong with a recipe's engine, its options, or rewards that it cannot serve.

    Args:
        recipe: of a stage that generates.
        specs: its rewards.
    """
    engine, given = recipe.get("engine"), recipe.get("engine_kwargs") or {}
    wrong = list(option_errors(recipe, engine, given, ("engine_kwargs",)))
    yield from wrong
    inner = given.get("engine", "vllm") if engine == "ray" else engine  # what generates
    if engine == "ray" and isinstance(given.get("engine_kwargs"), dict):
        yield from option_errors(recipe, inner, given["engine_kwargs"], ("engine_kwargs", "engine_kwargs"))
    if recipe.get("backend") == "unsloth" and engine != "transformers":
        yield recipe.error("backend", f"found unsloth with engine: {engine}, allowed: trl; the engine loads the model")
    if inner in ("vllm", "server") and recipe.get("from_scratch"):
        yield recipe.error("from_scratch", f"found true with engine: {engine}, allowed: with transformers")
    name = f"{engine} over {inner}" if engine == "ray" else engine
    for key, todo in UNREAD.get(inner, {}).items() if isinstance(inner, str) else ():
        if key in recipe.keys and (value := recipe.values.get(key)):  # what is null, false or empty asks for nothing
            yield recipe.error(key, f"found {value} with engine: {name}, which does not read it; {todo}")
    decided = DECIDED | (SENT if engine == "server" else {})
    for name, value in (recipe.get("generation_kwargs") or {}).items():
        taken_out = engine == "server" and value is None and name not in ("n", *SENT)  # a field that it does not know
        if name in decided and not taken_out:
            problem = f"found {value!r}, which the engine decides; {decided[name]}"
            yield recipe.error(("generation_kwargs", name), problem)
    if engine == "server":
        yield from _server_errors(recipe, specs)
        for line in [] if wrong else server_problems(ServerOptions(**given)):
            name, _, text = line.partition(": ")
            yield recipe.error(("engine_kwargs", name), text)


def missing_engine(recipe: Recipe) -> Errors:
    """Yield an error where the engine's package is not installed; asked before a run, since a recipe may be for elsewhere."""
    engine = recipe.get("engine") if "engine" in recipe.keys else ""
    inner = (recipe.get("engine_kwargs") or {}).get("engine", "vllm") if engine == "ray" else engine
    for package in dict.fromkeys((engine, inner)):
        if package in ("vllm", "ray") and find_spec(package) is None:
            todo = f"pip install 'reasoning-ext[{package}]', or write transformers"
            yield recipe.error("engine", f"found {engine}, but {package} is not installed; {todo}")


def option_errors(recipe: Recipe, engine: Any, given: dict[Any, Any], place: tuple) -> Errors:
    """Yield what is wrong with an engine's options: unknown names, values of the wrong type, numbers below 1.

    Args:
        recipe: the recipe.
        engine: the engine's name; nothing is said where it is none.
        given: the options.
        place: where in the recipe they stand.
    """
    if engine not in OPTIONS:
        return
    known = dataclass_keys(OPTIONS[engine])
    for name, value in given.items():
        path = (*place, name)
        if name not in known:
            near = difflib.get_close_matches(str(name), list(known), 1, cutoff=0.0)
            hint = f"; the nearest is {near[0]}" if near else "; it has none"
            yield recipe.error(path, f"unknown option of engine {engine} (found {name}: {value!r}){hint}")
        elif problem := known[name].problem(value):
            yield recipe.error(path, f"{problem} (engine {engine})")
        elif engine != "server" and known[name].annotation in ("int", "float"):
            least = "0 or more" if name in ("num_gpus", "num_cpus") else "above 0"
            if not math.isfinite(value) or value < 0 or (value == 0 and least == "above 0"):
                yield recipe.error(path, f"found {value}, allowed: {least}")


def _server_errors(recipe: Recipe, specs: list[RewardSpec]) -> Errors:
    """A server has the tokenizer and the template; what would need them here cannot be had."""
    for key in ("max_prompt_length", "chat_template_path"):
        if key in recipe.keys and (value := recipe.values.get(key)) is not None:
            yield recipe.error(key, f"found {value} with engine: server, allowed: where the tokenizer is here")
    for i, spec in enumerate(specs):
        if NEEDS_IDS in spec.plugin.required and not spec.plugin.is_factory:
            problem = f"{spec.name} needs the ids of the tokens, which a server does not tell"
            yield recipe.error(("reward_funcs", i), f"{problem}; write engine: vllm or transformers, or leave it out")


def selection_errors(recipe: Recipe, specs: list[RewardSpec]) -> Errors:
    """Yield what is wrong with how stage `sample` spends its completions and chooses among them.

    Args:
        recipe: of stage sample.
        specs: its rewards.
    """
    for kind, count in (recipe.get("pairs") or {}).items():
        if kind not in KINDS:
            near = difflib.get_close_matches(str(kind), KINDS, 1, cutoff=0.0)[0]
            yield recipe.error(("pairs", kind), f"unknown kind (found {kind}: {count!r}); the nearest is {near}")
        elif isinstance(count, bool) or not isinstance(count, int) or count < 0:
            yield recipe.error(("pairs", kind), f"found {count!r}, allowed: pairs a prompt, 0 or more")
        elif kind == "steps" and count and STEPS not in [spec.name for spec in specs]:
            problem = f"found {count} without the reward {STEPS}, which says whose steps hold"
            yield recipe.error(("pairs", kind), f"{problem}; add it to reward_funcs, with weight: 0.0 to measure alone")
    each, diverse, agreement = (recipe.get(key) for key in ("num_generations", "diverse", "min_agreement"))
    if not each or each < 1:
        return  # said by `combinations.count_errors`
    for key, beyond, allowed in (("min_generations", int.__gt__, "fewer"), ("max_generations", int.__lt__, "more")):
        value = recipe.get(key)
        if value is not None and value < 1:
            yield recipe.error(key, f"found {value}, allowed: 1 or more")
        elif value is not None and key in recipe.values and not recipe.get("adaptive"):
            todo = "which it belongs to; write that, or leave it out"
            yield recipe.error(key, f"found {value} without adaptive: true, {todo}")
        if value is not None and beyond(value, each):
            yield recipe.error(key, f"found {value}, allowed: num_generations {each} or {allowed}")
    if diverse is not None and diverse < 1:
        yield recipe.error("diverse", f"found {diverse}, allowed: 1 or more")
    if diverse is not None and "keep" in recipe.values:
        yield recipe.error("diverse", f"found {diverse} beside keep: {recipe.get('keep')}, allowed: one of the two")
    if (enough := diverse or recipe.get("keep")) > each:
        yield recipe.error(
            "diverse" if diverse else "keep", f"found {enough}, allowed: num_generations {each} or fewer"
        )
    if agreement is not None and not 0 < agreement <= 1:
        yield recipe.error("min_agreement", f"found {agreement}, allowed: a share above 0 and up to 1")
    elif agreement is not None and each < 3:
        yield recipe.error("num_generations", f"found {each} with min_agreement, allowed: 3 or more, which can agree")
    if recipe.get("temperature") == 0 and each > 1:
        problem = f"found 0 with num_generations {each}, which would all be the same; write 1.0, or 1"
        yield recipe.error("temperature", problem)


def difficulty_errors(recipe: Recipe) -> Errors:
    """Yield what is wrong with `difficulty`."""
    bounds = recipe.get("difficulty") if "difficulty" in recipe.keys else None
    if bounds is None:
        return
    numbers = [b for b in bounds if isinstance(b, int | float) and not isinstance(b, bool) and 0 <= b <= 1]
    if len(bounds) != 2 or len(numbers) != 2 or bounds[0] > bounds[1]:
        yield recipe.error("difficulty", f"found {bounds}, allowed: the least and the highest pass rate, [0.1, 0.9]")
