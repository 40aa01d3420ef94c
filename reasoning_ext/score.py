"""`reasoning-ext score`: rewards replayed over saved completions, without training.

Reads the parquet files that TRL writes into `completions/`, `samples.jsonl` and `answers.jsonl` of our stages, and any
parquet or JSONL file with the columns `prompt`, `completion` and what the rewards ask for. What TRL's table does not hold is
made up for: the opening tag, where every thought is closed and none is opened, and token ids, with the run's own tokenizer.
"""

import itertools
import json
import math
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from reasoning_ext import think
from reasoning_ext.data import check_columns
from reasoning_ext.errors import KeyProblem, UserError
from reasoning_ext.formats._chat import plain
from reasoning_ext.lineage import run_of, run_recipe
from reasoning_ext.own_keys import EVAL_REWARDS
from reasoning_ext.recipe import load_recipe
from reasoning_ext.reward_calls import Values, build_rewards, call_reward
from reasoning_ext.reward_loading import NOT_COLUMNS, RewardSpec, needed_columns, parse_rewards, reward_weights
from reasoning_ext.run_dir import RECIPE, damage, is_run
from reasoning_ext.shown import print
from reasoning_ext.sources import read_jsonl

MOST_TOKENS = 2**22  # of one completion; a column of that name with more counts something else
SHOWN, SHOWN_CHARACTERS = 2, 300
MOST_ROWS = 200_000  # lines of a JSONL file: those of a sampling run may be a million, and all rows are held at once


def score_and_print(path: Path, recipe_path: Path | None, names: list[str]) -> None:
    """Score a file of completions and print what the rewards make of them.

    Args:
        path: the file, or a run's folder.
        recipe_path: take `reward_funcs` from this recipe; where no reward is named, from the run's own.
        names: and these rewards, spelled as in a recipe.

    Raises:
        UserError: no file, no reward, or a column is missing.
    """
    specs, weights = [], []
    run = next((run for folder in (path, *path.parents[:2]) if (run := run_of(folder))), None)
    if recipe_path is None and not names and run is not None:
        recipe_path = run / RECIPE
    if recipe_path is not None:
        own = recipe_path.name == RECIPE and is_run(recipe_path.parent)
        recipe = run_recipe(recipe_path.parent) if own else load_recipe(recipe_path)
        entries = recipe.get("reward_funcs") if "reward_funcs" in recipe.keys else None
        entries = entries or (EVAL_REWARDS if recipe.stage == "eval" else None)
        specs = parse_rewards(entries, recipe.folder)
        weights = list(reward_weights(recipe.values.get("reward_weights"), specs))
    specs += parse_rewards(list(names), Path.cwd())
    weights += [spec.weight for spec in specs[len(weights) :]]
    if not specs:
        raise UserError("score: found no reward, allowed: --reward NAME, or --recipe of a stage with reward_funcs")
    rows = read_completions(path)
    if problem := damage(path, str(path)):
        print(f"score  {problem}")
    if any("completion_ids" in spec.plugin.required for spec in specs):
        _add_token_ids(rows, path)
    values, seconds = score_rows(rows, specs)
    groups = _groups(rows)
    print(f"{len(rows)} completions of {len(groups)} prompts")
    for spec, weight, column, taken in zip(specs, weights, values, seconds, strict=True):
        print(_line(f"{spec.name} x {weight:g}", column, groups) + f"  {1000 * taken / len(rows):.2f} ms each")
    totals = [_total([column[i] for column in values], weights) for i in range(len(rows))]
    if len(specs) > 1:
        print(_line("total", totals, groups))
        _print_correlations(specs, values)
    _print_changes(rows, totals, groups)
    _print_extremes(rows, totals)


