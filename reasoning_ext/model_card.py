"""The model card of a run and of its export: what the model is, the recipes, data and rewards it came from, how it was measured.

Everything in it was written by somebody: recipes, names of data sets, labels. In the header it goes through a YAML writer,
in the text through `plain`, which leaves nothing that Markdown or HTML would read, or into a code block whose fence is
longer than any in it. What looks like a token is taken out, and paths of this machine are shortened.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from reasoning_ext.files import read_object, write_whole
from reasoning_ext.run_dir import LINEAGE, is_run, versions
from reasoning_ext.run_reading import Run, cell, in_training, key_of, read_run, weights_of
from reasoning_ext.shown import visible, without_secrets

if TYPE_CHECKING:
    from reasoning_ext.merging import Source

CARD = "README.md"
MARKUP = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$])")
HUB_NAME = re.compile(r"[\w.\-]+(/[\w.\-]+)?")
SHOWN_METRICS = ("loss", "reward", "mean_token_accuracy", "completions/mean_length", "kl")


def write_card(folder: Path, source: Source, to: str, comparison: str | None, date: str) -> None:
    """Write an export's `README.md`.

    Args:
        folder: the export.
        source: the run.
        to: what kind of export it is.
        comparison: the figures of the comparison in one line, None where nothing was compared.
        date: of the export.
    """
    from huggingface_hub import ModelCard

    run = read_run(source.path)
    chain = lineage(run)
    header = _header(chain, to, source.base).to_yaml()
    card = ModelCard(f"---\n{header}\n---\n\n{_body(run, chain, source, to, comparison, date)}")
    write_whole(folder / CARD, without_secrets(str(card)))


def write_run_card(path: Path) -> None:
    """Write the `README.md` of a run that has just been trained; the one that TRL and PEFT write knows nothing of it."""
    run = read_run(path)
    chain = lineage(run)
    to = "adapter" if (path / "adapter_config.json").is_file() else "merged-16bit"
    kind = "A LoRA adapter" if to == "adapter" else "A model"
    parts = [
        f"# {plain(run.name)}",
        f"{kind} trained by stage {plain(run.stage)} of reasoning-ext. `reasoning-ext ask` asks it, and "
        "`reasoning-ext export` makes it ready for other tools and compares the result.",
        *(_one_run(one) for one in chain),
        _versions(run),
    ]
    write_whole(
        path / CARD, without_secrets(f"---\n{_header(chain, to, None).to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")
    )


def shorten(name: str) -> str:
    """Write a path without what it tells of this machine: relative to the current folder, or its last two parts."""
    if not os.path.isabs(name):
        return name.replace(str(Path.home()) + os.sep, "~/")
    with_file, colon, function = name.partition(":")
    path = Path(with_file)
    here = Path.cwd()
    inside = path.is_relative_to(here) and path != here
    return (str(path.relative_to(here)) if inside else "/".join(["...", *path.parts[1:][-2:]])) + colon + function


def plain(text: Any) -> str:
    """Write a text so that Markdown and HTML show it as it is, in one line, and the words beside it stay where they are."""
    said = visible(" ".join(without_secrets(shorten(str(text))).split()))  # before a token is escaped
    escaped = MARKUP.sub(r"\\\1", said).replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\&", "&amp;")
    from_the_right = any(unicodedata.bidirectional(letter) in ("R", "AL", "AN") for letter in said)
    return f"\u2068{escaped}\u2069" if from_the_right else escaped  # isolated: Markdown has no <bdi>


def lineage(run: Run) -> list[Run]:
    """List a run and the runs that its model and data come from, the run itself first, each once."""
    found: dict[Path, Run] = {}

    def add(one: Run) -> None:
        if one.path.resolve() in found:
            return
        found[one.path.resolve()] = one
        for name in _sources(one.recipe):
            if is_run(Path(name)):
                add(read_run(Path(name)))

    add(run)
    return list(found.values())


def _sources(recipe: dict[str, Any]) -> list[str]:
    """Return the names of a recipe's model and data sets."""
    entries = recipe.get("datasets") or []
    names = [recipe.get("model_name_or_path"), recipe.get("dataset_name")]
    names += [entry.get("dataset_name") for entry in entries if isinstance(entry, dict)]
    return [str(name) for name in names if name]


def _header(chain: list[Run], to: str, named: str | None) -> Any:
    from huggingface_hub import ModelCardData

    hub_data = [name for run in chain for what, name in _inputs(run) if what.startswith("dataset")]
    base = named if named and _is_hub_name(named) else _root(chain)
    return ModelCardData(
        base_model=base,
        base_model_relation="adapter" if to == "adapter" else "finetune" if base else None,
        datasets=sorted(set(hub_data)) or None,
        license=license_of(base or named),
        library_name="peft" if to == "adapter" else "transformers",
        pipeline_tag="text-generation",
        tags=["reasoning-ext", "trl", *dict.fromkeys(run.stage for run in chain if run.stage != "unknown")],
    )


def _inputs(run: Run) -> list[tuple[str, str]]:
    """Return the inputs of a run that are names of the hub, as its lineage has them: `("dataset", "openai/gsm8k")`."""
    inputs = read_object(run.path / LINEAGE).get("inputs", {})
    names = [
        (what, str(value).removeprefix("name:")) for what, value in inputs.items() if str(value).startswith("name:")
    ]
    return [(what, name) for what, name in names if HUB_NAME.fullmatch(name)]


def _is_hub_name(name: str) -> bool:
    return not Path(name).exists() and HUB_NAME.fullmatch(name) is not None


def _root(chain: list[Run]) -> str | None:
    """Return the hub's name of the model that the first run of a chain began with."""
    names = [name for run in chain for what, name in _inputs(run) if what == "model"]
    return names[-1] if names else None


