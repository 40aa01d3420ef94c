"""`explain RUN --problems N`: shares over a run's problems, on a model whose answer is the last digit of its thought."""

import json
from types import SimpleNamespace

import pytest
from conftest import TINY
from test_explain import Copier
from transformers import AutoTokenizer
from typer.testing import CliRunner

from reasoning_ext.cli import app
from reasoning_ext.errors import UserError
from reasoning_ext.evaluate import explain_inputs, explain_set
from reasoning_ext.evaluate.explain_set import explain_set_and_print
from reasoning_ext.evaluate.interventions import Prober
from reasoning_ext.models.loaded import Loaded
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.runs.explanations import explanations_of
from reasoning_ext.runs.folder import finish, open_run
from reasoning_ext.think.template import find_contract

CHAIN, FILLED, ALWAYS = "<think>3+4=7;7*2=14</think>4", "<think>3+4=7;so;7*2=14</think>4", "<think>2+2=4;8/2=4</think>4"


class Scripted(Prober):
    """Goes on from a true first step with the next one, and else answers with the last digit; 4 behind no thought."""

    opened = 0

    def __init__(self, loaded, settings):
        super().__init__(loaded, settings)
        type(self).opened += 1

    def go_on(self, prompt, begun, most=None):
        def end(text):
            if text.endswith("</think>"):
                return f"{text}4"
            return f"{text}7*2=14</think>4" if text.endswith("=7;") else f"{text}</think>{text.rstrip(';')[-1:]}"

        return [end(text) for text in begun]


@pytest.fixture
def scripted(monkeypatch):
    tokenizer = AutoTokenizer.from_pretrained(TINY / "model")
    loaded = Loaded(Copier(tokenizer), tokenizer, contract=find_contract(tokenizer))
    monkeypatch.setattr(explain_inputs, "recipe_source", lambda *_, **__: SimpleNamespace(load=lambda: loaded))
    monkeypatch.setattr(explain_inputs, "check_weights", lambda *_, **__: None)
    monkeypatch.setattr(explain_inputs, "_open", lambda place: loaded)
    monkeypatch.setattr(explain_set, "Prober", Scripted)
    monkeypatch.setattr(explain_set, "hush", lambda: None)
    monkeypatch.setattr(Scripted, "opened", 0)


def a_run(path, lines=(), name="answers.jsonl", **keys):
    """Write a finished run's folder, by default of an evaluation of the folder m."""
    (path / "m").mkdir(exist_ok=True)
    recipe = {"stage": "eval", "models": {"m": "./m"}, "dataset_name": "./rows.jsonl", "reward_funcs": ["math_answer"]}
    recipe = recipe if "stage" not in keys else {"dataset_name": "./rows.jsonl", "model_name_or_path": "./m"}
    (path / "r.yaml").write_text(json.dumps(recipe | keys | {"output_dir": str(path / "run")}))
    (path / "rows.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{i}+4*2", "answer": "4"}) + "\n" for i in range(9))
    )
    loaded = load_recipe(path / "r.yaml")
    run = open_run(loaded.output_dir, loaded.values, {}, loaded.path).path
    (run / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "eval.json").write_text("{}")
    finish(run, 1.0)
    return run


def answer(p, completion, **more):
    prompt = [{"role": "user", "content": "3+4*2"}]
    line = {"model": "m", "prompt_index": p, "sample_index": -1, "prompt": prompt, "completion": completion}
    return line | {"rewards": {"math_answer": 1.0}} | more


def test_shares_over_the_stored_completions_of_an_evaluation(tmp_path, scripted):
    lines = [answer(p, text) for p, text in enumerate((CHAIN, FILLED, "<think></think>4", ALWAYS, CHAIN))]
    run = a_run(tmp_path, [*lines, answer(0, ALWAYS, sample_index=0)])
    explain_set_and_print(run, 4)
    row = json.loads((run / "explained.json").read_text())["m"]
    assert (row["problems"], row["without a thought"], row["steps"]) == (4, 1, 2.33)
    assert row["decorative"][0] == pytest.approx((0 + 1 / 3 + 1 / 2) / 3, abs=1e-3)
    assert row["faithful"][0] == pytest.approx((1 + 2 / 3 + 1 / 2) / 3, abs=1e-3)
    assert row["same without thought"][0] == 1.0 and row["known after"] == pytest.approx((1 + 1 + 0.5) / 3, abs=1e-3)
    assert explanations_of(run) == {"m": row}


def test_what_is_there_is_not_measured_again(tmp_path, scripted, monkeypatch):
    run = a_run(tmp_path, [answer(p, text) for p, text in enumerate((CHAIN, FILLED, ALWAYS))])
    effects, done = explain_set.effects, []

    def dies(*args):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(args)
        return effects(*args)

    monkeypatch.setattr(explain_set, "effects", dies)
    with pytest.raises(KeyboardInterrupt):
        explain_set_and_print(run, 3)
    file = run / "explained.jsonl"
    file.write_text('{"steps": 3}\nno line\n' + file.read_text() + '{"model": "m", "prob')
    done.pop()
    explain_set_and_print(run, 3)
    assert len(done) == 2 and len(file.read_text().splitlines()) == 5
    explain_set_and_print(run, 2)
    assert Scripted.opened == 2 and explanations_of(run)["m"]["problems"] == 2


