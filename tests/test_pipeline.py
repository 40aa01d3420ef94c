"""The whole pipeline on the tiny model, in real processes where one is stopped or killed: run, skip, go on, hand over."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, TINY

from reasoning_ext.errors import UserError
from reasoning_ext.pipeline import run_recipes
from reasoning_ext.recipe.load import load_recipes
from reasoning_ext.runs.checkpoints import COMPLETE
from reasoning_ext.runs.folder import DONE

pytestmark = pytest.mark.slow
RUN = [sys.executable, "-m", "reasoning_ext", "run"]
SMALL = {
    "max_steps": "4", "save_steps": "2", "max_samples": "32", "num_generations": "4", "per_device_train_batch_size": "16",
    "max_completion_length": "24",
}  # fmt: skip
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
from reasoning_ext.scoring import spec
from reasoning_ext.data import sources
counted(sources, "load_rows"), counted(spec, "parse_rewards"), counted(transformers.AutoTokenizer, "from_pretrained")
from reasoning_ext import check
from reasoning_ext.check import keys
counted(check, "check_recipe"), counted(keys, "check_recipe")
from reasoning_ext.cli import main
try:
    main()
finally:
    print("COUNTS" + json.dumps(counts))
"""
STAGES = ["1_sft", "2_grpo", "3_sample", "4_distill", "5_student_on_traces", "6_eval"]


def metrics(run_folder):
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]


def rows_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which all of recipes/tiny has run, with few steps; every answer counts as right, to have rows to distil."""
    folder = tmp_path_factory.mktemp("pipeline")
    for recipe in TINY.glob("*.yaml"):
        text = recipe.read_text().replace("./", f"{TINY}/").replace("min_reward: 1.0", "min_reward: 0.0")
        (folder / recipe.name).write_text(text)
    command = [sys.executable, "-c", COUNTED, "run", ".", *(f"--{key}={value}" for key, value in SMALL.items())]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (folder / "counts.json").write_text(done.stdout.rpartition("COUNTS")[2])
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a recipe in this process and in tmp_path, and return what it prints."""
    monkeypatch.chdir(tmp_path)

    def call(name, **overrides):
        assert run_recipes(load_recipes([name], {key: str(value) for key, value in overrides.items()})) == 0
        return capsys.readouterr().out

    return call


def test_what_a_run_is_made_of_is_read_once_or_twice(finished):
    """One check a recipe; rows a slice before and whole in the stage, but those that an earlier recipe makes; six tokenizers."""
    counts = json.loads((finished / "counts.json").read_text())
    most = {"check_recipe": 6, "parse_rewards": 6, "load_rows": 11, "from_pretrained": 6}
    assert counts.keys() == most.keys() and all(counts[name] <= most[name] for name in most), counts


def test_every_stage_leaves_its_run_folder(finished):
    runs = finished / "runs" / "tiny"
    for stage in STAGES:
        assert all((runs / stage / name).is_file() for name in ("recipe.yaml", "versions.json", "lineage.json", DONE))
    lineage = json.loads((runs / "2_grpo/lineage.json").read_text())
    assert lineage["inputs"]["model"].startswith("run:") and lineage["inputs"]["reward math_answer"].startswith("file:")
    assert [row["step"] for row in metrics(runs / "2_grpo") if "reward" in row] == [1, 2, 3, 4]
    assert len(list((runs / "2_grpo/completions").glob("*.parquet"))) == 4
    assert len(rows_of(runs / "3_sample/samples.jsonl")) == 32 * 4
    results = json.loads((runs / "6_eval/eval.json").read_text())
    assert list(results) == ["sft", "grpo", "student distilled", "student on traces"]
    assert all({"greedy", "pass@1", "pass@4", "maj@4"} <= set(figures) for figures in results.values())
    kept, counts = rows_of(runs / "3_sample/sft.jsonl"), json.loads((runs / "3_sample/summary.json").read_text())
    assert 0 < len(kept) == counts["kept"] <= 32 and counts["sampled"] == 128
    assert set(kept[0]) == {"prompt", "completion", "answer"} and kept[0]["completion"][0]["role"] == "assistant"


def test_a_second_run_does_nothing_and_a_changed_recipe_is_refused(finished, run, monkeypatch):
    monkeypatch.chdir(finished)
    out = run(".", **SMALL)
    assert out.count("done already, skipped") == len(STAGES) and "starts" not in out
    with pytest.raises(UserError, match=r"made by a different recipe \(seed 0 -> 5\)"):
        run(".", **SMALL, seed=5)


def test_report_score_and_ask_take_the_runs(finished, monkeypatch, capsys):
    from reasoning_ext.evaluate.ask import ask_and_print
    from reasoning_ext.evaluate.replay import score_and_print
    from reasoning_ext.runs.report import write_report

    monkeypatch.chdir(finished)
    write_report([Path("runs/tiny")], Path("report.html"))
    assert "2_grpo" in Path("report.html").read_text()
    score_and_print(Path("runs/tiny/2_grpo"), None, ["math_answer"])
    try:
        ask_and_print("runs/tiny/2_grpo", "3+4*7", 4, 1.0, 16, 0)
    finally:
        logging.disable(logging.NOTSET)  # `ask` silences every library in its process
    out = capsys.readouterr().out
    assert "math_answer x 1 " in out and "vote:" in out and "of 4)" in out


