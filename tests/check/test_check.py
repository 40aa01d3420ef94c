"""`check` accepts every recipe in the tree on one screen, and its output: text, colours, JSON, and nothing of the network."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reasoning_ext.check import check as check_all
from reasoning_ext.check.show import check_and_print
from reasoning_ext.cli import app
from reasoning_ext.recipe.load import load_recipes

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
FIRST = ROOT / "recipes" / "tiny" / "1_sft.yaml"
SFT = """\
stage: sft
model_name_or_path: ./model
from_scratch: true
dataset_name: ./rows.jsonl
output_dir: out
"""
GRPO = (
    SFT.replace("sft", "grpo") + "reward_funcs: [math_answer, ./mine.py:odd]\nnum_generations: 4\n"
    "per_device_train_batch_size: 8\nmax_completion_length: 56\nmax_steps: 5\n"
)
MINE = """\
def odd(completions, **kwargs):
    print("this must not get into the document")
    return [float("inf") for _ in completions]

def rows(split="train"):
    print("nor this")
    return [{"prompt": f"What comes after {a}?", "completion": "x", "answer": str(a + 1)} for a in range(9)]
"""
# `check --offline` in a process in which whatever asks for a name or a connection fails.
NO_NETWORK = """\
import socket, sys
def refuse(*args, **kwargs):
    print("NETWORK", args[-1:], file=sys.stderr)
    raise OSError("no network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
from reasoning_ext.cli import main
main()
"""


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "recipes")))
def test_check_accepts_the_recipe_whose_header_has_its_command(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # --offline sets both; this has them taken back after the test
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)  # so that what lies in runs/ has no say
    result = CliRunner().invoke(app, ["check", "--offline", str(recipe)])
    assert result.exit_code == 0, result.exception
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{recipe}: stage ")
    assert lines[-1].strip() == "ok"
    assert sum(1 + len(line) // 120 for line in lines) <= 42  # one screen
    header = recipe.read_text(encoding="utf-8").split("\nstage:")[0].splitlines()
    assert all(line.startswith("#") for line in header) and any(line.startswith("# Expect:") for line in header)
    assert "reasoning-ext run recipes/" in " ".join(header)


def test_the_examples_pass_after_the_recipe_that_they_start_from(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    hacked = ROOT / "examples" / "hacked_reward" / "1_hacked.yaml"
    folders = sorted({example.parent for example in (ROOT / "examples").rglob("*.yaml")} - {hacked.parent})
    assert len(folders) >= 3 and len(RECIPES) >= 14
    for example in [*folders, hacked.with_name("2_mended.yaml")]:
        assert check_and_print(load_recipes([FIRST, example], {"max_samples": "300"}), [], True, 0, False) == 0
    assert capsys.readouterr().err == ""
    assert check_and_print(load_recipes([FIRST, hacked], {"max_samples": "300"}), [], True, 0, True) == 2
    document = json.loads(capsys.readouterr().out)
    assert {p["code"] for one in document["recipes"] for p in one["findings"] if p["level"] == "error"} == {
        "wrong_answer_paid"
    }


@pytest.fixture
def folder(tmp_path, rows_file, monkeypatch):
    shutil.copytree(ROOT / "recipes" / "tiny" / "model", tmp_path / "model")
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def check(folder, capsys):
    """Check recipes given as {name: text} and return the exit code, stdout and stderr."""

    def call(show=0, as_json=False, paths=None, **texts):
        for name, text in texts.items():
            (folder / f"{name}.yaml").write_text(text)
        errors = []
        recipes = load_recipes(paths or [f"{name}.yaml" for name in texts], {}, errors)
        code = check_and_print(recipes, errors, offline=True, show=show, as_json=as_json)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def test_what_is_trained_on_can_be_told_without_colours(check, monkeypatch):
    _, out, _ = check(r=SFT)
    assert "\x1b" not in out
    assert "    prompt (not trained on): <|user|>0+1<|assistant|>\n" in out
    assert "    thought (trained on): <think>0 and 1</think>\n    answer (trained on): 1<|end|>\n" in out
    _, out, _ = check(r=SFT + "train_on: answer\n")
    assert "thought (not trained on)" in out and "answer (trained on)" in out
    _, out, _ = check(r=SFT + "thought_weight: 0.5\nanswer_weight: 2.0\n")
    assert "thought (trained on, weight 0.5)" in out and "answer (trained on, weight 2)" in out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[32m<think>0 and 1</think>\x1b[0m" in check(r=SFT)[1]


def test_show_prints_rows_whole_and_one_shortened_row_without_it(check, folder):
    rows = [{"prompt": "[red]1?[/red]", "completion": f"<think>{'a ' * 400}[/]</think>2"} for _ in range(5)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, out, _ = check(r=SFT)
    assert out.count("  row ") == 1 and "... (818 characters)" in out and "[red]1?[/red]" in out
    _, out, _ = check(r=SFT, show=3)
    assert out.count("  row ") == 3 and "characters)" not in out and out.count("a " * 400 + "[/]</think>") == 3


def test_json_is_one_document_whatever_a_reward_prints(check):
    code, out, err = check(r=GRPO.replace("./rows.jsonl", "./mine.py:rows"), as_json=True)
    document = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert code == 2 and list(document) == ["ok", "errors", "recipes"] and document["ok"] is False
    assert "nor this" in err and "this must not" in err
    [recipe] = document["recipes"]
    assert (recipe["recipe"], recipe["stage"], recipe["ok"], recipe["unread"]) == ("r.yaml", "grpo", False, "")
    first = {"code": "reward_failed", "level": "error", "key": "reward_funcs", "line": 6, "text": ""}
    assert recipe["findings"][0] | {"text": ""} == first
    assert recipe["facts"]["golds"].startswith("9 read, 0") and recipe["facts"]["batch"]["prompts_a_step"] == 2
    code, out, _ = check(r=GRPO.replace(", ./mine.py:odd", "").replace("rows.jsonl", "mine.py:rows"), as_json=True)
    document = json.loads(out)
    assert (code, document["ok"], document["errors"]) == (0, True, [])
    facts = "batch code columns context duplicates fitting_share golds lengths mean_length memory rewards rows steps"
    assert sorted(document["recipes"][0]["facts"]) == [*facts.split(), "think_contract"]


def test_json_is_valid_where_recipes_cannot_be_read(check):
    broken = SFT + "lerning_rate: 1\nmax_steps: '5'\n"
    code, out, err = check(
        a="stage: sft\n  x: [\n", b=broken, c="", as_json=True, paths=["a.yaml", "b.yaml", "none.yaml"]
    )
    document = json.loads(out)
    assert (code, err, document["ok"]) == (2, "", False)
    assert [text.partition(":")[0] for text in document["errors"]] == ["a.yaml", "none.yaml"]
    [recipe] = document["recipes"]
    assert recipe["unread"] == "not read, because of the errors"
    errors = [(f["key"], f["line"]) for f in recipe["findings"] if f["level"] == "error"]
    assert errors == [("lerning_rate", 6), ("max_steps", 7)]
    assert all("b.yaml" not in finding["text"] for finding in recipe["findings"])


def test_a_broken_recipe_beside_a_good_one_hides_neither(check, folder):
    code, out, err = check(a="stage: sft\n  x: [\n", b=SFT)
    assert code == 2 and out.startswith("b.yaml: stage sft") and out.endswith("  ok\n")
    assert err.startswith("error: a.yaml:2: ") and len(err.splitlines()) == 1
    assert check(paths=["model"])[:2] == (2, "")  # a folder without recipes


def test_a_typo_on_the_command_line_is_one_line_and_nothing_is_ok(folder, capsys):
    (folder / "r.yaml").write_text(SFT)
    errors = []
    recipes = load_recipes(["r.yaml"], {"lerning_rate": "1"}, errors)
    assert check_and_print(recipes, errors, True, 0, False) == 2
    printed = capsys.readouterr()
    assert "  ok" not in printed.out and printed.err.startswith("error: --lerning_rate: unknown key")


def test_notes_do_not_hide_errors_and_warnings_have_their_recipe(check):
    code, out, err = check(r=GRPO.replace("./model", "./modl"))
    assert code == 2 and out == ""
    assert len(err.splitlines()) == 1
    code, out, err = check(r=SFT.replace("from_scratch: true\n", "") + "learning_rate: 1.0\nlerning_rate: 1\n")
    lines = out.splitlines()
    assert lines[0] == "r.yaml: stage sft, backend trl" and lines[1].startswith("  warning: learning_rate: found 1")
    assert code == 2 and len(lines) == 2 and err.startswith("error: r.yaml:6: lerning_rate: unknown key")


def test_a_terminal_without_these_letters_is_no_traceback(check, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    code, *_ = check(r=SFT)
    terminal.flush()
    assert code == 0 and b"max_length 1024" in terminal.buffer.getvalue()


def test_offline_asks_the_network_for_nothing(folder):
    hub = SFT.replace("./model", "org/model").replace("from_scratch: true\n", "").replace("./rows.jsonl", "org/rows")
    mixed = SFT + "decontaminate: [org/benchmark]\nchat_template_path: org/template\n"
    eval_ = "stage: eval\nmodels: {a: org/a}\ndataset_name: ./mine.py:rows\noutput_dir: e\nmax_completion_length: 9\n"
    for name, text in {"1": hub, "2": mixed, "3": eval_, "4": SFT.replace("out", "out4")}.items():
        (folder / f"{name}.yaml").write_text(text)
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_OFFLINE")} | {"HF_HOME": str(folder / "hub")}
    command = [sys.executable, "-c", NO_NETWORK, "check", "--offline", *(f"{i}.yaml" for i in range(1, 5))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert "NETWORK" not in done.stderr and "Traceback" not in done.stderr
    assert "org/rows on the hub, not read offline" in done.stdout and "org/benchmark on the hub" in done.stdout
    assert done.stdout.count("is no folder here, and the hub is not asked") == 3


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_first_process_alone_reads_rows(rank, check, folder, monkeypatch):
    from reasoning_ext import pipeline

    (folder / "r.yaml").write_text(SFT.replace("rows.jsonl", "bad.jsonl"))
    (folder / "bad.jsonl").write_text('{"question": "1"}\n')
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    [checked] = check_all(load_recipes(["r.yaml"]), run=True)
    assert [problem.code for problem in checked.errors] == (["missing_column"] if rank == "0" else [])
    (folder / "r.yaml").write_text(SFT.replace("rows.jsonl", "none.jsonl"))
    if rank == "1":
        assert pipeline.run_recipes(load_recipes(["r.yaml"])) == 2  # the first process says why


def test_a_run_is_stopped_by_what_check_finds_and_told_its_warnings(check, folder, capsys, monkeypatch):
    from reasoning_ext import pipeline

    (folder / "r.yaml").write_text(SFT + "max_length: 18\n")
    with pytest.raises(ValueError, match=r"r.yaml:6: max_length: 7 of 16 rows"):
        pipeline.run_recipes(load_recipes(["r.yaml"]))
    assert not (folder / "out").exists()
    (folder / "r.yaml").write_text(SFT + "max_length: 18\noverlong_rows: drop\n")
    monkeypatch.setattr(pipeline, "_run_one", lambda *_: 0)
    assert pipeline.run_recipes(load_recipes(["r.yaml"])) == 0
    assert capsys.readouterr().out.startswith("r: warning: max_length: 7 of 16 rows")
