"""Which of several endpoints a request goes to, which are left alone because they fail, and what of their options cannot work.

A breaker opens when requests to its endpoint fail several times in a row. The one request that then finds out whether the
endpoint works again is not one of those that failed but a probe, which asks for a single token: so a prompt that breaks the
server is told apart from a server that is down, which matters when only such prompts are left. Nothing here sends anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from reasoning_ext.engines.options import ServerOptions
from reasoning_ext.generation import EngineError
from reasoning_ext.openai_client import CONNECT_SECONDS, key_problem, shown_url

FAILURES_IN_A_ROW = 4
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 5.0  # seconds; a dead endpoint's last probe must fall near the end of give_up_seconds
EMPTY, TOO_EARLY = "empty", "http 429"  # errors that do not say that the server is broken
NO_REPLY = "no reply"  # status 200 with something else


class Failure(NamedTuple):
    """Why a try brought no reply, in a word or two, and the server's header Retry-After."""

    error: str
    retry_after: str = ""


class Breaker:
    """Tells whether an endpoint is to be left alone: closed while it works, open for pauses that grow while it does not.

    Attributes:
        open: it is left alone.
        failures: requests that failed since the last that did not.
        failing_since: when they began to, or None.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.open = False
        self.failures = 0
        self.failing_since: float | None = None
        self._pause, self._probe_at = FIRST_PAUSE, 0.0

    def succeeded(self) -> None:
        """Note that a request was answered."""
        self.probe_succeeded()
        self._pause = FIRST_PAUSE

    def failed(self, seconds: float = 0.0) -> None:
        """Note that a request failed after so many seconds; one that hung for long says nothing of when it began to."""
        if self.failing_since is None:
            self.failing_since = self.clock() - min(seconds, CONNECT_SECONDS)
        self.failures += 1
        if not self.open and self.failures >= FAILURES_IN_A_ROW:
            self.open, self._probe_at = True, self.clock() + self._pause

    def due(self) -> bool:
        """Tell whether the pause is over, so that one probe may be sent."""
        return self.open and self.clock() >= self._probe_at

    def probe_succeeded(self) -> None:
        """Close; the next pause is no shorter than the last until a request is answered as well."""
        self.open, self.failures, self.failing_since = False, 0, None

    def probe_failed(self) -> None:
        """Leave the endpoint alone for longer."""
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._probe_at = self.clock() + self._pause


@dataclass(eq=False)
class Endpoint:
    """A server that can be asked.

    Attributes:
        url: up to and with `/v1`, without a slash at the end.
        active: requests under way.
        sent: requests so far.
        problem: what the last failure was.
    """

    url: str
    breaker: Breaker
    active: int = 0
    sent: int = 0
    problem: str = ""


class Endpoints:
    """The endpoints that serve one model.

    Args:
        urls: of each endpoint.
        max_concurrency: requests under way at once at each.
        clock: in seconds.

    Attributes:
        answered_at: when one of them last answered.
    """

    def __init__(self, urls: Sequence[str], max_concurrency: int, clock: Callable[[], float] = time.monotonic):
        self.all = [Endpoint(url.rstrip("/"), Breaker(clock)) for url in urls]
        self.max_concurrency, self.clock = max_concurrency, clock
        self.answered_at = clock()
        self._limited_since: float | None = None

    def choose(self, avoid: Endpoint | None = None) -> Endpoint | None:
        """Return the endpoint with the fewest requests under way, one that is not `avoid` if possible; None if none is free."""
        free = [e for e in self.all if not e.breaker.open and e.active < self.max_concurrency]
        return min(free, key=lambda e: (e is avoid, e.active, e.sent), default=None)

    def answered(self) -> None:
        """Note that an endpoint has answered a request or a probe."""
        self.answered_at, self._limited_since = self.clock(), None

    def limited(self) -> float:
        """Note that an endpoint has too much to do, and return for how many seconds that has been all that they say."""
        if self._limited_since is None:
            self._limited_since = self.clock()
        return self.clock() - self._limited_since

    def dead_for(self) -> float:
        """Return for how many seconds every endpoint has failed; 0.0 if one is not left alone."""
        since = [e.breaker.failing_since for e in self.all if e.breaker.open and e.breaker.failing_since is not None]
        return self.clock() - max(since) if len(since) == len(self.all) else 0.0

    def problems(self) -> str:
        """Return what each endpoint's last failure was, in one line."""
        return "; ".join(dict.fromkeys(f"{shown_url(e.url)} {e.problem}" for e in self.all if e.problem))

    def given_up(self, what: str, advice: str) -> EngineError:
        """Return the error that ends a run."""
        problems = f" ({self.problems()})" if self.problems() else ""
        return EngineError("engine_kwargs", f"{what}{problems}; {advice}, and run again to go on")


def refused(endpoint: Endpoint, status: int, api_key_env: str) -> EngineError:
    """Return the error for a request that would be refused again, after `endpoint.problem` has been noted."""
    wrong_model = status == 404 and "model" in endpoint.problem.lower()
    hints = {401: f"; the key is read from the environment variable {api_key_env}"}
    hints |= {403: hints[401], 404: "" if wrong_model else "; base_url has to end with /v1 on most servers"}
    hints |= {200: hints[404]}
    problem = f"{shown_url(endpoint.url)} {endpoint.problem}{hints.get(status, '')}"
    return EngineError("model_name_or_path" if wrong_model else "engine_kwargs", problem)


def base_urls(options: ServerOptions) -> list[str]:
    """Return the endpoints of `base_url`, which is one or a list."""
    return options.base_url if isinstance(options.base_url, list) else [options.base_url]


def server_problems(options: ServerOptions) -> list[tuple[str, str, str]]:
    """Return what cannot work in an engine's options before anything is loaded or asked: `(option, found, allowed)` each."""
    urls = base_urls(options)
    problems = [] if urls else [("base_url", "found an empty list", "a URL, or several")]
    problems += [("base_url", *wrong) for url in urls if (wrong := _url_problem(url))]
    if len(set(map(str, urls))) < len(urls):
        allowed = "each once, max_concurrency says how much it is asked"
        problems.append(("base_url", "found an endpoint twice", allowed))
    numbers = {"max_concurrency": 1, "max_retries": 0, "request_timeout": None, "give_up_seconds": None}
    for name, least in numbers.items():
        value = getattr(options, name)
        allowed = "a number greater than 0" if least is None else f"a whole number of at least {least}"
        right_type = isinstance(value, int if least is not None else int | float) and not isinstance(value, bool)
        if not right_type or not (value > 0 if least is None else value >= least):
            problems.append((name, f"found {value!r}", allowed))
    if key_problem(options.api_key_env):
        problems.append(("api_key_env", f"{key_problem(options.api_key_env)}; set it again", ""))
    return problems


def _url_problem(url: object) -> tuple[str, str] | None:
    """Return what is wrong with an endpoint's URL; what may be a password is not shown."""
    allowed = "http://host:port/v1 or https://host/v1"
    if not isinstance(url, str):
        return f"found {url!r}", allowed
    try:
        parts = urlsplit(url)
        found, well_formed = shown_url(url), bool(parts.hostname) and parts.port != 0
    except ValueError:
        return "found a URL with a host or port that cannot be", allowed
    if parts.scheme not in ("http", "https") or not well_formed or parts.query or parts.fragment or url != url.strip():
        return f"found {found!r}", allowed
    if parts.path.rstrip("/").endswith("/completions"):
        return f"found {found!r}", f"{allowed}, the rest is added"
    return None
