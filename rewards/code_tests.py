"""1.0 for code that passes its row's tests, 0.0 for code that does not; runs what a model wrote, if a recipe allows it.

Every program runs in a sandbox of bubblewrap's (`_sandbox`), as a user without rights. It sees the system's and Python's
folders, read-only, and an empty folder of 64 MB; no home, no tokens, no other process, no network. Time, memory,
processes and file sizes are limited, and whatever it started ends with it.

A program that is tested by its output has to end by itself, without an error, and a process out of its reach compares.
Asserts run in a sandbox of their own, apart from the code: plain values cross as data, and objects of the code's own
classes stay where they are (`_border`), so that what equals everything equals nothing plain.

What this does not give. It is no virtual machine: a bug in the kernel is a way out. Memory is limited for each of about
a dozen processes, not for their sum. Installed packages can be read. Asserts cannot see what the code prints, inherit from
its classes, or calculate with its objects and plain values together and then compare with a plain value; and where they
compare by a function that the code defines, they believe it.
"""

import ast
import functools
import inspect
import json
import os
import shutil
import socket
import subprocess
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reasoning_ext.rewards import _border
from reasoning_ext.rewards._sandbox import Limits, finish, in_memory, start

from reasoning_ext import think

HELP = (
    "it needs Linux 5.14, bubblewrap 0.7, util-linux, and user namespaces (sysctl user.max_user_namespaces and "
    "kernel.apparmor_restrict_unprivileged_userns); a container needs --security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined, and --cap-add SYS_ADMIN where its user is root"
)
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
            out of time (`timeouts`), and those whose sandbox broke, for want of memory perhaps (`breakdowns`).

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
    _check_options(allow_code_execution, seconds, memory_mb)
    _check_sandbox()
    score = functools.partial(_score, partial=partial, seconds=seconds, memory_mb=memory_mb)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        scored = list(pool.map(score, zip(completions, tests, strict=True)))
    for name in ("errors", "timeouts", "breakdowns") if log_metric is not None else ():
        log_metric(f"code_tests/{name}", float(sum(problem == name for _, problem in scored)))
    return [reward for reward, _ in scored]


def _check_options(allowed: bool, seconds: float, memory_mb: int) -> None:
    if not allowed:
        raise ValueError(
            "code_tests runs what a model wrote; to allow it, write `code_tests: {allow_code_execution: true}` in a recipe"
        )
    if not (seconds > 0 and memory_mb > 0):
        raise ValueError(f"code_tests: found seconds={seconds}, memory_mb={memory_mb}; allowed: positive numbers")


def _score(row: tuple, partial: bool, seconds: float, memory_mb: int) -> tuple[float | None, str]:
    """Return the reward of a completion and its tests, and the problem there was, or ""."""
    programs = _programs(row[1])
    if not programs:
        return None, "errors"
    code = _last_block(think.split(think.content(row[0])).answer or "")
    limits = Limits(memory_mb << 20, seconds, time.monotonic() + seconds)
    passed, problem = (0, "") if code is None else _run(code, programs, partial, limits)
    return (passed / len(programs) if partial else float(passed == len(programs))), problem


def _last_block(answer: str) -> str | None:
    r"""Return the last closed block of Python or of no language; a fence that names a language always opens a block.

    >>> _last_block("So:\n```python\nx = 1\n```\nIt prints:\n```text\n1\n```")
    'x = 1'
    """
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


@functools.cache
def _check_sandbox() -> None:
    """Run a harmless program once.

    Raises:
        RuntimeError: it does not run, or nothing isolates it.
    """
    if shutil.which("bwrap") is None:
        raise RuntimeError("code_tests cannot isolate code here: bwrap is not installed; `apt install bubblewrap`")
    try:
        process, _ = start(["-c", ""], Limits(512 << 20, 10, 0), {}, stderr=subprocess.PIPE)
        problem = process.communicate(timeout=30)[1].decode(errors="replace").strip().rpartition("\n")[2]
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"code_tests cannot isolate code here ({error}); {HELP}") from error
    if process.returncode:
        raise RuntimeError(f"code_tests cannot isolate code here ({problem}); {HELP}")


def _run(code: str, programs: list[Program], partial: bool, limits: Limits) -> tuple[int, str]:
    """Run one completion's programs; return how many were right, and "timeouts", "breakdowns" or ""."""
    passed, problem = 0, ""
    for i, (given, expected) in enumerate(programs):
        if passed == i or partial:
            status = _asserts_hold(code, given, limits) if expected is None else _prints(code, given, expected, limits)
            passed += status == 0
            problem = "breakdowns" if status < 0 else problem
    late = passed < len(programs) and time.monotonic() > limits.deadline
    return passed, "timeouts" if late else problem


def _prints(code: str, given: str, expected: str, limits: Limits) -> int:
    """Run a program; return its exit status, or 1 where it has not printed what is expected."""
    files = {"/box/solution.py": code, "/dev/stdin": given}  # for programs that open it by name
    with in_memory(given) as stdin, in_memory() as stdout:
        status = finish(start(["solution.py"], limits, files, stdin, stdout), limits.deadline)
        stdout.seek(0)
        printed = stdout.read(2 * len(expected.encode(errors="replace")) + 4096).decode(errors="replace")
    lines, wanted = ([line.rstrip() for line in text.strip().splitlines()] for text in (printed, expected))
    return status or int(lines != wanted)


def _asserts_hold(code: str, given: str, limits: Limits) -> int:
    """Run asserts in a sandbox, and the code in another one; return the exit status of the asserts' process."""
    ends = socket.socketpair()
    with in_memory(given) as stdin, ends[0], ends[1]:
        holder = start(["-c", BORDER, "code"], limits, {"/box/solution.py": code}, end=ends[0])
        tester = start(["-c", BORDER, "tests"], limits, {}, stdin, end=ends[1])
        for end in ends:
            end.close()  # so that each side notices the other's end
        status = finish(tester, limits.deadline)
        return -1 if finish(holder, 0) == -1 and status else status
