"""The options of each strategy as records, as a recipe writes them, and what a strategy is called."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from reasoning_ext.evaluate.scorers import MEAN_LOGPROB, Scorer
from reasoning_ext.runs.identity import text_hash

LONGEST = 40  # characters of a text in a label
MOST_STEPS = 40  # of a beam, after which what is left goes on to its end, as in search-and-learn


@dataclass(frozen=True)
class Drawn:
    """What every entry may set: how its completions are drawn, where that is not as the recipe says.

    Attributes:
        thinking_budget: tokens after which a thought is closed.
        min_thinking: tokens before which no thought is let close.
        temperature: of sampling; 0 takes the likeliest tokens.
        max_completion_length: tokens of a completion at most.
    """

    thinking_budget: int | None = None
    min_thinking: int | None = None
    temperature: float | None = None
    max_completion_length: int | None = None

    def changed(self) -> dict[str, Any]:
        """Return what it sets, fields of `SamplingSettings`."""
        given = {name: getattr(self, name) for name in Drawn.__dataclass_fields__}
        return {name: value for name, value in given.items() if value is not None}

    def way(self, *begin: str) -> str:
        """Return the way of its completions, "" where they are the recipe's own."""
        return " ".join([*begin, *(f"{name}={value}" for name, value in self.changed().items())])


@dataclass(frozen=True)
class Cot(Drawn):
    """Chain of thought.

    Attributes:
        prompt: what is put behind the question (zero-shot, arXiv:2205.11916).
        examples: a JSONL file of solved questions that come before it as earlier turns (few-shot, arXiv:2201.11903), or
            `word_problems` or `competition`, four each, made up for this and packaged (examples/few_shot).
        shots: so many of them, the first; all where it is left out.
    """

    prompt: str = ""
    examples: str = ""
    shots: int | None = None


@dataclass(frozen=True)
class SelfConsistency(Drawn):
    """Self-consistency.

    Attributes:
        n: completions a problem.
    """

    n: int | None = None


@dataclass(frozen=True)
class Scored(SelfConsistency):
    """A weighted vote, or the best of n.

    Attributes:
        by: what scores a completion, see `scorers`.
    """

    by: str | dict | None = None


@dataclass(frozen=True)
class Beam(Drawn):
    """Beam search over the steps of a thought.

    Attributes:
        width: candidates of each step.
        keep: those of them that are gone on from.
        by: what scores the thought so far.
        step: the text that ends a step.
        diverse: keep the best of each of `keep` trees, which never meet (DVTS).
    """

    width: int = 4
    keep: int = 2
    by: str | dict | None = None
    step: str = "\n"
    diverse: bool = False


@dataclass(frozen=True)
class Refine(Drawn):
    """Self-refinement.

    Attributes:
        rounds: times that a critique and a new answer are written.
        accept: whether a new answer is taken where it scores `better`, or `always`.
        by: what scores an answer.
    """

    rounds: int = 1
    accept: str = field(default="better", metadata={"choices": ("better", "always")})
    by: str | dict | None = MEAN_LOGPROB


KINDS: dict[str, Any] = {
    "greedy": Drawn,
    "cot": Cot,
    "self_consistency": SelfConsistency,
    "weighted_vote": Scored,
    "best_of": Scored,
    "beam": Beam,
    "refine": Refine,
}


@dataclass(frozen=True)
class Strategy:
    """One entry: kind, options, place in the recipe, what it is called, scorer, and its examples' file and turns."""

    kind: str
    options: Any
    place: tuple
    label: str = ""
    scorer: Scorer | None = None
    examples: str = ""
    turns: tuple[dict[str, str], ...] = ()

    @property
    def way(self) -> str:
        """The way of what it draws, "" where that is the recipe's own; of refinement the first answers'."""
        o = self.options
        if isinstance(o, Cot):
            shown = f" {text_hash(json.dumps(self.turns))}" if self.turns else ""
            return o.way(f"cot:{json.dumps(o.prompt)}{shown}")
        if isinstance(o, Beam):
            kind = "diverse beam" if o.diverse else "beam"
            return o.way(f"{kind} width={o.width} keep={o.keep} step={o.step!r} by={self.scorer and self.scorer.key}")
        return o.way()

    def round_ways(self, number: int) -> tuple[str, str]:
        """Return the ways of a refinement's critiques and answers in one of its rounds, from 1."""
        accept = self.options.accept
        chosen = "" if number == 1 else f" {accept}" + f" by={self.scorer and self.scorer.key}" * (accept == "better")
        critique, answer = (self.options.way(f"refine{chosen} {what} {number}") for what in ("critique", "answer"))
        return critique, answer


def label_of(kind: str, options: Any, scorer: Scorer | None) -> str:
    """Write what a strategy is called in tables: all that tells it from another entry."""
    parts = [kind, *(str(getattr(options, name)) for name in ("n", "rounds") if hasattr(options, name))]
    if isinstance(options, Cot):
        shown = (json.dumps(options.prompt), options.examples, str(options.shots or ""))
        parts += [_short(text) for text in shown if text not in ('""', "")]
    elif isinstance(options, Beam):
        parts[0] = "diverse beam" if options.diverse else kind
        parts += [f"{options.width} keep {options.keep}", *([json.dumps(options.step)] if options.step != "\n" else [])]
    elif isinstance(options, Refine):
        parts.append(options.accept)
    always = isinstance(options, Refine) and options.accept == "always"
    parts += [f"by {scorer.name}"] if scorer and not always else []
    drawn = ", ".join(f"{name} {value}" for name, value in options.changed().items())
    return " ".join(parts) + (f" ({drawn})" if drawn else "")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... {text_hash(text)[:4]}"
