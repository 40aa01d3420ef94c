"""What models, data, files and recipes say reaches terminal and files as text: no commands, no passwords."""

import ast
import json
from pathlib import Path

import pytest
import yaml
from conftest import TINY

from reasoning_ext import shown
from reasoning_ext.check.network import OFFLINE, SILENT
from reasoning_ext.cli import main
from reasoning_ext.errors import KeyProblem, Problem, UserError, print_error
from reasoning_ext.runs.folder import RunDirError, open_run, refuse_other_recipe
from reasoning_ext.shown import visible, without_secrets

PACKAGE = Path(shown.__file__).parent
EVIL = "\x1b]0;title\x07\x1b]52;c;Y2F0\x07\x1b[2J\x9b2Jab\rcd\b\u202eright\ud800\x7f"
DANGEROUS = set(EVIL) - set("]0;title52cY2F[Jabdrgh")


@pytest.mark.parametrize(
    "plain", ["a\n\tb", "é 中 עברית 🙂 👩\u200d🔬", "", "\\x1b", "می\u200cخواهم", "क्\u200dष", "❤\ufe0f"]
)
def test_plain_text_is_shown_as_it_is(plain):
    assert visible(plain) == plain


def test_control_characters_are_shown_and_do_nothing():
    assert not DANGEROUS & set(visible(EVIL)) and "\\x1b]0;title\\x07" in visible(EVIL) and "\\u202e" in visible(EVIL)
    assert visible("sf\u200dt") != "sf\u200dt" and visible("a\r\nb") == "a\r\nb" and visible("a\rb") == "a\\rb"


def test_whatever_the_package_prints_goes_through_one_function():
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text())
        prints = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "print"]
        imported = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "reasoning_ext.shown"]
        ours = any(name.name == "print" for node in imported for name in node.names)
        assert not prints or ours or file.name in ("shown.py", "errors.py", "code_tests.py", "_shown.py"), file


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """Run the command line in this process and in tmp_path; return the exit code and all that is printed."""
    monkeypatch.chdir(tmp_path)
    for name in (*OFFLINE, *SILENT):
        monkeypatch.setenv(name, "1")

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["reasoning-ext", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, "".join(capsys.readouterr())

    return call


@pytest.mark.parametrize(
    ("code", "arguments"),
    [(0, ["score", "rows.jsonl"]), (2, ["score", f"{EVIL[:-2]}.jsonl"]), (0, ["check", "--offline", "s.yaml"])],
)
def test_score_check_and_error_lines_show_what_would_command_a_terminal(code, arguments, said, tmp_path):
    rows = [{"prompt": "1+1", "completion": f"{EVIL[:-2]} {i}", "answer": "2", "\x1b[2Jcol": "x"} for i in range(2)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {"stage": "sample", "model_name_or_path": "m", "dataset_name": "./rows.jsonl", "output_dir": "out",
              "engine": "server", "reward_funcs": ["math_answer"],
              "engine_kwargs": {"base_url": "http://me:hunter2@127.0.0.1:9/v1"}}  # fmt: skip
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(recipe))
    found, text = said(*arguments, *(["--reward", "math_answer"] if "score" in arguments else []))
    assert found == code and "\\x1b" in text and not DANGEROUS & set(text) and "hunter2" not in text


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("see http://me:pa@ss@host:1/v1 and", "pa"),
        ("https://me:p/w@host/v1", "p/w"),
        ("http://host/v1?api_key=abc123&x=1", "abc123"),
        ("Authorization: Bearer abcdefghij", "abcdefghij"),
        ("found 'sk-proj-abcdefgh12345678'", "abcdefgh"),
        ("hf_abcdefghijklmnopqrstuv", "abcdefgh"),
        ("ghp_abcdefgh1234 and", "abcdefgh"),
        ("sk-ant-api03-abc_def", "ant-api03"),
    ],
)
def test_secrets_in_a_text_are_hidden(text, hidden):
    assert hidden not in without_secrets(text)
    assert hidden not in str(UserError(text)) + str(KeyProblem("key", text)) + Problem(code="x", found=text).text


def test_what_a_recipe_or_the_environment_holds_is_said_by_nobody(said, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "of-the-environment")
    (tmp_path / "reward.py").write_text(
        "import os\ndef pays(completions, *, api_key='', **kwargs):\n"
        "    raise OSError(f'https://me:hunter22@host {api_key} {os.environ[\"SOME_API_KEY\"]}')\n"
    )
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1+1", "answer": "2", "completion": "2"}\n')
    (tmp_path / "r.yaml").write_text(
        f"stage: grpo\nmodel_name_or_path: {TINY}/model\ndataset_name: ./rows.jsonl\noutput_dir: out\n"
        "reward_funcs: [./reward.py:pays: {api_key: of-the-recipe}]\n"
    )
    code, text = said("score", "rows.jsonl", "--recipe", "r.yaml")
    assert code == 2 and "OSError" in text
    assert not [secret for secret in ("hunter22", "of-the-recipe", "of-the-environment") if secret in text]


def test_what_is_no_secret_stays():
    kept = {"eos_token": "<|im_end|>", "max_tokens": 5, "api_key_env": "OPENAI_API_KEY", "base_url": "http://host:8000/v1",
            "paths": ["runs/sk-learn", "hf://datasets/a@main/b", "a@b.c",
                      "hf_hub_download", "You know all bearer instruments", "runs/r8-qwen3-sft-lr1e4-long",
                      "runs/sk-learn-distilled-2024-11", "http://host/?monkey=banana",
                      "task-1", "sketch", "https://host/x"], "token": None,
            "rename_columns": {"secret": "answer_text"}}  # fmt: skip
    assert without_secrets(kept) == kept


def test_a_run_goes_on_with_a_recipe_whose_secrets_were_never_written(tmp_path):
    def recipe(password, rate=1.0):
        url = f"http://me:{password}@host/v1"
        judge = {"llm_judge": {"base_url": url, "model": "m", "weight": rate}}
        options = {"base_url": url, "headers": {"X-Api-Key": password}}
        return {"stage": "grpo", "reward_funcs": [judge], "engine_kwargs": options}

    open_run(tmp_path / "run", recipe("hunter2"), {})
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    assert not any("hunter2" in file.read_text() for file in (tmp_path / "run").iterdir())
    refuse_other_recipe(tmp_path / "run", recipe("another1"))  # who has changed the password goes on
    with pytest.raises(RunDirError) as caught:
        refuse_other_recipe(tmp_path / "run", recipe("hunter2", 2.0))
    assert "hunter2" not in str(caught.value)


def test_an_error_is_one_line(capsys):
    print_error("r.yaml:1: a\nb \x1b]0;title\x07 \ud800")
    assert capsys.readouterr().err == "error: r.yaml:1: a\\nb \\x1b]0;title\\x07 \\ud800\n"
