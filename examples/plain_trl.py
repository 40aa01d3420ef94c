"""The rewards of this project in plain TRL, without a recipe and without the layer.

    python examples/plain_trl.py                 two steps of a tiny random model on a CPU, no download
    python examples/plain_trl.py MODEL           the same with a model of yours (a hub name or a folder)

A reward is a plain function, so its parameters are set by a function around it (TRL takes the metric's name from it, so no
lambda and no partial). `build_rewards` gives the layer's options to plain TRL as well: weights go into the config.
"""

import sys
from pathlib import Path

from datasets import Dataset
from reasoning_ext.rewards.math_answer import math_answer
from reasoning_ext.rewards.think_format import think_format
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from reasoning_ext.scoring.call import build_rewards
from reasoning_ext.scoring.spec import parse_rewards

TINY = Path(__file__).parents[1] / "recipes" / "tiny" / "model"


def graded_format(completions, **kwargs):
    """Set a parameter of a reward."""
    return think_format(completions, mode="graded")


def main() -> None:
    """Train for two steps and print the metrics that the rewards make."""
    name = sys.argv[1] if len(sys.argv) > 1 else None
    tokenizer = AutoTokenizer.from_pretrained(name or TINY)
    model = name or AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(TINY))
    questions = [{"prompt": [{"role": "user", "content": f"{a}+{a}"}], "answer": str(2 * a)} for a in range(8)]
    specs = parse_rewards([{"step_check": {"weight": 0.2, "gate": "math_answer"}}, "math_answer"], Path())
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[math_answer, graded_format, build_rewards(specs)[0]],
        args=GRPOConfig(
            output_dir="runs/plain_trl", max_steps=2, per_device_train_batch_size=8, num_generations=4, max_completion_length=24,
            reward_weights=[1.0, 0.1, specs[0].weight], logging_steps=1, report_to="none", bf16=False, save_strategy="no",
        ),
        train_dataset=Dataset.from_list(questions),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    logs = [log for log in trainer.state.log_history if "reward" in log]
    print({key: value for key, value in logs[-1].items() if key.startswith("rewards/") or key.endswith("/errors")})


if __name__ == "__main__":
    main()
