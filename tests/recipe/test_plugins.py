"""Which functions a recipe may name, how a file may be written that it names, and what code `check` says is run."""

import json
import subprocess
import sys

import pytest
from conftest import TINY

from reasoning_ext.check.network import OFFLINE, SILENT
from reasoning_ext.check.show import check_and_print
from reasoning_ext.cli import main
from reasoning_ext.data.format import find_format
from reasoning_ext.data.sources import find_generator
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.recipe.user_code import NO_CODE
from reasoning_ext.runs import files
from reasoning_ext.scoring.call import build_rewards, call_reward
from reasoning_ext.scoring.spec import EntryError, parse_rewards

KINDS = """# -*- coding: latin-1 -*-
from __future__ import annotations
import functools, math, sys
from beside import from_beside, again as renamed
from beside import *

def marked(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper

class Pays:
    def __init__(self, value): self.value = value
    def __call__(self, completions, factor: float = 1.0, **kwargs): return [self.value * factor for _ in completions]

class PaysLater:
    async def __call__(self, completions, **kwargs): return [5.0 for _ in completions]

def base(completions, scale: float = 1.0, **kwargs): return [scale for _ in completions]
part = functools.partial(base, scale=2.0)
short = lambda completions, **kwargs: [3.0 for _ in completions]
instance, later_instance = Pays(4.0), PaysLater()
if sys.version_info > (3,):
    def inside_if(completions, **kwargs): return [6.0 for _ in completions]
@marked
def decorated(completions, *, pay: float = 8.0, **kwargs): return [pay for _ in completions]
async def later(completions, **kwargs): return [10.0 for _ in completions]
part_later = functools.partial(later, more=1)
def twice(value): return value
def twice(completions, **kwargs): return [float(len("\xe9")) for _ in completions]
root, number = math.sqrt, 3
def no_reward(text, **kwargs): return text
"""
BESIDE = """
def from_beside(completions, **kwargs): return [11.0 for _ in completions]
def again(completions, **kwargs): return [12.0 for _ in completions]
def starred(completions, **kwargs): return [13.0 for _ in completions]
"""
PAYS = {
    "part": 2, "short": 3, "instance": 4, "later_instance": 5, "inside_if": 6, "decorated": 8, "later": 10, "part_later": 10,
    "from_beside": 11, "renamed": 12, "starred": 13, "twice": 1,
}  # fmt: skip
WRONG = [
    "./kinds.py:Pays", "./kinds.py:number", "./kinds.py:functools", "./kinds.py:root", "./kinds.py:no_reward",
    "./kinds.py:nope", {"./kinds.py:instance": {"factor": "much"}}, {"./kinds.py:part": {"scales": 1.0}},
]  # fmt: skip
LIBRARY = (
    "os.system", "subprocess.run", "builtins.eval", "importlib.import_module", "runpy.run_path", "torch.load", "pip.main",
    "this.s", "test.support.run_unittest", "json.os.system", "math.sqrt", "reasoning_ext.runs.files.write_text",
    "reasoning_ext.recipe.plugins.importlib.import_module", "trl.trainer.utils.pad", "__main__.f",
    f"{subprocess.__file__}:getoutput", f"{files.__file__}:write_whole", "./link.py:getoutput",
)  # fmt: skip
NAMES = (
    ".a", "a.", "..", "a..b", "a\0.b", "\0", "\0.py:f", "./\0:f", f"{'x' * 300}.f", f"{'x' * 300}.py", f"a/{'x' * 300}",
    "./kinds.py:\0", f"./kinds.py:{'x' * 300}", "~nobody_at_all/x.py:f", "1.5", "a b.c", "", "./", "__pycache__/x.py",
)  # fmt: skip


@pytest.fixture
def kinds(tmp_path):
    (tmp_path / "kinds.py").write_bytes(KINDS.encode("latin-1"))
    (tmp_path / "beside.py").write_text(BESIDE)
    (tmp_path / "link.py").symlink_to(subprocess.__file__)
    return tmp_path


def pay(folder, *entries):
    rewards = build_rewards(parse_rewards(list(entries), folder))
    return [call_reward(reward, completions=["x"], prompts=["?"]) for reward in rewards]


def refused(spelling, folder):
    with pytest.raises(EntryError) as error:
        parse_rewards([spelling], folder)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", PAYS)
def test_a_reward_may_be_any_callable_of_a_file(name, kinds):
    assert pay(kinds, f"./kinds.py:{name}") == [[PAYS[name]]]


