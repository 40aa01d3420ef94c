"""TRL's own loop of tools, given what it lacks: any template, processes that can be killed, a batch's calls at once.

TRL's GRPOTrainer (1.14 to 1.16) generates, parses what was generated, calls functions one after another in its own
process, appends the ids of their results and generates again. Its loop stays; what it asks for is ours:

    tokenizer.parse_response  a copy of the tokenizer, the trainer's alone, parses by the chat template's contract
    _sync_tool_dicts          where it looks functions up it finds results: a round's first call has all of them run
    _get_tool_suffix_ids      results are rendered as everywhere else here, and no template needs a form that TRL knows
    tools, _env_tools         the schemas that the model is told
    reward_funcs[-1]          where an environment has a `get_reward`: asked of all objects at once

A call that cannot be read is answered with what is wrong, so that the model learns from it. Completions leave the loop
as those of the engines do: every message whole, calls that were not run any more as letters of the last one.
"""

from __future__ import annotations

import contextlib
import copy
import json
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from transformers import TrainerCallback

from reasoning_ext.scoring.call import TOKENS, TOOL_TOKENS, TURNS
from reasoning_ext.think import WHOLE, content
from reasoning_ext.think.calls import TOOLS, UNREADABLE, Call, CallFormat, call_of
from reasoning_ext.think.template import Decoder
from reasoning_ext.think.turns import results_text
from reasoning_ext.tools.box import Result, Toolbox
from reasoning_ext.tools.facade import REWARD

SHOWS_ALL = "{% for message in messages %}{{ message }}{{ eos_token }}{% endfor %}"


class Turn(dict):
    """A message of the assistant as TRL's loop has it, with its whole text."""

    def __init__(self, whole: str, text: str = "", calls: Sequence[Call] = ()):
        super().__init__(role="assistant", content=text if calls else whole)
        self.update({"tool_calls": [*calls]} if calls else {})
        self.whole = whole


class Answers(dict):
    """What TRL looks a completion's functions up in: every name has one, since an unknown name has an answer too."""

    def __init__(self, answer: Callable[..., str], environment: Any):
        super().__init__()
        self.answer, self.environment = answer, environment

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> Callable[..., str]:
        return lambda **arguments: self.answer(name, arguments, self.environment)


