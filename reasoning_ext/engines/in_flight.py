"""Requests of the engine `server`: many under way at once, put back, given up; each key answered exactly once.

They are made in a thread of their own, so that they go on while the caller scores a batch. Keys are taken as there is room
for what they bring: neither a million requests nor a million unread completions exist at once.

How a request is repeated is the client's affair (`servers.client`); 429 says that it came too early and not that it failed, and
it is sent again for as long as nothing else is wrong. A request that fails in all its tries although the server answers others
is put back until all others are through, and has no completion if it fails again. How a run ends early, always with an
`EngineError` after which it can go on where it stopped:

    refused         any other status than 200, or a page in the place of a completion, at once: what is wrong with one request
                    is wrong with most; and errors under status 200 where nothing else has come
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
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from reasoning_ext.engines.base import Completion, EngineError, Key
from reasoning_ext.recipe.engine_options import ServerOptions
from reasoning_ext.servers.client import NO_REPLY, TOO_EARLY, FaultError, RefusedError, Server
from reasoning_ext.servers.replies import Reply
from reasoning_ext.shown import print

MOST_AT_ONCE = 256  # completions that are yielded together
UNREAD = 2 * MOST_AT_ONCE  # completions that may wait for the caller, besides the requests under way
MOST_IN_A_ROW = 64  # requests that fail in all their tries, one after another
FEW = 8  # keys that may all be without a completion
ALONE_AFTER = 4  # tries that fail in a row, after which an endpoint is left alone until a probe is answered
WATCH_SECONDS = 2.0  # between two looks at the endpoints that are left alone
FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0  # seconds before a request is sent again that came too early in all its tries
EMPTY = "empty"  # an error that does not say that the server is broken


@dataclass(eq=False)
class InFlight:
    """One run over keys: a thread with an event loop, and the queue through which it hands over completions."""

    model: str  # what the server calls it
    options: ServerOptions
    keys: Sequence[Key]
    body: Callable[[Key], dict[str, Any]]  # the request for a key
    completion: Callable[[Key, Reply | str], Completion]  # of a key and its reply, or the reason why there is none
    answered: dict[str, Any] | None = None  # the last request that was, in an earlier run at first

    def __post_init__(self) -> None:
        o = self.options
        arguments = (o.urls(), o.api_key_env, o.request_timeout, o.max_retries, o.max_concurrency)
        self._server = Server(*arguments, alone_after=ALONE_AFTER)
        self._slots = o.max_concurrency * len(o.urls())
        self._room = asyncio.Semaphore(self._slots + UNREAD)
        self._arrived: queue.SimpleQueue[Completion | None] = queue.SimpleQueue()  # None: the thread has ended
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
        async with aclosing(self._server):
            try:
                async with asyncio.TaskGroup() as watch:
                    watcher = watch.create_task(self._watch())
                    for keys, last in ((self.keys, False), (self._put_back, True)):
                        left = iter(keys)
                        async with asyncio.TaskGroup() as workers:
                            for _ in range(min(self._slots, len(keys))):
                                workers.create_task(self._work(left, last))
                    if self._errors.total() == len(self.keys) > FEW:
                        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self._errors.items()))
                        await self._check(f"none of {len(self.keys)} requests brought a completion: {kinds}")
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
            failed = isinstance(found, str) and found != EMPTY
            if failed and not last:
                self._put_back.append(key)
                self._room.release()
            else:
                self._hand_over(self.completion(key, found), body)
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
        if self.answered is None or isinstance(await self._answer(self.answered), str):
            raise self._given_up(what, "look into the server's log")

    async def _answer(self, body: dict[str, Any]) -> Reply | str:
        """Ask the server, and return its reply, or in a word or two why there is none.

        Without an answer to anybody since its first try, a request cannot be told from a server that is down: it is repeated
        until a probe tells. What came too early is sent again until `_watch` ends it.

        Raises:
            EngineError: the request is refused, or all that ever came under status 200 is no reply.
        """
        began, delay, was_empty = time.monotonic(), FIRST_DELAY, False
        while True:
            try:
                reply = await self._server.ask(body)
            except FaultError as fault:
                if isinstance(fault, RefusedError) or (fault.error == NO_REPLY and self.answered is None):
                    raise _refused(fault, self.options.api_key_env) from None
                if fault.error == TOO_EARLY:
                    await asyncio.sleep(delay * random.uniform(1.0, 1.25))
                    delay = min(2 * delay, LONGEST_DELAY)
                elif self._server.answered_at > began:
                    self._tell(fault)
                    return fault.error
            else:
                empty = reply.finish_reason in ("stop", None) and not (reply.content.strip() or reply.reasoning)
                if was_empty or not empty:
                    return EMPTY if empty else reply
                was_empty = True

    def _tell(self, fault: FaultError) -> None:
        """Say once of each error what the server said."""
        if fault.error not in self._told:
            self._told.add(fault.error)
            print(f"server: a completion failed ({fault.error}): {fault.said}", file=sys.stderr)

    async def _watch(self) -> None:
        """Probe the endpoints that are left alone, and end the run when all have been dead or busy for too long.

        Raises:
            EngineError: they have.
        """
        seconds, server = self.options.give_up_seconds, self._server
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            await asyncio.gather(*(server.probe(endpoint, self.model) for endpoint in server.alone()))
            busy = server.limited_since
            if busy is not None and time.monotonic() - busy > seconds + 2 * self.options.request_timeout:
                raise self._given_up("the server has had too much to do for too long", "lower max_concurrency")
            if busy is None and (dead_for := server.dead_for()) >= seconds:
                advice = "start it, or set base_url to one that runs"
                raise self._given_up(f"no endpoint has answered for {dead_for:.0f} s", advice)

    def _given_up(self, what: str, advice: str) -> EngineError:
        problems = f" ({problems})" if (problems := self._server.problems()) else ""
        return EngineError("engine_kwargs", f"{what}{problems}; {advice}, and run again to go on")


def _refused(fault: FaultError, api_key_env: str) -> EngineError:
    """Return the error for a request that would be refused again."""
    if fault.error == "http 404" and "model" in fault.said.lower():
        return EngineError("model_name_or_path", fault.said)
    key = f"; the key is read from the environment variable {api_key_env}"
    path = "; base_url has to end with /v1 on most servers"
    hints = {"http 401": key, "http 403": key, "http 404": path, "http 200": path}
    return EngineError("engine_kwargs", fault.said + hints.get(fault.error, ""))


def _first(errors: BaseException) -> BaseException:
    """Return the first error of a group of groups."""
    return _first(errors.exceptions[0]) if isinstance(errors, BaseExceptionGroup) else errors
