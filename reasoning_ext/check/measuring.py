"""Rows in tokens before anything is trained: lengths against every limit, exactness, what is trained on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext import think
from reasoning_ext.recipe.keys import FROM_DATA
from reasoning_ext.recipe.load import Recipe

if TYPE_CHECKING:
    from reasoning_ext.check.rows import Inspection

LENGTH_BIAS = 1.5  # one side of the pairs is so many times as long as the other
NORMED = ("sigmoid_norm", "ipo")  # losses of DPO that divide by the tokens


def measure(recipe: Recipe, found: Inspection, model: str | None) -> None:
    """Tokenize the sampled rows as the stage will, and judge their lengths and what is trained on.

    Args:
        recipe: the recipe.
        found: has rows, and tokenizer and contract, or nothing is done; gets lengths, facts and findings. A pair is as long as
            its longer side, and `mean_length` is that of both together; where completions are drawn, a row is its prompt.
        model: where the tokenizer came from.

    Raises:
        DataError: a row cannot be rendered, or trains nothing.
    """
    if not found.contract or not found.rows:
        return
    key = "max_length" if recipe.stage in FROM_DATA else "max_prompt_length"
    (_measure_answers if recipe.stage in FROM_DATA else _measure_prompts)(recipe, found)
    limit: Any = recipe.get(key) if key in recipe.keys else None
    fitting = [length for length in found.lengths if not limit or length <= limit]
    found.facts["fitting_share"] = round(len(fitting) / len(found.lengths), 4)
    if len(fitting) < len(found.lengths):
        judge = _judge_long_rows if recipe.stage in FROM_DATA else _judge_long_prompts
        judge(recipe, found, limit, bool(fitting))
    longest = max(fitting, default=0)
    if recipe.stage in FROM_DATA:
        _judge_context(recipe, found, longest, model, key)
    else:
        longest += recipe.get("max_completion_length") or 0
        _judge_context(recipe, found, longest, model, "max_completion_length")


def _measure_prompts(recipe: Recipe, found: Inspection) -> None:
    from reasoning_ext.data.tokens import prompt_length

    kwargs = recipe.get("chat_template_kwargs")
    numbered = zip(found.numbers, found.rows, strict=True)
    found.lengths = [prompt_length(found.tokenizer, found.contract, row, number, kwargs) for number, row in numbered]
    found.facts["mean_length"] = round(sum(found.lengths) / len(found.lengths), 1)


def _measure_answers(recipe: Recipe, found: Inspection) -> None:
    """Measure rows that are trained on as they are, or pairs, and judge what their answers are made of."""
    from reasoning_ext.data.tokens import LossOptions, tokenize_pair, tokenize_row

    pairs, kwargs = recipe.stage == "dpo", recipe.get("chat_template_kwargs")
    loss = LossOptions() if pairs else LossOptions(recipe.get("train_on"))
    totals: Counter[str] = Counter()
    for number, row in zip(found.numbers, found.rows, strict=True):
        made: Any
        if pairs:
            made = tokenize_pair(found.tokenizer, found.contract, row, number, kwargs)
            prompt, chosen, rejected = map(len, (made.prompt_ids, made.chosen_ids, made.rejected_ids))
            found.lengths.append(prompt + max(chosen, rejected))
            totals.update(
                all=2 * prompt + chosen + rejected, trained=chosen + rejected, chosen=chosen, rejected=rejected
            )
        else:
            made = tokenize_row(found.tokenizer, found.contract, row, number, loss, kwargs)
            found.lengths.append(len(made.input_ids))
            totals.update(all=len(made.input_ids), trained=len(made.input_ids) - made.skipped(loss))
        text = think.content(row["chosen" if pairs else "completion"])
        totals.update(inexact=not made.exact, spelled=made.spelled, torn=_is_torn(text))
    means = {"mean_length": "all"} | ({"chosen_length": "chosen", "rejected_length": "rejected"} if pairs else {})
    found.facts |= {name: round(totals[of] / len(found.rows), 1) for name, of in means.items()}
    found.facts["trained_share"] = round(totals["trained"] / totals["all"], 4)
    _judge_texts(found, totals, pairs)
    if pairs and recipe.get("ld_alpha") is None and not {*NORMED} & {*(recipe.get("loss_type") or ())}:
        _judge_bias(found)


def _judge_texts(found: Inspection, totals: Counter[str], pairs: bool) -> None:
    """Say how many rows the tokenizer changes, have the text of a token that ends a turn, or half of a thought."""
    from reasoning_ext.data.token_sets import MOST_INEXACT

    count, what = len(found.rows), "pairs" if pairs else "completions"
    if inexact := totals["inexact"]:
        level: Any = "error" if inexact > MOST_INEXACT * count else "note"
        text = f"{inexact} of {count} {what} come back changed from the tokenizer"
        found.add(level, "model_name_or_path", text + ("; use a tokenizer that keeps them" if level == "error" else ""))
    if totals["spelled"]:
        text = f"{totals['spelled']} of {count} {what} contain the text of a token that ends a turn"
        found.add("note", "dataset_name", f"{text}, which is trained on as letters")
    if totals["torn"]:
        what = "chosen answers" if pairs else what
        text = f"{totals['torn']} of {count} {what} have a thought that is not closed, or closed and never opened"
        mend = "" if pairs else "; trace_filters: {require_thought: true} drops rows without a whole one"
        found.add("warning", "dataset_name", text + mend)


def _judge_bias(found: Inspection) -> None:
    """Say where one side is longer than the other: DPO sums over tokens, and learns length along with all else."""
    chosen, rejected = found.facts["chosen_length"], found.facts["rejected_length"]
    if max(chosen / rejected, rejected / chosen) >= LENGTH_BIAS:
        which = "longer" if chosen > rejected else "shorter"
        means = f"chosen answers have {chosen:g} tokens on the mean, rejected ones {rejected:g}"
        text = f"{means}, so that {which} answers are taught too; even them out, or write loss_type: [sigmoid_norm]"
        found.add("warning", "dataset_name", text)


def _is_torn(completion: str) -> bool:
    """Tell whether a completion opens a thought without closing it, or closes one at its end that it never opened."""
    opened, closed = completion.lstrip().startswith(think.OPEN), think.CLOSE in completion
    return opened != closed and (opened or think.OPEN not in completion)


def _judge_long_rows(recipe: Recipe, found: Inspection, limit: int, some_fit: bool) -> None:
    over, longest = sum(length > limit for length in found.lengths), max(found.lengths)
    text = f"{over} of {len(found.lengths)} rows are longer than max_length {limit} (the longest {longest})"
    text = text if "max_length" in recipe.values else f"left out, so it is TRL's default: {text}"
    if recipe.get("overlong_rows") == "drop" and some_fit:
        found.add("warning", "max_length", f"{text} and will be dropped; raise it to keep them")
    else:
        other = ", or write overlong_rows: drop" if some_fit else ""
        found.add("error", "max_length", f"{text}; raise max_length{other}")


def _judge_long_prompts(recipe: Recipe, found: Inspection, limit: int, some_fit: bool) -> None:
    over = sum(length > limit for length in found.lengths)
    if some_fit:
        text = f"found {limit}; {over} of {len(found.lengths)} prompts have more tokens and will be dropped"
        found.add("warning", "max_prompt_length", text)
    else:
        found.add("error", "max_prompt_length", f"found {limit}, but all prompts have more tokens; raise it")


def _judge_context(recipe: Recipe, found: Inspection, longest: int, model: str | None, key: str) -> None:
    """Compare the longest sequence with the context of the backend and of the model."""
    prepared = recipe.get("max_seq_length") if recipe.get("backend") == "unsloth" else None
    if prepared and longest > prepared:
        text = f"found {prepared}, but sequences of up to {longest} tokens will come; raise it"
        found.add("error", "max_seq_length", text)
    context: int = _config_context(model) or getattr(found.tokenizer, "model_max_length", None) or 0
    if 0 < context < longest:
        text = f"sequences of up to {longest} tokens will come, but the model's context is {context}"
        found.add("warning", key, f"{text}; lower {key}, or take a model with a longer context")
    if 0 < context < 10**9:
        found.facts["context"] = context


def _config_context(model: str | None) -> int | None:
    """Read a local model's context from its config; None where it is not said, or scaled."""
    try:
        config: Any = json.loads(Path(str(model), "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config") or config
        ropes = [config.get(name) or {} for name in ("rope_scaling", "rope_parameters")]
        scaled = any("factor" in rope for rope in ropes)
        context = config.get("max_position_embeddings")
    except (OSError, ValueError, AttributeError, TypeError):
        return None  # what reads the model will say it
    return context if isinstance(context, int) and not scaled else None
