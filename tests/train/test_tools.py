"""TRL's loop of tools in its real trainer, with turns that are written here in the place of generated ones."""

import json
import math
import signal
import subprocess
import sys

import pyarrow.parquet
import pytest
import templates
import torch
import yaml
from conftest import TINY
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from trl import GRPOConfig, GRPOTrainer

from reasoning_ext.check import Look
from reasoning_ext.engines.base import Completion, behind_results
from reasoning_ext.engines.opening import toolbox
from reasoning_ext.engines.transformers import TransformersEngine
from reasoning_ext.pipeline import run_recipes
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.scoring.call import build_rewards, decode_with
from reasoning_ext.scoring.spec import parse_rewards
from reasoning_ext.think.calls import add_tool_turns
from reasoning_ext.think.template import decoder, find_contract
from reasoning_ext.think.turns import render_turns
from reasoning_ext.tools.spec import template_kwargs
from reasoning_ext.train.audit import Audit
from reasoning_ext.train.callbacks import WeightSchedule
from reasoning_ext.train.observe import observe
from reasoning_ext.train.tools import grpo_trainer

TOOLS = '''\
import time

def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first.
        b: the second.
    """
    return a + b

def nap(seconds: float) -> str:
    """Sleep.

    Args:
        seconds: how long.
    """
    began = time.time()
    time.sleep(seconds)
    return f"{began} {time.time()}"

def say(what: str, much: bool = False) -> str:
    """Say something.

    Args:
        what: the words.
        much: more of them.
    """
    return what

class World:
    """A line to walk on."""

    def reset(self, start, **kwargs):
        self.at = start
        return f" from {start}"

    def step(self, by: int) -> str:
        """Walk.

        Args:
            by: steps.
        """
        self.at += by
        return f"at {self.at}"

class Paying(World):
    def get_reward(self):
        return 1 / (self.at - 5)
'''
JUDGE = """\
seen = []

def judge(completions, environments=None, **kwargs):
    seen.append((completions, [one.at for one in environments or ()]))
    return [float(one[-1]["content"].endswith("5")) for one in completions]
"""


def call(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def tiny(tokenizer):
    sizes = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    return AutoModelForCausalLM.from_config(
        LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=4096, **sizes), dtype=torch.float32
    )


@pytest.fixture
def training(tmp_path):
    """Build a trainer of N completions whose turns are given: `(content, calls..)` or, cut off, a text, a list a round."""
    (tmp_path / "mine.py").write_text(TOOLS)
    (tmp_path / "judge.py").write_text(JUDGE)
    boxes = []

    def build(rounds, most=4, length=600, template="", **keys):
        torch.manual_seed(0)
        listed = [{f"./mine.py:{name}": {"seconds": 2}} for name in ("add", "nap", "say")]
        (tmp_path / "r.yaml").write_text(yaml.safe_dump({"stage": "grpo", "tools": listed, **keys}))
        recipe, count = load_recipe(tmp_path / "r.yaml"), len(rounds[0])
        tokenizer = templates.build(template) if template else AutoTokenizer.from_pretrained(f"{TINY}/model")
        kwargs = template_kwargs(recipe)
        add_tool_turns(tokenizer)
        decodes = decoder(tokenizer, find_contract(tokenizer, kwargs))
        config = GRPOConfig(
            output_dir=str(tmp_path / "run"), per_device_train_batch_size=count, num_generations=count, max_steps=1,
            use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", max_completion_length=length,
            logging_steps=1, log_completions=True, num_completions_to_print=0, max_tool_calling_iterations=most,
        )  # fmt: skip
        rows = Dataset.from_list([{"prompt": [{"role": "user", "content": "2+3"}], "start": 5}] * count)
        rewards = build_rewards(parse_rewards(["./judge.py:judge"], tmp_path))
        decode_with(rewards, decodes, looped=True)
        boxes.append(toolbox(recipe))
        trainer = grpo_trainer(
            boxes[-1], kwargs, decodes, reward_funcs=rewards, args=config, model=tiny(tokenizer), train_dataset=rows,
            processing_class=tokenizer,
        )  # fmt: skip
        trainer.add_callback(Audit(trainer, [], decodes))
        script, read, contract = iter(rounds), [], decodes.contract

        def written(turn):
            said, *calls = (turn,) if isinstance(turn, str) else turn
            end = "" if isinstance(turn, str) else contract.calls.end if calls else contract.end
            return (contract.calls.write(said, calls) if calls else said) + end

        def turn(prompt_ids, *args, **kwargs):
            read.append([tokenizer.decode(ids) for ids in prompt_ids])
            return [tokenizer(written(one), add_special_tokens=False)["input_ids"] for one in next(script)], None

        trainer._generate_single_turn = turn
        trainer.model.train()
        return trainer, read, rewards[0].function.__globals__["seen"], decodes

    yield build
    for box in boxes:
        box.close()


