"""`check` tries rewards on made-up completions and reads all golds, before any model is loaded."""

import json
from types import SimpleNamespace

import pytest
from datasets import Dataset

from reasoning_ext.check import trial
from reasoning_ext.check.show import check_and_print
from reasoning_ext.check.trial import COPIED, GOLD, ROWS, THOUGHT_ALONE, WRONG
from reasoning_ext.recipe.load import load_recipes
from reasoning_ext.scoring.spec import parse_rewards
from reasoning_ext.verifier import judge

TRIED = [
    {"prompt": [{"role": "user", "content": f"Row {a + 20}"}], "answer": gold}
    for a, gold in enumerate(["58", r"$\frac{1}{2}$", r"so \boxed{5}", "94"])
]
MINE = """\
import re

def boxes(completion):
    text = completion[-1]["content"] if isinstance(completion, list) else completion
    return re.findall(r"boxed{([^}]*)}", text.rpartition("</think>")[2])

def mentions(completions, answer, **kwargs):
    return [float(gold in str(c)) for c, gold in zip(completions, answer)]

def any_box(completions, answer, **kwargs):
    return [float(gold in boxes(c)) for c, gold in zip(completions, answer)]

def any_number(completions, answer, **kwargs):
    return [float(len(boxes(c)) == 1) for c in completions]

def bare_box(completions, answer, **kwargs):
    return [float(boxes(c) == [gold.strip("$")]) for c, gold in zip(completions, answer)]

def of_another_column(completions, label, **kwargs):
    return [float(boxes(c)[-1:] == [gold]) for c, gold in zip(completions, label)]

def nothing(completions, **kwargs):
    return [None for _ in completions]

def fails(completions, **kwargs):
    raise ValueError("not today")

async def waits(completions, **kwargs):
    raise AssertionError("a server is not asked by check")
"""
RECIPE = """\
stage: sample
model_name_or_path: org/m
dataset_name: rows.jsonl
dataset_format: prompt_completion
reward_funcs: [math_answer]
max_completion_length: 16
num_generations: 8
output_dir: run
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def test_math_answer_pays_for_the_gold_alone_as_it_stands(mine):
    specs = parse_rewards(["math_answer", "think_format", "./mine.py:waits"], mine)
    tables = trial.try_rewards(specs, TRIED)
    assert len(tables) == 4
    for table in tables:
        assert {what: values["math_answer"] for what, values in table.items()} == {w: float(w == GOLD) for w in table}
    mean = trial.means(tables)
    assert mean[WRONG]["think_format"] == 1.0 and mean["a flood of tags"]["think_format"] == 0.0
    assert trial.overpaid(mean, {"math_answer": 1.0, "think_format": 0.5}) == {}
    row = {"prompt": "x", "answer": ["red", "blue"]}
    assert trial.made_up(row, "2")[GOLD].endswith(r"\boxed{red}")
    assert trial.made_up(row, "2", True)[GOLD].endswith(r"\boxed{red, blue}")
    odd = [None, float("nan"), {"a": 1}, [None], " ", b"5", 0, ["5", None]]
    assert [trial.golds_of(gold) for gold in odd] == [[], [], [], [], [], [], ["0"], ["5"]]


def test_a_mean_is_over_the_rows_that_a_reward_applies_to():
    tables = [{GOLD: {"a": 1.0, "b": None}}, {GOLD: {"a": None, "b": None}}, {GOLD: {"a": 0.0, "b": None}}]
    assert trial.means(tables) == {GOLD: {"a": 0.5, "b": None}} and trial.means([]) == {}


def test_a_reward_that_hangs_is_given_up(mine, monkeypatch):
    monkeypatch.setattr(trial, "SECONDS", 0.05)
    monkeypatch.setattr(trial, "call_reward", lambda reward, **_: __import__("time").sleep(2))
    with pytest.raises(ValueError, match="give it a timeout"):
        trial.try_rewards(parse_rewards(["./mine.py:mentions"], mine), TRIED)


def wrong(*golds, prompt="?"):
    return trial.wrong_answers([{"prompt": prompt, "answer": gold} for gold in golds])


def test_a_wrong_answer_is_another_rows_gold_of_another_value_or_made_up():
    assert wrong("58", "94") == ["94", "58"]
    assert wrong("1/2", "0.5", "7") == ["7", "7", "1/2"]
    assert wrong("Paris", "58", "Rome", "94")[:2] == ["Rome", "94"]  # of its kind
    assert wrong("60", "60%", "7", prompt="What percent is it?") == ["7", "7", "60"]
    assert wrong("no solution", "No solutions", "Paris") == ["Paris", "Paris", "no solution"]
    assert wrong("B", "(b)", "B. Paris", "C") == ["C", "C", "C", "B"] and wrong("B", "b. the long one")[0] == "A"
    assert wrong(["1/2", "half"], "0.5", 7)[0] == "7"
    for gold in ("5", r"$\frac12$", "x+1", "1/2", "-7"):  # where all golds are equal
        [one, two] = wrong(gold, gold)
        assert one == two and judge(gold, rf"\boxed{{{one}}}").right is False
    assert (
        wrong("5", "5") == ["6", "6"] and wrong("yes", "Yes") == ["zebra", "zebra"] and wrong("A", "(a)") == ["B", "B"]
    )


def test_rows_are_drawn_from_all_of_the_data(tmp_path):
    rows = [
        {"prompt": str(i), "answer": None if i % 2 else i, "task": "rare" if i == 500 else "math"} for i in range(1000)
    ]
    drawn = trial.draw(parse_rewards(["math_answer"], tmp_path), rows)
    assert [int(row["prompt"]) // 125 for row in drawn] == list(range(ROWS))
    assert all(row["answer"] is not None for row in drawn)
    for data in (rows, Dataset.from_list(rows)):
        specs = parse_rewards(["math_answer", {"exact_answer": {"when": {"task": ["rare", "math"]}}}], tmp_path)
        assert "500" in [row["prompt"] for row in trial.draw(specs, data)]


@pytest.fixture
def check(tmp_path, write_recipe, mine, monkeypatch, capsys):
    """Check a recipe with these golds and rewards; returns the exit code, what was printed, and the findings' codes and texts."""
    monkeypatch.chdir(tmp_path)

    def call(golds, rewards="[math_answer]", extra="", more=()):
        rows = [{"prompt": f"Row {i + 500}", "completion": "x", "answer": gold} for i, gold in enumerate(golds)]
        rows = [row | dict(added) for row, added in zip(rows, more, strict=True)] if more else rows
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_recipe(RECIPE.replace("[math_answer]", rewards) + extra)
        code = check_and_print(load_recipes(["r.yaml"]), [], offline=True, show=0, as_json=True)
        [recipe] = json.loads(capsys.readouterr().out)["recipes"]
        found = [f for f in recipe["findings"] if f["code"] not in ("not_rendered", "repeated_rows")]
        assert code == (2 if any(f["level"] == "error" for f in found) else 0)
        said = [(f["level"], f["code"]) for f in found]
        return SimpleNamespace(code=code, facts=recipe["facts"], said=said, text="\n".join(f["text"] for f in found))

    return call


