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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from reasoning_ext.data import DataError
from reasoning_ext.files import append_lines, mend

MISSING, UNJUDGED, WRONG, RIGHT, CUT_OFF, FAILED = range(6)  # what a completion came to
STATES = ("missing", "unjudged", "wrong", "right", "cut off", "failed")
Judge = Callable[[dict[str, Any]], tuple[int, float, int]]


class Samples:
    """The completions of a run.

    Args:
        path: `samples.jsonl`; what it holds is read, a torn last line is cut off.
        prompts: P, how many prompts there are.
        most: S, the most completions a prompt may get.
        judge: from a line to its state, its total reward and a number for its way of solving the problem.

    Attributes:
        states_PS: what each completion came to, `MISSING` for those that are not drawn yet, uint8.

    Raises:
        DataError: the file is damaged, or holds completions of prompts that there are not.
    """

    def __init__(self, path: Path, prompts: int, most: int, judge: Judge):
        self.path, self.judge = path, judge
        self.states_PS = np.zeros((prompts, most), dtype=np.uint8)
        self._columns = {name: array(kind) for name, kind in zip(COLUMNS, "qiidiq", strict=True)}
        self._end = 0
        mend(path)
        for number, line in enumerate(self._lines()):
            try:
                self._note(json.loads(line), len(line), found=True)
            except DataError:
                raise
            except (ValueError, KeyError, TypeError, IndexError) as error:
                problem = f"found {path}, whose line {number + 1} cannot be used ({type(error).__name__}: {error})"
                raise DataError("output_dir", f"{problem}; remove that line, or choose another output_dir") from error

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

    def column(self, name: str) -> np.ndarray:
        """Return a column of the index, one value a line: `offset`, `prompt`, `sample`, `total`, `tokens`, `way`."""
        return np.array(self._columns[name])

    def of_prompts(self) -> Iterator[tuple[int, list[int]]]:
        """Yield every prompt that has lines, and the numbers of its lines in the order of their sample indices."""
        prompts, order = self.column("prompt"), np.lexsort((self.column("sample"), self.column("prompt")))
        starts = np.flatnonzero(np.diff(prompts[order], prepend=-1))
        for lines in np.split(order, starts[1:]) if len(order) else []:
            yield int(prompts[lines[0]]), lines.tolist()

    def read(self, lines: list[int]) -> list[dict[str, Any]]:
        """Read lines back by their numbers."""
        offsets, rows = self._columns["offset"], []
        with self.path.open("rb") as file:
            for line in lines:
                file.seek(offsets[line])
                rows.append(json.loads(file.readline()))
        return rows

    def _lines(self) -> Iterator[bytes]:
        if self.path.is_file():
            with self.path.open("rb") as file:
                yield from file

    def _note(self, row: dict[str, Any], size: int, found: bool = False) -> int:
        prompt, sample = row["prompt_index"], row["sample_index"]
        state, total, way = self.judge(row)
        if found and state == FAILED:  # it will be drawn again
            self._end += size
            return state
        if prompt < 0 or sample < 0 or self.states_PS[prompt, sample] != MISSING:
            raise ValueError(f"prompt {prompt}, sample {sample} stands there twice, or cannot be")
        self.states_PS[prompt, sample] = state
        values = (self._end, prompt, sample, total, row["tokens"], way)
        for name, value in zip(COLUMNS, values, strict=True):
            self._columns[name].append(value)
        self._end += size
        return state


COLUMNS = ("offset", "prompt", "sample", "total", "tokens", "way")


def number_of(text: str) -> int:
    """Return a number of 63 bits that stands for a text."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
