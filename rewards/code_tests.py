"""1.0 for code that passes its row's tests, 0.0 for code that does not; runs what a model wrote, if a recipe allows it.

Every completion runs in Linux namespaces of its own, as a user without rights. It sees the system's and Python's folders,
read-only, and an empty one of 64 MB; no home, no tokens, no other process, no network. A program that is tested by its output
has to end by itself, and a process out of its reach compares. Asserts run in a process apart from the code: plain values cross
as data, objects of the code's own classes stay where they are (`_border`), so that what equals everything equals nothing plain.

What this does not give. It is no virtual machine: a bug in the kernel is a way out. Memory is limited for each of about
a dozen processes, not for their sum. Installed packages can be read. Asserts cannot see what the code prints, inherit from
its classes, or calculate with its objects and plain values together and then compare with a plain value; and where they
compare by a function that the code defines, they believe it.
"""

import ast
import inspect
import json
import os
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reasoning_ext.rewards import _border
from reasoning_ext.rewards._launch import check_sandbox, launch

from reasoning_ext import think

BORDER = inspect.getsource(_border)  # at once: the file may have changed by the first completion
Program = tuple[str, str | None]  # what it reads; what it has to print, or None for asserts


def code_tests(
    completions: list,
    tests: list,
    *,
    allow_code_execution: bool = False,
    partial: bool = False,
    seconds: float = 5.0,
    memory_mb: int = 512,
    log_metric: Callable[[str, float], None] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    r"""Run the last Python block of each answer against its row's tests.

    Args:
        completions: N completions, messages or strings.
        tests: N times a row's tests: a string of asserts; or a list of such strings, each for a process of its own; or
            a list of `{"input": str, "output": str}`, outputs being compared line by line, white space at ends aside.
        allow_code_execution: must be true, or nothing is run.
        partial: pay the share of the tests passed, instead of 1.0 for all of them and else 0.0.
        seconds: the time that a completion has for all its tests.
        memory_mb: the memory that each of its processes has.
        log_metric: TRL's, given by the trainer; counts rows whose tests cannot be read (`errors`), completions that ran
            out of time (`timeouts`), and those that broke the process that watched them (`breakdowns`).

    Returns:
        N rewards between 0.0 and 1.0: 0.0 where there is no code, None where the row's tests cannot be read.

    Raises:
        ValueError: code execution is not allowed, or a limit is not positive.
        RuntimeError: this machine cannot isolate the code.

    Example:
        >>> code_tests(["```python\nx = 1\n```"], tests=["assert x == 1"])
        Traceback (most recent call last):
        ValueError: code_tests runs what a model wrote; to allow it, write `code_tests: {allow_code_execution: true}` in a recipe
    """
    if not allow_code_execution:
        how = "write `code_tests: {allow_code_execution: true}` in a recipe"
        raise ValueError(f"code_tests runs what a model wrote; to allow it, {how}")
    if not (seconds > 0 and memory_mb > 0):
        raise ValueError(f"code_tests: found seconds={seconds}, memory_mb={memory_mb}; allowed: positive numbers")
    check_sandbox("code_tests")

    def score(row: tuple) -> tuple[float | None, str]:
        programs = _programs(row[1])
        if not programs:
            return None, "errors"
        code = _last_block(think.split(think.content(row[0])).answer or "")
        passed, problem = (0, "") if code is None else _run(code, programs, partial, seconds, memory_mb)
        return (passed / len(programs) if partial else float(passed == len(programs))), problem

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        scored = list(pool.map(score, zip(completions, tests, strict=True)))
    for name in ("errors", "timeouts", "breakdowns") if log_metric is not None else ():
        log_metric(f"code_tests/{name}", float(sum(problem == name for _, problem in scored)))
    return [reward for reward, _ in scored]


def _last_block(answer: str) -> str | None:
    """Return the last closed block of Python or of no language; a fence that names a language always opens a block."""
    found, block, language = None, None, ""
    for line in answer.split("\n"):
        fence = line.strip()
        if not fence.startswith("```"):
            if block is not None:
                block.append(line)
        elif block is not None and fence == "```":
            found = "\n".join(block) if language in ("", "python", "python3", "py") else found
            block = None
        else:
            block, language = [], fence.strip("`").strip().lower()
    return None if found is None else textwrap.dedent(found)


def _programs(tests: Any) -> list[Program]:
    """Return what to run for a row's tests; nothing where they cannot be read."""
    tests = [tests] if isinstance(tests, str) else tests
    try:
        if isinstance(tests[0], str):
            return [_asserts(test) for test in tests]
        return [(test["input"] + "", test["output"] + "") for test in tests]  # raises for what is no string
    except (SyntaxError, ValueError, TypeError, LookupError, RecursionError):
        return []


def _asserts(source: str) -> Program:
    """Return what `_border.hold_tests` reads for asserts: them, and the names that they may mean of the code's."""
    tree = ast.parse(source)
    if not tree.body:
        raise ValueError("no asserts")
    compile(source, "tests", "exec")  # finds what parsing does not, `return` outside of a function for example
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used |= {node.name for node in ast.walk(tree) if isinstance(node, ast.alias)}  # from solution import f
    modules = {a.asname or a.name for a in ast.walk(tree) if isinstance(a, ast.alias) and a.name == "solution"}
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]  # import solution; solution.f
    used |= {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id in modules}
    return json.dumps([source, sorted(used)]), None


def _run(code: str, programs: list[Program], partial: bool, seconds: float, memory_mb: int) -> tuple[int, str]:
    """Run one completion's programs in a sandbox; return how many were right, and "timeouts", "breakdowns" or ""."""
    job = {"code": code, "programs": programs, "partial": partial, "border": BORDER}
    result, problem = launch(job, seconds, memory_mb)
    passed, problem = result or (0, problem)
    return passed, problem
