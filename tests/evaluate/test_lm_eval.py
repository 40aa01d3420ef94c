"""Tasks of lm-evaluation-harness: the harness's figure is ours on the same rows and prompt, thoughts and all."""

import json
from itertools import pairwise

import pytest
import torch
from conftest import TINY
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from reasoning_ext.errors import UserError
from reasoning_ext.evaluate.compare import read_evaluation
from reasoning_ext.evaluate.lm_eval import answers, figures
from reasoning_ext.evaluate.metrics import interval
from reasoning_ext.pipeline import run_recipes
from reasoning_ext.recipe.load import load_recipes
from reasoning_ext.runs.guards import forgotten
from reasoning_ext.runs.outcomes import outcomes

pytest.importorskip("lm_eval")
# what follows what; 9 would follow an end that is none
SAID = ["<|assistant|>", "<think>", "3", "</think>", "7", "<|end|>", "9"]
GOLDS = ["7", "3", "7", "9", "7", "</think>7"]
TASK = """\
task: sevens
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: [], do_sample: false, max_gen_toks: 12}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""
EVAL = "stage: eval\nmodels: {{tiny: {model}}}\nuse_cpu: true\nsystem_prompt: Add.\nmax_completion_length: 12\n"
OURS = EVAL + "dataset_name: {rows}\nnum_generations: 0\nreward_funcs: [./same.py]\noutput_dir: {out}/ours\n"
THEIRS = EVAL + "benchmark: lm_eval:./task.yaml\noutput_dir: {out}/theirs\n"
SAME = """\
from reasoning_ext import think
def same(completions, answer, **kwargs):
    return [float(think.answer(c[-1]["content"]).strip() == gold) for c, gold in zip(completions, answer)]
"""


@pytest.fixture
def model(tmp_path):
    """The tiny model with weights by which each token of SAID is followed by the next, whatever stood before it."""
    tokenizer = AutoTokenizer.from_pretrained(TINY / "model")
    made = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(TINY / "model", tie_word_embeddings=False))
    for weights in made.parameters():
        torch.nn.init.constant_(weights, float(weights.dim() == 1))  # of the layers nothing is left
    for i, (now, then) in enumerate(pairwise(tokenizer.convert_tokens_to_ids(SAID))):
        made.model.embed_tokens.weight.data[now, i] = made.lm_head.weight.data[then, i] = 1.0
    made.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def run(tmp_path, model, write_recipe):
    """Run recipes of `name=text` in tmp_path and return the figures of each one's model."""
    rows = [{"prompt": f"{i}+{7 - i}?", "answer": gold} for i, gold in enumerate(GOLDS)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.yaml").write_text(TASK.format(rows=tmp_path / "rows.jsonl"))
    (tmp_path / "same.py").write_text(SAME)

    def call(**texts):
        named = {"model": model, "rows": tmp_path / "rows.jsonl", "out": tmp_path}
        files = [write_recipe(text.format(**named), f"{name}.yaml") for name, text in texts.items()]
        assert run_recipes(load_recipes(files)) == 0
        return [json.loads((tmp_path / name / "eval.json").read_text())["tiny"] for name in texts]

    return call


@pytest.mark.slow
def test_a_local_task_has_the_figure_of_our_own_eval_on_the_same_rows_and_prompt(run, tmp_path, capsys):
    ours, theirs = run(ours=OURS, theirs=THEIRS)
    assert ours["greedy"] == theirs["exact_match"] == interval([1.0] * 3 + [0.0] * 3)
    assert ours["problems"] == theirs["problems"] == len(GOLDS) and ours["thinks"][0] == 1.0
    assert "exact_match" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "theirs" / "answers.jsonl").read_text().splitlines()]
    kept = [(line["prompt_index"], line["answer"], line["completion"], line["rewards"]) for line in lines]
    assert kept == [(i, gold, "7", {"exact_match": float(gold == "7")}) for i, gold in enumerate(GOLDS)]
    assert outcomes("greedy", lines) == {"tiny": {i: float(gold == "7") for i, gold in enumerate(GOLDS)}}
    assert read_evaluation(tmp_path / "theirs").answers == lines
    (tmp_path / "theirs" / "DONE").unlink()  # as where a run was killed before its next model
    (tmp_path / "theirs" / "eval.json").write_text(json.dumps({"tiny": {"problems": 1}}))
    assert run(theirs=THEIRS) == [{"problems": 1}]
    (tmp_path / "theirs" / "DONE").unlink()
    with pytest.raises(UserError) as caught:  # what is there is of another task
        run(theirs=THEIRS + "max_samples: 2\n")
    assert caught.value.problem.code == "other_folder"


