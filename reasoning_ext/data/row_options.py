"""What a recipe says about its rows, as frozen records: where they are, how they are read, which are left out."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasoning_ext.data.filters import TraceFilters
from reasoning_ext.data.sources import is_generator, local_source
from reasoning_ext.recipe.entries import TASK, entries
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.folder import DONE
from reasoning_ext.tools.spec import has_tools

TRAIN, TEST = "dataset_train_split", "dataset_test_split"


@dataclass(frozen=True)
class Source:
    """One data set, called `name` in the recipe; `path` is where it is.

    Attributes:
        named: the keys that are set for it, in the recipe or its entry.
        index: its place in `datasets`, None where the recipe has one data set.
        of_all: the keys that the recipe sets for all entries.
        reading, formatting: arguments of `sources.load_rows` and `data.format_rows`.
        extra: columns that each row of an entry gets.
        tooled: the recipe has tools, of which prompts may hold calls.
    """

    name: str
    path: str
    folder: Path
    stage: str
    splits: dict[str, str]
    named: frozenset[str]
    index: int | None
    of_all: frozenset[str]
    max_samples: int | None
    test_size: float | None
    format: str | None
    reading: dict[str, Any]
    formatting: dict[str, Any]
    weight: float | None
    num_rows: int | None
    extra: dict[str, Any]
    tooled: bool = False

    def at(self, key: str) -> Any:
        """Return the path of a key in the recipe: within the entry, unless the recipe sets it for all entries."""
        return key if self.index is None or key in self.of_all else ("datasets", self.index, key)


@dataclass(frozen=True)
class RowOptions:
    """Everything that is done to a recipe's rows.

    `key` names the data: `dataset_name`, or `datasets` for a mixture, which `max_samples` is of. `agrees`: prompts
    without a gold are answered too, with the answer that most completions have. `rewards` are spelled as they are there.
    """

    stage: str
    folder: Path
    seed: int
    key: str
    sources: tuple[Source, ...]
    max_samples: int | None
    difficulty: list[float] | None
    agrees: bool
    trace_filters: TraceFilters | None
    deduplicate: str | None
    decontaminate: list[Any]
    rewards: tuple[str, ...]

    def local(self, name: str) -> str:
        """Resolve a path that starts with `./` or `../` as the recipe does; leave anything else alone."""
        return os.path.abspath(self.folder / name) if name.startswith(("./", "../")) else name


def row_options(recipe: Recipe) -> RowOptions:
    """Read off a recipe what it says about its rows.

    Raises:
        UserError: an entry of `datasets` is wrong.
    """

    def get(key: str) -> Any:
        return recipe.get(key) if key in recipe.keys else None

    mixed, rewards = get("datasets") is not None, get("reward_funcs") or []
    rewards = [rewards] if isinstance(rewards, str) else rewards
    return RowOptions(
        stage=recipe.stage,
        folder=recipe.folder,
        seed=get("seed"),
        key="datasets" if mixed else "dataset_name",
        sources=tuple(_source(entry, i if mixed else None) for i, entry in enumerate(entries(recipe))),
        max_samples=get("max_samples") if mixed else None,
        difficulty=get("difficulty"),
        agrees=get("min_agreement") is not None,
        trace_filters=TraceFilters(**get("trace_filters")) if get("trace_filters") else None,
        deduplicate=None if get("deduplicate") == "none" else get("deduplicate"),
        decontaminate=get("decontaminate") or [],
        rewards=tuple(next(iter(entry)) if isinstance(entry, dict) else entry for entry in rewards),
    )


def _source(entry: Recipe, index: int | None) -> Source:
    get, name, seed = entry.get, entry.get("dataset_name"), {"seed": entry.get("seed")}
    own = entry.values if index is not None else {}  # what only the entries of a mixture have
    return Source(
        name=name,
        path=name if is_generator(name) else entry.local(name),
        folder=entry.folder,
        stage=entry.stage,
        splits={key: get(key) for key in (TRAIN, TEST) if key in entry.keys},
        named=frozenset(entry.values),
        index=index,
        of_all=frozenset(entry.values) - frozenset(getattr(entry, "own", ())),
        max_samples=get("max_samples"),
        test_size=get("test_size"),
        format=get("dataset_format"),
        reading={
            "config": get("dataset_config"),
            "gen_kwargs": seed | (get("gen_kwargs") or {}),
            "streaming": get("dataset_streaming"),
            "stage": entry.stage,
            "test_size": get("test_size"),
            "renamed": get("rename_columns"),
        },
        formatting={
            "system_prompt": get("system_prompt"),
            "rename": get("rename_columns"),
            "options": seed | (get("format_kwargs") or {}),
            "turns": get("assistant_turns") if "assistant_turns" in entry.keys else "last",
        },
        weight=own.get("weight"),
        num_rows=own.get("num_rows"),
        extra={key: own[key] for key in (TASK, "chat_template_kwargs") if own.get(key)},
        tooled=has_tools(entry),
    )


def reads_earlier(recipe: Recipe, made: Iterable[Path]) -> bool:
    """Tell whether a data set is the output of a recipe that has yet to run, which makes one of some folders."""
    made = {Path(path).resolve() for path in made}
    return any(Path(name).resolve() in made and not (Path(name) / DONE).is_file() for name in _names(recipe))


def on_hub(recipe: Recipe) -> bool:
    """Tell whether a data set of a recipe is on the hub."""
    return any(is_hub_name(name) for name in _names(recipe))


def _names(recipe: Recipe) -> list[str]:
    return [entry.local(name) for entry in entries(recipe) if (name := entry.get("dataset_name"))]


def is_hub_name(name: str) -> bool:
    """Tell whether a data set's name is the hub's: no function, no file and no folder here."""
    return not is_generator(name) and ":" not in name and local_source(name) is None
