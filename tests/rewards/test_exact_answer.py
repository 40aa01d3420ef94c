"""exact_answer: the whole final answer is compared, whatever is around it, and nothing less."""

from pathlib import Path

import pytest
from reasoning_ext.rewards.exact_answer import exact_answer

from reasoning_ext.scoring.call import build_rewards
from reasoning_ext.scoring.spec import parse_rewards
from tests.rewards.tables import tables
from tests.timing import seconds, slowness

TEXTS = tables("exact.txt")
PARIS, SETS, NOT_THE_SET = TEXTS["Paris"], TEXTS["red and green"], ["", *TEXTS["not red and green"]]
NOT_PARIS = ["", "junk" + " " * 5000 + "Paris", "junk " * 2000 + "Paris", *TEXTS["not Paris"]]


@pytest.mark.parametrize("match", ["any", "all"])
def test_the_final_answer_is_found_and_cleaned_and_a_gold_that_only_occurs_is_not_paid(match):
    messages = [[{"role": "assistant", "content": text}] for text in PARIS]
    wanted = {"any": PARIS, "all": PARIS[:20]}[match]
    assert [text for text in wanted if exact_answer([text], ["Paris"], match=match) != [1.0]] == []
    assert exact_answer(messages, [r"\text{Paris}"] * len(PARIS)) == [1.0] * len(PARIS)
    assert [text for text in NOT_PARIS if exact_answer([text], ["Paris"], match=match) != [0.0]] == []


def test_what_changes_an_answer_is_not_cleaned_away():
    for gold in "5! -5 +5 .5 5% n! C++ C# (0,1) [0,1] ? {a} __init__".split():
        bare = gold.strip("!-+.%$#()[]{}?_") or "x"
        assert exact_answer([gold, f"The answer is {gold}.", bare], [gold] * 3) == [1.0, 1.0, 0.0], gold
        assert exact_answer([gold], [bare]) == [0.0], gold
    assert exact_answer(["(0,1)", "[0,1]"], ["[0,1]"] * 2) == [0.0, 1.0]
    assert exact_answer(["...", "a"], ["..."] * 2) == [1.0, 0.0]
    assert exact_answer(["42", "42.0"], [42, 42]) == [1.0, 0.0]
    assert exact_answer(["+ b", "a", "A"], ["a + b", "a b", "a"]) == [0.0, 0.0, 1.0]  # a letter is no article


def test_case_is_kept_on_demand_and_a_list_holds_alternatives():
    texts, golds = ["paris", "STRASSE", "50 cent", "Paris", "ﬁne"], ["Paris", "straße", "50 Cent", "Paris", "fine"]
    assert exact_answer(texts, golds) == [1.0] * 5
    assert exact_answer(texts, golds, ignore_case=False) == [0.0, 0.0, 0.0, 1.0, 1.0]
    texts = ["Paris", "lutetia.", "Rome", "Paris, Lutetia", ""]
    assert exact_answer(texts, [["Paris", "Lutetia", ""]] * 5) == [1.0, 1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("gold", [["red", "green"], ["green", "red"], ["red, green"], "red, green", "green and red"])
def test_match_all_wants_the_whole_set_in_any_order(gold):
    assert exact_answer(SETS, [gold] * len(SETS), match="all") == [1.0] * len(SETS)
    assert exact_answer(NOT_THE_SET, [gold] * len(NOT_THE_SET), match="all") == [0.0] * len(NOT_THE_SET)


def test_match_all_keeps_signs_and_units():
    assert exact_answer(["3, -5", "-5 and 3", "3, 5", "3"], [["3", "-5"]] * 4, match="all") == [1.0, 1.0, 0.0, 0.0]
    texts = ["$3, 5 cm", "5 and 3", "$5, 3 cm", "5 cm, 5", "5"]
    assert exact_answer(texts, [["5 cm", "3 dollars"]] * 5, match="all") == [1.0, 1.0, 0.0, 0.0, 0.0]


BESIDE = [" ", ", ", "/", "\n\n", " or ", ", or ", r" \text{ or } ", "$ or $", "\n2. ", "或", " oder "]


@pytest.mark.parametrize("between", BESIDE)
def test_boxes_side_by_side_all_have_to_be_right(between):
    for first, second in (("Rome", "Paris"), ("Paris", "Rome")):
        text = rf"\boxed{{{first}}}{between}\boxed{{{second}}}"
        assert exact_answer([text, text + between + r"\boxed{Paris}"], ["Paris"] * 2) == [0.0, 0.0]
        assert exact_answer([text], [["Paris", "Rome"]]) == [1.0]
        sets = [["Rome", "Paris"], ["Paris"], ["Rome", "Paris", "Oslo"]]
        assert exact_answer([text] * 3, sets, match="all") == [1.0, 0.0, 0.0]
    assert exact_answer([rf"\boxed{{Paris}}{between}\boxed{{\text{{paris}}}}"], ["Paris"]) == [1.0]


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{Rome}. No wait, \boxed{Paris}", r"First \boxed{Rome}, then \boxed{Paris}",
        r"not \boxed{Rome} but \boxed{Paris}",
        r"\boxed{Paris}, not \boxed{Rome}", r"It can't be $\boxed{Rome}$. So \boxed{Paris}", r"in \boxed{}. \boxed{Paris}",
    ],
)  # fmt: skip
def test_a_box_that_is_taken_back_or_denied_does_not_count(text):
    assert exact_answer([text] * 2, ["Paris", "Rome"]) == [1.0, 0.0]
    assert exact_answer([text] * 2, ["Paris", ["Rome", "Paris"]], match="all") == [1.0, 0.0]


