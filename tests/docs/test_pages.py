"""The pages say what is so: reference pages as the code writes them, worked examples that hold, figures of the result files."""

import doctest
import importlib.util
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version

import pytest
import yaml
from conftest import ROOT
from pages import PAGES, blocks, without_fences

from reasoning_ext.recipe.keys import STAGES
from reasoning_ext.recipe.known_keys import stage_keys
from reasoning_ext.runs.health import RULES
from reasoning_ext.scoring.spec import parse_rewards

DOCS = ROOT / "docs"
ROWS = json.loads((ROOT / "benchmarks" / "results" / "tiny_seeds.json").read_text())["rows"]
PINNED = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))


def script(path):
    """Import a script of benchmarks/ or docs/scripts/ by its path."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def slug(heading):
    """Return a heading's anchor, as GitHub and mkdocs make it."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower())


def test_the_reference_is_what_the_code_says():
    others = [name for name in ("trl", "transformers", "typer") if version(name) != PINNED[name]]
    if others:
        pytest.skip(f"written with the versions of constraints.txt; others here: {', '.join(others)}")
    pages = script(DOCS / "scripts" / "pages.py")
    for name, write in pages.PAGES.items():
        assert (DOCS / "reference" / name).read_text(encoding="utf-8") == write(), f"{name}: run `make docs`"


@pytest.mark.parametrize("page", [page for page in PAGES if ">>> " in page.read_text() and "reference" not in page.parts],
                         ids=lambda page: page.name)  # fmt: skip
def test_worked_examples_hold(page):
    found = doctest.testfile(str(page), module_relative=False)
    assert found.attempted and found.failed == 0


def test_tables_and_figures_are_those_of_the_result_files():
    seeds = script(ROOT / "benchmarks" / "tiny_seeds.py")
    for page in (ROOT / "README.md", DOCS / "tutorials" / "1_tiny_demo.md"):
        assert seeds.table(ROWS[:3]) in page.read_text(), page
    rows = seeds.distillation_table(ROWS[:3]).splitlines()[2:]
    assert all(row in (DOCS / "sampling.md").read_text() for row in rows)
    models, concepts = ROWS[0]["models"], (DOCS / "concepts.md").read_text()
    sampling, students = ROWS[0]["sampling"], ROWS[0]["students"]
    said = [
        f"pass@1 {100 * models['sft']['pass@1'][0]:.1f} %, pass@4 {100 * models['sft']['pass@4'][0]:.1f} %",
        f"maj@4 {100 * models['sft']['maj@4'][0]:.1f} %",
        f"pass@1 is {100 * models['grpo']['pass@1'][0]:.1f} % and pass@4 {100 * models['grpo']['pass@4'][0]:.1f} %",
        f"it thinks in {100 * models['sft']['thinks'][0]:.0f} % of its answers",
        f"in {100 * models['grpo']['thinks'][0]:.0f} %, and greedy is {100 * models['grpo']['greedy'][0]:.1f} %",
        f"{models['sft']['mean tokens']:.0f} tokens on average before GRPO and {models['grpo']['mean tokens']:.0f} after",
        f"{sampling['sampled']:,} completions, accepted {sampling['accepted']:,} and kept {sampling['kept']:,}".replace(
            "\n", " "
        ),
        f"came to {100 * students['sampled']['pass@1'][0]:.1f} %",
    ]
    text = " ".join(concepts.split())
    assert [one for one in said if one not in text] == []
    hacked = json.loads((ROOT / "benchmarks" / "results" / "hacked_reward.json").read_text())["rows"]
    tutorial = (DOCS / "tutorials" / "3_hacked_reward.md").read_text()
    assert all(row in tutorial for row in script(ROOT / "benchmarks" / "hacked_reward.py").table(hacked).splitlines())


def test_every_health_rule_told_of_its_fault_in_time_and_none_of_a_healthy_run(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    planted = script(ROOT / "benchmarks" / "planted_faults.py")
    rows = json.loads((ROOT / "benchmarks" / "results" / "planted_faults.json").read_text())["rows"]
    assert [one for row in rows for one in planted.misses(row)] == []
    assert len(rows) == 5 and list(rows[0]["faults"]) == [rule.name for rule in RULES]
    assert planted.table(rows[0]["faults"]) in (DOCS / "reading_a_run.md").read_text()


def test_links_and_pictures_of_the_pages_exist():
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", without_fences(page.read_text(encoding="utf-8"))):
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if target.startswith(("http://", "https://")):
                continue
            headings = (
                re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE) if anchor and file.suffix == ".md" else []
            )
            if not file.exists() or (anchor and anchor not in map(slug, headings)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def test_every_picture_is_drawn_by_the_script_or_by_a_command(tmp_path):
    drawn = {f"{name}.svg" for name in script(DOCS / "scripts" / "pictures.py").PICTURES}
    named = {name for page in PAGES for name in re.findall(r"\]\([^)]*pictures/([\w.]+)\)", page.read_text())}
    # which `reasoning-ext report --curves` writes of the demos, and a benchmark
    by_benchmarks = {"inference_scaling.png", "inference_scaling_real.png"}
    assert drawn == named - {"tiny_curves.png", "smollm2_curves.png"} - by_benchmarks
    assert {file.name for file in (DOCS / "pictures").iterdir()} == named


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "concepts.html").is_file()
    assert 'src="http' not in (tmp_path / "site" / "concepts.html").read_text()


def yaml_blocks():
    return [(page, line, text) for page in PAGES for line, text in blocks(page, "yaml")]


@pytest.mark.parametrize(
    ("page", "line", "text"), yaml_blocks(), ids=lambda part: getattr(part, "stem", None) or str(part)[:12]
)
def test_recipes_of_the_pages_have_keys_and_rewards_that_there_are(page, line, text):
    values = yaml.safe_load(re.sub(r"\b(\d)e(-?\d)", r"\1.0e\2", text))
    known = {key for stage in STAGES for key in (stage_keys(values.get("stage", stage)))}
    assert {*values} <= known, f"{page}:{line}"
    entries = [entry for entry in values.get("reward_funcs", []) if "/" not in str(entry)]
    parse_rewards(entries, ROOT)
