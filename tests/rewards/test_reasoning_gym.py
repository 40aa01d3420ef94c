"""Tasks of reasoning-gym: rows, settings, the scores of golds, and answers that are code."""

import json
import re
from pathlib import Path

import pytest
from reasoning_ext.rewards import _gym
from reasoning_ext.rewards import reasoning_gym as module
from reasoning_ext.rewards.reasoning_gym import reasoning_gym

from reasoning_ext.data import gym
from reasoning_ext.data.columns import DataError
from reasoning_ext.data.gym import gym_rows
from reasoning_ext.verifier.pool import Pool

# One task of each kind: a number, a grid, a choice of right answers, keys that are no strings, tuples, formulas, lists.
TASKS = """chain_sum rotate_matrix countdown graph_color polynomial_multiplication simple_integration spiral_matrix n_queens
number_sorting bitwise_arithmetic propositional_logic prime_factorization word_ladder spell_backward""".split()
EVALUATED = {"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"}
PARSED = {"countdown", "puzzle24", "polynomial_multiplication", "simple_integration", "intermediate_integration"}


def some(task, num_rows=6, split="train", **settings):
    pytest.importorskip("reasoning_gym")
    return gym_rows(f"reasoning_gym:{task}", split, {"num_rows": num_rows, **settings})


def pay(made, said, **options):
    """Score `said(row)` as the answer to every row."""
    completions = [f"<think>{row['answer']}</think>{said(row)}" for row in made]
    return reasoning_gym(completions, [row["gym_entry"] for row in made], **options)


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(gym, "is_installed", lambda: False)
    monkeypatch.setattr(module, "is_installed", lambda: False)
    with pytest.raises(DataError) as error:
        gym_rows("reasoning_gym:chain_sum", "train", {})
    assert error.value.key == "dataset_name" and "pip install 'reasoning-ext[reasoning-gym]'" in str(error.value)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        reasoning_gym([], [])


def test_entries_come_back_as_they_were():
    from fractions import Fraction

    entry = {"a": (1, (2, "b")), "b": {1: {"c": (3,)}, (4, 5): [None, True]}, "d": Fraction(2, 3), "e": {"": []}}
    assert json.loads(json.dumps(_gym.plain(entry)), object_hook=_gym.restored) == entry


SAYS = [
    ("It is <answer>1 2\n3 4</answer>.", "1 2\n3 4"), ("<answer>1</answer> no <answer> 2 </answer>", "2"),
    (r"So \boxed{a} and \boxed{b=c}", "b=c"), (r"<answer>\boxed{\text{north east}}</answer>", "north east"),
    (r"\boxed{1} <answer>2</answer>", "2"), ("\n 1 0\n0 1 \n", "1 0\n0 1"), ("<answer>open", "<answer>open"),
]  # fmt: skip


def test_the_final_answer(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "is_installed", lambda: True)
    monkeypatch.setattr(Pool, "map", lambda pool, given, seconds: asked.extend(given) or [1.0] * len(given))
    reasoning_gym([text for text, _ in SAYS], [str(i) for i in range(len(SAYS))])
    assert asked == [(str(i), answer) for i, (_, answer) in enumerate(SAYS)]


def test_rows_have_what_the_reward_needs():
    made = some("chain_sum", max_terms=3)
    assert [sorted(row) for row in made] == [["answer", "gym_entry", "prompt", "task"]] * 6
    assert made[0]["task"] == "chain_sum" and made[0]["prompt"] == json.loads(made[0]["gym_entry"])["entry"]["question"]
    assert json.loads(made[0]["gym_entry"])["config"] == {"max_terms": 3}
    assert some("chain_sum", 3, max_terms=3) == made[:3]
    assert some("chain_sum", max_terms=3, seed=1) != made


@pytest.mark.parametrize("task", TASKS)
def test_golds_earn_everything_and_nonsense_little(task):
    made = some(task)
    assert pay(made, lambda row: f"<answer>{row['answer']}</answer>") == [1.0] * 6
    assert pay(made, lambda row: f"\\boxed{{{row['answer']}}}") == [1.0] * 6
    assert all(score is not None and score <= 0.3 for score in pay(made, lambda row: "no idea"))
    assert pay(made, lambda row: "no idea", partial=False) == [0.0] * 6
    assert pay(made, lambda row: "<think>") == [0.0] * 6 and pay(made, lambda row: "") == [0.0] * 6


def test_any_text_is_not_enough_for_the_game_of_life():
    made = some("game_of_life_halting", 12)
    assert {row["answer"] for row in made} == {"True", "False"}
    assert pay(made, lambda row: row["answer"].lower()) == [1.0] * 12
    assert pay(made, lambda row: str(row["answer"] == "False")) == [0.0] * 12