@pytest.mark.slow
def test_a_task_in_guard_is_solved_before_a_training_and_after_it_and_compared(tmp_path, model, write_recipe):
    rows = [{"prompt": f"{i}+{7 - i}?", "answer": gold, "completion": "7"} for i, gold in enumerate(GOLDS)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.yaml").write_text(TASK.format(rows=tmp_path / "rows.jsonl"))
    text = f"stage: sft\nmodel_name_or_path: {model}\ndataset_name: {tmp_path}/rows.jsonl\nmax_steps: 1\n"
    text += "learning_rate: 0.0\nuse_cpu: true\nguard: [lm_eval:./task.yaml]\nmax_samples: 3\n"
    recipes = load_recipes([write_recipe(f"{text}output_dir: {tmp_path}/out\n")])
    assert run_recipes(recipes) == 0
    row = forgotten(tmp_path / "out")["lm_eval:./task.yaml"]
    assert row["before"] == row["after"] == interval([1.0] * 3 + [0.0] * 3) and row["p"] == 1.0
    with pytest.raises(UserError) as caught:
        run_recipes(load_recipes([write_recipe(text.replace("./task.yaml", "gsm8kk") + f"output_dir: {tmp_path}/b\n")]))
    assert (caught.value.problem.key, caught.value.problem.line) == ("guard", 7)


@pytest.mark.slow
def test_an_unknown_task_is_one_line_with_the_nearest_name(run, wording):
    with pytest.raises(UserError) as caught:
        run(theirs=THEIRS.replace("./task.yaml", "gsm8kk"))
    problem = caught.value.problem
    assert (problem.code, problem.line, problem.key) == ("unusable_data", 6, "benchmark")
    wording(problem)


def test_figures_have_the_harness_names_and_our_intervals():
    rows = [
        {"doc_id": i, "filter": kind, "exact_match": float(i < right)}
        for kind, right in (("strict", 1), ("loose", 3))
        for i in range(4)
    ]
    found = {"exact_match,strict": 0.25, "exact_match_stderr,strict": 0.1, "exact_match,loose": 0.75}
    found |= {"alias": "t", "sample_len": 4}
    assert figures({"t": found}, {"t": rows}) == {
        "problems": 4, "exact_match strict": interval([1.0, 0, 0, 0]), "exact_match loose": interval([1.0, 1, 1, 0]),
    }  # fmt: skip
    other = {"word_perplexity,none": 12.3456789, "acc,none": 0.5, "best,none": 1.0}
    samples = {"a": [{"doc_id": i, "filter": "none", "acc": i, "best": i} for i in (0, 1)]}  # the best of them is 1
    made = figures({"a": other, "group": {"acc,none": 0.5}}, samples)
    shares = {"a acc": interval([1.0, 0.0]), "a best": 1.0, "group acc": 0.5}
    assert made == {"problems": 2, "a word_perplexity": 12.3457, **shares}


def test_texts_are_kept_by_problem_and_options_are_not():
    def row(doc, kind, resps, asked, **metrics):
        given = {"doc_id": doc, "filter": kind, "target": 7, "metrics": [*metrics], **metrics}
        return given | {"resps": resps, "arguments": [("q", asked)]}

    drawn = {"do_sample": True, "temperature": 0.6}
    samples = {
        "a": [row(d, f, [["x"]], {"until": []}, exact=d, note="n") for f in ("strict", "none") for d in (0, 1)],
        "b": [row(0, "none", [["y"]], drawn, acc=1.0)],
        "c": [row(0, "none", [[(-1.0, True)], [(-2.0, False)]], " A", acc=1.0), row(1, "none", [[(-1.0, True)]], " A")],
    }
    found = answers(samples)
    assert [(one["prompt_index"], one["sample_index"], one["completion"]) for one in found] == [
        (0, -1, "x"), (1, -1, "x"), (2, 0, "y"),
    ]  # fmt: skip
    assert [one["rewards"] for one in found] == [{"exact strict": d, "exact": d} for d in (0.0, 1.0)] + [{"acc": 1.0}]
