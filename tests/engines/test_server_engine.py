"""The engine `server` against servers on real sockets that are busy, broken, slow, silent or dead."""

import random
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict

import pytest
from stand_in import choice, dead_url, part, servers

from reasoning_ext.engines import in_flight
from reasoning_ext.engines.base import EngineError, SamplingSettings, key_seed
from reasoning_ext.engines.server import ServerEngine, reachable
from reasoning_ext.recipe.engine_options import ServerOptions, server_problems
from reasoning_ext.servers import client

KEY = "sk-very-secret"
SETTINGS = SamplingSettings(max_completion_length=16)


@pytest.fixture
def serve(monkeypatch):
    """Start a server with a script; what is waited for is short."""
    monkeypatch.setattr(in_flight, "WATCH_SECONDS", 0.1)
    monkeypatch.setattr(in_flight, "FIRST_DELAY", 0.05)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with servers() as start:
        yield start


def prompt(number):
    return [{"role": "user", "content": f"{number}+0="}]


def ask(urls, count, settings=SETTINGS, tags=None, samples=1, **options):
    """Ask for `samples` completions of each of `count` prompts and return all of them, by key."""
    urls = [getattr(url, "url", url) for url in (urls if isinstance(urls, list) else [urls])]
    engine = ServerEngine("m", ServerOptions(base_url=urls, **options), tags)
    keys = [(p, s) for p in range(count) for s in range(samples)]
    found = [c for batch in engine.generate([prompt(p) for p in range(count)], keys, settings) for c in batch]
    assert sorted((c.prompt, c.sample) for c in found) == keys and not threads()
    assert not any(c.ids for c in found) and not any(c.finished and c.error for c in found)
    return {(c.prompt, c.sample): c for c in found}


def number(body):
    return int(body["messages"][0]["content"].split("+")[0])


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "requests"]


def test_a_faulty_server_loses_doubles_and_passes_off_nothing(serve):
    rng, lock, said = random.Random(0), threading.Lock(), defaultdict(list)
    kinds = {"429": (0.2, 429), "500": (0.3, 500), "hang": (0.31, 20.0), "cut": (0.41, choice("cut", "length")),
             "null": (0.43, {"message": {"content": None}}), "7": (1.0, "7")}  # fmt: skip

    def script(body, nth):
        with lock:
            draw = rng.random()
            said[body["seed"]].append(next(name for name, (most, _) in kinds.items() if draw < most))
            return kinds[said[body["seed"]][-1]][1]

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


@pytest.mark.parametrize("how", ["refused", "hanging", "broken", "stopped while it answers"])
def test_a_dead_server_ends_the_run(serve, how):
    what = {"hanging": 2.0, "broken": (503, {}, "no\nGPU")}.get(how, "7")
    server = serve(what, probe=503 if what == "7" else what)
    url, arrived = dead_url() if how == "refused" else server.url, 0
    options = {"request_timeout": 0.3 if how == "hanging" else 5.0, "max_retries": 1, "give_up_seconds": 1.5}
    engine = ServerEngine("m", ServerOptions(base_url=url, **options))
    start = time.monotonic()
    with pytest.raises(EngineError, match=rf"answered for \d+ s, {url} ") as caught:
        for batch in engine.generate([prompt(0)], [(0, s) for s in range(2000)], SETTINGS):
            arrived += len(batch)
            server.script = lambda body, nth: 503
    assert caught.value.key == "engine_kwargs" and "\n" not in str(caught.value)
    assert 1.5 <= time.monotonic() - start < 30 and not threads()
    assert (arrived > 0) == (how == "stopped while it answers")


def test_the_default_ends_a_run_on_a_silent_host_within_a_minute():
    assert ServerOptions().give_up_seconds + in_flight.WATCH_SECONDS + client.CONNECT_SECONDS < 60


