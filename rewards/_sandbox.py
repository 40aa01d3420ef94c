"""The first process of a sandbox: shuts itself in, runs programs without rights, and tells how many were right.

Run from its source by `_launch`, with a job as JSON on standard input: the programs of `code_tests`, or one that is shown.
"""

import ctypes
import errno
import json
import os
import platform
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import Any

# System calls that lead around the limits and walls: memory that no limit counts, keyrings, other processes, and parts of the
# kernel that no test needs. Name: its number on x86_64, on aarch64.
FORBIDDEN = {
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186),
    "semget": (64, 190), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "kcmp": (312, 272), "io_uring_setup": (425, 425), "userfaultfd": (323, 282), "bpf": (321, 280),
    "perf_event_open": (298, 241),
}  # fmt: skip
AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h


def supervise() -> None:
    """Do the job and print what it came to: `[how many were right, the problem]`, or what a program printed."""
    if os.getpid() != 1:
        raise OSError("unshare made no process namespace")  # and to kill everything would mean everything
    job = json.load(sys.stdin)
    _isolate(job["roots"])
    _filter()  # raises where there is none
    print("ready", flush=True)
    deadline = time.monotonic() + job["seconds"]
    print(json.dumps(_shown(job, deadline) if "show" in job else _judged(job, deadline)))


def _judged(job: dict, deadline: float) -> tuple[int, str]:
    """Run the programs until one fails, or all of them if `partial`."""
    passed = 0
    for i, program in enumerate(job["programs"]):
        if passed == i or job["partial"]:
            passed += _passes(*program, job, deadline)
    late = passed < len(job["programs"]) and time.monotonic() > deadline
    return passed, "timeouts" if late else ""


