"""Every regular expression of the package stays fast on long texts made to slow it down.

The patterns are found, not listed: calls of `re` in the sources, and compiled patterns in the modules' constants.
"""

import ast
import functools
import gc
import importlib
import re
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.pattern_floods import Flood, floods

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("reasoning_ext/**/*.py"), *ROOT.glob("rewards/**/*.py")])
IMPORTS_RE = re.compile(r"^[ \t]*+(?:import|from)\b.*\bre\b", re.MULTILINE)
FILES = {
    path.relative_to(ROOT).as_posix(): path for path in SOURCES if IMPORTS_RE.search(path.read_text(encoding="utf-8"))
}
CHARACTERS, SECONDS = 50_000, 0.025
GROWTH = 8  # times, for a text four times as long
OPTIONAL = {"unsloth", "vllm", "ray", "reasoning_gym"}  # the extras: a module may need them at import

# A pattern that a function builds from its variables is tried with these values of them, or left out for a reason.
BUILT: dict[tuple[str, str], dict[str, Any] | str] = {
    ("reasoning_ext/check/memory/parts.py", "targeted"): "the recipe's own pattern, on our short names of parts",
    ("reasoning_ext/data/tokens.py", "_cut"): {
        "pattern": r"(?<=<)(?=\|im_end\|>)|(?<=<)(?=/s>)|(<\|im_start\|>|<\|im_end\|>|<think>|</think>|\ \ )"
    },
    ("rewards/choice_answer.py", "_marked"): {"texts": r"the\ cat\ and\ the\ dog|the\ cat|aa|a|\(x\ \+\ 1\)\^2"},
}

_CALLS = {"compile", "match", "search", "fullmatch", "sub", "subn", "split", "findall", "finditer"}
_FLAGS_AT = {"compile": 1, "sub": 4, "subn": 4, "split": 3}  # the place of `flags` among the arguments; else 2
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_HARMLESS = {"escape", "join", "format", "strip", "replace", "map", "sorted", "set", "tuple", "list", "reversed", "str"}
_HARMLESS |= {"items", "keys", "values", "zip", "enumerate"}


@dataclass(frozen=True)
class Found:
    """A pattern, where it stands, and the operations that it is used with."""

    pattern: re.Pattern[str]
    line: int
    operations: tuple[str, ...]


@dataclass(frozen=True)
class Site:
    """A call of `re` in a source, or a mention of one of its functions, which then has no arguments."""

    operation: str
    node: ast.expr
    arguments: list[ast.expr]
    flags: ast.expr | None
    parents: list[ast.AST]  # the outermost first


def module_name(file: str) -> str:
    """Return the name that a source file is imported by."""
    parts = file.removesuffix(".py").split("/")
    parts = [*(["reasoning_ext"] if parts[0] == "rewards" else []), *parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a source file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def sites(source: ast.Module) -> Iterator[Site]:
    """Yield every use of a function of `re`, under whatever name it was imported."""
    modules, functions = set(), {}
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            modules |= {name.asname or name.name for name in node.names if name.name == "re"}
        elif isinstance(node, ast.ImportFrom) and node.module == "re":
            functions |= {name.asname or name.name: name.name for name in node.names if name.name in _CALLS}

    def operation(node: ast.AST) -> str | None:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            return node.attr if node.attr in _CALLS else None
        return functions.get(node.id) if isinstance(node, ast.Name) else None

    def visit(node: ast.AST, parents: list[ast.AST]) -> Iterator[Site]:
        called = operation(node.func) if isinstance(node, ast.Call) else None
        if isinstance(node, ast.Call) and called:
            named = {keyword.arg: keyword.value for keyword in node.keywords}
            place = _FLAGS_AT.get(called, 2)
            flags = named.get("flags") or (node.args[place] if len(node.args) > place else None)
            patterns = node.args[:1] or [named[key] for key in ("pattern",) if key in named]
            yield Site(called, node, patterns, flags, parents)
        elif isinstance(node, ast.expr) and (mentioned := operation(node)):
            calls = isinstance(parents[-1], ast.Call) and parents[-1].func is node
            if not calls:
                yield Site(mentioned, node, [], None, parents)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, [*parents, node])

    yield from visit(source, [])


