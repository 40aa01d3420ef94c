"""How a chat template writes calls, found out by rendering: words that no template writes, and what came out between them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from reasoning_ext import think
from reasoning_ext.think import probes
from reasoning_ext.think.call_bodies import Bare, Body, Json, Python, Tagged
from reasoning_ext.think.call_format import NAME, CallFormat
from reasoning_ext.think.messages import TOOLS, Call, as_text, call_of

NAMED, OTHER, RESULT = "zqjfq", "zqjgq", "zqjrq"  # words that no template writes
KEY, VALUE, KEY2, VALUE2 = "zqjkq", "zqjvq", "zqjlq", "zqjwq"
ONE, TWO = {KEY: VALUE}, {KEY: VALUE, KEY2: VALUE2}
PROOFS: tuple[list[Call], ...] = (
    [call_of(NAMED, {})],
    [call_of(NAMED, {KEY: 'a "b" \\ {c} é\n  d', KEY2: 7})],
    [call_of(NAMED, {KEY: "7", "zqjnq": [1, {"x": [True, None, "y"]}], "zqjoq": False}), call_of(OTHER, ONE)],
)
TYPES = {name: {KEY: {"type": "string"}, KEY2: {"type": ["integer", "string"]}} for name in (NAMED, OTHER)}


class _Finder:
    """A tokenizer whose template is asked for calls."""

    def __init__(self, tokenizer: Any, kwargs: dict[str, Any]):
        self.tokenizer, self.probe = tokenizer, probes.Probe(tokenizer, kwargs)
        self.prompt, self.plain = self.probe.begin()
        self.base = probes.split_prompt(self.prompt)[0]
        self.tags = self.probe.tags(self.base)
        self.text_arguments = False
        self.added = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if len(token.content) > 1}

    def turn(self, *calls: Call, results: int = 0, content: str = "", thought: tuple[str, str] | None = None) -> str:
        """Render a turn that calls, from where the turn begins; "" where the template refuses it."""
        if self.text_arguments:
            calls = tuple(as_text(calls))
        answers = [{"role": "tool", "name": NAMED, "content": RESULT}] * results
        message = {"role": "assistant", "content": content, "tool_calls": list(calls)} | dict(
            [thought] if thought else []
        )
        text = self.probe.attempt(probes.USER_TURN, message, *answers, prompt=bool(results))
        return text.removeprefix(self.base) if text.startswith(self.base) else text.partition(probes.USER)[2]

    def behind(self, text: str, name: str = NAMED, before: str = KEY) -> tuple[str, str]:
        """Split a rendered turn at the last `name` before a word; ValueError where they are not in it in this order."""
        at = text.rindex(name, 0, text.index(before))
        return text[:at], text[at + len(name) :]

    def words(self, *values: Any) -> dict[str, str]:
        """Return how the template writes values, by `repr`."""
        turns = {repr(value): self.turn(call_of(NAMED, {KEY: value, KEY2: VALUE2})) for value in values}
        return {name: text.partition(KEY)[2].partition(KEY2)[0] for name, text in turns.items()}


def find_calls(tokenizer: Any, chat_template_kwargs: dict[str, Any]) -> CallFormat:
    """Find out by rendering how a template writes calls and results; ContractError where that cannot be read back."""
    finder = _Finder(tokenizer, chat_template_kwargs)
    for finder.text_arguments in (False, True):
        text = finder.turn(call_of(NAMED, ONE), results=1)
        if all(word in text for word in (NAMED, KEY, VALUE, RESULT)):
            break
    else:
        raise _unusable(f"it leaves out some of a call and its result {finder.probe.refusal}".strip())
    try:
        found = _assembled(finder)
    except ValueError as error:
        raise _unusable(f"how it writes calls was not understood: {error}") from error
    proof = dataclasses.replace(found, types=TYPES)
    for calls in PROOFS if found.between is not None else [calls[:1] for calls in PROOFS]:
        texts = {"it writes": finder.turn(*calls)}
        try:
            texts["is written"] = proof.write("", calls)
        except ValueError as error:
            raise _unusable(str(error)) from error
        for how, text in texts.items():
            if proof.parse(text)[1:] != (calls, ""):
                raise _unusable(f"a call that {how} as {text!r} is read back as {proof.parse(text)[1:]}"[:600])
    return dataclasses.replace(found, types=types_of(chat_template_kwargs.get(TOOLS) or []))


def _unusable(why: str) -> probes.ContractError:
    return probes.ContractError("model_name_or_path", f"the chat template cannot be used with tools: {why}")


def types_of(schemas: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Return the parameters of functions by their schemas: `{function: {parameter: its schema}}`."""
    functions = [schema.get("function", schema) for schema in schemas if isinstance(schema, dict)]
    return {f["name"]: (f.get("parameters") or {}).get("properties") or {} for f in functions if "name" in f}


