"""`reasoning-ext init`: ten kinds of tables become recipes that `check` accepts and that run; packaged folders are copied."""

import json
from pathlib import Path

import pytest
from conftest import ROOT

from reasoning_ext.check import check
from reasoning_ext.check.memory import check as memory
from reasoning_ext.check.memory.check import MemoryOptions, parse_card
from reasoning_ext.errors import UserError
from reasoning_ext.init import init, listed, look
from reasoning_ext.init.reading import Table, reading_of
from reasoning_ext.init.roles import roles
from reasoning_ext.pipeline import run_recipes
from reasoning_ext.recipe.load import load_recipes
from tests.init.ten_tables import TABLES, save_parrot, write
from tests.stand_in import servers

TRACED, ZERO = ["1_sft", "2_grpo", "3_sample", "4_distill", "5_eval"], ["1_grpo", "2_eval"]
OWN = "./read_row.py"
# table -> its recipes, the reward that judges, how a row is read, the held-out rows
KINDS = {
    "numbers.jsonl": (ZERO, "math_answer", None, 12),
    "letters.csv": (ZERO, "choice_answer", OWN, 12),
    "words.jsonl": (ZERO, "exact_answer", None, 12),
    "law.jsonl": (ZERO, "llm_judge", OWN, 12),
    "code.jsonl": (ZERO, "code_tests", None, 12),
    "questions.jsonl": (["1_sample", "2_distill", "3_eval"], "think_format", None, 12),
    "chat.jsonl": (ZERO, "llm_judge", OWN, 12),
    "traces.jsonl": (TRACED, "math_answer", OWN, 12),
    "odd.csv": (ZERO, "math_answer", None, 12),
    "twenty.csv": (ZERO, "math_answer", None, 5),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to stand in, on a machine without a card and with enough memory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "find_host", lambda: memory.Card("this machine", 64 * 2**30, memory.Device("cpu")))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_each_kind_becomes_recipes_that_check_accepts(here, capsys, wording, name):
    stages, judge, read, held_out = KINDS[name]
    write(here, name)
    init(name, None, None, None)
    wording(capsys.readouterr().out)
    folder = Path("recipes", name.split(".")[0])
    recipes = load_recipes([folder])
    assert [recipe.path.stem for recipe in recipes] == stages
    for recipe, checked in zip(recipes, check(recipes, offline=True), strict=True):
        assert [problem for problem in checked.problems if problem.level != "note"] == []
        if not recipe.path.stem.endswith("distill"):
            assert recipe.values.get("dataset_format") == read
            assert checked.facts["rows"] == (held_out if recipe.stage == "eval" else len(TABLES[name]) - held_out)
        first = [
            next(iter(entry)) if isinstance(entry, dict) else entry
            for entry in recipe.values.get("reward_funcs", [judge])
        ]
        assert first[0] == judge
    starts = [recipe.values.get("model_name_or_path") for recipe in recipes]
    assert starts[0] == "Qwen/Qwen2.5-0.5B-Instruct" and (starts[1] == "runs/traces/1_sft") == ("1_sft" in stages)


@pytest.mark.parametrize(
    "name", ["twenty.csv", *(pytest.param(n, marks=pytest.mark.slow) for n in KINDS if n != "twenty.csv")]
)
def test_a_table_comes_to_a_finished_run_without_an_edit(here, name):
    """But for the address of a judge, which is edited."""
    write(here, name)
    init(name, None, str(save_parrot(here / "model")), None)
    folder = Path("recipes", name.split(".")[0])
    with servers() as start:
        judge = start('{"score": 7}')
        for file in folder.glob("*.yaml") if KINDS[name][1] == "llm_judge" else ():
            file.write_text(file.read_text().replace("http://localhost:8000/v1", judge.url))
        assert run_recipes(load_recipes([folder], {"max_steps": "2", "max_completion_length": "8"})) == 0
    assert sorted(path.parent.name for path in here.glob("runs/*/*/DONE")) == KINDS[name][0]


def test_a_model_too_large_for_the_card_is_edited_until_it_fits(here):
    write(here, "traces.jsonl")
    init("traces.jsonl", "8GB", "Qwen/Qwen2.5-7B-Instruct", Path("mine"))
    recipes = load_recipes(["mine"])
    card = MemoryOptions(parse_card("8GB"))
    for recipe, checked in zip(recipes, check(recipes, offline=True, options=card), strict=True):
        assert checked.memory.fits and not checked.errors
        assert recipe.values["load_in_4bit"] and recipe.values["output_dir"].startswith("runs/mine/")
        assert "# so that it fits the card" in recipe.path.read_text() and "# Planned:" in recipe.path.read_text()


