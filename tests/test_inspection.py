"""What rows and tokenizer tell `check`: template, lengths, duplicates, the arithmetic of batches, and what users forget."""

import json
import shutil

import pytest
from conftest import TINY

from reasoning_ext.batches import batch_facts, batch_line
from reasoning_ext.check import check as check_all
from reasoning_ext.check_output import document, histogram, length_facts
from reasoning_ext.inspection import _sample, inspect, tokenizer_source
from reasoning_ext.recipe import load_recipe

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


def said(result, level):
    """Return `key: text` of a result's findings of one level."""
    found = [problem for problem in result.problems if problem.level == level]
    if level == "error":
        return [str(problem).partition("r.yaml")[2] for problem in found]
    return [f"{problem.key}: {problem.text}" for problem in found]


def template(change):
    return change((TINY / "model" / "chat_template.jinja").read_text())


def test_a_good_recipe_has_nothing_to_complain_of(check):
    result = check()
    assert (said(result, "error"), said(result, "warning"), said(result, "note")) == ([], [], [])
    facts = document(result)["facts"]
    assert facts["columns"] == ["prompt", "completion", "answer"] and facts["rows"] == 16
    assert facts["lengths"] == {"shortest": 32, "median": 32, "percentile_95": 35, "longest": 35}
    assert facts["duplicates"] == 0 and facts["context"] == 256 and facts["fitting_share"] == 1
    assert facts["think_contract"]["end"] == "<|end|>"
    assert facts["batch"] == {"rows_a_step": 8, "tokens_an_epoch": 531, "optimizer_steps": 6, "epochs": 3.0}


def test_who_forgets_the_chat_template_is_told_what_is_used(check):
    (check.folder / "model" / "chat_template.jinja").unlink()
    [note] = said(check(), "note")
    assert note.startswith(
        "chat_template_path: left out, and the tokenizer has no chat template: turns are written as User:"
    )


def test_who_forgets_max_length_is_told_how_long_the_rows_are(check):
    result = check(rows=[*SFT_ROWS, LONG])
    [error] = said(result, "error")
    assert error.startswith(
        ": max_length: left out, so it is TRL's default: 1 of 17 rows are longer than max_length 1024 (the longest 16"
    )
    assert error.endswith("; raise max_length, or write overlong_rows: drop")
    result = check(SFT + "overlong_rows: drop\n", rows=[*SFT_ROWS, LONG])
    assert said(result, "error") == [] and result.facts["batch"]["optimizer_steps"] == 6  # of the 16 that are left
    assert any(w.startswith("max_length: left out") and "will be dropped" in w for w in said(result, "warning"))
    [error] = said(check(SFT + "overlong_rows: drop\nmax_length: 8\n"), "error")
    assert error.endswith("; raise max_length")


def test_who_forgets_the_gold_column_is_told_which_there_are(check):
    rows = [{"prompt": "1?", "completion": "2", "label": "2"}]
    assert said(check(GRPO, rows), "error") == [
        ":4: dataset_name: the reward math_answer needs the column answer; after formatting there are prompt, completion, label"
    ]


def test_a_csv_without_names_of_columns(check):
    [error] = said(check(SFT.replace("jsonl", "csv"), rows__csv="1+1,2\n2+2,4\n"), "error")
    assert error == (
        ":4: dataset_name: prompt_completion needs the column prompt; the data set has 1+1, 2; say how its rows are read "
        "with dataset_format or rename_columns; the first line of a CSV file names its columns"
    )


def test_a_file_without_rows(check):
    assert said(check(rows=[]), "error") == [f":4: dataset_name: {check.folder}/rows.jsonl is empty"]


def test_a_template_that_opens_the_thought(check):
    opens = template(lambda text: text.replace("-%}<|assistant|>{%- endif", "-%}<|assistant|><think>\n{%- endif"))
    result = check(SFT + "chat_template_path: ./t.jinja\n", t__jinja=opens)
    assert result.inspection.contract.prefix.startswith("<think>") and said(result, "error") == []


