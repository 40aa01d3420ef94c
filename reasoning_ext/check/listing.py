"""What a recipe can name: rewards, formats, other recipes, and keys, a line each, read off their sources."""

import ast
from collections.abc import Iterator
from pathlib import Path

from reasoning_ext.check.schema import first_sentence, key_texts
from reasoning_ext.data.format import FORMATS
from reasoning_ext.errors import UserError
from reasoning_ext.recipe.keys import STAGES
from reasoning_ext.recipe.known_keys import MANAGED, stage_keys
from reasoning_ext.recipe.load import expand
from reasoning_ext.recipe.plugins import functions_at
from reasoning_ext.scoring.spec import HOMES

KINDS = ("rewards", "formats", "recipes", "keys")


def listed(kind: str, stage: str | None = None) -> Iterator[str]:
    """Yield a line each: a name, what it does, where its text stands.

    Args:
        kind: one of `KINDS`.
        stage: keys of this stage alone.

    Raises:
        UserError: there is no such kind or stage, or no folder `recipes` here.
    """
    if kind not in KINDS:
        raise UserError(f"list: found {kind}, allowed: {', '.join(KINDS)}")
    if stage is not None and (kind != "keys" or stage not in STAGES):
        raise UserError(f"list: found {kind} {stage}, allowed: keys, and one of {', '.join(STAGES)}")
    if kind == "recipes":
        return _recipes(Path("recipes"))
    if kind == "keys":
        return _keys([stage] if stage else list(STAGES))
    return _functions(HOMES if kind == "rewards" else [FORMATS])


def _functions(homes: list[str]) -> Iterator[str]:
    for name, file, node in functions_at(homes):
        yield _line(name, first_sentence(ast.get_docstring(node) or ""), f"{file}:{node.lineno}")


def _recipes(folder: Path) -> Iterator[str]:
    if not folder.is_dir():
        raise UserError("list: found no folder recipes here, allowed: the folder of a checkout of reasoning-ext")
    for group in sorted(path for path in folder.iterdir() if path.is_dir()):
        for file in expand(group):
            first = file.read_text(encoding="utf-8").split("\n", 1)[0]
            yield f"{file!s:<34} {first.removeprefix('#').strip()}"


def _keys(stages: list[str]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for stage in stages:
        keys = stage_keys(stage)
        texts = key_texts(keys)
        for name, key in keys.items():
            if name not in MANAGED:
                default = "" if key.default is None else f" Default: {key.default}."
                place = key.owner if " of " in key.owner else f"{key.owner} of reasoning_ext.recipe.keys"
                seen.setdefault(name, _line(name, texts.get(name, "") + default, place))
    yield from (seen[name] for name in sorted(seen))


def _line(name: str, text: str, place: str) -> str:
    return f"{name:<34} {text}  [{place}]"
