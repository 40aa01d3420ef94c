"""`samples.jsonl`: every completion that was drawn, written a batch at a time, and an index of it without any text.

A line is written whole or not at all: one write and one fsync a batch, and a torn last line is cut off when the file is opened
again. A line that says why there is no completion counts until then; after that its key is drawn again. What must be known of
every line is kept in arrays, and the texts of one prompt are read back by their places in the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from reasoning_ext.data.columns import DataError
from reasoning_ext.runs.files import append_lines, mend
from reasoning_ext.sample.selection import FAILED, MISSING, RIGHT, Drawn, Rules


class Samples:
    """The completions of a run, at most S for each of P prompts, as `rules` judge them.

    Raises:
        DataError: the file is damaged, or holds completions of other prompts, which would be scored as these prompts' own.
    """

    def __init__(self, path: Path, prompts: Sequence[Any], most: int, rules: Rules):
        self.path, self.rules, shape = path, rules, (len(prompts), most)
        # the samples that no prompt gets take no memory, since they stand at the end
        self.states_PS = np.zeros(shape, dtype=np.uint8, order="F")  # what each came to, MISSING if it is not drawn yet
        self._places_PS = np.zeros(shape, dtype=np.int64, order="F")  # in the file
        self._texts_PS = np.zeros(shape, dtype=np.int64, order="F")  # numbers of the right ones' texts, or ways
        self._end = 0
        mend(path)
        if path.is_file():
            self._find([_number(json.dumps(prompt)) for prompt in prompts])

    def _find(self, known: list[int]) -> None:
        """Note the lines that are there; `known` has a number for each prompt."""
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    row = json.loads(line)
                    prompt = row["prompt_index"]
                    if prompt >= len(known) or known[prompt] != _number(json.dumps(row["prompt"])):
                        problem = (
                            "the data set has changed since the first samples were drawn (prompt {} is another one now)"
                        )
                        raise DataError("dataset_name", f"{problem.format(prompt)}; choose another output_dir")
                    self._note(row, len(line), found=True)
                except DataError:
                    raise
                except (ValueError, KeyError, TypeError, IndexError) as error:
                    problem = f"found {self.path}, whose line {number} cannot be used ({type(error).__name__}: {error})"
                    raise DataError(
                        "output_dir", f"{problem}; remove that line, or choose another output_dir"
                    ) from error

    def __len__(self) -> int:
        return int(np.count_nonzero(self.states_PS))

    def append(self, rows: list[dict[str, Any]]) -> list[int]:
        """Write a batch of lines, and return what each came to; where a DiskError is raised, none is noted."""
        sizes = append_lines(self.path, rows)
        return [self._note(row, size) for row, size in zip(rows, sizes, strict=True)]

    def accepted(self, planned_P: np.ndarray) -> np.ndarray:
        """Count each prompt's accepted completions among its first so many, (P,); equal ones, or equal ways, once."""
        drawn_PS = np.arange(self.states_PS.shape[1]) < planned_P[:, None]
        prompts, samples = np.nonzero((self.states_PS == RIGHT) & drawn_PS)
        different = np.unique(np.stack([prompts, self._texts_PS[prompts, samples]]), axis=1)
        return np.bincount(different[0], minlength=len(planned_P))

    def of_prompts(self) -> Iterator[list[Drawn]]:
        """Read every prompt's completions back, P lists, each in the order of the sample indices."""
        with self.path.open("rb") if len(self) else nullcontext() as file:
            for p, states_S in enumerate(self.states_PS):
                yield [self._read(file, p, int(g)) for g in np.flatnonzero(states_S != MISSING)]

    def _read(self, file: Any, p: int, g: int) -> Drawn:
        file.seek(self._places_PS[p, g])
        row = json.loads(file.readline())
        written = (row["completion"], row["tokens"], row["rewards"], row.get("answer"), row.get("error", ""))
        turns = tuple(row.get("turns", ()))
        return Drawn(g, *written, row.get("forced", 0), *self.rules.judge(row), turns, row.get("observed", ""))

    def _note(self, row: dict[str, Any], size: int, found: bool = False) -> int:
        key, (state, _) = (row["prompt_index"], row["sample_index"]), self.rules.judge(row)
        if not found or state != FAILED:  # else it will be drawn again
            if min(key) < 0 or self.states_PS[key] != MISSING:
                raise ValueError(f"prompt {key[0]}, sample {key[1]} stands there twice, or cannot be")
            self.states_PS[key], self._places_PS[key] = state, self._end
            if state == RIGHT:
                self._texts_PS[key] = _number(self.rules.what(row["completion"], row.get("turns", ())))
        self._end += size
        return state


def _number(text: str) -> int:
    """Return a number of 63 bits that stands for a text."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
