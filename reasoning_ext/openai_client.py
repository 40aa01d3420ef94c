"""What the reward `llm_judge` and the engine `server` share: requests to OpenAI-compatible servers and how to read them.

The HTTP library is imported when the first request is made, so that settings can be checked without it. What it raises
leaves here as `NoAnswerError`, and no message holds a key or a password.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from reasoning_ext.shown import without_secrets

FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0  # seconds before the first retry, and at most before any
CONNECT_SECONDS = 10.0
IDLE_SECONDS = 2.0  # servers close idle connections after 5 s: a request sent just then would be lost
SHOWN_CHARACTERS = 500
ENDINGS = {  # what some say, in whatever case
    "stop": ("eos", "eos_token", "stop_sequence", "stop_token", "stop_str", "end_turn", "end_of_turn", "complete", "completed",
             "done", "finish", "finished", "normal"),
    "length": ("max_tokens", "max_length", "max_new_tokens", "max_output_tokens", "max_completion_tokens", "model_length",
               "token_limit", "context_length", "context_length_exceeded", "model_context_window_exceeded", "incomplete"),
    "content_filter": ("safety", "content_filtered", "error_toxic", "prohibited_content", "recitation", "blocklist", "spii"),
}  # fmt: skip
UNTOLD = ("", "none", "null", "unknown", "unspecified", "finish_reason_unspecified")
THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")  # fields of a message


class NoAnswerError(Exception):
    """A request got no status at all; `kind` is `time-out` or `connection`."""

    def __init__(self, kind: str, problem: str):
        super().__init__(problem)
        self.kind = kind


class Reply(NamedTuple):
    """What a model said.

    Attributes:
        content: "" where there is none.
        reasoning: the thought that the server took out of the content, or "".
        finish_reason: `stop`, `length`, `refusal`, ..., by these names whatever the server calls them; None where it does not
            tell.
        tokens: of the completion; 0 where the server does not tell.
    """

    content: str
    reasoning: str
    finish_reason: str | None
    tokens: int


def httpx() -> Any:
    """Import the HTTP library that huggingface_hub brings along: httpx2 with its version 2, httpx with version 1."""
    try:
        import httpx2
    except ImportError:
        import httpx

        return httpx
    return httpx2


def open_client(api_key_env: str, request_timeout: float) -> Any:
    """Return an `AsyncClient` that sends the key, without a bound of its own on connections."""
    library = httpx()
    timeout = library.Timeout(request_timeout, connect=min(CONNECT_SECONDS, request_timeout))
    limits = library.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE_SECONDS)
    return library.AsyncClient(headers=authorization(api_key_env), timeout=timeout, limits=limits)


async def post(client: Any, base_url: str, body: dict[str, Any], seconds: float) -> Any:
    """Send one request for a chat completion, once, and return the response whatever its status.

    Args:
        client: of `open_client`.
        base_url: the server, up to and with `/v1`, without a slash at the end.
        body: the request.
        seconds: that it may take in all; the client's are for each read.

    Raises:
        NoAnswerError: the time is over, or the connection is refused or broken.
    """
    content, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    try:
        async with asyncio.timeout(seconds):
            return await client.post(f"{base_url}/chat/completions", content=content, headers=headers)
    except (httpx().RequestError, TimeoutError) as error:
        connecting = isinstance(error, httpx().ConnectTimeout)
        late = isinstance(error, TimeoutError | httpx().TimeoutException) and not connecting
        problem = f"{type(error).__name__} {error}".strip()
        raise NoAnswerError("time-out" if late else "connection", problem) from error


def probe_body(model: str) -> dict[str, Any]:
    """Return a request that finds out whether a server answers, at the price of one token."""
    return {"model": model, "messages": [{"role": "user", "content": "1+1="}], "max_tokens": 1}


def temporary(status: int) -> bool:
    """Tell whether the same request may be answered later: after a time-out, too many requests, a fault of the server."""
    return status in (408, 429) or status >= 500


def retry_delay(attempt: int, retry_after: str = "") -> float:
    """Return the seconds until the next try: twice as many each time, or what the server asks; never all at once.

    Args:
        attempt: how many tries there were before the last.
        retry_after: the header of that name, seconds or a date, or "".
    """
    seconds = FIRST_DELAY * 2 ** min(attempt, 16)
    if retry_after.isdecimal():
        seconds = max(seconds, float(retry_after))
    elif retry_after:
        with suppress(ValueError):
            seconds = max(seconds, parsedate_to_datetime(retry_after).timestamp() - time.time())
    return min(seconds, LONGEST_DELAY) * random.uniform(1.0, 1.25)


def read_reply(response: Any) -> Reply | None:
    """Read a response of status 200, or return None where it holds no reply, or an error in its place or beside it."""
    try:
        data = response.json()
        choice = data["choices"][0]
        message = choice["message"]
        said, usage = list(_parts(message.get("content"))), data.get("usage") or {}
        content = "".join(text for thought, text in said if not thought)
        thoughts = ["\n\n".join(text for thought, text in said if thought)]
        thoughts += ["".join(text for _, text in _parts(message.get(name), thought=True)) for name in THOUGHTS]
        tokens = usage.get("completion_tokens")
        reason = _ending(choice.get("finish_reason"))
        refusal, failed = message.get("refusal"), data.get("error") or choice.get("error") or reason == "error"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if failed:
        return None
    if isinstance(refusal, str) and refusal.strip() and not content.strip():
        content, reason = refusal, "refusal"
    elif message.get("tool_calls") and reason in ("stop", None):
        reason = "tool_calls"
    thought = next((text for text in thoughts if text.strip()), "")
    return Reply(content, thought, reason, tokens if isinstance(tokens, int) else 0)


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
    if isinstance(reason, list):
        reason = reason[0] if reason else None
    if isinstance(reason, dict):
        reason = reason.get("type") or reason.get("reason")
    word = str(reason or "").strip()
    plain = (
        word.lower().replace("-", "_").replace(" ", "_").removeprefix("finish_reason_").removeprefix("finishreason.")
    )
    return next((name for name, said in ENDINGS.items() if plain in (name, *said)), None if plain in UNTOLD else word)


def status_of(response: Any) -> int:
    """Return a response's status; of one with 200 whose body is an error with a status of its own, that one."""
    with suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        data = response.json()
        data = data[0] if isinstance(data, list) else data
        error = data if data.get("object") == "error" else data["error"]
        code = int(error.get("code") or error.get("status") or 0)
        if response.status_code == 200 and "choices" not in data and 400 <= code <= 599:
            return code
    return int(response.status_code)


