"""Files that stay whole, and the room for them."""

import json

import pytest

from reasoning_ext.runs.files import DiskError, append_lines, check_space, mend


def test_a_torn_line_is_cut_off_before_more_is_written(tmp_path):
    path = tmp_path / "x.jsonl"
    append_lines(path, [{"a": 1}, {"a": 2}])
    path.write_bytes(path.read_bytes() + b'{"a": 3, "te')
    append_lines(path, [{"a": 4}])
    assert [json.loads(line)["a"] for line in path.read_text().splitlines()] == [1, 2, 4]
    path.write_bytes(b'{"only": "torn')
    mend(path)
    assert path.read_bytes() == b""


def test_a_full_disk_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(DiskError, match="GiB free"):
        check_space(tmp_path / "new", 2**60)
