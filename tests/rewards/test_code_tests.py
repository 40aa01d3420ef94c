"""code_tests: right and wrong code, how success can be faked, and what code may do to the machine that runs it."""

import functools
import importlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from reasoning_ext.rewards._launch import ENVIRONMENT, check_sandbox
from reasoning_ext.rewards.code_tests import code_tests

MODULE = importlib.import_module("reasoning_ext.rewards.code_tests")
NAMESPACES = ["--mount", "--net", "--ipc", "--pid", "--fork"]
UNSHARE = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), *NAMESPACES, "true"]


def _has_namespaces():
    try:
        return subprocess.run(UNSHARE, capture_output=True).returncode == 0
    except OSError:
        return False


sandboxed = pytest.mark.skipif(not _has_namespaces(), reason="this machine lets nobody unshare namespaces")


def run(code, tests, **options):
    """Return the reward of one block of code, and what was counted."""
    counted = {}
    completion = [{"role": "assistant", "content": f"<think>hm</think>So:\n```python\n{code}\n```\n"}]
    options = {"allow_code_execution": True, "log_metric": counted.__setitem__} | options
    [reward] = code_tests(completions=[completion], tests=[tests], prompts=["?"], **options)
    assert set(counted) == {"code_tests/errors", "code_tests/timeouts", "code_tests/breakdowns"}
    return reward, counted["code_tests/errors"], counted["code_tests/timeouts"]


def prints(code, expected, **options):
    """Tell whether code prints what is expected, in time."""
    return run(code, [{"input": "", "output": expected}], **options) == (1.0, 0.0, 0.0)


@functools.cache
def cases(file):
    """Return the cases of a file of this folder: `== name`, then the code, and what it is to print or to hold behind `--`."""
    text = f"\n{(Path(__file__).parent / file).read_text(encoding='utf-8')}".rstrip("\n")
    return dict(part.split("\n", 1) for part in text.split("\n== ")[1:])


def test_nothing_is_run_that_the_recipe_does_not_allow(monkeypatch):
    monkeypatch.setattr(MODULE, "_run", lambda *a: pytest.fail("it ran"))
    for options in ({}, {"allow_code_execution": False}):
        with pytest.raises(ValueError, match="allow_code_execution: true"):
            code_tests(["```\nx = 1\n```"], ["assert x == 1"], **options)
    for options in ({"seconds": 0}, {"seconds": -1.0}, {"memory_mb": 0}):
        with pytest.raises(ValueError, match="allowed: positive numbers"):
            code_tests([], [], allow_code_execution=True, **options)


