"""Fit the activations of a training step: how many bytes a token takes for each unit of a layer's widths.

The peak of a step is linear in the tokens and in the widths of a layer (hidden, queries, keys, intermediate), but for which
operation is the highest: in the feed-forward part, in attention, or at the head. So it is the largest of a few planes. They
are fitted to traces (`memory_trace.trace`) of two-layer models of many widths, for each family of architectures and
each way to train, and written to `reasoning_ext/check/memory/activation_coefficients.json`, which the memory plan reads.

    python benchmarks/fit_activations.py                # about 30 minutes on one core; needs no GPU
    python benchmarks/fit_activations.py --only qwen3/nf4
"""

import argparse
import contextlib
import io
import itertools
import json
import logging
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
from memory_trace.trace import Workload, trace_training

OUTPUT = Path(__file__).parent.parent / "reasoning_ext" / "check" / "memory" / "activation_coefficients.json"
ROWS, LENGTH, VOCAB, HEAD_DIM, RANK = 512, 512, 4096, 128, 8  # many tokens, beside which the weights' own sizes vanish
WIDTHS = (  # hidden, queries, keys, intermediate
    (1024, 1024, 256, 2048), (1024, 1024, 256, 4096), (1024, 1024, 256, 6144), (1024, 2048, 256, 3072),
    (1024, 2048, 1024, 3072), (1024, 1024, 1024, 3072), (512, 1024, 256, 1536), (512, 1024, 512, 3072),
    (1536, 1024, 256, 4096), (1536, 1536, 256, 8192), (1536, 1536, 1536, 4096), (2048, 1024, 256, 4096),
    (768, 2048, 512, 2048), (1024, 4096, 512, 2048), (1024, 512, 256, 1024), (512, 512, 128, 4096),
    (1024, 1024, 256, 512), (1024, 2048, 256, 512), (1024, 2048, 1024, 512), (512, 2048, 512, 512),
    (2048, 1024, 256, 512), (1024, 4096, 512, 1024), (512, 1024, 1024, 256), (1024, 1024, 1024, 512),
)  # fmt: skip
TOLERANCES = (0.004, 0.006, 0.01, 0.02, 0.03)
FAMILIES = {"llama": "llama", "qwen3": "qwen3", "phi3": "phi3", "gemma3": "gemma3_text"}
LORA = {
    "dtype": "bfloat16",
    "use_peft": True,
    "lora_r": RANK,
    "lora_dropout": 0.0,
    "lora_target_modules": ["all-linear"],
}
NF4 = LORA | {"load_in_4bit": True, "use_bnb_nested_quant": True}
WAYS = {
    "nf4": NF4, "nf4 dropout": NF4 | {"lora_dropout": 0.05}, "lora": LORA, "lora dropout": LORA | {"lora_dropout": 0.05},
    "full bfloat16": {"dtype": "bfloat16"}, "full float32": {"dtype": "float32"},
}  # fmt: skip


def measure(family: str, load: dict, layers: int, widths: tuple[int, ...], checkpointing: bool) -> float:
    """Return the activations of a step at its peak, in bytes a token."""
    hidden, queries, keys, intermediate = widths
    config = {
        "model_type": FAMILIES[family], "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": queries // HEAD_DIM, "num_key_value_heads": keys // HEAD_DIM, "head_dim": HEAD_DIM,
        "intermediate_size": intermediate, "vocab_size": VOCAB, "tie_word_embeddings": False, "pad_token_id": 0,
        "max_position_embeddings": LENGTH,
    }  # fmt: skip
    if family == "phi3" and queries != hidden:
        config["hidden_size"] = queries  # its head_dim is always hidden / heads
    with contextlib.redirect_stdout(io.StringIO()):
        trace = trace_training(
            "sft", config, load, {"gradient_checkpointing": checkpointing}, Workload(ROWS, 0, LENGTH)
        )
    return trace.at_peak["forward and backward"]["activations"] / (ROWS * LENGTH)


