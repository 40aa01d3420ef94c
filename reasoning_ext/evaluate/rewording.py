"""Questions asked in another way: with facts that may be missing, and in other words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from reasoning_ext import think
from reasoning_ext.data.row_options import TEST, TRAIN, row_options
from reasoning_ext.data.rows import prepare
from reasoning_ext.data.sources import read_jsonl
from reasoning_ext.engines.base import SamplingSettings
from reasoning_ext.engines.server import ServerEngine
from reasoning_ext.errors import UserError
from reasoning_ext.evaluate.answers import Answers, Messages, Request
from reasoning_ext.evaluate.error_inputs import Wrong
from reasoning_ext.recipe.benchmarks import reward_entries
from reasoning_ext.recipe.engine_options import ServerOptions
from reasoning_ext.scoring.spec import parse_rewards

JUDGE = "llm_judge"  # its model and server write the questions in other words
REQUEST = (
    "Write this question in other words, with the same meaning, numbers and form of answer. Reply with it alone.\n\n"
)


def ask_otherwise(wrong: Wrong, what: str, given: str, store: Path) -> Callable[[Sequence[int]], dict[int, Messages]]:
    """Return what makes the prompts of problems, by number, with facts that may be missing or in other words.

    Args:
        wrong: the answers that are looked at.
        what: `facts` or `reworded`.
        given: a column of the run's data set, a JSONL file with `question` and a field of that name, or `llm_judge`.
        store: where what the judge writes is kept.

    Raises:
        UserError: nothing has such texts for any of the problems.
        EngineError: by what is returned: the judge's server does not answer.
    """
    asked = {line["prompt_index"]: line["prompt"] for line in wrong.lines}
    if given == JUDGE and what == "reworded":
        writes = _judge(wrong, store)
    else:
        texts = _read(given, what) if Path(given).is_file() else _column(wrong, what, given)
        known = {p: texts.get(_key(think.content(prompt))) for p, prompt in asked.items()}
        if not any(isinstance(text, str) and text.strip() for text in known.values()):
            found = f"--{what}: found {given}, which has a text for none of the {len(asked)} questions"
            raise UserError(f"{found}, allowed: what has the questions of the run")

        def writes(problems: Sequence[int]) -> dict[int, Any]:
            return {p: known.get(p) for p in problems}

    def prompts(problems: Sequence[int]) -> dict[int, Messages]:
        found = writes(problems) if problems else {}
        there = {p: text for p, text in found.items() if isinstance(text, str) and text.strip()}
        return {p: _asked(asked[p], text, what) for p, text in there.items()}

    return prompts


def _asked(prompt: Messages, text: str, what: str) -> Messages:
    """Return a prompt with a text before its last question, or in its place."""
    question = think.content(prompt)
    return [*prompt[:-1], {**prompt[-1], "content": text if what == "reworded" else f"{text.strip()}\n\n{question}"}]


def _key(question: Any) -> str:
    """Return a question as it is compared: without white space."""
    return "".join(str(question).split())


def _read(file: str, what: str) -> dict[str, Any]:
    """Read `{question: text}` of a JSONL file."""
    try:
        rows = read_jsonl(Path(file))
        return {_key(row["question"]): row[what] for row in rows}
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UserError(f"--{what}: found {file}, allowed: JSON lines with question and {what}") from error


def _column(wrong: Wrong, what: str, name: str) -> dict[str, Any]:
    """Read `{question: text}` from a column of the run's data set."""
    rows = prepare(row_options(wrong.recipe), TEST if wrong.recipe.stage == "eval" else TRAIN).rows
    if name not in rows.column_names:
        found = f"--{what}: found {name}, which is no file and no column"
        raise UserError(f"{found}, allowed: a JSONL file, or one of {', '.join(rows.column_names)}")
    texts = (text if isinstance(text, str) else None for text in rows[name])
    return {_key(think.content(prompt)): text for prompt, text in zip(rows["prompt"], texts, strict=True)}


def _judge(wrong: Wrong, store: Path) -> Callable[[Sequence[int]], dict[int, Any]]:
    """Return what has the model of the recipe's `llm_judge` write questions in other words."""
    specs = parse_rewards(reward_entries(wrong.recipe), wrong.recipe.folder)
    judge = next((spec for spec in specs if spec.name == JUDGE), None)
    if judge is None:
        raise UserError(
            f"--reworded: found {JUDGE}, no reward of {wrong.recipe.path}, allowed: a JSONL file or a column"
        )
    names = ("base_url", "api_key_env", "max_concurrency")
    options = ServerOptions(**{name: judge.options[name] for name in names if name in judge.options})
    model = judge.options["model"]

    def writes(problems: Sequence[int]) -> dict[int, Any]:
        questions = {p: think.content(wrong.table[p]["prompt"]) for p in problems}
        prompts = {p: [{"role": "user", "content": REQUEST + question}] for p, question in questions.items()}
        settings = SamplingSettings(2048, 0.0)
        with closing(Answers(store, model, wrong.table, [], lambda: ServerEngine(model, options), "reword")) as answers:
            lines = answers.draw(Request([(p, 0) for p in problems], settings, "reword", prompts, judged=False))[0]
        return {line["prompt_index"]: think.answer(line["completion"]) for line in lines}

    return writes
