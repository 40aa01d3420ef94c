"""Runs sampling recipes again and again in processes that are killed with SIGKILL, and reports what became of them.

    python tests/kill_sampling.py '[["FOLDER", KILLS, "fake"|"real", KEYS], ...]'

FOLDER holds `r.yaml`, a run of KEYS completions in all. Everything is imported once; each life is a fork of this process, so that
it takes milliseconds to start, and is a process of its own from the lock to the last fsync. `fake` puts an engine in the model's
place that answers at once. A life is killed a random number of batches after it began to sample, so many that some are left for
the next one however fast the machine is, and up to 5 ms later, often before the last one is written. Prints one line of JSON: of
each run the kills, how many keys were generated, how many of them again.
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

from reasoning_ext.engines.base import Completion, key_seed
from reasoning_ext.engines.opening import open_engine
from reasoning_ext.recipe.load import load_recipe
from reasoning_ext.runs.folder import finish, locked, open_run
from reasoning_ext.sample.stage import run_sample
from reasoning_ext.scoring.spec import parse_rewards

BATCH = 8


class FakeEngine:
    """Answers at once; the text of a completion depends on its key alone."""

    def generate(self, prompts, keys, settings):
        for start in range(0, len(keys), BATCH):
            time.sleep(0.001)
            yield [answer(p, g, settings.seed) for p, g in keys[start : start + BATCH]]


def answer(p, g, seed):
    number = key_seed(seed, p, g) % 3
    thought = "x" * (key_seed(seed, g, p) % 400)
    return Completion(p, g, f"<think>{thought}</think>{number}", [1] * (5 + number), True, 5 + number)


class Watched:
    """Any engine, whose batches are written down before they are handed on; a byte in a pipe tells of each."""

    def __init__(self, engine, log, pipe):
        self.engine, self.log, self.pipe = engine, log, pipe

    def generate(self, prompts, keys, settings):
        for batch in self.engine.generate(prompts, keys, settings):
            with self.log.open("a") as file:
                file.write(json.dumps([[c.prompt, c.sample] for c in batch]) + "\n")
            os.write(self.pipe, b"x")
            yield batch


def live(folder, kind, log, pipe):
    """Be one life: run the recipe as a pipeline does."""
    os.chdir(folder)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  the process ends with it
    recipe = load_recipe(Path("r.yaml"))
    with locked(recipe.output_dir):
        run = open_run(recipe.output_dir, recipe.values, {})
        engine = FakeEngine() if kind == "fake" else open_engine(recipe)
        specs = parse_rewards(recipe.get("reward_funcs"), recipe.folder)
        code = run_sample(recipe, run, specs, Watched(engine, log, pipe))
        finish(run.path, 0.0)
    return code


def read_log(log):
    """Return the keys of all batches so far, in their order."""
    lines = log.read_text().splitlines() if log.is_file() else []
    return [tuple(key) for line in lines for key in json.loads(line)]


def lives(folder, kills, kind, keys):
    """Run a recipe until it is done, and kill it so often before."""
    rng, log, died = random.Random(0), folder / "generated.log", 0
    while True:
        left = (keys - len(set(read_log(log)))) / BATCH  # batches
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            code = 1
            try:
                code = live(folder, kind, log, writer)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(writer)
        if died < kills:
            most = max(1, int(1.6 * left / (kills - died + 1)))
            if all(os.read(reader, 1) for _ in range(rng.randint(1, most))):  # else it has ended
                time.sleep(rng.random() ** 2 * 0.005)
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(reader)
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0, f"exit code {os.WEXITSTATUS(status)}"
            assert died == kills, f"done after {died} kills: fewer than {keys} keys"
            generated = read_log(log)
            return {"kills": died, "again": len(generated) - len(set(generated))}
        died += 1


if __name__ == "__main__":
    plan = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    for folder, _, kind, _ in plan:
        if kind == "real":  # imports what is behind a model's names
            open_engine(load_recipe(Path(folder) / "r.yaml")).close()
    print(json.dumps([lives(Path(folder), kills, kind, keys) for folder, kills, kind, keys in plan]))
