"""What is wrong, as data: one `Problem`, which every check makes and one exception carries, and what the system refuses.

A problem is written as a sentence where it is printed, and nowhere else; `docs/problems.md` lists the codes.
"""

import errno
import os
import re
import resource
import sys
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from reasoning_ext.shown import unsaid, visible, without_secrets

Level = Literal["error", "warning", "note"]
# what a limit of the system makes of a call: errors, the text of those that have no number, the limit that is asked for
LIMITS = (
    ({errno.EMFILE, errno.ENFILE}, "Too many open files", "ulimit -n"),
    ({errno.EFBIG}, "File too large", "ulimit -f"),
    ({errno.ENOMEM}, "failed to map segment|an(no|')t allocate memory", "ulimit -v"),
    ({errno.EAGAIN}, "can't start new thread", "ulimit -u"),
)
LEAST_MEMORY = 3 * 2**30  # bytes of addresses


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong, or that should be known.

    Attributes:
        code: what it is, one of `docs/problems.md`.
        level: "error" stops `run` and ends `check` with exit code 2; "warning" and "note" do not.
        file: the recipe; "" where none is to blame, or it is not known here.
        line: of the key in that file; 0 for a key from the command line, None where it has no line.
        key: the recipe's key, dotted where it lies in another one's value; "" where it is about none.
        found, allowed, hint: what there is, what could be, what to do; "" where there is nothing to say.
    """

    code: str
    level: Level = "error"
    file: str = ""
    line: int | None = None
    key: str = ""
    found: str = ""
    allowed: str = ""
    hint: str = ""

    def __post_init__(self) -> None:
        """Take secrets out of what was found."""
        for name in ("file", "key", "found", "allowed", "hint"):
            object.__setattr__(self, name, unsaid(without_secrets(str(getattr(self, name)))))

    @property
    def text(self) -> str:
        """The sentence, without its place."""
        return self.found + (self.allowed and f", allowed: {self.allowed}") + (self.hint and f"; {self.hint}")

    def __str__(self) -> str:
        """The whole line: file, line and key, as far as they are known, then the sentence."""
        if not self.file:
            return self.text
        lines = {None: self.file, 0: f"{self.file} with --{self.key.partition('.')[0]} from the command line"}
        place = lines.get(self.line) or f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.text) if part)

    def as_dict(self) -> dict[str, Any]:
        """Return it for `check --json`, whose document names the file once."""
        own = {name: getattr(self, name) for name in ("code", "level", "key", "text")}
        return own | {"line": self.line or None}


class UserError(ValueError):
    """Something the user wrote or named is wrong: carries the `Problem`; the command line prints it and exits with 2.

    Attributes:
        code: of the problems that are raised as a text alone.
        path: the way to the key to blame in the recipe, `("reward_funcs", 0, "math_answer")`; () where there is none.
    """

    code: ClassVar[str] = "wrong_use"
    path: tuple = ()

    def __init__(self, problem: object = ""):
        self.problem = problem if isinstance(problem, Problem) else Problem(code=self.code, found=str(problem))

    def __str__(self) -> str:
        return str(self.problem)


class KeyProblem(UserError):
    """The same, where one key of the recipe is to blame; whoever knows the recipe adds its file and line.

    Args:
        key: the key, or the path to it.
        found, allowed, hint, code: of the problem; without a code it has the class's.
    """

    code: ClassVar[str] = "wrong_value"

    def __init__(self, key: str | tuple, found: str, allowed: str = "", hint: str = "", code: str = ""):
        self.path = (key,) if isinstance(key, str) else key
        code, name = code or self.code, dotted(self.path)
        super().__init__(Problem(code=code, key=name, found=found, allowed=allowed, hint=hint))

    @property
    def key(self) -> str:
        """The key to blame."""
        return self.problem.key


def one_line(error: BaseException) -> str:
    """Return an error's type and the beginning of its text, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def dotted(path: tuple) -> str:
    """Write the path to a key as it is printed."""
    return ".".join(map(str, path))


def print_error(text: object) -> None:
    """Print an error to standard error as one line; its first word is red on a terminal, unless NO_COLOR is set."""
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    word = "\033[1;31merror:\033[0m" if colour else "error:"
    print(word, visible(str(text)).replace("\n", "\\n").replace("\t", "\\t"), file=sys.stderr)


def refuse_little_memory() -> None:
    """Refuse a limit of addresses under which OpenBLAS and torch fail to load, or try for ever.

    Raises:
        UserError: `ulimit -v` is that low.
    """
    allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
    if 0 <= allowed < LEAST_MEMORY:
        raise UserError(f"found ulimit -v {allowed // 1024}, allowed: {LEAST_MEMORY // 1024} or more, or unlimited")


def system_problem(error: BaseException) -> str:
    """Say in a line what the system has refused, where that is why an exception was raised; else nothing.

    >>> system_problem(PermissionError(13, "Permission denied", "runs/sft"))
    'Permission denied: runs/sft; see that this user may use it, or choose another place'
    """
    chain = [error]
    while (earlier := chain[-1].__cause__ or chain[-1].__context__) and earlier not in chain:
        chain.append(earlier)
    for each in chain:
        told = re.search(r"\(os error (\d+)\)", str(each))  # as Rust's libraries write it
        number = each.errno if isinstance(each, OSError) else int(told[1]) if told else None
        number = errno.ENOMEM if isinstance(each, MemoryError) else number
        what = os.strerror(number) if number and not told else " ".join(str(each).split())[:200]
        what += f": {each.filename}" if isinstance(each, OSError) and each.filename else ""
        for numbers, text, limit in LIMITS:
            if number in numbers or (number is None and re.search(text, str(each))):
                return f"{what}; this needs more than the machine has, or than {limit} allows"
        if number in (errno.ENOSPC, errno.EDQUOT):
            return f"{what}; free some space and run the same command again"
        if each is error and isinstance(each, OSError) and number is not None:
            return f"{what}; see that this user may use it, or choose another place"
    return ""
