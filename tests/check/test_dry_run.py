"""`check` tries rewards on made-up completions and reads all golds, before any model is loaded."""

import json
from types import SimpleNamespace

import pytest

from reasoning_ext.check import golds as reward_findings
from reasoning_ext.check import trial
from reasoning_ext.check.show import check_and_print
from reasoning_ext.check.trial import (
    CERTAIN,
    COPIED,
    GOLD,
    RIGHT_FIRST,
    RIGHT_LAST,
    ROWS,
    THOUGHT_ALONE,
    WRONG,
    draw,
    golds_of,
    made_up,
    means,
    overpaid,
    try_rewards,
    wrong_answers,
)  # fmt: skip
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

def last_box(completions, answer, **kwargs):
    return [float(boxes(c)[-1:] == [gold]) for c, gold in zip(completions, answer)]

def any_box(completions, answer, **kwargs):
    return [float(gold in boxes(c)) for c, gold in zip(completions, answer)]

def any_number(completions, answer, **kwargs):
    return [float(len(boxes(c)) == 1) for c in completions]

def bare_box(completions, answer, **kwargs):
    return [float(boxes(c) == [gold.strip("$")]) for c, gold in zip(completions, answer)]

def empty_is_best(completions, **kwargs):
    return [-float(len(str(c)) > 60) for c in completions]

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
stage: grpo
model_name_or_path: org/m
dataset_name: rows.jsonl
dataset_format: prompt_completion
reward_funcs: [math_answer]
max_completion_length: 16
num_generations: 8
per_device_train_batch_size: 8
output_dir: run
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def test_math_answer_pays_for_the_gold_alone(mine):
    specs = parse_rewards(["math_answer", "think_format", "./mine.py:waits"], mine)
    tables = try_rewards(specs, TRIED)
    assert len(tables) == 4 and all(list(table) == list(made_up(TRIED[0], "2")) for table in tables)
    for table in tables:
        assert {what: values["math_answer"] for what, values in table.items()} == {w: float(w == GOLD) for w in table}
    mean = means(tables)
    assert mean[WRONG]["think_format"] == 1.0 and mean["a flood of tags"]["think_format"] == 0.0
    assert overpaid(mean, {"math_answer": 1.0, "think_format": 0.5}) == {}


def test_more_rows_have_more_time(mine, monkeypatch):
    given = []
    monkeypatch.setattr(
        trial, "_within", lambda seconds, reward, completions, **_: given.append(seconds) or [0.0] * len(completions)
    )
    for rows in (TRIED, TRIED * 4):
        try_rewards(parse_rewards(["./mine.py:mentions"], mine), rows)
    assert given == [trial.SECONDS, 2 * trial.SECONDS]


def test_a_mean_is_over_the_rows_that_a_reward_applies_to():
    tables = [{GOLD: {"a": 1.0, "b": None}}, {GOLD: {"a": None, "b": None}}, {GOLD: {"a": 0.0, "b": None}}]
    assert means(tables) == {GOLD: {"a": 0.5, "b": None}} and means([]) == {}


def test_golds_are_tried_as_they_stand():
    assert [made_up(row, "2")[GOLD].rpartition("\n")[2] for row in TRIED] == [
        r"\boxed{58}", r"\boxed{$\frac{1}{2}$}", r"\boxed{5}", r"\boxed{94}",
    ]  # fmt: skip
    row = {"prompt": "x", "answer": ["red", "blue"]}
    assert made_up(row, "2")[GOLD].endswith(r"\boxed{red}") and made_up(row, "2", True)[GOLD].endswith(
        r"\boxed{red, blue}"
    )
    odd = [None, float("nan"), {"a": 1}, [None], " ", b"5", 0, ["5", None]]
    assert [golds_of(gold) for gold in odd] == [[], [], [], [], [], [], ["0"], ["5"]]


def test_who_pays_for_what_is_said(mine):
    table = means(try_rewards(parse_rewards(["./mine.py:mentions", "think_format"], mine), TRIED[:1] + TRIED[3:]))
    found = overpaid(table, {"mentions": 1.0, "think_format": 0.1})
    assert list(found) == [THOUGHT_ALONE, RIGHT_LAST, RIGHT_FIRST]
    assert found[THOUGHT_ALONE] == f"{THOUGHT_ALONE} earns 1.1, the gold 1.1 (mentions 1, think_format 1)"
    alike = {GOLD: {"x": 0.0}, "nothing": {"x": 0.0}}
    assert overpaid(alike, {"x": 1.0}) == {"nothing": "nothing earns 0, the gold 0 (no reward tells them apart)"}


