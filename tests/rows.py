"""Rows of tests: files that hold them, what a format makes of them, and a cache of `datasets` that is not the user's."""

import json
import tempfile
from pathlib import Path

import datasets

from reasoning_ext.data.format import find_format, format_rows

_CACHE = tempfile.TemporaryDirectory()
datasets.config.HF_DATASETS_CACHE = Path(_CACHE.name)
FIXTURES = Path(__file__).parent / "fixtures"


def put(path, rows):
    """Write rows in the kind of file that its name says, and a text or bytes as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(rows, str | bytes):
        path.write_bytes(rows.encode() if isinstance(rows, str) else rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        made = datasets.Dataset.from_list(rows)
        made.to_parquet(path) if path.suffix == ".parquet" else made.to_csv(path)
    return path


def made_of(*rows, format_name=None, **options):
    """Format rows that are given as dictionaries."""
    return list(format_rows(datasets.Dataset.from_list(list(rows)), find_format(format_name, FIXTURES), **options))