def license_of(name: str | None, kind: str = "model") -> str:
    """Return what the card of a model or data set says, if it is on this machine; nothing is asked from the network.

    Args:
        name: of the hub, or a folder.
        kind: `model` or `dataset`.
    """
    from huggingface_hub import ModelCard, try_to_load_from_cache

    if not name:
        return "unknown"
    try:
        card = Path(name) / CARD if Path(name).exists() else try_to_load_from_cache(name, CARD, repo_type=kind)
        if not isinstance(card, str | Path) or not Path(card).is_file():
            return "unknown"
        found = ModelCard.load(card).data.license
    except (ValueError, OSError, yaml.YAMLError):
        return "unknown"
    return found if isinstance(found, str) and re.fullmatch(r"[\w.\-]+", found) and found != "license" else "unknown"


def _body(run: Run, chain: list[Run], source: Source, to: str, comparison: str | None, date: str) -> str:
    of = plain(source.base) if source.base else "random weights"
    kind = "A LoRA adapter for" if to == "adapter" else "Weights in 16 bits, trained from"
    parts = [
        f"# {plain(run.name)}",
        f"{kind} {of}: stage {plain(run.stage)} of reasoning-ext, exported {date}."
        + (f" That base was given by hand; the run was trained on {plain(source.named)}." if source.named else ""),
        "## Evaluation\n\n" + _evaluation(run, source),
        "## Export\n\n"
        + (
            f"Compared with the trained model before it was done: {plain(comparison)}."
            if comparison
            else "The adapter's files as they were trained."
        ),
        *(_one_run(one) for one in chain),
        _versions(run),
    ]
    return "\n\n".join(parts) + "\n"


def _versions(run: Run) -> str:
    found = {name: value for name, value in (run.versions or versions()).items() if name != "platform"}
    return "## Versions\n\n" + ", ".join(f"{plain(name)} {plain(value)}" for name, value in found.items())


def _one_run(run: Run) -> str:
    """Describe one run of the lineage: data, rewards, figures, recipe."""
    lines = [f"## Run {plain(run.name)} ({plain(run.stage)})"]
    try:
        steps = json.loads((run.path / "data.json").read_bytes())
    except (OSError, ValueError):
        steps = []
    for step in steps if isinstance(steps, list) else []:
        counts = f"{step.get('rows', '?')} rows" + (f", {step['dropped']} dropped" if step.get("dropped") else "")
        lines.append(f"- data: {plain(step.get('step'))}: {plain(counts)}")
    if not steps:
        lines += [f"- data: {plain(name)}" for name in _sources(run.recipe)[1:]]
    lines += [f"- reward: {plain(name)}, weight {weight:g}" for name, weight in weights_of(run.recipe).items()]
    lines += _figures(run)
    if known := read_object(run.path / LINEAGE):
        hashes = [f"recipe {known.get('recipe')}", *(f"{what} {of}" for what, of in known.get("inputs", {}).items())]
        lines.append("- lineage: " + ", ".join(map(plain, hashes)))
    recipe = yaml.safe_dump(shortened(run.recipe), sort_keys=False, allow_unicode=True)
    return "\n".join([lines[0], "", *lines[1:], "", fenced(recipe)])


def _figures(run: Run) -> list[str]:
    found = []
    for name in SHOWN_METRICS:
        values = [(row.get("step"), row[name]) for row in run.metrics if isinstance(row.get(name), int | float)]
        if values:
            (first_step, first), (last_step, last) = values[0], values[-1]
            found.append(f"- {plain(name)}: {first:.4g} at step {first_step}, {last:.4g} at step {last_step}")
    return found


def shortened(value: Any) -> Any:
    """Return a recipe's value without tokens, and with paths that tell nothing of this machine."""
    if isinstance(value, dict):
        return {shortened(k): shortened(v) for k, v in value.items()}
    if isinstance(value, list):
        return [shortened(v) for v in value]
    return without_secrets(shorten(value)) if isinstance(value, str) else value


def fenced(text: str) -> str:
    """Return a YAML text as a code block that no text inside it can end."""
    text = visible(text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}yaml\n{text.rstrip()}\n{fence}"


def _evaluation(run: Run, source: Source) -> str:
    """Return the tables of the `eval` runs beside this one that name it."""
    tables = []
    for folder in sorted(source.path.resolve().parent.iterdir()):
        if (folder / "eval.json").is_file():
            found = read_run(folder)
            named = [label for label, name in found.models.items() if _is_run(name, run)]
            if any(label in found.results for label in named):
                tables.append(_table(found, named))
    return "\n\n".join(tables) or "Not evaluated: no finished `eval` run beside this one names it."


def _is_run(name: str, run: Run) -> bool:
    own = key_of(run.recipe.get("output_dir", "./"))
    return Path(name).resolve() == run.path.resolve() or (own != "" and key_of(name) == own)


def _table(run: Run, named: list[str]) -> str:
    """Write a table of models by figures; shares in per cent with their 95 % interval."""
    columns = list(dict.fromkeys(name for figures in run.results.values() for name in figures))
    data = ", ".join(map(plain, _sources(run.recipe)[-1:]))
    said = in_training(run.results)
    title = f"{plain(run.name)}, on {data}; shares in per cent with 95 % intervals; this model in bold"
    title += f"; {plain(said)}:" if said else ":"
    rows = [["model", *map(plain, columns)], ["---"] * (len(columns) + 1)]
    for label, figures in run.results.items():
        shown = f"**{plain(label)}**" if label in named else plain(label)
        rows.append([shown, *(plain(cell(figures.get(name))) for name in columns)])
    return title + "\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows)
