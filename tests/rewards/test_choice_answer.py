"""choice_answer: the usual phrasings are paid, hedging and prose are not, and no text takes long."""

from pathlib import Path

import pytest
from reasoning_ext.rewards.choice_answer import choice_answer

from reasoning_ext.scoring.call import build_rewards
from reasoning_ext.scoring.spec import needed_columns, parse_rewards
from tests.timing import seconds, slowness

CITIES = ["London", "Paris", "Rome", "Berlin"]
LISTING = "A) London\nB) Paris\nC) Rome\nD) Berlin"
SAYS_B = [
    "B", "b", "(B)", "B.", "b)", "[B]", "**B**", "$B$", '"B"', "ｂ", "So, B!", r"\boxed{B}", r"\boxed{(b)}",
    r"\boxed{\text{(B)}}", r"$\boxed{\textbf{B}}$", r"\[\boxed{\mathrm{B}}\]", "The answer is B",
    "the answer is b because of x", "My final answer is: B", "The answer is:\n\n**B**", "**Answer:** B", "answer: b",
    "Answer - B", "The answer must be (B).", "Option B", "Choice B.", "the correct choice is (b)", "I'd go with option B.",
    "I choose B because A is wrong and C too.", "So it is option b.", "Some say A and some say C.\n\nB",
    "Some say A.\n\n- (b)\n", "My choice is B.", "B is correct", "Only option B is correct.", "B is the right answer.",
    "A is wrong, so B.", "It is B, not A.", "<answer>B</answer>", "<answer>\n(B)\n</answer>", "final answer\n\nB",
    "The answer is not A but B", "The correct answer is B, A is wrong.", "The answer is (B) because (A) is in the UK.",
    "After comparing A, C and D, the answer is B.", "B because A is in England", "Option B is correct. Option C is wrong.",
    "It is a city, B.", "If A is correct, we get 2 = 3. Hence B.", "If the answer is A, then 2 = 3. So it has to be B.",
    r"\boxed{A}. No wait, \boxed{B}", "Answer: A. Answer: B", r"The answer is $\boxed{B}$. A is wrong.",
    "<think>A or C? \\boxed{A}</think>B", "<SOLUTION>B</SOLUTION>", "<i>b</i>", "‘B’", "Answer — B",
    "The answer is B—it fits.", "I would not choose A but B.", "It can’t be A, so B.", "B rather than A",
    "I rule out A and C, so B.", "I eliminated A, C and D. So B.", "It is not A or C; it is B.", "I don't think it is A. B.",
    "A is ruled out. B", "None other than B", "A and C look good, but B is correct.", "B is better than A",
    r"\boxed{B}, not \boxed{A}", r"not \boxed{A} but \boxed{B}", r"\boxed{}. \boxed{B}",
    r"\boxed{A}. But \boxed{B}, \boxed{b}",
]  # fmt: skip
SAYS_B_ELSEWHERE = [
    "答案是B。", "正确答案为（B）", "答案：【B】", "答：B", "选B", "选择 B", "故选：B", "所以答案选B。",
    "因此，选项B是正确的", "B是正确答案。", "正确的是B", "正确选项是B", "应该选择B", "不是A，而是B", "答案不是A，是B",
    "答案是B，不是A", "不选A，选B", "选B，因为A错", "A错，B对", "A不正确，B正确", "A选项错误，B选项是对的。",
    "选项A是错误的，选项B是正确的。", "这是选择题，A和C都像。所以答案是B", "如果答案是A，则矛盾。选B",
    "对于选项A，不成立。所以选B", "正解はBです", "答えは(B)。", "正解：Ｂ", "Bが正解です。", "Bが正しい", "Bを選びます",
    "Aではなく、Bです", "正解はBであり、Aではない", "Aは間違いです。Bが正解。", "정답은 B입니다", "답: B",
    "따라서 정답은 (B)번이다", "B가 정답입니다", "B를 선택합니다", "A가 아니라 B입니다", "A는 틀렸습니다. 정답은 B입니다.",
    "Ответ: B", "Правильный ответ — B", "Ответ не A, а B", "Ответ: B, потому что A неверно", "Đáp án là B", "Chọn B",
    "La respuesta es B", "La respuesta correcta es la B.", "La respuesta no es A, es B",
    "La respuesta es B porque A es falsa", "Si la respuesta es A, falla. Respuesta: B", "La réponse est B",
    "La bonne réponse est B.", "Die Antwort ist B", "Die Antwort ist B, weil A falsch ist", "A resposta é B",
    "La risposta è B", "「b」", "B。", "A和C都像。答案：B", "A和C也像，但是B是正确的。", "A或C也像，但答案应该是B",
    r"答案是 \boxed{B}",
]  # fmt: skip
SAYS_PARIS = [
    "Paris", "PARIS.", "The answer is Paris", "The capital of France is Paris.", r"\boxed{\text{Paris}}", r"\boxed{B) Paris}",
    "Answer: B) Paris", "B. Paris", "(B) Paris", "The answer is B (Paris).", "<answer>\n(B) Paris\n</answer>",
    "### Final Answer\n**B. Paris**", "The answer is B, since Paris is it and London is not.",
    LISTING + "\n\nThe answer is B.", "Paris, because London is in England.",
]  # fmt: skip
NOT_B = [
    "", "A", "E", r"\boxed{E}", r"\boxed{Oslo}", "I do not know.", "It is a city", "The answer is A", "Answer: B. Answer: A",
    "The answer is not B", "B is wrong", "B is incorrect.", "It isn't B", "The wrong answer is B",
    "Neither A nor B is correct", "Neither B nor C is correct", "<answer>A</answer> B", "B-complex", "ABCD", "Bravo",
    "<think>B", "<think>\\boxed{B}</think>", "<think>B</think>I do not know", r"\boxed{B", r"\boxed{A} (not B)", "It isn’t B",
    "Not B", "It cannot be B", "The answer cannot be B", "I would not choose B.", "I rule out B",
    "I don't think the answer is B", "B can't be right.", "B is excluded.", "It is not B or C", "B‑complex",
    r"It is not \boxed{B}", r"\boxed{B}\boxed{}", "不是B", "答案不是B", "答案是A，不是B", "B不正确", "B是错的", "B错误",
    "B不对", "如果选B，就错了", "本题B选项错误", "正解はBではない", "Bは間違いです", "정답은 B가 아닙니다", "B는 틀렸다",
    "La respuesta no es B", "La réponse n'est pas B", "Die Antwort ist nicht B", "Ответ не B", "维生素B12",
    "<answer>A</answer>", "选择题",
]  # fmt: skip
HEDGED = [
    "A or B", "a or b", "Neither A nor B is correct", "Neither B nor C is correct", "B or C", "A, B", "B/C", "A B", "A and B",
    "A B C D", "A, B, C, D", "A\nB\nC\nD", LISTING, "B) London", r"\boxed{A}\boxed{B}", r"\boxed{A}, \boxed{B}",
    r"\boxed{A} \text{ or } \boxed{B}", r"\boxed{A, B}", r"\boxed{A or B}", r"\boxed{AB}", "The answer is A or B",
    "The answer is either A or B", "The answer is a or b", "The answer is A and B", "Both A and B are correct.",
    "A or B is correct", "Maybe B, maybe C.", "The answer is either B, or else C", "Paris or London",
    "The answer is Paris or London", r"\boxed{\text{Paris or London}}", "London, Paris, Rome, Berlin", r"\boxed{B) London}",
    r"\boxed{B}\boxed{A}", "Answer: B or A", "A vs B", "A maybe B", r"\boxed{A} \boxed{B} \boxed{B}", r"\boxed{B}; \boxed{A}",
    r"1. \boxed{A} 2. \boxed{B}", r"\boxed{A} \\ \boxed{B}", r"\boxed{A}或\boxed{B}", r"\boxed{Oslo} \boxed{B}", "A和B都对",
    "A与B都正确", "选A还是B", "答案是A或B", "答案可能是A，也可能是B", "A、B", "正解はAかB", "AまたはBです",
    "정답은 A 또는 B입니다", "A와 B가 정답입니다", "La respuesta es A o B", "La réponse est A ou B",
    "Die Antwort ist A oder B", "Ответ A или B", "Đáp án là A hoặc B",
]  # fmt: skip


