"""A penalty that grows with the number of tokens; never positive, so that a short wrong answer earns nothing."""

from typing import Any

from reasoning_ext import think


def length_penalty(
    completion_ids: list[list[int]],
    *,
    completions: list | None = None,
    min_tokens: int = 0,
    max_tokens: int = 1024,
    **kwargs: Any,
) -> list[float]:
    """Penalise long completions: 0.0 up to `min_tokens`, falling in a line to -1.0 at `max_tokens`, -1.0 beyond.

    Tokens are counted, not characters, so that padding a completion with white space never pays (open-rs#4). What tools
    answered in between is taken off by its share of the characters, because ids do not tell whose they are.

    Args:
        completion_ids: token ids of N completions.
        completions: their messages, where tools were called.
        min_tokens: length up to which nothing is taken away.
        max_tokens: length from which the whole penalty applies.

    Returns:
        N rewards between -1.0 and 0.0.

    Raises:
        ValueError: the bounds are not whole numbers with `0 <= min_tokens < max_tokens`.

    Example:
        >>> length_penalty([[1] * 10, [1] * 15, [1] * 90], min_tokens=10, max_tokens=20)
        [0.0, -0.5, -1.0]
    """
    # type() and not isinstance(): True is an int, and an infinite or missing bound would make every penalty 0
    if not (type(min_tokens) is type(max_tokens) is int and 0 <= min_tokens < max_tokens):
        raise ValueError(
            f"length_penalty: found min_tokens={min_tokens}, max_tokens={max_tokens}; "
            "allowed: whole numbers, 0 <= min < max"
        )
    lengths = map(_own_tokens, completion_ids, completions or [""] * len(completion_ids))
    over = (max(length - min_tokens, 0) for length in lengths)
    return [0.0 - min(tokens / (max_tokens - min_tokens), 1.0) for tokens in over]


def _own_tokens(ids: list[int], completion: str | list[dict[str, Any]]) -> int:
    """Return how many tokens a model wrote itself."""
    if isinstance(completion, str):
        return len(ids)
    results = sum(len(str(turn.get("content") or "")) for turn in completion if turn.get("role") == "tool")
    calls = sum(len(str(call.get("function"))) for turn in completion for call in turn.get("tool_calls") or [])
    own = calls + sum(map(len, think.said(completion)))
    return len(ids) - round(len(ids) * results / (own + results)) if results else len(ids)
