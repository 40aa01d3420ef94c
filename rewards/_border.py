"""The border between tests and the code that they test: two processes, between which only data and handles cross.

Run in the sandbox of `code_tests` from its source, `python -c SOURCE code FD` and `python -c SOURCE tests FD`, with the ends
of a socket. Plain values are copied, as JSON. Anything else stays where it is; the other side gets a handle, whose calls and
attributes are asked for over the socket. So what compares is out of the code's reach, and no object of the code's own is asked
how it likes a plain value: it has to show what it holds first.
"""

import builtins
import collections
import datetime
import decimal
import fractions
import importlib
import json
import operator
import os
import socket
import sys
import types
from collections.abc import Callable
from typing import Any

SCALARS = (type(None), bool, int, float, str)
SEQUENCES = (list, tuple, set, frozenset, collections.deque)
MAPPINGS = (dict, collections.OrderedDict, collections.Counter, collections.defaultdict)
RECIPES: dict[type, Callable[[Any], Any]] = {  # type -> its constructor's arguments
    complex: lambda v: (v.real, v.imag),
    **dict.fromkeys((bytes, bytearray), lambda v: (list(v),)),
    **dict.fromkeys((range, slice), lambda v: (v.start, v.stop, v.step)),
    decimal.Decimal: lambda v: (str(v),),
    fractions.Fraction: lambda v: (v.numerator, v.denominator),
    datetime.date: lambda v: (v.year, v.month, v.day),
    datetime.datetime: lambda v: (v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond),
    datetime.time: lambda v: (v.hour, v.minute, v.second, v.microsecond),
    datetime.timedelta: lambda v: (v.days, v.seconds, v.microseconds),
}
KNOWN = {kind.__name__: kind for kind in (*SEQUENCES, *MAPPINGS[:3], *RECIPES)}
HELD = (int, float, complex, str, bytes, *SEQUENCES, dict)  # what an object of a class of its own may hold
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
BINARY = "add sub mul truediv floordiv mod pow matmul and_ or_ xor lshift rshift".split()
PLAIN_CALLS = "len abs int float str repr bool hash iter next round reversed complex".split()
OTHER_CALLS = "call neg pos invert index getitem setitem delitem".split()
OPERATIONS: dict[str, Callable] = {name: getattr(builtins, name) for name in PLAIN_CALLS}
OPERATIONS |= {name: getattr(operator, name) for name in (*COMPARISONS, *BINARY, *OTHER_CALLS)}
OPERATIONS |= {f"r{name}": lambda right, left, name=name: OPERATIONS[name](left, right) for name in BINARY}
OPERATIONS |= {
    "isinstance": lambda kind, value: isinstance(value, kind),
    "await": lambda target: importlib.import_module("asyncio").run(target),
    "enter": lambda target: target.__enter__(),
    "exit": lambda target, *error: target.__exit__(None, None, None),
}
LOOKS = {
    **{"get": getattr, "setattr": setattr},
    "held": lambda target: next(k(target) for k in HELD if issubclass(type(target), k)),
}
COMPARING = ("math", "cmath", "operator", "unittest", "numpy", "np")  # tests believe these modules, and no other object


