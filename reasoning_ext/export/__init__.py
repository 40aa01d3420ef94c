"""`reasoning-ext export`: a finished run as a model that other tools can load, compared before it is called done.

    merged-16bit   the adapter merged into its base as published, or the run's whole weights, in 16 bits
    adapter        the adapter's files, its tokenizer and the card
    gguf           merged-16bit, then one file for llama.cpp, compared there; see gguf.py
    hub            merged-16bit or the adapter, uploaded, private unless asked otherwise; see hub.py

A folder is written beside its place, loaded afresh, compared (compare.py), and renamed at the end. One that differs
from the trained model is removed, and its figures are in the error. `export.json` says what it was made of.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reasoning_ext.data.lineage import EXPORT
from reasoning_ext.export.compare import FEW_TOKENS, PROMPTS, Comparison, Reference, compared, read_prompts
from reasoning_ext.export.gguf import BY_CONVERTER, BY_QUANTIZE, compare_gguf, find_converter, write_gguf
from reasoning_ext.export.hub import check_upload, upload
from reasoning_ext.export.merge import (
    ExportError,
    Source,
    base_weights,
    find_source,
    load_trained,
    merged,
    run_tokenizer,
)
from reasoning_ext.runs.card import write_model_card
from reasoning_ext.runs.files import check_space, read_object, whole_folder, write_whole
from reasoning_ext.runs.folder import DONE, fingerprint, say
from reasoning_ext.runs.markdown import shorten
from reasoning_ext.runs.process import free_memory, quiet, versions
from reasoning_ext.runs.read import read_run

TARGETS = ("merged-16bit", "adapter", "gguf", "hub")
MERGED, ADAPTER, GGUF, HUB = TARGETS
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def export_run(
    run: Path, to: str, output: Path | None = None, *, prompts: Path | None = None, base: str | None = None,
    quantization: str = "q8_0", llama_cpp: Path | None = None, repo_id: str | None = None, public: bool = False,
    what: str = MERGED,
) -> Path:  # fmt: skip
    """Export a finished run that trained a model, and return the folder, or the file of `gguf`, that is written.

    Args:
        run, to: the folder; one of `TARGETS`.
        output: what to write; default: in `RUN/export`.
        prompts: what to compare on, see `compare.read_prompts`.
        base: a base in 16 bits in the place of the one that the adapter names.
        quantization, llama_cpp: of `gguf`: f16, bf16, q8_0, or what llama-quantize knows; the converter's folder.
        repo_id, public, what: of `hub`: `user/name`; private otherwise; `merged-16bit` or `adapter`.

    Raises:
        ExportError, DiskError: it cannot be made, or differs from the trained model; nothing is left then.
    """
    _check_arguments(to, what, quantization, repo_id, public)
    if to == HUB:
        check_upload(repo_id, public)  # before an hour of merging
    quiet()
    source = find_source(run, base)
    if source.named:
        say(f"export  warning: the base {base} was given by hand; the run was trained on {shorten(source.named)}")
    kind = what if to == HUB else to
    own_base = source.adapter and Path(base_weights(source.base)).exists() and shorten(str(source.base))
    if own_base and kind == ADAPTER:
        if to == HUB:
            raise ExportError(
                f"found an adapter on the folder {own_base}, which nobody else has; write --what {MERGED}"
            )
        say(f"export  warning: the adapter's base is the folder {own_base}; nobody else can load it without that")
    if to == GGUF:
        converter, name = find_converter(llama_cpp, quantization), run.resolve().name
        file = output or run / "export" / f"{name}-{quantization}.gguf"
        if file.exists():
            raise ExportError(f"found {file}; remove it, or write --output FILE")
        model = export_merged(source, run / "export" / MERGED, prompts)
        write_gguf(model, file, quantization, converter, name)
        compare_gguf(source, model, file, quantization, prompts)
        return file
    folder = output or run / "export" / kind
    if kind == ADAPTER:
        export_adapter(source, folder)
    else:
        export_merged(source, folder, prompts)
    if to == HUB:
        upload(folder, str(repo_id), public)
    return folder


def _check_arguments(to: str, what: str, quantization: str, repo_id: str | None, public: bool) -> None:
    """Refuse arguments that name nothing, or that nothing would read, before anything heavy is imported."""
    known = {"--to": (to, TARGETS), "--what": (what, (MERGED, ADAPTER))}
    for option, (found, allowed) in (known | {"--quantization": (quantization, BY_CONVERTER + BY_QUANTIZE)}).items():
        if found not in allowed:
            raise ExportError(f"{option}: found {found}, allowed: {', '.join(allowed)}")
    for option, given in (("--repo-id", repo_id is not None), ("--public", public)):
        if given and to != HUB:
            raise ExportError(f"{option}: found with --to {to}, which uploads nothing, allowed: with --to {HUB}")


def export_merged(source: Source, target: Path, prompts: Path | None = None) -> Path:
    """Write the run's model in 16 bits, load it again and compare it; see the module's text."""
    if _exists(source, target, MERGED):
        return target
    asked = read_prompts(source, prompts)
    tokenizer, contract = run_tokenizer(source)
    what = f"the adapter on {shorten(str(source.base))}" if source.adapter else "its weights"
    say(f"export  {shorten(str(source.path))}: loads {what}")
    model = load_trained(source)
    check_space(target, 2 * sum(p.numel() for p in model.parameters()))
    reference = Reference(model, tokenizer, contract, source.template_kwargs, asked)
    with whole_folder(target) as part:
        _save(merged(model) if source.adapter else model, tokenizer, contract, part)
        del model
        free_memory()
        comparison = compared(reference, part, source)
        if problems := comparison.problems():
            said = f"{'; '.join(problems)} ({comparison.line()}); removed"
            raise ExportError(f"the export is not the trained model: {said}")
        _finish(source, part, MERGED, comparison)
    say(f"export  {target}: {comparison.line()}")
    if comparison.prompts < PROMPTS or comparison.tokens < FEW_TOKENS:
        say(f"export  warning: {PROMPTS} prompts and {FEW_TOKENS} tokens to compare on are better; see --prompts")
    return target


def export_adapter(source: Source, target: Path) -> Path:
    """Copy the adapter's files, and write its tokenizer and the card beside them; see `export_run` for errors."""
    if not source.adapter:
        raise ExportError(f"found {source.path}, a run of whole weights; write --to {MERGED}")
    if _exists(source, target, ADAPTER):
        return target
    check_space(target, sum((source.path / name).stat().st_size for name in ADAPTER_FILES))
    tokenizer, _ = run_tokenizer(source)
    with whole_folder(target) as part:
        for name in ADAPTER_FILES:
            shutil.copyfile(source.path / name, part / name)
        tokenizer.save_pretrained(part)
        _finish(source, part, ADAPTER, None)
    say(f"export  {target}: the adapter's files as they are, nothing to compare")
    return target


