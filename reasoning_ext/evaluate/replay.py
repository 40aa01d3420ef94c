"""`reasoning-ext score`: rewards replayed over saved completions, without training.

Reads the parquet files that TRL writes into `completions/`, `samples.jsonl` and `answers.jsonl` of our stages, and any
parquet or JSONL file with the columns `prompt`, `completion` and what the rewards ask for. What TRL's table does not hold is
made up for: the opening tag, and token ids, with the run's own tokenizer. Where tools were called rewards get all messages, and
what tools answered then; no tool is called, and rewards that need the object of an `environment` are left out.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext import think
from reasoning_ext.data.columns import check_columns
from reasoning_ext.data.lineage import run_of, run_recipe
from reasoning_ext.data.sources import read_jsonl
from reasoning_ext.data.values import plain
from reasoning_ext.errors import KeyProblem, UserError
from reasoning_ext.recipe.benchmarks import reward_entries
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.runs.folder import ANSWERS, RECIPE, damage, is_run, seed_runs
from reasoning_ext.runs.traces import TURNS, as_text, turns_of, whole, with_turns
from reasoning_ext.scoring.call import TOOL_TOKENS, Values, build_rewards, call_reward
from reasoning_ext.scoring.spec import NOT_COLUMNS, RewardSpec, needed_columns, parse_rewards, reward_weights
from reasoning_ext.shown import print

if TYPE_CHECKING:
    import pandas

MOST_TOKENS = 2**22  # of one completion; a column of that name with more counts something else
SHOWN, SHOWN_CHARACTERS = 2, 300


def score_and_print(path: Path, recipe_path: Path | None, names: list[str]) -> None:
    """Score a file, or a run's folder, with a recipe's rewards, else the run's own, and those that are named, and print it."""
    import pandas

    if seed_runs(path):
        raise UserError(f"score: {damage(path, str(path))}")
    specs, weights = _replayable(*_rewards(path, recipe_path, names))
    rows = read_completions(path)
    if problem := damage(path, str(path)):
        print(f"score  {problem}")
    if any("completion_ids" in spec.plugin.required for spec in specs):
        _add_token_ids(rows, path)
    values, seconds = score_rows(rows, specs)
    table = pandas.DataFrame(dict(enumerate(values)), dtype=float)  # a column a reward, NaN where it does not apply
    totals = (table * weights).sum(axis=1, min_count=1)
    # the rows of one prompt, at one step of a training
    keys = [str((row.get("model"), row.get("step"), row.get("prompt_index", row.get("prompt")))) for row in rows]
    groups = pandas.Series(keys)
    print(f"{len(rows)} completions of {groups.nunique()} prompts")
    for i, (spec, weight, taken) in enumerate(zip(specs, weights, seconds, strict=True)):
        print(_line(f"{spec.name} x {weight:g}", table[i], groups) + f"  {1000 * taken / len(rows):.2f} ms each")
    if len(specs) > 1:
        print(_line("total", totals, groups))
        pairs = table.corr().stack().dropna()
        found = [f"{specs[i].name} ~ {specs[j].name} {value:+.2f}" for (i, j), value in pairs.items() if i < j]
        print("correlation: " + (", ".join(found) or "none, because at most one of them varies"))
    _print_changes(pandas.DataFrame({"logged": map(_logged, rows), "total": totals, "group": groups}).dropna())
    _print_extremes(rows, totals)


def _rewards(path: Path, recipe_path: Path | None, names: list[str]) -> tuple[list[RewardSpec], list[float]]:
    """Return the rewards of a recipe, of the run that a file is of, and those that are named, and their weights."""
    specs, weights = [], []
    run = next((run for folder in (path, *path.parents[:2]) if (run := run_of(folder))), None)
    if recipe_path is None and not names and run is not None:
        recipe_path = run / RECIPE
    if recipe_path is not None:
        own = recipe_path.name == RECIPE and is_run(recipe_path.parent)
        recipe = run_recipe(recipe_path.parent) if own else load_recipe(recipe_path)
        specs = parse_rewards(reward_entries(recipe), recipe.folder)
        weights = list(reward_weights(recipe.values.get("reward_weights"), specs))
    named = parse_rewards(list(names), Path.cwd())
    if not specs + named:
        raise UserError("score: found no reward, allowed: --reward NAME, or --recipe of a stage with reward_funcs")
    return specs + named, weights + [spec.weight for spec in named]


