"""What llama.cpp makes of a model's answers is counted token by token, and decides whether a GGUF file stays."""

import pytest

from reasoning_ext.export import gguf, llama_cpp
from reasoning_ext.export.llama_cpp import NOT_COMPARED, Reading
from reasoning_ext.export.merge import ExportError

ANSWER = [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("odd", "at_most", "chosen", "asked"),
    [
        ({}, 9, ANSWER, 1),
        ({3: 9}, 9, [1, 2, 3, 9, 5, 6], 2),  # behind 3 it says 9, and is asked again behind the reference's 4
        ({0: 8, 5: 9}, 9, [8, 2, 3, 4, 5, 9], 2),
        ({3: 9, 4: 9}, 9, [1, 2, 3, 9, 9, 6], 3),
        ({}, 4, ANSWER, 2),  # it stops by itself
    ],
)
def test_every_token_is_asked_for_behind_the_references_own(monkeypatch, odd, at_most, chosen, asked):
    calls = []

    def answer(server, what, body):
        calls.append(body["prompt"])
        made = [body["prompt"][-1]]
        while len(made) <= min(body["n_predict"], at_most):
            made.append(odd.get(made[-1], made[-1] + 1))
        return made[1:]

    monkeypatch.setattr(llama_cpp, "_asked", answer)
    assert ([*llama_cpp._chosen(None, [7, 0], ANSWER)], len(calls)) == (chosen, asked)
    assert all(call == [7, 0, *ANSWER][: len(call)] for call in calls)


@pytest.mark.parametrize(
    ("reading", "wrong"),
    [
        (Reading(100, 0.9, 0.09, 20, 20), 0),
        (Reading(100, 0.9, 0.1, 20, 20), 1),
        (Reading(100, 0.9, float("nan"), 20, 20), 1),
        (Reading(100, 1.0, 0.0, 20, 19), 1),
    ],
)
@pytest.mark.parametrize("quantization", ["q8_0", "q4_k_m"])
def test_a_file_that_is_another_model_is_removed_and_what_is_told_of_one_is_in_the_card(
    tmp_path, monkeypatch, capsys, reading, wrong, quantization
):
    file, card = tmp_path / "a.gguf", tmp_path / "README.md"
    file.write_text("weights")
    card.write_text("# A model\n")
    monkeypatch.setattr(gguf, "installed", lambda: True)
    monkeypatch.setattr(gguf, "run_tokenizer", lambda source: (None, None))
    for name in ("load_weights", "read_prompts", "Reference"):
        monkeypatch.setattr(gguf, name, lambda *_: None)
    monkeypatch.setattr(gguf, "read_in_llama_cpp", lambda *_: reading)
    source = type("Source", (), {"template_kwargs": {}})
    if wrong and quantization == "q8_0":
        with pytest.raises(ExportError, match="is not the model"):
            gguf.compare_gguf(source, tmp_path, file, quantization, None)
        assert not file.exists() and card.read_text() == "# A model\n"
    else:
        gguf.compare_gguf(source, tmp_path, file, quantization, None)
        assert file.exists() and f"As GGUF, {quantization}, {reading.line()}." in card.read_text()
        assert reading.line() in capsys.readouterr().out


@pytest.mark.parametrize("fault", [ExportError("llama.cpp cannot load it"), KeyboardInterrupt()])
def test_a_file_that_nobody_could_compare_is_removed(tmp_path, monkeypatch, fault):
    def read(*_):
        raise fault

    (tmp_path / "a.gguf").write_text("weights")
    monkeypatch.setattr(gguf, "installed", lambda: True)
    monkeypatch.setattr(gguf, "run_tokenizer", lambda source: (None, None))
    for name in ("load_weights", "read_prompts", "Reference"):
        monkeypatch.setattr(gguf, name, lambda *_: None)
    monkeypatch.setattr(gguf, "read_in_llama_cpp", read)
    with pytest.raises(type(fault)):
        gguf.compare_gguf(type("Source", (), {"template_kwargs": {}}), tmp_path, tmp_path / "a.gguf", "q4_k_m", None)
    assert not (tmp_path / "a.gguf").exists()


def test_without_llama_cpp_a_line_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gguf, "installed", lambda: False)
    gguf.compare_gguf(None, tmp_path, tmp_path / "a.gguf", "q8_0", None)
    assert NOT_COMPARED in capsys.readouterr().out
