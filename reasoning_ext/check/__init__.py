"""Is this recipe all right? All that can be known without weights and a GPU, asked once by `run` and `check`.

First comes what the recipes alone tell; rows and tokenizer are read only where that has no error, so that a typo is answered
at once. Nothing is written and nothing is trained.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from reasoning_ext.check.advice import default_findings, version_findings
from reasoning_ext.check.cost import batch_facts
from reasoning_ext.check.golds import read_golds, try_recipe_rewards
from reasoning_ext.check.keys import Checked, broken_rules, check_folder, check_recipe, outputs, parse
from reasoning_ext.check.lineage import adapter_without_peft, forgotten, overlap_findings
from reasoning_ext.check.memory.check import MemoryOptions, cost_line, find_device, report_memory
from reasoning_ext.check.named_inputs import unusable_data_set
from reasoning_ext.check.rows import inspect, tokenizer_source
from reasoning_ext.check.rules_health import wrong_audit
from reasoning_ext.check.rules_held_out import wrong_eval_problems
from reasoning_ext.check.rules_tools import wrong_tool
from reasoning_ext.check.trainer import trainer_findings
from reasoning_ext.data.columns import too_few
from reasoning_ext.data.row_options import on_hub, reads_earlier
from reasoning_ext.engines.opening import server_problem
from reasoning_ext.errors import Level, Problem, UserError
from reasoning_ext.recipe.benchmarks import lm_eval_task
from reasoning_ext.recipe.entries import asks_server, eval_models
from reasoning_ext.recipe.keys import FROM_DATA
from reasoning_ext.recipe.load import Recipe, expand, load_recipe
from reasoning_ext.recipe.records import refills
from reasoning_ext.recipe.user_code import no_code
from reasoning_ext.runs import folder


def check(
    recipes: list[Recipe],
    run: bool = False,
    offline: bool = False,
    others: Callable[[Recipe], list[Recipe]] | None = None,
    announce: Callable[[Checked], None] | None = None,
    options: MemoryOptions | None = None,
    wrong: Iterable[Problem] = (),
) -> Iterator[Checked]:
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
    pairs = []
    for i, recipe in enumerate(recipes):
        made = [*recipes[:i], *(others(recipe) if others else [])]
        pairs.append((check_recipe(recipe, outputs(made), run, [p for p in wrong if p.file == str(recipe.path)]), made))
        check_folder(pairs[-1][0], made if run else [])
    if run:
        for checked, made in pairs if not any(checked.errors for checked, _ in pairs) else ():
            _read_code(checked, made, run, None if folder.has_begun(checked.recipe.output_dir) else announce)
        if lost := [checked for checked, _ in pairs if checked.errors]:
            yield lost[0]
            return
        _prepare_backends(recipes)
    for checked, made in pairs:
        if not run:
            _read_code(checked, made, run, announce)
        Look(checked, [o for o in made if o.values.get("output_dir")], run, offline, options or MemoryOptions()).look()
        yield checked


def beside(recipe: Recipe) -> list[Recipe]:
    """Return the recipes whose outputs this one may name: those before it, and a pipeline in the folder above."""
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
    """Say what code a recipe names, import what could not be read without, and see whether it is what it should be."""
    if checked.errors:
        return
    if announce and checked.code:
        announce(checked)
    if any(spec.plugin.unread for spec in checked.specs):
        parse(checked)
    checked.add(broken_rules(checked.recipe, [wrong_tool, wrong_eval_problems]))
    checked.add(broken_rules(checked.recipe, [wrong_audit], checked.specs))
    if checked.code:
        checked.add(broken_rules(checked.recipe, [unusable_data_set], {path.resolve() for path in outputs(made)}, run))


def _prepare_backends(recipes: list[Recipe]) -> None:
    """Import Unsloth before TRL, as it wants to be, whichever recipe comes first."""
    from reasoning_ext.models.load import prepare_backend
    from reasoning_ext.models.unsloth import wants_standby

    for recipe in recipes:
        prepare_backend(recipe.get("backend"), any(wants_standby(recipe.values) for recipe in recipes))


class Look:
    """One recipe looked at whole: its trainer, its rows, its tokenizer, its rewards, its memory."""

    def __init__(self, checked: Checked, earlier: list[Recipe], run: bool, offline: bool, options: MemoryOptions):
        self.checked, self.recipe, self.earlier = checked, checked.recipe, earlier
        self.run, self.offline, self.options = run, offline, options

    def look(self) -> None:
        """Look at everything that the errors so far leave; before a run, at nothing more once there is one."""
        checked, recipe = self.checked, self.recipe
        if self.run and (not folder.is_main() or folder.is_done(recipe.output_dir, recipe.values)):
            return
        if self.run and folder.has_begun(recipe.output_dir):  # it goes on, and what it was told then is not told again
            inspect(checked, None, hub=True, whole=False, rows=not self._why_unread())
            return
        quantized = bool(recipe.get("load_in_4bit") or recipe.get("load_in_8bit"))
        stopped = bool(checked.errors)
        checked.add(version_findings(recipe.get("backend"), bool(recipe.values.get("use_vllm")), quantized))
        checked.add(default_findings(recipe))
        if stopped or (not self.run and self._lacks_trainer()):
            checked.unread = "not read, because of the errors"
            return
        checked.add([*forgotten(recipe, self.earlier), *adapter_without_peft(recipe, self.earlier)])
        self._read()
        if self.run and (checked.errors or self._lacks_trainer()):
            return
        checked.facts["batch"] = batch_facts(recipe, checked.facts, checked.specs)
        self._check_enough()
        self._plan()

    def _lacks_trainer(self) -> bool:
        found = trainer_findings(self.recipe, self.run)
        self.checked.add(found)
        return any(problem.level == "error" for problem in found)

    def _read(self) -> None:
        """Read rows and tokenizer, try the rewards."""
        checked, recipe, before = self.checked, self.recipe, len(self.checked.errors)
        checked.unread = self._why_unread()
        source = tokenizer_source(recipe, {str(other.output_dir.resolve()): other for other in self.earlier})
        found = inspect(checked, source, not self.offline, not self.run, rows=not checked.unread)
        from reasoning_ext.check.tools import try_tools

        try_tools(checked, found)
        read = len(checked.errors) == before and not checked.unread
        if not self.run and not self.offline and not read and on_hub(recipe):
            checked.note("", "check --offline leaves out what only the hub has", code="hub")
        if not self.run and read:
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
        if lm_eval_task(self.recipe):
            return f"{self.recipe.get('benchmark')}, whose rows lm-evaluation-harness reads"
        name = self.recipe.get("dataset_name") or "datasets"
        if reads_earlier(self.recipe, outputs(self.earlier)):
            return f"{name}, made by an earlier recipe"
        if self.offline and on_hub(self.recipe):
            return f"{name} on the hub, not read offline"
        makes = [what for what in self.checked.code if what.startswith(("dataset", "format"))]
        return f"not read, since that would run code: {', '.join(makes)}" if no_code() and makes else ""

    def _try_rewards(self, rows: Any) -> None:
        """Try the rewards on made-up completions; before a run what is wrong is a warning."""
        if no_code() and any(what.startswith("reward") for what in self.checked.code):
            self.checked.note("reward_funcs", "not tried, since no code of the recipe's is run", code="no_code")
            return
        self.checked.facts["rewards"], found = try_recipe_rewards(self.recipe, self.checked.specs, rows)
        self.checked.add(replace(one, level="warning") if one.level == "error" and self.run else one for one in found)

    def _check_enough(self) -> None:
        """Refuse fewer rows than one batch or one generation takes, as the stage will."""
        recipe, rows = self.recipe, self.checked.facts.get("rows") if not self.run else None
        drops = recipe.stage in FROM_DATA and recipe.get("dataloader_drop_last")
        batch = recipe.get("per_device_train_batch_size") * folder.world_size() if drops else 0
        prompts, epochs = (self.checked.facts["batch"].get(of, 0) for of in ("prompts_a_generation", "epochs"))
        data = "datasets" if recipe.values.get("datasets") else "dataset_name"
        for key, needed, what in (("dataloader_drop_last", batch, "batch"), (data, prompts, "generation")):
            if text := too_few(rows, needed, what):
                self.checked.note(key, text, level="error", code="too_few_rows")
        if 0 < epochs <= 1 and recipe.values.get("skip_known") is not None and not refills(recipe.get("refill")):
            text = f"found with {epochs} epochs, in which no prompt comes again; take fewer rows or more steps"
            self.checked.note("skip_known", text, level="warning", code="surprising_value")

    def _plan(self) -> None:
        """Plan the memory, and hold it against what is here; a warning before a run, and where a card may be meant."""
        checked, recipe, options = self.checked, self.recipe, self.options
        card = options.card or find_device(recipe)
        host = card is not None and card.device.kind == "cpu"
        lengths = checked.inspection.lengths if checked.inspection else []
        longest = max(lengths, default=None)
        checked.memory = report_memory(recipe, self.earlier, card, self.offline, longest, checked.specs)
        facts = checked.facts["batch"] | {"mean_length": checked.facts.get("mean_length")}
        checked.cost = cost_line(recipe, facts, options.rate, checked.memory.plan)
        if options.card and checked.memory.plan is None:
            text = f"no plan for {options.card.name}: {checked.memory.why}"
            checked.note("model_name_or_path", text, level="warning", code="no_plan")
        if checked.memory.fits is False and card is not None:
            elsewhere = host and not recipe.get("use_cpu")  # it may run
            text = f"the plan does not fit {card.name}: {checked.memory.short()}"
            text += "; for a card, check with --gpu 24GB" if elsewhere else ""
            level: Level = "warning" if self.run or elsewhere else "error"
            checked.note(checked.memory.blamed(), text, level=level, code="does_not_fit")
