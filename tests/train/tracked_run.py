"""A training of one number in a tracker, in a process of its own: `python tracked_run.py FOLDER TRACKER [what goes wrong]`.

`killed` ends the process in step 4, after the checkpoint of step 2; `torn` makes the tracker fail from step 2 on, and
`damaged` spoils the tables of completions.
"""

import os
import sys
import time
from pathlib import Path

import pandas
import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from reasoning_ext.runs import health
from reasoning_ext.runs.checkpoints import last_checkpoint
from reasoning_ext.runs.folder import RunDir
from reasoning_ext.train import tracked
from reasoning_ext.train.health import HealthWatch

folder, name, wrong = Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""
folder.mkdir(exist_ok=True)
fires = health.Rule(
    "flat",
    ("grpo",),
    (),
    0.0,
    "",
    "",
    "nothing is learnt",
    "stop",
    lambda past, _: 0.5 if past.end > 2 else None,
)
health.RULES = (fires,)


class One(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(1))

    def forward(self, x, labels):
        return {"loss": ((self.w * x - labels) ** 2).mean()}


def wait_for_stores(logs):
    """Wait for wandb and trackio, which write in a process or thread of their own, at most a minute."""
    for _ in range(60 if name in ("wandb", "trackio") else 0):
        stored = [*Path.cwd().rglob("*.wandb"), *Path(os.environ["TRACKIO_DIR"]).rglob("*.db*")]
        if sum(file.read_bytes().count(b"train/loss") for file in stored) >= logs:
            break
        time.sleep(1)


class Goes(TrainerCallback):
    def on_log(self, args, state, control, **kwargs):
        (folder / "completions").mkdir(exist_ok=True)
        said = [[{"role": "user", "content": f"prompt {i}"}] for i in range(150)]
        table = pandas.DataFrame({"step": state.global_step, "prompt": said, "completion": said, "reward": 0.5})
        file = folder / "completions" / f"completions_{state.global_step:05d}.parquet"
        file.write_text("no table") if wrong == "damaged" else table.to_parquet(file)

    def on_step_begin(self, args, state, control, **kwargs):
        if wrong == "killed" and state.global_step == 3:
            wait_for_stores(3)
            os._exit(9)

    def on_save(self, args, state, control, **kwargs):
        (folder / f"checkpoint-{state.global_step}" / "COMPLETE").write_text("{}")


def refuse(*args, **kwargs):
    raise OSError("no space left")


torch.manual_seed(0)
rows = Dataset.from_dict({"x": [[float(i)] for i in range(1, 9)], "labels": [[2.0 * i] for i in range(1, 9)]})
args = TrainingArguments(
    str(folder),
    report_to=[name],
    max_steps=5,
    logging_steps=1,
    save_steps=2,
    use_cpu=True,
    learning_rate=0.01,
    per_device_train_batch_size=2,
    disable_tqdm=True,
    save_only_model=False,
    optim="sgd",
)
trainer = Trainer(One(), args, train_dataset=rows, callbacks=[Goes()])
if wrong == "torn":
    next(c for c in trainer.callback_handler.callbacks if name in type(c).__name__.lower()).on_log = refuse
checkpoint = last_checkpoint(folder)
run = RunDir(folder, False, checkpoint)
watch = HealthWatch(trainer, run, {"stage": "grpo"})
trainer.add_callback(watch)
with tracked.tracked_training(trainer, run, watch):
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
trainer.state.save_to_json(str(folder / "state.json"))
print("REPORT_TO", args.report_to)
