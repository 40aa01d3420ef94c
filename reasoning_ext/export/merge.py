"""A finished run's weights, found, loaded without quantisation, and merged.

A LoRA adapter that was trained on 4-bit weights is never merged into these: its base is loaded as it was published,
in 16 bits (or float32, where it is stored so), and what is saved is rounded to 16 bits once, at the end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasoning_ext.data.lineage import EXPORT, prompt_settings, run_recipe
from reasoning_ext.data.row_options import RowOptions, row_options
from reasoning_ext.errors import UserError, one_line
from reasoning_ext.models.adapter import MADE_FROM, base_of, is_adapter, put_adapter
from reasoning_ext.models.weights import check_weights, json_problem
from reasoning_ext.recipe.keys import TRAINED
from reasoning_ext.runs.files import read_object
from reasoning_ext.runs.folder import RECIPE, fingerprint, is_run, unfinished
from reasoning_ext.think.template import Contract, find_contract
from reasoning_ext.think.tokenizer import load_tokenizer


class ExportError(UserError):
    """An export cannot be made, or turned out wrong; nothing is left in its place."""


@dataclass(frozen=True)
class Source:
    """A finished run to export, and what its recipe says of its model and prompts."""

    path: Path
    adapter: bool  # it holds a LoRA adapter, and not whole weights
    base: str | None  # the model that it was trained from, in 16 or 32 bits; None: random weights
    named: str | None  # the model that the run itself names, where another base was given by hand
    revision: str | None
    trust: bool
    rows: RowOptions
    system_prompt: str | None
    template_kwargs: dict[str, Any]
    think_tags: list[str] | None

    def arguments(self, name: str) -> dict[str, Any]:
        """How `from_pretrained` is to open a name: of the hub at the recipe's revision."""
        return {"revision": None if Path(name).exists() else self.revision, "trust_remote_code": self.trust}


def find_source(run: Path, base: str | None = None) -> Source:
    """Find out what a run holds and which model it was trained from; `base`: another one than the run names."""
    recipe = run_recipe(run) if is_run(run) else None
    if recipe is None or recipe.stage not in TRAINED:
        raise ExportError(f"found {run}, allowed: the folder of a finished {', '.join(TRAINED)} run")
    adapter = is_adapter(str(run))
    if problem := unfinished(run, str(run)) or json_problem(run, str(run)):
        raise ExportError(problem)
    if not adapter and not (run / "config.json").is_file():
        raise ExportError(f"found {run} without weights (no config.json, no adapter_config.json); run its recipe again")
    named = _adapter_base(run) if adapter else None if recipe.get("from_scratch") else _trained_from(run)
    folders = named is not None and base is not None and Path(base).is_dir() and Path(named).is_dir()
    same = base in (None, named) or (folders and fingerprint(str(base)) == fingerprint(str(named)))
    source = Source(
        path=run,
        adapter=adapter,
        base=base or named,
        named=None if same else named,
        revision=recipe.get("model_revision"),
        trust=bool(recipe.get("trust_remote_code")),
        rows=row_options(recipe),
        system_prompt=prompt_settings(recipe)[0][0],
        template_kwargs=recipe.get("chat_template_kwargs") or {},
        think_tags=recipe.get("think_tags"),
    )
    if adapter:
        _refuse_base(source)
    return source


def _trained_from(run: Path) -> str | None:
    """Return the model that a run's recipe names; None for a name with ./ whose folder is lost."""
    recipe = run_recipe(run)
    name = str(recipe.get("model_name_or_path"))
    return None if name.startswith(("./", "../")) and recipe.path == run / RECIPE else recipe.local(name)


def _adapter_base(run: Path) -> str:
    """Return the base that an adapter names, where it is now; of Unsloth's 4-bit copies the original."""
    named = base_of(str(run))
    own = run / Path(named).name
    if not Path(named).exists() and (own / "config.json").is_file():
        return str(own)
    root: str | None = named
    if named.endswith("-bnb-4bit"):
        root = _trained_from(run)
        while root and is_run(Path(root)) and is_adapter(root):
            root = _trained_from(Path(root))
    return root or named


def _refuse_base(source: Source) -> None:
    """Refuse to merge an adapter into weights of 4 or 8 bits, or that hold it already, as their own notes say.

    Nothing else would tell the latter: the adapter on such a base is what the merge is compared with.
    """
    from transformers import AutoConfig

    base, run = Path(str(source.base)), fingerprint(str(source.path))
    made_of = read_object(base / EXPORT).get("made_of")
    exported = made_of.get("run") if isinstance(made_of, dict) else None
    if source.named and run in (exported, read_object(base / MADE_FROM).get("fingerprint")):
        raise ExportError(f"--base: found {base}, into which this very run's adapter is merged; write {source.named}")
    name = base_weights(source.base)
    with loading(name):
        config = AutoConfig.from_pretrained(name, **source.arguments(name))
    if getattr(config, "quantization_config", None):
        raise ExportError(f"found the base {name}, whose weights are quantised; write --base NAME, in 16 bits")


def base_weights(name: str | None) -> str:
    """Follow adapters on adapters down to the model that has weights of its own."""
    found = str(name)
    while is_adapter(found):
        found = base_of(found)
    return found


@contextlib.contextmanager
def loading(name: str) -> Iterator[None]:
    """Say in one line, as an `ExportError`, that a model cannot be loaded."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, KeyError, IndexError, RuntimeError) as error:  # of transformers and PEFT
        reason = one_line(error)
        raise ExportError(f"cannot load {name}: {reason}; write --base NAME, if that is elsewhere now") from error


def load_weights(name: str, source: Source) -> Any:
    """Load whole weights as they are stored, on the accelerator if there is one; an adapter is merged into its base."""
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM

    if is_adapter(name):
        return merged(_with_adapter(name, base_of(name), source))
    check_weights(name, source.trust)
    with loading(name):
        model = AutoModelForCausalLM.from_pretrained(name, dtype="auto", **source.arguments(name))
    return model.to(PartialState().device).eval()


def load_trained(source: Source) -> Any:
    """Load the run's model as it is to be exported: whole weights, or the adapter on its base, not merged."""
    folder = str(source.path)
    return _with_adapter(folder, str(source.base), source) if source.adapter else load_weights(folder, source)


def _with_adapter(folder: str, base: str, source: Source) -> Any:
    model = load_weights(base, source)
    with loading(f"the adapter {folder} on {base}"):
        return put_adapter(model, folder).eval()


def merged(model: Any) -> Any:
    """Merge an adapter into its base, refusing weights that are no numbers."""
    with loading("the merged model"):
        return model.merge_and_unload(safe_merge=True)


def run_tokenizer(source: Source) -> tuple[Any, Contract]:
    """Load the run's tokenizer, ready to render, and what its chat template does with thoughts."""
    tokenizer = load_tokenizer(str(source.path), trust_remote_code=source.trust)
    return tokenizer, find_contract(tokenizer, source.template_kwargs, source.think_tags)
