"""A round played before a model is loaded: a call, its result and an answer through the real template and parser.

Every tool of the recipe is started, and tools that hang, raise, flood and swell show that this machine holds them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext.check import tried_tools
from reasoning_ext.errors import UserError
from reasoning_ext.recipe.keys import FROM_DATA
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.plugins import Plugin
from reasoning_ext.recipe.user_code import no_code
from reasoning_ext.tools.spec import ToolSpec, has_tools, parse_environment, parse_tools, template_kwargs

if TYPE_CHECKING:
    from reasoning_ext.check.keys import Checked
    from reasoning_ext.check.rows import Inspection
    from reasoning_ext.tools.box import Toolbox

SECONDS, MOST = 0.5, 1000  # what a tool on trial may take, and say
SLACK = 200  # characters that say how much was cut off
# what a trial should come to; the fault, and what is wrong where it is another
TRIALS = {
    "hangs": ("timeout", "was not stopped"),
    "raises": ("error", "is no error"),
    "swells": ("error", "got its memory"),
    "floods": ("", "was not cut off"),
}


def try_tools(checked: Checked, found: Inspection) -> None:
    """Play a round, start the tools, and try the bounds; adds problems, and what `tools_line` says to the facts."""
    recipe = checked.recipe
    if not has_tools(recipe):
        return
    checked.facts["tools"] = bounds(recipe)
    if found.contract is not None and found.contract.calls is not None:
        _play(checked, found)
    if recipe.stage in FROM_DATA:
        return
    if no_code() and any(what.startswith(("tool ", "environment ")) for what in checked.code):
        checked.note("tools", "not tried, since no code of the recipe's is run", code="no_code")
        return
    from reasoning_ext.tools.box import Toolbox

    box = Toolbox(parse_tools(recipe), parse_environment(recipe))
    try:
        box.prepare()
        _reset(checked, found, box)
    except UserError as error:
        checked.add([error])
    finally:
        box.close()
    if wrong := unheld():
        key = "tools" if recipe.get("tools") else "environment"
        checked.note(key, wrong, level="error", code="unheld_tool")


def _reset(checked: Checked, found: Inspection, box: Toolbox) -> None:
    """Reset an environment's object with the first row."""
    if box.environment and found.rows:
        (one,), _ = box.environments([dict(found.rows[0])])
        if one.acted.broken:
            text = f"{box.environment.name}: with the first row, {one.acted.broken}"
            checked.note("environment", text, level="error", code="wrong_tool")


def _play(checked: Checked, found: Inspection) -> None:
    """Play the round, and tell whose tool turns the template has."""
    from reasoning_ext.think.calls import play
    from reasoning_ext.think.tool_turns import PREAMBLE

    recipe = checked.recipe
    checked.facts["own_tool_turns"] = PREAMBLE.partition("\n")[0] in str(found.tokenizer.chat_template)
    if wrong := play(found.tokenizer, found.contract, template_kwargs(recipe)):
        others = (key for key in ("chat_template_path", "models") if recipe.values.get(key))
        text = f"its chat template cannot carry a call, its result and an answer: {wrong}"
        checked.note(next(others, "model_name_or_path"), text, level="error", code="unplayable_round")


@cache
def unheld() -> str:
    """Call tools that hang, raise, swell and flood, all at once; say which of them this machine does not hold."""
    from reasoning_ext.think.calls import call_of
    from reasoning_ext.tools.box import Toolbox

    file, module = Path(tried_tools.__file__), tried_tools.__name__
    plugins = [Plugin(name, file, module, {"word": None}) for name in TRIALS]
    box = Toolbox([ToolSpec(plugin, seconds=SECONDS, max_characters=MOST) for plugin in plugins])
    try:
        results = box.run([(call_of(name, {"word": "x"}), None) for name in TRIALS])
    finally:
        box.close()
    wrong = [
        f"a tool that {name} {why} ({result.content[:80]!r})"
        for (name, (fault, why)), result in zip(TRIALS.items(), results, strict=True)
        if result.fault != fault or len(result.content) > MOST + SLACK
    ]
    return "; ".join(wrong)


def bounds(recipe: Recipe) -> list[dict[str, Any]]:
    """Return the name and the bounds of each tool, and of the environment."""
    environment = parse_environment(recipe)
    listed = [*parse_tools(recipe), *([environment] if environment else [])]
    return [{name: getattr(one, name) for name in ("name", "seconds", "memory_mb", "max_characters")} for one in listed]


def tools_line(recipe: Recipe, facts: dict[str, Any]) -> str:
    """Write in one line what may be called, in what bounds, and what that adds to a prompt."""
    named = [f"{one['name']} ({one['seconds']:g} s, {one['memory_mb'] or 'any'} MB)" for one in facts["tools"]]
    if recipe.stage in FROM_DATA:
        named = [one["name"] for one in facts["tools"]]
    turns = f"turns by {'our form' if facts['own_tool_turns'] else 'the template'}" if "own_tool_turns" in facts else ""
    tokens = f"{facts['tools_tokens']} tokens of every prompt" if "tools_tokens" in facts else ""
    return "; ".join(filter(None, (", ".join(named), turns, tokens)))
