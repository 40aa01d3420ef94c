"""What the keys of a recipe must not say, with one another or by themselves, found before torch is imported.

Every rule is a generator, named after what it forbids; its name is the code of its problems. What needs no more than the
recipe is in `RULES`; what asks the disk for what the recipe names is in `named_inputs`.
"""

import difflib
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reasoning_ext.check.cost import generation_of
from reasoning_ext.check.idle_keys import key_without_effect, written
from reasoning_ext.data.filters import TraceFilters
from reasoning_ext.data.filters import problem as filters_problem
from reasoning_ext.errors import Problem, system_problem
from reasoning_ext.models.loaded import DEFAULT_MAX_SEQ_LENGTH
from reasoning_ext.recipe.entries import entries
from reasoning_ext.recipe.keys import FROM_DATA, TRAINED
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.trl_fields import Key, dataclass_keys
from reasoning_ext.runs.folder import DONE, world_size
from reasoning_ext.scoring.spec import RewardSpec

Problems = Iterator[Problem]
REQUIRED = {
    "sft": ("model_name_or_path", "dataset_name", "output_dir"),
    "grpo": ("model_name_or_path", "dataset_name", "reward_funcs", "output_dir"),
    "dpo": ("model_name_or_path", "dataset_name", "output_dir"),
    "sample": ("model_name_or_path", "dataset_name", "reward_funcs", "output_dir"),
    "eval": ("dataset_name", "output_dir"),
}
# what is allowed, the least and the most, and the keys whose numbers that are
BOUNDS = (
    ("1 or more", 1, math.inf, (
        "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps generation_batch_size "
        "steps_per_generation num_iterations max_samples max_length max_seq_length max_prompt_length keep diverse lora_r "
        "max_completion_length thinking_budget min_thinking min_generations max_generations precompute_ref_batch_size "
        "dataloader_prefetch_factor dataset_num_proc pad_to_multiple_of eval_accumulation_steps ref_model_sync_steps "
        "max_tool_calling_iterations"
    )),
    ("0 or more", 0, math.inf, (
        "learning_rate weight_decay max_grad_norm warmup_steps lora_dropout dataloader_num_workers neftune_noise_alpha "
        "thought_weight answer_weight"
    )),
    ("0 to 4294967295", 0, 2**32 - 1, "seed data_seed"),
    ("a share from 0 to 1", 0, 1, "top_entropy_quantile max_unreadable_golds"),
    ("a share above 0 and up to 1", 1e-12, 1, "vllm_gpu_memory_utilization min_agreement"),
)  # fmt: skip
FEWEST = {  # completions a prompt
    "grpo": (2, "2 or more, because GRPO compares a prompt's completions"),
    "eval": (0, "0 or more, where 0 asks for greedy completions alone"),
}
ANSWERING = ("max_completion_length", "per_device_eval_batch_size")
ALL_WEIGHTS, OF_LENGTHS = {"use_peft": False}, ("group_by_length", "batch_rebalance")
# stages, a key, its values that cannot work, those of other keys beside them, what to do
TOGETHER: tuple[tuple[tuple[str, ...], str, Callable[[Any], bool], dict[str, Any], str], ...] = (
    (("sft", "grpo", "dpo", "sample", "eval"), "load_in_8bit", bool, {"load_in_4bit": True}, "take one of them"),
    (TRAINED, "load_in_4bit", bool, ALL_WEIGHTS, "an adapter can be trained on such weights, they cannot"),
    (TRAINED, "load_in_8bit", bool, ALL_WEIGHTS, "an adapter can be trained on such weights, they cannot"),
    (("sample", "eval"), "from_scratch", bool, {"load_in_4bit": True, "backend": "trl"}, "write backend: unsloth"),
    (("sample", "eval"), "from_scratch", bool, {"load_in_8bit": True, "backend": "trl"}, "write backend: unsloth"),
    (("grpo",), "beta", bool, {"from_scratch": True, **ALL_WEIGHTS}, "no reference is left; write 0 or use_peft: true"),
    (("sft",), "answer_weight", lambda weight: weight == 0, {"thought_weight": 0}, "one of them must be above 0"),
    (("sft",), "thought_weight", lambda weight: weight != 1, {"train_on": "answer"}, "the thought is not trained on"),
    (TRAINED, "max_steps", lambda steps: steps == 0, {}, "write 1 or more, or -1 for what num_train_epochs says"),
    (TRAINED, "num_train_epochs", lambda epochs: not epochs > 0, {"max_steps": -1}, "write a number above 0"),
    (("dpo",), "from_scratch", bool, {}, "it would be its own reference; train it with stage sft first"),
    (("dpo",), "beta", lambda beta: not 0 < beta < math.inf, {}, "write a number above 0, 0.1 for example"),
    (("dpo",), "loss_type", lambda kinds: kinds == [], {}, "write one or more, [sigmoid] for example"),
    (("dpo",), "train_sampling_strategy", OF_LENGTHS.__contains__, {}, "write random or sequential"),
    (("sample",), "min_generations", bool, {"adaptive": False}, "write adaptive: true"),
    (("sample",), "max_generations", bool, {"adaptive": False}, "write adaptive: true"),
    (("dpo",), "sync_ref_model", bool, {"use_peft": True}, "there is no reference model to sync"),
    (("dpo",), "sync_ref_model", bool, {"precompute_ref_log_probs": True}, "there is no reference model to sync"),
)  # fmt: skip
UNWEIGHTED = {"packing": False, "padding_free": False, "loss_type": "nll", "backend": "trl"}  # with weights in the loss
RUNS_CODE = {
    "trust_remote_code", "allow_all_kernels", "use_kernels", "kernel_config", "worker_cls", "worker_extension_cls",
    "logits_processors",
}  # fmt: skip
RENDERED_WITH = (  # what is told to a tokenizer beside the variables of its template
    "conversation", "messages", "tools", "chat_template", "tokenize", "add_generation_prompt", "continue_final_message",
    "return_dict", "return_tensors", "return_assistant_tokens_mask",
)  # fmt: skip


