"""A server on a real socket that plays an OpenAI-compatible endpoint, a judge or a teacher, by a script."""

import contextlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Answers as `script(body, nth)` says, which is given a request and how many like it there were before.

    It is the content, a choice, `(status, headers, body)`, a status, or seconds to hang. Errors say that they may be repeated at
    once. Requests for one token with `1+1=`, probes, get what `probe` says.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, script="7", probe="7", alike=lambda body: body.get("seed")):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script if callable(script) else lambda body, nth: script
        self.probe, self.alike, self.lock = probe, alike, threading.Lock()
        self.bodies, self.headers, self.times, self.probes = [], [], [], 0
        self.active = self.most_active = 0
        self.drip = 0.0  # seconds between two bytes of a body
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        """Say nothing of a client that has gone."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body["messages"][0]["content"] == "1+1=" and body.get("max_tokens") == 1:
            server.probes += 1
            return self.answer(slept(server.probe))
        with server.lock:
            nth = [server.alike(earlier) for earlier in server.bodies].count(server.alike(body))
            server.bodies.append(body)
            server.headers.append(self.headers)
            server.times.append(time.monotonic())
            server.active += 1
            server.most_active = max(server.active, server.most_active)
        what = slept(server.script(body, nth) if self.path == "/v1/chat/completions" else 404)
        with server.lock:
            server.active -= 1
        self.answer(what)

    def answer(self, what):
        what = {"message": {"content": what}, "finish_reason": "stop"} if isinstance(what, str) else what
        if isinstance(what, dict):
            what = (200, {}, json.dumps({"choices": [what], "usage": {"completion_tokens": 3}}))
        status, headers, text = what if isinstance(what, tuple) else (what, {"Retry-After-Ms": "20"}, "")
        self.send_response(status)
        for name, value in {"Content-Length": len(text.encode()), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        for byte in text.encode() if self.server.drip else ():
            self.wfile.write(bytes([byte]))
            time.sleep(self.server.drip)
        self.wfile.write(b"" if self.server.drip else text.encode())

    def log_message(self, *arguments):
        pass


def slept(what):
    """Return what to answer, after the seconds that it says."""
    if isinstance(what, float):
        time.sleep(what)
    return "7" if isinstance(what, float) else what


@contextlib.contextmanager
def servers():
    """Give a function that starts a server with a script, and stop all of them in the end."""
    started = []

    def start(script="7", **more):
        started.append(Server(script, **more))
        threading.Thread(target=started[-1].serve_forever, args=(0.01,), daemon=True).start()
        return started[-1]

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def dead_url():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def choice(content, reason="stop", **message):
    return {"message": {"content": content, **message}, "finish_reason": reason}


def part(said, kind="text"):
    return {"type": kind, "text": said}
