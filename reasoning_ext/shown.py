"""What a terminal and a run's files are given: text that cannot command the terminal, and values without passwords.

Models, data, file names and servers may say anything: titles, the clipboard, cleared screens, overwritten lines, turned words.
Whatever the package prints goes through `print` of this module, which writes such characters as Python would in a string.
"""

from __future__ import annotations

import builtins
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

# control characters but newline and tab, marks and overrides of direction, separators, joiners, tags, halves of surrogate pairs
HIDDEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f]"
    r"|[\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]|\r(?!\n)"
    r"|(?<![^\x00-\x7f])[\u200c\u200d\ufe00-\ufe0f]"
)
SECRET_NAME = re.compile(
    r"(?i)(?:^|[-_.])(?:api[-_]?key|password|passwd|secret|authorization|(?:access|auth|hub|hf|api|bearer)[-_]?token)$|^token$"
)
SECRETS = {
    # user and password
    re.compile(r"(?<=://)(?:[^\s/?#'\"]{0,200}|[^\s/@:'\"]{1,200}:[^\s'\"]{0,200})@(?=[^\s/@])"): "",
    re.compile(
        r"(?i)([?&](?:(?:[\w-]*[_-])?(?:apikey|key|token|secret)|password|sig|signature)=)[^&\s'\"]+"
    ): r"\1[redacted]",
    re.compile(r"(?i)(\bauthorization\W+bearer\s+|\bbearer\s+(?=[\w.~+/=-]{0,200}\d))[\w.~+/=-]{8,}"): r"\1[redacted]",
    re.compile(r"\bsk-(?:(?:proj|ant|svcacct|admin|or)-[\w-]{12,}|[A-Za-z0-9]{20,})|\bnvapi-[\w-]{20,}"): "[redacted]",
    re.compile(
        r"\b(?:hf|gsk|r8|api_org|gh[pousr])_[A-Za-z0-9]{12,}|\bgithub_pat_\w{20,}|\bAKIA[0-9A-Z]{16}\b"
    ): "[redacted]",
    re.compile(r"\bAIza[\w-]{30,}|\bxox[abprs]-[\w-]{10,}"): "[redacted]",
}
# values that stood under secret names: whatever prints them, a reward's error for example, they are not said
HEARD: set[str] = set()
LEAST = 8  # characters of a value that is kept secret by itself: "EMPTY" is a key for many a server
HELD = ("_TOKEN", "_KEY", "_SECRET", "_PASSWORD")  # in the environment, for values twice as long that are no `<token>`
COLUMNS = ("rename_columns",)  # keys below which names are those of columns


def visible(text: str) -> str:
    r"""Write characters that nobody sees, but that command a terminal, turn the words round them about or tell two names apart.

    Newlines and tabs stay, and so do joiners behind a letter that is not ASCII: scripts and emoji need them.

    >>> visible("a\nb\rc\x1b]0;title\x07")
    'a\nb\\rc\\x1b]0;title\\x07'
    """
    return HIDDEN.sub(lambda found: ascii(found.group())[1:-1], text)


def print(*values: object, **kwargs: Any) -> None:
    """Print as Python does, with control characters to be read, and without values that are known to be secrets."""
    builtins.print(*(visible(unsaid(str(value))) for value in values), **kwargs)


def print_rows(title: str, names: Sequence[str], rows: Iterable[Sequence[object]], left: Sequence[str] = ()) -> None:
    """Print a table, its first column and those of `left` to the left; without a terminal its lines are wide."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(visible(title), style="table.title"))
    for i, name in enumerate(names):
        table.add_column(Text(visible(name)), justify="left" if i == 0 or name in left else "right")
    for row in rows:
        table.add_row(*(Text(visible(str(value))) for value in row))
    Console(width=None if Console().is_terminal else 200).print(table)


def unsaid(text: str) -> str:
    """Return a text without the secrets that the recipe and the environment hold, however they came to stand in it."""
    secrets = {*HEARD}
    for name, value in os.environ.items():
        long = name.endswith(HELD) and not value.startswith("<") and len(value.strip()) >= 2 * LEAST
        secrets |= {value.strip()} if long or SECRET_NAME.search(name) else set()
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "[redacted]") if len(secret) >= LEAST else text
    return text


def without_secrets(value: Any, name: str = "") -> Any:
    """Return a text, or what a recipe holds under a name, without passwords, keys and tokens.

    >>> without_secrets({"base_url": "https://me:secret@host/v1?key=abc", "headers": {"X-API-Key": "abc"}, "eos_token": "</s>"})
    {'base_url': 'https://host/v1?key=[redacted]', 'headers': {'X-API-Key': '[redacted]'}, 'eos_token': '</s>'}
    """
    if isinstance(value, str):
        if value and SECRET_NAME.search(name):
            HEARD.add(value)
            return "[redacted]"
        for pattern, put in SECRETS.items():
            value = pattern.sub(put, value)
        return value
    if isinstance(value, dict):
        return {key: part if key in COLUMNS else without_secrets(part, str(key)) for key, part in value.items()}
    return [without_secrets(part) for part in value] if isinstance(value, list | tuple) else value
