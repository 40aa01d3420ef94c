"""Strategies at inference: figures against values worked out by hand, what is drawn for them, what they refuse."""

import json
from dataclasses import replace

import pytest
from conftest import ROOT
from reasoning_ext.rewards.math_answer import math_answer
from reasoning_ext.rewards.step_check import step_check

import reasoning_ext.evaluate.stage as module
from reasoning_ext.check.cost import batch_facts
from reasoning_ext.check.keys import check_recipe
from reasoning_ext.check.named_inputs import input_sources
from reasoning_ext.engines.base import Completion, begun
from reasoning_ext.errors import KeyProblem
from reasoning_ext.evaluate.drawn import most_drawn
from reasoning_ext.evaluate.scaling import settled
from reasoning_ext.evaluate.stage import run_eval
from reasoning_ext.evaluate.strategies import need_logprobs, parse_strategies
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.runs.folder import RunDirError, fingerprint, finish, open_run
from reasoning_ext.scoring.spec import parse_rewards

REWARDS = """
def same(completions, answer, **kwargs):
    return [float(c[-1]["content"].rpartition("</think>")[2].strip() == a) for c, a in zip(completions, answer)]

def short(completions, prompts, **kwargs):
    assert not {"answer", "solution", "prompt"} & kwargs.keys() and len(prompts) == len(completions)
    return [None if "silent" in c[-1]["content"] else -float(len(c[-1]["content"])) for c in completions]

def mine(completions, task, **kwargs):
    return [0.0 for _ in completions]

def peeks(completions, **kwargs):
    return [float(a in c[-1]["content"]) for c, a in zip(completions, kwargs["answer"])]
"""


