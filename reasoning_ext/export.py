"""`reasoning-ext export`: a finished run as a model that other tools can load, compared before it is called done.

    merged-16bit   the adapter merged into its base as published, or the run's whole weights, in 16 bits
    adapter        the adapter's files, its tokenizer and the card
    gguf           merged-16bit, then one file for llama.cpp; see export_gguf.py
    hub            merged-16bit or the adapter, uploaded, private unless asked otherwise; see export_hub.py

A folder is written beside its place, loaded afresh, compared (export_check.py), and renamed at the end. One that differs
from the trained model is removed, and its figures are in the error. `export.json`, written last, says what it was made of.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reasoning_ext.export_arguments import ADAPTER, GGUF, HUB, MERGED, ExportError, check_arguments
from reasoning_ext.export_check import (
    FEW_TOKENS,
    PROMPTS,
    Comparison,
    Reference,
    ask,
    compare,
    mean_kl,
    read,
    read_prompts,
)
from reasoning_ext.files import check_space, write_whole
from reasoning_ext.lineage import EXPORT
from reasoning_ext.merging import (
    Source,
    base_weights,
    count_parameters,
    find_source,
    load_trained,
    load_weights,
    merge,
    run_tokenizer,
)
from reasoning_ext.model_card import shorten, write_card
from reasoning_ext.pipeline import quiet
from reasoning_ext.run_dir import DONE, fingerprint, say, versions

QUANTISED = ("load_in_4bit", "load_in_8bit")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def export_run(
    run: Path,
    to: str,
    output: Path | None = None,
    *,
    prompts: Path | None = None,
    base: str | None = None,
    quantization: str = "q8_0",
    llama_cpp: Path | None = None,
    repo_id: str | None = None,
    public: bool = False,
    what: str = MERGED,
) -> Path:
    """Export a finished run.

    Args:
        run: the folder of a finished run that trained a model.
        to: one of `export_arguments.TARGETS`.
        output: the folder, or the file of `gguf`, to write; default: in `RUN/export`.
        prompts: what to compare on, see `export_check.read_prompts`.
        base: a base in 16 bits in the place of the one that the adapter names.
        quantization: of `gguf`: f16, bf16, q8_0, or what llama-quantize knows.
        llama_cpp: the folder with llama.cpp's converter.
        repo_id: of `hub`, `user/name`.
        public: of `hub`; private otherwise.
        what: of `hub`, `merged-16bit` or `adapter`.

    Returns:
        the folder, or the file of `gguf`.

    Raises:
        ExportError: the run cannot be exported, or the export differs from it; nothing is left in its place then.
        DiskError: the disk has too little room.
    """
    check_arguments(to, what, quantization, repo_id, public)
    if to == HUB:
        from reasoning_ext.export_hub import check_upload, upload

        check_upload(repo_id, public)  # before an hour of merging
    quiet()
    source = find_source(run, base)
    if source.named:
        say(f"export  warning: the base {base} was given by hand; the run was trained on {shorten(source.named)}")
    kind = what if to == HUB else to
    if to == HUB and kind == ADAPTER and source.adapter and Path(base_weights(source.base)).exists():
        raise ExportError(
            f"found an adapter on the folder {shorten(str(source.base))}, which nobody else has; write --what {MERGED}"
        )
    folder = output if output is not None and to != GGUF else run / "export" / (MERGED if kind == GGUF else kind)
    if to == GGUF:
        from reasoning_ext.export_gguf import find_tools, write_gguf

        tools = find_tools(llama_cpp, quantization)
        file = output or run / "export" / f"{run.resolve().name}-{quantization}.gguf"
        if file.exists():
            raise ExportError(f"found {file}; remove it, or write --output FILE")
        check_space(file, 2 * count_parameters(source) * (1 if (folder / EXPORT).is_file() else 2))
    if kind == ADAPTER:
        export_adapter(source, folder)
    else:
        export_merged(source, folder, prompts)
    if to == GGUF:
        return write_gguf(folder, file, quantization, tools, run.resolve().name)
    if to == HUB:
        upload(folder, str(repo_id), public)
    return folder


def export_merged(source: Source, target: Path, prompts: Path | None = None) -> Path:
    """Write the run's model in 16 bits, load it again and compare it; see the module's text.

    Raises:
        ExportError, DiskError: as `export_run`.
    """
    if _exists(source, target, MERGED):
        return target
    check_space(target, 2 * count_parameters(source))
    asked = read_prompts(source, prompts)
    if len(asked) < PROMPTS:
        say(f"export  {len(asked)} different prompts to compare on, {PROMPTS} are better; see --prompts")
    tokenizer, contract = run_tokenizer(source)
    what = f"the adapter on {shorten(str(source.base))}" if source.adapter else "its weights"
    say(f"export  {shorten(str(source.path))}: loads {what}")
    model = load_trained(source)
    reference = ask(model, tokenizer, contract, source, asked)
    with _whole(target) as part:
        _save(merge(model) if source.adapter else model, tokenizer, contract, part)
        del model
        _free()
        if not source.adapter:
            reference.change = _change(source, reference)
        comparison = _compare(source, reference, part)
        problems = comparison.problems()
        if problems:
            raise ExportError(
                f"the export is not the trained model: {'; '.join(problems)} ({comparison.line()}); removed"
            )
        _finish(source, part, MERGED, comparison)
    say(f"export  {target}: {comparison.line()}")
    if comparison.tokens < FEW_TOKENS:
        say(
            f"export  warning: only {comparison.tokens} tokens were compared, {FEW_TOKENS} or more are better; "
            "name prompts with longer answers with --prompts"
        )
    return target


def export_adapter(source: Source, target: Path) -> Path:
    """Copy the adapter's files, and write its tokenizer and the card beside them.

    Raises:
        ExportError: the run has no adapter, or the target is something else.
    """
    if not source.adapter:
        raise ExportError(f"found {source.path}, a run of whole weights; write --to {MERGED}")
    if _exists(source, target, ADAPTER):
        return target
    check_space(target, sum((source.path / name).stat().st_size for name in ADAPTER_FILES))
    if Path(base_weights(source.base)).exists():
        say(
            f"export  warning: the adapter's base is the folder {shorten(str(source.base))}; nobody else can load it without that"
        )
    tokenizer, _ = run_tokenizer(source)
    with _whole(target) as part:
        for name in ADAPTER_FILES:
            shutil.copyfile(source.path / name, part / name)
        tokenizer.save_pretrained(part)
        _finish(source, part, ADAPTER, None)
    say(f"export  {target}: the adapter's files as they are, nothing to compare")
    return target


def _exists(source: Source, target: Path, to: str) -> bool:
    """Tell whether this export is there already.

    Raises:
        ExportError: something else is.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    try:
        made_of = json.loads((target / EXPORT).read_bytes())["made_of"]
    except (OSError, ValueError, KeyError, TypeError):
        made_of = None
    if made_of != _made_of(source, to):
        raise ExportError(f"found {target}, which is no finished {to} export of this run; remove it, or write --output")
    say(f"export  {target}: done already")
    return True


