"""The engine `server` against servers on real sockets that are busy, broken, slow, silent, dead, and `transformers serve`."""

import importlib.util
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from conftest import TINY
from stand_in import Server, choice, dead_url, part, servers

from reasoning_ext.engines import in_flight
from reasoning_ext.engines.base import EngineError, SamplingSettings, key_seed
from reasoning_ext.engines.server import ServerEngine, reachable
from reasoning_ext.recipe.engine_options import ServerOptions, server_problems
from reasoning_ext.servers.client import CONNECT_SECONDS

KEY = "sk-very-secret"
SETTINGS = SamplingSettings(max_completion_length=16)


@pytest.fixture
def serve(monkeypatch):
    """Start a server with a script; endpoints that are left alone are looked at often."""
    monkeypatch.setattr(in_flight, "WATCH_SECONDS", 0.1)
    monkeypatch.setattr(in_flight, "FIRST_DELAY", 0.05)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with servers() as start:
        yield start


@pytest.fixture
def impatient(monkeypatch):
    """Shorten what is waited for, so that many requests can fail in all their tries."""
    monkeypatch.setattr(in_flight, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(in_flight, "MOST_IN_A_ROW", 8)


def prompt(number):
    return [{"role": "user", "content": f"{number}+0="}]


def ask(urls, count, settings=SETTINGS, tags=None, samples=1, **options):
    """Ask for `samples` completions of each of `count` prompts and return all of them, by key."""
    urls = [urls] if isinstance(urls, Server | str) else urls
    urls = [url.url if isinstance(url, Server) else url for url in urls]
    engine = ServerEngine("m", ServerOptions(base_url=urls, **options), tags)
    keys = [(p, s) for p in range(count) for s in range(samples)]
    found = [c for batch in engine.generate([prompt(p) for p in range(count)], keys, settings) for c in batch]
    engine.close()
    assert sorted((c.prompt, c.sample) for c in found) == keys
    assert not any(c.ids for c in found) and not any(c.finished and c.error for c in found)
    return {(c.prompt, c.sample): c for c in found}


def asked(body):
    return body["messages"][0]["content"]


def number(body):
    return int(asked(body).split("+")[0])


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "requests"]


def test_a_faulty_server_loses_doubles_and_passes_off_nothing(serve):
    rng, lock, said = random.Random(0), threading.Lock(), defaultdict(list)
    answers = {
        "429": 429,
        "500": 500,
        "hang": 20.0,
        "cut": choice("cut", "length"),
        "null": {"message": {"content": None}},
    }

    def script(body, nth):
        with lock:
            kinds = (("429", 0.2), ("500", 0.3), ("hang", 0.31), ("cut", 0.41), ("null", 0.43), ("7", 1.0))
            draw = rng.random()
            said[body["seed"]].append(next(name for name, most in kinds if draw < most))
            return answers.get(said[body["seed"]][-1], "7")

    found = ask(serve(script), 150, samples=2, request_timeout=3.0, max_retries=5)
    assert len(found) == len(said) == 300
    for key, completion in found.items():
        sent = said[key_seed(0, *key)]
        text, finished = {"7": ("7", True), "cut": ("cut", False)}.get(sent[-1], ("", False))
        assert (completion.text, completion.finished) == (text, finished) and sent[-1] != "429", sent
        assert completion.error == {"500": "http 500", "hang": "time-out", "null": "empty"}.get(sent[-1], ""), sent
        assert completion.tokens == (3 if sent[-1] in ("7", "cut") else 0)
        assert not {"7", "cut"} & set(sent[:-1]) and sent.count("null") <= 2, sent
    assert Counter(sent[-1] for sent in said.values())["7"] > 220


@pytest.mark.parametrize("how", ["refused", "refused to few", "hanging", "broken", "stopped while it answers"])
def test_a_dead_server_ends_the_run(serve, how):
    what = {"hanging": 2.0, "broken": (503, {}, "no\nGPU")}.get(how, "7")
    server = serve(what, probe=503 if what == "7" else what)
    url = dead_url() if "refused" in how else server.url
    options = {"request_timeout": 0.3 if how == "hanging" else 5.0, "max_retries": int(how != "refused to few")}
    engine = ServerEngine("m", ServerOptions(base_url=url, give_up_seconds=1.5, **options))
    start, arrived, keys = time.monotonic(), 0, [(0, s) for s in range(3 if "few" in how else 2000)]
    with pytest.raises(
        EngineError, match=rf"no endpoint has answered for \d+ s \({url} .*run again to go on"
    ) as caught:
        for batch in engine.generate([prompt(0)], keys, SETTINGS):
            arrived += len(batch)
            server.script = lambda body, nth: 503
    assert caught.value.key == "engine_kwargs" and "\n" not in str(caught.value)
    assert time.monotonic() - start >= 1.5 and not threads()
    assert len(server.bodies) <= arrived + 2 * 32 + in_flight.ALONE_AFTER  # it is left alone as soon as it fails
    assert (arrived > 0) == (how == "stopped while it answers")


