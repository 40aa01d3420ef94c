"""Conversations with calls and results: the same ids as TRL builds, exact texts, what is trained on and what is not."""

from types import SimpleNamespace

import pytest

from reasoning_ext.think.calls import add_tool_turns, call_of
from reasoning_ext.think.render import render_begun, render_prompt
from reasoning_ext.think.template import decoder, find_contract
from reasoning_ext.think.turns import render_turns, results_text, split_turns
from tests.templates import SHIPPED, build

KWARGS = {"tools": []}
QUESTION = [{"role": "user", "content": "What is 17 * 23?"}]
CALLS = [call_of("calculator", {"expression": "17 * 23"})]
RESULTS = [{"role": "tool", "name": "calculator", "content": "391"}]
THOUGHT = "<think>\nI ask.\n</think>\n\n"
TURNS = [
    {"role": "assistant", "content": THOUGHT, "tool_calls": CALLS},
    *RESULTS,
    {"role": "assistant", "content": "<think>\nSo 391.\n</think>\n\nIt is 391."},
]
# TRL 1.16 forgets the line end behind an end of a turn that is not the eos token, doubles GLM's `<|observation|>`, and refuses
# Phi-3's, which writes an eos behind everything, Qwen3's, which it swaps, and objects as arguments of DeepSeek-V3's
NOT_TRLS = {"glm4moe", "gemma4_v2", "deepseekv3", "qwen3"}


def opened(name):
    tokenizer = build(name)
    add_tool_turns(tokenizer)
    return tokenizer, find_contract(tokenizer, KWARGS)


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    "name", [n for n in SHIPPED if not n.startswith(("gemma_", "gemma3", "phi3")) and n not in {*NOT_TRLS, "gemma"}]
)
def test_a_trace_has_the_ids_that_trl_puts_together(name):
    from trl import GRPOTrainer

    tokenizer, contract = opened(name)
    asked = SimpleNamespace(
        processing_class=tokenizer, _tokenizer=tokenizer, chat_template=None, chat_template_kwargs={}, _is_vlm=False
    )
    results = RESULTS if not contract.parts else contract.messages(RESULTS)
    segments = render_turns(tokenizer, contract, QUESTION, TURNS, KWARGS)
    suffix = GRPOTrainer._get_tool_suffix_ids(asked, list(results))
    assert suffix == ids(tokenizer, results_text(tokenizer, contract, RESULTS, KWARGS))
    at = next(number for number, segment in enumerate(segments) if segment.kind == "result")
    prompt = render_prompt(tokenizer, contract, QUESTION, KWARGS)
    first = "".join(segment.text for segment in segments[:at])
    start = len(prompt) if first.startswith(prompt) else len(segments[0].text)
    whole = ids(tokenizer, first[:start]) + ids(tokenizer, first[start:]) + suffix
    assert tokenizer.decode(whole) == first + results_text(tokenizer, contract, RESULTS, KWARGS)


@pytest.mark.parametrize("name", SHIPPED)
def test_no_letter_of_a_trace_is_lost_and_results_are_told_apart(name):
    tokenizer, contract = opened(name)
    segments = render_turns(tokenizer, contract, QUESTION, TURNS, KWARGS)
    kinds = [segment.kind for segment in segments]
    assert kinds[0] == "prompt" and kinds.count("result") == 1 and "391" in segments[kinds.index("result")].text
    said = ["", ""]
    for segment in segments[1:]:
        if segment.kind in ("thought", "answer"):
            said[kinds.index("result") < segments.index(segment)] += segment.text
    decode = decoder(tokenizer, contract)
    content, calls, problem = contract.calls.parse(decode(ids(tokenizer, said[0])))
    assert (calls, problem) == (CALLS, "") and "I ask." in content and said[0].endswith(contract.calls.end)
    last = decode(ids(tokenizer, said[1]), behind_results=True)
    assert last.split() == TURNS[2]["content"].split() or "".join(last.split()) == "".join(TURNS[2]["content"].split())
    assert said[1].endswith(contract.end)
    joined = "".join(segment.text for segment in segments)
    begun = render_begun(tokenizer, contract, [*QUESTION, *TURNS], KWARGS)
    assert joined.startswith(begun) and joined.removeprefix(begun).strip() == contract.end.strip()
    asked = render_begun(tokenizer, contract, [*QUESTION, *TURNS[:2]], KWARGS)
    assert joined.startswith(asked.removesuffix(contract.prefix).removesuffix(contract.closed))


def test_earlier_rounds_are_the_prompts():
    messages = [{"role": "system", "content": "s"}, *QUESTION, *TURNS, *QUESTION, *TURNS[:2]]
    prompt, turns = split_turns(messages)
    assert prompt == messages[:6] and turns == TURNS[:2]
    assert split_turns(QUESTION) == (QUESTION, [])
    tokenizer, contract = opened("deepseekv3")
    assert "391" in render_prompt(tokenizer, contract, prompt, KWARGS)


def test_without_tools_asked_for_a_trace_is_refused():
    tokenizer = build("qwen3")
    with pytest.raises(ValueError, match="no tools"):
        render_turns(tokenizer, find_contract(tokenizer), QUESTION, TURNS, {})


def test_arguments_as_json_text_are_the_same_call():
    tokenizer, contract = opened("qwen3")
    function = {"name": "calculator", "arguments": '{"expression": "17 * 23"}'}
    text = [{**TURNS[0], "tool_calls": [{"function": function}]}]
    one, other = (render_turns(tokenizer, contract, QUESTION, turns, KWARGS) for turns in (text, TURNS[:1]))
    assert one == other


def test_two_turns_of_the_assistant_side_by_side_are_refused():
    tokenizer, contract = opened("qwen3")
    for turns in ([TURNS[2], TURNS[2]], [*TURNS, TURNS[0]], [*RESULTS, TURNS[2]]):
        with pytest.raises(ValueError, match="assistant"):
            render_turns(tokenizer, contract, QUESTION, turns, KWARGS)
