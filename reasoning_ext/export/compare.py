"""Is an exported model the model that was trained: both answer the same prompts alike.

The reference is the adapter on its base as that is published, in 16 bits or float32; for a run of whole weights, these. (A
run on 4-bit weights was trained against their rounding error, which no merged model can have and which would hide a wrong
merge. How far the export is from that model is measured and told, not judged.) The exported folder is loaded afresh.

The reference writes greedy completions, and then both models read them (teacher forcing): two models that are left to run
diverge for good after the first near-tie, which says nothing about them. Counted over the T tokens of all completions:

    equal tokens    the share of positions where both find the same token most likely
    KL              mean of KL(reference || exported) a token, in nats, in float32
    change          mean of KL(reference || base): what the training did. The export must be nearer than the base
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from reasoning_ext.data.lineage import prompt_settings
from reasoning_ext.data.row_options import row_options
from reasoning_ext.data.rows import read_rows
from reasoning_ext.data.sources import read_jsonl
from reasoning_ext.data.values import read_chat
from reasoning_ext.engines.base import SamplingSettings
from reasoning_ext.errors import UserError
from reasoning_ext.export.merge import ExportError, Source, load_weights
from reasoning_ext.models.load import load_model
from reasoning_ext.models.loaded import Loaded, LoadOptions
from reasoning_ext.recipe.load import Recipe, load_recipe
from reasoning_ext.recipe.trl_fields import MODEL_CONFIG
from reasoning_ext.runs.folder import say, written_recipe
from reasoning_ext.runs.process import free_memory
from reasoning_ext.runs.read import read_run
from reasoning_ext.think.render import render_prompt
from reasoning_ext.think.template import Contract

PROMPTS, NEW_TOKENS, BATCH = 20, 64, 5
LEAST_EQUAL, MOST_KL, LEAST_CHANGE = 0.95, 0.02, 1e-6
FEW_TOKENS = 200  # one of them is half a per cent
ROWS_READ = 200  # to find twenty different prompts among
QUANTISED = ("load_in_4bit", "load_in_8bit")


@dataclass
class Reference:
    """What the trained model says.

    Attributes:
        sequences: token ids of each prompt and of its greedy completion.
        log_probs_T_V: for each completion, log probabilities of the next token at each of its positions.
        change: mean KL to the base of an adapter.
    """

    sequences: list[tuple[list[int], list[int]]]
    log_probs_T_V: list[Any]
    change: float | None = None


@dataclass
class Comparison:
    """An export's figures; see the module's text. `trained_kl` is against the model in the bits that it was trained in."""

    prompts: int
    tokens: int
    equal_tokens: float
    kl: float
    change: float | None = None
    trained_kl: float | None = None

    def line(self) -> str:
        """Return all figures in one line."""
        line = f"{self.equal_tokens:.1%} of {self.tokens} tokens equal on {self.prompts} prompts, KL {self.kl:.2g}"
        line += "" if self.change is None else f", KL of the base {self.change:.2g}"
        if self.trained_kl is not None:
            line += f", KL to the quantised model it was trained as {self.trained_kl:.2g}"
        return line

    def problems(self) -> list[str]:
        """Say what is wrong with the export; empty where nothing is. Figures that are no numbers are wrong."""
        found = []
        if not self.equal_tokens >= LEAST_EQUAL:
            found.append(f"{self.equal_tokens:.1%} equal tokens, allowed: {LEAST_EQUAL:.0%} or more")
        if not self.kl < MOST_KL:
            found.append(f"KL {self.kl:.2g}, allowed: below {MOST_KL}")
        if self.change is not None and not self.change >= LEAST_CHANGE:
            hint = "raise learning_rate or max_steps, and see in `reasoning-ext report` whether loss and reward moved"
            found.append(f"the trained model equals its base, so that there is nothing to export; {hint}")
        elif self.change is not None and not self.kl < self.change:
            hint = "an adapter too small for 16 bits is lost in rounding: export --to adapter"
            found.append(f"it is no nearer to the trained model than the base is (KL {self.change:.2g}; {hint})")
        return found


def read_prompts(source: Source, given: Path | None = None) -> list[list[dict[str, str]]]:
    """Return up to twenty different prompts: those of a file or recipe, of the run's kept completions, or of its data set.

    Args:
        source: the run.
        given: a JSONL file with `prompt` in every line (text or messages), or a recipe whose data are read.

    Raises:
        ExportError: none can be had.
    """
    found: list[list[dict[str, str]]] = []
    system = prompt_settings(source.recipe)[0][0]
    asked = [{"role": "system", "content": system}] if system else []
    for prompt in _given(given) if given is not None else _own(source):
        try:
            messages = read_chat(prompt, "prompt") if prompt and not isinstance(prompt, str) else []
        except ValueError as error:
            raise ExportError(f"--prompts: {error}") from error
        if prompt and isinstance(prompt, str):
            messages = [*asked, {"role": "user", "content": prompt}]
        if messages and messages not in found:
            found.append(messages)
        if len(found) == PROMPTS:
            break
    if not found:
        where = given or source.path
        raise ExportError(f"found no prompt in {where}, allowed: JSONL with the column prompt, or a recipe")
    return found


def _given(file: Path) -> Iterator[Any]:
    """Yield the prompts of a file that was named."""
    if file.suffix in (".yaml", ".yml"):
        yield from _recipe_prompts(load_recipe(file))
        return
    try:
        yield from [row["prompt"] for row in read_jsonl(file)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"--prompts: found {file}, allowed: JSONL with the column prompt, or a recipe"
        raise ExportError(f"{problem} ({type(error).__name__}: {error})") from error


def _own(source: Source) -> Iterator[Any]:
    """Yield the prompts that a run kept with its completions, and then those of its data, if they can still be read."""
    kept = [row["prompt"] for row in read_run(source.path).samples if row.get("prompt")]
    yield from kept
    try:
        yield from _recipe_prompts(source.recipe)
    except UserError as error:
        if kept:
            return
        written = written_recipe(source.path)
        lost = written is not None and not written.parent.is_dir()
        gone = f", the recipe's folder {written.parent} is gone" if written and lost else ""
        hint = "write --prompts RECIPE.yaml, or --prompts FILE.jsonl with the column prompt"
        raise ExportError(f"cannot read the run's data to compare on ({error}{gone}); {hint}") from error


def _recipe_prompts(recipe: Recipe) -> Iterator[Any]:
    return (row["prompt"] for row in islice(read_rows(row_options(recipe), limit=ROWS_READ), ROWS_READ))


def ask(model: Any, tokenizer: Any, contract: Contract, source: Source, prompts: list) -> Reference:
    """Let the trained model answer greedily, and note how it reads the answers, and how an adapter's base does.

    Args:
        model: the trained model, on an adapter's base where it is an adapter.
        tokenizer, contract: of the run.
        source: the run.
        prompts: P conversations.
    """
    from reasoning_ext.engines.transformers import TransformersEngine

    kwargs = source.recipe.get("chat_template_kwargs") or {}
    settings = SamplingSettings(max_completion_length=NEW_TOKENS, temperature=0.0, chat_template_kwargs=kwargs)
    engine = TransformersEngine(Loaded(model, tokenizer, contract=contract), BATCH)
    sequences = []
    for batch in engine.generate(prompts, [(p, 0) for p in range(len(prompts))], settings):
        for completion in batch:
            text = render_prompt(tokenizer, contract, prompts[completion.prompt], kwargs)
            sequences.append((tokenizer(text, add_special_tokens=False)["input_ids"], completion.ids))
    reference = Reference(sequences, list(_read(model, sequences)))
    if source.adapter:
        with model.disable_adapter():
            reference.change = _mean_kl(reference, _read(model, sequences))
    return reference


def compared(reference: Reference, folder: Path, source: Source) -> Comparison:
    """Compare an exported folder, which is loaded, with the reference, and that with what it was trained from and as."""
    read_T_V = list(_read(load_weights(str(folder), source), reference.sequences))
    pairs = zip(reference.log_probs_T_V, read_T_V, strict=True)
    equal = sum((p.argmax(-1) == q.argmax(-1)).sum().item() for p, q in pairs)
    tokens = _tokens(reference)
    result = Comparison(len(reference.sequences), tokens, equal / tokens, _mean_kl(reference, iter(read_T_V)))
    free_memory()
    result.change = reference.change if source.adapter else _change(source, reference)
    if source.adapter and any(source.recipe.get(key) for key in QUANTISED):
        from trl import ModelConfig

        config = ModelConfig(**source.recipe.config_values(MODEL_CONFIG))
        options = LoadOptions(trainable=False, trust_remote_code=source.trust)
        trained = load_model(str(source.path), config, options).model
        result.trained_kl = _mean_kl(reference, _read(trained, reference.sequences))
    return result


def _change(source: Source, reference: Reference) -> float | None:
    """Return the mean KL to what a run of whole weights was trained from, None where there is no such model."""
    reason = "the run began with random weights, or the folder of its recipe is lost"
    if source.base is not None:
        try:
            base = load_weights(source.base, source)
            if base.config.vocab_size == reference.log_probs_T_V[0].shape[1]:
                return _mean_kl(reference, _read(base, reference.sequences))
            reason = "its vocabulary is another one"
        except UserError as error:
            reason = str(error)
    say(f"export  not compared with its base: {reason}")
    return None


def _read(model: Any, sequences: list[tuple[list[int], list[int]]]) -> Iterator[Any]:
    """Yield the log probabilities with which a model reads each completion, float32, T positions by V tokens, on the CPU."""
    import torch

    for prompt_ids, completion_ids in sequences:
        ids = torch.tensor([prompt_ids + completion_ids], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, len(prompt_ids) - 1 : -1]
        yield torch.log_softmax(logits.float(), -1).cpu()


def _mean_kl(reference: Reference, others: Iterator[Any]) -> float:
    """Return the mean over all tokens of KL(reference || other), in nats."""
    sums = [(p.exp() * (p - q)).sum().item() for p, q in zip(reference.log_probs_T_V, others, strict=True)]
    return max(0.0, sum(sums) / _tokens(reference)) if all(s == s for s in sums) else float("nan")


def _tokens(reference: Reference) -> int:
    return sum(len(ids) for _, ids in reference.sequences)
