"""`--seeds`: what each seed is given, what is refused, and that a failing or killed seed loses nothing of the others."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import TINY

from reasoning_ext import pipeline
from reasoning_ext.check import check
from reasoning_ext.check.keys import Checked
from reasoning_ext.check.seeds import by_seed, of_seed, split_seeds
from reasoning_ext.errors import UserError
from reasoning_ext.evaluate.replay import score_and_print
from reasoning_ext.models.weights import check_weights
from reasoning_ext.recipe.load import load_recipes
from reasoning_ext.runs.folder import DONE, METRICS, open_run, seed_runs
from reasoning_ext.runs.read import find_runs, read_run
from reasoning_ext.runs.report import save_curves

SFT = {"stage": "sft", "model_name_or_path": "hub/model", "dataset_name": "./rows.py", "output_dir": "runs/x/1_sft"}
EVAL = {"stage": "eval", "models": {"sft": "runs/x/1_sft"}, "dataset_name": "./rows.py", "output_dir": "runs/x/3_eval"}
SAMPLE = {
    "stage": "sample", "model_name_or_path": "runs/x/1_sft", "dataset_name": "hub/rows", "reward_funcs": ["math_answer"],
    "output_dir": "runs/x/2_sample",
}  # fmt: skip


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Write recipes into a folder below the current one and load them."""
    monkeypatch.chdir(tmp_path)

    def recipes(*given):
        (tmp_path / "recipes").mkdir(exist_ok=True)
        for i, values in enumerate(given, 1):
            (tmp_path / "recipes" / f"{i}.yaml").write_text(yaml.safe_dump(values))
        return load_recipes([f"recipes/{i}.yaml" for i in range(1, len(given) + 1)])

    return recipes


def made(recipe, **changes):
    """Leave what a run of a recipe leaves."""
    run = open_run(recipe.output_dir, recipe.values | changes, {})
    (run.path / METRICS).write_text("{}\n")
    return run.path


@pytest.mark.parametrize("given", [["0", "1", "12"], ["0,1,12"], ["0,1", "12"]])
def test_seeds_stand_anywhere_among_the_arguments(given):
    assert split_seeds(["a", "--seeds", *given, "b", "--lr", "1"]) == (["a", "b", "--lr", "1"], [0, 1, 12])
    assert split_seeds(["a", f"--seeds={','.join(given)}"]) == (["a"], [0, 1, 12])
    assert split_seeds(["a", "--lr", "1"]) == (["a", "--lr", "1"], [])


def test_seeds_that_are_none(wording):
    said = []
    for arguments in ("", "x", "=", "=x", " 0 1 0", " -1", " 4294967296", " 0 --seed 1", " 0 --seeds 1"):
        with pytest.raises(UserError) as error:
            split_seeds(f"a --seeds{' ' * (arguments == 'x')}{arguments}".split(" "))
        said.append(error.value)
    wording(said)


def test_what_is_handed_over_stays_inside_one_seed_and_the_rest_where_it_is(load, tmp_path):
    (tmp_path / "runs/y").mkdir(parents=True)
    recipes = load(
        SFT | {"seed": 7, "run_name": "mine"},
        SAMPLE | {"model_name_or_path": "../runs/x/1_sft/checkpoint-4", "dataset_name": "./1_sft"},
        EVAL | {"models": {"a": "runs/x/1_sft/checkpoint-*", "b": f"{tmp_path}/runs/x/1_sft", "c": "hub/model"}},
        SFT | {"dataset_name": "runs/x/2_sample/pairs.jsonl", "output_dir": "runs/x/4", "decontaminate": ["runs/x/2_sample"]},
        SFT | {"datasets": [{"dataset_name": "runs/x/2_sample"}, {"dataset_name": "train"}], "output_dir": "train"},
        SFT | {"model_name_or_path": "runs/y/sft", "output_dir": "sft"},
    )  # fmt: skip
    sft, sample, evaluated, second, mixed, outside = (recipe.values for recipe in of_seed(recipes, 3))
    assert (sft["seed"], sft["output_dir"], sft["run_name"]) == (3, "runs/x/1_sft/seed_3", "mine-seed_3")
    assert (sft["model_name_or_path"], sft["dataset_name"]) == ("hub/model", "./rows.py")
    assert Path(sample["model_name_or_path"]) == tmp_path / "runs/x/1_sft/seed_3/checkpoint-4"
    assert sample["dataset_name"] == "./1_sft" and recipes[0].values["seed"] == 7
    here = f"{tmp_path}/runs/x/1_sft/seed_3"
    assert evaluated["models"] == {"a": "runs/x/1_sft/seed_3/checkpoint-*", "b": here, "c": "hub/model"}
    assert second["dataset_name"] == "runs/x/2_sample/seed_3/pairs.jsonl"
    assert second["decontaminate"] == ["runs/x/2_sample/seed_3"]
    assert [one["dataset_name"] for one in mixed["datasets"]] == ["runs/x/2_sample/seed_3", "train/seed_3"]
    assert (outside["stage"], outside["output_dir"]) == ("sft", "sft/seed_3")
    assert outside["model_name_or_path"] == "runs/y/sft"  # nobody has run that with this seed
    [earlier] = of_seed(load(SFT | {"output_dir": "runs/y/sft"}), 3)
    made(earlier)
    assert of_seed(recipes, 3)[-1].values["model_name_or_path"] == "runs/y/sft/seed_3"
    assert of_seed(recipes, 4)[-1].values["model_name_or_path"] == "runs/y/sft"


