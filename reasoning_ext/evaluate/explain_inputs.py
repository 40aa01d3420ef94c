"""What `explain --problems` looks at: the greedy completions of an evaluation's models, or a training's checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from reasoning_ext.data.lineage import run_recipe
from reasoning_ext.data.row_options import TEST, TRAIN, row_options
from reasoning_ext.data.rows import prepare
from reasoning_ext.data.sources import read_jsonl
from reasoning_ext.engines.base import SamplingSettings
from reasoning_ext.engines.opening import recipe_source, sampling_settings
from reasoning_ext.errors import UserError
from reasoning_ext.evaluate.ask import as_trained
from reasoning_ext.evaluate.explain import load_as_trained
from reasoning_ext.evaluate.interventions import Messages, read_thought
from reasoning_ext.models.adapter import is_adapter
from reasoning_ext.models.loaded import Loaded
from reasoning_ext.models.weights import check_weights
from reasoning_ext.recipe.benchmarks import lm_eval_task
from reasoning_ext.recipe.entries import asks_server, eval_models
from reasoning_ext.recipe.held_out import eval_problems, own_length
from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.checkpoints import COMPLETE, checkpoints
from reasoning_ext.runs.files import fast_hash, read_object
from reasoning_ext.runs.folder import ANSWERS, LINEAGE, damage, is_run, seed_runs, unfinished
from reasoning_ext.runs.outcomes import is_plain
from reasoning_ext.runs.read import GREEDY
from reasoning_ext.runs.traces import TURNS, with_turns
from reasoning_ext.shown import print
from reasoning_ext.tools.spec import has_tools, template_kwargs

END = "end"  # the label of a training's last weights, where no checkpoint has them


@dataclass(frozen=True)
class Subject:
    """One model of a run.

    Attributes:
        label: what the run calls it.
        opens: loads it.
        settings: how its completions are drawn.
        prompts: of the problems, by number.
        completions: of these, by number, which the run has stored; the others are drawn.
        weights: what tells them from other ones of that label, "" where the stored completions do.
    """

    label: str
    opens: Callable[[], Loaded]
    settings: SamplingSettings
    prompts: Mapping[int, Messages]
    completions: Mapping[int, str]
    weights: str = ""


def read_subjects(path: Path, problems: int) -> list[Subject]:
    """Return the models of a finished run, with its first problems.

    Raises:
        UserError: there is no such run, or nothing in it that could be looked at.
        KeyProblem: its data or a model's files cannot be read.
    """
    if seed_runs(path):
        raise UserError(f"explain: {damage(path, str(path))}")
    allowed = "allowed with --problems: the folder of a run of stage eval, sft, grpo or dpo"
    if not is_run(path):
        raise UserError(f"explain: found no run in {path}, {allowed}")
    recipe = run_recipe(path)
    if recipe.stage != "eval" and recipe.stage not in TRAINED:
        raise UserError(f"explain: found {path}, a run of stage {recipe.stage}, {allowed}")
    if problem := unfinished(path, str(path)):
        raise UserError(f"explain: {problem}")
    return _evaluated(path, recipe, problems) if recipe.stage == "eval" else _trained(path, recipe, problems)


def _evaluated(path: Path, recipe: Recipe, problems: int) -> list[Subject]:
    """Return the models of an evaluation, with their stored greedy completions of its first problems."""
    if asks_server(recipe):
        found = f"found {path}, whose models a server answers for, which tells no log-probabilities of a prompt"
        raise UserError(f"explain: {found}; evaluate them with engine: transformers or vllm")
    if lm_eval_task(recipe):
        raise UserError(f"explain: found {path}, which lm_eval judged, allowed: an evaluation with reward_funcs")
    stored: dict[str, dict[int, dict[str, Any]]] = {}
    for line in map(with_turns, read_jsonl(path / ANSWERS) if (path / ANSWERS).is_file() else []):
        if is_plain(line) and line.get("sample_index") == GREEDY and not line.get("error"):
            stored.setdefault(line["model"], {})[line["prompt_index"]] = line
    if not stored:
        raise UserError(f"explain: found no greedy completion in {path / ANSWERS}, allowed: a run that has some")
    first = sorted({number for lines in stored.values() for number in lines})[:problems]
    chosen = {label: [lines[n] for n in first if n in lines] for label, lines in stored.items()}
    acted = sum(TURNS in line for lines in chosen.values() for line in lines)
    told = {label: [line for line in lines if TURNS not in line] for label, lines in chosen.items()}
    if acted:
        print(f"explain  {acted} completions that call tools are left out")
    if not any(read_thought(line["completion"]) for lines in told.values() for line in lines):
        where = f"the first {len(first)} problems of {path}"
        raise UserError(f"explain: found no thought with an answer behind it in {where}, allowed: models that think")
    settings, models = sampling_settings(recipe), eval_models(recipe)
    subjects = []
    for label, lines in told.items():
        opens = _opens_evaluated(path, recipe, label, models.get(label))
        prompts, completions = ({one["prompt_index"]: one[key] for one in lines} for key in ("prompt", "completion"))
        subjects.append(Subject(label, opens, settings, prompts, completions))
    return subjects


def _opens_evaluated(path: Path, recipe: Recipe, label: str, name: str | None) -> Callable[[], Loaded]:
    """Return what loads a model of an evaluation; a UserError where its folder is gone."""
    known = read_object(path / LINEAGE).get("inputs")
    noted = str(known.get(f"model {label}", "")) if isinstance(known, dict) else ""
    if name is None or not (noted.startswith("name:") or Path(recipe.local(name)).is_dir()):
        raise UserError(f"explain: found no folder {name or ''} of the model {label}; put it back, or evaluate anew")
    scratch = bool(recipe.get("from_scratch") and not is_adapter(recipe.local(name)))
    check_weights(recipe.local(name), bool(recipe.get("trust_remote_code")), from_scratch=scratch)
    return lambda: recipe_source(recipe, name, from_scratch=scratch).load()


def _trained(path: Path, recipe: Recipe, problems: int) -> list[Subject]:
    """Return the checkpoints of a training and its end, with its held-out problems, or those of its data."""
    places = {one.name: one for one in checkpoints(path) if (one / COMPLETE).is_file()}
    made = {label: _weights(place) for label, place in (places | {END: path}).items()}
    if made[END] in [*made.values()][:-1]:  # a checkpoint is the end
        del made[END]
    asked = eval_problems(recipe)
    if has_tools(recipe):
        print(f"explain  {path} may call tools, and is explained without them")
    rows = prepare(row_options(recipe), TEST if asked else TRAIN, look=problems).rows
    prompts: dict[int, Messages] = dict(enumerate(row["prompt"] for row in islice(rows, problems)))
    print(f"explain  {len(prompts)} problems, {'held out' if asked else 'the first of its data'}")
    kwargs = {name: value for name, value in template_kwargs(recipe).items() if name != "tools"}
    length = (asked and asked.max_completion_length) or own_length(recipe)
    drawn = sampling_settings(recipe) if recipe.stage == "grpo" else SamplingSettings(512)
    settings = replace(
        drawn,
        max_completion_length=length or drawn.max_completion_length,
        generation_kwargs={},
        chat_template_kwargs=kwargs,
    )
    subjects = []
    for label, weights in made.items():
        place = places.get(label, path)
        check_weights(str(place), bool(recipe.get("trust_remote_code")))
        subjects.append(Subject(label, partial(_open, str(place)), settings, prompts, {}, weights))
    return subjects


def _open(place: str) -> Loaded:
    _, options, recipe = as_trained(place, 0)
    return load_as_trained(place, options, recipe)


def _weights(place: Path) -> str:
    """Identify the weights in a folder by their content; a UserError where there are none."""
    files = sorted(place.glob("*.safetensors"))
    if not files:
        raise UserError(f"explain: found no weights in {place}; put them back, or remove the folder")
    return " ".join(fast_hash(file) for file in files)
