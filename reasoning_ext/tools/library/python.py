"""Runs what a model wrote in the sandbox of the reward `code_tests`, where a recipe allows it; see there what it can reach."""

import inspect
from functools import cache

from reasoning_ext.rewards._launch import check_sandbox, launch
from reasoning_ext.tools.library import ToolError, _shown

MOST_BYTES = 1 << 20  # of what is printed
_PROGRAM = inspect.getsource(_shown)


def python(code: str, *, allow_code_execution: bool = False, seconds: float = 5.0, memory_mb: int = 512) -> str:
    """Runs Python code and returns what it prints, or else the value of its last line. Nothing is kept between calls.

    Args:
        code: the code to run
        allow_code_execution: the recipe's; must be true, or nothing is run
        seconds: the recipe's; the time that the code may take
        memory_mb: the recipe's; the memory that each of its processes has

    Returns:
        What it printed, or the value of the last expression.
    """
    if allow_code_execution is not True:
        raise ToolError("code execution is not allowed here")
    _checked()
    job = {"code": code, "program": _PROGRAM, "show": MOST_BYTES}
    result, problem = launch(job, seconds, memory_mb)
    printed, exit_code, late = result or ("", 1, problem == "timeouts")
    printed = printed.strip("\n")
    if late:
        raise TimeoutError(f"time-out after {seconds:g} s\n{printed}".strip())
    if exit_code:
        raise ToolError(printed or f"the code ended with exit code {exit_code}")
    return printed or "(nothing was printed)"


def prepare(**options: object) -> None:
    """Try the sandbox; RuntimeError where this machine has none."""
    _checked()


@cache
def _checked() -> None:
    check_sandbox("the tool python")
