"""`explain`: what each step of a thought does for its answer, on a model whose answer is the last digit of the thought."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
from conftest import TINY
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from reasoning_ext import think
from reasoning_ext.cli import app
from reasoning_ext.engines.base import SamplingSettings
from reasoning_ext.errors import UserError
from reasoning_ext.evaluate import attributions, explained, interventions
from reasoning_ext.evaluate.explain import as_record, thought_of
from reasoning_ext.evaluate.interventions import MOST_STEPS, Prober, altered, read_thought, split_steps
from reasoning_ext.models.loaded import Loaded
from reasoning_ext.runs.report import page
from reasoning_ext.think.template import find_contract

PROMPT = [{"role": "user", "content": "3+4*2"}]
CHAIN = "<think>3+4=7;7*2=14</think>4"
SETTINGS = SamplingSettings(32, 0.0)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TINY / "model")


class Copier(torch.nn.Module):
    """Answers with the last digit of the thought, for certain; it goes on from a beginning with `ending`."""

    def __init__(self, tokenizer):
        super().__init__()
        self.ids = {name: tokenizer.convert_tokens_to_ids(name) for name in [*"0123456789", "</think>", "<|end|>"]}
        self.digits, self.size, self.device = {self.ids[d] for d in "0123456789"}, len(tokenizer), torch.device("cpu")
        shape = SimpleNamespace(max_position_embeddings=512)
        self.config = SimpleNamespace(get_text_config=lambda: shape, _attn_implementation="sdpa")

    def set_attn_implementation(self, name):
        self.config._attn_implementation = name

    def forward(self, input_ids, attention_mask=None, logits_to_keep=0, **kwargs):
        logits = torch.zeros(*input_ids.shape, self.size)
        for row, ids in enumerate(input_ids.tolist()):
            last = None
            for place, one in enumerate(ids):
                if one == self.ids["</think>"] and last is not None:
                    logits[row, place, last] = 30.0
                elif place and ids[place - 1] == self.ids["</think>"]:
                    logits[row, place, self.ids["<|end|>"]] = 30.0
                last = one if one in self.digits else last
        seen = torch.zeros(1, 2, input_ids.shape[1], input_ids.shape[1])
        seen[..., -8:] = 1.0  # the end of the thought
        return SimpleNamespace(logits=logits[:, -logits_to_keep:], attentions=(seen, seen))


@pytest.fixture
def copier(tokenizer, monkeypatch):
    loaded = Loaded(Copier(tokenizer), tokenizer, contract=find_contract(tokenizer))
    prober = Prober(loaded, SETTINGS, batch_size=3)

    def go_on(prompt, begun, most=None):  # from a true step with the next one, else with an answer at once
        return [
            f"{text}7*2=14</think>4" if text.endswith("=7;") else f"{text}</think>{text.rstrip(';')[-1:]}"
            for text in begun
        ]

    monkeypatch.setattr(prober, "go_on", go_on)
    return prober


@pytest.fixture(scope="module")
def random_prober(tokenizer):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(TINY / "model")).eval()
    return Prober(Loaded(model, tokenizer, contract=find_contract(tokenizer)), SETTINGS, batch_size=2)


@pytest.mark.parametrize(
    ("thought", "steps"),
    [
        ("3+4=7;7*2=14", ["3+4=7;", "7*2=14"]),
        ("a = 1\n\nb = 2\n", ["a = 1\n\n", "b = 2\n"]),
        ("  a\n b; c. d\n", ["  a\n ", "b; c. d\n"]),
        ("First 3.5, then 7. So 7", ["First 3.5, then 7. ", "So 7"]),
        ("one", ["one"]),
        ("", []),
    ],
)
def test_a_thought_is_split_and_nothing_is_lost(thought, steps):
    assert split_steps(thought) == steps and "".join(steps) == thought


@pytest.mark.parametrize(
    "text",
    [
        CHAIN,
        "<think>\na = 1\nb = 2\n</think>\n\nThe answer is 2.",
        "<think>a</think>b</think>c",
        " <think> x </think> y",
    ],
)
def test_the_parts_of_a_completion_are_all_of_it(text):
    found = read_thought(text)
    assert found.begun(found.steps) + found.answer == text
    assert think.split(text).answer.strip() == found.answer.strip()


@pytest.mark.parametrize("text", ["7", "<think>7", "<think></think>7", "<think>7</think>", "<think>7</think> \n", ""])
def test_what_has_no_thought_and_answer_is_not_explained(text, copier):
    assert read_thought(text) is None
    with pytest.raises(UserError, match="thought"):
        thought_of(copier, PROMPT, text)


def test_many_steps_are_put_together_and_counted():
    found = read_thought("<think>" + "\n".join(f"{i} = {i}" for i in range(100)) + "</think>7")
    assert len(found.steps) <= MOST_STEPS and found.grouped == 100 and "".join(found.steps).count("=") == 100


@pytest.mark.parametrize(
    ("step", "other"), [("3+4=7;", "3+4=0;"), ("x is 19 apples.", "x is 42 apples."), ("wait", "")]
)
def test_a_steps_result_is_altered(step, other):
    assert altered(step) == other


def test_log_probabilities_are_the_models_own_in_any_batch(random_prober):
    thought = read_thought(CHAIN)
    contexts = [random_prober.ids(PROMPT, thought.begun(steps)) for steps in (thought.steps, (), thought.steps[:1])]
    target = random_prober.answer_ids(thought)
    found = random_prober.log_probabilities(contexts, target)
    for context, value in zip(contexts, found, strict=True):
        with torch.inference_mode():
            logits = random_prober.loaded.model(torch.tensor([[*context, *target]])).logits[0].log_softmax(-1)
        alone = sum(float(logits[len(context) - 1 + i, one]) for i, one in enumerate(target))
        assert value == pytest.approx(alone, abs=1e-4)
    assert len(target) == 2 and target[-1] == random_prober.loaded.contract.end_id


def test_variants_of_a_long_thought_are_read_in_batches_bounded_by_tokens(random_prober, monkeypatch):
    contexts, target, widths = [[1] * 30, [2] * 40, [3] * 20], [4, 5], list[tuple[int, ...]]()
    whole = random_prober.log_probabilities(contexts, target)
    hook = random_prober.loaded.model.register_forward_pre_hook(
        lambda _, args, given: widths.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    monkeypatch.setattr(interventions, "MOST_TOKENS", 42)
    found = random_prober.log_probabilities(contexts, target)
    hook.remove()
    assert [rows for rows, _ in widths] == [1, 1, 1] and found == pytest.approx(whole, abs=1e-4)


def test_the_step_that_carries_the_answer_is_found(copier):
    found = explained.explain(copier, PROMPT, read_thought("<think>3+4=7;so;7*2=14</think>4"))
    first, filler, last = found.steps
    assert found.probability == pytest.approx(1, abs=1e-3) and found.without_thought < 0.1 and found.known_after == 3
    assert (last.necessity, last.sufficiency, last.answer_if_stopped) == pytest.approx((1, 1, 1), abs=1e-3)
    assert first.necessity == filler.necessity == pytest.approx(0, abs=1e-3) and first.sufficiency < 0.1
    assert (last.flags, filler.flags) == ([], ["decorative"]) and first.changes_answer and last.changes_answer
    assert sum(step.attention for step in found.steps) == pytest.approx(1) and last.attention > 0.9
    assert filler.answer_if_stopped < 0.1 < last.necessity


def test_an_answer_that_was_there_before_the_last_step_is_flagged(copier):
    found = explained.explain(copier, PROMPT, read_thought("<think>2+2=4;1*4=4;8/2=4</think>4"))
    assert found.known_after == 1 and found.steps[0].flags[-1:] == ["answer was known at step 1 of 3"]
    contradicts = explained.explain(copier, PROMPT, read_thought("<think>3+4=7;7*2=14</think>4"))
    assert contradicts.flags == ["answer contradicts the last step"] and found.flags == []


def test_attention_falls_on_steps_by_layer(random_prober, monkeypatch):
    thought = read_thought("<think>3+4=7;7*2=14;9=9</think>4")
    before = random_prober.loaded.model.config._attn_implementation
    found = attributions.attention(random_prober, PROMPT, thought)
    layers = random_prober.loaded.model.config.num_hidden_layers
    assert [len(row) for row in found] == [layers] * 3
    assert all(sum(column) == pytest.approx(1, abs=1e-5) for column in zip(*found, strict=True))
    assert random_prober.loaded.model.config._attn_implementation == before
    monkeypatch.setattr(attributions, "MOST_ATTENDED", 10)
    with pytest.raises(ValueError, match="more than 10"):
        attributions.attention(random_prober, PROMPT, thought)
    left = explained.explain(random_prober, PROMPT, thought)
    assert "attention" in left.left_out and left.steps[0].attention is None


def test_attributions_sum_to_what_the_thought_adds(random_prober):
    pytest.importorskip("captum")
    thought = read_thought(CHAIN)
    target = random_prober.answer_ids(thought)
    contexts = [random_prober.ids(PROMPT, thought.begun(steps)) for steps in (thought.steps, ())]
    whole, empty = random_prober.log_probabilities(contexts, target)
    found = attributions.attribution(random_prober, PROMPT, thought)
    assert len(found) == 2 and sum(found) == pytest.approx(whole - empty, abs=1e-3)


def test_beginnings_are_gone_on_from_within_the_context(random_prober):
    texts = random_prober.go_on(PROMPT, ["<think>3+4=7;", "<think>1"], most=5)
    assert texts[0].startswith("<think>3+4=7;") and texts[1].startswith("<think>1")
    [whole] = random_prober.go_on([{"role": "user", "content": "1" * (random_prober.loaded.context - 40)}], [""])
    assert len(whole) < 100


def test_the_record_has_what_the_page_has_and_no_more_digits_than_count(copier):
    found = explained.explain(copier, PROMPT, read_thought(CHAIN))
    record = json.loads(json.dumps(as_record(found)))
    assert record["question"] == "3+4*2" and record["answer"] == "4" and record["grouped"] == 0
    assert {"text", "necessity", "sufficiency", "answer_if_stopped", "attention", "attribution", "flags"} <= {
        *record["steps"][0]
    }
    assert record["steps"][1]["necessity"] == 1.0


def test_what_a_model_writes_is_escaped_in_the_page(copier):
    question = "<script>alert(1)</script>"
    thought = read_thought("<think><b>3</b>=7;\u202e7*2=14</think>4")
    found = explained.explain(copier, [{"role": "user", "content": question}], thought)
    text = page("explained.html", ("report.css",), one=found, model="<i>")
    assert "<script" not in text and "<b>3" not in text and "\u202e" not in text and "<i>" not in text
    assert "&lt;script&gt;" in text and "default-src 'none'" in text and not re.search(r"<[^>]* style=", text)
    assert text.count('<svg class="bar"') == 4 * len(found.steps)


def test_the_command_explains_a_folder_of_weights(tmp_path, monkeypatch, random_prober):
    monkeypatch.chdir(tmp_path)
    random_prober.loaded.model.save_pretrained("model")
    random_prober.loaded.tokenizer.save_pretrained("model")
    monkeypatch.setattr("reasoning_ext.evaluate.explain.hush", lambda: None)
    monkeypatch.setattr("reasoning_ext.evaluate.explain.LONG", 0)  # what is said of the time is no part of the document
    done = CliRunner().invoke(app, ["explain", "model", "3+4", "--completion", CHAIN, "--json"])
    assert done.exit_code == 0, done.output
    assert [step["text"] for step in json.loads(done.stdout)["steps"]] == ["3+4=7;", "7*2=14"]
    done = CliRunner().invoke(app, ["explain", "model", "3+4", "--completion", CHAIN])
    assert done.exit_code == 0 and (tmp_path / "explained.html").is_file() and "7*2=14" in done.stdout
    with pytest.raises(UserError, match="tokens before the answer"):
        thought_of(random_prober, PROMPT, f"<think>{'1+1=2;' * 1000}</think>4")
