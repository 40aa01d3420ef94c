"""What an evaluation draws of each problem at most, known before anything is drawn: for `check`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reasoning_ext.evaluate.strategies import parse_strategies
from reasoning_ext.evaluate.strategy_options import MOST_STEPS, Beam, Cot, Refine, SelfConsistency, Strategy
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.read import GREEDY
from reasoning_ext.scoring.spec import RewardSpec

TEMPLATE, CHARACTERS = 128, 3  # tokens of a template of refinement at most, characters of a token at least


@dataclass(frozen=True)
class Draw:
    """One completion: its tokens at most, those of its prompt beyond the data set's, whether it is surely drawn."""

    tokens: int
    beyond: int = 0
    sure: bool = True


def most_drawn(recipe: Recipe, specs: Sequence[RewardSpec], most: int) -> dict[tuple[str, int], Draw]:
    """Return what stage eval draws of one problem of one model, by way and sample, as `answers.jsonl` has it.

    Args:
        recipe: of stage eval; entries of `strategies` that are wrong are left out.
        specs: its rewards.
        most: tokens of a completion, where a strategy does not say otherwise.
    """
    found = {("", sample): Draw(most) for sample in (GREEDY, *range(recipe.get("num_generations") or 0))}
    for strategy in parse_strategies(recipe, [*specs], []):
        for key, draw in _of_strategy(strategy, strategy.options.max_completion_length or most):
            found.setdefault(key, draw)
    if recipe.get("thinking_curve"):
        from reasoning_ext.evaluate.curve import points_of, thinking_cuts

        cuts = thinking_cuts(recipe)
        found |= {(point.way, GREEDY): Draw(most, most, False) for point in (points_of(cuts, most) if cuts else ())}
    return found


def _of_strategy(strategy: Strategy, most: int) -> Iterator[tuple[tuple[str, int], Draw]]:
    """Yield a strategy's draws of one problem; what goes on from text that was drawn before has it in its prompt."""
    o, way = strategy.options, strategy.way
    if isinstance(o, Beam):
        for sample in range(MOST_STEPS * o.width):
            yield (way, sample), Draw(most, 0 if sample < o.width else most, sample < o.width)
    elif isinstance(o, SelfConsistency):
        yield from (((way, sample), Draw(most)) for sample in range(o.n or 0))
    else:
        texts = [o.prompt, *(turn["content"] for turn in strategy.turns)] if isinstance(o, Cot) else []
        yield (way, GREEDY), Draw(most, sum(map(len, texts)) // CHARACTERS)
    for number in range(1, o.rounds + 1) if isinstance(o, Refine) else ():
        critique, answer = strategy.round_ways(number)
        yield (critique, GREEDY), Draw(most, TEMPLATE + most)
        yield (answer, GREEDY), Draw(most, TEMPLATE + 2 * most)


def reward_models(recipe: Recipe, specs: Sequence[RewardSpec]) -> list[str]:
    """Return the folders or names of the reward models that score for a recipe's strategies, each once."""
    scorers = [one.scorer for one in parse_strategies(recipe, [*specs], [])]
    return [*dict.fromkeys(scorer.model for scorer in scorers if scorer and scorer.model)]
