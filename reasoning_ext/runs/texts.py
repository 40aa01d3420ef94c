"""Prompts and completions as a person is shown them: their text, thought and answer apart, the middle of long ones left out."""

from typing import Any

from reasoning_ext import think

LONGEST = 4000  # characters shown of one text


def split_text(completion: Any) -> think.Parts:
    """Take a completion apart for showing; a thought that was never closed is shown as one, without an answer."""
    whole = text(completion)
    parts = think.split(whole)
    thought = whole.partition(think.OPEN)[2] if parts.answer is None else parts.thought
    return think.Parts(*(None if part is None else shortened(part) for part in (thought, parts.answer)))


def text(prompt: Any) -> str:
    """Return a prompt's or a completion's text: the string itself, or its messages, with roles if there are several."""
    if not isinstance(prompt, list):
        return str(prompt)
    messages = [m if isinstance(m, dict) else {"content": m} for m in prompt]
    contents = [str(m.get("content") or "") for m in messages]
    if len(messages) == 1:
        return contents[0]
    return "\n".join(f"{m.get('role', '')}: {content}" for m, content in zip(messages, contents, strict=True))


def shortened(long: str, most: int = LONGEST) -> str:
    """Leave the middle of a long text out, and say so."""
    half = most // 2
    return (
        long if len(long) <= most else f"{long[:half]}\n[… {len(long) - most:,} characters left out …]\n{long[-half:]}"
    )
