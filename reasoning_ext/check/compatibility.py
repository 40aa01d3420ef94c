"""The versions that were tested together, held against what is installed before any of it is imported.

pip holds the packages to what each declares; here stand the ranges that our tests ran on.
"""

from importlib.metadata import PackageNotFoundError, version

from packaging.version import InvalidVersion, Version

from reasoning_ext.errors import Level, Problem

LOWEST = {"trl": "1.14", "transformers": "5.8", "peft": "0.19", "datasets": "4.4", "bitsandbytes": "0.49"}
TOO_NEW = {"trl": "1.17", "unsloth": "1.16"}  # TRL, by backend: Unsloth rewrites its source when it is imported
FAILS = "1.15"  # its fused LM head is a Triton kernel without a fallback; Unsloth replaces it


def version_findings(backend: str, use_vllm: bool, quantized: bool = False) -> list[Problem]:
    """Compare the installed versions with those that were tested, for a backend, a recipe with vLLM, or one with 4 or 8 bits.

    An error is what is missing or too old, or a TRL that Unsloth does not know; a warning a TRL that was never tested, or the
    one that fails; a note a backend or an engine that is not here, since a check may run elsewhere.
    """
    found = []

    def tell(level: Level, text: str, key: str = "") -> None:
        found.append(Problem(code="untested_version", level=level, key=key, found=text))

    for package, lowest in LOWEST.items():
        has = _installed(package)
        if (has is None or has < Version(lowest)) and (package != "bitsandbytes" or quantized):
            tell("error", f"found {package} {has}, allowed: {lowest} or later; pip install '{package}>={lowest}'")
    for package in [name for name, used in (("unsloth", backend == "unsloth"), ("vllm", use_vllm)) if used]:
        if _installed(package) is None:
            tell("note", f"{package} is not installed here; `run` will ask for pip install 'reasoning-ext[{package}]'")
    trl, with_unsloth = _installed("trl") or Version("0"), backend == "unsloth" and _installed("unsloth") is not None
    most = TOO_NEW["unsloth" if with_unsloth else "trl"]
    if trl >= Version(f"{most}.dev0"):
        text = f"found trl {trl}, tested with backend {backend}: below {most}; pip install 'trl<{most}'"
        tell(*(("error", text, "backend") if with_unsloth else ("warning", text)))
    if not with_unsloth and str(trl).startswith(FAILS):
        tell("warning", f"trl {trl} trains no stage sft without CUDA or XPU; pip install 'trl<{most},!={FAILS}.*'")
    return found


def _installed(package: str) -> Version | None:
    """Return the installed version, None where the package is missing; one that cannot be compared is as new as need be."""
    try:
        return Version(version(package))
    except PackageNotFoundError:
        return None
    except InvalidVersion:
        return Version(LOWEST.get(package, "0"))
