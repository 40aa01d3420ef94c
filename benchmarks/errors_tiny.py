"""Does `errors` find the causes of wrong answers, and the first wrong step? Held against a real model and planted errors.

    python benchmarks/errors_tiny.py --run runs/tiny/6_eval --each 25

Of the problems that the model of `recipes/tiny` answers rightly, greedy, so many get each of eight causes in a copy of the
run: their stored answers are cut off, have no digit or one that nobody can read; have a wrong step from which the rest is
worked out truly, beside eight stored samples of which six, three or none are right; stand under a question that is
another one's; or have a gold that is wrong. (A knowledge gap needs a model that reads facts in a prompt, which this one
does not; the tests plant it in a scripted model.) All else is drawn from the model. Then the model's own wrong answers,
and those of the models beside it, are searched for their first wrong step, 32 draws a cut; the true one is known here.
Prints and writes to benchmarks/results/errors_tiny.json the table of planted and found causes, and how many steps are the
true ones. Exits with 1 where fewer than 90 % of the causes or of the planted steps are found.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tiny_seeds import ROOT, finish

from reasoning_ext.data.sources import read_jsonl
from reasoning_ext.evaluate.errors import Options, errors_and_print
from reasoning_ext.evaluate.interventions import read_thought

sys.path.insert(0, str(ROOT / "recipes/tiny"))
from last_digit import solve

CAUSES = ("cut off", "no answer", "not read", "slip", "reachable", "wrong step", "misread", "never right")
RIGHT_OF_8 = {"slip": 6, "reachable": 3, "wrong step": 0}
FOUND = 0.9


def question(line: dict[str, Any]) -> str:
    return line["prompt"][-1]["content"]


def wrong_from(problem: str, place: int) -> str:
    """Return a thought and answer whose step `place`, from 1, has a result 3 too high, and all others are true."""
    head, steps = problem[0], []
    for number, (operator, operand) in enumerate(zip(problem[1::2], problem[2::2], strict=True), 1):
        [step], _ = solve(head + operator + operand)
        before, result = step.split("=")
        value = int(result) + 3 * (number == place)
        steps.append(f"{before}={value}")
        head = str(value)[-1]
    return f"<think>{';'.join(steps)}</think>{(int(head) + 3 * (place > len(steps))) % 10}"


def planted(line: dict[str, Any], cause: str, number: int) -> tuple[list[dict[str, Any]], int | None]:
    """Return the stored lines of a problem with a cause, and its first wrong step."""
    wrong = line | {"rewards": line["rewards"] | {"math_answer": 0.0}}
    thought = line["completion"].partition("</think>")[0] + "</think>"
    if cause == "cut off":
        return [wrong | {"completion": line["completion"][:20], "finished": False}], None
    if cause in ("no answer", "not read"):
        return [wrong | {"completion": thought + {"no answer": "", "not read": r"\boxed{\frac{1}{}"}[cause]}], None
    if cause == "misread":  # what the model answers to a question whose first number is another one
        other = str((int(question(line)[0]) + 1) % 10) + question(line)[1:]
        return [wrong | {"prompt": [{"role": "user", "content": other}], "completion": own(other)}], None
    if cause == "never right":
        return [wrong | {"answer": str((int(line["answer"]) + 5) % 10)}], None
    steps = len(question(line)) // 2
    place = 2 + number % steps  # the last one is behind the steps: an answer that is not theirs
    text = wrong_from(question(line), place)
    samples = [
        (line if g < RIGHT_OF_8[cause] else wrong | {"completion": text}) | {"sample_index": g} for g in range(8)
    ]
    return [wrong | {"completion": text}, *samples], place


def own(problem: str) -> str:
    steps, answer = solve(problem)
    return f"<think>{';'.join(steps)}</think>{answer}"


def first_wrong(problem: str, completion: str) -> int | None:
    """Return the first step of a thought that is not the task's, the number behind the last one where all are; or None."""
    thought = read_thought(completion)
    if thought is None:
        return None
    true, _ = solve(problem)
    said = [step.strip("; ") for step in thought.steps]
    return next((i for i, (a, b) in enumerate(zip(said, true, strict=False), 1) if a != b), len(said) + 1)


