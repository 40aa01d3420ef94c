"""Find the function that a recipe names, and read its signature without importing it.

A reward, a dataset format and a task generator are all spelled in the same three ways:

    math_answer                     a file of the same name in `rewards/` (or the module given as home), then trl.rewards
    my_package.my_module.function   anything that can be imported
    path/to/file.py:function        a file; the path is relative to the recipe, `:function` may be left out if it has the
                                    file's name

What is found is a Python file, and the signature of its `def` says what it needs, read off the source. A file is imported only
for a name that is bound by something else, a partial or an instance for example. `user_code` tells what a recipe may name.
"""

import ast
import difflib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from reasoning_ext.recipe.user_code import OURS, imported, no_code, parsed, refuse_library, where

_Function = ast.FunctionDef | ast.AsyncFunctionDef
TRL_REWARD_INPUTS = (
    "prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments",
)  # fmt: skip


@dataclass(frozen=True)
class Plugin:
    """A function found in a file, with what its signature asks for.

    Attributes:
        name: what it is called, in its file, in a recipe and in metrics.
        file: the file that defines it.
        module: the module to import it from, or None for a file that is imported by its path.
        parameters: all that it takes by name, `{name: annotation, or None for one without a default}`.
        is_async: it is an `async def`.
        takes_any: it has `**kwargs`, without which TRL cannot call it.
        unread: its signature is not known, because no code may be run to see it.
    """

    name: str
    file: Path
    module: str | None
    parameters: dict[str, str | None] = field(default_factory=dict)
    is_async: bool = False
    takes_any: bool = True
    unread: bool = False

    @property
    def required(self) -> tuple[str, ...]:
        """Parameters without a default."""
        return tuple(name for name, kind in self.parameters.items() if kind is None)

    @property
    def options(self) -> dict[str, str]:
        """Parameters with a default that a recipe may set, with their annotations, or what the default implies."""
        return {name: kind for name, kind in self.parameters.items() if kind and name not in TRL_REWARD_INPUTS}

    @property
    def is_factory(self) -> bool:
        """True for `get_*`, which by TRL's convention is called once and returns the function."""
        return self.name.startswith("get_")

    def load(self) -> Callable[..., Any]:
        """Import the file and return the function."""
        return getattr(imported(self.file, self.module), self.name)


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
    module, _, name = spelling.rpartition(".")
    if not _is_path(spelling) and module in ("", *homes):
        return _at_home(name, [module] if module else homes)
    file, found, name = _place(spelling, homes, base)
    node = _defs(file).get(name)
    return _of_def(file, found, node) if node else _of_object(file, found, name)


def code_file(spelling: str, homes: list[str], base: Path) -> Path | None:
    """Return the file that a spelling has Python import, without importing it; None for ours, TRL's, and what is not there."""
    try:
        file, module, _ = _place(spelling, homes, base)
    except LookupError:
        return None
    return None if (module or "").startswith(OURS) else file


def plugin_names(homes: list[str]) -> list[str]:
    """List the plain names that `find_plugin` knows: in a package the functions named like their file, or all of TRL's."""
    return sorted({name for name, _, _ in functions_at(homes)})


def functions_at(homes: list[str]) -> Iterator[tuple[str, Path, _Function]]:
    """Yield the functions that have such a name: the name, the file, and the function as it is parsed."""
    for home in homes:
        top, *rest = home.split(".")
        ours = top == "reasoning_ext"
        if (spec := importlib.util.find_spec(home if ours else top)) is None:
            continue
        folder = Path(next(iter(spec.submodule_search_locations or ())), *([] if ours else rest))
        for file in sorted(folder.glob("[!_]*.py")):
            public = {name: node for name, node in _defs(file).items() if not name.startswith("_")}
            own = {file.stem: public[file.stem]} if file.stem in public else public
            yield from ((name, file, node) for name, node in own.items())


