"""Finds passages of a corpus: by words (BM25, bm25s) or by meaning (sentence-transformers), in memory-mapped files.

An index is built once and kept beside its corpus as `NAME.index-HASH/`, by a hash of what the corpus holds and of how it is
searched; where that place is read-only, in the user's cache. It is built under a lock in a folder of another name that is
renamed when it is complete, so that a build that was killed leaves nothing that is taken for an index.
"""

import hashlib
import importlib.util
import itertools
import json
import os
import re
import shutil
from array import array
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

from reasoning_ext.errors import KeyProblem, one_line
from reasoning_ext.tools.library import ToolError

ENDINGS = (".txt", ".md")
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
INSTALL = {"bm25": ("bm25s", "search"), "embedding": ("sentence_transformers", "embedding")}  # a module, our extra
CORPORA = "a .jsonl file with text, a .txt or .md file, a folder of those, or the name of a data set on the hub"
_FORMAT = "1"  # of an index; another one is built anew
_WORD = re.compile(r"\w+")


def search(
    query: str, *, corpus: str, k: int = 3, by: Literal["bm25", "embedding"] = "bm25", model: str = MODEL
) -> str:
    """Searches a collection of texts and returns the passages that fit best.

    Args:
        query: what to look for, a few words
        corpus: the recipe's; where the texts are
        k: the recipe's; how many passages there are
        by: the recipe's; by words or by meaning
        model: the recipe's; the sentence-transformers model for meaning, a name or a folder

    Returns:
        The passages, the best first.
    """
    found = _index(corpus, by, model).best(query, k)
    return "\n\n".join(f"[{i}] {text}" for i, text in enumerate(found, 1)) or "nothing found"


def prepare(corpus: str, by: str = "bm25", model: str = MODEL, **options: Any) -> None:
    """Build the index if there is none; ToolError for a corpus without text."""
    try:
        _index(corpus, by, model)
    except ToolError as error:
        raise ToolError(f"{corpus}: {error}") from error


def check(folder: Path, options: dict[str, Any]) -> None:
    """Refuse what cannot be searched, from the first texts; a data set on the hub is not asked for.

    Raises:
        KeyProblem: with the option to blame.
    """
    corpus, by = options["corpus"], options.get("by", "bm25")
    module, extra = INSTALL[by]
    if importlib.util.find_spec(module) is None:
        hint = f'pip install "reasoning-ext[{extra}]"'
        raise KeyProblem("by", f"found {by}, but {module} is not installed", hint=hint)
    if not options.get("k", 1) > 0:
        raise KeyProblem("k", f"found {options['k']}", "1 or more")
    place = folder / Path(corpus).expanduser()
    is_path = corpus.count("/") > 1 or corpus.startswith((".", "/", "~")) or place.suffix in (*ENDINGS, ".jsonl")
    if place.exists() and not place.is_dir() and place.suffix not in (*ENDINGS, ".jsonl"):
        raise KeyProblem("corpus", f"found {corpus}", CORPORA)
    if is_path and not place.exists():
        raise KeyProblem("corpus", f"found {corpus}, which is not there; looked for {place}", CORPORA)
    try:
        if place.exists() and ((first := next(_passages(place), None)) is None or "\0" in first):
            raise KeyProblem("corpus", f"found {corpus}, which holds no text", CORPORA)
    except (ToolError, OSError) as error:
        raise KeyProblem("corpus", f"found {corpus}: {error}", CORPORA) from error


class _Index:
    """An index that is memory-mapped; `best` returns texts."""

    def __init__(self, place: Path, by: str, model: str):
        import numpy as np

        self.by, self.offsets = by, np.load(place / "offsets.npy", mmap_mode="r")
        self.texts = np.memmap(place / "texts.bin", mode="r")
        if by == "bm25":
            import bm25s

            self.words = bm25s.BM25.load(place, mmap=True)
        else:
            self.vectors, self.encoder = np.load(place / "vectors.npy", mmap_mode="r"), _encoder(model)
            self.encoder.encode(["warm"])

    def best(self, query: str, k: int) -> list[str]:
        """Return at most k texts, the best first; by words those alone that have one of the query's."""
        import numpy as np

        k = min(k, len(self.offsets) - 1)
        if self.by == "bm25":
            known = [word for word in _WORD.findall(query.lower()) if word in self.words.vocab_dict]
            if not known:
                return []
            scores = self.words.get_scores(known)
        else:
            scores = self.vectors @ self.encoder.encode([query], normalize_embeddings=True)[0]
        top = np.argpartition(-scores, k - 1)[:k]
        ranked = sorted(top.tolist(), key=lambda i: (-scores[i], i))
        return [self._text(i) for i in ranked if self.by != "bm25" or scores[i] > 0]

    def _text(self, i: int) -> str:
        return self.texts[self.offsets[i] : self.offsets[i + 1]].tobytes().decode()


