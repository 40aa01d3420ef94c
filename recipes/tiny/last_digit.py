"""The tiny task: read a chain of sums and products from left to right and give its last digit.

    7+5*3+8   ->   <think>7+5=12;2*3=6;6+8=14</think>4

Each step only needs the last digit of the one before, so a small model learns every step; the whole chain in one
forward pass is out of its reach, whatever the seed. In the training split a part of the traces works the answer out
and the others jump to it behind an empty thought: a model trained on them does both, and GRPO finds out which one pays.
Multiplying by 3, 7 or 9 keeps the ten digits equally likely, so that a guess is right one time in ten.
"""

import random
import zlib
from collections.abc import Iterator

TEST_SHARE = 10  # one problem in ten belongs to the test split, decided by the problem's text alone


def last_digit(
    split: str, seed: int = 0, num_rows: int = 1000, num_steps: int = 6, thought_share: float = 0.4
) -> Iterator[dict]:
    """Yield rows of the task in TRL's conversational prompt-completion form.

    Args:
        split: "train" or "test"; the two never share a problem, whatever the seed.
        seed: row `i` depends on `seed` and `i` alone.
        num_rows: how many rows.
        num_steps: operations in a chain.
        thought_share: share of the rows whose completion works the answer out; the rest have an empty thought.

    Yields:
        `{"prompt": [user message], "completion": [assistant message], "answer": "0".."9"}`.
    """
    for index in range(num_rows):
        rng = random.Random(f"{split}-{seed}-{index}")
        problem = _problem(rng, num_steps)
        while (zlib.crc32(problem.encode()) % TEST_SHARE == 0) != (split == "test"):
            problem = _problem(rng, num_steps)
        steps, answer = solve(problem)
        thought = ";".join(steps) if rng.random() < thought_share else ""
        yield {
            "prompt": [{"role": "user", "content": problem}],
            "completion": [{"role": "assistant", "content": f"<think>{thought}</think>{answer}"}],
            "answer": answer,
        }


def solve(problem: str) -> tuple[list[str], str]:
    """Return the steps, left to right on the last digit, and the answer's digit: `7+5*3` -> `["7+5=12", "2*3=6"], "6"`."""
    digit, steps = problem[0], []
    for operator, operand in zip(problem[1::2], problem[2::2], strict=True):
        result = int(digit) + int(operand) if operator == "+" else int(digit) * int(operand)
        steps.append(f"{digit}{operator}{operand}={result}")
        digit = str(result)[-1]
    return steps, digit


def _problem(rng: random.Random, num_steps: int) -> str:
    operations = (rng.choice("+*") for _ in range(num_steps))
    return str(rng.randrange(10)) + "".join(
        op + (rng.choice("379") if op == "*" else str(rng.randrange(1, 10))) for op in operations
    )
