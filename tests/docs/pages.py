"""README and the pages of docs/, read as the tests of them need them."""

import re
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:reasoning-ext|python (?:benchmarks|docs|examples)/|make )[^`\n]*)`")
_PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b|\.\.\.")
_COMMENT = re.compile(r"(?:^|\s{2,})#.*")


@dataclass(frozen=True)
class Command:
    """A command of a page, without its comment: a line of a block `sh`, a whole script with `#!`, or `inline` in the text."""

    page: Path
    line: int
    text: str
    inline: bool = False

    def __str__(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}: {self.text.splitlines()[0]}"


def without_fences(text):
    """Return a page's prose: what stands in no block of code, on the lines on which it stands."""
    return _FENCE.sub(lambda block: "\n" * block[0].count("\n"), text)


def blocks(page, language):
    """Yield `(line, text)` of a page's blocks in a language."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        if found[1] == language:
            yield text[: found.start(2)].count("\n") + 1, found[2]


def commands():
    """Return every command of all pages, in their order."""
    found = []
    for page in PAGES:
        for start, block in blocks(page, "sh"):
            if block.startswith("#!"):
                found.append(Command(page, start, block))
                continue
            lines = enumerate(block.replace("\\\n", "  ").splitlines())
            found += [Command(page, start + i, text) for i, line in lines if (text := _COMMENT.sub("", line).strip())]
        for i, line in enumerate(without_fences(page.read_text(encoding="utf-8")).splitlines(), 1):
            named = [one for one in _INLINE.findall(line) if not _PLACEHOLDER.search(one)]
            found += [
                Command(page, i, text, inline=True)
                for text in named
                if len(text.split()) > 2 or text.startswith("make")
            ]
    return found
