"""Rows in tokens before anything is trained: lengths against every limit, exactness, what is trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext import think
from reasoning_ext.recipe import Recipe

if TYPE_CHECKING:
    from reasoning_ext.inspection import Inspection

LENGTH_BIAS = 1.5  # one side of the pairs is so many times as long as the other
NORMED = ("sigmoid_norm", "ipo")  # losses of DPO that divide by the tokens


def measure_rows(recipe: Recipe, found: Inspection, model: str | None) -> None:
    """Tokenize the sampled rows as stage `sft` will, and judge their lengths and what is trained on.

    Args:
        recipe: of stage sft.
        found: has rows, tokenizer and contract; gets lengths, facts and findings.
        model: where the tokenizer came from.

    Raises:
        DataError: a row cannot be rendered, or trains nothing.
    """
    from reasoning_ext.tokenized import IGNORED, loss_options, tokenize_row

    kwargs, loss = recipe.get("chat_template_kwargs"), loss_options(recipe)
    trained = inexact = spelled = torn = 0
    for number, row in zip(found.numbers, found.rows, strict=True):
        tokens = tokenize_row(found.tokenizer, found.contract, row, number, loss, kwargs)
        found.lengths.append(len(tokens.input_ids))
        trained += sum(label != IGNORED for label in tokens.labels(loss))
        inexact += not tokens.exact
        spelled += tokens.spelled
        torn += _is_torn(think.content(row["completion"]))
    found.facts["mean_length"] = round(sum(found.lengths) / len(found.lengths), 1)
    found.facts["trained_share"] = round(trained / sum(found.lengths), 4)
    mend = "; trace_filters: {require_thought: true} drops rows without a whole one"
    _judge_texts(found, "completions", inexact, spelled)
    _judge_thoughts(found, "completions", torn, mend)
    _judge_rows(recipe, found, model)


def measure_pairs(recipe: Recipe, found: Inspection, model: str | None) -> None:
    """Tokenize the sampled pairs as stage `dpo` will, and judge their lengths and what sets their sides apart.

    Args:
        recipe: of stage dpo.
        found: as in `measure_rows`; a pair is as long as its longer side, and `mean_length` is that of both together.
        model: as in `measure_rows`.

    Raises:
        DataError: a pair cannot be rendered.
    """
    from reasoning_ext.pairs import tokenize_pair

    kwargs = recipe.get("chat_template_kwargs")
    inexact = spelled = torn = both = chosen = rejected = 0
    for number, row in zip(found.numbers, found.rows, strict=True):
        pair = tokenize_pair(found.tokenizer, found.contract, row, number, kwargs)
        found.lengths.append(max(pair.lengths))
        both += sum(pair.lengths)
        chosen += len(pair.chosen_ids)
        rejected += len(pair.rejected_ids)
        inexact += not pair.exact
        spelled += pair.spelled
        torn += _is_torn(think.content(row["chosen"]))
    means = {"mean_length": both, "chosen_length": chosen, "rejected_length": rejected}
    found.facts |= {name: round(tokens / len(found.rows), 1) for name, tokens in means.items()}
    found.facts["trained_share"] = round((chosen + rejected) / both, 4)
    _judge_texts(found, "pairs", inexact, spelled)
    _judge_thoughts(found, "chosen answers", torn, "")
    if recipe.get("ld_alpha") is None and not {*NORMED} & {*(recipe.get("loss_type") or ())}:
        _judge_bias(found)
    _judge_rows(recipe, found, model)


def _judge_bias(found: Inspection) -> None:
    """Say where one side is longer than the other: DPO sums over tokens, and learns length along with all else."""
    chosen, rejected = found.facts["chosen_length"], found.facts["rejected_length"]
    if max(chosen / rejected, rejected / chosen) >= LENGTH_BIAS:
        which = "longer" if chosen > rejected else "shorter"
        means = f"chosen answers have {chosen:g} tokens on the mean, rejected ones {rejected:g}"
        text = f"{means}, so that {which} answers are taught too; even them out, or write loss_type: [sigmoid_norm]"
        found.add("warning", "dataset_name", text)


def _judge_texts(found: Inspection, what: str, inexact: int, spelled: int) -> None:
    """Say how many rows the tokenizer changes, and how many contain the text of a token that ends a turn."""
    from reasoning_ext.tokenized import MOST_INEXACT

    if inexact:
        level: Any = "error" if inexact > MOST_INEXACT * len(found.rows) else "note"
        text = f"{inexact} of {len(found.rows)} {what} come back changed from the tokenizer"
        found.add(level, "model_name_or_path", text + ("; use a tokenizer that keeps them" if level == "error" else ""))
    if spelled:
        text = f"{spelled} of {len(found.rows)} {what} contain the text of a token that ends a turn"
        found.add("note", "dataset_name", text + ", which is trained on as letters")


def _judge_thoughts(found: Inspection, what: str, torn: int, mend: str) -> None:
    if torn:
        text = f"{torn} of {len(found.rows)} {what} have a thought that is not closed, or closed and never opened"
        found.add("warning", "dataset_name", text + mend)


def _is_torn(completion: str) -> bool:
    """Tell whether a completion opens a thought without closing it, or closes one at its end that it never opened."""
    opened, closed = completion.lstrip().startswith(think.OPEN), think.CLOSE in completion
    return opened != closed and (opened or think.OPEN not in completion)


def _judge_rows(recipe: Recipe, found: Inspection, model: str | None) -> None:
    """Compare the lengths of rows, or of the longer sides of pairs, with `max_length` and the context."""
    limit, lengths = recipe.get("max_length"), found.lengths
    fitting = [length for length in lengths if not limit or length <= limit]
    found.facts["fitting_share"] = round(len(fitting) / len(lengths), 4)
    over, drop = len(lengths) - len(fitting), recipe.get("overlong_rows") == "drop"
    if over:
        left_out = "" if "max_length" in recipe.values else "left out, so it is TRL's default: "
        share = (
            f"{left_out}{over} of {len(lengths)} rows are longer than max_length {limit} (the longest {max(lengths)})"
        )
        if drop and fitting:
            found.add("warning", "max_length", f"{share} and will be dropped; raise it to keep them")
        else:
            other = ", or write overlong_rows: drop" if fitting else ""
            found.add("error", "max_length", f"{share}; raise max_length{other}")
    _judge_context(recipe, found, max(fitting, default=0), model, "max_length")


def measure_prompts(recipe: Recipe, found: Inspection, model: str | None) -> None:
    """Tokenize the sampled prompts as generation will, and judge their lengths.

    Args:
        recipe: of a stage that generates.
        found: as in `measure_rows`.
        model: as in `measure_rows`.

    Raises:
        DataError: the template refuses a prompt.
    """
    from reasoning_ext.tokenized import prompt_length

    kwargs = recipe.get("chat_template_kwargs")
    numbered = zip(found.numbers, found.rows, strict=True)
    found.lengths = [prompt_length(found.tokenizer, found.contract, row, number, kwargs) for number, row in numbered]
    found.facts["mean_length"] = round(sum(found.lengths) / len(found.lengths), 1)
    limit = recipe.get("max_prompt_length") if "max_prompt_length" in recipe.keys else None
    fitting = [length for length in found.lengths if not limit or length <= limit]
    found.facts["fitting_share"] = round(len(fitting) / len(found.lengths), 4)
    over = len(found.lengths) - len(fitting)
    if over and not fitting:
        found.add("error", "max_prompt_length", f"found {limit}, but all prompts have more tokens; raise it")
    elif over:
        text = f"found {limit}; {over} of {len(found.lengths)} prompts have more tokens and will be dropped"
        found.add("warning", "max_prompt_length", text)
    longest = max(fitting, default=0) + (recipe.get("max_completion_length") or 0)
    _judge_context(recipe, found, longest, model, "max_completion_length")


def _judge_context(recipe: Recipe, found: Inspection, longest: int, model: str | None, key: str) -> None:
    """Compare the longest sequence with the context of the backend and of the model."""
    prepared = recipe.get("max_seq_length") if recipe.get("backend") == "unsloth" else None
    if prepared and longest > prepared:
        text = f"found {prepared}, but sequences of up to {longest} tokens will come; raise it"
        found.add("error", "max_seq_length", text)
    context: int = _config_context(model) or getattr(found.tokenizer, "model_max_length", None) or 0
    if 0 < context < longest:
        text = f"sequences of up to {longest} tokens will come, but the model's context is {context}; lower {key}, or take a "
        found.add("warning", key, text + "model with a longer context")
    if 0 < context < 10**9:
        found.facts["context"] = context


def _config_context(model: str | None) -> int | None:
    """Read a local model's context from its config; None where it is not said, or scaled."""
    file = Path(model or "") / "config.json"
    if not model or not file.is_file():
        return None
    try:
        config: Any = json.loads(file.read_text(encoding="utf-8"))
        config = config.get("text_config") or config
        ropes = [config.get(name) or {} for name in ("rope_scaling", "rope_parameters")]
        scaled = any("factor" in rope for rope in ropes)
        context = config.get("max_position_embeddings")
    except (OSError, ValueError, AttributeError, TypeError):
        return None  # what reads the model will say it
    return context if isinstance(context, int) and not scaled else None