def missing_key(recipe: Recipe) -> Problems:
    """A key that the stage cannot do without is missing."""
    for key in REQUIRED[recipe.stage]:
        named = [recipe.values.get(other) is not None or recipe.refused(other) for other in ("datasets", "benchmark")]
        mixed = key == "dataset_name" and any(named)
        if not (recipe.values.get(key) or mixed or recipe.refused(key)):
            hint = f"stage {recipe.stage} needs {', '.join(REQUIRED[recipe.stage])}"
            yield recipe.problem(key, "the key is missing", hint=hint)


def unusable_output_dir(recipe: Recipe) -> Problems:
    """output_dir is a file, or a place where nothing can be written."""
    if not recipe.values.get("output_dir"):
        return
    place = Path(recipe.values["output_dir"])
    try:
        there = next(path for path in (place, *place.parents) if path.exists())
        done = (place / DONE).is_file()
    except OSError as error:
        yield recipe.problem("output_dir", f"found {place}: {system_problem(error)}")
        return
    if not there.is_dir():
        yield recipe.problem("output_dir", f"found {place}, but {there} is a file", "a new or an empty folder")
    elif not done and not os.access(there, os.W_OK | os.X_OK):
        yield recipe.problem("output_dir", f"found {place}, but nothing can be written to {there}")


def out_of_bounds(recipe: Recipe) -> Problems:
    """A number that is below or above what its key can hold."""
    for allowed, least, most, keys in BOUNDS:
        for key in keys.split():
            value = recipe.values.get(key)
            if isinstance(value, int | float) and not (least <= value <= most and value != math.inf):
                yield recipe.problem(key, f"found {value}", allowed)
    least, allowed = FEWEST.get(recipe.stage, (1, "1 or more"))
    drawn = recipe.get("num_generations") if "num_generations" in recipe.keys else least
    if drawn is None or drawn < least:
        yield recipe.problem("num_generations", f"found {drawn}", allowed)
    for key in ANSWERING if recipe.stage not in TRAINED else ():
        if recipe.get(key) is None:
            yield recipe.problem(key, "found None", "1 or more")


