"""The engine `server` against servers on real sockets that are busy, broken, slow, silent, dead, and `transformers serve`."""

import importlib.util
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import TINY

from reasoning_ext import openai_client
from reasoning_ext.engines import endpoints, in_flight
from reasoning_ext.engines.endpoints import (
    FAILURES_IN_A_ROW,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Breaker,
    Endpoints,
    server_problems,
)
from reasoning_ext.engines.options import ServerOptions
from reasoning_ext.engines.server import ServerEngine, reachable
from reasoning_ext.generation import EngineError, SamplingSettings, key_seed

KEY = "sk-very-secret"
SETTINGS = SamplingSettings(max_completion_length=16)


class Server(ThreadingHTTPServer):
    """Plays an endpoint: `script(body, nth)` says what the nth request with that body gets.

    It is the content, a choice, `(status, headers, body)`, a status, or seconds to hang. Probes get what `probe` says.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, script, models=("m",), probe="7"):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.models, self.probe, self.lock = script, models, probe, threading.Lock()
        self.bodies, self.headers, self.paths, self.times, self.probes = [], [], [], [], 0
        self.seen, self.active, self.most_active, self.said = Counter(), 0, 0, defaultdict(list)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        """Say nothing of a client that has gone."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.paths.append(self.path)
        listed = {"data": [{"id": name} for name in server.models]} if server.models is not None else {}
        self.answer((200 if listed else 404, {}, json.dumps(listed)))

    def do_POST(self):
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body["messages"] == openai_client.probe_body("m")["messages"]:
            server.probes += 1
            return self.answer(slept(server.probe))
        with server.lock:
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            server.times.append(time.monotonic())
            server.active += 1
            server.most_active = max(server.active, server.most_active)
            nth = server.seen[body.get("seed")]
            server.seen[body.get("seed")] += 1
        what = server.script(body, nth) if self.path == "/v1/chat/completions" else 404
        what = slept(what)
        with server.lock:
            server.active -= 1
        self.answer(what)

    def answer(self, what):
        what = {"message": {"content": what}, "finish_reason": "stop"} if isinstance(what, str) else what
        if isinstance(what, dict):
            what = (200, {}, json.dumps({"choices": [what], "usage": {"completion_tokens": 3}}))
        status, headers, text = what if isinstance(what, tuple) else (what, {}, "")
        self.send_response(status)
        for name, value in {"Content-Length": len(text.encode()), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments):
        pass


def slept(what):
    """Return what to answer, after the seconds that it says."""
    if isinstance(what, float):
        time.sleep(what)
    return "7" if isinstance(what, float) else what


@pytest.fixture
def serve(monkeypatch):
    """Start a server with a script; the time between tries is short."""
    monkeypatch.setattr(openai_client, "FIRST_DELAY", 0.02)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    servers = []

    def start(script="7", **more):
        servers.append(Server(script if callable(script) else lambda body, nth: script, **more))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def dead_url():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


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


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "requests"]


def test_a_faulty_server_loses_doubles_and_passes_off_nothing(serve):
    rng, lock = random.Random(0), threading.Lock()

    def script(body, nth):
        with lock:
            draw = rng.random()
            after = {"Retry-After": "1"} if rng.random() < 0.1 else {}
            kinds = (("429", 0.2), ("500", 0.3), ("hang", 0.35), ("length", 0.45), ("null", 0.47), ("good", 1.0))
            kind = next(name for name, most in kinds if draw < most)
            server.said[body["seed"]].append(kind)
        if kind == "length":
            return {"message": {"content": "cut"}, "finish_reason": "length"}
        answers = {
            "429": (429, after, ""),
            "500": 500,
            "hang": 8.0,
            "good": "7",
            "null": {"message": {"content": None}},
        }
        return answers[kind]

    server = serve(script)
    found = ask(server, 500, samples=2, request_timeout=6.0, max_retries=5)
    kinds = Counter((c.text, c.finished, c.error) for c in found.values())
    print(f"{len(server.bodies)} requests, {server.probes} probes, {kinds}")
    assert len(found) == len(server.said) == 1000
    for key, completion in found.items():
        sent = server.said[key_seed(0, *key)]
        text, finished = {"good": ("7", True), "length": ("cut", False)}.get(sent[-1], ("", False))
        failed = {"500": "http 500", "hang": "time-out", "null": "empty"}
        assert (completion.text, completion.finished) == (text, finished) and sent[-1] != "429", sent
        assert completion.error == failed.get(sent[-1], ""), sent
        assert completion.tokens == (3 if sent[-1] in ("good", "length") else 0)
        assert not {"good", "length"} & set(sent[:-1]) and sent.count("null") <= 2, sent
    last = Counter(sent[-1] for sent in server.said.values())
    assert (kinds["7", True, ""], kinds["cut", False, ""]) == (last["good"], last["length"])
    assert last["good"] > 800 and last["length"] > 80