@functools.cache
def uses(source: ast.Module) -> dict[str, set[str]]:
    """Return the operations that a source calls, or names, by the name of what they are taken from."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(source):
        if isinstance(node, ast.Attribute) and node.attr in _CALLS - {"compile"}:
            owner = getattr(node.value, "id", getattr(node.value, "attr", ""))
            found.setdefault(owner, set()).add(node.attr)
    return found


def operations(source: ast.Module, name: str | None) -> tuple[str, ...]:
    """Return the operations to try a compiled pattern with.

    They are those that its name is used with; else searching, matching, and what the source does with variables.
    """
    sources = [source] if not name or name.startswith("_") else [source, *map(tree, SOURCES)]
    own = set().union(*(uses(one).get(name or "", ()) for one in sources))
    variables = [used - {"split"} for owner, used in uses(source).items() if owner.islower() and owner != "re"]
    return tuple(sorted(own or {"search", "fullmatch"}.union(*variables)))


def patterns_in(value: Any) -> Iterator[re.Pattern]:
    """Yield a compiled pattern, or all within a container."""
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, dict):
        yield from patterns_in([*value, *value.values()])
    elif isinstance(value, (list, tuple, set, frozenset)):
        for one in value:
            yield from patterns_in(one)


def constants(source: ast.Module, values: dict[str, Any]) -> Iterator[tuple[str, ast.stmt, list[re.Pattern]]]:
    """Yield `(name, statement, patterns)` of the names that a module or a class of it binds to patterns."""
    for statement in source.body:
        if isinstance(statement, ast.ClassDef) and statement.name in values:
            yield from constants(statement, vars(values[statement.name]))  # type: ignore[arg-type]
        elif not isinstance(statement, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef)):
            for name in sorted(_bound(statement)):
                if found := list(patterns_in(values.get(name))):
                    yield name, statement, found


def _bound(parent: ast.AST) -> set[str]:
    """Return the names that are bound anywhere within a part of a source."""
    nodes = list(ast.walk(parent))
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return stored | {node.arg for node in nodes if isinstance(node, ast.arg)}


def evaluated(site: Site, values: dict[str, Any], given: dict[str, Any]) -> list[re.Pattern]:
    """Return a site's patterns, several within a loop, and none where they depend on what the code does when it runs."""
    if not site.arguments:
        return []
    scopes = [node for node in site.parents if isinstance(node, _SCOPES)]
    local = set().union(*map(_bound, scopes))
    known = {name: value for name, value in values.items() if name not in local} | given
    for assignment in (node for scope in scopes for node in ast.walk(scope) if isinstance(node, ast.Assign)):
        if isinstance(target := assignment.targets[0], ast.Name) and target.id not in given:
            known |= _value(assignment.value, known, target.id)
    turns = [known]
    for loop in (node for node in site.parents if isinstance(node, ast.For)):
        turns = [turn | bound for turn in turns for bound in _turns(loop, turn)]
    return [pattern for turn in turns for pattern in _compiled(site, turn)]


