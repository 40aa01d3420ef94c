"""What a page says at its top and draws: held-out series, health rules, seeds, rewards, distributions, its policy."""

import base64
import hashlib
import json
import re
from typing import NamedTuple

import pytest
from test_report import Page, write_run

from reasoning_ext.runs import health
from reasoning_ext.runs.arms import arms, differences
from reasoning_ext.runs.drawing import BOTTOM, TOP, Limit, Line, draw, histogram, thinned
from reasoning_ext.runs.figures import Curve, all_curves, behaviour_curves
from reasoning_ext.runs.next_steps import health_of, next_steps
from reasoning_ext.runs.panels import stage_of
from reasoning_ext.runs.read import Run, find_runs, read_run
from reasoning_ext.runs.report import render
from reasoning_ext.runs.shares import distributions, reward_shares
from reasoning_ext.runs.verdicts import learnt, verdicts
from reasoning_ext.runs.weights import weights_of

HOSTILE = '"><script>alert(1)</script>'


class Rule(NamedTuple):
    name: str
    keys: tuple[str, ...]
    side: str = "above"
    meaning: str = "it means this"
    edit: str = "lower learning_rate"


class Alarm(NamedTuple):
    rule: Rule
    step: float
    value: float


def held_out(*shares, problems=40):
    """Measurements every ten steps, each of which solves the first of the problems."""
    return [
        {
            "step": 10 * i,
            "figures": {"greedy": [k / problems, 0.1, 0.9], "thinks": [0.5, 0.4, 0.6]},
            "right": {"greedy": [float(p < k) for p in range(problems)]},
        }
        for i, k in enumerate(shares)
    ]


def training(tmp_path, name="2_grpo", end=0.5, measured=(), **recipe):
    metrics = [{"step": s, "reward": end * s / 20, "kl": s / 10, "other": 1.0} for s in range(1, 21)]
    files = {"metrics.jsonl": metrics, "held_out.jsonl": list(measured)}
    write_run(tmp_path / name, {"stage": "grpo", "model_name_or_path": "m", "dataset_name": "d"} | recipe, files)

    return read_run(tmp_path / name)


@pytest.fixture
def planted(monkeypatch):
    """Let two rules be, of which one holds from step 7 on."""
    high, none = Rule("kl_high", ("kl", "reward")), Rule("reward_flat", ("rewards/NAME/mean",), "")
    monkeypatch.setattr(health, "thresholds", lambda recipe: {high: 1.5, none: 3.0})
    monkeypatch.setattr(health, "alarms", lambda rows, recipe: [Alarm(high, 7.0, 1.75)])


def test_what_was_measured_on_held_out_problems_is_the_verdict(tmp_path):
    run = training(tmp_path, measured=held_out(10, 30, 30, 18))
    found = learnt("2_grpo", [run])
    assert (found.first, found.last, found.problems, found.word) == (0, 30, 40, "better than")
    assert found.figures[0].p == pytest.approx(2 / 2**8)
    assert found.highest.later == 10 and found.highest.p == pytest.approx(3 * 2 / 2**20)
    assert found.fell.earlier == 10 and found.fell.p == pytest.approx(6 * 2 / 2**12)
    page = Page(render([run]))
    assert "2_grpo is better than its start on 40 held-out problems" in page.text
    assert "25.0 % → 45.0 %" in page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert learnt("one", [training(tmp_path, "one", measured=held_out(10))]) is None
    for damaged in (
        {"step": 40},
        {"step": 40, "right": [1], "figures": 3},
        {"step": 40, "right": {"greedy": ["x", 7]}},
    ):
        again = training(tmp_path, f"damaged{len(str(damaged))}", measured=[*held_out(10, 30), damaged])
        assert learnt("again", [again]).last == 10 and render([again])


