"""What a GRPO trainer has just scored, for who wants to look at it: TRL has no event between generation and training.

`observe` stands around the trainer's `_calculate_rewards`, which TRL 1.14 and 1.16 call once a generation batch, in an
evaluation too (`trainer.model.training` tells them apart), before it writes what rewards have logged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# inputs (rows of the data set, one a completion), prompts, completions, completion_ids: N each, as rewards get them;
# rewards: a tensor N x rewards, NaN where a reward does not apply
Observer = Callable[[list[dict[str, Any]], list, list, list[list[int]], Any], None]


def observe(trainer: Any, observer: Observer) -> None:
    """Call `observer` after each generation with this process's N completions and their rewards; several may be added.

    What it raises ends the training. Metrics go by `trainer._log_metric(name, value)`, as those of a reward do.
    """
    calculate = trainer._calculate_rewards

    def observed(inputs: list[dict[str, Any]], prompts: list, completions: list, completion_ids: list) -> Any:
        rewards = calculate(inputs, prompts, completions, completion_ids)  # of all processes
        first = trainer.accelerator.process_index * len(prompts)
        observer(inputs, prompts, completions, completion_ids, rewards[first : first + len(prompts)])
        return rewards

    trainer._calculate_rewards = observed