def _turns(loop: ast.For, known: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what each turn of a loop binds its variables to; one turn that binds nothing if that is not known."""
    over = _value(loop.iter, known, "it")
    names = [node.id for node in getattr(loop.target, "elts", [loop.target]) if isinstance(node, ast.Name)]
    if not over or not names:
        return [{}]
    return [dict(zip(names, one if len(names) > 1 else [one], strict=False)) for one in over["it"]]


def _compiled(site: Site, known: dict[str, Any]) -> list[re.Pattern]:
    pattern = _value(site.arguments[0], known, "it")
    flags = _value(site.flags, known, "it") if site.flags else {"it": 0}
    if not pattern or not flags:
        return []
    return [re.compile(pattern["it"], flags["it"])] if isinstance(pattern["it"], str) else [*patterns_in(pattern["it"])]


def _value(node: ast.expr, known: dict[str, Any], name: str) -> dict[str, Any]:
    """Return `{name: the value of an expression}`, or nothing where it cannot be had without running more."""
    for call in (node for node in ast.walk(node) if isinstance(node, ast.Call)):
        called = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
        if called not in _HARMLESS:
            return {}
    try:
        return {name: eval(compile(ast.Expression(node), "<pattern>", "eval"), dict(known))}  # noqa: S307
    except (NameError, AttributeError, TypeError, KeyError, ValueError):
        return {}


def find(source: ast.Module, values: dict[str, Any], file: str = "") -> tuple[list[Found], list[str]]:
    """Return the patterns of a module, and the places of those that can be found only by running it.

    Args:
        source: the module's syntax tree.
        values: the module's names, as imported.
        file: its path, under which `BUILT` has values.
    """
    found, unknown, bound = [], [], set()
    for name, statement, patterns in constants(source, values):
        bound.add(statement)
        found += [Found(pattern, statement.lineno, operations(source, name)) for pattern in patterns]
    for site in sites(source):
        function = next((node.name for node in site.parents[::-1] if isinstance(node, ast.FunctionDef)), "")
        given = BUILT.get((file, function), {})
        patterns = evaluated(site, values, given if isinstance(given, dict) else {})
        if patterns:
            names = _site_operations(source, site)
            found += [Found(pattern, site.node.lineno, names) for pattern in patterns]
        elif not isinstance(given, str) and not bound.intersection(site.parents):
            unknown.append(f"{file}:{site.node.lineno}: {ast.unparse(site.node)}")
    return _merged(found), unknown


def _site_operations(source: ast.Module, site: Site) -> tuple[str, ...]:
    """Return what is done with a site's pattern: the call itself, or what follows a `re.compile`."""
    if site.operation != "compile":
        return (site.operation,)
    parent = site.parents[-1]
    if isinstance(parent, ast.Attribute) and parent.attr in _CALLS:
        return (parent.attr,)
    target = parent.targets[0] if isinstance(parent, ast.Assign) else None
    return operations(source, target.id if isinstance(target, ast.Name) else None)


def _merged(found: list[Found]) -> list[Found]:
    """Join what is found twice, as a constant and as a call; what stands first comes first."""
    merged: dict[re.Pattern, Found] = {}
    for one in found:
        known = merged.get(one.pattern, one)
        names = tuple(sorted({*known.operations, *one.operations}))
        merged[one.pattern] = Found(one.pattern, min(known.line, one.line), names)
    return sorted(merged.values(), key=lambda one: one.line)


def telling(operations: tuple[str, ...]) -> list[str]:
    """Return the operations that take as long as all of them.

    Matching is the beginning of a search, a search that of going through all matches, which `sub` and others do alike.
    """
    widest = next(
        filter(operations.__contains__, ("sub", "subn", "split", "findall", "finditer", "search", "match")), None
    )
    return [name for name in (widest, "fullmatch") if name in operations]


def slow(pattern: re.Pattern[str], operation: str, limit: float = SECONDS) -> str:
    """Return what takes longer than the limit and grows faster than its text, as `operation, times, size: text`.

    A text four times as long takes four times as long where nothing backtracks, and at least sixteen times where
    something does. The two are measured one after the other, so that a slow or busy machine changes nothing.
    """
    for flood in floods(pattern):
        took = 0.0
        for size in sizes(flood):
            if 10_000 < size < CHARACTERS and took < limit / 50:
                continue
            took = processor_time(pattern, operation, flood.text(size), limit)
            if took <= limit:
                continue
            growth = took / max(processor_time(pattern, operation, flood.text(size // 4), 0), 1e-9)
            if growth > GROWTH or took > 20 * limit:
                return f"{operation} takes {took:.2f} s, {growth:.0f} times a quarter, for {size:,} characters: {flood}"
    return ""


def sizes(flood: Flood) -> Iterator[int]:
    """Yield growing sizes up to the last one, in steps so small that not even exponential time becomes very long."""
    unit = sum(map(len, flood.units))
    size = 12.0 * unit
    while size < max(1_000, min(200 * unit, 10_000)):
        yield int(size)
        size *= 1.15
    yield from (10_000, 20_000, CHARACTERS)


def processor_time(pattern: re.Pattern[str], operation: str, text: str, limit: float) -> float:
    """Return the processor time of an operation on a text, the best of three where it is a little over the limit."""
    call = getattr(pattern, operation)
    arguments = ("", text) if operation in ("sub", "subn") else (text,)
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        result = call(*arguments)
        if operation == "finditer":
            deque(result, maxlen=0)
        best = min(best, time.process_time() - start)
        if best <= limit or best > 5 * limit:
            break
    return best


@pytest.fixture(autouse=True)
def _no_garbage_collection():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_every_pattern_is_fast_on_texts_made_from_itself(file):
    try:
        module = importlib.import_module(module_name(file))
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in OPTIONAL:
            pytest.skip(f"needs {error.name}")
        raise
    found, unknown = find(tree(FILES[file]), vars(module), file)
    assert not unknown, "built at run time: give values or a reason in BUILT:\n" + "\n".join(unknown)
    failures = [
        f"{file}:{one.line}: {one.pattern.pattern}\n    {problem}"
        for one in found
        for operation in telling(one.operations)
        if (problem := slow(one.pattern, operation))
    ]
    assert not failures, "\n" + "\n".join(failures)


def test_the_values_and_reasons_are_those_of_functions_that_build_patterns():
    functions = {
        (file, node.name)
        for file in {file for file, _ in BUILT}
        for site in sites(tree(ROOT / file))
        for node in site.parents
        if isinstance(node, ast.FunctionDef)
    }
    assert set(BUILT) <= functions


@pytest.mark.parametrize(
    ("pattern", "operation"),
    [
        (r"(a|aa)+$", "match"),
        (r"\s+$", "sub"),
        (r"(?:[A-Za-z]+|[_ ]|(?<=[A-Za-z])\d+)+", "fullmatch"),
        (r"<a>.*?</a>", "search"),
        (r"(?:\w+\s?)*:", "match"),
        (r"\[[^\]]+\]", "findall"),
        (r"\d+\s*\d*=", "match"),
        (r"(?m)^\s*- ", "search"),
        (r"x(?=[^y]*y)", "findall"),
        (r"\d{1,3}(?:,\d{3})++(?!\d)", "findall"),
    ],
)
def test_a_pattern_that_backtracks_is_slow(pattern, operation):
    assert slow(re.compile(pattern), operation, SECONDS / 4).startswith(f"{operation} takes")


@pytest.mark.parametrize(
    ("pattern", "operation"),
    [
        (r"(?>a|aa)++$", "match"),
        (r"(?<!\s)\s++$", "search"),
        (r"(?:[A-Za-z]++|[_ ]|(?<=[A-Za-z])\d++)++", "fullmatch"),
        (r"<a>[^<]*+</a>", "search"),
        (r"(?:\w++\s?+)*+:", "match"),
        (r"\[[^\[\]]++\]", "findall"),
        (r"(?<!\d)\d++\s*+\d*+=", "match"),
        (r"(?m)^[ \t]*+- ", "search"),
    ],
)
def test_a_possessive_pattern_is_fast(pattern, operation):
    assert slow(re.compile(pattern), operation) == ""


SOURCE = r"""
import re
from re import compile as made, sub
NAME = "a"
_DIRECT = re.compile(f"{NAME}+", re.M)
_NESTED = {"x": [(made(p), 1) for p in ("b+", "c+")]}
class Holder:
    own = re.compile("d")
def first(text, given):
    joined = "e" + NAME
    if _DIRECT.sub("", text): re.compile("f").finditer(text)
    for pattern, _ in _NESTED["x"]: pattern.match(text)
    for name, end in {"i": "+", "j": "*"}.items(): re.subn(name + end, "", text)
    return re.split(joined, text), sub("g", "", text, 0, re.I), re.search(pattern="h", string=text, flags=re.S)
def second(text, NAME):
    return re.match(NAME, text), map(re.compile, text), re.compile(str(text))
"""


def test_patterns_are_found_in_a_source():
    values: dict[str, Any] = {}
    exec(SOURCE, values)  # noqa: S102
    found, unknown = find(ast.parse(SOURCE), values, "x.py")
    loose = ("fullmatch", "match", "search")
    assert {(one.pattern.pattern, one.pattern.flags & ~re.U, one.operations) for one in found} == {
        ("a+", re.M, ("sub",)),
        ("b+", 0, loose),
        ("c+", 0, loose),
        ("d", 0, loose),
        ("ea", 0, ("split",)),
        ("f", 0, ("finditer",)),
        ("g", re.I, ("sub",)),
        ("h", re.S, ("search",)),
        ("i+", 0, ("subn",)),
        ("j*", 0, ("subn",)),
    }
    assert [text.partition(": ")[2] for text in unknown] == [
        "re.match(NAME, text)",
        "re.compile",
        "re.compile(str(text))",
    ]
