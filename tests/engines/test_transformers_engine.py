"""The engine in this process: the same completions as `generate`'s, whatever the batch; rows that have ended leave it."""

import inspect

import pytest
import torch
import transformers
from conftest import TINY

from reasoning_ext.engines import transformers as module
from reasoning_ext.engines.base import EngineError, SamplingSettings
from reasoning_ext.engines.transformers import KeyedDraw, TransformersEngine
from reasoning_ext.models.loaded import Loaded
from reasoning_ext.think.template import find_contract

PROMPTS = [
    [{"role": "user", "content": text}] for text in ("7+5", "1+2*3+4*7", "9", "3*3*3+1+1+1", "hello there", "2+2")
]
KEYS = [(p, g) for p in range(len(PROMPTS)) for g in range(4)]
SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 16, "initializer_range": 0.3, "max_position_embeddings": 256, "tie_word_embeddings": True}  # fmt: skip
SHAPES = {
    "LlamaConfig": {},
    "Qwen3Config": {},
    "MistralConfig": {"sliding_window": 12},
    "Gemma3TextConfig": {"sliding_window": 12, "initializer_range": 0.05},
    "Qwen3NextConfig": {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32, "linear_num_value_heads": 2,
                        "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
                        "shared_expert_intermediate_size": 32},
}  # fmt: skip


def build(shape="LlamaConfig", seed=0):
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY / "model")
    config = getattr(transformers, shape)(
        **SMALL | SHAPES[shape], vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    transformers.set_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    # random weights never say that they have ended, so every thirteenth token says it
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *range(9, len(tokenizer), 13)]
    return Loaded(model, tokenizer, contract=find_contract(tokenizer))


@pytest.fixture(scope="module")
def loaded():
    return build()


def answers(loaded, keys=KEYS, batch_size=7, **settings):
    engine = TransformersEngine(loaded, batch_size)
    batches = list(engine.generate(PROMPTS, keys, SamplingSettings(**{"max_completion_length": 24, **settings})))
    found = {(c.prompt, c.sample): c for batch in batches for c in batch}
    assert len(found) == sum(map(len, batches)) == len(keys)
    return found


def expected(loaded, prompt, **kwargs):
    """What transformers' own `generate` makes of one prompt alone."""
    text = loaded.tokenizer.apply_chat_template(PROMPTS[prompt], tokenize=False, add_generation_prompt=True)
    inputs = loaded.tokenizer(text, return_tensors="pt", add_special_tokens=False)
    inputs.pop("token_type_ids", None)
    with torch.inference_mode():
        output = loaded.model.generate(**inputs, max_new_tokens=24, **kwargs)
    return output[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("shape", SHAPES)
def test_completions_are_generates_own_and_the_same_in_any_batch_and_order(shape):
    loaded = build(shape)
    ends = loaded.model.generation_config.eos_token_id
    for kwargs in ({}, {"repetition_penalty": 1.3}) if shape == "LlamaConfig" else ({},):
        found = answers(loaded, KEYS[::2], temperature=0.0, **kwargs)
        alone = [expected(loaded, p, do_sample=False, **kwargs) for p in range(len(PROMPTS))]
        for (p, _), completion in found.items():
            assert completion.ids == alone[p] and completion.tokens == len(completion.ids)
            assert completion.finished == (completion.ids[-1] in ends)
    assert sum(c.finished for c in found.values()) > 0 or shape != "LlamaConfig"
    first = answers(loaded)
    for keys, batch_size in ((KEYS[::-1], 5), (KEYS[5:11], 24)):
        again = answers(loaded, keys, batch_size)
        assert all(again[key].ids == first[key].ids for key in keys)
    assert len({tuple(c.ids) for c in first.values()}) > 18
    if shape == "LlamaConfig":
        assert any(answers(loaded, seed=1)[key].ids != first[key].ids for key in KEYS)


def test_the_loop_and_a_models_own_defaults_change_no_completion(loaded, monkeypatch):
    first = {key: c.ids for key, c in answers(loaded).items()}
    for name, value in {"do_sample": True, "temperature": 0.01, "top_k": 1, "top_p": 0.1}.items():
        monkeypatch.setattr(loaded.model.generation_config, name, value)
    assert {key: c.ids for key, c in answers(loaded).items()} == first
    forward = loaded.model.forward  # a model without a cache to take rows from
    monkeypatch.setattr(loaded.model, "forward", lambda input_ids, **more: forward(input_ids=input_ids, **more))
    monkeypatch.setattr(module, "decode", None)
    assert {key: c.ids for key, c in answers(loaded).items()} == first


def test_settings_reach_the_distribution(loaded):
    """Each leaves one token or nearly so; all but the typical one the likeliest."""
    likeliest = [expected(loaded, p, do_sample=False) for p in range(len(PROMPTS))]
    typical = {"generation_kwargs": {"typical_p": 1e-6}}
    for settings in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 1e-4}, typical):
        found = answers(loaded, [key for key in KEYS if key[1] < 2], **settings)
        assert all(found[p, 0].ids == found[p, 1].ids for p in range(len(PROMPTS))), settings
        if settings is not typical:
            assert all(c.ids == likeliest[p] for (p, _), c in found.items()), settings


