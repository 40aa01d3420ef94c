"""docs/judging.md: every row of its tables is true."""

import re
from collections import namedtuple
from pathlib import Path

from reasoning_ext import think
from reasoning_ext.verifier import Rules, judge_all

PAGE = Path(__file__).parents[2] / "docs" / "judging.md"
VERDICTS = {"right": True, "wrong": False, "none": None}


Row = namedtuple("Row", "line gold answer verdict question option", defaults=("", ""))


def cells(line):
    """Split a row of a Markdown table at the bars that are not escaped, and take backticks and escapes off."""
    parts = [part.strip() for part in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
    return [re.sub(r"^`(.*)`$", r"\1", part).replace(r"\|", "|") for part in parts]


def read_rows():
    """Read the rows of all tables that have a gold, an answer and a verdict."""
    rows, columns = [], None
    for number, line in enumerate(PAGE.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("|"):
            columns = None
        elif columns is None:
            columns = cells(line)
        elif {"gold", "answer", "verdict"} <= {*columns} and not re.fullmatch(r"[-|: ]+", line):
            rows.append(Row(number, **dict(zip(columns, cells(line), strict=True))))
    return rows


ROWS = read_rows()


def test_every_row_of_the_page_is_true():
    found = []
    for option in sorted({row.option for row in ROWS}):
        chosen = [row for row in ROWS if row.option == option]
        rules = Rules(**dict.fromkeys(option.split(), True))
        texts, questions = [think.answer(row.answer) for row in chosen], [row.question for row in chosen]
        verdicts = judge_all([row.gold for row in chosen], texts, questions=questions, rules=rules)
        judged = zip(chosen, verdicts, strict=True)
        found += [(row, verdict) for row, verdict in judged if verdict.right is not VERDICTS[row.verdict]]
    assert found == []
    assert len(ROWS) >= 120 and {row.verdict for row in ROWS} == {*VERDICTS}
    assert {row.option for row in ROWS} == {"", *Rules._fields}
    assert len({row[1:] for row in ROWS}) == len(ROWS)
