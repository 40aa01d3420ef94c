"""Trace filters: each drops what it names, counts it, and keeps and counts what it cannot judge."""

import math

import pytest
from datasets import Dataset

from reasoning_ext.data import filters as trace_filters
from reasoning_ext.data.filters import TraceFilters, ends_in_loop, filter_traces, problem, repetition
from tests.timing import seconds, slowness

SENTENCE = "First we add the two numbers, then we look at the units and carry what is above nine to the next place. "
PROSE = " ".join(f"step{i} takes value{i * i} from place{i * 7}" for i in range(40))


def dataset(*completions, answers=None, prompts=None):
    columns = {
        "prompt": [[{"role": "user", "content": prompt}] for prompt in prompts or ["?"] * len(completions)],
        "completion": [[{"role": "assistant", "content": text}] for text in completions],
        "row": list(range(len(completions))),
    }
    return Dataset.from_dict(columns | ({"answer": answers} if answers else {}))


def kept(filters, *completions, count=None, **columns):
    return filter_traces(dataset(*completions, **columns), filters, count)[0]["row"]


def test_correct_keeps_right_answers_and_rows_without_a_gold():
    said = [r"\boxed{7}", "8", "9", r"\boxed{\frac{14}{2}}"]
    texts = [*(f"<think>a</think>{text}" for text in said), "<think>7", "7"]
    golds = ["7", "7", None, "7", "7", "forty two"]
    rows, records = filter_traces(dataset(*texts, answers=golds), TraceFilters(correct=True))
    counts = {"before": 6, "dropped": 3, "examples": [1, 4, 5], "no_gold": 1, "unjudged": 1}
    assert rows["row"] == [0, 2, 3] and records == [{"filter": "correct", **counts}]


def test_one_of_several_golds_is_enough_and_no_answers_at_all_are_no_golds():
    texts = ["<think>a</think>7", "<think>a</think>8", "<think>a</think>9", "<think>a</think>3"]
    golds = [["1", "7"], ["1", "7"], [], [" "]]
    rows, records = filter_traces(dataset(*texts, answers=golds), TraceFilters(correct=True))
    assert rows["row"] == [0, 2, 3] and records[0]["no_gold"] == 2
    assert filter_traces(dataset(*texts), TraceFilters(correct=True))[1][0]["no_gold"] == 4


def test_a_percentage_answers_a_question_for_per_cent_as_it_does_in_training():
    texts = [r"<think>a</think>\boxed{60\%}"] * 2
    prompts = ["What per cent?", "How many?"]
    assert kept(TraceFilters(correct=True), *texts, answers=["60", "60"], prompts=prompts) == [0]


def test_min_steps_keeps_what_has_no_arithmetic():
    texts = [f"<think>{thought}</think>1" for thought in ("3+4=7, 2*3=6", "3+4=7, 2*3=5", "hm", "3+4=8")]
    rows, records = filter_traces(dataset(*texts), TraceFilters(min_steps=0.5))
    assert rows["row"] == [0, 1, 2]
    assert records == [{"filter": "min_steps", "before": 4, "dropped": 1, "examples": [3], "not_applicable": 1}]
    assert kept(TraceFilters(min_steps=1.0), *texts) == [0, 2]
    assert filter_traces(dataset(*texts), TraceFilters(min_steps=0.0))[1][0]["dropped"] == 0


def test_length_is_counted_by_the_function_and_both_ends_are_allowed():
    texts = ["x" * n for n in (1, 2, 3, 4, 5)]
    assert kept(TraceFilters(min_tokens=2, max_tokens=4), *texts, count=len) == [1, 2, 3]
    _, records = filter_traces(dataset(*texts), TraceFilters(min_tokens=2, max_tokens=4), len)
    assert [(r["filter"], r["before"], r["dropped"]) for r in records] == [("min_tokens", 5, 1), ("max_tokens", 4, 1)]


def test_require_thought():
    texts = ["<think>a</think>b", "<think> \n</think>b", "<think>a", "b", "a</think>b"]
    assert kept(TraceFilters(require_thought=True), *texts) == [0, 4]


def test_language_by_its_share_and_text_without_letters_is_kept():
    texts = ["plain English", "слово слово", "1 + 1", "nine letters here Я", "only half слова тут"]
    rows, records = filter_traces(dataset(*texts), TraceFilters(language="latin"))
    assert rows["row"] == [0, 2, 3] and records[0]["not_applicable"] == 1 and records[0]["examples"] == [1, 4]
    assert kept(TraceFilters(language="cyrillic"), *texts) == [1, 2]


