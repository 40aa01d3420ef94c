"""What a recipe can name: rewards, formats, other recipes, and keys, a line each, read off their sources."""

import ast
from collections.abc import Iterator
from pathlib import Path

from reasoning_ext.data.format import FORMATS
from reasoning_ext.errors import UserError
from reasoning_ext.recipe.keys import STAGES
from reasoning_ext.recipe.known_keys import MANAGED, stage_keys
from reasoning_ext.recipe.load import expand
from reasoning_ext.recipe.plugins import functions_at
from reasoning_ext.recipe.trl_fields import first_sentence
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
        if not Path("recipes").is_dir():
            raise UserError("list: found no folder recipes here, allowed: the folder of a checkout of reasoning-ext")
        for group in sorted(path for path in Path("recipes").iterdir() if path.is_dir()):
            for file in expand(group):
                yield f"{file!s:<34} {file.read_text(encoding='utf-8').splitlines()[0].removeprefix('#').strip()}"
    elif kind == "keys":
        keys = {name: key for one in reversed([stage] if stage else STAGES) for name, key in stage_keys(one).items()}
        for name in sorted(keys.keys() - MANAGED.keys()):
            key = keys[name]
            default = "" if key.default is None else f" Default: {key.default}."
            place = key.owner if " of " in key.owner else f"{key.owner} of reasoning_ext.recipe.keys"
            yield _line(name, key.text + default, place)
    else:
        for name, file, node in functions_at(HOMES if kind == "rewards" else [FORMATS]):
            yield _line(name, first_sentence(ast.get_docstring(node) or ""), f"{file}:{node.lineno}")


def _line(name: str, text: str, place: str) -> str:
    return f"{name:<34} {text}  [{place}]"