def test_so_it_may_in_a_process_of_its_own_and_with_parameters(kinds):
    names = ("part", "part_later", "starred")
    assert pay(kinds, *({f"./kinds.py:{name}": {"isolate": True}} for name in names)) == [
        [PAYS[name]] for name in names
    ]
    assert pay(kinds, {"./kinds.py:part": {"scale": 5.0}}, {"./kinds.py:instance": {"factor": 2.0}}) == [[5.0], [8.0]]


@pytest.mark.parametrize("entry", WRONG, ids=str)
def test_what_is_no_reward_is_refused(entry, kinds, wording):
    line = refused(entry, kinds)
    wording(line)
    assert line and "\n" not in line


def test_a_file_that_cannot_be_imported_is_named_with_its_line(tmp_path):
    (tmp_path / "broken.py").write_text("\ndef (:\n")
    for i, (text, line) in enumerate(
        (
            (b"x = 1\nimport no_such_module\nf = max\n", ":2"), (b"\nraise SystemExit('stop')\nf = max\n", ":2"),
            (b"\n\ndef f(:\n", ":3"), (b"# coding: klingon\ndef f(completions, **k): ...\n", ""),
            (b"x = '\xff'\ndef f(completions, **k): ...\n", ""), (b"def f(completions, **k): ...\n\0\n", ""),
        )
    ):  # fmt: skip
        (tmp_path / f"f{i}.py").write_bytes(text)
        assert f"f{i}.py{line}" in refused(f"./f{i}.py:f", tmp_path)
    (tmp_path / "marked.py").write_bytes(b"\xef\xbb\xbfdef marked(completions, **kwargs): return [1.0]\n")
    assert pay(tmp_path, "./marked.py") == [[1.0]]  # a mark of the encoding


def test_files_of_the_same_name_beside_two_rewards_are_two(tmp_path):
    path = list(sys.path)
    for folder, value in (("one", 1.0), ("two", 2.0)):
        package = tmp_path / folder / "parts" / "more"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package.parent / "__init__.py").write_text("from .deep import VALUE\n")
        (package.parent / "deep.py").write_text(f"VALUE = {value}\n")
        (package / "leaf.py").write_text(f"LEAF = {value}\n")
        (tmp_path / folder / "helper.py").write_text(f"import json\nfrom parts import VALUE, deep\nHELP = {value}\n")
        (tmp_path / folder / "random.py").write_text(f"OWN = {value}\n")
        (tmp_path / folder / f"{folder}.py").write_text(
            f"import helper, parts.more.leaf\nfrom parts.more import leaf\ndef {folder}(completions, **kwargs):\n"
            "    import random, helper as late\n    assert late is helper and late.VALUE == late.deep.VALUE == leaf.LEAF\n"
            "    return [helper.HELP + parts.more.leaf.LEAF + random.OWN for _ in completions]\n"
        )
    (tmp_path / "colorsys.py").write_text(
        "import colorsys\ndef mine(completions, **kwargs):\n    return [colorsys.rgb_to_hsv(1, 1, 1)[2] for _ in completions]\n"
    )
    assert pay(tmp_path, "./one/one.py", {"./two/two.py": {"isolate": True}}, "./colorsys.py:mine") == [
        [3.0],
        [6.0],
        [1.0],
    ]
    assert pay(tmp_path, "./two/two.py") == [[6.0]]
    import random

    assert not hasattr(random, "OWN") and sys.path == path and "helper" not in sys.modules


@pytest.mark.parametrize("spelling", [*LIBRARY, *NAMES])
def test_what_was_not_written_for_recipes_is_refused_and_not_imported(spelling, kinds):
    before = {*sys.modules}
    assert refused(spelling, kinds)
    for find in (find_format, find_generator):
        with pytest.raises(LookupError):
            find(spelling or "?", kinds)
    assert not {name for name in {*sys.modules} - before if name in ("this", "pip", "test.support")}


def test_an_installed_module_may_list_its_functions_and_one_of_the_users_needs_no_list(tmp_path, monkeypatch):
    kit = tmp_path / "site-packages" / "kit_of_rewards"
    kit.mkdir(parents=True)
    (kit / "__init__.py").write_text("")
    body = "def listed(completions, **kwargs): return [1.0]\ndef other(completions, **kwargs): return [1.0]\n"
    (kit / "polite.py").write_text(f'REASONING_EXT_PLUGINS = ["listed"]\n{body}')
    (tmp_path / "my_module_of_rewards.py").write_text("def f(completions, **kwargs): return [2.0]\n")
    (tmp_path / "mine.py").write_text("from kit_of_rewards.polite import other\n")
    monkeypatch.syspath_prepend(str(kit.parent))
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ("kit_of_rewards.polite.listed", "./mine.py:other", "my_module_of_rewards.f")
    assert pay(tmp_path, *names) == [[1.0], [1.0], [2.0]]
    assert "from kit_of_rewards.polite import other" in refused("kit_of_rewards.polite.other", tmp_path)


