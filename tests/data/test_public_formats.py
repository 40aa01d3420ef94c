"""Formats of public data sets: rows of the real shape in data/formats, one file a set."""

import datasets
import pytest

from reasoning_ext import think
from reasoning_ext.data.columns import DataError
from reasoning_ext.data.format import find_format, format_names, format_rows
from reasoning_ext.data.sources import load_rows
from tests.rows import FIXTURES, made_of
from tests.timing import seconds, slowness

SFT = ["prompt", "completion", "answer"]
TRACE = "\n\n  First 6*7:\tit is 42. \n\nWait… 7*6 = 42 \\boxed{41}? No.  \n"  # a thought of many of the files
PROMPTED = ["prompt", "answer"]
PUBLIC = [  # file, format, rows left out, columns that come out, golds
    ("numina_cot", "numina", 0, [*SFT, "source"], ["42", r"\frac{3}{2}", None]),
    ("numina_1_5", "numina", 3, [*SFT, "source", "problem_type", "question_type"], ["1000", None, None, "B"]),
    ("openr1_math", "open_r1", 1, [*SFT, "source", "problem_type", "question_type"], ["42", "1", "9", r"\frac{8}{2}"]),
    ("mixture_of_thoughts", "open_r1", 2, ["prompt", "completion", "num_tokens", "source"], None),
    ("open_thoughts_114k", "open_thoughts", 1, ["prompt", "completion"], None),
    ("open_thoughts_3", "open_thoughts", 1, ["prompt", "completion", "source", "domain", "difficulty"], None),
    ("s1k", "s1k", 0, [*SFT, "cot_type", "source_type"], ["128", r"\frac{1}{4}"]),
    ("s1k_1_1", "s1k", 0, [*SFT, "cot_type", "source_type"], ["128", None]),
    ("deepscaler", "deepscaler", 0, PROMPTED, ["15", r"\frac{2}{3}"]),
    ("dapo_math", "dapo_math", 0, [*PROMPTED, "data_source", "ability"], ["34", "-2", "7"]),
    ("dapo_processed", "dapo_math", 0, [*PROMPTED, "data_source", "ability"], ["34", "-2"]),
    ("countdown", "countdown", 0, [*PROMPTED, "target", "nums"], ["65", "24"]),
    ("aimo_validation", "aime", 0, SFT, ["33", "0"]),
    ("aime_2024", "aime", 0, SFT, ["204", "25"]),
    ("aime_2024_capitals", "aime", 0, SFT, ["204", "25"]),
    ("aime25", "aime", 0, PROMPTED, ["70", "336"]),
    ("gpqa", "gpqa", 0, [*PROMPTED, "choices", "High-level domain", "Subdomain"], None),
    ("mmlu", "mmlu", 0, [*PROMPTED, "choices", "subject"], None),
    ("mmlu_pro", "mmlu", 0, [*PROMPTED, "choices", "category"], None),
    ("sharegpt", "sharegpt", 2, ["prompt", "completion", "id"], None),
    ("alpaca", "alpaca", 1, ["prompt", "completion"], None),
    ("multilingual_thinking", "messages", 0, ["prompt", "completion", "reasoning_language"], None),
    ("message_parts", "messages", 0, ["prompt", "completion"], None),
]


def raw(name):
    return load_rows(str(FIXTURES / "formats" / f"{name}.jsonl"), None)


def function(format_name):
    return find_format(format_name, None).load()


def kept_of(name, format_name, **options):
    """Return how many rows of a file a format leaves out, and what becomes of the others."""
    dropped = []
    made = format_rows(raw(name), find_format(format_name, None), options=options, dropped=dropped)
    return len(dropped), list(made)


def completions(name, format_name):
    return [think.content(row["completion"]) for row in kept_of(name, format_name)[1]]


def asked(name, format_name):
    """Return the last message of every prompt."""
    return [row["prompt"][-1]["content"] for row in kept_of(name, format_name)[1]]


