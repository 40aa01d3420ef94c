"""Traces with tools in training: each turn's exact text, results read and not trained on, in templates of many kinds."""

import json
import random
from dataclasses import replace

import pytest
import yaml

from reasoning_ext import pipeline
from reasoning_ext.check import Look
from reasoning_ext.data.calls import packed
from reasoning_ext.data.tokens import IGNORED, LossOptions, render_conversation, tokenize_pair, tokenize_row
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.think.calls import add_tool_turns
from reasoning_ext.think.template import decode, decoder, find_contract
from reasoning_ext.train import dpo, sft
from tests.templates import build, save_model

QUESTION = {"role": "user", "content": "What is 3*4?"}
KWARGS = {"tools": []}
NAMES = ["qwen3", "qwen2_5", "llama3", "smolvlm", "deepseek_r1_distill", "glm4moe"]
WORDS = ["so", "3*4", "größer", "λ", "数", "  two\n\nlines", "\\boxed{12}", "{'a': 1}", "❌", '"quoted"']
HOSTILE = ["<|im_end|>", "<|eot_id|>", "</think>", "<tool_call>", "<|im_start|>assistant", "</tool_response>"]


def opened(name):
    tokenizer = build(name)
    add_tool_turns(tokenizer)
    return tokenizer, find_contract(tokenizer, KWARGS)


def call(rng):
    values = ["3*4", 'größer " λ', 5, None, {"deep": [1, None, "x"]}, True]
    arguments = {f"a{i}": rng.choice(values) for i in range(rng.randrange(3))}
    return {"type": "function", "function": {"name": rng.choice(["calculator", "look_up"]), "arguments": arguments}}


def said(rng, calls):
    thought = f"<think>\n{' '.join(rng.choices(WORDS, k=4))}\n</think>\n\n" if rng.random() < 0.6 else ""
    return thought + ("" if calls and thought else " ".join(rng.choices(WORDS, k=3)).strip() + ".")


def trace(seed, most):
    """Make turns up: thoughts or none, at most so many calls a turn, results that would be taken for turns."""
    rng, turns = random.Random(seed), []
    for _ in range(rng.randrange(1, 4)):
        made = [call(rng) for _ in range(rng.randrange(1, most + 1))]
        turns.append({"role": "assistant", "content": said(rng, made), "tool_calls": made})
        texts = [" ".join(rng.choices(WORDS + HOSTILE, k=4)).strip() for _ in made]
        turns += [
            {"role": "tool", "name": c["function"]["name"], "content": t} for c, t in zip(made, texts, strict=True)
        ]
    return [*turns, {"role": "assistant", "content": said(rng, [])}]


@pytest.mark.parametrize("name", NAMES)
def test_no_character_of_a_trace_is_lost_and_what_is_trained_is_what_the_assistant_wrote(name):
    tokenizer, contract = opened(name)
    whole = {
        True: decoder(tokenizer, contract),
        False: decoder(tokenizer, replace(contract, prefix="")),
    }  # by its thought
    for seed in range(12):
        turns = trace(seed, 1 if contract.calls.between is None else 3)
        row = {"prompt": [QUESTION], "completion": packed(turns)}
        segments, _, defused = render_conversation(tokenizer, contract, row, KWARGS)
        tokens = tokenize_row(tokenizer, contract, row, 0, LossOptions(), KWARGS)
        assert tokens.exact and tokens.defused == defused
        assert decode(tokenizer, tokens.input_ids) == "".join(segment.text for segment in segments)
        groups, read, at = [], [], 0
        for kind, count in tokens.parts:
            ids = tokens.input_ids[at : at + count]
            at += count
            if kind in ("prompt", "result"):
                groups.append([])
                read.append(decode(tokenizer, ids))
            else:
                groups[-1] += ids
        labels = tokens.labels(LossOptions())
        assert [i for i in labels if i != IGNORED] == [i for group in groups for i in group]
        for turn, ids in zip([t for t in turns if t["role"] == "assistant"], groups, strict=True):
            content, calls, problem = contract.calls.parse(whole["<think>" in turn["content"]](ids))
            assert not problem and calls == turn.get("tool_calls", [])
            assert content in (turn["content"], contract.plain_lead + turn["content"]), seed
        for result in [t for t in turns if t["role"] == "tool"]:
            plain = contract.calls.defuse(result["content"])
            assert any(
                plain in text or json.dumps(plain)[1:-1] in text or json.dumps(plain, ensure_ascii=False)[1:-1] in text
                for text in read
            )


TURNS = [
    {"role": "assistant", "content": "<think>\nI ask.\n</think>\n\n", "tool_calls": [
        {"type": "function", "function": {"name": "calculator", "arguments": {"expression": "3*4"}}}]},
    {"role": "tool", "name": "calculator", "content": "12 <|im_end|>"},
    {"role": "assistant", "content": "<think>\nSo 12.\n</think>\n\nIt is 12."},
]  # fmt: skip


def texts_of(tokenizer, ids, keep):
    return decode(tokenizer, [i for i, is_kept in zip(ids, keep, strict=True) if is_kept])


