"""What cards are made of: everything in them was written by somebody, and must neither command a reader nor tell of this machine.

In the header it goes through huggingface_hub's YAML writer, in the text through `plain`, which leaves nothing that Markdown or
HTML would read, or into a code block whose fence is longer than any in it. Secrets are taken out, and paths are shortened.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import yaml
from markupsafe import Markup

from reasoning_ext.runs.files import write_whole
from reasoning_ext.shown import visible, without_secrets

if TYPE_CHECKING:
    from huggingface_hub import CardData

CARD = "README.md"
MARKUP = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$])")


def write_card(folder: Path, header: CardData, parts: list[str]) -> None:
    """Write a folder's `README.md`: a header as the hub reads it, then the parts, an empty line between them."""
    text = "\n\n".join([f"---\n{header.to_yaml()}\n---", *parts])
    write_whole(folder / CARD, without_secrets(text + "\n"))


def render(template: str, **values: Any) -> str:
    """Fill in a template beside this file; every value is made `plain`, but for `Markup`."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    show = lambda value: value if isinstance(value, Markup) else plain(value)  # noqa: E731
    environment = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, finalize=show)
    return environment.get_template(template).render(**values).strip()


def shorten(name: str) -> str:
    """Write a path without what it tells of this machine: relative to the current folder, or its last two parts."""
    if not os.path.isabs(name):
        return name.replace(str(Path.home()) + os.sep, "~/")
    with_file, colon, function = name.partition(":")
    path = Path(with_file)
    here = Path.cwd()
    inside = path.is_relative_to(here) and path != here
    return (str(path.relative_to(here)) if inside else "/".join(["...", *path.parts[1:][-2:]])) + colon + function


def plain(text: Any) -> str:
    """Write a text so that Markdown and HTML show it as it is, in one line, and the words beside it stay in place."""
    said = visible(" ".join(without_secrets(shorten(str(text))).split()))  # before a token is escaped
    escaped = MARKUP.sub(r"\\\1", said).replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\&", "&amp;")
    from_the_right = any(unicodedata.bidirectional(letter) in ("R", "AL", "AN") for letter in said)
    return f"\u2068{escaped}\u2069" if from_the_right else escaped  # isolated: Markdown has no <bdi>


def table(rows: Sequence[Sequence[str]]) -> str:
    """Write rows of cells that are plain already as a table; the first one is its head."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def recipe_block(recipe: dict[str, Any]) -> Markup:
    """Return a recipe as a code block that no text inside it can end."""
    return code_block(yaml.safe_dump(_shortened(recipe), sort_keys=False, allow_unicode=True), "yaml")


def code_block(text: str, language: str = "") -> Markup:
    """Return a text as a code block that nothing inside it can end."""
    text = visible(text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}{language}\n{text.rstrip()}\n{fence}")


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {_shortened(k): _shortened(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_shortened(v) for v in value]
    return without_secrets(shorten(value)) if isinstance(value, str) else value


def license_of(name: str | None, kind: str = "model") -> str:
    """Return what the card of a model or data set says, if it is on this machine; nothing is asked from the network.

    Args:
        name: of the hub, or a folder.
        kind: `model` or `dataset`.
    """
    from huggingface_hub import RepoCard, try_to_load_from_cache

    if not name:
        return "unknown"
    try:
        card = Path(name) / CARD if Path(name).exists() else try_to_load_from_cache(name, CARD, repo_type=kind)
        if not isinstance(card, str | Path) or not Path(card).is_file():
            return "unknown"
        found = RepoCard.load(card).data.to_dict().get("license")
    except (ValueError, OSError, yaml.YAMLError):
        return "unknown"
    return found if isinstance(found, str) and re.fullmatch(r"[\w.\-]+", found) and found != "license" else "unknown"
