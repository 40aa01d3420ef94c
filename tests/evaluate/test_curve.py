"""Thoughts cut short, with scripted models whose figures are known beforehand."""

import json
import re

import pytest

import reasoning_ext.evaluate.stage as stage
from reasoning_ext import think
from reasoning_ext.engines.base import Completion, SamplingSettings
from reasoning_ext.evaluate.answers import Answers, Request
from reasoning_ext.evaluate.curve import closing_of, difficulty, piece_ends, print_curves, read_thoughts, thinking_curve
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.recipe.records import ThinkingCurve
from reasoning_ext.runs.folder import finish, open_run
from reasoning_ext.scoring.call import build_rewards
from reasoning_ext.scoring.spec import parse_rewards

SETTINGS = SamplingSettings(temperature=0.0, max_completion_length=64)
WORDS = "a b c d e f g h"


class Engine:
    """Thinks `thought` about every problem; answers right where so many words of it are left, and 0 where fewer are."""

    def __init__(self, needs=4, written=lambda p: f"<think>{WORDS}</think>{p + 1}", dies_after=10**9):
        self.needs, self.written, self.left, self.begun, self.most = needs, written, dies_after, [], set()

    def generate(self, prompts, keys, settings):
        for p, g in keys:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            *asked, last = prompts[p]
            if last["role"] != "assistant":
                text = self.written(int(last["content"]))
                yield [Completion(p, g, text, [], True, len(piece_ends(None, text)))]
                continue
            self.begun.append(last["content"])
            self.most.add(settings.max_completion_length)
            kept = (think.split(last["content"]).thought or "").split()
            answer = int(asked[-1]["content"]) + 1 if len(kept) >= self.needs else 0
            yield [Completion(p, g, f"{last['content']}{answer}", [], True, 1)]

    def close(self):
        pass


def curve_of(path, engine, problems=8, cuts=None, samples=(), judge="math_answer", file="answers.jsonl"):
    """Return the curve of a model that answers so many problems, whose golds are their numbers and 1."""
    path.mkdir(exist_ok=True)
    table = [{"prompt": [{"role": "user", "content": str(p)}], "answer": str(p + 1)} for p in range(problems)]
    rewards = build_rewards(parse_rewards([judge], path), tolerated=0)
    answers = Answers(path / file, "m", table, rewards, lambda: engine)
    [plain] = answers.draw(Request([(p, g) for p in range(problems) for g in (-1, *samples)], SETTINGS))
    return thinking_curve(answers, plain, cuts or ThinkingCurve(), SETTINGS, judge.rpartition(":")[2])


