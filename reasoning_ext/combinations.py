"""Keys of a recipe that must agree with one another, checked before torch is imported.

Every check is a generator that yields the errors it finds, so that `check` can name all of them and `run` stop at the first.
"""

import difflib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reasoning_ext.batches import generation_of
from reasoning_ext.errors import system_problem
from reasoning_ext.fields import dataclass_keys
from reasoning_ext.hand_over import adapter_errors
from reasoning_ext.loaded import DEFAULT_MAX_SEQ_LENGTH
from reasoning_ext.mixtures import entries
from reasoning_ext.own_keys import FROM_DATA, TRAINED
from reasoning_ext.recipe import Recipe, RecipeError
from reasoning_ext.reference import reference_errors
from reasoning_ext.reward_loading import EntryError, RewardSpec, parse_rewards
from reasoning_ext.run_dir import DONE, world_size
from reasoning_ext.trace_filters import TraceFilters
from reasoning_ext.trace_filters import problem as filters_problem
from reasoning_ext.unsloth_backend import unsloth_errors

Errors = Iterator[RecipeError]

EVAL_REWARDS = ["math_answer", "think_format"]
COUNTS = (
    "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "generation_batch_size",
    "steps_per_generation", "num_iterations", "max_samples", "max_length", "max_seq_length", "max_prompt_length",
    "max_completion_length", "keep", "precompute_ref_batch_size",
    "dataloader_prefetch_factor", "dataset_num_proc", "pad_to_multiple_of", "eval_accumulation_steps", "ref_model_sync_steps",
)  # fmt: skip
RUNS_CODE = {
    "trust_remote_code", "allow_all_kernels", "use_kernels", "kernel_config", "worker_cls", "worker_extension_cls",
    "logits_processors",
}  # fmt: skip
RENDERED_WITH = (  # what is told to a tokenizer beside the variables of its template
    "conversation", "messages", "tools", "chat_template", "tokenize", "add_generation_prompt", "continue_final_message",
    "return_dict", "return_tensors", "return_assistant_tokens_mask",
)  # fmt: skip
BATCH_KEYS = (
    "num_generations", "per_device_train_batch_size", "gradient_accumulation_steps", "generation_batch_size",
    "steps_per_generation",
)  # fmt: skip


def refused(recipe: Recipe, *keys: str) -> bool:
    """Tell whether the recipe sets one of the keys to a value that was refused, so that no more should be said of it."""
    return any((key,) in recipe.lines and key not in recipe.values for key in keys)


def count_errors(recipe: Recipe) -> Errors:
    """Yield an error for every count that is below 1."""
    for key in COUNTS:
        value = recipe.values.get(key)
        if isinstance(value, int) and value < 1:
            yield recipe.error(key, f"found {value}, allowed: 1 or more")
    share = recipe.values.get("vllm_gpu_memory_utilization")
    if isinstance(share, int | float) and not 0 < share <= 1:
        yield recipe.error(
            "vllm_gpu_memory_utilization", f"found {share}, allowed: a share of the card, above 0 and up to 1"
        )


def context_errors(recipe: Recipe) -> Errors:
    """Yield an error where Unsloth would prepare less context than the recipe's rows take."""
    keys = ("max_length",) if recipe.stage in FROM_DATA else ("max_prompt_length", "max_completion_length")
    context = recipe.get("max_seq_length") or DEFAULT_MAX_SEQ_LENGTH
    written = {key: recipe.values[key] for key in keys if isinstance(recipe.values.get(key), int)}
    needed = sum(written.values())
    if recipe.get("backend") == "unsloth" and context < needed:
        found = "found" if "max_seq_length" in recipe.values else "left out, so it is"
        said = " and ".join(f"{key} {value}" for key, value in written.items())
        yield recipe.error("max_seq_length", f"{found} {context}, but {said} take {needed} tokens; write {needed}")


