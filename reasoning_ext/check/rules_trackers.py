"""What can be wrong with `report_to`, found before anything heavy is imported; each rule is named after what it forbids."""

from reasoning_ext.check.rules import Problems
from reasoning_ext.recipe.keys import TRACKERS, TRAINED
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.tracking import installed, named

SETTINGS = ("all", "none", None)


def unknown_tracker(recipe: Recipe) -> Problems:
    """report_to names no tracker; those that transformers has besides ours are for the stages that train."""
    for name in named(recipe.get("report_to")):
        if recipe.stage not in TRAINED and name not in (*TRACKERS, *SETTINGS):
            yield recipe.problem("report_to", f"found {name}", ", ".join((*TRACKERS, "all", "none")))


def tracker_not_installed(recipe: Recipe) -> Problems:
    """The package of a tracker is missing; asked before a run, since a recipe may be for elsewhere."""
    for name in named(recipe.get("report_to")):
        if name in TRACKERS and not installed(name):
            hint = f"pip install 'reasoning-ext[{name}]', or write none"
            yield recipe.problem("report_to", f"found {name}, which is not installed", hint=hint)