def test_the_default_ends_a_run_on_a_silent_host_within_a_minute():
    found = (
        in_flight.ALONE_AFTER * CONNECT_SECONDS + 0.5 + 1 + 2
    )  # tries of one request, and the SDK's pauses between them
    assert found + in_flight.WATCH_SECONDS + CONNECT_SECONDS < 60 > ServerOptions().give_up_seconds + CONNECT_SECONDS


def test_a_server_that_has_too_much_to_do_for_ever_ends_the_run_later(serve):
    server = serve(429)
    engine = ServerEngine("m", ServerOptions(base_url=server.url, request_timeout=1.0, give_up_seconds=0.2))
    start = time.monotonic()
    with pytest.raises(EngineError, match=r"too much to do for too long .* answered 429.*run again to go on"):
        list(engine.generate([prompt(0)], [(0, s) for s in range(20)], SETTINGS))
    assert time.monotonic() - start >= 2.2 and server.probes == 0


def test_a_limit_far_below_the_concurrency_fails_no_request(serve):
    lock, began, answered, refused = threading.Lock(), time.monotonic(), [], []

    def script(body, nth):
        with lock:
            within = len(answered) < (time.monotonic() - began) * 15
            (answered if within else refused).append(body["seed"])
            return "7" if within else 429

    found = ask(serve(script), 30, max_concurrency=30, max_retries=1)
    assert all(c.finished for c in found.values()) and len(answered) == 30
    assert max(Counter(refused).values()) > 2  # more often than a request may fail
    assert len(refused) < 400  # each waits for longer and longer


def test_a_dead_endpoint_is_left_alone_and_the_other_answers_everything(serve):
    server, broken = serve(), serve(500, probe=500)
    found = ask([dead_url(), server, broken], 100, max_concurrency=4, max_retries=2, give_up_seconds=1.0)
    assert {c.text for c in found.values()} == {"7"} and all(c.finished for c in found.values())
    assert len(server.bodies) == 100 and len(broken.bodies) < 20 and server.most_active <= 4


def test_endpoints_that_work_again_are_asked_again(serve):
    server, other = serve(lambda body, nth: 500 if server.probes == 0 else "7"), serve(0.05)
    ask([server, other], 300, max_concurrency=4)
    assert server.probes == 1 and len(server.bodies) > len(other.bodies) > 10
    alone = serve(lambda body, nth: 500 if alone.probes == 0 else "7")
    assert all(c.finished for c in ask(alone, 50, max_concurrency=8).values()) and alone.probes == 1


def test_the_endpoint_with_less_under_way_is_asked_and_a_retry_goes_to_another(serve):
    slow, fast = serve(0.3), serve(0.01)
    ask([slow, fast], 100, max_concurrency=4)
    assert len(slow.bodies) + len(fast.bodies) == 100 and len(fast.bodies) > 3 * len(slow.bodies)
    assert slow.most_active <= 4 and fast.most_active <= 4
    bad, good = serve(500), serve()
    for _ in range(3):
        ask([bad, good], 2, max_concurrency=2)
    assert len(bad.bodies) == 3 and len(good.bodies) == 6


def test_a_request_that_breaks_the_server_is_put_back_and_then_counted(serve):
    order = []

    def script(body, nth):
        order.append(asked(body))
        return {"3+0=": 500, "5+0=": 0.6}.get(order[-1], "7")

    found = ask(serve(script), 40, max_concurrency=2, max_retries=1, request_timeout=0.3)
    errors = {key: (c.text, c.finished, c.error) for key, c in found.items() if c.error}
    assert errors == {(3, 0): ("", False, "http 500"), (5, 0): ("", False, "time-out")}
    assert set(order[-4:]) == {"3+0=", "5+0="} and min(map(order.count, ("3+0=", "5+0="))) >= 4


