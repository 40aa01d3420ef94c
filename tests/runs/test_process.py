"""What a run's process does with its memory."""

import platform
import subprocess
import sys

import pytest

FREED = """
from pathlib import Path
from reasoning_ext.runs.process import return_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

return_freed_memory()
bytearray(b"x" * 2**24)  # after which glibc would keep blocks of this size in its heap
blocks = [bytearray(b"x" * 2**21) for _ in range(64)]
full = resident()
del blocks[:-1]  # below the last one
print(full - resident() > 60 * 2**21)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc")
def test_large_blocks_go_back_to_the_system_when_they_are_freed():
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
