"""What of its libraries' words a process keeps to itself, and that it is no more than that."""

import logging
import warnings

import pytest
from torch.utils.data import DataLoader

from reasoning_ext.runs.process import quiet

OTHERS = ("pin_memory is slow", "something is deprecated", "gradient_checkpointing takes 8 GB")


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