def _passed_on(recipe: Recipe) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """List the mappings that are handed on to whoever builds a model, each with its place in the recipe."""
    found: list[tuple[tuple[str, ...], Any]] = [(("model_init_kwargs",), recipe.values.get("model_init_kwargs"))]
    place: tuple[str, ...] = ("engine_kwargs",)
    options = recipe.values.get("engine_kwargs")
    while isinstance(options, dict):  # Ray's have those of the engine that it runs
        found.append(((*place, "engine_args"), options.get("engine_args")))
        place, options = (*place, "engine_kwargs"), options.get("engine_kwargs")
    return [(place, given) for place, given in found if isinstance(given, dict)]


def weight_errors(recipe: Recipe) -> Errors:
    """Yield combinations of quantisation, adapters and random weights that cannot work."""
    yield from context_errors(recipe)
    for place, given in _passed_on(recipe):
        for name in RUNS_CODE & given.keys():  # which would be neither listed nor held back
            allowed = (
                f"{name} as a key of the recipe" if name == "trust_remote_code" else "nothing that runs code unseen"
            )
            yield recipe.error((*place, name), f"found here, allowed: {allowed}")
        if "/" in str(given.get("attn_implementation")):
            yield recipe.error((*place, "attn_implementation"), "found a kernel here, allowed: as a key of the recipe")
    bits = next((key for key in ("load_in_4bit", "load_in_8bit") if recipe.get(key)), None)
    if bits and recipe.get("load_in_4bit") and recipe.get("load_in_8bit"):
        yield recipe.error("load_in_8bit", "found true beside load_in_4bit: true, allowed: one of them")
    if bits and recipe.get("from_scratch") and recipe.get("backend") == "trl" and recipe.stage not in TRAINED:
        yield recipe.error("from_scratch", f"found true with {bits}: true, allowed: with backend: unsloth alone")
    if bits and recipe.stage in TRAINED and not recipe.get("use_peft"):
        yield recipe.error(
            bits, "found true without use_peft: true; an adapter can be trained on such weights, they cannot"
        )
    if recipe.stage == "grpo" and recipe.get("from_scratch") and recipe.get("beta") and not recipe.get("use_peft"):
        yield recipe.error(
            "beta", "found a KL term with from_scratch, which leaves no reference; write 0 or use_peft: true"
        )
    yield from adapter_errors(recipe)
    yield from reference_errors(recipe)
    yield from unsloth_errors(recipe)


def tag_errors(recipe: Recipe) -> Errors:
    """Yield what is wrong with `think_tags` and `chat_template_kwargs`."""
    for name in recipe.get("chat_template_kwargs") or {}:
        if name in RENDERED_WITH:
            problem = "found an argument of the tokenizer's, allowed: variables that the template reads"
            yield recipe.error(("chat_template_kwargs", name), problem)
    tags = recipe.get("think_tags")
    if tags is not None and not (
        len(tags) == 2 and all(isinstance(t, str) and t.strip() for t in tags) and tags[0] != tags[1]
    ):
        yield recipe.error(
            "think_tags", f"found {tags}, allowed: the opening and the closing tag, [<reasoning>, </reasoning>]"
        )


def sft_errors(recipe: Recipe) -> Errors:
    """Yield combinations of SFT's options that cannot work, and wrong values of its filters."""
    for key in ("thought_weight", "answer_weight"):
        weight = recipe.get(key)
        if not (math.isfinite(weight) and weight >= 0):
            yield recipe.error(key, f"found {weight}, allowed: 0 or more; for 0 on the thought write train_on: answer")
        for other, fine in (("packing", False), ("padding_free", False), ("loss_type", "nll"), ("backend", "trl")):
            if weight != 1.0 and recipe.values.get(other, fine) != fine:
                yield recipe.error(
                    key, f"found {weight} with {other}: {recipe.values[other]}, allowed: {other}: {fine}"
                )
    if recipe.get("thought_weight") == recipe.get("answer_weight") == 0:
        yield recipe.error("answer_weight", "found 0 beside thought_weight: 0, allowed: one of them above 0")
    if recipe.get("train_on") == "answer" and recipe.get("thought_weight") != 1.0:
        yield recipe.error("thought_weight", "found with train_on: answer, which does not train on the thought")
    if recipe.get("trace_filters") is not None:
        yield from _filter_errors(recipe, recipe.get("trace_filters"))