def test_golds_are_read_and_rewards_tried_without_torch(check, cli):
    check(["1", "2", "3"])
    result = cli("check", "--offline", "r.yaml")
    assert result.code == 0 and "torch" not in result.heavy and "sympy" not in result.heavy
    assert "golds: 3 read, 0 of them unreadable (0.00%); numbers 3\n" in result.out
    assert "the gold                       math_answer 1\n" in result.out and result.out.strip().endswith("ok")


@pytest.mark.parametrize(
    ("golds", "warned"),
    [
        (["3,5", "7", "1.234,5 m"], "2 of 3"),
        (["3,5", "0,125", "2.5"], ""),
        (["1,234", "12,345,678"], ""),
        (["3, 5", "(1,2)"], ""),
    ],
)
def test_golds_with_decimal_commas_are_told_of_where_none_has_a_point(check, golds, warned):
    result = check(golds)
    assert (("warning", "decimal_commas") in result.said) == bool(warned) and warned in result.text


def test_golds_that_cannot_be_read_are_refused(check):
    golds = ["1"] * 97 + ["forty two", "x+", "two and two"]
    result = check(golds)
    assert result.said == [("error", "unreadable_golds")] and "row 97: 'forty two'" in result.text
    assert result.facts["golds"].startswith("100 read, 3 of them unreadable (3.00%): row 97: 'forty two'")
    assert check(golds, extra="max_unreadable_golds: 0.05\n").code == 0 and check(["1"] * 200 + ["forty two"]).code == 0
    judged = check(["1"] * 20 + ["forty two"] * 20, "[math_answer: {when: {answer: ['1']}}]")
    assert judged.code == 0 and judged.facts["golds"].startswith("20 read, 0 of them unreadable")
    words = ["Paris", "no solution", "New York", "x+1", "5"]
    result = check(words)
    assert result.said == [("warning", "golds_are_words")] and result.facts["golds"].endswith(
        "numbers 1, formulas 1, words 3"
    )
    assert check([*words, "7"]).said == check(words, "[exact_answer]").said == []


