"""The schema accepts the recipes that `load_recipe` accepts and refuses those it refuses; nothing heavy is imported."""

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from reasoning_ext.check.schema import DRAFT, JSON_TYPES, NESTED, annotation_schema, recipe_schema, schema_text
from reasoning_ext.errors import UserError
from reasoning_ext.recipe import keys as own_keys
from reasoning_ext.recipe import trl_fields
from reasoning_ext.recipe.keys import STAGES
from reasoning_ext.recipe.known_keys import MANAGED, stage_keys
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.scoring.spec import LAYER_OPTIONS, parse_rewards
from tests.timing import seconds, slowness

jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema, which the extra test installs")

ROOT = Path(__file__).parents[2]
RECIPES = sorted([*ROOT.glob("recipes/**/*.yaml"), *ROOT.glob("examples/**/*.yaml")])

# One line or more after `stage: ...`, for the stage named; the loader and the schema accept each of them.
GOOD = [
    ("sft", "learning_rate: 1e-5"),
    ("sft", "learning_rate: 1"),
    ("sft", "learning_rate: .inf"),
    ("sft", "max_length: null"),
    ("sft", "save_strategy: no"),
    ("sft", "lr_scheduler_type: cosine\noptim: adamw_8bit\nloss_type: nll"),
    ("sft", "lora_target_modules: [all-linear]"),
    ("sft", "report_to: [tensorboard]"),
    ("sft", "report_to: none"),
    ("sft", "report_to: null"),
    ("sft", "trackio_static_space_id: false"),
    ("sft", "model_init_kwargs: {low_cpu_mem_usage: true}"),
    ("sft", "parallelism_config: {anything: [1]}"),
    ("sft", "dtype: bfloat16\nbackend: unsloth"),
    ("grpo", "loss_type: dapo\nscale_rewards: false"),
    ("grpo", "scale_rewards: batch"),
    ("dpo", "loss_type: [sigmoid, sft]\nloss_weights: [1, 0.5]\noverlong_rows: drop"),
    ("grpo", "reward_weights: [1, 0.5]"),
    ("grpo", "reward_funcs: math_answer"),
    ("grpo", "reward_funcs: [math_answer, {think_format: {weight: 0.1}}]"),
    ("grpo", "reward_funcs: [{math_answer: }, {think_format: {weight: 0, gate: math_answer}}]"),
    ("grpo", "reward_funcs: [{length_penalty: {schedule: {linear: {0: 1.0, 200: 0.1}}, max_tokens: 64}}]"),
    ("grpo", "reward_funcs: [{math_answer: {when: {task: math, kind: [a, 1]}, timeout: 20}}]"),
    ("grpo", "reward_funcs: [{math_answer: {isolate: true, timeout: null}}]"),
    ("sample", "num_generations: 4\nmin_reward: 1\nkeep: 2\nreward_funcs: [math_answer]"),
    ("eval", "models: {base: a/b}"),
    ("eval", "models: [a/b, c/d]\ntop_p: 0.9"),
]

