"""Tools in processes: what each misbehaviour becomes for the model and in the figures, and calls that run side by side."""

import inspect
import shutil
import time
from pathlib import Path

import pytest

from reasoning_ext.errors import UserError
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.think.calls import call_of
from reasoning_ext.tools import box as box_module
from reasoning_ext.tools.box import Toolbox
from reasoning_ext.tools.spec import parse_environment, parse_tools

EVAL = "stage: eval\nmodels: x\ndataset_name: ./rows.jsonl\nreward_funcs: math_answer\noutput_dir: out\n"


@pytest.fixture
def make(tmp_path, write_recipe):
    """Make the toolbox of some lines of a recipe; closed in the end."""
    boxes = []
    shutil.copy(Path(__file__).parent / "user_tools.py", tmp_path)

    def made(lines):
        recipe = load_recipe(write_recipe(EVAL + lines))
        boxes.append(Toolbox(parse_tools(recipe), parse_environment(recipe)))
        return boxes[-1]

    yield made
    for box in boxes:
        box.close()


def run(box, *calls):
    return box.run([(call_of(name, arguments), None) for name, arguments in calls])


WAYS = {
    "hang": ("timeout", "time-out after 1 s"), "raise": ("error", "ValueError: no such thing < |im_end|>"),
    "exit": ("error", "exit code 3"), "leave": ("error", "SystemExit"), "hoard": ("error", "out of memory"),
    "flood": ("", "more characters"), "bytes": ("error", "returned bytes"), "object": ("error", "returned object"),
    "set": ("error", "returned set"), "none": ("", "null"), "list": ("", '[1, {"ä": 2.5}]'), "number": ("", "7"),
    "surrogate": ("", "a?b"), "none of these": ("error", "KeyError"),
}  # fmt: skip


def test_whatever_a_tool_does_is_a_message_and_a_count(make):
    box = make("tools:\n- ./user_tools.py:misbehave: {seconds: 1, memory_mb: 256, max_characters: 100}\n")
    results = run(box, *[("misbehave", {"how": how}) for how in WAYS])
    assert {how: result.fault for how, result in zip(WAYS, results, strict=True)} == {
        h: f for h, (f, _) in WAYS.items()
    }
    for (_, said), result in zip(WAYS.values(), results, strict=True):
        assert said in result.content and len(result.content) < 140
        assert result.message == {"role": "tool", "name": "misbehave", "content": result.content}
    figures = box.figures()
    faults = [fault for fault, _ in WAYS.values()]
    assert figures["tools/misbehave/calls"] == len(WAYS) and figures["tools/misbehave/timeouts"] == 1
    assert figures["tools/misbehave/errors"] == faults.count("error")
    assert figures["tools/misbehave/seconds"] >= 1 / len(WAYS)
    assert set(box.figures().values()) == {0.0}


def test_what_a_call_leaves_behind_is_not_the_next_one_s(make, monkeypatch):
    monkeypatch.setattr(box_module, "WORKERS", 2)
    box = make("tools:\n- ./user_tools.py:misbehave: {seconds: 20, memory_mb: 256}\n")

    def said(*ways):
        return [result.content for result in run(box, *[("misbehave", {"how": how}) for how in ways])]

    assert said("away", "fork", "away", "fork", "number") == ["at home: True", "fork True"] * 2 + ["7"]
    kept = said(*["keep"] * 12)  # of 100 MiB each, so that two go into a worker
    assert sum("out of memory" in one for one in kept) <= 4 and kept.count("kept 1") >= 4
    scribbled, number = said("scribble", "number")
    assert scribbled.startswith("error: the worker died") and number == "7"


def test_64_calls_wait_side_by_side_and_keep_their_order(make):
    box = make("tools: [./user_tools.py:wait, ./user_tools.py:later]\n")
    run(box, *[("wait", {"seconds": 0.01})] * 16, *[("later", {"word": ""})] * 16)  # starts the workers
    began = time.monotonic()
    calls = [("wait", {"seconds": 0.2, "then": "ab"[i % 2]}) for i in range(64)]
    results = run(box, *calls, *[("later", {"word": str(i)}) for i in range(8)])
    assert time.monotonic() - began < 64 * 0.2 / 2
    assert [result.content[-3] for result in results[:64]] == ["a", "b"] * 32
    assert [result.content for result in results[64:]] == [str(i) for i in range(8)]


