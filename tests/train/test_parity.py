"""Engine parity: what agrees passes, and every planted fault is refused by the figure that it concerns."""

import json
import os
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY
from stand_in import choice, servers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GPT2Config

from reasoning_ext.check.keys import Checked
from reasoning_ext.check.parity import check_parity
from reasoning_ext.check.rows import Inspection
from reasoning_ext.check.show import check_and_print
from reasoning_ext.errors import KeyProblem
from reasoning_ext.models.loaded import LoadOptions
from reasoning_ext.models.source import ModelSource
from reasoning_ext.recipe.engine_options import VllmOptions
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.train import parity
from reasoning_ext.train.parity import choose_prompts, compare, compare_first, sides
from reasoning_ext.train.sides import Side, measure
from tests.stand_vllm import install

PROMPTS = [[{"role": "user", "content": text}] for text in ("7+9*9*3*9*3", "1", "8*7+2", "5*5+3*4")]
RECIPE = """\
stage: grpo
model_name_or_path: ./model
dataset_name: ./rows.jsonl
reward_funcs: [math_answer]
num_generations: 4
use_cpu: true
output_dir: out
"""
EVAL = """\
stage: eval
dataset_name: ./rows.jsonl
use_cpu: true
output_dir: out
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders: `model`, with weights so large that tokens differ in likelihood, and others, each with a fault."""
    made = tmp_path_factory.mktemp("models")
    config, tokenizer = (
        AutoConfig.from_pretrained(TINY / "model", initializer_range=0.2),
        AutoTokenizer.from_pretrained(TINY / "model"),
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(made / "model")
    config.rope_parameters = {**config.rope_parameters, "rope_theta": config.rope_parameters["rope_theta"] / 4}
    moved = AutoModelForCausalLM.from_config(config)
    moved.load_state_dict(model.state_dict())
    moved.save_pretrained(made / "positions")
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(1 + 0.01 * torch.randn_like(weights))
    model.save_pretrained(made / "weights")
    absolute = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=256, initializer_range=0.2
    )
    AutoModelForCausalLM.from_config(absolute).save_pretrained(made / "absolute")
    for one in made.iterdir():
        tokenizer.save_pretrained(one)
    template = (TINY / "model" / "chat_template.jinja").read_text()
    (made / "template.jinja").write_text(template.replace("role }}|>", "role }}|>="))
    return made


def source(path, trainable=True, values=None, **options):
    said = {"use_peft": False, "bf16": False} | (values or {})
    return ModelSource(str(path), said, LoadOptions(trainable=trainable, **options), use_cpu=True)


def held(reference, other, left=False):
    """Measure both sides here, and return the figures and the codes of what is refused, by the figure's limit."""
    theirs = measure(Side(other, left=left), PROMPTS)
    figures = compare("backend", measure(Side(reference, together=False), PROMPTS, theirs), theirs)
    problems = [error.problem for error in figures.problems()]
    assert {problem.code for problem in problems} <= {"engines_differ"}
    limits = figures.limits
    whose = {f"{limits.mean:.2g}": "mean", f"{limits.most:.2g}": "most", f"{limits.gradient:.2g}": "gradient or most"}
    return figures, {whose[problem.allowed] for problem in problems}


@pytest.mark.parametrize("left", [False, True])
def test_the_same_weights_pass_padded_on_either_side(folder, left):
    figures, refused = held(source(folder / "model"), source(folder / "model"), left)
    assert not refused and figures.text == 1 and figures.most < 1e-4 and figures.gradient < 1e-4
    assert figures.tokens > 100 and figures.precision == "float32" and figures.rows == len(PROMPTS)


@pytest.mark.parametrize("fault", ["weights", "positions", "template"])
def test_planted_faults_are_refused(folder, fault):
    path, options = folder / fault, {}
    if fault == "template":
        path, options = folder / "model", {"chat_template_path": str(folder / "template.jinja")}
    figures, refused = held(source(folder / "model"), source(path, **options))
    assert "mean" in refused and figures.mean > 2 * figures.limits.mean and figures.text < 1


