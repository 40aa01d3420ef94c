r"""What a task of reasoning-gym pays for the final answer, by the task's own scorer, in worker processes with a deadline."""

import re
from collections.abc import Callable
from typing import Any

from reasoning_ext.rewards._gym import INSTALL, is_installed

from reasoning_ext import think
from reasoning_ext.verifier.pool import Failure, Pool

_TAGGED = re.compile(r"<answer>((?:(?!</?answer>).)*+)</answer>", re.DOTALL)
_TEXT = re.compile(r"\\(?:text|mathrm)\{([^{}]*+)\}")
_pool = Pool("reasoning_ext.rewards._gym:score_entry", memory_mb=4096, setup=())


def reasoning_gym(
    completions: list,
    gym_entry: list[str],
    *,
    partial: bool = True,
    seconds: float = 5.0,
    log_metric: Callable[[str, float], None] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    r"""Reward a final answer with the `score_answer` of its row's task; for rows of `dataset_name: reasoning_gym:TASK`.

    The final answer is what stands in the last `<answer>` after the thought, else in the last `\boxed{}`, else the whole
    text after the thought. Line breaks inside it are kept, because grids have them.

    In the worker processes `eval` reads literals only and sympy's parser formulas only; what is neither gets what the scorer
    pays for an answer that it cannot read.

    Args:
        completions: N completions, messages or strings.
        gym_entry: N entries as JSON text, with task and settings, as the data set's rows have them.
        partial: pay what the library pays for near answers; without it only a full score counts. Most scorers that
            compare texts pay for a long answer that contains the gold the share of its length.
        seconds: deadline an answer.
        log_metric: TRL's; `reasoning_gym/errors` is the number of completions whose scorer raised or took too long.

    Returns:
        N rewards between 0.0 and 1.0: 0.0 where no answer was given; None where the scorer raised or took too long.

    Raises:
        ValueError: `seconds` is not above 0.
        ModuleNotFoundError: the library is not installed.

    Example:
        >>> from reasoning_ext.data.gym import gym_rows
        >>> [row] = gym_rows("reasoning_gym:gcd", "train", {"num_rows": 1})
        >>> reasoning_gym([f"<think>...</think>It is \\boxed{{{row['answer']}}}", "no idea"], [row["gym_entry"]] * 2)
        [1.0, 0.0]
    """
    if not seconds > 0:
        raise ValueError(f"reasoning_gym: found seconds={seconds}; allowed: above 0")
    if not is_installed():
        raise ModuleNotFoundError(INSTALL)
    answers = [_final(think.answer(think.content(completion)) or "") for completion in completions]
    pairs = list(zip(gym_entry, answers, strict=True))
    given = list(dict.fromkeys(pair for pair in pairs if pair[1]))
    scores = dict(zip(given, _pool.map(given, seconds) if given else (), strict=True))
    paid = [scores.get(pair, 0.0) for pair in pairs]
    rewards = [None if isinstance(score, Failure) else score if partial else float(score == 1.0) for score in paid]
    if log_metric is not None:
        log_metric("reasoning_gym/errors", float(rewards.count(None)))
    return rewards


def _final(text: str) -> str:
    """Return the final answer of a text, without what marks it as such."""
    tagged = _TAGGED.findall(text)
    text = (tagged[-1] if tagged else text).strip()
    boxed = think.last_boxed(text)
    text = text if boxed is None else boxed
    whole = _TEXT.fullmatch(text)
    return whole[1].strip() if whole else text
