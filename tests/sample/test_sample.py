"""Stage sample from recipe to files: what is handed on, what the next stages read, through a model, a server, and neither."""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from conftest import TINY

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
        self.asked, self.answer = [], answer or self.solve

    def solve(self, p, g):
        text = f"<think>{p}+4={p + 4}{' so' * (10 * g)}</think>\\boxed{{{p + 4 + (g >= p)}}}"
        return Completion(p, g, text, [1] * len(text), g != 3, len(text))

    def generate(self, prompts, keys, settings):
        for p, g in keys:
            self.asked.append((p, g))
            yield [self.answer(p, g)]

    def close(self):
        raise AssertionError("an engine that was given is its owner's")


def says(text):
    """An engine whose completions are `text(prompt, sample)`, ended."""
    return Engine(lambda p, g: Completion(p, g, text(p, g), [1], True, 1))


@pytest.fixture
def sample(tmp_path):
    """Run a sample recipe with an engine of the test's own; return its folder's path and the engine."""
    (tmp_path / "problems.py").write_text(PROBLEMS)

    def run(out="out", by=None, **changed):
        values = {k: v for k, v in (RECIPE | {"output_dir": str(tmp_path / out)} | changed).items() if v is not None}
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
        recipe, engine = load_recipe(tmp_path / "r.yaml"), by or Engine()
        folder = open_run(recipe.output_dir, recipe.values, {})
        assert run_sample(recipe, folder, parse_rewards(recipe.get("reward_funcs"), recipe.folder), engine) == 0
        finish(folder.path, 0.0)
        return folder.path, engine

    return run


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def summary(out):
    return json.loads((out / "summary.json").read_text())


