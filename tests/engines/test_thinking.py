"""Thoughts of at least and at most so many tokens, over a scripted engine, the engine in this process and a server."""

from dataclasses import replace

import pytest
from conftest import TINY
from stand_in import choice, servers
from test_transformers_engine import KEYS, PROMPTS, build

from reasoning_ext.engines.base import Completion, SamplingSettings, begun
from reasoning_ext.engines.opening import open_engine, sampling_settings
from reasoning_ext.engines.server import ServerEngine
from reasoning_ext.engines.thinking import MOST_WAITS, ThinkingEngine
from reasoning_ext.engines.transformers import TransformersEngine
from reasoning_ext.recipe.engine_options import ServerOptions
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.think.render import count_tokens

QUESTION = [{"role": "user", "content": "3+4"}]


class Scripted:
    """Writes what `says` has for the text so far, a letter a token, each with log-probability -1."""

    def __init__(self, says):
        self.says, self.asked = says, []

    def generate(self, prompts, keys, settings):
        self.asked.append((settings, len(keys)))
        for key in keys:
            start, limit = begun(prompts[key[0]]), settings.limit(key)
            more = self.says(start) if callable(self.says) else self.says[start]
            text, ended = start + more[:limit], len(more) < limit
            yield [Completion(*key, text, [], ended, len(more[:limit]), logprob=-1.0)]

    def close(self):
        pass