# What both refuse; the last part is what the loader's message names.
BAD = [
    ("sft", "learning_ratee: 1", "learning_ratee"),
    ("sft", "num_generations: 4", "num_generations"),
    ("sft", "learning_rate: fast", "learning_rate"),
    ("sft", "learning_rate: '1e-5'", "learning_rate"),
    ("sft", "learning_rate: true", "learning_rate"),
    ("sft", "learning_rate:", "learning_rate"),
    ("sft", "max_steps: 1.5", "max_steps"),
    ("sft", "max_steps: true", "max_steps"),
    ("sft", "packing: 1", "packing"),
    ("sft", "packing: yes", "packing"),
    ("sft", "lr_scheduler_type: cosin", "lr_scheduler_type"),
    ("sft", "lr_scheduler_type: 3", "lr_scheduler_type"),
    ("sft", "optim: adam", "optim"),
    ("sft", "dtype: bf16", "dtype"),
    ("sft", "backend: vllm", "backend"),
    ("sft", "lora_target_modules: all-linear", "lora_target_modules"),
    ("sft", "lora_target_modules: [1]", "lora_target_modules"),
    ("sft", "trackio_static_space_id: true", "trackio_static_space_id"),
    ("sft", "gen_kwargs: [1]", "gen_kwargs"),
    ("sft", "reward_funcs: [math_answer]", "reward_funcs"),
    *[("sft", f"{key}: null", key) for key in MANAGED],
    ("grpo", "loss_type: dap", "loss_type"),
    ("dpo", "loss_type: sigmoid", "loss_type"),
    ("dpo", "loss_type: [sigmoid, dap]", "loss_type"),
    ("grpo", "scale_rewards: all", "scale_rewards"),
    ("grpo", "reward_weights: [a]", "reward_weights"),
    ("grpo", "reward_funcs: 3", "reward_funcs"),
    ("grpo", "reward_funcs: {math_answer: {}}", "reward_funcs"),
    ("grpo", "reward_funcs: [3]", "found 3"),
    ("grpo", "reward_funcs: [{math_answer: {}, think_format: {}}]", "one name"),
    ("grpo", "reward_funcs: [{math_answer: 2}]", "found 2"),
    ("grpo", "reward_funcs: [{math_answer: {weight: much}}]", "'much'"),
    ("grpo", "reward_funcs: [{math_answer: {weight: true}}]", "found True"),
    ("grpo", "reward_funcs: [{math_answer: {weight: null}}]", "found None"),
    ("grpo", "reward_funcs: [{math_answer: {isolate: 1}}]", "true or false"),
    ("grpo", "reward_funcs: [{math_answer: {gate: 1}}]", "gate"),
    ("grpo", "reward_funcs: [{math_answer: {timeout: 0}}]", "seconds"),
    ("grpo", "reward_funcs: [{math_answer: {timeout: 1000000}}]", "seconds"),
    ("grpo", "reward_funcs: [{math_answer: {when: [task]}}]", "columns"),
    ("grpo", "reward_funcs: [{math_answer: {when: {completion: a}}}]", "columns"),
    ("grpo", "reward_funcs: [{math_answer: {when: {task: []}}}]", "columns"),
    ("grpo", "reward_funcs: [{math_answer: {schedule: {0: 1}}}]", "linear or steps"),
    ("grpo", "reward_funcs: [{math_answer: {schedule: {linear: {0: 1}}}}]", "linear or steps"),
    ("grpo", "reward_funcs: [{math_answer: {schedule: {steps: {-1: 1, 2: 1}}}}]", "linear or steps"),
    ("grpo", "reward_funcs: [{math_answer: {schedule: {steps: {0: a, 2: 1}}}}]", "linear or steps"),
    ("sample", "learning_rate: 1e-5", "learning_rate"),
    ("sample", "keep: 1.5", "keep"),
    ("eval", "keep: 1", "keep"),
    ("eval", "models: a/b", "models"),
    ("dpoo", "seed: 0", "stage"),
]


@pytest.fixture(scope="module")
def validator():
    jsonschema.Draft7Validator.check_schema(recipe_schema())
    return jsonschema.Draft7Validator(json.loads(schema_text()))


def _load(path):
    """Load a recipe and its rewards as `check` does."""
    loaded = load_recipe(path)
    if "reward_funcs" in loaded.keys:
        parse_rewards(loaded.get("reward_funcs"), path.parent)
    return loaded


def _as_json(path):
    """Return a recipe as an editor's validator sees it: keys are strings."""
    from reasoning_ext.recipe.yaml_reading import read_yaml

    return json.loads(json.dumps(read_yaml(path)[0]))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_recipe_of_the_project_validates(validator, path):
    assert [error.message for error in validator.iter_errors(_as_json(path))] == []


def test_the_project_has_recipes():
    assert len(RECIPES) >= 10


@pytest.mark.parametrize(("stage", "lines"), GOOD)
def test_what_the_loader_accepts_the_schema_accepts(validator, tmp_path, stage, lines):
    path = tmp_path / "r.yaml"
    path.write_text(f"stage: {stage}\n{lines}\n")
    _load(path)
    assert [error.message for error in validator.iter_errors(_as_json(path))] == []


@pytest.mark.parametrize(("stage", "lines", "named"), BAD)
def test_what_the_loader_refuses_the_schema_refuses(validator, tmp_path, stage, lines, named):
    path = tmp_path / "r.yaml"
    path.write_text(f"stage: {stage}\n{lines}\n")
    with pytest.raises(UserError, match=re.escape(named)):
        _load(path)
    assert not validator.is_valid(_as_json(path))