@pytest.mark.parametrize(("name", "format_name", "dropped", "columns", "golds"), PUBLIC, ids=[row[0] for row in PUBLIC])
def test_public_rows_come_out_in_trls_columns(name, format_name, dropped, columns, golds):
    count, made = kept_of(name, format_name)
    assert count == dropped and len(made) == len(raw(name)) - dropped
    for row in made:
        assert sorted(row) == sorted(columns)
        assert row["prompt"][-1]["role"] == "user" and row["prompt"][-1]["content"].strip()
        if "completion" in columns:
            assert [message["role"] for message in row["completion"]] == ["assistant"]
            assert think.content(row["completion"]).strip()
    if golds is not None:
        assert [row["answer"] for row in made] == golds


@pytest.mark.parametrize("gold", [gold for row in PUBLIC for gold in row[4] or () if gold is not None])
def test_public_golds_are_readable(gold):
    from reasoning_ext.verifier import judge, read_gold

    assert read_gold(gold) is not None
    assert judge(gold, rf"It is $\boxed{{{gold}}}$.").right is True


COMPLETIONS = [  # file, format, row, its completion
    ("openr1_math", "open_r1", 0, f"<think>{TRACE}</think>\n\nThe answer is $\\boxed{{42}}$. "),
    ("mixture_of_thoughts", "open_r1", 0, f"<think>{TRACE}</think>\n```python\nprint(42)\n```\n"),
    ("open_thoughts_114k", "open_thoughts", 0, f"<think>{TRACE}</think>\n\nIt is \\boxed{{42}}."),
    ("open_thoughts_3", "open_thoughts", 0, f"<think>{TRACE}</think>\n\n42"),
    ("s1k", "s1k", 0, f"<think>\n{TRACE}\n</think>\n\nIt is 128. \n"),
    ("s1k_1_1", "s1k", 0, f"<think>\n{TRACE}\n</think>\n\n128 (d)"),
    ("multilingual_thinking", "messages", 0, f"<think>\n{TRACE}\n</think>\n\n42 "),
    ("message_parts", "messages", 0, f"<think>\n{TRACE}\n</think>\n\n42"),
    ("numina_cot", "numina", 1, "First $\\boxed{3}$, halved it is $\\boxed{\\frac{3}{2}}$. \n"),
    ("open_thoughts_114k", "open_thoughts", 1, "Five."), ("open_thoughts_3", "open_thoughts", 1, "54"),
    ("message_parts", "messages", 1, "It is 48"), ("sharegpt", "sharegpt", 0, " 42 \n"), ("alpaca", "alpaca", 0, " 13\n"),
    ("aime_2024", "aime", 1, r"It is $\boxed{025}$."), ("aime_2024_capitals", "aime", 1, r"It is $\boxed{025}$."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "format_name", "index", "text"), COMPLETIONS)
def test_a_completion_and_its_trace_are_kept_to_the_character(name, format_name, index, text):
    assert completions(name, format_name)[index] == text
    assert think.well_formed(text) is (index == 0 and TRACE in text)


def test_open_r1_takes_the_first_whole_generation_that_math_verify_or_else_llama_found_right():
    _, second, third, last = completions("openr1_math", "open_r1")
    assert second == "<think>\none  \n</think>\n\nThe answer is $\\boxed{1.0}$. "  # by Llama
    assert third.startswith("<think>\nmath\n</think>")  # Llama's choice stands before it
    assert last == "<think>\nfour\n</think>\n4"  # the opening tag was the template's
    for change in (
        {"correctness_llama": None, "correctness_math_verify": None},
        {"is_reasoning_complete": [True, False]},
    ):
        assert function("open_r1")({**raw("openr1_math")[1], **change}) is None


def test_open_thoughts_leaves_the_system_prompt_about_its_marks_away_and_no_other():
    _, made = kept_of("open_thoughts_114k", "open_thoughts")
    assert [[message["role"] for message in row["prompt"]] for row in made] == [["user"], ["system", "user"]]
    assert made[1]["prompt"][0]["content"] == "Be brief."


