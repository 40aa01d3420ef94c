"""TRL's trainer for a memory trace: the recipe's loss step over a model from a config, and nothing around it.

The trainer, its config, PEFT and the optimizer are the real ones. What it trains on is rows of one token, all of full
length, in DPO on both sides; GRPO's completions come from nowhere. Under a FakeTensorMode no tensor has data; without one it
really trains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reasoning_ext.errors import KeyProblem

SHAPING = (  # what shapes the loss step; everything else is about data, saving, logging and generation
    "gradient_checkpointing", "gradient_checkpointing_kwargs", "optim", "optim_args", "max_grad_norm", "loss_type",
    "beta", "epsilon", "epsilon_high", "delta", "importance_sampling_level", "top_entropy_quantile", "scale_rewards",
    "mask_truncated_completions", "cast_lm_head_to_fp32", "temperature", "entropy_coef", "off_policy_mask_threshold",
    "use_bias_correction_kl", "label_smoothing_factor", "disable_dropout", "router_aux_loss_coef", "adam_beta1",
    "activation_checkpointing", "activation_checkpointing_kwargs", "sync_ref_model", "learning_rate", "torch_empty_cache_steps",
    "ld_alpha", "use_weighting",
)  # fmt: skip


class MemoryTraceError(KeyProblem):
    """A recipe's training step cannot be traced; `key` is the recipe's key that is to blame."""


@dataclass(frozen=True)
class Workload:
    """What one device trains on at once.

    Attributes:
        rows: sequences of a micro-batch, two of each pair.
        prompt_tokens: of each row, not scored.
        completion_tokens: of each row, scored.
        padded: rows differ in length, so that attention gets a mask; the lengths above are then those of the longest.
    """

    rows: int
    prompt_tokens: int
    completion_tokens: int
    padded: bool = False


def build_trainer(
    stage: str, model_config: dict[str, Any], load: dict[str, Any], training: dict[str, Any], workload: Workload,
    folder: str, steps: int = 1, accumulation: int = 1,
) -> Any:  # fmt: skip
    """Build TRL's trainer over a new model; under a FakeTensorMode without data, else with random weights.

    Args:
        stage, model_config, load, training, workload: as in `trace_training`.
        folder: an output_dir that nothing is written to.
        steps: how many optimizer steps `train()` is to take.
        accumulation: micro-batches of a step.

    Raises:
        MemoryTraceError: as in `trace_training`.
    """
    from torch.utils.data import SequentialSampler
    from trl import DPOTrainer, GRPOTrainer, SFTTrainer, get_peft_config
    from trl.trainer import dpo_trainer, grpo_trainer

    from memory_trace.gpu_stand_ins import replaced
    from reasoning_ext.models.source import model_config as build_config

    model = _build_model(model_config, load)
    data = _dataset(stage, workload, steps * accumulation)
    try:
        arguments: dict[str, Any] = {
            "model": model, "args": _arguments(stage, training, workload, folder, steps, accumulation), "train_dataset": data,
            "processing_class": _tokenizer(), "peft_config": get_peft_config(build_config(load)),
        }  # fmt: skip
        if stage == "sft":
            trainer: Any = SFTTrainer(**arguments)
        elif stage == "dpo":
            with (
                replaced(dpo_trainer, "create_model_from_path", lambda *a, **k: _build_model(model_config, load)),
                replaced(DPOTrainer, "_prepare_dataset", lambda self, dataset, *a, **k: dataset),
            ):
                trainer = DPOTrainer(**arguments)
        else:
            with replaced(grpo_trainer, "create_model_from_path", lambda *a, **k: _build_model(model_config, load)):
                trainer = GRPOTrainer(reward_funcs=_no_reward, **arguments)
            _skip_generation(trainer, workload)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise MemoryTraceError("stage", f"TRL cannot build the trainer: {' '.join(str(error).split())}") from error
    trainer._get_train_sampler = lambda *args, **kwargs: SequentialSampler(data)
    return trainer


def _build_model(model_config: dict[str, Any], load: dict[str, Any]) -> Any:
    """Build the model as `from_pretrained` would load it: in the recipe's dtype, its linear layers quantised."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl import ModelConfig, get_quantization_config

    attention = load.get("attn_implementation")
    kept = {key: value for key, value in model_config.items() if key not in ("quantization_config", "model_type")}
    try:
        config = AutoConfig.for_model(model_config["model_type"], **kept)
        named = load.get("dtype") or ModelConfig.dtype
        dtype = (config.dtype or torch.float32) if named == "auto" else getattr(torch, named)
        model = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation="eager" if attention == "eager" else "sdpa"
        )
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError, ImportError) as error:
        problem = f"no model can be built from its config: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise MemoryTraceError("model_name_or_path", problem) from error
    model.config._name_or_path = "traced"
    quantisation = get_quantization_config(ModelConfig(**load))
    return model if quantisation is None else _quantised(model, quantisation, dtype)


