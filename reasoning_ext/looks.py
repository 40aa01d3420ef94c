"""The commands that look at runs and models that are there: each is a function here, and `cli` offers them."""

from pathlib import Path
from typing import Annotated

import typer

from reasoning_ext.errors import UserError


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


def explain(
    model: Annotated[str, typer.Argument(help="A run's folder, a folder with weights, or a hub name.")],
    question: Annotated[
        str | None, typer.Argument(help="What to ask; none with --problems.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The HTML file; default: explained.html here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")] = False,
    completion: Annotated[
        str | None, typer.Option(help="Explain this completion, <think>...</think>answer; default: the greedy one.")
    ] = None,
    max_completion_length: Annotated[int, typer.Option(min=1, help="Tokens a completion, at most.")] = 2048,
    system_prompt: Annotated[str | None, typer.Option(help="In the place of the run's own; '' for none.")] = None,
    problems: Annotated[
        int | None, typer.Option(min=1, help="Of a run: over so many of its problems, for each model or checkpoint.")
    ] = None,
) -> None:
    """Tell what the steps of thoughts do for answers."""
    from reasoning_ext.evaluate.explain import explain_and_print

    if (question is None) == (problems is None):
        found = "neither a question nor --problems" if question is None else "a question beside --problems"
        raise UserError(f"explain: found {found}, allowed: one of the two")
    if problems is not None:
        from reasoning_ext.evaluate.explain_set import explain_set_and_print

        own = (output, completion, system_prompt, as_json or None)
        if any(value is not None for value in own) or max_completion_length != 2048:
            raise UserError(
                "explain: found options of one question beside --problems, allowed: a run and --problems alone"
            )
        explain_set_and_print(Path(model), problems)
        return
    assert question is not None
    explain_and_print(model, question, completion, output, as_json, max_completion_length, system_prompt)


def errors(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run of stage eval or sample.")],
    model: Annotated[str | None, typer.Option(help="Of an evaluation's models this one; default: the last.")] = None,
    k: Annotated[int, typer.Option("-k", min=2, help="Completions of each problem that is looked at.")] = 8,
    budget: Annotated[int | None, typer.Option(min=1, help="Draw about so many tokens at the most.")] = None,
    facts: Annotated[str | None, typer.Option(help="A column, or JSONL of question and facts, for the prompt.")] = None,
    reworded: Annotated[
        str | None, typer.Option(help="A column, JSONL of question and reworded, or llm_judge to have them written.")
    ] = None,
    no_steps: Annotated[bool, typer.Option("--no-steps", help="Look for no first wrong step.")] = False,
) -> None:
    """Find out why answers are wrong, by drawing again."""
    from reasoning_ext.evaluate.errors import Options, errors_and_print

    errors_and_print(run, Options(model, k, budget, facts, reworded, not no_steps))
