"""A training in each tracker with its real package: what is logged, a run that was killed, a tracker that fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tracked_runs import read_back, stores

from reasoning_ext.runs.tracking import installed

TRACKERS = ["tensorboard", "mlflow", "wandb", "trackio"]


def train(folder: Path, name: str, wrong: str = "") -> subprocess.CompletedProcess:
    script = Path(__file__).with_name("tracked_run.py")
    variables = os.environ | stores(folder) | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, script, folder / "run", name, *[wrong][: len(wrong)]],
        cwd=folder, env=variables, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACKERS)
def test_a_killed_training_goes_on_in_the_same_tracked_run(name, tmp_path):
    if not installed(name):
        pytest.skip(f"{name} is not installed")
    assert train(tmp_path, name, "killed").returncode == 9
    kept = json.loads((tmp_path / "run" / "tracking.json").read_text())
    done = train(tmp_path, name)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "warning: report_to" not in done.stdout
    again = json.loads((tmp_path / "run" / "tracking.json").read_text())
    assert again == kept
    ids, found, texts = read_back(name, tmp_path, tmp_path / "run")
    assert len(ids) == 1 and (name not in ("mlflow", "wandb") or ids == {kept.get(name, kept["id"])})
    history = json.loads((tmp_path / "run" / "state.json").read_text())["log_history"]
    logged = {row["step"]: row["loss"] for row in history if "loss" in row}
    key = "loss" if name == "mlflow" else "train/loss"
    assert dict(found[key]) == pytest.approx(logged) and [*logged] == [1, 2, 3, 4, 5]
    assert any("nothing is learnt" in text for text in texts)
    assert any("prompt 99" in text for text in texts) and not any("prompt 100" in text for text in texts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "said"),
    {"torn": "tensorboard failed (OSError: no space left)", "damaged": "completions failed ("}.items(),
)
def test_a_tracker_that_fails_is_said_once_and_the_training_goes_on(tmp_path, wrong, said):
    done = train(tmp_path, "tensorboard", wrong)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count(f"warning: report_to: {said}") == 1
    assert json.loads((tmp_path / "run" / "state.json").read_text())["global_step"] == 5
