"""What step_check counts as an equation, what it says of it, and what it costs."""

import operator
import random
from fractions import Fraction

import pytest
from reasoning_ext.rewards.step_check import step_check

from tests.timing import seconds, slowness

TRUE = [
    "17 x 20 = 340", "17x20=340", "17 X 20 = 340", "3*4+5=17", "7+5=12;2*3=6", "$5 + $3 = $8", "3 apples x 4 = 12 apples",
    "20% of 50 = 10", "20% of $50 = $10", "20 percent of 50 = 10", "1/2 of 10 = 5", "50 * 20% = 10", "1,200 / 4 = 300",
    "1/2 + 1/4 = 3/4", "0.1+0.2=0.3", "2^3 = 8", "2**3=8", "2 ** 3 = 8", "2^-1 = 1/2", "(3+4)×5 = 35", "10 ÷ 4 = 2.5",
    "5 km * 2 = 10 km", "8 − 3 = 5", "8 - 10 = -2", "5 - -3 = 8", "-3 + 5 = 2", "<<48/2=24>>24", "48/2 = <<48/2=24>>24",
    "<<20*.5=10>>10", "2+3 = 5 = 10/2", "x = 3 + 4 = 7", "10/3 = 3.33", "10/3 ≈ 3.33", "2/3 ≈ 0.7", "7 = 3 + 4",
    "1234 * 5 ≈ 6200", "25/100 = 25%", "2/3 = 66.67%", "20% + 30% = 50%", "[(1+2)*(3+4)] = 21", "10 - 4 - 3 = 3",
    "He has 7 apples (3 + 4 = 7).", "(3 + 4 = 7 apples) so he goes", "1. 3 + 4 = 7", "- 3 + 4 = 7", "* 3 * 4 = 12",
    "Total: 3*4=12.", "**Total:** 3 * 4 = 12", "3 + 4 = **7**", "There are 3 boxes so 3 * 4 = 12 in all",
    "3 + 4\n= 7", "2*(3+4)\n= 2*7\n= 14", "3 + 4 +\n5*2 = 17", "3 + 4 = 7 → go", "then 3 + 4 = 7 ✓", '"3 + 4 = 7"',
    "3 plus 4 = 7", "3 times 4 = 12", "12 divided by 4 = 3", "5 apples plus 3 apples = 8 apples", "1,200.50 * 2 = 2,401",
    "2 hours * 60 minutes = 120 minutes", "12 eggs / 4 boxes = 3 eggs", "60 miles per hour * 2 = 120 miles",
    "10^6 / 10^3 = 1000", "1,000,000 / 1,000 = 1,000", "-(3 + 4) = -7", "3-5 = -2", "f(2) = 2*2 + 1 = 5", "€5 * 3 = €15",
    r"3 \times 4 = 12", r"3 \cdot 4 = 12", r"12 \div 4 = 3", r"\frac{1}{2} + \frac14 = 1; \frac{1}{2} + 1 = 1.5",
    r"\$5 + \$3 = \$8", r"20\% \times 50 = 10", r"\(3 + 4 = 7\)", r"\[3 + 4 = 7\]", "$3 + 4 = 7$", "$3$ + $4$ = $7$",
    r"10/3 \approx 3.3", r"\left(3 + 4\right) \times 2 = 14", r"3 \times 4 = \boxed{12}", r"5\text{ km} \times 2 = 10\text{ km}",
    r"\begin{align} 3 + 4 &= 7 \\ &= 14/2 \end{align}", r"1{,}200 \times 2 = 2{,}400", r"2^{10} = 1024", r"\frac{10}{4} = 2.5",
    r"10,\!000 \times 2 = 20,\!000", r"3 + 4 = 7 \implies 7 * 2 = 14", "3 + 4 => 7 * 2 = 14", r"\dfrac{\frac{1}{2}}{2} = 0.25",
    "100/3 = 33.333333333333336", "8.25% of 19.99 = 1.65", "20 - 10 = 10 roses that are certainly not red", "3 + x so 4*2 = 8",
    "3 + 4 = 7 eggs # good",
]  # fmt: skip
FALSE = [
    "17 x 20 = 341", "3*4+5=27", "$5 + $3 = $9", "3 apples x 4 = 13 apples", "20% of 50 = 20", "50 * 20% = 100",
    "1,200 / 4 = 30", "1/2 + 1/4 = 2/6", "0.1+0.2=0.30000000000000004", "2^3 = 6", "-2 * 3 = 6", "<<48/2=25>>25", "10/3 = 3.34",
    "10/3 = 3.3", "10/3 = 3", "2/3 ≈ 0.66", "10/3 ≈ 3.4", "0.123*1.1 = 0.14", "25/100 = 26%", "5/0 = 0", "5/0 = 5", "0/0 = 1",
    "3/(2-2) = 1.50", "0^-1 = 0", r"\frac{1}{0} = 1", "5 * 1 = 6", "0 + 0 = 1", "2*(3+4) = 2*3+4", "6 / 2 * 3 = 1", "7 = 3 + 5",
    "1234 * 5 ≈ 6300", "3 + 4\n= 8", "1 apple + 1 apple = 3 apples", "8 - 3 - 2 = 7", "minus 3 + 5 = 8", "5 + 3 = 9%",
]  # fmt: skip
UNREAD = [
    "", "no numbers", "x = 5", "n=3", "2x + 3 = 7", "2 x + 3 = 7", "x + 3 = 7", "3 + x = 7", "3 + 4y = 8", "3n = 6", "7 = x + 5",
    "5 = 5", "-5 = 5", "50% = 0.5", "(5) = 6", "1,000 = 1000", "0+0=0", "1*1=1", "7*1=7", "0+7=7", "7/1=7", "7^1=7", "2+3=2+3",
    "2+3 = 3+2", "(2+3) = 2+3", "3 and 4 = 7", "3 and 4 + 1 = 9", "the sum of 3 and 4 * 2 = 14", "5 + 3 = 8%", "100 - 20% = 80",
    "15/60*100 = 25%", "20% of 50 + 50 = 20", "3:45 + 2 = 5:45", "3:45 + 2 = 6", "2024-01-02 = 5 - 3", "3-5 = 3 pages",
    "3-5 * 2 = 6-10", "5 - 8 = 3 - 5", "3 + 4 = 1.2.3", "v1.2 + 3 = 5", "http://x.org/?q=3+4=8", "i += 1", "x -= 3+4",
    "3 + 4 == 8", "3 + 4 != 8",
    "3 + 4 <= 8", "3 + 4 >= 2", "3 + 4 ≠ 8", "3 + 4 < 8 = 9", r"3 + 4 \neq 8", r"3 + 4 \le 8", "3 + 4 := 8", "7/2 = 3 1/2",
    "7/2 = 3 and 1/2", "7/2 = 3 remainder 1", "7/2 = 3 R1", "7/2 = 3, remainder 1", "7 / 2 = 3 with 1 left", "17*5 = 1 mod 7",
    r"17*5 = 1 \pmod{7}", "5! = 60*3", "3 + 4 = 4!", "3! + 1 = 4", "3 + 4 = 8?", "is 3 + 4 = 8 wrong", "3 + 4 is not 3 * 3 = 8",
    "2 weeks + 3 days = 17 days", "1 hour / 4 = 15 minutes", "3 dozen * 2 = 72", "5 * 200 = 1 thousand", "2 pi * 3 = 18.84",
    "half of 10 + 4 = 9", "he says that roughly half of 10 + 4 = 9",
    "twice 5 + 3 = 13", "3 squared + 1 = 10", "sqrt(9+7) = 4", "f(2+3) = 10", r"\sqrt{9+7} = 4",
    "max(1, 2 + 3) = 6", "f(3, 4) = 3 + 5", "|3 - 5| = 2", "a[1+1] = 3", "10/3 = 3.333...", "1 + 2 + ... + 10 = 55",
    "0,5 * 3 = 1,5", "3e5 + 1 = 2", "0x10 + 1 = 17", "007 + 1 = 9", "3 + 4 = seven", "3 + 4 =", "= 3 + 4",
    "3 + = 7", "3 * (4 = 12", "3 + 4) * 2 = 15", "2 * (3 + 4 = 7)", "12\n+ 3*2 = 6", "10 % 3 = 1", "-2^2 = 4", "2^3^2 = 64",
    "2^0.5 = 1.41", "5--3 = 9", "7 // 2 = 4", "3 ⊕ 4 = 8", "add 5 to 3 * 2 = 11", "3 less than 2 * 5 = 7", "4 °C + 3 = 8",
    "2^99999999 = 5", "9^64^64 = 1", "(9^64)^64 = 1", "1" * 31 + " + 1 = 2", "1+" * 200 + "1 = 7", "2 cm * 3 cm = 6 cm²",
    "5 cm * 4 cm = 20 cm^2", "60 km/h * 2 = 100 km", "Step 2 - 3*4 = 12", "12 : 3*2 = 9", r"3 + \alpha = 7", "cost = price = 3",
    "40 nickels = 40 * 0.05 = 2 + 1 - x", "day 2 = 3 + 5", "2 kg = 2 * 1000", "1 - 2/3 = 1/3 of 150", "28/1/5 = 28 * 5",
    "9 / 20 * 100% = 45", "50 * 20% = 1000", "price is 3/4 which gives the whole = 7", "find x 3 * 4 = 13",
    "10 pages on day 1 * 2 = 20", "3 + 4 ≈ 2 * 4", "3² + 4² = 26", "½ + 1 = 2", "3 5 + 1 = 7", "x_1 + 3 = 4",
    "3'6 + 1 = 5", "5 * 3-day = 16", "12 eggs = 3 + 9x",
    r"\frac{50}{100}\% * 2 = 0.01", "Plan 2 = 3 + 5", "the other 10 = 62300 / 100", "x = 9 because -18 / -2 = 9", "3 + 5 = 7 n",
    "3 a b + 4 = 8", "(3 + 5] = 7", "x.5 * 2 = 10", "end.5 * 2 = 10", "area(2+3) = 10", "list[1+1] = 3", "3 of 5 * 2 = 6",
    "cout << 4 + 5 = 8", "5 ++ 3 = 9",
    "10 = 2 * 5 of the 10", "1 << 3 = 8 + 1", "`i=3+j`", "3 ± 4 = 8", "𝟑 + 4 = 8", "٣ + 4 = 8", "3 + 4 = 8!",
]  # fmt: skip


OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def score(thought, **options):
    return step_check([f"<think>{thought}</think>7"], **options)[0]


@pytest.mark.parametrize(
    ("thought", "reward"), [*((t, 1.0) for t in TRUE), *((f, 0.0) for f in FALSE), *((u, None) for u in UNREAD)]
)
def test_one_thought(thought, reward):
    assert score(thought) == reward
    assert score(f"So:\n{thought}\nDone.") == reward


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("<think>3+4=7", None), ("3+4=7", None), ("", None), ("<think></think>3+4=7", None), ("<think>3+4=8</think>3+4=7", 0.0),
        ("3+4=7</think>7", 1.0), ("<think>3+4=7</think>3+4=8", 1.0),
        ([{"role": "assistant", "content": "<think>3+4=7</think>7"}], 1.0), ([{"role": "assistant", "content": None}], None),
    ],
)  # fmt: skip
def test_only_the_closed_thought_is_read(completion, reward):
    assert step_check([completion], answer=["7"], trainer_state=None) == [reward]


@pytest.mark.parametrize(
    ("thought", "reward"),
    [
        ("3+4=7 so 3*4=13", 0.5), ("2+3 = 5 = 10/3", 0.5), ("x = 5; 3+4 = 7; 3+5 = 9; 1+x = 2; 2*2 = 4; 9/3 = 3", 0.75),
        ("2*(3+4)\n= 2*7\n= 15", 0.5), ("48/2 = <<48/2=24>>25", 0.5), ("3+4=8. No, 3+4=7.", 0.5), ("3+4=8; 3+4=9", 0.0),
    ],
)  # fmt: skip
def test_the_reward_is_a_share(thought, reward):
    assert score(thought) == pytest.approx(reward)


