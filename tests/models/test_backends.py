"""Both backends for real on the CPU: an adapter from SFT into GRPO both ways, saved and loaded again; refusals; devices.

`backend_chain.py` runs the stages, once a backend; the tests look at what it saw.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY

from reasoning_ext.check.keys import OF_KEYS, OF_MODELS, broken_rules
from reasoning_ext.models.devices import Choice, Device, choose
from reasoning_ext.recipe.load import load_recipe

CHAIN = Path(__file__).parents[1] / "backend_chain.py"
unsloth = pytest.mark.unsloth
KINDS = [
    pytest.param(("trl", "4,8,16,32"), marks=pytest.mark.slow, id="trl"),
    pytest.param(("unsloth", "4,16"), marks=unsloth, id="unsloth"),
    pytest.param(("trl", "4"), marks=unsloth, id="trl-beside-unsloth"),
]


def chain(folder, backend, kinds):
    rows = [{"prompt": f"{a}+1", "completion": f"<think>{a} and 1</think>{a + 1}", "answer": str(a)} for a in range(16)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command, alone = [sys.executable, str(CHAIN), backend, kinds, str(folder)], {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=900, env=os.environ | alone)


@pytest.fixture(scope="module", params=KINDS)
def facts(request, tmp_path_factory):
    """What `backend_chain.py` saw with one backend, by the bits of the weights: `{bits: {stage: facts}}`."""
    done = chain(tmp_path_factory.mktemp("chain"), *request.param)
    assert "FACTS" in done.stdout, done.stdout[-2000:] + done.stderr[-4000:]
    seen = json.loads(done.stdout.partition("FACTS")[2])
    stages = ("sft", "further", "merged")
    return {bits: {stage: seen[f"{bits}/{stage}"] for stage in stages} for bits in request.param[1].split(",")}


def test_a_saved_model_gives_the_logits_it_had_on_a_base_that_is_on_the_disk(facts):
    """No tolerance: the same weights in the same dtype on the same kernels give the same numbers."""
    for bits, stages in facts.items():
        for name, own in stages.items():
            assert own["reloaded_off"] == 0.0 and own["scale"] > 1, (bits, name)
            assert own["named"] == (f"{bits}/merged/merged_base" if name == "merged" else "base")
            assert own["layers"] == {"4": ["Linear4bit"], "8": ["Linear8bitLt"]}.get(bits, [])
            assert not own["checkpointing"]  # left out, on the CPU


def test_grpo_begins_at_the_sft_model_and_its_reference_is_that_without_a_second_copy(facts):
    for bits, stages in facts.items():
        further, merged = stages["further"], stages["merged"]
        for own in (further, merged):
            assert own["ref_model"] and own["kl"][0] == own["reference_off"] == 0.0 and own["kl"][1] > 1e-3
            assert own["base"] == stages["sft"]["base"]
        assert further["start_off_sft"] == 0.0
        assert further["without_adapter_off_sft"] > 0.1  # SFT has moved the model: the base would be another reference
        # In float32 only the order of additions differs; bfloat16 rounds the sum (2^-8 of a logit of 3); NF4, int8 quantise anew.
        assert merged["start_off_sft"] <= {"32": 1e-5, "16": 0.05, "8": 0.05, "4": 0.4}[bits]
        assert merged["without_adapter_off_sft"] == merged["start_off_sft"]


@unsloth
def test_bits_that_unsloth_does_not_have_on_this_machine_are_refused(tmp_path):
    """Its CPU backend has no 8-bit weights and takes 16-bit ones after a printed line."""
    assert "load_in_8bit: found true, but unsloth" in chain(tmp_path, "unsloth", "8").stderr


def broken(text, tmp_path, rules=OF_KEYS):
    """Return `(code, line, key)` of what `check` finds in a recipe, without running anything."""
    needs = {"dataset_name": "a/b", "output_dir": "out"} | ({"reward_funcs": "[math_answer]"} if "grpo" in text else {})
    text += "".join(f"{key}: {value}\n" for key, value in needs.items() if key not in text)
    (tmp_path / "r.yaml").write_text(text)
    return [(one.code, one.line, one.key) for one in broken_rules(load_recipe(tmp_path / "r.yaml"), rules)]


SFT = "stage: sft\nmodel_name_or_path: x/y\nuse_peft: true\noutput_dir: out\n"


@pytest.mark.parametrize(
    "line", ["use_dora: true", "bnb_4bit_quant_type: fp4", "attn_implementation: eager", "lora_task_type: SEQ_CLS"]
)
def test_what_unsloth_cannot_take_is_refused_by_name(line, tmp_path):
    line += "\nload_in_4bit: true\n"
    assert broken(SFT + "backend: unsloth\n" + line, tmp_path) == [("unknown_to_unsloth", 6, line.partition(":")[0])]
    assert not broken(SFT + line, tmp_path)


def test_what_unsloth_does_by_itself_is_taken(tmp_path):
    own = "unsloth_config: {unsloth_num_chunks: 4}\n"
    fine = (
        "backend: unsloth\nload_in_4bit: true\nbnb_4bit_quant_type: nf4\nuse_bnb_nested_quant: true\nuse_rslora: true\n"
        "use_dora: false\nlora_task_type: CAUSAL_LM\nattn_implementation: null\nlora_r: 8\n"
    )
    assert broken(SFT + fine + own, tmp_path) == [] and len(broken(SFT + own, tmp_path)) == 1


def test_the_fields_of_unsloths_config_are_those_of_the_class_that_is_there(tmp_path):
    from dataclasses import make_dataclass

    from trl import SFTConfig

    from reasoning_ext.errors import KeyProblem
    from reasoning_ext.recipe.trl_fields import SFT_CONFIG
    from reasoning_ext.train.common import build_config

    patched = make_dataclass("Patched", [("unsloth_num_chunks", int, -1)], bases=(SFTConfig,))
    text = "backend: unsloth\nuse_cpu: true\nunsloth_config:\n  unsloth_num_chunks: 4\n"
    (tmp_path / "r.yaml").write_text(SFT + text)
    recipe = load_recipe(tmp_path / "r.yaml")
    assert build_config(patched, SFT_CONFIG, recipe).unsloth_num_chunks == 4
    with pytest.raises(KeyProblem) as error:
        build_config(SFTConfig, SFT_CONFIG, recipe)
    assert error.value.path == ("unsloth_config", "unsloth_num_chunks")


def test_unsloth_is_told_of_vllm_in_the_model_and_of_standby():
    from reasoning_ext.models.unsloth import starts_vllm, wants_standby

    sleep = {"vllm_enable_sleep_mode": True}
    for values, starts in (({}, False), ({"use_vllm": True, "vllm_mode": "server"}, False), ({"use_vllm": True}, True)):
        assert (starts_vllm(values), wants_standby(values | sleep), wants_standby(values)) == (starts, starts, False)


BF16, OLD = Device("cuda", bf16=True, flash=True), Device("cuda", flash=True)
QLORA = {"use_peft": True, "load_in_4bit": True}


@pytest.mark.parametrize(
    ("device", "values", "frozen", "choice"),
    [
        (Device("cpu"), {}, False, Choice("float32", None, False, None)),
        (Device("cpu"), QLORA, True, Choice("float32", None, False, None)),
        (
            Device("cpu"),
            {"gradient_checkpointing": True, "dtype": "bfloat16"},
            True,
            Choice("bfloat16", None, True, None),
        ),
        (Device("cpu"), {"bf16": True}, False, Choice("float32", None, False, "bfloat16")),
        (Device("mps"), QLORA, True, Choice("float32", None, True, "bfloat16")),
        (BF16, {}, False, Choice("float32", None, True, "bfloat16")),
        (BF16, {"bf16": False}, False, Choice("float32", None, True, None)),
        (BF16, {"fp16": True}, False, Choice("float32", None, True, "float16")),
        (BF16, QLORA, True, Choice("bfloat16", "flash_attention_2", True, "bfloat16")),
        (BF16, QLORA | {"backend": "unsloth"}, True, Choice("bfloat16", None, True, "bfloat16")),
        (BF16, QLORA | {"attn_implementation": "sdpa"}, True, Choice("bfloat16", "sdpa", True, "bfloat16")),
        (BF16, QLORA | {"dtype": "float32"}, True, Choice("float32", None, True, "bfloat16")),
        (Device("cuda", bf16=True), QLORA, True, Choice("bfloat16", None, True, "bfloat16")),
        (OLD, QLORA, True, Choice("float16", None, True, "float16")),
        (OLD, {"bf16": True}, False, Choice("float32", None, True, "bfloat16")),
        (
            Device("xpu", bf16=True),
            {"gradient_checkpointing": False},
            True,
            Choice("bfloat16", None, False, "bfloat16"),
        ),
    ],
)
def test_the_device_decides_what_the_recipe_leaves_out(device, values, frozen, choice):
    assert choose(device, values, frozen) == choice


@pytest.fixture
def adapter(tmp_path):
    """A folder that looks like an adapter of rank 32."""
    config = {"r": 32, "lora_alpha": 64, "target_modules": ["v_proj", "q_proj"], "use_dora": False, "use_rslora": False}
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    ("lines", "keys"),
    [
        ("lora_r: 64\nlora_alpha: 32", ["lora_r", "lora_alpha"]),
        ("lora_target_modules: [q_proj]\nuse_rslora: true", ["lora_target_modules", "use_rslora"]),
        ("lora_r: 32\nlora_alpha: 64\nlora_target_modules: [q_proj, v_proj]\nuse_dora: false", []),
        ("lora_target_modules: [all-linear]", []),
        ("lora_r: 64\nmerge_adapter: true", []),
        ("merge_adapter: true\nuse_peft: false", ["merge_adapter"]),
        (f"model_name_or_path: {TINY / 'model'}\nmerge_adapter: true", ["merge_adapter"]),  # which is no adapter
        ("beta: 0.1\nuse_peft: false", ["beta"]),  # the reference would be the model below the adapter
        ("beta: 0.1", []),
    ],
)  # fmt: skip
def test_a_new_adapters_settings_are_refused_where_one_is_trained_further(lines, keys, adapter, tmp_path):
    """When the recipes are read there may be no adapter yet; the rules are asked again before it is loaded."""
    named = "" if "model_name" in lines else "model_name_or_path: ./adapter\n"
    text = f"stage: grpo\n{named}" + ("" if "use_peft" in lines else "use_peft: true\n") + lines + "\n"
    assert sorted(key for _, _, key in broken(text, tmp_path)) == sorted(keys)
    assert sorted(key for _, _, key in broken(text, tmp_path, OF_MODELS)) == sorted(keys)


def test_the_base_of_an_adapter_is_what_its_config_names_and_its_rank_the_largest(adapter):
    from reasoning_ext.errors import KeyProblem
    from reasoning_ext.models.adapter import adapter_base, adapter_rank, base_of

    def write(**values):
        config = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps(config | values))

    assert adapter_rank(str(adapter)) == 32
    with pytest.raises(KeyProblem, match="names no base_model_name_or_path"):
        base_of(str(adapter))
    write(base_model_name_or_path="hub/name", rank_pattern={"q_proj": 128})
    assert base_of(str(adapter)) == adapter_base(str(adapter)) == "hub/name" and adapter_rank(str(adapter)) == 128
    write(base_model_name_or_path=str(adapter))
    with pytest.raises(KeyProblem, match="is an adapter itself"):
        adapter_base(str(adapter))


def test_the_merged_base_is_made_once_and_anew_for_another_adapter(tmp_path, monkeypatch):
    """A run that goes on uses it again; what a refused run left of another adapter is not used."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from reasoning_ext.errors import KeyProblem
    from reasoning_ext.models import adapter as adapters

    def merge(number, run="run"):
        place = adapters.merged_base(f"adapter{number}", tmp_path / run, None, False)
        weights = AutoModelForCausalLM.from_pretrained(place, dtype="auto")
        assert weights.dtype == torch.bfloat16
        return Path(place, "model.safetensors").stat().st_mtime_ns, weights.model.layers[0].self_attn.q_proj.weight

    monkeypatch.chdir(tmp_path)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(TINY / "model"), dtype=torch.bfloat16).save_pretrained(
        "base"
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained("base", dtype="auto"), LoraConfig(r=2))
    for scale in (1, 2):
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(parameter, 0.1 * scale)
        model.save_pretrained(f"adapter{scale}")
        AutoTokenizer.from_pretrained(TINY / "model").save_pretrained(f"adapter{scale}")
    first, again, other = merge(1), merge(1), merge(2)
    assert first[0] == again[0] != other[0] and not torch.equal(first[1], other[1])
    monkeypatch.setattr(adapters.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 0}))
    with pytest.raises(ValueError, match="free some space"):
        merge(1, "other")
    config = json.loads(Path("base/config.json").read_text())
    quantised = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    Path("base/config.json").write_text(json.dumps(config | quantised))
    with pytest.raises(KeyProblem, match="the adapter adapter1 on base, whose weights are quantised"):
        merge(1, "third")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["merged_base"]  # nothing half made is left
    assert not list(tmp_path.glob("other/*")) and not (tmp_path / "third").exists()


def test_a_models_chain_leads_over_recipes_that_are_yet_to_run(adapter, tmp_path, monkeypatch):
    from reasoning_ext.check.named_inputs import model_chain

    monkeypatch.chdir(tmp_path)
    (tmp_path / "1.yaml").write_text("stage: sft\nmodel_name_or_path: ./adapter\noutput_dir: first\n")
    (tmp_path / "2.yaml").write_text("stage: grpo\nmodel_name_or_path: first\noutput_dir: second\n")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "hub/name"}))
    first, second = load_recipe(tmp_path / "1.yaml"), load_recipe(tmp_path / "2.yaml")
    found = model_chain(second, {str(first.output_dir.resolve()): first})
    assert [maker for _, maker in found] == [first, None, None] and found[-1] == ("hub/name", None)
    assert model_chain(second, {}) == [("first", None)]
    (tmp_path / "first").mkdir()
    assert model_chain(second, {}) == []
