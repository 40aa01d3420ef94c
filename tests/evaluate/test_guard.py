"""The key `guard`: the tasks, the pairs, and what is drawn when."""

import json
from types import SimpleNamespace

from reasoning_ext.evaluate import guard
from reasoning_ext.evaluate.general import tasks
from reasoning_ext.runs.guards import forgotten

WRONG = "I'm not sure, sorry:\nit is hard; nothing\ncomes\nto\nmy mind about this one - the end,"


def _lines(good, model="before"):
    made = []
    for i, task in enumerate(tasks()):
        text = task.reference if i < good else WRONG
        made.append(
            {"model": model, "prompt_index": i, "sample_index": -1, "completion": text, "finished": True, "way": "same"}
        )
    return made


def test_pairs_are_compared_by_ability():
    found = guard.compared(_lines(200), _lines(160))
    assert found["all"]["difference"][0] == -0.2 and found["all"]["p"] < 1e-9
    assert found["format"]["after"][0] == 0 and found["format"]["p"] < 1e-9
    assert found["choice"]["p"] == 1 and found["choice"]["difference"][0] == 0


def test_answers_that_say_nothing():
    cut = [line | {"finished": False} for line in _lines(0)]
    assert guard.says_nothing(cut) and not guard.says_nothing(_lines(0))
    assert guard.says_nothing([line | {"completion": ""} for line in _lines(0)])


def test_before_is_drawn_before_training_and_a_killed_run_does_not_train_again(tmp_path, monkeypatch, capsys):
    told, recipe = [], SimpleNamespace(get=lambda key: None, local=str, keys={}, values={"model_name_or_path": "m"})

    def draw(recipe, folder, label, name):
        told.append(label)
        lines = _lines(200 if label == "before" else 150, label)
        path = folder / "guard.jsonl"
        if not path.is_file() or f'"model": "{label}"' not in path.read_text():
            path.open("a").write("".join(json.dumps(line) + "\n" for line in lines))
        return lines

    monkeypatch.setattr(guard, "_draw", draw)
    monkeypatch.setattr(guard, "asked", lambda recipe: "same")
    run = SimpleNamespace(path=tmp_path)
    assert guard.guarded(recipe, run, lambda: told.append("train") or 130) == 130
    assert told == ["before", "train"]
    (tmp_path / "guard.jsonl").unlink()
    assert guard.guarded(recipe, run, lambda: told.append("train") or 0) == 0
    assert told[2:] == ["before", "train", "after"] and forgotten(tmp_path)["all"]["p"] < 0.05
    assert "warning: worse for certain" in capsys.readouterr().out.replace("\n", " ")
    before = told.count("train")
    assert guard.guarded(recipe, run, lambda: told.append("train") or 0) == 0 and told.count("train") == before


def test_a_finished_run_of_the_same_question_gives_its_answers(tmp_path, monkeypatch):
    made, folder = tmp_path / "made", tmp_path / "run"
    made.mkdir(), folder.mkdir()
    (made / "guard.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _lines(9, "after")))
    (made / "guard.json").write_text('{"asked": "same"}')
    recipe = SimpleNamespace(local=str, values={"model_name_or_path": str(made)})
    monkeypatch.setattr(guard, "_draw", lambda *told: [])
    for asked, done, taken in (("same", False, False), ("other", True, False), ("same", True, True)):
        monkeypatch.setattr(guard, "asked", lambda recipe, asked=asked: asked)
        if done:
            (made / "DONE").touch()
        guard._before(recipe, folder)
        assert (folder / "guard.jsonl").is_file() == taken
    assert '"before"' in (folder / "guard.jsonl").read_text()
