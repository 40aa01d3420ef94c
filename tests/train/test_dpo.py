"""Stage `dpo`: the first loss is ln 2 whatever the reference, pairs are exact in every template, and what is refused is said."""

import json
import math

import pytest
import yaml
from conftest import TINY

from reasoning_ext import pipeline
from reasoning_ext.check import Look
from reasoning_ext.check.keys import check_recipe
from reasoning_ext.check.show import check_and_print
from reasoning_ext.data.columns import DataError
from reasoning_ext.data.format import find_format, format_rows
from reasoning_ext.data.sources import load_rows
from reasoning_ext.data.tokens import tokenize_pair
from reasoning_ext.errors import UserError
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.think.template import decode, find_contract
from reasoning_ext.train import dpo
from tests.templates import TEMPLATES, build

COMMON = {
    "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "logging_steps": 1, "save_strategy": "no", "seed": 0,
    "max_length": 96, "per_device_train_batch_size": 2, "dataset_name": "./pairs.jsonl",
}  # fmt: skip
LORA = {"use_peft": True, "lora_r": 4, "lora_target_modules": ["all-linear"], "learning_rate": 1e-2}
PAIRS = [
    {
        "prompt": f"{a}+{a + 1}",
        "chosen": f"<think>{a} and {a + 1}</think>{2 * a + 1}",
        "rejected": f"<think>{a} and {a}</think>{2 * a}",
    }
    for a in range(20)
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the tiny model with random weights, an SFT adapter on it, and pairs."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("dpo")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(TINY / "model"), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(TINY / "model")
    for name in ("model", "adapter"):
        tokenizer.save_pretrained(folder / name)
    model.save_pretrained(folder / "model")
    base = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(folder / "adapter")
    put(folder / "pairs.jsonl", PAIRS)
    return folder


def put(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def recipe_in(home, tmp_path):
    """Write a recipe of stage dpo beside the model and load it; its output_dir is in tmp_path."""

    def write(name="out", **values):
        made = COMMON | {"stage": "dpo", "model_name_or_path": "./model", "output_dir": str(tmp_path / name)} | values
        path = home / f"{tmp_path.name}_{name}.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in made.items() if value is not None}))
        return load_recipe(path)

    return write


@pytest.fixture
def run(recipe_in, monkeypatch):
    """Run a recipe and return its metrics, without what `check` says before."""
    monkeypatch.setattr(Look, "look", lambda self: None)

    def call(name="out", **values):
        recipe = recipe_in(name, **values)
        assert pipeline.run_recipes([recipe]) == 0
        return [json.loads(line) for line in (recipe.output_dir / "metrics.jsonl").read_text().splitlines()]

    return call


WAYS = {
    "all weights": {},
    "all weights in 16 bits": {"dtype": "bfloat16"},
    "all weights, precomputed": {"precompute_ref_log_probs": True},
    "a new adapter": LORA,
    "an adapter trained further": LORA | {"model_name_or_path": "./adapter"},
    "an adapter on 4-bit weights trained further": LORA | {"model_name_or_path": "./adapter", "load_in_4bit": True},
    "an adapter trained further, precomputed": LORA | {"model_name_or_path": "./adapter", "precompute_ref_log_probs": True},
    "a new adapter on a merged one": LORA | {"model_name_or_path": "./adapter", "merge_adapter": True},
    "all weights after a merge": {"model_name_or_path": "./adapter", "precompute_ref_log_probs": True},
}  # fmt: skip


@pytest.mark.parametrize("values", WAYS.values(), ids=WAYS)
def test_the_first_loss_is_ln_2_because_the_reference_is_the_model_itself(run, tmp_path, values):
    rows = run(**{"max_steps": 3, "learning_rate": 1e-3} | values)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[0] == pytest.approx(math.log(2), abs=2e-3 if "dtype" in values else 1e-5)
    assert rows[0]["rewards/margins"] == pytest.approx(0, abs=2e-2 if "dtype" in values else 1e-4)
    assert losses[-1] != losses[0], "nothing was trained"
    saved = "adapter_model.safetensors" if values.get("use_peft") else "model.safetensors"
    assert (tmp_path / "out" / saved).is_file() and (tmp_path / "out" / "DONE").is_file()


def test_ten_steps_are_five_and_five_more(run, recipe_in, tmp_path):
    values = {
        "save_strategy": "steps", "save_steps": 5, "max_steps": 10, "learning_rate": 1e-3, "eval_strategy": "steps",
        "eval_steps": 5, "dataset_train_split": "train[:16]", "dataset_test_split": "train[16:]",
    }  # fmt: skip
    recipe = recipe_in("cut", **values)

    class Stop(Exception):
        pass

    from reasoning_ext.train.callbacks import RunRecorder

    before = RunRecorder.on_save

    def stop(self, args, state, control, **kwargs):
        before(self, args, state, control, **kwargs)
        if state.global_step == 5:
            raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(RunRecorder, "on_save", stop)
        pipeline.run_recipes([recipe])
    cut, whole = run("cut", **values), run("whole", **values)
    for key in ("loss", "eval_loss", "rewards/margins", "eval_rewards/accuracies"):
        found = [[row[key] for row in rows if key in row] for rows in (cut, whole)]
        assert found[0] == pytest.approx(found[1], abs=1e-3) and len(found[0]) == (2 if "eval" in key else 10), key
    assert len({row["loss"] for row in whole if "loss" in row}) == 10


def test_progress_names_accuracy_and_margin(run, capsys):
    run(max_steps=1)
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("dpo  step 1/1")]
    assert all(f"  {name} " in line for name in ("loss", "rewards/accuracies", "rewards/margins"))


# --- rows in tokens

THOUGHT = "First 3+4=7.\n\nThen 7*2=14,  so\tthe answer\nis 14 — ja, größer als <b> & λ."
ANSWER = "The answer is \\boxed{14}.\n"
TRACE, PLAIN = f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}", ANSWER
WRONG = "<think>\n7*2=15 and <|im_end|>\n</think>\n\n15"
QUESTION = [{"role": "user", "content": "What is (3+4)*2?"}]
SIDES = {
    "both think": (TRACE, WRONG),
    "one thinks": (TRACE, PLAIN),
    "the other thinks": (PLAIN, WRONG),
    "none thinks": (PLAIN, "15"),
}