def test_the_last_requests_may_all_break_the_server(serve):
    server = serve(500)
    found = ask(server, 3, max_retries=1, give_up_seconds=30.0)
    assert {c.error for c in found.values()} == {"http 500"} and server.probes >= 1


def test_a_server_that_breaks_and_answers_nothing_but_probes_ends_the_run(serve, impatient):
    said = r"8 requests in a row failed in all their tries .* answered 500"
    with pytest.raises(EngineError, match=said):
        ask(serve(500), 100, max_concurrency=4, max_retries=0)
    server = serve(lambda body, nth: "7" if len(server.bodies) <= 20 else 500)
    engine, arrived = ServerEngine("m", ServerOptions(base_url=server.url, max_concurrency=2, max_retries=0)), []
    with pytest.raises(EngineError, match=said):
        for batch in engine.generate([prompt(0)], [(0, s) for s in range(26)], SETTINGS):  # 6 of which are put back
            arrived += batch
    assert sum(c.finished for c in arrived) == 20 and not threads()


def test_many_prompts_that_break_a_server_are_not_taken_for_a_broken_server(serve, impatient):
    found = ask(serve(lambda body, nth: "7" if number(body) % 3 else 500), 60, max_concurrency=4, max_retries=0)
    assert Counter(c.error for c in found.values()) == {"http 500": 20, "": 40}


@pytest.mark.parametrize(("what", "error"), [(500, "http 500"), ("", "empty")])
def test_a_run_that_brings_nothing_is_an_error_unless_there_are_few_keys(serve, impatient, monkeypatch, what, error):
    monkeypatch.setattr(in_flight, "MOST_IN_A_ROW", 64)
    server = serve(what)
    with pytest.raises(EngineError, match=rf"none of 9 requests brought a completion: {error} 9.*run again") as caught:
        ask(server, 9, max_retries=0)
    assert caught.value.key == "engine_kwargs" and "\n" not in str(caught.value) and not threads()
    assert {c.error for c in ask(server, 8, max_retries=0).values()} == {error}
    engine, keys = ServerEngine("m", ServerOptions(base_url=server.url, max_retries=0)), [(0, s) for s in range(9)]
    server.script = lambda body, nth: what if body["messages"] == prompt(0) else "7"
    assert [c.text for [c] in engine.generate([[], prompt(1)], [(1, 0)], SETTINGS)] == ["7"]
    found = [c for batch in engine.generate([prompt(0)], keys, SETTINGS) for c in batch]
    assert [c.error for c in found] == [error] * 9  # the server answered before and does so still: it is the prompt


NO_PATH, NO_KEY = "/v1 on most servers", "from the environment variable OPENAI_API_KEY"


@pytest.mark.parametrize(
    ("answer", "said", "hint"),
    [
        *((status, f"answered {status}: .*not for \\[key\\]", {401: NO_KEY, 403: NO_KEY, 404: NO_PATH}.get(status, ""))
          for status in (400, 401, 403, 404, 422, 302)),
        ((200, {}, '{"error": {"message": "no credit", "code": 402}}'), "answered 200: .*no credit", ""),
        ((200, {}, '{"object": "error", "message": "no such thing", "code": 404}'), "no such thing", NO_PATH),
        ((200, {"Content-Type": "text/html; charset=utf-8"}, "<html>log in</html>"), "log in", NO_PATH),
        ((200, {"Content-Type": "text/event-stream"}, "data: 7"), "data: 7", NO_PATH),
        ((307, {"Location": "https://me:hunter2@other/v1/chat/completions"}, ""), "elsewhere, https://other/v1", ""),
        ((200, {}, '{"detail": "quota exceeded"}'), "quota exceeded", ""),
        ((404, {}, "the model m does not exist"), "answered 404: the model m does not exist", ""),
    ],
)  # fmt: skip
def test_a_refusal_stops_at_once_and_tells_why_without_key_and_password(serve, monkeypatch, answer, said, hint):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    server = serve((answer, {}, f'{{"error":\n "not for {KEY}"}}') if isinstance(answer, int) else answer)
    with pytest.raises(EngineError, match=rf"^{server.url} .*{said}") as caught:
        ask(server.url.replace("http://", "http://me:hunter2@"), 200, max_retries=0)
    message = str(caught.value)
    assert caught.value.key == ("model_name_or_path" if "the model m" in message else "engine_kwargs")
    assert not any(hidden in message for hidden in (KEY, "hunter2", "\n"))
    assert hint in message and all(other not in message for other in {NO_PATH, NO_KEY} - {hint})
    assert len(server.bodies) <= 64 and not threads()


