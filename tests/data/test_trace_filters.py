"""Trace filters: each drops what it names, counts it, and keeps and counts what it cannot judge."""

import math

import pytest
from datasets import Dataset

from reasoning_ext.data import filters as trace_filters
from reasoning_ext.data.filters import TraceFilters, ends_in_loop, filter_traces, problem, repetition
from tests.timing import seconds, slowness

SENTENCE = "First we add the two numbers, then we look at the units and carry what is above nine to the next place. "
PROSE = " ".join(f"step{i} takes value{i * i} from place{i * 7}" for i in range(40))
TEN = "one two three four five six seven eight nine ten "
LONG = PROSE + " ".join(f" unit{i} of{i}" for i in range(3000))
LOOP = LONG + " and so on" * 20


def dataset(*completions, answers=None, prompts=None):
    columns = {
        "prompt": [[{"role": "user", "content": prompt}] for prompt in prompts or ["?"] * len(completions)],
        "completion": [[{"role": "assistant", "content": text}] for text in completions],
        "row": list(range(len(completions))),
    }
    return Dataset.from_dict(columns | ({"answer": answers} if answers else {}))


def thought(*texts):
    return [f"<think>{text}</think>1" for text in texts]


SAID = [f"<think>a</think>{text}" for text in (r"\boxed{7}", "8", "9", r"\boxed{\frac{14}{2}}")]
STEPS = thought("3+4=7, 2*3=6", "3+4=7, 2*3=5", "hm", "3+4=8")
SCRIPTS = ["plain English", "слово слово", "1 + 1", "nine letters here Я", "only half слова тут"]
KEPT = [  # filters, completions and golds, the rows kept, what is counted apart
    ({"correct": True}, [*SAID, "<think>7", "7"], [*"77", None, *"77", "forty two"], [0, 2, 3], {"no_gold": 1, "unjudged": 1}),
    ({"correct": True}, SAID, [["1", "7"], ["1", "7"], [], [" "]], [0, 2, 3], {"no_gold": 2}),
    ({"correct": True}, SAID, None, [0, 1, 2, 3], {"no_gold": 4}),
    ({"min_steps": 0.5}, STEPS, None, [0, 1, 2], {"not_applicable": 1}), ({"min_steps": 1.0}, STEPS, None, [0, 2], {}),
    ({"min_steps": 0.0}, STEPS, None, [0, 1, 2, 3], {"not_applicable": 1}),
    ({"min_tokens": 2}, ["a", "ab", "abc"], None, [1, 2], {}), ({"max_tokens": 2}, ["a", "ab", "abc"], None, [0, 1], {}),
    ({"require_thought": True}, ["<think>a</think>b", "<think> \n</think>b", "<think>a", "b", "a</think>b"], None, [0, 4], {}),
    ({"language": "latin"}, SCRIPTS, None, [0, 2, 3], {"not_applicable": 1}),
    ({"language": "cyrillic"}, SCRIPTS, None, [1, 2], {}),
    ({"max_repetition": 0.5}, [TEN * 2, TEN * 3, PROSE], None, [0, 2], {}),
    ({"max_repetition": 1.0}, [LOOP, f"<think>{LOOP}</think>7", f"<think>{LONG}</think>7"], None, [2], {}),
]  # fmt: skip


@pytest.mark.parametrize(("values", "texts", "golds", "kept", "apart"), KEPT)
def test_a_filter_keeps_drops_and_counts(values, texts, golds, kept, apart):
    rows, [record] = filter_traces(dataset(*texts, answers=golds), TraceFilters(**values), len)
    dropped = [i for i in range(len(texts)) if i not in kept]
    counts = {"filter": next(iter(values)), "before": len(texts), "dropped": len(dropped), "examples": dropped[:3]}
    assert rows["row"][:] == kept and {name: record[name] for name in counts | apart} == counts | apart


def test_a_percentage_answers_a_question_for_per_cent_as_it_does_in_training():
    rows = dataset(
        *[r"<think>a</think>\boxed{60\%}"] * 2, answers=["60", "60"], prompts=["What per cent?", "How many?"]
    )
    assert filter_traces(rows, TraceFilters(correct=True))[0]["row"][:] == [0]


def test_repetition_is_the_share_of_words_in_repeated_ngrams():
    assert repetition("") == repetition(TEN) == repetition("one two " * 5) == repetition(PROSE) == 0.0
    assert repetition("2 + 2 = 4. " * 800) > 0.95 < repetition("a" + "! " * 3000)  # whatever 40 tokens in a row are
    assert repetition(TEN * 2) == 0.5 and repetition(TEN + "but " + TEN) == pytest.approx(10 / 21)
    assert repetition(TEN + "x y z " + TEN[4:]) == 0.0  # nine words are no n-gram of ten
    assert repetition("哈" * 100) == pytest.approx(99 / 100) and repetition("a" * 20_000) > 0.95 > 0.1 > repetition(
        LOOP
    )


LOOPS = [
    PROSE + " Wait, let me check again." * 9, PROSE + " Wait, let me check again." * 9 + " Wait, le", PROSE + " no" * 40,
    SENTENCE * 5, PROSE + "ha" * 1000, "再" * 50,
]  # fmt: skip


@pytest.mark.parametrize("text", [*LOOPS, PROSE + " no" * 38, SENTENCE * 4, " no" * 100 + PROSE, PROSE, ""])
def test_a_loop_at_the_end(text):
    assert ends_in_loop(text) is (text in LOOPS)


def test_filters_run_cheap_ones_first_and_each_sees_what_is_left(monkeypatch):
    monkeypatch.setattr(trace_filters, "_BATCH", 2)
    good = "<think>3+4=7</think>7"
    texts = ["7", "<think>3+4=7</think>8", good, "<think>3+4=8</think>7", "<think>слово</think>7", *["7"] * 4, good]
    filters = TraceFilters(True, 0.5, 1, 1000, 0.9, "latin", True)
    rows, records = filter_traces(dataset(*texts, answers=["7"] * 10), filters, len)
    names = ["require_thought", "min_tokens", "max_tokens", "language", "max_repetition", "min_steps", "correct"]
    assert rows["row"] == [2, 9] and [r["filter"] for r in records] == names
    assert [r["before"] for r in records] == [10, 5, 5, 5, 4, 4, 3]
    assert records[0]["examples"] == [0, 5, 6] and records[6]["examples"] == [1]
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
