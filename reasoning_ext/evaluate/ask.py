"""`reasoning-ext ask`: a model is asked, once or turn by turn; its thought streams by, then the answer, then the vote.

A run is asked as it was trained: with the system prompt, the template's arguments, the think tags and the tools of its recipe.
What was answered before stands in the next prompt without its thought, as templates of reasoning models have it.
"""

from __future__ import annotations

import logging
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext import think
from reasoning_ext.data.lineage import prompt_settings, run_of, run_recipe
from reasoning_ext.engines.base import Completion, Engine, SamplingSettings
from reasoning_ext.engines.opening import toolbox, with_tools
from reasoning_ext.engines.thinking import ThinkingEngine
from reasoning_ext.errors import UserError
from reasoning_ext.evaluate.choice import Choice, choose
from reasoning_ext.recipe.engine_options import MOST, crossed_bounds
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.shown import print, visible
from reasoning_ext.think.calls import TOOLS
from reasoning_ext.think.render import count_tokens, render_prompt

if TYPE_CHECKING:
    from rich.console import Console

    from reasoning_ext.models.loaded import LoadOptions

SHOWN = 200  # characters of an answer that is not streamed
PROMPT, QUIT = "> ", "/quit"


def ask_and_print(
    models: list[str],
    question: str | None,
    choice: Choice,
    settings: SamplingSettings,
    system_prompt: str | None = None,
    tools: Sequence[str] | None = None,
) -> None:
    """Ask a run, a folder with weights or a model of the hub, or two of them side by side, and show what they say.

    Without a question there are those that are typed, or those of standard input, one a line, and each is asked behind
    the earlier ones. Of several completions the first is streamed, of the others the answers are shown, then what the
    strategy takes. A system prompt stands in the place of the one that a run was trained with, and so do tools, each as a
    recipe names it, with paths from the current folder; an empty list for none.

    Raises:
        ModelError: a model cannot be loaded.
        UserError: there is no question, it is no text, or it leaves no room; the settings contradict each other, or a tool
            cannot be used.
    """
    _refuse_contradictions(settings)
    for text in (question or "", system_prompt or ""):
        refuse_bytes(text)
    hush()
    from rich.console import Console

    settings = replace(settings, logprobs=choice.logprobs)
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    with ExitStack() as stack:
        talks = [Conversation(model, choice, settings, system_prompt, tools) for model in models]
        for talk in talks:
            stack.callback(talk.close)
        for each in [question] if question is not None else questions():
            refuse_bytes(each)
            ask_all(talks, each, console)


def hush() -> None:
    """Keep to themselves what libraries say while a model is loaded and asked, which nobody who asks can act on."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def refuse_bytes(text: str) -> None:
    """Refuse, with a UserError, what was typed and is no text."""
    if re.search("[\ud800-\udfff]", text):  # as the system hands bytes on that are no text
        raise UserError("found bytes that are no UTF-8 in the question or the system prompt, allowed: text")


def _refuse_contradictions(settings: SamplingSettings) -> None:
    for low, high in crossed_bounds(bounds := vars(settings)):
        option, limit = f"--{low.replace('_', '-')}", f"--{high.replace('_', '-')} {bounds[high]}"
        allowed = f"fewer tokens than {limit}" if high == MOST else f"{limit} or fewer"
        raise UserError(f"{option}: found {bounds[low]}, allowed: {allowed}")


def questions() -> Iterator[str]:
    """Yield what is typed until Ctrl-D, an empty line or `/quit`; without a terminal print and yield each line."""
    with suppress(AttributeError):  # a stream that Python has made of text, or none
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    if sys.stdin and sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401
        with suppress(EOFError):
            while (line := input(PROMPT).strip()) not in ("", QUIT):
                yield line
        return
    found = False
    for line in map(str.strip, sys.stdin or ()):
        if line == QUIT:
            break
        if line:
            print(f"{PROMPT}{line}", flush=True)
            found = True
            yield line
    if not found:
        raise UserError("ask: found no question, allowed: one behind the model, typed, or as a line of standard input")


class Conversation:
    """One model and what it was asked: `messages` stand before the next question, answers without their thoughts."""

    def __init__(
        self,
        model: str,
        choice: Choice,
        settings: SamplingSettings,
        system_prompt: str | None,
        tools: Sequence[str] | None = None,
    ):
        from trl import ModelConfig

        from reasoning_ext.models.load import load_model

        trained_with, options, recipe = as_trained(model, settings.seed)
        self.recipe = recipe if recipe and tools is None else asked_tools(tools or [])
        self.box = toolbox(self.recipe)
        if self.box:
            kwargs = options.chat_template_kwargs | {TOOLS: self.box.schemas}
            options = replace(options, chat_template_kwargs=kwargs)
        system = (trained_with or "") if system_prompt is None else system_prompt
        self.name, self.choice = model, choice
        self.settings = replace(settings, chat_template_kwargs=options.chat_template_kwargs)
        self.loaded = load_model(model, ModelConfig(dtype="auto"), options)
        self.messages = [{"role": "system", "content": system}] * bool(system)

    def ask(self, question: str, console: Console) -> None:
        """Ask, show what comes, its tokens and seconds, and remember the answer; a UserError where there is no room."""
        prompt = [*self.messages, {"role": "user", "content": question}]
        settings, room = self.settings, self._room(prompt)
        for name in ("max_completion_length", "thinking_budget"):
            if (value := getattr(settings, name)) is not None:
                settings = replace(settings, **{name: min(value, room)})
        started, n = time.perf_counter(), self.choice.n
        completions = list(self._answers(prompt, settings, console))
        chosen = 0
        if n > 1:
            chosen, lines = choose(self.choice, prompt, completions)
            for line in lines:
                console.print(visible(line), markup=False)
        answer = (think.answer(completions[chosen].text) or "").strip()
        if self.choice.kind and answer:
            console.print(visible(f"answer: {answer}"), markup=False)
        console.print(_spent(completions, time.perf_counter() - started), style="dim", markup=False)
        if answer:  # a turn without one would be an answer to learn from
            self.messages = [*prompt, {"role": "assistant", "content": answer}]

    def close(self) -> None:
        """End the tools' processes."""
        if self.box:
            self.box.close()

    def _acts(self, engine: Engine, told: Callable[[list[dict[str, Any]]], None] | None = None) -> Engine:
        return with_tools(ThinkingEngine(engine), self.recipe, told=told, box=self.box)

    def _answers(
        self, prompt: list[dict[str, str]], settings: SamplingSettings, console: Console
    ) -> Iterator[Completion]:
        """Draw the completions, the first streamed, of the others the answers shown."""
        from reasoning_ext.engines.transformers import TransformersEngine
        from reasoning_ext.evaluate.streaming import StreamingEngine, print_results

        n = self.choice.n
        if n > 1:
            console.print(f"completion 1 of {n}:", markup=False)
        streaming = self._acts(StreamingEngine(self.loaded, console), partial(print_results, console))
        [[first]] = streaming.generate([prompt], [(0, 0)], settings)
        console.print()
        if not first.finished:
            console.print(f"cut off after {first.tokens} tokens", markup=False)
        yield first
        engine = self._acts(TransformersEngine(self.loaded, n))
        for batch in engine.generate([prompt], [(0, i) for i in range(1, n)], settings):
            for completion in batch:
                answer = " ".join((think.answer(completion.text) or "").split()) or "(no answer)"
                answer = answer if len(answer) <= SHOWN else f"{answer[:SHOWN]} ..."
                console.print(visible(f"completion {completion.sample + 1} of {n}: {answer}"), markup=False)
                yield completion

    def _room(self, prompt: list[dict[str, str]]) -> int:
        """Return how many tokens a completion may have; raises a UserError where that is none."""
        try:
            text = render_prompt(
                self.loaded.tokenizer, self.loaded.contract, prompt, self.settings.chat_template_kwargs
            )
        except ValueError as error:
            raise UserError(f"ask: {error}") from error
        taken, context = count_tokens(self.loaded.tokenizer, text), self.loaded.context
        if taken >= context:
            what = "question" if self.messages[-1:] == [] or self.messages[-1]["role"] == "system" else "conversation"
            raise UserError(f"ask: found a {what} of {taken} tokens, allowed: fewer than the model's {context}")
        return int(context - taken)