class Scripted:
    """Answers as `says(question, begun, sample, settings)` does: text, tokens, and then perhaps finished and logprob.

    `asked` has what was asked for: `(problem, sample)` where a row is a problem. After so many completions it raises.
    """

    def __init__(self, says, dies_after=10**9):
        self.says, self.dies_after = says, dies_after
        self.asked, self.prompts, self.settings = [], [], []

    def generate(self, prompts, keys, settings):
        for row, sample in keys:
            self.dies_after -= 1
            if self.dies_after < 0:
                raise OSError("killed")
            start, messages = begun(prompts[row]), [m for m in prompts[row] if m["role"] != "assistant"]
            self.asked.append((row // 4096 - 1 if start else row, sample))
            self.prompts.append(prompts[row])
            self.settings.append(settings)
            text, tokens, *more = self.says(messages[-1]["content"], start, sample, settings)
            finished, logprob = [*more, True, -1.0][:2] if len(more) < 2 else more
            yield [Completion(row, sample, text, [], finished, tokens, logprob=logprob if settings.logprobs else None)]

    def close(self):
        pass


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """Evaluate one model on problems `0?`, `1?`, ... whose answers are their numbers; return figures and the engine."""
    (tmp_path / "mine.py").write_text(REWARDS)

    def run(says, strategies, samples=0, problems=2, out="out", dies_after=10**9, more=""):
        rows = [{"prompt": f"{a}?", "answer": str(a)} for a in range(problems)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "r.yaml").write_text(
            f"stage: eval\nmodels: {{tiny: org/tiny}}\ndataset_name: ./rows.jsonl\nnum_generations: {samples}\n{more}"
            f"max_completion_length: 20\noutput_dir: {tmp_path / out}\nreward_funcs: ['./mine.py:same']\n"
            f"strategies: {json.dumps(strategies)}\n"
        )
        engine = Scripted(says, dies_after)
        monkeypatch.setattr(module, "open_engine", lambda *_, **__: engine)
        recipe = load_recipe(tmp_path / "r.yaml")
        folder = open_run(recipe.output_dir, recipe.values, {})
        assert run_eval(recipe, folder, parse_rewards(recipe.get("reward_funcs"), recipe.folder)) == 0
        return json.loads((folder.path / "eval.json").read_text())["tiny"], engine

    return run


def lines(folder, name="answers.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def samples(*texts, first="x"):
    """Say `first` greedily and the texts as samples, `{a}` for the number of the problem, each of as many tokens as its place."""

    def says(question, start, sample, settings):
        a = question[0]
        given = texts[sample] if sample >= 0 else first
        text, logprob = given if isinstance(given, tuple) else (given, -1.0)
        return text.format(a=a), max(1, sample + 1), True, logprob

    return says


def test_a_vote_ends_once_it_cannot_change():
    assert [settled(votes, 8) for votes in ([[0, 1, 2, 3, 4], [5, 6, 7]], [[0, 1, 3, 5, 7], [2, 4]], [[0, 1], [2, 3]], [])] == [
        5, 7, 8, 8,
    ]  # fmt: skip
    assert settled([[0, 1, 2], [3]], 4) == 3 and settled([[1, 2], [0]], 3) == 3


VOTES = {
    # strategy, the samples, the share that is right, the tokens of a problem
    "the commonest": ({"self_consistency": 4}, ["{a}", "{a}", "77", "{a}"], 1.0, 10),
    "which is known early": ({"self_consistency": {"n": 4}}, ["{a}", "{a}", "{a}", "77"], 1.0, 6),
    "equals share": ({"self_consistency": 4}, ["{a}", "77", "{a}", "77"], 0.5, 10),
    "the likelier weigh more": (
        {"weighted_vote": {"n": 3, "by": "mean_logprob"}}, [("77", -3.0), ("77", -3.0), ("{a}", -0.1)], 1.0, 6,
    ),
    "the many": ({"weighted_vote": {"n": 3, "by": "mean_logprob"}}, [("77", -1.0), ("77", -1.0), ("{a}", -0.9)], 0.0, 6),
    "below 0": ({"weighted_vote": {"n": 3, "by": "./mine.py:short"}}, ["<think>silent</think>77", "77", "{a}"], 1.0, 6),
    "the likeliest": ({"best_of": {"n": 3, "by": "mean_logprob"}}, [("77", -1.0), ("77", -1.0), ("{a}", -0.9)], 1.0, 6),
    "the best": (
        {"best_of": {"n": 2, "by": "step_check"}}, ["<think>1+1=3</think>77", "<think>1+1=2</think>{a}"], 1.0, 3,
    ),
    "None is the lowest": ({"best_of": {"n": 2, "by": "./mine.py:short"}}, ["<think>silent</think>77", "{a}"], 1.0, 3),
    "the best share": ({"best_of": {"n": 2, "by": "step_check"}}, ["77", "{a}"], 0.5, 3),
}  # fmt: skip


@pytest.mark.parametrize("name", VOTES)
def test_votes_and_the_best_of_n_are_as_by_hand(name, evaluate, tmp_path):
    strategy, texts, share, tokens = VOTES[name]
    figures, _ = evaluate(samples(*texts), [strategy])
    [(label, found)] = figures["strategies"].items()
    assert found["accuracy"][0] == share and found["tokens"] == tokens and len(found["accuracy"]) == 3
    assert lines(tmp_path / "out", "strategies.jsonl") == [
        {"model": "tiny", "strategy": label, "prompt_index": p, "right": share, "tokens": tokens} for p in range(2)
    ]


def test_greedy_and_chains_of_thought_are_drawn_as_they_say(evaluate, tmp_path):
    (tmp_path / "few.jsonl").write_text('{"question": "7?", "answer": "7"}\n{"prompt": "8?", "completion": "8"}\n')

    def says(question, start, sample, settings):
        good = settings.min_thinking == 2 or "step by step" in question
        return question[0] if good else "x", 3 if good else 1

    few = {"cot": {"examples": "./few.jsonl"}}
    listed = ["greedy", {"greedy": {"min_thinking": 2}}, {"cot": {"prompt": "Think step by step."}}, few]
    figures, engine = evaluate(says, listed)
    found = {name: (one["accuracy"][0], one["tokens"]) for name, one in figures["strategies"].items()}
    assert [*found.values()] == [(0.0, 1), (1.0, 3), (1.0, 3), (0.0, 1)] and "greedy (min_thinking 2)" in found
    assert {settings.temperature for settings in engine.settings} == {0.0}
    assert engine.prompts[4] == [{"role": "user", "content": "0?\nThink step by step."}]
    assert [(m["role"], m["content"]) for m in engine.prompts[6]] == [
        ("user", "7?"), ("assistant", "7"), ("user", "8?"), ("assistant", "8"), ("user", "0?"),
    ]  # fmt: skip
    assert {line.get("way", "") for line in lines(tmp_path / "out")} >= {"", "min_thinking=2"}
    two = [{"cot": {"prompt": "x max_completion_length=9"}}, {"cot": {"prompt": "x", "max_completion_length": 9}}]
    _, engine = evaluate(says, two, out="two")
    assert len(engine.asked) == 2 * 3  # neither is taken for the other


def test_what_is_added_draws_only_what_is_missing_and_leaves_the_plain_figures(evaluate, tmp_path):
    says = lambda question, start, sample, _: (question[0] if sample < 2 or question[0] == "0" else "77", 1)  # noqa: E731
    plain, _ = evaluate(says, [], samples=2, more="thinking_curve: true\n")
    more, engine = evaluate(says, ["greedy", {"self_consistency": 4}], samples=2, more="thinking_curve: true\n")
    assert sorted(engine.asked) == [(p, i) for p in range(2) for i in (2, 3)]
    assert {name: more[name] for name in plain} == plain and "pass@4" not in more
    again, engine = evaluate(says, [{"best_of": {"n": 4, "by": "step_check"}}], samples=2)
    assert not engine.asked and [*again["strategies"]] == ["best_of 4 by step_check"]
    longer, engine = evaluate(says, [{"self_consistency": 8}], samples=4)
    assert sorted(engine.asked) == [(p, i) for p in range(2) for i in range(4, 8)] and "pass@4" in longer
    with pytest.raises(RunDirError):
        evaluate(says, [], samples=2)


def test_examples_of_ours_are_right_and_so_many_of_a_train_file_are_shown(evaluate, tmp_path):
    for name in ("word_problems", "competition"):
        rows = [json.loads(line) for line in (ROOT / f"examples/few_shot/{name}.jsonl").read_text().splitlines()]
        texts = [row["completion"] for row in rows]
        golds = [["19", "200", "5", "42"], ["14", "7/36", "1", "3"]][name == "competition"]
        assert math_answer([[{"role": "assistant", "content": text}] for text in texts], golds) == [1.0] * 4
        assert set(step_check([[{"role": "assistant", "content": text}] for text in texts])) <= {1.0, None}
    (tmp_path / "train.jsonl").write_text(
        "".join(json.dumps({"problem": f"{i}?", "solution": "s"}) + "\n" for i in (5, 6, 7))
    )
    listed = [{"cot": {"examples": "competition"}}, {"cot": {"examples": "./train.jsonl", "shots": 2}}]
    figures, engine = evaluate(lambda *_: ("x", 1), listed, problems=1)
    assert [*figures["strategies"]] == ["cot competition", "cot ./train.jsonl 2"]
    assert [len(prompt) for prompt in engine.prompts] == [1, 9, 5] and engine.prompts[2][2]["content"] == "6?"


def test_what_nobody_judges_is_counted_and_said_in_a_line(evaluate, tmp_path, capsys):
    judge = REWARDS.replace("[float(", "[None if 'silent' in c[-1]['content'] else float(", 1)
    (tmp_path / "mine.py").write_text(judge)
    says = lambda question, *_: ("silent" if "think" in question or "Critique" in question else question[0], 1)  # noqa: E731
    listed = ["greedy", {"cot": {"prompt": "think"}}, {"refine": {"accept": "always"}}]
    figures, _ = evaluate(says, listed)
    plain, silent, refined = figures["strategies"].values()
    assert plain["accuracy"][0] == 1.0 and silent == refined == {"not judged": 2}
    said = capsys.readouterr().out
    assert 'nothing of cot "think" could be judged by same' in said and said.count("could be judged") == 2


def walk(question, start, sample, settings):
    """Think in two steps, true in the first half of four samples; the answer follows from the steps."""
    if sample < 0:
        return question[0], 1
    steps = start.count("\n")
    true = sample % 4 < 2
    if steps == 0:
        assert settings.stop == "\n" and not start
        return f"<think>{sample + 5}+3={sample + 8 if true else 0}\n", 3, False
    if steps == 1:
        return f"{start}{sample}+2={sample + 2 if true else 0}\n", 3, False
    good = question[0] if "=0" not in start else "77"
    return f"{start}So.</think>{good}", 2


BEAM = {"width": 4, "keep": 2, "by": "step_check"}


def test_a_beam_goes_on_from_the_best_steps(evaluate, tmp_path):
    figures, _ = evaluate(walk, [{"beam": BEAM}, {"beam": {**BEAM, "diverse": True}}])
    plain, diverse = figures["strategies"].values()
    assert plain["accuracy"][0] == diverse["accuracy"][0] == 1.0
    assert plain["tokens"] == 4 * (3 + 3 + 2) and diverse["tokens"] == 4 * (3 + 3 + 2)
    first = [line for line in lines(tmp_path / "out") if line["prompt_index"] == 0]
    rounds = [line for line in first if line.get("way", "").startswith("beam")]
    assert [line["sample_index"] for line in rounds] == [*range(12)]
    assert {line["completion"].partition("\n")[0] for line in rounds[4:8]} == {"<think>5+3=8", "<think>6+3=9"}
    assert not any(line["rewards"] for line in rounds)
    trees = [line for line in first if line.get("way", "").startswith("diverse")]
    assert [line["completion"][7] for line in trees[4:8]] == ["5", "5", "7", "7"]  # each tree's own best


def test_a_beam_keeps_to_the_length_and_prefers_what_ends(evaluate):
    def says(question, start, sample, settings):
        assert settings.max_completion_length == 20 - 8 * start.count("\n")
        if sample % 2 or not start:
            return f"{start or '<think>'}1+{sample}={sample + 1}\n", 8, False  # a third step has no room
        return f"{start}1+1=3</think>{question[0]}", 5

    figures, _ = evaluate(says, [{"beam": {**BEAM, "width": 2, "keep": 1}}, {"beam": {**BEAM, "keep": 1, "width": 3}}])
    first, _ = figures["strategies"].values()
    assert first["accuracy"][0] == 0.0 and first["tokens"] == 16 + 13 + 13


def test_a_thought_that_begins_with_a_step_of_nothing_has_steps(evaluate):
    def says(question, start, sample, settings):
        if not start:
            return "<think>\n", 2, False
        if "=" not in start:
            return f"{start}1+1={2 + sample % 2}\n", 3, False
        return f"{start}</think>{question[0] if '=2' in start else '77'}", 2

    figures, _ = evaluate(lambda *a: says(*a) if a[2] >= 0 else ("x", 1), [{"beam": BEAM}])
    [found] = figures["strategies"].values()
    assert found["accuracy"][0] == 1.0 and found["tokens"] == 4 * (2 + 3 + 2)


def test_a_scorer_that_was_changed_draws_a_beam_anew(evaluate, tmp_path):
    listed = [{"beam": {**BEAM, "by": "./mine.py:short"}}]
    evaluate(walk, listed)
    (tmp_path / "mine.py").write_text(REWARDS.replace("-float(len", "float(len"))
    changed, engine = evaluate(walk, listed)
    fresh, _ = evaluate(walk, listed, out="fresh")
    assert changed == fresh and len(engine.asked) == 2 * 12


def refined(question, start, sample, settings):
    """Answer 1? at once and 0? after the first critique; the second round makes every answer wrong, and likelier."""
    if "Write a short critique" in question:
        return "<think>hm</think>Be right.", 2
    if "Critique" not in question:
        return (question[0] if question[0] == "1" else "77"), 4, True, -2.0
    assert "Be right." in question and "<think>" not in question
    a = question.partition("Question:\n")[2][0]
    second = f"\n{a}\n" in question.partition("Draft:")[2] and a == "0"
    return ("77" if second else a), 4, True, -0.5 if second else -1.0


def test_refinement_keeps_what_scores_better_and_shows_every_round(evaluate):
    listed = [{"refine": {"rounds": 2}}, {"refine": {"rounds": 2, "accept": "always"}}]
    figures, engine = evaluate(refined, [*listed, {"refine": {"rounds": 2, "by": "./mine.py:short"}}])
    likelier, always, short = figures["strategies"].values()
    assert [share[0] for share in likelier["rounds"]] == [0.5, 1.0, 0.5]  # 0?: wrong, right, wrong
    assert likelier["accuracy"] == likelier["rounds"][-1] and likelier["tokens"] == 4 + 2 * (2 + 4)
    assert [share[0] for share in always["rounds"]] == [0.5, 1.0, 0.5] and likelier["prompt tokens"] is None
    assert [share[0] for share in short["rounds"]] == [0.5, 1.0, 1.0]  # 0 is shorter than 77
    assert len(engine.asked) == 2 * (1 + 2 + 2 + 2 + 2)  # the first round is shared


EVERY = [{"beam": BEAM}, {"refine": {"rounds": 2}}, {"self_consistency": 3}]


def mixed(question, start, sample, settings):
    if settings.stop or start:
        return walk(question, start, sample, settings)
    return refined(question, start, sample, settings) if settings.temperature == 0 else (question[0], 2)


def test_killed_anywhere_an_evaluation_ends_as_one_that_was_not(evaluate, tmp_path):
    whole, engine = evaluate(mixed, EVERY, out="whole")
    for k in range(1, len(engine.asked), 3):
        with pytest.raises(OSError, match="killed"):
            evaluate(mixed, EVERY, out=f"killed_{k}", dies_after=k)
        figures, rest = evaluate(mixed, EVERY, out=f"killed_{k}")
        assert figures == whole and len(rest.asked) == len(engine.asked) - k
        for name in ("answers.jsonl", "strategies.jsonl"):
            found, wanted = (sorted(map(str, lines(tmp_path / out, name))) for out in (f"killed_{k}", "whole"))
            assert found == wanted


def test_what_check_counts_is_what_is_drawn_or_the_most_that_can_be(evaluate, tmp_path):
    def says(question, start, sample, settings):
        if settings.stop or (start and sample >= 0):
            return walk(question, start, sample, settings)
        if start or "critique" in question.lower():
            return f"{start}{question[0]}", 2
        return f"<think>1+1=2; 2+2=4; 4+4=8</think>{question[0]}", 9

    exact = [
        "greedy",
        {"greedy": {"max_completion_length": 30}},
        {"self_consistency": 3},
        {"best_of": {"n": 5, "by": "step_check"}},
    ]
    exact += [{"cot": {"prompt": "Think."}}, {"refine": {"rounds": 2}}, {"refine": {"rounds": 1, "accept": "always"}}]
    exact.append({"self_consistency": {"n": 2, "temperature": 0.5}})
    for name, listed, more in (("exact", exact, ""), ("most", [*exact, {"beam": BEAM}], "thinking_curve: true\n")):
        evaluate(says, listed, samples=2, out=name, more=more)
        recipe, found = load_recipe(tmp_path / "r.yaml"), lines(tmp_path / name)
        specs = parse_rewards(recipe.get("reward_funcs"), recipe.folder)
        drawn, planned = {(line.get("way", ""), line["sample_index"]) for line in found}, most_drawn(recipe, specs, 20)
        facts = batch_facts(recipe, {"rows": 2}, specs)
        assert drawn <= {*planned} and {key for key, draw in planned.items() if draw.sure} <= drawn
        assert sum(line["tokens"] for line in found) <= facts["most_tokens"]
        if name == "exact":
            assert drawn == {*planned} and len(found) == facts["completions"] and "completions_at_least" not in facts
            assert facts["most_tokens"] == 2 * (20 * (len(drawn) - 1) + 30)
        else:
            assert facts["completions_at_least"] <= len(found) <= facts["completions"]
            assert [way for way, _ in drawn if way.startswith("cut")] and len(drawn) > facts["completions_at_least"] / 2
    recipe.values["models"] = {"a": "a", "b": "b"}
    assert batch_facts(recipe, {"rows": 2}, specs)["completions"] == 2 * facts["completions"]


def test_what_cannot_be_had_is_said_where_it_is_seen(evaluate, wording):
    with pytest.raises(KeyProblem) as caught:
        evaluate(lambda question, start, sample, settings: ("<think>no step", 3, False), [{"beam": BEAM}])
    assert caught.value.path == ("strategies", 0, "beam", "step")
    wording(caught.value)
    never = lambda *_: ("77", 1, True, None)  # noqa: E731
    with pytest.raises(KeyProblem) as caught:
        evaluate(never, [{"best_of": {"n": 2, "by": "mean_logprob"}}], out="other")
    assert caught.value.key == "strategies"
    wording(caught.value)


def test_a_reward_model_scores_a_conversation(evaluate, tmp_path):
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "recipes/tiny/model")
    tiny = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_labels": 1}
    model = Qwen2ForSequenceClassification(Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=1, **tiny))
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "judge")
    ids = [
        tokenizer.apply_chat_template([{"role": r, "content": c} for r, c in (("user", "0?"), ("assistant", text))])
        for text in ("0", "77")
    ]
    import torch

    scores = [float(model(input_ids=torch.tensor([one["input_ids"]])).logits[0, 0].detach()) for one in ids]
    listed = [{"best_of": {"n": 2, "by": "./judge"}}]
    figures, _ = evaluate(samples("{a}", "77"), listed, problems=1, more="use_cpu: true\n")
    assert figures["strategies"]["best_of 2 by ./judge"]["accuracy"][0] == float(scores[0] > scores[1])


