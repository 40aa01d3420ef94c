"""Stage sample from recipe to files: what is handed on, what the next stages read, through a model, a server, and neither."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import yaml
from conftest import TINY
from stand_in import choice, servers

import reasoning_ext.sample.stage as module
from reasoning_ext.data.columns import DataError
from reasoning_ext.data.row_options import row_options
from reasoning_ext.data.rows import prepare
from reasoning_ext.data.sources import load_rows
from reasoning_ext.engines.base import Completion, EngineError
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.runs.folder import RunDirError, fingerprint, finish, open_run
from reasoning_ext.sample.stage import run_sample
from reasoning_ext.scoring.call import RewardError
from reasoning_ext.scoring.spec import parse_rewards

PROBLEMS = """
def problems(split):
    for i in range(6):
        yield {"prompt": [{"role": "user", "content": f"{i}+4?"}], "answer": str(i + 4) if i < 5 else None, "level": i}
"""
RECIPE = {
    "stage": "sample", "model_name_or_path": str(TINY / "model"), "dataset_name": "./problems.py:problems",
    "reward_funcs": ["math_answer", {"step_check": {"weight": 0.0}}], "num_generations": 4, "max_completion_length": 24,
    "use_cpu": True,
}  # fmt: skip
OUTPUTS = ("sft.jsonl", "pairs.jsonl", "prompts.jsonl", "summary.json")


class Engine:
    """Problem i is solved by its first i samples, in more and more words; the last sample of each is cut off."""

    def __init__(self, answer=None):
        self.asked, self.answer = [], answer or solve

    def generate(self, prompts, keys, settings):
        for p, g in keys:
            self.asked.append((p, g))
            yield [self.answer(p, g)]

    def close(self):
        raise AssertionError("an engine that was given is its owner's")


def solve(p, g):
    text = f"<think>{p}+4={p + 4}{' so' * (10 * g)}</think>\\boxed{{{p + 4 + (g >= p)}}}"
    return Completion(p, g, text, [1] * len(text), g != 3, len(text))


def says(text):
    """An engine whose completions are `text(prompt, sample)`, ended."""
    return Engine(lambda p, g: Completion(p, g, text(p, g), [1], True, 1))


@pytest.fixture
def sample(tmp_path):
    """Run a sample recipe with an engine of the test's own; return its folder's path and the keys that it was asked for."""
    (tmp_path / "problems.py").write_text(PROBLEMS)

    def run(out="out", by=None, **changed):
        values = {k: v for k, v in (RECIPE | {"output_dir": str(tmp_path / out)} | changed).items() if v is not None}
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
        recipe, engine = load_recipe(tmp_path / "r.yaml"), by or Engine()
        folder = open_run(recipe.output_dir, recipe.values, {})
        assert run_sample(recipe, folder, parse_rewards(recipe.get("reward_funcs"), recipe.folder), engine) == 0
        finish(folder.path, 0.0)
        return folder.path, engine.asked

    return run


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def summary(out):
    return json.loads((out / "summary.json").read_text())


def same(out, other):
    return all((out / name).read_bytes() == (other / name).read_bytes() for name in OUTPUTS)


def test_one_run_makes_rows_pairs_rated_prompts_counts_and_a_card(sample, capsys, wording):
    out, _ = sample(keep=2, select="shortest", pairs={"right_wrong": 2, "short_long": 1}, license="cc-by-4.0")
    kept = rows(out / "sft.jsonl")
    assert [row["answer"] for row in kept] == ["5", "6", "6", "7", "7", "8", "8"]
    assert kept[1] == {
        "prompt": [{"role": "user", "content": "2+4?"}], "answer": "6", "level": 2,
        "completion": [{"role": "assistant", "content": "<think>2+4=6</think>\\boxed{6}"}],
    }  # fmt: skip
    rated = rows(out / "prompts.jsonl")
    assert [(row["pass_rate"], row["difficulty_band"]) for row in rated] == [
        (0, "unsolved"), (0.25, "hard"), (0.5, "medium"), (0.75, "easy"), (0.75, "easy"),
    ]  # fmt: skip
    assert rated[4]["level"] == rated[4]["pass_rate_samples"] == 4 and "completion" not in rated[4]
    pairs = rows(out / "pairs.jsonl")
    assert [(row["answer"], row["kind"]) for row in pairs] == [
        ("5", "right_wrong"), ("6", "right_wrong"), ("6", "short_long"), ("7", "short_long"), ("8", "short_long"),
    ]  # fmt: skip
    assert pairs[0]["chosen"][0]["content"].endswith("{5}") and pairs[0]["rejected"][0]["content"].endswith("{6}")
    assert pairs[0]["chosen_reward"] == 1.0 > pairs[0]["rejected_reward"]
    assert pairs[2]["rejected_tokens"] > pairs[2]["chosen_tokens"]
    counts = {"sampled": 20, "saved": 0, "finished": 15, "cut off": 5, "failed": 0, "accepted": 9, "kept": 7, "prompts": 5,
              "prompts without one": 1, "pass rates": [1, 0, 1, 0, 0, 1, 0, 2, 0, 0]}  # fmt: skip
    assert counts.items() <= summary(out).items()
    card = (out / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "cc-by-4.0"
    assert [one["config_name"] for one in header["configs"]] == ["sft", "dpo", "grpo"]
    wording(
        [
            card.partition("## Counts")[2].partition("## Recipe")[0],
            capsys.readouterr().out.partition("sample  sampled")[2],
        ]
    )


def test_what_has_forced_tokens_is_rated_and_handed_on_only_where_the_recipe_says_so(sample, capsys):
    def engine():
        return Engine(lambda p, g: replace(solve(p, g), forced=2 * (g < 2)))

    out, _ = sample(by=engine(), keep=4, min_thinking=4, pairs={"right_wrong": 4})
    told = summary(out)
    assert (told["forced"], told["accepted"], told["kept"]) == (7, 2, 2) and "forced 7" in capsys.readouterr().out
    assert [row["pass_rate"] for row in rows(out / "prompts.jsonl")] == [0, 0.25, 0.5, 0.75, 0.75]
    assert all(" so" * 20 in row["completion"][0]["content"] for row in rows(out / "sft.jsonl"))
    assert not rows(out / "pairs.jsonl")  # the wrong completion of the one problem that has one is forced or alone
    out, _ = sample(by=engine(), keep=4, min_thinking=4, keep_forced=True, pairs={"right_wrong": 4})
    assert summary(out)["kept"] == 9 and "forced" not in summary(out) and len(rows(out / "pairs.jsonl")) > 1


def test_adaptive_rounds_draw_what_is_lacking_and_say_what_they_saved(sample):
    _, asked = sample(adaptive=True)
    assert Counter(p for p, _ in asked) == {0: 16, 1: 1, 2: 1, 3: 1, 4: 1}  # what four prompts saved, up to 4 x N
    out, _ = sample("less", adaptive=True, keep=1, max_generations=4)
    assert summary(out)["saved"] == 12 and len(rows(out / "sft.jsonl")) == 4
    _, asked = sample("less", adaptive=True, keep=2, max_generations=4)  # and other rules
    fresh, alone = sample("fresh", adaptive=True, keep=2, max_generations=4)
    assert set(asked) < set(alone) and len(rows(out / "samples.jsonl")) == 8 + len(asked)
    assert (out / "sft.jsonl").read_bytes() == (fresh / "sft.jsonl").read_bytes()
    # equal completions are enough once: the fourth is another one
    out, _ = sample(
        "equal", says(lambda p, g: f"<think>{g // 3}</think>{p + 4}"), keep=2, adaptive=True, max_generations=4
    )
    assert len(rows(out / "sft.jsonl")) == 10 and len(rows(out / "samples.jsonl")) == 20


def test_prompts_without_a_gold_are_judged_by_agreement(sample, tmp_path):
    voting = says(lambda p, g: f"<think>{g}</think>\\boxed{{{9 if g else '18/2' if p == 5 else 3}}}")
    out, _ = sample(by=voting, min_agreement=0.6, keep=4)
    assert [row["pass_rate"] for row in rows(out / "prompts.jsonl")] == [0, 0, 0, 0, 0, 1.0]
    assert [row["level"] for row in rows(out / "sft.jsonl")] == [5, 5, 5, 5]
    out, _ = sample("strict", voting, keep=4)
    assert len(rows(out / "prompts.jsonl")) == 5 and rows(out / "sft.jsonl") == []
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"prompt": f"{i}+4?"}) + "\n" for i in range(3)))
    none = {"dataset_name": "./rows.jsonl", "reward_funcs": ["math_answer"], "keep": 2}
    out, _ = sample("no golds at all", says(lambda p, g: f"<think>{g}</think>{p + 4}"), min_agreement=0.6, **none)
    assert len(rows(out / "sft.jsonl")) == 6 and summary(out)["agreement"]
    with pytest.raises(DataError, match="answer"):
        sample("other", **none)


def test_failed_completions_are_no_data_and_are_counted(sample, monkeypatch):
    def failing(p, g):
        bad = (p + g) % 2
        text = "" if bad else f"<think>{p}+4={p + 4}</think>{p + 4}"
        return Completion(p, g, text, [], not bad, 0, "time-out" if g == 1 else "http 500" if bad else "")

    monkeypatch.setattr(module, "MOST_FAILED", 0.6)
    out, _ = sample(by=Engine(failing), keep=4, pairs={"right_wrong": 4})
    counts = {"failed": 12, "errors": {"time-out": 5, "http 500": 7}, "accepted": 8}
    assert counts.items() <= summary(out).items() and rows(out / "pairs.jsonl") == []
    assert "" not in [row["completion"][0]["content"] for row in rows(out / "sft.jsonl")]
    failed = [row for row in rows(out / "samples.jsonl") if row.get("error")]
    assert len(failed) == 12 and all(set(row["rewards"].values()) == {None} for row in failed)
    assert [row["pass_rate"] for row in rows(out / "prompts.jsonl")] == [1.0] * 5


def test_too_many_failures_are_no_end_and_are_drawn_again(sample, tmp_path):
    with pytest.raises(EngineError, match="5 of 20") as caught:
        sample(by=Engine(lambda p, g: Completion(p, g, "", [], False, 0, "time-out") if g == 2 else solve(p, g)))
    assert caught.value.key == "engine_kwargs" and not (tmp_path / "out" / "sft.jsonl").exists()
    out, asked = sample()
    assert sorted(asked) == [(p, 2) for p in range(5)] and len(rows(out / "samples.jsonl")) == 25
    assert {"sampled": 20, "failed": 0, "accepted": 9}.items() <= summary(out).items()


def test_a_reward_that_fails_stops_the_run_before_its_batch_is_written(sample, tmp_path):
    (tmp_path / "bad.py").write_text("def bad(completions, **kwargs):\n    raise RuntimeError('no')\n")
    with pytest.raises(RewardError, match="RuntimeError: no"):
        sample(reward_funcs=["./bad.py:bad"])
    assert not (tmp_path / "out" / "samples.jsonl").exists()


def test_the_rest_of_a_run_may_come_faster_or_from_elsewhere(sample):
    class Cut(Engine):
        def generate(self, prompts, keys, settings):
            yield next(super().generate(prompts, keys, settings))
            raise EngineError("engine_kwargs", "gone")

    def served(url, **more):
        return {"engine": "server", "engine_kwargs": {"base_url": url, **more}}

    with pytest.raises(EngineError, match="gone"):
        sample(by=Cut(), **served("http://a:1/v1"))
    out, asked = sample(per_device_eval_batch_size=3, **served("http://b:2/v1", max_concurrency=4, max_retries=9))
    assert len(asked) == 19 and "http://b:2/v1" in (out / "recipe.yaml").read_text()
    for changed in ({"temperature": 0.5}, {"engine": "transformers", "engine_kwargs": None}):
        with pytest.raises(RunDirError, match=next(iter(changed))):
            sample(**served("http://b:2/v1") | changed)


def test_other_rules_choose_among_the_completions_that_are_there(sample):
    out, _ = sample(keep=1)
    before, drawn = fingerprint(str(out)), (out / "samples.jsonl").read_bytes()
    cases = [{"keep": None, "diverse": 3}, {"select": "shortest", "keep": 9}, {"min_reward": 0.5, "license": "mit"},
             {"pairs": {"short_long": 2}}]  # fmt: skip
    for number, changed in enumerate(cases):
        _, asked = sample(**{"keep": 1} | changed)
        fresh, _ = sample(f"fresh{number}", **{"keep": 1} | changed)
        assert asked == [] and (out / "samples.jsonl").read_bytes() == drawn and same(out, fresh), changed
        assert fingerprint(str(out)) != before  # what was trained on the old rows is not taken for made of these
    sample(keep=1)
    assert fingerprint(str(out)) == before
    values = yaml.safe_load((out / "recipe.yaml").read_text())
    assert not open_run(out, values | {"keep": 2}, {}).done  # and there the process is killed
    with pytest.raises(DataError, match="not finished"):
        load_rows(str(out), out.parent, stage="sft")
    sample(keep=1)
    assert load_rows(str(out), out.parent, stage="sft").num_rows == 4


def test_more_completions_of_a_prompt_are_drawn_beside_those_that_are_there(sample):
    out, _ = sample(num_generations=2, keep=9)
    _, asked = sample(num_generations=4, keep=9)
    assert sorted(asked) == [(p, g) for p in range(5) for g in (2, 3)]
    assert same(out, sample("fresh", num_generations=4, keep=9)[0])
    for changed in ({"num_generations": 3}, {"min_agreement": 0.6}):
        with pytest.raises(RunDirError, match=next(iter(changed))):
            sample(**{"num_generations": 4, "keep": 9} | changed)
    (out / "samples.jsonl").write_text((out / "samples.jsonl").read_text().replace("0+4?", "0-4?"))
    with pytest.raises(DataError, match="prompt 0") as caught:
        sample(num_generations=4, keep=8)
    assert caught.value.key == "dataset_name"


def test_columns_that_json_does_not_know_become_text(sample, tmp_path):
    odd = '"level": i, "when": datetime(2026, 1, 1), "share": float("nan"), "late": None if i < 3 else i}'
    odd = PROBLEMS.replace('"level": i}', odd)
    (tmp_path / "odd.py").write_text("from datetime import datetime\n" + odd)
    out, _ = sample(dataset_name="./odd.py:problems", keep=9)
    assert "NaN" not in (out / "sft.jsonl").read_text()
    kept = load_rows(str(out), tmp_path, stage="sft")
    assert {(row["when"], row["share"]) for row in kept} == {("2026-01-01 00:00:00", None)}
    assert [row["late"] for row in kept][-1] == 4


NOTHING = {  # how completions end -> what became of them, and what to change
    True: ("nothing was accepted of 20 completions (20 wrong); lower min_reward"),
    False: ("nothing was accepted of 20 completions (20 cut off); raise max_completion_length"),
}


@pytest.mark.parametrize("ended", NOTHING)
def test_nothing_accepted_is_said_there_and_where_it_would_be_trained_on(sample, tmp_path, capsys, ended):
    out, _ = sample(by=Engine(lambda p, g: Completion(p, g, "<think>?</think>0", [1], ended, 1)))
    assert rows(out / "sft.jsonl") == [] and f"warning: {NOTHING[ended]}" in capsys.readouterr().out
    with pytest.raises(DataError) as error:
        load_rows(str(out), tmp_path, stage="sft")
    assert f"sft.jsonl is empty: {NOTHING[ended]}" in str(error.value)
    with pytest.raises(DataError, match=r"pairs.jsonl is empty"):
        load_rows(str(out), tmp_path, stage="dpo")


def test_that_most_was_cut_off_is_said_though_something_was_accepted(sample, capsys):
    sample("few")
    assert "warning" not in capsys.readouterr().out
    sample("most", Engine(lambda p, g: Completion(p, g, f"<think>a</think>{p + 4}", [1], g == 0, 1)))
    assert "warning: 15 of 20 completions were cut off" in capsys.readouterr().out


def test_the_next_stages_read_their_own_files(sample, tmp_path):
    out, _ = sample(keep=2, pairs={"right_wrong": 1})
    common = f"model_name_or_path: {TINY / 'model'}\nfrom_scratch: true\noutput_dir: next\n"
    rated, rewards = {"prompt", "answer", "pass_rate"}, "reward_funcs: [math_answer]\n"
    for stage, more, columns, count in (
        ("sft", "", {"prompt", "completion", "answer", "level"}, 7),
        ("dpo", "", {"prompt", "chosen", "rejected"}, 2),
        ("grpo", rewards, rated, 5),
        ("grpo", f"{rewards}difficulty: [0.25, 0.5]\n", rated, 2),
        ("sample", f"{rewards}difficulty: [0.0, 0.0]\n", rated, 1),
    ):
        (tmp_path / "next.yaml").write_text(f"stage: {stage}\ndataset_name: {out}\n{common}{more}")
        found = prepare(row_options(load_recipe(tmp_path / "next.yaml")), specs=[]).rows
        assert columns <= set(found.column_names) and found.num_rows == count, stage
    elsewhere = f"stage: grpo\ndataset_name: ./problems.py:problems\n{common}{rewards}difficulty: [0, 1]\n"
    (tmp_path / "next.yaml").write_text(elsewhere)
    with pytest.raises(DataError, match="pass_rate"):
        prepare(row_options(load_recipe(tmp_path / "next.yaml")), specs=[])


def teacher(body, nth):
    """Solve `a+4?`, with the thought in a field of its own; some seeds are cut off, or busy once."""
    seed, a = body["seed"], int(body["messages"][-1]["content"][0])
    reason = {0: "length", 1: "tool_calls"}.get(seed % 10, "STOP")
    solved = choice(f"\\boxed{{{a + 4 + seed % 2}}}", reason, reasoning_content=f"{a}+4={a + 4}")
    return 503 if seed % 7 == nth == 0 else solved


@pytest.mark.slow
def test_a_teacher_behind_a_server_is_sampled_and_evaluated_without_a_tokenizer(cli, tmp_path):
    (tmp_path / "problems.py").write_text(PROBLEMS)
    with servers() as start:
        served = {"engine": "server", "engine_kwargs": {"base_url": start(teacher).url}}
        model = {"model_name_or_path": "teacher", "num_generations": 16, "keep": 16, "output_dir": "out"}
        (tmp_path / "1_sample.yaml").write_text(yaml.safe_dump(RECIPE | served | model))
        evaluation = {"stage": "eval", "models": {"teacher": "teacher"}, "num_generations": 2, "output_dir": "eval",
                      "reward_funcs": ["math_answer"], "max_unreadable_golds": 1.0}  # fmt: skip
        both = {name: RECIPE[name] for name in ("dataset_name", "use_cpu")}
        (tmp_path / "2_eval.yaml").write_text(yaml.safe_dump(evaluation | served | both))
        done = cli("run", "1_sample.yaml", "2_eval.yaml")
    assert done.code == 0, done.err
    samples, counts = rows(tmp_path / "out/samples.jsonl"), summary(tmp_path / "out")
    assert len(samples) == 80 == len({(row["prompt_index"], row["sample_index"]) for row in samples})
    assert all(row["tokens"] == 3 and row["completion"].startswith("<think>\n") for row in samples)
    ends = Counter("finished" if row["finished"] else row.get("error", "cut off") for row in samples)
    assert ends["cut off"] == counts["cut off"] > 0 and ends["tool_calls"] == counts["other ends"] > 0
    assert ends["finished"] == counts["finished"] and counts["failed"] == 0
    kept = rows(tmp_path / "out/sft.jsonl")
    assert len(kept) == 5 and kept[0]["completion"][0]["content"] == "<think>\n0+4=4\n</think>\n\n\\boxed{4}"
    assert json.loads((tmp_path / "eval" / "eval.json").read_text())["teacher"]["problems"] > 0
