"""How far a stage that draws completions is: a line now and then, on a terminal one that is overwritten."""

import sys
import time
from collections import Counter

from reasoning_ext.engines.base import Completion
from reasoning_ext.shown import print

EVERY = 60.0  # seconds between two lines in a log, where a tenth of the work takes longer


class Progress:
    """Counts completions of `total`, `done` of which were there already, and prints what is accepted, the speed, the errors."""

    def __init__(self, what: str, total: int, done: int = 0, accepted: int | None = None):
        self.what, self.total, self.before, self.done, self.accepted = what, total, done, done, accepted
        self.started = self.shown_at = time.monotonic()
        self.tokens, self.tenth, self.width = 0, done * 10 // max(1, total), 0
        self.errors: Counter[str] = Counter()

    def add(self, batch: list[Completion], accepted: int = 0) -> None:
        """Count a batch, of which so many are accepted, and print where it is time to."""
        self.done += len(batch)
        self.tokens += sum(completion.tokens for completion in batch)
        self.accepted = None if self.accepted is None else self.accepted + accepted
        self.errors.update(completion.error or "cut off" for completion in batch if not completion.finished)
        now, tenth, live = time.monotonic(), self.done * 10 // max(1, self.total), sys.stdout.isatty()
        if live or tenth > self.tenth or now - self.shown_at >= EVERY:
            self.tenth, self.shown_at, line = tenth, now, self._line(now - self.started)
            sys.stdout.write("\r" * live)
            print(f"{line:<{self.width}}", end="" if live else "\n", flush=True)
            self.width = len(line) * live

    def _line(self, seconds: float) -> str:
        parts = [f"{self.what}  {self.done}/{self.total} completions"]
        if self.accepted is not None:
            parts.append(f"accepted {self.accepted / max(1, self.done):.1%}")
        if self.tokens:
            parts.append(f"{self.tokens / max(seconds, 1e-9):.0f} tokens/s")
        parts += [f"{kind} {count}" for kind, count in sorted(self.errors.items())]
        if self.before < self.done < self.total:
            left = (self.total - self.done) * seconds / (self.done - self.before)
            parts.append(f"{left:.0f} s left" if left < 90 else f"{left / 60:.0f} min left")
        return "  ".join(parts)

    def close(self) -> None:
        """End the line on a terminal."""
        if self.width:
            print(flush=True)
