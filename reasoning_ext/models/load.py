"""Backend `trl` or `unsloth` -> (model, tokenizer, PEFT config); what is Unsloth's own is in `unsloth.py`.

A name may be a hub id, a folder with weights, an earlier stage's run (a full model or a LoRA adapter), or, with
`from_scratch`, a folder with a config and a tokenizer, from which random weights are built.

    what the folder holds   use_peft: true                          use_peft: false
    weights                 a new adapter is put on                 all weights are trained
    a LoRA adapter          the adapter is trained further, or      it is merged, then all weights are trained
                            with merge_adapter: it is merged and
                            a new adapter is put on
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reasoning_ext.errors import KeyProblem, UserError, one_line
from reasoning_ext.models import adapter as adapters
from reasoning_ext.models.loaded import Loaded, LoadOptions, ModelError, base_revision, random_model
from reasoning_ext.models.unsloth import load_unsloth
from reasoning_ext.models.weights import check_weights, generation_problem, misfit, vocabulary_problem
from reasoning_ext.runs.folder import fingerprint, say
from reasoning_ext.think.messages import TOOLS
from reasoning_ext.think.template import find_contract
from reasoning_ext.think.tokenizer import TEMPLATE_SUFFIXES, prepare_tokenizer, read_tokenizer
from reasoning_ext.think.tool_turns import add_tool_turns

if TYPE_CHECKING:
    from trl import ModelConfig


def load_model(name: str, config: ModelConfig, options: LoadOptions) -> Loaded:
    """Load a model and its tokenizer, or raise ModelError; what is not in `config` (dtype, bits, LoRA) is in `options`."""
    from transformers import set_seed

    try:
        check_weights(name, options.trust_remote_code, options.init_kwargs, options.from_scratch)
        set_seed(options.seed)
        name, options = _with_base(name, config, options)
        set_seed(options.seed)
        loaded = (load_unsloth if options.backend == "unsloth" else _load_trl)(name, config, options)
    except KeyProblem as error:  # of the key is said already
        raise ModelError(error.key, str(error)) from error
    except UserError:
        raise
    except Exception as error:  # whatever transformers, PEFT or Unsloth make of it
        raise ModelError("model_name_or_path", f"cannot load {name}: {one_line(error)}") from error
    _adopt_template(loaded, options)
    saved = options.trainable and not config.use_peft
    problem = vocabulary_problem(name, loaded.tokenizer, loaded.model.config)
    if problem := problem or generation_problem(name, loaded.model.generation_config, saved):
        raise ModelError("model_name_or_path", problem)
    if TOOLS in (options.chat_template_kwargs or {}):
        add_tool_turns(loaded.tokenizer)
    loaded.contract = find_contract(loaded.tokenizer, options.chat_template_kwargs, options.think_tags)
    _stop_at(loaded.model, loaded.contract.end_id)
    if loaded.contract.calls is not None:
        _stop_at(loaded.model, loaded.contract.calls.end_id)
    return loaded


def _with_base(name: str, config: ModelConfig, options: LoadOptions) -> tuple[str, LoadOptions]:
    """Make the base on the disk that a new adapter needs, and Unsloth to train all weights, and name it instead."""
    folder, adapter = options.run_folder, adapters.is_adapter(name)
    if folder is None or not options.trainable:
        return name, options
    if options.merge_adapter and not adapter:
        raise ModelError("merge_adapter", f"found true, but {name} is no adapter; leave it out")
    if adapter and (options.merge_adapter or (options.backend == "unsloth" and not config.use_peft)):
        return adapters.merged_base(name, folder, config.model_revision, options.trust_remote_code), options
    if options.from_scratch and config.use_peft:
        made_from = {"config": name, "fingerprint": fingerprint(name), "seed": options.seed, "dtype": config.dtype}
        place = adapters.made_once(folder / adapters.RANDOM, made_from, lambda: random_model(name, config, options))
        return place, replace(options, from_scratch=False)
    return name, options


def _adopt_template(loaded: Loaded, options: LoadOptions) -> None:
    """Set the recipe's chat template; another model's brings its tokens along, for which TRL resizes the embeddings.

    PEFT then trains their rows and the whole head, as TRL's SFTTrainer sets it. With tied embeddings TRL's loss fails
    on these settings (its fused head asks PEFT's wrapper for a bias): they are trained whole, and stay tied.
    """
    path, peft = options.chat_template_path, loaded.peft_config
    if not path or path.endswith(TEMPLATE_SUFFIXES) or not options.trainable:
        prepare_tokenizer(loaded.tokenizer, path)
        return
    from trl import clone_chat_template

    loaded.model, loaded.tokenizer, added = clone_chat_template(loaded.model, loaded.tokenizer, path)
    if added and peft is not None:
        whole = {*(peft.modules_to_save or [])} - {"lm_head"}
        if loaded.model.get_input_embeddings().weight is loaded.model.get_output_embeddings().weight:
            peft.modules_to_save, peft.ensure_weight_tying = sorted(whole | {"embed_tokens"}), True
        else:
            peft.modules_to_save, peft.trainable_token_indices = sorted(whole | {"lm_head"}), {"embed_tokens": added}
    elif added and hasattr(loaded.model, "peft_config"):  # the adapter is on already, without the new tokens
        problem = f"found {path}, whose template brings {len(added)} new tokens, which this adapter would not train"
        raise ModelError("chat_template_path", f"{problem}; write backend: trl and a model without an adapter")
    prepare_tokenizer(loaded.tokenizer)


def _stop_at(model: Any, end_id: int | None) -> None:
    """Let what ends a turn end generation too, wherever the saved model is used (unsloth#416, trl#3299)."""
    declared = model.generation_config.eos_token_id
    known = [] if declared is None else declared if isinstance(declared, list) else [declared]
    if end_id is not None and end_id not in known:
        model.generation_config.eos_token_id = [*known, end_id]


def prepare_backend(backend: str, standby: bool = False) -> None:
    """Import Unsloth, if that is the backend, before TRL, transformers and PEFT, as it asks to be, or raise ModelError.

    It takes its CPU backend where there is no GPU; with `standby` vLLM inside the model gives its memory back in
    training.
    """
    if backend != "unsloth":
        return
    import torch

    if not torch.cuda.is_available() and not torch.xpu.is_available():
        os.environ.setdefault("UNSLOTH_FORCE_CPU", "1")
    if standby:
        os.environ.setdefault("UNSLOTH_VLLM_STANDBY", "1")
        os.environ.setdefault("UNSLOTH_VLLM_STANDBY_UTIL_OVERRIDE", "1")  # the recipe's share counts, not Unsloth's
    try:
        import unsloth  # noqa: F401
    except ImportError as error:
        problem = f"found unsloth, which cannot be imported here ({error}); pip install 'reasoning-ext[unsloth]'"
        raise ModelError("backend", f"{problem} or write trl") from error


def _load_trl(name: str, config: ModelConfig, options: LoadOptions) -> Loaded:
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM
    from trl import get_peft_config, get_quantization_config

    peft_config = get_peft_config(config) if options.trainable else None
    if options.from_scratch:
        return Loaded(*random_model(name, config, options), peft_config)
    tokenizer = read_tokenizer(name, base_revision(name, config.model_revision), options.trust_remote_code)
    base, device = adapters.adapter_base(name) if adapters.is_adapter(name) else name, PartialState().device
    arguments = {
        "dtype": config.dtype,
        "attn_implementation": config.attn_implementation,
        "trust_remote_code": options.trust_remote_code,
        **options.init_kwargs,
        "revision": base_revision(base, config.model_revision),
        "output_loading_info": True,
    }
    quantization = get_quantization_config(config)
    if quantization is not None:
        arguments |= {"quantization_config": quantization, "device_map": {"": device}}
    model, report = AutoModelForCausalLM.from_pretrained(base, **arguments)
    if problem := misfit(base, model, report, options.init_kwargs):
        raise ModelError("model_name_or_path", problem)
    for module in model.modules():
        # In eval mode bitsandbytes packs 4-bit weights for AVX512 on the CPU. It never unpacks them for training,
        # whose gradients are wrong then, and fails on widths that its blocks do not divide. Unsloth's CPU backend
        # does this, too.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if device.type == "cpu" and (head := model.get_output_embeddings()) is not None:
        head.register_forward_pre_hook(_one_block)
    if adapters.is_adapter(name):
        model, peft_config = _put_on(model, name, config, options), None
    if not options.trainable:
        model = (model if quantization is not None else model.to(device)).eval()
    return Loaded(model, tokenizer, peft_config)


def _one_block(head: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Hand the hidden states (B, T, H) to the head in one block of memory.

    `logits_to_keep` cuts them out of longer ones, and by such a view torch multiplies a frozen head once a row, each time with
    a copy of it (`should_fold` in aten/native/LinearAlgebra.cpp): 57 MB a row with 49,152 tokens of 576.
    """
    return (inputs[0].contiguous(), *inputs[1:]) if inputs else inputs


def _put_on(model: Any, name: str, config: ModelConfig, options: LoadOptions) -> Any:
    """Put a saved adapter on its base: to train it further, to merge it and train all weights, or to generate."""
    model = adapters.put_adapter(model, name, trainable=options.trainable and config.use_peft)
    quantized = config.load_in_4bit or config.load_in_8bit or getattr(model.config, "quantization_config", None)
    if not options.trainable or quantized:  # the 16-bit ones are trained in float32, whatever they were saved in
        adapters.compute_as_saved(model, name)
    if not options.trainable or config.use_peft:
        return model
    if quantized:
        problem = f"found false with 4- or 8-bit weights and the adapter {name}; write use_peft: true"
        raise ModelError("use_peft", problem)
    say(f"model  {name} is merged onto its base, and all weights are trained")
    return model.merge_and_unload().requires_grad_(True)  # PEFT froze what it wrapped
