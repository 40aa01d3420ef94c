"""A reward that sounds right and is not: "a good thought shows its work", so it pays for each step, true or not.

Made to be hacked; docs/tutorials/3_hacked_reward.md tells what happens and how it is mended.
"""

from typing import Any

from reasoning_ext import think


def counts_steps(completions: list, *, enough: int = 8, **kwargs: Any) -> list[float]:
    """Reward a thought for each `=` in it.

    Args:
        completions: N completions, messages or strings.
        enough: so many earn 1.0.

    Returns:
        N rewards between 0.0 and 1.0.

    Example:
        >>> counts_steps(["<think>7+5=12;2*3=6</think>6", "<think>1=1;1=1;1=1;1=1;1=1;1=1;1=1;1=1</think>6", "6"])
        [0.25, 1.0, 0.0]
    """
    thoughts = [think.split(think.content(completion)).thought or "" for completion in completions]
    return [min(1.0, thought.count("=") / enough) for thought in thoughts]
