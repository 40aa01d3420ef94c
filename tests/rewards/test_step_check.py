"""What step_check counts as an equation, what it says of it, and what it costs; `equations.txt` has the thoughts."""

import operator
import random
from fractions import Fraction

import pytest
from reasoning_ext.rewards.step_check import step_check

from tests.rewards.tables import tables
from tests.timing import seconds, slowness

THOUGHTS = tables("equations.txt")
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
WRONG_ONE = "17*23=401; "


def score(thought, **options):
    return step_check([f"<think>{thought}</think>7"], **options)[0]


@pytest.mark.parametrize(("kind", "reward"), [("true", 1.0), ("false", 0.0), ("unread", None)])
def test_one_thought(kind, reward):
    thoughts = THOUGHTS[kind]
    assert [thought for thought in thoughts if score(thought) != reward] == [] and len(thoughts) > 30
    assert [thought for thought in thoughts if score(f"So:\n{thought}\nDone.") != reward] == []


COMPLETIONS = [
    ("<think>3+4=7", None), ("3+4=7", None), ("", None), ("<think></think>3+4=7", None), ("<think>3+4=8</think>3+4=7", 0.0),
    ("3+4=7</think>7", 1.0), ("<think>3+4=7</think>3+4=8", 1.0),
    ([{"role": "assistant", "content": "<think>3+4=7</think>7"}], 1.0), ([{"role": "assistant", "content": None}], None),
]  # fmt: skip


def test_only_the_closed_thought_is_read():
    texts, rewards = zip(*COMPLETIONS, strict=True)
    assert step_check([*texts], answer=["7"] * len(texts), trainer_state=None) == [*rewards]


SHARES = {
    "3+4=7 so 3*4=13": 0.5, "2+3 = 5 = 10/3": 0.5, "x = 5; 3+4 = 7; 3+5 = 9; 1+x = 2; 2*2 = 4; 9/3 = 3": 0.75,
    # a line break inside a number, and at the end of a sentence
    "18*3.\n14159≈56.55": 1.0, "10/4 = 2.\n5": 1.0, "2.\n 5*4 = 10": 1.0, "6*1,\n234 = 7404": 1.0,
    "3*4=12; 9/2 = 4.\n5.\n2*3=7": 2 / 3,
    "5*2 = 10.\n3+4 = 7": 1.0, "5*2 = 11.\n3+4 = 7": 0.5, "1. 5*2=11.\n2. 3*4=12": 0.5, "take 3,\n141*2 = 282": 1.0,
    "3*4=12.\n6": 1.0,
    "2*(3+4)\n= 2*7\n= 15": 0.5, "48/2 = <<48/2=24>>25": 0.5, "3+4=8. No, 3+4=7.": 0.5, "3+4=8; 3+4=9": 0.0,
    # a right sum does not hide a wrong one with the same numbers
    "2*(3+4) = 14; 2*3+4 = 14": 0.5, "7-4 = 3; 4-7 = -4": 0.5,
    # the same sum is paid once
    WRONG_ONE + "3+4=7; " * 50: 0.5,
    WRONG_ONE + "3+4=7; 4+3=7; 7=3+4; 3+4=7.0; 3.0+4=7; (3+4)=7; $3 + $4 = $7; 3 eggs + 4 eggs = 7 eggs; 3+4≈7; ": 0.5,
    WRONG_ONE + "10/3=3.33; 10/3=3.333; 10/3≈3; ": 0.5, WRONG_ONE + "3+4=7; <<3+4=7>>7 <<4+3=7>>7 ": 0.5,
    # what is true for free is not
    "7*1=7; 0+8=8; 9/1=9; 9-0=9; 4^1=4; 0*5=0; 2+3=2+3; 3*5=5*3; (2+3)=2+3; x+0=x; ": None,
    WRONG_ONE + "5=5; 0+0=0; 1*1=1; 2+3=2+3; ": 0.0,
}  # fmt: skip


def test_the_reward_is_the_share_of_distinct_equations():
    assert {thought: score(thought) for thought in SHARES} == SHARES
    assert [score("3+4=7; 3+4=7; 3*4=12; 17*23=401", min_equations=n) for n in (1, 3, 4)] == [2 / 3, 2 / 3, None]
    for found in (0, -1, 1.5, True, "2", None):
        with pytest.raises(ValueError, match=r"min_equations=.*allowed: whole numbers from 1"):
            step_check([], min_equations=found)


def random_expression(rng, depth):
    """Return a text and its value, None where it divides by zero."""
    if depth == 0 or rng.random() < 0.2:
        number = rng.randint(2, 12)
        return str(number), Fraction(number)
    (left, a), (right, b) = random_expression(rng, depth - 1), random_expression(rng, depth - 1)
    sign = rng.choice("+-*/")
    value = None if None in (a, b) or (sign == "/" and b == 0) else OPERATORS[sign](a, b)
    return f"({left} {sign} {right})", value


@pytest.mark.parametrize("seed", range(5))
def test_random_expressions_are_worked_out_and_no_text_breaks_it(seed):
    rng = random.Random(seed)
    for _ in range(40):
        (left, a), (right, b), sign = random_expression(rng, 3), random_expression(rng, 2), rng.choice("+-*")
        if None in (a, b):
            assert score(f"2 * {left} {sign} {right} = 7") == 0.0
            continue
        value = OPERATORS[sign](2 * a, b)
        assert score(f"So 2 * {left} {sign} {right} = {value}") == 1.0
        assert score(f"2 * {left} {sign} {right} = {value + 3}") == 0.0
    bits = [*"0123456789.,:;!?+-*/^%=≈()[]{}<>$&\\|#x \n½"]
    bits += ["**", "<<", ">>", " of ", r"\frac", r"\text{", "{,}", "eggs"]
    for _ in range(100):
        reward = score("".join(rng.choices(bits, k=rng.randint(1, 60))))
        assert reward is None or 0.0 <= reward <= 1.0


FLOODS = [
    "=", "(", "7", "1+", "1=1", " ", "\n", "1+1=2;", "1+1=2\n", "((1)", "{", "- ", "\n- ", "**", " **", ".", "1.", "1,",
    "1,000", "<<", "<<1>>", "\\", r"\text{", r"\text{a", r"\frac{", r"\begin{", "a 1 ", "a(", "3 eggs * ", "=1", "=a 1 a ",
    "1%", "2^9^", "x2", "1 x ", "20% of ", "1/0=", "http://", "_", "１", "{,}", "1{,}", "0x",
]  # fmt: skip


def took(text):
    return seconds(lambda: step_check([f"<think>{text}</think>7"]), repeat=1)


@pytest.mark.parametrize("bit", FLOODS)
def test_a_flood_costs_linear_time(bit):
    short, long = ((bit * n)[:n] for n in (50_000, 200_000))  # 4 times is linear, 16 times is quadratic
    assert any(took(long) < min(2.0 * slowness(), 8 * took(short)) for _ in range(3))


def test_nesting_and_large_values_cost_little():
    for thought in ("(" * 100_000 + "1+1=3", "(" * 60 + "1+1" + ")" * 60 + "=3", "2*" + "- " * 50 + "1=3"):
        assert score(f"3+4=7; {thought}") in (1.0, 0.5)
    towers = (f"2^64*3^64*5^64*7^64*11^64*{i}^64 + 1/{i}^64 + 9^9^9^9 + ({i}^64)^64 = {i}" for i in range(2, 2000))
    assert took("; ".join(towers)) < 2 * slowness()
    assert score(";".join(f"{i}+{i * 7 % 1000}={i + i * 7 % 1000}" for i in range(2, 8_000))) == 1.0
