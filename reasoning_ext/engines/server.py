"""Engine `server`: prompts answered by any OpenAI-compatible `/v1/chat/completions`: vLLM, SGLang, hosted teachers, ...

One request a completion, so that each has a seed of its own and can be repeated alone; how requests are sent, repeated and
given up is in `in_flight.py`. What comes back is made whole here.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reasoning_ext import think
from reasoning_ext.engines.base import Completion, EngineError, Key, SamplingSettings, begun, key_seed
from reasoning_ext.recipe.engine_options import ServerOptions
from reasoning_ext.servers.replies import Reply, writable
from reasoning_ext.shown import print
from reasoning_ext.think.calls import TOOLS, CallFormat, as_text
from reasoning_ext.think.template import Contract

if TYPE_CHECKING:
    from reasoning_ext.engines.in_flight import InFlight

OTHER_TAGS = (
    *((f"<{name}>", f"</{name}>") for name in ("thought", "thinking", "reasoning", "seed:think")),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel>thought", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
)
GOES_ON = {"continue_final_message": True, "add_generation_prompt": False}  # a request to go on from a beginning
# tokens at a text's end that a server should have left out
END = re.compile(r"(?:<[|｜][\w▁]{2,30}[|｜]>|</s>|<eos>|<end_of_turn>)\s*\Z")


class ServerEngine:
    """Answers prompts through one or several endpoints that serve the same model; see `base.Engine`.

    `model` is what the server calls it; `think_tags` are what it writes around a thought, where that is not `<think>`. A model
    that `acts` calls tools: those that the server has read, and those that stand in the text as JSON in `<tool_call>`.
    """

    def __init__(self, model: str, options: ServerOptions, think_tags: list[str] | None = None, acts: bool = False):
        self.model, self.options = model, options
        contract = Contract(open=think_tags[0], close=think_tags[1]) if think_tags else Contract()
        self.contract = replace(contract, calls=CallFormat() if acts else None)
        self._runs: set[InFlight] = set()  # under way
        self._told = self._answered = False

    def generate(
        self, prompts: Sequence[list[dict[str, str]]], keys: Sequence[Key], settings: SamplingSettings
    ) -> Iterator[list[Completion]]:
        """Answer keys with one request each, in a thread of the engine's own; see `in_flight` for how that may end."""
        from reasoning_ext.engines.in_flight import InFlight

        if settings.stop:
            found = "found server, whose reply does not tell the end of a turn from a text to stop at"
            raise EngineError("engine", f"{found}; write transformers or vllm")

        def body(key: Key) -> dict[str, Any]:
            return self._body(prompts[key[0]], key, settings)

        def completion(key: Key, found: Reply | str) -> Completion:
            sent = body(key)
            most = sent.get("max_completion_tokens", sent.get("max_tokens"))
            return self._completion(key, found, most, begun(prompts[key[0]]), settings.logprobs)

        asked = request_body(self.model, [], 0, settings)
        try:
            json.dumps(asked, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise EngineError("generation_kwargs", f"found what no request can say: {error}; take it out") from None
        run = InFlight(self.model, self.options, keys, body, completion, self._answered)
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

    def _body(self, messages: list[dict[str, str]], key: Key, settings: SamplingSettings) -> dict[str, Any]:
        """Return the request for a key; a completion's beginning is written with the model's own tags."""
        seeded = replace(settings, max_completion_length=settings.limit(key))
        body = request_body(self.model, sent_turns(messages, self.contract), key_seed(settings.seed, *key), seeded)
        if text := begun(messages):
            body["messages"][-1] = {"role": "assistant", "content": self.contract.native(text)}
            body |= GOES_ON
        return body

    def _completion(self, key: Key, found: Reply | str, most: Any, begun: str, logprobs: bool) -> Completion:
        """Make a completion of a reply to a request for at most so many tokens, or of the reason why there is none."""
        if isinstance(found, str):
            return Completion(*key, text="", ids=[], finished=False, error=found)
        if found.finish_reason is None:  # it is cut off if it has as many tokens as it may have
            cut_off = isinstance(most, int) and 0 < most <= found.tokens
            found = found._replace(finish_reason="length" if cut_off else "stop")
        if logprobs and found.logprob is None and (found.content or found.reasoning):
            problem = f"found server, and {self.model} is served without log-probabilities, which were asked for"
            raise EngineError("engine", f"{problem}; serve it with them, as vLLM does, or write transformers or vllm")
        whole = continued_text(found, self.contract, begun) if begun else whole_text(found, self.contract)
        whole += "".join(f"\n{written_call(*call)}" for call in found.calls) if self.contract.calls else ""
        reason, text = str(found.finish_reason), writable(whole)
        tags = next((pair for pair in OTHER_TAGS if text.lstrip().startswith(pair[0]) and pair[1] in text), None)
        if tags and not self._told:
            self._told = True
            advice = f"write think_tags: {list(tags)}, or its thoughts count as a part of the answers"
            print(f"warning: {self.model} begins completions with {tags[0]}; {advice}", file=sys.stderr)
        ends = ("stop", "tool_calls") if self.contract.calls else ("stop",)
        error = "" if reason in (*ends, "length") else writable(reason)
        finished, mean = reason in ends, found.logprob if logprobs else None
        return Completion(*key, text, [], finished, found.tokens, error, mean)


def request_body(model: str, messages: list[dict[str, str]], seed: int, settings: SamplingSettings) -> dict[str, Any]:
    """Return a request for one completion, in which what not every server knows stands where it differs from the default.

    A `generation_kwargs` that is null takes a field out: `{max_tokens: null, max_completion_tokens: 512}`.
    """
    template = {name: value for name, value in settings.chat_template_kwargs.items() if name != TOOLS}
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
        "chat_template_kwargs": template or None,
        TOOLS: settings.chat_template_kwargs.get(TOOLS) or None,
        "logprobs": settings.logprobs or None,
    } | settings.generation_kwargs
    return {name: value for name, value in body.items() if value is not None}


