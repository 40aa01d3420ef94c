"""The command line: each command is a function here. Nothing heavy is imported before a command needs it."""

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

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
    if context.invoked_subcommand in ("init", "score", "ask", "explain", "export", "import-gguf"):
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
    raise typer.Exit(check_and_print(loaded, wrong, offline, show, as_json, options))


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


@app.command()
def score(
    completions: Annotated[Path, typer.Argument(help="Parquet or JSONL of completions, or a run's folder.")],
    recipe: Annotated[Path | None, typer.Option(help="Score with this recipe's rewards.")] = None,
    reward: Annotated[
        list[str] | None, typer.Option(help="Score with this reward; may be given several times.")
    ] = None,
) -> None:
    """Replay rewards over saved completions."""
    from reasoning_ext.evaluate.replay import score_and_print

    score_and_print(completions, recipe, reward or [])


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or a folder of run folders.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The HTML file; default: report.html there.")
    ] = None,
    curves: Annotated[
        Path | None, typer.Option(help="Write a GRPO run's curves, or an evaluation's, as this PNG file instead.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Write it again as runs go on, until they are done.")] = False,
    every: Annotated[int, typer.Option(min=1, max=86_400, help="--watch: seconds between two looks.")] = 10,
) -> None:
    """Write one HTML file about runs; it opens offline."""
    from reasoning_ext.evaluate.page import report_and_print

    report_and_print(runs, output, curves, every if watch else None)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs of stage eval; seeds of one recipe are pooled.")],
    models: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Compare these two; default: every other model with the first.", show_default=False),
    ] = None,
    figure: Annotated[str, typer.Option(help="greedy, pass@1, or a strategy of the recipe.")] = "greedy",
    flips: Annotated[
        int, typer.Option(min=0, help="Print so many problems that only one solves, with both texts.")
    ] = 0,
) -> None:
    """Compare models on the same problems, with paired tests."""
    from reasoning_ext.evaluate.compare_table import compare_and_print

    compare_and_print(runs, models, figure, flips)


@app.command()
def ask(
    model: Annotated[str, typer.Argument(help="A run's folder, a folder with weights, or a hub name.")],
    question: Annotated[
        str | None, typer.Argument(help="What to ask; default: a chat, or each line of standard input.")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Completions to draw and vote over.")] = 1,
    strategy: Annotated[
        str | None, typer.Option(help="self_consistency:8, weighted_vote:8:mean_logprob or best_of:8:step_check.")
    ] = None,
    thinking_budget: Annotated[int | None, typer.Option(min=1, help="Close the thought after so many tokens.")] = None,
    min_thinking: Annotated[int | None, typer.Option(min=1, help="Let no thought close before so many.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 1.0,
    max_completion_length: Annotated[int, typer.Option(min=1, help="Tokens a completion, at most.")] = 2048,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the sampling.")] = 0,
    system_prompt: Annotated[str | None, typer.Option(help="In the place of the run's own; '' for none.")] = None,
    base: Annotated[str | None, typer.Option(help="Ask this model the same, side by side.")] = None,
    tools: Annotated[
        list[str] | None,
        typer.Option(help="What it may call, as in a recipe, in the place of the run's own; repeatable."),
    ] = None,
    no_tools: Annotated[bool, typer.Option("--no-tools", help="Without the run's own.")] = False,
) -> None:
    """Ask a model, or chat with it, and watch it think."""
    from reasoning_ext.engines.base import SamplingSettings
    from reasoning_ext.evaluate.ask import ask_and_print
    from reasoning_ext.evaluate.choice import Choice, parse_choice

    if strategy is not None and n > 1:
        raise UserError(f"--strategy {strategy}: found beside -n {n}, allowed: one of the two")
    settings = SamplingSettings(
        max_completion_length, temperature, seed=seed, thinking_budget=thinking_budget, min_thinking=min_thinking
    )
    choice = Choice(n) if strategy is None else parse_choice(strategy, settings)
    if tools and no_tools:
        raise UserError("--no-tools: found beside --tools, allowed: one of the two")
    models, named = [model, *([base] if base else [])], [] if no_tools else tools
    ask_and_print(models, question, choice, settings, system_prompt, named)


@app.command()
def explain(
    model: Annotated[str, typer.Argument(help="A run's folder, a folder with weights, or a hub name.")],
    question: Annotated[str, typer.Argument(help="What to ask.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The HTML file; default: explained.html here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")] = False,
    completion: Annotated[
        str | None, typer.Option(help="Explain this completion, <think>...</think>answer; default: the greedy one.")
    ] = None,
    max_completion_length: Annotated[int, typer.Option(min=1, help="Tokens a completion, at most.")] = 2048,
    system_prompt: Annotated[str | None, typer.Option(help="In the place of the run's own; '' for none.")] = None,
) -> None:
    """Tell what each step of a thought does for its answer."""
    from reasoning_ext.evaluate.explain import explain_and_print

    explain_and_print(model, question, completion, output, as_json, max_completion_length, system_prompt)


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
