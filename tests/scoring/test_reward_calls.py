"""The options that every reward has: gate, when, schedule, timeout, isolate, and what happens when one fails."""

import collections
import copy
import itertools
import pickle

import pytest

from reasoning_ext.scoring.call import RewardError, build_rewards, call_reward, decode_with
from reasoning_ext.scoring.spec import needed_columns, parse_rewards
from reasoning_ext.think.template import decoder, find_contract
from tests.templates import build

MINE = """\
import os, time
calls = []

def right(completions, answer, *, log_extra=None, **kwargs):
    calls.append(len(completions))
    if log_extra is not None:
        log_extra("seen", [c.upper() for c in completions])
    return [float(a in c) for c, a in zip(completions, answer)]

def long(completions, *, log_extra=None, log_metric=None, **kwargs):
    if log_extra is not None:
        log_extra("length", [len(c) for c in completions])
    if log_metric is not None:
        log_metric("longest", float(max(map(len, completions))))
    return [float(len(c)) for c in completions]

async def later(completions, **kwargs):
    return [0.5 for _ in completions]

def short(completions, **kwargs):
    return [1.0]

def odd(completions, **kwargs):
    return [float("nan") if c == "nan" else 1 for c in completions]

def sometimes(completions, **kwargs):
    if "bad" in completions:
        raise ValueError("a bad one")
    return [1.0 for _ in completions]

def leaves(completions, **kwargs):
    raise SystemExit(5)

def array(completions, **kwargs):
    import numpy
    return [numpy.float32(0.5) for _ in completions]

def reads(completions, **kwargs):
    import subprocess
    return [float(len(subprocess.run(["cat"], capture_output=True).stdout))]

def slow(completions, **kwargs):
    while "hang" in completions:
        pass
    if "die" in completions:
        os._exit(7)
    return [2.0 for _ in completions]
"""


@pytest.fixture
def make(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)

    def build(*entries, **options):
        entries = [
            {f"./mine.py:{next(iter(e))}": e[next(iter(e))]} if isinstance(e, dict) else f"./mine.py:{e}"
            for e in entries
        ]
        return build_rewards(parse_rewards(entries, tmp_path), **options)

    return build


def batch(*completions, **columns):
    return {"completions": list(completions), "prompts": [""] * len(completions), **columns}


def test_a_gate_lets_through_what_another_reward_pays_for(make):
    right, long = make("right", {"long": {"gate": "right"}})
    given = batch("7", "xx8", "xxx7", answer=["7", "7", "7"])
    assert long(**given) == [1.0, None, 4.0] and right(**given) == [1.0, 0.0, 1.0]
    calls = right.function.__globals__["calls"]
    assert calls == [3]  # asked by the gate and by the trainer, called once
    assert long(**batch("7", answer=["8"])) == [None]


def test_a_gate_looks_at_its_own_batch(make):
    right, long = make("right", {"long": {"gate": "right"}})
    same = ["7", "7"]
    assert long(completions=same, answer=["7", "8"]) == [1.0, None]
    assert right(completions=same, answer=["8", "7"]) == [0.0, 1.0]
    assert long(completions=same, answer=["8", "7"]) == [None, 1.0]
    golds = ["7", "7"]
    assert right(completions=["7", "8"], answer=golds) == [1.0, 0.0]
    assert right(completions=["8", "7"], answer=golds) == [0.0, 1.0]


