r"""Rewards tried on a few real rows before any model is loaded: does the right answer earn the most, and who pays for what.

For each row nine completions are made up, one that gives the gold as it stands and eight that should earn less. Five are
wrong beyond dispute: nothing at all, a wrong answer with and without a thought, the gold inside the thought alone, a flood
of tags. About two boxes that contradict each other and about the prompt copied, rewards may differ. A recipe whose rewards
pay as much for one of these as for the gold teaches that.
"""

import random
import re
import threading
from collections.abc import Sequence
from typing import Any

from reasoning_ext import think
from reasoning_ext.data.values import gold_text
from reasoning_ext.scoring.call import Reward, RewardError, Values, build_rewards, call_reward
from reasoning_ext.scoring.spec import RewardSpec
from reasoning_ext.shown import print
from reasoning_ext.verifier import Rules, Verdict, judge_all, kind

Table = dict[str, dict[str, float | None]]  # what is paid: {completion: {reward: value, None where it does not apply}}

GOLD, NOTHING, WRONG, SHORT = "the gold", "nothing", "a wrong answer", "a short wrong answer"
THOUGHT_ALONE, FLOOD, COPIED = "the gold in the thought alone", "a flood of tags", "the prompt copied"
RIGHT_LAST, RIGHT_FIRST = "a wrong and a right box", "a right and a wrong box"
CERTAIN = (NOTHING, WRONG, SHORT, THOUGHT_ALONE, FLOOD)  # wrong, whatever the reward
_THOUGHT = "Let me work through this one step at a time: 6 + 7 = 13. Then I check the result before I answer."
SECONDS = 60.0  # for `ROWS` rows
ROWS, OF_A_WHEN, VALUES = 8, 4, 16  # rows that rewards are tried on; those for a reward's `when`, and for its values
_PASSED = ("prompt", "completion", "messages")
_OTHERS = 4  # other rows' golds that are looked at for a wrong answer
_MARKS = re.compile(r"[\W_]+")


def golds_of(answer: Any) -> list[str]:
    """Return the texts of a row's gold, several for a list of alternatives, none for NaN, a mapping or nothing at all.

    >>> golds_of(5), golds_of(["Rome", None]), golds_of(float("nan")), golds_of({"a": 1})
    (['5'], ['Rome'], [], [])
    """
    if isinstance(answer, list | tuple):
        return [text for part in answer if not isinstance(part, list | tuple) for text in golds_of(part)]
    text = gold_text(answer)
    return [text] if text and text.strip() else []


def applies(spec: RewardSpec, row: dict[str, Any]) -> bool:
    """Tell whether a reward's `when` leaves a row."""
    return all(row.get(column) in allowed for column, allowed in spec.when.items())


def draw(specs: list[RewardSpec], rows: Any) -> list[dict[str, Any]]:
    """Draw the rows that rewards are tried on from all over the data, some for every `when` and for each of its values.

    Args:
        specs: the rewards.
        rows: a `Dataset` or a list, with a column `answer`; rows without a gold are not drawn.
    """
    names = {"answer", *(column for spec in specs for column in spec.when)}
    whole = hasattr(rows, "num_rows")
    columns = {name: list(rows[name]) if whole else [row.get(name) for row in rows] for name in names}
    usable = [i for i, answer in enumerate(columns["answer"]) if golds_of(answer)]
    chosen = {*_spread(usable, ROWS)}
    for spec in specs:
        if not spec.when or spec.is_async:
            continue
        with_value: dict[str, list[int]] = {}
        for i in usable:
            values = [columns[column][i] for column in spec.when]
            if all(value in allowed for value, allowed in zip(values, spec.when.values(), strict=True)):
                with_value.setdefault(repr(values), []).append(i)
        chosen |= {*_spread([i for own in with_value.values() for i in own], OF_A_WHEN)}
        chosen |= {i for own in _spread([*with_value.values()], VALUES) for i in _spread(own, 1)}
    return list(rows.select(sorted(chosen))) if whole else [rows[i] for i in sorted(chosen)]