BAD = {
    "nope.csv": None,
    "empty.csv": b"",
    "numbers_alone.csv": b"n\n" + b"".join(b"%d\n" % i for i in range(30)),
    "hops.jsonl": b"".join(
        b'{"question": "Who built no. %d?", "answer": "Ann", "context": {"title": ["x"]}}\n' % i for i in range(12)
    ),
    "holes.csv": b"question,answer\n" + b"What is 1+1?,2\n,3\n" * 9,
    "binary.csv": bytes(range(128, 256)) * 9,
    "photo.png": b"\x89PNG\r\n",
    "few.csv": b"question,answer\n1+1,2\n",
    "pairs.jsonl": b'{"prompt": "What is 1+1?", "chosen": "2", "rejected": "3"}\n' * 12,
    "task.py": b"def task(split): return []\n",
    "me/data": None,
    "recipes/nope": None,
}


def test_what_is_no_table_is_one_line_and_nothing_is_written(here, wording):
    for name, content in BAD.items():
        if content is not None:
            Path(name).write_bytes(content)
        with pytest.raises(UserError) as error:
            init(name, None, None, None)
        wording(error.value)
    write(here, "numbers.jsonl")
    Path("there").mkdir()
    for card, output in (("24XB", None), (None, Path("there"))):
        with pytest.raises(UserError) as error:
            init("numbers.jsonl", card, None, output)
        wording(error.value)
    assert not Path("recipes").exists() and [*Path("there").iterdir()] == []


# rows as public data sets have them -> how they are read
ASKED = [f"What is {i} plus {i + 1}?" for i in range(12)]
SHAPES = {
    "gsm8k": [{"question": q, "answer": f"Add them.\n#### {i}"} for i, q in enumerate(ASKED)],
    "math": [{"problem": q, "level": "1", "solution": rf"It is \boxed{{{i}}}."} for i, q in enumerate(ASKED)],
    "mmlu": [{"question": q, "choices": ["1", "2", "3"], "answer": i % 3} for i, q in enumerate(ASKED)],
    "sharegpt": [{"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": "7"}]} for q in ASKED],
    "messages": [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": "<think>a</think>7"}]}
        for q in ASKED
    ],
    "gpqa": [
        {"Question": q, "Correct Answer": "1"} | {f"Incorrect Answer {k}": f"no {k}" for k in (1, 2, 3)} for q in ASKED
    ],
}  # fmt: skip
OWN_SHAPES = {
    "options by text": [{"question": q, "options": ["red", "blue", "green"], "answer": "blue"} for q in ASKED],
    "options in a mapping": [
        {"question": q, "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"} for q in ASKED
    ],
    "places from 1": [
        {"q_text": q, "option_1": "x", "option_2": "y", "option_3": "z", "label": i % 3 + 1} for i, q in enumerate(ASKED)
    ],
    "options that are numbers": [
        {"question": q, "choices": ["2", "3", "5"], "answer": "2" if i else None} for i, q in enumerate(ASKED)
    ],
    "options with places for labels": [
        {"question": q, "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"} for q in ASKED
    ],
    "boxed traces": [{"prompt": q, "completion": rf"<think>so</think>\boxed{{{i}}}"} for i, q in enumerate(ASKED)],
    "answers as SQuAD has them": [
        {"context": "It was Ann.", "question": q, "answers": {"text": ["Ann", "Ann B."] if i else [], "answer_start": []}}
        for i, q in enumerate(ASKED)
    ],
    "answers as TriviaQA has them": [{"question": q, "answer": {"value": "Ann", "aliases": ["A.", "Ann"]}} for q in ASKED],
    "context in pieces": [{"question": q, "answer": "Ann", "context": ["It was", "Ann."]} for q in ASKED],
    "one instruction": [{"instruction": "Add.", "input": q, "output": str(i)} for i, q in enumerate(ASKED)],
}  # fmt: skip
GOLDS = {
    "options by text": ("letters", "blue"), "options in a mapping": ("letters", "B"), "places from 1": ("letters", "A"),
    "options that are numbers": ("letters", "2"), "options with places for labels": ("letters", "B"),
    "answers as SQuAD has them": ("words", ["Ann", "Ann B."]), "answers as TriviaQA has them": ("words", ["A.", "Ann"]),
    "context in pieces": ("words", "Ann"), "boxed traces": ("numbers", "0"), "one instruction": ("numbers", "0"),
}  # fmt: skip


