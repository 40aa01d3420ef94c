"""Which of several completions of one question `ask` takes, by those strategies of stage `eval` that need no more.

    self_consistency:8              the commonest answer
    weighted_vote:8:mean_logprob    the answer whose completions have the largest sum of scores
    best_of:8:step_check            the completion with the best score

`strategies` says what is right in an entry, `scorers` what a score may be, `scaling` what each does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasoning_ext import think
from reasoning_ext.engines.base import Completion, SamplingSettings
from reasoning_ext.errors import KeyProblem, UserError
from reasoning_ext.evaluate.scaling import heaviest, highest
from reasoning_ext.evaluate.scorers import MEAN_LOGPROB, Candidate, Scorer, open_scorer
from reasoning_ext.evaluate.strategies import parse_strategies
from reasoning_ext.recipe.known_keys import stage_keys
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.scoring.metrics import voters
from reasoning_ext.scoring.votes import same_answers
from reasoning_ext.verifier import said as answer_of

KINDS = ("self_consistency", "weighted_vote", "best_of")
FORMS = "self_consistency:N, weighted_vote:N:SCORER or best_of:N:SCORER"


@dataclass(frozen=True)
class Choice:
    """How many completions of a question are drawn, and how one is chosen; without a kind they are voted over."""

    n: int = 1
    kind: str = ""
    label: str = ""
    scorer: Scorer | None = None

    @property
    def logprobs(self) -> bool:
        """Whether completions are drawn with their log-probabilities."""
        return self.scorer is not None and self.scorer.name == MEAN_LOGPROB


def parse_choice(text: str, settings: SamplingSettings) -> Choice:
    """Read `KIND:N` or `KIND:N:SCORER` as stage `eval` reads an entry; raises a UserError for what is none."""
    kind, _, rest = text.partition(":")
    n, _, by = rest.partition(":")
    if kind not in KINDS or (kind == KINDS[0] and by):
        raise UserError(f"--strategy: unknown strategy (found {text}), allowed: {FORMS}")
    options: dict[str, Any] = {"n": int(n) if n.isdecimal() and len(n) < 5 else n} if n else {}
    entry = {kind: options | ({"by": by} if by else {})}
    values = {"strategies": [entry], "temperature": settings.temperature, "use_cpu": False}
    values["max_completion_length"] = settings.max_completion_length
    try:
        [found] = parse_strategies(Recipe(Path.cwd() / "ask", "eval", values, stage_keys("eval"), {}), [])
    except KeyProblem as error:
        raise UserError(f"--strategy {text}: {error.path[-1]}: {error}") from error
    return Choice(found.options.n, kind, found.label, found.scorer)


def choose(choice: Choice, prompt: list[dict[str, str]], completions: Sequence[Completion]) -> tuple[int, list[str]]:
    """Return which completion is taken, and the lines that say so: the vote, and what a strategy chose."""
    texts = [completion.text for completion in completions]
    said, chosen, score = [vote_line(texts)], voters(texts)[0][0], ""
    if choice.scorer is not None:
        scores = open_scorer(choice.scorer)([Candidate(prompt, c.text, c.tokens, c.logprob) for c in completions])
        lines = [{"completion": text, "index": i} for i, text in enumerate(texts)]
        groups = heaviest(lines, scores) if choice.kind == "weighted_vote" else highest(lines, scores)
        chosen = groups[0][0]["index"]
        score = ", no score" if scores[chosen] is None else f", score {scores[chosen]:.3g}"
    return chosen, [*said, *([f"{choice.label}: completion {chosen + 1}{score}"] if choice.kind else [])]


def vote_line(completions: list[str]) -> str:
    r"""Return the vote in words: each answer as most of its completions write it, and how many give it.

    >>> vote_line(["The answer is 42.", "<think>6*7", "x = 42", r"\boxed{41}", "<think>6*7=42</think>42"])
    'vote: 42 (3 of 5), 41 (1 of 5), (no answer) (1 of 5)'
    """
    said = [think.answer(text) or "" for text in completions]
    written = [Counter(answer_of(said[i]) for i in group) for group in same_answers(completions)]
    counts = [(wordings.most_common(1)[0][0], wordings.total()) for wordings in written]
    if without := len(said) - sum(count for _, count in counts):
        counts.append(("(no answer)", without))
    return "vote: " + ", ".join(f"{answer} ({count} of {len(said)})" for answer, count in counts)
