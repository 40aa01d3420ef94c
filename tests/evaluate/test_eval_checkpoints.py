"""`models: runs/x/checkpoint-*`: one model a checkpoint, in the order of their steps, wherever models are asked for."""

import json
import shutil

import pytest

from reasoning_ext.check.cost import batch_facts
from reasoning_ext.check.keys import OF_MODELS, broken_rules, check_recipe
from reasoning_ext.check.named_inputs import input_sources
from reasoning_ext.check.rows import tokenizer_source
from reasoning_ext.recipe.entries import eval_models
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.runs.folder import RunDirError, fingerprint, finish, open_run
from reasoning_ext.runs.outcomes import outcomes, series

STEPS = ("checkpoint-9", "checkpoint-10", "checkpoint-100")


@pytest.fixture
def make(tmp_path, monkeypatch, rows_file, write_recipe):
    """Make `runs/grpo` with checkpoints and return an evaluation of `models`; its folder is where it runs."""
    monkeypatch.chdir(tmp_path)

    def recipe(models, steps=STEPS, done=True):
        rows = f"dataset_name: ./{rows_file.name}\nreward_funcs: [math_answer]\n"
        open_run(tmp_path / "runs" / "grpo", {"stage": "grpo"}, {})
        for name in (*steps, "."):
            (tmp_path / "runs" / "grpo" / name).mkdir(exist_ok=True)
            (tmp_path / "runs" / "grpo" / name / "config.json").write_text('{"model_type": "llama"}')
            (tmp_path / "runs" / "grpo" / name / "COMPLETE").write_text("{}")
        (tmp_path / "runs" / "grpo" / "checkpoint-0").touch()  # no folder
        if done:
            (tmp_path / "runs" / "grpo" / "DONE").write_text("{}")
        first = f"stage: grpo\nmodel_name_or_path: org/base\n{rows}output_dir: runs/grpo\n"
        earlier = load_recipe(write_recipe(first, "1.yaml"))
        text = f"stage: eval\nmodels: {models}\n{rows}output_dir: runs/eval\n"
        return load_recipe(write_recipe(text, "2.yaml")), earlier

    return recipe


@pytest.mark.parametrize(
    ("models", "labels"),
    [
        ("runs/grpo/checkpoint-*", list(STEPS)),
        ("[org/base, runs/grpo/checkpoint-*]", ["base", *STEPS]),
        ("{sft: org/base, grpo: runs/grpo/checkpoint-1*}", ["sft", "grpo checkpoint-10", "grpo checkpoint-100"]),
        ("./runs/grpo/checkpoint-*", list(STEPS)),
        ("org/base", ["base"]),
    ],
)
def test_a_pattern_is_one_model_a_checkpoint_in_numeric_order(make, models, labels):
    recipe, _ = make(models)
    found = eval_models(recipe)
    assert list(found) == labels
    assert all(name.endswith(f"/{label.split()[-1]}") for label, name in found.items() if "checkpoint" in label)
    named = [what for what in input_sources(recipe, []) if what.startswith("model")]
    assert named == [f"model {label}" for label in labels]
    assert batch_facts(recipe, {"rows": 10})["completions"] == 10 * len(labels) * (recipe.get("num_generations") + 1)
    assert check_recipe(recipe, run=False).errors == []


def test_a_pattern_may_wait_for_the_recipe_that_makes_its_checkpoints(make, tmp_path, wording):
    recipe, earlier = make("[runs/grpo/checkpoint-*]", steps=(), done=False)
    assert check_recipe(recipe, [earlier.output_dir], run=True).errors == []
    assert tokenizer_source(recipe, {str(earlier.output_dir.resolve()): earlier}) is not None
    assert broken_rules(recipe, OF_MODELS) == []
    (tmp_path / "runs" / "grpo" / "DONE").write_text("{}")  # it has run, and kept none
    [problem] = broken_rules(recipe, OF_MODELS)
    assert (problem.code, problem.line, problem.key) == ("unmatched_pattern", 2, "models.0")
    wording(problem)


@pytest.mark.parametrize(
    ("models", "code", "key"),
    [
        ("{a: runs/grpo/step-*}", "unmatched_pattern", "models.a"),
        ("runs/none/checkpoint-*", "unusable_model", "models.checkpoint-*"),
        ("[runs/grpo/checkpoint-*, runs/grpo/../grpo/checkpoint-9]", "unusable_model", "models"),
    ],
)
def test_a_pattern_that_nothing_fits_is_said_at_its_key(make, models, code, key):
    [problem] = check_recipe(make(models)[0], run=False).errors
    assert (problem.code, problem.line, problem.key) == (code, 2, key)


def test_a_checkpoint_that_is_not_written_to_its_end_is_refused(make, tmp_path, wording):
    recipe, _ = make("runs/grpo/checkpoint-*")
    (tmp_path / "runs" / "grpo" / "checkpoint-100" / "COMPLETE").unlink()
    [problem] = check_recipe(recipe, run=True).errors
    assert (problem.code, problem.key) == ("unusable_model", "models.checkpoint-100")
    wording(problem)


def test_an_evaluation_goes_on_with_the_checkpoints_that_have_come(make, tmp_path):
    def opened(steps):
        recipe, _ = make("runs/grpo/checkpoint-*", steps)
        inputs = {what: fingerprint(source) for what, source in input_sources(recipe, []).items()}
        run = open_run(recipe.output_dir, recipe.values, inputs)
        (run.path / "answers.jsonl").touch()
        finish(run.path, 1.0) if not run.done else None
        return run.done

    assert [opened(STEPS[:2]), opened(STEPS[:2]), opened(STEPS), opened(STEPS)] == [False, True, False, True]
    with (tmp_path / "runs" / "grpo" / STEPS[0] / "model.safetensors").open("w") as file:
        file.write("trained anew")
    with pytest.raises(RunDirError, match=f"model {STEPS[0]} files:"):
        opened(STEPS)
    shutil.rmtree(tmp_path / "runs" / "grpo" / STEPS[0])
    with pytest.raises(RunDirError, match="-> not set"):
        opened(STEPS[1:])


def test_what_is_a_series_of_checkpoints():
    labels = "sft, checkpoint-10, checkpoint-9, grpo checkpoint-5, checkpoint-x, b checkpoint-1, b checkpoint-2"
    assert series(labels.split(", ")) == {
        "": {9: "checkpoint-9", 10: "checkpoint-10"}, "b": {1: "b checkpoint-1", 2: "b checkpoint-2"}
    }  # fmt: skip


def test_answers_of_a_strategy_are_no_plain_ones():
    rows = [
        {"model": "a", "prompt_index": 0, "sample_index": g, "completion": "x", "rewards": {"r": r}, "way": way}
        for g, r, way in ((-1, 1.0, ""), (-1, 0.0, "cot:x"), (0, 0.0, ""), (1, None, ""), (2, 1.0, ""))
    ]
    assert outcomes("greedy", rows) == {"a": {0: 1.0}} and outcomes("pass@1", rows) == {"a": {0: 0.5}}
    assert json.dumps(outcomes("greedy", [{**rows[0], "rewards": {}}])) == "{}"
