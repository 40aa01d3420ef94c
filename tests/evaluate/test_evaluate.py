"""The figures of an evaluation, against values worked out by hand or by counting."""

import itertools
import json
import math
import random
from dataclasses import replace

import pytest
from tracked_runs import read_back

import reasoning_ext.evaluate.stage as module
from reasoning_ext.engines.base import Completion, EngineError
from reasoning_ext.errors import KeyProblem
from reasoning_ext.evaluate.metrics import interval, majority_right, metrics, pass_at_k
from reasoning_ext.evaluate.stage import run_eval
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.runs.folder import open_run
from reasoning_ext.runs.tracking import numbers
from reasoning_ext.scoring.call import RewardError
from reasoning_ext.scoring.spec import parse_rewards


def test_pass_at_k_is_the_share_of_subsets_with_a_right_one():
    for n, right, k in itertools.product([4, 6], [0, 1, 3, 4], [1, 2, 4]):
        outcomes = [True] * right + [False] * (n - right)
        subsets = list(itertools.combinations(outcomes, k))
        assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_interval_of_single_trials_is_wilsons():
    low, high = 0.7273, 0.9238  # Wilson, 95 %, 51 of 60
    assert interval([1.0] * 51 + [0.0] * 9) == [0.85, pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02)]
    assert interval([1.0] * 60)[1] < 0.95 and interval([1.0] * 60)[2] == 1.0
    assert interval([0.0] * 60)[0] == 0.0 and interval([0.0] * 60)[2] > 0.05
    wide, narrow = interval([1.0, 0.0] * 20, trials=160), interval([0.5] * 40, trials=160)  # 40 problems, or 160
    assert math.isclose(wide[2] - 0.5, 0.15, abs_tol=0.02) and math.isclose(narrow[2] - 0.5, 0.077, abs_tol=0.005)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng, covered = random.Random(0), 0
    for _ in range(300):
        chances = [rng.betavariate(2, 1) for _ in range(100)]
        _, low, high = interval([sum(rng.random() < c for _ in range(4)) / 4 for c in chances], trials=400)
        covered += low <= 2 / 3 <= high
    assert 0.91 < covered / 300 < 0.99


PROSE = ["we went on and on through the old woods " * 9, "nobody among us could say where that river ends " * 9]
VOTES = {
    # the completions that are right, those that are wrong, the share of the vote that is right
    "not the thought": (["<think>a</think>7", "<think>b</think>7"], ["<think>7</think>8", "<think>7</think>9"], 1.0),
    "a tie is shared": (["7"], ["8", "9"], 1 / 3),
    "the others have no part in a tie": (["7", "x = 7"], ["8", "8.0", "9", "10"], 0.5),
    "the majority in other words is wrong": (["42", "42"], ["The answer is 41.", r"\boxed{41}", "x = 41"], 0.0),
    "no answer is no vote": (["7", "7"], [*PROSE[:1] * 3, "8"], 1.0),
    "a thought without an end is no vote": (["7"], ["<think>7", "<think>8"], 1.0),
    "texts where there is no answer": ([PROSE[0], f"<think>a</think>\n{PROSE[0]}"], [PROSE[1], *["<think>7"] * 3], 1.0),
    "nothing at all": ([], ["<think>7", "", " "], 0.0),
}


@pytest.mark.parametrize("name", VOTES)
def test_a_vote_goes_by_the_answers_that_the_verifier_reads(name):
    right, wrong, share = VOTES[name]
    rows = [{"completion": text, "right": text in right} for text in right + wrong]
    for _ in range(3):
        assert majority_right(rows) == pytest.approx(share)
        random.Random(0).shuffle(rows)


def answers(rewards, sample_index=0, completion="<think>a</think>7"):
    return [
        {
            "prompt_index": i, "sample_index": sample_index, "completion": completion, "tokens": 4 + i, "finished": True,
            "rewards": {"right": reward},
        }
        for i, reward in enumerate(rewards)
    ]  # fmt: skip


def test_metrics_of_a_model():
    rows = answers([1.0, 0.0, None], -1) + answers([1.0, 0.0, None]) + answers([1.0, 1.0, None], 1, "<think></think>7")
    figures = metrics(rows, "right")
    assert figures["problems"] == 2 and figures["not judged"] == 3
    assert figures["greedy"][0] == 0.5 and figures["pass@1"][0] == 0.75 and figures["pass@2"][0] == 1.0
    assert figures["thinks"][0] == 0.5 and figures["mean tokens"] == 4.5 and figures["truncated"] == 0


