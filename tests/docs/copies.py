"""A copy of recipes and examples in which everything is small, for what the pages and notebooks run."""

import os
import re
import shutil
import sys
from pathlib import Path

from conftest import ROOT

SMALLER = [  # of the recipes in the copy
    (r"^max_steps: .*", "max_steps: 2"),
    (r"^(num_train_epochs|warmup_steps): .*", r"\1: 1"),
    (r"^save_steps: .*", "save_steps: 1"),
    (r"num_rows: \d+", "num_rows: 96"),
    (r"^per_device_train_batch_size: \d+", "per_device_train_batch_size: 32"),
    (r"^min_reward: .*", "min_reward: 0.0"),  # two steps teach nothing, and the student needs rows
]


def small_copy(folder):
    """Copy recipes and examples into a folder, make them small, and return it."""
    for name in ("recipes", "examples"):
        shutil.copytree(ROOT / name, folder / name)
    for file in folder.rglob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        for pattern, small in SMALLER:
            text = re.sub(pattern, small, text, flags=re.MULTILINE)
        file.write_text(text, encoding="utf-8")
    return folder


def environment():
    """Return the environment in which a shell finds this Python's programs, on one core and without the hub."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
