"""What a check finds: an error that stops a run, a warning that should be read, or a note; each says what to change."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from reasoning_ext.shown import unsaid, without_secrets

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        level: "error" stops `run` and ends `check` with exit code 2; "warning" and "note" do not.
        key: the recipe's key it is about, "" where it is about none.
        text: one line: what was found and what to change.
    """

    level: Level
    key: str
    text: str

    def __post_init__(self) -> None:
        """Take secrets out of what was found."""
        object.__setattr__(self, "text", unsaid(without_secrets(self.text)))

    def as_dict(self) -> dict[str, Any]:
        """Return the finding for `check --json`."""
        return asdict(self)