@pytest.mark.parametrize("how", ["refused", "hanging", "broken", "no reply", "stopped while it answers"])
def test_a_dead_server_ends_the_run(serve, how):
    what = {"hanging": 2.0, "broken": (503, {}, "no\nGPU"), "no reply": (200, {}, "<html>")}.get(how, "7")
    server = serve(what, probe=503 if what == "7" or how == "no reply" else what)
    url = dead_url() if how == "refused" else server.url
    engine = ServerEngine("m", ServerOptions(base_url=url, request_timeout=0.3, give_up_seconds=2.0, max_retries=1))
    start, arrived = time.monotonic(), 0
    with pytest.raises(
        EngineError, match=rf"no endpoint has answered for \d+ s \({url} .*run again to go on"
    ) as caught:
        for batch in engine.generate([prompt(0)], [(0, s) for s in range(2000)], SETTINGS):
            arrived += len(batch)
            server.script = lambda body, nth: 503
    assert caught.value.key == "engine_kwargs" and "\n" not in str(caught.value)
    assert time.monotonic() - start >= 2 and not threads()
    # it is left alone as soon as it fails, and probed less and less often: how long that takes is the machine's affair
    assert len(server.bodies) <= arrived + 2 * 32 + FAILURES_IN_A_ROW and server.probes <= 4
    assert (arrived > 0) == (how == "stopped while it answers")


def test_a_dead_server_is_not_taken_for_requests_that_fail():
    with pytest.raises(EngineError, match=r"no endpoint has answered for \d+ s"):
        ask(dead_url(), 3, max_retries=0, give_up_seconds=2.0)


def test_the_default_ends_a_run_on_a_dead_server_within_a_minute():
    seconds = ServerOptions().give_up_seconds
    assert seconds <= 50 and seconds + LONGEST_PAUSE + openai_client.CONNECT_SECONDS <= 60
    now = [0.0]
    breaker, ended = Breaker(lambda: now[0]), 0.0
    for tried in range(FAILURES_IN_A_ROW):  # one request alone, to a host that is silent
        now[0] += openai_client.CONNECT_SECONDS + (openai_client.retry_delay(tried - 1) if tried else 0)
        breaker.failed(openai_client.CONNECT_SECONDS)
    assert breaker.open and breaker.failing_since == 0.0
    while not ended:
        now[0] += 0.1
        if breaker.due():
            now[0] += openai_client.CONNECT_SECONDS
            breaker.probe_failed()
            ended = now[0] if now[0] - breaker.failing_since >= seconds else 0.0
    assert 45 <= ended <= 60


def test_a_server_that_has_too_much_to_do_for_ever_ends_the_run_later(serve):
    server = serve(429)
    engine = ServerEngine("m", ServerOptions(base_url=server.url, request_timeout=1.0, give_up_seconds=0.5))
    start = time.monotonic()
    with pytest.raises(EngineError, match=r"too much to do for too long .* answered 429.*run again to go on"):
        list(engine.generate([prompt(0)], [(0, s) for s in range(100)], SETTINGS))
    assert time.monotonic() - start >= 2.5 and server.probes == 0


def test_a_limit_far_below_the_concurrency_fails_no_request(serve):
    lock, began = threading.Lock(), time.monotonic()
    answered, refused = [], []

    def script(body, nth):
        with lock:
            within = len(answered) < (time.monotonic() - began) * 15
            (answered if within else refused).append(body["seed"])
            return "7" if within else 429

    found = ask(serve(script), 40, max_concurrency=32, max_retries=1)
    assert all(c.finished for c in found.values()) and len(answered) == 40
    assert max(Counter(refused).values()) > 2  # more often than a request may fail
    assert len(refused) < 400  # each waits for longer and longer