def test_a_server_that_has_too_much_to_do_for_ever_ends_the_run_later(serve):
    server, start = serve(429), time.monotonic()
    with pytest.raises(EngineError, match=r"too much to do .* answered 429"):
        ask(server, 20, request_timeout=1.0, give_up_seconds=0.2, max_retries=1)
    assert time.monotonic() - start >= 2.2


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


def test_a_dead_endpoint_is_left_alone_and_asked_again_later_and_a_slow_one_asked_less(serve, monkeypatch):
    server, broken = serve(), serve(500, probe=500)
    found = ask([dead_url(), server, broken], 100, max_concurrency=4, max_retries=2)
    assert {c.text for c in found.values()} == {"7"} and len(server.bodies) == 100 and len(broken.bodies) < 20
    monkeypatch.setattr(client, "ALONE_SECONDS", 0.2)
    back, slow = serve(lambda body, nth: 500 if len(back.bodies) <= 4 else "7"), serve(0.1)
    ask([back, slow], 200, max_concurrency=4)
    assert len(back.bodies) > len(slow.bodies) > 10


def test_requests_that_break_the_server_are_counted(serve):
    server = serve(lambda body, nth: {3: 500, 5: 0.6}.get(number(body), "7"))
    found = ask(server, 40, max_concurrency=2, max_retries=1, request_timeout=0.3)
    errors = {key: (c.text, c.finished, c.error) for key, c in found.items() if c.error}
    assert errors == {(3, 0): ("", False, "http 500"), (5, 0): ("", False, "time-out")}
    server = serve(500)  # it answers a request for one token
    assert {c.error for c in ask(server, 3, max_retries=1).values()} == {"http 500"} and server.probes >= 1


@pytest.mark.parametrize(("what", "error"), [(500, "http 500"), ("", "empty")])
def test_a_run_that_brings_nothing_is_an_error_unless_there_are_few_keys(serve, what, error):
    server = serve(what)
    with pytest.raises(EngineError, match=rf"none of 9 .* {error} 9") as caught:
        ask(server, 9, max_retries=0)
    assert caught.value.key == "engine_kwargs" and not threads()
    assert {c.error for c in ask(server, 8, max_retries=0).values()} == {error}


def test_many_failures_in_a_row_end_the_run(serve, monkeypatch):
    monkeypatch.setattr(in_flight, "MOST_IN_A_ROW", 8)
    server = serve(lambda body, nth: "7" if len(server.bodies) <= 20 else 500)
    with pytest.raises(EngineError, match=r"8 requests in a row .* answered 500"):
        ask(server, 40, max_concurrency=2, max_retries=0)
    assert len(server.bodies) < 32 and not threads()


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
        ((201, {}, '{"id": "queued"}'), "answered 201: .*queued", ""),
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
    assert told <= plain and server.headers[0]["Host"] in server.url


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


