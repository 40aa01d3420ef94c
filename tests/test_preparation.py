"""Rows through a whole recipe: what is dropped, what is counted, what is kept of it, and which recipes are refused."""

import ast
import json

import datasets
import pytest

from reasoning_ext.data import DataError, find_format, format_rows
from reasoning_ext.errors import UserError
from reasoning_ext.preparation import evaluation_questions, prepare, recipe_rows
from reasoning_ext.recipe import load_recipe
from reasoning_ext.reward_loading import parse_rewards

GRPO = "num_generations: 2\nper_device_train_batch_size: 2\n"


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    """Keep what `datasets` caches out of the user's folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def put(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def adds(count, **more):
    return [
        {
            "prompt": f"What is {a} plus {a + 1}?",
            "completion": f"<think>{a}</think>{2 * a + 1}",
            "answer": str(2 * a + 1),
        }
        | more
        for a in range(count)
    ]


@pytest.fixture
def recipe(tmp_path, write_recipe):
    """Return a function from rows and further keys to a recipe of them."""

    def make(rows, more="", stage="sft"):
        put(tmp_path / "rows.jsonl", rows)
        return load_recipe(write_recipe(f"stage: {stage}\noutput_dir: out\ndataset_name: ./rows.jsonl\n{more}"))

    return make


def rewarded(recipe, **options):
    return prepare(recipe, specs=parse_rewards(recipe.get("reward_funcs"), recipe.folder), **options)


def steps(prepared):
    return [(step["step"], step["rows"], step["dropped"]) for step in prepared.steps]


def test_every_step_is_counted_and_kept(recipe, tmp_path):
    rows = [*adds(9), {**adds(1)[0], "prompt": "what is 0  plus 1?"}, {**adds(2)[1], "completion": "<think>x</think>7"}]
    rows += [{"prompt": "What is " + "very " * 80 + "long?", "completion": " \n", "answer": "1"}]
    put(tmp_path / "held.jsonl", [{"question": "WHAT IS  5 plus 6 ?"}, {"question": None}, {"question": "?!"}])
    more = "trace_filters: {correct: true}\ndeduplicate: exact\ndecontaminate: [./held.jsonl]\n"
    prepared = prepare(recipe(rows, more))
    wanted = [("./rows.jsonl", 12, 0), ("without a completion", 11, 1), ("trace_filters.correct", 10, 1)]
    assert steps(prepared) == [*wanted, ("deduplicate exact", 9, 1), ("decontaminate", 8, 1)]
    assert prepared.rows.num_rows == 8 and prepared.steps[-1]["questions"] == 1
    prepared.write(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "data.json").read_text()) == prepared.steps
    removed = [json.loads(line) for line in (tmp_path / "out" / "removed.jsonl").read_text().splitlines()]
    assert [(row["step"], row["row"], row["text"]) for row in removed] == [
        ("trace_filters.correct", 10, "What is 1 plus 2?"),
        ("deduplicate", 9, "what is 0 plus 1?"),
        ("decontaminate", 5, "What is 5 plus 6?"),
    ]
    assert removed[1]["of"] == 0 and removed[2]["set"] == "./held.jsonl:test"
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["data.json", "removed.jsonl"]
    assert "deduplicate exact: 9 rows, 1 dropped" in prepared.lines()


def test_a_long_question_is_cut_where_it_is_listed(recipe):
    rows = [{"prompt": "word " * 100 + ".", "completion": "x"}] * 2
    [removed] = prepare(recipe(rows, "deduplicate: exact\n")).removed
    assert removed["text"] == ("word " * 100)[:160] + " ..."


def test_rows_without_a_gold_are_dropped_where_a_reward_would_judge_them(recipe):
    rows = [{"problem": f"{i}?", "solution": "So." if i < 3 else r"\boxed{3}", "task": "ab"[i % 2]} for i in range(9)]
    text = f"{GRPO}dataset_format: ./own.py:own\n"
    own = recipe(rows).folder / "own.py"
    own.write_text(
        "def own(row):\n    gold = None if row['solution'] == 'So.' else ' ' if row['problem'] == '8?' else '3'\n"
        "    return {'prompt': row['problem'], 'answer': gold, 'task': row['task']}\n"
    )
    every = rewarded(recipe(rows, f"{text}reward_funcs: [math_answer]\n", "grpo"))
    assert steps(every)[1:] == [("without a gold", 5, 4)]
    some = rewarded(recipe(rows, f"{text}reward_funcs: [{{math_answer: {{when: {{task: b}}}}}}]\n", "grpo"))
    assert steps(some)[1:] == [("without a gold", 8, 1)]
    none = rewarded(recipe(rows, f"{text}reward_funcs: [think_format]\n", "grpo"))
    assert none.rows.num_rows == 9 and len(none.steps) == 1
    stream = f"{text}dataset_streaming: true\nreward_funcs: [math_answer]\n"
    assert len(list(rewarded(recipe(rows, stream, "grpo")).rows)) == 5


@pytest.mark.parametrize(("value", "found"), [("z", "'z'"), ("[x, z]", "'z'")])
def test_a_value_of_when_that_no_row_has_is_found(recipe, tmp_path, value, found):
    text = f"{GRPO}reward_funcs:\n  - math_answer\n  - think_format:\n      when: {{task: {value}}}\n"
    with pytest.raises(UserError) as error:
        rewarded(recipe(adds(4, task="x"), text, "grpo"))
    place = f"{tmp_path}/r.yaml:9: reward_funcs.1.think_format.when.task"
    assert str(error.value) == f"{place}: found {found}, which no row has; the column task holds 'x'"
    assert rewarded(recipe(adds(4, task="x"), text.replace(f"task: {value}", "task: x"), "grpo")).rows.num_rows == 4


def test_a_column_of_when_that_is_not_there_is_left_to_the_check_of_columns(recipe):
    text = f"{GRPO}reward_funcs: [{{math_answer: {{when: {{task: x}}}}}}]\n"
    assert rewarded(recipe(adds(4), text, "grpo")).rows.num_rows == 4


def test_all_turns_of_a_chat_and_the_limit_of_its_rows(recipe):
    chat = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "<think>t</think>d")]
    rows = [{"messages": [{"role": role, "content": text} for role, text in turns]} for turns in (chat, chat[1:3])]
    text = "dataset_format: messages\nassistant_turns: all\n"
    made = prepare(recipe(rows, text)).rows
    assert [row["completion"][0]["content"] for row in made] == ["b", "<think>t</think>d", "b"]
    assert [len(row["prompt"]) for row in made] == [2, 4, 1]
    assert len(prepare(recipe(rows, text + "max_samples: 1\n")).rows) == 2
    greeted = [
        {"messages": [{"role": "system", "content": "s"}, {"role": "assistant", "content": "hi"}, *rows[1]["messages"]]}
    ]
    assert [len(row["prompt"]) for row in prepare(recipe(greeted, text)).rows] == [3]
    assert len(prepare(recipe(rows, "dataset_format: messages\n")).rows) == 2


def test_a_look_at_the_first_rows_goes_on_where_the_format_drops_them_all(recipe, tmp_path):
    (tmp_path / "late.py").write_text("def late(row):\n    return row if int(row['answer']) > 50 else None\n")
    made = recipe(adds(40), "dataset_format: ./late.py\n")
    assert recipe_rows(made, max_samples=4)["answer"][:] == ["51", "53", "55", "57"]
    prepared = prepare(made)
    assert prepared.steps[0] == {"step": "./rows.jsonl", "rows": 15, "dropped": 25, "read": 40}


def test_a_format_that_drops_every_row_is_refused(recipe, tmp_path):
    (tmp_path / "no.py").write_text("def no(row):\n    return None\n")
    with pytest.raises(DataError) as error:
        prepare(recipe(adds(12), "dataset_format: ./no.py\n"))
    assert str(error.value) == "no drops every row: 12 read, none fits"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("deduplicate: exact", "deduplicate"),
        ("trace_filters: {correct: true}", "trace_filters"),
        ("decontaminate: [./rows.jsonl]", "decontaminate"),
    ],
)
def test_what_needs_all_rows_is_refused_for_a_stream(recipe, more, said):
    with pytest.raises(DataError) as error:
        prepare(recipe(adds(4), f"dataset_streaming: true\n{more}\n"))
    assert error.value.key == said and "read as a whole" in str(error.value)


def test_a_stream_with_filters_that_are_off_goes_through_without_empty_completions(recipe):
    text = "dataset_streaming: true\ntrace_filters: {}\ndecontaminate: []\n"
    rows = prepare(recipe([*adds(4), {**adds(1)[0], "completion": " "}], text)).rows
    assert len(list(rows)) == 4 and not hasattr(rows, "num_rows")


def test_no_row_left_is_an_error_with_the_counts(recipe):
    with pytest.raises(
        DataError, match=r"no row is left after \./rows\.jsonl: 4 rows; trace_filters\.min_tokens: 0 rows"
    ):
        prepare(recipe(adds(4), "trace_filters: {min_tokens: 500}\n"), count=len)


EVALUATION_SETS = [
    ("[5]", "decontaminate.0: found 5, allowed: a name, a file, or a mapping"),
    ("[{}]", "decontaminate.0: found {}, allowed"),
    ("[{dataset_name: ./held.jsonl, foo: 1}]", "decontaminate.0.foo: unknown key"),
    ("[{dataset_name: ./held.jsonl, dataset_format: 5}]", "decontaminate.0.dataset_format: found 5, allowed: text"),
    ("[{dataset_name: ./held.jsonl, dataset_test_split: 5}]", "decontaminate.0.dataset_test_split: found 5"),
    ("[{dataset_name: ./held.jsonl, dataset_format: zz}]", "decontaminate.0.dataset_format: no zz"),
    ("[./held.jsonl, ./none.jsonl]", "decontaminate.1: no file or folder"),
    ("[./other.jsonl]", "decontaminate.0: found the columns text; write dataset_format"),
    ("[./blank.jsonl]", "decontaminate.0: found no question with words in the column question"),
    ("[./numbers.jsonl]", "decontaminate.0: the column question holds no text"),
]


@pytest.mark.parametrize(("value", "said"), EVALUATION_SETS)
def test_an_evaluation_set_that_cannot_be_used_is_named(recipe, tmp_path, value, said):
    put(tmp_path / "held.jsonl", [{"question": "1+1?"}]), put(tmp_path / "other.jsonl", [{"text": "1+1?"}])
    put(tmp_path / "blank.jsonl", [{"question": ""}]), put(tmp_path / "numbers.jsonl", [{"question": 5}])
    with pytest.raises(UserError) as error:
        evaluation_questions(recipe(adds(4), f"decontaminate: {value}\n"))
    assert str(error.value).startswith(f"{tmp_path}/r.yaml:4: {said}") and "\n" not in str(error.value)


def test_evaluation_sets_of_one_name_do_not_hide_each_other(recipe, tmp_path):
    put(tmp_path / "held.jsonl", [{"question": "1+1?"}])
    sets = evaluation_questions(recipe(adds(4), "decontaminate: [./held.jsonl, {dataset_name: ./held.jsonl}]\n"))
    assert sets == {"./held.jsonl:test": ["1+1?", "1+1?"]}
    sets = evaluation_questions(recipe(adds(4), "decontaminate: [{dataset_name: ./held.jsonl, dataset_config: a}]\n"))
    assert list(sets) == ["./held.jsonl/a:test"]


@pytest.mark.parametrize("kind", ["file", "saved", "sampled"])
def test_the_training_rows_are_not_held_out(recipe, tmp_path, kind):
    made = recipe(adds(12))
    if kind == "saved":
        datasets.Dataset.from_list(adds(12)).save_to_disk(tmp_path / "saved")
    elif kind == "sampled":
        (tmp_path / "sampled").mkdir()
        put(tmp_path / "sampled" / "sft.jsonl", adds(12))
    made.values["dataset_name"] = {"file": "./rows.jsonl"}.get(kind, f"./{kind}")
    with pytest.raises(DataError) as error:
        recipe_rows(made, "dataset_test_split")
    assert error.value.key == "dataset_test_split" and "has one split" in str(error.value)
    if kind != "saved":
        made.values |= {"dataset_train_split": "train[:9]", "dataset_test_split": "train[9:]"}
        assert len(recipe_rows(made, "dataset_test_split")) == 3


def test_a_format_that_is_not_set_is_the_data_sets_fault(recipe):
    with pytest.raises(DataError) as error:
        recipe_rows(recipe([{"text": "x"}]))
    assert error.value.key == "dataset_name" and "needs the column prompt" in str(error.value)
    assert str(error.value).endswith("say how its rows are read with dataset_format or rename_columns")


# Formats of users.


def own(tmp_path, body, rows=None):
    """Format rows with a function of a file."""
    file = tmp_path / "own.py"
    file.write_text(f"def own(row):\n    n = int(row['answer'])\n    {body}\n")
    rows = datasets.Dataset.from_list(rows or adds(450))
    return format_rows(rows, find_format("./own.py", tmp_path))


ROW = "made = {'prompt': row['prompt'], 'completion': 'x', 'more': %s}; return made"
BAD = [
    ("return 1 / 0", "row 0: own failed: ZeroDivisionError: division by zero"),
    ("return 'abc'", "row 0 does not fit own"),
    ("return {'prompt': None}", "row 0 does not fit own: the column prompt holds None, allowed: text, or messages"),
    ("return {'prompt': []}", "row 0 does not fit own: the column prompt holds []"),
    ("return {'prompt': ['a']}", "row 0 does not fit own: the column prompt holds ['a']"),
    ("return {'prompt': [{'content': 'a'}]}", "row 0 does not fit own: the column prompt holds [{"),
    ("return {'prompt': 'a', 'late': 1} if n > 700 else {'prompt': 'a'}", "row 350: own gives the column late, which"),
    (ROW % "'hard' if n > 700 else 1", "own gives values of different kinds in one column: more: "),
    (ROW % "'hard' if n > 3 else 1", "own gives values of different kinds in one column: more: "),
    (ROW % "['x'] if n > 3 else 'x'", "own gives values of different kinds in one column: more: "),
    (ROW % "object()", "own gives values of different kinds in one column: more: "),
    (ROW % "'\\ud83d'", "own gives values of different kinds in one column: more: "),
]


@pytest.mark.parametrize(("body", "said"), BAD)
def test_a_format_that_goes_wrong_is_one_line(tmp_path, body, said):
    with pytest.raises(DataError) as error:
        own(tmp_path, body)
    assert str(error.value).startswith(said) and "\n" not in str(error.value) and error.value.key == "dataset_format"


def test_a_format_whose_file_cannot_be_imported_is_named(tmp_path):
    (tmp_path / "own.py").write_text("import no_such_module\ndef own(row):\n    return row\n")
    with pytest.raises(DataError, match=r"own\.py:\d+ failed: ModuleNotFoundError: No module named 'no_such_module'"):
        format_rows(datasets.Dataset.from_list(adds(2)), find_format("./own.py", tmp_path))


@pytest.mark.parametrize(
    ("late", "early"), [("'x'", "None"), ("['x']", "[]"), ("{'a': 'x'}", "{'a': None}"), ("5", "None"), ("2.5", "1")]
)
def test_a_value_may_come_late(tmp_path, late, early):
    made = own(tmp_path, ROW % f"{late} if n > 700 else {early}")["more"]
    assert made[449] == ast.literal_eval(late) and made[0] == ast.literal_eval(early)


@pytest.mark.parametrize("empty", ["None", "{'a': None, 'b': 1}"])
def test_what_no_row_fills_is_text(tmp_path, empty):
    kind = own(tmp_path, ROW % empty).features["more"]
    assert (kind["a"] if isinstance(kind, dict) else kind).dtype == "string"


def test_golds_are_text_whatever_type_the_file_gives_them(recipe):
    mixed = [{"prompt": "a", "completion": "b", "answer": "1"}, {"prompt": "a", "completion": "c", "answer": 5}]
    try:
        made = recipe_rows(recipe(mixed))
    except DataError as error:  # an older reader takes no column of two kinds
        assert "\n" not in str(error)
    else:
        assert made["answer"][:] == ["1", "5"]


def test_what_is_held_out_is_measured_as_it_is(recipe, tmp_path):
    put(tmp_path / "bench.jsonl", adds(4))
    made = recipe(
        adds(8), "decontaminate: [./bench.jsonl]\ndataset_train_split: train[:4]\ndataset_test_split: train[:4]\n"
    )
    assert prepare(made, "dataset_test_split").rows.num_rows == 4
    with pytest.raises(DataError, match="no row is left"):
        prepare(made)


def test_the_files_of_decontamination_are_inputs_of_the_run(recipe, tmp_path):
    from reasoning_ext.named_inputs import input_sources

    put(tmp_path / "bench.jsonl", adds(4))
    made = recipe(adds(8), "decontaminate: [./bench.jsonl, {dataset_name: ./bench.jsonl, dataset_format: math}]\n")
    found = input_sources(made, [])
    assert found["decontaminate 1"] == str(tmp_path / "bench.jsonl") and "decontaminate format 2" in found
