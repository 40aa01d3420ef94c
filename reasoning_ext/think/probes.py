"""What is asked of a chat template to find out what it does with thoughts: probes rendered, and what came out read.

Used by `template.find_contract` alone, which puts the findings together.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from reasoning_ext import think
from reasoning_ext.errors import KeyProblem

USER, THOUGHT, ANSWER, NEXT = "zqjuq", "zqjtq", "zqjaq", "zqjnq"  # words that no template writes
USER_TURN, NEXT_TURN = {"role": "user", "content": USER}, {"role": "user", "content": NEXT}
REASONING_FIELDS = ("reasoning_content", "thinking")
SECONDS, BYTES = 5.0, 2**31  # that a template may take, of processor time and memory
CHARACTERS, TIMES = 1_000_000, 4  # that it may write, beside the messages so many times
TOOL_CALL = {"type": "function", "function": {"name": "zqjfq", "arguments": {}}}


class ContractError(KeyProblem):
    """A chat template cannot be used as the recipe says; `key` is the recipe's key that is to blame."""

    code = "unusable_chat_template"


class _EndlessError(BaseException):
    """No `Exception`, which a template's own compiler would pass over."""


def render(tokenizer: Any, messages: Sequence[dict[str, Any]], prompt: bool, kwargs: dict[str, Any]) -> str:
    """Render messages by a tokenizer's chat template, which is a program and need not end.

    Args:
        tokenizer: with the template.
        messages: as the template wants them.
        prompt: with the generation prompt.
        kwargs: the template's arguments.

    Raises:
        ContractError: the template runs on for too long, or writes too much.
        Exception: whatever a template raises.
    """
    try:
        with _deadline(), _bounded_memory():
            text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt, **kwargs)
    except (_EndlessError, MemoryError) as error:
        endless = f"has no end: stopped after {SECONDS:g} s of processor time"
        does = endless if isinstance(error, _EndlessError) else "has no bound: no memory for what it writes"
        raise ContractError("model_name_or_path", f"the chat template {does}") from None
    if len(text) > CHARACTERS + TIMES * sum(len(str(message)) for message in messages):
        raise ContractError("model_name_or_path", f"the chat template has no bound: it writes {len(text)} characters")
    return text