def said(text):
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize("sides", SIDES.values(), ids=SIDES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_both_sides_are_exact_behind_one_prompt(name, sides):
    tokenizer = build(name)
    contract = find_contract(tokenizer)
    row = {"prompt": QUESTION, "chosen": said(sides[0]), "rejected": said(sides[1])}
    pair = tokenize_pair(tokenizer, contract, row, 0)
    asked = tokenizer.apply_chat_template(contract.messages(QUESTION), add_generation_prompt=True, tokenize=False)
    prompt = decode(tokenizer, pair.prompt_ids)
    assert pair.exact and asked.startswith(prompt)
    assert asked.removeprefix(prompt) in ("", contract.prefix, contract.closed)
    if sides == (TRACE, WRONG):
        assert prompt == asked.removesuffix(contract.closed)
    for ids, text in zip((pair.chosen_ids, pair.rejected_ids), sides, strict=True):
        thinks = text.startswith("<think>")
        before = asked if contract.closed and not thinks else asked.removesuffix(contract.prefix or contract.closed)
        written = text if contract.closed and not thinks else contract.native(text)
        assert decode(tokenizer, pair.prompt_ids + ids) == before + written + contract.end
        assert ids[-1] == contract.end_id


def test_a_pair_of_which_one_side_thinks_shares_the_shorter_prompt():
    tokenizer = build("deepseek_r1_distill")
    contract = find_contract(tokenizer)
    pair = tokenize_pair(tokenizer, contract, {"prompt": QUESTION, "chosen": said(TRACE), "rejected": said(PLAIN)}, 0)
    assert decode(tokenizer, pair.chosen_ids).startswith("<think>\n")
    assert decode(tokenizer, pair.rejected_ids).startswith(PLAIN)
    assert not decode(tokenizer, pair.prompt_ids).rstrip().endswith("<think>")


def test_the_batch_is_never_cut(run, recipe_in, monkeypatch):
    kept = []
    monkeypatch.setattr(dpo, "train", lambda trainer, *_: kept.append(trainer) or 130)
    monkeypatch.setattr(Look, "look", lambda self: None)
    longest = max(len(row["prompt"]) + len(row["chosen"]) for row in PAIRS) - 13  # tags and roles are tokens
    recipe = recipe_in(max_length=longest, overlong_rows="drop")
    pipeline.run_recipes([recipe])
    [trainer] = kept
    tokenizer, texts = trainer.processing_class, []
    for batch in trainer.get_train_dataloader():
        for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True):
            texts.append(tokenizer.decode(ids[mask.bool()]))
    written = {row[side] + "<|end|>" for row in PAIRS for side in ("chosen", "rejected")}
    assert texts and {*texts} <= written


# --- what is dropped and refused


def read(recipe_in, tmp_path, rows, **values):
    """Tokenize rows as the stage will; return what became of them as lines."""
    from reasoning_ext.data.row_options import row_options
    from reasoning_ext.data.rows import prepare
    from reasoning_ext.models.source import model_source
    from reasoning_ext.train.token_rows import TokenOptions, tokens_of

    file = put(tmp_path / "rows.jsonl", rows)
    recipe = recipe_in(dataset_name=str(file), **values)
    prepared = prepare(row_options(recipe))
    how = TokenOptions("dpo", None, recipe.get("max_length"), recipe.get("overlong_rows"))
    return tokens_of(prepared, how, *model_source(recipe, True).load_tokenizer()), prepared.lines()