def test_a_server_is_told_the_key_that_the_recipe_names_and_nothing_of_this_machine(serve, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "mine")
    server = serve()
    ask(server, 1, api_key_env="TEACHER_KEY")
    ask(server, 1)
    assert [headers["Authorization"] for headers in server.headers] == [f"Bearer {KEY}", None]
    told = {name.lower() for headers in server.headers for name in headers} - {"authorization"}
    plain = {"host", "accept", "accept-encoding", "connection", "user-agent", "content-length", "content-type"}
    assert told <= plain | {"x-stainless-raw-response"} and server.headers[0]["Host"] in server.url


def test_a_request_says_what_the_settings_say(serve):
    server = serve()
    plain = {"model": "m", "messages": prompt(0), "max_tokens": 16, "temperature": 1.0, "top_p": 1.0}
    ask(server, 1)
    assert server.bodies == [plain | {"seed": key_seed(0, 0, 0)}]
    more = SamplingSettings(8, 0.5, 0.9, 20, 0.1, 1.1, 3, {"stop": ["x"]}, {"enable_thinking": True})
    ask(server, 1, settings=more, samples=2)
    sampling = {"temperature": 0.5, "top_p": 0.9, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1, "stop": ["x"]}
    body = plain | sampling | {"max_tokens": 8, "chat_template_kwargs": {"enable_thinking": True}}
    expected = [body | {"seed": key_seed(3, 0, sample)} for sample in range(2)]
    assert sorted(server.bodies[1:], key=str) == sorted(expected, key=str)
    ask(server, 1, settings=SamplingSettings(16, generation_kwargs={"seed": None, "max_tokens": None, "max_new": 9}))
    assert server.bodies[3] == {name: v for name, v in plain.items() if name != "max_tokens"} | {"max_new": 9}
    for name, value in {"stream": True, "seed": 5, "model": None, "bias": float("nan")}.items():
        with pytest.raises(EngineError, match=r"found .*; take it out") as caught:
            ask(server, 1, settings=SamplingSettings(generation_kwargs={name: value}))
        assert caught.value.key == "generation_kwargs" and len(server.bodies) == 4


