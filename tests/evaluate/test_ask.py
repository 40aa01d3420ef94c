"""`ask`: a run is asked as it was trained, within the model's context, turn by turn, and every answer is seen."""

import contextlib
import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import transformers
from conftest import TINY
from rich.console import Console

from reasoning_ext.data.lineage import prompt_settings, run_of, run_recipe
from reasoning_ext.engines.base import Completion, SamplingSettings
from reasoning_ext.engines.transformers import TransformersEngine
from reasoning_ext.errors import UserError
from reasoning_ext.evaluate.ask import Conversation, ask_all, ask_and_print, questions
from reasoning_ext.evaluate.choice import Choice, choose, parse_choice
from reasoning_ext.evaluate.streaming import split_style
from reasoning_ext.pipeline import run_recipes
from reasoning_ext.recipe.load import load_recipe, load_recipes
from reasoning_ext.think.calls import CallFormat, call_of

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


GREEDY = SamplingSettings(2048, 0.0)
COMMAND = [sys.executable, "-m", "reasoning_ext", "ask", "runs/sft"]


def ask(question="3+4", model="runs/sft", system_prompt=None, settings=GREEDY):
    ask_and_print([model], question, Choice(), settings, system_prompt)


@pytest.fixture
def answers(monkeypatch):
    """Let an engine answer with these texts in turn, eight tokens each; returns them and the calls that it had."""
    texts, calls = [], []

    def generate(self, prompts, keys, settings):
        for row, sample in keys:
            calls.append((prompts[row], settings))
            yield [Completion(row, sample, texts.pop(0), [1] * 8, True, 8, logprob=-1.0 - sample)]

    monkeypatch.setattr(TransformersEngine, "generate", generate)
    return texts, calls


def typed(monkeypatch, text, terminal=False):
    """Put bytes into standard input."""
    stdin = io.TextIOWrapper(io.BytesIO(text))
    stdin.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stdin", stdin)


@pytest.mark.parametrize(
    ("model", "more", "system"),
    [("", None, "<|system|>12"), ("/checkpoint-1", None, "<|system|>12"), ("", "5", "<|system|>5"), ("", "", "")],
)
def test_a_run_is_asked_as_it_was_trained(trained, monkeypatch, model, more, system):
    monkeypatch.chdir(trained)
    asked = {}
    monkeypatch.setattr(
        transformers.LlamaForCausalLM, "generate", lambda self, **kwargs: asked.update(kwargs) or asked["input_ids"]
    )
    ask(model=f"runs/sft{model}", system_prompt=more)
    [ids] = asked["input_ids"]
    assert transformers.AutoTokenizer.from_pretrained("runs/sft").decode(ids) == f"{system}<|user|>3+477<|assistant|>"
    assert asked["max_new_tokens"] == 256 - len(ids)  # what is left of the model's context


def test_every_answer_is_shown_and_nothing_foreign(trained):
    options = ["--strategy=weighted_vote:3:mean_logprob", "--max-completion-length=8", "--min-thinking=2"]
    done = subprocess.run([*COMMAND, "3+4", *options], cwd=trained, capture_output=True, text=True, timeout=300)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and done.stderr == ""
    assert lines[0].endswith("1 of 3:") and re.fullmatch(
        r"\d+ tokens in 3 completions, \d of them forced, [\d.]+ s", lines[-1]
    )
    place = next(i for i, line in enumerate(lines) if line.startswith("vote: "))
    assert [line.partition(":")[0][-6:] for line in lines[place - 2 : place]] == ["2 of 3", "3 of 3"]
    assert re.search(r"weighted_vote 3 by mean_logprob: completion [123], score 0", lines[place + 1])


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


def test_a_conversation_goes_on_from_answers_without_their_thoughts(trained, monkeypatch, answers, capsys):
    monkeypatch.chdir(trained)
    texts, calls = answers
    texts += ["<think>3+4</think> 7\n", "<think>never closed", "<think>7+1</think>8"]
    typed(monkeypatch, b"3+4\n\nand 1 more\n 2 more \n/quit\n9\n")
    ask(None)
    system, turn = {"role": "system", "content": "12"}, {"role": "user", "content": "3+4"}
    kept = [system, turn, {"role": "assistant", "content": "7"}]
    asked = [[system, turn], *([*kept, {"role": "user", "content": text}] for text in ("and 1 more", "2 more"))]
    assert [prompt for prompt, _ in calls] == asked
    said = [line for line in capsys.readouterr().out.splitlines() if line[:1] == ">"]
    assert said == ["> 3+4", "> and 1 more", "> 2 more"]


