"""Runs that are done: longer ones go on as if they had been asked for at once, damaged ones are named by every command."""

import json
import shutil
import sys

import pytest
from conftest import TINY

pytestmark = pytest.mark.slow
SFT = f"""\
stage: sft
model_name_or_path: {TINY / "model"}
from_scratch: true
dataset_name: ./rows.jsonl
max_steps: 2
save_steps: 1
logging_steps: 1
learning_rate: 1e-2
lr_scheduler_type: constant
per_device_train_batch_size: 4
use_cpu: true
gradient_checkpointing: false
"""
GRPO = "reward_funcs: [exact_answer]\nnum_generations: 2\nmax_completion_length: 4\n"
EVAL = "stage: eval\ndataset_name: ./rows.jsonl\nmax_completion_length: 4\nuse_cpu: true\noutput_dir: eval\n"
STUDENT = f"{SFT.replace(str(TINY / 'model'), 'run').replace('from_scratch: true', '')}output_dir: student\n"


@pytest.fixture
def run(tmp_path, write_recipe, rows_file, monkeypatch):
    """Run a recipe text in this process."""
    from reasoning_ext.pipeline import run_recipes
    from reasoning_ext.recipe.load import load_recipes

    monkeypatch.chdir(tmp_path)

    def call(text, **overrides):
        write_recipe(text)
        return run_recipes(load_recipes(["r.yaml"], {key: str(value) for key, value in overrides.items()}))

    return call


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def steps(folder):
    return [
        row["step"] for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()) if "loss" in row
    ]


def test_a_longer_training_goes_on_from_the_shorter_ones_end(run, tmp_path, capsys):
    from reasoning_ext.errors import UserError

    assert run(SFT + "output_dir: run\n") == 0 and run(STUDENT) == 0
    assert run(SFT + "output_dir: run\n", logging_steps=2, save_total_limit=3, run_name="again") == 0
    assert "done already" in capsys.readouterr().out and steps(tmp_path / "run") == [1, 2]
    assert run(SFT + "output_dir: run\n", max_steps=4) == 0
    assert "longer than before: max_steps 2 -> 4" in capsys.readouterr().out
    assert run(SFT + "output_dir: straight\n", max_steps=4) == 0
    assert steps(tmp_path / "run") == steps(tmp_path / "straight") == [1, 2, 3, 4]
    longer, straight = weights(tmp_path / "run"), weights(tmp_path / "straight")
    assert all(longer[name].equal(straight[name]) for name in straight)
    with pytest.raises(UserError, match="other inputs"):
        run(STUDENT)


@pytest.fixture
def refused(capsys, monkeypatch):
    """Run a command of ours in this process, which is to end with exit code 2, and return what it says."""
    from reasoning_ext.cli import main

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["reasoning-ext", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        return capsys.readouterr().err

    return call


def test_every_command_names_the_file_of_a_finished_run_that_is_cut_off(run, refused, tmp_path, write_recipe):
    from reasoning_ext.runs.report import write_report

    assert run(SFT + "output_dir: run\n") == 0
    folder = tmp_path / "run"
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    said = "found run, done, but its model.safetensors has 1000 bytes"
    for text, key in (
        (SFT + "output_dir: run\n", "output_dir"),
        (STUDENT, "model_name_or_path"),
        (EVAL + "models: {a: run}\n", "models.a"),
    ):
        write_recipe(text)
        for command in (("run", "r.yaml"), ("check", "--offline", "r.yaml")):
            assert f"{key}: {said}" in refused(*command)
    for command in (("ask", "run", "1+2"), ("export", "run")):
        assert "model.safetensors has 1000 bytes" in refused(*command)
    write_report([folder], None)
    assert "model.safetensors has 1000 bytes" in (folder / "report.html").read_text()
    (folder / "DONE").write_text("{}")  # of an earlier version, without sizes
    for command in (("ask", "run", "1+2"), ("export", "run")):
        assert "model.safetensors, 1000 bytes" in refused(*command)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config[:50])
    assert "config.json is damaged" in refused("export", "run")
    (folder / "config.json").write_text(config)
    (folder / "DONE").unlink()  # as the line says
    assert run(SFT + "output_dir: run\n") == 0 and run(STUDENT) == 0


def test_damaged_lines_of_metrics_are_dropped_when_a_run_goes_on(run, tmp_path):
    assert run(SFT + "output_dir: run\n") == 0
    (tmp_path / "run" / "DONE").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoint-2")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "run" / "metrics.jsonl").write_text("\x00{\n[]\n" + lines[0] + '\n{"loss": 1}\n')
    assert run(SFT + "output_dir: run\n") == 0
    assert steps(tmp_path / "run") == [1, 2]


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_a_run_cut_off_before_done_trains_no_further_step(run, stage, tmp_path, capsys):
    def go_on(**overrides):
        assert run(text, **overrides) == 0
        log = (out / "metrics.jsonl").read_text()
        tokens = [row["num_tokens"] for row in map(json.loads, log.splitlines()) if "num_tokens" in row]
        return capsys.readouterr().out, log, tokens

    text, out = SFT.replace("stage: sft", f"stage: {stage}"), tmp_path / "out"
    text += "save_total_limit: 1\noutput_dir: out\n" + (GRPO if stage == "grpo" else "")
    _, log, tokens = go_on()
    assert [c.name for c in out.glob("checkpoint-*")] == ["checkpoint-2"]
    weights = (out / "model.safetensors").read_bytes()
    (out / "DONE").unlink()
    (out / "model.safetensors").unlink()
    said, again, _ = go_on()
    assert "step 3/2" not in said and "goes on from out/checkpoint-2" in said
    assert (out / "model.safetensors").read_bytes() == weights and again == log
    said, _, counted = go_on(max_steps=4)
    assert "step 4/4" in said and "step 2/4" not in said
    assert counted == sorted(counted) and counted[: len(tokens)] == tokens
