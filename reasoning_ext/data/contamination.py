r"""Drop the rows that hold a question of an evaluation set, found by n-grams of 8 words, as s1 and open-r1 practise.

Departure from that practice: one shared n-gram is not enough, because "find the number of ordered pairs of positive
integers" stands in hundreds of unrelated problems. A row holds an item when it has half of the item's distinct
n-grams and every number that stands in it, or 95 % of them whatever its numbers, and in either case at least four, or
all where the item has fewer. N-grams that stand in many different items, the fixed instructions of a benchmark, count
for none of them; an item that is left with fewer than four must be there whole. An item with fewer words than an
n-gram must make up whole sentences or lines of the row. `benchmarks/decontamination.py` measures the rule.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reasoning_ext.data.columns import DataError
from reasoning_ext.data.duplicates import normalise, prompt_text
from reasoning_ext.data.format import find_format, format_rows
from reasoning_ext.data.held_out import question_columns
from reasoning_ext.data.row_options import TEST, RowOptions
from reasoning_ext.data.sources import check_split, is_generator, load_rows
from reasoning_ext.data.values import read_chat
from reasoning_ext.recipe.keys import QUESTION_KEYS

if TYPE_CHECKING:
    from datasets import Dataset

SHARE, SHARE_WITH_OTHER_NUMBERS, LEAST_NGRAMS = 0.5, 0.95, 4
BOILERPLATE, BOILERPLATE_SHARE = 3, 0.02  # an n-gram of more different items than both of these tells none of them
_BATCH = 1000
# A sign belongs to the word after it, so that `x+5` and `x-5` differ and a formula has no more words than operands.
_WORD = re.compile(r"(?:(?:[-+*/^]|[<>!]?=|[<>]) ){0,2}+[^\W_]\S*+")
_SENTENCE_END = re.compile(r"\n|(?<=[.?!:;。？！：])(?:\s|(?<=[。？！：]))")


class Index:
    """The questions of evaluation sets, each of which has words, by their n-grams; short ones by their words.

    Attributes:
        items: of each question: where it stands, how many n-grams tell it, its numbers, whether all must be there.
        owners: which questions have an n-gram.
    """

    def __init__(self, sets: dict[str, list[str]], n: int = 8):
        self.n = n
        self.items: list[tuple[dict[str, Any], int, frozenset[str], bool]] = []
        self.owners: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self.short: dict[tuple[str, ...], int] = {}
        texts: dict[tuple[str, ...], set[tuple[str, ...]]] = {}  # a question of two sets is one
        for words in (tuple(split_words(question)) for questions in sets.values() for question in questions):
            texts[words] = {words[i : i + n] for i in range(len(words) - n + 1)}
        self.words = {word for words in texts for word in words}
        spread = Counter(ngram for ngrams in texts.values() for ngram in ngrams)
        most = max(BOILERPLATE, math.ceil(BOILERPLATE_SHARE * len(texts)))
        for name, questions in sets.items():
            for number, question in enumerate(questions):
                ngrams = texts[words := tuple(split_words(question))]
                telling = {ngram for ngram in ngrams if spread[ngram] <= most}
                whole = len(telling) < min(LEAST_NGRAMS, len(ngrams))
                if not ngrams:
                    self.short.setdefault(words, len(self.items))
                for ngram in (used := ngrams if whole else telling):
                    self.owners[ngram].append(len(self.items))
                self.items.append(({"set": name, "item": number}, len(used), _numbers(words), whole))

    def find(self, text: str) -> dict[str, Any] | None:
        """Return the item that a text holds, as `decontaminate` reports it but without the row, or None."""
        if self.short and (found := self._find_short(text)):
            return found
        words = split_words(text)
        shared: dict[tuple[str, ...], None] = {}
        run = 0  # words in a row that some question has; most n-grams need not be made
        for end, word in enumerate(words, 1):
            run = run + 1 if word in self.words else 0
            if run >= self.n and (ngram := tuple(words[end - self.n : end])) in self.owners:
                shared[ngram] = None
        counts, numbers = Counter(owner for ngram in shared for owner in self.owners[ngram]), _numbers(words)
        held = [owner for owner, count in counts.items() if self._holds(owner, count, numbers)]
        if not held:
            return None
        share, best = max(((counts[owner] / self.items[owner][1], -i, owner) for i, owner in enumerate(held)))[::2]
        ngram = next(ngram for ngram in shared if best in self.owners[ngram])
        return self.items[best][0] | {"ngram": " ".join(ngram), "share": round(share, 4)}

    def _holds(self, owner: int, count: int, numbers: frozenset[str]) -> bool:
        """Apply the rule to a row that shares so many n-grams with an item and has these numbers."""
        _, ngrams, own, whole = self.items[owner]
        if whole:
            return own <= numbers and count == ngrams
        share = SHARE if own <= numbers else SHARE_WITH_OTHER_NUMBERS
        return count >= max(math.ceil(share * ngrams), min(LEAST_NGRAMS, ngrams))

    def _find_short(self, text: str) -> dict[str, Any] | None:
        """Look for a short question among the runs of whole sentences with fewer words than an n-gram."""
        waiting: list[list[str]] = []  # the words since the start of each sentence that a short question may begin with
        for words in filter(None, map(split_words, _SENTENCE_END.split(text))):
            waiting = [run for start in [*waiting, []] if len(run := start + words) < self.n]
            for run in waiting:
                if (owner := self.short.get(tuple(run))) is not None:
                    return self.items[owner][0] | {"ngram": " ".join(run), "share": 1.0}
        return None


def decontaminate(rows: Dataset, sets: dict[str, list[str]], n: int = 8) -> tuple[Dataset, list[dict[str, Any]]]:
    """Drop the rows whose user text holds one of `sets`, `{name of an evaluation set: its questions}`.

    Returns:
        the rows kept, in order, and for each row dropped, counted from 0, `{"row": i, "set": name, "item": j, "ngram":
        words, "share": x}`: the item of which the row has the largest share, the first n-gram of `n` words that they
        have in common (of a short item, the whole of it), and the share of the item's n-grams that the row has.
    """
    index = Index(sets, n)
    prompts = (prompt for batch in rows.select_columns(["prompt"]).iter(_BATCH) for prompt in batch["prompt"])
    found = ((i, index.find(prompt_text(prompt, ("user",)))) for i, prompt in enumerate(prompts))
    removed = [{"row": i, **record} for i, record in found if record]
    dropped = {record["row"] for record in removed}
    return rows.select([i for i in range(len(rows)) if i not in dropped]) if dropped else rows, removed


def split_words(text: str) -> list[str]:
    r"""Return a text's words as they are compared; a sign is part of the word after it, other punctuation is left out.

    >>> split_words(r"Solve $x^{2} - 5\,x = \dfrac{1}{2}$!")
    ['solve', 'x', '^2', '-5', 'x', '=frac', '1', '2']
    """
    return [word.replace(" ", "") for word in _WORD.findall(normalise(text))]


def _numbers(words: Sequence[str]) -> frozenset[str]:
    """Return the numbers among words, without their signs."""
    return frozenset(word.lstrip("-+*/^=<>!") for word in words if word[-1].isdigit())


def evaluation_questions(options: RowOptions) -> dict[str, list[str]]:
    """Read the questions that must not be trained on, `{name of the set: its questions}` of `decontaminate`.

    Raises:
        DataError: one of the entries is wrong or cannot be read.
    """
    sets: dict[str, list[str]] = {}
    for i, entry in enumerate(options.decontaminate):
        place: Any = ("decontaminate", i)
        values = {"dataset_name": entry} if isinstance(entry, str) else entry
        if not isinstance(values, dict) or "dataset_name" not in values:
            raise DataError(place, f"found {entry!r}", "a name, a file, or a mapping with dataset_name")
        for key, value in values.items():
            if key not in QUESTION_KEYS or not isinstance(value, str):
                raise DataError((*place, key), f"found {value!r}", f"a text under one of {', '.join(QUESTION_KEYS)}")
        name, split, config = values["dataset_name"], values.get(TEST, "test"), values.get("dataset_config")
        try:
            path = name if is_generator(name) else options.local(name)
            check_split(path, TEST, values.get(TEST))
            rows = load_rows(path, options.folder, split=split, config=config, stage="eval")
            if "dataset_format" in values:
                rows = format_rows(rows, find_format(values["dataset_format"], options.folder))
            called = f"{name}/{config}:{split}" if config else f"{name}:{split}"
            sets[called] = sets.get(called, []) + _questions(rows)
        except LookupError as error:
            raise DataError((*place, "dataset_format"), str(error.args[0])) from error
        except ValueError as error:
            raise DataError(place, str(error)) from error
    return sets


def _questions(rows: Dataset) -> list[str]:
    """Return the questions of an evaluation set that have words."""
    columns = question_columns(rows.column_names)
    parts = zip(*(rows[column] for column in columns), strict=True)
    asked = [[part for part in values if part is not None] for values in parts]
    values = [values[0] if len(values) == 1 else " ".join(map(str, values)) for values in asked if values]
    chats = [value if isinstance(value, str) else read_chat(value, columns[0]) for value in values]
    questions = [text for text in (prompt_text(chat, ("user",)) for chat in chats) if split_words(text)]
    if not questions:
        found = f"found no question with words in the columns {', '.join(rows.column_names)}"
        raise DataError("decontaminate", found, hint="write dataset_format for it")
    return questions
