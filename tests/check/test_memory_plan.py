"""The memory plan: formulas against traces and a real generation, edits that make it fit, what `check` says, recipes' headers."""

import json
import os
import re
import sys
from dataclasses import replace

import pytest
import yaml
from conftest import ROOT

from reasoning_ext.check.keys import OF_KEYS, broken_rules
from reasoning_ext.check.memory.check import MemoryReport, cost_line, find_card, parse_card, report_memory
from reasoning_ext.check.memory.edits import edits
from reasoning_ext.check.memory.plan import GIB, plan
from reasoning_ext.check.memory.setup import fused_head, setup_of
from reasoning_ext.check.memory.shapes import config_of
from reasoning_ext.check.rules import context_too_short
from reasoning_ext.errors import UserError
from reasoning_ext.recipe.load import load_recipe, load_recipes

sys.path.insert(0, str(ROOT / "benchmarks"))
import memory_plan as benchmark

RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
PLANNED = re.compile(r"^# Planned:  ([\d.]+) GiB at its peak, in ([\w -]+?)(?:;|$)", re.MULTILINE)
NF4 = benchmark.WAYS["nf4"] | {"lora_r": 32, "gradient_checkpointing": True, "gradient_accumulation_steps": 8}
GRPO = {
    "stage": "grpo", "model_name_or_path": "Qwen/Qwen3-8B", "per_device_train_batch_size": 8, "max_prompt_length": 256,
    "max_completion_length": 4096, "beta": 0.0,
} | NF4  # fmt: skip
SFT = {
    "stage": "sft",
    "model_name_or_path": "Qwen/Qwen3-8B",
    "per_device_train_batch_size": 8,
    "max_length": 2048,
} | NF4


@pytest.fixture(autouse=True)
def fused(monkeypatch, request):
    """Plan as with TRL 1.16, whatever is installed, except where the installed one is compared with."""
    if not request.node.get_closest_marker("slow"):
        monkeypatch.setattr("reasoning_ext.check.memory.setup.fused_head", lambda stage: True)


def setup(values, folder):
    return setup_of(benchmark.recipe_of(values, folder), {})


def small(name, layers, folder):
    """A model of the widths of a real one with few layers, so that a trace takes seconds."""
    (folder / "config.json").write_text(
        json.dumps(config_of(name) | {"num_hidden_layers": layers, "layer_types": None})
    )
    return str(folder)


# --- formulas against traces of TRL's own step


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"lora_dropout": 0.05, "lora_r": 128}, {"load_in_4bit": False, "gradient_checkpointing": False},
        {"model_name_or_path": "meta-llama/Llama-3.1-8B"}, {"model_name_or_path": "microsoft/Phi-4-mini"},
        {"model_name_or_path": "google/gemma-3-1b", "max_length": 512},
        {"stage": "grpo", "max_prompt_length": 256, "max_completion_length": 2048, "beta": 0.1},
        {"use_peft": False, "load_in_4bit": False, "model_name_or_path": "Qwen/Qwen3-0.6B", "optim": "adamw_torch"},
        {"lora_modules_to_save": ["lm_head", "embed_tokens"], "model_name_or_path": "Qwen/Qwen2.5-7B"},
        {"stage": "dpo", "use_peft": False, "load_in_4bit": False, "model_name_or_path": "Qwen/Qwen3-0.6B", "dtype": "float32"},
    ],
    ids=str,
)  # fmt: skip
def test_the_formulas_are_within_ten_percent_of_the_trace(changes, tmp_path):
    values = SFT | changes
    if changes.get("stage") == "grpo":
        values.pop("max_length")
    if not values["use_peft"]:
        values = {key: value for key, value in values.items() if not key.startswith(("lora", "use_bnb"))}
    values["model_name_or_path"] = small(values["model_name_or_path"], 4, tmp_path)
    errors = benchmark.compare(values)["errors"]
    assert {"weights", "optimizer", "activations", "peak"} <= set(errors)
    for name, error in errors.items():
        assert abs(error) < (0.10 if name in ("activations", "peak", "log-probabilities") else 0.01), errors


