"""What the tests share: the tiny model's folder, a way to write recipes, and the command line in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from messages import pytest_addoption, pytest_runtest_makereport, wording

__all__ = ["pytest_addoption", "pytest_runtest_makereport", "wording"]
ROOT = Path(__file__).parents[1]
TINY = ROOT / "recipes" / "tiny"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:  # as a shell has it for what runs behind `&`, or under nohup
        signal.signal(number, handler)

# Runs the command line in a child process and reports which heavy modules it had imported at its end.
PROBE = """
import json, sys
from reasoning_ext.cli import main
sys.argv = ["reasoning-ext", *sys.argv[1:]]
try:
    main()
    code = 0
except SystemExit as end:
    code = end.code or 0
heavy = [m for m in ("torch", "transformers", "trl", "datasets", "sympy", "math_verify", "peft") if m in sys.modules]
print("PROBE" + json.dumps({"code": code, "heavy": heavy}))
"""


class Result:
    """What a command of ours printed, its exit code, and which heavy modules it imported."""

    def __init__(self, done: subprocess.CompletedProcess):
        self.out, _, probe = done.stdout.partition("PROBE")
        self.err = done.stderr
        assert probe, f"the command crashed: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        facts = json.loads(probe)
        self.code, self.heavy = facts["code"], facts["heavy"]


@pytest.fixture
def cli(tmp_path):
    """Run `reasoning-ext ARGUMENTS` in tmp_path and return its `Result`."""

    def call(*arguments, timeout=300):
        command = [sys.executable, "-c", PROBE, *map(str, arguments)]
        return Result(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=timeout))

    return call


@pytest.fixture
def write_recipe(tmp_path):
    """Write a YAML text into tmp_path and return its path."""

    def write(text, name="r.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def rows_file(tmp_path):
    """A JSONL file of 16 additions in plain columns."""
    path = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": f"{a}+{a + 1}", "completion": f"<think>{a} and {a + 1}</think>{2 * a + 1}", "answer": str(2 * a + 1)}
        for a in range(16)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
