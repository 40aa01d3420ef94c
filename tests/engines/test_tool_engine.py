"""Completions that call tools: over a scripted engine, the engine in this process, and a server."""

import json
from dataclasses import replace

import pytest
from stand_in import servers
from test_transformers_engine import build

from reasoning_ext.engines.base import Completion, SamplingSettings
from reasoning_ext.engines.server import ServerEngine
from reasoning_ext.engines.thinking import ThinkingEngine
from reasoning_ext.engines.tools import ToolEngine, counted_calls
from reasoning_ext.engines.transformers import TransformersEngine
from reasoning_ext.recipe.engine_options import ServerOptions
from reasoning_ext.think.calls import CallFormat, add_tool_turns, call_of
from reasoning_ext.think.template import find_contract
from reasoning_ext.think.turns import render_turns
from reasoning_ext.tools.box import Result

QUESTION = [{"role": "user", "content": "12*12"}]
CALL = '<tool_call>\n{"name": "calculator", "arguments": {"expression": "12*12"}}\n</tool_call>'
FIRST = f"<think>I ask</think>{CALL}"
SETTINGS = SamplingSettings(max_completion_length=400)


class Box:
    """Answers every call with its name and the object that it acts on; notes what is run together."""

    environment = None

    def __init__(self, content="144", environment=None):
        self.content, self.environment, self.ran, self.malformed = content, environment, [], 0

    def run(self, calls):
        self.ran.append(len(calls))
        return [Result(call["function"]["name"], self.content) for call, _ in calls]

    def environments(self, rows):
        return [f"object of {row['secret']}" for row in rows], [f" ({row['secret']})" for row in rows]

    def unreadable(self, problem):
        self.malformed += 1
        return Result("error", self.defuse(f"error: {problem}"))

    def close(self):
        pass


class Scripted:
    """Says for a conversation what `says` has for its last message's content, a letter a token with log-probability -1."""

    def __init__(self, says):
        self.says, self.asked = says, []

    def generate(self, prompts, keys, settings):
        self.asked.append((settings, list(keys)))
        for key in keys:
            text, limit = self.says[prompts[key[0]][-1]["content"]], settings.limit(key)
            yield [Completion(*key, text[:limit], [1], len(text) <= limit, len(text[:limit]), logprob=-1.0, forced=1)]

    def close(self):
        pass


def drawn(says, settings=SETTINGS, most=2, box=None, prompt=QUESTION, rows=()):
    engine = ToolEngine(Scripted(says), box or Box(), most, rows)
    [[found]] = engine.generate([prompt], [(0, 3)], settings)
    return found, engine


def test_a_call_is_run_and_the_completion_goes_on_behind_its_result():
    found, engine = drawn({"12*12": FIRST, "144": "so 144"})
    assert found.messages == [
        {"role": "assistant", "content": "<think>I ask</think>", "tool_calls": [call_of("calculator", {"expression": "12*12"})]},
        {"role": "tool", "name": "calculator", "content": "144"},
        {"role": "assistant", "content": "so 144"},
    ]  # fmt: skip
    assert (found.prompt, found.sample, found.finished, found.logprob, found.forced) == (0, 3, True, -1.0, 2)
    assert found.tokens == len(FIRST) + len("so 144") and found.tool_tokens == 1
    again, [(row, sample)] = engine.inner.asked[1]
    assert sample == 3 and row != 0 and again.seed != SETTINGS.seed
    assert again.limit((row, sample)) == 400 - len(FIRST) - 1  # what is left


def test_rounds_and_room_are_bounded_and_the_calls_stay_as_letters():
    found, engine = drawn({"12*12": FIRST, "144": CALL}, most=2)
    assert engine.box.ran == [1, 1] and len(found.turns) == 4 and found.text == CALL and found.finished
    found, engine = drawn({"12*12": FIRST}, replace(SETTINGS, max_completion_length=len(FIRST) + 1))
    assert found.turns == () and found.text == FIRST and not found.finished and found.tokens == len(FIRST)
    found, engine = drawn({"12*12": FIRST}, replace(SETTINGS, max_completion_length=len(FIRST) - 1))
    assert engine.box.ran == [] and found.text == FIRST[:-1]  # what is cut off calls nothing


def test_what_is_half_a_completion_calls_nothing():
    found, engine = drawn({"12*12": FIRST}, replace(SETTINGS, stop="</think>"))
    begins = [*QUESTION, {"role": "assistant", "content": "<think>"}]
    begun, other = drawn({"<think>": FIRST}, prompt=begins)
    assert found.text == begun.text == FIRST and engine.box.ran == other.box.ran == []


def test_a_call_that_nobody_can_read_is_answered_with_what_is_wrong_and_counted():
    broken = '<tool_call>\n{"name": "calculator", "arguments": {"expr\n</tool_call>'
    engine = ToolEngine(inner := Scripted({"12*12": broken}), Box(), 3)
    inner.says = type("Says", (dict,), {"__missing__": lambda self, key: "sorry"})(inner.says)
    [[found]] = engine.generate([QUESTION], [(0, 0)], SETTINGS)
    said, answer = found.turns
    assert said == {"role": "assistant", "content": broken}
    assert (
        answer["role"] == "tool" and answer["content"].startswith("error: ") and "<tool_call>" not in answer["content"]
    )
    assert found.text == "sorry" and engine.box.ran == []
    assert engine.box.malformed == 1 and counted_calls(found.turns) == {"malformed": 1}


def test_an_error_in_a_later_turn_is_the_completions():
    class Failing(Scripted):
        def generate(self, prompts, keys, settings):
            for batch in super().generate(prompts, keys, settings):
                yield [replace(one, text="", error="http 500") if one.text == "x" else one for one in batch]

    engine = ToolEngine(Failing({"12*12": FIRST, "144": "x"}), Box(), 3)
    [[found]] = engine.generate([QUESTION], [(0, 0)], SETTINGS)
    assert found.error == "http 500" and (found.prompt, found.sample) == (0, 0)


