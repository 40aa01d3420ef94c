"""What was seen of the data, a card and a model -> the stages of a pipeline, each an edit of a packaged recipe.

A choice is a line of YAML with a comment that says why. What is not chosen here stays as the packaged recipe of the
card's size has it.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from reasoning_ext.check.memory.check import Card
from reasoning_ext.check.memory.plan import GIB
from reasoning_ext.check.memory.shapes import ShapeError, config_of
from reasoning_ext.init.look import Seen

BY_CARD = {48: "qwen3_8b", 24: "qwen3_4b", 16: "qwen3_1_7b", 0: "qwen25_05b"}  # GB of a card -> the packaged folder
PACKAGED = {"sft": "1_sft", "grpo": "2_grpo", "sample": "3_sample", "distill": "4_distill", "eval": "5_eval"}
GROUP, TEMPLATE = 8, 96  # completions of a prompt; tokens that a system prompt and a chat template take
LONGEST_PROMPT = 2048
SHORT_WARM_UP = {"warmup_steps": "warmup_steps: 0.1  # a tenth of the steps, however few they are"}
# golds -> what the system prompt asks for, the reward that judges, its parameters, and why
JUDGES = {
    "numbers": (r"the final answer in \boxed{}", "math_answer", "", "the golds are numbers or formulas, by value"),
    "letters": (r"the letter of the right option in \boxed{}", "choice_answer", "", "the golds are options or letters"),
    "words": (r"the final answer in \boxed{}", "exact_answer", "", "the golds are words, compared as texts"),
    "code": (
        "the whole program in one ```python block",
        "code_tests",
        "allow_code_execution: true",
        "true runs, in a sandbox, what the model writes: read docs/rewards.md on it before",
    ),
    "rubric": (
        "your answer",
        "llm_judge",
        "model: Qwen/Qwen3-8B, base_url: http://localhost:8000/v1, rubric: The reference lists what earns points. "
        "Give 10 for an answer that earns all of them and 0 for one that earns none.",
        "each row has its own rubric: a judge on a server scores by it; write your judge's name and address",
    ),
    "prose": (
        "your answer",
        "llm_judge",
        "model: Qwen/Qwen3-8B, base_url: http://localhost:8000/v1",
        "the answers are prose: a judge on a server compares with them; write your judge's name and address",
    ),
}


@dataclass(frozen=True)
class Stage:
    """One recipe to write.

    Attributes:
        name: its file without `.yaml`.
        source: the packaged recipe that it is made of, `qwen3_4b/2_grpo.yaml`.
        why: what it does and what to change, a line each.
        lines: `{key: the lines that take the place of the packaged ones}`, "" to leave the key out.
    """

    name: str
    source: str
    why: tuple[str, ...]
    lines: dict[str, str]


@dataclass(frozen=True)
class Wanted:
    """What recipes are made for: `model` None for the packaged one, `card` None for a CPU, `runs` the runs' folder."""

    seen: Seen
    card: Card | None
    model: str | None
    runs: str


def folder_for(card: Card | None) -> str:
    """Return the packaged folder for a card, the smallest for a CPU."""
    return next(name for least, name in BY_CARD.items() if (card.memory / GIB if card else 0) >= 0.9 * least)


def path_of(seen: Seen) -> list[str]:
    """Return the stages: SFT where there are traces; GRPO where answers can be judged, else what samples agree on."""
    if seen.golds == "none":
        return [*["sft"] * seen.traces, "sample", "distill", "eval"]
    return ["sft", "grpo", "sample", "distill", "eval"] if seen.traces else ["grpo", "eval"]


def stages(wanted: Wanted, packaged: dict[str, dict[str, Any]]) -> list[Stage]:
    """Choose the stages; `packaged` are the values of the packaged recipes, by stage as `PACKAGED` names them."""
    seen, found = wanted.seen, []
    steps = path_of(seen)
    model = wanted.model or packaged["sft"]["model_name_or_path"]
    student = model if wanted.model or seen.golds == "none" else packaged["distill"]["model_name_or_path"]
    numbers = {step: f"{i}_{step}" for i, step in enumerate(steps, 1)}
    outputs = {step: f"{wanted.runs}/{name}" for step, name in numbers.items()}
    lengths = _lengths(seen, model, packaged, wanted.card)
    trained = model
    for step in steps:
        lines = dict.fromkeys(("decontaminate", "dataset_config", "max_samples", "rename_columns"), "")
        lines |= {"output_dir": f"output_dir: {written(outputs[step])}"} | _length_lines(step, lengths, packaged[step])
        chosen = f"  # {_why_model(wanted)}" if trained == model else ""
        lines |= {"model_name_or_path": f"model_name_or_path: {written(trained)}{chosen}"} if step != "eval" else {}
        if step == "distill":
            lines |= {"dataset_name": f"dataset_name: {written(outputs['sample'])}  # the completions that it kept"}
            lines |= {"model_name_or_path": f"model_name_or_path: {written(student)}"} | SHORT_WARM_UP
            lines |= {"eos_token": ""} if student == model else {}
        else:
            lines |= _data_lines(seen, step) | {"system_prompt": f"system_prompt: {_system_prompt(seen)}"}
        lines |= _OF_STAGE[step](wanted, lengths) if step in _OF_STAGE else {}
        if step == "eval":
            lines["models"] = _models(model, student, outputs)
        source = f"{folder_for(wanted.card)}/{PACKAGED[step]}.yaml"
        found.append(Stage(numbers[step], source, _why(step, wanted), lines))
        trained = outputs[step] if step in ("sft", "grpo") else trained
    return found


