r"""Drop rows that ask the same again: exact duplicates after normalising, or near duplicates by MinHash and Jaccard.

Departure from the obvious: most pairs of mathematics problems that look alike differ in a number, a sign or "least"
against "greatest", and are different problems. So near duplicates are looked for only among rows whose *signature* is
the same: numbers, signs, brackets and variables in their order, and the words that turn a problem into another one.
This keeps some duplicates (one problem with `3` and with `three`), and is also what makes it fast: few rows share a
signature. Every pass over a text is linear.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zlib import crc32

from reasoning_ext.data.calls import texts
from reasoning_ext.data.columns import SIDES
from reasoning_ext.data.values import digest

if TYPE_CHECKING:
    from datasets import Dataset

_BATCH, _PERMUTATIONS = 1000, 128
_FEW = 16  # a group of so many rows is compared pair by pair
_MOST_CANDIDATES = 64  # so that a flood of rows just below the threshold does not cost quadratic time

_TOKEN = re.compile(
    r"""\\[^\W\d_]++ | \\.                                                        # \frac, \{
    | [0-9]{1,3}(?:(?:,|\{,\}|,\\!)[0-9]{3}){1,20}+(?![0-9])(?:\.[0-9]++)?   # 1,000; the most groups bound the time
    | [0-9]++(?:\.[0-9]++)? | \.[0-9]++
    | [\u3040-\u30ff\u3400-\u9fff]                                              # scripts without spaces: a sign is a word
    | [^\W\d_\u3040-\u30ff\u3400-\u9fff]{2,}+(?:'[^\W\d_]{1,2}(?!\w) | -(?=[^\W\d_]{2}))? | [^\W\d_]
    | \.\.\. | [<>!]= | \S""",
    re.VERBOSE | re.DOTALL,
)
_SIGNS = str.maketrans(
    {"–": "-", "—": "-", "−": "-", "‐": "-", "×": "*", "·": "*", "⋅": "*", "÷": "/", "≤": "<=", "≥": ">=", "≠": "!=",
     "’": "'", "‘": "'", "“": '"', "”": '"', "°": "^circ", "√": r"\sqrt ", "∞": r"\infty "}
    | {power: f"^{digit}" for digit, power in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
)  # fmt: skip
_SPELLINGS = {
    "": r"""$ ~ & \$ \( \) \[ \] \, \; \: \! \\ \left \right \big \bigl \bigr \bigg \biggl \biggr \displaystyle
        \textstyle \limits \quad \qquad \text \textbf \textit \mathrm \mathbf \mbox \rm \middle""",
    "frac": r"\dfrac \tfrac \cfrac", "binom": r"\dbinom \tbinom", "*": r"\times \cdot \ast", "/": r"\div",
    "<=": r"\le \leq \leqslant", ">=": r"\ge \geq \geqslant", "!=": r"\ne \neq", "<": r"\lt", ">": r"\gt",
    "...": r"\dots \ldots \cdots", "|": r"\vert \lvert \rvert \mid", "{": r"\lbrace", "}": r"\rbrace", "%": r"\%",
}  # fmt: skip
_MEANINGS = {spelling: token for token, spellings in _SPELLINGS.items() for spelling in spellings.split()}
_SHORT_FRACTION = re.compile(r"(frac\s*+[0-9])(?=[0-9])")
_GROUP_OF_ONE = re.compile(r"\{ ([^\s{}]++) \}")
_END = frozenset(".?;:,")
_PROSE_SIGNS = frozenset(".,;:?\"'!a")  # `a` is far more often the article than a variable on its own
_TURNING = frozenset(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion dozen half "
    "third quarter fourth fifth sixth first second last twice thrice double triple once "
    "not no never without except least most greatest smallest largest biggest minimum maximum min max minimize maximize "
    "lowest highest shortest longest more less fewer greater smaller larger above below before after even odd positive "
    "negative increase decrease increases decreases increased decreased increasing decreasing sum difference product "
    "quotient average mean median mode area perimeter volume radius diameter length width height sine cosine tangent sin "
    "cos tan cot sec csc arcsin arccos arctan log ln exp sqrt row column integer real rational prime composite left right "
    "inside outside inscribed circumscribed true false always sometimes cube square squared cubed gain loss "
    "profit buy sell buys sells gives gets north south east west monday tuesday wednesday thursday friday saturday "
    "sunday".split()
)


def deduplicate(
    rows: Dataset, how: str, threshold: float = 0.8, by: str = "prompt"
) -> tuple[Dataset, list[dict[str, Any]]]:
    """Drop the rows that repeat an earlier one; the first of a group is kept.

    Args:
        rows: prompt-completion rows. What is compared is the text of the prompt without its system messages.
        how: `exact`, equal after `normalise`; or `near`, which also finds rows with the same signature whose pairs of
            neighbouring words have a Jaccard similarity of `threshold` or more.
        by: `prompt`; or `row`, where the completion, or both sides of a pair, count as well, so that several answers
            to one prompt stay.

    Returns:
        the rows kept, in order, and for each row dropped, counted from 0, `{"row": i, "of": j, "similarity": x}`: j is
        kept, and x is 1.0 for an exact duplicate. Among many candidates for one row only the first 64 are compared.
    """
    answers = () if by == "prompt" else SIDES if {*SIDES} <= {*rows.column_names} else ("completion",)
    columns = [name for name in ("prompt", *answers) if name in rows.column_names]  # the others are asked for elsewhere
    first: dict[bytes, int] = {}
    removed: dict[int, tuple[int, float]] = {}
    groups: dict[bytes, list[int]] = defaultdict(list)
    for i, text in enumerate(_texts(rows, columns)):
        normal = normalise(text)
        if (earlier := first.setdefault(digest(normal, 16), i)) != i:
            removed[i] = (earlier, 1.0)
        elif how == "near":
            groups[digest(signature(normal), 16)].append(i)
    for members in groups.values():
        if len(members) > 1:
            removed |= _near(rows.select(members), columns, members, threshold)
    found = [{"row": i, "of": removed[i][0], "similarity": round(removed[i][1], 4)} for i in sorted(removed)]
    return rows.select([i for i in range(len(rows)) if i not in removed]) if removed else rows, found


def prompt_text(prompt: str | list[dict[str, Any]], roles: tuple[str, ...] = ("user", "assistant", "tool")) -> str:
    """Return the text of a prompt's messages with one of the roles; a prompt that is a string is its own text."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(str(message["content"] or "") for message in prompt if message["role"] in roles)


def normalise(text: str) -> str:
    r"""Return a text's tokens with single spaces between, without what is spelling only.

    Case, white space, Unicode's compatibility forms, LaTeX spacing and delimiters, spellings of one LaTeX command,
    braces around a single token, separators of thousands and punctuation at the end are seen through, and no more.

    >>> normalise(r"Find  $\dfrac12 + x^{2}\,$.") == normalise(r"find \( \frac{1}{2}+x^2 \)")
    True
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_SIGNS))
    text = text.casefold()
    if "frac" in text:
        text = _SHORT_FRACTION.sub(r"\1 ", text)
    tokens = [token for token in map(_meaning, _TOKEN.findall(text)) if token]
    while tokens and tokens[-1] in _END:
        tokens.pop()
    joined = " ".join(tokens)
    return _GROUP_OF_ONE.sub(r"\1", joined) if "{" in joined else joined


def signature(normal: str) -> str:
    """Return what two texts must have in common to ask the same: all of a normalised text but its plain words."""
    tokens = normal.split(" ")
    kept = []
    for before, token in zip(["", *tokens], tokens, strict=False):
        if token == "!" or token == "'":  # a factorial or a derivative, not an exclamation
            is_kept = len(before) == 1 or before[-1:].isdigit()
        elif len(token) > 1 and token[0].isalpha():
            is_kept = token in _TURNING
        else:
            is_kept = token not in _PROSE_SIGNS and not ("\u3040" <= token <= "\u9fff")
        if is_kept:
            kept.append(token)
    return " ".join(kept)


@lru_cache(maxsize=65536)
def _meaning(raw: str) -> str:
    if raw in _MEANINGS:
        return _MEANINGS[raw]
    if raw[0].isdigit():
        return re.sub(r"[^0-9.]", "", raw)
    if raw[0] == "\\":
        return raw[1:] if raw[1:].isalpha() else "" if raw[1:].isspace() else raw
    return raw.rstrip("-") or raw


def _texts(rows: Dataset, columns: list[str]) -> Iterator[str]:
    """Yield the text of each row that counts, read in batches."""
    for batch in rows.select_columns(columns).iter(_BATCH):
        answers = [batch[name] for name in columns if name != "prompt"]
        for prompt, *said in zip(batch["prompt"], *answers, strict=True):
            yield "\n".join(
                [prompt_text(prompt), *(text for answer in said if answer for text in texts(answer, results=True))]
            )


def _near(rows: Dataset, columns: list[str], numbers: list[int], threshold: float) -> dict[int, tuple[int, float]]:
    """Find the near duplicates among rows with one signature: `{row: (row kept, similarity)}` by the rows' numbers.

    In a large group the rows kept are found by their MinHash. Candidates are compared, so a row that it misses weighs
    more than one that it finds for nothing.
    """
    from datasketch import MinHash, MinHashLSH

    few = len(numbers) <= _FEW
    index = None if few else MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS, weights=(0.1, 0.9))
    empty: Any = None if few else MinHash(num_perm=_PERMUTATIONS, hashfunc=int)
    kept: dict[int, Any] = {}
    removed = {}
    for i, text in enumerate(_texts(rows, columns)):
        words = shingles(text)
        if index is not None:
            own = empty.copy()
            own.update_batch(words)
        candidates = [*kept] if index is None else sorted(index.query(own))
        near = ((j, jaccard(words, kept[j])) for j in candidates[:_MOST_CANDIDATES])
        if found := next(((j, similarity) for j, similarity in near if similarity >= threshold), None):
            removed[numbers[i]] = (numbers[found[0]], found[1])
            continue
        kept[i] = words
        if index is not None:
            index.insert(i, own)
    return removed


def shingles(text: str) -> Any:
    """Return the hashes of a text's pairs of neighbouring tokens, sorted and each once."""
    import numpy as np

    tokens = normalise(text).split(" ")
    pairs = map(" ".join, zip(tokens, [*tokens[1:], ""], strict=True))
    return np.unique(np.array([crc32(pair.encode("utf-8", "surrogatepass")) for pair in pairs], dtype=np.uint32))


def jaccard(a: Any, b: Any) -> float:
    """Return the share of two texts' shingles that they have in common, from 0.0 to 1.0."""
    import numpy as np

    common = np.intersect1d(a, b, assume_unique=True).size
    return common / (a.size + b.size - common)