def unfit_together(recipe: Recipe) -> Problems:
    """A value that cannot work in this stage, or not beside another key's value."""
    for stages, key, unfit, others, hint in TOGETHER:
        fits = recipe.stage not in stages or key not in recipe.values or not unfit(recipe.values[key])
        if not fits and all(recipe.get(other) == value for other, value in others.items()):
            beside = " and ".join(f"{other}: {written(value)}" for other, value in others.items())
            found = f"found {written(recipe.get(key))} with {beside or f'stage: {recipe.stage}'}"
            yield recipe.problem(key, found, hint=hint)
    weighed = [key for key in ("thought_weight", "answer_weight") if recipe.stage == "sft" and recipe.get(key) != 1]
    for key, (other, fine) in itertools.product(weighed, UNWEIGHTED.items()):
        if recipe.values.get(other, fine) != fine:
            yield recipe.problem(
                key, f"found {recipe.get(key)} with {other}: {recipe.values[other]}", f"{other}: {fine}"
            )
    if any(entry.get("dataset_streaming") for entry in entries(recipe)):
        if recipe.stage not in TRAINED:
            yield recipe.problem("dataset_streaming", "found true", "false in a stage that goes over its rows again")
        elif recipe.stage == "dpo" and recipe.get("precompute_ref_log_probs"):
            yield recipe.problem("precompute_ref_log_probs", "found true with dataset_streaming: true", "false")


def batch_that_does_not_divide(recipe: Recipe) -> Problems:
    """GRPO's generation batch does not divide among several processes; in one TRL's config says it."""
    made = generation_of(recipe) if recipe.stage == "grpo" and world_size() > 1 else None
    if made and all(vars(made).values()) and (made.size % made.batch or made.size % made.each):
        found = f"found {made.each} with a generation batch of {made.size} in {world_size()} processes"
        yield recipe.problem("num_generations", found, f"what divides it, itself a multiple of {made.batch}")


def context_too_short(recipe: Recipe) -> Problems:
    """Unsloth would prepare less context than the recipe's rows take."""
    if recipe.get("backend") != "unsloth":
        return
    keys = ("max_length",) if recipe.stage in FROM_DATA else ("max_prompt_length", "max_completion_length")
    context = recipe.get("max_seq_length") or DEFAULT_MAX_SEQ_LENGTH
    written = {key: recipe.values[key] for key in keys if isinstance(recipe.values.get(key), int)}
    if context < (needed := sum(written.values())):
        said = " and ".join(f"{key} {value}" for key, value in written.items())
        found = "found" if "max_seq_length" in recipe.values else "left out, so it is"
        yield recipe.problem("max_seq_length", f"{found} {context}, but {said} take {needed} tokens; write {needed}")
    limit = recipe.get("max_length") if recipe.stage == "dpo" else context
    if "max_length" not in written and (limit is None or limit > context):
        found = f"found {'null' if limit is None else limit}, where Unsloth would cut pairs at max_seq_length {context}"
        yield recipe.problem("max_length", found, hint="write a number up to that")


def hidden_code(recipe: Recipe) -> Problems:
    """An argument that is handed on would run code which is neither listed nor held back."""
    places: list[tuple[tuple[str, ...], Any]] = [(("model_init_kwargs",), recipe.values.get("model_init_kwargs"))]
    place: tuple[str, ...] = ("engine_kwargs",)
    options = recipe.values.get("engine_kwargs")
    while isinstance(options, dict):  # Ray's have those of the engine that it runs
        places.append(((*place, "engine_args"), options.get("engine_args")))
        place, options = (*place, "engine_kwargs"), options.get("engine_kwargs")
    for place, given in places:
        if not isinstance(given, dict):
            continue
        for name in RUNS_CODE & given.keys():
            own = "as a key of the recipe" if name == "trust_remote_code" else "nothing that runs code unseen"
            yield recipe.problem((*place, name), "found here", own)
        if "/" in str(given.get("attn_implementation")):
            yield recipe.problem((*place, "attn_implementation"), "found a kernel here", "as a key of the recipe")


