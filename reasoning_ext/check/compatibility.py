"""The versions that were tested together, held against what is installed before any of it is imported.

pip holds the packages to what each declares; here stand the ranges that our tests ran on, and the one combination that is
known to fail and that no metadata can name.
"""

from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from reasoning_ext.errors import Level, Problem

LOWEST = {"trl": "1.14", "transformers": "5.8", "peft": "0.19", "datasets": "4.4", "bitsandbytes": "0.49"}
# By backend; Unsloth rewrites TRL's source when it is imported.
TESTED_TRL = {"trl": ">=1.14,<1.17", "unsloth": ">=1.14,<1.16"}
FAILS = "==1.15.*"  # its fused LM head is a Triton kernel without a fallback; Unsloth replaces it


def version_findings(backend: str, use_vllm: bool, quantized: bool = False) -> list[Problem]:
    """Compare the installed versions with those that were tested.

    Args:
        backend: "trl" or "unsloth".
        use_vllm: completions are generated with vLLM.
        quantized: the recipe has `load_in_4bit` or `load_in_8bit`, for which bitsandbytes is imported.

    Returns:
        an error for what is missing or too old, and for a TRL that Unsloth does not know; a warning for a TRL that was never
        tested, and for the one that fails; a note for a backend or an engine that is not here, since a check may run elsewhere.
    """
    used = {"unsloth": backend == "unsloth", "vllm": use_vllm}
    absent = [name for name, needed in used.items() if needed and not _installed(name)]
    found = []
    for package, lowest in LOWEST.items():
        has, missing = _version(package), not _installed(package)
        if (missing or (has and has < Version(lowest))) and (package != "bitsandbytes" or quantized):
            text = f"reasoning-ext needs {package}>={lowest}, {'which is not installed' if missing else f'found {has}'}"
            found.append(_problem("error", "", f"{text}; pip install '{package}>={lowest}'"))
    trl, with_unsloth = _version("trl"), backend == "unsloth" and "unsloth" not in absent
    tested = SpecifierSet(TESTED_TRL["unsloth" if with_unsloth else "trl"])
    if trl and trl >= Version(LOWEST["trl"]) and not tested.contains(trl, prereleases=True):
        text = f"found trl {trl}, tested with backend {'unsloth' if with_unsloth else 'trl'}: {tested}"
        text += f"; pip install 'trl{tested}'"
        found.append(_problem("error", "backend", text) if with_unsloth else _problem("warning", "", text))
    if trl and not with_unsloth and SpecifierSet(FAILS).contains(trl, prereleases=True):
        text = "cannot train stage sft without CUDA or XPU ('NoneType' object has no attribute 'apply')"
        found.append(_problem("warning", "", f"trl {trl} {text}; pip install 'trl{tested},!=1.15.*'"))
    text = "{0} is not installed here; `run` will ask for pip install 'reasoning-ext[{0}]'"
    return found + [_problem("note", "", text.format(name)) for name in absent]


def _problem(level: Level, key: str, found: str) -> Problem:
    return Problem(code="untested_version", level=level, key=key, found=found)


def _installed(package: str) -> str:
    """Return the installed version as it is written, "" where the package is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _version(package: str) -> Version | None:
    """Return the installed version, None where there is none that can be compared."""
    try:
        return Version(_installed(package))
    except InvalidVersion:
        return None
