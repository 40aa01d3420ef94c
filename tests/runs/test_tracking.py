"""Stages that train nothing in each tracker, with its real package: figures, tables, a run that was killed, one that fails."""

import json
import os
import subprocess
import sys
from unittest.mock import Mock

import pytest
from tracked_runs import read_back, stores

from reasoning_ext.evaluate.table import log_model
from reasoning_ext.recipe.keys import TRACKERS
from reasoning_ext.runs.tracking import Tracking, installed, numbers, wanted

FIGURES = {
    "sft": {"problems": 4, "greedy": [0.5, 0.25, 0.75], "thoughts": {"steps": 3.5}},
    "grpo checkpoint-10": {"greedy": [0.75, 0.5, 1.0], "pass@1": [0.5, 0.25, 0.75]},
    "grpo checkpoint-20": {"greedy": [1.0, 0.5, 1.0], "pass@1": [0.75, 0.25, 0.75]},
}
# logs one model after the other; `killed` ends the process behind the second one
SCRIPT = """
import json, os, sys, time
from pathlib import Path
from reasoning_ext.evaluate.stage import log_model
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.runs.tracking import tracked

with tracked(load_recipe(Path("r.yaml")), Path("out")) as tracking:
    for label, figures in json.loads(sys.argv[1]).items():
        lines = [{"model": label, "prompt": [{"content": "<b>?"}], "right": 1.0, "text": f"row {i}"} for i in range(150)]
        log_model(tracking, label, figures, lines)
        if label.endswith("10") and sys.argv[2:]:
            time.sleep(2 if {"wandb", "trackio"} & {*tracking.names} else 0)
            os._exit(9)
    tracking.alarm("cut off", "most were cut off")
    print("LOST", sorted(tracking.lost))
"""


def evaluate(folder, name, *killed):
    (folder / "out").mkdir(exist_ok=True)
    strategies = "[greedy]" if killed else "[greedy, {cot: {prompt: Think.}}]"  # which may be added
    text = f"stage: eval\nmodels: {{a: b}}\nstrategies: {strategies}\noutput_dir: out\nreport_to: {name}\n"
    (folder / "r.yaml").write_text(text)
    variables = os.environ | stores(folder) | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, json.dumps(FIGURES), *killed]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACKERS)
def test_figures_are_logged_and_a_killed_evaluation_goes_on_in_the_same_tracked_run(name, tmp_path):
    if not installed(name):
        pytest.skip(f"{name} is not installed")
    assert evaluate(tmp_path, name, "killed").returncode == 9
    done = evaluate(tmp_path, name)
    assert "LOST []" in done.stdout, done.stdout[-2000:] + done.stderr[-3000:]
    ids, found, texts = read_back(name, tmp_path, tmp_path / "out")
    assert len(ids) == 1
    wanted_numbers = {}
    for label, figures in FIGURES.items():
        series, _, step = label.partition(" checkpoint-")
        for key, value in numbers(series, figures).items():
            key = key.replace("@", "_") if name == "mlflow" else key
            wanted_numbers.setdefault(key, {})[int(step or 0)] = value
    assert {key: dict(found[key]) for key in wanted_numbers} == wanted_numbers
    assert any("most were cut off" in text for text in texts)
    assert any("row 99" in text for text in texts) and not any("row 100" in text for text in texts)


def test_a_tracker_that_fails_is_said_once_and_asked_no_more(tmp_path, capsys, monkeypatch):
    tracking, asked = Tracking(tmp_path, ["tensorboard"], "p", None), []
    tracking.start(["tensorboard"])

    def refuse(*args, **kwargs):
        asked.append(args)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tracking.writer("tensorboard"), "add_scalar", refuse)
    for _ in range(3):
        tracking.log({"a": 1.0})
    tracking.alarm("a", "b")
    tracking.table("c", [{"d": 1}])
    tracking.finish()
    assert len(asked) == 1 and tracking.lost == {"tensorboard"}
    assert tracking.writer("tensorboard").all_writers is None  # closed
    assert capsys.readouterr().out.count("warning: report_to: tensorboard failed (OSError") == 1


@pytest.mark.parametrize(
    ("label", "key", "step"),
    [("sft", "sft", 0), ("a checkpoint-20", "a", 20), ("checkpoint-9", "checkpoints", 9), ("12", "12", 0)],
)
def test_a_checkpoint_is_a_point_of_a_curve(label, key, step):
    tracking = Mock()
    log_model(tracking, label, {"greedy": 0.5}, [{"model": label}, {"model": "other"}])
    tracking.log.assert_called_once_with({f"{key}/greedy": 0.5}, step)
    [(name, lines, at)] = [call.args for call in tracking.table.call_args_list]
    assert (name, [*lines], at) == (f"completions/{key}", [{"model": label}], step)


def test_which_trackers_are_wanted(monkeypatch):
    monkeypatch.setattr("reasoning_ext.runs.tracking.installed", lambda name: name in ("wandb", "mlflow"))
    assert [*wanted("none")] == [*wanted(None)] == [*wanted([])] == []
    assert [*wanted("all")] == [*wanted(["all"])] == ["wandb", "mlflow"]
    assert [*wanted(["mlflow", "trackio", "mlflow", "comet_ml"])] == ["trackio", "mlflow"]


def test_a_folder_of_a_trackers_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "nowhere").mkdir()  # as wandb writes one called wandb
    monkeypatch.syspath_prepend(tmp_path)
    assert not installed("nowhere") and installed("yaml")


def test_two_folders_of_one_run_name_are_two_runs_of_trackio(tmp_path):
    names = []
    for folder in (tmp_path / "a", tmp_path / "b", tmp_path / "a"):
        folder.mkdir(exist_ok=True)
        assert Tracking(folder, ["wandb"], "p", "mine").run_name == "mine"
        names.append(Tracking(folder, ["wandb", "trackio"], "p", "mine").run_name)
    assert names[0] == names[2] != names[1] and all(name.startswith("mine-") for name in names)


def test_no_secret_is_kept(tmp_path):
    Tracking(tmp_path, ["wandb"], "p", "mine")
    assert {*json.loads((tmp_path / "tracking.json").read_text())} == {"id"}