def test_one_run_makes_rows_pairs_rated_prompts_counts_and_a_card(sample, capsys):
    out, _ = sample(keep=2, select="shortest", pairs={"right_wrong": 2, "short_long": 1}, license="cc-by-4.0")
    kept = rows(out / "sft.jsonl")
    assert [row["answer"] for row in kept] == ["5", "6", "6", "7", "7", "8", "8"]
    assert kept[1] == {
        "prompt": [{"role": "user", "content": "2+4?"}], "answer": "6", "level": 2,
        "completion": [{"role": "assistant", "content": "<think>2+4=6</think>\\boxed{6}"}],
    }  # fmt: skip
    rated = rows(out / "prompts.jsonl")
    assert [(row["pass_rate"], row["pass_rate_samples"], row["difficulty_band"]) for row in rated] == [
        (0, 4, "unsolved"), (0.25, 4, "hard"), (0.5, 4, "medium"), (0.75, 4, "easy"), (0.75, 4, "easy"),
    ]  # fmt: skip
    assert rated[4]["level"] == 4 and "completion" not in rated[4]
    pairs = rows(out / "pairs.jsonl")
    assert [(row["answer"], row["kind"]) for row in pairs] == [
        ("5", "right_wrong"), ("6", "right_wrong"), ("6", "short_long"), ("7", "short_long"), ("8", "short_long"),
    ]  # fmt: skip
    assert pairs[0]["chosen"][0]["content"].endswith("{5}") and pairs[0]["rejected"][0]["content"].endswith("{6}")
    assert pairs[0]["chosen_reward"] == 1.0 > pairs[0]["rejected_reward"]
    assert pairs[2]["rejected_tokens"] > pairs[2]["chosen_tokens"]
    counts = {"sampled": 20, "saved": 0, "finished": 15, "cut off": 5, "failed": 0, "accepted": 9, "kept": 7, "prompts": 5,
              "prompts without one": 1, "pass rates": [1, 0, 1, 0, 0, 1, 0, 2, 0, 0]}  # fmt: skip
    assert counts.items() <= summary(out).items() and list(summary(out)["tokens of the kept"])[::4] == [
        "shortest",
        "longest",
    ]
    card = (out / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "cc-by-4.0"
    assert [one["config_name"] for one in header["configs"]] == ["sft", "dpo", "grpo"]
    for line in ("| without a gold | 5 prompts | 1 |", "| cut off | 15 completions | 5 |", "| not accepted | 9 completions | 6 |",
                 "| not selected | 7 completions | 2 |", "- these files: cc-by-4.0", " 70 to  80 %"):  # fmt: skip
        assert line in card
    printed = capsys.readouterr().out
    assert "sample  sampled 20  finished 15  cut off 5  accepted 9  kept 7  prompts 5  prompts without one 1" in printed
    assert "pairs   right_wrong 2  short_long 3" in printed


def test_adaptive_rounds_draw_what_is_lacking_and_say_what_they_saved(sample, capsys):
    out, engine = sample(adaptive=True)
    drawn = Counter(p for p, _ in engine.asked)
    assert drawn == {0: 16, 1: 1, 2: 1, 3: 1, 4: 1}  # what four prompts saved, up to 4 x num_generations
    assert "adaptive: 20 of 20 completions drawn, 0 (0%) saved" in capsys.readouterr().out
    out, engine = sample("less", adaptive=True, keep=1, max_generations=4)
    assert "adaptive: 8 of 20 completions drawn, 12 (60%) saved" in capsys.readouterr().out
    assert len(rows(out / "sft.jsonl")) == 4
    _, engine = sample("less", adaptive=True, keep=2, max_generations=4)  # and other rules
    fresh, alone = sample("fresh", adaptive=True, keep=2, max_generations=4)
    assert set(engine.asked) < set(alone.asked) and len(rows(out / "samples.jsonl")) == 8 + len(engine.asked)
    assert (out / "sft.jsonl").read_bytes() == (fresh / "sft.jsonl").read_bytes()


def test_prompts_without_a_gold_are_judged_by_agreement(sample):
    def voting():
        return says(lambda p, g: f"<think>{g}</think>\\boxed{{{9 if g else '18/2' if p == 5 else 3}}}")

    out, _ = sample(by=voting(), min_agreement=0.6, keep=4)
    rated = rows(out / "prompts.jsonl")
    assert len(rated) == 6 and [row["pass_rate"] for row in rated] == [0, 0, 0, 0, 0, 1.0]
    assert [row["level"] for row in rows(out / "sft.jsonl")] == [5, 5, 5, 5]
    out, _ = sample("strict", by=voting(), min_agreement=None, keep=4)
    assert len(rows(out / "prompts.jsonl")) == 5 and rows(out / "sft.jsonl") == []


def test_a_data_set_may_have_no_golds_at_all(tmp_path, sample):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"prompt": f"{i}+4?"}) + "\n" for i in range(3)))
    agreeing = says(lambda p, g: f"<think>{g}</think>\\boxed{{{p + 4}}}")
    ours = {"by": agreeing, "dataset_name": "./rows.jsonl", "reward_funcs": ["math_answer"], "keep": 2}
    out, _ = sample(**ours, min_agreement=0.6)
    assert len(rows(out / "sft.jsonl")) == 6 and summary(out)["pairs"] == {"right_wrong": 0}
    assert "agrees with most completions" in (out / "README.md").read_text()
    with pytest.raises(DataError, match="math_answer needs the column answer"):
        sample("other", **ours)


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
    down = Engine(lambda p, g: Completion(p, g, "", [], False, 0, "time-out") if g == 2 else Engine().solve(p, g))
    with pytest.raises(EngineError, match="5 of 20 completions failed; the others are kept"):
        sample(by=down)
    assert len(rows(tmp_path / "out" / "samples.jsonl")) == 20 and not (tmp_path / "out" / "sft.jsonl").exists()
    out, engine = sample()
    assert sorted(engine.asked) == [(p, 2) for p in range(5)] and len(rows(out / "samples.jsonl")) == 25
    assert {"sampled": 20, "failed": 0, "accepted": 9}.items() <= summary(out).items()


def test_equal_completions_are_enough_once(sample):
    out, _ = sample(by=says(lambda p, g: f"<think>{g // 3}</think>{p + 4}"), keep=2, adaptive=True, max_generations=4)
    assert len(rows(out / "sft.jsonl")) == 10 and len(rows(out / "samples.jsonl")) == 20  # the fourth is another one


def test_a_reward_that_fails_stops_the_run_before_its_batch_is_written(sample, tmp_path):
    (tmp_path / "bad.py").write_text("def bad(completions, **kwargs):\n    raise RuntimeError('no')\n")
    with pytest.raises(RewardError, match=r"bad .*failed: RuntimeError: no"):
        sample(reward_funcs=["./bad.py:bad"])
    assert not (tmp_path / "out" / "samples.jsonl").exists()


def test_the_rest_of_a_run_may_come_faster_or_from_elsewhere(sample, tmp_path):
    class Cut(Engine):
        def generate(self, prompts, keys, settings):
            yield next(super().generate(prompts, keys, settings))
            raise EngineError("engine_kwargs", "gone")

    def served(url, **more):
        return {"engine": "server", "engine_kwargs": {"base_url": url, **more}}

    with pytest.raises(EngineError, match="gone"):
        sample(by=Cut(), **served("http://a:1/v1"))
    out, engine = sample(per_device_eval_batch_size=3, **served("http://b:2/v1", max_concurrency=4, max_retries=9))
    assert len(engine.asked) == 19 and "http://b:2/v1" in (out / "recipe.yaml").read_text()
    for changed in ({"temperature": 0.5}, {"engine": "transformers", "engine_kwargs": None}):
        with pytest.raises(RunDirError, match=f"made by a different recipe \\({next(iter(changed))}"):
            sample(**served("http://b:2/v1") | changed)


