"""What rows and tokenizer tell `check`: template, lengths, duplicates, the arithmetic of batches, and what users forget."""

import json
import re
import shutil

import pytest
from conftest import TINY

from reasoning_ext.check import check as check_all
from reasoning_ext.check.cost import batch_facts, batch_line
from reasoning_ext.check.rows import tokenizer_source
from reasoning_ext.check.show import document
from reasoning_ext.recipe.load import load_recipe

SFT = """\
stage: sft
model_name_or_path: ./model
from_scratch: true
dataset_name: ./rows.jsonl
output_dir: out
"""
GRPO = (
    SFT.replace("sft", "grpo")
    + "reward_funcs: [math_answer]\nnum_generations: 4\nper_device_train_batch_size: 8\nmax_completion_length: 56\nmax_steps: 5\n"
)
EVAL = GRPO.replace("stage: grpo", "stage: eval").split("per_device")[0] + "max_completion_length: 56\n"
SFT_ROWS = [
    {"prompt": f"What comes after {a}?", "completion": f"<think>{a} and 1</think>{a + 1}", "answer": str(a + 1)}
    for a in range(16)
]
LONG = {"prompt": "1?", "completion": "<think>" + "1+1 " * 400 + "</think>2", "answer": "2"}


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Check a recipe over a copy of the tiny model and 16 rows; returns the Result."""
    shutil.copytree(TINY / "model", tmp_path / "model")
    monkeypatch.chdir(tmp_path)

    def call(text=SFT, rows=SFT_ROWS, offline=True, whole=True, **files):
        if rows is not None:
            (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for name, content in files.items():
            (tmp_path / name.replace("__", ".")).write_text(content)
        (tmp_path / "r.yaml").write_text(text)
        return next(check_all([load_recipe(tmp_path / "r.yaml")], not whole, offline))

    call.folder = tmp_path
    return call


def told(result):
    """Return the keys of a result's errors, warnings and notes."""
    return {level: [problem.key for problem in result.problems if problem.level == level]
            for level in ("error", "warning", "note")}  # fmt: skip


def template(change):
    return change((TINY / "model" / "chat_template.jinja").read_text())


def test_a_good_recipe_has_nothing_to_complain_of(check):
    result = check()
    assert result.problems == []
    facts = document(result)["facts"]
    assert facts["columns"] == ["prompt", "completion", "answer"] and facts["rows"] == 16
    assert facts["lengths"] == {"shortest": 32, "median": 32, "percentile_95": 35, "longest": 35}
    assert facts["duplicates"] == 0 and facts["context"] == 256 and facts["fitting_share"] == 1
    assert facts["think_contract"]["end"] == "<|end|>"
    assert facts["batch"] == {"rows_a_step": 8, "tokens_an_epoch": 531, "optimizer_steps": 6, "epochs": 3.0}


