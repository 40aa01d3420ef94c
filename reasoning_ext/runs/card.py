"""The card of a run: what it made, and the recipes, data and rewards that it came from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext.runs import markdown
from reasoning_ext.runs.files import read_object
from reasoning_ext.runs.folder import LINEAGE, is_run, versions
from reasoning_ext.runs.markdown import license_of, plain
from reasoning_ext.runs.read import Run, read_run, weights_of

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

HUB_NAME = re.compile(r"[\w.\-]+(/[\w.\-]+)?")
SHOWN_METRICS = ("loss", "reward", "mean_token_accuracy", "completions/mean_length", "kl")


def write_run_card(path: Path) -> None:
    """Write the `README.md` of a run that has just been trained; the one that TRL and PEFT write knows nothing of it."""
    run, adapter = read_run(path), (path / "adapter_config.json").is_file()
    made = (
        f"{'A LoRA adapter' if adapter else 'A model'} trained by stage {plain(run.stage)} of reasoning-ext. `reasoning-ext "
        "ask` asks it, and `reasoning-ext export` makes it ready for other tools and compares the result."
    )
    write_card(path, run, "adapter" if adapter else "merged-16bit", None, [made])


def write_card(folder: Path, run: Run, to: str, base: str | None, made: list[str]) -> None:
    """Write a card: what was made, then each run of the lineage, then versions.

    Args:
        folder: gets it.
        run: the run.
        to: what kind of export it is, or would be.
        base: the model's, where that is not the one that the lineage began with.
        made: the paragraphs on top.
    """
    chain = lineage(run)
    found = {name: value for name, value in (run.versions or versions()).items() if name != "platform"}
    said = "## Versions\n\n" + ", ".join(f"{plain(name)} {plain(value)}" for name, value in found.items())
    parts = [f"# {plain(run.name)}", *made, *map(_one_run, chain), said]
    markdown.write_card(folder, _header(chain, to, base), parts)


def lineage(run: Run) -> list[Run]:
    """List a run and the runs that its model and data come from, the run itself first, each once."""
    found = {run.path.resolve(): run}
    ahead = [run]
    for one in ahead:
        for path in map(Path, sources_of(one.recipe)):
            if path.resolve() not in found and is_run(path):
                found[path.resolve()] = read_run(path)
                ahead.append(found[path.resolve()])
    return ahead


def sources_of(recipe: dict[str, Any]) -> list[str]:
    """Return the names of a recipe's model and data sets."""
    entries = recipe.get("datasets") or []
    names = [recipe.get("model_name_or_path"), recipe.get("dataset_name")]
    names += [entry.get("dataset_name") for entry in entries if isinstance(entry, dict)]
    return [str(name) for name in names if name]


def _header(chain: list[Run], to: str, named: str | None) -> ModelCardData:
    from huggingface_hub import ModelCardData

    is_hub_name = named is not None and not Path(named).exists() and HUB_NAME.fullmatch(named)
    base = named if is_hub_name else _root(chain)
    return ModelCardData(
        base_model=base,
        base_model_relation="adapter" if to == "adapter" else "finetune" if base else None,
        datasets=sorted({name for run in chain for name in _hub_inputs(run, "dataset")}) or None,
        license=license_of(base or named),
        library_name="peft" if to == "adapter" else "transformers",
        pipeline_tag="text-generation",
        tags=["reasoning-ext", "trl", *dict.fromkeys(run.stage for run in chain if run.stage != "unknown")],
    )


def _hub_inputs(run: Run, kind: str) -> list[str]:
    """Return the inputs of a run, its model or its data sets, that are names of the hub, as its lineage has them."""
    inputs = read_object(run.path / LINEAGE).get("inputs", {}).items()
    names = [str(mark)[5:] for what, mark in inputs if what.startswith(kind) and str(mark).startswith("name:")]
    return [name for name in names if HUB_NAME.fullmatch(name)]


def _root(chain: list[Run]) -> str | None:
    """Return the hub's name of the model that the first of a model's runs began with; teachers of its data do not count."""
    runs = {run.path.resolve(): run for run in chain}
    run: Run | None = chain[0]
    while run is not None:
        if named := _hub_inputs(run, "model"):
            return named[0]
        del runs[run.path.resolve()]
        run = runs.get(Path(str(run.recipe.get("model_name_or_path"))).resolve())
    return None


def _one_run(run: Run) -> str:
    """Describe one run of the lineage: data, rewards, figures, recipe."""
    lines = [f"## Run {plain(run.name)} ({plain(run.stage)})", ""]
    try:
        steps = json.loads((run.path / "data.json").read_bytes())
    except (OSError, ValueError):
        steps = []
    for step in steps if isinstance(steps, list) else []:
        counts = f"{step.get('rows', '?')} rows" + (f", {step['dropped']} dropped" if step.get("dropped") else "")
        lines.append(f"- data: {plain(step.get('step'))}: {plain(counts)}")
    if not steps:
        lines += [f"- data: {plain(name)}" for name in sources_of(run.recipe)[1:]]
    lines += [f"- reward: {plain(name)}, weight {weight:g}" for name, weight in weights_of(run.recipe).items()]
    for name in SHOWN_METRICS:
        values = [(row[name], row.get("step")) for row in run.metrics if isinstance(row.get(name), int | float)]
        if values:
            ends = [f"{value:.4g} at step {step}" for value, step in (values[0], values[-1])]
            lines.append(f"- {plain(name)}: {', '.join(ends)}")
    if known := read_object(run.path / LINEAGE):
        hashes = [f"recipe {known.get('recipe')}", *(f"{what} {of}" for what, of in known.get("inputs", {}).items())]
        lines.append("- lineage: " + ", ".join(map(plain, hashes)))
    return "\n".join([*lines, "", markdown.recipe_block(run.recipe)])
