"""The wording of every message in one file, `tests/messages.txt`; `pytest --update` writes it anew.

A test asserts codes, keys, lines and numbers itself and hands the text on: `wording(problem)` or `wording(result.err)`.
"""

import re
import sysconfig
from pathlib import Path

import pytest
from filelock import FileLock

FILE = Path(__file__).with_name("messages.txt")
HEAD = "# What is printed, by the test that sees it. `pytest --update` writes this file; read what it changes.\n"
FAILED = pytest.StashKey[bool]()
PLACES = {sysconfig.get_path("stdlib"): "PYTHON", str(FILE.parents[1]): "PROJECT"}


def read() -> dict[str, str]:
    """Return the recorded text of each test, by its name in pytest."""
    if not FILE.exists():
        return {}
    parts = re.split(r"^== (.+)\n", FILE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], (text.rstrip("\n") for text in parts[1::2]), strict=True))


def write(texts: dict[str, str]) -> None:
    """Write all texts, ordered by the tests' names."""
    FILE.write_text(HEAD + "".join(f"\n== {name}\n{texts[name]}\n" for name in sorted(texts)), encoding="utf-8")


class Wording:
    """Compares what a test was told with what the file has for it, or records it.

    Args:
        name: the test's name in pytest.
        folder: the test's own folder, which is written as `TMP`.
        update: whether to record.
    """

    def __init__(self, name: str, folder: Path, update: bool):
        self.name, self.folder, self.update, self.texts = name, str(folder), update, []

    def __call__(self, said: object) -> None:
        """Take a text, or a list of problems, whose wording the file holds; called more than once, in this order."""
        lines = said if isinstance(said, list | tuple) else [said]
        text = "\n".join(str(line).rstrip() for line in lines).replace(self.folder, "TMP")
        for place, name in PLACES.items():
            text = text.replace(place, name)
        self.texts.append("\n".join(line.rstrip() for line in text.splitlines()))

    def close(self) -> None:
        """Compare, or record, what was taken."""
        text = "\n".join(self.texts)
        if self.update:
            with FileLock(f"{FILE}.lock"):
                write(read() | {self.name: text})
        else:
            assert text == read().get(self.name, ""), (
                "the wording has changed: pytest --update, and read the difference"
            )


@pytest.fixture
def wording(request, tmp_path):
    """Hold the wording of messages against `tests/messages.txt`."""
    held = Wording(request.node.nodeid, tmp_path, request.config.getoption("--update"))
    yield held
    if not request.node.stash.get(FAILED, False):
        held.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Remember whether the test itself failed, so that nothing is recorded of it."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


def pytest_addoption(parser):
    """Add `--update`."""
    parser.addoption("--update", action="store_true", help="write the texts of messages anew into tests/messages.txt")
