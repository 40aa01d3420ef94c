"""The think contract over the chat templates that TRL ships: what is found by rendering, and rows that are exact."""

import signal

import pytest
from reasoning_ext.rewards.think_format import think_format

from reasoning_ext.data.tokens import IGNORED, LossOptions, tokenize
from reasoning_ext.think import probes
from reasoning_ext.think.render import render_begun, render_prompt, render_row
from reasoning_ext.think.template import Contract, ContractError, decoder, find_contract
from tests.templates import TEMPLATES, build

THOUGHT = "First 3+4=7.\n\nThen 7*2=14,  so\tthe answer\nis 14 — ja, größer als <b> & λ."
ANSWER = "The answer is \\boxed{14}.\n\n```python\nx = 1  # </b>\n```"
TRACE = f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"
QUESTION = [{"role": "user", "content": "What is (3+4)*2?"}]
TURNS = [
    {"role": "user", "content": "What is 3+4?"},
    {"role": "assistant", "content": "<think>\nThree and four.\n</think>\n\n7"},
    {"role": "user", "content": "And times 2?"},
    {"role": "assistant", "content": "<think>\nSeven twice.\n</think>\n\n14"},
    {"role": "user", "content": "So?"},
]
CASES = {
    "plain answer": (QUESTION, ANSWER),
    "thought and answer": (QUESTION, TRACE),
    "multi-turn with thoughts": (TURNS, TRACE),
    "empty thought": (QUESTION, f"<think>\n\n</think>\n\n{ANSWER}"),
    "text containing tags": (
        [{"role": "user", "content": "What do <think> and </think> mean?"}],
        f"<think>\nThe user asks about the tag <think>.\n</think>\n\n{ANSWER} See `<think>`.",
    ),
    "tags in a plain answer": (QUESTION, "Write `<think>` first, then `</think>`, then the answer."),
}
FOUND = {  # prefix, closed, history, target, adds_empty, end
    "qwen3": ("", "", "stripped", "kept", True, "<|im_end|>"),
    "qwen3_instruct_2507": ("", "", "kept", "kept", False, "<|im_end|>"),
    "qwen3_5_think": ("<think>\n", "", "stripped", "kept", True, "<|im_end|>"),
    "qwen3_5_nothink": ("", "<think>\n\n</think>\n\n", "stripped", "kept", True, "<|im_end|>"),
    "qwen2_5": ("", "", "kept", "kept", False, "<|im_end|>"),
    "deepseek_r1_distill": ("<think>\n", "", "stripped", "stripped", False, "<｜end▁of▁sentence｜>"),
    "llama3": ("", "", "kept", "kept", False, "<|eot_id|>"),
    "llama3_2": ("", "", "kept", "kept", False, "<|eot_id|>"),
    "gemma3": ("", "", "kept", "kept", False, "<end_of_turn>"),
    "phi3_5": ("", "", "kept", "kept", False, "<|end|>"),
    "gptoss": ("", "", "stripped", "kept", False, "<|return|>"),
    "glm4moe": ("", "", "stripped", "kept", True, "<|user|>"),
    "smolvlm": ("", "", "kept", "kept", False, "<end_of_utterance>"),
}
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}"
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\nBODY<|im_end|>\n{% endfor %}"
CHATML += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_a_template_does_is_found_by_rendering(name):
    c = find_contract(build(name))
    assert (c.prefix, c.closed, c.history, c.target, c.adds_empty, c.end) == FOUND[name]
    assert c.special == (name == "gptoss") and c.parts == (name == "smolvlm")
    assert build(name).convert_tokens_to_ids(c.end) == c.end_id


def test_every_template_of_the_table_is_tried():
    """TRL before 1.16 does not ship all of them; a folder that was renamed must not leave the tests above without any."""
    assert set(FOUND) - set(TEMPLATES) <= {"smolvlm"}


@pytest.mark.parametrize(
    "template",
    [
        LOOP,
        PLAIN + "{% for m in messages if m.reasoning_content %}" + LOOP + "{% endfor %}",
        "{{ 10 ** (10 ** 10) }}" + PLAIN,
        "{{ 'x' * 10 ** 11 }}" + PLAIN,
        "{{ 'x' * 3 * 10 ** 7 }}" + PLAIN,
        PLAIN + "{% if 'evil' in messages[0].content %}" + LOOP + "{% endif %}",
        PLAIN + "{% if 'evil' in messages[0].content %}{{ 'a' * 10 ** 10 }}{% endif %}",
    ],
    ids=["loop", "with a thought", "power", "text", "long", "in a row", "text in a row"],
)
def test_a_template_without_an_end_is_refused_as_a_whole(monkeypatch, template):
    monkeypatch.setattr(probes, "SECONDS", 0.5)
    tokenizer = build("qwen3", text=template)
    with pytest.raises(ValueError, match=r"the chat template has no (end|bound)") as caught:
        render_prompt(tokenizer, find_contract(tokenizer), [{"role": "user", "content": "evil"}], {})
    assert "\n" not in str(caught.value) and signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert find_contract(build("qwen3")).end == "<|im_end|>"


