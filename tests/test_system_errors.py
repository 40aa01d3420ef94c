"""What the system refuses, a folder, files, memory, is one line and exit code 2; a fault of ours stays a traceback."""

import errno
import os
import resource
import subprocess
import sys

import pytest
from conftest import TINY

from reasoning_ext import cli as command_line
from reasoning_ext.check import rules
from reasoning_ext.errors import print_error

RECIPE = f"""\
stage: sft
model_name_or_path: {TINY / "model"}
from_scratch: true
dataset_name: ./rows.jsonl
max_steps: 2
save_steps: 1
per_device_train_batch_size: 4
use_cpu: true
output_dir: out
"""


def chained(error, cause):
    error.__cause__ = cause
    return error


@pytest.fixture
def ends(monkeypatch, tmp_path, write_recipe, rows_file, capsys):
    """Run the command line on a recipe, in this process, while something raises; return the exit code and what was printed."""
    monkeypatch.chdir(tmp_path)
    write_recipe(RECIPE)

    def call(error=None, *arguments):
        def fail(*_):
            raise error

        if error is not None:
            monkeypatch.setattr("reasoning_ext.pipeline.run_recipes", fail)
        monkeypatch.setattr(sys, "argv", ["reasoning-ext", *(arguments or ("run", "r.yaml"))])
        with pytest.raises(SystemExit) as end:
            command_line.main()
        return end.value.code, capsys.readouterr().err

    return call


REFUSED = [
    (OSError(errno.EACCES, "", "runs/x"), "runs/x"),
    (OSError(errno.ENAMETOOLONG, "", "runs/x"), "runs/x"),
    (OSError(errno.EMFILE, "", "rows.jsonl"), "ulimit -n"),
    (RuntimeError("Error while serializing: I/O error: File too large (os error 27)"), "ulimit -f"),  # of safetensors
    (chained(ValueError("I/O operation on closed file"), OSError(errno.EFBIG, "")), "ulimit -f"),
    (chained(RuntimeError("inline_container"), OSError(errno.ENOSPC, "", "out")), "free some space"),
    (MemoryError(), "ulimit -v"),
    (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "ulimit -v"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), "ulimit -v"),
    (RuntimeError("can't start new thread"), "ulimit -u"),
]


@pytest.mark.parametrize(("error", "said"), REFUSED, ids=lambda one: str(one)[:30])
def test_a_refusal_of_the_system_is_one_line(ends, error, said):
    code, printed = ends(error)
    assert code == 2 and printed.startswith("error: ") and printed.count("\n") == 1 and said in printed, printed


@pytest.mark.parametrize("error", [RuntimeError("shapes"), KeyError("x"), ValueError("nan"), OSError("no number")])
def test_any_other_error_keeps_its_traceback(ends, error):
    with pytest.raises(type(error)):
        ends(error)


def test_a_folder_that_cannot_be_written_to_is_found_before_anything_begins(ends, tmp_path, monkeypatch):
    monkeypatch.setattr(rules.os, "access", lambda place, mode: False)
    for command in (("run", "r.yaml"), ("check", "--offline", "r.yaml")):
        code, printed = ends(None, *command)
        assert code == 2 and "r.yaml:9: output_dir: found out, but nothing can be written to" in printed
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()


def test_a_folder_that_cannot_be_made_is_one_line(ends):
    code, printed = ends(None, "run", "r.yaml", "--output_dir", "/proc/self/out")
    assert code == 2 and "Traceback" not in printed and "/proc/self/out" in printed.splitlines()[-1]


@pytest.mark.slow
def test_files_that_may_not_be_as_large_as_the_model_end_a_run_in_a_line(tmp_path, write_recipe, rows_file):
    write_recipe(RECIPE)
    done = subprocess.run(
        [sys.executable, "-m", "reasoning_ext", "run", "r.yaml"], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6)),
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr and "ulimit -f" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out" / "DONE").exists()


def test_too_little_memory_for_the_libraries_is_said_before_they_are_loaded(ends, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**30, 2**30))
    code, said = ends()
    assert (code, said.count("\n")) == (2, 1) and "ulimit -v" in said


def test_an_error_is_red_on_a_terminal_alone(monkeypatch, capsys):
    red = "\033[1;31merror:"
    for terminal, unwanted, coloured in ((True, "", True), (True, "1", False), (False, "", False)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        monkeypatch.setenv("NO_COLOR", unwanted)
        monkeypatch.setenv("TERM", "xterm")
        print_error("x")
        assert (red in capsys.readouterr().err) == coloured
