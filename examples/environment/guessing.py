"""A game for a model that acts: find a number from 1 to 7 by guesses that are answered with higher, lower or right.

`Guessing` is the environment, one object a completion: `reset` gets the row, and `guess` is what the model can call. `guessing`
makes the rows, some of which show how to play well and most how not to; `found` is the reward, and looks at the object.
"""

import random
from collections.abc import Iterator
from typing import Any

MOST = 7  # three guesses, each in the middle of what is left, find any of seven numbers


class Guessing:
    """A secret number; see TRL's `environment_factory`."""

    def reset(self, secret: int, **row: Any) -> None:
        """Begin a game with a row's number; text returned here would stand behind the question."""
        self.secret, self.guesses = secret, []

    def guess(self, number: int) -> str:
        """Guess the number.

        Args:
            number: a number from 1 to 7

        Returns:
            higher, lower or right.
        """
        self.guesses.append(number)
        return reply(self.secret, number)


def found(completions: list, environments: list[Guessing], **kwargs: Any) -> list[float]:
    """Reward a game in which the number was guessed: 1.0, less 0.1 for each guess before it.

    Example:
        >>> game = Guessing()
        >>> game.reset(secret=6)
        >>> game.guess(4), game.guess(6), found(["6"], [game])
        ('higher', 'right', [0.9])
    """
    return [
        1.0 - 0.1 * game.guesses.index(game.secret) if game.secret in game.guesses else 0.0 for game in environments
    ]


def guessing(split: str, seed: int = 0, num_rows: int = 1000, good_share: float = 0.2) -> Iterator[dict]:
    """Yield games in TRL's conversational prompt-completion form.

    Args:
        split: a game has no more than seven numbers, so that all splits have the same.
        seed: row `i` depends on `seed` and `i` alone.
        num_rows: how many rows.
        good_share: share of the games in which the middle is guessed; in the rest any number that was not named yet.

    Yields:
        `{"prompt": [user message], "completion": [guesses and answers, then the number], "secret": 1 to 7}`.
    """
    for index in range(num_rows):
        rng = random.Random(f"{split}-{seed}-{index}")
        secret = rng.randrange(1, MOST + 1)
        turns, said = play(secret, rng, rng.random() < good_share)
        yield {
            "prompt": [{"role": "user", "content": "guess"}],
            "completion": [*turns, {"role": "assistant", "content": f"<think></think>{said}"}],
            "secret": secret,
        }


def play(secret: int, rng: random.Random, well: bool) -> tuple[list[dict], int]:
    """Play a game of three guesses at most; returns its turns and what is said at the end."""
    left, named, turns = set(range(1, MOST + 1)), set[int](), list[dict]()
    while len(named) < 3 and secret not in named:
        number = sorted(left)[len(left) // 2] if well else rng.choice(sorted({*range(1, MOST + 1)} - named))
        named.add(number)
        function = {"name": "guess", "arguments": {"number": number}}
        call = {"type": "function", "function": function}
        turns += [
            {"role": "assistant", "content": "<think>guess</think>", "tool_calls": [call]},
            {"role": "tool", "name": "guess", "content": reply(secret, number)},
        ]
        left = {one for one in left if reply(one, number) == reply(secret, number)}
    return turns, secret if secret in named else rng.choice(sorted(left))


def reply(secret: int, number: int) -> str:
    """Say where the secret is, seen from a number."""
    return "right" if number == secret else "higher" if secret > number else "lower"
