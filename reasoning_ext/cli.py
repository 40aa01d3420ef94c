"""The command line: each command is a function here. Nothing heavy is imported before a command needs it."""

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from reasoning_ext import looks
from reasoning_ext.errors import UserError, print_error, refuse_little_memory, system_problem
from reasoning_ext.runs.interrupt import Terminated, handle_signals, stop_at_once
from reasoning_ext.shown import print

app = typer.Typer(
    name="reasoning-ext",
    help="Teach a language model to reason on one GPU: recipes and rewards over TRL and Unsloth.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_OVERRIDABLE = {"allow_extra_args": True, "ignore_unknown_options": True}
RECIPES = Annotated[
    list[str], typer.Argument(help="Recipes or folders, then --key value to override keys; --seeds 0 1 2: once a seed.")
]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"reasoning-ext {version('reasoning-ext')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Teach a language model to reason on one GPU: recipes and rewards over TRL and Unsloth."""
    if context.invoked_subcommand in ("init", "score", "ask", "explain", "errors", "export", "import-gguf"):
        from reasoning_ext.check.network import settle

        settle([])


@app.command()
def init(
    name: Annotated[
        str | None, typer.Argument(help="A data file, a hub name, or a packaged folder as --list has it.")
    ] = None,
    card: Annotated[
        str | None, typer.Option(help="Choose for a card of this size, 24GB; default: the one here.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Train this model, a hub name or a folder.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to; default: recipes/NAME.")] = None,
    list_packaged: Annotated[bool, typer.Option("--list", help="List the packaged recipes and examples.")] = False,
) -> None:
    """Write recipes for your data, or copy packaged ones."""
    from reasoning_ext.init import init as write_recipes
    from reasoning_ext.init import listed

    if list_packaged:
        for line in listed():
            print(line)
    elif name is None:
        raise UserError("init: found no data, allowed: a data file, a hub name, or --list")
    else:
        write_recipes(name, card, model, output)


@app.command(context_settings=_OVERRIDABLE)
def run(recipes: RECIPES) -> None:
    """Run recipes in order; skip what is done, go on where cut off."""
    from reasoning_ext.check.network import settle
    from reasoning_ext.check.seeds import split_seeds
    from reasoning_ext.recipe.load import load_recipes, split_overrides

    arguments, seeds = split_seeds(recipes)
    loaded = load_recipes(*split_overrides(arguments))
    settle(loaded)
    from reasoning_ext.pipeline import run_recipes

    raise typer.Exit(run_recipes(loaded, seeds))


@app.command(context_settings=_OVERRIDABLE)
def check(
    recipes: RECIPES,
    offline: Annotated[bool, typer.Option("--offline", help="Use no network: hub data sets are not read.")] = False,
    no_code: Annotated[bool, typer.Option("--no-code", help="Run no Python that a recipe names.")] = False,
    show: Annotated[int, typer.Option(min=0, help="Print so many rows whole, as they come out.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")] = False,
    gpu: Annotated[str | None, typer.Option(help="Plan for a card of this size, 24GB for example.")] = None,
    tokens_per_second: Annotated[int | None, typer.Option(min=1, help="What your card does, to reckon hours.")] = None,
    parity: Annotated[bool, typer.Option("--parity", help="Load the model; compare engine and transformers.")] = False,
) -> None:
    """Check recipes without weights or GPU; exit code 2 on errors."""
    from reasoning_ext.check.network import settle
    from reasoning_ext.check.seeds import by_seed, split_seeds
    from reasoning_ext.errors import Problem
    from reasoning_ext.recipe.load import load_recipes, split_overrides
    from reasoning_ext.recipe.user_code import NO_CODE

    if no_code:
        os.environ[NO_CODE] = "1"
    wrong: list[Problem] = []
    arguments, seeds = split_seeds(recipes)
    loaded = load_recipes(*split_overrides(arguments), wrong)
    loaded = by_seed(loaded, seeds)[-1] if seeds else loaded
    offline = settle([] if wrong else loaded, offline)
    from reasoning_ext.check.memory.check import MemoryOptions, parse_card
    from reasoning_ext.check.show import check_and_print

    options = MemoryOptions(None if gpu is None else parse_card(gpu), tokens_per_second)
    raise typer.Exit(check_and_print(loaded, wrong, offline, show, as_json, options, parity))


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(help="rewards, formats, tools, recipes, keys or health.")],
    stage: Annotated[str | None, typer.Argument(help="keys: of this stage alone.")] = None,
) -> None:
    """List what a recipe can name, and where its text stands."""
    from reasoning_ext.check.schema import listed

    for line in listed(kind, stage):
        print(line)


@app.command()
def schema() -> None:
    """Print a JSON Schema of recipes for editors."""
    from reasoning_ext.check.schema import schema_text

    print(schema_text(), end="")


for look in (looks.score, looks.report, looks.compare, looks.ask, looks.explain, looks.errors):
    app.command()(look)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The folder of a finished sft, grpo or dpo run.")],
    to: Annotated[str, typer.Option(help="merged-16bit, adapter, gguf or hub.")] = "merged-16bit",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to; default: in RUN/export.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Compare on these: JSONL with prompt, or a recipe; default: the run's own.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Base weights in 16 bits, if not those that the run names.")] = None,
    quantization: Annotated[str, typer.Option(help="gguf: f16, bf16, q8_0; others need llama-quantize.")] = "q8_0",
    llama_cpp: Annotated[Path | None, typer.Option(help="gguf: a llama.cpp checkout; else $LLAMA_CPP.")] = None,
    repo_id: Annotated[str | None, typer.Option(help="hub: USER/NAME.")] = None,
    public: Annotated[bool, typer.Option("--public", help="hub: for everybody to see; private without it.")] = False,
    what: Annotated[str, typer.Option(help="hub: upload merged-16bit or adapter.")] = "merged-16bit",
) -> None:
    """Export a run for other tools, compared with what was trained."""
    from reasoning_ext.export import export_run

    export_run(
        run, to, output, prompts=prompts, base=base, quantization=quantization.lower(), llama_cpp=llama_cpp,
        repo_id=repo_id, public=public, what=what,
    )  # fmt: skip


@app.command("import-gguf")
def import_gguf(
    file: Annotated[str, typer.Argument(help="A GGUF file, or an installed package that holds one.")],
    folder: Annotated[Path, typer.Argument(help="Where to write what model_name_or_path may name.")],
) -> None:
    """Turn a GGUF file into a folder that can be trained, compared."""
    from reasoning_ext.export.from_gguf import import_gguf

    import_gguf(file, folder)


def main() -> None:
    """Run the command line; what the user can mend ends in one line and exit code 2, Ctrl-C in 130, SIGTERM in 143."""
    if not sys.stdout.isatty():
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    handle_signals(stop_at_once)
    try:
        refuse_little_memory()
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Terminated as stopped:
        sys.exit(stopped.code)
    except Exception as error:
        problem = error if isinstance(error, UserError) else system_problem(error)
        if not problem:
            raise
        print_error(problem)
        sys.exit(2)