@pytest.mark.parametrize(("template", "decoded"), [("deepseek_r1_distill", 2), ("qwen3", 0)])
def test_a_batch_is_decoded_once_whatever_the_number_of_rewards(template, decoded, tmp_path, monkeypatch):
    tokenizer = build(template)
    (tmp_path / "mine.py").write_text(MINE)
    entries = ["think_format", {"./mine.py:later": {"gate": "think_format"}}, {"language": {"when": {"task": "a"}}}]
    rewards = build_rewards(parse_rewards(entries, tmp_path))
    decode_with(rewards, decoder(tokenizer, find_contract(tokenizer)))
    texts = ["<think>a</think>b", "b"]
    ids = [[*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for text in texts]
    calls, decode = [], type(tokenizer).decode
    monkeypatch.setattr(type(tokenizer), "decode", lambda *args, **kwargs: calls.append(1) or decode(*args, **kwargs))
    for number in (1, 2):
        batch = [[{"role": "assistant", "content": text}] for text in texts]
        for reward in rewards:
            call_reward(reward, completions=batch, completion_ids=ids, task=["a", "b"], prompts=["", ""])
        assert len(calls) == decoded * number


def test_rows_of_other_tasks_are_left_alone(make, tmp_path):
    specs = parse_rewards([{"./mine.py:long": {"when": {"task": ["math", "logic"]}}}], tmp_path)
    assert needed_columns(specs) == {"task": "when of the reward long"}
    [long] = make({"long": {"when": {"task": ["math", "logic"]}}})
    table = {}
    values = long(**batch("a", "bb", "ccc", task=["math", "chat", "logic"]), log_extra=table.__setitem__)
    assert values == [1.0, None, 3.0] and table == {"length": [1, None, 3], "task": ["math", "chat", "logic"]}
    assert long(**batch("a", task=["chat"])) == [None]


def test_an_async_reward_can_be_gated(make):
    right, later = make("right", {"later": {"gate": "right"}})
    assert call_reward(later, **batch("7", "8", answer=["7", "7"])) == [0.5, None]
    assert right.__name__ == "right"


@pytest.mark.parametrize(
    ("kind", "weights"), [("linear", [0.0, 0.25, 0.5, 1.0, 1.0]), ("steps", [0.0, 0.0, 0.0, 1.0, 1.0])]
)
def test_a_schedule(kind, weights, tmp_path):
    [spec] = parse_rewards([{"think_format": {"schedule": {kind: {0: 0.0, 100: 1.0}}}}], tmp_path)
    assert [spec.weight_at(step) for step in (0, 25, 50, 100, 10**6)] == weights and spec.weight == 1.0


def test_an_exception_gives_none_and_is_counted_and_named(make, capsys):
    [reward] = make("sometimes")
    metrics = {}
    given = batch("a", "bad", "c") | {"log_metric": metrics.__setitem__}
    assert reward(**given) == [None] * 3 and metrics == {"sometimes/errors": 3.0}
    assert "reward sometimes: 3 completions without a reward: ValueError: a bad one (" in capsys.readouterr().err
    assert reward(**batch("a")) == [1.0]
    for _ in range(2):
        assert reward(**batch("bad")) == [None]
    with pytest.raises(
        RewardError, match=r"reward sometimes \(.*mine.py\): failed 3 times in a row: ValueError: a bad one"
    ):
        reward(**batch("bad"))


def test_wrong_lengths_and_values_that_are_no_numbers(make):
    short, odd = make("short", "odd")
    metrics = {}
    assert short(**batch("a", "b"), log_metric=metrics.__setitem__) == [None, None]
    assert odd(**batch("a", "nan"), log_metric=metrics.__setitem__) == [1.0, None]
    assert metrics == {"short/errors": 2.0, "odd/errors": 1.0}
    [strict] = make("short", tolerated=0)
    with pytest.raises(RewardError, match="failed: ValueError: returned 1 values, allowed: a list of 2"):
        strict(**batch("a", "b"))


def test_a_reward_in_a_process_of_its_own_is_killed_at_its_deadline(make):
    [slow] = make({"slow": {"timeout": 1.5}})
    metrics = {}
    assert slow(**batch("a", "b")) == [2.0, 2.0]
    assert slow(**batch("hang", "b"), log_metric=metrics.__setitem__) == [None, None]
    assert metrics == {"slow/errors": 2.0}
    assert slow(**batch("die")) == [None]
    assert slow(**batch("a")) == [2.0]


def test_what_a_reward_logs_comes_out_of_its_process(make):
    right, long = make("right", {"long": {"isolate": True, "gate": "right"}})
    table, metrics = {}, {}
    given = batch("7", "xx8", "xxx7", answer=["7", "7", "7"], trainer_state=None)
    assert long(**given, log_extra=table.__setitem__, log_metric=metrics.__setitem__) == [1.0, None, 4.0]
    seen = {"seen": ["7", "XX8", "XXX7"], "length": [1, None, 4]}
    assert table == seen | {"answer": ["7", "7", "7"]} and metrics == {"longest": 4.0}
    assert right.spec.name == "right"


def test_columns_of_the_last_batch_are_not_logged_again(make):
    [long] = make({"long": {"when": {"task": "math"}}})
    table = {}
    long(**batch("a", "bb", task=["math", "math"]), log_extra=table.__setitem__)
    assert table == {"length": [1, 2], "task": ["math", "math"]}
    long(**batch("a", "bb", task=["chat", "chat"]), log_extra=table.__setitem__)
    assert table == {"length": [None, None], "task": ["chat", "chat"]}


READERS = """\
LEVELS = ("level",)

def reads(completions, hint="", *, log_extra=None, **kwargs):
    if log_extra is not None:
        log_extra("answer", ["x"] * len(completions))
        log_extra("note", ["of reads"] * len(completions))
    return [float(len(kwargs["topic"][0])) for _ in completions]

async def later(completions, *, log_extra=None, **kwargs):
    if log_extra is not None:
        log_extra("note", ["of later"] * len(completions))
    return [float(kwargs[LEVELS[0]][0]) for _ in completions]
"""


def test_the_gold_and_every_column_that_a_reward_read_are_logged_once(tmp_path):
    (tmp_path / "readers.py").write_text(READERS)
    entries = ["math_answer", {"./readers.py:reads": {"when": {"task": "a"}}}, "./readers.py:later"]
    columns = {"answer": ["7", "7"], "topic": ["t", "t"], "level": [1, 1], "hint": ["h", "h"], "task": ["a", "b"]}
    for names in itertools.permutations(entries):
        table = collections.defaultdict(list)
        for reward in build_rewards(parse_rewards(list(names), tmp_path)):
            given = batch("7", "8", unread=[1, 2], **columns)
            call_reward(reward, **given, log_extra=lambda column, values, to=table: to[column].extend(values))  # as TRL
        assert table.pop("note") in (["of reads", None], ["of later", "of later"])  # of the one that came first
        assert len(table.pop("math_answer_error")) == 2 and table == columns


def test_only_numbers_that_are_none_count_as_a_failure(make):
    [odd] = make("odd")
    for _ in range(2):
        assert odd(**batch("nan", "nan")) == [None, None]
    with pytest.raises(RewardError, match="failed 3 times in a row: ValueError: returned nan, which is no reward"):
        odd(**batch("nan"))


def test_a_trainers_state_costs_an_isolated_reward_nothing(make):
    from transformers import TrainerState

    [slow] = make({"slow": {"timeout": 1.5}})
    assert slow(**batch("a"), trainer_state=TrainerState(global_step=3)) == [2.0]


def test_an_exit_is_a_failure(make):
    leaves, isolated = make("leaves")[0], make({"leaves": {"isolate": True}})[0]
    assert leaves(**batch("a")) == [None] == isolated(**batch("a"))


def test_what_json_does_not_know_comes_out_of_a_process_and_what_it_starts_reads_nothing(make):
    array, reads = make({"array": {"isolate": True}}, {"reads": {"timeout": 5}})
    assert array(**batch("a", "b")) == [0.5, 0.5] and reads(**batch("a")) == [0.0]


def test_everything_pickles(make):
    rewards = make("right", {"long": {"gate": "right", "isolate": True}}, {"later": {"gate": "right"}})
    given = batch("7", "8", answer=["7", "7"])
    before = [call_reward(reward, **given) for reward in rewards]
    again = pickle.loads(pickle.dumps(rewards))
    assert [call_reward(reward, **given) for reward in again] == before == [[1.0, 0.0], [1.0, None], [0.5, None]]
    assert again[1].gate is again[0]


def test_a_file_that_cannot_be_imported_is_found_at_once(tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_thing\ndef broken(completions, **kwargs): return []\n")
    with pytest.raises(RewardError, match=r"reward broken \(.*broken.py:1\): cannot be imported: .*no_such_thing"):
        build_rewards(parse_rewards(["./broken.py"], tmp_path))


EDITS = """
def edits(completions, prompts, completion_ids, answer, notes, *, words: list = ("x",), log_extra=None, **kwargs):
    seen = len(words) + len(completion_ids[0])
    completions[0][0]["content"] = "edited"
    for given in (completions, prompts, completion_ids, *completion_ids, answer, notes[0]["deep"], words):
        given.clear() if isinstance(given, list) else None
    notes[0]["more"] = kwargs["trainer_state"] = 1
    return [float(seen)] * 2

async def edits_later(**kwargs):
    return edits(**kwargs)

async def edits_later_too(completions, prompts, **kwargs):
    return edits(completions, prompts, **kwargs)

def sees(completions, prompts, completion_ids, answer, notes, **kwargs):
    whole = (prompts[1][0]["content"], completion_ids[0], answer, notes[0]) == ("?", [1, 2], ["7", "8"], {"deep": [1]})
    return [float(whole and completions[i][0]["content"] == str(i)) for i in range(2)]
"""


@pytest.fixture
def edited(tmp_path):
    """Score a batch with rewards of which some edit what they are given; returns the values and whether it is as it was."""
    (tmp_path / "edits.py").write_text(EDITS)

    def score(*entries):
        prompt = [{"role": "user", "content": "?"}]
        given = {
            "completions": [[{"role": "assistant", "content": str(i)}] for i in range(2)],
            "prompts": [prompt, prompt],
            "completion_ids": [[1, 2], [3]],
            "answer": ["7", "8"],
            "notes": [{"deep": [1]}, {"deep": []}],
        }
        before = copy.deepcopy(given)
        values = [call_reward(reward, **given) for reward in build_rewards(parse_rewards(list(entries), tmp_path))]
        return values, given == before and given["prompts"][0] is prompt

    return score


def test_what_a_reward_edits_is_its_own(edited):
    options = {"words": ["a", "b"]}
    entries = [{"edits.py:edits": options}, "edits.py:sees", {"edits.py:edits_later_too": {"gate": "sees"}}]
    assert edited(*entries, "think_format") == ([[4.0, 4.0], [1.0, 1.0], [3.0, 3.0], [0.0, 0.0]], True)
    assert options == {"words": ["a", "b"]}
    assert edited({"edits.py:edits": {"isolate": True}}, "edits.py:sees")[0] == [[3.0, 3.0], [1.0, 1.0]]


def test_what_is_shared_is_copied_once(edited):
    from reasoning_ext.scoring.inputs import copied

    ids = [0] * 5
    made = copied({"ids": [ids] * 3, "text": "x", "pair": (ids,)}, {})
    assert made["ids"][0] is made["ids"][2] is not ids and made["ids"][0] == ids and made["pair"][0] is ids


STATE = """
def state(completions, trainer_state, **kwargs):
    given = (trainer_state.epoch, trainer_state.global_step, trainer_state.max_steps, trainer_state.log_history)
    assert trainer_state.is_world_process_zero and not hasattr(trainer_state, "no_such_thing")
    return [float(given[0] + given[1] + given[2] + len(given[3])) for _ in completions]
"""


@pytest.mark.parametrize("isolate", [False, True])
def test_a_reward_reads_a_trainers_state_with_and_without_a_trainer(isolate, tmp_path):
    from transformers import TrainerState

    (tmp_path / "state.py").write_text(STATE)
    [reward] = build_rewards(parse_rewards([{"state.py": {"isolate": isolate}}], tmp_path))
    assert call_reward(reward, completions=["x"]) == [1.0]
    trained = TrainerState(epoch=0.5, global_step=3, max_steps=9, log_history=[{"loss": 1.0}])
    assert reward(completions=["y"], trainer_state=trained) == [13.5]
