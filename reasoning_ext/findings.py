"""A thing to know about a recipe, from its level, its key and its text alone."""

from reasoning_ext.errors import Level, Problem


class Finding(Problem):
    """The problem of a check that has no more to say than a text."""

    def __init__(self, level: Level, key: str, text: str, code: str = "advice"):
        super().__init__(code=code, level=level, key=key, found=text)
