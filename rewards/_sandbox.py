"""A program in a sandbox of bubblewrap's, for `code_tests`: what it sees, what it may use, and how it is ended.

bubblewrap makes the namespaces, the read-only folders and the empty one; `prlimit` sets the limits; `setpriv` takes another
user where this process is root's, because the limit of processes does not hold for root. A filter of system calls forbids
what leads around all that.
"""

import errno
import os
import platform
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

SYSTEM = ("/bin", "/lib", "/lib64", "/usr", "/etc/ld.so.cache")
DEVICES = ("/dev/null", "/dev/urandom", "/dev/zero")
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/box", "TMPDIR": "/box"}
ENVIRONMENT |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a thread counts as a process
UNUSED_USERS = range(61184, 65520)  # systemd's, for services that have no user of their own
# System calls that lead around the limits and walls: memory that no limit counts, keyrings, other processes, namespaces in
# which one has rights, and parts of the kernel that no test needs. Name: its number on x86_64, on aarch64.
FORBIDDEN = {
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186),
    "semget": (64, 190), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "kcmp": (312, 272), "io_uring_setup": (425, 425), "userfaultfd": (323, 282), "bpf": (321, 280),
    "perf_event_open": (298, 241), "unshare": (272, 97), "setns": (308, 268),
}  # fmt: skip
ARCHITECTURES = {
    "x86_64": (0xC000003E, 56),
    "aarch64": (0xC00000B7, 220),
}  # of linux/audit.h, and the number of `clone`
_CLONE3, _NEW_NAMESPACES = 435, 0x7E020000
_FOREIGN_CALLS = 0x40000000  # from here on x86_64 has its x32 calls


class Running(NamedTuple):
    """A program that was started, and the file in which bubblewrap tells how it ended."""

    process: subprocess.Popen
    status: BinaryIO


class Limits(NamedTuple):
    """What each process of a program may use, and until when all of them have to end, by `time.monotonic`."""

    memory: int
    seconds: float
    deadline: float


def start(
    arguments: Sequence[str],
    limits: Limits,
    files: dict[str, str],
    stdin: int | BinaryIO = subprocess.DEVNULL,
    stdout: int | BinaryIO = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
    end: socket.socket | None = None,
) -> Running:
    """Start Python in an empty folder.

    Args:
        arguments: of Python.
        limits: for each process.
        files: what else it sees, path -> text.
        stdin, stdout, stderr: as for `subprocess.Popen`.
        end: of a socket, whose number becomes the last argument.

    Raises:
        OSError: bubblewrap is not there, or this machine's system calls are not known.
    """
    held = [in_memory(text) for text in files.values()]
    seccomp, status = in_memory(_filter()), in_memory()
    inherited = [file.fileno() for file in [*held, seccomp, status]] + ([] if end is None else [end.fileno()])
    command = [*_walls(), "--seccomp", str(seccomp.fileno()), "--json-status-fd", str(status.fileno())]
    for path, file in zip(files, held, strict=True):
        command += ["--perms", "0644", "--file", str(file.fileno()), path]
    command += ["--remount-ro", "/", "--chdir", "/box", "--", "prlimit", f"--as={limits.memory}"]
    command += [f"--cpu={int(limits.seconds) + 1}", f"--fsize={16 << 20}", "--nproc=16", "--nofile=64", "--core=0"]
    if os.geteuid() == 0:
        user = random.choice(UNUSED_USERS)
        command += ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    command += [sys.executable, "-I", *arguments, *([] if end is None else [str(end.fileno())])]
    try:
        process = subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=stderr,
            pass_fds=inherited, start_new_session=True, cwd="/", env=ENVIRONMENT,
        )  # fmt: skip
        return Running(process, status)
    finally:
        for file in (*held, seccomp):
            file.close()


def finish(running: Running, deadline: float) -> int:
    """Wait for a program until a deadline, end it and all that it has started.

    Returns:
        its exit status; a negative number where it has none, because its time was over, or because somebody else ended the
        sandbox or it could not be made, which is -1.
    """
    process, status = running
    with status:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # bubblewrap, with which its namespace ends
            return process.wait()
        status.seek(0)
        return process.returncode if b'"exit-code"' in status.read(4096) else -1


def in_memory(content: str | bytes = b"") -> BinaryIO:
    """Return a file in memory, at its beginning."""
    file = os.fdopen(os.memfd_create("code_tests"), "wb+")
    file.write(content.encode(errors="replace") if isinstance(content, str) else content)
    file.seek(0)
    return file


def _walls() -> tuple[str, ...]:
    """Return how bubblewrap is called: new namespaces, no rights, nothing of the file system but Python's, read-only."""
    options = "--unshare-ipc --unshare-pid --unshare-net --unshare-uts --die-with-parent --new-session --cap-drop ALL"
    found = [shutil.which("bwrap") or "bwrap", *options.split(), *([] if os.geteuid() == 0 else ["--unshare-user"])]
    for right in ("CAP_SETUID", "CAP_SETGID") if os.geteuid() == 0 else ():
        found += ["--cap-add", right]  # for setpriv
    python_at = {sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parents[1])} - {"/"}
    python_at |= {path for path in sys.path if path.endswith(("/site-packages", "/dist-packages"))}
    bound: list[Path] = []
    for root in sorted(Path(path) for path in {*SYSTEM, *DEVICES, *python_at} if os.path.exists(path)):
        if any(root.is_relative_to(other) for other in bound):
            continue
        bound.append(root)
        for parent in reversed(root.parents[:-1]):  # bubblewrap would let no other user through them
            found += ["--perms", "0755", "--dir", str(parent)]
        if str(root) in SYSTEM and root.is_symlink():
            found += ["--symlink", os.readlink(root), str(root)]
        else:
            found += ["--dev-bind" if str(root) in DEVICES else "--ro-bind", str(root), str(root)]
    if not any(root.is_relative_to("/tmp") for root in bound):  # Python itself may live there
        found += ["--symlink", "/box", "/tmp"]
    return (*found, "--perms", "0777", "--size", str(64 << 20), "--tmpfs", "/box")


def _filter() -> bytes:
    """Return the program, in the kernel's BPF, that refuses forbidden calls, new namespaces and other architectures.

    Raises:
        OSError: the numbers of this machine's calls are not known.
    """
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise OSError(f"system calls of {machine} are not known; allowed: {', '.join(ARCHITECTURES)}")
    load, equal, at_least, any_bit, end = 0x20, 0x15, 0x35, 0x45, 0x06
    architecture, clone = ARCHITECTURES[machine]
    numbers = [pair[machine == "aarch64"] for pair in FORBIDDEN.values()]
    # (instruction, operand, line to jump to where it holds, line where it does not); a line is named by what it does
    lines = [(load, 4), (equal, architecture, "", "no"), (load, 0), (at_least, _FOREIGN_CALLS, "no", "")]
    lines += [(equal, number, "no", "") for number in numbers]
    lines += [
        (equal, _CLONE3, "absent", ""),
        (equal, clone, "", "yes"),
        (load, 16),
        (any_bit, _NEW_NAMESPACES, "no", ""),
    ]
    at = {"yes": len(lines), "no": len(lines) + 1, "absent": len(lines) + 2}
    jumps = [[at[name] - i - 1 if name else 0 for name in line[2:] or ("", "")] for i, line in enumerate(lines)]
    ends = [0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS]  # glibc then calls clone instead of clone3
    packed = [struct.pack("=HBBI", line[0], *jump, line[1]) for line, jump in zip(lines, jumps, strict=True)]
    return b"".join([*packed, *(struct.pack("=HBBI", end, 0, 0, value) for value in ends)])
