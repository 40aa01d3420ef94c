"""What the workers of test_pool.py are asked to do."""

import os
import signal
import time


def work(item):
    """Double a number, or misbehave in the way that is named."""
    if item == "hang":
        while True:
            time.sleep(0.01)
    if isinstance(item, str) and item.startswith("burn "):
        end = time.process_time() + float(item.removeprefix("burn "))
        while time.process_time() < end:
            pass
        return "burnt"
    if isinstance(item, str) and item.startswith("sleep "):
        return time.sleep(float(item.removeprefix("sleep ")))
    if item == "interrupt me":
        os.kill(os.getpid(), signal.SIGINT)
        return "undisturbed"
    if item == "kill my parent":
        parent = os.getppid()
        os.kill(parent, signal.SIGKILL)
        while os.getppid() == parent:  # until then it may not have closed its pipes
            time.sleep(0.01)
    if item == "raise without a parent":
        work("kill my parent")
        raise KeyboardInterrupt
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