WRONG_ONE = "17*23=401; "


@pytest.mark.parametrize(
    "spam",
    [
        "3+4=7; " * 50, "3+4=7; 4+3=7; 7=3+4; 3+4=7.0; 3.0+4=7; (3+4)=7; $3 + $4 = $7; 3 eggs + 4 eggs = 7 eggs; 3+4≈7; ",
        "10/3=3.33; 10/3=3.333; 10/3=3.3333; 10/3≈3; 10/3≈3.3; ", "3+4=7; <<3+4=7>>7 <<4+3=7>>7 ",
    ],
)  # fmt: skip
def test_the_same_sum_is_paid_once(spam):
    assert score(WRONG_ONE + spam) == 0.5


@pytest.mark.parametrize(
    "spam",
    [
        "5=5; ",
        "0+0=0; ",
        "1*1=1; ",
        "7*1=7; 0+8=8; 9/1=9; 9-0=9; 4^1=4; 0*5=0; ",
        "2+3=2+3; 3*5=5*3; (2+3)=2+3; x+0=x; ",
    ],
)
def test_what_is_true_for_free_is_not_paid(spam):
    assert score(spam * 20) is None
    assert score(WRONG_ONE + spam * 20) == 0.0


def test_a_right_sum_does_not_hide_a_wrong_one_with_the_same_numbers():
    assert score("2*(3+4) = 14; 2*3+4 = 14") == 0.5
    assert score("7-4 = 3; 4-7 = -4") == 0.5


