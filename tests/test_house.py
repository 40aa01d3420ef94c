"""The house stays small: lines of the package and of the tests, long files and functions, dense lines.

The numbers are ceilings that only fall: what makes one rise says so in its commit, and what it made unnecessary.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = sorted([*ROOT.glob("reasoning_ext/**/*.py"), *ROOT.glob("rewards/**/*.py")])
TESTS = sorted(ROOT.glob("tests/**/*.py"))
PACKAGE_LINES, TEST_LINES = 40_973, 26_688
FILE, FUNCTION = 300, 45  # lines of a file, of a function from `def` to its end without the docstring
LONG_FILES, LONG_FUNCTIONS = 0, 0
# folders that a wheel carries as `reasoning_ext.recipes` and so on: files for users, no rooms
DATA = ("recipes", "examples")
DENSE = {"# fmt: skip": 46, "lines above 120 characters": 463}


def texts(paths: list[Path]) -> dict[str, list[str]]:
    """Return the lines of each file, by its path from the project's root."""
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8").splitlines() for path in paths}


def biggest(counts: dict[str, int]) -> str:
    """Return the ten biggest of what was counted, a line each."""
    return "\n".join(f"{count:6,} {name}" for name, count in sorted(counts.items(), key=lambda one: -one[1])[:10])


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function's body from its first statement behind the docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize(("paths", "most"), [(PACKAGE, PACKAGE_LINES), (TESTS, TEST_LINES)], ids=["package", "tests"])
def test_there_are_not_more_lines_than_before(paths, most):
    counts = {name: len(lines) for name, lines in texts(paths).items()}
    assert sum(counts.values()) <= most, f"{sum(counts.values()):,} of {most:,} lines; the biggest:\n{biggest(counts)}"


def test_few_files_of_the_package_are_long():
    long = {name: len(lines) for name, lines in texts(PACKAGE).items() if len(lines) > FILE}
    assert len(long) <= LONG_FILES, f"above {FILE} lines:\n{biggest(long)}"


def test_few_functions_of_the_package_are_long():
    long = {
        f"{path.relative_to(ROOT).as_posix()}:{node.lineno} {node.name}": length(node)
        for path in PACKAGE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and length(node) > FUNCTION
    }
    assert len(long) <= LONG_FUNCTIONS, f"above {FUNCTION} lines:\n{biggest(long)}"


def test_lines_do_not_become_denser():
    lines = [line for text in texts(PACKAGE).values() for line in text]
    counts = {
        "# fmt: skip": sum("# fmt: skip" in line for line in lines),
        "lines above 120 characters": sum(len(line) > 120 for line in lines),
    }
    assert all(counts[what] <= most for what, most in DENSE.items()), counts


@pytest.mark.parametrize("folder", DATA)
def test_recipes_and_examples_are_data(folder):
    """Nobody imports them, and what makes a package of the folder for `importlib.resources` is a docstring."""
    [docstring] = ast.parse((ROOT / folder / "__init__.py").read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr)
    for path in PACKAGE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) and node.module else ""
            names = [module + name.name for name in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            imported = [name for name in names if f"{name}.".startswith((f"reasoning_ext.{folder}.", f"{folder}."))]
            assert not imported, f"{path}: {imported}"
