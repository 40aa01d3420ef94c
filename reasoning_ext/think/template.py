r"""What a tokenizer and its chat template do with thoughts, found out by rendering, and training rows rendered by it.

A chat template may open the thought in the generation prompt (DeepSeek-R1: a completion then has no opening tag,
open-r1#560, huggingface/trl#6966), close an empty one there (thinking switched off), strip thoughts from earlier turns, strip
the thought from what is trained on, or put an empty thought in front of an answer that has none (ms-swift#4939,
huggingface/trl#6363). Its tags may be special tokens, which decoding drops, and not be `<think>` at all. Nothing here knows a
template by its name: `find_contract` renders probes and reads what came out.

A training row is the generation prompt as inference renders it, then the completion as it stands in the data, then the
token that ends a turn. The template never sees the completion, so that it cannot change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reasoning_ext import think
from reasoning_ext.think.probes import (
    ANSWER,
    NEXT_TURN,
    THOUGHT,
    USER_TURN,
    Probe,
    Tags,
    in_parts,
    split_prompt,
    turn_end,
)
from reasoning_ext.think.probes import ContractError as ContractError


@dataclass(frozen=True)
class Contract:
    """What a chat template does with thoughts.

    Attributes:
        open, close: the tags around a thought, as the model writes them.
        prefix: what the generation prompt already wrote of a completion: the opening tag and the white space after it, or "".
        closed: the empty thought that the generation prompt wrote, where thinking is switched off, or "".
        thought_lead, plain_lead: what stands between the generation prompt and a thought, or an answer without one.
        end: the text of the token that ends the assistant's turn, which is trained on and stops generation.
        end_id: its id.
        history: whether thoughts of earlier turns are "kept", "stripped", or never rendered because the template refuses them.
        target: what the template itself would make of a row to train on: "kept", "stripped", "refused"; it is not asked to.
        adds_empty: the template itself puts an empty thought in front of an answer without one; it is not asked to.
        special: decoding without special tokens drops the tags.
        parser: a response parser moves the thought out of the content.
        parts: message contents must be lists of parts, `[{"type": "text", "text": ...}]`.
        field: the message field that the template takes a thought from where its tags are not `<think>`, or "".
    """

    open: str = think.OPEN
    close: str = think.CLOSE
    prefix: str = ""
    closed: str = ""
    thought_lead: str = ""
    plain_lead: str = ""
    end: str = ""
    end_id: int | None = None
    history: str = "kept"
    target: str = "kept"
    adds_empty: bool = False
    special: bool = False
    parser: bool = False
    parts: bool = False
    field: str = ""

    @property
    def own_tags(self) -> bool:
        """Tell whether the model writes other tags than `<think>`."""
        return (self.open.strip(), self.close.strip()) != (think.OPEN, think.CLOSE)

    @property
    def changes_text(self) -> bool:
        """Tell whether what a trainer decodes is not yet a whole completion."""
        return bool(self.prefix or self.special or self.parser or self.own_tags)

    def whole(self, text: str) -> str:
        """Make a generated text whole: `<think>...</think>answer`, whatever the tags and whoever wrote the opening one.

        Args:
            text: what the model wrote after the generation prompt, its tags included, without the end of the turn.
        """
        text = self.prefix + text
        if not self.prefix and self.plain_lead.strip():
            text = text.removeprefix(self.plain_lead)
        if not self.own_tags:
            return text
        # Found without the white space that the template writes with the tags: a model may leave it out.
        (left, opening, right), (before_close, closing, after_close) = _sides(self.open), _sides(self.close)
        before, opened, rest = text.partition(opening)
        if not opened or before.strip():
            return text
        thought, closed, answer = rest.partition(closing)
        thought = thought.removeprefix(right).removesuffix(before_close)
        whole = f"{before.removesuffix(left)}{think.OPEN}{thought}"
        return whole + (f"{think.CLOSE}{answer.removeprefix(after_close)}" if closed else "")

    def native(self, completion: str) -> str:
        """Write a whole completion with the model's own tags; the white space around the parts goes with tags of channels."""
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
        """Write a conversation as the template wants it: thoughts of earlier turns in its own form, contents in parts."""
        return [self._message(think.without_nulls(message)) for message in chat]

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        text = message.get("content")
        if not isinstance(text, str):
            return message
        if message["role"] == "assistant" and text.lstrip().startswith(think.OPEN):
            thought, answer = think.split(text)
            if self.field and thought is not None:
                message = {**message, "content": (answer or "").strip(), self.field: thought.strip()}
            elif self.open.strip() != think.OPEN:
                message = {**message, "content": self.native(text).removeprefix(self.thought_lead)}
        return in_parts(message) if self.parts else message


