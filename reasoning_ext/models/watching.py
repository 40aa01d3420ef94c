"""How far a batch is that a model on a CPU generates: a line now and then, since it can take minutes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from reasoning_ext.shown import print

EVERY = 30.0  # seconds without a line, after which there is one


@contextlib.contextmanager
def watched(model: Any, most: int) -> Iterator[None]:
    """Print now and then how many tokens, of at most so many, each row has that `model` generates on a CPU.

    Generation reads one token a row after the prompts, which the embeddings see; so it is whoever generates, TRL too.
    """
    done, said = 0, time.monotonic()

    def count(module: Any, args: tuple[Any, ...]) -> None:
        nonlocal done, said
        done, now = done + 1 if args and args[0].shape[-1] == 1 else 0, time.monotonic()
        if not done:
            said = now
        elif now - said >= EVERY:
            said = now
            print(f"generating: {done}/{most} tokens", flush=True)

    hook = model.get_input_embeddings().register_forward_pre_hook(count) if model.device.type == "cpu" else None
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()
