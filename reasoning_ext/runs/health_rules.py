"""What must not hold in a training: rules with their thresholds, where those come from, what they mean, what mends it."""

from dataclasses import dataclass

from reasoning_ext.recipe.keys import FROM_DATA, TRAINED
from reasoning_ext.runs import health_signs as signs
from reasoning_ext.runs.past import RATE, Past, Rows

AXOLOTL = "Axolotl, docs/training_stability.qmd"
MEASURED = "measured on recipes/tiny"
GRPO = ("grpo",)


@dataclass(frozen=True)
class Rule:
    """What must not hold in a training of some stages: what it means, in half a sentence, and what to edit in the recipe.

    Attributes:
        name: as `health` in a recipe has it, and the alarm.
        keys: the metrics that it reads; a report draws its threshold on their curves.
        threshold: the number beyond which it holds, or that `meaning` speaks of.
        side: whether it holds `above` or `below` the threshold; "" where it is no value of the metric.
        source: where the threshold comes from.
        holds: whether it holds at a log.
    """

    name: str
    stages: tuple[str, ...]
    keys: tuple[str, ...]
    threshold: float
    side: str
    source: str
    meaning: str
    edit: str
    holds: signs.Holds

    def first(self, rows: Rows, threshold: float) -> tuple[float, float] | None:
        """Return the first step at which it holds and the value found there, or None."""
        for end in range(1, len(rows) + 1):
            if (value := self.holds(Past(rows, end), threshold)) is not None:
                return float(rows[end - 1]["step"]), value
        return None


