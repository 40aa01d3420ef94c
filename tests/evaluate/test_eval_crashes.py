"""An evaluation that is killed in the middle of a beam and of a refinement: nothing lost, nothing twice, the same figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
BATCH, KILLS = 8, 3
RECIPE = """\
stage: eval
models: {tiny: org/tiny}
dataset_name: ./rows.jsonl
reward_funcs: [exact_answer]
num_generations: 0
max_completion_length: 24
output_dir: out
strategies: """
STRATEGIES = {
    "beam": {"beam": {"width": 4, "keep": 2, "by": "mean_logprob", "step": ";"}},
    "refine": {"refine": {"rounds": 3}},
}


def read(folder, name):
    text = (folder / "out" / name).read_bytes()
    rows = [json.loads(line) for line in text.splitlines()]  # a torn line would not parse
    by_key = {tuple(row.get(key) for key in ("way", "strategy", "prompt_index", "sample_index")): row for row in rows}
    assert text.endswith(b"\n") and len(by_key) == len(rows)
    return {key: {name: value for name, value in row.items() if name != "logprob"} for key, row in by_key.items()}


@pytest.mark.slow
def test_killed_in_a_beam_and_in_a_refinement_an_evaluation_goes_on_with_what_is_missing(tmp_path):
    plan = []
    for kind, strategy in STRATEGIES.items():
        for name, kills in (("straight", 0), ("killed", KILLS)):
            (folder := tmp_path / f"{kind}_{name}").mkdir()
            rows = [{"prompt": f"{i}+3*2", "answer": str(i)} for i in range(24)]
            (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            (folder / "r.yaml").write_text(RECIPE + json.dumps([strategy]) + "\n")
            plan.append([str(folder), kills, "fake", 0 if kills else 1000])
    command = [sys.executable, str(HERE / "kill_sampling.py"), json.dumps(plan)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    reports = {
        Path(folder).name: report
        for (folder, *_), report in zip(plan, json.loads(done.stdout.splitlines()[-1]), strict=True)
    }
    for kind in STRATEGIES:
        killed, straight = tmp_path / f"{kind}_killed", tmp_path / f"{kind}_straight"
        report, whole = reports[killed.name], reports[straight.name]  # rounds may ask the same again
        assert report["kills"] == KILLS and whole["keys"] <= report["keys"] <= whole["keys"] + KILLS * BATCH
        assert any(way.startswith(kind) for way in report["ways"])  # it was in the middle of it
        for name in ("answers.jsonl", "strategies.jsonl"):
            assert read(killed, name) == read(straight, name)
        assert (killed / "out" / "eval.json").read_text() == (straight / "out" / "eval.json").read_text()
