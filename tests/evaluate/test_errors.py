"""Causes of wrong answers, found in a scripted model in which each was planted, and what cannot be looked at."""

import json
import random
from collections import Counter

import pytest

import reasoning_ext.evaluate.errors as errors
from reasoning_ext import think
from reasoning_ext.engines.base import Completion, key_seed
from reasoning_ext.errors import UserError
from reasoning_ext.evaluate.causes import CAUSES, cause_at_sight
from reasoning_ext.evaluate.errors import Options, errors_and_print
from reasoning_ext.evaluate.interventions import read_thought
from reasoning_ext.evaluate.step_search import Search
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.runs.causes import causes_of
from reasoning_ext.runs.folder import finish, open_run

STEPS = ["one", "two", "three", "four", "five"]
CHAIN = ";".join(STEPS) + ";"
NAMES = [*CAUSES]
EACH = 12  # problems of each cause


def cause(p):
    return NAMES[p % len(NAMES)]


def wrong_step(p):
    """The first wrong step of a problem, from the second on, and the answer behind five true ones."""
    return 2 + p // len(NAMES) % len(STEPS)


def told(p, right):
    return f"<think>{CHAIN}</think>{p + 1000 if right else p}"


class World:
    """A model whose answers to problem p are right, p + 1000, as often as what is planted there says."""

    def __init__(self, dies_after=10**9, restarts=False):
        self.drawn, self.left, self.restarts, self.tokenizer = 0, dies_after, restarts, None

    def chance(self, p, prompt, kept):
        planted, asked = cause(p), think.content([m for m in prompt if m["role"] == "user"])
        if planted in ("slip", "reachable", "wrong step") and kept is not None and kept >= wrong_step(p):
            return 0.0
        rates = {"slip": 0.85, "reachable": 0.3, "wrong step": 0.8 if kept else 0.0}
        rates |= {"knowledge gap": 0.9 * ("fact" in asked), "misread": 0.9 * ("other words" in asked)}
        return rates.get(planted, 0.0)

    def generate(self, prompts, keys, settings):
        for p, g in keys:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left, self.drawn = self.left - 1, self.drawn + 1
            prompt = prompts[p]
            begun = prompt[-1]["content"] if prompt[-1]["role"] == "assistant" else ""
            number = int(prompt[-1 - bool(begun)]["content"].split()[-1])
            kept = begun.count(";") if begun else None
            draw = random.Random(f"{key_seed(settings.seed, p, g)} {begun} {prompt[0]['content']}").random()
            text = told(number, draw < self.chance(number, prompt, kept))
            rest = text.removeprefix("<think>" + ";".join(STEPS[: kept or 0]) + ";" * bool(kept))
            rest = (
                text if self.restarts or not begun else rest.removeprefix("</think>") if "</think>" in begun else rest
            )
            yield [Completion(p, g, begun + rest, [], True, 10)]

    def close(self):
        pass


def greedy(p):
    """The stored answer to a problem: completion, whether it ended, and its reward."""
    kinds = {
        "cut off": ("<think>one;two", False, 0.0),
        "no answer": (f"<think>{CHAIN}</think>I do not know.", True, 0.0),
    }
    kinds["not read"] = (f"<think>{CHAIN}</think>" + r"\boxed{\frac{1}{}", True, 0.0)
    return kinds.get(cause(p), (told(p, False), True, 0.0))


PROBLEMS = EACH * len(CAUSES)


def a_run(path, problems=PROBLEMS, lines=None, stage="eval", **keys):
    """Write the folder of a finished run whose answers are those of `greedy`."""
    path.mkdir(exist_ok=True)
    named = {"models": {"m": "./m"}} if stage == "eval" else {"model_name_or_path": "./m"}
    given = {"stage": stage, **named, "dataset_name": "./rows.jsonl", "reward_funcs": ["math_answer"]} | keys
    (path / "r.yaml").write_text(json.dumps(given | {"output_dir": str(path / "run")}))
    recipe = load_recipe(path / "r.yaml")
    run = open_run(recipe.output_dir, recipe.values, {}, recipe.path).path
    made = lines or [
        {"model": "m", "prompt_index": p, "sample_index": -1, "prompt": [{"role": "user", "content": f"problem {p}"}]}
        | {
            "answer": str(p + 1000),
            "completion": text,
            "tokens": 10,
            "finished": ended,
            "rewards": {"math_answer": paid},
        }
        for p in range(problems)
        for text, ended, paid in [greedy(p)]
    ]
    name = "answers.jsonl" if stage == "eval" else "samples.jsonl"
    (run / name).write_text("".join(json.dumps(line) + "\n" for line in made))
    (run / ("eval.json" if stage == "eval" else "summary.json")).write_text("{}")
    finish(run, 60.0)
    return run


