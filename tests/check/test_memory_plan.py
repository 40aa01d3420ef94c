"""The memory plan: formulas against traces and a real generation, edits that make it fit, what `check` says, recipes' headers."""

import json
import os
import re
import sys
from dataclasses import replace

import pytest
from conftest import ROOT

from reasoning_ext.check.cost import batch_facts
from reasoning_ext.check.keys import OF_KEYS, broken_rules
from reasoning_ext.check.memory.check import MemoryReport, cost_line, find_card, parse_card, report_memory
from reasoning_ext.check.memory.plan import GIB, plan
from reasoning_ext.check.memory.setup import fused_head, setup_of
from reasoning_ext.check.memory.shapes import config_of, shape_of
from reasoning_ext.check.rules import context_too_short
from reasoning_ext.errors import UserError
from reasoning_ext.recipe.load import load_recipe, load_recipes

sys.path.insert(0, str(ROOT / "benchmarks"))
import memory_plan as benchmark

RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
PLANNED = re.compile(r"^# Planned:  ([\d.]+) GiB at its peak, in ([\w -]+?)(?:;|$)", re.MULTILINE)
NF4 = benchmark.WAYS["nf4"] | {"lora_r": 32, "gradient_checkpointing": True, "gradient_accumulation_steps": 8}
QWEN = {"model_name_or_path": "Qwen/Qwen3-8B", "per_device_train_batch_size": 8}
GRPO = {"stage": "grpo", "max_prompt_length": 256, "max_completion_length": 4096, "beta": 0.0} | QWEN | NF4
SFT = {"stage": "sft", "max_length": 2048} | QWEN | NF4
FULL = {key: value for key, value in SFT.items() if not key.startswith(("lora", "use", "load"))}
FREE = {key: value for key, value in FULL.items() if key != "dtype"}
DPO = FULL | {"stage": "dpo"}
VLLM = {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.5}
SLEEPS = {"vllm_enable_sleep_mode": True}


@pytest.fixture(autouse=True)
def fused(monkeypatch, request):
    """Plan as with TRL 1.16, whatever is installed, except where the installed one is compared with."""
    if not request.node.get_closest_marker("slow"):
        monkeypatch.setattr("reasoning_ext.check.memory.setup.fused_head", lambda stage: True)


@pytest.fixture
def recipe_of(tmp_path):
    return lambda values: benchmark.recipe_of(values, tmp_path)


@pytest.fixture
def planned(recipe_of):
    """Plan the values of a recipe; `text` is what `check --json` has."""
    return lambda values, card=None: plan(setup_of(recipe_of(values), {}), card)


def report(recipe, card="24GB", earlier=()):
    return report_memory(recipe, list(earlier), parse_card(card), True, None)


# --- formulas against TRL's own step and transformers' own generation


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        SFT | {"lora_dropout": 0.05, "lora_r": 128}, SFT | {"model_name_or_path": "google/gemma-3-1b", "max_length": 512},
        GRPO | {"max_completion_length": 2048, "beta": 0.1},
        FULL | {"model_name_or_path": "Qwen/Qwen3-0.6B", "optim": "adamw_torch"},
        DPO | {"model_name_or_path": "Qwen/Qwen3-0.6B", "dtype": "float32"},
    ],
    ids=range(5),
)  # fmt: skip
def test_the_formulas_are_within_ten_percent_of_the_trace(values, tmp_path):
    config = config_of(values["model_name_or_path"]) | {"num_hidden_layers": 4, "layer_types": None}
    (tmp_path / "config.json").write_text(json.dumps(config))  # of the real widths, but traced in seconds
    errors = benchmark.compare(values | {"model_name_or_path": str(tmp_path)})["errors"]
    assert {"weights", "optimizer", "activations", "peak"} <= set(errors)
    for name, error in errors.items():
        assert abs(error) < (0.10 if name in ("activations", "peak", "log-probabilities") else 0.01), errors


