"""GGUF by llama.cpp's converter, or what stands in for it here: found first, without the user's tokens, whole or not at all."""

import shutil
import sys

import pytest

from reasoning_ext.export.gguf import find_converter, write_gguf
from reasoning_ext.export.merge import ExportError

CONVERTER = """
import argparse, os, pathlib, sys
parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--outfile", type=pathlib.Path)
parser.add_argument("--outtype")
parser.add_argument("--model-name", required=True)
arguments = parser.parse_args()
assert (pathlib.Path(arguments.model) / "model.safetensors").is_file()
if "HF_TOKEN" in os.environ:
    sys.exit("saw a token")
WRITE
"""
WRITE = 'arguments.outfile.write_text("gguf " + arguments.outtype)'
QUANTIZE = f'#!{sys.executable}\nimport sys\nopen(sys.argv[2], "w").write(open(sys.argv[1]).read() + sys.argv[3])\n'


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A folder that looks like a merged export, and no tool but those that a test makes."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_text("weights")
    monkeypatch.setenv("HF_TOKEN", "hf_aVerySecretToken1234")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    return tmp_path / "model"


def converter(folder, write=WRITE):
    """Write a program with the arguments of llama.cpp's converter."""
    folder.mkdir(exist_ok=True)
    (folder / "convert_hf_to_gguf.py").write_text(CONVERTER.replace("WRITE", write))
    return folder


def quantizer(folder):
    folder.mkdir(exist_ok=True)
    (folder / "llama-quantize").write_text(QUANTIZE)
    (folder / "llama-quantize").chmod(0o755)


def convert(model, quantization, folder):
    file = model.parent / "out" / "a.gguf"
    write_gguf(model, file, quantization, find_converter(folder, quantization), "a")
    assert [f.name for f in file.parent.iterdir()] == ["a.gguf"]
    return file.read_text()


def test_it_is_written_by_llama_cpps_converter_without_the_users_token(model, tmp_path, monkeypatch):
    folder = converter(tmp_path / "llama.cpp")
    assert convert(model, "q8_0", folder) == "gguf q8_0"
    monkeypatch.setenv("LLAMA_CPP", str(folder))
    assert convert(model, "f16", None) == "gguf f16"
    quantizer(tmp_path / "bin")
    assert convert(model, "q4_k_m", None) == "gguf bf16Q4_K_M"


def test_a_tool_that_is_not_there_is_named_before_anything_is_merged(tmp_path, model, monkeypatch):
    needs_more = converter(tmp_path / "m")
    (needs_more / "convert_hf_to_gguf.py").write_text("import a_package_that_is_not_there")
    for folder, quantization, said in (
        (None, "q8_0", "convert_hf_to_gguf.py on the PATH"),
        (tmp_path, "q8_0", "convert_hf_to_gguf.py in "),
        (needs_more, "q8_0", "pip install gguf .*failed: .*a_package_that_is_not_there"),
        (converter(tmp_path / "l"), "q4_k_m", "q4_k_m without llama-quantize"),
    ):
        with pytest.raises(ExportError, match=said):
            find_converter(folder, quantization)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ExportError, match="pip install gguf sentencepiece"):
        find_converter(tmp_path / "l", "q8_0")


@pytest.mark.parametrize(
    ("write", "said"),
    [('arguments.outfile.write_text("torn"); sys.exit("no LlamaX")', "failed: no LlamaX"), ("pass", "no file")],
)
def test_a_converter_that_fails_or_writes_nothing_leaves_nothing(model, tmp_path, write, said):
    with pytest.raises(ExportError, match=said):
        convert(model, "q8_0", converter(tmp_path / "l", write))
    assert list((tmp_path / "out").iterdir()) == []
    shutil.rmtree(tmp_path / "l")
