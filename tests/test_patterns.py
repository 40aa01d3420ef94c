"""Every regular expression of the package stays fast on long texts made to slow it down.

The patterns are found, not listed: compiled ones in the modules' constants, and calls of `re` within functions.
"""

import ast
import functools
import gc
import importlib
import re
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pattern_floods import Flood, floods

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("reasoning_ext/**/*.py"), *ROOT.glob("rewards/**/*.py")])
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in SOURCES}
FILES = [file for file, text in TEXTS.items() if re.search(r"^(?:import|from) re\b", text, re.MULTILINE)]
CHARACTERS, SECONDS = 50_000, 0.025
GROWTH = 8  # times, for a text four times as long
OPTIONAL = {"unsloth", "vllm", "ray", "reasoning_gym"}  # the extras: a module may need them at import

# A pattern that a function builds from its variables is tried with these values of them, or left out for a reason.
BUILT: dict[tuple[str, str], dict[str, Any] | str] = {
    ("reasoning_ext/check/memory/parts.py", "targeted"): "the recipe's own pattern, on our short names of parts",
    ("reasoning_ext/data/tokens.py", "_cut"): {
        "pattern": r"(?<=<)(?=\|im_end\|>)|(?<=<)(?=/s>)|(<\|im_start\|>|<\|im_end\|>|<think>|</think>|\ \ )"
    },
    ("reasoning_ext/errors.py", "system_problem"): "the module's own words, one after another",
    ("reasoning_ext/evaluate/general.py", "_is"): "general.jsonl's, on 2,000 characters; see its own tests",
    ("reasoning_ext/think/call_bodies.py", "_end"): "END_OF_STRING is bounded; timed in tests/think/test_calls.py",
    ("reasoning_ext/think/call_bodies.py", "lenient"): "a template's own words; timed in tests/think/test_calls.py",
    ("reasoning_ext/think/call_finding.py", "_roles"): "control tokens, one or the other",
    ("reasoning_ext/think/call_format.py", "_between"): "see lenient",
    ("reasoning_ext/think/call_format.py", "_markers"): "control tokens, one or the other; timed there too",
    ("reasoning_ext/think/call_format.py", "_pattern"): "see lenient",
    ("reasoning_ext/verifier/statement.py", "_from_maxima"): {"name": "oo", "around": "()"},
    ("rewards/choice_answer.py", "_marked"): {"texts": r"the\ cat\ and\ the\ dog|the\ cat|aa|a|\(x\ \+\ 1\)\^2"},
}
Found = dict[re.Pattern[str], set[str]]  # patterns, and the operations that they are used with

_CALLS = "match|search|fullmatch|sub|subn|split|findall|finditer"
_FLAGS_AT = {"compile": 1, "sub": 4, "subn": 4, "split": 3}  # the place of `flags` among the arguments; else 2


def module_name(file: str) -> str:
    """Return the name that a source file is imported by."""
    parts = file.removesuffix(".py").removesuffix("/__init__").split("/")
    return ".".join([*(["reasoning_ext"] if parts[0] == "rewards" else []), *parts])


def patterns_in(value: Any) -> Iterator[re.Pattern]:
    """Yield a compiled pattern, or all within a container or a class."""
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, dict):
        yield from patterns_in([*value, *value.values()])
    elif isinstance(value, list | tuple | set | frozenset):
        for one in value:
            yield from patterns_in(one)
    elif isinstance(value, type):
        yield from patterns_in([*vars(value).values()])


@functools.cache
def uses(name: str, file: str) -> frozenset[str]:
    """Return the operations that a constant is used with, in its own file, or anywhere if it has no underscore.

    Where it stands in a table, they are searching, matching, and what its file does with variables.
    """
    own = TEXTS.get(file, SOURCE)
    texts = [own] if name.startswith("_") else TEXTS.values()
    used = {found for text in texts for found in re.findall(rf"\b{name}\.({_CALLS})\b", text)}
    of_variables = {"search", "fullmatch", *re.findall(r"\b(?!re\.)[a-z]\w*\.(match|sub|subn|findall|finditer)\(", own)}
    return frozenset(used or of_variables)


