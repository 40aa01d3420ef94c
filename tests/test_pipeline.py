"""The whole pipeline on the tiny model: run, skip, stop and go on, killed and go on, hand over, two processes."""

import functools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import fmean

import pytest
from conftest import ROOT, TINY
from transformers import AutoTokenizer

from reasoning_ext.check.keys import check_recipe
from reasoning_ext.data.sources import load_rows
from reasoning_ext.errors import UserError
from reasoning_ext.evaluate.over_steps import over_steps
from reasoning_ext.evaluate.replay import read_completions
from reasoning_ext.pipeline import run_recipes
from reasoning_ext.recipe.load import load_recipes
from reasoning_ext.runs.checkpoints import COMPLETE
from reasoning_ext.runs.folder import DONE
from reasoning_ext.scoring.spec import parse_rewards

pytestmark = pytest.mark.slow
RUN = ["-m", "reasoning_ext", "run"]
SMALL = {
    "max_steps": "4", "save_steps": "2", "max_samples": "32", "num_generations": "4", "per_device_train_batch_size": "16",
    "max_completion_length": "24",
}  # fmt: skip
MOST = {"check_recipe": 6, "parse_rewards": 6, "load_rows": 11, "from_pretrained": 6}  # calls in a run of all recipes
STAGES = ["1_sft", "2_grpo", "3_sample", "4_distill", "5_student_on_traces", "6_eval"]


def metrics(run_folder):
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]


def rows_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which all of recipes/tiny has run, with few steps; every answer counts as right, to have rows to distil.

    `counts.json` has how often what costs time was read.
    """
    folder, counts = tmp_path_factory.mktemp("pipeline"), dict.fromkeys(MOST, 0)
    for recipe in TINY.glob("*.yaml"):
        text = recipe.read_text().replace("./", f"{TINY}/").replace("min_reward: 1.0", "min_reward: 0.0")
        (folder / recipe.name).write_text(text)

    def counted(function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            counts[function.__name__] += 1
            return function(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(AutoTokenizer, "from_pretrained", counted(AutoTokenizer.from_pretrained))
        for function in (check_recipe, parse_rewards, load_rows):
            for module in [each for each in sys.modules.values() if vars(each).get(function.__name__) is function]:
                patch.setattr(module, function.__name__, counted(function))
        assert run_recipes(load_recipes(["."], SMALL)) == 0
    (folder / "counts.json").write_text(json.dumps(counts))
    return folder


def test_what_a_run_is_made_of_is_read_once_or_twice(finished):
    """One check a recipe; rows a slice before and whole in the stage, but those that an earlier recipe makes; six tokenizers."""
    counts = json.loads((finished / "counts.json").read_text())
    assert all(0 < counts[name] <= most for name, most in MOST.items()), counts


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a recipe in this process and in tmp_path, and return what it prints."""
    monkeypatch.chdir(tmp_path)

    def call(name, code=0, **overrides):
        assert run_recipes(load_recipes([name], {key: str(value) for key, value in overrides.items()})) == code
        return capsys.readouterr().out

    return call


def test_every_stage_leaves_its_run_folder(finished):
    runs = finished / "runs" / "tiny"
    for stage in STAGES:
        assert all((runs / stage / name).is_file() for name in ("recipe.yaml", "versions.json", "lineage.json", DONE))
    lineage = json.loads((runs / "2_grpo/lineage.json").read_text())
    assert lineage["inputs"]["model"].startswith("run:") and lineage["inputs"]["reward math_answer"].startswith("file:")
    assert [row["step"] for row in metrics(runs / "2_grpo") if "reward" in row] == [1, 2, 3, 4]
    assert len(list((runs / "2_grpo/completions").glob("*.parquet"))) == 4
    logged = [row["completions/mean_length"] for row in metrics(runs / "2_grpo") if "reward" in row]
    rows = read_completions(runs / "2_grpo")
    assert fmean(row["tokens"] for row in rows) == pytest.approx(fmean(logged))
    assert {name for of in over_steps(runs / "2_grpo").values() for name in of if name.startswith("tokens")}
    results = json.loads((runs / "6_eval/eval.json").read_text())
    assert list(results) == ["sft", "grpo", "student distilled", "student on traces"]
    assert all({"greedy", "pass@1", "pass@4", "maj@4"} <= set(figures) for figures in results.values())
    kept, counts = rows_of(runs / "3_sample/sft.jsonl"), json.loads((runs / "3_sample/summary.json").read_text())
    assert 0 < len(kept) == counts["kept"] <= 32 and counts["sampled"] == 128 == len(
        rows_of(runs / "3_sample/samples.jsonl")
    )
    assert set(kept[0]) == {"prompt", "completion", "answer"} and kept[0]["completion"][0]["role"] == "assistant"


def test_a_second_run_does_nothing_and_a_changed_recipe_is_refused(finished, run, monkeypatch):
    monkeypatch.chdir(finished)
    out = run(".", **SMALL)
    assert out.count("done already, skipped") == len(STAGES) and "starts" not in out
    with pytest.raises(UserError, match=r"seed 0 -> 5"):
        run(".", **SMALL, seed=5)


