"""Keys that do nothing with another key's value, refused like typos: whoever writes one believes that it works."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

from reasoning_ext.errors import Problem
from reasoning_ext.recipe.keys import FROM_DATA
from reasoning_ext.recipe.load import Recipe

CLIPPED = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo")  # GRPO's losses with a clipped ratio
# the keys (a last * for all that begin so), the keys that decide, the values with which they work
NEEDS: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
    ("max_seq_length", "backend", ("unsloth",)),
    ("lora_* use_rslora use_dora", "use_peft", (True,)),
    ("bnb_4bit_* use_bnb_nested_quant", "load_in_4bit", (True,)),
    ("vllm_*", "use_vllm", (True,)),
    ("vllm_server_* vllm_group_port", "vllm_mode", ("server",)),
    (
        "vllm_gpu_memory_utilization vllm_max_model_length vllm_tensor_parallel_size vllm_enable_sleep_mode vllm_model_impl",
        "vllm_mode", ("colocate",),
    ),
    ("vllm_importance_sampling_*", "vllm_importance_sampling_correction", (True,)),
    ("sapo_*", "loss_type", ("sapo",)),
    ("vespo_*", "loss_type", ("vespo",)),
    ("delta epsilon", "loss_type", CLIPPED),
    ("epsilon_high", "loss_type", (*CLIPPED, "cispo")),
    ("label_smoothing", "loss_type", ("exo_pair", "robust", "aot", "aot_unpaired")),
    ("discopop_tau", "loss_type", ("discopop",)),
    ("f_alpha_divergence_coef", "f_divergence_type", ("alpha_divergence",)),
    ("entropy_coef_* entropy_target", "use_adaptive_entropy", (True,)),
    ("ref_model_*", "sync_ref_model", (True,)),
    ("precompute_ref_batch_size", "precompute_ref_log_probs", (True,)),
    ("packing_strategy", "packing eval_packing", (True,)),
    ("hub_*", "push_to_hub", (True,)),
    ("transformers_continuous_batching_config", "use_transformers_continuous_batching", (True,)),
    ("eval_steps", "eval_strategy", ("steps",)),
)  # fmt: skip
# the keys, the key that decides, the values with which they do nothing
IDLE: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
    ("do_eval eval_delay eval_on_start eval_packing num_generations_eval", "eval_strategy", ("no",)),
    ("metric_for_best_model greater_is_better", "eval_strategy", ("no",)),
    ("use_bias_correction_kl sync_ref_model", "beta", (0,)),
    ("warmup_steps", "lr_scheduler_type", ("constant", "reduce_lr_on_plateau")),
    ("adam_*", "optim", ("adafactor", "sgd", "adagrad", "rmsprop")),
    ("activation_offloading", "use_cpu", (True,)),
    ("fsdp_config", "fsdp", (None, "", False)),
    ("dataloader_persistent_workers dataloader_prefetch_factor", "dataloader_num_workers", (0,)),
    ("temperature top_p top_k min_p", "num_generations", (0,)),
    ("vllm_*", "engine", ("transformers", "server")),
    ("attn_implementation max_seq_length bnb_4bit_* use_bnb_nested_quant", "engine", ("vllm", "server")),
    ("load_in_8bit model_init_kwargs", "engine", ("vllm", "server")),
    ("load_in_4bit model_revision dtype trust_remote_code", "engine", ("server",)),
    ("max_prompt_length chat_template_path", "engine", ("server",)),  # which keeps the tokenizer to itself
)


def key_without_effect(recipe: Recipe) -> Iterator[Problem]:
    """A key that does nothing with what another key says.

    A key that is null, false or 0 asks for nothing, and what the command line switches off (`--use_peft false`) leaves its keys
    in the file without a fault.
    """
    told = set()
    for names, deciding, values, works in [*((*rule, True) for rule in NEEDS), *((*rule, False) for rule in IDLE)]:
        found = {key: recipe.get(key) for key in deciding.split() if key in recipe.keys}
        if found.get("engine") == "ray":  # which runs another one
            found["engine"] = (recipe.get("engine_kwargs") or {}).get("engine", "vllm")
        if recipe.values.get("strategies"):  # which sample by themselves
            found.pop("num_generations", None)
        parts = [one for value in found.values() for one in (value if isinstance(value, list) else [value])]
        if names == "eval_steps" and recipe.values.get("eval_problems") is not None:  # which read it, too
            continue
        if not found or any(one in values for one in parts) is works or recipe.refused(*found):
            continue
        overridden = any(recipe.lines.get((key,)) == 0 for key in found)
        decider, now = next(iter(found.items()))
        hint = f"write {decider}: {' or '.join(map(written, values))}" if works else f"write another {decider}"
        for key in [key for key in recipe.values if any(fnmatch(key, name) for name in names.split())]:
            if not recipe.values[key] or key in told or (overridden and recipe.lines.get((key,)) != 0):
                continue
            told.add(key)
            if key == "max_seq_length":
                hint = f"write {'max_length' if recipe.stage in FROM_DATA else 'max_completion_length'}"
            beside = f"found {written(recipe.values[key])} with {decider}: {written(now)}"
            yield recipe.problem(key, f"{beside}, where it does nothing", hint=f"leave it out, or {hint}")


def written(value: Any) -> str:
    """Write a value as a recipe does, of a long one the beginning."""
    text = " ".join(str(value).split())[:100]
    return text.lower() if isinstance(value, bool) or value is None else text