def _sides(tag: str) -> tuple[str, str, str]:
    """Take a tag apart: the white space before it, the tag, the white space behind it."""
    before, inside, after = tag.partition(tag.strip())
    return before, inside, after


@dataclass(frozen=True)
class Decoder:
    """Makes whole completions of the token ids that a model wrote: for rewards, sampling, evaluation and reports.

    Attributes:
        tokenizer: the model's.
        contract: what its chat template does.
        stop_ids: tokens that end a completion, and padding.
    """

    tokenizer: Any
    contract: Contract
    stop_ids: frozenset[int] = frozenset()

    @property
    def changes_nothing(self) -> bool:
        """Tell whether a text that a trainer has decoded, without special tokens, is whole as it is."""
        cleans = getattr(self.tokenizer, "clean_up_tokenization_spaces", False)
        ends = self.stop_ids - {*self.tokenizer.all_special_ids}  # what a trainer would leave in the text
        return not (self.contract.changes_text or self.contract.plain_lead.strip() or cleans or ends)

    def __call__(self, ids: Sequence[int]) -> str:
        """Return `<think>...</think>answer` for one completion's ids, opening tag included, ends and padding left out."""
        end = len(ids)
        while end and ids[end - 1] in self.stop_ids:
            end -= 1
        text = decode(self.tokenizer, ids[:end], not self.contract.special)
        return self.contract.whole(text)

    def messages(self, completions: list, completion_ids: list[list[int]]) -> list:
        """Write whole completions in the form that TRL has them in; those of several messages (tools) are left alone."""
        made: list = []
        for completion, ids in zip(completions, completion_ids, strict=True):
            if isinstance(completion, str):
                made.append(self(ids))
            else:
                one = len(completion) == 1
                made.append([{"role": "assistant", "content": self(ids)}] if one else completion)
        return made


def decoder(tokenizer: Any, contract: Contract) -> Decoder:
    """Build the decoder of a tokenizer and its contract."""
    ends = tokenizer(contract.end, add_special_tokens=False)["input_ids"]  # of more than one token in some templates
    stops = {contract.end_id, tokenizer.eos_token_id, tokenizer.pad_token_id, *ends} - {None}
    return Decoder(tokenizer, contract, frozenset(stops))


def decode(tokenizer: Any, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
    """Decode ids to the letter: some tokenizers would take the space off before a full stop."""
    return tokenizer.decode(ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False)


def find_contract(
    tokenizer: Any, chat_template_kwargs: dict[str, Any] | None = None, think_tags: Sequence[str] | None = None
) -> Contract:
    """Find out by rendering what a tokenizer's chat template does with thoughts.

    Args:
        tokenizer: a tokenizer with a chat template.
        chat_template_kwargs: passed on to the template, `{"enable_thinking": True}` for example.
        think_tags: the opening and the closing tag, where the model's are neither `<think>` nor known to the template.

    Raises:
        ContractError: the template cannot render a question and an answer.
    """
    probe = Probe(tokenizer, chat_template_kwargs or {})
    prompt, plain = probe.begin()
    tags = Tags(*think_tags) if think_tags else probe.tags(prompt)
    base, prefix, empty = split_prompt(prompt, tags.open, tags.close)
    said = plain[len(base) :].partition(ANSWER)[0] if plain.startswith(base) else ""
    has_tags = tags.open.strip() in said or tags.close.strip() in said
    plain_lead = said.partition(tags.open.strip())[0] if has_tags else said
    lead = tags.lead if tags.lead is not None else "" if "<|" in tags.open else plain_lead
    answer = {"role": "assistant", "content": ANSWER}
    end, end_id = turn_end(tokenizer, plain, probe.attempt(USER_TURN, answer, NEXT_TURN))
    whole = f"{think.OPEN}\n{THOUGHT}\n{think.CLOSE}\n\n{ANSWER}"
    [traced] = Contract(open=tags.open, close=tags.close, field=tags.field).messages([answer | {"content": whole}])
    return Contract(
        open=tags.open,
        close=tags.close,
        prefix=prefix,
        closed=empty,
        thought_lead=lead,
        plain_lead=plain_lead,
        end=end,
        end_id=end_id,
        history=probe.fate(USER_TURN, traced, NEXT_TURN),
        target=probe.fate(USER_TURN, traced),
        adds_empty=has_tags,
        special=any(_dropped(tokenizer, tag) for tag in (tags.open, tags.close)),
        parser=any(getattr(tokenizer, name, None) for name in ("response_template", "response_schema")),
        parts=probe.parts,
        field=tags.field,
    )


def _dropped(tokenizer: Any, tag: str) -> bool:
    """Tell whether decoding without special tokens loses some of a tag."""
    ids = tokenizer(tag, add_special_tokens=False)["input_ids"]
    return "".join(tokenizer.decode(ids, skip_special_tokens=True).split()) != "".join(tag.split())
