"""All that decides what a run takes on the card, taken from a recipe: the model, what is trained of it, and the batches."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from packaging.version import Version

from reasoning_ext.batches import generation_of
from reasoning_ext.devices import Device, choose
from reasoning_ext.files import read_object
from reasoning_ext.hand_over import ADAPTER, LORA_KEYS
from reasoning_ext.memory.parts import BYTES
from reasoning_ext.memory.shapes import Shape, config_of, shape_of
from reasoning_ext.named_inputs import model_chain
from reasoning_ext.own_keys import FROM_DATA, TRAINED
from reasoning_ext.recipe import Recipe

ASSUMED_PROMPT = 256  # tokens, where neither the rows nor max_prompt_length tell
DEFAULT_LENGTH = 1024
LORA = ("lora_r", "lora_target_modules", "lora_modules_to_save")
CARD = Device("cuda", bf16=True)


@dataclass(frozen=True)
class Setup:
    """What a run puts on the card.

    Attributes:
        shape: the model's sizes.
        stage, backend: as in the recipe.
        bits: 4, 8, 16 or 32 of the linear weights.
        nested: 4-bit constants are quantised themselves.
        dtype: of everything that is not quantised.
        rank: of the LoRA adapter, None where all weights are trained or there is no adapter.
        targets, dora: where the adapter goes.
        dropout: the adapter has dropout, which keeps an input for each of its modules.
        trained: "float32" or "bfloat16", the type of what is trained.
        optimizer: as transformers names it.
        accumulation: batches a step, so that gradients are there during the next one.
        checkpointing: layers are computed again in the backward pass.
        reference: "none", "adapter" (a copy of the adapter) or "model" (a second model).
        rows: sequences in one batch of training; a pair of DPO is two.
        prompt, completion: tokens of each.
        generated: sequences that are generated at once.
        old_logps: log-probabilities are computed once before training.
        scored: the reference scores a batch within the training step, while the policy's activations are kept.
        fused: the trainer makes logits in tiles and not whole.
        vllm: the share of the card that vLLM takes, None without it.
        sleeps: vLLM gives its share back while the model is trained.
        flash: attention needs no mask for padding.
        group: completions of a prompt, which are generated together.
        steps: `steps_per_generation`, where the recipe sets it.
        padded: rows differ in length, so that they are padded.
        assumed: the prompts' length is a guess.
        own_rank: the recipe may choose the rank, because it does not train an earlier adapter further.
        free_type: the recipe leaves the type of the weights open.
        saved: modules that are trained whole beside the adapter.
    """

    shape: Shape
    stage: str
    backend: str
    bits: int
    nested: bool
    dtype: str
    rank: int | None
    targets: str | list[str] | None
    dora: bool
    dropout: bool
    trained: str
    optimizer: str
    accumulation: int
    checkpointing: bool
    reference: str
    rows: int
    prompt: int
    completion: int
    generated: int
    old_logps: bool
    fused: bool
    vllm: float | None
    sleeps: bool
    flash: bool = False
    group: int = 1
    steps: int | None = None
    padded: bool = True
    assumed: bool = False
    own_rank: bool = True
    free_type: bool = False
    saved: tuple[str, ...] = ()
    scored: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of a sequence."""
        return self.prompt + self.completion

    @property
    def trains(self) -> bool:
        """Whether the stage trains."""
        return self.stage in TRAINED


def model_source(
    recipe: Recipe, earlier: dict[str, Recipe], name: str | None = None
) -> tuple[str | None, dict[str, Any]]:
    """Return where the config of a recipe's model is, and the LoRA values of an adapter that the recipe starts from.

    Args:
        recipe, earlier, name: see `named_inputs.model_chain`.
    """
    chain, lora = model_chain(recipe, earlier, name), {}
    for place, maker in reversed(chain):
        if maker is None:
            adapter = read_object(Path(place) / ADAPTER)
            lora = {"use_peft": True, **{key: adapter.get(LORA_KEYS[key]) for key in LORA}} if adapter else {}
        elif maker.stage in TRAINED and not maker.get("use_peft"):
            lora = {}
        elif maker.stage in TRAINED and (not lora or maker.get("merge_adapter")):
            lora = {"use_peft": True, **{key: maker.get(key) for key in LORA}}
    return chain[-1][0] if chain else None, lora