def test_an_answer_that_is_there_after_half_the_thought(tmp_path):
    engine = Engine()
    found = curve_of(tmp_path, engine)
    assert [point.get("share") for point in found["points"]] == [0.125, 0.25, 0.5, 0.75, None, None, None, 1.0]
    assert [point["budget"] for point in found["points"] if "budget" in point] == [1, 2, 4]
    assert [point["accuracy"][0] for point in found["points"]] == [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    assert {point["n"] for point in found["points"]} == {8}
    # a thought of 8 words, 2 tags and an answer: what is kept of it, and one new token
    assert [point["tokens"] for point in found["points"]] == [4, 5, 7, 9, 4, 5, 7, 11]
    assert found["overthinking"][0] == 0.5 and found["thoughts"] == 8
    best = found["best_thinking_budget"]
    assert (best["budget"], best["p"]) == (4, 1.0) and best["difference"] == [0.0, -0.2772, 0.2772]
    # a cut of 4 words is a half and a budget of 4 and drawn once; an answer may have 2 x 1 + 16 tokens
    assert len(engine.begun) == 8 * 4 and engine.most == {18}
    assert "<think>a b c d</think>" in engine.begun


def test_what_few_problems_do_not_tell_apart_is_no_worse(tmp_path):
    assert curve_of(tmp_path / "few", Engine(), problems=5)["best_thinking_budget"]["budget"] == 1  # 5 of 5: p = 0.0625
    assert curve_of(tmp_path / "none", Engine(needs=8))["best_thinking_budget"] is None


@pytest.mark.parametrize(("needs", "overthinking"), [(0, 0.875), (1, 0.875), (5, 0.25), (7, 0.0), (8, 0.0), (9, 0.0)])
def test_overthinking_is_the_share_after_which_all_cuts_agree(tmp_path, needs, overthinking):
    assert curve_of(tmp_path, Engine(needs))["overthinking"][0] == overthinking


def test_an_answer_that_was_there_and_went_away_counts_from_when_it_came_back(tmp_path):
    class Doubts(Engine):
        def generate(self, *asked):
            for [one] in super().generate(*asked):
                thought = think.split(one.text).thought.split()
                yield [Completion(**vars(one) | {"text": one.text[:-1] + "0"})] if len(thought) == 2 else [one]

    found = curve_of(tmp_path, Doubts(needs=1))  # there at 1 word, gone at 2, back at 4
    assert found["overthinking"][0] == 0.5 and found["best_thinking_budget"]["budget"] == 4


def test_a_model_that_is_never_right_has_no_overthinking(tmp_path):
    found = curve_of(tmp_path, Engine(written=lambda p: f"<think>{WORDS}</think>77"))
    assert found["overthinking"] is None and found["points"][-1]["accuracy"][0] == 0.0


HOSTILE = {
    # the completion, whether its answer is right, words of it that can be cut
    "no thought": ("{}", True, 0),
    "no thought, in words": ("It is {}.", True, 0),
    "empty": ("<think></think>{}", True, 0),
    "white space": ("<think> \n </think>{}", True, 0),
    "never closed": ("<think>a b c {} d", False, 5),
    "never closed and empty": ("<think>", False, 0),
    "two thoughts": ("<think>a b</think>c<think>d e</think>{}", True, 7),
    "never opened": ("a b c d</think>{}", True, 4),
    "opened again behind": ("<think>a b c d</think>{}<think>e", False, 4),
    "closed twice": ("<think>a b</think>c</think>{}", True, 4),
    "words before": ("Well <think>a b c d</think>{}", True, 4),
    "nothing": ("", False, 0),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_thoughts_are_cut_where_there_is_one(tmp_path, name):
    text, right, words = HOSTILE[name]
    engine = Engine(needs=0, written=lambda p: text.format(p + 1))
    found = curve_of(tmp_path, engine, problems=2, cuts=ThinkingCurve([0.5], [3]))
    half, _, whole = found["points"]
    assert whole["accuracy"][0] == float(right) and found["thoughts"] == 2 * bool(words)
    assert bool(engine.begun) is bool(words) and all(one.endswith(think.CLOSE) for one in map(str.rstrip, engine.begun))
    assert half["accuracy"][0] == (1.0 if words else float(right))
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    plain = [{"completion": line["completion"], "tokens": line["tokens"]} for line in lines if "way" not in line]
    read = read_thoughts(plain, None)
    assert [len(thought.ends) for thought in read] == [words] * 2
    assert not words or {thought.cut(words // 2) for thought in read} <= {*engine.begun}
    assert words <= 3 or {thought.cut(3) for thought in read} <= {*engine.begun}


def test_a_thought_that_was_never_closed_is_closed_as_the_others_are():
    texts = ("<think>a\n</think>\n7", "<think>a\n</think>\n8", "<think>a b", "<think>a b </think>9")
    lines = [{"completion": text, "tokens": 9} for text in texts]
    assert [thought.cut(1)[8:] for thought in read_thoughts(lines, None)[2:]] == ["\n</think>\n", " </think>"]
    assert read_thoughts(lines[2:3], None)[0].cut(1) == "<think>a\n</think>\n\n"
    closings = {"7": "", "<think>a </think>  7": " </think>", "a\n</think>\n  7": "\n</think>\n"}
    assert {text: closing_of(text) for text in closings} == closings


def test_tokens_are_the_engines_and_a_word_counts_what_it_has_of_them(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("recipes/tiny/model")
    text = "<think>12+3=5 5*2=0</think>0"
    ends = piece_ends(tokenizer, text)
    assert ends == sorted(ends) and ends[-1] == len(text)
    line = {"completion": text, "tokens": len(ends) + 1}
    [by_token], [by_word] = read_thoughts([line], tokenizer), read_thoughts([line], None)
    assert by_token.rate == 1.0 and by_token.cut(3).startswith("<think>12+</think>")
    assert len(by_word.ends) == 2 and by_word.rate == line["tokens"] / 5


def test_terciles_are_by_pass_rate_and_equal_rates_stay_together(tmp_path):
    def lines(rates, n=4):
        return [
            {"prompt_index": p, "sample_index": g, "rewards": {"r": float(g < rate * n)}}
            for p, rate in enumerate(rates)
            for g in range(n)
        ]

    assert difficulty(lines([0.0, 0.5, 1.0]), "r") == {0: "hard", 1: "middle", 2: "easy"}
    assert {*difficulty(lines([0.5] * 6), "r").values()} == {"middle"}
    assert [*difficulty(lines([0, 0, 0.25, 0.5, 1, 1]), "r").values()] == ["hard"] * 2 + ["middle"] * 2 + ["easy"] * 2
    assert difficulty(lines([0.0, 1.0], n=1), "r") == {} and difficulty([], "r") == {}
    found = curve_of(tmp_path, Engine(), samples=(0, 1))
    assert found["terciles"]["middle"]["overthinking"][0] == 0.5 and [*found["terciles"]] == ["middle"]
    assert curve_of(tmp_path / "greedy", Engine())["terciles"] == {}


def test_a_killed_curve_goes_on_with_what_is_missing(tmp_path):
    whole = curve_of(tmp_path / "whole", Engine())
    for dies_after in (3, 13, 15):  # among the plain completions, and among the cut ones
        with pytest.raises(KeyboardInterrupt):
            curve_of(tmp_path / "killed", Engine(dies_after=dies_after))
        (tmp_path / "killed" / "answers.jsonl").open("a").write('{"model": "m", "way": "cu')
    engine = Engine()
    assert curve_of(tmp_path / "killed", engine) == whole and 0 < len(engine.begun) < 32
    ways = {json.loads(line).get("way") for line in (tmp_path / "killed" / "answers.jsonl").read_text().splitlines()}
    assert ways == {None, "cut 12.5%", "cut 25%", "cut 50%", "cut 75%"}


def test_a_finished_evaluation_is_given_a_curve_later_and_draws_nothing_else(tmp_path, monkeypatch, capsys):
    rows = [{"prompt": str(p), "answer": str(p + 1)} for p in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = (
        "stage: eval\nmodels: {'[b]m': org/m}\ndataset_name: ./rows.jsonl\nnum_generations: 1\nmax_completion_length: 64\n"
        f"reward_funcs: [math_answer]\noutput_dir: {tmp_path / 'out'}\n"
    )
    asked = {"": 0, "thinking_curve: true\n": 32, "thinking_curve: {shares: [0.5], budgets: [3, 4]}\n": 8}
    for more, drawn in asked.items():
        engine = Engine()
        monkeypatch.setattr(stage, "open_engine", lambda *_, engine=engine, **__: engine)
        (tmp_path / "r.yaml").write_text(written + more)
        recipe = load_recipe(tmp_path / "r.yaml")
        run = open_run(recipe.output_dir, recipe.values, {})
        assert not run.done
        stage.run_eval(recipe, run, parse_rewards(recipe.get("reward_funcs"), recipe.folder))
        assert len(engine.begun) == drawn
        finish(run.path, 1.0)
        said = capsys.readouterr().out
        assert ("overthinking" in said) is bool(more)
    figures = json.loads((tmp_path / "out" / "eval.json").read_text())["[b]m"]
    shares = [point["accuracy"][0] for point in figures["curve"]["points"]]
    assert figures["greedy"][0] == 1.0 and shares == [1.0, 0.0, 1.0, 1.0]
    assert "[b]m" in said and re.search(r"best thinking budget .*4 tokens", said)
    assert open_run(recipe.output_dir, recipe.values, {}).done


def test_where_no_cut_thought_can_be_judged_there_is_no_curve_and_without_samples_no_thirds(tmp_path):
    whole = curve_of(tmp_path, Engine())
    assert whole["terciles"] == {} and whole["points"][-1]["accuracy"][0] == 1.0  # there are greedy completions alone
    (tmp_path / "mine.py").write_text(
        "def whole(completions, **kwargs):\n"
        f"    return [1.0 if '{WORDS}' in one[-1]['content'] else None for one in completions]\n"
    )
    assert curve_of(tmp_path, Engine(), judge="./mine.py:whole", file="silent.jsonl") == {}


def test_nothing_is_printed_without_curves(capsys):
    print_curves({"m": {"greedy": [0.5, 0.4, 0.6], "curve": {}}})
    assert capsys.readouterr().out == ""
