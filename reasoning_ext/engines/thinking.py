r"""Thoughts of at least and at most so many tokens, over any engine: budget forcing (s1, arXiv:2501.19393) in rounds.

The engine draws, what it wrote is cut or gets a text put behind it, and the engine goes on from there:

    min_thinking      a completion that opens no thought is begun anew with the opening tag; a thought that closes too
                      early loses its end, gets "\nWait" in its place and goes on, eight times at most; while it is
                      empty, an engine that tells tokens draws one that does not close it, and nothing is put there
    thinking_budget   a thought that is open after so many tokens is closed, and the answer goes on with what is left

With either, a thought in which the turn ends is closed too, so that there is an answer. A turn that calls a tool is left as
it is, and each turn of a completion is bounded by itself.

transformers could do so with a logits processor and vLLM with a parameter of its own; this is one mechanism for all
engines, servers too, so that the same tokens are put in the same places. Its price: with every round the prompt and
what there is of the completion are read again (vLLM and most servers have both in their prefix cache), and what is cut
off was drawn for nothing and is not counted. Each round has a seed of its own, and each completion a number, so that
it is the same in any batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from reasoning_ext.engines.base import Completion, Engine, Key, SamplingSettings, begun, key_seed
from reasoning_ext.think import CLOSE, OPEN
from reasoning_ext.think.render import count_tokens, render_begun
from reasoning_ext.think.template import Contract

WAIT = "\nWait"
MOST_WAITS = 8  # of one completion; a thought that closes nevertheless is accepted
LETTERS_A_TOKEN = 4  # where an engine has no tokenizer


@dataclass
class Draft:
    """A completion on its way, which an engine has drawn for `limit` tokens last.

    Attributes:
        last: the part that was drawn last, whose text is the whole completion so far.
        prompt: its messages, without a beginning of the completion.
        begun: the beginning that the prompt brought along.
        ids: of all parts, those that were put there among them; none where the engine tells none.
        drawn: the mean log-probability of each part, and of how many tokens that are still there.
    """

    last: Completion
    prompt: list[dict[str, str]]
    begun: str
    limit: int
    ids: list[int] = field(default_factory=list)
    tokens: int = 0
    forced: int = 0
    waits: int = 0
    drawn: list[tuple[float | None, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.add(self.last, self.limit)

    def add(self, part: Completion, limit: int) -> None:
        """Take in what the engine has drawn; a server that counts no tokens is taken to have used up its limit."""
        count = part.tokens or (1 if part.finished else limit)
        if not self.drawn or part.logprob is not None or part.text != self.last.text:  # a server may say nothing more
            self.drawn.append((part.logprob, count))
        self.last, self.limit = part, limit
        self.ids, self.tokens = self.ids + part.ids, self.tokens + count
        self.cut_off = not part.finished and not part.error and count >= limit

    @property
    def thinks(self) -> bool:
        """Tell whether there can be a thought to bound: a beginning without an open one has none."""
        return not self.begun or (OPEN in self.begun and CLOSE not in self.begun)

    @property
    def is_empty(self) -> bool:
        """Tell whether the thought has been opened, and nothing been thought."""
        return self.last.text.rstrip().endswith(OPEN)

    @property
    def is_open(self) -> bool:
        """Tell whether the thought is open."""
        return OPEN in self.last.text and CLOSE not in self.last.text

    def completion(self, first: Completion) -> Completion:
        """Return the completion of which the engine drew `first` in the first round."""
        if self.last is first or self.last.error:
            return replace(self.last, prompt=first.prompt)
        count = sum(tokens for _, tokens in self.drawn)
        means = [(mean, tokens) for mean, tokens in self.drawn if mean is not None]
        known = count and len(means) == len(self.drawn)
        logprob = sum(mean * tokens for mean, tokens in means) / count if known else None
        key, text = (first.prompt, first.sample), self.last.text
        return Completion(*key, text, self.ids, self.last.finished, self.tokens, "", logprob, self.forced)


class ThinkingEngine:
    """Answers as the engine `inner`, which knows no budget, and bounds thoughts as the settings say; see `base.Engine`.

    A completion's `forced` tokens are counted by the engine's tokenizer, and its ids are as that reads the text of
    earlier rounds; where there is none, about four characters are a token. Its `logprob` is the mean over the parts by
    their tokens, for which a part that was cut counts with the mean of all that was drawn for it. Settings with a
    `stop` bound no thought.
    """

    def __init__(self, inner: Engine):
        self.inner = inner
        self.tokenizer: Any = getattr(inner, "tokenizer", None)
        self.contract: Contract = getattr(inner, "contract", None) or Contract()

    def generate(
        self, prompts: Sequence[list[dict[str, str]]], keys: Sequence[Key], settings: SamplingSettings
    ) -> Iterator[list[Completion]]:
        """Answer keys as `base.Engine` says; a batch of the engine's is yielded once its thoughts are bounded."""
        plain = replace(settings, thinking_budget=None, min_thinking=None)
        if settings.stop or plain == settings:
            yield from self.inner.generate(prompts, keys, plain)
            return
        most = settings.thinking_budget or settings.max_completion_length
        limits = {key: min(limit, most) for key, limit in settings.limits.items()}
        first = replace(plain, max_completion_length=most, limits=limits)
        for batch in self.inner.generate(prompts, keys, first):
            yield self._bounded(prompts, batch, settings, first)

    def close(self) -> None:
        """Close the engine."""
        self.inner.close()

    def _bounded(
        self, prompts: Sequence, batch: list[Completion], settings: SamplingSettings, first: SamplingSettings
    ) -> list[Completion]:
        """Go on with a batch's completions, round after round, until each is as the settings want it."""
        drafts = []
        for one in batch:
            messages, start = prompts[one.prompt], begun(prompts[one.prompt])
            limit = first.limit((one.prompt, one.sample))
            drafts.append(Draft(one, messages[:-1] if start else messages, start, limit))
        number = 0
        while True:
            number += 1
            limits: dict[Key, int] = {}
            asked: dict[int, Draft] = {}
            for one, draft in zip(batch, drafts, strict=True):
                if limit := self._next(draft, settings, settings.limit((one.prompt, one.sample))):
                    row = key_seed(0, one.prompt, one.sample)
                    while row in asked:  # two in so many that hardly anybody will see it
                        row = (row + 1) % 2**31
                    limits[row, one.sample], asked[row] = limit, draft
            if not asked:
                return [draft.completion(one) for draft, one in zip(drafts, batch, strict=True)]
            rows: Any = {row: [*draft.prompt, _message(draft.last.text)] for row, draft in asked.items()}
            seed, most = key_seed(settings.seed, -1, number), max(limits.values())
            again = replace(first, seed=seed, max_completion_length=most, limits=limits)
            for hold_back in (False, True):
                keys = [key for key in limits if self._holds_back(asked[key[0]], settings) == hold_back]
                for parts in self.inner.generate(rows, keys, replace(again, hold_back=hold_back)) if keys else ():
                    for part in parts:
                        asked[part.prompt].add(part, limits[part.prompt, part.sample])

    def _next(self, draft: Draft, settings: SamplingSettings, most: int) -> int:
        """Cut and put what the settings ask for; return for how many tokens it goes on, 0 where it is done."""
        budget, last = settings.thinking_budget, draft.last
        least, text = settings.min_thinking or 0, last.text.rstrip("\ufffd" * draft.cut_off)
        if last.error or self._calls(last):
            return 0
        kept, done = _thought(text), last.finished or draft.tokens >= (budget or most)
        wait = "" if self.tokenizer and kept.endswith(OPEN) else WAIT
        if draft.thinks and least and OPEN not in kept:
            self._put(draft, "", OPEN if self.contract.own_tags else self.contract.open, settings, most)
        elif (
            draft.thinks
            and draft.waits < MOST_WAITS
            and self._short(draft, least, settings)
            and self._put(draft, kept, wait, settings, most)
        ):
            draft.waits += 1
        elif draft.thinks and draft.is_open and draft.tokens < most and done:
            text = _without_part(text)
            if not self._put(draft, text, _closing(text, self.contract), settings, most):
                return 0
        elif draft.cut_off and draft.tokens < most and text.strip():
            self._put(draft, text, "", settings, most)
        else:
            return 0
        if self._holds_back(draft, settings):
            return 1
        ceiling = budget if budget and draft.thinks and draft.is_open else most
        return max(0, min(max(1, ceiling - draft.tokens), most - draft.tokens))

    def _calls(self, last: Completion) -> bool:
        """Tell whether a turn has ended with calls of tools, or with what was meant to be one."""
        calls = self.contract.calls
        return bool(calls and last.finished and any(calls.parse(last.text)[1:]))

    def _holds_back(self, draft: Draft, settings: SamplingSettings) -> bool:
        """Tell whether the next token, which is drawn alone then, must not close a thought that is empty."""
        return bool(settings.min_thinking and self.tokenizer and draft.thinks and draft.is_empty)

    def _short(self, draft: Draft, least: int, settings: SamplingSettings) -> bool:
        """Tell whether a thought has closed, or its turn has ended, before so many tokens behind the opening tag."""
        text = draft.last.text
        if not least or not (CLOSE in text or draft.last.finished):
            return False
        before, opened, _ = text.partition(OPEN)
        begins = self._count(draft, before + opened, settings) if opened else 0
        return self._count(draft, _thought(text), settings) - begins < least

    def _put(self, draft: Draft, kept: str, forced: str, settings: SamplingSettings, most: int) -> bool:
        """Leave of a draft the text that is kept, and put another one behind it; False where that has no room in `most`."""
        before, (mean, drawn) = self._count(draft, kept, settings), draft.drawn[-1]
        ids = self._ids(draft, kept + forced, settings) if self.tokenizer else []
        tokens = len(ids) if self.tokenizer else before + -(-len(forced) // LETTERS_A_TOKEN)
        if forced and tokens > most:
            return False
        draft.drawn[-1] = (mean, max(0, drawn - max(0, draft.tokens - before)))
        draft.ids, draft.tokens = ids, tokens
        draft.forced += max(1, draft.tokens - before) if forced else 0
        draft.last = replace(draft.last, text=kept + forced, finished=False)
        return True

    def _count(self, draft: Draft, kept: str, settings: SamplingSettings) -> int:
        """Return how many tokens the kept part of a draft's text has, without a tokenizer by its share of letters."""
        if self.tokenizer:
            return len(self._ids(draft, kept, settings))
        size = max(1, len(draft.last.text) - len(draft.begun))
        return round(draft.tokens * max(0, len(kept) - len(draft.begun)) / size)

    def _ids(self, draft: Draft, text: str, settings: SamplingSettings) -> list[int]:
        """Return the ids of a completion so far as the model reads them behind the prompt and its beginning."""
        begins = [*draft.prompt, _message(draft.begun)] if draft.begun else draft.prompt
        whole = [*draft.prompt, _message(text)] if text else begins
        rendered = [
            render_begun(self.tokenizer, self.contract, chat, settings.chat_template_kwargs) for chat in (begins, whole)
        ]
        ids = self.tokenizer(rendered[1], add_special_tokens=False, verbose=False)["input_ids"]
        return ids[count_tokens(self.tokenizer, rendered[0]) :]


def _thought(text: str) -> str:
    """Return a completion up to the end of its thought."""
    return text.partition(CLOSE)[0].rstrip()


def _without_part(text: str) -> str:
    """Return a thought without the beginning of a closing tag, in which it was cut off."""
    return next((text[:-n] for n in range(len(CLOSE) - 1, 1, -1) if text.endswith(CLOSE[:n])), text)


def _closing(text: str, contract: Contract) -> str:
    """Return what closes a thought as it is laid out, in lines or in one; other tags bring their own white space."""
    if contract.own_tags or "\n" not in text.partition(OPEN)[2].replace(WAIT, ""):
        return CLOSE
    return f"\n{CLOSE}\n\n".removeprefix("\n" if text.endswith("\n") else "")


def _message(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