def _replayable(specs: list[RewardSpec], weights: list[float]) -> tuple[list[RewardSpec], list[float]]:
    """Leave out, and say so, the rewards that need environments, which are gone, and those that such a reward gates."""
    out = {spec.name for spec in specs if "environments" in spec.plugin.required}
    out |= {spec.name for spec in specs if spec.gate in out}
    if out:
        print(f"score  left out: {', '.join(sorted(out))}; environments cannot be replayed")
    if out == {spec.name for spec in specs}:
        raise UserError("score: found only rewards that need environments, allowed: others, with --reward NAME")
    kept = [(spec, weight) for spec, weight in zip(specs, weights, strict=True) if spec.name not in out]
    return [spec for spec, _ in kept], [weight for _, weight in kept]


def score_rows(rows: list[dict[str, Any]], specs: list[RewardSpec]) -> tuple[list[Values], list[float]]:
    """Score R rows with each reward, called as TRL calls it; return R values for each, and the seconds that it took."""
    names = list(dict.fromkeys(name for row in rows for name in row))  # a row may lack what others have
    try:
        check_columns(names, needed_columns(specs))
    except KeyProblem as error:
        raise UserError(f"score: {error}") from error
    if lacking := [spec.name for spec in specs if "completion_ids" in {*spec.plugin.required} - rows[0].keys()]:
        needs = "completion_ids or tokens, or a run's folder with its tokenizer"
        raise UserError(f"score: the reward {lacking[0]} needs {needs}")
    ours = {"prompt", "completion", *NOT_COLUMNS} - {"completion_ids"}
    columns = {name: [row.get(name) for row in rows] for name in names if name not in ours}
    given = [row["completion"] for row in rows]
    completions = _whole([[{"role": "assistant", "content": c}] if isinstance(c, str) else c for c in given])
    prompts = [row.get("prompt") for row in rows]
    values, seconds = [], []
    for reward in build_rewards(specs, tolerated=0):
        started = time.perf_counter()
        values.append(call_reward(reward, completions=completions, prompts=prompts, **columns))
        seconds.append(time.perf_counter() - started)
    return values, seconds


def read_completions(path: Path) -> list[dict[str, Any]]:
    """Read completions from a parquet or JSONL file, or a run's folder, but for those that a server failed to give."""
    files = [path] if path.is_file() else sorted(path.glob("completions/*.parquet")) or sorted(path.glob("*.parquet"))
    files = files or [f for f in (path / "samples.jsonl", path / ANSWERS) if f.is_file()]
    if not files:
        raise UserError(f"score: found no completions in {path}, allowed: parquet, JSONL, a run's folder")
    rows = [row for file in files for row in _read_file(file) if not _failed(row)]
    if not rows:
        raise UserError(f"score: {files[0]} holds no completions")
    ids: dict[int, list[int]] = {}  # by length: what counts is how many there are; they are the largest part of a row
    for i, row in enumerate(rows):
        given = row.get("completion") if isinstance(row, dict) else None
        if not (isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[-1], dict))):
            there = f"; there are {', '.join(row)}" if isinstance(row, dict) else ""
            raise UserError(f"score: row {i} has the completion {given!r}, allowed: a text or messages{there}")
        if isinstance(row.get(think.WHOLE), str):  # what a template had taken out of TRL's own column
            row["completion"] = given = row.pop(think.WHOLE)
        row["completion"] = _turns(row) or given
        try:  # as data are read: content in parts, a thought in a field of its own
            if isinstance(given, list) and not turns_of(row):
                row["completion"] = [plain(message, "completion") for message in given]
        except ValueError as error:
            raise UserError(f"score: row {i}: {error}") from error
        results = row.pop(TOOL_TOKENS, None) if row.pop(TURNS, None) else 0
        if not isinstance(row.get("completion_ids"), list):
            row.pop("completion_ids", None)  # a column of that name that holds something else
        if isinstance(row.get("tokens"), int) and 0 <= row["tokens"] <= MOST_TOKENS:
            count = row["tokens"] + (results if isinstance(results, int) and 0 <= results <= MOST_TOKENS else 0)
            row["completion_ids"] = ids.setdefault(count, [0] * count)
    return rows


