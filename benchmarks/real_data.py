"""What becomes of real sets: golds read, rows dropped and why, lengths in tokens, what the solutions earn, seconds.

    python benchmarks/real_data.py DATA_FOLDER --model FOLDER_OR_HUB_NAME

DATA_FOLDER holds files as their makers publish them, whose names begin as their sets do (`FORMATS`): gsm8k_train.jsonl,
math500.jsonl, svamp.jsonl, aime24.jsonl, amc.jsonl. They are no part of this project. Each is read as a recipe of stage grpo
reads it, its golds as `check` reads them, and its rows are put into the tokens of that model as stage sft does, with its chat
template. `judged right` counts the solutions that math_answer pays, given as completions. Seconds are those of the wall clock,
in one process. Prints a table in Markdown, and writes it with date, versions, load and command to
benchmarks/results/real_data.json.
"""

import argparse
import datetime
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

from reasoning_ext.rewards.math_answer import math_answer

from reasoning_ext.check.golds import read_golds
from reasoning_ext.check.show import length_facts
from reasoning_ext.data.prepared import Prepared
from reasoning_ext.data.row_options import row_options
from reasoning_ext.data.rows import prepare
from reasoning_ext.data.tokens import LossOptions, prompt_length, tokenize_row
from reasoning_ext.models.source import model_source
from reasoning_ext.recipe.load import Recipe, load_recipe
from reasoning_ext.runs.files import write_whole
from reasoning_ext.runs.process import versions
from reasoning_ext.scoring.spec import parse_rewards

RESULTS = Path(__file__).parent / "results" / "real_data.json"
FORMATS = {"gsm8k": "gsm8k", "math": "math", "amc": "math", "svamp": "svamp", "aime": "aime"}  # by how a file begins
LIMIT = 1024  # tokens of a row, TRL's default of max_length for stage sft


def make_recipe(file: Path, form: str, model: str, folder: Path) -> Recipe:
    """Write the recipe that trains on a file, and load it."""
    values = {"stage": "grpo", "model_name_or_path": model, "dataset_name": str(file.resolve()), "dataset_format": form}
    path = folder / f"{file.stem}.yaml"
    path.write_text(json.dumps(values | {"reward_funcs": ["math_answer"], "output_dir": str(folder / "run")}))
    return load_recipe(path)


def lengths(rows: Any, recipe: Recipe) -> tuple[list[int], list[int]]:
    """Return the tokens of each prompt, and of each solution with the token that ends it where a row has one."""
    tokenizer, contract = model_source(recipe.values, recipe.local, False).load_tokenizer()
    prompts, solutions = [], []
    for i, row in enumerate(rows):
        if row.get("completion"):
            tokens = tokenize_row(tokenizer, contract, row, i, LossOptions())
            prompts.append(tokens.prompt)
            solutions.append(len(tokens.input_ids) - tokens.prompt)
        else:
            prompts.append(prompt_length(tokenizer, contract, row, i, None))
    return prompts, solutions


def dropped(prepared: Prepared, prompts: list[int], solutions: list[int]) -> list[str]:
    """Say which rows a training would lose, and why."""
    lost = [f"{step['dropped']} {step['step']}" for step in prepared.steps if step["dropped"]]
    if solutions:
        long = sum(prompt + solution > LIMIT for prompt, solution in zip(prompts, solutions, strict=False))
        lost += [f"{long} longer than {LIMIT} tokens, in sft"] if long else []
    without = len(prompts) - len(solutions)
    return lost + ([f"{without} without a solution, in sft"] if without else [])


def measure(file: Path, form: str, model: str, folder: Path) -> dict[str, Any]:
    """Read one file and everything about it."""
    recipe, clock = make_recipe(file, form, model, folder), [time.perf_counter()]
    specs = parse_rewards(recipe.get("reward_funcs"), folder)
    prepared = prepare(row_options(recipe), specs=specs)
    clock.append(time.perf_counter())
    golds, problems = read_golds(recipe, specs, prepared.rows, whole=True)
    clock.append(time.perf_counter())
    prompts, solutions = lengths(prepared.rows, recipe)
    clock.append(time.perf_counter())
    solved = [row for row in prepared.rows if row.get("completion")]
    paid = math_answer([row["completion"] for row in solved], [row["answer"] for row in solved]) if solved else []
    clock.append(time.perf_counter())
    steps = zip(("rows", "golds", "tokens", "judging"), clock, clock[1:], strict=False)
    return {
        "file": file.name, "format": form, "rows": prepared.rows.num_rows, "golds": golds,
        "problems": [problem.found for problem in problems], "dropped": dropped(prepared, prompts, solutions),
        "prompt tokens": length_facts(prompts), "solution tokens": length_facts(solutions) if solutions else None,
        "judged right": f"{sum(one == 1.0 for one in paid)} of {len(paid)}" if paid else None,
        "seconds": {name: round(end - start, 1) for name, start, end in steps},
    }  # fmt: skip


def table(found: list[dict[str, Any]]) -> str:
    """Write what was found as a table in Markdown."""
    head = [
        "file",
        "format",
        "golds",
        "dropped",
        "prompt tokens: median, 95 %, longest",
        "solution tokens",
        "judged right",
    ]
    lines = ["| " + " | ".join([*head, "seconds"]) + " |", "|" + "---|" * (len(head) + 1)]
    for one in found:
        tokens = (one["prompt tokens"], one["solution tokens"])
        spread = [", ".join(f"{n:,}" for n in [*facts.values()][1:]) if facts else "" for facts in tokens]
        lost, seconds = "; ".join(one["dropped"]) or "none", sum(one["seconds"].values())
        cells = [
            one["file"],
            f"`{one['format']}`",
            one["golds"],
            lost,
            *spread,
            one["judged right"] or "",
            f"{seconds:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure every file whose set is known, print the table and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA_FOLDER")
    parser.add_argument("--model", required=True, help="a folder, or a hub name, whose tokenizer counts")
    arguments = parser.parse_args()
    load, found = os.getloadavg()[0], []
    with tempfile.TemporaryDirectory() as folder:
        for file in sorted(arguments.data.iterdir()):
            form = next((form for name, form in FORMATS.items() if file.name.startswith(name)), None)
            if form is None:
                print(f"{file.name}: left out, its name begins as none of {', '.join(FORMATS)}", flush=True)
                continue
            found.append(measure(file, form, arguments.model, Path(folder)))
            print(found[-1], flush=True)
    print(table(found))
    result = {
        "date": datetime.date.today().isoformat(), "versions": versions(),
        "command": f"python benchmarks/real_data.py DATA_FOLDER --model {Path(arguments.model).name}",
        "load of the machine, before and after": [round(load, 1), round(os.getloadavg()[0], 1)], "files": found,
    }  # fmt: skip
    write_whole(RESULTS, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
