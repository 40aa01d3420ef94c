"""The GPU benchmarks: models and rows of exact sizes, phases, the search, and both scripts on a tiny shape, without a GPU."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import gpu_child
import gpu_memory
import gpu_models
import gpu_runs
import gpu_speed
from gpu_runs import FAILED, FITS, TOO_LARGE, Job

GIB = 2**30


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    gpu_models.make_model("tiny", folder, "cpu")
    return folder


def test_the_model_loads_whole_and_is_used_again(models, monkeypatch):
    import torch
    from transformers import AutoModelForCausalLM

    path = models / "tiny"
    model, loading = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    assert not any(loading.values()), loading
    assert model.dtype is torch.bfloat16 and model.generation_config.eos_token_id == 2
    for name, value in gpu_models.TINY_SHAPE.items():
        assert getattr(model.config, name) == value, name
    [weights] = path.glob("*.safetensors")
    before = weights.stat().st_mtime_ns
    assert gpu_models.make_model("tiny", models) == path and weights.stat().st_mtime_ns == before
    (path / gpu_models.MADE).write_text("of another config")
    monkeypatch.setattr(gpu_models, "SHARD_BYTES", 64 * 2**10)
    gpu_models.make_model("tiny", models, "cpu")
    assert len(list(path.glob("*.safetensors"))) > 2
    assert not any(AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)[1].values())


@pytest.mark.parametrize(
    ("context", "completion", "parts"), [(96, None, (24, 72)), (4096, None, (256, 3840)), (4096, 512, (3584, 512))]
)
def test_rows_have_exactly_the_tokens_that_are_asked_for(context, completion, parts):
    from reasoning_ext.data.tokens import tokenize
    from reasoning_ext.think.render import render_prompt, render_row
    from reasoning_ext.think.template import find_contract

    tokenizer = gpu_models.make_tokenizer(512)
    assert len(set(tokenizer.batch_decode([[i] for i in range(512)]))) == 512
    assert gpu_models.split_context(context, completion) == parts
    rows = gpu_models.make_rows(tokenizer, 3, *parts)
    assert len({row["prompt"] for row in rows}) == len({row["completion"] for row in rows}) == 3
    contract = find_contract(tokenizer, {}, None)
    for row in rows:
        turns = {"prompt": [{"role": "user", "content": row["prompt"]}]}
        turns["completion"] = [{"role": "assistant", "content": row["completion"]}]
        tokens = tokenize(tokenizer, render_row(tokenizer, contract, turns))
        assert (tokens.prompt, len(tokens.input_ids), tokens.exact) == (parts[0], context, True)
        prompt = render_prompt(tokenizer, contract, turns["prompt"], {})
        assert len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) == parts[0]
    with pytest.raises(ValueError):
        gpu_models.split_context(context, context)


def searched(limit, start=1024, longest=32768, step=1024, broken=()):
    asked = []

    def run(context):
        asked.append(context)
        return {"status": FAILED if context in broken else FITS if context <= limit else TOO_LARGE, "context": context}

    rows = gpu_memory.grow(run, start, longest, step)
    return asked, max((row["context"] for row in rows if row["status"] == FITS), default=0)


def test_the_search_finds_the_last_step_that_fits_and_asks_no_context_twice():
    assert searched(11_500) == ([1024, 2048, 4096, 8192, 16384, 12288, 10240, 11264], 11_264)
    assert searched(10**9, start=3000, longest=7000)[0] == [3000, 6000, 7000]
    assert searched(100) == ([1024], 0)
    assert searched(10**9, broken=(4096,)) == ([1024, 2048, 4096], 2048)
    for limit in range(900, 9000, 37):
        asked, found = searched(limit, longest=8192, step=64)
        assert len(asked) == len(set(asked)) and (found == 8192 or 0 <= limit - found < 64 or limit < 1024)


class Cuda:
    """The part of torch.cuda that `Phases` reads, with memory that a test sets."""

    def __init__(self):
        self.now = self.peak = 0

    def use(self, *sizes):
        for size in sizes:
            self.now = size
            self.peak = max(self.peak, size)

    def reset_peak_memory_stats(self):
        self.peak = self.now

    def synchronize(self):
        pass

    def max_memory_allocated(self):
        return self.peak

    def max_memory_reserved(self):
        return self.peak + 5

    def memory_reserved(self):
        return self.now + 5

    def mem_get_info(self):
        return 1000 - self.now - 5 - 40, 1000


def test_a_phase_has_its_own_peak_and_not_that_of_the_one_inside():
    phases = gpu_child.Phases()
    phases.cuda = cuda = Cuda()
    inner = phases.wrap("generation", lambda: cuda.use(500, 90))

    def step():
        cuda.use(100, 80)
        inner()
        cuda.use(200, 60)

    phases.enter("trainer")
    cuda.use(70)
    phases.wrap("forward and backward", step)()
    cuda.use(65)
    phases.leave()
    found = {phase: peak["allocated"] for phase, peak in phases.peaks.items()}
    assert found == {"trainer": 70, "forward and backward": 200, "generation": 500}
    assert phases.peaks["generation"]["reserved"] == 505 and phases.outside == 40
    assert set(phases.seconds) == set(found) and phases.broke is None and phases.current is None


def test_an_error_names_the_innermost_phase_and_whether_memory_was_out():
    import torch

    phases = gpu_child.Phases()
    inner = phases.wrap("generation", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        phases.wrap("forward and backward", inner)()
    assert phases.broke == "generation" and phases.current is None
    wrapped = ValueError("cannot load")
    wrapped.__cause__ = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert gpu_child.out_of_memory(wrapped)
    assert gpu_child.out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    assert not gpu_child.out_of_memory(RuntimeError("shapes cannot be multiplied"))


def test_what_does_not_measure_full_length_is_invalid():
    sft, grpo = (Job("r", stage, "m", "trl", 96, steps=2) for stage in ("sft", "grpo"))
    row = {"rows a step": 4, "done": [{"tokens": 384}, {"tokens": 384}]}
    assert gpu_runs.why_invalid(sft, row, []) is None
    assert "tokens a step" in gpu_runs.why_invalid(sft, row | {"done": [{"tokens": 384}, {"tokens": 380}]}, [])
    assert gpu_runs.why_invalid(sft, row | {"done": row["done"][1:]}, []) == "1 of 2 steps were done"
    logged = [{"completions/min_length": 72.0}, {"loss": 1.0}]
    assert gpu_runs.why_invalid(grpo, row, logged) is None
    assert "wanted: 72" in gpu_runs.why_invalid(grpo, row, [{"completions/min_length": 71.0}])
    assert "wanted: 72" in gpu_runs.why_invalid(grpo, row, [])


def made_row(backend="trl", status=FITS, seconds=2.0, **more):
    peaks = {"loading": 5, "forward and backward": 10, "optimizer step": 8, "generation": 4}
    done = [
        {"seconds": n * seconds, "generation": 1.0, "forward and backward": 0.4, "optimizer step": 0.1} for n in (9, 1)
    ]
    row = {
        "model": "m", "stage": "grpo", "backend": backend, "context": 96, "limit": 48 * GIB, "rows a step": 4,
        "rows at once": 2, "status": status, "invalid": None, "done": done, "outside torch": GIB,
        "plan": {"peak": 9 * GIB, "phases": {"training": {"weights": 8 * GIB, "logits": GIB}, "generation": {"all": 5 * GIB}}},
        "phases": {phase: {"allocated": n * GIB, "reserved": (n + 1) * GIB} for phase, n in peaks.items()}, **more,
    }  # fmt: skip
    job = Job("r", "grpo", "m", backend, 96)
    return row | {"speeds": gpu_runs.speeds(job, row), "compared": gpu_runs.against_plan(row)}


def test_the_plan_stands_beside_the_measurement():
    found = {line["phase"]: line for line in made_row()["compared"]}
    assert list(found) == ["training", "generation", "loading", "peak"]
    assert found["training"]["measured"] == 10 * GIB and found["training"]["error"] == pytest.approx(-10)
    assert found["generation"]["error"] == pytest.approx(25) and found["generation"]["reserved"] == 5 * GIB
    assert found["loading"]["planned"] is None and found["loading"]["error"] is None
    assert (found["peak"]["planned"], found["peak"]["measured"]) == (9 * GIB, 10 * GIB)
    shown = gpu_memory.table(made_row())
    assert "limit 48 GiB: fits, 2.00 s a step, 144 tokens/s" in shown
    assert ["training", "9.000", "10.000", "-10.0", "11.000"] in [line.split() for line in shown.splitlines()]


def test_both_backends_stand_side_by_side_without_their_first_steps():
    speeds = made_row()["speeds"]
    assert speeds["step seconds"] == 2.0 and speeds["tokens a second"] == 4 * 72 / 2
    assert speeds["generated tokens a second"] == 4 * 72 and speeds["trained tokens a second"] == 4 * 96 / 0.5
    broken = made_row("unsloth", FAILED, error="it broke") | {"stage": "sft"}
    lines = gpu_speed.comparison([made_row(), made_row("unsloth", seconds=1.0), broken]).splitlines()
    assert [line.split() for line in lines[1:3]] == [
        ["m", "grpo", "96", "trl", "2.00", "144", "288", "768", "1.00", "1,000", "10.00"],
        ["m", "grpo", "96", "unsloth", "1.00", "288", "288", "768", "2.00", "1,000", "10.00"],
    ]
    assert lines[3].split()[:4] == ["m", "sft", "96", "unsloth"] and lines[3].endswith("it broke")
    rows = [made_row(), made_row(context=192) | {"context": 192}, made_row(status=TOO_LARGE) | {"context": 384}]
    assert "grpo  trl: 192 tokens, 2.00 s a step, 144 tokens/s, peak 10.00 GiB" in gpu_memory.longest_lines(rows)
    assert "none" in gpu_memory.longest_lines([made_row(status=TOO_LARGE)])


def job_of(stage, models, **more):
    recipe = ROOT / "recipes" / "qwen3_8b" / {"sft": "1_sft.yaml", "grpo": "2_grpo.yaml"}[stage]
    return Job(str(recipe), stage, str(models / "tiny"), more.pop("backend", "trl"), 96, **more)


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_the_recipe_is_the_projects_with_the_jobs_lengths(stage, models, tmp_path):
    job = job_of(stage, models, changes={"lora_r": 4, "gradient_accumulation_steps": 4})
    recipe = gpu_runs.write_job(job, tmp_path)
    assert recipe.get("load_in_4bit") is True and recipe.get("lora_r") == 4 and recipe.get("max_steps") == 3
    rows = len((tmp_path / "rows.jsonl").read_text().splitlines())
    if stage == "sft":
        assert recipe.get("max_length") == 96 and rows == 3 * gpu_runs.batch_rows(recipe)
    else:
        assert (recipe.get("max_prompt_length"), recipe.get("max_completion_length")) == (24, 72)
        assert recipe.get("generation_kwargs") == {"min_new_tokens": 72}
        assert rows * recipe.get("num_generations") == 3 * gpu_runs.batch_rows(recipe)
    plan = gpu_runs.plan_of(recipe, job, 48 * GIB)
    assert plan["peak"] == max(sum(parts.values()) for parts in plan["phases"].values()) > 100_000


def test_steps_that_do_not_all_generate_are_refused(models, tmp_path):
    changes = {"per_device_train_batch_size": 2, "steps_per_generation": 4, "gradient_accumulation_steps": 2}
    with pytest.raises(ValueError, match="gradient_accumulation_steps=2, and completions for 4 batches"):
        gpu_runs.write_job(job_of("grpo", models, changes=changes), tmp_path)


@pytest.mark.parametrize("script", [gpu_memory, gpu_speed])
def test_a_script_measures_each_stage_of_the_recipes_and_writes_its_rows(script, models, tmp_path, monkeypatch, capsys):
    measured, output = [], tmp_path / "result.json"
    before = script.RESULT.read_bytes() if script.RESULT.is_file() else None

    def measure(job, python, timeout):
        measured.append(job)
        return made_row(context=job.context) | {"stage": job.stage, "context": job.context, "model": "tiny"}

    monkeypatch.setattr(script, "measure", measure)
    monkeypatch.setattr(gpu_memory, "subprocess", SimpleNamespace(run=lambda *_, **__: None))  # the model is there
    command = ["x", "--smoke", "--backends", "trl", "--made", str(models), "--completion", "48"]
    monkeypatch.setattr(sys, "argv", [*command, "--output", str(output)])
    assert script.main() == 0 and "tiny" in capsys.readouterr().out
    result = json.loads(output.read_text())
    assert {"date", "command", "card", "card bytes", "driver", "cuda", "versions"} <= set(result)
    assert [row["stage"] for row in result["rows"]] == [job.stage for job in measured] == ["sft", "grpo"]
    assert [(Path(job.recipe).name, job.completion) for job in measured] == [("1_sft.yaml", None), ("2_grpo.yaml", 48)]
    monkeypatch.setattr(sys, "argv", [*command, "--recipes", str(ROOT / "recipes" / "r1_mixture")])
    with pytest.raises(ValueError, match="no recipe of stage grpo"):
        script.main()
    assert (script.RESULT.read_bytes() if script.RESULT.is_file() else None) == before


SMALL = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["trl", pytest.param("unsloth", marks=pytest.mark.unsloth)])
def test_a_run_is_measured_to_its_end(backend, models):
    stage = "grpo" if backend == "trl" else "sft"
    changes = SMALL | ({"num_generations": 2, "steps_per_generation": 1} if stage == "grpo" else {})
    row = gpu_runs.measure(job_of(stage, models, backend=backend, changes=changes, steps=2))
    assert (row["status"], row["invalid"], len(row["done"])) == (FITS, None, 2), row.get("log")
    assert row["compared"][-1]["phase"] == "peak" and row["compared"][-1]["planned"] > 100_000
    assert row["compared"][-1]["measured"] is None, "there is no card, so nothing may be measured"
    assert row["speeds"]["tokens a second"] > 0
    assert {"trainer", "loading", "forward and backward", "optimizer step"} <= set(row["phases"])
    assert ("generation" in row["phases"]) == (stage == "grpo")


@pytest.mark.slow
def test_a_run_that_fails_says_why(models):
    row = gpu_runs.measure(job_of("sft", models, changes=SMALL | {"lora_target_modules": ["no_such_module"]}))
    assert row["status"] == FAILED and "no_such_module" in row["error"]
    assert row["phase of the error"] in ("trainer", "loading")


def test_the_machine_script_is_bash_and_names_exact_versions():
    script = str(ROOT / "benchmarks" / "prepare_gpu_machine.sh")
    for kind, pinned in (("trl", "trl==1.16.0"), ("unsloth", "trl==1.14.0")):
        done = subprocess.run(["bash", script, "--pins", kind], capture_output=True, text=True, check=True)
        pins = done.stdout.split()
        assert pinned in pins and "setuptools>=77" in pins
        assert not any(pin.startswith(("torch==", "nvidia")) for pin in pins)
    assert "unsloth==2026.10.9" in (ROOT / "Makefile").read_text() and "unsloth==2026.10.9" in pins
    empty = subprocess.run(["bash", script], capture_output=True, text=True)
    assert empty.returncode and "the folder of wheels" in empty.stderr
