"""The think contract in whole trainings: the batch that reaches the model, what rewards see, what is generated and streamed."""

import json

import pytest
import yaml

from reasoning_ext import pipeline
from reasoning_ext.check import Look
from reasoning_ext.engines.base import SamplingSettings
from reasoning_ext.engines.transformers import TransformersEngine
from reasoning_ext.evaluate.replay import score_and_print
from reasoning_ext.models import load
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.think import content
from reasoning_ext.think.template import find_contract
from reasoning_ext.think.tokenizer import load_tokenizer
from reasoning_ext.train import grpo, sft
from tests.templates import TEMPLATES, build, save_model, template_text

WHOLE = "<think>\n3+4=7\n</think>\n\nThe answer is \\boxed{7}."
COMMON = {
    "bf16": False,
    "gradient_checkpointing": False,
    "use_cpu": True,
    "logging_steps": 1,
    "model_name_or_path": "./model",
}
COMPLETIONS = [WHOLE, "The answer is \\boxed{7}.", "<think>\nSeven, and it says <|im_end|>.\n</think>\n\n7"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Write and run a recipe beside the model; return its metrics."""

    monkeypatch.setattr(Look, "look", lambda self: None)  # what `check` does has tests of its own

    def call(values, name="out"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(COMMON | {"output_dir": str(tmp_path / name)} | values))
        pipeline.run_recipes([load_recipe(path)])
        lines = tmp_path / name / "metrics.jsonl"
        return [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []

    return call


@pytest.fixture
def sft_values(tmp_path):
    rows = [{"prompt": "What is 3+4?", "completion": completion} for completion in COMPLETIONS]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    size = {"per_device_train_batch_size": 3, "max_steps": 1, "max_length": 512, "from_scratch": True}
    return {"stage": "sft", "dataset_name": "./rows.jsonl", **size}


def batch_of(run, monkeypatch, values):
    """Return `(trainer, its first batch)` of a recipe that is not trained."""
    kept = []
    monkeypatch.setattr(sft, "train", lambda trainer, *_: kept.append(trainer) or 130)
    run(values)
    return kept[0], next(iter(kept[0].get_train_dataloader()))


def trained_texts(trainer, batch):
    """Decode the labels, cut at each turn's end."""
    end = trainer.processing_class.convert_tokens_to_ids(find_contract(trainer.processing_class).end)
    texts, ids = [], []
    for label in batch["labels"].flatten().tolist():
        if label != -100:
            ids.append(label)
        if label == end:
            texts.append(trainer.processing_class.decode(ids))
            ids = []
    assert not ids, "something is trained on behind the last turn's end"
    return texts


LABELS = ["qwen3", "qwen3_5_think", "deepseek_r1_distill", "llama3", "gemma3", "phi3_5", "glm4moe"]


@pytest.mark.parametrize(("name", "packing"), [*((name, False) for name in LABELS), ("qwen3", True), ("phi3_5", True)])
def test_the_labels_of_a_batch_are_the_exact_traces(run, sft_values, tmp_path, monkeypatch, capsys, name, packing):
    tokenizer = build(name)
    contract = find_contract(tokenizer)
    save_model(tmp_path / "model", tokenizer)
    trainer, batch = batch_of(run, monkeypatch, sft_values | {"packing": packing})
    texts = [text.removesuffix(contract.end) for text in trained_texts(trainer, batch)]
    assert sorted(texts) == sorted(contract.native(c).removeprefix(contract.prefix) for c in COMPLETIONS)
    assert trainer.processing_class.pad_token_id not in (contract.end_id, trainer.processing_class.eos_token_id)
    ends = trainer.model.generation_config.eos_token_id
    assert contract.end_id in (ends if isinstance(ends, list) else [ends])
    for labels, mask in zip(batch["labels"], batch["attention_mask"], strict=True) if not packing else ():
        assert [i for i in labels.tolist() if i != -100][-1] == contract.end_id
        assert (labels[mask == 0] == -100).all() and (labels == -100).any()
    if name == "qwen3":  # whose end of a turn stands in a text
        assert "trained on as letters: 3 rows, found 1" in capsys.readouterr().out


def stub_generation(monkeypatch, ids, short, pad_id):
    """Let every model write `ids`, and every second time `short`; return what it was asked for."""
    import torch
    from transformers import GenerationMixin

    asked = []

    def written(self, inputs=None, **kwargs):
        prompts = kwargs.get("input_ids", inputs)
        asked.append((prompts, kwargs))
        rows = [(ids, short)[i % 2] for i in range(len(prompts))]
        longest = max(map(len, rows))
        completions = torch.tensor([row + [pad_id] * (longest - len(row)) for row in rows])
        return torch.cat([prompts.cpu(), completions], 1)

    monkeypatch.setattr(GenerationMixin, "generate", written)
    return asked


def written_ids(tokenizer, contract, whole):
    """Return the ids that a model writes for a whole completion, with the turn's end."""
    text = whole.removeprefix(contract.prefix) if contract.prefix else contract.native(whole)
    return tokenizer(text + contract.end, add_special_tokens=False)["input_ids"]


def grpo_values(tmp_path, prompt="What is 3+4?", **more):
    rows = [{"prompt": [{"role": "user", "content": prompt}], "answer": "7"} for _ in range(4)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = {"num_generations": 4, "per_device_train_batch_size": 8, "max_steps": 1, "max_completion_length": 64}
    rewards = {"reward_funcs": ["math_answer", "think_format"], "from_scratch": True}
    return {"stage": "grpo", "dataset_name": "./prompts.jsonl", **sizes, **rewards, **more}


CASES = [
    ("deepseek_r1_distill", True, False), ("qwen3", False, False), ("qwen3", False, True), ("qwen3_5_think", True, False),
    *((name, False, False) for name in ("gptoss", "phi3_5", "gemma3", "glm4moe") if name in TEMPLATES),
]  # fmt: skip


@pytest.mark.parametrize("name, special, parsed", CASES)
def test_rewards_of_a_training_see_whole_completions(run, tmp_path, monkeypatch, capsys, name, special, parsed):
    import pyarrow.parquet
    from trl.chat_template_utils import add_response_schema

    tokenizer = build(name, special)
    if parsed:  # TRL's parser takes the thought out of the content
        tokenizer = add_response_schema(tokenizer)
    contract = find_contract(tokenizer)
    assert contract.parser == parsed
    save_model(tmp_path / "model", tokenizer)
    good, bad = (written_ids(tokenizer, contract, text) for text in (WHOLE, "<think>\n3+4=8\n</think>\n\n8"))
    asked = stub_generation(monkeypatch, good, bad, tokenizer.pad_token_id)
    [metrics] = [row for row in run(grpo_values(tmp_path)) if "reward" in row]
    assert metrics["rewards/think_format/mean"] == 1.0 and metrics["rewards/math_answer/mean"] == 0.5
    assert metrics["completions/clipped_ratio"] == 0.0, "the turn's end is not known as an end"
    table = pyarrow.parquet.read_table(next((tmp_path / "out" / "completions").glob("*.parquet"))).to_pylist()
    texts = {row["whole"] if contract.changes_text else content(row["completion"]) for row in table}
    answers = {text.split("</think>")[1].strip() for text in texts}
    assert answers == {"The answer is \\boxed{7}.", "8"} and all(text.strip().startswith("<think>") for text in texts)
    asking = contract.messages([{"role": "user", "content": "What is 3+4?"}])
    prompts = [[i for i in row if i != tokenizer.pad_token_id] for row in asked[0][0].tolist()]
    assert tokenizer.apply_chat_template(asking, add_generation_prompt=True, tokenize=False) in map(
        tokenizer.decode, prompts
    )
    capsys.readouterr()
    score_and_print(tmp_path / "out", None, ["think_format"])
    assert "1.0" in capsys.readouterr().out


def test_prompts_come_to_trl_in_the_templates_own_form():
    from datasets import Dataset

    contract = find_contract(build("gptoss"))
    said = zip(("user", "assistant", "user"), ("1?", "<think>a</think>b", "2?"), strict=True)
    rows = [{"prompt": [{"role": role, "content": text} for role, text in said], "answer": "7"}]
    [row] = grpo.written(Dataset.from_list(rows), contract)
    assert row["prompt"][1]["content"] == "b" and row["prompt"][1][contract.field] == "a"


def test_a_turns_end_becomes_the_tokenizers_only_where_prompts_stay_the_same():
    tokenizer = build("phi3_5")
    grpo.end_at_turns(tokenizer, find_contract(tokenizer))
    assert tokenizer.eos_token == "<|end|>"
    end = "('<|end|>' if m.role == 'assistant' else '')"
    tokenizer = build("phi3_5", text="{% for m in messages %}{{ eos_token + m.content + " + end + " }}{% endfor %}")
    contract = find_contract(tokenizer)
    grpo.end_at_turns(tokenizer, contract)
    assert tokenizer.eos_token == "<|endoftext|>" and contract.end == "<|end|>"


Settings = SamplingSettings(max_completion_length=40, temperature=0.0)


@pytest.mark.parametrize("name", ["deepseek_r1_distill", "gptoss", "phi3_5"])
def test_generation_stops_at_the_turns_end_and_returns_whole_texts(tmp_path, monkeypatch, name):
    tokenizer = build(name, special_tags=True)
    contract = find_contract(tokenizer)
    loaded = loaded_model(save_model(tmp_path / "model", tokenizer))
    good = written_ids(tokenizer, contract, WHOLE)
    asked = stub_generation(monkeypatch, good, good[:-5], tokenizer.pad_token_id)
    prompts = [[{"role": "user", "content": "3+4?"}]]
    [[first, second]] = list(TransformersEngine(loaded, 2).generate(prompts, [(0, 0), (0, 1)], Settings))
    assert first.finished and first.ids == good and first.text.startswith("<think>")
    assert first.text.endswith("The answer is \\boxed{7}.")
    assert not second.finished or second.ids[-1] == tokenizer.pad_token_id
    assert contract.end_id in asked[0][1]["eos_token_id"]


def loaded_model(folder, **options):
    from trl import ModelConfig

    return load.load_model(str(folder), ModelConfig(dtype="float32"), load.LoadOptions(from_scratch=True, **options))


def streaming(ids):
    """Return a `generate` that writes the ids of an answer, streamed as transformers does: the prompt first."""
    import torch

    def generate(input_ids, streamer, eos_token_id, **_):
        written = ids[: next((n for n, i in enumerate(ids, 1) if i in eos_token_id), len(ids))]
        streamer.put(input_ids)
        for i in written:
            streamer.put(torch.tensor([i]))
        streamer.end()
        return torch.cat([input_ids, torch.tensor([written])], -1)

    return generate


@pytest.mark.parametrize("name", ["deepseek_r1_distill", "qwen3", "qwen3_5_think"])
def test_asking_streams_a_whole_answer_without_the_turns_end_and_a_failure(tmp_path, capsys, monkeypatch, name):
    from rich.console import Console

    from reasoning_ext.evaluate.streaming import StreamingEngine

    tokenizer = build(name, True)
    loaded = loaded_model(save_model(tmp_path / "model", tokenizer))
    asked = ([[{"role": "user", "content": "3+4?"}]], [(0, 0)], Settings)

    def answered():
        [[completion]] = StreamingEngine(loaded, Console(soft_wrap=True)).generate(*asked)
        return completion.text

    monkeypatch.setattr(loaded.model, "generate", streaming(written_ids(tokenizer, loaded.contract, WHOLE)))
    assert answered() == WHOLE and capsys.readouterr().out.rstrip("\n") == WHOLE

    def fail(**_):
        raise MemoryError("too long")

    monkeypatch.setattr(loaded.model, "generate", fail)
    with pytest.raises(MemoryError, match="too long"):
        answered()


def test_a_base_model_gets_the_default_template_and_keeps_it(run, sft_values, tmp_path, monkeypatch):
    tokenizer = build("llama3")
    tokenizer.chat_template = None
    save_model(tmp_path / "model", tokenizer)
    run(sft_values, "sft")
    again = load_tokenizer(str(tmp_path / "sft"))
    contract = find_contract(again)
    prompt = again.apply_chat_template([{"role": "user", "content": "1?"}], add_generation_prompt=True, tokenize=False)
    assert prompt == "<|begin_of_text|>User:\n1?\n\nAssistant:\n" and contract.end == "<|eot_id|>"
    stub_generation(
        monkeypatch, written_ids(again, contract, WHOLE), written_ids(again, contract, "8"), again.pad_token_id
    )
    values = grpo_values(tmp_path, model_name_or_path=str(tmp_path / "sft"), from_scratch=False)
    [metrics] = [row for row in run(values, "grpo") if "reward" in row]
    assert metrics["rewards/think_format/mean"] == 0.5 and metrics["rewards/math_answer/mean"] == 0.5


@pytest.mark.parametrize("how", ["file", "folder"])
def test_another_template_is_used_in_every_stage(run, sft_values, tmp_path, monkeypatch, how):
    tokenizer = build("llama3")
    save_model(tmp_path / "model", tokenizer)
    (tmp_path / "r1.jinja").write_text(template_text("qwen3_5_think"))
    save_model(tmp_path / "other", build("qwen3_5_think"))
    path = {"file": "./r1.jinja", "folder": "./other"}[how]
    trainer, batch = batch_of(run, monkeypatch, sft_values | {"chat_template_path": path})
    tokenizer = trainer.processing_class
    contract = find_contract(tokenizer)
    assert contract.prefix == "<think>\n"
    assert contract.end == {"file": "<|eot_id|>", "folder": "<|im_end|>"}[how]
    texts = trained_texts(trainer, batch)
    assert any(text.startswith("3+4=7\n</think>") for text in texts)
    assert trainer.model.get_input_embeddings().num_embeddings >= len(tokenizer)
