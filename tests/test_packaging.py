"""The package as a wheel and editable: `rewards/` is `reasoning_ext.rewards`, and nothing else is put anywhere."""

import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

CODE = "import reasoning_ext.rewards.math_answer as m; import reasoning_ext.runs.report; print(m.__file__)"


@pytest.mark.slow
def test_a_wheel_holds_the_package_and_works_without_the_source(tmp_path):
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(source)], check=True)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert {name.split("/")[0] for name in names} == {"reasoning_ext", "reasoning_ext-0.1.0.dist-info"}
    assert "reasoning_ext/rewards/math_answer.py" in names and {
        f"reasoning_ext/runs/templates/{name}" for name in ("report.html", "card.md")
    } <= set(names)
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {CODE}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "site" / "reasoning_ext" / "rewards" / "math_answer.py")
    check = "import runpy, sys; sys.argv = ['x', 'check', '--offline', sys.argv[1]]; runpy.run_module('reasoning_ext')"
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {check}"
    recipe = source / "recipes" / "tiny" / "2_grpo.yaml"
    out = subprocess.run([sys.executable, "-c", code, str(recipe)], cwd=tmp_path, capture_output=True, text=True)
    assert "ok" in out.stdout, out.stderr


def test_an_editable_install_finds_a_reward_dropped_into_the_folder(tmp_path):
    done = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(ROOT / "rewards" / "math_answer.py")
    dropped = ROOT / "rewards" / "dropped_by_a_test.py"
    dropped.write_text("def dropped_by_a_test(completions, **kwargs):\n    return [0.25 for _ in completions]\n")
    try:
        code = (
            "from pathlib import Path; from reasoning_ext.scoring.call import build_rewards;"
            "from reasoning_ext.scoring.spec import parse_rewards;"
            "print(build_rewards(parse_rewards(['dropped_by_a_test'], Path()))[0](completions=['x']))"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[0.25]"
    finally:
        dropped.unlink()
