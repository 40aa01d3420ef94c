"""Do a recipe's engine and plain transformers agree? One batch through both: text, log-probabilities, gradient.

Where they do not, rollouts come from another model than the one that is trained (unsloth#2294), or the gradient is
another, and no curve says so. `check --parity` asks, and stage `grpo` before its first step with Unsloth. With vLLM TRL
logs the difference from the first step on, and the health rule `sampling_mismatch` reads it: no second engine starts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from reasoning_ext.engines.opening import engine_name, engine_options, open_engine
from reasoning_ext.errors import KeyProblem
from reasoning_ext.models.source import model_source
from reasoning_ext.models.unsloth import BY_ITSELF
from reasoning_ext.recipe.engine_options import VllmOptions
from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.folder import say, world_size
from reasoning_ext.tools.spec import template_kwargs
from reasoning_ext.train.sides import Measured, Side, answers, measure_apart

ROWS, LOOKED_AT = 4, 64  # prompts that are answered, of so many
QUANTIZED = ("bnb_4bit_quant_type", "use_bnb_nested_quant")  # which Unsloth chooses by itself


@dataclass(frozen=True)
class Limits:
    """What may differ: log-probabilities in nats, on average and at most, the gradient's norm in shares of it.

    `tie` is how much likelier the one of two tokens may be, in nats, for either to be the likeliest one.
    """

    mean: float
    most: float
    gradient: float
    tie: float


# bfloat16. Mean: vLLM and transformers are 0.012 apart with Qwen3-4B where all is well (trl#4772), vLLM and Megatron
# 0.011, and 0.036 after a drift (vllm-project/vime#64). Most: 0.48 among 3,916 tokens of a model of 0.5B, and 0.66
# between two sizes of a batch in transformers alone (trl#6789). Tie: logits between 32 and 64 have steps of 0.25, and
# two may be rounded apart. float16 has three bits more (arXiv:2510.26788). float32: 3e-7 and 1e-5 were measured on
# SmolLM2-135M; at most 2e-3 between a forward and a decoding that are right, 0.16 with one that is not
# (marin-community/marin#1879).
# Gradient: 2e-3 was measured in bfloat16, 5e-4 with 4 bits; 0.59 in the place of 2.45 was a fault (unsloth#255).
LIMITS = {
    "bfloat16": Limits(0.05, 1.0, 0.1, 0.5),
    "float16": Limits(0.05 / 8, 1.0 / 8, 0.1 / 8, 0.5 / 8),
    "float32": Limits(1e-3, 1e-2, 1e-2, 1e-2),
}
# what is to blame -> its name in a sentence, and what to do
KEYS = {
    "backend": ("unsloth", "write backend: trl, or install another version of unsloth"),
    "use_vllm": ("vllm", "leave it out, or install another version of vllm"),
    "engine": ("the engine", "write engine: transformers, or see that it serves these weights with this chat template"),
    "attn_implementation": ("a padded batch", "write eager, or take a model whose positions are relative"),
}


@dataclass(frozen=True)
class Figures:
    """How far an engine and the reference are apart on the same rows; None is not measured.

    Attributes:
        key: the recipe's key that names the engine.
        precision: the coarser one of what both compute in; limits are those of it.
        rows, tokens: how many prompts were answered, and how many tokens scored.
        text: share of the greedy tokens up to the first difference.
        tie: how much likelier the reference finds its own token where texts part, in nats, at most.
        mean, most: difference of the tokens' log-probabilities, in nats.
        gradient: difference of the gradient's norm, as a share of the reference's.
    """

    key: str
    precision: str
    rows: int
    tokens: int
    text: float
    tie: float
    mean: float | None = None
    most: float | None = None
    gradient: float | None = None

    @property
    def limits(self) -> Limits:
        """What may differ."""
        return LIMITS.get(self.precision, LIMITS["bfloat16"])

    def line(self) -> str:
        """Say it in a line."""
        limits, parts = self.limits, [f"text {self.text:.0%} the same"]
        parts += [f"parted between tokens {self.tie:.2g} apart (allowed {limits.tie:.2g})"] if self.text < 1 else []
        if self.mean is not None:
            told = f"{self.mean:.2g} on average, {self.most:.2g} at most (allowed {limits.mean:.2g}, {limits.most:.2g})"
            parts.append(f"log-probabilities of {self.tokens} tokens differ by {told}")
        if self.gradient is not None:
            parts.append(f"gradient norm by {self.gradient:.2g} of it (allowed {limits.gradient:.2g})")
        return f"{KEYS[self.key][0]} against transformers in {self.precision}, {self.rows} rows: {'; '.join(parts)}"

    def as_dict(self) -> dict[str, Any]:
        """Return it for `check --json`."""
        return asdict(self) | {"allowed": asdict(self.limits)}

    def problems(self) -> Iterator[KeyProblem]:
        """Yield an error for each figure beyond its limit, or that is no number."""
        limits, (name, mend) = self.limits, KEYS[self.key]
        between = f"between {name} and transformers in {self.precision}"
        scored = f"log-probabilities of the same {self.tokens} tokens"
        for what, found, allowed in (
            (f"{scored} %.2g nats apart on average {between}", self.mean, limits.mean),
            (f"{scored} up to %.2g nats apart {between}", self.most, limits.most),
            (f"gradient norms of the same loss %.2g of it apart {between}", self.gradient, limits.gradient),
            (f"likeliest tokens %.2g nats apart {between}", self.tie, limits.tie),
        ):
            if found is not None and not found <= allowed:
                yield KeyProblem(self.key, f"found {what % found}", f"{allowed:.2g}", mend, code="engines_differ")


def compare(key: str, reference: Measured, other: Measured) -> Figures:
    """Hold what two sides measured against each other; the reference scored what the other one drew."""
    alike, of = sum(a for a, _, _ in reference.parted), sum(n for _, n, _ in reference.parted)
    ties = [abs(margin) for a, n, margin in reference.parted if a < n]
    apart = (
        [abs(a - b) for two in zip(reference.logps, other.logps, strict=True) for a, b in zip(*two, strict=True)]
        if other.logps
        else []
    )
    mean, most = (sum(apart) / len(apart), _largest(apart)) if apart else (None, None)
    norms, gradient = (reference.norm, other.norm), None
    if norms[0] is not None and norms[1] is not None:
        gradient = abs(norms[1] - norms[0]) / norms[0] if norms[0] else float(norms[1] != 0)
    precision = max(
        filter(None, (reference.precision, other.precision)), key=lambda p: LIMITS.get(p, LIMITS["bfloat16"]).mean
    )
    share = alike / of if of else 1.0
    return Figures(key, precision, len(reference.texts), len(apart), share, _largest(ties), mean, most, gradient)


def _largest(values: list[float]) -> float:
    """Return the largest value, NaN if one is."""
    return math.nan if any(math.isnan(value) for value in values) else max(values, default=0.0)


def nothing_to_compare(recipe: Recipe) -> str:
    """Say why a recipe has no two sides here, or nothing."""
    vllm = engine_name(recipe) == "vllm" or (recipe.values.get("use_vllm") and recipe.get("backend") == "trl")
    package = "vllm" if vllm else "unsloth" if recipe.get("backend") == "unsloth" else ""
    if engine_name(recipe) == "ray":
        return "engine: ray runs another one; check it with --engine vllm or transformers"
    if recipe.stage == "grpo" and recipe.get("use_vllm") and recipe.get("vllm_mode") == "server":
        return "vllm_mode: server gets its weights in training; see sampling/sampling_logp_difference/mean there"
    return f"{package} is not installed here" if package and find_spec(package) is None else ""


def sides(recipe: Recipe, name: str | None, folder: Path) -> tuple[str, Side, Side | None]:
    """Return the key that names what a recipe uses, the reference, and the other side, None for a server.

    What a new adapter needs is made in `folder`. Unsloth is measured without the vLLM that it starts inside the model.
    """
    trained, backend, engine = recipe.stage in TRAINED, recipe.get("backend"), engine_name(recipe)
    source = model_source(recipe.values, recipe.local, trained, name, template_kwargs(recipe))
    source = replace(source, options=replace(source.options, use_vllm=False, run_folder=folder))
    bits = {key: BY_ITSELF[key] for key in QUANTIZED if source.values.get("load_in_4bit") and backend == "unsloth"}
    values = {**source.values, "backend": "trl"} | bits
    plain = replace(source, values=values, options=replace(source.options, backend="trl"))
    reference, left = Side(plain, together=False), recipe.stage == "grpo"
    if engine == "server":
        return "engine", reference, None
    if engine == "vllm" or (recipe.values.get("use_vllm") and backend == "trl"):
        served = replace(plain, options=replace(plain.options, trainable=False))
        key, options = ("engine", engine_options(recipe)) if engine == "vllm" else ("use_vllm", VllmOptions())
        return key, reference, Side(served, options)
    if backend == "unsloth":
        return "backend", reference, Side(source, left=left)
    return "attn_implementation", reference, Side(plain, left=left)


def compare_engines(recipe: Recipe, prompts: Sequence, name: str | None, folder: Path) -> Figures:
    """Put prompts, lists of messages, through both sides of a recipe, one after the other, each in its own process.

    Raises:
        KeyProblem: a side cannot be had.
    """
    key, reference, side = sides(recipe, name, folder)
    chosen = choose_prompts(prompts)
    if side is None:
        with closing(open_engine(recipe, name)) as engine:
            told = answers(engine, chosen, reference.source, 0.0)
        other = Measured([one.text for one in told], [one.finished for one in told])
    else:
        other = measure_apart(side, chosen)
    return compare(key, measure_apart(reference, chosen, other), other)


def choose_prompts(prompts: Sequence) -> list[Any]:
    """Choose prompts from the shorter half, as far apart in length as they are there, so that a batch has padding."""
    ordered = sorted(prompts, key=lambda prompt: len(str(prompt)))
    half = ordered[: max(ROWS, len(ordered) // 2)]
    return half if len(half) <= ROWS else [half[i * (len(half) - 1) // (ROWS - 1)] for i in range(ROWS)]


def compare_first(recipe: Recipe, rows: Any, folder: Path) -> None:
    """Compare Unsloth with transformers before a training with it starts, and say in a line what was found.

    Raises:
        KeyProblem: they differ too much.
    """
    if recipe.get("backend") != "unsloth" or not recipe.get("check_parity") or world_size() > 1:
        return
    started = time.monotonic()
    found = compare_engines(recipe, [row["prompt"] for row in islice(rows, LOOKED_AT)], None, folder)
    say(f"parity  {found.line()} ({time.monotonic() - started:.0f} s)")
    for error in found.problems():
        told = error.problem
        raise KeyProblem(
            told.key, told.found, told.allowed, f"{told.hint}; check_parity: false trains nevertheless", told.code
        )
