"""What a trainer would refuse when it is built is one line of `check` that blames the key."""

import os
from importlib import import_module

import pytest
from conftest import TINY

from reasoning_ext.check import check
from reasoning_ext.check.trainer import trainer_findings
from reasoning_ext.errors import KeyProblem
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.recipe.trl_fields import SFT_CONFIG, class_keys
from reasoning_ext.train.refusals import named_refusals

HEAD = f"stage: sft\nmodel_name_or_path: {TINY}/model\nfrom_scratch: true\ndataset_name: ./rows.jsonl\noutput_dir: runs/none\n"


def recipe(tmp_path, text, stage="sft"):
    (tmp_path / "r.yaml").write_text(HEAD.replace("stage: sft", f"stage: {stage}") + text)
    return load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("report_to: wandbb", "report_to"),
        ("report_to: null", "report_to"),
        ("activation_checkpointing_kwargs: {nonsense: 1}", "activation_checkpointing_kwargs"),
        ("use_peft: true\nlora_target_modules: [c_attn]", "lora_target_modules"),
        ("lr_scheduler_type: cosine_with_min_lr", "lr_scheduler_type"),
        ("lr_scheduler_type: cosine\nlr_scheduler_kwargs: {nonsense: 1}", "lr_scheduler_kwargs"),
        ("use_liger_kernel: true", "use_liger_kernel"),
        ("fsdp: full_shard\nuse_cpu: true", "fsdp"),
        ("deepspeed: ./ds.json", "deepspeed"),
        ("log_level: loud", "log_level"),
        ("use_peft: true\nlora_modules_to_save: [score]", "lora_modules_to_save"),
        ("use_peft: true\nlora_target_parameters: [experts.gate_up_proj]", "lora_target_parameters"),
        ("attn_implementation: flash_atention", "attn_implementation"),
        ("gradient_checkpointing_kwargs: {nonsense: 1}", "gradient_checkpointing_kwargs"),
        ("torch_compile_mode: fastest", "torch_compile_mode"),
        ("adam_beta1: 1.5", "adam_beta1"),
        ("accelerator_config: {nonsense: 1}", "accelerator_config"),
        ("max_steps: 2\naccelerator_config: missing.json", "accelerator_config"),
        ("use_peft: true\nlora_dropout: 1.5", "lora_dropout"),
        ("use_peft: true\nlora_target_modules: ['(']", "lora_target_modules"),
        ("optim: adamw_torch\noptim_args: nonsense", "optim"),
        ("load_best_model_at_end: true\nsave_strategy: steps\neval_strategy: epoch", "load_best_model_at_end"),
        ("attn_implementation: flash_attention_2", None),
        ("attn_implementation: kernels-community/flash-attn", None),
        ("", None),
        ("use_peft: true", None),
        (
            "use_peft: true\nlora_target_modules: [all-linear]\nlora_modules_to_save: [lm_head, embed_tokens, norm]",
            None,
        ),
        ("use_peft: true\nlora_target_modules: [self_attn.q_proj, layers.1.mlp.up_proj]", None),
        ("use_peft: true\nlora_dropout: 0.0\nlora_target_parameters: [mlp.up_proj.weight]", None),
        ("report_to: [none]", None),
        ("""gradient_checkpointing_kwargs: '{"use_reentrant": false}'""", None),
        ("lr_scheduler_type: cosine", None),
        ("optim: adamw_8bit", None),
        ("reward_funcs: [math_answer]\ntemperature: -1", "temperature"),
        ("reward_funcs: [math_answer]\ntop_p: 2", "top_p"),
        ("reward_funcs: [math_answer]\ntop_k: -3", "top_k"),
        ("reward_funcs: [math_answer]\nmin_p: 3", "min_p"),
        ("reward_funcs: [math_answer]\nrepetition_penalty: 0", "repetition_penalty"),
        ("reward_funcs: [math_answer]\ntemperature: 1\ntop_p: 1.0\ntop_k: 0\nmin_p: 0.1\nrepetition_penalty: 1", None),
        ("reward_funcs: [math_answer]\nnum_generations: 5", "num_generations"),
        ("reward_funcs: [math_answer]\ngeneration_batch_size: 12", "generation_batch_size"),
        ("reward_funcs: [math_answer]\ngeneration_batch_size: 16\nsteps_per_generation: 2", "generation_batch_size"),
        ("reward_funcs: [math_answer]\ntemperature: 0", "temperature"),  # GRPO does not compare one answer with itself
    ],
)
def test_what_a_trainer_refuses_is_found_without_weights(tmp_path, text, key):
    if key and key.startswith("activation_checkpointing") and key not in class_keys(*SFT_CONFIG):
        pytest.skip("TRL 1.14 has no such key")
    made = recipe(tmp_path, text + "\n", "grpo" if text.startswith("reward_funcs") else "sft")
    found = trainer_findings(made)
    assert [(finding.level, finding.key) for finding in found] == ([("error", key)] if key else [])
    assert not found or "\n" not in found[0].text