def test_a_recipe_without_a_stage_or_that_is_a_list_is_refused(validator):
    assert not validator.is_valid({"seed": 0})
    assert not validator.is_valid([{"stage": "sft"}])


VALUES = [None, True, False, 0, 3, -1.5, "", "no", "steps", [], ["a"], [1], [1.5, 2], {}, {"a": True}, {"a": 1}]


@pytest.mark.parametrize("stage", STAGES)
def test_for_every_key_and_kind_of_value_the_schema_says_what_the_loader_says(validator, stage):
    """`problem` is what `load_recipe` asks; a false literal equals 0 in Python and nothing else in JSON."""
    definitions = validator.schema["definitions"]
    properties = definitions[f"stage.{stage}"]["properties"]
    keys = stage_keys(stage)
    assert set(properties) == set(keys) - set(MANAGED)
    for name in properties.keys() - {"stage", "reward_funcs", *NESTED}:
        own = validator.evolve(schema={"definitions": definitions, "allOf": [properties[name]]})
        for value in [*VALUES, *keys[name].choices]:
            if value == 0 and "Literal[False]" in keys[name].annotation:
                continue
            assert own.is_valid(value) is (keys[name].misfit(value) is None), (name, value)


@pytest.mark.parametrize(
    ("lines", "right"),
    [
        ("datasets: [{dataset_name: a/b, dataset_format: math, weight: 2, task: math}]", True),
        ("datasets: [{dataset_name: a/b, num_rows: 10, chat_template_kwargs: {enable_thinking: false}}]", True),
        ("datasets: [{dataset_name: a/b, wieght: 2}]", False),
        ("datasets: [{dataset_name: a/b, num_rows: many}]", False),
        ("datasets: [{dataset_format: math}]", False),
        ("datasets: [a/b]", False),
        ("trace_filters: {correct: true, min_steps: 0.9, language: latin}", True),
        ("trace_filters: {corect: true}", False),
        ("trace_filters: {min_tokens: few}", False),
        ("decontaminate: [./x.jsonl, {dataset_name: a/b, dataset_config: main, dataset_format: gsm8k}]", True),
        ("decontaminate: [{dataset_name: a/b, dataset_train_split: train}]", False),
        ("decontaminate: [{dataset_config: main}]", False),
    ],
)
def test_keys_within_keys_are_checked_as_the_recipe_is(validator, tmp_path, lines, right):
    from reasoning_ext.check.keys import check_recipe
    from reasoning_ext.data.contamination import evaluation_questions
    from reasoning_ext.data.row_options import row_options

    text = f"stage: sft\nmodel_name_or_path: a/b\noutput_dir: o\n{lines}\n"
    text += "" if lines.startswith("datasets") else "dataset_name: a/b\n"
    assert validator.is_valid(yaml.safe_load(text)) is right
    (tmp_path / "r.yaml").write_text(text)
    loaded = load_recipe(tmp_path / "r.yaml")
    if not right:
        with pytest.raises(UserError, match=f"r.yaml:4: {lines.split(':')[0]}"):
            check_recipe(loaded).refuse()
            try:
                evaluation_questions(row_options(loaded))
            except UserError as error:
                raise UserError(loaded.placed(error)) from error
    elif "decontaminate" not in lines:
        check_recipe(loaded).refuse()


@pytest.mark.parametrize("stage", STAGES)
def test_defaults_are_those_of_the_installed_classes_and_descriptions_are_one_sentence(stage):
    schema = recipe_schema()
    keys, properties = stage_keys(stage), schema["definitions"][f"stage.{stage}"]["properties"]
    documented = {name for name in properties if " of " in keys[name].owner}
    for name in properties.keys() - {"stage"}:
        definition = schema["definitions"][properties[name]["$ref"].split("/")[-1]]
        if "default" in definition:
            assert definition["default"] == keys[name].default is not None
        text = definition.get("description", "")
        documented -= set() if text else {name}
        assert "\n" not in text and "](" not in text and len(text) < 400, (name, text)
    assert len(documented) > 0.9 * sum(" of " in keys[name].owner for name in properties)
    assert schema["$schema"] == DRAFT


