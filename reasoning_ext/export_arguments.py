"""What `reasoning-ext export` may be asked for, checked before anything heavy is imported."""

from __future__ import annotations

from reasoning_ext.errors import UserError

TARGETS = ("merged-16bit", "adapter", "gguf", "hub")
MERGED, ADAPTER, GGUF, HUB = TARGETS
BY_CONVERTER = ("f16", "bf16", "q8_0")
# of llama.cpp's llama-quantize, without those that need an importance matrix
BY_QUANTIZE = (
    "f32", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k", "q4_k_s", "q4_k_m", "q5_k",
    "q5_k_s", "q5_k_m", "q6_k", "iq3_xs", "iq3_s", "iq3_m", "iq4_nl", "iq4_xs", "tq1_0", "tq2_0", "mxfp4_moe",
)  # fmt: skip


class ExportError(UserError):
    """An export cannot be made, or turned out wrong; nothing is left in its place."""


def check_arguments(to: str, what: str, quantization: str, repo_id: str | None, public: bool) -> None:
    """Refuse arguments of `export.export_run` that name nothing, or that nothing would read.

    Raises:
        ExportError: they do.
    """
    if to not in TARGETS:
        raise ExportError(f"--to: found {to}, allowed: {', '.join(TARGETS)}")
    if what not in (MERGED, ADAPTER):
        raise ExportError(f"--what: found {what}, allowed: {MERGED}, {ADAPTER}")
    if quantization not in BY_CONVERTER + BY_QUANTIZE:
        raise ExportError(f"--quantization: found {quantization}, allowed: {', '.join(BY_CONVERTER + BY_QUANTIZE)}")
    for option, given in (("--repo-id", repo_id is not None), ("--public", public)):
        if given and to != HUB:
            raise ExportError(f"{option}: found with --to {to}, which uploads nothing, allowed: with --to {HUB}")