def test_the_cache_of_a_real_generation_is_the_planned_one(tmp_path, recipe_of):
    import torch
    from memory_trace.live_storages import LiveStorages
    from transformers import AutoConfig, AutoModelForCausalLM

    config = {
        "model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 8, "num_attention_heads": 4, "head_dim": 32,
        "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 500, "tie_word_embeddings": False,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    values = GRPO | {"model_name_or_path": str(tmp_path), "max_prompt_length": 32, "max_completion_length": 96}
    made = replace(setup_of(recipe_of(values), {}), generated=8, rank=None, bits=16)
    parts = plan(made).shown()["generation"]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.bfloat16).eval()
    ids = torch.randint(3, 100, (8, 32))
    mask = torch.ones_like(ids)
    mask[1:, :8] = 0
    live = LiveStorages()
    with torch.no_grad(), live:
        weights = live.name([*model.parameters(), *model.buffers()], "weights")
        live.enter("generation")
        model.generate(ids, attention_mask=mask, min_new_tokens=96, max_new_tokens=96, do_sample=True, pad_token_id=0)
    real = live.peaks["generation"] - weights
    assert (parts["KV cache"] + parts["one layer's activations"]) / real == pytest.approx(1, abs=0.15)


# --- what a recipe puts on the card


def test_a_plan_of_eight_billion_parameters_in_four_bits(planned):
    made = planned(GRPO)
    assert set(made.shown()) == {"training", "generation"}
    assert made.shown()["generation"]["KV cache"] == 64 * 4352 * 144 * 1024
    assert made.peak_phase == "generation" and made.peak == sum(made.shown()["generation"].values())
    training = made.shown()["training"]
    assert training["weights in 4 bits"] == pytest.approx(6.946e9 * (0.5 + 1 / 64), rel=0.01)
    assert training["optimizer states"] == 2 * training["gradients"] == 2 * training["LoRA weights"]
    assert made.needed == round(made.peak * 1.05) + int(0.9 * GIB)
    assert made.fits(round(made.needed / 0.98) + 1) and not made.fits(round(made.needed / 0.98) - 1)


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"beta": 0.1}, "old_logps", True), ({}, "old_logps", False), ({"num_iterations": 3}, "old_logps", True),
        ({"generation_batch_size": 8}, "generated", 8), ({"steps_per_generation": 2}, "generated", 16),
        ({"gradient_accumulation_steps": 1}, "generated", 8), ({"beta": 0.1}, "reference", "none"),
        ({"beta": 0.1, "use_peft": False, "load_in_4bit": False}, "reference", "model"),
        ({"use_peft": False, "load_in_4bit": False}, "reference", "none"), ({"load_in_4bit": False}, "trained", "float32"),
        ({}, "trained", "bfloat16"), ({"backend": "unsloth", "use_bnb_nested_quant": False}, "nested", True),
        (SFT | {"stage": "dpo"}, "reference", "none"), (SFT | {"stage": "dpo"}, "scored", True), (DPO, "rows", 16),
        (DPO | {"precompute_ref_log_probs": True}, "reference", "none"), (DPO, "reference", "model"), (FREE, "bits", 32),
        (FULL, "bits", 16), (SFT, "tokens", 2048),
    ],
)  # fmt: skip
def test_a_setup_follows_from_the_keys(changes, field, expected, recipe_of):
    values = changes if "stage" in changes else GRPO | changes
    values = {key: value for key, value in values.items() if value is not False or key == "use_peft"}
    made = setup_of(recipe_of(values), {})
    assert getattr(made, field) == expected
    parts = plan(made).shown()
    assert ("log-probabilities" in parts) == made.old_logps
    assert ("reference model" in parts["training"]) == (made.reference == "model")
    assert ("checkpoints" in parts["training"]) == (made.backend == "trl") or made.peak_phase != "training"