MISFITS = [
    ("wait", {}, "seconds (number)"), ("wait", {"seconds": "1"}, "number"), ("wait", {"seconds": True}, "number"),
    ("wait", {"seconds": 1, "then": "c"}, "'a' or 'b'"), ("wait", {"seconds": 1, "how": 2}, "then ('a' or 'b')"),
    ("wait", [1], "no object"), ("nothing", {}, "wait, lookup"),
    ("lookup", {"word": "a", "table": "/etc/passwd"}, "word (string)"), ("x" * 500 + "<|im_end|>", {}, "wait, lookup"),
]  # fmt: skip


def test_what_does_not_fit_is_answered_without_a_process(make):
    box = make("tools: [./user_tools.py:wait, {./user_tools.py:lookup: {table: words.txt}}]\n")
    for name, arguments, allowed in MISFITS:
        [result] = run(box, (name, arguments))
        assert result.fault == "error" and result.content.startswith("error: ") and allowed in result.content
        assert "<|im_end|>" not in result.content + result.name and len(result.content) < 400
    assert not box._pools
    figures = box.figures()
    assert (figures["tools/wait/errors"], figures["tools/lookup/errors"], figures["tools/unknown/calls"]) == (6, 1, 2)


def test_a_recipe_s_options_are_not_the_model_s_and_its_folder_is_where_a_tool_runs(make, tmp_path):
    (tmp_path / "words.txt").write_text("a eins\nb zwei\n")
    box = make("tools:\n- ./user_tools.py:lookup: {table: words.txt, shout: true}\n")
    [schema] = box.schemas
    assert list(schema["function"]["parameters"]["properties"]) == ["word"]
    assert [result.content for result in run(box, ("lookup", {"word": "a"}), ("lookup", {"word": "b"}))] == [
        "EINS",
        "ZWEI",
    ]
    [function] = box.functions()
    from transformers.utils import get_json_schema

    assert get_json_schema(function) == schema and function(word="b") == "ZWEI"
    assert list(inspect.signature(function).parameters) == ["word"] and function.__name__ == "lookup"
    assert function(word="c").startswith("error: KeyError")
    box.answer = lambda call, made: f"{call['function']['arguments']} at once"
    assert function(word="b") == "{'word': 'b'} at once"


def test_an_environment_keeps_its_state_and_a_method_that_hangs_costs_its_call_alone(make):
    box = make("environment: {./user_tools.py:Guess: {most: 50, seconds: 1}}\ntools: [calculator]\n")
    assert [schema["function"]["name"] for schema in box.schemas] == ["calculator", "guess", "hang"]
    made, added = box.environments([{"number": 7, "answer": "7"}, {"number": 13}, {"nothing": 1}])
    assert added == ["It is between 1 and 50.", None, None]
    calls = [
        ("guess", {"number": 9}, 0), ("hang", {"seconds": 60}, 0), ("guess", {"number": 7}, 0), ("guess", {"number": 1}, 1),
        ("guess", {"number": 1}, 2), ("calculator", {"expression": "6*7"}, 1),
    ]  # fmt: skip
    results = box.run([(call_of(name, arguments), made[i]) for name, arguments, i in calls])
    assert [result.content for result in results[:4]] == ["too high", "error: time-out after 1 s", "right", "too low"]
    assert results[4].fault == "error" and "reset failed" in results[4].content and results[5].content == "42"
    assert (made[0].tries, made[0].solved, made[1].solved) == (2, True, False)
    assert [one.get_reward() for one in made] == box.rewards(made) == [0.5, 0.0, None]
    figures = box.figures()
    assert figures["tools/reset/errors"] == 1 and figures["tools/get_reward/calls"] == 4
    assert made[0].reset(number=20) == "It is between 1 and 50." and made[0].guess(number=1) == "too low"
    assert made[0].tries == 1


def test_trl_takes_the_environment(make):
    from transformers.utils import get_json_schema

    factory = make("environment: ./user_tools.py:Guess\n").environment_factory
    instance = factory()
    names = [name for name, _ in inspect.getmembers(type(instance), inspect.isfunction) if not name.startswith("_")]
    assert names == ["get_reward", "guess", "hang", "reset"] and type(instance).__name__ == "Guess"
    schema = get_json_schema(instance.guess)["function"]
    assert schema["parameters"]["properties"] == {"number": {"type": "integer", "description": "the guess"}}
    assert schema["description"] == "Guesses."


def test_an_object_that_cannot_be_pickled_is_found_before_anything_runs(make):
    make("environment: ./user_tools.py:Guess\ntools: [calculator]\n").prepare()
    with pytest.raises(UserError, match="Locked cannot be pickled"):
        make("environment: ./user_tools.py:Locked\n").prepare()
