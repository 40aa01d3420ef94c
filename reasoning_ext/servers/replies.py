"""What OpenAI-compatible servers answer, read as what it is, and said without keys and passwords; nothing here sends anything."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from reasoning_ext.shown import without_secrets

SHOWN_CHARACTERS = 500
ENDINGS = {  # what some say, in whatever case; "" where that tells nothing
    "stop": "eos eos_token stop_sequence stop_token stop_str end_turn end_of_turn complete completed done finish finished normal",
    "length": "max_tokens max_length max_new_tokens max_output_tokens max_completion_tokens model_length token_limit incomplete "
    "context_length context_length_exceeded model_context_window_exceeded",
    "tool_calls": "tool_call tool_use function_call",
    "content_filter": "safety content_filtered error_toxic prohibited_content recitation blocklist spii",
    "": "none null unknown unspecified",
}
THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")  # fields of a message


class Reply(NamedTuple):
    """What a model said."""

    content: str  # "" where there is none
    reasoning: str  # the thought that the server took out of the content, or ""
    # `stop`, `length`, `refusal`, ..., whatever the server calls them; None where it does not tell
    finish_reason: str | None
    tokens: int  # of the completion; 0 where the server does not tell
    logprob: float | None = None  # mean log-probability of its tokens; None where the server does not tell
    calls: tuple[
        tuple[str, str], ...
    ] = ()  # of tools, which the server took out of the content: name, arguments as JSON


def read_body(response: Any) -> Any:
    """Return what the JSON of a response holds, or None where it is none."""
    with suppress(ValueError, RecursionError):
        return response.json()
    return None


def read_reply(data: Any) -> Reply | None:
    """Read the body of a response, or return None where it holds no reply, or an error in its place or beside it."""
    try:
        choice = data["choices"][0]
        message, usage = choice["message"], data.get("usage") or {}
        said = list(_parts(message.get("content")))
        thoughts = ["\n\n".join(text for thought, text in said if thought)]
        thoughts += ["".join(text for _, text in _parts(message.get(name), thought=True)) for name in THOUGHTS]
        tokens, reason = usage.get("completion_tokens"), _ending(choice.get("finish_reason"))
        logprobs = [float(token["logprob"]) for token in (choice.get("logprobs") or {}).get("content") or []]
        calls = tuple(_call(call["function"]) for call in message.get("tool_calls") or [] if call.get("function"))
        refusal, failed = message.get("refusal"), data.get("error") or choice.get("error") or reason == "error"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if failed:
        return None
    content = "".join(text for thought, text in said if not thought)
    if isinstance(refusal, str) and refusal.strip() and not content.strip():
        content, reason = refusal, "refusal"
    elif message.get("tool_calls") and reason in ("stop", None):
        reason = "tool_calls"
    thought = next((text for text in thoughts if text.strip()), "")
    mean = sum(logprobs) / len(logprobs) if logprobs else None
    return Reply(content, thought, reason, tokens if isinstance(tokens, int) else 0, mean, calls)


def _call(function: Any) -> tuple[str, str]:
    """Return a call's name and its arguments as JSON, which some servers have read already."""
    said = function.get("arguments")
    return str(function["name"]), said if isinstance(said, str) else json.dumps(said or {}, ensure_ascii=False)


def _parts(value: Any, thought: bool = False) -> Iterator[tuple[bool, str]]:
    """Yield the texts of a content, which is one or a list of parts, and whether each is a thought.

    >>> list(_parts([{"type": "thinking", "thinking": [{"type": "text", "text": "1+1"}]}, {"type": "text", "text": "2"}]))
    [(True, '1+1'), (False, '2')]
    """
    if isinstance(value, str):
        yield thought, value
    elif isinstance(value, list):
        for part in value:
            yield from _parts(part, thought)
    elif isinstance(value, dict):
        kind = str(value.get("type") or "text")
        thought = thought or "think" in kind or "reason" in kind
        if not thought and "text" not in kind:
            raise TypeError(f"a part of type {kind}")
        names = ("thinking", "text", "reasoning", "summary", "content", "value")
        yield from _parts(next((value[name] for name in names if value.get(name)), ""), thought)
    elif value is not None and not thought:
        raise TypeError(f"a content that is {value!r}")


def _ending(reason: Any) -> str | None:
    """Return why a completion ended: a name of `ENDINGS`, else the server's own word; None where it does not tell.

    >>> _ending("STOP"), _ending(["eos"]), _ending({"type": "length"}), _ending("abort"), _ending(None)
    ('stop', 'stop', 'length', 'abort', None)
    """
    reason = (reason or [None])[0] if isinstance(reason, list) else reason
    reason = reason.get("type") or reason.get("reason") if isinstance(reason, dict) else reason
    word = str(reason or "").strip()
    plain = re.sub(r"^finish_?reason[_.]|\W", lambda found: "_" * (len(found[0]) == 1), word.lower())
    return next((name for name, said in ENDINGS.items() if plain in (name, *said.split())), word) or None


def error_status(data: Any) -> int:
    """Return the status that an error under status 200 has of its own, 0 where the body is none, or has none."""
    with suppress(ValueError, LookupError, TypeError, AttributeError, OverflowError):
        data = data[0] if isinstance(data, list) else data
        error = data if data.get("object") == "error" else data["error"]
        code = int(error.get("code") or error.get("status") or 0)
        return code if "choices" not in data and 400 <= code <= 599 else 0
    return 0


def writable(text: str) -> str:
    """Replace halves of surrogate pairs, which JSON may hold and no file in UTF-8 can."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def api_key(api_key_env: str) -> str:
    """Return the key in an environment variable, or "" where it is not set."""
    return os.environ.get(api_key_env, "").strip()


def key_problem(api_key_env: str) -> str:
    """Return what is wrong with the key in an environment variable, or ""; the HTTP library's message would show it."""
    key = api_key(api_key_env)
    sendable = key.isascii() and key.isprintable()
    return "" if sendable else f"the key in {api_key_env} has characters that no header may have"


def redacted(text: str, api_key_env: str) -> str:
    """Return the beginning of a server's message in one line, without the key."""
    if api_key(api_key_env):
        text = text.replace(api_key(api_key_env), "[key]")
    return " ".join(text.split())[:SHOWN_CHARACTERS]


def shown_url(url: str) -> str:
    """Return a URL without user and password.

    >>> shown_url("https://me:secret@host:8000/v1")
    'https://host:8000/v1'
    """
    scheme, separator, rest = url.rpartition("://")
    return str(without_secrets(f"{scheme}{separator}{rest.rpartition('@')[2]}"))
