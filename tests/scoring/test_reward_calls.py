"""The options that every reward has: gate, when, schedule, timeout, isolate, and what happens when one fails."""

import collections
import copy
import itertools
import pickle

import pytest

from reasoning_ext.scoring.call import RewardError, build_rewards, call_reward, decode_with
from reasoning_ext.scoring.inputs import copied
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
    import numpy, subprocess  # what JSON does not know, and what reads an input that never comes
    return [numpy.float32(len(subprocess.run(["cat"], capture_output=True).stdout)) for _ in completions]

def slow(completions, **kwargs):
    while "hang" in completions:
        pass
    if "die" in completions:
        os._exit(7)
    return [2.0 for _ in completions]

def state(completions, trainer_state, **kwargs):
    given = (trainer_state.epoch, trainer_state.global_step, trainer_state.max_steps, trainer_state.log_history)
    assert trainer_state.is_world_process_zero and not hasattr(trainer_state, "no_such_thing")
    return [float(given[0] + given[1] + given[2] + len(given[3])) for _ in completions]
"""


@pytest.fixture
def make(tmp_path):
    """Build rewards of a file: `name` or `{name: options}` each."""
    (tmp_path / "mine.py").write_text(MINE)

    def build(*entries, **options):
        named = [entry if isinstance(entry, dict) else {entry: None} for entry in entries]
        named = [{f"./mine.py:{name}": given for name, given in entry.items()} for entry in named]
        return build_rewards(parse_rewards(named, tmp_path), **options)

    return build


def batch(*completions, **columns):
    return {"completions": list(completions), "prompts": [""] * len(completions), **columns}


def test_a_gate_lets_through_what_another_reward_pays_for(make):
    right, long, later = make("right", {"long": {"gate": "right"}}, {"later": {"gate": "right"}})
    given = batch("7", "xx8", "xxx7", answer=["7", "7", "7"])
    assert long(**given) == [1.0, None, 4.0] and right(**given) == [1.0, 0.0, 1.0]
    assert call_reward(later, **batch("7", "8", answer=["7", "7"])) == [0.5, None]
    assert right.function.__globals__["calls"] == [3, 2]  # asked by the gate and by the trainer, called once
    assert long(**batch("7", answer=["8"])) == [None]


def test_a_gate_looks_at_its_own_batch(make):
    right, long = make("right", {"long": {"gate": "right"}})
    same, golds = ["7", "7"], ["7", "7"]
    assert long(completions=same, answer=["7", "8"]) == [1.0, None]
    assert right(completions=same, answer=["8", "7"]) == [0.0, 1.0]
    assert long(completions=same, answer=["8", "7"]) == [None, 1.0]
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


def test_rows_of_other_tasks_are_left_alone_and_logged_as_none(make):
    [long] = make({"long": {"when": {"task": ["math", "logic"]}}})
    assert needed_columns([long.spec]) == {"task": "when of the reward long"}
    table = {}
    assert long(**batch("a", "b", "ccc", task=["math", "x", "logic"]), log_extra=table.__setitem__) == [1.0, None, 3.0]
    assert table == {"length": [1, None, 3], "task": ["math", "x", "logic"]}
    assert long(**batch("a", task=["x"]), log_extra=table.__setitem__) == [None]
    assert table == {"length": [None], "task": ["x"]}  # and not the last batch's


@pytest.mark.parametrize(
    ("kind", "weights"), [("linear", [0.0, 0.25, 0.5, 1.0, 1.0]), ("steps", [0.0, 0.0, 0.0, 1.0, 1.0])]
)
def test_a_schedule(kind, weights, tmp_path):
    [spec] = parse_rewards([{"think_format": {"schedule": {kind: {0: 0.0, 100: 1.0}}}}], tmp_path)
    assert [spec.weight_at(step) for step in (0, 25, 50, 100, 10**6)] == weights and spec.weight == 1.0


def test_a_failure_gives_none_and_is_counted_and_the_third_in_a_row_ends_the_run(make, capsys, wording):
    sometimes, short, odd, leaves = make("sometimes", "short", "odd", "leaves")
    metrics = {}
    assert sometimes(**batch("a", "bad", "c"), log_metric=metrics.__setitem__) == [None] * 3
    assert short(**batch("a", "b"), log_metric=metrics.__setitem__) == [None, None]
    assert odd(**batch("a", "nan"), log_metric=metrics.__setitem__) == [1.0, None]
    assert leaves(**batch("a")) == [None]
    assert metrics == {"sometimes/errors": 3.0, "short/errors": 2.0, "odd/errors": 1.0}
    wording(capsys.readouterr().err)
    assert sometimes(**batch("a")) == [1.0]
    for reward, bad in ((sometimes, "bad"), (odd, "nan")):  # only numbers that are none count as a failure
        assert [reward(**batch(bad)) for _ in range(2)] == [[None], [None]]
        with pytest.raises(RewardError, match="failed 3 times in a row") as error:
            reward(**batch(bad))
        wording(error.value)
    [strict] = make("short", tolerated=0)
    with pytest.raises(RewardError, match=r"reward short \(.*mine.py\): failed"):
        strict(**batch("a", "b"))


def test_a_reward_in_a_process_of_its_own_is_killed_at_its_deadline(make):
    slow, array, leaves = make({"slow": {"timeout": 1.5}}, {"array": {"timeout": 20}}, {"leaves": {"isolate": True}})
    metrics = {}
    assert slow(**batch("a", "b")) == [2.0, 2.0]
    assert slow(**batch("hang", "b"), log_metric=metrics.__setitem__) == [None, None]
    assert metrics == {"slow/errors": 2.0}
    assert slow(**batch("die")) == [None] and slow(**batch("a")) == [2.0]
    assert array(**batch("a", "b")) == [0.0, 0.0] and leaves(**batch("a")) == [None]


def test_what_a_reward_logs_comes_out_of_its_process(make):
    _, long = make("right", {"long": {"isolate": True, "gate": "right"}})
    table, metrics = {}, {}
    given = batch("7", "xx8", "xxx7", answer=["7", "7", "7"], trainer_state=None)
    assert long(**given, log_extra=table.__setitem__, log_metric=metrics.__setitem__) == [1.0, None, 4.0]
    seen = {"seen": ["7", "XX8", "XXX7"], "length": [1, None, 4]}
    assert table == seen | {"answer": ["7", "7", "7"]} and metrics == {"longest": 4.0}


@pytest.mark.parametrize("isolate", [False, True])
def test_a_reward_reads_a_trainers_state_with_and_without_a_trainer(isolate, make):
    from transformers import TrainerState

    [reward] = make({"state": {"isolate": isolate}})
    assert call_reward(reward, completions=["x"]) == [1.0]
    trained = TrainerState(epoch=0.5, global_step=3, max_steps=9, log_history=[{"loss": 1.0}])
    assert reward(completions=["y"], trainer_state=trained) == [13.5]


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


def test_everything_pickles(make):
    rewards = make("right", {"long": {"gate": "right", "isolate": True}}, {"later": {"gate": "right"}})
    given = batch("7", "8", answer=["7", "7"])
    before = [call_reward(reward, **given) for reward in rewards]
    again = pickle.loads(pickle.dumps(rewards))
    assert [call_reward(reward, **given) for reward in again] == before == [[1.0, 0.0], [1.0, None], [0.5, None]]
    assert again[1].gate is again[0]


def test_a_file_that_cannot_be_imported_is_found_at_once(tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_thing\ndef broken(completions, **kwargs): return []\n")
    with pytest.raises(RewardError, match=r"reward broken \(.*broken.py:1\): .*no_such_thing"):
        build_rewards(parse_rewards(["./broken.py"], tmp_path))


EDITS = """
def edits(completions, prompts, completion_ids, answer, notes, *, words: list = ("x",), log_extra=None, **kwargs):
    seen = len(words) + len(completion_ids[0])
    completions[0][0]["content"] = "edited"
    for given in (completions, prompts, completion_ids, *completion_ids, answer, notes[0]["deep"], words):
        given.clear() if isinstance(given, list) else None
    notes[0]["more"] = kwargs["trainer_state"] = 1
    return [float(seen)] * 2

