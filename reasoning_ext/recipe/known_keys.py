"""Which keys a stage knows: those of TRL's classes, ours, and what is said of a key that is none of them."""

import difflib

from reasoning_ext.recipe import keys, trl_fields
from reasoning_ext.recipe.keys import RENAMED, STAGES
from reasoning_ext.recipe.trl_fields import GRPO_CONFIG, Key, class_keys, dataclass_keys

OURS = dict(
    zip(STAGES, (keys.Supervised, keys.Rollouts, keys.Preferences, keys.Sampling, keys.Evaluation), strict=True)
)
TRLS = {"sft": trl_fields.SFT_CONFIG, "grpo": GRPO_CONFIG, "dpo": trl_fields.DPO_CONFIG}
# keys of GRPO that a stage which only generates has too, and keys of all stages that it has not
GENERATION_KEYS = (
    "output_dir", "seed", "use_cpu", "trust_remote_code", "per_device_eval_batch_size", "num_generations",
    "max_completion_length", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs",
    "model_init_kwargs", "vllm_gpu_memory_utilization", "vllm_max_model_length", "vllm_tensor_parallel_size", "vllm_model_impl",
    "report_to", "run_name", "project",
)  # fmt: skip
TRAINING_ONLY = {
    "sample": ("use_peft", "use_dora", "use_rslora", "dataset_test_split"),
    "eval": ("use_peft", "use_dora", "use_rslora", "dataset_train_split", "decontaminate"),
}
MANAGED = {
    "resume_from_checkpoint": "`run` finds the last complete checkpoint in output_dir by itself",
    "hub_token": "a token is read from the environment variable HF_TOKEN alone",
    "local_rank": "`accelerate launch` sets it",
    "ignore_bias_buffers": "nothing here reads it",
    "include_for_metrics": "nothing here reads it",
    "assistant_only_loss": "the completion alone is trained on; see train_on and assistant_turns",
    "completion_only_loss": "the completion alone is trained on; see train_on",
    "dataset_text_field": "rows have prompt and completion; see rename_columns",
    "truncation_mode": "no row is ever cut; see max_length and overlong_rows",
}


def stage_keys(stage: str) -> dict[str, Key]:
    """Return every key a stage knows: TRL's config of that stage, ModelConfig, ScriptArguments and ours."""
    common = class_keys(*trl_fields.SCRIPT_ARGUMENTS, *trl_fields.MODEL_CONFIG) | dataclass_keys(keys.Shared)
    if stage in TRLS:
        return common | class_keys(*TRLS[stage]) | dataclass_keys(keys.Shared) | dataclass_keys(OURS[stage])
    common = {k: key for k, key in common.items() if k not in TRAINING_ONLY[stage] and not k.startswith("lora_")}
    grpo = class_keys(*GRPO_CONFIG)
    return common | {name: grpo[name] for name in GENERATION_KEYS if name in grpo} | dataclass_keys(OURS[stage])


def nearest(key: str, known: list[str], stage: str) -> str:
    """Say which key may have been meant, or which stage has it."""
    if others := [other for other in STAGES if key in stage_keys(other)]:
        return f"stage {', '.join(others)} has this key, stage {stage} has not"
    if key not in RENAMED:
        return f"the nearest key of stage {stage} is {difflib.get_close_matches(key, known, 1, cutoff=0.0)[0]}"
    name = RENAMED[key]
    having = ", ".join(other for other in STAGES if name in stage_keys(other))
    return f"its name here is {name}" + ("" if name in known else f", which stage {having} has, stage {stage} has not")
