"""How far a stage that draws completions is: over one line on a terminal, now and then a line in a log."""

import sys
import time
from collections import Counter

from reasoning_ext.engines.base import Completion
from reasoning_ext.shown import print

EVERY = 60.0  # seconds between two lines in a log, where a tenth of the work takes longer


class Progress:
    """Counts completions as they are written, and prints the share that is accepted, the speed, errors by kind, the time left.

    Args:
        what: named in front.
        total: completions that there may be in all; `done` of them were there already.
        accepted: those of them that are accepted; None where nothing is.
    """

    def __init__(self, what: str, total: int, done: int = 0, accepted: int | None = None):
        self.what, self.total, self.before, self.done, self.accepted = what, total, done, done, accepted
        self.started = self.shown_at = time.monotonic()
        self.tokens, self.shown, self.width = 0, done * 10 // max(1, total), 0
        self.errors: Counter[str] = Counter()

    def add(self, batch: list[Completion], accepted: int = 0) -> None:
        """Count a batch, of which so many are accepted, and print where it is time to."""
        self.done += len(batch)
        self.tokens += sum(completion.tokens for completion in batch)
        self.accepted = None if self.accepted is None else self.accepted + accepted
        self.errors.update(completion.error or "cut off" for completion in batch if not completion.finished)
        now, tenth = time.monotonic(), self.done * 10 // max(1, self.total)
        if sys.stdout.isatty():
            line = self._line(now)
            sys.stdout.write("\r")
            print(f"{line:<{self.width}}", end="", flush=True)
            self.width = len(line)
        elif tenth > self.shown or now - self.shown_at >= EVERY:
            self.shown, self.shown_at = tenth, now
            print(self._line(now), flush=True)

    def _line(self, now: float) -> str:
        parts = [f"{self.what}  {self.done}/{self.total} completions"]
        if self.accepted is not None:
            parts.append(f"accepted {self.accepted / max(1, self.done):.1%}")
        seconds, fresh = max(now - self.started, 1e-9), self.done - self.before
        if self.tokens:
            parts.append(f"{self.tokens / seconds:.0f} tokens/s")
        parts += [f"{kind} {count}" for kind, count in sorted(self.errors.items())]
        if fresh and self.done < self.total:
            left = (self.total - self.done) * seconds / fresh
            parts.append(f"{left:.0f} s left" if left < 90 else f"{left / 60:.0f} min left")
        return "  ".join(parts)

    def end(self) -> None:
        """End the line on a terminal."""
        if self.width:
            print(flush=True)