def test_a_completion_thinks_where_one_of_its_turns_does():
    calls = [
        {"role": "assistant", "content": "<think>17*23</think>"},
        {"role": "tool", "name": "x", "content": "<think>"},
    ]
    rows = answers([1.0], -1) + [row | {"turns": calls} for row in answers([1.0], 0, "7")] + answers([1.0], 1, "7")
    assert metrics(rows, "right")["thinks"][0] == 0.5


def test_greedy_completions_alone_have_no_figure_of_sampled_ones():
    figures = metrics(answers([1.0, 0.0, 0.0, None], -1), "right")
    assert list(figures) == ["problems", "greedy", "thinks", "mean tokens", "truncated", "not judged"]
    assert (figures["problems"], figures["greedy"][0], figures["mean tokens"]) == (3, 0.3333, 5.0)


def test_maj_at_k_counts_the_answers_of_the_first_k_samples():
    texts = ["The answer is 42.", r"\boxed{42}", "x = 42", "41", "41"]
    rows = [row for i, text in enumerate(texts) for row in answers([float(i < 3)], i, text)] + answers([1.0], -1)
    assert metrics(rows, "right")["maj@5"][0] == metrics(rows[::-1], "right")["maj@5"][0] == 1.0
    short = [{**row, "prompt_index": 1} for i in range(3) for row in answers([1.0], i, "6")]  # 3 of each have a vote
    assert metrics((rows + short)[::-1], "right")["maj@3"][0] == 1.0


def test_nothing_to_judge_is_an_error():
    with pytest.raises(KeyProblem, match="2 of them"):
        metrics(answers([None], -1) + answers([None]), "right")
    for rows in (answers([None], -1), answers([1.0], -1) + answers([None]), answers([None], -1) + answers([1.0])):
        with pytest.raises(KeyProblem):
            metrics(rows, "right")


class Engine:
    """Answers every prompt with its first character and an end, where `error(prompt, sample)` does not say why not."""

    def __init__(self, error, end=""):
        self.error, self.end, self.asked, self.closed = error, end, [], 0

    def generate(self, prompts, keys, settings):
        self.asked += keys
        errors = [self.error(p, g) for p, g in keys]
        answered = [prompts[p][0]["content"][0] for p, _ in keys]
        yield [
            Completion(*key, "" if error else text + self.end, [], not error, 0 if error else 1, error)
            for key, text, error in zip(keys, answered, errors, strict=True)
        ]

    def close(self):
        self.closed += 1


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """Run an evaluation of one model that answers 4 problems twice and greedily; return its folder."""
    rows = [{"prompt": f"{a}+0?", "answer": str(a)} for a in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.py").write_text(
        "def same(completions, answer, **kwargs):\n"
        "    return [float(c[-1]['content'] == a) for c, a in zip(completions, answer)]\n"
        "def broken(completions, **kwargs):\n"
        "    raise RuntimeError('no disk')\n"
    )

    def run(engine, reward="same", samples=2, more=""):
        (tmp_path / "r.yaml").write_text(
            f"stage: eval\nmodels: {{tiny: org/tiny}}\ndataset_name: ./rows.jsonl\nnum_generations: {samples}\n"
            f"max_completion_length: 8\noutput_dir: {tmp_path / 'out'}\nreward_funcs: ['./mine.py:{reward}']\n{more}"
        )
        monkeypatch.setattr(module, "open_engine", lambda *_, **__: engine)
        recipe = load_recipe(tmp_path / "r.yaml")
        folder = open_run(recipe.output_dir, recipe.values, {})
        assert run_eval(recipe, folder, parse_rewards(recipe.get("reward_funcs"), recipe.folder)) == 0
        return folder.path

    return run