def test_log_probabilities_are_those_before_temperature_and_behind_the_penalty_in_both_loops(loaded, monkeypatch):
    settings = {"logprobs": True, "temperature": 0.7, "top_k": 5, "repetition_penalty": 1.2}
    found = answers(loaded, **settings)
    for (p, _), c in found.items():
        text = loaded.tokenizer.apply_chat_template(PROMPTS[p], tokenize=False, add_generation_prompt=True)
        start = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([start + c.ids])
        with torch.inference_mode():
            logits = loaded.model(ids).logits[0, len(start) - 1 : -1].float()
        penalty = transformers.RepetitionPenaltyLogitsProcessor(1.2)
        scores = [penalty(ids[:, : len(start) + t], row[None]).log_softmax(-1)[0] for t, row in enumerate(logits)]
        drawn = [score[token].item() for score, token in zip(scores, c.ids, strict=True)]
        assert c.logprob == pytest.approx(sum(drawn) / len(drawn), abs=1e-3)
    assert all(c.logprob < 0 for c in answers(loaded, KEYS[:4], logprobs=True, temperature=0.0).values())
    assert {c.logprob for c in answers(loaded, KEYS[:4]).values()} == {None}
    monkeypatch.setattr(module, "_has_cache", lambda model: False)
    again = answers(loaded, KEYS[:8], **settings)
    assert all(again[key].logprob == pytest.approx(found[key].logprob, abs=1e-4) for key in again)


def test_a_completion_ends_behind_a_text_and_at_a_limit_of_its_own(loaded, monkeypatch):
    plain = answers(loaded)
    stop, limits = plain[0, 0].text[2:4], {key: 3 + i for i, key in enumerate(KEYS[:12])}
    for has_cache in (True, False):
        monkeypatch.setattr(module, "_has_cache", lambda model, answer=has_cache: answer)
        found = answers(loaded, stop=stop, limits=limits)
        for key, c in found.items():
            most, whole = limits.get(key, 24), plain[key]
            assert c.ids == whole.ids[: c.tokens] and c.tokens <= most and whole.text.startswith(c.text)
            stopped = stop in c.text
            assert c.text.find(stop) in (-1, len(c.text) - len(stop))
            assert stopped or c.tokens == min(most, whole.tokens)
            assert c.finished == (whole.finished and most >= whole.tokens and not stopped)
        assert stop in found[0, 0].text or limits[0, 0] == 3


def test_a_completion_goes_on_from_its_beginning_as_generate_does_from_the_text(loaded, monkeypatch):
    begun = "<think>\n1+2"
    for template, kept in (("{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
                            "{% if add_generation_prompt %}<assistant>{% endif %}", begun),
                           ("{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
                            "{% if add_generation_prompt %}<assistant><think>\n{% endif %}", begun)):  # fmt: skip
        monkeypatch.setattr(loaded.tokenizer, "chat_template", template)
        contract = find_contract(loaded.tokenizer)
        engine = TransformersEngine(Loaded(loaded.model, loaded.tokenizer, contract=contract), 4)
        prompts = [[*prompt, {"role": "assistant", "content": begun}] for prompt in PROMPTS]
        greedy = SamplingSettings(max_completion_length=24, temperature=0.0)
        for c in [c for batch in engine.generate(prompts, [(p, 0) for p in range(6)], greedy) for c in batch]:
            inputs = loaded.tokenizer(f"<user>{PROMPTS[c.prompt][0]['content']}\n<assistant>{kept}", return_tensors="pt",
                                      add_special_tokens=False)["input_ids"]  # fmt: skip
            with torch.inference_mode():
                wanted = loaded.model.generate(inputs, max_new_tokens=24, do_sample=False)[
                    0, inputs.shape[1] :
                ].tolist()
            assert c.ids == wanted and c.text.startswith(begun) and c.tokens == len(wanted)


def test_generation_kwargs_reach_generate(loaded):
    banned = {*range(8, 30)} - {*loaded.model.generation_config.eos_token_id}
    for kwargs in ({}, {"bad_words_ids": [[i] for i in banned]}):
        found = answers(loaded, generation_kwargs=kwargs).values()
        assert any({*c.ids} & banned for c in found) == (not kwargs)