def _made_of(source: Source, to: str) -> dict[str, Any]:
    """Identify an export: two trainings by the same recipe differ in when they finished."""
    done = json.loads((source.path / DONE).read_bytes())
    base = shorten(str(source.base)) if source.base else None
    return {"to": to, "run": fingerprint(str(source.path)), "finished": done.get("finished"), "base": base}


@contextlib.contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """Give a folder to write to, which takes its place in the end, or is removed when anything goes wrong."""
    from safetensors import SafetensorError

    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of an export that was killed
    try:
        part.mkdir(parents=True)
        yield part
        os.sync()
        part.replace(target)
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"cannot write {target}: {reason}; free some space, or write --output; removed") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _save(model: Any, tokenizer: Any, contract: Any, folder: Path) -> None:
    """Save a model in 16 bits: float16 where its base is, else bfloat16; whatever ends a turn ends its generation."""
    import torch

    from reasoning_ext.engines.transformers_engine import stop_ids

    half = any(p.dtype == torch.float16 for p in model.parameters())  # modules that were trained whole may be float32
    model = model.to(torch.float16 if half else torch.bfloat16)
    model.generation_config.eos_token_id = stop_ids(model, tokenizer, contract)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _change(source: Source, reference: Reference) -> float | None:
    """Return the mean KL to what a run of whole weights was trained from, None where there is no such model."""
    if source.base is None:
        say("export  no base to compare with: the run began with random weights, or the folder of its recipe is lost")
        return None
    try:
        base = load_weights(source.base, source)
    except ExportError as error:
        say(f"export  not compared with its base: {error}")
        return None
    if base.config.vocab_size != reference.log_probs_T_V[0].shape[1]:
        say("export  not compared with its base, whose vocabulary is another one")
        return None
    return mean_kl(reference, read(base, reference.sequences))


def _compare(source: Source, reference: Reference, folder: Path) -> Comparison:
    comparison = compare(reference, load_weights(str(folder), source))
    _free()
    if source.adapter and any(source.recipe.get(key) for key in QUANTISED):
        comparison.trained_kl = mean_kl(reference, _quantised(source, reference))
    return comparison


def _quantised(source: Source, reference: Reference) -> Iterator[Any]:
    """Read the completions with the model in the bits that it was trained in."""
    from trl import ModelConfig

    from reasoning_ext.fields import MODEL_CONFIG
    from reasoning_ext.loaded import LoadOptions
    from reasoning_ext.model import load_model

    config = ModelConfig(**source.recipe.config_values(MODEL_CONFIG))
    options = LoadOptions(trainable=False, trust_remote_code=source.trust)
    return read(load_model(str(source.path), config, options).model, reference.sequences)


def _finish(source: Source, folder: Path, to: str, comparison: Comparison | None) -> None:
    """Write the card, and last `export.json`."""
    date = time.strftime("%Y-%m-%d")
    write_card(folder, source, to, comparison.line() if comparison else None, date)
    files = {f.name: fingerprint(str(f)) for f in sorted(folder.iterdir())}
    facts = {
        "made_of": _made_of(source, to),
        "comparison": comparison.as_dict() if comparison else None,
        "files": files,
        "versions": versions(),
        "date": date,
    }
    write_whole(folder / EXPORT, json.dumps(facts, indent=1))


def _free() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
