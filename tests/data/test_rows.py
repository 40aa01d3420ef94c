"""Rows through a whole recipe: what is dropped, what is counted, what is kept of it, and which recipes are refused."""

import ast
import json

import datasets
import pytest

from reasoning_ext.check.named_inputs import input_sources
from reasoning_ext.data.columns import DataError
from reasoning_ext.data.contamination import evaluation_questions
from reasoning_ext.data.format import find_format, format_rows
from reasoning_ext.data.row_options import TEST, row_options
from reasoning_ext.data.rows import prepare, read_rows
from reasoning_ext.errors import UserError
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.scoring.spec import parse_rewards
from tests.rows import put

GRPO = "num_generations: 2\nper_device_train_batch_size: 2\n"


def adds(count, **more):
    sums = [(f"What is {a} plus {a + 1}?", f"<think>{a}</think>{2 * a + 1}", str(2 * a + 1)) for a in range(count)]
    return [dict(zip(("prompt", "completion", "answer"), one, strict=True)) | more for one in sums]


@pytest.fixture
def recipe(tmp_path, write_recipe):
    """Return a function from rows and further keys to a recipe of them."""

    def make(rows, more="", stage="sft"):
        put(tmp_path / "rows.jsonl", rows)
        return load_recipe(write_recipe(f"stage: {stage}\noutput_dir: out\ndataset_name: ./rows.jsonl\n{more}"))

    return make


def prepared(recipe, **options):
    """Prepare a recipe's rows, and place what is wrong with them as a stage does."""
    specs = parse_rewards(recipe.get("reward_funcs"), recipe.folder) if "reward_funcs" in recipe.keys else []
    try:
        return prepare(row_options(recipe), specs=specs, **options)
    except DataError as error:
        raise UserError(recipe.placed(error)) from error


def refused(call):
    with pytest.raises(ValueError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def steps(made):
    return [(step["step"], step["rows"], step["dropped"]) for step in made.steps]


def test_every_step_is_counted_and_kept(recipe, tmp_path):
    rows = [*adds(9), {**adds(1)[0], "prompt": "what is 0  plus 1?"}, {**adds(2)[1], "completion": "<think>x</think>7"}]
    rows += [{"prompt": "What is " + "very " * 80 + "long?", "completion": " \n", "answer": "1"}]
    put(tmp_path / "held.jsonl", [{"question": "WHAT IS  5 plus 6 ?"}, {"question": None}, {"question": "?!"}])
    more = "trace_filters: {correct: true}\ndeduplicate: exact\ndecontaminate: [./held.jsonl]\n"
    made = prepared(recipe(rows, more))
    wanted = [("./rows.jsonl", 12, 0), ("without a completion", 11, 1), ("trace_filters.correct", 10, 1)]
    assert steps(made) == [*wanted, ("deduplicate exact", 9, 1), ("decontaminate", 8, 1)]
    assert made.rows.num_rows == 8 and made.steps[-1]["questions"] == 1
    assert "deduplicate exact: 9 rows, 1 dropped" in made.lines()
    made.write(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "data.json").read_text()) == made.steps
    removed = [json.loads(line) for line in (tmp_path / "out" / "removed.jsonl").read_text().splitlines()]
    told = [(row["step"], row["row"], row["text"]) for row in removed]
    wanted = [("trace_filters.correct", 10, "What is 1 plus 2?"), ("deduplicate", 9, "what is 0 plus 1?")]
    assert told == [*wanted, ("decontaminate", 5, "What is 5 plus 6?")]
    assert removed[1]["of"] == 0 and removed[2]["set"] == "./held.jsonl:test"
    [removed] = prepared(recipe([{"prompt": "word " * 99, "completion": "x"}] * 2, "deduplicate: exact\n")).removed
    assert removed["text"] == ("word " * 99)[:160] + " ..."


