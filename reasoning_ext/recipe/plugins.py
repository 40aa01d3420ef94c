"""Find the function that a recipe names, and read its signature without importing it.

A reward, a dataset format and a task generator are all spelled in the same three ways:

    math_answer                     a file of the same name in `rewards/` (or the module given as home), then trl.rewards
    my_package.my_module.function   anything that can be imported
    path/to/file.py:function        a file; the path is relative to the recipe, `:function` may be left out if it has the
                                    file's name

There is no registry: what is found is a Python file, and its signature says what it needs. Reading the signature off
the source keeps torch and sympy out of the way of an error message; a file is imported only for a name that is bound by
something else than one `def`, a partial or an instance for example.

A recipe may come from anybody, and a dotted path could name any function there is. So it has to be one that was written for
recipes: in one of the homes, in a file of the user's own, or in an installed module whose `REASONING_EXT_PLUGINS = ["name"]`
lists it. For every other function a file of one's own with `from X import name` does. Nothing is imported to find that out.
"""

import ast
import difflib
import importlib.util
import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from reasoning_ext.recipe.user_code import OURS, imported, no_code, not_written, parsed, refuse_library, where

_Function = ast.FunctionDef | ast.AsyncFunctionDef

TRL_REWARD_INPUTS = (
    "prompts",
    "completions",
    "completion_ids",
    "trainer_state",
    "log_extra",
    "log_metric",
    "environments",
)


@dataclass(frozen=True)
class Plugin:
    """A function found in a file, with what its signature asks for.

    Attributes:
        name: what it is called in a recipe and in metrics.
        file: the file that defines it.
        module: the module to import it from, or None for a file that is imported by its path.
        function: the function's name there.
        required: parameters without a default.
        options: parameters with a default that a recipe may set: `{name: annotation or "Any"}`.
        is_async: it is an `async def`.
        takes_any: it has `**kwargs`, without which TRL cannot call it.
        takes: all of its parameters by name.
        unread: its signature is not known, because no code may be run to see it.
        numbers: parameters without an annotation whose default is a number.
    """

    name: str
    file: Path
    module: str | None
    function: str
    required: tuple[str, ...]
    options: dict[str, str]
    is_async: bool = False
    takes_any: bool = True
    takes: tuple[str, ...] = ()
    unread: bool = False
    numbers: tuple[str, ...] = ()

    @property
    def is_factory(self) -> bool:
        """True for `get_*`, which by TRL's convention is called once and returns the function."""
        return self.function.startswith("get_")

    def load(self) -> Callable[..., Any]:
        """Import the file and return the function."""
        return getattr(imported(self.file, self.module), self.function)


def find_plugin(spelling: str, homes: list[str], base: Path) -> Plugin:
    """Find a function by its spelling in a recipe.

    Args:
        spelling: one of the three forms above.
        homes: packages or modules that plain names are looked for in, in this order.
        base: the folder that file paths are relative to.

    Raises:
        LookupError: nothing of that name, or a function that was not written for recipes; the message says where was
            looked and the nearest name.
    """
    if not _is_path(spelling) and "." not in spelling:
        return _at_home(spelling, homes, homes)
    module, _, name = spelling.rpartition(".")
    if module in homes:
        return _at_home(name, [module], homes)
    file, found, function = _place(spelling, homes, base)
    names = _names(file)
    node = names.get(function)
    if node is not None:
        return _from_source(function, file, found, node)
    if function not in names and "*" not in names:
        functions = ", ".join(name for name, node in names.items() if node) or "none"
        raise LookupError(f"{file} has no function {function}; it has {functions}")
    return _from_object(function, file, found)


def code_file(spelling: str, homes: list[str], base: Path) -> Path | None:
    """Return the file that a spelling has Python import, without importing it; None for ours, TRL's, and what is not there."""
    try:
        file, module, _ = _place(spelling, homes, base)
    except LookupError:
        return None
    return None if (module or "").startswith(OURS) else file


def _at_home(name: str, homes: list[str], known_in: list[str]) -> Plugin:
    for home in homes:
        for file, module in _files(home):
            node = _functions(file).get(name)
            if node is not None:
                return _from_source(name, file, module, node)
    known = plugin_names(known_in)
    near = difflib.get_close_matches(name, known, 1)
    hint = f"the nearest is {near[0]}" if near else f"there are {', '.join(known)}"
    raise LookupError(
        f"no {name} in {' or '.join(homes)}; {hint}; or write pkg.module.function or path/to/file.py:function"
    )


def plugin_names(homes: list[str]) -> list[str]:
    """List the plain names that `find_plugin` knows: in a package the functions named like their file, or all of TRL's."""
    return sorted({name for name, _, _ in functions_at(homes)})


def functions_at(homes: list[str]) -> Iterator[tuple[str, Path, _Function]]:
    """Yield the functions that have such a name: the name, the file, and the function as it is parsed."""
    for home in homes:
        for file, _ in _files(home):
            yield from ((name, file, node) for name, node in _functions(file).items())


def _is_path(spelling: str) -> bool:
    return "/" in spelling or spelling.partition(":")[0].endswith(".py")


def _place(spelling: str, homes: list[str], base: Path) -> tuple[Path, str | None, str]:
    """Return the file of a path or a dotted name, its module, and the function's name; nothing is imported."""
    try:
        file, module, function = (_in_file if _is_path(spelling) else _in_module)(spelling, base)
    except (OSError, ValueError, RuntimeError, ImportError) as error:  # NUL, 300 letters, nobody's home
        raise LookupError(f"no function can have this name: {error}") from error
    if not any((module or "").startswith(f"{home}.") for home in homes):
        refuse_library(file, module, function)
    return file, module, function


