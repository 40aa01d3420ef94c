"""LoRA adapters in folders: what they are based on, put on a model without a tensor lost, merged onto their base.

A new adapter needs a base on the disk, or nobody can load it later. What a run makes for that lies in its own folder,
written whole or not at all, and is used again when the run goes on: `merged_base/`, the adapter's base in its own
dtype with the adapter merged in, made on the CPU and never of quantised weights; `random_base/`, the random weights
of `from_scratch`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reasoning_ext.errors import KeyProblem
from reasoning_ext.runs.files import check_space, read_object, whole_folder, write_whole
from reasoning_ext.runs.folder import fingerprint, say

ADAPTER = "adapter_config.json"
MERGED, RANDOM, MADE_FROM = "merged_base", "random_base", "made_from.json"
WHOLE = ".modules_to_save."
# recipe key -> key of adapter_config.json; they are the adapter's own and cannot be changed when it is trained further
LORA_KEYS = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_target_modules": "target_modules",
    "lora_target_parameters": "target_parameters",
    "lora_modules_to_save": "modules_to_save",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
}


def is_adapter(name: str) -> bool:
    """Tell whether a name is a local folder with a LoRA adapter."""
    return (Path(name) / ADAPTER).is_file()


def base_of(adapter: str) -> str:
    """Return the model that an adapter names as its base, or raise KeyProblem where it names none."""
    base = read_object(Path(adapter) / ADAPTER).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        problem = f"found {adapter}, an adapter whose {ADAPTER} names no base_model_name_or_path"
        raise KeyProblem("model_name_or_path", problem)
    return base


def adapter_base(adapter: str) -> str:
    """Return an adapter's base, or raise KeyProblem where that is an adapter itself, of which PEFT leaves one out."""
    if is_adapter(base := base_of(adapter)):
        problem = f"found {adapter}: its base {base} is an adapter itself; name the folder of `reasoning-ext export`"
        raise KeyProblem("model_name_or_path", problem)
    return base


def adapter_rank(adapter: str) -> int:
    """Return the largest rank of a saved adapter, for which vLLM must have room."""
    config = read_object(Path(adapter) / ADAPTER)
    return max(config["r"], *(config.get("rank_pattern") or {}).values(), 1)


def put_adapter(model: Any, folder: str, trainable: bool = False) -> Any:
    """Put a saved adapter on its base, whose embeddings get as many rows as in its training; not merged.

    Raises ValueError, RuntimeError, KeyError or IndexError where it does not fit.
    """
    from peft import PeftModel
    from peft.utils.save_and_load import load_peft_weights

    embeddings = (model.get_input_embeddings(), model.get_output_embeddings())
    ends = [name for name, module in model.named_modules() if module in embeddings]
    places = [f"{end}.{wrapped}weight" for end in ends for wrapped in ("", "token_adapter.base_layer.")]
    for name, tensor in load_peft_weights(folder, device="cpu").items():
        if name.endswith(tuple(places)) and tensor.shape[0] != model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(tensor.shape[0])  # a chat template brought new tokens along
    model = PeftModel.from_pretrained(model, folder, is_trainable=trainable)
    compare_adapter(model, folder)
    return model


def compare_adapter(model: Any, folder: str) -> None:
    """Raise ValueError where an adapter on a model and its file differ, of which PEFT only warns."""
    import torch
    from peft import get_peft_model_state_dict
    from peft.utils.save_and_load import load_peft_weights

    saved = load_peft_weights(folder, device="cpu")
    # where embeddings were resized, PEFT writes modules that were trained whole twice, and reads them once
    saved = {name: t for name, t in saved.items() if WHOLE not in name or name.replace(WHOLE, ".") not in saved}
    loaded = get_peft_model_state_dict(model, save_embedding_layers=False)
    there = dict(model.named_parameters(remove_duplicate=False)) | loaded
    for what, names in (
        ("no place in its base", saved.keys() - there.keys()),
        ("no weights", loaded.keys() - saved.keys()),
    ):
        if names:
            raise ValueError(f"found {what} for {min(names)} ({len(names)} tensors in all)")
    for name, tensor in saved.items():
        if not torch.equal(there[name].float().cpu(), tensor.to(there[name].dtype).float()):
            raise ValueError(f"loaded wrongly: {name} differs from the file")


def compute_as_saved(model: Any, adapter: str) -> None:
    """Let an adapter compute in the dtype it was saved in; PEFT loads it in float32, which gives other logits."""
    from peft.utils.save_and_load import load_peft_weights

    dtype = next(iter(load_peft_weights(adapter, device="cpu").values())).dtype
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(dtype)


def merged_base(adapter: str, folder: Path, revision: str | None, trust_remote_code: bool) -> str:
    """Merge an adapter into its base and return where the weights lie in the run's `folder`; `revision` is of the base.

    Raises KeyProblem where the base is stored in 4 or 8 bits, and DiskError, OSError or ValueError.
    """

    def make() -> tuple[Any, Any]:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        base = adapter_base(adapter)
        arguments = {"revision": None if Path(base).exists() else revision, "trust_remote_code": trust_remote_code}
        if getattr(AutoConfig.from_pretrained(base, **arguments), "quantization_config", None):
            found = (
                f"found the adapter {adapter} on {base}, whose weights are quantised, and nothing is merged into those"
            )
            raise KeyProblem("model_name_or_path", f"{found}; train it further, or train one on weights in 16 bits")
        model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", device_map={"": "cpu"}, **arguments)
        say(f"model  {adapter} is merged onto {base} in {str(model.dtype)[6:]}, into {folder / MERGED}")
        merged = put_adapter(model, adapter).merge_and_unload(safe_merge=True)
        return merged, AutoTokenizer.from_pretrained(adapter, trust_remote_code=trust_remote_code)

    return made_once(folder / MERGED, {"adapter": adapter, "fingerprint": fingerprint(adapter)}, make)


def made_once(place: Path, made_from: dict[str, Any], make: Callable[[], tuple[Any, Any]]) -> str:
    """Save the model and tokenizer that `make` returns, in one process, unless those there are `made_from` the same.

    Returns `place`, their folder; raises DiskError where there is no room.
    """
    from accelerate import PartialState

    with PartialState().main_process_first():
        if read_object(place / MADE_FROM) == made_from:
            return str(place)
        model, tokenizer = make()
        check_space(place.parent, sum(p.numel() * p.element_size() for p in model.parameters()))
        with whole_folder(place) as part:
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
            write_whole(part / MADE_FROM, json.dumps(made_from))
            if place.exists():  # of another adapter, left by a run that was refused
                shutil.rmtree(place)
    return str(place)
