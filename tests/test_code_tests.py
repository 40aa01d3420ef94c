"""code_tests: right and wrong code, how success can be faked, and what code may do to the machine that runs it."""

import importlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from reasoning_ext.rewards.code_tests import code_tests

from tests.timing import seconds, slowness

MODULE = importlib.import_module("reasoning_ext.rewards.code_tests")


def _has_sandbox():
    wall = ["--unshare-pid", "--unshare-net", *([] if os.geteuid() == 0 else ["--unshare-user"])]
    command = ["bwrap", *wall, "--ro-bind", "/", "/", "true"]
    return shutil.which("bwrap") is not None and subprocess.run(command, capture_output=True).returncode == 0


sandboxed = pytest.mark.skipif(not _has_sandbox(), reason="bubblewrap is not there, or lets nobody make namespaces")


def run_all(rows, **options):
    """Return the rewards of N (code, tests), and what was counted."""
    counted = {}
    texts = [f"<think>hm</think>So:\n```python\n{code}\n```\n" for code, _ in rows]
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    options = {"allow_code_execution": True, "log_metric": counted.__setitem__} | options
    rewards = code_tests(
        completions=completions, tests=[tests for _, tests in rows], prompts=["?"] * len(rows), **options
    )
    return rewards, counted


def run(code, tests, **options):
    return run_all([(code, tests)], **options)[0][0]


def prints(code, expected, **options):
    """Tell whether code prints what is expected."""
    return run(code, [{"input": "", "output": expected}], **options) == 1.0


def test_nothing_is_run_that_the_recipe_does_not_allow(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("it ran"))
    for options in ({}, {"allow_code_execution": False}):
        with pytest.raises(ValueError, match="allow_code_execution: true"):
            code_tests(["```\nx = 1\n```"], ["assert x == 1"], **options)
    for options in ({"seconds": 0}, {"seconds": -1.0}, {"memory_mb": 0}):
        with pytest.raises(ValueError, match="positive"):
            code_tests([], [], allow_code_execution=True, **options)