def test_a_dead_endpoint_is_left_alone_and_the_other_answers_everything(serve):
    server, broken = serve(), serve(500, probe=500)
    found = ask([dead_url(), server, broken], 300, max_concurrency=4, max_retries=2, give_up_seconds=1.0)
    assert {c.text for c in found.values()} == {"7"} and all(c.finished for c in found.values())
    assert len(server.bodies) == 300 and len(broken.bodies) < 20 and server.most_active <= 4


def test_an_endpoint_that_works_again_is_asked_again(serve):
    server, other = serve(lambda body, nth: 500 if server.probes == 0 else "7"), serve(0.05)
    ask([server, other], 600, max_concurrency=4)
    assert server.probes == 1 and len(server.bodies) > len(other.bodies) > 50


def test_requests_that_wait_for_the_only_endpoint_go_on_when_it_works_again(serve):
    server = serve(lambda body, nth: 500 if server.probes == 0 else "7")
    found = ask(server, 100, max_concurrency=8)
    assert all(c.finished for c in found.values()) and server.probes == 1


def test_the_endpoint_with_less_under_way_is_asked(serve):
    slow, fast = serve(0.3), serve(0.01)
    ask([slow, fast], 200, max_concurrency=4)
    assert len(slow.bodies) + len(fast.bodies) == 200 and len(fast.bodies) > 4 * len(slow.bodies)
    assert slow.most_active <= 4 and fast.most_active <= 4


def test_a_retry_goes_to_another_endpoint(serve):
    bad, good = serve(500), serve()
    for _ in range(3):
        ask([bad, good], 2, max_concurrency=2)
    assert len(bad.bodies) == 3 and len(good.bodies) == 6


def test_the_choice_of_an_endpoint():
    now = [0.0]
    several = Endpoints(["http://a/v1/", "http://b/v1"], 2, lambda: now[0])
    a, b = several.all
    assert a.url == "http://a/v1" and several.choose() is a and several.choose(avoid=a) is b
    a.active, b.active = 1, 0
    assert several.choose() is b and several.choose(avoid=b) is a
    a.active, b.active = 2, 1
    assert several.choose(avoid=b) is b  # better than none
    for _ in range(FAILURES_IN_A_ROW):
        b.breaker.failed()
    assert several.choose() is None and several.dead_for() == 0.0
    now[0] = 5.0
    for _ in range(FAILURES_IN_A_ROW):
        a.breaker.failed(3.0)
    now[0] = 9.0
    assert several.dead_for() == 7.0  # a has failed since 2.0
    b.breaker.succeeded()
    assert several.dead_for() == 0.0 and several.choose() is b
    assert [several.limited(), now.__setitem__(0, 10.0), several.limited()] == [0.0, None, 1.0]
    several.answered()
    assert several.limited() == 0.0 and several.answered_at == 10.0


def test_pauses_grow_and_one_answer_ends_them():
    now = [100.0]
    breaker = Breaker(lambda: now[0])
    for _ in range(FAILURES_IN_A_ROW - 1):
        breaker.failed()
    breaker.succeeded()
    for _ in range(FAILURES_IN_A_ROW - 1):
        breaker.failed(1000.0)
    assert not breaker.open and breaker.failing_since == 100.0 - openai_client.CONNECT_SECONDS
    breaker.failed()
    pauses = []
    for _ in range(5):
        began = now[0]
        while not breaker.due():
            now[0] += 0.25
        pauses.append(now[0] - began)
        breaker.failed()  # of requests that were under way: they do not count
        breaker.probe_failed()
    assert pauses == [FIRST_PAUSE, 2.0, 4.0, LONGEST_PAUSE, LONGEST_PAUSE] and breaker.open
    breaker.probe_succeeded()
    assert not breaker.open and breaker.failing_since is None
    breaker.succeeded()
    for _ in range(FAILURES_IN_A_ROW):
        breaker.failed()
    now[0] += FIRST_PAUSE
    assert breaker.due()


