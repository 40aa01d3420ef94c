"""How a recipe's engine is opened: its options, and a source that other processes open too."""

import pickle

import pytest
from conftest import TINY

from reasoning_ext.engines.opening import engine_name, engine_options, open_engine, sampling_settings
from reasoning_ext.models.source import model_config, model_source
from reasoning_ext.recipe.engine_options import RayOptions, ServerOptions, TransformersOptions, VllmOptions
from reasoning_ext.recipe.load import load_recipe

SAMPLE = f"""\
stage: sample
model_name_or_path: {TINY / "model"}
from_scratch: true
use_cpu: true
dataset_name: rows.jsonl
reward_funcs: [math_answer]
per_device_eval_batch_size: 3
output_dir: out
"""


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (SAMPLE, TransformersOptions()),
        (SAMPLE + "engine: vllm\nengine_kwargs: {max_num_seqs: 8}", VllmOptions(max_num_seqs=8)),
        (SAMPLE + "engine: server\nengine_kwargs: {base_url: http://h/v1}", ServerOptions(base_url="http://h/v1")),
        (SAMPLE + "engine: ray\nengine_kwargs: {num_workers: 4}", RayOptions(num_workers=4)),
        (
            "stage: grpo\nmodel_name_or_path: m\ndataset_name: d\noutput_dir: o",
            TransformersOptions(),
        ),  # has no such key
    ],
)
def test_engine_kwargs_become_the_options_of_the_engine(write_recipe, text, options):
    recipe = load_recipe(write_recipe(text))
    assert engine_options(recipe) == options and engine_name(recipe) in type(options).__name__.lower()


def test_a_source_survives_pickling_and_another_name_is_opened_in_the_same_way(write_recipe, tmp_path):
    recipe = load_recipe(write_recipe(SAMPLE + "model_init_kwargs: {low_cpu_mem_usage: true}"))
    source = pickle.loads(pickle.dumps(model_source(recipe.values, recipe.local, trainable=False)))
    assert source == model_source(recipe.values, recipe.local, trainable=False)
    assert (source.name, source.batch_size, source.options.trainable) == (str(TINY / "model"), 3, False)
    assert source.options.init_kwargs == {"low_cpu_mem_usage": True} and source.options.from_scratch
    other = model_source(recipe.values, recipe.local, False, "./other", from_scratch=False)
    assert (other.name, other.options.from_scratch) == (str(tmp_path / "other"), False)


def test_the_default_engine_opens_and_answers(write_recipe):
    recipe = load_recipe(write_recipe(SAMPLE + "max_completion_length: 5\ntemperature: 2\nrepetition_penalty: 2"))
    engine = open_engine(recipe)
    [[completion]] = engine.generate([[{"role": "user", "content": "1+1"}]], [(0, 0)], sampling_settings(recipe))
    assert (completion.prompt, completion.sample) == (0, 0) and 0 < completion.tokens <= 5
    engine.close()


def test_a_single_modules_name_stays_a_name():
    assert model_config({"lora_target_modules": ["q_proj"]}).lora_target_modules == ["q_proj"]
    assert model_config({"lora_target_modules": ["all-linear"]}).lora_target_modules == "all-linear"
