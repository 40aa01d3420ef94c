"""A sampling run that is killed, that finds its disk full, that is started twice: nothing lost, nothing twice."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kill_sampling import BATCH, answer

from reasoning_ext.runs.files import DiskError, append_lines, write_whole
from reasoning_ext.runs.folder import DONE, RunDirError, locked
from reasoning_ext.sample.selection import Rules
from reasoning_ext.sample.store import RIGHT, Samples

HERE = Path(__file__).parents[1]
TINY = HERE.parent / "recipes" / "tiny"
PROBLEMS = """
def problems(split, num_rows=1000):
    for i in range(num_rows):
        yield {"prompt": [{"role": "user", "content": f"What is {i} modulo 3?"}], "answer": str(i % 3)}
"""
RECIPE = """\
stage: sample
model_name_or_path: {model}
dataset_name: ./problems.py:problems
gen_kwargs: {{num_rows: {rows}}}
reward_funcs: [exact_answer]
num_generations: 4
{more}
max_completion_length: 24
per_device_eval_batch_size: 8
use_cpu: true
output_dir: out
"""


def write_run(folder, rows=1000, more=""):
    folder.mkdir(exist_ok=True)
    (folder / "problems.py").write_text(PROBLEMS)
    (folder / "r.yaml").write_text(RECIPE.format(model=TINY / "model", rows=rows, more=more))


def read_samples(folder):
    text = (folder / "out" / "samples.jsonl").read_bytes()
    assert text.endswith(b"\n")
    rows = [json.loads(line) for line in text.splitlines()]  # a torn line would not parse
    return rows, {(row["prompt_index"], row["sample_index"]): row for row in rows}


@pytest.mark.slow
def test_killed_runs_lose_nothing_draw_at_most_a_batch_again_and_end_as_one_that_was_not(tmp_path):
    """Adaptive rounds, which must ask for the same keys, with an engine that answers at once, and a real model."""
    runs = {
        "fake": (200, "keep: 1\nadaptive: true\nfrom_scratch: true", 5, 700),
        "real": (24, "from_scratch: true", 2, 96),
    }
    plan = []
    for kind, (rows, more, kills, keys) in runs.items():
        for name, times in (("straight", 0), ("killed", kills)):
            write_run(tmp_path / f"{kind}_{name}", rows, more)
            plan.append([str(tmp_path / f"{kind}_{name}"), times, kind, keys])
    command = [sys.executable, str(HERE / "kill_sampling.py"), json.dumps(plan)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=500, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    reports = {Path(folder).name: report for (folder, *_), report in zip(plan, json.loads(done.stdout), strict=True)}
    for kind, (prompts, _, kills, _) in runs.items():
        killed, straight = tmp_path / f"{kind}_killed", tmp_path / f"{kind}_straight"
        rows, by_key = read_samples(killed)
        assert len(rows) == len(by_key) <= 4 * prompts and by_key == read_samples(straight)[1]
        assert reports[killed.name]["kills"] == kills and reports[killed.name]["again"] <= kills * BATCH
        for name in ("sft.jsonl", "pairs.jsonl", "prompts.jsonl", "summary.json"):
            assert (killed / "out" / name).read_text() == (straight / "out" / name).read_text()
        assert (killed / "out" / DONE).is_file()
    fake = read_samples(tmp_path / "fake_killed")[1]
    assert all(row["completion"] == answer(*key, 42).text for key, row in fake.items())
    assert {g for _, g in fake} > {0, 1, 2, 3}  # what was saved went to those without one
    assert len({row["completion"] for row in rows}) > 80  # of the real model


def line(p, g, text="3"):
    return {"prompt_index": p, "sample_index": g, "prompt": "q", "completion": text, "tokens": 1, "finished": True,
            "rewards": {"r": 1.0}}  # fmt: skip


def judge(row):
    return Rules({"r": 1.0}).judge(row)


@pytest.mark.parametrize("torn", [b'{"prompt_in', b"{", b'{"prompt_index": 1, "sample_index": 0, "completion": "\xc3'])
def test_a_torn_line_is_cut_off_and_drawn_again(tmp_path, torn):
    path = tmp_path / "samples.jsonl"
    append_lines(path, [line(0, 0, "é" * 70_000), line(0, 1)])
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    samples = Samples(path, ["q", "q"], 2, judge)
    assert path.read_bytes() == whole and samples.states_PS.tolist() == [[RIGHT, RIGHT], [0, 0]]
    samples.append([line(1, 1, "5")])
    assert [[one.completion[:1] for one in drawn] for drawn in samples.of_prompts()] == [["é", "3"], ["5"]]
    assert Samples(path, ["q", "q"], 2, judge).states_PS.tolist() == [[RIGHT, RIGHT], [0, RIGHT]]


@pytest.mark.parametrize(
    "bad", ['{"no": "sample"}\n', "[1]\n", "not json\n", json.dumps(line(0, 0)) + "\n", json.dumps(line(0, 7)) + "\n"]
)
def test_a_damaged_line_is_named(tmp_path, bad):
    path = tmp_path / "samples.jsonl"
    append_lines(path, [line(0, 0)])
    with path.open("a") as file:
        file.write(bad)
    with pytest.raises(ValueError, match=r"samples\.jsonl, whose line 2 cannot be used .*remove that line"):
        Samples(path, ["q", "q"], 2, judge)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB; where nobody may mount one, the tests that need it are skipped."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_keeps_every_whole_batch_and_goes_on_when_there_is_space(small_disk):
    path = small_disk / "samples.jsonl"
    samples = Samples(path, ["q"] * 1000, 1, judge)
    batches = 0
    with pytest.raises(DiskError, match=r"no space left for .*samples\.jsonl .*free some space and run the same"):
        for p in range(0, 1000, 10):
            samples.append([line(p + i, 0, "x" * 1000) for i in range(10)])
            batches += 1
    assert 10 < batches < 26 and path.stat().st_size > 100_000
    assert (
        len(Samples(path, ["q"] * 1000, 1, judge)) == 10 * batches == len(samples)
    )  # the batch that did not fit is gone whole
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    samples.append([line(10 * batches + i, 0) for i in range(10)])
    assert len(Samples(path, ["q"] * 1000, 1, judge)) == 10 * (batches + 1)


HOLDER = """
import sys, time
from pathlib import Path
from reasoning_ext.runs.folder import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    if len(sys.argv) > 2:
        import subprocess
        print(subprocess.Popen(["sleep", "60"]).pid, flush=True)  # outlives its parent
    time.sleep(60)
