"""What each step of a thought does for its answer: `explain` of one completion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import fmean

from reasoning_ext.errors import one_line
from reasoning_ext.evaluate.attributions import PERMUTATIONS, attention, attribution
from reasoning_ext.evaluate.interventions import Messages, Prober, Thought, altered
from reasoning_ext.evaluate.thoughts import labels
from reasoning_ext.scoring.votes import gives_same

LITTLE, KNOWN = 0.05, 0.5  # a share of the answer's probability that is as good as none; one at which it is known


@dataclass(frozen=True)
class Step:
    """What a step does for the answer.

    Attributes:
        text: the step.
        necessity: share of the answer's probability that is lost where the step is altered and the others stay.
        sufficiency: share of what the thought adds to an empty one that is there with this step alone.
        answer_if_stopped: share of it that is there where the thought ends behind this step.
        changes_answer: whether another answer comes out where the step is altered and what follows is drawn anew.
        attention: share of the answer's attention on the steps, the mean over layers; None where the model tells none.
        attention_by_layer: the same of each layer.
        attribution: Shapley value in nats; None where captum is not installed.
        flags: what strikes the eye, in words.
    """

    text: str
    necessity: float
    sufficiency: float
    answer_if_stopped: float
    changes_answer: bool
    attention: float | None
    attention_by_layer: list[float] | None
    attribution: float | None
    flags: list[str]


@dataclass(frozen=True)
class Explanation:
    """A completion explained.

    Attributes:
        question, answer: as asked and given.
        thought: its parts.
        probability: of the answer behind the whole thought.
        without_thought: share of it that is there behind an empty thought.
        known_after: the number of steps behind which the answer is as good as known, and stays so; 0 is none.
        steps: S of them.
        flags: of the whole.
        left_out: measures that could not be taken, and why.
    """

    question: str
    answer: str
    thought: Thought
    probability: float
    without_thought: float
    known_after: int
    steps: list[Step]
    flags: list[str]
    left_out: dict[str, str]


@dataclass(frozen=True)
class Effects:
    """What a thought and each of its S steps do for the answer, as far as plain passes and drawing anew tell.

    Attributes:
        log_probability: of the answer behind the whole thought.
        without_thought: share of its probability that is there behind an empty thought.
        necessity, stopped, changes: of each step what `Step` has as `necessity`, `answer_if_stopped`, `changes_answer`.
        same_without: whether behind an empty thought the same answer is drawn, greedily.
    """

    log_probability: float
    without_thought: float
    necessity: list[float]
    stopped: list[float]
    changes: list[bool]
    same_without: bool

    @property
    def decorative(self) -> list[bool]:
        """Tell of each step whether the answer does without it."""
        return [lost < LITTLE and not moved for lost, moved in zip(self.necessity, self.changes, strict=True)]

    @property
    def known_after(self) -> int:
        """The fewest steps from which on the answer's share stays at `KNOWN` or above; 0 is none."""
        late = [i for i, share in enumerate([self.without_thought, *self.stopped]) if share < KNOWN]
        return late[-1] + 1 if late else 0


def effects(prober: Prober, prompt: Messages, thought: Thought) -> Effects:
    """Measure what each step of a completion's thought does, by one pass a variant and one drawing a step."""
    S, steps = len(thought.steps), thought.steps
    changed = [altered(step) for step in steps]
    variants = [steps, ()]
    variants += [(*steps[:i], changed[i], *steps[i + 1 :]) for i in range(S)]
    variants += [steps[: i + 1] for i in range(S)]
    whole, *others = _log_probabilities(prober, prompt, thought, variants)
    empty, *shares = (math.exp(min(0.0, one - whole)) for one in others)
    *moved, without = _moved(prober, prompt, thought, changed)
    return Effects(whole, empty, [1 - share for share in shares[:S]], shares[S:], moved, not without)


def passes(thought: Thought) -> int:
    """Return about how many passes over the whole text `explain` takes."""
    return len(thought.steps) * (4 + PERMUTATIONS) + 3


def explain(prober: Prober, prompt: Messages, thought: Thought) -> Explanation:
    """Measure what each step of a completion's thought does for its answer.

    Args:
        prober: the model that gave it.
        prompt: its messages.
        thought: of the completion, as `interventions.read_thought` has it.
    """
    S, steps, left_out = len(thought.steps), thought.steps, dict[str, str]()
    one = effects(prober, prompt, thought)
    whole, empty, known, decorative = one.log_probability, one.without_thought, one.known_after, one.decorative
    alone = [
        max(0.0, math.exp(min(0.0, value - whole)) - empty) / max(1e-6, 1 - empty)
        for value in _log_probabilities(prober, prompt, thought, [(step,) for step in steps])
    ]
    seen, given = _read(prober, prompt, thought, left_out)
    found = []
    for i, text in enumerate(steps):
        flags = ["decorative"] if decorative[i] else []
        flags += [f"answer was known at step {known} of {S}"] if known == i + 1 < S else []
        layers, value = seen[i] if seen else None, given[i] if given else None
        mean = fmean(layers) if layers else None
        shares = one.necessity[i], alone[i], one.stopped[i]
        found.append(Step(text, *shares, one.changes[i], mean, layers, value, flags))
    question = str(prompt[-1]["content"])
    completion = thought.begun(steps) + thought.answer
    [said] = labels([{"completion": completion, "prompt": prompt}])
    flags = ["answer contradicts the last step"] if said.get("answer follows") is False else []
    flags += ["answer was known before the thought"] if known == 0 else []
    return Explanation(question, thought.answer, thought, math.exp(whole), empty, known, found, flags, left_out)


def _log_probabilities(
    prober: Prober, prompt: Messages, thought: Thought, variants: Sequence[Sequence[str]]
) -> list[float]:
    """Return the answer's log-probability behind each of V thoughts, given by their steps: V numbers."""
    contexts = [prober.ids(prompt, thought.begun(variant)) for variant in variants]
    return prober.log_probabilities(contexts, prober.answer_ids(thought))


def _read(
    prober: Prober, prompt: Messages, thought: Thought, left_out: dict[str, str]
) -> tuple[list[list[float]] | None, list[float] | None]:
    """Return attention and attributions; None, and why, for one that cannot be had."""
    seen = given = None
    try:
        seen = attention(prober, prompt, thought)
    except ValueError as error:
        left_out["attention"] = one_line(error)
    if find_spec("captum") is None:
        left_out["attribution"] = "captum is not installed: pip install 'reasoning-ext[explain]'"
    else:
        given = attribution(prober, prompt, thought)
    return seen, given


def _moved(prober: Prober, prompt: Messages, thought: Thought, changed: list[str]) -> list[bool]:
    """Tell of each step whether another answer comes out where it is altered and what follows is drawn anew.

    The last of the S + 1 tells it of an empty thought, behind which the answer is drawn anew.
    """
    begun = [thought.begun((*thought.steps[:i], one), closed=False) for i, one in enumerate(changed)]
    begun.append(thought.begun(()))
    length = len(prober.ids(prompt, thought.begun(thought.steps))) + len(prober.answer_ids(thought))
    texts = prober.go_on(prompt, begun, 2 * (length - len(prober.ids(prompt, ""))))
    return [not same for same in gives_same(texts, thought.begun(thought.steps) + thought.answer)]