@pytest.mark.parametrize("backend", ("trl", "unsloth"))
def test_a_sleeping_engine_is_no_part_of_training_and_one_elsewhere_takes_nothing(backend, planned):
    values = GRPO | VLLM | {"backend": backend}
    awake, asleep = (planned(values | more, 48 * GIB).shown() for more in ({}, SLEEPS))
    shared = sum(size for part, size in awake["training"].items() if part.startswith(("weights", "embed")))
    pool = 24 * GIB - (shared if backend == "unsloth" else 0)  # Unsloth's engine computes with the trainer's weights
    assert awake["training"]["vLLM"] == asleep["generation"]["vLLM"] == pool
    assert "vLLM" not in asleep["training"] and "KV cache" not in asleep["generation"]
    assert "vLLM" not in planned(values | {"vllm_mode": "server"}, 48 * GIB).shown()["training"]


def test_an_engine_that_holds_no_sequence_does_not_fit(recipe_of):
    low = GRPO | VLLM | SLEEPS | {"vllm_gpu_memory_utilization": 0.3}
    found = report(recipe_of(low), "48GB")
    assert found.fits is False and found.blamed() == "vllm_gpu_memory_utilization"
    assert found.plan.engine_lacks / GIB == pytest.approx(1.45, abs=0.01)  # 15.26 and 0.60 of 14.4
    assert report(recipe_of(low | {"vllm_gpu_memory_utilization": 0.4}), "48GB").fits


def test_an_adapter_of_an_earlier_recipe_counts_with_its_own_rank(tmp_path, recipe_of, planned):
    recipes = []
    for i, extra in enumerate(({"lora_r": 8}, {"lora_r": 128, "merge_adapter": True}, {"lora_r": 4})):
        recipe = recipe_of(SFT | extra | {"model_name_or_path": f"out{i - 1}" if i else "Qwen/Qwen3-8B"})
        recipe.values["output_dir"] = f"out{i}"
        recipes.append(recipe)
    makers = {str(recipe.output_dir.resolve()): recipe for recipe in recipes[:2]}
    assert [setup_of(recipe, makers).rank for recipe in recipes] == [8, 128, 128]
    config = {"base_model_name_or_path": "Qwen/Qwen3-8B", "r": 16, "target_modules": ["q_proj", "v_proj"]}
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    values = GRPO | {"model_name_or_path": str(tmp_path / "adapter"), "beta": 0.1}
    parts = planned(values).shown()["training"]
    assert parts["reference adapter"] == parts["LoRA weights"] == 36 * 16 * (4096 + 4096 + 4096 + 1024) * 2
    assert "reference adapter" not in planned(values | {"merge_adapter": True}).shown()["training"]


def test_an_evaluation_is_planned_for_its_largest_model(recipe_of):
    values = {"stage": "eval", "models": {"small": "Qwen/Qwen3-0.6B", "big": "Qwen/Qwen3-14B"}, "num_generations": 4}
    found = report(recipe_of(values), "16GB")
    assert found.plan.setup.shape.layers == 40 and not found.fits


def test_an_evaluation_is_planned_with_the_longest_prompt_and_the_reward_models_of_its_strategies(recipe_of):
    values = {"stage": "eval", "model_name_or_path": "Qwen/Qwen3-0.6B", "max_completion_length": 100}
    plain = report(recipe_of(values), "16GB").plan
    refined = report(recipe_of(values | {"strategies": [{"refine": {"rounds": 1}}]}), "16GB").plan
    curve = report(recipe_of(values | {"thinking_curve": True}), "16GB").plan
    assert (plain.setup.completion, plain.setup.reward_models) == (100, 0)
    assert refined.setup.prompt > curve.setup.prompt == plain.setup.prompt + 100 and refined.peak > plain.peak
    longer = recipe_of(values | {"strategies": [{"greedy": {"max_completion_length": 900}}]})
    assert report(longer, "16GB").plan.setup.completion == 900
    judged = recipe_of(
        values | {"strategies": [{kind: {"n": 4, "by": "Qwen/Qwen3-1.7B"}} for kind in ("best_of", "weighted_vote")]}
    )
    parts = report(judged, "16GB").plan.shown()["generation"]
    assert parts["reward models"] == shape_of(config_of("Qwen/Qwen3-1.7B")).parameters * 2