def turners(gold, other, weights):
    """Name the rewards that are said to turn the order round."""
    text = overpaid({GOLD: gold, "nothing": other}, weights).get("nothing", "")
    return [name for name in weights if f"{name} x " in text]


def test_the_rewards_that_turn_the_order_round_are_named():
    gold, nothing = {"right": 1.0, "short": -0.5, "brief": 0.0}, {"right": 0.0, "short": 0.0, "brief": 0.0}
    assert turners(gold, nothing, {"right": 1.0, "short": 1.0, "brief": 1.0}) == []
    assert turners(gold, nothing, {"right": 1.0, "short": 4.0, "brief": 1.0}) == ["short"]
    gold, nothing = {"right": 1.0, "short": -2.0, "brief": -2.0}, {"right": 0.0, "short": 0.0, "brief": None}
    assert turners(gold, nothing, {"right": 1.0, "short": 1.0, "brief": 1.0}) == ["short", "brief"]  # each would do
    assert turners(gold, nothing, {"right": 1.0, "short": 0.3, "brief": 0.3}) == ["short", "brief"]  # only both do
    gold, nothing = {"right": 1.0, "short": -2.0, "brief": -0.1}, {"right": 0.0, "short": 0.0, "brief": 0.0}
    assert turners(gold, nothing, {"right": 1.0, "short": 1.0, "brief": 1.0}) == ["short"]  # brief alone would not
    assert turners({"a": 1.0}, {"a": 1.0}, {"a": 1.0}) == []  # it is paid, and nothing turned round
    assert turners({"a": 1.0}, {"a": 0.0}, {"a": -1.0}) == []


def wrong(*golds, prompt="?"):
    return wrong_answers([{"prompt": prompt, "answer": gold} for gold in golds])


def test_a_wrong_answer_is_another_rows_gold_of_another_value():
    assert wrong("58", "94") == ["94", "58"]
    assert wrong("1/2", "0.5", "7") == ["7", "7", "1/2"]
    assert wrong("Paris", "58", "Rome", "94")[:2] == ["Rome", "94"]  # of its kind
    assert wrong("60", "60%", "7", prompt="What percent is it?") == ["7", "7", "60"]
    assert wrong("14_5", "14", "7", prompt="What is it in base 5?")[0] == "7"
    assert wrong("no solution", "No solutions", "Paris") == ["Paris", "Paris", "no solution"]
    assert wrong("B", "(b)", "B. Paris", "C") == ["C", "C", "C", "B"] and wrong("B", "b. the long one")[0] == "A"
    assert wrong(["1/2", "half"], "0.5", 7)[0] == "7"


def test_a_wrong_answer_is_made_up_where_all_golds_are_equal():
    for gold in ("5", r"$\frac12$", "x+1", "1/2", "-7"):
        [one, two] = wrong(gold, gold)
        assert one == two and judge(gold, rf"\boxed{{{one}}}").right is False
    assert wrong("5", "5") == ["6", "6"] and wrong("4711.0", "4711.0")[0] == "-0.128"
    assert wrong("yes", "Yes") == ["zebra", "zebra"] and wrong("zebra", "zebra") == ["umbrella"] * 2
    assert wrong("A", "(a)") == ["B", "B"] and wrong("c", "c") == ["A", "A"]


