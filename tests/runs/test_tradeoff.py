"""Accuracy against tokens: what is drawn of which figures, on the page and as a PNG, also of damaged and hostile ones."""

import json
import re

import pytest
import yaml

from reasoning_ext.errors import UserError
from reasoning_ext.runs.report import save_curves, write_report
from reasoning_ext.runs.tradeoff import BOTTOM, LEFT, RIGHT, TOP, curve_rows, draw, tradeoffs

HOSTILE = '"><script>$x_{$'
LOW, HIGH = [0.25, 0.125, 0.5], [0.75, 0.5, 1.0]


def point(accuracy, tokens, **name):
    return name | {"accuracy": accuracy, "tokens": tokens, "n": 8}


CUT = [point(LOW, 6.0, share=0.5), point(LOW, 4.0, budget=1), point(LOW, 9.0, budget=8)]
CURVE = {
    "points": [*CUT, point(HIGH, 12.0, share=1.0)],
    "overthinking": [0.5, 0.25, 0.75],
    "terciles": {"hard": {"points": [], "overthinking": None}, "easy": {"points": [], "overthinking": [0.6, 0.5, 0.7]}},
    "best_thinking_budget": {"budget": 8, "difference": [-0.05, -0.1, 0.02], "p": 0.5},
}
FLAT = {"problems": 8, "greedy": HIGH, "pass@1": LOW, "mean tokens": 10.0}
RESULTS = {
    "sft": FLAT | {"curve": CURVE, "strategies": {"self_consistency: 8": {"accuracy": HIGH, "tokens": 100.0}}},
    HOSTILE: FLAT
    | {"strategies": {"greedy": {"accuracy": LOW, "tokens": 20.0}, HOSTILE: {"accuracy": HIGH, "tokens": 1}}},
    "plain": FLAT,
}


def write_eval(folder, results):
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"stage": "eval", "models": dict.fromkeys(results, "m")}))
    (folder / "eval.json").write_text(json.dumps(results))
    return folder


def test_a_model_is_its_budgets_and_its_ways_whose_tokens_are_known():
    found = tradeoffs(RESULTS)
    assert [*found] == ["sft", HOSTILE]
    assert {s.name: s.tokens for s in found["sft"].curve} == {"1 token": 4, "8 tokens": 9, "whole thought": 12}
    assert {s.name: s.tokens for s in found["sft"].ways} == {"greedy": 12, "pass@1": 10, "self_consistency: 8": 100}
    assert {s.name: s.tokens for s in found[HOSTILE].ways} == {"greedy": 20, "pass@1": 10, HOSTILE: 1}
    shares = {"points": [p for p in CURVE["points"] if "share" in p]}
    assert [spot.name for spot in tradeoffs({"m": {"curve": shares}})["m"].curve] == ["50 %", "whole thought"]
    uncut = {"points": [point(LOW, 4.0, share=0.5), point(LOW, 4.0, budget=8), point(LOW, 4.0, share=1.0)]}
    assert [spot.name for spot in tradeoffs({"m": {"curve": uncut}})["m"].curve] == ["whole thought"]


@pytest.mark.parametrize(
    "row",
    [
        {"curve": value, "strategies": value}
        for value in ({}, [], "x", None, {"points": "x"}, {"points": [1, {"share": "x"}]})
    ]
    + [{"curve": {"points": [point("x", 1, share=1)]}}, {"curve": {"points": [point(LOW, 0, share=1)]}}],
)
def test_figures_that_cannot_be_read_are_not_drawn(tmp_path, row):
    assert not any(drawn.curve for drawn in tradeoffs({"m": FLAT | row}).values())
    assert all(isinstance(text, str) for cells in curve_rows({"m": row}).values() for text in cells.values())
    write_report([write_eval(tmp_path / "run", {"m": FLAT | row})], None)