RULES: tuple[Rule, ...] = (
    Rule(
        "reward_flat",
        GRPO,
        ("reward",),
        20,
        "",
        f"{AXOLOTL}: above 0.15 within 20 steps",
        "so many steps after the warm-up the reward is not above its start",
        "raise learning_rate, take problems that are solved at times (difficulty: [0.1, 0.9]), or begin with SFT",
        signs.not_beyond_start("reward", 1),
    ),
    Rule(
        "none_right",
        GRPO,
        ("rewards/NAME/mean",),
        10,
        "",
        MEASURED,
        "the reward that says what is right was 0 for all while others differ: form is learnt, and no answers",
        "see completions/; use easier problems, or a model that solves some of them",
        signs.none_right,
    ),
    Rule(
        "flat_groups",
        GRPO,
        (signs.FLAT, "reward_std"),
        0.8,
        "above",
        f"{AXOLOTL}: below 0.8",
        "share of groups without two different rewards, from which nothing is learnt",
        "use easier or harder problems, a reward that pays in part, more temperature or num_generations, or refill",
        signs.flat_groups,
    ),
    Rule(
        "entropy_low",
        GRPO,
        ("entropy",),
        0.01,
        "below",
        f"{AXOLOTL}: below 0.01 is mode collapse",
        "nearly all completions of a prompt are the same",
        "lower learning_rate, raise epsilon_high (0.28) or temperature",
        signs.entropy_low,
    ),
    Rule(
        "entropy_high",
        GRPO,
        ("entropy",),
        4,
        "",
        f"{MEASURED}: 0.2 to 1.1 times; {AXOLOTL}: 0.05 to 0.5 is healthy",
        "entropy is several times its start (which counts as 0.05 at least): texts become noise",
        "lower learning_rate, or add warmup_steps",
        signs.entropy_high,
    ),
    Rule(
        "kl_high",
        GRPO,
        ("kl",),
        2,
        "above",
        f"{AXOLOTL}: above 2",
        "the model has gone far from its reference",
        "lower learning_rate or raise beta",
        signs.beyond("kl", "above"),
    ),
    Rule(
        "grad_norm_high",
        ("sft", "grpo"),
        ("grad_norm",),
        10,
        "above",
        f"{AXOLOTL}: above 10 again and again",
        "gradients are too large, step after step",
        "lower learning_rate, set max_grad_norm: 1.0, add warmup_steps or gradient_accumulation_steps",
        signs.each_beyond("grad_norm", "above", signs.SHORT),
    ),
    Rule(
        "grad_norm_low",
        TRAINED,
        ("grad_norm",),
        0.001,
        "below",
        f"{AXOLOTL}: 0.001 to 1",
        "gradients are next to nothing although rewards differ or rows are new",
        "look whether anything can be trained (use_peft, lora_target_modules), and at what the loss is taken over",
        signs.each_beyond("grad_norm", "below", signs.LONG, signs.grad_norm_of_a_step_that_teaches),
    ),
    Rule(
        "clip_ratio_high",
        GRPO,
        ("clip_ratio/region_mean",),
        0.3,
        "above",
        f"{AXOLOTL}: above 0.3",
        "most of what a batch teaches is clipped away",
        "lower learning_rate, num_iterations or steps_per_generation",
        signs.beyond("clip_ratio/region_mean", "above"),
    ),
    Rule(
        "cut_off",
        GRPO,
        (signs.CUT_OFF,),
        0.5,
        "above",
        "trl#5697: 97 to 99 % cut off, and nothing learnt",
        "most completions are cut off at max_completion_length before they have an answer",
        "raise max_completion_length, or begin with a model that ends its answers, as stage sft teaches it",
        signs.cut_off,
    ),
    Rule(
        "length_limit",
        GRPO,
        (signs.CUT_OFF, signs.LENGTH),
        0.3,
        "above",
        f"{AXOLOTL}: below 0.3; lengths that rise to the limit",
        "completions grow up to max_completion_length and are cut off there",
        "take out what pays for length, add length_penalty, use loss_type: dapo, or raise max_completion_length",
        signs.length_limit,
    ),
    Rule(
        "length_collapse",
        GRPO,
        (signs.LENGTH,),
        0.35,
        "",
        "measured on examples/hacked_reward: 16 to 4 tokens",
        "completions have become several times shorter than at the start",
        "take out what pays for short answers, or pay it only from a length on that right answers do not need",
        signs.length_collapse,
    ),
    Rule(
        "learning_rate_zero",
        TRAINED,
        (RATE,),
        0,
        "",
        "nothing is trained with it",
        "the learning rate is 0, and not in a single step as at the ends of a schedule",
        "set learning_rate, or another lr_scheduler_type",
        signs.each_beyond(RATE, "below", 3),
    ),
    Rule(
        "sampling_mismatch",
        GRPO,
        ("sampling/sampling_logp_difference/mean",),
        0.1,
        "above",
        f"trl#4772: 0.012 where all is well; vllm-project/vime#64: 0.036 after a drift; {AXOLOTL}: above 1",
        "vLLM gives its tokens other probabilities than the model that is trained",
        "set dtype: bfloat16 for both, leave top_p, top_k, min_p out, and see what check --parity finds",
        signs.beyond("sampling/sampling_logp_difference/mean", "above"),
    ),
    Rule(
        "importance_ratio_low",
        GRPO,
        ("sampling/importance_sampling_ratio/mean",),
        0.1,
        "below",
        f"{AXOLOTL}: near 0; trl#5814: means of 0.4 to 0.7 are usual for long completions",
        "nearly nothing of what vLLM drew counts, since the model has moved on or draws otherwise",
        "leave top_p, top_k, min_p out, lower steps_per_generation, or vllm_importance_sampling_mode: token_truncate",
        signs.beyond("sampling/importance_sampling_ratio/mean", "below"),
    ),
    Rule(
        "nan",
        TRAINED,
        ("grad_norm", "loss", signs.BROKEN),
        5,
        "",
        f"{AXOLOTL}: NaN; weights that are no numbers never mend",
        "loss or gradients are no numbers for so many logs, or the weights are none",
        "lower learning_rate, use bf16 in the place of fp16, and look for a reward or a row that gives NaN",
        signs.nan,
    ),
    Rule(
        "hacking",
        GRPO,
        ("audit/NAME/mean", *signs.HELD_OUT),
        0.1,
        "",
        "measured on examples/hacked_reward: 0.4 to 0.1",
        "the reward rises while the audit or the held-out figure falls from its best: the reward is hacked",
        "take an earlier checkpoint; pay for the outcome, and let all else weigh less or stand behind gate",
        signs.hacking,
    ),
    Rule(
        "thoughts_lost",
        TRAINED,
        ("completions/thinks", "held_out/thinks"),
        0.5,
        "",
        "measured on examples/hacked_reward: 0.36 to 0",
        "the share of completions with a thought is less than half of its start",
        "take out what pays for short answers, add think_format behind gate, or begin with SFT on thoughts",
        signs.thoughts_lost,
    ),
    Rule(
        "repetition",
        GRPO,
        ("completions/repetition",),
        0.2,
        "above",
        "trace_filters: 3 of GSM8K's 7,473 solutions are above 0.2",
        "completions say the same passages again and again",
        "lower learning_rate, take out what pays for length, or set repetition_penalty: 1.05",
        signs.beyond("completions/repetition", "above"),
    ),
    Rule(
        "tool_failures",
        GRPO,
        (signs.FAILURES, "tools/NAME/errors", "tools/NAME/timeouts", "tools/malformed"),
        0.5,
        "above",
        "more calls fail than are answered",
        "most calls of tools fail, in step after step, so that results teach nothing but errors",
        "read the errors in completions/ (column turns), raise the tool's seconds, or begin with SFT on right calls",
        signs.tool_failures,
    ),
    Rule(
        "tools_unused",
        GRPO,
        (signs.CALLS,),
        0.01,
        "below",
        "less than a call in 100 completions",
        "tools are given and next to no completion calls one",
        "take a penalty for calls out, begin with SFT on traces that call, or leave tools out where answers need none",
        signs.tools_unused,
    ),
    Rule(
        "loss_flat",
        FROM_DATA,
        ("loss",),
        20,
        "",
        f"{AXOLOTL}: decreasing",
        "so many steps after the warm-up the loss is not below its start",
        "raise or lower learning_rate 2 to 5 times, and look at what the loss is taken over: check prints a row",
        signs.not_beyond_start("loss", -1),
    ),
    Rule(
        "overfit",
        FROM_DATA,
        ("eval_loss",),
        1.05,
        "",
        f"{AXOLOTL}: eval loss rises while train loss falls",
        "the loss on held-out rows rises while the one that is trained on falls",
        "fewer num_train_epochs or max_steps, more rows, or take an earlier checkpoint",
        signs.overfit,
    ),
)