def test_a_table_and_the_report_show_strategies(evaluate, tmp_path, capsys):
    from reasoning_ext.runs.report import write_report

    evaluate(refined, ["greedy", {"refine": {"rounds": 1}}])
    said = capsys.readouterr().out
    write_report([tmp_path / "out"], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    for text in ("refine 1 better by mean_logprob", "after round 1", "tokens"):
        assert text in said and text in page
    assert "not counted" in said


WRONG = {
    # an entry -> the place of the mistake
    "{gredy: {}}": "gredy",
    "best_off": "",
    "3": "",
    "{greedy: {temprature: 1.0}}": "greedy.temprature",
    "{greedy: {temperature: -1}}": "greedy.temperature",
    "{greedy: {min_thinking: 99}}": "greedy.min_thinking",
    "{greedy: {thinking_budget: 10, max_completion_length: 8}}": "greedy.thinking_budget",
    "{greedy: 3}": "greedy",
    "cot": "",
    "{cot: {examples: ./nothing.jsonl}}": "cot.examples",
    "{cot: {examples: ./bad.jsonl}}": "cot.examples",
    "{cot: {examples: word_problem}}": "cot.examples",
    "{cot: {examples: word_problems, shots: 9}}": "cot.examples",
    "{cot: {prompt: a, shots: 2}}": "cot.shots",
    "{self_consistency: 1}": "self_consistency.n",
    "self_consistency": "n",
    "{self_consistency: {n: many}}": "self_consistency.n",
    "{self_consistency: {n: 4, temperature: 0}}": "self_consistency",
    "{weighted_vote: {n: 8}}": "weighted_vote.by",
    "{best_of: {n: 8}}": "best_of.by",
    "{best_of: {n: 8, by: same}}": "best_of.by",
    "{best_of: {n: 8, by: math_answer}}": "best_of.by",
    "{best_of: {n: 8, by: './mine.py:peeks'}}": "best_of.by",
    "{best_of: {n: 8, by: './mine.py:mine'}}": "best_of.by",
    "{best_of: {n: 8, by: stepcheck}}": "best_of.by",
    "{best_of: {n: 8, by: ./nowhere}}": "best_of.by",
    "{best_of: {n: 8, by: {step_check: {min_equation: 2}}}}": "best_of.by.min_equation",
    "{beam: {by: step_check, step: ''}}": "beam.step",
    "{beam: {by: step_check, width: 2, keep: 4}}": "beam.keep",
    "{beam: {by: step_check, min_thinking: 4}}": "beam.min_thinking",
    "{refine: {accept: never}}": "refine.accept",
    "{refine: {rounds: 0}}": "refine.rounds",
}


@pytest.fixture
def problems(tmp_path):
    (tmp_path / "mine.py").write_text(REWARDS)
    (tmp_path / "bad.jsonl").write_text('{"question": "7?"}\n')
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1?", "answer": "1"}\n')

    def check(*entries, more=""):
        text = "stage: eval\nmodel_name_or_path: org/tiny\ndataset_name: ./rows.jsonl\noutput_dir: out\n"
        text += f"max_completion_length: 64\nreward_funcs: ['./mine.py:same', think_format]\n{more}strategies:\n"
        (tmp_path / "r.yaml").write_text(text + "".join(f"  - {entry}\n" for entry in entries))
        return load_recipe(tmp_path / "r.yaml"), check_recipe(load_recipe(tmp_path / "r.yaml"))

    return check


def test_a_finished_evaluation_sees_that_a_scorer_or_examples_have_changed(problems, tmp_path):
    (tmp_path / "few.jsonl").write_text('{"question": "7?", "answer": "7"}\n')
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "config.json").write_text("{}")
    entries = "{cot: {examples: ./few.jsonl}}", "{best_of: {n: 2, by: './mine.py:short'}}", "{beam: {by: ./judge}}"
    recipe, checked = problems(*entries)
    assert not checked.errors

    def opened():
        sources = input_sources(recipe, [])  # without those of the reward that decides, which may not change
        run = open_run(tmp_path / "out", recipe.values, {what: fingerprint(path) for what, path in sources.items()})
        (run.path / "answers.jsonl").touch()
        finish(run.path, 1.0) if not run.done else None
        return run.done

    assert [opened(), opened()] == [False, True]
    key = parse_strategies(recipe, [])[2].scorer.key
    for name in ("few.jsonl", "mine.py", "judge/weights.bin"):
        with (tmp_path / name).open("a") as file:
            file.write("\n")
        assert [opened(), opened()] == [False, True]
    assert parse_strategies(recipe, [])[2].scorer.key != key  # a beam of another reward model is another one
    (tmp_path / "rows.jsonl").write_text('{"prompt": "2?", "answer": "2"}\n')
    with pytest.raises(RunDirError, match="other inputs"):
        opened()


