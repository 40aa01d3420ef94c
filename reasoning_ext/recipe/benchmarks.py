r"""Benchmarks by name: what `benchmark: gsm8k` sets in a recipe of stage eval, and what others have measured.

What is set are defaults: a key that the recipe writes itself wins. The prompt is the one that DeepSeek-R1
(arXiv:2501.12948) and Qwen2.5-Math (arXiv:2409.12122) recommend, where the latter has it, as a system message;
temperature and top_p are DeepSeek-R1's.
`lm_eval:TASK` is a task of lm-evaluation-harness, which brings its own rows, prompt and figures.
"""

from __future__ import annotations

import copy
import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reasoning_ext.recipe.keys import EVAL_REWARDS

if TYPE_CHECKING:
    from reasoning_ext.recipe.load import Recipe

LM_EVAL = "lm_eval:"
BOXED = r"Please reason step by step, and put your final answer within \boxed{}."
LETTER = r"Please reason step by step, and put the letter of the right option within \boxed{}."
OF_HUB = ("dataset_config", "dataset_test_split")  # nothing is known of the splits of another data set
SAMPLED = ("temperature", "top_p")  # do nothing where nothing is sampled


def _prompts(examples: str) -> dict[str, Any]:
    """Return strategies that ask alone, with one more sentence, and behind four solved questions of our own making.

    A prompt moves a score by itself (arXiv:2205.11916, 2201.11903), and the examples stand in nobody's test split.
    """
    cot = ({"prompt": "Let's think step by step."}, {"examples": examples})
    return {"strategies": ["greedy", *({"cot": options} for options in cot)]}


