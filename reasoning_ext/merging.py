"""A finished run's weights, found, loaded without quantisation, and merged.

A LoRA adapter that was trained on 4-bit weights is never merged into these: its base is loaded again as it was published,
in 16 bits (or float32, where it is stored so), and what is saved is rounded to 16 bits once, at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext.chat_tokenizer import load_tokenizer
from reasoning_ext.contract import Contract, find_contract
from reasoning_ext.errors import UserError
from reasoning_ext.export_arguments import ExportError
from reasoning_ext.files import read_object
from reasoning_ext.hand_over import MADE_FROM, MERGED, base_of, is_adapter, put_adapter
from reasoning_ext.lineage import EXPORT, run_recipe
from reasoning_ext.own_keys import TRAINED
from reasoning_ext.recipe import Recipe
from reasoning_ext.run_dir import DONE, RECIPE, damage, fingerprint, is_run
from reasoning_ext.weights import check_weights, json_problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Source:
    """A finished run to export.

    Attributes:
        path: its folder.
        recipe: its recipe, whose names with ./ belong to the folder where it was written, if that is still there.
        adapter: it holds a LoRA adapter, and not whole weights.
        base: the model that it was trained from, in 16 or 32 bits; None where there is none (random weights).
        named: the model that the run itself names, where another base was given by hand.
    """

    path: Path
    recipe: Recipe
    adapter: bool
    base: str | None
    named: str | None = None

    @property
    def trust(self) -> bool:
        """Whether code of the model's repository may run, as in the recipe."""
        return bool(self.recipe.get("trust_remote_code"))

    def revision(self, name: str) -> str | None:
        """The revision of a hub name, as in the recipe."""
        return None if Path(name).exists() else self.recipe.get("model_revision")


def find_source(run: Path, base: str | None = None) -> Source:
    """Find out what a run holds and which model it was trained from.

    Args:
        run: the folder of a finished run that trained a model.
        base: another base than the run names, in 16 or 32 bits.

    Raises:
        ExportError: it is no such run, or its base cannot be had.
    """
    if not is_run(run):
        raise ExportError(f"found {run}, allowed: the folder of a finished {', '.join(TRAINED)} run")
    try:
        recipe = run_recipe(run)
    except UserError as error:
        raise ExportError(f"{error}; the run cannot be read") from error
    if recipe.stage not in TRAINED:
        raise ExportError(f"found {run}, a run of stage {recipe.stage}, allowed: {' or '.join(TRAINED)}")
    if not (run / DONE).is_file():
        raise ExportError(f"found {run}, which has not finished; run its recipe again to go on")
    if problem := damage(run, str(run)) or json_problem(run, str(run)):
        raise ExportError(problem)
    adapter = is_adapter(str(run))
    if not adapter and not (run / "config.json").is_file():
        raise ExportError(f"found {run} without weights (no config.json, no adapter_config.json); run its recipe again")
    named = _adapter_base(run, recipe) if adapter else _trained_from(run, recipe)
    other = base is not None and not _same(base, named)
    if adapter and other:
        _refuse_own_merge(run, str(base), str(named))
    source = Source(run, recipe, adapter, base if base is not None else named, named if other else None)
    if adapter:
        _refuse_quantised(source)
    return source


def _adapter_base(run: Path, recipe: Recipe) -> str:
    """Return the base that an adapter names; where that is Unsloth's 4-bit copy, the model that the recipes name.

    A base that the run made for itself goes where the run's folder goes.
    """
    named = base_of(str(run))
    own = run / Path(named).name
    if not Path(named).exists() and (own / "config.json").is_file():
        return str(own)
    if not named.endswith("-bnb-4bit"):
        return named
    root = recipe.local(str(recipe.get("model_name_or_path")))
    while is_run(Path(root)) and is_adapter(root):
        earlier = run_recipe(Path(root))
        root = earlier.local(str(earlier.get("model_name_or_path")))
    return root


def _trained_from(run: Path, recipe: Recipe) -> str | None:
    """Return the model that a full run started from, None for random weights and for names with ./ whose folder is lost."""
    name = str(recipe.get("model_name_or_path"))
    lost = name.startswith(("./", "../")) and recipe.path == run / RECIPE
    return None if recipe.get("from_scratch") or lost else recipe.local(name)


def _same(base: str, named: str | None) -> bool:
    """Tell whether two names stand for the same weights."""
    folders = named is not None and Path(base).is_dir() and Path(named).is_dir()
    return base == named or (folders and fingerprint(base) == fingerprint(str(named)))


