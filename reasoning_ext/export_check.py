"""Is an exported model the model that was trained: both answer the same prompts, and the exported weights hold the adapter.

The reference is the adapter on its base as that is published, in 16 bits or float32; for a run of whole weights, these. (A
run on 4-bit weights was trained against their rounding error, which no merged model can have and which would hide a wrong
merge. How far the export is from that model is measured and told, not judged.) The exported folder is loaded afresh.

The reference writes greedy completions, and then both models read them (teacher forcing): two models that are left to run
diverge for good after the first near-tie, which says nothing about them. Counted over the T tokens of all completions:

    equal tokens    the share of positions where both find the same token most likely
    KL              mean of KL(reference || exported) a token, in nats, in float32
    change          mean of KL(reference || base): what the training did. The export must be nearer than the base
    kept            how much of the adapter each merged layer holds: on a fixed random input, the projection of (exported -
                    base) onto the adapter's own output; 1.0 is right, 0.0 not merged, 2.0 merged twice. 16 bits round an
                    adapter away that is much smaller than the weights' last digit: what is lost so is seen here too
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from reasoning_ext.contract import Contract
from reasoning_ext.errors import UserError
from reasoning_ext.export_arguments import ExportError
from reasoning_ext.formats._chat import read_chat
from reasoning_ext.generation import SamplingSettings
from reasoning_ext.lineage import prompt_settings
from reasoning_ext.loaded import Loaded
from reasoning_ext.merging import Source
from reasoning_ext.recipe import Recipe, load_recipe
from reasoning_ext.rendering import render_prompt
from reasoning_ext.row_options import row_options
from reasoning_ext.rows import read_rows
from reasoning_ext.run_dir import written_recipe
from reasoning_ext.run_reading import read_run
from reasoning_ext.sources import read_jsonl

PROMPTS, NEW_TOKENS, BATCH = 20, 64, 5
LEAST_EQUAL, MOST_KL, LEAST_CHANGE = 0.95, 0.02, 1e-6
LEAST_KEPT, MOST_KEPT = 0.25, 1.75
FEW_TOKENS = 200  # one of them is half a per cent
ROWS_READ = 200  # to find twenty different prompts among


@dataclass
class Reference:
    """What the trained model says.

    Attributes:
        sequences: token ids of each prompt and of its greedy completion.
        log_probs_T_V: for each completion, log probabilities of the next token at each of its positions.
        change: mean KL to the base, None where there is no base.
        layers: output of each merged layer's base and of its adapter, on the input that `_probe` gives.
    """

    sequences: list[tuple[list[int], list[int]]]
    log_probs_T_V: list[Any]
    change: float | None = None
    layers: dict[str, tuple[Any, Any]] = field(default_factory=dict)


@dataclass
class Comparison:
    """An export's figures; see the module's text. `trained_kl` is against the model in the bits that it was trained in."""

    prompts: int
    tokens: int
    equal_tokens: float
    kl: float
    change: float | None = None
    least_kept: float | None = None
    most_kept: float | None = None
    worst_layer: str = ""
    trained_kl: float | None = None

    def line(self) -> str:
        """Return all figures in one line."""
        parts = [
            f"{self.equal_tokens:.1%} of {self.tokens} tokens equal on {self.prompts} prompts",
            f"KL {self.kl:.2g}",
        ]
        if self.change is not None:
            parts.append(f"KL of the base {self.change:.2g}")
        if self.least_kept is not None:
            parts.append(f"adapter kept {self.least_kept:.2f} to {self.most_kept:.2f}")
        if self.trained_kl is not None:
            parts.append(f"KL to the quantised model it was trained as {self.trained_kl:.2g}")
        return ", ".join(parts)

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
            found.append(f"it is no nearer to the trained model than the base is (KL {self.change:.2g})")
        kept = [value for value in (self.least_kept, self.most_kept) if value is not None]
        if wrong := [value for value in kept if not LEAST_KEPT <= value <= MOST_KEPT]:
            hint = "an adapter too small for 16 bits is lost in rounding: export --to adapter"
            found.append(f"{self.worst_layer} holds {wrong[0]:.2f} of its adapter, allowed: about 1 ({hint})")
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for `export.json`."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}


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
    for prompt in _prompts(source, given):
        messages = [*asked, {"role": "user", "content": prompt}] if isinstance(prompt, str) else _read(prompt)
        if messages and messages not in found:
            found.append(messages)
        if len(found) == PROMPTS:
            break
    if not found:
        raise ExportError(
            f"found no prompt in {given or source.path}, allowed: JSONL with the column prompt, or a recipe"
        )
    return found


def _read(prompt: Any) -> list[dict[str, Any]]:
    try:
        return read_chat(prompt, "prompt") if prompt else []
    except ValueError as error:
        raise ExportError(f"--prompts: {error}") from error


def _prompts(source: Source, given: Path | None) -> Iterator[Any]:
    if given is not None and given.suffix not in (".yaml", ".yml"):
        try:
            yield from [row["prompt"] for row in read_jsonl(given)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = f"--prompts: found {given}, allowed: JSONL with the column prompt, or a recipe"
            raise ExportError(f"{problem} ({type(error).__name__}: {error})") from error
        return
    if given is not None:
        yield from _recipe_prompts(load_recipe(given))
        return
    kept = [row["prompt"] for row in read_run(source.path).samples if row.get("prompt")]
    yield from kept
    if len({json.dumps(prompt) for prompt in kept}) >= PROMPTS:
        return
    try:
        yield from _recipe_prompts(source.recipe)
    except UserError as error:
        if not kept:
            written = written_recipe(source.path)
            gone = (
                "" if written is None or written.parent.is_dir() else f", the recipe's folder {written.parent} is gone"
            )
            hint = "write --prompts RECIPE.yaml, or --prompts FILE.jsonl with the column prompt"
            raise ExportError(f"cannot read the run's data to compare on ({error}{gone}); {hint}") from error


def _recipe_prompts(recipe: Recipe) -> Iterator[Any]:
    return (row["prompt"] for row in islice(read_rows(row_options(recipe), limit=ROWS_READ), ROWS_READ))


def ask(model: Any, tokenizer: Any, contract: Contract, source: Source, prompts: list) -> Reference:
    """Let the trained model answer greedily, and note how it and its base read the answers, and what its adapter does.

    Args:
        model: the trained model, on an adapter's base where it is an adapter.
        tokenizer, contract: of the run.
        source: the run.
        prompts: P conversations.
    """
    from reasoning_ext.engines.transformers_engine import TransformersEngine

    kwargs = source.recipe.get("chat_template_kwargs") or {}
    settings = SamplingSettings(max_completion_length=NEW_TOKENS, temperature=0.0, chat_template_kwargs=kwargs)
    engine = TransformersEngine(Loaded(model, tokenizer, contract=contract), BATCH)
    keys = [(p, 0) for p in range(len(prompts))]
    sequences = []
    for batch in engine.generate(prompts, keys, settings):
        for completion in batch:
            text = render_prompt(tokenizer, contract, prompts[completion.prompt], kwargs)
            sequences.append((tokenizer(text, add_special_tokens=False)["input_ids"], completion.ids))
    reference = Reference(sequences, list(read(model, sequences)))
    if source.adapter:
        with model.disable_adapter():
            reference.change = mean_kl(reference, read(model, sequences))
        reference.layers = dict(_layers(model))
    return reference


def read(model: Any, sequences: list[tuple[list[int], list[int]]]) -> Iterator[Any]:
    """Yield the log probabilities with which a model reads each completion, float32, T positions by V tokens, on the CPU."""
    import torch

    for prompt_ids, completion_ids in sequences:
        ids = torch.tensor([prompt_ids + completion_ids], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, len(prompt_ids) - 1 : -1]
        yield torch.log_softmax(logits.float(), -1).cpu()


def mean_kl(reference: Reference, others: Iterator[Any]) -> float:
    """Return the mean over all tokens of KL(reference || other), in nats."""
    sums = [(p.exp() * (p - q)).sum().item() for p, q in zip(reference.log_probs_T_V, others, strict=True)]
    return max(0.0, sum(sums) / _tokens(reference)) if all(s == s for s in sums) else float("nan")


def compare(reference: Reference, model: Any) -> Comparison:
    """Compare an exported model, loaded from its folder, with the reference."""
    read_T_V = list(read(model, reference.sequences))
    pairs = zip(reference.log_probs_T_V, read_T_V, strict=True)
    equal = sum((p.argmax(-1) == q.argmax(-1)).sum().item() for p, q in pairs)
    tokens = _tokens(reference)
    kl = mean_kl(reference, iter(read_T_V))
    result = Comparison(len(reference.sequences), tokens, equal / tokens, kl, reference.change)
    kept = {name: _kept(model, name, *outputs) for name, outputs in reference.layers.items()}
    if kept:
        result.least_kept, result.most_kept = min(kept.values()), max(kept.values())
        result.worst_layer = max(kept, key=lambda name: abs(kept[name] - 1.0))
    return result


def _tokens(reference: Reference) -> int:
    return sum(len(ids) for _, ids in reference.sequences)


def _layers(model: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield the name of each linear layer with LoRA, and what its base and its adapter make of the probe."""
    import torch
    from peft.tuners.lora import Linear

    inner = model.get_base_model()
    for name, module in inner.named_modules():
        if not isinstance(module, Linear) or module.lora_variant:  # DoRA and its like are seen by the KL alone
            continue
        if not isinstance(module.get_base_layer(), torch.nn.Linear):
            continue
        active = [adapter for adapter in module.active_adapters if adapter in module.lora_A]
        base = module.get_base_layer().weight.detach().float()
        x = _probe(base)
        delta = sum(module.get_delta_weight(adapter).detach().float() @ x for adapter in active)
        if active and delta.norm() > 0:
            yield name, ((base @ x).cpu(), delta.cpu())


def _kept(model: Any, name: str, base: Any, delta: Any) -> float:
    weight = model.get_submodule(name).weight.detach().float()
    return ((((weight @ _probe(weight)).cpu() - base) @ delta) / (delta @ delta)).item()


def _probe(weight: Any) -> Any:
    """Return a random input for a layer, the same for every model."""
    import torch

    return torch.randn(weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight.device)
