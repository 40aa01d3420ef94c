"""Rows held out of a file, and the problems of an evaluation that its models were trained on."""

import json
from pathlib import Path

import pytest
import yaml
from conftest import TINY

from reasoning_ext.check import check
from reasoning_ext.check.keys import check_recipe
from reasoning_ext.data.held_out import PROBLEMS, digests_of, parted_by, write_problems
from reasoning_ext.data.lineage import overlap_lines, overlaps
from reasoning_ext.data.prepared import Prepared
from reasoning_ext.data.row_options import TEST, TRAIN, row_options
from reasoning_ext.data.rows import prepare, read_rows
from reasoning_ext.errors import KeyProblem, UserError
from reasoning_ext.evaluate.metrics import metrics
from reasoning_ext.pipeline import run_recipes
from reasoning_ext.recipe.load import load_recipe, load_recipes
from reasoning_ext.runs.folder import fingerprint, finish, open_run
from tests.rows import put as write_rows

ROWS = [{"question": f"What is {a} + {a}?", "answer": str(2 * a), "note": f"n{a}"} for a in range(30)]
RENAME = {"rename_columns": {"question": "prompt", "answer": "completion"}}
SFT = {"stage": "sft", "model_name_or_path": str(TINY / "model"), **RENAME}
EVAL = {"stage": "eval", "rename_columns": {"question": "prompt"}}
KEPT = {"stage": "sample", "model_name_or_path": "a/b", "reward_funcs": ["math_answer"]}


def put(name, rows):
    write_rows(Path(name), rows)


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


def asked(recipe, split=TEST):
    return [prompt[-1]["content"] for prompt in read_rows(row_options(recipe), split)["prompt"]]


@pytest.mark.parametrize(("size", "held"), [(0.1, 3), (0.11, 4), (0.5, 15), (1, 1), (29, 29)])
def test_every_stage_sees_the_same_two_parts_of_a_file(make, size, held):
    train, test = (
        asked(make("a", **SFT, test_size=size, seed=1), TRAIN),
        asked(make("b", **EVAL, test_size=size, seed=2)),
    )
    assert len(test) == held and sorted(train + test) == sorted(row["question"] for row in ROWS)
    put("f.py", 'def f(row):\n    return {"prompt": "Q: " + row["question"], "answer": row["answer"]}\n')
    grpo = {"stage": "grpo", "model_name_or_path": "a/b", "reward_funcs": ["math_answer"], "dataset_format": "./f.py:f"}
    assert asked(make("c", **grpo, test_size=size), TRAIN) == [f"Q: {text}" for text in train]
    assert asked(make("d", **EVAL, test_size=size, dataset_test_split="train")) == train
    assert asked(make("e", **EVAL, test_size=size, max_samples=2)) == test[:2]
    put("rows.jsonl", ROWS[::-1])
    assert set(asked(make("b", **EVAL, test_size=size))) == set(test)


def chats(key, role, text, user, assistant):
    return [
        {key: [{role: user, text: f"{a}?"}, {role: assistant, text: f"{a} {i}"}]} for a in range(10) for i in range(4)
    ]


PAIRS = [(a, n) for a in range(10) for n in range(4)]
SEVERAL = [  # rows of ten problems, each in four rows, and how they are read
    ([{"question": f"{'  ' * n}What  IS {a}?", "answer": "x"} for a, n in PAIRS], RENAME),
    ([{"frage": f"{a}+1", "x": f"{a} {n}"} for a, n in PAIRS], {"rename_columns": {"frage": "prompt", "x": "completion"}}),
    ([{"instruction": "Solve.", "input": f"{a}+1", "x": f"{a} {n}"} for a, n in PAIRS],
     {"rename_columns": {"input": "prompt", "x": "completion"}}),
    ([{"Body": f"Ann has {a} plums.", "Question": "How many?", "Answer": float(a), "ID": n} for a, n in PAIRS],
     {"dataset_format": "svamp"}),
    (chats("messages", "role", "content", "user", "assistant"), {"dataset_format": "messages"}),
    (chats("conversations", "from", "value", "human", "gpt"), {"dataset_format": "sharegpt"}),
]  # fmt: skip


def test_where_no_column_is_known_as_the_problem_whole_rows_are_parted_and_a_name_given_counts():
    assert parted_by(["Aufgabe", "Ergebnis"]) == ["Aufgabe", "Ergebnis"]
    assert parted_by(["Aufgabe", "Ergebnis"], {"Aufgabe": "question"}) == ["Aufgabe"]
    assert parted_by(["id", "messages"]) == ["messages"]


@pytest.mark.parametrize(("rows", "how"), SEVERAL)
def test_a_problem_that_stands_in_several_rows_is_on_one_side(make, rows, how):
    put("rows.jsonl", rows)
    recipe = make("a", stage="sft", model_name_or_path="a/b", test_size=0.25, **how)
    parts = [asked(recipe, split) for split in (TRAIN, TEST)]
    squeezed = [{" ".join(text.split()) for text in part} for part in parts]
    assert [len(part) for part in parts] == [28, 12] and not squeezed[0] & squeezed[1]


