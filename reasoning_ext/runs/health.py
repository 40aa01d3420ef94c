"""Is a training healthy: rules over the rows of `metrics.jsonl`, the same while it trains and in a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reasoning_ext.runs.health_rules import RULES, Rule
from reasoning_ext.runs.past import Rows, number

__all__ = ["RULES", "Alarm", "Rule", "alarms", "is_off", "thresholds"]


@dataclass(frozen=True)
class Alarm:
    """A rule that holds: since which step, with which value, beyond which threshold."""

    rule: Rule
    step: float
    value: float
    threshold: float

    @property
    def text(self) -> str:
        """What is printed behind `health`."""
        beyond = f", {self.rule.side} {self.threshold:g}" if self.rule.side else ""
        return (
            f"{self.rule.name} at step {self.step:g}: {self.rule.meaning} ({self.value:.4g}{beyond}); {self.rule.edit}"
        )


def alarms(rows: Rows, recipe: Mapping[str, Any]) -> list[Alarm]:
    """Return what holds of a training, in the order of its steps.

    Args:
        rows: of `metrics.jsonl`; those without a step are left out.
        recipe: its values; `stage` chooses the rules and `health` their thresholds.
    """
    seen = [row for row in rows if number(row.get("step")) is not None]
    rules = thresholds(recipe).items()
    found = [Alarm(rule, *first, least) for rule, least in rules if (first := rule.first(seen, least))]
    return sorted(found, key=lambda alarm: alarm.step)


def thresholds(recipe: Mapping[str, Any]) -> dict[Rule, float]:
    """Return the rules of a recipe's stage that it has not silenced, with the thresholds that they have in it."""
    chosen = recipe.get("health") or {}
    rules = [rule for rule in RULES if recipe.get("stage") in rule.stages and not is_off(chosen.get(rule.name))]
    return {rule: rule.threshold if (own := number(chosen.get(rule.name))) is None else own for rule in rules}


def is_off(value: Any) -> bool:
    """Tell whether a threshold silences its rule; 0 does not."""
    return value is False or value == "off"