def test_a_request_that_breaks_the_server_is_put_back_and_then_counted(serve):
    order = []

    def script(body, nth):
        order.append(body["messages"][0]["content"])
        return {"3+0=": 500, "5+0=": 0.6}.get(order[-1], "7")

    found = ask(serve(script), 40, max_concurrency=2, max_retries=1, request_timeout=0.3)
    errors = {key: (c.text, c.finished, c.error) for key, c in found.items() if c.error}
    assert errors == {(3, 0): ("", False, "http 500"), (5, 0): ("", False, "time-out")}
    assert set(order[-4:]) == {"3+0=", "5+0="} and min(map(order.count, ("3+0=", "5+0="))) >= 4


def test_the_last_requests_may_all_break_the_server(serve):
    server = serve(500)
    found = ask(server, 3, max_retries=1, give_up_seconds=30.0)
    assert {c.error for c in found.values()} == {"http 500"} and server.probes >= 1


def test_a_server_that_answers_nothing_but_probes_ends_the_run(serve, monkeypatch):
    monkeypatch.setattr(in_flight, "MOST_IN_A_ROW", 8)
    with pytest.raises(EngineError, match=r"8 requests in a row failed in all their tries .* answered 500"):
        ask(serve(500), 100, max_concurrency=4, max_retries=0)


