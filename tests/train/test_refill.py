"""Groups without a difference are drawn anew: in a real training that is cut off, and in the gradient of a single batch."""

import json
import math
from types import SimpleNamespace

import pyarrow.parquet
import pytest
import torch
import yaml
from conftest import TINY
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from reasoning_ext.check import Look
from reasoning_ext.data.held_out import digests_of
from reasoning_ext.data.row_options import row_options
from reasoning_ext.data.rows import prepare
from reasoning_ext.pipeline import run_recipes
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.runs.folder import RunDir
from reasoning_ext.train.prompts import PassRates, Prompts
from reasoning_ext.train.refill import Rollouts, differing, draw_with, merged

JUDGE = """\
def judge(completions, kind, **kwargs):
    return [{"solved": 1.0, "hopeless": 0.0, "open": float(i % 2)}[one] for i, one in enumerate(kind)]
"""
KINDS = ["open", "solved", "hopeless"]
RECIPE = {
    "stage": "grpo", "model_name_or_path": f"{TINY}/model", "from_scratch": True, "dataset_name": "./rows.jsonl",
    "reward_funcs": ["./mine.py:judge"], "num_generations": 2, "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2, "max_completion_length": 6, "lr_scheduler_type": "constant", "bf16": False,
    "gradient_checkpointing": False, "use_cpu": True, "logging_steps": 1, "save_steps": 5, "beta": 0.0,
}  # fmt: skip


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Write rows of which a third each is open, solved and hopeless, and train on them; return the folder and the metrics."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Look, "look", lambda self: None)  # what `check` does has tests of its own
    (tmp_path / "mine.py").write_text(JUDGE)
    rows = [{"prompt": f"{i}+{'7+' * (i % 3)}1", "answer": "1", "kind": KINDS[i % 3]} for i in range(36)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def call(name, **values):
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(RECIPE | {"output_dir": name} | values))
        assert run_recipes([load_recipe(tmp_path / "r.yaml")]) == 0
        return tmp_path / name, [row for row in lines_of(tmp_path / name / "metrics.jsonl") if "reward" in row]

    return call


@pytest.mark.slow
def test_a_training_rests_refills_and_goes_on_as_if_it_had_not_been_cut(train, tmp_path):
    keys = {"skip_known": {"retry_after": 4}, "refill": {"rounds": 2}}
    straight, metrics = train("straight", max_steps=10, **keys)
    train("cut", max_steps=5, **keys)
    cut, after = train("cut", max_steps=10, **keys)
    lines = lines_of(straight / "pass_rates.jsonl")
    assert lines_of(cut / "pass_rates.jsonl") == lines and [row["step"] for row in after] == [*range(1, 11)]
    for a, b in zip(metrics, after, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-3) and b["rollouts/drawn"] == a["rollouts/drawn"]

    drawn = {step: [line for line in lines if line["step"] == step] for step in range(1, 11)}
    kind = {digests_of([row["prompt"]])[0]: row["kind"] for row in lines_of(tmp_path / "rows.jsonl")}
    last = {}
    for row in metrics:
        rounds = drawn[row["step"]]
        assert row["rollouts/rounds"] == len(rounds) - 1 <= 2 and math.isfinite(row["loss"])
        assert row["rollouts/drawn"] == sum(sum(line["samples"]) for line in rounds) and len(rounds[0]["prompts"]) == 8
        signal = [kind[one] == "open" for line in rounds for one in line["prompts"]]
        assert row["rollouts/with_signal"] == min(8, sum(signal)) / 8
        assert row["frac_reward_zero_std"] == 1 - sum(signal[:8]) / 8  # what TRL logs is of the first draw
        table = pyarrow.parquet.read_table(straight / f"completions/completions_{row['step']:05d}.parquet").to_pylist()
        assert [one["refill_round"] for one in table] == [i for i, line in enumerate(rounds) for _ in sum_of(line)]
        for one in (one for line in rounds for one in line["prompts"]):  # twelve are open, so that nobody is woken
            assert kind[one] == "open" or row["step"] - last.get(one, -4) >= 4
            last[one] = row["step"]
    assert (
        all(row["rollouts/with_signal"] >= 0.75 for row in metrics) and 0 < metrics[-1]["rollouts/resting"] <= 24 / 36
    )

    recipe = {"dataset_name": "./straight/prompts.jsonl", "difficulty": [0.1, 0.9], "output_dir": "next"}
    (tmp_path / "next.yaml").write_text(yaml.safe_dump(RECIPE | recipe))
    assert {*prepare(row_options(load_recipe(tmp_path / "next.yaml"))).rows["kind"]} == {"open"}