SPLIT = "<think>\na\n</think>\n\n7"
PLAIN = [
    # a choice, the completion's text, whether it is finished, its error
    *((choice("7", reason), "7", True, "") for reason in (None, "stop", "eos_token", "STOP", "FinishReason.STOP", "COMPLETE",
      ["stop"], {"type": "stop", "matched": 2}, "FINISH_REASON_UNSPECIFIED")),
    *((choice("7", reason), "7", False, "") for reason in ("length", "MAX_TOKENS")),
    *((choice("I", reason), "I", False, error) for reason, error in {
      "content_filter": "content_filter", "SAFETY": "content_filter", "abort": "abort", "\ud83d": "\ufffd"}.items()),
    ({"message": {"content": "7"}}, "7", True, ""),
    (choice(None, "length"), "", False, ""),
    (choice(None, "tool_calls"), "", False, "tool_calls"),
    (choice("I call", tool_calls=[{"id": "1"}]), "I call", False, "tool_calls"),
    (choice("7", refusal=None, tool_calls=[]), "7", True, ""),
    (choice(None, refusal="I can't"), "I can't", False, "refusal"),
    (choice("<think>a</think>7"), "<think>a</think>7", True, ""),
    *((choice("7", **{name: "a"}), SPLIT, True, "") for name in ("reasoning_content", "reasoning", "thinking")),
    (choice("7", reasoning_details=[part("a", "reasoning.text"), {"type": "reasoning.encrypted"}]), SPLIT, True, ""),
    (choice("\n\n7", reasoning="a\n", reasoning_content=None), SPLIT, True, ""),
    (choice("7", reasoning=""), "7", True, ""),
    (choice(None, "stop_sequence", reasoning="a"), "<think>\na\n</think>\n\n", True, ""),
    (choice(None, "length", reasoning="a"), "<think>\na", False, ""),
    (choice("7", "length", reasoning="a"), SPLIT, False, ""),
    (choice("a</think>7"), "<think>\na</think>7", True, ""),
    (choice("\na</think>7"), "<think>\na</think>7", True, ""),
    (choice("a</think>7 or <think>"), "<think>\na</think>7 or <think>", True, ""),
    (choice([part("<think>a</think>"), part("7")]), "<think>a</think>7", True, ""),
    (choice([{"type": "thinking", "thinking": [part("a")]}, part("7")]), SPLIT, True, ""),
    (choice([{"type": "thinking", "thinking": "a"}, {"type": "redacted_thinking"}, part("7", "output_text")]), SPLIT, True, ""),
    (choice("<think>a</think>7", reasoning_content="a"), "<think>a</think>7", True, ""),
    (choice("a</think>7", reasoning="a\n"), "<think>\na</think>7", True, ""),
    (choice("<think>a", "length", reasoning="a"), "<think>a", False, ""),
    (choice("<think>\n\n</think>\n\n7", reasoning="a"), SPLIT, True, ""),
    (choice("<think>a</think>7<|im_end|>"), "<think>a</think>7", True, ""),
    (choice("7</s>\n<|endoftext|> "), "7", True, ""),
    (choice("a tag <br>"), "a tag <br>", True, ""),
    (choice("é 🙂 \ud83d", reasoning="\udc00"), "<think>\n\ufffd\n</think>\n\né 🙂 \ufffd", True, ""),
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


ON = [
    # the beginning, a choice, the whole completion
    ("<think>a", choice("b</think>7"), "<think>ab</think>7"),
    ("<think>a", choice("7", reasoning="b"), "<think>ab\n</think>\n\n7"),
    ("<think>a", choice(None, "length", reasoning="b"), "<think>ab"),
    ("<think>a</think>", choice(None, reasoning=" 7"), "<think>a</think> 7"),  # a parser that takes all for a thought
    ("<think>a</think>7", choice(""), "<think>a</think>7"),  # where nothing is missing
    ("<think>a</think>", choice("7<|im_end|>"), "<think>a</think>7"),
]


def test_a_server_goes_on_from_a_completions_beginning(serve):
    server = serve(lambda body, nth: ON[number(body)][1])
    for tags, opened in ((None, "<think>"), (["<thought>", "</thought>"], "<thought>")):
        engine = ServerEngine("m", ServerOptions(base_url=server.url), tags)
        prompts = [[*prompt(i), {"role": "assistant", "content": case[0]}] for i, case in enumerate(ON)]
        batches = engine.generate(prompts, [(i, 0) for i in range(len(ON) if tags is None else 1)], SETTINGS)
        found = {c.prompt: c.text for batch in batches for c in batch}
        assert tags or [found[i] for i in range(len(ON))] == [case[2] for case in ON]
        sent = server.bodies[-1]
        assert sent["messages"][-1]["role"] == "assistant" and sent["messages"][-1]["content"].startswith(opened)
        assert sent["continue_final_message"] and sent["add_generation_prompt"] is False
    refusing = ServerEngine("m", ServerOptions(base_url=serve((400, {}, "no such field")).url))
    with pytest.raises(EngineError, match=r"no such field.*continue_final_message") as error:
        list(refusing.generate(prompts, [(0, 0)], SETTINGS))
    assert error.value.key == "engine"


def test_log_probabilities_are_read_or_asked_for_in_vain_and_a_stop_is_refused(serve):
    told = choice("7") | {"logprobs": {"content": [{"token": "7", "logprob": -0.5}, {"token": "", "logprob": -1.5}]}}
    server, settings = serve(told), SamplingSettings(16, logprobs=True, limits={(0, 0): 5})
    assert ask(server, 1, settings)[0, 0].logprob == -1.0
    assert server.bodies[0]["logprobs"] is True and server.bodies[0]["max_tokens"] == 5
    for other, asked in ((serve("7"), settings), (server, SamplingSettings(16, stop="x"))):
        with pytest.raises(EngineError, match="write transformers or vllm") as error:
            ask(other, 1, asked)
        assert error.value.key == "engine" and not threads()


@pytest.mark.parametrize(
    ("kwargs", "finished"),
    [({}, True), ({"max_tokens": 3}, False), ({"max_tokens": None}, True), ({"max_tokens": "3"}, True),
     ({"max_tokens": None, "max_completion_tokens": 3}, False)],
)  # fmt: skip
def test_without_a_reason_what_has_all_its_tokens_was_cut_off(serve, kwargs, finished):
    server = serve(choice(None, None, reasoning="a"))  # and it counts 3 tokens
    [found] = ask(server, 1, SamplingSettings(16, generation_kwargs=kwargs)).values()
    assert found.text.endswith("</think>\n\n") == found.finished == finished


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


def test_why_completions_fail_and_tags_that_nobody_named_are_told_once(serve, capsys):
    server = serve(lambda body, _: "7" if body["messages"] == prompt(0) else (200, {}, '{"error": "out of\\nmemory"}'))
    found = ask(server, 5, max_retries=0, max_concurrency=1)
    assert sorted(c.error for c in found.values()) == ["", *["no reply"] * 4]
    [line] = capsys.readouterr().err.splitlines()
    assert "memory" in line and server.url in line
    ask(serve("<thought>a</thought>7"), 3)
    [line] = capsys.readouterr().err.splitlines()
    assert "think_tags: ['<thought>', '</thought>']" in line
    assert ask(serve("<thought>a</thought>7"), 1, tags=["<thought>", "</thought>"])[0, 0].text == "<think>a</think>7"
    assert not capsys.readouterr().err


def test_keys_are_taken_as_there_is_room_while_the_caller_does_something_else(serve, monkeypatch):
    monkeypatch.setattr(in_flight, "MOST_AT_ONCE", 50)
    monkeypatch.setattr(in_flight, "UNREAD", 100)
    server, keys = serve(), [(0, s) for s in range(1000)]
    engine = ServerEngine("m", ServerOptions(base_url=server.url, max_concurrency=8))
    batches = engine.generate([prompt(0)], keys, SETTINGS)
    assert not threads()  # nothing is asked before the first batch is
    most = len(next(batches)) + 100 + 8
    deadline = time.monotonic() + 20
    while len(server.bodies) < most and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    assert len(server.bodies) == most  # bounded, and all of it without the caller
    assert [len(next(batches)) for _ in range(2)] == [50, 50]
    batches.close()
    assert not threads() and len(server.bodies) <= most + 100


@pytest.mark.parametrize("how", ["the engine", "an error of the caller"])
def test_closing_cancels_what_is_under_way_and_ends_the_thread(serve, how):
    answers = threading.Semaphore(4)
    server = serve(lambda body, nth: "7" if answers.acquire(timeout=60) else 500)
    engine = ServerEngine("m", ServerOptions(base_url=server.url, max_concurrency=8))
    batches = engine.generate([prompt(0)], [(0, s) for s in range(1000)], SETTINGS)
    next(batches)
    while server.active < 8:
        time.sleep(0.01)
    if how == "the engine":
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


def test_an_interrupt_ends_the_process_at_once(serve, tmp_path):
    server = serve(60.0)
    code = (
        "import signal, sys; from reasoning_ext.engines.server import *\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored\n"
        "engine = ServerEngine('m', ServerOptions(base_url=sys.argv[1]))\n"
        "list(engine.generate([[{'role': 'user', 'content': 'x'}]], [(0, s) for s in range(99)], SamplingSettings()))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, server.url], stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    while server.active < 32 and child.poll() is None:
        time.sleep(0.02)
    child.send_signal(2)
    assert child.communicate(timeout=30)[1].strip().endswith("KeyboardInterrupt")  # it waited for no answer


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("base_url", url) for url in (
            "localhost:8000/v1", "me:hunter2@host/v1", "ftp://me:hunter2@host/v1", "http://me:hunter/2@host/v1", "http://[host/v1",
            "http://host:99999/v1", "https:///v1", "https://host/v1?key=1", "https://host/v1/chat/completions/",
            ["https://host/v1", 3], [], ["https://host/v1"] * 2)),
        ("max_concurrency", 0), ("max_concurrency", 1.5), ("max_concurrency", True), ("max_retries", -1), ("request_timeout", 0),
        ("give_up_seconds", "45"), ("give_up_seconds", float("nan")), ("api_key_env", "BAD_KEY"),
    ],
)  # fmt: skip
def test_options_that_cannot_work_are_refused_before_anything_is_asked(monkeypatch, option, value):
    monkeypatch.setenv("BAD_KEY", f"{KEY}\nX-Evil: 1")
    [(name, found, _)] = server_problems(ServerOptions(**{option: value}))
    assert name == option and "hunter" not in found and KEY not in found and "\n" not in found
    assert not server_problems(
        ServerOptions(base_url=["http://me:secret@[::1]:8000/v1/", "https://host/v1", "http://host"])
    )