def score_rows(rows: list[dict[str, Any]], specs: list[RewardSpec]) -> tuple[list[Values], list[float]]:
    """Score R rows with each reward, called as TRL calls it.

    Returns:
        one list of R values a reward, and the seconds that each reward took.

    Raises:
        UserError: a column that a reward needs is missing, or a reward fails.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))  # a row may lack what others have
    try:
        check_columns(names, needed_columns(specs))
    except KeyProblem as error:
        raise UserError(f"score: {error}") from error
    for spec in specs:
        if "completion_ids" in spec.plugin.required and "completion_ids" not in rows[0]:
            raise UserError(
                f"score: the reward {spec.name} needs completion_ids or tokens, or a run's folder with its tokenizer"
            )
    ours = {"prompt", "completion", *NOT_COLUMNS} - {"completion_ids"}
    columns = {name: [row.get(name) for row in rows] for name in names if name not in ours}
    completions = _whole([_conversation(row["completion"]) for row in rows])
    prompts = [row.get("prompt") for row in rows]
    values, seconds = [], []
    for reward in build_rewards(specs, tolerated=0):
        started = time.perf_counter()
        values.append(call_reward(reward, completions=completions, prompts=prompts, **columns))
        seconds.append(time.perf_counter() - started)
    return values, seconds


def read_completions(path: Path) -> list[dict[str, Any]]:
    """Read completions from a parquet or JSONL file, or from what a run's folder holds.

    Of a JSONL file with more than `MOST_ROWS` lines the first so many are read, and a line is printed that says so.

    Raises:
        UserError: there is none, or it has no column `completion`.
    """
    files = [path] if path.is_file() else sorted(path.glob("completions/*.parquet")) or sorted(path.glob("*.parquet"))
    files = files or [f for f in (path / "samples.jsonl", path / "answers.jsonl") if f.is_file()]
    if not files:
        raise UserError(f"score: found no completions in {path}, allowed: parquet, JSONL, a run's folder")
    rows = [row for file in files for row in _read_file(file)]
    # a server gave no completion; another table may have a column of that name
    rows = [row for row in rows if not (isinstance(row, dict) and row.get("error") and _failed(row))]
    if not rows:
        raise UserError(f"score: {files[0]} holds no completions")
    ids: dict[int, list[int]] = {}  # by length: what counts is how many there are; they are the largest part of a row
    for i, row in enumerate(rows):
        completion = row.get("completion") if isinstance(row, dict) else None
        messages = isinstance(completion, list) and completion and isinstance(completion[-1], dict)
        if not (isinstance(completion, str) or messages):
            found = (
                f"the completion {completion!r}"
                if isinstance(row, dict) and "completion" in row
                else "no column completion"
            )
            has = f"; there are {', '.join(row)}" if isinstance(row, dict) else ""
            raise UserError(f"score: row {i} has {found}, allowed: a text or messages{has}")
        if isinstance(completion, list):  # as data are read: content in parts, a thought in a field of its own
            try:
                row["completion"] = [plain(message, "completion") for message in completion]
            except ValueError as error:
                raise UserError(f"score: row {i}: {error}") from error
        if isinstance(row.get(think.WHOLE), str):  # what a template had taken out of TRL's own column
            row["completion"] = row.pop(think.WHOLE)
        if not isinstance(row.get("completion_ids"), list):
            row.pop("completion_ids", None)  # a column of that name that holds something else
        if isinstance(row.get("tokens"), int) and 0 <= row["tokens"] <= MOST_TOKENS:
            row["completion_ids"] = ids.setdefault(row["tokens"], [0] * row["tokens"])
    return rows


def _failed(row: dict[str, Any]) -> bool:
    """Tell whether a row with an error is one of our stages', or has no text at all."""
    return "sample_index" in row or row.get("completion") == ""


def _read_file(file: Path) -> list[Any]:
    try:
        return _read_parquet(file) if file.suffix == ".parquet" else _read_lines(file)
    except (OSError, ValueError, NotImplementedError) as error:  # not JSON, not UTF-8, no parquet, an unknown codec
        allowed = "parquet, or JSONL, an object a line"
        raise UserError(f"score: {file} cannot be read ({error}), allowed: {allowed}") from error


def _read_lines(file: Path) -> list[Any]:
    with file.open("rb") as lines:
        count = sum(line.endswith(b"\n") for line in lines)
        if count <= MOST_ROWS:
            return read_jsonl(file)
        print(f"score  the first {MOST_ROWS} of {count} completions")
        lines.seek(0)
        return [json.loads(line) for line in itertools.islice(lines, MOST_ROWS) if line.strip()]


def _read_parquet(file: Path) -> list[Any]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(file).to_pylist()


def _add_token_ids(rows: list[dict[str, Any]], path: Path) -> None:
    """Count tokens with the tokenizer that a run saved, where the file has no token ids; a run keeps it in its folder."""
    folders = [f for f in (path, path.parent, path.parent.parent) if (f / "tokenizer_config.json").is_file()]
    if "completion_ids" in rows[0] or not folders:
        return
    from reasoning_ext.chat_tokenizer import load_tokenizer

    tokenizer = load_tokenizer(str(folders[0]))
    for row in rows:
        row["completion_ids"] = tokenizer(think.content(row["completion"]), add_special_tokens=False).input_ids


