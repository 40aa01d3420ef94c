"""Write the pages of docs/reference/ from the code, so that they cannot fall behind it; `make docs` runs it.

python docs/scripts/pages.py            write them
python docs/scripts/pages.py --check    exit with 1 where one of them is not as it would be written
"""

import ast
import re
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from reasoning_ext.cli import app
from reasoning_ext.recipe.benchmarks import BENCHMARKS
from reasoning_ext.recipe.keys import STAGES
from reasoning_ext.recipe.known_keys import MANAGED, stage_keys
from reasoning_ext.recipe.plugins import functions_at
from reasoning_ext.recipe.trl_fields import Key, dataclass_keys, describe
from reasoning_ext.runs.health import RULES
from reasoning_ext.scoring.spec import LAYER_OPTIONS, RewardSpec

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
MADE = "<!-- made by docs/scripts/pages.py; `make docs` makes it anew -->\n"
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example):$", re.MULTILINE)
OURS = ("Shared", "Trained", "Preferences", "Supervised", "Rollouts", "Sampling", "Evaluation")
PUBLIC = {  # what scripts and rewards of one's own may call: module, its file, names
    "reasoning_ext.think": ("think/__init__.py", "split answer join well_formed content said boxes last_boxed"),
    "reasoning_ext.verifier": ("verifier/__init__.py", "judge judge_all alike said kind unreadable"),
    "reasoning_ext.scoring.spec": ("scoring/spec.py", "parse_rewards"),
    "reasoning_ext.scoring.call": ("scoring/call.py", "build_rewards"),
    "reasoning_ext.recipe.load": ("recipe/load.py", "load_recipes load_recipe"),
    "reasoning_ext.pipeline": ("pipeline.py", "run_recipes"),
    "reasoning_ext.runs.read": ("runs/read.py", "find_runs read_run"),
    "reasoning_ext.runs.paired": ("runs/paired.py", "paired mcnemar flip_test bootstrap_interval holm problems_needed"),
    "reasoning_ext.evaluate.metrics": ("scoring/metrics.py", "metrics pass_at_k majority_right interval"),
}


def keys_page() -> str:
    """Write every key of every stage in tables, ours first, then TRL's by the class that has them."""
    groups: dict[str, dict[tuple, list[str]]] = defaultdict(lambda: defaultdict(list))
    for stage in STAGES:
        for name, key in sorted(stage_keys(stage).items()):
            if name not in MANAGED:
                groups[_owner(key)][name, *_cells(key)].append(stage)
    lines = ["# Recipe keys", "", MADE, KEYS_INTRO.format(trl=version("trl"), transformers=version("transformers"))]
    for owner in sorted(groups, key=lambda one: (one != "reasoning-ext", one)):
        lines += [f"\n## {owner}\n", "| key | stages | holds | default | what it is |", "|---|---|---|---|---|"]
        for (name, holds, default, text), stages in sorted(groups[owner].items()):
            of = "all" if len(stages) == len(STAGES) else ", ".join(stages)
            lines.append(f"| `{name}` | {of} | {holds} | {default} | {text} |")
    lines += ["\n## Not for recipes\n", "| key | why |", "|---|---|"]
    lines += [f"| `{name}` | {_cell(why)} |" for name, why in sorted(MANAGED.items())]
    return "\n".join(lines) + "\n"


KEYS_INTRO = """\
One recipe is one flat YAML file for one stage. These are the keys that the installed libraries make, here TRL {trl} and
transformers {transformers}; `reasoning-ext list keys grpo` prints those of your installation, and `reasoning-ext schema` gives
them to your editor. [Recipes](../recipes.md) explains the ones of reasoning-ext. A default of "-" is worked out at run time, or
is nothing."""


def _owner(key: Key) -> str:
    name = key.owner.split()[0]
    return "reasoning-ext" if name in OURS else f"{name} of {key.owner.split()[2]}"


def _cells(key: Key) -> tuple[str, str, str]:
    holds = " / ".join(f"`{choice}`" for choice in key.choices) or _cell(describe(key.annotation))
    return holds, f"`{key.default}`" if key.default not in (None, "") else "-", _cell(key.text)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("`&lt;", "`<").replace("\n", " ")


def rewards_page() -> str:
    """Write each reward's signature and docstring, and the options that all have."""
    own = dataclass_keys(RewardSpec)
    lines = ["# Rewards, one by one", "", MADE, REWARDS_INTRO, "| option | default | what it is |", "|---|---|---|"]
    for name in LAYER_OPTIONS:
        lines.append(f"| `{name}` | `{own[name].default}` | {_cell(own[name].text)} |")
    for _, _, node in functions_at(["reasoning_ext.rewards"]):
        lines += ["", *_entry(node, "##")]
    return "\n".join(lines) + "\n"