def test_tokens_stand_on_a_logarithmic_axis_and_shares_on_a_linear_one():
    drawn = draw(tradeoffs({"m": {"curve": {"points": [point(LOW, t, budget=t) for t in (1, 10, 100)]}}}))
    [model] = drawn["models"]
    middle, quarter = (LEFT + RIGHT) / 2, BOTTOM - (BOTTOM - TOP) / 4
    first, last = LEFT + (RIGHT - LEFT) * 0.03 / 1.06, RIGHT - (RIGHT - LEFT) * 0.03 / 1.06
    assert model["line"] == f"{first:.1f},{quarter:g} {middle:g},{quarter:g} {last:.1f},{quarter:g}"
    assert next((mark.x, mark.low, mark.high) for mark in model["marks"]) == (round(first, 1), 237.8, 141.0)
    assert [label for _, label in drawn["x"]] == ["1", "2", "5", "10", "20", "50", "100"]
    one = draw(tradeoffs({"m": {"curve": {"points": [point(LOW, 7, budget=8)]}}}))["models"][0]["marks"]
    assert [mark.x for mark in one] == [middle]


def test_the_table_has_points_in_order_and_what_they_come_to():
    rows = curve_rows(RESULTS)
    assert [*rows] == [
        "50 %", "1 token", "8 tokens", "whole thought", "overthinking", "overthinking, hard problems",
        "overthinking, easy problems", "best thinking budget",
    ]  # fmt: skip
    assert rows["50 %"] == {"sft": "25.0 [12.5, 50.0]  6"} and rows["overthinking, hard problems"] == {"sft": ""}
    assert rows["best thinking budget"] == {"sft": "8 tokens, -5.0 [-10.0, 2.0]"}
    assert curve_rows({"m": {"curve": CURVE | {"best_thinking_budget": None}}})["best thinking budget"] == {"m": "none"}
    assert curve_rows({"m": FLAT}) == {}


def test_the_page_has_both_pictures_and_the_table(tmp_path):
    folder = write_eval(tmp_path / "run", RESULTS)
    write_report([folder], None)
    html = (folder / "report.html").read_text()
    assert html.count('<svg class="wide"') == 2 and html.count("<polyline") == 1 and HOSTILE not in html
    assert html.count("<title>") == 1 + 3 + 6  # the page's, a point of the curve each, a way each
    assert "self_consistency: 8: 75.0 [50.0, 100.0] % at 100 tokens" in html and "8 tokens, -5.0 [-10.0, 2.0]" in html
    (folder / "eval.json").write_text(json.dumps({"plain": FLAT}))
    write_report([folder], None)
    html = (folder / "report.html").read_text()
    own = "<style>.*?</style>|<script.*?</script>"
    assert "wide" not in re.sub(own, "", html, flags=re.DOTALL) and "verthinking" not in html


def test_every_way_has_a_sign_of_its_own(tmp_path):
    ways = {f"way {i}": {"accuracy": HIGH, "tokens": 10.0 * i} for i in range(1, 13)}
    folder = write_eval(tmp_path / "run", {"a": FLAT | {"strategies": ways}, "b": FLAT | {"strategies": ways}})
    write_report([folder], None)
    html = (folder / "report.html").read_text()
    signs = [re.findall(f'class="sign"[^>]*>{i}</text>', html) for i in range(1, 14)]
    assert {*map(len, signs)} == {2}  # pass@1 and twelve strategies, of two models
    assert all(f"<b>{i + 1}</b> <bdi>{name}</bdi>" in html for i, name in enumerate(ways, 1))
    save_curves(folder, tmp_path / "ways.png")
    same = {name: {"accuracy": HIGH, "tokens": 50.0} for name in ("x", "y", "z")}
    [model] = draw(tradeoffs({"m": {"strategies": same}}))["models"]
    assert [mark.aside for mark in model["marks"]] == [0, 15, 30]


def test_the_combined_picture_is_a_png(tmp_path):
    save_curves(write_eval(tmp_path / "run", RESULTS), tmp_path / "pictures" / "tokens.png")
    header = (tmp_path / "pictures" / "tokens.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG") and int.from_bytes(header[16:20]) == 1000
    with pytest.raises(UserError) as caught:
        save_curves(write_eval(tmp_path / "plain", {"plain": FLAT}), tmp_path / "none.png")
    assert "\n" not in str(caught.value) and not (tmp_path / "none.png").exists()
