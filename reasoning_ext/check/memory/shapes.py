"""The sizes of a decoder: those of transformers' own model, built from a config.json on the meta device.

A config comes from a local folder, from the hub's cache on this machine, from `model_configs.json` (those of common
models, so that a plan needs no network), or from the hub, in this order. Instruction-tuned and quantised copies have
the shape of their base, and are found by the last part of their name.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from reasoning_ext.errors import KeyProblem, one_line

# The architectures that `activations` has formulas for.
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma3_text", "gemma3")
MOST_LAYERS = 1000
NOT_SIZES = ("model_type", "quantization_config", "auto_map")
_COPY = re.compile(r"^meta-|(-unsloth)?-bnb-4bit|-(instruct|it|pt|base|chat|zero|preference)(?=-|$)|-\d{4}$")


class ShapeError(KeyProblem):
    """A model's config cannot be had, or has no formula."""

    code = "unknown_shape"


@dataclass(frozen=True)
class Linear:
    """One kind of linear module: the full name of the first one, inputs, outputs, and how many the model has."""

    path: str
    inputs: int
    outputs: int
    count: int

    @property
    def name(self) -> str:
        """Its name in the layer."""
        return self.path.rpartition(".")[2]

    @property
    def weights(self) -> int:
        """The elements of one module's weight."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder, of its text part where it has another."""

    model_type: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool  # the head is the embedding matrix
    linears: tuple[Linear, ...]  # beside the head, those of a vision tower too
    parameters: int  # all of them
    windows: tuple[int | None, ...]  # the sliding window of each layer, None where it attends to everything
    context: int  # the longest sequence that the model was made for
    dtype: str  # that its weights are published in

    @property
    def linear_weights(self) -> int:
        """The elements of all linear weights beside the head's."""
        return sum(linear.weights * linear.count for linear in self.linears)

    @property
    def embeddings(self) -> int:
        """The elements of the embeddings and of the head, once where they are the same."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def other(self) -> int:
        """The elements of norms, biases and all that is no linear weight and no embedding."""
        return self.parameters - self.linear_weights - self.embeddings


def config_of(name: str, revision: str | None = None, offline: bool = True) -> dict[str, Any]:
    """Return what a model's config.json holds: of a local folder, or of a hub name at a revision.

    Raises:
        ShapeError: there is no config to be had, or none without asking the hub where `offline` is set.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    found: Any = Path(name) / "config.json"
    try:
        if not Path(name).is_dir():
            found = try_to_load_from_cache(name, "config.json", revision=revision)
            if not isinstance(found, str) and (known := built_in().get(_key(name))):
                return dict(known)
            if not isinstance(found, str) and not offline:
                found = hf_hub_download(name, "config.json", revision=revision)
        if isinstance(found, str | Path):
            return json.loads(Path(found).read_bytes())
    except Exception as error:  # the hub's own errors have no common class below OSError and ValueError
        raise ShapeError("model_name_or_path", f"the config of {name} cannot be read: {one_line(error)}") from error
    raise ShapeError("model_name_or_path", f"the config of {name} is neither on this machine nor built in")


@cache
def built_in() -> dict[str, dict[str, Any]]:
    """Return the public configs that come with this package, by the last part of their names, in small letters."""
    text = (Path(__file__).parent / "model_configs.json").read_text(encoding="utf-8")
    return {_key(name): config for name, config in json.loads(text).items()}


def _key(name: str) -> str:
    """`unsloth/Qwen3-8B-Base-unsloth-bnb-4bit` -> `qwen3-8b`, `google/gemma-3-4b-it` -> `gemma-3-4b`."""
    return _COPY.sub("", name.rsplit("/", 1)[-1].lower())


def shape_of(config: dict[str, Any]) -> Shape:
    """Return the sizes of the decoder that a config.json describes.

    Raises:
        ShapeError: the architecture has no formula, or no model can be built from the config.
    """
    kind = config.get("model_type", "none") if isinstance(config, dict) else "none"
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ShapeError("model_name_or_path", f"found the architecture {kind}, formulas are known for {known}")
    return _built(kind, json.dumps(config))


@cache
def _built(kind: str, text: str) -> Shape:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    given = {key: value for key, value in json.loads(text).items() if key not in NOT_SIZES}
    try:
        parts = [given, *(part for part in given.values() if isinstance(part, dict))]
        if any(part.get("num_hidden_layers", 0) > MOST_LAYERS for part in parts):  # which would be built one by one
            raise ValueError(f"more than {MOST_LAYERS} layers")
        config = AutoConfig.for_model(kind, **given)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        return _measured(kind, model, config.get_text_config())
    except Exception as error:  # whatever transformers makes of sizes that do not go together
        reason = one_line(error)
        raise ShapeError("model_name_or_path", f"no model can be built from its config ({reason})") from error


def _measured(kind: str, model: Any, config: Any) -> Shape:
    import torch

    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    paths: dict[tuple[str, int, int], list[str]] = {}
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            paths.setdefault((path.rpartition(".")[2], module.in_features, module.out_features), []).append(path)
    windowed = [layer == "sliding_attention" for layer in getattr(config, "layer_types", None) or ()]
    if not windowed:  # Mistral and Phi-3 have one for all layers, Qwen's are switched off
        windowed = [kind in ("mistral", "phi3")] * config.num_hidden_layers
    heads, (vocab, hidden) = config.num_attention_heads, embeddings.weight.shape
    return Shape(
        model_type=kind,
        hidden=hidden,
        layers=config.num_hidden_layers,
        heads=heads,
        kv_heads=config.num_key_value_heads or heads,
        head_dim=getattr(config, "head_dim", None) or hidden // heads,
        intermediate=config.intermediate_size,
        vocab=vocab,
        tied=head.weight is embeddings.weight,
        linears=tuple(Linear(found[0], ins, outs, len(found)) for (_, ins, outs), found in paths.items()),
        parameters=sum(p.numel() for p in model.parameters()),
        windows=tuple(config.sliding_window if own else None for own in windowed),
        context=config.max_position_embeddings,
        dtype=str(config.dtype or torch.bfloat16).removeprefix("torch."),
    )