@pytest.mark.slow
def test_without_the_keys_trl_draws_and_the_rates_are_kept_and_rounds_have_an_end(train, tmp_path):
    plain, metrics = train("plain", max_steps=4)
    assert not any(name.startswith("rollouts") for name in metrics[0])
    assert [len(line["prompts"]) for line in lines_of(plain / "pass_rates.jsonl")] == [8] * 4
    resting, others = train("resting", max_steps=4, skip_known={"above": 1.0, "below": None, "retry_after": 1})
    first = [lines_of(run / "pass_rates.jsonl")[0]["prompts"] for run in (plain, resting)]
    assert first[0] == first[1] and others[0]["rollouts/drawn"] == 16 and others[0]["rollouts/rounds"] == 0
    (tmp_path / "flat.py").write_text("def flat(completions, **kwargs):\n    return [1.0 for _ in completions]\n")
    _, flat = train("flat", max_steps=2, refill={"rounds": 2}, reward_funcs=["./flat.py:flat"])
    assert [(row["rollouts/rounds"], row["rollouts/drawn"], row["rollouts/with_signal"]) for row in flat] == [
        (2, 48, 0.0)
    ] * 2


def sum_of(line):
    return range(sum(line["samples"]))


def trainer_of(folder, rows):
    """Return a trainer of TRL's, of random weights, whose batches are used twice, and whose completions differ in length."""

    def judge(completions, kind, **kwargs):
        return [{"solved": 1.0, "hopeless": 0.0, "open": float(i % 2)}[one] for i, one in enumerate(kind)]

    torch.manual_seed(0)
    config = GRPOConfig(
        output_dir=str(folder), per_device_train_batch_size=4, gradient_accumulation_steps=2, num_iterations=2,
        num_generations=2, max_completion_length=9, use_cpu=True, bf16=False, gradient_checkpointing=False,
        report_to="none", shuffle_dataset=False, loss_type="dapo", max_steps=1,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(f"{TINY}/model"), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(f"{TINY}/model")
    rows = Dataset.from_list(rows)
    trainer = GRPOTrainer(model, judge, config, train_dataset=rows, processing_class=tokenizer)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 2
    generate, calls = trainer._generate, []

    def shortened(prompts):
        made = list(generate(prompts))
        calls.append(len(prompts))
        made[1] = [ids[: 2 * len(calls) + i % 2] for i, ids in enumerate(made[1])]
        return tuple(made)

    trainer._generate = shortened
    return trainer, calls


def gradient(trainer, batch):
    """Return the losses of both steps of a batch, and what they add up to in each weight."""
    trainer.model.zero_grad()
    losses = [trainer._compute_loss(trainer.model, part) for part in split_tensor_dict(batch, 2)]
    sum(losses).backward()
    return [loss.item() for loss in losses], [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]


def test_the_gradient_is_that_of_a_batch_made_of_the_same_rows(tmp_path):
    rows = [
        {"prompt": [{"role": "user", "content": f"{'7+' * (i % 4)}{i}"}], "kind": kind}
        for i, kind in enumerate(["solved", "open", "hopeless", "open", "hopeless", "open", "open", "open"])
    ]
    trainer, calls = trainer_of(tmp_path, rows)
    generate = trainer._generate_and_score_completions
    Rollouts(trainer, Prompts(trainer, PassRates(trainer, RunDir(tmp_path, False, None), 0), None), 3)
    batch = trainer._generate_and_score_completions([rows[0]] * 8)
    assert calls == [8, 4, 2] and (batch["advantages"] != 0).all()
    widths = [tuple(len({*mask.sum(1).tolist()}) > 1 for mask in (batch["prompt_mask"], batch["completion_mask"]))]
    assert widths == [(True, True)] and batch["old_per_token_logps"].shape == batch["completion_ids"].shape

    def ids(kind):
        return [row[mask == 1].tolist() for row, mask in zip(batch[f"{kind}_ids"], batch[f"{kind}_mask"], strict=True)]

    given = (ids("prompt"), ids("completion"))
    original = trainer._generate
    trainer._generate = lambda prompts: (*given, *original(prompts)[2:])
    same = generate([rows[1]] * 8)
    assert same.keys() == batch.keys() and same["num_items_in_batch"] == batch["num_items_in_batch"]
    assert torch.equal(same["advantages"], batch["advantages"])
    kept = batch["completion_mask"] == 1
    length = same["completion_ids"].shape[1]
    assert torch.allclose(same["old_per_token_logps"][kept[:, :length]], batch["old_per_token_logps"][kept], atol=1e-5)
    trainer._metrics["train"].clear()
    (losses, weights), (others, expected) = gradient(trainer, batch), gradient(trainer, same)
    assert losses == pytest.approx(others, abs=1e-6) and any(w.abs().max() > 1e-4 for w in expected)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(weights, expected, strict=True))


