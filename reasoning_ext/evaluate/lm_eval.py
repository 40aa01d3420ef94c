"""`benchmark: lm_eval:TASK`: a task of lm-evaluation-harness (EleutherAI/lm-evaluation-harness) on the recipe's models.

The harness is called in this process with the model as an engine loads it, so that adapters, quantization, chat
template and what ends a turn are the recipe's. Rows, prompt, sampling and judge are the task's; `system_prompt`,
`max_samples`, `chat_template_kwargs` and a written `max_completion_length` are handed on. The harness cuts thoughts off
at the contract's closing tag, and judges one that was never closed as it stands. The intervals are ours.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from reasoning_ext.data.columns import DataError
from reasoning_ext.data.sources import read_jsonl
from reasoning_ext.engines.transformers import stop_ids
from reasoning_ext.errors import one_line
from reasoning_ext.evaluate.table import log_model, print_table
from reasoning_ext.models.adapter import is_adapter
from reasoning_ext.models.source import ModelSource, model_source
from reasoning_ext.recipe.benchmarks import lm_eval_task
from reasoning_ext.recipe.entries import eval_models
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.files import read_object, write_whole
from reasoning_ext.runs.folder import ANSWERS, RESULTS, RunDir
from reasoning_ext.runs.read import GREEDY
from reasoning_ext.runs.tracking import tracked
from reasoning_ext.scoring.metrics import interval
from reasoning_ext.shown import print

# the harness's extra, whose pin of antlr4-python3-runtime is not the one that math-verify is used with here
MATH = "math"


def run_lm_eval(recipe: Recipe, run: RunDir) -> int:
    """Evaluate the models of a recipe that `eval.json` does not have yet on its task, and print the table.

    Raises:
        DataError: there is no such task, or its rows or packages cannot be had.
        ModelError, TokenizerError, ContractError: a model cannot be had.
    """
    from lm_eval.tasks import TaskManager

    task, path, manager = lm_eval_task(recipe), run.path / RESULTS, TaskManager()
    _refuse_unknown(task, manager.all_tasks)
    with _refusals(task):  # before any weights are loaded
        manager.load([task])
    results, kept = read_object(path), run.path / ANSWERS
    lines = [line for line in (read_jsonl(kept) if kept.is_file() else []) if line["model"] in results]
    with tracked(recipe, run.path) as tracking:
        for label, name in eval_models(recipe).items():
            if label not in results:
                scratch = recipe.get("from_scratch") and not is_adapter(recipe.local(name))
                source = model_source(recipe.values, recipe.local, False, name, from_scratch=scratch)
                given = recipe.values.get("max_completion_length"), recipe.get("max_samples")
                how = Asked(recipe.get("system_prompt"), given[0], recipe.get("chat_template_kwargs"), given[1])
                found, samples = _evaluated(source, task, manager, how)
                results[label] = figures(found, samples)
                if drawn := answers(samples):
                    lines += [{"model": label, **line} for line in drawn]
                    write_whole(kept, "".join(json.dumps(line) + "\n" for line in lines))
                write_whole(path, json.dumps(results, indent=1))
            log_model(tracking, label, results[label], lines)
    print_table(results)
    print(f"measured by lm-evaluation-harness, task {task}, without a look at what the models were trained on")
    return 0


def _refuse_unknown(task: str, known: Iterable[str]) -> None:
    """Refuse a name that is no task of the harness, and no YAML file of one."""
    if Path(task).is_file() or task in known:
        return
    near = difflib.get_close_matches(task, [*known], 1, cutoff=0.0)
    problem = f"found {task}, which is no task of lm-evaluation-harness and no YAML file of one"
    raise DataError("benchmark", problem, hint=f"the nearest is lm_eval:{near[0]}" if near else "")


class Asked(NamedTuple):
    """How the harness asks: None is its own way, and all problems."""

    system_prompt: str | None
    max_tokens: int | None
    chat_template_kwargs: dict[str, Any] | None
    problems: int | None


def samples_of(source: ModelSource, task: str, how: Asked) -> dict[str, Any]:
    """Return the harness's samples of a model by task; raises as `run_lm_eval`."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    _refuse_unknown(task, manager.all_tasks)
    with _refusals(task):
        manager.load([task])
    return _evaluated(source, task, manager, how)[1]