def _turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the messages of a row in which tools were called, its text the last one, and put those before it into `turns`."""
    given = row["completion"] if isinstance(row["completion"], list) else []
    called = [one for one in given if isinstance(one, dict) and (one.get("role") == "tool" or one.get("tool_calls"))]
    found = with_turns(row if row.get(TURNS) or called else {"completion": ""})
    row[TURNS] = found.get(TURNS)
    messages = whole(found)
    return messages if isinstance(messages, list) else []


def _failed(row: Any) -> bool:
    """Tell whether a server gave no completion: a row with an error that is one of our stages', or has no text at all."""
    return isinstance(row, dict) and bool(row.get("error")) and ("sample_index" in row or row.get("completion") == "")


def _read_file(file: Path) -> list[Any]:
    import pyarrow.parquet

    try:
        if file.suffix == ".parquet":
            return pyarrow.parquet.read_table(file).to_pylist()
        return read_jsonl(file)
    except (OSError, ValueError, NotImplementedError) as error:  # not JSON, not UTF-8, no parquet, an unknown codec
        raise UserError(f"score: {file} cannot be read ({error}), allowed: parquet, or JSONL") from error


def _add_token_ids(rows: list[dict[str, Any]], path: Path) -> None:
    """Count tokens with the tokenizer that a run saved, where the file has no token ids; a run keeps it in its folder."""
    folders = [f for f in (path, path.parent, path.parent.parent) if (f / "tokenizer_config.json").is_file()]
    if "completion_ids" in rows[0] or not folders:
        return
    from reasoning_ext.think.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(str(folders[0]))
    for row in rows:
        written = row["completion"] if isinstance(row["completion"], list) else [{"content": row["completion"]}]
        text = "".join(str(one.get("content") or "") for one in written)
        row["completion_ids"] = tokenizer(text, add_special_tokens=False).input_ids


def _whole(completions: list) -> list:
    """Put the opening tag back that a template wrote, where most of the closed thoughts were never opened."""
    before = [think.content(completion).partition(think.CLOSE) for completion in completions]
    opened = [think.OPEN in thought for thought, closed, _ in before if closed]
    if 2 * sum(opened) >= len(opened):
        return completions
    return [
        completion
        if think.OPEN in thought
        else [*completion[:-1], {**completion[-1], "content": think.OPEN + think.content(completion)}]
        for completion, (thought, _, _) in zip(completions, before, strict=True)
    ]


def _line(name: str, column: pandas.Series, groups: pandas.Series) -> str:
    given, grouped = column.dropna(), column.groupby(groups)
    if given.empty:
        return f"{name:28s} applies to none"
    flat = (grouped.nunique(dropna=False) == 1)[grouped.size() > 1]
    line = f"{name:28s} mean {given.mean():.4f}  std {given.std(ddof=0):.4f}"
    line += f"  min {given.min():g}  max {given.max():g}  not applicable {len(column) - len(given)}"
    return line + (f"  groups without variance {flat.mean():.0%}" if len(flat) else "")


def _logged(row: dict[str, Any]) -> float | None:
    """Return what a row's training made of it: TRL's advantage, or the sum of the rewards that were saved."""
    saved, rewards = [row.get("advantage")], row.get("rewards")
    if saved == [None] and isinstance(rewards, dict):
        saved = list(rewards.values())
    known = [value for value in saved if isinstance(value, int | float) and math.isfinite(value)]
    return sum(known) if known else None


def _print_changes(table: pandas.DataFrame) -> None:
    """Print how the order of `total` inside each `group` differs from that of `logged`."""
    groups = table.groupby("group")
    varied = groups["logged"].transform("nunique") > 1
    if not varied.any():
        return
    ranks, table = groups[["logged", "total"]].rank()[varied], table[varied]
    best = ranks["logged"] == ranks.groupby(table["group"])["logged"].transform("max")
    changed = table[best].groupby("group")["total"].max() < table.groupby("group")["total"].max()
    same = f"rank correlation {ranks['logged'].corr(ranks['total']):.2f}"
    print(f"against the logged rewards: {same}; another completion is best in {changed.sum()} of {len(changed)} groups")


def _print_extremes(rows: list[dict[str, Any]], totals: pandas.Series) -> None:
    order = list(totals.dropna().sort_values(kind="stable").index)
    count = min(SHOWN, max(1, len(order) // 2))
    highest = order[: -count - 1 : -1]
    for name, chosen in (("highest", highest), ("lowest", [i for i in order[:count] if i not in highest])):
        for i in chosen:
            text = " ".join(as_text(with_turns(rows[i])).split())
            shown = text if len(text) <= SHOWN_CHARACTERS else f"{text[:100]} ... {text[100 - SHOWN_CHARACTERS :]}"
            print(f"{name} {totals[i]:g} (row {i}): {shown}")
