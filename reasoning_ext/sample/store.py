"""`samples.jsonl`: every completion that was drawn, written a batch at a time, and an index of it without any text.

A line is written whole or not at all: one write and one fsync a batch, and a torn last line is cut off when the file is opened
again. A line that says why there is no completion counts until then; after that its key is drawn again. What must be known of
every line is kept in arrays, some 40 bytes a completion, so that a million of them are no matter; the texts of one prompt are
read back by their places in the file.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from reasoning_ext.data.columns import DataError
from reasoning_ext.runs.files import append_lines, mend

MISSING, UNJUDGED, WRONG, RIGHT, CUT_OFF, FAILED = range(6)  # what a completion came to
COLUMNS = {"offset": "q", "prompt": "i", "sample": "i", "total": "d", "tokens": "i", "way": "q"}  # of the index
Judge = Callable[[dict[str, Any]], tuple[int, float, int]]


@dataclass
class Drawn:
    """A completion as it was written, and what it came to.

    Attributes:
        sample, completion, tokens, rewards, answer, error: of its line in `samples.jsonl`.
        state: `MISSING`, ... `FAILED`.
        total: its weighted reward.
    """

    sample: int
    completion: str
    tokens: int
    rewards: dict[str, float | None]
    answer: Any = None
    error: str = ""
    state: int = RIGHT
    total: float = 0.0


class Samples:
    """The completions of a run.

    Args:
        path: `samples.jsonl`; what it holds is read, a torn last line is cut off.
        prompts: P, the data set's prompts.
        most: S, the most completions a prompt may get.
        judge: from a line to its state, its total reward and a number for its way of solving the problem.

    Attributes:
        states_PS: what each completion came to, `MISSING` for those that are not drawn yet, uint8.

    Raises:
        DataError: the file is damaged, or holds completions of other prompts, which would be scored as these prompts' own.
    """

    def __init__(self, path: Path, prompts: Sequence[Any], most: int, judge: Judge):
        self.path, self.judge = path, judge
        self.states_PS = np.zeros((len(prompts), most), dtype=np.uint8)
        self._columns = {name: array(kind) for name, kind in COLUMNS.items()}
        self._end = 0
        mend(path)
        if path.is_file():
            self._find(prompts)

    def _find(self, prompts: Sequence[Any]) -> None:
        """Note the lines that are there."""
        path = self.path
        known = [number_of(json.dumps(prompt)) for prompt in prompts]
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    row = json.loads(line)
                    prompt = row["prompt_index"]
                    if prompt >= len(known) or known[prompt] != number_of(json.dumps(row["prompt"])):
                        problem = "the data set has changed since the first samples were drawn"
                        todo = f"(prompt {prompt} is another one now); choose another output_dir"
                        raise DataError("dataset_name", f"{problem} {todo}")
                    self._note(row, len(line), found=True)
                except DataError:
                    raise
                except (ValueError, KeyError, TypeError, IndexError) as error:
                    problem = f"found {path}, whose line {number} cannot be used ({type(error).__name__}: {error})"
                    problem = f"{problem}; remove that line, or choose another output_dir"
                    raise DataError("output_dir", problem) from error

    def __len__(self) -> int:
        return len(self._columns["prompt"])

    def append(self, rows: list[dict[str, Any]]) -> list[int]:
        """Write a batch of lines, and note them.

        Returns:
            what each of them came to.

        Raises:
            DiskError: the disk is full; the batch is not noted and will be drawn again.
        """
        sizes = append_lines(self.path, rows)
        return [self._note(row, size) for row, size in zip(rows, sizes, strict=True)]

    def accepted(self, planned_P: np.ndarray) -> np.ndarray:
        """Count each prompt's accepted completions among its first so many, (P,); equal ones, or equal ways, once."""
        prompts, samples, ways = (np.array(self._columns[name]) for name in ("prompt", "sample", "way"))
        chosen = (self.states_PS[prompts, samples] == RIGHT) & (samples < planned_P[prompts])
        different = np.unique(np.stack([prompts[chosen], ways[chosen]]), axis=1)
        return np.bincount(different[0], minlength=len(planned_P))

    def of_prompts(self) -> Iterator[list[Drawn]]:
        """Read every prompt's completions back, P lists, each in the order of the sample indices."""
        prompts, samples = (np.array(self._columns[name]) for name in ("prompt", "sample"))
        order = np.lexsort((samples, prompts))
        bounds = np.searchsorted(prompts[order], np.arange(len(self.states_PS) + 1))
        with self.path.open("rb") if len(self) else nullcontext() as file:
            for start, end in pairwise(bounds):
                yield [self._read(file, line) for line in order[start:end]]

    def _read(self, file: Any, line: int) -> Drawn:
        at = {name: column[line] for name, column in self._columns.items()}
        file.seek(at["offset"])
        row = json.loads(file.readline())
        state = int(self.states_PS[at["prompt"], at["sample"]])
        texts = {name: row[name] for name in ("completion", "tokens", "rewards")}
        return Drawn(
            at["sample"], **texts, answer=row.get("answer"), error=row.get("error", ""), state=state, total=at["total"]
        )

    def _note(self, row: dict[str, Any], size: int, found: bool = False) -> int:
        prompt, sample = row["prompt_index"], row["sample_index"]
        state, total, way = self.judge(row)
        if not found or state != FAILED:  # else it will be drawn again
            if prompt < 0 or sample < 0 or self.states_PS[prompt, sample] != MISSING:
                raise ValueError(f"prompt {prompt}, sample {sample} stands there twice, or cannot be")
            self.states_PS[prompt, sample] = state
            values = (self._end, prompt, sample, total, row["tokens"], way)
            for name, value in zip(COLUMNS, values, strict=True):
                self._columns[name].append(value)
        self._end += size
        return state


def number_of(text: str) -> int:
    """Return a number of 63 bits that stands for a text."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