def test_behaviours_are_curves_over_the_middle_of_their_steps():
    figures = {"thinks": [0.5, 0.4, 0.6], "equations": 4.0, "intervals": {"equations": [4.0, 3.0, 5.0]}}
    found = behaviour_curves({"step 1": figures, "steps 2 to 10": figures | {"equations": "x"}})
    assert [(curve.key, curve.points) for curve in found] == [
        ("thoughts/thinks", [(1, 0.5), (6, 0.5)]),
        ("thoughts/equations", [(1, 4.0), (6, 4.0)]),
    ]
    assert found[1].intervals == ((3.0, 5.0), (3.0, 5.0)) and found[0].range == (0, 1)


def test_a_fall_from_the_highest_says_which_checkpoint_to_take(tmp_path):
    run = training(tmp_path, measured=held_out(10, 38, 12))
    assert [(one.why, one.do.split()[1]) for one in next_steps([run], [], [], [learnt("x", [run])])][:1] == [
        ("fell from 95.0 % at step 10 to 30.0 %", "checkpoint-10,")
    ]
    keeps = training(tmp_path, "keeps", measured=held_out(10, 38, 12), keep="best")
    assert not next_steps([keeps], [], [], [learnt("keeps", [keeps])]), "it has been taken"


def test_curves_of_held_out_problems_have_whiskers_and_nothing_that_was_logged_is_missing(tmp_path):
    first, others = all_curves(training(tmp_path, measured=held_out(10, 30)))
    assert [curve.key for curve in first] == ["reward", "held_out/greedy", "held_out/thinks", "kl"]
    assert [curve.key for curve in others] == ["other"]
    assert first[1].points == [(0, 0.25), (10, 0.75)] and first[1].intervals == ((0.1, 0.9), (0.1, 0.9))


def test_rules_are_drawn_and_said_with_what_mends_them(tmp_path, planted):
    run = training(tmp_path)
    html = render([run])
    page = Page(html)
    assert html.count('<line class="limit"') == 1 and "kl_high: above 1.5" in page.text, (
        "on the rule's first metric alone"
    )
    assert html.count('<g class="alarm">') == 2 and page.text.count("lower learning_rate") == 1
    assert "1 health alarm" in page.text and "1 of 2 rules" in page.text
    [stage] = [stage_of(name, group, {run: health_of(run)}) for name, group in arms([run], {}).items()]
    drawn = next(panel for panel in stage.first if panel.key == "kl").drawn
    assert drawn["limits"][0][0] == pytest.approx(BOTTOM - (BOTTOM - TOP) * 0.75)
    assert drawn["alarms"][0][0] == pytest.approx(44 + 288 * 6 / 19, abs=0.1)


def test_a_rule_that_holds_of_several_seeds_is_said_once_with_the_seeds(tmp_path, planted):
    seeds = [training(tmp_path, f"2_grpo/seed_{seed}", seed=seed) for seed in range(3)]
    page = Page(render([*seeds, training(tmp_path, "3_other", learning_rate=1.0)]))
    assert "2 health alarms" in page.text and page.text.count("1 of 2 rules") == 2
    said = (
        "kl_high at 3 of 3 seeds, seed_0 since step 7 (1.75), seed_1 since step 7 (1.75), seed_2 since step 7 (1.75): "
    )
    assert page.text.count(said) == 1 and page.text.count("kl_high since step 7 (1.75): ") == 1


def test_a_far_threshold_is_named_at_the_edge_and_a_near_one_widens_the_axis():
    line = Line("a", 0, [Curve("kl", "kl", [(0.0, 0.0), (10.0, 1.0)])])
    near, far = (draw([line], [Limit("r", value, "above")]) for value in (1.25, 50.0))
    assert near["limits"][0][0] == TOP and near["values"][-1] == (TOP, "1.25")
    assert far["limits"][0][0] is None and far["values"][-1] == (TOP, "1")


