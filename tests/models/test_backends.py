"""Both backends for real on the CPU: an adapter from SFT into GRPO both ways, saved and loaded again; refusals; devices.

`backend_chain.py` runs the stages, once a backend and a kind of weights; the tests look at what it saw.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY

from reasoning_ext.models.devices import Choice, Device, choose

CHAIN = Path(__file__).parents[1] / "backend_chain.py"
unsloth = pytest.mark.unsloth
KINDS = [
    pytest.param(("trl", "4"), marks=pytest.mark.slow, id="trl-4"),
    pytest.param(("trl", "8"), marks=pytest.mark.slow, id="trl-8"),
    pytest.param(("trl", "16"), marks=pytest.mark.slow, id="trl-16"),
    pytest.param(("trl", "32"), marks=pytest.mark.slow, id="trl-32"),
    pytest.param(("unsloth", "4"), marks=unsloth, id="unsloth-4"),
    pytest.param(("unsloth", "16"), marks=unsloth, id="unsloth-16"),
    pytest.param(("trl", "4"), marks=unsloth, id="trl-4-beside-unsloth"),
]


def write_rows(folder):
    rows = [{"prompt": f"{a}+1", "completion": f"<think>{a} and 1</think>{a + 1}", "answer": str(a)} for a in range(16)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def chain(folder, backend, bits):
    write_rows(folder)
    command = [sys.executable, str(CHAIN), backend, bits, str(folder)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=900, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


@pytest.fixture(scope="module", params=KINDS)
def facts(request, tmp_path_factory):
    """What `backend_chain.py` saw with one backend and kind of weights."""
    done = chain(tmp_path_factory.mktemp("chain"), *request.param)
    assert "FACTS" in done.stdout, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.partition("FACTS")[2])


def test_a_saved_model_gives_the_logits_it_had(facts):
    """No tolerance: the same weights in the same dtype on the same kernels give the same numbers."""
    for name in ("sft", "further", "merged"):
        assert facts[name]["reloaded_off"] == 0.0, name
        assert facts[name]["scale"] > 1 and facts[name]["pad"]


def test_the_weights_are_in_the_bits_that_were_asked_for_and_the_base_is_on_the_disk(facts):
    layers = {"4": ["Linear4bit"], "8": ["Linear8bitLt"]}.get(facts["bits"], [])
    for name, base in (("sft", "base"), ("further", "base"), ("merged", "merged/merged_base")):
        assert facts[name]["layers"] == layers
        assert facts[name]["base"] == base
        assert not facts[name]["checkpointing"]  # left out, on the CPU


def test_grpo_begins_at_the_sft_model_and_its_reference_is_that_without_a_second_copy(facts):
    for name in ("further", "merged"):
        own = facts[name]
        assert own["ref_model"] and own["kl"][0] == 0.0 and own["kl"][1] > 1e-3
        assert own["reference_off"] == 0.0
    assert facts["further"]["start_off_sft"] == 0.0
    assert (
        facts["further"]["without_adapter_off_sft"] > 0.1
    )  # SFT has moved the model: the base would be another reference
    for what in ("base_tensors", "base_numel"):
        assert facts["further"][what] == facts["merged"][what] == facts["sft"][what]
    # In float32 only the order of additions differs; bfloat16 rounds the sum (2^-8 of a logit of 3); NF4 and int8 quantise anew.
    tolerance = {"32": 1e-5, "16": 0.05, "8": 0.05, "4": 0.4}[facts["bits"]]
    assert facts["merged"]["start_off_sft"] <= tolerance
    assert facts["merged"]["without_adapter_off_sft"] == facts["merged"]["start_off_sft"]


@unsloth
def test_bits_that_unsloth_does_not_have_on_this_machine_are_refused(tmp_path):
    """Its CPU backend has no 8-bit weights and takes 16-bit ones after a printed line."""
    done = chain(tmp_path, "unsloth", "8")
    assert "load_in_8bit: found true, but unsloth" in done.stderr and "write backend: trl" in done.stderr


def recipe_errors(text, tmp_path):
    """Return the errors that `check` finds in a recipe, without running anything."""
    from reasoning_ext.check.keys import OF_KEYS, broken_rules
    from reasoning_ext.recipe.load import load_recipe

    needs = {"dataset_name": "a/b", "output_dir": "out"} | ({"reward_funcs": "[math_answer]"} if "grpo" in text else {})
    text += "".join(f"{key}: {value}\n" for key, value in needs.items() if key not in text)
    (tmp_path / "r.yaml").write_text(text)
    return [str(error).partition("r.yaml:")[2] for error in broken_rules(load_recipe(tmp_path / "r.yaml"), OF_KEYS)]


SFT = "stage: sft\nmodel_name_or_path: x/y\nuse_peft: true\noutput_dir: out\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("use_dora: true", "write false, which it does by itself"),
        ("bnb_4bit_quant_type: fp4", 'write "nf4", which it does by itself'),
        ("attn_implementation: eager", "leave it out"),
        ("lora_task_type: SEQ_CLS", 'write "CAUSAL_LM"'),
        ("bnb_4bit_quant_storage: uint8", "leave it out"),
    ],
)
def test_what_unsloth_cannot_take_is_refused_by_name(line, said, tmp_path):
    line += "\nload_in_4bit: true"
    [error] = recipe_errors(SFT + f"backend: unsloth\n{line}\n", tmp_path)
    assert error.startswith(f"6: {line.partition(':')[0]}") and said in error
    assert not recipe_errors(SFT + line + "\n", tmp_path)


def test_what_unsloth_does_by_itself_is_taken(tmp_path):
    fine = (
        "backend: unsloth\nload_in_4bit: true\nbnb_4bit_quant_type: nf4\nuse_bnb_nested_quant: true\nuse_rslora: true\n"
        "use_dora: false\nlora_task_type: CAUSAL_LM\nattn_implementation: null\nlora_r: 8\n"
        "unsloth_config: {unsloth_num_chunks: 4}\n"
    )
    assert recipe_errors(SFT + fine, tmp_path) == []
    assert len(recipe_errors(SFT + "unsloth_config: {unsloth_num_chunks: 4}\n", tmp_path)) == 1


def test_the_fields_of_unsloths_config_are_those_of_the_class_that_is_there(tmp_path):
    from dataclasses import make_dataclass

    from trl import SFTConfig

    from reasoning_ext.errors import UserError
    from reasoning_ext.recipe.load import load_recipe
    from reasoning_ext.recipe.trl_fields import SFT_CONFIG
    from reasoning_ext.train.common import build_config

    patched = make_dataclass("Patched", [("unsloth_num_chunks", int, -1)], bases=(SFTConfig,))
    (tmp_path / "r.yaml").write_text(
        SFT + "backend: unsloth\nuse_cpu: true\nunsloth_config:\n  unsloth_num_chunks: 4\n"
    )
    recipe = load_recipe(tmp_path / "r.yaml")
    assert build_config(patched, SFT_CONFIG, recipe).unsloth_num_chunks == 4
    with pytest.raises(UserError, match=r"r\.yaml:8: unsloth_config\.unsloth_num_chunks"):
        build_config(SFTConfig, SFT_CONFIG, recipe)


def test_unsloth_is_told_of_vllm_in_the_model_and_of_standby(tmp_path):
    from reasoning_ext.models.unsloth import starts_vllm, wants_standby
    from reasoning_ext.recipe.load import load_recipe

    def seen(lines):
        (tmp_path / "r.yaml").write_text("stage: grpo\nbackend: unsloth\n" + lines)
        recipe = load_recipe(tmp_path / "r.yaml")
        return starts_vllm(recipe), wants_standby(recipe)

    assert seen("vllm_enable_sleep_mode: true\n") == (False, False)
    assert seen("use_vllm: true\nvllm_mode: server\nvllm_enable_sleep_mode: true\n") == (False, False)
    assert seen("use_vllm: true\nvllm_mode: colocate\n") == (True, False)
    assert seen("use_vllm: true\nvllm_mode: colocate\nvllm_enable_sleep_mode: true\n") == (True, True)


ORDER = """
import atexit, sys
seen = []
def hook(event, arguments):
    if event == "import" and arguments[0] in ("unsloth", "trl", "transformers", "peft") and arguments[0] not in seen:
        seen.append(arguments[0])
