"""What a policy is held against in GRPO's KL term and in DPO: the model as it was when training began.

TRL makes the reference by itself: a new adapter is switched off, an adapter that is trained further is kept as a copy, and a
whole model is loaded once more by its name. What that name does not tell, and what the copy gets wrong, is set right here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reasoning_ext.errors import Problem
from reasoning_ext.models.adapter import is_adapter
from reasoning_ext.models.loaded import Loaded, ModelError, base_revision
from reasoning_ext.models.source import ModelSource
from reasoning_ext.recipe.load import Recipe


def reference_below_adapter(recipe: Recipe) -> Iterator[Problem]:
    """All weights are trained after an adapter is merged, and the reference would be the model below it.

    Nothing is said of a model that an earlier recipe has yet to make; it is asked again before that model is loaded.
    """
    name = recipe.local(recipe.values.get("model_name_or_path") or "")
    if recipe.stage not in ("grpo", "dpo") or recipe.get("use_peft") or not is_adapter(name):
        return
    below = f"whose reference would be the model below the adapter {name}; write use_peft: true"
    if recipe.stage == "grpo" and recipe.get("beta"):
        yield recipe.problem("beta", f"found a KL term, {below} or 0")
    elif recipe.stage == "dpo" and recipe.get("backend") == "trl" and not recipe.get("precompute_ref_log_probs"):
        yield recipe.problem("use_peft", f"found false, {below}, or precompute_ref_log_probs: true")


def load_reference_as(loaded: Loaded, source: ModelSource, config: Any) -> None:
    """Let TRL load the reference of a whole model as the model was loaded: it knows the name, and not the revision and dtype.

    Args:
        loaded: the model.
        source: what it was loaded from.
        config: TRL's config, whose `model_init_kwargs` are changed; they come from the recipe where it has some.

    Raises:
        ModelError: another model's template has brought new tokens along, which a model of that name does not have.
    """
    if added := len(loaded.tokenizer) - len(source.load_tokenizer()[0]):
        found = f"found {source.values.get('chat_template_path')}, whose template brings {added} new tokens"
        problem = f"{found}, which the reference model would not know; write use_peft: true"
        raise ModelError("chat_template_path", problem)
    own = reference_arguments(loaded.model, base_revision(source.name, source.values.get("model_revision")))
    if own:
        config.model_init_kwargs = own | (config.model_init_kwargs or {})


def reference_arguments(model: Any, revision: str | None) -> dict[str, Any]:
    """Return the arguments that load a model again as it was loaded, none where TRL's own do."""
    own = {"dtype": str(model.dtype).removeprefix("torch."), "attn_implementation": model.config._attn_implementation}
    if revision not in (None, "main"):
        own["revision"] = revision
    return own if own.get("revision") or model.dtype.itemsize < 4 else {}


def check_reference(trainer: Any, source: ModelSource, key: str, other: str) -> None:
    """Let an adapter's reference be the model as it was at the start, without a second copy of the base weights.

    TRL keeps a copy of an adapter that is trained further as the adapter "ref", in float32, and trains the other one in
    bfloat16 on quantised weights: the copy gets the same dtype, or the two would differ from the first step on. A new adapter
    is switched off. What DPO computes beforehand (`precompute_ref_log_probs`) is still the float32 copy's: 3e-4 in the loss.

    Args:
        trainer: TRL's, built.
        source: what its model was loaded from.
        key: the recipe's key to blame.
        other: what else to write there.

    Raises:
        ModelError: the trainer has no such copy, as Unsloth's may not, and would take the model below the adapter.
    """
    adapters = getattr(trainer.model, "peft_config", {})
    if not adapters:
        return
    continued = is_adapter(source.name) and not source.options.merge_adapter
    if continued and "ref" not in adapters:
        problem = "found a reference that would be the model below the adapter with these versions"
        raise ModelError(key, f"{problem}; write {other}merge_adapter: true")
    own = dict(trainer.model.named_parameters())
    for name, parameter in own.items():
        if ".ref." in name:
            parameter.data = parameter.data.to(own[name.replace(".ref.", ".default.")].dtype)