LONG = "<think>\n" + "a" * 40
CASES = {
    # settings, what the model writes behind a text, the completion, finished, forced tokens, rounds
    "nothing is asked": ((None, None), {"": "<think>a</think>7"}, "<think>a</think>7", True, 0, 1),
    "a thought that is short enough": ((30, None), {"": "<think>a</think>7"}, "<think>a</think>7", True, 0, 1),
    "an open thought is closed as it is laid out": (
        (20, None), {"": LONG, LONG[:20] + "\n</think>\n\n": "7"}, LONG[:20] + "\n</think>\n\n7", True, 3, 2,
    ),
    "and in one line": (
        (20, None), {"": "<think>" + "a" * 40, "<think>" + "a" * 13 + "</think>": "7"}, "<think>" + "a" * 13 + "</think>7",
        True, 2, 2,
    ),
    "a closing tag that was cut in two is not written twice": (
        (14, None), {"": "<think>aaa</think>7", "<think>aaa</think>": "7"}, "<think>aaa</think>7", True, 2, 2,
    ),
    "the answer is cut off at the most": (
        (20, None), {"": LONG, LONG[:20] + "\n</think>\n\n": "7" * 99}, LONG[:20] + "\n</think>\n\n" + "7" * 37, False, 3, 2,
    ),
    "without a thought it goes on as it would": (
        (5, None), {"": "seven, I say", "seven": ", I say"}, "seven, I say", True, 0, 2,
    ),
    "an answer goes on behind the budget": (
        (18, None), {"": "<think>a</think>7777", "<think>a</think>77": "77"}, "<think>a</think>7777", True, 0, 2,
    ),
    "what opens no thought is begun anew": (
        (None, 4), {"": "7", "<think>": "aaaaaa</think>7"}, "<think>aaaaaa</think>7", True, 2, 2,
    ),
    "a thought that closes too early goes on": (
        (None, 5), {"": "<think>a</think>7", "<think>a\nWait": "bbb</think>8"}, "<think>a\nWaitbbb</think>8", True, 2, 2,
    ),
    "and so does one that ends": (
        (None, 5), {"": "<think>a", "<think>a\nWait": "bbb</think>8"}, "<think>a\nWaitbbb</think>8", True, 2, 2,
    ),
    "one in which the turn ends is closed": (
        (30, None), {"": "<think>aaaa", "<think>aaaa</think>": "7"}, "<think>aaaa</think>7", True, 2, 2,
    ),
    "the budget bounds what was made longer": (
        (16, 5), {"": "<think>a</think>7", "<think>a\nWait": "b" * 40, "<think>a\nWait" + "b" * 6 + "</think>": "8"},
        "<think>a\nWait" + "b" * 6 + "</think>8", True, 4, 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_cut_and_put(case):
    (budget, least), says, text, finished, forced, rounds = CASES[case]
    engine = Scripted(says)
    settings = SamplingSettings(60, thinking_budget=budget, min_thinking=least, logprobs=True)
    [[found]] = ThinkingEngine(engine).generate([QUESTION], [(0, 5)], settings)
    assert (found.text, found.finished, found.forced) == (text, finished, forced)
    assert (found.prompt, found.sample, found.logprob) == (0, 5, -1.0) and found.tokens <= 60
    assert len(engine.asked) == rounds and len({one.seed for one, _ in engine.asked}) == rounds
    assert all(one.thinking_budget is one.min_thinking is None for one, _ in engine.asked)


@pytest.mark.parametrize(
    ("says", "least", "most", "text"),
    [
        ({"": "<think>aaa", "<think>aaa</think>": ""}, 1, 12, "<think>aaa</think>"),  # 10 letters, and 2 tokens
        ({"": "<think>aaa"}, 1, 11, "<think>aaa"),
        ({"": "<think>aaa"}, 5, 11, "<think>aaa"),
    ],
)
def test_what_is_forced_never_goes_over_the_most(says, least, most, text):
    settings = SamplingSettings(most, min_thinking=least)
    [[found]] = ThinkingEngine(Scripted(says)).generate([QUESTION], [(0, 0)], settings)
    assert (found.text, found.tokens <= most, found.forced > 0) == (text, True, text.endswith(">"))


def test_a_round_in_which_a_server_has_nothing_to_say_leaves_the_log_probability():
    engine = Scripted({"": "<think>aa", "<think>aa</think>": ""})
    whole = engine.generate
    silent = lambda part: replace(part, logprob=part.logprob if part.tokens else None)  # noqa: E731
    engine.generate = lambda *asked: ([silent(one) for one in batch] for batch in whole(*asked))
    [[found]] = ThinkingEngine(engine).generate(
        [QUESTION], [(0, 0)], SamplingSettings(60, thinking_budget=30, logprobs=True)
    )
    assert (found.text, found.finished, found.logprob) == ("<think>aa</think>", True, -1.0)


def test_a_thought_that_closes_again_and_again_is_accepted_and_what_has_no_thought_to_bound_is_left_alone():
    engine = Scripted(lambda text: "</think>7" if text else "<think></think>7")
    bounds = ThinkingEngine(engine)
    settings = SamplingSettings(999, thinking_budget=900, min_thinking=500)
    [[found]] = bounds.generate([QUESTION], [(0, 0)], settings)
    assert found.text == "<think>" + "\nWait" * MOST_WAITS + "</think>7" and len(engine.asked) == 1 + MOST_WAITS
    for start in ("<think>a</think>", "so"):
        [[found]] = bounds.generate([[*QUESTION, {"role": "assistant", "content": start}]], [(0, 0)], settings)
        assert (found.text, found.forced) == (start + "</think>7", 0)
    [[found]] = bounds.generate([QUESTION], [(0, 0)], replace(settings, stop="x"))
    assert found.text == "<think></think>7"
    failing = ThinkingEngine(Scripted({}))
    failing.inner.generate = lambda prompts, keys, settings: iter([[Completion(0, 0, "", [], False, error="http 500")]])
    [[found]] = failing.generate([QUESTION], [(0, 0)], settings)
    assert found.error == "http 500"


def test_a_thought_that_would_close_at_once_is_kept_from_it_and_nothing_is_put_there():
    loaded = build()
    [close] = loaded.tokenizer("</think>", add_special_tokens=False)["input_ids"]
    bias = {"sequence_bias": [[[close], 1000.0]]}  # the likeliest token at every place
    engine, key = TransformersEngine(loaded, 2), [(0, 0)]

    def drawn(engine, **settings):
        settings = SamplingSettings(4, temperature=0.0, generation_kwargs=bias, **settings)
        return next(engine.generate([QUESTION], key, settings))[0]

    assert drawn(engine).ids == [close] * 4
    held = drawn(engine, hold_back=True).ids
    assert held[0] not in (close, loaded.tokenizer.eos_token_id) and held[1:] == [close] * 3
    bounded = drawn(ThinkingEngine(engine), min_thinking=1)
    [opened] = loaded.tokenizer("<think>", add_special_tokens=False)["input_ids"]
    assert bounded.ids == [opened, held_id := bounded.ids[1], close, close] and held_id != close
    assert bounded.forced == 1 and "Wait" not in bounded.text


def test_the_engine_in_this_process_bounds_thoughts_the_same_in_any_batch():
    loaded = build()
    loaded.model.generation_config.eos_token_id = loaded.tokenizer.eos_token_id
    settings = SamplingSettings(24, thinking_budget=12, min_thinking=6, logprobs=True)

    def answers(keys, batch_size):
        engine = ThinkingEngine(TransformersEngine(loaded, batch_size))
        return {(c.prompt, c.sample): c for batch in engine.generate(PROMPTS, keys, settings) for c in batch}

    found = answers(KEYS[:12], 12)
    # a random model may open a thought
    assert sorted(found) == KEYS[:12] and sum(c.forced > 0 for c in found.values()) > 8
    for c in found.values():
        assert len(c.ids) == c.tokens <= 24 and c.logprob < 0
        thought, closed, _ = c.text.partition("</think>")
        before, opened, inside = thought.partition("<think>")
        counts = [count_tokens(loaded.tokenizer, text) for text in (inside, thought)]
        assert opened and closed and counts[0] >= 6 and (counts[1] <= 13 or before)
    again = answers(KEYS[6:10][::-1], 3)
    assert all(again[key].ids == found[key].ids for key in again) and len({c.text for c in found.values()}) > 9


def test_a_recipes_keys_reach_the_engine(write_recipe):
    text = f"stage: sample\nmodel_name_or_path: {TINY / 'model'}\nfrom_scratch: true\nuse_cpu: true\ndataset_name: d\n"
    keys = "max_completion_length: 24\nthinking_budget: 6\nmin_thinking: 4\ntemperature: 2.0\n"
    recipe = load_recipe(write_recipe(f"{text}reward_funcs: [math_answer]\noutput_dir: out\n{keys}"))
    settings = sampling_settings(recipe)
    assert (settings.thinking_budget, settings.min_thinking) == (6, 4)
    [[found]] = open_engine(recipe).generate([QUESTION], [(0, 0)], settings)
    assert found.forced > 0 and found.text.startswith("<think>") and found.tokens <= 24


def test_a_server_is_asked_to_go_on_while_others_are_on_their_way():
    def script(body, nth):
        last = body["messages"][-1]
        if last["role"] == "user":
            return choice("<think>\n" + "a" * 8, "length") if body["seed"] % 2 else choice("<think>a</think>7")
        assert body["continue_final_message"] and not body["add_generation_prompt"] and body["max_tokens"] == 16 - 3 - 3
        return choice("7" if last["content"].endswith("</think>\n\n") else "")

    keys = [(0, g) for g in range(40)]
    with servers() as start:
        engine = ThinkingEngine(ServerEngine("m", ServerOptions(base_url=start(script).url)))
        settings = SamplingSettings(16, thinking_budget=3)  # the stand-in counts three tokens a reply
        found = [c for batch in engine.generate([QUESTION], keys, settings) for c in batch]
    assert sorted((c.prompt, c.sample) for c in found) == keys
    long = [c for c in found if c.forced]
    assert 8 < len(long) < 32
    assert {(c.text, c.finished, c.tokens) for c in long} == {("<think>\n" + "a" * 8 + "\n</think>\n\n7", True, 9)}
    assert {(c.text, c.forced) for c in found if not c.forced} == {("<think>a</think>7", 0)}
