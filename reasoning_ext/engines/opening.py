"""What a stage makes of its recipe to answer prompts: the engine that the key `engine` names, its options, the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reasoning_ext.engines.base import Engine, EngineError, SamplingSettings
from reasoning_ext.engines.thinking import ThinkingEngine
from reasoning_ext.models.source import ModelSource, model_source
from reasoning_ext.recipe.engine_options import OPTIONS
from reasoning_ext.recipe.keys import Answered
from reasoning_ext.recipe.trl_fields import GRPO_CONFIG
from reasoning_ext.tools.spec import has_tools, parse_environment, parse_tools, template_kwargs

if TYPE_CHECKING:
    from reasoning_ext.engines.tools import Told
    from reasoning_ext.recipe.load import Recipe
    from reasoning_ext.tools.box import Toolbox

SETTINGS = ("max_completion_length", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
OURS = ("thinking_budget", "min_thinking")  # keys of the stages that answer prompts without training
ITERATIONS = "max_tool_calling_iterations"


def open_engine(recipe: Recipe, name: str | None = None, rows: Any = (), **overrides: Any) -> Engine:
    """Open the engine of a recipe for its model, or for one of another name, with `from_scratch` in the recipe's place.

    `rows` are the data set's, by the numbers of the prompts, which an environment is reset with.

    Raises:
        ModelError, TokenizerError, ContractError: the model cannot be had.
        EngineError: the engine cannot be opened, or cannot serve this model.
    """
    options, engine, acts = engine_options(recipe), engine_name(recipe), has_tools(recipe)
    if engine == "server":
        from reasoning_ext.engines.server import ServerEngine

        served = name or recipe.values["model_name_or_path"]
        if problem := server_problem(recipe, served):
            raise EngineError("engine_kwargs", problem)
        return with_tools(ThinkingEngine(ServerEngine(served, options, recipe.get("think_tags"), acts)), recipe, rows)
    source = recipe_source(recipe, name, **overrides)
    if engine == "ray":
        from reasoning_ext.engines.ray import RayEngine

        on_ray = RayEngine(source, options, open_local)
        if acts:
            on_ray.tokenizer, on_ray.contract = source.load_tokenizer()
        return with_tools(on_ray, recipe, rows)
    return with_tools(open_local(engine, source, options), recipe, rows)


def recipe_source(recipe: Recipe, name: str | None = None, **overrides: Any) -> ModelSource:
    """Return the model that a recipe's prompts are answered by, with the recipe's tools in its template's arguments."""
    overrides["chat_template_kwargs"] = template_kwargs(recipe)
    return model_source(recipe.values, recipe.local, False, name, **overrides)


def with_tools(
    engine: Engine, recipe: Recipe, rows: Any = (), told: Told | None = None, box: Toolbox | None = None
) -> Engine:
    """Let an engine's completions call the tools of a recipe, if it has any; `rows` and `told` are as in `ToolEngine`.

    The tools are those in `box`, where that is given.
    """
    if not (box := box or toolbox(recipe)):
        return engine
    most = recipe.get(ITERATIONS) if ITERATIONS in recipe.keys else None
    from reasoning_ext.engines.tools import ToolEngine

    return ToolEngine(engine, box, most or Answered.max_tool_calling_iterations, rows, told)


def toolbox(recipe: Recipe) -> Toolbox | None:
    """Return the tools and the environment of a recipe, None where it has none."""
    from reasoning_ext.tools.box import Toolbox

    return Toolbox(parse_tools(recipe), parse_environment(recipe)) if has_tools(recipe) else None


def open_local(engine: str, source: ModelSource, options: Any) -> Engine:
    """Open the engine `transformers` or `vllm`, which have their model on this machine; raises as `open_engine`.

    Ray's workers do so too, and bound thoughts where the tokenizer is.
    """
    if engine == "vllm":
        from reasoning_ext.engines.vllm import VllmEngine

        return ThinkingEngine(VllmEngine(source, options))
    from reasoning_ext.engines.transformers import TransformersEngine

    return ThinkingEngine(TransformersEngine(source.load(), source.batch_size))


def server_problem(recipe: Recipe, model: str) -> str:
    """Ask a recipe's server whether it answers and serves a model; return "" or one line on why not."""
    from reasoning_ext.engines.server import reachable

    return reachable(model, engine_options(recipe))


def sampling_settings(recipe: Recipe, **changed: Any) -> SamplingSettings:
    """Return how a recipe's completions are drawn, with some values changed."""
    written = recipe.config_values(GRPO_CONFIG)  # as TRL gets them, a temperature of 2 as 2.0
    values: dict[str, Any] = {name: written.get(name, recipe.get(name)) for name in SETTINGS}
    values |= {name: recipe.get(name) for name in OURS if name in recipe.keys} | changed
    values["generation_kwargs"] = recipe.get("generation_kwargs") or {}
    return SamplingSettings(**values, chat_template_kwargs=template_kwargs(recipe))


def engine_name(recipe: Recipe) -> str:
    """Return what answers a recipe's prompts; stages without the key have the model in their own process."""
    return recipe.get("engine") if "engine" in recipe.keys else "transformers"


def engine_options(recipe: Recipe) -> Any:
    """Return the options of a recipe's engine, one of the classes of `recipe.engine_options`."""
    values = recipe.get("engine_kwargs") if "engine_kwargs" in recipe.keys else None
    return OPTIONS[engine_name(recipe)](**(values or {}))
