"""A GGUF file is read, saved, and compared; what transformers would fail on, or leave out, is refused by name."""

import os
import re
import shutil
import stat
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import TINY

gguf = pytest.importorskip("gguf")

from reasoning_ext.errors import UserError  # noqa: E402
from reasoning_ext.export import from_gguf  # noqa: E402
from reasoning_ext.export.from_gguf import LLAMA3, architectures, find_file, import_gguf  # noqa: E402
from reasoning_ext.export.llama_cpp import NOT_COMPARED, installed  # noqa: E402
from reasoning_ext.runs import files  # noqa: E402

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
LAYERS, HEADS, KV_HEADS = 2, 4, 2
TEXT = "Explain the number 7, 42 and 1234.\n\tIt's  fine: é <|im_end|>"


@pytest.fixture(scope="module")
def original():
    """A Llama of random weights, and byte-level tokens: 256 bytes, two merges, two that begin and end turns."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    merges = ["t h", "th e"]
    tokens = ["<|im_start|>", "<|im_end|>", *bytes_to_unicode().values(), *(each.replace(" ", "") for each in merges)]
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokens), hidden_size=32, intermediate_size=64, num_hidden_layers=LAYERS, eos_token_id=1,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, tie_word_embeddings=False, initializer_range=0.3,
        bos_token_id=0, pad_token_id=1, max_position_embeddings=512,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval(), tokens, merges


def write(file, original, architecture="llama", tokenizer="gpt2", left_out="", more=(), **numbers):
    """Write a model as llama.cpp's converter does: its names, its order of rotary halves."""
    model, tokens, merges = original
    writer, config = gguf.GGUFWriter(file, architecture), model.config
    writer.add_block_count(LAYERS)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(len(tokens))
    if tokenizer:
        writer.add_tokenizer_model(tokenizer)
        writer.add_token_list(tokens)
        writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
        writer.add_token_merges(merges)
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
        writer.add_chat_template(TEMPLATE)
    for key, number in numbers.items():
        writer.add_uint16(key.replace("_", "."), number)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    for name, tensor in model.state_dict().items():
        own, array = names.get_name(name, (".weight",)), tensor.numpy()
        heads = HEADS if "q_proj" in name else KV_HEADS if "k_proj" in name else 0
        if heads:
            array = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        if not (left_out and left_out in own):
            writer.add_tensor(own, np.ascontiguousarray(array))
    for name, factors in more:
        writer.add_tensor(name, np.array(factors, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_the_folder_is_the_files_model_with_its_tokenizer_and_template(original, tmp_path, capsys):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    blob = write(tmp_path / "sha256-1234", original)  # as Ollama names them
    shutil.copy(TINY / "model" / "tokenizer.json", tmp_path)  # a stranger's, beside it
    (tmp_path / "new").mkdir()
    assert import_gguf(str(blob), tmp_path / "new") == tmp_path / "new"
    printed = capsys.readouterr().out
    assert "100.0% of" in printed and "on 20 prompts, KL 0" in printed
    assert ("20 of 20 prompts cut into the same tokens" in printed) == installed() == (NOT_COMPARED not in printed)
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "new", dtype="auto"),
        AutoTokenizer.from_pretrained(tmp_path / "new"),
    )
    assert model.dtype == torch.bfloat16 and not hasattr(model.config, "quantization_config")
    ids = tokenizer(TEXT)["input_ids"]
    assert tokenizer.decode(ids) == TEXT and ids[-1] == 1 and "the" in tokenizer.tokenize(TEXT)
    assert len(tokenizer) == model.config.vocab_size == len(original[1])
    assert tokenizer.chat_template == TEMPLATE and model.generation_config.eos_token_id == 1
    with torch.inference_mode():
        read, written = (each.float()(torch.tensor([ids])).logits for each in (original[0], model))
    assert (read - written).abs().max() < 0.05 * read.abs().max()  # bfloat16's rounding
    umask = os.umask(0o77)
    os.umask(umask)
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "new").iterdir()} == {0o666 & ~umask}