def test_min_equations():
    thought = "3+4=7; 3+4=7; 3*4=12; 17*23=401"
    assert [score(thought, min_equations=n) for n in (1, 3, 4)] == [2 / 3, 2 / 3, None]


@pytest.mark.parametrize("found", [0, -1, 1.5, True, "2", None])
def test_min_equations_is_a_whole_number(found):
    with pytest.raises(ValueError, match=r"min_equations=.*allowed: whole numbers from 1"):
        step_check([], min_equations=found)


def random_equation(rng):
    """Return a left side, and its value, in one of the spellings that a thought may use."""
    kind, a, b, c = rng.randrange(8), rng.randint(2, 999), rng.randint(2, 99), rng.randint(2, 9)
    return [
        (f"{a} + {b}", a + b),
        (f"${a + b} - ${b}", a),
        (f"{a} x {b}", a * b),
        (f"{a * b:,} / {b}", a),
        (rf"\frac{{{a * c}}}{{{c}}} \times {b}", a * b),
        (f"({a} - {b}) * {c}", (a - b) * c),
        (f"{c}^{b % 5 + 2} + {a}", c ** (b % 5 + 2) + a),
        (f"{b}% of {a * 100}", a * b),
    ][kind]


@pytest.mark.parametrize("seed", range(10))
def test_random_true_equations_are_all_paid_and_one_changed_result_is_seen(seed):
    rng = random.Random(seed)
    sums = dict(random_equation(rng) for _ in range(30))
    words = ["So ", "Then we have ", "\n- ", "\n", "; ", ". ", "and so ", "Total: "]

    def write(found):
        return "".join(f"{rng.choice(words)}{left} = {value}. " for left, value in found.items())

    assert score(write(sums)) == 1.0
    changed = rng.choice(list(sums))
    wrong = score(write(sums | {changed: sums[changed] + rng.choice([-2, -1, 1, 10])}))
    assert 1 - 2 / len(sums) < wrong < 1.0


