"""A cross-entropy in which thought and answer tokens weigh differently, put into TRL's SFTTrainer from outside.

The weights travel with the batch: the collator pads them, a hook takes them off before the model sees them, and
`compute_loss_func`, which TRL and transformers offer, applies them. What tools answered in a side of a pair is left out
of DPO's sums by another collator.
"""

from __future__ import annotations

from typing import Any

from reasoning_ext.data.tokens import MASKS

WEIGHTS = "loss_weights"


class WeightedLoss:
    """Mean over the trained tokens of weight x cross-entropy; called by the trainer, and as a hook by the model."""

    weights_BT: Any = None

    def take(self, module: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Keep the batch's weights and hide them from the model; a forward pre-hook."""
        self.weights_BT = kwargs.pop(WEIGHTS, self.weights_BT)
        return args, kwargs

    def __call__(self, outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        """Return the loss, a scalar, of logits (B, T, V) and labels (B, T), -100 where nothing is trained.

        The mean is over `num_items_in_batch` trained tokens, those of all accumulation steps; None: those of this
        batch.
        """
        import torch

        logits_NV = outputs.logits[:, :-1].float().flatten(0, 1)
        labels_N = labels[:, 1:].to(logits_NV.device).flatten()
        weights_N = self.weights_BT[:, 1:].to(logits_NV.device).flatten()
        losses_N = torch.nn.functional.cross_entropy(logits_NV, labels_N, reduction="none", ignore_index=-100)
        count = (labels_N != -100).sum() if num_items_in_batch is None else num_items_in_batch
        return (losses_N * weights_N).sum() / torch.as_tensor(count, device=logits_NV.device).clamp(min=1)


def weigh(model: Any, tokenizer: Any, config: Any) -> dict[str, Any]:
    """Prepare a model and its SFTConfig for weights, and return the further arguments of SFTTrainer."""
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
    from trl.trainer.utils import pad

    class Collator(DataCollatorForLanguageModeling):
        """TRL's own, which also pads the weights."""

        def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
            """Return a batch: ids, labels, attention mask and weights, each (B, T)."""
            batch = super().torch_call(examples)
            weights = [torch.tensor(example[WEIGHTS], dtype=torch.float32) for example in examples]
            return {**batch, WEIGHTS: pad(weights, 0.0, "right", self.pad_to_multiple_of)}

    loss = WeightedLoss()
    model.register_forward_pre_hook(loss.take, with_kwargs=True)
    config.remove_unused_columns = False
    config.loss_type = "nll"  # TRL's chunked one, its default, has no logits for another loss to use
    collator = Collator(pad_token_id=tokenizer.pad_token_id, pad_to_multiple_of=config.pad_to_multiple_of)
    return {"compute_loss_func": loss, "data_collator": collator}


def mask_results(tokenizer: Any, config: Any) -> dict[str, Any]:
    """Prepare a DPOConfig for pairs with masks, and return the further arguments of DPOTrainer.

    The policy and the reference read what tools answered; no log probability of it counts.
    """
    import torch
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    class Collator(DataCollatorForPreference):
        """TRL's own, whose mask of completions leaves out what `chosen_mask` and `rejected_mask` do."""

        def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
            """Return a batch as TRL has it, chosen sides (B, T) and then rejected ones."""
            batch = super().torch_call(examples)
            mask = batch["completion_mask"]
            for number, (name, example) in enumerate((name, example) for name in MASKS for example in examples):
                begin = len(example["prompt_ids"])
                own = torch.tensor(example[name], dtype=mask.dtype, device=mask.device)
                mask[number, begin : begin + len(own)] *= own
            return batch

    config.remove_unused_columns = False
    return {"data_collator": Collator(tokenizer.pad_token_id, pad_to_multiple_of=config.pad_to_multiple_of)}