@dataclass(frozen=True)
class Published:
    """A figure that somebody else measured, in per cent, how it was measured, and where it stands."""

    model: str
    percent: float
    setting: str
    source: str


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark sets, by key, and what others have measured on it."""

    defaults: dict[str, Any]
    published: tuple[Published, ...]


# how it was measured, and where it stands -> the model -> its figure
Figures = dict[tuple[str, str], dict[str, float]]
R1 = ("mean of up to 64 samples, temperature 0.6, top_p 0.95, 32,768 tokens", "arXiv:2501.12948")
QWEN3 = ("thinking, temperature 0.6, top_p 0.95, top_k 20", "arXiv:2505.09388")
QWEN25 = ("the makers' own prompt, not published", "arXiv:2412.15115")
QWEN25_MATH = ("greedy, chain of thought without examples", "arXiv:2409.12122")
POLARIS = ("mean of 8 samples", "github.com/ChenxinAn-fdu/POLARIS")
EXAMPLES = ("greedy, 8 examples with chains of thought, 1,000 problems", "arXiv:2201.11903")
R1_SMALL, R1_7B = "DeepSeek-R1-Distill-Qwen-1.5B", "DeepSeek-R1-Distill-Qwen-7B"


PUBLISHED: dict[str, Figures] = {
    "gsm8k": {
        QWEN25: {"Qwen2.5-0.5B-Instruct": 49.6, "Qwen2.5-1.5B-Instruct": 73.2, "Qwen2.5-7B-Instruct": 91.6},
        QWEN25_MATH: {"Qwen2.5-Math-1.5B-Instruct": 84.8, "Qwen2.5-Math-7B-Instruct": 95.2},
    },
    "math500": {R1: {R1_SMALL: 83.9, R1_7B: 92.8}, QWEN3: {"Qwen3-1.7B": 93.4}},
    "aime24": {R1: {R1_SMALL: 28.9, R1_7B: 55.5}, QWEN3: {"Qwen3-1.7B": 48.3}},
    "aime25": {QWEN3: {"Qwen3-1.7B": 36.8, "Qwen3-4B": 65.6}},
    "amc23": {POLARIS: {"Qwen3-4B": 87.2, R1_7B: 81.9}},
    "svamp": {EXAMPLES: {"PaLM 540B": 79.0, "GPT-3 175B (text-davinci-002)": 68.9}},
    "gpqa_diamond": {R1: {R1_SMALL: 33.8, R1_7B: 49.1}, QWEN3: {"Qwen3-1.7B": 40.1}},
    "mmlu_pro": {
        QWEN25: {"Qwen2.5-1.5B-Instruct": 32.4, "Qwen2.5-7B-Instruct": 56.3},
        ("exact match, 32,768 tokens", "arXiv:2501.12948"): {"DeepSeek-R1": 84.0},
    },
}
OF_LETTERS = {"system_prompt": LETTER, "reward_funcs": ["choice_answer", "think_format"]}
# data set, its configuration and split, format, samples a problem, tokens of each at most, and what else is set
SETS: dict[str, tuple[str, str | None, str, str, int, int, dict[str, Any]]] = {
    "gsm8k": ("openai/gsm8k", "main", "test", "gsm8k", 4, 4096, _prompts("word_problems")),
    "math500": ("HuggingFaceH4/MATH-500", None, "test", "math", 4, 16384, _prompts("competition")),
    "aime24": ("HuggingFaceH4/aime_2024", None, "train", "aime", 16, 32768, {}),
    "aime25": ("math-ai/aime25", None, "test", "aime", 16, 32768, {}),
    "amc23": ("math-ai/amc23", None, "test", "math", 16, 16384, {}),
    "svamp": ("ChilleD/SVAMP", None, "test", "svamp", 4, 4096, _prompts("word_problems")),
    "gpqa_diamond": (
        *("Idavidrein/gpqa", "gpqa_diamond", "train", "gpqa", 8, 16384),
        OF_LETTERS | {"format_kwargs": {"seed": 0}},
    ),
    "mmlu_pro": (
        *("TIGER-Lab/MMLU-Pro", None, "test", "mmlu", 1, 4096),
        OF_LETTERS | {"format_kwargs": {"shuffle": False}},
    ),
}


def _benchmark(name: str) -> Benchmark:
    """Return a benchmark as the tables have it."""
    *data, row_format, k, length, more = SETS[name]
    keys = ("dataset_name", "dataset_config", "dataset_test_split")
    defaults: dict[str, Any] = {key: value for key, value in zip(keys, data, strict=True) if value}
    defaults |= {"dataset_format": row_format, "system_prompt": BOXED, "num_generations": k, "temperature": 0.6}
    figures = (Published(model, value, *how) for how, of in PUBLISHED[name].items() for model, value in of.items())
    return Benchmark(defaults | {"top_p": 0.95, "max_completion_length": length, **more}, tuple(figures))


BENCHMARKS = {name: _benchmark(name) for name in SETS}


def lm_eval_task(recipe: Recipe) -> str:
    """Return the task of lm-evaluation-harness that a recipe names, a YAML file of one as a path; "" for none."""
    name = recipe.values.get("benchmark") or ""
    return recipe.local(name.removeprefix(LM_EVAL)) if name.startswith(LM_EVAL) else ""


def reward_entries(recipe: Recipe) -> list[Any]:
    """Return the entries of `reward_funcs`, those of stage eval where it names none; a task of the harness has none."""
    ours = recipe.stage == "eval" and not lm_eval_task(recipe)
    return recipe.values.get("reward_funcs") or (EVAL_REWARDS if ours else [])


def nearest_benchmark(name: str) -> str:
    """Return the benchmark whose name is most like another one."""
    return difflib.get_close_matches(name, [*BENCHMARKS], 1, cutoff=0.0)[0]


def _defaults(recipe: Recipe) -> dict[str, Any]:
    """Return what a recipe's benchmark says on the keys of its stage that do something beside the recipe's own."""
    name = recipe.values.get("benchmark")
    found = dict(BENCHMARKS[name].defaults) if name in BENCHMARKS else {}
    elsewhere = recipe.values.get("datasets") or recipe.values.get("dataset_name", found.get("dataset_name"))
    idle = {*OF_HUB} if elsewhere != found.get("dataset_name") else set()
    idle |= {*SAMPLED} if recipe.values.get("num_generations") == 0 else set()
    idle |= {"dataset_name"} if recipe.values.get("datasets") else set()
    return {key: value for key, value in found.items() if key in recipe.keys and key not in idle}


def set_defaults(recipe: Recipe) -> None:
    """Set what a recipe's benchmark says where the recipe says nothing; their line is the benchmark's.

    Of a recipe that names its own data, nothing is set that belongs to the hub's.
    """
    line, said = recipe.lines.get(("benchmark",)), {place[0] for place in recipe.lines}
    for key, value in _defaults(recipe).items():
        if key not in said:
            recipe.values[key] = copy.deepcopy(value)
            recipe.lines |= {(key,): line} if line else {}


def benchmark_line(recipe: Recipe) -> str:
    """Say which values are the benchmark's and which of its keys the recipe sets otherwise; "" without a benchmark."""
    defaults, own = _defaults(recipe), changed(recipe)
    sets = ", ".join(f"{key}: {value}" for key, value in defaults.items() if key not in own)
    others = ", ".join(f"{key}: {recipe.get(key)}" for key in own)
    said = f"{recipe.values.get('benchmark')} sets {sets}" + (f"; other than its own: {others}" if others else "")
    return said if defaults else ""


def changed(recipe: Recipe) -> list[str]:
    """Return the keys of a recipe's benchmark that have another value, and those that take other or fewer rows."""
    own = [key for key, value in _defaults(recipe).items() if recipe.get(key) != value]
    return own + [key for key in ("datasets", "max_samples") if recipe.values.get(key)]