SPLIT = "<think>\na\n</think>\n\n7"
PLAIN = [
    (choice("7"), "7", True, ""),
    (choice("7", None), "7", True, ""),
    ({"message": {"content": "7"}}, "7", True, ""),
    (choice("<think>a</think>7"), "<think>a</think>7", True, ""),
    (choice("7", reasoning_content="a"), SPLIT, True, ""),
    (choice("\n\n7", reasoning="a\n", reasoning_content=None), SPLIT, True, ""),
    (choice("7", reasoning=""), "7", True, ""),
    (choice(None, reasoning="a"), "<think>\na\n</think>\n\n", True, ""),
    (choice(None, "length", reasoning="a"), "<think>\na", False, ""),
    (choice("7", "length", reasoning="a"), SPLIT, False, ""),
    (choice("a</think>7"), "<think>\na</think>7", True, ""),
    (choice("\na</think>7"), "<think>\na</think>7", True, ""),
    (choice("a</think>7 or <think>"), "<think>\na</think>7 or <think>", True, ""),
    (choice("a", "length"), "a", False, ""),
    (choice(None, "length"), "", False, ""),
    (choice(None, "tool_calls"), "", False, "tool_calls"),
    (choice("I", "content_filter"), "I", False, "content_filter"),
    (choice("I", "abort"), "I", False, "abort"),
    (choice(None, "stop_sequence", reasoning="a"), "<think>\na\n</think>\n\n", True, ""),
    *((choice("7", reason), "7", True, "") for reason in ("eos_token", "end_turn", "STOP", "FinishReason.STOP", "COMPLETE", "eos",
      ["stop"], {"type": "stop", "matched": 2}, "FINISH_REASON_UNSPECIFIED")),
    *((choice("7", reason), "7", False, "") for reason in ("max_tokens", "MAX_TOKENS")),
    (choice("I", "SAFETY"), "I", False, "content_filter"),
    (choice(None, refusal="I can't"), "I can't", False, "refusal"),
    (choice("7", refusal=None, tool_calls=[]), "7", True, ""),
    (choice("I call", tool_calls=[{"id": "1"}]), "I call", False, "tool_calls"),
    (choice([part("<think>a</think>"), part("7")]), "<think>a</think>7", True, ""),
    (choice([{"type": "thinking", "thinking": [part("a")]}, part("7")]), SPLIT, True, ""),
    (choice([{"type": "thinking", "thinking": "a"}, {"type": "redacted_thinking"}, part("7", "output_text")]), SPLIT, True, ""),
    (choice("7", thinking="a"), SPLIT, True, ""),
    (choice("7", reasoning_details=[part("a", "reasoning.text"), {"type": "reasoning.encrypted"}]), SPLIT, True, ""),
    (choice("<think>a</think>7", reasoning_content="a"), "<think>a</think>7", True, ""),
    (choice("\n" + SPLIT, reasoning="a"), "\n" + SPLIT, True, ""),
    (choice("a</think>7", reasoning="a\n"), "<think>\na</think>7", True, ""),
    (choice("<think>a", "length", reasoning="a"), "<think>a", False, ""),
    (choice("<think>\n\n</think>\n\n7", reasoning="a"), SPLIT, True, ""),
    (choice("<think>a</think>7<|im_end|>"), "<think>a</think>7", True, ""),
    (choice("<think>a</think>7<｜end▁of▁sentence｜>"), "<think>a</think>7", True, ""),
    (choice("7</s>\n<|endoftext|> "), "7", True, ""),
    (choice("a tag <br>"), "a tag <br>", True, ""),
    (choice("é 🙂 \ud83d", reasoning="\udc00"), "<think>\n\ufffd\n</think>\n\né 🙂 \ufffd", True, ""),
    (choice("7", "\ud83d"), "7", False, "\ufffd"),
]  # fmt: skip
CHANNEL = [
    (choice("<|channel>thought\na<channel|>7"), "<think>a</think>7", True, ""),
    (choice("a<channel|>7"), "<think>a</think>7", True, ""),
    (choice("7"), "7", True, ""),
    (choice("7", reasoning="a"), SPLIT, True, ""),
    (choice("<|channel>thought\na<channel|>7", reasoning="a"), "<think>a</think>7", True, ""),
]


@pytest.mark.parametrize(("cases", "tags"), [(PLAIN, None), (CHANNEL, ["<|channel>thought\n", "<channel|>"])])
def test_a_reply_becomes_a_whole_completion(serve, cases, tags):
    server = serve(lambda body, nth: cases[number(body)][0])
    found = ask(server, len(cases), tags=tags)
    assert [(c.text, c.finished, c.error) for _, c in sorted(found.items())] == [tuple(case[1:]) for case in cases]
    assert {c.tokens for c in found.values()} == {3} and len(server.bodies) == len(cases)


@pytest.mark.parametrize(
    ("kwargs", "finished"),
    [({}, True), ({"max_tokens": 4}, True), ({"max_tokens": 3}, False), ({"max_tokens": None}, True),
     ({"max_tokens": None, "max_completion_tokens": 3}, False), ({"max_tokens": "3"}, True)],
)  # fmt: skip
def test_without_a_reason_what_has_all_its_tokens_was_cut_off(serve, kwargs, finished):
    server = serve(lambda body, nth: choice(None, None, reasoning="a") if number(body) else choice("7", None))
    found = ask(server, 2, SamplingSettings(16, generation_kwargs=kwargs))  # the server counts 3 tokens
    assert (found[0, 0].text, found[0, 0].finished, found[0, 0].error) == ("7", finished, "")
    assert found[1, 0].text.endswith("</think>\n\n") == found[1, 0].finished == finished


NO_REPLIES = [
    "", "<html>", "[]", "{}", '{"choices": []}', '{"choices": [{"message": {"content": [1]}}]}', '{"error": "boom"}',
    '{"choices": [{"mess', '{"error": {"code": 1e999}}', '{"choices": [{"message": {"content": [{"type": "image_url"}]}}]}',
    '{"error": {"message": "boom", "code": "502"}}', "[" * 9000,
    '{"choices": [{"message": {"content": "half"}, "finish_reason": "error", "error": {"code": 502}}]}',
]  # fmt: skip


