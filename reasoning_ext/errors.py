"""The one kind of error that a user can mend: one line that says what was found, what is allowed, what to do."""

import os
import sys


def print_error(text: object) -> None:
    """Print an error to standard error; its first word is red on a terminal, unless NO_COLOR is set."""
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    word = "\033[1;31merror:\033[0m" if colour else "error:"
    print(word, str(text).encode(errors="replace").decode(), file=sys.stderr)


class UserError(ValueError):
    """Something the user wrote or named is wrong; the command line prints the message alone and exits with 2."""


class KeyProblem(UserError):
    """The same, where one key of the recipe is to blame; whoever knows the recipe adds its file and line."""

    def __init__(self, key: str, problem: str):
        super().__init__(problem)
        self.key = key


class RecipeError(UserError):
    """A recipe, or what it names, is wrong; the message begins with its file and line.

    Attributes:
        file: the recipe, as a path, where it is known.
    """

    file: object = None
