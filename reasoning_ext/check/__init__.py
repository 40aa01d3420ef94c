"""Is this recipe all right? Everything that can be known without weights and without a GPU, asked once by `run` and `check`.

First comes what the recipes alone tell; rows and tokenizer are read only where that has no error, so that a typo is answered
at once. Nothing is written and nothing is trained.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from reasoning_ext.check.advice import default_findings
from reasoning_ext.check.compatibility import version_findings
from reasoning_ext.check.cost import batch_facts
from reasoning_ext.check.golds import read_golds, try_recipe_rewards
from reasoning_ext.check.keys import Checked, check_folder, check_keys, outputs, read_signatures
from reasoning_ext.check.lineage import forgotten, overlap_findings
from reasoning_ext.check.memory.check import MemoryOptions, cost_line, find_card, report_memory
from reasoning_ext.check.named_inputs import named_code
from reasoning_ext.check.rows import inspect, tokenizer_source
from reasoning_ext.check.trainer import trainer_findings
from reasoning_ext.data.row_options import on_hub, reads_earlier
from reasoning_ext.engines.opening import server_problem
from reasoning_ext.errors import Level, Problem, UserError
from reasoning_ext.recipe.entries import asks_server, eval_models
from reasoning_ext.recipe.keys import FROM_DATA
from reasoning_ext.recipe.load import Recipe, expand, load_recipe
from reasoning_ext.recipe.user_code import no_code, without_code
from reasoning_ext.runs import folder


def check(
    recipes: list[Recipe], run: bool = False, offline: bool = False, others: Callable[[Recipe], list[Recipe]] | None = None,
    announce: Callable[[Checked], None] | None = None, options: MemoryOptions | None = None, wrong: Iterable[Problem] = (),
) -> Iterator[Checked]:  # fmt: skip
    """Check recipes in the order in which they would run, all of their keys before any row.

    Args:
        recipes: the recipes.
        run: they are about to run here: what is named must be there and finished, a slice of the rows is enough, and what is no
            certain error is a warning. A recipe with an error ends it, and of one that has begun no more than rows are read.
        offline: the hub is not asked.
        others: further recipes that count as run before one, see `beside`.
        announce: is told of the code that a recipe names, before any of it runs.
        options: how the memory is planned; None: against the card that is found.
        wrong: what was wrong with recipes when they were read.
    """
    found = [Checked(recipe, code=named_code(recipe)) for recipe in recipes]
    before = [[*recipes[:i], *(others(recipe) if others else [])] for i, recipe in enumerate(recipes)]
    for checked, made in zip(found, before, strict=True):
        checked.add(problem for problem in wrong if problem.file == str(checked.recipe.path))
        with without_code() if checked.code else contextlib.nullcontext():
            check_keys(checked, outputs(made), run)
        check_folder(checked, made if run else [])
    for number in range(2) if run else ():
        if lost := [checked for checked in found if checked.errors]:
            yield lost[0]
            return
        for checked, made in zip(found, before, strict=True) if number == 0 else ():
            _read_code(checked, made, run, announce)
    if run:
        _prepare_backends(recipes)
    for checked, made in zip(found, before, strict=True):
        if not run:
            _read_code(checked, made, run, announce)
        if not run or not folder.has_begun(checked.recipe.output_dir):
            made = [other for other in made if other.values.get("output_dir")]
            Look(checked, made, run, offline, options or MemoryOptions()).look()
        elif folder.is_main() and not folder.is_done(checked.recipe.output_dir, checked.recipe.values):
            _look_at_rows(checked, made)
        yield checked


def beside(recipe: Recipe) -> list[Recipe]:
    """Return the recipes whose outputs this one may name: those before it in its folder, and a pipeline in the folder above."""
    above: list[Path] = []
    with contextlib.suppress(UserError):  # no recipe there
        above = [file for file in expand(recipe.folder.resolve().parent) if file.name[0].isdigit()]
    found = []
    for file in [*above, *expand(recipe.folder)]:
        if file == recipe.path:
            break
        with contextlib.suppress(UserError, KeyError):  # reported when that recipe itself is checked
            found.append(load_recipe(file))
    return found


def _read_code(checked: Checked, made: list[Recipe], run: bool, announce: Callable[[Checked], None] | None) -> None:
    """Say what code a recipe names, and see whether that is what it should be."""
    if checked.code and not checked.errors:
        if announce and not (run and folder.has_begun(checked.recipe.output_dir)):
            announce(checked)
        read_signatures(checked, outputs(made), run)


def _prepare_backends(recipes: list[Recipe]) -> None:
    """Import Unsloth before TRL, as it wants to be, whichever recipe comes first."""
    from reasoning_ext.models.load import prepare_backend
    from reasoning_ext.models.unsloth import wants_standby

    for recipe in recipes:
        prepare_backend(recipe.get("backend"), any(wants_standby(recipe.values) for recipe in recipes))


def _look_at_rows(checked: Checked, made: list[Recipe]) -> None:
    """Read the first rows of a run that goes on."""
    if not reads_earlier(checked.recipe, outputs(made)):
        checked.add(inspect(checked.recipe, checked.specs, None, hub=True, whole=False).errors)


class Look:
    """One recipe looked at whole: its trainer, its rows, its tokenizer, its rewards, its memory."""

    def __init__(self, checked: Checked, earlier: list[Recipe], run: bool, offline: bool, options: MemoryOptions):
        self.checked, self.recipe, self.earlier = checked, checked.recipe, earlier
        self.run, self.offline, self.options = run, offline, options

    def look(self) -> None:
        """Look at everything that the errors so far leave; before a run, at nothing more once there is one."""
        checked, recipe = self.checked, self.recipe
        if self.run and not folder.is_main():
            return
        stopped = bool(checked.errors)
        quantized = bool(recipe.get("load_in_4bit") or recipe.get("load_in_8bit"))
        checked.add(version_findings(recipe.get("backend"), bool(recipe.values.get("use_vllm")), quantized))
        checked.add(default_findings(recipe))
        if not stopped and not self.run:
            stopped = self._check_trainer()
        if stopped:
            checked.unread = "not read, because of the errors"
            return
        checked.add(forgotten(recipe, self.earlier))
        self._read()
        if self.run and (checked.errors or self._check_trainer()):
            return
        checked.facts["batch"] = batch_facts(recipe, checked.facts)
        self._check_enough()
        self._plan()

    def _check_trainer(self) -> bool:
        found = trainer_findings(self.recipe, self.run)
        self.checked.add(found)
        return any(problem.level == "error" for problem in found)

    def _read(self) -> None:
        """Read rows and tokenizer, try the rewards."""
        checked, recipe = self.checked, self.recipe
        checked.unread = self._why_unread()
        makers = {str(other.output_dir.resolve()): other for other in self.earlier}
        source = tokenizer_source(recipe, makers)
        found = inspect(recipe, checked.specs, source, not self.offline, not self.run, rows=not checked.unread)
        checked.inspection = found
        checked.facts |= found.facts
        checked.add(found.findings)
        checked.add(found.errors)
        if not self.run and not self.offline and found.errors and on_hub(recipe):
            checked.note("", "check --offline leaves out what only the hub has", code="hub")
        if not self.run and not checked.unread and not found.errors:
            counts, findings = overlap_findings(recipe, found.prepared.rows, self.earlier, not self.offline)
            checked.facts |= {"in_training_data": counts} if counts else {}
            checked.add(findings)
        if not self.offline and asks_server(recipe):
            names = [*eval_models(recipe).values()] or [recipe.get("model_name_or_path")]
            for text in sorted({text for name in names if (text := server_problem(recipe, name))}):
                checked.note("engine_kwargs", text, level="warning", code="server_silent")
        if checked.specs and found.rows and "answer" in found.rows[0]:
            rows = found.prepared.rows
            checked.facts["golds"], problems = read_golds(recipe, checked.specs, rows, not self.run)
            checked.add(problems)
            self._try_rewards(rows if hasattr(rows, "num_rows") else found.rows)

    def _why_unread(self) -> str:
        name = self.recipe.get("dataset_name") or "datasets"
        if reads_earlier(self.recipe, outputs(self.earlier)):
            return f"{name}, made by an earlier recipe"
        if self.offline and on_hub(self.recipe):
            return f"{name} on the hub, not read offline"
        makes = [what for what in self.checked.code if what.startswith(("dataset", "format"))]
        return f"not read, since that would run code: {', '.join(makes)}" if no_code() and makes else ""

    def _try_rewards(self, rows: Any) -> None:
        """Try the rewards on made-up completions; before a run what is wrong is a warning: whoever runs it may know why."""
        if no_code() and any(what.startswith("reward") for what in self.checked.code):
            self.checked.note("reward_funcs", "not tried, since no code of the recipe's is run", code="no_code")
            return
        table, found = try_recipe_rewards(self.recipe, self.checked.specs, rows)
        self.checked.facts["rewards"] = table
        self.checked.add(replace(one, level="warning") if one.level == "error" and self.run else one for one in found)

    def _check_enough(self) -> None:
        """Refuse fewer rows than one batch or one generation takes, as the stage will."""
        checked, recipe = self.checked, self.recipe
        rows = checked.facts.get("rows") if not self.run else None
        if rows is None:
            return
        batch = recipe.get("per_device_train_batch_size") * folder.world_size() if recipe.stage in FROM_DATA else 0
        if rows < batch and recipe.get("dataloader_drop_last"):
            found = f"found true with {rows} rows and batches of {batch}, of which none is full"
            checked.note("dataloader_drop_last", found, "leave it out", level="error", code="too_few_rows")
        prompts = checked.facts["batch"].get("prompts_a_generation", 0)
        if rows < prompts:
            found = f"found {rows} rows, but one generation takes {prompts} prompts"
            key = "datasets" if recipe.values.get("datasets") else "dataset_name"
            checked.note(key, found, "use more rows or smaller batches", level="error", code="too_few_rows")

    def _plan(self) -> None:
        """Plan the memory, and hold it against the card; before a run that is a warning, since a plan is no measurement."""
        checked, recipe, options = self.checked, self.recipe, self.options
        facts = checked.facts["batch"] | {"mean_length": checked.facts.get("mean_length")}
        checked.cost = cost_line(recipe, facts, options.rate)
        card = options.card or (None if recipe.get("use_cpu") else find_card())
        if card is None and recipe.get("use_cpu"):
            return
        lengths = checked.inspection.lengths if checked.inspection and recipe.stage not in FROM_DATA else []
        checked.memory = report_memory(recipe, self.earlier, card, self.offline, max(lengths, default=None))
        if options.card and checked.memory.plan is None:
            found = f"no plan for {options.card.name}: {checked.memory.why}"
            checked.note("model_name_or_path", found, level="warning", code="no_plan")
        if checked.memory.fits is False and card is not None:
            found = f"the plan does not fit {card.name}: {checked.memory.short()}"
            level: Level = "warning" if self.run else "error"
            checked.note(checked.memory.blamed(), found, level=level, code="does_not_fit")
