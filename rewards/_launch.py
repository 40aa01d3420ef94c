"""Starts the sandboxes of `code_tests` and of the tool `python`: in which namespaces, and what of the machine is in them."""

import inspect
import json
import os
import random
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from reasoning_ext.rewards import _sandbox

SYSTEM = ("/bin", "/lib", "/lib64", "/usr", "/etc/ld.so.cache", "/dev/null", "/dev/urandom", "/dev/zero")
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/box", "TMPDIR": "/box"}
ENVIRONMENT |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a thread counts as a process
GRACE_SECONDS = 10.0  # for a sandbox to start and to stop
# systemd's, for services that have no user of their own; one for the code, the next for tests
UNUSED_USERS = range(61184, 65520, 2)
HELP = (
    "it needs Linux 5.14, util-linux, and user namespaces (sysctl user.max_user_namespaces and "
    "kernel.apparmor_restrict_unprivileged_userns); a container needs --security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined, and --cap-add SYS_ADMIN where its user is root"
)
KEEPER = inspect.getsource(_sandbox)  # at once: the file may have changed by the first job


def launch(job: dict[str, Any], seconds: float, memory_mb: int) -> tuple[Any, str]:
    """Have `_sandbox` do a job.

    Args:
        job: the code, and what is to be done with it.
        seconds: the time for all of it.
        memory_mb: the memory that each of its processes has.

    Returns:
        What it came to, and ""; None and "timeouts" or "breakdowns" where nothing is known of it.

    Raises:
        OSError: this machine cannot isolate the code.
    """
    is_root = os.geteuid() == 0
    python_at = {sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parents[1])} - {"/"}
    python_at |= {path for path in sys.path if path.endswith(("/site-packages", "/dist-packages"))}
    user = random.choice(UNUSED_USERS) if is_root else None  # the limit of processes does not hold for root
    job = job | {"seconds": seconds, "memory": memory_mb << 20, "user": user}
    job |= {"command": [sys.executable, "-I"], "roots": sorted({*SYSTEM, *python_at})}
    namespaces = [*([] if is_root else ["--user", "--map-root-user"]), "--mount", "--net", "--ipc", "--pid"]
    try:
        done = subprocess.run(
            ["unshare", *namespaces, "--fork", "--kill-child", "--", sys.executable, "-I", "-S", "-c", KEEPER],
            input=json.dumps(job), encoding="utf-8", errors="replace", capture_output=True,
            timeout=seconds + GRACE_SECONDS, start_new_session=True, cwd="/", env=ENVIRONMENT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, "timeouts"
    ready, _, result = done.stdout.partition("\n")
    if ready != "ready":
        raise OSError((done.stderr.strip().splitlines() or [f"unshare ended with {done.returncode}"])[-1])
    return (json.loads(result), "") if result else (None, "breakdowns")


@cache
def check_sandbox(user: str) -> None:
    """Run a harmless program once.

    Args:
        user: what wants to run code.

    Raises:
        RuntimeError: this machine cannot isolate it.
    """
    try:
        result, _ = launch({"code": "print(1)", "programs": [("", "1")], "partial": False}, GRACE_SECONDS, 512)
    except OSError as error:
        raise RuntimeError(f"{user} cannot isolate code here ({error}); {HELP}") from error
    if not result or not result[0]:
        problem = f"{sys.executable} does not run in the sandbox; its files must be below {sys.prefix}"
        raise RuntimeError(f"{user}: {problem}")