@pytest.fixture
def impatient(monkeypatch):
    """Shorten what is waited for, so that many requests can fail in all their tries."""
    monkeypatch.setattr(endpoints, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(in_flight, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(in_flight, "MOST_IN_A_ROW", 8)


def test_a_server_that_breaks_shortly_before_the_end_ends_the_run(serve, impatient):
    server = serve(lambda body, nth: "7" if len(server.bodies) <= 20 else 500)
    engine, arrived = ServerEngine("m", ServerOptions(base_url=server.url, max_concurrency=2, max_retries=0)), []
    with pytest.raises(EngineError, match=r"8 requests in a row failed in all their tries .* answered 500"):
        for batch in engine.generate([prompt(0)], [(0, s) for s in range(26)], SETTINGS):  # 6 of which are put back
            arrived += batch
    assert sum(c.finished for c in arrived) == 20 and not threads()


def test_many_prompts_that_break_a_server_are_not_taken_for_a_broken_server(serve, impatient):
    bad = {f"{p}+0=" for p in range(0, 60, 3)}
    server = serve(lambda body, nth: 500 if body["messages"][0]["content"] in bad else "7")
    found = ask(server, 60, max_concurrency=4, max_retries=0)
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


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 302])
def test_a_refusal_stops_at_once_and_tells_why_without_key_and_password(serve, monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    server = serve((status, {}, f'{{"error":\n "not for {KEY}"}}'))
    url = server.url.replace("http://", "http://me:hunter2@")
    with pytest.raises(EngineError, match=rf"{server.url} answered {status}: .*not for \[key\]") as caught:
        ask(url, 500)
    message = str(caught.value)
    assert (
        KEY not in message and "hunter2" not in message and "\n" not in message and caught.value.key == "engine_kwargs"
    )
    assert ("OPENAI_API_KEY" in message) == (status in (401, 403)) and ("/v1 on most" in message) == (status == 404)
    assert len(server.bodies) <= 64 and not threads()


def test_a_model_that_is_not_served_is_the_fault_of_its_name(serve):
    with pytest.raises(EngineError, match="answered 404: the model m does not exist") as caught:
        ask(serve((404, {}, "the model m does not exist")), 1)
    assert caught.value.key == "model_name_or_path"


def test_the_key_comes_from_the_environment_alone(serve, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", KEY)
    server = serve()
    ask(server, 1, api_key_env="TEACHER_KEY")
    ask(server, 1)
    assert [headers.get("Authorization") for headers in server.headers] == [f"Bearer {KEY}", None]


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
    for name, value in {"stream": True, "seed": 5, "model": None}.items():
        with pytest.raises(EngineError, match=f"found '{name}', which the engine sets itself") as caught:
            ask(server, 1, settings=SamplingSettings(generation_kwargs={name: value}))
        assert caught.value.key == "generation_kwargs" and len(server.bodies) == 4


def choice(content, reason="stop", **message):
    return {"message": {"content": content, **message}, "finish_reason": reason}


def text(said, kind="text"):
    return {"type": kind, "text": said}


CHANNEL = ["<|channel>thought\n", "<channel|>"]


@pytest.mark.parametrize(
    ("what", "tags", "text", "finished", "error"),
    [
        (choice("7"), None, "7", True, ""),
        (choice("7", None), None, "7", True, ""),
        ({"message": {"content": "7"}}, None, "7", True, ""),
        (choice("<think>a</think>7"), None, "<think>a</think>7", True, ""),
        (choice("7", reasoning_content="a"), None, "<think>\na\n</think>\n\n7", True, ""),
        (choice("\n\n7", reasoning="a\n", reasoning_content=None), None, "<think>\na\n</think>\n\n7", True, ""),
        (choice("7", reasoning=""), None, "7", True, ""),
        (choice(None, reasoning="a"), None, "<think>\na\n</think>\n\n", True, ""),
        (choice(None, "length", reasoning="a"), None, "<think>\na", False, ""),
        (choice("7", "length", reasoning="a"), None, "<think>\na\n</think>\n\n7", False, ""),
        (choice("a</think>7"), None, "<think>\na</think>7", True, ""),
        (choice("\na</think>7"), None, "<think>\na</think>7", True, ""),
        (choice("a</think>7 or <think>"), None, "<think>\na</think>7 or <think>", True, ""),
        (choice("a", "length"), None, "a", False, ""),
        (choice(None, "length"), None, "", False, ""),
        (choice("<|channel>thought\na<channel|>7"), CHANNEL, "<think>a</think>7", True, ""),
        (choice("a<channel|>7"), CHANNEL, "<think>a</think>7", True, ""),
        (choice("7"), CHANNEL, "7", True, ""),
        (choice("7", reasoning="a"), CHANNEL, "<think>\na\n</think>\n\n7", True, ""),
        (choice(None, "tool_calls"), None, "", False, "tool_calls"),
        (choice("I", "content_filter"), None, "I", False, "content_filter"),
        (choice("I", "abort"), None, "I", False, "abort"),
        (choice("7", "eos_token"), None, "7", True, ""),
        (choice(None, "stop_sequence", reasoning="a"), None, "<think>\na\n</think>\n\n", True, ""),
        (choice("7", "end_turn"), None, "7", True, ""),
        (choice("7", "max_tokens"), None, "7", False, ""),
        (choice("7", "STOP"), None, "7", True, ""),
        (choice("7", "FinishReason.STOP"), None, "7", True, ""),
        (choice("7", "COMPLETE"), None, "7", True, ""),
        (choice("7", "eos"), None, "7", True, ""),
        (choice("7", ["stop"]), None, "7", True, ""),
        (choice("7", {"type": "stop", "matched": 2}), None, "7", True, ""),
        (choice("7", "MAX_TOKENS"), None, "7", False, ""),
        (choice("7", "FINISH_REASON_UNSPECIFIED"), None, "7", True, ""),
        (choice("I", "SAFETY"), None, "I", False, "content_filter"),
        (choice(None, refusal="I can't"), None, "I can't", False, "refusal"),
        (choice("7", refusal=None, tool_calls=[]), None, "7", True, ""),
        (choice("I call", tool_calls=[{"id": "1"}]), None, "I call", False, "tool_calls"),
        (choice([text("<think>a</think>"), text("7")]), None, "<think>a</think>7", True, ""),
        (choice([{"type": "thinking", "thinking": [text("a")]}, text("7")]), None, "<think>\na\n</think>\n\n7", True, ""),
        (choice([{"type": "thinking", "thinking": "a"}, {"type": "redacted_thinking"}, text("7", "output_text")]), None,
         "<think>\na\n</think>\n\n7", True, ""),
        (choice("7", thinking="a"), None, "<think>\na\n</think>\n\n7", True, ""),
        (choice("7", reasoning_details=[text("a", "reasoning.text"), {"type": "reasoning.encrypted"}]), None,
         "<think>\na\n</think>\n\n7", True, ""),
        (choice("<think>a</think>7", reasoning_content="a"), None, "<think>a</think>7", True, ""),
        (choice("\n<think>\na\n</think>\n\n7", reasoning="a"), None, "\n<think>\na\n</think>\n\n7", True, ""),
        (choice("a</think>7", reasoning="a\n"), None, "<think>\na</think>7", True, ""),
        (choice("<think>a", "length", reasoning="a"), None, "<think>a", False, ""),
        (choice("<think>\n\n</think>\n\n7", reasoning="a"), None, "<think>\na\n</think>\n\n7", True, ""),
        (choice("<|channel>thought\na<channel|>7", reasoning="a"), CHANNEL, "<think>a</think>7", True, ""),
        (choice("<think>a</think>7<|im_end|>"), None, "<think>a</think>7", True, ""),
        (choice("<think>a</think>7<｜end▁of▁sentence｜>"), None, "<think>a</think>7", True, ""),
        (choice("7</s>\n<|endoftext|> "), None, "7", True, ""),
        (choice("a tag <br>"), None, "a tag <br>", True, ""),
        (choice("é 🙂 \ud83d", reasoning="\udc00"), None, "<think>\n\ufffd\n</think>\n\né 🙂 \ufffd", True, ""),
        (choice("7", "\ud83d"), None, "7", False, "\ufffd"),
    ],
)  # fmt: skip
def test_a_reply_becomes_a_whole_completion(serve, what, tags, text, finished, error):
    server = serve(what)
    completion = ask(server, 1, tags=tags)[0, 0]
    assert (completion.text, completion.finished, completion.error) == (text, finished, error)
    assert completion.tokens == 3 and len(server.bodies) == 1


@pytest.mark.parametrize(
    ("kwargs", "finished"),
    [({}, True), ({"max_tokens": 4}, True), ({"max_tokens": 3}, False), ({"max_tokens": None}, True),
     ({"max_tokens": None, "max_completion_tokens": 3}, False), ({"max_tokens": "3"}, True)],
)  # fmt: skip
def test_without_a_reason_what_has_all_its_tokens_was_cut_off(serve, kwargs, finished):
    settings = SamplingSettings(max_completion_length=16, generation_kwargs=kwargs)
    completion = ask(serve(choice("7", None)), 1, settings)[0, 0]  # the server counts 3 tokens
    assert (completion.text, completion.finished, completion.error) == ("7", finished, "")
    thought = ask(serve(choice(None, None, reasoning="a")), 1, settings)[0, 0]
    assert thought.text.endswith("</think>\n\n") == thought.finished == finished


@pytest.mark.parametrize(
    "content", [None, "", " \n", pytest.param("7", id="empty once")],
)  # fmt: skip
def test_an_empty_reply_is_asked_for_once_more(serve, content):
    server = serve(lambda body, nth: choice(content if nth else None, None if nth else "stop"))
    completion = ask(server, 1)[0, 0]
    assert (completion.text, completion.finished, completion.error) == (
        ("7", True, "") if content == "7" else ("", False, "empty")
    )
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    "body",
    [
        "", "<html>", "[]", "{}", '{"choices": []}', '{"choices": [{"message": {"content": [1]}}]}', '{"error": "boom"}',
        '{"choices": [{"message": {"content": [{"type": "image_url"}]}}]}', '{"error": {"message": "boom", "code": "502"}}',
        '{"choices": [{"message": {"content": "half"}, "finish_reason": "error", "error": {"code": 502}}]}',
    ],
)  # fmt: skip
def test_what_is_no_reply_is_a_fault_of_the_server(serve, body):
    server = serve(lambda _, nth: "7" if nth else (200, {}, body))
    assert ask(server, 1)[0, 0].finished and len(server.bodies) == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {}, '{"error": {"message": "no credit", "code": 402}}'), "answered 200: .*no credit"),
        ((200, {}, '{"object": "error", "message": "no such thing", "code": 404}'), "no such thing"),
        ((200, {"Content-Type": "text/html; charset=utf-8"}, "<html>log in</html>"), "log in.*/v1 on most"),
        ((200, {"Content-Type": "text/event-stream"}, "data: 7"), "data: 7"),
        ((307, {"Location": "https://me:hunter2@other/v1/chat/completions"}, ""), "elsewhere, https://other/v1"),
    ],
)
def test_what_stands_in_the_place_of_completions_ends_the_run_and_is_shown(serve, answer, said):
    server = serve(answer)
    with pytest.raises(EngineError, match=said) as caught:
        ask(server, 200)
    assert len(server.bodies) <= 64 and "hunter2" not in str(caught.value)