def test_report_score_and_ask_take_the_runs(finished, monkeypatch, capsys):
    from reasoning_ext.engines.base import SamplingSettings
    from reasoning_ext.evaluate.ask import ask_and_print
    from reasoning_ext.evaluate.choice import Choice
    from reasoning_ext.evaluate.replay import score_and_print
    from reasoning_ext.runs.report import write_report

    monkeypatch.chdir(finished)
    write_report([Path("runs/tiny")], Path("report.html"))
    assert "2_grpo" in Path("report.html").read_text()
    score_and_print(Path("runs/tiny/2_grpo"), None, ["math_answer"])
    try:
        ask_and_print(["runs/tiny/2_grpo"], "3+4*7", Choice(4), SamplingSettings(16))
    finally:
        logging.disable(logging.NOTSET)  # `ask` silences every library in its process
    out = capsys.readouterr().out
    assert "math_answer x 1 " in out and "vote:" in out and "of 4)" in out


@pytest.fixture
def grpo(finished, tmp_path):
    """Write a GRPO recipe of small steps into tmp_path, which goes on from the SFT model."""
    text = (finished / "2_grpo.yaml").read_text().replace("runs/tiny/1_sft", str(finished / "runs/tiny/1_sft"))
    for key, value in {"per_device_train_batch_size: 256": 16, "max_steps: 50": 12, "save_steps: 10": 4}.items():
        text = text.replace(key, f"{key.partition(':')[0]}: {value}")
    text += "health: {cut_off: off}\n"
    (tmp_path / "grpo.yaml").write_text(text.replace("max_completion_length: 56", "max_completion_length: 24"))


def test_a_run_that_was_stopped_and_then_killed_ends_as_if_nothing_had_been(grpo, run, tmp_path):
    straight, cut = tmp_path / "straight", tmp_path / "cut"

    def interrupt():
        while not (cut / "metrics.jsonl").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert "run the same command again to go on" in run("grpo.yaml", code=130, output_dir=cut)
    [checkpoint] = cut.glob(f"checkpoint-*/{COMPLETE}")
    step = int(checkpoint.parent.name[11:])
    assert 0 < step < 8 and not (cut / DONE).exists()
    command = [sys.executable, *RUN, "grpo.yaml", "--output_dir", cut]
    process, end = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True), time.monotonic() + 600
    while not (cut / f"checkpoint-{step // 4 * 4 + 4}" / COMPLETE).exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
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
    assert [row["step"] for row in after] == list(range(1, 13))
    for a, b in zip(before, after, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-3) and b["learning_rate"] == a["learning_rate"]
        assert b["completions/mean_length"] == a["completions/mean_length"]


def test_a_sampling_that_was_cut_off_draws_only_what_is_missing(finished, run, tmp_path, monkeypatch):
    out, before = tmp_path / "out", finished / "runs/tiny/3_sample"
    shutil.copytree(before, out)
    lines = (before / "samples.jsonl").read_text().splitlines(keepends=True)
    (out / "samples.jsonl").write_text("".join(lines[:50]) + lines[50][:20])
    (out / DONE).unlink()
    monkeypatch.chdir(finished)
    run(
        "3_sample.yaml",
        **{key: SMALL[key] for key in ("max_samples", "num_generations", "max_completion_length")},
        output_dir=out,
    )
    rows = rows_of(out / "samples.jsonl")
    assert [json.loads(line) for line in lines[:50]] == rows[:50]
    assert len(rows) == 128 == len({(r["prompt_index"], r["sample_index"]) for r in rows})


def test_two_processes_train_data_parallel(grpo, tmp_path):
    import pyarrow.parquet

    # With --cpu accelerate starts two processes through MPI alone; --multi_gpu is torchrun, and `use_cpu: true` makes it gloo.
    flags = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
    launch = [sys.executable, "-m", "accelerate.commands.launch", *flags.split(), *RUN]
    command = [*launch, "grpo.yaml", "--output_dir", "out", "--max_steps", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    rows = [row for row in metrics(tmp_path / "out") if "reward" in row]
    assert [row["step"] for row in rows] == [1] and (tmp_path / "out" / DONE).exists()
    table = pyarrow.parquet.read_table(next((tmp_path / "out" / "completions").glob("*.parquet")))
    assert table.num_rows == 32 and done.stdout.count("starts in") == 1  # 16 completions from each of two processes


def test_too_few_rows_for_one_generation_are_refused(grpo, run):
    with pytest.raises(UserError, match="dataset_name: found 1 rows"):
        run("grpo.yaml", max_samples=1)


def test_the_example_of_a_reward_of_ones_own_runs_and_report_to_passes_through(finished, run, monkeypatch):
    monkeypatch.chdir(finished)
    example = ROOT / "examples" / "custom_reward" / "grpo.yaml"
    run(str(example), **SMALL | {"max_steps": "1"}, output_dir="example", report_to="tensorboard")
    assert any("rewards/shows_steps/mean" in row for row in metrics(finished / "example"))
    assert list(finished.rglob("events.out.tfevents.*"))
