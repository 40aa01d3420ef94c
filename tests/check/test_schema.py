"""The schema accepts the recipes that `load_recipe` accepts and refuses those it refuses."""

import json
import re
from importlib.metadata import version

import pytest
import yaml
from conftest import ROOT

from reasoning_ext.check.schema import DRAFT, recipe_schema, schema_text
from reasoning_ext.errors import UserError
from reasoning_ext.evaluate.strategies import parse_strategies
from reasoning_ext.recipe.keys import STAGES
from reasoning_ext.recipe.known_keys import MANAGED, stage_keys
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.recipe.yaml_reading import read_yaml
from reasoning_ext.scoring.spec import LAYER_OPTIONS, parse_rewards

jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema, which the extra test installs")

RECIPES = sorted([*ROOT.glob("recipes/**/*.yaml"), *ROOT.glob("examples/**/*.yaml")])
# they hold mappings with keys of their own
NESTED = {
    "trace_filters", "datasets", "decontaminate", "reward_funcs", "strategies", "thinking_curve", "skip_known", "refill",
    "health", "audit", "tools", "environment",
}  # fmt: skip

# What stands below `stage: ...`; the loader and the schema accept each of them.
GOOD = [
    ("sft", "learning_rate: 1e-5\nmax_length: null\nsave_strategy: no\nlr_scheduler_type: cosine\noptim: adamw_8bit"),
    ("sft", "lora_target_modules: [all-linear]\nreport_to: [tensorboard]\ntrackio_static_space_id: false"),
    ("sft", "model_init_kwargs: {low_cpu_mem_usage: true}\nparallelism_config: {anything: [1]}\nbackend: unsloth"),
    ("sft", "trace_filters: {correct: true, min_steps: 0.9, language: latin}"),
    ("sft", "decontaminate: [./x.jsonl, {dataset_name: a/b, dataset_config: main, dataset_format: gsm8k}]"),
    ("sft", "datasets: [{dataset_name: a/b, num_rows: 10, chat_template_kwargs: {enable_thinking: false}}]"),
    ("grpo", "loss_type: dapo\nscale_rewards: false\nreward_weights: [1, 0.5]\nreward_funcs: math_answer"),
    ("dpo", "loss_type: [sigmoid, sft]\nloss_weights: [1, 0.5]\noverlong_rows: drop"),
    ("grpo", "reward_funcs: [exact_answer, {math_answer: }, {think_format: {weight: 0, gate: math_answer}}]"),
    ("grpo", "reward_funcs: [{length_penalty: {schedule: {linear: {0: 1.0, 200: 0.1}}, max_tokens: 64}}]"),
    ("grpo", "reward_funcs: [{math_answer: {when: {task: math, kind: [a, 1]}, timeout: 20, isolate: true}}]"),
    ("grpo", "skip_known: {above: 1, below: null, retry_after: 9}\nrefill: {rounds: 2}"),
    ("grpo", "skip_known: {}\nrefill: true"),
    ("sample", "num_generations: 4\nmin_reward: 1\nkeep: 2\nreward_funcs: [math_answer]"),
    ("eval", "models: {base: a/b}"),
    ("eval", "models: [a/b, c/d]\ntop_p: 0.9"),
    ("eval", "strategies: [greedy, {self_consistency: 8}, {beam: {by: step_check, diverse: true}}, {refine: }]"),
    ("eval", "thinking_curve: {shares: [0.5, 0.75], budgets: [64]}"),
    ("eval", "thinking_curve: true"),
    ("eval", "models: runs/grpo/checkpoint-*"),
    ("eval", "tools: [calculator, {python: {seconds: 2, memory_mb: 0, allow_code_execution: true}}, {calculator: }]"),
    ("grpo", "tools: calculator\nmax_tool_calling_iterations: 4\nenvironment: {./env.py:Env: {seconds: 0.5, size: 3}}"),
]

# What both refuse; the last part is what the loader's message names.
BAD = [
    ("sft", "learning_ratee: 1", "learning_ratee"),
    ("sft", "num_generations: 4", "num_generations"),
    ("sft", "learning_rate: '1e-5'", "learning_rate"),
    ("sft", "max_steps: 1.5", "max_steps"),
    ("sft", "packing: 1", "packing"),
    ("sft", "lr_scheduler_type: cosin", "lr_scheduler_type"),
    ("sft", "lora_target_modules: [1]", "lora_target_modules"),
    *[("sft", f"{key}: null", key) for key in MANAGED],
    ("dpo", "loss_type: [sigmoid, dap]", "loss_type"),
    ("grpo", "reward_funcs: [3]", "found 3"),
    ("grpo", "reward_funcs: [{math_answer: {}, think_format: {}}]", "one name"),
    ("grpo", "reward_funcs: [{math_answer: 2}]", "found 2"),
    ("grpo", "reward_funcs: [{math_answer: {weight: much}}]", "'much'"),
    ("grpo", "reward_funcs: [{math_answer: {isolate: 1}}]", "true or false"),
    ("grpo", "reward_funcs: [{math_answer: {timeout: 0}}]", "seconds"),
    ("grpo", "reward_funcs: [{math_answer: {when: [task]}}]", "columns"),
    ("sample", "learning_rate: 1e-5", "learning_rate"),
    ("eval", "strategies: [gredy]", "gredy"),
    ("eval", "strategies: [{best_of: {n: 8, bye: step_check}}]", "bye"),
    ("eval", "thinking_curve: 0.5", "thinking_curve"),
    ("grpo", "skip_known: true", "skip_known"),
    ("grpo", "refill: 3", "refill"),
    ("eval", "models: 3", "models"),
    ("sample", "max_tool_calling_iterations: few", "max_tool_calling_iterations"),
    ("sft", "environment: ./env.py:Env", "environment"),
    ("sft", "tools: 3", "tools"),
    ("dpoo", "seed: 0", "stage"),
]
NESTED_BAD = [
    "datasets: [{dataset_name: a/b, wieght: 2}]", "datasets: [{dataset_name: a/b, num_rows: many}]",
    "datasets: [{dataset_format: math}]", "datasets: [a/b]", "trace_filters: {corect: true}",
    "tools: [{python: {seconds: few}}]", "tools: [{a: {}, b: {}}]", "tools: [3]",
    "health: {kl_hig: 1}", "health: {nan: few}", "health: {nan: -1}",
    "trace_filters: {min_tokens: few}", "decontaminate: [{dataset_name: a/b, dataset_train_split: train}]",
    "decontaminate: [{dataset_config: main}]",
]  # fmt: skip
VALUES = [None, True, False, 0, 3, -1.5, "", "no", "steps", [], ["a"], [1], [1.5, 2], {}, {"a": True}, {"a": 1}]


