"""Rows in tokens before anything is trained: lengths against every limit, exactness, what is trained on."""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext import think
from reasoning_ext.data.token_sets import MOST_INEXACT
from reasoning_ext.data.tokens import LossOptions, prompt_length, tokenize_pair, tokenize_row
from reasoning_ext.errors import KeyProblem
from reasoning_ext.recipe.keys import FROM_DATA
from reasoning_ext.think.messages import TOOLS
from reasoning_ext.think.render import count_tokens, render_prompt
from reasoning_ext.think.template import decode
from reasoning_ext.tools.spec import template_kwargs

if TYPE_CHECKING:
    from reasoning_ext.check.keys import Checked
    from reasoning_ext.check.rows import Inspection


LENGTH_BIAS = 1.5  # one side of the pairs is so many times as long as the other
NORMED = {"sigmoid_norm", "ipo"}  # losses of DPO that divide by the tokens


def measure(checked: Checked, found: Inspection, model: str | None) -> None:
    """Tokenize the sampled rows as the stage will, and judge their lengths and what is trained on.

    Args:
        checked: gets facts and problems; `mean_length` of pairs is that of both sides together.
        found: has rows, and tokenizer and contract, or nothing is done; gets lengths, where a pair is as long as its longer
            side, and a row is its prompt where completions are drawn.
        model: where the tokenizer came from.

    Raises:
        DataError: a row cannot be rendered, or trains nothing.
    """
    if not found.contract or not found.rows:
        return
    recipe, trained = checked.recipe, checked.recipe.stage in FROM_DATA
    _judge_tools(checked, found)
    _judge_prompts(checked, found)
    key = "max_length" if trained else "max_prompt_length"
    if trained:
        _measure_answers(checked, found)
    else:
        length = partial(prompt_length, found.tokenizer, found.contract)
        kwargs, numbered = template_kwargs(recipe), zip(found.numbers, found.rows, strict=True)
        found.lengths = [length(row, number, kwargs) for number, row in numbered]
        checked.facts["mean_length"] = round(sum(found.lengths) / len(found.lengths), 1)
    limit: Any = recipe.get(key) if key in recipe.keys else None
    fitting = [length for length in found.lengths if not limit or length <= limit]
    checked.facts["fitting_share"] = round(len(fitting) / len(found.lengths), 4)
    if over := len(found.lengths) - len(fitting):
        dropped = bool(fitting) and (not trained or recipe.get("overlong_rows") == "drop")
        default = "" if key in recipe.values else "left out, so it is TRL's default: "
        what = f"{len(found.lengths)} {'rows' if trained else 'prompts'}"
        text = f"{default}{over} of {what} are longer than {key} {limit}"
        also = ", or write overlong_rows: drop" if trained and fitting else ""
        does = " and will be dropped; raise it to keep them" if dropped else f"; raise {key}{also}"
        text = f"{text} (the longest {max(found.lengths)}){does}"
        checked.note(key, text, level="warning" if dropped else "error", code="too_long")
    longest = max(fitting, default=0) + (0 if trained else recipe.get("max_completion_length") or 0)
    _judge_context(checked, found, longest, model, key if trained else "max_completion_length")
    if "strategies" in recipe.keys:
        _judge_strategies(checked, found, max(fitting, default=0))


def _measure_answers(checked: Checked, found: Inspection) -> None:
    """Measure rows that are trained on as they are, or pairs, and judge what their answers are made of."""
    recipe, totals, count = checked.recipe, Counter[str](), len(found.rows)
    pairs, kwargs = recipe.stage == "dpo", template_kwargs(recipe)
    what, changed = "chosen answers" if pairs else "rows", ""
    loss = LossOptions() if pairs else LossOptions(recipe.get("train_on"))
    for number, row in zip(found.numbers, found.rows, strict=True):
        made: Any
        if pairs:
            made = tokenize_pair(found.tokenizer, found.contract, row, number, kwargs)
            longer = max(len(made.chosen_ids), len(made.rejected_ids))
            found.lengths.append(len(made.prompt_ids) + longer)
            totals["all"] += 2 * len(made.prompt_ids) + len(made.chosen_ids) + len(made.rejected_ids)
            chosen, rejected = sum(made.chosen_mask), sum(made.rejected_mask)  # without what tools answered
            totals.update(trained=chosen + rejected, chosen=chosen, rejected=rejected)
        else:
            made = tokenize_row(found.tokenizer, found.contract, row, number, loss, kwargs)
            found.lengths.append(len(made.input_ids))
            totals.update(all=len(made.input_ids), trained=len(made.input_ids) - made.skipped(loss))
        if not made.exact and not changed:
            said = "\n".join(think.said(row["chosen"] if pairs else row["completion"]))
            changed = f", first row {number}: {_lost(found.tokenizer, said) or 'its spaces'}"
        totals.update(inexact=not made.exact, torn=_is_torn(think.content(row["chosen" if pairs else "completion"])))
    checked.facts["mean_length"] = round(totals["all"] / count, 1)
    checked.facts["trained_share"] = round(totals["trained"] / totals["all"], 4)
    if (inexact := totals["inexact"]) > MOST_INEXACT * count:
        text = f"{inexact} of {count} rows come back changed from the tokenizer{changed}; use one that keeps them"
        checked.note("model_name_or_path", text, level="error", code="changed_text")
    if torn := totals["torn"]:
        text = f"{torn} of {count} {what} have a thought that is not closed, or closed and never opened"
        checked.note("dataset_name", text, level="warning", code="torn_thought")
    sides = totals["chosen"], totals["rejected"]
    normed = not pairs or recipe.get("ld_alpha") is not None or NORMED & {*(recipe.get("loss_type") or ())}
    if not normed and max(sides) >= LENGTH_BIAS * min(sides):  # DPO sums over tokens, and learns length with all else
        text = f"chosen answers have {sides[0]} tokens, rejected ones {sides[1]}, so that"
        text += f" {'longer' if sides[0] > sides[1] else 'shorter'} answers are taught too; loss_type: [sigmoid_norm] divides"
        checked.note("dataset_name", text, level="warning", code="uneven_pairs")