def _whole(completions: list) -> list:
    """Put the opening tag back that a template wrote, where most of the closed thoughts were never opened."""
    closed = [text for text in map(think.content, completions) if think.CLOSE in text]
    unopened = [text for text in closed if think.OPEN not in text.partition(think.CLOSE)[0]]
    if 2 * len(unopened) <= len(closed):
        return completions
    return [
        think.with_prefix([c], think.OPEN)[0] if think.OPEN not in think.content(c).partition(think.CLOSE)[0] else c
        for c in completions
    ]


def _conversation(completion: Any) -> Any:
    return [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion


def _groups(rows: list[dict[str, Any]]) -> list[list[int]]:
    """List the rows of each prompt, at each step of a training."""
    groups: dict[tuple, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[str(row.get("model")), str(row.get("step")), str(row.get("prompt_index", row.get("prompt")))].append(i)
    return list(groups.values())


def _line(name: str, values: Values, groups: list[list[int]]) -> str:
    given = [value for value in values if value is not None]
    if not given:
        return f"{name:28s} applies to none"
    flat = [len({values[i] for i in group}) == 1 for group in groups if len(group) > 1]
    line = f"{name:28s} mean {statistics.fmean(given):.4f}  std {statistics.pstdev(given):.4f}"
    line += f"  min {min(given):g}  max {max(given):g}  not applicable {len(values) - len(given)}"
    return line + (f"  groups without variance {sum(flat) / len(flat):.0%}" if flat else "")


def _total(values: Values, weights: list[float]) -> float | None:
    given = [value * weight for value, weight in zip(values, weights, strict=True) if value is not None]
    return sum(given) if given else None


def _print_correlations(specs: list[RewardSpec], values: list[Values]) -> None:
    found = []
    for (left, a), (right, b) in itertools.combinations(zip(specs, values, strict=True), 2):
        pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
        varied = len({x for x, _ in pairs}) > 1 and len({y for _, y in pairs}) > 1
        if varied:
            found.append(
                f"{left.name} ~ {right.name} {statistics.correlation(*map(list, zip(*pairs, strict=True))):+.2f}"
            )
    print("correlation: " + (", ".join(found) or "none, because at most one of them varies"))


def _logged(row: dict[str, Any]) -> float | None:
    """Return what a row's training made of it: TRL's advantage, or the sum of the rewards that were saved."""
    rewards = row.get("rewards")
    saved = [row.get("advantage")]
    if saved == [None] and isinstance(rewards, dict):
        saved = list(rewards.values())
    known = [value for value in saved if isinstance(value, int | float) and math.isfinite(value)]
    return sum(known) if known else None


def _print_changes(rows: list[dict[str, Any]], totals: Values, groups: list[list[int]]) -> None:
    """Print how the order inside the groups differs from that of the logged rewards."""
    logged = [_logged(row) for row in rows]
    ranked = tied = turned = best_changed = compared = 0
    for group in groups:
        known = [(logged[i], totals[i]) for i in group if logged[i] is not None and totals[i] is not None]
        for (a, x), (b, y) in itertools.combinations(known, 2):
            if a != b:
                ranked += 1
                tied += x == y
                turned += (a < b and x > y) or (a > b and x < y)  # type: ignore[operator]
        if len({a for a, _ in known}) > 1:
            compared += 1
            best = max(x for _, x in known)  # type: ignore[type-var]
            best_changed += not any(x == best for a, x in known if a == max(a for a, _ in known))  # type: ignore[type-var]
    if ranked:
        print(
            f"against the logged rewards: of {ranked} ranked pairs {turned / ranked:.1%} turn round and {tied / ranked:.1%} "
            f"become equal; another completion is best in {best_changed} of {compared} groups"
        )


def _print_extremes(rows: list[dict[str, Any]], totals: Values) -> None:
    order = sorted((i for i, total in enumerate(totals) if total is not None), key=lambda i: totals[i] or 0.0)
    count = min(SHOWN, max(1, len(order) // 2))
    lowest, highest = order[:count], order[: -count - 1 : -1]
    for name, chosen in (("highest", highest), ("lowest", [i for i in lowest if i not in highest])):
        for i in chosen:
            text = " ".join(think.content(rows[i]["completion"]).split())
            shown = text if len(text) <= SHOWN_CHARACTERS else f"{text[:100]} ... {text[100 - SHOWN_CHARACTERS :]}"
            print(f"{name} {totals[i]:g} (row {i}): {shown}")
