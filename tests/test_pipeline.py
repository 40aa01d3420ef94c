"""The whole pipeline on the tiny model, in real processes: run, skip, kill, go on, Ctrl-C, hand over."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, TINY

from reasoning_ext.checkpoints import COMPLETE
from reasoning_ext.run_dir import DONE

pytestmark = pytest.mark.slow
RUN = [sys.executable, "-m", "reasoning_ext", "run"]
SMALL = ["--max_steps", "4", "--save_steps", "2", "--max_samples", "64", "--num_generations", "4"]
# `reasoning-ext`, which says in the end how often it has read what costs time
COUNTED = """
import collections, functools, json, sys
counts = collections.Counter()

def counted(owner, name):
    function = getattr(owner, name)
    @functools.wraps(function)
    def call(*args, **kwargs):
        counts[name] += 1
        return function(*args, **kwargs)
    setattr(owner, name, call)

import transformers
from reasoning_ext import reward_loading, sources
counted(sources, "load_rows"), counted(reward_loading, "parse_rewards"), counted(transformers.AutoTokenizer, "from_pretrained")
from reasoning_ext import check_keys
counted(check_keys, "check_keys")
from reasoning_ext.cli import main
try:
    main()
finally:
    print("COUNTS" + json.dumps(counts))
"""
STAGES = ["1_sft", "2_grpo", "3_sample", "4_distill", "5_student_on_traces", "6_eval"]


def run(arguments, cwd, code=0):
    done = subprocess.run([*RUN, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=400)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def metrics(run_folder):
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which all of recipes/tiny has run, with few steps; every answer counts as right, to have rows to distil."""
    folder = tmp_path_factory.mktemp("pipeline")
    for recipe in TINY.glob("*.yaml"):
        text = recipe.read_text().replace("./", f"{TINY}/").replace("min_reward: 1.0", "min_reward: 0.0")
        (folder / recipe.name).write_text(text)
    command = [sys.executable, "-c", COUNTED, "run", ".", *SMALL]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (folder / "counts.json").write_text(done.stdout.rpartition("COUNTS")[2])
    return folder


def test_what_a_run_is_made_of_is_read_once_or_twice(finished):
    """One check a recipe; rows a slice before and whole in the stage, but those that an earlier recipe makes; six tokenizers."""
    counts = json.loads((finished / "counts.json").read_text())
    most = {"check_keys": 6, "parse_rewards": 6, "load_rows": 11, "from_pretrained": 6}
    assert counts.keys() == most.keys() and all(counts[name] <= most[name] for name in most), counts


def test_every_stage_leaves_its_run_folder(finished):
    for stage in STAGES:
        folder = finished / "runs" / "tiny" / stage
        for name in ("recipe.yaml", "versions.json", "lineage.json", DONE):
            assert (folder / name).is_file(), f"{stage}/{name}"
    lineage = json.loads((finished / "runs/tiny/2_grpo/lineage.json").read_text())
    assert lineage["inputs"]["model"].startswith("run:") and lineage["inputs"]["reward math_answer"].startswith("file:")
    grpo = metrics(finished / "runs/tiny/2_grpo")
    assert [row["step"] for row in grpo if "reward" in row] == [1, 2, 3, 4]
    assert len(list((finished / "runs/tiny/2_grpo/completions").glob("*.parquet"))) == 4
    assert len((finished / "runs/tiny/3_sample/samples.jsonl").read_text().splitlines()) == 64 * 4
    results = json.loads((finished / "runs/tiny/6_eval/eval.json").read_text())
    assert list(results) == ["sft", "grpo", "student distilled", "student on traces"]
    assert all({"greedy", "pass@1", "pass@4", "maj@4"} <= set(figures) for figures in results.values())


def test_the_distilled_student_was_trained_on_the_kept_samples(finished):
    kept = [json.loads(line) for line in (finished / "runs/tiny/3_sample/sft.jsonl").read_text().splitlines()]
    counts = json.loads((finished / "runs/tiny/3_sample/summary.json").read_text())
    assert 0 < len(kept) == counts["kept"] <= 64 and counts["sampled"] == 256
    assert set(kept[0]) == {"prompt", "completion", "answer"} and kept[0]["completion"][0]["role"] == "assistant"


def test_a_second_run_does_nothing_and_says_so_at_once(finished):
    out = run([".", *SMALL], finished)
    assert out.count("done already, skipped") == len(STAGES) and "starts" not in out


def test_a_changed_recipe_is_refused_before_anything_runs(finished, cli):
    done = subprocess.run([*RUN, ".", *SMALL, "--seed", "5"], cwd=finished, capture_output=True, text=True)
    assert done.returncode == 2 and "made by a different recipe (seed 0 -> 5)" in done.stderr


def test_report_score_and_ask_take_the_runs(finished):
    def call(*arguments):
        command = [sys.executable, "-m", "reasoning_ext", *arguments]
        return subprocess.run(command, cwd=finished, capture_output=True, text=True, check=True).stdout

    assert "report.html" in call("report", "runs/tiny")
    assert "2_grpo" in (finished / "runs/tiny/report.html").read_text()
    assert "math_answer" in call("score", "runs/tiny/2_grpo", "--reward", "math_answer")
    out = call("ask", "runs/tiny/2_grpo", "3+4*7", "-n", "4", "--max-completion-length", "16")
    assert "vote:" in out and "of 4)" in out


def wait_for(path, process, seconds=240):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, f"{path} never came"
        time.sleep(0.02)


