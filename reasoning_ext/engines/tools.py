"""Completions that call tools, over any engine: it draws a turn, the calls are run, and it goes on behind the results.

All calls of a batch are run at once. Each round has a seed of its own, and each completion a number, so that it is the same in
any batch. A call that nobody can read is answered with what is wrong, and counts as a round. Where results have no room in
what is left of a completion's tokens, and where the rounds are used up, it ends with its calls as letters. What goes on from a
beginning, or stops at a text, is half a completion, and calls nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from reasoning_ext.engines.base import Completion, Engine, Key, SamplingSettings, begun, key_seed, with_observed
from reasoning_ext.engines.thinking import LETTERS_A_TOKEN
from reasoning_ext.think.calls import UNREADABLE, Call, CallFormat
from reasoning_ext.think.render import count_tokens, render_begun
from reasoning_ext.think.turns import results_text
from reasoning_ext.tools.box import MALFORMED, Toolbox
from reasoning_ext.verifier.pool import TIMED_OUT

ACTING = 256  # completions whose environments are there together
Message = dict[str, Any]
Told = Callable[[list[Message]], None]


@dataclass
class Trace:
    """A completion on its way; names that `Completion` has are the same here."""

    key: Key
    prompt: list[Message]  # with what was observed
    limit: int  # of tokens, results among them
    environment: Any = None
    observed: str = ""
    parts: list[Completion] = field(default_factory=list)  # its turns, as they were drawn
    turns: list[Message] = field(default_factory=list)  # before the last part
    ids: list[int] = field(default_factory=list)
    tool_tokens: int = 0
    over: bool = False  # results had no room

    def add(self, part: Completion) -> None:
        """Take in a turn that was drawn."""
        self.parts.append(part)
        self.ids += part.ids

    @property
    def conversation(self) -> list[Message]:
        """What the next turn answers."""
        return [*self.prompt, *self.turns]

    @property
    def left(self) -> int:
        """How many tokens there are for further turns; a server that counts none is taken at its letters."""
        return self.limit - self.tool_tokens - sum(part.tokens or _tokens(part.text) for part in self.parts)

    def completion(self) -> Completion:
        """Return what it came to."""
        last = replace(self.parts[-1], prompt=self.key[0], sample=self.key[1])
        tokens, forced = (sum(getattr(part, name) for part in self.parts) for name in ("tokens", "forced"))
        if len(self.parts) > 1:
            drawn = [(part.logprob, part.tokens - part.forced) for part in self.parts]
            known = [mean * count for mean, count in drawn if mean is not None]
            mean = sum(known) / (tokens - forced) if tokens > forced and len(known) == len(drawn) else None
            last = replace(last, logprob=mean)
        own = {name: getattr(self, name) for name in ("ids", "tool_tokens", "environment", "observed")}
        finished = last.finished and not self.over
        return replace(last, finished=finished, tokens=tokens, forced=forced, turns=tuple(self.turns), **own)


class ToolEngine:
    """Answers as the engine `inner`, turn by turn, at most `most` times with results in between; see `base.Engine`.

    Completions have `turns` where tools were called. All turns and results together have the tokens that one may have.

    Attributes:
        rows: the data set's, by the number of a prompt, for an environment's `reset`.
        told: is given the results of each turn as they come.
    """

    def __init__(self, inner: Engine, box: Toolbox, most: int, rows: Any = (), told: Told | None = None):
        self.inner, self.box, self.most, self.rows, self.told = inner, box, most, rows, told
        self.tokenizer: Any = getattr(inner, "tokenizer", None)
        self.contract: Any = getattr(inner, "contract", None)
        self.calls: CallFormat = getattr(self.contract, "calls", None) or CallFormat()
        box.defuse = self.calls.defuse

    def generate(
        self, prompts: Sequence[list[Message]], keys: Sequence[Key], settings: SamplingSettings
    ) -> Iterator[list[Completion]]:
        """Answer keys as `base.Engine` says; prompts may be followed by what an environment's reset adds."""
        if settings.stop:
            yield from self.inner.generate(prompts, keys, settings)
            return
        size = ACTING if self.box.environment else max(1, len(keys))
        for start in range(0, len(keys), size):
            part = keys[start : start + size]
            acting = self._acting(prompts, part, settings) if self.box.environment else {}
            rows: Any = {key[0]: trace.prompt for key, trace in acting.items()} or prompts
            limits = {key: trace.limit for key, trace in acting.items()} if settings.limits else {}
            first = replace(settings, limits=limits or settings.limits)
            for batch in self.inner.generate(rows, list(acting) or part, first):
                traces = []
                for one in batch:
                    key = one.prompt, one.sample
                    trace = acting.pop(key, None) or Trace(key, prompts[one.prompt], settings.limit(key))
                    trace.add(one)
                    traces.append(trace)
                self._go_on(traces, settings)
                yield [trace.completion() for trace in traces]

    def close(self) -> None:
        """Close the engine and the tools."""
        self.inner.close()
        self.box.close()

    def figures(self) -> dict[str, float]:
        """Return what the tools did since the last time, as `Toolbox.figures`."""
        return self.box.figures()

    def _acting(self, prompts: Sequence, keys: Sequence[Key], settings: SamplingSettings) -> dict[Key, Trace]:
        """Make an environment for each key: `{the key that the engine gets: its completion}`."""
        fresh = [key for key in keys if not begun(prompts[key[0]])]
        made, said = self.box.environments([dict(self.rows[p]) for p, _ in fresh])
        begins = {key: (one, text or "") for key, one, text in zip(fresh, made, said, strict=True)}
        traces: dict[Key, Trace] = {}
        taken: set[int] = set()
        for key in keys:
            one, added = begins.get(key, (None, ""))
            prompt = with_observed(prompts[key[0]], added)
            traces[_row(key, taken), key[1]] = Trace(key, prompt, settings.limit(key), one, added)
        return traces

    def _go_on(self, traces: list[Trace], settings: SamplingSettings) -> None:
        """Go on with a batch's completions, round after round, until none calls anything, or may."""
        for number in range(1, self.most + 1):
            traces = self._answered(traces, settings)
            if not traces:
                return
            taken: set[int] = set()
            asked = {(_row(trace.key, taken), trace.key[1]): trace for trace in traces}
            rows: Any = {key[0]: trace.conversation for key, trace in asked.items()}
            limits = {key: self._room(trace, settings) for key, trace in asked.items()}
            seed, most = key_seed(settings.seed, -2, number), max(limits.values())
            again = replace(settings, seed=seed, max_completion_length=most, limits=limits)
            for parts in self.inner.generate(rows, list(asked), again):
                for part in parts:
                    asked[part.prompt, part.sample].add(part)

    def _answered(self, traces: list[Trace], settings: SamplingSettings) -> list[Trace]:
        """Run what the last turns call, all at once, and return the completions that go on behind the results."""
        said: list[tuple[Trace, str, list[Call], str]] = []
        for trace in traces:
            last = trace.parts[-1]
            if last.finished and not last.error and not begun(trace.prompt):
                content, calls, problem = self.calls.parse(last.text)
                if calls or problem:
                    said.append((trace, *((last.text, [], problem) if problem else (content, calls, ""))))
        asked = [(call, trace.environment) for trace, _, calls, _ in said for call in calls]
        results = iter(self.box.run(asked) if asked else ())
        for trace, content, calls, problem in said:
            answers = [next(results).message for _ in calls] or [self.box.unreadable(problem).message]
            turn = {"role": "assistant", "content": content} | ({"tool_calls": calls} if calls else {})
            self._put(trace, turn, answers, settings)
        return [trace for trace, *_ in said if not trace.over]

    def _put(self, trace: Trace, turn: Message, answers: list[Message], settings: SamplingSettings) -> None:
        """Put a turn and its results behind a completion, if that leaves room for another one."""
        if self.told:
            self.told(answers)
        ids: list[int] = []
        if self.tokenizer:
            text = results_text(self.tokenizer, self.contract, answers, settings.chat_template_kwargs)
            ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        count = len(ids) if self.tokenizer else sum(_tokens(answer["content"]) for answer in answers)
        trace.over = trace.left <= count
        if not trace.over:
            trace.turns += [turn, *answers]
            trace.ids, trace.tool_tokens = trace.ids + ids, trace.tool_tokens + count

    def _room(self, trace: Trace, settings: SamplingSettings) -> int:
        """Return for how many tokens it goes on: its text, read again, may have other ones than were drawn."""
        if not self.tokenizer:
            return trace.left
        render = partial(
            render_begun, self.tokenizer, self.contract, chat_template_kwargs=settings.chat_template_kwargs
        )
        before, now = (count_tokens(self.tokenizer, render(chat)) for chat in (trace.prompt, trace.conversation))
        return max(1, min(trace.left, trace.limit - (now - before)))