def _filter_errors(recipe: Recipe, given: dict[Any, Any]) -> Errors:
    known = dataclass_keys(TraceFilters)
    unknown = [key for key in given if key not in known]
    for key in unknown:
        near = difflib.get_close_matches(str(key), list(known), 1, cutoff=0.0)[0]
        yield recipe.error(
            ("trace_filters", key), f"unknown filter (found {key}: {given[key]!r}); the nearest is {near}"
        )
    if problem := filters_problem(TraceFilters(**{key: given[key] for key in given if key in known})):
        key, _, text = problem.partition(": ")
        yield recipe.error(("trace_filters", key) if text else "trace_filters", text or key)


def dpo_errors(recipe: Recipe) -> Errors:
    """Yield combinations of DPO's options that cannot work, most of which TRL refuses after the model is loaded."""
    if recipe.get("from_scratch"):
        problem = "found true, allowed: false in stage dpo, whose reference is the model that it starts from"
        yield recipe.error("from_scratch", f"{problem}; train it with stage sft first")
    if not (math.isfinite(recipe.get("beta")) and recipe.get("beta") > 0):
        yield recipe.error("beta", f"found {recipe.get('beta')}, allowed: above 0, 0.1 for example")
    if recipe.get("loss_type") == []:
        yield recipe.error("loss_type", "found [], allowed: one or more, [sigmoid] for example")
    if (order := recipe.get("train_sampling_strategy")) in ("group_by_length", "batch_rebalance"):
        problem = f"found {order}, allowed: random, sequential; a pair's length is not known to the trainer"
        yield recipe.error("train_sampling_strategy", problem)
    context, limit = recipe.get("max_seq_length") or DEFAULT_MAX_SEQ_LENGTH, recipe.get("max_length")
    written = isinstance(recipe.values.get("max_length"), int)  # said in context_errors
    if recipe.get("backend") == "unsloth" and not written and (limit is None or limit > context):
        found = f"found {'null' if limit is None else limit}, where Unsloth would cut pairs at max_seq_length {context}"
        yield recipe.error("max_length", f"{found}; write a number up to that")
    precomputed = recipe.get("precompute_ref_log_probs")
    if precomputed and any(entry.get("dataset_streaming") for entry in entries(recipe)):
        problem = "found true with dataset_streaming: true, allowed: on a data set that is read as a whole"
        yield recipe.error("precompute_ref_log_probs", problem)
    for key in ("use_peft", "precompute_ref_log_probs"):
        if recipe.get("sync_ref_model") and recipe.get(key):
            yield recipe.error(
                "sync_ref_model", f"found true with {key}: true, which leaves no reference model to sync"
            )


def reward_errors(recipe: Recipe, specs: list[RewardSpec]) -> Errors:
    """Yield what is wrong with the rewards and their weights.

    Args:
        recipe: the recipe.
        specs: gets the rewards, if they are right.
    """
    if "reward_funcs" not in recipe.keys:
        return
    listed = recipe.get("reward_funcs")
    listed = EVAL_REWARDS if listed is None and recipe.stage == "eval" else listed
    wrong = list(_entry_errors(recipe, [listed] if isinstance(listed, str) else listed or []))
    yield from wrong
    if not wrong:
        specs += parse_rewards(listed, recipe.folder)
    share = recipe.get("max_unreadable_golds")
    if not 0 <= share <= 1:
        yield recipe.error("max_unreadable_golds", f"found {share}, allowed: a share from 0 to 1")
    weights = recipe.values.get("reward_weights")
    if weights is None or wrong or refused(recipe, "reward_funcs"):
        return
    if len(weights) != len(specs):
        yield recipe.error("reward_weights", f"found {len(weights)} weights, allowed: {len(specs)}, one a reward")
    elif any(spec.weight != 1.0 or spec.schedule for spec in specs):
        yield recipe.error(
            "reward_weights", "found beside a weight or a schedule in reward_funcs, allowed: one of the two"
        )
    elif not all(isinstance(w, int | float) and math.isfinite(w) for w in weights) or not any(weights):
        yield recipe.error("reward_weights", f"found {weights}, allowed: finite numbers, at least one of them not 0")


