"""`ask`: a run is asked as it was trained, within the model's context, and every answer is seen."""

import contextlib
import json
import logging
import subprocess
import sys

import pytest
import transformers
from conftest import TINY

from reasoning_ext.data.lineage import prompt_settings, run_of, run_recipe
from reasoning_ext.errors import UserError
from reasoning_ext.evaluate.ask import ask_and_print, split_style
from reasoning_ext.pipeline import run_recipes
from reasoning_ext.recipe.load import load_recipe, load_recipes

TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}<|assistant|>{% generation %}{{ message.content }}<|end|>{% endgeneration %}
{%- else -%}<|{{ message.role }}|>{{ message.content }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ lead }}<|assistant|>{%- endif -%}"""
RECIPE = f"""\
stage: sft
model_name_or_path: {TINY / "model"}
from_scratch: true
dataset_name: ./rows.jsonl
chat_template_path: ./lead.jinja
chat_template_kwargs: {{lead: "77"}}
think_tags: ["(", ")"]
system_prompt: "12"
max_steps: 2
save_steps: 1
max_length: 128
gradient_checkpointing: false
use_cpu: true
output_dir: runs/sft
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the run `runs/sft`, of two steps."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "lead.jinja").write_text(TEMPLATE)
    (folder / "sft.yaml").write_text(RECIPE)
    rows = [{"prompt": f"{a}+1", "completion": f"<think>{a}</think>{a + 1}"} for a in range(16)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with contextlib.chdir(folder):
        assert run_recipes(load_recipes(["sft.yaml"])) == 0
    return folder


@pytest.fixture(autouse=True)
def loud_again():
    """`ask` silences every library in its process."""
    yield
    logging.disable(logging.NOTSET)


def ask(question="3+4", model="runs/sft", system_prompt=None):
    ask_and_print(model, question, 1, 0.0, 2048, 0, system_prompt)


@pytest.mark.parametrize(
    ("model", "more", "system"),
    [("", None, "<|system|>12"), ("/checkpoint-1", None, "<|system|>12"), ("", "5", "<|system|>5"), ("", "", "")],
)
def test_a_run_is_asked_as_it_was_trained(trained, monkeypatch, model, more, system):
    monkeypatch.chdir(trained)
    asked = {}
    monkeypatch.setattr(transformers.LlamaForCausalLM, "generate", lambda self, **kwargs: asked.update(kwargs))
    ask(model=f"runs/sft{model}", system_prompt=more)
    [ids] = asked["input_ids"]
    assert transformers.AutoTokenizer.from_pretrained("runs/sft").decode(ids) == f"{system}<|user|>3+477<|assistant|>"
    assert asked["max_new_tokens"] == 256 - len(ids)  # what is left of the model's context


def test_every_answer_is_shown_and_nothing_foreign(trained):
    command = [sys.executable, "-m", "reasoning_ext", "ask", "runs/sft", "3+4", "-n", "3", "--max-completion-length=8"]
    done = subprocess.run(command, cwd=trained, capture_output=True, text=True, timeout=300)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and done.stderr == ""
    assert lines[0].endswith("1 of 3:") and lines[-1].startswith("vote: ")
    assert [line.partition(":")[0][-6:] for line in lines[-3:-1]] == ["2 of 3", "3 of 3"]
    assert any("cut off after 8 tokens" in line for line in lines)


def test_what_fills_the_context_ends_there_and_what_leaves_no_room_or_is_no_text_is_refused(
    trained, monkeypatch, capsys
):
    monkeypatch.chdir(trained)
    ask("3+4*7" * 48)
    assert "cut off after 9 tokens" in capsys.readouterr().out
    for question, said in (("3+4*7" * 60, "256"), ("3+4\udcff", "UTF-8")):
        with pytest.raises(UserError, match=said):
            ask(question)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_thought_alone_is_dimmed_however_it_comes(size):
    text, shown, dimmed = " <think>6*7</think>The answer: <b>42</b>", "", ""
    for start in range(0, len(text), size):
        for part, thought in split_style(text[: start + size], start, "<think>", "</think>"):
            shown += part
            dimmed += part if thought else ""
    assert shown == text
    assert dimmed.endswith("6*7</think>") and dimmed in "<think>6*7</think>"


def test_the_recipes_of_a_run_say_how_its_prompts_are_written(trained, write_recipe, monkeypatch):
    monkeypatch.chdir(trained)
    assert run_of("runs/sft") == run_of("./runs/sft/") and run_of("runs") is None and run_of("a/hub_name") is None
    assert run_of("runs/sft/checkpoint-2") == (trained / "runs" / "sft").resolve()
    assert prompt_settings(run_recipe(run_of("runs/sft"))) == [("12", {"lead": "77"})]
    text = "stage: sft\noutput_dir: x\nsystem_prompt: S\nchat_template_kwargs: {a: 1}\ndatasets:\n"
    text += "- {dataset_name: a.jsonl}\n- {dataset_name: b.jsonl}\n"
    assert prompt_settings(load_recipe(write_recipe(text))) == [("S", {"a": 1})]
    text += "- {dataset_name: c.jsonl, system_prompt: T, chat_template_kwargs: {b: 2}}\n"
    assert prompt_settings(load_recipe(write_recipe(text)))[1:] == [("T", {"a": 1, "b": 2})]
