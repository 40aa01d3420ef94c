"""What a recipe names, models, data, templates, formats: is it there and finished, and what is a run made of."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from reasoning_ext.data.format import FORMATS, find_format
from reasoning_ext.data.gym import is_gym
from reasoning_ext.data.sources import find_generator, is_generator, is_sampled, local_source
from reasoning_ext.errors import KeyProblem, Problem, UserError
from reasoning_ext.evaluate.strategies import parse_strategies, scorers_of
from reasoning_ext.models.adapter import ADAPTER, MERGED, RANDOM, base_of, is_adapter
from reasoning_ext.models.weights import CONFIGS, json_problem
from reasoning_ext.recipe.benchmarks import lm_eval_task
from reasoning_ext.recipe.entries import asks_server, entries, eval_models, listed_models
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.plugins import code_file
from reasoning_ext.recipe.user_code import no_code
from reasoning_ext.runs.checkpoints import COMPLETE
from reasoning_ext.runs.files import read_object
from reasoning_ext.runs.folder import SCORER, SHOTS, damage, is_run, unfinished
from reasoning_ext.scoring.spec import HOMES, RewardSpec
from reasoning_ext.tools.spec import HOMES as TOOL_HOMES
from reasoning_ext.tools.spec import has_tools, parse_environment, parse_tools

Problems = Iterator[Problem]


def _data(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return what is said of each data set, and of those that must not be trained on, by what a lineage calls them."""
    found, mixed = {}, recipe.values.get("datasets") is not None
    with contextlib.suppress(UserError):  # which is said elsewhere
        found = {f"dataset{f' {i + 1}' * mixed}": entry.values for i, entry in enumerate(entries(recipe))}
    for i, one in enumerate(recipe.values.get("decontaminate") or []):
        found[f"decontaminate {i + 1}"] = one if isinstance(one, dict) else {"dataset_name": one}
    return found


def input_sources(recipe: Recipe, specs: list[RewardSpec]) -> dict[str, str]:
    """Return everything a run is made of, `{what: path or name}`, for its lineage."""
    sources = {}
    if recipe.values.get("model_name_or_path"):
        sources["model"] = recipe.local(recipe.values["model_name_or_path"])
    sources |= {f"model {label}": recipe.local(name) for label, name in eval_models(recipe).items()}
    data = _data(recipe)
    if task := lm_eval_task(recipe):  # which reads its rows itself
        data, sources["benchmark"] = {}, task
        sources |= {f"rows of the benchmark {i}": file for i, file in enumerate(_task_files(task), 1)}
    for what, values in data.items():
        name, form = values["dataset_name"], values.get("dataset_format")
        sources[what] = str(find_generator(name, recipe.folder).file) if is_generator(name) else recipe.local(name)
        if form:
            own = what.replace("dataset", "format").replace("decontaminate", "decontaminate format")
            sources[own] = str(find_format(form, recipe.folder).file)
    if recipe.values.get("chat_template_path"):
        sources["chat template"] = recipe.local(recipe.values["chat_template_path"])
    for one in parse_strategies(recipe, specs) if "strategies" in recipe.keys else ():
        if one.scorer and (one.scorer.spec or one.scorer.model):
            file = one.scorer.spec.plugin.file if one.scorer.spec else one.scorer.model
            sources[SCORER + one.scorer.name] = str(file)
        if one.examples:
            sources[SHOTS + one.options.examples] = one.examples
    sources |= _called(recipe) if has_tools(recipe) else {}
    return sources | {f"reward {spec.name}": str(spec.plugin.file) for spec in specs}


def _called(recipe: Recipe) -> dict[str, str]:
    """Return the files of what a model may call, and those that its options name."""
    found: dict[str, str] = {}
    environment = parse_environment(recipe)
    listed = [(f"tool {spec.name}", spec.plugin.file, spec.options) for spec in parse_tools(recipe)]
    listed += [(f"environment {environment.name}", environment.file, environment.options)] if environment else []
    for what, file, options in listed:
        found[what] = str(file)
        paths = {name: Path(recipe.folder, value) for name, value in options.items() if isinstance(value, str)}
        found |= {f"{what} {name}": str(path) for name, path in paths.items() if path.exists()}
    return found


def _task_files(task: str) -> list[str]:
    """Return the files of rows that a YAML task of lm-evaluation-harness names; none of a task of its own."""
    with contextlib.suppress(OSError, ValueError, AttributeError, yaml.YAMLError):
        values = yaml.BaseLoader(Path(task).read_text(encoding="utf-8")).get_single_data()  # whose functions stay text
        files = (values.get("dataset_kwargs") or {}).get("data_files") or []
        parts = files.values() if isinstance(files, dict) else [files]
        return [str(file) for part in parts for file in (part if isinstance(part, list) else [part])]
    return []


