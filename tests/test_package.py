"""What is shipped: a wheel with recipes and examples that works from an empty folder, an sdist that runs its own tests."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT

SHIPPED = ("reasoning_ext", "rewards", "recipes", "examples")  # folders of the repository that are in a wheel
SCRIPT = """
from reasoning_ext.rewards.math_answer import math_answer

paid: list[float | None] = math_answer(["2"], ["2"])
text: str = math_answer(["2"], ["2"])
"""
of_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what is shipped is held against what git lists")


def run(*command, cwd):
    """Run a command as a user would, without this project on the path, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def sources():
    """Return the files that git holds, as far as they are there."""
    return {name for name in run("git", "ls-files", cwd=ROOT).splitlines() if (ROOT / name).is_file()}


def environment(folder):
    """Make an environment that borrows the packages of this one, without this project; return its Python."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    [site] = folder.glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))  # their own .pth files are not read
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The working tree, and its sdist and wheel, unpacked."""
    folder = tmp_path_factory.mktemp("built")
    for name in sources():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "tree" / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, folder / "tree", cwd=folder)
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    shutil.unpack_archive(wheel, folder / "site", "zip")
    shutil.unpack_archive(sdist, folder)
    return SimpleNamespace(
        folder=folder, wheel=wheel, site=folder / "site", sdist=folder / sdist.name[: -len(".tar.gz")]
    )


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_every_folder_with_code_is_packaged():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    rooms = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("reasoning_ext/**/__init__.py")}
    moved = {f"reasoning_ext.{name}": name for name in SHIPPED[1:]}
    assert setuptools["package-dir"] == moved
    assert sorted(setuptools["packages"]) == sorted({room.replace("/", ".") for room in rooms} | {*moved})


def test_what_the_page_for_contributors_names_is_there():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = {*re.findall(r"`(\w[\w.-]*/[\w./-]+\w|[\w.-]+\.(?:toml|txt|md))`", page)}
    assert paths and [path for path in sorted(paths) if "NAME" not in path and not (ROOT / path).exists()] == []
    named = re.findall(r"`(\w+)` in `([\w./]+\.py)`", page)
    assert named and all(re.search(rf"\b{name}\b", (ROOT / file).read_text(encoding="utf-8")) for name, file in named)


@of_git
@pytest.mark.slow
def test_a_wheel_holds_package_recipes_and_examples_and_an_sdist_everything(built):
    """`rewards/` is `reasoning_ext.rewards` in a wheel, and nothing is put beside `reasoning_ext`."""
    tree = sources()
    shipped = {name for name in tree if name.startswith(tuple(f"{top}/" for top in SHIPPED))}
    expected = {name if name.startswith("reasoning_ext/") else f"reasoning_ext/{name}" for name in shipped}
    assert {name for name in files(built.site) if ".dist-info/" not in name} == expected
    assert {"reasoning_ext/py.typed", "reasoning_ext/recipes/tiny/model/tokenizer.json"} <= expected
    made = {name for name in files(built.sdist) if name.startswith("reasoning_ext.egg-info/")}
    assert files(built.sdist) - made == tree | {"PKG-INFO", "setup.cfg"}


@of_git
@pytest.mark.slow
def test_a_wheel_works_from_an_empty_folder(built, tmp_path):
    python, here = environment(tmp_path / "venv"), tmp_path / "here"
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", built.wheel, cwd=tmp_path)
    here.mkdir()
    listed = [line.split() for line in run(python, "-m", "reasoning_ext", "list", "recipes", cwd=here).splitlines()]
    assert {words[0] for words in listed} == {
        name for name in sources() if name.startswith("recipes/") and ".y" in name
    }
    places = {words[0]: Path(words[-1].strip("[]")) for words in listed}
    assert all(place.is_file() and place.is_relative_to(tmp_path / "venv") for place in places.values())
    shutil.copytree(places["recipes/tiny/2_grpo.yaml"].parent, here / "mine")
    assert run(python, "-m", "reasoning_ext", "check", "--offline", "mine/2_grpo.yaml", cwd=here).split()[-1] == "ok"
    (here / "script.py").write_text(SCRIPT)
    said = subprocess.run([python, "-m", "mypy", "script.py"], cwd=here, capture_output=True, text=True).stdout
    assert said.count("error:") == 1 and "script.py:5: error: Incompatible types in assignment" in said


@of_git
@pytest.mark.slow
def test_an_sdist_runs_its_own_tests(built, tmp_path):
    python = environment(tmp_path / "venv")
    editable = ("--no-deps", "--no-index", "--no-build-isolation", "--quiet", "-e")
    run(python, "-m", "pip", "install", *editable, built.sdist, cwd=tmp_path)
    tests = ("tests/test_package.py", "tests/check/test_problems.py", "tests/verifier/test_judging_page.py")
    said = run(python, "-m", "pytest", "-q", *tests, cwd=built.sdist)
    assert " passed" in said and " failed" not in said