sys.addaudithook(hook)
atexit.register(lambda: print("ORDER", *seen))
"""
CALL = """
from reasoning_ext.pipeline import run_recipes
from reasoning_ext.recipe.load import load_recipes
run_recipes(load_recipes(["r.yaml"]))
"""


@unsloth
@pytest.mark.parametrize(
    "command", [["-m", "reasoning_ext", "run", "r.yaml"], ["SCRIPT", "run", "r.yaml"], ["-c", CALL]], ids=["-m", "script", "call"]
)  # fmt: skip
def test_unsloth_is_imported_first_however_the_program_is_started(command, tmp_path):
    write_rows(tmp_path)
    (tmp_path / "sitecustomize.py").write_text(ORDER)
    (tmp_path / "r.yaml").write_text(
        f"stage: sft\nbackend: unsloth\nmodel_name_or_path: {TINY / 'model'}\nfrom_scratch: true\nload_in_4bit: true\n"
        "use_peft: true\nlora_target_modules: [all-linear]\ndataset_name: ./rows.jsonl\nmax_steps: 1\noutput_dir: out\n"
    )
    script = Path(sys.executable).with_name("reasoning-ext")
    command = [str(script), *command[1:]] if command[0] == "SCRIPT" else [sys.executable, *command]
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "ORDER unsloth transformers" in done.stdout
    adapter = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (
        adapter["base_model_name_or_path"] == "out/random_base" and (tmp_path / "out/random_base/config.json").is_file()
    )


BF16, OLD = Device("cuda", bf16=True, flash=True), Device("cuda", flash=True)
QLORA = {"use_peft": True, "load_in_4bit": True}


@pytest.mark.parametrize(
    ("device", "values", "frozen", "choice"),
    [
        (Device("cpu"), {}, False, Choice("float32", None, False)),
        (Device("cpu"), QLORA, True, Choice("float32", None, False)),
        (Device("cpu"), {"gradient_checkpointing": True, "dtype": "bfloat16"}, True, Choice("bfloat16", None, True)),
        (Device("mps"), QLORA, True, Choice("float32", None, True)),
        (BF16, {}, False, Choice("float32", None, True)),
        (BF16, QLORA, True, Choice("bfloat16", "flash_attention_2", True)),
        (BF16, QLORA | {"backend": "unsloth"}, True, Choice("bfloat16", None, True)),
        (BF16, QLORA | {"attn_implementation": "sdpa"}, True, Choice("bfloat16", "sdpa", True)),
        (BF16, QLORA | {"dtype": "float32"}, True, Choice("float32", None, True)),
        (BF16, {"dtype": "bfloat16"}, False, Choice("bfloat16", "flash_attention_2", True)),
        (Device("cuda", bf16=True), QLORA, True, Choice("bfloat16", None, True)),
        (OLD, QLORA, True, Choice("float16", None, True)),
        (Device("xpu", bf16=True), {"gradient_checkpointing": False}, True, Choice("bfloat16", None, False)),
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
    ("lines", "said"),
    [
        ("lora_r: 64", "lora_r: found 64, but the adapter ./adapter has r 32 and is trained further; leave it out, or"),
        ("lora_alpha: 32", "lora_alpha: found 32, but the adapter ./adapter has lora_alpha 64"),
        ("lora_target_modules: [q_proj]", "lora_target_modules: found ['q_proj'], but the adapter ./adapter has target_modules"),
        ("use_rslora: true", "use_rslora: found True, but the adapter ./adapter has use_rslora False"),
        ("lora_r: 32\nlora_alpha: 64\nlora_target_modules: [q_proj, v_proj]\nuse_dora: false", None),
        ("lora_target_modules: [all-linear]", None),
        ("lora_r: 64\nmerge_adapter: true", None),
        ("merge_adapter: true\nuse_peft: false", "merge_adapter: found true without use_peft: true"),
    ],
)  # fmt: skip
def test_a_new_adapters_settings_are_refused_where_one_is_trained_further(lines, said, adapter, tmp_path):
    text = "stage: grpo\nmodel_name_or_path: ./adapter\n" + ("" if "use_peft" in lines else "use_peft: true\n") + lines
    errors = recipe_errors(text + "\n", tmp_path)
    assert len(errors) == bool(said) and all(said in error for error in errors)


def test_merging_what_is_no_adapter_is_refused(tmp_path):
    from trl import ModelConfig

    from reasoning_ext.models.load import load_model
    from reasoning_ext.models.loaded import LoadOptions, ModelError

    [error] = recipe_errors(
        f"stage: sft\nmodel_name_or_path: {TINY / 'model'}\nuse_peft: true\nmerge_adapter: true\n", tmp_path
    )
    assert "model is no adapter; leave it out" in error
    with pytest.raises(ModelError, match="hub/name is no adapter"):
        load_model("hub/name", ModelConfig(), LoadOptions(run_folder=tmp_path, merge_adapter=True))


@pytest.mark.slow
def test_the_merged_base_is_made_once_and_anew_for_another_adapter(tmp_path, monkeypatch):
    """A run that goes on uses it again; what a refused run left of another adapter is not used."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from reasoning_ext.models import adapter as hand_over

    monkeypatch.chdir(tmp_path)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(TINY / "model"), dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(TINY / "model")
    model.save_pretrained("base")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained("base", dtype="auto"), LoraConfig(r=2))
    for scale in (1, 2):
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(parameter, 0.1 * scale)
        model.save_pretrained(f"adapter{scale}")
        tokenizer.save_pretrained(f"adapter{scale}")
    made = []
    for number in (1, 1, 2):
        place = hand_over.merged_base(f"adapter{number}", tmp_path / "run", None, False)
        weights = AutoModelForCausalLM.from_pretrained(place, dtype="auto")
        assert weights.dtype == torch.bfloat16
        made.append(
            (Path(place, "model.safetensors").stat().st_mtime_ns, weights.model.layers[0].self_attn.q_proj.weight)
        )
    assert made[0][0] == made[1][0] != made[2][0]
    assert not torch.equal(made[0][1], made[2][1])
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["merged_base"]  # nothing half made is left
    monkeypatch.setattr(hand_over.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 0}))
    with pytest.raises(ValueError, match="free some space"):
        hand_over.merged_base("adapter1", tmp_path / "other", None, False)
    assert not (tmp_path / "other" / "merged_base").exists()