@cache
def _index(corpus: str, by: str, model: str) -> _Index:
    """Return the index of a corpus, built if there is none."""
    import filelock

    place, rows = Path(corpus).expanduser().resolve(), None
    if not place.exists():
        import datasets

        try:
            rows = datasets.load_dataset(corpus, split="train")
        except Exception as error:
            raise ToolError(f"there is no {place}, and as a data set of the hub: {one_line(error)}") from error
        place = _home() / corpus.replace("/", "--")
    told = (_FORMAT, by, model if by == "embedding" else "", "" if rows is None else rows._fingerprint)
    name = f"{place.name}.index-{_digest(place if rows is None else None, told)}"
    beside = place.parent if os.access(place.parent, os.W_OK) or (place.parent / name).is_dir() else _home()
    if not (beside / name).is_dir():
        with filelock.FileLock(beside / f"{name}.lock"):
            if not (beside / name).is_dir():
                unfinished = beside / f"{name}.part"
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                _build(_passages(place) if rows is None else _texts(rows), unfinished, by, model)
                unfinished.rename(beside / name)
    return _Index(beside / name, by, model)


def _build(passages: Iterator[str], folder: Path, by: str, model: str) -> None:
    """Write the texts as they come, and what finds them."""
    import numpy as np

    def written() -> Iterator[str]:
        with open(folder / "texts.bin", "wb") as file:
            for text in passages:
                offsets.append(offsets[-1] + file.write(text.encode(errors="replace")))
                yield text

    if (first := next(passages, None)) is None:
        raise ToolError("the corpus holds no text")
    passages, offsets = itertools.chain([first], passages), [0]
    if by == "bm25":
        import bm25s

        tokenizer = bm25s.tokenization.Tokenizer(splitter=_WORD.findall, stopwords="en")
        ids = [array("i", one) for one in tokenizer.streaming_tokenize(written())]  # lists would take twice the memory
        index = bm25s.BM25()
        index.index((ids, tokenizer.get_vocab_dict()), show_progress=False)
        index.save(folder, show_progress=False)
    else:
        texts = list(written())
        vectors = _encoder(model).encode(texts, normalize_embeddings=True, show_progress_bar=len(texts) > 10_000)
        np.save(folder / "vectors.npy", np.asarray(vectors, dtype=np.float32))
    np.save(folder / "offsets.npy", np.array(offsets))


@cache
def _encoder(model: str) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(model, device="cpu")


def _home() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reasoning_ext"
    home.mkdir(parents=True, exist_ok=True)
    return home


def _files(place: Path) -> list[Path]:
    """List the files of a corpus; of a folder those that lie in it, wherever a link may lead."""
    if not place.is_dir():
        return [place]
    inside = [file for ending in ENDINGS for file in place.rglob(f"*{ending}")]
    return sorted(file for file in inside if file.is_file() and file.resolve().is_relative_to(place.resolve()))


def _digest(place: Path | None, told: tuple) -> str:
    digest = hashlib.sha256(repr(told).encode())
    for file in _files(place) if place else ():
        digest.update(f"\0{file.name}\0".encode())
        with open(file, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]


def _passages(place: Path) -> Iterator[str]:
    """Yield the passages of a file, of JSON the rows and of text the paragraphs, or of each file of a folder under its name."""
    if not place.is_dir() and place.suffix == ".jsonl":
        yield from _texts(_rows(place))
        return
    for file in _files(place):
        head = f"{file.stem}\n" if place.is_dir() else ""
        lines = list[str]()
        with open(file, encoding="utf-8-sig", errors="replace") as opened:
            for line in itertools.chain(opened, [""]):
                if line.strip():
                    lines.append(line.rstrip())
                elif lines:
                    yield head + "\n".join(lines)
                    lines = []


def _rows(file: Path) -> Iterator[Any]:
    with open(file, encoding="utf-8-sig", errors="replace") as opened:
        for number, line in enumerate(opened, 1):
            try:
                if line.strip():
                    yield json.loads(line)
            except ValueError:
                raise ToolError(f"line {number} is no JSON") from None


def _texts(rows: Iterable[Any]) -> Iterator[str]:
    """Yield the rows' `text`, below their `title` if they have one."""
    for number, row in enumerate(rows, 1):
        text = row.get("text") if isinstance(row, dict) else None
        if not isinstance(text, str):
            raise ToolError(f"row {number} has no text")
        if text.strip():
            yield f"{row['title']}\n{text}" if isinstance(row.get("title"), str) else text