def test_rows_are_drawn_from_all_of_the_data(tmp_path):
    from datasets import Dataset

    rows = [
        {"prompt": str(i), "answer": None if i % 2 else i, "task": "rare" if i == 500 else "math"} for i in range(1000)
    ]
    drawn = draw(parse_rewards(["math_answer"], tmp_path), rows)
    assert [int(row["prompt"]) // 125 for row in drawn] == list(range(ROWS))
    assert all(row["answer"] is not None for row in drawn)
    for data in (rows, Dataset.from_list(rows)):
        specs = parse_rewards(["math_answer", {"exact_answer": {"when": {"task": ["rare", "math"]}}}], tmp_path)
        assert "500" in [row["prompt"] for row in draw(specs, data)]
        specs = parse_rewards([{"exact_answer": {"when": {"task": "rare", "answer": 2}}}], tmp_path)
        assert "500" not in [row["prompt"] for row in draw(specs, data)]
    assert draw(specs, [{"prompt": "1", "answer": None, "task": "rare"}]) == []


@pytest.fixture
def write(tmp_path, write_recipe, mine):
    """Write golds into rows.jsonl, and a recipe for them with some of its parts replaced, into r.yaml."""

    def call(golds, extra="", more=(), **changes):
        rows = [{"prompt": f"Row {i + 500}", "completion": "x", "answer": gold} for i, gold in enumerate(golds)]
        rows = [row | dict(added) for row, added in zip(rows, more, strict=True)] if more else rows
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        text = RECIPE
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        write_recipe(text + extra)

    return call


@pytest.fixture
def grpo(write, tmp_path, monkeypatch, capsys):
    """Check such a recipe; returns exit code and what was printed."""
    monkeypatch.chdir(tmp_path)

    def check(golds, extra="", as_json=False, **changes):
        write(golds, extra, **changes)
        errors = []
        code = check_and_print(load_recipes(["r.yaml"], {}, errors), errors, offline=True, show=0, as_json=as_json)
        printed = capsys.readouterr()
        return SimpleNamespace(code=code, out=printed.out, err=printed.err)

    return check


@pytest.fixture
def found(grpo):
    """Check such a recipe with these rewards; returns `(level, text)` of what was found about them."""

    def check(golds, rewards, extra="", **more):
        result = grpo(golds, extra, as_json=True, **{"[math_answer]": rewards}, **more)
        [recipe] = json.loads(result.out)["recipes"]
        assert result.code == (2 if any(f["level"] == "error" for f in recipe["findings"]) else 0)
        return [(f["level"], f["text"]) for f in recipe["findings"] if f["key"] == "reward_funcs"]

    return check


def test_rewards_are_tried_without_torch(write, cli):
    write(
        ["1", "2", "3"], **{"stage: grpo": "stage: sample", "per_device_train_batch_size: 8\n": ""}
    )  # what trains has its trainer's config built
    result = cli("check", "--offline", "r.yaml")
    assert result.code == 0 and "torch" not in result.heavy and "sympy" not in result.heavy


def test_check_prints_what_each_reward_pays(grpo):
    result = grpo(["1", "2", "3"])
    assert "golds: 3 read, 0 of them unreadable (0.00%); numbers 3\n" in result.out
    assert "the gold                       math_answer 1\n" in result.out and result.out.strip().endswith("ok")


def test_check_refuses_golds_that_cannot_be_read(grpo):
    golds = ["1"] * 97 + ["forty two", "x+", "two and two"]
    result = grpo(golds)
    assert result.code == 2 and result.err == (
        "error: r.yaml:3: dataset_name: 3 of 100 golds cannot be read (row 97: 'forty two', the gold does not parse; row 98: "
        "'x+', the gold is no formula; only the very same text will be right; row 99: 'two and two', the gold does not parse); "
        "mend them, or allow it with max_unreadable_golds\n"
    )
    assert "golds: 100 read, 3 of them unreadable (3.00%): row 97: 'forty two'" in result.out
    assert grpo(golds, "max_unreadable_golds: 0.05\n").code == 0
    assert grpo(["1"] * 200 + ["forty two"]).code == 0


def test_check_refuses_rewards_that_pay_for_something_else(grpo):
    result = grpo(["1", "2", "3"], **{"[math_answer]": "[math_answer: {weight: 0.1}, ./mine.py:mentions]"})
    assert result.code == 0  # the box still decides
    result = grpo(["1", "2", "3"], **{"[math_answer]": "[math_answer: {weight: 0.0}, ./mine.py:mentions]"})
    assert (
        result.code == 2 and "r.yaml:5: reward_funcs: the gold in the thought alone earns 1, the gold 1" in result.err
    )


def test_check_reads_the_golds_of_the_rows_that_are_judged(grpo, tmp_path):
    result = grpo(["1"] * 20, **{"[math_answer]": "[math_answer: {when: {answer: ['1']}}]"})
    assert result.code == 0 and "golds: 20 read" in result.out
    result = grpo(["1"] * 20 + ["forty two"] * 20, **{"[math_answer]": "[math_answer: {when: {answer: ['1']}}]"})
    assert result.code == 0 and "golds: 20 read, 0 of them unreadable" in result.out


def test_what_is_wrong_beyond_dispute_may_not_earn_as_much(found):
    [(level, text)] = found(["1", "2", "3"], "[./mine.py:any_number]")
    assert level == "error" and f"{WRONG} earns 1, the gold 1 (any_number 1)" in text
    assert [what for what in CERTAIN if f"{what} earns" in text] == [WRONG, "a short wrong answer"]
    assert found(["1", "2", "3"], "[math_answer, think_format: {weight: 0.9}, language]") == []
    assert found([["red", "blue"], ["green"]], "[exact_answer: {match: all}]") == []
    assert found([["red", "blue"], ["green"]], "[exact_answer]") == []
    assert found(["A", "(a)", "B. Paris"], "[choice_answer]", more=[{"choices": ["Rome", "Paris"]}] * 3) == []


def test_two_boxes_that_contradict_are_for_a_reward_to_judge_unless_it_is_ours(found, monkeypatch):
    [(level, text)] = found(["1", "2", "3"], "[./mine.py:last_box]")
    assert level == "warning" and text.startswith("last_box: the last box counts") and RIGHT_FIRST not in text
    [(level, text)] = found(["1", "2", "3"], "[./mine.py:any_box]")
    assert level == "warning" and text.startswith("any_box: one box that is right is enough")
    assert found(["1", "2", "3"], "[./mine.py:last_box, math_answer]") == []  # math_answer decides
    monkeypatch.setattr(reward_findings, "OURS", ("reasoning_ext.rewards.math_answer", None))
    [(level, text)] = found(["1", "2", "3"], "[./mine.py:last_box]")
    assert level == "error" and text.startswith(f"{RIGHT_LAST} earns 1, the gold 1")


def test_trls_accuracy_reward_reads_boxes_in_the_thought(found):
    pytest.importorskip("math_verify")
    [(level, text)] = found(["1", "2", "3"], "[accuracy_reward]")
    assert level == "error" and [what for what in CERTAIN if f"{what} earns" in text] == [THOUGHT_ALONE]
    assert found(["1", "2", "3"], "[accuracy_reward, math_answer]") == []


def test_a_copied_prompt_that_is_paid_is_a_warning_that_names_evaluated(found):
    more = [{"prompt": r"17 \times 23"}, {"prompt": "What is it?"}, {"prompt": "What is 2^5?"}]
    [(level, text)] = found(["391", "2", "32"], "[math_answer]", more=more)
    assert level == "warning" and "on 1 of 3 rows" in text and "math_answer: {evaluated: true}" in text
    changes = {"stage: grpo": "stage: sample", "per_device_train_batch_size: 8\n": ""}
    assert found(["391", "2", "32"], "[math_answer]", more=more, **changes) == [(level, text)]
    assert found(["391", "2", "32"], "[math_answer: {evaluated: true}]", more=more) == []
    assert found(["391", "2", "32"], "[math_answer]", more=[{"prompt": "Say 391"}, *more[1:]]) == []  # by chance
    more = [{"prompt": f"Say {gold}"} for gold in (391, 2, 32)]
    for rewards in ("[math_answer]", "[math_answer: {evaluated: true}]"):
        [(level, text)] = found(["391", "2", "32"], rewards, more=more)
        assert level == "warning" and text.startswith(f"{COPIED} earns 1, the gold 1") and "evaluated" not in text


def test_a_penalty_that_turns_the_order_round_is_named(found):
    [(level, text)] = found(["1", "2", "3"], "[math_answer, think_format: {weight: 0.1}, length_penalty: {weight: 50}]")
    assert level == "error" and text.startswith("nothing earns 0, the gold -")
    assert "length_penalty x 50 turns the order round with 0 for it and -0.0" in text
    assert "think_format" not in text and "math_answer x" not in text
    [(level, text)] = found(["1", "2", "3"], "[math_answer, think_format: {weight: -2}]")
    assert level == "error" and "think_format x -2 turns the order round with 0 for it and 1 for the gold" in text
    assert found(["1", "2", "3"], "[math_answer, length_penalty: {weight: 5}]") == []
    [(level, text)] = found(["1", "2", "3"], "[math_answer, ./mine.py:empty_is_best]")
    assert "a short wrong answer earns 0, the gold 0 (empty_is_best x 1 turns" in text


def test_every_when_is_tried(found):
    task = [{"task": "rare" if i == 170 else "math"} for i in range(300)]
    golds = [str(i) for i in range(300)]
    rewards = "[math_answer: {when: {task: math}}, ./mine.py:any_number: {when: {task: rare}}]"
    [(level, text)] = found(golds, rewards, more=task)
    assert level == "error" and f"{WRONG} earns 1, the gold 1 (any_number 1), on 1 of " in text
    for rare in ("math_answer", "./mine.py:of_another_column"):  # what another column says is judged in the same way
        rewards = f"[math_answer: {{when: {{task: math}}}}, {rare}: {{when: {{task: rare}}}}]"
        if rare != "math_answer":
            label = [{**own, "label": gold} for own, gold in zip(task, golds, strict=True)]
            assert found(golds, rewards, "rename_columns: {}\n", more=label) == []


def test_a_reward_that_was_tried_on_nothing_is_said_to_be_so(found):
    [(level, text)] = found(["1", "2"], "[math_answer, ./mine.py:nothing]")
    assert level == "note" and text == "nothing was tried on nothing: it gave None for every completion of 2 rows"
    more = [{"task": "a"}, {"task": "b"}]
    [(level, text)] = found(["1", None], "[math_answer: {when: {task: a}}, language: {when: {task: b}}]", more=more)
    assert level == "note" and text.startswith(
        "language was tried on nothing: no row with a gold has one of the values"
    )
    levels = found(["two and two", "forty two"], "[math_answer]", "max_unreadable_golds: 1.0\n")
    assert levels == [("warning", "math_answer was tried on nothing: it gave None for every completion of 2 rows")]
    assert found([None, None], "[language]") == [("note", "no row has a gold, so that no reward was tried")]


def test_a_gold_that_is_not_paid_as_it_stands_is_shown(found):
    [(level, text)] = [f for f in found(["$5$", "6", "7"], "[./mine.py:bare_box]") if "tell the gold" in f[1]]
    assert level == "warning" and text.startswith("bare_box does not tell the gold") and "on 1 of 3 rows" in text
    assert "such as '$5$'" in text
    assert found(["$5$", "6", "7"], "[math_answer]") == []
    both = found(["$5$", "6", "7"], "[./mine.py:any_number, ./mine.py:bare_box: {weight: 0.0}]")
    assert [level for level, _ in both] == ["error", "warning"]


def test_what_waits_for_a_server_may_put_the_order_right(found):
    levels = [level for level, _ in found(["1", "2"], "[./mine.py:any_number, ./mine.py:waits]")]
    assert levels == ["warning", "note"]
    assert [level for level, _ in found(["1", "2"], "[math_answer: {weight: 0}, ./mine.py:waits]")] == ["note"]


def test_golds_that_are_words_are_called_so(found, grpo):
    golds = ["Paris", "no solution", "New York", "x+1", "5"]
    [(level, text)] = found(golds, "[math_answer]")
    assert level == "warning" and text.startswith("3 of the 5 golds that math_answer judges are words, such as 'Paris'")
    assert "exact_answer" in text
    assert "golds: 5 read, 0 of them unreadable (0.00%); numbers 1, formulas 1, words 3\n" in grpo(golds).out
    assert found([*golds, "7"], "[math_answer]") == [] and found(golds, "[exact_answer]") == []


def test_check_says_where_nothing_can_be_compared(grpo):
    result = grpo(["1", "2"], **{"[math_answer]": "[think_format]"})
    assert result.code == 0 and "note: reward_funcs: no reward compares completions with the gold" in result.out


def test_check_refuses_parameters_that_the_reward_refuses(grpo):
    result = grpo(
        ["1", "2"], **{"[math_answer]": "[math_answer, code_tests]", "output_dir": "rename_columns: {}\noutput_dir"}
    )
    assert result.code == 2
    result = grpo(["1", "2"], **{"[math_answer]": "[math_answer: {seconds: 0}]"})
    assert (
        result.code == 2
        and "refuses its parameters: ValueError: math_answer: found seconds=0; allowed: above 0" in result.err
    )


def test_check_tells_all_that_is_wrong_with_rows_and_rewards(grpo):
    result = grpo(["forty two"] * 8, **{"[math_answer]": "[./mine.py:mentions, math_answer: {weight: 0.1}]"})
    first, second = result.err.splitlines()
    assert first.startswith("error: r.yaml:3: dataset_name: 8 of 8 golds cannot be read (row 0: 'forty two'")
    assert second.startswith(
        "error: r.yaml:5: reward_funcs: the gold in the thought alone earns 1, the gold 1 (mentions 1);"
    )


def test_a_sample_that_could_accept_nothing_is_warned_of(grpo):
    changes = {"stage: grpo": "stage: sample", "per_device_train_batch_size: 8\n": ""}
    warning = "warning: min_reward: the gold itself earns 1, so that min_reward 1.5 may accept nothing; lower it"
    assert warning in grpo(["1", "2"], "min_reward: 1.5\n", **changes).out
    assert "min_reward" not in grpo(["1", "2"], "min_reward: 1.0\n", **changes).out


def test_check_names_a_reward_that_fails(grpo):
    result = grpo(["1", "2", "3"], **{"[math_answer]": "[./mine.py:fails]"})
    assert result.code == 2 and "r.yaml:5: reward_funcs: reward fails (" in result.err
    assert "mine.py): failed: ValueError: not today (" in result.err
