"""What a stage makes of its recipe to answer prompts: the engine that the key `engine` names, its options, the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reasoning_ext.engines.base import Engine, EngineError, SamplingSettings
from reasoning_ext.engines.thinking import ThinkingEngine
from reasoning_ext.models.source import ModelSource, model_source
from reasoning_ext.recipe.engine_options import OPTIONS
from reasoning_ext.recipe.trl_fields import GRPO_CONFIG

if TYPE_CHECKING:
    from reasoning_ext.recipe.load import Recipe

SETTINGS = ("max_completion_length", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
OURS = ("thinking_budget", "min_thinking")  # keys of the stages that answer prompts without training


def open_engine(recipe: Recipe, name: str | None = None, **overrides: Any) -> Engine:
    """Open the engine of a recipe for its model, or for one of another name, with `from_scratch` in the recipe's place.

    Raises:
        ModelError, TokenizerError, ContractError: the model cannot be had.
        EngineError: the engine cannot be opened, or cannot serve this model.
    """
    options, engine = engine_options(recipe), engine_name(recipe)
    if engine == "server":
        from reasoning_ext.engines.server import ServerEngine

        served = name or recipe.values["model_name_or_path"]
        if problem := server_problem(recipe, served):
            raise EngineError("engine_kwargs", problem)
        return ThinkingEngine(ServerEngine(served, options, recipe.get("think_tags")))
    source = model_source(recipe.values, recipe.local, False, name, **overrides)
    if engine == "ray":
        from reasoning_ext.engines.ray import RayEngine

        return RayEngine(source, options, open_local)
    return open_local(engine, source, options)


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
    values |= {name: recipe.get(name) or {} for name in ("generation_kwargs", "chat_template_kwargs")}
    return SamplingSettings(**values)


def engine_name(recipe: Recipe) -> str:
    """Return what answers a recipe's prompts; stages without the key have the model in their own process."""
    return recipe.get("engine") if "engine" in recipe.keys else "transformers"


def engine_options(recipe: Recipe) -> Any:
    """Return the options of a recipe's engine, one of the classes of `recipe.engine_options`."""
    values = recipe.get("engine_kwargs") if "engine_kwargs" in recipe.keys else None
    return OPTIONS[engine_name(recipe)](**(values or {}))