def test_neither_options_nor_the_engine_nor_the_judge_load_what_is_heavy():
    heavy = {"openai", "httpx", "httpx2", "torch", "transformers", "trl"}
    code = (
        f"import sys, reasoning_ext.engines.server, reasoning_ext.rewards.llm_judge; print({heavy} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_server_is_reachable_when_it_gives_a_token(serve, monkeypatch):
    def look(*endpoints):
        return reachable("m", ServerOptions(base_url=[getattr(endpoint, "url", endpoint) for endpoint in endpoints]))

    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.5)
    server, gone = serve(), dead_url()
    assert look(server) == look(server, dead_url()) == look(serve(probe=2.0)) == "" and server.probes == 2
    strict = serve(probe=(404, {}, "no model m"))
    assert look(strict) == look(server, strict) == f"{strict.url} answered 404: no model m"
    problem = look(gone.replace("//", "//me:hunter2@"), dead_url())
    assert problem.startswith(f"nobody answers: {gone} gave no answer: ConnectError") and "hunter2" not in problem


@pytest.mark.parametrize(("status", "reached"), [(401, False), (503, False), (429, True), (400, True)])
def test_a_server_that_refuses_everything(serve, monkeypatch, status, reached):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = serve(probe=(status, {"Retry-After-Ms": "20"}, f"no\n{KEY}"))
    problem = reachable("m", ServerOptions(base_url=server.url))
    assert bool(problem) != reached and problem.startswith("nobody answers: ") == (status == 503)
    assert reached or f"{server.url} answered {status}: no [key]" in problem
    assert (NO_KEY in problem) == (status == 401)


def test_what_no_request_can_say_is_refused_before_any_is_sent():
    engine = ServerEngine("m", ServerOptions(base_url="http://localhost:1/v1"))
    settings = SamplingSettings(generation_kwargs={"penalty": float("nan")})
    with pytest.raises(EngineError) as error:
        next(engine.generate([[{"role": "user", "content": "?"}]], [(0, 0)], settings))
    assert error.value.key == "generation_kwargs"
