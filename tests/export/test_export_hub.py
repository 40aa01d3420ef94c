"""Uploads, to a hub that stands here: private unless asked otherwise, the export alone, and never a token in print."""

import json
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from reasoning_ext.export.hub import check_upload, upload
from reasoning_ext.export.merge import ExportError

SECRET, OLD = "hf_aVerySecretToken1234", "oldstyle1234567890"


@pytest.fixture
def hub(monkeypatch):
    """What the hub's client is asked to do; `there` is None or whether the repository is private, `error` what it raises."""
    hub = SimpleNamespace(calls=[], there=None, error=None, opens=False)

    def repo_info(_, repo_id):
        if hub.there is None:
            raise RepositoryNotFoundError("no such repository", response=Mock(status_code=404, headers={}))
        return SimpleNamespace(private=hub.there)

    def create_repo(_, **arguments):
        hub.calls.append(("create_repo", arguments))
        hub.there = (arguments["private"] and not hub.opens) if hub.there is None else hub.there

    def upload_folder(_, **arguments):
        if hub.error:
            raise hub.error
        hub.calls.append(("upload_folder", arguments))

    for method in (repo_info, create_repo, upload_folder):
        monkeypatch.setattr(HfApi, method.__name__, method)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    return hub


@pytest.fixture
def folder(tmp_path):
    """A finished export, and beside its files some that are not its own."""
    files = {"model.safetensors": "w", "config.json": "{}", "README.md": "#"}
    for name, text in (files | {"optimizer.pt": "x", "notes.txt": "x", ".env": "x"}).items():
        (tmp_path / name).write_text(text)
    (tmp_path / "export.json").write_text(json.dumps({"files": dict.fromkeys([*files, "gone.json"], "file:1")}))
    return tmp_path


@pytest.mark.parametrize(("public", "seen"), [(False, "private"), (True, "public")])
def test_an_upload_is_private_unless_asked_otherwise_and_takes_the_export_alone(hub, folder, capsys, public, seen):
    upload(folder, "me/tiny", public)
    (_, created), (_, uploaded) = hub.calls
    assert created == {"repo_id": "me/tiny", "private": not public, "exist_ok": True}
    assert set(uploaded["allow_patterns"]) == {"model.safetensors", "config.json", "README.md", "export.json"}
    said = capsys.readouterr().out
    assert f"to me/tiny, {seen}:" in said and "  model.safetensors  " in said
    assert said.index("model.safetensors  ") < said.index("uploaded to me/tiny")


def test_a_private_repository_that_is_there_is_not_called_public(hub, folder, capsys):
    hub.there = True
    upload(folder, "me/tiny", public=True)
    said = capsys.readouterr().out
    assert "to me/tiny, private:" in said
    assert [name for name, _ in hub.calls] == ["create_repo", "upload_folder"] and hub.there


def test_nothing_private_goes_into_a_public_repository(hub, folder):
    hub.opens = True  # as an organisation may make all its repositories public
    with pytest.raises(ExportError, match="found me/tiny, a public repository"):
        upload(folder, "me/tiny", public=False)
    assert [name for name, _ in hub.calls] == ["create_repo"]


def test_what_cannot_be_uploaded_is_refused_before_anything_is_merged(hub, monkeypatch):
    for repo_id, there, token, said in (
        (None, None, SECRET, "found no --repo-id"),
        ("me/tiny", False, SECRET, "found me/tiny, a public repository; write --public, or another name"),
        ("me/tiny", None, None, "found no token; set HF_TOKEN"),
    ):
        hub.there = there
        monkeypatch.setattr("huggingface_hub.get_token", lambda token=token: token)
        with pytest.raises(ExportError, match=said):
            check_upload(repo_id, public=False)
    monkeypatch.undo()
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with pytest.raises(ExportError, match="--repo-id a/b/c: HFValidationError"):
        check_upload("a/b/c", public=False)


def test_a_token_is_never_printed(hub, folder, monkeypatch, capsys):
    """One that looks like none, as `hf auth login` has kept it, and one of somebody else."""
    said = f"403 Forbidden: Authorization: Bearer {OLD}, not {SECRET}, {OLD}"
    hub.error = HfHubHTTPError(said, response=Mock(status_code=403, headers={}))
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: OLD)
    with pytest.raises(ExportError, match=r"Bearer \[redacted\], not \[redacted\], \[redacted\]") as error:
        upload(folder, "me/tiny", public=False)
    assert error.value.__cause__ is None and error.value.__suppress_context__
    assert OLD not in capsys.readouterr().out + str(error.value)
