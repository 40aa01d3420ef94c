"""Nothing is reported unless a recipe asks for it, and a hub that does not answer costs one line."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from conftest import TINY
from huggingface_hub.constants import ENV_VARS_TRUE_VALUES
from typer.testing import CliRunner

from reasoning_ext.check import network
from reasoning_ext.check.network import OFFLINE, SILENT, settle
from reasoning_ext.cli import app
from reasoning_ext.recipe.load import load_recipe


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Write a recipe with some keys changed, in an environment of its own."""
    monkeypatch.setattr(
        os, "environ", {k: v for k, v in os.environ.items() if k not in (*SILENT, *OFFLINE, "HF_ENDPOINT")}
    )
    (tmp_path / "data.jsonl").write_text('{"prompt": "1+1", "completion": "2"}\n')

    def make(**values):
        base = {"stage": "sft", "model_name_or_path": str(TINY), "dataset_name": "./data.jsonl", "output_dir": "out"}
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(base | values))
        return load_recipe(tmp_path / "r.yaml")

    return make


@pytest.mark.parametrize(("values", "silent"), [({}, True), ({"telemetry": True}, False)])
def test_reports_are_off_unless_a_recipe_wants_them(recipe, values, silent):
    settle([recipe(**values)])
    assert all((name in os.environ) == silent for name in SILENT)


def test_commands_without_a_recipe_report_nothing(monkeypatch):
    for name in SILENT:
        monkeypatch.setenv(name, "unset")
    seen = {}
    monkeypatch.setattr("reasoning_ext.evaluate.ask.ask_and_print", lambda *a, **k: seen.update(os.environ))
    assert CliRunner().invoke(app, ["ask", "m", "?"]).exit_code == 0 and seen.items() >= SILENT.items()


def test_the_hub_is_not_asked_where_everything_is_here(recipe, monkeypatch):
    monkeypatch.setattr(network, "_hub_problem", lambda url: 1 / 0)
    assert settle([recipe()]) is False and settle([recipe(model_name_or_path="a/b")], offline=True) is True


@pytest.mark.parametrize(("how", "offline"), [("silent", True), (503, True), (404, False), ("refused", True)])
def test_a_hub_that_does_not_answer_costs_one_line(recipe, monkeypatch, capsys, how, offline):
    asked, done = [], threading.Event()

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            if how == "silent":
                done.wait(60)
            self.send_response(how if isinstance(how, int) else 200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(network, "HUB_SECONDS", 0.5 if how == "silent" else 30)
    os.environ["HF_ENDPOINT"] = f"http://me:hunter2@127.0.0.1:{1 if how == 'refused' else server.server_port}"
    if how != "refused":
        os.environ["HF_ENDPOINT"] = os.environ["HF_ENDPOINT"].replace("me:hunter2@", "")
    assert settle([recipe(model_name_or_path="a/b")]) is offline
    done.set()
    server.shutdown()
    server.server_close()
    said = capsys.readouterr().err
    assert len(asked) == (how != "refused") and said.count("\n") == offline and "hunter2" not in said
    assert all((os.environ.get(name) == "1") == offline for name in OFFLINE)


@pytest.mark.parametrize(("value", "off"), [("0", False), ("", False), ("no", False), ("1", True), ("yes", True)])
def test_a_variable_switches_the_hub_off_as_huggingface_hub_reads_it(recipe, monkeypatch, value, off):
    monkeypatch.setattr(network, "_hub_problem", lambda url: "")
    os.environ["HF_HUB_OFFLINE"] = value
    assert bool(network.hub_problem()) == off and settle([recipe(model_name_or_path="a/b")]) is False
    assert network.TRUE == ENV_VARS_TRUE_VALUES


def test_trl_is_told_before_it_is_imported(recipe, tmp_path):
    recipe(model_name_or_path="a/b", dataset_name="c/d")
    code = (
        "import sys; from pathlib import Path; from reasoning_ext.recipe.load import load_recipe\n"
        "from reasoning_ext.check.network import settle\n"
        "assert settle([load_recipe(Path('r.yaml'))]) and 'huggingface_hub' not in sys.modules\n"
        "sent = []\nimport huggingface_hub.utils._telemetry as t, huggingface_hub.constants as c\n"
        "t.Thread = lambda *a, **k: sent.append(1)\nt.send_telemetry('trl/sft')\n"
        "assert not sent and c.HF_HUB_OFFLINE and c.HF_HUB_DISABLE_TELEMETRY\n"
    )
    environment = dict(os.environ) | {"HF_ENDPOINT": "http://127.0.0.1:1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.count("\n") == 1, done.stderr