@pytest.mark.parametrize("body", ['{"error": "quota exceeded"}', '{"detail": "quota exceeded"}'])
def test_an_error_without_a_status_ends_the_run_where_nothing_else_came(serve, body):
    server = serve((200, {}, body))
    with pytest.raises(EngineError, match="quota exceeded"):
        ask(server, 2, max_retries=0)


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
    for usage in ({}, {"usage": None}, {"usage": {"completion_tokens": None}}):
        assert ask(serve((200, {}, json.dumps({"choices": [choice("7")]} | usage))), 1)[0, 0].tokens == 0


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_what_may_pass_is_asked_again(serve, status):
    server = serve(lambda body, nth: (status, {"Retry-After": "1"}, "") if nth == 0 else "7")
    assert ask(server, 1)[0, 0].finished
    assert len(server.bodies) == 2 and 1 <= server.times[1] - server.times[0] < 2


class Keys:
    """A million keys, of which it counts how many were looked at."""

    def __init__(self):
        self.most = 0

    def __len__(self):
        return 1_000_000

    def __getitem__(self, index):
        self.most = max(index + 1, self.most)
        return index, 0


class Prompts(Keys):
    def __getitem__(self, index):
        return prompt(super().__getitem__(index)[0])


def test_keys_are_taken_as_there_is_room_while_the_caller_does_something_else(serve):
    server, keys, prompts = serve(), Keys(), Prompts()
    batches = ServerEngine("m", ServerOptions(base_url=server.url, max_concurrency=8)).generate(prompts, keys, SETTINGS)
    assert keys.most == 0 and not threads()  # nothing is asked before the first batch is
    got = len(next(batches))
    most = got + in_flight.UNREAD + 8
    deadline = time.monotonic() + 20
    while len(server.bodies) < most and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    assert len(server.bodies) == most and keys.most == prompts.most == most  # bounded, and all of it without the caller
    sizes = [len(next(batches)) for _ in range(3)]
    assert sizes[0] == sizes[1] == in_flight.MOST_AT_ONCE and sizes[2] >= 1
    batches.close()
    assert not threads() and keys.most <= most + sum(sizes)


