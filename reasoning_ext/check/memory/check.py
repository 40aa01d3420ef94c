"""The memory plan as `check` shows it: the device, what it comes to, which edits make it fit, and the rough cost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from reasoning_ext.check.memory.edits import Edit, edits
from reasoning_ext.check.memory.plan import GIB, Plan, plan
from reasoning_ext.check.memory.setup import CARD, Setup, setup_of
from reasoning_ext.check.memory.shapes import ShapeError
from reasoning_ext.engines.opening import engine_name
from reasoning_ext.errors import UserError
from reasoning_ext.models.devices import Device
from reasoning_ext.recipe.entries import eval_models
from reasoning_ext.recipe.held_out import eval_problems, own_length
from reasoning_ext.recipe.keys import FROM_DATA
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.scoring.spec import RewardSpec
from reasoning_ext.tools.spec import has_tools

TOKENS_PER_SECOND = 1000
MEASURED, EFFICIENCY = 0.3, 0.6  # seconds of products, and the share of their pace that a model of 135M comes to
CGROUP = Path("/sys/fs/cgroup")
CGROUPS = (  # of versions 2 and 1: the limit, what is taken, and what of that is files, which are given up
    ("memory.max", "memory.current", "file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "cache"),
)
FOR_CARDS = ("load_in_4bit", "load_in_8bit", "use_vllm")
NOT_ENOUGH = "that is not enough; take a smaller model or a larger card"
ELSEWHERE = {
    "server": "a server has the model",
    "vllm": "vLLM takes the share of the card that vllm_gpu_memory_utilization says, and makes do with it",
    "ray": "the workers have the model",
}  # the engines that are not planned


@dataclass(frozen=True)
class Card:
    """What a run computes on, a card or the CPU with the machine's own memory: its name and the memory in bytes."""

    name: str
    memory: int
    device: Device = CARD


@dataclass(frozen=True)
class MemoryOptions:
    """How the memory is planned."""

    card: Card | None = None  # what a plan is held against; None: the card that is found
    rate: int | None = None  # tokens a second, to reckon hours with; None: `TOKENS_PER_SECOND`


@dataclass
class MemoryReport:
    """A recipe's plan, held against a card where one is known, and edits that make it fit; or why there is none."""

    plan: Plan | None = None
    why: str = ""
    card: Card | None = None
    edits: list[Edit] = field(default_factory=list)

    @property
    def fits(self) -> bool | None:
        """Whether it fits the card, None where no card is known."""
        return self.plan.fits(self.card.memory) if self.plan and self.card else None

    def as_dict(self) -> dict[str, Any]:
        """Return it for `check --json`, sizes in bytes."""
        if self.plan is None:
            return {"why": self.why}
        card = {"name": self.card.name, "bytes": self.card.memory} if self.card else None
        changes = [{"write": edit.text, "saves": edit.saved, "peak": edit.plan.peak} for edit in self.edits]
        plan = {name: getattr(self.plan, name) for name in ("peak", "peak_phase", "needed")}
        return {"phases": self.plan.shown(), **plan, "card": card, "fits": self.fits, "edits": changes}

    def lines(self) -> list[str]:
        """Return it for people."""
        if self.plan is None:
            return [f"memory: not planned: {self.why}"]
        verdict = f"; {'fits' if self.fits else 'does not fit'} {self.card.name}" if self.card else ""
        peak = f"memory: {_gib(self.plan.peak)} GiB at its peak, in {self.plan.peak_phase}"
        host = self.plan.setup.host
        kept, after = ("Python and its libraries take", "in all") if host else ("CUDA keeps for itself", "with CUDA's")
        found = [f"{peak}; {_gib(self.plan.needed)} with what {kept}{verdict}"]
        for phase, parts in sorted(self.plan.shown().items(), key=lambda item: -sum(item[1].values())):
            shown = ", ".join(f"{part} {_gib(n)}" for part, n in sorted(parts.items(), key=lambda item: -item[1]))
            found.append(f"  {phase} {_gib(sum(parts.values()))}: {shown}")
        if self.plan.setup.assumed:
            found.append(f"  with prompts of {self.plan.setup.prompt} tokens, which were not measured")
        found += ["  to make it fit, the cheapest first, each on top of the ones before it:"] if self.edits else []
        for edit in self.edits:
            then = f"{_gib(edit.plan.peak)} at the peak then, {_gib(edit.plan.needed)} {after}"
            found.append(f"    {edit.text}: saves {_gib(edit.saved)} GiB, {then}")
        return found + ([f"    {NOT_ENOUGH}"] if self.edits and not self._enough() else [])

    def short(self) -> str:
        """Say in one line what is needed and what to write."""
        if self.plan is not None and self.plan.engine_lacks:
            lacks = f"vLLM's share lacks {_gib(self.plan.engine_lacks)} GiB for its weights and one whole sequence"
            return f"{lacks}; raise vllm_gpu_memory_utilization, or take a larger card"
        write = [f"write {', then '.join(edit.text for edit in self.edits)}"] if self.edits else []
        made = [f"{_gib(self.plan.needed)} GiB are needed, in {self.plan.peak_phase}"] if self.plan else []
        return "; ".join([*made, *write, *([] if self._enough() else [NOT_ENOUGH])])

    @property
    def hopeless(self) -> bool:
        """Whether it does not fit, and no edit makes it."""
        return self.fits is False and (not self._enough() or bool(self.plan and self.plan.engine_lacks))

    def _enough(self) -> bool:
        return bool(self.edits and self.card and self.edits[-1].plan.fits(self.card.memory))

    def blamed(self) -> str:
        """Return the key that the first edit changes, or that of the model."""
        if self.plan is not None and self.plan.engine_lacks:
            return "vllm_gpu_memory_utilization"
        return next(iter(self.edits[0].values)) if self.edits else "model_name_or_path"


