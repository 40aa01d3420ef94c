"""What a tool is and what bounds it: what workers are told, so that little is imported for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reasoning_ext.recipe.plugins import Plugin

HOMES = ["reasoning_ext.tools.library"]


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What tools and environments have in common.

    Attributes:
        options: what the recipe sets of the function's parameters, or of those of `__init__`.
        folder: the recipe's, in which it runs.
        seconds: wall time that a call may take.
        memory_mb: addresses that a call may take beyond what the imports took, MiB; 0 for no limit.
        max_characters: of a result, the rest is cut off.
    """

    options: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path()
    seconds: float = 5.0
    memory_mb: int = 512
    max_characters: int = 4000


@dataclass(frozen=True)
class ToolSpec(Bounds):
    """A tool of a recipe.

    Attributes:
        plugin: the function.
        bounds_itself: the function takes `seconds` or `memory_mb` itself, and its process is killed ten seconds later.
    """

    plugin: Plugin
    bounds_itself: bool = False

    @property
    def name(self) -> str:
        """What the model calls it, and metrics."""
        return self.plugin.name

    @property
    def is_ours(self) -> bool:
        """Whether it is in our library."""
        return (self.plugin.module or "").startswith(HOMES[0])


@dataclass(frozen=True)
class EnvironmentSpec(Bounds):
    """The class of `environment`."""

    name: str
    file: Path
