"""Word problems of one to three steps, with numbers that a model of 135M parameters can work with.

    Mia has 6 pears, buys 3 bags of 4 and gives 5 to Paul. How many pears does Mia have now?
    ->  <think>3 * 4 = 12
        6 + 12 = 18
        18 - 5 = 13</think>13

A step is within the model's reach, two of them at once hardly are. In the training split a part of the traces works the
answer out and the others jump to it behind an empty thought: a model trained on them does both, and GRPO finds out which
one pays. Which split a problem belongs to is decided by its text alone.
"""

import random
import re
import zlib
from collections.abc import Iterator

NAMES = "Ada Ben Dan Emma Finn Grace Hugo Jack Kate Liam Mia Noah Olga Paul Rosa Sam Tara Zoe".split()
THINGS = (
    "apples pencils stamps candles lemons cups tickets lamps buttons spoons pears shells cards eggs books coins".split()
)
HOLDERS = "boxes bags baskets jars".split()
GAINS, LOSSES = ("finds {number} more", "gets {number} from {other}"), ("gives {number} to {other}", "loses {number}")
TEST_SHARE = 5  # one problem in five belongs to the test split


def word_problems(
    split: str, seed: int = 0, num_rows: int = 1000, num_steps: tuple[int, ...] = (1, 2), thought_share: float = 0.4
) -> Iterator[dict]:
    """Yield rows of the task in TRL's prompt-completion form.

    Args:
        split: "train" or "test"; the two never share a problem, whatever the seed.
        seed: row `i` depends on `seed` and `i` alone.
        num_rows: how many rows.
        num_steps: equations that a problem takes, drawn for each row; a number that stands twice is drawn twice as often.
        thought_share: share of the rows whose completion works the answer out; the rest have an empty thought.

    Yields:
        `{"prompt": question, "completion": thought and answer, "answer": whole number as text, "steps": how many}`.
    """
    for index in range(num_rows):
        rng = random.Random(f"{split}-{seed}-{index}")
        wanted = rng.choice(num_steps)
        question, steps, answer = _problem(rng, wanted)
        while (zlib.crc32(question.encode()) % TEST_SHARE == 0) != (split == "test") or _copied(answer, question):
            question, steps, answer = _problem(rng, wanted)
        thought = "\n".join(steps) if rng.random() < thought_share else ""
        completion = f"<think>{thought}</think>{answer}"
        yield {"prompt": question, "completion": completion, "answer": str(answer), "steps": wanted}


def _copied(answer: int, question: str) -> bool:
    """Whether the answer stands in the question, so that copying a number would be right."""
    return str(answer) in re.findall(r"\d+", question)


def _problem(rng: random.Random, wanted: int) -> tuple[str, list[str], int]:
    """Draw a story of `wanted` steps; return the question, the equations and the answer."""
    name, other = rng.sample(NAMES, 2)
    things = rng.choice(THINGS)
    have, steps, story = rng.randint(4, 15), [], []
    story.append(f"{name} has {have} {things}")
    while len(steps) < wanted:
        event = rng.choice(GAINS + LOSSES * (have > 3) + ("buys",) * (wanted - len(steps) > 1))
        if event == "buys":
            holders, each = rng.randint(2, 5), rng.randint(2, 5)
            story.append(f"buys {holders} {rng.choice(HOLDERS)} of {each}")
            steps.append(f"{holders} * {each} = {holders * each}")
            sign, number = "+", holders * each
        else:
            sign, number = "+" if event in GAINS else "-", rng.randint(2, 9 if event in GAINS else min(have - 1, 9))
            story.append(event.format(number=number, other=other))
        after = have + number if sign == "+" else have - number
        steps.append(f"{have} {sign} {number} = {after}")
        have = after
    return f"{', '.join(story[:-1])} and {story[-1]}. How many {things} does {name} have now?", steps, have