def report_memory(
    recipe: Recipe,
    earlier: list[Recipe],
    card: Card | None,
    offline: bool,
    longest: int | None,
    specs: Sequence[RewardSpec] = (),
) -> MemoryReport:
    """Plan what a recipe needs on a card or a CPU; `earlier`: the recipes before it, the rest as in `setup_of`."""
    device = card.device if card else CARD
    if device.kind != "cpu" and recipe.stage in FROM_DATA:  # rows are as long as `max_length` lets them be
        longest = None
    if (engine := engine_name(recipe)) != "transformers":
        return MemoryReport(why=ELSEWHERE[engine])
    if device.kind == "cpu" and recipe.get("backend") == "unsloth":
        return MemoryReport(why="Unsloth's CPU backend is not counted")
    makers = {str(other.output_dir.resolve()): other for other in earlier if other.values.get("output_dir")}
    names = list(eval_models(recipe).values()) if recipe.stage == "eval" else [None]

    def planned(changed: Recipe) -> Plan:
        setups = [setup_of(changed, makers, offline, longest, name, device, specs) for name in names]
        return max((plan(setup, card.memory if card else None) for setup in setups), key=lambda one: one.needed)

    try:
        return MemoryReport(planned(recipe), card=card, edits=edits(recipe, planned, card.memory) if card else [])
    except ShapeError as error:
        return MemoryReport(why=str(error))


def parse_card(text: str, option: str = "--gpu") -> Card:
    """Read `48GB`, `48` or `23.6GiB` as a card; the trade's GB is a GiB. What is no size is a `UserError`."""
    match = re.fullmatch(r"(\d++(?:\.\d++)?)\s*+(?:GB|GiB|G)?", text.strip(), re.IGNORECASE)
    if not match or not float(match.group(1)):
        raise UserError(f"{option}: found {text!r}, allowed: the card's memory, 24GB or 48GB for example")
    return Card(f"a card of {float(match.group(1)):g} GB", int(float(match.group(1)) * GIB))


def find_device(recipe: Recipe) -> Card | None:
    """Return what a run would compute on here; None where it is meant for a card, and there is none.

    A card of another maker than NVIDIA is not looked for, since that takes torch: a Mac has no plan, and beside an Intel card
    it is of the machine's own memory.
    """
    if recipe.get("use_cpu"):
        return find_host()
    if card := find_card():
        return card
    meant = recipe.get("backend") == "unsloth" or any(map(recipe.values.get, FOR_CARDS))
    return None if meant or sys.platform == "darwin" else find_host()


