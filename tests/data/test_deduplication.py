"""Deduplication: what is the same text, what looks alike and is another problem, and that no size takes long."""

import random

import pytest
from datasets import Dataset

from reasoning_ext.data import duplicates
from reasoning_ext.data.duplicates import deduplicate, normalise, prompt_text, signature
from tests.timing import seconds, slowness

STORY = (
    "Tom has 3 apples and buys 5 more apples at the store every day. He then shares all of the apples equally among his "
    "4 friends after a week. How many apples does each of the friends have in the end?"
)


def dataset(*texts, completions=None):
    columns = {"prompt": [[{"role": "user", "content": text}] for text in texts]}
    if completions:
        columns["completion"] = [[{"role": "assistant", "content": text}] for text in completions]
    return Dataset.from_dict({**columns, "row": list(range(len(texts)))})


def dropped(*texts, how="exact", **options):
    return {record["row"]: record["of"] for record in deduplicate(dataset(*texts), how, **options)[1]}


SAME = [
    ("What is 3 + 4?", "what is 3+4"), ("What is  3 +\n4 ?", "WHAT IS 3 + 4."), ("５ ＋ ４", "5 + 4"),
    (r"Find $\frac{1}{2}$", r"find \(\dfrac12\)."), (r"$a\,b\;c\!d~e\ f$", "a b c d e f"), ("x² + 1", "$x^{2}+1$"),
    (r"$\left( x + 1 \right)$", "(x+1)"), (r"$2 \times 3 \leq 7$", "2 × 3 ≤ 7"), (r"$2 \cdot 3 \geqslant 7$", "2·3>=7"),
    ("10,000 eggs", r"$10{,}000$ eggs"), ("5 − 3", "5 - 3"), ("a well-known triangle", "a well known triangle"),
    ("Tom’s egg", "Tom's egg"), (r"90^\circ", "90°"), (r"\sqrt{2}", "√2"), ("cost \\$5", "cost $5"),
    (r"x_{10}", "x_10"), (r"1, \ldots, n", "1, ..., n"), (r"1,\dots,n", "1, …, n"), ("50\\%", "50%"), ("a \\\n b", "a b"),
]  # fmt: skip
OTHER = [
    ("Tom has 3 apples", "Tom has 5 apples"), ("3 + 4", "3 - 4"), ("3 + 4", "34"), ("What is 3.5", "What is 35"),
    ("x^{2y}", "x^2y"), (r"\frac{1}{23}", r"\frac{12}{3}"), ("2(x+1)", "2x+1"), ("the rapist", "therapist"),
    ("What is 5!", "What is 5"), ("f'(x)", "f(x)"), ("x < 3", "x <= 3"), ("|x|", "x"), ("-3", "3"), ("xy", "x"),
    (r"\sin x", r"\cos x"), ("5%", "5"), ("3/4", "3 4"), ("find x", "find y"), (r"x \in \{1\}", r"x \in [1]"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME + OTHER)
def test_spelling_is_seen_through_and_what_means_something_else_is_kept(one, other):
    same = (one, other) in SAME
    assert (normalise(one) == normalise(other)) is same
    assert dropped(one, other) == dropped(one, other, how="near", threshold=0.01) == ({1: 0} if same else {})


def test_the_first_of_a_group_is_kept_with_its_columns_and_the_others_name_it():
    rows, removed = deduplicate(dataset("a b", "c d", "A  b.", "c d", "a b", "e"), "exact")
    assert rows["row"] == [0, 1, 5] and rows.column_names == ["prompt", "row"]
    assert removed == [{"row": i, "of": j, "similarity": 1.0} for i, j in ((2, 0), (3, 1), (4, 0))]


TURNS = {
    "buys": "gets", "3 apples": "9 apples", "5 more": "6 more", "4 friends": "four friends", "day": "second day", "more": "fewer",
    "3 apples and buys 5": "5 apples and buys 3", "after a week": "twice a week", "in the end": "not", "has 3": "has x",
    "Tom has 3": "Tom has -3", "has 3 ": "has 3% ", "has 3 apples": "has 3! apples",
}  # fmt: skip
PROSE = {"store": "market", "equally ": "", "the apples": "his red apples", "Tom": "Ann", "week": "month"}
PROSE |= {"Tom has": "A boy, Tom, has", "end?": "end? Think step by step."}


@pytest.mark.parametrize("old", [*TURNS, *PROSE])
def test_other_prose_is_near_and_numbers_signs_and_words_that_turn_a_problem_are_not(old):
    other = STORY.replace(old, (TURNS | PROSE)[old])
    assert other != STORY and dropped(STORY, other, how="exact") == {}
    if old in TURNS:
        assert dropped(STORY, other, how="near", threshold=0.3) == {}
    else:
        assert dropped("else", STORY, "other", other, how="near", threshold=0.75) == {3: 1}


def test_similarity_is_the_jaccard_index_of_pairs_and_the_threshold_holds():
    one, other = "the cat sat on the mat", "the cat sat on the rug"  # pairs with the end: 6 each, 4 in common
    rows, removed = deduplicate(dataset(one, other), "near", threshold=0.5)
    assert removed == [{"row": 1, "of": 0, "similarity": 0.5}] and len(rows) == 1
    assert dropped(one, other, how="near", threshold=0.51) == {}


def test_many_rows_with_one_signature_go_through_minhash():
    rng = random.Random(0)
    words = [f"w{'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10 % 10]}{'uvwxyzabcd'[i // 100]}" for i in range(1000)]
    base = [" ".join(rng.choices(words, k=60)) for _ in range(300)]
    near = [text.replace(text.split()[30], "changed", 1) for text in base[:100]]
    far = [" ".join(rng.sample(text.split(), 60)) for text in base[100:200]]  # the same words in another order
    found = dropped(*base, *near, *far, how="near")
    assert sum(found.get(300 + i) == i for i in range(100)) >= 99 and set(found) <= set(range(300, 400))


def test_a_different_completion_makes_a_different_row_only_if_asked():
    rows = dataset("3+4", "3+4", "3+4", completions=["<think>a</think>7", "<think>b</think>7", "<think>A </think>7"])
    assert [r["row"] for r in deduplicate(rows, "exact")[1]] == [1, 2]
    assert [r["row"] for r in deduplicate(rows, "exact", by="row")[1]] == [2]
    story = dataset(STORY, STORY, completions=[STORY.replace("store", "shop"), STORY + " 8"])
    assert deduplicate(story, "near", by="row")[1] == []


def test_system_prompts_do_not_count_and_other_turns_do():
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    system = {"role": "system", "content": "Be brief."}
    other = [turns[0], {"role": "assistant", "content": "x"}, turns[2]]
    rows = Dataset.from_dict({"prompt": [turns, [system, *turns], other]})
    assert [r["row"] for r in deduplicate(rows, "exact")[1]] == [1]
    assert prompt_text([system, *turns], ("user",)) == "a\nc" and prompt_text("plain") == "plain"


@pytest.mark.parametrize("unit", ["{", "\\", "a-", "frac1", "1,", "\\frac{1}{2} ", "word ", "{a} ", "$", "漢"])
def test_a_long_text_takes_linear_time(unit):
    text = unit * (100_000 // len(unit))
    assert seconds(lambda: signature(normalise(text)), repeat=1) < 1 * slowness()


def test_a_row_is_compared_with_so_many_candidates_at_most(monkeypatch):
    compared = []
    monkeypatch.setattr(duplicates, "jaccard", lambda a, b: compared.append(1) or 0.0)
    monkeypatch.setattr(duplicates, "_MOST_CANDIDATES", 3)
    flood = [f"{STORY} {a}{b}q{b}{a}" for a in "bcdfgh" for b in "klmnpr"]  # each is a candidate of every other
    assert dropped(*flood, how="near") == {} and 2 * len(flood) < len(compared) <= 3 * len(flood)
