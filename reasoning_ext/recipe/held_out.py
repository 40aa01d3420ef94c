"""What a recipe says of the problems that a training answers as it goes: `eval_problems`, `keep` and `on_fall`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reasoning_ext.recipe.keys import FROM_DATA, TRAINED
from reasoning_ext.recipe.load import Recipe


@dataclass(frozen=True)
class EvalProblems:
    """What `eval_problems` may hold; a number alone is its `n`.

    Attributes:
        n: the first so many rows of the held-out split.
        samples: completions of each that are drawn beside the greedy one.
        reward_funcs: the first says what is right; left out, the recipe's first that reads the data, or `math_answer`.
        max_completion_length: tokens of a completion; left out, the recipe's, or what `max_length` leaves.
    """

    n: int = 100
    samples: int = 1
    reward_funcs: list | str | None = None
    max_completion_length: int | None = None

    @property
    def completions(self) -> int:
        """How many completions one measurement takes."""
        return self.n * (1 + self.samples)


def eval_problems(recipe: Recipe) -> EvalProblems | None:
    """Return what a recipe without errors answers as it trains; None for nothing."""
    given = recipe.values.get("eval_problems") if recipe.stage in TRAINED else None
    return None if given is None else EvalProblems(**given) if isinstance(given, dict) else EvalProblems(given)


def evaluates(recipe: Recipe) -> bool:
    """Tell whether a training reads held-out rows: for a loss of TRL's, or for `eval_problems`."""
    asked = recipe.values.get("eval_problems") is not None
    return recipe.stage in TRAINED and (asked or recipe.get("eval_strategy") not in (None, "no"))


def keeps_best(recipe: Recipe) -> bool:
    """Tell whether the best weights may be saved in the place of the last ones, as a run that a fall stops does."""
    return recipe.stage in TRAINED and (recipe.get("keep") == "best" or recipe.get("on_fall") == "stop")


def batch_of(recipe: Recipe) -> int:
    """Return how many completions of held-out problems are made at once: as many rows as a step is known to hold."""
    return recipe.values.get("per_device_eval_batch_size") or max(8, recipe.get("per_device_train_batch_size"))


def measurements(steps: int, every: float | None) -> int:
    """Return how often a training of so many steps is measured: at its start, every so many steps, and at its end.

    >>> measurements(50, 20), measurements(50, 0.5), measurements(50, None)
    (4, 3, 2)
    """
    each = steps if not every else math.ceil(steps * every) if every < 1 else int(every)
    return 1 + math.ceil(steps / max(1, each))


def own_length(recipe: Recipe) -> int | None:
    """Return the tokens of prompt and completion together, where the recipe trains on completions of the data."""
    return recipe.get("max_length") or recipe.get("max_seq_length") or 1024 if recipe.stage in FROM_DATA else None