def features(family: str, widths: tuple[int, ...]) -> list[float]:
    """Return hidden, queries, keys, intermediate as the model has them."""
    hidden, queries, keys, intermediate = widths
    return [queries if family == "phi3" else hidden, queries, keys, intermediate]


def best_planes(x: np.ndarray, y: np.ndarray) -> list[list[float]]:
    """Return the planes of the tolerance that leaves the smallest largest error; columns that repeat another get 0."""
    kept = [i for i in range(x.shape[1]) if not any((x[:, i] == x[:, j]).all() for j in range(i))]
    found = [made for tolerance in TOLERANCES if (made := planes(x[:, kept], y, tolerance))]
    best = min(found, key=lambda made: np.abs((x[:, kept] @ np.array(made).T).max(1) / y - 1).max())
    return [[plane[kept.index(i)] if i in kept else 0.0 for i in range(x.shape[1])] for plane in best]


def planes(x: np.ndarray, y: np.ndarray, tolerance: float) -> list[list[float]]:
    """Find the planes through the origin whose largest explains the points.

    A plane through four of the points is one of them if it lies below all others; the one that holds most points is taken
    first, and its coefficients are fitted to all that it holds.
    """
    subsets = np.array(list(itertools.combinations(range(len(y)), x.shape[1])))
    fine = np.abs(np.linalg.det(x[subsets] / 1000)) > 1e-4
    solved = np.linalg.solve(x[subsets[fine]], y[subsets[fine]][..., None])[..., 0]
    said = solved @ x.T
    below = (said <= y * (1 + tolerance)).all(1)
    holds = np.abs(said[below] / y - 1) < tolerance
    left, found = np.ones(len(y), bool), []
    while left.any() and len(holds):
        counts = (holds & left).sum(1)
        members = holds[counts.argmax()]
        if counts.max() < 2:
            break
        plane = np.linalg.lstsq(x[members], y[members], rcond=None)[0]
        found.append([round(float(value), 2) for value in plane])
        left &= ~members
    return found


def fit(family: str, way: str) -> dict:
    """Return the coefficients of one family and one way to train, with and without checkpointing."""
    load = WAYS[way]
    x = np.array([features(family, widths) for widths in WIDTHS], dtype=float)
    kept_width = 4 if way == "full float32" else 2
    recomputed = np.array([measure(family, load, 2, widths, True) for widths in WIDTHS])
    layer = recomputed - 2 * kept_width * x[:, 0]
    one = np.array([measure(family, load, 1, widths, False) for widths in WIDTHS[::2]])
    two = np.array([measure(family, load, 2, widths, False) for widths in WIDTHS[::2]])
    slope = np.linalg.lstsq(x[::2], two - one, rcond=None)[0]  # of equal columns each gets half
    rest = best_planes(x[::2], np.maximum(2 * one - two, 1.0))
    found = {
        "checkpointed": {"kept": kept_width, "planes": best_planes(x, layer)},
        "whole": {"kept": [round(float(v), 2) for v in slope], "planes": rest},
    }
    said = (x @ np.array(found["checkpointed"]["planes"]).T).max(1)
    error = np.abs((said + 2 * kept_width * x[:, 0]) / recomputed - 1).max()
    print(f"{family}/{way}: {found} largest error {error:.2%}", flush=True)
    return found | {"largest_error": round(float(error), 4)}


def main() -> None:
    """Fit all, or some, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="family/way, comma-separated")
    parser.add_argument("--out", type=Path, default=OUTPUT)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    document = json.loads(options.out.read_text(encoding="utf-8")) if options.only and options.out.exists() else {}
    table = document.get("coefficients", {})
    for family in FAMILIES:
        for way in WAYS:
            if not options.only or f"{family}/{way}" in options.only.split(","):
                table[f"{family}/{way}"] = fit(family, way)
    packages = {name: version(name) for name in ("trl", "transformers", "peft", "bitsandbytes", "torch")}
    document = {"command": "python benchmarks/fit_activations.py", "packages": packages, "coefficients": table}
    lines = json.dumps(document, indent=1).replace("\n   ", " ").replace("\n  ]", "]")
    options.out.write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
