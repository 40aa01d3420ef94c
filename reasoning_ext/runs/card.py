"""The card of a run or its export: what it is, and the recipes, data and rewards that it came from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext.runs.folder import RESULTS, is_run, versions
from reasoning_ext.runs.judged import forgot, judged
from reasoning_ext.runs.markdown import license_of, recipe_block, render, write_card
from reasoning_ext.runs.read import Run, columns, in_training, key_of, read_run
from reasoning_ext.runs.values import cell
from reasoning_ext.runs.weights import weights_of

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

HUB_NAME = re.compile(r"[\w.\-]+(/[\w.\-]+)?")


def write_run_card(path: Path) -> None:
    """Write the `README.md` of a run that was just trained; the one that TRL and PEFT write knows nothing of it."""
    write_model_card(path, read_run(path), (path / "adapter_config.json").is_file(), None)


def write_model_card(folder: Path, run: Run, adapter: bool, export: dict[str, Any] | None) -> None:
    """Write a model's card: what was made, then each run of the lineage, then versions.

    Args:
        folder: gets it.
        run: the run.
        adapter: it is one.
        export: `base`, `named`, `date` and `comparison` of an export, as the template takes them.
    """
    chain, export = lineage(run), export and export | {"evaluations": _evaluations(run)}
    shown = {
        "sources_of": sources_of,
        "weights_of": weights_of,
        "cell": cell,
        "recipe_block": recipe_block,
        "judged": judged,
        "forgot": forgot,
    }
    text = render(
        "card.md", run=run, chain=chain, adapter=adapter, export=export, versions=run.versions or versions(), **shown
    )
    write_card(folder, _header(chain, adapter, export["base"] if export else None), [text])


def _evaluations(run: Run) -> list[tuple[Any, ...]]:
    """Return the `eval` runs beside a run that name it, their labels for it, their figures, what was trained on."""
    own, found = key_of(run.recipe.get("output_dir", "./")), []
    for folder in sorted(run.path.resolve().parent.iterdir()):
        evaluation = read_run(folder) if (folder / RESULTS).is_file() else Run(folder)
        names = {label: name for label, name in evaluation.models.items() if label in evaluation.results}
        same = [label for label, name in names.items() if Path(name).resolve() == run.path.resolve()]
        same += [label for label, name in names.items() if own and key_of(name) == own and label not in same]
        if same:
            found.append((evaluation, same, columns(evaluation.results), in_training(evaluation.results)))
    return found


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


def _header(chain: list[Run], adapter: bool, named: str | None) -> ModelCardData:
    from huggingface_hub import ModelCardData

    is_hub_name = named is not None and not Path(named).exists() and HUB_NAME.fullmatch(named)
    base = named if is_hub_name else _root(chain)
    return ModelCardData(
        base_model=base,
        base_model_relation="adapter" if adapter else "finetune" if base else None,
        datasets=sorted({name for run in chain for name in _hub_inputs(run, "dataset")}) or None,
        license=license_of(base or named),
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["reasoning-ext", "trl", *dict.fromkeys(run.stage for run in chain if run.stage != "unknown")],
    )


def _hub_inputs(run: Run, kind: str) -> list[str]:
    """Return the inputs of a run, its model or its data sets, that are names of the hub, as its lineage has them."""
    inputs = run.lineage.get("inputs", {}).items()
    names = [str(mark)[5:] for what, mark in inputs if what.startswith(kind) and str(mark).startswith("name:")]
    return [name for name in names if HUB_NAME.fullmatch(name)]


def _root(chain: list[Run]) -> str | None:
    """Return the hub's name of the model that the first of a model's runs began with, not of its data's teachers."""
    runs = {run.path.resolve(): run for run in chain}
    run: Run | None = chain[0]
    while run is not None:
        if named := _hub_inputs(run, "model"):
            return named[0]
        del runs[run.path.resolve()]
        run = runs.get(Path(str(run.recipe.get("model_name_or_path"))).resolve())
    return None