def _evaluated(source: ModelSource, task: str, manager: Any, how: Asked) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the harness's results and samples of a model, both by task: of a group there are several."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    loaded = source.load()
    model, tokenizer, contract = loaded.model, loaded.tokenizer, loaded.contract
    model.generation_config.eos_token_id = stop_ids(model, tokenizer, contract)
    closes = contract.close.strip()  # decoding drops it where it is a special token: then the harness wants its id
    asked = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=source.batch_size,
        think_end_token=tokenizer.convert_tokens_to_ids(closes) if contract.special else closes,
        chat_template_args=how.chat_template_kwargs,
    )
    with _refusals(task):
        found = simple_evaluate(
            model=asked,
            tasks=[task],
            task_manager=manager,
            limit=how.problems,
            system_instruction=how.system_prompt,
            apply_chat_template=bool(tokenizer.chat_template),
            gen_kwargs={"max_gen_toks": how.max_tokens} if how.max_tokens else None,
            bootstrap_iters=0,  # the intervals are ours
        )
    return found["results"], found["samples"]


@contextmanager
def _refusals(task: str) -> Iterator[None]:
    """Say in one line what the harness refuses: its tasks ask for rows, packages and lengths that nobody foresees."""
    try:
        yield
    except (ImportError, OSError, LookupError, ValueError, TypeError, AssertionError) as error:
        problem = f"lm-evaluation-harness refused {task}: {one_line(error)}"
        raise DataError("benchmark", problem, hint=_hint(error)) from error


def _hint(error: BaseException) -> str:
    """Say what may help: of the harness's extras, `math` wants an older antlr4 than math-verify has here."""
    said = str(error).lower()
    if "antlr" in said or f"[{MATH}]" in said:
        wants = "its extra [math] wants antlr4-python3-runtime 4.11, and math-verify has 4.13 here"
        return f"{wants}; for MATH write benchmark: math500"
    away = isinstance(error, OSError) or "offline" in said or "connect" in said
    return "its rows are on the hub; a YAML file of a task may name files, dataset_path: json" if away else ""


def figures(results: dict[str, dict[str, Any]], samples: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return a model's figures from what the harness found, by its names: `exact_match flexible-extract` for example.

    Args:
        results: `{task: {"metric,filter": value}}`, of groups too.
        samples: `{task: [a line for each problem and filter]}`; a metric that they have as a share gets an interval.
    """
    made: dict[str, Any] = {"problems": sum(len({row["doc_id"] for row in rows}) for rows in samples.values())}
    for task, found in results.items():
        for name, value in found.items():
            metric, comma, kind = name.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            parts = (task if len(results) > 1 else "", metric, "" if kind == "none" else kind)
            shares = [row.get(metric) for row in samples.get(task, ()) if row["filter"] == kind]
            share = _share(shares)  # of a task whose figure is their maximum, for example, it is another thing
            mean = share is not None and math.isclose(share[0], value, abs_tol=1e-3)
            made[" ".join(filter(None, parts))] = share if mean else round(value, 4)
    return made


def answers(samples: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return lines of `answers.jsonl`, one a problem whose answer is one text; log-probabilities of options leave none.

    The metrics are their rewards, those of the first filter first. The texts are without thoughts, which the harness
    has cut off.
    """
    lines: dict[tuple[str, int], dict[str, Any]] = {}
    problems = dict.fromkeys((task, row["doc_id"]) for task, rows in samples.items() for row in rows)
    numbers = {key: number for number, key in enumerate(problems)}
    for task, rows in samples.items():
        for row in rows:
            [texts, *others] = row["resps"]
            if others or len(texts) != 1 or not isinstance(texts[0], str):
                continue
            key, (prompt, asked) = (task, row["doc_id"]), row["arguments"][0][:2]
            line: dict[str, Any] = {"prompt_index": numbers[key], "prompt": prompt, "answer": str(row["target"])}
            line |= {"sample_index": 0 if asked.get("do_sample") else GREEDY, "completion": texts[0], "rewards": {}}
            kind = "" if row["filter"] == "none" else f" {row['filter']}"
            scores = {name: row[name] for name in row["metrics"] if isinstance(row[name], int | float)}
            lines.setdefault(key, line)["rewards"] |= {f"{name}{kind}": float(value) for name, value in scores.items()}
    return [*lines.values()]


def _share(values: list[Any]) -> list[float] | None:
    """Return mean and interval of values between 0 and 1, or None where they are something else."""
    numbers = [float(value) for value in values if isinstance(value, int | float) and 0 <= value <= 1]
    return interval(numbers) if numbers and len(numbers) == len(values) else None
