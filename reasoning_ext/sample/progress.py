"""How far a stage that draws completions is: over one line on a terminal, now and then a line in a log."""

from __future__ import annotations

import sys
import time
from collections import Counter

from reasoning_ext.shown import print

EVERY = 60.0  # seconds between two lines in a log, where a tenth of the work takes longer


class Progress:
    """Counts completions as they are written, and prints the share that is accepted, the speed, errors by kind, the time left.

    Args:
        what: named in front.
        total: completions that there may be in all.
        done: those that were there already.
        accepted: those of them that are accepted; None where nothing is.
    """

    def __init__(self, what: str, total: int, done: int = 0, accepted: int | None = None):
        self.what, self.total, self.done, self.accepted = what, total, done, accepted
        self.before, self.started = done, time.monotonic()
        self.tokens, self.shown, self.shown_at, self.width = 0, done * 10 // max(1, total), self.started, 0
        self.errors: Counter[str] = Counter()

    def add(self, completions: int, tokens: int = 0, accepted: int = 0, errors: dict[str, int] | None = None) -> None:
        """Count a batch, and print where it is time to.

        Args:
            completions: B, those that failed included.
            tokens: of the batch.
            accepted: how many of them are accepted.
            errors: how many of them failed, by kind.
        """
        self.done += completions
        self.tokens += tokens
        self.accepted = None if self.accepted is None else self.accepted + accepted
        self.errors.update(errors or {})
        now, tenth = time.monotonic(), self.done * 10 // max(1, self.total)
        if sys.stdout.isatty():
            line = self.line(now)
            sys.stdout.write("\r")
            print(f"{line:<{self.width}}", end="", flush=True)
            self.width = len(line)
        elif tenth > self.shown or now - self.shown_at >= EVERY:
            self.shown, self.shown_at = tenth, now
            print(self.line(now), flush=True)

    def line(self, now: float) -> str:
        """Return what is printed at a time of `time.monotonic`."""
        parts = [f"{self.what}  {self.done}/{self.total} completions"]
        if self.accepted is not None:
            parts.append(f"accepted {self.accepted / max(1, self.done):.1%}")
        seconds, fresh = max(now - self.started, 1e-9), self.done - self.before
        if self.tokens:
            parts.append(f"{self.tokens / seconds:.0f} tokens/s")
        parts += [f"{kind} {count}" for kind, count in sorted(self.errors.items())]
        if fresh and self.done < self.total:
            parts.append(f"{_duration((self.total - self.done) * seconds / fresh)} left")
        return "  ".join(parts)

    def end(self) -> None:
        """End the line on a terminal."""
        if sys.stdout.isatty() and self.width:
            print(flush=True)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