def test_a_template_that_closes_an_empty_thought(check):
    empty = "<|assistant|><think>\n\n</think>\n\n"
    closes = template(lambda text: text.replace("-%}<|assistant|>{%- endif", f"-%}}{empty}{{%- endif"))
    [warning] = said(check(SFT + "chat_template_path: ./t.jinja\n", t__jinja=closes), "warning")
    assert warning.startswith("chat_template_path: the generation prompt closes an empty thought")
    assert "enable_thinking" not in warning
    switch = "{% if enable_thinking %}<|assistant|>{% else %}" + empty + "{% endif %}"
    asks = template(lambda text: text.replace("-%}<|assistant|>{%- endif", f"-%}}{switch}{{%- endif"))
    with_switch = SFT + "chat_template_path: ./t.jinja\n"
    [warning] = said(check(with_switch, t__jinja=asks), "warning")
    assert warning.endswith("write chat_template_kwargs: {enable_thinking: true}")
    assert said(check(with_switch + "chat_template_kwargs: {enable_thinking: true}\n"), "warning") == []


@pytest.mark.parametrize("broken", ["{% if x", "hello", "{{ 1 / 0 }}"])
def test_a_broken_template_is_the_templates_fault_and_the_rows_are_read_nevertheless(broken, check):
    rows = [{"prompt": "1?", "label": "2"}]
    first, second = said(check(SFT + "chat_template_path: ./t.jinja\n", rows, t__jinja=broken), "error")
    assert first.startswith(":6: chat_template_path: the chat template ")
    assert second.startswith(":4: dataset_name: stage sft needs the column completion")


def test_a_template_that_refuses_a_prompt_is_no_traceback(check):
    refuses = "{% if messages[0].content == '1?' %}{{ raise_exception('no ones') }}{% endif %}" + template(str)
    for text in (SFT, GRPO + "dataset_format: prompt_completion\n"):
        result = check(text + "chat_template_path: ./t.jinja\n", [*SFT_ROWS, LONG], t__jinja=refuses)
        assert any(
            "dataset_name: row 16: the chat template refuses the prompt: no ones" in e for e in said(result, "error")
        )


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"max_position_embeddings": 34}, 34),
        ({"text_config": {"max_position_embeddings": 34}}, 34),
        ({"max_position_embeddings": 35}, None),
        ({"max_position_embeddings": 34, "rope_scaling": {"factor": 4.0}}, None),  # the tokenizer's 256 counts
        ([], None),
    ],
)
def test_the_models_context_is_held_against_the_longest_row(config, found, check):
    file = check.folder / "model" / "config.json"
    kept = json.loads(file.read_text())
    file.write_text(
        json.dumps(config if not config else {k: v for k, v in kept.items() if "max_pos" not in k} | config)
    )
    warnings = [w for w in said(check(), "warning") if "context" in w]
    text = (
        "max_length: sequences of up to 35 tokens will come, but the model's context is {}; lower max_length, or take"
    )
    assert [w.rpartition(" a model")[0] for w in warnings] == ([text.format(found)] if found else [])


def test_the_context_must_hold_prompt_and_completion(check):
    result = check(GRPO.replace("56", "240"))
    [warning] = said(result, "warning")
    assert warning.startswith(
        "max_completion_length: sequences of up to 262 tokens will come, but the model's context is 256"
    )
    assert said(check(GRPO.replace("56", "234")), "warning") == []


def test_prompts_over_the_limit(check):
    [warning] = said(check(GRPO + "max_prompt_length: 21\n"), "warning")
    assert warning == "max_prompt_length: found 21; 6 of 16 prompts have more tokens and will be dropped"
    [error] = said(check(GRPO + "max_prompt_length: 3\n"), "error")
    assert error == ":11: max_prompt_length: found 3, but all prompts have more tokens; raise it"


def test_duplicates_are_counted_where_they_are_kept(check):
    again = [dict(row, prompt=row["prompt"].replace(" ", "  ").upper()) for row in SFT_ROWS[:3]]
    notes = [n for n in said(check(rows=SFT_ROWS + again), "note") if n.startswith("dedup")]
    assert notes == ["deduplicate: left out: 3 of 19 rows repeat an earlier row; write exact to drop them"]
    result = check(SFT + "deduplicate: exact\n", SFT_ROWS + again)
    assert said(result, "note") == [] and result.inspection.facts["rows"] == 16
    other = [dict(row, completion="<think>x</think>y") for row in SFT_ROWS[:3]]  # another answer is no duplicate in SFT
    assert [n for n in said(check(rows=SFT_ROWS + other), "note") if n.startswith("dedup")] == []
    assert any("3 of 19 rows repeat an earlier prompt" in n for n in said(check(GRPO, SFT_ROWS + other), "note"))


