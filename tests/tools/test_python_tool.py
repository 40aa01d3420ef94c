"""The tool `python`: what it shows of code, and that it is the sandbox of code_tests which runs it."""

import pytest

from reasoning_ext.tools.library import ToolError
from reasoning_ext.tools.library.python import python
from tests.rewards.test_code_tests import sandboxed

SHOWN = {
    "print(6*7)": "42", "x = 6\nx*7": "42", "print(1)\n2": "1", "'a\\nb'": "a\nb", "x = 1": "(nothing was printed)",
    "import sympy\nsympy.sqrt(8)": "2*sqrt(2)", "def f(n): return n and f(n - 1)\nf(10)": "0",
    "import sys; sys.exit()": "(nothing was printed)",
}  # fmt: skip
FAILS = {
    "print('so far')\n1/0": "so far\n.*ZeroDivisionError: division by zero", "1 +": "SyntaxError",
    "raise SystemExit(3)": "exit code 3",
    "import os; os._exit(4)": "exit code 4", "bytearray(10**10)": "MemoryError",
    "import socket; socket.create_connection(('127.0.0.1', 22), 1)": "Error", "open('/etc/passwd')": "FileNotFoundError",
}  # fmt: skip


def run(code, **options):
    return python(code, allow_code_execution=True, **{"seconds": 20.0, "memory_mb": 1024} | options)


def test_nothing_is_run_that_is_not_allowed():
    for options in ({}, {"allow_code_execution": "yes"}):
        with pytest.raises(ToolError, match="not allowed"):
            python("print(1)", **options)


@sandboxed
def test_what_is_printed_is_returned_or_else_the_last_value():
    assert {code: run(code) for code in SHOWN} == SHOWN


@sandboxed
@pytest.mark.parametrize("code", FAILS)
def test_errors_are_the_end_of_a_traceback(code):
    with pytest.raises(ToolError, match=rf"(?s){FAILS[code]}") as error:
        run(code)
    assert "solution.py" not in str(error.value) and "/" not in str(error.value).replace("/etc/passwd", "").replace(
        "1/0", ""
    )


@sandboxed
def test_endless_code_is_ended_and_a_flood_is_cut():
    with pytest.raises(TimeoutError, match=r"time-out after 0.5 s\nbegun"):
        run("print('begun', flush=True)\nwhile True: pass", seconds=0.5)
    assert len(run("print('x' * 5_000_000)")) <= 1 << 20
