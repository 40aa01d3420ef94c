"""What the keys may hold that take a mapping: a field for each of its keys."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ThinkingCurve:
    """What `thinking_curve` may hold.

    Attributes:
        shares: of each thought, between 0 and 1.
        budgets: tokens of a thought; left out, the powers of two up to the longest one.
    """

    shares: list[float] = field(default_factory=lambda: [0.125, 0.25, 0.5, 0.75])
    budgets: list[int] | None = None


@dataclass(frozen=True)
class SkipKnown:
    """What `skip_known` may hold.

    Attributes:
        above: the pass rate from which a prompt is solved; null: none is.
        below: the pass rate up to which a prompt is hopeless; null: none is.
        retry_after: steps for which such a prompt rests.
    """

    above: float | None = 0.95
    below: float | None = 0.02
    retry_after: int = 200


@dataclass(frozen=True)
class Refill:
    """What `refill` may hold.

    Attributes:
        rounds: how often further prompts are drawn for a batch at most.
    """

    rounds: int = 3


def refills(given: bool | dict | None) -> bool:
    """Tell whether a value of `refill` asks for it; an empty mapping does, with what `Refill` has left out."""
    return given is not None and given is not False


def refill_rounds(given: bool | dict | None) -> int:
    """Return how often a value of `refill` draws further prompts at most; 0 where it asks for none."""
    return Refill(**given if isinstance(given, dict) else {}).rounds if refills(given) else 0