def test_a_stream_is_looked_at_without_being_read_whole(check):
    result = check(SFT + "dataset_streaming: true\nmax_steps: 4\n")
    assert result.errors == [] and len(result.inspection.rows) == 16 and result.inspection.facts["rows"] is None
    assert result.facts.get("batch", {}) == {"rows_a_step": 8, "optimizer_steps": 4}


def test_held_out_rows_are_looked_at_before_a_training_that_asks_for_them(check):
    [error] = said(check(SFT + "eval_strategy: steps\neval_steps: 5\n"), "error")
    assert "dataset_test_split: found test, but rows.jsonl has one split" in error


@pytest.mark.parametrize("key", ["pad_token", "eos_token"])
def test_a_token_that_the_tokenizer_has_not_is_refused(check, key):
    [error] = said(check(SFT + f"{key}: <|nowhere|>\n"), "error")
    assert f"{key}: found <|nowhere|>" in error
    assert said(check(SFT + f"{key}: <|end|>\n"), "error") == []


def test_what_only_the_hub_has_is_left_out_offline(check):
    notes = said(check(SFT + "decontaminate: [org/questions]\nchat_template_path: org/model\n"), "note")
    assert "decontaminate: org/questions on the hub, not compared with offline" in notes
    assert any(n.startswith("chat_template_path: org/model is no folder here") for n in notes)
    result = check(SFT.replace("./rows.jsonl", "org/rows"))
    assert result.unread == "org/rows on the hub, not read offline" and not result.errors
    assert result.inspection.contract is not None  # the tokenizer is here
    result = check(SFT.replace("./rows.jsonl", "org/rows") + "eval_strategy: steps\neval_steps: 5\n")
    assert result.unread == "org/rows on the hub, not read offline" and not result.errors


def test_other_evaluation_sets_are_still_compared_with_offline(check):
    question = {
        "problem": "If a train leaves the station at noon and drives nine hours at ninety, how far does it come?"
    }
    rows = [*SFT_ROWS, dict(LONG, prompt=question["problem"], completion="<think>x</think>810")]
    text = SFT + "decontaminate: [org/questions, ./bench.jsonl]\n"
    result = check(text, rows, bench__jsonl=json.dumps(question) + "\n")
    assert result.errors == [] and result.inspection.facts["rows"] == 16


def test_a_run_does_not_stumble_over_rows_that_it_will_drop(check):
    empty = [*SFT_ROWS, dict(LONG, completion="")]
    for whole in (True, False):
        assert said(check(rows=empty, whole=whole), "error") == []
    text = GRPO + "rename_columns: {question: prompt}\ndataset_format: ./f.py:f\n"
    form = "def f(row):\n    return {'prompt': row['prompt'], 'answer': row['gold']}\n"
    rows = [{"question": f"What comes after {a}?", "gold": str(a + 1) if a % 2 else None} for a in range(40)]
    for whole in (True, False):
        result = check(text, rows, whole=whole, f__py=form)
        assert said(result, "error") == [] and result.facts["golds"].startswith("20 read, 0 of them")


def test_too_few_prompts_for_one_generation(check):
    [error] = said(check(GRPO.replace("train_batch_size: 8", "train_batch_size: 128")), "error")
    assert (
        error
        == ":4: dataset_name: found 16 rows, but one generation takes 32 prompts; use more rows or smaller batches"
    )
    enough = GRPO.replace("train_batch_size: 8", "train_batch_size: 64")
    assert said(check(enough), "error") == [] and len(said(check(enough, SFT_ROWS[1:]), "error")) == 1


def test_nothing_that_is_not_a_number_gets_into_the_batches(check):
    for line in ("per_device_train_batch_size: 0", "gradient_accumulation_steps: 0", "gradient_accumulation_steps: -1"):
        result = check(SFT + line + "\n")
        assert (
            said(result, "error") == [f":6: {line.replace(': ', ': found ')}, allowed: 1 or more"]
            and result.facts.get("batch", {}) == {}
        )


@pytest.mark.parametrize(
    ("text", "facts", "found"),
    [
        (SFT + "gradient_accumulation_steps: 4\n", {"rows": 100, "mean_length": 10.0},
         "32 rows a step, 1000 tokens an epoch, 12 optimizer steps, 3.0 epochs"),
        (SFT, {"rows": 100, "fitting_share": 0.5}, "8 rows a step, 21 optimizer steps, 3.0 epochs"),
        (SFT + "packing: true\nmax_length: 50\n", {"rows": 100, "mean_length": 20.0},
         "8 rows a step, 2000 tokens an epoch, 15 optimizer steps, 3.0 epochs"),
        (SFT + "max_steps: 26\n", {"rows": 100}, "8 rows a step, 26 optimizer steps, 2.0 epochs"),
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
    ],
)  # fmt: skip
def test_the_arithmetic_of_batches(text, facts, found, write_recipe):
    assert batch_line(batch_facts(load_recipe(write_recipe(text)), facts)) == found