@pytest.mark.parametrize("special_tags", [False, True], ids=["", "special"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_row_is_trained_to_the_letter(name, case, special_tags):
    """Behind the prompt of inference the trained tokens are the completion; read back whole it earns the format's reward."""
    tokenizer = build(name, special_tags)
    contract, (turns, completion) = find_contract(tokenizer), CASES[case]
    row = {"prompt": turns, "completion": [{"role": "assistant", "content": completion}]}
    tokens = tokenize(tokenizer, render_row(tokenizer, contract, row))
    prompt = tokenizer.decode(tokens.input_ids[: tokens.prompt])
    trained = tokenizer.decode([i for i in tokens.labels(LossOptions()) if i != IGNORED])
    assert tokens.exact and tokens.input_ids[-1] == contract.end_id and trained.endswith(contract.end)
    text = trained.removesuffix(contract.end)
    if not completion.startswith("<think>"):
        assert text.removeprefix(contract.plain_lead) == completion and not prompt.rstrip().endswith("<think>")
    else:
        assert prompt.endswith(contract.prefix) and not prompt.rstrip().endswith("</think>")
        expected = completion
        if name == "gptoss":  # the white space around the parts is that of <think>, not the channels'
            thought, _, answer = completion.removeprefix("<think>").partition("</think>")
            expected = f"<think>{thought.strip()}</think>{answer.strip()}"
        assert contract.whole(text).strip() == expected
        assert think_format([contract.whole(text)]) == [float(completion == TRACE)]
        ids = tokenizer(trained, add_special_tokens=False)["input_ids"]
        assert (tokenizer.decode(ids, skip_special_tokens=True) == text) is not contract.special
    asked = build(name).apply_chat_template(contract.messages(turns), add_generation_prompt=True, tokenize=False)
    for added in (contract.prefix, contract.closed):
        asked = asked.removesuffix(added) if added and prompt != asked else asked
    assert prompt == asked


def test_thinking_can_be_switched_by_the_templates_own_arguments_and_by_a_rows():
    assert find_contract(build("qwen3"), {"enable_thinking": False}).closed == "<think>\n\n</think>\n\n"
    assert find_contract(build("qwen3_5_nothink"), {"enable_thinking": True}).prefix == "<think>\n"
    tokenizer, row = build("qwen3"), {"prompt": QUESTION, "completion": "14"}
    off = render_row(tokenizer, find_contract(tokenizer), row | {"chat_template_kwargs": {"enable_thinking": False}})
    on = render_row(tokenizer, find_contract(tokenizer), row | {"chat_template_kwargs": None})
    assert off.prompt.endswith("</think>\n\n") and on.prompt.endswith("<|im_start|>assistant\n")
    assert off.answer == on.answer == "14<|im_end|>"


@pytest.mark.parametrize("tags", [("<reasoning>", "</reasoning>"), ("[THINK]", "[/THINK]")])
def test_other_tags_are_a_setting(tags):
    tokenizer = build("llama3")
    contract = find_contract(tokenizer, think_tags=tags)
    text = render_row(tokenizer, contract, {"prompt": TURNS, "completion": TRACE})
    assert text.thought + text.answer == TRACE.replace("<think>", tags[0]).replace("</think>", tags[1]) + "<|eot_id|>"
    assert text.prompt.count(tags[0]) == 2 and "<think>" not in text.prompt
    assert contract.whole((text.thought + text.answer).removesuffix("<|eot_id|>")) == TRACE
    assert contract.whole("no thought") == "no thought" and contract.whole(tags[0] + "x") == "<think>x"


@pytest.mark.parametrize(
    ("written", "whole"),
    [
        ("<|channel|>final<|message|>14", "14"),
        ("<|channel|>analysis<|message|>3+4=7<|end|><|start|>assistant<|channel|>final<|message|>14", "<think>3+4=7</think>14"),
        ("<|channel|>analysis<|message|>3+4", "<think>3+4"),
    ],
)  # fmt: skip
def test_channels_are_made_whole(written, whole):
    assert find_contract(build("gptoss")).whole(written) == whole


def test_tags_of_channels_are_found_without_their_white_space():
    contract = Contract(open=" <|a|>\n", close="\n<|b|> ")
    assert contract.whole(" <|a|>\nx\n<|b|> y") == contract.whole("<|a|>x<|b|>y") == "<think>x</think>y"
    assert contract.whole("<|a|>x") == "<think>x" and contract.whole("y<|a|>x<|b|>") == "y<|a|>x<|b|>"


def test_tags_that_a_template_writes_in_front_of_tool_calls_alone_are_found():
    thought = "{% if m.tool_calls and m.reasoning_content %}<|channel>thought\n{{ m.reasoning_content }}\n<channel|>{% endif %}"
    call = "{% if m.tool_calls %}<call>{{ m.tool_calls[0].function.name }}{% endif %}{{ m.content }}"
    contract = find_contract(build("qwen2_5", text=CHATML.replace("BODY", thought + call)))
    assert (contract.open, contract.close) == ("<|channel>thought\n", "\n<channel|>")
    assert contract.field == "reasoning_content" and contract.changes_text


def test_a_turn_that_ends_with_two_tokens_is_trained_to_the_last_and_read_without_both():
    stop = "{{ m.content }}{% if m.role == 'assistant' %}<|stop|>{% endif %}"
    tokenizer = build("qwen2_5", text=CHATML.replace("BODY", stop))
    tokenizer.add_tokens(["<|stop|>"])
    contract = find_contract(tokenizer)
    assert contract.end == "<|stop|><|im_end|>" and contract.end_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokens = tokenize(tokenizer, render_row(tokenizer, contract, {"prompt": QUESTION, "completion": TRACE}))
    written = tokens.input_ids[tokens.prompt :]
    assert tokenizer.decode(written) == TRACE + contract.end and decoder(tokenizer, contract)(written) == TRACE
    last = "{{ m.content }}{% if m.role == 'assistant' and loop.last %}<|im_end|><|endoftext|>{% endif %}"
    assert find_contract(build("qwen2_5", text=CHATML.replace("BODY", last))).end == "<|im_end|>"


def test_decoding_keeps_every_space_and_leaves_completions_of_several_messages_alone():
    tokenizer = build("deepseek_r1_distill")
    tokenizer.clean_up_tokenization_spaces = True
    decode = decoder(tokenizer, find_contract(tokenizer))
    ids = tokenizer("x , do n't</think>y .<｜end▁of▁sentence｜>", add_special_tokens=False)["input_ids"]
    several = [{"role": "assistant", "content": "a"}, {"role": "tool", "content": "b"}]
    whole = "<think>\nx , do n't</think>y ."
    made = decode.messages(["x", several, [{"role": "assistant", "content": "x"}]], [ids] * 3)
    assert made == [whole, several, [{"role": "assistant", "content": whole}]]


@pytest.mark.parametrize(
    "text", ["{% for m in messages %}{{ m.role }}{% endfor %}", "{{ raise_exception('no') }}"], ids=["loses", "raises"]
)
def test_a_template_that_loses_the_question_or_raises_is_refused(text, wording):
    with pytest.raises(ContractError) as caught:
        find_contract(build("qwen3", text=text))
    assert caught.value.key == "model_name_or_path"
    wording(caught.value)


def test_rows_that_cannot_be_rendered_are_refused():
    tokenizer = build("qwen3")
    contract = find_contract(tokenizer)
    with pytest.raises(ValueError, match="the prompt ends with an assistant's message"):
        render_prompt(tokenizer, contract, TURNS[:2], {})
    with pytest.raises(ValueError, match="the completion is empty"):
        render_row(tokenizer, contract, {"prompt": QUESTION, "completion": [{"role": "assistant", "content": " \n"}]})
    call = {"role": "assistant", "tool_calls": []}
    assert contract.messages([call, {"role": "assistant", "content": None}])[0] == call


@pytest.mark.parametrize(
    "name", sorted({"qwen3", "qwen3_5_think", "deepseek_r1_distill", "gptoss", "llama3"} & {*TEMPLATES})
)
def test_a_completion_is_gone_on_from_at_any_place_of_its_thought_and_answer(name):
    """The prompt is the beginning of what the whole completion renders to, and what is missing makes the text whole again."""
    tokenizer = build(name)
    contract = find_contract(tokenizer)
    row = render_row(tokenizer, contract, {"prompt": QUESTION, "completion": [{"role": "assistant", "content": TRACE}]})
    full = (row.prompt + row.thought + row.answer).removesuffix(contract.end)
    whole = contract.whole(full.removeprefix(render_begun(tokenizer, contract, QUESTION, {})))
    closed = whole.index("</think>")
    for cut in (len("<think>") + 2, 20, closed, closed + len("</think>"), closed + 12, len(whole) - 1):
        begun = whole[:cut]
        rendered = render_begun(tokenizer, contract, [*QUESTION, {"role": "assistant", "content": begun}], {})
        assert full.startswith(rendered) and len(rendered) > len(row.prompt)
        assert contract.whole_from(begun, full[len(rendered) :]) == whole, begun
    assert contract.whole_from("", "7") == contract.whole("7")