def test_other_rules_choose_among_the_completions_that_are_there(sample):
    out, _ = sample(keep=1)
    before, drawn, known = fingerprint(str(out)), (out / "samples.jsonl").read_bytes(), (out / "DONE").stat().st_ino
    cases = [{"keep": None, "diverse": 3}, {"select": "shortest", "keep": 9}, {"min_reward": 0.5, "license": "mit"},
             {"pairs": {"short_long": 2}}]  # fmt: skip
    for number, changed in enumerate(cases):
        _, engine = sample(**{"keep": 1} | changed)
        fresh, _ = sample(f"fresh{number}", **{"keep": 1} | changed)
        assert engine.asked == [] and (out / "samples.jsonl").read_bytes() == drawn
        for name in OUTPUTS:
            assert (out / name).read_bytes() == (fresh / name).read_bytes(), (changed, name)
        assert (
            fingerprint(str(out)) != before
        )  # so that what was trained on the old rows is not taken for made of these
    _, engine = sample(keep=1)
    assert engine.asked == [] and fingerprint(str(out)) == before and (out / "DONE").stat().st_ino != known
    values = yaml.safe_load((out / "recipe.yaml").read_text())
    assert not open_run(out, values | {"keep": 2}, {}).done  # and there the process is killed
    with pytest.raises(DataError, match="a run that has not finished"):
        load_rows(str(out), out.parent, stage="sft")
    sample(keep=1)
    assert load_rows(str(out), out.parent, stage="sft").num_rows == 4


def test_more_completions_of_a_prompt_are_drawn_beside_those_that_are_there(sample):
    out, _ = sample(num_generations=2, keep=9)
    _, engine = sample(num_generations=4, keep=9)
    assert sorted(engine.asked) == [(p, g) for p in range(5) for g in (2, 3)]
    fresh, _ = sample("fresh", num_generations=4, keep=9)
    for name in OUTPUTS:
        assert (out / name).read_bytes() == (fresh / name).read_bytes(), name
    for changed in ({"num_generations": 3}, {"min_agreement": 0.6}):
        with pytest.raises(RunDirError, match=rf"different recipe \({next(iter(changed))}"):
            sample(**{"num_generations": 4, "keep": 9} | changed)
    (out / "samples.jsonl").write_text((out / "samples.jsonl").read_text().replace("0+4?", "0-4?"))
    with pytest.raises(DataError, match=r"the data set has changed .*\(prompt 0 is another one now\)"):
        sample(num_generations=4, keep=8)


def test_columns_that_json_does_not_know_become_text(sample, tmp_path):
    odd = '"level": i, "when": datetime(2026, 1, 1), "share": float("nan"), "late": None if i < 3 else i}'
    odd = PROBLEMS.replace('"level": i}', odd)
    (tmp_path / "odd.py").write_text("from datetime import datetime\n" + odd)
    out, _ = sample(dataset_name="./odd.py:problems", keep=9)
    assert "NaN" not in (out / "sft.jsonl").read_text()
    kept = load_rows(str(out), tmp_path, stage="sft")
    assert {(row["when"], row["share"]) for row in kept} == {("2026-01-01 00:00:00", None)}
    assert [row["late"] for row in kept][-1] == 4


