"""What the keys of a recipe must not say, with one another or by themselves, found before torch is imported.

Every rule is a generator, named after what it forbids; its name is the code of its problems. What needs no more than the
recipe is in `RULES`; what asks the disk for what the recipe names is in `named_inputs`.
"""

import difflib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from reasoning_ext.check.cost import generation_of
from reasoning_ext.check.idle_keys import key_without_effect
from reasoning_ext.data.filters import TraceFilters
from reasoning_ext.data.filters import problem as filters_problem
from reasoning_ext.errors import Problem, system_problem
from reasoning_ext.models.loaded import DEFAULT_MAX_SEQ_LENGTH
from reasoning_ext.recipe.entries import entries
from reasoning_ext.recipe.keys import FROM_DATA, TRAINED
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.trl_fields import dataclass_keys
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
COUNTS = (
    "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "generation_batch_size",
    "steps_per_generation", "num_iterations", "max_samples", "max_length", "max_seq_length", "max_prompt_length",
    "max_completion_length", "keep", "precompute_ref_batch_size",
    "dataloader_prefetch_factor", "dataset_num_proc", "pad_to_multiple_of", "eval_accumulation_steps", "ref_model_sync_steps",
)  # fmt: skip
ANSWERING_COUNTS = ("num_generations", "max_completion_length", "per_device_eval_batch_size")
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


def missing_key(recipe: Recipe) -> Problems:
    """A key that the stage cannot do without is missing."""
    for key in REQUIRED[recipe.stage]:
        there = recipe.values.get(key) or (key == "dataset_name" and recipe.values.get("datasets") is not None)
        if not there and not recipe.refused(key, *(["datasets"] if key == "dataset_name" else [])):
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
        found = f"found {place}, but nothing can be written to {there}"
        yield recipe.problem("output_dir", found, hint="choose another place")


def context_too_short(recipe: Recipe) -> Problems:
    """Unsloth would prepare less context than the recipe's rows take."""
    if recipe.get("backend") != "unsloth":
        return
    keys = ("max_length",) if recipe.stage in FROM_DATA else ("max_prompt_length", "max_completion_length")
    context = recipe.get("max_seq_length") or DEFAULT_MAX_SEQ_LENGTH
    written = {key: recipe.values[key] for key in keys if isinstance(recipe.values.get(key), int)}
    needed = sum(written.values())
    if context < needed:
        found = "found" if "max_seq_length" in recipe.values else "left out, so it is"
        said = " and ".join(f"{key} {value}" for key, value in written.items())
        yield recipe.problem("max_seq_length", f"{found} {context}, but {said} take {needed} tokens; write {needed}")
    limit = recipe.get("max_length") if recipe.stage == "dpo" else context
    if "max_length" not in written and (limit is None or limit > context):
        found = f"found {'null' if limit is None else limit}, where Unsloth would cut pairs at max_seq_length {context}"
        yield recipe.problem("max_length", found, hint="write a number up to that")


def _passed_on(recipe: Recipe) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """List the mappings that are handed on to whoever builds a model, each with its place in the recipe."""
    found: list[tuple[tuple[str, ...], Any]] = [(("model_init_kwargs",), recipe.values.get("model_init_kwargs"))]
    place: tuple[str, ...] = ("engine_kwargs",)
    options = recipe.values.get("engine_kwargs")
    while isinstance(options, dict):  # Ray's have those of the engine that it runs
        found.append(((*place, "engine_args"), options.get("engine_args")))
        place, options = (*place, "engine_kwargs"), options.get("engine_kwargs")
    return [(place, given) for place, given in found if isinstance(given, dict)]


def hidden_code(recipe: Recipe) -> Problems:
    """An argument that is handed on would run code which is neither listed nor held back."""
    for place, given in _passed_on(recipe):
        for name in RUNS_CODE & given.keys():
            as_key = f"{name} as a key of the recipe"
            allowed = as_key if name == "trust_remote_code" else "nothing that runs code unseen"
            yield recipe.problem((*place, name), "found here", allowed)
        if "/" in str(given.get("attn_implementation")):
            yield recipe.problem((*place, "attn_implementation"), "found a kernel here", "as a key of the recipe")


