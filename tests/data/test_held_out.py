"""Rows held out of a file, and the problems of an evaluation that its models were trained on."""

import json
from pathlib import Path

import pytest
import yaml
from conftest import TINY

from reasoning_ext.check import check
from reasoning_ext.check.keys import check_recipe
from reasoning_ext.data.held_out import PROBLEMS, digests_of, write_problems
from reasoning_ext.data.lineage import overlap_lines, overlaps
from reasoning_ext.data.prepared import Prepared
from reasoning_ext.data.row_options import row_options
from reasoning_ext.data.rows import prepare, read_rows
from reasoning_ext.errors import KeyProblem, UserError
from reasoning_ext.evaluate.metrics import metrics
from reasoning_ext.pipeline import run_recipes
from reasoning_ext.recipe.load import load_recipe, load_recipes
from reasoning_ext.runs.folder import fingerprint, finish, open_run

ROWS = [{"question": f"What is {a} + {a}?", "answer": str(2 * a), "note": f"n{a}"} for a in range(30)]
SFT = {
    "stage": "sft",
    "model_name_or_path": str(TINY / "model"),
    "rename_columns": {"question": "prompt", "answer": "completion"},
}
EVAL = {"stage": "eval", "rename_columns": {"question": "prompt"}}


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Write a recipe NAME.yaml over rows.jsonl, or other data, and return it loaded."""
    monkeypatch.chdir(tmp_path)
    put("rows.jsonl", ROWS)

    def write(name, **values):
        data = {} if "datasets" in values else {"dataset_name": "./rows.jsonl"}
        values = json.loads(json.dumps(values))  # no value twice, which YAML would write as an alias
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"output_dir": f"runs/{name}", **data, **values}))
        return load_recipe(tmp_path / f"{name}.yaml")

    return write


def put(name, rows):
    with open(name, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def asked(rows):
    return [prompt[-1]["content"] for prompt in rows["prompt"]]


@pytest.mark.parametrize(("size", "held"), [(0.1, 3), (0.11, 4), (0.5, 15), (1, 1), (29, 29)])
def test_every_stage_sees_the_same_two_parts_of_a_file(make, size, held):
    train = asked(read_rows(row_options(make("a", **SFT, test_size=size, seed=1))))
    test = asked(read_rows(row_options(make("b", **EVAL, test_size=size, seed=2)), "dataset_test_split"))
    assert len(test) == held and sorted(train + test) == sorted(row["question"] for row in ROWS)
    template = {"dataset_format": "./f.py:f"}
    Path("f.py").write_text('def f(row):\n    return {"prompt": "Q: " + row["question"], "answer": row["answer"]}\n')
    grpo = {"stage": "grpo", "model_name_or_path": "a/b", "reward_funcs": ["math_answer"], "test_size": size}
    assert asked(read_rows(row_options(make("c", **grpo, **template)))) == [f"Q: {text}" for text in train]
    assert (
        asked(
            read_rows(row_options(make("d", **EVAL, test_size=size, dataset_test_split="train")), "dataset_test_split")
        )
        == train
    )
    few = read_rows(row_options(make("e", **EVAL, test_size=size, max_samples=2)), "dataset_test_split")
    assert asked(few) == test[:2]
    # what is added to a file at its end moves no row of another problem to the other side by itself
    put("rows.jsonl", ROWS[::-1])
    assert set(asked(read_rows(row_options(make("b", **EVAL, test_size=size)), "dataset_test_split"))) == set(test)


def test_a_problem_that_stands_in_several_rows_is_on_one_side(make):
    put("rows.jsonl", [{**row, "question": row["question"].replace(" ", "  " * n)} for row in ROWS for n in (1, 2)])
    squeezed = [
        {" ".join(text.split()) for text in asked(read_rows(row_options(make("a", **values, test_size=0.2)), split))}
        for values, split in ((SFT, "dataset_train_split"), (EVAL, "dataset_test_split"))
    ]
    assert not squeezed[0] & squeezed[1] and len(squeezed[1]) == 6


@pytest.mark.parametrize("name", ["frage", "instruction"])
def test_a_problem_is_known_by_the_name_that_a_recipe_gives_its_column(make, name):
    more = "{}+1" if name == "frage" else "Solve."
    pairs = [(a, n) for a in range(10) for n in range(4)]
    put("rows.jsonl", [{name: more.format(a), "input": f"{a}+1", "loesung": f"{a} {n}"} for a, n in pairs])
    rename = (
        {"frage": "prompt", "loesung": "completion"}
        if name == "frage"
        else {"input": "prompt", "loesung": "completion"}
    )
    recipe = make("a", **SFT | {"rename_columns": rename}, test_size=0.25)
    parts = [asked(read_rows(row_options(recipe), f"dataset_{split}_split")) for split in ("train", "test")]
    assert [len(part) for part in parts] == [28, 12] and not {*parts[0]} & {*parts[1]}


@pytest.mark.parametrize("key", ["messages", "conversations"])
def test_chats_are_parted_by_what_the_user_asks(make, key):
    role, text = ("role", "content") if key == "messages" else ("from", "value")
    names = ("user", "assistant") if key == "messages" else ("human", "gpt")
    chats = [[{role: names[0], text: f"{a}?"}, {role: names[1], text: f"{a} {i}"}] for a in range(10) for i in range(2)]
    put("chats.jsonl", [{key: chat} for chat in chats])
    values = {"stage": "sft", "dataset_name": "./chats.jsonl", "model_name_or_path": "a/b", "test_size": 4}
    values["dataset_format"] = "messages" if key == "messages" else "sharegpt"
    recipe = make("a", **values)
    parts = [asked(read_rows(row_options(recipe), f"dataset_{split}_split")) for split in ("train", "test")]
    assert [len(part) for part in parts] == [16, 4] and not set(parts[0]) & set(parts[1])


REFUSED = [
    (EVAL | {"test_size": size}, "test_size", "found") for size in (0.0, 1.0, 1.5, float("nan"), float("inf"), -3, 30)
]
REFUSED += [
    (EVAL | {"dataset_test_split": "held[:3]"}, "dataset_test_split", "rows.jsonl has one split"),
    (EVAL | {"test_size": 0.2, "dataset_test_split": "test[:3]"}, "dataset_test_split", "test_size"),
    (EVAL | {"test_size": 0.2, "dataset_streaming": True}, "test_size", "dataset_streaming"),
    (EVAL | {"test_size": 0.2, "dataset_name": "./f.py"}, "test_size", "Python file"),
    (EVAL | {"test_size": 0.2, "dataset_name": "runs/kept"}, "test_size", "sample run"),
    (SFT | {"dataset_train_split": "test"}, "dataset_train_split", "rows.jsonl has one split"),
    (
        SFT | {"decontaminate": [{"dataset_name": "./rows.jsonl", "dataset_test_split": "test"}]},
        "decontaminate",
        "one split",
    ),
]


@pytest.mark.parametrize(("values", "key", "found"), REFUSED)
def test_what_a_file_does_not_have_is_refused(make, values, key, found):
    Path("f.py").write_text("def f(split):\n    return []\n")
    kept = make("kept", stage="sample", model_name_or_path="a/b", reward_funcs=["math_answer"])
    open_run(kept.output_dir, kept.values, {}, kept.path)
    put("runs/kept/sft.jsonl", [])
    named = {"models": {"x": "a/b"}} if values["stage"] == "eval" else {}
    recipe = make("bad", **(values | named))
    with pytest.raises(UserError) as error:
        check_recipe(recipe, run=False).refuse()
        split = "dataset_test_split" if recipe.stage == "eval" else "dataset_train_split"
        try:
            prepare(row_options(recipe), split)
        except KeyProblem as problem:
            raise UserError(recipe.placed(problem)) from problem
    assert f": {key}" in str(error.value) and found in str(error.value)


def test_a_file_without_a_word_on_splits_is_evaluated_whole_and_that_is_said(make):
    prepared = Prepared()
    assert read_rows(row_options(make("a", **EVAL)), "dataset_test_split", prepared=prepared).num_rows == 30
    assert prepared.steps[0]["split"].startswith("train")
    assert read_rows(row_options(make("b", **EVAL, dataset_test_split="train[:4]")), "dataset_test_split").num_rows == 4


def trained(recipe, done=True):
    """Leave the folder that a training by a recipe leaves."""
    open_run(recipe.output_dir, recipe.values, {}, recipe.path)
    write_problems(recipe.output_dir, prepare(row_options(recipe)).rows)
    finish(recipe.output_dir, 1.0) if done else None
    return recipe


def counts(recipe, earlier=()):
    prompts = read_rows(row_options(recipe), "dataset_test_split")["prompt"]
    return {label: len(one.numbers) for label, one in overlaps(recipe, prompts, earlier).items()}


def test_problems_are_looked_for_in_the_training_data_of_all_ancestors(make):
    put("other.jsonl", [{"question": f"Name {a} birds.", "answer": "x"} for a in range(9)])
    put("spelt.jsonl", [{"question": f"what is  ${a}+{a}$ ?", "answer": "x"} for a in range(5)])
    entries = [{"dataset_name": f"./{name}.jsonl"} for name in ("other", "spelt")]
    columns = {"rename_columns": SFT["rename_columns"]}
    plain = {"stage": "sft", "model_name_or_path": "a/b"}
    sft = make("sft", **plain, datasets=[entry | columns for entry in entries])
    grpo = make(
        "grpo", **EVAL | {"stage": "grpo"}, model_name_or_path="runs/sft", reward_funcs=["math_answer"], max_samples=8
    )
    dpo_rows = [{"prompt": "What is 20 + 20?", "chosen": "40", "rejected": "41"}]
    put("pairs.jsonl", dpo_rows)
    dpo = make("dpo", stage="dpo", dataset_name="./pairs.jsonl", model_name_or_path="runs/grpo/checkpoint-2")
    models = {"base": "a/b", "sft": "runs/sft", "grpo": "runs/grpo", "dpo": "runs/dpo"}
    evaluation = make("eval", **EVAL, models=models)
    before = counts(evaluation, [sft, grpo])
    assert before == {"base": 0, "sft": 5, "grpo": 8, "dpo": 0}
    for recipe in (sft, grpo, dpo):
        trained(recipe)
        (recipe.output_dir / "checkpoint-2").mkdir()
    assert counts(evaluation) == {"base": 0, "sft": 5, "grpo": 8, "dpo": 9}
    for name in ("other", "spelt", "pairs"):  # what a run was trained on is known without the data
        put(f"{name}.jsonl", [{"question": "?", "answer": "x"}])
    assert counts(evaluation) == {"base": 0, "sft": 5, "grpo": 8, "dpo": 9}


def test_the_rows_of_a_sample_run_count_and_rows_that_were_dropped_do_not(make):
    kept = make("kept", stage="sample", model_name_or_path="a/b", reward_funcs=["math_answer"])
    open_run(kept.output_dir, kept.values, {}, kept.path)
    rows = [{"prompt": [{"role": "user", "content": ROWS[a]["question"]}], "completion": "x"} for a in (3, 3, 4)]
    put("runs/kept/sft.jsonl", rows)
    finish(kept.output_dir, 1.0)
    plain = {"stage": "sft", "model_name_or_path": "a/b"}
    trained(make("student", **plain, dataset_name="runs/kept"))
    put("some.jsonl", ROWS[:7])
    trained(make("clean", **SFT, decontaminate=["./some.jsonl"]))
    models = {"student": "runs/student", "clean": "runs/clean"}
    evaluation = make("eval", **EVAL, models=models)
    assert counts(evaluation) == {"student": 2, "clean": 23}
    assert counts(make("eval", **EVAL, models=models, dataset_name="./some.jsonl")) == {"student": 2, "clean": 0}


def test_what_is_not_known_is_not_called_held_out(make):
    run = trained(make("sft", **SFT))
    evaluation = make("eval", **EVAL, model_name_or_path="runs/sft")
    assert counts(evaluation) == {"sft": 30}
    (run.output_dir / PROBLEMS).unlink()
    found = overlaps(evaluation, read_rows(row_options(evaluation), "dataset_test_split")["prompt"])
    said, unknown = overlap_lines(found, 30)
    assert said == "" and len(unknown) == 1 and found["sft"].figure(range(30)) == {}
    rows = [{"rewards": {"r": 1.0}, "prompt_index": 0, "completion": "x", "tokens": 1, "finished": True}]
    answers = [row | {"sample_index": i} for row in rows for i in (-1, 0)]
    assert "in training data" not in metrics(answers, "r", found["sft"])


def test_what_a_models_own_recipe_names_is_not_run_to_compare(make):
    code = "def evil(split):\n    open('ran', 'w')\n    return [{'prompt': '1', 'completion': '1'}]\n"
    Path("evil.py").write_text(code)
    run = make("sft", **SFT | {"rename_columns": None}, dataset_name="./evil.py")
    open_run(run.output_dir, run.values, {}, run.path)
    finish(run.output_dir, 1.0)
    run.path.unlink()  # of somebody else
    evaluation = make("eval", **EVAL, model_name_or_path="runs/sft")
    found = overlaps(evaluation, read_rows(row_options(evaluation), "dataset_test_split")["prompt"])
    assert len(found["sft"].unknown) == 1 and not Path("ran").exists()
    assert not overlaps(evaluation, ["1"], [run])["sft"].unknown and Path("ran").exists()  # listed with the recipes


def test_a_lineage_that_ends_too_early_is_not_known(make, tmp_path):
    first = trained(make("first", **SFT))
    second = make("second", **SFT | {"model_name_or_path": "runs/first"}, max_samples=3)
    open_run(second.output_dir, second.values, {"model": fingerprint("runs/first")}, second.path)
    write_problems(second.output_dir, prepare(row_options(second)).rows)
    (Path("runs/second/export/merged-16bit")).mkdir(parents=True)
    Path("elsewhere").mkdir()
    for folder in ("elsewhere", "runs/second/export/merged-16bit"):
        Path(folder, "export.json").write_text("{}")
    models = {"second": "runs/second", "export": "runs/second/export/merged-16bit", "away": "elsewhere", "hub": "a/b"}
    evaluation = make("eval", **EVAL, models=models)
    assert counts(evaluation) == {"second": 30, "export": 30, "away": 0, "hub": 0}
    first.output_dir.rename("runs/moved")
    found = overlaps(evaluation, read_rows(row_options(evaluation), "dataset_test_split")["prompt"])
    assert {label: (len(one.numbers), len(one.unknown)) for label, one in found.items()} == {
        "second": (3, 1), "export": (3, 1), "away": (0, 1), "hub": (0, 0),
    }  # fmt: skip


@pytest.mark.parametrize(("train", "test", "count"), [("train[:20]", "train[15:]", 5), ("train[:15]", "train[15:]", 0)])
def test_what_a_training_holds_out_is_compared_with_what_it_trains_on(make, train, test, count):
    values = {"eval_strategy": "steps", "eval_steps": 1, "dataset_train_split": train, "dataset_test_split": test}
    result = next(check([make("a", **SFT, **values, from_scratch=True, use_cpu=True)], offline=True))
    assert result.facts["in_training_data"] == {"this run": count}
    told = [f.text for f in result.problems if f.key == "dataset_test_split"]
    assert len(told) == bool(count) and (not count or told[0].startswith("5 of 15 problems"))


def test_a_digest_sees_through_spelling_and_nothing_else():
    same = [
        "What is $2+2$?",
        "what is 2 + 2",
        [{"role": "system", "content": "S"}, {"role": "user", "content": "What is 2+2?"}],
    ]
    assert len(set(digests_of(same))) == 1
    assert len(set(digests_of(["What is 2+2?", "What is 2-2?", "What is 2+3?"]))) == 3


def test_a_run_says_what_it_is_evaluated_on(make, capsys):
    small = {"from_scratch": True, "use_cpu": True}
    train = {"max_steps": 1, "gradient_checkpointing": False, "per_device_train_batch_size": 4, **small}
    draw = {"num_generations": 1, "max_completion_length": 4, "use_cpu": True}
    make("1_sft", **SFT, **train, test_size=0.2)
    for name, size in (("2_all", None), ("3_held", 0.2)):
        make(name, **EVAL, **draw, models={"m": "runs/1_sft"}, test_size=size)
    assert run_recipes(load_recipes(["1_sft.yaml", "2_all.yaml", "3_held.yaml"])) == 0
    out = capsys.readouterr().out
    assert "24 of 30 problems are in the training data of m" in out and out.count("held-out problems") == 1
    figures = [json.loads(Path(f"runs/{name}/eval.json").read_text())["m"] for name in ("2_all", "3_held")]
    assert [(f["problems"], f["in training data"]) for f in figures] == [(30, 24), (6, 0)]
    result = next(check([load_recipe(Path("2_all.yaml"))], offline=True))
    assert result.facts["in_training_data"] == {"m": 24}
    assert any(f.level == "warning" and f.text.startswith("24 of 30 problems") for f in result.problems)
