"""The tasks of general abilities: fair to right answers in any dress, and to nothing else."""

import json
import time
from collections import Counter

import pytest

from reasoning_ext.evaluate import general
from reasoning_ext.evaluate.general import ABILITIES, Task, passes, tasks

TASKS = tasks()
REFUSALS = ("I cannot help with that.", "I'm sorry, but I can't assist with that.")
CAPITALS = {"kind": "pattern", "pattern": "[A-Z ]+", "case": True}
PET = {"name": "<string>", "age": "<integer>", "tame": True}
JUDGED = {  # a check, answers that pass, answers that fail
    "equals": (
        {"kind": "equals", "answers": ["The sky.", "sky"]},
        [
            "the sky",
            "The sky.",
            '"The sky."',
            '"sky".',
            "**Sky**",
            "```\nsky\n```",
            "```text\nsky\n```",
            "“sky”",
            " sky\n",
        ],
        ["The sky is", "a sky", '"sky', "skye", '"""sky"""', "sky sky", "."],
    ),
    "equals, with case": (
        {"kind": "equals", "answers": ["BANANA"], "case": True},
        ["BANANA", "`BANANA`"],
        ["banana", "Banana"],
    ),
    "contains": (
        {"kind": "contains", "texts": ["mice", "two cats"]},
        ["mice, two cats", "It has 'mice' and *two cats*.", "Two\ncats eat mice"],
        ["mice", "dormice and two cats", "two fat cats, mice"],
    ),
    "contains a letter": (
        {"kind": "contains", "texts": ["s"]},
        ["S", "The letter is 's'.", "**s**"],
        ["It's t", "sun", "s-u-n"],
    ),
    "choice": (
        {"kind": "choice", "letter": "B"},
        [
            "B",
            "b",
            "(B)",
            "b)",
            "B) Paris",
            "B. Paris",
            "**B**",
            "The answer is B.",
            "Option (B): Paris",
            "B: A city in France",
        ],
        ["A", "A or B", "B, not C", "Paris", "A) Rome\nB) Paris", "Blue", "I say: D.", "AB", "a big one"],
    ),
    "choice of A": ({"kind": "choice", "letter": "A"}, ["A", "a.", "A) Dog", "It is A."], ["A dog", "B) A dog"]),
    "words": (
        {"kind": "words", "least": 2, "most": 3},
        ["deep blue", "Deep, blue - salty.", "don't well-known"],
        ["blue", "a b c d", "-- ' !"],
    ),
    "lines": (
        {"kind": "lines", "count": 2, "each": r"- ?\w+"},
        ["- cat\n- dog", "-cat\n\n  -dog", "```markdown\n- cat\n- dog\n```"],
        ["- cat", "- cat - dog", "Pets:\n- cat\n- dog", "- cat\n* dog"],
    ),
    "starts": (
        {"kind": "starts", "text": "of course"},
        ["Of course!", '"Of course, yes."', "**of course**"],
        ["Yes, of course", "off course"],
    ),
    "ends": ({"kind": "ends", "text": "night"}, ["at Night.", '"good night."', "night"], ["nightly", "night falls"]),
    "without": ({"kind": "without", "letters": "e"}, ["cat", "A dog."], ["tree", "TREE", "12", "!"]),
    "pattern": (CAPITALS, ["RED CAT", "**RED CAT**.", "RED CAT."], ["Red cat", "RED CAT 1"]),
    "json": (
        {"kind": "json", "value": PET},
        ['{"age": 3, "name": "Bo", "tame": true}', '```json\n{"name": "", "age": 0,\n"tame": true}\n```'],
        [f'{{"name": "Bo", {rest}}}' for rest in ('"age": 3', '"age": "3", "tame": true', '"age": true, "tame": true')],
    ),
    "json, exactly": (
        {"kind": "json", "value": {"a": 1}},
        ['{"a": 1}'],
        ['{"a": 1, "b": 2}', "{'a': 1}", "[]", '{"a": 2}'],
    ),
    "json list": (
        {"kind": "json", "value": [1, "a"]},
        ['[1, "a"]', '[1.0,"a"]'],
        ['["a", 1]', "[1]", '[true, "a"]', "1"],
    ),
    "all": (
        {"kind": "all", "checks": [CAPITALS, {"kind": "words", "least": 2, "most": 2}]},
        ["RED CAT", '"RED CAT"'],
        ["RED", "red cat", "A RED CAT"],
    ),
}


def judge(check, completion):
    return passes(Task("x-01", "format", "?", check, ""), completion)


def test_there_are_forty_tasks_of_each_ability_and_no_two_are_alike():
    assert Counter(task.ability for task in TASKS) == dict.fromkeys(ABILITIES, 40)
    assert [task.id for task in TASKS] == [f"{ability}-{n:02d}" for ability in ABILITIES for n in range(1, 41)]
    assert len({" ".join(task.prompt.lower().split()) for task in TASKS}) == 200
    assert Counter(task.check.get("letter") for task in TASKS if task.ability == "choice") == dict.fromkeys("ABCD", 10)


def test_references_pass_with_and_without_a_thought_and_nothing_passes_that_is_no_answer():
    for task in TASKS:
        for right in (
            task.reference,
            f"<think>Let me see.</think>\n\n{task.reference}\n",
            f"Hm.</think>{task.reference}",
        ):
            assert passes(task, right), task.id
        for wrong in ("", " \n", ".", task.prompt, *REFUSALS, f"<think>{task.reference}", f"{task.reference}<think>"):
            assert not passes(task, wrong), (task.id, wrong)


def test_few_answers_to_tasks_of_other_abilities_pass_by_accident():
    taken = {
        task.id: sum(passes(task, other.reference) for other in TASKS if other.ability != task.ability)
        for task in TASKS
    }
    assert max(taken.values()) <= 30 and sum(taken.values()) <= 200, taken  # of 160 and 32,000
    assert sum(count > 5 for count in taken.values()) <= 6, taken


@pytest.mark.parametrize("name", JUDGED)
def test_each_kind_takes_right_answers_in_any_dress_and_no_wrong_ones(name):
    check, right, wrong = JUDGED[name]
    assert [text for text in right if not judge(check, text)] == []
    assert [text for text in wrong if judge(check, text)] == []


def test_an_unknown_kind_is_a_bug_in_the_file():
    with pytest.raises(ValueError, match="rhymes"):
        judge({"kind": "all", "checks": [{"kind": "rhymes"}]}, "cat")


def test_floods_fail_and_cost_next_to_nothing():
    units = '( [ {"a": ** ` " A)_ a_ red,_ cat\n -_a\n 9 <think> </think> _'.replace("\\n", "\n").split(" ")
    start = time.process_time()
    for unit in (unit.replace("_", " ") for unit in units):
        assert not any(passes(task, unit * 10**6) for task in TASKS[::20])
        passed = [task.id for task in TASKS if passes(task, (unit * general.LONGEST)[: general.LONGEST])]
        assert len(passed) <= 10, (unit, passed)  # "A) " names one letter
    assert time.process_time() - start < 20  # half a second where no pattern backtracks


def test_tasks_are_of_plain_values_that_others_may_not_change():
    first = tasks()
    first.clear()
    assert len(tasks()) == 200 and all(json.dumps(task.check) for task in tasks())