def _judge_tools(checked: Checked, found: Inspection) -> None:
    """Count what a prompt has of tools; a KeyProblem where there is no room for more than them."""
    kwargs, recipe, turn = template_kwargs(checked.recipe), checked.recipe, [{"role": "user", "content": "?"}]
    if not kwargs.get(TOOLS):
        return
    with contextlib.suppress(ValueError):  # a prompt that cannot be rendered is an error where it is measured
        told, untold = (
            count_tokens(found.tokenizer, render_prompt(found.tokenizer, found.contract, turn, each))
            for each in (kwargs, {**kwargs, TOOLS: []})
        )
        checked.facts["tools_tokens"] = told - untold
        key = "max_length" if recipe.stage in FROM_DATA else "max_prompt_length"
        limit = recipe.get(key) if key in recipe.keys else None
        if limit and told > limit:
            text = f"found {limit}, but a prompt with nothing but the tools has {told} tokens"
            raise KeyProblem(key, text, f"{told} and what your prompts have", code="too_long")


def _judge_prompts(checked: Checked, found: Inspection) -> None:
    """Warn of prompts of which a tokenizer loses letters: the model never reads them."""
    recipe, first, count = checked.recipe, "", 0
    kwargs = template_kwargs(recipe)
    for number, row in zip(found.numbers, found.rows, strict=True):
        with contextlib.suppress(ValueError):  # a prompt that cannot be rendered is an error where it is measured
            if lost := _lost(found.tokenizer, render_prompt(found.tokenizer, found.contract, row["prompt"], kwargs)):
                first, count = first or f"first row {number}: {lost}", count + 1
    if count:
        text = f"{count} of {len(found.rows)} prompts lose letters in the tokenizer, {first}; use one that has them"
        key = "models" if recipe.values.get("models") else "model_name_or_path"
        checked.note(key, text, level="warning", code="changed_text")


def _lost(tokenizer: Any, text: str) -> str:
    """Name the letters of a text that its tokens do not give back."""
    back = decode(tokenizer, tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    lost = [letter for letter in dict.fromkeys(text) if letter not in back and not letter.isspace()]
    return ", ".join(map(repr, lost[:5])) + (" and others" if len(lost) > 5 else "")


def _is_torn(completion: str) -> bool:
    """Tell whether a completion opens a thought without closing it, or closes one at its end that it never opened."""
    opened, closed = completion.lstrip().startswith(think.OPEN), think.CLOSE in completion
    return opened != closed and (opened or think.OPEN not in completion)


def _judge_context(checked: Checked, found: Inspection, longest: int, model: str | None, key: str) -> None:
    """Compare the longest sequence with the context of the backend and of the model."""
    recipe, text = checked.recipe, f"sequences of up to {longest} tokens will come"
    prepared = recipe.get("max_seq_length") if recipe.get("backend") == "unsloth" else None
    if prepared and longest > prepared:
        checked.note("max_seq_length", f"found {prepared}, but {text}; raise it", level="error", code="too_long")
    context: int = _config_context(model) or getattr(found.tokenizer, "model_max_length", None) or 0
    if 0 < context < longest:
        text += f", but the model's context is {context}; lower {key}, or take a model with a longer context"
        checked.note(key, text, level="warning", code="too_long")
    if 0 < context < 10**9:
        checked.facts["context"] = context


def _judge_strategies(checked: Checked, found: Inspection, longest: int) -> None:
    """Warn of each strategy that alone reads more than the context holds: examples, or a draft with its critique."""
    context = checked.facts.get("context", math.inf)
    if not checked.recipe.get("strategies"):
        return
    from reasoning_ext.evaluate.search import REWRITE  # which brings numpy
    from reasoning_ext.evaluate.strategies import parse_strategies

    for one in parse_strategies(checked.recipe, checked.specs):
        each = one.options.max_completion_length or checked.recipe.get("max_completion_length")
        parts, words = (3, REWRITE) if one.kind == "refine" else (1, getattr(one.options, "prompt", ""))
        fixed = longest + count_tokens(found.tokenizer, words + "".join(turn["content"] for turn in one.turns))
        if longest + each <= context < fixed + parts * each:
            text = f"{one.label} may come to {fixed + parts * each} tokens, but the model's context is {context}"
            room = (context - fixed) // parts
            hint = f"write max_completion_length: {room} in this entry" if room > 0 else "leave this entry out"
            place = (*one.place, "max_completion_length")
            checked.add([checked.recipe.problem(place, text, hint=hint, code="too_long", level="warning")])


def _config_context(model: str | None) -> int | None:
    """Read a local model's context from its config; None where it is not said, or scaled."""
    try:
        config: Any = json.loads(Path(str(model), "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config") or config
        scaled = any("factor" in (config.get(name) or {}) for name in ("rope_scaling", "rope_parameters"))
        context = config.get("max_position_embeddings")
    except (OSError, ValueError, AttributeError, TypeError):
        return None  # what reads the model will say it
    return context if isinstance(context, int) and not scaled else None
