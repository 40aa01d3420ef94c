"""What a recipe's keys must not say, with one another or by themselves, is said at its line before anything is loaded."""

from fnmatch import fnmatch

import pytest

from reasoning_ext.check.idle_keys import IDLE, NEEDS
from reasoning_ext.check.keys import check_recipe
from reasoning_ext.recipe.keys import STAGES
from reasoning_ext.recipe.known_keys import stage_keys
from reasoning_ext.recipe.load import load_recipe, load_recipes

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
    "engine: vllm\nload_in_8bit: true\nmodel_init_kwargs: {a: 1}": {"load_in_8bit": "true", "model_init_kwargs": "{'a': 1}"},
    SERVER + "load_in_4bit: true\nmodel_revision: main\ndtype: bfloat16\ntrust_remote_code: true\nload_in_8bit: false": {
        "load_in_4bit": "true", "model_revision": "main", "dtype": "bfloat16", "trust_remote_code": "true",
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
    # thinking budgets
    "max_completion_length: 64\nthinking_budget: 64\nmin_thinking: 16": {"thinking_budget": "64"},
    "thinking_budget: 16\nmin_thinking: 32": {"min_thinking": "32"},
    "max_completion_length: 64\nmin_thinking: 64": {"min_thinking": "64"},
    "thinking_budget: 0": {"thinking_budget": "0"},
    "thinking_budget: 16\nmin_thinking: 16\nkeep_forced: true": {},
    "keep_forced: true": {"keep_forced": "true"},
    SERVER + "thinking_budget: 16\ngeneration_kwargs: {max_tokens: null, max_completion_tokens: 64}": {
        "generation_kwargs.max_completion_tokens": "64",
    },
    "pairs: {right_wrongs: 1}": {"pairs.right_wrongs": "right_wrongs: 1"},
    "pairs: {right_wrong: true, short_long: -1}": {"pairs.right_wrong": "True", "pairs.short_long": "-1"},
    "pairs: {steps: 1}": {"pairs.steps": "1"},  # without step_check
    "difficulty: [0.9, 0.1]": {"difficulty": "[0.9, 0.1]"},
}  # fmt: skip


def told(path):
    """Return the problems of a recipe as `{key: text}`, each held against the line that it names."""
    found = []
    [recipe] = load_recipes([path], {}, found)
    problems = [*found, *check_recipe(recipe, run=False).problems]
    lines = path.read_text().splitlines()
    assert all(lines[problem.line - 1].startswith(f"{problem.key.partition('.')[0]}:") for problem in problems)
    return {problem.key: problem.text for problem in problems}


@pytest.mark.parametrize("more", CASES)
def test_what_is_wrong_is_said_with_its_line(more, rows_file, write_recipe):
    said = told(write_recipe(SAMPLE + more + "\n"))
    assert said.keys() == CASES[more].keys()
    assert all(said[key].partition("found ")[2].startswith(found) for key, found in CASES[more].items()), said


def test_an_evaluation_is_told_the_same(rows_file, write_recipe):
    path = write_recipe(EVAL + "vllm_max_model_length: 9\ngeneration_kwargs: {max_new_tokens: 5}\n")
    assert [*told(path)] == ["vllm_max_model_length", "generation_kwargs.max_new_tokens"]


@pytest.mark.parametrize(
    ("curve", "wrong"),
    [
        ("true", None), ("{}", None), ("{shares: [], budgets: [1, 64]}", None), ("{budgets: null}", None),
        ("{share: [0.5]}", "share"), ("{shares: [50]}", "shares"), ("{shares: [0.0]}", "shares"), ("{shares: [.nan]}", "shares"),
        ("{shares: 0.5}", "shares"), ("{budgets: [65]}", "budgets"), ("{budgets: [0]}", "budgets"),
        ("{budgets: [1.5]}", "budgets"),
    ],
)  # fmt: skip
def test_a_thinking_curve_cuts_thoughts_where_they_can_be(curve, wrong, rows_file, write_recipe):
    said = told(write_recipe(f"{EVAL}max_completion_length: 64\nthinking_curve: {curve}\n"))
    assert [*said] == ([f"thinking_curve.{wrong}"] if wrong else [])


@pytest.mark.parametrize("listed", ["", "reward_funcs: null\n", "reward_funcs: []\n"])
def test_an_evaluation_that_names_no_reward_has_two(listed, rows_file, write_recipe):
    recipe = load_recipe(write_recipe(EVAL.replace("reward_funcs: [math_answer]\n", listed)))
    assert [spec.name for spec in check_recipe(recipe, run=False).specs] == ["math_answer", "think_format"]


HEAD = "model_name_or_path: recipes/tiny/model\ndataset_name: recipes/tiny/last_digit.py\noutput_dir: runs/none\n"


def refused(tmp_path, stage, text, **overrides):
    """Return the keys of the errors on line 5, the first behind the head."""
    (tmp_path / "r.yaml").write_text(f"stage: {stage}\n{HEAD}{text}\n")
    problems = check_recipe(load_recipe(tmp_path / "r.yaml", overrides)).problems
    return [problem.key for problem in problems if problem.line == 5]


