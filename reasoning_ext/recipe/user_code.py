"""Python that a recipe names: which of it was written for recipes, and how a file is imported, if any may be.

A recipe may come from anybody, and a dotted path could name any function there is. So it has to be one that was written for
recipes: in one of the homes, in a file of the user's own, or in an installed module whose `REASONING_EXT_PLUGINS = ["name"]`
lists it. For every other function a file of one's own with `from X import name` does. Nothing is imported to find that out.
"""

import ast
import builtins
import contextlib
import functools
import importlib
import importlib.util
import os
import re
import signal
import sys
import sysconfig
import threading
import traceback
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from reasoning_ext.errors import UserError

NO_CODE = "REASONING_EXT_NO_CODE"  # in the environment, which workers inherit: no code that a recipe names is imported
OURS = ("reasoning_ext.", "trl.")
LISTED = "REASONING_EXT_PLUGINS"
IMPORT_SECONDS = 120.0  # a file that takes longer than a worker may take to start serves nobody
_late = set[Path]()
_LIBRARY = re.compile(r"/(site|dist)-packages/|/lib\w*/python\d[^/]*/")


def import_file(path: Path) -> Any:
    """Import a Python file by its path, once, under a name that no other file has.

    A file beside it is imported by its plain name, wherever the statement stands, and is another one than a file of the
    same name beside another plug-in; nothing is added to `sys.path`.
    """
    name = f"reasoning_ext_file_{path.stem}_{zlib.crc32(str(path.resolve()).encode()):x}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        beside = functools.partial(_import_beside, path.resolve().parent)
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": beside}
        sys.modules[name] = module
        try:
            with _in_time(path):
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


@contextlib.contextmanager
def _in_time(path: Path) -> Iterator[None]:
    """Raise TimeoutError where an import takes too long, and at once when tried again; not beside another timer."""

    def stop(signum: int, frame: Any) -> None:
        _late.add(path)
        raise late

    late = TimeoutError(f"still not imported after {IMPORT_SECONDS:g} s")
    if path in _late:
        raise late
    if threading.current_thread() is not threading.main_thread() or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, IMPORT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _import_beside(
    folder: Path, name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
) -> Any:
    """Do what `__import__` does, for a file that may import those beside it."""
    top = name.partition(".")[0]
    file = next((f for f in (folder / top / "__init__.py", folder / f"{top}.py") if f.is_file()), None)
    own = (globals or {}).get("__file__")  # a file that is called as the library it uses means the library
    means_itself = file and own and file.resolve() == Path(own).resolve()
    if file and not level and top not in sys.builtin_module_names and not means_itself:
        name = import_file(file).__name__ + name[len(top) :]
    return builtins.__import__(name, globals, locals, fromlist, level)


def where(file: Path, error: BaseException) -> str:
    """Return the line of a file that an error comes from, `FILE:LINE`, or of the file that could not be parsed."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f"{file}:{lines[-1]}" if lines else str(file)


def no_code() -> bool:
    """Tell whether no code that a recipe names may be run, as in `check --no-code`."""
    return bool(os.environ.get(NO_CODE))


@contextlib.contextmanager
def without_code() -> Iterator[None]:
    """Run no code that a recipe names meanwhile."""
    before = os.environ.get(NO_CODE, "")
    os.environ[NO_CODE] = "1"
    try:
        yield
    finally:
        os.environ[NO_CODE] = before


def imported(file: Path, module: str | None) -> Any:
    """Import a plug-in's file or module.

    Raises:
        UserError: no code may be run.
    """
    if no_code() and not (module or "").startswith(OURS):
        raise UserError(f"{file} was not run, since no code is")
    return import_file(file) if module is None else importlib.import_module(module)


def refuse_library(file: Path, module: str | None, function: str) -> None:
    """Refuse a function of a library, unless it says that it was written for recipes."""
    of_python = (module or "").partition(".")[0] in sys.stdlib_module_names
    folders = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders.append(Path(__file__).resolve().parents[1])
    if not of_python and not any(map(file.is_relative_to, folders)) and not _LIBRARY.search(file.as_posix()):
        return
    if of_python or file.suffix != ".py" or function not in _listed(file):
        own = "a function in a file of your own"
        if module and not of_python:
            own += f" with `from {module} import {function}`, named as my_file.py:{function}"
        found = f"{function} of {module or file} was not written for recipes"
        raise LookupError(f"{found} (its module has no {LISTED} with it), allowed: {own}")


@cache
def parsed(file: Path) -> ast.Module:
    """Return a file as parsed source; LookupError where it is no Python."""
    try:
        return ast.parse(file.read_bytes(), filename=str(file))  # of bytes: a BOM and a coding line count
    except SyntaxError as error:
        raise LookupError(f"{file}:{error.lineno}: {error.msg}") from error
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise LookupError(f"{file} cannot be read as Python: {type(error).__name__}: {error}") from error


def _listed(file: Path) -> list[str]:
    """Return the functions that a module says were written for recipes."""
    for node in parsed(file).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [LISTED]:
            return [str(part.value) for part in getattr(node.value, "elts", []) if isinstance(part, ast.Constant)]
    return []
