"""1.0 for one non-empty thought and then a non-empty answer, 0.0 for anything else. Weigh it little: format is cheap."""

from typing import Any

from reasoning_ext import think


def think_format(completions: list, **kwargs: Any) -> list[float]:
    """Reward the form `<think>thought</think>answer`: one opener, one closer, nothing empty, no tag after.

    Args:
        completions: N completions, messages or strings.

    Returns:
        N rewards of 0.0 or 1.0.

    Example:
        >>> think_format(["<think>6 x 7</think>42", "<think></think>42", "42"])
        [1.0, 0.0, 0.0]
    """
    return [float(think.well_formed(think.content(completion))) for completion in completions]