def test_what_a_server_failed_to_give_is_drawn_again_and_until_then_there_are_no_figures(evaluate, tmp_path, capsys):
    with pytest.raises(EngineError, match="12 of 12"):
        evaluate(Engine(lambda p, g: "time-out"))
    kinds = {(0, -1): "time-out", (0, 0): "time-out", (0, 1): "time-out", (2, 1): "http 500"}
    engine, out = Engine(lambda p, g: kinds.get((p, g), "")), tmp_path / "out"
    with pytest.raises(EngineError, match=r"4 of 12 .* \(http 500 1, time-out 3\)") as caught:
        evaluate(engine)
    assert caught.value.key == "engine_kwargs" and engine.closed == 1 and not (out / "eval.json").exists()
    lines = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert len(lines) == 8 and not any("error" in line for line in lines)
    assert "time-out 3" in capsys.readouterr().out
    engine = Engine(lambda p, g: "")
    figures = json.loads((evaluate(engine) / "eval.json").read_text())["tiny"]
    assert sorted(engine.asked) == sorted(kinds) and (figures["problems"], figures["pass@1"][0]) == (4, 1.0)


def test_a_reward_that_fails_stops_the_stage_before_its_batch_is_written(evaluate, tmp_path):
    engine = Engine(lambda p, g: "")
    with pytest.raises(RewardError, match="no disk"):
        evaluate(engine, "broken")
    assert engine.closed == 1 and not (tmp_path / "out" / "answers.jsonl").exists()


def test_what_the_model_itself_failed_to_give_counts_as_wrong(evaluate):
    kinds = {(0, -1): "empty", (0, 0): "content_filter", (0, 1): "empty", (1, 0): "empty"}
    figures = json.loads((evaluate(Engine(lambda p, g: kinds.get((p, g), ""))) / "eval.json").read_text())["tiny"]
    assert figures["problems"] == 4 and figures["greedy"][0] == 0.75
    assert figures["pass@1"][0] == pytest.approx(5 / 8, abs=1e-3)
    assert "not judged" not in figures


def test_a_problem_that_stands_twice_counts_once_where_the_recipe_says_so(evaluate, tmp_path, capsys):
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"prompt": " 1 + 0?", "answer": "1"}\n{"prompt": "5+0?", "answer": "5"}\n')
    evaluate(engine := Engine(lambda p, g: ""), more="deduplicate: exact\n")
    assert {p for p, _ in engine.asked} == {
        *range(5)
    } and "deduplicate exact: 5 rows, 1 dropped" in capsys.readouterr().out


def test_an_evaluation_without_samples_is_greedy(evaluate, capsys):
    engine = Engine(lambda p, g: "")
    figures = json.loads((evaluate(engine, samples=0) / "eval.json").read_text())["tiny"]
    assert sorted(engine.asked) == [(p, -1) for p in range(4)] and figures["greedy"][0] == 1.0
    said = capsys.readouterr().out
    assert "greedy" in said and "pass@" not in said and "warning" not in said


@pytest.mark.parametrize(
    ("end", "cut_off", "advice"),
    [(" is", 4, "raise it"), (" and so on" * 20, 4, "repetition_penalty"), (" is", 2, None), ("", 0, None)],
)
def test_an_evaluation_that_was_mostly_cut_off_says_so_and_what_to_change(evaluate, capsys, end, cut_off, advice):
    class Cut(Engine):
        def generate(self, *asked):
            for batch in super().generate(*asked):
                yield [replace(one, finished=one.prompt >= cut_off) for one in batch]

    evaluate(Cut(lambda p, g: "", end), samples=0)
    said = capsys.readouterr().out
    assert (f"{cut_off} of 4 completions were cut off at max_completion_length: 8" in said) is bool(advice)
    assert (advice or "") in said and ("warning" in said) is bool(advice)


def test_labels_are_text_in_the_tables_title_too(capsys):
    figures = {"problems": 3, "greedy": [0.5, 0.4, 0.6], "in training data": 3}
    module.print_table(dict.fromkeys(("[red]a[/red]", "[/]", "b\x1b[2J\u202e"), figures))
    out = capsys.readouterr().out
    assert out.count("[red]a[/red]") == out.count("[/]") == 2 and "\x1b" not in out and "\u202e" not in out


def test_an_evaluation_is_in_its_tracker_as_in_its_file(evaluate):
    folder = evaluate(Engine(lambda p, g: ""), more="report_to: tensorboard\n")
    figures = json.loads((folder / "eval.json").read_text())
    _, found, texts = read_back("tensorboard", folder.parent, folder)
    logged = {key: steps[0][1] for key, steps in found.items()}
    assert logged == pytest.approx(numbers("tiny", figures["tiny"])) and logged["tiny/greedy"] == 1.0
    assert any("3+0?" in text for text in texts)
