"""What a process runs with, what of its libraries' words it keeps to itself, and the memory that it gives back."""

from __future__ import annotations

import contextlib
import gc
import logging
import platform
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "reasoning-ext", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes", "math-verify",
    "unsloth", "vllm",
)  # fmt: skip


def quiet() -> None:
    """Silence what no user can act on: what is said of TRL's own defaults, missing CPU kernels; no bars in a log."""
    warnings.filterwarnings(
        "ignore", message="'pin_memory' argument is set .* but no accelerator", category=UserWarning
    )
    for name in ("gradient_checkpointing", "compute_loss_func"):
        warnings.filterwarnings("ignore", message=rf".*{name}.* is deprecated", category=FutureWarning)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # what transformers says of tied weights, which are written once; a checkpoint was compared with its hashes
    tied = "missing keys in the checkpoint"
    logging.getLogger("transformers.trainer").addFilter(lambda told: tied not in str(told.msg))
    if not sys.stdout.isatty():
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Hold back for a while what libraries warn of, log below errors, and draw as bars."""
    from transformers.utils import logging as transformers_logging

    before, bars = logging.root.manager.disable, transformers_logging.is_progress_bar_enabled()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
        if bars:
            transformers_logging.enable_progress_bar()


def free_memory() -> None:
    """Give the memory of a model that nothing holds any more back, before the next one is loaded."""
    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()


def versions() -> dict[str, str]:
    """Return the versions of the packages that take part, of Python and of the system."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found | {"python": platform.python_version(), "platform": platform.platform()}