def test_an_adapter_is_not_merged_into_quantised_weights(tmp_path, monkeypatch):
    from reasoning_ext.errors import KeyProblem
    from reasoning_ext.models import adapter as hand_over

    monkeypatch.chdir(tmp_path)
    quantised = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    for folder, file, values in (
        ("base-bnb-4bit", "config.json", json.loads((TINY / "model" / "config.json").read_text()) | quantised),
        ("adapter", "adapter_config.json", {"peft_type": "LORA", "r": 2, "base_model_name_or_path": "base-bnb-4bit"}),
    ):
        Path(folder).mkdir()
        Path(folder, file).write_text(json.dumps(values))
    with pytest.raises(KeyProblem, match="the adapter adapter on base-bnb-4bit, whose weights are quantised") as error:
        hand_over.merged_base("adapter", tmp_path / "run", None, False)
    assert error.value.key == "model_name_or_path" and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_base_that_was_cut_off_leaves_nothing_and_the_next_one_sweeps_up(tmp_path):
    from reasoning_ext.models import adapter as hand_over

    class Weights:
        def __init__(self, full):
            self.full = full

        def save_pretrained(self, folder):
            folder.mkdir(exist_ok=True)
            (folder / "model.safetensors").write_text("x")
            if self.full:
                raise OSError(28, "No space left on device")

    def left():
        return sorted(path.name for path in tmp_path.iterdir())

    with pytest.raises(OSError, match="No space left"):
        hand_over._made_once(tmp_path / "merged_base", {"a": 1}, lambda: (Weights(True), Weights(False)))
    assert left() == []
    for name in (".merged_base.part", ".merged_base.mine"):
        (tmp_path / name).mkdir()
    hand_over._made_once(tmp_path / "merged_base", {"a": 1}, lambda: (Weights(False), Weights(False)))
    assert left() == sorted([".merged_base.mine", "merged_base"])


