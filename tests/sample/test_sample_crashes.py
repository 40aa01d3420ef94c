"""A sampling run that is killed, that finds its disk full, that is started twice: nothing lost, nothing twice."""

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
from reasoning_ext.sample.selection import RIGHT, Rules
from reasoning_ext.sample.store import Samples

HERE = Path(__file__).parents[1]
PROBLEMS = """
def problems(split, num_rows=1000):
    for i in range(num_rows):
        yield {"prompt": [{"role": "user", "content": f"What is {i} modulo 3?"}], "answer": str(i % 3)}
"""
RECIPE = f"""\
stage: sample
model_name_or_path: {HERE.parent / "recipes/tiny/model"}
from_scratch: true
dataset_name: ./problems.py:problems
reward_funcs: [exact_answer]
num_generations: 4
max_completion_length: 24
per_device_eval_batch_size: 8
use_cpu: true
output_dir: out
"""


def write_run(folder, rows, more=""):
    folder.mkdir(exist_ok=True)
    (folder / "problems.py").write_text(PROBLEMS)
    recipe = RECIPE.replace("max_completion_length: 24\n", "") if "max_completion_length" in more else RECIPE
    (folder / "r.yaml").write_text(f"{recipe}gen_kwargs: {{num_rows: {rows}}}\n{more}")


def read_samples(folder):
    text = (folder / "out" / "samples.jsonl").read_bytes()
    rows = [json.loads(line) for line in text.splitlines()]  # a torn line would not parse
    by_key = {(row["prompt_index"], row["sample_index"]): row for row in rows}
    assert text.endswith(b"\n") and len(by_key) == len(rows)
    return by_key


