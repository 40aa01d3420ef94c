"""What is wrong with how a recipe's stage generates and selects is said in one line each, before anything is loaded."""

import pytest

from reasoning_ext.check.keys import check_recipe
from reasoning_ext.recipe.load import load_recipes

SAMPLE = """\
stage: sample
model_name_or_path: some/model
dataset_name: ./rows.jsonl
reward_funcs: [math_answer]
num_generations: 4
output_dir: out
"""
EVAL = "stage: eval\nmodel_name_or_path: some/model\ndataset_name: ./rows.jsonl\nreward_funcs: [math_answer]\noutput_dir: out\n"
SERVER = "engine: server\nengine_kwargs: {base_url: http://h/v1}\n"
RAY = "engine: ray\nengine_kwargs: "

# lines after SAMPLE -> the keys that are wrong, with what was found
CASES = {
    "engine: vllm\nvllm_gpu_memory_utilization: 0.5\ndtype: bfloat16\nload_in_4bit: true": {},
    # arguments that the engine decides
    "generation_kwargs: {seed: 3, typical_p: 0.9}": {"generation_kwargs.seed": "3"},
    SERVER + "generation_kwargs: {seed: null, max_tokens: null, max_completion_tokens: 512, stop: [x]}": {},
    SERVER + "generation_kwargs: {max_tokens: 9, n: null, stream: true}": {
        "generation_kwargs.max_tokens": "9", "generation_kwargs.n": "None", "generation_kwargs.stream": "True",
    },
    "engine: vllm\ngeneration_kwargs: {num_return_sequences: 2, max_new_tokens: 5, max_length: 6, num_beams: 2, logprobs: 1}": {
        "generation_kwargs.num_return_sequences": "2", "generation_kwargs.max_new_tokens": "5",
        "generation_kwargs.max_length": "6", "generation_kwargs.num_beams": "2",
    },
    "generation_kwargs: {do_sample: false, eos_token_id: 3, use_cache: false, max_time: 2.5, stop_strings: x}": {
        "generation_kwargs.do_sample": "False", "generation_kwargs.eos_token_id": "3", "generation_kwargs.use_cache": "False",
        "generation_kwargs.max_time": "2.5", "generation_kwargs.stop_strings": "'x'",
    },
    # keys that an engine does not read
    "vllm_gpu_memory_utilization: 0.5\nvllm_model_impl: transformers": {
        "vllm_gpu_memory_utilization": "0.5", "vllm_model_impl": "transformers",
    },
    RAY + "{engine: transformers}\nvllm_max_model_length: 4096": {"vllm_max_model_length": "4096"},
    "engine: vllm\nattn_implementation: sdpa\nmax_seq_length: 4096\nbnb_4bit_quant_type: fp4\nper_device_eval_batch_size: 3": {
        "attn_implementation": "sdpa", "max_seq_length": "4096", "bnb_4bit_quant_type": "fp4",
    },
    "engine: vllm\nload_in_8bit: true\nmodel_init_kwargs: {a: 1}": {"load_in_8bit": "True", "model_init_kwargs": "{'a': 1}"},
    SERVER + "load_in_4bit: true\nmodel_revision: main\ndtype: bfloat16\ntrust_remote_code: true\nload_in_8bit: false": {
        "load_in_4bit": "True", "model_revision": "main", "dtype": "bfloat16", "trust_remote_code": "True",
    },
    # engine_kwargs
    "engine: vllm\nengine_kwargs: {max_num_seq: 8}": {"engine_kwargs.max_num_seq": "max_num_seq: 8"},
    "engine: vllm\nengine_kwargs: {max_num_seqs: many}": {"engine_kwargs.max_num_seqs": "'many'"},
    RAY + "{num_workers: 0, num_gpus: -1, num_cpus: 0}": {"engine_kwargs.num_workers": "0", "engine_kwargs.num_gpus": "-1"},
    RAY + "{num_gpus: .inf, num_cpus: .nan}": {"engine_kwargs.num_gpus": "inf", "engine_kwargs.num_cpus": "nan"},
    RAY + "{engine: vllm, engine_kwargs: {max_num_seq: 8}}": {"engine_kwargs.engine_kwargs.max_num_seq": "max_num_seq: 8"},
    RAY + "{engine: [vllm]}": {"engine_kwargs.engine": "['vllm']"},
    "engine: server\nengine_kwargs: {base_url: h/v1}": {"engine_kwargs.base_url": "'h/v1'"},
    "engine: vllm\nbackend: unsloth": {"backend": "unsloth"},
    SERVER + "max_prompt_length: 100": {"max_prompt_length": "100"},
    # selection
    "max_generations: 8": {"max_generations": "8"},  # without adaptive
    "adaptive: true\nmin_generations: 5\nmax_generations: 3": {"min_generations": "5", "max_generations": "3"},
    "keep: 5": {"keep": "5"},
    "diverse: 2\nkeep: 2": {"diverse": "2"},
    "temperature: 0.0": {"temperature": "0"},  # the same four times
    "pairs: {right_wrongs: 1}": {"pairs.right_wrongs": "right_wrongs: 1"},
    "pairs: {right_wrong: true, short_long: -1}": {"pairs.right_wrong": "True", "pairs.short_long": "-1"},
    "pairs: {steps: 1}": {"pairs.steps": "1"},  # without step_check
    "difficulty: [0.9, 0.1]": {"difficulty": "[0.9, 0.1]"},
}  # fmt: skip


def errors(path):
    found = []
    [recipe] = load_recipes([path], {}, found)
    found += check_recipe(recipe, run=False).problems
    return [str(error) for error in found]


@pytest.mark.parametrize("more", CASES)
def test_what_is_wrong_is_said_with_its_line(more, rows_file, write_recipe):
    text = SAMPLE + more + "\n"
    path = write_recipe(text)
    said = {}
    for error in errors(path):
        number, key, problem = error.removeprefix(f"{path}:").split(": ", 2)
        said[key] = problem.partition("found ")[2]
        assert text.splitlines()[int(number) - 1].startswith(f"{key.partition('.')[0]}:") and "\n" not in error
    assert said.keys() == CASES[more].keys()
    assert all(said[key].startswith(found) for key, found in CASES[more].items()), said


def test_an_evaluation_is_told_the_same(rows_file, write_recipe):
    path = write_recipe(EVAL + "vllm_max_model_length: 9\ngeneration_kwargs: {max_new_tokens: 5}\n")
    first, second = errors(path)
    assert first.startswith(f"{path}:6: vllm_max_model_length: found 9") and f"{path}:7: generation_kwargs" in second


@pytest.mark.parametrize("listed", ["", "reward_funcs: null\n", "reward_funcs: []\n"])
def test_an_evaluation_that_names_no_reward_has_two(listed, rows_file, write_recipe):
    [recipe] = load_recipes([write_recipe(EVAL.replace("reward_funcs: [math_answer]\n", listed))])
    assert [spec.name for spec in check_recipe(recipe, run=False).specs] == ["math_answer", "think_format"]
