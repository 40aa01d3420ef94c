"""A reward of your own in one file: the share of the steps a chain of sums and products needs that the thought shows.

It is an ordinary TRL reward function and works in plain TRL too. A recipe beside it names it by its path and sets what
has a default in its signature:

    reward_funcs:
      - math_answer
      - ./shows_steps.py:shows_steps: {weight: 0.5, stop_at_error: true}
"""

import re
from typing import Any

from reasoning_ext import think

_CHAIN = re.compile(r"\d(?:[+*]\d)+")


def shows_steps(prompts: list, completions: list, *, stop_at_error: bool = False, **kwargs: Any) -> list[float | None]:
    """Reward a thought for each step that it gets right: `7+5*3` needs `7+5=12` and then, with the last digit, `2*3=6`.

    A step counts in its own place only, so that writing a right one several times earns nothing.

    Args:
        prompts: N prompts, messages or strings.
        completions: N completions, messages or strings.
        stop_at_error: do not count the steps after the first wrong one.

    Returns:
        N rewards between 0.0 and 1.0, or None where the prompt is no such chain.

    Example:
        >>> prompts, completions = ["7+5*3"] * 3, ["<think>7+5=12;2*3=6</think>6", "<think>7+5=13;2*3=6</think>6", "6"]
        >>> shows_steps(prompts, completions)
        [1.0, 0.5, 0.0]
        >>> shows_steps(prompts, completions, stop_at_error=True)
        [1.0, 0.0, 0.0]
        >>> shows_steps(["Hello!"], ["Hello!"])
        [None]
    """
    pairs = zip(prompts, completions, strict=True)
    return [_share(think.content(prompt), think.content(completion), stop_at_error) for prompt, completion in pairs]


def _share(problem: str, completion: str, stop_at_error: bool) -> float | None:
    if not _CHAIN.fullmatch(problem.strip()):
        return None
    needed = _needed_steps(problem.strip())
    thought = think.split(completion).thought or ""
    right = [step == given.strip() for step, given in zip(needed, thought.split(";"), strict=False)]
    if stop_at_error and False in right:
        right = right[: right.index(False)]
    return sum(right) / len(needed)


def _needed_steps(problem: str) -> list[str]:
    """Work a chain out from left to right, going on with the last digit of each result."""
    digit, steps = problem[0], []
    for operator, operand in zip(problem[1::2], problem[2::2], strict=True):
        result = int(digit) + int(operand) if operator == "+" else int(digit) * int(operand)
        steps.append(f"{digit}{operator}{operand}={result}")
        digit = str(result)[-1]
    return steps
