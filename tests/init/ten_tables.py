"""Ten small tables of ten kinds, as newcomers have them: what `init` is tried on."""

import csv
import json
import random
from itertools import pairwise

WORDS = "amber birch cedar delta ember fjord grove heron inlet jetty knoll larch marsh north ocean plain quail ridge".split()
DICE = random.Random(0)
SUMS = [(a, b) for a in range(11, 41) for b in (3, 8)]
ASKED = [f"Ann has {a} pears and finds {b} more. How many has she?" for a, b in SUMS]
NAMED = [f"What is the opposite of the word number {i}, {WORDS[i % 18]}?" for i in range(60)]


def _numbers():
    return [{"question": asked, "answer": a + b} for asked, (a, b) in zip(ASKED, SUMS, strict=True)]


def _letters():
    rows = []
    for asked, (a, b) in zip(ASKED, SUMS, strict=True):
        options = DICE.sample([a + b, a - b, a + b + 1, a * b], 4)
        rows.append(dict(zip("ABCD", options, strict=True)) | {"question": asked, "key": "ABCD"[options.index(a + b)]})
    return rows


def _law():
    points = ["names the contract", "names the breach", "says what is owed"]
    asked = [f"May the buyer of {i} crates of {WORDS[i % 18]} withdraw?" for i in range(60)]
    return [{"facts": f"The crates came {i} days late.", "question": q, "rubric": points} for i, q in enumerate(asked)]


def _code():
    text = "Write a function `add(n)` that returns n plus {}."
    return [
        {"task": text.format(k), "test_list": [f"assert add(1) == {1 + k}", f"assert add(0) == {k}"]} for k in range(60)
    ]


def _chat():
    said = (
        "It is a word that many people know, and its opposite depends on what is meant by it in the sentence around it."
    )
    return [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": f"{q} {said}"}]} for q in NAMED
    ]


def _traces():
    return [
        {"problem": asked, "reasoning": f"She has {a}. {a} + {b} = {a + b}.", "final_answer": str(a + b)}
        for asked, (a, b) in zip(ASKED, SUMS, strict=True)
    ]


def _odd():
    rows = zip(ASKED, SUMS, strict=True)
    return [
        {"lfd. Nr.": i, "Aufgabentext": asked, "Stufe": "leicht", "Ergebnis (Zahl)": a + b}
        for i, (asked, (a, b)) in enumerate(rows)
    ]


TABLES = {
    "numbers.jsonl": _numbers(),
    "letters.csv": _letters(),
    "words.jsonl": [{"question": q, "answer": DICE.choice(WORDS)} for q in NAMED],
    "law.jsonl": _law(),
    "code.jsonl": _code(),
    "questions.jsonl": [{"question": q} for q in NAMED],
    "chat.jsonl": _chat(),
    "traces.jsonl": _traces(),
    "odd.csv": _odd(),
    "twenty.csv": _numbers()[:20],
}


def write(folder, name):
    """Write a table into a folder and return its path."""
    path, rows = folder / name, TABLES[name]
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def save_parrot(folder):
    """Save a model that answers every prompt with `<think>a</think>14`: each token makes the next one certain."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.templates import build

    tokenizer = build("qwen3")
    tokenizer.save_pretrained(folder)
    # after the line feed that a prompt ends with
    said = ["Ċ", "<think>", "a", "</think>", "1", "4", tokenizer.eos_token]
    size, ids = 448, tokenizer.convert_tokens_to_ids(said)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=size, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=None, eos_token_id=ids[-1], tie_word_embeddings=False, max_position_embeddings=512,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_() if weights.ndim > 1 else weights.fill_(1.0)
        model.model.embed_tokens.weight[range(len(tokenizer)), range(len(tokenizer))] = 1.0
        for before, after in pairwise(ids):
            model.lm_head.weight[after, before] = 2.0
    model.save_pretrained(folder)
    return folder