def test_the_cache_of_a_real_generation_is_the_planned_one(tmp_path):
    import torch
    from memory_trace.live_storages import LiveStorages
    from transformers import AutoConfig, AutoModelForCausalLM

    config = {
        "model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 8, "num_attention_heads": 4, "head_dim": 32,
        "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 500, "tie_word_embeddings": False,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    values = GRPO | {"model_name_or_path": str(tmp_path), "max_prompt_length": 32, "max_completion_length": 96}
    made = replace(setup(values, tmp_path), generated=8, rank=None, bits=16)
    parts = plan(made).shown()["generation"]
    planned = parts["KV cache"] + parts["one layer's activations"]
    kind = config.pop("model_type")
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config), dtype=torch.bfloat16).eval()
    ids = torch.randint(3, 100, (8, 32))
    mask = torch.ones_like(ids)
    mask[1:, :8] = 0
    live = LiveStorages()
    with torch.no_grad(), live:
        weights = live.name([*model.parameters(), *model.buffers()], "weights")
        live.enter("generation")
        model.generate(
            input_ids=ids, attention_mask=mask, min_new_tokens=96, max_new_tokens=96, do_sample=True,
            pad_token_id=0, eos_token_id=2,
        )  # fmt: skip
    assert planned / (live.peaks["generation"] - weights) == pytest.approx(1, abs=0.15)


# --- what a recipe puts on the card


def test_a_plan_of_eight_billion_parameters_in_four_bits(tmp_path):
    made = plan(setup(GRPO, tmp_path))
    assert set(made.shown()) == {"training", "generation"}
    assert made.shown()["generation"]["KV cache"] == 64 * 4352 * 144 * 1024
    assert made.peak_phase == "generation" and made.peak == sum(made.shown()["generation"].values())
    training = made.shown()["training"]
    assert training["weights in 4 bits"] == pytest.approx(6.946e9 * (0.5 + 1 / 64), rel=0.01)
    assert training["optimizer states"] == 2 * training["gradients"] == 2 * training["LoRA weights"]
    assert made.needed > made.peak


@pytest.mark.parametrize(
    ("changes", "part", "expected"),
    [
        ({"beta": 0.1}, "log-probabilities", True), ({"beta": 0.1, "use_peft": False, "load_in_4bit": False}, "reference", True),
        ({"generation_batch_size": 8}, "generation", 8), ({"steps_per_generation": 2}, "generation", 16),
        ({"gradient_accumulation_steps": 1}, "generation", 8), ({}, "log-probabilities", False), ({}, "reference", False),
    ],
)  # fmt: skip
def test_phases_follow_from_the_keys(changes, part, expected, tmp_path):
    values = {key: value for key, value in (GRPO | changes).items() if value is not False or key == "use_peft"}
    made = plan(setup(values, tmp_path))
    if part == "generation":
        assert made.setup.generated == expected
    elif part == "log-probabilities":
        assert (part in made.shown()) == expected
    else:
        assert ("reference model" in made.shown()["training"]) == expected


def test_an_adapter_of_an_earlier_recipe_counts_with_its_own_rank(tmp_path):
    first = tmp_path / "1.yaml"
    first.write_text(
        "stage: sft\nmodel_name_or_path: Qwen/Qwen3-8B\nuse_peft: true\nlora_r: 64\ndataset_name: d\noutput_dir: a\n"
    )
    values = GRPO | {"model_name_or_path": "a", "lora_r": 8}
    second = benchmark.recipe_of(values, tmp_path)
    earlier = load_recipe(first)
    made = setup_of(second, {str(earlier.output_dir.resolve()): earlier})
    assert made.rank == 64 and made.shape.layers == 36
    merged = benchmark.recipe_of(values | {"merge_adapter": True}, tmp_path)
    assert setup_of(merged, {str(earlier.output_dir.resolve()): earlier}).rank == 8


def test_unsloth_offloads_checkpoints_and_always_nests(tmp_path):
    ours = plan(setup(SFT, tmp_path))
    theirs = plan(setup(SFT | {"backend": "unsloth", "use_bnb_nested_quant": False}, tmp_path))
    assert "checkpoints" in ours.shown()["training"] and "checkpoints" not in theirs.shown()["training"]
    assert theirs.setup.nested and theirs.setup.trained == "float32"


@pytest.mark.parametrize("backend", ("trl", "unsloth"))
def test_a_sleeping_engine_is_no_part_of_training(backend, tmp_path):
    values = (
        GRPO | {"backend": backend} | {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.5}
    )
    awake = plan(setup(values, tmp_path), 48 * GIB)
    asleep = plan(setup(values | {"vllm_enable_sleep_mode": True}, tmp_path), 48 * GIB)
    shared = sum(size for part, size in awake.shown()["training"].items() if part.startswith(("weights", "embed")))
    pool = 24 * GIB - (shared if backend == "unsloth" else 0)  # Unsloth's engine computes with the trainer's weights
    assert awake.shown()["training"]["vLLM"] == asleep.shown()["generation"]["vLLM"] == pool
    assert "vLLM" not in asleep.shown()["training"] and "KV cache" not in asleep.shown()["generation"]


