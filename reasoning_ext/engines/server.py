"""Engine `server`: prompts answered by any OpenAI-compatible `/v1/chat/completions`: vLLM, SGLang, hosted teachers, ...

One request a completion, so that each has a seed of its own and can be repeated alone; how requests are sent, repeated and
given up is in `in_flight.py`. What comes back is made whole here: thoughts that the server took out of the content are put
back, and what did not end by itself is not called finished.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from reasoning_ext import think
from reasoning_ext.engines.base import Completion, EngineError, Key, SamplingSettings, key_seed
from reasoning_ext.recipe.engine_options import ServerOptions, server_problems
from reasoning_ext.servers.replies import Reply, shown_url, writable
from reasoning_ext.shown import print
from reasoning_ext.think.template import Contract

if TYPE_CHECKING:
    from reasoning_ext.engines.in_flight import InFlight

OURS = ("model", "messages", "n", "stream", "seed")  # fields of a request that generation_kwargs cannot set
OTHER_TAGS = (
    ("<thought>", "</thought>"), ("<thinking>", "</thinking>"), ("<reasoning>", "</reasoning>"), ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"), ("◁think▷", "◁/think▷"), ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel>thought", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
)  # fmt: skip
# tokens at a text's end that a server should have left out
END = re.compile(r"(?:<[|｜][\w▁]{2,30}[|｜]>|</s>|<eos>|<end_of_turn>)\s*\Z")
LOOK_SECONDS, TRY_SECONDS = 5.0, 30.0  # that `reachable` waits for a list of models, and for one token


class ServerEngine:
    """Answers prompts through one or several endpoints that serve the same model.

    Args:
        model: what the server calls it.
        options: see `options.ServerOptions`.
        think_tags: the tags that the model writes around a thought, where they are not `<think>`.

    Raises:
        EngineError: an option cannot work.
    """

    def __init__(self, model: str, options: ServerOptions, think_tags: list[str] | None = None):
        for name, found, allowed in server_problems(options):
            raise EngineError("engine_kwargs", f"{name}: {found}", allowed)
        self.model, self.options = model, options
        self.contract = Contract(open=think_tags[0], close=think_tags[1]) if think_tags else Contract()
        self._runs: set[InFlight] = set()  # under way
        self._told = False
        self._answered: dict[str, Any] | None = None  # the last request that was

    def generate(
        self, prompts: Sequence[list[dict[str, str]]], keys: Sequence[Key], settings: SamplingSettings
    ) -> Iterator[list[Completion]]:
        """Answer keys with one request each; see `base.Engine` and `request_body`.

        Args:
            prompts: P conversations, sent as messages.
            keys: `(prompt, sample)` pairs, taken one by one as there is room, in a thread of the engine's own.
            settings: how to sample.

        Yields:
            what has arrived, 1 to 256 completions, in any order.

        Raises:
            EngineError: see `in_flight`; what arrived before is yielded first.
        """
        for name in OURS:
            refused_by_some = name == "seed" and settings.generation_kwargs.get("seed") is None
            if name in settings.generation_kwargs and not refused_by_some:
                raise EngineError("generation_kwargs", f"found {name!r}, which the engine sets itself; take it out")
        asked = request_body(self.model, [], 0, settings)
        try:
            json.dumps(asked, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise EngineError("generation_kwargs", f"found what no request can say: {error}; take it out") from None
        from reasoning_ext.engines.in_flight import InFlight

        most = asked.get("max_completion_tokens", asked.get("max_tokens"))

        def body(key: Key) -> dict[str, Any]:
            return request_body(self.model, prompts[key[0]], key_seed(settings.seed, *key), settings)

        run = InFlight(self.model, self.options, keys, body, partial(self._completion, most), self._answered)
        self._runs.add(run)
        try:
            yield from run.batches()
        finally:
            run.stop()
            self._runs.discard(run)
            self._answered = run.answered

    def close(self) -> None:
        """Cancel what is under way and end the threads."""
        for run in list(self._runs):
            run.stop()

    def _completion(self, most: Any, key: Key, found: Reply | str) -> Completion:
        """Make a completion of a reply to a request for at most so many tokens, or of the reason why there is none.

        A server that does not say why a completion ends has cut it off if it has as many tokens as it may have.
        """
        if isinstance(found, str):
            return Completion(*key, text="", ids=[], finished=False, error=found)
        if found.finish_reason is None:
            cut_off = isinstance(most, int) and 0 < most <= found.tokens
            found = found._replace(finish_reason="length" if cut_off else "stop")
        reason = str(found.finish_reason)
        error = "" if reason in ("stop", "length") else writable(reason)
        text = writable(whole_text(found, self.contract))
        self._tell_tags(text)
        return Completion(*key, text, ids=[], finished=reason == "stop", tokens=found.tokens, error=error)

    def _tell_tags(self, text: str) -> None:
        """Say once that a model writes other tags than it was said to: what they hold would count as part of the answer."""
        found = next((pair for pair in OTHER_TAGS if text.lstrip().startswith(pair[0]) and pair[1] in text), None)
        if found and not self._told:
            self._told = True
            advice = f"write think_tags: {list(found)}, or its thoughts count as a part of the answers"
            print(f"warning: {self.model} begins completions with {found[0]}; {advice}", file=sys.stderr)


def request_body(model: str, messages: list[dict[str, str]], seed: int, settings: SamplingSettings) -> dict[str, Any]:
    """Return a request for one completion.

    Fields that not every server knows (`top_k`, `min_p`, `repetition_penalty`, `chat_template_kwargs`) are sent only where
    they differ from the default; what a server does without them is its own affair (vLLM reads generation_config.json).
    `generation_kwargs` come last, and one that is null takes a field out: `{max_tokens: null, max_completion_tokens: 512}`,
    or `{seed: null}` for servers that refuse it; a seed of the user's own would make all samples of a prompt the same.
    """
    body = {
        "model": model,
        "messages": messages,
        "max_tokens": settings.max_completion_length,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "seed": seed,
        "top_k": settings.top_k or None,
        "min_p": settings.min_p,
        "repetition_penalty": None if settings.repetition_penalty == 1.0 else settings.repetition_penalty,
        "chat_template_kwargs": settings.chat_template_kwargs or None,
    } | settings.generation_kwargs
    return {name: value for name, value in body.items() if value is not None}


def whole_text(reply: Reply, contract: Contract) -> str:
    r"""Make a reply a whole completion: `<think>...</think>answer`.

    A thought that the server took out is put back, and left open where it was cut off; a content that has it nevertheless is
    whole as it is. Where the template opened the thought, the content closes one that it never opened: it gets the opening tag.

    >>> whole_text(Reply("7", "3+4=7", "stop", 9), Contract())
    '<think>\n3+4=7\n</think>\n\n7'
    >>> whole_text(Reply("3+4=7</think>7", "", "stop", 9), Contract())
    '<think>\n3+4=7</think>7'
    """
    text = reply.content
    while found := END.search(text, max(0, len(text.rstrip()) - 40)):
        text = text[: found.start()]
    before, closed, after = text.partition(contract.close.strip())
    inside = before.strip().removeprefix(contract.open.strip()).strip()
    opened = contract.open.strip() in before
    if reply.reasoning and closed and not inside:
        text = after  # the empty tags of a thought that was taken out
    twice = inside and (
        before.lstrip().startswith(contract.open.strip()) or (closed and inside == reply.reasoning.strip())
    )
    if reply.reasoning and not twice:
        cut_off = reply.finish_reason not in ("stop", None) and not text.strip()
        return f"{think.OPEN}\n{reply.reasoning.strip()}" if cut_off else think.join(reply.reasoning, text)
    if closed and not opened:
        text = contract.open.strip() + ("" if text.startswith("\n") else "\n") + text
    return contract.whole(text)


def reachable(model: str, options: ServerOptions) -> str:
    """Ask every endpoint which models it serves, and return "" or one line on why no completion can be had.

    Endpoints that are down do not matter while another is there. A server without such a list counts as reachable. One whose
    list lacks the model or fails is asked for one token: some serve more than they list (aliases; `transformers serve` lists
    its cache, and answers 500 where there is none).
    """
    for name, found, allowed in server_problems(options):
        return f"{name}: {found}" + (f", allowed: {allowed}" if allowed else "")

    async def look_at_all() -> list[tuple[bool, str]]:
        return await asyncio.gather(*(_look(url, model, options.api_key_env) for url in options.urls()))

    looks = asyncio.run(look_at_all())
    if not any(answers for answers, _ in looks):
        problems = "; ".join(problem for _, problem in looks)
        return f"nobody answers: {problems}; start it, or set base_url to one that runs"
    return next((problem for answers, problem in looks if answers and problem), "")


async def _look(url: str, model: str, api_key_env: str) -> tuple[bool, str]:
    """Return whether an endpoint answers, and what is wrong with it, or ""."""
    from reasoning_ext.servers.client import PROBE, FaultError, RefusedError, Server

    is_listed = True
    try:
        async with aclosing(Server([url], api_key_env, LOOK_SECONDS)) as server:
            served = await server.models()
    except FaultError as fault:
        if fault.error in ("time-out", "connection"):
            return False, fault.said
        if not fault.error.startswith("http 5"):  # else it has no such list
            hint = f"; the key is read from the environment variable {api_key_env}"
            return True, fault.said + hint if fault.error in ("http 401", "http 403") else ""
        said, is_listed = fault.said, False
    else:
        if served is None or model in served:
            return True, ""
        said = _not_served(url, model, served)
    try:  # twice, since a server may close the connection of an answer that it failed to give
        async with aclosing(Server([url], api_key_env, TRY_SECONDS, max_retries=1)) as server:
            await server.ask({"model": model, "messages": PROBE, "max_tokens": 1})
    except RefusedError as refused:
        return True, said if is_listed else refused.said
    except FaultError:
        return is_listed, "" if is_listed else said
    return True, ""


def _not_served(url: str, model: str, served: list[str]) -> str:
    nearest = difflib.get_close_matches(model, served, 1, 0.0)
    serves = f"the nearest of the {len(served)} that it serves is {nearest[0]!r}" if nearest else "it lists none"
    return f"{shown_url(url.rstrip('/'))} does not serve {model!r}; {serves}"