def test_what_draws_the_tokens_is_asked_of_samples_too(tmp_path):
    sampled = recipe(tmp_path, "reward_funcs: [math_answer]\ntop_p: 2\n", "sample")
    assert [found.key for found in trainer_findings(sampled)] == ["top_p"]


def test_what_several_processes_do_is_judged_where_they_run(tmp_path):
    split = recipe(tmp_path, "fsdp: full_shard\n")
    assert [(found.level, found.key) for found in trainer_findings(split)] == [("warning", "fsdp")]
    assert [(found.level, found.key) for found in trainer_findings(split, run=True)] == [("error", "fsdp")]


def test_whoever_has_a_token_may_check_offline_what_will_be_pushed(tmp_path, monkeypatch):
    from huggingface_hub import constants

    pushed = recipe(tmp_path, "push_to_hub: true\n")
    monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    assert trainer_findings(pushed) == []
    assert [found.key for found in trainer_findings(pushed, run=True)] == ["push_to_hub"]
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert [found.key for found in trainer_findings(pushed)] == ["push_to_hub"]


def test_an_adapter_that_the_trainer_would_ignore_is_refused_where_it_says_so(tmp_path):
    head = recipe(tmp_path, "use_peft: true\nlora_target_modules: [q_proj, lm_head]\n")
    says = hasattr(import_module("trl.trainer.sft_trainer"), "BaseTunerLayer")
    assert [found.key for found in trainer_findings(head)] == (["lora_target_modules"] if says else [])


def test_too_few_rows_for_a_batch_that_must_be_full(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1+1", "completion": "2"}\n' * 3)
    text = "use_cpu: true\nmax_length: 128\nper_device_train_batch_size: 4\ndataloader_drop_last: true\n"
    result = next(check([recipe(tmp_path, text)], offline=True))
    assert [f.key for f in result.errors] == ["dataloader_drop_last"]


def test_what_a_training_says_of_a_key_is_one_line_and_the_rest_is_left(tmp_path):
    best = recipe(tmp_path, "metric_for_best_model: nonsense\n")
    with pytest.raises(KeyProblem) as caught, named_refusals(best.values):
        raise KeyError("`metric_for_best_model` is 'eval_nonsense',\nwhich is not found")
    assert caught.value.key == "metric_for_best_model" and "\n" not in str(caught.value)
    with pytest.raises(KeyError), named_refusals(best.values):
        raise KeyError("stage")


def test_a_whole_number_is_one_where_a_fraction_may_stand(tmp_path):
    values = recipe(tmp_path, "learning_rate: 1\nwarmup_steps: 3\nmax_steps: 2\n").config_values(SFT_CONFIG)
    assert {key: type(values[key]) for key in values if key != "output_dir"} == {
        "learning_rate": float, "warmup_steps": int, "max_steps": int,
    }  # fmt: skip


def test_a_check_leaves_the_process_as_it_was(tmp_path):
    from accelerate.state import PartialState

    before = dict(os.environ)
    assert trainer_findings(recipe(tmp_path, "fp16: true\n")) == []
    assert dict(os.environ) == before and PartialState._shared_state == {}
