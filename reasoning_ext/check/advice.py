"""What nobody would guess: what a recipe's numbers do to its result, and which of the installed versions were tested.

A default is read off the installed classes, and told of only where the recipe leaves its key out. pip holds the packages to
what each declares; here stand the ranges that our tests ran on.
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import InvalidVersion, Version

from reasoning_ext.check.cost import generation_of
from reasoning_ext.errors import Level, Problem
from reasoning_ext.models.adapter import ADAPTER
from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.files import read_object

FULL_RATE_LIMIT = 5e-5  # full fine-tuning of a pretrained model; LoRA takes about ten times its rate
LORA_RATE_LIMIT = 1e-6
LORA_RATES = {"sft": 1e-4, "grpo": 5e-6, "dpo": 5e-6}  # below it is a rate for all weights
SHORT_COMPLETIONS, FEW_PROMPTS = 1024, 4
LOWEST = {"trl": "1.14", "transformers": "5.8", "peft": "0.19", "datasets": "4.4", "bitsandbytes": "0.49"}
TOO_NEW = {"trl": "1.17", "unsloth": "1.16"}  # TRL, by backend: Unsloth rewrites its source when it is imported
FAILS = "1.15"  # its fused LM head is a Triton kernel without a fallback; Unsloth replaces it
UNCUT = {"top_p": (1, 1.0), "top_k": (0, -1, None), "min_p": (0, None)}  # every token can be drawn


def default_findings(recipe: Recipe) -> list[Problem]:
    """Return warnings of values that do not fit each other, and notes on defaults that surprise, each with its key."""
    found: list[Problem] = []
    rate, length, left_out = "learning_rate", "max_completion_length", recipe.keys.keys() - recipe.values.keys()

    def tell(level: Level, key: str, text: str) -> None:
        found.append(Problem(code="surprising_value", level=level, key=key, found=f"found {recipe.get(key)}{text}"))

    if recipe.stage in TRAINED:
        value, lora, other = recipe.get(rate), recipe.get("use_peft"), ("from_scratch", "use_cpu")
        if lora and value < LORA_RATE_LIMIT:
            tell("warning", rate, " with use_peft: true, at which an adapter hardly moves; write 1.0e-5 for example")
        elif lora and value < LORA_RATES[recipe.stage] and rate in left_out:
            tell("note", rate, ", TRL's default for all weights; an adapter takes about ten times of it")
        elif not lora and value >= FULL_RATE_LIMIT and not any(map(recipe.get, other)):
            tell("warning", rate, " for all weights, a rate for LoRA; write use_peft: true, or 1.0e-6 for example")
    if recipe.stage == "sft" and recipe.get("packing") and recipe.get("packing_strategy") == "wrapped":
        tell("warning", "packing_strategy", ", which lets each row see the one before it; leave it out")
    if length in left_out and (recipe.get(length) or SHORT_COMPLETIONS + 1) <= SHORT_COMPLETIONS:
        tell("note", length, ", the default, where thoughts that are cut off count as wrong; write 2048 for example")
    if recipe.stage == "grpo" and "beta" in left_out and recipe.get("beta") == 0:
        tell(
            "note", "beta", ", the default: nothing holds the model near its start; write 0.04 for example if it drifts"
        )
    if recipe.stage == "grpo" and (dropout := _dropout(recipe)):
        text = f"found {dropout}, with which the policy that is trained is another than the one that sampled"
        text += "; write disable_dropout: true, or 0.0 for a new adapter"
        found.append(Problem(code="surprising_value", level="note", key="lora_dropout", found=text))
    steps = "gradient_accumulation_steps"
    if (
        recipe.stage == "grpo"
        and steps in left_out
        and (batch := generation_of(recipe)).step < FEW_PROMPTS * batch.each
    ):
        tell("note", steps, f", so that a step learns from {batch.step / batch.each:g} prompts; write 8 for example")
    if recipe.stage == "grpo" and recipe.get("use_vllm") and recipe.get("vllm_importance_sampling_correction"):
        for key in [key for key in UNCUT if key in recipe.values and recipe.values[key] not in UNCUT[key]]:
            text = " with use_vllm: true; vLLM's probabilities are of the tokens that it leaves in, TRL's of all, which"
            tell("warning", key, f"{text} biases the importance weights; leave it out")
    return found


def _dropout(recipe: Recipe) -> float:
    """Return the dropout that nobody asked for: that of the adapter that is trained further, or a new one's default."""
    if not recipe.get("use_peft") or recipe.get("disable_dropout") or "lora_dropout" in recipe.values:
        return 0.0
    name = recipe.local(recipe.values.get("model_name_or_path") or "")
    adapter = {} if recipe.get("merge_adapter") else read_object(Path(name) / ADAPTER)
    return float(adapter.get("lora_dropout", recipe.get("lora_dropout")) or 0.0)


def version_findings(backend: str, use_vllm: bool, quantized: bool = False) -> list[Problem]:
    """Compare the installed versions with those that were tested, for a backend, a recipe with vLLM, or one with 4 or 8 bits.

    An error is what is missing or too old, or a TRL that Unsloth does not know; a warning a TRL that was never tested, or the
    one that fails; a note a backend or an engine that is not here, since a check may run elsewhere.
    """
    found = []

    def tell(level: Level, text: str, key: str = "") -> None:
        found.append(Problem(code="untested_version", level=level, key=key, found=text))

    for package, lowest in LOWEST.items():
        has = _installed(package)
        if (has is None or has < Version(lowest)) and (package != "bitsandbytes" or quantized):
            tell("error", f"found {package} {has}, allowed: {lowest} or later; pip install '{package}>={lowest}'")
    for package in [name for name, used in (("unsloth", backend == "unsloth"), ("vllm", use_vllm)) if used]:
        if _installed(package) is None:
            tell("note", f"{package} is not installed here; `run` will ask for pip install 'reasoning-ext[{package}]'")
    trl, with_unsloth = _installed("trl") or Version("0"), backend == "unsloth" and _installed("unsloth") is not None
    most = TOO_NEW["unsloth" if with_unsloth else "trl"]
    if trl >= Version(f"{most}.dev0"):
        text = f"found trl {trl}, tested with backend {backend}: below {most}; pip install 'trl<{most}'"
        tell(*(("error", text, "backend") if with_unsloth else ("warning", text)))
    if not with_unsloth and str(trl).startswith(FAILS):
        tell("warning", f"trl {trl} trains no stage sft without CUDA or XPU; pip install 'trl<{most},!={FAILS}.*'")
    return found


def _installed(package: str) -> Version | None:
    """Return the installed version, None for none; one that cannot be compared is as new as need be."""
    try:
        return Version(version(package))
    except PackageNotFoundError:
        return None
    except InvalidVersion:
        return Version(LOWEST.get(package, "0"))