def _assembled(finder: _Finder) -> CallFormat:
    """Put a format together from what is rendered; ValueError where a piece is not where it should be."""
    one = call_of(NAMED, ONE)
    head, rest = finder.behind(finder.turn(one))
    body, middle = _body(finder, rest)
    written = middle + body.write(ONE)
    last, followed = (_cut(finder.behind(finder.turn(one, results=n))[1], written) for n in (0, 1))
    two, joint = finder.turn(one, call_of(OTHER, {KEY2: VALUE2})), None
    if OTHER in two:
        joint = finder.behind(_cut(finder.behind(two)[1], written), OTHER, KEY2)[0]
    tail, end = _end(finder, last, followed, joint)
    close = tail if joint is None else probes.shared(tail, joint)
    before, closed, behind = head.rpartition(finder.tags.close.strip())
    opening = (behind if closed else head).lstrip()
    bare = before.partition(finder.tags.open.strip())[0] if closed else head[: len(head) - len(opening)]
    lead, thought_end = _leads(finder, opening)
    return CallFormat(
        head=opening.replace(NAMED, NAME),
        middle=middle,
        body=body,
        close=close,
        between=None if joint is None else joint.removeprefix(close).replace(OTHER, NAME),
        finish=tail.removeprefix(close),
        bare=bare,
        lead=lead,
        thought_end=thought_end,
        end=end,
        end_id=finder.added.get(end) or finder.tokenizer.convert_tokens_to_ids(_last(finder, end)),
        prefix=probes.split_prompt(finder.turn(one, results=1), finder.tags.open, finder.tags.close)[1],
        text_arguments=finder.text_arguments,
        tokens=tuple(sorted(token for token in finder.added if token.strip())),
        roles=_roles(finder),
    )


def _cut(text: str, beginning: str) -> str:
    if not text.startswith(beginning):
        raise ValueError(f"{text[: len(beginning)]!r} is not {beginning!r}")
    return text[len(beginning) :]


def _leads(finder: _Finder, opening: str) -> tuple[str, str]:
    """Find what stands before the first call: behind words, and behind a thought of own tags where that does not end as usual."""
    lead = thought_end = ""
    tags, one = finder.tags, call_of(NAMED, ONE)
    if tags.field and tags.open.strip() != think.OPEN:
        turn = finder.turn(one, thought=(tags.field, probes.THOUGHT))
        _, thought, gap = finder.behind(turn)[0].rpartition(probes.THOUGHT)
        ended = gap.removesuffix(opening)
        if thought and ended.strip() != tags.close.strip():
            lead = thought_end = ended
    _, said, gap = finder.behind(finder.turn(one, content=probes.ANSWER))[0].rpartition(probes.ANSWER)
    return (gap.removesuffix(opening) if said and gap.endswith(opening) else lead), thought_end