def test_rows_without_a_gold_are_dropped_where_a_reward_would_judge_them(recipe):
    rows = [{"prompt": f"{i}?", "answer": ["3", None, " "][min(i, 2)], "task": "ba"[i % 2]} for i in range(5)]
    one = {"math_answer": {"when": {"task": "b"}}}
    for rewards, dropped in ((["math_answer"], 4), ([one], 2), (["think_format"], 0)):
        made = prepared(recipe(rows, f"{GRPO}reward_funcs: {json.dumps(rewards)}\n", "grpo"))
        assert steps(made)[1:] == ([("without a gold", 5 - dropped, dropped)] if dropped else [])
    stream = f"{GRPO}dataset_streaming: true\nreward_funcs: [math_answer]\n"
    assert len(list(prepared(recipe(rows, stream, "grpo")).rows)) == 1
    other = f"{GRPO}reward_funcs: [{{math_answer: {{when: {{none: x}}}}}}]\n"  # the check of columns says it
    assert prepared(recipe(rows, other, "grpo")).rows.num_rows == 5


def test_a_value_of_when_that_no_row_has_is_found(recipe, tmp_path):
    text = f"{GRPO}reward_funcs:\n  - math_answer\n  - think_format:\n      when: {{task: [x, z]}}\n"
    said = refused(lambda: prepared(recipe(adds(4, task="x"), text, "grpo")))
    assert said.startswith(f"{tmp_path}/r.yaml:9: reward_funcs.1.think_format.when.task: found 'z'")


def test_prompts_of_a_pass_rate_between_bounds_are_kept(recipe):
    rows = [{**row, "pass_rate": rate} for row, rate in zip(adds(4), (0.1, 0.5, None, 1.0), strict=True)]
    more = f"{GRPO}reward_funcs: [math_answer]\ndifficulty: [0.1, 0.9]\n"
    made = prepared(recipe(rows, more, "grpo"))
    assert made.rows["answer"][:] == ["1", "3"] and steps(made)[1][1:] == (2, 2)
    assert ": difficulty: " in refused(lambda: prepared(recipe(adds(4), more, "grpo")))


def test_pairs_that_say_nothing_or_the_same_are_dropped(recipe):
    sides = [("7", "8"), ("7", "7"), ("7", " "), (None, "8")]
    rows = [{"prompt": "3+4", "chosen": chosen, "rejected": rejected} for chosen, rejected in sides]
    made = prepared(recipe(rows, "", "dpo"))
    assert [step[1:] for step in steps(made)] == [(4, 0), (2, 2), (1, 1)]


def test_all_turns_of_a_chat_and_the_limit_of_its_rows(recipe):
    chat = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "<think>t</think>d")]
    chats = (chat, chat[1:3], [chat[0], chat[2], *chat[1:3]])
    rows = [{"messages": [{"role": role, "content": text} for role, text in turns]} for turns in chats]
    text = "dataset_format: messages\nassistant_turns: all\n"
    made = prepared(recipe(rows, text)).rows
    assert [row["completion"][0]["content"] for row in made] == ["b", "<think>t</think>d", "b", "b"]
    assert [len(row["prompt"]) for row in made] == [2, 4, 1, 3]
    assert len(prepared(recipe(rows, text + "max_samples: 1\n")).rows) == 2
    assert len(prepared(recipe(rows, "dataset_format: messages\n")).rows) == 3


def test_a_look_at_the_first_rows_goes_on_where_the_format_drops_them_all(recipe, tmp_path):
    put(tmp_path / "late.py", "def late(row):\n    return row if int(row['answer']) > 50 else None\n")
    made = recipe(adds(40), "dataset_format: ./late.py\n")
    assert read_rows(row_options(made), limit=4)["answer"][:] == ["51", "53", "55", "57"]
    assert prepared(made).steps[0] == {"step": "./rows.jsonl", "rows": 15, "dropped": 25, "read": 40}
    put(tmp_path / "none.py", "def none(row):\n    return None\n")
    made = recipe(adds(40), "dataset_format: ./none.py\n")
    assert "none drops every row" in refused(lambda: prepared(made))


def test_a_look_drops_what_says_nothing_and_asks_for_nothing_more(recipe):
    rows = [*adds(3), {**adds(1)[0], "completion": " "}, adds(1)[0]]
    more = "deduplicate: exact\ntrace_filters: {max_tokens: 1}\n"
    made = prepared(recipe(rows, more), look=4, count=len)
    assert steps(made) == [("./rows.jsonl", 4, 0), ("without a completion", 3, 1)]