REWARDS_INTRO = """\
A reward is a plain TRL function. What has a default in its signature may be set in a recipe; what has none is a column of the
data. [Rewards](../rewards.md) tells how they are used and how to add one. Options of every reward, TRL's and yours too:
"""


def benchmarks_page() -> str:
    """Write what each benchmark sets and what others have measured on it."""
    lines = [
        "# Benchmarks",
        "",
        MADE,
        BENCHMARKS_INTRO,
        "| benchmark | data set, split | format | samples | tokens | its own |",
    ]
    lines.append("|---|---|---|---|---|---|")
    shown = (
        "dataset_name",
        "dataset_config",
        "dataset_test_split",
        "dataset_format",
        "num_generations",
        "max_completion_length",
    )
    alike, known = ("temperature", "top_p", "system_prompt"), stage_keys("eval")
    for name, benchmark in BENCHMARKS.items():
        values = benchmark.defaults
        data = " ".join(f"`{values[key]}`" for key in shown[:3] if key in values)
        own = [f"`{key}: {values[key]}`" for key in values if key in known and key not in (*shown, *alike)]
        cells = (
            name,
            data,
            f"`{values['dataset_format']}`",
            values["num_generations"],
            values["max_completion_length"],
        )
        lines.append(f"| {' | '.join(map(str, cells))} | {_cell(', '.join(own)) or '-'} |")
    lines += [
        "",
        "## Published figures",
        "",
        PUBLISHED_INTRO,
        "| benchmark | model | per cent | measured | source |",
        "|---|---|---|---|---|",
    ]
    for name, benchmark in BENCHMARKS.items():
        lines += [
            f"| {name} | {one.model} | {one.percent} | {one.setting} | {one.source} |" for one in benchmark.published
        ]
    return "\n".join(lines) + "\n"


BENCHMARKS_INTRO = r"""`benchmark: NAME` in a recipe of `stage: eval` sets the data set, its format, the prompt and how
completions are drawn. What the recipe writes itself wins; `check` and the start of a run say which values are whose, and
`recipe.yaml` in the run's folder holds all of them.

```yaml
stage: eval
models: {sft: runs/1_sft, grpo: runs/2_grpo}
benchmark: math500
max_completion_length: 8192       # in the place of the benchmark's
output_dir: runs/math500
```

Where the hub cannot be asked, name a file with the rows, `dataset_name: math500.jsonl`: the format reads the hub's columns
and those of the files that others hand round. `gpqa_diamond` is gated: accept its terms on the hub and set `HF_TOKEN`. Its
options are shuffled by a hash of each row, the same in every run whatever its seed; those of `mmlu_pro` stand as published.

A prompt moves a score by itself. `gsm8k`, `math500` and `svamp` are asked three times therefore: with the question alone, with
one more sentence, and behind four solved questions, `word_problems` or `competition`. These were made up for this
(`examples/few_shot`), so that they stand in no test split; `cot: {examples: ./gsm8k_train.jsonl, shots: 8}` takes those of a
file. Look at all three before you say what a training brought, or write a second recipe with another `system_prompt`, `null`
for none.

`benchmark: lm_eval:TASK` runs a task of [lm-evaluation-harness](https://github.com/EleutherAI/lm-evaluation-harness) on the
loaded models (`pip install 'reasoning-ext[lm-eval]'`); `lm_eval:./task.yaml` is a file of your own, whose `dataset_path:
json` reads local rows. Rows, prompt, sampling and judge are the task's. `system_prompt`, `max_samples`,
`chat_template_kwargs` and `max_completion_length` are handed on, and the harness cuts thoughts off at the model's own closing
tag; without `max_completion_length` it stops where the task says, often after 256 tokens, in the middle of a thought. The
figures in `eval.json` have the harness's names and our intervals. Where it has texts drawn, `answers.jsonl` keeps them without
their thoughts, each with the task's metrics, for `compare` and the report; nothing is compared with training data. Tasks that
need the harness's extra `[math]` (`minerva_math500`) are refused: it wants antlr4-python3-runtime 4.11, and math-verify has
4.13 here. Write `benchmark: math500` for these.

All eight have `temperature: 0.6`, `top_p: 0.95` (DeepSeek-R1's) and a prompt that asks for steps and `\boxed{}`; samples are
completions a problem beside the greedy one.
"""
PUBLISHED_INTRO = """\
Printed below our own figures after an evaluation. Prompts, samples and judges differ from paper to paper, so that a few
points of difference say nothing.
"""