async def edits_later(completions, prompts, **kwargs):
    return edits(completions, prompts, **kwargs)

def sees(completions, prompts, completion_ids, answer, notes, **kwargs):
    whole = (prompts[1][0]["content"], completion_ids[0], answer, notes[0]) == ("?", [1, 2], ["7", "8"], {"deep": [1]})
    return [float(whole and completions[i][0]["content"] == str(i)) for i in range(2)]
"""


def test_what_a_reward_edits_is_its_own(tmp_path):
    (tmp_path / "edits.py").write_text(EDITS)
    prompt, options = [{"role": "user", "content": "?"}], {"words": ["a", "b"]}
    given = {
        "completions": [[{"role": "assistant", "content": str(i)}] for i in range(2)],
        "prompts": [prompt, prompt],
        "completion_ids": [[1, 2], [3]],
        "answer": ["7", "8"],
        "notes": [{"deep": [1]}, {"deep": []}],
    }
    before = copy.deepcopy(given)
    entries = [{"edits.py:edits": options}, "edits.py:sees", {"edits.py:edits_later": {"gate": "sees"}}, "think_format"]
    values = [call_reward(reward, **given) for reward in build_rewards(parse_rewards(entries, tmp_path))]
    assert values == [[4.0, 4.0], [1.0, 1.0], [3.0, 3.0], [0.0, 0.0]] and given == before and options["words"]
    ids = [0] * 5
    made = copied({"ids": [ids] * 3, "text": "x", "pair": (ids,), "none": [None, [1]]}, {})  # what is shared, once
    assert made["ids"][0] is made["ids"][2] is not ids and made["ids"][0] == ids and made["pair"][0] is ids
    assert given["prompts"][0] is prompt and made["none"] == [None, [1]]
