"""What says which of several completions is best without the gold: `by` of a strategy.

`mean_logprob`, a reward, or a reward model, a folder's or the hub's. A scorer is given the prompt and the completion,
and no column of the data set. Higher is better; None, where a scorer has nothing to say, counts as the lowest.
"""

from __future__ import annotations

import ast
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from reasoning_ext.errors import KeyProblem, one_line
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.recipe.plugins import Plugin
from reasoning_ext.recipe.user_code import parsed
from reasoning_ext.runs.folder import fingerprint
from reasoning_ext.runs.identity import text_hash
from reasoning_ext.scoring.call import build_rewards, call_reward
from reasoning_ext.scoring.spec import EntryError, RewardSpec, parse_rewards

MEAN_LOGPROB = "mean_logprob"
GOLD = ("answer", "solution")
ALLOWED = "mean_logprob, a reward that needs no gold, or a reward model's folder or name on the hub"
Scores = list[float | None]


@dataclass(frozen=True)
class Candidate:
    """What is scored: a whole completion, how many tokens it has, and their mean log-probability.

    `answered` is false where the model or the server gave none.
    """

    prompt: list[dict[str, str]]
    text: str
    tokens: int
    logprob: float | None = None
    answered: bool = True


@dataclass(frozen=True)
class Scorer:
    """A scorer that has been found: a reward, a reward model, or the log-probability where it is neither.

    Attributes:
        name: as the recipe spells it.
        spec: the reward.
        model: the reward model's folder or its name on the hub.
        cpu: whether that stays on the CPU.
    """

    name: str
    spec: RewardSpec | None = None
    model: str = ""
    cpu: bool = False

    @property
    def key(self) -> str:
        """What tells its choices from another one's: a reward's text and a model's files too, which may be changed."""
        if not self.spec:
            return f"{self.name} {fingerprint(self.model)}" if os.path.isdir(self.model) else self.name
        options = f" {self.spec.options}" * bool(self.spec.options)
        return f"{self.name}{options} {text_hash(self.spec.plugin.file.read_text(encoding='utf-8'))[:8]}"


def find_scorer(by: Any, place: tuple, recipe: Recipe, specs: list[RewardSpec]) -> Scorer:
    """Find what `by` names: a reward of the recipe is meant with its own parameters.

    Raises:
        KeyProblem: there is no such scorer, or it reads the gold or another column.
    """
    spelling = next(iter(by)) if isinstance(by, dict) and len(by) == 1 else by
    if not isinstance(spelling, str) or not spelling:
        raise KeyProblem(place, f"found {by!r}", ALLOWED)
    if by == MEAN_LOGPROB:
        return Scorer(by)
    if isinstance(by, str) and (os.path.isdir(recipe.local(by)) or ("/" in by and ".py" not in by)):
        if by.startswith((".", "/")) and not os.path.isfile(os.path.join(recipe.local(by), "config.json")):
            raise KeyProblem(place, f"found {by}, where no model is", ALLOWED)
        return Scorer(by, model=recipe.local(by), cpu=bool(recipe.get("use_cpu")))
    try:
        [spec] = [spec for spec in specs if spec.name == by] or parse_rewards([by], recipe.folder)
    except EntryError as error:
        told, hint = error.problem, error.problem.hint or f"allowed: {ALLOWED}"
        raise KeyProblem((*place, *error.path[3:]), told.found, told.allowed, hint) from error
    if column := next((name for name in (_gold_of(spec.plugin), *spec.columns) if name), ""):
        reads = f"a scorer that {'reads the gold' if column in GOLD else 'needs a column of the data'} ({column})"
        raise KeyProblem(place, f"found {spec.name}, {reads}", ALLOWED)
    return Scorer(spelling, replace(spec, weight=1.0, gate=None, when={}, schedule=(), stepwise=False))


def _gold_of(plugin: Plugin) -> str:
    """Return the name by which a function must have the gold, or ""; `kwargs.get("answer")` goes without."""
    read: set[Any] = {*plugin.parameters}
    nodes = [node for node in parsed(plugin.file).body if getattr(node, "name", "") == plugin.name]
    for node in (part for found in nodes for part in ast.walk(found)):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            read.add(str(node.slice.value))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):  # what a factory returns
            read |= {one.arg for one in (*node.args.args, *node.args.kwonlyargs)}
    return next((name for name in GOLD if name in read), "")


def open_scorer(scorer: Scorer) -> Callable[[Sequence[Candidate]], Scores]:
    """Return the function that scores N candidates; of `mean_logprob` and reward models the scores are between 0 and 1.

    Raises:
        RewardError, KeyProblem: a reward or a reward model cannot be had; when it is called, that it fails.
    """
    if scorer.model:
        return partial(_by_model, *_reward_model(scorer.model, scorer.cpu))
    if scorer.spec is None:
        return _by_logprob
    return partial(_by_reward, build_rewards([scorer.spec], tolerated=0)[0])


def _by_logprob(candidates: Sequence[Candidate]) -> Scores:
    """Score by the geometric mean of the tokens' probabilities, as arXiv:2203.11171 weighs its votes."""
    unknown = sum(one.logprob is None and one.answered and one.tokens > 0 for one in candidates)
    if unknown:
        found = f"found mean_logprob, but {unknown} of {len(candidates)} completions were drawn without"
        raise KeyProblem("strategies", f"{found} log-probabilities; choose another output_dir, or another scorer")
    return [None if one.logprob is None else math.exp(one.logprob) for one in candidates]


def _by_reward(reward: Any, candidates: Sequence[Candidate]) -> Scores:
    given: dict[str, Any] = {"completions": [[{"role": "assistant", "content": one.text}] for one in candidates]}
    given |= {"prompts": [one.prompt for one in candidates], "completion_ids": [[0] * one.tokens for one in candidates]}
    return call_reward(reward, **given) if candidates else []


@lru_cache(maxsize=1)  # of all models that are evaluated
def _reward_model(name: str, cpu: bool) -> tuple[Any, Any]:
    """Load a classifier of one label and its tokenizer, on the device that the recipe's own models take."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from reasoning_ext.models.devices import found_device

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForSequenceClassification.from_pretrained(name, dtype="auto").eval()
    except (OSError, ValueError, KeyError) as error:
        found = f"found {name}, which cannot be loaded as a reward model: {one_line(error)}"
        raise KeyProblem("strategies", found) from error
    if model.config.num_labels != 1 or not tokenizer.chat_template:
        lacks = "" if tokenizer.chat_template else " and no template"
        found = f"found {name}, with {model.config.num_labels} labels{lacks}"
        raise KeyProblem("strategies", found, "a reward model: one label, and a chat template")
    return tokenizer, model.to(found_device(cpu).kind)


def _by_model(tokenizer: Any, model: Any, candidates: Sequence[Candidate]) -> Scores:
    """Score with a reward model, one at a time so that no padding counts: the sigmoid of its logit."""
    import torch

    scores: Scores = []
    for one in candidates:
        messages = [*one.prompt, {"role": "assistant", "content": one.text}]
        ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)["input_ids"]
        with torch.inference_mode():
            scores.append(float(model(input_ids=ids.to(model.device)).logits[0, 0].float().sigmoid()))
    return scores