def search(run: Path, label: str, **more: Any) -> list[dict[str, Any]]:
    """Run `errors` on a folder and return what it found of each answer."""
    errors_and_print(run, Options(model=label, **more))
    return json.loads((run / "errors.json").read_text())[label]["answers"]


def plant(source: Path, run: Path, label: str, each: int) -> dict[int, tuple[str, int | None]]:
    """Write a copy of an evaluation whose answers have planted causes; return each problem's cause and first wrong step."""
    greedy = [line for line in read_jsonl(source / "answers.jsonl") if line["model"] == label]
    solved = [line for line in greedy if line["sample_index"] == -1 and line["rewards"]["math_answer"] == 1.0]
    solved = [line for line in solved if first_wrong(question(line), line["completion"]) == 6]
    truth, lines = {}, []
    for number, line in enumerate(solved[: each * len(CAUSES)]):
        cause = CAUSES[number % len(CAUSES)]
        made, step = planted(line, cause, number // len(CAUSES))
        lines += made
        truth[line["prompt_index"]] = cause, step
    (run / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = {line["prompt_index"]: question(line) for line in lines}
    told = [
        {"question": asked[line["prompt_index"]], "reworded": question(line)}
        for line in solved
        if line["prompt_index"] in asked
    ]
    (run / "reworded.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    done = json.loads((run / "DONE").read_text())
    (run / "DONE").write_text(json.dumps(done | {"files": {}}))
    return truth


def main() -> int:
    """Plant, search, print the tables, write the result file; 1 where too little is found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/tiny/6_eval")
    parser.add_argument("--model", default="grpo")
    parser.add_argument("--each", type=int, default=25)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "planted"
        shutil.copytree(given.run, run)
        for left in ("errors.json", "errors.jsonl"):
            (run / left).unlink(missing_ok=True)
        truth = plant(Path(given.run), run, given.model, given.each)
        found = search(run, given.model, reworded=str(run / "reworded.jsonl"))
        pairs = Counter((truth[one["problem"]][0], one["cause"]) for one in found)
        for cause in CAUSES:
            rows.append({"planted": cause} | {name: pairs[cause, name] for name in (*CAUSES, "knowledge gap")})
        steps = [(one.get("step"), truth[one["problem"]][1]) for one in found if truth[one["problem"]][1]]
        natural: list[tuple[int | None, int]] = []
        own_run = Path(folder) / "own"
        shutil.copytree(given.run, own_run)
        lines = read_jsonl(own_run / "answers.jsonl")
        for label in dict.fromkeys(line["model"] for line in lines):
            said = {one["prompt_index"]: one for one in lines if one["model"] == label and one["sample_index"] == -1}
            for one in search(own_run, label, k=32):
                if true := first_wrong(question(said[one["problem"]]), said[one["problem"]]["completion"]):
                    natural.append((one.get("step"), true))
    right = sum(pairs[cause, cause] for cause in CAUSES)
    figures = {
        "causes": f"{right} of {len(found)}",
        "planted steps": f"{sum(a == b for a, b in steps)} of {len(steps)}",
        "own wrong steps, k 32": f"{sum(a == b for a, b in natural)} of {len(natural)}",
        "own wrong steps, off by one at most": sum(a is not None and abs(a - b) < 2 for a, b in natural),
        "own wrong steps, none found": sum(a is None for a, _ in natural),
    }
    for name, value in figures.items():
        print(f"{name}: {value}")
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")
    enough = {"causes": right / len(found), "steps": sum(a == b for a, b in steps) / len(steps)}
    command = f"python benchmarks/errors_tiny.py --run {given.run} --model {given.model} --each {given.each}"

    def misses(row: dict[str, Any]) -> list[str]:
        return (
            [f"{name}: {share:.1%} found" for name, share in enough.items() if share < FOUND] if row is rows[0] else []
        )

    return finish("errors_tiny", command, rows, misses, **figures)


if __name__ == "__main__":
    sys.exit(main())
