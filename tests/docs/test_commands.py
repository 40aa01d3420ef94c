"""Every command of README and docs/ is run, or parsed where `PARSED` has a reason: a GPU, the network, another program.

What is run is run in a copy of the project whose recipes take few steps and few rows, page by page, after the demo. Every
command of ours is parsed by the command line itself, whether it is run or not: its options exist, the recipes that it names load,
and a run's folder is the `output_dir` of a recipe.
"""

import re
import shlex
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest
import typer
from conftest import ROOT
from copies import environment, small_copy
from pages import PAGES, commands

from reasoning_ext.check.seeds import split_seeds
from reasoning_ext.cli import app
from reasoning_ext.errors import UserError
from reasoning_ext.recipe.load import load_recipes, split_overrides

PARSED = [  # what a command begins with, and why it is not run here
    (r"make ", "a target of the Makefile: demo and test are minutes long, and this is part of one"),
    (r"pip install ", "the network"),
    (r"#!/bin/bash", "a script for Slurm"),
    (r"accelerate launch ", "several GPUs"),
    (r"trl vllm-serve |vllm serve ", "vLLM on a GPU"),
    (
        r"reasoning-ext [\w-]+ .*(qwen|llama|smollm|teacher|my_recipe)",
        "a model or data from the hub, and hours on a GPU",
    ),
    (
        r"reasoning-ext run recipes/my_problems",
        "trains as long as the table needs; examples/my_csv, which is small here, is run",
    ),
    (r"reasoning-ext export .*--to (gguf|hub)", "llama.cpp, or an account"),
    (
        r"reasoning-ext run .*tiny/distillation",
        "a model that has learnt the task: its filters leave nothing of another's traces",
    ),
    (r"python benchmarks/", "minutes to hours; the result files say what came out"),
]
MINE = re.compile(r"my_recipe|my_problems")  # a reader's own, or what `init` writes on the page
EXIT_CODES = {
    "reasoning-ext check recipes/tiny/1_sft.yaml examples/hacked_reward": 2,  # as the page says
    'reasoning-ext explain runs/tiny/2_grpo "5+6*2+3*4*1"': 2,  # a model of a few steps closes no thought
    "reasoning-ext explain runs/tiny/6_eval --problems 50": 2,
}
LISTED = commands()
ALL = [one for i, one in enumerate(LISTED) if one.text not in {other.text for other in LISTED[:i]}]  # each once
RUN = [
    command for command in ALL if not command.inline and not any(re.match(start, command.text) for start, _ in PARSED)
]


@cache
def outputs():
    """Return the output folders of all recipes, those that stand in pages too."""
    files = [*ROOT.glob("recipes/**/*.yaml"), *ROOT.glob("examples/**/*.yaml"), *PAGES]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return {Path(found) for found in re.findall(r"(?:^output_dir:|--output_dir) (\S+)", text, re.MULTILINE)}


def check_recipes(arguments):
    """Load the recipes that `run` or `check` is given, those that are not a reader's own."""
    rest, _ = split_seeds([one for one in arguments if one not in ("--offline", "--no-code", "--json")])
    paths, overrides = split_overrides(rest)
    load_recipes([path for path in paths if not MINE.search(path)] or ["recipes/tiny"], overrides)


def check_paths(arguments, known):
    """Hold what looks like a path against the project's files and the folders that recipes write."""
    for one in arguments:
        path = Path(one.partition(":")[0])
        if path.parts[:1] == ("runs",):
            assert {path, *path.parents} & known or any(path in folder.parents for folder in known), one
        elif path.parts[:1] in (("recipes",), ("examples",), ("benchmarks",)) and not MINE.search(one):
            assert (ROOT / path).exists(), one


def check_ours(words, known):
    """Let the command line parse a command of ours, without doing what it says."""
    name, *arguments = words
    group = typer.main.get_command(app)
    assert name in group.commands, name
    try:
        context = group.commands[name].make_context(name, [*arguments])
    except Exception as error:  # of click, which some releases of typer have as a package of their own
        raise AssertionError(f"{name}: {error}") from error
    if name in ("run", "check"):
        check_recipes(context.params["recipes"])
    check_paths(arguments, known)


def check_others(words, text):
    """Check what can be known of a command that is not ours."""
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), text
    elif words[:2] == ["pip", "install"]:
        extras = {*tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]}
        assert {extra for found in re.findall(r"\[([\w,-]+)\]", text) for extra in found.split(",")} <= extras, text
        assert all((ROOT / file).is_file() for file in re.findall(r"-c (\S+)", text)), text
    elif words[0] == "python":
        source = (ROOT / words[1]).read_text(encoding="utf-8")
        assert all(f'"{word}"' in source for word in words[2:] if word.startswith("--")), text
    elif text.startswith("#!"):
        assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0, text


@pytest.mark.parametrize("command", ALL, ids=str)
def test_a_command_of_the_pages_can_be_parsed(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    known = outputs()
    words = shlex.split(command.text, comments=True) if not command.text.startswith("#!") else ["bash"]
    if words[0] == "accelerate":
        words = ["reasoning-ext", *words[words.index("reasoning_ext") + 1 :]]
    if words[0] == "reasoning-ext":
        check_ours(words[1 : words.index(">") if ">" in words else None], known)
    else:
        check_others(words, command.text)


def test_a_command_with_a_mistake_is_found(monkeypatch):
    monkeypatch.chdir(ROOT)
    known = outputs()
    for wrong in (
        ["rum", "recipes/tiny"], ["report", "runs/tiny", "--outputs", "x"], ["run", "recipes/tinny"],
        ["run", "recipes/tiny", "--learning_ratee", "1"], ["report", "runs/never"],
    ):  # fmt: skip
        with pytest.raises((AssertionError, UserError)):
            check_ours(wrong, known)


def test_every_command_of_the_command_line_stands_in_the_pages():
    said = {shlex.split(command.text)[1] for command in ALL if command.text.startswith("reasoning-ext ")}
    assert {*typer.main.get_command(app).commands} - said == set()


@pytest.mark.slow
def test_the_commands_of_the_pages_run(tmp_path):
    folder, failed = small_copy(tmp_path), []
    for command in RUN:
        done = subprocess.run(
            ["bash", "-c", command.text], cwd=folder, env=environment(), capture_output=True, text=True, timeout=600
        )
        if done.returncode != EXIT_CODES.get(command.text, 0):
            failed.append(f"{command}: exit code {done.returncode}\n{done.stdout[-500:]}{done.stderr[-1500:]}")
    assert not failed, "\n\n".join(failed)