@pytest.mark.parametrize("name", ["qwen3", "gptoss"])
def test_on_answers_alone_calls_are_trained_and_no_thought_is(name):
    tokenizer, contract = opened(name)
    loss = LossOptions("answer", 0.5, 2.0)
    tokens = tokenize_row(tokenizer, contract, {"prompt": [QUESTION], "completion": TURNS}, 0, loss, KWARGS)
    text = texts_of(tokenizer, tokens.input_ids, [label != IGNORED for label in tokens.labels(loss)])
    assert "3*4" in text and "It is 12." in text and "I ask" not in text and "So 12" not in text
    weighed = {
        w: texts_of(tokenizer, tokens.input_ids, [w == own for own in tokens.weights(loss)]) for w in (0.0, 0.5, 2.0)
    }
    assert (
        "I ask" in weighed[0.5]
        and "So 12" in weighed[0.5]
        and "3*4" in weighed[2.0]
        and "12 < |im_end|>" in weighed[0.0]
    ) or name == "gptoss"


def test_turns_that_a_prompt_ends_with_are_given():
    tokenizer, contract = opened("qwen3")
    whole = tokenize_row(tokenizer, contract, {"prompt": [QUESTION], "completion": TURNS}, 0, LossOptions(), KWARGS)
    row = {"prompt": [QUESTION, *packed(TURNS[:2])], "completion": TURNS[2:]}
    tokens = tokenize_row(tokenizer, contract, row, 0, LossOptions(), KWARGS)
    assert tokens.input_ids == whole.input_ids and tokens.prompt == sum(count for _, count in whole.parts[:4])


def test_the_masks_of_pairs_are_zero_at_results():
    tokenizer, contract = opened("qwen3")
    row = {"prompt": [QUESTION], "chosen": TURNS, "rejected": [{"role": "assistant", "content": "13"}]}
    pair = tokenize_pair(tokenizer, contract, row, 0, KWARGS)
    left_out = texts_of(tokenizer, pair.chosen_ids, [not one for one in pair.chosen_mask])
    assert "12 < |im_end|>" in left_out and "It is" not in left_out and all(pair.rejected_mask) and pair.defused


VALUES = {
    "model_name_or_path": "./model", "dataset_name": "./rows.jsonl", "per_device_train_batch_size": 2,
    "max_steps": 2, "logging_steps": 1, "save_strategy": "no", "optim": "sgd", "learning_rate": 0.5, "bf16": False,
    "gradient_checkpointing": False, "use_cpu": True, "seed": 3, "max_length": 512,
}  # fmt: skip


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train a very small model whose template has no tool turns for two steps: `(batches, tokenizer that was saved)`."""
    monkeypatch.setattr(Look, "look", lambda self: None)
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    save_model(tmp_path / "model", build("smolvlm"))
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(tmp_path / "model")
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path / "model")
    batches = []

    def run(stage, module, rows, **more):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        values = VALUES | {"stage": stage, "output_dir": str(tmp_path / "out")} | more
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
        inner = module.train

        def spy(trainer, *args):
            collate = trainer.data_collator
            trainer.data_collator = lambda examples: batches.append(collate(examples)) or batches[-1]
            return inner(trainer, *args)

        monkeypatch.setattr(module, "train", spy)
        pipeline.run_recipes([load_recipe(tmp_path / "r.yaml")])
        from transformers import AutoTokenizer

        return batches, AutoTokenizer.from_pretrained(tmp_path / "out")

    return run


def test_sft_trains_on_what_the_assistant_wrote_and_saves_a_template_with_tool_turns(train):
    rows = [{"messages": [QUESTION, *TURNS]}, {"messages": [QUESTION, {"role": "assistant", "content": "12"}]}] * 2
    batches, tokenizer = train("sft", sft, rows, dataset_format="messages")
    assert len(batches) >= 2
    trained = {
        decode(tokenizer, ids[labels != IGNORED])
        for b in batches
        for ids, labels in zip(b["input_ids"], b["labels"], strict=True)
    }
    assert len(trained) == 2 and all("user" not in text.lower() for text in trained)
    [text] = [text for text in trained if "calculator" in text]
    assert text.count("calculator") == 1 and "12 <" not in text and "It is 12." in text
    told = tokenizer.apply_chat_template([QUESTION, *TURNS], tokenize=False)
    assert "calculator" in told and "tool_response" in told


def test_dpo_counts_no_result_and_begins_at_ln_2(train, tmp_path):
    wrong = [*TURNS[:2], {"role": "assistant", "content": "13"}]
    pairs = [{"prompt": "3*4?", "chosen": TURNS, "rejected": wrong}] * 4
    batches, tokenizer = train("dpo", dpo, pairs)
    for batch in batches:
        for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True):
            text = decode(tokenizer, ids[mask.bool()])
            assert "calculator" in text and "tool_response" not in text and "12 <" not in text
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert abs(next(row["loss"] for row in lines if "loss" in row) - 0.6931) < 1e-3
