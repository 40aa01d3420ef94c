"""Runs a sampling recipe again and again in processes that are killed with SIGKILL, and reports what became of it.

    python tests/kill_sampling.py FOLDER KILLS fake|real

FOLDER holds `r.yaml`. Everything is imported once; each life is a fork of this process, so that it takes milliseconds to
start, and is a process of its own from the lock to the last fsync. `fake` puts an engine in the model's place that answers at
once. Prints one line of JSON: the kills, the lives that ended by themselves, how many keys were generated, and how many again.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import datasets  # noqa: F401  what a life needs is imported before the forks
import transformers

from reasoning_ext import pipeline, sample
from reasoning_ext.engines import transformers_engine
from reasoning_ext.generation import Completion, key_seed
from reasoning_ext.recipe import load_recipes

BATCH = 8
LONGEST = {"fake": 0.04, "real": 0.3}  # seconds of sampling before a kill


class FakeEngine:
    """Answers at once; the text of a completion depends on its key alone."""

    def generate(self, prompts, keys, settings):
        for start in range(0, len(keys), BATCH):
            time.sleep(0.001)
            yield [answer(prompts[p], p, g, settings.seed) for p, g in keys[start : start + BATCH]]

    def close(self):
        pass


def answer(prompt, p, g, seed):
    number = key_seed(seed, p, g) % 3
    thought = "x" * (key_seed(seed, g, p) % 400)
    return Completion(p, g, f"<think>{thought}</think>{number}", [1] * (5 + number), True, 5 + number)


class Watched:
    """Any engine, whose batches are written down before they are handed on; says when the first one comes."""

    def __init__(self, engine, log, started):
        self.engine, self.log, self.started = engine, log, started

    def generate(self, prompts, keys, settings):
        for batch in self.engine.generate(prompts, keys, settings):
            with self.log.open("a") as file:
                file.write(json.dumps([[c.prompt, c.sample] for c in batch]) + "\n")
            if self.started is not None:
                os.write(self.started, b"x")
                self.started = None
            yield batch

    def close(self):
        self.engine.close()


def live(folder, kind, log, started):
    """Be one life: run the recipe as the command line does."""
    opened = sample.open_engine

    def watched(recipe):
        return Watched(FakeEngine() if kind == "fake" else opened(recipe), log, started)

    sample.open_engine = watched
    transformers_engine.torch.set_num_threads(1)
    os.chdir(folder)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  the process ends with it
    return pipeline.run_recipes(load_recipes(["r.yaml"]))


def main(folder, kills, kind):
    transformers.AutoTokenizer  # noqa: B018  imports what is behind the name
    rng, log = random.Random(0), folder / "generated.log"
    died = ended = most_again = 0
    while died < kills or ended == 0:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            code = 1
            try:
                code = live(folder, kind, log, writer)
            finally:
                os._exit(code)
        os.close(writer)
        os.read(reader, 1)  # sampling has begun, or the child has ended
        os.close(reader)
        if died < kills:
            time.sleep(rng.uniform(0, LONGEST[kind]))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            died += 1
        else:
            assert os.WEXITSTATUS(status) == 0, f"exit code {os.WEXITSTATUS(status)}"
            ended += 1
        generated = [tuple(key) for line in log.read_text().splitlines() for key in json.loads(line)]
        most_again = max(most_again, len(generated) - len(set(generated)))
        if died < kills and ended:
            raise SystemExit(f"done after {died} kills; make the lives shorter")
    print(json.dumps({"kills": died, "ended": ended, "generated": len(generated), "again": most_again}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