def others(path, what, text):
    """Write a JSONL file with other ways to ask every problem."""
    rows = [{"question": f"problem {p}", what: text.format(p)} for p in range(EACH * len(CAUSES))]
    (path / f"{what}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path / f"{what}.jsonl")


@pytest.fixture
def world(monkeypatch):
    made = World()
    monkeypatch.setattr(errors, "open_engine", lambda *_, **__: made)
    return made


def found_in(run):
    return json.loads((run / "errors.json").read_text())["m"]


def test_causes_that_were_planted_are_found(tmp_path, world, capsys):
    run = a_run(tmp_path)
    ways = {"facts": others(tmp_path, "facts", "fact"), "reworded": others(tmp_path, "reworded", "in other words {}")}
    errors_and_print(run, Options(**ways))
    found = found_in(run)
    confusion = Counter((cause(one["problem"]), one["cause"]) for one in found["answers"])
    assert found["of"] == found["wrong"] == found["looked_at"] == EACH * len(CAUSES)
    assert sum(confusion[name, name] for name in CAUSES) >= 0.9 * EACH * len(CAUSES), confusion
    assert all(confusion[name, name] >= 0.75 * EACH for name in CAUSES), confusion
    steps = [(one["step"], wrong_step(one["problem"])) for one in found["answers"] if "step" in one]
    assert len(steps) >= 2.5 * EACH and sum(a == b for a, b in steps) >= 0.9 * len(steps), steps
    assert sum(one["count"] for one in found["causes"].values()) == found["looked_at"]
    share = found["causes"]["slip"]["share"]
    assert share == found["causes"]["slip"]["gives_back"] and share[1] < 1 / len(CAUSES) < share[2]
    example = found["causes"]["wrong step"]["example"]
    assert example["better"] == told(example["problem"], True) and example["text"] in [f"{s};" for s in STEPS] + [
        str(example["problem"])
    ]
    assert "slip" in capsys.readouterr().out


def test_what_was_drawn_is_kept_and_not_drawn_again(tmp_path, monkeypatch, world):
    whole = a_run(tmp_path / "a", 36)
    errors_and_print(whole, Options())
    run, dying = a_run(tmp_path / "b", 36), World(dies_after=50)
    monkeypatch.setattr(errors, "open_engine", lambda *_, **__: dying)
    with pytest.raises(KeyboardInterrupt):
        errors_and_print(run, Options())
    assert not (run / "errors.json").exists()
    dying.left = 10**9
    errors_and_print(run, Options())
    assert dying.drawn == world.drawn and found_in(run) == found_in(whole)
    errors_and_print(run, Options())
    assert dying.drawn == world.drawn


def test_a_budget_is_kept_to_and_a_smaller_one_than_an_answer_takes_is_refused(tmp_path, world):
    run = a_run(tmp_path)
    errors_and_print(run, Options(budget=3000, steps=False))
    found = found_in(run)
    assert 10 * world.drawn <= 3300 and 0 < found["looked_at"] < found["wrong"]
    with pytest.raises(UserError, match="found 3 tokens, allowed: "):
        errors_and_print(run, Options(budget=3))


def test_samples_that_a_run_has_are_not_drawn_again(tmp_path, world):
    samples = [
        {"model": "m", "prompt_index": 0, "sample_index": g, "prompt": [{"role": "user", "content": "problem 0"}]}
        | {"answer": "1000", "completion": told(0, right), "tokens": 10, "finished": True}
        | {"rewards": {"math_answer": float(right)}}
        for g, right in [(-1, False), *((g, g < 6) for g in range(8))]
    ]
    run = a_run(tmp_path, lines=samples)
    errors_and_print(run, Options(steps=False))
    [one] = found_in(run)["answers"]
    assert one == {"problem": 0, "cause": "slip", "right": 6, "k": 8} and world.drawn == 0


def test_a_sampling_runs_first_sample_is_looked_at_and_its_others_are_the_k(tmp_path, world):
    samples = [
        {"prompt_index": 0, "sample_index": g, "prompt": [{"role": "user", "content": "problem 0"}], "answer": "1000"}
        | {"completion": told(0, g in (3, 4)), "tokens": 10, "finished": True}
        | {"rewards": {"think_format": 1.0, "math_answer": float(g in (3, 4))}}
        for g in range(9)
    ]
    run = a_run(tmp_path, lines=samples, stage="sample", reward_funcs=["think_format", "math_answer"])
    errors_and_print(run, Options(steps=False))
    [(_, found)] = json.loads((run / "errors.json").read_text()).items()
    assert found["answers"] == [{"problem": 0, "cause": "reachable", "right": 2, "k": 8}] and world.drawn == 0


def test_an_engine_that_begins_anew_is_refused_and_steps_can_be_left_out(tmp_path, world):
    run = a_run(tmp_path, 36)
    world.restarts = True
    with pytest.raises(UserError, match="--no-steps"):
        errors_and_print(run, Options())
    errors_and_print(run, Options(steps=False))
    assert "wrong step" not in found_in(run)["causes"]


def test_right_answers_leave_nothing_to_look_at(tmp_path, world, capsys):
    line = {"model": "m", "prompt_index": 0, "sample_index": -1, "prompt": [{"role": "user", "content": "problem 0"}]}
    line |= {"answer": "1000", "completion": "1000", "finished": True, "rewards": {"math_answer": 1.0}}
    run = a_run(tmp_path, lines=[line])
    errors_and_print(run, Options())
    assert "none of the 1 answers" in capsys.readouterr().out and not (run / "errors.json").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(model="n"), "--model: found n, allowed: m"),
        (Options(facts="no_such"), "--facts: found no_such, which is no file and no column, allowed: .*prompt"),
        (Options(reworded="llm_judge"), "--reworded: found llm_judge, no reward"),
    ],
)
def test_options_that_fit_no_run_are_refused(tmp_path, world, options, said):
    run = a_run(tmp_path, 9)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "problem 0", "answer": "1000"}) + "\n")
    with pytest.raises(UserError, match=said):
        errors_and_print(run, options)
    assert world.drawn == 0


