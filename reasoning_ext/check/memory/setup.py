"""All that decides what a run takes on the card, taken from a recipe: the model, what is trained of it, and the batches."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from packaging.version import Version

from reasoning_ext.check.cost import generation_of
from reasoning_ext.check.memory.parts import BYTES
from reasoning_ext.check.memory.shapes import Shape, ShapeError, config_of, shape_of
from reasoning_ext.check.named_inputs import model_chain
from reasoning_ext.models.adapter import ADAPTER, LORA_KEYS
from reasoning_ext.models.devices import Device, choose
from reasoning_ext.recipe.keys import FROM_DATA, TRAINED
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.files import read_object

ASSUMED_PROMPT = 256  # tokens, where neither the rows nor max_prompt_length tell
DEFAULT_LENGTH = 1024
LORA = ("lora_r", "lora_target_modules", "lora_modules_to_save")
CARD = Device("cuda", bf16=True)


@dataclass(frozen=True)
class Setup:
    """What a run puts on the card."""

    shape: Shape
    stage: str
    backend: str
    # the weights
    bits: int  # 4, 8, 16 or 32 of the linear ones
    nested: bool  # 4-bit constants are quantised themselves
    dtype: str  # of everything that is not quantised
    free_type: bool  # the recipe leaves their type open
    # what is trained of them
    rank: int | None  # of the LoRA adapter; None: all weights are trained, or there is no adapter
    targets: str | list[str] | None
    dora: bool
    dropout: bool  # which keeps an input for each of the adapter's modules
    saved: tuple[str, ...]  # modules that are trained whole beside the adapter
    own_rank: bool  # the recipe may choose the rank, because it does not train an earlier adapter further
    trained: str  # "float32" or "bfloat16", the type of what is trained
    optimizer: str
    # the reference
    reference: str  # "none", "adapter" (a copy of the adapter) or "model" (a second model)
    scored: bool  # it scores a batch within the training step, while the policy's activations are kept
    old_logps: bool  # log-probabilities are computed once before training
    # a step
    rows: int  # sequences in one batch of training; a pair of DPO is two
    accumulation: int  # batches of a step, so that gradients are there during the next one
    prompt: int  # tokens
    completion: int
    assumed: bool  # the prompts' length is a guess
    checkpointing: bool  # layers are computed again in the backward pass
    fused: bool  # the trainer makes logits in tiles and not whole
    flash: bool  # attention needs no mask for padding
    # what is generated
    generated: int  # sequences at once
    group: int  # completions of a prompt, which are generated together
    steps: int | None  # `steps_per_generation`, where the recipe sets it
    vllm: float | None  # the share of the card that vLLM takes, None without it
    sleeps: bool  # vLLM gives its share back while the model is trained
    padded: bool = True  # rows differ in length

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
    if source is None:
        raise ShapeError("model_name_or_path", "its folder has no config.json yet")
    shape = shape_of(config_of(source, recipe.get("model_revision"), offline))
    values = {key: recipe.get(key) for key in recipe.keys}
    trains, unsloth = recipe.stage in TRAINED, recipe.get("backend") == "unsloth"
    peft = bool(values["use_peft"]) if trains else bool(lora)
    dtype = weight_type(recipe, shape, trains and not peft)
    bits = 4 if values.get("load_in_4bit") else 8 if values.get("load_in_8bit") else 8 * BYTES[dtype]
    lora = {} if values.get("merge_adapter") else lora
    adapter = values | {key: value for key, value in lora.items() if value}
    rows, length, completion, generated = _batches(recipe, prompt)
    in_model = values.get("use_vllm") and values.get("vllm_mode") == "colocate"
    return Setup(
        shape=shape,
        stage=recipe.stage,
        backend=recipe.get("backend"),
        bits=bits,
        nested=bits == 4 and (unsloth or bool(values.get("use_bnb_nested_quant"))),  # Unsloth always nests
        dtype=dtype,
        free_type="dtype" not in recipe.values,
        rank=adapter.get("lora_r") if peft else None,
        targets=adapter.get("lora_target_modules"),
        dora=bool(values.get("use_dora")),
        dropout=bool(values.get("lora_dropout")),
        saved=tuple((lora or values).get("lora_modules_to_save") or ()) if peft and trains else (),
        own_rank=not lora,
        trained=dtype if not peft else "bfloat16" if bits in (4, 8) and not unsloth else "float32",
        optimizer=str(values.get("optim")),
        reference=_reference(recipe, peft, bool(lora)),
        scored=recipe.stage == "dpo" and not values["precompute_ref_log_probs"],
        old_logps=_old_logps(recipe, generated, rows),
        rows=rows,
        accumulation=values.get("gradient_accumulation_steps") or 1,
        prompt=length,
        completion=completion,
        assumed=recipe.stage not in FROM_DATA and not prompt and not values.get("max_prompt_length"),
        checkpointing=bool(choose(CARD, recipe.values, peft).gradient_checkpointing),
        fused=unsloth or fused_head(recipe.stage),
        flash="flash" in str(values.get("attn_implementation")),
        generated=generated,
        group=values.get("num_generations") or 1,
        steps=values.get("steps_per_generation"),
        vllm=values.get("vllm_gpu_memory_utilization") if in_model else None,
        sleeps=bool(values.get("vllm_enable_sleep_mode")),
    )


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
