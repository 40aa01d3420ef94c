"""Requests of the engine `server`: many under way at once, each key answered exactly once, and an end where nobody answers.

They are made in a thread of their own, so that they go on while the caller scores a batch. 429 says that a request came too
early: it is sent again. One that fails in all its tries has no completion, if the server answers others, or at least a request
for one token. A run ends with any other status than 200, or a page in the place of a completion; when no endpoint has answered
for `give_up_seconds` (by default within 60 seconds of a server's death), or after 429 for that long and twice
`request_timeout`; when 64 requests in a row failed, or a run over more than 8 keys brought no completion.
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

from reasoning_ext.engines.base import Completion, EngineError, Key
from reasoning_ext.recipe.engine_options import ServerOptions
from reasoning_ext.servers.client import NO_REPLY, TOO_EARLY, FaultError, RefusedError, Server
from reasoning_ext.servers.replies import Reply
from reasoning_ext.shown import print

MOST_AT_ONCE = 256  # completions that are yielded together
UNREAD = 2 * MOST_AT_ONCE  # completions that may wait for the caller, besides the requests under way
MOST_IN_A_ROW = 64  # requests that fail in all their tries, one after another
FEW = 8  # keys that may all be without a completion
WATCH_SECONDS = 2.0  # between two looks whether anybody answers
FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0  # seconds before a request is sent again that came too early in all its tries
EMPTY = "empty"  # an error that is the model's own doing
NOT_ON = (
    "; going on from a completion's beginning needs a server with continue_final_message, as vLLM and SGLang have it"
)
NO_PARSER = "; where a server takes tools and reads no calls, generation_kwargs: {tool_choice: none} lets them stand in the text"


@dataclass(eq=False)
class InFlight:
    """One run over keys: a thread with an event loop, and the queue through which it hands over completions."""

    model: str  # what the server calls it
    options: ServerOptions
    keys: Sequence[Key]
    body: Callable[[Key], dict]  # the request for a key
    completion: Callable[[Key, Reply | str], Completion]  # of a key and its reply, or the reason why there is none
    answered: bool  # whether the server has answered a request, in an earlier run at first

    def __post_init__(self) -> None:
        o = self.options
        self._server = Server(o.urls(), o.api_key_env, o.request_timeout, o.max_retries)
        self._slots = o.max_concurrency * len(o.urls())
        self._room = asyncio.Semaphore(self._slots + UNREAD)
        self._arrived: queue.SimpleQueue[Completion | None] = queue.SimpleQueue()  # None: the thread has ended
        self._errors: Counter[str] = Counter()  # completions that there are not
        self._failed_in_a_row = 0
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
                for _ in batch:
                    self._loop.call_soon_threadsafe(self._room.release)
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
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self._error = error
        finally:
            self._loop.close()
            self._arrived.put(None)

    async def _answer_all(self) -> None:
        async with aclosing(self._server), asyncio.TaskGroup() as watch:
            watcher, left = watch.create_task(self._watch()), iter(self.keys)
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(self._slots, len(self.keys))):
                    workers.create_task(self._work(left))
            watcher.cancel()
        if not self.answered and self._errors.total() > FEW:
            kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self._errors.items()))
            raise self._given_up(f"none of {len(self.keys)} requests brought a completion: {kinds}")

    async def _work(self, keys: Iterator[Key]) -> None:
        """Answer one key after another until none is left."""
        while True:
            await self._room.acquire()
            if (key := next(keys, None)) is None:
                return self._room.release()
            completion = self.completion(key, await self._answer(self.body(key)))
            if completion.error:
                self._errors[completion.error] += 1
                self._failed_in_a_row += completion.error != EMPTY
            else:
                self._failed_in_a_row, self.answered = 0, True
            self._arrived.put(completion)
            if self._failed_in_a_row >= MOST_IN_A_ROW:
                raise self._given_up(f"{MOST_IN_A_ROW} requests in a row failed in all their tries")

    async def _answer(self, body: dict) -> Reply | str:
        """Ask the server, and return its reply, or in a word or two why there is none; raises an EngineError to end the run."""
        began, delay, was_empty = time.monotonic(), FIRST_DELAY, False
        while True:
            try:
                reply = await self._server.ask(body)
            except FaultError as fault:
                if isinstance(fault, RefusedError):
                    raise self._refused(fault, body) from None
                if await self._is_last(fault, began):
                    if fault.error not in self._errors:
                        print(f"server: a completion failed ({fault.error}): {fault.said}", file=sys.stderr)
                    return fault.error
                await asyncio.sleep(delay * random.uniform(1.0, 1.25))
                delay = min(2 * delay, LONGEST_DELAY)
            else:
                empty = reply.finish_reason in ("stop", None) and not (reply.content.strip() or reply.reasoning)
                empty = empty and "continue_final_message" not in body  # where it may be that nothing is missing
                if was_empty or not empty:
                    return EMPTY if empty else reply
                was_empty = True

    def _refused(self, fault: RefusedError, body: dict) -> EngineError:
        """Say what the server refuses, and by what key."""
        said = fault.advice(self.options.api_key_env)
        if body.get("tools") and fault.error in ("http 400", "http 422"):
            return EngineError("engine_kwargs", said + NO_PARSER)
        if "continue_final_message" in body and fault.error in ("http 400", "http 422"):
            return EngineError("engine", said + NOT_ON)
        is_model = fault.error == "http 404" and "model" in fault.said.lower()
        return EngineError("model_name_or_path" if is_model else "engine_kwargs", said)

    async def _is_last(self, fault: FaultError, began: float) -> bool:
        """Tell whether a request that failed is to blame for it; else it is sent again. Raises as `_answer`."""
        if fault.error == NO_REPLY and not self.answered:
            raise EngineError("engine_kwargs", fault.said)
        if fault.error != TOO_EARLY:
            return (self._server.answered_at > began and self._server.dead_for() <= 0) or await self._answers()
        patience = self.options.give_up_seconds + 2 * self.options.request_timeout
        if time.monotonic() - max(self._server.answered_at, began) > patience:
            raise self._given_up("the server has had too much to do for too long", "lower max_concurrency")
        return False

    async def _answers(self) -> bool:
        """Tell whether the server answers a request for one token, and be it by a refusal."""
        fault = await self._server.probe(self.model)
        return fault is None or isinstance(fault, RefusedError) or fault.error == NO_REPLY

    async def _watch(self) -> None:
        """Raise an EngineError when all endpoints have been dead for too long."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            dead_for = self._server.dead_for()
            if dead_for >= self.options.give_up_seconds and not await self._answers():
                advice = "start it, or set base_url to one that runs"
                raise self._given_up(f"no endpoint has answered for {dead_for:.0f} s", advice)

    def _given_up(self, what: str, advice: str = "look into the server's log") -> EngineError:
        problems = "".join(f", {endpoint.said}" for endpoint in self._server.endpoints if endpoint.problem)
        return EngineError("engine_kwargs", f"{what}{problems}; {advice}, and run again to go on")
