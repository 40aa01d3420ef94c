"""A model that is opened for tools: its template has tool turns, and what ends a turn that calls ends generation."""

import pytest
from conftest import TINY

from reasoning_ext.models.loaded import LoadOptions
from reasoning_ext.models.source import ModelSource, model_source
from reasoning_ext.think.calls import play
from tests.templates import build, save_model

FUNCTION = {"name": "look", "description": "-", "parameters": {"type": "object", "properties": {}}}
SCHEMA = {"type": "function", "function": FUNCTION}


def test_tool_turns_come_with_the_key_tools_alone():
    values = {"model_name_or_path": str(TINY / "model"), "chat_template_kwargs": {"enable_thinking": True}}
    plain = model_source(values, str, trainable=False)
    tokenizer, contract = plain.load_tokenizer()
    assert contract.calls is None and "tool_call" not in tokenizer.chat_template
    kwargs = {"enable_thinking": True, "tools": [SCHEMA]}
    told = model_source(values, str, trainable=False, template_kwargs=kwargs)
    untold = (plain.with_tool_turns(), kwargs | {"tools": []})
    for source, expected in ((told, kwargs), (told.with_tool_turns(), kwargs), untold):
        tokenizer, contract = source.load_tokenizer()
        assert source.options.chat_template_kwargs == expected and play(tokenizer, contract, expected) == ""


@pytest.mark.parametrize(("name", "end"), [("glm4moe", "<|observation|>"), ("smolvlm", "<end_of_utterance>")])
def test_what_ends_a_turn_that_calls_ends_generation(tmp_path, name, end):
    save_model(tmp_path, build(name))
    options = LoadOptions(trainable=False, from_scratch=True, chat_template_kwargs={"tools": []})
    loaded = ModelSource(str(tmp_path), {"model_name_or_path": str(tmp_path)}, options, use_cpu=True).load()
    ends = loaded.model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    assert loaded.tokenizer.convert_tokens_to_ids(end) in ends and loaded.contract.end_id in ends
    assert "tool_call" in loaded.tokenizer.chat_template