def test_what_is_no_reply_and_what_is_empty_is_asked_for_again(serve):
    bodies = [(200, {}, body) for body in NO_REPLIES]
    bodies += [choice(content, reason) for content in (None, "", " \n") for reason in (None, "stop")]
    server = serve(lambda body, nth: "7" if nth else bodies[number(body)])
    found = ask(server, len(bodies))
    assert all((c.text, c.finished, c.error) == ("7", True, "") for c in found.values())
    assert len(server.bodies) == 2 * len(bodies)
    assert ask(serve(choice(" \n")), 1)[0, 0].error == "empty"


def test_why_completions_fail_is_printed_once(serve, capsys):
    server = serve(lambda body, _: "7" if body["messages"] == prompt(0) else (200, {}, '{"error": "out of\\nmemory"}'))
    found = ask(server, 5, max_retries=0, max_concurrency=1)
    assert sorted(c.error for c in found.values()) == ["", *["no reply"] * 4]
    [line] = capsys.readouterr().err.splitlines()
    assert "memory" in line and server.url in line


def test_tags_that_nobody_named_are_told_once(serve, capsys):
    ask(serve("<thought>a</thought>7"), 3)
    [line] = capsys.readouterr().err.splitlines()
    assert "think_tags: ['<thought>', '</thought>']" in line
    assert ask(serve("<thought>a</thought>7"), 1, tags=["<thought>", "</thought>"])[0, 0].text == "<think>a</think>7"
    assert not capsys.readouterr().err


def test_a_server_need_not_count_tokens(serve):
    usages = [{}, {"usage": None}, {"usage": {"completion_tokens": None}}]
    server = serve(lambda body, nth: (200, {}, json.dumps({"choices": [choice("7")]} | usages[number(body)])))
    assert {c.tokens for c in ask(server, 3).values()} == {0}


def test_what_may_pass_is_asked_again_when_the_server_says(serve):
    statuses = [408, 429, 500, 502, 503, 529]
    server = serve(lambda body, nth: "7" if nth else (statuses[number(body)], {"Retry-After": "1"}, ""), alike=asked)
    assert all(c.finished for c in ask(server, len(statuses)).values())
    times = defaultdict(list)
    for body, at in zip(server.bodies, server.times, strict=True):
        times[number(body)].append(at)
    assert all(0.9 <= second - first < 3 for first, second in times.values())


def test_keys_are_taken_as_there_is_room_while_the_caller_does_something_else(serve, monkeypatch):
    monkeypatch.setattr(in_flight, "MOST_AT_ONCE", 50)
    monkeypatch.setattr(in_flight, "UNREAD", 100)
    server, keys = serve(), [(0, s) for s in range(1000)]
    batches = ServerEngine("m", ServerOptions(base_url=server.url, max_concurrency=8)).generate(
        [prompt(0)], keys, SETTINGS
    )
    assert not threads()  # nothing is asked before the first batch is
    most = len(next(batches)) + 100 + 8
    deadline = time.monotonic() + 20
    while len(server.bodies) < most and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    assert len(server.bodies) == most  # bounded, and all of it without the caller
    sizes = [len(next(batches)) for _ in range(3)]
    assert sizes[0] == sizes[1] == 50 and sizes[2] >= 1
    batches.close()
    assert not threads() and len(server.bodies) <= most + sum(sizes)


@pytest.mark.parametrize("how", ["the generator", "the engine", "an error of the caller"])
def test_closing_cancels_what_is_under_way_and_ends_the_thread(serve, how):
    answers = threading.Semaphore(4)
    server = serve(lambda body, nth: "7" if answers.acquire(timeout=60) else 500)
    engine = ServerEngine("m", ServerOptions(base_url=server.url, max_concurrency=8))
    batches = engine.generate([prompt(0)], [(0, s) for s in range(1000)], SETTINGS)
    next(batches)
    while server.active < 8:
        time.sleep(0.01)
    assert threads()
    if how == "the generator":
        batches.close()
    elif how == "the engine":
        engine.close()
        assert sum(map(len, batches)) < 20
    else:
        answers.release()
        with pytest.raises(ZeroDivisionError):
            for _ in batches:
                raise ZeroDivisionError
        del batches
    sent = len(server.bodies)
    time.sleep(0.1)
    assert not threads() and server.active >= 7 and len(server.bodies) == sent  # nobody waited for those that hang
    engine.close()