def test_a_refill_without_options_has_its_default_rounds(tmp_path):
    trainer, _ = trainer_of(tmp_path, [{"prompt": [{"role": "user", "content": "1"}], "kind": "open"}])
    for refill, rounds in ((False, None), (None, None), ({}, 3), ({"rounds": 1}, 1), (True, 3)):
        draw_with(trainer, RunDir(tmp_path, False, None), [], None, refill)
        assert getattr(trainer._generate_and_score_completions, "rounds", None) == rounds


def test_rows_of_vllm_and_of_tools_are_padded_as_trl_pads_them():
    def batch(prompt, completion, count, fill):
        ids = torch.full((count, completion), fill)
        return {
            "prompt_ids": torch.full((count, prompt), fill), "prompt_mask": torch.ones(count, prompt, dtype=torch.long),
            "completion_ids": ids, "tool_mask": ids * 0, "importance_sampling_ratio": ids * 2.0,
            "advantages": torch.full((count,), fill), "num_items_in_batch": torch.tensor(7), "num_images": None,
        }  # fmt: skip

    made = merged(batch(1, 4, 3, 5), batch(2, 2, 2, 6), {0: 1, 2: 0}, pad_id=9)
    assert made["prompt_ids"].tolist() == [[6, 6], [9, 5], [6, 6]] and made["prompt_mask"].tolist()[1] == [0, 1]
    assert made["completion_ids"].tolist() == [[6, 6, 9, 9], [5, 5, 5, 5], [6, 6, 9, 9]]
    assert made["tool_mask"].tolist()[0] == [0, 0, 1, 1] and made["advantages"].tolist() == [6, 5, 6]
    assert made["importance_sampling_ratio"].tolist()[2] == [12, 12, 1, 1] and made["num_items_in_batch"] == 7


def test_a_difference_is_one_of_the_weighted_rewards_and_none_is_no_reward():
    nan, weights = math.nan, torch.tensor([1.0, 0.0, 0.5])
    groups = (
        [[1, 5, 0], [1, 3, 0]],
        [[1, 0, 0], [0.5, 0, 1]],
        [[nan] * 3, [1, 0, 0]],
        [[0, 0, 1], [0, 0, nan]],
        [[nan] * 3] * 2,
    )
    rewards = torch.tensor([row for group in groups for row in group])
    assert differing(rewards, weights, 2).tolist() == [False, False, False, True, False]


def test_groups_of_two_processes_are_filled_apart():
    trainer = SimpleNamespace(
        num_generations=1, accelerator=SimpleNamespace(num_processes=2, process_index=1), reward_weights=None,
        _generate_and_score_completions=None, _calculate_rewards=None, _tokenizer=SimpleNamespace(pad_token_id=0),
    )  # fmt: skip
    rollouts = Rollouts(trainer, SimpleNamespace(take=lambda count, rows, awake: [*range(count)][:5]), 3)
    differs = torch.tensor([True, False, False, False, True, False])  # of two processes with three groups each
    assert len(rollouts._further(differs, [])) == 4  # two for each, of five rows that there are
    batch = {"advantages": torch.tensor([0, 1, 0])}
    made = rollouts._filled(
        batch, differs, {"advantages": torch.tensor([8, 9])}, torch.tensor([False, True, True, True])
    )
    assert made["advantages"].tolist() == [8, 1, 9] and differs.tolist() == [True, True, False, True, True, True]
