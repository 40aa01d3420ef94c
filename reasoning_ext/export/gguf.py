"""A merged export as one GGUF file, by llama.cpp's own converter, and what llama.cpp makes of it (llama_cpp.py).

The converter writes f16, bf16 and q8_0; anything smaller needs its `llama-quantize` on the PATH, which gets the bf16.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from reasoning_ext.export.compare import Reference, read_prompts
from reasoning_ext.export.llama_cpp import NOT_COMPARED, installed, read_in_llama_cpp
from reasoning_ext.export.merge import ExportError, Source, load_weights, run_tokenizer
from reasoning_ext.runs.files import check_space, write_whole
from reasoning_ext.runs.folder import say
from reasoning_ext.runs.markdown import CARD

CONVERTER, QUANTIZE, VARIABLE = "convert_hf_to_gguf.py", "llama-quantize", "LLAMA_CPP"
PACKAGES = "pip install gguf sentencepiece"
BY_CONVERTER = ["f16", "bf16", "q8_0"]
# of llama.cpp's llama-quantize, without those that need an importance matrix
BY_QUANTIZE = (
    "f32 q4_0 q4_1 q5_0 q5_1 q2_k q3_k q3_k_s q3_k_m q3_k_l q4_k q4_k_s q4_k_m q5_k q5_k_s q5_k_m q6_k "
    "iq3_xs iq3_s iq3_m iq4_nl iq4_xs tq1_0 tq2_0 mxfp4_moe"
).split()


def find_converter(llama_cpp: Path | None, quantization: str) -> Path:
    """Find what makes a GGUF file, before anything is merged: in a folder, in that of LLAMA_CPP, or on the PATH.

    Raises:
        ExportError: it is not there or does not start, or a package or, where it needs that, `llama-quantize` is missing.
    """
    folder = llama_cpp or os.environ.get(VARIABLE)
    found = Path(folder) / CONVERTER if folder else shutil.which(CONVERTER)
    if found is None or not Path(found).is_file():
        hint = f"git clone https://github.com/ggml-org/llama.cpp, {PACKAGES}, and write --llama-cpp FOLDER"
        raise ExportError(f"found no {CONVERTER} {f'in {folder}' if folder else 'on the PATH'}; {hint}")
    if importlib.util.find_spec("sentencepiece") is None:  # asked for with the weights read already, by some models
        raise ExportError(f"found no package sentencepiece, which {CONVERTER} needs; {PACKAGES}")
    _call([sys.executable, str(found), "--help"], f"{CONVERTER} ({PACKAGES} may help)")
    if quantization not in BY_CONVERTER and not shutil.which(QUANTIZE):
        allowed = ", ".join(BY_CONVERTER)
        raise ExportError(f"--quantization: found {quantization} without {QUANTIZE} on the PATH, allowed: {allowed}")
    return Path(found)


def write_gguf(model: Path, file: Path, quantization: str, converter: Path, name: str) -> None:
    """Convert a merged export to a file, which takes its place when it is whole; `name`: as programs show the model.

    Raises:
        ExportError: a tool failed.
        DiskError: the disk has too little room.
    """
    small = quantization not in BY_CONVERTER
    check_space(file, sum(each.stat().st_size for each in model.glob("*.safetensors")) * (2 if small else 1))
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
        made = Path(folder, "whole.gguf")
        options = ["--outfile", str(made), "--outtype", "bf16" if small else quantization, "--model-name", name]
        _call([sys.executable, str(converter), str(model), *options], CONVERTER, made)
        if small:
            whole, made = made, Path(folder, "small.gguf")
            _call([QUANTIZE, str(whole), str(made), quantization.upper()], QUANTIZE, made)
        with made.open("rb") as written:
            os.fsync(written.fileno())
        made.replace(file)
    say(f"export  {file}: {file.stat().st_size / 2**20:.1f} MiB")


def compare_gguf(source: Source, model: Path, file: Path, quantization: str, prompts: Path | None) -> None:
    """Let llama.cpp, where it is installed, read what a merged export answers; say it, and write it into its card.

    Raises:
        ExportError: llama.cpp cannot load the file, or it is another model; it is removed then. How far a quantization
            that the converter does not know may be from the model is the user's to judge.
    """
    if not installed():
        return say(f"export  {NOT_COMPARED}")
    try:
        tokenizer, contract = run_tokenizer(source)
        weights, asked = load_weights(str(model), source), read_prompts(source, prompts)
        reading = read_in_llama_cpp(file, Reference(weights, tokenizer, contract, source.template_kwargs, asked))
        if quantization in BY_CONVERTER and (problems := reading.problems()):
            raise ExportError(f"{file} is not the model: {'; '.join(problems)} ({reading.line()}); removed")
    except BaseException:  # Ctrl-C, too: what nobody has compared does not look like what was
        file.unlink(missing_ok=True)
        raise
    say(f"export  {file}: {reading.line()}")
    card = (model / CARD).read_text("utf-8").rstrip()
    write_whole(model / CARD, f"{card}\n\nAs GGUF, {quantization}, {reading.line()}.\n")


def _call(command: list[str], tool: str, made: Path | None = None) -> None:
    """Run a tool without the secrets of the environment; what it says last is the error."""
    secret = ("TOKEN", "KEY", "SECRET", "PASSWORD")
    environment = {
        name: value for name, value in os.environ.items() if not any(word in name.upper() for word in secret)
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    if done.returncode or (made and not made.is_file()):
        said = " ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-1:])[-300:]
        raise ExportError(f"{tool} failed: {said or 'it wrote no file'}")