@pytest.fixture(scope="module")
def validator():
    jsonschema.Draft7Validator.check_schema(recipe_schema())
    return jsonschema.Draft7Validator(json.loads(schema_text()))


def _load(path):
    """Load a recipe and its rewards as `check` does."""
    loaded = load_recipe(path)
    if "reward_funcs" in loaded.keys:
        specs = parse_rewards(loaded.get("reward_funcs"), path.parent)
    if "strategies" in loaded.keys:
        parse_strategies(loaded, specs)


def _errors(validator, path):
    """Return what an editor's validator says of a recipe, whose keys are strings to it."""
    return [error.message for error in validator.iter_errors(json.loads(json.dumps(read_yaml(path)[0])))]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_recipe_of_the_project_validates(validator, path):
    assert _errors(validator, path) == []


@pytest.mark.parametrize(("stage", "lines"), GOOD)
def test_what_the_loader_accepts_the_schema_accepts(validator, write_recipe, stage, lines):
    path = write_recipe(f"stage: {stage}\n{lines}\n")
    _load(path)
    assert _errors(validator, path) == []


@pytest.mark.parametrize(("stage", "lines", "named"), BAD)
def test_what_the_loader_refuses_the_schema_refuses(validator, write_recipe, stage, lines, named):
    path = write_recipe(f"stage: {stage}\n{lines}\n")
    with pytest.raises(UserError, match=re.escape(named)):
        _load(path)
    assert _errors(validator, path)


@pytest.mark.parametrize("lines", NESTED_BAD)
def test_keys_within_keys_are_those_of_their_mapping(validator, lines):
    assert not validator.is_valid(yaml.safe_load(f"stage: sft\n{lines}"))


@pytest.mark.parametrize("stage", STAGES)
def test_for_every_key_and_kind_of_value_the_schema_says_what_the_loader_says(validator, stage):
    definitions = validator.schema["definitions"]
    [properties] = [
        one["then"]["properties"]
        for one in validator.schema["allOf"]
        if one["then"]["properties"]["stage"]["const"] == stage
    ]
    keys = stage_keys(stage)
    assert set(properties) == set(keys) - set(MANAGED)
    for name in properties.keys() - NESTED - {"stage"}:
        own = validator.evolve(schema={"definitions": definitions, "allOf": [properties[name]]})
        for value in [*VALUES, *keys[name].choices]:
            assert own.is_valid(value) is (keys[name].misfit(value) is None), (name, value)
        shown = definitions[name] if "$ref" in properties[name] else properties[name]
        assert shown.get("default") in (None, keys[name].default)
        text = shown.get("description", "")
        assert text == keys[name].text and "\n" not in text and "](" not in text and len(text) < 400, (name, text)
    assert sum(not key.text for key in keys.values()) < 0.1 * len(keys)
    assert keys["learning_rate" if "learning_rate" in keys else "top_p"].text.endswith(".")


def test_options_of_a_reward_are_those_of_the_layer_and_its_own_are_open():
    schema = recipe_schema()
    assert schema["$schema"] == DRAFT
    listed = schema["definitions"]["reward_funcs"]["anyOf"][0]["items"]["anyOf"]
    entry = listed[1]["additionalProperties"]["anyOf"][0]
    assert list(entry["properties"]) == list(LAYER_OPTIONS) and "additionalProperties" not in entry
    assert "above 0" in entry["properties"]["gate"]["description"]


def test_the_schema_in_the_tree_is_that_of_the_pinned_versions():
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    for package in ("trl", "transformers"):
        if version(package) != pins[package]:
            pytest.skip(f"recipes/schema.json is that of {package} {pins[package]}; {version(package)} is installed")
    wanted = (ROOT / "recipes" / "schema.json").read_text(encoding="utf-8")
    assert wanted == schema_text(), "recipes/schema.json is not up to date: reasoning-ext schema > recipes/schema.json"