def ask_all(talks: list[Conversation], question: str, console: Console) -> None:
    """Ask one model, or several: on a terminal in columns, elsewhere one after the other."""
    if len(talks) == 1:
        talks[0].ask(question, console)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    told, table = [], Table(expand=True)
    for talk in talks:
        if not console.is_terminal:
            console.print(visible(f"{talk.name}:"), markup=False)
            talk.ask(question, console)
            continue
        with Console(stderr=True).status(Text(visible(f"{talk.name} answers"))), console.capture() as captured:
            talk.ask(question, console)
        told.append(Text.from_ansi(captured.get().rstrip()))
        table.add_column(Text(visible(talk.name)), ratio=1, overflow="fold")
    if told:
        table.add_row(*told)
        console.print(table)


def _spent(completions: list[Completion], seconds: float) -> str:
    """Say what an answer took: the tokens that were drawn, those that were put there, and the seconds."""
    tokens, forced = sum(one.tokens for one in completions), sum(one.forced for one in completions)
    of = f" in {len(completions)} completions" if len(completions) > 1 else ""
    results = sum(one.tool_tokens for one in completions)
    put = f"{f', {forced} of them forced' if forced else ''}{f', {results} of results' if results else ''}"
    return f"{tokens} tokens{of}{put}, {seconds:.1f} s"


def asked_tools(tools: Sequence[str]) -> Recipe:
    """Return a recipe that names tools alone, as the command line does; a UserError for one that is no entry."""
    from reasoning_ext.recipe.known_keys import stage_keys
    from reasoning_ext.recipe.yaml_reading import parse_value

    entries = []
    for entry in tools:
        try:
            entries.append(parse_value(entry))
        except ValueError as error:
            raise UserError(f"--tools: found {entry!r}, which is no YAML value: {error}") from error
    return Recipe(Path("--tools"), "sample", {"tools": entries}, stage_keys("sample"), {})


def as_trained(model: str, seed: int) -> tuple[str | None, LoadOptions, Recipe | None]:
    """Return the system prompt that a model was trained with, how it is loaded, and the recipe of a run, which says both."""
    from reasoning_ext.models.loaded import LoadOptions

    options = LoadOptions(trainable=False, seed=seed)
    if (run := run_of(Path(model))) is None:
        return None, options, None
    recipe = run_recipe(run, [])  # keys that this version does not know say nothing about prompts
    (system, kwargs), *others = prompt_settings(recipe)
    if others:
        line = f"{run} was trained with {1 + len(others)} ways to write a prompt; asked with that of its first data set"
        print(f"{line} (--system-prompt for another)", file=sys.stderr)
    options = replace(options, chat_template_kwargs=kwargs, think_tags=recipe.get("think_tags"))
    if recipe.values.get("environment"):
        print(f"{run} acts on {recipe.values['environment']}, and is asked without it", file=sys.stderr)
    values = {name: value for name, value in recipe.values.items() if name != "environment"}
    return system, options, replace(recipe, values=values)
