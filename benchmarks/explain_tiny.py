"""Does `explain` find the step that an answer rests on? Held against a model of which that is known.

    python benchmarks/explain_tiny.py --model runs/tiny/2_grpo --problems 200

The model of `recipes/tiny` answers with the last digit of its last step, and every step works with the result before it, so
that the last step carries the answer and nothing else does. Of problems of five steps that it gets right, greedy, each is
explained as it is, and once more with a filler, `so;`, between two steps. Prints and writes to
benchmarks/results/explain_tiny.json for each measure: how often the last step comes out on top, and the mean of the last
step, of the others and of the filler. Exits with 1 where necessity, sufficiency or attribution names the last step in fewer
than 95 % of the problems, or gives a filler more than a twentieth of what the last step has.
"""

import argparse
import sys
import time
from statistics import fmean
from typing import Any

from tiny_seeds import ROOT, finish
from trl import ModelConfig

from reasoning_ext import think
from reasoning_ext.data.sources import load_rows
from reasoning_ext.engines.base import SamplingSettings
from reasoning_ext.evaluate.explained import Explanation, explain
from reasoning_ext.evaluate.interventions import Prober, Thought, read_thought
from reasoning_ext.models.load import load_model
from reasoning_ext.models.loaded import LoadOptions

MEASURES = ("necessity", "sufficiency", "attribution", "attention")
NAMED, FILLER, MOST_FILLED, STEPS = 0.95, "so;", 0.05, 5
TIE = 0.01  # another step that ends in the answer's digit gives the answer as well


def with_filler(thought: Thought, place: int) -> Thought:
    """Return a thought with a filler behind one of its steps."""
    steps = [*thought.steps[:place], FILLER, *thought.steps[place:]]
    return Thought(thought.head, tuple(steps), thought.closing, thought.answer)


def measured(found: list[tuple[Explanation, Explanation, int]]) -> list[dict[str, Any]]:
    """Return a row a measure, of explanations without and with a filler behind step `place`."""
    rows = []
    for name in MEASURES:
        plain = [[getattr(step, name) for step in one.steps] for one, _, _ in found]
        fillers = [getattr(filled.steps[place], name) for _, filled, place in found]
        rows.append({
            "measure": name,
            "last step on top": round(fmean(max(values) - values[-1] <= TIE for values in plain), 4),
            "last step": round(fmean(values[-1] for values in plain), 4),
            "other steps": round(fmean(value for values in plain for value in values[:-1]), 4),
            "filler": round(fmean(map(abs, fillers)), 4),
        })  # fmt: skip
    return rows


def misses(row: dict[str, Any]) -> list[str]:
    """Say what a measure that `explain` relies on does not find; attention is no such one."""
    if row["measure"] == "attention":
        return []
    found = []
    if row["last step on top"] < NAMED:
        found.append(f"{row['measure']} names the last step in {row['last step on top']:.1%}")
    if row["filler"] > MOST_FILLED * row["last step"]:
        found.append(f"{row['measure']} gives a filler {row['filler']} of {row['last step']}")
    return found


def main() -> int:
    """Explain the problems, print the table, write the result file; 1 where a measure fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="runs/tiny/2_grpo")
    parser.add_argument("--problems", type=int, default=200)
    given = parser.parse_args()
    loaded = load_model(given.model, ModelConfig(dtype="auto"), LoadOptions(trainable=False))
    prober = Prober(loaded, SamplingSettings(64, 0.0))
    rows = load_rows(
        "./last_digit.py",
        ROOT / "recipes/tiny",
        "test",
        gen_kwargs={"num_rows": 3 * given.problems, "num_steps": STEPS},
    )
    found, started = list[tuple[Explanation, Explanation, int]](), time.perf_counter()
    for number, row in enumerate(rows):
        [text] = prober.go_on(row["prompt"], [""])
        thought = read_thought(text)
        if (
            thought
            and len(thought.steps) == STEPS
            and think.answer(text) == row["answer"]
            and len(found) < given.problems
        ):
            place = 1 + number % (STEPS - 1)
            both = [explain(prober, row["prompt"], one) for one in (thought, with_filler(thought, place))]
            found.append((both[0], both[1], place))
    seconds = (time.perf_counter() - started) / len(found) / 2
    table = measured(found)
    print(f"{len(found)} problems, {seconds:.2f} s an explanation")
    for line in table:
        print("| " + " | ".join(map(str, line.values())) + " |")
    command = f"python benchmarks/explain_tiny.py --model {given.model} --problems {given.problems}"
    return finish("explain_tiny", command, table, misses, problems=len(found), seconds=round(seconds, 3))


if __name__ == "__main__":
    sys.exit(main())