def test_pairs_that_teach_nothing_are_dropped_and_counted(recipe_in, tmp_path):
    same, empty, none = ({**PAIRS[0], "rejected": text} for text in (PAIRS[0]["chosen"], " ", None))
    rows, lines = read(recipe_in, tmp_path, [PAIRS[1], same, empty, none, PAIRS[2], PAIRS[2]], deduplicate="exact")
    assert rows.num_rows == 2
    assert lines[1:] == [
        "without a chosen or a rejected answer: 4 rows, 2 dropped",
        "with the same answer chosen and rejected: 3 rows, 1 dropped",
        "deduplicate exact: 2 rows, 1 dropped",
    ]


def test_several_pairs_of_one_prompt_are_no_duplicates(recipe_in, tmp_path):
    other = {**PAIRS[0], "rejected": "<think>0 and 7</think>7"}
    assert read(recipe_in, tmp_path, [PAIRS[0], other, PAIRS[0]], deduplicate="exact")[0].num_rows == 2


def test_a_pair_with_a_side_that_is_too_long_is_refused_or_dropped(recipe_in, tmp_path):
    long = {**PAIRS[0], "rejected": f"<think>{'0 ' * 40}</think>0"}
    with pytest.raises(DataError, match="1 of 2 rows are longer than max_length 64") as error:
        read(recipe_in, tmp_path, [PAIRS[1], long], max_length=64)
    assert error.value.key == "max_length" and "\n" not in str(error.value)
    rows, lines = read(recipe_in, tmp_path, [PAIRS[1], long], max_length=64, overlong_rows="drop")
    assert rows.num_rows == 1 and lines[-1] == "up to max_length 64: 1 rows, 1 dropped"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "1+1", "completion": "2"}, "stage dpo needs the column chosen; after formatting there are prompt, c"),
        ({"prompt": "1+1", "chosen": "2"}, "stage dpo needs the column rejected"),
        ({"chosen": "2", "rejected": "3"}, "needs the column prompt; the data set has chosen, rejected"),
        (
            {"prompt": "1+1", "chosen": [{"role": "user", "content": "1+1"}, *said("2")], "rejected": "3"},
            "write dataset_format: preferences for whole conversations",
        ),
    ],
)  # fmt: skip
def test_rows_that_are_no_pairs_are_refused_in_a_line(recipe_in, tmp_path, row, said):
    recipe = recipe_in(dataset_name=str(put(tmp_path / "rows.jsonl", [row])))
    with pytest.raises((UserError, DataError)) as error:
        pipeline.run_recipes([recipe])
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"from_scratch": True}, "from_scratch: found true"),
        ({"beta": 0.0}, "beta: found 0.0"),
        ({"model_name_or_path": "./adapter"}, "use_peft: found false, whose reference would be the model below the adapter"),
        ({"sync_ref_model": True, "use_peft": True}, "sync_ref_model: found true with use_peft: true"),
        ({"precompute_ref_log_probs": True, "dataset_streaming": True}, "precompute_ref_log_probs: found true with"),
        ({"backend": "unsloth", "max_length": None, "max_seq_length": 512}, "max_length: found 1024, where Unsloth would cut"),
        ({"load_in_4bit": True}, "load_in_4bit: found true"),
        ({"output_dir": None}, "output_dir: the key is missing; stage dpo needs model_name_or_path, dataset_name, output_dir"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_work_is_said_before_torch_is_imported(recipe_in, values, said):
    with pytest.raises(UserError) as error:
        check_recipe(recipe_in(**values)).refuse()
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("key, value, said", [
    ("loss_type", ["sigmod"], "loss_type: found 'sigmod', allowed: sigmoid, hinge"),
    ("loss_type", "sigmoid", "write [sigmoid]"), ("truncation_mode", "keep_end", "no row is ever cut"),
    ("overlong_rows", "cut", "overlong_rows: found 'cut', allowed: error, drop"),
    ("train_on", "answer", "stage sft has this key, stage dpo has not"),
])  # fmt: skip
def test_a_wrong_key_is_said(recipe_in, key, value, said):
    with pytest.raises(UserError) as error:
        recipe_in(**{key: value})
    assert said in str(error.value)


def test_what_trl_refuses_is_one_line(run):
    with pytest.raises(UserError, match="DPOTrainer refuses these values: Label smoothing must be"):
        run(max_steps=1, loss_type=["exo_pair"])


def test_the_trainers_own_class_is_the_one_that_trl_has_now(run, monkeypatch):
    """Unsloth puts a class of its own in DPOTrainer's place, which must be the one that is built."""
    import trl

    class Patched(trl.DPOTrainer):
        pass

    kept = []
    monkeypatch.setattr(trl, "DPOTrainer", Patched)
    monkeypatch.setattr(dpo, "train", lambda trainer, *_: kept.append(trainer) or 0)
    with pytest.raises(FileNotFoundError):  # nothing was logged
        run(max_steps=1)
    assert isinstance(kept[0], Patched)


# --- check, formats, sources


def check(recipe, capsys):
    code = check_and_print([recipe], [], offline=True, show=0, as_json=True)
    [document] = json.loads(capsys.readouterr().out)["recipes"]
    return code, document


def test_check_shows_a_pair_and_counts(recipe_in, capsys):
    recipe = recipe_in(max_steps=-1, num_train_epochs=2.0, gradient_accumulation_steps=5)
    assert check_and_print([recipe], [], offline=True, show=1, as_json=False) == 0
    out = capsys.readouterr().out
    assert "prompt (not trained on): <|user|>0+1<|assistant|>" in out
    assert "chosen (made more likely): <think>0 and 1</think>1<|end|>" in out
    assert "rejected (made less likely): <think>0 and 0</think>0<|end|>" in out
    assert "tokens of 20 pairs, of each the longer side:" in out and "max_length 96" in out
    code, document = check(recipe, capsys)
    assert code == 0
    assert {"rows_a_step": 10, "optimizer_steps": 4, "epochs": 2.0}.items() <= document["facts"]["batch"].items()
    longer, mean = document["facts"]["lengths"]["longest"], document["facts"]["mean_length"]
    assert longer < mean < 2 * longer


def test_check_says_what_is_wrong_with_the_pairs(recipe_in, tmp_path, capsys):
    rows = [{**row, "rejected": "0", "chosen": row["chosen"].replace("</think>", "")} for row in PAIRS]
    recipe = recipe_in(dataset_name=str(put(tmp_path / "rows.jsonl", rows)), max_length=12)
    code, document = check(recipe, capsys)
    texts = [f"{f['level']} {f['key']}: {f['text']}" for f in document["findings"]]
    assert code == 2 and any("error max_length: 20 of 20 rows are longer than max_length 12" in text for text in texts)
    assert any("20 of 20 chosen answers have a thought that is not closed" in text for text in texts)
    assert any("so that longer answers are taught too" in text for text in texts)
    code, document = check(
        recipe_in("b", dataset_name=str(tmp_path / "rows.jsonl"), loss_type=["sigmoid_norm"]), capsys
    )
    assert code == 0 and not any("are taught too" in f["text"] for f in document["findings"])


def test_whole_conversations_become_pairs(tmp_path):
    import datasets

    turn, asked = {"role": "user", "content": "1+1?"}, {"role": "user", "content": "1+2?"}
    rows = [
        {"prompt": "1+1?", "chosen": [turn, *said("2")], "rejected": [turn, *said("3")], "score": 1},
        {"prompt": "1+1?", "chosen": [turn, *said("2")], "rejected": [asked, *said("3")], "score": 2},
    ]
    dropped = []
    made = format_rows(datasets.Dataset.from_list(rows), find_format("preferences", tmp_path), dropped=dropped)
    assert list(made) == [{"score": 1, "prompt": [turn], "chosen": said("2"), "rejected": said("3")}] and dropped == [1]
    with pytest.raises(DataError, match="the column rejected does not end with an assistant's message after a prompt"):
        format_rows(
            datasets.Dataset.from_list([rows[0] | {"rejected": [turn, asked]}]), find_format("preferences", tmp_path)
        )


def test_the_report_shows_what_is_preferred(run, tmp_path):
    from reasoning_ext.runs.report import write_report

    run(max_steps=2, learning_rate=1e-3)
    write_report([tmp_path / "out"], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for title in ("share of pairs whose chosen answer is preferred", "margin between chosen and rejected answers"):
        assert title in page
    assert "not finished" not in page and "went in <bdi>out</bdi> from" in page


def test_a_sample_run_gives_each_stage_its_own_file(tmp_path):
    put(tmp_path / "samples.jsonl", [{"completion": "2"}])
    put(tmp_path / "pairs.jsonl", PAIRS)
    put(tmp_path / "sft.jsonl", [{"prompt": "1+1", "completion": "2"}])
    assert load_rows(str(tmp_path), tmp_path, stage="dpo").column_names == ["prompt", "chosen", "rejected"]
    assert load_rows(str(tmp_path), tmp_path, stage="sft").column_names == ["prompt", "completion"]
    with pytest.raises(DataError) as error:
        load_rows(str(tmp_path), tmp_path, stage="grpo")
    assert str(error.value).endswith(
        f"found the sample run {tmp_path} without prompts.jsonl, which stage grpo reads; "
        "make it again with a new output_dir"
    )