def _quantised(model: Any, quantisation: Any, dtype: Any) -> Any:
    """Put packed layers where transformers' quantiser would, and mark the model as it does."""
    import torch
    from transformers.quantizers.auto import AutoHfQuantizer
    from transformers.quantizers.base import get_keys_to_not_convert

    from memory_trace.gpu_stand_ins import Packed4bit, Packed8bit

    left = get_keys_to_not_convert(model)
    for name, module in list(model.named_modules()):
        if type(module) is torch.nn.Linear and not any(name == key or name.startswith(key + ".") for key in left):
            parent, _, last = name.rpartition(".")
            packed = Packed8bit(module) if quantisation.load_in_8bit else Packed4bit(
                module, dtype, quantisation.bnb_4bit_use_double_quant
            )  # fmt: skip
            setattr(model.get_submodule(parent), last, packed)
    model.requires_grad_(False)
    model.is_quantized, model.is_loaded_in_4bit = True, quantisation.load_in_4bit
    model.is_loaded_in_8bit = quantisation.load_in_8bit
    model.hf_quantizer = AutoHfQuantizer.from_config(quantisation, pre_quantized=False)
    model.quantization_method = quantisation.quant_method
    return model


def _arguments(
    stage: str, training: dict[str, Any], workload: Workload, folder: str, steps: int, accumulation: int
) -> Any:
    """Build TRL's config from what shapes the loss step, on the CPU device and without anything written."""
    from trl import DPOConfig, GRPOConfig, SFTConfig

    values = {key: value for key, value in training.items() if key in SHAPING}
    values |= {
        "output_dir": folder, "use_cpu": True, "bf16": bool(training.get("bf16", True) or training.get("fp16")),
        "report_to": "none", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True,
        "dataloader_pin_memory": False, "max_steps": steps, "per_device_train_batch_size": workload.rows,
        "gradient_accumulation_steps": accumulation,
    }  # fmt: skip
    if stage == "sft":
        return SFTConfig(**values | {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}})
    if stage == "dpo":
        return DPOConfig(**values | {"max_length": None, "per_device_train_batch_size": workload.rows // 2})
    values["num_generations"] = max(2, workload.rows)
    # a group has two rows at least, which TRL generates at once and trains on one after the other
    if workload.rows == 1:
        values |= {"steps_per_generation": 2, "gradient_accumulation_steps": 1 if _scores_before(training) else 2}
    elif _scores_before(training):
        values["num_iterations"] = 2
    return GRPOConfig(**values | {"max_completion_length": workload.completion_tokens})


def _scores_before(training: dict[str, Any]) -> bool:
    """Tell whether TRL computes the old policy's log-probabilities, as its GRPOTrainer decides it."""
    accumulation = training.get("gradient_accumulation_steps") or 1
    rows = training.get("per_device_train_batch_size") or 8
    steps = (
        training.get("steps_per_generation") or (training.get("generation_batch_size") or rows * accumulation) // rows
    )
    misaligned = accumulation % max(1, steps * (training.get("num_iterations") or 1)) != 0
    return misaligned or bool(training.get("use_vllm") and training.get("vllm_importance_sampling_correction", True))


def _dataset(stage: str, workload: Workload, batches: int) -> Any:
    from datasets import Dataset

    rows = 4 * max(2, workload.rows) * batches  # more than any trainer draws
    if stage == "grpo":
        return Dataset.from_dict({"prompt": ["a"] * rows})
    if stage == "dpo":
        sides = {name: [[1] * workload.completion_tokens] * rows for name in ("chosen_ids", "rejected_ids")}
        return Dataset.from_dict({"prompt_ids": [[1] * workload.prompt_tokens] * rows, **sides})
    labels = [-100] * workload.prompt_tokens + [1] * workload.completion_tokens
    return Dataset.from_dict({"input_ids": [[1] * len(labels)] * rows, "labels": [labels] * rows})


def _tokenizer() -> Any:
    """A tokenizer of three words, which the trainers want and nothing here needs."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "a": 1, "<end>": 2}, unk_token="a"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>", unk_token="a")


def _no_reward(completions: list, **kwargs: Any) -> list[float]:
    return [0.0] * len(completions)


def _skip_generation(trainer: Any, workload: Workload) -> None:
    import torch

    prompt, completion = [1] * workload.prompt_tokens, [1] * workload.completion_tokens
    trainer._tokenize_prompts = lambda prompts: ([prompt for _ in prompts], None, {})
    trainer._generate_single_turn = lambda prompt_ids, *args, **kwargs: ([completion for _ in prompt_ids], None)
    trainer._calculate_rewards = lambda inputs, prompts, *args: torch.zeros((len(prompts), 1))
