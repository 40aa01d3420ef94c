"""Decontamination: planted questions are found however they are written, and problems that only sound alike are kept."""

import pytest
from datasets import Dataset

from benchmarks.decontamination import decontamination as measure
from reasoning_ext.data.contamination import Index, decontaminate
from tests.timing import seconds, slowness

ITEM = (
    r"Let $a$ and $b$ be positive real numbers such that $a+b=17$. Find the minimum value of "
    r"$\frac{3}{a}+\frac{12}{b}$."
)
STORY = (
    "Tom has 31 apples and buys 12 more apples at the store every day for 9 days. How many apples does he have in total "
    "at the end of that time, if he eats 2 apples a day?"
)


def dataset(*texts):
    return Dataset.from_dict({"prompt": [[{"role": "user", "content": text}] for text in texts]})


def found(text, *items, n=8):
    return Index({"made up": list(items)}, n).find(text)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_requirement_on_fifty_planted_and_a_thousand_clean_rows(seed):
    figures = measure(seed, 100)
    assert figures["found_of_50"] >= 49 and figures["dropped_of_1000_clean"] < 10
    assert figures["dropped_of_1000_clean_by_one_ngram"] > 500  # the rows are hard: the plain rule drops most of them


SAME = [
    ITEM, ITEM.upper().replace(r"\FRAC", r"\frac"), ITEM.replace(" ", "\n\n"), ITEM.replace("$", "$$"),
    ITEM.replace(r"\frac", r"\dfrac").replace("$a+b=17$", r"\(a \, + \, b = 17\)"), ITEM.replace("$", ""),
    r"Let \(a\) and \(b\) be positive real numbers such that \(a + b = 17\) find the minimum \(\tfrac3a+\tfrac{12}b\)",
    f"Solve the problem below. Box your answer.\n\nProblem 7: {ITEM}\n\nThink step by step, at most 1000 words.",
    ITEM.replace(".", " !"), ITEM.replace("minimum", "least"), ITEM.replace("Let", "Suppose that"),
]  # fmt: skip
OTHER = [
    ITEM.replace("17", "18"), ITEM.replace("{3}", "{4}"), ITEM.replace("{12}", "{10}"),
    r"Let $a$ and $b$ be positive real numbers such that $ab=17$ and $a^3+b^{12}>a$. Find $a$.",
    "Find the number of ordered pairs of positive integers with 17 divisors.",
]  # fmt: skip


@pytest.mark.parametrize("text", SAME + OTHER)
def test_an_item_is_found_however_it_is_written_and_another_problem_with_its_phrases_is_kept(text):
    record = found(text, "What else is there to ask about in this set of questions?", ITEM)
    assert (record is not None) is (text in SAME)
    assert not record or (record["set"] == "made up" and record["item"] == 1 and 0.5 <= record["share"] <= 1)


def test_other_numbers_are_another_problem_unless_nearly_all_of_a_long_text_is_the_same():
    for old, new in (("31", "32"), ("12", "13"), ("9", "7"), ("2 apples", "3 apples")):
        assert found(STORY.replace(old, new), STORY) is None
    long = f"{STORY} " + " ".join(f"He has friend{chr(97 + i)} and likes place{chr(98 + i)}." for i in range(24))
    label = "Exercise 45. " + long
    assert found(long, label)["share"] > 0.95 and found(long[: len(long) // 2], label) is None


def test_half_of_an_item_with_its_numbers_is_enough_but_at_least_four_ngrams_or_all():
    words = [f"{chr(97 + i // 26)}{chr(97 + i % 26)}q" for i in range(47)]  # 40 n-grams
    item = " ".join(words)
    assert found(" ".join(words[:27]), item)["share"] == 0.5 and found(" ".join(words[:26]), item) is None
    assert found(" ".join(words[:30]), f"{item} = 77") is None and found(
        " ".join(words[:30]) + " so 77", f"{item} = 77"
    )
    item = "one of two of three of four of five"  # 9 words, 2 n-grams
    assert found(f"Say: {item} now", item) and found(item.replace("five", "six"), item) is None


SHORT = {
    "What is 17*23?": True, "what is $17 \\times 23$": True, "Solve this: What is 17 * 23? Answer in a box.": True,
    "Hello.\nWhat is 17*23\nThanks.": True, "What is 17*23+1?": False, "What is 17*24?": False,
    "Explain what is 17*23 and why": False, "...\n\n\n What is 17*23?" + "." * 50: True,
}  # fmt: skip


@pytest.mark.parametrize("text", SHORT)
def test_a_short_item_is_matched_whole(text):
    record = found(text, "What is 17*23?")
    assert (record is not None) is SHORT[text]
    assert not record or (record["ngram"] == "what is 17 *23" and record["share"] == 1.0)


def test_a_short_item_of_two_sentences_and_one_in_chinese():
    assert found("Now: Let x=3. Find 2x. Go.", "Let x=3. Find 2x.") and found(
        "请回答。三加四是几？谢谢", "三加四是几？"
    )


def test_the_record_names_the_best_item_and_rows_and_sets_are_numbered():
    sets = {"one": [STORY, ITEM.replace("minimum", "maximum")], "two": [ITEM]}
    rows, removed = decontaminate(dataset("clean", STORY, "also clean", ITEM), sets)
    assert [p[0]["content"] for p in rows["prompt"]] == ["clean", "also clean"]
    assert [(r["row"], r["set"], r["item"], r["share"]) for r in removed] == [(1, "one", 0, 1.0), (3, "two", 0, 1.0)]
    assert removed[1]["ngram"] == "let a and b be positive real numbers"


def test_only_what_the_user_says_counts():
    turns = [{"role": role, "content": text} for role, text in (("system", ITEM), ("user", "Hi"), ("assistant", ITEM))]
    rows = Dataset.from_dict({"prompt": [turns, [*turns, {"role": "user", "content": ITEM}]]})
    assert [r["row"] for r in decontaminate(rows, {name: [ITEM] for name in "abcde"})[1]] == [1]
    assert decontaminate(rows, {})[0].num_rows == 2


@pytest.mark.parametrize(
    "unit", ["a+", "1.", ".\n", "-", "let a and b be positive real numbers such that ", "？", "a. "]
)
def test_a_long_row_takes_linear_time(unit):
    index = Index({"s": [ITEM, STORY, "a. a", "What is 1?"]})
    text = unit * (100_000 // len(unit))
    assert seconds(lambda: index.find(text), repeat=1) < 2.5 * slowness()


FIXED = "Sort these words in ascending order and give nothing but the sorted list, as in the example above: "


def test_the_fixed_instructions_of_a_benchmark_tell_no_item_unless_all_of_it_is_there():
    words = ["apple pear fig kiwi plum lime date nut", "stone sand clay rock dust mud ore coal"]
    words += [
        "red blue green pink grey tan teal gold",
        "oak elm ash fir pine yew box bay",
        "one two three four five six",
    ]
    items = [FIXED + listed for listed in words]
    clean = [FIXED + w for w in ("cat dog cow hen pig fox owl bat", "rain snow hail wind fog ice sun sky")]
    kept, removed = decontaminate(dataset(*clean, "Now do this. " + items[2]), {"x": items})
    assert len(kept) == 2 and [(r["row"], r["item"]) for r in removed] == [(2, 2)]
    _, removed = decontaminate(dataset(f"{FIXED}7", f"{FIXED}5", FIXED), {"x": [f"{FIXED}{i}" for i in range(6)]})
    assert [(r["row"], r["item"]) for r in removed] == [(1, 5)]