def _end(finder: _Finder, last: str, followed: str, joint: str | None) -> tuple[str, str]:
    """Find what ends a turn that calls: `(what stands between the arguments and it, the end)`.

    It is what ends other turns, else the first token behind what a last call and one before another have in common.
    """
    more = finder.probe.attempt(probes.USER_TURN, probes.ANSWER_TURN, probes.NEXT_TURN)
    usual = probes.turn_end(finder.tokenizer, finder.plain, more)[0]
    common = probes.shared(last, followed)
    if usual and usual in common:
        return common.partition(usual)[0], usual
    tail = _whole(finder, probes.shared(joint, last) if joint is not None else "", followed)
    found = ((followed.find(token, len(tail)), -len(token), token) for token in finder.added)
    if not (ends := [end for end in found if end[0] >= 0]):
        raise ValueError("no token ends a turn that calls")
    at, _, token = min(ends)
    return followed[:at], token


def _whole(finder: _Finder, tail: str, followed: str) -> str:
    """Cut a beginning of a text before the token that it ends in the middle of."""
    for token in finder.added:
        for at in range(max(0, len(tail) - len(token) + 1), len(tail)):
            if followed.startswith(token, at):
                return followed[:at]
    return tail


def _last(finder: _Finder, end: str) -> str:
    """Return the last of the tokens that an end is made of."""
    return max((token for token in finder.added if end.endswith(token)), key=len, default=end)


def _body(finder: _Finder, rest: str) -> tuple[Body, str]:
    """Find the form of arguments: `(it, what stands between a name and them)`."""
    at = rest.index(KEY)
    start = rest.rfind("{", 0, at)
    try:
        if start >= 0 and json.JSONDecoder().raw_decode(rest, start)[0] == ONE:
            compact = json.dumps(TWO, separators=(",", ":")) in finder.turn(call_of(NAMED, TWO))
            return Json(compact), rest[:start]
    except ValueError:
        pass
    found = re.compile(rf"([{{(]){KEY}([:=])(\S{{1,20}}?){VALUE}\3[}})]").match(rest, at - 1) if at else None
    if found and found.group(1, 2) == ("{", ":"):
        words = {name: text.strip(":,") for name, text in finder.words(True, False, None).items()}
        return Bare(found.group(3), words), rest[: at - 1]
    if found and found.group(1, 2) == ("(", "="):
        escapes = "a\\'b" in finder.turn(call_of(NAMED, {KEY: "a'b"}))
        return Python(found.group(3), escapes, _by_str(finder)), rest[: at - 1]
    sep = rest[at + len(KEY) : rest.index(VALUE)]
    joint = finder.turn(call_of(NAMED, TWO)).partition(VALUE)[2].partition(KEY2)[0]
    opening = probes.shared(rest[:at][::-1], joint[::-1])[::-1]
    opening = opening[re.match(r"[^\s<]*", opening).end() :]  # type: ignore[union-attr]  # a bracket that closes what is before
    if not (sep.strip() and joint.removesuffix(opening).strip()):
        raise ValueError("nothing stands around an argument's value")
    return Tagged(opening, sep, joint.removesuffix(opening), _by_str(finder)), rest[:at].removesuffix(opening)


def _by_str(finder: _Finder) -> frozenset[str]:
    """Return the types of values that are written as Python does, not as JSON."""
    values = (True, None, ["y"], {"x": "y"})
    said = zip(values, finder.words(*values).values(), strict=True)
    return frozenset(
        type(value).__name__ for value, text in said if str(value) in text and json.dumps(value) not in text
    )


def _roles(finder: _Finder) -> tuple[str, ...]:
    """Return what opens a user's and an assistant's turn where no control token does."""
    more = finder.probe.attempt(probes.USER_TURN, probes.ANSWER_TURN, probes.NEXT_TURN)
    opened = finder.prompt.partition(probes.USER)[2], more.partition(probes.ANSWER)[2].partition(probes.NEXT)[0]
    lines = (text.strip().rpartition("\n")[2].strip() for text in opened)
    marks = {re.split("|".join(map(re.escape, finder.added)) or "$^", line)[-1].strip() for line in lines}
    return tuple(sorted(mark for mark in marks if len(mark) > 1 and not mark.isalnum() and "<" not in mark))