def grpo_recipe(finished, tmp_path, steps):
    text = (finished / "2_grpo.yaml").read_text().replace("runs/tiny/1_sft", str(finished / "runs/tiny/1_sft"))
    text = text.replace("max_steps: 50", f"max_steps: {steps}").replace("save_steps: 10", "save_steps: 2")
    (tmp_path / "grpo.yaml").write_text(
        text.replace("per_device_train_batch_size: 256", "per_device_train_batch_size: 32")
    )


def test_a_killed_grpo_goes_on_from_its_last_complete_checkpoint_as_if_nothing_had_been(finished, tmp_path):
    grpo_recipe(finished, tmp_path, steps=12)
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    run(["grpo.yaml", "--output_dir", straight], tmp_path)
    process = subprocess.Popen([*RUN, "grpo.yaml", "--output_dir", cut], cwd=tmp_path, stdout=subprocess.DEVNULL)
    wait_for(cut / "checkpoint-4" / COMPLETE, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (cut / DONE).exists()
    torn = cut / "checkpoint-11"  # what a kill in the middle of saving leaves
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"\0" * 100)
    (cut / "metrics.jsonl").open("a").write('{"step": 1')
    out = run(["grpo.yaml", "--output_dir", cut], tmp_path)
    assert f"goes on from {cut}/checkpoint-" in out and "checkpoint-11" not in out and (cut / DONE).exists()
    before, after = ([row for row in metrics(f) if "reward" in row] for f in (straight, cut))
    assert [row["step"] for row in after] == list(range(1, 13))
    for a, b in zip(before, after, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-3) and b["learning_rate"] == a["learning_rate"]
        assert b["completions/mean_length"] == a["completions/mean_length"]


def test_ctrl_c_saves_and_exits_130_and_the_run_goes_on(finished, tmp_path):
    grpo_recipe(finished, tmp_path, steps=60)
    process = subprocess.Popen([*RUN, "grpo.yaml", "--output_dir", "out", "--save_steps", "50"], cwd=tmp_path, text=True,
                               stdout=subprocess.PIPE)  # fmt: skip
    wait_for(tmp_path / "out" / "metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and "run the same command again to go on" in out
    [checkpoint] = (tmp_path / "out").glob(f"checkpoint-*/{COMPLETE}")
    step = int(checkpoint.parent.name[11:])
    assert 0 < step < 60 and not (tmp_path / "out" / DONE).exists()
    process = subprocess.Popen([*RUN, "grpo.yaml", "--output_dir", "out", "--save_steps", "50"], cwd=tmp_path, text=True,
                               stdout=subprocess.PIPE)  # fmt: skip
    assert f"goes on from out/checkpoint-{step}" in process.stdout.readline()
    process.kill()
    process.wait()


def test_a_sampling_that_was_cut_off_draws_only_what_is_missing(finished, tmp_path):
    whole = finished / "runs/tiny/3_sample"
    out = tmp_path / "out"
    text = (finished / "3_sample.yaml").read_text().replace("runs/tiny/2_grpo", str(finished / "runs/tiny/2_grpo"))
    (tmp_path / "sample.yaml").write_text(text.replace("output_dir: runs/tiny/3_sample", f"output_dir: {out}"))
    arguments = ["sample.yaml", "--max_samples", "64", "--num_generations", "4"]
    run(arguments, tmp_path)
    lines = (out / "samples.jsonl").read_text().splitlines(keepends=True)
    (out / "samples.jsonl").write_text("".join(lines[:100]) + lines[100][:20])
    (out / DONE).unlink()
    run(arguments, tmp_path)
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert [json.loads(line) for line in lines[:100]] == rows[:100]
    assert len(rows) == 256 == len({(r["prompt_index"], r["sample_index"]) for r in rows})
    assert len((whole / "samples.jsonl").read_text().splitlines()) == 256


def test_two_processes_train_data_parallel(finished, tmp_path):
    grpo_recipe(finished, tmp_path, steps=2)
    # With --cpu accelerate starts two processes through MPI alone; --multi_gpu is torchrun, and `use_cpu: true` makes it gloo.
    flags = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        *flags.split(),
        "-m",
        "reasoning_ext",
        "run",
        "grpo.yaml",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--output_dir", "out"], cwd=tmp_path, capture_output=True, text=True, env=environment,
                          timeout=400)  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    rows = [row for row in metrics(tmp_path / "out") if "reward" in row]
    assert [row["step"] for row in rows] == [1, 2] and (tmp_path / "out" / DONE).exists()
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(next((tmp_path / "out" / "completions").glob("*.parquet")))
    assert table.num_rows == 64  # 32 completions from each of two processes
    assert done.stdout.count("starts in") == 1


def test_too_few_rows_for_one_generation_are_refused(finished, tmp_path):
    grpo_recipe(finished, tmp_path, steps=1)
    done = subprocess.run([*RUN, "grpo.yaml", "--max_samples", "3"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert (
        "dataset_name: found 3 rows, but one generation takes 4 prompts; use more rows or smaller batches"
        in done.stderr
    )


def test_report_to_passes_through(finished, tmp_path):
    grpo_recipe(finished, tmp_path, steps=1)
    run(["grpo.yaml", "--output_dir", "out", "--report_to", "tensorboard"], tmp_path)
    assert list(tmp_path.rglob("events.out.tfevents.*"))


def test_the_example_of_a_reward_of_ones_own_runs(finished):
    example = ROOT / "examples" / "custom_reward" / "grpo.yaml"
    run([example, "--max_steps", "1", "--max_samples", "64"], finished)
    [output] = [
        Path(line.split("output_dir:")[1].strip()) for line in example.read_text().splitlines() if "output_dir:" in line
    ]
    assert any("rewards/shows_steps/mean" in row for row in metrics(finished / output))
