"""Tokenizers made ready: a template where there is none, padding that ends nothing, and one line for what cannot be used."""

import pytest

from reasoning_ext.think.template import ContractError, find_contract
from reasoning_ext.think.tokenizer import DEFAULT_TEMPLATE, TokenizerError, load_tokenizer, prepare_tokenizer
from tests.templates import build, template_text

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "3+4?"},
    {"role": "assistant", "content": "7"},
    {"role": "user", "content": "And times 2?"},
]


def bare(name="llama3", **changes):
    tokenizer = build(name)
    for attribute, value in {"chat_template": None, **changes}.items():
        setattr(tokenizer, attribute, value)
    return tokenizer


def test_the_default_template_is_for_base_models_alone():
    tokenizer = prepare_tokenizer(bare())
    assert tokenizer.chat_template == DEFAULT_TEMPLATE
    text = tokenizer.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|begin_of_text|>Be brief.\n\nUser:\n3+4?\n\nAssistant:\n7<|eot_id|>\n\nUser:\nAnd times 2?\n\nAssistant:\n"
    )
    contract = find_contract(tokenizer)
    assert (contract.end, contract.history, contract.target, contract.prefix) == ("<|eot_id|>", "kept", "kept", "")
    assert prepare_tokenizer(build("qwen3")).chat_template == template_text("qwen3")
    text = prepare_tokenizer(bare("qwen2_5")).apply_chat_template(TURNS[1:2], tokenize=False)
    assert text == "User:\n3+4?\n\n"  # no token that begins a text


@pytest.mark.parametrize(
    "name, pad, expected",
    [
        ("llama3", None, "<|pad|>"),  # a spare token
        ("qwen2_5", "<|im_end|>", "<|endoftext|>"),
        ("qwen3", "<|endoftext|>", "<|endoftext|>"),  # kept
    ],
)
def test_padding_is_a_token_of_its_own(name, pad, expected):
    tokenizer = build(name)
    tokenizer.pad_token = pad
    before = len(tokenizer)
    assert prepare_tokenizer(tokenizer).pad_token == expected != tokenizer.eos_token and len(tokenizer) == before


def test_the_unknown_token_pads_where_nothing_is_spare():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="</s>")
    assert prepare_tokenizer(tokenizer).pad_token == "<unk>"


def test_a_template_file_or_another_models_template_is_taken(tmp_path):
    (tmp_path / "t.jinja").write_text("\ufeff" + template_text("qwen3_5_think"))
    build("qwen3_5_think").save_pretrained(tmp_path / "other")
    build("qwen3").save_pretrained(tmp_path / "own")
    for path in ("t.jinja", "other"):
        tokenizer = load_tokenizer(str(tmp_path / "own"), chat_template_path=str(tmp_path / path))
        assert tokenizer.chat_template == template_text("qwen3_5_think")
    assert load_tokenizer(str(tmp_path / "own")).chat_template == template_text("qwen3")


@pytest.mark.parametrize("path", ["missing.jinja", "folder.jinja", "bytes.jinja", "bare", "nowhere"])
def test_a_template_that_cannot_be_had_is_one_line(tmp_path, path):
    bare().save_pretrained(tmp_path / "bare")
    (tmp_path / "bytes.jinja").write_bytes(b"\xff\xfe{{")
    (tmp_path / "folder.jinja").mkdir()
    with pytest.raises(TokenizerError) as caught:
        prepare_tokenizer(build("qwen3"), str(tmp_path / path))
    assert caught.value.key == "chat_template_path" and path in str(caught.value) and "\n" not in str(caught.value)


def test_a_tokenizer_that_cannot_be_used_is_one_line(tmp_path):
    for make in (lambda: load_tokenizer(str(tmp_path)), lambda: prepare_tokenizer(bare(eos_token=None))):
        with pytest.raises(TokenizerError) as caught:
            make()
        assert caught.value.key == "model_name_or_path" and "\n" not in str(caught.value)
    with pytest.raises(ContractError):
        find_contract(build("qwen3", text="{% for m in messages %}"))