def _refuse_own_merge(run: Path, base: str, named: str) -> None:
    """Refuse a base that holds an adapter already, of which the comparison with the merge would say nothing.

    What is known of a folder is what was written into it: how a run made its `merged_base`, which run an export is of.
    """
    made, own = read_object(Path(base) / MADE_FROM), read_object(Path(named) / MADE_FROM)
    if Path(base).name == MERGED and Path(named).name != MERGED:
        problem = f"a base with the adapter {made.get('adapter', 'of another run')} merged in"
    elif made and (made.get("fingerprint") == fingerprint(str(run)) or (own and made != own)):
        problem = f"made from {made.get('adapter') or made.get('config')}"
    elif read_object(Path(base) / EXPORT).get("made_of", {}).get("run") == fingerprint(str(run)):
        problem = "an export of this very run"
    else:
        return
    raise ExportError(
        f"--base: found {base}, {problem}; this run was trained on {named}, write that, or where it is now"
    )


def _refuse_quantised(source: Source) -> None:
    """Refuse to merge into weights of 4 or 8 bits."""
    from transformers import AutoConfig

    name = base_weights(source.base)
    try:
        config = AutoConfig.from_pretrained(name, revision=source.revision(name), trust_remote_code=source.trust)
    except (OSError, ValueError, KeyError) as error:
        raise ExportError(_cannot_load(name, error)) from error
    if getattr(config, "quantization_config", None):
        near = name.removesuffix("-bnb-4bit").removesuffix("-unsloth")
        hint = near if near != name else "NAME"
        raise ExportError(f"found the base {name}, whose weights are quantised; write --base {hint}, in 16 bits")


def base_weights(name: str | None) -> str:
    """Follow adapters on adapters down to the model that has weights of its own."""
    found = str(name)
    while is_adapter(found):
        found = base_of(found)
    return found


def _cannot_load(name: str, error: BaseException) -> str:
    reason = " ".join(str(error).split())[:200]
    hint = "run this where the training ran, or write --base NAME"
    return f"cannot load {name}: {type(error).__name__}: {reason}; {hint}"


def count_parameters(source: Source) -> int:
    """Count the parameters of the model to export, from its config alone."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    name = base_weights(source.base) if source.adapter else str(source.path)
    trust = {"trust_remote_code": source.trust}
    try:
        config = AutoConfig.from_pretrained(name, revision=source.revision(name), **trust)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, **trust)
    except (OSError, ValueError, KeyError) as error:
        raise ExportError(_cannot_load(name, error)) from error
    return sum(p.numel() for p in model.parameters())


def load_weights(name: str, source: Source) -> PreTrainedModel:
    """Load whole weights as they are stored, on the accelerator where there is one; an adapter is merged into its base.

    Raises:
        ExportError: they cannot be loaded.
    """
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM

    if is_adapter(name):
        base = source.base if Path(name) == source.path else base_of(name)
        return merge(_put_adapter(load_weights(str(base), source), name))
    check_weights(name, source.trust)
    arguments = {"revision": source.revision(name), "trust_remote_code": source.trust, "dtype": "auto"}
    try:
        model = AutoModelForCausalLM.from_pretrained(name, **arguments)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ExportError(_cannot_load(name, error)) from error
    return model.to(PartialState().device).eval()


def load_trained(source: Source) -> Any:
    """Load the run's model as it is to be exported: whole weights, or the adapter on its base, not merged."""
    if not source.adapter:
        return load_weights(str(source.path), source)
    return _put_adapter(load_weights(str(source.base), source), str(source.path))


def _put_adapter(model: Any, folder: str) -> Any:
    try:
        return put_adapter(model, folder).eval()
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        raise ExportError(f"the adapter {folder} does not fit: {' '.join(str(error).split())[:300]}") from error


def merge(model: Any) -> Any:
    """Merge an adapter into its base, refusing weights that are no numbers.

    Raises:
        ExportError: they are not.
    """
    try:
        return model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise ExportError(f"the merge failed: {' '.join(str(error).split())[:300]}") from error


def run_tokenizer(source: Source) -> tuple[Any, Contract]:
    """Load the run's tokenizer, ready to render, and what its chat template does with thoughts."""
    tokenizer = load_tokenizer(str(source.path), trust_remote_code=source.trust)
    kwargs = source.recipe.get("chat_template_kwargs") or {}
    return tokenizer, find_contract(tokenizer, kwargs, source.recipe.get("think_tags"))
