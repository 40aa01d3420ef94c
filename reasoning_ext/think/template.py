r"""What a tokenizer and its chat template do with thoughts, found out by rendering, never by a template's name.

A chat template may open the thought in the generation prompt (DeepSeek-R1: a completion then has no opening tag,
open-r1#560, huggingface/trl#6966), close an empty one there (thinking switched off), strip thoughts from earlier
turns, strip the thought from what is trained on, or put an empty thought in front of an answer that has none
(ms-swift#4939, huggingface/trl#6363). Its tags may be special tokens, which decoding drops, and not be `<think>` at
all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reasoning_ext import think
from reasoning_ext.think import probes
from reasoning_ext.think.messages import TOOLS, as_objects, as_text
from reasoning_ext.think.probes import ContractError as ContractError

if TYPE_CHECKING:
    from reasoning_ext.think.call_format import CallFormat


@dataclass(frozen=True)
class Contract:
    """What a chat template does with thoughts."""

    open: str = think.OPEN  # the tags around a thought, as the model writes them
    close: str = think.CLOSE
    prefix: str = ""  # what the generation prompt wrote of a completion: the opening tag and the white space after it
    closed: str = ""  # the empty thought that the generation prompt wrote, where thinking is switched off
    thought_lead: str = ""  # what stands between the generation prompt and a thought
    plain_lead: str = ""  # ... and an answer without one
    end: str = ""  # what ends the assistant's turn, which is trained on and stops generation
    end_id: int | None = None  # of its last token
    history: str = "kept"  # thoughts of earlier turns are "kept", "stripped", or "refused"
    target: str = "kept"  # the same of what is trained on, if the template were asked to render it
    adds_empty: bool = False  # it would put an empty thought in front of an answer without one
    special: bool = False  # decoding without special tokens drops the tags
    parser: bool = False  # a response parser moves the thought out of the content
    parts: bool = False  # message contents must be lists of parts, `[{"type": "text", "text": ...}]`
    field: str = ""  # of a message, which the template takes a thought from where its tags are not `<think>`
    calls: CallFormat | None = None  # how it writes calls of tools and their results; None where none are asked for

    @property
    def own_tags(self) -> bool:
        """Tell whether the model writes other tags than `<think>`."""
        return (self.open.strip(), self.close.strip()) != (think.OPEN, think.CLOSE)

    @property
    def behind_results(self) -> Contract:
        """Return the contract of turns behind results, whose generation prompt need not open a thought (DeepSeek-V3)."""
        return replace(self, prefix=self.calls.prefix) if self.calls else self

    @property
    def changes_text(self) -> bool:
        """Tell whether what a trainer decodes is not yet a whole completion."""
        return bool(self.prefix or self.special or self.parser or self.own_tags)

    def whole(self, text: str) -> str:
        """Make a model's text whole: `<think>...</think>answer`, whatever its tags and whoever opened the thought."""
        text = self.prefix + text
        if not self.prefix and self.plain_lead.strip():
            text = text.removeprefix(self.plain_lead)
        # Found without the white space that the template writes with the tags: a model may leave it out.
        left, opening, right = self.open.partition(self.open.strip())
        inner, closing, outer = self.close.partition(self.close.strip())
        before, opened, rest = text.partition(opening)
        if not self.own_tags or not opened or before.strip():
            return text
        thought, closed, answer = rest.partition(closing)
        whole = f"{before.removesuffix(left)}{think.OPEN}{thought.removeprefix(right).removesuffix(inner)}"
        return whole + (f"{think.CLOSE}{answer.removeprefix(outer)}" if closed else "")

    def whole_from(self, begun: str, text: str) -> str:
        """Make whole what a model wrote behind a whole completion's beginning, `begun`, which may be empty."""
        if not begun:
            return self.whole(text)
        inner, closing, outer = self.close.partition(self.close.strip())
        thought, closed, answer = text.partition(closing)
        if not (self.own_tags and closed and think.OPEN in begun and think.CLOSE not in begun):
            return begun + text
        return f"{begun}{thought.removesuffix(inner)}{think.CLOSE}{answer.removeprefix(outer)}"

    def native(self, completion: str) -> str:
        """Write a whole completion with the model's own tags, without white space around the parts of channels."""
        inside = completion.lstrip()
        if not inside.startswith(think.OPEN):
            return self.plain_lead + completion
        if not self.own_tags:
            return self.thought_lead + inside
        thought, closed, answer = inside[len(think.OPEN) :].partition(think.CLOSE)
        if "<|" in self.open:
            thought, answer = thought.strip(), answer.strip()
        return f"{self.thought_lead}{self.open}{thought}" + (f"{self.close}{answer}" if closed else "")

    def messages(self, chat: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Write a conversation as the template wants it: thoughts in its own form, calls' arguments too, contents in parts."""
        return [self._message(think.without_nulls(message)) for message in chat]

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        if message.get("tool_calls"):
            calls = as_objects(message["tool_calls"])
            message = {**message, "tool_calls": as_text(calls) if self.calls and self.calls.text_arguments else calls}
        text = message.get("content")
        if not isinstance(text, str):
            return message
        if message["role"] == "assistant" and text.lstrip().startswith(think.OPEN):
            thought, answer = think.split(text)
            if self.field and thought is not None:
                message = {**message, "content": (answer or "").strip(), self.field: thought.strip()}
            elif self.open.strip() != think.OPEN:
                message = {**message, "content": self.native(text).removeprefix(self.thought_lead)}
        return probes.in_parts(message) if self.parts else message


@dataclass(frozen=True)
class Decoder:
    """Makes whole completions of the ids that a model wrote; `stop_ids` end a completion or pad it."""

    tokenizer: Any
    contract: Contract
    stop_ids: frozenset[int] = frozenset()

    @property
    def changes_nothing(self) -> bool:
        """Tell whether a text that a trainer has decoded, without special tokens, is whole as it is."""
        cleans = getattr(self.tokenizer, "clean_up_tokenization_spaces", False)
        ends = self.stop_ids - {*self.tokenizer.all_special_ids}  # what a trainer would leave in the text
        return not (self.contract.changes_text or self.contract.plain_lead.strip() or cleans or ends)

    def __call__(self, ids: Sequence[int], begun: str = "", stop: str = "", behind_results: bool = False) -> str:
        """Return `<think>...</think>answer` for one completion's ids behind its beginning, ends and padding left out.

        What stands behind the first `stop` that the model wrote is left out too. A turn may stand behind results of tools.
        """
        end = len(ids)
        while end and ids[end - 1] in self.stop_ids:
            end -= 1
        text = decode(self.tokenizer, ids[:end], not self.contract.special)
        if stop:
            before, found, _ = text.partition(stop)
            text = before + found
        contract = self.contract.behind_results if behind_results else self.contract
        return contract.whole_from(begun, text)

    def stopped(self, ids: Sequence[int], stop: str) -> int:
        """Return how many of a completion's ids there are up to the one in which `stop` ends, or all."""
        return bisect_left(range(len(ids)), True, key=lambda count: self.has(ids[:count], stop)) if stop else len(ids)

    def has(self, ids: Sequence[int], text: str) -> bool:
        """Tell whether a text stands in what some ids say."""
        return text in decode(self.tokenizer, ids, not self.contract.special)

    def messages(self, completions: list, completion_ids: list[list[int]]) -> list:
        """Write whole completions in TRL's form; those of several messages (tools) are left alone."""
        return [self._in_form(*pair) for pair in zip(completions, completion_ids, strict=True)]

    def _in_form(self, completion: Any, ids: list[int]) -> Any:
        if isinstance(completion, str):
            return self(ids)
        return [{"role": "assistant", "content": self(ids)}] if len(completion) == 1 else completion


def decoder(tokenizer: Any, contract: Contract) -> Decoder:
    """Build the decoder of a tokenizer and its contract."""
    ends = tokenizer(contract.end, add_special_tokens=False)["input_ids"]  # of more than one token in some templates
    stops = {contract.end_id, tokenizer.eos_token_id, tokenizer.pad_token_id, *ends} - {None}
    if contract.calls and contract.calls.end_id is not None:
        stops |= {contract.calls.end_id}
    return Decoder(tokenizer, contract, frozenset(stops))


def decode(tokenizer: Any, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
    """Decode ids to the letter: some tokenizers would take the space off before a full stop."""
    return tokenizer.decode(ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False)


def find_contract(
    tokenizer: Any, chat_template_kwargs: dict[str, Any] | None = None, think_tags: Sequence[str] | None = None
) -> Contract:
    """Find out by rendering what a tokenizer's chat template does with thoughts; ContractError where it renders none.

    `think_tags` are the opening and the closing tag, where the model's are neither `<think>` nor known to the template.
    """
    probe = probes.Probe(tokenizer, chat_template_kwargs or {})
    prompt, plain = probe.begin()
    tags = probes.Tags(*think_tags) if think_tags else probe.tags(probes.split_prompt(prompt)[0])
    opening, closing = tags.open.strip(), tags.close.strip()
    base, prefix, empty = probes.split_prompt(prompt, opening, closing)
    said = plain[len(base) :].partition(probes.ANSWER)[0] if plain.startswith(base) else ""
    adds_empty = opening in said or closing in said
    plain_lead = said.partition(opening)[0] if adds_empty else said
    lead = tags.lead if tags.lead is not None else "" if "<|" in tags.open else plain_lead
    followed = probe.attempt(probes.USER_TURN, probes.ANSWER_TURN, probes.NEXT_TURN)
    whole = probes.ANSWER_TURN | {"content": think.join(probes.THOUGHT, probes.ANSWER)}
    [traced] = Contract(tags.open, tags.close, field=tags.field).messages([whole])
    calls = None
    if TOOLS in (chat_template_kwargs or {}):
        from reasoning_ext.think.call_finding import find_calls

        calls = find_calls(tokenizer, chat_template_kwargs or {})
    marks = (tags.open, tags.close, *((calls.head, calls.close, calls.finish) if calls else ()))
    fates = [probe.attempt(probes.USER_TURN, traced, *more) for more in ([probes.NEXT_TURN], [])]
    history, target = ("refused" if not f else "kept" if probes.THOUGHT in f else "stripped" for f in fates)
    return Contract(
        *(tags.open, tags.close, prefix, empty, lead, plain_lead),
        *probes.turn_end(tokenizer, plain, followed),
        history=history,
        target=target,
        adds_empty=adds_empty,
        special=any(_dropped(tokenizer, mark) for mark in marks),
        parser=any(getattr(tokenizer, name, None) for name in ("response_template", "response_schema")),
        parts=probe.parts,
        field=tags.field,
        calls=calls,
    )


def _dropped(tokenizer: Any, tag: str) -> bool:
    """Tell whether decoding without special tokens loses some of a tag."""
    ids = tokenizer(tag, add_special_tokens=False)["input_ids"]
    return "".join(tokenizer.decode(ids, skip_special_tokens=True).split()) != "".join(tag.split())
