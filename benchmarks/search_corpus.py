r"""What the tool `search` costs on a large corpus: building its index, a query, and memory; the corpus is made up.

    python benchmarks/search_corpus.py [--passages 1000000] [--queries 200] [--folder FOLDER] [--output]

Passages have 20 to 60 words, drawn by Zipf's law from a vocabulary that grows with them, as text has it. Queries are two to
six words of a passage, common ones too; counted is how often that passage is among the first three. Each of building and
searching is a process of its own, whose largest resident memory is measured, mapped files included. --output writes
results/search_corpus.json.
"""

import argparse
import json
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "search_corpus.json"
LETTERS, SEED, K = "abcdefghijklmnopqrstuvwxyz", 0, 3


def make(file: Path, passages: int) -> None:
    """Write the corpus."""
    import numpy as np

    drawn, words = np.random.default_rng(SEED), random.Random(SEED)
    vocabulary = ["".join(words.choices(LETTERS, k=words.randint(3, 9))) for _ in range(max(20_000, passages // 4))]
    with open(file, "w", encoding="utf-8") as opened:
        for start in range(0, passages, 10_000):
            lengths = drawn.integers(20, 61, size=min(10_000, passages - start))
            ranks = (drawn.zipf(1.15, size=int(lengths.sum())) - 1) % len(vocabulary)
            at = 0
            for length in lengths.tolist():
                text = " ".join(vocabulary[rank] for rank in ranks[at : at + length].tolist())
                at += length
                opened.write(json.dumps({"text": text}) + "\n")


def build(file: str, given: argparse.Namespace) -> dict[str, float]:
    """Build the index."""
    from reasoning_ext.tools.library.search import prepare

    began = time.perf_counter()
    prepare(file)
    return {"build_seconds": time.perf_counter() - began, "build_cpu_seconds": time.process_time()}


def ask(file: str, given: argparse.Namespace) -> dict[str, float]:
    """Open the index, and ask."""
    from reasoning_ext.tools.library.search import prepare, search

    began = time.perf_counter()
    prepare(file)
    opened = time.perf_counter() - began
    drawn, texts = random.Random(SEED), list[str]()
    with open(file, encoding="utf-8") as rows:
        for number, row in enumerate(rows):
            if number % max(1, given.passages // given.queries) == 0:
                texts.append(json.loads(row)["text"])
    seconds, busy, found = list[float](), list[float](), 0
    for text in texts:
        query = " ".join(drawn.sample(text.split(), drawn.randint(2, 6)))
        began, before = time.perf_counter(), time.process_time()
        answer = search(query, corpus=file, k=K)
        seconds.append(time.perf_counter() - began)
        busy.append(time.process_time() - before)
        found += text in answer
    seconds.sort()
    busy.sort()
    return {
        "open_seconds": opened, "queries": len(texts), "query_ms_median": 1000 * seconds[len(seconds) // 2],
        "query_ms_95": 1000 * seconds[int(0.95 * len(seconds))], "query_ms_most": 1000 * seconds[-1],
        "query_cpu_ms_median": 1000 * busy[len(busy) // 2], "query_cpu_ms_most": 1000 * busy[-1],
        "own_passage_found": found / len(texts),
    }  # fmt: skip


def apart(what: str, file: Path, given: argparse.Namespace) -> dict[str, float]:
    """Run a part in a process of its own."""
    command = [sys.executable, __file__, "--part", what, "--folder", str(file)]
    command += ["--queries", str(given.queries), "--passages", str(given.passages)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--folder", default="")
    parser.add_argument("--output", action="store_true")
    parser.add_argument("--part", default="")
    given = parser.parse_args()
    if given.part:
        found = {"build": build, "ask": ask}[given.part](given.folder, given)
        found[f"{given.part}_peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({name: round(value, 2) for name, value in found.items()}))
        return
    with tempfile.TemporaryDirectory(dir=given.folder or None) as folder:
        file = Path(folder, "corpus.jsonl")
        make(file, given.passages)
        found = {"passages": given.passages, "corpus_mib": round(file.stat().st_size / 2**20)}
        found |= apart("build", file, given) | apart("ask", file, given)
        [index] = [place for place in Path(folder).iterdir() if place.is_dir()]
        found["index_mib"] = round(sum(part.stat().st_size for part in index.iterdir()) / 2**20)
    found |= {"bm25s": version("bm25s"), "machine": platform.machine(), "date": date.today().isoformat()}
    print(json.dumps(found, indent=2))
    if given.output:
        RESULT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
