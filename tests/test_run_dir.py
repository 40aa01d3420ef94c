"""A run's folder: new, continued, done, refused; nothing half written is taken for whole."""

import json

import pytest

from reasoning_ext import run_dir
from reasoning_ext.run_dir import RunDirError, fingerprint, last_checkpoint, open_run

RECIPE = {"stage": "sft", "learning_rate": 1e-5, "output_dir": "out"}


def test_a_new_run_writes_what_it_was_asked_for(tmp_path):
    run = open_run(tmp_path / "out", RECIPE, {"dataset": "name:x"})
    assert (run.done, run.checkpoint) == (False, None)
    assert {f.name for f in run.path.iterdir()} == {"recipe.yaml", "versions.json", "lineage.json"}
    assert json.loads((run.path / "versions.json").read_text())["trl"]


def test_the_same_recipe_goes_on_and_a_done_one_is_done(tmp_path):
    open_run(tmp_path, RECIPE, {})
    assert not open_run(tmp_path, RECIPE | {"output_dir": "elsewhere", "report_to": "wandb"}, {}).done
    run_dir.finish(tmp_path, 1.5)
    assert open_run(tmp_path, RECIPE, {}).done


def test_where_the_recipe_lies_is_noted_and_is_no_part_of_the_run(tmp_path):
    run = tmp_path / "out"
    assert run_dir.written_recipe(open_run(run, RECIPE, {}).path) is None
    before = fingerprint(str(run))
    open_run(run, RECIPE, {}, tmp_path / "a" / "r.yaml")
    assert run_dir.written_recipe(run) == tmp_path / "a" / "r.yaml" and fingerprint(str(run)) == before
    run_dir.finish(run, 1.5)
    assert open_run(run, RECIPE, {}, tmp_path / "moved" / "r.yaml").done
    assert run_dir.written_recipe(run) == tmp_path / "moved" / "r.yaml" and fingerprint(str(run)) == before


def test_a_different_recipe_or_input_is_refused(tmp_path):
    open_run(tmp_path, RECIPE, {"model": "run:a"})
    (tmp_path / run_dir.METRICS).write_text("{}\n")
    with pytest.raises(RunDirError, match=r"different recipe \(learning_rate 1e-05 -> 2e-05\)"):
        open_run(tmp_path, RECIPE | {"learning_rate": 2e-5}, {"model": "run:a"})
    with pytest.raises(RunDirError, match=r"other inputs \(model run:a -> run:b\)"):
        open_run(tmp_path, RECIPE, {"model": "run:b"})


@pytest.mark.parametrize("made", ["samples.jsonl", "answers.jsonl", "metrics.jsonl", "DONE", "checkpoint-5"])
def test_a_run_that_was_refused_before_it_made_anything_takes_the_mended_recipe(tmp_path, made):
    open_run(tmp_path, RECIPE, {"model": "run:a"})
    mended = RECIPE | {"learning_rate": 2e-5}
    assert not open_run(tmp_path, mended, {"model": "run:b"}).done
    assert open_run(tmp_path, mended, {"model": "run:b"}).checkpoint is None
    (tmp_path / made).mkdir() if made.startswith("checkpoint") else (tmp_path / made).write_text("")
    with pytest.raises(RunDirError, match="different recipe"):
        open_run(tmp_path, RECIPE, {"model": "run:b"})


def test_a_folder_with_somebody_elses_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunDirError, match="holds files but no run"):
        open_run(tmp_path, RECIPE, {})
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_only_complete_checkpoints_count(tmp_path):
    for step, complete in ((5, True), (40, True), (100, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if complete:
            (folder / run_dir.COMPLETE).touch()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-40"


def test_fingerprints_follow_content(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text("1")
    first = fingerprint(str(file))
    file.write_text("2")
    assert first != fingerprint(str(file)) and fingerprint("openai/gsm8k") == "name:openai/gsm8k"
    folder_before = fingerprint(str(tmp_path))
    file.write_text("3")
    assert fingerprint(str(tmp_path)) != folder_before
