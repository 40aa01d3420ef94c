"""What is asked of a chat template to find out what it does with thoughts: probes rendered, and what came out read."""

from __future__ import annotations

import contextlib
import itertools
import resource
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reasoning_ext import think
from reasoning_ext.errors import KeyProblem, one_line

USER, THOUGHT, ANSWER, NEXT = "zqjuq", "zqjtq", "zqjaq", "zqjnq"  # words that no template writes
USER_TURN, NEXT_TURN = {"role": "user", "content": USER}, {"role": "user", "content": NEXT}
ANSWER_TURN = {"role": "assistant", "content": ANSWER}
CALL = {"type": "function", "function": {"name": "zqjfq", "arguments": {}}}
CALL_TURN = {"role": "assistant", "content": "", "tool_calls": [CALL]}
REASONING_FIELDS = ("reasoning_content", "thinking")
SECONDS, BYTES = 5.0, 2**31  # that a template may take, of processor time and memory
CHARACTERS, TIMES = 1_000_000, 4  # that it may write, beside the messages so many times


class ContractError(KeyProblem):
    """A chat template cannot be used as the recipe says; `key` is the recipe's key that is to blame."""

    code = "unusable_chat_template"


class _EndlessError(BaseException):
    """No `Exception`, which a template's own compiler would pass over."""


def render(tokenizer: Any, messages: Sequence[dict[str, Any]], prompt: bool, kwargs: dict[str, Any]) -> str:
    """Render messages by a chat template, a program that need not end, which is a ContractError; no tools are told of as none."""
    kwargs = {name: value for name, value in kwargs.items() if name != "tools" or value}
    try:
        with _bounded():
            text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt, **kwargs)
    except (_EndlessError, MemoryError) as error:
        endless = f"no end: stopped after {SECONDS:g} s of processor time"
        has = endless if isinstance(error, _EndlessError) else "no bound: no memory for what it writes"
        raise ContractError("model_name_or_path", f"the chat template has {has}") from None
    if len(text) > CHARACTERS + TIMES * sum(len(str(message)) for message in messages):
        raise ContractError("model_name_or_path", f"the chat template has no bound: it writes {len(text)} characters")
    return text


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Bound memory, on Linux, and processor time, in the main thread, where signals arrive."""
    with contextlib.ExitStack() as undo:
        if sys.platform == "linux":
            limits = resource.getrlimit(resource.RLIMIT_AS)
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            most = min([taken + BYTES, *(limit for limit in limits if limit != resource.RLIM_INFINITY)])
            resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
            undo.callback(resource.setrlimit, resource.RLIMIT_AS, limits)
        if threading.current_thread() is threading.main_thread():
            undo.callback(signal.signal, signal.SIGVTALRM, signal.signal(signal.SIGVTALRM, _end))
            undo.callback(signal.setitimer, signal.ITIMER_VIRTUAL, 0)
            signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS, 1.0)  # again, where a library passes over the first
        yield


def _end(*_: object) -> None:
    raise _EndlessError


class Tags(NamedTuple):
    """The tags around a thought, with white space, the message field for it, and what stands before them, if known."""

    open: str = think.OPEN
    close: str = think.CLOSE
    field: str = ""
    lead: str | None = None


class Probe:
    """A tokenizer whose chat template is asked, with arguments of its own."""

    def __init__(self, tokenizer: Any, kwargs: dict[str, Any]):
        self.tokenizer, self.kwargs = tokenizer, kwargs
        self.parts, self.refusal = False, ""  # contents must be lists of parts; what the template said last

    def attempt(self, *chat: dict[str, Any], prompt: bool = False) -> str:
        """Render messages, or return "" where the template refuses them; one without an end is refused as a whole."""
        messages = [in_parts(message) if self.parts else message for message in chat]
        try:
            return render(self.tokenizer, messages, prompt, self.kwargs)
        except ContractError:
            raise
        except Exception as error:  # a template raises whatever it likes at what it does not expect
            self.refusal = one_line(error)
            return ""

    def begin(self) -> tuple[str, str]:
        """Render a question with the generation prompt, and with its answer; ContractError where one is left out."""
        self.parts = USER not in self.attempt(USER_TURN, prompt=True)
        prompt, plain = self.attempt(USER_TURN, prompt=True), self.attempt(USER_TURN, ANSWER_TURN)
        if USER not in prompt or ANSWER not in plain:
            why = self.refusal if not (prompt and plain) else "it leaves one out; set chat_template_path to another one"
            problem = f"the chat template cannot render a question and an answer: {why}"
            raise ContractError("model_name_or_path", problem)
        return prompt, plain

    def tags(self, base: str) -> Tags:
        """Find the tags that the template puts behind `base` around a thought from a field, else `<think>`."""
        bare = self.attempt(USER_TURN, CALL_TURN)
        for turn in (ANSWER_TURN, CALL_TURN):  # some (Gemma 4) write a thought in front of a tool call alone
            for field in REASONING_FIELDS:
                shown = self.attempt(USER_TURN, turn | {field: THOUGHT})
                before, thought, rest = shown.removeprefix(base).partition(THOUGHT)
                if not thought or not shown.startswith(base):
                    continue
                if turn is CALL_TURN:
                    closed = rest.removesuffix(shared(rest[::-1], bare.removeprefix(base)[::-1])[::-1])
                    if before.strip() and closed.strip() and think.OPEN not in before and bare.startswith(base):
                        return Tags(before, closed, field, "")
                elif ANSWER in rest:
                    closed = rest.partition(ANSWER)[0]
                    if think.OPEN in before and think.CLOSE in closed:
                        return Tags(lead=before.partition(think.OPEN)[0])
                    return Tags(before, closed, field, "")
        return Tags()


def in_parts(message: dict[str, Any]) -> dict[str, Any]:
    """Write a message's text as a list of parts, as templates of models that also see images want it."""
    text = message.get("content")
    return {**message, "content": [{"type": "text", "text": text}]} if isinstance(text, str) else message


def split_prompt(prompt: str, opened: str = think.OPEN, closed: str = think.CLOSE) -> tuple[str, str, str]:
    """Split off what a prompt wrote of the completion: `(prompt, opening tag or "", empty thought or "")`."""
    opened = opened.strip()
    before, found, tail = prompt.rpartition(opened)
    if found and not tail.strip():
        return before, opened + tail, ""
    if found and tail.strip() == closed.strip():
        return before, "", opened + tail
    return prompt, "", ""


def turn_end(tokenizer: Any, last: str, followed: str) -> tuple[str, int | None]:
    """Find what ends a turn, `(the text of one or more tokens, the last one's id)`, in two conversations rendered.

    These are the added tokens behind the answer, whether or not a turn follows, else the next one's opener.
    """
    added = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.content}
    rests = [text.partition(ANSWER)[2].partition(NEXT)[0] for text in (last, followed)]
    run, left = [], shared(*rests)
    while found := [token for token in added if left.startswith(token)]:
        run.append(max(found, key=len))
        left = left.removeprefix(run[-1])
    if run:
        return "".join(run), added[run[-1]]
    for rest in rests:
        if found := [token for token in added if token in rest]:
            token = min(found, key=lambda token: (rest.index(token), -len(token), token))
            return token, added[token]
    return tokenizer.eos_token or "", tokenizer.eos_token_id


def shared(a: str, b: str) -> str:
    """Return the text that both begin with."""
    return "".join(x for x, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