@pytest.mark.parametrize("end", ["", "/quit", None])
def test_what_is_typed_ends_with_nothing_or_quit(monkeypatch, end):
    lines = iter(["a", " b ", end, "c"])

    def read(prompt):
        if (line := next(lines)) is None:
            raise EOFError
        return line

    typed(monkeypatch, b"", terminal=True)
    monkeypatch.setattr("builtins.input", read)
    assert list(questions()) == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "said"), [(b"", "no question"), (b"\n/quit\n3\n", "no question"), (b"3+\xff\n", "UTF-8")]
)
def test_lines_without_a_question_or_that_are_no_text_are_refused(trained, monkeypatch, answers, given, said):
    monkeypatch.chdir(trained)
    typed(monkeypatch, given)
    with pytest.raises(UserError, match=said):
        ask(None)


def test_no_room_is_left_for_the_next_turn(trained, monkeypatch, answers):
    monkeypatch.chdir(trained)
    texts, calls = answers
    texts += ["8" * 120, "9"]
    typed(monkeypatch, b"3+4\n" + b"5" * 200 + b"\n")
    with pytest.raises(UserError, match=r"conversation.* 256"):
        ask(None, settings=replace(GREEDY, thinking_budget=255))
    assert len(calls) == 1 and calls[0][1].max_completion_length < 250


def test_what_a_bounded_thought_takes_back_is_marked_and_what_is_put_there_shown(trained, monkeypatch, answers, capsys):
    monkeypatch.chdir(trained)
    answers[0].extend(["<think>1</think>7", "<think>1\nWait 3+4=7</think>7"])
    ask(settings=replace(GREEDY, min_thinking=4))
    assert "[taken back] \nWait\n" in capsys.readouterr().out
    assert answers[1][1][0][-1] == {"role": "assistant", "content": "<think>1\nWait"}


def test_two_models_answer_side_by_side_on_a_terminal_and_else_in_turn(trained, monkeypatch, answers, capsys):
    monkeypatch.chdir(trained)
    answers[0].extend(["<think>a</think>7", "<think>b</think>8"])
    models = ["runs/sft", "runs/sft/checkpoint-1"]
    ask_and_print(models, "3+4", Choice(), GREEDY)
    said = [line for line in capsys.readouterr().out.splitlines() if "tokens" not in line]
    assert said == ["runs/sft:", "", "runs/sft/checkpoint-1:", ""]  # of what is scripted nothing streams
    answers[0].extend(["<think>a</think>7", f"<think>b</think>{'7' * 60}"] * 2)
    console = Console(file=io.StringIO(), force_terminal=True, highlight=False, soft_wrap=True, width=80)
    ask_all([Conversation(model, Choice(2), GREEDY, None) for model in models], "3+4", console)
    told = console.file.getvalue()
    rows = [line for line in told.splitlines() if line.count("16 tokens in 2") == 2 or "runs/sft" in line]
    assert len(rows) == 2 and all(model in rows[0] for model in models)
    assert "…" not in told and told.count("7" * 15) >= 4


CHOICES = [  # strategy, which is taken of three completions: the scores of mean_logprob are 0.9, 0.05 and 0.1
    ("self_consistency:3", 1),
    ("weighted_vote:3:mean_logprob", 0),
    ("weighted_vote:3:step_check", 1),
    ("best_of:3:mean_logprob", 0),
    ("best_of:3:step_check", 1),
]


