"""When a rule of `health_rules` holds: functions of the rows up to a log and a threshold; what is found there, or None.

One log of a small batch says little: they read means over steps, or ask that something is so for several logs in a
row. A log that is itself a mean over so many steps (`logging_steps: 10`) is as good. A start is the mean of the first steps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import accumulate, islice, pairwise
from statistics import fmean
from typing import Any

from reasoning_ext.runs.past import Of, Past, Row, number
from reasoning_ext.runs.values import deciding

FLAT, CUT_OFF, LENGTH = "frac_reward_zero_std", "completions/clipped_ratio", "completions/mean_length"
CALLS, FAILURES = "tools/call_frequency", "tools/failure_frequency"  # TRL's: calls a completion, the share that raised
BROKEN = "weights/not_finite"  # 1 where a step has left weights that are no numbers, see train/health.py
HELD_OUT = ("held_out/greedy", "held_out/pass@1")
SHORT, LONG = 5, 10  # steps that a mean is taken over
ROUNDING = 1e-6  # what rewards in 32 bits differ by where all are the same, 0.8667 for example; TRL takes 1e-8
NEARLY_ALL = 0.97  # of completions, as in trl#5697
PATIENCE = 20  # steps, or logs of NaN: a GradScaler, which begins at 2**16, has halved it below 1 by then
LOOKED_BACK = 200  # logs among which the best one is looked for
Holds = Callable[[Past, float], float | None]


def beyond(key: str, side: str, steps: int = SHORT) -> Holds:
    """The mean over the last steps is beyond the threshold."""

    def holds(past: Past, threshold: float) -> float | None:
        values = past.last(key, steps) if key in past.now else []
        mean = fmean(values) if values else threshold
        return mean if (mean > threshold if side == "above" else mean < threshold) else None

    return holds


def each_beyond(key: str, side: str, steps: int, of: Of | None = None) -> Holds:
    """Every one of the last logs, three or more, is beyond the threshold: TRL logs one step's value here, no mean."""

    def holds(past: Past, threshold: float) -> float | None:
        values = past.last(of or key, steps, 3) if key in past.now else []
        beyond = all(value > threshold if side == "above" else value <= threshold for value in values)
        return values[0] if values and beyond else None

    return holds


def not_beyond_start(key: str, sign: int) -> Holds:
    """So many steps after the warm-up the mean is still that of the first steps, or worse."""

    def holds(past: Past, steps: float) -> float | None:
        if key not in past.now or not past.settled(steps):
            return None
        before, after = past.first(key, steps / 2), past.last(key, steps / 2)
        apart = len([*islice(past.back(key), len(before) + len(after))]) == len(before) + len(after)
        return fmean(after) if after and apart and sign * (fmean(after) - fmean(before)) <= 0 else None

    return holds


def _share_of_flat(row: Row) -> Any:
    """Return the share of groups without a difference that are trained on; TRL calls groups without any reward different."""
    if "rollouts/with_signal" in row:  # what TRL logs is of the first draw, and some of that may be drawn anew
        return 1 - row["rollouts/with_signal"]
    equal = row.get("reward") is None or row.get("reward_std", 1) < ROUNDING
    return 1.0 if FLAT in row and equal else row.get(FLAT)


def grad_norm_of_a_step_that_teaches(row: Row) -> Any:
    """Return the norm where some group had a difference: without one it is 0 as it should be."""
    return None if _share_of_flat(row) == 1 else row.get("grad_norm")


def flat_groups(past: Past, threshold: float) -> float | None:
    """The mean share of groups without a difference is above the threshold."""
    shares = past.last(_share_of_flat, LONG) if FLAT in past.now or past.over else []
    return fmean(shares) if shares and fmean(shares) > threshold else None


def none_right(past: Past, steps: float) -> float | None:
    """The first reward that is not about manner alone has been 0 for so many steps, and in some group others differ."""
    rows = (past.rows[i] for i in range(past.end - 1, -1, -1))
    named = (key for row in rows for key in row if key.startswith("rewards/") and key.endswith("/mean"))
    judge = deciding(key[8:-5] for key in named) if FLAT in past.now or past.over else ""
    values = past.last(f"rewards/{judge}/mean", steps) if judge else []
    differ = any(share < 1 for share in past.last(_share_of_flat, steps))
    return 0.0 if values and not any(values) and differ else None