def test_the_scaled_rope_of_llama_3_is_kept(original, tmp_path, capsys):
    import torch
    from transformers import AutoModelForCausalLM, LlamaForCausalLM

    rope = LLAMA3 | {"rope_theta": 500000.0, "factor": 8.0}
    config = type(original[0].config).from_dict(original[0].config.to_dict() | {"rope_parameters": rope})
    scaled = LlamaForCausalLM(config).eval()
    scaled.load_state_dict(original[0].state_dict())
    factors = 500000.0 ** -(np.arange(4) / 4) / scaled.model.rotary_emb.inv_freq.numpy()
    file = write(tmp_path / "f", (scaled, *original[1:]), more=[("rope_freqs.weight", factors)])
    import_gguf(str(file), tmp_path / "new")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "new", dtype=torch.float32)
    assert dict(model.config.rope_parameters) == rope
    places = {"input_ids": torch.arange(2, 22)[None], "position_ids": 20_000 * torch.arange(20)[None]}
    with torch.inference_mode():
        far, plain = scaled(**places).logits, original[0](**places).logits
        assert (far - model(**places).logits).abs().max() < 0.05 * far.abs().max() < (far - plain).abs().max()


BROKEN = {
    "no_gguf": lambda at, made: (at / "f").write_bytes(b"PK\3\4 and more"),
    "torn": lambda at, made: (at / "f").write_bytes(write(at / "g", made).read_bytes()[:9000]),
    "architecture": lambda at, made: write(at / "f", made, architecture="rwkv7"),
    "no_text": lambda at, made: write(at / "f", made, architecture="t5"),
    "no_tokenizer": lambda at, made: write(at / "f", made, tokenizer=None),
    "unknown_tokenizer": lambda at, made: write(at / "f", made, tokenizer="rwkv"),
    "split": lambda at, made: write(at / "f", made, split_no=0, split_count=3),
    "scaled_rope": lambda at, made: write(at / "f", made, more=[("rope_freqs.weight", [1, 1, 2, 8])]),
    "long_rope": lambda at, made: write(at / "f", made, more=[("rope_factors_long.weight", [1, 1, 2, 8])]),
    "tensor_missing": lambda at, made: write(at / "f", made, left_out="blk.1.ffn_up"),
    "none": lambda at, made: None,
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_be_imported_is_refused_in_one_line(original, tmp_path, wording, what):
    BROKEN[what](tmp_path, original)
    with pytest.raises(UserError) as error:
        import_gguf(str(tmp_path / "f"), tmp_path / "new")
    assert not (tmp_path / "new").exists() and not (tmp_path / ".new.part").exists()
    wording(re.split("(?<=allowed: )bloom|ValueError:", str(error.value))[0])  # the rest is transformers' own


def test_what_is_there_or_has_no_room_or_lacks_a_package_is_refused_before_anything_is_read(
    original, tmp_path, monkeypatch
):
    file = str(write(tmp_path / "f", original))
    monkeypatch.setattr(from_gguf, "_read", None)
    for folder in (tmp_path, tmp_path / "f"):
        with pytest.raises(UserError, match="empty folder"):
            import_gguf(file, folder)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(files.DiskError, match="MiB free"):
        import_gguf(file, tmp_path / "new")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match="pip install gguf"):
        import_gguf(file, tmp_path / "new")


def test_a_folder_that_is_another_model_is_not_left(original, tmp_path, monkeypatch):
    def doubled(model, *others):
        for tensor in model.state_dict().values():
            tensor.mul_(2)
        save(model, *others)
        for tensor in model.state_dict().values():
            tensor.div_(2)

    save = from_gguf._save
    monkeypatch.setattr(from_gguf, "_save", doubled)
    with pytest.raises(UserError, match=r"KL .*; removed"):
        import_gguf(str(write(tmp_path / "f", original)), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_package_that_holds_one_file_may_be_named(tmp_path, monkeypatch):
    (tmp_path / "some_model-1.dist-info").mkdir()
    (tmp_path / "some_model-1.dist-info" / "METADATA").write_text("Name: some-model\nVersion: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    for held in (["a.gguf"], [], ["a.gguf", "b.gguf"]):
        (tmp_path / "some_model-1.dist-info" / "RECORD").write_text("".join(f"{each},,\n" for each in held))
        if len(held) == 1:
            assert find_file("some-model") == tmp_path / "a.gguf"
            continue
        with pytest.raises(UserError, match=f"found {len(held)} GGUF files"):
            find_file("some-model")


def test_the_architectures_are_named_as_gguf_names_them():
    assert (
        {"llama", "qwen2", "qwen3", "qwen3moe", "gemma3", "phi3"}
        <= {*architectures()}
        <= {*gguf.MODEL_ARCH_NAMES.values()} | {"mistral"}
    )
