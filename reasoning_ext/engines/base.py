"""What the engines share that answer prompts, for `sample`, `eval` and `ask`; `opening` says how one is opened.

Every engine answers keys `(prompt, sample)`, and draws each with a seed of its own, so that a completion does not depend on
what it is drawn together with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from reasoning_ext.errors import KeyProblem

if TYPE_CHECKING:
    import numpy as np

    from reasoning_ext.think.template import Contract

Key = tuple[int, int]
NOT_GENERATES = {
    *"seed generation_kwargs chat_template_kwargs logprobs stop hold_back limits thinking_budget min_thinking".split()
}
FAULTS = ("time-out", "connection", "no reply")


class EngineError(KeyProblem):
    """An engine cannot be opened or has stopped answering; `key` is the recipe's key that is to blame."""

    code = "engine_failed"


@dataclass(frozen=True)
class SamplingSettings:
    """How completions are drawn; names and meanings are those of TRL's GRPOConfig, temperature 0 is greedy."""

    max_completion_length: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 0  # with a key, it decides what is drawn for it
    generation_kwargs: dict[str, Any] = field(default_factory=dict)  # further arguments of the engine's own generation
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    logprobs: bool = False  # tell the mean log-probability of what was drawn
    stop: str = ""  # a text after which a completion is cut off, which it ends with then
    hold_back: bool = False  # the first token neither begins what closes a thought nor ends the turn
    limits: Mapping[Key, int] = field(default_factory=dict)  # of the keys that may have fewer tokens than the others
    thinking_budget: int | None = None  # tokens after which a thought is closed, and the answer goes on
    min_thinking: int | None = None  # tokens before which a thought is not let close

    def limit(self, key: Key) -> int:
        """Return how many tokens the completion of a key may have."""
        return self.limits.get(key, self.max_completion_length)

    def generate_kwargs(self) -> dict[str, Any]:
        """Return the arguments for transformers' `model.generate`."""
        kwargs = {name: value for name, value in asdict(self).items() if value is not None}
        for name in NOT_GENERATES & kwargs.keys():
            del kwargs[name]
        kwargs["max_new_tokens"] = kwargs.pop("max_completion_length")
        if self.temperature == 0:
            kwargs = {name: kwargs[name] for name in ("max_new_tokens", "repetition_penalty")}
        return kwargs | {"do_sample": self.temperature > 0} | self.generation_kwargs


@dataclass(frozen=True)
class Completion:
    """One answer to one prompt; `prompt` and `sample` are its key."""

    prompt: int
    sample: int
    text: str  # the whole completion, `<think>...</think>answer`, special tokens left out
    ids: list[int]  # its token ids, with the end of the turn; none where a server does not tell them
    finished: bool  # it ended by itself, and was not cut off
    tokens: int = 0  # new ones: what a prompt's own beginning of the completion has is not counted
    error: str = ""  # why there is none: `time-out`, `http 500`, or the model's own doing: `empty`, `content_filter`
    # mean of the drawn tokens', before temperature, top-k and so on, where it was asked for
    logprob: float | None = None
    forced: int = 0  # of the tokens, those that were put there and not drawn
    # with tools: the messages before `text`, which is the last turn then; calls and results in turns, as TRL has them
    turns: tuple[dict[str, Any], ...] = ()
    tool_tokens: int = 0  # of results and what the template writes around them; in `ids`, not in `tokens`
    environment: Any = None  # the object that it acted on, for rewards
    observed: str = ""  # what that put behind the prompt's last message

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Return the completion as rewards get it: all its turns, the last of which is the text."""
        return [*self.turns, {"role": "assistant", "content": self.text}]


def is_fault(error: str) -> bool:
    """Tell whether an error is a server's fault, so that the same request may bring a completion another time.

    >>> [is_fault(error) for error in ("time-out", "http 500", "empty", "content_filter", "")]
    [True, True, False, False, False]
    """
    return error in FAULTS or error.startswith("http ")


class Engine(Protocol):
    """What answers prompts.

    Where the last message of a prompt is the assistant's, a whole completion's beginning, the completion goes on from it:
    its text is whole, with that beginning, and its ids and tokens are the new ones.
    """

    def generate(
        self, prompts: Sequence[list[dict[str, str]]], keys: Sequence[Key], settings: SamplingSettings
    ) -> Iterator[list[Completion]]:
        """Answer keys, each once and in any order, a batch as soon as it is there; of the prompts those that keys name are read.

        Raises:
            KeyProblem: a prompt is refused, or nothing answers.
        """
        ...

    def close(self) -> None:
        """Give back memory, processes and connections."""
        ...


def key_array(keys: Sequence[Key]) -> np.ndarray:
    """Return keys as `(prompt, sample)`, int32, (K, 2), those of a prompt next to each other."""
    import numpy as np

    keys_K2 = np.asarray(keys, dtype=np.int32).reshape(-1, 2)
    return keys_K2[np.lexsort((keys_K2[:, 1], keys_K2[:, 0]))]


def render_row(tokenizer: Any, contract: Contract, prompts: Sequence, row: int, settings: SamplingSettings) -> str:
    """Render a row's prompt, and the beginning of its completion, as the model reads them, or raise a ContractError."""
    from reasoning_ext.think.render import render_begun
    from reasoning_ext.think.template import ContractError

    try:
        return render_begun(tokenizer, contract, prompts[row], settings.chat_template_kwargs)
    except ValueError as error:
        raise ContractError("dataset_name", f"row {row}: {error}") from error


def begun(prompt: Sequence[dict[str, str]]) -> str:
    """Return the beginning of the completion that a prompt brings along, or ""."""
    return prompt[-1]["content"] if prompt and prompt[-1]["role"] == "assistant" else ""


def behind_results(prompt: Sequence[dict[str, Any]]) -> bool:
    """Tell whether a prompt's answer, which may have begun, is the turn behind results of tools."""
    return next((m["role"] for m in reversed(prompt) if m["role"] != "assistant"), "") == "tool"


def with_observed(prompt: Sequence[dict[str, Any]], observed: str) -> list[dict[str, Any]]:
    """Put what an environment says behind a prompt's last message, as TRL does."""
    last = prompt[-1]
    return [*prompt[:-1], {**last, "content": last["content"] + observed}] if observed else list(prompt)


def held_back(tokenizer: Any, contract: Contract, stops: Sequence[int]) -> list[int]:
    """Return the ids that no first token may be where `hold_back` is set."""
    return sorted({tokenizer(contract.close.strip(), add_special_tokens=False)["input_ids"][0], *stops})


def key_seed(seed: int, prompt: int, sample: int) -> int:
    """Return the seed of one completion, 31 bits so that every engine and server takes it."""
    digest = hashlib.blake2b(f"{seed}/{prompt}/{sample}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1
