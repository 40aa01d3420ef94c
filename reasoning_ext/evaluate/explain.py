"""`reasoning-ext explain`: one question's thought by steps, and what each does for the answer, as a page or as JSON."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reasoning_ext.engines.base import SamplingSettings
from reasoning_ext.errors import UserError
from reasoning_ext.evaluate.ask import as_trained, hush, refuse_bytes
from reasoning_ext.evaluate.explained import Explanation, explain, passes
from reasoning_ext.evaluate.interventions import Messages, Prober, Thought, read_thought
from reasoning_ext.models.devices import choose, found_device
from reasoning_ext.models.loaded import Loaded, LoadOptions
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.files import write_whole
from reasoning_ext.runs.report import page
from reasoning_ext.shown import print, visible
from reasoning_ext.tools.spec import has_tools

PAGE = "explained.html"
QUANTIZED = ("load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "use_bnb_nested_quant")
LONG = 60  # seconds, of which it is said before they are spent


def explain_and_print(
    model: str,
    question: str,
    completion: str | None,
    output: Path | None,
    as_json: bool,
    max_completion_length: int,
    system_prompt: str | None = None,
) -> None:
    """Explain a completion, the greedy one where none is given, and write a page or print JSON.

    Raises:
        ModelError: the model cannot be loaded.
        UserError: there is no thought to explain, or it does not fit the model.
    """
    for text in (question, completion or "", system_prompt or ""):
        refuse_bytes(text)
    hush()
    trained_with, options, recipe = as_trained(model, 0)
    if recipe and has_tools(recipe):
        print(f"{model} may call tools, and is explained without them", file=sys.stderr)
    system = (trained_with or "") if system_prompt is None else system_prompt
    prompt = [*[{"role": "system", "content": system}] * bool(system), {"role": "user", "content": question}]
    settings = SamplingSettings(max_completion_length, 0.0, chat_template_kwargs=options.chat_template_kwargs)
    prober = Prober(load_as_trained(model, options, recipe), settings)
    thought = thought_of(prober, prompt, completion)
    _say_cost(prober, prompt, thought)
    started = time.perf_counter()
    found = explain(prober, prompt, thought)
    if as_json:
        print(json.dumps(as_record(found), ensure_ascii=False, indent=2))
        return
    target = output or Path(PAGE)
    target = target / PAGE if target.is_dir() else target
    write_whole(target, page("explained.html", ("report.css",), one=found, model=model))
    print_steps(found)
    tokens = len(prober.ids(prompt, thought.begun(thought.steps))) - len(prober.ids(prompt, ""))
    print(f"explain  {target}  ({len(thought.steps)} steps, {tokens} tokens, {time.perf_counter() - started:.1f} s)")


def load_as_trained(model: str, options: LoadOptions, recipe: Recipe | None) -> Loaded:
    """Load a model to be explained, in as few bits as its run had it; raises ModelError."""
    from trl import ModelConfig

    from reasoning_ext.models.load import load_model

    given = recipe.values if recipe else {}
    bits = {name: given[name] for name in QUANTIZED if given.get(name)}
    dtype = choose(found_device(bool(given.get("use_cpu"))), given, False).dtype if bits else "auto"
    return load_model(model, ModelConfig(dtype=dtype, **bits), options)


def thought_of(prober: Prober, prompt: Messages, completion: str | None) -> Thought:
    """Return the thought of a completion, or of the greedy one; a UserError where there is none to explain."""
    text = completion if completion is not None else prober.go_on(prompt, [""])[0]
    thought = read_thought(text)
    if thought is None:
        said = visible(" ".join(text.split())[:80])
        found = f"explain: found a completion without a closed thought and an answer behind it: {said!r}"
        raise UserError(f"{found}; ask something else, or allow more tokens with --max-completion-length")
    length, most = len(prober.ids(prompt, thought.begun(thought.steps))), prober.loaded.context
    if length + len(prober.answer_ids(thought)) > most:
        raise UserError(f"explain: found {length} tokens before the answer, allowed: fewer than the model's {most}")
    return thought


def _say_cost(prober: Prober, prompt: Messages, thought: Thought) -> None:
    """Say how long it takes, where that is more than a minute, by the time of one pass."""
    started = time.perf_counter()
    prober.log_probabilities([prober.ids(prompt, thought.begun(thought.steps))], prober.answer_ids(thought))
    seconds = passes(thought) * (time.perf_counter() - started)
    if thought.grouped:
        print(f"explain  {thought.grouped} steps are put together to {len(thought.steps)}", file=sys.stderr)
    if seconds > LONG:
        print(f"explain  about {seconds / 60:.0f} minutes; Ctrl-C stops it", file=sys.stderr)


def as_record(one: Explanation) -> dict[str, Any]:
    """Return an explanation as JSON has it."""
    found = asdict(one)
    found.pop("thought")
    found["grouped"] = one.thought.grouped
    return {name: rounded(value) for name, value in found.items()}


def rounded(value: Any) -> Any:
    """Round the numbers of a record to four decimals."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return round(value, 4) if isinstance(value, float) else value


def print_steps(one: Explanation) -> None:
    """Print a line a step."""
    from reasoning_ext.shown import print_rows

    rows = []
    for step in one.steps:
        shares = (step.necessity, step.sufficiency, step.answer_if_stopped, step.attention)
        *tried, seen = ("" if value is None else f"{value:.3f}" for value in shares)
        value = "" if step.attribution is None else f"{step.attribution:.2f}"
        changes, flags = "yes" if step.changes_answer else "no", ", ".join(step.flags)
        rows.append([" ".join(step.text.split())[:60], *tried, changes, seen, value, flags])
    head = ["step", "necessity", "sufficiency", "if stopped", "changes answer", "attention", "attribution", ""]
    said = " ".join(one.answer.split())[:40]
    title = f"answer {said!r}: probability {one.probability:.3f}, behind no thought {one.without_thought:.3f} of it"
    print_rows(title, head, rows)
    for line in [*one.flags, *(f"no {name}: {why}" for name, why in one.left_out.items())]:
        print(f"explain  {line}")
