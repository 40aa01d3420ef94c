"""All that decides what a run takes on its device: the model, what is trained of it, and the batches."""

from __future__ import annotations

from collections.abc import Sequence
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
from reasoning_ext.models.devices import Choice, Device, choose
from reasoning_ext.recipe.benchmarks import lm_eval_task
from reasoning_ext.recipe.held_out import batch_of, eval_problems, own_length
from reasoning_ext.recipe.keys import FROM_DATA, TRAINED
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.files import read_object
from reasoning_ext.scoring.spec import RewardSpec

ASSUMED_PROMPT = 256  # tokens, where neither the rows nor max_prompt_length tell
DEFAULT_LENGTH = 1024
LORA = ("lora_r", "lora_target_modules", "lora_modules_to_save")
CARD = Device("cuda", bf16=True)


@dataclass(frozen=True)
class Setup:
    """What a run puts on its device, which is a card, or the machine's own memory where there is none."""

    shape: Shape
    stage: str
    backend: str
    # the weights
    bits: int  # 4, 8, 16 or 32 of the linear ones
    nested: bool  # 4-bit constants are quantised themselves
    dtype: str  # of everything that is not quantised
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
    # how it is computed
    computed: str  # the type that activations are in
    checkpointing: bool  # layers are computed again in the backward pass
    fused: bool  # the trainer makes logits in tiles and not whole
    flash: bool  # attention needs no mask for padding
    vllm: float | None  # the share of the card that vLLM takes, None without it
    sleeps: bool  # vLLM gives its share back while the model is trained
    # a step
    rows: int  # sequences in one batch of training; a pair of DPO is two
    accumulation: int  # batches of a step, so that gradients are there during the next one
    prompt: int  # tokens
    completion: int
    assumed: bool = False  # the prompts' length is a guess
    generated: int = 0  # sequences that are generated at once
    measured: tuple[int, int] = (0, 0)  # answers to held-out problems at once, and the tokens of one
    old_logps: bool = False  # completions are scored before they are trained on
    padded: bool = True  # rows differ in length
    host: bool = False  # it runs on the CPU
    reward_models: int = 0  # bytes of those that score for an evaluation's strategies

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
    """Return where a model's config is, and the LoRA values of an adapter that it starts from; see `model_chain`."""
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
    recipe: Recipe,
    earlier: dict[str, Recipe],
    offline: bool = True,
    longest: int | None = None,
    name: str | None = None,
    device: Device = CARD,
    specs: Sequence[RewardSpec] = (),
) -> Setup:
    """Read off a recipe without errors what it puts on a device.

    Args:
        recipe, earlier, name: see `named_inputs.model_chain`.
        offline: do not ask the hub for the model's config.
        longest: tokens of the longest prompt, or row that is trained on, where it is known.
        specs: its rewards, which an evaluation's strategies may score by.

    Raises:
        ShapeError: the model's config cannot be had, or has no formula.
    """
    source, lora = model_source(recipe, earlier, name)
    if source is None:
        raise ShapeError("model_name_or_path", "its folder has no config.json yet")
    shape = shape_of(config_of(source, recipe.get("model_revision"), offline))
    values, stage = {key: recipe.get(key) for key in recipe.keys}, recipe.stage
    trains, unsloth = stage in TRAINED, values["backend"] == "unsloth"
    peft = bool(values["use_peft"]) if trains else bool(lora)
    lora = {} if values.get("merge_adapter") else {key: value for key, value in lora.items() if value}
    adapter = values | lora
    choice = choose(device, recipe.values, frozen=peft or not trains)
    dtype = weight_type(recipe, shape, choice)
    bits = 4 if values.get("load_in_4bit") else 8 if values.get("load_in_8bit") else 8 * BYTES[dtype]
    colocated = values.get("use_vllm") and values.get("vllm_mode") == "colocate"
    return Setup(
        shape=shape,
        stage=stage,
        backend=values["backend"],
        bits=bits,
        nested=bits == 4 and (unsloth or bool(values.get("use_bnb_nested_quant"))),  # Unsloth always nests
        dtype=dtype,
        rank=adapter.get("lora_r") if peft else None,
        targets=adapter.get("lora_target_modules"),
        dora=bool(values.get("use_dora")),
        dropout=bool(values.get("lora_dropout")),
        saved=tuple((lora or values).get("lora_modules_to_save") or ()) if peft and trains else (),
        own_rank=not lora,
        trained=dtype if not peft else "bfloat16" if bits in (4, 8) and not unsloth else "float32",
        optimizer=str(values.get("optim")),
        reference=_reference(values, peft, bool(lora)) if stage in ("grpo", "dpo") else "none",
        scored=stage == "dpo" and not values["precompute_ref_log_probs"],
        computed=(choice.autocast if trains else None) or dtype,
        checkpointing=choice.gradient_checkpointing,
        fused=unsloth or fused_head(stage),
        flash="flash" in str(values.get("attn_implementation")),
        vllm=values["vllm_gpu_memory_utilization"] if colocated else None,
        sleeps=bool(values.get("vllm_enable_sleep_mode")),
        host=device.kind == "cpu",
        reward_models=_scorer_bytes(recipe, specs, offline),
        **(batches := _batches(recipe, longest, specs)),
        measured=_measured(recipe, own_length(recipe) or batches["completion"]),
    )


