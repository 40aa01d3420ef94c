"""The notebooks run from top to bottom, as scripts of their cells, in a copy of the project whose recipes are small."""

import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from copies import environment, small_copy

NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
# What Jupyter does with a line that begins with `!`, but for ending the script where the command fails.
SHELL = "import subprocess\ndef shell(line):\n    subprocess.run(line, shell=True, check=True)\n"


def cells(notebook):
    """Return the cells of code as one script."""
    whole = json.loads(notebook.read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in whole["cells"] if cell["cell_type"] == "code"]
    return SHELL + "\n".join(
        re.sub(r"^!(.+)$", lambda line: f"shell({line[1]!r})", text, flags=re.MULTILINE) for text in sources
    )


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_run_from_top_to_bottom(notebook):
    whole = json.loads(notebook.read_text(encoding="utf-8"))
    counts = [cell["execution_count"] for cell in whole["cells"] if cell["cell_type"] == "code"]
    assert whole["nbformat"] == 4 and counts == list(range(1, len(counts) + 1))
    assert not any(output["output_type"] == "error" for cell in whole["cells"] for output in cell.get("outputs", ()))
    assert "/home/" not in notebook.read_text() and "/tmp/" not in notebook.read_text()


@pytest.mark.parametrize(
    "notebook", [pytest.param(n, marks=pytest.mark.slow if n.stem == "from_a_csv" else ()) for n in NOTEBOOKS],
    ids=lambda path: path.stem,
)  # fmt: skip
def test_a_notebook_runs(notebook, tmp_path):
    folder = small_copy(tmp_path) / "examples" / "notebooks"
    command = [sys.executable, "-c", cells(notebook)]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
