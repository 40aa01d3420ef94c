"""More tokens at inference, RL, distillation: which accuracy each has at how many tokens, and what drawing them costs.

    python benchmarks/inference_scaling.py
    python benchmarks/inference_scaling.py --tiny runs/tiny --real runs/smollm2_135m

Runs `recipes/tiny` below --runs, or takes the finished folders of it and of `recipes/smollm2_135m`, and evaluates the
models after SFT, GRPO and distillation with every strategy of stage `eval` and with their thoughts cut short, by
recipes that it writes below --runs. Prints a table of strategy, accuracy with its 95 % interval and all tokens a
problem, draws accuracy against tokens to docs/pictures/inference_scaling.png (and inference_scaling_real.png), and
times 8 completions a prompt as the strategies draw them against the same completions as stage `sample` draws them, in
turns. All is written with versions and date to benchmarks/results/inference_scaling.json. What is done already is not
done again. Exits with 1 where the time is above 1.15.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from sampling import load, written
from sampling import run as run_sample
from tiny_seeds import finish

from reasoning_ext.runs.read import strategy_rows
from reasoning_ext.runs.tradeoff import save_tradeoff_png

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
N, MOST_COST, TURNS, PROMPTS = 8, 1.15, 3, 128
FORCED = 1  # tokens of a thought at least, behind its opening tag
MODELS = {"sft": "1_sft", "grpo": "2_grpo", "distilled": "4_distill"}
TASKS = {  # the evaluation that is written anew, what ends a step of a thought, what is drawn at once
    "tiny": ("recipes/tiny/6_eval.yaml", ";", 800),
    "real": ("recipes/smollm2_135m/5_eval.yaml", "\n", 100),
}


def strategies(step: str) -> list[Any]:
    """Return the entries of `strategies`; `step` ends a step of a thought."""
    return [
        "greedy",
        {"greedy": {"min_thinking": FORCED}},
        {"self_consistency": N // 2},
        {"self_consistency": N},
        {"weighted_vote": {"n": N, "by": "mean_logprob"}},
        {"weighted_vote": {"n": N, "by": "step_check"}},
        {"best_of": {"n": N, "by": "step_check"}},
        {"best_of": {"n": N, "by": "mean_logprob"}},
        {"beam": {"width": 4, "keep": 2, "by": "step_check", "step": step}},
        {"refine": {"rounds": 2}},
    ]


def evaluated(task: str, runs: Path, folder: Path, problems: int | None) -> dict[str, Any]:
    """Evaluate the models of a folder of runs with every strategy, in `folder`; return what `eval.json` has of each."""
    source, step, batch = TASKS[task]
    values = yaml.safe_load((ROOT / source).read_text())
    rows = values["gen_kwargs"] | ({"num_rows": problems} if problems else {})
    values |= {
        "models": {label: str((runs / name).resolve()) for label, name in MODELS.items()},
        "dataset_name": str(ROOT / Path(source).parent / values["dataset_name"]),
        "gen_kwargs": rows,
        "num_generations": N,
        "strategies": strategies(step),
        "thinking_curve": True,
        "per_device_eval_batch_size": batch,
        "output_dir": str((folder / task).resolve()),
    }
    return ran(values, folder / f"{task}.yaml")


def ran(values: dict[str, Any], recipe: Path) -> dict[str, Any]:
    """Write a recipe of stage eval and run it; return its `eval.json`."""
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(yaml.safe_dump(values, sort_keys=False))
    subprocess.run([sys.executable, "-m", "reasoning_ext", "run", str(recipe)], check=True)
    return json.loads((Path(values["output_dir"]) / "eval.json").read_text())


def table(tasks: dict[str, dict[str, Any]]) -> str:
    """Write a row a task, model and strategy: accuracy in per cent with its 95 % interval, and all tokens a problem."""
    head = ["task", "model", "strategy", "accuracy", "tokens a problem"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for task, models in tasks.items():
        for label, figures in models.items():
            for row in strategy_rows(figures["strategies"]):
                lines.append("| " + " | ".join([task, label, *row]) + " |")
    return "\n".join(lines)


def pictured(models: dict[str, Any]) -> dict[str, Any]:
    """Return what is drawn: of the first model all, of the others their greedy answers, which training alone gave."""
    first, *others = models
    plain = {label: {"strategies": {"greedy": models[label]["strategies"]["greedy"]}} for label in others}
    return {first: {name: models[first][name] for name in ("strategies", "curve")}} | plain


class Kept:
    """An engine that several stages use in turn; it remembers the texts that it drew last, and stays open."""

    def __init__(self, inner: Any):
        self.inner, self.texts = inner, dict[tuple[int, int], str]()
        self.tokenizer, self.contract = inner.tokenizer, inner.contract

    def generate(self, prompts: Any, keys: Any, settings: Any) -> Iterator[list]:
        """Answer keys; see `base.Engine`."""
        for batch in self.inner.generate(prompts, keys, settings):
            self.texts |= {(one.prompt, one.sample): one.text for one in batch}
            yield batch

    def close(self) -> None:
        """Stay open."""


def cost(model: Path, prompts: int) -> dict[str, Any]:
    """Time the same completions, as stage `sample` and as the strategies draw, score and store them, in turns."""
    from reasoning_ext.engines.thinking import ThinkingEngine
    from reasoning_ext.engines.transformers import TransformersEngine

    source, _, batch = TASKS["tiny"]
    engine = Kept(ThinkingEngine(TransformersEngine(load(model), batch)))
    task = yaml.safe_load((ROOT / source).read_text())
    shared = {
        "dataset_name": str(ROOT / Path(source).parent / task["dataset_name"]),
        "gen_kwargs": {"num_rows": prompts, "num_steps": 5}, "reward_funcs": ["math_answer"], "temperature": 1.0,
        "max_completion_length": task["max_completion_length"], "use_cpu": True, "seed": 0,
    }  # fmt: skip
    sample = {"stage": "sample", "model_name_or_path": str(model.resolve()), "num_generations": N, "keep": N}
    sample |= shared | {"dataset_train_split": "test"}
    seconds: dict[str, list[float]] = {"sample": [], "strategies": []}
    for turn in range(TURNS + 1):
        drawn = []
        for name in seconds:
            engine.texts = {}
            took = run_sample(sample, engine)[1] if name == "sample" else by_strategies(shared, model, engine)
            drawn.append(engine.texts)
            if turn:  # the first is for warming up
                seconds[name].append(took)
        assert drawn[0] == drawn[1] and len(drawn[0]) == prompts * N, "these are not the same completions"
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = round(medians["strategies"] / medians["sample"], 3)
    return {"prompts": prompts, "n": N, "seconds": seconds, "ratio": ratio}


def by_strategies(shared: dict[str, Any], model: Path, engine: Any) -> float:
    """Draw and score a problem's completions for two strategies in a store of their own, and return the seconds."""
    from reasoning_ext.data.row_options import TEST, row_options
    from reasoning_ext.data.rows import prepare
    from reasoning_ext.engines.opening import sampling_settings
    from reasoning_ext.evaluate.answers import Answers
    from reasoning_ext.evaluate.scaling import strategy_results
    from reasoning_ext.evaluate.strategies import parse_strategies
    from reasoning_ext.scoring.call import build_rewards
    from reasoning_ext.scoring.spec import parse_rewards

    entries = [{"self_consistency": N}, {"best_of": {"n": N, "by": "mean_logprob"}}]
    values = {"stage": "eval", "models": {"sft": str(model.resolve())}, "strategies": entries, **shared}
    with written(values) as recipe:
        started = time.perf_counter()
        specs = parse_rewards(recipe.get("reward_funcs"), recipe.folder)
        rows = [*prepare(row_options(recipe), TEST).rows]
        answers = Answers(recipe.folder / "answers.jsonl", "sft", rows, build_rewards(specs), lambda: engine)
        settings = sampling_settings(recipe, logprobs=True)
        strategy_results(parse_strategies(recipe, specs), answers, settings, specs[0].name)
        return time.perf_counter() - started


