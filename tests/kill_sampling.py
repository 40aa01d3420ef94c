"""Runs recipes that sample or evaluate again and again in processes that are killed with SIGKILL, and reports what became.

    python tests/kill_sampling.py '[["FOLDER", KILLS, "fake"|"tools"|"real", KEYS], ...]'

FOLDER holds `r.yaml`, a run of KEYS completions in all, or of as many as the run before where that is 0. Everything is
imported once; each life is a fork of this process. `fake` puts an engine in the model's place that answers at once, `tools`
one that calls the recipe's calculator first, which runs. A
life is killed a random number of batches after it began to draw, so many that some are left for the next one, and up to
5 ms later, often before the last one is written. Prints one line of JSON: of each run the kills, how many keys were
generated again and in all, and in which ways of an evaluation, which always has a
fake engine, it was killed.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

import reasoning_ext.evaluate.stage as evaluation
from reasoning_ext.engines.base import Completion, begun, key_seed
from reasoning_ext.engines.opening import open_engine, with_tools
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.runs.folder import finish, locked, open_run
from reasoning_ext.runs.identity import text_hash
from reasoning_ext.sample.stage import run_sample
from reasoning_ext.scoring.spec import parse_rewards

BATCH = 8


class FakeEngine:
    """Answers at once; the text of a completion depends on its key alone, in an evaluation on its prompt too."""

    def __init__(self, says=lambda prompt, p, g, settings: answer(p, g, settings.seed)):
        self.says = says

    def generate(self, prompts, keys, settings):
        for start in range(0, len(keys), BATCH):
            time.sleep(0.001)
            yield [self.says(prompts[p], p, g, settings) for p, g in keys[start : start + BATCH]]

    def close(self):
        pass


def answer(p, g, seed):
    number = key_seed(seed, p, g) % 3
    thought = "x" * (key_seed(seed, g, p) % 400)
    return Completion(p, g, f"<think>{thought}</think>{number}", [1] * (5 + number), True, 5 + number)


def calls(prompt, p, g, settings):
    """Call the calculator, with a sample's own words before, and answer what it says."""
    said = prompt[-1]["content"]
    call = json.dumps({"name": "calculator", "arguments": {"expression": f"{p} % 3 + {g // 2}"}})
    text = said if prompt[-1]["role"] == "tool" else f"<think>{g}</think><tool_call>{call}</tool_call>"
    return Completion(p, g, text, [], True, 5)


def step(prompt, p, g, settings):
    """Go on with a thought by one step where it is to stop after one, three times; else end it."""
    start, number = begun(prompt), key_seed(int(text_hash(json.dumps(prompt))[:7], 16), p, g) % 7
    ends = not settings.stop or start.count(settings.stop) == 3
    text = f"</think>{number}" if ends else f"{number}+1={number + 1}{settings.stop}"
    return Completion(p, g, f"{start or '<think>'}{text}", [1] * 3, ends, 3, logprob=-number / 7)


class Watched:
    """Any engine, whose batches are written down before they are handed on; a byte in a pipe tells of each."""

    def __init__(self, engine, log, pipe):
        self.engine, self.log, self.pipe = engine, log, pipe

    def generate(self, prompts, keys, settings):
        for batch in self.engine.generate(prompts, keys, settings):
            with self.log.open("a") as file:
                asked = [text_hash(json.dumps(prompts[c.prompt])) for c in batch]
                file.writelines(f"{c.prompt} {c.sample} {text}\n" for c, text in zip(batch, asked, strict=True))
            os.write(self.pipe, b"x")
            yield batch

    def __getattr__(self, name):
        return getattr(self.engine, name)


def live(folder, kind, log, pipe):
    """Be one life: run the recipe as a pipeline does, and end the process."""
    code = 1
    try:
        os.chdir(folder)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  the process ends with it
        recipe = load_recipe(Path("r.yaml"))
        with locked(recipe.output_dir):
            run = open_run(recipe.output_dir, recipe.values, {})
            specs = parse_rewards(recipe.get("reward_funcs"), recipe.folder)
            if recipe.stage == "eval":
                evaluation.open_engine = lambda *_, **__: Watched(FakeEngine(step), log, pipe)
                code = evaluation.run_eval(recipe, run, specs)
            else:
                fakes = {"fake": lambda: FakeEngine(), "tools": lambda: with_tools(FakeEngine(calls), recipe)}
                engine = fakes.get(kind, lambda: open_engine(recipe))()
                code = run_sample(recipe, run, specs, Watched(engine, log, pipe))
            finish(run.path, 0.0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def lives(folder, kills, kind, keys):
    """Run a recipe until it is done, and kill it so often before."""
    rng, log, died, generated, ways = random.Random(0), folder / "generated.log", 0, [], []
    while True:
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            os.close(reader)
            live(folder, kind, log, writer)
        os.close(writer)
        if died < kills:
            most = max(1, int(1.6 * (keys - len(set(generated))) / BATCH / (kills - died + 1)))
            if all(os.read(reader, 1) for _ in range(rng.randint(1, most))):  # else it has ended
                time.sleep(rng.random() ** 2 * 0.005)
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(reader)
        generated = log.read_text().splitlines()
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0 and died == kills, (status, died)
            return {"kills": died, "again": len(generated) - len(set(generated)), "keys": len(generated), "ways": ways}
        died += 1
        if (answers := folder / "out" / "answers.jsonl").is_file():
            ways += [
                json.loads(line).get("way", "") for line in answers.read_bytes().splitlines(True) if b"\n" in line
            ][-1:]


if __name__ == "__main__":
    plan = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    for folder, _, kind, _ in plan:
        if kind == "real":  # imports what is behind a model's names
            open_engine(load_recipe(Path(folder) / "r.yaml")).close()
    reports = [{"keys": 0}]
    for folder, kills, kind, keys in plan:
        reports.append(lives(Path(folder), kills, kind, keys or reports[-1]["keys"]))
    print(json.dumps(reports[1:]))
