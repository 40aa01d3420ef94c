"""`compare`: finished evaluations written by hand, paired, pooled, and refused where they are not alike."""

import json

import pytest
import yaml

from reasoning_ext.errors import UserError
from reasoning_ext.evaluate.compare import choose, compare_models, pool, read_evaluation
from reasoning_ext.evaluate.compare_table import compare_and_print
from reasoning_ext.runs.read import read_run

RECIPE = {"stage": "eval", "models": {"sft": "runs/sft", "grpo": "runs/grpo"}, "seed": 0, "num_generations": 2}


@pytest.fixture
def write(tmp_path):
    """Write a finished run: `solves` has the greedy answers of each model, 1 right and 0 wrong, None not judged."""

    def run(name, solves, recipe=(), done=True, prompt="{}+0?", gold="{}", strategies=(), judge="same"):
        path = tmp_path / name
        path.mkdir(parents=True)
        (path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | {"output_dir": name} | dict(recipe)))
        (path / "lineage.json").write_text('{"recipe": "", "inputs": {}}')
        rows = [
            {"model": model, "prompt_index": p, "sample_index": g, "completion": f"{model} {p} {g}"}
            | {"answer": gold.format(p), "prompt": [{"role": "user", "content": prompt.format(p)}]}
            | {"rewards": {judge: None if right is None else float(right if g < 1 else 1 - right), "other": 0.0}}
            for model, rights in solves.items()
            for p, right in enumerate(rights)
            for g in (-1, 0, 1)
        ]
        rows += [row | {"way": "cot:x", "rewards": {"same": 1.0}} for row in rows]
        (path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if strategies:
            (path / "strategies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in strategies))
        if done:
            (path / "DONE").write_text("{}")
        return path

    return run


def compared(paths, names=None, figure="greedy"):
    models = pool([read_evaluation(path) for path in paths])
    return compare_models(choose(models, names), figure)


SOLVES = {"sft": [1, 1, 0, 0, 0, None, *[0] * 10], "grpo": [1, 0, 1, 1, 0, 1, *[1] * 10]}


def test_what_only_a_strategy_had_drawn_is_no_part_of_pass_at_1(write):
    run = write("run", SOLVES)
    wanted = [one.found for one in compared([run], figure="pass@1")]
    rows = [json.loads(line) for line in (run / "answers.jsonl").read_text().splitlines()]
    more = [
        row | {"sample_index": g, "rewards": {"same": 1.0}} for row in rows if not row["sample_index"] for g in (2, 3)
    ]
    (run / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows + more))
    assert [one.found for one in compared([run], figure="pass@1")] == wanted
    assert {row["sample_index"] for row in read_run(run).answers} == {-1, 0, 1}


def test_models_of_one_run_are_paired_by_problem(write):
    [one] = compared([write("run", SOLVES)])
    found = one.found
    assert (one.first.name, one.second.name) == ("sft", "grpo")
    assert (found.both, found.only_first, found.only_second, found.none, found.problems) == (1, 1, 12, 1, 15)
    assert found.exact and one.p == found.p == pytest.approx(2 * 14 / 2**13)
    [turned] = compared([write("again", SOLVES)], ("grpo", "sft"))
    assert (turned.found.only_first, turned.found.only_second) == (12, 1)


def test_pass_at_1_is_of_the_sampled_answers_alone(write):
    found = compared([write("run", {"sft": [1, 0, 0], "grpo": [1, 1, 1]})], figure="pass@1")[0].found
    assert (found.first, found.second) == (0.5, 0.5), "one of two samples is right each time"


def test_several_models_are_held_against_the_first_and_corrected_together(write):
    solves = {"base": [0] * 20, "a": [1] * 6 + [0] * 14, "b": [1] * 20}
    a, b = compared([write("run", solves)])
    assert (a.first.name, a.second.name, b.second.name) == ("base", "a", "b")
    assert a.found.p == pytest.approx(2 / 2**6) and a.p == a.found.p and b.p == pytest.approx(2 * b.found.p)


def test_strategies_are_read_from_their_file(write):
    lines = [
        {"model": m, "strategy": "self_consistency: 8", "prompt_index": p, "right": right, "tokens": 9}
        for m, right in (("sft", 0.5), ("grpo", 1.0)) for p in range(16)
    ]  # fmt: skip
    [one] = compared([write("run", SOLVES, strategies=lines)], figure="self_consistency: 8")
    assert (one.found.first, one.found.second, one.found.only_second) == (0.5, 1.0, 16) and one.p < 0.001


def test_seeds_of_one_recipe_are_pooled_and_anything_else_is_not(write):
    seeds = [write(f"{seed}/eval", SOLVES, {"seed": seed}) for seed in (0, 1, 2)]
    [one] = compared(seeds)
    assert (one.found.seeds, one.found.problems, one.found.exact) == (3, 15, False)
    assert [run.seed for run in one.second.runs] == ["0", "1", "2"]
    again = write("again", SOLVES, {"seed": 1})  # the same recipe and seed once more
    other = write("other", SOLVES, {"num_generations": 3})
    pairs = compared([*seeds, again, other])
    names = [(pair.first.name, pair.second.name, pair.found.seeds) for pair in pairs]
    assert names == [("1:sft", "2:sft", 3), ("1:grpo", "2:grpo", 3), ("1:sft", "3:sft", 3), ("1:grpo", "3:grpo", 3)]
    with pytest.raises(UserError, match="3 seeds of 1:sft and 2 of 2:sft"):
        compared([*seeds, again, write("more", SOLVES, {"seed": 2})])


def test_seeds_are_pooled_through_the_runs_that_made_the_models(write, tmp_path):
    def trained(seed, rate):
        folder = tmp_path / f"grpo_{seed}_{rate}"
        folder.mkdir(exist_ok=True)
        (folder / "recipe.yaml").write_text(yaml.safe_dump({"stage": "grpo", "seed": seed, "learning_rate": rate}))
        (folder / "lineage.json").write_text("{}")
        return folder

    def pooled(seeds, rates=(0.1, 0.1), of=""):
        runs = []
        for i, rate in enumerate(rates):
            models = {"sft": "hub/x", "grpo": f"{trained(i, rate)}{of}"}
            recipe = {"seed": seeds[i], "models": models, "system_prompt": "Think. " * 99}  # no name of a file
            runs.append(read_evaluation(write(f"eval_{i}_{seeds}{rates}{of[-1:]}", SOLVES, recipe)))
        return [(model.name, [run.seed for run in model.runs]) for model in pool(runs)]

    assert pooled((0, 1)) == [("sft", ["0", "1"]), ("grpo", ["0", "1"])]
    assert [name for name, _ in pooled((0, 1), (0.1, 0.2))] == ["1:sft", "1:grpo", "2:sft", "2:grpo"]
    for of in ("", "/checkpoint-9", "/checkpoint-*"):  # evaluations of one seed, of models that were trained with two
        assert pooled((7, 7), of=of) == [("sft", ["7/0", "7/1"]), ("grpo", ["7/0", "7/1"])]


def refused(call, wording):
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    wording(caught.value)


@pytest.mark.parametrize(
    "other",
    [{"prompt": "{}+1?"}, {"gold": "{}0"}, {"solves": {"sft": [1], "grpo": [1]}}, {"judge": "close"}],
    ids=["prompt", "gold", "fewer", "judge"],
)
def test_other_problems_are_refused_by_the_first_that_differs(write, wording, other):
    paths = [write("one", SOLVES), write("other", **{"solves": SOLVES} | other)]
    refused(lambda: compare_and_print(paths, None, "greedy", 0), wording)


@pytest.mark.parametrize(
    "line", ["{\n", "[]", '{"model": "sft"}', '{"prompt_index": [1]}', '{"prompt_index": 1, "rewards": 5}']
)
def test_damaged_lines_are_refused_in_one_line(write, line):
    run = write("run", SOLVES)
    for file in ("strategies", "answers"):
        (run / f"{file}.jsonl").write_text(line + "\n")
        with pytest.raises(UserError, match=file):
            compare_and_print([run], None, "greedy", 0)
    (run / "answers.jsonl").unlink()  # as the harness leaves it
    with pytest.raises(UserError, match="without answers"):
        compare_and_print([run], None, "greedy", 0)


def test_what_is_not_there_is_said_with_what_is(write, wording, tmp_path):
    run = write("run", SOLVES)
    for names, figure in ((("sft", "ppo"), "greedy"), (("sft", "sft"), "greedy"), (None, "best_of: 8")):
        refused(lambda names=names, figure=figure: compare_and_print([run], names, figure, 0), wording)
    one = write("one", {"sft": [1, 0]})
    training = write("training", SOLVES, {"stage": "grpo"})
    for path in (one, training, write("half", SOLVES, done=False), tmp_path):
        refused(lambda path=path: compare_and_print([path], None, "greedy", 0), wording)


def test_what_is_printed(write, capsys):
    seeds = [write(f"{seed}/eval", SOLVES, {"seed": seed}) for seed in (0, 1)]
    compare_and_print(seeds[:1], None, "greedy", 2)
    said = capsys.readouterr().out
    told = "sft → grpo, 13.3 → 86.7, grpo is better, McNemar, 2 points, here are 15, 13 flips, gold 1"
    assert all(text in said for text in told.split(", "))
    assert said.count("--- sft: ") == 2 and "sft 1 -1" in said and "grpo 1 -1" in said and "sft 1 0" not in said
    compare_and_print(seeds, ("sft", "grpo"), "pass@1", 1)
    said = capsys.readouterr().out
    assert "seeds 0, 1 are pooled" in said and "by seed: +0.0, +0.0" in said and "not told apart" in said
    steps = {f"checkpoint-{step}": [1] * right + [0] * (40 - right) for step, right in ((9, 5), (10, 30), (20, 32))}
    compare_and_print([write("steps", steps)], None, "greedy", 0)
    said = capsys.readouterr().out
    assert "checkpoint-20 has the highest greedy, 80.0 %, from which checkpoint-10, 75.0 %, is the earliest" in said


def test_a_folder_of_seeds_stands_for_all_of_its_runs(write, tmp_path, capsys):
    for seed in (0, 1, 2):
        write(f"eval/seed_{seed}", SOLVES, {"seed": seed})
    compare_and_print([tmp_path / "eval"], None, "greedy", 0)
    assert "greedy on the same 15 problems, 3 seeds" in capsys.readouterr().out
    write("eval/seed_3", SOLVES, {"seed": 3}, done=False)
    with pytest.raises(UserError, match="seed_3, a run that has not finished"):
        compare_and_print([tmp_path / "eval"], None, "greedy", 0)