def killed_and_straight(folder, kind, rows, more, kills, keys):
    """Run a recipe twice, once killed so often; return both folders, the killed one first."""
    plan = []
    for name, times in (("straight", 0), ("killed", kills)):
        write_run(folder / name, rows, more)
        plan.append([str(folder / name), times, kind, keys])
    command = [sys.executable, str(HERE / "kill_sampling.py"), json.dumps(plan)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder / "killed", folder / "straight"


@pytest.mark.slow
def test_a_killed_run_with_tools_goes_on_with_the_missing_keys_and_ends_as_one_that_was_not(tmp_path):
    more = "tools: [calculator]\nkeep: 4\nmax_completion_length: 200\n"
    killed, straight = killed_and_straight(tmp_path, "tools", 24, more, 2, 96)
    by_key = read_samples(killed)
    assert len(by_key) == 96 and by_key == read_samples(straight)
    for name in ("sft.jsonl", "pairs.jsonl", "prompts.jsonl", "summary.json"):
        assert (killed / "out" / name).read_text() == (straight / "out" / name).read_text()
    assert json.loads((killed / "out" / "summary.json").read_text())["tools"] == {"calculator/calls": 96}
    kept = [json.loads(line)["completion"] for line in (killed / "out" / "sft.jsonl").open()]
    assert len(kept) == 48 and all([turn["role"] for turn in one] == ["assistant", "tool", "assistant"] for one in kept)
    assert {one[1]["content"] for one in kept} == {"0", "1", "2"}
    # the same answer, other traces
    assert {one[0]["content"] for one in kept} == {"<think>0</think>", "<think>1</think>"}


@pytest.mark.slow
def test_killed_runs_lose_nothing_draw_at_most_a_batch_again_and_end_as_one_that_was_not(tmp_path):
    """Adaptive rounds, which must ask for the same keys, with an engine that answers at once, and a real model."""
    runs = {"fake": (200, "keep: 1\nadaptive: true\n", 5, 700), "real": (24, "", 2, 96)}
    plan = []
    for kind, (rows, more, kills, keys) in runs.items():
        for name, times in (("straight", 0), ("killed", kills)):
            write_run(tmp_path / f"{kind}_{name}", rows, more)
            plan.append([str(tmp_path / f"{kind}_{name}"), times, kind, keys])
    command = [sys.executable, str(HERE / "kill_sampling.py"), json.dumps(plan)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    reports = {Path(folder).name: report for (folder, *_), report in zip(plan, json.loads(done.stdout), strict=True)}
    for kind, (prompts, _, kills, _) in runs.items():
        killed, straight = tmp_path / f"{kind}_killed", tmp_path / f"{kind}_straight"
        by_key = read_samples(killed)
        assert len(by_key) <= 4 * prompts and by_key == read_samples(straight)
        assert reports[killed.name]["kills"] == kills and reports[killed.name]["again"] <= kills * BATCH
        for name in ("sft.jsonl", "pairs.jsonl", "prompts.jsonl", "summary.json"):
            assert (killed / "out" / name).read_text() == (straight / "out" / name).read_text()
        assert (killed / "out" / DONE).is_file()
    assert len({row["completion"] for row in by_key.values()}) > 80  # of the real model
    fake = read_samples(tmp_path / "fake_killed")
    assert all(row["completion"] == answer(*key, 42).text for key, row in fake.items())
    assert {g for _, g in fake} > {0, 1, 2, 3}  # what was saved went to those without one


def line(p, g, text="3"):
    return {"prompt_index": p, "sample_index": g, "prompt": "q", "completion": text, "tokens": 1, "finished": True,
            "rewards": {"r": 1.0}}  # fmt: skip


def open_samples(path, prompts=2, most=2):
    return Samples(path, ["q"] * prompts, most, Rules({"r": 1.0}))


@pytest.mark.parametrize("torn", [b'{"prompt_in', b"{", b'{"prompt_index": 1, "sample_index": 0, "completion": "\xc3'])
def test_a_torn_line_is_cut_off_and_drawn_again(tmp_path, torn):
    path = tmp_path / "samples.jsonl"
    append_lines(path, [line(0, 0, "é" * 70_000), line(0, 1)])
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    samples = open_samples(path)
    assert path.read_bytes() == whole and samples.states_PS.tolist() == [[RIGHT, RIGHT], [0, 0]]
    samples.append([line(1, 1, "5")])
    assert [[one.completion[:1] for one in drawn] for drawn in samples.of_prompts()] == [["é", "3"], ["5"]]
    assert open_samples(path).states_PS.tolist() == [[RIGHT, RIGHT], [0, RIGHT]]


@pytest.mark.parametrize("bad", [{"no": "sample"}, [1], "not json", line(0, 0), line(0, 7), line(0, -1)])
def test_a_damaged_line_is_named(tmp_path, bad):
    path = tmp_path / "samples.jsonl"
    append_lines(path, [line(0, 0)])
    path.write_text(path.read_text() + (bad if isinstance(bad, str) else json.dumps(bad)) + "\n")
    with pytest.raises(ValueError, match=r"samples\.jsonl, whose line 2 cannot be used"):
        open_samples(path)


def test_a_full_disk_keeps_every_whole_batch_and_goes_on_when_there_is_space(tmp_path):
    folder, batches = tmp_path / "small", 0
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        samples = open_samples(path := folder / "samples.jsonl", 1000, 1)
        with pytest.raises(DiskError, match=r"samples\.jsonl"):
            for p in range(0, 1000, 10):
                samples.append([line(p + i, 0, "x" * 1000) for i in range(10)])
                batches += 1
        assert 10 < batches < 26 and len(open_samples(path, 1000, 1)) == 10 * batches == len(samples)
        subprocess.run(["mount", "-o", "remount,size=4m", str(folder)], check=True)
        samples.append([line(10 * batches + i, 0) for i in range(10)])
        assert len(open_samples(path, 1000, 1)) == 10 * (batches + 1)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


HOLDER = """
import subprocess, sys, time
from pathlib import Path
from reasoning_ext.runs.folder import locked
with locked(Path(sys.argv[1])):
    print(subprocess.Popen(["sleep", "60"]).pid, flush=True)  # outlives its parent
    time.sleep(60)
"""


def test_a_folder_has_one_writer_and_a_dead_one_holds_nothing(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "out")]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    orphan = int(holder.stdout.readline())
    with pytest.raises(RunDirError, match=rf"process {holder.pid} "), locked(tmp_path / "out"):
        pass
    holder.kill()
    holder.wait()
    with locked(tmp_path / "out"):  # its child still lives
        os.kill(orphan, 0)
        assert (tmp_path / "out" / ".lock").read_text() == f"{os.getpid()}\n"
    os.kill(orphan, signal.SIGKILL)


def test_a_second_run_is_refused_while_the_first_writes_unless_it_is_done(tmp_path, cli):
    write_run(tmp_path, 3)
    with locked(tmp_path / "out"):
        second = cli("run", tmp_path / "r.yaml")
    assert second.code == 2 and "r.yaml:10: output_dir: " in second.err and str(os.getpid()) in second.err
    assert cli("run", tmp_path / "r.yaml").code == 0
    with locked(tmp_path / "out"):
        assert "done already" in cli("run", tmp_path / "r.yaml").out


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    for process in (dead.pid, os.getppid()):
        (tmp_path / f".sft.jsonl.{process}").write_text("half")
    write_whole(tmp_path / "sft.jsonl", "whole")
    assert sorted(file.name for file in tmp_path.iterdir()) == [f".sft.jsonl.{os.getppid()}", "sft.jsonl"]


@pytest.mark.slow
def test_ctrl_c_ends_after_a_batch(tmp_path):
    write_run(tmp_path, 400)
    command = [sys.executable, "-m", "reasoning_ext", "run", "r.yaml"]
    signals = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **signals)
    while not (tmp_path / "out" / "samples.jsonl").is_file():
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130 and "Traceback" not in err
    assert 0 < len(read_samples(tmp_path)) < 1600 and not (tmp_path / "out" / DONE).exists()