def test_left_padding_that_moves_absolute_positions_is_found(folder):
    """TRL gives no position ids in GRPO, so that a padded prompt begins where its padding does."""
    assert not held(source(folder / "absolute"), source(folder / "absolute"))[1]
    assert "mean" in held(source(folder / "absolute"), source(folder / "absolute"), left=True)[1]


def test_a_gradient_alone_can_be_wrong_and_new_adapters_are_the_same_on_both_sides(folder):
    lora = {"use_peft": True, "lora_target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.5}
    figures, refused = held(source(folder / "model", values=lora), source(folder / "model", values=lora, seed=7))
    assert not refused and figures.gradient < 1e-4
    doubled = source(folder / "model", values=lora | {"lora_alpha": 64})
    figures, refused = held(source(folder / "model", values=lora), doubled)
    assert figures.gradient == pytest.approx(1, abs=1e-3) and figures.most < 1e-4 and len(refused) == 1


def test_what_is_not_trained_has_no_gradient_and_less_precise_sides_have_wider_limits(folder):
    whole, half = (source(folder / "model", False, {"dtype": kind}) for kind in ("float32", "bfloat16"))
    figures, refused = held(whole, half)
    assert figures.gradient is None and figures.precision == "bfloat16" and figures.mean > parity.LIMITS["float32"].mean
    assert not refused - {"most"}
    tie = replace(figures, mean=0.0, most=0.0, text=0.5, tie=0.4)
    assert (
        not [*tie.problems()]
        and [*replace(tie, precision="float32").problems()]
        and [*replace(tie, tie=0.6).problems()]
    )
    assert [error.problem.code for error in replace(tie, mean=float("nan")).problems()] == ["engines_differ"]


@pytest.mark.parametrize("fault", ["", "text", "early"])
def test_a_server_that_tells_texts_alone_is_compared_by_them(folder, here, write_recipe, tmp_path, fault):
    served = source(folder / ("positions" if fault == "text" else "model"), False)
    told, said = measure(Side(served, together=False), PROMPTS), {}
    for prompt, text, ended in zip(PROMPTS, told.texts, told.finished, strict=True):
        early = fault == "early"
        said[prompt[0]["content"]] = choice(text[:9] if early else text, "stop" if early or ended else "length")
    with servers() as start:
        url = start(lambda body, nth: said[body["messages"][-1]["content"]]).url
        lines = f"model_name_or_path: {folder / 'model'}\nengine: server\nengine_kwargs: {{base_url: {url}}}\n"
        figures = parity.compare_engines(load_recipe(write_recipe(EVAL + lines)), PROMPTS, None, tmp_path)
    assert (figures.key, figures.mean, figures.gradient, figures.tie > 1) == ("engine", None, None, bool(fault))
    assert len([*figures.problems()]) == bool(fault)


class Stand:
    """vLLM's LLM, over a model that transformers runs; `weights` is where that lies."""

    weights = ""

    def __init__(self, **arguments):
        self.model = AutoModelForCausalLM.from_pretrained(self.weights or arguments["model"]).eval()
        config, core = (
            types.SimpleNamespace(max_model_len=400, dtype=torch.float32),
            types.SimpleNamespace(shutdown=lambda: None),
        )
        self.llm_engine = types.SimpleNamespace(engine_core=core, model_config=config)

    @torch.no_grad()
    def generate(self, prompts, sampling_params, use_tqdm, lora_request):
        many = sampling_params if isinstance(sampling_params, list) else [sampling_params] * len(prompts)
        outputs = []
        for prompt, params in zip(prompts, many, strict=True):
            ids, told = torch.tensor([prompt["prompt_token_ids"]]), None
            if "prompt_logprobs" in params:
                rows = self.model(ids).logits[0].log_softmax(-1)
                told = [
                    {int(t): types.SimpleNamespace(logprob=float(row[t]))}
                    for row, t in zip(rows, ids[0, 1:], strict=False)
                ]
                told.insert(0, None)
            most, drawn = params["max_tokens"], params["temperature"] > 0
            torch.manual_seed(params.get("seed", 0))
            made = self.model.generate(
                ids, max_new_tokens=most, do_sample=drawn, eos_token_id=params.get("stop_token_ids")
            )
            made = made[0, ids.shape[1] :].tolist()
            end = made[-1] in params.get("stop_token_ids", [])
            one = types.SimpleNamespace(
                token_ids=made, finish_reason="stop" if end else "length", stop_reason=made[-1] if end else None
            )
            outputs.append(types.SimpleNamespace(outputs=[one], prompt_logprobs=told))
        return outputs


@pytest.mark.parametrize("weights", ["model", "weights", "positions"])
def test_vllm_answers_and_scores_the_tokens_that_it_drew(folder, monkeypatch, weights):
    install(monkeypatch, Stand, dict)
    monkeypatch.setattr(Stand, "weights", str(folder / weights))
    served = source(folder / "model", False)
    other = measure(Side(served, VllmOptions()), PROMPTS)
    figures = compare("use_vllm", measure(Side(served, together=False), PROMPTS, other), other)
    assert figures.tokens == sum(map(len, other.drawn)) > 50 and figures.gradient is None
    assert bool([*figures.problems()]) is (weights != "model")
    assert figures.most < 1e-4 if weights == "model" else figures.mean > 1e-3


def test_prompts_are_of_different_lengths_and_none_is_of_the_longer_half():
    assert [len(text) for text in choose_prompts(["a" * n for n in range(30, 0, -1)])] == [1, 5, 10, 15]
    assert choose_prompts(["ccc", "b"]) == ["b", "ccc"] and len(choose_prompts("abcde")) == parity.ROWS


@pytest.mark.parametrize(
    ("lines", "key", "engine"),
    [
        ("", "attn_implementation", "trl"),
        ("backend: unsloth\nload_in_4bit: true\nuse_peft: true", "backend", "unsloth"),
        ("use_vllm: true", "use_vllm", "vllm"),
        ("backend: unsloth\nuse_vllm: true\nuse_peft: true", "backend", "unsloth"),
    ],
)
def test_a_recipe_says_what_is_held_against_plain_transformers(write_recipe, tmp_path, lines, key, engine):
    recipe = load_recipe(write_recipe(RECIPE + lines))
    named, reference, other = sides(recipe, None, tmp_path)
    assert named == key and reference.source.options.backend == "trl" and not reference.together
    assert (other.vllm is not None, other.source.options.backend) == (
        (True, "trl") if engine == "vllm" else (False, engine)
    )
    assert other.source.options.trainable is (engine != "vllm") and not other.source.options.use_vllm
    if recipe.get("load_in_4bit"):  # quantised as Unsloth does it
        config = reference.source.config()
        assert config.use_bnb_nested_quant and config.bnb_4bit_quant_type == "nf4"


@pytest.fixture
def here(monkeypatch, folder):
    """Measure in this process, the other side with the weights of the folder that is set."""
    faults = [folder / "model"]

    def measured(side, prompts, other=None):
        name = side.source.name if other else str(faults[0])
        return measure(replace(side, source=replace(side.source, name=name)), prompts, other)

    monkeypatch.setattr(parity, "measure_apart", measured)
    return faults


@pytest.mark.parametrize("fault", ["model", "weights"])
def test_check_prints_the_figures_and_ends_with_2_where_they_are_beyond(
    folder, here, write_recipe, rows_file, tmp_path, fault, capsys
):
    (tmp_path / "model").symlink_to(folder / "model")
    here[0] = folder / fault
    recipe = load_recipe(write_recipe(RECIPE + "per_device_train_batch_size: 4\nbf16: false\n"))
    code = check_and_print([recipe], [], True, 0, True, parity=True)
    [document] = json.loads(capsys.readouterr().out)["recipes"]
    found = document["facts"]["parity"]
    assert found["rows"] == 4 and found["allowed"]["mean"] == parity.LIMITS["float32"].mean
    errors = [one for one in document["findings"] if one["level"] == "error"]
    assert code == (2 if errors else 0) and bool(errors) is (fault == "weights")
    assert {(one["code"], one["key"]) for one in errors} <= {("engines_differ", "attn_implementation")}


@pytest.mark.parametrize(
    ("lines", "rows", "why"),
    [
        ("use_vllm: true\nvllm_mode: server", 1, "vllm_mode: server"),
        ("", 0, "no rows"),
        ("", 1, "earlier recipe"),
    ],
)
def test_what_has_nothing_to_be_compared_with_says_so(write_recipe, tmp_path, lines, rows, why):
    made = str(tmp_path / "made")
    recipe = load_recipe(
        write_recipe(RECIPE.replace("./model", made if why == "earlier recipe" else "./model") + lines)
    )
    earlier = load_recipe(write_recipe(RECIPE.replace("output_dir: out", f"output_dir: {made}"), "0.yaml"))
    checked = Checked(recipe, inspection=Inspection(rows=[{"prompt": PROMPTS[0]}] * rows))
    check_parity(checked, [earlier])
    [told] = checked.problems
    assert (told.code, told.level) == ("not_compared", "note") and why in told.text


def test_before_the_first_step_unsloth_alone_is_compared_unless_the_recipe_says_no(
    write_recipe, monkeypatch, capsys, wording
):
    rows, asked = [{"prompt": PROMPTS[0]}] * 100, []
    bad = parity.Figures("backend", "bfloat16", 4, 200, 0.5, 2.0, 0.3, 2.5, 0.01)
    monkeypatch.setattr(
        parity, "compare_engines", lambda recipe, prompts, name, folder: asked.append(len(prompts)) or bad
    )
    for lines in ("", "use_vllm: true", "backend: unsloth\ncheck_parity: false"):
        compare_first(load_recipe(write_recipe(RECIPE + lines)), rows, Path())
    assert not asked
    with pytest.raises(KeyProblem) as error:
        compare_first(load_recipe(write_recipe(RECIPE + "backend: unsloth")), rows, Path())
    assert asked == [parity.LOOKED_AT] and error.value.problem.code == "engines_differ" and error.value.key == "backend"
    assert "0.3 on average" in capsys.readouterr().out
    wording([error.value, *bad.problems(), bad.line()])


UNSLOTH = f"""\
backend: unsloth
model_name_or_path: {TINY / "model"}
from_scratch: true
dataset_name: ./rows.jsonl
use_cpu: true
bf16: false
output_dir: out
"""
# The command line, where the side that is held against transformers has other random weights.
FAULTY = """
from dataclasses import replace
from reasoning_ext.cli import main
from reasoning_ext.train import parity

real = parity.sides

def faulty(*arguments):
    key, reference, other = real(*arguments)
    options = replace(other.source.options, seed=other.source.options.seed + 1)
    return key, reference, replace(other, source=replace(other.source, options=options))

parity.sides = faulty
main()
"""


@pytest.mark.unsloth
def test_unsloth_itself_agrees_with_transformers_on_4_bit_weights_with_lora(write_recipe, rows_file, cli):
    lines = "stage: sft\nuse_peft: true\nload_in_4bit: true\nlora_target_modules: [all-linear]\nmax_steps: 1\n"
    done = cli("check", write_recipe(UNSLOTH + lines), "--parity", "--json")
    assert done.code == 0, done.err[-3000:]
    found = json.loads(done.out)["recipes"][0]["facts"]["parity"]
    assert (found["key"], found["precision"], found["text"], found["rows"]) == ("backend", "float32", 1, 4)
    assert found["tokens"] > 100 and found["most"] < 1e-4 and 0 <= found["gradient"] < 5e-3


@pytest.mark.unsloth
def test_grpo_with_unsloth_is_refused_before_its_first_step_where_the_two_differ(write_recipe, rows_file, tmp_path):
    lines = "stage: grpo\nreward_funcs: [math_answer]\nnum_generations: 4\nper_device_train_batch_size: 8\n"
    write_recipe(UNSLOTH + lines + "max_completion_length: 8\nmax_steps: 1\nreport_to: none\n")
    command = [sys.executable, "-c", FAULTY, "run", "r.yaml"]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=alone)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: r.yaml:1: backend: found log-probabilities"), done.stderr[
        -3000:
    ]
    assert "check_parity: false" in last and "parity  unsloth against transformers" in done.stdout
    assert not [*(tmp_path / "out").glob("checkpoint-*")] and not (tmp_path / "out" / "DONE").exists()
