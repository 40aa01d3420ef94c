"""The key `guard`: the tasks, the pairs, and what is drawn when."""

import json
from types import SimpleNamespace

import pytest

from reasoning_ext.check.keys import check_recipe
from reasoning_ext.engines.base import Completion
from reasoning_ext.evaluate import guard
from reasoning_ext.evaluate.general import tasks
from reasoning_ext.recipe.load import load_recipe
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
    found = guard.compared(guard.rights(_lines(200)), guard.rights(_lines(160)))
    assert found["all"]["difference"][0] == -0.2 and found["all"]["p"] < 1e-9
    assert found["format"]["after"][0] == 0 and found["format"]["p"] < 1e-9
    assert found["choice"]["p"] == 1 and found["choice"]["difference"][0] == 0


def test_answers_that_say_nothing():
    cut = [line | {"finished": False} for line in _lines(0)]
    assert guard.says_nothing(cut) and not guard.says_nothing(_lines(0))
    assert guard.says_nothing([line | {"completion": ""} for line in _lines(0)])


def test_before_is_drawn_before_training_and_a_killed_run_does_not_train_again(tmp_path, monkeypatch, capsys):
    told, recipe = (
        [],
        SimpleNamespace(get={"guard": "general"}.get, local=str, keys={}, values={"model_name_or_path": "m"}),
    )

    def draw(recipe, folder, label, name):
        told.append(label)
        lines = _lines(200 if label == "before" else 150, label)
        path = folder / "guard.jsonl"
        if not path.is_file() or f'"model": "{label}"' not in path.read_text():
            path.open("a").write("".join(json.dumps(line) + "\n" for line in lines))
        return lines

    monkeypatch.setattr(guard, "_draw", draw)
    monkeypatch.setattr(guard, "asked", lambda recipe, name="general": "same")
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
    recipe = SimpleNamespace(get={"guard": "general"}.get, local=str, values={"model_name_or_path": str(made)})
    monkeypatch.setattr(guard, "_draw", lambda *told: [])
    for asked, done, taken in (("same", False, False), ("other", True, False), ("same", True, True)):
        monkeypatch.setattr(guard, "asked", lambda recipe, name="general", asked=asked: asked)
        if done:
            (made / "DONE").touch()
        guard._before(recipe, folder)
        assert (folder / "guard.jsonl").is_file() == taken
    assert '"before"' in (folder / "guard.jsonl").read_text()


@pytest.mark.parametrize(
    ("stage", "more", "found"),
    [
        ("sft", "guard: genral\n", "wrong_guard"),
        ("grpo", "guard: [general, general]\nreward_funcs: [math_answer]\n", "wrong_guard"),
        ("eval", "guard: 3\n", "wrong_type"),
        ("eval", "guard: general\nbenchmark: lm_eval:gsm8k\n", "wrong_guard"),
        ("sample", "guard: general\nreward_funcs: [math_answer]\n", "unknown_key"),
        ("dpo", "guard: general\n", ""),
        ("eval", "guard: [general]\n", ""),
    ],
)
def test_a_guard_that_is_none_is_refused(stage, more, found, write_recipe):
    head = f"stage: {stage}\nmodel_name_or_path: some/model\noutput_dir: out\n"
    head += "" if "lm_eval" in more else "dataset_name: ./rows.jsonl\n"
    problems: list = []
    recipe = load_recipe(write_recipe(head + more), problems=problems)
    problems += check_recipe(recipe, run=False).problems
    assert found in [problem.code for problem in problems if problem.key == "guard"] or not found
    assert found or not [problem for problem in problems if problem.key == "guard"]


def test_models_of_an_evaluation_answer_and_are_compared_with_the_first(tmp_path, write_recipe, capsys):
    class Engine:
        def __init__(self, good):
            self.good, self.drawn = good, 0

        def generate(self, prompts, keys, settings):
            for p, g in keys:
                self.drawn += 1
                yield [Completion(p, g, tasks()[p].reference if p < self.good else WRONG, [], True, 3)]

        def close(self):
            pass

    recipe = load_recipe(
        write_recipe("stage: eval\nmodels: {a: ./a, b: ./b}\ndataset_name: ./x\nguard: general\noutput_dir: out\n")
    )
    first: list = []
    engines = [Engine(200), Engine(120)]
    for label, engine in zip("ab", engines, strict=True):
        answers = SimpleNamespace(label=label, engine=engine)
        found = guard.general(tmp_path, recipe, answers, first)
        assert found["all"][0] == pytest.approx(engine.good / 200) and len(found) == 6
    assert "-40.0 [" in capsys.readouterr().out
    guard.general(tmp_path, recipe, SimpleNamespace(label="b", engine=engines[1]), first)
    assert [engine.drawn for engine in engines] == [200, 200]