def test_a_format_and_a_generator_are_found_in_a_file(tmp_path):
    text = "def one(row, *, x=1, y='', z: int = 2): ...\ndef any(**k): ...\n"
    (tmp_path / "f.py").write_text(text)
    assert find_format("./f.py:one", tmp_path).options == {"x": "float | None", "y": "Any", "z": "int"}
    assert find_generator("./f.py:any", tmp_path).takes_any


RECIPE = """stage: grpo
model_name_or_path: {model}
from_scratch: true
use_cpu: true
max_steps: 1
num_generations: 2
per_device_train_batch_size: 2
output_dir: out
dataset_name: {data}
dataset_format: {form}
reward_funcs: [math_answer, {reward}]
"""


@pytest.fixture
def noisy(tmp_path, monkeypatch, write_recipe):
    """Write a recipe whose data set, format and reward each leave a file when they are imported."""
    monkeypatch.chdir(tmp_path)
    for name, body in (
        ("rows", "def rows(split): return [{'q': '1+1', 'a': '2'}, {'q': '1+2', 'a': '3'}]\n"),
        ("form", "def form(row): return {'prompt': row['q'], 'answer': row['a']}\n"),
        ("extra", "extra = lambda completions, **kwargs: [0.0 for _ in completions]\n"),
    ):
        ran = str(tmp_path / f"{name}.ran")
        text = f"import os\nopen({ran!r}, 'w').close(), os.write(1, b'now it runs\\n')\n{body}"
        (tmp_path / f"{name}.py").write_text(text)

    def write(data="./rows.py", form="./form.py", reward="./extra.py", more=""):
        return write_recipe(RECIPE.format(model=TINY / "model", data=data, form=form, reward=reward) + more)

    return write


def ran(folder):
    return {file.stem for file in folder.glob("*.ran")}


def checked(recipe, as_json=False):
    return check_and_print([load_recipe(recipe)], [], offline=True, show=0, as_json=as_json)


def test_check_lists_the_code_before_it_runs(noisy, tmp_path, capfd):
    assert checked(noisy(more="max_completion_length: 0\n")) == 2
    assert ran(tmp_path) == set() and capfd.readouterr().out == ""  # a recipe that is refused runs none
    assert checked(noisy()) == 0
    lines = capfd.readouterr().out.splitlines()
    assert all(f"{name}.py" in lines[1] for name in ("rows", "form", "extra")) and lines[2] == "now it runs"
    assert ran(tmp_path) == {"rows", "form", "extra"}


def test_without_code_none_runs_and_what_was_not_looked_at_is_said(noisy, tmp_path, rows_file, capsys, monkeypatch):
    for name in (NO_CODE, *OFFLINE, *SILENT):
        monkeypatch.setenv(name, "")
    recipe = str(noisy(reward="{./extra.py: {anything: 1}}", more="trust_remote_code: true\n"))
    monkeypatch.setattr(sys, "argv", ["reasoning-ext", "check", "--offline", "--no-code", "--json", recipe])
    with pytest.raises(SystemExit) as end:
        main()
    [found] = json.loads(capsys.readouterr().out)["recipes"]
    assert not end.value.code and ran(tmp_path) == set()
    kinds = {what.partition(" ")[0] for what in found["facts"]["code"]}
    assert kinds == {"dataset", "format", "reward", "trust_remote_code"}
    assert "./rows.py" in found["unread"] and "./form.py" in found["unread"]
    assert "trust_remote_code" in {finding["key"] for finding in found["findings"]}
    monkeypatch.setenv(NO_CODE, "1")
    assert checked(noisy(data=str(rows_file), form="prompt_completion"), as_json=True) == 0
    [found] = json.loads(capsys.readouterr().out)["recipes"]
    assert found["facts"]["rows"] == 16 and found["facts"]["rewards"] == {} and ran(tmp_path) == set()
    assert "reward_funcs" in {finding["key"] for finding in found["findings"]}