def health_page() -> str:
    """Write the health rules: thresholds, where they come from, what they mean and what mends it."""
    lines = [
        "# Health rules",
        "",
        MADE,
        HEALTH_INTRO,
        "| rule | stages | reads | threshold | what it means | what to do | source |",
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for rule in RULES:
        keys, least = ", ".join(f"`{key}`" for key in rule.keys), f"{rule.side} {rule.threshold:g}".strip()
        cells = (
            f"`{rule.name}`",
            ", ".join(rule.stages),
            keys,
            least,
            *map(_cell, (rule.meaning, rule.edit, rule.source)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


HEALTH_INTRO = """\
What a training says in a line that begins with `health`, and the report of a finished one; `health: {entropy_low: 0.02,
hacking: off}` in a recipe changes and silences rules. Where a threshold stands without a side, the meaning says what it counts:
steps, logs, or times the start. [Reading a run](../reading_a_run.md#health-rules) tells how they are read.
"""


def api_page() -> str:
    """Write the signatures and docstrings of what scripts may call."""
    lines = ["# Python API", "", MADE, API_INTRO]
    for module, (file, names) in PUBLIC.items():
        tree = ast.parse((ROOT / "reasoning_ext" / file).read_text(encoding="utf-8"))
        found = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        lines += ["", f"## {module}", "", " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())]
        for name in names.split():
            lines += ["", *_entry(found[name], "###")]
    return "\n".join(lines) + "\n"


API_INTRO = """\
The command line is the way in for most. From Python, `reasoning_ext.rewards.NAME`, `reasoning_ext.think` and
`reasoning_ext.verifier` are there to be imported, in rewards of your own and in plain TRL
([examples/plain_trl.py](../../examples/plain_trl.py)); the other functions on this page are what the commands call, and
may change between releases. A notebook that uses them: [write a reward](../../examples/notebooks/write_a_reward.ipynb).
"""


def _entry(node: ast.FunctionDef, level: str) -> list[str]:
    """Write a function as Markdown: name, signature, docstring with its sections as lists."""
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    signature = f"{node.name}({ast.unparse(node.args)}){result}"
    if len(signature) > 100:
        signature = f"{node.name}(\n    " + ",\n    ".join(_arguments(node)) + f",\n){result}"
    return [f"{level} {node.name}", "", "```python", signature, "```", "", *_docstring(ast.get_docstring(node) or "")]


def _arguments(node: ast.FunctionDef) -> list[str]:
    one_each = re.split(r", (?![^\[(]*[\])])", ast.unparse(node.args))
    return [argument for argument in one_each if argument]


def _docstring(text: str) -> Iterator[str]:
    """Yield the lines of a docstring in Markdown; doctests at the end of its text become a block too."""
    first, *sections = SECTION.split(text)
    yield from _with_examples(first)
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        yield f"\n**{title}**\n"
        body = textwrap.dedent(body.strip("\n"))
        if title == "Example":
            yield from ("```python", body.strip(), "```")
        elif title in ("Returns", "Yields"):
            yield _safe(" ".join(body.split()))
        else:
            for item in re.split(r"\n(?=\S)", body.strip()):
                name, _, what = " ".join(item.split()).partition(": ")
                yield f"- `{name}`: {_safe(what)}"


def _with_examples(text: str) -> Iterator[str]:
    before, prompt, after = text.strip().partition(">>> ")
    yield _safe(before.strip())
    if prompt:
        yield from ("", "```python", prompt + after.strip(), "```")


def _safe(text: str) -> str:
    """Keep tags that stand outside backticks from being HTML."""
    parts = text.split("`")
    return "`".join(part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(parts))


def cli_page() -> str:
    """Write the help of every command."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="reasoning-ext"), name="reasoning-ext")
    text = re.sub(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+\n", "", text)  # cut short there, whole below
    text = re.sub(r"\* `--help`: .*\n", "", text).replace("**Options**:\n\n\n", "")
    return re.sub(r"\n{3,}", "\n\n", f"# Command line\n\n{MADE}\n{CLI_INTRO}\n" + text.partition("\n")[2])


CLI_INTRO = """\
Every command has `--help`. `run` and `check` take recipes and folders of recipes, and after them `--key value` for any
[key](keys.md), which stands in the place of the recipe's. Exit codes: 0 all is well, 2 what you can mend, in one line on standard
error; 129, 130 and 143 after SIGHUP, Ctrl-C and SIGTERM.
"""

PAGES = {
    "keys.md": keys_page,
    "rewards.md": rewards_page,
    "cli.md": cli_page,
    "api.md": api_page,
    "benchmarks.md": benchmarks_page,
    "health.md": health_page,
}


def main() -> int:
    """Write the pages, or with --check tell which of them differ."""
    check, differ = "--check" in sys.argv[1:], []
    for name, write in PAGES.items():
        text, file = write(), REFERENCE / name
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            differ.append(name)
            if not check:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
    print("docs/reference:", f"{'differ' if check else 'written'}: {', '.join(differ)}" if differ else "as they were")
    return int(check and bool(differ))


if __name__ == "__main__":
    sys.exit(main())
