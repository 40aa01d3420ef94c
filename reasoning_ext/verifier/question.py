r"""What a question says about the form of its answer: whether it asks for per cent, and which base it names."""

import re
from functools import lru_cache

_PERCENT = re.compile(
    r"(?<!\d)(?<!\d )(?<!\d-)\b(?:percent(?:age)?s?|per cent)\b|\b(?:what|which|many|as an?|in|the)\s++\\?%",
    re.IGNORECASE,
)
_BASE = re.compile(r"\b(?:base|binary|octal|hexadecimal|hex)\b", re.IGNORECASE)
_BASED = re.compile(r"[0-9A-Za-z]++\s*+_\s*+\{?\s*+(?:\\text\s*+\{\s*+)?\(?(\d{1,2}|[a-z]++)\)?\s*+\}?\s*+\}?")


@lru_cache(maxsize=4096)
def asks_for_percent(question: str) -> bool:
    """Tell whether a question asks for per cent; one that only mentions some ("20% of 50", "5 percent interest") does not."""
    return bool(_PERCENT.search(question))


@lru_cache(maxsize=4096)
def names_base(question: str) -> bool:
    """Tell whether a question names a base."""
    return bool(_BASE.search(question))


def base_of(gold: str) -> str | None:
    """Return the base that a clean gold is written in, `7` of `12_7`, or None."""
    match = _BASED.fullmatch(gold)
    return match[1] if match else None