TASK = [{"task": "rare" if i == 170 else "math", "label": str(i)} for i in range(300)]
REFUSED = [  # golds, rewards, further columns, what is said to earn as much
    (3, "[math_answer: {weight: 0.0}, ./mine.py:mentions]", (), [THOUGHT_ALONE]),
    (3, "[./mine.py:any_number]", (), [WRONG, "a short wrong answer"]),
    (
        3,
        "[math_answer, think_format: {weight: 0.1}, length_penalty: {weight: 50}]",
        (),
        ["nothing", "length_penalty x 50"],
    ),
    (3, "[math_answer, think_format: {weight: -2}]", (), ["nothing", "think_format x -2"]),
    (300, "[math_answer: {when: {task: math}}, ./mine.py:any_number: {when: {task: rare}}]", TASK, [WRONG, "on 1 of "]),
]


@pytest.mark.parametrize(("count", "rewards", "more", "said"), REFUSED)
def test_what_is_wrong_beyond_dispute_may_not_earn_as_much(check, count, rewards, more, said):
    result = check([str(i + 1) for i in range(count)], rewards, more=more)
    assert ("error", "wrong_answer_paid") in result.said and all(part in result.text for part in said)


@pytest.mark.parametrize(
    ("golds", "rewards", "more"),
    [
        (["1", "2", "3"], "[math_answer, think_format: {weight: 0.9}, language]", ()),
        (["1", "2", "3"], "[math_answer: {weight: 0.1}, ./mine.py:mentions]", ()),  # the box still decides
        (["1", "2", "3"], "[math_answer, length_penalty: {weight: 5}]", ()),
        ([["red", "blue"], ["green"]], "[exact_answer: {match: all}]", ()),
        ([["red", "blue"], ["green"]], "[exact_answer]", ()),
        (["A", "(a)", "B. Paris"], "[choice_answer]", [{"choices": ["Rome", "Paris"]}] * 3),
        (["$5$", "6", "7"], "[math_answer]", ()),
        ([row["label"] for row in TASK], "[math_answer: {when: {task: math}}, ./mine.py:of_another_column: {when: {task: rare}}]",
         TASK),
    ],
)  # fmt: skip
def test_what_pays_the_gold_most_is_no_finding(check, golds, rewards, more):
    assert check(golds, rewards, more=more).said == []


def test_trls_accuracy_reward_reads_boxes_in_the_thought(check):
    pytest.importorskip("math_verify")
    result = check(["1", "2", "3"], "[accuracy_reward]")
    assert result.said == [("error", "wrong_answer_paid")] and f"{THOUGHT_ALONE} earns" in result.text


def test_two_boxes_and_copied_prompts_that_are_paid_are_warnings(check):
    assert check(["1", "2", "3"], "[./mine.py:any_box]").said == [("warning", "doubtful_pay")] * 2
    more = [{"prompt": r"17 \times 23"}, {"prompt": "What is it?"}, {"prompt": "What is 2^5?"}]
    result = check(["391", "2", "32"], more=more)
    assert result.said == [("warning", "doubtful_pay")] and "on 1 of 3 rows" in result.text and COPIED in result.text
    assert check(["391", "2", "32"], "[math_answer: {evaluated: true}]", more=more).said == []


def test_what_was_not_tried_or_not_told_is_said(check):
    assert check(["1", "2"], "[math_answer, ./mine.py:nothing]").said == [("note", "not_tried")]
    more = [{"task": "a"}, {"task": "b"}]
    rewards = "[math_answer: {when: {task: a}}, language: {when: {task: b}}]"
    assert check(["1", None], rewards, more=more).said == [("note", "not_tried")]
    assert check(["two and two"] * 2, extra="max_unreadable_golds: 1.0\n").said == [("warning", "not_tried")]
    assert check([None, None], "[language]").said == check(["1", "2"], "[think_format]").said == [("note", "not_tried")]
    result = check(["$5$", "6", "7"], "[./mine.py:bare_box, math_answer]")
    assert result.said == [("warning", "gold_not_told")] and "on 1 of 3 rows" in result.text
    both = check(["1", "2"], "[./mine.py:any_number, ./mine.py:waits]").said  # what waits may put the order right
    assert sorted(both) == [("note", "not_tried"), ("warning", "wrong_answer_paid")]


def test_a_reward_that_fails_and_all_else_that_is_wrong_is_told(check):
    result = check(["1", "2", "3"], "[./mine.py:fails]")
    assert result.said == [("error", "reward_failed")] and "ValueError: not today" in result.text
    assert check(["1", "2"], "[math_answer: {seconds: 0}]").said == [("error", "reward_failed")]
    result = check(["forty two"] * 8, "[./mine.py:mentions, math_answer: {weight: 0.1}]")
    assert {("error", "unreadable_golds"), ("error", "wrong_answer_paid")} <= {*result.said}


def test_a_sample_that_could_accept_nothing_is_warned_of(check):
    assert check(["1", "2"], extra="min_reward: 1.5\n").said == [("warning", "min_reward_too_high")]
    assert check(["1", "2"], extra="min_reward: 1.0\n").said == []