class ToolLoop:
    """The tools of a recipe in a GRPO trainer of TRL's.

    Args:
        box: the tools.
        decoder: of the trainer's tokenizer, with a contract that has `calls`.
        chat_template_kwargs: the recipe's, with the schemas as `tools`.
    """

    def __init__(self, box: Toolbox, decoder: Decoder, chat_template_kwargs: dict[str, Any]):
        self.box, self.decoder, self.template_kwargs = box, decoder, chat_template_kwargs
        self.contract, self.calls = decoder.contract, decoder.contract.calls or CallFormat()
        box.defuse = self.calls.defuse
        self.begin()

    def begin(self) -> None:
        """Forget what the last generation has called."""
        self.waiting: list[Call] = []  # of this round, none of which was asked for yet
        self.results: dict[str, deque[Result]] = defaultdict(deque)
        self.counted, self.later = 0, False  # faults; turns stand behind results

    def arguments(self) -> dict[str, Any]:
        """Return what TRL's trainer is built with."""
        return {"tools": self.box.functions(), "environment_factory": self.box.environment_factory}

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Let TRL build a trainer: then alone it asks for a template and a response format that it knows."""
        tokenizer = self.decoder.tokenizer
        kept = tokenizer.chat_template, getattr(tokenizer, "response_template", None)
        tokenizer.chat_template, tokenizer.response_template = SHOWS_ALL, {}
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*'environment_factory'")  # that it is new
                yield
        finally:
            tokenizer.chat_template, tokenizer.response_template = kept

    def enter(self, trainer: Any) -> None:
        """Take the places in a trainer that are named above; before whatever looks at its completions."""
        self.trainer, self.generate, self.loop = trainer, trainer._generate, trainer._tool_call_loop
        trainer.chat_template = None  # the tokenizer's own
        trainer.tools = self.template_kwargs.get(TOOLS) or []
        trainer._env_tools = {None: trainer.tools}
        trainer._tokenizer = copy.copy(trainer._tokenizer)
        trainer._tokenizer.response_template, trainer._tokenizer.parse_response = {}, self.parse
        trainer._get_tool_suffix_ids = self.suffix
        trainer._generate, trainer._tool_call_loop = self._generated, self._looped
        if hasattr(self.box.environment_factory, REWARD):
            trainer.reward_funcs[-1] = self.rewards
        trainer.add_callback(PlainTables(trainer))

    def parse(self, ids: Sequence[int], prefix: Any = None, tools: Any = None) -> Turn:
        """Parse a turn, as a tokenizer does for TRL; one that was cut off calls nothing: nothing could follow."""
        whole = self.decoder(ids, behind_results=self.later)
        if not ids or ids[-1] not in self.ends:
            return Turn(whole)
        text, calls, problem = self.calls.parse(whole)
        if problem:
            return Turn(whole, whole, [call_of(UNREADABLE, {"problem": problem})])
        self.waiting += calls
        return Turn(whole, text, calls)

    def suffix(self, messages: list[dict[str, Any]]) -> list[int]:
        """Return the ids that stand between the end of a turn that calls and the next turn."""
        tokenizer = self.decoder.tokenizer
        text = results_text(tokenizer, self.contract, messages, self.template_kwargs)
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    def answer(self, name: str, arguments: dict[str, Any], environment: Any) -> str:
        """Return what the model is to read of a call's result."""
        result = self._result(name, arguments, environment)
        self.counted += bool(result.fault)
        return result.content

    def _result(self, name: str, arguments: dict[str, Any], environment: Any) -> Result:
        if _is_unread(name, arguments):
            return self.box.unreadable(arguments["problem"])
        if not self._stateless(name):
            return self.box.run([(call_of(name, arguments), environment)])[0]
        if self.waiting:
            calls, self.waiting = [one for one in self.waiting if self._stateless(one["function"]["name"])], []
            for call, result in zip(calls, self.box.run([(call, None) for call in calls]), strict=True):
                self.results[_key(**call["function"])].append(result)
        if found := self.results[_key(name, arguments)]:
            return found.popleft()
        return self.box.run([(call_of(name, arguments), None)])[0]

    def rewards(self, environments: list[Any], **kwargs: Any) -> list[float | None]:
        """Return what environments reward their completions with, as a reward function does, and log how that went."""
        made = self.box.rewards(environments)
        for name, value in self.box.figures().items():
            if name.startswith(f"tools/{REWARD}/"):
                self.trainer._log_metric(name, value)
        return made

    def _stateless(self, name: str) -> bool:
        return not self.box.environment or name in {spec.name for spec in self.box.specs}

    @property
    def ends(self) -> set[int]:
        """The ids that end a turn."""
        return {*self.decoder.stop_ids, *getattr(self.trainer, "eos_token_ids", ())}

    def _looped(self, *args: Any) -> tuple:
        """Go through TRL's loop, and count what has failed, which it does not see."""
        self.later = True
        made = [*self.loop(*args)]
        made[5] = self.counted
        return tuple(made)

    def _generated(self, prompts: list) -> tuple:
        """Generate as TRL does; completions are whole behind it, and what they called is logged."""
        self.begin()
        acting = self.trainer.environments or [None] * len(prompts)
        self.trainer._sync_tool_dicts = [Answers(self.answer, environment) for environment in acting]
        made = self.generate(prompts)
        mask, completions = made[2:4]
        for completion in completions:
            completion[:] = settled(completion)
        self._log(mask, completions)
        return made

    def _log(self, mask: list[list[int]], completions: list[list[dict[str, Any]]]) -> None:
        columns = {
            WHOLE: map(content, completions),
            TURNS: (json.dumps(turns, ensure_ascii=False) if (turns := of[:-1]) else None for of in completions),
            TOKENS: map(sum, mask),
            TOOL_TOKENS: (of.count(0) for of in mask),
        }
        for name, values in columns.items():
            self.trainer._log_completion_extra(name, [*values])
        for name, value in self.box.figures().items():
            self.trainer._log_metric(name, value)


class PlainTables(TrainerCallback):
    """Keep out of TRL's tables what no table can hold: arguments of calls, whose types differ from row to row."""

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave each completion's last message, which TRL writes right behind this; the others are in `turns`."""
        prompts, completions = (self.trainer._logs[name] for name in ("prompt", "completion"))
        for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            if not isinstance(completion, str):  # TRL 1.14 writes texts
                prompts[i], completions[i] = [*map(_without_types, prompt)], completion[-1:]


def grpo_trainer(box: Toolbox | None, chat_template_kwargs: dict[str, Any], decoder: Decoder, **arguments: Any) -> Any:
    """Build TRL's GRPOTrainer with its `arguments`, and with tools where there are some; see `ToolLoop`."""
    from trl import GRPOTrainer

    if box is None:
        return GRPOTrainer(**arguments)
    loop = ToolLoop(box, decoder, chat_template_kwargs)
    with loop.building():
        trainer = GRPOTrainer(**arguments, **loop.arguments())
    loop.enter(trainer)
    return trainer


def settled(completion: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a completion of TRL's loop as rewards get it: it ends with the assistant, and what was not run is text."""
    messages = []
    for i, message in enumerate(completion):
        last, calls = i == len(completion) - 1, message.get("tool_calls")
        if isinstance(message, Turn) and calls and (last or _is_unread(**calls[0]["function"])):
            message = {"role": "assistant", "content": message.whole}
        messages.append({**message})
    return messages if messages[-1]["role"] == "assistant" else [*messages, {"role": "assistant", "content": ""}]


def _without_types(message: dict[str, Any]) -> dict[str, Any]:
    calls = message.get("tool_calls")
    return {**message, "tool_calls": json.dumps(calls, default=str)} if calls else message


def _is_unread(name: str, arguments: dict[str, Any]) -> bool:
    return name == UNREADABLE and [*arguments] == ["problem"]


def _key(name: str, arguments: dict[str, Any]) -> str:
    return json.dumps([name, arguments], sort_keys=True, default=str)
