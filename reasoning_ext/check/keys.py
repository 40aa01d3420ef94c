"""What a recipe's keys tell by themselves, and whether what they name is there: every rule asked, without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext.check import named_inputs, rules, rules_generation, rules_models
from reasoning_ext.errors import Level, Problem, UserError
from reasoning_ext.recipe.keys import EVAL_REWARDS, TRAINED
from reasoning_ext.recipe.load import Recipe
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

    def note(self, key: str, found: str, hint: str = "", *, code: str, level: Level = "note") -> None:
        """Add one."""
        self.add([Problem(code=code, level=level, key=key, found=found, hint=hint)])


def check_recipe(recipe: Recipe, made: Iterable[Path] = (), run: bool = True) -> Checked:
    """Check the keys of one recipe, and that what it names is there.

    Args:
        recipe: a recipe whose keys have been checked one by one.
        made: the output_dirs of the recipes that run before this one.
        run: as in `check`.
    """
    checked = Checked(recipe)
    check_keys(checked, made, run)
    return checked


def unsloth_not_installed(recipe: Recipe) -> Iterator[Problem]:
    """backend is unsloth, which is not installed here."""
    if recipe.get("backend") == "unsloth" and find_spec("unsloth") is None:
        hint = "pip install 'reasoning-ext[unsloth]' or write trl"
        yield recipe.problem("backend", "found unsloth, which is not installed", hint=hint)


# asked again when the model of an earlier recipe is there
OF_MODELS = (rules_models.unfit_adapter, rules_models.reference_below_adapter)
OF_KEYS = (*rules.RULES, *OF_MODELS, rules_models.unknown_to_unsloth)
OF_REWARDS = (rules.wrong_reward_weights, *rules_generation.RULES)
OF_RUNS = (rules_generation.missing_engine, unsloth_not_installed)


def broken_rules(recipe: Recipe, rules: Iterable[Callable[..., Iterator[Problem]]], *arguments: Any) -> list[Problem]:
    """Return what breaks rules, each with its rule's name for a code; what a rule reads the recipe with may raise one too."""
    found: list[Problem] = []
    for rule in rules:
        try:
            for problem in rule(recipe, *arguments):
                found.append(replace(problem, code=rule.__name__))
        except UserError as error:
            found.append(recipe.placed(error))
    return found


def check_keys(checked: Checked, made: Iterable[Path], run: bool) -> None:
    """Hold a recipe against every rule and read its rewards; `made` and `run` are those of `check_recipe`."""
    recipe, made = checked.recipe, {Path(path).resolve() for path in made}
    checked.add(broken_rules(recipe, OF_KEYS[:2]))  # what is missing, then what is named, then what must agree
    checked.add(broken_rules(recipe, named_inputs.RULES, made, run))
    checked.add(broken_rules(recipe, OF_KEYS[2:]))
    checked.add(broken_rules(recipe, OF_RUNS) if run else [])
    _parse(checked)


def _parse(checked: Checked) -> None:
    """Read the rewards, once."""
    recipe, wrong = checked.recipe, list[EntryError]()
    listed = recipe.get("reward_funcs") if "reward_funcs" in recipe.keys else []
    checked.specs = parse_rewards(listed or (EVAL_REWARDS if recipe.stage == "eval" else []), recipe.folder, wrong)
    checked.add(wrong)
    checked.add(broken_rules(recipe, OF_REWARDS[1:] if wrong else OF_REWARDS, checked.specs))


def read_signatures(checked: Checked, made: Iterable[Path], run: bool) -> None:
    """Import what could not be read without being run, and see whether it is a reward, a format or a generator."""
    if any(spec.plugin.unread for spec in checked.specs):
        _parse(checked)
    made = {Path(path).resolve() for path in made}
    checked.add(broken_rules(checked.recipe, [named_inputs.unusable_data_set], made, run))


def outputs(recipes: list[Recipe]) -> list[Path]:
    """Return the folders that recipes make."""
    return [other.output_dir for other in recipes if other.values.get("output_dir")]


def check_folder(checked: Checked, earlier: list[Recipe]) -> None:
    """Refuse a folder that another recipe has made, or makes in this run."""
    recipe = checked.recipe
    if not recipe.values.get("output_dir") or checked.errors:
        return
    if recipe.output_dir in outputs(earlier):
        found = f"found {recipe.output_dir}, which an earlier recipe writes to"
        checked.add([recipe.problem("output_dir", found, "one a recipe", code="same_output_dir")])
    backends = {other.get("backend") for other in (*earlier, recipe) if other.stage in TRAINED}
    if earlier and len(backends) > 1:
        found = "found trl and unsloth among these recipes"
        hint = "Unsloth patches TRL, so run them one by one"
        checked.add([earlier[0].problem("backend", found, hint=hint, code="two_backends")])
    try:
        folder.refuse_other_recipe(recipe.output_dir, recipe.values)
    except folder.RunDirError as error:
        checked.add([recipe.problem("output_dir", str(error), code=error.problem.code)])
        return
    if other := folder.other_choice(recipe.output_dir, recipe.values):
        checked.note("output_dir", f"{recipe.output_dir} goes on {other}", code="goes_on")