@pytest.mark.parametrize("task", sorted(EVALUATED | PARSED | {"chain_sum", "number_sorting", "bitwise_arithmetic"}))
def test_code_in_an_answer_is_never_run(task, tmp_path):
    marker = tmp_path / "marker"
    payloads = [
        f"__import__('os').system('touch {marker}')", f"[__import__('pathlib').Path('{marker}').touch()]",
        f"open('{marker}', 'w')", f"(lambda: exec(\"open('{marker}', 'w')\"))()", f"print(open('{marker}','w'))",
        f"x.__class__.__init__.__globals__['__builtins__']['open']('{marker}', 'w')",
    ]  # fmt: skip
    [row] = some(task, 1)
    completions = [f"<think>a</think><answer>{payload}</answer>" for payload in payloads]
    scores = reasoning_gym(completions, [row["gym_entry"]] * len(payloads))
    assert all(score is not None and score <= 0.05 for score in scores)
    assert not marker.exists()


def test_code_in_an_entry_is_never_run(tmp_path):
    marker = tmp_path / "marker"
    code = f"__import__('os').system('touch {marker}')"
    [bits], [numbers] = some("bitwise_arithmetic", 1), some("number_sorting", 1)
    one, other = json.loads(bits["gym_entry"]), json.loads(numbers["gym_entry"])
    one["entry"]["metadata"]["problem"] = other["entry"]["answer"] = code
    errors = {}
    scores = reasoning_gym(["0x1", "['1']"], [json.dumps(one), json.dumps(other)], log_metric=errors.__setitem__)
    assert scores == [None, 0.0] and errors == {"reasoning_gym/errors": 1.0}
    assert not marker.exists()


def test_an_answer_that_takes_forever_is_an_error_and_the_others_are_scored():
    made = some("countdown", 2)
    errors = {}
    completions = ["9**9**9**9**9", made[1]["answer"]]
    scores = reasoning_gym(completions, [row["gym_entry"] for row in made], seconds=2.0, log_metric=errors.__setitem__)
    assert scores == [None, 1.0] and errors == {"reasoning_gym/errors": 1.0}


def test_a_scorer_that_raises_is_an_error_and_not_a_zero():
    [row] = some("gcd", 1)
    broken = json.loads(row["gym_entry"])
    del broken["entry"]["answer"]
    errors = {}
    assert reasoning_gym(["1"], [json.dumps(broken)], log_metric=errors.__setitem__) == [None]
    assert errors == {"reasoning_gym/errors": 1.0}
    with pytest.raises(ValueError, match="found seconds=0; allowed: above 0"):
        reasoning_gym([], [], seconds=0)


REFUSED = [
    ("chain_sun", "train", {}, "dataset_name", "the nearest is chain_sum"), ("", "train", {}, "dataset_name", "ab, acre"),
    ("composite", "train", {}, "dataset_name", "composite"), ("chain_sum", "dev", {}, "dataset_name", "split dev"),
    ("chain_sum", "train[:5]", {}, "dataset_name", "train[:5]"),
    ("chain_sum", "train", {"max_term": 3}, "gen_kwargs", "the nearest is max_terms"),
    ("chain_sum", "train", {"size": 3}, "gen_kwargs", "size"), ("chain_sum", "train", {"num_rows": 0}, "gen_kwargs", "1048576"),
    ("chain_sum", "train", {"seed": -1}, "gen_kwargs", "1364"), ("chain_sum", "train", {"max_terms": 0}, "gen_kwargs", "failed"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "split", "settings", "key", "said"), REFUSED)
def test_bad_names_and_settings_are_refused(name, split, settings, key, said):
    pytest.importorskip("reasoning_gym")
    with pytest.raises(DataError) as error:
        gym_rows(f"reasoning_gym:{name}", split, settings)
    assert error.value.key == key and said in str(error.value)


def test_the_library_has_no_other_scorers_that_run_text():
    """Fails with a version of the library that evaluates text in more files, which then have to be read."""
    library = Path(pytest.importorskip("reasoning_gym").__file__).parent
    runs = re.compile(
        r"(?<![\w.])(?:eval|exec)\(|\b(?:sympify|parse_expr)\((?!expr)|\bpickle\b|\bsubprocess\b|os\.system"
    )
    found = {file.stem for file in library.rglob("*.py") if runs.search(file.read_text(encoding="utf-8"))}
    on_data = {"bitwise_arithmetic", "number_sorting"}
    in_generators = {"codeio", "basic_arithmetic", "generators_00_49", "generators_50_99"}
    assert found - {"propositional_logic"} == EVALUATED | PARSED | on_data | in_generators