def test_a_column_of_the_data_set_may_hold_the_facts(tmp_path, world):
    run = a_run(tmp_path, 9)
    rows = [{"prompt": f"problem {p}", "answer": str(p + 1000), "hint": "fact"} for p in range(9)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    errors_and_print(run, Options(facts="hint"))
    causes = {cause(one["problem"]): one["cause"] for one in found_in(run)["answers"]}
    assert causes["knowledge gap"] == "knowledge gap" and causes["misread"] == "never right"


def test_runs_that_cannot_be_looked_at_are_refused(tmp_path, world):
    with pytest.raises(UserError, match="found no run"):
        errors_and_print(tmp_path, Options())
    run = a_run(tmp_path / "a", 9)
    (run / "DONE").unlink()
    with pytest.raises(UserError, match="has not finished"):
        errors_and_print(run, Options())
    unjudged = [json.loads(line) | {"rewards": {"math_answer": None}} for line in (run / "answers.jsonl").open()]
    with pytest.raises(UserError, match=r"no answer in .* that math_answer could judge"):
        errors_and_print(a_run(tmp_path / "b", lines=unjudged), Options())
    unsampled = [json.loads(line) | {"sample_index": 0} for line in (run / "answers.jsonl").open()]
    with pytest.raises(UserError, match="found no answer"):
        errors_and_print(a_run(tmp_path / "c", lines=unsampled), Options())


@pytest.mark.parametrize(
    ("completion", "more", "found"),
    [
        ("<think>7", {"finished": False}, "cut off"),
        ("<think>7</think>", {}, "no answer"),
        ("<think>7</think>8", {"finished": False, "error": "content_filter"}, "no answer"),
        ("<think>7</think>It is hard to say.", {}, "no answer"),
        (r"<think>7</think>\boxed{7}", {}, "no answer"),  # right, in a form that the reward does not pay
        (r"<think>7</think>\boxed{\frac{1}{}", {}, "not read"),
        ("<think>7</think>8", {"rewards": {"exact_answer": None}}, "not read"),
        ("<think>7</think>8", {}, ""),
        ("<think>7</think>8", {"answer": None}, ""),  # a reward that needs no gold
    ],
)
def test_causes_that_need_no_draw(completion, more, found):
    line = {"completion": completion, "finished": True, "answer": "7", "rewards": {"exact_answer": 0.0}}
    line["prompt"] = [{"role": "user", "content": "3+4"}]
    assert cause_at_sight(line | more, "exact_answer") == found


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 17, 32])
def test_a_search_closes_in_on_every_step_and_on_an_answer_that_is_not_the_thoughts(steps):
    thought = read_thought("<think>" + "".join(f"step {i};" for i in range(steps)) + "</think>7")
    for first, start in [*((first, 0.25) for first in range(1, steps + 2)), *((f, 0.0) for f in range(2, steps + 2))]:
        search, rounds = Search(0, thought, start), 0
        while cuts := search.cuts:
            search.narrow({cut: int(cut < first) for cut in cuts})
            rounds += 1
        assert search.step == first and rounds <= 3
    hopeless = Search(0, thought, 0.0)
    while cuts := hopeless.cuts:
        hopeless.narrow(dict.fromkeys(cuts, 0))
    assert hopeless.step is None and 1 in hopeless.right and len(hopeless.right) <= 7


def test_hostile_files_are_read_as_far_as_they_can_be(tmp_path):
    whole = {"of": 3, "wrong": 2, "looked_at": 2, "causes": {"slip": {"count": "x"}, "odd": 3}}
    for text in ("[]", "{", '{"m": 3}', '{"m": {"of": "x"}}', "[" * 100_000):
        (tmp_path / "errors.json").write_text(text)
        assert causes_of(tmp_path) == []
    (tmp_path / "errors.json").write_text(json.dumps({"m": whole}))
    assert [(one.label, one.causes) for one in causes_of(tmp_path)] == [("m", [])]
