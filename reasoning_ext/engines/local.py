"""The engines that have their model on this machine; what one needs is imported when it is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reasoning_ext.engines.base import Engine
    from reasoning_ext.models.source import ModelSource


def open_engine(engine: str, source: ModelSource, options: Any) -> Engine:
    """Open an engine that has its model in this process or beside it.

    Args:
        engine: `transformers` or `vllm`.
        source: the model.
        options: of the engine, one of the classes of `recipe.engine_options`.

    Raises:
        ModelError, TokenizerError, ContractError: the model cannot be had.
        EngineError: the engine cannot be opened, or cannot serve this model.
    """
    if engine == "vllm":
        from reasoning_ext.engines.vllm import VllmEngine

        return VllmEngine(source, options)
    from reasoning_ext.engines.transformers import TransformersEngine

    return TransformersEngine(source.load(), source.batch_size)