AGAIN = [dict(row, prompt=row["prompt"].replace(" ", "  ").upper()) for row in SFT_ROWS[:3]]
OTHER = [dict(row, completion="<think>x</think>y") for row in SFT_ROWS[:3]]  # another answer is no duplicate in SFT
EMPTY = [*SFT_ROWS, dict(LONG, completion="")]
TORN = ["<think>1+1=2 2", "x</think>3", "<think>a</think>b<think>c</think>d", "the tags <think> and </think>", "plain"]
STRANGE = [dict(SFT_ROWS[0], prompt="What comes after größer?")]
DROP = SFT + "overlong_rows: drop\n"
CASES = [  # recipe, rows, level, key, code, a part of what is said
    (SFT, [*SFT_ROWS, LONG], "error", "max_length", "too_long", "1 of 17 rows"),
    (DROP, [*SFT_ROWS, LONG], "warning", "max_length", "too_long", "1 of 17 rows"),
    (DROP + "max_length: 8\n", SFT_ROWS, "error", "max_length", "too_long", "; raise max_length"),
    (GRPO, [{"prompt": "1?", "completion": "2", "label": "2"}], "error", "dataset_name", "missing_column", "math_answer"),
    (SFT, [], "error", "dataset_name", "unusable_data", "rows.jsonl is empty"),
    (GRPO + "max_prompt_length: 21\n", SFT_ROWS, "warning", "max_prompt_length", "too_long", "6 of 16 prompts"),
    (GRPO + "max_prompt_length: 3\n", SFT_ROWS, "error", "max_prompt_length", "too_long", "16 of 16 prompts"),
    (GRPO.replace("56", "240"), SFT_ROWS, "warning", "max_completion_length", "too_long", "up to 262 tokens will come"),
    (SFT, SFT_ROWS + AGAIN, "note", "deduplicate", "repeated_rows", "3 of 19 rows repeat an earlier row"),
    (SFT + "deduplicate: exact\n", SFT_ROWS + AGAIN, "", "deduplicate", "", ""),
    (SFT, SFT_ROWS + OTHER, "", "deduplicate", "", ""),
    (GRPO, SFT_ROWS + OTHER, "note", "deduplicate", "repeated_rows", "earlier prompt"),
    (EVAL, SFT_ROWS + AGAIN, "warning", "deduplicate", "repeated_rows", "3 of 19 rows repeat an earlier prompt"),
    (EVAL + "deduplicate: exact\n", SFT_ROWS + AGAIN, "", "deduplicate", "", ""),
    (GRPO, SFT_ROWS + STRANGE, "warning", "model_name_or_path", "changed_text", "1 of 17 prompts lose letters"),
    (EVAL, SFT_ROWS + STRANGE, "warning", "model_name_or_path", "changed_text", "first row 16: 'ö', 'ß'"),
    (SFT, [*SFT_ROWS, dict(LONG, completion="ß")], "error", "model_name_or_path", "changed_text", "first row 16: 'ß'"),
    (SFT + "eval_strategy: steps\neval_steps: 5\n", SFT_ROWS, "error", "dataset_test_split", "unusable_data", ""),
    (GRPO.replace("size: 8", "size: 128"), SFT_ROWS, "error", "dataset_name", "too_few_rows", "takes 32"),
    (GRPO.replace("size: 8", "size: 64"), SFT_ROWS, "", "dataset_name", "", ""),
    (GRPO + "skip_known: {}\n", SFT_ROWS, "warning", "skip_known", "surprising_value", "0.62 epochs"),
    (GRPO.replace("steps: 5", "steps: 12") + "skip_known: {}\n", SFT_ROWS, "", "skip_known", "", ""),
    (SFT, [{"prompt": f"{i}?", "completion": text} for i, text in enumerate(TORN)], "warning", "dataset_name", "torn_thought",
     "2 of 5"),
    (SFT + "pad_token: <|nowhere|>\n", SFT_ROWS, "error", "pad_token", "wrong_value", "<|nowhere|>"),
    (SFT + "eos_token: <|end|>\n", SFT_ROWS, "", "eos_token", "", ""),
    (SFT + "decontaminate: [org/questions]\n", SFT_ROWS, "note", "decontaminate", "hub", "org/questions"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "rows", "level", "key", "code", "said"), CASES)
def test_what_is_found(check, text, rows, level, key, code, said):
    problems = check(text, rows).problems
    found = [(problem.level, problem.code) for problem in problems if problem.key == key]
    assert found == ([(level, code)] if level else [])
    assert any(said in problem.text for problem in problems if problem.key == key) or not level
    assert any(problem.level == "error" for problem in problems) == (level == "error")


def test_a_run_does_not_stumble_over_rows_that_it_will_drop(check):
    text = GRPO + "rename_columns: {question: prompt}\ndataset_format: ./f.py:f\n"
    form = "def f(row):\n    return {'prompt': row['prompt'], 'answer': row['gold']}\n"
    rows = [{"question": f"What comes after {a}?", "gold": str(a + 1) if a % 2 else None} for a in range(40)]
    for whole in (True, False):
        assert check(rows=EMPTY, whole=whole).errors == []
        result = check(text, rows, whole=whole, f__py=form)
        assert result.errors == [] and result.facts["golds"].startswith("20 read, 0 of them")


def test_what_a_template_does_with_thoughts_is_told(check):
    own, empty = SFT + "chat_template_path: ./t.jinja\n", "<|assistant|><think>\n\n</think>\n\n"

    def begins(text):
        return template(lambda whole: whole.replace("-%}<|assistant|>{%- endif", f"-%}}{text}{{%- endif"))

    (check.folder / "model" / "chat_template.jinja").unlink()
    assert told(check()) == {"error": [], "warning": [], "note": ["chat_template_path"]}  # what is used is said
    result = check(own, t__jinja=begins("<|assistant|><think>\n"))
    assert result.inspection.contract.prefix.startswith("<think>") and told(result)["error"] == []
    assert told(check(own, t__jinja=begins(empty)))["warning"] == ["chat_template_path"]
    asks = begins("{% if enable_thinking %}<|assistant|>{% else %}" + empty + "{% endif %}")
    assert told(check(own, t__jinja=asks))["warning"] == ["chat_template_kwargs"]
    assert told(check(own + "chat_template_kwargs: {enable_thinking: true}\n", t__jinja=asks))["warning"] == []


