"""What skip_known and refill must not say, each at its line, before anything is loaded."""

from reasoning_ext.check.keys import check_recipe
from reasoning_ext.recipe.load import load_recipes
from reasoning_ext.runs.identity import refused_change

GRPO = """\
stage: grpo
model_name_or_path: some/model
dataset_name: ./rows.jsonl
reward_funcs: [math_answer]
num_generations: 4
per_device_train_batch_size: 6
gradient_accumulation_steps: 2
output_dir: out
"""
CASES = {  # lines after GRPO -> where which code is found
    "skip_known: {}": {},
    "skip_known: {above: 1, below: 0, retry_after: 1}\nrefill: {rounds: 3}": {},
    "skip_known: {below: null}\nrefill: false": {},
    "use_vllm: true\nrefill: true": {},
    "skip_known: {over: 0.9}": {"skip_known.over": "wrong_skip_known"},
    "skip_known: {above: most}": {"skip_known.above": "wrong_skip_known"},
    "skip_known: {above: 1.5, below: -0.1}": {
        "skip_known.above": "wrong_skip_known", "skip_known.below": "wrong_skip_known",
    },
    "skip_known: {above: 0.3, below: 0.3}": {"skip_known": "wrong_skip_known"},
    "skip_known: {above: 0.2, below: 0.7}": {"skip_known": "wrong_skip_known"},
    "skip_known: {above: null, below: null}": {"skip_known": "wrong_skip_known"},
    "skip_known: {retry_after: 0}": {"skip_known.retry_after": "wrong_skip_known"},
    "refill: true": {"refill": "wrong_refill"},
    "refill: {}": {"refill": "wrong_refill"},
    "refill: {rounds: 0}": {"refill.rounds": "wrong_refill"},
    "refill: {rounds: 999999999999999999}": {"refill.rounds": "wrong_refill"},
    "refill: {rounds: 1.5}": {"refill.rounds": "wrong_refill"},
    "refill: {round: 2}": {"refill.round": "wrong_refill"},
    "refill: {rounds: 2}\nscale_rewards: batch": {"scale_rewards": "unfit_for_rollouts"},
    "refill: {rounds: 2}\nmulti_objective_aggregation: normalize_then_sum": {
        "multi_objective_aggregation": "unfit_for_rollouts",
    },
    "skip_known: {}\nscale_rewards: batch": {},
    "refill: {rounds: 2}\nskip_known: {}\ndataset_streaming: true": {
        "refill": "unfit_for_rollouts", "skip_known": "unfit_for_rollouts",
    },
}  # fmt: skip


def problems(path):
    found = []
    [recipe] = load_recipes([path], {}, found)
    return [*found, *check_recipe(recipe, run=False).problems]


def told(path):
    return {problem.key: problem.code for problem in problems(path)}


def test_what_is_wrong_is_said_with_its_place(rows_file, write_recipe, wording):
    found = {more: problems(write_recipe(f"{GRPO}{more}\n")) for more in CASES}
    assert {more: {one.key: one.code for one in wrong} for more, wrong in found.items()} == CASES
    wording([one for wrong in found.values() for one in wrong])


def test_unsloth_and_parted_groups_are_refused_for_a_refill_alone(rows_file, write_recipe, monkeypatch):
    assert told(write_recipe(GRPO + "backend: unsloth\nrefill: {rounds: 2}\n"))["refill"] == "unfit_for_rollouts"
    assert "skip_known" not in told(write_recipe(GRPO + "backend: unsloth\nskip_known: {}\n"))
    monkeypatch.setenv("WORLD_SIZE", "2")  # 12 completions a process and 8 a prompt
    recipe = GRPO.replace("num_generations: 4", "num_generations: 8")
    assert told(write_recipe(recipe + "refill: {rounds: 2}\n")) == {"num_generations": "unfit_for_rollouts"}
    assert told(write_recipe(recipe + "skip_known: {}\n")) == {}
    assert told(write_recipe(GRPO + "refill: {rounds: 2}\n")) == {}


def test_a_run_with_other_prompts_is_another_run():
    before = {"stage": "grpo", "skip_known": {"above": 0.9}}
    assert "skip_known" in refused_change(before, before | {"skip_known": {"above": 0.8}})
    assert "refill" in refused_change(before, before | {"refill": {"rounds": 2}})