def test_an_engine_elsewhere_takes_nothing_and_one_that_holds_no_sequence_does_not_fit(tmp_path):
    values = GRPO | {"use_vllm": True, "vllm_mode": "server"}
    assert "vLLM" not in plan(setup(values, tmp_path), 48 * GIB).shown()["training"]
    low = GRPO | {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": 0.3,
        "vllm_enable_sleep_mode": True,
    }
    report = report_memory(benchmark.recipe_of(low, tmp_path), [], parse_card("48GB"), True, None)
    assert report.fits is False and report.blamed() == "vllm_gpu_memory_utilization"
    assert "lacks 1.45 GiB for its weights and one whole sequence" in report.short()  # 15.26 and 0.60 of 14.4
    enough = benchmark.recipe_of(low | {"vllm_gpu_memory_utilization": 0.4}, tmp_path)
    assert report_memory(enough, [], parse_card("48GB"), True, None).fits


def test_an_evaluation_is_planned_for_its_largest_model(tmp_path):
    values = {"stage": "eval", "models": {"small": "Qwen/Qwen3-0.6B", "big": "Qwen/Qwen3-14B"}, "num_generations": 4}
    report = report_memory(benchmark.recipe_of(values, tmp_path), [], parse_card("16GB"), True, None)
    assert report.plan.setup.shape.layers == 40 and not report.fits


def test_what_is_needed_is_the_peak_with_what_cuda_keeps_on_less_than_the_whole_card(tmp_path):
    made = plan(setup(SFT, tmp_path))
    assert made.needed == round(made.peak * 1.05) + int(0.9 * GIB)
    assert made.fits(round(made.needed / 0.98) + 1) and not made.fits(round(made.needed / 0.98) - 1)


