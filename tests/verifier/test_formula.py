r"""Formulas as trees: precedence, products without a sign, arguments without brackets, and what is no formula.

Trees are written in brackets here, `(+ 1 (* 2 x))`; constants, `<pi>`, are not letters.
"""

import pytest

from reasoning_ext.verifier.formula import MAX_LENGTH, holds, letters, read, renamed


def written(tree):
    """Write a tree in brackets."""
    if tree[0] == "number":
        return str(tree[1])
    if tree[0] in ("letter", "constant"):
        return tree[1] if tree[0] == "letter" else f"<{tree[1]}>"
    return f"({' '.join([tree[0], *map(written, tree[1:])])})"


TREES = [
    # precedence and signs
    ("1+2*3", "(+ 1 (* 2 3))"), ("2-3-4", "(+ 2 (- 3) (- 4))"), ("-x^2", "(- (^ x 2))"), ("(-x)^2", "(^ (- x) 2)"),
    ("2^3^2", "(^ 2 (^ 3 2))"), ("x^-2", "(^ x (- 2))"), ("2^10", "(^ 2 10)"), ("2*-3", "(* 2 (- 3))"), ("--3", "3"),
    ("7 \\bmod 3+1", "(+ (mod 7 3) 1)"),
    # products without a sign, and where a denominator ends
    ("2x^2y", "(* 2 (^ x 2) y)"), ("1/2x", "(* (/ 1 2) x)"), ("a/bc", "(/ a (* b c))"), ("a/b*c", "(* (/ a b) c)"),
    (r"\frac12x", "(* (/ 1 2) x)"), (r"\frac{x}{2}3", "(* (/ x 2) 3)"), ("(x+1)(y-1)", "(* (+ x 1) (+ y (- 1)))"),
    ("[x+1]/2", "(/ (+ x 1) 2)"), ("k(x+1)", "(* k (+ x 1))"),
    # arguments of functions
    (r"\sin x \cos x", "(* (sin x) (cos x))"), (r"\sin 2x", "(sin (* 2 x))"), (r"\sin(x)y", "(* (sin x) y)"),
    (r"\sin x+1", "(+ (sin x) 1)"), (r"\sin^2 x", "(^ (sin x) 2)"), (r"\sin^{-1} x", "(arcsin x)"),
    (r"\tan -x", "(tan (- x))"), ("sinx", "(sin x)"), (r"\log_2 8", "(log 8 2)"), (r"\log_2(x+1)", "(log (+ x 1) 2)"),
    (r"\log x", "(log x)"), (r"\lg x", "(log x 10)"), (r"\sqrt[3]{x}y", "(* (root x 3) y)"), (r"\sqrt16", "(root 16 2)"),
    ("exp(2x)", "(^ <e> (* 2 x))"), ("gcd(4, 6)", "(gcd 4 6)"), (r"\binom{n}{2}", "(binomial n 2)"),
    # numbers
    (r"3\frac17", "22/7"), ("3 1/7", "22/7"), (r"x\frac17", "(* x (/ 1 7))"), (r"0.1\overline{6}", "1/6"),
    (r"1.\dot3", "4/3"), ("1,000x", "(* 1000 x)"), ("1.5e3", "1500"), ("2e", "(* 2 <e>)"), ("50%", "(/ 50 100)"),
    ("n!+5!!", "(+ (factorial n) (factorial2 5))"),
    # names
    ("x_1+x_{12}y'", "(+ x_1 (* x_12 y'))"), (r"\alpha\theta_0", r"(* \alpha \theta_0)"),
    (r"\vec v+\overline{AB}", r"(+ \vec v \overline AB)"), (r"\overline{3+4i}", "(conjugate (+ 3 (* 4 <i>)))"),
    ("f(x)+f'(x)", "(+ (apply f x) (apply f' x))"), ("g(x, y)", "(apply g x y)"), (r"x\frac{dy}{dx}", "(* x dy/dx)"),
    (r"\text{e}^x", "(^ <e> x)"),
    # degrees and absolute values
    (r"\sin 30^\circ", "(sin (degrees 30))"), (r"30^{\circ}+x", "(+ (degrees 30) x)"), ("2|x-1|", "(* 2 (abs (+ x (- 1))))"),
    (r"\lfloor x \rfloor", "(floor x)"),
    # ASCII and Maxima
    ("sqrt(3)/2", "(/ (root 3 2) 2)"), ("x**2*y", "(* (^ x 2) y)"), ("%pi/2+%e^(2*x)", "(+ (/ <pi> 2) (^ <e> (* 2 x)))"),
    ("3+4*%i", "(+ 3 (* 4 <i>))"), ("width*2", "(* width 2)"), ("Abs(x)", "(abs x)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "tree"), TREES)
def test_what_a_formula_says(text, tree):
    assert written(read(text)) == tree


@pytest.mark.parametrize(
    "text",
    [
        "", "  ", "no solution", "apples", "x = 1", "x<1", "1, 2", "(1,234)", "1 2", "x+", "*x", r"\frac{1}{", "((x)", "(x]",
        "|x", r"\{1\}", r"\foo{3}", r"\sum_{k=1}^n k", r"\int x\,dx", r"\begin{pmatrix}1&2\end{pmatrix}", r"\frac{d}{dx}x^2",
        r"x \ne 1", "gcd(4)", "sin(1, 2)", "3 1/", r"0.\overline{x}", "x+" * MAX_LENGTH + "x", "2^" * 300 + "2",
        "(" * 500 + "x" + ")" * 500,
        "2^" * 2000 + "2",
    ],
)  # fmt: skip
def test_what_is_no_formula(text):
    assert read(text) is None


def test_letters_are_names_and_not_constants():
    assert letters(read(r"e^{i\pi}+x_1+\theta+f(t)")) == {"x_1", r"\theta", "t", "f()"}
    assert holds(read(r"2\pi"), {"pi"}) and holds(read("|x|"), {"abs"}) and not holds(read("p i"), {"pi"})
    assert renamed(read("x+y"), {"x": "y", "y": "z"}) == read("y+z")