def test_stages_that_differ_in_a_default_or_a_choice_have_each_their_own():
    definitions = recipe_schema()["definitions"]

    def of(stage, key):
        return definitions[definitions[f"stage.{stage}"]["properties"][key]["$ref"].split("/")[-1]]

    for stage in ("sft", "grpo"):
        assert of(stage, "learning_rate")["default"] == stage_keys(stage)["learning_rate"].default
        assert of(stage, "loss_type").get("enum", []) == list(stage_keys(stage)["loss_type"].choices)
    assert of("sft", "learning_rate") != of("grpo", "learning_rate")
    assert of("sft", "seed") == of("eval", "seed")
    assert "probability" in of("grpo", "top_p")["description"]
    assert of("sft", "learning_rate")["description"] == "The initial learning rate for the optimizer."
    assert "epochs" in of("grpo", "num_train_epochs")["description"]


def test_texts_of_our_own_keys_are_read_off_the_attributes_of_their_class(monkeypatch):
    doc = "Keys.\n\n    Attributes:\n        backend: who loads\n            the model. And more.\n        seed: not ours.\n    "
    monkeypatch.setattr(own_keys.Shared, "__doc__", doc)
    assert recipe_schema()["definitions"]["key.backend"]["description"] == "who loads the model."


def test_options_of_a_reward_are_those_of_the_layer_and_its_own_are_open():
    entry = recipe_schema()["definitions"]["reward"]["anyOf"][1]["additionalProperties"]
    assert list(entry["properties"]) == list(LAYER_OPTIONS)
    assert "additionalProperties" not in entry
    assert entry["properties"]["gate"]["type"] == ["string", "null"]
    assert "above 0" in entry["properties"]["gate"]["description"]


@pytest.mark.parametrize(
    ("annotation", "choices", "schema"),
    [
        ("float | None", (), {"type": ["number", "null"]}),
        ("Optional[int]", (), {"type": ["integer", "null"]}),
        ("SchedulerType | str", ("a", "b"), {"enum": ["a", "b"]}),
        ("str | None", ("a",), {"enum": ["a", None]}),
        ("str | bool", ("a",), {"anyOf": [{"type": "boolean"}, {"enum": ["a"]}]}),
        ("list[str] | str", (), {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
        ("list[int | None]", (), {"type": "array", "items": {"type": ["integer", "null"]}}),
        ("list", (), {"type": "array"}),
        ("list[Any]", (), {"type": "array"}),
        ("dict[str, Any] | str", (), {"type": ["object", "string"]}),
        ("Literal['x', 3]", (), {"enum": ["x", 3]}),
        ("Any", (), {}),
        ("ParallelismConfig | None", (), {}),
        ("'Forward'", (), {}),
    ],
)
def test_annotations(annotation, choices, schema):
    assert annotation_schema(annotation, choices) == schema


def test_every_basic_type_of_the_loader_has_a_json_type():
    assert set(JSON_TYPES) == set(trl_fields._BASIC)


def test_the_text_is_sorted_json_that_ends_with_a_newline_and_is_the_same_in_another_process():
    text = schema_text()
    assert (
        text.endswith("}\n")
        and json.dumps(json.loads(text), indent=1, sort_keys=True, ensure_ascii=False) + "\n" == text
    )
    code = "import sys; from reasoning_ext.check.schema import schema_text; sys.stdout.buffer.write(schema_text().encode())"
    made = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)},
    )
    assert made.stdout.decode() == text


def test_making_the_schema_imports_nothing_heavy_and_is_quick():
    heavy = ["torch", "transformers", "trl", "datasets", "numpy", "pandas", "jsonschema", "accelerate", "peft"]
    code = "import sys; from reasoning_ext.check.schema import schema_text; schema_text()"
    code += f"; print([m for m in {heavy} if m in sys.modules])"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "[]"

    def anew():
        trl_fields.module_source.cache_clear()
        trl_fields.enumerations.cache_clear()
        trl_fields.class_keys.cache_clear()
        schema_text()

    assert seconds(anew, 3) < 2 * slowness()


def test_the_file_beside_the_recipes_is_that_of_the_pinned_versions():
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    for package in ("trl", "transformers"):
        if version(package) != pins[package]:
            pytest.skip(f"recipes/schema.json is that of {package} {pins[package]}; {version(package)} is installed")
    wanted = (ROOT / "recipes" / "schema.json").read_text(encoding="utf-8")
    assert wanted == schema_text(), "recipes/schema.json is not up to date: reasoning-ext schema > recipes/schema.json"
