"""What each strategy is worth: accuracy with its interval, and all the tokens that a problem took, from one store.

What a strategy needs is drawn where it is not in the store: a vote over 8 beside 4 samples draws 4 more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean
from typing import Any

from reasoning_ext.engines.base import SamplingSettings
from reasoning_ext.evaluate.answers import Answers, Line, Messages, Request
from reasoning_ext.evaluate.scorers import open_scorer
from reasoning_ext.evaluate.search import Outcome, beam, candidate, lowest, refine, right
from reasoning_ext.evaluate.strategy_options import Strategy
from reasoning_ext.runs.read import GREEDY, strategy_rows
from reasoning_ext.scoring.metrics import interval, voters
from reasoning_ext.shown import print, print_rows

Results = dict[str, dict[str, Any]]


def strategy_results(
    strategies: list[Strategy], answers: Answers, settings: SamplingSettings, decides: str
) -> tuple[Results, list[Line]]:
    """Return the figures of each strategy for a model by its label, and a line a strategy and problem.

    Args:
        strategies: the entries.
        answers: the model's store; what is missing is drawn.
        settings: as the recipe's own sampled completions are drawn.
        decides: the reward that says what is right.

    Raises:
        KeyProblem, RewardError: a scorer fails, or a strategy cannot be had with this model.
        EngineError: as `Answers.draw`.
    """
    results, lines = Results(), list[Line]()
    for strategy in strategies:
        outcomes = DOES[strategy.kind](strategy, answers, settings, decides)
        results[strategy.label] = figures = _figures(outcomes)
        if not figures.get("accuracy"):
            print(
                f"eval  warning: {answers.label}: nothing of {strategy.label} could be judged by {decides}", flush=True
            )
        for p, one in enumerate(outcomes):
            if one.right is not None:
                spent = {"right": one.right, "tokens": one.tokens + (one.prompt_tokens or 0)}
                lines.append({"model": answers.label, "strategy": strategy.label, "prompt_index": p, **spent})
    return results, lines


def _figures(outcomes: list[Outcome]) -> dict[str, Any]:
    """Return `accuracy` with its interval, mean `tokens` a problem, and of refinement the accuracy after each round.

    What could not be judged is counted; where that is all, there is nothing else.
    """
    judged = [one for one in outcomes if one.right is not None]
    if not judged:
        return {"not judged": len(outcomes)}
    figures: dict[str, Any] = {"accuracy": _share([one.right for one in judged])}
    figures["tokens"] = round(fmean(one.tokens + (one.prompt_tokens or 0) for one in judged), 2)
    if rounds := [*zip(*(one.rounds for one in judged), strict=True)]:
        figures["rounds"] = [_share(values) for values in rounds]
        counted = all(one.prompt_tokens is not None for one in judged)
        figures["prompt tokens"] = round(fmean(one.prompt_tokens or 0 for one in judged), 2) if counted else None
    unjudged = len(outcomes) - len(judged)
    return figures | ({"not judged": unjudged} if unjudged else {})


def _share(values: Any) -> list[float] | None:
    known = [value for value in values if value is not None]
    return interval(known) if known else None


def greedy(strategy: Strategy, answers: Answers, settings: SamplingSettings, decides: str) -> list[Outcome]:
    """Take the likeliest completion; with `cot`, of a prompt that asks for a chain of thought, or shows some.

    Zero-shot as in arXiv:2205.11916, the words behind the question; few-shot as in arXiv:2201.11903, earlier turns.
    """
    o, prompts = strategy.options, dict[int, Messages]()
    if strategy.kind == "cot":
        prompts = {p: _with_thought(row["prompt"], o.prompt, strategy.turns) for p, row in enumerate(answers.table)}
    settings = replace(settings, **{"temperature": 0.0} | o.changed())
    [lines] = answers.draw(Request([(p, GREEDY) for p in range(len(answers.table))], settings, strategy.way, prompts))
    return [Outcome(right(line, decides), line["tokens"]) for line in lines]


def _with_thought(prompt: Messages, words: str, turns: tuple[dict[str, str], ...]) -> Messages:
    first = next((i for i, message in enumerate(prompt) if message["role"] != "system"), 0)
    last = {**prompt[-1], "content": f"{prompt[-1]['content']}\n{words}" if words else prompt[-1]["content"]}
    return [*prompt[:first], *turns, *prompt[first:-1], last]


def self_consistency(strategy: Strategy, answers: Answers, settings: SamplingSettings, decides: str) -> list[Outcome]:
    """Take the commonest answer of n completions (arXiv:2203.11171); equals share.

    They are counted in their order, and only until the vote cannot change any more (arXiv:2305.11860).
    """
    outcomes = []
    for lines in _sampled(strategy, answers, settings):
        votes = voters([line["completion"] for line in lines])
        counted = settled(votes, len(lines))
        groups = [[lines[i] for i in group if i < counted] for group in votes]
        most = max(map(len, groups))
        chosen = [group for group in groups if len(group) == most]
        outcomes.append(Outcome(_share_right(chosen, decides), _tokens(lines[:counted])))
    return outcomes


def settled(votes: list[list[int]], n: int) -> int:
    """Return after how many of n completions, whose votes are grouped, the vote cannot change any more.

    >>> settled([[0, 1, 3], [2, 4]], 5), settled([[0, 2], [1, 3]], 4)
    (4, 4)
    """
    group_of = {i: group for group, members in enumerate(votes) for i in members}
    counts = Counter[int]()
    for i in range(n):
        counts.update([group_of[i]] if i in group_of else [])
        first, second = [*sorted(counts.values(), reverse=True), 0, 0][:2]
        if first > second + n - 1 - i:
            return i + 1
    return n


def weighted_vote(strategy: Strategy, answers: Answers, settings: SamplingSettings, decides: str) -> list[Outcome]:
    """Take the answer whose completions have the largest sum of scores (arXiv:2203.11171, table 1, and 2502.18581)."""
    return _by_score(strategy, answers, settings, decides, heaviest)


def best_of(strategy: Strategy, answers: Answers, settings: SamplingSettings, decides: str) -> list[Outcome]:
    """Take the completion that a scorer likes best (best-of-n of huggingface/search-and-learn); equals share."""
    return _by_score(strategy, answers, settings, decides, highest)


def _by_score(
    strategy: Strategy, answers: Answers, settings: SamplingSettings, decides: str, choose: Callable[..., Any]
) -> list[Outcome]:
    assert strategy.scorer is not None  # an entry with `by` has one
    drawn, scores = _sampled(strategy, answers, settings), open_scorer(strategy.scorer)
    found = iter(scores([candidate(answers, line) for lines in drawn for line in lines]))
    chosen = [choose(lines, [next(found) for _ in lines]) for lines in drawn]
    return [Outcome(_share_right(groups, decides), _tokens(lines)) for groups, lines in zip(chosen, drawn, strict=True)]


def highest(lines: list[Line], scores: list[float | None]) -> list[list[Line]]:
    """Return the lines with the highest score, each by itself."""
    most = max(map(lowest, scores))
    return [[line] for line, score in zip(lines, scores, strict=True) if lowest(score) == most]


def heaviest(lines: list[Line], scores: list[float | None]) -> list[list[Line]]:
    """Return the lines of the answers that weigh most; where scores are below 0, the lowest of them counts as 0."""
    zero = min([0.0, *(score for score in scores if score is not None)])
    weights = [0.0 if score is None else score - zero for score in scores]
    votes = voters([line["completion"] for line in lines])
    sums = [round(sum(weights[i] for i in group), 9) for group in votes]
    sums = sums if any(sums) else [float(len(group)) for group in votes]  # where nothing weighs, each counts the same
    return [[lines[i] for i in group] for group, weight in zip(votes, sums, strict=True) if weight == max(sums)]


def _sampled(strategy: Strategy, answers: Answers, settings: SamplingSettings) -> list[list[Line]]:
    """Return n completions of each problem, drawn with the recipe's settings or the entry's."""
    o, problems = strategy.options, range(len(answers.table))
    keys = [(p, i) for p in problems for i in range(o.n)]
    [lines] = answers.draw(Request(keys, replace(settings, **o.changed()), strategy.way))
    return [lines[p * o.n : (p + 1) * o.n] for p in problems]


def _share_right(groups: list[list[Line]], decides: str) -> float | None:
    """Return what is right of groups of completions that share; None where nothing could be judged."""
    judged = [[value for line in group if (value := right(line, decides)) is not None] for group in groups]
    return fmean(map(fmean, filter(None, judged))) if any(judged) else None


def _tokens(lines: list[Line]) -> int:
    return sum(line["tokens"] for line in lines)


DOES: dict[str, Callable[[Strategy, Answers, SamplingSettings, str], list[Outcome]]] = {
    "greedy": greedy,
    "cot": greedy,
    "self_consistency": self_consistency,
    "weighted_vote": weighted_vote,
    "best_of": best_of,
    "beam": beam,
    "refine": refine,
}


def print_strategies(results: Results) -> None:
    """Print a row a model and strategy: accuracy with its interval, and tokens; of refinement also after each round."""
    rows = [(label, *row) for label, figures in results.items() for row in strategy_rows(figures.get("strategies", {}))]
    if not rows:
        return
    title, names = (
        "strategies, 95 % intervals, and all tokens that a problem took",
        ("model", "strategy", "accuracy", "tokens"),
    )
    print_rows(title, names, rows, left=("strategy",))
    every = [one for figures in results.values() for one in figures["strategies"].values()]
    if any(one.get("prompt tokens", 0) is None for one in every):
        print("eval  the prompts of refinement are not counted: this engine keeps its tokenizer to itself", flush=True)