def test_a_broken_template_is_the_templates_fault_and_the_rows_are_read_nevertheless(check):
    own = "chat_template_path: ./t.jinja\n"
    for broken in ("{% if x", "hello", "{{ 1 / 0 }}"):
        result = check(SFT + own, [{"prompt": "1?", "label": "2"}], t__jinja=broken)
        assert told(result)["error"] == ["chat_template_path", "dataset_name"]
    refuses = "{% if messages[0].content == '1?' %}{{ raise_exception('no ones') }}{% endif %}" + template(str)
    for text in (SFT, GRPO):
        errors = check(text + own, [*SFT_ROWS, LONG], t__jinja=refuses).errors
        assert any(e.key == "dataset_name" and "row 16" in e.text and "no ones" in e.text for e in errors)


CONTEXTS = [
    ({"max_position_embeddings": 34}, 34), ({"text_config": {"max_position_embeddings": 34}}, 34),
    ({"max_position_embeddings": 35}, None), ([], None),
    ({"max_position_embeddings": 34, "rope_scaling": {"factor": 4.0}}, None),  # the tokenizer's 256 counts
]  # fmt: skip


@pytest.mark.parametrize(("config", "found"), CONTEXTS)
def test_the_models_context_is_held_against_the_longest_row(config, found, check):
    file = check.folder / "model" / "config.json"
    kept = {key: value for key, value in json.loads(file.read_text()).items() if "max_pos" not in key}
    file.write_text(json.dumps(kept | config if config else config))
    warnings = [problem.text for problem in check().problems if "context" in problem.text]
    assert len(warnings) == bool(found) and all(f"the model's context is {found}" in text for text in warnings)


def test_what_a_strategy_reads_is_held_against_the_context(check):
    (check.folder / "e.jsonl").write_text(json.dumps({"question": "1" * 120, "answer": "1" * 120}) + "\n")
    listed = (
        "{refine: {rounds: 1}}, {refine: {rounds: 2, max_completion_length: 57}}, greedy, {cot: {examples: ./e.jsonl}}"
    )
    entry = f"strategies: [{listed}]\n"
    config = check.folder / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 2000}))
    assert not [one for one in check(EVAL + entry).problems if one.code == "too_long"]
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 300}))
    first, second, shown = [one for one in check(EVAL + entry).problems if one.code == "too_long"]
    assert shown.key == "strategies.3.cot.max_completion_length" and "write" in shown.hint
    come = [int(re.search(r"come to (\d+)", one.found)[1]) for one in (first, second)]
    assert come[1] - come[0] == 3 * (57 - 56) and come[0] > 3 * 56 + 200  # a digit is a token
    assert (first.level, first.key) == ("warning", "strategies.0.refine.max_completion_length")
    assert first.line == (EVAL + entry).count("\n") and f" {(300 - come[0] + 3 * 56) // 3} in" in first.hint
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": come[0] - 1}))
    first, second = [one for one in check(EVAL + entry).problems if one.code == "too_long"]
    assert "max_completion_length: 55 " in first.hint


def test_a_stream_is_looked_at_without_being_read_whole(check):
    result = check(SFT + "dataset_streaming: true\nmax_steps: 4\n")
    assert result.errors == [] and len(result.inspection.rows) == 16 and result.facts["rows"] is None
    assert result.facts.get("batch", {}) == {"rows_a_step": 8, "optimizer_steps": 4}


def test_what_only_the_hub_has_is_left_out_offline(check):
    assert "chat_template_path" in told(check(SFT + "chat_template_path: org/model\n"))["note"]
    for more in ("", "eval_strategy: steps\neval_steps: 5\n"):
        result = check(SFT.replace("./rows.jsonl", "org/rows") + more)
        assert result.unread == "org/rows on the hub, not read offline" and not result.errors
        assert result.inspection.contract is not None  # the tokenizer is here
    long = "If a train leaves the station at noon and drives nine hours at ninety, how far does it come?"
    text = SFT + "decontaminate: [org/questions, ./bench.jsonl]\n"
    result = check(text, [*SFT_ROWS, dict(LONG, prompt=long)], bench__jsonl=json.dumps({"problem": long}) + "\n")
    assert result.errors == [] and result.facts["rows"] == 16