def wait_for(path, process, seconds=600):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, f"{path} never came"
        time.sleep(0.01)


@pytest.fixture
def grpo(finished, tmp_path):
    """Write a GRPO recipe of small steps into tmp_path, which goes on from the SFT model."""
    text = (finished / "2_grpo.yaml").read_text().replace("runs/tiny/1_sft", str(finished / "runs/tiny/1_sft"))
    for key, value in {"per_device_train_batch_size: 256": 16, "max_steps: 50": 16, "save_steps: 10": 4}.items():
        text = text.replace(key, f"{key.partition(':')[0]}: {value}")
    (tmp_path / "grpo.yaml").write_text(text.replace("max_completion_length: 56", "max_completion_length: 24"))


def test_a_run_that_was_stopped_and_then_killed_ends_as_if_nothing_had_been(grpo, run, tmp_path):
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    process = subprocess.Popen(
        [*RUN, "grpo.yaml", "--output_dir", cut], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    wait_for(cut / "metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 130 and "run the same command again to go on" in out
    [checkpoint] = cut.glob(f"checkpoint-*/{COMPLETE}")
    step = int(checkpoint.parent.name[11:])
    assert 0 < step < 12 and not (cut / DONE).exists()
    process = subprocess.Popen(
        [*RUN, "grpo.yaml", "--output_dir", cut], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    wait_for(cut / f"checkpoint-{step // 4 * 4 + 4}" / COMPLETE, process)
    process.kill()
    assert f"goes on from {cut}/checkpoint-{step}" in process.communicate()[0] and not (cut / DONE).exists()
    torn = cut / "checkpoint-17"  # what a kill in the middle of saving leaves
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"\0" * 100)
    (cut / "metrics.jsonl").open("a").write('{"step": 1')
    out = run("grpo.yaml", output_dir=cut)
    assert f"goes on from {cut}/checkpoint-" in out and "checkpoint-17" not in out and (cut / DONE).exists()
    run("grpo.yaml", output_dir=straight)
    before, after = ([row for row in metrics(f) if "reward" in row] for f in (straight, cut))
    assert [row["step"] for row in after] == list(range(1, 17))
    for a, b in zip(before, after, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-3) and b["learning_rate"] == a["learning_rate"]
        assert b["completions/mean_length"] == a["completions/mean_length"]


def test_a_sampling_that_was_cut_off_draws_only_what_is_missing(finished, run, tmp_path):
    text = (finished / "3_sample.yaml").read_text().replace("runs/tiny/2_grpo", str(finished / "runs/tiny/2_grpo"))
    (tmp_path / "sample.yaml").write_text(text)
    arguments = {key: SMALL[key] for key in ("max_samples", "num_generations", "max_completion_length")}
    run("sample.yaml", **arguments, output_dir="out")
    file, done = tmp_path / "out" / "samples.jsonl", tmp_path / "out" / DONE
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:50]) + lines[50][:20])
    done.unlink()
    run("sample.yaml", **arguments, output_dir="out")
    rows = rows_of(file)
    assert [json.loads(line) for line in lines[:50]] == rows[:50]
    assert len(rows) == 128 == len({(r["prompt_index"], r["sample_index"]) for r in rows})


def test_two_processes_train_data_parallel(grpo, tmp_path):
    import pyarrow.parquet

    # With --cpu accelerate starts two processes through MPI alone; --multi_gpu is torchrun, and `use_cpu: true` makes it gloo.
    flags = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
    launch = [sys.executable, "-m", "accelerate.commands.launch", *flags.split(), *RUN[1:]]
    command = [*launch, "grpo.yaml", "--output_dir", "out", "--max_steps", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    rows = [row for row in metrics(tmp_path / "out") if "reward" in row]
    assert [row["step"] for row in rows] == [1, 2] and (tmp_path / "out" / DONE).exists()
    table = pyarrow.parquet.read_table(next((tmp_path / "out" / "completions").glob("*.parquet")))
    assert table.num_rows == 32 and done.stdout.count("starts in") == 1  # 16 completions from each of two processes


def test_too_few_rows_for_one_generation_are_refused(grpo, run):
    with pytest.raises(UserError, match="dataset_name: found 1 rows, but one generation takes 2 prompts"):
        run("grpo.yaml", max_samples=1)


def test_report_to_passes_through(grpo, run, tmp_path):
    run("grpo.yaml", output_dir="out", max_steps=1, report_to="tensorboard")
    assert list(tmp_path.rglob("events.out.tfevents.*"))


def test_the_example_of_a_reward_of_ones_own_runs(finished, run, monkeypatch):
    monkeypatch.chdir(finished)
    run(str(ROOT / "examples" / "custom_reward" / "grpo.yaml"), **SMALL | {"max_steps": "1"}, output_dir="example")
    assert any("rewards/shows_steps/mean" in row for row in metrics(finished / "example"))