def _at_home(name: str, homes: list[str]) -> Plugin:
    for home in homes:
        for other, file, node in functions_at([home]):
            if other == name:
                return _of_def(file, f"{home}.{file.stem}", node)
    known = plugin_names(homes)
    near = difflib.get_close_matches(name, known, 1)
    hint = f"the nearest is {near[0]}" if near else f"there are {', '.join(known)}"
    raise LookupError(
        f"no {name} in {' or '.join(homes)}; {hint}; or write pkg.module.function or path/to/file.py:function"
    )


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
    if top == "__main__" or (spec := importlib.util.find_spec(top)) is None:
        raise LookupError(f"no module {top} is installed; of a file beside the recipe write {base / top}.py:{function}")
    if top == "reasoning_ext" and rest[:1] == ["rewards"]:  # which lies outside its folder
        spec, rest = importlib.util.find_spec("reasoning_ext.rewards") or spec, rest[1:]
    if top in sys.stdlib_module_names or not (rest or spec.submodule_search_locations):
        return Path(spec.origin or ""), module, function
    file = Path(next(iter(spec.submodule_search_locations or [""])), *rest)
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    if not file.is_file():
        raise LookupError(f"no module {module}; looked for {file}")
    return file.resolve(), module, function


@cache
def _defs(file: Path) -> dict[str, _Function]:
    """Return the functions at a file's top level."""
    return {node.name: node for node in parsed(file).body if isinstance(node, _Function)}


def _of_def(file: Path, module: str | None, node: _Function) -> Plugin:
    args = node.args
    positional = [*args.posonlyargs, *args.args]
    defaults = [*[None] * (len(positional) - len(args.defaults)), *args.defaults, *args.kw_defaults]
    kinds: dict[str, str | None] = {}
    for argument, default in zip([*positional, *args.kwonlyargs], defaults, strict=True):
        written = ast.unparse(argument.annotation) if argument.annotation else _implied(default)
        kinds[argument.arg] = written if default else None
    return Plugin(node.name, file, module, kinds, isinstance(node, ast.AsyncFunctionDef), args.kwarg is not None)


def _of_object(file: Path, module: str | None, name: str) -> Plugin:
    """Import a file, and read the signature off what a name is bound to there."""
    if no_code():
        return Plugin(name, file, module, unread=True)
    try:
        if (found := getattr(imported(file, module), name, None)) is None:
            functions = ", ".join(_defs(file)) or "none"
            raise LookupError(f"no function {name}; it has {functions}")
        parameters = inspect.signature(found).parameters.values()
    except (Exception, SystemExit) as error:
        said = error.args[0] if isinstance(error, LookupError) and error.args else f"{type(error).__name__}: {error}"
        raise LookupError(f"{where(file, error)}: {said}") from error
    if isinstance(found, type):
        raise LookupError(f"{name} in {file} is a class, allowed: a function, or an instance with __call__")
    kinds: dict[str, str | None] = {}
    for p in parameters:
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            annotation = p.annotation if isinstance(p.annotation, str) else inspect.formatannotation(p.annotation)
            written = _implied(p.default) if p.annotation is p.empty else annotation
            kinds[p.name] = None if p.default is p.empty else written
    is_async = inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(type(found).__call__)
    return Plugin(name, file, module, kinds, is_async, any(p.kind is p.VAR_KEYWORD for p in parameters))


def _implied(default: Any) -> str:
    """Return the annotation of a parameter that has none: no column fills one whose default is a number."""
    value = default.operand if isinstance(default, ast.UnaryOp) else default  # -1
    value = value.value if isinstance(value, ast.Constant) else value
    return "float | None" if isinstance(value, int | float) and not isinstance(value, bool) else "Any"


@cache
def names_in(file: Path) -> frozenset[str]:
    """Return every parameter and every text in a file of Python: a column that its functions read is among them."""
    nodes = list(ast.walk(parsed(file)))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return frozenset(texts | {node.arg for node in nodes if isinstance(node, ast.arg)})
