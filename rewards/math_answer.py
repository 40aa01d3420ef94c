"""1.0 for a right answer, 0.0 for a wrong one, None where nobody can tell; judged on the text after the thought."""

from collections.abc import Callable
from typing import Any

from reasoning_ext import think
from reasoning_ext.verifier import Rules, judge_all


def math_answer(
    completions: list,
    answer: list,
    *,
    seconds: float = 2.0,
    evaluated: bool = False,
    base_may_be_omitted: bool = False,
    log_extra: Callable[[str, list], None] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    r"""Reward a completion whose answer equals the gold.

    The answer is the last box, else what follows "the answer is", else the last formula or number after the thought;
    `60\%` is a gold of 60 where the prompt asks for per cent, and is not elsewhere. See `reasoning_ext.verifier`.

    Args:
        completions: N completions, messages or strings.
        answer: N gold answers, with or without LaTeX around them.
        seconds: deadline a pair.
        evaluated: pay for values alone, `391` and not `17 \times 23`: for prompts that are expressions; `check` names them.
        base_may_be_omitted: pay for 204 where the gold is `204_5` and the prompt names a base.
        log_extra: TRL's; golds, and why a completion could not be judged, go into the table of completions.
        log_metric: TRL's; `math_answer/errors` is the number of completions that could not be judged.

    Returns:
        N rewards: 1.0 right, 0.0 wrong or a thought that was never closed, None where the gold cannot be read or judging
        it took too long.

    Raises:
        ValueError: `seconds` is not above 0.

    Example:
        >>> math_answer([r"<think>6 x 7</think>It is \boxed{42}", "<think>42"], answer=["42", "42"])
        [1.0, 0.0]
        >>> math_answer([r"\boxed{17 \times 23}"] * 2, ["391"] * 2), math_answer([r"17 \times 23"], ["391"], evaluated=True)
        ([1.0, 1.0], [0.0])
    """
    if not seconds > 0:
        raise ValueError(f"math_answer: found seconds={seconds}; allowed: above 0")
    texts = [think.answer(think.content(completion)) for completion in completions]
    questions = [_question(prompt) for prompt in kwargs.get("prompts") or [None] * len(texts)]
    verdicts = judge_all(answer, texts, seconds, questions, Rules(evaluated, base_may_be_omitted))
    if log_extra is not None:
        log_extra("answer", list(answer))
        log_extra("math_answer_error", [verdict.reason for verdict in verdicts])
    if log_metric is not None:
        log_metric("math_answer/errors", float(sum(verdict.right is None for verdict in verdicts)))
    return [None if verdict.right is None else float(verdict.right) for verdict in verdicts]


def _question(prompt: Any) -> str:
    """Return what a prompt asks: the text itself, or the last message of the user."""
    if not prompt or isinstance(prompt, str):
        return prompt or ""
    asked = [message for message in prompt if message.get("role") == "user"]
    return think.content(asked or prompt)
