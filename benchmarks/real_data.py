"""What becomes of real sets: golds read, rows dropped and why, lengths in tokens, what the solutions earn, seconds.

    python benchmarks/real_data.py DATA_FOLDER --model FOLDER_OR_HUB_NAME

DATA_FOLDER holds files as their makers publish them, whose names begin as their sets do (`FORMATS`): gsm8k_train.jsonl,
math500.jsonl, svamp.jsonl, aime24.jsonl, amc.jsonl. They are no part of this project. Each is read as a recipe of stage grpo
reads it, its golds as `check` reads them, and its rows are put into the tokens of that model as stage sft does, with its chat
template. `judged right` counts the solutions that math_answer pays, given as completions. Seconds are those of the wall
clock and, in brackets, of this process's processor, without the verifier's workers. Prints a table in Markdown, and writes
it with date, versions, load and command to benchmarks/results/real_data.json.
"""

import argparse
import datetime
import itertools
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
HEAD = "file|format|golds|dropped|prompt tokens: median, 95 %, longest|solution tokens|judged right|seconds"
STEPS = ("rows", "golds", "tokens", "judging")


def make_recipe(file: Path, form: str, model: str, folder: Path) -> Recipe:
    """Write the recipe that trains on a file, and load it."""
    values = {"stage": "grpo", "model_name_or_path": model, "dataset_name": str(file.resolve()), "dataset_format": form}
    path = folder / f"{file.stem}.yaml"
    path.write_text(json.dumps(values | {"reward_funcs": ["math_answer"], "output_dir": str(folder / "run")}))
    return load_recipe(path)


def lengths(rows: Any, recipe: Recipe) -> list[tuple[int, int]]:
    """Return the tokens of each row, `(prompt, solution with the token that ends it)`, the latter 0 without a solution."""
    tokenizer, contract = model_source(recipe.values, recipe.local, False).load_tokenizer()
    found = []
    for i, row in enumerate(rows):
        if row.get("completion"):
            tokens = tokenize_row(tokenizer, contract, row, i, LossOptions())
            found.append((tokens.prompt, len(tokens.input_ids) - tokens.prompt))
        else:
            found.append((prompt_length(tokenizer, contract, row, i, None), 0))
    return found


def dropped(prepared: Prepared, tokens: list[tuple[int, int]]) -> list[str]:
    """Say which rows a training would lose, and why."""
    lost = {f"{step['step']}, always": step["dropped"] for step in prepared.steps}
    lost["without a solution, in sft"] = sum(not solution for _, solution in tokens)
    lost[f"longer than {LIMIT} tokens, in sft"] = sum(bool(one[1]) and sum(one) > LIMIT for one in tokens)
    return [f"{count} {why}" for why, count in lost.items() if count]


def now() -> tuple[float, float]:
    """Return seconds: `(of the wall clock, of this process's processor)`."""
    return time.perf_counter(), time.process_time()


def measure(file: Path, form: str, model: str, folder: Path) -> dict[str, Any]:
    """Read one file and everything about it."""
    recipe, clock = make_recipe(file, form, model, folder), [now()]
    specs = parse_rewards(recipe.get("reward_funcs"), folder)
    prepared = prepare(row_options(recipe), specs=specs)
    clock.append(now())
    golds, problems = read_golds(recipe, specs, prepared.rows, whole=True)
    clock.append(now())
    tokens = lengths(prepared.rows, recipe)
    clock.append(now())
    solved = [row for row in prepared.rows if row.get("completion")]
    said, answers, prompts = ([row[name] for row in solved] for name in ("completion", "answer", "prompt"))
    paid = math_answer(said, answers, prompts=prompts) if solved else []
    clock.append(now())
    spent = [[round(b - a, 1) for a, b in zip(*span, strict=True)] for span in itertools.pairwise(clock)]
    solutions = [solution for _, solution in tokens if solution]
    return {
        "file": file.name, "format": form, "rows": prepared.rows.num_rows, "golds": golds,
        "problems": [problem.found for problem in problems], "dropped": dropped(prepared, tokens),
        "prompt tokens": length_facts([prompt for prompt, _ in tokens]),
        "solution tokens": length_facts(solutions) if solutions else {},
        "judged right": f"{sum(one == 1.0 for one in paid)} of {len(paid)}" if paid else "",
        "seconds, wall and processor": dict(zip(STEPS, spent, strict=True)),
    }  # fmt: skip


def table(found: list[dict[str, Any]]) -> str:
    """Write what was found as a table in Markdown."""
    lines = [HEAD.split("|"), ["---"] * len(HEAD.split("|"))]
    for one in found:
        spread = [
            ", ".join(f"{n:,}" for n in [*one[what].values()][1:]) for what in ("prompt tokens", "solution tokens")
        ]
        wall, processor = map(sum, zip(*one["seconds, wall and processor"].values(), strict=True))
        lost, seconds = "; ".join(one["dropped"]) or "none", f"{wall:.1f} ({processor:.1f})"
        lines.append([one["file"], f"`{one['format']}`", one["golds"], lost, *spread, one["judged right"], seconds])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


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
            print(f"{file.name}: read as {form}", flush=True)
            found.append(measure(file, form, arguments.model, Path(folder)))
    print(table(found))
    result = {
        "date": datetime.date.today().isoformat(), "versions": versions(),
        "command": f"python benchmarks/real_data.py DATA_FOLDER --model {Path(arguments.model).name}",
        "load of the machine, before and after": [round(load, 1), round(os.getloadavg()[0], 1)], "files": found,
    }  # fmt: skip
    write_whole(RESULTS, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
