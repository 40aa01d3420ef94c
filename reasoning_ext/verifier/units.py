r"""Names of units: one name for all the ways to write one, and what is a unit's name at all."""

import re
from functools import lru_cache

UNITS = frozenset(
    "mm cm dm km in ft yd mi nm um mg kg lb lbs oz ms sec min hr hrs ml cl dl kj kw mph kph kmh gb mb kb hz khz mhz pa kpa "
    "deg rad usd eur st nd rd th".split()
)
_SPELLED = {
    "in": "inch", "inches": "inch", "ft": "foot", "feet": "foot", "yd": "yard", "mi": "mile", "lb": "pound", "lbs": "pound",
    "oz": "ounce", "gal": "gallon", "hr": "hour", "hrs": "hour", "h": "hour", "min": "minute", "mins": "minute", "sec": "second",
    "secs": "second", "metre": "meter", "litre": "liter", "usd": "dollar", "bucks": "dollar", "eur": "euro", "amp": "ampere",
    "deg": "degree", "rad": "radian", "ohms": "ohm", "yrs": "year", "yr": "year", "mol": "mole",
    "khz": "kilohertz", "mhz": "megahertz",
    "ghz": "gigahertz", "kw": "kilowatt", "kpa": "kilopascal", "kj": "kilojoule", "hz": "hertz",
}  # fmt: skip
_SYMBOLS = {
    "m": "meter", "g": "gram", "s": "second", "A": "ampere", "K": "kelvin", "N": "newton", "J": "joule", "W": "watt", "V": "volt",
    "Pa": "pascal", "Hz": "hertz", "L": "liter", "l": "liter", "eV": "electronvolt", "T": "tesla", "F": "farad", "C": "coulomb",
    "ohm": "ohm", "mol": "mole", "B": "byte", "b": "bit", "cal": "calorie",
}  # fmt: skip
_PREFIXES = {
    "p": "pico", "n": "nano", "u": "micro", "m": "milli", "c": "centi", "d": "deci", "k": "kilo", "M": "mega", "G": "giga",
    "T": "tera",
}  # fmt: skip
_NAMES = frozenset(
    "meter centimeter millimeter kilometer decimeter micrometer nanometer inch foot yard mile gram kilogram milligram "
    "ounce pound ton tonne liter milliliter gallon second millisecond microsecond nanosecond minute hour day week "
    "month year degree celsius fahrenheit kelvin joule watt newton pascal volt ampere ohm hertz mole kilojoule "
    "kilowatt kilohertz megahertz dollar cent euro yen rupee mph kmh kph".split()
)


def is_unit_name(word: str) -> bool:
    """Tell whether a word is the name of a unit of measurement or money, in the singular or plural, or short."""
    return unit_key(word) in _NAMES or word in UNITS


@lru_cache(maxsize=4096)
def unit_key(unit: str) -> str:
    r"""Return a unit in one spelling, without LaTeX, spaces and plural."""
    text = re.sub(r"\\Omega(?![A-Za-z])|\u03a9|\u2126", "ohm ", unit.replace(r"\circ", " degree "))
    text = re.sub(r"\\mu\s*+(?:\\text\s*+\{)?+\s*+|[µμ]", " u", text)
    text = re.sub(r"\\(?:text|mathrm|cdot)(?![A-Za-z])|\\[,;:! ]|[{}.·*]", " ", text)
    text = re.sub(r"\b([munkMG])\s++ohm\b", r"\1ohm", text)
    text = re.sub(r"\bper\b", "/", re.sub(r"\^\s*+(?=degree)", "", text))
    text = re.sub(r"\b(?:square|sq)\s++([A-Za-z]++)", r"\1^2", re.sub(r"\b(?:cubic|cu)\s++([A-Za-z]++)", r"\1^3", text))
    degrees = r"(?i)\bdegrees?\s++(?:(c)(?:elsius)?|f(?:ahrenheit)?)\b"
    text = re.sub(degrees, lambda m: "celsius" if m[1] else "fahrenheit", text)
    text = re.sub(r"\b([A-Za-z]++) (squared|cubed)\b", lambda m: f"{m[1]}^{2 if m[2] == 'squared' else 3}", text)
    above: list[str] = []
    below: list[str] = []
    for i, part in enumerate(text.split("/")):
        for word, power in re.findall(r"([A-Za-z]++)(?:\s*+\^\s*+(-?[0-9]))?+", part):
            exponent = int(power or 1) * (1 if i == 0 else -1)
            name = _spelled(word)
            (above if exponent > 0 else below).append(name if abs(exponent) == 1 else f"{name}^{abs(exponent)}")
    return "/".join([" ".join(above), *below]) if below else " ".join(above)


def _spelled(word: str) -> str:
    """Write a unit's name out, in the singular; the case of a symbol counts where there are two, `mW` and `MW`."""
    symbol = _symbol(word)
    if not symbol and word.lower() not in _SPELLED:
        symbol = _symbol(word.lower()) or (_symbol(word.title()) if len(word) > 1 else None)
    if symbol and word not in ("min", "ft", "cd", "pt"):
        return symbol
    word = word.lower()
    if word in _SPELLED:
        return _SPELLED[word]
    singular = word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word
    return _SPELLED.get(singular, singular.replace("metre", "meter").replace("litre", "liter"))


def _symbol(word: str) -> str | None:
    """Read a symbol, with a prefix or without: `kPa`."""
    if word in _SYMBOLS:
        return _SYMBOLS[word]
    prefix, rest = word[:1], word[1:]
    return _PREFIXES[prefix] + _SYMBOLS[rest] if prefix in _PREFIXES and rest in _SYMBOLS and len(word) < 5 else None


def parts_of(name: str) -> tuple[str, int]:
    """Split a prefix off a unit's name: `kilometer` is a meter times ten to the 3."""
    for power, prefix in zip((-12, -9, -6, -3, -2, -1, 3, 6, 9, 12), _PREFIXES.values(), strict=True):
        if name.startswith(prefix) and name[len(prefix) :] in _SYMBOLS.values():
            return name[len(prefix) :], power
    return name, 0
