"""What a recipe's keys tell by themselves, and whether what they name is there: every rule asked, without torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext.check import (
    named_inputs,
    rules,
    rules_benchmarks,
    rules_generation,
    rules_guard,
    rules_health,
    rules_held_out,
    rules_models,
    rules_rollouts,
    rules_tools,
    rules_trackers,
)
from reasoning_ext.errors import Level, Problem, UserError
from reasoning_ext.recipe.benchmarks import benchmark_line, reward_entries
from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.user_code import without_code
from reasoning_ext.runs import folder
from reasoning_ext.scoring.spec import EntryError, RewardSpec, parse_rewards

if TYPE_CHECKING:
    from reasoning_ext.check.memory.check import MemoryReport
    from reasoning_ext.check.rows import Inspection


@dataclass
class Checked:
    """What is known of a recipe before its stage starts.

    Attributes:
        recipe: the recipe.
        specs: its rewards, which the stage takes from here; none where they are wrong.
        problems: what was found, each at its place in the recipe.
        facts: what else there is to say, for `check --json`, see `show.document`.
        code: the Python that the recipe names, `{what: file or model}`.
        unread: why no row was read, or "".
        inspection: its rows and its tokenizer, as far as they were looked at.
        memory: what it needs on the card; None on a CPU.
        cost: a line on how long it takes, or "".
        parity: a line on how far its engine and transformers are apart, or "".
    """

    recipe: Recipe
    specs: list[RewardSpec] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)
    unread: str = ""
    inspection: Inspection | None = None
    memory: MemoryReport | None = None
    cost: str = ""
    parity: str = ""

    @property
    def errors(self) -> list[Problem]:
        """What stops a run."""
        return [problem for problem in self.problems if problem.level == "error"]

    def refuse(self) -> None:
        """Raise the first error, if there is one."""
        for problem in self.errors:
            raise UserError(problem)

    def add(self, problems: Iterable[Problem | UserError]) -> None:
        """Add what was found, each at its key's place in the recipe, once."""
        placed = map(self.recipe.placed, problems)
        self.problems += [problem for problem in dict.fromkeys(placed) if problem not in self.problems]

    def note(self, key: str, found: str, *, code: str, level: Level = "note") -> None:
        """Add one."""
        self.add([Problem(code=code, level=level, key=key, found=found)])


def unsloth_not_installed(recipe: Recipe) -> Iterator[Problem]:
    """backend is unsloth, which is not installed here."""
    if recipe.get("backend") == "unsloth" and find_spec("unsloth") is None:
        hint = "pip install 'reasoning-ext[unsloth]' or write trl"
        yield recipe.problem("backend", "found unsloth, which is not installed", hint=hint)


# asked again when the model of an earlier recipe is there
OF_MODELS = (rules_models.unmatched_pattern, rules_models.unfit_adapter, rules_models.reference_below_adapter)
OF_KEYS = (
    *rules.RULES,
    *rules_benchmarks.RULES,
    rules_guard.wrong_guard,
    *rules_health.RULES_OF_KEYS,
    *rules_held_out.RULES,
    *OF_MODELS,
    rules_models.unknown_to_unsloth,
    *rules_rollouts.RULES,
    *rules_tools.RULES,
    rules_trackers.unknown_tracker,
)
OF_REWARDS = (
    rules.wrong_reward_weights,
    *rules_generation.RULES,
    rules_health.wrong_audit,
    rules_tools.nothing_to_judge,
)
OF_RUNS = (
    rules_generation.missing_engine, rules_benchmarks.missing_lm_eval, unsloth_not_installed,
    rules_trackers.tracker_not_installed,
)  # fmt: skip


def broken_rules(recipe: Recipe, rules: Iterable[Callable[..., Iterator[Problem]]], *arguments: Any) -> list[Problem]:
    """Return what breaks rules, each with its rule's name for a code, and what is raised while they read."""
    found: list[Problem] = []
    for rule in rules:
        try:
            for problem in rule(recipe, *arguments):
                found.append(replace(problem, code=rule.__name__))
        except UserError as error:
            found.append(recipe.placed(error))
    return found


def check_recipe(recipe: Recipe, made: Iterable[Path] = (), run: bool = True, wrong: Iterable[Problem] = ()) -> Checked:
    """Hold one recipe against every rule, see that what it names is there, and read its rewards; no code is run.

    Args:
        recipe: a recipe whose keys have been checked one by one.
        made: the output_dirs of the recipes that run before this one.
        run: as in `check`.
        wrong: what was found before.
    """
    checked, made = Checked(recipe, code=named_inputs.named_code(recipe)), {Path(path).resolve() for path in made}
    checked.add(wrong)
    with without_code() if checked.code else contextlib.nullcontext():
        checked.add(broken_rules(recipe, OF_KEYS[:2]))  # what is missing, then what is named, then what must agree
        checked.add(broken_rules(recipe, named_inputs.RULES, made, run))
        checked.add(broken_rules(recipe, (*OF_KEYS[2:], *(OF_RUNS if run else ()))))
        parse(checked)
    if line := benchmark_line(recipe):
        checked.note("benchmark", line, code="benchmark")
    return checked


def parse(checked: Checked) -> None:
    """Read the rewards, once."""
    recipe, wrong = checked.recipe, list[EntryError]()
    checked.specs = parse_rewards(reward_entries(recipe), recipe.folder, wrong)
    checked.add(wrong)
    checked.add(broken_rules(recipe, OF_REWARDS[1:] if wrong else OF_REWARDS, checked.specs))


def outputs(recipes: list[Recipe]) -> list[Path]:
    """Return the folders that recipes make."""
    return [other.output_dir for other in recipes if other.values.get("output_dir")]


def check_folder(checked: Checked, earlier: list[Recipe]) -> None:
    """Refuse a folder that another recipe has made, or makes in this run."""
    recipe = checked.recipe
    if not recipe.values.get("output_dir") or checked.errors:
        return
    if recipe.output_dir in outputs(earlier):
        checked.note("output_dir", "an earlier recipe writes to it, too", level="error", code="same_output_dir")
    if len({other.get("backend") for other in (*earlier, recipe) if other.stage in TRAINED}) > 1 and earlier:
        text = "found trl and unsloth among these recipes; Unsloth patches TRL, so run them one by one"
        checked.note("backend", text, level="error", code="two_backends")
    try:
        folder.refuse_other_recipe(recipe.output_dir, recipe.values)
    except folder.RunDirError as error:
        checked.note("output_dir", str(error), level="error", code=error.problem.code)
        return
    if other := folder.other_choice(recipe.output_dir, recipe.values):
        checked.note("output_dir", f"{recipe.output_dir} goes on {other}", code="goes_on")