def _exists(source: Source, target: Path, to: str) -> bool:
    """Tell whether this export is there already; anything else in its place is an error."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    if read_object(target / EXPORT).get("made_of") != _made_of(source, to):
        raise ExportError(f"found {target}, which is no finished {to} export of this run; remove it, or write --output")
    say(f"export  {target}: done already")
    return True


def _made_of(source: Source, to: str) -> dict[str, Any]:
    """Identify an export: two trainings by the same recipe differ in when they finished."""
    base = shorten(str(source.base)) if source.base else None
    finished = read_object(source.path / DONE).get("finished")
    return {"to": to, "run": fingerprint(str(source.path)), "finished": finished, "base": base}


def _save(model: Any, tokenizer: Any, contract: Any, folder: Path) -> None:
    """Save a model in 16 bits: float16 where its base is, else bfloat16; whatever ends a turn ends its generation."""
    import torch

    from reasoning_ext.engines.transformers import stop_ids

    half = any(p.dtype == torch.float16 for p in model.parameters())  # modules that were trained whole may be float32
    model = model.to(torch.float16 if half else torch.bfloat16)
    model.generation_config.eos_token_id = stop_ids(model, tokenizer, contract)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _finish(source: Source, folder: Path, to: str, comparison: Comparison | None) -> None:
    """Write the card, and last `export.json`."""
    date = time.strftime("%Y-%m-%d")
    told = {"base": source.base, "named": source.named, "date": date, "comparison": comparison and comparison.line()}
    write_model_card(folder, read_run(source.path), to == ADAPTER, told)
    figures = asdict(comparison) if comparison else None
    files = {file.name: fingerprint(str(file)) for file in sorted(folder.iterdir())}
    facts = {"made_of": _made_of(source, to), "comparison": figures, "files": files}
    write_whole(folder / EXPORT, json.dumps(facts | {"versions": versions(), "date": date}, indent=1))