REFUSED = [(EVAL | {"test_size": size}, "test_size") for size in (0.0, 1.0, 1.5, float("nan"), float("inf"), -3, 30)]
REFUSED += [
    (EVAL | {"dataset_test_split": "held[:3]"}, "dataset_test_split"),
    (EVAL | {"test_size": 0.2, "dataset_test_split": "test[:3]"}, "dataset_test_split"),
    (EVAL | {"test_size": 0.2, "dataset_streaming": True}, "test_size"),
    (EVAL | {"test_size": 0.2, "dataset_name": "./f.py"}, "test_size"),
    (EVAL | {"test_size": 0.2, "dataset_name": "runs/kept"}, "test_size"),
    (SFT | {"dataset_train_split": "test"}, "dataset_train_split"),
    (SFT | {"decontaminate": [{"dataset_name": "./rows.jsonl", "dataset_test_split": "test"}]}, "decontaminate"),
]


@pytest.mark.parametrize(("values", "key"), REFUSED)
def test_what_a_file_does_not_have_is_refused(make, values, key):
    put("f.py", "def f(split):\n    return []\n")
    kept = make("kept", **KEPT)
    open_run(kept.output_dir, kept.values, {}, kept.path)
    put("runs/kept/sft.jsonl", [])
    recipe = make("bad", **(values | ({"models": {"x": "a/b"}} if values["stage"] == "eval" else {})))
    with pytest.raises(UserError, match=f": {key}"):
        check_recipe(recipe, run=False).refuse()
        try:
            prepare(row_options(recipe), TEST if recipe.stage == "eval" else TRAIN)
        except KeyProblem as problem:
            raise UserError(recipe.placed(problem)) from problem


def test_a_file_without_a_word_on_splits_is_evaluated_whole_and_that_is_said(make):
    prepared = Prepared()
    assert read_rows(row_options(make("a", **EVAL)), TEST, prepared=prepared).num_rows == 30
    assert prepared.steps[0]["split"].startswith("train")
    assert len(asked(make("b", **EVAL, dataset_test_split="train[:4]"))) == 4


def trained(recipe, inputs=()):
    """Leave the folder that a training by a recipe leaves."""
    open_run(recipe.output_dir, recipe.values, dict(inputs), recipe.path)
    write_problems(recipe.output_dir, prepare(row_options(recipe)).rows)
    finish(recipe.output_dir, 1.0)
    return recipe


def found_in(recipe, earlier=()):
    """Return `{label: (problems trained on, lines about what is not known)}`."""
    found = overlaps(recipe, read_rows(row_options(recipe), TEST)["prompt"], earlier)
    return {label: (len(one.numbers), len(one.unknown)) for label, one in found.items()}


def test_problems_are_looked_for_in_the_training_data_of_all_ancestors(make):
    put("other.jsonl", [{"question": f"Name {a} birds.", "answer": "x"} for a in range(9)])
    put("spelt.jsonl", [{"question": f"what is  ${a}+{a}$ ?", "answer": "x"} for a in range(5)])
    entries = [{"dataset_name": f"./{name}.jsonl", **RENAME} for name in ("other", "spelt")]
    sft = make("sft", stage="sft", model_name_or_path="a/b", datasets=entries)
    rl = EVAL | KEPT | {"stage": "grpo", "model_name_or_path": "runs/sft", "max_samples": 8}
    grpo = make("grpo", **rl)
    put("pairs.jsonl", [{"prompt": "What is 20 + 20?", "chosen": "40", "rejected": "41"}])
    dpo = make("dpo", stage="dpo", dataset_name="./pairs.jsonl", model_name_or_path="runs/grpo/checkpoint-2")
    models = {"base": "a/b", "sft": "runs/sft", "grpo": "runs/grpo", "dpo": "runs/dpo"}
    evaluation = make("eval", **EVAL, models=models)
    assert found_in(evaluation, [sft, grpo]) == {"base": (0, 0), "sft": (5, 0), "grpo": (8, 0), "dpo": (0, 0)}
    for recipe in (sft, grpo, dpo):
        trained(recipe)
        (recipe.output_dir / "checkpoint-2").mkdir()
    for name in ("other", "spelt", "pairs"):  # what a run was trained on is known without the data
        put(f"{name}.jsonl", [{"question": "?", "answer": "x"}])
    assert found_in(evaluation) == {"base": (0, 0), "sft": (5, 0), "grpo": (8, 0), "dpo": (9, 0)}