def _isolate(roots: list[str]) -> None:
    """Leave nothing of the file system but `roots`, read-only."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: bytes | ctypes.Array | int | None) -> None:
        as_long = (ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
        if getattr(libc, name)(*as_long) != 0:
            raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")

    top = "/proc/top"  # /proc is everywhere, and what is in it is to vanish
    bind_recursively, recursively, read_only = 4096 | 16384, 0x8000, (ctypes.c_uint64 * 4)(1)
    call("mount", b"tmpfs", b"/proc", b"tmpfs", 0, b"size=1m,mode=755")
    for root in filter(os.path.exists, roots):
        if os.path.lexists(top + root):  # inside of an earlier one
            continue
        os.makedirs(os.path.dirname(top + root), exist_ok=True)
        if os.path.islink(root):
            os.symlink(os.readlink(root), top + root)
            continue
        if os.path.isdir(root):
            os.mkdir(top + root)
        else:
            os.close(os.open(top + root, os.O_CREAT))
        call("mount", root.encode(), (top + root).encode(), None, bind_recursively, None)
    for folder in (f"{top}/box", f"{top}/in", "/proc/old"):
        os.mkdir(folder)
    with suppress(FileExistsError):  # Python itself may live below /tmp
        os.symlink("/box", f"{top}/tmp")
    os.symlink("/in/stdin", f"{top}/dev/stdin")
    call("pivot_root", b"/proc", b"/proc/old")
    call("umount2", b"/old", 2)
    call("syscall", 442, -100, b"/", recursively, read_only, ctypes.sizeof(read_only))  # mount_setattr
    os.chroot("/top")  # who lives in a chroot can make no user namespace, and so never gets rights again
    os.chdir("/")


def _filter() -> bytes:
    """Return the program, in the kernel's BPF, that answers EPERM to forbidden calls and to those of other architectures."""
    machine = platform.machine()
    if machine not in AUDIT_ARCHITECTURES:
        raise OSError(f"system calls of {machine} are not known; allowed: {', '.join(AUDIT_ARCHITECTURES)}")
    load, equal, at_least, end = 0x20, 0x15, 0x35, 0x06
    numbers = [pair[machine == "aarch64"] for pair in FORBIDDEN.values()]
    count = len(numbers)  # a jump counts from the next line; each of these goes to the last
    lines = [(load, 0, 0, 4), (equal, 0, count + 3, AUDIT_ARCHITECTURES[machine])]
    lines += [(load, 0, 0, 0), (at_least, count + 1, 0, 0x40000000)]  # where x86_64 has its x32 calls
    lines += [(equal, count - i, 0, number) for i, number in enumerate(numbers)]
    lines += [(end, 0, 0, 0x7FFF0000), (end, 0, 0, 0x00050000 | errno.EPERM)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _give_up_rights(user: int | None, memory: int, seconds: int) -> None:
    """Limit this process and what it becomes, and take from it the rights that the sandbox's first process has."""
    libc, drop_from_bounding_set, no_new_privileges, set_seccomp, by_filter = ctypes.CDLL(None), 24, 38, 22, 2
    for limit, value in (
        (resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_FSIZE, 16 * 2**20),
        (resource.RLIMIT_NPROC, 16), (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_CORE, 0),
    ):  # fmt: skip
        resource.setrlimit(limit, (value, value))
    for capability in range(64):
        libc.prctl(drop_from_bounding_set, ctypes.c_ulong(capability), 0, 0, 0)
    libc.prctl(no_new_privileges, ctypes.c_ulong(1), 0, 0, 0)
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    lines = _filter()
    held = ctypes.create_string_buffer(lines)
    program = struct.pack("@HP", len(lines) // 8, ctypes.addressof(held))
    if libc.prctl(set_seccomp, ctypes.c_ulong(by_filter), program, 0, 0) != 0:
        raise OSError("the kernel takes no seccomp filter")


def _empty_folders(code: str) -> None:
    """Put the code into a folder that nothing else is in."""
    libc = ctypes.CDLL(None)
    for folder, mode in ((b"/box", b"777"), (b"/in", b"755")):
        libc.umount2(folder, 2)
        libc.mount(b"tmpfs", folder, b"tmpfs", ctypes.c_ulong(0), b"size=64m,nr_inodes=4096,mode=" + mode)
    with open("/box/solution.py", "w", encoding="utf-8", errors="replace") as file:
        file.write(code)


def _start(
    job: dict, arguments: list[str], user: int | None, end: socket.socket | None, **streams: Any
) -> subprocess.Popen:
    return subprocess.Popen(
        [*job["command"], *arguments, *([] if end is None else [str(end.fileno())])], cwd="/box",
        preexec_fn=lambda: _give_up_rights(user, job["memory"], int(job["seconds"]) + 1),
        pass_fds=[] if end is None else [end.fileno()], **{"stderr": subprocess.DEVNULL} | streams,
    )  # fmt: skip


def _end(process: subprocess.Popen, deadline: float) -> int:
    """Wait for a program until the deadline, end all that it started, and return its exit code."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(max(0.0, deadline - time.monotonic()))
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    code = process.wait()
    with suppress(ChildProcessError):
        while True:
            os.wait()
    return code


def _shown(job: dict, deadline: float) -> tuple[str, int, bool]:
    """Run `program` over the code; return what it printed, at most `show` bytes, its exit code, and whether it was late."""
    _empty_folders(job["code"])
    with tempfile.TemporaryFile() as stdout:
        streams = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": subprocess.STDOUT}
        code = _end(_start(job, ["-c", job["program"]], job["user"], None, **streams), deadline)
        stdout.seek(0)
        return stdout.read(job["show"]).decode(errors="replace"), code, code != 0 and time.monotonic() > deadline


def _passes(given: str, expected: str | None, job: dict, deadline: float) -> bool:
    """Run one program in an empty folder, end all that it started, and tell whether it was right.

    `expected` is what it has to print before it ends; None for asserts, which a second process makes.
    """
    _empty_folders(job["code"])
    ends = socket.socketpair()
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, ends[0], ends[1]:
        stdin.write(given.encode(errors="replace"))
        stdin.seek(0)
        if expected is None:
            border = ["-c", job["border"]]
            _start(job, [*border, "code"], job["user"], ends[0], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            tester = job["user"] and job["user"] + 1
            process = _start(job, [*border, "tests"], tester, ends[1], stdin=stdin, stdout=subprocess.DEVNULL)
            for end in ends:
                end.close()  # so that each side notices the other's end
        else:
            with open("/in/stdin", "wb") as file:  # for programs that open /dev/stdin
                file.write(given.encode(errors="replace"))
            process = _start(job, ["solution.py"], job["user"], None, stdin=stdin, stdout=stdout)
        ended_well = _end(process, deadline) == 0
        if expected is None or not ended_well:
            return ended_well
        stdout.seek(0)
        printed = stdout.read(2 * len(expected.encode(errors="replace")) + 4096).decode(errors="replace")
    lines, wanted = ([line.rstrip() for line in text.strip().splitlines()] for text in (printed, expected))
    return lines == wanted


if __name__ == "__main__":
    supervise()