def is_page(response: Any) -> bool:
    """Tell whether a response is a page or a stream, which no server gives in the place of one completion by accident."""
    return response.headers.get("content-type", "").partition(";")[0].strip() in ("text/html", "text/event-stream")


def answered(response: Any, api_key_env: str) -> str:
    """Say what a server answered, in one line without key and password."""
    to = response.headers.get("location", "")
    body = f"it is elsewhere, {shown_url(to)}" if response.is_redirect and to else response.text
    return f"answered {response.status_code}: {redacted(body, api_key_env)}"


def key_problem(api_key_env: str) -> str:
    """Return what is wrong with the key in an environment variable, or ""; the HTTP library's message would show it."""
    key = _key(api_key_env)
    return (
        ""
        if key.isascii() and key.isprintable()
        else f"the key in {api_key_env} has characters that no header may have"
    )


def authorization(api_key_env: str) -> dict[str, str]:
    """Return the header with the key, or none where the variable is not set."""
    return {"Authorization": f"Bearer {_key(api_key_env)}"} if _key(api_key_env) else {}


def redacted(text: str, api_key_env: str) -> str:
    """Return the beginning of a server's message in one line, without the key."""
    if _key(api_key_env):
        text = text.replace(_key(api_key_env), "[key]")
    return " ".join(text.split())[:SHOWN_CHARACTERS]


def shown_url(url: str) -> str:
    """Return a URL without user and password.

    >>> shown_url("https://me:secret@host:8000/v1")
    'https://host:8000/v1'
    """
    scheme, separator, rest = url.rpartition("://")
    return str(without_secrets(f"{scheme}{separator}{rest.rpartition('@')[2]}"))


def _key(api_key_env: str) -> str:
    return os.environ.get(api_key_env, "").strip()
