"""Completions scored with a recipe's rewards, called as TRL calls them, and the line that is written for each."""

from __future__ import annotations

from typing import Any

from reasoning_ext.generation import Completion
from reasoning_ext.reward_calls import Reward, call_reward, logged


def scored_rows(batch: list[Completion], table: Any, rewards: list[Reward]) -> list[dict[str, Any]]:
    """Score a batch with every reward; where there is no completion, nothing is asked and every reward is None.

    Args:
        batch: B completions, whole.
        table: the data set's rows by number; those that the batch answers are read.
        rewards: the rewards.

    Returns:
        a line of `samples.jsonl` for each, in the batch's order: prompt, text, number of tokens, whether it finished, rewards.
    """
    rows = {p: table[p] for p in dict.fromkeys(c.prompt for c in batch)}
    there = [c for c in batch if not c.error]
    names = [name for name in rows[batch[0].prompt] if name != "prompt"]
    given: dict[str, Any] = {name: [rows[c.prompt][name] for c in there] for name in names}
    given["prompts"] = [rows[c.prompt]["prompt"] for c in there]
    given["completion_ids"] = [c.ids for c in there]
    messages = [[{"role": "assistant", "content": c.text}] for c in there]
    columns = {reward.__name__: call_reward(reward, completions=messages, **given) for reward in rewards if there}
    places = {(c.prompt, c.sample): i for i, c in enumerate(there)}
    made = []
    for c in batch:
        place = places.get((c.prompt, c.sample))
        scores = {r.__name__: None if place is None else columns[r.__name__][place] for r in rewards}
        made.append(_line(c, rows[c.prompt], scores, logged(rewards[0], names)))
    return made


def _line(
    completion: Completion, row: dict[str, Any], scores: dict[str, float | None], columns: list[str]
) -> dict[str, Any]:
    """Write a line; `columns` of the data are those that a reward reads, so that `score` can replay it."""
    written = {
        "prompt_index": completion.prompt,
        "sample_index": completion.sample,
        "prompt": row["prompt"],
        "answer": row.get("answer"),
        "completion": completion.text.encode("utf-8", "replace").decode(),  # half a surrogate pair is no text
        "tokens": completion.tokens,
        "finished": completion.finished,
        "rewards": scores,
    }
    read = {name: row[name] for name in columns if name not in (*written, "error", "model")}
    return written | read | ({"error": completion.error} if completion.error else {})
