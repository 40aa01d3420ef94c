"""What a run's process does with its memory, and what of its libraries' words it keeps to itself."""

import logging
import platform
import subprocess
import sys
import warnings

import pytest
from torch.utils.data import DataLoader

from reasoning_ext.runs.process import quiet

OTHERS = ("pin_memory is slow", "something is deprecated", "gradient_checkpointing takes 8 GB")
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


def test_only_what_no_user_can_act_on_is_silenced(caplog):
    with pytest.warns(UserWarning) as told:
        quiet()
        assert list(DataLoader([1], pin_memory=True)) == [1]  # TRL's default, on a machine without an accelerator
        warnings.warn("use_reentrant of gradient_checkpointing is deprecated", FutureWarning, stacklevel=1)
        for text in OTHERS:
            warnings.warn(text, UserWarning, stacklevel=1)
    assert [str(one.message) for one in told] == list(OTHERS)
    for name in ("bitsandbytes", "transformers.trainer"):
        logging.getLogger(name).error("a fault")
    logging.getLogger("transformers.trainer").warning("There were missing keys in the checkpoint model loaded: x")
    assert [record.message for record in caplog.records if record.name == "bitsandbytes"] == ["a fault"]