def sent_turns(messages: Sequence[dict[str, Any]], contract: Contract) -> list[dict[str, Any]]:
    """Write turns behind a user's message as the API has them: calls with ids, results with those, thoughts in their own tags.

    A result that no call is waiting for, which says that one could not be read, is a user's message.
    """
    sent: list[dict[str, Any]] = []
    waiting: list[str] = []
    asked = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    for i, message in enumerate(messages):
        if message["role"] == "tool":
            whose = {"role": "tool", "tool_call_id": waiting.pop(0)} if waiting else {"role": "user"}
            message = {**whose, "content": message["content"]}
        elif message["role"] == "assistant" and i > asked:
            message = {**message, "content": contract.native(message["content"])}
        if calls := message.get("tool_calls"):
            waiting = [f"call_{i}_{nth}" for nth in range(len(calls))]
            numbered = zip(as_text(calls), waiting, strict=True)
            message = message | {"tool_calls": [call | {"id": number} for call, number in numbered]}
        sent.append(message)
    return sent


def written_call(name: str, arguments: str) -> str:
    """Write a call that the server took out of the text as the text may have it, whatever its arguments are."""
    return f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {arguments.strip() or "{}"}}}\n</tool_call>'


def whole_text(reply: Reply, contract: Contract) -> str:
    r"""Make a reply a whole completion: `<think>...</think>answer`.

    A thought that the server took out is put back, and left open where it was cut off; a content that has it nevertheless is
    whole as it is. Where the template opened the thought, the content closes one that it never opened: it gets the opening tag.

    >>> whole_text(Reply("7", "3+4=7", "stop", 9), Contract())
    '<think>\n3+4=7\n</think>\n\n7'
    >>> whole_text(Reply("3+4=7</think>7", "", "stop", 9), Contract())
    '<think>\n3+4=7</think>7'
    """
    text, thought = without_end(reply.content), reply.reasoning.strip()
    opening, closing = contract.open.strip(), contract.close.strip()
    before, closed, after = text.partition(closing)
    inside = before.strip().removeprefix(opening).strip()
    if reply.reasoning:
        if closed and not inside:
            text = after  # the empty tags of a thought that was taken out
        twice = inside and (before.lstrip().startswith(opening) or (closed and inside == thought))
        if not twice:
            cut_off = reply.finish_reason not in ("stop", None) and not text.strip()
            return f"{think.OPEN}\n{thought}" if cut_off else think.join(reply.reasoning, text)
    if closed and opening not in before:
        text = opening + ("" if text.startswith("\n") else "\n") + text
    return contract.whole(text)


def continued_text(reply: Reply, contract: Contract, begun: str) -> str:
    r"""Make a reply that goes on from a whole completion's beginning whole, with that beginning.

        What the server took for a thought goes on with the beginning's, where that is open, else with its answer.

        >>> continued_text(Reply("7", "+4=7", "stop", 9), Contract(), "<think>
    3")
        '<think>
    3+4=7
    </think>

    7'
    """
    text, is_open = without_end(reply.content), think.OPEN in begun and think.CLOSE not in begun
    if not reply.reasoning or not is_open:
        return contract.whole_from(begun, reply.reasoning + text)
    closed = text.strip() or reply.finish_reason in ("stop", None)
    return begun + reply.reasoning + (f"\n{think.CLOSE}\n\n{text.lstrip()}" if closed else "")


def without_end(text: str) -> str:
    """Take the tokens off a text's end that a server should have left out."""
    while found := END.search(text, max(0, len(text.rstrip()) - 40)):
        text = text[: found.start()]
    return text


def reachable(model: str, options: ServerOptions) -> str:
    """Ask every endpoint for one token, and return "" or one line on why no completion can be had.

    Endpoints that are down do not matter while another is there, and one that is slow counts as there.
    """
    from reasoning_ext.servers.client import FaultError, RefusedError, Server

    async def look(url: str) -> FaultError | None:
        async with aclosing(Server([url], options.api_key_env, options.request_timeout)) as server:
            fault = await server.probe(model)
        return None if fault and fault.error == "time-out" else fault

    async def look_at_all() -> list[FaultError | None]:
        return await asyncio.gather(*map(look, options.urls()))

    faults = asyncio.run(look_at_all())
    # another status, such as 400, is for what else the request says, which the recipe may leave out
    for fault in faults:
        if isinstance(fault, RefusedError) and fault.error in ("http 401", "http 403", "http 404"):
            return fault.advice(options.api_key_env)
    if any(fault is None or isinstance(fault, RefusedError) for fault in faults):
        return ""
    problems = "; ".join(fault.said for fault in faults if fault)
    return f"nobody answers: {problems}; start it, or set base_url to one that runs"
