"""`answers.jsonl`: every completion of an evaluation, drawn where it is missing and written a batch at a time.

A completion is known by its model, its way, its problem and its sample. The way says how it was drawn: "" by the recipe's own
prompts and settings, and another text where a strategy or a curve asks otherwise. So a strategy that is added draws only what
is not there yet, and an evaluation that was killed goes on with what is missing, in the middle of several rounds too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reasoning_ext.data.sources import read_jsonl
from reasoning_ext.engines.base import Completion, Engine, EngineError, Key, SamplingSettings, is_fault, render_row
from reasoning_ext.engines.scored import scored_rows
from reasoning_ext.engines.tools import tool_lines
from reasoning_ext.runs.files import append_lines, mend
from reasoning_ext.sample.progress import Progress
from reasoning_ext.scoring.call import Reward
from reasoning_ext.shown import print
from reasoning_ext.think.render import count_tokens

# a problem's samples that may begin in ways of their own, each of which is a prompt for the engine
SAMPLES_A_ROW = 4096
Line = dict[str, Any]
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Request:
    """Completions that are wanted of one model.

    Attributes:
        keys: `(problem, sample)`, each once.
        settings: how they are drawn.
        way: what tells them from others of the same keys; "" for the recipe's own.
        prompts: of the problems whose prompt is not the data set's, by number.
        begun: of the keys that go on from a whole completion's beginning, that beginning.
        judged: whether they are scored with the recipe's rewards; what is half a completion is not.
    """

    keys: Sequence[Key]
    settings: SamplingSettings
    way: str = ""
    prompts: Mapping[int, Messages] = field(default_factory=dict)
    begun: Mapping[Key, str] = field(default_factory=dict)
    judged: bool = True


class Answers:
    """The completions of one model of an evaluation; the engine is opened with the first that is missing.

    `lines` has them by way and key. `table` has the problems by number, `rewards` score what is drawn.
    """

    def __init__(
        self,
        path: Path,
        label: str,
        table: Any,
        rewards: list[Reward],
        opens: Callable[[], Engine],
        what: str = "eval",
    ):
        self.path, self.label, self.table, self.rewards, self._opens = path, label, table, rewards, opens
        self.what = what  # is said before the label while they are drawn
        self._engine: Engine | None = None
        mend(path)  # what is drawn is appended
        self.lines: dict[tuple[str, Key], Line] = {}
        for line in read_jsonl(path) if path.is_file() else []:
            if line["model"] == label:
                self._note(line)

    def know(self, lines: Iterable[Line]) -> None:
        """Take lines of another file as drawn; those of this one go before them."""
        for line in lines:
            self.lines.setdefault((line.get("way", ""), (line["prompt_index"], line["sample_index"])), line)

    def draw(self, *requests: Request) -> list[list[Line]]:
        """Return the lines that each request wants, in the order of its keys, after drawing those that are missing.

        Raises:
            ModelError, EngineError: nothing answers, or some completions failed, without which there are no figures: hard
                problems take longest, so that what failed is no random part. What came is kept.
            RewardError: a reward failed.
        """
        missing = [[key for key in one.keys if (one.way, key) not in self.lines] for one in requests]
        if count := sum(map(len, missing)):
            total = sum(len(one.keys) for one in requests)
            ways = [*dict.fromkeys(one.way for one in requests if one.way)]
            named = f" ({ways[0]}{f' ... {ways[-1]}' if ways[1:] else ''})" if ways else ""
            progress = Progress(f"{self.what} {self.label}{named}", total, total - count)
            with closing(progress):
                for request, keys in zip(requests, missing, strict=True):
                    for batch in self._drawn(request, keys):
                        self._append(batch, request)
                        stops = bool(request.settings.stop)  # what ends there is not cut off
                        progress.add([replace(c, finished=c.finished or (stops and not c.error)) for c in batch])
            self._refuse_failures(progress)
        return [[self.lines[one.way, key] for key in one.keys] for one in requests]

    @property
    def engine(self) -> Engine:
        """What answers, opened with the first use."""
        self._engine = self._engine or self._opens()
        return self._engine

    @property
    def tokenizer(self) -> Any:
        """The engine's tokenizer; None where it keeps that to itself."""
        return getattr(self.engine, "tokenizer", None)

    def close(self) -> None:
        """Close the engine, if one was needed."""
        if self._engine is not None:
            for line in tool_lines(self._engine):
                print(line)
            self._engine.close()

    def _drawn(self, request: Request, keys: list[Key]) -> Iterator[list[Completion]]:
        """Yield batches of the completions of some keys; those with a beginning of their own have an engine's row each."""
        rows: dict[int, Key] = {}
        for key in keys:
            rows[(key[0] + 1) * SAMPLES_A_ROW + key[1] if request.begun else key[0]] = key
        prompts: Any = {row: self._prompt(request, key) for row, key in rows.items()}
        asked = [(row, key[1]) for row, key in rows.items()] if request.begun else keys
        for batch in self.engine.generate(prompts, asked, request.settings) if keys else ():
            yield [Completion(**vars(one) | {"prompt": rows[one.prompt][0]}) for one in batch]

    def _prompt(self, request: Request, key: Key) -> Messages:
        begun = request.begun.get(key, "")
        own = request.prompts.get(key[0]) or self.table[key[0]]["prompt"]
        return [*own, {"role": "assistant", "content": begun}] if begun else own

    def _append(self, batch: list[Completion], request: Request) -> None:
        """Score a batch and write it, without what a server failed to give."""
        there = [completion for completion in batch if not is_fault(completion.error)]
        if not there:
            return
        rewards = self.rewards if request.judged else []
        lines = [{"model": self.label, **line} for line in scored_rows(there, self.table, rewards)]
        for line in lines:
            if line.get("error"):  # the model's own doing: no answer is a wrong one
                line["rewards"] = dict.fromkeys(line["rewards"], 0.0)
            if request.way:
                line |= {"way": request.way, "prompt": request.prompts.get(line["prompt_index"], line["prompt"])}
            if request.prompts and self.tokenizer:
                asked = [line["prompt"]], 0, request.settings
                text = render_row(self.tokenizer, self.engine.contract, *asked)  # type: ignore[attr-defined]
                line["prompt_tokens"] = count_tokens(self.tokenizer, text)
        append_lines(self.path, lines)
        for line in lines:
            self._note(line)

    def _note(self, line: Line) -> None:
        self.lines[line.get("way", ""), (line["prompt_index"], line["sample_index"])] = line

    def _refuse_failures(self, progress: Progress) -> None:
        if failed := Counter({kind: count for kind, count in progress.errors.items() if is_fault(kind)}):
            kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(failed.items()))
            problem = f"{failed.total()} of {progress.total} completions of {self.label} failed ({kinds})"
            todo = "those that came are kept: run the same command again to draw the others"
            raise EngineError("engine_kwargs", f"{problem}; {todo}")