UNFINISHED = ["{b}six{e}6", "{b}six{e}{s}6", "{b}six{e} so {s}6{t}", "{b}six{e}{s} {t}", "{b}six{s}6{t}", "<think>6"]
UNFINISHED += ["<think>6</think> ", "So {b}six{e}{s}6{t}", "{b} {e}{s} {t}", "{b}{s}6{t}"]


@pytest.mark.parametrize("value", UNFINISHED)
def test_open_thoughts_leaves_unfinished_rows_out(value):
    marks = {"b": "<|begin_of_thought|>", "e": "<|end_of_thought|>"}
    marks |= {"s": "<|begin_of_solution|>", "t": "<|end_of_solution|>"}
    turns = [{"from": "user", "value": "3+3?"}, {"from": "assistant", "value": value.format(**marks)}]
    assert function("open_thoughts")({"conversations": turns}) is None


def test_a_flood_of_marks_does_not_take_long():
    flood = "<|begin_of_thought|>" + "<|end_of_thought|> <|begin_of_solution|>" * 20_000
    row = {"conversations": [{"from": "user", "value": "3+3?"}, {"from": "assistant", "value": flood}]}
    assert seconds(lambda: function("open_thoughts")(row)) < 0.2 * slowness()  # 2 ms


def test_s1k_takes_the_trace_of_the_model_that_is_asked_for():
    made = kept_of("s1k_1_1", "s1k", model="gemini")[1][0]
    assert think.content(made["completion"]) == "<think>\ngemini: 128\n</think>\n\n128 (g)"
    with pytest.raises(ValueError, match="found the model llama, allowed: deepseek, gemini"):
        function("s1k")(raw("s1k_1_1")[0], model="llama")


def test_deepscalers_solutions_are_completions_where_they_are_asked_for():
    dropped, [row] = kept_of("deepscaler", "deepscaler", solutions=True)
    assert dropped == 1 and row["answer"] == r"\frac{2}{3}"
    assert think.content(row["completion"]) == r"Two thirds, $\boxed{\frac{2}{3}}$. "


def test_dapos_sentences_are_taken_from_around_the_question_unless_they_are_asked_for():
    questions = ["Let $x=5$.\n\nFind $x^2+9$.", "What is $3-5$?"]
    assert asked("dapo_math", "dapo_math") == [*questions, "A question of its own?"]
    assert asked("dapo_processed", "dapo_math") == questions
    row = raw("dapo_math")[0]
    assert kept_of("dapo_math", "dapo_math", instructions=True)[1][0]["prompt"] == row["prompt"]
    longer = [{"role": "user", "content": row["prompt"][0]["content"] + " Be brief."}]
    assert function("dapo_math")({**row, "prompt": longer})["prompt"] == longer


def test_turns_of_every_role_become_messages():
    _, [first, second] = kept_of("sharegpt", "sharegpt")
    assert [message["role"] for message in first["prompt"]] == ["user", "assistant", "user"]
    assert second["prompt"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]
    row = {"system": "Count.", "conversations": [{"from": "human", "value": "1"}, {"from": "gpt", "value": "2"}]}
    [made] = made_of(row, format_name="sharegpt")
    assert sorted(made) == ["completion", "prompt"] and made["prompt"][0] == {"role": "system", "content": "Count."}


def test_parts_and_reasoning_of_messages_become_one_text():
    _, [first, second] = kept_of("message_parts", "messages")
    assert first["prompt"] == [{"role": "user", "content": "6*7?"}]
    assert [message["content"] for message in second["prompt"]] == ["6*8?", "48", "So?"]
    assert asked("alpaca", "alpaca") == ["Add the numbers.\n\n6, 7", "Name a prime."]


CHOICES = [("gpqa", "gpqa", ["newton", "electron", "3"]), ("mmlu_pro", "mmlu", ["17", "helium"])]
CHOICES += [("mmlu", "mmlu", ["5", "Rome", "Both A and B"])]


