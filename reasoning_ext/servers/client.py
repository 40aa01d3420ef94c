"""Requests to OpenAI-compatible servers through the openai SDK, for the engine `server` and the reward `llm_judge`.

The SDK builds the requests, repeats what may pass and waits for longer each time, or as Retry-After says. What it does not do
is done where it sends: each try goes to the endpoint with the least to do, may take so many seconds in all, and brings a reply
or is an error, also where a server puts one under status 200; a redirect is not followed, and nothing is told of this machine.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import openai

from reasoning_ext.servers.replies import (
    Reply,
    answered,
    api_key,
    body_of,
    is_page,
    read_reply,
    redacted,
    shown_url,
    status_of,
    temporary,
    writable,
)

# the SDK's HTTP library, httpx or httpx2 by its version
httpx: Any = importlib.import_module(type(openai.DEFAULT_CONNECTION_LIMITS).__module__.partition(".")[0])

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 2.0  # servers close idle connections after 5 s: a request sent just then would be lost
WAIT_SECONDS = 0.02
UNSENT = ("x-stainless-", "openai-")  # headers that tell of this machine and of accounts in its environment
RAW_RESPONSE = "x-stainless-raw-response"  # the SDK's note to itself
NO_REPLY, TOO_EARLY = "no reply", "http 429"
PROBE = [{"role": "user", "content": "1+1="}]  # finds out whether a server answers, at the price of one token


class FaultError(Exception):
    """No try brought a reply: `error` says why in a word or two, `said` what the last one brought."""

    def __init__(self, error: str, said: str):
        super().__init__(said)
        self.error, self.said = error, said


class RefusedError(FaultError):
    """The request would be refused again: `error` is `http 404`, for example; `http 200` where a page came."""


class _TryError(httpx.RequestError):
    """One try brought no reply; the SDK repeats it as it does a broken connection."""

    def __init__(self, fault: FaultError):
        super().__init__(fault.said)
        self.fault = fault


@dataclass(eq=False)
class Endpoint:
    """A server that can be asked."""

    url: str  # up to and with `/v1`, without a slash at the end
    active: int = 0  # tries under way
    sent: int = 0  # tries so far
    failures: int = 0  # tries that failed since the last that did not
    failing_since: float | None = None  # when they began to
    problem: str = ""  # what the last failure was

    def said(self) -> str:
        return f"{shown_url(self.url)} {self.problem}"


class Server:
    """One or several endpoints that serve the same model; `aclose` closes its connections.

    Args:
        urls: of the endpoints, up to and with `/v1`.
        api_key_env: the environment variable that holds the key, if there is one.
        request_timeout: seconds that one try may take in all.
        max_retries: how often a request is repeated after a time-out, a broken connection, 408, 429, 5xx or no reply.
        max_concurrency: tries under way at once at each endpoint.
        alone_after: an endpoint is left alone when so many tries have failed in a row, until `probe` finds that it answers.
    """

    def __init__(
        self,
        urls: Sequence[str],
        api_key_env: str,
        request_timeout: float,
        max_retries: int = 0,
        max_concurrency: float = math.inf,
        alone_after: float = math.inf,
    ):
        self.endpoints = [Endpoint(url.rstrip("/")) for url in urls]
        self.api_key_env, self.request_timeout = api_key_env, request_timeout
        self.max_concurrency, self.alone_after = max_concurrency, alone_after
        self.answered_at = time.monotonic()  # when a request or a probe last was
        self.limited_since: float | None = None  # since when 429 has been all that the server says
        self.responded = self.served = False  # with whatever status; with status 200 and no error
        self._sdk = openai.AsyncOpenAI(
            api_key=api_key(api_key_env) or "none",  # which is not sent
            base_url="http://endpoint",
            timeout=openai.Timeout(request_timeout, connect=min(CONNECT_SECONDS, request_timeout)),
            max_retries=max_retries,
            http_client=_Client(self),
        )

    async def aclose(self) -> None:
        await self._sdk.close()

    async def ask(self, body: dict[str, Any]) -> Reply:
        """Send a request for one chat completion, in as many tries as it may have.

        Raises:
            FaultError: none brought a reply.
            RefusedError: any other status, or a page in the place of a reply.
        """
        messages = json.loads(writable(json.dumps(body["messages"], ensure_ascii=False)))
        more = {name: value for name, value in body.items() if name not in ("model", "messages")}
        create = self._sdk.chat.completions.with_raw_response.create
        return (await self._answer(create(model=body["model"], messages=messages, extra_body=more))).extensions["reply"]

    async def models(self) -> list[str] | None:
        """Return the names of the models that the server lists, None where it has no such list; raises as `ask`."""
        response = await self._answer(self._sdk.models.with_raw_response.list())
        with suppress(LookupError, TypeError):
            return [str(entry["id"]) for entry in body_of(response)["data"]]
        return None

    async def _answer(self, request: Awaitable[Any]) -> Any:
        """Return the HTTP response to a request of the SDK's."""
        try:
            return (await request).http_response
        except openai.APIStatusError as error:
            found = error.response.extensions
            kind = FaultError if temporary(found["status"]) else RefusedError
            raise kind(f"http {found['status']}", found["said"]) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__
            other = redacted(f"{type(cause).__name__} {cause}", self.api_key_env)
            raise (cause.fault if isinstance(cause, _TryError) else FaultError("connection", other)) from None

    async def probe(self, endpoint: Endpoint, model: str) -> None:
        """Ask one endpoint for a single token, and note whether it answers; it may refuse it, or say what is no reply."""
        seconds = min(CONNECT_SECONDS, self.request_timeout)
        async with aclosing(Server([endpoint.url], self.api_key_env, seconds)) as server:
            try:
                await server.ask({"model": model, "messages": PROBE, "max_tokens": 1})
            except FaultError as error:
                endpoint.problem = server.endpoints[0].problem
                self.limited_since = self.limited_since or server.limited_since
                if not isinstance(error, RefusedError) and error.error != NO_REPLY:
                    return self._fails(endpoint, time.monotonic())
        return self._works(endpoint)

    def alone(self) -> list[Endpoint]:
        """Return the endpoints that are left alone."""
        return [endpoint for endpoint in self.endpoints if endpoint.failures >= self.alone_after]

    def dead_for(self) -> float:
        """Return for how many seconds every endpoint has failed; 0.0 if one is not left alone."""
        since = [endpoint.failing_since for endpoint in self.alone() if endpoint.failing_since is not None]
        return time.monotonic() - max(since) if len(since) == len(self.endpoints) else 0.0

    def problems(self) -> str:
        """Return what each endpoint's last failure was, in one line."""
        return "; ".join(dict.fromkeys(endpoint.said() for endpoint in self.endpoints if endpoint.problem))

    async def send(self, request: Any, once: Callable[[], Awaitable[Any]]) -> Any:
        """Send one try of the SDK's, `once`, to an endpoint, and return a response that can be judged by its status.

        Raises:
            _TryError: there is none, or none with a reply.
        """
        endpoint, began = await self._free(), time.monotonic()
        request.url = httpx.URL(endpoint.url + request.url.path)
        for name in [name for name in request.headers if name.startswith(UNSENT) and name != RAW_RESPONSE]:
            del request.headers[name]
        if not api_key(self.api_key_env):
            del request.headers["authorization"]
        request.headers["host"] = request.url.netloc.decode("ascii")
        endpoint.active += 1
        endpoint.sent += 1
        try:
            async with asyncio.timeout(self.request_timeout):
                response = await once()
        except (httpx.RequestError, OSError) as error:
            is_late = isinstance(error, (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout))
            endpoint.problem = redacted(f"gave no answer: {type(error).__name__} {error}".strip(), self.api_key_env)
            self._fails(endpoint, began)
            raise _TryError(FaultError("time-out" if is_late else "connection", endpoint.said())) from error
        finally:
            endpoint.active -= 1
        self.responded = True
        return self._judged(endpoint, began, response, request.url.path.endswith("/completions"))

    def _judged(self, endpoint: Endpoint, began: float, response: Any, for_reply: bool) -> Any:
        """Note what a response says of its endpoint, and make it a reply, or an error by its status.

        Raises:
            _TryError: it is no reply under status 200.
        """
        data = body_of(response)
        status = status_of(response.status_code, data)
        self.served |= status == 200 and not (isinstance(data, dict) and "choices" not in data)
        reply = read_reply(data) if status == 200 else None
        response.extensions["reply"] = reply
        if reply is not None or (status == 200 and not for_reply):
            self._works(endpoint)
            return response
        endpoint.problem = answered(response, self.api_key_env)
        response.extensions |= {"status": status, "said": endpoint.said()}
        if status == 429:
            self.limited_since = self.limited_since or time.monotonic()
        elif temporary(status) or (status == 200 and not is_page(response)):
            self._fails(endpoint, began)
            if status == 200:
                raise _TryError(FaultError(NO_REPLY, endpoint.said()))
        response.status_code = 404 if status < 300 else status  # a success is none without a reply
        return response

    def _works(self, endpoint: Endpoint) -> None:
        endpoint.failures, endpoint.failing_since = 0, None
        self.answered_at, self.limited_since = time.monotonic(), None

    def _fails(self, endpoint: Endpoint, began: float) -> None:
        """Note that a try failed; one that hung for long says nothing of when the endpoint began to."""
        endpoint.failures += 1
        if endpoint.failing_since is None:
            endpoint.failing_since = max(began, time.monotonic() - CONNECT_SECONDS)

    async def _free(self) -> Endpoint:
        """Wait for an endpoint with room for a try; of several, return one that does not fail and has the least to do."""
        while True:
            able = [e for e in self.endpoints if e.active < self.max_concurrency and e.failures < self.alone_after]
            if able:
                return min(able, key=lambda endpoint: (endpoint.failures > 0, endpoint.active, endpoint.sent))
            await asyncio.sleep(WAIT_SECONDS)


class _Client(openai.DefaultAsyncHttpxClient):
    """The SDK's HTTP client, which sends as a `Server` says."""

    def __init__(self, server: Server):
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE_SECONDS)
        super().__init__(limits=limits, follow_redirects=False, verify=_certificates())
        self._server = server

    async def send(self, request: Any, **kwargs: Any) -> Any:
        return await self._server.send(request, partial(super().send, request, **kwargs))


@cache
def _certificates() -> Any:
    """Load the certificates once, which takes a tenth of a second."""
    return httpx.create_ssl_context()
