"""What report_to may name, said before anything heavy is imported."""

import pytest

from reasoning_ext.check.keys import check_recipe
from reasoning_ext.recipe.load import load_recipe


@pytest.mark.parametrize(
    ("stage", "report_to", "code"),
    [
        ("eval", "wandbb", "unknown_tracker"),
        ("sample", "[tensorboard, comet_ml]", "unknown_tracker"),
        ("eval", "none", None),
        ("eval", "null", None),
        ("sample", "all", None),
        ("eval", "wandb", "tracker_not_installed"),
        ("grpo", "[tensorboard, trackio]", "tracker_not_installed"),
        ("sft", "mlflow", "tracker_not_installed"),
        ("sft", "none", None),
    ],
)
def test_report_to(tmp_path, monkeypatch, wording, stage, report_to, code):
    monkeypatch.setattr("reasoning_ext.check.rules_trackers.installed", lambda name: name == "tensorboard")
    file = tmp_path / "r.yaml"
    file.write_text(f"stage: {stage}\nreport_to: {report_to}\n")
    found = [one for one in check_recipe(load_recipe(file)).problems if one.key == "report_to"]
    assert [one.code for one in found] == ([code] if code else []) and all(one.line == 2 for one in found)
    for one in found:
        wording(one.text)
    elsewhere = [one.code for one in check_recipe(load_recipe(file), run=False).problems if one.key == "report_to"]
    assert elsewhere == ([code] if code == "unknown_tracker" else [])