def find(source: str, values: dict[str, Any], file: str = "") -> tuple[Found, list[str]]:
    """Return the patterns of a module, by its source and its names as imported, and the calls that nobody can evaluate."""
    found, unknown = {}, []
    for name, value in values.items():
        bound_here = re.search(rf"^ *(?:class )?{name}\b[^=\n]*[=:]", source, re.MULTILINE)
        for pattern in patterns_in(value) if bound_here else ():
            found.setdefault(pattern, set()).update(uses(name, file))
    for function in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.Lambda)):
        given = BUILT.get((file, getattr(function, "name", "")), {})
        if isinstance(given, str):
            continue
        known = {**values, **given}
        for node in ast.walk(function):  # the outermost first
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                known = _value(node.value, known, node.targets[0].id, given) | known
            elif isinstance(node, ast.Call) and (
                called := re.fullmatch(rf"re\.(compile|{_CALLS})", ast.unparse(node.func))
            ):
                place = _FLAGS_AT.get(called[1], 2)
                flags = [keyword.value for keyword in node.keywords if keyword.arg == "flags"] or node.args[
                    place : place + 1
                ]
                known_flags = _value(flags[0], known, "it")["it"] if flags else 0
                pattern = _value(node.args[0], known, "it").get("it")
                if pattern is None:
                    unknown.append(f"{file}:{node.lineno}: {ast.unparse(node)}")
                elif isinstance(pattern, str):
                    names = {"search", "sub", "fullmatch"} if called[1] == "compile" else {called[1]}
                    found.setdefault(re.compile(pattern, known_flags), set()).update(names)
    return found, unknown


def _value(node: ast.expr, known: dict[str, Any], name: str, given: Any = ()) -> dict[str, Any]:
    """Return `{name: the value of an expression}`, or nothing where it cannot be had without running more."""
    calls = [call.func for call in ast.walk(node) if isinstance(call, ast.Call)]
    if name in given or any(ast.unparse(call).split(".")[-1] not in ("escape", "join", "map") for call in calls):
        return {}
    try:
        return {name: eval(compile(ast.Expression(node), "<pattern>", "eval"), dict(known))}  # noqa: S307
    except Exception:
        return {}


def telling(operations: set[str]) -> list[str]:
    """Return the operations that take as long as all of them.

    Matching is the beginning of a search, a search that of going through all matches, which `sub` and others do alike.
    """
    widest = next(filter(operations.__contains__, "sub subn split findall finditer search match".split()), None)
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
    found, unknown = find(TEXTS[file], vars(module), file)
    assert not unknown, "built at run time: give values or a reason in BUILT:\n" + "\n".join(unknown)
    tried = ((pattern, slow(pattern, name)) for pattern, names in found.items() for name in telling(names))
    assert [f"{file}: {pattern.pattern}\n    {problem}" for pattern, problem in tried if problem] == []


BACKTRACKING = [
    (r"(a|aa)+$", "match"), (r"\s+$", "sub"), (r"(?:[A-Za-z]+|[_ ]|(?<=[A-Za-z])\d+)+", "fullmatch"),
    (r"<a>.*?</a>", "search"), (r"(?:\w+\s?)*:", "match"), (r"\[[^\]]+\]", "findall"), (r"\d+\s*\d*=", "match"),
    (r"(?m)^\s*- ", "search"), (r"x(?=[^y]*y)", "findall"), (r"\d{1,3}(?:,\d{3})++(?!\d)", "findall"),
]  # fmt: skip
POSSESSIVE = [
    (r"(?>a|aa)++$", "match"), (r"(?<!\s)\s++$", "search"), (r"<a>[^<]*+</a>", "search"), (r"(?:\w++\s?+)*+:", "match"),
    (r"\[[^\[\]]++\]", "findall"), (r"(?<!\d)\d++\s*+\d*+=", "match"), (r"(?m)^[ \t]*+- ", "search"),
]  # fmt: skip


def test_a_pattern_that_backtracks_is_slow_and_a_possessive_one_is_not():
    for pattern, operation in BACKTRACKING:
        assert slow(re.compile(pattern), operation, SECONDS / 4).startswith(f"{operation} takes"), pattern
    for pattern, operation in POSSESSIVE:
        assert slow(re.compile(pattern), operation) == "", pattern


SOURCE = r"""
import re
NAME = "a"
_DIRECT = re.compile(f"{NAME}+", re.M)
_NESTED = {"x": [(re.compile(p), 1) for p in ("b+", "c+")]}
def first(text, given):
    joined = "e" + NAME
    if _DIRECT.sub("", text): re.compile("f").finditer(text)
    return re.split(joined, text), re.sub("g", "", text, 0, re.I), re.search("h", text, flags=re.S)
def second(text, other):
    return re.match(other, text), re.compile(str(text))
"""


def test_patterns_are_found_in_a_source():
    values: dict[str, Any] = {}
    exec(SOURCE, values)  # noqa: S102
    found, unknown = find(SOURCE, values)
    assert {(one.pattern, one.flags & ~re.U): sorted(names) for one, names in found.items()} == {
        ("a+", re.M): ["sub"], ("b+", 0): ["fullmatch", "search"], ("c+", 0): ["fullmatch", "search"],
        ("ea", 0): ["split"], ("f", 0): ["fullmatch", "search", "sub"], ("g", re.I): ["sub"], ("h", re.S): ["search"],
    }  # fmt: skip
    assert [text.partition(": ")[2] for text in unknown] == ["re.match(other, text)", "re.compile(str(text))"]
