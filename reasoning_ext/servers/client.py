"""Requests to OpenAI-compatible servers through the openai SDK, for the engine `server` and the reward `llm_judge`.

The SDK builds the requests, repeats what may pass and waits for longer each time, or as Retry-After says. What it does not do
is done where it sends: each try goes to the endpoint with the least to do, may take so many seconds in all, and gets the status
that it should have had where a server says 200 and sends no reply; nothing is told of this machine.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import openai

from reasoning_ext.servers.replies import (
    Reply,
    api_key,
    error_status,
    read_body,
    read_reply,
    redacted,
    shown_url,
    writable,
)

# the SDK's HTTP library, httpx or httpx2 by its version
httpx: Any = importlib.import_module(type(openai.DEFAULT_CONNECTION_LIMITS).__module__.partition(".")[0])

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 2.0  # servers close idle connections after 5 s: a request sent just then would be lost
ALONE_SECONDS = 30.0  # that an endpoint which has failed is left alone while another one answers
UNSENT = ("x-stainless-", "openai-")  # headers that tell of this machine and of accounts in its environment
NO_REPLY, TOO_EARLY = "no reply", "http 429"
_certificates = cache(httpx.create_ssl_context)  # which takes a tenth of a second
PAGES = ("text/html", "text/event-stream")  # which no server sends in the place of one completion by accident


class FaultError(Exception):
    """No try brought a reply: `error` says why in a word or two, `said` what the last one brought."""

    def __init__(self, error: str, said: str):
        super().__init__(said)
        self.error, self.said = error, said


class RefusedError(FaultError):
    """The request would be refused again: `error` is `http 404`, for example, also where a page came."""

    def advice(self, api_key_env: str) -> str:
        """Return what the server said, and what to look at where its status tells that."""
        key = f"; the key is read from the environment variable {api_key_env}"
        path = "" if "model" in self.said.lower() else "; base_url has to end with /v1 on most servers"
        return self.said + {"http 401": key, "http 403": key, "http 404": path}.get(self.error, "")


@dataclass(eq=False)
class Endpoint:
    """A server that can be asked."""

    url: str  # up to and with `/v1`, without a slash at the end
    active: int = 0  # tries under way
    failed_at: float = -math.inf  # when a try last failed, if none was answered since
    failing_since: float = math.inf  # when they began to
    problem: str = ""  # what the last failure was

    @property
    def said(self) -> str:
        return f"{shown_url(self.url)} {self.problem}"


class Server:
    """One or several endpoints that serve the same model; `aclose` closes its connections.

    Args:
        urls: of the endpoints, up to and with `/v1`.
        api_key_env: the environment variable that holds the key, if there is one.
        request_timeout: seconds that one try may take in all.
        max_retries: how often a request is repeated after a time-out, a broken connection, 408, 429, 5xx or no reply.
    """

    def __init__(self, urls: Sequence[str], api_key_env: str, request_timeout: float, max_retries: int = 0):
        self.endpoints = [Endpoint(url.rstrip("/")) for url in urls]
        self.api_key_env, self.request_timeout, self.answered_at = api_key_env, request_timeout, time.monotonic()
        # whether any response has come, whatever its status; whether any reply has
        self.responded = self.served = False
        self._sdk = openai.AsyncOpenAI(
            api_key=api_key(api_key_env) or "none",  # which is not sent
            base_url="http://endpoint",
            timeout=openai.Timeout(request_timeout, connect=min(CONNECT_SECONDS, request_timeout)),
            max_retries=max_retries,
            http_client=_Client(self),
        )

    async def aclose(self) -> None:
        await self._sdk.close()

    async def ask(self, body: dict[str, Any], options: Any = MappingProxyType({})) -> Reply:
        """Send a request for one chat completion, in as many tries as it may have; `options` are the SDK's for a request.

        Raises:
            FaultError: none brought a reply.
            RefusedError: any other status, or a page in the place of a reply.
        """
        body = json.loads(writable(json.dumps(body, ensure_ascii=False)))
        request = self._sdk.post("/chat/completions", body=body, cast_to=httpx.Response, options=options)
        try:
            return (await request).extensions["reply"]
        except openai.APIStatusError as error:
            status, found = error.response.status_code, error.response.extensions
            kind = FaultError if status in (408, 429) or status >= 500 else RefusedError
            raise kind(found.get("error", f"http {status}"), found["said"]) from None
        except openai.APIConnectionError as error:
            what = "time-out" if isinstance(error, openai.APITimeoutError) else "connection"
            raise FaultError(what, str(error.__cause__)) from None

    async def probe(self, model: str) -> FaultError | None:
        """Ask for one token, for ten seconds at most, and return why there is none; None also where there is too much to do."""
        body = {"model": model, "messages": [{"role": "user", "content": "1+1="}], "max_tokens": 1}
        seconds = min(CONNECT_SECONDS, self.request_timeout)
        try:
            patience = openai.Timeout(seconds, connect=seconds / 2)  # a host that swallows packets is not slow
            await self.ask(body, {"timeout": patience, "max_retries": len(self.endpoints) - 1})
        except FaultError as fault:
            return None if fault.error == TOO_EARLY else fault
        return None

    def dead_for(self) -> float:
        """Return for how many seconds every endpoint has failed, 0.0 or less if one has not."""
        return time.monotonic() - max(endpoint.failing_since for endpoint in self.endpoints)

    async def send(self, request: Any, once: Callable[[], Awaitable[Any]]) -> Any:
        """Send one try of the SDK's, `once`, to the endpoint that answers and has the least to do, and judge the response."""
        began = time.monotonic()
        recently = began - ALONE_SECONDS
        endpoint = min(self.endpoints, key=lambda one: (one.failed_at > recently, one.active))
        request.url = httpx.URL(endpoint.url + request.url.path)
        for name in [name for name in request.headers if name.startswith(UNSENT)]:
            del request.headers[name]
        if not api_key(self.api_key_env):
            del request.headers["authorization"]
        request.headers["host"] = request.url.netloc.decode("ascii")
        endpoint.active += 1
        try:
            async with asyncio.timeout(request.extensions["timeout"]["read"]):
                response = await once()
        except (httpx.RequestError, OSError) as error:
            endpoint.problem = redacted(f"gave no answer: {type(error).__name__} {error}".strip(), self.api_key_env)
            self._fails(endpoint, began)
            is_late = isinstance(error, (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout))
            raise (httpx.ReadTimeout if is_late else httpx.ConnectError)(endpoint.said) from error
        finally:
            endpoint.active -= 1
        self.responded = True
        return self._judged(endpoint, began, response)

    def _judged(self, endpoint: Endpoint, began: float, response: Any) -> Any:
        """Note what a response says of its endpoint, and give it the status that it should have."""
        found, data, status = response.extensions, read_body(response), response.status_code
        if response.is_success and (reply := read_reply(data)):
            found["reply"], self.served, self.answered_at = reply, True, time.monotonic()
            endpoint.failed_at, endpoint.failing_since = -math.inf, math.inf
            return response
        to, is_page = response.headers.get("location"), response.headers.get("content-type", "").startswith(PAGES)
        said = f"it is elsewhere, {shown_url(to)}" if response.is_redirect and to else response.text
        endpoint.problem = f"answered {status}: {redacted(said, self.api_key_env)}"
        found["said"] = endpoint.said
        if response.is_success:
            response.status_code = status = error_status(data) or (404 if is_page else 502)
            found["error"] = f"http {status}" if error_status(data) or is_page else NO_REPLY
        if status == 408 or status >= 500:
            self._fails(endpoint, began)
        return response

    def _fails(self, endpoint: Endpoint, began: float) -> None:
        """Note that a try failed; one that hung for long says nothing of when the endpoint began to."""
        endpoint.failed_at = time.monotonic()
        endpoint.failing_since = min(endpoint.failing_since, max(began, endpoint.failed_at - CONNECT_SECONDS))


class _Client(openai.DefaultAsyncHttpxClient):
    """The SDK's HTTP client, which sends as a `Server` says."""

    def __init__(self, server: Server):
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE_SECONDS)
        super().__init__(limits=limits, follow_redirects=False, verify=_certificates())
        self._server = server

    async def send(self, request: Any, **kwargs: Any) -> Any:
        return await self._server.send(request, partial(super().send, request, **kwargs))
