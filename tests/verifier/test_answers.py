r"""Which answer a text gives: boxes, statements, the last formula or number, and when it gives none."""

import pytest

from reasoning_ext.verifier.answers import final_answer, final_words, gold_answer

SAYS = {
    "42": [
        # boxes
        r"\boxed{42}", r"So $\boxed{42}$.", r"\boxed{41}. No wait, \boxed{42}", r"\boxed{\text{**42.**}}",
        r"\boxed{\boxed{42}}", r"\\boxed{42}", r"\fbox{42}", r"\boxed 42", r"\boxed{42}, \boxed{42}",
        r"\boxed{ 42 }<|im_end|>", r"\boxed{41}" + "\n\nThe final answer is $42$.", r"It is \boxed{" + "\n42\n}.",
        # statements
        "The answer is 42.", "The answer is: 42", "**Answer:** 42", "Answer: 42\n\nI hope that this helps you!", "#### 42",
        "the answer is 41. No, the answer is 42.", "Final answer: **42**", "The answer is 42 (not 41).",
        "The answer is simply 42.", r"The final answer is $42$. I hope it is correct.", "The correct option is 42",
        "The answer is\n\n42", "answer = 42", "Answer:\n\\[\n42\n\\]", "The answer is 42, because 6 times 7 is 42.",
        # the last formula or number
        "42", "$42$", r"\[42\]", r"\(42\)", "We count 6, then 7, in all 42.", "So we have $6 \\cdot 7$, which is $42$.",
        "1. First 6.\n2. Then 7.\n\nTogether that makes 42.", "In total **42**.", "She needs 20 more, so 42",
        "Both are true, thus\n$$42$$\nas was to be shown.",
        # tags
        "<answer>42</answer>", "<answer>41</answer> wait <answer>\n42\n</answer>", "<answer>$42$</answer>", "<b>42</b>",
        "<final_answer>42</final_answer>", "<p>42</p>", "<SOLUTION>42</SOLUTION>",
        # other languages
        "答案是42。", "所以一共有42个。", "答えは42です。", "Ответ: 42", "La respuesta es 42.", "La réponse est 42.",
        "정답은 42입니다.", "उत्तर 42 है।", "４２", "٤٢",
    ],
    "-42": [
        "The answer is minus 42.", "negative 42", r"\boxed{-42}", "The answer is −42.", "Thus the change is -42.",
        "It is minus 42"
    ],
    "42%": [
        r"\boxed{42}\%", r"\boxed{42\%}", "The answer is 42 percent.", "We get $42$ %", "So it is 42 percent.",
        r"\boxed{42} percent"
    ], "1,000": ["The answer is 1,000.", r"\boxed{1{,}000}", "In total there are 1,000."],
    "1,000 apples": ["The answer is 1,000 apples.", "1,000 apples", r"\boxed{1,000 apples}"],
    "42 cm": ["The length is therefore 42 cm.", "It is 42 cm long."],
    "x^2+1": [r"\boxed{x^2+1}", "The answer is $x^2+1$.", "x^2+1", "We find that $f(x) = y$, so $x^2+1$"],
    "x^2 + 1": ["So f(x) = x^2 + 1", "Hence the polynomial is x^2 + 1."],
    r"\frac{1}{2}": [
        r"Thus p = \frac{1}{2}.", r"The answer is \frac{1}{2}", r"\boxed{\dfrac{1}{2}}", r"It follows that p = \frac{1}{2}"
    ], "(1, 2)": ["The point is (1, 2).", r"\boxed{\left(1, 2\right)}", "The answer is $(1, 2)$."],
    "3:4": ["The ratio is 3:4.", "They share it 3:4"], "3, 4": ["The answers are $3$ and $4$.", "so $3$, $4$"],
    "Monday": ["The answer is Monday.", r"\boxed{\text{Monday}}", "**Answer:** Monday"],
    "C": [r"\boxed{C}", "The answer is C.", "The correct choice is C."],
}  # fmt: skip


@pytest.mark.parametrize(("answer", "text"), [(answer, text) for answer, texts in SAYS.items() for text in texts])
def test_the_answer_of_a_text(answer, text):
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        # nothing there
        "", " ", "\n", "I do not know.", "Let me think step by step.", "The answer is",
        "Sorry, I cannot help you with that.", r"\boxed{}",
        # one of two, or a limit
        "It is 42 or 43.", "It is either 42 or 43, I think.", "It is at most 42.", "That is at least 42.",
        "It is less than 42.", "There are more than 42", "It is not 42.", "It cannot be 42.", "It is up to 42.",
        "The value is below 42", "Nothing other than 42",
        # a piece of something
        r"It is 3 \times x^42 of them, it seems to me", "the code AZYUK2A", "We meet in room 42B", "That is 5 * 42 * more",
        "the sum is n + 42!", "so 42^n",
    ],
)  # fmt: skip
def test_a_text_without_an_answer(text):
    assert final_answer(text) is None


def test_boxes_that_belong_together_are_one_list_where_many_are_wanted():
    apart = r"First \boxed{1}, and after a long while of thinking about it, in which nothing happened at all, \boxed{2}"
    assert final_answer(r"\boxed{1}, \boxed{2}", many=True) == final_answer(r"\boxed{1} or \boxed{2}") == "1, 2"
    assert final_answer(apart, many=True) == final_answer(apart) == "2"
    assert final_answer(r"$x = \boxed{1}$ and also $y = \boxed{2}$", many=True) == "1, 2"
    assert final_answer(r"$x = \boxed{1}$ and also $y = \boxed{2}$") == "2"
    assert final_answer("It is 1 or 2.", many=True) is not None


GOLDS = {
    "42": "42", r"\boxed{42}": "42", "6 * 7 = 42\n#### 42": "42", "So we get $42$.": "42", "The answer is 42.": "42",
    r"\frac{1}{2}": r"\frac{1}{2}", "xy = 1": "xy = 1", "5 feet 6 inches": "5 feet 6 inches", "no solution": "no solution",
    "Evelyn": "Evelyn", r"\text{no solution}": "no solution", "x < 1 or x > 3": "x < 1 or x > 3",
    r"\boxed{3}, \boxed{4}": "3, 4", "all integers n > 3": "all integers n > 3", "$3$ and $4$": "3, 4", "": None, "  ": None,
    "forty two": None, "forty-two": None, "one hundred": None, "The stock falls each day": None,
    "We first show that it is injective.": None, "$$": None, r"\text{}": None,
}  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), GOLDS.items())
def test_what_a_gold_says(gold, answer):
    assert gold_answer(gold) == answer


WORDS = {
    "New York": [
        "So the answer is **New York**.", r"\boxed{\text{New York}}", "New York", "The capital is New York.",
        "Answer: New York\n\nIt is large.", "#### New York", "<answer>New York</answer>"
    ], "no": ["No, because 3 is odd.", "The answer is no.", r"\boxed{no}", "No. It is odd."],
    "isosceles": ["The triangle is isosceles.", "We look at the sides.\nThe triangle is isosceles."],
    "no solution": ["There is no solution.", "We try 1 and 2.\nThere is no solution."],
    "True": [r"\boxed{True, since it holds}", "True: all are even."], "3 of them are not red": ["3 of them are not red"],
}  # fmt: skip


@pytest.mark.parametrize(("words", "text"), [(words, text) for words, texts in WORDS.items() for text in texts])
def test_the_words_of_a_text(words, text):
    assert (final_words(text) or "").casefold() == words.casefold()


@pytest.mark.parametrize("text", ["", "\n", "The answer is " + "so " * 100])
def test_a_text_without_words(text):
    assert final_words(text) is None
