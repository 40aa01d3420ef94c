"""Tools that a recipe names by a plain name: a function a file, named like the file.

Beside its function a file may have `check(folder, options)`, which raises KeyProblem for options that cannot work and takes no
time, and `prepare(**options)`, which does once what takes time.
"""


class ToolError(ValueError):
    """Why a call has no result, in the words that the model is to see."""