def test_an_evaluation_has_the_same_problems_with_every_seed(load):
    own = EVAL | {"seed": 5, "gen_kwargs": {"num_rows": 4}}
    fixed = EVAL | {"gen_kwargs": {"seed": 9}, "format_kwargs": {"shuffle": False}}
    other = EVAL | {"dataset_name": "hub/rows"}
    one, two, three, sft = (recipe.values for recipe in of_seed(load(own, fixed, other, SFT), 1))
    assert (one["seed"], one["gen_kwargs"], one["format_kwargs"]) == (1, {"seed": 5, "num_rows": 4}, {"seed": 5})
    assert two["gen_kwargs"] == {"seed": 9} and two["format_kwargs"] == {"seed": 42, "shuffle": False}
    assert "gen_kwargs" not in three and "gen_kwargs" not in sft


def test_a_folder_of_another_run_is_refused_and_more_seeds_are_not(load, wording):
    recipes = load(SFT | {"max_steps": 2}, EVAL)
    made(of_seed(recipes, 0)[0])
    assert [[r.values["seed"] for r in group] for group in by_seed(recipes, [2, 0])] == [[2, 2], [0, 0]]
    longer = load(SFT | {"max_steps": 4}, EVAL)
    assert by_seed(longer, [1])
    with pytest.raises(UserError) as other:
        by_seed(load(SFT | {"learning_rate": 0.5}, EVAL), [1, 2])  # of a seed that is not asked for
    assert (other.value.problem.code, other.value.problem.key) == ("other_folder", "output_dir")
    made(load(SFT | {"max_steps": 2}, EVAL)[1])
    with pytest.raises(UserError) as error:
        by_seed(load(SFT | {"max_steps": 2}, EVAL), [0])
    with pytest.raises(UserError) as without:
        pipeline.run_recipes(load(SFT | {"dataset_name": "hub/rows"}))
    with pytest.raises(UserError) as pushed:
        by_seed(load(SFT | {"push_to_hub": True, "output_dir": "runs/x/5_sft"}), [0])
    assert pushed.value.problem.key == "push_to_hub"
    wording([other.value, error.value, without.value, pushed.value])


def test_reports_find_the_runs_of_all_seeds_in_their_order(load, tmp_path):
    recipes = load(SFT, SAMPLE | {"output_dir": "runs/x/2_sample"})
    alone = made(recipes[1])
    runs = [made(of_seed(recipes, seed)[0]) for seed in (10, 2, 0)][::-1]
    assert [*seed_runs(Path("runs/x/1_sft"))] == [0, 2, 10] and seed_runs(alone) == {}
    assert find_runs([Path("runs/x")]) == [*runs, alone] and find_runs([Path("runs/x/1_sft")]) == runs
    assert find_runs(runs[1:2]) == runs[1:2] and read_run(runs[1]).name == "1_sft/seed_2"