def test_repetition_is_the_share_of_words_in_repeated_ngrams():
    ten = "one two three four five six seven eight nine ten "
    assert repetition("") == repetition(ten) == repetition("one two " * 5) == repetition(PROSE) == 0.0
    assert repetition(ten * 2) == 0.5 and repetition(ten + "but " + ten) == pytest.approx(10 / 21)
    assert repetition(ten + "x y z " + ten[4:]) == 0.0  # nine words are no n-gram of ten
    assert repetition("哈" * 100) == pytest.approx(99 / 100) and repetition("a" * 20_000) > 0.95
    filters = TraceFilters(max_repetition=0.5)
    assert kept(filters, ten * 2, ten * 3, PROSE) == [0, 2]


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        (PROSE + " Wait, let me check again." * 9, True), (PROSE + " Wait, let me check again." * 9 + " Wait, le", True),
        (PROSE + " no" * 40, True), (PROSE + " no" * 38, False), (SENTENCE * 5, True), (SENTENCE * 4, False),
        (" no" * 100 + PROSE, False), (PROSE, False), ("", False), (PROSE + "ha" * 1000, True), ("再" * 50, True),
    ],
)  # fmt: skip
def test_a_loop_at_the_end(text, loops):
    assert ends_in_loop(text) is loops


def test_a_loop_is_dropped_whatever_its_share_also_at_the_end_of_the_thought():
    long = PROSE + " ".join(f" unit{i} of{i}" for i in range(3000))
    loop = long + " and so on" * 20
    texts = [loop, f"<think>{loop}</think>7", f"<think>{long}</think>7"]
    assert repetition(loop) < 0.1 and kept(TraceFilters(max_repetition=1.0), *texts) == [2]


def test_filters_run_cheap_ones_first_and_each_sees_what_is_left(monkeypatch):
    monkeypatch.setattr(trace_filters, "_BATCH", 2)
    good = "<think>3+4=7</think>7"
    texts = ["7", "<think>3+4=7</think>8", good, "<think>3+4=8</think>7", "<think>слово</think>7", *["7"] * 4, good]
    filters = TraceFilters(True, 0.5, 1, 1000, 0.9, "latin", True)
    rows, records = filter_traces(dataset(*texts, answers=["7"] * 10), filters, len)
    names = ["require_thought", "min_tokens", "max_tokens", "language", "max_repetition", "min_steps", "correct"]
    assert rows["row"] == [2, 9] and [r["filter"] for r in records] == names
    assert [r["before"] for r in records] == [10, 5, 5, 5, 4, 4, 3]
    assert records[0]["dropped"] == 5 and records[0]["examples"] == [0, 5, 6] and records[6]["examples"] == [1]
    assert sum(r["dropped"] for r in records) == len(texts) - len(rows)


WRONG = [
    {"min_steps": 1.5},
    {"max_repetition": -0.1},
    {"max_repetition": math.nan},
    {"min_tokens": 0},
    {"max_tokens": 1.5},
]
WRONG += [{"min_tokens": 9, "max_tokens": 8}, {"language": "klingon"}, {"correct": "yes"}]


@pytest.mark.parametrize("values", WRONG)
def test_values_that_are_not_allowed(values):
    name, found, _ = problem(TraceFilters(**values))
    assert name == next(iter(values)) and str(values[name]) in found


def test_what_is_off_or_at_an_end_is_allowed_and_a_missing_completion_is_refused():
    assert problem(TraceFilters(True, 0, 1, 1, 1, "latin+greek", True)) is None
    rows = dataset("", "x")
    assert filter_traces(rows, TraceFilters()) == (rows, [])
    with pytest.raises(ValueError, match="no column completion"):
        filter_traces(rows.remove_columns("completion"), TraceFilters(correct=True))


@pytest.mark.parametrize("unit", ["ab", "a ", "a a b ", "<think>", "</think>", "再", "1+1=2 ", "a" * 100 + "b "])
def test_a_long_trace_takes_linear_time(unit):
    rows = dataset(unit * (100_000 // len(unit)))
    filters = TraceFilters(False, 0.5, None, None, 0.5, "latin", True)
    assert seconds(lambda: filter_traces(rows, filters), repeat=1) < 2.5 * slowness()
