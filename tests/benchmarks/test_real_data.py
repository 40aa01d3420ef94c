"""benchmarks/real_data.py: what it says of files whose rows have the shape of real sets."""

import shutil

from conftest import ROOT

from benchmarks.real_data import measure, table
from tests.rows import FIXTURES, put

MODEL = str(ROOT / "recipes" / "tiny" / "model")


def test_golds_drops_lengths_and_pay_are_those_of_the_file(tmp_path):
    rows = [{"problem": f"{i}+1?", "solution": rf"It is \boxed{{{i + 1}}}.", "answer": str(i + 1)} for i in range(3)]
    rows[0]["solution"] += " So" * 1000
    rows += [{"problem": "What is it?", "solution": None, "answer": "forty two"}]
    found = measure(put(tmp_path / "math.jsonl", rows), "math", MODEL, tmp_path)
    assert found["golds"].startswith("4 read, 1 of them unreadable (25.00%): row 3: 'forty two'")
    assert len(found["problems"]) == 1 and found["judged right"] == "3 of 3"
    assert found["dropped"] == ["1 without a solution, in sft", "1 longer than 1024 tokens, in sft"]
    assert found["solution tokens"]["shortest"] > 20 and found["solution tokens"]["longest"] > 3000
    assert found["prompt tokens"]["longest"] < 20

    shutil.copy(FIXTURES / "formats" / "amc.jsonl", tmp_path)
    without = measure(tmp_path / "amc.jsonl", "math", MODEL, tmp_path)
    assert without["solution tokens"] == {} and without["dropped"] == ["2 without a solution, in sft"]
    lines = table([found, without]).splitlines()
    assert len(lines) == 4 and len({line.count(" | ") for line in lines}) == 1
