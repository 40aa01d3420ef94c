"""The tiny task for a tool: products that the model cannot work out, and sums that it knows.

    417*362   ->   <think>calculator</think> calls calculator("417*362"), reads 150954   ->   <think></think>150954
    417*362   ->   <think></think>100000
    3+4       ->   <think></think>7

A product of two three-digit numbers is out of a small model's reach in one forward pass, whatever the seed; a sum below ten
is not. In the training split some traces call the calculator and the others answer at once, behind an empty thought: products
with a round number, which is wrong, sums with the right one. A model trained on them does both with both kinds, and GRPO finds
out when a call pays. Numbers are from 320 up, so that every product has six digits, and a small model soon learns to copy one.
"""

import random
import zlib
from collections.abc import Iterator

TEST_SHARE = 10  # one product in ten belongs to the test split, decided by its text alone


def products(
    split: str,
    seed: int = 0,
    num_rows: int = 1000,
    hard_share: float = 0.5,
    call_share: float = 0.4,
    needless_share: float = 0.2,
) -> Iterator[dict]:
    """Yield rows of the task in TRL's conversational prompt-completion form.

    Args:
        split: "train" or "test"; the two never share a product, whatever the seed; sums, of which there are 55, are in both.
        seed: row `i` depends on `seed` and `i` alone.
        num_rows: how many rows.
        hard_share: share of the rows that ask for a product; the rest ask for a sum.
        call_share: share of the products' completions that call the calculator; the rest guess a round number.
        needless_share: share of the sums' completions that call it; the rest answer at once.

    Yields:
        `{"prompt": [user message], "completion": [assistant, tool and assistant messages], "answer": digits,
        "needs_tool": whether it is a product}`.
    """
    for index in range(num_rows):
        rng = random.Random(f"{split}-{seed}-{index}")
        hard = rng.random() < hard_share
        problem = _product(rng, split) if hard else _sum(rng)
        answer = str(solve(problem))
        calls = rng.random() < (call_share if hard else needless_share)
        said = f"{answer[0]}00000" if hard and not calls else answer
        yield {
            "prompt": [{"role": "user", "content": problem}],
            "completion": [
                *(call(problem, answer) if calls else []),
                {"role": "assistant", "content": f"<think></think>{said}"},
            ],
            "answer": answer,
            "needs_tool": hard,
        }


def solve(problem: str) -> int:
    """Return the value of a problem: `3+4` -> 7."""
    a, operator, b = problem.partition("+" if "+" in problem else "*")
    return int(a) + int(b) if operator == "+" else int(a) * int(b)


def call(problem: str, result: str) -> list[dict]:
    """Return the turn that calls the calculator, and what it answers."""
    function = {"name": "calculator", "arguments": {"expression": problem}}
    return [
        {
            "role": "assistant",
            "content": "<think>calculator</think>",
            "tool_calls": [{"type": "function", "function": function}],
        },
        {"role": "tool", "name": "calculator", "content": result},
    ]


def _product(rng: random.Random, split: str) -> str:
    while True:
        problem = f"{rng.randrange(320, 1000)}*{rng.randrange(320, 1000)}"
        if (zlib.crc32(problem.encode()) % TEST_SHARE == 0) == (split == "test"):
            return problem


def _sum(rng: random.Random) -> str:
    a = rng.randrange(10)
    return f"{a}+{rng.randrange(10 - a)}"