def cut_off(past: Past, threshold: float) -> float | None:
    """The share stays above, in each of the last logs, and is not on its way down."""
    return _stays_above(past.last(CUT_OFF, LONG) if CUT_OFF in past.now or past.over else [], threshold)


def _stays_above(shares: list[float], threshold: float) -> float | None:
    half = len(shares) // 2
    falls = half and fmean(shares[:half]) < fmean(shares[half:]) - 0.05
    return fmean(shares) if shares and min(shares) > threshold and not falls else None


def _share_of_failures(row: Row) -> Any:
    """Return the share of calls that failed: TRL sees what raises, a toolbox's own counts have what the model was told of."""
    counts = Counter[str]()
    for key, value in row.items():
        if key.startswith("tools/"):
            counts[key.rpartition("/")[2]] += number(value) or 0.0  # type: ignore[assignment]
    made = counts["calls"] + counts["malformed"]
    own = (counts["errors"] + counts["timeouts"] + counts["malformed"]) / made if made else None
    shares = [share for share in (own, number(row.get(FAILURES)) if row.get(CALLS) != 0 else None) if share is not None]
    return max(shares, default=None)


def tool_failures(past: Past, threshold: float) -> float | None:
    """The share of calls that fail stays above, in each of the last logs with calls, and is not on its way down."""
    is_called = _share_of_failures(past.now) is not None
    return _stays_above(past.last(_share_of_failures, LONG, 3) if is_called else [], threshold)


def tools_unused(past: Past, threshold: float) -> float | None:
    """Over the last steps next to no completion has called anything, whether some did before or not."""
    calls = past.last(CALLS, LONG) if CALLS in past.now else []
    return fmean(calls) if calls and fmean(calls) < threshold else None


