"""What is wrong with how a recipe's stage generates and selects is said in one line each, before anything is loaded."""

import pytest

from reasoning_ext.check_keys import check_recipe
from reasoning_ext.recipe import load_recipes

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
DECIDES = "which the engine decides"
UNREAD = "which does not read it; leave it out"

# (lines after SAMPLE, the errors from the key on)
CASES = {
    "nothing": ("engine: vllm\nvllm_gpu_memory_utilization: 0.5\ndtype: bfloat16\nload_in_4bit: true\n", []),
    # generation_kwargs
    "seed": (
        "generation_kwargs: {seed: 3}", [f"generation_kwargs.seed: found 3, {DECIDES}; write the recipe's seed"],
    ),
    "no seed": (
        "generation_kwargs: {seed: null}",
        [f"generation_kwargs.seed: found None, {DECIDES}; write the recipe's seed"],
    ),
    "a server's fields taken out": (
        SERVER + "generation_kwargs: {seed: null, max_tokens: null, max_completion_tokens: 512, stop: [x]}", [],
    ),
    "a server's fields set": (
        SERVER + "generation_kwargs: {max_tokens: 9, n: null, stream: true}",
        [f"generation_kwargs.max_tokens: found 9, {DECIDES}; write max_completion_length",
         f"generation_kwargs.n: found None, {DECIDES}; write num_generations",
         f"generation_kwargs.stream: found True, {DECIDES}; leave it out"],
    ),
    "several at once": (
        "engine: vllm\ngeneration_kwargs: {num_return_sequences: 2, max_new_tokens: 5, max_length: 6, num_beams: 2, logprobs: 1}",
        [f"generation_kwargs.num_return_sequences: found 2, {DECIDES}; write num_generations",
         f"generation_kwargs.max_new_tokens: found 5, {DECIDES}; write max_completion_length",
         f"generation_kwargs.max_length: found 6, {DECIDES}; write max_completion_length",
         f"generation_kwargs.num_beams: found 2, {DECIDES}; leave it out, each completion is drawn by itself"],
    ),
    "arguments of the loop": (
        "generation_kwargs: {do_sample: false, eos_token_id: 3, pad_token_id: 0, use_cache: false, max_time: 2.5, "
        "stop_strings: x, custom_generate: a/b, logits_processor: [], typical_p: 0.9}",
        [f"generation_kwargs.do_sample: found False, {DECIDES}; write temperature, where 0 takes the likeliest tokens",
         f"generation_kwargs.eos_token_id: found 3, {DECIDES}; leave it out, a completion ends where the model's turn "
         "does",
         f"generation_kwargs.pad_token_id: found 0, {DECIDES}; leave it out, the tokenizer's is taken",
         f"generation_kwargs.use_cache: found False, {DECIDES}; leave it out, the engine keeps the cache",
         f"generation_kwargs.max_time: found 2.5, {DECIDES}; leave it out, a completion that is cut off by the clock "
         "is another one each time",
         f"generation_kwargs.stop_strings: found 'x', {DECIDES}; leave it out, or write stop with engine: server",
         f"generation_kwargs.custom_generate: found 'a/b', {DECIDES}; leave it out",
         f"generation_kwargs.logits_processor: found [], {DECIDES}; leave it out"],
    ),
    # keys that an engine does not read
    "vLLM's keys without vLLM": (
        "vllm_gpu_memory_utilization: 0.5\nvllm_max_model_length: 4096\n"
        "vllm_tensor_parallel_size: 2\nvllm_model_impl: transformers",
        [f"{key}: found {value} with engine: transformers, {UNREAD}" for key, value in
         {"vllm_gpu_memory_utilization": 0.5, "vllm_max_model_length": 4096, "vllm_tensor_parallel_size": 2,
          "vllm_model_impl": "transformers"}.items()],
    ),
    "vLLM's keys without vLLM on Ray": (
        "engine: ray\nengine_kwargs: {engine: transformers}\nvllm_max_model_length: 4096",
        [f"vllm_max_model_length: found 4096 with engine: ray over transformers, {UNREAD}"],
    ),
    "transformers' keys with vLLM": (
        "engine: vllm\nattn_implementation: sdpa\nmax_seq_length: 4096\nbnb_4bit_quant_type: fp4\nper_device_eval_batch_size: 3",
        [f"attn_implementation: found sdpa with engine: vllm, {UNREAD}",
         f"max_seq_length: found 4096 with engine: vllm, {UNREAD}",
         f"bnb_4bit_quant_type: found fp4 with engine: vllm, {UNREAD}"],
    ),
    "transformers' keys with Ray's default": (
        "engine: ray\nattn_implementation: sdpa", [f"attn_implementation: found sdpa with engine: ray over vllm, {UNREAD}"],
    ),
    "what a server's model is": (
        SERVER + "load_in_4bit: true\nmodel_revision: main\nmodel_init_kwargs: {a: 1}\ndtype: bfloat16\n"
        "attn_implementation: sdpa\ntrust_remote_code: true\nmax_seq_length: 4096\nvllm_max_model_length: 9\nload_in_8bit: false",
        [f"{key}: found {value} with engine: server, {UNREAD}" for key, value in
         {"load_in_4bit": True, "model_revision": "main", "model_init_kwargs": {"a": 1}, "dtype": "bfloat16",
          "attn_implementation": "sdpa", "trust_remote_code": True, "max_seq_length": 4096, "vllm_max_model_length": 9}.items()],
    ),
    # engine_kwargs
    "unknown option": (
        "engine: vllm\nengine_kwargs: {max_num_seq: 8}",
        ["engine_kwargs.max_num_seq: unknown option of engine vllm (found max_num_seq: 8); the nearest is max_num_seqs"],
    ),
    "option of an engine without any": (
        "engine_kwargs: {batch: 8}", ["engine_kwargs.batch: unknown option of engine transformers (found batch: 8); it has none"],
    ),
    "wrong type of an option": (
        "engine: vllm\nengine_kwargs: {max_num_seqs: many}",
        ["engine_kwargs.max_num_seqs: found 'many', allowed: int (engine vllm)"],
    ),
    "a number that is too small": (
        "engine: ray\nengine_kwargs: {num_workers: 0, num_gpus: -1, num_cpus: 0}",
        ["engine_kwargs.num_workers: found 0, allowed: above 0", "engine_kwargs.num_gpus: found -1, allowed: 0 or more"],
    ),
    "option of the workers' engine": (
        "engine: ray\nengine_kwargs: {engine: vllm, engine_kwargs: {max_num_seq: 8}}",
        ["engine_kwargs.engine_kwargs.max_num_seq: unknown option of engine vllm (found max_num_seq: 8); the nearest is "
         "max_num_seqs"],
    ),
    "no engine for the workers": (
        "engine: ray\nengine_kwargs: {engine: server}",
        ["engine_kwargs.engine: found 'server', allowed: transformers, vllm (engine ray)"],
    ),
    "a server's URL": (
        "engine: server\nengine_kwargs: {base_url: h/v1}",
        ["engine_kwargs.base_url: found 'h/v1', allowed: http://host:port/v1 or https://host/v1"],
    ),
    "no weights for vLLM": (
        "engine: vllm\nfrom_scratch: true", ["from_scratch: found true with engine: vllm, allowed: with transformers"],
    ),
    "unsloth beside an engine": (
        "engine: vllm\nbackend: unsloth",
        ["backend: found unsloth with engine: vllm, allowed: trl; the engine loads the model"],
    ),
    "prompts counted without a tokenizer": (
        SERVER + "max_prompt_length: 100",
        ["max_prompt_length: found 100 with engine: server, allowed: where the tokenizer is here"],
    ),
    # selection
    "adaptive's keys alone": (
        "max_generations: 8",
        ["max_generations: found 8 without adaptive: true, which it belongs to; write that, or leave it out"],
    ),
    "no first completion": ("adaptive: true\nmin_generations: 0", ["min_generations: found 0, allowed: 1 or more"]),
    "fewer than num_generations": (
        "adaptive: true\nmax_generations: 3", ["max_generations: found 3, allowed: num_generations 4 or more"],
    ),
    "more kept than drawn": ("keep: 5", ["keep: found 5, allowed: num_generations 4 or fewer"]),
    "more ways than drawn": ("diverse: 5", ["diverse: found 5, allowed: num_generations 4 or fewer"]),
    "two ways to keep": ("diverse: 2\nkeep: 2", ["diverse: found 2 beside keep: 2, allowed: one of the two"]),
    "agreement": ("min_agreement: 1.5", ["min_agreement: found 1.5, allowed: a share above 0 and up to 1"]),
    "the same four times": (
        "temperature: 0.0", ["temperature: found 0 with num_generations 4, which would all be the same; write 1.0, or 1"],
    ),
    # pairs and difficulty
    "unknown kind of pairs": (
        "pairs: {right_wrongs: 1}", ["pairs.right_wrongs: unknown kind (found right_wrongs: 1); the nearest is right_wrong"],
    ),
    "no number of pairs": (
        "pairs: {right_wrong: true, short_long: -1}",
        ["pairs.right_wrong: found True, allowed: pairs a prompt, 0 or more",
         "pairs.short_long: found -1, allowed: pairs a prompt, 0 or more"],
    ),
    "pairs by steps": (
        "pairs: {steps: 1}",
        ["pairs.steps: found 1 without the reward step_check, which says whose steps hold; add it to reward_funcs, with "
         "weight: 0.0 to measure alone"],
    ),
    "difficulty": (
        "difficulty: [0.9, 0.1]",
        ["difficulty: found [0.9, 0.1], allowed: the least and the highest pass rate, [0.1, 0.9]"],
    ),
}  # fmt: skip


def errors(path):
    found = []
    [recipe] = load_recipes([path], {}, found)
    found += check_recipe(recipe, run=False).problems
    return [str(error) for error in found]


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_said_with_its_line(name, rows_file, write_recipe):
    more, expected = CASES[name]
    text = SAMPLE + more + "\n"
    path = write_recipe(text)
    said = [line.removeprefix(f"{path}:").partition(": ") for line in errors(path)]
    assert [message for _, _, message in said] == expected
    for number, _, message in said:
        key = message.partition(":")[0].partition(".")[0]
        assert text.splitlines()[int(number) - 1].startswith(f"{key}:")


def test_an_evaluation_is_told_the_same(rows_file, write_recipe):
    path = write_recipe(EVAL + "vllm_max_model_length: 9\ngeneration_kwargs: {max_new_tokens: 5}\n")
    assert errors(path) == [
        f"{path}:6: vllm_max_model_length: found 9 with engine: transformers, {UNREAD}",
        f"{path}:7: generation_kwargs.max_new_tokens: found 5, {DECIDES}; write max_completion_length",
    ]
