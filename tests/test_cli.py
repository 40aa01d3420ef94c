"""The command line: what it offers, and that help comes at once."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

from tests.timing import child_seconds

BIN = Path(sys.executable).parent
COMMANDS = (
    "init",
    "run",
    "check",
    "list",
    "schema",
    "score",
    "report",
    "compare",
    "ask",
    "explain",
    "errors",
    "export",
    "import-gguf",
)
# Runs several commands in one process, and says what each printed and which heavy modules were imported.
SEVERAL = """
import contextlib, io, json, sys
from reasoning_ext.cli import main
done = {}
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["reasoning-ext", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        try:
            code = main()
        except SystemExit as end:
            code = end.code
    done[" ".join(arguments)] = (code or 0, said.getvalue())
print(json.dumps([done, [name for name in ("torch", "transformers", "trl", "datasets", "sympy", "peft") if name in sys.modules]]))
"""


def several(cwd, *commands):
    command = [sys.executable, "-c", SEVERAL, json.dumps([line.split() for line in commands])]
    wide = os.environ | {"COLUMNS": "80"}
    return json.loads(subprocess.run(command, cwd=cwd, env=wide, capture_output=True, text=True, check=True).stdout)


def test_help_names_the_commands_and_imports_nothing_heavy(tmp_path):
    done, heavy = several(
        tmp_path, "-h", "--help", "--version", *(f"{name} {how}" for name in COMMANDS for how in ("-h", "--help"))
    )
    assert heavy == [] and {code for code, _ in done.values()} == {0}
    assert done["--version"][1].startswith("reasoning-ext ")
    assert all(f" {name} " in done["-h"][1] for name in COMMANDS) and "..." not in done["-h"][1].split("Commands:")[1]
    assert all(done[f"{name}-h"] == done[f"{name}--help"] for name in ("", *(f"{name} " for name in COMMANDS)))
    module = subprocess.run([BIN / "reasoning-ext", "--help"], capture_output=True, text=True, check=True).stdout
    assert module.split("Commands")[1] == done["--help"][1].split("Commands")[1]


def test_help_takes_at_most_one_and_a_half_times_trls():
    def seconds(program):
        return child_seconds(lambda: subprocess.run([BIN / program, "--help"], capture_output=True, check=True))

    seconds("trl"), seconds("reasoning-ext")
    ratios = [seconds("reasoning-ext") / seconds("trl") for _ in range(3)]
    assert statistics.median(ratios) <= 1.5, ratios


def test_list_names_what_a_recipe_can_name_and_where_its_text_stands(tmp_path):
    (tmp_path / "recipes" / "mine").mkdir(parents=True)
    (tmp_path / "recipes" / "mine" / "1_sft.yaml").write_text("# What it is for.\nstage: sft\n")
    wrong = ("list x", "list keys x", "list rewards sft")
    kinds = ("rewards", "formats", "keys", "keys eval", "keys grpo", "keys sft", "recipes")
    done, heavy = several(tmp_path, *(f"list {kind}" for kind in kinds), *wrong)
    assert "torch" not in heavy and [done[line][0] for line in wrong] == [2, 2, 2]
    for kind, name, place in (
        ("rewards", "math_answer", "math_answer.py:"), ("rewards", "get_cosine_scaled_reward", "trl"),
        ("formats", "gsm8k", "problems.py:"), ("keys", "learning_rate", "SFTConfig"), ("keys eval", "engine", "recipe.keys"),
        ("keys grpo", "num_generations", "GRPOConfig"),
    ):  # fmt: skip
        [line] = [line for line in done[f"list {kind}"][1].splitlines() if line.split()[0] == name]
        assert place in line.rsplit("[", 1)[1] and len(line.split()) > 4
    assert "\nnum_generations " not in done["list keys sft"][1]
    assert done["list recipes"][1].split() == ["recipes/mine/1_sft.yaml", "What", "it", "is", "for."]


def test_an_editable_install_finds_a_reward_dropped_into_the_folder(tmp_path):
    dropped = ROOT / "rewards" / "dropped_by_a_test.py"
    dropped.write_text("def dropped_by_a_test(completions, **kwargs):\n    return [0.25 for _ in completions]\n")
    code = (
        "import reasoning_ext.rewards.math_answer as m; print(m.__file__); from pathlib import Path;"
        "from reasoning_ext.scoring.call import build_rewards; from reasoning_ext.scoring.spec import parse_rewards;"
        "print(build_rewards(parse_rewards(['dropped_by_a_test'], Path()))[0](completions=['x']))"
    )
    try:
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    finally:
        dropped.unlink()
    assert done.stdout.splitlines() == [str(ROOT / "rewards" / "math_answer.py"), "[0.25]"]