def setup_of(
    recipe: Recipe, earlier: dict[str, Recipe], offline: bool = True, prompt: int | None = None, name: str | None = None
) -> Setup:
    """Read off a recipe what it puts on the card.

    Args:
        recipe: a recipe without errors.
        earlier: see `model_source`.
        offline: do not ask the hub for the model's config.
        prompt: tokens of the longest prompt, where it is known.
        name: see `model_source`.

    Raises:
        ShapeError: the model's config cannot be had, or has no formula.
    """
    source, lora = model_source(recipe, earlier, name)
    shape = shape_of(config_of(source or "", recipe.get("model_revision"), offline))
    get: Any = lambda key, other=None: recipe.get(key) if key in recipe.keys else other  # noqa: E731
    bits = 4 if get("load_in_4bit") else 8 if get("load_in_8bit") else 0
    unsloth = recipe.get("backend") == "unsloth"
    trains = recipe.stage in TRAINED
    peft = bool(get("use_peft")) if trains else bool(lora)
    dtype = weight_type(recipe, shape, trains and not peft)
    bits = bits or 8 * BYTES[dtype]
    lora = lora if lora and not get("merge_adapter") else {}
    rows, length, completion, generated = _batches(recipe, prompt)
    frozen_low = bits in (4, 8)
    return Setup(
        shape=shape, stage=recipe.stage, backend=recipe.get("backend"), bits=bits, dtype=dtype,
        nested=bits == 4 and (unsloth or bool(get("use_bnb_nested_quant"))),  # Unsloth always nests
        rank=(lora.get("lora_r") or get("lora_r")) if peft else None,
        targets=lora.get("lora_target_modules") or get("lora_target_modules"),
        dora=bool(get("use_dora")), dropout=bool(get("lora_dropout", 0.0)),
        trained="bfloat16" if peft and frozen_low and not unsloth else "float32" if peft else dtype,
        optimizer=str(get("optim", "adamw_torch")), accumulation=get("gradient_accumulation_steps", 1),
        checkpointing=choose(CARD, recipe.values, peft).gradient_checkpointing,
        reference=_reference(recipe, peft, bool(lora)), rows=rows, prompt=length, completion=completion,
        generated=generated, old_logps=_old_logps(recipe, generated, rows), fused=unsloth or fused_head(recipe.stage),
        vllm=get("vllm_gpu_memory_utilization", 0.3) if get("use_vllm") and get("vllm_mode") == "colocate" else None,
        sleeps=bool(get("vllm_enable_sleep_mode")), free_type="dtype" not in recipe.values,
        saved=tuple((lora or recipe.values).get("lora_modules_to_save") or ()) if peft and trains else (),
        flash="flash" in str(get("attn_implementation") or ""), group=get("num_generations", 1) or 1,
        steps=get("steps_per_generation"), own_rank=not lora,
        scored=recipe.stage == "dpo" and not recipe.get("precompute_ref_log_probs"),
        assumed=recipe.stage not in FROM_DATA and not prompt and not get("max_prompt_length"),
    )  # fmt: skip


def weight_type(recipe: Recipe, shape: Shape, full: bool) -> str:
    """Return the type that unquantised weights are loaded in on a card.

    Args:
        recipe: the recipe.
        shape: the model.
        full: all weights are trained.
    """
    given = recipe.values.get("dtype")
    if given in BYTES:
        return given
    if given == "auto" or recipe.get("backend") == "unsloth":
        return shape.dtype if shape.dtype in BYTES else "bfloat16"
    return choose(CARD, recipe.values, frozen=not full).dtype or "float32"


def fused_head(stage: str) -> bool:
    """Tell whether the installed TRL makes logits in tiles: SFT since 1.14, GRPO and DPO since 1.16."""
    if stage not in TRAINED:
        return True
    return stage == "sft" or Version(version("trl")) >= Version("1.16.dev0")


def _reference(recipe: Recipe, peft: bool, continued: bool) -> str:
    if recipe.stage not in ("grpo", "dpo") or not recipe.get("beta"):
        return "none"
    if recipe.stage == "dpo" and not peft and recipe.get("precompute_ref_log_probs"):
        return "none"
    if peft:
        return "adapter" if continued else "none"
    return "model"


def _old_logps(recipe: Recipe, generated: int, rows: int) -> bool:
    """Tell whether TRL scores completions before it trains: it does where they are not trained on at once."""
    if recipe.stage != "grpo":
        return False
    every = generated // rows * recipe.get("num_iterations")
    late = recipe.get("gradient_accumulation_steps") % every != 0
    return bool(recipe.get("use_vllm")) or bool(recipe.get("beta")) or late


def _batches(recipe: Recipe, prompt: int | None) -> tuple[int, int, int, int]:
    """Return rows, prompt tokens, completion tokens, and sequences generated at once."""
    if recipe.stage in FROM_DATA:
        length = recipe.get("max_length") or recipe.get("max_seq_length") or DEFAULT_LENGTH
        sides = 2 if recipe.stage == "dpo" else 1
        return sides * recipe.get("per_device_train_batch_size"), 0, length, 0
    prompt = recipe.values.get("max_prompt_length") or prompt or ASSUMED_PROMPT
    completion = recipe.get("max_completion_length") or DEFAULT_LENGTH
    if recipe.stage != "grpo":
        return 0, prompt, completion, recipe.get("per_device_eval_batch_size")
    made = generation_of(recipe, processes=1)
    return made.batch, prompt, completion, made.size
