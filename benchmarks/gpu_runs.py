"""One measured run: a recipe of the project's own, a few steps, in a process of its own, beside its plan.

`measure` writes the recipe and rows of exact lengths and starts `gpu_child.py`: a fresh CUDA context, Unsloth imported before
TRL, and no run out of memory spoils the next. The reward is a function that costs nothing, since only the card is measured.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import gpu_child
import yaml
from gpu_child import GENERATION, OPTIMIZER, OUT_OF_MEMORY, TRAINING
from gpu_models import make_rows, split_context

from reasoning_ext.check.memory.check import find_card
from reasoning_ext.check.memory.plan import plan
from reasoning_ext.check.memory.setup import setup_of
from reasoning_ext.errors import UserError
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.runs.folder import METRICS
from reasoning_ext.runs.process import versions

ROOT = Path(__file__).parents[1]
STEPS = 3
FITS, TOO_LARGE, FAILED = "fits", "out of memory", "failed"
DATA_KEYS = (
    "dataset_config", "dataset_format", "dataset_train_split", "dataset_test_split", "datasets", "rename_columns",
    "format_kwargs", "gen_kwargs", "system_prompt", "max_samples", "deduplicate", "decontaminate", "trace_filters",
    "chat_template_path", "chat_template_kwargs", "think_tags", "num_train_epochs", "from_scratch", "model_revision",
)  # fmt: skip
REWARD = '''\
def alternate(completions, **kwargs):
    """Reward every other completion, so that no group is without variance."""
    return [float(i % 2) for i in range(len(completions))]
'''


@dataclass
class Job:
    """What to measure.

    Attributes:
        recipe: the project's recipe that it is made from.
        stage: "sft" or "grpo".
        model: the folder of a model of `gpu_models.make_model`.
        backend: "trl" or "unsloth".
        context: tokens of a row, prompt and completion.
        completion: of them, those that are the completion; None: all but `gpu_models.PROMPT_TOKENS`.
        changes: further keys of the recipe, `{key: value}`.
        limit: bytes of the card that the process may use; None: all.
        steps: of the optimizer.
        vllm: let vLLM generate, inside the process.
    """

    recipe: str
    stage: str
    model: str
    backend: str
    context: int
    completion: int | None = None
    changes: dict = field(default_factory=dict)
    limit: int | None = None
    steps: int = STEPS
    vllm: bool = False


def recipe_values(job):
    """Return the values of a job's recipe: those of the project's, with model, rows and lengths of the job.

    Nothing ends a completion before its full length, and none is masked for being cut there.
    """
    prompt, completion = split_context(job.context, job.completion)
    values = {key: value for key, value in load_recipe(Path(job.recipe)).values.items() if key not in DATA_KEYS}
    values |= {
        "backend": job.backend, "model_name_or_path": job.model, "dataset_name": "./rows.jsonl", "output_dir": "run",
        "max_steps": job.steps, "logging_steps": 1, "save_strategy": "no",
        "report_to": "none",
    }  # fmt: skip
    values.pop("max_seq_length", None)
    values |= {"max_seq_length": job.context} if job.backend == "unsloth" else {}
    if job.stage == "sft":
        return values | {"max_length": job.context} | job.changes
    values |= {
        "reward_funcs": ["./alternate.py:alternate"], "max_prompt_length": prompt, "max_completion_length": completion,
        "mask_truncated_completions": False,
    }  # fmt: skip
    if job.vllm:
        values |= {"use_vllm": True, "vllm_mode": "colocate"}
        values["generation_kwargs"] = {"ignore_eos": True, "min_tokens": completion}
    else:
        values["generation_kwargs"] = {"min_new_tokens": completion}
    return values | job.changes


def write_job(job, folder):
    """Write a job's recipe, rows and reward into a folder.

    Returns:
        the loaded recipe; `batch_rows` says how many rows one of its steps takes.

    Raises:
        UserError: steps of the optimizer would differ, because some generate and some do not.
    """
    from transformers import AutoTokenizer

    folder = Path(folder)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe_values(job), sort_keys=False))
    (folder / "alternate.py").write_text(REWARD)
    recipe = load_recipe(folder / "recipe.yaml")
    prompts = job.steps * batch_rows(recipe)
    if job.stage == "grpo":
        _check_cycle(recipe)
        prompts = math.ceil(prompts / recipe.get("num_generations"))
    rows = make_rows(AutoTokenizer.from_pretrained(job.model), prompts, *split_context(job.context, job.completion))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return recipe


def _check_cycle(recipe):
    device, rows = recipe.get("per_device_train_batch_size"), recipe.get("generation_batch_size")
    batches = recipe.get("gradient_accumulation_steps")
    used = (recipe.get("steps_per_generation") or (rows // device if rows else batches)) * recipe.get("num_iterations")
    if batches % used:
        problem = f"found gradient_accumulation_steps={batches}, and completions for {used} batches; --set a multiple"
        raise UserError(f"{recipe.path.name}: {problem}")


def batch_rows(recipe):
    """Return how many rows of tokens one step of the optimizer takes."""
    return recipe.get("per_device_train_batch_size") * recipe.get("gradient_accumulation_steps")


def plan_of(recipe, job, card):
    """Return the plan of a job's recipe: `{"phases": {phase: {part: bytes}}, "peak": bytes, "peak phase", "needed": bytes}`.

    Args:
        recipe: what `write_job` made.
        job: the job.
        card: the card's memory in bytes, or None.
    """
    setup = setup_of(recipe, {}, longest=split_context(job.context, job.completion)[0])
    made = plan(replace(setup, padded=False), card)  # all rows are of full length
    return {"phases": made.shown(), "peak": made.peak, "peak phase": made.peak_phase, "needed": made.needed}


def measure(job, python=sys.executable, timeout=None):
    """Run a job in a process of its own and return its row of the results.

    Args:
        job: see `Job`.
        python: the interpreter of the environment that has the job's backend.
        timeout: seconds after which the run is stopped and counts as failed.
    """
    with tempfile.TemporaryDirectory(prefix="gpu-run-") as folder:
        recipe = write_job(job, folder)
        planned = plan_of(recipe, job, job.limit or (found.memory if (found := find_card()) else None))
        command = [python, gpu_child.__file__, folder]
        Path(folder, "job.json").write_text(json.dumps(asdict(job)))
        offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "UNSLOTH_DISABLE_STATISTICS"), "1")
        with Path(folder, "log").open("w+") as log:
            try:
                code = subprocess.run(
                    command, cwd=folder, env=os.environ | offline, stdout=log, stderr=log, timeout=timeout
                ).returncode
            except subprocess.TimeoutExpired:
                code = None
            log.seek(0)
            lines = [line.strip() for line in log if line.strip()]
        result = Path(folder, "result.json")
        measured = json.loads(result.read_text()) if result.is_file() else {}
        row = {
            **asdict(job), "recipe": Path(job.recipe).name, "model": Path(job.model).name, "rows a step": batch_rows(recipe),
            "rows at once": recipe.get("per_device_train_batch_size"), "plan": planned, **measured,
            "status": {0: FITS, OUT_OF_MEMORY: TOO_LARGE}.get(code, FAILED),
        }  # fmt: skip
        if row["status"] == FAILED:
            row["error"] = f"stopped after {timeout} s" if code is None else (lines or ["no output"])[-1][:300]
            row["log"] = lines[-30:]
        metrics = Path(folder, "run", METRICS)
        logged = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.is_file() else []
        row["speeds"] = speeds(job, row) if row.get("done") else {}
        row["compared"] = against_plan(row)
        row["invalid"] = why_invalid(job, row, logged) if row["status"] == FITS else None
        return row


def why_invalid(job, row, logged):
    """Say why a run that ended well does not measure what it should, or None.

    Args:
        job: what was asked for.
        row: with the child's `done` steps, each with the `tokens` that went through the model in SFT.
        logged: the lines of the run's metrics.jsonl.
    """
    if len(row["done"]) != job.steps:
        return f"{len(row['done'])} of {job.steps} steps were done"
    if job.stage == "sft":
        wanted, found = row["rows a step"] * job.context, {step["tokens"] for step in row["done"]}
        return None if found == {wanted} else f"{sorted(found)} tokens a step, wanted: {wanted}"
    wanted = split_context(job.context, job.completion)[1]
    key = "completions/min_length"
    found = {line[key] for line in logged if key in line}
    return None if found == {wanted} else f"shortest completions of {sorted(found)} tokens, wanted: {wanted}"


def speeds(job, row):
    """Return the medians of a run's steps beside the first, which warms up: seconds, and tokens a second.

    SFT counts all tokens, GRPO the generated ones (as `check` does for its hours), and both phases of GRPO apart.

    Returns:
        a mapping, empty where fewer than two steps were done.
    """
    steps = row["done"][1:]
    if not steps:
        return {}
    rows, (_, completion) = row["rows a step"], split_context(job.context, job.completion)
    tokens = rows * (job.context if job.stage == "sft" else completion)
    found = {"step seconds": statistics.median(step["seconds"] for step in steps)}
    found["tokens a second"] = tokens / found["step seconds"]
    if job.stage == "grpo":
        generating = statistics.median(step[GENERATION] for step in steps)
        training = statistics.median(step[TRAINING] + step[OPTIMIZER] for step in steps)
        found |= {
            "generation seconds": generating, "training seconds": training,
            "generated tokens a second": tokens / generating, "trained tokens a second": rows * job.context / training,
        }  # fmt: skip
    return found


def against_plan(row):
    """Put a run's plan beside what was measured.

    Returns:
        one mapping a phase, the whole last: `phase`, `planned`, `measured` (allocated) and `reserved` in bytes, `error`
        of the plan in per cent; None where there is nothing.
    """
    planned = {phase: sum(parts.values()) for phase, parts in row["plan"]["phases"].items()}
    peaks = {phase: peak for phase, peak in row.get("phases", {}).items() if peak}
    groups = {phase: [phase] for phase in (*planned, *row.get("phases", {}))}
    groups["training"] = [TRAINING, OPTIMIZER]
    groups = {phase: names for phase, names in groups.items() if phase not in (TRAINING, OPTIMIZER)}
    lines = [
        _line(phase, planned.get(phase), [peaks[n] for n in names if n in peaks]) for phase, names in groups.items()
    ]
    return [*lines, _line("peak", row["plan"]["peak"], list(peaks.values()))]


def _line(phase, planned, peaks):
    measured, reserved = (max((peak[kind] for peak in peaks), default=None) for kind in ("allocated", "reserved"))
    error = 100 * (planned / measured - 1) if planned and measured else None
    return {"phase": phase, "planned": planned, "measured": measured, "reserved": reserved, "error": error}


def header(command):
    """Return what every result file begins with: date, command line, card, its memory, driver, CUDA, versions.

    torch is asked in a process of its own, because a CUDA context here would take memory on the card.
    """
    asked = [
        sys.executable,
        "-c",
        "import json, torch; print(json.dumps([torch.cuda.is_available(), torch.version.cuda]))",
    ]
    seen, cuda = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    card = find_card() if seen else None
    driver = None
    if card:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    return {
        "date": time.strftime("%Y-%m-%d"), "command": command, "card": card.name if card else None,
        "card bytes": card.memory if card else None, "driver": driver, "cuda": cuda, "versions": versions(),
    }  # fmt: skip