def test_public_shapes_are_read_by_their_formats_and_others_by_a_file_of_their_own(here):
    for format, rows in SHAPES.items():
        assert reading_of(Table("x", rows, [*rows[0]], roles(rows, [*rows[0]]))).format == format
    for name, rows in OWN_SHAPES.items():
        Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        seen = look.look("rows.jsonl", "no/model")
        made = look._formatted(look.load_rows("rows.jsonl", here), seen.reading)
        assert (seen.golds, made[0]["answer"]) == GOLDS[name] and seen.reading.format == OWN
        assert ASKED[len(ASKED) - len(made)] in made[0]["prompt"][0]["content"]
        assert ("choices" in made.column_names) == ("options" in name or "places" in name)


# a table -> how many rows of it are left out, the golds of the first, and whether it is read by a file of its own
WITH_FAULTS = {
    "gsm.jsonl": (1, "0", [*SHAPES["gsm8k"], {"question": "Why?", "answer": "I do not know."}]),
    "empty.jsonl": (1, "0", [*SHAPES["math"], {"problem": None, "level": "1", "solution": r"\boxed{1}"}]),
    "deutsch.csv": (0, "0.5", "Nr;Aufgabe;Lösung\n" + "".join(f"{i};{q};{i},5\n" for i, q in enumerate(ASKED))),
    "euro.csv": (0, "1000.5", "Aufgabe;Lösung\n" + "".join(f"{q};1.{i:03},5 Euro\n" for i, q in enumerate(ASKED))),
}


@pytest.mark.parametrize("name", WITH_FAULTS)
def test_rows_that_do_not_fit_are_left_out_and_decimal_commas_become_points(here, capsys, wording, name):
    lost, gold, rows = WITH_FAULTS[name]
    text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    Path(name).write_text(text)
    init(name, None, None, None)
    wording(capsys.readouterr().out)
    for recipe, checked in zip(
        recipes := load_recipes([f"recipes/{name.split('.')[0]}"]), check(recipes, offline=True), strict=True
    ):
        assert [problem for problem in checked.problems if problem.level != "note"] == [] and recipe
    seen = look.look(name, "no/model")
    made = look._formatted(look.load_rows(name, here), seen.reading)
    assert (made[0]["answer"].split()[0], seen.golds) == (gold, "numbers")
    assert (
        seen.left_out.startswith(f"{lost} of {seen.rows} rows; row 12" if lost else "")
        and len(made) == seen.rows - lost
    )


def test_of_two_long_columns_without_known_names_the_one_that_holds_the_answers_is_the_thought():
    rows = [{"Aufgabe": f"Wie viele cm sind {i} Meter?", "Erklärung": f"Ein Meter hat 100 cm, {i} Meter haben also {i}00 cm.",
             "Ergebnis": f"{i}00 cm", "Stufe": "leicht"} for i in range(3, 30)]  # fmt: skip
    assert roles(rows, [*rows[0]]) == {"prompt": "Aufgabe", "answer": "Ergebnis", "thought": "Erklärung"}


def test_a_data_set_of_the_hub_keeps_its_config_and_its_test_split(here, monkeypatch):
    import datasets

    rows = [{"question": q, "answer": f"Add them.\n#### {i}"} for i, q in enumerate(ASKED)]
    monkeypatch.setattr(look, "hub_problem", lambda: "")
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: ["main", "socratic"])
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, config: ["train", "test"])
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *names, **how: datasets.Dataset.from_list(rows).to_iterable_dataset()
    )
    init("openai/gsm8k", None, None, None)
    first, *_, last = load_recipes([Path("recipes", "gsm8k")])
    for recipe in (first, last):
        named = [recipe.values.get(key) for key in ("dataset_name", "dataset_config", "dataset_format", "test_size")]
        assert named == ["openai/gsm8k", "main", "gsm8k", None]
    assert (first.stage, last.values["dataset_test_split"]) == ("sft", "test")
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, config: ["test"])
    with pytest.raises(UserError, match=r"only test, .* split train; .*rows\.jsonl"):
        init("me/tested", None, None, None)


def test_packaged_folders_are_listed_and_copied_whole(here):
    names = [line.split()[0] for line in listed()]
    assert {"recipes/tiny", "recipes/qwen3_4b", "examples/custom_reward"} <= {*names}
    init("recipes/tiny", None, None, None)
    init("examples/tasks/", None, None, Path("mine"))
    for copied, source in (("recipes/tiny", "recipes/tiny"), ("mine", "examples/tasks")):
        made, there = (
            {p.relative_to(f) for p in f.rglob("*") if p.suffix != ".pyc" and p.is_file()}
            for f in (here / copied, ROOT / source)
        )
        assert made == there
    [checked] = check(
        load_recipes(["recipes/tiny/2_grpo.yaml"]),
        offline=True,
        others=lambda recipe: load_recipes(["recipes/tiny/1_sft.yaml"]),
    )
    assert not checked.errors and checked.facts["rows"] == 4096
