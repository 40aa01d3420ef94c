"""What a process that loads models keeps to itself, and what it gives back."""

from __future__ import annotations

import gc
import logging
import sys
import warnings


def quiet() -> None:
    """Silence what no user can act on: a deprecation inside TRL's own defaults, and missing CPU kernels; no bars in a log."""
    for name in ("gradient_checkpointing", "compute_loss_func"):
        warnings.filterwarnings("ignore", message=rf".*{name}.* is deprecated", category=FutureWarning)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    logging.getLogger("transformers.trainer").addFilter(_is_no_tied_weight)
    if not sys.stdout.isatty():
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()


def _is_no_tied_weight(told: logging.LogRecord) -> bool:
    """Leave out what transformers says of tied weights, which are written once; a checkpoint was compared with its hashes."""
    return "missing keys in the checkpoint" not in str(told.msg)


def free_memory() -> None:
    """Give the memory of a model that nothing holds any more back, before the next one is loaded."""
    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()