def test_an_interrupt_ends_the_process_at_once(serve, tmp_path):
    server = serve(60.0)
    code = (
        "import signal, sys; from reasoning_ext.engines.server import *\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored\n"
        "engine = ServerEngine('m', ServerOptions(base_url=sys.argv[1]))\n"
        "list(engine.generate([[{'role': 'user', 'content': 'x'}]], [(0, s) for s in range(99)], SamplingSettings()))"
    )
    command = [sys.executable, "-c", code, server.url]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    while server.active < 32 and child.poll() is None:
        time.sleep(0.02)
    began = time.monotonic()
    child.send_signal(2)
    assert child.communicate(timeout=100)[1].strip().endswith("KeyboardInterrupt")
    assert server.active >= 32 and time.monotonic() - began < 30  # it waited for no answer


def test_a_prompt_that_cannot_be_read_is_the_callers_error(serve):
    engine = ServerEngine("m", ServerOptions(base_url=serve().url))
    with pytest.raises(IndexError):
        list(engine.generate([prompt(0)], [(0, 0), (1, 0)], SETTINGS))
    assert not threads() and list(engine.generate([], [], SETTINGS)) == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"base_url": "localhost:8000/v1"}, "base_url: found 'localhost:8000/v1', allowed: http://host:port/v1 or"),
        ({"base_url": "me:hunter2@host/v1"}, "base_url: found 'host/v1'"),
        ({"base_url": "ftp://me:hunter2@host/v1"}, "base_url: found 'ftp://host/v1'"),
        ({"base_url": "http://me:hunter/2@host/v1"}, "base_url: found a URL with a host or port that cannot be"),
        ({"base_url": "http://[host/v1"}, "base_url: found a URL with a host"),
        ({"base_url": "http://host:99999/v1"}, "base_url: found a URL with a host"),
        ({"base_url": "https:///v1"}, "base_url: found 'https:///v1'"),
        ({"base_url": "https://host/v1?key=1"}, "base_url: found"),
        ({"base_url": "https://host/v1/chat/completions/"}, "the rest is added"),
        ({"base_url": ["https://host/v1", 3]}, "base_url: found 3"),
        ({"base_url": []}, "base_url: found an empty list"),
        ({"base_url": ["https://host/v1"] * 2}, "base_url: found an endpoint twice"),
        ({"max_concurrency": 0}, "max_concurrency: found 0, allowed: a whole number of at least 1"),
        ({"max_concurrency": 1.5}, "max_concurrency: found 1.5"),
        ({"max_concurrency": True}, "max_concurrency: found True"),
        ({"max_retries": -1}, "max_retries: found -1, allowed: a whole number of at least 0"),
        ({"request_timeout": 0}, "request_timeout: found 0, allowed: a number greater than 0"),
        ({"give_up_seconds": "45"}, "give_up_seconds: found '45'"),
        ({"give_up_seconds": float("nan")}, "give_up_seconds: found nan"),
        ({"api_key_env": "BAD_KEY"}, "api_key_env: the key in BAD_KEY has characters that no header may have"),
    ],
)  # fmt: skip
def test_options_that_cannot_work_are_refused_before_anything_is_asked(monkeypatch, options, problem):
    monkeypatch.setenv("BAD_KEY", f"{KEY}\nX-Evil: 1")
    [(name, *said)] = server_problems(ServerOptions(**options))
    found = f"{name}: " + ", allowed: ".join(filter(None, said))
    assert problem in found and "hunter" not in found and KEY not in found and "\n" not in found
    with pytest.raises(EngineError, match=r"allowed|set it again") as caught:
        ServerEngine("m", ServerOptions(**options))
    assert (
        str(caught.value) == found == reachable("m", ServerOptions(**options)) and caught.value.key == "engine_kwargs"
    )


def test_options_that_work_are_not_refused():
    urls = ["http://me:secret@[::1]:8000/v1/", "https://host/v1", "http://host"]
    assert server_problems(ServerOptions(base_url=urls, max_retries=0, request_timeout=0.5)) == []


