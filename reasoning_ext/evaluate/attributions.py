"""Where an answer's tokens look, and what captum gives its steps: two measures that read the model and alter no step.

Attention needs the eager implementation, which alone tells its weights. It is where a model looks and not what it uses:
docs/reading_a_run.md says how often it names the step that the answer rests on.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from reasoning_ext.evaluate.interventions import Messages, Prober, Thought

MOST_ATTENDED = 4096  # tokens: the weights of a layer are as many squared, for each head
PERMUTATIONS = 8  # of the steps, over which captum's Shapley values are averaged


@contextlib.contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Let a model tell its attention weights; raises ValueError for one that cannot."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@torch.inference_mode()
def attention(prober: Prober, prompt: Messages, thought: Thought) -> list[list[float]]:
    """Return how much an answer's tokens attend to each step: S rows of one share a layer.

    It is the mean over heads and over the tokens from which the answer's are predicted, of what falls on the steps; the
    shares of a layer sum to 1.

    Raises:
        ValueError: the model cannot tell its attention, or the text is longer than `MOST_ATTENDED`.
    """
    begun = [prober.ids(prompt, thought.begun(thought.steps[:i], closed=False)) for i in range(len(thought.steps) + 1)]
    ends = [_common(begun[-1], ids) for ids in begun]
    ends[-1] = len(begun[-1])
    head, target = prober.ids(prompt, thought.begun(thought.steps)), prober.answer_ids(thought)
    if len(head) + len(target) > MOST_ATTENDED:
        raise ValueError(f"{len(head) + len(target)} tokens are more than {MOST_ATTENDED}")
    with _eager(prober.loaded.model):
        ids_1L = torch.tensor([[*head, *target]], device=prober.loaded.model.device)
        layers = prober.loaded.model(input_ids=ids_1L, output_attentions=True, use_cache=False).attentions
    if not layers or layers[0] is None:
        raise ValueError("the model tells no attention")
    seen_NL = torch.stack([layer[0, :, len(head) - 1 : -1].float().mean((0, 1)) for layer in layers])
    shares_SN = torch.stack([seen_NL[:, a:b].sum(-1) for a, b in itertools.pairwise(ends)])
    return (shares_SN / shares_SN.sum(0).clamp(min=1e-12)).tolist()


def _common(longer: Sequence[int], shorter: Sequence[int]) -> int:
    """Return how many ids two texts begin with alike: a tokenizer may join what a step ends with to the next one."""
    same = (i for i, (a, b) in enumerate(zip(longer, shorter, strict=False)) if a != b)
    return next(same, min(len(longer), len(shorter)))


def attribution(prober: Prober, prompt: Messages, thought: Thought, seed: int = 0) -> list[float]:
    """Return each step's Shapley value for the answer's log-probability, by captum, which leaves steps out.

    S numbers, in nats, which sum to what the whole thought adds to an empty one.
    """
    from captum.attr import ShapleyValueSampling

    target = prober.answer_ids(thought)

    def value(there_VS: torch.Tensor) -> torch.Tensor:
        kept = [itertools.compress(thought.steps, row) for row in there_VS.tolist()]
        contexts = [prober.ids(prompt, thought.begun(steps)) for steps in kept]
        return torch.tensor(prober.log_probabilities(contexts, target))

    torch.manual_seed(seed)
    steps_1S = torch.ones(1, len(thought.steps))
    batch = {"n_samples": PERMUTATIONS, "perturbations_per_eval": prober.batch_size}
    return [float(one) for one in ShapleyValueSampling(value).attribute(steps_1S, **batch)[0]]
