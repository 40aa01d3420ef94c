r"""What a formula is worth: exactly where it is rational, to a stated precision where it is not, at points where it has letters.

Values that are not rational are computed with mpmath to 60 digits, and to as many more as the sizes of their parts are apart;
50 digits, and the same number more, must agree. Two expressions are equal when they are at every point of a fixed set at
which both are real, exactly where they are rational functions, for which agreeing at random points is as good as a proof
(Schwartz and Zippel). `simplify` is not asked: it could only confirm what the points say.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any

import mpmath

from reasoning_ext.verifier.formula import Tree, holds, letters
from reasoning_ext.verifier.rational import applied, exact, folded

DIGITS, SPARE = 60, 10
MOST_DIGITS, MOST_AT_POINTS = 20_000, 400
_SCALES: tuple[Fraction | int, ...] = (1, 1, Fraction(1, 7), 1, 1, 5, 1, 40, 9, Fraction(1, 30), 300, 300, 10**8, 10**8)
ENOUGH = 4  # points to have compared
_INTEGERS = frozenset("n k m N K M j l".split())
_BROKEN = frozenset({"floor", "ceil", "mod", "sgn"})  # what jumps, and where two may differ at the jumps alone
_STEPPED = frozenset({"factorial", "binomial", "floor", "ceil", "mod", "cos", "sin", "tan"})


class TooLarge(ValueError):
    """The numbers are too large to compare exactly, and no shorter way is certain."""


def numeric(
    trees: Sequence[Tree], at: Mapping[str, Fraction] | None = None, most: int = MOST_DIGITS
) -> tuple[list[Any], Any]:
    """Evaluate trees with mpmath at values of their letters, to 60 digits and as many more as the sizes of their parts are apart.

    Returns:
        their values, real where the imaginary part is nothing but rounding, None where one is undefined; and by how much two
        may differ and be the same.

    Raises:
        TooLarge: it would take more than `most` digits.
    """
    digits = DIGITS
    while True:
        largest = [0]
        values = [_evaluated(tree, digits, at or {}, largest) for tree in trees]
        needed = DIGITS + max(map(abs, largest)) * 3 // 10
        if needed > most:
            raise TooLarge("its numbers are too large to compare")
        if needed <= digits:
            return values, mpmath.mpf(10) ** (SPARE - digits + max(largest) * 3 // 10 + 1)
        digits = needed


def _evaluated(tree: Tree, digits: int, at: Mapping[str, Fraction], sizes: list[int]) -> Any:
    with mpmath.workdps(digits):
        try:
            value = mpmath.mpmathify(_numeric(tree, at, mpmath.mp, False, sizes))
        except (ZeroDivisionError, ValueError, TypeError, mpmath.libmp.NoConvergence):
            return None
        except OverflowError:
            raise TooLarge("its numbers are too large to compare") from None
        if not mpmath.isfinite(value):
            return None
        if isinstance(value, mpmath.mpc) and abs(value.imag) <= abs(value.real) * mpmath.mpf(10) ** (SPARE - digits):
            return value.real
        return value


def _numeric(tree: Tree, at: Mapping[str, Fraction], mp: Any, angle: bool, sizes: list[int]) -> Any:
    """Evaluate, and note how many binary digits a part has before or behind the point."""
    kind = tree[0]
    if kind == "number" or kind == "letter":
        number = tree[1] if kind == "number" else at[tree[1]]
        value = mp.mpf(number.numerator) / number.denominator
    elif kind == "constant":
        value = {"pi": mp.pi, "e": mp.e, "i": mp.mpc(0, 1)}[tree[1]] * 1
    elif kind == "degrees":
        value = _numeric(tree[1], at, mp, angle, sizes) * (mp.pi / 180 if angle else 1)
    else:
        parts = [_numeric(part, at, mp, angle or kind in _OF_ANGLES, sizes) for part in tree[1:]]
        value = applied(kind, parts) if kind.startswith("apply ") else _numeric_of(kind, parts, mp)
    if value and mp.isfinite(value):
        sizes.append(max(min(int(mp.mag(value)), 10 * MOST_DIGITS), -10 * MOST_DIGITS))
    return value


_OF_ANGLES = frozenset("sin cos tan cot sec csc".split())


_MPMATH = {"Re": "re", "Im": "im", "conjugate": "conj", "abs": "fabs", "sgn": "sign", "factorial2": "fac2"}


def _numeric_of(kind: str, parts: list[Any], mp: Any) -> Any:
    if kind in ("gcd", "lcm"):
        raise ValueError("no integers")
    if kind in _ARITHMETIC:
        return _ARITHMETIC[kind](mp, *parts)
    return getattr(mp, _MPMATH.get(kind, kind))(*parts)


def _raised(mp: Any, base: Any, exponent: Any) -> Any:
    """Raise to a power whose exponent of two stays printable."""
    if base and abs(exponent) * (abs(mp.log(abs(base))) + 1) > 10**9:
        raise OverflowError
    return base**exponent


def _numeric_root(mp: Any, value: Any, degree: Any) -> Any:
    """Return a root; of a negative real number the real one where there is one."""
    if degree == mp.floor(degree) and degree % 2 == 1 and not getattr(value, "imag", 0) and value < 0:
        return -mp.root(-value, int(degree))
    return mp.sqrt(value) if degree == 2 else value ** (1 / degree)


_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "+": lambda mp, first, *others: sum(others, first),
    "-": lambda mp, a: -a,
    "*": lambda mp, *parts: mp.fprod(parts),
    "/": lambda mp, a, b: a / b,
    "^": _raised,
    "root": _numeric_root,
    "log": lambda mp, a, *base: mp.log(a) / mp.log(base[0]) if base else mp.log(a),
    "ln": lambda mp, a: mp.log(a),
    "max": lambda mp, *parts: max(parts),
    "min": lambda mp, *parts: min(parts),
    "mod": lambda mp, a, b: a - b * mp.floor(a / b),
}


def equal_numbers(left: Tree, right: Tree) -> bool:
    """Tell whether two trees without letters have the same value.

    Raises:
        TooLarge: there is no telling in reasonable time.
    """
    left, right = folded(left), folded(right)
    if left == right:
        return True
    if left[0] == right[0] == "number":
        return bool(left[1] == right[1])
    if any(one[0] == "number" and is_huge(other) for one, other in ((left, right), (right, left))):
        return False
    values, tolerance = numeric((left, right))
    return None not in values and _same(values, tolerance)


def is_huge(tree: Tree) -> bool:
    """Tell whether a folded tree is a power, factorial or binomial that is no number any more because it is too large."""
    kind, *parts = tree
    if kind in ("factorial", "factorial2"):
        return bool(parts[0][0] == "number" or is_huge(parts[0]))
    if kind == "binomial":
        return all(part[0] == "number" for part in parts) and bool(1 < parts[1][1] < parts[0][1] - 1)
    if kind != "^":
        return False
    base, exponent = parts
    grows = is_huge(base) or (base[0] == "number" and abs(base[1]) not in (0, 1))
    return grows and (
        is_huge(exponent) or (exponent[0] == "number" and exponent[1].denominator == 1 and exponent[1] != 0)
    )


def _same(values: list[Any], tolerance: Any) -> bool:
    with mpmath.workdps(MOST_DIGITS):
        return bool(abs(values[0] - values[1]) <= tolerance)


def _points(names: list[str]) -> Iterator[dict[str, Fraction]]:
    """Yield fixed points at which expressions are compared: of several sizes, all, some or none below zero."""
    rng = random.Random(7)
    for n, scale in enumerate(_SCALES):
        point = {}
        for name in names:
            sign = rng.choice((-1, 1)) if n % 3 == 2 else -1 if n in (4, 10, 13) else 1
            point[name] = sign * scale * Fraction(rng.randrange(101, 1103), 3 * rng.randrange(89, 163))
        yield point


def equal_expressions(left: Tree, right: Tree) -> bool:
    """Tell whether two trees in the same letters are the same function, on the real numbers where both are real.

    Letters that count (`n`, `k`, ...) in what is only meant for integers, `(-1)^n`, are tried at integers too.
    """
    left, right = folded(left), folded(right)
    names = sorted(letters(left) | letters(right))
    if left == right:
        return True
    if _agree(left, right, _points(names)):
        whole = ({name: Fraction(n + i) for i, name in enumerate(names)} for n in (2, 5, -4))
        return not any(holds(side, _BROKEN) for side in (left, right)) or _agree(left, right, whole, 1)
    if letters(left) != letters(right) or not set(names) <= _INTEGERS:
        return False
    integers = ({name: Fraction(n + i) for i, name in enumerate(names)} for n in range(1, 13))
    steps = any(holds(side, _STEPPED) or _alternates(side) for side in (left, right))
    return steps and _agree(left, right, integers)


def _alternates(tree: Tree) -> bool:
    if tree[0] == "^" and letters(tree[2]):
        base = exact(tree[1])
        return base is not None and base < 0
    return any(_alternates(part) for part in tree[1:] if isinstance(part, tuple))


def _at_points(left: Tree, right: Tree, points: Iterator[dict[str, Fraction]]) -> Iterator[tuple[list[Any], Any]]:
    """Yield both values wherever both have one, and by how much these may differ; None where they are exact."""
    for point in points:
        sides = [exact(side, point) for side in (left, right)]
        if None not in sides:
            yield sides, None
            continue
        with suppress(TooLarge):
            found, tolerance = numeric((left, right), point, MOST_AT_POINTS)
            if None not in found:
                yield found, tolerance


def _agree(left: Tree, right: Tree, points: Iterator[dict[str, Fraction]], enough: int = ENOUGH) -> bool:
    real = unreal = 0
    unlike = False
    for found, tolerance in _at_points(left, right, points):
        same = found[0] == found[1] if tolerance is None else _same(found, tolerance)
        complex_sides = sum(bool(getattr(value, "imag", 0)) for value in found)
        if complex_sides == 0:
            if not same:
                return False
            real += 1
        elif complex_sides == 2:
            unreal, unlike = unreal + same, unlike or not same
    return real >= enough or (not unlike and real + unreal >= enough)


def ratio(left: Tree, right: Tree) -> bool:
    """Tell whether two trees in the same letters differ by a constant factor other than 0."""
    names = sorted(letters(left) | letters(right))
    found: list[Any] = []
    for values, tolerance in _at_points(folded(left), folded(right), _points(names)):
        if all(values):
            with mpmath.workdps(MOST_AT_POINTS):
                found.append(values[0] / values[1])
        elif tolerance is None:
            return False
    return len(found) >= ENOUGH and all(_near(found[0], one) for one in found)


def _near(left: Any, right: Any) -> bool:
    """Tell whether two factors agree to 40 digits."""
    with mpmath.workdps(DIGITS):
        left, right = (mpmath.mpf(n.numerator) / n.denominator if isinstance(n, Fraction) else n for n in (left, right))
        return bool(abs(left - right) <= abs(left) * mpmath.mpf(10) ** (2 * SPARE - DIGITS))