def find_host() -> Card:
    """Return the memory of this machine, or of the container, that is free."""
    import psutil

    free = psutil.virtual_memory().available
    for limit, used, files in CGROUPS:
        with suppress(OSError, ValueError, KeyError):  # "max" is no limit
            lines = (CGROUP / used).with_name("memory.stat").read_text().splitlines()
            taken = int((CGROUP / used).read_text()) - int(dict(map(str.split, lines))[files])
            free = min(free, max(0, int((CGROUP / limit).read_text()) - taken))
    return Card(f"this machine, which has {_gib(free)} GiB free", free, Device("cpu"))


@cache
def find_card() -> Card | None:
    """Return the NVIDIA card that a run would take, or None; asked of nvidia-smi, so that torch is not imported."""
    program, visible = shutil.which("nvidia-smi"), os.environ.get("CUDA_VISIBLE_DEVICES")
    if program is None or visible in ("", "-1"):
        return None
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    query += ["-i", visible.split(",")[0]] if visible else []
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        name, memory = done.stdout.splitlines()[0].rsplit(",", 1)
        return Card(name.strip(), int(memory) * 2**20)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None  # a driver that does not answer has no card for us


def cost_line(recipe: Recipe, facts: dict[str, Any], rate: int | None, made: Plan | None = None) -> str:
    """Say in one line what a recipe takes: tokens, steps, and hours at a stated rate; nothing where neither is known.

    Args:
        recipe: the recipe.
        facts: of its batches, see `cost.batch_facts`, and `mean_length` of its rows where it is known.
        rate: tokens a second; None: `TOKENS_PER_SECOND`, or what `host_rate` says of a plan for a CPU.
        made: the memory plan.
    """
    steps, mean = facts.get("optimizer_steps") or 0, facts.get("mean_length")
    if recipe.stage in FROM_DATA:
        longest = (2 if recipe.stage == "dpo" else 1) * (recipe.get("max_length") or 0)
        tokens = steps * facts.get("rows_a_step", 0) * (mean or longest)
        said = f"{'' if mean else 'up to '}{_count(tokens)} tokens"
    else:
        completions = facts.get("completions") or steps * facts.get("completions_a_step", 0)
        more, longest = facts.get("refilled_completions") or 0, recipe.get("max_completion_length") or 0
        tokens = facts.get("most_tokens") or (completions + more) * longest
        at_most = "up to " * ("completions_at_least" in facts)
        refilled = f" and up to {_count(more)} more by refill" if more else ""
        said = f"{at_most}{_count(completions)} completions{refilled}, up to {_count(tokens)} tokens"
    if not tokens:
        return ""
    if held_out := facts.get("held_out_completions"):
        asked = eval_problems(recipe)
        each = (asked and asked.max_completion_length) or own_length(recipe) or recipe.get("max_completion_length") or 0
        tokens += held_out * each
        said += f", and {_count(held_out)} completions of held-out problems, up to {_count(held_out * each)} tokens"
    told = "" if rate else " (tell yours with --tokens-per-second)"
    if rate is None and made and made.setup.host:
        rate, told = host_rate(made.setup), " of this CPU, as a short product tells (a run says the time left)"
    rate = rate or TOKENS_PER_SECOND
    hours = tokens / rate / 3600
    length = f"{hours:.1f} hours" if hours >= 0.1 else f"{hours * 60:.1f} minutes"
    counted = f"{steps} steps, " if steps else ""
    waits = (
        ", and what tools take, which nobody can tell" if has_tools(recipe) and recipe.stage not in FROM_DATA else ""
    )
    return f"cost: {counted}{said}; {length} at {rate} tokens a second{told}{waits}"


def host_rate(setup: Setup) -> int:
    """Return the tokens a second that this CPU trains or generates, from a moment's products of matrices.

    Training takes three passes of two operations a parameter and token, one forwards and two backwards; a generated
    token takes about as long, since its products are small. GRPO's are generated, and trained on with their prompts.
    """
    import numpy as np

    matrix, count, begin = np.ones((768, 768), np.float32), 0, time.perf_counter()
    while (seconds := time.perf_counter() - begin) < MEASURED:
        matrix @ matrix
        count += 1
    passes = 3 * (setup.trains * setup.tokens / setup.completion + (setup.stage not in FROM_DATA))
    made = EFFICIENCY * count * 2 * len(matrix) ** 3 / seconds
    return max(1, round(made / (2 * passes * setup.shape.parameters)))


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}" if size < 10 * GIB else f"{size / GIB:.1f}"


def _count(number: float) -> str:
    for limit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{letter}"
    return f"{number:g}"