def replace_loop(monkeypatch, loop):
    """Put a loop in the place of `decode`, as transformers looks at it."""
    loop.__signature__ = inspect.signature(module.decode)
    monkeypatch.setattr(module, "decode", loop)


def test_what_transformers_refuses_is_one_line_where_generation_kwargs_can_have_made_it(loaded, monkeypatch):
    for kwargs in ({"min_lenght": 3}, {"bad_words_ids": "the"}, {"typical_p": "high"}, {"input_ids": 3}):
        with pytest.raises(EngineError, match=f"^found {next(iter(kwargs))}") as error:
            answers(loaded, KEYS[:2], generation_kwargs=kwargs)
        assert error.value.key == "generation_kwargs" and "\n" not in str(error.value)
    replace_loop(monkeypatch, lambda model, *args, **kwargs: int("no number"))
    with pytest.raises(ValueError, match="invalid literal") as error:
        answers(loaded, KEYS[:2])
    assert not isinstance(error.value, EngineError)


def test_tokens_are_drawn_with_their_probabilities_and_one_without_never():
    scores_BV = torch.randn(1, 12, generator=torch.Generator().manual_seed(1)).repeat(40_000, 1)
    scores_BV[:, 5] = -torch.inf
    uniforms = torch.rand(40_000, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    drawn = KeyedDraw(uniforms, 3)(torch.zeros(40_000, 3), scores_BV).argmax(-1)
    shares, wanted = torch.bincount(drawn, minlength=12) / 40_000, scores_BV[0].softmax(-1)
    assert shares[5] == 0 and (shares - wanted).abs().max() < 0.01  # four standard deviations of the likeliest
    scores = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])
    for uniform, token in ((0.0, 1), (0.4999, 1), (0.5001, 3), (1 - 2**-53, 3)):
        draw = KeyedDraw(torch.tensor([[uniform]], dtype=torch.float64), 2)
        assert draw(torch.zeros(1, 2), scores).argmax().item() == token


def test_the_longest_prompts_come_first_each_is_read_once_and_ended_rows_leave_the_batch(loaded, monkeypatch):
    shapes, forward = [], loaded.model.forward

    def counted(*args, **kwargs):
        shapes.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    counted.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(loaded.model, "forward", counted)
    [batch] = TransformersEngine(loaded, 24).generate(PROMPTS, KEYS, SamplingSettings(max_completion_length=24))
    assert [(c.prompt, c.sample) for c in batch[:4]] == KEYS[12:16]
    (first, *rest) = shapes
    assert first[0] == len(PROMPTS)  # not 24
    assert {length for _, length in rest} == {1} and rest[0][0] > rest[-1][0]
    needed = sum(c.tokens - 1 for c in batch)
    assert needed <= sum(rows for rows, _ in rest) <= 1.3 * needed + 24 < 24 * len(rest)


def test_too_little_memory_halves_the_batch_and_nothing_is_lost(loaded, monkeypatch, capsys):
    first, decode, room = answers(loaded), module.decode, 4

    def short_of_memory(model, input_ids, *args, **kwargs):
        if len(input_ids) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(model, input_ids, *args, **kwargs)

    replace_loop(monkeypatch, short_of_memory)
    assert {k: c.ids for k, c in answers(loaded, batch_size=16).items()} == {k: c.ids for k, c in first.items()}
    assert len(capsys.readouterr().err.splitlines()) == 2  # 8, 4
    room = 0
    with pytest.raises(EngineError) as caught:
        answers(loaded, batch_size=2)
    assert caught.value.key == "max_completion_length"


def test_an_adapter_answers_with_its_own_weights():
    import peft

    base = build()
    plain = answers(base, temperature=0.0)
    config = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = Loaded(peft.get_peft_model(base.model, config).eval(), base.tokenizer, contract=base.contract)
    found = answers(adapted, temperature=0.0)
    assert all(c.ids == expected(adapted, p, do_sample=False) for (p, _), c in found.items())
    assert any(found[key].ids != plain[key].ids for key in KEYS)


def test_a_slow_batch_says_how_many_of_its_tokens_there_are(loaded, monkeypatch, capsys):
    monkeypatch.setattr("reasoning_ext.models.watching.EVERY", 0.0)
    answers(loaded, batch_size=len(KEYS))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "generating: 1/24 tokens" and len(said) <= 23  # the last token is read by nobody
    monkeypatch.setattr("reasoning_ext.models.watching.EVERY", 1000.0)
    answers(loaded)
    assert not loaded.model.get_input_embeddings()._forward_pre_hooks and not capsys.readouterr().out