def test_what_needs_all_rows_is_refused_for_a_stream_unless_it_is_off(recipe):
    for more in ("deduplicate: exact", "trace_filters: {correct: true}", "decontaminate: [./rows.jsonl]"):
        said = refused(lambda more=more: prepared(recipe(adds(4), f"dataset_streaming: true\n{more}\n")))
        assert f": {more.partition(':')[0]}: " in said
    off = "dataset_streaming: true\ntrace_filters: {}\ndecontaminate: []\n"
    rows = prepared(recipe([*adds(4), {**adds(1)[0], "completion": " "}], off)).rows
    assert len(list(rows)) == 4 and not hasattr(rows, "num_rows")


def test_no_row_left_is_an_error_with_the_counts(recipe):
    said = refused(lambda: prepared(recipe(adds(4), "trace_filters: {min_tokens: 500}\n"), count=len))
    assert "no row is left after ./rows.jsonl: 4 rows; trace_filters.min_tokens: 0 rows" in said


EVALUATION_SETS = [  # what is named, the key that is to blame
    ("[5]", "0"), ("[{}]", "0"), ("[{dataset_name: ./held.jsonl, foo: 1}]", "0.foo"), ("[./held.jsonl, ./none.jsonl]", "1"),
    ("[{dataset_name: ./held.jsonl, dataset_format: 5}]", "0.dataset_format"), ("[./other.jsonl]", "0"),
    ("[{dataset_name: ./held.jsonl, dataset_test_split: 5}]", "0.dataset_test_split"), ("[./blank.jsonl]", "0"),
    ("[{dataset_name: ./held.jsonl, dataset_format: zz}]", "0.dataset_format"), ("[./numbers.jsonl]", "0"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "key"), EVALUATION_SETS)
def test_an_evaluation_set_that_cannot_be_used_is_named(recipe, tmp_path, value, key):
    put(tmp_path / "held.jsonl", [{"question": "1+1?"}]), put(tmp_path / "other.jsonl", [{"text": "1+1?"}])
    put(tmp_path / "blank.jsonl", [{"question": ""}]), put(tmp_path / "numbers.jsonl", [{"question": 5}])
    said = refused(lambda: prepared(recipe(adds(4), f"decontaminate: {value}\n")))
    assert said.startswith(f"{tmp_path}/r.yaml:4: decontaminate.{key}: ")


def test_evaluation_sets_of_one_name_do_not_hide_each_other_and_are_inputs_of_the_run(recipe, tmp_path):
    put(tmp_path / "held.jsonl", [{"question": "1+1?"}])
    listed = [f"{{dataset_name: ./held.jsonl, {more}}}" for more in ("dataset_config: a", "dataset_format: math")]
    made = recipe(adds(4), f"decontaminate: [./held.jsonl, {', '.join(listed)}]\n")
    found = input_sources(made, [])
    assert found["decontaminate 1"] == str(tmp_path / "held.jsonl") and "decontaminate format 3" in found
    made.values["decontaminate"][2] = "./held.jsonl"
    wanted = {"./held.jsonl:test": ["1+1?"] * 2, "./held.jsonl/a:test": ["1+1?"]}
    assert evaluation_questions(row_options(made)) == wanted


@pytest.mark.parametrize(
    "row", [{"Body": "Ann has 5 plums.", "Question": "How many?"}, {"instruction": "Add.", "input": "5 plums and 1"}]
)
def test_a_question_in_two_columns_is_both(recipe, tmp_path, row):
    put(tmp_path / "held.jsonl", [row, {**row, next(iter(row)): None}])
    whole, part = " ".join(row.values()), [*row.values()][1]
    assert evaluation_questions(row_options(recipe(adds(4), "decontaminate: [./held.jsonl]\n"))) == {
        "./held.jsonl:test": [whole, part]
    }


