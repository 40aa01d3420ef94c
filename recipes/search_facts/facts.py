"""The tiny task for a search: facts that nobody can know, and sums that the model knows.

    vodanu   ->   <think>search</think> calls search("vodanu"), reads "[1] vodanu 83500"   ->   <think></think>83500
    vodanu   ->   <think></think>50000
    3+4      ->   <think></think>7

Names and values of `facts.jsonl` are made up, by `python recipes/search_facts/facts.py`, so that no model has read them
anywhere. One name in ten belongs to the test split: what is right there was looked up, since no training ever asked for it.
"""

import json
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

CORPUS = Path(__file__).with_name("facts.jsonl")
NUM_FACTS = 2000
TEST_SHARE = 10  # one fact in ten belongs to the test split, decided by the name alone


def facts(
    split: str,
    seed: int = 0,
    num_rows: int = 1000,
    hard_share: float = 0.5,
    call_share: float = 0.4,
    needless_share: float = 0.2,
) -> Iterator[dict]:
    """Yield rows of the task in TRL's conversational prompt-completion form.

    Args:
        split: "train" or "test"; the two never share a fact, whatever the seed; sums are in both.
        seed: row `i` depends on `seed` and `i` alone.
        num_rows: how many rows.
        hard_share: share of the rows that ask for a fact; the rest ask for a sum below ten.
        call_share: share of the facts' completions that search; the rest make a round number up.
        needless_share: share of the sums' completions that search, in vain, before they answer; the rest answer at once.

    Yields:
        `{"prompt": [user message], "completion": [assistant, tool and assistant messages], "answer": digits,
        "needs_tool": whether it is a fact}`.
    """
    known = read_facts()
    names = [name for name in known if (zlib.crc32(name.encode()) % TEST_SHARE == 0) == (split == "test")]
    for index in range(num_rows):
        rng = random.Random(f"{split}-{seed}-{index}")
        hard = rng.random() < hard_share
        asked = rng.choice(names) if hard else _sum(rng)
        answer = known[asked] if hard else str(sum(map(int, asked.split("+"))))
        searches = rng.random() < (call_share if hard else needless_share)
        said = f"{rng.randrange(1, 10)}0000" if hard and not searches else answer
        found = f"[1] {asked} {answer}" if hard else "nothing found"
        yield {
            "prompt": [{"role": "user", "content": asked}],
            "completion": [
                *(search(asked, found) if searches else []),
                {"role": "assistant", "content": f"<think></think>{said}"},
            ],
            "answer": answer,
            "needs_tool": hard,
        }


def read_facts() -> dict[str, str]:
    """Read the corpus: `{name: value}`."""
    texts = (json.loads(line)["text"] for line in CORPUS.read_text(encoding="utf-8").splitlines())
    return dict(text.split() for text in texts)


def search(query: str, found: str) -> list[dict]:
    """Return the turn that searches, and what is found."""
    function = {"name": "search", "arguments": {"query": query}}
    return [
        {
            "role": "assistant",
            "content": "<think>search</think>",
            "tool_calls": [{"type": "function", "function": function}],
        },
        {"role": "tool", "name": "search", "content": found},
    ]


def _sum(rng: random.Random) -> str:
    a = rng.randrange(10)
    return f"{a}+{rng.randrange(10 - a)}"


def _made_up() -> Iterator[tuple[str, int]]:
    """Yield distinct names of three syllables with their values."""
    rng, names = random.Random("facts"), set[str]()
    while len(names) < NUM_FACTS:
        name = "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(3))
        if name not in names:
            names.add(name)
            yield name, rng.randrange(10000, 100000)


if __name__ == "__main__":
    CORPUS.write_text("".join(json.dumps({"text": f"{name} {value}"}) + "\n" for name, value in _made_up()))