"""


def test_a_folder_has_one_writer_and_a_dead_one_holds_nothing(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "out"), "with a child"]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    orphan = int(holder.stdout.readline())
    with (
        pytest.raises(RunDirError, match=rf"out, which process {holder.pid} is writing to; wait"),
        locked(tmp_path / "out"),
    ):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path / "out"):  # its child still lives
        os.kill(orphan, 0)
        assert (tmp_path / "out" / ".lock").read_text() == f"{os.getpid()}\n"
    os.kill(orphan, signal.SIGKILL)


def test_a_disk_without_locks_refuses_nobody(tmp_path, monkeypatch, capsys):
    def flock(file, how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    (tmp_path / ".lock").write_text("1\n")  # of an earlier run
    with locked(tmp_path):
        assert f"warning: {tmp_path} cannot be locked" in capsys.readouterr().err


def test_a_second_run_of_a_recipe_is_refused_while_the_first_writes(tmp_path, cli):
    write_run(tmp_path, 10, "from_scratch: true")
    with locked(tmp_path / "out"):
        second = cli("run", tmp_path / "r.yaml")
    assert (
        second.code == 2
        and f"r.yaml:11: output_dir: found out, which process {os.getpid()} is writing to" in second.err
    )


def test_a_finished_folder_needs_no_lock(tmp_path, cli):
    write_run(tmp_path, 3, "from_scratch: true")
    assert cli("run", tmp_path / "r.yaml").code == 0
    with locked(tmp_path / "out"):
        again = cli("run", tmp_path / "r.yaml")
    assert again.code == 0 and "done already, skipped" in again.out


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    for process in (dead.pid, os.getppid()):
        (tmp_path / f".sft.jsonl.{process}").write_text("half")
    write_whole(tmp_path / "sft.jsonl", "whole")
    assert sorted(file.name for file in tmp_path.iterdir()) == [f".sft.jsonl.{os.getppid()}", "sft.jsonl"]


@pytest.mark.slow
def test_ctrl_c_ends_after_a_batch(tmp_path):
    write_run(tmp_path, 400, "from_scratch: true")
    command = [sys.executable, "-m", "reasoning_ext", "run", "r.yaml"]
    signals = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **signals)
    samples = tmp_path / "out" / "samples.jsonl"
    while not samples.is_file():
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130 and "Traceback" not in err
    assert "stopping after this batch; what was drawn is kept" in out
    rows, by_key = read_samples(tmp_path)
    assert 0 < len(rows) == len(by_key) < 1600 and not (tmp_path / "out" / "DONE").exists()