def test_a_continued_adapter_has_a_copy_as_its_reference_and_a_merged_one_has_none(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"base_model_name_or_path": "Qwen/Qwen3-8B", "r": 16, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    values = GRPO | {"model_name_or_path": str(folder), "beta": 0.1}
    parts = plan(setup(values, tmp_path)).shown()["training"]
    assert parts["reference adapter"] == parts["LoRA weights"] == 36 * 16 * (4096 + 4096 + 4096 + 1024) * 2
    assert "reference adapter" not in plan(setup(values | {"merge_adapter": True}, tmp_path)).shown()["training"]


def test_an_adapter_that_begins_on_a_merged_one_is_the_next_ones_start(tmp_path):
    recipes = []
    for i, extra in enumerate(({"lora_r": 8}, {"lora_r": 128, "merge_adapter": True}, {"lora_r": 4})):
        values = SFT | extra | {"model_name_or_path": "Qwen/Qwen3-8B" if not i else f"out{i - 1}"}
        recipe = benchmark.recipe_of(values, tmp_path)
        recipe.values["output_dir"] = f"out{i}"
        recipes.append(recipe)
    makers = {str(recipe.output_dir.resolve()): recipe for recipe in recipes[:2]}
    assert setup_of(recipes[1], makers).rank == setup_of(recipes[2], makers).rank == 128


def test_whether_logits_are_whole_is_read_off_the_installed_trl():
    import trl.trainer.dpo_trainer as dpo
    import trl.trainer.grpo_trainer as grpo

    assert fused_head("grpo") == hasattr(grpo, "add_fused_lm_head")
    assert fused_head("dpo") == hasattr(dpo, "add_fused_lm_head")
    assert fused_head("sft")


DPO = {key: value for key, value in SFT.items() if not key.startswith(("lora", "use", "load"))} | {"stage": "dpo"}


def test_a_pair_is_two_rows_and_a_whole_model_has_a_second_one_beside_it(tmp_path):
    made = plan(setup(DPO, tmp_path))
    assert made.setup.rows == 16 and made.setup.tokens == 2048 and set(made.shown()) == {"training"}
    parts = made.shown()["training"]
    assert parts["reference model"] == parts["weights in 16 bits"] + parts["embeddings and norms"]
    without = plan(setup(DPO | {"precompute_ref_log_probs": True}, tmp_path)).shown()["training"]
    assert "reference model" not in without and sum(without.values()) < made.peak
    lora = setup(SFT | {"stage": "dpo"}, tmp_path)
    assert lora.reference == "none" and lora.scored


# --- edits


def test_edits_make_it_fit_and_say_what_they_save(tmp_path):
    first = plan(setup(GRPO, tmp_path))
    assert not first.fits(24 * GIB)
    changes = edits(first, 24 * GIB)
    assert changes[-1].plan.fits(24 * GIB)
    assert first.peak - sum(edit.saved for edit in changes) == changes[-1].plan.peak
    assert any("generation_batch_size: " in edit.text for edit in changes)
    assert not any("max_completion_length" in edit.text for edit in changes)  # what is learnt goes last


@pytest.mark.parametrize(
    "values",
    [
        GRPO, SFT | {"per_device_train_batch_size": 32, "max_length": 4096}, GRPO | {"steps_per_generation": 8},
        GRPO | {"generation_batch_size": 128, "max_completion_length": 8192},
        GRPO | {"load_in_4bit": False, "use_bnb_nested_quant": False, "optim": "sgd"},
        GRPO | {"gradient_checkpointing": False, "use_bnb_nested_quant": False, "lora_r": 256},
        {key: value for key, value in SFT.items() if not key.startswith(("lora", "use", "load"))}, DPO,
        DPO | SFT | {"stage": "dpo", "gradient_checkpointing": False},
    ],
    ids=range(9),
)  # fmt: skip
def test_an_edited_recipe_is_accepted_and_planned_as_the_edits_said(values, tmp_path):
    first = plan(setup(values, tmp_path))
    changes, edited = edits(first, 24 * GIB), dict(values)
    for edit in changes:
        edited |= {key: yaml.safe_load(value) for key, value in edit.values.items()}
    keys = [key for edit in changes for key in edit.values]
    assert len(keys) == len(set(keys))
    recipe = benchmark.recipe_of(edited, tmp_path)
    assert broken_rules(recipe, OF_KEYS) == []
    assert plan(setup_of(recipe, {})).peak == changes[-1].plan.peak
    assert first.peak - sum(edit.saved for edit in changes) == changes[-1].plan.peak


def test_what_cannot_fit_is_said(tmp_path):
    recipe = benchmark.recipe_of(SFT | {"max_length": 8192}, tmp_path)
    report = report_memory(recipe, [], parse_card("4GB"), True, None)
    assert report.fits is False and "that is not enough" in report.lines()[-1]


def test_whole_weights_become_an_adapter_where_they_do_not_fit(tmp_path):
    values = {
        "stage": "sft",
        "model_name_or_path": "Qwen/Qwen3-8B",
        "dtype": "bfloat16",
        "per_device_train_batch_size": 1,
    }
    for free in (values, {key: value for key, value in values.items() if key != "dtype"}):
        changes = edits(plan(setup(free, tmp_path)), 24 * GIB)
        assert any("use_peft: true" in edit.text for edit in changes) and changes[-1].plan.fits(24 * GIB)
        for edit in changes:
            free = free | {key: yaml.safe_load(value) for key, value in edit.values.items()}
        assert plan(setup(free, tmp_path)).peak == changes[-1].plan.peak


# --- check


@pytest.mark.parametrize(("text", "gib"), [("48GB", 48), ("24", 24), ("23.6 GiB", 23.6)])
def test_a_card_is_read(text, gib):
    assert parse_card(text).memory == int(gib * GIB)


@pytest.mark.parametrize("text", ("", "large", "0GB", "-1"))
def test_what_is_no_card_is_refused(text):
    with pytest.raises(UserError, match=r"--gpu: found .*, allowed: the card's memory, 24GB or 48GB for example"):
        parse_card(text)


@pytest.mark.parametrize(
    ("said", "visible", "expected"),
    [
        ("NVIDIA RTX A6000, 49140", None, ("NVIDIA RTX A6000", 49140)), ("A, 10\\nB, 20", "1", ("-i 1", 30)),
        ("A, 10", "", None), ("A, 10", "-1", None), ("No devices were found", None, None),
    ],
)  # fmt: skip
def test_the_card_that_is_found_is_the_one_that_a_run_would_take(said, visible, expected, tmp_path, monkeypatch):
    text = f"printf '{said}\\n'" if visible != "1" else 'echo "$3 $4, 30"'
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    find_card.cache_clear()
    card = find_card()
    find_card.cache_clear()
    assert (card and (card.name, card.memory // 2**20)) == expected


def test_check_says_whether_it_fits_and_what_would_make_it(cli):
    recipe = ROOT / "recipes" / "qwen3_8b" / "2_grpo.yaml"
    result = cli("check", recipe, "--offline", "--gpu", "8GB", "--tokens-per-second", "5000")
    assert result.code == 2 and "the plan does not fit a card of 8 GB" in result.err
    assert "KV cache" in result.out and "weights in 4 bits" in result.out
    assert "to make it fit, the cheapest first" in result.out and "at 5000 tokens a second" in result.out


def test_the_plan_for_machines_is_in_bytes():
    recipe = load_recipe(ROOT / "recipes" / "qwen3_8b" / "1_sft.yaml")
    memory = report_memory(recipe, [], parse_card("8GB"), True, None).as_dict()
    assert memory["fits"] is False and memory["edits"] and memory["peak"] == sum(memory["phases"]["training"].values())
    assert json.loads(json.dumps(memory)) == memory


def test_a_model_without_a_known_config_is_no_error(write_recipe):
    path = write_recipe("stage: sft\nmodel_name_or_path: nobody/nothing\ndataset_name: d\noutput_dir: o\n")
    report = report_memory(load_recipe(path), [], parse_card("24GB"), True, None)
    expected = "memory: not planned: the config of nobody/nothing is neither on this machine nor built in"
    assert report.plan is None and report.lines() == [expected]
    assert MemoryReport(why="x").as_dict() == {"why": "x"}


@pytest.mark.parametrize(
    ("facts", "rate", "said"),
    [
        ({"optimizer_steps": 100, "rows_a_step": 16, "mean_length": 500}, None, "100 steps, 800k tokens; 0.2 hours at 1000"),
        ({"optimizer_steps": 100, "rows_a_step": 16}, 2000, "100 steps, up to 3.28M tokens; 0.5 hours at 2000 tokens a second"),
        ({}, None, ""),
    ],
)  # fmt: skip
def test_the_cost_is_reckoned_at_a_stated_rate(facts, rate, said, tmp_path):
    line = cost_line(benchmark.recipe_of(SFT, tmp_path), facts, rate)
    assert said in line and bool(line) == bool(said)


def test_a_run_that_may_not_fit_the_card_is_warned_of_and_check_refuses_it(tmp_path, monkeypatch):
    from reasoning_ext import check

    monkeypatch.setattr(check, "find_card", lambda: parse_card("8GB"))
    recipe = load_recipe(ROOT / "recipes" / "qwen3_8b" / "1_sft.yaml", {"backend": "trl"})
    for whole, level in ((True, "error"), (False, "warning")):
        [checked] = check.check([recipe], run=not whole, offline=True)
        assert [problem.level for problem in checked.problems if problem.code == "does_not_fit"] == [level]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("backend: unsloth\nmax_seq_length: 1000\n", "found 1000, but max_length 4096 take 4096 tokens; write 4096"),
        ("backend: unsloth\n", "max_seq_length: left out, so it is 2048, but max_length 4096 take 4096 tokens"),
        ("backend: trl\n", None),
        ("backend: unsloth\nmax_seq_length: 128\nmax_length: null\n", None),
    ],
)  # fmt: skip
def test_unsloths_context_holds_the_rows(text, said, write_recipe):
    base = "stage: sft\nmodel_name_or_path: a/b\ndataset_name: d\noutput_dir: o\n" + (
        "max_length: 4096\n" if "max_length: null" not in text else ""
    )
    errors = [*map(str, broken_rules(load_recipe(write_recipe(base + text)), [context_too_short]))]
    assert any(said in error for error in errors) if said else not errors


# --- recipes


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "recipes")))
def test_a_recipes_header_names_the_planned_peak_and_a_card_that_it_fits(path):
    text = path.read_text()
    card = re.search(r"Card: (\d+) GB", text)
    if card is None:
        assert "tiny" in path.parts or load_recipe(path).get("engine") == "server"  # neither has a card
        return
    recipes = load_recipes([path.parent])
    if recipes[0].get("backend") == "trl" and not fused_head("grpo"):
        pytest.skip("headers are planned with TRL's fused head")
    here = next(i for i, recipe in enumerate(recipes) if recipe.path == path)
    report = report_memory(recipes[here], recipes[:here], parse_card(card.group(1)), True, None)
    planned = PLANNED.search(text)
    assert planned, "the header has no line `# Planned:  X GiB at its peak, in PHASE`"
    assert f"memory: {planned.group(1)} GiB at its peak, in {planned.group(2)};" in report.lines()[0]
    assert report.fits