@pytest.mark.filterwarnings("error")
def test_a_long_run_of_huge_values_is_drawn_in_few_points(tmp_path):
    points = [(float(s), (-1) ** s * 1e308) for s in range(100_000)]
    drawn = draw([Line("a", 0, [Curve("x", "x", points)])])
    assert all(len(line["points"].split()) <= 240 and not {"n", "i"} & {*line["points"]} for line in drawn["lines"])
    assert drawn["lines"][0]["points"].count("14") >= 100, "the highest of every part stay"
    assert thinned([(s, float(s == 777)) for s in range(5000)])[75:] and max(v for _, v in thinned(points)) == 1e308


def test_seeds_of_one_recipe_are_one_line_and_differ_by_their_means(tmp_path):
    shared = {"eval_problems": 40}
    runs = [
        training(tmp_path, f"{name}_{seed}", end + seed / 100, held_out(10, k), seed=seed, learning_rate=rate, **shared)
        for name, end, k, rate in (("slow", 0.2, 12, 1), ("fast", 0.8, 30, 2))
        for seed in (0, 1, 2)
    ]
    [(name, found)] = arms(runs, {}).items()
    assert name == "grpo" and [arm.label for arm in found] == ["slow, 3 seeds", "fast, 3 seeds"]
    [(arm, rows)] = differences(found)
    greedy, reward = rows[0], next(row for row in rows if row.title == "reward")
    assert arm.label == "fast, 3 seeds" and greedy.difference.startswith("+45.0 [") and greedy.p < 0.001
    assert reward.difference.startswith("+0.585 [") and reward.p < 0.001, "the mean of steps 19 and 20"
    assert [
        row.p for row in differences([found[0]._replace(runs=runs[:1]), found[1]])[0][1] if row.title == "reward"
    ] == [None]
    html = render(runs)
    assert html.count(' seed"') >= 6 and "slow, 3 seeds" in html and "Welch" in html
    other = [runs[0], training(tmp_path, "rows", seed=0, measured=held_out(10, 30), dataset_name="other", **shared)]
    [pair] = arms(other, {}).values()
    assert not [row for row in differences(pair)[0][1] if "paired" in row.title], "other rows are no pairs"


def test_seeds_of_one_recipe_are_pooled_at_the_top(tmp_path):
    counts = ((10, 30), (12, 28), (8, 33))
    runs = [training(tmp_path, f"2_{i}", measured=held_out(*of), seed=i) for i, of in enumerate(counts)]
    found = learnt("all", runs)
    [figure] = found.figures
    assert (figure.seeds, figure.before[0], figure.after) == (3, 0.25, [pytest.approx(91 / 120), 0.7, 0.825])
    assert figure.test.seeds == 3 and figure.test.problems == 40 and figure.word == "better"
    page = Page(render(runs))
    assert page.text.count("better than its first measurement") == 1 and "2, 3 seeds is better than" in page.text
    longer = training(tmp_path, "2_3", measured=held_out(9, 31, 0), seed=3)
    assert learnt("all", [longer, *runs]).last == 10, "the last measurement that all of them have"


def evaluation(tmp_path, seed, right, **more):
    """Write an evaluation of a seed's two models, which solve so many of 40 problems each."""
    made = f"runs/x/1_sft/seed_{seed}", f"runs/x/2_grpo/seed_{seed}"
    write_run(tmp_path / made[0], {"stage": "sft", "seed": seed, "output_dir": made[0]}, {})
    model = {"stage": "grpo", "seed": seed, "output_dir": made[1], "model_name_or_path": made[0]}
    write_run(tmp_path / made[1], model, {})
    rows = [
        {"model": label, "prompt_index": p, "sample_index": -1, "completion": "x", "rewards": {"r": float(p < k)}}
        for label, k in right.items()
        for p in range(40)
    ]
    results = {label: {"problems": 40, "greedy": [k / 40, 0.0, 1.0]} for label, k in right.items()}
    recipe = {"stage": "eval", "seed": seed, "models": dict(zip(right, made, strict=True))}
    recipe |= {"output_dir": f"runs/x/3_eval/seed_{seed}"} | more
    files = {"eval.json": results, "answers.jsonl": rows}
    return write_run(tmp_path / "runs" / "x" / "3_eval" / f"seed_{seed}", recipe, files)


