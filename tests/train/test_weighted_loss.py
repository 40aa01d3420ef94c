"""The weighted loss: TRL's own at weights of 1, in whole trainings; factors, masks, accumulation, padding."""

import json
import shutil

import pytest
import yaml

from reasoning_ext import pipeline
from reasoning_ext.check import Look
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.runs.folder import DONE
from reasoning_ext.train import sft
from reasoning_ext.train.loss import WeightedLoss
from tests.templates import build, save_model

VALUES = {
    "stage": "sft", "model_name_or_path": "./model", "from_scratch": True, "dataset_name": "./rows.jsonl",
    "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 4, "logging_steps": 1, "save_steps": 2,
    "optim": "sgd", "learning_rate": 0.5, "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "pad_to_multiple_of": 8,
    "bf16": False, "gradient_checkpointing": False, "use_cpu": True, "seed": 3, "eval_strategy": "steps", "eval_steps": 2,
    "dataset_train_split": "train[:6]", "dataset_test_split": "train[6:]",
}  # fmt: skip
ONES = {"thought_weight": 1.0 + 1e-9}  # so near to 1 that only the way of counting differs from TRL's


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train the same very small model on the same rows of unequal length; return `(metrics rows, final weights)`."""
    monkeypatch.setattr(Look, "look", lambda self: None)  # what `check` does has tests of its own
    save_model(tmp_path / "model", build("qwen3"))
    texts = ["<think>" + "so " * (i * 5) + f"x</think>{i + 1}" + "!" * i for i in range(8)]
    rows = [{"prompt": f"{i}+1", "completion": text} for i, text in enumerate(texts)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(name, **more):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(VALUES | {"output_dir": str(tmp_path / name)} | more))
        pipeline.run_recipes([load_recipe(tmp_path / f"{name}.yaml")])
        if not (tmp_path / name / "model.safetensors").is_file():
            return None
        from safetensors.torch import load_file

        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return lines, load_file(tmp_path / name / "model.safetensors")

    return run


def test_at_weights_of_one_it_is_trls_own_in_training_evaluation_and_after_a_resumption(train, tmp_path):
    import torch

    plain, ones = train("plain"), train("ones", **ONES)
    cut = tmp_path / "ones"
    (cut / DONE).unlink()
    shutil.rmtree(cut / "checkpoint-4")
    (cut / "model.safetensors").unlink()
    resumed = train("ones", **ONES)
    for lines, weights in (ones, resumed):
        for key, count in (("loss", 4), ("eval_loss", 2)):
            figures = [[row[key] for row in each if key in row] for each in (plain[0], lines)]
            assert figures[0] == pytest.approx(figures[1], rel=1e-4) and len({*figures[0]}) == count
        for name, tensor in plain[1].items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-5)


def test_the_mean_is_taken_over_the_tokens_of_all_accumulated_batches():
    import torch

    class Outputs:
        logits = torch.zeros(1, 4, 8)

    loss, entropy = WeightedLoss(), float(torch.log(torch.tensor(8.0)))
    labels = torch.tensor([[-100, -100, 1, 2]])
    weights = torch.tensor([[0.0, 0.0, 1.0, 3.0]])
    _, kwargs = loss.take(None, (), {"input_ids": 1, "loss_weights": weights})
    assert kwargs == {"input_ids": 1}
    assert float(loss(Outputs, labels)) == pytest.approx(2 * entropy)
    assert float(loss(Outputs, labels, num_items_in_batch=8)) == pytest.approx(entropy / 2)
    assert float(loss(Outputs, torch.full((1, 4), -100))) == 0.0
    loss.take(None, (), {"loss_weights": torch.tensor([[0.0, 0.0, 0.0, 1.0]])})  # a mute thought counts in the mean
    assert float(loss(Outputs, labels)) == pytest.approx(entropy / 2)


def test_a_collated_batch_pads_weights_as_labels(train, monkeypatch):
    kept = []
    monkeypatch.setattr(sft, "train", lambda trainer, *_: kept.append(trainer) or 130)
    train("collated", thought_weight=0.5, answer_weight=2.0)
    batch = next(iter(kept[0].get_train_dataloader()))
    assert batch["labels"].shape == batch["loss_weights"].shape and batch["labels"].shape[1] % 8 == 0
    assert ((batch["labels"] != -100) == (batch["loss_weights"] > 0)).all()
    assert set(batch["loss_weights"].unique().tolist()) == {0.0, 0.5, 2.0}