def test_where_one_run_is_meant_a_folder_of_seeds_names_its_first(load):
    folder = made(of_seed(load(SFT), 3)[0]).parent
    named = [
        lambda: check_weights(str(folder)),
        lambda: score_and_print(folder, None, ["math_answer"]),
        lambda: save_curves(folder, Path("curves.png")),
    ]
    for call in named:
        with pytest.raises(UserError) as error:
            call()
        assert f"{folder}/seed_3" in str(error.value)
    [checked] = check(load({**SFT, "model_name_or_path": str(folder), "output_dir": "runs/y"}), offline=True)
    assert [(one.code, one.key) for one in checked.errors][:1] == [("unusable_model", "model_name_or_path")]


def test_a_seed_that_fails_does_not_stop_the_others_and_recipes_are_checked_once(load, monkeypatch, capsys):
    ran, looked = [], []

    def checks(recipes, **_):
        looked.append([str(recipe.output_dir) for recipe in recipes])
        yield from map(Checked, recipes)

    def runs(checked, _):
        ran.append(str(checked.recipe.output_dir))
        if ran[-1] == "runs/x/1_sft/seed_1":
            raise UserError("no model")
        return 0

    monkeypatch.setattr(pipeline, "check", checks)
    monkeypatch.setattr(pipeline, "_run_one", runs)
    recipes = load(SFT, SAMPLE)
    assert pipeline.run_recipes(recipes, [0, 1, 2]) == 2
    stages = ["runs/x/1_sft", "runs/x/2_sample"]
    assert looked == [[f"{stage}/seed_2" for stage in stages]]
    assert ran == [*(f"{s}/seed_0" for s in stages), f"{stages[0]}/seed_1", *(f"{s}/seed_2" for s in stages)]
    said = capsys.readouterr()
    assert "seed 1, 2 of 3" in said.out and "2: not run, since 1 failed" in said.out and "no model" in said.err
    assert "failed with seed 1;" in said.out
    with pytest.raises(UserError, match="no model"):
        pipeline.run_recipes(recipes, [1])


@pytest.mark.slow
def test_a_killed_chain_of_two_seeds_goes_on_and_ends_as_each_seed_alone_would(tmp_path, monkeypatch, capsys):
    small = {"max_steps": 3, "max_samples": 16, "num_generations": 2, "max_completion_length": 16, "min_reward": 0.0}
    for name in ("1_sft", "3_sample", "6_eval"):
        values = yaml.safe_load((TINY / f"{name}.yaml").read_text().replace("./", f"{TINY}/"))
        values |= {key: value for key, value in small.items() if key in values or key == "max_samples"}
        values |= {"model_name_or_path": "runs/tiny/1_sft"} if name == "3_sample" else {}
        values |= {"models": {"sft": "runs/tiny/1_sft"}} if name == "6_eval" else {}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.chdir(tmp_path)
    sft, sample, evaluated = (Path("runs/tiny", name) for name in ("1_sft", "3_sample", "6_eval"))
    command = [sys.executable, "-m", "reasoning_ext", "run", ".", "--seeds", "0", "1"]
    process, end = subprocess.Popen(command, stdout=subprocess.PIPE, text=True), time.monotonic() + 600
    while not (sft / "seed_1" / DONE).exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert (evaluated / "seed_0" / DONE).exists() and not (evaluated / "seed_1" / DONE).exists()
    recipes = load_recipes(["."])
    assert pipeline.run_recipes(recipes, [0, 1]) == 0
    said = capsys.readouterr().out
    assert said.count("done already, skipped") >= 4 and said.count(f"starts in {evaluated}") == 1
    for stage in (sample, evaluated):
        lineages = [json.loads((stage / f"seed_{seed}" / "lineage.json").read_text())["inputs"] for seed in (0, 1)]
        assert len({str(of.get("model") or of["model sft"]) for of in lineages}) == 2
    problems = [
        [json.loads(line)["prompt"] for line in (evaluated / f"seed_{seed}/answers.jsonl").open()] for seed in (0, 1)
    ]
    assert sorted(map(str, problems[0])) == sorted(map(str, problems[1]))
    assert pipeline.run_recipes(load_recipes(["1_sft.yaml"], {"seed": "1", "output_dir": "alone"})) == 0
    weights = [
        (folder / "model.safetensors").read_bytes() for folder in (Path("alone"), sft / "seed_1", sft / "seed_0")
    ]
    assert weights[0] == weights[1] != weights[2]
