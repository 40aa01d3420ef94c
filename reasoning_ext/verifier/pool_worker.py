"""What a worker of `pool` does: read items, apply the function to each, answer each with a line of JSON."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import select
import signal
from collections.abc import Callable
from typing import Any, BinaryIO

_encode = json.JSONEncoder(default=lambda value: value.tolist()).encode


def serve(target: str, memory_mb: str, setup: str = "") -> None:
    """Be a worker: read chunks of items from standard input until it closes, write one line of JSON an item.

    Never returns. Any error ends it with a traceback, unless the parent is gone: then nobody is to see that.
    """
    replies, items_in = os.fdopen(os.dup(1), "wb"), os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)  # what a function prints is not a reply
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # and what it starts does not read the items
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGALRM, signal.SIGPROF))  # the parent's thread may block them
    try:
        _serve(target, int(memory_mb), setup, items_in, replies)
    except BaseException:
        pipes = select.poll()
        pipes.register(items_in, 0)  # 0: asks for nothing but whether the other end is closed
        pipes.register(replies, 0)
        if not pipes.poll(0):
            raise
        os._exit(0)


def _serve(target: str, memory_mb: int, setup: str, items_in: BinaryIO, replies: BinaryIO) -> None:
    """Import the function and answer until a pipe fails."""
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    if setup:
        function(pickle.loads(bytes.fromhex(setup)))
    if memory_mb:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    replies.write(b"ready\n")
    replies.flush()
    own = os.getpid()
    while True:
        timers, items = pickle.load(items_in)
        for item in items:
            for timer, seconds in timers:
                signal.setitimer(timer, seconds)
            replies.flush()  # of the item before: a worker that is killed owes what it was at, whose time this is already
            line, spent = _reply(function, item)
            if os.getpid() != own:
                os._exit(0)  # the item has forked: its child is no worker
            replies.write(line)
            if spent:
                replies.flush()
                os._exit(0)
        for timer, _ in timers:
            signal.setitimer(timer, 0)
        replies.flush()


def _reply(function: Callable[[Any], Any], item: Any) -> tuple[bytes, bool]:
    """Return the line for an item, and whether it was too much for the memory: this worker does no other then."""
    spent = False
    try:
        reply = _encode({"value": function(item)})
    except (Exception, SystemExit) as error:
        spent = isinstance(error, MemoryError)
        reply = _encode({"error": f"{type(error).__name__}: {str(error)[:300]}", "spent": spent})
    return reply.encode("ascii") + b"\n", spent
