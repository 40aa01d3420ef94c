"""The think contract: where a completion's thought ends and its answer begins, whatever the chat template does.

Rewards, sampling, evaluation and reports all see whole completions, `<think>thought</think>answer`. A template that
opens the thought in the generation prompt leaves completions without the opening tag, on which a format reward is
always 0 (huggingface/trl#6966, open-r1#560); `template.py` finds that out by rendering, and makes completions whole
before anything here sees them. Everything here scans text from left to right once, so that a flood of tags costs
linear time.
"""

import re
from typing import Any, NamedTuple

OPEN, CLOSE = "<think>", "</think>"
_FAILED = re.compile(r"[\s{\"'\[(<]{0,20}+\w{0,60}?error[\"']?\s{0,20}+:", re.IGNORECASE)
WHOLE = "whole"  # the column of whole completions in the tables of a training


class Parts(NamedTuple):
    """A whole completion, taken apart.

    The thought is None where none is closed; the answer is the whole text where there is no tag at all, and None
    where a thought was opened behind the last closing tag, so that no answer was given.
    """

    thought: str | None
    answer: str | None


def split(text: str) -> Parts:
    """Take a whole completion apart at its last `</think>`.

    >>> split("<think>3+4=7</think>7")
    Parts(thought='3+4=7', answer='7')
    >>> split("<think>3+4")
    Parts(thought=None, answer=None)
    """
    before, closed, answer = text.rpartition(CLOSE)
    if not closed:
        return Parts(None, None if OPEN in text else text)
    thought = before.partition(OPEN)[2] if OPEN in before else before
    return Parts(thought, None if OPEN in answer else answer)


def answer(text: str) -> str | None:
    """Return what `split` calls the answer."""
    after = text.rpartition(CLOSE)[2]
    return None if OPEN in after else after


def join(thought: str, answer: str) -> str:
    """Write a whole completion in the layout of DeepSeek-R1 and Qwen3."""
    return f"{OPEN}\n{thought.strip()}\n{CLOSE}\n\n{answer.strip()}"


def well_formed(text: str) -> bool:
    """Tell whether a whole completion is one non-empty thought and then a non-empty answer, with no other think tag.

    >>> well_formed("<think>3+4=7</think>7"), well_formed("<think></think>7")
    (True, False)
    """
    if text.count(OPEN) != 1 or text.count(CLOSE) != 1:
        return False
    before, _, rest = text.partition(OPEN)
    thought, closed, answer = rest.partition(CLOSE)
    return bool(closed and not before.strip() and thought.strip() and answer.strip())


def content(completion: str | list[dict[str, Any]]) -> str:
    """Return a completion's text: the string itself, or the last message of a conversation; a tool's result is no answer."""
    if isinstance(completion, str):
        return completion
    return "" if completion[-1].get("role") == "tool" else str(completion[-1].get("content") or "")


def said(completion: str | list[dict[str, Any]]) -> list[str]:
    """Return what the assistant wrote, a text a turn, without what tools answered in between.

    >>> said([{"role": "assistant", "content": "a"}, {"role": "tool", "content": "b"}, {"role": "assistant", "content": "c"}])
    ['a', 'c']
    """
    if isinstance(completion, str):
        return [completion]
    return [str(turn.get("content") or "") for turn in completion if turn.get("role") != "tool"]


def as_one(completion: str | list[dict[str, Any]]) -> str:
    """Return a completion of several turns as one of a single turn: the thoughts of all of them, and the last one's answer.

    What a turn without tags says before its calls counts as thought where others have tags; what tools answered is left out.

    >>> call = {"role": "assistant", "content": "<think>17*23</think>", "tool_calls": []}
    >>> as_one([call, {"role": "tool", "content": "391"}, {"role": "assistant", "content": "<think>good</think>391"}])
    '<think>17*23\\ngood</think>391'
    """
    *before, last = said(completion) + [""] * (not isinstance(completion, str) and completion[-1].get("role") == "tool")
    if not before or not any(OPEN in text or CLOSE in text for text in [*before, last]):
        return "\n".join([*before, last])
    parts, end = [split(text) for text in before], split(last)
    thoughts = [
        text.replace(OPEN, "") if p.thought is None else p.thought for p, text in zip(parts, before, strict=True)
    ]
    thoughts.append(last.replace(OPEN, "") if end.answer is None else end.thought or "")
    whole = OPEN + "\n".join(thought.strip() for thought in thoughts if thought.strip())
    return whole if end.answer is None else whole + CLOSE + end.answer


def failed(result: str) -> bool:
    """Tell whether a tool's result begins as an error, as toolboxes, TRL and Python write one.

    >>> failed("error: division by zero"), failed("{'error': 'no'}"), failed("ZeroDivisionError: x"), failed("no error: 3")
    (True, True, True, False)
    """
    return _FAILED.match(result) is not None


def without_nulls(value: Any) -> Any:
    """Return a message without the fields that Arrow fills with None where other rows have them; a call's arguments stay."""
    if isinstance(value, dict):
        return {
            name: part if name == "arguments" else without_nulls(part)
            for name, part in value.items()
            if part is not None
        }
    return [without_nulls(part) for part in value] if isinstance(value, list) else value


def boxes(text: str) -> list[tuple[int, int, str]]:
    r"""Return the outermost balanced `\boxed{}` of a text as `(start, end, content)`, in linear time."""
    found: list[tuple[int, int, str]] = []
    stack: list[tuple[int, int]] = []  # (where a box starts or -1, where its content starts)
    for match in re.finditer(r"\\boxed\s*\{|\\\\|\\[{}]|[{}]", text):
        token = match.group()
        if token.startswith("\\boxed"):
            stack.append((match.start(), match.end()))
        elif token == "{" and stack:
            stack.append((-1, match.end()))
        elif token == "}" and stack:
            start, inside = stack.pop()
            if start >= 0:
                while found and found[-1][0] > start:
                    found.pop()  # a box inside this one
                found.append((start, match.end(), text[inside : match.start()]))
    return found


def last_boxed(text: str) -> str | None:
    r"""Return what stands in a text's last balanced `\boxed{}`, or None.

    >>> last_boxed(r"so \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
    """
    found = boxes(text)
    return found[-1][2].strip() if found else None
