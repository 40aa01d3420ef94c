"""Long texts made from a regular expression itself, on which it backtracks if it can.

Each text is a head that leads to a part of the pattern, a unit over and over, and a tail that the pattern cannot match.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from re import _compiler, _parser  # type: ignore[attr-defined]
from typing import Any

MOST = 40  # texts for a pattern
_TAILS = ("\x00", "\n!")
_MOST_UNITS, _MOST_VARIANTS = 8, 24
_REPEATS = (_parser.MAX_REPEAT, _parser.MIN_REPEAT, _parser.POSSESSIVE_REPEAT)
_SETS = (_parser.IN, _parser.NOT_LITERAL, _parser.ANY)
_PROBES = "a1 Ab\n\t_.,;:-+*/\\=<>(){}[]|$^!?'\"`#%~&@é中あ²\x01"


@dataclass(frozen=True)
class Flood:
    """A text of any length: units, each of them repeated, between a head and a tail."""

    head: str
    units: tuple[str, ...]
    tail: str = _TAILS[0]

    def __str__(self) -> str:
        head = [repr(self.head)] if self.head else []
        return " + ".join([*head, *(f"{unit!r} * n" for unit in self.units), repr(self.tail)])

    def text(self, size: int) -> str:
        """Return the text with about `size` characters, and each unit at least once."""
        times = [max(1, size // len(self.units) // len(unit)) for unit in self.units]
        return self.head + "".join(unit * n for unit, n in zip(self.units, times, strict=True)) + self.tail


def floods(pattern: re.Pattern[str]) -> list[Flood]:
    """Return at most `MOST` texts on which the pattern may be slow, the likeliest ones first."""
    return _Reader(pattern).floods()


class _Reader:
    """Makes texts from the parse tree of a pattern."""

    def __init__(self, pattern: re.Pattern[str]):
        self.flags = pattern.flags
        self.tree = _parser.parse(pattern.pattern, pattern.flags)
        self.groups: dict[int, str] = {}
        self.characters = self._characters()

    def floods(self) -> list[Flood]:
        """Return the texts: by rank, and within a rank in the pattern's order."""
        whole = self._variants(self.tree)
        parts = list(self._parts(self.tree, ""))
        refusals = [value[1] for kind, value in _nodes(self.tree) if kind is _parser.ASSERT_NOT and value[0] > 0]
        refused = dict.fromkeys(text for items in refusals for text in self._variants(items)[:3] if text)
        ranked = [(0, Flood("", (whole[0],))), (1, Flood("", (whole[0][:-1],)))]
        ranked += [(1, Flood("", (character,))) for character in self.characters]
        for head, units in parts:
            ranked += [(0, Flood(head, (units[0],))), (2, Flood(head, (units[0],), _TAILS[1]))]
            ranked += [(rank, Flood(head, (unit,))) for rank, unit in enumerate(units[1:], 1)]
            ranked += [(3, Flood(head, (units[0],), more + _TAILS[0])) for more in refused]
            ranked += [(1, Flood("", (head,))), (2, Flood("", (head + units[0],)))] if head else []
        for (head, [first, *_]), (_, [second, *_]) in pairwise(parts):
            if first != second:
                ranked += [(3, Flood(head, (first, second))), (3, Flood(head, (first + second,)))]
        ordered = [flood for _, flood in sorted(ranked, key=lambda pair: pair[0]) if all(flood.units)]
        return list(dict.fromkeys(ordered))[:MOST]

    def _parts(self, items: Any, head: str) -> Iterator[tuple[str, list[str]]]:
        """Yield `(what leads there, texts that match once)` for each repeat and each alternative."""
        for node in items:
            kind, value = node
            if kind in _REPEATS:
                _, most, body = value
                units = [unit for unit in self._variants(body) if unit][:_MOST_UNITS]
                if most > 9 and units:
                    yield head, units
                yield from self._parts(body, head)
            elif kind is _parser.BRANCH:
                for alternative in value[1]:
                    if text := self._variants(alternative)[0]:
                        yield head, [text]
                    yield from self._parts(alternative, head)
            else:
                for inner in _inside(node):
                    yield from self._parts(inner, head)
            head += self._texts(node)[0]

    def _variants(self, items: Any) -> list[str]:
        """Return texts that a sequence matches: a plain one, the shortest one, then with one part changed at a time."""
        options = [self._texts(node) for node in items]
        plain = [texts[0] for texts in options]
        found = ["".join(plain), "".join(min(texts, key=len) for texts in options)]
        for place, texts in enumerate(options):
            found += ["".join([*plain[:place], other, *plain[place + 1 :]]) for other in texts[1:]]
        return list(dict.fromkeys(found))[:_MOST_VARIANTS]

    def _texts(self, node: Any) -> list[str]:
        """Return texts that a node matches, or that a look around wants to stand before it."""
        kind, value = node
        if kind is _parser.LITERAL:
            return [chr(value)]
        if kind in _SETS:
            holds = self._holds(node)
            return [character for character in self.characters if holds(character)] or ["a"]
        if kind in _REPEATS:
            least, _, body = value
            return [text * max(1, least) for text in self._variants(body)] + ([""] if least == 0 else [])
        if kind is _parser.BRANCH:
            return [text for alternative in value[1] for text in self._variants(alternative)]
        if kind is _parser.SUBPATTERN:
            texts = self._variants(value[-1])
            self.groups[value[0]] = texts[0]
            return texts
        if kind is _parser.ATOMIC_GROUP:
            return self._variants(value)
        if kind is _parser.GROUPREF:
            return [self.groups.get(value, "a")]
        if kind is _parser.ASSERT and value[0] < 0:
            return self._variants(value[1])
        return [""]

    def _characters(self) -> list[str]:
        """Return characters for each way to belong to some of the pattern's sets and not to the others."""
        nodes = list(_nodes(self.tree))
        sets = [node for node in nodes if node[0] in _SETS]
        sets += [body[0] for kind, value in nodes if kind in _REPEATS and len(body := value[2]) == 1]
        holders = [self._holds(node) for node in sets if node[0] in (*_SETS, _parser.LITERAL)]
        found: dict[tuple, str] = {}
        for character in dict.fromkeys([*_PROBES, *_literals(nodes)]):
            belongs = tuple(bool(holds(character)) for holds in holders)
            if any(belongs):
                found.setdefault((character == "\n", character.isalnum(), *belongs), character)
        return list(found.values())

    def _holds(self, node: Any) -> Any:
        single = _parser.SubPattern(self.tree.state, [node])
        return _compiler.compile(single, self.flags & ~re.VERBOSE).fullmatch


def _inside(node: Any) -> list[Any]:
    """Return the sequences within a node."""
    kind, value = node
    if kind in _REPEATS:
        return [value[2]]
    if kind is _parser.BRANCH:
        return list(value[1])
    if kind is _parser.ATOMIC_GROUP:
        return [value]
    if kind in (_parser.SUBPATTERN, _parser.ASSERT, _parser.ASSERT_NOT):
        return [value[-1]]
    return []


def _nodes(items: Any) -> Iterator[Any]:
    for node in items:
        yield node
        for inner in _inside(node):
            yield from _nodes(inner)


def _literals(nodes: list[Any]) -> Iterator[str]:
    for kind, value in nodes:
        if kind is _parser.LITERAL:
            yield chr(value)
        elif kind is _parser.IN:
            for one, what in value:
                if one is _parser.LITERAL:
                    yield chr(what)
                elif one is _parser.RANGE:
                    yield from (chr(what[0]), chr(what[1]))