@pytest.mark.parametrize(
    "choices", [None, CITIES, {"text": CITIES, "label": [*"ABCD"]}], ids=["none", "listed", "with labels"]
)
def test_usual_phrasings_are_paid(choices):
    texts = SAYS_B + SAYS_B_ELSEWHERE
    columns = {"choices": [choices] * len(texts)}
    found = zip(texts, choice_answer(texts, ["B"] * len(texts), **columns), strict=True)
    assert [text for text, reward in found if reward != 1.0] == []
    for other in "AC":
        messages = [[{"role": "assistant", "content": text}] for text in texts]
        assert not any(choice_answer(messages, [other] * len(texts), **columns))
    assert choice_answer(SAYS_B, ["B"] * len(SAYS_B)) == [1.0] * len(SAYS_B)


@pytest.mark.parametrize(
    ("text", "options", "letter"),
    [
        ("答案是北京。", ["上海", "北京"], "B"), ("不是上海，而是北京", ["上海", "北京"], "B"),
        ("北京或上海", ["上海", "北京"], None), ("正解は東京です", ["大阪", "東京"], "B"),
        ("정답은 서울입니다", ["부산", "서울"], "B"),
        ("答案是北京大学", ["北京", "北京大学"], "B"), ("答案是Paris。", ["Rome", "Paris"], "B"),
    ],
)  # fmt: skip
def test_texts_of_options_stand_between_letters_where_there_are_no_spaces(text, options, letter):
    assert choice_answer([text] * 2, ["A", "B"], choices=[options] * 2) == [float(letter == "A"), float(letter == "B")]