@pytest.mark.parametrize("missing", ["unshare", "namespaces"])
def test_without_isolation_it_refuses_and_says_what_to_change(missing, monkeypatch, tmp_path):
    if missing == "namespaces":
        (tmp_path / "unshare").write_text("#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n")
        (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(ENVIRONMENT, "PATH", str(tmp_path))
    check_sandbox.cache_clear()
    with pytest.raises(RuntimeError, match=r"cannot isolate code here \(.*unshare.*\); it needs .*seccomp=unconfined"):
        run("x = 1", "assert x == 1")
    check_sandbox.cache_clear()


BLOCKS = [
    ("```python\nx\n```", "x"), ("```\nx\n```", "x"), ("``` Python \nx\n```", "x"), ("```py\nx\ny\n```\n", "x\ny"),
    ("```python\nx\n```\n```python\ny\n```", "y"), ("```python\nx\n```\n```bash\ny\n```", "x"),
    ("- so:\n  ```python\n  if x:\n    y\n  ```", "if x:\n  y"), ("```python\nx\n```python\ny\n```", "y"),
    ("```python\nx\n```\n```python\ny", "x"), ("x", None), ("", None), ("```python\nx", None), ("`x`", None),
    ("<think>```\nx\n```", None), ("<think>\n```python\nx\n```\n</think>none", None), ("```python\n" * 40_000, None),
]  # fmt: skip


def test_the_last_closed_block_of_python_after_the_thought_counts(monkeypatch):
    ran = []
    monkeypatch.setattr(MODULE, "check_sandbox", lambda user: None)
    monkeypatch.setattr(MODULE, "_run", lambda code, *rest: ran.append(code) or (1, ""))
    for text, block in BLOCKS:
        assert code_tests([text], ["assert x"], allow_code_execution=True) == [float(block is not None)]
        assert ran == ([] if block is None else [block])
        ran.clear()


ADD = "def add(a, b):\n    return a + b"
CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\n\ncheck(add)"
DOUBLE, PRINTED = "print(int(input()) * 2)", [{"input": "", "output": "6"}]
JUDGED = [
    (ADD, "assert add(1, 2) == 3", 1.0), (ADD, "assert add(1, 2) == 4", 0.0), (ADD, CHECK, 1.0),
    ("def add(a, b):\n    return 3", CHECK, 0.0), (ADD, ["assert add(1, 2) == 3", "assert add(2, 2) == 4"], 1.0),
    (ADD, ["assert add(1, 2) == 3", "assert add(2, 2) == 5"], 0.0), ("def add(a, b) return a", "assert add(1, 2) == 3", 0.0),
    ("import math\nfrom collections import Counter\ndef f(x): return Counter(x)", "assert f('aab') == {'a': 2, 'b': 1}", 1.0),
    ("class P:\n    def __init__(s, x): s.x = x\n    def __eq__(s, o): return s.x == o.x", "assert [P(1)] == [P(2)]", 0.0),
    ("def f(): return 1", "assert 0 < f() <= 1 and f() == 1 == f()", 1.0), ("", "assert add(1, 2) == 3", 0.0),
    (f"{ADD}\nif __name__ == '__main__':\n    raise SystemExit(1)", "assert add(1, 2) == 3", 1.0),
    (f"{ADD}\nprint('hello')", "assert add(1, 2) == 3", 1.0), ("pass", PRINTED, 0.0), ("print('6\\n7')", PRINTED, 0.0),
    (DOUBLE, [{"input": "3\n", "output": "6\n"}, {"input": "4", "output": "8"}], 1.0),
    (DOUBLE, [{"input": "3\n", "output": "6\n"}, {"input": "4", "output": "9"}], 0.0),
    ("import sys\nfor line in sys.stdin: print(line.strip() + '  ')", [{"input": "ä\nb\n", "output": "\nä\nb"}], 1.0),
    ("print('a b')", [{"input": "", "output": "ab"}], 0.0), ("print(6); raise ValueError", PRINTED, 0.0),
    ("import os\nprint(6, flush=True)\nif os.fork(): os._exit(0)\nos.pause()", PRINTED, 1.0),
]  # fmt: skip


@sandboxed
@pytest.mark.parametrize(("code", "tests", "reward"), JUDGED)
def test_code_is_judged(code, tests, reward):
    assert run(code, tests) == (reward, 0.0, 0.0)


@sandboxed
@pytest.mark.parametrize(
    ("tests", "share"),
    [(["assert x == 1", "assert x == 2", "assert x == 1", "assert x"], 0.75),
     ([{"input": "", "output": "no"}, {"input": "", "output": "1"}], 0.5)],
)  # fmt: skip
def test_a_share_of_the_tests_is_paid_on_demand(tests, share):
    assert run("x = 1\nprint(x)", tests, partial=True)[0] == share
    assert run("x = 1\nprint(x)", tests)[0] == 0.0


@sandboxed
@pytest.mark.parametrize(
    "tests",
    [None, "", "# nothing", "assert add(", "return 1", "x\0", [], 3, ["assert x", 3], {"input": "", "output": ""},
     [{"input": ""}], [{"input": "", "output": 3}], [{"input": None, "output": ""}], [["assert x"]], ["assert x", ""]],
)  # fmt: skip
def test_tests_that_cannot_be_read_say_nothing_about_the_code(tests):
    assert run("x = 1", tests) == (None, 1.0, 0.0)


@sandboxed
def test_completions_run_side_by_side_and_keep_their_order(monkeypatch):
    texts = [f"```python\nx = {i}\n```" for i in range(4)]
    code_tests(texts, ["assert x"] * 4, allow_code_execution=True)  # tries the sandbox
    meeting, alone = threading.Barrier(2), MODULE._run

    def with_another(*job):
        meeting.wait(60)
        return alone(*job)

    monkeypatch.setattr(MODULE.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(MODULE, "_run", with_another)
    assert code_tests(texts, ["assert x % 2 == 0"] * 4, allow_code_execution=True) == [1.0, 0.0, 1.0, 0.0]


ASSERTS = ["assert f([2, 1]) == [1, 2]", "assert sorted(f([2, 1])) == [1, 2]"]


@sandboxed
@pytest.mark.parametrize("trick", cases("fakes.txt"))
def test_success_cannot_be_faked_in_the_usual_ways(trick):
    assert run(cases("fakes.txt")[trick], ASSERTS, partial=True)[0] == 0.0


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


AGREED = [
    "assert f() in (2.5, 3.5)", "assert f() in {2.5}", "assert 2.5 in f()", "assert abs(f() - 2.5) < 1e-6",
    "import math\nassert math.isclose(f(), 2.5)", "assert 2.4 < f() < 2.6", "assert round(f() - 2.5, 3) == 0",
    "assert (f() - 2.5) ** 2 < 1e-6", "assert {'a': [f()]} == {'a': [2.5]}", "assert not f() != 2.5",
    "import unittest\nunittest.TestCase().assertAlmostEqual(f(), 2.5)", "assert (f() - 2.5).value == 0.0",
]  # fmt: skip


@sandboxed
@pytest.mark.parametrize("value", ["A(0.1)", "B()", "[B()]", "ANY", "MagicMock()", "A", "{2.5: B()}"])
def test_what_agrees_with_everything_earns_nothing(value):
    tests = [test for test in AGREED if (value, test) != ("{2.5: B()}", "assert 2.5 in f()")]  # that holds
    assert run(f"{AGREEABLE}\ndef f(): return {value}", tests, partial=True, seconds=30) == (0.0, 0.0, 0.0)


@sandboxed
def test_what_an_object_says_of_its_class_makes_it_no_number():
    code = "class P:\n    told = 0\n    def __add__(self, other): self.told = other; return self\n"
    code += "    def __int__(self): return self.told\n    __index__ = __int__\n"
    code += "    @property\n    def __class__(self): return int if self.told else P"
    assert run(code, "m = P(); n = m + 5; assert m == 5")[0] == 0.0


@sandboxed
def test_a_module_that_tests_believe_is_the_real_one():
    fake = "class math:\n    isclose = lambda *given: True\ndef f(): return 0"
    assert run(fake, "assert math.isclose(f(), 2.5)")[0] == 0.0
    assert run("import math\ndef f(): return 2.5", "assert math.isclose(f(), 2.5)")[0] == 1.0


@sandboxed
def test_honest_values_pass_where_what_agrees_does_not():
    assert run("def f(): return 2.5", AGREED[0])[0] == run("def f(x): return sorted(x)", ASSERTS)[0] == 1.0
    for value in ("2.5", "type('A', (float,), {})(2.5)", "2.5 + 1e-9"):
        assert run(f"def f(): return {value}", AGREED[3:5])[0] == 1.0


@sandboxed
@pytest.mark.parametrize("kind", cases("crossing.txt"))
def test_values_cross_between_tests_and_code(kind):
    code, test = cases("crossing.txt")[kind].split("\n--\n")
    memory = {"memory_mb": 1024} if kind == "arrays" else {}
    assert run(code, test, **memory) == (1.0, 0.0, 0.0)
    assert run(code, f"{test}\nassert False", **memory)[0] == 0.0


ATTACKS = [
    '["value", true, [null]]', '["value", {"yours": 0}, []]', '["value", {"module": "os"}, []]', "null", "[]", "{", "",
    '["value", {"type": "exit"}, []]', '["raised", [{"type": "SystemExit"}, [0]], []]',
    '["raised", [{"error": ["A", "SystemExit"]}, [0]], []]',
]  # fmt: skip


@sandboxed
@pytest.mark.parametrize("attack", ATTACKS)
def test_code_that_speaks_the_border_s_language_earns_nothing(attack):
    write = f"os.write(int(sys.argv[2]), {attack!r}.encode() + b'\\n' * 2)"
    code = f"import os, sys\ndef f(*x):\n    {write}\n    os._exit(0)"
    assert run(code, "assert f([2, 1]) == [1, 2]")[0] == 0.0


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
    assert run(peek, test) == (1.0, 0.0, 0.0)


ENDLESS = [
    "while True: pass",
    "import time; time.sleep(60)",
    "import sys, time; sys.stdout.close(); time.sleep(60)",
    "import signal; signal.pause()",
    "import signal\nfor s in {*signal.Signals} - {9, 19}: signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
]


@sandboxed
@pytest.mark.parametrize("code", ENDLESS)
def test_what_does_not_end_is_ended_and_counted(code):
    assert run(code, "assert x == 1", seconds=0.5) == (0.0, 0.0, 1.0)
    assert run(f"print(1, flush=True)\n{code}", [{"input": "", "output": "1"}] * 3, seconds=0.5) == (0.0, 0.0, 1.0)


@sandboxed
@pytest.mark.parametrize("wall", cases("walls.txt"))
def test_limits_and_walls_hold(wall):
    code, expected = cases("walls.txt")[wall].split("\n--\n")
    assert prints(code, expected)


@sandboxed
def test_a_limit_is_the_one_that_is_asked_for_and_floods_end():
    assert prints("try: bytearray(100 * 2**20)\nexcept MemoryError: print('no')", "no", memory_mb=64)
    assert run("while True: print('x' * 10_000)", [{"input": "", "output": "x"}]) == (0.0, 0.0, 0.0)
    assert run("print(open('/dev/stdin').read())", [{"input": "a\nb", "output": "a\nb"}])[0] == 1.0


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
    assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if name in _read(p)]


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
    assert run(f"import os{code}", [{"input": "", "output": "['file']"}] * 2) == (1.0, 0.0, 0.0)
    assert not set(os.listdir(tempfile.gettempdir())) - before


@sandboxed
def test_code_that_breaks_the_process_that_watches_it_stops_nothing():
    code = "import resource\nprint(1, flush=True)\nfor limit in range(16):\n    resource.prlimit(1, limit, (1, 1))"
    run(code, [{"input": "", "output": "1"}] * 2, seconds=1)  # what it earns depends on who runs it
    assert run(ADD, "assert add(1, 2) == 3") == (1.0, 0.0, 0.0)


def test_a_sandbox_without_result_is_counted(monkeypatch):
    monkeypatch.setattr(MODULE, "check_sandbox", lambda user: None)
    done = subprocess.CompletedProcess([], 137, stdout="ready\n", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: done)
    counted = {}
    code_tests(["```\nx\n```"] * 2, ["assert x"] * 2, allow_code_execution=True, log_metric=counted.__setitem__)
    assert counted == {"code_tests/errors": 0.0, "code_tests/timeouts": 0.0, "code_tests/breakdowns": 2.0}