def drawn(trainer):
    return trainer._generate_and_score_completions(list(trainer.train_dataset))


def metrics(trainer):
    return {name: values[0] for name, values in trainer._metrics["train"].items()}


# of Qwen3 TRL has a form and swaps the template; llama3's knows no tools, and the tiny model's neither
@pytest.mark.parametrize("template", ["", "qwen3", "llama3"])
def test_calls_are_answered_and_rewards_see_every_message_whole(training, template):
    broken = 'x<tool_call>\n{"name": "add"'
    rounds = [
        [("<think>a</think>", call("add", a=2, b=3), call("add", a=1, b=1)), (broken,)],
        [("<think>b</think>5",), ("", call("sub", a=1))],
        [("no",)],
    ]
    trainer, read, seen, decodes = training(rounds, template=template)
    batch, tokenizer = drawn(trainer), trainer.processing_class
    [([one, other], _)] = seen
    results = [{"role": "tool", "name": "add", "content": content} for content in ("5", "2")]
    assert one == [
        {"role": "assistant", "content": "<think>a</think>", "tool_calls": [*rounds[0][0][1:]]}, *results,
        {"role": "assistant", "content": "<think>b</think>5"},
    ]  # fmt: skip
    assert [message["role"] for message in other] == ["assistant", "tool", "assistant", "tool", "assistant"]
    assert other[0] == {"role": "assistant", "content": broken} and other[4]["content"] == "no"
    assert other[1]["content"].startswith("error: ") and other[3]["content"].startswith("error: ")

    kwargs, prompt = trainer._generate.__self__.template_kwargs, [{"role": "user", "content": "2+3"}]
    for completion, ids, mask in zip((one, other), batch["completion_ids"], batch["tool_mask"], strict=True):
        segments = render_turns(tokenizer, decodes.contract, prompt, completion, kwargs)
        count = int((ids != tokenizer.pad_token_id).sum())
        assert read[0][0] + tokenizer.decode(ids[:count]) == "".join(text for text, kind in segments)
        trained = "".join(text for text, kind in segments if kind in ("thought", "answer"))
        assert tokenizer.decode(ids[:count][mask[:count] == 1]) == trained
    found = metrics(trainer)
    assert (found["tools/add/calls"], found["tools/malformed"], found["tools/unknown/errors"]) == (2, 1, 1)
    assert found["tools/call_frequency"] == 2 and found["tools/failure_frequency"] == 0.5
    assert found["completions/clipped_ratio"] == 0 and found["completions/thinks"] == 0.5


def test_a_turn_behind_results_has_no_thought_that_the_prompt_of_the_first_one_opened(training):
    rounds = [[("a</think>", call("add", a=2, b=3)), ("a</think>5",)], [("b5",)]]
    trainer, _, seen, _ = training(rounds, template="deepseekv3")  # only its first prompt opens one
    drawn(trainer)
    [([one, other], _)] = seen
    assert [message["content"] for message in one] == ["<think>\na</think>", "5", "b5"]
    assert other == [{"role": "assistant", "content": "<think>\na</think>5"}]
    user, tool, begun = ({"role": role, "content": "x"} for role in ("user", "tool", "assistant"))
    assert [*map(behind_results, ([user], [user, begun], [tool], [tool, begun]))] == [False, False, True, True]


def test_nothing_of_it_is_the_tokenizers(training, tmp_path):
    trainer, *_ = training([[("5",), ("4",)]])
    trainer.processing_class.save_pretrained(tmp_path / "saved")
    assert "response_template" not in (tmp_path / "saved/tokenizer_config.json").read_text()
    assert "eos_token" not in (tmp_path / "saved/chat_template.jinja").read_text() and trainer.chat_template is None


def test_calls_that_are_not_run_any_more_are_letters(training):
    asks = ("<think>a</think>", call("add", a=2, b=3))
    trainer, read, seen, decodes = training([[asks, "<think>and so on" * 20], [asks]], most=1)
    drawn(trainer)
    [([one, other], _)] = seen
    assert [message["role"] for message in one] == ["assistant", "tool", "assistant"] and len(read) == 2
    assert one[-1] == {"role": "assistant", "content": decodes.contract.calls.write(asks[0], asks[1:])}
    assert other == [{"role": "assistant", "content": "<think>and so on" * 20}]
    assert metrics(trainer)["tools/add/calls"] == 1