ELSEWHERE = [
    ("答案是巴黎。", "巴黎"), ("所以正确答案为：巴黎", "巴黎"), ("答：“巴黎”！", "巴黎"), ("正解は東京です。", "東京"),
    ("答えは「東京」である", "東京"), ("정답은 서울입니다", "서울"), ("Ответ — Москва.", "Москва"),
    ("La respuesta correcta es **Pari\u0301s**", "París"), ("Die Antwort ist Paris.", "Paris"), ("Đáp án là Huế", "Huế"),
    ("A resposta é Lisboa", "Lisboa"), ("La risposta è Roma", "Roma"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "gold"), ELSEWHERE)
def test_an_answer_is_introduced_in_many_languages(text, gold):
    assert exact_answer([text, f"{text}x"], [gold] * 2) == [1.0, 0.0]


def test_no_language_pays_for_denials_and_hedges():
    texts = ["答案不是巴黎", "答案是巴黎或罗马", "正解は巴黎ではない", "La respuesta no es 巴黎", "Ответ: не 巴黎"]
    assert exact_answer(texts, ["巴黎"] * 5) == [0.0] * 5


@pytest.mark.parametrize("gold", ["the pancreas", "A pancreas."])
def test_an_article_changes_nothing(gold):
    texts = [
        "pancreas",
        "The pancreas.",
        "The answer is a pancreas",
        "Answer: **the pancreas**.",
        "Answer: the **pancreas**",
    ]
    assert exact_answer(texts, [gold] * 5) == [1.0] * 5
    assert exact_answer(["Pancreas and the pancreas"], [[gold]], match="all") == [1.0]
    texts = ["so it is called the pancreas", "the pancreas or the liver", "not the pancreas", "the"]
    assert exact_answer(texts, [gold] * 4) == [0.0] * 4


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("5", ["$5", "5 dollars", "€5", "5 cm", r"5\text{ cm}", "5 apples", "5."],
         ["5%", "5 or 6 cm", "5 million", "5.0", "-5", "5x"]),
        ("$5", ["5 dollars", r"\$5", "$ 5", "5 $", r"5\$", r"$\$5$", "5", "$5."],
         ["5 cents", "€5", "5 cm", "-$5", "$50", "$5 or $6", "$5$6"]),
        ("-$5", ["-5 dollars", "$-5"], ["$5"]),
        ("5 cm", ["5cm", "5 cm.", "5", r"5\,\mathrm{cm}"], ["5 in", "6 cm", "6", "$5", "cm"]),
        ("32 °F", ["32°F", "32℉", r"32^\circ\text{F}", "32 degrees Fahrenheit", "32"], ["32 °C", "33 °F", "F"]),
        ("5%", ["5 %", r"5\%", "5 percent"], ["5", "5 cm", "0.05"]),
        ("0.5", ["0.5", "0.5 cm"], ["1/2", "50%", ".5"]),
        ("50 Cent", ["50 cent", "50 cents"], ["50", "50 dollars", "$50"]),
        ("50 cents", ["50 Cent", "50"], ["50 dollars"]),
        ("iPhone 12", ["iphone 12"], ["iPhone 12 mini", "12", "iPhone"]),
    ],
)  # fmt: skip
def test_a_unit_may_be_left_out_but_is_not_another(gold, right, wrong):
    assert exact_answer(right + wrong, [gold] * len(right + wrong)) == [1.0] * len(right) + [0.0] * len(wrong)


def test_dashes_and_quotes_are_one_character():
    for gold in ["1914–1918", "1914-1918", "1914‑1918", "１９１４−１９１８"]:
        assert exact_answer(["1914-1918", "1914–1918", "19141918"], [gold] * 3) == [1.0, 1.0, 0.0]
    assert exact_answer(["O’Brien", "OBrien"], ["O'Brien"] * 2) == [1.0, 0.0]


def test_an_empty_gold_says_nothing_about_the_answer():
    for gold in ["", " ", [], ["", " "], None, [None], float("nan"), [float("nan")], {"text": "Paris"}, [{}], [[]]]:
        for match in ("any", "all"):
            assert exact_answer(["Paris", "", "nan"], [gold] * 3, match=match) == [None] * 3, gold


def test_parameters_in_a_recipe():
    [reward] = build_rewards(parse_rewards([{"exact_answer": {"match": "all", "ignore_case": False}}], Path()))
    assert reward(completions=["b, a", "B, a"], answer=[["a", "b"]] * 2) == [1.0, 0.0]
    for match in ("some", "", None):
        with pytest.raises(ValueError, match="allowed: any, all"):
            exact_answer(["a"], ["a"], match=match)


FLOODS = "answer is ~\\boxed{~\\boxed{a}~\\text{~*~`\"'~\n~ ~!~- ~a,~ and~1. ~answer**~<answer>~ﷺ~答案是~</answer>~"
FLOODS += "\\boxed{a} or ~not \\boxed{a}~$5 ~5 cm, ~the "


@pytest.mark.parametrize("match", ["any", "all"])
@pytest.mark.parametrize("length", [4_000, 200_000])
def test_no_flood_takes_long(match, length):
    for unit in FLOODS.split("~"):
        text = (unit * length)[:length]
        took = seconds(lambda text=text: exact_answer([text, text[:-1] + "x"], ["B", "B"], match=match), repeat=2)
        assert took < 0.1 * slowness(), unit  # 50 ms each