def test_vllm_gets_room_for_the_largest_rank_of_an_adapter(adapter):
    from reasoning_ext.models.adapter import adapter_rank

    assert adapter_rank(str(adapter)) == 32
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"rank_pattern": {"q_proj": 128}}))
    assert adapter_rank(str(adapter)) == 128


def test_the_base_of_an_adapter_is_what_its_config_names(adapter):
    from reasoning_ext.errors import KeyProblem
    from reasoning_ext.models.adapter import adapter_base, base_of

    with pytest.raises(KeyProblem, match="names no base_model_name_or_path"):
        base_of(str(adapter))
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "hub/name"}))
    assert base_of(str(adapter)) == adapter_base(str(adapter)) == "hub/name"
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(adapter)}))
    with pytest.raises(ValueError, match="is an adapter itself"):
        adapter_base(str(adapter))


def test_a_models_chain_leads_over_recipes_that_are_yet_to_run(adapter, tmp_path, monkeypatch):
    from reasoning_ext.check.named_inputs import model_chain
    from reasoning_ext.recipe.load import load_recipe

    monkeypatch.chdir(tmp_path)
    (tmp_path / "1.yaml").write_text("stage: sft\nmodel_name_or_path: ./adapter\noutput_dir: first\n")
    (tmp_path / "2.yaml").write_text("stage: grpo\nmodel_name_or_path: first\noutput_dir: second\n")
    first, second = load_recipe(tmp_path / "1.yaml"), load_recipe(tmp_path / "2.yaml")
    config = json.loads((adapter / "adapter_config.json").read_text()) | {"base_model_name_or_path": "hub/name"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    earlier = {str(first.output_dir.resolve()): first}
    assert [maker for _, maker in model_chain(second, earlier)] == [first, None, None]
    assert model_chain(second, earlier)[-1] == ("hub/name", None)
    assert model_chain(second, {}) == [("first", None)]
    (tmp_path / "first").mkdir()
    assert model_chain(second, {}) == []


@pytest.mark.slow
def test_a_merged_adapter_of_an_earlier_recipe_is_checked_before_it_is_loaded(tmp_path, monkeypatch):
    """When the recipes are read there is no adapter yet."""
    from reasoning_ext.check.keys import OF_MODELS, broken_rules
    from reasoning_ext.recipe.load import load_recipe

    monkeypatch.chdir(tmp_path)
    text = "stage: grpo\nmodel_name_or_path: first\nuse_peft: true\nlora_r: 64\nuse_cpu: true\noutput_dir: out\n"
    assert recipe_errors(text, tmp_path) == []
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "adapter_config.json").write_text(json.dumps({"r": 32}))
    [problem] = broken_rules(load_recipe(tmp_path / "r.yaml"), OF_MODELS)
    assert (problem.code, problem.key) == ("unfit_adapter", "lora_r")


@pytest.mark.slow
def test_the_reference_of_a_whole_model_gets_the_revision_and_the_dtype():
    import torch

    from reasoning_ext.train.reference import reference_arguments

    def given(dtype, revision):
        shape = type("Shape", (), {"_attn_implementation": "sdpa"})
        return reference_arguments(type("Model", (), {"dtype": dtype, "config": shape}), revision)

    assert given(torch.float32, "main") == {} == given(torch.float32, None)
    assert given(torch.float32, "v2")["revision"] == "v2"
    assert given(torch.bfloat16, None) == {"dtype": "bfloat16", "attn_implementation": "sdpa"}
