"""The sizes of a decoder, read off what a hub's config.json holds; torch is not imported.

A config comes from a local folder, from the hub's cache on this machine, from `model_configs.json` (the public configs of
common models, so that a plan needs no network), or from the hub, in this order. Instruction-tuned and quantised copies have
the shape of their base, and are found by the last part of their name.

Departure from the obvious: no model is built here, not even on the meta device; the modules of a layer are listed for the
architectures below, and a test compares them with the real models of transformers. For others a plan needs a trace.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from reasoning_ext.errors import KeyProblem

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma3_text", "gemma3")
_COPY = re.compile(r"^meta-|(-unsloth)?-bnb-4bit|-(instruct|it|pt|base|chat|zero|preference)(?=-|$)|-\d{4}$")


GEMMA3 = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "vocab_size": 262208,
}  # left out by its configs


class ShapeError(KeyProblem):
    """A model's config cannot be had, or has no formula."""

    code = "unknown_shape"


@dataclass(frozen=True)
class Linear:
    """One kind of linear module: its name in the layer, inputs, outputs, bias, and how many the model has."""

    name: str
    inputs: int
    outputs: int
    bias: bool
    count: int
    vision: bool = False

    @property
    def weights(self) -> int:
        """The elements of one module's weight."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder.

    Attributes:
        model_type: as in transformers.
        hidden, layers, heads, kv_heads, head_dim, intermediate, vocab: of the text part.
        tied: the head is the embedding matrix.
        linears: the linear modules beside the head, those of a vision tower too.
        other: elements of norms, biases and all that is no linear weight and no embedding.
        windows: the sliding window of each layer in tokens, None where a layer attends to everything.
        context: the longest sequence that the model was made for, in tokens.
        dtype: the type that its weights are published in.
    """

    model_type: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    linears: tuple[Linear, ...]
    other: int
    windows: tuple[int | None, ...]
    context: int
    dtype: str

    @property
    def linear_weights(self) -> int:
        """The elements of all linear weights beside the head's."""
        return sum(linear.weights * linear.count for linear in self.linears)

    @property
    def embeddings(self) -> int:
        """The elements of the embeddings and of the head, once where they are the same."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.linear_weights + self.embeddings + self.other


def config_of(name: str, revision: str | None = None, offline: bool = True) -> dict[str, Any]:
    """Return what a model's config.json holds.

    Args:
        name: a local folder, or a hub name.
        revision: the hub's revision.
        offline: do not ask the hub.

    Raises:
        ShapeError: there is no config to be had.
    """
    file = Path(name) / "config.json"
    if file.is_file():
        return _parsed(file)
    if Path(name).is_dir():
        raise ShapeError("model_name_or_path", f"found {name} without a config.json")
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
    except ValueError as error:
        raise ShapeError("model_name_or_path", f"found {name!r}, which is neither a folder nor a hub name") from error
    if isinstance(cached, str):
        return _parsed(Path(cached))
    known = built_in().get(_key(name))
    if known is not None:
        return dict(known)
    if offline:
        raise ShapeError("model_name_or_path", f"the config of {name} is neither on this machine nor built in")
    try:
        return json.loads(Path(hf_hub_download(name, "config.json", revision=revision)).read_text(encoding="utf-8"))
    except Exception as error:  # the hub's own errors have no common class below OSError and ValueError
        reason = " ".join(str(error).split())[:200]
        raise ShapeError("model_name_or_path", f"the config of {name} cannot be had: {reason}") from error


def _parsed(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ShapeError("model_name_or_path", f"{file} is no JSON: {error}") from error


@cache
def built_in() -> dict[str, dict[str, Any]]:
    """Return the public configs that come with this package, by the last part of their names, in small letters."""
    text = (Path(__file__).parent / "model_configs.json").read_text(encoding="utf-8")
    return {_key(name): config for name, config in json.loads(text).items()}


def _key(name: str) -> str:
    """`unsloth/Qwen3-8B-Base-unsloth-bnb-4bit` -> `qwen3-8b`, `google/gemma-3-4b-it` -> `gemma-3-4b`."""
    return _COPY.sub("", name.rsplit("/", 1)[-1].lower())


def shape_of(config: dict[str, Any]) -> Shape:
    """Return the sizes of the decoder that a config describes.

    Args:
        config: what a config.json holds.

    Raises:
        ShapeError: the architecture has no formula.
    """
    kind = config.get("model_type", "none") if isinstance(config, dict) else "none"
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ShapeError("model_name_or_path", f"found the architecture {kind}, formulas are known for {known}")
    try:
        return _read(kind, config)
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ShapeError("model_name_or_path", f"its config lacks what a plan needs ({error})") from error


def _read(kind: str, config: dict[str, Any]) -> Shape:
    text = config.get("text_config", config)
    text = (GEMMA3 if kind == "gemma3" else {}) | text
    hidden, layers, heads = text["hidden_size"], text["num_hidden_layers"], text["num_attention_heads"]
    kv_heads = text.get("num_key_value_heads") or heads
    head_dim = text.get("head_dim") or hidden // heads
    intermediate, vocab = text["intermediate_size"], text["vocab_size"]
    tied = config.get("tie_word_embeddings", kind.startswith("gemma3"))
    linears = _linears(kind, text, hidden, layers, heads * head_dim, kv_heads * head_dim, intermediate)
    qk_norms = 2 * head_dim if kind == "qwen3" or kind.startswith("gemma3") else 0
    norms = layers * ((4 if kind.startswith("gemma3") else 2) * hidden + qk_norms) + hidden
    other = norms + sum(linear.outputs * linear.count for linear in linears if linear.bias)
    if vision := config.get("vision_config"):
        towers, rest = _vision(vision, hidden)
        linears, other = linears + towers, other + rest
    return Shape(
        kind, hidden, layers, heads, kv_heads, head_dim, intermediate, vocab, tied, linears, other,
        _windows(text, layers), text.get("max_position_embeddings", 0),
        str(config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or "bfloat16"),
    )  # fmt: skip


def _linears(
    kind: str, text: dict[str, Any], hidden: int, layers: int, query: int, key: int, intermediate: int
) -> tuple[Linear, ...]:
    if kind == "phi3":  # one matrix for queries, keys and values, one for gate and up
        sizes = {"qkv_proj": (hidden, query + 2 * key), "gate_up_proj": (hidden, 2 * intermediate)}
    else:
        sizes = {
            "q_proj": (hidden, query), "k_proj": (hidden, key), "v_proj": (hidden, key),
            "gate_proj": (hidden, intermediate), "up_proj": (hidden, intermediate),
        }  # fmt: skip
    sizes |= {"o_proj": (query, hidden), "down_proj": (intermediate, hidden)}
    attention = bool(text.get("attention_bias"))
    biased = {"q_proj", "k_proj", "v_proj"} if kind == "qwen2" or attention else set()
    biased |= {"o_proj"} if attention else set()
    biased |= {"gate_proj", "up_proj", "down_proj"} if text.get("mlp_bias") else set()
    return tuple(Linear(name, *size, name in biased, layers) for name, size in sizes.items())


def _vision(vision: dict[str, Any], hidden: int) -> tuple[tuple[Linear, ...], int]:
    """Return the linear modules of Gemma 3's SigLIP tower, and the elements of the rest with its projector."""
    width, layers, inner = vision["hidden_size"], vision["num_hidden_layers"], vision["intermediate_size"]
    sizes = dict.fromkeys(("q_proj", "k_proj", "v_proj", "out_proj"), (width, width))
    sizes |= {"fc1": (width, inner), "fc2": (inner, width)}
    linears = tuple(Linear(name, *size, True, layers, vision=True) for name, size in sizes.items())
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    embeddings = 3 * vision["patch_size"] ** 2 * width + width + patches * width
    norms = layers * 4 * width + 2 * width + width
    biases = sum(linear.outputs * linear.count for linear in linears)
    return linears, embeddings + norms + biases + width * hidden


def _windows(text: dict[str, Any], layers: int) -> tuple[int | None, ...]:
    window = text.get("sliding_window")
    kinds = text.get("layer_types")
    if kinds:
        return tuple(window if kind == "sliding_attention" else None for kind in kinds)
    if text.get("model_type") in (
        "mistral",
        "phi3",
    ):  # Qwen's configs have a window that use_sliding_window switches off
        return (window,) * layers
    if str(text.get("model_type", "")).startswith("gemma3"):
        every = text.get("sliding_window_pattern", 6)
        return tuple(None if (layer + 1) % every == 0 else window for layer in range(layers))
    return (None,) * layers
