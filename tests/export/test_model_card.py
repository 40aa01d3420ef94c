"""Model cards: what they hold, and that nothing in them is read as YAML, Markdown or HTML, or tells of this machine."""

import json
from pathlib import Path

import pytest
import yaml

from reasoning_ext.runs.card import write_model_card
from reasoning_ext.runs.markdown import plain, shorten
from reasoning_ext.runs.read import read_run

EVIL = "</pre><script>alert(1)</script> [x](javascript:alert(1)) ![y](http://e) | `a` **b**\n---\nlicense: mit\n# Title ```"
TOKEN = "hf_aVerySecretToken1234"


def make_run(folder, recipe, inputs, metrics=(), data=()):
    """Write a finished run's folder by hand."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    (folder / "lineage.json").write_text(json.dumps({"recipe": "abc", "inputs": inputs}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    (folder / "data.json").write_text(json.dumps(list(data)))
    (folder / "versions.json").write_text(json.dumps({"trl": "1.16.0", "platform": "Linux-of-somebody"}))
    (folder / "config.json").write_text("{}")
    (folder / "DONE").write_text(json.dumps({"finished": "2026-01-01"}))
    return folder


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A pipeline of three runs, of which the second goes on from the first and the third evaluates it."""
    monkeypatch.chdir(tmp_path)
    recipe = {"stage": "sft", "model_name_or_path": "Qwen/Qwen3-8B", "dataset_name": "open-thoughts/Some-Data"}
    inputs = {"model": "name:Qwen/Qwen3-8B", "dataset": "name:open-thoughts/Some-Data"}
    make_run(Path("runs/1_sft"), recipe | {"output_dir": "runs/1_sft"}, inputs)
    rewards = [{"math_answer": {"weight": 1.0}}, {"./mine.py:polite": {"weight": 0.25}}]
    recipe = {
        "stage": "grpo", "model_name_or_path": "runs/1_sft", "dataset_name": str(tmp_path / "data" / "rows.jsonl"),
        "reward_funcs": rewards, "system_prompt": EVIL + TOKEN + "\n\n```\n\n<b>", "output_dir": "runs/2_grpo",
    }  # fmt: skip
    metrics = [{"step": 1, "reward": 0.25, "loss": 1.0}, {"step": 9, "reward": 0.75, "loss": 0.5}]
    data = [{"step": EVIL + TOKEN, "rows": 1234, "dropped": 56}]
    make_run(Path("runs/2_grpo"), recipe, {"model": "run:1", "dataset": "file:2"}, metrics, data)
    recipe = {"stage": "eval", "models": {EVIL: "runs/1_sft", "trained": "runs/2_grpo"}, "dataset_name": "openai/gsm8k"}
    evaluation = make_run(Path("runs/3_eval"), recipe, {})
    figures = {"problems": 400, "pass@1": [0.5, 0.451, 0.549], "note": EVIL}
    best = {"budget": 64, "difference": [-0.01, -0.03, 0.01]}
    trained = figures | {"pass@1": [0.75, 0.7, 0.8], "in training data": 3, "curve": {"best_thinking_budget": best}}
    trained["general"] = {"all": [0.31, 0.25, 0.38]}
    (evaluation / "eval.json").write_text(json.dumps({EVIL: figures, "trained": trained}))
    slip = {"count": 40, "share": [0.4, 0.3, 0.5], "gives_back": [0.1, 0.075, 0.125]}
    causes = {"of": 400, "wrong": 100, "looked_at": 100, "causes": {"slip": slip, EVIL: slip}}
    explained = {"problems": 50, "without a thought": 2, "decorative": [0.25, 0.2, 0.3], "faithful": [0.8, 0.7, 0.9]}
    (evaluation / "explained.json").write_text(json.dumps({"trained": explained, EVIL: explained}))
    row = {"before": [0.5, 0.4, 0.6], "after": [0.3, 0.2, 0.4], "difference": [-0.2, -0.3, -0.1], "p": 0.001}
    kept = row | {"difference": [0.0, -0.1, 0.1], "p": 1.0}
    (Path("runs/2_grpo") / "guard.json").write_text(
        json.dumps({"general": {"all": row, "copying": row, "choice": kept}})
    )
    (evaluation / "errors.json").write_text(json.dumps({"trained": causes, EVIL: causes}))
    return tmp_path / "runs"