@pytest.mark.parametrize("seed", range(10))
def test_random_expressions_are_worked_out(seed):
    rng = random.Random(seed)

    def expression(depth):
        """Return a text and its value, None where it divides by zero."""
        if depth == 0 or rng.random() < 0.2:
            number = rng.randint(2, 12)
            return str(number), Fraction(number)
        (left, a), (right, b), sign = expression(depth - 1), expression(depth - 1), rng.choice("+-*/")
        value = None if None in (a, b) or (sign == "/" and b == 0) else OPERATORS[sign](a, b)
        return f"({left} {sign} {right})", value

    for _ in range(20):
        (left, a), (right, b), sign = expression(3), expression(2), rng.choice("+-*")
        if None in (a, b):
            assert score(f"2 * {left} {sign} {right} = 7") == 0.0
        else:
            value = OPERATORS[sign](2 * a, b)
            assert score(f"2 * {left} {sign} {right} = {value}") == 1.0
            assert score(f"2 * {left} {sign} {right} = {value + 3}") == 0.0


@pytest.mark.parametrize("seed", range(10))
def test_no_text_breaks_it(seed):
    rng = random.Random(seed)
    bits = [
        *"0123456789.,:;!?+-*/^%=≈()[]{}<>$&\\|#x \n",
        "**",
        "<<",
        ">>",
        " of ",
        r"\frac",
        r"\text{",
        "{,}",
        "eggs",
        "and",
        "½",
    ]
    for _ in range(100):
        reward = score("".join(rng.choices(bits, k=rng.randint(1, 60))))
        assert reward is None or 0.0 <= reward <= 1.0


FLOODS = [
    "=", "(", "7", "1+", "1=1", " ", "\n", "1+1=2;", "1+1=2\n", "((1)", ")", "{", "-", "- ", "\n- ", "**", " **", ".", "1.", ",",
    "1,", "1,000", "<<", "<<1>>", "\\", r"\text{", r"\text{a", r"\frac{", r"\begin{", "a ", "a 1 ", "a(", "3 eggs * ", "=1",
    "=a 1 a ", "≈", "1%", "2^9^", "1!", "x2", "1 x ", "20% of ", "1/0=", "http://", "_", "１", "\t", "{,}", "1{,}", "0x",
]  # fmt: skip


def took(text):
    return seconds(lambda: step_check([f"<think>{text}</think>7"]), repeat=1)


@pytest.mark.parametrize("bit", FLOODS)
def test_a_flood_costs_linear_time(bit):
    short, long = ((bit * n)[:n] for n in (50_000, 200_000))
    assert any(took(long) < min(2.0 * slowness(), 8 * took(short)) for _ in range(3)), (
        "4 times is linear, 16 times is quadratic"
    )


def test_a_flood_of_distinct_sums_is_judged():
    thought = ";".join(f"{i}+{i * 7 % 1000}={i + i * 7 % 1000}" for i in range(2, 8_000))
    assert score(thought) == 1.0


@pytest.mark.parametrize(
    "thought", ["(" * 100_000 + "1+1=3", "(" * 60 + "1+1" + ")" * 60 + "=3", "2*" + "- " * 50 + "1=3"]
)
def test_nesting_never_ends_in_a_recursion_error(thought):
    assert score(f"3+4=7; {thought}") in (1.0, 0.5)


def test_large_values_cost_little():
    towers = (f"2^64*3^64*5^64*7^64*11^64*{i}^64 + 1/{i}^64 + 9^9^9^9 + ({i}^64)^64 = {i}" for i in range(2, 2000))
    assert took("; ".join(towers)) < 2 * slowness()