def stays_cut_off(past: Past, threshold: float) -> float | None:
    """Nothing mends it: all are, without a difference to learn from; or at the full rate nothing gets better."""
    all_along, flat = past.last(CUT_OFF, LONG), past.last(_share_of_flat, LONG)
    if all_along and min(all_along) > max(threshold, NEARLY_ALL) and flat and min(flat) == 1:
        return fmean(all_along)
    shares, rewards = past.last(CUT_OFF, PATIENCE), past.last("reward", PATIENCE)
    half = len(shares) // 2
    if not half or min(shares) <= threshold or not past.settled(PATIENCE):
        return None
    falls = fmean(shares[:half]) < fmean(shares[half:]) - 0.02
    rises = len(rewards) > 1 and fmean(rewards[: len(rewards) // 2]) > fmean(rewards[len(rewards) // 2 :])
    return None if falls or rises else fmean(shares)


def entropy_low(past: Past, threshold: float) -> float | None:
    """Few choices are left, and not since nearly all is right: rewards have risen and hardly differ any more."""
    entropies = past.last("entropy", SHORT) if "entropy" in past.now else []
    if not entropies or fmean(entropies) >= threshold:
        return None
    (reward, start), (differ, at_first) = (
        (fmean(past.last(key, LONG) or [0.0]), fmean(past.first(key, LONG) or [0.0]))
        for key in ("reward", "reward_std")
    )
    return None if reward > start and differ < at_first / 2 else fmean(entropies)


def entropy_high(past: Past, times: float) -> float | None:
    """The mean over the last steps is above so many times the first log, which counts as 0.05 at least."""
    values = past.last("entropy", SHORT) if "entropy" in past.now and past.now["step"] > SHORT else []
    return fmean(values) if values and fmean(values) > times * max(0.05, past.first("entropy", SHORT)[0]) else None


def length_collapse(past: Past, share: float) -> float | None:
    """Completions are shorter than at the start; not where most were cut off then, and the model has learnt to end."""
    lengths = past.last(LENGTH, SHORT) if LENGTH in past.now and past.now["step"] > SHORT else []
    cut = past.first(CUT_OFF, SHORT)
    if not lengths or (cut and fmean(cut) > 0.5):
        return None
    return fmean(lengths) if fmean(lengths) < share * fmean(past.first(LENGTH, SHORT)) else None


def length_limit(past: Past, threshold: float) -> float | None:
    """Completions have become half as long again, and many are cut off."""
    lengths = past.last(LENGTH, SHORT) if LENGTH in past.now else []
    cut = past.last(CUT_OFF, SHORT)
    grown = bool(lengths) and fmean(lengths) > 1.5 * fmean(past.first(LENGTH, SHORT))
    return fmean(cut) if grown and cut and fmean(cut) > threshold else None


def thoughts_lost(past: Past, share: float) -> float | None:
    """Completions with a thought are fewer than that share of what they were at the start."""
    key = next((key for key in ("completions/thinks", "held_out/thinks") if key in past.now), "")
    own = key.startswith("completions")
    values = past.last(key, LONG if own else 0, 2) if key else []
    start = fmean(past.first(key, SHORT if own else 0)) if values else 0.0
    return fmean(values) if start >= 0.2 and fmean(values) < share * start else None


def nan(past: Past, logs: float) -> float | None:
    """Weights are no numbers, or so many logs in a row had such a loss or gradient."""
    if past.now.get(BROKEN):
        return 1.0
    count = 0
    for i in range(past.end - 1, -1, -1):
        row = past.rows[i]
        if "grad_norm" in row or "loss" in row:
            if not any(isinstance(row.get(key), float) and math.isnan(row[key]) for key in ("loss", "grad_norm")):
                break
            count += 1
    return float(count) if count >= logs and "grad_norm" in past.now else None


def stays_nan(past: Past, logs: float) -> float | None:
    """Weights are no numbers, or it goes on so where a step without finite gradients is left out, as with fp16."""
    return nan(past, max(logs, PATIENCE))


def hacking(past: Past, threshold: float) -> float | None:
    """What is not trained on has fallen from its best by more than chance, and the reward has risen since then.

    Chance is what single logs differ by; a fall of several thresholds is none, however much it adds to that itself.
    """
    keys = [key for key in past.now if key in HELD_OUT or (key.startswith("audit/") and key.endswith("/mean"))]
    for key in keys:
        pairs = _with_reward(past, key)
        count, rises = (2, 1.0) if key in HELD_OUT else (8, 2.0)  # logs, and standard errors
        if len(pairs) < 2 * count:
            continue
        (values, chance), (rewards, noise) = (_rolling([pair[i] for pair in pairs], count) for i in (0, 1))
        best = max(range(len(values) - count), key=values.__getitem__)
        fall, rise = values[best] - values[-1], rewards[-1] - rewards[best]
        if fall > max(threshold, min(4.5 * chance, 2.5 * threshold)) and rise > rises * noise:
            return values[-1]
    return None


def _with_reward(past: Past, key: str) -> list[tuple[float, float]]:
    """Pair each log of a metric with the reward by then."""
    reward, pairs = None, list[tuple[float, float]]()
    for row in past.rows[max(0, past.end - LOOKED_BACK) : past.end]:
        reward = reward if (found := number(row.get("reward"))) is None else found
        if (value := number(row.get(key))) is not None and reward is not None:
            pairs.append((value, reward))
    return pairs


def _rolling(values: list[float], count: int) -> tuple[list[float], float]:
    """Return means of so many logs each, and the standard error of a difference of two, by what logs differ in."""
    sums = [0.0, *accumulate(values)]
    noise = fmean((after - before) ** 2 for before, after in pairwise(values)) / 2
    return [(end - begin) / count for begin, end in zip(sums, sums[count:], strict=False)], math.sqrt(2 * noise / count)


def overfit(past: Past, times: float) -> float | None:
    """The loss on held-out rows has been above its best twice in a row, while the one that is trained on fell."""
    held_out = list(islice(past.back("eval_loss"), LOOKED_BACK)) if "eval_loss" in past.now else []
    if len(held_out) < 3:
        return None
    step, best = min(held_out[2:], key=lambda one: one[1])
    losses = list(islice(past.back("loss"), LOOKED_BACK))
    before = [loss for at, loss in losses if at <= step][:SHORT]
    after = [loss for at, loss in losses if at > step][:SHORT]
    fell = bool(before and after) and fmean(after) < fmean(before)
    return held_out[0][1] if fell and min(held_out[0][1], held_out[1][1]) > times * best else None
