"""Completions scored with a recipe's rewards, called as TRL calls them, and the line that is written for each."""

from typing import Any

from reasoning_ext.engines.base import Completion
from reasoning_ext.scoring.call import Reward, call_reward, logged


def scored_rows(batch: list[Completion], table: Any, rewards: list[Reward]) -> list[dict[str, Any]]:
    """Score a batch with every reward, and return a line of `samples.jsonl` for each completion.

    Where there is no completion, nothing is asked and every reward is None. `table` has the data set's rows by number.
    """
    rows = {p: table[p] for p in dict.fromkeys(c.prompt for c in batch)}
    names = [name for name in rows[batch[0].prompt] if name != "prompt"]
    there = [c for c in batch if not c.error]
    given: dict[str, Any] = {name: [rows[c.prompt][name] for c in there] for name in names}
    given |= {"prompts": [rows[c.prompt]["prompt"] for c in there], "completion_ids": [c.ids for c in there]}
    messages = [[{"role": "assistant", "content": c.text}] for c in there]
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
            "completion": c.text.encode("utf-8", "replace").decode(),  # half a surrogate pair is no text
            "tokens": c.tokens,
            "finished": c.finished,
            "rewards": {name: None if c.error else next(values) for name, values in scores.items()},
        }
        line |= {"logprob": round(c.logprob, 6)} if c.logprob is not None else {}
        line |= {"forced": c.forced} if c.forced else {}
        line |= {name: row[name] for name in read if name not in (*line, "error", "model")}
        made.append(line | ({"error": c.error} if c.error else {}))
    return made
