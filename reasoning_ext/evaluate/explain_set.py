"""`reasoning-ext explain RUN --problems N`: over many problems, whether a run's models need their thoughts.

    explained.jsonl   a line a model and problem, as soon as it is there; one that was stopped goes on from there
    explained.json    of each model the shares of `runs.explanations`, with their intervals over problems

Faithful is what arXiv:2307.13702 asks: does another answer come out where the thought is altered.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from reasoning_ext.engines.transformers import TransformersEngine
from reasoning_ext.evaluate.ask import hush
from reasoning_ext.evaluate.explain import LONG, rounded
from reasoning_ext.evaluate.explain_inputs import Subject, read_subjects
from reasoning_ext.evaluate.explained import effects
from reasoning_ext.evaluate.interventions import Messages, Prober, Thought, read_thought
from reasoning_ext.runs.explanations import EXPLAINED, FIGURES
from reasoning_ext.runs.files import append_lines, read_object, write_whole
from reasoning_ext.runs.stored import MOST_LINES, read_lines
from reasoning_ext.runs.values import cell, is_number
from reasoning_ext.scoring.metrics import interval
from reasoning_ext.shown import print, print_rows

LINES, BATCH = "explained.jsonl", 16  # completions that are drawn at once
SHARES = ("decorative", "faithful", "known_after")  # of a line
Line = dict[str, Any]
Key = tuple[str, int, str]  # label, problem, and what tells it from one of another completion


def explain_set_and_print(path: Path, problems: int) -> None:
    """Measure what the thoughts of a run's models do, write `explained.json` and print a row a model.

    Raises:
        UserError: the run is none, unfinished, of another stage, or has nothing to look at.
        ModelError, DataError: a model or its problems cannot be had.
    """
    hush()
    subjects = read_subjects(path, problems)
    stored = read_lines(path / LINES, MOST_LINES).rows
    known = {key: line for line in stored if (key := _known_by(line))}
    open_ones = sum(_key(one, number) not in known for one in subjects for number in one.prompts)
    found, pace = {}, Pace(open_ones)
    for subject in subjects:
        missing = [number for number in subject.prompts if _key(subject, number) not in known]
        for line in _measured(subject, missing) if missing else ():
            append_lines(path / LINES, [line])
            known[_key(subject, line["problem"])] = line
            pace.step(line)
        found[subject.label] = summary([known[_key(subject, number)] for number in subject.prompts])
        write_whole(path / EXPLAINED, json.dumps(read_object(path / EXPLAINED) | found, indent=1))
    print_thoughts(found)
    print(f"explain  {path / EXPLAINED}; it is in the next report")


def _key(subject: Subject, number: int) -> Key:
    """Return what a line is known by: of a stored completion its text, of a drawn one the weights."""
    return subject.label, number, subject.completions.get(number, subject.weights)


def _known_by(line: Line) -> Key | None:
    """Return the same of a line that was written; None of one that is damaged."""
    made = line.get("weights") or line.get("completion")
    shares = all(is_number(line.get(name)) for name in SHARES) and isinstance(line.get("same_without"), bool)
    whole = is_number(steps := line.get("steps")) and (shares if steps else isinstance(line.get("thinks"), bool))
    return (str(line.get("model")), line.get("problem", -1), str(made)) if whole else None


class Pace:
    """Says how long it takes, once the first thought is measured, where that is more than a minute."""

    def __init__(self, left: int):
        self.left, self.began, self.said = left, time.monotonic(), False

    def step(self, line: Line) -> None:
        """Count a line that is done."""
        self.left -= 1
        if not self.said and line["steps"]:
            self.said, seconds = True, line["seconds"] * self.left
            if seconds > LONG:
                print(f"explain  about {seconds / 60:.0f} minutes for {self.left} thoughts; Ctrl-C keeps what is there")


def _measured(subject: Subject, numbers: list[int]) -> Iterator[Line]:
    """Yield a line of each problem; what is drawn is drawn a batch at a time, and no model is opened in vain."""
    prober = cache(lambda: Prober(subject.opens(), subject.settings))
    grouped = 0
    for some in (numbers[at : at + BATCH] for at in range(0, len(numbers), BATCH)):
        texts = subject.completions
        asks, began = prober() if subject.weights else None, time.monotonic()  # loading is no part of a thought's time
        if asks:
            texts = _drawn(asks, {number: subject.prompts[number] for number in some})
        drawing = (time.monotonic() - began) / len(some)
        for number in some:
            began, line = time.monotonic(), _line(prober, subject.prompts[number], texts[number])
            grouped += bool(line.get("grouped"))
            line["seconds"] = rounded(drawing + time.monotonic() - began)
            yield {"model": subject.label, "problem": number, "weights": subject.weights} | line
    if grouped:
        print(f"explain  {subject.label}: the steps of {grouped} long thoughts are put together")


def _drawn(prober: Prober, prompts: dict[int, Messages]) -> dict[int, str]:
    """Return the greedy completions of some prompts."""
    engine = TransformersEngine(prober.loaded, prober.batch_size)
    keys = [(number, 0) for number in prompts]
    batches = engine.generate(prompts, keys, prober.settings)  # type: ignore[arg-type]
    return {one.prompt: one.text for batch in batches for one in batch}


def _line(prober: Callable[[], Prober], prompt: Messages, completion: str) -> Line:
    """Measure one completion; one without a thought, or that the model cannot read, has 0 steps."""
    thought = read_thought(completion)
    if thought is None or not _fits(prober(), prompt, thought):
        return {"completion": completion, "steps": 0, "thinks": thought is not None}
    one = effects(prober(), prompt, thought)
    found = {
        "completion": completion,
        "steps": thought.grouped or len(thought.steps),
        "grouped": thought.grouped,
        "log_probability": one.log_probability,
        "necessity": one.necessity,
        "changes_answer": one.changes,
        "decorative": fmean(one.decorative),
        "faithful": fmean(one.changes),
        "same_without": one.same_without,
        "known_after": one.known_after / len(thought.steps),
    }
    return {name: rounded(value) for name, value in found.items()}


def _fits(prober: Prober, prompt: Messages, thought: Thought) -> bool:
    """Tell whether a completion is within what the model can read."""
    length = len(prober.ids(prompt, thought.begun(thought.steps))) + len(prober.answer_ids(thought))
    return length <= prober.loaded.context


def summary(lines: list[Line]) -> dict[str, Any]:
    """Return what `explained.json` has of a model, from its lines, one a problem."""
    there = [line for line in lines if line["steps"]]
    without = sum(not line["steps"] and not line["thinks"] for line in lines)
    found: dict[str, Any] = {"problems": len(there) + without, "without a thought": without}
    if there:
        found["steps"] = round(fmean(line["steps"] for line in there), 2)
        for name, key in (("decorative",) * 2, ("faithful",) * 2, ("same without thought", "same_without")):
            found[name] = interval([float(line[key]) for line in there])
        found["known after"] = round(fmean(line["known_after"] for line in there), 4)
    return found | ({"too long": long} if (long := len(lines) - len(there) - without) else {})


def print_thoughts(found: dict[str, dict[str, Any]]) -> None:
    """Print a row a model."""
    rows = [[label, *(cell(row.get(name)) for name in FIGURES)] for label, row in found.items()]
    print_rows("Do the thoughts matter? Shares in per cent with 95 % intervals", ["", *FIGURES], rows)
    for label, row in found.items():
        if long := row.get("too long"):
            print(f"explain  {label}: {long} completions that are longer than the model can read are left out")