def test_a_column_may_have_no_value_in_its_first_rows(tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    row = {"prompt": [{"role": "user", "content": "x" * 2000}], "answer": None, "pass_rate": None}
    with (tmp_path / "prompts.jsonl").open("w") as file:
        for i in range(6_000):
            file.write(json.dumps(row if i < 5_900 else row | {"answer": "7", "pass_rate": 0.5}) + "\n")
    for name in ("samples.jsonl", "sft.jsonl"):
        (tmp_path / name).write_text("")
    loaded = load_rows(str(tmp_path), tmp_path, stage="grpo")
    assert loaded[5_999]["answer"] == "7" and loaded[0]["pass_rate"] is None


def test_nothing_accepted_is_said(sample, capsys):
    out, _ = sample(by=says(lambda p, g: "<think>?</think>0"))
    assert rows(out / "sft.jsonl") == [] and "warning: nothing was accepted" in capsys.readouterr().out


def test_the_next_stages_read_their_own_files(sample, tmp_path):
    out, _ = sample(keep=2, pairs={"right_wrong": 1})
    common = f"model_name_or_path: {TINY / 'model'}\nfrom_scratch: true\ndataset_name: {out}\noutput_dir: next\n"
    rated = {"prompt", "answer", "pass_rate"}
    for stage, more, columns, count in (
        ("sft", "", {"prompt", "completion", "answer", "level"}, 7),
        ("dpo", "", {"prompt", "chosen", "rejected"}, 2),
        ("grpo", "reward_funcs: [math_answer]\n", rated, 5),
        ("grpo", "reward_funcs: [math_answer]\ndifficulty: [0.25, 0.5]\n", rated, 2),
        ("sample", "reward_funcs: [math_answer]\ndifficulty: [0.0, 0.0]\n", rated, 1),
    ):
        (tmp_path / "next.yaml").write_text(f"stage: {stage}\n{common}{more}")
        prepared = prepare(row_options(load_recipe(tmp_path / "next.yaml")), specs=[])
        assert columns <= set(prepared.rows.column_names) and prepared.rows.num_rows == count, stage
    assert "difficulty 0 to 0: 1 rows, 4 dropped" in prepared.lines()
    elsewhere = common.replace(str(out), "./problems.py:problems")
    (tmp_path / "next.yaml").write_text(f"stage: grpo\n{elsewhere}reward_funcs: [math_answer]\ndifficulty: [0, 1]\n")
    with pytest.raises(DataError, match="the rows have no column pass_rate"):
        prepare(row_options(load_recipe(tmp_path / "next.yaml")), specs=[])


class Server(BaseHTTPRequestHandler):
    """Solves `a+4?`, with the thought in a field of its own; every tenth seed is cut off, every seventh is busy once."""

    seen: set

    def do_GET(self):
        self.answer(200, {"data": [{"id": "teacher"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        seed, a = body.get("seed", 1), int(body["messages"][-1]["content"][0])  # a probe has no seed
        if seed % 7 == 0 and seed not in self.seen:
            self.seen.add(seed)
            return self.answer(503, {"error": "busy"})
        message = {"content": f"\\boxed{{{a + 4 + seed % 2}}}", "reasoning_content": f"{a}+4={a + 4}"}
        reason = "length" if seed % 10 == 0 else "tool_calls" if seed % 10 == 1 else "STOP"
        choices = [{"message": message, "finish_reason": reason}]
        return self.answer(200, {"choices": choices, "usage": {"completion_tokens": 9}})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Server,), {"seen": set()}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


@pytest.mark.slow
def test_a_teacher_behind_a_server_is_sampled_and_evaluated_without_a_tokenizer(cli, tmp_path, url):
    (tmp_path / "problems.py").write_text(PROBLEMS)
    served = {"engine": "server", "engine_kwargs": {"base_url": url}, "dataset_name": "./problems.py:problems"}
    recipe = RECIPE | served | {"model_name_or_path": "teacher", "num_generations": 16, "keep": 16, "output_dir": "out"}
    (tmp_path / "1_sample.yaml").write_text(yaml.safe_dump(recipe))
    evaluation = {"stage": "eval", "models": {"teacher": "teacher"}, "num_generations": 2, "output_dir": "eval", "use_cpu": True,
                  "reward_funcs": ["math_answer"], "max_unreadable_golds": 1.0}  # fmt: skip
    (tmp_path / "2_eval.yaml").write_text(yaml.safe_dump(evaluation | served))
    done = cli("run", "1_sample.yaml", "2_eval.yaml")
    assert done.code == 0, done.err
    out = tmp_path / "out"
    samples, counts = rows(out / "samples.jsonl"), summary(out)
    assert len(samples) == 80 == len({(row["prompt_index"], row["sample_index"]) for row in samples})
    assert all(row["tokens"] == 9 and row["completion"].startswith("<think>\n") for row in samples)
    ends = Counter("finished" if row["finished"] else row.get("error", "cut off") for row in samples)
    assert ends["cut off"] == counts["cut off"] > 0 and ends["tool_calls"] == counts["other ends"] > 0
    assert ends["finished"] == counts["finished"] and counts["failed"] == 0
    assert f"| other ends | {ends['finished']} completions |" in (out / "README.md").read_text()
    kept = rows(out / "sft.jsonl")
    assert len(kept) == 5 and kept[0]["completion"][0]["content"] == "<think>\n0+4=4\n</think>\n\n\\boxed{4}"
    assert json.loads((tmp_path / "eval" / "eval.json").read_text())["teacher"]["problems"] > 0
    again = cli("run", "1_sample.yaml", "--keep", "3")
    assert again.code == 0 and "out with what was drawn, otherwise than before: keep 16 -> 3" in again.out
    assert rows(out / "samples.jsonl") == samples
