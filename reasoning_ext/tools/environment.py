"""An environment as TRL takes it, whose object lives as a pickle: a call sends it to a worker and gets back what became of it.

So a method that hangs or dies costs its call, and the object stays what it was.
"""

from __future__ import annotations

import base64
import pickle
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from reasoning_ext.think.messages import call_of
from reasoning_ext.tools.facade import REWARD, Told

if TYPE_CHECKING:
    from reasoning_ext.tools.box import Toolbox


class Acted:
    """An object's state; None before the first reset. `broken` says why it has none, where a reset has failed."""

    def __init__(self) -> None:
        self.state: bytes | None = None
        self.broken = ""

    def keep(self, state: str) -> None:
        """Take the state that a worker has sent."""
        self.state = base64.b64decode(state)


def environment_class(name: str, methods: Sequence[Told], box: Toolbox, rewards: bool = False) -> type:
    """Return a class with the methods that a model may call, `reset`, and `get_reward` if the user's class has one.

    What else is asked of an object, by a reward for example, is answered from a copy of the user's object as it is then.
    """

    def __init__(self: Any) -> None:
        self.acted = Acted()

    def reset(self: Any, **row: Any) -> str | None:
        """Begin anew with a row of the data; returns what is added to the user's message, or None."""
        return box.reset([self], [row])[0]

    def get_reward(self: Any) -> float | None:
        """Return the reward that the object itself gives."""
        return box.rewards([self])[0]

    def __getattr__(self: Any, attribute: str) -> Any:
        if attribute.startswith("__") or attribute == "acted" or self.acted.state is None:
            raise AttributeError(attribute)
        return getattr(pickle.loads(self.acted.state), attribute)

    def method(told: Told) -> Callable[..., str]:
        return told.dress(lambda self, **arguments: box.answer(call_of(told.__name__, arguments), self), of_object=True)

    members: dict[str, Any] = {told.__name__: method(told) for told in methods}
    members |= {"__init__": __init__, "reset": reset, "__getattr__": __getattr__}
    return type(name, (), members | ({REWARD: get_reward} if rewards else {}))
