"""A thought taken apart into steps, and what becomes of the answer when they are altered, left out, or cut off.

Probabilities are of the answer as it was given, to the end of its turn, by one forward pass a variant; they are told as
shares of what the whole thought gives, so that a long answer is measured as a short one is. Altering a step and leaving
what follows as it is asks whether the answer reads that step (arXiv:2510.24941); altering it and drawing what follows
anew asks whether anything that follows does (arXiv:2307.13702).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from reasoning_ext import think
from reasoning_ext.engines.base import SamplingSettings
from reasoning_ext.engines.transformers import TransformersEngine
from reasoning_ext.evaluate.curve import closing_of
from reasoning_ext.models.loaded import Loaded
from reasoning_ext.think.render import render_begun

MOST_STEPS = 32  # a longer thought's steps are put together
MOST_TOKENS = 16_384  # of all variants that are read at once
_LINES, _SENTENCES = re.compile(r"[^\n]*(?:\n\s*|$)"), re.compile(r".*?(?:;\s*|(?<=[.!?])\s+|$)", re.DOTALL)
_NUMBER = re.compile(r"[0-9]+(?=[^0-9]*$)")  # the last one
_TURNED = str.maketrans("0123456789", "3456789012")
Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Thought:
    """A completion with its thought in steps: `head`, the steps, `closing` and `answer` are its whole text.

    Attributes:
        head: what stands before the thought, with the opening tag.
        steps: S texts.
        closing: the closing tag and the white space around it.
        answer: what stands behind.
        grouped: how many steps there were, where they were more than `MOST_STEPS`; else 0.
    """

    head: str
    steps: tuple[str, ...]
    closing: str
    answer: str
    grouped: int = 0

    def begun(self, steps: Iterable[str], closed: bool = True) -> str:
        """Return the completion's beginning with these steps, up to where its answer begins, or the next step."""
        return self.head + "".join(steps) + self.closing * closed


def read_thought(completion: str) -> Thought | None:
    """Take a whole completion apart; None where it has no closed thought, or no answer behind it.

    >>> read_thought("<think>3+4=7;7*2=14</think>14").steps
    ('3+4=7;', '7*2=14')
    """
    closing = closing_of(completion)
    if not closing or not (completion.partition(think.OPEN)[1]):
        return None
    before, _, answer = completion.rpartition(closing)
    at = before.index(think.OPEN) + len(think.OPEN)
    at += len(before[at:]) - len(before[at:].lstrip())
    steps = split_steps(before[at:])
    if not steps or not answer.strip():
        return None
    size = math.ceil(len(steps) / MOST_STEPS)
    grouped = ["".join(steps[i : i + size]) for i in range(0, len(steps), size)]
    return Thought(before[:at], tuple(grouped), closing, answer, len(steps) if size > 1 else 0)


def split_steps(thought: str) -> list[str]:
    r"""Split a thought into its lines, or one line into what full stops and semicolons end; nothing is lost.

    >>> split_steps("3+4 = 7\n\n7*2 = 14\n"), split_steps("First 3.5. Then I double it: 7.")
    (['3+4 = 7\n\n', '7*2 = 14\n'], ['First 3.5. ', 'Then I double it: 7.'])
    """
    pattern = _LINES if "\n" in thought.strip() else _SENTENCES
    return [text for text in pattern.findall(thought) if text]


def altered(step: str) -> str:
    """Return a step with another result, all digits of its last number changed; "" for a step without a number.

    >>> altered("3+4=17;"), altered("so wait, ")
    ('3+4=40;', '')
    """
    changed, count = _NUMBER.subn(lambda match: match.group().translate(_TURNED), step, count=1)
    return changed if count else ""


class Prober:
    """A model that is asked how probable an answer is behind thoughts, and to go on from their beginnings.

    Args:
        loaded: the model with its tokenizer and contract.
        settings: how completions were drawn; their template's arguments and length are taken.
        batch_size: variants at once, and fewer where they have more than `MOST_TOKENS` together.
    """

    def __init__(self, loaded: Loaded, settings: SamplingSettings, batch_size: int = 16):
        self.loaded, self.settings, self.batch_size = loaded, replace(settings, temperature=0.0), batch_size

    def ids(self, prompt: Messages, begun: str) -> list[int]:
        """Return the ids of a prompt and its completion's beginning."""
        said = [*prompt, *[{"role": "assistant", "content": begun}] * bool(begun)]
        kwargs = self.settings.chat_template_kwargs
        text = render_begun(self.loaded.tokenizer, self.loaded.contract, said, kwargs)
        return self._read(text)

    def answer_ids(self, thought: Thought) -> list[int]:
        """Return the ids of a thought's answer and of the end of its turn: A of them, the same behind every variant."""
        return self._read(thought.answer + self.loaded.contract.end)

    def _read(self, text: str) -> list[int]:
        return self.loaded.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    @torch.inference_mode()
    def log_probabilities(self, contexts: Sequence[Sequence[int]], target: Sequence[int]) -> list[float]:
        """Return the log-probability of the ids `target` behind each of V contexts, at temperature 1: V numbers."""
        model, found = self.loaded.model, dict[int, float]()
        order = sorted(range(len(contexts)), key=lambda number: len(contexts[number]))
        while order:
            rows = [[*contexts[number], *target] for number in order[-self._at_once(len(contexts[order[-1]])) :]]
            taken, order = order[-len(rows) :], order[: -len(rows)]
            width = len(rows[-1])
            ids_BL = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=model.device)
            there_BL = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
            places_BL = (there_BL.cumsum(-1) - 1).clamp(min=0)
            keep = {"logits_to_keep": len(target) + 1, "use_cache": False}
            out = model(input_ids=ids_BL, attention_mask=there_BL, position_ids=places_BL, **keep)
            logits_BAV = out.logits[:, -len(target) - 1 : -1].float()
            target_BA1 = ids_BL[:, -len(target) :, None]
            chosen_BA = logits_BAV.gather(-1, target_BA1).squeeze(-1) - logits_BAV.logsumexp(-1)
            found |= zip(taken, chosen_BA.sum(-1).tolist(), strict=True)
        return [found[number] for number in range(len(contexts))]

    def _at_once(self, length: int) -> int:
        """Return how many texts of a length in tokens are read at once: memory grows with their product."""
        return max(1, min(self.batch_size, MOST_TOKENS // max(1, length)))

    def go_on(self, prompt: Messages, begun: Sequence[str], most: int | None = None) -> list[str]:
        """Return greedy completions, whole texts, from beginnings as `Thought.begun` makes them, or from none: "".

        Each has `most` new tokens, or the settings', and no more than the model can read.
        """
        taken = max(len(self.ids(prompt, text)) for text in begun)
        room = min(most or self.settings.max_completion_length, self.loaded.context - taken)
        settings = replace(self.settings, max_completion_length=max(1, room))
        engine = TransformersEngine(self.loaded, self._at_once(taken + room))
        prompts = [[*prompt, *[{"role": "assistant", "content": text}] * bool(text)] for text in begun]
        keys = [(number, 0) for number in range(len(prompts))]
        texts = {one.prompt: one.text for batch in engine.generate(prompts, keys, settings) for one in batch}
        return [texts[number] for number, _ in keys]
