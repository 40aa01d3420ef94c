"""Requests of the engine `server`: many under way at once, repeated, put back, given up; each key answered exactly once.

They are made in a thread of their own, so that they go on while the caller scores a batch. Keys are taken as there is room
for what they bring: neither a million requests nor a million unread completions exist at once.

A request is repeated after a time-out, a broken connection, 408, 429 or 5xx, at another endpoint where one is free. 429 says
that it came too early and not that it failed: it waits for longer each time, and has as many tries left as before. A request
that fails in all its tries although the server answers others is put back until all others are through, and has no completion
if it fails again. How a run ends early, always with an `EngineError` after which it can go on where it stopped:

    refused         any other status than 200, or a page in the place of a completion, at once: what is wrong with one request
                    is wrong with most
    nobody there    no endpoint has answered for `give_up_seconds`; with the default that is within 60 seconds of the death
                    of a server. One that takes requests and is silent looks like one that thinks: it is found dead when
                    several requests have taken `request_timeout`
    too much to do  429 and no answer for `give_up_seconds` and twice `request_timeout`: 429 is a sign of life, and requests
                    that are under way may still be answered
    broken          64 requests in a row failed in all their tries, or a run over more than 8 keys brought no completion;
                    unless one that was answered before is answered again: then it is the prompts that break the server
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from reasoning_ext.engines.endpoints import EMPTY, NO_REPLY, TOO_EARLY, Endpoint, Endpoints, Failure, base_urls, refused
from reasoning_ext.engines.options import ServerOptions
from reasoning_ext.generation import Completion, Key
from reasoning_ext.openai_client import (
    CONNECT_SECONDS,
    NoAnswerError,
    Reply,
    answered,
    is_page,
    open_client,
    post,
    probe_body,
    read_reply,
    redacted,
    retry_delay,
    status_of,
    temporary,
)
from reasoning_ext.shown import print

MOST_AT_ONCE = 256  # completions that are yielded together
UNREAD = 2 * MOST_AT_ONCE  # completions that may wait for the caller, besides the requests under way
MOST_IN_A_ROW = 64  # requests that fail in all their tries, one after another
FEW = 8  # keys that may all be without a completion
WATCH_SECONDS = 0.1


class InFlight:
    """One run over keys: a thread with an event loop, and the queue through which it hands over completions.

    Args:
        model: what the server calls it.
        options: see `options.ServerOptions`.
        keys: what to answer.
        body: returns the request for a key.
        completion: makes a completion of a key and its reply, or the reason why there is none.
        answered: a request that was answered in an earlier run; as an attribute, the last one.
    """

    def __init__(
        self,
        model: str,
        options: ServerOptions,
        keys: Sequence[Key],
        body: Callable[[Key], dict[str, Any]],
        completion: Callable[[Key, Reply | str], Completion],
        answered: dict[str, Any] | None = None,
    ):
        self.model, self.options, self.keys, self.body, self.completion = model, options, keys, body, completion
        self.answered = answered
        self.endpoints = Endpoints(base_urls(options), options.max_concurrency)
        self._slots = options.max_concurrency * len(self.endpoints.all)
        self._room = asyncio.Semaphore(self._slots + UNREAD)
        self._arrived: queue.SimpleQueue[Completion | None] = queue.SimpleQueue()  # None: the thread has ended
        self._waiting: deque[asyncio.Future[None]] = deque()  # for an endpoint that is free
        self._put_back: list[Key] = []
        self._failed_in_a_row = 0
        self._errors: Counter[str] = Counter()  # completions that there are not
        self._told: set[str] = set()  # errors of which the first was printed
        self._error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._main = self._loop.create_task(self._answer_all())
        self._thread = threading.Thread(target=self._run, name="requests", daemon=True)
        self._thread.start()

    def batches(self) -> Iterator[list[Completion]]:
        """Yield completions as they arrive, 1 to 256 at a time; then raise what ended the thread, if it was an error."""
        ended = False
        while not ended:
            arrived = [self._arrived.get()]
            while len(arrived) < MOST_AT_ONCE and not self._arrived.empty():
                arrived.append(self._arrived.get())
            batch = [completion for completion in arrived if completion is not None]
            ended = len(batch) < len(arrived)
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._make_room, len(batch))
            if batch:
                yield batch
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Cancel what is under way and wait until the thread has ended; may be called again."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass  # by `stop`
        except BaseException as error:  # raised to the caller, who waits in `batches`
            self._error = error
        finally:
            self._loop.close()
            self._arrived.put(None)

    def _make_room(self, completions: int) -> None:
        for _ in range(completions):
            self._room.release()

    async def _answer_all(self) -> None:
        """Answer all keys, then once more those that were put back."""
        async with open_client(self.options.api_key_env, self.options.request_timeout) as self._client:
            try:
                async with asyncio.TaskGroup() as watch:
                    watchers = [watch.create_task(self._watch(endpoint)) for endpoint in self.endpoints.all]
                    for keys, last in ((self.keys, False), (self._put_back, True)):
                        left = iter(keys)
                        async with asyncio.TaskGroup() as workers:
                            for _ in range(min(self._slots, len(keys))):
                                workers.create_task(self._work(left, last))
                    if self._errors.total() == len(self.keys) > FEW:
                        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self._errors.items()))
                        await self._check(f"none of {len(self.keys)} requests brought a completion: {kinds}")
                    for watcher in watchers:
                        watcher.cancel()
            except BaseExceptionGroup as errors:
                raise _first(errors) from None

    async def _work(self, keys: Iterator[Key], last: bool) -> None:
        """Answer one key after another until none is left; one that fails is put back if this is not its last chance."""
        while True:
            await self._room.acquire()
            key = next(keys, None)
            if key is None:
                self._room.release()
                return
            body = self.body(key)
            found = await self._answer(body)
            failed = isinstance(found, Failure) and found.error != EMPTY
            if isinstance(found, Failure) and found.error not in self._told | {EMPTY}:
                self._told.add(found.error)
                print(f"server: a completion failed ({found.error}): {self.endpoints.problems()}", file=sys.stderr)
            if failed and not last:
                self._put_back.append(key)
                self._room.release()
            else:
                self._hand_over(self.completion(key, found.error if isinstance(found, Failure) else found), body)
            self._failed_in_a_row += failed
            if self._failed_in_a_row >= MOST_IN_A_ROW:
                self._failed_in_a_row = 0
                await self._check(f"{MOST_IN_A_ROW} requests in a row failed in all their tries")

    def _hand_over(self, completion: Completion, body: dict[str, Any]) -> None:
        if completion.error:
            self._errors[completion.error] += 1
        else:
            self._failed_in_a_row, self.answered = 0, body
        self._arrived.put(completion)

    async def _check(self, what: str) -> None:
        """Repeat a request that was answered, to tell prompts that break the server from a server that is broken.

        Raises:
            EngineError: it is not answered any more, or none ever was.
        """
        if self.answered is None or isinstance(await self._answer(self.answered), Failure):
            raise self.endpoints.given_up(what, "look into the server's log")

    async def _answer(self, body: dict[str, Any]) -> Reply | Failure:
        """Send a request in as many tries as it may have.

        Where all that ever came with status 200 is no reply, an error for example, there is no use in going on. Otherwise,
        without an answer to anybody since its first try, a request cannot be told from a server that is down: it is repeated
        until a probe tells. The tries that bring 429 are not counted; `_limited` ends them.
        """
        began, tries, too_early, was_empty = self.endpoints.clock(), 0, 0, False
        endpoint: Endpoint | None = None
        while True:
            endpoint = await self._take(endpoint)
            try:
                found = await self._ask(endpoint, body)
            finally:
                endpoint.active -= 1
                self._wake(1)
            if isinstance(found, Failure) and found.error == TOO_EARLY:
                too_early += 1
                await asyncio.sleep(retry_delay(too_early - 1, found.retry_after))
                continue
            tries += 1
            if isinstance(found, Reply):
                empty = found.finish_reason in ("stop", None) and not (found.content.strip() or found.reasoning)
                if was_empty or not empty:
                    return Failure(EMPTY) if empty else found
                was_empty, found = True, Failure(EMPTY)
            elif tries > self.options.max_retries and found.error == NO_REPLY and self.answered is None:
                raise refused(endpoint, 0, self.options.api_key_env)
            elif tries > self.options.max_retries and self.endpoints.answered_at > began:
                return found
            await asyncio.sleep(retry_delay(tries - 1, found.retry_after))

    async def _take(self, avoid: Endpoint | None) -> Endpoint:
        """Wait for a free endpoint."""
        while (endpoint := self.endpoints.choose(avoid)) is None:
            self._waiting.append(self._loop.create_future())
            await self._waiting[-1]
        endpoint.active += 1
        endpoint.sent += 1
        return endpoint

    def _wake(self, waiting: int) -> None:
        for _ in range(min(waiting, len(self._waiting))):
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)

    async def _ask(self, endpoint: Endpoint, body: dict[str, Any]) -> Reply | Failure:
        """Send a request once, and note what the answer says of the endpoint.

        Raises:
            EngineError: the request is refused, or nothing but 429 has come for too long.
        """
        began = self.endpoints.clock()
        try:
            response = await post(self._client, endpoint.url, body, self.options.request_timeout)
        except NoAnswerError as error:
            endpoint.problem, failure = self._no_answer(error), Failure(error.kind)
        else:
            status = status_of(response)
            if status == 200 and (reply := read_reply(response)) is not None:
                self.endpoints.answered()
                if endpoint.breaker.open:
                    self._wake(len(self._waiting))
                endpoint.breaker.succeeded()
                return reply
            endpoint.problem = answered(response, self.options.api_key_env)
            if is_page(response) if status == 200 else not temporary(status):
                raise refused(endpoint, status, self.options.api_key_env)
            failure = Failure(NO_REPLY if status == 200 else f"http {status}", response.headers.get("retry-after", ""))
            if status == 429:
                self._limited()
                return failure
        endpoint.breaker.failed(self.endpoints.clock() - began)
        return failure

    async def _watch(self, endpoint: Endpoint) -> None:
        """Send a probe to an endpoint whenever its breaker allows one; it may refuse it, but it has to answer.

        Raises:
            EngineError: no endpoint has answered for too long.
        """
        seconds = min(CONNECT_SECONDS, self.options.request_timeout)
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if not endpoint.breaker.due():
                continue
            status = 0
            try:
                response = await post(self._client, endpoint.url, probe_body(self.model), seconds)
            except NoAnswerError as error:
                endpoint.problem = self._no_answer(error)
            else:
                status = status_of(response)
                endpoint.problem = answered(response, self.options.api_key_env)
            if status and not temporary(status):
                self.endpoints.answered()
                endpoint.breaker.probe_succeeded()
                self._wake(len(self._waiting))
                continue
            endpoint.breaker.probe_failed()
            if status == 429:
                self._limited()
            elif (dead_for := self.endpoints.dead_for()) >= self.options.give_up_seconds:
                advice = "start it, or set base_url to one that runs"
                raise self.endpoints.given_up(f"no endpoint has answered for {dead_for:.0f} s", advice)

    def _limited(self) -> None:
        if self.endpoints.limited() > self.options.give_up_seconds + 2 * self.options.request_timeout:
            raise self.endpoints.given_up("the server has had too much to do for too long", "lower max_concurrency")

    def _no_answer(self, error: NoAnswerError) -> str:
        return redacted(f"gave no answer: {error}", self.options.api_key_env)


def _first(errors: BaseException) -> BaseException:
    """Return the first error of a group of groups."""
    return _first(errors.exceptions[0]) if isinstance(errors, BaseExceptionGroup) else errors