def test_an_option_may_be_said_by_its_text():
    for text in SAYS_PARIS:
        assert choice_answer([text] * 3, ["B", "Paris", "C"], choices=[CITIES] * 3) == [1.0, 1.0, 0.0], text


def test_other_answers_hedges_and_words_of_one_letter_are_not_paid():
    for text in NOT_B:
        assert choice_answer([text], ["B"], choices=[CITIES]) == [0.0], text
    for text in HEDGED:
        assert choice_answer([text] * 4, [*"ABCD"], choices=[CITIES] * 4) == [0.0] * 4, text
    for text in "It is a city~A city.~I think so~I am not sure~A tale of two~The answer is a city~It's a".split("~"):
        assert choice_answer([text] * 2, ["A", "I"]) == [0.0, 0.0], text


@pytest.mark.parametrize(
    ("gold", "choices", "right"),
    [
        ("B", None, "B"), ("b", None, "B"), ("(B)", None, "B"), ("B.", None, "B"), ("B. Paris", None, "B"),
        (r"\boxed{B}", None, "B"), (r"\text{B}", None, "B"), ("Rome", CITIES, "C"), ("rome.", CITIES, "C"),
        ("C) Rome", CITIES, "C"), ("3", ["1", "2", "3"], "C"), ("D", ["D", "C"], None),
        ("A. Lincoln", ["G. Washington", "A. Lincoln"], "B"), ("B", ["B", "A"], "B"), ("Rome", None, None),
        ("Oslo", CITIES, None), ("E", CITIES, None), ("", CITIES, None), ("1", CITIES, None), (1, None, None),
        (None, None, None), ("A, B", None, None), (None, ["None", "All"], None), (float("nan"), ["a", "nan"], None),
        ({"a": 1}, None, None), ("1914–18", ["1914-18", "1939"], "A"), ("B", float("nan"), "B"), ("", ["", "x"], None),
        ("北", ["东", "北"], "B"), ("（B）", None, "B"),
    ],
)  # fmt: skip
def test_golds(gold, choices, right):
    for letter in "ABCDE":
        expected = None if right is None else float(letter == right)
        assert choice_answer([rf"\boxed{{{letter}}}"], [gold], choices=[choices]) == [expected]


@pytest.mark.parametrize(
    ("text", "choices", "letter"),
    [
        ("The answer is 3.", ["1", "2", "3", "4"], "C"), ("-3", ["3", "-3"], "B"),
        ("Both A and B", ["x y", "z w", "Both A and B"], "C"),
        ("It cannot be told because x is free", ["four", "It cannot be told because x is free"], "B"),
        (r"\boxed{\frac12}", [r"$\frac13$", r"\(\frac12\)"], "B"),
        ("increases, then falls", ["increases", "increases, then falls"], "B"),
    ],
)  # fmt: skip
def test_texts_of_options_that_look_like_something_else(text, choices, letter):
    assert choice_answer([text], [letter], choices=[choices]) == [1.0]


def test_a_number_inside_another_and_private_characters_are_no_options():
    assert choice_answer(["30", "3.5", "-3", "13"], ["3"] * 4, choices=[["1", "3"]] * 4) == [0.0] * 4
    assert choice_answer(["\ue001"], ["B"], choices=[CITIES]) == [0.0]


def test_a_recipe_needs_the_gold_and_not_the_choices():
    specs = parse_rewards(["choice_answer"], Path())
    assert needed_columns(specs) == {"answer": "the reward choice_answer"}
    [reward] = build_rewards(specs)
    assert reward(completions=["B", "Paris"], answer=["B", "B"], choices=[CITIES] * 2, prompts=["", ""]) == [1.0, 1.0]


FLOODS = "answer is A ~answer:,~\\boxed{~\\boxed{A}~\\text{~(~A ~A,~ ~\n~B is correct ~not ~} ~-~if ~ﷺ~选B~是正确的~错~not A, ~"
FLOODS += "\\boxed{A} or ~<answer>~La respuesta es "


def test_no_flood_takes_long():
    for unit in FLOODS.split("~"):
        text = (unit * 200_000)[:200_000]
        took = seconds(lambda text=text: choice_answer([text, text + "$"], ["B"] * 2, choices=[CITIES] * 2), repeat=2)
        assert took < 0.1 * slowness(), unit  # 50 ms each
