"""A merged export as one GGUF file: by llama.cpp's own converter where it is at hand, else by Unsloth on a GPU.

The converter writes f16, bf16 and q8_0; anything smaller needs `llama-quantize` on the PATH, which gets its bf16. Where the
package `gguf` is installed, the file is opened again and compared with the model: vocabulary, layers, parameters.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasoning_ext.export_arguments import BY_CONVERTER, ExportError
from reasoning_ext.run_dir import say

CONVERTER, QUANTIZE, VARIABLE = "convert_hf_to_gguf.py", "llama-quantize", "LLAMA_CPP"
SHOWN = 300  # characters of what a tool said last
BY_UNSLOTH = """
import sys
from unsloth import FastLanguageModel
folder, output, quantization = sys.argv[1:]
model, tokenizer = FastLanguageModel.from_pretrained(folder, load_in_4bit=False)
model.save_pretrained_gguf(output, tokenizer, quantization_method=quantization)
"""


@dataclass(frozen=True)
class Tools:
    """What makes a GGUF file: llama.cpp's converter (None: Unsloth), and `llama-quantize` where it is needed."""

    converter: Path | None
    quantize: str | None = None


def find_tools(llama_cpp: Path | None, quantization: str) -> Tools:
    """Find what makes a GGUF file, before anything is merged.

    Args:
        llama_cpp: llama.cpp's folder; else the environment variable LLAMA_CPP, else the PATH.
        quantization: f16, bf16, q8_0, or what llama-quantize knows.

    Raises:
        ExportError: nothing is there; the message says what to install.
    """
    named = llama_cpp or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    on_path = shutil.which(CONVERTER)
    converter = named / CONVERTER if named else Path(on_path) if on_path else None
    if converter is not None and not converter.is_file():
        raise ExportError(f"found no {CONVERTER} in {named}, allowed: the folder of a llama.cpp checkout")
    if converter is not None:
        quantize = None if quantization in BY_CONVERTER else shutil.which(QUANTIZE)
        if quantization not in BY_CONVERTER and quantize is None:
            allowed = ", ".join(BY_CONVERTER)
            raise ExportError(
                f"--quantization: found {quantization} without {QUANTIZE} on the PATH, allowed: {allowed}"
            )
        return Tools(converter, quantize)
    if importlib.util.find_spec("unsloth") and _has_gpu():
        return Tools(None)
    raise ExportError(
        "found neither llama.cpp's converter nor Unsloth on a GPU; git clone https://github.com/ggml-org/llama.cpp, "
        "pip install gguf, and write --llama-cpp FOLDER"
    )


def write_gguf(model: Path, file: Path, quantization: str, tools: Tools, name: str) -> Path:
    """Convert a merged export.

    Args:
        model: its folder.
        file: the file to write; it takes its place when it is whole and has been read back.
        quantization, tools: see `find_tools`.
        name: of the model, as programs show it.

    Raises:
        ExportError: a tool failed, or what it wrote is not the model.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    first = part if tools.quantize is None else part.with_suffix(".bf16")
    try:
        if tools.converter is None:
            _by_unsloth(model, part, quantization)
        else:
            outtype = "bf16" if tools.quantize else quantization
            options = ["--outfile", str(first), "--outtype", outtype, "--model-name", name]
            _call([sys.executable, str(tools.converter), str(model), *options])
        if tools.quantize:
            _call([tools.quantize, str(first), str(part), quantization.upper()])
        if not part.is_file():
            raise ExportError(
                f"found no file where {(tools.converter or Path('unsloth')).name} should have written one"
            )
        read = _check(part, model)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(file)
    finally:
        for left in {part, first}:
            left.unlink(missing_ok=True)
    say(f"export  {file}: {file.stat().st_size / 2**20:.1f} MiB, {read}")
    return file


def _by_unsloth(model: Path, part: Path, quantization: str) -> None:
    """Let Unsloth write into a folder of its own, in a process that imports it first, and take the one file it made."""
    folder = part.with_suffix(".unsloth")
    try:
        _call([sys.executable, "-c", BY_UNSLOTH, str(model), str(folder), quantization])
        made = sorted(folder.parent.glob(f"{folder.name}*/**/*.gguf"))
        if len(made) != 1:
            raise ExportError(f"found {len(made)} GGUF files where Unsloth wrote, allowed: 1")
        made[0].replace(part)
    finally:
        for left in folder.parent.glob(f"{folder.name}*"):
            shutil.rmtree(left, ignore_errors=True)


def _call(command: list[str]) -> None:
    """Run a tool without the tokens of the environment; what it says last is the error."""
    secret = ("TOKEN", "KEY", "SECRET", "PASSWORD")
    environment = {
        name: value for name, value in os.environ.items() if not any(word in name.upper() for word in secret)
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = " ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-1:])[-SHOWN:]
        raise ExportError(f"{Path(command[1] if command[0] == sys.executable else command[0]).name} failed: {said}")


def _check(file: Path, model: Path) -> str:
    """Read a GGUF file back and compare it with the model; return what was found, for people.

    Raises:
        ExportError: it is another model.
    """
    if importlib.util.find_spec("gguf") is None:
        return "not read back (pip install gguf)"
    import gguf

    try:
        reader = gguf.GGUFReader(file)
    except (ValueError, OSError, IndexError) as error:
        raise ExportError(f"the GGUF file cannot be read: {' '.join(str(error).split())[:SHOWN]}") from error
    config = json.loads((model / "config.json").read_bytes())
    config = config.get("text_config", config)
    names = {tensor.name for tensor in reader.tensors}
    blocks = len({name.split(".")[1] for name in names if name.startswith("blk.")})
    elements = sum(int(t.n_elements) for t in reader.tensors if not t.name.startswith("rope_"))
    field = reader.get_field("tokenizer.ggml.tokens")
    there = {"words": len(field.data) if field else 0, "layers": blocks, "parameters": elements}
    wanted = {"words": config["vocab_size"], "layers": config["num_hidden_layers"], "parameters": _parameters(model)}
    for what, count in wanted.items():
        if there[what] < count:
            raise ExportError(f"the GGUF file has {there[what]} {what}, allowed: the model's {count}")
    return f"read back: {len(names)} tensors, " + ", ".join(f"{count} {what}" for what, count in there.items())


def _parameters(model: Path) -> int:
    from safetensors import safe_open

    total = 0
    for shard in model.glob("*.safetensors"):
        with safe_open(shard, "pt") as tensors:
            total += sum(_product(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return total


def _product(shape: Any) -> int:
    product = 1
    for side in shape:
        product *= side
    return product


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
