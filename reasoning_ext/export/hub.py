"""Upload an export to the hub: private unless asked otherwise, and what leaves the machine is listed first.

The token is found by huggingface_hub itself (HF_TOKEN, or `hf auth login`). It is never an argument, never written and
never printed: whatever an `ExportError` says has been through `shown.unsaid`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from reasoning_ext.data.lineage import EXPORT
from reasoning_ext.errors import one_line
from reasoning_ext.export.merge import ExportError
from reasoning_ext.runs.files import read_object
from reasoning_ext.runs.folder import say
from reasoning_ext.shown import HEARD


def check_upload(repo_id: str | None, public: bool) -> bool | None:
    """Tell whether the repository that is there is private, None where there is none.

    Raises:
        ExportError: no name, no token, no way to the hub, or a public repository where a private one is wanted.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    if not repo_id:
        raise ExportError("--to hub: found no --repo-id, allowed: --repo-id USER/NAME")
    if not (token := get_token()):
        raise ExportError("--to hub: found no token; set HF_TOKEN in the environment, or run `hf auth login`")
    HEARD.add(token)
    with _refusals(repo_id):
        try:
            private = HfApi().repo_info(repo_id).private
        except RepositoryNotFoundError:
            return None
    if private is False and not public:
        raise ExportError(f"--repo-id: found {repo_id}, a public repository; write --public, or another name")
    return private


def upload(folder: Path, repo_id: str, public: bool) -> None:
    """Upload the files that an export consists of by its `export.json`; anything else in the folder stays here.

    Args:
        folder: a finished export.
        repo_id: `user/name`; a repository that is there stays as public or private as it is.
        public: make a new one public; private otherwise.
    """
    from huggingface_hub import HfApi

    with _refusals(repo_id):
        HfApi().create_repo(repo_id=repo_id, private=not public, exist_ok=True)
    private = check_upload(repo_id, public)  # an organisation may make all its repositories public
    names = [name for name in [*read_object(folder / EXPORT).get("files", {}), EXPORT] if (folder / name).is_file()]
    say(f"export  uploads {len(names)} files to {repo_id}, {'private' if private else 'public'}:")
    for name in names:
        say(f"  {name}  {(folder / name).stat().st_size / 2**20:.1f} MiB")
    message = "Export of reasoning-ext"
    with _refusals(repo_id):
        HfApi().upload_folder(repo_id=repo_id, folder_path=folder, allow_patterns=names, commit_message=message)
    say(f"export  uploaded to {repo_id}")


@contextlib.contextmanager
def _refusals(repo_id: str) -> Iterator[None]:
    """Say in one line what the hub or its client refuses, without the error it came from: that may hold a token."""
    try:
        yield
    except Exception as error:  # of whichever HTTP library the client uses
        reason = one_line(error)
        raise ExportError(f"the hub refuses --repo-id {repo_id}: {reason}") from None
