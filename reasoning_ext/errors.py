"""The one kind of error that a user can mend: one line that says what was found, what is allowed, what to do."""

from reasoning_ext.shown import without_secrets


class UserError(ValueError):
    """Something the user wrote or named is wrong; the command line prints the message alone and exits with 2."""

    def __init__(self, message: object = ""):
        super().__init__(without_secrets(str(message)))


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