@pytest.mark.parametrize(("name", "format_name", "right"), CHOICES)
def test_the_gold_letter_stands_before_the_right_option(name, format_name, right):
    from reasoning_ext.rewards.choice_answer import choice_answer

    for seed in range(3):
        _, made = kept_of(name, format_name, seed=seed)
        assert [row["choices"]["ABCDEFGHIJ".index(row["answer"])] for row in made] == right
        for row, text in zip(made, right, strict=True):
            assert f"\n{row['answer']}. {text}" in row["prompt"][0]["content"]
            assert row["prompt"][0]["content"].count("\n") == len(row["choices"]) + 1
        letters = [row["answer"] for row in made]
        said = [rf"\boxed{{{letter}}}" for letter in letters]
        assert choice_answer(said, letters, choices=[row["choices"] for row in made]) == [1.0] * len(made)


@pytest.mark.parametrize(("name", "format_name", "right"), CHOICES)
def test_the_order_of_options_depends_on_seed_and_question_alone(name, format_name, right):
    rows, make = raw(name), find_format(format_name, None)
    ahead, back = (list(format_rows(rows.select(order), make)) for order in (range(len(rows)), range(len(rows))[::-1]))
    assert ahead == back[::-1]
    orders = [[tuple(make.load()(row, seed=seed)["choices"]) for row in rows] for seed in range(10)]
    assert len(set(map(tuple, orders))) > 3
    assert all({frozenset(order[i]) for order in orders} == {frozenset(orders[0][i])} for i in range(len(rows)))


def test_mmlu_keeps_the_order_where_it_is_asked_to_and_where_options_point_at_others():
    rows = raw("mmlu")
    kept = [function("mmlu")(row, shuffle=False, seed=seed) for seed in range(5) for row in rows]
    assert [row["choices"] for row in kept] == rows["choices"][:] * 5 and [row["answer"] for row in kept] == [
        *"BAC"
    ] * 5
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
    ("alpaca", "alpaca", {"instruction": ""}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "format_name", "change"), BAD_PUBLIC)
def test_a_public_row_that_does_not_fit_is_named_with_its_column(name, format_name, change):
    with pytest.raises(DataError) as error:
        made_of({**raw(name)[0], **change}, format_name=format_name)
    said = str(error.value)
    assert said.startswith(f"row 0 does not fit {format_name}: ") and f"column {next(iter(change))}" in said


MISSING = [
    ("numina", "solution"),
    ("open_r1", "messages"),
    ("open_thoughts", "conversations"),
    ("s1k", "deepseek_thinking_tra"),
]
MISSING += [("deepscaler", "problem"), ("dapo_math", "prompt"), ("countdown", "target"), ("aime", "problem")]
MISSING += [("gpqa", "Correct Answer"), ("mmlu", "choices"), ("sharegpt", "conversations"), ("alpaca", "instruction")]


@pytest.mark.parametrize(("format_name", "column"), MISSING)
def test_a_missing_column_of_a_public_set_is_named(format_name, column):
    with pytest.raises(DataError, match=f"{format_name} needs the column {column}.*; the data set has text"):
        made_of({"text": "6 * 7"}, format_name=format_name)


def test_each_format_is_documented_and_tried_here():
    assert {row[1] for row in PUBLIC} | {"gsm8k", "math", "preferences", "prompt_completion"} == set(format_names())
    assert all(function(name).__doc__ for name in format_names())


def test_a_class_label_is_not_taken_for_the_gold():
    kinds = {"question": datasets.Value("string"), "choices": [datasets.Value("string")]}
    features = datasets.Features(kinds | {"answer": datasets.ClassLabel(names=list("ABCD"))})
    rows = datasets.Dataset.from_list(
        [{"question": "2+2?", "choices": ["3", "4", "5", "6"], "answer": 1}], features=features
    )
    [made] = format_rows(rows, find_format("mmlu", None), options={"shuffle": False})
    assert made["answer"] == "B"
