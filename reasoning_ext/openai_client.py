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
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0  # seconds before the first retry, and at most before any
CONNECT_SECONDS = 10.0
IDLE_SECONDS = 2.0  # servers close idle connections after 5 s: a request sent just then would be lost
SHOWN_CHARACTERS = 500
ENDINGS = {"eos_token": "stop", "stop_sequence": "stop", "end_turn": "stop", "max_tokens": "length"}  # what some say


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
        finish_reason: `stop`, `length`, ..., by these names whatever the server calls them; None where the server does not tell.
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
    """Read a response of status 200, or return None where it holds no reply."""
    try:
        data = response.json()
        choice = data["choices"][0]
        message = choice["message"]
        content, usage = message.get("content"), data.get("usage") or {}
        thoughts = [message.get(name) for name in ("reasoning_content", "reasoning")]
        tokens = usage.get("completion_tokens")
        reason = choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if not isinstance(content, str | None):
        return None
    thought = next((text for text in thoughts if isinstance(text, str) and text.strip()), "")
    reason = ENDINGS.get(str(reason), str(reason)) if reason else None
    return Reply(content or "", thought, reason, tokens if isinstance(tokens, int) else 0)


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
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _key(api_key_env: str) -> str:
    return os.environ.get(api_key_env, "").strip()