@pytest.mark.parametrize(
    ("stage", "text", "wanted"),
    [
        ("sft", "max_seq_length: 64", "backend: unsloth"),
        ("sft", "lora_r: 4", "use_peft: true"),
        ("sft", "bnb_4bit_quant_type: fp4", "load_in_4bit: true\nuse_peft: true"),
        ("sft", "packing_strategy: bfd", "eval_packing: true\neval_strategy: steps"),
        ("sft", "eval_steps: 2\neval_strategy: epoch", "EVAL"),
        ("sft", "warmup_steps: 2\nlr_scheduler_type: constant", "RATE"),
        ("sft", "adam_beta2: 0.9\noptim: sgd", "OPTIM"),
        ("grpo", "vllm_server_timeout: 9", "use_vllm: true\nvllm_mode: server"),
        ("grpo", "vllm_enable_sleep_mode: true\nuse_vllm: true\nvllm_mode: server", "MODE"),
        ("grpo", "sapo_temperature_neg: 1.5", "loss_type: sapo"),
        ("grpo", "delta: 1.5\nloss_type: sapo", "LOSS"),
        ("grpo", "ref_model_sync_steps: 5", "sync_ref_model: true\nbeta: 0.1"),
        ("grpo", "sync_ref_model: true", "beta: 0.1"),
        ("dpo", "precompute_ref_batch_size: 5", "precompute_ref_log_probs: true"),
        ("dpo", "label_smoothing: 0.1", "loss_type: [sigmoid, robust]"),
    ],
)
def test_a_key_without_effect_is_refused_and_with_effect_it_is_not(tmp_path, stage, text, wanted):
    key = text.partition(":")[0]
    assert refused(tmp_path, stage, text) == [key]
    if not wanted.isupper():  # where the decider already stands in the text, there is nothing to add
        assert key not in refused(tmp_path, stage, f"{text}\n{wanted}")


def test_what_asks_for_nothing_and_what_the_command_line_switches_off_is_no_fault(tmp_path):
    assert refused(tmp_path, "sft", "lora_dropout: 0.0") == []
    assert refused(tmp_path, "grpo", "num_completions_to_print: 5") == []  # completions are logged in any case
    assert refused(tmp_path, "sft", "use_dora: false") == []
    assert refused(tmp_path, "sft", "lora_r: 4\nuse_peft: true", use_peft="false") == []
    assert refused(tmp_path, "sft", "max_seq_length: 64\nbackend: unsloth", backend="trl") == []


@pytest.mark.parametrize(
    ("stage", "text", "right"),
    [
        ("dpo", "loss_type: []", "loss_type: [sigmoid]"),
        ("dpo", "train_sampling_strategy: group_by_length", "train_sampling_strategy: sequential"),
        ("dpo", "ref_model_sync_steps: 0\nsync_ref_model: true", "ref_model_sync_steps: 1\nsync_ref_model: true"),
        ("sft", "eval_accumulation_steps: 0", "eval_accumulation_steps: 1"),
        ("grpo", "top_entropy_quantile: -0.5", "top_entropy_quantile: 0.2"),
        ("sft", "seed: -1", "seed: 3"),
        ("sft", "learning_rate: -1e-5", "learning_rate: 1e-5"),
        ("sft", "max_grad_norm: .inf", "max_grad_norm: 1"),
        ("sft", "max_steps: 0", "max_steps: -1"),
        ("sft", "num_train_epochs: 0", "num_train_epochs: 0.5"),
        ("sft", "thought_weight: 0.5\npacking: true", "thought_weight: 0.5"),
        ("sft", "answer_weight: 0\nthought_weight: 0", "answer_weight: 0"),
        ("sft", "load_in_4bit: true", "use_peft: true\nload_in_4bit: true"),
        ("grpo", "beta: 0.1\nfrom_scratch: true", "beta: 0.1"),
        ("dpo", "sync_ref_model: true\nuse_peft: true", "sync_ref_model: true"),
        ("sample", "dataset_streaming: true", "dataset_streaming: false"),
        ("sample", "num_generations: 0", "num_generations: 1"),
        ("grpo", "num_generations: 1", "num_generations: 2"),
        ("eval", "num_generations: -1", "num_generations: 0"),
        ("eval", "temperature: 0.7\nnum_generations: 0", "temperature: 0\nnum_generations: 0"),
        ("sft", "model_init_kwargs: {trust_remote_code: true}", "model_init_kwargs: {low_cpu_mem_usage: true}"),
        ("eval", "model_init_kwargs: {trust_remote_code: true}", "trust_remote_code: true"),
        ("sft", "model_init_kwargs: {attn_implementation: org/kernel}", "attn_implementation: org/kernel"),
        ("eval", "engine_kwargs: {engine_args: {worker_extension_cls: a.B}}\nengine: vllm", "seed: 1"),
        ("grpo", "chat_template_kwargs: {tools: []}", "chat_template_kwargs: {enable_thinking: true}"),
    ],
)
def test_values_that_do_harm_are_refused(tmp_path, stage, text, right):
    key = text.partition(":")[0]
    assert [name.partition(".")[0] for name in refused(tmp_path, stage, text)] == [key]
    assert refused(tmp_path, stage, right) == []


def test_every_rule_is_about_keys_that_there_are():
    known = {key for stage in STAGES for key in stage_keys(stage)}
    for names, deciding, _ in [*NEEDS, *IDLE]:
        if known >= {*deciding.split()}:  # of the installed TRL
            assert all(any(fnmatch(key, name) for key in known) for name in names.split()), names


def test_a_batch_of_several_processes_is_one_that_prompts_divide(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")  # one process builds TRL's config, which says it
    assert refused(tmp_path, "grpo", "num_generations: 4\nper_device_train_batch_size: 2") == ["num_generations"]
    assert refused(tmp_path, "grpo", "num_generations: 3\nper_device_train_batch_size: 2") == []