def test_whether_logits_are_whole_is_read_off_the_installed_trl():
    import trl.trainer.dpo_trainer as dpo
    import trl.trainer.grpo_trainer as grpo

    assert fused_head("grpo") == hasattr(grpo, "add_fused_lm_head")
    assert fused_head("dpo") == hasattr(dpo, "add_fused_lm_head")
    assert fused_head("sft")


# --- edits


@pytest.mark.parametrize(
    "values",
    [
        GRPO, SFT | {"per_device_train_batch_size": 32, "max_length": 4096}, GRPO | {"steps_per_generation": 8},
        GRPO | {"generation_batch_size": 128, "max_completion_length": 8192}, FULL, FREE, DPO,
        GRPO | {"load_in_4bit": False, "use_bnb_nested_quant": False, "optim": "sgd", "lora_r": 256},
    ],
    ids=range(8),
)  # fmt: skip
def test_edits_make_it_fit_and_are_accepted(values, recipe_of, planned):
    found = report(recipe_of(values))
    keys = [key for edit in found.edits for key in edit.values]
    assert not found.fits and found.edits[-1].plan.fits(24 * GIB) and len(keys) == len(set(keys))
    assert found.plan.peak - sum(edit.saved for edit in found.edits) == found.edits[-1].plan.peak
    edited = dict(values)
    for edit in found.edits:
        assert edit.saved > 0 and all(f"{key}: " in edit.text for key in edit.values)
        edited |= edit.values
    assert broken_rules(recipe_of(edited), OF_KEYS) == []
    assert planned(edited).peak == found.edits[-1].plan.peak


def test_what_is_learnt_goes_last_and_what_cannot_fit_is_said(recipe_of):
    assert not any("max_completion_length" in edit.values for edit in report(recipe_of(GRPO)).edits)
    found = report(recipe_of(SFT | {"max_length": 8192}), "4GB")
    assert found.fits is False and "max_length" in found.edits[-1].values and "not enough" in found.lines()[-1]
    assert "does not fit a card of 4 GB" in found.lines()[0] and "weights in 4 bits" in found.lines()[1]


# --- check


@pytest.mark.parametrize(
    ("text", "gib"),
    [("48GB", 48), ("24", 24), ("23.6 GiB", 23.6), ("", None), ("large", None), ("0GB", None), ("-1", None)],
)
def test_a_card_is_read_or_refused(text, gib):
    if gib is None:
        with pytest.raises(UserError, match="--gpu"):
            parse_card(text)
    else:
        assert parse_card(text).memory == int(gib * GIB)


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


def test_the_plan_for_machines_is_in_bytes_and_a_model_without_a_known_config_is_no_error(write_recipe):
    memory = report(load_recipe(ROOT / "recipes" / "qwen3_8b" / "1_sft.yaml"), "8GB").as_dict()
    assert memory["fits"] is False and memory["edits"] and memory["peak"] == sum(memory["phases"]["training"].values())
    assert json.loads(json.dumps(memory)) == memory
    path = write_recipe("stage: sft\nmodel_name_or_path: nobody/nothing\ndataset_name: d\noutput_dir: o\n")
    found = report(load_recipe(path))
    assert found.plan is None and "nobody/nothing" in found.lines()[0]
    assert MemoryReport(why="x").as_dict() == {"why": "x"}


@pytest.mark.parametrize(
    ("facts", "rate", "said"),
    [
        ({"optimizer_steps": 100, "rows_a_step": 16, "mean_length": 500}, None, "100 steps, 800k tokens; 0.2 hours at 1000"),
        ({"optimizer_steps": 100, "rows_a_step": 16}, 2000, "100 steps, up to 3.28M tokens; 0.5 hours at 2000 tokens a second"),
        ({}, None, ""),
    ],
)  # fmt: skip
def test_the_cost_is_reckoned_at_a_stated_rate(facts, rate, said, recipe_of):
    line = cost_line(recipe_of(SFT), facts, rate)
    assert said in line and bool(line) == bool(said)