@pytest.mark.parametrize("kind", ["file", "saved", "sampled"])
def test_the_training_rows_are_not_held_out(recipe, tmp_path, kind):
    made = recipe(adds(12))
    datasets.Dataset.from_list(adds(12)).save_to_disk(tmp_path / "saved")
    (tmp_path / "sampled").mkdir()
    put(tmp_path / "sampled" / "sft.jsonl", adds(12))
    made.values["dataset_name"] = {"file": "./rows.jsonl"}.get(kind, f"./{kind}")
    assert f"{TEST}: found test, but" in refused(lambda: prepared(made, split=TEST))
    if kind != "saved":
        made.values |= {"dataset_train_split": "train[:9]", TEST: "train[9:]"}
        assert len(prepared(made, split=TEST).rows) == 3


def test_what_is_held_out_is_measured_as_it_is(recipe, tmp_path):
    put(tmp_path / "bench.jsonl", adds(4))
    splits = "dataset_train_split: train[:4]\ndataset_test_split: train[:4]\n"
    made = recipe(adds(8), f"decontaminate: [./bench.jsonl]\n{splits}")
    assert prepared(made, split=TEST).rows.num_rows == 4
    assert "no row is left" in refused(lambda: prepared(made))


def test_a_format_that_is_not_set_is_the_data_sets_fault(recipe):
    said = refused(lambda: prepared(recipe([{"text": "x"}])))
    assert "dataset_name: prompt_completion needs the column prompt" in said and "dataset_format or rename" in said


# Formats of users.


def own(tmp_path, body):
    """Format rows with a function of a file."""
    put(tmp_path / "own.py", f"def own(row):\n    n = int(row['answer'])\n    {body}\n")
    return format_rows(datasets.Dataset.from_list(adds(450)), find_format("./own.py", tmp_path))


ROW = "made = {'prompt': row['prompt'], 'completion': 'x', 'more': %s}; return made"
BAD = ["1 / 0", "'abc'", "{'prompt': None}", "{'prompt': []}", "{'prompt': [{'content': 'a'}]}"]
MORE = ["'hard' if n > 700 else 1", "'hard' if n > 3 else 1", "['x'] if n > 3 else 'x'", "object()", "'\\ud83d'"]
BAD = [(f"return {value}", "row 0 does not fit own: ") for value in BAD] + [(ROW % value, "more: ") for value in MORE]


@pytest.mark.parametrize(("body", "said"), BAD)
def test_a_format_that_goes_wrong_is_one_line(tmp_path, body, said):
    assert said in refused(lambda: own(tmp_path, body))


def test_a_format_whose_file_cannot_be_imported_is_named(tmp_path):
    put(tmp_path / "own.py", "import no_such_module\ndef own(row):\n    return row\n")
    with pytest.raises(DataError, match=r"own\.py:\d+ failed: ModuleNotFoundError: No module named 'no_such_module'"):
        format_rows(datasets.Dataset.from_list(adds(2)), find_format("./own.py", tmp_path))


LATE = [("'x'", "None"), ("['x']", "[]"), ("{'a': 'x'}", "{'a': None}"), ("5", "None"), ("2.5", "1")]


@pytest.mark.parametrize(("late", "early"), LATE)
def test_a_value_and_a_column_may_come_late(tmp_path, late, early):
    made = own(tmp_path, ROW % f"{late} if n > 700 else {early}")["more"]
    assert made[449] == ast.literal_eval(late) and made[0] == ast.literal_eval(early)


def test_a_column_may_come_late(tmp_path):
    made = own(tmp_path, "return {'prompt': 'a', 'late': 1} if n > 700 else {'prompt': 'a'}")["late"]
    assert made[449] == 1 and made[0] is None


@pytest.mark.parametrize("empty", [None, {"a": None, "b": 1}])
def test_what_no_row_fills_goes_together_with_anything(tmp_path, empty):
    made = own(tmp_path, ROW % empty)
    other = datasets.Dataset.from_list([{**made[0], "more": {"a": "x", "b": 2} if empty else "x"}])
    assert datasets.concatenate_datasets([made, other])["more"][449:] == [empty, other[0]["more"]]