def unfit_quantisation(recipe: Recipe) -> Problems:
    """Quantised weights that cannot be loaded or trained so."""
    bits = next((key for key in ("load_in_4bit", "load_in_8bit") if recipe.get(key)), None)
    if bits is None:
        return
    if recipe.get("load_in_4bit") and recipe.get("load_in_8bit"):
        yield recipe.problem("load_in_8bit", "found true beside load_in_4bit: true", "one of them")
    if recipe.get("from_scratch") and recipe.get("backend") == "trl" and recipe.stage not in TRAINED:
        yield recipe.problem("from_scratch", f"found true with {bits}: true", "with backend: unsloth alone")
    if recipe.stage in TRAINED and not recipe.get("use_peft"):
        hint = "an adapter can be trained on such weights, they cannot"
        yield recipe.problem(bits, "found true without use_peft: true", hint=hint)


def beta_without_reference(recipe: Recipe) -> Problems:
    """A KL term with random weights, which leave no reference model."""
    if recipe.stage == "grpo" and recipe.get("from_scratch") and recipe.get("beta") and not recipe.get("use_peft"):
        found = "found a KL term with from_scratch, which leaves no reference"
        yield recipe.problem("beta", found, hint="write 0 or use_peft: true")


def unfit_template_arguments(recipe: Recipe) -> Problems:
    """chat_template_kwargs holds what is told to a tokenizer, or think_tags are no two tags."""
    for name in recipe.get("chat_template_kwargs") or {}:
        if name in RENDERED_WITH:
            allowed = "variables that the template reads"
            yield recipe.problem(("chat_template_kwargs", name), "found an argument of the tokenizer's", allowed)
    tags = recipe.get("think_tags")
    if tags is not None and not (
        len(tags) == 2 and all(isinstance(t, str) and t.strip() for t in tags) and tags[0] != tags[1]
    ):
        allowed = "the opening and the closing tag, [<reasoning>, </reasoning>]"
        yield recipe.problem("think_tags", f"found {tags}", allowed)


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


def unfit_loss_weights(recipe: Recipe) -> Problems:
    """Weights of the thought's and the answer's tokens that train nothing, or that another key rules out."""
    if recipe.stage != "sft":
        return
    for key in ("thought_weight", "answer_weight"):
        weight = recipe.get(key)
        if not (math.isfinite(weight) and weight >= 0):
            yield recipe.problem(key, f"found {weight}", "0 or more", "for 0 on the thought write train_on: answer")
        for other, fine in (("packing", False), ("padding_free", False), ("loss_type", "nll"), ("backend", "trl")):
            if weight != 1.0 and recipe.values.get(other, fine) != fine:
                yield recipe.problem(key, f"found {weight} with {other}: {recipe.values[other]}", f"{other}: {fine}")
    if recipe.get("thought_weight") == recipe.get("answer_weight") == 0:
        yield recipe.problem("answer_weight", "found 0 beside thought_weight: 0", "one of them above 0")
    if recipe.get("train_on") == "answer" and recipe.get("thought_weight") != 1.0:
        yield recipe.problem("thought_weight", "found with train_on: answer, which does not train on the thought")


def wrong_filter(recipe: Recipe) -> Problems:
    """trace_filters has an unknown filter, or a value that a filter cannot have."""
    if recipe.stage != "sft" or not (given := recipe.get("trace_filters")):
        return
    known = dataclass_keys(TraceFilters)
    for key in [key for key in given if key not in known]:
        near = difflib.get_close_matches(str(key), list(known), 1, cutoff=0.0)[0]
        found = f"unknown filter (found {key}: {given[key]!r})"
        yield recipe.problem(("trace_filters", key), found, hint=f"the nearest is {near}")
    if wrong := filters_problem(TraceFilters(**{key: given[key] for key in given if key in known})):
        yield recipe.problem(("trace_filters", wrong[0]), *wrong[1:])


def unfit_for_preferences(recipe: Recipe) -> Problems:
    """Options of DPO that cannot work, most of which TRL refuses after the model is loaded."""
    if recipe.stage != "dpo":
        return
    if recipe.get("from_scratch"):
        allowed = "false in stage dpo, whose reference is the model that it starts from"
        yield recipe.problem("from_scratch", "found true", allowed, "train it with stage sft first")
    if not (math.isfinite(recipe.get("beta")) and recipe.get("beta") > 0):
        yield recipe.problem("beta", f"found {recipe.get('beta')}", "above 0, 0.1 for example")
    if recipe.get("loss_type") == []:
        yield recipe.problem("loss_type", "found []", "one or more, [sigmoid] for example")
    if (order := recipe.get("train_sampling_strategy")) in ("group_by_length", "batch_rebalance"):
        hint = "a pair's length is not known to the trainer"
        yield recipe.problem("train_sampling_strategy", f"found {order}", "random, sequential", hint)
    precomputed = recipe.get("precompute_ref_log_probs")
    if precomputed and any(entry.get("dataset_streaming") for entry in entries(recipe)):
        allowed = "on a data set that is read as a whole"
        yield recipe.problem("precompute_ref_log_probs", "found true with dataset_streaming: true", allowed)
    for key in ("use_peft", "precompute_ref_log_probs"):
        if recipe.get("sync_ref_model") and recipe.get(key):
            yield recipe.problem(
                "sync_ref_model", f"found true with {key}: true, which leaves no reference model to sync"
            )