def test_each_completion_has_an_environment_whose_words_stand_in_its_prompt():
    class Repeats(Scripted):
        def generate(self, prompts, keys, settings):
            for p, g in keys:
                text = FIRST if prompts[p][-1]["role"] == "user" else prompts[p][0]["content"]
                yield [Completion(p, g, text, [], True, 1)]

    rows = [{"secret": "a"}, {"secret": "b"}]
    engine = ToolEngine(Repeats({}), Box(environment="Env"), 2, rows)
    keys = [(p, g) for p in range(2) for g in range(2)]
    found = {(c.prompt, c.sample): c for batch in engine.generate([QUESTION, QUESTION], keys, SETTINGS) for c in batch}
    assert sorted(found) == keys
    for (p, _), one in found.items():
        secret = rows[p]["secret"]
        assert (one.observed, one.environment, one.text) == (f" ({secret})", f"object of {secret}", f"12*12 ({secret})")


class Always(CallFormat):
    """Takes every turn for a call."""

    def parse(self, text):
        return text, [call_of("calculator", {"expression": "7"})], ""


@pytest.fixture(scope="module")
def loaded():
    found = build()
    add_tool_turns(found.tokenizer)
    contract = find_contract(found.tokenizer, {"tools": []})
    always = Always(end=contract.calls.end, end_id=contract.calls.end_id, tokens=contract.calls.tokens)
    return replace(found, contract=replace(contract, calls=always))


def test_a_completion_is_the_same_in_any_batch_and_its_ids_are_what_the_model_reads(loaded):
    prompts = [[{"role": "user", "content": text}] for text in ("7+5", "9")]
    keys = [(p, g) for p in range(2) for g in range(2)]
    settings = SamplingSettings(max_completion_length=160, chat_template_kwargs={"tools": []}, logprobs=True)
    found = []
    for size in (1, 4):
        box = Box("49")
        engine = ToolEngine(TransformersEngine(loaded, size), box, 2)
        found.append({(c.prompt, c.sample): c for batch in engine.generate(prompts, keys, settings) for c in batch})
    assert max(box.ran) > 1  # at once
    assert sum(len(one.turns) > 2 for one in found[0].values()) > 1
    for key, one in found[0].items():
        other = found[1][key]
        assert (one.messages, one.ids) == (other.messages, other.ids) and one.logprob == pytest.approx(
            other.logprob, abs=1e-3
        )
        assert len(one.ids) == one.tokens + one.tool_tokens <= 160
        if one.turns:
            whole = render_turns(loaded.tokenizer, loaded.contract, prompts[key[0]], one.turns, {"tools": []})
            read = loaded.tokenizer("".join(part.text for part in whole), add_special_tokens=False)["input_ids"]
            result = [part.text for part in whole if part.kind == "result"][-1]
            written = loaded.tokenizer(result, add_special_tokens=False)["input_ids"]
            assert read[-len(written) :] == written and str(written)[1:-1] in str(one.ids)


def test_a_server_reads_calls_itself_or_lets_them_stand_in_the_text():
    function = {"name": "calculator", "arguments": '{"expression": "12*12"}'}
    own = {
        "content": None,
        "reasoning_content": "I ask",
        "tool_calls": [{"id": "x", "type": "function", "function": function}],
    }
    schemas = [{"type": "function", "function": {"name": "calculator", "parameters": {}}}]
    settings = replace(SETTINGS, chat_template_kwargs={"tools": schemas, "enable_thinking": True})
    for said in (own, {"content": FIRST}):

        def script(body, nth, said=said):
            if body["messages"][-1]["role"] == "tool":
                return "144"
            return {"message": said, "finish_reason": "tool_calls" if "tool_calls" in said else "stop"}

        with servers() as start:
            server = start(script)
            engine = ServerEngine("m", ServerOptions(base_url=server.url), ["[T]", "[/T]"], acts=True)
            [[found]] = ToolEngine(ThinkingEngine(engine), box := Box(), 3).generate([QUESTION], [(0, 0)], settings)
        assert found.finished and found.text == "144" and box.ran == [1]
        [call] = found.turns[0]["tool_calls"]
        assert call["function"] == {"name": "calculator", "arguments": {"expression": "12*12"}}
        first, second = server.bodies
        assert first["tools"] == schemas and first["chat_template_kwargs"] == {"enable_thinking": True}
        turn, result = second["messages"][1:]
        assert turn["content"].startswith("[T]") and "I ask" in turn["content"]
        [sent] = turn["tool_calls"]
        assert json.loads(sent["function"]["arguments"]) == {"expression": "12*12"}
        assert result == {"role": "tool", "tool_call_id": sent["id"], "content": "144"}


def test_arguments_of_a_servers_call_that_are_no_json_are_told_in_a_message_that_the_api_takes():
    calls = [{"id": "x", "type": "function", "function": {"name": "calculator", "arguments": '{"expression'}}]

    def script(body, nth):
        if len(body["messages"]) > 1:
            return "sorry"
        return {"message": {"content": "hm", "tool_calls": calls}, "finish_reason": "tool_calls"}

    with servers() as start:
        server = start(script)
        engine = ServerEngine("m", ServerOptions(base_url=server.url), acts=True)
        [[found]] = ToolEngine(engine, box := Box(), 3).generate([QUESTION], [(0, 0)], SETTINGS)
    assert found.text == "sorry" and box.ran == []
    assert [message["role"] for message in server.bodies[1]["messages"]] == ["user", "assistant", "user"]