def test_an_evaluation_of_seeds_has_one_verdict_and_what_was_run_again_another(tmp_path):
    counts = ((10, 30), (12, 28), (8, 33))
    for seed, (sft, grpo) in enumerate(counts):
        evaluation(tmp_path, seed, {"sft": sft, "grpo": grpo})
    runs = [read_run(path) for path in find_runs([*(tmp_path / "runs" / "x").iterdir()])]
    text = Page(render(runs)).text.replace("\N{NO-BREAK SPACE}", " ")
    assert text.count("sft → grpo") == 1 and "grpo is better than sft on" in text
    assert "25.0 % → 75.8 %" in text and "[70.0, 82.5]" in text and "61 problems better, 0 worse, in 3 seeds" in text
    [evals] = [[run for run in runs if run.stage == "eval"]]
    again = Run(evals[0].path, recipe=evals[0].recipe | {"output_dir": "runs/again"}, results=evals[0].results)
    made = {run.recipe["output_dir"]: run for run in runs if run.stage != "eval"}
    assert [len(arm.runs) for arm in arms([*evals, again], made)["eval"]] == [3, 1]
    for run in evals:
        run.answers = []
    [row] = verdicts(evals, made)
    assert row["word"] == "not told apart from" and row["figures"][0].test is None, "spreads of seeds are no test"


def test_many_comparisons_are_counted_and_each_says_what_it_is(tmp_path):
    for seed, grpo in enumerate((30, 31, 2, 21)):
        evaluation(tmp_path, seed, {"sft": 20, "grpo": grpo}, temperature=seed)
    runs = [read_run(path) for path in find_runs([*(tmp_path / "runs" / "x").iterdir()])]
    text = Page(render(runs)).text
    assert "Of 4 models and what they were trained from, 2 are better, 1 worse on problems" in text
    assert [text.count(f"{word}: p") for word in ("better", "worse", "not told apart")] == [2, 1, 1]


def test_recipes_that_name_the_runs_of_a_seed_are_one_recipe(tmp_path):
    first = [training(tmp_path, f"1_{seed}", seed=seed) for seed in (0, 1)]
    second = [training(tmp_path, f"2_{seed}", seed=seed, model_name_or_path=f"runs/x/1_{seed}") for seed in (0, 1)]
    made = {f"runs/x/1_{seed}": run for seed, run in enumerate(first)}
    assert [len(arm.runs) for arm in arms([*first, *second], made)["grpo"]] == [2, 2]
    third = [
        training(tmp_path, f"3_{i}", seed=i, model_name_or_path=f"runs/x/1_{i}/checkpoint-{9 + i}") for i in (0, 1)
    ]
    assert [len(arm.runs) for arm in arms(third, made)["grpo"]] == [1, 1], "of other checkpoints"
    assert [len(arm.runs) for arm in arms(second, {})["grpo"]] == [1, 1]


def test_every_rewards_share_is_its_weight_at_the_end_times_its_mean():
    entries = ["a", {"b": {"schedule": {"linear": {0: 0.0, 100: 1.0}}}}, {"c": {"weight": "x"}}]
    rows = [{"step": s, "rewards/a/mean": 0.5, "rewards/b/mean": -1.0, "rewards/c/mean": None} for s in (1, 25)]
    shares = reward_shares(Run(None, recipe={"reward_funcs": entries}, metrics=rows))
    assert [(one.name, one.weight, one.pays, one.left) for one in shares] == [
        ("a", 1, 0.5, 0),
        ("b", 0.25, -0.25, 2 / 3),
    ]
    assert [round(one.part, 3) for one in shares] == [0.667, 0.333]
    assert weights_of({"reward_funcs": ["a", "b"], "reward_weights": [0.5, 2]}) == {"a": 0.5, "b": 2}
    assert weights_of({"reward_funcs": [{"a": {"schedule": {"steps": {0: 1.0, 9: 3.0}}}}]}, 8) == {"a": 1.0}