def unfit_template_arguments(recipe: Recipe) -> Problems:
    """chat_template_kwargs holds what is told to a tokenizer, or think_tags are no two tags."""
    for name in recipe.get("chat_template_kwargs") or {}:
        if name in RENDERED_WITH:
            allowed = "variables that the template reads"
            yield recipe.problem(("chat_template_kwargs", name), "found an argument of the tokenizer's", allowed)
    tags = recipe.get("think_tags")
    if tags is not None and not (
        len(tags) == 2 and all(isinstance(tag, str) and tag.strip() for tag in tags) and tags[0] != tags[1]
    ):
        yield recipe.problem("think_tags", f"found {tags}", "an opening and a closing tag, [<reasoning>, </reasoning>]")


def wrong_filter(recipe: Recipe) -> Problems:
    """trace_filters has an unknown filter, or a value that a filter cannot have."""
    given = recipe.values.get("trace_filters") or {}
    known = dataclass_keys(TraceFilters)
    for key in [key for key in given if key not in known]:
        yield unknown_name(recipe, ("trace_filters", key), "filter", given[key], known)
    if wrong := filters_problem(TraceFilters(**{key: given[key] for key in given if key in known})):
        yield recipe.problem(("trace_filters", wrong[0]), *wrong[1:])


def unknown_name(recipe: Recipe, path: tuple, what: str, value: object, known: Iterable[str]) -> Problem:
    """Say that a mapping has a key which it cannot have, and the nearest of those that it can."""
    near = difflib.get_close_matches(str(path[-1]), [*known], 1, cutoff=0.0)
    hint = f"the nearest is {near[0]}" if near else "it has none"
    return recipe.problem(path, f"unknown {what} (found {path[-1]}: {value!r})", hint=hint)


def wrong_option(
    recipe: Recipe, path: tuple, name: Any, value: Any, known: Mapping[str, Key], what: str = "name"
) -> Problem | None:
    """Say that `name` is none of the keys that a mapping of the recipe may have, or that its value is none for it."""
    if name not in known:
        return unknown_name(recipe, path, what, value, known)
    misfit = known[name].misfit(value)
    return recipe.problem(path, *misfit) if misfit else None


def launched_without_training(recipe: Recipe) -> Problems:
    """A stage that trains nothing under `accelerate launch`."""
    if recipe.stage not in TRAINED and world_size() > 1:
        found = f"found {recipe.stage} under accelerate launch"
        yield recipe.problem("stage", found, ", ".join(TRAINED), "run this one without it")


def wrong_reward_weights(recipe: Recipe, specs: list[RewardSpec]) -> Problems:
    """reward_weights are not one finite number a reward, or stand beside weights in reward_funcs."""
    weights = recipe.values.get("reward_weights")
    if weights is None or recipe.refused("reward_funcs"):
        return
    if len(weights) != len(specs):
        yield recipe.problem("reward_weights", f"found {len(weights)} weights", f"{len(specs)}, one a reward")
    elif any(spec.weight != 1.0 or spec.schedule for spec in specs):
        yield recipe.problem("reward_weights", "found beside a weight or a schedule in reward_funcs", "one of the two")
    elif not all(isinstance(w, int | float) and math.isfinite(w) for w in weights) or not any(weights):
        yield recipe.problem("reward_weights", f"found {weights}", "finite numbers, at least one of them not 0")


RULES: tuple[Callable[[Recipe], Problems], ...] = (
    missing_key, unusable_output_dir, out_of_bounds, unfit_together, batch_that_does_not_divide, context_too_short,
    hidden_code, unfit_template_arguments, wrong_filter, launched_without_training, key_without_effect,
)  # fmt: skip
