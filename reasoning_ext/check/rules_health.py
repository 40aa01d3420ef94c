"""What can be wrong with `health` and `audit`; rules as in `rules`."""

from collections.abc import Callable, Iterator

from reasoning_ext.check.rules import unknown_name
from reasoning_ext.errors import KeyProblem, Problem
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.health import RULES, is_off, thresholds
from reasoning_ext.runs.past import number
from reasoning_ext.scoring.spec import RewardSpec, parse_audits


def unknown_health_rule(recipe: Recipe) -> Iterator[Problem]:
    """health has a rule that does not exist, or that is none of the stage's."""
    known = [rule.name for rule in thresholds({"stage": recipe.stage})]
    elsewhere = {rule.name: rule.stages for rule in RULES if rule.name not in known}
    for name, value in (recipe.values.get("health") or {}).items():
        if name in elsewhere:
            found = f"found {name}, a rule of stage {' and '.join(elsewhere[name])}"
            yield recipe.problem(("health", name), found, hint="leave it out")
        elif name not in known:
            yield unknown_name(recipe, ("health", name), "rule", value, known)


def wrong_health_threshold(recipe: Recipe) -> Iterator[Problem]:
    """A threshold of health is no number, and does not silence its rule either."""
    for name, value in (recipe.values.get("health") or {}).items():
        if not is_off(value) and ((least := number(value)) is None or least < 0):
            yield recipe.problem(("health", name), f"found {value!r}", "a number, 0 or more, or off")


def wrong_audit(recipe: Recipe, specs: list[RewardSpec]) -> Iterator[Problem]:
    """An audit is no reward, is trained on, or has options that say how much it counts."""
    wrong, trained = list[KeyProblem](), {spec.name for spec in specs}
    audits = parse_audits(recipe.values.get("audit"), recipe.folder, wrong)
    yield from map(recipe.placed, wrong)
    for i, audit in enumerate(audits):
        if audit.name in trained:
            found = f"found {audit.name}, which is in reward_funcs"
            yield recipe.problem(("audit", i), found, hint="an audit is a reward that is not trained on")


RULES_OF_KEYS: tuple[Callable[[Recipe], Iterator[Problem]], ...] = (unknown_health_rule, wrong_health_threshold)
