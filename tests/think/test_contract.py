"""The think contract over the chat templates that TRL ships: what is found by rendering, and rows that are exact."""

import signal

import pytest
from reasoning_ext.rewards.think_format import think_format

from reasoning_ext.data.tokens import IGNORED, LossOptions, tokenize
from reasoning_ext.think import probes
from reasoning_ext.think.probes import split_prompt
from reasoning_ext.think.render import render_prompt, render_row
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


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_a_template_does_is_found_by_rendering(name):
    c = find_contract(build(name))
    assert (c.prefix, c.closed, c.history, c.target, c.adds_empty, c.end) == FOUND[name]
    assert c.special == (name == "gptoss") and c.parts == (name == "smolvlm")
    assert build(name).convert_tokens_to_ids(c.end) == c.end_id


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}"
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"


@pytest.mark.parametrize(
    "template",
    [
        LOOP,
        PLAIN + "{% if messages | length > 1 %}" + LOOP + "{% endif %}",
        PLAIN + "{% for m in messages if m.reasoning_content %}" + LOOP + "{% endfor %}",
        "{{ 10 ** (10 ** 10) }}" + PLAIN,
        "{{ 'x' * 10 ** 11 }}" + PLAIN,
        "{{ 'x' * 3 * 10 ** 7 }}" + PLAIN,
        "{% set n = 'x' * 10 ** 6 %}{% for a in range(99999) %}{{ n }}{% endfor %}" + PLAIN,
    ],
    ids=["loop", "with an answer", "with a thought", "power", "text", "long", "long loop"],
)
def test_a_template_without_an_end_is_refused_as_a_whole(monkeypatch, template):
    monkeypatch.setattr(probes, "SECONDS", 0.5)
    tokenizer = build("qwen3")
    tokenizer.chat_template = template
    with pytest.raises(ContractError, match=r"the chat template has no (end|bound)") as caught:
        find_contract(tokenizer)
    assert "\n" not in str(caught.value) and signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert find_contract(build("qwen3")).end == "<|im_end|>"


@pytest.mark.parametrize("evil", [LOOP, "{{ 'a' * 10 ** 10 }}", "{{ 'a' * 15 * 10 ** 6 }}"])
def test_a_row_on_which_a_template_has_no_end_is_refused(monkeypatch, evil):
    monkeypatch.setattr(probes, "SECONDS", 0.5)
    tokenizer = build("qwen3")
    tokenizer.chat_template = PLAIN + "{% if 'evil' in messages[0].content %}" + evil + "{% endif %}"
    contract = find_contract(tokenizer)
    with pytest.raises(ValueError, match=r"the chat template has no (end|bound)"):
        render_prompt(tokenizer, contract, [{"role": "user", "content": "evil"}], {})


def rendered(name, case, special_tags=False, **kwargs):
    """Tokenize a case and return `(contract, prompt text, trained text, tokens)`, all decoded from the ids."""
    tokenizer = build(name, special_tags)
    contract = find_contract(tokenizer, kwargs)
    prompt, completion = CASES[case]
    row = {"prompt": prompt, "completion": [{"role": "assistant", "content": completion}]}
    tokens = tokenize(tokenizer, render_row(tokenizer, contract, row, kwargs))
    trained = [i for i in tokens.labels(LossOptions()) if i != IGNORED]
    decode = tokenizer.decode
    return contract, decode(tokens.input_ids[: tokens.prompt]), decode(trained), tokens