def named_code(recipe: Recipe) -> dict[str, str]:
    """Return the Python that a recipe has imported, but ours and TRL's, `{what: file or model}`; here none is."""
    files: dict[str, Path | None] = {}
    held_out, listed = recipe.values.get("eval_problems"), [recipe.values.get(key) for key in ("reward_funcs", "audit")]
    listed += [held_out.get("reward_funcs")] if isinstance(held_out, dict) else []
    for spelling in (spelling for each in listed for spelling in spellings(each)):
        files[f"reward {spelling}"] = code_file(spelling, HOMES, recipe.folder)
    for spelling in scorers_of(recipe.values.get("strategies")):
        files[f"scorer {spelling}"] = code_file(spelling, HOMES, recipe.folder)
    for key in ("tools", "environment"):
        for spelling in spellings(recipe.values.get(key)):
            files[f"{key.removesuffix('s')} {spelling}"] = code_file(spelling, TOOL_HOMES, recipe.folder)
    for values in _data(recipe).values():
        name, form = str(values.get("dataset_name") or ""), str(values.get("dataset_format") or "")
        if is_generator(name):
            files[f"dataset {name}"] = code_file(name, [], recipe.folder)
        files[f"format {form}"] = code_file(form, [FORMATS], recipe.folder)
    if (task := Path(lm_eval_task(recipe))).suffix == ".yaml":  # its functions may be Python beside it
        files[f"benchmark {task.name}"] = task
    found = {what: shown_path(file) for what, file in files.items() if file}
    if recipe.values.get("trust_remote_code"):
        models = eval_models(recipe).values() or [recipe.values.get("model_name_or_path")]
        found["trust_remote_code"] = ", ".join(map(str, models))
    if "/" in str(recipe.values.get("attn_implementation")):  # a kernel from the hub
        found["attn_implementation"] = recipe.values["attn_implementation"]
    return found


def spellings(listed: Any) -> list[str]:
    """Return what the entries of a list, or one alone, are spelled like, whatever options they have."""
    listed = listed if isinstance(listed, list) else [listed] if listed else []
    return [str(next(iter(entry), "") if isinstance(entry, dict) else entry) for entry in listed]


def code_line(code: dict[str, str]) -> str:
    """Write what `named_code` found as one line."""
    return f"code, {'not run' if no_code() else 'run'}: " + ", ".join(f"{what} ({at})" for what, at in code.items())


def shown_path(file: Path) -> str:
    """Write a file's path as short as it can be."""
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)


def model_chain(recipe: Recipe, earlier: dict[str, Recipe], name: str | None = None) -> list[tuple[str, Recipe | None]]:
    """Return what a model comes down from, itself first: `(name, the recipe that is yet to make it)`, down to whole weights.

    `earlier` are the recipes before it by resolved output_dir, `name` one of the models of an evaluation, else the recipe's.
    """
    name = name or recipe.values.get("model_name_or_path")
    if not name:
        return []
    name = recipe.local(name)
    place, maker = Path(name), earlier.get(str(Path(name).resolve()))
    if is_adapter(name) and not (place / "config.json").is_file():
        base = read_object(place / ADAPTER).get("base_model_name_or_path")
        return [(name, None), (str(base), None)] if base else [(name, None)]
    if any((place / file).is_file() for file in ("config.json", "tokenizer_config.json")):
        return [(name, None)]
    if maker is None or maker is recipe:
        return [] if place.exists() else [(name, None)]
    others = {path: other for path, other in earlier.items() if other is not maker}
    return [(name, maker), *model_chain(maker, others)]


def unusable_model(recipe: Recipe, made: set[Path], run: bool) -> Problems:
    """A model that is not there, not finished, or no model; a hub name is not looked up."""
    models, hint = eval_models(recipe), "write models: {label: path, ...}"
    listed = recipe.values.get("models") if "models" in recipe.keys else None
    if isinstance(listed, list) and not all(listed):
        yield recipe.problem("models", "found a model without a name", hint=hint)
    if twice := [one for one, count in Counter(label for label, _ in listed_models(recipe)).items() if count > 1]:
        yield recipe.problem("models", f"found two models called {twice[0]}", hint=hint)
    if any(not isinstance(label, str) for label in models):
        yield recipe.problem("models", f"found the labels {list(models)}", "names", "write a number in quotes")
    if recipe.stage == "eval" and not models and not recipe.refused("models", "model_name_or_path"):
        yield recipe.problem("models", "the key is missing", hint=f"{hint} or model_name_or_path")
    names: dict[tuple, object] = {("models", label): name for label, name in models.items()}
    if not listed:
        names = {("model_name_or_path",): recipe.values.get("model_name_or_path")}
    for place, name in names.items():
        if name is not None and not asks_server(recipe) and (problem := _model_problem(recipe, name, made, run)):
            yield recipe.problem(place, problem)


