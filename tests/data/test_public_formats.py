"""Formats of public data sets: rows of the real shape in fixtures/formats, one file a set, and what becomes of them."""

import json

import datasets
import pytest
from reasoning_ext.rewards.choice_answer import choice_answer

from reasoning_ext import think
from reasoning_ext.data.columns import DataError
from reasoning_ext.data.format import find_format, format_names, format_rows
from reasoning_ext.data.sources import load_rows
from reasoning_ext.verifier import judge, read_gold
from tests.rows import FIXTURES, made_of

# Every row as it comes out, to the character: file, format, its options, the rows left out, the others
EXPECTED = [json.loads(line) for line in (FIXTURES / "expected_formats.jsonl").read_text(encoding="utf-8").splitlines()]
IDS = [f"{one['file']} {one['options'] or ''}" for one in EXPECTED]
GOLDS = {row["answer"]: None for one in EXPECTED for row in one["rows"] if row.get("answer") and "choices" not in row}


def raw(name):
    return load_rows(str(FIXTURES / "formats" / f"{name}.jsonl"), None)


def function(format_name):
    return find_format(format_name, None).load()


@pytest.mark.parametrize("one", EXPECTED, ids=IDS)
def test_public_rows_come_out_in_trls_columns_to_the_character(one):
    dropped = []
    made = format_rows(raw(one["file"]), find_format(one["format"], None), options=one["options"], dropped=dropped)
    assert list(made) == one["rows"] and dropped == one["dropped"]
    assert all(row["prompt"][-1]["role"] == "user" for row in made)
    completions = [think.content(row["completion"]) for row in made if row.get("completion")]
    assert all(text.strip() and (think.OPEN not in text or think.well_formed(text)) for text in completions)


@pytest.mark.parametrize("gold", GOLDS)
def test_public_golds_are_readable(gold):
    assert read_gold(gold) is not None
    assert judge(gold, rf"It is $\boxed{{{gold}}}$.").right is True


def test_open_r1_leaves_out_what_no_judge_found_right_and_whole():
    row = raw("openr1_math")[1]
    assert function("open_r1")({**row, "correctness_llama": None, "correctness_math_verify": None}) is None
    assert function("open_r1")({**row, "is_reasoning_complete": [True, False]}) is None


UNFINISHED = ["{b}six{e}6", "{b}six{e}{s}6", "{b}six{e} so {s}6{t}", "{b}six{e}{s} {t}", "{b}six{s}6{t}", "<think>6"]
UNFINISHED += ["<think>6</think> ", "So {b}six{e}{s}6{t}", "{b} {e}{s} {t}", "{b}{s}6{t}"]


@pytest.mark.parametrize("value", UNFINISHED)
def test_open_thoughts_leaves_unfinished_rows_out(value):
    marks = {"b": "<|begin_of_thought|>", "e": "<|end_of_thought|>"}
    marks |= {"s": "<|begin_of_solution|>", "t": "<|end_of_solution|>"}
    turns = [{"from": "user", "value": "3+3?"}, {"from": "assistant", "value": value.format(**marks)}]
    assert function("open_thoughts")({"conversations": turns}) is None


def test_dapos_sentences_stay_where_more_follows():
    row = raw("dapo_math")[0]
    longer = [{"role": "user", "content": row["prompt"][0]["content"] + " Be brief."}]
    assert function("dapo_math")({**row, "prompt": longer})["prompt"] == longer


def test_a_system_prompt_of_its_own_column_stands_in_front():
    row = {"system": "Count.", "conversations": [{"from": "human", "value": "1"}, {"from": "gpt", "value": "2"}]}
    [made] = made_of(row, format_name="sharegpt")
    assert sorted(made) == ["completion", "prompt"] and made["prompt"][0] == {"role": "system", "content": "Count."}


CHOICES = {"gpqa": ["newton", "electron", "3"], "mmlu_pro": ["17", "helium"], "mmlu": ["5", "Rome", "Both A and B"]}


@pytest.mark.parametrize("name", CHOICES)
def test_the_gold_letter_stands_before_the_right_option_whose_place_depends_on_seed_and_question_alone(name):
    rows, make = raw(name), find_format(name.removesuffix("_pro"), None)
    for one in (one for one in EXPECTED if one["file"] == name):
        letters, choices = [row["answer"] for row in one["rows"]], [row["choices"] for row in one["rows"]]
        assert choice_answer([rf"\boxed{{{letter}}}" for letter in letters], letters, choices=choices) == [1.0] * len(
            rows
        )
        for row, text in zip(one["rows"], CHOICES[name], strict=True):
            assert f"\n{row['answer']}. {text}" in row["prompt"][0]["content"]
    ahead, back = (list(format_rows(rows.select(order), make)) for order in (range(len(rows)), range(len(rows))[::-1]))
    assert ahead == back[::-1]
    orders = {tuple(tuple(make.load()(row, seed=seed)["choices"]) for row in rows) for seed in range(10)}
    assert len(orders) > 3 and len({tuple(map(frozenset, order)) for order in orders}) == 1