def connections(server):
    psutil = pytest.importorskip("psutil")
    found = psutil.Process().net_connections("tcp")
    return [c for c in found if c.raddr and c.raddr.port == server.server_port and c.status == "ESTABLISHED"]


@pytest.mark.parametrize("how", ["the generator", "the engine", "an error of the caller"])
def test_closing_cancels_what_is_under_way_and_ends_the_thread(serve, how):
    answers = threading.Semaphore(4)
    server = serve(lambda body, nth: "7" if answers.acquire(timeout=60) else 500)
    engine = ServerEngine("m", ServerOptions(base_url=server.url, max_concurrency=8))
    batches = engine.generate([prompt(0)], [(0, s) for s in range(1000)], SETTINGS)
    next(batches)
    while server.active < 8:
        time.sleep(0.01)
    assert threads() and len(connections(server)) == 8
    asked = len(server.bodies)
    if how == "the generator":
        batches.close()
    elif how == "the engine":
        engine.close()
        assert sum(map(len, batches)) < 20
    else:
        answers.release()
        with pytest.raises(ZeroDivisionError):
            for _ in batches:
                asked = 0
                raise ZeroDivisionError
        del batches
    assert not threads() and not connections(server)
    assert server.active >= 7 and asked in (
        0,
        len(server.bodies),
    )  # nobody waited for those that hang, none was asked more
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
    child.send_signal(2)
    assert child.communicate(timeout=100)[1].strip().endswith("KeyboardInterrupt")
    assert server.active >= 32  # it waited for no answer