@pytest.mark.parametrize(("there", "named"), [(False, "apt install bubblewrap"), (True, "no new namespace.*SYS_ADMIN")])
def test_without_isolation_it_refuses_and_says_what_to_change(there, named, monkeypatch, tmp_path):
    if there:
        (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: no new namespace' >&2\nexit 1\n")
        (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    MODULE._check_sandbox.cache_clear()
    with pytest.raises(RuntimeError, match=named):
        run("x = 1", "assert x == 1")
    MODULE._check_sandbox.cache_clear()


@pytest.mark.parametrize(
    ("answer", "block"),
    [
        ("```python\nx\n```", "x"), ("```\nx\n```", "x"), ("``` Python \nx\n```", "x"), ("```py\nx\ny\n```\n", "x\ny"),
        ("```python\nx\n```\n```python\ny\n```", "y"), ("```python\nx\n```\n```bash\ny\n```", "x"),
        ("- so:\n  ```python\n  if x:\n    y\n  ```", "if x:\n  y"), ("```python\nx\n```python\ny\n```", "y"),
        ("```python\nx\n```\n```python\ny", "x"), ("x", None), ("", None), ("```python\nx", None), ("`x`", None),
    ],
)  # fmt: skip
def test_the_last_closed_block_of_python_counts(answer, block):
    assert MODULE._last_block(answer) == block


def test_a_flood_of_fences_costs_linear_time():
    text = "```python\n" * 40_000
    assert MODULE._last_block(text) is None
    assert seconds(lambda: MODULE._last_block(text)) < slowness()


ADD = "def add(a, b):\n    return a + b"
CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\n\ncheck(add)"
JUDGED = [
    (ADD, "assert add(1, 2) == 3", 1.0),
    (ADD, "assert add(1, 2) == 4", 0.0),
    (ADD, CHECK, 1.0),
    ("def add(a, b):\n    return 3", CHECK, 0.0),
    (ADD, ["assert add(1, 2) == 3", "assert add(2, 2) == 4"], 1.0),
    (ADD, ["assert add(1, 2) == 3", "assert add(2, 2) == 5"], 0.0),
    (
        "import math\nfrom collections import Counter\ndef f(x): return Counter(x)",
        "assert f('aab') == {'a': 2, 'b': 1}",
        1.0,
    ),
    ("class P:\n    def __init__(s, x): s.x = x\n    def __eq__(s, o): return s.x == o.x", "assert P(1) == P(1)", 1.0),
    (
        "class P:\n    def __init__(s, x): s.x = x\n    def __eq__(s, o): return s.x == o.x",
        "assert [P(1)] == [P(2)]",
        0.0,
    ),
    ("def f(): return 1", "assert 0 < f() <= 1 and f() == 1 == f()", 1.0),
    (f"{ADD}\nif __name__ == '__main__':\n    raise SystemExit(1)", "assert add(1, 2) == 3", 1.0),
    (f"{ADD}\nprint('hello')", "assert add(1, 2) == 3", 1.0),
    ("def add(a, b) return a", "assert add(1, 2) == 3", 0.0),
    ("", "assert add(1, 2) == 3", 0.0),
    ("print(int(input()) * 2)", [{"input": "3\n", "output": "6\n"}, {"input": "4", "output": "8"}], 1.0),
    ("print(int(input()) * 2)", [{"input": "3\n", "output": "6\n"}, {"input": "4", "output": "9"}], 0.0),
    ("import sys\nfor line in sys.stdin: print(line.strip() + '  ')", [{"input": "ä\nb\n", "output": "\nä\nb"}], 1.0),
    ("print('a b')", [{"input": "", "output": "ab"}], 0.0),
    ("print('6\\n7')", [{"input": "", "output": "6"}], 0.0),
    ("pass", [{"input": "", "output": "6"}], 0.0),
    ("print(6); raise ValueError", [{"input": "", "output": "6"}], 0.0),
    ("import os\nprint(6, flush=True)\nif os.fork(): os._exit(0)\nos.pause()", [{"input": "", "output": "6"}], 1.0),
]


@sandboxed
def test_code_is_judged():
    rewards, counted = run_all([row[:2] for row in JUDGED])
    wrong = [(row, reward) for row, reward in zip(JUDGED, rewards, strict=True) if reward != row[2]]
    assert wrong == [] and not any(counted.values())


@sandboxed
def test_a_share_of_the_tests_is_paid_on_demand():
    for tests, share in (
        (["assert x == 1", "assert x == 2", "assert x == 1", "assert x"], 0.75),
        ([{"input": "", "output": "no"}, {"input": "", "output": "1"}], 0.5),
    ):
        assert run("x = 1\nprint(x)", tests, partial=True) == share
        assert run("x = 1\nprint(x)", tests) == 0.0


@sandboxed
def test_tests_that_cannot_be_read_say_nothing_about_the_code():
    unreadable = [
        None, "", "# nothing", "assert add(", "return 1", "x\0", [], 3, ["assert x", 3], {"input": "", "output": ""},
        [{"input": ""}], [{"input": "", "output": 3}], [{"input": None, "output": ""}], [["assert x"]], ["assert x", ""],
    ]  # fmt: skip
    rewards, counted = run_all([("x = 1", tests) for tests in unreadable])
    assert rewards == [None] * len(unreadable) and counted["code_tests/errors"] == len(unreadable)
    texts = ["x = 1", "<think>\n```python\nx = 1\n```\n</think>none", "<think>```\nx = 1\n```", ""]  # no code
    assert code_tests(texts, ["assert x == 1"] * 4, allow_code_execution=True) == [0.0] * 4


@sandboxed
def test_completions_run_side_by_side_and_keep_their_order(monkeypatch):
    monkeypatch.setattr(MODULE.os, "cpu_count", lambda: 2)
    meeting = threading.Barrier(2)
    monkeypatch.setattr(
        MODULE, "_last_block", lambda answer, read=MODULE._last_block: (meeting.wait(60), read(answer))[1]
    )
    assert run_all([(f"x = {i}", "assert x % 2 == 0") for i in range(4)])[0] == [1.0, 0.0, 1.0, 0.0]


ANYTHING = "class A:\n    def __eq__(self, o): return True\n    def __hash__(self): return 0\n"
FAKES = {
    "exit": "import sys; sys.exit(0)",
    "exit at once": "import os; os._exit(0)",
    "exit in the function": "import os\ndef f(x): os._exit(0)",
    "quiet exception": "def f(x): raise SystemExit(0)",
    "at exit": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(x): return 0",
    "printing": "def f(x): print('ready\\n[1, false]', flush=True); return 0",
    "writing to every file": "import os\nfor fd in range(64):\n    try: os.write(fd, b'[1, false]\\n')\n    except OSError: pass",
    "no assertions": "AssertionError = None\nimport builtins; builtins.AssertionError = Exception\ndef f(x): return 0",
    "built-ins": "import builtins\nbuiltins.sorted = lambda x: [1, 2]\ndef f(x): return 0",
    "__builtins__": "__builtins__ = {}\ndef f(x): return 0",
    "equal to all": f"{ANYTHING}def f(x): return A()",
    "equal to all, inside": f"{ANYTHING}def f(x): return [A(), A()]",
    "equal to all, a list": "class A(list):\n    def __eq__(self, o): return True\ndef f(x): return A()",
    "equal to all, made by type": "def f(x): return type('A', (), {'__eq__': lambda s, o: True})()",
    "equal to all, by mock": "from unittest.mock import ANY\ndef f(x): return ANY",
    "equal to all, by a built-in": "class A: __eq__ = bool\ndef f(x): return A()",
    "equal to all, an int": "class A(int):\n    def __eq__(self, o): return True\ndef f(x): return A(3)",
    "equal to all, by magic": "from unittest.mock import MagicMock\nf = MagicMock()",
    "its own tests": "open('tests.py', 'w').write('')\ndef f(x): return 0",
    "the tests' file": "import sys; print(open(sys.argv[0]).read())\ndef f(x): return [1, 2]",
    "signals": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos.kill(-1, signal.SIGKILL)",
}


@sandboxed
def test_success_cannot_be_faked_in_the_usual_ways():
    test = "assert f([2, 1]) == [1, 2] or sorted(f([2, 1])) == [1, 2]"
    rewards, _ = run_all([(code, test) for code in (*FAKES.values(), "def f(x): return sorted(x)")])
    assert dict(zip([*FAKES, "right"], rewards, strict=True)) == dict.fromkeys(FAKES, 0.0) | {"right": 1.0}


AGREEABLE = """
from unittest.mock import ANY, MagicMock
class A(float):
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = lambda self, other: True
    __sub__ = __rsub__ = __abs__ = __round__ = lambda self, *other: self
class B:
    value = 0.0
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = lambda self, other: True
    __sub__ = __rsub__ = lambda self, other: B()
    __abs__ = __float__ = __round__ = lambda self, *digits: 0.0
    __pow__ = __mul__ = lambda self, other: 0.0
    equal = lambda self: True
    __hash__ = lambda self: hash(2.5)
"""


COMPARED = [
    "assert f() in (2.5, 3.5)", "assert f() in {2.5}", "assert 2.5 in f()", "assert abs(f() - 2.5) < 1e-6",
    "assert math.isclose(f(), 2.5)", "assert 2.4 < f() < 2.6", "assert round(f() - 2.5, 3) == 0",
    "assert (f() - 2.5) ** 2 < 1e-6", "assert {'a': [f()]} == {'a': [2.5]}", "assert not f() != 2.5",
    "unittest.TestCase().assertAlmostEqual(f(), 2.5)", "assert (f() - 2.5).value == 0.0",
]  # fmt: skip


@sandboxed
def test_what_agrees_with_everything_earns_nothing():
    """Each program fails as soon as one of the comparisons holds; honest numbers pass those that a number can."""
    values = ["A(0.1)", "B()", "[B()]", "ANY", "MagicMock()", "A"]
    none_holds = "import math, unittest\ndone = 0\n" + "".join(
        f"try: {test}\nexcept Exception: done += 1\n" for test in COMPARED
    )
    rows = [
        (f"{AGREEABLE}\ndef f(): return {value}", f"{none_holds}assert done == {len(COMPARED)}") for value in values
    ]
    assert dict(zip(values, run_all(rows)[0], strict=True)) == dict.fromkeys(values, 1.0)
    honest = ["2.5", "type('A', (float,), {})(2.5)", "2.5 + 1e-9"]
    tests = "import math\n" + "\n".join(test for test in COMPARED if "abs(" in test or "isclose" in test)
    rows = [(f"def f(): return {value}", tests) for value in honest]
    assert run_all([*rows, ("def f(): return 2.5", "\n".join(COMPARED[:2]))])[0] == [1.0] * 4
    fake = "class math:\n    isclose = lambda *given: True\ndef f(): return 0"
    assert run(fake, "assert math.isclose(f(), 2.5)") == 0.0


# What crosses: the code, then the tests; lines are parted by `;;` where a statement needs its own.
CROSSING = {
    "changed arguments": ("def f(x): x.sort(); x.append({1: 2})", "x = [2, 1]; f(x); assert x == [1, 2, {1: 2}]"),
    "arguments by name that change": ("def f(x, y=None): x.append(y)", "x = []; f(x=x, y=1); assert x == [1]"),
    "callbacks": ("def f(g, xs): return [g(x) for x in xs]", "assert f(lambda x: x + 1, (1, 2)) == [2, 3]"),
    "built-ins as arguments": ("def f(g, xs): return sorted(xs, key=g)", "assert f(len, ['aa', 'b']) == ['b', 'aa']"),
    "objects": (
        "class S:;;    def __init__(s): s.x = [];;    def push(s, v): s.x.append(v);;    def __len__(s): return len(s.x)",
        "s = S(); s.push(3); assert len(s) == 1 and s.x == [3] and isinstance(s, S)",
    ),
    "operators between objects": (
        "class V:;;    def __init__(s, x): s.x = x;;    def __add__(s, o): return V(s.x + o.x)"
        ";;    def __mul__(s, k): return V(s.x * k);;    def __eq__(s, o): return s.x == o.x",
        "assert V(1) + V(2) == V(3) and V(2) * 2 == V(4) and (V(1) + V(2)).x == 3",
    ),
    "exceptions": (
        "class Bad(ValueError): pass;;def f(x): raise Bad('no', x) if x else ZeroDivisionError",
        "try: f(1);;except Bad as e: assert e.args == ('no', 1);;else: assert False"
        ";;try: f(0);;except ZeroDivisionError: pass",
    ),
    "generators": ("def f(n): yield from range(n)", "assert list(f(3)) == [0, 1, 2] and 2 in f(3)"),
    "globals that change": ("x = []; n = 0;;def f(): global n; x.append(1); n += 1", "f(); assert x == [1] and n == 1"),
    "a function called like a built-in": ("def sum(a, b): return a + b", "assert sum(10, 15) == 25"),
    "the tests' own classes": (
        "def f(node): node.left, node.right = node.right, node.left; return node",
        "class N:;;    def __init__(s, l, r): s.left, s.right = l, r"
        ";;n = N(1, None); assert f(n) is n and n.right == 1 and n.left is None",
    ),
    "sets, tuples, bytes, big and odd numbers": (
        "def f(*x): return x",
        "import math; x = ({1, 2}, (3,), b'\\xff', 10**5000, float('inf'), 1j, frozenset('a'), '\\ud800')"
        ";;assert f(*x) == x and math.isnan(f(math.nan)[0])",
    ),
    "fractions, decimals, dates": (
        "from fractions import Fraction; import datetime;;def f(x): return Fraction(x), datetime.date(2024, 1, x)",
        "from fractions import Fraction; import datetime; assert f(2) == (Fraction(2), datetime.date(2024, 1, 2))",
    ),
    "arrays": (
        "import numpy as np;;def f(x): return np.array(x) * 2.0, np.float64(1.5)",
        "import numpy as np; a, b = f([1, 2])"
        ";;assert np.allclose(a, [2, 4]) and a.shape == (2,) and (a == np.array([2, 4])).all() and b == 1.5",
    ),
    "modules that only the code imports": ("import math; f = math.sqrt", "assert math.isclose(f(2) ** 2, 2)"),
    "coroutines": (
        "import asyncio;;async def f(x): await asyncio.sleep(0); return x * 2",
        "import asyncio;;async def both(): return await asyncio.gather(f(1), f(2))"
        ";;assert asyncio.run(f(3)) == 6 and asyncio.run(both()) == [2, 4]",
    ),
    "slices": (
        "class L:;;    def __getitem__(s, k): return list(range(9))[k]",
        "assert L()[1:3] == [1, 2] and L()[4] == 4",
    ),
    "importing the code whole": ("def f(x): return x", "import solution as s; assert s.f(1) == 1"),
    "importing the code": ("def f(x): return x", "from solution import f as g; assert g(1) == 1"),
    "defaultdict": (
        "from collections import defaultdict;;def f(): d = defaultdict(int); d[1] += 2; return d",
        "assert f() == {1: 2}",
    ),
    "a list of its own": (
        "class L(list):;;    def second(s): return s[1];;f = L",
        "assert f([1, 2]) == [1, 2] and f([1, 2]).second() == 2",
    ),
    "a context": (
        "from contextlib import contextmanager;;@contextmanager;;def f(): yield 3",
        "with f() as x: assert x == 3",
    ),
}


@sandboxed
def test_values_cross_between_tests_and_code():
    rows = [(code.replace(";;", "\n"), test.replace(";;", "\n")) for code, test in CROSSING.values()]
    assert dict(zip(CROSSING, run_all(rows, memory_mb=1024)[0], strict=True)) == dict.fromkeys(CROSSING, 1.0)
    code, test = rows[0]
    assert run(code, f"{test}\nassert False") == 0.0


@sandboxed
def test_code_that_speaks_the_border_s_language_earns_nothing():
    attacks = [
        '["value", true, [null]]', '["value", {"yours": 0}, []]', '["value", {"module": "os"}, []]', "null", "[]", "{", "",
        '["value", {"type": "exit"}, []]', '["raised", [{"type": "SystemExit"}, [0]], []]',
        '["raised", [{"error": ["A", "SystemExit"]}, [0]], []]',
    ]  # fmt: skip
    code = "import os, sys\ndef f(*x):\n    os.write(int(sys.argv[2]), {!r}.encode() + b'\\n' * 2)\n    os._exit(0)"
    rewards, _ = run_all([(code.format(attack), "assert f([2, 1]) == [1, 2]") for attack in attacks])
    assert rewards == [0.0] * len(attacks)


@sandboxed
def test_tests_show_the_code_no_more_than_they_hand_over():
    peek = """
def f(g, n):
    for look in (lambda: g.__globals__, lambda: g._x, lambda: g.func_globals, lambda: n._hidden):
        try: look()
        except AttributeError: pass
        else: return 'seen'
    return n.shown"""
    test = "class N: _hidden, shown = 1, 2\nassert f(lambda: 0, N()) == 2"
    assert run(peek, test) == 1.0


ENDLESS = [
    "while True: pass",
    "import time; time.sleep(60)",
    "import sys, time; sys.stdout.close(); time.sleep(60)",
    "import signal; signal.pause()",
    "import signal\nfor s in {*signal.Signals} - {9, 19}: signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
]


@sandboxed
def test_what_does_not_end_is_ended_and_counted():
    rows = [(code, "assert x == 1") for code in ENDLESS]
    rows += [(f"print(1, flush=True)\n{code}", [{"input": "", "output": "1"}] * 3) for code in ENDLESS]
    rewards, counted = run_all(rows, seconds=0.5)
    assert rewards == [0.0] * len(rows) and counted["code_tests/timeouts"] == len(rows)


@sandboxed
def test_memory_files_output_and_processes_are_limited():
    assert prints("try: bytearray(2**30)\nexcept MemoryError: print('no')", "no")
    assert prints("x = bytearray(300 * 2**20); print('yes')", "yes")
    assert prints("try: bytearray(100 * 2**20)\nexcept MemoryError: print('no')", "no", memory_mb=64)
    file = "f = open('big', 'wb')\ntry:\n    for _ in range(64): f.write(bytes(2**20))\n    f.flush()\n"
    assert prints(f"{file}except OSError: print('no')", "no")
    files = """
import os
try:
    for written in range(16):
        with open(str(written), 'wb') as f: f.write(bytes(8 * 2**20))
except OSError:
    os.remove('0')
    print(4 < written <= 8)"""
    assert prints(files, "True")
    assert run("while True: print('x' * 10_000)", [{"input": "", "output": "x"}]) == 0.0
    forks = """
import os, time
made = 0
for _ in range(200):
    try: pid = os.fork()
    except OSError: break
    if pid == 0:
        time.sleep(30)
        os._exit(0)
    made += 1
print(0 < made < 16)"""
    assert prints(forks, "True")


@sandboxed
def test_no_memory_goes_uncounted_and_no_keyring_is_read():
    code = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
x86 = os.uname().machine == 'x86_64'
def call(*numbers):
    return libc.syscall(numbers[0 if x86 else 1], *(ctypes.c_long(n) for n in numbers[2:]))
read_keyring, session = 11, -3
print(call(29, 194, 0, 64 << 20, 0o1600), call(68, 186, 0, 0o1600), call(250, 219, read_keyring, session, 0, 0))
try: os.memfd_create('m')
except PermissionError: print('no memfd')
print(libc.syscall(0x40000000 + 39) if x86 else -1, libc.syscall(425, 8, 0))
"""
    assert prints(code, "-1 -1 -1\nno memfd\n-1 -1")
    assert run(f"import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n"
               f"    exec({code!r})", "assert out.getvalue() == '-1 -1 -1\\nno memfd\\n-1 -1\\n'") == 1.0  # fmt: skip


@sandboxed
def test_what_it_started_ends_with_it():
    name = f"survivor-{os.getpid()}"
    code = f"""
import os, subprocess, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', '{name}'], start_new_session=True)
        open('/box/up', 'w').close()
    os._exit(0)
while not os.path.exists('/box/up'): pass
print('up')"""
    assert prints(code, "up")
    end = time.monotonic() + 10
    while [p for p in Path("/proc").glob("[0-9]*/cmdline") if name in _read(p)]:
        assert time.monotonic() < end, "it lives on"
        time.sleep(0.05)


def _read(path):
    try:
        return path.read_text()
    except OSError:
        return ""


@sandboxed
def test_there_is_no_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        threading.Thread(target=lambda: server.accept(), daemon=True).start()
        code = (
            f"import socket\ntry: socket.create_connection(('127.0.0.1', {port}), 2)\nexcept OSError: print('closed')"
        )
        assert prints(code, "closed")
        socket.create_connection(("127.0.0.1", port), 2).close()


@sandboxed
def test_secrets_are_out_of_sight(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    secret = tmp_path / "token"
    secret.write_text("hf_secret")
    secret.chmod(0o644)
    assert prints("import os; print([k for k, v in os.environ.items() if 'secret' in v or k == 'PYTHONPATH'])", "[]")
    assert prints(
        f"import os; print(os.path.exists({str(secret)!r}), os.path.exists({str(Path.cwd() / 'pyproject.toml')!r}))",
        "False False",
    )
    assert prints(
        f"import os; print(os.path.exists('/proc/{os.getpid()}'), os.path.exists('/etc/passwd'))", "False False"
    )
    assert prints("import os; print(sorted(os.listdir('.')), os.environ['HOME'])", "['solution.py'] /box")


@sandboxed
def test_nothing_outside_of_its_folder_can_be_written_and_nothing_stays_in_it(monkeypatch, tmp_path):
    tmp_path.chmod(0o777)  # like a Python that belongs to the user, below /tmp
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    folders = ["/", "/usr", "/dev", "/box/..", sys.prefix, str(tmp_path), str(Path(sys.executable).resolve().parent)]
    code = f"""
for folder in {folders!r}:
    try: open(folder + '/code_tests_was_here', 'w'); print(folder)
    except OSError: pass
open('code_tests_was_here', 'x')
print(os.listdir({str(tmp_path)!r}))"""
    (tmp_path / "file").touch()
    before = set(os.listdir(tempfile.gettempdir()))
    assert run(f"import os{code}", [{"input": "", "output": "['file']"}] * 2) == 1.0
    assert not set(os.listdir(tempfile.gettempdir())) - before


@sandboxed
def test_it_has_no_rights_and_gets_none():
    code = """
import ctypes, os, resource
libc = ctypes.CDLL(None)
new_user_namespace, new_mount_namespace, clear_read_only = 0x10000000, 0x20000, (ctypes.c_uint64 * 4)(0, 1)
print(libc.unshare(new_user_namespace), libc.unshare(new_mount_namespace), libc.umount2(b'/box', 2), libc.chroot(b'/box'))
print(libc.syscall(442, -100, b'/usr', 0x8000, clear_read_only, 32), libc.ptrace(16, 1, 0, 0))
clone, child_ended = (56 if os.uname().machine == 'x86_64' else 220), 17
print(libc.syscall(clone, new_user_namespace | child_ended, 0, 0, 0, 0), libc.syscall(435, 0, 0))
print(libc.prctl(39, 0, 0, 0, 0), 'new privileges are out')
"""
    assert prints(code, "-1 -1 -1 -1\n-1 -1\n-1 -1\n1 new privileges are out")


@sandboxed
def test_standard_input_and_packages_beside_python_are_there(monkeypatch, tmp_path):
    assert run("print(open('/dev/stdin').read())", [{"input": "a\nb", "output": "a\nb"}]) == 1.0
    assert run("import os\nassert not os.path.exists('/dev/stdin')\nx = 1", "assert x == 1") == 1.0
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "some.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    code = f"import os\nx = os.listdir({str(tmp_path / 'site-packages')!r})\ny = os.listdir({str(tmp_path)!r})"
    assert run(code, "assert x == ['some.py'] and y == ['site-packages']") == 1.0


@sandboxed
def test_code_cannot_break_what_watches_it_and_a_sandbox_that_somebody_kills_is_counted(monkeypatch):
    code = "import os, resource\nprint(1, flush=True)\nfor limit in range(16):\n    resource.prlimit(1, limit, (1, 1))"
    run(code, [{"input": "", "output": "1"}] * 2, seconds=1)  # what it earns depends on who runs it
    assert run(ADD, "assert add(1, 2) == 3") == 1.0
    monkeypatch.setattr(
        MODULE, "finish", lambda running, deadline, finish=MODULE.finish: running.process.kill() or finish(running, 1e9)
    )
    _, counted = run_all([("x", "assert x")] * 2)
    assert counted == {"code_tests/errors": 0.0, "code_tests/timeouts": 0.0, "code_tests/breakdowns": 2.0}