def test_neither_options_nor_the_engine_nor_the_judge_load_what_is_heavy():
    heavy = {"openai", "httpx", "httpx2", "torch", "transformers", "trl"}
    code = (
        f"import sys, reasoning_ext.engines.server, reasoning_ext.rewards.llm_judge; print({heavy} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_server_is_reachable_when_it_serves_the_model(serve):
    def look(*endpoints, model="m"):
        return reachable(model, ServerOptions(base_url=[getattr(endpoint, "url", endpoint) for endpoint in endpoints]))

    server = serve()
    assert look(server) == look(server, dead_url()) == "" and server.paths == ["/v1/models"] * 2
    assert look(serve(models=None)) == "" and server.probes == 0  # it has no such list
    assert look(server, model="alias") == "" and server.probes == 1  # not listed, but taken
    strict = serve(models=["qwen3-0.6b", "llama"], probe=404)
    problem = f"{strict.url} does not serve 'Qwen3-0.6B'; the nearest of the 2 that it serves is 'qwen3-0.6b'"
    assert look(strict, model="Qwen3-0.6B") == look(server, strict, model="Qwen3-0.6B") == problem
    assert look(serve(models=[], probe=400)).endswith("does not serve 'm'; it lists none")
    gone = dead_url()
    problem = look(gone.replace("//", "//me:hunter2@"), dead_url())
    assert problem.startswith(f"nobody answers: {gone} gave no answer: ConnectError") and "; start it" in problem
    assert "hunter2" not in problem and "\n" not in problem


@pytest.mark.parametrize(
    ("status", "end"),
    [
        (401, f"; the key is read {NO_KEY}"),
        (503, "; start it, or set base_url to one that runs"),
        (405, None),
        (429, None),
    ],
)
def test_a_server_that_refuses_its_list_of_models(serve, monkeypatch, status, end):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = serve(probe=503)
    server.listed = (status, {}, f"no\n{KEY}")
    problem = reachable("m", ServerOptions(base_url=server.url))
    assert problem.endswith(f"{server.url} answered {status}: no [key]{end}" if end else "")
    assert bool(problem) == bool(end) and problem.startswith("nobody answers: ") == (status == 503)
    server.probe = "7"
    assert status != 503 or reachable("m", ServerOptions(base_url=server.url)) == ""  # only its list is broken


@pytest.fixture
def served_model(tmp_path):
    """Yield the tiny model with random weights, of which some greedy completions end, and the URL of `transformers serve`."""
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"transformers serve needs {', '.join(missing)}: pip install 'transformers[serving]'")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TINY / "model")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(TINY / "model")).eval()
    with torch.no_grad():  # a random model rarely ends: make the end likelier
        model.get_input_embeddings().weight[model.config.eos_token_id] *= 8
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    options = ServerOptions(base_url=dead_url(), max_concurrency=8)
    port = options.base_url.rpartition(":")[2].removesuffix("/v1")
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(tmp_path / "model"), "--port", port]
    environment = os.environ | {"HF_HOME": str(tmp_path / "no cache"), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        command += ["--host", "127.0.0.1", "--device", "cpu"]
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        deadline = time.monotonic() + 120
        while problem := reachable(str(tmp_path / "model"), options):
            late = server.poll() is not None or time.monotonic() > deadline
            assert not late, problem + (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.5)
        yield model, tokenizer, str(tmp_path / "model"), options
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
def test_transformers_serve_answers_as_generate_does(served_model):
    model, tokenizer, name, options = served_model
    prompts, keys = [prompt(n) for n in range(12)], [(p, s) for p in range(12) for s in range(2)]
    settings = SamplingSettings(max_completion_length=16, temperature=0.0)
    found = [c for batch in ServerEngine(name, options).generate(prompts, keys, settings) for c in batch]
    assert sorted((c.prompt, c.sample) for c in found) == keys
    for p, messages in enumerate(prompts):
        chat = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
        ids = model.generate(**chat, **settings.generate_kwargs())[0, chat["input_ids"].shape[1] :]
        text, finished = tokenizer.decode(ids, skip_special_tokens=True), len(ids) < 16
        expected = (text, finished, len(ids), "") if text or not finished else ("", False, 0, "empty")
        assert [(c.text, c.finished, c.tokens, c.error) for c in found if c.prompt == p] == [expected] * 2
    assert 0 < sum(c.finished for c in found) < len(found)
    with pytest.raises(EngineError, match=r"answered 422: .*top_k"):  # which this server does not know
        list(ServerEngine(name, options).generate(prompts, keys, SamplingSettings(top_k=5)))
    with pytest.raises(EngineError, match=r"answered 400: .*pinned"):
        list(ServerEngine("other", options).generate(prompts, keys, SETTINGS))
    assert re.search("answered 400: .*pinned", reachable("other", options))
