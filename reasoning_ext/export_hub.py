"""Upload an export to the Hugging Face hub: private unless asked otherwise, and what leaves the machine is listed first.

The token is found by huggingface_hub itself (HF_TOKEN, or `hf auth login`). It is never an argument, never written, and
errors are printed without anything that looks like one.
"""

from __future__ import annotations

import fnmatch
from pathlib import Path

from reasoning_ext.export_arguments import ExportError
from reasoning_ext.run_dir import say
from reasoning_ext.shown import without_secrets

# What an export consists of; anything else that lies in the folder stays on this machine.
UPLOADED = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "adapter_config.json",
            "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "chat_template*",
            "preprocessor_config.json", "processor_config.json", "*.py", "README.md", "export.json")  # fmt: skip


def check_upload(repo_id: str | None, public: bool) -> None:
    """Refuse an upload that cannot work, or that would publish what should be private, before anything is merged.

    Raises:
        ExportError: no name, no token, no way to the hub, or a public repository that is there already.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if not repo_id:
        raise ExportError("--to hub: found no --repo-id, allowed: --repo-id USER/NAME")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ExportError(f"--repo-id: {without_secrets(' '.join(str(error).split()))}") from None
    if not get_token():
        raise ExportError("--to hub: found no token; set HF_TOKEN in the environment, or run `hf auth login`")
    if not public and _is_private(repo_id) is False:
        raise ExportError(f"--repo-id: found {repo_id}, a public repository; write --public, or another name")


def upload(folder: Path, repo_id: str, public: bool) -> None:
    """Upload an export's files.

    Args:
        folder: a finished export.
        repo_id: `user/name`; made where it is missing.
        public: make it public; private otherwise.

    Raises:
        ExportError: the hub refuses, or the repository has become public since `check_upload`.
    """
    files = [f for f in sorted(folder.iterdir()) if f.is_file() and any(fnmatch.fnmatch(f.name, p) for p in UPLOADED)]
    size = sum(f.stat().st_size for f in files)
    check_upload(repo_id, public)
    stays = public and _is_private(repo_id) is True  # the hub leaves a repository that is there as it is
    seen = "public" if public and not stays else "private"
    say(f"export  uploads {len(files)} files, {size / 2**20:.1f} MiB, to {repo_id}, {seen}:")
    for file in files:
        say(f"  {file.name}  {file.stat().st_size / 2**20:.1f} MiB")
    if stays:
        say(
            f"export  warning: {repo_id} is there already, private, and stays so; --public is for new ones, see its settings"
        )
    _ask("create_repo", repo_id, private=not public, exist_ok=True)
    if not public and _is_private(repo_id) is False:  # an organisation may make all its repositories public
        raise ExportError(f"--repo-id: found {repo_id}, which the hub made public; nothing was uploaded")
    names = [f.name for f in files]
    _ask(
        "upload_folder",
        repo_id,
        folder_path=str(folder),
        allow_patterns=names,
        commit_message="Export of reasoning-ext",
    )
    say(f"export  uploaded to {repo_id}")


def _is_private(repo_id: str) -> bool | None:
    """Tell whether a repository is private, None where there is none."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return bool(_call("repo_info", repo_id).private)  # type: ignore[attr-defined]
    except RepositoryNotFoundError:
        return None
    except Exception as error:  # of whichever HTTP library the client uses; none of them may print a token
        raise _refusal("repo_info", repo_id, error) from None


def _ask(method: str, repo_id: str, **arguments: object) -> None:
    try:
        _call(method, repo_id, **arguments)
    except Exception as error:  # as above
        raise _refusal(method, repo_id, error) from None  # a chained error would print what was taken out of this one


def _call(method: str, repo_id: str, **arguments: object) -> object:
    from huggingface_hub import HfApi

    return getattr(HfApi(), method)(repo_id=repo_id, **arguments)


def _refusal(method: str, repo_id: str, error: Exception) -> ExportError:
    from huggingface_hub import get_token

    text = without_secrets(" ".join(str(error).split()))
    token = get_token()
    text = text.replace(token, "[redacted]") if token else text
    return ExportError(f"the hub refuses {method} for {repo_id}: {type(error).__name__}: {text[:300]}")
