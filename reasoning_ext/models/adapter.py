"""From one stage's adapter to the next one's: trained further, or merged onto the weights it was trained on and a new one begun.

A new adapter needs a base on the disk, or nobody can load it later. What a run makes for that lies in its own folder, written
whole or not at all, and is used again when the run goes on:

    merged_base/   the adapter's base in its own dtype with the adapter merged in; made on the CPU, never in quantised weights
    random_base/   with `from_scratch`: the random weights
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext.errors import KeyProblem, Problem
from reasoning_ext.runs.files import check_space, read_object, whole_folder, write_whole
from reasoning_ext.runs.folder import fingerprint, say

if TYPE_CHECKING:
    from reasoning_ext.recipe.load import Recipe

ADAPTER = "adapter_config.json"
MERGED, RANDOM, MADE_FROM = "merged_base", "random_base", "made_from.json"
WHOLE = ".modules_to_save."
TEMPLATE_MULTIPLE = 64  # TRL's clone_chat_template rounds the embeddings' rows up to this
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


def unfit_adapter(recipe: Recipe) -> Iterator[Problem]:
    """What is said of a new adapter where one is continued, or of merging where there is none.

    Nothing is said of a model that an earlier recipe has yet to make; it is asked again before that model is loaded.
    """
    if "merge_adapter" not in recipe.keys or not recipe.values.get("model_name_or_path"):
        return
    written = recipe.values["model_name_or_path"]
    name, merge, use_peft = recipe.local(written), recipe.get("merge_adapter"), recipe.get("use_peft")
    if merge and not use_peft:
        found = "found true without use_peft: true, where an adapter is merged anyway"
        yield recipe.problem("merge_adapter", found, hint="leave it out")
    elif merge and not is_adapter(name) and (Path(name) / "config.json").is_file():
        yield recipe.problem("merge_adapter", f"found true, but {written} is no adapter", hint="leave it out")
    elif use_peft and not merge and is_adapter(name):
        adapter = read_object(Path(name) / ADAPTER)
        for key, own in LORA_KEYS.items() if adapter else ():
            wanted, has = recipe.values.get(key), adapter.get(own)
            if key in recipe.values and _comparable(wanted) and _plain(wanted) != _plain(has):
                found = f"found {wanted}, but the adapter {written} has {own} {has} and is trained further"
                yield recipe.problem(key, found, hint="leave it out, or write merge_adapter: true")


def _comparable(value: Any) -> bool:
    """`all-linear` stands for names that only the model knows."""
    return "all-linear" not in (value if isinstance(value, list) else [value])


def _plain(value: Any) -> Any:
    """Bring the spellings of one setting together: a list in any order, one name alone, nothing and false."""
    return sorted(value) if isinstance(value, list) and value else [value] if isinstance(value, str) else value or None


def base_of(adapter: str) -> str:
    """Return the model that an adapter names as its base.

    Raises:
        KeyProblem: it names none.
    """
    base = read_object(Path(adapter) / ADAPTER).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        problem = f"found {adapter}, an adapter whose {ADAPTER} names no base_model_name_or_path"
        raise KeyProblem("model_name_or_path", problem)
    return base


def adapter_base(adapter: str) -> str:
    """Return the name of the model with whole weights that an adapter was trained on.

    Raises:
        KeyProblem: it names none.
        ValueError: that is an adapter itself, of which PEFT would leave one out.
    """
    base = base_of(adapter)
    if is_adapter(base):
        raise ValueError(
            f"its base {base} is an adapter itself; name the folder of `reasoning-ext export` in its place"
        )
    return base


def adapter_rank(adapter: str) -> int:
    """Return the largest rank of a saved adapter, for which vLLM must have room."""
    config = json.loads((Path(adapter) / ADAPTER).read_text(encoding="utf-8"))
    return max(config["r"], *(config.get("rank_pattern") or {}).values(), 1)


def put_adapter(model: Any, folder: str, trainable: bool = False) -> Any:
    """Put a saved adapter on a model, whose embeddings get the rows that the adapter was trained with.

    What PEFT would only warn of is an error: tensors that find no place in the model, and places that get no tensor.

    Args:
        model: the adapter's base.
        folder: the adapter's.
        trainable: it is to be trained further.

    Returns:
        a PeftModel, not merged.

    Raises:
        ValueError, RuntimeError, KeyError, IndexError: the adapter does not fit the model.
    """
    from peft import PeftModel
    from peft.utils.save_and_load import load_peft_weights

    saved = load_peft_weights(folder, device="cpu")
    _resize(model, folder, saved)
    model = PeftModel.from_pretrained(model, folder, is_trainable=trainable)
    compare_adapter(model, folder)
    return model


def compare_adapter(model: Any, folder: str) -> None:
    """Compare an adapter that was put on a model with its file.

    Raises:
        ValueError: a tensor of either has no counterpart, or another value.
    """
    import torch
    from peft import get_peft_model_state_dict
    from peft.utils.save_and_load import load_peft_weights

    saved = load_peft_weights(folder, device="cpu")
    # where embeddings were resized, PEFT writes modules that were trained whole twice, and reads them once
    saved = {name: t for name, t in saved.items() if WHOLE not in name or name.replace(WHOLE, ".") not in saved}
    loaded = get_peft_model_state_dict(model, save_embedding_layers=False)
    places = dict(model.named_parameters(remove_duplicate=False))
    lost = [name for name in saved if name not in loaded and name not in places]
    empty = [name for name in loaded if name not in saved]
    for what, names in (("no place in its base for", lost), ("no weights for", empty)):
        if names:
            raise ValueError(f"found {what} {names[0]} ({len(names)} tensors in all)")
    for name, tensor in saved.items():
        there = loaded[name] if name in loaded else places[name]
        if not torch.equal(there.float().cpu(), tensor.to(there.dtype).float()):
            raise ValueError(f"loaded wrongly: {name} differs from the file")


def _resize(model: Any, folder: str, saved: dict[str, Any]) -> None:
    """Give the embeddings as many rows as in the training, where a chat template brought new tokens along."""
    from peft import PeftConfig

    embeddings = (model.get_input_embeddings(), model.get_output_embeddings())
    ends = [name for name, module in model.named_modules() if module in embeddings]
    places = [f"{end}.{wrapped}weight" for end in ends for wrapped in ("", "token_adapter.base_layer.")]
    rows = [t.shape[0] for name, t in saved.items() if name.endswith(tuple(places))]
    now = model.get_input_embeddings().weight.shape[0]
    if rows:
        wanted = rows[0]
    else:
        indices = getattr(PeftConfig.from_pretrained(folder), "trainable_token_indices", None) or []
        lists = indices.values() if isinstance(indices, dict) else [indices]
        needed = max((i + 1 for each in lists for i in each), default=0)
        wanted = -(-needed // TEMPLATE_MULTIPLE) * TEMPLATE_MULTIPLE if needed > now else now
    if wanted != now:
        model.resize_token_embeddings(wanted)


def compute_as_saved(model: Any, adapter: str) -> None:
    """Let an adapter compute in the dtype it was trained and saved in; PEFT loads it in float32, which gives other logits.

    Args:
        model: a PeftModel with that adapter, changed in place.
        adapter: the adapter's folder.
    """
    from safetensors import safe_open

    file = Path(adapter) / "adapter_model.safetensors"
    if not file.is_file():
        return
    with safe_open(file, "pt") as saved:
        dtype = saved.get_tensor(next(iter(saved.keys()))).dtype
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(dtype)


def merged_base(adapter: str, folder: Path, revision: str | None, trust_remote_code: bool) -> str:
    """Merge an adapter into its base, on the CPU in the base's own dtype, and return the folder with the weights.

    Args:
        adapter: the adapter's folder.
        folder: the run's folder.
        revision: of the base, if it is a hub name.
        trust_remote_code: as in transformers.

    Raises:
        DiskError: the disk has no room for them.
        KeyProblem: the base is stored in 4 or 8 bits.
        OSError, ValueError: the base or the adapter cannot be loaded.
    """

    def make() -> tuple[Any, Any]:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        base = adapter_base(adapter)
        arguments = {"revision": None if Path(base).exists() else revision, "trust_remote_code": trust_remote_code}
        if getattr(AutoConfig.from_pretrained(base, **arguments), "quantization_config", None):
            problem = (
                f"found the adapter {adapter} on {base}, whose weights are quantised, and nothing is merged into those"
            )
            raise KeyProblem("model_name_or_path", f"{problem}; train it further, or train one on weights in 16 bits")
        model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", device_map={"": "cpu"}, **arguments)
        say(f"model  {adapter} is merged onto {base} in {str(model.dtype)[6:]}, into {folder / MERGED}")
        check_space(folder, sum(p.numel() * p.element_size() for p in model.parameters()))
        merged = put_adapter(model, adapter).merge_and_unload(safe_merge=True)
        return merged, AutoTokenizer.from_pretrained(adapter, trust_remote_code=trust_remote_code)

    return _made_once(folder / MERGED, {"adapter": adapter, "fingerprint": fingerprint(adapter)}, make)


def random_base(name: str, folder: Path, seed: int, dtype: str | None, make: Callable[[], tuple[Any, Any]]) -> str:
    """Save random weights that an adapter is to be put on, and return their folder.

    Args:
        name: the folder with the config.
        folder: the run's folder.
        seed, dtype: of the weights.
        make: returns the model and its tokenizer.

    Raises:
        DiskError: the disk has no room for them.
    """

    def checked() -> tuple[Any, Any]:
        model, tokenizer = make()
        check_space(folder, sum(p.numel() * p.element_size() for p in model.parameters()))
        return model, tokenizer

    return _made_once(
        folder / RANDOM, {"config": name, "fingerprint": fingerprint(name), "seed": seed, "dtype": dtype}, checked
    )


def _made_once(place: Path, made_from: dict[str, Any], make: Callable[[], tuple[Any, Any]]) -> str:
    """Save what `make` returns, in the first process alone, unless it lies there already and was made from the same."""
    from accelerate import PartialState

    with PartialState().main_process_first():
        note = place / MADE_FROM
        if read_object(note) == made_from:
            return str(place)
        model, tokenizer = make()
        with whole_folder(place) as part:
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
            write_whole(part / MADE_FROM, json.dumps(made_from))
            if place.exists():  # of another adapter, left by a run that was refused
                shutil.rmtree(place)
    return str(place)