@pytest.mark.slow
def test_a_batch_is_answered_at_once_and_a_tool_that_hangs_ends_nothing(training, tmp_path):
    naps = [("", call("nap", seconds=0.5))] * 14
    asks = [*naps, ("", call("nap", seconds=60.0)), ("", call("say", what="a", much=True))]
    trainer, _, seen, _ = training([asks, [(f"{i}",) for i in range(16)]])
    box, counts = trainer._generate.__self__.box, []
    run, box.run = box.run, lambda calls: counts.append(len(calls)) or run(calls)
    trainer.train()
    assert counts == [16]
    [(completions, _)] = seen
    spans = [[*map(float, one[1]["content"].split())] for one in completions[:14]]
    assert max(sum(begin <= at < end for begin, end in spans) for at, _ in spans) > 1
    assert completions[14][1]["content"].startswith("error: ") and completions[15][1]["content"] == "a"
    [log] = [row for row in trainer.state.log_history if "reward" in row]
    assert (log["tools/nap/calls"], log["tools/nap/timeouts"], log["tools/say/calls"]) == (15, 1, 1)
    [file] = (tmp_path / "run/completions").glob("*.parquet")
    table = pyarrow.parquet.read_table(file).to_pylist()
    assert json.loads(table[15]["turns"]) == completions[15][:-1] and table[15]["whole"] == "15"
    assert table[15]["completion"] == [completions[15][-1]] or table[15]["completion"].endswith(
        ">15"
    )  # TRL 1.14's text
    assert table[15]["tool_tokens"] > 0 and table[15]["tokens"] < len(str(asks[15])) + 20


def test_an_environment_is_acted_on(training):
    rounds = [[("", call("step", by=2)), ("5",)], [("", call("step", by=3))], [("a",)]]
    trainer, read, seen, _ = training(rounds, environment="./mine.py:World")
    drawn(trainer)
    [([one, _], places)] = seen
    assert places == [10, 5] and "2+3 from 5" in read[0][0] and "at 10" in read[2][0]
    assert [message["content"] for message in one if message["role"] == "tool"] == ["at 7", "at 10"]
    assert metrics(trainer)["tools/step/calls"] == 2


def test_an_environments_own_reward_is_one_more_behind_the_recipes(training, tmp_path):
    rounds = [[("", call("step", by=2)), ("5",)], [("5",)]]
    trainer, *_ = training(rounds, environment="./mine.py:Paying")
    box, given = trainer._generate.__self__.box, []
    act, box.act = box.act, lambda items: given.append([method for _, method, _ in items]) or act(items)
    specs = parse_rewards([{"./judge.py:judge": {"schedule": {"steps": {0: 0.5, 9: 0.0}}}}], tmp_path)
    WeightSchedule(trainer, specs).on_step_begin(trainer.args, trainer.state, trainer.control)
    observe(trainer, lambda *args: given.append(args[-1].tolist()))
    drawn(trainer)
    [*_, asked, [paid, failed]] = given
    assert asked == ["get_reward"] * 2 and trainer.reward_weights.tolist() == [0.5, 1.0]
    assert paid == [1.0, 0.5] and failed[0] == 1.0 and math.isnan(failed[1])
    found = metrics(trainer)
    assert (found["rewards/judge/mean"], found["rewards/Paying/mean"], found["reward"]) == (1.0, 0.5, 0.75)
    assert (found["tools/get_reward/calls"], found["tools/get_reward/errors"]) == (2, 1)


RUN = """\
import json, os, pathlib, signal, sys, torch
from trl import GRPOTrainer
from reasoning_ext.pipeline import run_recipes
from reasoning_ext.recipe.load import load_recipe

kill_at = -1

def turn(self, prompt_ids, *args, **kwargs):
    if self.state.global_step == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    said = []
    for ids in prompt_ids:
        behind = "tool_response>" in self.processing_class.decode(ids).rpartition("<|user|>")[2]
        number = int(torch.randint(4, 7, ()))
        step = json.dumps({"name": "step", "arguments": {"by": number}})
        said.append(f"{number}" if behind or number == 6 else f"<tool_call>{step}</tool_call>")
    return [self.processing_class(f"{one}<|end|>")["input_ids"] for one in said], None

GRPOTrainer._generate_single_turn = turn
if __name__ == "__main__":
    kill_at = 3
    run_recipes([load_recipe(pathlib.Path("r.yaml"))])
"""


@pytest.fixture
def recipe(tmp_path):
    """Write what a recipe with tools needs, and return it."""
    templates.save_model(tmp_path / "model", AutoTokenizer.from_pretrained(f"{TINY}/model"))
    (tmp_path / "mine.py").write_text(TOOLS)
    (tmp_path / "judge.py").write_text(JUDGE)
    rows = [{"prompt": f"{i}+{i}", "answer": "5", "start": 5} for i in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "stage": "grpo", "model_name_or_path": "./model", "from_scratch": True, "dataset_name": "./rows.jsonl",
        "reward_funcs": ["./judge.py:judge"], "num_generations": 2, "per_device_train_batch_size": 4,
        "max_completion_length": 256, "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "logging_steps": 1,
        "refill": {"rounds": 2}, "output_dir": str(tmp_path / "run"),
    }  # fmt: skip