def _entry_errors(recipe: Recipe, listed: list[Any]) -> Errors:
    """Yield the error of every wrong entry: an entry is taken out when it is wrong, and the others are read again."""
    left = list(enumerate(listed))
    while left:
        try:
            parse_rewards([entry for _, entry in left], recipe.folder)
            return
        except EntryError as error:
            whole = len(left) == len(listed)
            if (
                not error.path or error.path[-1] == "gate"
            ):  # a gate, or a sum of weights, may ask for what was taken out
                if whole:
                    yield recipe.error(("reward_funcs", *error.path), str(error))
                return
            number, _ = left.pop(error.path[0])
            yield recipe.error(("reward_funcs", number, *error.path[1:]), str(error))


def generation_errors(recipe: Recipe) -> Errors:
    """Yield counts that `sample` and `eval` cannot work with."""
    for key in ("num_generations", "max_completion_length", "per_device_eval_batch_size"):
        value = recipe.get(key)
        if value is None or (value < 1 and key not in COUNTS):
            yield recipe.error(key, f"found {value}, allowed: 1 or more")
    if any(entry.get("dataset_streaming") for entry in entries(recipe)):
        yield recipe.error(
            "dataset_streaming", f"found true, allowed: false in stage {recipe.stage}, which goes over its rows again"
        )
    if world_size() > 1:
        yield recipe.error(
            "stage",
            f"found {recipe.stage} under accelerate launch, allowed: {', '.join(TRAINED)}; run this one without it",
        )


def batch_errors(recipe: Recipe) -> Errors:
    """Yield what TRL's own arithmetic of generation batches would refuse, before TRL is imported."""
    share = recipe.get("top_entropy_quantile")
    if not 0 <= share <= 1:
        yield recipe.error("top_entropy_quantile", f"found {share}, allowed: a share of the tokens, from 0 to 1")
    generations = recipe.get("num_generations")
    if generations is None or generations < 2:
        yield recipe.error(
            "num_generations", f"found {generations}, allowed: 2 or more, because GRPO compares a prompt's completions"
        )
        return
    if recipe.get("generation_batch_size") is not None and recipe.get("steps_per_generation") is not None:
        yield recipe.error("generation_batch_size", "found beside steps_per_generation, allowed: one of the two")
        return
    numbers = [recipe.values.get(key) for key in BATCH_KEYS]
    if refused(recipe, *BATCH_KEYS) or any(number is not None and number < 1 for number in numbers):
        return  # said already
    made = generation_of(recipe)
    step, size, given = made.batch, made.size, recipe.values.get("generation_batch_size") is not None
    key = "generation_batch_size" if given else "num_generations"
    if given and size % step:
        yield recipe.error(key, f"found {size}, allowed: a multiple of the batch of {step} completions a step")
    elif size % generations:
        processes = world_size()
        rows = f"per_device_train_batch_size {step // processes}"
        made_of = f"{rows} x {made.steps} steps x {processes} processes"
        found = f"{size}" if given else f"{generations} with a generation batch of {size} ({made_of})"
        near = max(generations, round(size / generations) * generations)
        yield recipe.error(
            key, f"found {found}; the batch must be a multiple of num_generations {generations}, {near} for example"
        )


def run_folder_errors(recipe: Recipe) -> Errors:
    """Yield an error where `output_dir` cannot be a folder."""
    if recipe.values.get("output_dir"):
        place = Path(recipe.values["output_dir"])
        try:
            there = next(path for path in (place, *place.parents) if path.exists())
            done = (place / DONE).is_file()
        except OSError as error:
            yield recipe.error("output_dir", f"found {place}: {system_problem(error)}")
            return
        if not there.is_dir():
            yield recipe.error("output_dir", f"found {place}, but {there} is a file, allowed: a new or an empty folder")
        elif not done and not os.access(there, os.W_OK | os.X_OK):
            yield recipe.error(
                "output_dir", f"found {place}, but nothing can be written to {there}; choose another place"
            )