class Handle:
    """What stays on the other side."""

    __slots__ = ("_border", "_number")

    def __init__(self, border: "Border", number: int):
        object.__setattr__(self, "_border", border)
        object.__setattr__(self, "_number", number)

    def _ask(self, what: str, *given: Any, **named: Any) -> Any:
        return self._border.ask(what, self, *given, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__name__", "__doc__", "__dict__"):
            raise AttributeError(name)
        return self._ask("get", name)

    def __instancecheck__(self, value: Any) -> bool:
        return bool(self._ask("isinstance", value))


class _Sealed(Handle):
    """What came of an operator on a plain value: it shows nothing but to other handles."""

    def _ask(self, what: str, *given: Any, **named: Any) -> Any:
        if not any(isinstance(value, Handle) for value in given):
            raise TypeError("an object of the code's own that met a plain value shows nothing of it")
        return super()._ask(what, *given, **named)


def _operator(name: str) -> Callable:
    def operate(self: Handle, other: Any) -> Any:
        if isinstance(other, Handle):
            return self._ask(name, other)
        try:
            return OPERATIONS[name](self._ask("held"), other)
        except StopIteration:
            if name in COMPARISONS:
                return NotImplemented  # so nothing plain equals it
        result = self._border.ask(name, self, other)
        if not isinstance(result, Handle):
            raise TypeError("of an object of the code's own and a plain value no plain value may come")
        return _Sealed(self._border, result._number)

    return operate


for _name in (*PLAIN_CALLS, *OTHER_CALLS, "setattr", "enter", "exit"):
    setattr(Handle, f"__{_name}__", lambda self, *given, _what=_name, **named: self._ask(_what, *given, **named))
for _name in (*COMPARISONS, *BINARY, *(f"r{name}" for name in BINARY)):
    setattr(Handle, f"__{_name.strip('_')}__", _operator(_name))


class Border:
    """One end of the socket; the side of the tests, without `names`, shows the other only what it handed over."""

    def __init__(self, fd: int, names: dict[str, Any] | None = None):
        self.file, self.names = socket.socket(fileno=fd).makefile("rw", encoding="ascii", newline="\n"), names
        self.kept: dict[int, Any] = {}
        self.handles: dict[int, Handle] = {}
        self.errors: dict[tuple[str, str], type] = {}

    def ask(self, what: str, target: Any, *given: Any, **named: Any) -> Any:
        """Ask the other side, and serve what it asks meanwhile; lists and the like come back as they are afterwards."""
        self._send("ask", what, self.pack(target), [self.pack(value) for value in given], self.pack(named))
        while (message := self.receive())[0] == "ask":
            self.serve(*message[1:])
        kind, result, after = message
        for value, now in zip([*given, *named.values()], after, strict=True):
            if now is not None:
                _become(value, self.unpack(now))
        if kind == "raised":
            raise self.unpack(result[0])(*self.unpack(result[1]))
        return self.unpack(result)

    def serve(self, what: str, target: Any, packed: list, packed_named: Any) -> None:
        """Do what the other side asks, and answer."""
        given, named = [self.unpack(value) for value in packed], self.unpack(packed_named)
        try:
            kind, result = "value", self.pack(self._do(what, target, given, named))
        except Exception as error:
            told = [value if type(value) in SCALARS else str(value) for value in error.args]
            kind, result = "raised", [self.pack(type(error)), self.pack(told)]
        values, packed = [*given, *named.values()], [*packed, *(part for _, part in packed_named["dict"])]
        now = [self.pack(value) if isinstance(value, list | dict | set | bytearray) else None for value in values]
        self._send(kind, result, [None if new == old else new for new, old in zip(now, packed, strict=True)])

    def _do(self, what: str, target: Any, given: list, named: dict) -> Any:
        if self.names is not None and what == "name":
            return self.names[given[0]]
        if self.names is None and list(target) != ["yours"]:
            raise TypeError("only what was handed over can be asked")
        value = self.unpack(target)
        if self.names is None and what in LOOKS:
            own = value if isinstance(value, type) else type(value)
            if what == "held" or own.__module__ != "tests" or given[0].startswith("_"):
                raise AttributeError(given)
        return (OPERATIONS | LOOKS)[what](value, *given, **named)

    async def _awaited(self, number: int) -> Any:
        return self.ask("await", Handle(self, number))

    def _send(self, *message: Any) -> None:
        self.file.write(json.dumps(message) + "\n")
        self.file.flush()

    def receive(self) -> list:
        """Return the next message; ends this side where the other has ended."""
        line = self.file.readline()
        if not line:
            os._exit(1)
        return json.loads(line)

    def pack(self, value: Any) -> Any:
        """Return JSON for a value: what it is, if it is plain, else where it is kept."""
        kind = type(value)
        if kind in SCALARS:
            return value
        if kind in SEQUENCES:
            return {kind.__name__: [self.pack(part) for part in value]}
        if kind in MAPPINGS:
            name = "dict" if kind is collections.defaultdict else kind.__name__
            return {name: [[self.pack(key), self.pack(part)] for key, part in value.items()]}
        if kind in RECIPES:
            return {kind.__name__: [self.pack(part) for part in RECIPES[kind](value)]}
        if kind.__module__ == "numpy" and getattr(getattr(value, "dtype", None), "kind", "O") in "biufcU":
            return {"numpy": [value.dtype.str, self.pack(value.tolist()), kind.__name__ == "ndarray"]}
        if issubclass(kind, Handle):
            return {"yours": value._number}
        if isinstance(value, type) and issubclass(value, Exception):
            return {"error": [value.__name__, next(c for c in value.__mro__ if c.__module__ == "builtins").__name__]}
        if isinstance(value, type) and getattr(builtins, value.__name__, None) is value:
            return {"type": value.__name__}
        if kind is types.ModuleType:
            return {"module": value.__name__}
        self.kept[id(value)] = value
        return {"awaitable" if kind is types.CoroutineType else "mine": id(value)}

    def unpack(self, packed: Any) -> Any:
        """Return the value of JSON made by the other side's `pack`."""
        if not isinstance(packed, dict):
            return packed
        [(name, parts)] = packed.items()
        if name == "mine":
            return self.handles.setdefault(parts, Handle(self, parts))
        if name == "awaitable":
            return self._awaited(parts)
        if name == "yours":
            return self.kept[parts]
        if name == "module":
            return importlib.import_module(parts)
        if name == "type":
            return _class(parts, object)
        if name == "error":
            own, base = parts[0], _class(parts[1], Exception)
            return base if own == parts[1] else self.errors.setdefault(tuple(parts), type(str(own), (base,), {}))
        if name == "numpy":
            made = importlib.import_module("numpy").array(self.unpack(parts[1]), dtype=parts[0])
            return made if parts[2] else made[()]
        kind = KNOWN[name]
        if kind in MAPPINGS:
            return kind({self.unpack(key): self.unpack(part) for key, part in parts})
        values = [self.unpack(part) for part in parts]
        return kind(*values) if kind in RECIPES else kind(values)


def _class(name: str, base: type) -> type:
    found = vars(builtins)[name]
    if not (isinstance(found, type) and issubclass(found, base)):
        raise TypeError(name)
    return found


def _become(value: Any, now: Any) -> None:
    """Give a list, dict, set or bytearray the content of another."""
    if isinstance(value, list | bytearray):
        value[:] = now
    elif isinstance(value, dict | set):
        value.clear()
        value.update(now)


class _Names(dict):
    """The tests' names: their own, and for others the code's as they are now."""

    def __init__(self, border: Border, used: list[str]):
        super().__init__(__name__="tests", __builtins__=builtins)
        self.border, self.used = border, set(used)
        for name in used:
            try:
                value = self[name]
            except KeyError:
                self.used.discard(name)
                continue
            if name in COMPARING and not isinstance(value, types.ModuleType):
                self.used.discard(name)
            elif isinstance(value, Handle | type | types.ModuleType):
                self[name] = value
        called_alike = {name for name in self.used if hasattr(builtins, name)}
        if called_alike != self.used:  # what they call by a built-in's name is the built-in
            self.used -= called_alike
            for name in called_alike:
                self.pop(name, None)

    def __missing__(self, name: str) -> Any:
        if name not in self.used:
            raise KeyError(name)
        return self.border.ask("name", None, name)

    def of_the_code(self, name: str) -> Any:
        if name not in self.used:
            raise AttributeError(name)
        return self[name]


def hold_code(fd: int) -> None:
    """Import the code and serve what the tests ask of it."""
    sys.path.insert(0, os.getcwd())
    import solution

    border = Border(fd, vars(solution))
    while True:
        border.serve(*border.receive()[1:])


def hold_tests(fd: int) -> None:
    """Run the tests that come by standard input, `[source, names used]`; exit with 0 when their last line has held."""
    try:
        source, used = json.load(sys.stdin)
        names = _Names(Border(fd), used)
        sys.modules["solution"] = module = types.ModuleType("solution")
        vars(module)["__getattr__"] = names.of_the_code
        exec(compile(source, "tests", "exec"), names)  # noqa: S102  the tests of the data set, shut in like the code
    except BaseException:
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    sys.set_int_max_str_digits(0)
    {"code": hold_code, "tests": hold_tests}[sys.argv[1]](int(sys.argv[2]))