def card(run):
    folder, found = Path("export"), read_run(Path(run))
    folder.mkdir(exist_ok=True)
    told = {"base": found.recipe["model_name_or_path"], "named": None, "date": "2026-01-02"}
    write_model_card(folder, found, False, told | {"comparison": "99.0% of 800 tokens equal"})
    text = (folder / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body


def test_a_card_holds_recipes_data_rewards_evaluation_comparison_and_lineage(runs):
    header, body = card("runs/2_grpo")
    assert header["base_model"] == "Qwen/Qwen3-8B" and header["datasets"] == ["open-thoughts/Some-Data"]
    assert header["license"] == "unknown" and header["pipeline_tag"] == "text-generation"
    assert {"reasoning-ext", "grpo", "sft"} <= set(header["tags"]) and header["library_name"] == "transformers"
    assert "1234 rows, 56 dropped" in body
    assert "- reward: math\\_answer, weight 1\n" in body and "- reward: polite, weight 0.25\n" in body
    assert "- reward: 0.25 at step 1, 0.75 at step 9" in body and "- loss: 1 at step 1, 0.5 at step 9" in body
    assert "| **trained** | 400 | 75.0 \\[70.0, 80.0\\]" in body and "50.0 \\[45.1, 54.9\\]" in body
    assert "99.0% of 800 tokens equal" in body and "trl 1.16.0" in body and "2026-01-02" in body
    assert body.index("## Run 2") < body.index("## Run 1") and "dataset_name: open-thoughts/Some-Data" in body
    assert "lineage: recipe abc, model run:1, dataset file:2" in body
    judged = body.partition("How trained was judged:")[2].partition("## Export")[0].replace("\\", "")
    for said in (
        "math_answer",
        "3 of 400 problems",
        "64 tokens, -1.0 [-3.0, 1.0]",
        "100 of 400 answers",
        "slip 40 (40.0 [",
    ):
        assert said in judged, said
    for said in ("50 thoughts", "decorative 25.0 [20.0, 30.0] %", "General tasks: 31.0 [25.0, 38.0] %"):
        assert said in judged, said
    forgot = body.partition("What it forgot")[2].partition("\n")[0]
    assert "all 50.0" in forgot and "copying" in forgot and "choice" not in forgot
    (runs / "3_eval" / "eval.json").unlink()
    assert "Not evaluated" in card("runs/2_grpo")[1]


def test_nothing_in_a_card_is_markup(runs):
    header, body = card("runs/2_grpo")
    assert header["license"] == "unknown"
    outside, inside = [], []
    fence = None
    for line in body.splitlines():
        if fence is None and line.startswith("```"):
            fence = line.rstrip("yaml")
        elif fence is not None and line.strip() == fence:
            fence = None
        else:
            (outside if fence is None else inside).append(line)
    assert fence is None, "a code block was never closed, or closed by what it holds"
    text = "\n".join(outside)
    assert "<" not in text and "](" not in text.replace("\\]\\(", "") and "![" not in text.replace("\\!\\[", "")
    assert not any(line.startswith(("# Title", "license: mit", "---")) for line in outside)
    assert "<script>" in "\n".join(inside), "the recipe is shown as it is, inside the block"
    rows = [line.replace("\\|", "") for line in outside if line.startswith("|")]
    assert len(rows) == 4 and len({row.count("|") for row in rows}) == 1, "a label has broken the table's columns"


def test_tokens_and_places_of_this_machine_are_left_out(runs, tmp_path):
    _, body = card("runs/2_grpo")
    text = Path("export/README.md").read_text()
    assert TOKEN[3:] not in text and "[redacted]" in text
    assert str(tmp_path) not in text and "dataset_name: data/rows.jsonl" in body and "Linux-of-somebody" not in text
    assert shorten("/home/somebody/secret project/data/rows.jsonl") == ".../data/rows.jsonl"
    assert shorten("/a/b/c/mine.py:polite") == ".../c/mine.py:polite" and shorten("Qwen/Qwen3-8B") == "Qwen/Qwen3-8B"
    assert "\n" not in plain(EVIL) and plain("a_b | c") == "a\\_b \\| c" and plain("<b>") == "&lt;b&gt;"


def test_a_card_keeps_what_is_read_from_the_right_to_itself_and_shows_what_nobody_sees(runs):
    recipe = {"stage": "sft", "model_name_or_path": "\u202etfarc", "dataset_name": "d\u2067", "output_dir": "runs/8"}
    make_run(Path("runs/8"), recipe, {}, data=[{"step": "\u061c\u05d0", "rows": 3}])
    body = card("runs/8")[1]
    assert not {*"\u202e\u2067\u061c"} & {*body} and r"\\u202etfarc" in body
    assert plain("\u05d0\u05d1") == "\u2068\u05d0\u05d1\u2069" and plain("é") == "é"


def test_the_base_of_a_model_is_not_the_teacher_of_its_data(runs):
    kept = {"stage": "sample", "model_name_or_path": "big/teacher", "output_dir": "runs/kept"}
    make_run(Path("runs/kept"), kept, {"model": "name:big/teacher"})
    student = {"stage": "sft", "model_name_or_path": "runs/1_sft", "dataset_name": "runs/kept", "output_dir": "runs/s"}
    make_run(Path("runs/s"), student, {"model": "run:1", "dataset": "run:2"})
    header, body = card("runs/s")
    assert header["base_model"] == "Qwen/Qwen3-8B" and body.count("## Run ") == 3


def test_the_license_is_that_of_the_bases_own_card(runs):
    recipe = {"stage": "sft", "model_name_or_path": "base", "dataset_name": "d", "output_dir": "runs/9"}
    make_run(Path("runs/9"), recipe, {})
    Path("base").mkdir()
    Path("base/README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    assert card("runs/9")[0]["license"] == "apache-2.0"
    Path("base/README.md").write_text("---\nlicense: [torn\n---\n# Base\n")
    assert card("runs/9")[0]["license"] == "unknown"
