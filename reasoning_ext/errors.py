"""The one kind of error that a user can mend: one line that says what was found, what is allowed, what to do."""

import errno
import os
import re
import resource
import sys
from typing import Any

from reasoning_ext.shown import unsaid, visible, without_secrets

# what a limit of the system makes of a call: the errors, the text of those that have no number, the limit
LIMITS = (
    ({errno.EMFILE, errno.ENFILE}, "Too many open files", "open files", "ulimit -n", resource.RLIMIT_NOFILE),
    ({errno.EFBIG}, "File too large", "bytes a file", "ulimit -f", resource.RLIMIT_FSIZE),
    (
        {errno.ENOMEM},
        "failed to map segment|an(no|')t allocate memory",
        "bytes of memory",
        "ulimit -v",
        resource.RLIMIT_AS,
    ),
    ({errno.EAGAIN}, "can't start new thread", "processes", "ulimit -u", resource.RLIMIT_NPROC),
)
FULL = {errno.ENOSPC, errno.EDQUOT}
LEAST_MEMORY = 3 * 2**30  # of addresses; with less OpenBLAS and torch fail to load, or try for ever


def print_error(text: object) -> None:
    """Print an error to standard error as one line; its first word is red on a terminal, unless NO_COLOR is set."""
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    word = "\033[1;31merror:\033[0m" if colour else "error:"
    line = visible(str(text)).replace("\n", "\\n").replace("\t", "\\t")
    print(word, line, file=sys.stderr)


class UserError(ValueError):
    """Something the user wrote or named is wrong; the command line prints the message alone and exits with 2."""

    def __init__(self, message: object = ""):
        super().__init__(unsaid(without_secrets(str(message))))


def refuse_little_memory() -> None:
    """Refuse a limit of addresses under which not even the libraries can be loaded.

    Raises:
        UserError: `ulimit -v` is that low.
    """
    allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
    if 0 <= allowed < LEAST_MEMORY:
        raise UserError(f"found ulimit -v {allowed // 1024}, allowed: {LEAST_MEMORY // 1024} or more, or unlimited")


class KeyProblem(UserError):
    """The same, where one key of the recipe, or a path into its value, is to blame; whoever has it adds its file and line."""

    def __init__(self, key: Any, problem: str):
        super().__init__(problem)
        self.key = key


class RecipeError(UserError):
    """A recipe, or what it names, is wrong; the message begins with its file and line.

    Attributes:
        file: the recipe, as a path, where it is known.
    """

    file: object = None


def system_problem(error: BaseException) -> str:
    """Say in a line what the system has refused, where that is why an exception was raised; else nothing.

    >>> system_problem(PermissionError(13, "Permission denied", "runs/sft"))
    'Permission denied: runs/sft; see that this user may use it, or choose another place'
    """
    for each in _chain(error):
        told = re.search(r"\(os error (\d+)\)", str(each))  # as Rust's libraries write it
        number = each.errno if isinstance(each, OSError) else int(told[1]) if told else None
        number = errno.ENOMEM if isinstance(each, MemoryError) else number
        what = " ".join(str(each).split())[:200] if number is None or told else os.strerror(number)
        what += f": {each.filename}" if isinstance(each, OSError) and each.filename else ""
        for numbers, text, things, name, limit in LIMITS:
            if number in numbers or (number is None and re.search(text, str(each))):
                allowed = resource.getrlimit(limit)[0]
                much = "without a limit" if allowed == resource.RLIM_INFINITY else f"{allowed} {things}"
                return f"{what}; {name} allows {much}, and this needs more"
        if number in FULL:
            return f"{what}; free some space and run the same command again"
        if each is error and isinstance(each, OSError) and number is not None:
            return f"{what}; see that this user may use it, or choose another place"
    return ""


def _chain(error: BaseException) -> list[BaseException]:
    """Return an exception and those that it was raised from, each once."""
    found = [error]
    while (earlier := found[-1].__cause__ or found[-1].__context__) and earlier not in found:
        found.append(earlier)
    return found
