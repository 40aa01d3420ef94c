"""A finished run's weights, found, loaded without quantisation, and merged.

A LoRA adapter that was trained on 4-bit weights is never merged into these: its base is loaded again as it was published,
in 16 bits (or float32, where it is stored so), and what is saved is rounded to 16 bits once, at the end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext.data.lineage import EXPORT, run_recipe
from reasoning_ext.errors import UserError
from reasoning_ext.models.adapter import MADE_FROM, base_of, is_adapter, put_adapter
from reasoning_ext.models.weights import check_weights, json_problem
from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.recipe.load import Recipe
from reasoning_ext.runs.files import read_object
from reasoning_ext.runs.folder import RECIPE, fingerprint, is_run, unfinished
from reasoning_ext.think.template import Contract, find_contract
from reasoning_ext.think.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ExportError(UserError):
    """An export cannot be made, or turned out wrong; nothing is left in its place."""


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

    def arguments(self, name: str) -> dict[str, Any]:
        """How `from_pretrained` is to open a name: of the hub at the recipe's revision."""
        revision = None if Path(name).exists() else self.recipe.get("model_revision")
        return {"revision": revision, "trust_remote_code": self.trust}


def find_source(run: Path, base: str | None = None) -> Source:
    """Find out what a run holds and which model it was trained from.

    Args:
        run: the folder of a finished run that trained a model.
        base: another base than the run names, in 16 or 32 bits.

    Raises:
        ExportError: it is no such run, or its base cannot be had.
        UserError: its recipe cannot be read.
    """
    recipe = run_recipe(run) if is_run(run) else None
    if recipe is None or recipe.stage not in TRAINED:
        found = f"{run}, a run of stage {recipe.stage}" if recipe else run
        raise ExportError(f"found {found}, allowed: the folder of a finished {', '.join(TRAINED)} run")
    if problem := unfinished(run, str(run)) or json_problem(run, str(run)):
        raise ExportError(problem)
    adapter = is_adapter(str(run))
    if not adapter and not (run / "config.json").is_file():
        raise ExportError(f"found {run} without weights (no config.json, no adapter_config.json); run its recipe again")
    named = _adapter_base(run, recipe) if adapter else _trained_from(run, recipe)
    other = base is not None and not _same(base, named)
    source = Source(run, recipe, adapter, base or named, named if other else None)
    if adapter:
        _refuse_base(source)
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


def _refuse_base(source: Source) -> None:
    """Refuse to merge an adapter into weights of 4 or 8 bits, and into some that hold it already, as their own notes say.

    Nothing else would tell the latter: the adapter on such a base is what the merge is compared with.
    """
    from transformers import AutoConfig

    base, run = Path(str(source.base)), fingerprint(str(source.path))
    made_of = read_object(base / EXPORT).get("made_of")
    exported = made_of.get("run") if isinstance(made_of, dict) else None
    if source.named and run in (exported, read_object(base / MADE_FROM).get("fingerprint")):
        trained = f"this run was trained on {source.named}, write that, or where it is now"
        raise ExportError(f"--base: found {base}, into which this very run's adapter is merged already; {trained}")
    name = base_weights(source.base)
    with loading(name):
        config = AutoConfig.from_pretrained(name, **source.arguments(name))
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


@contextlib.contextmanager
def loading(name: str) -> Iterator[None]:
    """Say in one line that a model cannot be loaded.

    Raises:
        ExportError: whatever transformers and PEFT made of it.
    """
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, KeyError, IndexError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        hint = "run this where the training ran, or write --base NAME"
        raise ExportError(f"cannot load {name}: {reason}; {hint}") from error


def load_weights(name: str, source: Source) -> PreTrainedModel:
    """Load whole weights as they are stored, on the accelerator where there is one; an adapter is merged into its base.

    Raises:
        UserError: they cannot be loaded.
    """
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM

    if is_adapter(name):
        return merged(_with_adapter(name, source))
    check_weights(name, source.trust)
    with loading(name):
        model = AutoModelForCausalLM.from_pretrained(name, dtype="auto", **source.arguments(name))
    return model.to(PartialState().device).eval()


def load_trained(source: Source) -> Any:
    """Load the run's model as it is to be exported: whole weights, or the adapter on its base, not merged."""
    return _with_adapter(str(source.path), source) if source.adapter else load_weights(str(source.path), source)


def _with_adapter(folder: str, source: Source) -> Any:
    base = source.base if Path(folder) == source.path else base_of(folder)
    model = load_weights(str(base), source)
    with loading(f"the adapter {folder} on {base}"):
        return put_adapter(model, folder).eval()


def merged(model: Any) -> Any:
    """Merge an adapter into its base, refusing weights that are no numbers.

    Raises:
        ExportError: they are not.
    """
    with loading("the merged model"):
        return model.merge_and_unload(safe_merge=True)


def run_tokenizer(source: Source) -> tuple[Any, Contract]:
    """Load the run's tokenizer, ready to render, and what its chat template does with thoughts."""
    tokenizer = load_tokenizer(str(source.path), trust_remote_code=source.trust)
    kwargs = source.recipe.get("chat_template_kwargs") or {}
    return tokenizer, find_contract(tokenizer, kwargs, source.recipe.get("think_tags"))