def misses(row: dict) -> list[str]:
    """Name what is promised and not kept."""
    ratio = row["cost"]["ratio"]
    return [f"{ratio} times the time of stage sample"] if ratio > MOST_COST else []


def main() -> int:
    """Evaluate, print the table, draw, time, write the result file; 1 where a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", type=Path, help="finished runs of recipes/tiny")
    parser.add_argument("--real", type=Path, help="finished runs of recipes/smollm2_135m")
    parser.add_argument("--runs", type=Path, default=Path("runs/inference_scaling"))
    parser.add_argument("--problems", type=int, help="so few a task, to try this: no result is written")
    arguments = parser.parse_args()
    tiny = arguments.tiny or arguments.runs / "runs" / "tiny"
    if arguments.tiny is None:
        arguments.runs.mkdir(parents=True, exist_ok=True)
        everything = [sys.executable, "-m", "reasoning_ext", "run", str(ROOT / "recipes" / "tiny")]
        subprocess.run(everything, cwd=arguments.runs, check=True)
    folders = {"tiny": tiny} | ({"real": arguments.real} if arguments.real else {})
    tasks = {task: evaluated(task, runs, arguments.runs, arguments.problems) for task, runs in folders.items()}
    print(table(tasks))
    pictures = arguments.runs if arguments.problems else PICTURES
    for task, models in tasks.items():
        save_tradeoff_png(pictured(models), pictures / f"inference_scaling{'' if task == 'tiny' else f'_{task}'}.png")
    spent = cost(tiny / MODELS["sft"], arguments.problems or PROMPTS)
    row = {"seed": 0, "tasks": tasks, "cost": spent}
    print(f"{spent['ratio']} times the time of stage sample")
    command = (
        f"python benchmarks/inference_scaling.py --tiny runs/tiny{' --real runs/smollm2_135m' * ('real' in tasks)}"
    )
    return 0 if arguments.problems else finish("inference_scaling", command, [row], misses)


if __name__ == "__main__":
    sys.exit(main())