def test_the_rows_of_a_sample_run_count_and_rows_that_were_dropped_do_not(make):
    kept = make("kept", **KEPT)
    open_run(kept.output_dir, kept.values, {}, kept.path)
    put("runs/kept/sft.jsonl", [{"prompt": ROWS[a]["question"], "completion": "x"} for a in (3, 3, 4)])
    finish(kept.output_dir, 1.0)
    trained(make("student", stage="sft", model_name_or_path="a/b", dataset_name="runs/kept"))
    put("some.jsonl", ROWS[:7])
    trained(make("clean", **SFT, decontaminate=["./some.jsonl"]))
    models = {"student": "runs/student", "clean": "runs/clean"}
    assert found_in(make("eval", **EVAL, models=models)) == {"student": (2, 0), "clean": (23, 0)}
    assert found_in(make("eval", **EVAL, models=models, dataset_name="./some.jsonl"))["clean"] == (0, 0)


def test_what_is_not_known_is_not_called_held_out_and_no_code_of_others_is_run_for_it(make):
    put("evil.py", "def evil(split):\n    open('ran', 'w')\n    return [{'prompt': '1', 'completion': '1'}]\n")
    run = trained(make("sft", **SFT | {"rename_columns": None}, dataset_name="./evil.py"))
    Path("ran").unlink(), (run.output_dir / PROBLEMS).unlink()
    evaluation = make("eval", **EVAL, model_name_or_path="runs/sft")
    found = overlaps(evaluation, ["1"])
    said, unknown = overlap_lines(found, 1)
    assert said == "" and len(unknown) == 1 and found["sft"].figure(range(1)) == {} and not Path("ran").exists()
    answers = [{"rewards": {"r": 1.0}, "prompt_index": 0, "completion": "x", "tokens": 1, "finished": True}]
    answers = [row | {"sample_index": i} for row in answers for i in (-1, 0)]
    assert "in training data" not in metrics(answers, "r", found["sft"].figure)
    assert not overlaps(evaluation, ["1"], [run])["sft"].unknown and Path("ran").exists()  # listed with the recipes


def test_a_lineage_that_ends_too_early_is_not_known(make):
    first = trained(make("first", **SFT))
    second = make("second", **SFT | {"model_name_or_path": "runs/first"}, max_samples=3)
    trained(second, {"model": fingerprint("runs/first")})
    for folder in ("elsewhere", "runs/second/export/merged-16bit"):
        put(f"{folder}/export.json", "{}")
    models = {"second": "runs/second", "export": "runs/second/export/merged-16bit", "away": "elsewhere", "hub": "a/b"}
    evaluation = make("eval", **EVAL, models=models)
    assert found_in(evaluation) == {"second": (30, 0), "export": (30, 0), "away": (0, 1), "hub": (0, 0)}
    first.output_dir.rename("runs/moved")
    assert found_in(evaluation) == {"second": (3, 1), "export": (3, 1), "away": (0, 1), "hub": (0, 0)}


@pytest.mark.parametrize(("train", "test", "count"), [("train[:20]", "train[15:]", 5), ("train[:15]", "train[15:]", 0)])
def test_what_a_training_holds_out_is_compared_with_what_it_trains_on(make, train, test, count):
    values = {"eval_strategy": "steps", "eval_steps": 1, TRAIN: train, TEST: test}
    result = next(check([make("a", **SFT, **values, from_scratch=True, use_cpu=True)], offline=True))
    assert result.facts["in_training_data"] == {"this run": count}
    assert [f.code for f in result.problems if f.key == TEST] == ["overlap"] * bool(count)


def test_a_digest_sees_through_spelling_and_nothing_else():
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": "What is 2+2?"}]
    assert len(set(digests_of(["What is $2+2$?", "what is 2 + 2", chat]))) == 1
    assert len(set(digests_of(["What is 2+2?", "What is 2-2?", "What is 2+3?"]))) == 3


def test_a_run_says_what_it_is_evaluated_on(make, capsys):
    small = {"from_scratch": True, "use_cpu": True, "max_steps": 1, "per_device_train_batch_size": 4}
    draw = {"num_generations": 1, "max_completion_length": 4, "use_cpu": True}
    make("1_sft", **SFT, **small, gradient_checkpointing=False, test_size=0.2)
    for name, size in (("2_all", None), ("3_held", 0.2)):
        make(name, **EVAL, **draw, models={"m": "runs/1_sft"}, test_size=size)
    assert run_recipes(load_recipes(["1_sft.yaml", "2_all.yaml", "3_held.yaml"])) == 0
    out = capsys.readouterr().out
    assert "24 of 30 problems are in the training data of m" in out and out.count("held-out problems") == 1
    figures = [json.loads(Path(f"runs/{name}/eval.json").read_text())["m"] for name in ("2_all", "3_held")]
    assert [(f["problems"], f["in training data"]) for f in figures] == [(30, 24), (6, 0)]
    result = next(check([load_recipe(Path("2_all.yaml"))], offline=True))
    assert result.facts["in_training_data"] == {"m": 24}
    assert any(problem.code == "overlap" and problem.level == "warning" for problem in result.problems)