def test_distributions_are_shares_of_their_own_samples():
    found = histogram({"first": [0.0, 0.0, 1.0, 1.0], "last": [1.0, 1.0], "none": []})
    assert [(line["label"], line["count"], line["mean"]) for line in found["lines"]] == [
        ("first", 4, 0.5),
        ("last", 2, 1.0),
    ]
    assert found["most"] == 1.0 and found["lines"][1]["points"] == "44,150 44,150 188,150 188,14 332,14 332,150"
    assert histogram({}) is None and histogram({"all": [7.5]})["low"] == 7.5
    samples = [{"step": s, "completion": "x" * s, "rewards": {"a": s, "b": None}} for s in range(1, 21)]
    drawn = dict(distributions(Run(None, samples=samples)))
    assert [line["label"] for line in drawn["length in characters"]["lines"]] == ["step 1 to 2", "step 19 to 20"]
    assert "a" in drawn and "b" not in drawn
    recipe = {"reward_funcs": ["b", {"a": {"schedule": {"steps": {0: 0.0, 10: 2.0}}}}]}
    [first, last] = dict(distributions(Run(None, recipe=recipe, samples=samples)))["total reward"]["lines"]
    assert (first["mean"], last["mean"]) == (0.0, 39.0), "by the weights at a sample's step"


def test_the_policy_names_our_style_and_script_by_their_hashes_and_nothing_else(tmp_path):
    html = render([training(tmp_path, recipe=HOSTILE)])
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    style, script = re.findall(r"<style>(.*?)</style>", html, re.S), re.findall(r"<script>(.*?)</script>", html, re.S)
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (*style, *script)]
    assert policy == f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'"
    assert 'http-equiv="refresh"' not in html and "style=" not in html
    assert 'http-equiv="refresh" content="10"' in render([training(tmp_path, "again")], refresh=10)


def test_what_others_have_published_stands_beside_our_figures(tmp_path):

    results = {HOSTILE: {"problems": 100, "greedy": [0.5, 0.4, 0.6]}}
    recipe = {"stage": "eval", "benchmark": "gsm8k", "max_samples": 100, "models": {HOSTILE: "m"}}
    page = Page(render([read_run(write_run(tmp_path / "eval", recipe, {"eval.json": results}))]))
    assert "Published for gsm8k" in page.text and "Qwen2.5-0.5B-Instruct" in page.text and "49.6" in page.text
    assert "max_samples" in page.text.partition("Published")[2].partition("Qwen")[0]


@pytest.mark.parametrize("count", [0, 1, 20])
def test_no_samples_and_many_runs_make_a_page(tmp_path, count):
    runs = [training(tmp_path, f"{i}_grpo", learning_rate=i) for i in range(count)]
    runs = runs or [Run(tmp_path, ["no DONE"])]
    page = Page(render(runs))
    assert page.open == [] and f"{len(runs)} run" in page.text


def test_values_that_are_no_numbers_harm_no_page(tmp_path):
    rows = [
        {"step": 1, "reward": 10**400, "loss": "x", HOSTILE: 1.0},
        {"step": 2, "reward": [1], "kl": True},
        {"step": "x"},
    ]
    recipe = {"stage": "grpo", "health": "x", "reward_funcs": {"a": 1}, "reward_weights": "x", "benchmark": ["x"], 7: 8}
    path = write_run(tmp_path / "bad", recipe, {"metrics.jsonl": rows, "held_out.jsonl": [{"step": []}, {"step": 1}]})

    page = Page(render([read_run(path), training(tmp_path)]))
    assert HOSTILE in page.text and page.tags.count("script") == 1
    assert json.dumps(page.attributes).count("onerror") == 0
    for text in ("stage: grpo\na: &a [*a]\n", "stage: grpo\na: 2020-13-45\n"):
        (path / "recipe.yaml").write_text(text)
        assert "recipe.yaml cannot be read" in Page(render([read_run(path)])).text