def _spread(items: list, count: int) -> list:
    """Take so many items, one at random from each of as many stretches of a list; the same ones every time."""
    count, dice = min(count, len(items)), random.Random(0)
    return [items[dice.randrange(k * len(items) // count, (k + 1) * len(items) // count)] for k in range(count)]


def made_up(row: dict[str, Any], wrong: str, whole_list: bool = False) -> dict[str, str]:
    r"""Return the completions that a row is tried with, `{what it is: text}`; the first gives the gold.

    The gold is boxed as it stands, `$` and all; of one with a box, that box's content.

    Args:
        row: a formatted row with `prompt` and `answer`.
        wrong: an answer that is not the row's.
        whole_list: a gold that is a list is given as a whole; else the first of its alternatives.
    """
    golds = golds_of(row["answer"])
    gold = ", ".join(golds if whole_list else golds[:1])
    right_box, wrong_box = (rf"\boxed{{{think.last_boxed(answer) or answer}}}" for answer in (gold, wrong))
    return {
        GOLD: think.join(_THOUGHT, right_box),
        NOTHING: "",
        WRONG: think.join(_THOUGHT, wrong_box),
        SHORT: wrong_box,
        THOUGHT_ALONE: think.join(f"{_THOUGHT} {right_box}", "I cannot tell."),
        RIGHT_LAST: think.join(_THOUGHT, f"{wrong_box} {right_box}"),
        RIGHT_FIRST: think.join(_THOUGHT, f"{right_box} {wrong_box}"),
        COPIED: think.join(_THOUGHT, think.content(row["prompt"])),
        FLOOD: "<think></think>" * 500,
    }


def wrong_answers(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Find an answer for each row that is wrong beyond dispute: another row's gold if one differs in value, else one made up."""
    golds = [golds_of(row["answer"]) for row in rows]
    first = [texts[0] for texts in golds]
    waiting: dict[int, list[str]] = {}
    for i, gold in enumerate(first):
        others = [other for other in dict.fromkeys([*first[i + 1 :], *first[:i]]) if other != gold]
        others.sort(key=lambda other: kind(other) != kind(gold))
        waiting[i] = [*others[:_OTHERS], *_invented(gold)]
    found: dict[int, str] = {}
    while waiting:
        tried = {i: candidates.pop(0) for i, candidates in waiting.items()}
        triples = [(i, gold, other) for i, other in tried.items() for gold in golds[i]]
        verdicts = judge_all(
            [gold for _, gold, _ in triples],
            [rf"\boxed{{{think.last_boxed(other) or other}}}" for _, _, other in triples],
            questions=[think.content(rows[i]["prompt"]) for i, _, _ in triples],
            rules=Rules(base_may_be_omitted=True),
        )
        judged = zip(triples, verdicts, strict=True)
        doubtful = {i for (i, gold, other), verdict in judged if not _is_wrong(gold, other, verdict)}
        found |= {i: other for i, other in tried.items() if i not in doubtful or not waiting[i]}
        waiting = {i: candidates for i, candidates in waiting.items() if i not in found}
    return [found[i] for i in range(len(rows))]


def _invented(gold: str) -> list[str]:
    """Make up answers that are not the gold, the most telling first; the last one is anybody's guess."""
    bare = _MARKS.sub("", gold)
    if len(bare) == 1 and bare.isascii() and bare.isalpha():
        return ["B" if bare.upper() == "A" else "A", "zebra"]
    if kind(gold) in ("words", "none"):
        return ["zebra", "umbrella"]
    whole = re.fullmatch(r"-?\d{1,18}", gold.strip())
    return [*([str(int(gold) + 1)] if whole else []), "4711", "-0.128", "zebra"]


def _is_wrong(gold: str, other: str, verdict: Verdict) -> bool:
    """Tell whether an answer is wrong beyond dispute: another value; of words, neither may stand in the other."""
    if kind(gold) == "number":
        return verdict.right is False
    one, two = (_MARKS.sub("", text).casefold() for text in (gold, other))
    if kind(gold) == "formula":
        return verdict.right is False and (len(one) > 1 or one != two[:1])  # `A. Paris` is the option `A`
    return bool(one and two) and one not in two and two not in one


def try_rewards(specs: list[RewardSpec], rows: Sequence[dict[str, Any]]) -> list[Table]:
    """Score the made-up completions of some rows.

    Args:
        specs: the rewards; those that wait for a server are left out.
        rows: formatted rows, all with an `answer`.

    Returns:
        for each row `{completion: {reward: value}}`, in the order of `made_up`; None where the reward does not apply.

    Raises:
        RewardError: a reward cannot score them.
    """
    whole_lists = any(spec.options.get("match") == "all" for spec in specs)
    tried = [made_up(row, other, whole_lists) for row, other in zip(rows, wrong_answers(rows), strict=True)]
    texts = [text for row in tried for text in row.values()]
    count = len(tried[0])
    columns: dict[str, Any] = {
        name: [row.get(name) for row in rows for _ in range(count)] for name in rows[0] if name not in _PASSED
    }
    columns["prompts"] = [row["prompt"] for row in rows for _ in range(count)]
    columns["completion_ids"] = [[1] * (len(text) // 4) for text in texts]
    messages = [
        [{"role": "assistant", "content": text}] if isinstance(rows[0]["prompt"], list) else text for text in texts
    ]
    tables: list[Table] = [{name: {} for name in row} for row in tried]
    for reward in build_rewards(specs, tolerated=0):
        if reward.spec.is_async:
            continue
        values = iter(_within(SECONDS * max(1, len(rows) / ROWS), reward, completions=messages, **columns))
        for table in tables:
            for paid in table.values():
                paid[reward.__name__] = next(values)
    return tables


def means(tables: Sequence[Table]) -> Table:
    """Return each completion's mean value a reward over the rows that it applies to, None where it never does."""
    found: Table = {}
    for what, rewards in tables[0].items() if tables else ():
        found[what] = {}
        for name in rewards:
            given = [value for table in tables if (value := table[what][name]) is not None]
            found[what][name] = sum(given) / len(given) if given else None
    return found


def _within(seconds: float, reward: Reward, /, **kwargs: Any) -> Values:
    """Call a reward, and give up on it after some seconds."""
    box: dict[str, Any] = {}

    def call() -> None:
        try:
            box["values"] = call_reward(reward, **kwargs)
        except Exception as error:
            box["error"] = error

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        count = len(kwargs["completions"])
        raise RewardError(
            f"reward {reward.__name__}: no answer for {count} completions in {seconds:g} s; give it a timeout"
        )
    if "error" in box:
        raise box["error"]
    return box["values"]


def overpaid(table: Table, weights: dict[str, float]) -> dict[str, str]:
    """Say what is paid as much as the gold is, and by which rewards; empty where the gold earns the most.

    Where the gold would earn the most but for some rewards that pay less for it, those turn the order round and are named;
    elsewhere those that pay.

    Args:
        table: from `means`.
        weights: each reward's.
    """
    best, found = total(table[GOLD], weights), {}
    for what, values in table.items():
        if what == GOLD or total(values, weights) < best - 1e-9:
            continue
        more = {name: _worth(values, name, weights) - _worth(table[GOLD], name, weights) for name in values}
        turners = [name for name, by in more.items() if by > 0 and sum(more.values()) - by < -1e-9]
        if not turners and any(by < 0 for by in more.values()):
            turners = [name for name, by in more.items() if by > 0]
        said = [
            f"{name} x {weights[name]:g} turns the order round with {_said(values[name])} for it and "
            f"{_said(table[GOLD][name])} for the gold"
            for name in turners
        ] or [f"{name} {value:g}" for name, value in values.items() if value and weights[name] * value > 0]
        paid = ", ".join(said) or "no reward tells them apart"
        found[what] = f"{what} earns {total(values, weights):g}, the gold {best:g} ({paid})"
    return found


def total(values: dict[str, float | None], weights: dict[str, float]) -> float:
    """Return what a completion earns."""
    return sum(_worth(values, name, weights) for name in values)


def _worth(values: dict[str, float | None], name: str, weights: dict[str, float]) -> float:
    return weights[name] * (values[name] or 0.0)


def _said(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def print_table(table: Table) -> None:
    """Print the rewards of each made-up completion as one line."""
    for what, values in table.items():
        shown = (f"{name} {'-' if value is None else format(value, '.2g')}" for name, value in values.items())
        print(f"    {what:30s} {'  '.join(shown)}")
