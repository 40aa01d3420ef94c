"""A run's folder and its files: new, continued, done, refused; nothing half written is taken for whole."""

import json
import os
from pathlib import Path

import pytest

from reasoning_ext.runs import checkpoints
from reasoning_ext.runs import folder as run_dir
from reasoning_ext.runs.files import DiskError, append_lines, check_space, mend
from reasoning_ext.runs.folder import RunDirError, fingerprint, open_run

RECIPE = {"stage": "sft", "learning_rate": 1e-5, "output_dir": "out"}


def begun(path, recipe=RECIPE, inputs=None, done=False):
    """Open a run's folder and leave what a run that has made something leaves."""
    open_run(path, recipe, inputs or {})
    (path / run_dir.METRICS).write_text("{}\n")
    run_dir.finish(path, 1.0) if done else None
    return path


def test_a_new_run_writes_what_it_was_asked_for_and_the_same_recipe_goes_on(tmp_path):
    run = open_run(tmp_path / "out", RECIPE, {"dataset": "name:x"})
    assert (run.done, run.checkpoint) == (False, None)
    assert {f.name for f in run.path.iterdir()} == {"recipe.yaml", "versions.json", "lineage.json"}
    assert json.loads((run.path / "versions.json").read_text())["trl"]
    other = RECIPE | {"output_dir": "elsewhere", "report_to": "wandb"}
    assert not open_run(run.path, other, {"dataset": "name:x"}).done
    run_dir.finish(run.path, 1.5)
    assert open_run(run.path, RECIPE, {"dataset": "name:x"}).done


def test_where_the_recipe_lies_is_noted_and_is_no_part_of_the_run(tmp_path):
    run = begun(tmp_path / "out", done=True)
    before = fingerprint(str(run))
    assert run_dir.written_recipe(run) is None
    for folder in ("a", "moved"):
        assert open_run(run, RECIPE, {}, tmp_path / folder / "r.yaml").done
        assert run_dir.written_recipe(run) == tmp_path / folder / "r.yaml" and fingerprint(str(run)) == before


def test_a_different_recipe_or_input_is_refused(tmp_path):
    begun(tmp_path, inputs={"model": "run:a"})
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
    (tmp_path / made).mkdir() if made.startswith("checkpoint") else (tmp_path / made).write_text("{}")
    with pytest.raises(RunDirError, match="different recipe"):
        open_run(tmp_path, RECIPE, {"model": "run:b"})


def test_keys_that_change_nothing_in_the_weights_do_not_make_another_run(tmp_path):
    begun(tmp_path)
    free = {"logging_steps": 7, "save_steps": 3, "save_total_limit": 1, "hub_model_id": "me/x"}
    assert not open_run(tmp_path, RECIPE | free, {}).done
    assert "logging_steps: 7" in (tmp_path / run_dir.RECIPE).read_text()
    run_dir.finish(tmp_path, 1.0)
    before = fingerprint(str(tmp_path))
    assert open_run(tmp_path, RECIPE | {"logging_steps": 1}, {}).done and fingerprint(str(tmp_path)) == before
    best = RECIPE | {"load_best_model_at_end": True, "save_steps": 2}
    begun(tmp_path / "best", best)
    with pytest.raises(RunDirError, match="save_steps 2 -> 4"):
        open_run(tmp_path / "best", best | {"save_steps": 4}, {})


def test_every_key_of_the_table_is_one_that_a_stage_has():
    from dataclasses import fields

    from reasoning_ext.recipe import engine_options
    from reasoning_ext.recipe.keys import KINDS, STAGES
    from reasoning_ext.recipe.known_keys import stage_keys

    known = {key for stage in STAGES for key in stage_keys(stage)}
    for kind in ("watching", "speed", "choice", "length"):
        # newer TRL's
        assert not KINDS[kind] - known - {"log_multimodal", "trackio_bucket_id", "trackio_static_space_id"}
    of_engines = {
        f.name for cls in vars(engine_options).values() if hasattr(cls, "__dataclass_fields__") for f in fields(cls)
    }
    assert not KINDS["transport"] - of_engines
    assert len(set().union(*KINDS.values())) == sum(map(len, KINDS.values()))


