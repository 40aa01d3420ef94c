"""Find the function that a recipe names, and read its signature without importing it.

A reward, a dataset format and a task generator are all spelled in the same three ways:

    math_answer                     a file of the same name in `rewards/` (or the module given as home), then trl.rewards
    my_package.my_module.function   anything that can be imported
    path/to/file.py:function        a file; the path is relative to the recipe, `:function` may be left out if it has the
                                    file's name

There is no registry: what is found is a Python file, and its signature says what it needs. Reading the signature off
the source keeps torch and sympy out of the way of an error message.
"""

import ast
import difflib
import importlib
import importlib.util
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

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
    """

    name: str
    file: Path
    module: str | None
    function: str
    required: tuple[str, ...]
    options: dict[str, str]
    is_async: bool = False
    takes_any: bool = True

    @property
    def is_factory(self) -> bool:
        """True for `get_*`, which by TRL's convention is called once and returns the function."""
        return self.function.startswith("get_")

    def load(self) -> Callable[..., Any]:
        """Import the file and return the function."""
        return getattr(
            import_file(self.file) if self.module is None else importlib.import_module(self.module), self.function
        )


def find_plugin(spelling: str, homes: list[str], base: Path) -> Plugin:
    """Find a function by its spelling in a recipe.

    Args:
        spelling: one of the three forms above.
        homes: packages or modules that plain names are looked for in, in this order.
        base: the folder that file paths are relative to.

    Raises:
        LookupError: nothing of that name; the message says where was looked and the nearest name.
    """
    if ".py" in spelling or "/" in spelling:
        return _in_file(spelling, base)
    if "." in spelling:
        return _in_module(spelling, base)
    for home in homes:
        for file, module in _files(home):
            node = _functions(file).get(spelling)
            if node is not None:
                return _plugin(spelling, file, module, node)
    known = plugin_names(homes)
    near = difflib.get_close_matches(spelling, known, 1)
    hint = f"the nearest is {near[0]}" if near else f"there are {', '.join(known)}"
    raise LookupError(
        f"no {spelling} in {' or '.join(homes)}; {hint}; or write pkg.module.function or path/to/file.py:function"
    )


def plugin_names(homes: list[str]) -> list[str]:
    """List the plain names that `find_plugin` knows: in a package the functions named like their file, or all of TRL's."""
    names = []
    for home in homes:
        for file, _ in _files(home):
            functions = [name for name in _functions(file) if not name.startswith("_")]
            own = [name for name in functions if name == file.stem]
            names += own or functions
    return sorted(set(names))


def import_file(path: Path) -> Any:
    """Import a Python file by its path, once; the module can be found again by a child process that unpickles from it."""
    name = f"reasoning_ext_file_{path.stem}_{zlib.crc32(str(path.resolve()).encode()):x}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _in_file(spelling: str, base: Path) -> Plugin:
    path, _, function = spelling.partition(":")
    file = (base / Path(path).expanduser()).resolve()
    if not file.is_file():
        raise LookupError(f"no file {path}; looked for {file}")
    function = function or file.stem
    return _plugin(function, file, None, _one_of(_functions(file), function, file))


def _in_module(spelling: str, base: Path) -> Plugin:
    module, _, function = spelling.rpartition(".")
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None and (base / top).with_suffix(".py").is_file():
        raise LookupError(f"no module {top}; for a file beside the recipe write {top}.py:{function}")
    if spec is None:
        raise LookupError(f"no module {top} is installed")
    if top == "reasoning_ext" and rest:  # its parents are light to import, and `rewards` lies outside its folder
        spec, rest = importlib.util.find_spec(module) or spec, []
    if not rest:
        file = Path(spec.origin or "")
    else:
        folder = Path((spec.submodule_search_locations or [""])[0]).joinpath(*rest)
        file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    if not file.is_file():
        raise LookupError(f"no module {module}; looked for {file}")
    return _plugin(function, file, module, _one_of(_functions(file), function, file))


def _one_of(functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef], name: str, file: Path) -> Any:
    if name not in functions:
        raise LookupError(f"{file} has no function {name}; it has {', '.join(functions) or 'none'}")
    return functions[name]


def _plugin(name: str, file: Path, module: str | None, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Plugin:
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    required = tuple(a.arg for a, default in pairs if default is None)
    options = {
        a.arg: ast.unparse(a.annotation) if a.annotation else "Any"
        for a, default in pairs
        if default is not None and a.arg not in TRL_REWARD_INPUTS
    }
    return Plugin(
        name,
        file,
        module,
        node.name,
        required,
        options,
        isinstance(node, ast.AsyncFunctionDef),
        arguments.kwarg is not None,
    )


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
def _functions(file: Path) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """Parse a file and return its top-level functions by name."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except SyntaxError as error:
        raise LookupError(f"{file}:{error.lineno}: {error.msg}") from error
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
