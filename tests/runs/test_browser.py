"""The samples' browser: what its JSON holds of hostile and large runs, that no text can be markup, and its script under node."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import jinja2
import pytest

from reasoning_ext.evaluate.thoughts import labels
from reasoning_ext.runs import browser
from reasoning_ext.runs.read import Run
from reasoning_ext.shown import visible

TEMPLATES = Path(browser.__file__).parent / "templates"
SCRIPT = (TEMPLATES / "browser.js").read_text(encoding="utf-8")
CLOSING = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>&lt;'"
HIDDEN = "\u202eturned \x1b[31m \x00 \x9b \ud800 \u2028 \u2029 \u200b"
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")


def sample(i, text, **more):
    return {
        "prompt_index": i // 4,
        "sample_index": i % 4,
        "prompt": f"p {i // 4}",
        "completion": text,
        "rewards": {"r": 1.0},
    } | more


def run(rows, stage="sample", name="3_sample", **more):
    recipe = {"stage": stage, "reward_funcs": ["r", {"s": {"weight": 0.5}}]}
    rows = {"answers" if stage == "eval" else "samples": rows}
    return Run(Path("x") / name, recipe=recipe, **{"stored": len(rows.get("samples", []))} | rows | more)


def read_back(found):
    """Return what JSON.parse would make of the text in the script element, which is held to be without markup."""
    written = str(browser.as_json(found))
    assert not re.search("[<>&\u2028\u2029]", written)
    assert visible(written) == written, "what a report does to its whole page changes nothing here"
    return json.loads(written, parse_constant=lambda name: pytest.fail(name))


def strings(value):
    if isinstance(value, dict):
        return [part for item in value.items() for one in item for part in strings(one)]
    return [part for one in value for part in strings(one)] if isinstance(value, list) else [value]


def test_hostile_text_is_data_and_characters_that_nobody_sees_are_shown():
    texts = [CLOSING, HIDDEN, f"<think>{CLOSING}", f"<think>{HIDDEN}</think>{CLOSING}", "<think>" * 300, "\u0301" * 99]
    rewards = {CLOSING: 1.0, HIDDEN: float("nan"), "huge": 10**400, "__proto__": 2.0}
    rows = [
        sample(i, text, rewards=rewards, prompt=[{"role": CLOSING, "content": text}], answer=text)
        for i, text in enumerate(texts)
    ]
    answers = [sample(i, text, model=text) for i, text in enumerate(texts)]
    found = browser.data(
        [run(rows, name="\u202e\x1b"), run(answers, "eval", CLOSING)], lambda rows: [{HIDDEN: True}] * len(rows)
    )
    back = read_back(found)
    assert back == found and back["rows"][0]["answer"] == CLOSING and back["rows"][2]["thought"] == CLOSING
    shown = [text for text in strings(back) if isinstance(text, str)]
    assert not [
        text for text in shown if re.search("[\x00-\x08\x1b\x7f-\x9f\u202e\u2028\u2029\u200b\ud800-\udfff]", text)
    ]
    assert any(r"\u202eturned" in text for text in shown) and any(r"\ud800" in text for text in shown)
    assert back["rows"][0]["rewards"] == {CLOSING: 1.0, r"\u202eturned \x1b[31m \x00 \x9b \ud800 \u2028 \u2029 \u200b": None,
                                          "huge": None, "__proto__": 2.0}  # fmt: skip
    assert "\\u2028" in browser.as_json({"a": "\u2028</"}) and json.loads(browser.as_json({"a": "\u2028</"})) == {
        "a": "\u2028</"
    }

    with pytest.raises(ValueError, match="JSON"):
        browser.as_json({"a": float("nan")})


def test_a_row_says_what_is_known_of_it_and_nothing_else():
    rows = [
        sample(
            0,
            "<think>3+4=8\n3+4=7</think>7",
            rewards={"think_format": 0.0, "r": 1.0, "s": -2.0},
            step=3,
            tokens=9,
            finished=False,
        ),
        sample(1, "never <think>closed", rewards={"r": None}, advantage=-0.5, answer="7"),
        sample(2, "", step=1),
        sample(3, "x", error="the server said no"),
        sample(3, "x" * 9_000, rewards=[1], step="x", prompt_index=float("nan"), answer="7" * 900),
    ]
    found = read_back(browser.data([run(rows)], labels))
    first, second, third = found["rows"]
    assert (first["total"], first["right"], first["step"], first["tokens"]) == (0.0, True, 3, 9)
    assert (first["thought"], first["answer"], first["length"]) == ("3+4=8\n3+4=7", "7", 27)
    has, can = ({name for i, name in enumerate(found["behaviours"]) if first[key] & 1 << i} for key in ("has", "can"))
    assert has == {"thinks", "with equations", "backtracking", "answer follows", "answer among steps", "cut off"}
    assert can - has == {"true steps", "verification", "subgoals", "reflection words"}
    assert (
        {"total", "right", "answer", "step"}.isdisjoint(second)
        and second["thought"] == "closed"
        and second["gold"] == "7"
    )
    assert len(third["answer"]) < 4_100 and "5,000 characters left out" in third["answer"] and third["length"] == 9_000
    assert third["rewards"] == {} and "step" not in third and "problem" not in third and len(third["gold"]) < 600
    [of] = found["runs"]
    assert (of["shown"], of["stored"], of["counted"]) == (3, 5, True)


def test_an_evaluation_has_models_and_greedy_answers_and_its_first_reward_decides():
    rows = [
        sample(0, "x", model=model, sample_index=g, rewards={"think_format": right, "r": 1.0}, prompt_index=p)
        for model, right in (("a", 1.0), ("b", 0.0))
        for p in range(3)
        for g in (-1, 0)
    ]
    found = read_back(browser.data([run(rows, "eval")]))
    assert [model["label"] for model in found["models"]] == ["a", "b"] and found["behaviours"] == []
    assert [(row["model"], row["right"], row.get("greedy"), row["problem"]) for row in found["rows"]][5:7] == [
        (0, True, None, 2), (1, False, True, 0)
    ]  # fmt: skip


def test_many_samples_are_chosen_evenly_and_all_of_a_prompt_together():
    many, few = [sample(i, str(i)) for i in range(4_000)], [sample(i, str(i)) for i in range(20)]
    found = browser.data([run(many, stored=5_000_000, counted=False), run(few)], most=220)
    large, small = found["runs"]
    assert (large["shown"], large["stored"], large["counted"], small["shown"]) == (200, 5_000_000, False, 20)
    shown = [int(row["answer"]) for row in found["rows"][:200]]
    assert shown[:4] == [76, 77, 78, 79] and shown[-4:] == [3996, 3997, 3998, 3999]
    assert {b - a for a, b in zip(shown[::4], shown[4::4], strict=False)} == {80}


def test_the_text_of_a_page_is_bounded(monkeypatch):
    monkeypatch.setattr(browser, "MOST_TEXT", 100_000)
    monkeypatch.setattr(browser, "LONGEST_READ", 5_000)
    asked = []
    rows = [sample(i, "x" * (10**6 if i % 4 else 10), prompt=f"{i // 4}" * 5_000) for i in range(200)]
    found = browser.data([run(rows)], lambda rows: asked.extend(rows) or [{}] * len(rows))
    [of] = found["runs"]
    assert 20 <= of["shown"] <= 40 and of["stored"] == 200 and len(str(browser.as_json(found))) < 150_000
    assert asked and max(len(row["completion"]) for row in asked) == 10, (
        "what is very long is not read for its behaviours"
    )


def page(found):
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True)
    environment.filters["as_json"] = browser.as_json
    return environment.get_template("browser.html").render(browser=found)


def test_the_page_has_the_data_once_and_a_sentence_where_there_are_none():
    html = page(browser.data([run([sample(0, CLOSING)])]))
    assert html.count("<script") == 1 == html.count("</script>") and 'type="application/json"' in html
    assert json.loads(html.partition('id="browser-data">')[2].partition("</script>")[0])["rows"][0]["answer"] == CLOSING
    nothing = page(browser.data([run([])]))
    assert "<script" not in nothing and "No completions are stored in this run." in nothing
    assert "these runs" in page(browser.data([]))


def test_the_script_has_no_way_to_interpret_a_text():
    """A content security policy lets only this script run; these are its own ways to make markup or code of a text."""
    ways = (
        r"innerHTML|outerHTML|insertAdjacent|document\.write|createContextualFragment|DOMParser|srcdoc|setHTML|\beval\b"
    )
    more = r"|\bFunction\(|import\(|setAttribute|setTimeout\(['\"`]|\.src\b|\.href\b|\.style\b|fetch\(|XMLHttp|WebSocket|location"
    assert not re.findall(ways + more, SCRIPT)
    html, style = ((TEMPLATES / f"browser.{end}").read_text(encoding="utf-8") for end in ("html", "css"))
    assert not re.findall(r"\son\w+=|style=|src=|href=", html) and not re.findall(r"url\(|@import", style)
    assert (SCRIPT + style).isascii() and "</" not in SCRIPT.replace("</think>", ""), (
        "nothing is changed or ends the element"
    )
    assert "</script" not in SCRIPT and "</style" not in style
    for name in re.findall(r"field\.(\w+)", SCRIPT):
        assert f'name="{name}"' in html


def under_node(expression, **given):
    """Return what an expression over the script's functions, `b`, and what is given is, as JSON has it."""
    program = f"const b = require({json.dumps(str(TEMPLATES / 'browser.js'))}); const given = {json.dumps(given)};"
    program += f"console.log(JSON.stringify({expression}))"
    done = subprocess.run(["node", "-e", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


NOTHING = dict.fromkeys(
    "search sort run model right behaviour stepLow stepHigh reward rewardLow rewardHigh first second".split(), ""
)
FIRST = {"run": 0, "prompt": 0, "rewards": {"r": 1}, "total": 1, "right": True, "answer": "Seven (7)", "length": 9}
SECOND = {"run": 0, "prompt": 0, "rewards": {"r": 0}, "total": 3, "right": False, "thought": "a.b", "length": 5}
THIRD = {"run": 1, "prompt": 1, "rewards": {}, "answer": "axb", "length": 3, "has": 0, "can": 1}
GREEDY = {"run": 2, "greedy": True, "rewards": {}, "answer": "x", "length": 1, "has": 0, "can": 0}
ROWS = [FIRST | {"step": 1, "has": 1, "can": 3}, SECOND | {"step": 9, "has": 2, "can": 2}, THIRD] + [
    GREEDY | {"prompt": p, "problem": p, "model": m, "right": right}
    for m, rights in ((0, (True, True, False)), (1, (False, True, True)))
    for p, right in enumerate(rights)
]


@needs_node
def test_samples_are_filtered_and_sorted_as_the_form_says():
    asked = {
        "nothing": ({}, [*range(9)]), "run": ({"run": "1"}, [2]), "model": ({"model": "1"}, [6, 7, 8]),
        "right": ({"right": "false"}, [1, 5, 6]), "not judged": ({"right": "undefined"}, [2]),
        "has": ({"behaviour": "0"}, [0]), "has not": ({"behaviour": "!0"}, [2]),
        "steps": ({"stepLow": "2"}, [1]), "step": ({"stepLow": "1", "stepHigh": "1"}, [0]),
        "total": ({"rewardLow": "2"}, [1]), "reward": ({"reward": "r", "rewardHigh": "0.5"}, [1]),
        "no reward but what an object has": ({"reward": "constructor", "rewardHigh": "9"}, []),
        "text, not a pattern": ({"search": "A.B"}, [1]), "text": ({"search": "seven ("}, [0]),
        "prompt": ({"search": "second"}, [2, 4, 7]),
        "flipped": ({"first": "0", "second": "1"}, [3, 6]), "the other way": ({"first": "1", "second": "0"}, [5, 8]),
        "length": ({"sort": "length", "run": "0"}, [1, 0]), "last first": ({"sort": "-step"}, [1, 0, *range(2, 9)]),
        "by a reward": ({"sort": "-reward", "reward": "r"}, [0, 1, *range(2, 9)]),
    }  # fmt: skip
    data = {"rows": [row | {"i": i} for i, row in enumerate(ROWS)], "prompts": ["first", "second", "third"]}
    found = under_node(
        "given.asked.map((wanted) => b.select(given.data, wanted).map((row) => row.i))",
        data=data, asked=[NOTHING | wanted for wanted, _ in asked.values()],
    )  # fmt: skip
    assert dict(zip(asked, found, strict=True)) == {name: rows for name, (_, rows) in asked.items()}


@needs_node
def test_two_texts_are_compared_word_by_word_and_none_is_lost():
    first, second = "we take 3 + 4 = 8 and so\n8 it is", "so we take 3 + 4 = 7 and so 7 it is."
    a, b = under_node("b.difference(...given.texts)", texts=[first, second])
    assert ["".join(text for _, text in parts) for parts in (a, b)] == [first, second]
    assert [text.strip() for kept, text in a if not kept] == ["8", "8", "is"]
    assert [text.strip() for kept, text in b if not kept] == ["so", "7", "7", "is."]
    same, empty = under_node("[b.difference('a b', 'a b'), b.difference('', 'a')]")
    assert same == [[[True, "a b"]]] * 2 and empty == [[], [[False, "a"]]]
    assert under_node("b.difference('a '.repeat(4000), 'b '.repeat(4000))") is None, "too long to be compared"
    long = under_node("b.difference('a '.repeat(1e5) + 'x', 'a '.repeat(1e5) + 'y').map((parts) => parts.length)")
    assert long == [2, 2], "what both begin with costs nothing"
