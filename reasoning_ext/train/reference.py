"""What a policy is held against in GRPO's KL term and in DPO: the model as it was when training began.

TRL makes the reference by itself: a new adapter is switched off, an adapter that is trained further is kept as a
copy, and a whole model is loaded once more by its name. What that name does not tell, and what the copy gets wrong,
is set right here.
"""

from __future__ import annotations

from typing import Any

from reasoning_ext.models.adapter import is_adapter
from reasoning_ext.models.loaded import Loaded, ModelError
from reasoning_ext.models.source import ModelSource


def load_reference_as(loaded: Loaded, source: ModelSource, config: Any) -> None:
    """Let TRL load the reference of a whole model in its revision and dtype; it knows the name alone.

    Raises ModelError where another model's template has brought new tokens along, which a model of that name does not
    have.
    """
    if added := len(loaded.tokenizer) - len(source.tokenizer()):
        found = f"found {source.options.chat_template_path}, whose template brings {added} new tokens"
        problem = f"{found}, which the reference model would not know; write use_peft: true"
        raise ModelError("chat_template_path", problem)
    config.model_init_kwargs = reference_arguments(loaded.model, source.revision) | (config.model_init_kwargs or {})


def reference_arguments(model: Any, revision: str | None) -> dict[str, Any]:
    """Return the arguments that load a model again as it was loaded, none where TRL's own do."""
    own = {"dtype": str(model.dtype).removeprefix("torch."), "attn_implementation": model.config._attn_implementation}
    if revision not in (None, "main"):
        return own | {"revision": revision}
    return own if model.dtype.itemsize < 4 else {}


def check_reference(trainer: Any, source: ModelSource, key: str, hint: str) -> None:
    """Let an adapter's reference be the model as it was at the start, without a second copy of the base weights.

    TRL keeps a copy of an adapter that is trained further as the adapter "ref", in float32, and trains the other one
    in bfloat16 on quantised weights: the copy gets the same dtype, or the two would differ from the first step on.
    What DPO computes beforehand (`precompute_ref_log_probs`) is still the float32 copy's: 3e-4 in the loss.

    Raises ModelError of `key` where the trainer has no such copy, as Unsloth's may not.
    """
    adapters = getattr(trainer.model, "peft_config", {})
    if adapters and is_adapter(source.name) and not source.options.merge_adapter and "ref" not in adapters:
        found = "found a reference that would be the model below the adapter with these versions"
        raise ModelError(key, found, hint=hint)
    own = dict(trainer.model.named_parameters())
    for name, parameter in own.items() if adapters else ():
        if ".ref." in name:
            parameter.data = parameter.data.to(own[name.replace(".ref.", ".default.")].dtype)
