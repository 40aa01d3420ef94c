"""The weighted loss: TRL's own at weights of 1, in whole trainings; factors, masks, accumulation, evaluation, padding."""

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


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """Train the same very small model on the same rows of unequal length; return `(metrics rows, final weights)`."""
    root = tmp_path_factory.mktemp("weighted")
    save_model(root / "model", build("qwen3"))
    rows = [
        {"prompt": f"{i}+1", "completion": "<think>" + "so " * (i * 5) + f"x</think>{i + 1}" + "!" * i}
        for i in range(8)
    ]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(name, **more):
        values = {
            "stage": "sft", "model_name_or_path": "./model", "from_scratch": True, "dataset_name": "./rows.jsonl",
            "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 4, "logging_steps": 1,
            "optim": "sgd", "learning_rate": 0.5, "lr_scheduler_type": "constant", "max_grad_norm": 0.0,
            "bf16": False, "gradient_checkpointing": False, "use_cpu": True, "seed": 3, "output_dir": str(root / name),
        }  # fmt: skip
        (root / f"{name}.yaml").write_text(yaml.safe_dump(values | more))
        assert pipeline.run_recipes([load_recipe(root / f"{name}.yaml")]) == 0
        from safetensors.torch import load_file

        lines = [json.loads(line) for line in (root / name / "metrics.jsonl").read_text().splitlines()]
        return lines, load_file(root / name / "model.safetensors")

    run.folder = root
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Look, "look", lambda self: None)  # what `check` does has tests of its own
        yield run


def losses(lines):
    return [row["loss"] for row in lines if "loss" in row]


@pytest.fixture(scope="module")
def plain(train):
    return train("plain")


ONES = {"thought_weight": 1.0 + 1e-9}  # so near to 1 that only the way of counting differs from TRL's


def test_at_weights_of_one_it_is_trls_own(train, plain):
    import torch

    lines, weights = train("ones", **ONES)
    assert losses(lines) == pytest.approx(losses(plain[0]), rel=1e-4) and len(losses(lines)) == 4
    for name, tensor in plain[1].items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-5)
    started = train("still", learning_rate=0.0, **ONES)[1]
    assert any(not torch.allclose(started[name], tensor, atol=1e-3) for name, tensor in plain[1].items())


def test_a_factor_is_a_factor(train, plain):
    lines, _ = train("doubled", thought_weight=2.0, answer_weight=2.0, max_steps=1)
    assert losses(lines)[0] == pytest.approx(2 * losses(plain[0])[0], rel=1e-4)


def test_a_weight_of_zero_trains_nothing_of_the_thought(train, plain):
    import torch

    answer, _ = train("answer", train_on="answer", max_steps=1)
    zero, _ = train("zero", thought_weight=0.0, max_steps=1)
    mute, _ = train("mute", answer_weight=0.0, max_steps=1)
    assert losses(zero)[0] + losses(mute)[0] == pytest.approx(losses(plain[0])[0], rel=1e-4)
    # The same sum, over all trained tokens in the place of the answer's alone.
    assert losses(zero)[0] < losses(answer)[0]
    assert torch.isfinite(torch.tensor(losses(answer)[0]))


def test_evaluation_padding_and_resumption(train):
    more = {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "dataset_train_split": "train[:4]",
        "dataset_test_split": "train[4:]",
    }
    more |= {"save_steps": 2, "pad_to_multiple_of": 8, **ONES}
    again, weights = train("cut", **more)
    cut = train.folder / "cut"
    (cut / DONE).unlink()
    shutil.rmtree(cut / "checkpoint-4")
    (cut / "model.safetensors").unlink()
    resumed, after = train("cut", **more)
    assert losses(resumed)[-2:] == pytest.approx(losses(again)[-2:], rel=1e-4)
    import torch

    for name, tensor in weights.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-4, atol=1e-5)


def test_evaluation_is_trls_own_too(train):
    more = {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "dataset_train_split": "train[:4]",
        "dataset_test_split": "train[4:]",
    }
    own, _ = train("own", **more)
    ours, _ = train("ours", **more, **ONES)
    figures = [[row["eval_loss"] for row in lines if "eval_loss" in row] for lines in (own, ours)]
    assert len(figures[0]) == 2 and figures[0] == pytest.approx(figures[1], rel=1e-4)


def test_the_mean_is_taken_over_the_tokens_of_all_accumulated_batches():
    import torch

    class Outputs:
        logits = torch.zeros(1, 4, 8)

    loss = WeightedLoss()
    labels = torch.tensor([[-100, -100, 1, 2]])
    weights = torch.tensor([[0.0, 0.0, 1.0, 3.0]])
    _, kwargs = loss.take(None, (), {"input_ids": 1, "loss_weights": weights})
    assert kwargs == {"input_ids": 1}
    entropy = float(torch.log(torch.tensor(8.0)))
    assert float(loss(Outputs, labels)) == pytest.approx(2 * entropy)
    assert float(loss(Outputs, labels, num_items_in_batch=8)) == pytest.approx(entropy / 2)
    assert float(loss(Outputs, torch.full((1, 4), -100))) == 0.0


def test_a_collated_batch_pads_weights_as_labels(train, monkeypatch):
    kept = []
    monkeypatch.setattr(sft, "train", lambda trainer, *_: kept.append(trainer) or 130)
    values = yaml.safe_load((train.folder / "plain.yaml").read_text())
    values |= {
        "thought_weight": 0.5,
        "answer_weight": 2.0,
        "pad_to_multiple_of": 8,
        "output_dir": str(train.folder / "collated"),
    }
    path = train.folder / "collated.yaml"
    path.write_text(yaml.safe_dump(values))
    pipeline.run_recipes([load_recipe(path)])
    batch = next(iter(kept[0].get_train_dataloader()))
    assert batch["labels"].shape == batch["loss_weights"].shape and batch["labels"].shape[1] % 8 == 0
    assert ((batch["labels"] != -100) == (batch["loss_weights"] > 0)).all()
    assert set(batch["loss_weights"].unique().tolist()) == {0.0, 0.5, 2.0}