@pytest.mark.slow
def test_a_run_with_tools_that_is_killed_ends_with_the_same_weights(recipe, tmp_path, monkeypatch, capfd):
    recipe |= {
        "environment": "./mine.py:Paying", "max_steps": 4, "save_steps": 2, "learning_rate": 1e-2, "seed": 3,
        "output_dir": str(tmp_path / "cut"),
    }  # fmt: skip
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    assert subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, check=False).returncode == -signal.SIGKILL
    monkeypatch.setattr(Look, "look", lambda self: None)  # what `check` does has tests of its own
    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", GRPOTrainer._generate_single_turn)
    exec(RUN, {"__name__": "patch"})  # noqa: S102
    weights = {}
    for name in ("cut", "straight"):
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe | {"output_dir": str(tmp_path / name)}))
        assert run_recipes([load_recipe(tmp_path / "r.yaml")]) == 0
        assert ("goes on from" in capfd.readouterr().out) == (name == "cut")
        weights[name] = load_file(tmp_path / name / "model.safetensors")
    torch.testing.assert_close(weights["cut"], weights["straight"])
    start = load_file(tmp_path / "straight/checkpoint-2/model.safetensors")
    assert any(not torch.allclose(value, start[name]) for name, value in weights["straight"].items())
    cut, straight = ((tmp_path / name / "pass_rates.jsonl").read_text() for name in weights)
    assert cut == straight


@pytest.mark.slow
def test_a_recipe_with_tools_trains_refills_and_is_measured(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(Look, "look", lambda self: None)  # what `check` does has tests of its own
    seen = []

    def turn(self, prompt_ids, *args, **kwargs):
        texts = [self.processing_class.decode(ids) for ids in prompt_ids]
        seen.extend(texts)
        asks = json.dumps(call("add", a=2, b=3)["function"])
        said = [
            f"{len(seen) % 3 + 4 + i % 2}" if "tool_response>" in text.rpartition("<|user|>")[2]
            else f"<tool_call>{asks}</tool_call>" for i, text in enumerate(texts)
        ]  # fmt: skip
        return [self.processing_class(f"{one}<|end|>")["input_ids"] for one in said], None

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", turn)
    recipe |= {
        "audit": ["exact_answer"], "tools": ["./mine.py:add"], "max_steps": 2,
        "test_size": 2, "eval_problems": {"n": 2, "max_completion_length": 8},
    }  # fmt: skip
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    assert run_recipes([load_recipe(tmp_path / "r.yaml")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "reward" in line]
    assert [line["tools/add/calls"] for line in steps] == [4, 4] and all(
        "audit/exact_answer/gap" in line for line in steps
    )
    assert all(line["rollouts/rounds"] in (0, 1, 2) for line in steps)
    assert any("held_out/greedy" in line for line in lines)
    assert '"name": "add"' in seen[0] and len(pyarrow.parquet.read_table(tmp_path / "run/completions")) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_held_out_problems_of_traces_are_answered_with_the_tools(recipe, tmp_path, monkeypatch, stage):
    monkeypatch.setattr(Look, "look", lambda self: None)  # what `check` does has tests of its own
    tokenizer = AutoTokenizer.from_pretrained(f"{TINY}/model")
    tiny(tokenizer).save_pretrained(tmp_path / "model")
    asks, asked = json.dumps(call("add", a=2, b=3)["function"]), []

    def generate(self, prompts, keys, settings):
        last = [prompts[p][-1] for p, _ in keys]
        asked.extend(last)
        said = [one["content"] if one["role"] == "tool" else f"<tool_call>{asks}</tool_call>" for one in last]
        yield [Completion(*key, text, [], True, 1) for key, text in zip(keys, said, strict=True)]

    monkeypatch.setattr(TransformersEngine, "generate", generate)
    columns = {"sft": {"completion": "4"}, "dpo": {"chosen": "5", "rejected": "4"}}[stage]
    rows = [{"prompt": f"{i}+{i}", "answer": "5", **columns} for i in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = ("model_name_or_path", "dataset_name", "per_device_train_batch_size", "use_cpu", "bf16", "output_dir")
    recipe = {name: recipe[name] for name in kept} | {
        "stage": stage, "tools": ["./mine.py:add"], "max_steps": 1, "test_size": 2, "gradient_checkpointing": False,
        "eval_problems": {"n": 2, "max_completion_length": 64, "reward_funcs": ["exact_answer"]},
    }  # fmt: skip
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    assert run_recipes([load_recipe(tmp_path / "r.yaml")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/held_out.jsonl").read_text().splitlines()]
    assert [line["figures"]["greedy"][0] for line in lines] == [1.0, 1.0]
    assert {"role": "tool", "name": "add", "content": "5"} in asked