def test_a_sample_goes_over_the_whole_data_set_and_has_the_longest_row(check):
    rows = [{"prompt": "x", "completion": "y" * (1 + 9 * (i == 6003))} for i in range(8999)]
    found = check(SFT + "deduplicate: none\n", rows).inspection
    assert found.numbers[0] == 0 and found.numbers[-1] > 8900 and 1000 < len(found.numbers) <= 2016
    assert 6003 in found.numbers and 6002 not in found.numbers  # every fifth row, and this one
    assert found.rows[found.numbers.index(6003)]["completion"][0]["content"] == "y" * 10


@pytest.mark.parametrize(
    ("text", "facts", "found"),
    [
        (SFT + "gradient_accumulation_steps: 4\n", {"rows": 100, "mean_length": 10.0},
         "32 rows a step, 1000 tokens an epoch, 12 optimizer steps, 3.0 epochs"),
        (SFT, {"rows": 100, "fitting_share": 0.5}, "8 rows a step, 21 optimizer steps, 3.0 epochs"),
        (SFT + "packing: true\nmax_length: 50\n", {"rows": 100, "mean_length": 20.0},
         "8 rows a step, 2000 tokens an epoch, 15 optimizer steps, 3.0 epochs"),
        (SFT, {}, "8 rows a step"),
        (GRPO, {"rows": 16}, "8 completions a step, 2 prompts x 4, 5 optimizer steps, 0.62 epochs"),
        (GRPO.replace("max_steps: 5\n", "gradient_accumulation_steps: 2\nsteps_per_generation: 4\nnum_iterations: 2\n"),
         {"rows": 20}, "16 completions a step, 4 prompts x 4, 8 prompts a generation, 24 optimizer steps, 3.0 epochs"),
        (GRPO.replace("batch_size: 8", "batch_size: 2") + "steps_per_generation: 2\n", {"rows": 16},
         "2 completions a step, 0.5 prompts x 4, 1 prompts a generation, 5 optimizer steps, 0.16 epochs"),
        (SFT.replace("sft", "sample") + "reward_funcs: [math_answer]\nnum_generations: 4\n", {"rows": 10},
         "40 completions of 10 prompts"),
        (SFT.replace("sft", "eval").replace("model_name_or_path: ./model", "models: {a: ./model, b: ./model}")
         + "num_generations: 4\n", {"rows": 10}, "100 completions of 10 prompts"),
        (SFT.replace("sft", "eval") + "num_generations: 0\n", {"rows": 10}, "10 completions of 10 prompts"),
    ],
)  # fmt: skip
def test_the_arithmetic_of_batches(text, facts, found, write_recipe, monkeypatch):
    assert batch_line(batch_facts(load_recipe(write_recipe(text)), facts)) == found
    monkeypatch.setenv("WORLD_SIZE", "2")
    more = batch_facts(load_recipe(write_recipe(text)), {})
    assert not more or max(more.get("rows_a_step", 0), more.get("completions_a_step", 0)) == 2 * int(found.split()[0])


def test_the_tokenizer_is_that_of_the_model_that_the_first_recipe_starts_from(check):
    check()
    sft = load_recipe(check.folder / "r.yaml")
    (check.folder / "2.yaml").write_text(SFT.replace("./model", "out").replace("output_dir: out", "output_dir: out2"))
    second = load_recipe(check.folder / "2.yaml")
    earlier = {str((check.folder / "out").resolve()): sft}
    assert tokenizer_source(second, earlier) == str(check.folder / "model")
    (check.folder / "out2").mkdir()
    (check.folder / "out2" / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    (check.folder / "3.yaml").write_text(SFT.replace("./model", "./out2"))
    assert tokenizer_source(load_recipe(check.folder / "3.yaml"), {}) == "org/base"
    loop = {str((check.folder / "out").resolve()): second}  # a recipe that starts from what it makes
    assert tokenizer_source(second, loop) in (None, "out")


PAYS_ALL = (
    "def mine(completions, answer, **kwargs):\n    return [1.0 if '{sign}' in str(c) else 0.0 for c in completions]\n"
)


def test_rewards_that_pay_for_something_else_stop_check_and_are_a_warning_before_a_run(check):
    text = GRPO.replace("[math_answer]", "[./mine.py:mine]")
    [error] = check(text, mine__py=PAYS_ALL.format(sign="think")).errors
    assert error.code == "wrong_answer_paid"
    run = check(text, mine__py=PAYS_ALL.format(sign="think"), whole=False)
    assert run.errors == [] and "wrong_answer_paid" in [problem.code for problem in run.problems]
