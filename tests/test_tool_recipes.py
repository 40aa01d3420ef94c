"""The recipes that teach tools: tasks whose traces are true, a model folder that renders them in few tokens, and all stages."""

import doctest
import json
import random
from itertools import islice

import pytest
from conftest import ROOT
from reasoning_ext.rewards.exact_answer import exact_answer
from transformers import AutoTokenizer

from reasoning_ext.pipeline import run_recipes
from reasoning_ext.recipe.load import load_recipes
from reasoning_ext.recipe.user_code import import_file
from reasoning_ext.runs.folder import DONE
from reasoning_ext.think.calls import TOOLS, add_tool_turns
from reasoning_ext.think.template import find_contract
from reasoning_ext.think.turns import render_turns
from reasoning_ext.tools.library.calculator import calculator
from reasoning_ext.tools.library.search import search

MODEL = ROOT / "recipes" / "tiny_tools" / "model"
FACTS = ROOT / "recipes" / "search_facts" / "facts.jsonl"
products = import_file(ROOT / "recipes" / "tiny_tools" / "products.py").products
facts = import_file(ROOT / "recipes" / "search_facts" / "facts.py").facts
game = import_file(ROOT / "examples" / "environment" / "guessing.py")


def calls_of(row):
    """Return what a trace's calls say, with what answered each."""
    turns = row["completion"]
    calls = [turn["tool_calls"][0]["function"]["arguments"] for turn in turns if turn.get("tool_calls")]
    return list(zip(calls, (turn["content"] for turn in turns if turn["role"] == "tool"), strict=True))


@pytest.mark.parametrize("task", [products, facts])
def test_rows_depend_on_seed_and_index_alone_and_splits_share_nothing_hard(task):
    ten, thousand = list(task("train", num_rows=10)), list(task("train", num_rows=1000))
    assert ten == thousand[:10] == [*islice(task("train"), 10)] != list(task("train", 1, 10))
    hard = [{row["prompt"][0]["content"] for row in task(split, 0, 500, 1.0)} for split in ("train", "test")]
    assert hard[0].isdisjoint(hard[1]) and min(map(len, hard)) > 100


@pytest.mark.parametrize("task", [products, facts])
def test_what_is_called_is_right_and_what_is_guessed_is_wrong(task):
    for hard, calls, right in ((1.0, 1.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 1.0), (0.0, 0.0, 1.0)):
        rows = list(task("train", 0, 200, hard, calls, calls))
        assert exact_answer([row["completion"] for row in rows], [row["answer"] for row in rows]) == [right] * 200
        assert [len(calls_of(row)) for row in rows] == [int(calls)] * 200


def test_the_results_in_traces_are_those_of_the_tools():
    for row in products("train", 0, 100, 0.5, 1.0, 1.0):
        [(said, result)] = calls_of(row)
        assert calculator(**said) == result == row["answer"]
    for row in facts("test", 0, 50, 0.5, 1.0, 1.0):
        [(said, result)] = calls_of(row)
        assert search(**said, corpus=str(FACTS), k=1) == result


def test_the_model_folder_is_what_the_script_writes_and_a_call_is_short(tmp_path):
    make = import_file(ROOT / "recipes" / "tiny_tools" / "make_model.py")
    made = make.tokenizer()
    made.save_pretrained(tmp_path)
    make.config(64, 2, 4, made).save_pretrained(tmp_path)
    for file in MODEL.iterdir():
        kept, now = (
            [line for line in (folder / file.name).read_text().splitlines() if "_version" not in line]
            for folder in (MODEL, tmp_path)
        )
        assert kept == now, file.name
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    add_tool_turns(tokenizer)
    assert tokenizer.chat_template == make.TEMPLATE  # it has tool turns of its own
    contract = find_contract(tokenizer, {TOOLS: []})
    for task in (products, facts):
        for row in task("train", 0, 100, 0.5, 0.5, 0.5):
            rendered = render_turns(tokenizer, contract, row["prompt"], row["completion"], {TOOLS: []})
            text = "".join(part.text for part in rendered)
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.decode(ids) == text and len(ids) <= 56


def test_a_game_is_won_in_three_guesses_by_the_middle_and_seldom_otherwise():
    assert doctest.testmod(game).failed == 0
    for secret in range(1, game.MOST + 1):
        assert game.play(secret, random.Random(0), True)[1] == secret
    blind = [game.play(secret, random.Random(seed), False)[0] for secret in range(1, 8) for seed in range(50)]
    assert 0.3 < sum(turns[-1]["content"] == "right" for turns in blind) / len(blind) < 0.6


SMALL = {"max_steps": "2", "save_steps": "2", "max_samples": "16", "max_completion_length": "40"}


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["recipes/tiny_tools", "recipes/search_facts", "examples/environment"])
def test_all_stages_run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipes = load_recipes([str(ROOT / folder)], SMALL | {"per_device_train_batch_size": "16"})
    assert run_recipes(recipes) == 0
    runs = tmp_path / "runs" / folder.partition("/")[2]
    assert len(list(runs.glob(f"*/{DONE}"))) == len(recipes)
    rows = [json.loads(line) for line in (runs / "2_grpo" / "metrics.jsonl").read_text().splitlines()]
    assert any("reward" in row for row in rows)
