"""Mixtures: which rows of which entry come out, in which order, and what is said about entries that are wrong."""

import pytest

from reasoning_ext.data.row_options import row_options
from reasoning_ext.data.rows import read_rows
from reasoning_ext.errors import KeyProblem, UserError
from reasoning_ext.recipe.load import load_recipe
from tests.rows import put


def rows(count, start=0, **more):
    numbers = range(start, start + count)
    return [{"prompt": f"{i}?", "completion": f"<think>{i}</think>{i}", "answer": str(i), **more} for i in numbers]


FILES = {
    "a": rows(12),
    "b": rows(8, 100),
    "plain": [{"prompt": f"{i}?", "completion": "hello"} for i in range(200, 204)],
    "lists": [{**row, "answer": [row["answer"], "x"]} for row in rows(5, 300)],
    "numbers": [{**row, "answer": int(row["answer"])} for row in rows(5, 400)],
    "text_level": rows(5, 500, level="hard"),
    "number_level": rows(5, 600, level=3),
    "unanswered": [{"prompt": f"{i}?", "answer": "1"} for i in range(700, 704)],
}
GRPO = "reward_funcs: [think_format]\nnum_generations: 2\nper_device_train_batch_size: 2\n"
STREAM = "dataset_streaming: true\n"


@pytest.fixture
def mixture(tmp_path, write_recipe):
    """Return a function from entries in YAML to the rows of their mixture; errors are placed as a stage does it."""
    for name, content in FILES.items():
        put(tmp_path / f"{name}.jsonl", content)
    for split, count in (("train", 8), ("test", 2)):
        put(tmp_path / "data" / f"{split}.jsonl", rows(count))

    def read(*listed, more="", stage="sft", text="", **options):
        listed = "datasets:\n" + "".join(f"  - {{dataset_name: ./{entry}}}\n" for entry in listed)
        more = more + (GRPO if stage == "grpo" else "")
        recipe = load_recipe(write_recipe(f"stage: {stage}\noutput_dir: out\n{text or listed}{more}"))
        try:
            return read_rows(row_options(recipe), **options)
        except KeyProblem as error:
            raise UserError(recipe.placed(error)) from error

    return read


def asked(mixed):
    """Return the number that each row asks for."""
    return [int(row["prompt"][-1]["content"][:-1]) for row in mixed]