def _measured(recipe: Recipe, completion: int) -> tuple[int, int]:
    """Return how many held-out problems are answered at once, and the tokens of an answer."""
    if (asked := eval_problems(recipe)) is None:
        return 0, 0
    return min(batch_of(recipe), asked.n * max(1, asked.samples)), asked.max_completion_length or completion


def _reference(values: dict[str, Any], peft: bool, continued: bool) -> str:
    if not values["beta"] or (values.get("precompute_ref_log_probs") and not peft):
        return "none"
    return ("adapter" if continued else "none") if peft else "model"


def weight_type(recipe: Recipe, shape: Shape, choice: Choice) -> str:
    """Return the type that unquantised weights are loaded in, of the device's `choice`."""
    given = recipe.values.get("dtype")
    if given in BYTES:
        return given
    if given == "auto" or recipe.get("backend") == "unsloth":
        return shape.dtype if shape.dtype in BYTES else "bfloat16"
    return choice.dtype or "float32"


def fused_head(stage: str) -> bool:
    """Tell whether the installed TRL makes logits in tiles: SFT since 1.14, GRPO and DPO since 1.16."""
    return stage not in ("grpo", "dpo") or Version(version("trl")) >= Version("1.16.dev0")


def _scorer_bytes(recipe: Recipe, specs: Sequence[RewardSpec], offline: bool) -> int:
    """Return what the reward models of an evaluation take, in the type that they are published in, all at once."""
    if recipe.stage != "eval":
        return 0
    from reasoning_ext.evaluate.drawn import reward_models

    shapes = [shape_of(config_of(name, None, offline)) for name in reward_models(recipe, specs)]
    return sum(shape.parameters * BYTES.get(shape.dtype, BYTES["float32"]) for shape in shapes)


def _batches(recipe: Recipe, longest: int | None, specs: Sequence[RewardSpec]) -> dict[str, Any]:
    """Return the fields of a setup that are about a step."""
    if recipe.stage in FROM_DATA:
        rows = recipe.get("per_device_train_batch_size") * (2 if recipe.stage == "dpo" else 1)
        length = recipe.get("max_length") or recipe.get("max_seq_length") or longest or DEFAULT_LENGTH
        if longest and not recipe.values.get("packing"):
            length = min(length, longest)
        return {
            "rows": rows,
            "accumulation": recipe.get("gradient_accumulation_steps"),
            "prompt": 0,
            "completion": length,
        }
    told = recipe.values.get("max_prompt_length") or longest
    completion = recipe.get("max_completion_length") or DEFAULT_LENGTH
    found = {"prompt": told or ASSUMED_PROMPT, "assumed": not told, "completion": completion}
    if recipe.stage == "eval" and not lm_eval_task(recipe):
        from reasoning_ext.evaluate.drawn import most_drawn

        draws = most_drawn(recipe, specs, completion).values()
        widest = max(draws, key=lambda draw: draw.beyond + draw.tokens)
        found |= {"prompt": found["prompt"] + widest.beyond, "completion": widest.tokens}
    if recipe.stage != "grpo":
        return found | {"rows": 0, "accumulation": 1, "generated": recipe.get("per_device_eval_batch_size")}
    made = generation_of(recipe, processes=1)
    late = made.accumulation % (made.size // made.batch * recipe.get("num_iterations")) != 0
    old_logps = bool(recipe.get("use_vllm") or recipe.get("beta") or late)
    step = {"rows": made.batch, "accumulation": made.accumulation, "generated": made.size, "old_logps": old_logps}
    return found | step