def test_a_prompt_that_cannot_be_read_is_the_callers_error(serve):
    engine = ServerEngine("m", ServerOptions(base_url=serve().url))
    with pytest.raises(IndexError):
        list(engine.generate([prompt(0)], [(0, 0), (1, 0)], SETTINGS))
    assert not threads() and list(engine.generate([], [], SETTINGS)) == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"base_url": "localhost:8000/v1"}, "base_url: found 'localhost:8000/v1'; allowed: http://host:port/v1 or"),
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
        ({"max_concurrency": 0}, "max_concurrency: found 0; allowed: a whole number of at least 1"),
        ({"max_concurrency": 1.5}, "max_concurrency: found 1.5"),
        ({"max_concurrency": True}, "max_concurrency: found True"),
        ({"max_retries": -1}, "max_retries: found -1; allowed: a whole number of at least 0"),
        ({"request_timeout": 0}, "request_timeout: found 0; allowed: a number greater than 0"),
        ({"give_up_seconds": "45"}, "give_up_seconds: found '45'"),
        ({"give_up_seconds": float("nan")}, "give_up_seconds: found nan"),
        ({"api_key_env": "BAD_KEY"}, "api_key_env: the key in BAD_KEY has characters that no header may have"),
    ],
)  # fmt: skip
def test_options_that_cannot_work_are_refused_before_anything_is_asked(monkeypatch, options, problem):
    monkeypatch.setenv("BAD_KEY", f"{KEY}\nX-Evil: 1")
    [found] = server_problems(ServerOptions(**options))
    assert problem in found and "hunter" not in found and KEY not in found and "\n" not in found
    with pytest.raises(EngineError, match=r"allowed|set it again") as caught:
        ServerEngine("m", ServerOptions(**options))
    assert (
        str(caught.value) == found == reachable("m", ServerOptions(**options)) and caught.value.key == "engine_kwargs"
    )


def test_options_that_work_are_not():
    assert server_problems(ServerOptions()) == []
    urls = ["http://me:secret@[::1]:8000/v1/", "https://host/v1", "http://host"]
    assert server_problems(ServerOptions(base_url=urls, max_retries=0, request_timeout=0.5)) == []


def test_neither_options_nor_the_engine_load_a_http_library():
    heavy = {"httpx", "httpx2", "torch", "transformers", "trl"}
    code = f"import sys, reasoning_ext.engines.server; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_server_is_reachable_when_it_serves_the_model(serve, monkeypatch):
    def look(*servers, model="m", **options):
        urls = [server if isinstance(server, str) else server.url for server in servers]
        return reachable(model, ServerOptions(base_url=urls, **options))

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


@pytest.mark.parametrize("status", [401, 503, 405])
def test_a_server_that_refuses_its_list_of_models(serve, monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(Handler, "do_GET", lambda handler: handler.answer((status, {}, f"no\n{KEY}")))
    server = serve(probe=503)
    problem = reachable("m", ServerOptions(base_url=server.url))
    said = f"{server.url} answered {status}: no [key]"
    key = f"{said}; the key is read from the environment variable OPENAI_API_KEY"
    ends = {401: key, 503: f"nobody answers: {said}; start it, or set base_url to one that runs", 405: ""}
    assert problem == ends[status]
    server.probe = "7"
    assert status != 503 or reachable("m", ServerOptions(base_url=server.url)) == ""  # only its list is broken


@pytest.fixture
def served_model(tmp_path):
    """Yield the tiny model with random weights, of which some greedy completions end, and the URL of `transformers serve`."""
    missing = [name for name in ("fastapi", "uvicorn", "openai") if importlib.util.find_spec(name) is None]
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
    port = int(dead_url().rpartition(":")[2].removesuffix("/v1"))
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(tmp_path / "model")]
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(
        [*command, "--port", str(port), "--host", "127.0.0.1", "--device", "cpu"],
        stdout=log,
        stderr=log,
        env=os.environ | {"HF_HOME": str(tmp_path / "no cache"), "OMP_NUM_THREADS": "1"},
    )
    options = ServerOptions(base_url=f"http://127.0.0.1:{port}/v1", max_concurrency=8)
    try:
        deadline = time.monotonic() + 120
        while problem := reachable(str(tmp_path / "model"), options):
            assert server.poll() is None and time.monotonic() < deadline, (
                problem + (tmp_path / "log").read_text()[-3000:]
            )
            time.sleep(0.5)
        yield model, tokenizer, str(tmp_path / "model"), options
    finally:
        server.kill()
        server.wait()
        log.close()


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