def _in_file(spelling: str, base: Path) -> tuple[Path, None, str]:
    path, _, function = spelling.partition(":")
    file = (base / Path(path).expanduser()).resolve()
    if not file.is_file():
        raise LookupError(f"no file {path}; looked for {file}")
    return file, None, function or file.stem


def _in_module(spelling: str, base: Path) -> tuple[Path, str, str]:
    module, _, function = spelling.rpartition(".")
    top, *rest = module.split(".")
    if not all(part.isidentifier() for part in (top, *rest, function)):
        raise LookupError("no dotted name; write pkg.module.function or path/to/file.py:function")
    spec = None if top == "__main__" else importlib.util.find_spec(top)
    if spec is None and (base / top).with_suffix(".py").is_file():
        raise LookupError(f"no module {top}; for a file beside the recipe write {top}.py:{function}")
    if spec is None:
        raise LookupError(f"no module {top} is installed")
    if top == "reasoning_ext" and rest[:1] == ["rewards"]:  # which lies outside its folder
        spec, rest = importlib.util.find_spec("reasoning_ext.rewards") or spec, rest[1:]
    if not rest and not spec.submodule_search_locations:
        file = Path(spec.origin or "")
    else:
        folder = Path(next(iter(spec.submodule_search_locations or [""]))).joinpath(*rest)
        file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    if top in sys.stdlib_module_names:
        raise LookupError(not_written(file, module, function))
    if not file.is_file():
        raise LookupError(f"no module {module}; looked for {file}")
    return file.resolve(), module, function


def _from_source(name: str, file: Path, module: str | None, node: _Function) -> Plugin:
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    parameters = [
        (a.arg, default is None, ast.unparse(a.annotation) if a.annotation else _implied(default))
        for a, default in pairs
    ]
    is_async = isinstance(node, ast.AsyncFunctionDef)
    return _plugin(name, file, module, parameters, is_async, arguments.kwarg is not None)


def _from_object(name: str, file: Path, module: str | None) -> Plugin:
    """Import a file, and read the signature off what a name is bound to there."""
    if no_code():
        return Plugin(name, file, module, name, (), {}, unread=True)
    try:
        found = getattr(imported(file, module), name)
        parameters = inspect.signature(found).parameters.values()
    except (Exception, SystemExit) as error:
        raise LookupError(f"{where(file, error)}: {type(error).__name__}: {error}") from error
    if isinstance(found, type):
        raise LookupError(f"{name} in {file} is a class, allowed: a function, or an instance with __call__")
    listed = [
        (p.name, p.default is p.empty, _implied(p.default) if p.annotation is p.empty else _written(p.annotation))
        for p in parameters
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    is_async = inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(type(found).__call__)
    return _plugin(name, file, module, listed, is_async, any(p.kind is p.VAR_KEYWORD for p in parameters))


def _implied(default: Any) -> str:
    """Return the annotation of a parameter that has none: `""` with a number as its default, so that it is no column."""
    value = default.operand if isinstance(default, ast.UnaryOp) else default  # -1
    value = value.value if isinstance(value, ast.Constant) else value
    return "" if isinstance(value, int | float) else "Any"


def _written(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _plugin(
    name: str, file: Path, module: str | None, parameters: list[tuple[str, bool, str]], is_async: bool, takes_any: bool
) -> Plugin:
    """Build a plug-in from its parameters: the name, whether it has no default, its annotation."""
    required = tuple(name for name, needed, _ in parameters if needed)
    options = {name: kind or "Any" for name, needed, kind in parameters if not needed and name not in TRL_REWARD_INPUTS}
    takes = tuple(name for name, _, _ in parameters)
    numbers = tuple(name for name, _, kind in parameters if not kind)
    return Plugin(name, file, module, name, required, options, is_async, takes_any, takes, numbers=numbers)


@cache
def names_in(file: Path) -> frozenset[str]:
    """Return every parameter and every text in a file of Python: a column that its functions read is among them."""
    nodes = list(ast.walk(ast.parse(file.read_bytes(), filename=str(file))))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return frozenset(texts | {node.arg for node in nodes if isinstance(node, ast.arg)})


def _files(home: str) -> list[tuple[Path, str]]:
    """Return the files of a package or module and the dotted name of each, without importing anything below the top."""
    top, *rest = home.split(".")
    spec = importlib.util.find_spec(home if top == "reasoning_ext" else top)
    if spec is None:
        return []
    if spec.submodule_search_locations is None:
        return [(Path(spec.origin or ""), home)]
    folder = Path(next(iter(spec.submodule_search_locations)))
    folder = folder if top == "reasoning_ext" else folder.joinpath(*rest)
    return [(file, f"{home}.{file.stem}") for file in sorted(folder.glob("*.py")) if not file.stem.startswith("_")]


@cache
def _names(file: Path) -> dict[str, _Function | None]:
    """Return the names that a file binds, with the function where that is one `def` at its top level."""
    tree = parsed(file)
    times = Counter(_bound(tree))
    defs = {node.name: node for node in tree.body if isinstance(node, _Function)}
    return {name: defs.get(name) if count == 1 else None for name, count in times.items()}


def _bound(tree: ast.Module) -> Iterator[str]:
    """Yield the names that the statements of a module bind; those inside its functions and classes are left out."""
    for statement in tree.body:
        whole = isinstance(statement, _Function | ast.ClassDef)
        for node in [statement] if whole else ast.walk(statement):
            if isinstance(node, _Function | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.alias):
                yield node.asname or node.name.partition(".")[0]
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


def _functions(file: Path) -> dict[str, _Function]:
    """Return the functions of a file of a home: the one that is named like the file, else all that are public."""
    found = {name: node for name, node in _names(file).items() if node and not name.startswith("_")}
    return {file.stem: found[file.stem]} if file.stem in found else found