def test_more_processes_take_more(write_recipe, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert batch_facts(load_recipe(write_recipe(SFT)), {"rows": 100})["rows_a_step"] == 16
    assert batch_facts(load_recipe(write_recipe(GRPO)), {"rows": 100})["prompts_a_step"] == 4


def test_a_sample_goes_over_the_whole_data_set_and_has_the_longest_row():
    from datasets import Dataset

    rows = [
        {
            "prompt": [{"role": "user", "content": "x"}],
            "completion": [{"role": "assistant", "content": "y" * (i == 6004)}],
        }
        for i in range(9000)
    ]
    numbers, sampled = _sample(Dataset.from_list(rows).select(range(1, 9000)))
    assert numbers[0] == 0 and numbers[-1] > 8900 and 1000 < len(numbers) <= 2016
    assert 6003 in numbers and 6002 not in numbers  # every fifth row, and this one
    assert sampled[numbers.index(6003)]["completion"][0]["content"] == "y"


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


def test_lengths_and_their_picture():
    lengths = [*range(1, 101)]
    assert length_facts(lengths) == {"shortest": 1, "median": 51, "percentile_95": 96, "longest": 100}
    assert histogram([5]) == "█" + " " * 23 and histogram([1, 1, 1, 1, 2], 2) == "█▃"


def test_filters_by_length_wait_for_the_tokenizer(tmp_path):
    """A hub model offline has no tokenizer to count with; the rows are not measured by something else meanwhile."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1+1?", "completion": "<think>one and one</think>2"}\n' * 3)
    (tmp_path / "r.yaml").write_text(
        "stage: sft\nmodel_name_or_path: nobody/nothing\ndataset_name: ./rows.jsonl\noutput_dir: o\n"
        "trace_filters: {min_tokens: 500, require_thought: true}\n"
    )
    found = inspect(load_recipe(tmp_path / "r.yaml"), [], "nobody/nothing", hub=False)
    assert found.facts["rows"] == 3 and [s["step"] for s in found.facts["steps"]][-1] == "trace_filters.require_thought"


def test_torn_thoughts_are_counted(check):
    torn = [
        "<think>1+1=2 2",
        "x</think>3",
        "<think>a</think>b<think>c</think>d",
        "the tags <think> and </think>",
        "plain",
    ]
    result = check(rows=[{"prompt": f"{i}?", "completion": text} for i, text in enumerate(torn)])
    assert next(text for text in said(result, "warning") if "not closed" in text).startswith(
        "dataset_name: 2 of 5 comp"
    )


def test_a_filter_that_had_nothing_to_judge_by_says_so(check):
    rows = [{"prompt": row["prompt"], "completion": row["completion"]} for row in SFT_ROWS]
    result = check(SFT + "trace_filters: {correct: true}\n", rows=rows)
    assert "trace_filters: correct: 16 of 16 rows have no gold to compare with, and were kept unchecked" in said(
        result, "warning"
    )
    assert not [t for t in said(check(SFT + "trace_filters: {correct: true}\n"), "warning") if "no gold" in t]


PAYS_ALL = (
    "def mine(completions, answer, **kwargs):\n    return [1.0 if '{sign}' in str(c) else 0.0 for c in completions]\n"
)


def test_rewards_that_pay_for_something_else_stop_check_and_are_a_warning_before_a_run(check):
    text = GRPO.replace("[math_answer]", "[./mine.py:mine]")
    refused = check(text, mine__py=PAYS_ALL.format(sign="think"))
    assert "the right answer must earn the most" in refused.errors[0].text
    run = check(text, mine__py=PAYS_ALL.format(sign="think"), whole=False)
    assert run.errors == [] and any("must earn the most" in text for text in said(run, "warning"))


def test_a_reward_that_wants_another_form_is_no_error(check):
    text = GRPO.replace("[math_answer]", "[./other.py:mine]")
    result = check(text, other__py=PAYS_ALL.format(sign="nothing has this"))
    assert result.errors == [] and any("see whether yours takes that form" in text for text in said(result, "warning"))