def test_wrong_entries_are_a_line_each(problems, wording):
    _, checked = problems(*WRONG, "greedy", "greedy")
    found = [problem for problem in checked.problems if problem.code == "wrong_strategy"]
    assert [(one.key, one.line) for one in found] == [
        *((f"strategies.{i}.{key}".rstrip("."), 8 + i) for i, key in enumerate(WRONG.values())),
        (f"strategies.{len(WRONG) + 1}", 9 + len(WRONG)),
    ]  # fmt: skip
    wording(found)


def test_the_bounds_of_an_entry_go_with_those_of_the_recipe(problems):
    options = [
        "thinking_budget: 5",
        "max_completion_length: 40",
        "min_thinking: 41",
        "min_thinking: 40",
        "thinking_budget: 8",
    ]
    _, checked = problems(*(f"{{greedy: {{{one}}}}}" for one in options), more="thinking_budget: 40\nmin_thinking: 8\n")
    assert [one.key for one in checked.problems if one.code == "wrong_strategy"] == [
        f"strategies.{i}.greedy.{options[i].partition(':')[0]}" for i in range(3)
    ]  # fmt: skip


def test_a_server_cannot_stop_after_a_step(problems):
    more = "engine: server\nengine_kwargs: {base_url: 'http://localhost:1/v1'}\n"
    _, checked = problems("{beam: {by: step_check}}", "{best_of: {n: 2, by: step_check}}", more=more)
    assert [(one.code, one.key) for one in checked.errors] == [("wrong_strategy", "strategies.0.beam")]


def test_what_is_right_is_found_and_its_code_is_listed(problems):
    entries = [
        "greedy", "{cot: {prompt: a}}", "{cot: {prompt: b}}", "{self_consistency: 8}",
        "{weighted_vote: {n: 4, by: mean_logprob}}", "{best_of: {n: 4, by: think_format}}",
        "{best_of: {n: 4, by: './mine.py:short'}}", "{best_of: {n: 4, by: {llm_judge: {model: judge}}}}",
        "{best_of: {n: 4, by: org/judge}}", "{beam: {by: step_check}}", "{beam: {by: step_check, diverse: true}}",
        "{refine: {rounds: 2, accept: always}}",
    ]  # fmt: skip
    recipe, checked = problems(*entries, more="num_generations: 0\ntemperature: 0.7\n")
    assert not checked.errors and any(what.startswith("scorer ") for what in checked.code)
    specs = checked.specs
    found = parse_strategies(recipe, specs)
    assert len(found) == len(entries) and found[5].scorer.spec == replace(specs[1])
    assert found[8].scorer.model == "org/judge"
    assert need_logprobs(found) and not need_logprobs(found[5:])
