r"""Regions of the real line: the same set however it is written, and near misses."""

import pytest

from reasoning_ext.verifier.regions import equal_regions, read_region

SAME = [
    # one interval
    ("x > 2", r"(2, \infty)"), ("x > 2", "2 < x"), (r"x \le 3", r"(-\infty, 3]"), (r"1 \le x < 4", "[1, 4)"),
    (r"4 > x \ge 1", "[1, 4)"), ("]0, 1[", "(0, 1)"), ("[0, 1[", "[0, 1)"), (r"x \in [0, 1]", r"0 \le x \le 1"),
    ("|x| < 2", "(-2, 2)"), (r"|x-1| \le 3", "[-2, 4]"), ("2x > 6", "x > 3"), ("x^2 < 4", "(-2, 2)"),
    (r"(\sqrt{2}, \pi)", r"\sqrt{2} < x < \pi"), (r"[\frac12, 1]", "[0.5, 1]"), ("t > 2", "t > 2"),
    ("x > 2", r"\{x \mid x > 2\}"), (r"f(x) \ge 1", r"[1, \infty)"), ("(-infinity, 3)", "x < 3"),
   
    # several pieces
    (r"x < 1 \text{ or } x > 3", r"(-\infty, 1) \cup (3, \infty)"), ("x < 1 or x > 3", "x > 3 or x < 1"),
    (r"x < 1 \lor x > 3", r"(-\infty,1) \cup (3,\infty)"), (r"x > 1 \text{ and } x < 3", "(1, 3)"),
    ("x > 1, x < 3", "(1, 3)"), (r"(0, 5) \cap (3, 9)", "(3, 5)"), (r"(0, 2) \cup [2, 3)", "(0, 3)"),
    ("x^2 > 4", r"(-\infty, -2) \cup (2, \infty)"), (r"[1, 2] \cup \{5\}", r"\{5\} \cup [1, 2]"),
    # all but some, all, none
    (r"\mathbb{R} \setminus \{3\}", r"(-\infty, 3) \cup (3, \infty)"), (r"x \neq 3", r"\mathbb{R} \setminus \{3\}"),
    (r"\mathbb{R} - \{0, 1\}", r"x \neq 0, x \neq 1"), (r"\mathbb{R}", r"(-\infty, \infty)"),
    ("all real numbers", r"x \in \mathbb{R}"), (r"\emptyset", r"(0, 1) \cap (2, 3)"), (r"x^2 \ge 0", r"\mathbb{R}"),
    (r"\{x : 0 < x < 1\}", "(0, 1)"), (r"\{x \in \mathbb{R} \mid x \ge 2\}", r"[2, \infty)"), (r"\{0 < x < 1\}", "(0, 1)"),
    # letters in the ends
    ("(a, b)", "a < x < b"), ("x > a+1", r"(1+a, \infty)"), ("[a, 2a]", r"a \le x \le a+a"),
]  # fmt: skip
OTHER = [
    ("x > 2", r"[2, \infty)"), ("x > 2", r"x \ge 2"), ("x > 2", "x < 2"), ("x > 2", "x > 3"), ("[1, 4)", "[1, 4]"),
    ("[1, 4)", "(1, 4)"), ("]0, 1[", "[0, 1]"), (r"|x| < 2", "(0, 2)"), ("x^2 < 4", r"[-2, 2]"),
    (r"(\sqrt{2}, \pi)", "(1.41, 3.14)"), ("x > 2", "y > 2"), ("2x > 6", "x > 6"), (r"x < 1 \text{ or } x > 3", "(1, 3)"),
    (r"x < 1 \text{ or } x > 3", r"x < 1 \text{ and } x > 3"), (r"(0, 2) \cup (2, 3)", "(0, 3)"),
    (r"[1, 2] \cup \{5\}", "[1, 5]"), (r"[1, 2] \cup \{5\}", r"[1, 2] \cup \{6\}"),
    (r"\mathbb{R} \setminus \{3\}", r"\mathbb{R}"), (r"x \neq 3", "x > 3"), (r"\mathbb{R}", r"(0, \infty)"),
    (r"\emptyset", "(0, 1)"), (r"x^2 > 0", r"\mathbb{R}"), ("(a, b)", "(b, a)"), ("[a, 2a]", "[a, 3a]"), ("x > a", "x > b"),
    (r"\{x \mid x > 2\}", r"\{x \mid x < 2\}"),
]  # fmt: skip


@pytest.mark.parametrize(("equal", "table"), [(True, SAME), (False, OTHER)])
def test_regions_are_compared_as_sets(equal, table):
    assert [pair for pair in table if equal_regions(*pair) is not equal] == []
    assert [pair for pair in table[::4] if equal_regions(*pair[::-1]) is not equal] == []


@pytest.mark.parametrize(
    "pair",
    [
        ("x > 2", "3"), ("7", "(1, 2)"), (r"\{1, 2\}", r"\{2, 1\}"), ("x = 2", "x > 2"), ("no solution", r"\emptyset"),
        ("x > 2", "x >"), (r"\{1\}", "1"),
    ],
)  # fmt: skip
def test_what_is_no_region_is_not_decided(pair):
    assert equal_regions(*pair) is None


def test_a_region_is_a_union_of_intersections():
    kinds = [
        [piece.kind for piece in part]
        for part in read_region(r"x < 1 \text{ or } x > 2 \text{ and } x \neq 5 \text{ or } \{7\}")
    ]
    assert kinds == [["chain"], ["chain", "chain"], ["set"]]
    ((piece,),) = read_region(r"\mathbb{R} \setminus \{3\}")
    assert (piece.kind, piece.without.kind) == ("all", "set")
    assert read_region("(2, 3]")[0][0].signs == ("(", "]") and read_region("x + 1") is None
