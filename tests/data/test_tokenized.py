"""Training rows in tokens, over tokenizers of many kinds: exact or counted as not, and never a turn's end in the middle."""

from functools import cache

import datasets
import pytest

from reasoning_ext.data.columns import DataError
from reasoning_ext.data.prepared import Prepared
from reasoning_ext.data.token_sets import drop_overlong, prompt_rows, tokenize_rows
from reasoning_ext.data.tokens import IGNORED, LossOptions, tokenize
from reasoning_ext.think.render import Rendered, render_row
from reasoning_ext.think.template import find_contract
from tests.templates import TEXT, build

QUESTION = [{"role": "user", "content": "What is 3+4?"}]
CASES = {
    "thought": "<think>\nFirst 3+4=7, größer als λ.\n\n  So:\n</think>\n\nThe answer is \\boxed{7}.",
    "tight": "<think>7</think>7",
    "two tags": "<think>\nWhat does <think> mean?\n</think>\n\nSee `<think>` there.",
    "leading space": "  7",
    "leading lines": "\n\n7 ",
    "trailing lines": "7 \n\n",
    "spaces before stops": "3 , 4 . do n't ' s ?",
    "no answer": "<think>\nAnd so on",
}


@cache
def kind(name):
    """Return the JSON of a small tokenizer of the kind that a family of models has."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    if name.startswith("bytes"):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=name == "bytes, prefix space")
        tokenizer.decoder = decoders.ByteLevel()
        if name == "bytes, NFC":
            tokenizer.normalizer = normalizers.NFC()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    elif name == "words":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer, tokenizer.decoder = normalizers.BertNormalizer(), decoders.WordPiece()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]"], show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        scheme = name.removeprefix("pieces, ")
        if scheme == "Llama 2":
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
        tokenizer.decoder = decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if scheme != "never" else []))
        special = ["<unk>", *(f"<0x{i:02X}>" for i in range(256))]
        trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXT * 3, trainer)
    return tokenizer.to_str()


KINDS = [
    "bytes",
    "bytes, prefix space",
    "bytes, NFC",
    "pieces, Llama 2",
    "pieces, first",
    "pieces, always",
    "pieces, never",
]


def tokens_of(tokenizer, completion, prompt=QUESTION):
    """Return `(contract, rendered row, its tokens)`."""
    contract = find_contract(tokenizer)
    row = render_row(tokenizer, contract, {"prompt": prompt, "completion": completion})
    return contract, row, tokenize(tokenizer, row)


@pytest.mark.parametrize("strip", [False, True], ids=["", "strip"])
@pytest.mark.parametrize("template", ["qwen3", "llama3", "deepseek_r1_distill"])
@pytest.mark.parametrize("name", KINDS)
def test_a_row_is_exact_with_every_kind_of_tokenizer(name, template, strip):
    tokenizer = build(template, kind=kind(name), strip=strip)
    for case, completion in CASES.items():
        contract, row, tokens = tokens_of(tokenizer, completion)
        prompt = tokenizer(row.prompt, add_special_tokens=False)["input_ids"]
        assert tokens.input_ids[: tokens.prompt] == prompt, case
        assert tokens.exact and tokens.input_ids[-1] == contract.end_id, case
        decode = lambda ids: tokenizer.decode(ids, clean_up_tokenization_spaces=False)  # noqa: E731
        written = decode(tokens.input_ids[:-1]).removeprefix(decode(prompt))
        assert written == (row.thought + row.answer).removesuffix(contract.end), case
        assert not tokens.spelled and tokens.input_ids[tokens.prompt : -1].count(contract.end_id) == 0


def test_a_tokenizer_that_changes_the_text_is_seen_through():
    for completion in ("The ANSWER", "3+4", "größer"):
        assert not tokens_of(build("llama3", kind=kind("words")), completion)[2].exact
    assert not tokens_of(build("llama3", kind=kind("bytes, NFC")), "cafe\u0301")[2].exact


@pytest.mark.parametrize("name", KINDS)
def test_the_text_of_a_token_that_ends_a_turn_is_trained_on_as_letters(name):
    tokenizer = build("qwen3", kind=kind(name))
    completion = "<think>\nIt ends with <|im_end|><|im_end|>.\n</think>\n\nUse <|im_end|> or <|endoftext|>."
    contract, _, tokens = tokens_of(tokenizer, completion)
    body = tokens.input_ids[tokens.prompt : -1]
    assert tokens.exact and tokens.spelled
    assert not {contract.end_id, tokenizer.pad_token_id} & set(body) and tokens.input_ids[-1] == contract.end_id
    thought = tokenizer.decode(body[: tokens.thought])
    assert thought.count("<|im_end|>") == 2 and "Use" not in thought


def test_the_tags_of_channels_are_no_letters():
    tokenizer = build("gptoss")
    tokenizer.eos_token = "<|end|>"
    _, _, tokens = tokens_of(tokenizer, "<think>3+4</think>7")
    assert tokenizer.convert_tokens_to_ids("<|end|>") in tokens.input_ids[tokens.prompt :] and not tokens.spelled


def test_a_thought_ends_where_its_tag_ends():
    tokenizer = build("qwen3")
    _, _, tokens = tokens_of(tokenizer, CASES["tight"])
    assert tokenizer.decode(tokens.input_ids[tokens.prompt :][: tokens.thought]) == "<think>7</think>"
    _, _, tokens = tokens_of(tokenizer, CASES["no answer"])
    assert tokens.prompt + tokens.thought == len(tokens.input_ids)
    assert tokens_of(tokenizer, "7")[2].thought == 0


def test_a_row_that_merges_with_its_prompt_keeps_the_prompts_ids():
    tokenizer = build("llama3")
    tokens = tokenize(tokenizer, Rendered("The ans", "", "wer is"))
    assert tokens.input_ids[: tokens.prompt] == tokenizer("The ans", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(tokens.input_ids) == "The answer is" and tokens.exact


def rows(*completions, **columns):
    made = [{"prompt": QUESTION, "completion": [{"role": "assistant", "content": c}]} | columns for c in completions]
    return datasets.Dataset.from_list(made)


ENDS = [{"role": "user", "content": "3"}, {"role": "assistant", "content": "4"}]
UNUSABLE = [  # completions, prompt, what is trained on, what is said
    ([CASES["no answer"]], QUESTION, "answer", "row 0: .*no answer"), (["7", "8", " "], QUESTION, "completion", "row 2: .*empty"),
    (["7"], ENDS, "completion", "row 0: .*assistant"),
]  # fmt: skip


@pytest.mark.parametrize(("completions", "prompt", "trained", "said"), UNUSABLE)
def test_what_cannot_be_trained_on_is_refused_by_row(completions, prompt, trained, said):
    tokenizer = build("qwen3")
    with pytest.raises(DataError, match=said):
        tokenize_rows(rows(*completions, prompt=prompt), tokenizer, find_contract(tokenizer), LossOptions(trained))


def test_rows_carry_weights_only_where_they_differ():
    tokenizer = build("qwen3")
    contract = find_contract(tokenizer)
    plain = tokenize_rows(rows("7"), tokenizer, contract, LossOptions())
    assert set(plain.column_names) == {"input_ids", "labels", "exact", "spelled", "defused"}
    [row] = tokenize_rows(rows(CASES["tight"]), tokenizer, contract, LossOptions(thought_weight=0.5, answer_weight=2.0))
    assert sorted(set(row["loss_weights"])) == [0.0, 0.5, 2.0]
    assert [weight > 0 for weight in row["loss_weights"]] == [label != IGNORED for label in row["labels"]]
    [row] = tokenize_rows(rows(CASES["tight"]), tokenizer, contract, LossOptions("answer"))
    trained = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != IGNORED]
    assert tokenizer.decode(trained) == f"7{contract.end}"


def lengths(*sizes):
    return datasets.Dataset.from_list([{"input_ids": [1] * size, "labels": [1] * size} for size in sizes])


def test_long_rows_are_refused_or_dropped_and_never_cut():
    assert drop_overlong(lengths(3, 5), None, "error")[1] == 0
    kept, dropped = drop_overlong(lengths(3, 5, 4), 4, "drop")
    assert dropped == 1 and [len(ids) for ids in kept["input_ids"]] == [3, 4]
    with pytest.raises(DataError, match=r"1 of 3 rows .* 4 \(row 1 has 5 tokens\)"):
        drop_overlong(lengths(3, 5, 4), 4, "error")
    with pytest.raises(DataError, match="no row is left"):
        drop_overlong(lengths(5), 4, "drop")


def test_long_prompts_are_dropped_and_what_a_template_refuses_is_one_line():
    tokenizer = build("gemma3")
    contract = find_contract(tokenizer)
    size = len(tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True)["input_ids"])
    for limit in (size, None):
        assert prompt_rows(Prepared(rows("7")), tokenizer, contract, limit).column_names == ["prompt"]
    longer = Prepared(
        datasets.concatenate_datasets([rows("7"), rows("7", prompt=[{"role": "user", "content": "3+4 " * 9}])])
    )
    assert prompt_rows(longer, tokenizer, contract, size).num_rows == 1 and longer.steps[0]["dropped"] == 1
    with pytest.raises(DataError, match="all 1 prompts"):
        prompt_rows(Prepared(rows("7")), tokenizer, contract, size - 1)
    tokenizer.chat_template = "{% if messages[0].role == 'system' %}{{ raise_exception('No system role') }}{% endif %}x"
    system = [{"role": "system", "content": "Be brief."}, *QUESTION]
    with pytest.raises(DataError, match="row 0: the chat template refuses the prompt: TemplateError: No system role"):
        prompt_rows(Prepared(rows("7", prompt=system)), tokenizer, contract, None)


def test_a_stream_stops_at_the_first_row_that_is_too_long_unless_it_may_be_dropped():
    stream = lengths(3, 9, 4).to_iterable_dataset()
    kept, _ = drop_overlong(stream, 5, "drop")
    assert [len(row["input_ids"]) for row in kept] == [3, 4]
    refused, _ = drop_overlong(stream, 5, "error")
    with pytest.raises(DataError, match="row 1 has 9 tokens, more than max_length 5"):
        list(refused)