def counted_calls(turns: Sequence[Message]) -> Counter[str]:
    """Count what tools answered in a completion's turns: `NAME/calls`, and of these `NAME/errors`, `NAME/timeouts`; `malformed`.

    It is read off the results, so that a run which was cut off and went on counts all that was called in it.
    """
    found = Counter[str]()
    for turn in turns:
        if turn["role"] == "tool" and turn["name"] == UNREADABLE:
            found["malformed"] += 1
        elif turn["role"] == "tool":
            late, failed = (turn["content"].startswith(f"error: {said}") for said in (TIMED_OUT, ""))
            found[f"{turn['name']}/calls"] += 1
            found.update([f"{turn['name']}/{'timeouts' if late else 'errors'}"] if failed else [])
    return found


def tool_lines(engine: Any) -> list[str]:
    """Write what an engine's tools did since the last time for a log, a line a tool that was called; none without tools."""
    figures: dict[str, float] = engine.figures() if isinstance(engine, ToolEngine) else {}
    names = dict.fromkeys(key.split("/")[1] for key in figures if key.count("/") == 2)
    called = [name for name in names if figures[f"tools/{name}/calls"]]
    lines = []
    for name in called:
        counts = "  ".join(f"{what} {figures[f'tools/{name}/{what}']:.0f}" for what in ("calls", "errors", "timeouts"))
        lines.append(f"tools   {name}: {counts}  {figures[f'tools/{name}/seconds']:.3f} s each")
    malformed = figures.get(MALFORMED)
    return [*lines, *([f"tools   {malformed:.0f} calls that nobody could read"] if malformed else [])]


def _row(key: Key, taken: set[int]) -> int:
    """Return the number of a completion's own prompt: two are the same in so many that hardly anybody will see it."""
    row = key_seed(0, *key)
    while row in taken:
        row = (row + 1) % 2**31
    taken.add(row)
    return row


def _tokens(text: str) -> int:
    return -(-len(text) // LETTERS_A_TOKEN)