def test_a_training_may_be_made_longer_and_not_shorter(tmp_path):
    short = RECIPE | {"max_steps": 10}
    longer = short | {"max_steps": 20}
    begun(tmp_path, short, done=True)
    with pytest.raises(RunDirError, match=r"without a checkpoint.*max_steps 10 -> 20"):  # which would throw it away
        open_run(tmp_path, longer, {})
    checkpoint = tmp_path / "checkpoint-10"
    checkpoint.mkdir()
    checkpoints.mark_complete(checkpoint)
    before = fingerprint(str(tmp_path))
    for other in ({"max_steps": 5}, {"max_steps": -1}, {"max_steps": 20, "learning_rate": 1.0}):
        with pytest.raises(RunDirError, match="different recipe"):
            open_run(tmp_path, short | other, {})
    assert "followed the linear" in run_dir.other_choice(tmp_path, longer)
    assert "followed" not in run_dir.other_choice(tmp_path, longer | {"lr_scheduler_type": "constant"})
    warm = longer | {"lr_scheduler_type": "constant_with_warmup"}
    assert "followed" in run_dir.other_choice(tmp_path, warm)  # of a share of the steps
    assert "followed" not in run_dir.other_choice(tmp_path, warm | {"warmup_steps": 2})
    run = open_run(tmp_path, longer, {})
    assert (run.done, run.checkpoint) == (False, checkpoint) and not (tmp_path / run_dir.DONE).exists()
    assert fingerprint(str(tmp_path)) != before  # what was made of the shorter one was made of something else


def test_what_a_finished_run_leaves_is_whole_or_it_is_said(tmp_path):
    open_run(tmp_path, RECIPE, {})
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text("[1, 2, 3]")
    run_dir.finish(tmp_path, 1.0)
    assert not run_dir.damage(tmp_path, "it") and open_run(tmp_path, RECIPE, {}).done
    (tmp_path / "config.json").write_text("[1]")  # it may be edited
    (tmp_path / run_dir.METRICS).write_text("{}")
    assert not run_dir.damage(tmp_path, "it")
    for name, content in (("model.safetensors", "[1"), ("tokenizer.json", None), ("config.json", "")):
        kept = (tmp_path / name).read_text()
        (tmp_path / name).write_text(content) if content is not None else (tmp_path / name).unlink()
        assert name in run_dir.damage(tmp_path, "it") and name in run_dir.unfinished(tmp_path, "it")
        with pytest.raises(RunDirError, match=name):
            open_run(tmp_path, RECIPE, {})
        (tmp_path / name).write_text(kept)


def test_the_model_is_on_the_disk_before_done_says_so(tmp_path, monkeypatch):
    open_run(tmp_path, RECIPE, {})
    synced = []
    monkeypatch.setattr(os, "sync", lambda: synced.append((tmp_path / run_dir.DONE).exists()))
    run_dir.finish(tmp_path, 1.0)
    assert synced == [False] and (tmp_path / run_dir.DONE).exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", None])
@pytest.mark.parametrize("file", [run_dir.LINEAGE, run_dir.DONE, run_dir.RECIPE])
def test_a_damaged_file_of_a_run_is_one_line_that_names_it(tmp_path, file, content):
    begun(tmp_path, done=True)
    if content is None and file == run_dir.DONE:
        return  # it goes on
    (tmp_path / file).write_bytes(content) if content is not None else (tmp_path / file).unlink()
    with pytest.raises(RunDirError) as error:
        open_run(tmp_path, RECIPE, {})
    assert file in str(error.value) and "\n" not in str(error.value)


def test_a_folder_is_read_whole_and_once(tmp_path, monkeypatch):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"0" * 2**21)
    first, of_file = fingerprint(str(tmp_path)), fingerprint(str(weights))
    opened = []
    original = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *a, **k: opened.append(path) or original(path, *a, **k))
    assert fingerprint(str(tmp_path)) == first and opened == []
    monkeypatch.undo()
    with weights.open("r+b") as file:
        file.seek(2**21 - 1)
        file.write(b"1")
    assert fingerprint(str(tmp_path)) != first and fingerprint(str(weights)) != of_file
    assert fingerprint("openai/gsm8k") == "name:openai/gsm8k"


def test_a_folder_with_somebody_elses_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunDirError, match="holds files but no run"):
        open_run(tmp_path, RECIPE, {})
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_torn_line_is_cut_off_before_more_is_written(tmp_path):
    path = tmp_path / "x.jsonl"
    append_lines(path, [{"a": 1}, {"a": 2}])
    path.write_bytes(path.read_bytes() + b'{"a": 3, "te')
    append_lines(path, [{"a": 4}])
    assert [json.loads(line)["a"] for line in path.read_text().splitlines()] == [1, 2, 4]
    path.write_bytes(b'{"only": "torn')
    mend(path)
    assert path.read_bytes() == b""


def test_a_full_disk_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(DiskError, match="GiB free"):
        check_space(tmp_path / "new", 2**60)