def shares(mixed):
    """Return how many rows come from each hundred."""
    return {hundred: sum(n // 100 == hundred for n in asked(mixed)) for hundred in {n // 100 for n in asked(mixed)}}


SHARES = [  # what the two entries say, how many rows come from each
    ("", "", {0: 12, 1: 8}), (", weight: 3", ", weight: 1", {0: 12, 1: 4}), (", weight: 1", ", weight: 1", {0: 8, 1: 8}),
    (", weight: 1", ", weight: 2", {0: 4, 1: 8}), (", weight: 1", ", weight: 1000000", {0: 1, 1: 8}),
    (", num_rows: 5", ", num_rows: 8", {0: 5, 1: 8}),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second", "wanted"), SHARES)
def test_rows_come_once_shuffled_in_the_shares_that_are_asked_for_and_drawn_by_seed(mixture, first, second, wanted):
    def draw(seed):
        return asked(mixture(f"a.jsonl{first}", f"b.jsonl{second}", more=f"seed: {seed}\n"))

    found = draw(1)
    assert {h: sum(n // 100 == h for n in found) for h in wanted} == wanted and len(set(found)) == len(found)
    assert found == draw(1) != draw(2) and found != sorted(found)
    assert wanted[0] != 5 or {n for n in found if n < 100} != {n for n in draw(2) if n < 100}


def test_limits_hold_for_the_mixture_a_look_takes_the_first_of_each_and_counts_are_those_to_train_on(mixture):
    assert len(mixture("a.jsonl", "b.jsonl", more="max_samples: 5\n")) == 5
    assert shares(mixture("a.jsonl, num_rows: 12", "b.jsonl", limit=3)) == {0: 3, 1: 3}
    assert len(mixture("data, num_rows: 5")) == 5 and len(mixture("data, num_rows: 5", split="dataset_test_split")) == 2


def test_tasks_and_system_prompts_belong_to_their_entries(mixture):
    listed = "a.jsonl, task: sums, system_prompt: Think.", "plain.jsonl, task: chat"
    for row in (mixed := mixture(*listed, more="system_prompt: Hi.\n")):
        number = int(row["prompt"][-1]["content"][:-1])
        wanted = ("sums", "Think.", str(number)) if number < 100 else ("chat", "Hi.", None)
        assert (row["task"], row["prompt"][0]["content"], row["answer"]) == wanted
        assert row["completion"][-1]["content"] == (f"<think>{number}</think>{number}" if number < 100 else "hello")
    assert len(mixed) == 16
    mixed = mixture("a.jsonl, task: sums, chat_template_kwargs: {enable_thinking: false}", "b.jsonl")
    assert {row["task"] for row in mixed} == {"sums", None}
    assert all(row["chat_template_kwargs"] == {"enable_thinking": False} for row in mixed if row["task"])


def test_columns_of_two_kinds_are_left_out_where_they_are_not_trained_on(mixture):
    golds = mixture("a.jsonl", "lists.jsonl", "plain.jsonl")["answer"]  # which `trace_filters` may ask for
    assert {type(gold) for gold in golds} == {list, type(None)}
    assert {type(gold) for gold in mixture("a.jsonl", "numbers.jsonl")["answer"]} == {str}
    assert "level" not in mixture("text_level.jsonl", "number_level.jsonl").column_names
    assert "level" in mixture("text_level.jsonl", "a.jsonl").column_names
    assert len(list(mixture("a.jsonl", "lists.jsonl", more=STREAM))) == 17
    for more in ("", STREAM):
        with pytest.raises(UserError, match=r"datasets: the .*column"):
            mixture("a.jsonl", "lists.jsonl", stage="grpo", more=more)


@pytest.mark.parametrize("own", [", dataset_streaming: true", ""])
def test_a_stream_beside_a_file_streams_every_row_once(mixture, own):
    mixed = mixture("a.jsonl, dataset_streaming: true", f"b.jsonl{own}")
    found = asked(mixed)
    assert not hasattr(mixed, "num_rows") and sorted(found) == [*range(12), *range(100, 108)]
    assert min(found.index(n) for n in range(100, 108)) < 12  # in turns, not one after the other


def test_row_counts_and_weights_of_streams(mixture):
    assert sorted(asked(mixture("a.jsonl, num_rows: 2", "b.jsonl, num_rows: 3", more=STREAM))) == [0, 1, 100, 101, 102]
    found, again = (asked(mixture("a.jsonl, weight: 1", "b.jsonl, weight: 19", more=STREAM)) for _ in range(2))
    assert len(set(found)) == len(found) and sum(n < 100 for n in found) <= 3 and 107 in found and found == again
    assert len(asked(mixture("a.jsonl", "b.jsonl", more=STREAM + "max_samples: 5\n"))) == 5


WRONG = [  # entries, the key that is to blame, its line
    (["a.jsonl, wieght: 3"], "datasets.0.wieght", 4), (["a.jsonl", "b.jsonl, num_rows: 9"], "datasets.1.num_rows", 5),
    (["a.jsonl, num_rows: 0"], "datasets.0.num_rows", 4), (["a.jsonl, weight: .nan"], "datasets.0.weight", 4),
    (["a.jsonl, num_rows: 1.5"], "datasets.0.num_rows", 4), (["a.jsonl, weight: 1", "b.jsonl"], "datasets.1", 5),
    (["a.jsonl, weight: 1, num_rows: 2"], "datasets.0.num_rows", 4), (["a.jsonl", "none.jsonl"], "datasets.1.dataset_name", 5),
    (["a.jsonl", "b.jsonl, dataset_format: gsm8k"], "datasets.1.dataset_format", 5),
    (["a.jsonl", "b.jsonl, rename_columns: {x: y}"], "datasets.1.rename_columns", 5),
    (["a.jsonl, rename_columns: {prompt: [1]}"], "datasets.0.rename_columns", 4),
    (["a.jsonl", "b.jsonl, format_kwargs: {x: 1}"], "datasets.1.format_kwargs", 5),
    (["a.jsonl", "b.jsonl, dataset_train_split: 'train[:x]'"], "datasets.1.dataset_name", 5),
    (["a.jsonl", "unanswered.jsonl"], "datasets.1.dataset_name", 5), (["a.jsonl"], "dataset_format", 5),
    ("datasets: []", "datasets", 3), ("datasets: [./a.jsonl]", "datasets.0", 3), ("datasets: [{num_rows: 3}]", "datasets.0", 3),
    ("datasets: [{5: 3}]", "datasets.0.5", 3), ("dataset_name: a.csv\ndatasets: [{dataset_name: a.csv}]", "dataset_name", 3),
]  # fmt: skip


@pytest.mark.parametrize(("listed", "key", "line"), WRONG)
def test_an_error_names_the_entry_and_its_line(mixture, tmp_path, listed, key, line):
    whole = {"text": f"{listed}\n"} if isinstance(listed, str) else {}
    with pytest.raises(UserError) as error:
        mixture(*([] if whole else listed), more="dataset_format: gsm8k\n" if key == "dataset_format" else "", **whole)
    assert str(error.value).startswith(f"{tmp_path}/r.yaml:{line}: {key}: ") and "\n" not in str(error.value)


def test_arguments_of_the_template_are_those_of_all_rows_where_prompts_are_answered(mixture):
    with pytest.raises(UserError, match="chat_template_kwargs: found in an entry"):
        mixture("a.jsonl, chat_template_kwargs: {x: 1}", stage="grpo")