@pytest.mark.parametrize("special_tags", [False, True], ids=["", "special"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_row_is_trained_to_the_letter(name, case, special_tags):
    contract, prompt, trained, tokens = rendered(name, case, special_tags)
    completion = CASES[case][1]
    assert tokens.exact
    assert tokens.input_ids[-1] == contract.end_id and trained.endswith(contract.end)
    text = trained.removesuffix(contract.end)
    thinks = completion.startswith("<think>")
    if not thinks:
        whole = text.removeprefix(contract.plain_lead)
        assert whole == completion and not prompt.rstrip().endswith("<think>")
    else:
        if contract.prefix:
            assert prompt.endswith(contract.prefix)
        assert not prompt.rstrip().endswith("</think>")
        whole = contract.whole(text)
        if name == "gptoss":  # the white space around the parts is that of <think>, not the channels'
            thought, _, answer = completion.removeprefix("<think>").partition("</think>")
            assert whole == f"<think>{thought.strip()}</think>{answer.strip()}"
        else:
            assert whole.strip() == completion
    asked = build(name).apply_chat_template(
        contract.messages(CASES[case][0]), add_generation_prompt=True, tokenize=False
    )
    for added in (contract.prefix, contract.closed):
        asked = asked.removesuffix(added) if added and prompt != asked else asked
    assert prompt == asked


@pytest.mark.parametrize("case", ["thought and answer", "multi-turn with thoughts"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_format_reward_is_right_on_what_a_model_writes(name, case):
    for special in (False, True):
        tokenizer = build(name, special)
        contract, _, trained, _ = rendered(name, case, special)
        ids = tokenizer(trained, add_special_tokens=False)["input_ids"]
        written = trained.removesuffix(contract.end)
        assert think_format([contract.whole(written)]) == [1.0]
        assert (tokenizer.decode(ids, skip_special_tokens=True) == written) is not contract.special
        bad = [ANSWER, "<think>\n\n</think>\n\n" + ANSWER, "<think>\n" + THOUGHT]
        assert (
            think_format([contract.whole(contract.native(text)) if not contract.prefix else text for text in bad])
            == [0.0] * 3
        )


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_prompt_is_the_one_of_inference_where_the_row_thinks(name):
    tokenizer = build(name)
    contract, _, _, tokens = rendered(name, "thought and answer")
    text = tokenizer.apply_chat_template(contract.messages(QUESTION), add_generation_prompt=True, tokenize=False)
    if contract.closed:  # a trace in the place of the empty thought that switches thinking off
        text = text.removesuffix(contract.closed)
    assert tokens.input_ids[: tokens.prompt] == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_thinking_can_be_switched_by_the_templates_own_arguments():
    assert find_contract(build("qwen3"), {"enable_thinking": False}).closed == "<think>\n\n</think>\n\n"
    assert find_contract(build("qwen3_5_nothink"), {"enable_thinking": True}).prefix == "<think>\n"
    _, prompt, trained, _ = rendered("qwen3", "plain answer", enable_thinking=False)
    assert prompt.endswith("<think>\n\n</think>\n\n") and trained == ANSWER + "<|im_end|>"


def test_a_rows_own_template_arguments_count():
    tokenizer = build("qwen3")
    row = {"prompt": QUESTION, "completion": [{"role": "assistant", "content": "14"}]}
    off = render_row(tokenizer, find_contract(tokenizer), row | {"chat_template_kwargs": {"enable_thinking": False}})
    on = render_row(tokenizer, find_contract(tokenizer), row | {"chat_template_kwargs": None})
    assert off.prompt.endswith("</think>\n\n") and on.prompt.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("tags", [("<reasoning>", "</reasoning>"), ("[THINK]", "[/THINK]")])
def test_other_tags_are_a_setting(tags):
    tokenizer = build("llama3")
    contract = find_contract(tokenizer, think_tags=tags)
    row = {"prompt": TURNS, "completion": [{"role": "assistant", "content": TRACE}]}
    text = render_row(tokenizer, contract, row)
    assert text.thought + text.answer == TRACE.replace("<think>", tags[0]).replace("</think>", tags[1]) + "<|eot_id|>"
    assert text.prompt.count(tags[0]) == 2 and "<think>" not in text.prompt
    assert contract.whole((text.thought + text.answer).removesuffix("<|eot_id|>")) == TRACE
    assert contract.whole("no thought") == "no thought" and contract.whole(tags[0] + "x") == "<think>x"


def test_channels_are_made_whole():
    contract = find_contract(build("gptoss"))
    assert contract.whole("<|channel|>final<|message|>14") == "14"
    written = "<|channel|>analysis<|message|>3+4=7<|end|><|start|>assistant<|channel|>final<|message|>14"
    assert contract.whole(written) == "<think>3+4=7</think>14"
    assert contract.whole("<|channel|>analysis<|message|>3+4") == "<think>3+4"


@pytest.mark.parametrize(
    "loss, trained",
    [
        (LossOptions(), "First.\n</think>\n\n14<|im_end|>"),
        (LossOptions(train_on="answer"), "\n\n14<|im_end|>"),
    ],
)
def test_what_is_trained_on_is_an_option(loss, trained):
    tokenizer = build("qwen3_5_think")
    row = {"prompt": QUESTION, "completion": [{"role": "assistant", "content": "<think>\nFirst.\n</think>\n\n14"}]}
    tokens = tokenize(tokenizer, render_row(tokenizer, find_contract(tokenizer), row))
    assert tokenizer.decode([i for i in tokens.labels(loss) if i != IGNORED]) == trained
    weights = tokens.weights(LossOptions(thought_weight=0.5, answer_weight=2.0))
    assert len(weights) == len(tokens.input_ids)
    thought = tokenizer.decode([i for i, w in zip(tokens.input_ids, weights, strict=True) if w == 0.5])
    assert thought == "First.\n</think>" and weights[-1] == 2.0 and weights[0] == 0.0


def test_tags_that_a_template_writes_in_front_of_tool_calls_alone_are_found():
    text = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.tool_calls and m.reasoning_content %}<|channel>thought\n{{ m.reasoning_content }}\n<channel|>{% endif %}"
        "{% if m.tool_calls %}<call>{{ m.tool_calls[0].function.name }}{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    contract = find_contract(build("qwen2_5", text=text))
    assert (contract.open, contract.close) == ("<|channel>thought\n", "\n<channel|>")
    assert contract.field == "reasoning_content" and contract.changes_text
    assert find_contract(build("qwen2_5")).open == "<think>"


def test_tags_of_channels_are_found_without_their_white_space():
    contract = Contract(open=" <|a|>\n", close="\n<|b|> ")
    assert contract.whole(" <|a|>\nx\n<|b|> y") == contract.whole("<|a|>x<|b|>y") == "<think>x</think>y"
    assert contract.whole("<|a|>x") == "<think>x" and contract.whole("y<|a|>x<|b|>") == "y<|a|>x<|b|>"


def test_a_turn_that_ends_with_two_tokens_is_trained_to_the_last_and_read_without_both():
    text = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{% if m.role == 'assistant' %}<|stop|>{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = build("qwen2_5", text=text)
    tokenizer.add_tokens(["<|stop|>"])
    contract = find_contract(tokenizer)
    assert contract.end == "<|stop|><|im_end|>" and contract.end_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    row = render_row(tokenizer, contract, {"prompt": QUESTION, "completion": TRACE})
    tokens = tokenize(tokenizer, row)
    written = tokens.input_ids[tokens.prompt :]
    assert tokenizer.decode(written) == TRACE + contract.end
    assert decoder(tokenizer, contract)(written) == TRACE


def test_the_end_is_what_ends_a_turn_whether_or_not_another_follows():
    text = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<|im_end|>{% if loop.last %}{{ '<|endoftext|>' }}{% endif %}{% endif %}{% endfor %}"  # noqa: E501
    assert find_contract(build("qwen2_5", text=text)).end == "<|im_end|>"


def test_decoding_keeps_every_space():
    tokenizer = build("llama3")
    tokenizer.clean_up_tokenization_spaces = True
    ids = tokenizer("3 , 4 . do n't", add_special_tokens=False)["input_ids"]
    assert decoder(tokenizer, find_contract(tokenizer))(ids) == "3 , 4 . do n't"


def test_a_prompt_that_ends_with_an_answer_and_one_without_content():
    tokenizer = build("qwen3")
    contract = find_contract(tokenizer)
    with pytest.raises(ValueError, match="the prompt ends with an assistant's message"):
        render_prompt(tokenizer, contract, TURNS[:2], {})
    call = {"role": "assistant", "tool_calls": []}
    assert contract.messages([call, {"role": "assistant", "content": None}])[0] == call


def test_completions_of_several_messages_are_left_alone():
    tokenizer = build("deepseek_r1_distill")
    decode = decoder(tokenizer, find_contract(tokenizer))
    ids = tokenizer("x</think>y<｜end▁of▁sentence｜>", add_special_tokens=False)["input_ids"]
    several = [{"role": "assistant", "content": "a"}, {"role": "tool", "content": "b"}]
    assert decode.messages(["x", several, [{"role": "assistant", "content": "x"}]], [ids] * 3) == [
        "<think>\nx</think>y",
        several,
        [{"role": "assistant", "content": "<think>\nx</think>y"}],
    ]


def test_a_template_that_loses_the_question_is_refused():
    tokenizer = build("qwen3")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}{% endfor %}"
    with pytest.raises(ContractError, match="leaves out the question"):
        find_contract(tokenizer)
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(ContractError, match="cannot render a question and an answer: no"):
        find_contract(tokenizer)


def test_an_empty_completion_is_refused():
    tokenizer = build("qwen3")
    with pytest.raises(ValueError, match="the completion is empty"):
        render_row(tokenizer, Contract(), {"prompt": QUESTION, "completion": [{"role": "assistant", "content": " \n"}]})


@pytest.mark.parametrize(
    "prompt, parts",
    [
        ("a<think>\n", ("a", "<think>\n", "")),
        ("a<think>\n\n</think>\n\n", ("a", "", "<think>\n\n</think>\n\n")),
        ("<think>a</think>b", ("<think>a</think>b", "", "")),
        ("what is <think>?", ("what is <think>?", "", "")),
    ],
)
def test_split_prompt(prompt, parts):
    assert split_prompt(prompt) == parts


def test_every_template_of_the_table_is_tried():
    """TRL before 1.16 does not ship all of them; a folder that was renamed must not leave the tests above without any."""
    assert set(FOUND) - set(TEMPLATES) <= {"smolvlm"}
