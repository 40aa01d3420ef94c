"""`reasoning-ext check`: what can be known about recipes without weights and without a GPU, printed on one screen.

Every finding is an error, a warning or a note, and says what to change. Nothing is written and nothing is trained. First comes
what the recipe alone tells; rows and tokenizer are read only where that has no error, so that a typo is answered at once.

`--json` prints one document, also where there are errors:

    {"ok": whether there is no error,
     "errors": [what could not be read as a recipe, a line each],
     "recipes": [{"recipe": path, "stage": stage, "ok": ..., "unread": why no row was read, or "",
                  "findings": [{"level": "error" | "warning" | "note", "key": the recipe's key or "", "line": number or null,
                                "text": what was found and what to change}],
                  "facts": {"columns", "rows", "steps", "duplicates", "mean_length", "trained_share", "fitting_share",
                            "context", "lengths", "think_contract", "in_training_data": each where it is known,
                            "batch": see `batches.batch_facts`, "golds": text, "rewards": {completion: {reward: value}},
                            "code": {what: file or model} of the Python that it names,
                            "memory": see `memory.check.MemoryReport.as_dict`, sizes in bytes}}]}
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from reasoning_ext import run_dir
from reasoning_ext.batches import batch_facts
from reasoning_ext.check_output import length_facts, print_body
from reasoning_ext.compatibility import version_findings
from reasoning_ext.engines.opening import server_problem
from reasoning_ext.errors import print_error
from reasoning_ext.findings import Finding
from reasoning_ext.generation_checks import asks_server
from reasoning_ext.inspection import Inspection, inspect, on_hub, tokenizer_source
from reasoning_ext.lineage import forgotten, overlap_findings
from reasoning_ext.memory.check import MemoryOptions, MemoryReport, cost_line, find_card, report_memory
from reasoning_ext.named_inputs import code_line, eval_models, named_code, reads_earlier
from reasoning_ext.own_keys import FROM_DATA
from reasoning_ext.plugins import no_code, without_code
from reasoning_ext.preflight import check_recipe
from reasoning_ext.recipe import Recipe, RecipeError, expand, load_recipe
from reasoning_ext.reward_findings import read_golds, try_recipe_rewards
from reasoning_ext.shown import print
from reasoning_ext.surprises import default_findings
from reasoning_ext.trainer_checks import trainer_findings

LEVELS = ("error", "warning", "note")


def check_and_print(
    recipes: list[Recipe], errors: list[RecipeError], offline: bool, show: int, as_json: bool,
    options: MemoryOptions | None = None,
) -> int:  # fmt: skip
    """Check recipes one after another and print what each will do.

    Args:
        recipes: the recipes; those beside them in their folder count as run before, if their number is lower.
        errors: what was wrong with them when they were read.
        offline: the hub is not asked.
        show: print so many rows as they come out.
        as_json: print one JSON document and nothing else.
        options: how the memory is planned; None: against the card that is found.

    Returns:
        2 where an error was found, else 0.
    """
    if not as_json and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no such letters gets question marks
    made: list[Recipe] = []
    results = []
    for recipe in recipes:
        own = [error for error in errors if error.file == recipe.path]
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            result = Result(recipe, [*made, *_beside(recipe)], offline, own, options=options, lists=not as_json)
        results.append(result)
        made.append(recipe)
        if not as_json:
            result.print(show)
    lost = [error for error in errors if not any(error.file == recipe.path for recipe in recipes)]
    ok = not lost and not any(result.failed for result in results)
    if as_json:
        documents = [result.as_dict() for result in results]
        document = {"ok": ok, "errors": [str(error) for error in lost], "recipes": documents}
        print(json.dumps(_plain(document), indent=1, default=str))
    for error in () if as_json else lost:
        print_error(error)
    return 0 if ok else 2


class Result:
    """One recipe's check: what was found, and how it is shown.

    Attributes:
        errors: one line each, of what the recipe says; `findings` may have further ones.
        unread: why no row was read, or "".
        golds, table, batch: what the golds, the made-up completions and the batches came to.
        memory: what the recipe needs on the card; None on a CPU.
        code: the Python that the recipe names; with `lists` it is printed before any of it runs.
    """

    def __init__(
        self, recipe: Recipe, earlier: list[Recipe], offline: bool, errors: list[RecipeError], whole: bool = True,
        options: MemoryOptions | None = None, lists: bool = False,
    ):  # fmt: skip
        self.recipe, self.offline, self.whole = recipe, offline, whole
        self.earlier = [other for other in earlier if other.values.get("output_dir")]
        self.errors: list[str] = [str(error) for error in errors]
        self.inspection: Inspection | None = None
        self.unread, self.golds = "", ""
        self.table: dict[str, dict[str, float | None]] = {}
        self.batch: dict[str, Any] = {}
        self.memory: MemoryReport | None = None
        self.cost = ""
        quantized = bool(recipe.get("load_in_4bit") or recipe.get("load_in_8bit"))
        versions = version_findings(recipe.get("backend"), bool(recipe.values.get("use_vllm")), quantized)
        self.findings: list[Finding] = [*versions, *default_findings(recipe)]
        problems: list[RecipeError] = []
        made = [other.output_dir for other in self.earlier]
        self.code, self.headed = named_code(recipe), False
        with without_code() if self.code else contextlib.nullcontext():
            self.specs = check_recipe(recipe, made, run=False, problems=problems)
        if self.code and not self.errors and not problems:
            if lists:
                self._print_head()
            self.specs = check_recipe(recipe, made, run=False, problems=problems)
        if not self.errors:  # a value that was refused would count as changed
            self._check_folder(problems)
        self.errors += [str(problem) for problem in problems]
        refused = [] if self.errors else trainer_findings(recipe, run=not self.whole)
        self.findings += refused
        if self.errors or any(finding.level == "error" for finding in refused):
            self.unread = "not read, because of the errors"
        else:
            self.findings += forgotten(recipe, self.earlier)
            self._read(made)
            self.batch = batch_facts(recipe, self.inspection.facts if self.inspection else {})
            self._check_enough()
            self._plan(options or MemoryOptions())

    @property
    def failed(self) -> bool:
        """Tell whether there is an error."""
        return bool(self.errors) or any(finding.level == "error" for finding in self.findings)

    def _check_folder(self, problems: list[RecipeError]) -> None:
        recipe = self.recipe
        if not recipe.values.get("output_dir") or problems:
            return
        try:
            run_dir.refuse_other_recipe(recipe.output_dir, recipe.values)
        except run_dir.RunDirError as error:
            problems.append(recipe.error("output_dir", str(error)))
            return
        if other := run_dir.other_choice(recipe.output_dir, recipe.values):
            self.findings.append(Finding("note", "output_dir", f"{recipe.output_dir} goes on {other}"))

    def _read(self, made: list[Path]) -> None:
        """Read rows and tokenizer, try the rewards."""
        recipe = self.recipe
        name = recipe.get("dataset_name") or "datasets"
        if reads_earlier(recipe, made):
            self.unread = f"{name}, made by an earlier recipe"
        elif self.offline and on_hub(recipe):
            self.unread = f"{name} on the hub, not read offline"
        elif no_code() and (makes := [what for what in self.code if what.startswith(("dataset", "format"))]):
            self.unread = f"not read, since that would run code: {', '.join(makes)}"
        makers = {str(other.output_dir.resolve()): other for other in self.earlier}
        source = tokenizer_source(recipe, makers)
        found = inspect(recipe, self.specs, source, not self.offline, self.whole, rows=not self.unread)
        self.inspection = found
        self.findings += found.findings
        self.errors += [str(error) for error in found.errors]
        if self.whole and not self.offline and found.errors and on_hub(recipe):
            self.findings.append(Finding("note", "", "check --offline leaves out what only the hub has"))
        if self.whole and not self.unread and not found.errors:
            counts, findings = overlap_findings(recipe, found.prepared.rows, self.earlier, not self.offline)
            found.facts |= {"in_training_data": counts} if counts else {}
            self.findings += findings
        if not self.offline and asks_server(recipe):
            names = [*eval_models(recipe).values()] or [recipe.get("model_name_or_path")]
            told = {text for name in names if (text := server_problem(recipe, name))}
            self.findings += [Finding("warning", "engine_kwargs", text) for text in sorted(told)]
        if self.specs and found.rows and "answer" in found.rows[0]:
            rows = found.prepared.rows
            self.golds, errors, findings = read_golds(recipe, self.specs, rows, self.whole)
            self.errors += [str(error) for error in errors]
            self.findings += findings
            self._try_rewards(rows if hasattr(rows, "num_rows") else found.rows)

    def _check_enough(self) -> None:
        """Refuse fewer prompts than one generation takes, as the stage will."""
        rows = self.inspection.facts.get("rows") if self.inspection and self.whole else None
        prompts = self.batch.get("prompts_a_generation", 0)
        batch = (
            self.recipe.get("per_device_train_batch_size") * run_dir.world_size()
            if self.recipe.stage in FROM_DATA
            else 0
        )
        if rows is not None and rows < batch and self.recipe.get("dataloader_drop_last"):
            text = f"found true with {rows} rows and batches of {batch}, of which none is full; leave it out"
            self.findings.append(Finding("error", "dataloader_drop_last", text))
        if rows is not None and rows < prompts:
            text = f"found {rows} rows, but one generation takes {prompts} prompts; use more rows or smaller batches"
            key = "datasets" if self.recipe.values.get("datasets") else "dataset_name"
            self.findings.append(Finding("error", key, text))

    def _plan(self, options: MemoryOptions) -> None:
        """Plan the memory, and hold it against the card; before a run that is a warning, since a plan is no measurement."""
        facts = self.inspection.facts if self.inspection else {}
        self.cost = cost_line(self.recipe, self.batch | {"mean_length": facts.get("mean_length")}, options.rate)
        card = options.card or (None if self.recipe.get("use_cpu") else find_card())
        if card is None and self.recipe.get("use_cpu"):
            return
        lengths = self.inspection.lengths if self.inspection and self.recipe.stage not in FROM_DATA else []
        prompt = max(lengths, default=None)
        self.memory = report_memory(self.recipe, self.earlier, card, self.offline, prompt)
        if options.card and self.memory.plan is None:
            self.findings.append(
                Finding("warning", "model_name_or_path", f"no plan for {options.card.name}: {self.memory.why}")
            )
        if self.memory.fits is False:
            assert card is not None
            text = f"the plan does not fit {card.name}: {self.memory.short()}"
            self.findings.append(Finding("error" if self.whole else "warning", self.memory.blamed(), text))

    def _try_rewards(self, rows: Any) -> None:
        """Try the rewards on made-up completions; before a run what is wrong is a warning: whoever runs it may know why."""
        if no_code() and any(what.startswith("reward") for what in self.code):
            self.findings.append(Finding("note", "reward_funcs", "not tried, since no code of the recipe's is run"))
            return
        self.table, findings = try_recipe_rewards(self.recipe, self.specs, rows)
        for finding in findings:
            if finding.level == "error" and self.whole:
                self.errors.append(str(self.recipe.error(finding.key, finding.text)))
                continue
            self.findings.append(replace(finding, level="warning") if finding.level == "error" else finding)

    def as_dict(self) -> dict[str, Any]:
        """Return everything for `check --json`; the module's text says what there is."""
        found = self.inspection
        facts: dict[str, Any] = dict(found.facts) if found else {}
        if found and found.lengths:
            facts["lengths"] = length_facts(found.lengths)
        if found and found.contract:
            facts["think_contract"] = vars(found.contract)
        findings = [self._from_line(text) for text in self.errors]
        findings += [{**f.as_dict(), "line": self.recipe.lines.get((f.key,)) or None} for f in self._ordered()]
        if self.memory:
            facts["memory"] = self.memory.as_dict()
        return {
            "recipe": str(self.recipe.path),
            "stage": self.recipe.stage,
            "ok": not self.failed,
            "unread": self.unread,
            "findings": findings,
            "facts": facts | {"batch": self.batch, "golds": self.golds, "rewards": self.table, "code": self.code},
        }

    def _from_line(self, text: str) -> dict[str, Any]:
        """Take an error's line apart: the file's name, the line, the key, what is wrong."""
        parts = re.match(rf"{re.escape(str(self.recipe.path))}(?::(\d++))?+[^:]*+: (?:(\S+): )?(.*)", text, re.DOTALL)
        line, key, said = parts.groups() if parts else (None, "", text)
        return {"level": "error", "key": key or "", "text": said, "line": int(line) if line else None}

    def _ordered(self) -> list[Finding]:
        """Return the findings, errors first; beside errors no notes, which would hide them."""
        kept = [finding for finding in self.findings if finding.level != "note" or not self.errors]
        return sorted(kept, key=lambda finding: LEVELS.index(finding.level))

    def _print_head(self) -> None:
        if self.headed:
            return
        self.headed = True
        print(f"{self.recipe.path}: stage {self.recipe.stage}, backend {self.recipe.get('backend')}")
        if self.code and not self.errors:
            print(f"  {code_line(self.code)}", flush=True)

    def print(self, show: int) -> None:
        """Print the check on one screen; errors go to standard error, a line each."""
        findings = self._ordered()
        told = [finding for finding in findings if finding.level != "error"]
        if self.inspection is not None or told:
            self._print_head()
        if self.inspection is not None:
            print_body(self, show)
        for finding in told:
            print(f"  {finding.level}: {finding.key + ': ' if finding.key else ''}{finding.text}")
        if not self.failed:
            print("  ok")
        sys.stdout.flush()
        for text in [*self.errors, *(str(self._placed(f)) for f in findings if f.level == "error")]:
            print_error(text)

    def _placed(self, finding: Finding) -> str:
        if not finding.key:
            return f"{self.recipe.path}: {finding.text}"
        return str(self.recipe.error(finding.key, finding.text))


def _plain(value: Any) -> Any:
    """Return a value without what JSON does not have: numbers that are none become null."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _beside(recipe: Recipe) -> list[Recipe]:
    """Return the recipes whose outputs this one may name: those before it in its folder, and a pipeline in the folder above."""
    above: list[Path] = []
    with contextlib.suppress(RecipeError):  # no recipe there
        above = [file for file in expand(recipe.folder.resolve().parent) if file.name[0].isdigit()]
    found = []
    for file in [*above, *expand(recipe.folder)]:
        if file == recipe.path:
            break
        try:
            found.append(load_recipe(file))
        except (RecipeError, KeyError):
            continue  # reported when that recipe itself is checked
    return found