def test_mmlu_keeps_the_order_where_options_point_at_others():
    rows = raw("mmlu")
    for option in ("All of the above", "none of these", "A and B", "Neither A nor C", "A, and D", "B only"):
        row = {**rows[0], "choices": [*rows[0]["choices"][:3], option]}
        assert all(function("mmlu")(row, seed=seed)["choices"] == row["choices"] for seed in range(10))
    free = {**rows[0], "choices": ["Vitamin C and iron", "a and b", "DNA and RNA", "both of us"]}
    assert len({tuple(function("mmlu")(free, seed=seed)["choices"]) for seed in range(10)}) > 1


BAD_PUBLIC = [  # file, format, the column that makes its first row a misfit
    ("numina_cot", "numina", {"problem": " "}), ("openr1_math", "open_r1", {"generations": []}),
    ("openr1_math", "open_r1", {"is_reasoning_complete": [True]}),
    ("openr1_math", "open_r1", {"correctness_math_verify": [True]}), ("openr1_math", "open_r1", {"problem": None}),
    ("mixture_of_thoughts", "open_r1", {"messages": []}), ("open_thoughts_3", "open_thoughts", {"conversations": []}),
    ("open_thoughts_3", "open_thoughts", {"conversations": [{"from": "tool", "value": "1"}]}),
    ("s1k", "s1k", {"attempt": ""}), ("s1k", "s1k", {"thinking_trajectories": []}),
    ("s1k_1_1", "s1k", {"deepseek_thinking_trajectory": None}), ("deepscaler", "deepscaler", {"answer": " "}),
    ("deepscaler", "deepscaler", {"problem": None}), ("dapo_math", "dapo_math", {"reward_model": {"ground_truth": ""}}),
    ("dapo_math", "dapo_math", {"prompt": []}), ("dapo_processed", "dapo_math", {"solution": ""}),
    ("countdown", "countdown", {"target": "65"}), ("countdown", "countdown", {"nums": [1.5, 2.0]}),
    ("countdown", "countdown", {"nums": []}), ("aime25", "aime", {"answer": "x+1"}),
    ("aime_2024_capitals", "aime", {"Answer": 1000}), ("aime_2024_capitals", "aime", {"Solution": ""}),
    ("gpqa", "gpqa", {"Incorrect Answer 2": None}), ("mmlu", "mmlu", {"answer": 4}),
    ("mmlu_pro", "mmlu", {"answer": "K"}), ("mmlu_pro", "mmlu", {"options": ["x"] * 27}),
    ("mmlu", "mmlu", {"question": 3}), ("sharegpt", "sharegpt", {"conversations": [{"role": "user"}]}),
    ("alpaca", "alpaca", {"instruction": ""}), ("gsm8k_socratic", "gsm8k", {"answer": None}),
    ("gsm8k_socratic", "gsm8k", {"question": None}), ("math500", "math", {"problem": None}),
    ("math500", "math", {"solution": None, "answer": None}), ("svamp", "svamp", {"Answer": None}),
    ("svamp_hub", "svamp", {"Answer": ""}), ("svamp_hub", "svamp", {"Body": None}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "format_name", "change"), BAD_PUBLIC)
def test_a_public_row_that_does_not_fit_is_named_with_its_column(name, format_name, change):
    with pytest.raises(DataError, match=rf"^row 0 does not fit {format_name}: .*column {next(iter(change))}"):
        made_of({**raw(name)[0], **change}, format_name=format_name)


MISSING = [
    ("numina", "solution"),
    ("open_r1", "messages"),
    ("open_thoughts", "conversations"),
    ("s1k", "deepseek_thinking_tra"),
]
MISSING += [("deepscaler", "problem"), ("dapo_math", "prompt"), ("countdown", "target"), ("aime", "problem")]
MISSING += [
    ("gpqa", "Correct Answer"),
    ("mmlu", "choices"),
    ("sharegpt", "conversations"),
    ("alpaca", "instruction"),
    ("svamp", "Body"),
]


@pytest.mark.parametrize(("format_name", "column"), MISSING)
def test_a_missing_column_of_a_public_set_is_named(format_name, column):
    with pytest.raises(DataError, match=f"{format_name} needs the column {column}.*; the data set has text"):
        made_of({"text": "6 * 7"}, format_name=format_name)


def test_each_format_is_documented_and_tried_here():
    plain = {"gsm8k", "math", "preferences", "prompt_completion"}
    assert {one["format"] for one in EXPECTED} | plain == set(format_names())
    assert all(function(name).__doc__ for name in format_names())


def test_a_class_label_is_not_taken_for_the_gold():
    kinds = {"question": datasets.Value("string"), "choices": [datasets.Value("string")]}
    features = datasets.Features(kinds | {"answer": datasets.ClassLabel(names=list("ABCD"))})
    rows = datasets.Dataset.from_list(
        [{"question": "2+2?", "choices": ["3", "4", "5", "6"], "answer": 1}], features=features
    )
    [made] = format_rows(rows, find_format("mmlu", None), options={"shuffle": False})
    assert made["answer"] == "B"
