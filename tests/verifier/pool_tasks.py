"""What the workers of test_workers.py are asked to do."""

import os
import signal
import time


def work(item):
    """Double a number, or misbehave in the way that is named."""
    if item == "hang":
        while True:
            time.sleep(0.01)
    if item == "die":
        os._exit(3)
    if item == "raise":
        raise ValueError("no")
    if item == "hoard":
        return len("x" * (1 << 30))
    if isinstance(item, str) and item.startswith("kill me once "):
        flag = item.removeprefix("kill me once ")
        if not os.path.exists(flag):
            open(flag, "w", encoding="ascii").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"
    if item == "print":
        print("not a reply")
        return "printed"
    return item * 2