def _why_model(wanted: Wanted) -> str:
    if wanted.model:
        return "as you said"
    return f"for {wanted.card.name}" if wanted.card else "a small one, because no card was found or named"


def _system_prompt(seen: Seen) -> str:
    asked = JUDGES.get(seen.golds, JUDGES["numbers"])[0]
    asked += ", with a decimal point" if seen.points else ""
    return f"Think step by step between <think> and </think>, then give {asked}."


def _lengths(seen: Seen, model: str, packaged: dict[str, dict[str, Any]], card: Card | None) -> dict[str, int]:
    """Return the tokens of a prompt, a completion and a training row, within the model's context."""
    context = 1 << 20
    with contextlib.suppress(ShapeError):
        context = config_of(model).get("max_position_embeddings") or context
    completion = packaged["grpo"]["max_completion_length"] if card else 256
    completion = max(completion, min(4 * completion, _up(1.25 * seen.completions, 256)))
    left = max(context - _up(1.25 * seen.completions, 8), context // 4)  # by completions as long as the table's
    prompt = min(_up(seen.problems + TEMPLATE, 64), LONGEST_PROMPT, 3 * context // 4, left)
    row = min(_up(seen.longest + TEMPLATE, 256), 2 * packaged["sft"]["max_length"], context)
    return {"prompt": prompt, "completion": min(completion, context - prompt), "row": row}


def _up(tokens: float, to: int) -> int:
    return math.ceil(tokens / to) * to


def _length_lines(step: str, lengths: dict[str, int], packaged: dict[str, Any]) -> dict[str, str]:
    whole = lengths["row"] if step == "sft" else lengths["prompt"] + lengths["completion"]
    lines = {"max_seq_length": f"max_seq_length: {whole}"} if "max_seq_length" in packaged else {}
    if step in ("sft", "distill"):
        dropped = "overlong_rows: drop  # longer rows, which are counted and never cut"
        return lines | {"max_length": f"max_length: {whole}", "overlong_rows": dropped}
    prompt = f"max_prompt_length: {lengths['prompt']}  # longer problems are left out"
    lines |= {"max_prompt_length": prompt} if step != "eval" else {}
    length = f"max_completion_length: {lengths['completion']}  # raise it where `truncated` is high"
    return lines | {"max_completion_length": length}


def _data_lines(seen: Seen, step: str) -> dict[str, str]:
    """Write how the rows are read, and which are held out."""
    found, reading = [f"dataset_name: {written(seen.name)}"], seen.reading
    if seen.config:
        found.append(f"dataset_config: {written(seen.config)}")
    if reading.rename:
        found.append(f"rename_columns: {written(reading.rename)}  # column of the data: name that its format expects")
    if reading.format:
        own = "  # the file beside this one; edit it where rows are read wrongly" if reading.code else ""
        found.append(f"dataset_format: {reading.format}{own}")
    if not seen.test_split:
        found.append(f"test_size: {held_out(seen.rows)}  # held out by a hash of the problem, the same in every stage")
    elif step == "eval":
        found.append(f"dataset_test_split: {written(seen.test_split)}")
    if step == "eval" and (seen.rows is None or seen.rows > 5000):
        found.append("max_samples: 500  # intervals of about 4 points; all where you want narrower ones")
    if seen.repeated:
        found.append(f"deduplicate: exact  # {seen.repeated} rows ask what an earlier one asks")
    return {"dataset_name": "\n".join(found), "dataset_format": ""}


def held_out(rows: int | None) -> float:
    """Return the share of rows to evaluate on: a tenth, more of few."""
    return 0.1 if rows is None or rows >= 500 else 0.2 if rows >= 50 else 0.25


def written(value: Any) -> str:
    """Write a value as YAML in one line, text without quotes where it needs none."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{written(key)}: {written(part)}" for key, part in value.items()) + "}"
    plain = re.compile(r"(?!(?:true|false|null)$)[a-z/][\w./-]*", re.ASCII | re.IGNORECASE)
    return value if isinstance(value, str) and plain.fullmatch(value) else json.dumps(value, ensure_ascii=False)


def _rewards(seen: Seen) -> tuple[str, str]:
    """Return the lines of the reward that judges, with and without a comment that says why it is that."""
    _, name, options, why = JUDGES[seen.golds]
    entry = f"  - {name}: {{{options}}}" if options else f"  - {name}"
    return f"  # {why}\n{entry}", entry


def _sft(wanted: Wanted, lengths: dict[str, int]) -> dict[str, str]:
    epochs = min(10, max(1, 1600 // (wanted.seen.rows or 1600)))
    cpu = "max_steps: 50  # a try on a CPU; leave it out for whole epochs" if wanted.card is None else ""
    return {
        "num_train_epochs": f"num_train_epochs: {epochs}  # about 100 steps, ten passes at the most",
        "max_steps": cpu,
    } | SHORT_WARM_UP


def _grpo(wanted: Wanted, lengths: dict[str, int]) -> dict[str, str]:
    longest = lengths["completion"]
    rewards = (
        f"reward_funcs:\n{_rewards(wanted.seen)[0]}\n"
        "  - think_format: {weight: 0.1}  # little: a reward for form alone unteaches answers [Dr.GRPO]\n"
        f"  - get_soft_overlong_punishment: {{weight: 0.5, max_completion_len: {longest}, "
        f"soft_punish_cache: {longest // 4}}}  # overlong shaping [DAPO, eq. 13]"
    )
    prompts = 2 if wanted.card is None else 8  # of a step
    most = min(50 if wanted.card is None else 200, max(20, 5 * (wanted.seen.rows or 10_000) // prompts))
    lines = {"reward_funcs": rewards, "max_steps": f"max_steps: {most}  # of {prompts} problems x {GROUP} completions"}
    if wanted.card is None:
        lines |= {"per_device_train_batch_size": f"per_device_train_batch_size: {GROUP}"}
        lines |= {"gradient_accumulation_steps": f"gradient_accumulation_steps: {prompts}  # few: a CPU is slow"}
    return lines


def _sample(wanted: Wanted, lengths: dict[str, int]) -> dict[str, str]:
    form = "  - think_format: {weight: 0.1}"
    if wanted.seen.golds == "none":
        return {
            "reward_funcs": f"reward_funcs:  # or llm_judge: {{model: NAME, base_url: URL}}, with min_reward\n{form}",
            "num_generations": "num_generations: 8",
            "keep": "keep: 1",
            "min_reward": "",
            "min_agreement": "min_agreement: 0.6  # without golds: right is what 6 in 10 completions answer",
        }
    judged, by_judge = _rewards(wanted.seen)[0], JUDGES[wanted.seen.golds][1] == "llm_judge"
    least = "0.8  # of 1.1" if by_judge else "1.1  # the right answer, in the right form"
    return {"reward_funcs": f"reward_funcs:\n{judged}\n{form}", "min_reward": f"min_reward: {least}", "keep": "keep: 1"}


def _eval(wanted: Wanted, lengths: dict[str, int]) -> dict[str, str]:
    if wanted.seen.golds == "none":
        return {"reward_funcs": "reward_funcs: [think_format]  # the form: without golds nobody knows what is right"}
    judged = f"# the first says what is right\n{_rewards(wanted.seen)[1]}"
    return {"reward_funcs": f"reward_funcs:  {judged}\n  - think_format"}


_OF_STAGE = {"sft": _sft, "grpo": _grpo, "sample": _sample, "eval": _eval}


def _models(model: str, student: str, outputs: dict[str, str]) -> str:
    before = {} if student == model else {"student before": student}
    named = {"base": model} | {step: outputs[step] for step in ("sft", "grpo") if step in outputs}
    named |= before | {"distilled": outputs["distill"]} if "distill" in outputs else {}
    return "models:\n" + "\n".join(f"  {label}: {written(name)}" for label, name in named.items())


def _why(step: str, wanted: Wanted) -> tuple[str, ...]:
    """Say in the header what a stage is for and what could be changed."""
    seen = wanted.seen
    data = f"{written(seen.name)} ({seen.rows or 'many'} rows, golds: {seen.golds})"
    if step == "sft":
        return (f"SFT on the traces of {data}, so that the model has the form before it is rewarded.",)
    if step == "grpo" and seen.traces:
        return (f"GRPO from the SFT model on {data}: completions with the right answer are rewarded.",)
    if step == "grpo":
        return (
            f"GRPO on {data}, without SFT first: the rows have answers and no traces.",
            "Where most rewards stay 0, let a larger model write traces first: reasoning-ext init recipes/teacher",
        )
    if step == "sample" and seen.golds == "none":
        return (f"Samples of {data}: kept is what most completions of a problem agree on [arXiv:2210.11610].",)
    return {
        "sample": (f"Rejection sampling on {data}: right answers in the right form are kept, one a problem.",),
        "distill": ("Distillation: SFT on the samples that were kept.",),
        "eval": (f"The models on the held-out rows of {data}: greedy, pass@k, majority. Read `truncated` beside it.",),
    }[step]