def _model_problem(recipe: Recipe, name: object, made: set[Path], run: bool) -> str:
    """Say what is wrong with a model's name, or nothing."""
    if not isinstance(name, str):
        return f"found {name!r}, allowed: a hub name or a path"
    path = Path(recipe.local(name))
    source = local_source(str(path)) or (path if _in_folder(path) else None)
    if source is None or path.resolve() in made:
        return ""
    if not source.exists():
        return f"found {name}, but there is no such folder; run the recipe that makes it first"
    if not source.is_dir():
        return f"found {name}, a file, allowed: a folder with a model, or a hub name"
    if is_run(source) and (problem := unfinished(source, name) if run else damage(source, name)):
        return problem
    if not is_run(source) and (problem := damage(source, name)):
        return problem
    if not is_run(source) and not any((source / file).is_file() for file in CONFIGS):
        return f"found {name}, a folder without a model: none of {' and '.join(CONFIGS)} is there"
    if is_run(source.parent) and source.name.startswith("checkpoint-") and not (source / COMPLETE).is_file():
        return f"found {name}, a checkpoint that is not written to its end; wait for it, or run its recipe again"
    return json_problem(source, name) or _base_problem(name, source, made)


def _in_folder(path: Path) -> bool:
    """Tell whether it is a path, as runs/first, though it looks like a name of the hub's."""
    return path.parts[:1] == ("runs",) or (len(path.parts) > 1 and Path(path.parts[0]).is_dir())


def _base_problem(name: str, folder: Path, made: set[Path]) -> str:
    """Say that the base which an adapter names is not here, or nothing; the hub's names are left alone."""
    if not (folder / ADAPTER).is_file():
        return ""
    try:
        base = base_of(str(folder))
    except KeyProblem as problem:
        return str(problem).replace(str(folder), name)
    path = Path(base)
    away = local_source(base) is None and not _in_folder(path) and path.name not in (MERGED, RANDOM)
    if away or path.exists() or path.resolve() in made:
        return ""
    where = "" if path.is_absolute() else f" (relative paths count from {Path.cwd()})"
    mend = f"start where it was trained, or mend base_model_name_or_path in {folder / ADAPTER}"
    return f"found {name}, an adapter whose base {base} is not there{where}; {mend}"


def unusable_template(recipe: Recipe, made: set[Path], run: bool) -> Problems:
    """A chat template whose file is not there or is no text."""
    name = recipe.values.get("chat_template_path")
    if not name:
        return
    jinja = Path(name).suffix in (".jinja", ".j2")
    source = Path(recipe.local(name)) if jinja else local_source(recipe.local(name))
    if source is None:
        return
    if not source.exists():
        yield recipe.problem("chat_template_path", f"found {name}, but there is no such file ({source.resolve()})")
    elif jinja:
        try:
            source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            yield recipe.problem("chat_template_path", f"found {name}, which cannot be read as text in UTF-8: {error}")


def unusable_data_set(recipe: Recipe, made: set[Path], run: bool) -> Problems:
    """A data set that is not there, or a format or a generator of rows that is none; a hub name is not looked up."""
    for entry in entries(recipe):
        if name := entry.values.get("dataset_name"):
            yield from _test_size_problems(entry, name)
            yield from _source_problems(entry, name, made)
        try:
            find_format(entry.get("dataset_format"), recipe.folder)
        except LookupError as error:
            found = f"unknown format (found {entry.get('dataset_format')}): {error.args[0]}"
            yield entry.problem("dataset_format", found, hint="reasoning-ext list formats shows them")


def _source_problems(recipe: Recipe, name: str, made: set[Path]) -> Problems:
    if is_generator(name):
        try:
            find_generator(name, recipe.folder)
        except LookupError as error:
            yield recipe.problem("dataset_name", f"found {name}: {error.args[0]}")
        return
    if "gen_kwargs" in recipe.values and not is_gym(name):
        yield recipe.problem("gen_kwargs", f"found with {name}", "with a Python file that makes the rows")
    source = local_source(recipe.local(name)) or (Path(name) if Path(name).parts[0] == "runs" else None)
    if source is not None and not source.exists() and source.resolve() not in made:
        yield recipe.problem("dataset_name", f"found {name}, but there is no such file or folder ({source.resolve()})")


def _test_size_problems(recipe: Recipe, name: str) -> Problems:
    """Yield what is wrong with `test_size`; that there are enough rows is seen when they are read."""
    size = recipe.get("test_size")
    why = ""
    if size is not None and not (0 < size < 1 or (isinstance(size, int) and size >= 1)):
        why = "write a share between 0 and 1, or a number of rows"
    elif is_generator(name) or is_gym(name):
        why = "a Python file or task that makes a split test by itself"
    elif is_sampled(Path(recipe.local(name))):
        why = "a sample run; hold rows out of the prompts that it answers, with test_size in its recipe"
    elif recipe.get("dataset_streaming"):
        why = "which must be read whole; leave out dataset_streaming"
    if size is not None and why:
        yield recipe.problem("test_size", f"found {size} with {name}", hint=why)


# they take the resolved output_dirs of earlier recipes, and whether the recipe is about to run, its model finished
RULES: tuple[Callable[[Recipe, set[Path], bool], Problems], ...] = (
    unusable_model, unusable_template, unusable_data_set,
)  # fmt: skip
