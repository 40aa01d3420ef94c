"""Completions scored with a recipe's rewards, called as TRL calls them, and the line that is written for each."""

import json
from typing import Any

from reasoning_ext.engines.base import Completion, with_observed
from reasoning_ext.scoring.call import Reward, call_reward, logged


def scored_rows(batch: list[Completion], table: Any, rewards: list[Reward]) -> list[dict[str, Any]]:
    """Score a batch with every reward, and return a line of `samples.jsonl` for each completion.

    Where there is no completion, nothing is asked and every reward is None. `table` has the data set's rows by number.
    """
    rows = {p: table[p] for p in dict.fromkeys(c.prompt for c in batch)}
    names = [name for name in rows[batch[0].prompt] if name != "prompt"]
    there = [c for c in batch if not c.error]
    given: dict[str, Any] = {name: [rows[c.prompt][name] for c in there] for name in names}
    given |= {"prompts": [with_observed(rows[c.prompt]["prompt"], c.observed) for c in there]}
    given |= {"completion_ids": [c.ids for c in there]}
    if any(c.environment is not None for c in there):
        given["environments"] = [c.environment for c in there]
    messages = [c.messages for c in there]
    scores = {r.__name__: iter(call_reward(r, completions=messages, **given) if there else ()) for r in rewards}
    read = logged(rewards[0], names) if rewards else []  # what a reward reads is written, so that `score` can replay it
    made = []
    for c in batch:
        row = rows[c.prompt]
        line = {
            "prompt_index": c.prompt,
            "sample_index": c.sample,
            "prompt": row["prompt"],
            "answer": row.get("answer"),
            "completion": writable(c.text),
            "tokens": c.tokens,
            "finished": c.finished,
            "rewards": {name: None if c.error else next(values) for name, values in scores.items()},
        }
        if c.turns:
            line |= {"turns": writable(c.turns), "tool_tokens": c.tool_tokens}
        line |= {"observed": writable(c.observed)} if c.observed else {}
        line |= {"logprob": round(c.logprob, 6)} if c.logprob is not None else {}
        line |= {"forced": c.forced} if c.forced else {}
        line |= {name: row[name] for name in read if name not in (*line, "error", "model")}
        made.append(line | ({"error": c.error} if c.error else {}))
    return made


def writable(value: Any) -> Any:
    """Return what JSON holds without halves of surrogate pairs, which are no text."""
    return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