@pytest.mark.parametrize(("strategy", "taken"), CHOICES)
def test_a_strategy_takes_the_completion_that_its_score_says(strategy, taken):
    said = {"<think>3+4=8, 4+4=8</think>8": -0.1, "<think>3+4=7</think>7": -3.0, "<think>so</think>It is 7.": -2.3}
    completions = [Completion(0, i, text, [1], True, 1, logprob=said[text]) for i, text in enumerate(said)]
    prompt, choice = [{"role": "user", "content": "3+4"}], parse_choice(strategy, SamplingSettings())
    assert choice.n == 3 and choice.logprobs == ("mean_logprob" in strategy)
    assert choose(choice, prompt, completions)[0] == taken
    empty = [replace(completion, text="<think>", logprob=None, tokens=0) for completion in completions]
    assert choose(choice, prompt, empty)[0] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--strategy=vote:3"], "unknown strategy.*vote:3"),
        (["--strategy=self_consistency:3:step_check"], "unknown strategy"),
        (["--strategy=best_of:8"], "by: .*missing"),
        (["--strategy=self_consistency"], "n: .*missing"),
        (["--strategy=best_of:1:step_check"], "found 1,"),
        (["--strategy=best_of:x:step_check"], "found 'x'"),
        (["--strategy=best_of:8:math_answer"], "reads the gold"),
        (["--strategy=best_of:8:nothing"], "unknown reward"),
        (["--strategy=self_consistency:8", "--temperature=0"], "temperature 0"),
        (["--strategy=self_consistency:8", "-n", "4"], "-n 4"),
        (["--thinking-budget=16", "--max-completion-length=16"], "--thinking-budget: found 16"),
        (["--min-thinking=20", "--max-completion-length=16"], "--min-thinking: found 20"),
        (["--min-thinking=20", "--thinking-budget=16"], "--min-thinking: found 20"),
    ],
)
def test_options_that_cannot_work_end_in_a_line_before_a_model_is_loaded(monkeypatch, capsys, options, said):
    from reasoning_ext import cli

    monkeypatch.setattr(sys, "argv", ["reasoning-ext", "ask", "no/such/model", "3+4", *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    line = capsys.readouterr().err
    assert ended.value.code == 2 and re.search(said, line) and line.count("\n") == 1


def test_a_chat_on_a_terminal_ends_with_ctrl_c_and_a_closed_pipe_without_a_traceback(trained):
    ours, theirs = pty.openpty()
    chat = subprocess.Popen(COMMAND, cwd=trained, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    seen = b""
    for awaited, then in ((b"> ", b"3+4\n"), (b"tokens, ", b""), (b"> ", b"")):
        while awaited not in seen:
            seen += os.read(ours, 1024)
        os.write(ours, then)
        seen = seen.partition(awaited)[2] if awaited != b"> " or then else seen
    chat.send_signal(2)
    with contextlib.suppress(OSError):
        os.write(ours, b"\n")  # a signal between the prompt and the read is seen when that ends
    assert chat.wait(300) == 130
    os.close(ours)
    shell = f"{' '.join(COMMAND)} 3+4 -n 3 --max-completion-length 8 | head -n 1"
    done = subprocess.run(["sh", "-c", shell], cwd=trained, capture_output=True, text=True, timeout=300)
    assert done.stdout.count("\n") == 1 and done.stderr == ""


TOOL = '''
def lookup(word: str) -> str:
    """Looks a word up.

    Args:
        word: the word.
    """
    return f"[bold]{word}\\x1b]0;title\\x07<|end|>"
'''


class Always(CallFormat):
    """Takes every turn for a call, and of unknown control tokens `<|end|>`."""

    def parse(self, text):
        return text, [call_of("lookup", {"word": "seven"})], ""


def test_tools_are_called_and_their_results_shown_as_text(trained, monkeypatch):
    monkeypatch.chdir(trained)
    (trained / "my_tools.py").write_text(TOOL)
    settings = SamplingSettings(160, 1.0)
    talk = Conversation("runs/sft", Choice(2), settings, None, ["./my_tools.py:lookup: {seconds: 60}"])
    calls = talk.loaded.contract.calls
    always = Always(end=calls.end, end_id=calls.end_id, tokens=calls.tokens)
    talk.loaded = replace(talk.loaded, contract=replace(talk.loaded.contract, calls=always))
    talk.loaded.model.generation_config.eos_token_id = [*range(9, 100, 7)]
    talk.loaded.model.config.max_position_embeddings = 2048  # the schema alone would fill its context
    console = Console(file=io.StringIO(), force_terminal=True, width=200, highlight=False, soft_wrap=True)
    try:
        talk.ask("3+4", console)
    finally:
        talk.close()
    shown = console.file.getvalue()
    result = "[bold]seven\\x1b]0;title\\x07"
    assert result in shown and "\x1b]0;" not in shown and f"{result}<|end|>" not in shown
    assert "\x1b[2m" in shown.partition(result)[0].rpartition("[lookup]")[0][-8:] and "of results" in shown
    assert talk.settings.chat_template_kwargs["tools"][0]["function"]["name"] == "lookup"
    assert "tools" not in Conversation("runs/sft", Choice(), settings, None, []).settings.chat_template_kwargs


def test_a_tool_that_cannot_be_used_is_told_in_one_line_before_a_model_is_loaded(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for entry in ("calculator: {speed: 3}", "python", "nowhere", "./gone.py:f", "a: [b"):
        with pytest.raises(UserError) as told:
            ask_and_print(["no/model"], "3+4", Choice(), GREEDY, None, [entry])
        assert "--tools" in str(told.value) and "\n" not in str(told.value)