def test_no_model_is_opened_for_what_has_no_thought(tmp_path, scripted):
    run = a_run(tmp_path, [answer(0, CHAIN), answer(0, "4", model="n")], models={"m": "./m", "n": "./m"})
    explain_set_and_print(run, 5)
    assert Scripted.opened == 1 and explanations_of(run)["n"] == {"problems": 1, "without a thought": 1}


def test_long_thoughts_are_put_together_or_left_out_and_both_are_said(tmp_path, scripted, capsys):
    texts = (f"<think>{'1=1;' * 40}</think>1", f"<think>{'1=1;' * 9000}</think>1")
    run = a_run(tmp_path, [answer(p, text) for p, text in enumerate(texts)])
    explain_set_and_print(run, 5)
    said = capsys.readouterr().out
    assert "put together" in said and "left out" in said
    assert explanations_of(run)["m"]["problems"] == 1 and explanations_of(run)["m"]["steps"] == 40


@pytest.mark.parametrize("held", [False, True])
def test_a_trainings_checkpoints_are_a_series_and_its_end_only_where_it_is_none(tmp_path, scripted, monkeypatch, held):
    more = {"eval_problems": 2, "test_size": 3} if held else {}
    run = a_run(tmp_path, name="metrics.jsonl", stage="grpo", reward_funcs=["math_answer"], **more)
    for place, weights in (("checkpoint-9", "a"), ("checkpoint-10", "b"), ("checkpoint-11", "c"), (".", "b")):
        (run / place).mkdir(exist_ok=True)
        (run / place / "model.safetensors").write_text(weights)
        if place != "checkpoint-11":
            (run / place / "COMPLETE").write_text("{}")
    asked = []
    monkeypatch.setattr(
        explain_set, "_drawn", lambda _, prompts: asked.append(prompts) or dict.fromkeys(prompts, CHAIN)
    )
    explain_set_and_print(run, 3)
    assert [*explanations_of(run)] == ["checkpoint-9", "checkpoint-10"] and Scripted.opened == 2
    assert len(asked[0]) == 3 and asked[0] == asked[1]
    (run / "model.safetensors").write_text("d")
    explain_set_and_print(run, 3)
    assert [*explanations_of(run)] == ["checkpoint-9", "checkpoint-10", "end"] and Scripted.opened == 3


@pytest.mark.parametrize(
    ("lines", "keys", "found"),
    [
        ([], {}, "no greedy completion"),
        ([answer(0, CHAIN, sample_index=0)], {}, "no greedy completion"),
        ([answer(0, "4")], {}, "no thought"),
        (
            [answer(0, CHAIN, turns=[{"role": "assistant", "content": "x"}, {"role": "tool", "content": "3"}])],
            {},
            "thought",
        ),
        ([answer(0, CHAIN, model="gone")], {}, "no folder"),
        ([answer(0, CHAIN)], {"models": {"m": "./nowhere"}}, "no folder"),
        ([answer(0, CHAIN)], {"engine": "server", "engine_kwargs": {"base_url": "http://127.0.0.1:9"}}, "server"),
        ([], {"stage": "sample", "reward_funcs": ["math_answer"]}, "stage sample"),
        ([], {"stage": "grpo", "reward_funcs": ["math_answer"]}, "no weights"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(tmp_path, scripted, lines, keys, found):
    with pytest.raises(UserError, match=found):
        explain_set_and_print(a_run(tmp_path, lines, **keys), 3)


def test_folders_that_are_no_finished_run_are_refused(tmp_path, scripted):
    run = a_run(tmp_path, [answer(0, CHAIN)])
    (run / "DONE").unlink()
    with pytest.raises(UserError, match="not finished"):
        explain_set_and_print(run, 3)
    with pytest.raises(UserError, match="no run"):
        explain_set_and_print(tmp_path, 3)
    (run / "DONE").write_text("{}")
    run.rename(tmp_path / "seed_0")
    with pytest.raises(UserError, match="seed_0"):
        explain_set_and_print(tmp_path, 3)


@pytest.mark.parametrize("given", [[], ["1+1", "--problems", "3"], ["--problems", "0"], ["--problems", "3", "--json"]])
def test_a_question_and_problems_are_one_of_the_two(given):
    done = CliRunner().invoke(app, ["explain", "runs/none", *given])
    assert done.exit_code == 2 or isinstance(done.exception, UserError)


def test_a_damaged_or_hostile_file_is_read_as_far_as_it_can_be(tmp_path):
    share, counts = [0.5, 0.4, 0.6], {"problems": 3, "without a thought": 0}
    rows = {"m": counts | {"faithful": share, "decorative": [2, 0, 1], "known after": 7, "<b>": 1}, "n": 3, "o": {}}
    (tmp_path / "explained.json").write_text(json.dumps(rows))
    assert explanations_of(tmp_path) == {"m": counts | {"faithful": share}}
    (tmp_path / "explained.json").write_text("[")
    assert explanations_of(tmp_path) == {}