def test_answers_to_held_out_problems_are_counted_in_memory_and_cost(planned, recipe_of):
    asked = {"eval_problems": {"n": 100, "samples": 1}, "eval_steps": 50}
    plain, held, long = (
        planned(SFT | more).phases
        for more in ({}, asked, asked | {"eval_problems": {"n": 2, "samples": 4, "max_completion_length": 4096}})
    )
    assert plain["training"] == held["training"] and {*held} - {*plain} == {"held-out problems"}
    assert held["held-out problems"].kv_cache == 8 * 2048 * 144 * 1024 == long["held-out problems"].kv_cache / 2
    assert held["held-out problems"].optimizer_states == plain["training"].optimizer_states
    facts = batch_facts(recipe_of(SFT | asked | {"max_steps": 120}), {})
    assert facts["held_out_completions"] == 4 * 200
    assert "800 completions of held-out problems, up to 1.64M tokens" in cost_line(recipe_of(SFT | asked), facts, None)


def test_what_a_refill_draws_at_most_is_counted_in_the_cost(recipe_of):
    grpo = {"stage": "grpo", "reward_funcs": ["math_answer"], "per_device_train_batch_size": 64, "max_steps": 10}
    for refill, more in ((False, 0), (True, 1920), ({}, 1920), ({"rounds": 2}, 1280)):
        recipe = recipe_of(QWEN | grpo | {"max_completion_length": 100, "refill": refill, "use_vllm": True})
        facts = batch_facts(recipe, {})
        assert facts.get("refilled_completions", 0) == more
        tokens = f"{(64 * 10 + more) * 100 / 1000:g}k tokens"
        line = cost_line(recipe, facts, None)
        assert tokens in line and ("by refill" in line) is bool(more)


def test_a_run_that_may_not_fit_the_card_is_warned_of_and_check_refuses_it(tmp_path, monkeypatch):
    from reasoning_ext import check

    monkeypatch.setattr("reasoning_ext.check.memory.check.find_card", lambda: parse_card("8GB"))
    recipe = load_recipe(ROOT / "recipes" / "qwen3_8b" / "1_sft.yaml", {"backend": "trl"})
    for whole, level in ((True, "error"), (False, "warning")):
        [checked] = check.check([recipe], run=not whole, offline=True)
        assert [problem.level for problem in checked.problems if problem.code == "does_not_fit"] == [level]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("backend: unsloth\nmax_seq_length: 1000\nmax_length: 4096\n", "4096"),
        ("backend: unsloth\nmax_length: 4096\n", "2048"),
        ("backend: trl\nmax_length: 4096\n", None),
        ("backend: unsloth\nmax_seq_length: 128\nmax_length: null\n", None),
    ],
)
def test_unsloths_context_holds_the_rows(text, said, write_recipe):
    recipe = load_recipe(write_recipe("stage: sft\nmodel_name_or_path: a/b\ndataset_name: d\noutput_dir: o\n" + text))
    problems = broken_rules(recipe, [context_too_short])
    assert [problem.key for problem in problems] == ["max_seq_length"] * bool(said)
    assert not said or said in str(problems[0])


# --- recipes


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "recipes")))
def test_a_recipes_header_names_the_planned_peak_and_a_card_that_it_fits(path):
    text = path.read_text()
    card = re.search(r"Card: (\d+) GB", text)
    if card is None:
        recipe = load_recipe(path)
        assert recipe.get("use_cpu") or recipe.get("engine") == "server" or "tiny" in path.parts  # none has a card
        return
    recipes = load_recipes([path.parent])
    if recipes[0].get("backend") == "trl" and not fused_head("grpo"):
        pytest.skip("headers are planned with TRL's fused head")
    here = next(i for i, recipe in enumerate(recipes) if recipe.path == path)
    found, planned = report(recipes[here], card.group(1), recipes[:here]), PLANNED.search(text)
    assert planned, "the header has no line `# Planned:  X GiB at its peak, in PHASE`"
    assert f"memory: {planned.group(1)} GiB at its peak, in {planned.group(2)};" in found.lines()[0]
    assert found.fits