def batch_that_does_not_divide(recipe: Recipe) -> Problems:
    """GRPO's generation batch is no multiple of what it is divided by, as TRL's own arithmetic would say."""
    if recipe.stage != "grpo":
        return
    generations = recipe.get("num_generations")
    if generations is None or generations < 2:
        allowed = "2 or more, because GRPO compares a prompt's completions"
        yield recipe.problem("num_generations", f"found {generations}", allowed)
        return
    if recipe.get("generation_batch_size") is not None and recipe.get("steps_per_generation") is not None:
        yield recipe.problem("generation_batch_size", "found beside steps_per_generation", "one of the two")
        return
    numbers = [recipe.values.get(key) for key in BATCH_KEYS]
    if recipe.refused(*BATCH_KEYS) or any(number is not None and number < 1 for number in numbers):
        return  # said already
    made, processes = generation_of(recipe), world_size()
    step, size, given = made.batch, made.size, recipe.values.get("generation_batch_size") is not None
    key = "generation_batch_size" if given else "num_generations"
    if given and size % step:
        yield recipe.problem(key, f"found {size}", f"a multiple of the batch of {step} completions a step")
    elif size % generations:
        rows = f"per_device_train_batch_size {step // processes}"
        made_of = f"{rows} x {made.steps} steps x {processes} processes"
        found = f"found {size}" if given else f"found {generations} with a generation batch of {size} ({made_of})"
        near = max(generations, round(size / generations) * generations)
        hint = f"the batch must be a multiple of num_generations {generations}, {near} for example"
        yield recipe.problem(key, found, hint=hint)


def below_one(recipe: Recipe) -> Problems:
    """A count that must be 1 or more."""
    counts = [key for key in (*COUNTS, "min_generations", "max_generations", "diverse") if key in recipe.keys]
    for key in counts:
        value = recipe.values.get(key)
        if isinstance(value, int) and value < 1:
            yield recipe.problem(key, f"found {value}", "1 or more")
    for key in ANSWERING_COUNTS if recipe.stage not in TRAINED else ():
        value = recipe.get(key)
        if value is None or (value < 1 and key not in COUNTS):
            yield recipe.problem(key, f"found {value}", "1 or more")


def no_share(recipe: Recipe) -> Problems:
    """A share that is none."""
    above = "a share of the card, above 0 and up to 1"
    for key, least, allowed in (
        ("vllm_gpu_memory_utilization", 1e-12, above),
        ("top_entropy_quantile", 0, "a share of the tokens, from 0 to 1"),
        ("max_unreadable_golds", 0, "a share from 0 to 1"),
        ("min_agreement", 1e-12, "a share above 0 and up to 1"),
    ):
        share = recipe.values.get(key)
        if isinstance(share, int | float) and not least <= share <= 1:
            yield recipe.problem(key, f"found {share}", allowed)


def stream_answered(recipe: Recipe) -> Problems:
    """A stream in a stage that goes over its rows again."""
    if recipe.stage not in TRAINED and any(entry.get("dataset_streaming") for entry in entries(recipe)):
        allowed = f"false in stage {recipe.stage}, which goes over its rows again"
        yield recipe.problem("dataset_streaming", "found true", allowed)


def launched_without_training(recipe: Recipe) -> Problems:
    """A stage that trains nothing under `accelerate launch`."""
    if recipe.stage not in TRAINED and world_size() > 1:
        found = f"found {recipe.stage} under accelerate launch"
        yield recipe.problem("stage", found, ", ".join(TRAINED), "run this one without it")


RULES: tuple[Callable[[Recipe], Problems], ...] = (
    missing_key, unusable_output_dir, context_too_short, hidden_code, unfit_quantisation, beta_without_reference,
    unfit_template_arguments, unfit_loss_weights, wrong_filter, unfit_for_preferences, batch_that_does_not_divide,
    stream_answered, launched_without_training, below_one, no_share, key_without_effect,
)  # fmt: skip