@contextlib.contextmanager
def _deadline() -> Iterator[None]:
    """Raise `_EndlessError` in what takes longer than `SECONDS` of processor time; in the main thread, where signals arrive."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise _EndlessError

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS, 1.0)  # again, where a library passes over the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextlib.contextmanager
def _bounded_memory() -> Iterator[None]:
    """Let what is done here take no more than `BYTES` beside what the process has."""
    if sys.platform != "linux":
        yield
        return
    import resource

    limits = resource.getrlimit(resource.RLIMIT_AS)
    most = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + BYTES
    known = [limit for limit in limits if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([most, *known]), limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


class Tags(NamedTuple):
    """The tags around a thought.

    Attributes:
        open, close: the tags, with the white space that the template writes with them.
        field: the message field that the template takes a thought from where its tags are not `<think>`, or "".
        lead: what the template puts before the opening tag of a thought, or None where that is not known.
    """

    open: str = think.OPEN
    close: str = think.CLOSE
    field: str = ""
    lead: str | None = None


@dataclass
class Probe:
    """A chat template that is asked to render conversations.

    Attributes:
        tokenizer: with the template.
        kwargs: the template's arguments.
        parts: message contents must be lists of parts; found by `begin`.
    """

    tokenizer: Any
    kwargs: dict[str, Any]
    parts: bool = False

    def render(self, *chat: dict[str, Any], prompt: bool = False) -> str:
        """Render messages, with the generation prompt or without; raises whatever the template raises."""
        messages = [in_parts(message) if self.parts else message for message in chat]
        return render(self.tokenizer, messages, prompt, self.kwargs)

    def attempt(self, *chat: dict[str, Any], prompt: bool = False) -> str:
        """Render messages, or return "" where the template refuses them; one without an end is refused as a whole."""
        try:
            return self.render(*chat, prompt=prompt)
        except ContractError:
            raise
        except Exception:  # a template raises whatever it likes at what it does not expect
            return ""

    def fate(self, *chat: dict[str, Any]) -> str:
        """Say what becomes of the thought in a conversation: "kept", "stripped", or "refused" where nothing is rendered."""
        rendered = self.attempt(*chat)
        return "refused" if not rendered else "kept" if THOUGHT in rendered else "stripped"

    def begin(self) -> tuple[str, str]:
        """Render a question with the generation prompt, and a question with its answer.

        Raises:
            ContractError: the template refuses them or leaves one out.
        """
        self.parts = USER not in self.attempt(USER_TURN, prompt=True)
        try:
            prompt = self.render(USER_TURN, prompt=True)
            plain = self.render(USER_TURN, {"role": "assistant", "content": ANSWER})
        except Exception as error:  # a template raises whatever it likes
            reason = " ".join(str(error).split())[:200]
            problem = f"the chat template cannot render a question and an answer: {reason}"
            raise ContractError("model_name_or_path", problem) from error
        if USER not in prompt or ANSWER not in plain:
            lost = "the question" if USER not in prompt else "the answer"
            problem = f"the chat template leaves out {lost}; set chat_template_path to another one"
            raise ContractError("model_name_or_path", problem)
        return prompt, plain

    def tags(self, prompt: str) -> Tags:
        """Find the tags that the template puts around a thought that it takes from a field of its own, else `<think>`.

        Args:
            prompt: a question with the generation prompt.
        """
        base = split_prompt(prompt)[0]
        for field in REASONING_FIELDS:
            shown = self.attempt(USER_TURN, {"role": "assistant", "content": ANSWER, field: THOUGHT})
            if THOUGHT in shown and ANSWER in shown and shown.startswith(base):
                before, _, rest = shown[len(base) :].partition(THOUGHT)
                between = rest.partition(ANSWER)[0]
                if think.OPEN in before and think.CLOSE in between:
                    return Tags(lead=before.partition(think.OPEN)[0])
                return Tags(before, between, field, "")
        return self._tags_before_a_call(base)

    def _tags_before_a_call(self, base: str) -> Tags:
        """Ask for a thought in front of a tool call, the only place where some templates (Gemma 4) write one."""
        for field in REASONING_FIELDS:
            call = {"role": "assistant", "content": "", "tool_calls": [TOOL_CALL]}
            shown, bare = (self.attempt(USER_TURN, call | more) for more in ({field: THOUGHT}, {}))
            if THOUGHT not in shown or not shown.startswith(base) or not bare.startswith(base):
                continue
            before, _, rest = shown[len(base) :].partition(THOUGHT)
            tail = len(_shared(rest[::-1], bare[len(base) :][::-1]))
            closed = rest[: len(rest) - tail]
            if before.strip() and closed.strip() and think.OPEN not in before:
                return Tags(before, closed, field, "")
        return Tags()


def in_parts(message: dict[str, Any]) -> dict[str, Any]:
    """Write a message's text as a list of parts, as templates of models that also see images want it."""
    text = message.get("content")
    return {**message, "content": [{"type": "text", "text": text}]} if isinstance(text, str) else message


def split_prompt(prompt: str, opened: str = think.OPEN, closed: str = think.CLOSE) -> tuple[str, str, str]:
    """Take what the generation prompt wrote of the completion off its end.

    Returns:
        `(the prompt before it, an opening tag and white space or "", an empty thought or "")`.
    """
    opened, closed = opened.strip(), closed.strip()
    before, found, tail = prompt.rpartition(opened)
    if found and not tail.strip():
        return before, opened + tail, ""
    inside, found_close, after = tail.partition(closed)
    if found and found_close and not inside.strip() and not after.strip():
        return before, "", opened + tail
    return prompt, "", ""


def turn_end(tokenizer: Any, last: str, followed: str) -> tuple[str, int | None]:
    """Find what ends a turn: the added tokens behind the answer, whether or not a turn follows, else the next one's opener.

    Args:
        tokenizer: knows the added tokens.
        last: a question and its answer, rendered.
        followed: the same with a further question.

    Returns:
        `(the text of one or more tokens, the id of the last of them)`.
    """
    added = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.content}
    rests = [text.partition(ANSWER)[2].partition(NEXT)[0] for text in (last, followed)]
    run, shared = [], _shared(*rests)
    while found := [token for token in added if shared.startswith(token)]:
        run.append(max(found, key=len))
        shared = shared.removeprefix(run[-1])
    if run:
        return "".join(run), added[run[-1]]
    for rest in rests:
        found = [token for token in added if token in rest]
        if found:
            token = min(found, key=lambda token: (rest.index(token), -len(token), token))
            return token, added[token]
    return tokenizer.eos_token or "", tokenizer.eos_token_id


def _shared(a: str, b: str) -> str:
    """Return the text that both begin with."""
    return a[: next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))]
